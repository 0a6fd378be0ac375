/* The top of the page: what was run, and what came of it, in five figures and one bar. */
#include "report_sections.h"

#include "mdm/report/labels_csv.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void count_verdicts(const report_run *run, int64_t counts[3]) {
    memset(counts, 0, 3 * sizeof *counts);
    for (int64_t i = 0; i < run->labels.count; i++) counts[run->labels.verdict[i]]++;
}

static void open_card(mdm_text *t, const char *what) {
    mdm_text_add(t, "<li><span class=\"what\">%s</span><b>", what);
}

static void more(mdm_text *t) {
    mdm_text_add(t, "</b><span class=\"more\">");
}

static void close_card(mdm_text *t) {
    mdm_text_add(t, "</span></li>\n");
}

/* The course of the accuracy without axes; the figure beside it says the rest. */
static void draw_spark(report_page *p) {
    double *x, *y, low = INFINITY, high = -INFINITY;
    int64_t count;
    if (report_pick(p->run, REPORT_WARMUP, REPORT_SEMI, 'e', report_top1, 0, &x, &y, &count) != MDM_OK)
        return;
    for (int64_t i = 0; i < count; i++) {
        if (y[i] < low) low = y[i];
        if (y[i] > high) high = y[i];
    }
    if (count > 2 && high > low) {
        mdm_text_add(&p->text,
                     "<svg aria-hidden=\"true\" viewBox=\"0 0 200 34\" preserveAspectRatio=\"none\"><path "
                     "class=\"line\" style=\"stroke:var(--clean)\" vector-effect=\"non-scaling-stroke\" "
                     "d=\"");
        for (int64_t i = 0; i < count; i++)
            mdm_text_add(&p->text, "%s%.1f %.1f", i ? "L" : "M", 200.0 * (double)i / (double)(count - 1),
                         31 - 28 * (y[i] - low) / (high - low));
        mdm_text_add(&p->text, "\"/></svg>");
    }
    free(x);
    free(y);
}

/* Of a run that has not ended: the last accuracy that was measured. */
static void card_latest_accuracy(report_page *p) {
    const report_epoch *last = NULL;
    for (int64_t i = 0; i < p->run->epoch_count; i++) {
        const report_epoch *e = &p->run->epochs[i];
        if ((e->stage == REPORT_WARMUP || e->stage == REPORT_SEMI) && isfinite(e->top1)) last = e;
    }
    if (!last) return;
    open_card(&p->text, "Test accuracy");
    html_percent(&p->text, last->top1);
    more(&p->text);
    mdm_text_add(&p->text, "after epoch %" PRId64 "</span>", last->epoch + 1);
    draw_spark(p);
    mdm_text_add(&p->text, "</li>\n");
}

/* Of a run that has not ended: how far it is. */
static void card_progress(report_page *p) {
    static const char *const stages[] = {"self-supervised start", "warm-up", "semi-supervised phase"};
    const report_run *run = p->run;
    const report_epoch *last = NULL;
    for (int64_t i = 0; i < run->epoch_count; i++)
        if (run->epochs[i].stage <= REPORT_SEMI) last = &run->epochs[i];
    if (run->ended || !run->config || !last) return;
    open_card(&p->text, "Epochs done");
    mdm_text_add(&p->text, "%" PRId64 " of %d", last->epoch + 1,
                 last->stage == REPORT_PRETRAIN ? run->config->pretrain.epochs : run->config->train.epochs);
    more(&p->text);
    mdm_text_add(&p->text, "%s", stages[last->stage]);
    close_card(&p->text);
}

static void card_accuracy(report_page *p) {
    mdm_text *t = &p->text;
    double top1 = report_summary(p->run, "final_top1"), before = report_summary(p->run, "before_semi_top1");
    if (!isfinite(top1)) {
        card_latest_accuracy(p);
        return;
    }
    mdm_text_add(
        t, "<li><span class=\"what\">Test accuracy</span><b data-key=\"final_top1\" data-value=\"%.9g\">",
        top1);
    html_percent(t, top1);
    more(t);
    if (isfinite(before)) {
        html_percent(t, before);
        mdm_text_add(t, " before the semi-supervised phase (%s%.1f points)",
                     top1 < before ? "\xe2\x88\x92" : "+", fabs(100 * (top1 - before)));
    } else {
        mdm_text_add(t, "of the networks together");
    }
    mdm_text_add(t, "</span>");
    draw_spark(p);
    mdm_text_add(t, "</li>\n");
}

static void card_count(mdm_text *t, const char *what, int64_t count, int64_t of, const char *explanation) {
    open_card(t, what);
    html_count(t, count);
    more(t);
    html_percent(t, (double)count / (double)of);
    mdm_text_add(t, " of the pictures: %s", explanation);
    close_card(t);
}

static void add_pair(mdm_text *t, const report_run *run, const char *name) {
    static const char *const networks[] = {"a", "b"};
    int written = 0;
    for (int n = 0; n < 2; n++) {
        char key[64];
        snprintf(key, sizeof key, "%s.%s", name, networks[n]);
        double value = report_summary(run, key);
        if (!isfinite(value)) continue;
        mdm_text_add(t, "%s<span data-key=\"%s\" data-value=\"%.9g\">%.3f</span>", written++ ? " and " : "",
                     key, value, value);
    }
}

static void card_auc(report_page *p) {
    mdm_text *t = &p->text;
    double a = report_summary(p->run, "auc_noise.a"), b = report_summary(p->run, "auc_noise.b");
    if (!isfinite(a)) return;
    open_card(t, "Noise found, AUC");
    mdm_text_add(t, "%.3f", isfinite(b) ? (a + b) / 2 : a);
    more(t);
    mdm_text_add(t, "wrong labels ");
    add_pair(t, p->run, "auc_noise");
    if (isfinite(report_summary(p->run, "auc_ood.a"))) {
        mdm_text_add(t, "; strangers ");
        add_pair(t, p->run, "auc_ood");
    }
    mdm_text_add(t, " by network");
    close_card(t);
}

static void card_time(report_page *p) {
    mdm_text *t = &p->text;
    double seconds = report_summary(p->run, "seconds"), speed = report_summary(p->run, "images_per_s"),
           ranks = report_summary(p->run, "ranks");
    if (!isfinite(seconds)) return;
    open_card(t, "Time");
    html_duration(t, seconds);
    more(t);
    html_number(t, speed, 3);
    mdm_text_add(t, " images a second on %.0f rank%s, ", ranks, ranks == 1 ? "" : "s");
    html_text(t, json_string_value(json_object_get(p->run->summary, "device")));
    close_card(t);
}

static void add_share(mdm_text *t, const char *name, const char *color, int64_t count, int64_t of) {
    if (count == 0) return;
    mdm_text_add(t, "<div style=\"background:var(--%s);flex:%" PRId64 "\" title=\"%s: %" PRId64 "\">", color,
                 count, name, count);
    /* what has room: a letter takes a hundredth of the bar; on phones, numbers alone are shown */
    int64_t percent = count * 100 / of;
    if (percent > (int64_t)strlen(name) + 4) mdm_text_add(t, "<span>%s\xc2\xa0</span>", name);
    if (percent > 4) html_count(t, count);
    mdm_text_add(t, "</div>");
}

static void add_verdict_bar(report_page *p, const int64_t counts[3]) {
    static const char *const names[] = {"clean", "mislabelled", "out of distribution"};
    static const char *const colors[] = {"clean", "wrong", "ood"};
    mdm_text *t = &p->text;
    mdm_text_add(t,
                 "<div class=\"share\" role=\"img\" aria-label=\"%" PRId64 " clean, %" PRId64
                 " mislabelled, %" PRId64 " out of distribution\">",
                 counts[0], counts[1], counts[2]);
    for (int v = 0; v < 3; v++) add_share(t, names[v], colors[v], counts[v], p->run->labels.count);
    mdm_text_add(t, "</div>\n");
    chart_legend(t, names, colors, 3);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void add_lede(report_page *p) {
    const report_run *run = p->run;
    const mdm_store_info *data = run->store ? mdm_store_get_info(run->store) : NULL;
    mdm_text *t = &p->text;
    char arch[64];
    mdm_text_add(t, "<p class=\"lede\">");
    if (run->config) {
        mdm_text_add(t, "%d epochs%s of %s ", run->config->train.epochs,
                     run->config->pretrain.epochs ? " after a self-supervised start" : "",
                     run->config->model.networks > 1 ? "two networks" : "one network");
        html_text(t, mdm_config_get(run->config, "model.arch", arch, sizeof arch));
        mdm_text_add(t, " (width %d) on ", run->config->model.width);
        html_text(t, base_name(run->config->data.train));
    }
    if (run->labels.count || data) {
        mdm_text_add(t, ": ");
        html_count(t, run->labels.count ? run->labels.count : data->train_count);
        mdm_text_add(t, " training pictures");
        if (data) mdm_text_add(t, " of %d\xc3\x97%d pixels", data->width, data->height);
        mdm_text_add(t, " in %d classes", run->classes);
    }
    mdm_text_add(t, ".</p>\n");
    if (!run->ended)
        mdm_text_add(t,
                     "<p class=\"note\">The run has not ended: this page shows how far it has come.</p>\n");
}

void report_section_overview(report_page *p) {
    mdm_text *t = &p->text;
    int64_t counts[3], of = p->run->labels.count;
    const char *started = json_string_value(json_object_get(p->run->environment, "started"));
    mdm_text_add(t, "<header class=\"top\"><p class=\"eyebrow\">Training report");
    if (started) {
        mdm_text_add(t, " \xc2\xb7 started ");
        char minute[32]; /* of 2026-01-31T12:34:56Z */
        if (strlen(started) == 20) snprintf(minute, sizeof minute, "%.10s %.5s UTC", started, started + 11);
        html_text(t, strlen(started) == 20 ? minute : started);
    }
    mdm_text_add(t, "</p>\n<h1>");
    html_text(t, p->run->name);
    mdm_text_add(t, "</h1>\n");
    add_lede(p);
    mdm_text_add(t, "</header>\n<main id=\"main\">\n");
    html_open_section(t, "overview", "In short", NULL);
    count_verdicts(p->run, counts);
    mdm_text_add(t, "<ul class=\"cards\">\n");
    card_progress(p);
    card_accuracy(p);
    if (of) {
        card_count(t, "Labels found wrong", counts[MDM_MISLABELLED], of, "another label suits them better");
        card_count(t, "Out of distribution", counts[MDM_OUT_OF_DISTRIBUTION], of,
                   "unlike all others, set aside");
    }
    card_auc(p);
    card_time(p);
    mdm_text_add(t, "</ul>\n");
    if (of) add_verdict_bar(p, counts);
    html_close_section(t);
}
