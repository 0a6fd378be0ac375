/* Pictures that are stored as JPEG or PNG files inside the data set file: where they lie, and their pixels.
 */
#include "dataset_encoded.h"
#include "dataset_internal.h"
#include "mdm/data/picture.h"
#include "workers.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST = 256 << 20 }; /* bytes of one encoded picture */

struct mdm_encoded {
    char *path;
    int descriptor, split, height, width, channels;
    int64_t place, count;
    int64_t *offsets;
};

/* Opens `name` [*count], of integers. The caller closes the array. */
static mdm_status open_list(hid_t file, const char *path, const char *name, hid_t *array, hsize_t *count) {
    *array = H5Lexists(file, name, H5P_DEFAULT) > 0 ? H5Dopen2(file, name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (*array < 0)
        return mdm_fail(MDM_INPUT, "%s: %s is missing; docs/formats.md describes the file", path, name);
    hid_t space = H5Dget_space(*array), type = H5Dget_type(*array);
    int good = H5Sget_simple_extent_ndims(space) == 1 && H5Sget_simple_extent_dims(space, count, NULL) == 1 &&
               H5Tget_class(type) == H5T_INTEGER;
    H5Sclose(space);
    H5Tclose(type);
    if (good) return MDM_OK;
    H5Dclose(*array);
    return mdm_fail(MDM_INPUT, "%s: %s must be a list of integers", path, name);
}

/* Where the bytes lie in the file; they must lie in one piece. */
static mdm_status find_bytes(hid_t file, const char *path, const char *name, int64_t *place, hsize_t *bytes) {
    hid_t array;
    struct stat info;
    MDM_TRY(open_list(file, path, name, &array, bytes));
    hid_t type = H5Dget_type(array);
    H5O_info_t ours, its;
    int one_byte = H5Tget_size(type) == 1;
    int elsewhere = H5Oget_info2(file, &ours, H5O_INFO_BASIC) < 0 ||
                    H5Oget_info2(array, &its, H5O_INFO_BASIC) < 0 || ours.fileno != its.fileno;
    haddr_t at = H5Dget_offset(array);
    H5Tclose(type);
    H5Dclose(array);
    if (elsewhere || at == HADDR_UNDEF || !one_byte)
        return mdm_fail(MDM_INPUT, "%s: %s must be uint8 in this file, neither chunked, compressed nor empty",
                        path, name);
    if (stat(path, &info) != 0 || (uint64_t)info.st_size < (uint64_t)at ||
        (uint64_t)info.st_size - (uint64_t)at < (uint64_t)*bytes)
        return mdm_fail(MDM_INPUT, "%s was cut short inside %s; copy or write it again", path, name);
    *place = (int64_t)at;
    return MDM_OK;
}

static mdm_status read_offsets(mdm_encoded *e, hid_t file, const char *name, hsize_t bytes) {
    hid_t array;
    hsize_t count;
    MDM_TRY(open_list(file, e->path, name, &array, &count));
    mdm_status status = count >= 2 && count <= (hsize_t)UINT32_MAX
                            ? MDM_ALLOCATE(e->offsets, count, "offsets")
                            : mdm_fail(MDM_INPUT, "%s: %s holds no samples", e->path, name);
    if (status == MDM_OK && H5Dread(array, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, e->offsets) < 0)
        status = mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", e->path, name);
    H5Dclose(array);
    MDM_TRY(status);
    e->count = (int64_t)count - 1;
    for (int64_t i = 0; i < e->count; i++)
        if (e->offsets[i] < 0 || e->offsets[i + 1] <= e->offsets[i] ||
            e->offsets[i + 1] - e->offsets[i] > LARGEST)
            return mdm_fail(MDM_INPUT, "%s: %s must rise from 0, by at most %d; entry %lld does not", e->path,
                            name, (int)LARGEST, (long long)i + 1);
    if (e->offsets[0] != 0 || (uint64_t)e->offsets[e->count] != (uint64_t)bytes)
        return mdm_fail(MDM_INPUT, "%s: %s must begin with 0 and end with the number of bytes, %llu", e->path,
                        name, (unsigned long long)bytes);
    return MDM_OK;
}

/* The attribute picture_size; without it the first training picture's own size. */
static mdm_status read_size(mdm_encoded *e, hid_t file) {
    int size[3] = {0};
    if (H5Aexists(file, "picture_size") != 0) {
        hid_t attribute = H5Aopen(file, "picture_size", H5P_DEFAULT), space = H5Aget_space(attribute);
        int good = H5Sget_simple_extent_npoints(space) == 3 && H5Aread(attribute, H5T_NATIVE_INT, size) >= 0;
        H5Sclose(space);
        H5Aclose(attribute);
        if (!good || size[0] < 1 || size[1] < 1 || size[0] > MDM_PICTURE_MOST_SIDE ||
            size[1] > MDM_PICTURE_MOST_SIDE || (int64_t)size[0] * size[1] > MDM_PICTURE_MOST_PIXELS ||
            (size[2] != 1 && size[2] != 3))
            return mdm_fail(MDM_INPUT,
                            "%s: the attribute picture_size must hold height, width and channels (1 or 3)",
                            e->path);
    } else if (e->split == 0) {
        mdm_picture first;
        MDM_TRY(mdm_encoded_decode(e, 0, &first));
        size[0] = first.height;
        size[1] = first.width;
        size[2] = first.channels;
        mdm_picture_free(&first);
    }
    e->height = size[0];
    e->width = size[1];
    e->channels = size[2];
    return MDM_OK;
}

int mdm_encoded_is_there(hid_t file, int split) {
    const char *group = split ? "/test" : "/train", *name = split ? "/test/encoded" : "/train/encoded";
    return H5Lexists(file, group, H5P_DEFAULT) > 0 && H5Lexists(file, name, H5P_DEFAULT) > 0;
}

mdm_status mdm_encoded_open(hid_t file, const char *path, int split, mdm_encoded **out) {
    mdm_encoded *e;
    hsize_t bytes;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(e, 1, "a reader"));
    e->split = split;
    e->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    e->path = strdup(path);
    mdm_status status = e->path && e->descriptor >= 0
                            ? MDM_OK
                            : mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    if (status == MDM_OK)
        status = find_bytes(file, path, split ? "/test/encoded" : "/train/encoded", &e->place, &bytes);
    if (status == MDM_OK) status = read_offsets(e, file, split ? "/test/offsets" : "/train/offsets", bytes);
    if (status == MDM_OK) status = read_size(e, file);
    if (status == MDM_OK && e->height == 0) { /* a test set takes the training pictures' size */
        mdm_encoded *train = NULL;
        status = mdm_encoded_is_there(file, 0)
                     ? mdm_encoded_open(file, path, 0, &train)
                     : mdm_fail(MDM_INPUT, "%s: the attribute picture_size is missing", path);
        if (status == MDM_OK) mdm_encoded_get_size(train, &e->height, &e->width, &e->channels);
        mdm_encoded_close(train);
    }
    if (status == MDM_OK)
        *out = e;
    else
        mdm_encoded_close(e);
    return status;
}

void mdm_encoded_close(mdm_encoded *e) {
    if (!e) return;
    if (e->descriptor >= 0) close(e->descriptor);
    free(e->path);
    free(e->offsets);
    free(e);
}

int64_t mdm_encoded_get_size(const mdm_encoded *e, int *height, int *width, int *channels) {
    *height = e->height;
    *width = e->width;
    *channels = e->channels;
    return e->count;
}

static mdm_status read_bytes(const mdm_encoded *e, int64_t index, uint8_t *to) {
    int64_t at = e->place + e->offsets[index], bytes = e->offsets[index + 1] - e->offsets[index];
    while (bytes > 0) {
        ssize_t got = pread(e->descriptor, to, (size_t)bytes, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return mdm_fail(MDM_INPUT, "%s cannot be read any more: %s", e->path,
                            got < 0 ? strerror(errno) : "it was cut short while in use");
        to += got;
        at += got;
        bytes -= got;
    }
    return MDM_OK;
}

mdm_status mdm_encoded_decode(const mdm_encoded *e, int64_t index, mdm_picture *picture) {
    char name[4200];
    uint8_t *bytes;
    int64_t count = e->offsets[index + 1] - e->offsets[index];
    snprintf(name, sizeof name, "%s: picture %lld of %s", e->path, (long long)index,
             e->split ? "/test" : "/train");
    MDM_TRY(MDM_ALLOCATE(bytes, count, "an encoded picture"));
    mdm_status status = read_bytes(e, index, bytes);
    if (status == MDM_OK)
        status = mdm_picture_decode(bytes, (size_t)count, name, MDM_PICTURE_MOST_PIXELS, picture);
    free(bytes);
    return status;
}

mdm_status mdm_encoded_read_one(const mdm_encoded *e, int64_t index, uint8_t *pixels) {
    mdm_picture picture;
    MDM_TRY(mdm_encoded_decode(e, index, &picture));
    mdm_status status = mdm_picture_fit(&picture, e->height, e->width, e->channels, pixels);
    mdm_picture_free(&picture);
    return status;
}

typedef struct range {
    const mdm_encoded *encoded;
    int64_t first, bytes;
    uint8_t *pixels;
} range;

static mdm_status read_next(void *context, int64_t i) {
    const range *r = context;
    return mdm_encoded_read_one(r->encoded, r->first + i, r->pixels + i * r->bytes);
}

mdm_status mdm_encoded_read(const mdm_encoded *e, int threads, int64_t first, int64_t count,
                            uint8_t *pixels) {
    range r = {e, first, (int64_t)e->height * e->width * e->channels, pixels};
    return mdm_workers_run(threads, count, read_next, NULL, &r);
}
