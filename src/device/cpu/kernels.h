/* The CPU's own kernels, compiled once per instruction set (kernels.c) and chosen at start-up. */
#ifndef MDM_DEVICE_CPU_KERNELS_H
#define MDM_DEVICE_CPU_KERNELS_H

#include "mdm/device/device.h"

/* Tensors are [n][channel_blocks][pixels][block], or [n][pixels][channel_blocks][block]. `partial` has n *
 * channel_blocks * block * 2 doubles. */
typedef struct mdm_kernel_shape {
    int n, channel_blocks, pixels, bf16;
    int channels_last; /* the second of these layouts */
    int linear;        /* norm without ReLU */
    int height, width; /* of max pooling's input */
} mdm_kernel_shape;

typedef struct mdm_kernels {
    const char *instructions;
    int block;
    void (*statistics)(const mdm_kernel_shape *shape, void *x, const void *residual, double *partial,
                       double *sum, double *square_sum);
    void (*relu_forward)(const mdm_kernel_shape *shape, const void *x, const void *residual,
                         const float *scale, const float *shift, void *y);
    void (*relu_backward_sums)(const mdm_kernel_shape *shape, const void *gradient, const void *other,
                               const void *x, const float *scale, const float *shift, const float *mean,
                               const float *inverse_deviation, double *partial, double *sum,
                               double *product_sum);
    void (*relu_backward_input)(const mdm_kernel_shape *shape, void *gradient, const void *other,
                                const void *x, const float *scale, const float *shift, const float *mean,
                                const float *inverse_deviation, const float *mean_gradient,
                                const float *mean_product);
    void (*add_relu_forward)(const mdm_kernel_shape *shape, const void *a, const void *b, void *y);
    void (*add_relu_backward)(const mdm_kernel_shape *shape, void *gradient, const void *other, const void *y,
                              void *copy);
    void (*max_pool_forward)(const mdm_kernel_shape *shape, const void *x, void *y);
    void (*max_pool_backward)(const mdm_kernel_shape *shape, const void *gradient, const void *other,
                              const void *x, const void *y, void *x_gradient);
    void (*pool_forward)(const mdm_kernel_shape *shape, const void *x, const void *residual, int channels,
                         float *embedding);
    void (*pool_backward)(const mdm_kernel_shape *shape, const float *embedding_gradient, int channels,
                          void *gradient);
    void (*sgd)(float *weights, const float *gradient, float *velocity, int64_t count, float rate,
                float momentum, float weight_decay);
} mdm_kernels;

extern const mdm_kernels mdm_kernels_baseline;
#ifdef MDM_X86
extern const mdm_kernels mdm_kernels_avx2;
extern const mdm_kernels mdm_kernels_avx512;
#endif

#endif
