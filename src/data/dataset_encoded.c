/* Pictures that are stored as JPEG and PNG files inside the data set file: their pixels. */
#include "dataset_encoded.h"
#include "workers.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mdm_encoded {
    char *path;
    int descriptor;
    const mdm_places *places;
};

mdm_status mdm_encoded_open(const char *path, const mdm_places *places, mdm_encoded **out) {
    mdm_encoded *e;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(e, 1, "a reader"));
    e->places = places;
    e->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    e->path = strdup(path);
    if (!e->path || e->descriptor < 0) {
        mdm_status status = mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
        mdm_encoded_close(e);
        return status;
    }
    *out = e;
    return MDM_OK;
}

void mdm_encoded_close(mdm_encoded *e) {
    if (!e) return;
    if (e->descriptor >= 0) close(e->descriptor);
    free(e->path);
    free(e);
}

mdm_status mdm_encoded_decode(const mdm_encoded *e, int64_t index, mdm_picture *picture) {
    char name[4200];
    uint8_t *bytes;
    const int64_t *offsets = e->places->entries;
    int64_t count = offsets[index + 1] - offsets[index];
    snprintf(name, sizeof name, "%s: picture %lld of %s", e->path, (long long)index,
             e->places->split ? "/test" : "/train");
    MDM_TRY(MDM_ALLOCATE(bytes, count, "an encoded picture"));
    mdm_status status = mdm_read_at(e->descriptor, e->path, e->places->begin + offsets[index], count, bytes);
    if (status == MDM_OK)
        status = mdm_picture_decode(bytes, (size_t)count, name, MDM_PICTURE_MOST_PIXELS, picture);
    free(bytes);
    return status;
}

mdm_status mdm_encoded_read_one(const mdm_encoded *e, int64_t index, uint8_t *pixels) {
    mdm_picture picture;
    MDM_TRY(mdm_encoded_decode(e, index, &picture));
    mdm_status status =
        mdm_picture_fit(&picture, e->places->height, e->places->width, e->places->channels, pixels);
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
    const mdm_places *p = e->places;
    range r = {e, first, (int64_t)p->height * p->width * p->channels, pixels};
    return mdm_workers_run(threads, count, read_next, NULL, &r);
}
