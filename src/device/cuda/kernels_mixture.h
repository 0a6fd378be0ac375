/* What every thread of the mixture's kernels does (see kernels.h and kernels_rows.h for the scheme). */
#ifndef MDM_DEVICE_CUDA_KERNELS_MIXTURE_H
#define MDM_DEVICE_CUDA_KERNELS_MIXTURE_H

#include "kernels.h"
#include "mdm/device/mixture.h"
#include <float.h>

enum {
    MDM_MIXTURE_RUN = 8, /* samples of a thread, 256 apart */
    MDM_MIXTURE_BLOCK = MDM_MIXTURE_RUN * MDM_GPU_THREADS,
    MDM_MIXTURE_SUMS = sizeof(mdm_mixture_sums) / sizeof(double)
};

/* What is told of a block's samples. */
typedef struct mdm_mixture_range {
    float low, high;
    uint32_t bad; /* the first that is not finite; UINT32_MAX: none */
} mdm_mixture_range;

typedef struct mdm_mixture_arguments {
    const float *loss;
    mdm_mixture_density density;
    mdm_mixture_range *range; /* [blocks] */
    uint32_t *bin;            /* [MDM_MIXTURE_BINS] */
    double *partial;          /* [blocks][MDM_MIXTURE_SUMS] */
    double *sum;              /* [MDM_MIXTURE_SUMS] */
    float *probability;
    uint32_t count, blocks;
    int is_degenerate; /* every probability is 1 */
} mdm_mixture_arguments;

/* Sample number `run` of a thread. */
MDM_BOTH uint32_t mdm_sample_of(mdm_gpu_thread t, uint32_t run) {
    return t.block * MDM_MIXTURE_BLOCK + run * MDM_GPU_THREADS + t.thread;
}

MDM_BOTH double mdm_scaled_loss(const mdm_mixture_arguments *a, uint32_t i) {
    return ((double)a->loss[i] - a->density.minimum) * a->density.inverse_range;
}

/* Posterior of component 0; e = exp(-|d|), d the difference of the components' log p, and log p of the
 * likelier one: log(p0 + p1) = likelier + log(1 + e). */
MDM_BOTH double mdm_responsibility(const mdm_mixture_density *density, double u, double *e,
                                   double *likelier) {
    double from0 = u - density->mean[0], from1 = u - density->mean[1];
    double log0 = density->constant[0] - from0 * from0 * density->scale[0];
    double log1 = density->constant[1] - from1 * from1 * density->scale[1];
    int is_noisy = log1 > log0;
    *likelier = is_noisy ? log1 : log0;
    *e = exp(is_noisy ? log0 - log1 : log1 - log0);
    return (is_noisy ? *e : 1.0) / (*e + 1.0);
}

MDM_BOTH void mdm_posterior_thread(const mdm_mixture_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    double e, likelier;
    if (i >= a->count) return;
    a->probability[i] = a->is_degenerate
                            ? 1.0f
                            : (float)mdm_responsibility(&a->density, mdm_scaled_loss(a, i), &e, &likelier);
}

/* ---- smallest, largest, not finite ---- */

typedef struct mdm_extremes_shared {
    mdm_mixture_range range[MDM_GPU_THREADS];
} mdm_extremes_shared;

MDM_BOTH void mdm_widen_range(mdm_mixture_range *range, mdm_mixture_range by) {
    if (by.low < range->low) range->low = by.low;
    if (by.high > range->high) range->high = by.high;
    if (by.bad < range->bad) range->bad = by.bad;
}

MDM_BOTH uint32_t mdm_extremes_stages(const mdm_mixture_arguments *a, mdm_gpu_thread t) {
    (void)a, (void)t;
    return 2;
}

MDM_BOTH void mdm_extremes_stage(const mdm_mixture_arguments *a, mdm_gpu_thread t, mdm_extremes_shared *s,
                                 uint32_t stage) {
    if (stage == 0) {
        mdm_mixture_range range = {INFINITY, -INFINITY, UINT32_MAX};
        for (uint32_t run = 0; run < MDM_MIXTURE_RUN; run++) {
            uint32_t i = mdm_sample_of(t, run);
            if (i >= a->count) break;
            const mdm_mixture_range here = {a->loss[i], a->loss[i],
                                            fabsf(a->loss[i]) <= FLT_MAX ? UINT32_MAX : i};
            mdm_widen_range(&range, here);
        }
        s->range[t.thread] = range;
    } else if (t.thread == 0) {
        mdm_mixture_range range = s->range[0];
        for (uint32_t i = 1; i < MDM_GPU_THREADS; i++) mdm_widen_range(&range, s->range[i]);
        a->range[t.block] = range;
    }
}

/* ---- the histogram, of a block in shared memory first ---- */

typedef struct mdm_histogram_shared {
    uint32_t bin[MDM_MIXTURE_BINS];
} mdm_histogram_shared;

MDM_BOTH uint32_t mdm_histogram_stages(const mdm_mixture_arguments *a, mdm_gpu_thread t) {
    (void)a, (void)t;
    return 3;
}

MDM_BOTH void mdm_histogram_stage(const mdm_mixture_arguments *a, mdm_gpu_thread t, mdm_histogram_shared *s,
                                  uint32_t stage) {
    if (stage == 1) {
        for (uint32_t run = 0; run < MDM_MIXTURE_RUN; run++) {
            uint32_t i = mdm_sample_of(t, run);
            if (i >= a->count) break;
            int bin = (int)(mdm_scaled_loss(a, i) * MDM_MIXTURE_BINS);
            (void)mdm_atomic_add(&s->bin[bin < MDM_MIXTURE_BINS ? bin : MDM_MIXTURE_BINS - 1], 1);
        }
        return;
    }
    for (uint32_t bin = t.thread; bin < MDM_MIXTURE_BINS; bin += MDM_GPU_THREADS)
        if (stage == 0)
            s->bin[bin] = 0;
        else if (s->bin[bin] > 0)
            (void)mdm_atomic_add(&a->bin[bin], s->bin[bin]);
}

/* ---- the E step: sums of a thread, of a block, of all blocks ---- */

typedef struct mdm_expect_shared {
    double sum[MDM_MIXTURE_SUMS][MDM_GPU_THREADS];
} mdm_expect_shared;

MDM_BOTH uint32_t mdm_expect_stages(const mdm_mixture_arguments *a, mdm_gpu_thread t) {
    (void)a, (void)t;
    return 9; /* 256 threads' sums are halved eight times */
}

MDM_BOTH void mdm_add_sample(const mdm_mixture_arguments *a, uint32_t i, double *sum) {
    double e, likelier, u = mdm_scaled_loss(a, i), r[2];
    r[0] = mdm_responsibility(&a->density, u, &e, &likelier);
    r[1] = 1.0 - r[0];
    for (int c = 0; c < 2; c++) {
        double from = u - a->density.mean[c];
        sum[c] += r[c];
        sum[2 + c] += r[c] * from;
        sum[4 + c] += r[c] * from * from;
    }
    sum[6] += likelier + log1p(e);
}

MDM_BOTH void mdm_expect_stage(const mdm_mixture_arguments *a, mdm_gpu_thread t, mdm_expect_shared *s,
                               uint32_t stage) {
    if (stage == 0) {
        double sum[MDM_MIXTURE_SUMS] = {0};
        for (uint32_t run = 0; run < MDM_MIXTURE_RUN; run++) {
            uint32_t i = mdm_sample_of(t, run);
            if (i < a->count) mdm_add_sample(a, i, sum);
        }
        for (int k = 0; k < (int)MDM_MIXTURE_SUMS; k++) s->sum[k][t.thread] = sum[k];
        return;
    }
    uint32_t half = MDM_GPU_THREADS >> stage;
    if (t.thread >= half) return;
    for (int k = 0; k < (int)MDM_MIXTURE_SUMS; k++) {
        s->sum[k][t.thread] += s->sum[k][t.thread + half];
        if (half == 1) a->partial[(size_t)t.block * MDM_MIXTURE_SUMS + (uint32_t)k] = s->sum[k][0];
    }
}

MDM_BOTH void mdm_expect_all_thread(const mdm_mixture_arguments *a, mdm_gpu_thread t) {
    double sum = 0;
    if (mdm_thread_number(t) >= MDM_MIXTURE_SUMS) return;
    for (uint32_t b = 0; b < a->blocks; b++) sum += a->partial[(size_t)b * MDM_MIXTURE_SUMS + t.thread];
    a->sum[t.thread] = sum;
}

#define MDM_GPU_MIXTURE_KERNELS(X, G)                                                                        \
    X(posterior, mdm_mixture_arguments)                                                                      \
    X(expect_all, mdm_mixture_arguments)                                                                     \
    G(extremes, mdm_mixture_arguments, mdm_extremes_shared)                                                  \
    G(histogram, mdm_mixture_arguments, mdm_histogram_shared)                                                \
    G(expect, mdm_mixture_arguments, mdm_expect_shared)

#endif
