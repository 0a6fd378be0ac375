/* The values of one network: weights, their gradient and momentum, and the running statistics. */
#ifndef MDM_MODEL_NETWORK_H
#define MDM_MODEL_NETWORK_H

#include "mdm/device/device.h"
#include "mdm/model/layout.h"

typedef struct mdm_network {
    const mdm_layout *layout;             /* borrowed */
    float *weights, *gradient, *velocity; /* [layout->weight_count] */
    float *statistics;                    /* [layout->statistic_count]: running means and variances */
    uint64_t version; /* changes with the weights; how prepared copies know that they are stale */
} mdm_network;

/* Fresh weights as PyTorch draws them by default (uniform within 1/sqrt(fan in)), from (seed, network
 * number). */
MDM_MUST_CHECK mdm_status mdm_network_create(const mdm_layout *layout, uint64_t seed, int number,
                                             mdm_network **network);
void mdm_network_destroy(mdm_network *network);
/* To be called after weights were changed by hand. */
void mdm_network_touch(mdm_network *network);
/* Copies weights and statistics (not gradient and momentum). */
void mdm_network_copy(mdm_network *to, const mdm_network *from);

/* Which tensors a step touches. */
enum { MDM_STEP_ENCODER = 1, MDM_STEP_CLASSIFIER = 2, MDM_STEP_PROJECTION = 4, MDM_STEP_ALL = 7 };

/* One momentum step with separate rates for the encoder and the heads; `roles` is a sum of MDM_STEP_*. */
void mdm_network_step(mdm_device *device, mdm_network *network, int roles, float rate_encoder,
                      float rate_heads, float momentum, float weight_decay);
/* average = decay * average + (1 - decay) * network, weights and statistics: model.ema. */
void mdm_network_average(mdm_network *average, const mdm_network *network, float decay);
/* 0 when every weight and statistic is finite, else 1 with the name of the first tensor that is not. */
int mdm_network_not_finite(const mdm_network *network, const char **tensor);

/* rate * (1 + cos(pi * epoch / epochs)) / 2; `epoch` may be fractional. */
double mdm_cosine_rate(double rate, double epoch, double epochs);

#endif
