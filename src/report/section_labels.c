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

/* The most frequent changes as bars, largest first. */
static mdm_status draw_changes(report_page *p, const int64_t *counts) {
    const report_run *run = p->run;
    int64_t cells = (int64_t)run->classes * run->classes, index[MOST_CHANGES];
    float *score;
    chart_row rows[MOST_CHANGES];
    char names[MOST_CHANGES][256];
    MDM_TRY(MDM_ALLOCATE(score, cells + 1, "the most frequent changes"));
    for (int64_t i = 0; i < cells; i++)
        score[i] = i / run->classes == i % run->classes ? 0 : (float)counts[i];
    int64_t found = report_largest(score, cells, index, MOST_CHANGES);
    free(score);
    memset(rows, 0, sizeof rows);
    for (int64_t i = 0; i < found; i++) {
        snprintf(names[i], sizeof names[i], "%.120s \xe2\x86\x92 %.120s",
                 run->class_names[index[i] / run->classes], run->class_names[index[i] % run->classes]);
        rows[i] = (chart_row){.name = names[i], .parts = {(double)counts[index[i]]}};
    }
    chart_bars chart = {.head = {.title = "The most frequent changes",
                                 .note = "from the given to the suggested label",
                                 .description = "The pairs of given and suggested label with most pictures.",
                                 .y_label = "given and suggested label",
                                 .number = ++p->charts},
                        .rows = rows,
                        .row_count = (int)found,
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
                     "<code>labels.csv</code> has every suggestion.</p>\n",
                     MOST_MATRIX);
        return MDM_OK;
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
    mdm_status status = draw_changes(p, counts);
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
