/* Passes in parts: what makes results the same for every number of ranks and threads.
 *
 * A sum of floats depends on the order of its terms, and training amplifies the last bit until samples change
 * sides of a division. So each batch is cut into MDM_SHARDS shards, whatever the number of ranks; a shard's
 * sums over rows (gradients of weights, statistics, linear layers, whose sums are cut by the number of rows)
 * are computed by one thread, and what shards add to a sum is added exactly. What gives every row by itself
 * is computed for all rows at once. Without that a pass is one part, and its sums are those of the device. */
#include "executor.h"
#include "mdm/device/losses.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mdm_executor_rows(const mdm_executor *executor, int buffer, int first) {
    const mdm_buffer_info *b = &executor->layout->buffers[buffer];
    return executor->arena + executor->current->buffer_offset[buffer] +
           mdm_tensor_bytes(executor->device, first, b->channels, b->height, b->width, executor->precision);
}

void *mdm_executor_slot_rows(const mdm_executor *executor, int slot, int shape_of_buffer, int first) {
    const mdm_buffer_info *b = &executor->layout->buffers[shape_of_buffer];
    return executor->arena + executor->current->slot_offset[slot] +
           mdm_tensor_bytes(executor->device, first, b->channels, b->height, b->width, executor->precision);
}

mdm_norm_shape mdm_executor_norm_shape(const mdm_executor *executor, const mdm_layer *l, const part *p) {
    mdm_norm_shape shape = {p->rows,   l->in_channels, l->height * l->width, executor->precision,
                            l->linear, p->sets};
    return shape;
}

int mdm_executor_norm_count(const mdm_executor *executor, const mdm_layer *l) {
    return executor->whole.sets * mdm_padded_channels(executor->device, l->in_channels);
}

static int widest_sums(const mdm_executor *executor) {
    return 2 * mdm_executor_widest_layer(executor);
}

static mdm_status create_worker(mdm_executor *executor, worker *w) {
    MDM_TRY(mdm_device_create_worker(executor->device, &w->device));
    return MDM_ALLOCATE(w->sums, widest_sums(executor), "batch norm sums");
}

static mdm_status create_shard_gradients(mdm_executor *executor) {
    const mdm_network_spec *spec = &executor->layout->spec;
    int64_t largest = 0, bias = spec->classes > spec->projection ? spec->classes : spec->projection;
    for (int i = 0; i < executor->layout->tensor_count; i++)
        if (executor->layout->tensors[i].count > largest) largest = executor->layout->tensors[i].count;
    for (int s = 0; s < MDM_SHARDS / mdm_comm_size(executor->comm); s++)
        MDM_TRY(
            MDM_ALLOCATE(executor->reproducible->shard_gradient[s], largest + bias, "a shard's gradient"));
    return MDM_OK;
}

int mdm_executor_can_be_reproducible(const mdm_executor *executor) {
    return !mdm_device_get_info(executor->device)->is_cuda && MDM_SHARDS % mdm_comm_size(executor->comm) == 0;
}

mdm_status mdm_executor_make_reproducible(mdm_executor *executor) {
    int ranks = mdm_comm_size(executor->comm);
    if (MDM_SHARDS % ranks != 0)
        return mdm_fail(
            MDM_USAGE,
            "deterministic=true computes in %d shards, which %d ranks cannot share evenly; allowed "
            "are 1, 2, 3, 4, 6 and 12 ranks",
            MDM_SHARDS, ranks);
    MDM_TRY(MDM_ALLOCATE(executor->reproducible, 1, "shards"));
    reproducible *r = executor->reproducible;
    int threads = mdm_device_get_info(executor->device)->threads;
    MDM_TRY(mdm_exact_sums_create(widest_sums(executor), &r->sums));
    MDM_TRY(MDM_ALLOCATE(r->workers, threads, "shards"));
    for (; r->worker_count < threads; r->worker_count++)
        MDM_TRY(create_worker(executor, &r->workers[r->worker_count]));
    return create_shard_gradients(executor);
}

int mdm_executor_is_reproducible(const mdm_executor *executor) {
    return executor->reproducible != NULL;
}

void mdm_executor_set_batch(mdm_executor *executor, int groups, int64_t n) {
    executor->batch.groups = groups;
    executor->batch.n = n;
}

void mdm_executor_forget_parts(mdm_executor *executor) {
    reproducible *r = executor->reproducible;
    if (!r) return;
    int count = r->worker_count * executor->layout->layer_count;
    for (int s = 0; s < r->set_count; s++) {
        for (int i = 0; r->sets[s].convolutions && i < count; i++)
            mdm_convolution_destroy(r->sets[s].convolutions[i]);
        for (int i = 0; r->sets[s].heads && i < r->worker_count * HEADS; i++)
            mdm_linear_destroy(r->sets[s].heads[i]);
        free(r->sets[s].convolutions);
        free(r->sets[s].heads);
    }
    r->set_count = 0;
}

void mdm_executor_free_parts(mdm_executor *executor) {
    reproducible *r = executor->reproducible;
    if (!r) return;
    mdm_executor_forget_parts(executor);
    for (int i = 0; i < r->worker_count; i++) {
        mdm_device_destroy(r->workers[i].device);
        free(r->workers[i].sums);
    }
    for (int s = 0; s < MDM_SHARDS; s++) free(r->shard_gradient[s]);
    free(r->workers);
    free(r->sets);
    free(r->parts);
    mdm_exact_sums_free(&r->sums);
    free(r);
}

static convolution_set *find_set(const reproducible *r, int rows, int forward_only) {
    for (int i = 0; i < r->set_count; i++)
        if (r->sets[i].rows == rows && r->sets[i].forward_only == forward_only) return &r->sets[i];
    return NULL;
}

static mdm_status create_set(mdm_executor *executor, int rows, int forward_only) {
    const mdm_convolution_shape kind = {.batch = rows, .gradient_only = 1};
    reproducible *r = executor->reproducible;
    int layers = executor->layout->layer_count;
    if (rows == 0 || find_set(r, rows, forward_only)) return MDM_OK;
    if (r->set_count == r->set_capacity) {
        int capacity = 2 * r->set_capacity + 4;
        convolution_set *larger = realloc(r->sets, (size_t)capacity * sizeof *larger);
        if (!larger) return mdm_fail(MDM_RESOURCE, "out of memory for the network's plans");
        r->sets = larger;
        r->set_capacity = capacity;
    }
    convolution_set *set = &r->sets[r->set_count++];
    *set = (convolution_set){.rows = rows, .forward_only = forward_only};
    MDM_TRY(MDM_ALLOCATE(set->convolutions, r->worker_count * layers, "a plan"));
    MDM_TRY(MDM_ALLOCATE(set->heads, r->worker_count * HEADS, "a plan"));
    for (int w = 0; w < r->worker_count; w++) {
        mdm_device *device = r->workers[w].device;
        MDM_TRY(mdm_executor_create_heads(executor, device, rows, set->heads + w * HEADS));
        if (!forward_only)
            MDM_TRY(
                mdm_executor_create_convolutions(executor, device, &kind, set->convolutions + w * layers));
    }
    return MDM_OK;
}

mdm_status mdm_executor_plan_parts(mdm_executor *executor, int row_by_row) {
    if (row_by_row) return create_set(executor, 1, 1);
    for (int s = 0; s < MDM_SHARDS; s++) {
        int64_t first, count;
        mdm_comm_slice(executor->batch.n, s, MDM_SHARDS, &first, &count);
        MDM_TRY(create_set(executor, (int)count, 0));
    }
    return MDM_OK;
}

static mdm_status add_part(reproducible *r, part p) {
    if (r->part_count == r->part_capacity) {
        int capacity = 2 * r->part_capacity + 64;
        part *larger = realloc(r->parts, (size_t)capacity * sizeof *larger);
        if (!larger) return mdm_fail(MDM_RESOURCE, "out of memory for the shards of a pass");
        r->parts = larger;
        r->part_capacity = capacity;
    }
    r->parts[r->part_count++] = p;
    return MDM_OK;
}

/* Shards [rank * MDM_SHARDS / P, ...) are this rank's slice of each group, to the row. */
static mdm_status add_shards(mdm_executor *executor) {
    reproducible *r = executor->reproducible;
    int ranks = mdm_comm_size(executor->comm), mine = MDM_SHARDS / ranks;
    int64_t start, count;
    mdm_comm_my_slice(executor->comm, executor->batch.n, &start, &count);
    r->parts_in_shard = executor->batch.groups;
    for (int s = 0, filled = 0; s < mine; s++) {
        int64_t first, rows;
        mdm_comm_slice(executor->batch.n, mdm_comm_rank(executor->comm) * mine + s, MDM_SHARDS, &first,
                       &rows);
        for (int g = 0; rows > 0 && g < executor->batch.groups; g++)
            MDM_TRY(add_part(r, (part){.first = (int)(g * count + first - start),
                                       .rows = (int)rows,
                                       .shard = filled,
                                       .group = g}));
        filled += rows > 0;
    }
    return MDM_OK;
}

static mdm_status add_rows(reproducible *r, int rows) {
    r->parts_in_shard = 1;
    for (int i = 0; i < rows; i++) MDM_TRY(add_part(r, (part){.first = i, .rows = 1, .shard = i}));
    return MDM_OK;
}

mdm_status mdm_executor_lay_parts(mdm_executor *executor, int rows, int row_by_row) {
    reproducible *r = executor->reproducible;
    plan *current = executor->current;
    executor->whole = (part){.rows = rows,
                             .device = executor->device,
                             .convolutions = current->convolutions,
                             .heads = current->heads,
                             .sets = 1,
                             .sums = executor->sums};
    if (!r) return MDM_OK;
    r->part_count = 0;
    MDM_TRY(row_by_row ? add_rows(r, rows) : add_shards(executor));
    int covered = 0;
    for (int i = 0; i < r->part_count; i++) {
        convolution_set *set = find_set(r, r->parts[i].rows, row_by_row);
        if (!set) return mdm_fail(MDM_LOST, "no plan was made for shards of %d rows", r->parts[i].rows);
        r->parts[i].convolutions = set->convolutions; /* of the first worker; each_shard takes its own */
        r->parts[i].heads = set->heads;
        covered += r->parts[i].rows;
    }
    if (covered != rows)
        return mdm_fail(MDM_LOST, "a pass of %d rows is not the batch of %d times %lld that was announced",
                        rows, executor->batch.groups, (long long)executor->batch.n);
    return MDM_OK;
}

mdm_status mdm_executor_whole(mdm_executor *executor, part_work *work, void *context) {
    return work(executor, &executor->whole, context);
}

/* A part, as the thread that is at work on it does it. */
static mdm_status work_on(mdm_executor *executor, int number, part_work *work, void *context) {
    const reproducible *r = executor->reproducible;
    int thread = omp_get_thread_num();
    part p = r->parts[number];
    p.device = r->workers[thread].device;
    p.convolutions += thread * executor->layout->layer_count;
    p.heads += thread * HEADS;
    p.sums = r->workers[thread].sums;
    return work(executor, &p, context);
}

/* Every shard in its thread, group by group; the first failure is told by the caller's thread. */
static mdm_status each_shard(mdm_executor *executor, part_work *work, void *context) {
    reproducible *r = executor->reproducible;
    mdm_status worst = MDM_OK;
    char message[512] = "";
    int shards = r->part_count / r->parts_in_shard;
#pragma omp parallel for schedule(static) num_threads(r->worker_count)
    for (int s = 0; s < shards; s++) {
        mdm_status status = MDM_OK;
        omp_set_num_threads(1); /* of what runs inside; for this region alone */
        for (int g = 0; status == MDM_OK && g < r->parts_in_shard; g++)
            status = work_on(executor, s * r->parts_in_shard + g, work, context);
        if (status == MDM_OK) continue;
#pragma omp critical(mdm_part_failed)
        if (worst == MDM_OK) {
            worst = status;
            snprintf(message, sizeof message, "%s", mdm_last_message());
        }
    }
    return worst == MDM_OK ? MDM_OK : mdm_fail(worst, "%s", message);
}

mdm_status mdm_executor_each_part(mdm_executor *executor, part_work *work, void *context) {
    return executor->reproducible ? each_shard(executor, work, context)
                                  : mdm_executor_whole(executor, work, context);
}

/* Work on a part, followed by the adding of what it left in its sums. */
typedef struct summed_work {
    part_work *work;
    void *context;
    int count;
} summed_work;

static mdm_status work_and_sum(mdm_executor *executor, const part *p, void *context) {
    const summed_work *s = context;
    MDM_TRY(s->work(executor, p, s->context));
#pragma omp critical(mdm_part_sums)
    mdm_exact_sums_add_doubles(&executor->reproducible->sums, 0, s->count, p->sums);
    return MDM_OK;
}

mdm_status mdm_executor_sum_parts(mdm_executor *executor, part_work *work, void *context, int count) {
    if (executor->reproducible) {
        summed_work summed = {work, context, count};
        mdm_exact_sums_clear(&executor->reproducible->sums);
        return each_shard(executor, work_and_sum, &summed);
    }
    return work(executor, &executor->whole, context);
}

typedef struct prediction_work {
    const float *logits;
    float *probability;
} prediction_work;

static mdm_status predictions_part(mdm_executor *executor, const part *p, void *context) {
    const prediction_work *w = context;
    int classes = executor->layout->spec.classes;
    int64_t first = (int64_t)p->first * classes;
    mdm_balance_sums(p->device, w->logits + first, p->rows, classes, w->probability + first, p->sums);
    return MDM_OK;
}

mdm_status mdm_executor_sum_predictions(mdm_executor *executor, const float *logits, float *probability,
                                        const double **sums) {
    prediction_work work = {logits, probability};
    int classes = executor->layout->spec.classes;
    MDM_TRY(mdm_executor_sum_parts(executor, predictions_part, &work, classes));
    *sums = executor->sums;
    return mdm_executor_add_ranks(executor, classes);
}

float *mdm_part_gradient(mdm_executor *executor, const part *p, float *gradient, int64_t behind,
                         int *accumulate) {
    if (!executor->reproducible) return gradient;
    *accumulate = p->group > 0;
    return executor->reproducible->shard_gradient[p->shard] + behind;
}

enum { CUT = 1 << 14 }; /* gradients that a thread adds at a time */

void mdm_executor_sum_shards(mdm_executor *executor, mdm_network *network, int tensor, int64_t behind,
                             int accumulate) {
    reproducible *r = executor->reproducible;
    if (!r) return;
    const mdm_tensor_info *t = &executor->layout->tensors[tensor];
    mdm_grid_sums *sums = &network->gradient_sums;
    int shards = r->part_count / r->parts_in_shard;
    int64_t unfit = 0;
#pragma omp parallel for schedule(static) num_threads(r->worker_count) reduction(+ : unfit)
    for (int64_t start = 0; start < t->count; start += CUT) {
        int64_t n = t->count - start < CUT ? t->count - start : CUT;
        const float *terms[MDM_SHARDS];
        for (int s = 0; s < shards; s++) terms[s] = r->shard_gradient[s] + behind + start;
        unfit += mdm_grid_sums_add(sums, t->offset + start, n, terms, shards, accumulate);
    }
    sums->whole[sums->count] += unfit;
}

void mdm_executor_get_sums(mdm_executor *executor, mdm_network *network) {
    mdm_grid_sums *sums = &network->gradient_sums;
#pragma omp parallel for schedule(static) num_threads(executor->reproducible->worker_count)
    for (int64_t start = 0; start < sums->count; start += CUT) {
        int64_t n = sums->count - start < CUT ? sums->count - start : CUT;
        mdm_grid_sums_get(sums, start, n, network->gradient + start);
    }
    sums->whole[sums->count] = 0; /* the next step's terms may all fit */
}
