/* What the exact fit (gmm.c) and the choice of its start (gmm_start.c) share. */
#ifndef MDM_DIVIDE_GMM_INTERNAL_H
#define MDM_DIVIDE_GMM_INTERNAL_H

#include "kernels.h"
#include "mdm/comm/comm.h"
#include "mdm/divide/gmm.h"

typedef struct mdm_gmm_parameters {
    double mean[2], variance[2], weight[2]; /* of the scaled losses; in any order */
} mdm_gmm_parameters;

typedef struct mdm_gmm_scaling {
    double minimum, inverse_range;
} mdm_gmm_scaling;

/* This rank's losses: in host memory, or in that of the device whose `mixture` sums over them. */
typedef struct mdm_gmm_samples {
    const float *loss; /* [n] */
    int64_t n;
    mdm_mixture *mixture; /* NULL: host memory */
} mdm_gmm_samples;

mdm_gmm_density mdm_gmm_density_of(const mdm_gmm_parameters *parameters, mdm_gmm_scaling scaling);

/* The M step: parameters from the sums of an E step that was made with them. Returns 0, leaving them, when a
 * component holds less than one sample or a millionth of all `total`. */
int mdm_gmm_maximise(mdm_gmm_parameters *parameters, const mdm_gmm_sums *sums, double total, double floor);

/* Collective. Picks the start of the exact fit: EM from several deterministic starts on the joint histogram,
 * best likelihood. *found is 0 when every start ends with an empty component. */
MDM_MUST_CHECK mdm_status mdm_gmm_choose_start(mdm_comm *comm, const mdm_gmm_samples *samples,
                                               mdm_gmm_scaling scaling, const mdm_gmm_options *options,
                                               mdm_gmm_parameters *best, int *found);

#endif
