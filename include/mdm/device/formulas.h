/* Formulas per channel and per weight that every backend computes with, usable from C and from CUDA. */
#ifndef MDM_DEVICE_FORMULAS_H
#define MDM_DEVICE_FORMULAS_H

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

MDM_BOTH float mdm_mix_of(float share, float a, float b) {
    return share * a + (1.0f - share) * b;
}

MDM_BOTH void mdm_average_of(float *average, float value, float decay) {
    *average += (1.0f - decay) * (value - *average);
}

#endif
