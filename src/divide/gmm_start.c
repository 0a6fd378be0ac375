/* Where the mixture's fit starts: from the losses' joint histogram to parameters near the best likelihood.
 *
 * EM finds a local maximum near its start, so several starts are tried: the split into two by 2-means, and
 * splits at quantiles that suit rare as well as heavy label noise. A split gives each side's weight, mean and
 * variance. EM runs on the histogram, whose bin is so much narrower than the variance floor allows a
 * component to be (1/2048 against a standard deviation of 0.022) that it hardly differs from the samples, at
 * a small part of the price. */
#include "gmm_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = MDM_MIXTURE_BINS, SAMPLES = 65536, LEAST_ITERATIONS = 200 };
/* What another start must gain in mean log likelihood over the ones before it, of which 2-means, the usual
 * start of such a mixture, is the first. With a floor, EM need not raise the likelihood at every step, so
 * small differences say little; and neither ranks nor orders of summation can tip the choice. */
static const double CLEARLY_BETTER = 1e-4;
static const double quantiles[] = {0.5, 0.25, 0.75, 0.1, 0.9, 0.97};
enum { QUANTILES = sizeof quantiles / sizeof *quantiles };

typedef struct histogram {
    int64_t count[BINS];
    int bins; /* those that hold samples */
    float centre[BINS];
    double samples[BINS], total;
} histogram;

static void count_samples(const float *loss, int64_t n, mdm_gmm_scaling scaling, int64_t *count) {
    int64_t blocks = (n + SAMPLES - 1) / SAMPLES;
#pragma omp parallel
    {
        int32_t mine[BINS] = {0}; /* a block is short enough for 32 bits, and is added up before the next */
#pragma omp for
        for (int64_t block = 0; block < blocks; block++) {
            int64_t end = (block + 1) * SAMPLES < n ? (block + 1) * SAMPLES : n;
            for (int64_t i = block * SAMPLES; i < end; i++) {
                int bin = (int)((loss[i] - scaling.minimum) * scaling.inverse_range * BINS);
                mine[bin < BINS ? bin : BINS - 1]++;
            }
            for (int bin = 0; bin < BINS; bin++)
                if (mine[bin]) {
#pragma omp atomic
                    count[bin] += mine[bin];
                    mine[bin] = 0;
                }
        }
    }
}

static mdm_status build(mdm_comm *comm, const mdm_gmm_samples *samples, mdm_gmm_scaling scaling,
                        histogram *h) {
    mdm_status status = MDM_OK;
    if (samples->mixture)
        status = mdm_mixture_histogram(samples->mixture, samples->loss, samples->n, scaling.minimum,
                                       scaling.inverse_range, h->count);
    else
        count_samples(samples->loss, samples->n, scaling, h->count);
    MDM_TRY(mdm_comm_agree(comm, status));
    MDM_TRY(mdm_comm_all_reduce(comm, h->count, BINS, MDM_INT64, MDM_SUM));
    for (int bin = 0; bin < BINS; bin++) {
        if (h->count[bin] == 0) continue;
        h->centre[h->bins] = ((float)bin + 0.5f) / BINS;
        h->samples[h->bins++] = (double)h->count[bin];
        h->total += (double)h->count[bin];
    }
    return MDM_OK;
}

/* Parameters of the two sides of a split after the first `below` bins. */
static mdm_gmm_parameters split_at(const histogram *h, int below, double floor) {
    mdm_gmm_parameters p;
    for (int side = 0; side < 2; side++) {
        double weight = 0, sum = 0, squares = 0;
        int first = side ? below : 0, end = side ? h->bins : below;
        for (int b = first; b < end; b++) {
            weight += h->samples[b];
            sum += h->samples[b] * h->centre[b];
        }
        double mean = sum / weight;
        for (int b = first; b < end; b++)
            squares += h->samples[b] * (h->centre[b] - mean) * (h->centre[b] - mean);
        p.weight[side] = weight / h->total;
        p.mean[side] = mean;
        p.variance[side] = squares / weight + floor;
    }
    return p;
}

static int bins_up_to(const histogram *h, double cut) {
    int below = 0;
    while (below < h->bins && h->centre[below] <= cut) below++;
    return below < 1 ? 1 : below > h->bins - 1 ? h->bins - 1 : below;
}

static int split_by_means(const histogram *h) {
    int below = bins_up_to(h, 0.5);
    for (int iteration = 0; iteration < 100; iteration++) {
        mdm_gmm_parameters p = split_at(h, below, 0);
        int next = bins_up_to(h, 0.5 * (p.mean[0] + p.mean[1]));
        if (next == below) break;
        below = next;
    }
    return below;
}

static int split_by_quantile(const histogram *h, double quantile) {
    double sum = 0;
    int below = 0;
    while (below < h->bins && sum < quantile * h->total) sum += h->samples[below++];
    return below < 1 ? 1 : below > h->bins - 1 ? h->bins - 1 : below;
}

/* EM on the histogram; returns the mean log likelihood at its end, -inf when a component empties. */
static double fit(const histogram *h, const mdm_gmm_options *options, mdm_gmm_parameters *p) {
    mdm_gmm_scaling unscaled = {0, 1};
    int iterations = options->iterations > LEAST_ITERATIONS ? options->iterations : LEAST_ITERATIONS;
    double tolerance = options->tolerance < 1e-6 ? options->tolerance : 1e-6, before = -INFINITY;
    for (int iteration = 0; iteration < iterations; iteration++) {
        mdm_gmm_density density = mdm_gmm_density_of(p, unscaled);
        mdm_gmm_sums sums = {{0}, {0}, {0}, 0};
        mdm_divide_kernels()->expectation(h->centre, h->samples, h->bins, &density, &sums);
        double likelihood = sums.log_likelihood / h->total;
        if (fabs(likelihood - before) < tolerance) return likelihood;
        before = likelihood;
        if (!mdm_gmm_maximise(p, &sums, h->total, options->floor)) return -INFINITY;
    }
    return before;
}

mdm_status mdm_gmm_choose_start(mdm_comm *comm, const mdm_gmm_samples *samples, mdm_gmm_scaling scaling,
                                const mdm_gmm_options *options, mdm_gmm_parameters *best, int *found) {
    histogram *h = NULL;
    mdm_status status = MDM_ALLOCATE(h, 1, "histogram of the losses");
    MDM_TRY_OR(status, mdm_comm_agree(comm, status), release);
    MDM_TRY_OR(status, build(comm, samples, scaling, h), release);
    double likeliest = -INFINITY;
    *found = 0;
    for (int start = 0; start <= QUANTILES && h->bins > 1; start++) {
        int below = start == 0 ? split_by_means(h) : split_by_quantile(h, quantiles[start - 1]);
        mdm_gmm_parameters p = split_at(h, below, options->floor);
        double likelihood = fit(h, options, &p);
        if (likelihood > likeliest + CLEARLY_BETTER) {
            likeliest = likelihood;
            *best = p;
            *found = 1;
        }
    }
release:
    free(h);
    return status;
}
