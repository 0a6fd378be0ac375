/* Steps that are recorded once and replayed. Memory is freed between passes only, and what was recorded
 * before is then made anew. */
#include "mdm/train/recorder.h"
#include "mdm/base/log.h"
#include "mdm/device/recording.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct recorded_step {
    mdm_step_kind kind;
    mdm_recording *recording; /* NULL: not yet */
} recorded_step;

enum { MOST = 8 };

struct mdm_recorder {
    mdm_comm *comm;
    mdm_executor *executor;
    mdm_device *device;
    int is_on, count, next;
    int64_t frees; /* of device memory, by the time they were made */
    recorded_step steps[MOST];
};

static void forget(mdm_recorder *r) {
    for (int i = 0; i < r->count; i++) mdm_recording_destroy(r->steps[i].recording);
    r->count = r->next = 0;
}

/* Nothing of a step may pass through the host: ranks communicate from device to device. */
mdm_status mdm_recorder_create(mdm_comm *comm, mdm_executor *executor, int wanted, mdm_recorder **out) {
    mdm_device *device = mdm_executor_device(executor);
    mdm_recorder *r;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(r, 1, "recorded steps"));
    r->comm = comm;
    r->executor = executor;
    r->device = device;
    r->is_on = wanted && mdm_device_can_record(device) &&
               (mdm_comm_size(comm) == 1 || mdm_group_is_queued(mdm_executor_group(executor)));
    *out = r;
    return MDM_OK;
}

void mdm_recorder_destroy(mdm_recorder *r) {
    if (!r) return;
    forget(r);
    free(r);
}

int mdm_recorder_is_on(const mdm_recorder *r) {
    return r->is_on;
}

void mdm_recorder_turn_off(mdm_recorder *r) {
    forget(r);
    r->is_on = 0;
}

/* Calls of the longest step, MixEMatch's, and what each may become: three kernels of cuDNN, or those of a
 * collective. Chunks but the last are passed through once more on the way back. */
double mdm_recorder_bytes(const mdm_recorder *r, const mdm_layout *layout, double chunks) {
    enum { NODE_BYTES = 64 << 10, FORWARD_NODES = 6, BACKWARD_NODES = 9, OTHER_NODES = 250 };
    double forward = 3 * chunks + 2 * (chunks - 1), backward = 2 * chunks;
    if (!r->is_on) return 0;
    return (double)MOST * NODE_BYTES *
           (layout->layer_count * (FORWARD_NODES * forward + BACKWARD_NODES * backward) + OTHER_NODES);
}

mdm_status mdm_recorder_begin(mdm_recorder *r) {
    int64_t frees = mdm_device_frees(r->device);
    int32_t is_stale = frees != r->frees;
    if (!r->is_on) return MDM_OK;
    MDM_TRY(mdm_comm_all_reduce(r->comm, &is_stale, 1, MDM_INT32, MDM_MAX));
    if (is_stale) forget(r);
    r->frees = frees;
    return MDM_OK;
}

static recorded_step *find(mdm_recorder *r, const mdm_step_kind *k) {
    for (int i = 0; i < r->count; i++) {
        const mdm_step_kind *here = &r->steps[i].kind;
        if (here->stage == k->stage && here->network == k->network && here->groups == k->groups &&
            here->n == k->n)
            return &r->steps[i];
    }
    return NULL;
}

/* A kind that is new takes the place of the oldest one when there is no other. */
static void add(mdm_recorder *r, const mdm_step_kind *kind) {
    int i = r->next;
    r->next = (i + 1) % MOST;
    if (r->count < MOST)
        r->count++;
    else
        mdm_recording_destroy(r->steps[i].recording);
    r->steps[i] = (recorded_step){*kind, NULL};
}

/* Where any rank fails, none records from here on, and what the lowest of them says is told. A device that is
 * lost is no reason to go on without recordings: its rank leaves, and what the others wait for never comes.
 */
static mdm_status record(mdm_recorder *r, recorded_step *step, mdm_step_work *work, void *context) {
    int ranks = mdm_comm_size(r->comm), rank = mdm_comm_rank(r->comm);
    mdm_status status = mdm_recording_begin(r->device);
    if (status == MDM_LOST) return status;
    if (status == MDM_OK) {
        mdm_status inside = work(context);
        char first[512];
        snprintf(first, sizeof first, "%.500s", inside == MDM_OK ? "" : mdm_last_message());
        status = mdm_recording_end(r->device, inside == MDM_OK, &step->recording);
        if (status == MDM_LOST) return status;
        if (inside != MDM_OK) status = mdm_fail(inside, "%s", first);
    }
    int32_t failed = status == MDM_OK ? ranks : rank;
    char why[512];
    snprintf(why, sizeof why, "%.500s", mdm_last_message());
    MDM_TRY(mdm_comm_all_reduce(r->comm, &failed, 1, MDM_INT32, MDM_MIN));
    if (failed == ranks) return MDM_OK;
    MDM_TRY(mdm_comm_broadcast(r->comm, why, sizeof why, MDM_BYTE, failed)); /* rank 0 prints warnings */
    mdm_warn("steps are launched kernel by kernel, as their recording failed on rank %d: %s; "
             "train.cuda_graph=false does not try",
             failed, why);
    mdm_recorder_turn_off(r);
    return MDM_OK;
}

mdm_status mdm_recorder_queue(mdm_recorder *r, const mdm_step_kind *kind, mdm_network *network,
                              mdm_step_work *work, void *context) {
    recorded_step *step = find(r, kind);
    if (!r->is_on) return work(context);
    if (!step) {
        add(r, kind);
        return work(context);
    }
    if (mdm_device_frees(r->device) != r->frees)
        return mdm_fail(MDM_LOST, "internal: memory of the device was freed inside a pass");
    MDM_TRY(mdm_executor_prepare(r->executor, network));
    if (!step->recording) MDM_TRY(record(r, step, work, context));
    if (!r->is_on) return work(context);
    MDM_TRY(mdm_recording_replay(step->recording));
    mdm_network_moved(network);
    return MDM_OK;
}
