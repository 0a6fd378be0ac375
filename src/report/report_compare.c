/* Several runs on one page: figures side by side, accuracies over the epochs, and the settings that differ.
 */
#include "mdm/report/report.h"

#include "report_sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const colors[] = {"a", "wrong", "clean", "b", "ood", "base"};
enum { COLORS = sizeof colors / sizeof *colors, MOST_LINES = 12 };

static const struct {
    const char *key, *name;
    int kind; /* 0 share, 1 AUC, 2 duration, 3 number */
} figures[] = {{"final_top1", "test accuracy", 0},
               {"best_top1", "best accuracy on the way", 0},
               {"before_semi_top1", "at the end of warm-up", 0},
               {"baseline_ce_top1", "cross entropy alone", 0},
               {"baseline_sce_top1", "symmetric cross entropy alone", 0},
               {"best_validation_top1", "best validation accuracy", 0},
               {"baseline_ce_best_validation_top1", "... of cross entropy alone", 0},
               {"baseline_sce_best_validation_top1", "... of symmetric cross entropy alone", 0},
               {"auc_noise.a", "AUC of wrong labels, a", 1},
               {"auc_noise.b", "AUC of wrong labels, b", 1},
               {"auc_ood.a", "AUC of strangers, a", 1},
               {"auc_ood.b", "AUC of strangers, b", 1},
               {"seconds", "time", 2},
               {"images_per_s", "images a second", 3},
               {"ranks", "ranks", 3}};
enum { FIGURES = sizeof figures / sizeof *figures };

static void add_value(mdm_text *t, double value, int kind) {
    if (kind == 0)
        html_percent(t, value);
    else if (kind == 1 && isfinite(value))
        mdm_text_add(t, "%.3f", value);
    else if (kind == 2)
        html_duration(t, value);
    else
        html_number(t, value, 3);
}

static void open_table(mdm_text *t, const report_run *runs, int count) {
    mdm_text_add(
        t, "<div class=\"facts-box scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">run</th>");
    for (int r = 0; r < count; r++) {
        mdm_text_add(t, "<th scope=\"col\">");
        html_text(t, runs[r].name);
        mdm_text_add(t, "</th>");
    }
    mdm_text_add(t, "</tr></thead><tbody>\n");
}

static void close_table(mdm_text *t) {
    mdm_text_add(t, "</tbody></table></div>\n");
}

static void write_figures(mdm_text *t, const report_run *runs, int count) {
    open_table(t, runs, count);
    for (int f = 0; f < FIGURES; f++) {
        int known = 0;
        for (int r = 0; r < count; r++) known += isfinite(report_summary(&runs[r], figures[f].key));
        if (!known) continue;
        mdm_text_add(t, "<tr><th scope=\"row\">%s</th>", figures[f].name);
        for (int r = 0; r < count; r++) {
            double value = report_summary(&runs[r], figures[f].key);
            mdm_text_add(t, "<td>");
            if (isfinite(value))
                mdm_text_add(t, "<span data-key=\"%s\" data-value=\"%.9g\">", figures[f].key, value);
            add_value(t, value, figures[f].kind);
            mdm_text_add(t, "%s</td>", isfinite(value) ? "</span>" : "");
        }
        mdm_text_add(t, "</tr>\n");
    }
    close_table(t);
}

static void write_settings(mdm_text *t, const report_run *runs, int count) {
    char first[MDM_CONFIG_TEXT], value[MDM_CONFIG_TEXT];
    int differing = 0;
    for (int r = 0; r < count; r++)
        if (!runs[r].config) return;
    html_open_section(t, "settings", "What they differ in", NULL);
    open_table(t, runs, count);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const char *key = mdm_config_key_at(i)->name;
        int same = 1;
        mdm_config_get(runs[0].config, key, first, sizeof first);
        for (int r = 1; r < count; r++)
            same &= strcmp(first, mdm_config_get(runs[r].config, key, value, sizeof value)) == 0;
        if (same || strcmp(key, "run") == 0) continue;
        differing++;
        mdm_text_add(t, "<tr><th scope=\"row\">%s</th>", key);
        for (int r = 0; r < count; r++) {
            mdm_text_add(t, "<td>");
            html_text(t, mdm_config_get(runs[r].config, key, value, sizeof value));
            mdm_text_add(t, "</td>");
        }
        mdm_text_add(t, "</tr>\n");
    }
    close_table(t);
    if (!differing) mdm_text_add(t, "<p>All settings are the same.</p>\n");
    html_close_section(t);
}

static mdm_status draw_accuracies(mdm_text *t, const report_run *runs, int count) {
    chart_series series[MOST_LINES];
    double *memory[2 * MOST_LINES] = {NULL};
    int lines = 0;
    mdm_status status = MDM_OK;
    for (int r = 0; status == MDM_OK && r < count && r < MOST_LINES; r++) {
        int64_t points;
        status = report_pick(&runs[r], REPORT_WARMUP, REPORT_SEMI, 'e', report_top1, 0, &memory[2 * r],
                             &memory[2 * r + 1], &points);
        if (status == MDM_OK && points)
            series[lines++] = (chart_series){
                runs[r].name, colors[r % COLORS], memory[2 * r], memory[2 * r + 1], points, r >= COLORS};
    }
    chart_lines chart = {.head = {"Accuracy on the test set", NULL,
                                  "The share of test pictures classified rightly after each epoch, by run.",
                                  "epoch", "first answer right", 1},
                         .series = series,
                         .series_count = lines,
                         .low = NAN,
                         .high = NAN,
                         .percent = 1};
    if (status == MDM_OK && lines) chart_draw_lines(t, &chart);
    for (int i = 0; i < 2 * MOST_LINES; i++) free(memory[i]);
    return status;
}

static mdm_status draw_verdicts(mdm_text *t, const report_run *runs, int count) {
    chart_row *rows;
    MDM_TRY(MDM_ALLOCATE(rows, count, "verdicts by run"));
    chart_bars chart = {
        .head = {.title = "Verdicts on the labels",
                 .description = "How many labels each run judged clean, mislabelled or out of distribution.",
                 .y_label = "run",
                 .number = 2},
        .rows = rows,
        .parts = 3,
        .part_names = {"clean", "mislabelled", "out of distribution"},
        .part_colors = {"clean", "wrong", "ood"}};
    for (int r = 0; r < count; r++) {
        if (!runs[r].labels.count) continue;
        rows[chart.row_count].name = runs[r].name;
        for (int64_t i = 0; i < runs[r].labels.count; i++)
            rows[chart.row_count].parts[runs[r].labels.verdict[i]]++;
        chart.row_count++;
    }
    if (chart.row_count) chart_draw_bars(t, &chart);
    free(rows);
    return MDM_OK;
}

static mdm_status write_page(mdm_text *t, const report_run *runs, int count) {
    static const char *const links[] = {"figures",  "Figures",  "course", "Course",
                                        "settings", "Settings", NULL};
    html_open_page(t, "Runs compared", links);
    mdm_text_add(
        t,
        "<header class=\"top\"><p class=\"eyebrow\">Training report</p><h1>%d runs compared</h1></header>\n"
        "<main id=\"main\">\n",
        count);
    html_open_section(t, "figures", "Figures", NULL);
    write_figures(t, runs, count);
    html_close_section(t);
    html_open_section(t, "course", "Course", NULL);
    mdm_text_add(t, "<div class=\"grid\">\n");
    mdm_status status = draw_accuracies(t, runs, count);
    if (status == MDM_OK) status = draw_verdicts(t, runs, count);
    mdm_text_add(t, "</div>\n");
    html_close_section(t);
    write_settings(t, runs, count);
    const char *version = json_string_value(json_object_get(runs[0].environment, "program_version"));
    html_close_page(t, version ? version : "");
    return status;
}

/* Runs of one name, as a/run and b/run, by so much more of their paths as tells them apart. */
static void tell_apart(report_run *runs, int count) {
    enum { MOST_PARTS = 8 };
    for (int parts = 2, twins = 1; twins && parts <= MOST_PARTS; parts++) {
        twins = 0;
        for (int r = 0; r < count; r++) runs[r].is_twin = 0;
        for (int r = 0; r < count; r++)
            for (int other = r + 1; other < count; other++)
                if (strcmp(runs[r].name, runs[other].name) == 0)
                    runs[r].is_twin = runs[other].is_twin = twins = 1;
        for (int r = 0; r < count; r++)
            if (runs[r].is_twin) report_name(&runs[r], parts);
    }
}

mdm_status mdm_report_compare(const char *const *folders, int count, const char *out) {
    report_run *runs;
    mdm_text text = {0};
    int read = 0;
    MDM_TRY(MDM_ALLOCATE(runs, count, "runs to compare"));
    mdm_status status = MDM_OK;
    while (status == MDM_OK && read < count) {
        status = report_run_read(folders[read], NULL, &runs[read]);
        read++;
    }
    if (status == MDM_OK) {
        tell_apart(runs, count);
        status = write_page(&text, runs, count);
    }
    if (status == MDM_OK)
        status = text.failed ? mdm_fail(MDM_RESOURCE, "not enough memory to put the report together")
                             : mdm_write_file(out, text.data, text.length);
    for (int r = 0; r < read; r++) report_run_free(&runs[r]);
    free(runs);
    free(text.data);
    return status;
}
