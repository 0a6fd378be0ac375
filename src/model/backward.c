/* Backward: the heads, then the table of layers from its end; gradients go to the all-reduce as they are
 * completed. */
#include "executor.h"
#include <string.h>

/* Buckets of 4 MiB (a dozen for PreActResNet-18 of width 64), larger for networks that would need more
 * than 32. */
enum { BUCKET_FLOATS = 1 << 20, MOST_BUCKETS = 32 };

static void *buffer(const mdm_executor *executor, int number) {
    return executor->arena + executor->current->buffer_offset[number];
}

static void *slot(const mdm_executor *executor, int number) {
    return executor->arena + executor->current->slot_offset[number];
}

/* Of the heads, in host memory. */
static float *gradient_of(const mdm_executor *executor, mdm_network *network, int tensor) {
    return network->gradient + executor->layout->tensors[tensor].offset;
}

/* Of the encoder, in the device's memory. */
static float *encoder_gradient_of(const mdm_executor *executor, mdm_network *network, int tensor) {
    return network->encoder.gradient + executor->layout->tensors[tensor].offset;
}

static void sum_columns(const float *matrix, int rows, int columns, float *sums, int accumulate) {
    for (int c = 0; c < columns; c++) {
        double sum = 0;
        for (int r = 0; r < rows; r++) sum += matrix[(size_t)r * columns + c];
        sums[c] = (float)(accumulate ? sums[c] + sum : sum);
    }
}

/* Gradients of y = x W^T + b: weight and bias, and x's (written or, with `add`, added to). */
static void linear_backward(const mdm_network *network, float *weight_gradient, float *bias_gradient,
                            int weight_tensor, int rows, const float *x, const float *y_gradient,
                            float *x_gradient, float add, int accumulate) {
    const mdm_tensor_info *t = &network->layout->tensors[weight_tensor];
    int outputs = (int)t->dims[0], inputs = (int)t->dims[1];
    if (rows == 0) {
        if (!accumulate) memset(weight_gradient, 0, (size_t)t->count * sizeof(float));
    } else {
        mdm_product_tn(outputs, inputs, rows, y_gradient, x, accumulate ? 1.0f : 0.0f, weight_gradient);
        if (x_gradient)
            mdm_product_nn(rows, inputs, outputs, y_gradient, network->weights + t->offset, add, x_gradient);
    }
    sum_columns(y_gradient, rows, outputs, bias_gradient, accumulate);
}

void mdm_classifier_backward(mdm_network *network, int rows, const float *embedding,
                             const float *logits_gradient, float *embedding_gradient, int accumulate) {
    const mdm_layout *layout = network->layout;
    float *weight = network->gradient + layout->tensors[layout->classifier_weight].offset;
    float *bias = network->gradient + layout->tensors[layout->classifier_weight + 1].offset;
    linear_backward(network, weight, bias, layout->classifier_weight, rows, embedding, logits_gradient,
                    embedding_gradient, 0.0f, accumulate);
}

/* Batch norm of the projection head: gradient of its input into heads.linear_gradient. */
static mdm_status head_norm_backward(mdm_executor *executor, mdm_network *network, int rows,
                                     const float *gradient, int accumulate) {
    const mdm_layout *layout = executor->layout;
    head_buffers *h = &executor->heads;
    int columns = layout->spec.projection;
    const float *gamma = network->weights + layout->tensors[layout->projection_gamma].offset;
    float *gamma_gradient = gradient_of(executor, network, layout->projection_gamma);
    float *beta_gradient = gradient_of(executor, network, layout->projection_gamma + 1);
    double *sums = executor->host_sums;
    int64_t total = rows;
    memset(sums, 0, sizeof(double) * 2 * (size_t)columns);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            size_t i = (size_t)r * columns + c;
            sums[c] += gradient[i];
            sums[columns + c] += (double)gradient[i] * h->normalised[i];
        }
    for (int c = 0; c < columns; c++) {
        beta_gradient[c] = (float)(accumulate ? beta_gradient[c] + sums[c] : sums[c]);
        gamma_gradient[c] = (float)(accumulate ? gamma_gradient[c] + sums[columns + c] : sums[columns + c]);
    }
    if (executor->current_uses_batch_statistics)
        MDM_TRY(mdm_executor_sum_on_host(executor, 2 * columns, rows, &total));
    for (int c = 0; c < columns; c++) {
        double scale = (double)gamma[c] * executor->head_inverse[c], mean = 0, product = 0;
        if (executor->current_uses_batch_statistics && total > 0)
            mean = sums[c] / (double)total, product = sums[columns + c] / (double)total;
        for (int r = 0; r < rows; r++) {
            size_t i = (size_t)r * columns + c;
            h->linear_gradient[i] = (float)(scale * (gradient[i] - mean - h->normalised[i] * product));
        }
    }
    return MDM_OK;
}

static void clear_gradient(mdm_executor *executor, mdm_network *network, int tensor) {
    memset(gradient_of(executor, network, tensor), 0,
           (size_t)executor->layout->tensors[tensor].count * sizeof(float));
}

/* heads.embedding_gradient = all that reaches the embedding. */
static mdm_status heads_backward(mdm_executor *executor, mdm_network *network, int rows,
                                 const float *embedding_gradient, const float *projection_gradient,
                                 const float *logits_gradient, int accumulate) {
    const mdm_layout *layout = executor->layout;
    head_buffers *h = &executor->heads;
    size_t bytes = (size_t)rows * (size_t)layout->embedding * sizeof(float);
    if (embedding_gradient)
        memcpy(h->embedding_gradient, embedding_gradient, bytes);
    else
        memset(h->embedding_gradient, 0, bytes);
    if (logits_gradient) {
        linear_backward(network, gradient_of(executor, network, layout->classifier_weight),
                        gradient_of(executor, network, layout->classifier_weight + 1),
                        layout->classifier_weight, rows, h->embedding, logits_gradient, h->embedding_gradient,
                        1.0f, accumulate);
    } else if (!accumulate) {
        for (int i = 0; i < 2; i++) clear_gradient(executor, network, layout->classifier_weight + i);
    }
    if (projection_gradient) {
        MDM_TRY(head_norm_backward(executor, network, rows, projection_gradient, accumulate));
        linear_backward(network, gradient_of(executor, network, layout->projection_weight),
                        gradient_of(executor, network, layout->projection_weight + 1),
                        layout->projection_weight, rows, h->embedding, h->linear_gradient,
                        h->embedding_gradient, 1.0f, accumulate);
    } else if (!accumulate) {
        for (int i = 0; i < 2; i++) clear_gradient(executor, network, layout->projection_weight + i);
        for (int i = 0; i < 2; i++) clear_gradient(executor, network, layout->projection_gamma + i);
    }
    return MDM_OK;
}

static mdm_status norm_backward(mdm_executor *executor, mdm_network *network, int number, int rows,
                                int accumulate) {
    const mdm_layer *l = &executor->layout->layers[number];
    mdm_device *device = executor->device;
    const mdm_norm_values *v = &executor->norms[number];
    mdm_norm_shape shape = {rows, l->in_channels, l->height * l->width, executor->precision, l->linear};
    void *gradient = slot(executor, l->gradient);
    const void *other = l->other >= 0 ? slot(executor, l->other) : NULL, *x = buffer(executor, l->input);
    int padded = mdm_padded_channels(device, l->in_channels);
    double *sums = executor->sums, count = 0; /* 0: the statistics were constants */
    mdm_device_zero(device, sums, sizeof(double) * 2 * (size_t)padded);
    mdm_norm_relu_backward_sums(device, &shape, gradient, other, x, v->scale, v->shift, v->mean,
                                v->inverse_deviation, sums, sums + padded);
    mdm_norm_gradients(device, l->in_channels, sums, sums + padded, accumulate,
                       encoder_gradient_of(executor, network, l->weight),
                       encoder_gradient_of(executor, network, l->weight + 1));
    if (executor->current_uses_batch_statistics) {
        int64_t total;
        MDM_TRY(mdm_executor_sum(executor, 2 * padded, rows, &total));
        count = (double)(total > 0 ? total : 1) * shape.pixels;
    }
    mdm_norm_means(device, padded, sums, sums + padded, count, executor->mean_gradient,
                   executor->mean_product);
    mdm_norm_relu_backward_input(device, &shape, gradient, other, x, v->scale, v->shift, v->mean,
                                 v->inverse_deviation, executor->mean_gradient, executor->mean_product);
    return MDM_OK;
}

static mdm_status convolution_backward(mdm_executor *executor, mdm_network *network, int number, int rows,
                                       const float *images, int accumulate) {
    const mdm_layer *l = &executor->layout->layers[number];
    float *weight_gradient = encoder_gradient_of(executor, network, l->weight);
    if (rows == 0) {
        size_t bytes = sizeof(float) * (size_t)executor->layout->tensors[l->weight].count;
        if (!accumulate) mdm_device_zero(executor->device, weight_gradient, bytes);
        return MDM_OK;
    }
    mdm_convolution *convolution = executor->current->convolutions[number];
    const void *input = l->input < 0 ? (const void *)images : buffer(executor, l->input);
    const void *gradient = slot(executor, l->gradient);
    MDM_TRY(mdm_convolution_backward_weights(convolution, input, gradient, weight_gradient, accumulate));
    if (l->input_gradient < 0) return MDM_OK;
    return mdm_convolution_backward_data(convolution, gradient, slot(executor, l->input_gradient));
}

/* Layers without weights. */
static void weightless_backward(mdm_executor *executor, const mdm_layer *l, int rows) {
    mdm_norm_shape shape = {rows, l->in_channels, l->height * l->width, executor->precision, 0};
    void *gradient = slot(executor, l->gradient);
    const void *other = l->other >= 0 ? slot(executor, l->other) : NULL;
    if (l->kind == MDM_LAYER_POOL) {
        mdm_pool_backward(executor->device, &shape,
                          executor->shares_memory ? executor->heads.embedding_gradient : executor->embedding,
                          gradient);
    } else if (l->kind == MDM_LAYER_ADD_RELU) {
        mdm_add_relu_backward(executor->device, &shape, gradient, other, buffer(executor, l->output),
                              slot(executor, l->input_gradient));
    } else {
        mdm_max_pool_shape pool = {rows, l->in_channels, l->height, l->width, executor->precision};
        mdm_max_pool_backward(executor->device, &pool, gradient, other, buffer(executor, l->input),
                              buffer(executor, l->output), slot(executor, l->input_gradient));
    }
}

/* Where the device has memory of its own, the encoder's part of [first, end) goes to host memory first, where
 * the ranks' messages are made. */
static mdm_status bring_to_host(mdm_executor *executor, mdm_network *network, int64_t first, int64_t end) {
    int64_t encoder = executor->layout->encoder_count;
    if (!network->device || first >= encoder) return MDM_OK;
    return mdm_device_download(executor->device, network->gradient + first, network->encoder.gradient + first,
                               sizeof(float) * (size_t)((end < encoder ? end : encoder) - first));
}

/* Starts the reduction of what is complete, [first, *end), once it is large enough or the last. */
static mdm_status reduce_bucket(mdm_executor *executor, mdm_network *network, int64_t first, int64_t *end) {
    int64_t share = executor->layout->weight_count / MOST_BUCKETS,
            size = share > BUCKET_FLOATS ? share : BUCKET_FLOATS;
    if (mdm_comm_size(executor->comm) == 1) return MDM_OK;
    if (*end - first < size && first > 0) return mdm_comm_poll(executor->comm);
    MDM_TRY(bring_to_host(executor, network, first, *end));
    MDM_TRY(mdm_comm_reduce_start(executor->comm, network->gradient + first, *end - first));
    *end = first;
    return MDM_OK;
}

mdm_status mdm_executor_reduce_wait(mdm_executor *executor, mdm_network *network) {
    MDM_TRY(mdm_comm_reduce_wait(executor->comm));
    if (!network->device || mdm_comm_size(executor->comm) == 1) return MDM_OK;
    return mdm_device_upload(executor->device, network->encoder.gradient, network->gradient,
                             sizeof(float) * (size_t)executor->layout->encoder_count);
}

mdm_status mdm_executor_backward(mdm_executor *executor, mdm_network *network, int rows, const float *images,
                                 const float *embedding_gradient, const float *projection_gradient,
                                 const float *logits_gradient, int accumulate, int reduce) {
    const mdm_layout *layout = executor->layout;
    int64_t end = layout->weight_count;
    if (!executor->current || executor->current->rows != rows)
        return mdm_fail(MDM_LOST, "backward of %d rows does not follow their forward pass", rows);
    MDM_TRY(heads_backward(executor, network, rows, embedding_gradient, projection_gradient, logits_gradient,
                           accumulate));
    if (!executor->shares_memory) {
        images = executor->images;
        MDM_TRY(mdm_device_upload(executor->device, executor->embedding, executor->heads.embedding_gradient,
                                  sizeof(float) * (size_t)rows * (size_t)layout->embedding));
        network->device_is_newer = 1;
    }
    for (int i = layout->layer_count - 1; i >= 0; i--) {
        const mdm_layer *l = &layout->layers[i];
        if (l->kind == MDM_LAYER_POOL || l->kind == MDM_LAYER_ADD_RELU || l->kind == MDM_LAYER_MAX_POOL) {
            weightless_backward(executor, l, rows);
            continue;
        }
        if (l->kind == MDM_LAYER_NORM_RELU)
            MDM_TRY(norm_backward(executor, network, i, rows, accumulate));
        else
            MDM_TRY(convolution_backward(executor, network, i, rows, images, accumulate));
        if (reduce) MDM_TRY(reduce_bucket(executor, network, layout->tensors[l->weight].offset, &end));
    }
    return MDM_OK;
}
