/* What ranks give each other inside a step: collectives over float arrays in the memory of their devices.
 *
 * Where that is not the host's, arrays go through host memory on their way: all of that is here. */
#ifndef MDM_MODEL_EXCHANGE_H
#define MDM_MODEL_EXCHANGE_H

#include "mdm/comm/comm.h"
#include "mdm/device/device.h"

typedef struct mdm_exchange mdm_exchange;

/* For arrays of at most so many floats of all ranks. */
MDM_MUST_CHECK mdm_status mdm_exchange_create(mdm_comm *comm, mdm_device *device, int64_t floats,
                                              mdm_exchange **exchange);
void mdm_exchange_destroy(mdm_exchange *exchange);

/* Collective. all = every rank's floats in rank order, counts [P] of each; `mine` are counts[rank]. */
MDM_MUST_CHECK mdm_status mdm_exchange_gather(mdm_exchange *exchange, const float *mine, float *all,
                                              const int64_t *counts);
/* Collective. mine = this rank's part, counts[rank] floats, of the sum of `all` over ranks. */
MDM_MUST_CHECK mdm_status mdm_exchange_reduce_scatter(mdm_exchange *exchange, const float *all, float *mine,
                                                      const int64_t *counts);

#endif
