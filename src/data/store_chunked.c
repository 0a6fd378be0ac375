/* From indices to pictures that lie in chunks. They are read when they are fetched, in order of their place,
 * each one once. */
#include "store_chunked.h"
#include "dataset_chunks.h"
#include <stdlib.h>

typedef struct asked {
    int64_t index, slot;
} asked;

struct mdm_chunked {
    mdm_chunks *chunks;
    int64_t bytes, capacity; /* bytes: of a picture */
    uint8_t *data;
    asked *order;
    mdm_wanted *wanted;
};

mdm_status mdm_chunked_open(const char *path, const mdm_places *places, mdm_chunked **out) {
    mdm_chunked *c;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "a reader"));
    c->bytes = (int64_t)places->height * places->width * places->channels;
    mdm_status status = mdm_chunks_open(path, places, &c->chunks);
    if (status == MDM_OK)
        *out = c;
    else
        mdm_chunked_close(c);
    return status;
}

void mdm_chunked_close(mdm_chunked *c) {
    if (!c) return;
    mdm_chunks_close(c->chunks);
    free(c->data);
    free(c->order);
    free(c->wanted);
    free(c);
}

static mdm_status grow(mdm_chunked *c, int64_t count) {
    if (count <= c->capacity) return MDM_OK;
    free(c->data);
    free(c->order);
    free(c->wanted);
    c->data = NULL;
    c->order = NULL;
    c->wanted = NULL;
    c->capacity = 0;
    MDM_TRY(MDM_ALLOCATE(c->order, count, "streamed pictures"));
    MDM_TRY(MDM_ALLOCATE(c->wanted, count, "streamed pictures"));
    MDM_TRY(mdm_allocate((void **)&c->data, count, c->bytes,
                         "streamed pictures (a smaller train.batch needs less)"));
    c->capacity = count;
    return MDM_OK;
}

static int by_index(const void *a, const void *b) {
    const asked *x = a, *y = b;
    if (x->index != y->index) return x->index < y->index ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

mdm_status mdm_chunked_fetch(mdm_chunked *c, const int64_t *index, int64_t count, const uint8_t **pictures) {
    int64_t different = 0;
    MDM_TRY(grow(c, count));
    for (int64_t i = 0; i < count; i++) c->order[i] = (asked){index[i], i};
    qsort(c->order, (size_t)count, sizeof *c->order, by_index); /* every chunk is unpacked once */
    for (int64_t i = 0; i < count; i++) {
        const asked *a = &c->order[i];
        if (i == 0 || a->index != a[-1].index) {
            c->wanted[different] = (mdm_wanted){a->index, c->data + different * c->bytes};
            different++;
        }
        pictures[a->slot] = c->wanted[different - 1].to;
    }
    return mdm_chunks_read(c->chunks, c->wanted, different);
}
