/* Plans: which convolutions and how much memory a number of rows needs. */
#include "executor.h"
#include "mdm/base/log.h"
#include <stdlib.h>
#include <string.h>

int mdm_executor_widest_layer(const mdm_executor *executor) {
    int widest = executor->layout->spec.projection, classes = executor->layout->spec.classes;
    if ((classes + 1) / 2 > widest) widest = (classes + 1) / 2; /* two sums a channel, one a class */
    for (int i = 0; i < executor->layout->buffer_count; i++)
        if (executor->layout->buffers[i].channels > widest) widest = executor->layout->buffers[i].channels;
    return mdm_padded_channels(executor->device, widest);
}

static mdm_status allocate_on_device(mdm_executor *executor, size_t count, size_t size, void **memory) {
    return mdm_device_allocate(executor->device, count * size, "batch norm state", memory);
}

/* `count` of each kind of value, from *next on. */
static mdm_norm_values take_values(float **next, size_t count) {
    float *first = *next;
    *next += 4 * count;
    return (mdm_norm_values){first, first + count, first + 2 * count, first + 3 * count};
}

static mdm_status allocate_norms(mdm_executor *executor) {
    const mdm_layout *layout = executor->layout;
    const size_t sets = executor->shares_memory ? 1 : MDM_NORM_SETS;
    size_t head = (size_t)mdm_padded_channels(executor->device, layout->spec.projection);
    size_t total = 4 * sets * head, widest = sets * (size_t)mdm_executor_widest_layer(executor);
    for (int i = 0; i < layout->layer_count; i++)
        if (layout->layers[i].kind == MDM_LAYER_NORM_RELU)
            total += 4 * sets * (size_t)mdm_padded_channels(executor->device, layout->layers[i].in_channels);
    MDM_TRY(MDM_ALLOCATE(executor->norms, layout->layer_count, "batch norm state"));
    MDM_TRY(allocate_on_device(executor, total, sizeof(float), (void **)&executor->norm_memory));
    float *next = executor->norm_memory;
    for (int i = 0; i < layout->layer_count; i++) {
        if (layout->layers[i].kind != MDM_LAYER_NORM_RELU) continue;
        size_t channels = (size_t)mdm_padded_channels(executor->device, layout->layers[i].in_channels);
        executor->norms[i] = take_values(&next, sets * channels);
    }
    for (size_t set = 0; set < sets; set++) executor->head_norm[set] = take_values(&next, head);
    MDM_TRY(allocate_on_device(executor, widest, sizeof(float), (void **)&executor->mean_gradient));
    MDM_TRY(allocate_on_device(executor, widest, sizeof(float), (void **)&executor->mean_product));
    MDM_TRY(allocate_on_device(executor, 2 * widest, sizeof(double), (void **)&executor->sums));
    return mdm_group_reserve(executor->group, 2 * widest * sizeof(double));
}

mdm_status mdm_executor_create(mdm_device *device, mdm_comm *comm, const mdm_layout *layout,
                               mdm_precision precision, mdm_batchnorm batchnorm, mdm_executor **out) {
    mdm_executor *executor;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(executor, 1, "the executor"));
    executor->device = device;
    executor->comm = comm;
    executor->layout = layout;
    executor->precision = precision;
    executor->batchnorm = batchnorm;
    executor->shares_memory = !mdm_device_get_info(device)->is_cuda;
    mdm_status status = mdm_group_create(comm, device, &executor->group);
    if (status == MDM_OK) status = allocate_norms(executor);
    if (status != MDM_OK) {
        mdm_executor_destroy(executor);
        return status;
    }
    *out = executor;
    return MDM_OK;
}

mdm_group *mdm_executor_group(const mdm_executor *executor) {
    return executor->group;
}

void mdm_executor_set_batchnorm(mdm_executor *executor, mdm_batchnorm batchnorm) {
    executor->batchnorm = batchnorm;
}

static void destroy_plan(mdm_executor *executor, plan *p) {
    if (!p) return;
    for (int i = 0; p->convolutions && i < executor->layout->layer_count; i++)
        mdm_convolution_destroy(p->convolutions[i]);
    for (int i = 0; i < HEADS; i++) mdm_linear_destroy(p->heads[i]);
    free(p->convolutions);
    free(p->buffer_offset);
    free(p);
}

void mdm_executor_forget_beyond(mdm_executor *executor, int most) {
    if (executor->plan_count <= most) return;
    for (int i = 0; i < executor->plan_count; i++) destroy_plan(executor, executor->plans[i]);
    mdm_executor_forget_parts(executor);
    executor->plan_count = 0;
    executor->current = NULL;
}

static void free_heads(mdm_executor *executor) {
    head_buffers *h = &executor->heads;
    float *matrices[] = {h->embedding,  h->embedding_gradient, h->linear, h->normalised,
                         h->projection, h->linear_gradient,    h->logits};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        mdm_device_free(executor->device, matrices[i]);
    memset(h, 0, sizeof *h);
}

void mdm_executor_destroy(mdm_executor *executor) {
    if (!executor) return;
    mdm_executor_forget_beyond(executor, -1);
    mdm_executor_free_parts(executor);
    mdm_executor_free_chunks(executor);
    free(executor->plans);
    free(executor->norms);
    void *on_device[] = {executor->arena, executor->norm_memory, executor->mean_gradient,
                         executor->mean_product, executor->sums};
    for (size_t i = 0; i < sizeof on_device / sizeof *on_device; i++)
        mdm_device_free(executor->device, on_device[i]);
    free_heads(executor);
    mdm_group_destroy(executor->group);
    free(executor);
}

/* Plans of steps do not serve evaluations of as many rows: their convolutions round differently, and whether
 * there is one depends on what this process did before, which a resumed run does not share. */
plan *mdm_executor_find_plan(mdm_executor *executor, int rows, int forward_only) {
    for (int i = 0; i < executor->plan_count; i++) {
        plan *p = executor->plans[i];
        if (!p->heads_only && p->passes == 1 && p->rows == rows && p->forward_only == forward_only) return p;
    }
    return NULL;
}

static size_t tensor_bytes(const mdm_executor *executor, int buffer, int rows) {
    const mdm_buffer_info *info = &executor->layout->buffers[buffer];
    size_t bytes = mdm_tensor_bytes(executor->device, rows, info->channels, info->height, info->width,
                                    executor->precision);
    return (bytes + 63) / 64 * 64;
}

static size_t place_buffers(const mdm_executor *executor, plan *p) {
    size_t end = 0, largest = 0;
    for (int i = 0; i < executor->layout->buffer_count; i++) {
        size_t bytes = tensor_bytes(executor, i, p->passes * p->rows);
        p->buffer_offset[i] = end;
        end += bytes;
        if (bytes > largest) largest = bytes;
    }
    for (int i = 0; i < 3 && !p->forward_only; i++) p->slot_offset[i] = end, end += largest;
    return end;
}

size_t mdm_executor_bytes(const mdm_executor *executor, int rows) {
    size_t end = 0, largest = 0;
    for (int i = 0; i < executor->layout->buffer_count; i++) {
        size_t bytes = tensor_bytes(executor, i, rows);
        end += bytes;
        if (bytes > largest) largest = bytes;
    }
    return end + 3 * largest;
}

static mdm_status grow_heads(mdm_executor *executor, int rows) {
    head_buffers *h = &executor->heads;
    int width = executor->layout->embedding, projection = executor->layout->spec.projection;
    struct {
        float **matrix;
        int columns;
    } matrices[] = {{&h->embedding, width},
                    {&h->embedding_gradient, width},
                    {&h->linear, projection},
                    {&h->normalised, projection},
                    {&h->projection, projection},
                    {&h->linear_gradient, projection},
                    {&h->logits, executor->layout->spec.classes}};
    if (rows <= h->rows) return MDM_OK;
    free_heads(executor);
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        MDM_TRY(mdm_device_allocate(executor->device,
                                    sizeof(float) * (size_t)rows * (size_t)matrices[i].columns,
                                    "embeddings, projections and logits", (void **)matrices[i].matrix));
    h->rows = rows;
    return MDM_OK;
}

mdm_device *mdm_executor_device(const mdm_executor *executor) {
    return executor->device;
}

mdm_precision mdm_executor_head_precision(const mdm_executor *executor) {
    return executor->precision == MDM_TF32 ? MDM_TF32 : MDM_FP32;
}

mdm_status mdm_executor_create_heads(mdm_executor *executor, mdm_device *device, int rows,
                                     mdm_linear **heads) {
    const mdm_layout *layout = executor->layout;
    mdm_precision precision = mdm_executor_head_precision(executor);
    MDM_TRY(mdm_linear_create(device, rows, layout->embedding, layout->spec.classes, precision,
                              &heads[CLASSIFIER]));
    return mdm_linear_create(device, rows, layout->embedding, layout->spec.projection, precision,
                             &heads[PROJECTION]);
}

/* Partial sums of a batch, and of what is taken back of it where that is less. */
static mdm_status reserve_norm(const mdm_executor *executor, mdm_device *device, const mdm_layer *l,
                               const mdm_convolution_shape *kind) {
    int backward = kind->backward_batch, sets = backward > 0 ? kind->batch / (kind->batch - backward) : 1;
    mdm_norm_shape shape = {kind->batch,         l->in_channels, l->height * l->width,
                            executor->precision, l->linear,      sets};
    MDM_TRY(mdm_device_reserve_norm(device, &shape));
    if (backward == 0) return MDM_OK;
    shape.n = backward;
    shape.sets = sets - 1;
    return mdm_device_reserve_norm(device, &shape);
}

mdm_status mdm_executor_create_convolutions(mdm_executor *executor, mdm_device *device,
                                            const mdm_convolution_shape *kind,
                                            mdm_convolution **convolutions) {
    const mdm_layout *layout = executor->layout;
    for (int i = 0; i < layout->layer_count; i++) {
        const mdm_layer *l = &layout->layers[i];
        if (l->kind != MDM_LAYER_CONVOLUTION) {
            MDM_TRY(reserve_norm(executor, device, l, kind));
            continue;
        }
        mdm_convolution_shape shape = *kind;
        shape.in_channels = l->in_channels;
        shape.out_channels = l->out_channels;
        shape.height = l->height;
        shape.width = l->width;
        shape.kernel = l->kernel;
        shape.stride = l->stride;
        shape.precision = executor->precision;
        shape.from_image = l->input < 0;
        shape.add_to_output = l->add_to_output;
        shape.rows_alone = executor->reproducible != NULL;
        shape.is_served = !executor->shares_memory;
        MDM_TRY(mdm_convolution_create(device, &shape, &convolutions[i]));
    }
    return MDM_OK;
}

static mdm_status grow_arena(mdm_executor *executor, size_t bytes) {
    if (bytes <= executor->arena_bytes) return MDM_OK;
    mdm_device_free(executor->device, executor->arena);
    executor->arena = NULL;
    executor->arena_bytes = 0;
    MDM_TRY(
        mdm_device_allocate(executor->device, bytes,
                            "activations (train.batch, model.width and the number of ranks set their size)",
                            (void **)&executor->arena));
    executor->arena_bytes = bytes;
    return MDM_OK;
}

/* A plan at the end of the list. */
static mdm_status add_plan(mdm_executor *executor, const plan *empty, plan **out) {
    if (executor->plan_count == executor->plan_capacity) {
        int capacity = executor->plan_capacity ? 2 * executor->plan_capacity : 16;
        plan **larger = realloc(executor->plans, (size_t)capacity * sizeof *larger);
        if (!larger) return mdm_fail(MDM_RESOURCE, "out of memory for the network's plans");
        executor->plans = larger;
        executor->plan_capacity = capacity;
    }
    MDM_TRY(MDM_ALLOCATE(*out, 1, "a plan"));
    **out = *empty;
    executor->plans[executor->plan_count++] = *out;
    return MDM_OK;
}

/* The plan that was added last does not stay: it is not whole. */
static mdm_status take_back_plan(mdm_executor *executor, mdm_status status) {
    if (status != MDM_OK) destroy_plan(executor, executor->plans[--executor->plan_count]);
    return status;
}

static mdm_status fill_plan(mdm_executor *executor, plan *p) {
    MDM_TRY(MDM_ALLOCATE(p->convolutions, executor->layout->layer_count, "a plan"));
    MDM_TRY(MDM_ALLOCATE(p->buffer_offset, executor->layout->buffer_count, "a plan"));
    p->bytes = place_buffers(executor, p);
    MDM_TRY(grow_arena(executor, p->bytes));
    MDM_TRY(grow_heads(executor, p->rows > 0 ? p->passes * p->rows : 1));
    if (!executor->reproducible) /* which has its own in each part */
        MDM_TRY(mdm_executor_create_heads(executor, executor->device, p->rows, p->heads));
    if (p->rows == 0) return MDM_OK;
    const mdm_convolution_shape kind = {.batch = p->passes * p->rows,
                                        .backward_batch = (p->passes - 1) * p->rows,
                                        .forward_only = p->forward_only};
    return mdm_executor_create_convolutions(executor, executor->device, &kind, p->convolutions);
}

mdm_status mdm_executor_add_plan(mdm_executor *executor, const plan *empty) {
    plan *p;
    MDM_TRY(add_plan(executor, empty, &p));
    MDM_TRY(take_back_plan(executor, fill_plan(executor, p)));
    mdm_device_keep_plans(executor->device);
    return MDM_OK;
}

mdm_status mdm_executor_plan_pass(mdm_executor *executor, int rows, int forward_only) {
    const plan empty = {.rows = rows, .forward_only = forward_only, .passes = 1};
    if (executor->reproducible) MDM_TRY(mdm_executor_plan_parts(executor, forward_only));
    return mdm_executor_find_plan(executor, rows, forward_only) ? MDM_OK
                                                                : mdm_executor_add_plan(executor, &empty);
}

plan *mdm_executor_find_heads(mdm_executor *executor, int rows) {
    for (int i = 0; i < executor->plan_count; i++)
        if (executor->plans[i]->heads_only && executor->plans[i]->rows == rows) return executor->plans[i];
    return NULL;
}

mdm_status mdm_executor_plan_heads(mdm_executor *executor, int rows) {
    const plan empty = {.rows = rows, .passes = 1, .heads_only = 1};
    plan *p;
    if (mdm_executor_find_heads(executor, rows)) return MDM_OK;
    MDM_TRY(add_plan(executor, &empty, &p));
    return take_back_plan(executor, mdm_executor_create_heads(executor, executor->device, rows, p->heads));
}

/* The sums of all parts of all ranks, added exactly. */
static mdm_status sum_exactly(mdm_executor *executor, int count) {
    reproducible *r = executor->reproducible;
    MDM_TRY(mdm_comm_all_reduce(executor->comm, r->sums.whole, mdm_exact_sums_size(&r->sums), MDM_INT64,
                                MDM_SUM));
    mdm_exact_sums_get_doubles(&r->sums, 0, count, executor->sums);
    return MDM_OK;
}

mdm_status mdm_executor_add_ranks(mdm_executor *executor, int count) {
    if (executor->reproducible) return sum_exactly(executor, count);
    return mdm_group_all_reduce(executor->group, executor->sums, count, MDM_DOUBLE, MDM_SUM);
}

int mdm_executor_sums_alone(const mdm_executor *executor) {
    return !executor->reproducible &&
           (executor->batchnorm != MDM_BATCHNORM_SYNC || mdm_comm_size(executor->comm) == 1);
}

mdm_status mdm_executor_sum(mdm_executor *executor, int count) {
    return mdm_executor_sums_alone(executor) ? MDM_OK : mdm_executor_add_ranks(executor, count);
}

mdm_status mdm_executor_agree_statistics(mdm_executor *executor, mdm_network *network) {
    int ranks = mdm_comm_size(executor->comm);
    if (executor->batchnorm != MDM_BATCHNORM_LOCAL || ranks == 1) return MDM_OK;
    MDM_TRY(mdm_network_fetch(network));
    MDM_TRY(mdm_comm_all_reduce(executor->comm, network->statistics, executor->layout->statistic_count,
                                MDM_FLOAT, MDM_SUM));
    for (int64_t i = 0; i < executor->layout->statistic_count; i++) network->statistics[i] /= (float)ranks;
    mdm_network_touch(network);
    return MDM_OK;
}
