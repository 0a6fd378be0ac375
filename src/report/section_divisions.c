/* Each division: the losses with the fitted mixture and the threshold, the out-of-distribution scores, and
 * the sets that came of them; coloured by the true labels where they are known. */
#include "report_sections.h"

#include "mdm/divide/split.h"
#include "mdm/report/run_folder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SHEETS = 10, BINS = 56, MOST_POINTS = 160 };

static const char *const truth_names[] = {"label right", "label wrong", "of no class"};
static const char *const set_names[] = {"labelled", "unlabelled", "removed"};
static const char *const part_colors[] = {"clean", "wrong", "ood"};

/* What a bar is coloured by: 0 to 2. */
static int part_of(const report_run *run, const mdm_division_network *n, int64_t sample) {
    if (run->truth) return report_truth(run, sample);
    return n->split[sample] == MDM_LABELLED ? 0 : n->split[sample] == MDM_UNLABELLED ? 1 : 2;
}

typedef struct mixture {
    const mdm_division_network *network;
    double scale; /* losses a unit of the scaled ones */
    double samples_times_width;
} mixture;

static double density(const mdm_division_network *n, int component, double scaled) {
    double variance = n->gmm_variances[component], d = scaled - n->gmm_means[component];
    return n->gmm_weights[component] * exp(-d * d / (2 * variance)) /
           sqrt(2 * 3.14159265358979323846 * variance);
}

/* A component's share of the samples in a bin around the loss x. */
static double curve(const void *context, int component, double x) {
    const mixture *m = context;
    double scaled = (x - m->network->loss_minimum) / m->scale;
    return m->samples_times_width / m->scale * density(m->network, component, scaled);
}

/* The loss above which a label's clean probability is below the threshold: the first crossing to the right of
 * the lower mean. NAN when there is none. */
static double find_threshold(const mdm_division_network *n, double threshold) {
    for (int i = 0; i <= 2000; i++) {
        double scaled = n->gmm_means[0] + (1 - n->gmm_means[0]) * i / 2000;
        double low = density(n, 0, scaled), high = density(n, 1, scaled);
        if (low + high > 0 && low / (low + high) <= threshold)
            return n->loss_minimum + scaled * (n->loss_maximum - n->loss_minimum);
    }
    return NAN;
}

static void name_parts(const report_run *run, chart_histogram *h) {
    h->parts = 3;
    for (int i = 0; i < 3; i++) {
        h->part_names[i] = run->truth ? truth_names[i] : set_names[i];
        h->part_colors[i] = part_colors[i];
    }
}

static void fill(const report_run *run, const mdm_division_network *n, const float *value, int64_t samples,
                 chart_histogram *h) {
    for (int64_t i = 0; i < samples; i++) {
        if (!isfinite(value[i])) continue;
        double place = (value[i] - h->low) / (h->high - h->low) * h->bins; /* may be more than an int holds */
        int bin = place < 0 ? 0 : place < h->bins ? (int)place : h->bins - 1;
        h->counts[part_of(run, n, i)][bin]++;
    }
}

static void draw_losses(report_page *p, const mdm_division_network *n, int network, int64_t samples) {
    chart_histogram h;
    char title[64], note[160];
    double highest = 0, width;
    memset(&h, 0, sizeof h);
    for (int64_t i = 0; i < samples; i++)
        if (n->loss[i] > highest) highest = n->loss[i];
    h.low = n->loss_minimum;
    h.high = n->loss_maximum > h.low ? n->loss_maximum : h.low + fmax(1, fabs(h.low));
    h.bins = BINS;
    width = (h.high - h.low) / h.bins;
    mixture m = {n, h.high - h.low, (double)samples * width};
    snprintf(title, sizeof title, "Losses, network %c", 'a' + network);
    if (highest > h.high * 1.001)
        snprintf(note, sizeof note, "lines: the fitted mixture; losses above %.2f count as %.2f", h.high,
                 h.high);
    else
        snprintf(note, sizeof note, "lines: the two components of the fitted mixture");
    h.head = (chart_head){
        title,
        note,
        "A histogram of the losses of all training samples, with the two Gaussians fitted to them and "
        "the loss above which labels are not believed.",
        "loss of the given label",
        "pictures",
        ++p->charts};
    name_parts(p->run, &h);
    h.curves = 2;
    h.curve = curve;
    h.context = &m;
    h.curve_names[0] = "component of the lower mean: clean", h.curve_colors[0] = "clean";
    h.curve_names[1] = "component of the higher mean: noisy", h.curve_colors[1] = "wrong";
    h.mark = p->run->config ? find_threshold(n, p->run->config->divide.threshold) : NAN;
    h.mark_name = "not believed \xe2\x86\x92";
    fill(p->run, n, n->loss, samples, &h);
    chart_draw_histogram(&p->text, &h);
}

static void draw_scores(report_page *p, const mdm_division_network *n, int network, int64_t samples) {
    chart_histogram h;
    char title[64];
    float low = INFINITY, high = 0, least = INFINITY;
    memset(&h, 0, sizeof h);
    for (int64_t i = 0; i < samples; i++) {
        if (n->ood_score[i] < low) low = n->ood_score[i];
        if (n->ood_score[i] > high) high = n->ood_score[i];
        if (n->split[i] == MDM_REMOVED && n->ood_score[i] < least) least = n->ood_score[i];
    }
    h.low = isfinite(low) && low < 0 ? (double)low : 0;
    h.high = high > h.low ? (double)high : h.low + fmax(1, fabs(h.low));
    h.bins = BINS;
    snprintf(title, sizeof title, "Distances, network %c", 'a' + network);
    h.head = (chart_head){
        title,
        "right of the line: removed as out of distribution",
        "A histogram of the out-of-distribution scores of all training samples, and the score from "
        "which samples are removed.",
        "mean cosine distance to the nearest others",
        "pictures",
        ++p->charts};
    name_parts(p->run, &h);
    h.mark = isfinite(least) ? (double)least : NAN;
    h.mark_name = "removed \xe2\x86\x92";
    fill(p->run, n, n->ood_score, samples, &h);
    chart_draw_histogram(&p->text, &h);
}

static void draw_sets(report_page *p, const mdm_division_network *n, int network, int64_t samples) {
    chart_row rows[3] = {{.name = set_names[0]}, {.name = set_names[1]}, {.name = set_names[2]}};
    char title[64];
    for (int64_t i = 0; i < samples; i++) {
        int split = n->split[i], set = split == MDM_LABELLED ? 0 : split == MDM_UNLABELLED ? 1 : 2;
        rows[set].parts[p->run->truth ? report_truth(p->run, i) : set]++;
    }
    snprintf(title, sizeof title, "The three sets, network %c", 'a' + network);
    chart_bars chart = {.head = {.title = title,
                                 .description = "How many samples the network's division put into each set.",
                                 .y_label = "set",
                                 .number = ++p->charts},
                        .rows = rows,
                        .row_count = 3,
                        .parts = 3,
                        .no_legend = 1};
    for (int i = 0; i < 3; i++) {
        chart.part_names[i] = p->run->truth ? truth_names[i] : set_names[i];
        chart.part_colors[i] = part_colors[i];
    }
    chart_draw_bars(&p->text, &chart);
}

/* One ROC curve: cumulative shares by falling score, ties together, thinned to what can be seen. */
typedef struct scored {
    float score;
    uint8_t positive;
} scored;

static int by_score(const void *a, const void *b) {
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x < y) - (x > y);
}

static mdm_status make_roc(const float *score, const uint8_t *positive, int64_t n, double *x, double *y,
                           int64_t *count) {
    scored *all;
    int64_t positives = 0, hits = 0;
    MDM_TRY(MDM_ALLOCATE(all, n + 1, "a ROC curve"));
    for (int64_t i = 0; i < n; i++) {
        all[i] = (scored){score[i], positive[i] != 0};
        positives += positive[i] != 0;
    }
    qsort(all, (size_t)n, sizeof *all, by_score);
    *count = 0;
    x[0] = y[0] = 0;
    if (positives > 0 && positives < n) {
        *count = 1;
        for (int64_t i = 0; i < n; i++) {
            hits += all[i].positive;
            if (i + 1 < n && all[i + 1].score == all[i].score) continue;
            double right = (double)hits / (double)positives,
                   wrong = (double)(i + 1 - hits) / (double)(n - positives);
            double step = fabs(right - y[*count - 1]) + fabs(wrong - x[*count - 1]);
            if (i + 1 < n && step < 2.0 / (MOST_POINTS - 4)) continue;
            x[*count] = wrong;
            y[(*count)++] = right;
        }
    }
    free(all);
    return MDM_OK;
}

/* Room for the curves of the last division: networks a and b. */
typedef struct roc {
    double x[2][MOST_POINTS], y[2][MOST_POINTS], auc[2];
    int64_t count[2];
    uint8_t *positive;
    float *rank;
} roc;

static mdm_status fill_roc(const report_run *run, const mdm_division *d, int noise, roc *r) {
    for (int n = 0; n < d->networks; n++) {
        const mdm_division_network *network = &d->network[n];
        const float *score = network->ood_score;
        for (int64_t i = 0; i < d->samples; i++)
            r->positive[i] = noise ? run->truth[i] != run->labels.given[i] : run->truth[i] < 0;
        if (noise) {
            MDM_TRY(mdm_noise_rank(network->clean_probability, network->loss, d->samples, r->rank));
            score = r->rank;
        }
        MDM_TRY(mdm_auc(score, r->positive, d->samples, &r->auc[n]));
        MDM_TRY(make_roc(score, r->positive, d->samples, r->x[n], r->y[n], &r->count[n]));
    }
    return MDM_OK;
}

static void draw_roc(report_page *p, const mdm_division *d, int noise, const roc *r) {
    static const char *const colors[] = {"a", "b"};
    char names[2][48];
    chart_series series[2];
    int count = 0;
    for (int n = 0; n < d->networks; n++) {
        if (!r->count[n]) continue;
        snprintf(names[n], sizeof names[n], "network %c, AUC %.3f", 'a' + n, r->auc[n]);
        series[count++] = (chart_series){names[n], colors[n], r->x[n], r->y[n], r->count[n], 0};
    }
    if (!count) return;
    chart_lines chart = {
        .head = {noise ? "Finding wrong labels" : "Finding strangers",
                 noise ? "by clean probability and loss, at the last division"
                       : "by the distance to neighbours, at the last division",
                 "The share of what is to be found against the share of false alarms, as the threshold "
                 "falls.",
                 "false alarms", noise ? "wrong labels found" : "strangers found", ++p->charts},
        .series = series,
        .series_count = count,
        .low = 0,
        .high = 1,
        .percent = 1,
        .diagonal = 1};
    chart_draw_lines(&p->text, &chart);
}

static mdm_status add_rocs(report_page *p, const mdm_division *d) {
    roc *r;
    MDM_TRY(MDM_ALLOCATE(r, 1, "ROC curves"));
    mdm_status status = MDM_ALLOCATE(r->positive, d->samples + 1, "ROC curves");
    if (status == MDM_OK) status = MDM_ALLOCATE(r->rank, d->samples + 1, "ROC curves");
    mdm_text_add(&p->text,
                 "<h3>Against the truth</h3>\n<p class=\"lead\">The true labels of this set are known, so "
                 "that the finding can be measured: the nearer a curve comes to the upper left corner, the "
                 "better.</p>\n<div class=\"grid\">\n");
    for (int noise = 1; status == MDM_OK && noise >= 0; noise--) {
        status = fill_roc(p->run, d, noise, r);
        if (status == MDM_OK) draw_roc(p, d, noise, r);
    }
    mdm_text_add(&p->text, "</div>\n");
    free(r->positive);
    free(r->rank);
    free(r);
    return status;
}

/* Figures of the divide events over the epochs, by network. */
static int64_t pick_events(const report_run *run, const char *network, const char *field, double *x,
                           double *y, int64_t most) {
    int64_t count = 0;
    for (size_t i = 0; i < json_array_size(run->divides) && count < most; i++) {
        const json_t *event = json_array_get(run->divides, i);
        const char *name = json_string_value(json_object_get(event, "network"));
        const json_t *value = json_object_get(event, field);
        if (!name || strcmp(name, network) != 0 || !json_is_number(value) || json_object_get(event, "stage"))
            continue;
        x[count] = json_number_value(json_object_get(event, "epoch")) + 1; /* as the tabs count */
        y[count++] = json_number_value(value);
    }
    return count;
}

static mdm_status draw_course(report_page *p, const char *const fields[], const char *const names[],
                              const char *const colors[], int fields_count, const char *title,
                              const char *label, double low) {
    size_t most = json_array_size(p->run->divides);
    chart_series series[6];
    double *memory;
    char texts[6][32];
    int count = 0;
    if (most < 3) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(memory, 12 * most, "a chart"));
    for (int f = 0; f < fields_count; f++)
        for (int n = 0; n < p->run->networks; n++) {
            double *x = memory + 2 * most * (size_t)count, *y = x + most;
            const char network[2] = {(char)('a' + n), 0};
            int64_t points = pick_events(p->run, network, fields[f], x, y, (int64_t)most);
            if (points < 2) continue;
            snprintf(texts[count], sizeof texts[0], "%s %s", names[f], network);
            series[count] = (chart_series){texts[count], colors[f], x, y, points, n > 0};
            count++;
        }
    chart_lines chart = {.head = {title, "dashed: network b", "Figures of each division over the epochs.",
                                  "before epoch", label, p->charts + 1},
                         .series = series,
                         .series_count = count,
                         .low = low,
                         .high = NAN};
    if (count) {
        p->charts++;
        chart_draw_lines(&p->text, &chart);
    }
    free(memory);
    return MDM_OK;
}

static mdm_status draw_courses(report_page *p) {
    static const char *const sets[] = {"labelled", "unlabelled", "removed"};
    static const char *const aucs[] = {"auc_noise", "auc_ood"}, *const auc_names[] = {"noise", "strangers"};
    static const char *const auc_colors[] = {"wrong", "ood"};
    mdm_text_add(&p->text, "<div class=\"grid\">\n");
    mdm_status status = draw_course(p, sets, sets, part_colors, 3, "Sizes of the sets", "pictures", 0);
    if (status == MDM_OK)
        status = draw_course(p, aucs, auc_names, auc_colors, 2, "How well they are found", "AUC", NAN);
    mdm_text_add(&p->text, "</div>\n");
    return status;
}

static mdm_status read_division(const report_run *run, int number, mdm_division *d) {
    char *path = mdm_run_folder_division(run->folder, run->divisions[number]);
    mdm_status status =
        path ? mdm_division_read(path, 0, d) : mdm_fail(MDM_RESOURCE, "out of memory for a path");
    free(path);
    MDM_TRY(status);
    if (run->labels.count && d->samples != run->labels.count) {
        mdm_division_free(d);
        return mdm_fail(MDM_INPUT, "%s: the division of epoch %lld is of another data set", run->folder,
                        (long long)run->divisions[number]);
    }
    return MDM_OK;
}

static mdm_status add_sheet(report_page *p, int number, int is_last) {
    mdm_division d;
    mdm_status status = read_division(p->run, number, &d);
    mdm_text_add(&p->text, "<div class=\"sheet\"><h3>Before epoch %lld</h3>\n",
                 (long long)p->run->divisions[number] + 1);
    if (status != MDM_OK) { /* a damaged file: the others are still worth showing */
        mdm_text_add(&p->text, "<p class=\"note\">Left out: ");
        html_text(&p->text, mdm_last_message());
        mdm_text_add(&p->text, ".</p></div>\n");
        return MDM_OK;
    }
    chart_legend(&p->text, p->run->truth ? truth_names : set_names, part_colors, 3);
    mdm_text_add(&p->text, "<div class=\"grid\">\n");
    for (int n = 0; n < d.networks; n++) draw_losses(p, &d.network[n], n, d.samples);
    for (int n = 0; n < d.networks; n++) draw_scores(p, &d.network[n], n, d.samples);
    for (int n = 0; n < d.networks; n++) draw_sets(p, &d.network[n], n, d.samples);
    mdm_text_add(&p->text, "</div>\n");
    if (is_last && p->run->truth) status = add_rocs(p, &d);
    mdm_text_add(&p->text, "</div>\n");
    mdm_division_free(&d);
    return status;
}

/* The divisions that are shown: all of them, or the first, the last and some evenly between. */
static int choose_sheets(int divisions, int *chosen) {
    int count = divisions < MOST_SHEETS ? divisions : MOST_SHEETS;
    for (int i = 0; i < count; i++)
        chosen[i] = count == 1 ? divisions - 1 : (int)((long long)i * (divisions - 1) / (count - 1));
    return count;
}

mdm_status report_section_divisions(report_page *p) {
    const report_run *run = p->run;
    int chosen[MOST_SHEETS], count = choose_sheets(run->division_count, chosen);
    mdm_status status = MDM_OK;
    if (count == 0) return MDM_OK;
    html_open_section(
        &p->text, "divisions", "The divisions",
        "At each division both networks look at every picture. Those far from all others are removed; of "
        "the rest, a mixture of two Gaussians parts low losses, whose labels are believed, from high "
        "ones. Two hills well apart are a good sign.");
    MDM_TRY(draw_courses(p));
    if (count < run->division_count)
        mdm_text_add(
            &p->text,
            "<p class=\"lead\">%d of the %d divisions are shown; <code>divisions/</code> has all.</p>\n",
            count, run->division_count);
    mdm_text_add(&p->text, "<fieldset class=\"tabs\"><legend>Division before epoch</legend>\n");
    for (int i = 0; i < count; i++)
        mdm_text_add(&p->text,
                     "<input type=\"radio\" name=\"division\" id=\"division-%d\"%s><label "
                     "for=\"division-%d\">%lld</label>\n",
                     i, i == count - 1 ? " checked" : "", i, (long long)run->divisions[chosen[i]] + 1);
    for (int i = 0; status == MDM_OK && i < count; i++) status = add_sheet(p, chosen[i], i == count - 1);
    mdm_text_add(&p->text, "</fieldset>\n");
    html_close_section(&p->text);
    return status;
}
