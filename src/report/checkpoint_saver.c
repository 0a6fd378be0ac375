/* Checkpoints put on disk by a thread of their own, while training goes on: from the bytes of a finished
 * image to the outcome that the training thread asks for. One save at a time. */
#include "checkpoint_block.h"
#include "checkpoint_form.h"
#include "mdm/base/log.h"
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum job_state { IDLE, QUEUED, ENDED } job_state;

struct mdm_checkpoint_saver {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    job_state state;
    int leaving;
    checkpoint_form form; /* the thread's while a job is queued */
    char folder[PATH_MAX];
    position now;
    int keep;
    mdm_checkpoint_outcome outcome;
};

static void *serve(void *argument) {
    mdm_checkpoint_saver *s = argument;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->state != QUEUED && !s->leaving) pthread_cond_wait(&s->changed, &s->lock);
        if (s->state != QUEUED) break;
        pthread_mutex_unlock(&s->lock);
        double start = mdm_seconds();
        mdm_checkpoint_outcome outcome = {
            .status = checkpoint_put_in_place(s->form.content, s->form.bytes, s->folder, s->now, s->keep)};
        outcome.seconds = mdm_seconds() - start;
        if (outcome.status != MDM_OK)
            snprintf(outcome.message, sizeof outcome.message, "%s", mdm_last_message());
        pthread_mutex_lock(&s->lock);
        s->outcome = outcome;
        s->state = ENDED;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

mdm_status mdm_checkpoint_saver_start(mdm_checkpoint_saver **saver) {
    mdm_checkpoint_saver *s;
    sigset_t all, before;
    *saver = NULL;
    MDM_TRY(MDM_ALLOCATE(s, 1, "the thread that saves"));
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    sigfillset(&all); /* signals are for the training thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&s->thread, NULL, serve, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return mdm_fail(MDM_RESOURCE, "no thread for saving: %s", strerror(failed));
    }
    *saver = s;
    return MDM_OK;
}

mdm_status mdm_checkpoint_saver_prepare(mdm_checkpoint_saver *s, const mdm_checkpoint_part *parts,
                                        int count) {
    return checkpoint_form_fill(&s->form, parts, count);
}

mdm_status mdm_checkpoint_save_later(mdm_checkpoint_saver *s, const mdm_checkpoint_part *parts, int count,
                                     const char *folder, int64_t epoch, int64_t step, int keep) {
    if (strlen(folder) >= sizeof s->folder)
        return mdm_fail(MDM_RESOURCE, "the path of the run folder is too long: %.100s...", folder);
    pthread_mutex_lock(&s->lock);
    while (s->state == QUEUED) pthread_cond_wait(&s->changed, &s->lock);
    s->state = IDLE;
    pthread_mutex_unlock(&s->lock);
    MDM_TRY(checkpoint_form_fill(&s->form, parts, count));
    pthread_mutex_lock(&s->lock);
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    s->now = (position){epoch, step == MDM_CHECKPOINT_EPOCH_END ? INT64_MAX : step};
    s->keep = keep;
    s->state = QUEUED;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return MDM_OK;
}

int mdm_checkpoint_saver_ended(mdm_checkpoint_saver *s, int wait, mdm_checkpoint_outcome *outcome) {
    pthread_mutex_lock(&s->lock);
    while (wait && s->state == QUEUED) pthread_cond_wait(&s->changed, &s->lock);
    int ended = s->state == ENDED;
    if (ended) {
        s->state = IDLE;
        *outcome = s->outcome;
    }
    pthread_mutex_unlock(&s->lock);
    return ended;
}

void mdm_checkpoint_saver_stop(mdm_checkpoint_saver *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->leaving = 1;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL); /* a save under way is finished first */
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    checkpoint_form_clear(&s->form);
    free(s);
}
