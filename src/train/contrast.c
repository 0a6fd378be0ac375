/* Contrast over the global batch: unit projections are gathered, every rank takes its own anchors, and the
 * gradients of all rows are summed back to their owners. */
#include "mdm/train/contrast.h"
#include "mdm/device/losses_host.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

struct mdm_contrast {
    mdm_comm *comm;
    int64_t pairs;
    int width;
    int64_t *counts;                     /* [P] */
    float *unit, *norm, *unit_gradient;  /* this rank's rows */
    float *unit_all, *unit_gradient_all; /* [2 * pairs, width] */
    float *scratch;
};

mdm_status mdm_contrast_create(mdm_comm *comm, int64_t pairs, int width, mdm_contrast **out) {
    mdm_contrast *c;
    int64_t mine = pairs / mdm_comm_size(comm) + 1;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "contrast"));
    c->comm = comm;
    c->pairs = pairs;
    c->width = width;
    mdm_status status;
    MDM_TRY_OR(status, MDM_ALLOCATE(c->counts, mdm_comm_size(comm), "contrast"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(c->unit, 2 * mine * width, "contrast"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(c->norm, 2 * mine, "contrast"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(c->unit_gradient, 2 * mine * width, "contrast"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(c->unit_all, 2 * pairs * width, "contrast"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(c->unit_gradient_all, 2 * pairs * width, "contrast"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(c->scratch, mdm_nt_xent_scratch_floats(pairs, pairs, width), "contrast"),
               failed);
    *out = c;
    return MDM_OK;
failed:
    mdm_contrast_destroy(c);
    return status;
}

void mdm_contrast_destroy(mdm_contrast *c) {
    if (!c) return;
    free(c->counts);
    free(c->unit);
    free(c->norm);
    free(c->unit_gradient);
    free(c->unit_all);
    free(c->unit_gradient_all);
    free(c->scratch);
    free(c);
}

int64_t mdm_contrast_pairs(const mdm_contrast *contrast) {
    return contrast->pairs;
}

/* All anchors by every rank, in one thread: no sum depends on how rows are spread. */
static void lose_alone(mdm_contrast *c, int64_t pairs, int64_t first, int64_t count, float temperature,
                       float scale, double *loss) {
    int64_t width = c->width;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    *loss = mdm_nt_xent(c->unit_all, pairs, 0, pairs, c->width, temperature, scale, c->unit_gradient_all,
                        c->scratch);
    omp_set_num_threads(threads);
    if (mdm_comm_rank(c->comm) != 0) *loss = 0; /* the sum over ranks counts it once */
    for (int view = 0; view < 2; view++)
        memcpy(c->unit_gradient + view * count * width, c->unit_gradient_all + (view * pairs + first) * width,
               sizeof(float) * (size_t)(count * width));
}

/* This rank's anchors; everybody's gradients go to the rows' owners. */
static mdm_status lose_together(mdm_contrast *c, int64_t pairs, int64_t first, int64_t count,
                                float temperature, float scale, double *loss) {
    int64_t width = c->width;
    *loss = mdm_nt_xent(c->unit_all, pairs, first, count, c->width, temperature, scale, c->unit_gradient_all,
                        c->scratch);
    for (int view = 0; view < 2; view++)
        MDM_TRY(mdm_comm_reduce_scatter(c->comm, c->unit_gradient_all + view * pairs * width,
                                        c->unit_gradient + view * count * width, c->counts));
    return MDM_OK;
}

mdm_status mdm_contrast_loss(mdm_contrast *c, int64_t pairs, int64_t first, int64_t count, int reproducible,
                             float temperature, float lambda, const float *projection, float *gradient,
                             double *loss) {
    int64_t width = c->width;
    int ranks = mdm_comm_size(c->comm);
    if (pairs > c->pairs)
        return mdm_fail(MDM_LOST, "contrast of %lld pairs in memory for %lld", (long long)pairs,
                        (long long)c->pairs);
    for (int r = 0; r < ranks; r++) {
        int64_t start;
        mdm_comm_slice(pairs, r, ranks, &start, &c->counts[r]);
        c->counts[r] *= width;
    }
    mdm_normalize_forward(projection, 2 * count, c->width, c->unit, c->norm);
    for (int view = 0; view < 2; view++)
        MDM_TRY(mdm_comm_all_gather(c->comm, c->unit + view * count * width, count * width,
                                    c->unit_all + view * pairs * width, c->counts, MDM_FLOAT));
    memset(c->unit_gradient_all, 0, sizeof(float) * (size_t)(2 * pairs * width));
    float scale = lambda / (float)(2 * pairs);
    if (reproducible)
        lose_alone(c, pairs, first, count, temperature, scale, loss);
    else
        MDM_TRY(lose_together(c, pairs, first, count, temperature, scale, loss));
    *loss /= 2.0 * (double)pairs;
    mdm_normalize_backward(c->unit, c->norm, c->unit_gradient, 2 * count, c->width, gradient);
    return MDM_OK;
}
