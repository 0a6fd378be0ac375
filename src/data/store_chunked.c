/* From indices to pictures of a data set that only HDF5 can unpack. HDF5 may be called from one thread only,
 * so nothing is read ahead here: the pictures are read when they are fetched, in order of their place, each
 * one once. */
#include "store_chunked.h"
#include "dataset_internal.h"
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

typedef struct place {
    int64_t index, slot;
} place;

struct mdm_chunked {
    char *path;
    hid_t file, array, space, memory; /* memory: the shape of one picture */
    int64_t bytes, capacity;
    hsize_t dims[4];
    uint8_t *data;
    place *places;
};

mdm_status mdm_chunked_open(const char *path, int split, int64_t bytes, mdm_chunked **out) {
    mdm_chunked *c;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "a reader"));
    c->file = c->array = c->space = c->memory = H5I_INVALID_HID;
    c->bytes = bytes;
    c->path = strdup(path);
    mdm_status status = c->path ? MDM_OK : mdm_fail(MDM_RESOURCE, "out of memory for a path");
    if (status == MDM_OK) status = mdm_dataset_open_images(path, split, &c->file, &c->array, c->dims);
    if (status == MDM_OK && (int64_t)(c->dims[1] * c->dims[2] * c->dims[3]) != bytes)
        status = mdm_fail(MDM_INPUT, "%s was changed while it was opened; start again", path);
    if (status == MDM_OK) {
        hsize_t one[4] = {1, c->dims[1], c->dims[2], c->dims[3]};
        c->space = H5Dget_space(c->array);
        c->memory = H5Screate_simple(4, one, NULL);
        if (c->space < 0 || c->memory < 0)
            status = mdm_fail(MDM_RESOURCE, "%s: out of memory for reading", path);
    }
    if (status != MDM_OK)
        mdm_chunked_close(c);
    else
        *out = c;
    return status;
}

void mdm_chunked_close(mdm_chunked *c) {
    if (!c) return;
    if (c->memory >= 0) H5Sclose(c->memory);
    if (c->space >= 0) H5Sclose(c->space);
    if (c->array >= 0) H5Dclose(c->array);
    if (c->file >= 0) H5Fclose(c->file);
    free(c->path);
    free(c->data);
    free(c->places);
    free(c);
}

static mdm_status grow(mdm_chunked *c, int64_t count) {
    if (count <= c->capacity) return MDM_OK;
    free(c->data);
    free(c->places);
    c->data = NULL;
    c->places = NULL;
    c->capacity = 0;
    MDM_TRY(MDM_ALLOCATE(c->places, count, "streamed pictures"));
    MDM_TRY(mdm_allocate((void **)&c->data, count, c->bytes,
                         "streamed pictures (a smaller train.batch needs less)"));
    c->capacity = count;
    return MDM_OK;
}

static int by_index(const void *a, const void *b) {
    const place *x = a, *y = b;
    if (x->index != y->index) return x->index < y->index ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static int read_one(mdm_chunked *c, int64_t index, uint8_t *to) {
    hsize_t start[4] = {(hsize_t)index, 0, 0, 0}, size[4] = {1, c->dims[1], c->dims[2], c->dims[3]};
    return H5Sselect_hyperslab(c->space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0 &&
           H5Dread(c->array, H5T_NATIVE_UINT8, c->memory, c->space, H5P_DEFAULT, to) >= 0;
}

mdm_status mdm_chunked_fetch(mdm_chunked *c, const int64_t *index, int64_t count, const uint8_t **pictures) {
    MDM_TRY(grow(c, count));
    for (int64_t i = 0; i < count; i++) c->places[i] = (place){index[i], i};
    /* in order of place, so that every chunk is unpacked once while HDF5 remembers it */
    qsort(c->places, (size_t)count, sizeof *c->places, by_index);
    for (int64_t i = 0; i < count; i++) {
        const place *p = &c->places[i];
        if (i > 0 && p->index == p[-1].index) {
            pictures[p->slot] = pictures[p[-1].slot];
            continue;
        }
        uint8_t *to = c->data + p->slot * c->bytes;
        if (!read_one(c, p->index, to))
            return mdm_fail(
                MDM_INPUT, "%s: picture %lld cannot be read; the file is damaged or was changed while in use",
                c->path, (long long)p->index);
        pictures[p->slot] = to;
    }
    return MDM_OK;
}
