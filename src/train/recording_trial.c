/* The fastest way of recording a step, by times of each. */
#include "recording_trial.h"
#include <math.h>
#include <stdlib.h>

int mdm_recording_trial_next(const mdm_recording_trial *t) {
    int next = 0;
    if (t->is_over) return t->chosen;
    for (int w = 1; w < t->ways; w++)
        if (!t->is_out[w] && t->count[w] < t->count[next]) next = w;
    return next;
}

void mdm_recording_trial_add(mdm_recording_trial *t, int way, double milliseconds) {
    if (t->is_over || t->is_out[way] || t->count[way] == MDM_TRIAL_TURNS) return;
    t->milliseconds[way][t->count[way]++] = milliseconds;
}

int mdm_recording_trial_is_full(const mdm_recording_trial *t) {
    for (int w = 0; w < t->ways; w++)
        if (!t->is_out[w] && t->count[w] < MDM_TRIAL_TURNS) return 0;
    return 1;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void mdm_recording_trial_medians(mdm_recording_trial *t, double medians[MDM_TRIAL_MOST_WAYS]) {
    for (int w = 0; w < MDM_TRIAL_MOST_WAYS; w++) {
        medians[w] = HUGE_VAL;
        if (w >= t->ways || t->is_out[w] || t->count[w] == 0) continue;
        qsort(t->milliseconds[w], (size_t)t->count[w], sizeof(double), compare);
        medians[w] = t->milliseconds[w][t->count[w] / 2];
    }
}

void mdm_recording_trial_decide(mdm_recording_trial *t, const double medians[MDM_TRIAL_MOST_WAYS]) {
    int best = 0;
    for (int w = 1; w < t->ways; w++)
        if (medians[w] < medians[best]) best = w;
    t->is_over = 1;
    t->chosen = medians[best] < (1 - MDM_TRIAL_LEAST_GAIN) * medians[0] ? best : 0;
}

void mdm_recording_trial_leave_out(mdm_recording_trial *t, int way) {
    t->is_out[way] = 1;
    if (t->chosen == way) t->chosen = 0;
    t->count[way] = 0;
}
