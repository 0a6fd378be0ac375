/* The values of one network: weights, their gradient and momentum, and the running statistics.
 *
 * The arrays are in host memory. Where the device has memory of its own, they have a second home there, in
 * which training moves them: mdm_network_fetch before the values are read or written by hand,
 * mdm_network_touch after they were written. */
#ifndef MDM_MODEL_NETWORK_H
#define MDM_MODEL_NETWORK_H

#include "mdm/base/grid_sum.h"
#include "mdm/device/filters.h"
#include "mdm/device/losses.h"
#include "mdm/model/layout.h"

typedef struct mdm_network {
    const mdm_layout *layout;             /* borrowed */
    float *weights, *gradient, *velocity; /* [layout->weight_count] */
    float *statistics;                    /* [layout->statistic_count]: running means and variances */
    uint64_t version; /* changes with the weights; how prepared copies know that they are stale */
    /* The same where the device computes; the arrays above where that is host memory. */
    struct {
        float *weights, *gradient, *velocity, *statistics;
    } home;
    mdm_device *device; /* whose memory that is; NULL: host memory */
    int host_is_newer, device_is_newer;
    mdm_filters *filters;        /* of the convolutions there; NULL: not yet, or in host memory */
    uint64_t filtered;           /* the version that they hold */
    mdm_grid_sums gradient_sums; /* [layout->weight_count] where an executor is reproducible, else empty */
} mdm_network;

/* Fresh weights as PyTorch draws them by default (uniform within 1/sqrt(fan in)), from (seed, network
 * number). */
MDM_MUST_CHECK mdm_status mdm_network_create(const mdm_layout *layout, uint64_t seed, int number,
                                             mdm_network **network);
void mdm_network_destroy(mdm_network *network);
/* Makes the arrays in host memory hold what the device computed. */
MDM_MUST_CHECK mdm_status mdm_network_fetch(mdm_network *network);
/* To be called after weights, momentum or statistics were changed by hand. */
void mdm_network_touch(mdm_network *network);
/* Makes the values on the device those of the host arrays, where these are newer; the first time this
 * allocates. */
MDM_MUST_CHECK mdm_status mdm_network_send(mdm_network *network, mdm_device *device);
/* Where the device has filters: makes those of the network's convolutions, unless they hold its weights
 * already. The first time this allocates. To be called behind mdm_network_send. */
MDM_MUST_CHECK mdm_status mdm_network_make_filters(mdm_network *network, mdm_precision precision);
/* Copies weights and statistics (not gradient and momentum). */
MDM_MUST_CHECK mdm_status mdm_network_copy(mdm_network *to, mdm_network *from);
/* Sets the momentum to zero. */
MDM_MUST_CHECK mdm_status mdm_network_clear_velocity(mdm_network *network);
void mdm_network_clear_gradient(mdm_network *network);
/* Behind the encoder alone, for what writes the encoder's (not where sums are reproducible). */
void mdm_network_clear_heads_gradient(mdm_network *network);

/* Which tensors a step touches. */
enum { MDM_STEP_ENCODER = 1, MDM_STEP_CLASSIFIER = 2, MDM_STEP_PROJECTION = 4, MDM_STEP_ALL = 7 };

/* One momentum step with the separate rates of encoder and heads, which with the verdict (mdm_judge_step) are
 * in the device's memory: nothing is changed where that is not MDM_STEP_IS_SOUND. `roles` is a sum of
 * MDM_STEP_*. */
void mdm_network_step(mdm_device *device, mdm_network *network, int roles, const mdm_step_orders *orders,
                      const double *verdict, float momentum, float weight_decay);
/* To be called when a replayed step has moved the values on the device; filters that held the weights before
 * it do so again. */
void mdm_network_moved(mdm_network *network);
/* average = decay * average + (1 - decay) * network, weights and statistics: model.ema. */
MDM_MUST_CHECK mdm_status mdm_network_average(mdm_device *device, mdm_network *average, mdm_network *network,
                                              float decay);
/* The squared norm of the gradient, into the device's memory; not finite where a value of it is not. */
void mdm_network_square_gradient(mdm_device *device, const mdm_network *network, double *square);
/* Copies the running statistics to or from `saved` [layout->statistic_count] in the device's memory. */
void mdm_network_save_statistics(mdm_device *device, const mdm_network *network, float *saved);
void mdm_network_restore_statistics(mdm_device *device, mdm_network *network, const float *saved);
/* 0 when every weight and statistic is finite, else 1 with the name of the first tensor that is not. To be
 * called after mdm_network_fetch; so is the next one, which gives the first tensor whose gradient is not
 * finite, NULL when all are. */
int mdm_network_not_finite(const mdm_network *network, const char **tensor);
const char *mdm_network_bad_gradient(const mdm_network *network);

/* rate * (1 + cos(pi * epoch / epochs)) / 2; `epoch` may be fractional. */
double mdm_cosine_rate(double rate, double epoch, double epochs);

#endif
