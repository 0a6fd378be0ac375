/* Forward: walks the table of layers, then the heads. */
#include "executor.h"

/* What the parts of one layer, forward, need. */
typedef struct layer_work {
    mdm_network *network;
    const mdm_layer *layer;
    int number;
    norm_mode mode;
    const float *images; /* of the pass, where the layer reads them */
} layer_work;

static const void *residual_of(const mdm_executor *executor, const mdm_layer *l, const part *p) {
    return l->residual >= 0 ? mdm_executor_rows(executor, l->residual, p->first) : NULL;
}

static mdm_status norm_statistics_part(mdm_executor *executor, const part *p, void *context) {
    const mdm_layer *l = ((const layer_work *)context)->layer;
    mdm_norm_shape shape = mdm_executor_norm_shape(executor, l, p);
    mdm_norm_statistics(p->device, &shape, mdm_executor_rows(executor, l->input, p->first),
                        residual_of(executor, l, p), p->sums, p->sums + mdm_executor_norm_count(executor, l));
    return MDM_OK;
}

static mdm_status norm_relu_part(mdm_executor *executor, const part *p, void *context) {
    const layer_work *w = context;
    const mdm_layer *l = w->layer;
    mdm_norm_shape shape = mdm_executor_norm_shape(executor, l, p);
    const mdm_norm_values *values = &executor->norms[w->number];
    int is_added = w->mode.batch || w->mode.keep; /* by the statistics, in place */
    mdm_norm_relu_forward(p->device, &shape, mdm_executor_rows(executor, l->input, p->first),
                          is_added ? NULL : residual_of(executor, l, p), values->scale, values->shift,
                          mdm_executor_rows(executor, l->output, p->first));
    return MDM_OK;
}

/* Statistics and what they give in one, where they are this rank's alone. */
static void norm_statistics_here(mdm_executor *executor, const layer_work *work,
                                 const mdm_norm_forward_rest *rest) {
    const part *p = &executor->whole;
    const mdm_layer *l = work->layer;
    mdm_norm_shape shape = mdm_executor_norm_shape(executor, l, p);
    mdm_norm_statistics_then(p->device, &shape, mdm_executor_rows(executor, l->input, p->first),
                             residual_of(executor, l, p), p->sums,
                             p->sums + mdm_executor_norm_count(executor, l), rest);
}

static mdm_status norm_forward(mdm_executor *executor, layer_work *work) {
    const mdm_layout *layout = executor->layout;
    const mdm_layer *l = work->layer;
    mdm_network *network = work->network;
    mdm_device *device = executor->device;
    const mdm_norm_values *values = &executor->norms[work->number];
    float *running_mean = network->home.statistics + layout->tensors[l->running].offset;
    float *running_variance = network->home.statistics + layout->tensors[l->running + 1].offset;
    const float *gamma = network->home.weights + layout->tensors[l->weight].offset;
    const float *beta = network->home.weights + layout->tensors[l->weight + 1].offset;
    int count = mdm_executor_norm_count(executor, l), sets = executor->whole.sets,
        rows = executor->whole.rows / sets;
    if (work->mode.batch && mdm_executor_sums_alone(executor) && rows > 0) {
        mdm_norm_forward_rest rest = {(double)rows * l->height * l->width,
                                      gamma,
                                      beta,
                                      work->mode.track ? running_mean : NULL,
                                      running_variance,
                                      values};
        norm_statistics_here(executor, work, &rest);
        return mdm_executor_whole(executor, norm_relu_part, work);
    }
    if (work->mode.batch || (work->mode.keep && l->residual >= 0))
        MDM_TRY(mdm_executor_sum_parts(executor, norm_statistics_part, work, 2 * count));
    if (work->mode.batch) {
        MDM_TRY(mdm_executor_sum(executor, 2 * count));
        if (executor->current_total > 0)
            mdm_norm_from_sums(device, l->in_channels, sets, executor->sums, executor->sums + count,
                               (double)executor->current_total * l->height * l->width, gamma, beta,
                               work->mode.track ? running_mean : NULL, running_variance, values);
    } else {
        mdm_norm_from_running(device, l->in_channels, running_mean, running_variance, gamma, beta, values);
    }
    return mdm_executor_whole(executor, norm_relu_part, work);
}

/* One of the linear layers, row by row of a part. */
typedef struct linear_work {
    const mdm_network *network;
    int head, weight; /* the layer and its tensor; the bias is the next one */
    const float *x;
    float *y;
} linear_work;

static mdm_status linear_part(mdm_executor *executor, const part *p, void *context) {
    const linear_work *w = context;
    const mdm_tensor_info *t = &executor->layout->tensors[w->weight];
    const float *weights = w->network->home.weights;
    return mdm_linear_forward(p->heads[w->head], w->x + (int64_t)p->first * t->dims[1], weights + t->offset,
                              weights + t[1].offset, w->y + (int64_t)p->first * t->dims[0]);
}

mdm_status mdm_classifier_forward(mdm_executor *executor, mdm_network *network, const float *embedding,
                                  float *logits) {
    linear_work work = {network, CLASSIFIER, executor->layout->classifier_weight, embedding, logits};
    return mdm_executor_each_part(executor, linear_part, &work);
}

static mdm_status head_statistics_part(mdm_executor *executor, const part *p, void *context) {
    const head_buffers *h = context;
    int columns = executor->layout->spec.projection;
    mdm_column_statistics(p->device, p->rows, columns, h->linear + (int64_t)p->first * columns, p->sums,
                          p->sums + columns, NULL);
    return MDM_OK;
}

/* The projection head's batch norm over rows: normalised (kept for backward) and projection = gamma *
 * normalised + beta. */
mdm_status mdm_executor_project(mdm_executor *executor, mdm_network *network, const head_buffers *h,
                                const mdm_norm_values *norm, norm_mode mode) {
    const mdm_layout *layout = executor->layout;
    int columns = layout->spec.projection;
    mdm_device *device = executor->device;
    float *running_mean = network->home.statistics + layout->tensors[layout->projection_running].offset;
    float *running_variance =
        network->home.statistics + layout->tensors[layout->projection_running + 1].offset;
    const float *gamma = network->home.weights + layout->tensors[layout->projection_gamma].offset;
    const float *beta = network->home.weights + layout->tensors[layout->projection_gamma + 1].offset;
    double *sums = executor->sums;
    int rows = executor->whole.rows;
    const mdm_norm_forward_rest rest = {(double)executor->current_total,
                                        gamma,
                                        beta,
                                        mode.track ? running_mean : NULL,
                                        running_variance,
                                        norm};
    if (mode.batch && mdm_executor_sums_alone(executor) && rows > 0) {
        mdm_column_statistics(device, rows, columns, h->linear, sums, sums + columns, &rest);
    } else if (mode.batch) {
        MDM_TRY(mdm_executor_sum_parts(executor, head_statistics_part, (void *)(uintptr_t)h, 2 * columns));
        MDM_TRY(mdm_executor_sum(executor, 2 * columns));
        if (executor->current_total > 0)
            mdm_norm_from_sums(device, columns, 1, sums, sums + columns, rest.count, gamma, beta,
                               rest.running_mean, running_variance, norm);
    } else {
        mdm_norm_from_running(device, columns, running_mean, running_variance, gamma, beta, norm);
    }
    mdm_column_norm_forward(device, rows, columns, h->linear, norm, gamma, beta, h->normalised,
                            h->projection);
    return MDM_OK;
}

mdm_status mdm_executor_forward_heads(mdm_executor *executor, mdm_network *network) {
    const head_buffers *h = &executor->heads;
    linear_work work = {network, PROJECTION, executor->layout->projection_weight, h->embedding, h->linear};
    MDM_TRY(mdm_classifier_forward(executor, network, h->embedding, h->logits));
    return mdm_executor_each_part(executor, linear_part, &work);
}

mdm_status mdm_executor_prepare(mdm_executor *executor, mdm_network *network) {
    MDM_TRY(mdm_network_send(network, executor->device));
    return mdm_network_make_filters(network, executor->precision);
}

/* The plan's convolutions read the network's weights: its filters, or copies, unless these are there. */
static mdm_status prepare_plan(mdm_executor *executor, const mdm_network *network, plan *p) {
    const mdm_layout *layout = executor->layout;
    for (int i = 0; network->filters && p->rows > 0 && i < layout->layer_count; i++)
        if (p->convolutions[i])
            MDM_TRY(mdm_filters_serve(network->filters, layout->tensors[layout->layers[i].weight].offset,
                                      p->convolutions[i]));
    if (network->filters || p->rows == 0 || p->prepared == network->version) return MDM_OK;
    for (int i = 0; i < layout->layer_count; i++)
        if (p->convolutions[i])
            MDM_TRY(mdm_convolution_set_weights(p->convolutions[i],
                                                network->home.weights +
                                                    layout->tensors[layout->layers[i].weight].offset));
    p->prepared = network->version;
    return MDM_OK;
}

mdm_status mdm_executor_begin_pass(mdm_executor *executor, mdm_network *network, plan *p) {
    MDM_TRY(mdm_executor_prepare(executor, network));
    executor->current = p;
    return prepare_plan(executor, network, p);
}

static norm_mode mode_of(const mdm_executor *executor, mdm_pass pass) {
    norm_mode mode = {.batch = pass != MDM_PASS_EVALUATE && executor->batchnorm != MDM_BATCHNORM_FROZEN,
                      .track = pass == MDM_PASS_GUESS || pass == MDM_PASS_TRAIN,
                      .keep = pass == MDM_PASS_TRAIN || pass == MDM_PASS_MIXED};
    return mode;
}

static mdm_status convolution_part(mdm_executor *executor, const part *p, void *context) {
    const layer_work *w = context;
    const mdm_network_spec *s = &executor->layout->spec;
    size_t image = (size_t)s->channels * (size_t)s->height * (size_t)s->width;
    const void *input = w->layer->input < 0 ? (const void *)(w->images + (size_t)p->first * image)
                                            : mdm_executor_rows(executor, w->layer->input, p->first);
    if (p->rows == 0) return MDM_OK;
    return mdm_convolution_forward(p->convolutions[w->number], input,
                                   mdm_executor_rows(executor, w->layer->output, p->first));
}

/* Layers without weights. */
static mdm_status weightless_part(mdm_executor *executor, const part *p, void *context) {
    const mdm_layer *l = ((const layer_work *)context)->layer;
    mdm_norm_shape shape = {p->rows, l->in_channels, l->height * l->width, executor->precision, 0, 1};
    const void *input = mdm_executor_rows(executor, l->input, p->first);
    if (l->kind == MDM_LAYER_POOL) {
        mdm_pool_forward(p->device, &shape, input, residual_of(executor, l, p),
                         executor->heads.embedding + (size_t)p->first * (size_t)executor->layout->embedding);
    } else if (l->kind == MDM_LAYER_ADD_RELU) {
        mdm_add_relu_forward(p->device, &shape, input, residual_of(executor, l, p),
                             mdm_executor_rows(executor, l->output, p->first));
    } else {
        mdm_max_pool_shape pool = {p->rows, l->in_channels, l->height, l->width, executor->precision};
        mdm_max_pool_forward(p->device, &pool, input, mdm_executor_rows(executor, l->output, p->first));
    }
    return MDM_OK;
}

mdm_status mdm_executor_forward_layers(mdm_executor *executor, mdm_network *network, norm_mode mode,
                                       const float *images) {
    const mdm_layout *layout = executor->layout;
    executor->current_uses_batch_statistics = mode.batch;
    for (int i = 0; i < layout->layer_count; i++) {
        layer_work work = {network, &layout->layers[i], i, mode, images};
        if (work.layer->kind == MDM_LAYER_NORM_RELU)
            MDM_TRY(norm_forward(executor, &work));
        else
            MDM_TRY(mdm_executor_whole(
                executor, work.layer->kind == MDM_LAYER_CONVOLUTION ? convolution_part : weightless_part,
                &work));
    }
    if (network->device && mode.batch && mode.track)
        network->device_is_newer = 1; /* its running statistics moved */
    return MDM_OK;
}

mdm_status mdm_executor_forward_pass(mdm_executor *executor, mdm_network *network, int rows,
                                     const float *images, mdm_pass pass, mdm_outputs *outputs) {
    const head_buffers *h = &executor->heads;
    norm_mode mode = mode_of(executor, pass);
    plan *p = mdm_executor_find_plan(executor, rows, pass == MDM_PASS_EVALUATE);
    if (!p) return mdm_fail(MDM_LOST, "no plan was made for %d rows", rows);
    MDM_TRY(mdm_executor_begin_pass(executor, network, p));
    MDM_TRY(mdm_executor_lay_parts(executor, rows, pass == MDM_PASS_EVALUATE));
    if (executor->reproducible && mode.keep && !network->gradient_sums.whole)
        MDM_TRY(mdm_grid_sums_create(executor->layout->weight_count, &network->gradient_sums));
    executor->current_total = mdm_executor_sums_alone(executor) ? rows : mdm_executor_total_rows(executor);
    MDM_TRY(mdm_executor_forward_layers(executor, network, mode, images));
    *outputs = (mdm_outputs){.embedding = h->embedding, .logits = h->logits};
    if (pass == MDM_PASS_EVALUATE) return mdm_classifier_forward(executor, network, h->embedding, h->logits);
    outputs->projection = h->projection;
    MDM_TRY(mdm_executor_forward_heads(executor, network));
    return mdm_executor_project(executor, network, h, &executor->head_norm[0], mode);
}
