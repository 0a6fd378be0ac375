/* One reader for the three ways in which pictures lie in a data set file. */
#include "pictures.h"
#include "dataset_chunks.h"
#include "dataset_encoded.h"
#include "workers.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mdm_pictures {
    const mdm_places *places;
    int64_t bytes; /* of a picture */
    char *path;
    int descriptor;       /* PLAIN */
    mdm_chunks *chunks;   /* CHUNKED */
    mdm_encoded *encoded; /* ENCODED */
};

mdm_status mdm_pictures_open(const char *path, const mdm_places *places, mdm_pictures **out) {
    mdm_pictures *p;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(p, 1, "a reader"));
    p->places = places;
    p->bytes = (int64_t)places->height * places->width * places->channels;
    p->path = strdup(path);
    p->descriptor = -1;
    mdm_status status = p->path ? MDM_OK : mdm_fail(MDM_RESOURCE, "out of memory for a path");
    if (status == MDM_OK && places->kind == MDM_PLACES_CHUNKED) {
        status = mdm_chunks_open(path, places, &p->chunks);
    } else if (status == MDM_OK && places->kind == MDM_PLACES_ENCODED) {
        status = mdm_encoded_open(path, places, &p->encoded);
    } else if (status == MDM_OK) {
        p->descriptor = open(path, O_RDONLY | O_CLOEXEC);
        if (p->descriptor < 0) status = mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    }
    if (status == MDM_OK)
        *out = p;
    else
        mdm_pictures_close(p);
    return status;
}

void mdm_pictures_close(mdm_pictures *p) {
    if (!p) return;
    mdm_chunks_close(p->chunks);
    mdm_encoded_close(p->encoded);
    if (p->descriptor >= 0) close(p->descriptor);
    free(p->path);
    free(p);
}

/* Piece by piece: as many pictures as the same chunks hold. */
static mdm_status read_chunks(mdm_pictures *p, int64_t first, int64_t count, uint8_t *images) {
    enum { MOST = 65536 };
    const int64_t in_chunk = p->places->chunk[0];
    mdm_wanted *wanted;
    MDM_TRY(MDM_ALLOCATE(wanted, count < MOST ? count : MOST, "the pictures of a chunk"));
    mdm_status status = MDM_OK;
    for (int64_t done = 0, piece; status == MDM_OK && done < count; done += piece) {
        piece = in_chunk - (first + done) % in_chunk;
        if (piece > count - done) piece = count - done;
        if (piece > MOST) piece = MOST;
        for (int64_t i = 0; i < piece; i++)
            wanted[i] = (mdm_wanted){first + done + i, images + (done + i) * p->bytes};
        status = mdm_chunks_read(p->chunks, wanted, piece);
    }
    free(wanted);
    return status;
}

mdm_status mdm_pictures_read(mdm_pictures *p, int64_t first, int64_t count, uint8_t *images) {
    if (p->chunks) return read_chunks(p, first, count, images);
    if (p->encoded) return mdm_encoded_read(p->encoded, mdm_workers_count(1), first, count, images);
    return mdm_read_at(p->descriptor, p->path, p->places->begin + first * p->bytes, count * p->bytes, images);
}
