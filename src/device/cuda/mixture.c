/* The mixture of losses on a CUDA device: a launch or two for each of its questions, and the answer to the
 * host. */
#include "device.h"
#include <stdlib.h>
#include <string.h>

struct mdm_mixture {
    mdm_gpu *gpu;
    mdm_mixture_range *host_range;
    mdm_mixture_arguments a; /* the buffers, and what is common to all launches */
    void *range, *bin, *partial, *sum;
};

static uint32_t blocks_of(int64_t n) {
    return (uint32_t)((n + MDM_MIXTURE_BLOCK - 1) / MDM_MIXTURE_BLOCK);
}

static mdm_status allocate(mdm_mixture *m, size_t blocks) {
    static const char what[] = "the mixture of losses";
    MDM_TRY(MDM_ALLOCATE(m->host_range, (int64_t)blocks, what));
    MDM_TRY(mdm_gpu_allocate(m->gpu, blocks * sizeof *m->a.range, what, &m->range));
    MDM_TRY(mdm_gpu_allocate(m->gpu, MDM_MIXTURE_BINS * sizeof *m->a.bin, what, &m->bin));
    MDM_TRY(mdm_gpu_allocate(m->gpu, blocks * sizeof(mdm_mixture_sums), what, &m->partial));
    return mdm_gpu_allocate(m->gpu, sizeof(mdm_mixture_sums), what, &m->sum);
}

mdm_status mdm_mixture_create(mdm_device *device, int64_t most, mdm_mixture **mixture) {
    mdm_mixture *m;
    *mixture = NULL;
    MDM_TRY(MDM_ALLOCATE(m, 1, "the mixture of losses"));
    m->gpu = mdm_cuda(device)->gpu;
    mdm_status status = allocate(m, blocks_of(most) + 1);
    if (status != MDM_OK) {
        mdm_mixture_destroy(m);
        return status;
    }
    m->a.range = m->range;
    m->a.bin = m->bin;
    m->a.partial = m->partial;
    m->a.sum = m->sum;
    *mixture = m;
    return MDM_OK;
}

void mdm_mixture_destroy(mdm_mixture *m) {
    if (!m) return;
    void *buffers[] = {m->range, m->bin, m->partial, m->sum};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) mdm_gpu_free(m->gpu, buffers[i]);
    free(m->host_range);
    free(m);
}

static mdm_mixture_arguments arguments_of(const mdm_mixture *m, const float *loss, int64_t n) {
    mdm_mixture_arguments a = m->a;
    a.loss = loss;
    a.count = (uint32_t)n;
    a.blocks = blocks_of(n);
    return a;
}

mdm_status mdm_mixture_extremes(mdm_mixture *m, const float *loss, int64_t n, float *low, float *high,
                                int64_t *bad, float *bad_loss) {
    mdm_mixture_arguments a = arguments_of(m, loss, n);
    mdm_mixture_range range = {INFINITY, -INFINITY, UINT32_MAX};
    mdm_gpu_extremes(m->gpu, a.blocks, 1, &a);
    MDM_TRY(mdm_gpu_download(m->gpu, m->host_range, a.range, a.blocks * sizeof *a.range));
    for (uint32_t b = 0; b < a.blocks; b++) mdm_widen_range(&range, m->host_range[b]);
    *low = range.low;
    *high = range.high;
    *bad = range.bad == UINT32_MAX ? -1 : (int64_t)range.bad;
    return *bad < 0 ? MDM_OK : mdm_gpu_download(m->gpu, bad_loss, loss + *bad, sizeof *bad_loss);
}

mdm_status mdm_mixture_histogram(mdm_mixture *m, const float *loss, int64_t n, double minimum,
                                 double inverse_range, int64_t *count) {
    mdm_mixture_arguments a = arguments_of(m, loss, n);
    uint32_t bin[MDM_MIXTURE_BINS];
    a.density.minimum = minimum;
    a.density.inverse_range = inverse_range;
    mdm_gpu_zero(m->gpu, a.bin, sizeof bin);
    mdm_gpu_histogram(m->gpu, a.blocks, 1, &a);
    MDM_TRY(mdm_gpu_download(m->gpu, bin, a.bin, sizeof bin));
    for (int b = 0; b < MDM_MIXTURE_BINS; b++) count[b] = bin[b];
    return MDM_OK;
}

mdm_status mdm_mixture_expect(mdm_mixture *m, const float *loss, int64_t n,
                              const mdm_mixture_density *density, mdm_mixture_sums *sums) {
    mdm_mixture_arguments a = arguments_of(m, loss, n);
    a.density = *density;
    mdm_gpu_expect(m->gpu, a.blocks, 1, &a);
    mdm_gpu_expect_all(m->gpu, 1, 1, &a);
    return mdm_gpu_download(m->gpu, sums, a.sum, sizeof *sums);
}

void mdm_mixture_posterior(mdm_device *device, const float *loss, int64_t n,
                           const mdm_mixture_density *density, float *probability) {
    mdm_mixture_arguments a = {
        .loss = loss, .probability = probability, .count = (uint32_t)n, .is_degenerate = density == NULL};
    if (density) a.density = *density;
    mdm_gpu_posterior(mdm_cuda(device)->gpu, mdm_blocks_for((size_t)n), 1, &a);
}
