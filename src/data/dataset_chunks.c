/* From chunked pictures to the certainty that HDF5 may read them. Pictures are bytes, which a shuffle leaves
 * as they are, so of the filters only deflate and the checksum change a chunk's length. */
#include "dataset_chunks.h"
#include "dataset_internal.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <zlib.h>

enum { MOST_UNPACKED = 256 << 20, MOST_FILTERS = 32, CHECKSUM = 4 };

typedef struct chunks {
    const char *path, *name;
    hid_t array;
    hsize_t dims[4], chunk[4];
    size_t bytes; /* of a chunk, unpacked */
    H5Z_filter_t filters[MOST_FILTERS];
    int filter_count;
    int64_t file_bytes;
    uint8_t *packed; /* the latest chunk as it is in the file */
    size_t capacity;
} chunks;

static mdm_status refuse(const chunks *c) {
    return mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", c->path, c->name);
}

/* Bytes that a deflated piece unpacks to, `most` + 1 for more, 0 when it cannot be unpacked. */
static size_t inflated_bytes(const uint8_t *packed, size_t bytes, size_t most) {
    static uint8_t out[1 << 16];
    z_stream z = {.next_in = (Bytef *)(uintptr_t)packed, .avail_in = (uInt)bytes}; /* only read */
    size_t total = 0;
    int code = inflateInit(&z);
    while (code == Z_OK && total <= most) {
        z.next_out = out;
        z.avail_out = sizeof out;
        code = inflate(&z, Z_NO_FLUSH);
        total += sizeof out - z.avail_out;
        if (code == Z_BUF_ERROR || (z.avail_in == 0 && z.avail_out > 0 && code == Z_OK)) break;
    }
    (void)inflateEnd(&z);
    if (total > most) return most + 1;
    return code == Z_STREAM_END ? total : 0;
}

static mdm_status read_packed(chunks *c, haddr_t place, size_t bytes) {
    if (bytes > c->capacity) {
        free(c->packed);
        c->capacity = 0;
        MDM_TRY(MDM_ALLOCATE(c->packed, bytes, "a chunk"));
        c->capacity = bytes;
    }
    return mdm_dataset_read_place(c->path, (int64_t)place, (int64_t)bytes, c->packed);
}

/* The filters backwards, as a reader goes. */
static int unpacks_to_its_size(const chunks *c, size_t bytes, unsigned left_out) {
    int is_deflated = 1;
    for (int i = c->filter_count - 1; i >= 0; i--) {
        if (left_out & 1u << i) continue;
        if (c->filters[i] == H5Z_FILTER_FLETCHER32) {
            if (bytes < CHECKSUM) return 0;
            bytes -= CHECKSUM;
        } else if (c->filters[i] == H5Z_FILTER_DEFLATE) {
            if (!is_deflated) return 0; /* twice is more than any writer does */
            bytes = inflated_bytes(c->packed, bytes, c->bytes + CHECKSUM);
            is_deflated = 0;
        }
    }
    return bytes == c->bytes;
}

static mdm_status check_chunk(chunks *c, const hsize_t at[4]) {
    unsigned left_out = 0;
    haddr_t place = HADDR_UNDEF;
    hsize_t bytes = 0;
    if (H5Dget_chunk_info_by_coord(c->array, at, &left_out, &place, &bytes) < 0) return refuse(c);
    if (place == HADDR_UNDEF) return MDM_OK; /* never written */
    if (bytes > (hsize_t)c->file_bytes || place > (haddr_t)c->file_bytes - bytes) return refuse(c);
    MDM_TRY(read_packed(c, place, (size_t)bytes));
    return unpacks_to_its_size(c, (size_t)bytes, left_out) ? MDM_OK : refuse(c);
}

static mdm_status check_all(chunks *c) {
    hsize_t at[4];
    for (at[0] = 0; at[0] < c->dims[0]; at[0] += c->chunk[0])
        for (at[1] = 0; at[1] < c->dims[1]; at[1] += c->chunk[1])
            for (at[2] = 0; at[2] < c->dims[2]; at[2] += c->chunk[2])
                for (at[3] = 0; at[3] < c->dims[3]; at[3] += c->chunk[3]) MDM_TRY(check_chunk(c, at));
    return MDM_OK;
}

static mdm_status describe(chunks *c) {
    hid_t plist = H5Dget_create_plist(c->array);
    int good = plist >= 0 && H5Pget_layout(plist) == H5D_CHUNKED && H5Pget_chunk(plist, 4, c->chunk) == 4;
    c->bytes = 1;
    for (int i = 0; good && i < 4; i++) {
        good = c->chunk[i] > 0 && c->chunk[i] <= MOST_UNPACKED / c->bytes;
        if (good) c->bytes *= c->chunk[i];
    }
    c->filter_count = good ? H5Pget_nfilters(plist) : 0;
    good = good && c->filter_count >= 0 && c->filter_count <= MOST_FILTERS;
    for (int i = 0; good && i < c->filter_count; i++) {
        unsigned flags, configuration;
        size_t values = 0;
        c->filters[i] = H5Pget_filter2(plist, (unsigned)i, &flags, &values, NULL, 0, NULL, &configuration);
    }
    if (plist >= 0) H5Pclose(plist);
    return good ? MDM_OK : refuse(c);
}

/* Compact pictures have no chunks; HDF5 has read them with their header. */
static int has_chunks(hid_t array) {
    hid_t plist = H5Dget_create_plist(array);
    int chunked = plist >= 0 && H5Pget_layout(plist) != H5D_COMPACT;
    if (plist >= 0) H5Pclose(plist);
    return chunked;
}

static mdm_status check_split(const char *path, int split) {
    chunks c = {.path = path, .name = split ? "/test/images" : "/train/images"};
    struct stat info;
    hid_t opened;
    MDM_TRY(mdm_dataset_open_images(path, split, &opened, &c.array, c.dims));
    mdm_status status = MDM_OK;
    if (has_chunks(c.array)) {
        c.file_bytes = stat(path, &info) == 0 ? (int64_t)info.st_size : 0;
        status = describe(&c);
        if (status == MDM_OK) status = check_all(&c);
        free(c.packed);
    }
    H5Dclose(c.array);
    H5Fclose(opened);
    return status;
}

static mdm_status read_split(const char *path, int split, int64_t count, int64_t bytes) {
    int64_t piece = ((int64_t)16 << 20) / bytes + 1;
    uint8_t *buffer;
    MDM_TRY(mdm_allocate((void **)&buffer, piece, bytes, "pictures"));
    mdm_status status = MDM_OK;
    for (int64_t i = 0; status == MDM_OK && i < count; i += piece)
        status = mdm_dataset_read_images(path, split, i, count - i < piece ? count - i : piece, buffer);
    free(buffer);
    return status;
}

mdm_status mdm_dataset_check_chunks(const char *path, const mdm_dataset *d,
                                    const mdm_dataset_places *places) {
    const int64_t counts[2] = {d->train_count, d->test_count},
                  bytes = (int64_t)d->height * d->width * d->channels;
    for (int split = 0; split < 2; split++) {
        mdm_encoded *encoded;
        if (counts[split] == 0 || places->offset[split] >= 0 || counts[split] > MOST_UNPACKED / bytes)
            continue;
        MDM_TRY(mdm_dataset_open_encoded(path, split, &encoded));
        mdm_encoded_close(encoded);
        if (encoded) continue; /* JPEG and PNG are unpacked by decoders of our own choice */
        MDM_TRY(check_split(path, split));
        MDM_TRY(read_split(path, split, counts[split], bytes));
    }
    return MDM_OK;
}
