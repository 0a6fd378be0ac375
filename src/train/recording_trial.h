/* Which of the ways of recording a step (mdm/device/recording.h) is the fastest, as its own replays tell: the
 * ways take turns, and after some of each the medians decide. Nothing here knows of devices. */
#ifndef MDM_TRAIN_RECORDING_TRIAL_H
#define MDM_TRAIN_RECORDING_TRIAL_H

/* Another way than the plain one, number 0, must gain so much to be taken. */
#define MDM_TRIAL_LEAST_GAIN 0.01

enum { MDM_TRIAL_TURNS = 5, MDM_TRIAL_MOST_WAYS = 4 };

/* Zeros, but for `ways`: how many there are. */
typedef struct mdm_recording_trial {
    int ways;
    int is_out[MDM_TRIAL_MOST_WAYS]; /* it cannot be had */
    int count[MDM_TRIAL_MOST_WAYS];
    double milliseconds[MDM_TRIAL_MOST_WAYS][MDM_TRIAL_TURNS];
    int is_over, chosen;
} mdm_recording_trial;

/* The way of the next replay: the first of those that have had the fewest turns. */
int mdm_recording_trial_next(const mdm_recording_trial *trial);
/* What a replay took that way. */
void mdm_recording_trial_add(mdm_recording_trial *trial, int way, double milliseconds);
int mdm_recording_trial_is_full(const mdm_recording_trial *trial);
/* The median of each way; of one that is out HUGE_VAL. Sorts the times. */
void mdm_recording_trial_medians(mdm_recording_trial *trial, double medians[MDM_TRIAL_MOST_WAYS]);
/* Ends it by these times, which may be those of the slowest of several ranks. */
void mdm_recording_trial_decide(mdm_recording_trial *trial, const double medians[MDM_TRIAL_MOST_WAYS]);
/* A way other than the plain one cannot be had, or no more: the plain one is taken where it was chosen. */
void mdm_recording_trial_leave_out(mdm_recording_trial *trial, int way);

#endif
