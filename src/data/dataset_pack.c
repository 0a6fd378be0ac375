/* From a data set's labels, names and places to bytes in a pipe, and back with nothing taken on trust. */
#include "dataset_pack.h"
#include "places.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct head {
    int64_t train_count, test_count;
    int64_t place_bytes[2];
    int32_t height, width, channels, classes, note_count;
    int32_t has_statistics, has_truth, has_ids, has_class_names;
    float mean[3], std[3];
} head;

typedef struct cursor {
    const char *next;
    size_t left;
} cursor;

static void put_strings(mdm_text *packed, char *const *strings, int64_t count) {
    for (int64_t i = 0; i < count; i++) mdm_text_add_bytes(packed, strings[i], strlen(strings[i]) + 1);
}

static void put_labels(mdm_text *packed, const int32_t *labels, int64_t count) {
    mdm_text_add_bytes(packed, (const char *)labels, sizeof *labels * (size_t)count);
}

void mdm_dataset_pack(const mdm_dataset *d, int has_statistics, mdm_text *packed) {
    head h = {.train_count = d->train_count,
              .test_count = d->test_count,
              .height = d->height,
              .width = d->width,
              .channels = d->channels,
              .classes = d->classes,
              .note_count = d->note_count,
              .has_statistics = has_statistics,
              .has_truth = d->true_labels != NULL,
              .has_ids = d->ids != NULL,
              .has_class_names = d->class_names != NULL};
    memcpy(h.mean, d->mean, sizeof h.mean);
    memcpy(h.std, d->std, sizeof h.std);
    for (int split = 0; split < 2; split++)
        h.place_bytes[split] = d->places[split] ? d->places[split]->bytes : 0;
    mdm_text_add_bytes(packed, (const char *)&h, sizeof h);
    for (int split = 0; split < 2; split++)
        mdm_text_add_bytes(packed, (const char *)d->places[split], (size_t)h.place_bytes[split]);
    put_labels(packed, d->train_labels, d->train_count);
    if (h.has_truth) put_labels(packed, d->true_labels, d->train_count);
    if (d->test_count > 0) put_labels(packed, d->test_labels, d->test_count);
    if (h.has_ids) put_strings(packed, d->ids, d->train_count);
    if (h.has_class_names) put_strings(packed, d->class_names, d->classes);
    for (int i = 0; i < d->note_count; i++) {
        put_strings(packed, &d->notes[i].key, 1);
        put_strings(packed, &d->notes[i].value, 1);
    }
}

static const char *take(cursor *c, size_t bytes) {
    const char *here = c->next;
    if (bytes > c->left) return NULL;
    c->next += bytes;
    c->left -= bytes;
    return here;
}

static const char *take_string(cursor *c) {
    const char *end = memchr(c->next, 0, c->left);
    return end ? take(c, (size_t)(end - c->next) + 1) : NULL;
}

static mdm_status refuse(const char *path) {
    return mdm_fail(MDM_INPUT,
                    "%s is refused: what was found in it contradicts itself; it is damaged or made to harm",
                    path);
}

/* Shapes as dataset_find.c has them. */
static int is_possible(const head *h) {
    if (h->height < 1 || h->height > 16383 || h->width < 1 || h->width > 16383) return 0;
    if ((h->channels != 1 && h->channels != 3) || h->classes < 2 || h->classes > 1000000) return 0;
    if (h->note_count < 0 || h->note_count > MDM_MOST_NOTES || h->train_count < 1) return 0;
    if (h->train_count > (int64_t)UINT32_MAX || h->test_count < 0 || h->test_count > (int64_t)UINT32_MAX)
        return 0;
    for (int c = 0; h->has_statistics && c < h->channels; c++)
        if (!isfinite(h->mean[c]) || !(h->std[c] > 0)) return 0;
    return 1;
}

/* Places within the file. */
static mdm_status take_places(cursor *c, const char *path, const head *h, int split, int64_t file_bytes,
                              mdm_places **places) {
    const int64_t count = split ? h->test_count : h->train_count, bytes = h->place_bytes[split];
    if (count == 0 && bytes == 0) return MDM_OK;
    const char *from = bytes >= (int64_t)sizeof **places ? take(c, (size_t)bytes) : NULL;
    if (!from) return refuse(path);
    MDM_TRY(mdm_allocate((void **)places, bytes, 1, "the places of pictures"));
    memcpy(*places, from, (size_t)bytes);
    if (!mdm_places_are_possible(*places, (size_t)bytes, count, h->height, h->width, h->channels, file_bytes))
        return refuse(path);
    return (*places)->split == split ? MDM_OK : refuse(path);
}

static mdm_status take_labels(cursor *c, const char *path, int64_t count, int lowest, int classes,
                              int32_t **labels) {
    const char *from = take(c, sizeof **labels * (size_t)count);
    if (!from) return refuse(path);
    MDM_TRY(MDM_ALLOCATE(*labels, count, "labels"));
    memcpy(*labels, from, sizeof **labels * (size_t)count);
    for (int64_t i = 0; i < count; i++)
        if ((*labels)[i] < lowest || (*labels)[i] >= classes) return refuse(path);
    return MDM_OK;
}

static mdm_status take_strings(cursor *c, const char *path, int64_t count, char ***strings) {
    MDM_TRY(MDM_ALLOCATE(*strings, count, "names"));
    for (int64_t i = 0; i < count; i++) {
        const char *from = take_string(c);
        if (!from) return refuse(path);
        if (!((*strings)[i] = strdup(from))) return mdm_fail(MDM_RESOURCE, "out of memory for names");
    }
    return MDM_OK;
}

static mdm_status take_parts(cursor *c, const char *path, const head *h, int64_t file_bytes, mdm_dataset *d) {
    for (int split = 0; split < 2; split++)
        MDM_TRY(take_places(c, path, h, split, file_bytes, &d->places[split]));
    MDM_TRY(take_labels(c, path, h->train_count, 0, h->classes, &d->train_labels));
    if (h->has_truth) MDM_TRY(take_labels(c, path, h->train_count, -1, h->classes, &d->true_labels));
    if (h->test_count > 0) MDM_TRY(take_labels(c, path, h->test_count, 0, h->classes, &d->test_labels));
    if (h->has_ids) MDM_TRY(take_strings(c, path, h->train_count, &d->ids));
    if (h->has_class_names) MDM_TRY(take_strings(c, path, h->classes, &d->class_names));
    for (int i = 0; i < h->note_count; i++) {
        const char *key = take_string(c), *value = key ? take_string(c) : NULL;
        if (!value) return refuse(path);
        MDM_TRY(mdm_dataset_add_note(d, key, value));
    }
    return c->left == 0 ? MDM_OK : refuse(path);
}

mdm_status mdm_dataset_unpack(const char *path, int64_t file_bytes, const char *packed, size_t bytes,
                              mdm_dataset **out, int *has_statistics) {
    cursor c = {packed, bytes};
    const char *from = take(&c, sizeof(head));
    mdm_dataset *d;
    head h;
    *out = NULL;
    if (!from) return refuse(path);
    memcpy(&h, from, sizeof h);
    if (!is_possible(&h)) return refuse(path);
    MDM_TRY(MDM_ALLOCATE(d, 1, "a data set"));
    d->train_count = h.train_count;
    d->test_count = h.test_count;
    d->height = h.height;
    d->width = h.width;
    d->channels = h.channels;
    d->classes = h.classes;
    memcpy(d->mean, h.mean, sizeof d->mean);
    memcpy(d->std, h.std, sizeof d->std);
    mdm_status status = take_parts(&c, path, &h, file_bytes, d);
    if (status != MDM_OK) {
        mdm_dataset_destroy(d);
        return status;
    }
    *has_statistics = h.has_statistics;
    *out = d;
    return MDM_OK;
}
