/* What became of the labels: verdicts class by class, and which label was suggested in place of which. */
#include "report_sections.h"

#include "mdm/report/labels_csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 24, MOST_MATRIX = 120, MOST_CHANGES = 14 };

static int by_doubt(const void *a, const void *b) {
    const chart_row *x = a, *y = b;
    double p = x->parts[1] + x->parts[2], q = y->parts[1] + y->parts[2];
    return (p < q) - (p > q);
}

static mdm_status draw_classes(report_page *p) {
    const report_run *run = p->run;
    chart_row *rows;
    MDM_TRY(MDM_ALLOCATE(rows, run->classes + 1, "verdicts by class"));
    for (int c = 0; c < run->classes; c++) rows[c].name = run->class_names[c];
    for (int64_t i = 0; i < run->labels.count; i++)
        rows[run->labels.given[i]].parts[run->labels.verdict[i]]++;
    if (run->classes > MOST_ROWS) qsort(rows, (size_t)run->classes, sizeof *rows, by_doubt);
    chart_bars chart = {
        .head = {.title = "Verdicts by given label",
                 .note = run->classes > MOST_ROWS ? "the classes with most doubtful labels" : NULL,
                 .description = "For each class, how many pictures with its label were judged clean, "
                                "mislabelled or out of distribution.",
                 .y_label = "given label",
                 .number = ++p->charts},
        .rows = rows,
        .row_count = run->classes < MOST_ROWS ? run->classes : MOST_ROWS,
        .parts = 3,
        .part_names = {"clean", "mislabelled", "out of distribution"},
        .part_colors = {"clean", "wrong", "ood"}};
    chart_draw_bars(&p->text, &chart);
    free(rows);
    return MDM_OK;
}

/* Where the true labels are known: how right the verdicts are. */
static void draw_truth(report_page *p) {
    static const char *const names[] = {"label right", "label wrong", "of no class"};
    const report_run *run = p->run;
    chart_row rows[3] = {{.name = "clean"}, {.name = "mislabelled"}, {.name = "out of distribution"}};
    int64_t suggested = 0, right = 0;
    char note[128];
    if (!run->truth) return;
    for (int64_t i = 0; i < run->labels.count; i++) {
        rows[run->labels.verdict[i]].parts[report_truth(run, i)]++;
        if (run->labels.verdict[i] != MDM_MISLABELLED) continue;
        if (run->truth[i] < 0) continue;
        suggested++;
        right += run->labels.suggested[i] == run->truth[i];
    }
    snprintf(note, sizeof note, "where the picture has a class, %.1f %% of the suggested labels are right",
             suggested ? 100.0 * (double)right / (double)suggested : 0.0);
    chart_bars chart = {
        .head = {.title = "Verdicts beside the truth",
                 .note = suggested ? note : NULL,
                 .description = "For each verdict, how many labels are truly right, wrong, or of no class.",
                 .y_label = "verdict",
                 .number = ++p->charts},
        .rows = rows,
        .row_count = 3,
        .parts = 3,
        .part_names = {names[0], names[1], names[2]},
        .part_colors = {"clean", "wrong", "ood"}};
    chart_draw_bars(&p->text, &chart);
}

/* A given and a suggested label, as one number, and how many pictures have both. */
typedef struct change {
    int64_t pair, count;
} change;

static int by_pair(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Puts a change among the most frequent ones, the lower pair first among equals. */
static int insert_change(change *most, int found, change fresh) {
    int at = found < MOST_CHANGES ? found++ : MOST_CHANGES - 1;
    if (at == MOST_CHANGES - 1 && most[at].count >= fresh.count) return found;
    for (; at > 0 && most[at - 1].count < fresh.count; at--) most[at] = most[at - 1];
    most[at] = fresh;
    return found;
}

/* Sorted by pair, not counted in a table, which a thousand classes would make larger than the pictures. */
static mdm_status find_changes(const report_run *run, change *most, int *found) {
    const report_labels *l = &run->labels;
    int64_t *pairs, count = 0;
    MDM_TRY(MDM_ALLOCATE(pairs, l->count + 1, "the most frequent changes"));
    for (int64_t i = 0; i < l->count; i++)
        if (l->verdict[i] != MDM_OUT_OF_DISTRIBUTION && l->given[i] != l->suggested[i])
            pairs[count++] = (int64_t)l->given[i] * run->classes + l->suggested[i];
    qsort(pairs, (size_t)count, sizeof *pairs, by_pair);
    *found = 0;
    memset(most, 0, MOST_CHANGES * sizeof *most);
    for (int64_t first = 0, end = 0; first < count; first = end) {
        while (end < count && pairs[end] == pairs[first]) end++;
        *found = insert_change(most, *found, (change){pairs[first], end - first});
    }
    free(pairs);
    return MDM_OK;
}

/* The most frequent changes as bars, largest first. */
static mdm_status draw_changes(report_page *p) {
    const report_run *run = p->run;
    change most[MOST_CHANGES];
    chart_row rows[MOST_CHANGES];
    char names[MOST_CHANGES][256];
    int found;
    MDM_TRY(find_changes(run, most, &found));
    memset(rows, 0, sizeof rows);
    for (int i = 0; i < found; i++) {
        snprintf(names[i], sizeof names[i], "%.120s \xe2\x86\x92 %.120s",
                 run->class_names[most[i].pair / run->classes],
                 run->class_names[most[i].pair % run->classes]);
        rows[i] = (chart_row){.name = names[i], .parts = {(double)most[i].count}};
    }
    chart_bars chart = {.head = {.title = "The most frequent changes",
                                 .note = "from the given to the suggested label",
                                 .description = "The pairs of given and suggested label with most pictures.",
                                 .y_label = "given and suggested label",
                                 .number = ++p->charts},
                        .rows = rows,
                        .row_count = found,
                        .parts = 1,
                        .part_names = {"pictures"},
                        .part_colors = {"wrong"}};
    if (found) chart_draw_bars(&p->text, &chart);
    return MDM_OK;
}

static mdm_status draw_matrix(report_page *p) {
    const report_run *run = p->run;
    int64_t *counts;
    if (run->classes > MOST_MATRIX) {
        mdm_text_add(&p->text,
                     "<p>The table of changes is left out: it is drawn for at most %d classes. "
                     "<code>labels.csv</code> has every suggestion.</p>\n<div class=\"grid wide\">\n",
                     MOST_MATRIX);
        mdm_status drawn = draw_changes(p);
        mdm_text_add(&p->text, "</div>\n");
        return drawn;
    }
    MDM_TRY(MDM_ALLOCATE(counts, (int64_t)run->classes * run->classes + 1, "the transition matrix"));
    for (int64_t i = 0; i < run->labels.count; i++)
        if (run->labels.verdict[i] != MDM_OUT_OF_DISTRIBUTION)
            counts[(int64_t)run->labels.given[i] * run->classes + run->labels.suggested[i]]++;
    chart_matrix chart = {
        .head = {.title = "From given to suggested label",
                 .note = "in percent of each given label; pictures out of distribution left out",
                 .description = "A table of shades: rows are given labels, columns suggested ones; "
                                "the diagonal is agreement.",
                 .number = ++p->charts},
        .classes = run->classes,
        .names = run->class_names,
        .counts = counts};
    mdm_text_add(&p->text, "<div class=\"grid wide\">\n");
    chart_draw_matrix(&p->text, &chart);
    mdm_status status = draw_changes(p);
    mdm_text_add(&p->text, "</div>\n");
    free(counts);
    return status;
}

mdm_status report_section_labels(report_page *p) {
    if (!p->run->labels.count) return MDM_OK;
    html_open_section(
        &p->text, "labels", "The labels",
        "What the networks think of the labels they were given. A label counts as wrong when both its "
        "loss and the prediction speak against it; a picture counts as out of distribution when nothing "
        "in the set is like it. Off the diagonal of the table, strong shades are classes that get mixed "
        "up.");
    mdm_text_add(&p->text, "<div class=\"grid\">\n");
    mdm_status status = draw_classes(p);
    draw_truth(p);
    mdm_text_add(&p->text, "</div>\n<h3>Which label for which</h3>\n");
    if (status == MDM_OK) status = draw_matrix(p);
    html_close_section(&p->text);
    return status;
}
