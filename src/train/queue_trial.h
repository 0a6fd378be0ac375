/* Whether steps of a kind are faster in one queue or with gradients of weights beside it
 * (mdm/device/beside.h), as their own replays tell: the two ways take turns, and after some of each the
 * medians decide. Nothing here knows of devices. */
#ifndef MDM_TRAIN_QUEUE_TRIAL_H
#define MDM_TRAIN_QUEUE_TRIAL_H

/* Two queues must gain so much to be taken. */
#define MDM_TRIAL_LEAST_GAIN 0.01

enum { MDM_TRIAL_TURNS = 7 };

typedef enum mdm_queue_way { MDM_ONE_QUEUE, MDM_TWO_QUEUES, MDM_QUEUE_WAYS } mdm_queue_way;

typedef struct mdm_queue_trial {
    int count[MDM_QUEUE_WAYS];
    double milliseconds[MDM_QUEUE_WAYS][MDM_TRIAL_TURNS];
    int is_over;
    mdm_queue_way chosen;
} mdm_queue_trial;

/* Of a step that is new: the way that has had fewer turns comes first. */
int mdm_queue_trial_first_turn(const mdm_queue_trial *trial);
/* The way of a replay, the `turn`-th of its step. */
mdm_queue_way mdm_queue_trial_next(const mdm_queue_trial *trial, int turn);
/* What it took; beyond MDM_TRIAL_TURNS of one way it is forgotten. */
void mdm_queue_trial_add(mdm_queue_trial *trial, mdm_queue_way way, double milliseconds);
int mdm_queue_trial_is_full(const mdm_queue_trial *trial);
/* Sorts the times. */
double mdm_queue_trial_median(mdm_queue_trial *trial, mdm_queue_way way);
/* Ends it by these times, which may be those of the slowest of several ranks. */
void mdm_queue_trial_decide(mdm_queue_trial *trial, const double milliseconds[MDM_QUEUE_WAYS]);
/* Ends it, as two queues cannot be had. */
void mdm_queue_trial_stay(mdm_queue_trial *trial);

#endif
