/* Contrast over the global batch: unit projections are gathered, every rank takes its own anchors, and the
 * gradients of all rows are summed back to their owners. */
#include "mdm/train/contrast.h"
#include "mdm/device/group.h"
#include <omp.h>
#include <stdlib.h>

/* The loss for one number of samples. */
typedef struct contrast_plan {
    mdm_nt_xent_shape shape;
    mdm_nt_xent_loss *loss;
} contrast_plan;

struct mdm_contrast {
    mdm_comm *comm;
    mdm_device *device;
    mdm_group *group;
    int64_t pairs;
    int width, reproducible;
    float temperature;
    mdm_precision precision;
    contrast_plan *plans;
    int plan_count;
    int64_t *counts; /* [P] */
    /* in the device's memory */
    float *unit, *norm, *unit_gradient;  /* this rank's rows */
    float *unit_all, *unit_gradient_all; /* [2 * pairs, width]; on one rank the same two */
    double *value;                       /* [2 * pairs] */
};

static int is_alone(const mdm_contrast *c) {
    return mdm_comm_size(c->comm) == 1;
}

static mdm_status allocate(mdm_contrast *c) {
    int64_t mine = c->pairs / mdm_comm_size(c->comm) + 1, width = c->width;
    struct {
        void **memory;
        int64_t bytes;
    } arrays[] = {{(void **)&c->unit, 8 * mine * width},
                  {(void **)&c->norm, 8 * mine},
                  {(void **)&c->unit_gradient, 8 * mine * width},
                  {(void **)&c->value, 16 * c->pairs},
                  {(void **)&c->unit_all, 8 * c->pairs * width},
                  {(void **)&c->unit_gradient_all, 8 * c->pairs * width}};
    for (int i = 0; i < (is_alone(c) ? 4 : 6); i++)
        MDM_TRY(mdm_device_allocate(c->device, (size_t)arrays[i].bytes, "contrast", arrays[i].memory));
    if (is_alone(c)) {
        c->unit_all = c->unit;
        c->unit_gradient_all = c->unit_gradient;
    }
    MDM_TRY(mdm_group_create(c->comm, c->device, &c->group));
    MDM_TRY(mdm_group_reserve(c->group, 2 * sizeof(float) * (size_t)(c->pairs * width)));
    return MDM_ALLOCATE(c->counts, mdm_comm_size(c->comm), "contrast");
}

mdm_status mdm_contrast_create(mdm_comm *comm, const mdm_executor *executor, int64_t pairs, int width,
                               float temperature, mdm_contrast **out) {
    mdm_contrast *c;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "contrast"));
    c->comm = comm;
    c->device = mdm_executor_device(executor);
    c->pairs = pairs;
    c->width = width;
    c->reproducible = mdm_executor_is_reproducible(executor);
    c->temperature = temperature;
    c->precision = mdm_executor_head_precision(executor);
    mdm_status status = allocate(c);
    if (status != MDM_OK) {
        mdm_contrast_destroy(c);
        return status;
    }
    *out = c;
    return MDM_OK;
}

void mdm_contrast_destroy(mdm_contrast *c) {
    if (!c) return;
    for (int i = 0; i < c->plan_count; i++) mdm_nt_xent_destroy(c->plans[i].loss);
    void *arrays[] = {c->unit, c->norm, c->unit_gradient, c->value, c->unit_all, c->unit_gradient_all};
    for (int i = 0; i < (is_alone(c) ? 4 : 6); i++) mdm_device_free(c->device, arrays[i]);
    mdm_group_destroy(c->group);
    free(c->plans);
    free(c->counts);
    free(c);
}

int64_t mdm_contrast_pairs(const mdm_contrast *contrast) {
    return contrast->pairs;
}

static contrast_plan *find(const mdm_contrast *c, int64_t pairs) {
    for (int i = 0; i < c->plan_count; i++)
        if (c->plans[i].shape.pairs == pairs) return &c->plans[i];
    return NULL;
}

mdm_status mdm_contrast_plan(mdm_contrast *c, int64_t pairs) {
    if (find(c, pairs)) return MDM_OK;
    contrast_plan *larger = realloc(c->plans, (size_t)(c->plan_count + 1) * sizeof *larger);
    if (!larger) return mdm_fail(MDM_RESOURCE, "out of memory for contrast");
    c->plans = larger;
    contrast_plan *p = &c->plans[c->plan_count];
    p->shape = (mdm_nt_xent_shape){.pairs = pairs,
                                   .count = pairs,
                                   .width = c->width,
                                   .temperature = c->temperature,
                                   .precision = c->precision};
    if (!c->reproducible) mdm_comm_my_slice(c->comm, pairs, &p->shape.first, &p->shape.count);
    MDM_TRY(mdm_nt_xent_create(c->device, &p->shape, &p->loss));
    c->plan_count++;
    return MDM_OK;
}

/* All anchors by every rank, in one thread: no sum depends on how rows are spread. */
static mdm_status lose_alone(mdm_contrast *c, const contrast_plan *p, float scale) {
    int64_t width = c->width, pairs = p->shape.pairs, first, count;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    mdm_status status = mdm_nt_xent_run(p->loss, c->unit_all, scale, c->value, c->unit_gradient_all);
    omp_set_num_threads(threads);
    mdm_comm_my_slice(c->comm, pairs, &first, &count);
    for (int view = 0; !is_alone(c) && view < 2; view++)
        mdm_device_copy(c->device, c->unit_gradient + view * count * width,
                        c->unit_gradient_all + (view * pairs + first) * width,
                        sizeof(float) * (size_t)(count * width));
    return status;
}

/* This rank's anchors; everybody's gradients go to the rows' owners. */
static mdm_status lose_together(mdm_contrast *c, const contrast_plan *p, float scale) {
    int64_t width = c->width, pairs = p->shape.pairs, count = p->shape.count;
    MDM_TRY(mdm_nt_xent_run(p->loss, c->unit_all, scale, c->value, c->unit_gradient_all));
    for (int view = 0; view < 2; view++)
        MDM_TRY(mdm_group_reduce_scatter(c->group, c->unit_gradient_all + view * pairs * width,
                                         c->unit_gradient + view * count * width, c->counts));
    return MDM_OK;
}

mdm_status mdm_contrast_loss(mdm_contrast *c, int64_t pairs, float lambda, const float *projection,
                             float *gradient) {
    const contrast_plan *p = find(c, pairs);
    int64_t width = c->width, first, count;
    int ranks = mdm_comm_size(c->comm);
    if (pairs > c->pairs || !p)
        return mdm_fail(MDM_LOST, "contrast of %lld pairs was not planned", (long long)pairs);
    for (int r = 0; r < ranks; r++) {
        mdm_comm_slice(pairs, r, ranks, &first, &c->counts[r]);
        c->counts[r] *= width;
    }
    mdm_comm_my_slice(c->comm, pairs, &first, &count);
    mdm_unit_rows_forward(c->device, projection, 2 * count, c->width, c->unit, c->norm);
    for (int view = 0; view < 2; view++)
        MDM_TRY(mdm_group_all_gather(c->group, c->unit + view * count * width,
                                     c->unit_all + view * pairs * width, c->counts, MDM_FLOAT));
    float scale = lambda / (float)(2 * pairs);
    MDM_TRY(c->reproducible ? lose_alone(c, p, scale) : lose_together(c, p, scale));
    mdm_unit_rows_backward(c->device, c->unit, c->norm, c->unit_gradient, 2 * count, c->width, gradient);
    return MDM_OK;
}

mdm_row_sum mdm_contrast_sum(const mdm_contrast *c, int64_t pairs, double *loss) {
    int64_t first, count;
    mdm_comm_my_slice(c->comm, pairs, &first, &count);
    if (c->reproducible) count = mdm_comm_rank(c->comm) == 0 ? pairs : 0; /* all ranks have all anchors */
    return (mdm_row_sum){c->value, 2 * count, 2.0 * (double)pairs, loss};
}
