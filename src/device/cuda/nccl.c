/* From the ranks' devices to one communicator of NCCL, and from what goes wrong in it to one line.
 *
 * The communicator does not block: a call that is still under way is asked after until it is done, each wait
 * has an end, and a failure aborts the communicator, so that its kernels leave the device. There is one
 * communicator only, whose operations NCCL runs in the order in which the host queued them, the same on all
 * ranks, on whichever queue: two would have to share the device, and could wait for each other across ranks.
 */
#include "nccl.h"
#include "mdm/base/watch.h"
#include "nccl_table.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double abort_seconds = 3, finalize_seconds = 3;
enum { PATIENT_LOOKS = 1000, NAP_MICROSECONDS = 50 };

/* One that is being aborted, by a thread that may hang: its memory is then left to it. With recorded steps
 * alive NCCL's abort sends its kernels away, and then waits for the recordings' end (commDestroySync). */
typedef struct abortion {
    const mdm_nccl_table *table;
    ncclComm_t communicator;
    mdm_gpu *gpu;
    _Atomic int is_done;
} abortion;

struct mdm_nccl {
    const mdm_nccl_table *table;
    ncclComm_t communicator; /* NULL: not yet, or aborted */
    mdm_gpu *gpu;
    int rank, ranks;
    char host[256];
    mdm_gpu_mark *computed, *communicated; /* of fork and join */
    const char *latest;                    /* what was queued last, for the supervisor and for messages */
    int64_t latest_bytes;
    int is_pending; /* something was queued since the host last waited */
    int64_t since;  /* when the host's wait began, ns */
    int looks;
    char failure[900]; /* "": none; told again by whoever comes next */
};

mdm_status mdm_nccl_find(int *version) {
    const mdm_nccl_table *table;
    *version = 0;
    MDM_TRY(mdm_nccl_load(&table));
    ncclResult_t code = table->ncclGetVersion(version);
    if (code == ncclSuccess) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "NCCL does not tell its version: %s", table->ncclGetErrorString(code));
}

/* ---- failures ---- */

static void *abort_communicator(void *context) {
    abortion *a = context;
    mdm_status entered = mdm_gpu_enter(a->gpu);
    (void)entered; /* past mending, as is the rest */
    (void)a->table->ncclCommAbort(a->communicator);
    atomic_store(&a->is_done, 1);
    return NULL;
}

/* 1 when NCCL has let go of the device. */
static int let_go(mdm_nccl *n) {
    abortion *a;
    pthread_t thread;
    if (!n->communicator) return 1;
    if (MDM_ALLOCATE(a, 1, "the end of NCCL") != MDM_OK) return 0;
    *a = (abortion){.table = n->table, .communicator = n->communicator, .gpu = n->gpu};
    n->communicator = NULL; /* no other call may run beside the abort */
    if (pthread_create(&thread, NULL, abort_communicator, a) != 0) {
        free(a);
        return 0;
    }
    for (double waited = 0; waited < abort_seconds && !atomic_load(&a->is_done); waited += 0.01)
        usleep(10000);
    if (!atomic_load(&a->is_done)) {
        (void)pthread_detach(thread);
        return 0;
    }
    (void)pthread_join(thread, NULL);
    free(a);
    return 1;
}

/* Ends the communicator; `why` is the end of the sentence. What failed may be this rank's own device. */
static mdm_status fail(mdm_nccl *n, const char *operation, const char *why) {
    if (!n->failure[0]) {
        if (mdm_gpu_check_device(n->gpu, operation) != MDM_OK)
            snprintf(n->failure, sizeof n->failure, "rank %d on %.100s: %.700s", n->rank, n->host,
                     mdm_last_message());
        else
            snprintf(
                n->failure, sizeof n->failure,
                mdm_gpu_is_recording(n->gpu)
                    ? "rank %d on %.100s: %.60s %.540s, in a step that was recorded; "
                      "train.cuda_graph=false records none"
                    : "rank %d on %.100s: %.60s %.540s. Another rank, its device or the link to it was lost; "
                      "see that rank's "
                      "message, then start the run again to go on from its last checkpoint",
                n->rank, n->host, operation, why);
        if (!let_go(n)) mdm_gpu_give_up(n->gpu); /* its kernels may wait for ever */
    }
    return mdm_fail(MDM_LOST, "%s", n->failure);
}

static mdm_status fail_with(mdm_nccl *n, const char *operation, ncclResult_t code) {
    char why[600];
    const char *last = n->communicator ? n->table->ncclGetLastError(n->communicator) : NULL;
    snprintf(why, sizeof why, "failed: %s%s%.400s%s", n->table->ncclGetErrorString(code),
             last && *last ? " (" : "", last ? last : "", last && *last ? ")" : "");
    for (char *c = why; *c; c++)
        if (*c == '\n') *c = ' ';
    return fail(n, operation, why);
}

/* What the communicator says of itself; MDM_OK while it is sound. */
static mdm_status ask(mdm_nccl *n, const char *operation, double limit, int *is_under_way) {
    ncclResult_t state = ncclSuccess;
    char why[128];
    *is_under_way = 0;
    if (n->failure[0]) return fail(n, operation, "");
    ncclResult_t code = n->table->ncclCommGetAsyncError(n->communicator, &state);
    if (code != ncclSuccess) return fail_with(n, operation, code);
    *is_under_way = state == ncclInProgress;
    if (state != ncclSuccess && state != ncclInProgress) return fail_with(n, operation, state);
    double waited = (double)(mdm_watch_now() - n->since) / 1e9;
    if (waited < limit) return MDM_OK;
    snprintf(why, sizeof why, "has not ended after %.0f s", waited);
    return fail(n, operation, why);
}

/* A call of NCCL that may go on in the background. */
static mdm_status settle(mdm_nccl *n, const char *operation, ncclResult_t code) {
    int is_under_way = code == ncclInProgress;
    if (code != ncclSuccess && code != ncclInProgress) return fail_with(n, operation, code);
    n->since = mdm_watch_now();
    for (int looks = 0; is_under_way; looks++) {
        if (looks > PATIENT_LOOKS) usleep(NAP_MICROSECONDS);
        mdm_watch_pulse();
        MDM_TRY(ask(n, operation, mdm_watch_limit(), &is_under_way));
    }
    return MDM_OK;
}

/* ---- the host's waits for the device ---- */

static void begin_wait(void *context) {
    mdm_nccl *n = context;
    n->since = mdm_watch_now();
    n->looks = 0;
    if (n->is_pending) mdm_watch_enter(n->latest, n->latest_bytes);
}

static mdm_status look(void *context) {
    mdm_nccl *n = context;
    int is_under_way;
    mdm_watch_pulse();
    if (n->looks < PATIENT_LOOKS)
        n->looks++;
    else
        usleep(NAP_MICROSECONDS);
    return n->latest ? ask(n, n->latest, mdm_watch_limit(), &is_under_way) : MDM_OK;
}

static void end_wait(void *context) {
    mdm_nccl *n = context;
    if (n->is_pending) mdm_watch_leave();
    n->is_pending = 0;
}

/* ---- beginning and end ---- */

static mdm_status start(mdm_nccl *n, mdm_comm *comm) {
    static const char operation[] = "ncclCommInitRank";
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    int version;
    config.blocking = 0;
    MDM_TRY(mdm_nccl_load(&n->table));
    /* What it registers of a recorded step's memory would have to outlive the recording, which ours need not:
     * between passes memory is freed before they are. */
    (void)setenv("NCCL_GRAPH_REGISTER", "0", 0);
    MDM_TRY(mdm_nccl_find(&version));
    MDM_TRY(mdm_gpu_create_mark(n->gpu, &n->computed));
    MDM_TRY(mdm_gpu_create_mark(n->gpu, &n->communicated));
    memset(&id, 0, sizeof id);
    mdm_status status = MDM_OK;
    if (n->rank == 0) {
        ncclResult_t code = n->table->ncclGetUniqueId(&id);
        if (code != ncclSuccess)
            status = mdm_fail(MDM_LOST, "ncclGetUniqueId failed: %s (%s)", n->table->ncclGetErrorString(code),
                              n->table->ncclGetLastError(NULL));
    }
    MDM_TRY(mdm_comm_agree(comm, status));
    MDM_TRY(mdm_comm_broadcast(comm, &id, sizeof id, MDM_BYTE, 0));
    mdm_watch_enter(operation, (int64_t)sizeof id);
    status = settle(n, operation,
                    n->table->ncclCommInitRankConfig(&n->communicator, n->ranks, id, n->rank, &config));
    mdm_watch_leave();
    return status;
}

mdm_status mdm_nccl_create(mdm_comm *comm, mdm_gpu *gpu, mdm_nccl **out) {
    mdm_nccl *n;
    *out = NULL;
    mdm_status status = MDM_ALLOCATE(n, 1, "NCCL");
    MDM_TRY(mdm_comm_agree(comm, status));
    n->gpu = gpu;
    n->rank = mdm_comm_rank(comm);
    n->ranks = mdm_comm_size(comm);
    snprintf(n->host, sizeof n->host, "%s", mdm_comm_host(comm));
    status = start(n, comm);
    if (status != MDM_OK) {
        mdm_nccl_destroy(n);
        return status;
    }
    const mdm_gpu_guard guard = {begin_wait, look, end_wait, n};
    mdm_gpu_set_guard(gpu, &guard);
    *out = n;
    return MDM_OK;
}

/* In order, unless another rank or the device is gone: then by force. */
void mdm_nccl_destroy(mdm_nccl *n) {
    if (!n) return;
    mdm_gpu_set_guard(n->gpu, NULL);
    if (n->communicator && !n->failure[0] && mdm_gpu_check_device(n->gpu, "its end") == MDM_OK) {
        ncclResult_t code = n->table->ncclCommFinalize(n->communicator);
        int is_under_way = code == ncclInProgress, is_sound = is_under_way || code == ncclSuccess;
        n->since = mdm_watch_now();
        while (is_sound && is_under_way) {
            usleep(NAP_MICROSECONDS);
            is_sound = ask(n, "ncclCommFinalize", finalize_seconds, &is_under_way) == MDM_OK;
        }
        if (is_sound) {
            (void)n->table->ncclCommDestroy(n->communicator); /* past mending, and past an abort */
            n->communicator = NULL;
        }
    }
    if (!let_go(n)) mdm_gpu_give_up(n->gpu);
    mdm_gpu_destroy_mark(n->gpu, n->computed);
    mdm_gpu_destroy_mark(n->gpu, n->communicated);
    free(n);
}

/* ---- collectives ---- */

static ncclDataType_t type_of(mdm_type type) {
    return type == MDM_FLOAT    ? ncclFloat32
           : type == MDM_DOUBLE ? ncclFloat64
           : type == MDM_INT32  ? ncclInt32
           : type == MDM_INT64  ? ncclInt64
                                : ncclUint8;
}

static int64_t size_of(mdm_type type) {
    return type == MDM_BYTE ? 1 : type == MDM_FLOAT || type == MDM_INT32 ? 4 : 8;
}

static ncclRedOp_t operation_of(mdm_reduction reduction) {
    return reduction == MDM_MIN ? ncclMin : reduction == MDM_MAX ? ncclMax : ncclSum;
}

static cudaStream_t stream_of(const mdm_nccl *n, mdm_gpu_queue queue) {
    return (cudaStream_t)mdm_gpu_stream(n->gpu, queue);
}

/* Before a collective is queued: it is noted for the supervisor. A recording that cannot be kept any more is
 * kept away from NCCL, which would fail in it: its communicator is still good for steps that are launched. */
static mdm_status announce(mdm_nccl *n, const char *operation, int64_t bytes) {
    if (n->failure[0]) return fail(n, operation, "");
    if (mdm_gpu_is_recording(n->gpu)) MDM_TRY(mdm_gpu_check_device(n->gpu, operation));
    mdm_watch_enter(operation, bytes);
    n->latest = operation;
    n->latest_bytes = bytes;
    n->is_pending = 1;
    n->since = mdm_watch_now();
    return MDM_OK;
}

static mdm_status queued(mdm_nccl *n, ncclResult_t code) {
    mdm_status status = settle(n, n->latest, code);
    mdm_watch_leave();
    return status;
}

/* Several calls as one operation: the first failure counts. */
static ncclResult_t first_of(ncclResult_t first, ncclResult_t next) {
    return first != ncclSuccess && first != ncclInProgress ? first : next;
}

mdm_status mdm_nccl_all_reduce(mdm_nccl *n, mdm_gpu_queue queue, void *data, int64_t count, mdm_type type,
                               mdm_reduction reduction) {
    MDM_TRY(announce(n, "ncclAllReduce", count * size_of(type)));
    return queued(n, n->table->ncclAllReduce(data, data, (size_t)count, type_of(type),
                                             operation_of(reduction), n->communicator, stream_of(n, queue)));
}

/* The common count, -1 where they differ; their sum. */
static int64_t common_count(const mdm_nccl *n, const int64_t *counts, int64_t *total) {
    int64_t common = counts[0];
    *total = 0;
    for (int r = 0; r < n->ranks; r++) {
        *total += counts[r];
        if (counts[r] != common) common = -1;
    }
    return common;
}

mdm_status mdm_nccl_all_gather(mdm_nccl *n, const void *mine, void *all, const int64_t *counts,
                               mdm_type type) {
    cudaStream_t stream = stream_of(n, MDM_GPU_COMPUTING);
    int64_t total, common = common_count(n, counts, &total), size = size_of(type);
    char *place = all;
    MDM_TRY(announce(n, "ncclAllGather", total * size));
    if (common >= 0)
        return queued(
            n, n->table->ncclAllGather(mine, all, (size_t)common, type_of(type), n->communicator, stream));
    ncclResult_t code = n->table->ncclGroupStart();
    for (int r = 0; r < n->ranks; r++) { /* slices of unequal lengths: each rank broadcasts its own */
        const void *from = r == n->rank ? mine : place;
        if (counts[r] > 0)
            code = first_of(code, n->table->ncclBroadcast(from, place, (size_t)counts[r], type_of(type), r,
                                                          n->communicator, stream));
        place += counts[r] * size;
    }
    return queued(n, first_of(code, n->table->ncclGroupEnd()));
}

mdm_status mdm_nccl_reduce_scatter(mdm_nccl *n, const float *all, float *mine, const int64_t *counts) {
    cudaStream_t stream = stream_of(n, MDM_GPU_COMPUTING);
    int64_t total, common = common_count(n, counts, &total);
    MDM_TRY(announce(n, "ncclReduceScatter", total * (int64_t)sizeof *all));
    if (common >= 0)
        return queued(n, n->table->ncclReduceScatter(all, mine, (size_t)common, ncclFloat32, ncclSum,
                                                     n->communicator, stream));
    ncclResult_t code = n->table->ncclGroupStart();
    for (int r = 0; r < n->ranks; r++) {
        if (counts[r] > 0)
            code = first_of(code, n->table->ncclReduce(all, r == n->rank ? mine : NULL, (size_t)counts[r],
                                                       ncclFloat32, ncclSum, r, n->communicator, stream));
        all += counts[r];
    }
    return queued(n, first_of(code, n->table->ncclGroupEnd()));
}

mdm_status mdm_nccl_shift(mdm_nccl *n, mdm_gpu_queue queue, const void *out, int64_t bytes_out, void *in,
                          int64_t bytes_in) {
    cudaStream_t stream = stream_of(n, queue);
    int next = (n->rank + 1) % n->ranks, previous = (n->rank + n->ranks - 1) % n->ranks;
    MDM_TRY(announce(n, "ncclSend and ncclRecv", bytes_out + bytes_in));
    ncclResult_t code = n->table->ncclGroupStart();
    if (bytes_out > 0)
        code = first_of(code,
                        n->table->ncclSend(out, (size_t)bytes_out, ncclUint8, next, n->communicator, stream));
    if (bytes_in > 0)
        code = first_of(
            code, n->table->ncclRecv(in, (size_t)bytes_in, ncclUint8, previous, n->communicator, stream));
    return queued(n, first_of(code, n->table->ncclGroupEnd()));
}

void mdm_nccl_expect_replay(mdm_nccl *n) {
    n->latest = "a recorded step's collectives";
    n->latest_bytes = 0;
    n->is_pending = 1;
}

mdm_status mdm_nccl_fork(mdm_nccl *n) {
    MDM_TRY(mdm_gpu_record(n->gpu, MDM_GPU_COMPUTING, n->computed));
    return mdm_gpu_follow(n->gpu, MDM_GPU_COMMUNICATING, n->computed);
}

mdm_status mdm_nccl_join(mdm_nccl *n) {
    MDM_TRY(mdm_gpu_record(n->gpu, MDM_GPU_COMMUNICATING, n->communicated));
    return mdm_gpu_follow(n->gpu, MDM_GPU_COMPUTING, n->communicated);
}
