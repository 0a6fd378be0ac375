/* How the training went: accuracy and losses over the epochs, stages shaded, baselines beside it. */
#include "report_sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SERIES = 8 };

double report_top1(const report_epoch *epoch, int part) {
    (void)part;
    return epoch->top1;
}

static double top5(const report_epoch *epoch, int part) {
    (void)part;
    return epoch->top5;
}

static double loss(const report_epoch *epoch, int part) {
    (void)part;
    return epoch->loss;
}

static double part_of(const report_epoch *epoch, int part) {
    return epoch->parts[part];
}

mdm_status report_pick(const report_run *run, int first_stage, int last_stage, char network,
                       report_value value, int part, double **x, double **y, int64_t *count) {
    *x = *y = NULL;
    *count = 0;
    mdm_status status = MDM_ALLOCATE(*x, run->epoch_count + 1, "a chart");
    if (status == MDM_OK) status = MDM_ALLOCATE(*y, run->epoch_count + 1, "a chart");
    for (int64_t i = 0; status == MDM_OK && i < run->epoch_count; i++) {
        const report_epoch *e = &run->epochs[i];
        if (e->stage < first_stage || e->stage > last_stage || e->network != network) continue;
        if (!isfinite(value(e, part))) continue;
        (*x)[*count] = (double)e->epoch + 1;
        (*y)[(*count)++] = value(e, part);
    }
    if (status != MDM_OK) {
        free(*x);
        *x = NULL;
    }
    return status;
}

int report_stage_bands(const report_run *run, chart_band bands[2]) {
    int64_t warmup = 0, last = 0;
    for (int64_t i = 0; i < run->epoch_count; i++) {
        const report_epoch *e = &run->epochs[i];
        if (e->stage == REPORT_WARMUP && e->epoch + 1 > warmup) warmup = e->epoch + 1;
        if (e->stage == REPORT_SEMI && e->epoch + 1 > last) last = e->epoch + 1;
    }
    int count = 0;
    if (warmup) bands[count++] = (chart_band){"warm-up", 0, (double)warmup};
    if (last) bands[count++] = (chart_band){"semi-supervised", (double)warmup, (double)last};
    return count;
}

/* Lines of one chart, with the memory that they take. */
typedef struct lines {
    chart_series series[MOST_SERIES];
    double *memory[2 * MOST_SERIES];
    int count;
} lines;

static mdm_status add_line(lines *l, const report_run *run, int first, int last, char network,
                           report_value value, int part, const char *name, const char *color, int dashed) {
    double *x, *y;
    int64_t count;
    MDM_TRY(report_pick(run, first, last, network, value, part, &x, &y, &count));
    if (count == 0) {
        free(x);
        free(y);
        return MDM_OK;
    }
    l->memory[2 * l->count] = x;
    l->memory[2 * l->count + 1] = y;
    l->series[l->count++] = (chart_series){name, color, x, y, count, dashed};
    return MDM_OK;
}

static void free_lines(lines *l) {
    for (int i = 0; i < 2 * l->count; i++) free(l->memory[i]);
}

static void draw(report_page *p, const lines *l, const char *title, const char *note, const char *description,
                 const char *y_label, int percent, int with_bands) {
    chart_band bands[2];
    chart_lines chart = {.head = {title, note, description, "epoch", y_label, p->charts + 1},
                         .series = l->series,
                         .series_count = l->count,
                         .bands = bands,
                         .band_count = with_bands ? report_stage_bands(p->run, bands) : 0,
                         .low = NAN,
                         .high = NAN,
                         .percent = percent};
    if (l->count == 0) return;
    p->charts++;
    chart_draw_lines(&p->text, &chart);
}

static mdm_status draw_accuracy(report_page *p) {
    lines l = {.count = 0};
    const char *together = p->run->networks > 1 ? "both networks" : "network";
    mdm_status status =
        add_line(&l, p->run, REPORT_WARMUP, REPORT_SEMI, 'e', report_top1, 0, together, "clean", 0);
    if (status == MDM_OK)
        status = add_line(&l, p->run, REPORT_BASELINE_CE, REPORT_BASELINE_CE, 'e', report_top1, 0,
                          "cross entropy", "base", 1);
    if (status == MDM_OK)
        status = add_line(&l, p->run, REPORT_BASELINE_SCE, REPORT_BASELINE_SCE, 'e', report_top1, 0,
                          "symmetric CE", "wrong", 1);
    draw(p, &l, "Accuracy on the test set",
         l.count > 1 ? "dashed: one network trained on all given labels, nothing else" : NULL,
         "The share of test pictures classified rightly, after each epoch.", "first answer right", 1, 1);
    free_lines(&l);
    return status;
}

static mdm_status draw_top5(report_page *p) {
    lines l = {.count = 0};
    mdm_status status = MDM_OK;
    if (p->run->classes > 10)
        status = add_line(&l, p->run, REPORT_WARMUP, REPORT_SEMI, 'e', top5, 0, "among first 5", "clean", 0);
    draw(p, &l, "Among the first five", NULL,
         "The share of test pictures whose class is among the five likeliest.", "right among five", 1, 1);
    free_lines(&l);
    return status;
}

static mdm_status draw_losses(report_page *p) {
    lines l = {.count = 0};
    mdm_status status = add_line(&l, p->run, REPORT_WARMUP, REPORT_SEMI, 'a', loss, 0, "network a", "a", 0);
    if (status == MDM_OK)
        status = add_line(&l, p->run, REPORT_WARMUP, REPORT_SEMI, 'b', loss, 0, "network b", "b", 0);
    draw(p, &l, "Training loss", "warm-up and semi-supervised phase minimise different sums",
         "The mean loss of each epoch, by network.", "loss", 0, 1);
    free_lines(&l);
    return status;
}

static mdm_status draw_parts(report_page *p) {
    static const char *const names[REPORT_PARTS] = {"labelled",          "unlabelled", "labelled, mixed",
                                                    "unlabelled, mixed", "contrast",   "balance"};
    static const char *const colors[REPORT_PARTS] = {"clean", "wrong", "clean", "wrong", "ood", "base"};
    lines l = {.count = 0};
    mdm_status status = MDM_OK;
    for (int part = 0; status == MDM_OK && part < REPORT_PARTS; part++)
        status = add_line(&l, p->run, REPORT_SEMI, REPORT_SEMI, 'a', part_of, part, names[part], colors[part],
                          part == 2 || part == 3);
    draw(p, &l, "Parts of the semi-supervised loss", "network a, before weighting; dashed: mixed embeddings",
         "The parts that the loss of the semi-supervised phase is summed from.", "loss", 0, 0);
    free_lines(&l);
    return status;
}

static mdm_status draw_pretraining(report_page *p) {
    lines l = {.count = 0};
    mdm_status status =
        add_line(&l, p->run, REPORT_PRETRAIN, REPORT_PRETRAIN, 'a', loss, 0, "network a", "a", 0);
    if (status == MDM_OK)
        status = add_line(&l, p->run, REPORT_PRETRAIN, REPORT_PRETRAIN, 'b', loss, 0, "network b", "b", 0);
    draw(p, &l, "Self-supervised start", "contrastive loss, labels unused",
         "The contrastive loss of each epoch of pretraining, by network.", "loss", 0, 0);
    free_lines(&l);
    return status;
}

static void add_share(report_page *p, const char *key) {
    double value = key ? report_summary(p->run, key) : NAN;
    if (!isfinite(value)) {
        mdm_text_add(&p->text, "<td></td>");
        return;
    }
    mdm_text_add(&p->text, "<td data-key=\"%s\" data-value=\"%.9g\">", key, value);
    html_percent(&p->text, value);
    mdm_text_add(&p->text, "</td>");
}

static int knows(const report_page *p, const char *key) {
    return key && isfinite(report_summary(p->run, key));
}

static void draw_baselines(report_page *p) {
    static const struct {
        const char *key, *validation, *name;
    } rows[] = {{"final_top1", "best_validation_top1", "this run"},
                {"before_semi_top1", NULL, "at the end of warm-up"},
                {"baseline_ce_top1", "baseline_ce_best_validation_top1", "cross entropy alone"},
                {"baseline_sce_top1", "baseline_sce_best_validation_top1", "symmetric cross entropy alone"}};
    mdm_text *t = &p->text;
    int has_validation = knows(p, rows[2].validation) || knows(p, rows[3].validation);
    if (!knows(p, rows[2].key) && !knows(p, rows[3].key) && !has_validation) return;
    mdm_text_add(
        t, "<h3>Beside the baselines</h3>\n<div class=\"facts-box\"><table class=\"facts\"><thead><tr><th "
           "scope=\"col\">trained by</th><th scope=\"col\">test accuracy</th>");
    mdm_text_add(t, "%s</tr></thead><tbody>",
                 has_validation ? "<th scope=\"col\">best validation accuracy</th>" : "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!knows(p, rows[i].key) && !knows(p, rows[i].validation)) continue;
        mdm_text_add(t, "<tr><th scope=\"row\">%s</th>", rows[i].name);
        add_share(p, rows[i].key);
        if (has_validation) add_share(p, rows[i].validation);
        mdm_text_add(t, "</tr>");
    }
    mdm_text_add(t, "</tbody></table></div>\n");
    double here = report_summary(p->run, "final_top1");
    if (report_summary(p->run, "baseline_ce_top1") > here ||
        report_summary(p->run, "baseline_sce_top1") > here)
        mdm_text_add(t,
                     "<p class=\"note\">A single network without divisions was better than this run: it was "
                     "short, or its settings do not suit the data. docs/settings.md, &ldquo;Are the "
                     "settings right?&rdquo;, tells what to change.</p>\n");
}

mdm_status report_section_training(report_page *p) {
    html_open_section(
        &p->text, "training", "The training",
        "Warm-up learns the labels as given; at its end the samples are divided for the first time. In "
        "the semi-supervised phase only labels that are believed count, the other pictures help without "
        "theirs.");
    mdm_text_add(&p->text, "<div class=\"grid\">\n");
    mdm_status status = draw_accuracy(p);
    if (status == MDM_OK) status = draw_losses(p);
    if (status == MDM_OK) status = draw_top5(p);
    if (status == MDM_OK) status = draw_parts(p);
    if (status == MDM_OK) status = draw_pretraining(p);
    mdm_text_add(&p->text, "</div>\n");
    draw_baselines(p);
    html_close_section(&p->text);
    return status;
}
