/* From one rank's data to all ranks': barrier, broadcast and all-gather, cut to the counts that MPI can take.
 */
#include "internal.h"

#include <string.h>

mdm_status mdm_comm_barrier(mdm_comm *comm) {
    if (comm->size == 1) return MDM_OK;
    MDM_COLLECTIVE(comm, MPI_Barrier(comm->world), "MPI_Barrier", 0);
    return MDM_OK;
}

mdm_status mdm_comm_broadcast(mdm_comm *comm, void *data, int64_t count, mdm_type type, int root) {
    if (comm->size == 1) return MDM_OK;
    char *bytes = data;
    int64_t size = mdm_comm_type_size(type);
    for (int64_t done = 0; done < count; done += comm->piece) {
        int64_t now = count - done < comm->piece ? count - done : comm->piece;
        MDM_COLLECTIVE(comm,
                       MPI_Bcast(bytes + done * size, (int)now, mdm_comm_datatype(type), root, comm->world),
                       "MPI_Bcast", now * size);
    }
    return MDM_OK;
}

mdm_status mdm_comm_all_gather(mdm_comm *comm, const void *mine, int64_t count, void *all,
                               const int64_t *counts, mdm_type type) {
    char *bytes = all;
    int64_t size = mdm_comm_type_size(type), total = 0, my_offset = 0;
    if (comm->size == 1) {
        if (count > 0 && mine != all) memmove(all, mine, (size_t)(count * size));
        return MDM_OK;
    }
    if (!counts) {
        MDM_COLLECTIVE(comm,
                       MPI_Allgather(&count, 1, MPI_INT64_T, comm->asked_counts, 1, MPI_INT64_T, comm->world),
                       "MPI_Allgather", 8);
        counts = comm->asked_counts;
    } else if (counts[comm->rank] != count)
        return mdm_fail(MDM_LOST, "internal: rank %d gives %lld elements to a gather that expects %lld of it",
                        comm->rank, (long long)count, (long long)counts[comm->rank]);
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank) my_offset = total;
        total += counts[r];
    }
    if (total <= comm->piece) {
        int offset = 0;
        for (int r = 0; r < comm->size; r++) {
            comm->counts[r] = (int)counts[r];
            comm->offsets[r] = offset;
            offset += (int)counts[r];
        }
        const void *from = mine == bytes + my_offset * size ? MPI_IN_PLACE : mine;
        MDM_COLLECTIVE(comm,
                       MPI_Allgatherv(from, (int)count, mdm_comm_datatype(type), all, comm->counts,
                                      comm->offsets, mdm_comm_datatype(type), comm->world),
                       "MPI_Allgatherv", total * size);
        return MDM_OK;
    }
    /* Too much for one call, whose offsets are int: every rank in turn broadcasts its part. */
    if (count > 0 && mine != bytes + my_offset * size)
        memcpy(bytes + my_offset * size, mine, (size_t)(count * size));
    for (int r = 0; r < comm->size; r++) {
        MDM_TRY(mdm_comm_broadcast(comm, bytes, counts[r], type, r));
        bytes += counts[r] * size;
    }
    return MDM_OK;
}
