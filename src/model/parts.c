/* Passes in parts: what makes results the same for every number of ranks and threads.
 *
 * A sum of floats depends on the order of its terms, and training amplifies the last bit until samples change
 * sides of a division. So each batch is cut into MDM_SHARDS shards, whatever the number of ranks; a shard is
 * computed by one thread with convolutions made for one thread, and what shards add to a sum is added
 * exactly. Without that a pass is one part, and its sums are those of the device. */
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

static int widest_sums(const mdm_executor *executor) {
    return 2 * mdm_executor_widest_layer(executor);
}

static mdm_status create_worker(mdm_executor *executor, worker *w) {
    const mdm_network_spec *spec = &executor->layout->spec;
    int64_t largest = 0, bias = spec->classes > spec->projection ? spec->classes : spec->projection;
    for (int i = 0; i < executor->layout->tensor_count; i++)
        if (executor->layout->tensors[i].count > largest) largest = executor->layout->tensors[i].count;
    MDM_TRY(mdm_device_create_worker(executor->device, &w->device));
    MDM_TRY(MDM_ALLOCATE(w->sums, widest_sums(executor), "batch norm sums"));
    return MDM_ALLOCATE(w->gradient, largest + bias, "a thread's gradient");
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
    return MDM_OK;
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
        free(r->workers[i].gradient);
    }
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
        MDM_TRY(mdm_executor_create_convolutions(executor, r->workers[w].device, rows, forward_only,
                                                 set->convolutions + w * layers));
        MDM_TRY(mdm_executor_create_heads(executor, r->workers[w].device, rows, set->heads + w * HEADS));
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

static mdm_status add_part(reproducible *r, int first, int rows) {
    if (rows == 0) return MDM_OK;
    if (r->part_count == r->part_capacity) {
        int capacity = 2 * r->part_capacity + 64;
        part *larger = realloc(r->parts, (size_t)capacity * sizeof *larger);
        if (!larger) return mdm_fail(MDM_RESOURCE, "out of memory for the shards of a pass");
        r->parts = larger;
        r->part_capacity = capacity;
    }
    r->parts[r->part_count++] = (part){.first = first, .rows = rows};
    return MDM_OK;
}

/* Shards [rank * MDM_SHARDS / P, ...) are this rank's slice of each group, to the row. */
static mdm_status add_shards(mdm_executor *executor) {
    reproducible *r = executor->reproducible;
    int ranks = mdm_comm_size(executor->comm), mine = MDM_SHARDS / ranks;
    int64_t start, count;
    mdm_comm_my_slice(executor->comm, executor->batch.n, &start, &count);
    for (int g = 0; g < executor->batch.groups; g++)
        for (int s = 0; s < mine; s++) {
            int64_t first, rows;
            mdm_comm_slice(executor->batch.n, mdm_comm_rank(executor->comm) * mine + s, MDM_SHARDS, &first,
                           &rows);
            MDM_TRY(add_part(r, (int)(g * count + first - start), (int)rows));
        }
    return MDM_OK;
}

static mdm_status give_weights(mdm_executor *executor, mdm_network *network, convolution_set *set) {
    int layers = executor->layout->layer_count;
    if (set->prepared == network->version) return MDM_OK;
    for (int w = 0; w < executor->reproducible->worker_count; w++)
        MDM_TRY(mdm_executor_set_weights(executor, network, set->convolutions + w * layers));
    set->prepared = network->version;
    return MDM_OK;
}

mdm_status mdm_executor_lay_parts(mdm_executor *executor, mdm_network *network, int rows, int row_by_row) {
    reproducible *r = executor->reproducible;
    if (!r) {
        plan *current = executor->current;
        executor->whole =
            (part){0, rows, 0, executor->device, current->convolutions, current->heads, executor->sums};
        return MDM_OK;
    }
    r->part_count = 0;
    for (int i = 0; row_by_row && i < rows; i++) MDM_TRY(add_part(r, i, 1));
    if (!row_by_row) MDM_TRY(add_shards(executor));
    int covered = 0;
    for (int i = 0; i < r->part_count; i++) {
        convolution_set *set = find_set(r, r->parts[i].rows, row_by_row);
        if (!set) return mdm_fail(MDM_LOST, "no plan was made for shards of %d rows", r->parts[i].rows);
        MDM_TRY(give_weights(executor, network, set));
        r->parts[i].convolutions = set->convolutions; /* of the first worker; each_part takes its own */
        r->parts[i].heads = set->heads;
        covered += r->parts[i].rows;
    }
    if (covered != rows)
        return mdm_fail(MDM_LOST, "a pass of %d rows is not the batch of %d times %lld that was announced",
                        rows, executor->batch.groups, (long long)executor->batch.n);
    if (!row_by_row && !network->exact_gradient.whole)
        MDM_TRY(mdm_exact_sums_create(executor->layout->weight_count, &network->exact_gradient));
    return MDM_OK;
}

/* Every part in its thread; the first failure is told by the caller's thread. */
static mdm_status each_in_parallel(mdm_executor *executor, part_work *work, void *context) {
    reproducible *r = executor->reproducible;
    mdm_status worst = MDM_OK;
    char message[512] = "";
#pragma omp parallel for schedule(static) num_threads(r->worker_count)
    for (int i = 0; i < r->part_count; i++) {
        part p = r->parts[i];
        omp_set_num_threads(1); /* of what runs inside; for this region alone */
        p.worker = omp_get_thread_num();
        p.device = r->workers[p.worker].device;
        p.convolutions += p.worker * executor->layout->layer_count;
        p.heads += p.worker * HEADS;
        p.sums = r->workers[p.worker].sums;
        mdm_status status = work(executor, &p, context);
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
    return executor->reproducible ? each_in_parallel(executor, work, context)
                                  : work(executor, &executor->whole, context);
}

/* Work on a part, followed by the adding of what it left in its sums. */
typedef struct summed_work {
    part_work *work;
    void *context;
    int count;
} summed_work;

static mdm_status work_and_sum(mdm_executor *executor, const part *p, void *context) {
    const summed_work *s = context;
    memset(p->sums, 0, sizeof(double) * (size_t)s->count);
    MDM_TRY(s->work(executor, p, s->context));
#pragma omp critical(mdm_part_sums)
    mdm_exact_sums_add_doubles(&executor->reproducible->sums, 0, s->count, p->sums);
    return MDM_OK;
}

mdm_status mdm_executor_sum_parts(mdm_executor *executor, part_work *work, void *context, int count) {
    if (executor->reproducible) {
        summed_work summed = {work, context, count};
        mdm_exact_sums_clear(&executor->reproducible->sums);
        return each_in_parallel(executor, work_and_sum, &summed);
    }
    mdm_device_zero(executor->device, executor->whole.sums, sizeof(double) * (size_t)count);
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
                                        double *sums) {
    prediction_work work = {logits, probability};
    int classes = executor->layout->spec.classes;
    MDM_TRY(mdm_executor_sum_parts(executor, predictions_part, &work, classes));
    MDM_TRY(mdm_executor_add_ranks(executor, classes));
    mdm_device_copy(executor->device, sums, executor->sums, sizeof(double) * (size_t)classes);
    return MDM_OK;
}

float *mdm_part_gradient(mdm_executor *executor, const part *p, float *gradient, int64_t behind) {
    return executor->reproducible ? executor->reproducible->workers[p->worker].gradient + behind : gradient;
}

void mdm_part_add_gradient(mdm_executor *executor, mdm_network *network, int tensor, const float *gradient) {
    const mdm_tensor_info *t = &executor->layout->tensors[tensor];
    if (!executor->reproducible) return;
#pragma omp critical(mdm_part_gradient)
    mdm_exact_sums_add_floats(&network->exact_gradient, t->offset, t->count, gradient);
}

void mdm_executor_begin_gradient(mdm_executor *executor, mdm_network *network, int tensor, int accumulate) {
    const mdm_tensor_info *t = &executor->layout->tensors[tensor];
    if (executor->reproducible && !accumulate)
        mdm_exact_sums_clear_part(&network->exact_gradient, t->offset, t->count);
}
