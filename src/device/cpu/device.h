/* Inside of the CPU device, shared by device.c and the convolutions. */
#ifndef MDM_DEVICE_CPU_DEVICE_H
#define MDM_DEVICE_CPU_DEVICE_H

#include "kernels.h"
#include "onednn.h"
#include "operations.h"

typedef struct mdm_cpu_device {
    mdm_device common;
    const mdm_kernels *kernels;
    int winograd;
    int has_amx; /* tensors in bfloat16 are [N,H,W,C] then, which oneDNN's convolutions for AMX want */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    void *scratch; /* shared by all primitives: they run one after another */
    size_t scratch_bytes;
    double *partial; /* sums of each picture and channel block */
    size_t partial_doubles;
} mdm_cpu_device;

MDM_MUST_CHECK mdm_status mdm_onednn_start(mdm_cpu_device *device);
void mdm_onednn_stop(mdm_cpu_device *device);

/* Whether tensors are [N,H,W,C] instead of blocked. */
int mdm_cpu_channels_last(const mdm_device *device, mdm_precision precision);

/* Makes the shared scratch memory at least so large; called where primitives are made. */
MDM_MUST_CHECK mdm_status mdm_cpu_reserve_scratch(mdm_cpu_device *device, size_t bytes);

/* heads.c: what stands behind the encoder. */
extern const mdm_head_operations mdm_cpu_head_operations;
/* losses_host.c: one anchor's similarities [all] become softmax minus the positive's one-hot; returns the
 * anchor's loss. */
float mdm_contrast_row(float *similarity, int64_t all, int64_t self, int64_t positive);

/* convolution.c: the operations' entries. */
mdm_status mdm_cpu_tensor_import(mdm_device *device, const float *plain, int n, int channels, int height,
                                 int width, mdm_precision precision, void *tensor);
mdm_status mdm_cpu_tensor_export(mdm_device *device, const void *tensor, int n, int channels, int height,
                                 int width, mdm_precision precision, float *plain);
mdm_status mdm_cpu_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                      mdm_convolution **convolution);
/* oneDNN's convolution, with the gradients that are asked for. */
MDM_MUST_CHECK mdm_status mdm_direct_convolution_create(mdm_device *device,
                                                        const mdm_convolution_shape *shape, int data_gradient,
                                                        int weight_gradient, mdm_convolution **convolution);
void mdm_cpu_convolution_destroy(mdm_convolution *convolution);
mdm_status mdm_cpu_convolution_set_weights(mdm_convolution *convolution, const float *weights);
mdm_status mdm_cpu_convolution_forward(mdm_convolution *convolution, const void *input, void *output);
mdm_status mdm_cpu_convolution_backward_data(mdm_convolution *convolution, const void *output_gradient,
                                             void *input_gradient);
mdm_status mdm_cpu_convolution_backward_weights(mdm_convolution *convolution, const void *input,
                                                const void *output_gradient, float *gradient, int accumulate);

/* What convolutions by own kernels, with operations of their own, begin with. */
typedef struct mdm_own_convolution {
    mdm_convolution common;
    mdm_cpu_device *device;
    mdm_convolution_shape shape;
    uint16_t *forward_weights, *backward_weights; /* as the kernels read them; NULL where they do not serve */
} mdm_own_convolution;
/* Of `bytes` in all; `prepare` makes the rest, and what it leaves half made the operations destroy. */
MDM_MUST_CHECK mdm_status mdm_own_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                                     const mdm_device_operations *operations, size_t bytes,
                                                     mdm_status (*prepare)(mdm_own_convolution *convolution),
                                                     mdm_convolution **convolution);

/* convolution_winograd.c: by Winograd's algorithm, where it fits. */
int mdm_winograd_convolution_fits(const mdm_device *device, const mdm_convolution_shape *shape);
MDM_MUST_CHECK mdm_status mdm_winograd_convolution_create(mdm_device *device,
                                                          const mdm_convolution_shape *shape,
                                                          mdm_convolution **convolution);

/* convolution_tiles.c: by products of tiles. */
int mdm_tile_convolution_fits(const mdm_device *device, const mdm_convolution_shape *shape);
MDM_MUST_CHECK mdm_status mdm_tile_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                                      mdm_convolution **convolution);

#endif
