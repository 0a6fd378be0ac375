/* The process group: what ranks say to each other. Nothing above this room calls MPI.
 *
 * A program that was not started by an MPI launcher is a group of one rank. All functions that begin with
 * "Collective" must be called by every rank in the same order. Only the thread that called mdm_comm_start may
 * call them (MPI_THREAD_FUNNELED). Counts are in elements. Failures of MPI itself return MDM_LOST.
 */
#ifndef MDM_COMM_COMM_H
#define MDM_COMM_COMM_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mdm_comm mdm_comm;

typedef enum mdm_type { MDM_FLOAT, MDM_DOUBLE, MDM_INT32, MDM_INT64, MDM_BYTE } mdm_type;
typedef enum mdm_reduction { MDM_SUM, MDM_MIN, MDM_MAX } mdm_reduction;

/* Whether the environment tells of a launcher (mpirun, srun): its processes have ranks. */
int mdm_comm_has_launcher(void);

/* Collective. Starts MPI and makes the group. The group is owned by the caller. */
MDM_MUST_CHECK mdm_status mdm_comm_start(int *argc, char ***argv, mdm_comm **comm);
/* A group of the calling rank alone, for what every rank computes by itself; ended by mdm_comm_finish. */
MDM_MUST_CHECK mdm_status mdm_comm_create_alone(mdm_comm **comm);
/* Collective. Ends MPI; `comm` is gone afterwards. */
void mdm_comm_finish(mdm_comm *comm);
/* Ends every rank at once with `code`, without waiting for anybody; for errors that only one rank has seen.
 */
_Noreturn void mdm_comm_abort(mdm_comm *comm, int code);

/* For a rank that failed without knowing whether the others did too: returns 1 when every rank calls this
 * within `seconds` (the failure was everybody's, leave in order), else 0 (the others still work: tell the
 * cause, then mdm_comm_abort). */
int mdm_comm_all_fail(mdm_comm *comm, double seconds);
/* The latest message with this rank and its host before it, unless it begins with a rank, as failures of MPI
 * and NCCL do. */
void mdm_comm_name_rank(const mdm_comm *comm, char *line, size_t size);

int mdm_comm_rank(const mdm_comm *comm);
int mdm_comm_size(const mdm_comm *comm);
/* Rank and number of ranks on this node (those that share memory). */
int mdm_comm_node_rank(const mdm_comm *comm);
int mdm_comm_node_size(const mdm_comm *comm);
const char *mdm_comm_host(const mdm_comm *comm);
/* Seconds that this rank has spent inside collectives so far, nearly all of it waiting for other ranks. */
double mdm_comm_waited(const mdm_comm *comm);
/* "Open MPI 4.1.4" or the like. */
const char *mdm_comm_library(const mdm_comm *comm);

/* Rows [*first, *first + *count) of `total` that belong to rank r of P: [r*total/P, (r+1)*total/P). */
void mdm_comm_slice(int64_t total, int rank, int ranks, int64_t *first, int64_t *count);
/* The same for the calling rank. */
void mdm_comm_my_slice(const mdm_comm *comm, int64_t total, int64_t *first, int64_t *count);

/* Collective. Agrees on the worst outcome: returns MDM_OK when every rank passed MDM_OK, else the status of
 * the lowest failing rank on every rank, with that rank's message (prefixed by its rank when there are
 * several). */
MDM_MUST_CHECK mdm_status mdm_comm_agree(mdm_comm *comm, mdm_status mine);

/* Collective. */
MDM_MUST_CHECK mdm_status mdm_comm_barrier(mdm_comm *comm);
/* Collective. */
MDM_MUST_CHECK mdm_status mdm_comm_broadcast(mdm_comm *comm, void *data, int64_t count, mdm_type type,
                                             int root);
/* Collective. In place. The result is the same on all ranks to the bit. */
MDM_MUST_CHECK mdm_status mdm_comm_all_reduce(mdm_comm *comm, void *data, int64_t count, mdm_type type,
                                              mdm_reduction reduction);
/* Collective. Every rank's `count` elements, concatenated in rank order into `all`; counts may differ between
 * ranks. `counts` (elements of each rank, [P], the same on all ranks) may be NULL: then the ranks tell each
 * other first, at the price of one more small message. `mine` may be its own place in `all`. */
MDM_MUST_CHECK mdm_status mdm_comm_all_gather(mdm_comm *comm, const void *mine, int64_t count, void *all,
                                              const int64_t *counts, mdm_type type);

/* Collective. Sums `all` ([total] elements, float) over ranks and leaves in `mine` the part that belongs to
 * this rank: counts[r] elements for rank r, in rank order. */
MDM_MUST_CHECK mdm_status mdm_comm_reduce_scatter(mdm_comm *comm, const float *all, float *mine,
                                                  const int64_t *counts);

/* Collective. The ring: starts sending `bytes_out` bytes to rank + 1 and receiving `bytes_in` from rank - 1
 * (modulo P); mdm_comm_ring_wait ends it. One transfer at a time; the buffers must stay untouched between the
 * two. mdm_comm_poll helps it on. */
MDM_MUST_CHECK mdm_status mdm_comm_ring_start(mdm_comm *comm, const void *out, int64_t bytes_out, void *in,
                                              int64_t bytes_in);
MDM_MUST_CHECK mdm_status mdm_comm_ring_wait(mdm_comm *comm);

/* Collective. The bucket reduction: starts a sum over ranks, in place, of `count` floats, and returns at
 * once. Up to 64 may be under way; mdm_comm_reduce_wait waits for all of them. mdm_comm_poll, called between
 * two pieces of computation, gives MPI the time it needs to move them (Open MPI 4.1 progresses only inside
 * its calls). */
MDM_MUST_CHECK mdm_status mdm_comm_reduce_start(mdm_comm *comm, float *data, int64_t count);
MDM_MUST_CHECK mdm_status mdm_comm_reduce_wait(mdm_comm *comm);
MDM_MUST_CHECK mdm_status mdm_comm_poll(mdm_comm *comm);

/* Collective over the node. `bytes` of memory that all ranks of this node share (one copy per node). The
 * node's rank 0 writes, then everybody calls mdm_comm_shared_sync before reading. Released by
 * mdm_comm_shared_free (collective). */
typedef struct mdm_comm_shared mdm_comm_shared;
MDM_MUST_CHECK mdm_status mdm_comm_shared_create(mdm_comm *comm, int64_t bytes, mdm_comm_shared **shared,
                                                 void **memory);
MDM_MUST_CHECK mdm_status mdm_comm_shared_sync(mdm_comm *comm, mdm_comm_shared *shared);
void mdm_comm_shared_free(mdm_comm_shared *shared);

#endif
