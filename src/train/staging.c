/* From a store to a device's memory, one step ahead: a thread fetches the pictures that were announced,
 * copies them into page-locked memory and starts their upload, which runs beside the step that computes. */
#include "staging.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mdm_staging {
    mdm_device *device;
    mdm_store *store;
    mdm_upload *upload;
    size_t picture; /* bytes */
    int64_t capacity, hits;
    /* what is brought or was brought last */
    mdm_split split;
    int64_t *index, count;
    const uint8_t **pictures;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { IDLE, ASKED, READY } state;
    int started, ending;
    mdm_status status; /* of what the thread did last, and its message */
    char message[256];
};

/* The pictures of the list into the buffer whose turn it is, and on their way. */
static mdm_status bring(mdm_staging *s) {
    void *host;
    MDM_TRY(mdm_store_fetch(s->store, s->split, s->index, s->count, s->pictures));
    MDM_TRY(mdm_upload_begin(s->upload, &host));
    for (int64_t i = 0; i < s->count; i++)
        memcpy((uint8_t *)host + (size_t)i * s->picture, s->pictures[i], s->picture);
    return mdm_upload_send(s->upload, (size_t)s->count * s->picture);
}

static void *bring_ahead(void *context) {
    mdm_staging *s = context;
    pthread_mutex_lock(&s->lock);
    while (!s->ending) {
        if (s->state != ASKED) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        mdm_status status = bring(s);
        if (status != MDM_OK) snprintf(s->message, sizeof s->message, "%.250s", mdm_last_message());
        pthread_mutex_lock(&s->lock);
        s->status = status;
        s->state = READY;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

mdm_status mdm_staging_create(mdm_device *device, mdm_store *store, mdm_staging **out) {
    const mdm_store_info *info = mdm_store_get_info(store);
    mdm_staging *s;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(s, 1, "pictures on their way"));
    s->device = device;
    s->store = store;
    s->picture = (size_t)info->height * (size_t)info->width * (size_t)info->channels;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->started = pthread_create(&s->thread, NULL, bring_ahead, s) == 0;
    if (!s->started) {
        mdm_staging_destroy(s);
        return mdm_fail(
            MDM_RESOURCE,
            "no thread for bringing pictures to the device; raise the limit of processes (ulimit -u)");
    }
    *out = s;
    return MDM_OK;
}

void mdm_staging_destroy(mdm_staging *s) {
    if (!s) return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->ending = 1;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    mdm_upload_destroy(s->upload);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->index);
    free(s->pictures);
    free(s);
}

/* Waits until the thread has nothing under way; what it brought and nobody takes is dropped unless `keep`. */
static mdm_status settle(mdm_staging *s, int keep) {
    const uint8_t *dropped;
    size_t offset;
    pthread_mutex_lock(&s->lock);
    while (s->state == ASKED) pthread_cond_wait(&s->changed, &s->lock);
    int is_ready = s->state == READY;
    if (is_ready && !keep) s->state = IDLE;
    pthread_mutex_unlock(&s->lock);
    if (!is_ready || keep || s->status != MDM_OK) return MDM_OK;
    return mdm_upload_take(s->upload, &dropped, &offset);
}

mdm_status mdm_staging_reserve(mdm_staging *s, int64_t count) {
    if (count <= s->capacity) return MDM_OK;
    MDM_TRY(settle(s, 0));
    mdm_upload_destroy(s->upload);
    free(s->index);
    free(s->pictures);
    s->upload = NULL;
    s->index = NULL;
    s->pictures = NULL;
    s->capacity = 0;
    MDM_TRY(MDM_ALLOCATE(s->index, count, "pictures on their way"));
    MDM_TRY(MDM_ALLOCATE(s->pictures, count, "pictures on their way"));
    MDM_TRY(mdm_upload_create(s->device, (size_t)count * s->picture, "the pictures of a step", &s->upload));
    s->capacity = count;
    return MDM_OK;
}

static mdm_status set_list(mdm_staging *s, mdm_split split, const int64_t *index, int64_t count) {
    if (count > s->capacity)
        return mdm_fail(MDM_LOST, "no room was made for %lld pictures", (long long)count);
    s->split = split;
    s->count = count;
    memcpy(s->index, index, sizeof *index * (size_t)count);
    return MDM_OK;
}

mdm_status mdm_staging_announce(mdm_staging *s, mdm_split split, const int64_t *index, int64_t count) {
    MDM_TRY(settle(s, 0));
    if (count == 0) return MDM_OK;
    MDM_TRY(set_list(s, split, index, count));
    pthread_mutex_lock(&s->lock);
    s->state = ASKED;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return MDM_OK;
}

static int is_announced(const mdm_staging *s, mdm_split split, const int64_t *index, int64_t count) {
    return s->state == READY && s->split == split && s->count == count &&
           memcmp(s->index, index, sizeof *index * (size_t)count) == 0;
}

mdm_status mdm_staging_take(mdm_staging *s, mdm_split split, const int64_t *index, int64_t count,
                            const uint8_t **memory, int64_t *first) {
    size_t offset;
    *memory = NULL;
    *first = 0;
    MDM_TRY(settle(s, 1)); /* afterwards the thread waits, and this one may look at the state */
    if (count == 0) return settle(s, 0);
    if (is_announced(s, split, index, count)) {
        s->state = IDLE;
        s->hits++;
        if (s->status != MDM_OK) return mdm_fail(s->status, "%s", s->message);
    } else {
        MDM_TRY(settle(s, 0));
        MDM_TRY(set_list(s, split, index, count));
        MDM_TRY(bring(s));
    }
    MDM_TRY(mdm_upload_take(s->upload, memory, &offset));
    *first = (int64_t)(offset / s->picture);
    return MDM_OK;
}

int64_t mdm_staging_hits(const mdm_staging *s) {
    return s->hits;
}
