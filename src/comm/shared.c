/* From a number of bytes to memory that all ranks of a node see: an MPI shared window, plain memory when a
 * rank is alone on its node. */
#include "internal.h"

#include <stdlib.h>
#include <sys/statvfs.h>

enum { ALIGNMENT = 64 };

struct mdm_comm_shared {
    MPI_Win window; /* MPI_WIN_NULL: plain memory */
    void *plain;
};

/* Open MPI backs the window by a file there; a page that the file system cannot hold is a bus error when it
 * is written, so the room is looked at before. */
static const char *backing_folder(void) {
    const char *chosen = getenv("OMPI_MCA_osc_sm_backing_directory");
    return chosen && *chosen ? chosen : "/dev/shm";
}

static int64_t free_bytes(const char *folder) {
    struct statvfs room;
    if (statvfs(folder, &room) != 0) return INT64_MAX; /* not there: Open MPI will take another one */
    return (int64_t)room.f_bavail * (int64_t)room.f_frsize;
}

static mdm_status create_window(mdm_comm *comm, int64_t bytes, mdm_comm_shared *shared, void **memory) {
    int64_t room = comm->node_rank == 0 ? free_bytes(backing_folder()) : 0;
    MDM_COLLECTIVE(comm, MPI_Bcast(&room, 1, MPI_INT64_T, 0, comm->node), "MPI_Bcast", 8);
    if (room < bytes + ((int64_t)1 << 20))
        return mdm_fail(
            MDM_RESOURCE,
            "%s on %s has %.0f MiB free, the data shared by the ranks of a node need %.0f; enlarge it "
            "(mount -o remount,size=..., docker run --shm-size=...) or set data.resident=stream",
            backing_folder(), comm->host, (double)room / 1048576.0, (double)bytes / 1048576.0);
    MPI_Aint mine = comm->node_rank == 0 ? (MPI_Aint)(bytes + ALIGNMENT) : 0, length = 0;
    int unit = 1;
    char *base = NULL;
    mdm_watch_enter("MPI_Win_allocate_shared", bytes);
    int code = MPI_Win_allocate_shared(mine, 1, MPI_INFO_NULL, comm->node, &base, &shared->window);
    mdm_watch_leave();
    if (code != MPI_SUCCESS) {
        char reason[MPI_MAX_ERROR_STRING] = "";
        int size = 0;
        shared->window = MPI_WIN_NULL;
        MPI_Error_string(code, reason, &size);
        return mdm_fail(
            MDM_RESOURCE,
            "rank %d on %s: cannot share %.0f MiB between the ranks of the node (%.200s); make room in %s "
            "or set data.resident=stream",
            comm->rank, comm->host, (double)bytes / 1048576.0, reason, backing_folder());
    }
    MDM_MPI(comm, MPI_Win_set_errhandler(shared->window, MPI_ERRORS_RETURN), "MPI_Win_set_errhandler");
    MDM_MPI(comm, MPI_Win_shared_query(shared->window, 0, &length, &unit, &base), "MPI_Win_shared_query");
    MDM_MPI(comm, MPI_Win_lock_all(MPI_MODE_NOCHECK, shared->window), "MPI_Win_lock_all");
    /* The mapping begins on a page in every process, so all of them round by the same offset. */
    *memory = base + (ALIGNMENT - (uintptr_t)base % ALIGNMENT) % ALIGNMENT;
    return MDM_OK;
}

mdm_status mdm_comm_shared_create(mdm_comm *comm, int64_t bytes, mdm_comm_shared **out, void **memory) {
    *out = NULL;
    *memory = NULL;
    mdm_comm_shared *shared;
    MDM_TRY(MDM_ALLOCATE(shared, 1, "shared memory"));
    shared->window = MPI_WIN_NULL;
    mdm_status status;
    if (comm->node_size > 1)
        status = create_window(comm, bytes, shared, memory);
    else {
        status = mdm_allocate(&shared->plain, bytes, 1, "the data in memory");
        *memory = shared->plain;
    }
    if (status != MDM_OK) {
        *memory = NULL;
        free(shared);
        return status;
    }
    *out = shared;
    return MDM_OK;
}

mdm_status mdm_comm_shared_sync(mdm_comm *comm, mdm_comm_shared *shared) {
    if (shared->window == MPI_WIN_NULL) return MDM_OK;
    MDM_MPI(comm, MPI_Win_sync(shared->window), "MPI_Win_sync");
    MDM_COLLECTIVE(comm, MPI_Barrier(comm->node), "MPI_Barrier", 0);
    return mdm_comm_check(comm, MPI_Win_sync(shared->window), "MPI_Win_sync");
}

void mdm_comm_shared_free(mdm_comm_shared *shared) {
    if (!shared) return;
    if (shared->window != MPI_WIN_NULL) {
        MPI_Win_unlock_all(shared->window);
        mdm_watch_enter("MPI_Win_free", 0);
        MPI_Win_free(&shared->window);
        mdm_watch_leave();
    }
    free(shared->plain);
    free(shared);
}
