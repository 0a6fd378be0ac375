/* CIFAR-10 and CIFAR-100 in their binary form: records of one or two label bytes and three planes of 32x32.
 */
#include "import_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, PIXELS = SIDE * SIDE, MOST_FILES = 5, FILE_LIMIT = 1 << 30 };

/* Records of a file, and how many label bytes precede the pixels (the last one is the label: fine for
 * CIFAR-100). */
typedef struct batch {
    unsigned char *bytes;
    int64_t records;
} batch;

static mdm_status read_batch(const mdm_source *source, const char *name, int classes, batch *out) {
    size_t count, label_bytes = classes == 100 ? 2 : 1, record = label_bytes + 3 * PIXELS;
    MDM_TRY(mdm_source_read(source, name, FILE_LIMIT, &out->bytes, &count));
    if (count == 0 || count % record != 0)
        return mdm_fail(MDM_INPUT,
                        "%s/%s has %zu bytes, which is no whole number of %zu-byte CIFAR-%d records",
                        source->path, name, count, record, classes);
    out->records = (int64_t)(count / record);
    for (int64_t i = 0; i < out->records; i++) {
        int label = out->bytes[(size_t)i * record + label_bytes - 1];
        if (label >= classes)
            return mdm_fail(MDM_INPUT, "%s/%s: the label of record %lld is %d; expected 0 to %d",
                            source->path, name, (long long)i, label, classes - 1);
    }
    return MDM_OK;
}

/* Planes R, G, B to [H,W,C]. */
static void unpack(const batch *b, int classes, uint8_t *images, int32_t *labels) {
    size_t label_bytes = classes == 100 ? 2 : 1, record = label_bytes + 3 * PIXELS;
    for (int64_t i = 0; i < b->records; i++) {
        const unsigned char *from = b->bytes + (size_t)i * record + label_bytes;
        uint8_t *to = images + i * 3 * PIXELS;
        labels[i] = from[-1];
        for (int p = 0; p < PIXELS; p++)
            for (int c = 0; c < 3; c++) to[p * 3 + c] = from[c * PIXELS + p];
    }
}

static mdm_status import_batches(const mdm_source *source, int classes, batch *train, batch *test,
                                 mdm_dataset **out) {
    char path[4096], name[32];
    int files = classes == 10 ? MOST_FILES : 1;
    int64_t total = 0, done = 0;
    for (int i = 0; i < files; i++) {
        if (classes == 10)
            snprintf(name, sizeof name, "data_batch_%d.bin", i + 1);
        else
            snprintf(name, sizeof name, "train.bin");
        MDM_TRY(read_batch(source, name, classes, &train[i]));
        total += train[i].records;
    }
    const char *test_name = classes == 10 ? "test_batch.bin" : "test.bin";
    if (mdm_source_find(source, test_name, path, sizeof path))
        MDM_TRY(read_batch(source, test_name, classes, test));
    MDM_TRY(mdm_dataset_create(total, test->records, SIDE, SIDE, 3, classes, 1, out));
    mdm_dataset *d = *out;
    for (int i = 0; i < files; i++) {
        unpack(&train[i], classes, d->train_images + done * 3 * PIXELS, d->train_labels + done);
        done += train[i].records;
    }
    memcpy(d->true_labels, d->train_labels, sizeof(int32_t) * (size_t)total);
    if (test->records) unpack(test, classes, d->test_images, d->test_labels);
    mdm_dataset_statistics(d);
    return mdm_source_class_names(source, classes == 10 ? "batches.meta.txt" : "fine_label_names.txt", d);
}

mdm_status mdm_source_import_cifar(const mdm_source *source, int classes, mdm_dataset **dataset) {
    batch train[MOST_FILES], test = {0};
    memset(train, 0, sizeof train);
    *dataset = NULL;
    mdm_status status = import_batches(source, classes, train, &test, dataset);
    for (int i = 0; i < MOST_FILES; i++) free(train[i].bytes);
    free(test.bytes);
    if (status != MDM_OK) {
        mdm_dataset_destroy(*dataset);
        *dataset = NULL;
    }
    return status;
}
