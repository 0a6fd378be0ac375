/* mdm-dist export RUN: from a run folder to files that other programs take. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/comm/comm.h"
#include "mdm/report/labels_rows.h"
#include "mdm/report/run_folder.h"
#include "mdm/train/predictor.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct request {
    const char *run, *safetensors, *onnx, *csv, *list, *labels, *network, *verdict;
    double min_clean, max_clean, max_ood;
    int names, drop;
} request;

static mdm_status check_request(const request *r) {
    int outputs = (r->safetensors != NULL) + (r->onnx != NULL) + (r->csv != NULL) + (r->list != NULL);
    if (outputs != 1)
        return mdm_fail(
            MDM_USAGE, "export needs one of --safetensors, --onnx, --csv and --list; mdm-dist export --help");
    const char *model = r->onnx ? r->onnx : r->safetensors;
    if (model && strcmp(model, "-") == 0)
        return mdm_fail(MDM_USAGE,
                        "--safetensors and --onnx need the name of a file; - is for --csv and --list");
    if ((r->names || r->drop) && !r->list)
        return mdm_fail(MDM_USAGE, "--names and --drop-mislabelled are for --list");
    int filters = r->verdict || r->min_clean > 0 || isfinite(r->max_clean) || isfinite(r->max_ood);
    if ((r->labels || filters) && model)
        return mdm_fail(
            MDM_USAGE,
            "--labels, --verdict, --min-clean, --max-clean and --max-ood are for --list and --csv");
    if (r->network && !model) return mdm_fail(MDM_USAGE, "--network is for --safetensors and --onnx");
    if (!r->onnx && r->network && strcmp(r->network, "ensemble") == 0)
        return mdm_fail(MDM_USAGE, "--network ensemble is for --onnx; expected a or b");
    return MDM_OK;
}

static mdm_status read_options(int argc, char **argv, request *r) {
    mdm_arguments a;
    MDM_TRY(mdm_arguments_read("export", argc, argv, &a));
    const struct {
        const char *name, **text;
    } texts[] = {{"--safetensors", &r->safetensors},
                 {"--onnx", &r->onnx},
                 {"--csv", &r->csv},
                 {"--list", &r->list},
                 {"--labels", &r->labels},
                 {"--network", &r->network},
                 {"--verdict", &r->verdict}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        *texts[i].text = mdm_arguments_get(&a, texts[i].name);
    MDM_TRY(mdm_arguments_number(&a, "--min-clean", 0, &r->min_clean));
    MDM_TRY(mdm_arguments_number(&a, "--max-clean", INFINITY, &r->max_clean));
    MDM_TRY(mdm_arguments_number(&a, "--max-ood", INFINITY, &r->max_ood));
    r->names = mdm_arguments_get(&a, "--names") != NULL;
    r->drop = mdm_arguments_get(&a, "--drop-mislabelled") != NULL;
    if (a.word_count == 0)
        return mdm_fail(MDM_USAGE, "export needs RUN, a run folder; mdm-dist export --help");
    if (a.word_count > 1) return mdm_fail(MDM_USAGE, "export: '%s' is one name too many", a.words[1]);
    r->run = a.words[0];
    return check_request(r);
}

static mdm_status write_text(const char *path, mdm_text *text, int64_t rows, int64_t all) {
    if (text->failed) return mdm_fail(MDM_RESOURCE, "not enough memory to put %s together", path);
    if (strcmp(path, "-") == 0)
        fwrite(text->data, 1, text->length, stdout);
    else
        MDM_TRY(mdm_write_file(path, text->data ? text->data : "", text->length));
    mdm_info("%s: %lld of %lld samples", strcmp(path, "-") == 0 ? "stdout" : path, (long long)rows,
             (long long)all);
    return MDM_OK;
}

static int passes(const request *r, const mdm_labels_rows *rows, int64_t i) {
    const char *ood = mdm_labels_field(rows, i, "ood_score");
    double clean = strtod(mdm_labels_field(rows, i, "clean_probability"), NULL);
    if (clean < r->min_clean || clean > r->max_clean) return 0;
    if (isfinite(r->max_ood) && (!*ood || strtod(ood, NULL) > r->max_ood)) return 0;
    return !r->verdict || strcmp(mdm_labels_field(rows, i, "verdict"), r->verdict) == 0;
}

static mdm_status export_csv(const request *r, const mdm_labels_rows *rows) {
    mdm_text text = {0};
    int64_t taken = 0;
    for (int64_t i = -1; i < rows->rows; i++) {
        if (i >= 0 && !passes(r, rows, i)) continue;
        for (int c = 0; c < rows->columns; c++) {
            if (c) mdm_text_add_bytes(&text, ",", 1);
            mdm_csv_field(&text, i < 0 ? rows->names[c] : rows->fields[i * rows->columns + c]);
        }
        mdm_text_add_bytes(&text, "\n", 1);
        taken += i >= 0;
    }
    mdm_status status = write_text(r->csv, &text, taken, rows->rows);
    free(text.data);
    return status;
}

/* Whether the cleaned list has the row. */
static int is_listed(const request *r, const mdm_labels_rows *rows, int64_t i) {
    const char *verdict = mdm_labels_field(rows, i, "verdict");
    if (strcmp(verdict, "out_of_distribution") == 0 || !passes(r, rows, i)) return 0;
    return !r->drop || strcmp(verdict, "mislabelled") != 0;
}

/* A listed row's path and label; neither can hold what ends a line or its path. */
static mdm_status read_row(const request *r, const mdm_labels_rows *rows, int64_t i,
                           const mdm_model_notes *notes, const char **path, const char **label) {
    int mislabelled = strcmp(mdm_labels_field(rows, i, "verdict"), "mislabelled") == 0;
    *label = mdm_labels_field(rows, i, mislabelled ? "suggested" : "given");
    *path = mdm_labels_field(rows, i, "id");
    if (!**path) *path = mdm_labels_field(rows, i, "index");
    if (r->names) {
        char *end;
        long c = strtol(*label, &end, 10);
        if (!notes->class_names || *end || c < 0 || c >= notes->spec.classes)
            return mdm_fail(MDM_INPUT, "--names: the class %s of this run has no name", *label);
        *label = notes->class_names[c];
    }
    if (!strpbrk(*path, "\t\r\n") && !strpbrk(*label, "\t\r\n")) return MDM_OK;
    return mdm_fail(MDM_INPUT,
                    "the id or the class name of sample %s holds a tab or a line break, which a list cannot "
                    "hold; use --csv",
                    mdm_labels_field(rows, i, "index"));
}

/* One separator for all lines, as data import expects: a tab where a path or label holds what could separate
 * otherwise. */
static mdm_status write_lines(const request *r, const mdm_labels_rows *rows, const mdm_model_notes *notes,
                              mdm_text *text, int64_t *taken) {
    static const char others[] = " ,;";
    const char *path, *label;
    char separator = ' ';
    for (int64_t i = 0; i < rows->rows; i++) {
        if (!is_listed(r, rows, i)) continue;
        MDM_TRY(read_row(r, rows, i, notes, &path, &label));
        if (strpbrk(path, others) || strpbrk(label, others)) separator = '\t';
    }
    for (int64_t i = 0; i < rows->rows; i++) {
        if (!is_listed(r, rows, i)) continue;
        MDM_TRY(read_row(r, rows, i, notes, &path, &label));
        mdm_text_add(text, "%s%c%s\n", path, separator, label);
        ++*taken;
    }
    return MDM_OK;
}

static mdm_status export_list(const request *r, const mdm_labels_rows *rows, const mdm_model_notes *notes) {
    mdm_text text = {0};
    int64_t taken = 0;
    mdm_status status = write_lines(r, rows, notes, &text, &taken);
    if (status == MDM_OK) status = write_text(r->list, &text, taken, rows->rows);
    free(text.data);
    return status;
}

static mdm_status read_notes(const request *r, mdm_model_notes *notes) {
    char *path = mdm_run_folder_member(r->run, MDM_RUN_MODEL_A);
    mdm_status status = path ? mdm_model_notes_read(path, notes) : mdm_fail(MDM_RESOURCE, "out of memory");
    free(path);
    return status;
}

static mdm_status export_labels(const request *r) {
    mdm_labels_rows rows = {0}, copy = {0};
    mdm_model_notes notes = {0};
    char *path = mdm_run_folder_member(r->run, MDM_RUN_LABELS);
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    mdm_status status =
        access(path, F_OK) == 0 || access(r->run, F_OK) != 0
            ? mdm_labels_rows_read(path, &rows)
            : mdm_fail(MDM_INPUT, "%s has no labels.csv: the run has not ended, or made no division", r->run);
    int with_notes = r->names || r->labels;
    if (status == MDM_OK && with_notes) status = read_notes(r, &notes);
    if (status == MDM_OK && r->labels) status = mdm_labels_rows_read(r->labels, &copy);
    /* the run's own file is checked, too: people correct it in place */
    if (status == MDM_OK)
        status = mdm_labels_review(&rows, r->labels ? &copy : &rows, r->labels ? r->labels : path,
                                   with_notes ? notes.spec.classes : INT32_MAX);
    if (status == MDM_OK) status = r->csv ? export_csv(r, &rows) : export_list(r, &rows, &notes);
    mdm_model_notes_free(&notes);
    mdm_labels_rows_free(&rows);
    mdm_labels_rows_free(&copy);
    free(path);
    return status;
}

static mdm_status pick_network(const mdm_predictor *p, const request *r, int *number) {
    *number = r->network && strcmp(r->network, "b") == 0;
    if (*number >= mdm_predictor_networks(p))
        return mdm_fail(MDM_USAGE, "--network b: %s has one network", r->run);
    return MDM_OK;
}

static mdm_status export_onnx(const request *r, const mdm_predictor *p, int number) {
    const mdm_network *networks[2] = {mdm_predictor_network(p, number)};
    int ensemble = !r->network || strcmp(r->network, "ensemble") == 0, count = 1;
    if (ensemble && mdm_predictor_networks(p) > 1) networks[count++] = mdm_predictor_network(p, 1);
    return mdm_onnx_export(networks, count, mdm_predictor_notes(p), r->onnx);
}

static mdm_status export_network(mdm_comm *comm, const request *r) {
    mdm_predictor *p;
    int number;
    MDM_TRY(mdm_predictor_open(comm, r->run, &p));
    mdm_status status = pick_network(p, r, &number);
    const char *path = r->onnx ? r->onnx : r->safetensors;
    if (status == MDM_OK && r->onnx)
        status = export_onnx(r, p, number);
    else if (status == MDM_OK)
        status = mdm_weights_write(mdm_predictor_network(p, number), mdm_predictor_notes(p), path);
    if (status == MDM_OK) mdm_info("%s: %s", path, r->run);
    mdm_predictor_close(p);
    return status;
}

mdm_status mdm_command_export(int argc, char **argv) {
    request r = {0};
    MDM_TRY(read_options(argc, argv, &r));
    MDM_TRY(mdm_check_environment());
    if (r.csv || r.list) return export_labels(&r);
    mdm_comm *comm;
    MDM_TRY(mdm_comm_start(&argc, &argv, &comm));
    mdm_status status = mdm_comm_size(comm) == 1
                            ? export_network(comm, &r)
                            : mdm_fail(MDM_USAGE, "export runs alone; start it without mpirun");
    mdm_command_leave(comm, status);
    mdm_comm_finish(comm);
    return status;
}
