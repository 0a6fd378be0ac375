/* Threads that draw pieces of work from one counter. Pieces are begun in order, so when one fails, all before
 * it have begun and will end: the lowest failure is the same for every number of threads. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "workers.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

enum { MOST_THREADS = 64 };

typedef struct crew {
    int64_t count;
    mdm_status (*work)(void *context, int64_t i);
    void *context;
    atomic_llong next;
    atomic_int failed;
    pthread_mutex_t lock; /* of what follows */
    int64_t failed_at;
    mdm_status status;
    char message[1024];
} crew;

int mdm_workers_count(int ranks) {
    cpu_set_t mask;
    int count = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
    count /= ranks > 0 ? ranks : 1;
    return count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count;
}

static void note_failure(crew *c, int64_t i, mdm_status status) {
    pthread_mutex_lock(&c->lock);
    if (c->status == MDM_OK || i < c->failed_at) {
        c->failed_at = i;
        c->status = status;
        snprintf(c->message, sizeof c->message, "%s", mdm_last_message());
    }
    pthread_mutex_unlock(&c->lock);
    atomic_store(&c->failed, 1);
}

/* Does the next piece; 0 when there is none. */
static int do_next(crew *c) {
    if (atomic_load(&c->failed)) return 0;
    int64_t i = atomic_fetch_add(&c->next, 1);
    if (i >= c->count) return 0;
    mdm_status status = c->work(c->context, i);
    if (status != MDM_OK) note_failure(c, i, status);
    return 1;
}

static void *help(void *context) {
    while (do_next(context)) {
    }
    return NULL;
}

mdm_status mdm_workers_run(int threads, int64_t count, mdm_status (*work)(void *context, int64_t i),
                           void (*progress)(void *context, int64_t begun), void *context) {
    crew c = {.count = count, .work = work, .context = context};
    pthread_t helpers[MOST_THREADS];
    int started = 0;
    pthread_mutex_init(&c.lock, NULL);
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    /* fewer threads than wished for are no failure: the caller's own does all that is left */
    while (started + 1 < threads && started + 1 < count &&
           pthread_create(&helpers[started], NULL, help, &c) == 0)
        started++;
    while (do_next(&c))
        if (progress) progress(context, atomic_load(&c.next) < count ? atomic_load(&c.next) : count);
    for (int i = 0; i < started; i++) pthread_join(helpers[i], NULL);
    pthread_mutex_destroy(&c.lock);
    return c.status == MDM_OK ? MDM_OK : mdm_fail(c.status, "%s", c.message);
}
