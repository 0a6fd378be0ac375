/* One queue or two, by times of either. */
#include "queue_trial.h"
#include <stdlib.h>

int mdm_queue_trial_first_turn(const mdm_queue_trial *t) {
    return t->count[MDM_TWO_QUEUES] < t->count[MDM_ONE_QUEUE];
}

mdm_queue_way mdm_queue_trial_next(const mdm_queue_trial *t, int turn) {
    return t->is_over ? t->chosen : turn % 2 == 0 ? MDM_ONE_QUEUE : MDM_TWO_QUEUES;
}

void mdm_queue_trial_add(mdm_queue_trial *t, mdm_queue_way way, double milliseconds) {
    if (t->is_over || t->count[way] == MDM_TRIAL_TURNS) return;
    t->milliseconds[way][t->count[way]++] = milliseconds;
}

int mdm_queue_trial_is_full(const mdm_queue_trial *t) {
    return t->count[MDM_ONE_QUEUE] == MDM_TRIAL_TURNS && t->count[MDM_TWO_QUEUES] == MDM_TRIAL_TURNS;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double mdm_queue_trial_median(mdm_queue_trial *t, mdm_queue_way way) {
    qsort(t->milliseconds[way], (size_t)t->count[way], sizeof(double), compare);
    return t->count[way] > 0 ? t->milliseconds[way][t->count[way] / 2] : 0;
}

void mdm_queue_trial_decide(mdm_queue_trial *t, const double milliseconds[MDM_QUEUE_WAYS]) {
    t->is_over = 1;
    t->chosen = milliseconds[MDM_TWO_QUEUES] < (1 - MDM_TRIAL_LEAST_GAIN) * milliseconds[MDM_ONE_QUEUE]
                    ? MDM_TWO_QUEUES
                    : MDM_ONE_QUEUE;
}

void mdm_queue_trial_stay(mdm_queue_trial *t) {
    t->is_over = 1;
    t->chosen = MDM_ONE_QUEUE;
}
