/* From a run folder to figures in memory: metrics.jsonl, summary.json, environment.json, config.yaml,
 * labels.csv and the list of divisions. Missing members are left out; damaged lines are passed over. */
#include "report_run.h"

#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/report/labels_csv.h"
#include "mdm/report/run_folder.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 30, MOST_CLASSES = 1 << 20 };

const char *const report_stage_names[REPORT_STAGES] = {"pretrain", "warmup", "semi", "baseline_ce",
                                                       "baseline_sce"};
const char *const report_part_names[REPORT_PARTS] = {"loss_x",  "loss_u",        "loss_xe",
                                                     "loss_ue", "loss_contrast", "loss_balance"};

static double number(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

double report_summary(const report_run *run, const char *name) {
    char first[64];
    const char *dot = strchr(name, '.');
    if (!dot) return number(run->summary, name);
    snprintf(first, sizeof first, "%.*s", (int)(dot - name), name);
    return number(json_object_get(run->summary, first), dot + 1);
}

const char *report_id(const report_run *run, int64_t sample) {
    return mdm_labels_field(&run->labels.rows, sample, "id");
}

int report_truth(const report_run *run, int64_t sample) {
    return run->truth[sample] < 0 ? 2 : run->truth[sample] != run->labels.given[sample];
}

static json_t *read_json(const char *folder, mdm_run_member member) {
    char *content = NULL, *path = mdm_run_folder_member(folder, member);
    size_t bytes;
    json_t *object = NULL;
    if (path && mdm_read_file(path, MOST_BYTES, &content, &bytes) == MDM_OK) {
        object = json_loadb(content, bytes, 0, NULL);
        free(content);
    }
    free(path);
    if (object && !json_is_object(object)) {
        json_decref(object);
        object = NULL;
    }
    return object;
}

static int stage_number(const char *name) {
    for (int i = 0; name && i < REPORT_STAGES; i++)
        if (strcmp(name, report_stage_names[i]) == 0) return i;
    return -1;
}

static void take_epoch(report_run *run, const json_t *event) {
    const char *network = json_string_value(json_object_get(event, "network"));
    int stage = stage_number(json_string_value(json_object_get(event, "stage")));
    double epoch = number(event, "epoch");
    if (stage < 0 || !network || !(epoch >= 0 && epoch < 1e9)) return;
    report_epoch *e = &run->epochs[run->epoch_count++];
    *e = (report_epoch){.stage = stage,
                        .epoch = (int64_t)epoch,
                        .network = network[0],
                        .loss = number(event, "loss"),
                        .images_per_s = number(event, "images_per_s"),
                        .seconds = number(event, "seconds"),
                        .top1 = number(event, "test_top1"),
                        .top5 = number(event, "test_top5")};
    if (json_object_get(event, "test_top1")) e->network = 'e';
    for (int p = 0; p < REPORT_PARTS; p++) e->parts[p] = number(event, report_part_names[p]);
}

static void take_event(report_run *run, json_t *event) {
    const char *kind = json_string_value(json_object_get(event, "event"));
    if (!kind) return;
    if (strcmp(kind, "warning") != 0) /* which may follow the end */
        run->ended = strcmp(kind, "end") == 0;
    if (strcmp(kind, "epoch") == 0) take_epoch(run, event);
    if (strcmp(kind, "divide") == 0) json_array_append(run->divides, event);
    if (strcmp(kind, "warning") == 0) json_array_append(run->warnings, event);
    if (strcmp(kind, "resume") == 0) run->restarts++;
}

static mdm_status read_metrics(report_run *run) {
    size_t bytes = 0, lines = 0;
    char *content = NULL, *path = mdm_run_folder_member(run->folder, MDM_RUN_METRICS);
    mdm_status status = path ? mdm_read_file(path, MOST_BYTES, &content, &bytes)
                             : mdm_fail(MDM_RESOURCE, "out of memory for a path");
    free(path);
    MDM_TRY(status);
    for (size_t i = 0; i < bytes; i++) lines += content[i] == '\n';
    run->divides = json_array();
    run->warnings = json_array();
    status = MDM_ALLOCATE(run->epochs, lines + 1, "the epochs of a run");
    for (char *line = content, *end;
         status == MDM_OK && (end = memchr(line, '\n', bytes - (size_t)(line - content))); line = end + 1) {
        json_t *event = json_loadb(line, (size_t)(end - line), 0, NULL);
        if (event) take_event(run, event);
        json_decref(event);
    }
    free(content);
    return status;
}

static mdm_status read_config(report_run *run) {
    char *path = mdm_run_folder_member(run->folder, MDM_RUN_CONFIG);
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    mdm_status status = MDM_ALLOCATE(run->config, 1, "the configuration");
    if (status == MDM_OK) {
        mdm_config_defaults(run->config);
        if (mdm_config_read_yaml(run->config, path) != MDM_OK) {
            free(run->config);
            run->config = NULL;
        }
    }
    free(path);
    return status;
}

static float field_number(const report_labels *l, int64_t row, const char *column) {
    const char *text = mdm_labels_field(&l->rows, row, column);
    char *end;
    float value = strtof(text, &end);
    return end == text ? NAN : value;
}

static int read_row(report_labels *l, int64_t i) {
    const char *verdict = mdm_labels_field(&l->rows, i, "verdict");
    float given = field_number(l, i, "given"), suggested = field_number(l, i, "suggested");
    if (!(given >= 0 && given < MOST_CLASSES && suggested >= 0 && suggested < MOST_CLASSES)) return 0;
    l->given[i] = (int32_t)given;
    l->suggested[i] = (int32_t)suggested;
    l->clean[i] = field_number(l, i, "clean_probability");
    l->ood[i] = field_number(l, i, "ood_score");
    l->certain[i] = field_number(l, i, "suggested_probability");
    l->wrong[i] = field_number(l, i, "mislabelled_score");
    for (int v = 0; mdm_verdict_name(v); v++)
        if (strcmp(verdict, mdm_verdict_name(v)) == 0) {
            l->verdict[i] = (uint8_t)v;
            return 1;
        }
    return 0;
}

static mdm_status read_labels(report_run *run) {
    report_labels *l = &run->labels;
    char *path = mdm_run_folder_member(run->folder, MDM_RUN_LABELS);
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    int exists = access(path, F_OK) == 0, is_read = exists && mdm_labels_rows_read(path, &l->rows) == MDM_OK;
    free(path);
    if (exists && !is_read) mdm_warn("%s: the report is made without labels", mdm_last_message());
    if (!is_read) return MDM_OK;
    int64_t n = l->rows.rows;
    MDM_TRY(MDM_ALLOCATE(l->given, n + 1, "labels.csv"));
    MDM_TRY(MDM_ALLOCATE(l->suggested, n + 1, "labels.csv"));
    MDM_TRY(MDM_ALLOCATE(l->clean, n + 1, "labels.csv"));
    MDM_TRY(MDM_ALLOCATE(l->ood, n + 1, "labels.csv"));
    MDM_TRY(MDM_ALLOCATE(l->certain, n + 1, "labels.csv"));
    MDM_TRY(MDM_ALLOCATE(l->wrong, n + 1, "labels.csv"));
    MDM_TRY(MDM_ALLOCATE(l->verdict, n + 1, "labels.csv"));
    for (int64_t i = 0; i < n; i++) {
        if (!read_row(l, i))
            return mdm_fail(MDM_INPUT, "%s/labels.csv: row %lld is damaged", run->folder, (long long)i);
        if (l->given[i] >= run->classes) run->classes = l->given[i] + 1;
        if (l->suggested[i] >= run->classes) run->classes = l->suggested[i] + 1;
    }
    l->count = n;
    return MDM_OK;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static mdm_status list_divisions(report_run *run) {
    char *path = mdm_run_folder_member(run->folder, MDM_RUN_DIVISIONS);
    DIR *entries = path ? opendir(path) : NULL;
    int room = 0;
    mdm_status status = MDM_OK;
    free(path);
    if (!entries) return MDM_OK;
    for (struct dirent *entry; status == MDM_OK && (entry = readdir(entries)) != NULL;) {
        long long epoch;
        int length = 0;
        if (sscanf(entry->d_name, "epoch-%lld.h5%n", &epoch, &length) != 1 || length == 0 ||
            entry->d_name[length])
            continue;
        if (run->division_count == room) {
            room = 2 * room + 16;
            int64_t *more = realloc(run->divisions, (size_t)room * sizeof *more);
            if (!more) {
                status = mdm_fail(MDM_RESOURCE, "out of memory for the list of divisions");
                break;
            }
            run->divisions = more;
        }
        run->divisions[run->division_count++] = epoch;
    }
    closedir(entries);
    if (run->division_count)
        qsort(run->divisions, (size_t)run->division_count, sizeof *run->divisions, ascending);
    return status;
}

/* Pictures and truth of another data set would be worse than none. */
static void take_store(report_run *run, mdm_store *store) {
    const mdm_store_info *info = store ? mdm_store_get_info(store) : NULL;
    if (!info) return;
    if (run->labels.count) {
        const int32_t *given = mdm_store_labels(store, MDM_TRAIN);
        if (info->train_count != run->labels.count ||
            memcmp(given, run->labels.given, sizeof *given * (size_t)run->labels.count) != 0)
            return;
    }
    run->store = store;
    if (info->classes > run->classes) run->classes = info->classes;
    if (run->labels.count) run->truth = mdm_store_true_labels(store);
}

static mdm_status name_classes(report_run *run) {
    MDM_TRY(MDM_ALLOCATE(run->class_names, run->classes + 1, "class names"));
    MDM_TRY(MDM_ALLOCATE(run->name_memory, 24LL * (run->classes + 1), "class names"));
    for (int c = 0; c < run->classes; c++) {
        const char *name = run->store ? mdm_store_class_name(run->store, c) : NULL;
        snprintf(run->name_memory + 24L * c, 24, "class %d", c);
        run->class_names[c] = name ? name : run->name_memory + 24L * c;
    }
    return MDM_OK;
}

void report_name(report_run *run, int parts) {
    const char *folder = run->folder;
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    size_t start = length;
    while (start > 0 && (folder[start - 1] != '/' || --parts > 0)) start--;
    snprintf(run->name, sizeof run->name, "%.*s", (int)(length - start), folder + start);
}

mdm_status report_run_read(const char *folder, mdm_store *store, report_run *run) {
    memset(run, 0, sizeof *run);
    run->folder = folder;
    report_name(run, 1);
    struct stat state;
    if (stat(folder, &state) != 0 || !S_ISDIR(state.st_mode))
        return mdm_fail(MDM_INPUT, "there is no run folder %s", folder);
    mdm_status status = read_metrics(run);
    if (status == MDM_RESOURCE) return status;
    if (status != MDM_OK)
        return mdm_fail(MDM_INPUT, "%s holds no run: there is no metrics.jsonl in it", folder);
    MDM_TRY(read_config(run));
    run->summary = read_json(folder, MDM_RUN_SUMMARY);
    run->environment = read_json(folder, MDM_RUN_ENVIRONMENT);
    MDM_TRY(read_labels(run));
    MDM_TRY(list_divisions(run));
    take_store(run, store);
    run->networks = run->config ? run->config->model.networks : 2;
    return name_classes(run);
}

void report_run_free(report_run *run) {
    report_labels *l = &run->labels;
    void *arrays[] = {run->config,      run->epochs, run->divisions, run->class_names,
                      run->name_memory, l->given,    l->suggested,   l->clean,
                      l->ood,           l->certain,  l->wrong,       l->verdict};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
    mdm_labels_rows_free(&l->rows);
    json_decref(run->summary);
    json_decref(run->environment);
    json_decref(run->divides);
    json_decref(run->warnings);
    memset(run, 0, sizeof *run);
}
