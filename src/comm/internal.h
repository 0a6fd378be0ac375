/* What the files of this room share: the group's inside, and how an MPI call's failure becomes a status. */
#ifndef MDM_COMM_INTERNAL_H
#define MDM_COMM_INTERNAL_H

#include "mdm/base/log.h"
#include "mdm/base/watch.h"
#include "mdm/comm/comm.h"

#include <mpi.h>

enum {
    MDM_COMM_REDUCTIONS = 64,    /* bucket reductions under way */
    MDM_COMM_RING_REQUESTS = 128 /* pieces of one ring transfer, both ways */
};

struct mdm_comm {
    MPI_Comm world; /* a duplicate of MPI_COMM_WORLD */
    MPI_Comm node;  /* the ranks of this node */
    int rank, size, node_rank, node_size;
    double waited; /* seconds inside collectives so far */
    int ends_mpi;  /* this group started MPI, so it ends it */
    char host[MPI_MAX_PROCESSOR_NAME];
    char library[128];
    char agreed[1400]; /* message of the latest failure that all ranks agreed on */

    /* Elements (bytes for the ring) of one MPI call at most: MPI counts are int, and some algorithms multiply
     * them by the element size in int. Tests make it small. */
    int64_t piece;

    int *counts, *offsets;  /* [size] each, arguments of gather and scatter */
    int64_t *asked_counts;  /* [size], what all_gather learns when it is not told */
    MPI_Op least, greatest; /* minimum and maximum with one answer for NaN and for zeros of both signs */

    MPI_Request reductions[MDM_COMM_REDUCTIONS];
    int reductions_pending;

    MPI_Request ring[MDM_COMM_RING_REQUESTS];
    MPI_Status ring_statuses[MDM_COMM_RING_REQUESTS];
    int ring_pending;           /* requests of the transfer; 0 when none is needed */
    int ring_active, ring_done; /* between start and wait; all requests have completed */
    int64_t ring_expected;      /* bytes to be received */
    int ring_receives;          /* the first so many requests receive */
};

/* MDM_OK, or MDM_LOST with a message that names the call, this rank and host and MPI's reason. */
mdm_status mdm_comm_check(const mdm_comm *comm, int code, const char *call);
/* A call in which ranks wait for each other: noted for the supervisor, then as MDM_MPI. */
#define MDM_COLLECTIVE(comm, call, name, bytes)                                                              \
    do {                                                                                                     \
        double mdm_collective_start_ = mdm_seconds();                                                        \
        mdm_watch_enter((name), (int64_t)(bytes));                                                           \
        int mdm_collective_code_ = (call);                                                                   \
        mdm_watch_leave();                                                                                   \
        (comm)->waited += mdm_seconds() - mdm_collective_start_;                                             \
        MDM_TRY(mdm_comm_check((comm), mdm_collective_code_, (name)));                                       \
    } while (0)
#define MDM_MPI(comm, call, name) MDM_TRY(mdm_comm_check((comm), (call), (name)))

MPI_Datatype mdm_comm_datatype(mdm_type type);
int64_t mdm_comm_type_size(mdm_type type);

/* MDM_RESOURCE when a launcher's variables tell of several processes although MPI made a group of one, which
 * happens when launcher and library do not understand each other: every process would train alone and
 * overwrite the others. */
mdm_status mdm_comm_check_launcher(int size, const char *library);

/* Makes and frees the operations `least` and `greatest`. */
mdm_status mdm_comm_make_operations(mdm_comm *comm);
void mdm_comm_free_operations(mdm_comm *comm);

#endif
