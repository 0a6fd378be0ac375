/* mdm-dist predict RUN: from pictures to class, confidence and an out-of-distribution flag. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/comm/comm.h"
#include "mdm/data/picture.h"
#include "mdm/data/store.h"
#include "predict_sources.h"
#include "predict_table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 256, MOST_FILE_BYTES = 1 << 29 };

typedef struct request {
    const char *run, *csv;
    char **paths;
    int path_count, json;
} request;

static mdm_status read_options(int argc, char **argv, request *r) {
    MDM_TRY(MDM_ALLOCATE(r->paths, argc, "arguments"));
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (strcmp(a, "--json") == 0)
            r->json = 1;
        else if (strcmp(a, "--csv") == 0) {
            if (i + 1 == argc) return mdm_fail(MDM_USAGE, "--csv needs a value");
            r->csv = argv[++i];
        } else if (strncmp(a, "--csv=", 6) == 0)
            r->csv = a + 6;
        else if (a[0] == '-' && a[1])
            return mdm_manual_refuse_option("predict", a);
        else if (!r->run)
            r->run = a;
        else
            r->paths[r->path_count++] = a;
    }
    if (!r->run || !r->path_count)
        return mdm_fail(MDM_USAGE, "predict needs RUN, a run folder, and pictures; mdm-dist predict --help");
    if (r->csv && r->json) return mdm_fail(MDM_USAGE, "predict: --csv or --json, not both");
    return MDM_OK;
}

/* Where rows go. */
typedef struct sink {
    mdm_comm *comm;
    mdm_predictor *predictor;
    mdm_predict_form form;
    mdm_text text;            /* of a batch */
    mdm_writer *writer;       /* NULL: to stdout */
    float *probability, *ood; /* [BATCH, ...] */
    int64_t pictures, strange, unread;
} sink;

static mdm_status flush(sink *s) {
    if (s->text.failed) return mdm_fail(MDM_RESOURCE, "out of memory for the predictions");
    mdm_status status = MDM_OK;
    if (s->writer) {
        status = mdm_writer_add(s->writer, s->text.data, s->text.length);
    } else {
        fwrite(s->text.data, 1, s->text.length, stdout);
        fflush(stdout);
    }
    s->text.length = 0;
    return status;
}

static mdm_status predict_batch(sink *s, const uint8_t *const *pictures, char (*names)[PREDICT_NAME],
                                int64_t count) {
    const mdm_model_notes *notes = mdm_predictor_notes(s->predictor);
    MDM_TRY(mdm_predictor_run(s->predictor, pictures, count, s->probability, s->ood));
    for (int64_t i = 0; i < count; i++) {
        mdm_predict_row(&s->text, s->form, notes, names[i], s->probability + i * notes->spec.classes,
                        s->ood[i]);
        s->strange += s->ood[i] > 1;
    }
    s->pictures += count;
    return flush(s);
}

/* The test set, or else the training set. */
static mdm_status predict_split(sink *s, mdm_store *store, const char *path, char (*names)[PREDICT_NAME]) {
    const mdm_network_spec *spec = &mdm_predictor_notes(s->predictor)->spec;
    const mdm_store_info *data = mdm_store_get_info(store);
    const mdm_split split = data->test_count ? MDM_TEST : MDM_TRAIN;
    int64_t total = data->test_count ? data->test_count : data->train_count;
    const uint8_t *pictures[BATCH];
    if (data->height != spec->height || data->width != spec->width || data->channels != spec->channels)
        return mdm_fail(MDM_INPUT, "%s holds pictures of %dx%dx%d, the run's networks take %dx%dx%d", path,
                        data->height, data->width, data->channels, spec->height, spec->width, spec->channels);
    for (int64_t done = 0; done < total; done += BATCH) {
        int64_t rows = total - done < BATCH ? total - done : BATCH;
        MDM_TRY(mdm_store_fetch_run(store, split, done, rows, total, pictures));
        for (int64_t i = 0; i < rows; i++)
            snprintf(names[i], PREDICT_NAME, "%s:%s/%lld", path, data->test_count ? "test" : "train",
                     (long long)(done + i));
        MDM_TRY(predict_batch(s, pictures, names, rows));
    }
    return MDM_OK;
}

static mdm_status predict_dataset(sink *s, const char *path) {
    const mdm_model_notes *notes = mdm_predictor_notes(s->predictor);
    char(*names)[PREDICT_NAME] = NULL;
    mdm_store *store;
    MDM_TRY(mdm_store_open_to_judge(s->comm, path, NULL, notes->mean, notes->std, &store));
    mdm_status status = MDM_ALLOCATE(names, BATCH, "names of pictures");
    if (status == MDM_OK) status = predict_split(s, store, path, names);
    free(names);
    mdm_store_close(store);
    return status;
}

/* Reads one file to the network's size. */
static mdm_status read_picture(const mdm_network_spec *spec, const char *path, uint8_t *pixels) {
    mdm_picture picture = {0};
    char *content = NULL;
    size_t bytes;
    MDM_TRY(mdm_read_file(path, MOST_FILE_BYTES, &content, &bytes));
    mdm_status status =
        mdm_picture_decode((const uint8_t *)content, bytes, path, MDM_PICTURE_MOST_PIXELS, &picture);
    free(content);
    if (status == MDM_OK)
        status = mdm_picture_fit(&picture, spec->height, spec->width, spec->channels, pixels);
    mdm_picture_free(&picture);
    return status;
}

/* Pictures collected until there are enough for a batch. */
typedef struct batch {
    const uint8_t *pictures[BATCH];
    uint8_t *pixels; /* [BATCH,H,W,C] */
    char (*names)[PREDICT_NAME];
    int64_t count;
} batch;

static mdm_status predict_file(sink *s, batch *b, const char *path) {
    const mdm_network_spec *spec = &mdm_predictor_notes(s->predictor)->spec;
    size_t bytes = (size_t)spec->height * (size_t)spec->width * (size_t)spec->channels;
    uint8_t *pixels = b->pixels + (size_t)b->count * bytes;
    mdm_status status = read_picture(spec, path, pixels);
    if (status == MDM_INPUT) {
        mdm_warn("%s", mdm_last_message());
        s->unread++;
        return MDM_OK;
    }
    MDM_TRY(status);
    b->pictures[b->count] = pixels;
    snprintf(b->names[b->count], PREDICT_NAME, "%s", path);
    if (++b->count < BATCH) return MDM_OK;
    b->count = 0;
    return predict_batch(s, b->pictures, b->names, BATCH);
}

static mdm_status predict_paths(sink *s, batch *b, const mdm_paths *paths) {
    const mdm_network_spec *spec = &mdm_predictor_notes(s->predictor)->spec;
    MDM_TRY(MDM_ALLOCATE(b->names, BATCH, "names of pictures"));
    MDM_TRY(
        MDM_ALLOCATE(b->pixels, (int64_t)BATCH * spec->height * spec->width * spec->channels, "pictures"));
    for (int64_t i = 0; i <= paths->count; i++) {
        int dataset = i < paths->count && mdm_path_ends_with(paths->path[i], ".h5");
        if ((i == paths->count || dataset) && b->count) { /* rows come in the order of the arguments */
            MDM_TRY(predict_batch(s, b->pictures, b->names, b->count));
            b->count = 0;
        }
        if (i < paths->count)
            MDM_TRY(dataset ? predict_dataset(s, paths->path[i]) : predict_file(s, b, paths->path[i]));
    }
    return MDM_OK;
}

static mdm_status predict_sources(sink *s, const request *r) {
    mdm_paths paths = {0};
    batch *b = NULL;
    mdm_status status = MDM_ALLOCATE(b, 1, "a batch");
    for (int i = 0; status == MDM_OK && i < r->path_count; i++) status = mdm_paths_add(&paths, r->paths[i]);
    if (status == MDM_OK) status = predict_paths(s, b, &paths);
    mdm_paths_free(&paths);
    if (b) {
        free(b->names);
        free(b->pixels);
    }
    free(b);
    return status;
}

static mdm_status predict_all(sink *s, const request *r) {
    int classes = mdm_predictor_notes(s->predictor)->spec.classes;
    s->form = r->csv ? MDM_PREDICT_CSV : r->json ? MDM_PREDICT_JSON : MDM_PREDICT_TABLE;
    if (r->csv && strcmp(r->csv, "-") != 0) MDM_TRY(mdm_writer_open(r->csv, &s->writer));
    MDM_TRY(MDM_ALLOCATE(s->probability, BATCH * (long long)classes, "predictions"));
    MDM_TRY(MDM_ALLOCATE(s->ood, BATCH, "predictions"));
    if (!mdm_predictor_knows_ood(s->predictor))
        mdm_warn("%s has no ood-reference.safetensors: no out-of-distribution scores", r->run);
    mdm_predict_head(&s->text, s->form);
    MDM_TRY(predict_sources(s, r));
    if (s->writer) {
        mdm_writer *whole = s->writer;
        MDM_TRY(flush(s)); /* the head, where no picture could be read */
        s->writer = NULL;
        MDM_TRY(mdm_writer_finish(whole));
    }
    mdm_info("%lld picture%s, %lld out of distribution", (long long)s->pictures, s->pictures == 1 ? "" : "s",
             (long long)s->strange);
    if (s->unread)
        return mdm_fail(MDM_INPUT, "%lld picture%s could not be read", (long long)s->unread,
                        s->unread == 1 ? "" : "s");
    return MDM_OK;
}

static mdm_status predict(mdm_comm *comm, const request *r) {
    sink s = {.comm = comm};
    if (mdm_comm_size(comm) > 1) return mdm_fail(MDM_USAGE, "predict runs alone; start it without mpirun");
    MDM_TRY(mdm_check_environment());
    MDM_TRY(mdm_predictor_open(comm, r->run, &s.predictor));
    mdm_status status = predict_all(&s, r);
    mdm_writer_drop(s.writer);
    free(s.text.data);
    free(s.probability);
    free(s.ood);
    mdm_predictor_close(s.predictor);
    return status;
}

mdm_status mdm_command_predict(int argc, char **argv) {
    request r = {0};
    mdm_status status = read_options(argc, argv, &r);
    if (status == MDM_OK) {
        mdm_comm *comm;
        status = mdm_comm_start(&argc, &argv, &comm);
        if (status == MDM_OK) {
            mdm_log_set_rank(mdm_comm_rank(comm), mdm_comm_size(comm));
            status = predict(comm, &r);
            mdm_command_leave(comm, status);
            mdm_comm_finish(comm);
        }
    }
    free(r.paths);
    return status;
}
