/* From chunks to pictures. What is in a chunk is a stranger's: it is unpacked into memory of the size that
 * the file announced, and refused unless it fills that memory to the byte. */
#include "dataset_chunks.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    KEPT_BYTES = 16 << 20,
    MOST_KEPT = 1 << 14, /* chunks */
    CHECKSUM = 4,
    FEW = 8, /* less than an eighth of a chunk is read without the rest of it, where it is not packed */
};

typedef struct slot {
    int64_t number; /* of the chunk in it; -1: none */
    uint8_t *data;
} slot;

struct mdm_chunks {
    char *path;
    int descriptor;
    const mdm_places *places;
    int64_t along[4], count; /* chunks */
    int64_t picture, slab;   /* bytes of a picture, and of its part in one chunk */
    int64_t bytes;           /* of a chunk, unpacked */
    slot *slots;             /* chunk n is in slot n % slot_count, if anywhere */
    int64_t slot_count;
    uint8_t *packed; /* the latest chunk as it is in the file */
    int64_t capacity;
};

static mdm_status refuse(const mdm_chunks *c) {
    return mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged or was changed while in use",
                    c->path, mdm_places_name(c->places));
}

mdm_status mdm_chunks_open(const char *path, const mdm_places *places, mdm_chunks **out) {
    mdm_chunks *c;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "a reader"));
    c->places = places;
    c->path = strdup(path);
    c->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    c->count = mdm_places_chunks(places, c->along);
    c->picture = (int64_t)places->height * places->width * places->channels;
    c->slab = places->chunk[1] * places->chunk[2] * places->chunk[3];
    c->bytes = places->chunk[0] * c->slab;
    mdm_status status = c->path && c->descriptor >= 0
                            ? MDM_OK
                            : mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    int64_t most = KEPT_BYTES / c->bytes;
    most = most < 1 ? 1 : most > MOST_KEPT ? MOST_KEPT : most;
    if (most > c->count) most = c->count;
    if (status == MDM_OK) status = MDM_ALLOCATE(c->slots, most, "chunks");
    if (status != MDM_OK) {
        mdm_chunks_close(c);
        return status;
    }
    c->slot_count = most;
    for (int64_t i = 0; i < most; i++) c->slots[i].number = -1;
    *out = c;
    return MDM_OK;
}

void mdm_chunks_close(mdm_chunks *c) {
    if (!c) return;
    if (c->descriptor >= 0) close(c->descriptor);
    for (int64_t i = 0; i < c->slot_count; i++) free(c->slots[i].data);
    free(c->slots);
    free(c->packed);
    free(c->path);
    free(c);
}

/* Fletcher's sum of 16-bit words, high byte first; an odd last byte is a high one. */
static uint32_t fletcher32(const uint8_t *data, int64_t bytes) {
    enum { RUN = 360 }; /* words after which the sums could run over */
    uint32_t low = 0, high = 0;
    for (int64_t words = bytes / 2; words > 0;) {
        int64_t run = words < RUN ? words : RUN;
        words -= run;
        for (; run > 0; run--, data += 2) {
            low += (uint32_t)data[0] << 8 | data[1];
            high += low;
        }
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    if (bytes % 2) {
        low += (uint32_t)*data << 8;
        high += low;
    }
    for (int i = 0; i < 2; i++) {
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    return high << 16 | low;
}

/* Takes the sum off the end; early releases of HDF5 wrote the bytes of each half the other way round. */
static int has_its_sum(const uint8_t *data, int64_t *bytes) {
    if (*bytes < CHECKSUM) return 0;
    *bytes -= CHECKSUM;
    const uint8_t *end = data + *bytes;
    const uint32_t sum = fletcher32(data, *bytes),
                   there = (uint32_t)end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 |
                           (uint32_t)end[3] << 24,
                   turned = (sum & 0x00ff00ff) << 8 | (sum & 0xff00ff00) >> 8;
    return there == sum || there == turned;
}

/* Unpacks into `room` bytes; returns how many there are, -1 when it cannot be, or there are more. */
static int64_t inflate_into(const uint8_t *packed, int64_t bytes, uint8_t *to, int64_t room) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)packed,
                  .avail_in = (uInt)bytes, /* only read */
                  .next_out = to,
                  .avail_out = (uInt)room};
    if (inflateInit(&z) != Z_OK) return -1;
    int code = inflate(&z, Z_FINISH);
    (void)inflateEnd(&z);
    return code == Z_STREAM_END ? room - (int64_t)z.avail_out : -1;
}

/* The filters backwards, as a reader goes, from `packed` to `data`, which has room for a chunk and a sum. */
static int undo_filters(const mdm_chunks *c, mdm_chunk_place place, uint8_t *data) {
    const mdm_places *p = c->places;
    const uint8_t *from = c->packed;
    int64_t bytes = place.bytes;
    for (int i = p->filter_count - 1; i >= 0; i--) {
        if (place.left_out & 1u << i) continue;
        if (p->filters[i] == MDM_FILTER_CHECKSUM && !has_its_sum(from, &bytes)) return 0;
        if (p->filters[i] != MDM_FILTER_DEFLATE) continue;
        if (from == data) return 0; /* twice is more than any writer does */
        bytes = inflate_into(from, bytes, data, c->bytes + CHECKSUM);
        from = data;
    }
    if (bytes != c->bytes) return 0;
    if (from != data) memcpy(data, from, (size_t)bytes);
    return 1;
}

/* Whether it lies in the file as it is in memory. */
static int is_plain(const mdm_chunks *c, mdm_chunk_place place) {
    for (int i = 0; i < c->places->filter_count; i++)
        if (c->places->filters[i] != MDM_FILTER_NOTHING && !(place.left_out & 1u << i)) return 0;
    return place.at >= 0 && place.bytes == c->bytes;
}

/* Bytes of the file into `packed`. */
static mdm_status read_packed(mdm_chunks *c, int64_t at, int64_t bytes) {
    if (bytes > c->capacity) {
        free(c->packed);
        c->capacity = 0;
        MDM_TRY(MDM_ALLOCATE(c->packed, bytes, "a chunk"));
        c->capacity = bytes;
    }
    return mdm_read_at(c->descriptor, c->path, at, bytes, c->packed);
}

/* Brings a chunk into its slot. */
static mdm_status unpack(mdm_chunks *c, int64_t number, mdm_chunk_place place, const uint8_t **data) {
    slot *s = &c->slots[number % c->slot_count];
    if (!s->data) MDM_TRY(MDM_ALLOCATE(s->data, c->bytes + CHECKSUM, "a chunk"));
    *data = s->data;
    if (s->number == number) return MDM_OK;
    s->number = -1;
    if (place.at == MDM_PLACE_HERE) {
        memcpy(s->data, c->places->entries + 2, (size_t)c->bytes);
    } else if (place.at == MDM_PLACE_NOWHERE) {
        memset(s->data, c->places->fill, (size_t)c->bytes);
    } else if (is_plain(c, place)) {
        MDM_TRY(mdm_read_at(c->descriptor, c->path, place.at, c->bytes, s->data));
    } else {
        if (place.bytes > mdm_places_most_packed(c->places)) return refuse(c);
        MDM_TRY(read_packed(c, place.at, place.bytes));
        if (!undo_filters(c, place, s->data)) return refuse(c);
    }
    s->number = number;
    return MDM_OK;
}

/* A picture's part in a chunk, of which `at` is the place in the picture. */
static void copy_slab(const mdm_chunks *c, const int64_t at[4], const uint8_t *slab, uint8_t *picture) {
    const mdm_places *p = c->places;
    const int64_t *chunk = p->chunk, left[4] = {0, p->height - at[1], p->width - at[2], p->channels - at[3]};
    int64_t size[4];
    for (int i = 1; i < 4; i++) size[i] = chunk[i] < left[i] ? chunk[i] : left[i];
    for (int64_t y = 0; y < size[1]; y++) {
        const uint8_t *from = slab + y * chunk[2] * chunk[3];
        uint8_t *to = picture + ((at[1] + y) * p->width + at[2]) * p->channels + at[3];
        if (chunk[3] == p->channels) {
            memcpy(to, from, (size_t)(size[2] * chunk[3]));
            continue;
        }
        for (int64_t x = 0; x < size[2]; x++)
            for (int64_t k = 0; k < size[3]; k++) to[x * p->channels + k] = from[x * chunk[3] + k];
    }
}

/* A few pictures of a chunk that is not packed: it may be many times as large. */
static mdm_status read_slabs(mdm_chunks *c, int64_t begin, const int64_t at[4], const mdm_wanted *wanted,
                             int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        MDM_TRY(read_packed(c, begin + (wanted[i].index - at[0]) * c->slab, c->slab));
        copy_slab(c, at, c->packed, wanted[i].to);
    }
    return MDM_OK;
}

/* Whether the chunk holds whole pictures, and those wanted lie one after another there and where they go. */
static int are_one_piece(const mdm_chunks *c, const mdm_wanted *wanted, int64_t count) {
    const mdm_places *p = c->places;
    if (p->chunk[1] != p->height || p->chunk[2] != p->width || p->chunk[3] != p->channels) return 0;
    for (int64_t i = 1; i < count; i++)
        if (wanted[i].index != wanted[0].index + i || wanted[i].to != wanted[0].to + i * c->picture) return 0;
    return 1;
}

/* What is wanted of one chunk. */
static mdm_status read_chunk(mdm_chunks *c, int64_t number, const int64_t at[4], const mdm_wanted *wanted,
                             int64_t count) {
    const mdm_chunk_place place = mdm_places_get_chunk(c->places, number);
    const uint8_t *data;
    if (is_plain(c, place) && are_one_piece(c, wanted, count))
        return mdm_read_at(c->descriptor, c->path, place.at + (wanted[0].index - at[0]) * c->slab,
                           count * c->slab, wanted[0].to);
    if (count < c->places->chunk[0] / FEW && is_plain(c, place))
        return read_slabs(c, place.at, at, wanted, count);
    MDM_TRY(unpack(c, number, place, &data));
    for (int64_t i = 0; i < count; i++)
        copy_slab(c, at, data + (wanted[i].index - at[0]) * c->slab, wanted[i].to);
    return MDM_OK;
}

/* Pictures that lie in the same chunks: one chunk after the other. */
static mdm_status read_row(mdm_chunks *c, int64_t row, const mdm_wanted *wanted, int64_t count) {
    const int64_t *along = c->along, *chunk = c->places->chunk;
    int64_t number = row * along[1] * along[2] * along[3];
    for (int64_t y = 0; y < along[1]; y++)
        for (int64_t x = 0; x < along[2]; x++)
            for (int64_t k = 0; k < along[3]; k++, number++) {
                const int64_t at[4] = {row * chunk[0], y * chunk[1], x * chunk[2], k * chunk[3]};
                MDM_TRY(read_chunk(c, number, at, wanted, count));
            }
    return MDM_OK;
}

mdm_status mdm_chunks_read(mdm_chunks *c, const mdm_wanted *wanted, int64_t count) {
    for (int64_t i = 0, end; i < count; i = end) {
        int64_t row = wanted[i].index / c->places->chunk[0];
        for (end = i + 1; end < count && wanted[end].index / c->places->chunk[0] == row; end++) {
        }
        MDM_TRY(read_row(c, row, wanted + i, end - i));
    }
    return MDM_OK;
}

mdm_status mdm_chunks_check(mdm_chunks *c) {
    const uint8_t *data;
    for (int64_t i = 0; i < c->count; i++) MDM_TRY(unpack(c, i, mdm_places_get_chunk(c->places, i), &data));
    return MDM_OK;
}
