/* Backward: the heads, then the table of layers from its end; gradients go to the all-reduce as they are
 * completed. */
#include "executor.h"

/* Buckets of 4 MiB (a dozen for PreActResNet-18 of width 64), larger for networks that would need more
 * than 32. */
enum { BUCKET_FLOATS = 1 << 20, MOST_BUCKETS = 32 };

static float *gradient_of(const mdm_executor *executor, mdm_network *network, int tensor) {
    return network->home.gradient + executor->layout->tensors[tensor].offset;
}

/* Gradients of one of the linear layers: weight and bias, and x's (written or, with `add`, added to). */
typedef struct linear_work {
    mdm_network *network;
    int head, weight; /* the layer and its tensor; the bias is the next one */
    const float *x, *y_gradient;
    float *x_gradient;
    int add, accumulate;
} linear_work;

static mdm_status linear_part(mdm_executor *executor, const part *p, void *context) {
    const linear_work *w = context;
    const mdm_tensor_info *t = &executor->layout->tensors[w->weight];
    int64_t x = (int64_t)p->first * t->dims[1], y = (int64_t)p->first * t->dims[0];
    int add = w->accumulate;
    float *weight = mdm_part_gradient(executor, p, gradient_of(executor, w->network, w->weight), 0, &add),
          *bias = mdm_part_gradient(executor, p, gradient_of(executor, w->network, w->weight + 1), t->count,
                                    &add);
    return mdm_linear_backward(p->heads[w->head], w->x + x, w->network->home.weights + t->offset,
                               w->y_gradient + y, add, weight, bias, w->add, w->x_gradient + x);
}

static mdm_status linear_backward(mdm_executor *executor, linear_work *work) {
    int64_t weights = executor->layout->tensors[work->weight].count;
    MDM_TRY(mdm_executor_each_part(executor, linear_part, work));
    mdm_executor_sum_shards(executor, work->network, work->weight, 0, work->accumulate);
    mdm_executor_sum_shards(executor, work->network, work->weight + 1, weights, work->accumulate);
    return MDM_OK;
}

mdm_status mdm_classifier_backward(mdm_executor *executor, mdm_network *network, const float *embedding,
                                   const float *logits_gradient, float *embedding_gradient, int accumulate) {
    linear_work work = {.network = network,
                        .head = CLASSIFIER,
                        .weight = network->layout->classifier_weight,
                        .x = embedding,
                        .y_gradient = logits_gradient,
                        .x_gradient = embedding_gradient,
                        .accumulate = accumulate};
    return linear_backward(executor, &work);
}

/* Sums of a norm's backward are its weights' gradients: sum for beta, product_sum for gamma. `tensor` is
 * gamma's. The sums are those of all ranks, so one of them adds them to what ranks will add up. */
static void norm_gradients(mdm_executor *executor, mdm_network *network, int tensor, int channels, int padded,
                           int accumulate) {
    mdm_grid_sums *gradient = &network->gradient_sums;
    int here = mdm_comm_rank(executor->comm) == 0 ? channels : 0;
    for (int i = 0; i < 2; i++) { /* gamma, beta */
        int64_t offset = executor->layout->tensors[tensor + i].offset;
        const double *sums = executor->sums + (i == 0 ? padded : 0);
        if (!accumulate) mdm_grid_sums_clear_part(gradient, offset, channels);
        gradient->whole[gradient->count] += mdm_grid_sums_add_doubles(gradient, offset, here, sums);
    }
}

typedef struct head_work {
    const head_buffers *heads;
    const float *gradient; /* of the projection */
} head_work;

static mdm_status head_sums_part(mdm_executor *executor, const part *p, void *context) {
    const head_work *w = context;
    int columns = executor->layout->spec.projection;
    int64_t first = (int64_t)p->first * columns;
    mdm_column_norm_backward_sums(p->device, p->rows, columns, w->gradient + first,
                                  w->heads->normalised + first, p->sums, p->sums + columns, NULL);
    return MDM_OK;
}

/* Of sums over this rank's rows, or where sums are reproducible over all ranks', that are in executor->sums:
 * `count` of each of the two. */
static void take_norm_gradients(mdm_executor *executor, mdm_network *network, int tensor, int channels,
                                int sets, int count, int accumulate) {
    if (executor->reproducible)
        norm_gradients(executor, network, tensor, channels, count, accumulate);
    else
        mdm_norm_gradients(executor->device, channels, sets, executor->sums, executor->sums + count,
                           accumulate, gradient_of(executor, network, tensor),
                           gradient_of(executor, network, tensor + 1));
}

/* Whether sums, gradients and means of a batch norm can be made in one: no other rank's sums are to be added.
 */
static int ends_here(const mdm_executor *executor) {
    return executor->whole.rows > 0 && !executor->reproducible &&
           (!executor->current_uses_batch_statistics || mdm_executor_sums_alone(executor));
}

/* What follows the sums then, of `count` values of a set. */
static mdm_norm_backward_rest backward_rest(mdm_executor *executor, mdm_network *network, int tensor,
                                            int accumulate, double count) {
    return (mdm_norm_backward_rest){gradient_of(executor, network, tensor),
                                    gradient_of(executor, network, tensor + 1),
                                    accumulate,
                                    executor->current_uses_batch_statistics ? count : 0,
                                    executor->mean_gradient,
                                    executor->mean_product};
}

/* The sums over rows of the projection head's batch norm, and what becomes of them. */
static mdm_status head_norm_sums(mdm_executor *executor, mdm_network *network, const head_buffers *h,
                                 const float *gradient, int accumulate) {
    head_work work = {h, gradient};
    int columns = executor->layout->spec.projection, tensor = executor->layout->projection_gamma;
    double *sums = executor->sums, count = 0; /* 0: the statistics were constants */
    if (ends_here(executor)) {
        const mdm_norm_backward_rest rest =
            backward_rest(executor, network, tensor, accumulate, executor->whole.rows);
        mdm_column_norm_backward_sums(executor->device, executor->whole.rows, columns, gradient,
                                      h->normalised, sums, sums + columns, &rest);
        return MDM_OK;
    }
    MDM_TRY(mdm_executor_sum_parts(executor, head_sums_part, &work, 2 * columns));
    if (executor->reproducible) MDM_TRY(mdm_executor_add_ranks(executor, 2 * columns));
    take_norm_gradients(executor, network, tensor, columns, 1, columns, accumulate);
    if (executor->current_uses_batch_statistics) {
        if (!executor->reproducible) MDM_TRY(mdm_executor_sum(executor, 2 * columns));
        count = (double)executor->current_total;
    }
    mdm_norm_means(executor->device, columns, sums, sums + columns, count, executor->mean_gradient,
                   executor->mean_product);
    return MDM_OK;
}

/* Batch norm of the projection head: gradient of its input into h->linear_gradient. */
static mdm_status head_norm_backward(mdm_executor *executor, mdm_network *network, const head_buffers *h,
                                     const mdm_norm_values *norm, const float *gradient, int accumulate) {
    const mdm_layout *layout = executor->layout;
    MDM_TRY(head_norm_sums(executor, network, h, gradient, accumulate));
    mdm_column_norm_backward_input(executor->device, executor->whole.rows, layout->spec.projection, gradient,
                                   h->normalised, norm,
                                   network->home.weights + layout->tensors[layout->projection_gamma].offset,
                                   executor->mean_gradient, executor->mean_product, h->linear_gradient);
    return MDM_OK;
}

static void clear_gradient(mdm_executor *executor, mdm_network *network, int tensor) {
    const mdm_tensor_info *t = &executor->layout->tensors[tensor];
    if (executor->reproducible) mdm_grid_sums_clear_part(&network->gradient_sums, t->offset, t->count);
    mdm_device_zero(executor->device, gradient_of(executor, network, tensor),
                    (size_t)t->count * sizeof(float));
}

mdm_status mdm_executor_backward_heads(mdm_executor *executor, mdm_network *network, const head_buffers *h,
                                       const mdm_norm_values *norm, const float *embedding_gradient,
                                       const float *projection_gradient, const float *logits_gradient,
                                       int accumulate) {
    const mdm_layout *layout = executor->layout;
    size_t bytes = (size_t)executor->whole.rows * (size_t)layout->embedding * sizeof(float);
    linear_work work = {.network = network,
                        .x = h->embedding,
                        .x_gradient = h->embedding_gradient,
                        .add = embedding_gradient != NULL,
                        .accumulate = accumulate};
    if (embedding_gradient)
        mdm_device_copy(executor->device, h->embedding_gradient, embedding_gradient, bytes);
    if (logits_gradient) {
        work.head = CLASSIFIER;
        work.weight = layout->classifier_weight;
        work.y_gradient = logits_gradient;
        MDM_TRY(linear_backward(executor, &work));
        work.add = 1;
    } else if (!accumulate) {
        for (int i = 0; i < 2; i++) clear_gradient(executor, network, layout->classifier_weight + i);
    }
    if (projection_gradient) {
        MDM_TRY(head_norm_backward(executor, network, h, norm, projection_gradient, accumulate));
        work.head = PROJECTION;
        work.weight = layout->projection_weight;
        work.y_gradient = h->linear_gradient;
        MDM_TRY(linear_backward(executor, &work));
        work.add = 1;
    } else if (!accumulate) {
        for (int i = 0; i < 2; i++) clear_gradient(executor, network, layout->projection_weight + i);
        for (int i = 0; i < 2; i++) clear_gradient(executor, network, layout->projection_gamma + i);
    }
    if (!work.add) mdm_device_zero(executor->device, h->embedding_gradient, bytes);
    return MDM_OK;
}

/* What the parts of one layer, backward, need. */
typedef struct layer_work {
    mdm_network *network;
    const mdm_layer *layer;
    int number, accumulate;
    const float *images; /* of the pass, where the layer reads them */
    int64_t first, end;  /* the gradient that is complete behind the layer, to be handed on; or nothing */
} layer_work;

/* The gradient that a layer was given, and what is to be added to it, of the shape of a buffer. */
static void *gradient_rows(const mdm_executor *executor, const mdm_layer *l, int buffer, const part *p) {
    return mdm_executor_slot_rows(executor, l->gradient, buffer, p->first);
}

static const void *other_rows(const mdm_executor *executor, const mdm_layer *l, int buffer, const part *p) {
    return l->other >= 0 ? mdm_executor_slot_rows(executor, l->other, buffer, p->first) : NULL;
}

/* Of the sets that a part's rows are. */
static mdm_norm_values norm_values(const mdm_executor *executor, const layer_work *w, const part *p) {
    const mdm_norm_values *v = &executor->norms[w->number];
    int first = p->first_set * mdm_padded_channels(executor->device, w->layer->in_channels);
    return (mdm_norm_values){v->mean + first, v->inverse_deviation + first, v->scale + first,
                             v->shift + first};
}

static mdm_status norm_sums_part(mdm_executor *executor, const part *p, void *context) {
    const layer_work *w = context;
    const mdm_layer *l = w->layer;
    const mdm_norm_values v = norm_values(executor, w, p);
    mdm_norm_shape shape = mdm_executor_norm_shape(executor, l, p);
    mdm_norm_relu_backward_sums(p->device, &shape, gradient_rows(executor, l, l->input, p),
                                other_rows(executor, l, l->input, p),
                                mdm_executor_rows(executor, l->input, p->first), v.scale, v.shift, v.mean,
                                v.inverse_deviation, p->sums, p->sums + mdm_executor_norm_count(executor, l));
    return MDM_OK;
}

static mdm_status norm_input_part(mdm_executor *executor, const part *p, void *context) {
    const layer_work *w = context;
    const mdm_layer *l = w->layer;
    const mdm_norm_values v = norm_values(executor, w, p);
    mdm_norm_shape shape = mdm_executor_norm_shape(executor, l, p);
    mdm_norm_relu_backward_input(p->device, &shape, gradient_rows(executor, l, l->input, p),
                                 other_rows(executor, l, l->input, p),
                                 mdm_executor_rows(executor, l->input, p->first), v.scale, v.shift, v.mean,
                                 v.inverse_deviation, executor->mean_gradient, executor->mean_product);
    return MDM_OK;
}

/* Sums, gradients and means in one, where no other rank's sums are to be added. */
static void norm_sums_here(mdm_executor *executor, const layer_work *work, double count) {
    const part *p = &executor->whole;
    const mdm_layer *l = work->layer;
    const mdm_norm_values v = norm_values(executor, work, p);
    mdm_norm_shape shape = mdm_executor_norm_shape(executor, l, p);
    const mdm_norm_backward_rest rest =
        backward_rest(executor, work->network, l->weight, work->accumulate, count);
    mdm_norm_relu_backward_sums_then(p->device, &shape, gradient_rows(executor, l, l->input, p),
                                     other_rows(executor, l, l->input, p),
                                     mdm_executor_rows(executor, l->input, p->first), &v, p->sums,
                                     p->sums + mdm_executor_norm_count(executor, l), &rest);
}

static mdm_status norm_backward(mdm_executor *executor, layer_work *work) {
    const mdm_layer *l = work->layer;
    mdm_device *device = executor->device;
    int sets = executor->whole.sets, values = mdm_executor_norm_count(executor, l);
    double *sums = executor->sums, count = 0; /* 0: the statistics were constants */
    if (ends_here(executor)) {
        norm_sums_here(executor, work, (double)(executor->whole.rows / sets) * l->height * l->width);
        return mdm_executor_whole(executor, norm_input_part, work);
    }
    MDM_TRY(mdm_executor_sum_parts(executor, norm_sums_part, work, 2 * values));
    if (executor->reproducible) MDM_TRY(mdm_executor_add_ranks(executor, 2 * values));
    take_norm_gradients(executor, work->network, l->weight, l->in_channels, sets, values, work->accumulate);
    if (executor->current_uses_batch_statistics) {
        if (!executor->reproducible) MDM_TRY(mdm_executor_sum(executor, 2 * values));
        count = (double)(executor->current_total > 0 ? executor->current_total : 1) * l->height * l->width;
    }
    mdm_norm_means(device, values, sums, sums + values, count, executor->mean_gradient,
                   executor->mean_product);
    return mdm_executor_whole(executor, norm_input_part, work);
}

static mdm_status weight_gradient_part(mdm_executor *executor, const part *p, void *context) {
    const layer_work *w = context;
    const mdm_layer *l = w->layer;
    const mdm_network_spec *s = &executor->layout->spec;
    size_t image = (size_t)s->channels * (size_t)s->height * (size_t)s->width;
    int accumulate = w->accumulate;
    float *weight_gradient =
        mdm_part_gradient(executor, p, gradient_of(executor, w->network, l->weight), 0, &accumulate);
    if (p->rows == 0) {
        size_t bytes = sizeof(float) * (size_t)executor->layout->tensors[l->weight].count;
        if (!accumulate) mdm_device_zero(p->device, weight_gradient, bytes);
        return MDM_OK;
    }
    const void *input = l->input < 0 ? (const void *)(w->images + (size_t)p->first * image)
                                     : mdm_executor_rows(executor, l->input, p->first);
    return mdm_convolution_backward_weights(p->convolutions[w->number], input,
                                            gradient_rows(executor, l, l->output, p), weight_gradient,
                                            accumulate);
}

static mdm_status data_gradient_part(mdm_executor *executor, const part *p, void *context) {
    const layer_work *w = context;
    const mdm_layer *l = w->layer;
    if (p->rows == 0 || l->input_gradient < 0) return MDM_OK;
    return mdm_convolution_backward_data(
        p->convolutions[w->number], gradient_rows(executor, l, l->output, p),
        mdm_executor_slot_rows(executor, l->input_gradient, l->input, p->first));
}

/* The gradient of the weights may be computed beside all that follows, until something it reads is written:
 * the gradient of the output, whose slot the layers share. Its other tensor, the activation, stays. */
static mdm_status convolution_backward(mdm_executor *executor, layer_work *work) {
    const mdm_layer *l = work->layer;
    MDM_TRY(mdm_beside_begin(executor->device));
    mdm_status status = mdm_executor_each_part(executor, weight_gradient_part, work);
    if (status == MDM_OK && work->network->filters && executor->whole.rows > 0)
        mdm_filters_take_gradient(work->network->filters, work->first, work->end,
                                  work->network->home.gradient, work->accumulate);
    mdm_status ended = mdm_beside_end(executor->device, l->gradient);
    if (status != MDM_OK || ended != MDM_OK) return status != MDM_OK ? status : ended;
    mdm_executor_sum_shards(executor, work->network, l->weight, 0, work->accumulate);
    return mdm_executor_whole(executor, data_gradient_part, work);
}

/* Slots that a layer writes must have been read by what is computed beside. */
static mdm_status wait_for_slots(mdm_executor *executor, const mdm_layer *l) {
    if (l->kind != MDM_LAYER_CONVOLUTION && l->gradient >= 0)
        MDM_TRY(mdm_beside_wait(executor->device, l->gradient));
    return l->input_gradient >= 0 ? mdm_beside_wait(executor->device, l->input_gradient) : MDM_OK;
}

/* Layers without weights. */
static mdm_status weightless_part(mdm_executor *executor, const part *p, void *context) {
    const mdm_layer *l = ((const layer_work *)context)->layer;
    mdm_norm_shape shape = {p->rows, l->in_channels, l->height * l->width, executor->precision, 0, 1};
    if (l->kind == MDM_LAYER_POOL) {
        mdm_pool_backward(p->device, &shape,
                          executor->heads.embedding_gradient +
                              (size_t)p->first * (size_t)executor->layout->embedding,
                          gradient_rows(executor, l, l->input, p));
        return MDM_OK;
    }
    void *gradient = gradient_rows(executor, l, l->output, p);
    const void *other = other_rows(executor, l, l->output, p);
    const void *output = mdm_executor_rows(executor, l->output, p->first);
    void *input_gradient = mdm_executor_slot_rows(executor, l->input_gradient, l->input, p->first);
    if (l->kind == MDM_LAYER_ADD_RELU) {
        mdm_add_relu_backward(p->device, &shape, gradient, other, output, input_gradient);
    } else {
        mdm_max_pool_shape pool = {p->rows, l->in_channels, l->height, l->width, executor->precision};
        mdm_max_pool_backward(p->device, &pool, gradient, other,
                              mdm_executor_rows(executor, l->input, p->first), output, input_gradient);
    }
    return MDM_OK;
}

/* Where the device has memory of its own, [first, end) goes to host memory first, where the ranks' messages
 * are made. */
static mdm_status bring_to_host(mdm_executor *executor, mdm_network *network, int64_t first, int64_t end) {
    if (!network->device) return MDM_OK;
    return mdm_device_download(executor->device, network->gradient + first, network->home.gradient + first,
                               sizeof(float) * (size_t)(end - first));
}

/* Whether the gradient from a convolution's weights on, up to `end`, is handed on: once it is large enough or
 * the last. */
static int completes_bucket(const mdm_executor *executor, int64_t first, int64_t end) {
    int64_t share = executor->layout->weight_count / MOST_BUCKETS,
            size = share > BUCKET_FLOATS ? share : BUCKET_FLOATS;
    return first == 0 || (mdm_comm_size(executor->comm) > 1 && end - first >= size);
}

/* Starts the reduction of what is complete behind the layer. */
static mdm_status reduce_bucket(mdm_executor *executor, const layer_work *work) {
    mdm_network *network = work->network;
    int64_t first = work->first, count = work->end - first;
    if (mdm_comm_size(executor->comm) == 1 || executor->reproducible) return MDM_OK;
    if (count == 0) return mdm_comm_poll(executor->comm);
    if (network->device && mdm_group_is_queued(executor->group))
        return mdm_group_reduce_start(executor->group, network->home.gradient + first, count);
    MDM_TRY(bring_to_host(executor, network, first, work->end));
    return mdm_comm_reduce_start(executor->comm, network->gradient + first, count);
}

mdm_status mdm_executor_reduce_wait(mdm_executor *executor, mdm_network *network) {
    if (executor->reproducible) {
        mdm_grid_sums *sums = &network->gradient_sums;
        MDM_TRY(mdm_comm_all_reduce(executor->comm, sums->whole, sums->count + 1, MDM_INT64, MDM_SUM));
        mdm_executor_get_sums(executor, network);
        return MDM_OK;
    }
    MDM_TRY(mdm_comm_reduce_wait(executor->comm));
    if (!network->device || mdm_comm_size(executor->comm) == 1) return MDM_OK;
    if (mdm_group_is_queued(executor->group)) return mdm_group_reduce_wait(executor->group);
    return mdm_device_upload(executor->device, network->home.gradient, network->gradient,
                             sizeof(float) * (size_t)executor->layout->weight_count);
}

mdm_status mdm_executor_backward_layers(mdm_executor *executor, mdm_network *network, const float *images,
                                        int accumulate, int reduce) {
    const mdm_layout *layout = executor->layout;
    int64_t end = layout->weight_count;
    network->device_is_newer = network->device != NULL;
    for (int i = layout->layer_count - 1; i >= 0; i--) {
        const mdm_layer *l = &layout->layers[i];
        layer_work work = {network, l, i, accumulate, images, end, end};
        MDM_TRY(wait_for_slots(executor, l));
        if (l->kind == MDM_LAYER_POOL || l->kind == MDM_LAYER_ADD_RELU || l->kind == MDM_LAYER_MAX_POOL) {
            MDM_TRY(mdm_executor_whole(executor, weightless_part, &work));
            continue;
        }
        int64_t first = layout->tensors[l->weight].offset;
        if (l->kind == MDM_LAYER_CONVOLUTION && completes_bucket(executor, first, end))
            work.first = end = first;
        if (l->kind == MDM_LAYER_NORM_RELU)
            MDM_TRY(norm_backward(executor, &work));
        else
            MDM_TRY(convolution_backward(executor, &work));
        if (reduce) MDM_TRY(reduce_bucket(executor, &work));
    }
    return mdm_beside_join(executor->device);
}

mdm_status mdm_executor_backward_pass(mdm_executor *executor, mdm_network *network, int rows,
                                      const float *images, const float *embedding_gradient,
                                      const float *projection_gradient, const float *logits_gradient,
                                      int accumulate, int reduce) {
    if (!executor->current || executor->current->rows != rows || executor->current->passes > 1)
        return mdm_fail(MDM_LOST, "backward of %d rows does not follow their forward pass", rows);
    MDM_TRY(mdm_executor_backward_heads(executor, network, &executor->heads, &executor->head_norm[0],
                                        embedding_gradient, projection_gradient, logits_gradient,
                                        accumulate));
    return mdm_executor_backward_layers(executor, network, images, accumulate, reduce);
}
