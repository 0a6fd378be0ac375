/* The CPU device: what the processor can do, which kernels fit it, and the wrappers that make public
 * operations of them. */
#include "device.h"
#include "kernels.h"
#include "mdm/device/formulas.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNEL_MULTIPLE = 16 }; /* of every kernels' block */

static const mdm_kernels *choose_kernels(int *has_bf16) {
    *has_bf16 = 0;
#ifdef MDM_X86
    __builtin_cpu_init();
    *has_bf16 = __builtin_cpu_supports("avx512bf16") && mdm_onednn_uses(dnnl_cpu_isa_avx512_core_bf16);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        mdm_onednn_uses(dnnl_cpu_isa_avx512_core))
        return &mdm_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && mdm_onednn_uses(dnnl_cpu_isa_avx2))
        return &mdm_kernels_avx2;
#endif
    return &mdm_kernels_baseline;
}

static void read_processor_name(char *name, size_t size) {
    snprintf(name, size, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(name, size, "%.100s", colon + 2);
        break;
    }
    fclose(file);
}

static const mdm_device_operations operations;

static void destroy(mdm_device *public_device) {
    mdm_cpu_device *device = (mdm_cpu_device *)public_device;
    mdm_onednn_stop(device);
    free(device->scratch);
    free(device->partial);
    free(device);
}

static mdm_status create(int threads, int winograd, mdm_device **out) {
    mdm_cpu_device *device;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(device, 1, "the CPU device"));
    device->common.operations = &operations;
    device->winograd = winograd;
    device->kernels = choose_kernels(&device->common.info.has_bf16);
    device->common.info.threads = threads;
    device->common.info.channel_block = device->kernels->block;
    device->common.info.channel_multiple = CHANNEL_MULTIPLE;
    snprintf(device->common.info.instructions, sizeof device->common.info.instructions, "%s",
             device->kernels->instructions);
    read_processor_name(device->common.info.name, sizeof device->common.info.name);
    mdm_status status = mdm_onednn_start(device);
    if (status != MDM_OK) {
        destroy(&device->common);
        return status;
    }
    *out = &device->common;
    return MDM_OK;
}

mdm_status mdm_device_create_cpu(int threads, int winograd, mdm_device **out) {
    *out = NULL;
    if (threads < 1) return mdm_fail(MDM_USAGE, "run.threads=%d: at least one thread is needed", threads);
    omp_set_num_threads(threads); /* oneDNN, OpenBLAS (OpenMP build) and the kernels share one pool */
    omp_set_dynamic(0);
    return create(threads, winograd, out);
}

static mdm_status create_worker(mdm_device *device, mdm_device **worker) {
    return create(1, ((mdm_cpu_device *)device)->winograd, worker);
}

static mdm_status allocate(mdm_device *device, size_t bytes, const char *what, void **memory) {
    (void)device;
    return mdm_allocate(memory, (long long)bytes, 1, what);
}

static void release(mdm_device *device, void *memory) {
    (void)device;
    free(memory);
}

static mdm_status upload(mdm_device *device, void *memory, const void *host, size_t bytes) {
    (void)device;
    if (memory != host && bytes > 0) memcpy(memory, host, bytes);
    return MDM_OK;
}

static mdm_status download(mdm_device *device, void *host, const void *memory, size_t bytes) {
    return upload(device, host, memory, bytes);
}

static void zero(mdm_device *device, void *memory, size_t bytes) {
    (void)device;
    if (bytes > 0) memset(memory, 0, bytes);
}

static void copy(mdm_device *device, void *to, const void *from, size_t bytes) {
    (void)device;
    if (bytes > 0) memcpy(to, from, bytes);
}

static mdm_status reserve_partial(mdm_cpu_device *device, size_t doubles) {
    if (doubles <= device->partial_doubles) return MDM_OK;
    free(device->partial);
    device->partial = NULL;
    device->partial_doubles = 0;
    MDM_TRY(MDM_ALLOCATE(device->partial, doubles, "partial sums"));
    device->partial_doubles = doubles;
    return MDM_OK;
}

static mdm_status reserve_norm(mdm_device *device, const mdm_norm_shape *shape) {
    return reserve_partial((mdm_cpu_device *)device,
                           (size_t)shape->n * (size_t)mdm_padded_channels(device, shape->channels) * 2);
}

static const mdm_kernels *kernels_of(const mdm_device *device) {
    return ((const mdm_cpu_device *)device)->kernels;
}

static double *partial_of(const mdm_device *device) {
    return ((const mdm_cpu_device *)device)->partial;
}

/* The layout of tensors in such a precision. */
int mdm_cpu_channels_last(const mdm_device *device, mdm_precision precision) {
    return precision == MDM_BF16 && ((const mdm_cpu_device *)device)->has_amx;
}

/* A set's pictures of a tensor, which may be NULL, and its values per channel. */
static void *pictures_of(const mdm_device *device, const mdm_norm_shape *shape, const void *tensor, int set) {
    size_t bytes = mdm_tensor_bytes(device, shape->n / mdm_norm_sets(shape), shape->channels, shape->pixels,
                                    1, shape->precision);
    return tensor ? (char *)(uintptr_t)tensor + (size_t)set * bytes : NULL;
}

static int values_of(const mdm_device *device, int channels, int set) {
    return set * mdm_padded_channels(device, channels);
}

static int channel_blocks(const mdm_device *device, int channels) {
    return mdm_padded_channels(device, channels) / device->info.channel_block;
}

/* Of one set. */
static mdm_kernel_shape kernel_shape(const mdm_device *device, const mdm_norm_shape *shape) {
    mdm_kernel_shape kernel = {.n = shape->n / mdm_norm_sets(shape),
                               .channel_blocks = channel_blocks(device, shape->channels),
                               .pixels = shape->pixels,
                               .bf16 = shape->precision == MDM_BF16,
                               .channels_last = mdm_cpu_channels_last(device, shape->precision),
                               .linear = shape->linear};
    return kernel;
}

static void norm_statistics(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                            double *sum, double *square_sum) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    for (int set = 0; set < mdm_norm_sets(shape); set++) {
        int at = values_of(device, shape->channels, set);
        kernels_of(device)->statistics(&kernel, pictures_of(device, shape, x, set),
                                       pictures_of(device, shape, residual, set), partial_of(device),
                                       sum + at, square_sum + at);
    }
}

static void norm_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x,
                              const void *residual, const float *scale, const float *shift, void *y) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    for (int set = 0; set < mdm_norm_sets(shape); set++) {
        int at = values_of(device, shape->channels, set);
        kernels_of(device)->relu_forward(&kernel, pictures_of(device, shape, x, set),
                                         pictures_of(device, shape, residual, set), scale + at, shift + at,
                                         pictures_of(device, shape, y, set));
    }
}

static void norm_relu_backward_sums(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                    const void *other, const void *x, const float *scale, const float *shift,
                                    const float *mean, const float *inverse_deviation, double *sum,
                                    double *product_sum) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    for (int set = 0; set < mdm_norm_sets(shape); set++) {
        int at = values_of(device, shape->channels, set);
        kernels_of(device)->relu_backward_sums(
            &kernel, pictures_of(device, shape, gradient, set), pictures_of(device, shape, other, set),
            pictures_of(device, shape, x, set), scale + at, shift + at, mean + at, inverse_deviation + at,
            partial_of(device), sum + at, product_sum + at);
    }
}

static void norm_relu_backward_input(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                                     const void *other, const void *x, const float *scale, const float *shift,
                                     const float *mean, const float *inverse_deviation,
                                     const float *mean_gradient, const float *mean_product) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    for (int set = 0; set < mdm_norm_sets(shape); set++) {
        int at = values_of(device, shape->channels, set);
        kernels_of(device)->relu_backward_input(
            &kernel, pictures_of(device, shape, gradient, set), pictures_of(device, shape, other, set),
            pictures_of(device, shape, x, set), scale + at, shift + at, mean + at, inverse_deviation + at,
            mean_gradient + at, mean_product + at);
    }
}

static void add_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *a, const void *b,
                             void *y) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    kernels_of(device)->add_relu_forward(&kernel, a, b, y);
}

static void add_relu_backward(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                              const void *other, const void *y, void *copy) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    kernels_of(device)->add_relu_backward(&kernel, gradient, other, y, copy);
}

static mdm_kernel_shape max_pool_kernel_shape(const mdm_device *device, const mdm_max_pool_shape *shape) {
    mdm_kernel_shape kernel = {.n = shape->n,
                               .channel_blocks = channel_blocks(device, shape->channels),
                               .pixels = shape->height * shape->width,
                               .bf16 = shape->precision == MDM_BF16,
                               .channels_last = mdm_cpu_channels_last(device, shape->precision),
                               .height = shape->height,
                               .width = shape->width};
    return kernel;
}

static void max_pool_forward(mdm_device *device, const mdm_max_pool_shape *shape, const void *x, void *y) {
    mdm_kernel_shape kernel = max_pool_kernel_shape(device, shape);
    kernels_of(device)->max_pool_forward(&kernel, x, y);
}

static void max_pool_backward(mdm_device *device, const mdm_max_pool_shape *shape, const void *gradient,
                              const void *other, const void *x, const void *y, void *x_gradient) {
    mdm_kernel_shape kernel = max_pool_kernel_shape(device, shape);
    kernels_of(device)->max_pool_backward(&kernel, gradient, other, x, y, x_gradient);
}

static void pool_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x, const void *residual,
                         float *embedding) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    kernels_of(device)->pool_forward(&kernel, x, residual, shape->channels, embedding);
}

static void pool_backward(mdm_device *device, const mdm_norm_shape *shape, const float *embedding_gradient,
                          void *gradient) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    kernels_of(device)->pool_backward(&kernel, embedding_gradient, shape->channels, gradient);
}

static void sgd_step(mdm_device *device, float *weights, const float *gradient, float *velocity,
                     int64_t count, const float *rate, float momentum, float weight_decay,
                     const double *verdict) {
    if (*verdict == MDM_STEP_IS_SOUND)
        kernels_of(device)->sgd(weights, gradient, velocity, count, *rate, momentum, weight_decay);
}

static void norm_from_sums(mdm_device *device, int channels, int sets, const double *sum,
                           const double *square_sum, double count, const float *gamma, const float *beta,
                           float *running_mean, float *running_variance, const mdm_norm_values *v) {
    for (int set = 0; set < sets; set++)
        for (int c = 0; c < channels; c++) {
            int i = values_of(device, channels, set) + c, moves = running_mean && set == 0;
            mdm_norm_of_sums(sum[i], square_sum[i], count, &v->mean[i], &v->inverse_deviation[i],
                             moves ? &running_mean[c] : NULL, moves ? &running_variance[c] : NULL);
            mdm_norm_scale(v->mean[i], v->inverse_deviation[i], gamma[c], beta[c], &v->scale[i],
                           &v->shift[i]);
        }
}

static void norm_from_running(mdm_device *device, int channels, const float *running_mean,
                              const float *running_variance, const float *gamma, const float *beta,
                              const mdm_norm_values *v) {
    (void)device;
    for (int c = 0; c < channels; c++) {
        v->mean[c] = running_mean[c];
        v->inverse_deviation[c] = mdm_inverse_deviation(running_variance[c]);
        mdm_norm_scale(v->mean[c], v->inverse_deviation[c], gamma[c], beta[c], &v->scale[c], &v->shift[c]);
    }
}

static void norm_gradients(mdm_device *device, int channels, int sets, const double *sum,
                           const double *product_sum, int accumulate, float *gamma_gradient,
                           float *beta_gradient) {
    for (int c = 0; c < channels; c++) {
        double gamma = accumulate ? gamma_gradient[c] : 0.0, beta = accumulate ? beta_gradient[c] : 0.0;
        for (int set = 0; set < sets; set++) {
            gamma += product_sum[values_of(device, channels, set) + c];
            beta += sum[values_of(device, channels, set) + c];
        }
        gamma_gradient[c] = (float)gamma;
        beta_gradient[c] = (float)beta;
    }
}

static void norm_means(mdm_device *device, int values, const double *sum, const double *product_sum,
                       double count, float *mean_gradient, float *mean_product) {
    (void)device;
    for (int i = 0; i < values; i++) {
        mean_gradient[i] = count > 0 ? (float)(sum[i] / count) : 0.0f;
        mean_product[i] = count > 0 ? (float)(product_sum[i] / count) : 0.0f;
    }
}

static void sum_squares(mdm_device *device, const float *values, int64_t count, double *sum) {
    enum { PIECES = 64 };
    double piece[PIECES];
    (void)device;
#pragma omp parallel for schedule(static) if (count > 16384)
    for (int p = 0; p < PIECES; p++) {
        double squares = 0;
        int64_t end = count * (p + 1) / PIECES;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = count * p / PIECES; i < end; i++) squares += (double)values[i] * (double)values[i];
        piece[p] = squares;
    }
    *sum = 0;
    for (int p = 0; p < PIECES; p++) *sum += piece[p];
}

static void average_step(mdm_device *device, float *average, const float *values, int64_t count,
                         float decay) {
    (void)device;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) mdm_average_of(&average[i], values[i], decay);
}

static const mdm_device_operations operations = {
    .destroy = destroy,
    .create_worker = create_worker,
    .allocate = allocate,
    .release = release,
    .upload = upload,
    .download = download,
    .zero = zero,
    .copy = copy,
    .tensor_import = mdm_cpu_tensor_import,
    .tensor_export = mdm_cpu_tensor_export,
    .convolution_create = mdm_cpu_convolution_create,
    .convolution_destroy = mdm_cpu_convolution_destroy,
    .convolution_set_weights = mdm_cpu_convolution_set_weights,
    .convolution_forward = mdm_cpu_convolution_forward,
    .convolution_backward_data = mdm_cpu_convolution_backward_data,
    .convolution_backward_weights = mdm_cpu_convolution_backward_weights,
    .reserve_norm = reserve_norm,
    .norm_statistics = norm_statistics,
    .norm_relu_forward = norm_relu_forward,
    .norm_relu_backward_sums = norm_relu_backward_sums,
    .norm_relu_backward_input = norm_relu_backward_input,
    .norm_from_sums = norm_from_sums,
    .norm_from_running = norm_from_running,
    .norm_gradients = norm_gradients,
    .norm_means = norm_means,
    .add_relu_forward = add_relu_forward,
    .add_relu_backward = add_relu_backward,
    .max_pool_forward = max_pool_forward,
    .max_pool_backward = max_pool_backward,
    .pool_forward = pool_forward,
    .pool_backward = pool_backward,
    .sgd_step = sgd_step,
    .sum_squares = sum_squares,
    .average_step = average_step,
    .heads = &mdm_cpu_head_operations,
};
