/* Where the time went, and what a reader needs to repeat the run: settings, versions, warnings, figures. */
#include "report_sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WARNINGS = 20 };

static double images_per_s(const report_epoch *epoch, int part) {
    (void)part;
    return epoch->images_per_s;
}

static void draw_stages(report_page *p) {
    static const struct {
        const char *key, *name, *color;
    } stages[] = {{"seconds_by_stage.pretrain", "self-supervised start", "ood"},
                  {"seconds_by_stage.warmup", "warm-up", "a"},
                  {"seconds_by_stage.semi", "semi-supervised", "clean"},
                  {"seconds_by_stage.divide", "dividing", "wrong"},
                  {"seconds_by_stage.evaluate", "testing", "b"},
                  {"seconds_by_stage.baseline", "baselines", "base"}};
    enum { STAGES = sizeof stages / sizeof *stages };
    chart_row rows[STAGES];
    chart_bars chart = {.head = {.title = "Where the time went",
                                 .description = "The seconds that each part of the run took.",
                                 .y_label = "part of the run",
                                 .number = p->charts + 1},
                        .rows = rows,
                        .parts = 1,
                        .part_names = {"time"},
                        .part_colors = {"a"},
                        .seconds = 1};
    memset(rows, 0, sizeof rows);
    for (int i = 0; i < STAGES; i++) {
        double seconds = report_summary(p->run, stages[i].key);
        if (!(seconds > 0)) continue;
        rows[chart.row_count].name = stages[i].name;
        rows[chart.row_count++].parts[0] = seconds;
    }
    if (!chart.row_count) return;
    p->charts++;
    chart_draw_bars(&p->text, &chart);
}

static mdm_status draw_speed(report_page *p) {
    static const struct {
        int first, last;
        char network;
        const char *name, *color;
    } lines[] = {{REPORT_WARMUP, REPORT_SEMI, 'a', "network a", "a"},
                 {REPORT_WARMUP, REPORT_SEMI, 'b', "network b", "b"}};
    chart_series series[2];
    chart_band bands[2];
    int count = 0;
    mdm_status status = MDM_OK;
    double *memory[4] = {NULL};
    for (int i = 0; status == MDM_OK && i < 2; i++) {
        int64_t points;
        status = report_pick(p->run, lines[i].first, lines[i].last, lines[i].network, images_per_s, 0,
                             &memory[2 * i], &memory[2 * i + 1], &points);
        if (status == MDM_OK && points > 1)
            series[count++] =
                (chart_series){lines[i].name, lines[i].color, memory[2 * i], memory[2 * i + 1], points, 0};
    }
    chart_lines chart = {.head = {"Throughput", "views of pictures trained on, over all ranks",
                                  "Pictures a second in each epoch, by network.", "epoch", "images a second",
                                  p->charts + 1},
                         .series = series,
                         .series_count = count,
                         .bands = bands,
                         .band_count = report_stage_bands(p->run, bands),
                         .low = 0,
                         .high = NAN};
    if (status == MDM_OK && count) {
        p->charts++;
        chart_draw_lines(&p->text, &chart);
    }
    for (int i = 0; i < 4; i++) free(memory[i]);
    return status;
}

mdm_status report_section_time(report_page *p) {
    html_open_section(&p->text, "time", "The time", NULL);
    mdm_text_add(&p->text, "<div class=\"grid\">\n");
    draw_stages(p);
    mdm_status status = draw_speed(p);
    mdm_text_add(&p->text, "</div>\n");
    html_close_section(&p->text);
    return status;
}

static void open_facts(mdm_text *t, const char *name, int open) {
    mdm_text_add(t, "<details class=\"facts-box\"%s><summary>%s</summary><table class=\"facts\"><tbody>\n",
                 open ? " open" : "", name);
}

static void close_facts(mdm_text *t) {
    mdm_text_add(t, "</tbody></table></details>\n");
}

static void add_fact(mdm_text *t, const char *name, const char *value) {
    mdm_text_add(t, "<tr><th scope=\"row\">");
    html_text(t, name);
    mdm_text_add(t, "</th><td>");
    html_text(t, value);
    mdm_text_add(t, "</td></tr>\n");
}

static int is_default(const char *value, const char *initial) {
    char *end_a, *end_b;
    double a = strtod(value, &end_a), b = strtod(initial, &end_b);
    if (strcmp(value, initial) == 0) return 1;
    return *value && *initial && !*end_a && !*end_b && a == b;
}

static void add_settings(report_page *p, int changed) {
    char value[MDM_CONFIG_TEXT];
    if (!p->run->config) return;
    open_facts(&p->text, changed ? "Settings other than the defaults" : "Settings as the defaults have them",
               changed);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        if (!mdm_config_get(p->run->config, key->name, value, sizeof value)) continue;
        if (is_default(value, key->initial) != changed) add_fact(&p->text, key->name, value);
    }
    close_facts(&p->text);
}

/* A value of a JSON file as one line of text. */
static void add_json(mdm_text *t, const char *name, const json_t *value) {
    char *dumped = NULL;
    if (json_is_string(value)) {
        add_fact(t, name, json_string_value(value));
        return;
    }
    if (json_is_object(value)) {
        const char *key;
        json_t *inner;
        json_object_foreach((json_t *)(uintptr_t)value, key, inner) {
            char path[160];
            snprintf(path, sizeof path, "%s.%s", name, key);
            add_json(t, path, inner);
        }
        return;
    }
    dumped = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    if (dumped) add_fact(t, name, dumped);
    free(dumped);
}

static void add_object(mdm_text *t, const char *heading, const json_t *object) {
    const char *key;
    json_t *value;
    if (!object) return;
    open_facts(t, heading, 0);
    json_object_foreach((json_t *)(uintptr_t)object, key, value) add_json(t, key, value);
    close_facts(t);
}

static void add_warnings(report_page *p) {
    size_t count = json_array_size(p->run->warnings);
    mdm_text *t = &p->text;
    if (!count) return;
    mdm_text_add(t, "<details class=\"facts-box\" open><summary>Warnings: %zu</summary><ul>\n", count);
    for (size_t i = 0; i < count && i < MOST_WARNINGS; i++) {
        mdm_text_add(t, "<li>");
        html_text(t, json_string_value(json_object_get(json_array_get(p->run->warnings, i), "message")));
        mdm_text_add(t, "</li>\n");
    }
    mdm_text_add(t, "</ul>%s</details>\n",
                 count > MOST_WARNINGS ? "<p>metrics.jsonl has the others.</p>" : "");
}

void report_section_settings(report_page *p) {
    html_open_section(&p->text, "settings", "To repeat it",
                      "Settings, versions and figures of this run, as its folder has them.");
    if (p->run->restarts)
        mdm_text_add(&p->text, "<p>The run was taken up again %d time%s.</p>\n", p->run->restarts,
                     p->run->restarts == 1 ? "" : "s");
    add_warnings(p);
    add_settings(p, 1);
    add_settings(p, 0);
    add_object(&p->text, "Figures of summary.json", p->run->summary);
    add_object(&p->text, "Machine and versions", p->run->environment);
    html_close_section(&p->text);
}
