/* CIFAR-10 and CIFAR-100 from the files of their Python archives (cifar-10-batches-py, cifar-100-python). */
#include "import_internal.h"
#include "pickle.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, PIXELS = SIDE * SIDE, MOST_FILES = 5, FILE_LIMIT = 1 << 30 };

typedef struct batch {
    char name[32], path[4200];
    unsigned char *bytes;
    mdm_pickle *pickle;
    const uint8_t *pixels; /* [records, 3 planes] */
    int64_t records;
} batch;

static mdm_status read_batch(const mdm_source *source, int classes, batch *b) {
    size_t count;
    int64_t columns, label;
    const char *key = classes == 10 ? "labels" : "fine_labels";
    snprintf(b->path, sizeof b->path, "%s/%s", source->path, b->name);
    MDM_TRY(mdm_source_read(source, b->name, FILE_LIMIT, &b->bytes, &count));
    MDM_TRY(mdm_pickle_read(b->bytes, count, b->path, &b->pickle));
    b->pixels = mdm_pickle_array(b->pickle, "data", &b->records, &columns);
    if (!b->pixels || columns != 3 * PIXELS)
        return mdm_fail(MDM_INPUT, "%s: data is no array of bytes with %d columns", b->path, 3 * PIXELS);
    if (mdm_pickle_list(b->pickle, key) != b->records)
        return mdm_fail(MDM_INPUT, "%s: %s is no list of %lld labels", b->path, key, (long long)b->records);
    for (int64_t i = 0; i < b->records; i++)
        if (!mdm_pickle_number(b->pickle, key, i, &label) || label < 0 || label >= classes)
            return mdm_fail(MDM_INPUT, "%s: the label of record %lld is not from 0 to %d", b->path,
                            (long long)i, classes - 1);
    return MDM_OK;
}

/* Planes R, G, B to [H,W,C]. */
static void unpack(const batch *b, int classes, uint8_t *images, int32_t *labels) {
    for (int64_t i = 0; i < b->records; i++) {
        const uint8_t *from = b->pixels + i * 3 * PIXELS;
        uint8_t *to = images + i * 3 * PIXELS;
        int64_t label = 0;
        if (mdm_pickle_number(b->pickle, classes == 10 ? "labels" : "fine_labels", i, &label))
            labels[i] = (int32_t)label;
        for (int p = 0; p < PIXELS; p++)
            for (int c = 0; c < 3; c++) to[p * 3 + c] = from[c * PIXELS + p];
    }
}

static mdm_status take_names(const mdm_pickle *pickle, const char *key, mdm_dataset *d) {
    char texts[100][128];
    const char *names[100];
    if (mdm_pickle_list(pickle, key) != d->classes) return MDM_OK;
    for (int c = 0; c < d->classes; c++) {
        size_t length;
        const char *text = mdm_pickle_text(pickle, key, c, &length);
        if (!text || memchr(text, 0, length)) return MDM_OK;
        snprintf(texts[c], sizeof texts[c], "%.*s", (int)(length > 127 ? 127 : length), text);
        names[c] = texts[c];
    }
    return mdm_dataset_set_class_names(d, names, d->classes);
}

/* Names of the classes where the archive's description is there. */
static mdm_status name_classes(const mdm_source *source, mdm_dataset *d) {
    char path[4200];
    unsigned char *bytes;
    size_t count;
    mdm_pickle *pickle;
    const char *name = d->classes == 10 ? "batches.meta" : "meta";
    if (!mdm_source_find(source, name, path, sizeof path)) return MDM_OK;
    MDM_TRY(mdm_source_read(source, name, FILE_LIMIT, &bytes, &count));
    mdm_status status = mdm_pickle_read(bytes, count, path, &pickle);
    if (status == MDM_OK)
        status = take_names(pickle, d->classes == 10 ? "label_names" : "fine_label_names", d);
    mdm_pickle_free(pickle);
    free(bytes);
    return status;
}

static mdm_status import_batches(const mdm_source *source, int classes, batch *train, batch *test,
                                 mdm_dataset **out) {
    char path[4200];
    int files = classes == 10 ? MOST_FILES : 1;
    int64_t total = 0, done = 0;
    for (int i = 0; i < files; i++) {
        if (classes == 10)
            snprintf(train[i].name, sizeof train[i].name, "data_batch_%d", i + 1);
        else
            snprintf(train[i].name, sizeof train[i].name, "train");
        MDM_TRY(read_batch(source, classes, &train[i]));
        total += train[i].records;
    }
    snprintf(test->name, sizeof test->name, "%s", classes == 10 ? "test_batch" : "test");
    if (mdm_source_find(source, test->name, path, sizeof path)) MDM_TRY(read_batch(source, classes, test));
    MDM_TRY(mdm_dataset_create(total, test->records, SIDE, SIDE, 3, classes, 1, out));
    mdm_dataset *d = *out;
    for (int i = 0; i < files; i++) {
        unpack(&train[i], classes, d->train_images + done * 3 * PIXELS, d->train_labels + done);
        done += train[i].records;
    }
    memcpy(d->true_labels, d->train_labels, sizeof(int32_t) * (size_t)total);
    if (test->records) unpack(test, classes, d->test_images, d->test_labels);
    mdm_dataset_statistics(d);
    return name_classes(source, d);
}

mdm_status mdm_source_import_cifar_python(const mdm_source *source, int classes, mdm_dataset **dataset) {
    batch *batches; /* the last one is the test set */
    *dataset = NULL;
    MDM_TRY(MDM_ALLOCATE(batches, MOST_FILES + 1, "CIFAR's files"));
    mdm_status status = import_batches(source, classes, batches, &batches[MOST_FILES], dataset);
    for (int i = 0; i <= MOST_FILES; i++) {
        mdm_pickle_free(batches[i].pickle);
        free(batches[i].bytes);
    }
    free(batches);
    if (status != MDM_OK) {
        mdm_dataset_destroy(*dataset);
        *dataset = NULL;
    }
    return status;
}
