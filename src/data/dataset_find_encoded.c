/* From a list of JPEG and PNG files inside the data set file to their places, and the size to bring them to.
 */
#include "dataset_encoded.h"
#include "dataset_find.h"
#include <stdlib.h>
#include <sys/stat.h>

static const char *const bytes_names[2] = {"/train/encoded", "/test/encoded"}, *const offsets_names[2] = {
                                                                                   "/train/offsets",
                                                                                   "/test/offsets"};

/* Opens `name` [*count], of integers. The caller closes the array. */
static mdm_status open_list(const mdm_reader *r, const char *name, hid_t *array, hsize_t *count) {
    *array =
        H5Lexists(r->file, name, H5P_DEFAULT) > 0 ? H5Dopen2(r->file, name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (*array < 0)
        return mdm_fail(MDM_INPUT, "%s: %s is missing; docs/formats.md describes the file", r->path, name);
    hid_t space = H5Dget_space(*array), type = H5Dget_type(*array);
    int good = H5Sget_simple_extent_ndims(space) == 1 && H5Sget_simple_extent_dims(space, count, NULL) == 1 &&
               H5Tget_class(type) == H5T_INTEGER;
    H5Sclose(space);
    H5Tclose(type);
    if (good) return MDM_OK;
    H5Dclose(*array);
    return mdm_fail(MDM_INPUT, "%s: %s must be a list of integers", r->path, name);
}

/* Where the bytes lie in the file; they must lie in one piece. */
static mdm_status find_bytes(const mdm_reader *r, const char *name, int64_t *place, hsize_t *bytes) {
    hid_t array;
    struct stat info;
    MDM_TRY(open_list(r, name, &array, bytes));
    hid_t type = H5Dget_type(array);
    int one_byte = H5Tget_size(type) == 1, elsewhere = mdm_reader_is_elsewhere(r, array);
    haddr_t at = H5Dget_offset(array);
    H5Tclose(type);
    H5Dclose(array);
    if (elsewhere || at == HADDR_UNDEF || !one_byte)
        return mdm_fail(MDM_INPUT, "%s: %s must be uint8 in this file, neither chunked, compressed nor empty",
                        r->path, name);
    if (stat(r->path, &info) != 0 || (uint64_t)info.st_size < (uint64_t)at ||
        (uint64_t)info.st_size - (uint64_t)at < (uint64_t)*bytes)
        return mdm_fail(MDM_INPUT, "%s was cut short inside %s; copy or write it again", r->path, name);
    *place = (int64_t)at;
    return MDM_OK;
}

static mdm_status check_offsets(const mdm_reader *r, const char *name, const mdm_places *p, hsize_t bytes) {
    const int64_t *offsets = p->entries;
    for (int64_t i = 0; i < p->count; i++)
        if (offsets[i] < 0 || offsets[i + 1] <= offsets[i] || offsets[i + 1] - offsets[i] > MDM_MOST_ENCODED)
            return mdm_fail(MDM_INPUT, "%s: %s must rise from 0, by at most %d; entry %lld does not", r->path,
                            name, (int)MDM_MOST_ENCODED, (long long)i + 1);
    if (offsets[0] != 0 || (uint64_t)offsets[p->count] != (uint64_t)bytes)
        return mdm_fail(MDM_INPUT, "%s: %s must begin with 0 and end with the number of bytes, %llu", r->path,
                        name, (unsigned long long)bytes);
    return MDM_OK;
}

static mdm_status read_offsets(const mdm_reader *r, mdm_places *shape, hsize_t bytes, mdm_places **places) {
    const char *name = offsets_names[shape->split];
    hid_t array;
    hsize_t count;
    MDM_TRY(open_list(r, name, &array, &count));
    shape->count = (int64_t)count - 1;
    mdm_status status = count >= 2 && count <= (hsize_t)UINT32_MAX
                            ? mdm_places_create(shape, (int64_t)count, places)
                            : mdm_fail(MDM_INPUT, "%s: %s holds no samples", r->path, name);
    if (status == MDM_OK &&
        H5Dread(array, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, (*places)->entries) < 0)
        status = mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", r->path, name);
    H5Dclose(array);
    return status == MDM_OK ? check_offsets(r, name, *places, bytes) : status;
}

static mdm_status read_picture_size(const mdm_reader *r, int size[3]) {
    hid_t attribute = H5Aopen(r->file, "picture_size", H5P_DEFAULT);
    int good = mdm_reader_elements(attribute) == 3 && H5Aread(attribute, H5T_NATIVE_INT, size) >= 0;
    H5Aclose(attribute);
    if (good && size[0] >= 1 && size[1] >= 1 && size[0] <= MDM_PICTURE_MOST_SIDE &&
        size[1] <= MDM_PICTURE_MOST_SIDE && (int64_t)size[0] * size[1] <= MDM_PICTURE_MOST_PIXELS &&
        (size[2] == 1 || size[2] == 3))
        return MDM_OK;
    return mdm_fail(MDM_INPUT, "%s: the attribute picture_size must hold height, width and channels (1 or 3)",
                    r->path);
}

static mdm_status measure_first(const mdm_reader *r, const mdm_places *train, int size[3]) {
    mdm_encoded *encoded;
    mdm_picture first;
    MDM_TRY(mdm_encoded_open(r->path, train, &encoded));
    mdm_status status = mdm_encoded_decode(encoded, 0, &first);
    mdm_encoded_close(encoded);
    MDM_TRY(status);
    size[0] = first.height;
    size[1] = first.width;
    size[2] = first.channels;
    mdm_picture_free(&first);
    return MDM_OK;
}

/* The attribute picture_size; without it the first training picture's own size. */
static mdm_status find_size(const mdm_reader *r, mdm_places *p) {
    int size[3] = {0};
    mdm_places *train = NULL;
    mdm_status status;
    if (H5Aexists(r->file, "picture_size") != 0) {
        status = read_picture_size(r, size);
    } else if (p->split == 0) {
        status = measure_first(r, p, size);
    } else {
        status = mdm_dataset_is_encoded(r->file, 0)
                     ? mdm_dataset_find_encoded(r, 0, &train)
                     : mdm_fail(MDM_INPUT, "%s: the attribute picture_size is missing", r->path);
        if (status == MDM_OK) {
            size[0] = train->height;
            size[1] = train->width;
            size[2] = train->channels;
        }
        free(train);
    }
    p->height = size[0];
    p->width = size[1];
    p->channels = size[2];
    return status;
}

int mdm_dataset_is_encoded(hid_t file, int split) {
    return H5Lexists(file, split ? "/test" : "/train", H5P_DEFAULT) > 0 &&
           H5Lexists(file, bytes_names[split], H5P_DEFAULT) > 0;
}

mdm_status mdm_dataset_find_encoded(const mdm_reader *r, int split, mdm_places **places) {
    mdm_places shape = {.kind = MDM_PLACES_ENCODED, .split = split};
    hsize_t bytes;
    MDM_TRY(find_bytes(r, bytes_names[split], &shape.begin, &bytes));
    MDM_TRY(read_offsets(r, &shape, bytes, places));
    return find_size(r, *places);
}
