/* From every rank's block to its right-hand neighbour's: one transfer each way, cut into pieces that MPI can
 * count. */
#include "internal.h"

#include <string.h>

enum { RING_TAG = 7 };

mdm_status mdm_comm_ring_start(mdm_comm *comm, const void *out, int64_t bytes_out, void *in,
                               int64_t bytes_in) {
    if (comm->ring_active)
        return mdm_fail(MDM_LOST, "internal: rank %d starts a ring transfer before the last one has ended",
                        comm->rank);
    if (comm->size == 1) { /* its own neighbour */
        if (bytes_out != bytes_in)
            return mdm_fail(MDM_LOST, "internal: a ring of one sends %lld bytes and expects %lld",
                            (long long)bytes_out, (long long)bytes_in);
        if (bytes_in > 0 && in != out) memmove(in, out, (size_t)bytes_in);
        return MDM_OK;
    }
    int64_t pieces = (bytes_out + comm->piece - 1) / comm->piece + (bytes_in + comm->piece - 1) / comm->piece;
    if (pieces > MDM_COMM_RING_REQUESTS)
        return mdm_fail(MDM_RESOURCE, "rank %d: a ring transfer of %lld bytes is too large; use more ranks",
                        comm->rank, (long long)(bytes_out > bytes_in ? bytes_out : bytes_in));
    int next = (comm->rank + 1) % comm->size, previous = (comm->rank + comm->size - 1) % comm->size, n = 0;
    comm->ring_expected = bytes_in;
    comm->ring_receives = comm->ring_pending = comm->ring_done = 0;
    comm->ring_active = 1;
    /* Receives first, so that what arrives finds its place at once. Pieces of one pair arrive in the order
     * sent. */
    for (int64_t done = 0; done < bytes_in; done += comm->piece) {
        int64_t now = bytes_in - done < comm->piece ? bytes_in - done : comm->piece;
        MDM_MPI(
            comm,
            MPI_Irecv((char *)in + done, (int)now, MPI_BYTE, previous, RING_TAG, comm->world, &comm->ring[n]),
            "MPI_Irecv");
        comm->ring_receives = comm->ring_pending = ++n;
    }
    for (int64_t done = 0; done < bytes_out; done += comm->piece) {
        int64_t now = bytes_out - done < comm->piece ? bytes_out - done : comm->piece;
        MDM_MPI(comm,
                MPI_Isend((const char *)out + done, (int)now, MPI_BYTE, next, RING_TAG, comm->world,
                          &comm->ring[n]),
                "MPI_Isend");
        comm->ring_pending = ++n;
    }
    return MDM_OK;
}

mdm_status mdm_comm_ring_wait(mdm_comm *comm) {
    if (!comm->ring_active) return MDM_OK;
    comm->ring_active = 0;
    if (!comm->ring_done)
        MDM_COLLECTIVE(comm, MPI_Waitall(comm->ring_pending, comm->ring, comm->ring_statuses),
                       "the ring's transfer", comm->ring_expected);
    int64_t received = 0;
    for (int i = 0; i < comm->ring_receives; i++) {
        int count = 0;
        MDM_MPI(comm, MPI_Get_count(&comm->ring_statuses[i], MPI_BYTE, &count), "MPI_Get_count");
        received += count;
    }
    if (received != comm->ring_expected)
        return mdm_fail(MDM_LOST, "internal: rank %d got %lld bytes round the ring instead of %lld",
                        comm->rank, (long long)received, (long long)comm->ring_expected);
    return MDM_OK;
}
