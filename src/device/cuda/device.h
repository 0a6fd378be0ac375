/* Inside of the CUDA device, shared by device.c, convolution.c and heads.c of this folder. */
#ifndef MDM_DEVICE_CUDA_DEVICE_H
#define MDM_DEVICE_CUDA_DEVICE_H

#include "gpu.h"
#include "mdm/device/beside.h"
#include "mdm/device/filters.h"
#include "nccl.h"

typedef struct mdm_cuda_device {
    mdm_device common;
    mdm_gpu *gpu;
    int number;
    mdm_nccl *nccl;         /* NULL: the device has not joined the other ranks' */
    const mdm_comm *joined; /* the ranks it has joined */
    double *partial;        /* of sums */
    size_t partial_doubles;
    double *squares; /* [MDM_GPU_SQUARES] */
    /* shared by all convolutions: those of one pass run one after another, and gradients of filters too,
     * which lie as the filters of a network do where these serve */
    void *image, *filter_gradient, *sum;
    size_t image_bytes, filter_gradient_bytes, sum_bytes;
    struct { /* beside.c */
        int is_on, is_read[MDM_BESIDE_PLACES];
        mdm_gpu_mark *begun, *ended[MDM_BESIDE_PLACES];
        mdm_gpu_mark *latest; /* of `ended`; NULL: computing has followed it */
    } beside;
} mdm_cuda_device;

static inline mdm_cuda_device *mdm_cuda(mdm_device *device) {
    return (mdm_cuda_device *)device;
}

/* Blocks for so many threads. */
static inline uint32_t mdm_blocks_for(size_t threads) {
    return (uint32_t)((threads + MDM_GPU_THREADS - 1) / MDM_GPU_THREADS);
}

/* Channels in whole blocks. */
static inline uint32_t mdm_blocks_of_lanes(int channels) {
    return (uint32_t)(channels + MDM_GPU_LANES - 1) / MDM_GPU_LANES * MDM_GPU_LANES;
}

/* Grows one of the device's buffers. */
MDM_MUST_CHECK mdm_status mdm_cuda_reserve(mdm_cuda_device *device, void **memory, size_t *have, size_t want,
                                           const char *what);

/* beside.c: whether gradients of weights go there from now on. */
void mdm_cuda_turn_beside(mdm_cuda_device *device, int is_on);

/* device.c: what a launch makes of sums, as far as it does not depend on how they lie: their sets. */
mdm_channel_arguments mdm_cuda_norm_values(int channels, const double *sum, const double *square_sum,
                                           const mdm_norm_forward_rest *rest);
mdm_channel_arguments mdm_cuda_norm_gradients(int channels, const double *sum, const double *product_sum,
                                              const mdm_norm_backward_rest *rest);

/* heads.c */
extern const mdm_head_operations mdm_cuda_head_operations;

mdm_status mdm_cuda_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                       mdm_convolution **convolution);
void mdm_cuda_convolution_destroy(mdm_convolution *convolution);
mdm_status mdm_cuda_convolution_set_weights(mdm_convolution *convolution, const float *weights);
/* For filters.c: `filter`, which stays its owner's, is of this shape and precision; where its gradient is to
 * be in the device's room, in bytes. */
MDM_MUST_CHECK mdm_status mdm_cuda_convolution_take(mdm_convolution *convolution,
                                                    const mdm_filter_shape *shape, mdm_precision precision,
                                                    void *filter, size_t gradient_place);
mdm_status mdm_cuda_convolution_forward(mdm_convolution *convolution, const void *input, void *output);
mdm_status mdm_cuda_convolution_backward_data(mdm_convolution *convolution, const void *output_gradient,
                                              void *input_gradient);
mdm_status mdm_cuda_convolution_backward_weights(mdm_convolution *convolution, const void *input,
                                                 const void *output_gradient, float *gradient,
                                                 int accumulate);

#endif
