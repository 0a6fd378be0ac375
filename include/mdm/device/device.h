/* The operations of a network, behind one header: what the model room computes with.
 *
 * Two backends: the CPU, and CUDA devices, whose memory is their own. Every pointer that an operation on a
 * device takes is to the memory of that device (mdm_device_allocate) unless it says "host"; on the CPU both
 * are the same. A tensor is a [N,C,H,W] array in the device's own layout (on the CPU: channels in blocks of 8
 * or 16, [N,C/b,H,W,b], or with AMX and in bfloat16 [N,H,W,C]; on CUDA: [N,H,W,C], C in blocks of 8; the
 * lanes beyond C kept zero) in single precision or bfloat16; only its size in bytes is known outside.
 * Per-channel arrays are [C rounded up to the block] with zeros behind C. Images are float [N,C,H,W].
 * Everything is planned by the *_create functions; the others neither allocate nor compile. Operations on
 * CUDA are queued, in order; what goes wrong in one that returns nothing is told by the next that returns a
 * status, at the latest by mdm_device_download.
 */
#ifndef MDM_DEVICE_DEVICE_H
#define MDM_DEVICE_DEVICE_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mdm_device mdm_device;
/* TF32 (CUDA only): stored as single precision, products of convolutions rounded to 10 bits of fraction.
 * FP16 is for factors of products (products.h) alone. */
typedef enum mdm_precision { MDM_FP32, MDM_BF16, MDM_TF32, MDM_FP16 } mdm_precision;

const char *mdm_precision_name(mdm_precision precision); /* "fp32", ... */

typedef struct mdm_device_info {
    char name[128];   /* processor or graphics processor as the system names it */
    char library[64]; /* "oneDNN 2.6.3", "cuDNN 9.19.0, CUDA 13.0" */
    char instructions[32];
    int threads;          /* worker threads of this rank */
    int channel_block;    /* channels per block of the tensor layout */
    int channel_multiple; /* of which tensors have a multiple; the same on all CPUs, as ranks exchange sums of
                             it */
    int has_bf16;         /* bfloat16 arithmetic in hardware */
    int has_tf32;         /* MDM_TF32 is understood */
    int is_cuda;          /* memory of its own: host memory must be uploaded and downloaded */
    size_t memory_bytes;  /* CUDA: memory of the device; 0 on the CPU */
} mdm_device_info;

/* The CPU with `threads` worker threads (>= 1). `winograd` allows the faster convolution algorithm whose
 * rounding error is larger: in single precision some ten times (about 1e-5 relative), in bfloat16 up to
 * twice (0.0048); 0 forces direct convolutions. */
MDM_MUST_CHECK mdm_status mdm_device_create_cpu(int threads, int winograd, mdm_device **device);
/* CUDA device `number` (0 is the first that CUDA_VISIBLE_DEVICES leaves). MDM_RESOURCE, saying what is
 * missing, where the build, the libraries, the driver or the device are not there; such a message names no
 * remedy of settings, which the caller knows. `threads` (>= 1) are for what stays on the CPU. */
MDM_MUST_CHECK mdm_status mdm_device_create_cuda(int number, int threads, mdm_device **device);
/* Number of usable CUDA devices, 0 when there are none; `why` (may be NULL) then says why. *is_unusable (may
 * be NULL): there is a driver, but it is too old or does not work, which nobody wants to happen in silence.
 */
int mdm_device_count_cuda(char *why, size_t why_size, int *is_unusable);
/* What tells a device apart from the others of its host, the same in all processes. */
enum { MDM_DEVICE_IDENTITY = 16 };
MDM_MUST_CHECK mdm_status mdm_device_identify_cuda(int number, unsigned char identity[MDM_DEVICE_IDENTITY]);
/* A device for one of this CPU device's threads, to be used inside a parallel region: what it computes does
 * not depend on how many threads there are. Convolutions for it are made outside such a region. MDM_USAGE on
 * CUDA, whose sums have no fixed order. */
MDM_MUST_CHECK mdm_status mdm_device_create_worker(mdm_device *device, mdm_device **worker);
void mdm_device_destroy(mdm_device *device);
const mdm_device_info *mdm_device_get_info(const mdm_device *device);

/* ---- memory of the device ---- */

/* Zeroed memory, or MDM_RESOURCE naming `what`. Released by mdm_device_free. */
MDM_MUST_CHECK mdm_status mdm_device_allocate(mdm_device *device, size_t bytes, const char *what,
                                              void **memory);
void mdm_device_free(mdm_device *device, void *memory);
/* From host memory, which may be changed again on return; nothing is done where both are the same. */
MDM_MUST_CHECK mdm_status mdm_device_upload(mdm_device *device, void *memory, const void *host, size_t bytes);
/* To host memory; waits for all that was queued, and tells what went wrong in it. */
MDM_MUST_CHECK mdm_status mdm_device_download(mdm_device *device, void *host, const void *memory,
                                              size_t bytes);
void mdm_device_zero(mdm_device *device, void *memory, size_t bytes);
/* Within the device's memory; the two do not overlap. */
void mdm_device_copy(mdm_device *device, void *to, const void *from, size_t bytes);

/* To be called when a set of operations has been planned (the *_create functions): what was measured for it
 * is then kept on disk for the next start, as docs/gpu.md says. Cannot fail; does nothing on the CPU. */
void mdm_device_keep_plans(mdm_device *device);

/* Bytes of a tensor, and channels rounded up to channel_multiple. */
size_t mdm_tensor_bytes(const mdm_device *device, int n, int channels, int height, int width,
                        mdm_precision precision);
int mdm_padded_channels(const mdm_device *device, int channels);
/* Between plain float [N,C,H,W] in host memory and the device's layout, for tests and inspection. */
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
    int rows_alone;     /* a picture's results must not depend, in any bit, on the pictures beside it */
    int gradient_only;  /* only backward_weights is called, and it alone; no weights are taken over */
    int is_served;      /* CUDA: its weights are mdm_filters' (filters.h); none are taken over */
    int backward_batch; /* CUDA: gradients are of so many pictures; 0: of all */
} mdm_convolution_shape;

/* Weights live as float [out,in,k,k] in the device's memory with the caller; each convolution keeps copies in
 * the layouts its algorithms want. */
MDM_MUST_CHECK mdm_status mdm_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                                 mdm_convolution **convolution);
void mdm_convolution_destroy(mdm_convolution *convolution);
/* Takes over new weights. */
MDM_MUST_CHECK mdm_status mdm_convolution_set_weights(mdm_convolution *convolution, const float *weights);
MDM_MUST_CHECK mdm_status mdm_convolution_forward(mdm_convolution *convolution, const void *input,
                                                  void *output);
MDM_MUST_CHECK mdm_status mdm_convolution_backward_data(mdm_convolution *convolution,
                                                        const void *output_gradient, void *input_gradient);
/* gradient [out,in,k,k] float; `accumulate` adds to it. `input` as in forward. Of a convolution that is
 * served it is left in the filters' layout, for mdm_filters_take_gradient. */
MDM_MUST_CHECK mdm_status mdm_convolution_backward_weights(mdm_convolution *convolution, const void *input,
                                                           const void *output_gradient, float *gradient,
                                                           int accumulate);

/* ---- batch normalisation with ReLU, in pieces, so that statistics can be summed over ranks in between ----
 *
 * The pictures may be several sets of as many, each with statistics of its own, one behind the other: then
 * all values per channel below are [sets][C padded], but for weights, their gradients and running statistics.
 */
enum { MDM_NORM_SETS = 3 /* at most */ };
typedef struct mdm_norm_shape {
    int n, channels, pixels; /* n of all sets; pixels = H * W */
    mdm_precision precision;
    int linear; /* 1: no ReLU behind the norm; the functions below then leave it out everywhere */
    int sets;   /* 0 as 1 */
} mdm_norm_shape;
static inline int mdm_norm_sets(const mdm_norm_shape *shape) {
    return shape->sets > 1 ? shape->sets : 1;
}

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

/* What is between the pieces, per channel of `sets` sets (1: the values need not be padded). Mean and
 * 1 / sqrt(variance + 1e-5) of a set's `count` values from their sums, then scale = gamma * inverse deviation
 * and shift = beta - mean * scale. The running statistics (NULL: left alone) are moved a tenth of the way to
 * the first set's, the variance unbiased, as PyTorch does. gamma, beta and running [channels]; the rest is
 * padded. */
typedef struct mdm_norm_values {
    float *mean, *inverse_deviation, *scale, *shift;
} mdm_norm_values;
void mdm_norm_from_sums(mdm_device *device, int channels, int sets, const double *sum,
                        const double *square_sum, double count, const float *gamma, const float *beta,
                        float *running_mean, float *running_variance, const mdm_norm_values *values);
void mdm_norm_from_running(mdm_device *device, int channels, const float *running_mean,
                           const float *running_variance, const float *gamma, const float *beta,
                           const mdm_norm_values *values);
/* beta_gradient = sum, gamma_gradient = product_sum of all sets, [channels]; `accumulate` adds. */
void mdm_norm_gradients(mdm_device *device, int channels, int sets, const double *sum,
                        const double *product_sum, int accumulate, float *gamma_gradient,
                        float *beta_gradient);
/* Of `values` channels of all sets: mean_gradient = sum / count, mean_product = product_sum / count; zeros
 * for count 0. */
void mdm_norm_means(mdm_device *device, int values, const double *sum, const double *product_sum,
                    double count, float *mean_gradient, float *mean_product);

/* The same where no other rank's sums come in between, in fewer steps where the device has a way:
 * mdm_norm_statistics with mdm_norm_from_sums behind it; mdm_norm_relu_backward_sums with mdm_norm_gradients
 * and mdm_norm_means. The sums are there too. */
typedef struct mdm_norm_forward_rest {
    double count; /* of a set's values */
    const float *gamma, *beta;
    float *running_mean, *running_variance;
    const mdm_norm_values *values;
} mdm_norm_forward_rest;
void mdm_norm_statistics_then(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                              double *sum, double *square_sum, const mdm_norm_forward_rest *rest);
typedef struct mdm_norm_backward_rest {
    float *gamma_gradient, *beta_gradient;
    int accumulate;
    double count;
    float *mean_gradient, *mean_product;
} mdm_norm_backward_rest;
void mdm_norm_relu_backward_sums_then(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                      const void *other, const void *x, const mdm_norm_values *values,
                                      double *sum, double *product_sum, const mdm_norm_backward_rest *rest);

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

/* ---- a dense product of plain float matrices in host memory, row-major (on device pointers: products.h):
 * c [m,n] = a [m,k] * b^T + beta * c with b [n,k] ---- */
void mdm_product_nt(int m, int n, int k, const float *a, const float *b, float beta, float *c);

/* Momentum SGD (PyTorch's form): v = momentum * v + g + weight_decay * w; w -= rate * v. *rate and *verdict
 * are in the device's memory, and may change between replays of a recorded step: nothing is changed where the
 * verdict is not MDM_STEP_IS_SOUND (mdm_judge_step in losses.h). */
void mdm_sgd_step(mdm_device *device, float *weights, const float *gradient, float *velocity, int64_t count,
                  const float *rate, float momentum, float weight_decay, const double *verdict);
/* *sum = the sum of squares of `count` values in double, in an order that depends on the count alone. */
void mdm_sum_squares(mdm_device *device, const float *values, int64_t count, double *sum);
/* average += (1 - decay) * (values - average). */
void mdm_average_step(mdm_device *device, float *average, const float *values, int64_t count, float decay);

#endif
