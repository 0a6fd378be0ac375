/* The samples' part in fitting a mixture of two normal distributions on a CUDA device; the fit itself, a few
 * numbers, is the divide room's (gmm.c). Losses and probabilities are in the device's memory; sums run in
 * double over blocks of a fixed size in a fixed order, so they depend on the losses alone. */
#ifndef MDM_DEVICE_MIXTURE_H
#define MDM_DEVICE_MIXTURE_H

#include "mdm/device/device.h"

/* With u the scaled loss, log p(u, component c) = constant[c] - (u - mean[c])^2 * scale[c]. */
typedef struct mdm_mixture_density {
    double minimum, inverse_range; /* u = (loss - minimum) * inverse_range */
    double mean[2], scale[2], constant[2];
} mdm_mixture_density;

/* Sufficient statistics of one E step: each component's responsibilities r and their moments about its mean,
 * so that variances do not cancel. */
typedef struct mdm_mixture_sums {
    double weight[2], first[2], second[2]; /* sums of r, r (u - mean), r (u - mean)^2 */
    double log_likelihood;
} mdm_mixture_sums;

enum { MDM_MIXTURE_BINS = 2048 };

typedef struct mdm_mixture mdm_mixture;
/* For up to `most` losses. */
MDM_MUST_CHECK mdm_status mdm_mixture_create(mdm_device *device, int64_t most, mdm_mixture **mixture);
void mdm_mixture_destroy(mdm_mixture *mixture);

/* Smallest and largest of loss [n], +inf and -inf for n = 0; the first that is not finite in *bad, and its
 * value, or -1. */
MDM_MUST_CHECK mdm_status mdm_mixture_extremes(mdm_mixture *mixture, const float *loss, int64_t n, float *low,
                                               float *high, int64_t *bad, float *bad_loss);
/* count [MDM_MIXTURE_BINS], in host memory: scaled losses by bin, the last one closed. */
MDM_MUST_CHECK mdm_status mdm_mixture_histogram(mdm_mixture *mixture, const float *loss, int64_t n,
                                                double minimum, double inverse_range, int64_t *count);
/* The E step. */
MDM_MUST_CHECK mdm_status mdm_mixture_expect(mdm_mixture *mixture, const float *loss, int64_t n,
                                             const mdm_mixture_density *density, mdm_mixture_sums *sums);
/* probability [n] = posterior of component 0; all 1 without a density (NULL). */
void mdm_mixture_posterior(mdm_device *device, const float *loss, int64_t n,
                           const mdm_mixture_density *density, float *probability);

#endif
