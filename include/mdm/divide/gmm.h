/* Two-component Gaussian mixture over all samples' losses: which labels are clean.
 *
 * Losses are scaled to [0, 1] by their minimum and maximum over all samples; the posterior of the component
 * with the lower mean is the clean probability (DivideMix, Li et al. 2020, section 3.1; formulas as
 * scikit-learn's GaussianMixture).
 */
#ifndef MDM_DIVIDE_GMM_H
#define MDM_DIVIDE_GMM_H

#include "mdm/base/status.h"
#include "mdm/comm/comm.h"
#include "mdm/device/device.h"
#include <stdint.h>

typedef struct mdm_gmm_options {
    int iterations;   /* at most */
    double tolerance; /* stop when the mean log likelihood changes by less */
    double floor;     /* added to both variances in every M step */
} mdm_gmm_options;

typedef struct mdm_gmm {
    double mean[2], variance[2], weight[2]; /* of the scaled losses, lower mean first */
    double log_likelihood;                  /* mean over samples, at the final parameters */
    double minimum, maximum;                /* of the losses before scaling, over all ranks */
    int iterations, converged;
    int degenerate; /* 1: fewer than two samples, constant losses or an empty component: no split exists,
                       everything counts as clean */
    const char *degenerate_reason; /* static text, NULL when sound */
} mdm_gmm;

/* Collective. Fits `loss` [n] of this rank and all others' jointly; writes clean_probability [n]. The result
 * is the same for any number of ranks up to the rounding of double sums. Deterministic starts, best
 * likelihood. Non-finite losses are MDM_NUMERIC. */
MDM_MUST_CHECK mdm_status mdm_gmm_fit(mdm_comm *comm, const float *loss, int64_t n,
                                      const mdm_gmm_options *options, mdm_gmm *gmm, float *clean_probability);

/* Not collective. The same for losses [n] that were not fitted; all 1 where the mixture is degenerate. */
void mdm_gmm_clean_probability(const mdm_gmm *gmm, const float *loss, int64_t n, float *clean_probability);

/* The same two for losses and probabilities in the memory of `device`. A CUDA device makes the sums of the E
 * steps, the histogram and the probabilities; what comes to the host are a few numbers an iteration. The
 * result is the CPU's up to the rounding of double sums. */
MDM_MUST_CHECK mdm_status mdm_gmm_fit_on(mdm_comm *comm, mdm_device *device, const float *loss, int64_t n,
                                         const mdm_gmm_options *options, mdm_gmm *gmm,
                                         float *clean_probability);
void mdm_gmm_clean_probability_on(mdm_device *device, const mdm_gmm *gmm, const float *loss, int64_t n,
                                  float *clean_probability);

#endif
