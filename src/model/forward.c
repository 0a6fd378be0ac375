/* Forward: walks the table of layers, then the heads. */
#include "executor.h"
#include "mdm/device/formulas.h"
#include <string.h>

static void *buffer(const mdm_executor *executor, int number) {
    return executor->arena + executor->current->buffer_offset[number];
}

/* Which statistics a pass normalises with, and whether it moves the running ones. */
typedef struct norm_mode {
    int batch, track, keep;
} norm_mode;

static mdm_status norm_forward(mdm_executor *executor, mdm_network *network, int number, int rows,
                               norm_mode mode) {
    const mdm_layout *layout = executor->layout;
    const mdm_layer *l = &layout->layers[number];
    mdm_device *device = executor->device;
    const mdm_norm_values *values = &executor->norms[number];
    mdm_norm_shape shape = {rows, l->in_channels, l->height * l->width, executor->precision, l->linear};
    void *x = buffer(executor, l->input);
    const void *residual = l->residual >= 0 ? buffer(executor, l->residual) : NULL;
    float *running_mean = network->encoder.statistics + layout->tensors[l->running].offset;
    float *running_variance = network->encoder.statistics + layout->tensors[l->running + 1].offset;
    const float *gamma = network->encoder.weights + layout->tensors[l->weight].offset;
    const float *beta = network->encoder.weights + layout->tensors[l->weight + 1].offset;
    int padded = mdm_padded_channels(device, l->in_channels);
    double *sums = executor->sums;
    if (mode.batch || (mode.keep && residual)) {
        mdm_device_zero(device, sums, sizeof(double) * 2 * (size_t)padded);
        mdm_norm_statistics(device, &shape, x, residual, sums, sums + padded);
        residual = NULL; /* x holds the sum now */
    }
    if (mode.batch) {
        int64_t total;
        MDM_TRY(mdm_executor_sum(executor, 2 * padded, rows, &total));
        if (total > 0)
            mdm_norm_from_sums(device, l->in_channels, sums, sums + padded, (double)total * shape.pixels,
                               gamma, beta, mode.track ? running_mean : NULL, running_variance, values);
        executor->current_total = total;
    } else {
        mdm_norm_from_running(device, l->in_channels, running_mean, running_variance, gamma, beta, values);
    }
    mdm_norm_relu_forward(device, &shape, x, residual, values->scale, values->shift,
                          buffer(executor, l->output));
    return MDM_OK;
}

static void add_bias(float *matrix, int rows, int columns, const float *bias) {
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) matrix[(size_t)r * columns + c] += bias[c];
}

void mdm_classifier_forward(const mdm_network *network, int rows, const float *embedding, float *logits) {
    const mdm_layout *layout = network->layout;
    if (rows == 0) return;
    const float *weight = network->weights + layout->tensors[layout->classifier_weight].offset;
    mdm_product_nt(rows, layout->spec.classes, layout->embedding, embedding, weight, 0.0f, logits);
    add_bias(logits, rows, layout->spec.classes,
             network->weights + layout->tensors[layout->classifier_weight + 1].offset);
}

/* The projection head's batch norm over rows: normalised (kept for backward) and projection = gamma *
 * normalised + beta. */
static mdm_status head_norm_forward(mdm_executor *executor, mdm_network *network, int rows, norm_mode mode) {
    const mdm_layout *layout = executor->layout;
    int columns = layout->spec.projection;
    head_buffers *h = &executor->heads;
    float *running_mean = network->statistics + layout->tensors[layout->projection_running].offset;
    float *running_variance = network->statistics + layout->tensors[layout->projection_running + 1].offset;
    const float *gamma = network->weights + layout->tensors[layout->projection_gamma].offset;
    const float *beta = network->weights + layout->tensors[layout->projection_gamma + 1].offset;
    if (mode.batch) {
        int64_t total;
        double *sums = executor->host_sums;
        memset(sums, 0, sizeof(double) * 2 * (size_t)columns);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) {
                double v = h->linear[(size_t)r * columns + c];
                sums[c] += v;
                sums[columns + c] += v * v;
            }
        MDM_TRY(mdm_executor_sum_on_host(executor, 2 * columns, rows, &total));
        for (int c = 0; total > 0 && c < columns; c++)
            mdm_norm_of_sums(sums[c], sums[columns + c], (double)total, &executor->head_mean[c],
                             &executor->head_inverse[c], mode.track ? &running_mean[c] : NULL,
                             &running_variance[c]);
    } else {
        for (int c = 0; c < columns; c++) {
            executor->head_mean[c] = running_mean[c];
            executor->head_inverse[c] = mdm_inverse_deviation(running_variance[c]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            size_t i = (size_t)r * columns + c;
            h->normalised[i] = (h->linear[i] - executor->head_mean[c]) * executor->head_inverse[c];
            h->projection[i] = gamma[c] * h->normalised[i] + beta[c];
        }
    return MDM_OK;
}

static mdm_status heads_forward(mdm_executor *executor, mdm_network *network, int rows, norm_mode mode) {
    const mdm_layout *layout = executor->layout;
    head_buffers *h = &executor->heads;
    mdm_classifier_forward(network, rows, h->embedding, h->logits);
    if (rows > 0) {
        mdm_product_nt(rows, layout->spec.projection, layout->embedding, h->embedding,
                       network->weights + layout->tensors[layout->projection_weight].offset, 0.0f, h->linear);
        add_bias(h->linear, rows, layout->spec.projection,
                 network->weights + layout->tensors[layout->projection_weight + 1].offset);
    }
    return head_norm_forward(executor, network, rows, mode);
}

/* Lets the plan's convolutions take over the network's weights, unless they hold them already. */
static mdm_status prepare_weights(mdm_executor *executor, const mdm_network *network) {
    plan *p = executor->current;
    const mdm_layout *layout = executor->layout;
    if (p->rows == 0 || p->prepared == network->version) return MDM_OK;
    for (int i = 0; i < layout->layer_count; i++)
        if (p->convolutions[i])
            MDM_TRY(mdm_convolution_set_weights(p->convolutions[i],
                                                network->encoder.weights +
                                                    layout->tensors[layout->layers[i].weight].offset));
    p->prepared = network->version;
    return MDM_OK;
}

static norm_mode mode_of(const mdm_executor *executor, mdm_pass pass) {
    norm_mode mode = {.batch = pass != MDM_PASS_EVALUATE && executor->batchnorm != MDM_BATCHNORM_FROZEN,
                      .track = pass == MDM_PASS_GUESS || pass == MDM_PASS_TRAIN,
                      .keep = pass == MDM_PASS_TRAIN || pass == MDM_PASS_MIXED};
    return mode;
}

/* Where the device can read the images: a copy in its memory, which backward finds there again. */
static mdm_status take_images(mdm_executor *executor, int rows, const float **images) {
    const mdm_network_spec *s = &executor->layout->spec;
    size_t image = (size_t)s->channels * (size_t)s->height * (size_t)s->width;
    if (executor->shares_memory) return MDM_OK;
    MDM_TRY(
        mdm_device_upload(executor->device, executor->images, *images, sizeof(float) * (size_t)rows * image));
    *images = executor->images;
    return MDM_OK;
}

mdm_status mdm_executor_forward(mdm_executor *executor, mdm_network *network, int rows, const float *images,
                                mdm_pass pass, mdm_outputs *outputs) {
    const mdm_layout *layout = executor->layout;
    norm_mode mode = mode_of(executor, pass);
    executor->current = mdm_executor_find_plan(executor, rows, !mode.keep);
    if (!executor->current) return mdm_fail(MDM_LOST, "no plan was made for %d rows", rows);
    MDM_TRY(mdm_network_send(network, executor->device));
    MDM_TRY(prepare_weights(executor, network));
    MDM_TRY(take_images(executor, rows, &images));
    executor->current_uses_batch_statistics = mode.batch;
    executor->current_total = rows;
    for (int i = 0; i < layout->layer_count; i++) {
        const mdm_layer *l = &layout->layers[i];
        if (l->kind == MDM_LAYER_NORM_RELU) {
            MDM_TRY(norm_forward(executor, network, i, rows, mode));
        } else if (l->kind == MDM_LAYER_CONVOLUTION && rows > 0) {
            const void *input = l->input < 0 ? (const void *)images : buffer(executor, l->input);
            MDM_TRY(mdm_convolution_forward(executor->current->convolutions[i], input,
                                            buffer(executor, l->output)));
        } else if (l->kind == MDM_LAYER_POOL) {
            mdm_norm_shape shape = {rows, l->in_channels, l->height * l->width, executor->precision, 0};
            mdm_pool_forward(executor->device, &shape, buffer(executor, l->input),
                             l->residual >= 0 ? buffer(executor, l->residual) : NULL,
                             executor->shares_memory ? executor->heads.embedding : executor->embedding);
        } else if (l->kind == MDM_LAYER_ADD_RELU) {
            mdm_norm_shape shape = {rows, l->in_channels, l->height * l->width, executor->precision, 0};
            mdm_add_relu_forward(executor->device, &shape, buffer(executor, l->input),
                                 buffer(executor, l->residual), buffer(executor, l->output));
        } else if (l->kind == MDM_LAYER_MAX_POOL) {
            mdm_max_pool_shape shape = {rows, l->in_channels, l->height, l->width, executor->precision};
            mdm_max_pool_forward(executor->device, &shape, buffer(executor, l->input),
                                 buffer(executor, l->output));
        }
    }
    if (network->device) {
        if (mode.batch && mode.track) network->device_is_newer = 1; /* its running statistics moved */
        MDM_TRY(mdm_device_download(executor->device, executor->heads.embedding, executor->embedding,
                                    sizeof(float) * (size_t)rows * (size_t)layout->embedding));
    }
    MDM_TRY(heads_forward(executor, network, rows, mode));
    *outputs = (mdm_outputs){executor->heads.embedding, executor->heads.projection, executor->heads.logits};
    return MDM_OK;
}
