/* Two buffers: the step in use and the one being read. The thread reads in order of position in the file, so
 * that a shuffled step is one pass over the disk, and a picture asked for twice is read once. */
#define _GNU_SOURCE /* qsort_r */
#include "store_stream.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct buffer {
    int64_t *index, *order; /* asked pictures, and the order of reading */
    uint8_t *data;
    int64_t count, capacity;
} buffer;

enum { ASKED_RUNS = 1024 }; /* more than an order by blocks has in use */

struct mdm_stream {
    int descriptor;
    char *path;
    int64_t offset, bytes, hits;
    int64_t block, total;         /* runs of an order by blocks; 0: none */
    int64_t read;                 /* pictures so far */
    int64_t asked_at[ASKED_RUNS]; /* the value of `read` then */
    int64_t asked[ASKED_RUNS];    /* run + 1 that was asked for last, by run % ASKED_RUNS */
    buffer buffers[2];
    int active; /* buffer in use; the other one is the thread's */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { IDLE, ASKED, READY } state;
    int ending, started, failed; /* failed: errno of a read, -1 for an early end of the file */
};

static mdm_status grow(mdm_stream *s, buffer *b, int64_t count) {
    if (count <= b->capacity) return MDM_OK;
    free(b->index);
    free(b->order);
    free(b->data);
    memset(b, 0, sizeof *b);
    MDM_TRY(MDM_ALLOCATE(b->index, count, "streamed pictures"));
    MDM_TRY(MDM_ALLOCATE(b->order, count, "streamed pictures"));
    MDM_TRY(MDM_ALLOCATE(b->data, count * s->bytes, "streamed pictures (a smaller train.batch needs less)"));
    b->capacity = count;
    return MDM_OK;
}

static int by_position(const void *a, const void *b, void *context) {
    const int64_t *index = context;
    int64_t x = index[*(const int64_t *)a], y = index[*(const int64_t *)b];
    return x < y ? -1 : x > y;
}

static int read_all(int descriptor, uint8_t *to, int64_t bytes, int64_t at) {
    while (bytes > 0) {
        ssize_t got = pread(descriptor, to, (size_t)bytes, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? errno : -1;
        to += got;
        at += got;
        bytes -= got;
    }
    return 0;
}

/* Lets the system read the run of a picture as a whole, in the background. */
static void ask_for_run(mdm_stream *s, int64_t index) {
    int64_t run = index / s->block, first = run * s->block, count = s->block;
    int slot = (int)(run % ASKED_RUNS);
    s->read++;
    /* long after it was asked for, it may have left the page cache */
    if (s->asked[slot] == run + 1 && s->read - s->asked_at[slot] < ASKED_RUNS / 4 * s->block) return;
    s->asked[slot] = run + 1;
    s->asked_at[slot] = s->read;
    if (count > s->total - first) count = s->total - first;
    /* advice only: the pictures are read all the same */
    if (posix_fadvise(s->descriptor, (off_t)(s->offset + first * s->bytes), (off_t)(count * s->bytes),
                      POSIX_FADV_WILLNEED) != 0)
        errno = 0;
}

static int read_buffer(mdm_stream *s, buffer *b) {
    for (int64_t i = 0; i < b->count; i++) b->order[i] = i;
    qsort_r(b->order, (size_t)b->count, sizeof *b->order, by_position, b->index);
    for (int64_t i = 0; s->block > 0 && i < b->count; i++) ask_for_run(s, b->index[b->order[i]]);
    for (int64_t i = 0; i < b->count; i++) {
        int64_t slot = b->order[i];
        uint8_t *to = b->data + slot * s->bytes;
        if (i > 0 && b->index[slot] == b->index[b->order[i - 1]]) { /* asked for twice */
            memcpy(to, b->data + b->order[i - 1] * s->bytes, (size_t)s->bytes);
            continue;
        }
        int failed = read_all(s->descriptor, to, s->bytes, s->offset + b->index[slot] * s->bytes);
        if (failed) return failed;
    }
    return 0;
}

static void *read_ahead(void *context) {
    mdm_stream *s = context;
    pthread_mutex_lock(&s->lock);
    while (!s->ending) {
        if (s->state != ASKED) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        buffer *b = &s->buffers[!s->active];
        pthread_mutex_unlock(&s->lock);
        int failed = read_buffer(s, b);
        pthread_mutex_lock(&s->lock);
        s->failed = failed;
        s->state = READY;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

mdm_status mdm_stream_open(const char *path, int64_t offset, int64_t bytes, mdm_stream **out) {
    mdm_stream *s;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(s, 1, "a stream"));
    s->offset = offset;
    s->bytes = bytes;
    s->path = strdup(path);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (s->descriptor < 0 || !s->path) {
        mdm_status status = mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
        mdm_stream_close(s);
        return status;
    }
    s->started = pthread_create(&s->thread, NULL, read_ahead, s) == 0;
    if (!s->started) {
        mdm_stream_close(s);
        return mdm_fail(MDM_RESOURCE,
                        "no thread for reading %s ahead; raise the limit of processes (ulimit -u)", path);
    }
    *out = s;
    return MDM_OK;
}

void mdm_stream_close(mdm_stream *s) {
    if (!s) return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->ending = 1;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->descriptor >= 0) close(s->descriptor);
    for (int i = 0; i < 2; i++) {
        free(s->buffers[i].index);
        free(s->buffers[i].order);
        free(s->buffers[i].data);
    }
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->path);
    free(s);
}

/* Waits until the thread has nothing under way. */
static void settle(mdm_stream *s) {
    pthread_mutex_lock(&s->lock);
    while (s->state == ASKED) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

mdm_status mdm_stream_prefetch(mdm_stream *s, const int64_t *index, int64_t count) {
    settle(s);
    pthread_mutex_lock(&s->lock);
    s->state = IDLE; /* an announcement that cannot be kept must not look like one */
    pthread_mutex_unlock(&s->lock);
    buffer *b = &s->buffers[!s->active];
    MDM_TRY(grow(s, b, count));
    memcpy(b->index, index, sizeof *index * (size_t)count);
    b->count = count;
    pthread_mutex_lock(&s->lock);
    s->state = ASKED;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return MDM_OK;
}

static int is_announced(const mdm_stream *s, const int64_t *index, int64_t count) {
    const buffer *b = &s->buffers[!s->active];
    return s->state != IDLE && b->count == count &&
           memcmp(b->index, index, sizeof *index * (size_t)count) == 0;
}

mdm_status mdm_stream_fetch(mdm_stream *s, const int64_t *index, int64_t count, const uint8_t **pictures) {
    settle(s); /* afterwards the thread waits, and this one may look at the state */
    int announced = is_announced(s, index, count);
    if (!announced)
        MDM_TRY(mdm_stream_prefetch(s, index, count));
    else
        s->hits++;
    settle(s);
    pthread_mutex_lock(&s->lock);
    s->active = !s->active;
    s->state = IDLE;
    pthread_mutex_unlock(&s->lock);
    if (s->failed)
        return mdm_fail(MDM_INPUT, "%s cannot be read any more: %s", s->path,
                        s->failed < 0 ? "it was cut short while in use" : strerror(s->failed));
    for (int64_t i = 0; i < count; i++) pictures[i] = s->buffers[s->active].data + i * s->bytes;
    return MDM_OK;
}

void mdm_stream_expect_blocks(mdm_stream *s, int64_t block, int64_t count) {
    s->block = block;
    s->total = count;
    /* what the system would read ahead by itself belongs to runs of another time; advice only */
    if (posix_fadvise(s->descriptor, 0, 0, POSIX_FADV_RANDOM) != 0) errno = 0;
}

int64_t mdm_stream_hits(const mdm_stream *s) {
    return s->hits;
}
