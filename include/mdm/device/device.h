/* The operations of a network, behind one header: what the model room computes with.
 *
 * A tensor is a [N,C,H,W] array in the device's own layout (on the CPU: channels in blocks of 8 or 16,
 * [N,C/b,H,W,b], the lanes beyond C kept zero) in single precision or bfloat16; only its size in bytes is
 * known outside. Per-channel arrays are float [C rounded up to the block] with zeros behind C. Images are
 * float [N,C,H,W]. Everything is planned by the *_create functions; the others neither allocate nor compile.
 */
#ifndef MDM_DEVICE_DEVICE_H
#define MDM_DEVICE_DEVICE_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mdm_device mdm_device;
typedef enum mdm_precision { MDM_FP32, MDM_BF16 } mdm_precision;

typedef struct mdm_device_info {
    char name[128];   /* processor as the system names it */
    char library[64]; /* "oneDNN 2.6.3" */
    char instructions[32];
    int threads;       /* worker threads of this rank */
    int channel_block; /* channels per block of the tensor layout */
    int has_bf16;      /* bfloat16 arithmetic in hardware */
} mdm_device_info;

/* The CPU with `threads` worker threads (>= 1). `winograd` allows the faster convolution algorithm whose
 * rounding error is some ten times larger (about 1e-5 relative); 0 forces direct convolutions. */
MDM_MUST_CHECK mdm_status mdm_device_create_cpu(int threads, int winograd, mdm_device **device);
void mdm_device_destroy(mdm_device *device);
const mdm_device_info *mdm_device_get_info(const mdm_device *device);

/* Bytes of a tensor, and channels rounded up to the block. */
size_t mdm_tensor_bytes(const mdm_device *device, int n, int channels, int height, int width,
                        mdm_precision precision);
int mdm_padded_channels(const mdm_device *device, int channels);
/* Between plain float [N,C,H,W] and the device's layout, for tests and inspection. */
MDM_MUST_CHECK mdm_status mdm_tensor_import(mdm_device *device, const float *plain, int n, int channels,
                                            int height, int width, mdm_precision precision, void *tensor);
MDM_MUST_CHECK mdm_status mdm_tensor_export(mdm_device *device, const void *tensor, int n, int channels,
                                            int height, int width, mdm_precision precision, float *plain);

/* ---- convolution without bias, square kernel, padding kernel / 2 ---- */
typedef struct mdm_convolution mdm_convolution;
typedef struct mdm_convolution_shape {
    int batch, in_channels, out_channels, height, width; /* of the input */
    int kernel, stride;
    mdm_precision precision;
    int from_image;    /* the input is a float image [N,C,H,W]; no gradient with respect to it is made */
    int add_to_output; /* forward adds to what the output holds (residual sum) */
    int forward_only;
} mdm_convolution_shape;

/* Weights live as float [out,in,k,k] with the caller; each convolution keeps copies in the layouts its
 * algorithms want. */
MDM_MUST_CHECK mdm_status mdm_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                                 mdm_convolution **convolution);
void mdm_convolution_destroy(mdm_convolution *convolution);
/* Takes over new weights. */
MDM_MUST_CHECK mdm_status mdm_convolution_set_weights(mdm_convolution *convolution, const float *weights);
MDM_MUST_CHECK mdm_status mdm_convolution_forward(mdm_convolution *convolution, const void *input,
                                                  void *output);
MDM_MUST_CHECK mdm_status mdm_convolution_backward_data(mdm_convolution *convolution,
                                                        const void *output_gradient, void *input_gradient);
/* gradient [out,in,k,k] float; `accumulate` adds to it. `input` as in forward. */
MDM_MUST_CHECK mdm_status mdm_convolution_backward_weights(mdm_convolution *convolution, const void *input,
                                                           const void *output_gradient, float *gradient,
                                                           int accumulate);

/* ---- batch normalisation with ReLU, in pieces, so that statistics can be summed over ranks in between ----
 */
typedef struct mdm_norm_shape {
    int n, channels, pixels; /* pixels = H * W */
    mdm_precision precision;
    int linear; /* 1: no ReLU behind the norm; the functions below then leave it out everywhere */
} mdm_norm_shape;

/* Makes room for the partial sums of such a tensor; to be called while planning, before the functions below.
 */
MDM_MUST_CHECK mdm_status mdm_device_reserve_norm(mdm_device *device, const mdm_norm_shape *shape);
/* Per channel sums over N and pixels: sum, square_sum [C padded]. With `residual` (same shape, may be NULL) x
 * += residual first, in place. Variances are accumulated around each picture's mean, so large means cost no
 * precision. */
void mdm_norm_statistics(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                         double *sum, double *square_sum);
/* y = max(0, (x + residual) * scale + shift); scale, shift per channel; residual may be NULL. */
void mdm_norm_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x,
                           const void *residual, const float *scale, const float *shift, void *y);
/* The gradient dz behind the ReLU is that of the output, gradient + other (other may be NULL), where x *
 * scale + shift > 0. Sums per channel: sum of dz, sum of dz * (x - mean) * inverse_deviation. */
void mdm_norm_relu_backward_sums(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                 const void *other, const void *x, const float *scale, const float *shift,
                                 const float *mean, const float *inverse_deviation, double *sum,
                                 double *product_sum);
/* In place: gradient = scale * (dz - mean_gradient - (x - mean) * inverse_deviation * mean_product). */
void mdm_norm_relu_backward_input(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                                  const void *other, const void *x, const float *scale, const float *shift,
                                  const float *mean, const float *inverse_deviation,
                                  const float *mean_gradient, const float *mean_product);

/* y = max(0, a + b); y may be a. */
void mdm_add_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *a, const void *b,
                          void *y);
/* gradient = copy = gradient + other (other may be NULL, or the same as copy) where y > 0, else 0. */
void mdm_add_relu_backward(mdm_device *device, const mdm_norm_shape *shape, void *gradient, const void *other,
                           const void *y, void *copy);

/* ---- max pooling 3x3, stride 2, padding 1, as behind the ImageNet stem ---- */
typedef struct mdm_max_pool_shape {
    int n, channels, height, width; /* of the input; the output is (height + 1) / 2 x (width + 1) / 2 */
    mdm_precision precision;
} mdm_max_pool_shape;
void mdm_max_pool_forward(mdm_device *device, const mdm_max_pool_shape *shape, const void *x, void *y);
/* x_gradient is written: what gradient + other (other may be NULL) says of each output goes to its greatest
 * input, the first in row order where several are equal. */
void mdm_max_pool_backward(mdm_device *device, const mdm_max_pool_shape *shape, const void *gradient,
                           const void *other, const void *x, const void *y, void *x_gradient);

/* embedding [N,C] float = mean over pixels of x + residual (residual may be NULL). */
void mdm_pool_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x, const void *residual,
                      float *embedding);
void mdm_pool_backward(mdm_device *device, const mdm_norm_shape *shape, const float *embedding_gradient,
                       void *gradient);

/* ---- dense products on plain float matrices, row-major ---- */
/* c [m,n] = a [m,k] * b^T + beta * c with b [n,k]. */
void mdm_product_nt(int m, int n, int k, const float *a, const float *b, float beta, float *c);
/* c [m,n] = a [m,k] * b + beta * c with b [k,n]. */
void mdm_product_nn(int m, int n, int k, const float *a, const float *b, float beta, float *c);
/* c [m,n] = a^T * b + beta * c with a [k,m], b [k,n]. */
void mdm_product_tn(int m, int n, int k, const float *a, const float *b, float beta, float *c);

/* Momentum SGD (PyTorch's form): v = momentum * v + g + weight_decay * w; w -= rate * v. */
void mdm_sgd_step(mdm_device *device, float *weights, const float *gradient, float *velocity, int64_t count,
                  float rate, float momentum, float weight_decay);

#endif
