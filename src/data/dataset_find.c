/* From a data set of pictures to their places in the file: in one piece, in chunks, or as JPEG and PNG files.
 */
#include "dataset_find.h"
#include "hdf5_driver.h"
#include <stdlib.h>
#include <sys/stat.h>

enum { LARGEST_SIDE = 16383, MOST_COMPACT = 65536 };

typedef struct finder {
    const mdm_reader *reader;
    const char *name;
    int split;
    hid_t array, plist;
    hsize_t dims[4], file_bytes;
} finder;

static mdm_status refuse(const finder *f) {
    return mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", f->reader->path, f->name);
}

static mdm_status check_shape(const finder *f) {
    const hsize_t *dims = f->dims;
    const char *path = f->reader->path;
    if (dims[0] == 0) return mdm_fail(MDM_INPUT, "%s: %s holds no samples", path, f->name);
    if (dims[0] > (hsize_t)UINT32_MAX || dims[1] < 1 || dims[2] < 1 || dims[1] > LARGEST_SIDE ||
        dims[2] > LARGEST_SIDE)
        return mdm_fail(MDM_INPUT, "%s: %s has the impossible shape [%llu,%llu,%llu,%llu]", path, f->name,
                        (unsigned long long)dims[0], (unsigned long long)dims[1], (unsigned long long)dims[2],
                        (unsigned long long)dims[3]);
    if (dims[3] != 1 && dims[3] != 3)
        return mdm_fail(MDM_INPUT,
                        "%s: %s has %llu channels; expected [N,H,W,C] with C 1 (grey) or 3 (colour)", path,
                        f->name, (unsigned long long)dims[3]);
    return MDM_OK;
}

static mdm_places shape_of(const finder *f, mdm_places_kind kind) {
    return (mdm_places){.kind = (int32_t)kind,
                        .split = f->split,
                        .count = (int64_t)f->dims[0],
                        .height = (int32_t)f->dims[1],
                        .width = (int32_t)f->dims[2],
                        .channels = (int32_t)f->dims[3]};
}

static mdm_status find_plain(const finder *f, haddr_t place, mdm_places **places) {
    hsize_t bytes = f->dims[0] * f->dims[1] * f->dims[2] * f->dims[3];
    if (f->file_bytes < place + bytes)
        return mdm_fail(MDM_INPUT, "%s was cut short: %s should reach byte %llu; copy or write it again",
                        f->reader->path, f->name, (unsigned long long)(place + bytes));
    mdm_places shape = shape_of(f, MDM_PLACES_PLAIN);
    shape.begin = (int64_t)place;
    return mdm_places_create(&shape, 0, places);
}

/* A small set's pictures in the header of the data set, as one chunk that is handed over itself. */
static mdm_status find_compact(const finder *f, mdm_places **places) {
    int64_t bytes = (int64_t)(f->dims[0] * f->dims[1] * f->dims[2] * f->dims[3]);
    mdm_places shape = shape_of(f, MDM_PLACES_CHUNKED);
    if (bytes > MOST_COMPACT) return refuse(f);
    for (int i = 0; i < 4; i++) shape.chunk[i] = (int64_t)f->dims[i];
    MDM_TRY(mdm_places_create(&shape, 2 + (bytes + 7) / 8, places));
    mdm_places *p = *places;
    mdm_places_set_chunk(p, 0, (mdm_chunk_place){MDM_PLACE_HERE, (uint32_t)bytes, 0});
    return H5Dread(f->array, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, p->entries + 2) >= 0
               ? MDM_OK
               : refuse(f);
}

static mdm_status describe_filters(const finder *f, mdm_places *p) {
    p->filter_count = H5Pget_nfilters(f->plist);
    if (p->filter_count < 0 || p->filter_count > MDM_MOST_FILTERS) return refuse(f);
    for (int i = 0; i < p->filter_count; i++) {
        unsigned flags, configuration, element[1] = {1};
        size_t values = 1;
        H5Z_filter_t filter =
            H5Pget_filter2(f->plist, (unsigned)i, &flags, &values, element, 0, NULL, &configuration);
        if (filter == H5Z_FILTER_DEFLATE)
            p->filters[i] = MDM_FILTER_DEFLATE;
        else if (filter == H5Z_FILTER_FLETCHER32)
            p->filters[i] = MDM_FILTER_CHECKSUM;
        else if (filter != H5Z_FILTER_SHUFFLE || element[0] != 1)
            return refuse(f);
    }
    return MDM_OK;
}

static mdm_status describe_chunks(const finder *f, mdm_places *p) {
    hsize_t chunk[4];
    H5D_fill_value_t has_fill;
    uint8_t fill = 0;
    int64_t bytes = 1;
    if (H5Pget_chunk(f->plist, 4, chunk) != 4) return refuse(f);
    for (int i = 0; i < 4; i++) {
        if (chunk[i] < 1 || chunk[i] > (hsize_t)(MDM_MOST_CHUNK / bytes)) return refuse(f);
        p->chunk[i] = (int64_t)chunk[i];
        bytes *= p->chunk[i];
    }
    if (H5Pfill_value_defined(f->plist, &has_fill) < 0 ||
        (has_fill != H5D_FILL_VALUE_UNDEFINED && H5Pget_fill_value(f->plist, H5T_NATIVE_UINT8, &fill) < 0))
        return refuse(f);
    p->fill = fill;
    return describe_filters(f, p);
}

/* A chunk that reaches beyond the pictures may have been left without filters. */
static unsigned left_out_at(const finder *f, const mdm_places *p, const hsize_t at[4], unsigned left_out) {
    unsigned options = 0;
    int is_partial = 0;
    for (int i = 0; i < 4; i++) is_partial |= at[i] + (hsize_t)p->chunk[i] > f->dims[i];
    if (is_partial && H5Pget_chunk_opts(f->plist, &options) >= 0 &&
        options & H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS)
        return UINT32_MAX;
    return left_out;
}

/* A chunk that HDF5 does not find was never written: the caller counts them. */
static mdm_status find_chunk(const finder *f, mdm_places *p, int64_t number, const hsize_t at[4],
                             void *buffer, hsize_t *found) {
    uint32_t left_out = 0;
    haddr_t place;
    hsize_t bytes = 0;
    mdm_places_set_chunk(p, number, (mdm_chunk_place){MDM_PLACE_NOWHERE, 0, 0});
    if (H5Dget_chunk_storage_size(f->array, at, &bytes) < 0 || bytes == 0) return MDM_OK;
    if (bytes > (hsize_t)mdm_places_most_packed(p) ||
        !mdm_driver_find_chunk(f->array, at, (size_t)bytes, buffer, &place, &left_out) ||
        bytes > f->file_bytes || place > f->file_bytes - bytes)
        return refuse(f);
    mdm_places_set_chunk(p, number,
                         (mdm_chunk_place){(int64_t)place, (uint32_t)bytes, left_out_at(f, p, at, left_out)});
    ++*found;
    return MDM_OK;
}

static mdm_status find_all_chunks(const finder *f, mdm_places *p, void *buffer) {
    hsize_t at[4], step[4], written, found = 0;
    int64_t number = 0;
    hid_t space = H5Dget_space(f->array);
    herr_t counted = H5Dget_num_chunks(f->array, space, &written);
    H5Sclose(space);
    if (counted < 0) return refuse(f);
    for (int i = 0; i < 4; i++) step[i] = (hsize_t)p->chunk[i];
    for (at[0] = 0; at[0] < f->dims[0]; at[0] += step[0])
        for (at[1] = 0; at[1] < f->dims[1]; at[1] += step[1])
            for (at[2] = 0; at[2] < f->dims[2]; at[2] += step[2])
                for (at[3] = 0; at[3] < f->dims[3]; at[3] += step[3])
                    MDM_TRY(find_chunk(f, p, number++, at, buffer, &found));
    return found == written ? MDM_OK : refuse(f);
}

static mdm_status find_chunked(const finder *f, mdm_places **places) {
    mdm_places shape = shape_of(f, MDM_PLACES_CHUNKED);
    int64_t along[4];
    void *buffer; /* for what is not read: it takes addresses, no memory */
    MDM_TRY(describe_chunks(f, &shape));
    MDM_TRY(mdm_places_create(&shape, 2 * mdm_places_chunks(&shape, along), places));
    if (!(buffer = malloc((size_t)mdm_places_most_packed(&shape))))
        return mdm_fail(MDM_RESOURCE, "no memory for a chunk");
    mdm_status status = find_all_chunks(f, *places, buffer);
    free(buffer);
    return status;
}

static mdm_status find_by_layout(finder *f, mdm_places **places) {
    const haddr_t place = H5Dget_offset(f->array);
    struct stat info;
    MDM_TRY(mdm_reader_check_type(f->reader, f->name, f->array, 1));
    MDM_TRY(check_shape(f));
    if (stat(f->reader->path, &info) != 0) return refuse(f);
    f->file_bytes = (hsize_t)info.st_size;
    if (place != HADDR_UNDEF) return find_plain(f, place, places);
    if ((f->plist = H5Dget_create_plist(f->array)) < 0) return refuse(f);
    const H5D_layout_t layout = H5Pget_layout(f->plist);
    mdm_status status = layout == H5D_COMPACT   ? find_compact(f, places)
                        : layout == H5D_CHUNKED ? find_chunked(f, places)
                                                : refuse(f);
    H5Pclose(f->plist);
    return status;
}

mdm_status mdm_dataset_find_pictures(const mdm_reader *r, int split, mdm_places **places) {
    finder f = {.reader = r, .name = split ? "/test/images" : "/train/images", .split = split};
    if (!mdm_reader_has(r, f.name) && mdm_dataset_is_encoded(r->file, split))
        return mdm_dataset_find_encoded(r, split, places);
    MDM_TRY(mdm_reader_open_array(r, f.name, 4, f.dims, &f.array));
    mdm_status status = find_by_layout(&f, places);
    H5Dclose(f.array);
    return status;
}
