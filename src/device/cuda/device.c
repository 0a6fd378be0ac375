/* The CUDA device: from the operations of a network to launches of our kernels. */
#include "device.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

static const mdm_device_operations operations;

int mdm_device_count_cuda(char *why, size_t why_size, int *is_unusable) {
    return mdm_gpu_count(why, why_size, is_unusable);
}

mdm_status mdm_device_identify_cuda(int number, unsigned char identity[MDM_DEVICE_IDENTITY]) {
    return mdm_gpu_identify(number, identity);
}

static void destroy(mdm_device *device) {
    mdm_cuda_device *d = mdm_cuda(device);
    mdm_nccl_destroy(d->nccl);
    if (d->gpu) {
        void *buffers[] = {d->partial, d->squares, d->image, d->filter_gradient, d->sum};
        for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) mdm_gpu_free(d->gpu, buffers[i]);
        mdm_gpu_destroy_mark(d->gpu, d->beside.begun);
        for (int i = 0; i < MDM_BESIDE_PLACES; i++) mdm_gpu_destroy_mark(d->gpu, d->beside.ended[i]);
        mdm_gpu_close(d->gpu);
    }
    free(d);
}

static mdm_status prepare(mdm_cuda_device *d) {
    MDM_TRY(mdm_gpu_allocate(d->gpu, sizeof(double) * MDM_GPU_SQUARES, "partial sums", (void **)&d->squares));
    MDM_TRY(mdm_gpu_create_mark(d->gpu, &d->beside.begun));
    for (int i = 0; i < MDM_BESIDE_PLACES; i++) MDM_TRY(mdm_gpu_create_mark(d->gpu, &d->beside.ended[i]));
    return MDM_OK;
}

mdm_status mdm_device_create_cuda(int number, int threads, mdm_device **out) {
    mdm_cuda_device *device;
    mdm_gpu_info info;
    *out = NULL;
    if (threads < 1) return mdm_fail(MDM_USAGE, "run.threads=%d: at least one thread is needed", threads);
    MDM_TRY(MDM_ALLOCATE(device, 1, "the CUDA device"));
    omp_set_num_threads(threads); /* for what stays on the CPU, as the reading of pictures */
    omp_set_dynamic(0);
    device->common.operations = &operations;
    device->number = number;
    mdm_status status = mdm_gpu_open(number, &device->gpu, &info);
    if (status == MDM_OK) status = prepare(device);
    if (status != MDM_OK) {
        destroy(&device->common);
        return status;
    }
    mdm_device_info *i = &device->common.info;
    snprintf(i->name, sizeof i->name, "%s", info.name);
    snprintf(i->library, sizeof i->library, "%s", info.library);
    snprintf(i->instructions, sizeof i->instructions, "%s", info.instructions);
    i->threads = threads;
    i->channel_block = i->channel_multiple = MDM_GPU_LANES;
    i->has_bf16 = i->has_tf32 = i->is_cuda = 1;
    i->memory_bytes = info.memory_bytes;
    *out = &device->common;
    return MDM_OK;
}

static mdm_status allocate(mdm_device *device, size_t bytes, const char *what, void **memory) {
    return mdm_gpu_allocate(mdm_cuda(device)->gpu, bytes, what, memory);
}

static void release(mdm_device *device, void *memory) {
    if (memory) mdm_gpu_free(mdm_cuda(device)->gpu, memory);
}

static mdm_status upload(mdm_device *device, void *memory, const void *host, size_t bytes) {
    return bytes > 0 ? mdm_gpu_upload(mdm_cuda(device)->gpu, memory, host, bytes) : MDM_OK;
}

static mdm_status download(mdm_device *device, void *host, const void *memory, size_t bytes) {
    return bytes > 0 ? mdm_gpu_download(mdm_cuda(device)->gpu, host, memory, bytes) : MDM_OK;
}

static void zero(mdm_device *device, void *memory, size_t bytes) {
    if (bytes > 0) mdm_gpu_zero(mdm_cuda(device)->gpu, memory, bytes);
}

static void copy(mdm_device *device, void *to, const void *from, size_t bytes) {
    if (bytes > 0) mdm_gpu_copy(mdm_cuda(device)->gpu, to, from, bytes);
}

mdm_status mdm_cuda_reserve(mdm_cuda_device *device, void **memory, size_t *have, size_t want,
                            const char *what) {
    if (want <= *have) return MDM_OK;
    mdm_gpu_free(device->gpu, *memory);
    *memory = NULL;
    *have = 0;
    MDM_TRY(mdm_gpu_allocate(device->gpu, want, what, memory));
    *have = want;
    return MDM_OK;
}

/* ---- layouts, for tests and inspection ---- */

static uint32_t groups_of(int channels) {
    return (uint32_t)(channels + MDM_GPU_LANES - 1) / MDM_GPU_LANES;
}

static mdm_status convert(mdm_device *device, const float *plain, void *tensor, int n, int channels,
                          int pixels, mdm_precision precision, float *out) {
    mdm_gpu *gpu = mdm_cuda(device)->gpu;
    size_t bytes = sizeof(float) * (size_t)n * (size_t)channels * (size_t)pixels;
    mdm_layout_arguments a = {.count = (uint32_t)n * (uint32_t)pixels * groups_of(channels),
                              .groups = groups_of(channels),
                              .pixels = (uint32_t)pixels,
                              .channels = (uint32_t)channels,
                              .bf16 = precision == MDM_BF16};
    void *copy;
    MDM_TRY(mdm_gpu_allocate(gpu, bytes, "a plain tensor", &copy));
    mdm_status status = MDM_OK;
    if (plain) {
        status = upload(device, copy, plain, bytes);
        a.from = copy;
        a.to = tensor;
        if (status == MDM_OK) mdm_gpu_to_tensor(gpu, mdm_blocks_for(a.count), 1, &a);
    } else {
        a.from = tensor;
        a.to = copy;
        mdm_gpu_from_tensor(gpu, mdm_blocks_for(a.count), 1, &a);
        status = download(device, out, copy, bytes);
    }
    mdm_gpu_free(gpu, copy);
    return status;
}

static void keep_plans(mdm_device *device) {
    mdm_gpu_keep_plans(mdm_cuda(device)->gpu);
}

static mdm_status tensor_import(mdm_device *device, const float *plain, int n, int channels, int height,
                                int width, mdm_precision precision, void *tensor) {
    return convert(device, plain, tensor, n, channels, height * width, precision, NULL);
}

static mdm_status tensor_export(mdm_device *device, const void *tensor, int n, int channels, int height,
                                int width, mdm_precision precision, float *plain) {
    return convert(device, NULL, (void *)(uintptr_t)tensor, n, channels, height * width, precision, plain);
}

/* ---- batch norm ---- */

static uint32_t sets_of(const mdm_norm_shape *shape) {
    return (uint32_t)mdm_norm_sets(shape);
}

/* Pixels of a set. */
static uint32_t rows_of(const mdm_norm_shape *shape) {
    return (uint32_t)shape->n / sets_of(shape) * (uint32_t)shape->pixels;
}

static mdm_pixel_geometry geometry_of_map(const mdm_norm_shape *shape) {
    return mdm_geometry_of_map(rows_of(shape), groups_of(shape->channels), sets_of(shape));
}

static uint32_t vectors_of(const mdm_norm_shape *shape) {
    return (uint32_t)shape->n * (uint32_t)shape->pixels * groups_of(shape->channels);
}

static mdm_status reserve_norm(mdm_device *device, const mdm_norm_shape *shape) {
    mdm_cuda_device *d = mdm_cuda(device);
    uint32_t groups = groups_of(shape->channels);
    double vectors = (double)shape->n * shape->pixels * groups;
    if (vectors >= 2147483648.0) /* thread numbers are 32 bits wide */
        return mdm_fail(MDM_RESOURCE,
                        "a layer of %d pictures of %d pixels and %d channels is too large for "
                        "a CUDA device; a smaller train.batch or pretrain.batch, or more ranks, would do",
                        shape->n, shape->pixels, shape->channels);
    mdm_pixel_geometry g = mdm_geometry_of_sum(rows_of(shape), groups, sets_of(shape));
    size_t bytes = sizeof(double) * 2 * (size_t)(g.sets * g.blocks) * groups * MDM_GPU_LANES,
           have = sizeof(double) * d->partial_doubles;
    mdm_status status = mdm_cuda_reserve(d, (void **)&d->partial, &have, bytes, "partial sums");
    d->partial_doubles = have / sizeof(double);
    return status;
}

typedef void summing_kernel(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const mdm_sum_arguments *a);

/* The blocks' sums by `kernel`, then whole and with what follows, in `gather`. */
static void sum_channels(mdm_device *device, const mdm_norm_shape *shape, summing_kernel *kernel,
                         mdm_sum_arguments a, mdm_gather_arguments gather) {
    mdm_cuda_device *d = mdm_cuda(device);
    uint32_t rows = rows_of(shape), groups = groups_of(shape->channels);
    gather.groups = groups;
    gather.sets = gather.channels.sets = sets_of(shape);
    gather.channels.padded = groups * MDM_GPU_LANES;
    if (rows > 0) {
        a.geometry = mdm_geometry_of_sum(rows, groups, gather.sets);
        a.partial = d->partial;
        a.bf16 = shape->precision == MDM_BF16;
        a.linear = shape->linear;
        kernel(d->gpu, a.geometry.blocks, mdm_geometry_block_rows(&a.geometry), &a);
        gather.blocks = a.geometry.blocks;
    }
    gather.partial = d->partial;
    mdm_gpu_gather_sums(d->gpu, groups, 1, &gather);
}

static void norm_statistics(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                            double *sum, double *square_sum) {
    mdm_sum_arguments a = {.x = x, .residual = residual};
    mdm_gather_arguments gather = {.sum = sum, .second = square_sum};
    sum_channels(device, shape, mdm_gpu_statistics, a, gather);
}

static void norm_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x,
                              const void *residual, const float *scale, const float *shift, void *y) {
    mdm_norm_forward_arguments a = {.geometry = geometry_of_map(shape),
                                    .x = x,
                                    .residual = residual,
                                    .y = y,
                                    .scale = scale,
                                    .shift = shift,
                                    .bf16 = shape->precision == MDM_BF16,
                                    .linear = shape->linear};
    mdm_gpu_norm_forward(mdm_cuda(device)->gpu, a.geometry.blocks, mdm_geometry_block_rows(&a.geometry), &a);
}

static void norm_relu_backward_sums(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                    const void *other, const void *x, const float *scale, const float *shift,
                                    const float *mean, const float *inverse_deviation, double *sum,
                                    double *product_sum) {
    mdm_sum_arguments a = {.x = (void *)(uintptr_t)x, /* only read */
                           .gradient = gradient,
                           .other = other,
                           .scale = scale,
                           .shift = shift,
                           .mean = mean,
                           .inverse_deviation = inverse_deviation};
    mdm_gather_arguments gather = {.sum = sum, .second = product_sum};
    sum_channels(device, shape, mdm_gpu_backward_sums, a, gather);
}

mdm_channel_arguments mdm_cuda_norm_gradients(int channels, const double *sum, const double *product_sum,
                                              const mdm_norm_backward_rest *r) {
    mdm_channel_arguments a = {.sum = sum,
                               .second = product_sum,
                               .gamma_gradient = r->gamma_gradient,
                               .beta_gradient = r->beta_gradient,
                               .mean_gradient = r->mean_gradient,
                               .mean_product = r->mean_product,
                               .count = r->count,
                               .channels = (uint32_t)channels,
                               .accumulate = r->accumulate};
    return a;
}

static void norm_relu_backward_sums_then(mdm_device *device, const mdm_norm_shape *shape,
                                         const void *gradient, const void *other, const void *x,
                                         const mdm_norm_values *v, double *sum, double *product_sum,
                                         const mdm_norm_backward_rest *r) {
    mdm_sum_arguments a = {.x = (void *)(uintptr_t)x, /* only read */
                           .gradient = gradient,
                           .other = other,
                           .scale = v->scale,
                           .shift = v->shift,
                           .mean = v->mean,
                           .inverse_deviation = v->inverse_deviation};
    mdm_gather_arguments gather = {.sum = sum,
                                   .second = product_sum,
                                   .rest = MDM_GPU_NORM_GRADIENTS,
                                   .channels = mdm_cuda_norm_gradients(shape->channels, sum, product_sum, r)};
    sum_channels(device, shape, mdm_gpu_backward_sums, a, gather);
}

static void norm_relu_backward_input(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                                     const void *other, const void *x, const float *scale, const float *shift,
                                     const float *mean, const float *inverse_deviation,
                                     const float *mean_gradient, const float *mean_product) {
    mdm_norm_backward_arguments a = {.geometry = geometry_of_map(shape),
                                     .gradient = gradient,
                                     .other = other,
                                     .x = x,
                                     .scale = scale,
                                     .shift = shift,
                                     .mean = mean,
                                     .inverse_deviation = inverse_deviation,
                                     .mean_gradient = mean_gradient,
                                     .mean_product = mean_product,
                                     .bf16 = shape->precision == MDM_BF16,
                                     .linear = shape->linear};
    mdm_gpu_norm_backward(mdm_cuda(device)->gpu, a.geometry.blocks, mdm_geometry_block_rows(&a.geometry), &a);
}

mdm_channel_arguments mdm_cuda_norm_values(int channels, const double *sum, const double *square_sum,
                                           const mdm_norm_forward_rest *r) {
    mdm_channel_arguments a = {.sum = sum,
                               .second = square_sum,
                               .gamma = r->gamma,
                               .beta = r->beta,
                               .running_mean = r->running_mean,
                               .running_variance = r->running_variance,
                               .mean = r->values->mean,
                               .inverse_deviation = r->values->inverse_deviation,
                               .scale = r->values->scale,
                               .shift = r->values->shift,
                               .count = r->count,
                               .channels = (uint32_t)channels};
    return a;
}

static void norm_from_sums(mdm_device *device, int channels, int sets, const double *sum,
                           const double *square_sum, double count, const float *gamma, const float *beta,
                           float *running_mean, float *running_variance, const mdm_norm_values *values) {
    mdm_norm_forward_rest rest = {count, gamma, beta, running_mean, running_variance, values};
    mdm_channel_arguments a = mdm_cuda_norm_values(channels, sum, square_sum, &rest);
    a.sets = (uint32_t)sets;
    a.padded = mdm_blocks_of_lanes(channels);
    mdm_gpu_norm_from_sums(mdm_cuda(device)->gpu, mdm_blocks_for(a.sets * a.padded), 1, &a);
}

static void norm_statistics_then(mdm_device *device, const mdm_norm_shape *shape, void *x,
                                 const void *residual, double *sum, double *square_sum,
                                 const mdm_norm_forward_rest *rest) {
    mdm_sum_arguments a = {.x = x, .residual = residual};
    mdm_gather_arguments gather = {.sum = sum,
                                   .second = square_sum,
                                   .rest = MDM_GPU_NORM_VALUES,
                                   .channels = mdm_cuda_norm_values(shape->channels, sum, square_sum, rest)};
    sum_channels(device, shape, mdm_gpu_statistics, a, gather);
}

static void norm_from_running(mdm_device *device, int channels, const float *running_mean,
                              const float *running_variance, const float *gamma, const float *beta,
                              const mdm_norm_values *v) {
    mdm_channel_arguments a = {.running_mean = (float *)(uintptr_t)running_mean, /* only read */
                               .running_variance = (float *)(uintptr_t)running_variance,
                               .gamma = gamma,
                               .beta = beta,
                               .mean = v->mean,
                               .inverse_deviation = v->inverse_deviation,
                               .scale = v->scale,
                               .shift = v->shift,
                               .channels = (uint32_t)channels};
    mdm_gpu_norm_from_running(mdm_cuda(device)->gpu, mdm_blocks_for(a.channels), 1, &a);
}

static void norm_gradients(mdm_device *device, int channels, int sets, const double *sum,
                           const double *product_sum, int accumulate, float *gamma_gradient,
                           float *beta_gradient) {
    mdm_channel_arguments a = {.sum = sum,
                               .second = product_sum,
                               .gamma_gradient = gamma_gradient,
                               .beta_gradient = beta_gradient,
                               .channels = (uint32_t)channels,
                               .padded = mdm_blocks_of_lanes(channels),
                               .sets = (uint32_t)sets,
                               .accumulate = accumulate};
    mdm_gpu_norm_gradients(mdm_cuda(device)->gpu, mdm_blocks_for(a.channels), 1, &a);
}

static void norm_means(mdm_device *device, int values, const double *sum, const double *product_sum,
                       double count, float *mean_gradient, float *mean_product) {
    mdm_channel_arguments a = {.sum = sum,
                               .second = product_sum,
                               .mean_gradient = mean_gradient,
                               .mean_product = mean_product,
                               .count = count,
                               .padded = (uint32_t)values,
                               .sets = 1};
    mdm_gpu_norm_means(mdm_cuda(device)->gpu, mdm_blocks_for(a.padded), 1, &a);
}

/* ---- sums, pooling, optimizer ---- */

static void add_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *a, const void *b,
                             void *y) {
    mdm_add_arguments arguments = {a, b, y, vectors_of(shape), shape->precision == MDM_BF16, 1};
    mdm_gpu_add(mdm_cuda(device)->gpu, mdm_blocks_for(arguments.count), 1, &arguments);
}

static void add_relu_backward(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                              const void *other, const void *y, void *copy) {
    mdm_add_backward_arguments a = {
        gradient, copy, other, y, vectors_of(shape), shape->precision == MDM_BF16};
    mdm_gpu_add_backward(mdm_cuda(device)->gpu, mdm_blocks_for(a.count), 1, &a);
}

static mdm_max_pool_arguments max_pool_arguments(const mdm_max_pool_shape *shape, int height, int width) {
    mdm_max_pool_arguments a = {.groups = groups_of(shape->channels),
                                .height = shape->height,
                                .width = shape->width,
                                .bf16 = shape->precision == MDM_BF16};
    a.count = (uint32_t)shape->n * (uint32_t)height * (uint32_t)width * a.groups;
    return a;
}

static void max_pool_forward(mdm_device *device, const mdm_max_pool_shape *shape, const void *x, void *y) {
    mdm_max_pool_arguments a = max_pool_arguments(shape, (shape->height + 1) / 2, (shape->width + 1) / 2);
    a.x = x;
    a.out = y;
    mdm_gpu_max_pool_forward(mdm_cuda(device)->gpu, mdm_blocks_for(a.count), 1, &a);
}

static void max_pool_backward(mdm_device *device, const mdm_max_pool_shape *shape, const void *gradient,
                              const void *other, const void *x, const void *y, void *x_gradient) {
    mdm_max_pool_arguments a = max_pool_arguments(shape, shape->height, shape->width);
    a.x = x;
    a.y = y;
    a.gradient = gradient;
    a.other = other;
    a.out = x_gradient;
    mdm_gpu_max_pool_backward(mdm_cuda(device)->gpu, mdm_blocks_for(a.count), 1, &a);
}

static mdm_pool_arguments pool_arguments(const mdm_norm_shape *shape) {
    mdm_pool_arguments a = {.groups = groups_of(shape->channels),
                            .pixels = (uint32_t)shape->pixels,
                            .channels = (uint32_t)shape->channels,
                            .bf16 = shape->precision == MDM_BF16};
    return a;
}

static void pool_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x, const void *residual,
                         float *embedding) {
    mdm_pool_arguments a = pool_arguments(shape);
    a.x = x;
    a.residual = residual;
    a.embedding = embedding;
    a.count = (uint32_t)shape->n * a.groups;
    mdm_gpu_pool_forward(mdm_cuda(device)->gpu, mdm_blocks_for(a.count), 1, &a);
}

static void pool_backward(mdm_device *device, const mdm_norm_shape *shape, const float *embedding_gradient,
                          void *gradient) {
    mdm_pool_arguments a = pool_arguments(shape);
    a.gradient = gradient;
    a.embedding = (float *)(uintptr_t)embedding_gradient; /* only read */
    a.count = vectors_of(shape);
    mdm_gpu_pool_backward(mdm_cuda(device)->gpu, mdm_blocks_for(a.count), 1, &a);
}

/* Weights are far fewer than 2^31: the largest network has 43 million at width 64. */
static void sgd_step(mdm_device *device, float *weights, const float *gradient, float *velocity,
                     int64_t count, const float *rate, float momentum, float weight_decay,
                     const double *verdict) {
    const int64_t most = 1 << 30;
    for (int64_t i = 0; i < count; i += most) {
        mdm_sgd_arguments a = {.weights = weights + i,
                               .velocity = velocity + i,
                               .gradient = gradient + i,
                               .rate = rate,
                               .verdict = verdict,
                               .count = (uint32_t)(count - i < most ? count - i : most),
                               .momentum = momentum,
                               .weight_decay = weight_decay};
        mdm_gpu_sgd(mdm_cuda(device)->gpu, mdm_blocks_for(a.count), 1, &a);
    }
}

static void sum_squares(mdm_device *device, const float *values, int64_t count, double *sum) {
    mdm_cuda_device *d = mdm_cuda(device);
    mdm_square_arguments a = {.values = values, .partial = d->squares, .count = (size_t)count};
    a.words = (uintptr_t)values % sizeof(mdm_gpu_word) == 0 ? a.count / 4 : 0;
    size_t wanted = (a.count / 4 + MDM_GPU_THREADS) / MDM_GPU_THREADS; /* one at least */
    uint32_t blocks = wanted < MDM_GPU_SQUARES ? (uint32_t)wanted : MDM_GPU_SQUARES;
    a.threads = (size_t)blocks * MDM_GPU_THREADS;
    mdm_gpu_squares(d->gpu, blocks, 1, &a);
    mdm_sum_rows(device, &(mdm_row_sum){d->squares, blocks, 1.0, sum}, 1);
}

static void average_step(mdm_device *device, float *average, const float *values, int64_t count,
                         float decay) {
    const int64_t most = 1 << 30;
    for (int64_t i = 0; i < count; i += most) {
        int64_t here = count - i < most ? count - i : most;
        mdm_average_arguments a = {average + i, values + i, (uint32_t)here, decay};
        mdm_gpu_average(mdm_cuda(device)->gpu, mdm_blocks_for(a.count), 1, &a);
    }
}

static const mdm_device_operations operations = {
    .destroy = destroy,
    .allocate = allocate,
    .release = release,
    .upload = upload,
    .download = download,
    .zero = zero,
    .keep_plans = keep_plans,
    .copy = copy,
    .tensor_import = tensor_import,
    .tensor_export = tensor_export,
    .convolution_create = mdm_cuda_convolution_create,
    .convolution_destroy = mdm_cuda_convolution_destroy,
    .convolution_set_weights = mdm_cuda_convolution_set_weights,
    .convolution_forward = mdm_cuda_convolution_forward,
    .convolution_backward_data = mdm_cuda_convolution_backward_data,
    .convolution_backward_weights = mdm_cuda_convolution_backward_weights,
    .reserve_norm = reserve_norm,
    .norm_statistics = norm_statistics,
    .norm_statistics_then = norm_statistics_then,
    .norm_relu_forward = norm_relu_forward,
    .norm_relu_backward_sums = norm_relu_backward_sums,
    .norm_relu_backward_sums_then = norm_relu_backward_sums_then,
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
    .heads = &mdm_cuda_head_operations,
};
