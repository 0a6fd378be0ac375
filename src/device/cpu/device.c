/* The CPU device: what the processor can do, which kernels fit it, and the wrappers that make public
 * operations of them. */
#include "device.h"
#include "kernels.h"
#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const mdm_kernels *choose_kernels(int *has_bf16) {
    *has_bf16 = 0;
#ifdef MDM_X86
    __builtin_cpu_init();
    *has_bf16 = __builtin_cpu_supports("avx512bf16") != 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &mdm_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &mdm_kernels_avx2;
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

mdm_status mdm_device_create_cpu(int threads, int winograd, mdm_device **out) {
    mdm_device *device;
    *out = NULL;
    if (threads < 1) return mdm_fail(MDM_USAGE, "run.threads=%d: at least one thread is needed", threads);
    MDM_TRY(MDM_ALLOCATE(device, 1, "the CPU device"));
    omp_set_num_threads(threads); /* oneDNN, OpenBLAS (OpenMP build) and the kernels share one pool */
    omp_set_dynamic(0);
    device->winograd = winograd;
    device->kernels = choose_kernels(&device->info.has_bf16);
    device->info.threads = threads;
    device->info.channel_block = device->kernels->block;
    snprintf(device->info.instructions, sizeof device->info.instructions, "%s",
             device->kernels->instructions);
    read_processor_name(device->info.name, sizeof device->info.name);
    mdm_status status = mdm_onednn_start(device);
    if (status != MDM_OK) {
        mdm_device_destroy(device);
        return status;
    }
    *out = device;
    return MDM_OK;
}

void mdm_device_destroy(mdm_device *device) {
    if (!device) return;
    mdm_onednn_stop(device);
    free(device->scratch);
    free(device->partial);
    free(device);
}

const mdm_device_info *mdm_device_get_info(const mdm_device *device) {
    return &device->info;
}

int mdm_padded_channels(const mdm_device *device, int channels) {
    int block = device->info.channel_block;
    return (channels + block - 1) / block * block;
}

size_t mdm_tensor_bytes(const mdm_device *device, int n, int channels, int height, int width,
                        mdm_precision precision) {
    size_t element = precision == MDM_BF16 ? 2 : 4;
    return (size_t)n * (size_t)mdm_padded_channels(device, channels) * (size_t)height * (size_t)width *
           element;
}

mdm_status mdm_device_reserve_partial(mdm_device *device, size_t doubles) {
    if (doubles <= device->partial_doubles) return MDM_OK;
    free(device->partial);
    device->partial = NULL;
    device->partial_doubles = 0;
    MDM_TRY(MDM_ALLOCATE(device->partial, doubles, "partial sums"));
    device->partial_doubles = doubles;
    return MDM_OK;
}

mdm_status mdm_device_reserve_norm(mdm_device *device, const mdm_norm_shape *shape) {
    return mdm_device_reserve_partial(device, (size_t)shape->n *
                                                  (size_t)mdm_padded_channels(device, shape->channels) * 2);
}

static mdm_kernel_shape kernel_shape(const mdm_device *device, const mdm_norm_shape *shape) {
    int block = device->info.channel_block;
    mdm_kernel_shape kernel = {.n = shape->n,
                               .channel_blocks = (shape->channels + block - 1) / block,
                               .pixels = shape->pixels,
                               .bf16 = shape->precision == MDM_BF16,
                               .linear = shape->linear};
    return kernel;
}

void mdm_norm_statistics(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                         double *sum, double *square_sum) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->statistics(&kernel, x, residual, device->partial, sum, square_sum);
}

void mdm_norm_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x,
                           const void *residual, const float *scale, const float *shift, void *y) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->relu_forward(&kernel, x, residual, scale, shift, y);
}

void mdm_norm_relu_backward_sums(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                 const void *other, const void *x, const float *scale, const float *shift,
                                 const float *mean, const float *inverse_deviation, double *sum,
                                 double *product_sum) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->relu_backward_sums(&kernel, gradient, other, x, scale, shift, mean, inverse_deviation,
                                        device->partial, sum, product_sum);
}

void mdm_norm_relu_backward_input(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                                  const void *other, const void *x, const float *scale, const float *shift,
                                  const float *mean, const float *inverse_deviation,
                                  const float *mean_gradient, const float *mean_product) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->relu_backward_input(&kernel, gradient, other, x, scale, shift, mean, inverse_deviation,
                                         mean_gradient, mean_product);
}

void mdm_add_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *a, const void *b,
                          void *y) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->add_relu_forward(&kernel, a, b, y);
}

void mdm_add_relu_backward(mdm_device *device, const mdm_norm_shape *shape, void *gradient, const void *other,
                           const void *y, void *copy) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->add_relu_backward(&kernel, gradient, other, y, copy);
}

static mdm_kernel_shape max_pool_kernel_shape(const mdm_device *device, const mdm_max_pool_shape *shape) {
    int block = device->info.channel_block;
    mdm_kernel_shape kernel = {.n = shape->n,
                               .channel_blocks = (shape->channels + block - 1) / block,
                               .pixels = shape->height * shape->width,
                               .bf16 = shape->precision == MDM_BF16,
                               .height = shape->height,
                               .width = shape->width};
    return kernel;
}

void mdm_max_pool_forward(mdm_device *device, const mdm_max_pool_shape *shape, const void *x, void *y) {
    mdm_kernel_shape kernel = max_pool_kernel_shape(device, shape);
    device->kernels->max_pool_forward(&kernel, x, y);
}

void mdm_max_pool_backward(mdm_device *device, const mdm_max_pool_shape *shape, const void *gradient,
                           const void *other, const void *x, const void *y, void *x_gradient) {
    mdm_kernel_shape kernel = max_pool_kernel_shape(device, shape);
    device->kernels->max_pool_backward(&kernel, gradient, other, x, y, x_gradient);
}

void mdm_pool_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x, const void *residual,
                      float *embedding) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->pool_forward(&kernel, x, residual, shape->channels, embedding);
}

void mdm_pool_backward(mdm_device *device, const mdm_norm_shape *shape, const float *embedding_gradient,
                       void *gradient) {
    mdm_kernel_shape kernel = kernel_shape(device, shape);
    device->kernels->pool_backward(&kernel, embedding_gradient, shape->channels, gradient);
}

void mdm_sgd_step(mdm_device *device, float *weights, const float *gradient, float *velocity, int64_t count,
                  float rate, float momentum, float weight_decay) {
    device->kernels->sgd(weights, gradient, velocity, count, rate, momentum, weight_decay);
}

void mdm_product_nt(int m, int n, int k, const float *a, const float *b, float beta, float *c) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, a, k, b, k, beta, c, n);
}

void mdm_product_nn(int m, int n, int k, const float *a, const float *b, float beta, float *c) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1.0f, a, k, b, n, beta, c, n);
}

void mdm_product_tn(int m, int n, int k, const float *a, const float *b, float beta, float *c) {
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, n, k, 1.0f, a, m, b, n, beta, c, n);
}
