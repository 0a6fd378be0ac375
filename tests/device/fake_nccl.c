/* Stands in for libnccl.so.2 in tests: the same functions between the emulated devices of an mpirun's ranks,
 * whose data MPI moves. It fails on demand:
 *
 * MDM_FAKE_NCCL_FAIL: "error" (a call returns one), "async" (the communicator tells of one later), "hang" (a
 * collective never ends), "lost" (a call returns an error, as the device is lost) at the MDM_FAKE_NCCL_AT-th
 * collective (from 1); "start" (the communicator is never
 * ready). On rank MDM_FAKE_NCCL_RANK only, where that is set. MDM_FAKE_NCCL_ABORT=hang: ncclCommAbort never
 * returns; MDM_FAKE_NCCL_FINALIZE=hang: nor does the communicator ever come to its end in order.
 *
 * Every collective also compares what the ranks ask for, so that another order on another rank ends the test;
 * sends and receives do not, as a rank with nothing to send or receive calls none.
 */
#include "emulated_stream.h"
#include <mpi.h>
#include <nccl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_PARTS = 64 };
static const char magic[] = "identifier of the fake NCCL";

struct ncclComm {
    MPI_Comm group, wanted; /* NULL: not yet */
    MPI_Request request;
    int rank, ranks, looks, is_ready, never_ready, collectives;
    ncclResult_t state;
    emulated_stream *stream;   /* that had something last */
    ncclComm_t aborted_before; /* behind an aborted one */
};

typedef enum kind { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, REDUCE, SEND, RECEIVE } kind;

/* One call; calls of a group are one work. */
typedef struct part {
    kind kind;
    const void *from;
    void *to;
    size_t count, bytes; /* bytes of an element */
    MPI_Datatype type;
    MPI_Op operation;
    int peer;
    char *sent, *received; /* copies that MPI works on: the device's memory is locked meanwhile */
    size_t sent_bytes, received_bytes;
} part;

typedef struct work {
    emulated_work common;
    ncclComm_t comm;
    part parts[MOST_PARTS];
    int count, stage, hangs;
    int64_t asked[2], least[2]; /* what this rank asks for, and its negative; the least over ranks */
    MPI_Request requests[MOST_PARTS];
} work;

static work *group; /* open: under construction */
static int depth;
static emulated_stream *group_stream;

static int is_told(const char *name, const char *value) {
    const char *text = getenv(name);
    return text && strcmp(text, value) == 0;
}

/* Whether what is to fail is this rank's. */
static int is_mine(int rank) {
    const char *text = getenv("MDM_FAKE_NCCL_RANK");
    return !text || atoi(text) == rank;
}

ncclResult_t ncclGetVersion(int *version) {
    *version = 22809;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code) {
    return code == ncclRemoteError ? "remote process exited or there was a network error" : "internal error";
}

const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return "the fake NCCL was told to fail";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id, 0, sizeof *id);
    memcpy(id->internal, magic, sizeof magic);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    ncclComm_t comm = calloc(1, sizeof *comm);
    if (!comm || memcmp(id.internal, magic, sizeof magic) != 0 || config->blocking != 0) abort();
    comm->rank = rank;
    comm->ranks = ranks;
    comm->state = ncclInProgress;
    comm->never_ready = is_told("MDM_FAKE_NCCL_FAIL", "start") && is_mine(rank);
    if (!comm->never_ready) MPI_Comm_idup(MPI_COMM_WORLD, &comm->wanted, &comm->request);
    *out = comm;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
    if (!comm->is_ready && !comm->never_ready) {
        MPI_Test(&comm->request, &comm->is_ready, MPI_STATUS_IGNORE);
        if (comm->is_ready) {
            comm->group = comm->wanted;
            comm->state = ncclSuccess;
        }
    }
    *state = comm->state;
    return ncclSuccess;
}

/* What is queued comes to its end first. */
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    if (comm->stream && !comm->stream->finish(comm->stream, 1000000)) comm->state = ncclInProgress;
    if (is_told("MDM_FAKE_NCCL_FINALIZE", "hang")) comm->state = ncclInProgress;
    return comm->state;
}

/* Its communicator of MPI ends with MPI: freeing it would be one more collective, which NCCL's call is not.
 */
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    free(comm);
    return ncclSuccess;
}

/* Work that is still queued keeps a pointer to it: it stays, and is no leak. */
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    static ncclComm_t latest;
    comm->aborted_before = latest;
    latest = comm;
    while (is_told("MDM_FAKE_NCCL_ABORT", "hang")) pause();
    return ncclSuccess;
}

/* ---- the data's way ---- */

static char *copy_of(const void *from, size_t bytes) {
    char *copy = malloc(bytes + 1);
    if (!copy) abort();
    if (from) memcpy(copy, from, bytes);
    return copy;
}

static void start_part(const work *w, part *p, MPI_Request *request) {
    MPI_Comm comm = w->comm->group;
    int count = (int)p->count, is_root = p->peer == w->comm->rank;
    size_t one = p->count * p->bytes, all = one * (size_t)w->comm->ranks;
    int reads = p->kind != RECEIVE && (p->kind != BROADCAST || is_root);
    int writes = p->kind != SEND && (p->kind != REDUCE || is_root);
    p->sent_bytes = p->kind == REDUCE_SCATTER ? all : one;
    p->received_bytes = p->kind == ALL_GATHER ? all : one;
    p->sent = copy_of(reads ? p->from : NULL, p->sent_bytes);
    p->received = copy_of(NULL, p->received_bytes);
    switch (p->kind) {
    case ALL_REDUCE:
        MPI_Iallreduce(p->sent, p->received, count, p->type, p->operation, comm, request);
        break;
    case ALL_GATHER:
        MPI_Iallgather(p->sent, count, p->type, p->received, count, p->type, comm, request);
        break;
    case REDUCE_SCATTER:
        MPI_Ireduce_scatter_block(p->sent, p->received, count, p->type, p->operation, comm, request);
        break;
    case BROADCAST:
        if (is_root) memcpy(p->received, p->sent, one);
        MPI_Ibcast(p->received, count, p->type, p->peer, comm, request);
        break;
    case REDUCE:
        MPI_Ireduce(p->sent, p->received, count, p->type, p->operation, p->peer, comm, request);
        break;
    case SEND:
        MPI_Isend(p->sent, count, p->type, p->peer, 1, comm, request);
        break;
    case RECEIVE:
        MPI_Irecv(p->received, count, p->type, p->peer, 1, comm, request);
        break;
    }
    if (!writes) p->received_bytes = 0;
}

/* Two stages: what the ranks ask for is compared (in collectives), then the data moves. */
static int advance(emulated_work *common) {
    work *w = (work *)common;
    int done = 0;
    if (w->hangs) return -1;
    if (w->stage == 0) {
        w->requests[0] = MPI_REQUEST_NULL;
        if (w->parts[0].kind < SEND)
            MPI_Iallreduce(w->asked, w->least, 2, MPI_INT64_T, MPI_MIN, w->comm->group, &w->requests[0]);
        w->stage = 1;
    }
    if (w->stage == 1) {
        MPI_Test(&w->requests[0], &done, MPI_STATUS_IGNORE);
        if (!done) return 0;
        if (w->least[0] != -w->least[1]) {
            fprintf(stderr, "the ranks ask the fake NCCL for different things\n");
            abort();
        }
        for (int i = 0; i < w->count; i++) start_part(w, &w->parts[i], &w->requests[i]);
        w->stage = 2;
    }
    MPI_Testall(w->count, w->requests, &done, MPI_STATUSES_IGNORE);
    if (!done) return 0;
    for (int i = 0; i < w->count; i++) {
        part *p = &w->parts[i];
        if (p->received_bytes > 0) memcpy(p->to, p->received, p->received_bytes);
        free(p->sent);
        free(p->received);
    }
    free(w);
    return 1;
}

static emulated_work *copy_work(const emulated_work *common) {
    work *copy = malloc(sizeof *copy);
    if (!copy) abort();
    memcpy(copy, common, sizeof *copy);
    return &copy->common;
}

/* ---- calls ---- */

ncclResult_t ncclGroupStart(void) {
    if (depth++ == 0 && !(group = calloc(1, sizeof *group))) abort();
    return ncclSuccess;
}

static ncclResult_t submit(work *w, emulated_stream *stream) {
    const char *at = getenv("MDM_FAKE_NCCL_AT");
    w->common.advance = advance;
    w->common.copy = copy_work;
    for (int i = 0; i < w->count; i++)
        w->asked[0] = w->asked[0] * 31 + (int64_t)w->parts[i].kind * 1000003 + (int64_t)w->parts[i].count;
    w->asked[1] = -w->asked[0];
    if (++w->comm->collectives == (at ? atoi(at) : -1) && is_mine(w->comm->rank)) {
        if (is_told("MDM_FAKE_NCCL_FAIL", "lost")) stream->lose(stream);
        if (is_told("MDM_FAKE_NCCL_FAIL", "error") || is_told("MDM_FAKE_NCCL_FAIL", "lost")) {
            free(w);
            return ncclInternalError;
        }
        w->hangs = is_told("MDM_FAKE_NCCL_FAIL", "hang") || is_told("MDM_FAKE_NCCL_FAIL", "async");
        if (is_told("MDM_FAKE_NCCL_FAIL", "async")) w->comm->state = ncclRemoteError;
    }
    w->comm->stream = stream;
    stream->queue(stream, &w->common);
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    work *w = group;
    if (--depth > 0) return ncclSuccess;
    group = NULL;
    if (w->count > 0) return submit(w, group_stream);
    free(w);
    return ncclSuccess;
}

static ncclResult_t call(kind which, const void *from, void *to, size_t count, ncclDataType_t type,
                         ncclRedOp_t operation, int peer, ncclComm_t comm, cudaStream_t stream) {
    if (!comm->is_ready) return ncclInvalidUsage;
    ncclGroupStart();
    if (group->count == MOST_PARTS) abort();
    part *p = &group->parts[group->count++];
    *p = (part){.kind = which, .from = from, .to = to, .count = count, .peer = peer};
    p->type = type == ncclFloat32   ? MPI_FLOAT
              : type == ncclFloat64 ? MPI_DOUBLE
              : type == ncclInt32   ? MPI_INT32_T
              : type == ncclInt64   ? MPI_INT64_T
                                    : MPI_UINT8_T;
    p->bytes = type == ncclUint8 ? 1 : type == ncclFloat32 || type == ncclInt32 ? 4 : 8;
    p->operation = operation == ncclMin ? MPI_MIN : operation == ncclMax ? MPI_MAX : MPI_SUM;
    group->comm = comm;
    group_stream = (emulated_stream *)(void *)stream;
    return ncclGroupEnd();
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    return call(ALL_REDUCE, from, to, count, type, operation, -1, comm, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return call(ALL_GATHER, from, to, count, type, ncclSum, -1, comm, stream);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type,
                               ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    return call(REDUCE_SCATTER, from, to, count, type, operation, -1, comm, stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    return call(BROADCAST, from, to, count, type, ncclSum, root, comm, stream);
}

ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    return call(REDUCE, from, to, count, type, operation, root, comm, stream);
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return call(SEND, from, NULL, count, type, ncclSum, peer, comm, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return call(RECEIVE, NULL, to, count, type, ncclSum, peer, comm, stream);
}
