/* The trainer: everything a run holds, shared by the files of this room. */
#ifndef MDM_TRAIN_TRAINER_H
#define MDM_TRAIN_TRAINER_H

#include "mdm/base/config.h"
#include "mdm/data/store.h"
#include "mdm/device/recording.h"
#include "mdm/divide/gmm.h"
#include "mdm/divide/split.h"
#include "mdm/model/executor.h"
#include "mdm/report/events.h"
#include "mdm/report/metrics.h"
#include "mdm/report/run_folder.h"
#include "mdm/train/contrast.h"
#include "mdm/train/recorder.h"
#include "mdm/train/run.h"
#include "mdm/train/semi_step.h"
#include "views.h"

enum { MDM_MOST_NETWORKS = 2 };

typedef enum mdm_stage {
    MDM_STAGE_PRETRAIN,
    MDM_STAGE_WARMUP,
    MDM_STAGE_SEMI,
    MDM_STAGE_BASELINE_CE,
    MDM_STAGE_BASELINE_SCE,
    MDM_STAGE_DONE
} mdm_stage;

/* Where a run stands: `position` counts the epochs of all stages, `network` and `step` the place inside one.
 * The sums of the epoch begun travel along, so that its metrics survive a stop. */
typedef struct mdm_place {
    int64_t position, network, step;
    double sums[MDM_PART_COUNT + 2]; /* loss, parts, confident share; each times the step's rows */
    double rows, seconds;
} mdm_place;

/* What one network thinks of every sample, [N], on every rank. */
typedef struct mdm_opinion {
    float *loss, *clean_probability, *ood_score;
    int32_t *neighbour; /* the nearest other sample in the embedding, and its cosine similarity */
    float *similarity;
    uint8_t *split;
    mdm_gmm gmm;
    mdm_split_counts counts;
    double auc_noise, auc_ood;
} mdm_opinion;

/* The squared gradient norms and losses of a network's latest steps in a stage, and how many steps of them
 * were left out as spikes: in all, and in one pass (a network's epoch). Numbers only, as a checkpoint holds
 * them. */
enum { MDM_SPIKE_WINDOW = 128 };
typedef struct mdm_spike_window {
    double stage, count, square[MDM_SPIKE_WINDOW], loss[MDM_SPIKE_WINDOW];
} mdm_spike_window;
typedef struct mdm_spikes {
    double total, pass, in_pass;
    mdm_spike_window window[MDM_MOST_NETWORKS];
} mdm_spikes;

typedef struct mdm_score {
    double top1, top5;
} mdm_score;

typedef struct mdm_trainer {
    mdm_comm *comm;
    mdm_config config;
    mdm_run_options options;
    mdm_device *device;
    mdm_precision precision;
    mdm_store *store;
    const mdm_store_info *data;
    mdm_store *validation; /* NULL: none; its test set is what the best networks are chosen by */
    mdm_layout *layout;
    mdm_executor *executor;
    mdm_network *networks[MDM_MOST_NETWORKS], *averages[MDM_MOST_NETWORKS], *baseline;
    int network_count;
    mdm_views *views, *validation_views;
    int on_device;          /* a CUDA device's memory has the pictures of `store` */
    int searches_on_device; /* it keeps the embeddings of a division, and searches their neighbours */
    /* what is trained on */
    uint8_t *held;          /* [N] 1: held out for validation */
    int64_t *training;      /* [N] the samples that are not, then those that are */
    int64_t training_count; /* how many are not */
    /* state of the method */
    uint8_t *keep; /* [N] 0: removed before warm-up */
    struct {
        int64_t skipped, streak, rollbacks; /* steps left out so far, in a row; returns to a checkpoint */
        double rate_scale;                  /* of all learning rates; halved by each return */
        float *statistics;                  /* the network's, before the step at work; on the device */
        char cause[256];                    /* of the latest skip */
    } guard;
    mdm_spikes spikes;
    int64_t removed; /* samples to remove at the next division */
    int divided;     /* the opinions below are filled */
    mdm_opinion opinions[MDM_MOST_NETWORKS];
    mdm_place place;
    mdm_score latest, before_semi, baseline_score[2]; /* ensemble; negative: not measured */
    double best_top1, best_validation;                /* negative: not measured */
    double baseline_validation[2];                    /* the best, as best_validation */
    int64_t best_epoch, best_validation_epoch;
    double seconds[6]; /* pretrain, warm-up, semi, divide, evaluate, baseline */
    double images;     /* trained on, for images per second */
    /* an epoch's plan */
    int64_t *order, *labelled, *unlabelled, *pool; /* [N] */
    int64_t steps;
    /* images of a step in the device's memory: a view of each row, or as mdm/train/semi_step.h says */
    float *step_images;
    int64_t image_rows;
    int64_t *sample_list; /* samples of a step */
    int64_t *next_list;   /* samples of the step after it, read ahead where pictures are streamed */
    int64_t next_count;
    uint32_t *view_list;
    int64_t list_size;
    mdm_contrast *contrast;
    mdm_semi_workspace *workspace;
    int64_t workspace_rows, place_labelled; /* labelled samples of the epoch */
    int groups;                             /* of a MixEMatch step */
    int64_t *permutation;
    int32_t *told;        /* labels of a MixEMatch step's samples, then weights, as floats */
    mdm_message *message; /* what other steps are told: orders, labels, weights */
    /* in the device's memory: the rows' gradient and losses, what a step comes to (guards.c) */
    float *gradient;
    double *row_value, *result;
    mdm_recorder *recorder;
    /* run folder, rank 0 */
    mdm_run_folder *folder;
    mdm_metrics *metrics;
    int64_t metrics_kept; /* bytes of metrics.jsonl that stay, as the checkpoint taken up tells */
    mdm_events *events;   /* NULL: none */
    double started, last_save;
    double seconds_before;               /* that earlier starts of the run took, by its stages */
    struct mdm_checkpoint_saver *saver;  /* rank 0; NULL in a dry run */
    int random_tensors, encoder_tensors; /* rank 0: that model.init=FILE lacks, of so many */
    int has_saved;                       /* rank 0: the folder has a checkpoint of this run */
    int collapsed;                       /* at the last measurement all pictures got the same class */
    int lost;                            /* then some got no finite numbers */
    int seen_stages;                     /* bits of the stages that this process has trained in */
    int64_t passes[MDM_STAGE_DONE];      /* one network's epochs that this process did, by stage */
    double pass_seconds[MDM_STAGE_DONE]; /* and what one takes, the last ones above all */
    struct {                             /* of this pass in this process, see pace.c */
        double start, waited_before;
        double reading, views; /* seconds until steps had their pictures, and for making views of them */
        int slowest, told;     /* the slowest rank; the one that was told of last, and 1 */
        double speed;          /* of the slowest, as a share of the median's */
    } pace;
    int64_t first_step;                            /* of this pass in this process */
    double last_agreed, longest_gap, longest_save; /* seconds; for stopping before a time limit */
    int threads;
    char thread_text[256];
    int deterministic; /* whether sums do not depend on the number of ranks */
} mdm_trainer;

/* pace.c. The clock of one network's epoch starts. */
void mdm_pace_begin(mdm_trainer *t);
/* Collective, at its end. Finds the rank that the others waited for most, and tells of it where it costs much
 * time. */
MDM_MUST_CHECK mdm_status mdm_pace_compare(mdm_trainer *t);

/* setup.c: opens everything; collective. */
MDM_MUST_CHECK mdm_status mdm_trainer_open(mdm_comm *comm, const mdm_config *config,
                                           const mdm_run_options *options, mdm_trainer **trainer);
void mdm_trainer_close(mdm_trainer *trainer);
/* Not collective. MDM_USAGE where resume and --force do not let a run begin in a folder that holds one. */
MDM_MUST_CHECK mdm_status mdm_refuse_used_folder(const mdm_trainer *t);
/* Room for steps of `rows` image rows, of `listed` pictures (at most 3 `rows` views are made of them) and of
 * lists of 2 `samples`; not inside a step. */
MDM_MUST_CHECK mdm_status mdm_trainer_reserve(mdm_trainer *t, int64_t rows, int64_t listed, int64_t samples);

/* memory.c: tells in a dry run what the run will take; MDM_RESOURCE, naming the setting that shrinks it most,
 * when it is more than there is. Collective. After the networks were made, before steps are planned. */
MDM_MUST_CHECK mdm_status mdm_check_memory(mdm_trainer *t);

/* place.c: which stage a position belongs to, and the epoch within pretraining, training or the baseline. */
mdm_stage mdm_stage_of(const mdm_trainer *t, int64_t position, int64_t *epoch);
int64_t mdm_position_count(const mdm_trainer *t);
const char *mdm_stage_name(mdm_stage stage);
/* Steps of n samples in batches of at least `batch` (fewer when n is smaller), sizes differing by one: step s
 * has items [*first, *first + *count). The reference's array_split. */
int64_t mdm_step_count(int64_t n, int64_t batch);
void mdm_step_range(int64_t n, int64_t steps, int64_t step, int64_t *first, int64_t *count);

/* One epoch of one network in each stage: `prepare` plans it (collective, may allocate), `list` writes the
 * samples whose pictures this rank needs in a step and returns how many, `step` does the step. */
typedef struct mdm_step_report {
    double loss, parts[MDM_PART_COUNT], confident;
    int skipped;          /* its numbers were not finite, or a spike: it changed nothing */
    int64_t rows, images; /* global rows that the loss is a mean of; images trained on */
} mdm_step_report;
typedef struct mdm_stage_methods {
    mdm_status (*prepare)(mdm_trainer *t, int network, int64_t epoch);
    int64_t (*list)(mdm_trainer *t, int network, int64_t epoch, int64_t step, int64_t *samples);
    mdm_status (*step)(mdm_trainer *t, int network, int64_t epoch, int64_t step, mdm_step_report *report);
} mdm_stage_methods;
extern const mdm_stage_methods mdm_pretrain_methods, mdm_warmup_methods, mdm_semi_methods,
    mdm_baseline_methods;

/* epoch.c: puts samples, which come in the file's order, into the random order that data.shuffle names. */
void mdm_shuffle_samples(const mdm_trainer *t, mdm_random *random, int64_t *samples, int64_t count);
/* epoch.c: loads the pictures of t->sample_list[0..count) and lets a thread read those of the next step. */
MDM_MUST_CHECK mdm_status mdm_load_step(mdm_trainer *t, int64_t count);
/* epoch.c. mdm_views_make_asked, and counts the time. */
MDM_MUST_CHECK mdm_status mdm_make_views(mdm_trainer *t);
/* Runs the rest of the epoch that t->place names, for all networks. MDM_STOPPED after a signal. */
MDM_MUST_CHECK mdm_status mdm_run_epoch(mdm_trainer *t, mdm_stage stage, int64_t epoch);

/* progress.c: the progress line after a step of a pass (one network's epoch) in which this process trained on
 * so many images in so many seconds; and a pass that it did from the first step to the last. */
void mdm_show_progress(mdm_trainer *t, mdm_stage stage, int64_t epoch, double images, double seconds);
void mdm_count_pass(mdm_trainer *t, mdm_stage stage, double seconds);
/* The seconds that are left of the stage and of the run, at the same place. */
void mdm_time_left(const mdm_trainer *t, mdm_stage stage, int64_t epoch, double seconds, double *of_stage,
                   double *of_run);

/* guards.c. Before a step: its orders, for its message to the device, and the network to the device. */
MDM_MUST_CHECK mdm_status mdm_guard_create(mdm_trainer *t);
MDM_MUST_CHECK mdm_status mdm_guard_begin_step(mdm_trainer *t, mdm_network *network, double rate_encoder,
                                               double rate_heads, mdm_step_orders *orders);
/* Queued first in a step: what it may have to put back. */
void mdm_guard_queue_begin(mdm_trainer *t, const mdm_network *network);
/* Collective, queued last in a step of one loss, whose part of this rank is result[0], with the orders in the
 * device's memory: the verdict, and the optimizer's step where that is sound. */
MDM_MUST_CHECK mdm_status mdm_guard_queue_end(mdm_trainer *t, mdm_network *network, int roles,
                                              const mdm_step_orders *orders, double momentum,
                                              double weight_decay);
/* Brings what such a step came to, the same on all ranks, and ends it. */
MDM_MUST_CHECK mdm_status mdm_guard_collect(mdm_trainer *t, mdm_network *network, double *loss, int *skipped);
/* After the step, of which the verdict (MDM_STEP_IS_...) is known: where it is not sound, a warning, and the
 * statistics as they were. MDM_NUMERIC after eight steps in a row that were not finite. */
MDM_MUST_CHECK mdm_status mdm_guard_end_step(mdm_trainer *t, mdm_network *network, double loss,
                                             double gradient_square, int verdict, int *skipped);
/* spikes.c: beyond which squared norm of the gradient, or loss, the step that begins is a spike and left out:
 * ten times the largest norm or loss of this network's last 128 steps in this stage. INFINITY where fewer
 * than 64 were seen, or one in a hundred of the pass's steps (but one) was left out so far. A spike is
 * counted, with the reason in `text`; the numbers of a sound step are remembered. */
void mdm_spike_limits(mdm_trainer *t, double *square_limit, double *loss_limit);
void mdm_spike_count(mdm_trainer *t, double square, char *text, size_t size);
void mdm_spike_remember(mdm_trainer *t, double square, double loss);

/* What the devices hold of all networks, into host memory. */
MDM_MUST_CHECK mdm_status mdm_fetch_networks(mdm_trainer *t);
/* Collective. MDM_NUMERIC, naming the rank, when the ranks' networks are not the same bits. */
MDM_MUST_CHECK mdm_status mdm_check_replicas(mdm_trainer *t);
/* MDM_NUMERIC, naming the tensor, when a weight or statistic is not finite. Host memory then has what a
 * device computed, for saving. */
MDM_MUST_CHECK mdm_status mdm_check_weights(mdm_trainer *t);

/* restarts.c, rank 0: counts this start, MDM_LOST when three starts from the newest checkpoint left no newer
 * one; and forgets them, after a planned stop and at the end. */
MDM_MUST_CHECK mdm_status mdm_restarts_count(const mdm_trainer *t);
void mdm_restarts_forget(const mdm_trainer *t);

/* divide_stage.c */
/* Collective. Every rank's slice of one value per sample, put together on all ranks. */
MDM_MUST_CHECK mdm_status mdm_gather_samples(mdm_trainer *t, const void *mine, void *all, mdm_type type);
MDM_MUST_CHECK mdm_status mdm_remove_first(mdm_trainer *t);
MDM_MUST_CHECK mdm_status mdm_divide(mdm_trainer *t, int64_t epoch);

/* evaluate.c. The network that predictions are made with: the average where model.ema is on. */
mdm_network *mdm_predicting_network(mdm_trainer *t, int number);
/* What is wanted of this rank's slice of all training samples; each may be NULL. */
typedef struct mdm_evaluation {
    float *loss;                /* [n] of the given labels; this and what follows in host memory, */
    float *embedding, *logits;  /* [n,D], [n,C] */
    float *embedding_on_device; /* [n,D], but this in the device's */
    float *prediction;          /* [n,C]: the softmax, divided by `networks`, is added to it */
    int networks;
} mdm_evaluation;
/* Collective. Without augmentation. */
MDM_MUST_CHECK mdm_status mdm_evaluate_training(mdm_trainer *t, mdm_network *network,
                                                const mdm_evaluation *wanted);
/* Collective. MDM_NUMERIC unless all numbers of this rank's slice, [count, width] of what
 * mdm_evaluate_training gave, are finite on every rank. */
MDM_MUST_CHECK mdm_status mdm_check_outputs(mdm_trainer *t, const float *value, int64_t count, int64_t width);
/* Pictures to measure on: `count` samples of a split, listed in `samples` (NULL: all in their order). */
typedef struct mdm_pictures {
    mdm_store *store;
    mdm_views *views;
    mdm_split split;
    const int64_t *samples;
    int64_t count;
} mdm_pictures;
/* Collective. Accuracy of the sum of the networks' softmax on such pictures and their labels; negative: there
 * are none. */
MDM_MUST_CHECK mdm_status mdm_evaluate_pictures(mdm_trainer *t, const mdm_pictures *pictures,
                                                mdm_network **networks, int count, mdm_score *score);
/* The same on the test set. */
MDM_MUST_CHECK mdm_status mdm_evaluate_test(mdm_trainer *t, mdm_network **networks, int count,
                                            mdm_score *score);

/* validation.c. Chooses the samples that data.validation holds out, the same on every rank: fills t->held and
 * t->training. */
MDM_MUST_CHECK mdm_status mdm_hold_out(mdm_trainer *t);
/* Collective. The same as mdm_evaluate_test on what data.validation names. */
MDM_MUST_CHECK mdm_status mdm_evaluate_validation(mdm_trainer *t, mdm_network **networks, int count,
                                                  mdm_score *score);

/* checkpoint.c. Not collective, rank 0: starts the thread that saves, and makes room for what it will save.
 */
MDM_MUST_CHECK mdm_status mdm_prepare_saves(mdm_trainer *t);
/* Collective. Saves the state as it is; the disk is waited for only with `now`, otherwise by
 * mdm_notice_saved. A failure is a warning and the checkpoint before stands, but with `now` it ends the run.
 */
MDM_MUST_CHECK mdm_status mdm_save_checkpoint(mdm_trainer *t, int now);
/* Not collective. On rank 0 takes note of a save that has ended, a failed one by a warning, and gives its
 * outcome; with `wait` waits for the one under way. */
mdm_status mdm_notice_saved(mdm_trainer *t, int wait);
/* Collective. Takes up the newest checkpoint if there is one and `resume` allows; *resumed tells. */
MDM_MUST_CHECK mdm_status mdm_load_checkpoint(mdm_trainer *t, int *resumed);
/* Collective. Opens metrics.jsonl; after --force nothing of the run before is left from here on,
 * so it comes after all that may be refused. */
MDM_MUST_CHECK mdm_status mdm_begin_records(mdm_trainer *t);
/* Collective, for dry runs. Tells what a start would go on from, or fails as it would. Loads nothing. */
MDM_MUST_CHECK mdm_status mdm_foresee_start(mdm_trainer *t);
/* Collective. Back to the newest checkpoint in the middle of a run; *found 0: there is none. */
MDM_MUST_CHECK mdm_status mdm_return_to_checkpoint(mdm_trainer *t, int *found);

/* outputs.c */
MDM_MUST_CHECK mdm_status mdm_write_division(mdm_trainer *t, int64_t epoch, const float *embedding,
                                             const float *logits);
/* Not collective, rank 0: the predicting networks under these names, with what their users need to know. */
MDM_MUST_CHECK mdm_status mdm_write_networks(mdm_trainer *t, const mdm_run_member names[MDM_MOST_NETWORKS]);
/* Not collective, rank 0: the predicting networks as best-a.safetensors and best-b.safetensors. */
MDM_MUST_CHECK mdm_status mdm_write_best(mdm_trainer *t);
MDM_MUST_CHECK mdm_status mdm_write_start(mdm_trainer *t, int resumed);
MDM_MUST_CHECK mdm_status mdm_write_results(mdm_trainer *t);

/* ood_stage.c. Collective. Writes ood-reference.safetensors, what predict compares new pictures with: after
 * the first division, where its scores count, with its networks (a failure to write is only told); and at the
 * end, unless that is there. */
MDM_MUST_CHECK mdm_status mdm_write_first_ood_reference(mdm_trainer *t);
MDM_MUST_CHECK mdm_status mdm_write_ood_reference(mdm_trainer *t);

/* start.c. Collective. Takes what fits of model.init into all networks, and tells what that was. */
MDM_MUST_CHECK mdm_status mdm_take_initial_weights(mdm_trainer *t);
/* Not collective. Warns where that left tensors of the encoder as they were; once metrics.jsonl is open. */
void mdm_warn_of_random_tensors(const mdm_trainer *t);
/* Batch norm of a stage: train.batchnorm, but for pretraining and baselines, which make their own statistics,
 * sync instead of frozen. */
void mdm_use_batchnorm_of(mdm_trainer *t, mdm_stage stage);

/* signals.c: flags set by USR1, TERM, INT (stop) and USR2 (save). */
void mdm_signals_install(void);
int mdm_signals_stop(void);
int mdm_signals_take_save(void);
/* Whether fewer than so many seconds are left of the Slurm job (SLURM_JOB_END_TIME); 0 where there is no
 * limit. */
int mdm_signals_time_is_up(double seconds_needed);

#endif
