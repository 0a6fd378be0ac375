/* The two-component Gaussian mixture of all ranks' losses: from losses to clean probabilities.
 *
 * The losses are scaled by their joint minimum and maximum; the start comes from the joint histogram
 * (gmm_start.c); then EM runs over the samples themselves, each rank's sums of an E step being added up over
 * all ranks in double. A fit is called degenerate, and every sample clean, when no split exists: fewer than
 * two samples, constant losses, or a component left with less than one sample or a millionth of them. One
 * broad mode is not degenerate: it is fitted by two components that overlap, and the probabilities say as
 * much. */
#include "mdm/divide/gmm.h"
#include "gmm_internal.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 32768
}; /* samples whose sums are taken together, so that the result does not depend on threads */

mdm_gmm_density mdm_gmm_density_of(const mdm_gmm_parameters *parameters, mdm_gmm_scaling scaling) {
    mdm_gmm_density density = {.minimum = scaling.minimum, .inverse_range = scaling.inverse_range};
    for (int c = 0; c < 2; c++) {
        density.mean[c] = parameters->mean[c];
        density.scale[c] = 0.5 / parameters->variance[c];
        density.constant[c] =
            log(parameters->weight[c]) - 0.5 * log(6.283185307179586 * parameters->variance[c]);
    }
    return density;
}

int mdm_gmm_maximise(mdm_gmm_parameters *parameters, const mdm_gmm_sums *sums, double total, double floor) {
    double least = total * 1e-6 > 1 ? total * 1e-6 : 1;
    for (int c = 0; c < 2; c++)
        if (!(sums->weight[c] >= least * (1 - 1e-9))) return 0;
    for (int c = 0; c < 2; c++) {
        double shift = sums->first[c] / sums->weight[c],
               variance = sums->second[c] / sums->weight[c] - shift * shift;
        parameters->mean[c] += shift;
        parameters->variance[c] = (variance > 0 ? variance : 0) + floor;
        if (parameters->variance[c] < 1e-12) parameters->variance[c] = 1e-12; /* only without a floor */
        parameters->weight[c] = sums->weight[c] / total;
    }
    return 1;
}

/* The E step over samples in host memory; `block` is room for a sum per BLOCK of them. */
static void expect_on_cpu(const float *loss, int64_t n, const mdm_gmm_density *density, mdm_gmm_sums *block,
                          mdm_gmm_sums *sums) {
    const mdm_kernels *kernels = mdm_divide_kernels();
    int64_t blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for
    for (int64_t b = 0; b < blocks; b++) {
        memset(&block[b], 0, sizeof block[b]);
        kernels->expectation(loss + b * BLOCK, NULL, n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK, density,
                             &block[b]);
    }
    memset(sums, 0, sizeof *sums);
    for (int64_t b = 0; b < blocks; b++)
        for (int c = 0; c < 2; c++) {
            sums->weight[c] += block[b].weight[c];
            sums->first[c] += block[b].first[c];
            sums->second[c] += block[b].second[c];
            sums->log_likelihood += c ? 0 : block[b].log_likelihood;
        }
}

/* The E step over all ranks' samples. */
static mdm_status expect(mdm_comm *comm, const mdm_gmm_samples *samples, const mdm_gmm_parameters *parameters,
                         mdm_gmm_scaling scaling, mdm_gmm_sums *block, mdm_gmm_sums *sums) {
    mdm_gmm_density density = mdm_gmm_density_of(parameters, scaling);
    if (samples->mixture)
        MDM_TRY(mdm_mixture_expect(samples->mixture, samples->loss, samples->n, &density, sums));
    else
        expect_on_cpu(samples->loss, samples->n, &density, block, sums);
    double all[] = {sums->weight[0], sums->weight[1], sums->first[0],      sums->first[1],
                    sums->second[0], sums->second[1], sums->log_likelihood};
    MDM_TRY(mdm_comm_all_reduce(comm, all, 7, MDM_DOUBLE, MDM_SUM));
    *sums = (mdm_gmm_sums){{all[0], all[1]}, {all[2], all[3]}, {all[4], all[5]}, all[6]};
    return MDM_OK;
}

/* This rank's extremes: {minimum, -maximum}, so that one reduction finds both; the first bad sample in *bad
 * or -1. */
static void find_extremes(const float *loss, int64_t n, float extremes[2], int64_t *bad) {
    float low = INFINITY, high = -INFINITY;
    int infinite = 0;
#pragma omp parallel for simd reduction(min : low) reduction(max : high) reduction(| : infinite)
    for (int64_t i = 0; i < n; i++) {
        low = loss[i] < low ? loss[i] : low;
        high = loss[i] > high ? loss[i] : high;
        infinite |= !(fabsf(loss[i]) <= FLT_MAX);
    }
    *bad = -1;
    for (int64_t i = 0; infinite && *bad < 0; i++)
        if (!isfinite(loss[i])) *bad = i;
    extremes[0] = low;
    extremes[1] = -high;
}

static mdm_status find_extremes_of(const mdm_gmm_samples *samples, float extremes[2], int64_t *bad,
                                   float *bad_loss) {
    float high;
    if (samples->mixture) {
        MDM_TRY(mdm_mixture_extremes(samples->mixture, samples->loss, samples->n, &extremes[0], &high, bad,
                                     bad_loss));
        extremes[1] = -high;
    } else {
        find_extremes(samples->loss, samples->n, extremes, bad);
        if (*bad >= 0) *bad_loss = samples->loss[*bad];
    }
    return MDM_OK;
}

static mdm_status check(mdm_comm *comm, const mdm_gmm_options *options, const mdm_gmm_samples *samples,
                        float extremes[2]) {
    if (options->iterations < 1)
        return mdm_fail(MDM_USAGE, "divide.gmm_iterations is %d; it must be at least 1", options->iterations);
    if (!(options->tolerance >= 0))
        return mdm_fail(MDM_USAGE, "divide.gmm_tolerance is %g; it must not be negative", options->tolerance);
    if (!(options->floor >= 0 && options->floor <= DBL_MAX))
        return mdm_fail(MDM_USAGE, "divide.gmm_floor is %g; it must be finite and not negative",
                        options->floor);
    int64_t bad;
    float bad_loss = 0;
    MDM_TRY(find_extremes_of(samples, extremes, &bad, &bad_loss));
    if (bad >= 0)
        return mdm_fail(
            MDM_NUMERIC,
            "the loss of sample %lld of rank %d is %g; the network has diverged, try a lower learning rate",
            (long long)bad, mdm_comm_rank(comm), (double)bad_loss);
    return MDM_OK;
}

/* EM over the samples from *parameters; *sound is 0 when a component emptied. */
static mdm_status fit(mdm_comm *comm, const mdm_gmm_samples *samples, double total, mdm_gmm_scaling scaling,
                      const mdm_gmm_options *options, mdm_gmm_parameters *parameters, mdm_gmm *gmm,
                      int *sound) {
    mdm_gmm_sums *block = NULL, sums;
    mdm_status status = MDM_ALLOCATE(block, samples->n / BLOCK + 1, "sums of the mixture");
    MDM_TRY_OR(status, mdm_comm_agree(comm, status), release);
    double before = -INFINITY;
    *sound = 1;
    while (*sound && !gmm->converged && gmm->iterations < options->iterations) {
        MDM_TRY_OR(status, expect(comm, samples, parameters, scaling, block, &sums), release);
        *sound = mdm_gmm_maximise(parameters, &sums, total, options->floor);
        double likelihood = sums.log_likelihood / total;
        /* The start has converged on the histogram, so a likelihood that falls is the floor at work: time to
         * stop, too. */
        gmm->converged = likelihood - before < options->tolerance;
        gmm->iterations++;
        before = likelihood;
    }
    MDM_TRY_OR(status, expect(comm, samples, parameters, scaling, block, &sums), release);
    gmm->log_likelihood = sums.log_likelihood / total;
release:
    free(block);
    return status;
}

static void give_up(mdm_gmm *gmm, const char *reason) {
    gmm->degenerate = 1;
    gmm->degenerate_reason = reason;
}

static void take_parameters(const mdm_gmm_parameters *p, mdm_gmm *gmm) {
    int swap = p->mean[1] < p->mean[0];
    for (int c = 0; c < 2; c++) {
        gmm->mean[c] = p->mean[c ^ swap];
        gmm->variance[c] = p->variance[c ^ swap];
        gmm->weight[c] = p->weight[c ^ swap];
    }
}

/* That of a fitted mixture, lower mean first. */
static mdm_gmm_density density_of_fit(const mdm_gmm *gmm) {
    mdm_gmm_scaling scaling = {gmm->minimum, 1 / (gmm->maximum - gmm->minimum)};
    mdm_gmm_parameters sorted = {.mean = {gmm->mean[0], gmm->mean[1]},
                                 .variance = {gmm->variance[0], gmm->variance[1]},
                                 .weight = {gmm->weight[0], gmm->weight[1]}};
    return mdm_gmm_density_of(&sorted, scaling);
}

void mdm_gmm_clean_probability(const mdm_gmm *gmm, const float *loss, int64_t n, float *clean_probability) {
    if (gmm->degenerate) {
        for (int64_t i = 0; i < n; i++) clean_probability[i] = 1;
        return;
    }
    mdm_gmm_density density = density_of_fit(gmm);
    const mdm_kernels *kernels = mdm_divide_kernels();
#pragma omp parallel for
    for (int64_t first = 0; first < n; first += BLOCK)
        kernels->posterior(loss + first, n - first < BLOCK ? n - first : BLOCK, &density,
                           clean_probability + first);
}

void mdm_gmm_clean_probability_on(mdm_device *device, const mdm_gmm *gmm, const float *loss, int64_t n,
                                  float *clean_probability) {
    if (!mdm_device_get_info(device)->is_cuda) {
        mdm_gmm_clean_probability(gmm, loss, n, clean_probability);
        return;
    }
    mdm_gmm_density density;
    if (!gmm->degenerate) density = density_of_fit(gmm);
    mdm_mixture_posterior(device, loss, n, gmm->degenerate ? NULL : &density, clean_probability);
}

/* Fits the mixture; the probabilities are the caller's. */
static mdm_status fit_samples(mdm_comm *comm, const mdm_gmm_samples *samples, const mdm_gmm_options *options,
                              mdm_gmm *gmm) {
    float extremes[2] = {INFINITY, INFINITY};
    int64_t count = samples->n;
    MDM_TRY(mdm_comm_agree(comm, check(comm, options, samples, extremes)));
    MDM_TRY(mdm_comm_all_reduce(comm, extremes, 2, MDM_FLOAT, MDM_MIN));
    MDM_TRY(mdm_comm_all_reduce(comm, &count, 1, MDM_INT64, MDM_SUM));
    if (count < 2) {
        give_up(gmm, "fewer than two samples");
        return MDM_OK;
    }
    gmm->minimum = extremes[0];
    gmm->maximum = -(double)extremes[1];
    if (gmm->maximum <= gmm->minimum) {
        give_up(gmm, "all losses are equal");
        return MDM_OK;
    }
    mdm_gmm_scaling scaling = {gmm->minimum, 1 / (gmm->maximum - gmm->minimum)};
    mdm_gmm_parameters parameters;
    int sound = 0;
    MDM_TRY(mdm_gmm_choose_start(comm, samples, scaling, options, &parameters, &sound));
    if (sound) MDM_TRY(fit(comm, samples, (double)count, scaling, options, &parameters, gmm, &sound));
    if (sound)
        take_parameters(&parameters, gmm);
    else
        give_up(gmm, "a component of the mixture is empty");
    return MDM_OK;
}

mdm_status mdm_gmm_fit(mdm_comm *comm, const float *loss, int64_t n, const mdm_gmm_options *options,
                       mdm_gmm *gmm, float *clean_probability) {
    const mdm_gmm_samples samples = {.loss = loss, .n = n};
    memset(gmm, 0, sizeof *gmm);
    MDM_TRY(fit_samples(comm, &samples, options, gmm));
    mdm_gmm_clean_probability(gmm, loss, n, clean_probability);
    return MDM_OK;
}

mdm_status mdm_gmm_fit_on(mdm_comm *comm, mdm_device *device, const float *loss, int64_t n,
                          const mdm_gmm_options *options, mdm_gmm *gmm, float *clean_probability) {
    mdm_gmm_samples samples = {.loss = loss, .n = n};
    if (!mdm_device_get_info(device)->is_cuda)
        return mdm_gmm_fit(comm, loss, n, options, gmm, clean_probability);
    memset(gmm, 0, sizeof *gmm);
    mdm_status status = mdm_comm_agree(comm, mdm_mixture_create(device, n, &samples.mixture));
    if (status == MDM_OK) status = fit_samples(comm, &samples, options, gmm);
    if (status == MDM_OK) mdm_gmm_clean_probability_on(device, gmm, loss, n, clean_probability);
    mdm_mixture_destroy(samples.mixture);
    return status;
}
