/* Two buffers: the step in use and the one being decoded. The threads draw pictures from one counter; which
 * thread decodes a picture does not matter to its pixels. libjpeg and libpng allocate while they decode: a
 * picture's memory is taken and given back within the picture, never held over a step. */
#include "store_encoded.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 64 };

typedef struct buffer {
    int64_t *index;
    uint8_t *data;
    int64_t count, capacity;
} buffer;

struct mdm_decoder {
    mdm_encoded *encoded;
    int64_t bytes;
    buffer buffers[2];
    int active; /* buffer in use; the other one is the threads' */
    pthread_t threads[MOST_THREADS];
    int started;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t work, finished;
    int64_t next, done; /* pictures begun and decoded of the announced step */
    int announced, ending;
    mdm_status status; /* of the announced step: the failure of its lowest place */
    int64_t failed_at;
    char message[1024];
};

static void note_failure(mdm_decoder *d, int64_t place, mdm_status status) {
    if (d->status != MDM_OK && place > d->failed_at) return;
    d->status = status;
    d->failed_at = place;
    snprintf(d->message, sizeof d->message, "%s", mdm_last_message());
}

static void *decode(void *context) {
    mdm_decoder *d = context;
    pthread_mutex_lock(&d->lock);
    while (!d->ending) {
        buffer *b = &d->buffers[!d->active];
        if (!d->announced || d->next >= b->count) {
            pthread_cond_wait(&d->work, &d->lock);
            continue;
        }
        int64_t place = d->next++;
        pthread_mutex_unlock(&d->lock);
        mdm_status status = mdm_encoded_read_one(d->encoded, b->index[place], b->data + place * d->bytes);
        pthread_mutex_lock(&d->lock);
        if (status != MDM_OK) note_failure(d, place, status);
        if (++d->done == b->count) pthread_cond_broadcast(&d->finished);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

mdm_status mdm_decoder_open(mdm_encoded *encoded, int64_t bytes, int threads, mdm_decoder **out) {
    mdm_decoder *d;
    *out = NULL;
    mdm_status status = MDM_ALLOCATE(d, 1, "a decoder");
    if (status != MDM_OK) {
        mdm_encoded_close(encoded);
        return status;
    }
    d->encoded = encoded;
    d->bytes = bytes;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    pthread_cond_init(&d->finished, NULL);
    while (d->started < threads && d->started < MOST_THREADS &&
           pthread_create(&d->threads[d->started], NULL, decode, d) == 0)
        d->started++;
    if (d->started == 0) {
        mdm_decoder_close(d);
        return mdm_fail(MDM_RESOURCE,
                        "no thread for decoding pictures; raise the limit of processes (ulimit -u)");
    }
    *out = d;
    return MDM_OK;
}

void mdm_decoder_close(mdm_decoder *d) {
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    d->ending = 1;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (int i = 0; i < d->started; i++) pthread_join(d->threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        free(d->buffers[i].index);
        free(d->buffers[i].data);
    }
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->work);
    pthread_cond_destroy(&d->finished);
    mdm_encoded_close(d->encoded);
    free(d);
}

static mdm_status grow(const mdm_decoder *d, buffer *b, int64_t count) {
    if (count <= b->capacity) return MDM_OK;
    free(b->index);
    free(b->data);
    memset(b, 0, sizeof *b);
    MDM_TRY(MDM_ALLOCATE(b->index, count, "streamed pictures"));
    MDM_TRY(mdm_allocate((void **)&b->data, count, d->bytes,
                         "streamed pictures (a smaller train.batch needs less)"));
    b->capacity = count;
    return MDM_OK;
}

/* Waits until the announced step, if any, is decoded; with the lock held. */
static void settle(mdm_decoder *d) {
    while (d->announced && d->done < d->buffers[!d->active].count) pthread_cond_wait(&d->finished, &d->lock);
}

mdm_status mdm_decoder_prefetch(mdm_decoder *d, const int64_t *index, int64_t count) {
    buffer *b = &d->buffers[!d->active];
    pthread_mutex_lock(&d->lock);
    settle(d);
    d->announced = 0; /* an announcement that cannot be kept must not look like one */
    mdm_status status = grow(d, b, count);
    if (status == MDM_OK) {
        memcpy(b->index, index, sizeof *index * (size_t)count);
        b->count = count;
        d->next = d->done = 0;
        d->status = MDM_OK;
        d->announced = 1;
        pthread_cond_broadcast(&d->work);
    }
    pthread_mutex_unlock(&d->lock);
    return status;
}

mdm_status mdm_decoder_fetch(mdm_decoder *d, const int64_t *index, int64_t count, const uint8_t **pictures) {
    const buffer *b = &d->buffers[!d->active];
    if (!d->announced || b->count != count || memcmp(b->index, index, sizeof *index * (size_t)count) != 0)
        MDM_TRY(mdm_decoder_prefetch(d, index, count));
    pthread_mutex_lock(&d->lock);
    settle(d);
    d->announced = 0;
    d->active = !d->active;
    pthread_mutex_unlock(&d->lock);
    if (d->status != MDM_OK) return mdm_fail(d->status, "%s", d->message);
    for (int64_t i = 0; i < count; i++) pictures[i] = d->buffers[d->active].data + i * d->bytes;
    return MDM_OK;
}
