/* NCCL's communicator of the ranks' devices: collectives queued on the device's memory, and failures that end
 * every wait. nccl.c needs NCCL's header; nccl_absent.c stands in for it. */
#ifndef MDM_DEVICE_CUDA_NCCL_H
#define MDM_DEVICE_CUDA_NCCL_H

#include "gpu.h"
#include "mdm/comm/comm.h"

typedef struct mdm_nccl mdm_nccl;

/* MDM_OK and its version (22809 is 2.28.9) where the library can be opened, else MDM_RESOURCE saying why. */
MDM_MUST_CHECK mdm_status mdm_nccl_find(int *version);
/* Collective over `comm`, each rank with a device of its own. Waits for the others no longer than a stage
 * may pause. */
MDM_MUST_CHECK mdm_status mdm_nccl_create(mdm_comm *comm, mdm_gpu *gpu, mdm_nccl **nccl);
void mdm_nccl_destroy(mdm_nccl *nccl);

/* Collective, queued. A failure has aborted the communicator when it is returned. `counts` [ranks]. */
MDM_MUST_CHECK mdm_status mdm_nccl_all_reduce(mdm_nccl *nccl, mdm_gpu_queue queue, void *data, int64_t count,
                                              mdm_type type, mdm_reduction reduction);
MDM_MUST_CHECK mdm_status mdm_nccl_all_gather(mdm_nccl *nccl, const void *mine, void *all,
                                              const int64_t *counts, mdm_type type);
MDM_MUST_CHECK mdm_status mdm_nccl_reduce_scatter(mdm_nccl *nccl, const float *all, float *mine,
                                                  const int64_t *counts);
MDM_MUST_CHECK mdm_status mdm_nccl_shift(mdm_nccl *nccl, mdm_gpu_queue queue, const void *out,
                                         int64_t bytes_out, void *in, int64_t bytes_in);
/* Notes for the host's next wait that recorded collectives are queued once more. */
void mdm_nccl_expect_replay(mdm_nccl *nccl);
/* MDM_GPU_COMMUNICATING goes on behind what is computed by now; the other way round. */
MDM_MUST_CHECK mdm_status mdm_nccl_fork(mdm_nccl *nccl);
MDM_MUST_CHECK mdm_status mdm_nccl_join(mdm_nccl *nccl);

#endif
