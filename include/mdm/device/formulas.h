/* Formulas per channel, weight, probability that every backend computes with, usable from C and from CUDA. */
#ifndef MDM_DEVICE_FORMULAS_H
#define MDM_DEVICE_FORMULAS_H

#include "mdm/device/losses.h"
#include <float.h>
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define MDM_BOTH static inline __host__ __device__
#else
#define MDM_BOTH static inline
#endif

/* PyTorch's defaults, the reference's. */
#define MDM_NORM_EPSILON  1e-5f
#define MDM_NORM_MOMENTUM 0.1f

MDM_BOTH float mdm_inverse_deviation(double variance) {
    return (float)(1.0 / sqrt(variance + MDM_NORM_EPSILON));
}

/* Mean and inverse deviation of `count` values; the running ones (NULL: left alone) follow. */
MDM_BOTH void mdm_norm_of_sums(double sum, double square_sum, double count, float *mean, float *inverse,
                               float *running_mean, float *running_variance) {
    double m = sum / count, v = square_sum / count - m * m;
    if (v < 0) v = 0;
    *mean = (float)m;
    *inverse = mdm_inverse_deviation(v);
    if (!running_mean) return;
    double unbiased = count > 1 ? v * count / (count - 1) : v;
    *running_mean += MDM_NORM_MOMENTUM * ((float)m - *running_mean);
    *running_variance += MDM_NORM_MOMENTUM * ((float)unbiased - *running_variance);
}

MDM_BOTH void mdm_norm_scale(float mean, float inverse, float gamma, float beta, float *scale, float *shift) {
    *scale = gamma * inverse;
    *shift = beta - mean * *scale;
}

MDM_BOTH void mdm_sgd_of(float *weight, float gradient, float *velocity, float rate, float momentum,
                         float weight_decay) {
    float v = momentum * *velocity + (gradient + weight_decay * *weight);
    *velocity = v;
    *weight -= rate * v;
}

MDM_BOTH void mdm_average_of(float *average, float value, float decay) {
    *average += (1.0f - decay) * (value - *average);
}

MDM_BOTH void mdm_judge(const mdm_step_judgement *j) {
    double loss = 0.0, square = *j->square;
    for (int i = 0; i < j->count; i++) {
        float weight = j->terms[i].factor ? j->terms[i].weight * *j->terms[i].factor : j->terms[i].weight;
        loss += (double)weight * *j->terms[i].part;
    }
    *j->loss = loss;
    *j->verdict = !isfinite(loss) || !isfinite(square)                               ? MDM_STEP_IS_NOT_FINITE
                  : square > j->orders->square_limit || loss > j->orders->loss_limit ? MDM_STEP_IS_SPIKE
                                                                                     : MDM_STEP_IS_SOUND;
}

/* ---- bfloat16 ---- */

typedef union mdm_float_bits {
    float value;
    uint32_t bits;
} mdm_float_bits;

/* bfloat16 is the upper half of a float; rounding to nearest even, NaN stays NaN. */
MDM_BOTH uint32_t mdm_bf16_of(float value) {
    mdm_float_bits u;
    u.value = value;
    if ((u.bits & 0x7fffffffu) > 0x7f800000u) return (u.bits >> 16) | 0x40u;
    return (u.bits + 0x7fffu + ((u.bits >> 16) & 1u)) >> 16;
}

MDM_BOTH float mdm_float_of_bf16(uint32_t half) {
    mdm_float_bits u;
    u.bits = half << 16;
    return u.value;
}

/* ---- losses: of one class of a row ---- */

#define MDM_TARGET_FLOOR      1e-4f /* log 0 of a target := log 1e-4 */
#define MDM_PROBABILITY_FLOOR 1e-7f /* clamp of a prediction in the reverse term */
#define MDM_NORM_FLOOR        1e-12f

MDM_BOTH float mdm_clamped_probability(float probability) {
    return probability < MDM_PROBABILITY_FLOOR ? MDM_PROBABILITY_FLOOR
           : probability > 1.0f                ? 1.0f
                                               : probability;
}

MDM_BOTH float mdm_log_target(float target) {
    return logf(target < MDM_TARGET_FLOOR ? MDM_TARGET_FLOOR : target > 1.0f ? 1.0f : target);
}

/* Before sharpening: `clean` is the probability of the given label. */
MDM_BOTH float mdm_refined_label(float clean, int is_label, float first, float second) {
    return clean * (float)is_label + (1.0f - clean) * 0.5f * (first + second);
}

/* The same for a guess from both views by one network, or by two (has_guesser). */
MDM_BOTH float mdm_guessed_label(int has_guesser, float first, float second, float third, float fourth) {
    return has_guesser ? 0.25f * (first + second + (third + fourth)) : 0.5f * (first + second);
}

/* dL/dp of the balance loss, factor = its scale / C. A class that underflowed everywhere would make it
 * infinite, and the gradient 0 * infinity. */
MDM_BOTH double mdm_balance_mean(double mean) {
    return mean > (double)FLT_MIN ? mean : (double)FLT_MIN;
}

MDM_BOTH float mdm_balance_slope(double mean, float factor) {
    return (float)(-(double)factor / mdm_balance_mean(mean));
}

#endif
