/* The ranks' devices as a group: sums, gathers and neighbours' blocks over memory of the device.
 *
 * Between CUDA devices NCCL carries them from memory to memory: they are queued, in order with what else is
 * queued on the device, and the host goes on. What goes wrong in one is told where the host next waits
 * (mdm_device_download), as MDM_LOST naming rank, host and collective; such a wait ends within the limit of
 * the stage (mdm/base/watch.h). Where NCCL is not there, or ranks share a device, MPI carries them by way of
 * host memory, and each call returns when it is done; so it is on CPUs, whose memory is the host's.
 *
 * All functions but the first group's are collective: every rank of `comm` calls them, in the same order.
 * Counts are in elements; pointers are to the device's memory. In a group of one rank nothing is queued but
 * copies.
 */
#ifndef MDM_DEVICE_GROUP_H
#define MDM_DEVICE_GROUP_H

#include "mdm/comm/comm.h"
#include "mdm/device/device.h"

/* ---- the devices get to know each other ---- */

/* Collective. Makes NCCL's communicator of the ranks' CUDA devices, which groups made of both then use, and
 * which ends with the device. `how` says in a few words how groups will communicate ("NCCL 2.28.9"), or why
 * by MPI ("MPI by way of host memory: ranks 0 and 1 share a CUDA device"), the same on all ranks; "" for one
 * rank and on CPUs. MDM_NCCL=off in rank 0's environment chooses MPI. A failure of NCCL itself is MDM_LOST.
 */
enum { MDM_GROUP_HOW = 256 };
MDM_MUST_CHECK mdm_status mdm_device_join(mdm_device *device, mdm_comm *comm, char how[MDM_GROUP_HOW]);

typedef struct mdm_group mdm_group;
/* Not collective. `comm` and `device` must outlive the group. */
MDM_MUST_CHECK mdm_status mdm_group_create(mdm_comm *comm, mdm_device *device, mdm_group **group);
void mdm_group_destroy(mdm_group *group);
/* Room for what is under way by MPI at one time, in bytes; to be asked for while planning. Does nothing where
 * none is needed. */
MDM_MUST_CHECK mdm_status mdm_group_reserve(mdm_group *group, size_t bytes);
/* 1: NCCL carries it, and no function waits. */
int mdm_group_is_queued(const mdm_group *group);

/* ---- in order with what is computed ---- */

/* In place, over all ranks; the same bits on all of them. */
MDM_MUST_CHECK mdm_status mdm_group_all_reduce(mdm_group *group, void *data, int64_t count, mdm_type type,
                                               mdm_reduction reduction);
/* Every rank's part, counts[r] elements (known to all), concatenated in rank order into `all`; `mine` may be
 * its own place there. */
MDM_MUST_CHECK mdm_status mdm_group_all_gather(mdm_group *group, const void *mine, void *all,
                                               const int64_t *counts, mdm_type type);
/* Sums `all`, and leaves in `mine` the counts[rank] elements that belong to this rank. */
MDM_MUST_CHECK mdm_status mdm_group_reduce_scatter(mdm_group *group, const float *all, float *mine,
                                                   const int64_t *counts);

/* ---- beside what is computed ---- */

/* Starts a sum over ranks, in place, of what was queued before has made of `data`. What is queued from now on
 * runs beside it, until mdm_group_reduce_wait: what is queued behind that sees all sums. */
MDM_MUST_CHECK mdm_status mdm_group_reduce_start(mdm_group *group, float *data, int64_t count);
MDM_MUST_CHECK mdm_status mdm_group_reduce_wait(mdm_group *group);

/* The ring: `bytes_out` bytes go to rank + 1 while `bytes_in` come from rank - 1 (modulo P). One transfer at
 * a time; the buffers must stay untouched between start and wait. */
MDM_MUST_CHECK mdm_status mdm_group_ring_start(mdm_group *group, const void *out, int64_t bytes_out, void *in,
                                               int64_t bytes_in);
MDM_MUST_CHECK mdm_status mdm_group_ring_wait(mdm_group *group);

#endif
