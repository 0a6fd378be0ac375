/* Losses on plain arrays in host memory: values and gradients with respect to the logits or projections.
 * losses.h computes the same on a device.
 *
 * Every loss is a pair of functions. The forward one gives per-sample values or a sum in double, the backward
 * one ADDS to the gradient, so that several losses meet in one array that the caller zeroed. Means are the
 * caller's: `scale` is the weight of one sample in the scalar loss (for a mean over a global batch of B
 * samples weighted by lambda: lambda / B), so that sums over ranks are the global loss. Arrays are row-major:
 * logits, probabilities and targets [rows, classes]. Nothing allocates, fails or is collective; sums over
 * ranks are between the calls.
 */
#ifndef MDM_DEVICE_LOSSES_HOST_H
#define MDM_DEVICE_LOSSES_HOST_H

#include <stdint.h>

/* ---- probabilities ---- */

/* probability = softmax of each row of logits; may be the same array. */
void mdm_softmax(const float *logits, int64_t rows, int classes, float *probability);

/* sharpened = p^(1/temperature), each row scaled to sum 1 (Berthelot et al. 2019, MixMatch, eq. 7); may be
 * the same array. */
void mdm_sharpen(const float *probability, int64_t rows, int classes, float temperature, float *sharpened);

/* ---- cross entropy and symmetric cross entropy (Wang et al. 2019, arXiv 1908.06112) ----
 *
 * loss = ce_weight * CE + rce_weight * RCE with RCE = -sum p log t, where log 0 of a target is log 1e-4, and
 * p is clamped at 1e-7 from below (no gradient passes there). `sample_weight` [rows] may be NULL for ones; a
 * sample of weight 0 gets exactly no gradient. Labels are in 0..classes-1. */

/* loss[i] = -log softmax(logits_i)[label_i]. */
void mdm_cross_entropy(const float *logits, const int32_t *label, int64_t rows, int classes, float *loss);

void mdm_sce_hard_forward(const float *logits, const int32_t *label, int64_t rows, int classes,
                          float ce_weight, float rce_weight, float *loss /* [rows] */);
void mdm_sce_hard_backward(const float *logits, const int32_t *label, const float *sample_weight,
                           int64_t rows, int classes, float ce_weight, float rce_weight, float scale,
                           float *gradient);

/* Soft targets [rows, classes], constants for the gradient. */
void mdm_sce_soft_forward(const float *logits, const float *target, int64_t rows, int classes,
                          float ce_weight, float rce_weight, float *loss /* [rows] */);
void mdm_sce_soft_backward(const float *logits, const float *target, const float *sample_weight, int64_t rows,
                           int classes, float ce_weight, float rce_weight, float scale, float *gradient);

/* The sum of sample_weight[i] * loss[i] (weights NULL: ones). */
double mdm_weighted_sum(const float *loss, const float *sample_weight, int64_t rows);

/* ---- consistency: mask[i] * mean over classes of (softmax - target)^2 ---- */

/* Returns the sum over rows (mask NULL: ones); times 1 / B it is the mean. */
double mdm_consistency_forward(const float *logits, const float *target, const float *mask, int64_t rows,
                               int classes);
void mdm_consistency_backward(const float *logits, const float *target, const float *mask, int64_t rows,
                              int classes, float scale, float *gradient);

/* ---- balance: KL(uniform || mean prediction of the global batch) ----
 *
 * 1. every rank: mdm_balance_sum over its rows; 2. all-reduce and divide by the global row count: `mean`
 * [classes];
 * 3. every rank: the same value, and the gradient of its own rows. */

/* ADDS the softmax of every row to sum [classes]. */
void mdm_balance_sum(const float *logits, int64_t rows, int classes, double *sum);
double mdm_balance_value(const double *mean, int classes);
/* scale = lambda / B with B the global row count. */
void mdm_balance_backward(const float *logits, const double *mean, int64_t rows, int classes, float scale,
                          float *gradient);

/* ---- NT-Xent over the global batch (Chen et al. 2020, SimCLR) ---- */

/* unit = row / max(norm, 1e-12), the norm of each row kept for the way back. [rows, width]; `unit` may be
 * `row`. */
void mdm_normalize_forward(const float *row, int64_t rows, int width, float *unit, float *norm /* [rows] */);
/* gradient [rows, width] with respect to unit rows becomes (written, not added) that with respect to the
 * rows; `out` may be `gradient`. */
void mdm_normalize_backward(const float *unit, const float *norm, const float *gradient, int64_t rows,
                            int width, float *out);

/* Floats of scratch memory for a global batch of `pairs` samples of which this rank has `count`. */
int64_t mdm_nt_xent_scratch_floats(int64_t pairs, int64_t count, int width);

/* The part of this rank's anchors. unit [2*pairs, width]: unit rows of the whole global batch, first views
 * 0..pairs-1, then second views in the same order; this rank's anchors are both views of samples
 * first..first+count-1. Returns the sum over the 2*count anchors of -log softmax at the positive (times 1 /
 * (2*pairs) and summed over ranks: the loss) and, unless `gradient` is NULL, ADDS scale times its gradient
 * with respect to ALL unit rows to gradient [2*pairs, width]; summed over ranks (reduce-scatter) that is the
 * gradient of the loss with scale = lambda / (2*pairs). Similarities are in tiles of anchors, so memory is
 * linear in the batch. */
double mdm_nt_xent(const float *unit, int64_t pairs, int64_t first, int64_t count, int width,
                   float temperature, float scale, float *gradient, float *scratch);

#endif
