/* mdm-dist eval RUN [DATA.h5]: from a run's networks and labelled pictures to accuracy and confusion. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/config.h"
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/base/text.h"
#include "mdm/comm/comm.h"
#include "mdm/data/dataset_file.h"
#include "mdm/data/store.h"
#include "mdm/report/run_folder.h"
#include "mdm/train/predictor.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 512, MOST_PRINTED_CLASSES = 30 };

typedef struct request {
    const char *run, *data;
    int train, json;
    char data_path[MDM_CONFIG_TEXT], test_path[MDM_CONFIG_TEXT];
} request;

static mdm_status read_options(int argc, char **argv, request *r) {
    mdm_arguments a;
    MDM_TRY(mdm_arguments_read("eval", argc, argv, &a));
    const char *split = mdm_arguments_get(&a, "--split");
    if (a.word_count == 0) return mdm_fail(MDM_USAGE, "eval needs RUN, a run folder; mdm-dist eval --help");
    if (a.word_count > 2) return mdm_fail(MDM_USAGE, "eval: '%s' is one name too many", a.words[2]);
    r->run = a.words[0];
    r->data = a.words[1];
    r->train = split && strcmp(split, "train") == 0;
    r->json = mdm_arguments_get(&a, "--json") != NULL;
    return MDM_OK;
}

/* The files of the run's own settings, where none is given. */
static mdm_status find_data(request *r) {
    mdm_config *config;
    if (r->data) {
        snprintf(r->data_path, sizeof r->data_path, "%s", r->data);
        return MDM_OK;
    }
    MDM_TRY(MDM_ALLOCATE(config, 1, "the configuration"));
    mdm_config_defaults(config);
    char *path = mdm_run_folder_member(r->run, MDM_RUN_CONFIG);
    mdm_status status =
        path ? mdm_config_read_yaml(config, path) : mdm_fail(MDM_RESOURCE, "out of memory for a path");
    if (status == MDM_OK) {
        mdm_run_folder_data(r->run, config->data.train, r->data_path, sizeof r->data_path);
        mdm_run_folder_data(r->run, config->data.test, r->test_path, sizeof r->test_path);
    }
    free(path);
    free(config);
    return status;
}

typedef struct tally {
    int64_t *confusion; /* [classes, classes] true, predicted */
    int64_t top5, skipped;
    int classes;
} tally;

static mdm_status check_fit(const mdm_predictor *p, const mdm_store_info *data, const request *r) {
    const mdm_network_spec *s = &mdm_predictor_notes(p)->spec;
    if (data->height != s->height || data->width != s->width || data->channels != s->channels)
        return mdm_fail(MDM_INPUT, "%s holds pictures of %dx%dx%d, the networks of %s take %dx%dx%d",
                        data->path, data->height, data->width, data->channels, r->run, s->height, s->width,
                        s->channels);
    if (data->classes > s->classes)
        return mdm_fail(MDM_INPUT, "%s has %d classes, the networks of %s know %d", data->path, data->classes,
                        r->run, s->classes);
    if (!r->train && data->test_count == 0)
        return mdm_fail(MDM_INPUT, "%s has no test set; --split train takes its training set", data->path);
    return MDM_OK;
}

static void count_row(const float *probability, int label, tally *t) {
    int best = 0, better = 0;
    for (int c = 0; c < t->classes; c++) {
        if (probability[c] > probability[best]) best = c;
        better += probability[c] > probability[label] || (c < label && probability[c] == probability[label]);
    }
    t->confusion[(int64_t)label * t->classes + best]++;
    t->top5 += better < 5;
}

static void compare_names(const mdm_predictor *p, const mdm_store *store) {
    const mdm_store_info *data = mdm_store_get_info(store);
    char **names = mdm_predictor_notes(p)->class_names;
    for (int c = 0; names && c < data->classes; c++)
        if (mdm_warn_of_other_name(data->path, c, mdm_store_class_name(store, c), names[c])) return;
}

/* This rank's slice of the split. */
static mdm_status count_slice(mdm_comm *comm, mdm_predictor *p, mdm_store *store, const request *r,
                              tally *t) {
    const mdm_store_info *data = mdm_store_get_info(store);
    mdm_split split = r->train ? MDM_TRAIN : MDM_TEST;
    const int32_t *labels = mdm_store_labels(store, split);
    const uint8_t *pictures[BATCH];
    int64_t first, count;
    float *probability;
    if (r->train && mdm_store_true_labels(store)) labels = mdm_store_true_labels(store);
    mdm_comm_my_slice(comm, r->train ? data->train_count : data->test_count, &first, &count);
    MDM_TRY(MDM_ALLOCATE(probability, BATCH * (long long)t->classes, "predictions"));
    mdm_status status = MDM_OK;
    for (int64_t done = 0; status == MDM_OK && done < count; done += BATCH) {
        int64_t rows = count - done < BATCH ? count - done : BATCH;
        status = mdm_store_fetch_run(store, split, first + done, rows, first + count, pictures);
        if (status == MDM_OK) status = mdm_predictor_run(p, pictures, rows, probability, NULL);
        for (int64_t i = 0; status == MDM_OK && i < rows; i++) {
            int label = labels[first + done + i];
            if (label < 0)
                t->skipped++; /* of no class of this set */
            else
                count_row(probability + i * t->classes, label, t);
        }
    }
    free(probability);
    return status;
}

static double share(int64_t part, int64_t whole) {
    return whole > 0 ? (double)part / (double)whole : 0;
}

static const char *class_name(const mdm_predictor *p, int c) {
    const mdm_model_notes *notes = mdm_predictor_notes(p);
    return notes->class_names ? notes->class_names[c] : "";
}

static void row_sums(const tally *t, int c, int64_t *right, int64_t *row, int64_t *column) {
    *row = *column = 0;
    for (int k = 0; k < t->classes; k++) {
        *row += t->confusion[(int64_t)c * t->classes + k];
        *column += t->confusion[(int64_t)k * t->classes + c];
    }
    *right = t->confusion[(int64_t)c * t->classes + c];
}

static void print_table(const mdm_predictor *p, const tally *t, const char *data, int64_t samples,
                        int64_t hits, int by_given) {
    printf("%s: %" PRId64 " pictures, %s of %d network%s%s\n  top-1  %.4f\n  top-5  %.4f\n", data, samples,
           mdm_predictor_networks(p) > 1 ? "ensemble" : "prediction", mdm_predictor_networks(p),
           mdm_predictor_networks(p) > 1 ? "s" : "", by_given ? ", against the given labels" : "",
           share(hits, samples), share(t->top5, samples));
    if (t->skipped) printf("  %" PRId64 " pictures of no class of this set were left out\n", t->skipped);
    printf("  class  pictures  recall  precision  name\n");
    for (int c = 0; c < t->classes; c++) {
        int64_t right, row, column;
        char shown[256]; /* names come from a data set file: no control characters on the terminal */
        row_sums(t, c, &right, &row, &column);
        printf("  %5d  %8" PRId64 "  %6.4f  %9.4f  %s\n", c, row, share(right, row), share(right, column),
               mdm_printable(class_name(p, c), shown, sizeof shown));
    }
    if (t->classes > MOST_PRINTED_CLASSES) {
        printf("  confusion matrix: by --json, it is too wide for a terminal\n");
        return;
    }
    printf("  confusion matrix (row: %s class, column: predicted)\n       ", by_given ? "given" : "true");
    for (int c = 0; c < t->classes; c++) printf(" %6d", c);
    for (int c = 0; c < t->classes; c++) {
        printf("\n  %5d", c);
        for (int k = 0; k < t->classes; k++) printf(" %6" PRId64, t->confusion[(int64_t)c * t->classes + k]);
    }
    printf("\n");
}

static mdm_status print_json(const mdm_predictor *p, const tally *t, const request *r, const char *data,
                             int64_t samples, int64_t hits) {
    mdm_text text = {0};
    mdm_text_add(&text, "{\"run\":");
    mdm_text_add_json_string(&text, r->run);
    mdm_text_add(&text, ",\"data\":");
    mdm_text_add_json_string(&text, data);
    mdm_text_add(&text, ",\"split\":\"%s\",\"networks\":%d,\"samples\":%" PRId64 ",\"left_out\":%" PRId64,
                 r->train ? "train" : "test", mdm_predictor_networks(p), samples, t->skipped);
    mdm_text_add(&text, ",\"top1\":");
    mdm_text_add_json_number(&text, share(hits, samples));
    mdm_text_add(&text, ",\"top5\":");
    mdm_text_add_json_number(&text, share(t->top5, samples));
    mdm_text_add(&text, ",\"per_class\":[");
    for (int c = 0; c < t->classes; c++) {
        int64_t right, row, column;
        row_sums(t, c, &right, &row, &column);
        mdm_text_add(&text, "%s{\"class\":%d,\"name\":", c ? "," : "", c);
        mdm_text_add_json_string(&text, class_name(p, c));
        mdm_text_add(&text, ",\"samples\":%" PRId64 ",\"recall\":", row);
        mdm_text_add_json_number(&text, share(right, row));
        mdm_text_add(&text, ",\"precision\":");
        mdm_text_add_json_number(&text, share(right, column));
        mdm_text_add(&text, "}");
    }
    mdm_text_add(&text, "],\"confusion\":[");
    for (int c = 0; c < t->classes; c++) {
        mdm_text_add(&text, "%s[", c ? "," : "");
        for (int k = 0; k < t->classes; k++)
            mdm_text_add(&text, "%s%" PRId64, k ? "," : "", t->confusion[(int64_t)c * t->classes + k]);
        mdm_text_add(&text, "]");
    }
    mdm_text_add(&text, "]}");
    if (!text.failed) puts(text.data);
    mdm_status status = text.failed ? mdm_fail(MDM_RESOURCE, "out of memory for the result") : MDM_OK;
    free(text.data);
    return status;
}

static mdm_status evaluate(mdm_comm *comm, mdm_predictor *p, mdm_store *store, const request *r) {
    const mdm_store_info *data = mdm_store_get_info(store);
    tally t = {.classes = mdm_predictor_notes(p)->spec.classes};
    int64_t both[2], samples = 0, hits = 0, cells = (int64_t)t.classes * t.classes;
    MDM_TRY(check_fit(p, data, r));
    mdm_status status = MDM_ALLOCATE(t.confusion, cells, "the confusion matrix");
    if (status == MDM_OK) status = count_slice(comm, p, store, r, &t);
    status = mdm_comm_agree(comm, status);
    if (status == MDM_OK) status = mdm_comm_all_reduce(comm, t.confusion, cells, MDM_INT64, MDM_SUM);
    both[0] = t.top5, both[1] = t.skipped;
    if (status == MDM_OK) status = mdm_comm_all_reduce(comm, both, 2, MDM_INT64, MDM_SUM);
    t.top5 = both[0], t.skipped = both[1];
    if (status == MDM_OK && mdm_comm_rank(comm) == 0) {
        if (r->data) compare_names(p, store);
        for (int64_t i = 0; i < cells; i++) samples += t.confusion[i];
        for (int c = 0; c < t.classes; c++) hits += t.confusion[(int64_t)c * t.classes + c];
        if (r->json)
            status = print_json(p, &t, r, data->path, samples, hits);
        else
            print_table(p, &t, data->path, samples, hits, r->train && !mdm_store_true_labels(store));
    }
    free(t.confusion);
    return status;
}

static mdm_status run_under_mpi(mdm_comm *comm, request *r) {
    mdm_predictor *predictor = NULL;
    mdm_store *store = NULL;
    MDM_TRY(mdm_comm_agree(comm, mdm_check_environment()));
    mdm_status status = mdm_predictor_open(comm, r->run, &predictor);
    if (status == MDM_OK) status = mdm_comm_agree(comm, find_data(r));
    if (status == MDM_OK) {
        const mdm_model_notes *notes = mdm_predictor_notes(predictor);
        status = mdm_store_open_to_judge(comm, r->data_path, r->test_path[0] ? r->test_path : NULL,
                                         notes->mean, notes->std, &store);
    }
    if (status == MDM_OK && !r->data && mdm_comm_rank(comm) == 0)
        mdm_run_folder_compare_data(r->run, r->data_path, mdm_store_get_info(store)->fingerprint);
    if (status == MDM_OK) status = evaluate(comm, predictor, store, r);
    mdm_store_close(store);
    mdm_predictor_close(predictor);
    return status;
}

mdm_status mdm_command_eval(int argc, char **argv) {
    request r = {0};
    MDM_TRY(read_options(argc, argv, &r));
    mdm_comm *comm;
    MDM_TRY(mdm_comm_start(&argc, &argv, &comm));
    mdm_log_set_rank(mdm_comm_rank(comm), mdm_comm_size(comm));
    mdm_status status = run_under_mpi(comm, &r);
    mdm_command_leave(comm, status);
    mdm_comm_finish(comm);
    return status;
}
