/* Places of pictures: their form, and whether they can be those of a file. */
#include "places.h"
#include "mdm/base/watch.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

mdm_status mdm_places_create(const mdm_places *shape, int64_t entry_count, mdm_places **places) {
    const int64_t bytes = (int64_t)sizeof(mdm_places) + entry_count * (int64_t)sizeof(int64_t);
    MDM_TRY(mdm_allocate((void **)places, bytes, 1, "the places of pictures"));
    **places = *shape;
    (*places)->bytes = bytes;
    (*places)->entry_count = entry_count;
    return MDM_OK;
}

int64_t mdm_places_chunks(const mdm_places *p, int64_t along[4]) {
    const int64_t lengths[4] = {p->count, p->height, p->width, p->channels};
    int64_t all = 1;
    for (int i = 0; i < 4; i++) {
        along[i] = (lengths[i] - 1) / p->chunk[i] + 1;
        all *= along[i];
    }
    return all;
}

int64_t mdm_places_most_packed(const mdm_places *p) {
    enum { SPARE = 65536 }; /* by which packing may make a chunk longer, and a tenth */
    const int64_t bytes = p->chunk[0] * p->chunk[1] * p->chunk[2] * p->chunk[3];
    return bytes + bytes / 10 + SPARE;
}

const char *mdm_places_name(const mdm_places *p) {
    static const char *const names[2][2] = {{"/train/images", "/train/encoded"},
                                            {"/test/images", "/test/encoded"}};
    return names[p->split][p->kind == MDM_PLACES_ENCODED];
}

mdm_chunk_place mdm_places_get_chunk(const mdm_places *p, int64_t number) {
    const uint64_t packed = (uint64_t)p->entries[2 * number + 1];
    return (mdm_chunk_place){p->entries[2 * number], (uint32_t)packed, (uint32_t)(packed >> 32)};
}

void mdm_places_set_chunk(mdm_places *p, int64_t number, mdm_chunk_place place) {
    p->entries[2 * number] = place.at;
    p->entries[2 * number + 1] = (int64_t)((uint64_t)place.left_out << 32 | place.bytes);
}

/* A chunk that lies behind its entry is all there is, and just so long. */
static int is_possible_here(const mdm_places *p, int64_t bytes) {
    return p->entry_count == 2 + (bytes + 7) / 8 && mdm_places_get_chunk(p, 0).bytes == bytes;
}

static int are_possible_chunks(const mdm_places *p, int64_t file_bytes) {
    int64_t bytes = 1, along[4];
    for (int i = 0; i < 4; i++) {
        if (p->chunk[i] < 1 || p->chunk[i] > MDM_MOST_CHUNK / bytes) return 0;
        bytes *= p->chunk[i];
    }
    if (p->filter_count < 0 || p->filter_count > MDM_MOST_FILTERS || p->fill < 0 || p->fill > 255) return 0;
    const int64_t chunks = mdm_places_chunks(p, along);
    if (chunks == 1 && p->entry_count >= 2 && p->entries[0] == MDM_PLACE_HERE)
        return is_possible_here(p, bytes);
    if (p->entry_count % 2 != 0 || p->entry_count / 2 != chunks) return 0;
    for (int64_t i = 0; i < chunks; i++) {
        const mdm_chunk_place c = mdm_places_get_chunk(p, i);
        if (c.at < MDM_PLACE_NOWHERE) return 0;
        if (c.at >= 0 && (c.bytes > file_bytes || c.at > file_bytes - c.bytes)) return 0;
    }
    return 1;
}

static int are_possible_files(const mdm_places *p, int64_t file_bytes) {
    const int64_t *offsets = p->entries;
    if (p->entry_count != p->count + 1 || offsets[0] != 0 || p->begin < 0 || p->begin > file_bytes) return 0;
    for (int64_t i = 0; i < p->count; i++)
        if (offsets[i + 1] <= offsets[i] || offsets[i + 1] - offsets[i] > MDM_MOST_ENCODED) return 0;
    return offsets[p->count] <= file_bytes - p->begin;
}

int mdm_places_are_possible(const mdm_places *p, size_t bytes, int64_t count, int height, int width,
                            int channels, int64_t file_bytes) {
    if (p->bytes < 0 || (uint64_t)p->bytes != bytes || p->entry_count < 0 ||
        (uint64_t)p->entry_count != (bytes - sizeof *p) / sizeof *p->entries)
        return 0;
    if (p->count != count || p->height != height || p->width != width || p->channels != channels ||
        (p->split != 0 && p->split != 1))
        return 0;
    if (p->kind == MDM_PLACES_CHUNKED) return are_possible_chunks(p, file_bytes);
    if (p->kind == MDM_PLACES_ENCODED) return are_possible_files(p, file_bytes);
    return p->kind == MDM_PLACES_PLAIN && p->entry_count == 0 && p->begin >= 0 && p->begin <= file_bytes &&
           count <= (file_bytes - p->begin) / ((int64_t)height * width * channels);
}

mdm_status mdm_read_at(int descriptor, const char *path, int64_t at, int64_t bytes, uint8_t *to) {
    enum { PIECE = 16 << 20 }; /* so that the supervisor sees progress */
    while (bytes > 0) {
        mdm_watch_read_begins();
        ssize_t got = pread(descriptor, to, bytes < PIECE ? (size_t)bytes : PIECE, (off_t)at);
        mdm_watch_read_ends();
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return mdm_fail(MDM_INPUT, "%s cannot be read any more: %s", path,
                            got < 0 ? strerror(errno) : "it was cut short while in use");
        to += got;
        at += got;
        bytes -= got;
    }
    return MDM_OK;
}
