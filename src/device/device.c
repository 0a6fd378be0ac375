/* The public operations, each handed on to the backend of its device. */
#include "operations.h"

const char *mdm_precision_name(mdm_precision precision) {
    static const char *const names[] = {
        [MDM_FP32] = "fp32", [MDM_BF16] = "bf16", [MDM_TF32] = "tf32", [MDM_FP16] = "fp16"};
    return names[precision];
}

void mdm_device_destroy(mdm_device *device) {
    if (device) device->operations->destroy(device);
}

mdm_status mdm_device_create_worker(mdm_device *device, mdm_device **worker) {
    *worker = NULL;
    if (!device->operations->create_worker)
        return mdm_fail(MDM_USAGE, "deterministic=true needs device=cpu: sums on %s have no fixed order",
                        device->info.name);
    return device->operations->create_worker(device, worker);
}

const mdm_device_info *mdm_device_get_info(const mdm_device *device) {
    return &device->info;
}

int mdm_padded_channels(const mdm_device *device, int channels) {
    int multiple = device->info.channel_multiple;
    return (channels + multiple - 1) / multiple * multiple;
}

size_t mdm_tensor_bytes(const mdm_device *device, int n, int channels, int height, int width,
                        mdm_precision precision) {
    size_t element = precision == MDM_BF16 ? 2 : 4;
    return (size_t)n * (size_t)mdm_padded_channels(device, channels) * (size_t)height * (size_t)width *
           element;
}

mdm_status mdm_device_allocate(mdm_device *device, size_t bytes, const char *what, void **memory) {
    return device->operations->allocate(device, bytes, what, memory);
}

void mdm_device_free(mdm_device *device, void *memory) {
    device->operations->release(device, memory);
}

mdm_status mdm_device_upload(mdm_device *device, void *memory, const void *host, size_t bytes) {
    return device->operations->upload(device, memory, host, bytes);
}

mdm_status mdm_device_download(mdm_device *device, void *host, const void *memory, size_t bytes) {
    return device->operations->download(device, host, memory, bytes);
}

void mdm_device_zero(mdm_device *device, void *memory, size_t bytes) {
    device->operations->zero(device, memory, bytes);
}

void mdm_device_keep_plans(mdm_device *device) {
    if (device->operations->keep_plans) device->operations->keep_plans(device);
}

void mdm_device_copy(mdm_device *device, void *to, const void *from, size_t bytes) {
    device->operations->copy(device, to, from, bytes);
}

mdm_status mdm_tensor_import(mdm_device *device, const float *plain, int n, int channels, int height,
                             int width, mdm_precision precision, void *tensor) {
    return device->operations->tensor_import(device, plain, n, channels, height, width, precision, tensor);
}

mdm_status mdm_tensor_export(mdm_device *device, const void *tensor, int n, int channels, int height,
                             int width, mdm_precision precision, float *plain) {
    return device->operations->tensor_export(device, tensor, n, channels, height, width, precision, plain);
}

mdm_status mdm_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                  mdm_convolution **convolution) {
    return device->operations->convolution_create(device, shape, convolution);
}

void mdm_convolution_destroy(mdm_convolution *convolution) {
    if (convolution) convolution->operations->convolution_destroy(convolution);
}

mdm_status mdm_convolution_set_weights(mdm_convolution *convolution, const float *weights) {
    return convolution->operations->convolution_set_weights(convolution, weights);
}

mdm_status mdm_convolution_forward(mdm_convolution *convolution, const void *input, void *output) {
    return convolution->operations->convolution_forward(convolution, input, output);
}

mdm_status mdm_convolution_backward_data(mdm_convolution *convolution, const void *output_gradient,
                                         void *input_gradient) {
    return convolution->operations->convolution_backward_data(convolution, output_gradient, input_gradient);
}

mdm_status mdm_convolution_backward_weights(mdm_convolution *convolution, const void *input,
                                            const void *output_gradient, float *gradient, int accumulate) {
    return convolution->operations->convolution_backward_weights(convolution, input, output_gradient,
                                                                 gradient, accumulate);
}

mdm_status mdm_device_reserve_norm(mdm_device *device, const mdm_norm_shape *shape) {
    return device->operations->reserve_norm(device, shape);
}

void mdm_norm_statistics(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                         double *sum, double *square_sum) {
    device->operations->norm_statistics(device, shape, x, residual, sum, square_sum);
}

void mdm_norm_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x,
                           const void *residual, const float *scale, const float *shift, void *y) {
    device->operations->norm_relu_forward(device, shape, x, residual, scale, shift, y);
}

void mdm_norm_relu_backward_sums(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                 const void *other, const void *x, const float *scale, const float *shift,
                                 const float *mean, const float *inverse_deviation, double *sum,
                                 double *product_sum) {
    device->operations->norm_relu_backward_sums(device, shape, gradient, other, x, scale, shift, mean,
                                                inverse_deviation, sum, product_sum);
}

void mdm_norm_relu_backward_input(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                                  const void *other, const void *x, const float *scale, const float *shift,
                                  const float *mean, const float *inverse_deviation,
                                  const float *mean_gradient, const float *mean_product) {
    device->operations->norm_relu_backward_input(device, shape, gradient, other, x, scale, shift, mean,
                                                 inverse_deviation, mean_gradient, mean_product);
}

void mdm_norm_from_sums(mdm_device *device, int channels, int sets, const double *sum,
                        const double *square_sum, double count, const float *gamma, const float *beta,
                        float *running_mean, float *running_variance, const mdm_norm_values *values) {
    device->operations->norm_from_sums(device, channels, sets, sum, square_sum, count, gamma, beta,
                                       running_mean, running_variance, values);
}

void mdm_norm_from_running(mdm_device *device, int channels, const float *running_mean,
                           const float *running_variance, const float *gamma, const float *beta,
                           const mdm_norm_values *values) {
    device->operations->norm_from_running(device, channels, running_mean, running_variance, gamma, beta,
                                          values);
}

void mdm_norm_gradients(mdm_device *device, int channels, int sets, const double *sum,
                        const double *product_sum, int accumulate, float *gamma_gradient,
                        float *beta_gradient) {
    device->operations->norm_gradients(device, channels, sets, sum, product_sum, accumulate, gamma_gradient,
                                       beta_gradient);
}

void mdm_norm_means(mdm_device *device, int values, const double *sum, const double *product_sum,
                    double count, float *mean_gradient, float *mean_product) {
    device->operations->norm_means(device, values, sum, product_sum, count, mean_gradient, mean_product);
}

void mdm_norm_statistics_then(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                              double *sum, double *square_sum, const mdm_norm_forward_rest *r) {
    if (device->operations->norm_statistics_then) {
        device->operations->norm_statistics_then(device, shape, x, residual, sum, square_sum, r);
        return;
    }
    mdm_norm_statistics(device, shape, x, residual, sum, square_sum);
    mdm_norm_from_sums(device, shape->channels, mdm_norm_sets(shape), sum, square_sum, r->count, r->gamma,
                       r->beta, r->running_mean, r->running_variance, r->values);
}

void mdm_norm_relu_backward_sums_then(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                      const void *other, const void *x, const mdm_norm_values *v, double *sum,
                                      double *product_sum, const mdm_norm_backward_rest *r) {
    if (device->operations->norm_relu_backward_sums_then) {
        device->operations->norm_relu_backward_sums_then(device, shape, gradient, other, x, v, sum,
                                                         product_sum, r);
        return;
    }
    mdm_norm_relu_backward_sums(device, shape, gradient, other, x, v->scale, v->shift, v->mean,
                                v->inverse_deviation, sum, product_sum);
    mdm_norm_gradients(device, shape->channels, mdm_norm_sets(shape), sum, product_sum, r->accumulate,
                       r->gamma_gradient, r->beta_gradient);
    mdm_norm_means(device, mdm_norm_sets(shape) * mdm_padded_channels(device, shape->channels), sum,
                   product_sum, r->count, r->mean_gradient, r->mean_product);
}

void mdm_add_relu_forward(mdm_device *device, const mdm_norm_shape *shape, const void *a, const void *b,
                          void *y) {
    device->operations->add_relu_forward(device, shape, a, b, y);
}

void mdm_add_relu_backward(mdm_device *device, const mdm_norm_shape *shape, void *gradient, const void *other,
                           const void *y, void *copy) {
    device->operations->add_relu_backward(device, shape, gradient, other, y, copy);
}

void mdm_max_pool_forward(mdm_device *device, const mdm_max_pool_shape *shape, const void *x, void *y) {
    device->operations->max_pool_forward(device, shape, x, y);
}

void mdm_max_pool_backward(mdm_device *device, const mdm_max_pool_shape *shape, const void *gradient,
                           const void *other, const void *x, const void *y, void *x_gradient) {
    device->operations->max_pool_backward(device, shape, gradient, other, x, y, x_gradient);
}

void mdm_pool_forward(mdm_device *device, const mdm_norm_shape *shape, const void *x, const void *residual,
                      float *embedding) {
    device->operations->pool_forward(device, shape, x, residual, embedding);
}

void mdm_pool_backward(mdm_device *device, const mdm_norm_shape *shape, const float *embedding_gradient,
                       void *gradient) {
    device->operations->pool_backward(device, shape, embedding_gradient, gradient);
}

void mdm_sgd_step(mdm_device *device, float *weights, const float *gradient, float *velocity, int64_t count,
                  const float *rate, float momentum, float weight_decay, const double *verdict) {
    device->operations->sgd_step(device, weights, gradient, velocity, count, rate, momentum, weight_decay,
                                 verdict);
}

void mdm_sum_squares(mdm_device *device, const float *values, int64_t count, double *sum) {
    device->operations->sum_squares(device, values, count, sum);
}

void mdm_average_step(mdm_device *device, float *average, const float *values, int64_t count, float decay) {
    device->operations->average_step(device, average, values, count, decay);
}
