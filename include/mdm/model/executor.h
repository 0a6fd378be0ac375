/* The executor: runs networks of one layout over planned buffers, forward and backward.
 *
 * A plan holds the convolutions for one number of rows; all plans share one arena of activations, and both
 * networks share the plans, because they run one after another. Batch norm statistics are summed over ranks
 * (sync), kept to this rank (local) or taken from the running ones (frozen).
 */
#ifndef MDM_MODEL_EXECUTOR_H
#define MDM_MODEL_EXECUTOR_H

#include "mdm/comm/comm.h"
#include "mdm/device/group.h"
#include "mdm/model/network.h"

typedef struct mdm_executor mdm_executor;
typedef enum mdm_batchnorm { MDM_BATCHNORM_SYNC, MDM_BATCHNORM_LOCAL, MDM_BATCHNORM_FROZEN } mdm_batchnorm;

typedef enum mdm_pass {
    MDM_PASS_EVALUATE, /* running statistics, no backward */
    MDM_PASS_GUESS,    /* batch statistics, which move the running ones; no backward */
    MDM_PASS_TRAIN,    /* batch statistics, which move the running ones; backward follows */
    MDM_PASS_MIXED     /* batch statistics that leave the running ones alone; backward follows */
} mdm_pass;

/* Where a forward pass left its results, in the device's memory; valid until the next pass of the executor.
 * Rows are this rank's. */
typedef struct mdm_outputs {
    const float *embedding;  /* [rows, D] */
    const float *projection; /* [rows, projection], behind the head's batch norm, not normalised to unit
                              * length; NULL of MDM_PASS_EVALUATE */
    const float *logits;     /* [rows, C] */
} mdm_outputs;

MDM_MUST_CHECK mdm_status mdm_executor_create(mdm_device *device, mdm_comm *comm, const mdm_layout *layout,
                                              mdm_precision precision, mdm_batchnorm batchnorm,
                                              mdm_executor **executor);
void mdm_executor_destroy(mdm_executor *executor);
/* Changes where batch norm takes its statistics from, between two steps; the same on all ranks. */
void mdm_executor_set_batchnorm(mdm_executor *executor, mdm_batchnorm batchnorm);

/* Makes the results the same to the bit for every number of ranks that divides MDM_SHARDS, and of threads
 * (MDM_USAGE otherwise, and on CUDA): each batch is cut into MDM_SHARDS shards, what a shard adds to a sum
 * over rows is computed by one thread, and sums over shards do not depend on their order
 * (mdm/base/exact_sum.h, mdm/base/grid_sum.h). To be called before the first plan; the same on all ranks. The
 * largest tensor's gradient exists once more for each of this rank's shards, and all gradients as sums of 8
 * bytes a weight with every network trained. */
enum { MDM_SHARDS = 12 };
/* Whether that can be had: not on CUDA, and only where ranks share the shards evenly. */
int mdm_executor_can_be_reproducible(const mdm_executor *executor);
MDM_MUST_CHECK mdm_status mdm_executor_make_reproducible(mdm_executor *executor);
int mdm_executor_is_reproducible(const mdm_executor *executor);
mdm_device *mdm_executor_device(const mdm_executor *executor);
/* Of products behind the encoder: MDM_FP32 or MDM_TF32. */
mdm_precision mdm_executor_head_precision(const mdm_executor *executor);
/* What the rows of the next plans and passes with batch statistics are: this rank's slice of `n` rows
 * (mdm_comm_my_slice) in each of `groups` groups. Needed for reproducible results, for chunks and where
 * ranks share batch statistics. */
void mdm_executor_set_batch(mdm_executor *executor, int groups, int64_t n);

/* Where a rank's slice of a batch has more than so many samples, passes are computed in chunks of at most
 * that many (of every group), each with batch statistics of its own, so that only a chunk's activations are
 * in memory; outputs, and with them losses, are still the batch's. Backward costs one more forward. 0: no
 * limit. To be called before the first plan; the same on all ranks; not for reproducible results. */
void mdm_executor_set_chunks(mdm_executor *executor, int64_t samples);

/* Makes the plan for `rows` rows of this rank (0 is allowed) if there is none; forward_only plans need less,
 * and serve MDM_PASS_EVALUATE alone, as it is served by them alone. To be called before a stage's first step.
 * Not collective. */
MDM_MUST_CHECK mdm_status mdm_executor_plan(mdm_executor *executor, int rows, int forward_only);
/* Bytes of activations such a plan uses. */
size_t mdm_executor_bytes(const mdm_executor *executor, int rows);
/* Forgets all plans when there are more than `most` (new divisions bring new sizes). Not between forward and
 * backward. */
void mdm_executor_forget_beyond(mdm_executor *executor, int most);

/* The ranks' devices. */
mdm_group *mdm_executor_group(const mdm_executor *executor);

/* For steps that are recorded, which hold the making of no filters (mdm_network_make_filters): the network is
 * on the device, and its filters hold its weights. To be called for each network of the step, before it is
 * recorded and before each replay. */
MDM_MUST_CHECK mdm_status mdm_executor_prepare(mdm_executor *executor, mdm_network *network);

/* Collective (passes with batch statistics under sync). images float [rows, channels, H, W], normalised, in
 * the device's memory, where they stay the same until backward. */
MDM_MUST_CHECK mdm_status mdm_executor_forward(mdm_executor *executor, mdm_network *network, int rows,
                                               const float *images, mdm_pass pass, mdm_outputs *outputs);

/* Collective. Backward of the latest TRAIN or MIXED pass. Gradients with respect to its outputs, each [rows,
 * ...] in the device's memory or NULL; they are not modified. The weights' gradient is written to, or with
 * `accumulate` added to, network->home.gradient, as a sum over this rank's rows. With `reduce` buckets of it
 * are handed to the all-reduce as soon as they are complete; the caller then calls mdm_executor_reduce_wait.
 */
MDM_MUST_CHECK mdm_status mdm_executor_backward(mdm_executor *executor, mdm_network *network, int rows,
                                                const float *images, const float *embedding_gradient,
                                                const float *projection_gradient,
                                                const float *logits_gradient, int accumulate, int reduce);

/* ---- joined passes ----
 *
 * Passes of one network over as many rows each, in one go: whatever gives a row by itself sees the rows of
 * all, batch norm takes the statistics of each pass. A device gets fewer and larger calls, and ranks exchange
 * the sums of all passes in one message; the activations of all passes are in memory. The first is
 * MDM_PASS_GUESS, the others MDM_PASS_MIXED. On CUDA; not in chunks, and not where results are reproducible.
 */
enum { MDM_JOINED_PASSES = MDM_NORM_SETS };
typedef struct mdm_joined_pass {
    int wants_projection; /* beside embedding and logits */
    mdm_outputs outputs;  /* where forward leaves what is wanted */
    /* for backward, as there; none for the first pass */
    const float *embedding_gradient, *projection_gradient, *logits_gradient;
} mdm_joined_pass;

/* Whether steps are to be made that way, and whether they can: with `rows` rows of this rank a pass. */
int mdm_executor_can_join(const mdm_executor *executor, int64_t rows, int passes);
void mdm_executor_set_joined(mdm_executor *executor, int is_joined);
int mdm_executor_is_joined(const mdm_executor *executor);
/* As mdm_executor_plan. */
MDM_MUST_CHECK mdm_status mdm_executor_plan_joined(mdm_executor *executor, int rows, int passes);
/* As mdm_executor_forward and mdm_executor_backward, which writes the encoder's gradient and adds to the
 * heads'; images [passes, rows, channels, H, W]. No other pass of the executor comes in between. */
MDM_MUST_CHECK mdm_status mdm_executor_forward_joined(mdm_executor *executor, mdm_network *network, int rows,
                                                      const float *images, mdm_joined_pass *passes,
                                                      int count);
MDM_MUST_CHECK mdm_status mdm_executor_backward_joined(mdm_executor *executor, mdm_network *network, int rows,
                                                       const float *images, const mdm_joined_pass *passes,
                                                       int count, int reduce);

/* Collective. Waits until network->home.gradient is summed over all ranks. */
MDM_MUST_CHECK mdm_status mdm_executor_reduce_wait(mdm_executor *executor, mdm_network *network);

/* The classifier alone, for mixed embeddings of the latest pass's rows: logits [rows, C] =
 * embedding * W^T + b. */
MDM_MUST_CHECK mdm_status mdm_classifier_forward(mdm_executor *executor, mdm_network *network,
                                                 const float *embedding, float *logits);
/* Its backward: embedding_gradient [rows, D] is written; the weights' gradient is written or added to. */
MDM_MUST_CHECK mdm_status mdm_classifier_backward(mdm_executor *executor, mdm_network *network,
                                                  const float *embedding, const float *logits_gradient,
                                                  float *embedding_gradient, int accumulate);

/* Collective. probability [rows, C] = softmax of logits of the latest pass's rows; *sums [C], in the device's
 * memory until the next call: of all ranks' rows. */
MDM_MUST_CHECK mdm_status mdm_executor_sum_predictions(mdm_executor *executor, const float *logits,
                                                       float *probability, const double **sums);

/* Collective. Averages the running statistics over ranks (needed under local batch norm before evaluating or
 * saving). */
MDM_MUST_CHECK mdm_status mdm_executor_agree_statistics(mdm_executor *executor, mdm_network *network);

#endif
