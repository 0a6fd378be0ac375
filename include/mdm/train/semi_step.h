/* One MixEMatch step on given views and a given mix: the loss and its gradient (reference: semi_loss).
 *
 * Global rows are ordered [labelled view 1, labelled view 2, unlabelled view 1, unlabelled view 2], n each;
 * this rank holds samples [first, first + count) of each group. Without unlabelled samples there are two
 * groups.
 */
#ifndef MDM_TRAIN_SEMI_STEP_H
#define MDM_TRAIN_SEMI_STEP_H

#include "mdm/base/config.h"
#include "mdm/model/executor.h"

typedef struct mdm_semi_options {
    float temperature; /* of sharpening */
    float confidence;  /* guesses below it do not count */
    float lambda_x, lambda_u, lambda_xe, lambda_ue, lambda_contrast;
    float rce_weight; /* of the reverse cross entropy of the labelled part; 0 is plain cross entropy */
} mdm_semi_options;

mdm_semi_options mdm_semi_options_of(const mdm_config *config);
/* Whether a step needs the pass of strong views that are not mixed: embedding mixup and contrast. Without it
 * a step has three fifths of the work, the same gradient, and zeros for those parts of the loss. */
int mdm_semi_has_strong_pass(const mdm_semi_options *options);

/* The passes of a step, in the order in which their images lie. */
typedef enum mdm_semi_images {
    MDM_SEMI_WEAK,
    MDM_SEMI_MIXED,
    MDM_SEMI_STRONG,
    MDM_SEMI_PASSES
} mdm_semi_images;
/* How many of them a step has. */
int mdm_semi_passes(const mdm_semi_options *options);
/* Plans for steps with `rows` rows of this rank a pass, as the executor makes them: joined or not. */
MDM_MUST_CHECK mdm_status mdm_semi_plan_passes(mdm_executor *executor, const mdm_semi_options *options,
                                               int rows);

typedef struct mdm_semi_batch {
    int64_t n, first, count;
    int groups; /* 4, or 2 without unlabelled samples */
    /* [MDM_SEMI_PASSES][groups * count, channels, H, W] in the device's memory: weak views; for each row the
     * strong view that it is mixed with, in whose place the step leaves their mix; the strong views
     * themselves */
    float *images;
    const int32_t *label;           /* [count] given labels of the labelled samples */
    const float *clean_probability; /* [count] */
    const int64_t *permutation;     /* [groups * n] global rows */
    float lambda;                   /* share of the row itself in the mix, >= 1/2 */
    float ramp;                     /* 0..1, scales lambda_u and lambda_ue */
    mdm_step_orders orders;         /* limits; rates are for the caller's optimizer alone */
} mdm_semi_batch;

enum {
    MDM_PART_X,
    MDM_PART_U,
    MDM_PART_XE,
    MDM_PART_UE,
    MDM_PART_CONTRAST,
    MDM_PART_BALANCE,
    MDM_PART_COUNT
};

typedef struct mdm_semi_result {
    double loss, parts[MDM_PART_COUNT]; /* of the global batch; parts without their lambdas */
    double confident;                   /* share of unlabelled samples whose guess counted */
    double gradient_square;             /* squared norm of the reduced one */
    int verdict;                        /* MDM_STEP_IS_... */
} mdm_semi_result;

/* Memory for steps of at most `n` global labelled rows of networks that the executor runs. */
typedef struct mdm_semi_workspace mdm_semi_workspace;
MDM_MUST_CHECK mdm_status mdm_semi_workspace_create(mdm_comm *comm, const mdm_executor *executor,
                                                    const mdm_layout *layout, int64_t n,
                                                    float contrast_temperature,
                                                    mdm_semi_workspace **workspace);
/* To be called before the first step of so many rows. */
MDM_MUST_CHECK mdm_status mdm_semi_workspace_plan(mdm_semi_workspace *workspace, int64_t n);
void mdm_semi_workspace_destroy(mdm_semi_workspace *workspace);

/* A step in three acts, of which the second is the device's alone and can be recorded
 * (mdm/device/recording.h): in a replay it does what the first was told last.
 *
 * 1. What the device has to be told of the step goes into a message. `guesser` (may be NULL) is the other
 * network, only read. Plans of mdm_semi_plan_passes for groups * count rows, and for 2 * count rows (forward
 * only) must exist. */
MDM_MUST_CHECK mdm_status mdm_semi_tell(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                                        mdm_network *guesser, const mdm_semi_batch *batch,
                                        mdm_semi_workspace *workspace);
/* 2. Collective. Runs the three passes; leaves the gradient of the global loss, reduced over ranks, in
 * network->home.gradient, and the verdict on the step. */
MDM_MUST_CHECK mdm_status mdm_semi_queue(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                                         mdm_network *guesser, const mdm_semi_options *options,
                                         const mdm_semi_batch *batch, mdm_semi_workspace *workspace);
/* 3. Brings what the step came to. */
MDM_MUST_CHECK mdm_status mdm_semi_collect(const mdm_semi_batch *batch, mdm_semi_workspace *workspace,
                                           mdm_semi_result *result);
/* For the optimizer between 2. and 3.: where the orders and the verdict are in the device's memory. */
const mdm_step_orders *mdm_semi_orders(const mdm_semi_workspace *workspace);
const double *mdm_semi_verdict(const mdm_semi_workspace *workspace);

#endif
