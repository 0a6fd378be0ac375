/* What a training step computes behind the encoder, on device pointers: targets, mixing, losses with their
 * gradients, contrast. losses_host.h has the same formulas on plain arrays.
 *
 * Arrays are row-major float in the memory of their device, logits, probabilities and targets [rows,
 * classes]; results are left there. What changes from step to step is read from device memory when the device
 * gets there (lambda, factor), so that a recorded step can be replayed. Values of losses are doubles per row,
 * added up in a fixed order by mdm_sum_rows. Nothing allocates, fails or is collective; sums over ranks
 * are between the calls. Rows may be 0. No sum depends on the order in which threads run.
 */
#ifndef MDM_DEVICE_LOSSES_H
#define MDM_DEVICE_LOSSES_H

#include "mdm/device/device.h"

/* ---- sums of values ---- */

typedef struct mdm_row_sum {
    const double *values; /* [rows] */
    int64_t rows;
    double divisor;
    double *sum; /* written: sum of values / divisor */
} mdm_row_sum;
enum { MDM_ROW_SUMS = 8 };
/* Up to MDM_ROW_SUMS sums at once. */
void mdm_sum_rows(mdm_device *device, const mdm_row_sum *sums, int count);

/* ---- targets (MixEMatch; reference: semi_loss) ---- */

/* probability = softmax of each row of logits; may be the same array. */
void mdm_softmax_rows(mdm_device *device, const float *logits, int64_t rows, int classes, float *probability);

/* Rows are in groups of `count`: [labelled view 1, labelled view 2, unlabelled view 1, unlabelled view 2], or
 * the first two alone. */
typedef struct mdm_target_batch {
    int64_t count;
    int groups, classes;            /* groups: 4 or 2 */
    const float *own;               /* [groups * count, C] softmax of the weak views */
    const float *theirs;            /* [2 * count, C] the other network's, of the unlabelled ones; or NULL */
    const int32_t *label;           /* [count] given labels */
    const float *clean_probability; /* [count] */
    float temperature, confidence;
} mdm_target_batch;
/* target [groups * count, C + 1]: each row's target, then its mask. Labelled: w * given label + (1 - w) *
 * mean prediction of both views, sharpened (p^(1/temperature), scaled to sum 1), mask 1. Unlabelled: mean of
 * all networks' predictions of both views, sharpened; the mask is 1 where the greatest is at least
 * `confidence`, else 0, and is left in confident [count] too (NULL: not wanted). Both views get the same. */
void mdm_make_targets(mdm_device *device, const mdm_target_batch *batch, float *target, double *confident);

/* ---- mixing: lambda * own row + (1 - lambda) * partner's row, lambda one float in device memory ----
 *
 * partner [rows]: the row of `all` that row i is mixed with, `all` being everybody's rows; NULL: row i. */

/* mixed [rows, width]; may be `own`, unless that is part of `all`. */
void mdm_mix_rows(mdm_device *device, int64_t rows, int64_t width, const float *lambda, const float *own,
                  const float *all, const int32_t *partner, float *mixed);
/* Of targets with masks, own [rows, C + 1]: mixed_target [rows, C] and mixed_mask [rows]. */
void mdm_mix_targets(mdm_device *device, int64_t rows, int classes, const float *lambda, const float *own,
                     const float *all, const int32_t *partner, float *mixed_target, float *mixed_mask);
/* The way back of mdm_mix_rows: the gradient of all rows, all_gradient [all_rows, width] (written), from that
 * of this rank's mixed ones, gradient [rows, width]. `own` stands at all_rows' row `first`; mixed_with
 * [all_rows] is partner backwards: the i with partner[i] = j, or -1. */
void mdm_mix_rows_backward(mdm_device *device, int64_t all_rows, int64_t rows, int64_t width, int64_t first,
                           const float *lambda, const float *gradient, const int32_t *mixed_with,
                           float *all_gradient);

/* ---- losses of logits: value and gradient in one pass ---- */

typedef struct mdm_loss_rows {
    const float *logits; /* [rows, C] */
    int64_t rows;
    int classes;
    const float *weight; /* [rows], NULL: ones. A row of weight 0 has value and gradient 0 whatever else */
    float scale;         /* of one row in the scalar loss: for a mean over B rows times lambda, lambda / B */
    const float *factor; /* one float in device memory that multiplies scale; NULL: 1 */
    double *value;       /* [rows] written: weight * loss, without scale; NULL: not wanted */
    float *gradient;     /* [rows, C] of scale * the sum of values; NULL: not wanted */
    int accumulate;      /* adds to the gradient */
} mdm_loss_rows;

/* ce_weight * CE + rce_weight * RCE (Wang et al. 2019, arXiv 1908.06112), RCE = -sum p log t, where log 0 of
 * a target is log 1e-4, and p is clamped at 1e-7 from below (no gradient passes there). label [rows] in
 * 0..C-1. */
void mdm_loss_hard(mdm_device *device, const mdm_loss_rows *rows, const int32_t *label, float ce_weight,
                   float rce_weight);
/* Of soft targets, constants for the gradient: target [labelled->rows + unlabelled->rows, C], the labelled
 * rows' first. Of labelled rows the same, of unlabelled ones the mean over classes of (softmax - target)^2.
 * Either may have no rows. */
void mdm_loss_soft(mdm_device *device, const mdm_loss_rows *labelled, const mdm_loss_rows *unlabelled,
                   const float *target, float ce_weight, float rce_weight);

/* ---- balance: KL(uniform || mean prediction of the global batch) ----
 *
 * 1. every rank: mdm_balance_sums; 2. the sums are added over ranks; 3. every rank: mdm_loss_balance, the
 * same value everywhere and the gradient of its own rows. */

/* probability [rows, C] = softmax; sum [C] = its sums over rows, written. */
void mdm_balance_sums(mdm_device *device, const float *logits, int64_t rows, int classes, float *probability,
                      double *sum);
/* `sum` over all ranks' `total` rows. *value (NULL: not wanted) is written; scale * its gradient is ADDED to
 * gradient [rows, C]; for lambda * the loss: scale = lambda / total. */
void mdm_loss_balance(mdm_device *device, const float *probability, int64_t rows, int classes,
                      const double *sum, double total, float scale, double *value, float *gradient);

/* ---- what a step comes to ---- */

/* What a step is told before it begins. */
typedef struct mdm_step_orders {
    double square_limit, loss_limit; /* of the gradient's squared norm, of the loss: beyond is a spike */
    float rate_encoder, rate_heads;  /* learning rates */
} mdm_step_orders;

enum { MDM_STEP_IS_SOUND, MDM_STEP_IS_NOT_FINITE, MDM_STEP_IS_SPIKE };
enum { MDM_MOST_TERMS = 6 };

/* All pointers are to the device's memory. */
typedef struct mdm_step_judgement {
    struct {
        const double *part;
        const float *factor; /* NULL: 1 */
        float weight;
    } terms[MDM_MOST_TERMS];
    int count;
    const double *square;          /* the gradient's squared norm */
    const mdm_step_orders *orders; /* limits */
    double *loss, *verdict;        /* written: sum of weight * factor * part; MDM_STEP_IS_... */
} mdm_step_judgement;
/* Not finite: loss or square; a spike: beyond a limit. */
void mdm_judge_step(mdm_device *device, const mdm_step_judgement *judgement);

/* ---- NT-Xent over the global batch (Chen et al. 2020, SimCLR) ---- */

/* unit = row / max(norm, 1e-12), norm [rows] kept for the way back; `unit` may be `row`. */
void mdm_unit_rows_forward(mdm_device *device, const float *row, int64_t rows, int width, float *unit,
                           float *norm);
/* gradient [rows, width] with respect to unit rows becomes (written) that with respect to the rows; `out` may
 * be `gradient`. */
void mdm_unit_rows_backward(mdm_device *device, const float *unit, const float *norm, const float *gradient,
                            int64_t rows, int width, float *out);

/* The part of this rank's anchors: both views of samples first..first+count-1 of `pairs` (count may be 0).
 * Similarities are in tiles of anchors, so memory is linear in the batch. Precision of the products:
 * MDM_FP32, or MDM_TF32 on CUDA. */
typedef struct mdm_nt_xent_shape {
    int64_t pairs, first, count;
    int width;
    float temperature;
    mdm_precision precision;
} mdm_nt_xent_shape;
typedef struct mdm_nt_xent_loss mdm_nt_xent_loss;
MDM_MUST_CHECK mdm_status mdm_nt_xent_create(mdm_device *device, const mdm_nt_xent_shape *shape,
                                             mdm_nt_xent_loss **loss);
void mdm_nt_xent_destroy(mdm_nt_xent_loss *loss);
/* unit [2 * pairs, width]: unit rows of the whole global batch, first views, then second views in the same
 * order. value [2 * count] (written): -log softmax at the positive of every anchor, first views' first; over
 * 2 * pairs and summed over ranks, the loss. gradient [2 * pairs, width] (written): scale times the gradient
 * with respect to ALL unit rows; summed over ranks that of the loss with scale = lambda / (2 * pairs). */
MDM_MUST_CHECK mdm_status mdm_nt_xent_run(mdm_nt_xent_loss *loss, const float *unit, float scale,
                                          double *value, float *gradient);

#endif
