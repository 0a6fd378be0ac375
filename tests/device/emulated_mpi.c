/* The program's calls of MPI in which it waits for other ranks. A device goes on with what the ranks do
 * together while the host waits there; the emulated one, whose works the host's own thread runs, does so
 * before. Without that two ranks could wait for each other, one in MPI and one for its device. */
#include "emulated_gpu.h"
#include <mpi.h>

#define AFTER_THE_DEVICE(name, parameters, arguments)                                                        \
    int MPI_##name parameters {                                                                              \
        emulated_go_on_beside_mpi();                                                                         \
        return PMPI_##name arguments;                                                                        \
    }

AFTER_THE_DEVICE(Barrier, (MPI_Comm comm), (comm))
AFTER_THE_DEVICE(Bcast, (void *data, int count, MPI_Datatype type, int root, MPI_Comm comm),
                 (data, count, type, root, comm))
AFTER_THE_DEVICE(Allreduce,
                 (const void *from, void *to, int count, MPI_Datatype type, MPI_Op operation, MPI_Comm comm),
                 (from, to, count, type, operation, comm))
AFTER_THE_DEVICE(Reduce,
                 (const void *from, void *to, int count, MPI_Datatype type, MPI_Op operation, int root,
                  MPI_Comm comm),
                 (from, to, count, type, operation, root, comm))
AFTER_THE_DEVICE(Reduce_scatter,
                 (const void *from, void *to, const int *counts, MPI_Datatype type, MPI_Op operation,
                  MPI_Comm comm),
                 (from, to, counts, type, operation, comm))
AFTER_THE_DEVICE(Allgather,
                 (const void *from, int count, MPI_Datatype type, void *to, int received,
                  MPI_Datatype received_type, MPI_Comm comm),
                 (from, count, type, to, received, received_type, comm))
AFTER_THE_DEVICE(Allgatherv,
                 (const void *from, int count, MPI_Datatype type, void *to, const int *counts,
                  const int *places, MPI_Datatype received_type, MPI_Comm comm),
                 (from, count, type, to, counts, places, received_type, comm))
AFTER_THE_DEVICE(Waitall, (int count, MPI_Request *requests, MPI_Status *statuses),
                 (count, requests, statuses))
AFTER_THE_DEVICE(Comm_dup, (MPI_Comm comm, MPI_Comm *made), (comm, made))
AFTER_THE_DEVICE(Comm_split_type, (MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *made),
                 (comm, type, key, info, made))
AFTER_THE_DEVICE(Comm_free, (MPI_Comm * comm), (comm))
AFTER_THE_DEVICE(Win_allocate_shared,
                 (MPI_Aint bytes, int unit, MPI_Info info, MPI_Comm comm, void *memory, MPI_Win *window),
                 (bytes, unit, info, comm, memory, window))
AFTER_THE_DEVICE(Win_free, (MPI_Win * window), (window))
AFTER_THE_DEVICE(Finalize, (void), ())
