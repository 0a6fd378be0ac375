/* From a started process to its place in the group: starts and ends MPI, tells ranks, nodes and slices. */
#include "internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

mdm_status mdm_comm_check(const mdm_comm *comm, int code, const char *call) {
    if (code == MPI_SUCCESS) return MDM_OK;
    char reason[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    if (MPI_Error_string(code, reason, &length) != MPI_SUCCESS)
        snprintf(reason, sizeof reason, "error %d", code);
    return mdm_fail(
        MDM_LOST,
        "rank %d on %s: %s failed: %.300s. Another rank or the link to it was lost; see that rank's "
        "message, then start the run again to go on from its last checkpoint",
        comm->rank, comm->host, call, reason);
}

MPI_Datatype mdm_comm_datatype(mdm_type type) {
    switch (type) {
    case MDM_FLOAT:
        return MPI_FLOAT;
    case MDM_DOUBLE:
        return MPI_DOUBLE;
    case MDM_INT32:
        return MPI_INT32_T;
    case MDM_INT64:
        return MPI_INT64_T;
    case MDM_BYTE:
        break;
    }
    return MPI_UINT8_T;
}

int64_t mdm_comm_type_size(mdm_type type) {
    switch (type) {
    case MDM_FLOAT:
    case MDM_INT32:
        return 4;
    case MDM_DOUBLE:
    case MDM_INT64:
        return 8;
    case MDM_BYTE:
        break;
    }
    return 1;
}

/* "Open MPI v4.1.4, package: ..." becomes "Open MPI 4.1.4". */
static void name_library(mdm_comm *comm) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    if (MPI_Get_library_version(version, &length) != MPI_SUCCESS) version[0] = '\0';
    version[strcspn(version, ",\n")] = '\0';
    char *number = strstr(version, " v");
    if (number && number[2] >= '0' && number[2] <= '9')
        memmove(number + 1, number + 2, strlen(number + 2) + 1);
    snprintf(comm->library, sizeof comm->library, "%.100s", version[0] ? version : "unknown MPI");
}

static mdm_status make_group(mdm_comm *comm) {
    int length = 0;
    /* From here on a failing call returns, so that it can be told with rank and remedy. */
    MDM_MPI(comm, MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MDM_MPI(comm, MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MDM_MPI(comm, MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank), "MPI_Comm_rank");
    MDM_MPI(comm, MPI_Comm_size(MPI_COMM_WORLD, &comm->size), "MPI_Comm_size");
    MDM_MPI(comm, MPI_Get_processor_name(comm->host, &length), "MPI_Get_processor_name");
    name_library(comm);
    mdm_watch_ranks(comm->rank, comm->size);
    MDM_TRY(mdm_comm_check_launcher(comm->size, comm->library));
    MDM_COLLECTIVE(comm, MPI_Comm_dup(MPI_COMM_WORLD, &comm->world), "MPI_Comm_dup", 0);
    MDM_MPI(comm, MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MDM_COLLECTIVE(
        comm, MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &comm->node),
        "MPI_Comm_split_type", 0);
    MDM_MPI(comm, MPI_Comm_set_errhandler(comm->node, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MDM_MPI(comm, MPI_Comm_rank(comm->node, &comm->node_rank), "MPI_Comm_rank");
    MDM_MPI(comm, MPI_Comm_size(comm->node, &comm->node_size), "MPI_Comm_size");
    MDM_TRY(mdm_comm_make_operations(comm));
    MDM_TRY(MDM_ALLOCATE(comm->counts, comm->size, "the group's counts"));
    MDM_TRY(MDM_ALLOCATE(comm->offsets, comm->size, "the group's offsets"));
    return MDM_ALLOCATE(comm->asked_counts, comm->size, "the group's counts");
}

mdm_status mdm_comm_create_alone(mdm_comm **out) {
    mdm_comm *comm;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(comm, 1, "the process group"));
    comm->size = comm->node_size = 1;
    comm->piece = (int64_t)1 << 28;
    comm->world = comm->node = MPI_COMM_NULL;
    comm->least = comm->greatest = MPI_OP_NULL;
    if (gethostname(comm->host, sizeof comm->host - 1) != 0)
        snprintf(comm->host, sizeof comm->host, "this host");
    *out = comm;
    return MDM_OK;
}

static int on_progress(void) {
    mdm_watch_pulse();
    return 0; /* completed requests */
}

/* Open MPI calls whoever has asked for it each time it looks for messages. The function is one of its own
 * plug-ins' (opal/runtime/opal_progress.h, the same since version 1.0), so it is looked up: without it the
 * supervisor cannot tell a rank that hangs inside a collective from those that wait there. */
static void count_looks_for_messages(void) {
    int (*ask)(int (*)(void)) = NULL;
    *(void **)&ask = dlsym(RTLD_DEFAULT, "opal_progress_register");
    if (ask && ask(on_progress) == 0) mdm_watch_pulse();
}

mdm_status mdm_comm_start(int *argc, char ***argv, mdm_comm **out) {
    mdm_comm *comm;
    *out = NULL;
    MDM_TRY(mdm_comm_create_alone(&comm));
    int already = 0, provided = MPI_THREAD_SINGLE;
    mdm_status status = mdm_comm_check(comm, MPI_Initialized(&already), "MPI_Initialized");
    if (status == MDM_OK && !already) {
        /* Without a launcher there is nobody to talk to: no daemon is started, and no network is needed. */
        if (!mdm_comm_has_launcher()) (void)setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
        mdm_watch_enter("MPI_Init", 0);
        int code = MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
        mdm_watch_leave();
        status = mdm_comm_check(comm, code, "MPI_Init_thread");
        comm->ends_mpi = status == MDM_OK;
        if (status == MDM_OK && mdm_watch_page_get()) count_looks_for_messages();
    } else if (status == MDM_OK)
        status = mdm_comm_check(comm, MPI_Query_thread(&provided), "MPI_Query_thread");
    if (status == MDM_OK && provided < MPI_THREAD_FUNNELED)
        status = mdm_fail(MDM_RESOURCE,
                          "this MPI library allows no threads (level %d, MPI_THREAD_FUNNELED is needed); "
                          "use one that was built with threads",
                          provided);
    if (status == MDM_OK) status = make_group(comm);
    if (status != MDM_OK) {
        mdm_comm_finish(comm);
        return status;
    }
    *out = comm;
    return MDM_OK;
}

void mdm_comm_finish(mdm_comm *comm) {
    if (!comm) return;
    /* Requests still under way point into buffers of the caller; nothing can be done about a failure here. */
    if (comm->reductions_pending && mdm_comm_reduce_wait(comm) != MDM_OK) comm->reductions_pending = 0;
    if (comm->ring_active && mdm_comm_ring_wait(comm) != MDM_OK) comm->ring_active = 0;
    mdm_comm_free_operations(comm);
    if (comm->node != MPI_COMM_NULL) MPI_Comm_free(&comm->node);
    if (comm->world != MPI_COMM_NULL) MPI_Comm_free(&comm->world);
    if (comm->ends_mpi) {
        mdm_watch_enter("MPI_Finalize", 0); /* which waits for all ranks: who is late is at fault */
        MPI_Finalize();
        mdm_watch_leave();
    }
    free(comm->counts);
    free(comm->offsets);
    free(comm->asked_counts);
    free(comm);
}

int mdm_comm_all_fail(mdm_comm *comm, double seconds) {
    MPI_Request arrival;
    int all = 0;
    if (comm->size == 1) return 1;
    if (comm->agreed[0] && strcmp(comm->agreed, mdm_last_message()) == 0) return 1; /* known already */
    /* on MPI_COMM_WORLD, which carries no other traffic, so it cannot be mistaken for a collective of the
     * work */
    if (MPI_Ibarrier(MPI_COMM_WORLD, &arrival) != MPI_SUCCESS) return 0;
    for (double waited = 0; !all && waited < seconds; waited += 0.01) {
        if (MPI_Test(&arrival, &all, MPI_STATUS_IGNORE) != MPI_SUCCESS) return 0;
        if (!all) usleep(10000);
    }
    return all;
}

void mdm_comm_name_rank(const mdm_comm *comm, char *line, size_t size) {
    if (strncmp(mdm_last_message(), "rank ", 5) == 0)
        snprintf(line, size, "%s", mdm_last_message());
    else
        snprintf(line, size, "rank %d on %s: %s", comm->rank, comm->host, mdm_last_message());
}

void mdm_comm_abort(mdm_comm *comm, int code) {
    fflush(NULL);
    if (comm && comm->size > 1) MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
}

int mdm_comm_rank(const mdm_comm *comm) {
    return comm->rank;
}

int mdm_comm_size(const mdm_comm *comm) {
    return comm->size;
}

int mdm_comm_node_rank(const mdm_comm *comm) {
    return comm->node_rank;
}

int mdm_comm_node_size(const mdm_comm *comm) {
    return comm->node_size;
}

const char *mdm_comm_host(const mdm_comm *comm) {
    return comm->host;
}

double mdm_comm_waited(const mdm_comm *comm) {
    return comm->waited;
}

const char *mdm_comm_library(const mdm_comm *comm) {
    return comm->library;
}

/* floor(r * total / P), without the product that could overflow. */
static int64_t slice_start(int64_t total, int64_t rank, int64_t ranks) {
    return total / ranks * rank + total % ranks * rank / ranks;
}

void mdm_comm_slice(int64_t total, int rank, int ranks, int64_t *first, int64_t *count) {
    *first = slice_start(total, rank, ranks);
    *count = slice_start(total, rank + 1, ranks) - *first;
}

void mdm_comm_my_slice(const mdm_comm *comm, int64_t total, int64_t *first, int64_t *count) {
    mdm_comm_slice(total, comm->rank, comm->size, first, count);
}
