/* Losses on plain arrays in host memory: values and gradients with respect to the logits or projections.
 * losses.h computes the same on a device.
 *
 * Every loss is a pair of functions. The forward one gives per-sample values or a sum in double, the backward
 * one ADDS to the gradient, so that several losses meet in one array that the caller zeroed. Means are the
 * caller's: `scale` is the weight of one sample in the scalar loss (for a mean over a global batch of B
 * samples weighted by lambda: lambda / B), so that sums over ranks are the global loss. Arrays are row-major:
 * logits, probabilities and targets [rows, classes]. Nothing allocates, fails or is collective.
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

/* ---- consistency: mask[i] * mean over classes of (softmax - target)^2 ---- */

/* Returns the sum over rows (mask NULL: ones); times 1 / B it is the mean. */
double mdm_consistency_forward(const float *logits, const float *target, const float *mask, int64_t rows,
                               int classes);
void mdm_consistency_backward(const float *logits, const float *target, const float *mask, int64_t rows,
                              int classes, float scale, float *gradient);

/* ---- balance: KL(uniform || mean prediction of the global batch) ---- */

/* From the sum of `total` predictions [classes]. */
double mdm_balance_value(const double *sum, double total, int classes);

/* ---- rows of unit length, of which contrast is made (Chen et al. 2020, SimCLR) ---- */

/* unit = row / max(norm, 1e-12), the norm of each row kept for the way back. [rows, width]; `unit` may be
 * `row`. */
void mdm_normalize_forward(const float *row, int64_t rows, int width, float *unit, float *norm /* [rows] */);
/* gradient [rows, width] with respect to unit rows becomes (written, not added) that with respect to the
 * rows; `out` may be `gradient`. */
void mdm_normalize_backward(const float *unit, const float *norm, const float *gradient, int64_t rows,
                            int width, float *out);

#endif
