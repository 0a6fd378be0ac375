/* Steps that are recorded once and replayed, in the fastest way. Memory is freed between passes only, and
 * what was recorded before is then made anew. */
#include "mdm/train/recorder.h"
#include "mdm/base/log.h"
#include "mdm/device/recording.h"
#include "recording_trial.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct recorded_step {
    mdm_step_kind kind;
    mdm_recording *recording[MDM_RECORDING_WAYS]; /* NULL: not yet */
} recorded_step;

/* Steps of a stage with as many groups are recorded the same way, whatever the network and the number of
 * samples. One kind of them is tried in all ways, while the others are recorded plainly. */
typedef struct stage_trial {
    mdm_step_kind kind; /* the one that is tried */
    int is_tried;       /* it has recordings */
    mdm_recording_trial trial;
    double milliseconds[MDM_RECORDING_WAYS]; /* that decided it */
} stage_trial;

enum { MOST = 8 };

struct mdm_recorder {
    mdm_comm *comm;
    mdm_executor *executor;
    mdm_device *device;
    int is_on, count, next;
    int ways;      /* that the devices of all ranks have */
    int64_t frees; /* of device memory, by the time they were made */
    recorded_step steps[MOST];
    stage_trial trials[MOST];
    int trial_count;
    stage_trial *timed; /* of the latest replay; NULL: nobody wants its time */
    int timed_way;
    const stage_trial *decided; /* the latest; NULL: none */
};

static void drop(recorded_step *step, int way) {
    mdm_recording_destroy(step->recording[way]);
    step->recording[way] = NULL;
}

static void drop_all(recorded_step *step) {
    for (int way = 0; way < MDM_RECORDING_WAYS; way++) drop(step, way);
}

/* A trial goes on with a kind that there is then. */
static void forget(mdm_recorder *r) {
    for (int i = 0; i < r->count; i++) drop_all(&r->steps[i]);
    for (int i = 0; i < r->trial_count; i++) r->trials[i].is_tried = 0;
    r->count = r->next = 0;
    r->timed = NULL;
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

/* Of as many as are kept, and of the one that is tried in all ways: calls of the longest step, and what each
 * may become: three kernels of cuDNN, or those of a collective. */
double mdm_recorder_bytes(const mdm_recorder *r, const mdm_layout *layout, double forward, double backward) {
    enum { NODE_BYTES = 64 << 10, FORWARD_NODES = 5, BACKWARD_NODES = 8, OTHER_NODES = 250 };
    if (!r->is_on) return 0;
    return (double)(MOST + MDM_RECORDING_WAYS - 1) * NODE_BYTES *
           (layout->layer_count * (FORWARD_NODES * forward + BACKWARD_NODES * backward) + OTHER_NODES);
}

mdm_status mdm_recorder_begin(mdm_recorder *r) {
    int64_t frees = mdm_device_frees(r->device);
    int32_t told[2] = {frees != r->frees, -mdm_device_recording_ways(r->device)};
    if (!r->is_on) return MDM_OK;
    MDM_TRY(mdm_comm_all_reduce(r->comm, told, 2, MDM_INT32, MDM_MAX));
    if (told[0]) forget(r);
    r->frees = frees;
    r->ways = -told[1];
    return MDM_OK;
}

static int is_same_stage(const mdm_step_kind *a, const mdm_step_kind *b) {
    return a->stage == b->stage && a->groups == b->groups;
}

static int is_same(const mdm_step_kind *a, const mdm_step_kind *b) {
    return is_same_stage(a, b) && a->network == b->network && a->n == b->n;
}

static recorded_step *find(mdm_recorder *r, const mdm_step_kind *k) {
    for (int i = 0; i < r->count; i++)
        if (is_same(&r->steps[i].kind, k)) return &r->steps[i];
    return NULL;
}

/* A kind that is new takes the place of the oldest one when there is no other. */
static void add(mdm_recorder *r, const mdm_step_kind *kind) {
    int i = r->next;
    r->next = (i + 1) % MOST;
    if (r->count < MOST)
        r->count++;
    else
        drop_all(&r->steps[i]);
    r->steps[i] = (recorded_step){.kind = *kind};
}

/* What one rank cannot do none does: *failed is the lowest such rank, whose words all get; else the number of
 * ranks. A device that is lost is no reason to go on: its rank leaves, and what the others wait for never
 * comes. So it is where others have launched what this rank's device refuses, as they cannot call it back. */
static mdm_status agree(mdm_recorder *r, recorded_step *step, int way, mdm_status status, int is_launched,
                        int32_t *failed, char why[512]) {
    int ranks = mdm_comm_size(r->comm);
    int32_t told[2] = {status == MDM_OK ? ranks : mdm_comm_rank(r->comm), status != MDM_OK}; /* lowest; all */
    if (status == MDM_LOST) return status;
    snprintf(why, 512, "%.500s", mdm_last_message());
    MDM_TRY(mdm_comm_all_reduce(r->comm, told, 2, MDM_INT32, MDM_MIN));
    int is_divided = told[0] < ranks && is_launched && !told[1];
    *failed = is_divided ? ranks : told[0];
    if (is_divided && status != MDM_OK)
        return mdm_fail(MDM_LOST,
                        "%s, though other ranks have launched theirs; train.cuda_graph=false records none",
                        why);
    if (*failed == ranks) return MDM_OK;
    drop(step, way);
    return mdm_comm_broadcast(r->comm, why, 512, MDM_BYTE, *failed); /* rank 0 prints warnings */
}

static mdm_status record(mdm_recorder *r, recorded_step *step, int way, mdm_step_work *work, void *context) {
    mdm_status status = mdm_recording_begin(r->device, way);
    if (status == MDM_OK) {
        mdm_status inside = work(context);
        char first[512];
        snprintf(first, sizeof first, "%.500s", inside == MDM_OK ? "" : mdm_last_message());
        status = mdm_recording_end(r->device, inside == MDM_OK, &step->recording[way]);
        if (status == MDM_LOST) return status;
        if (inside != MDM_OK) status = mdm_fail(MDM_RESOURCE, "%s", first); /* the device is sound */
    }
    return status;
}

/* ---- ways ---- */

/* NULL: there are too many. */
static stage_trial *trial_of(mdm_recorder *r, const mdm_step_kind *k) {
    for (int i = 0; i < r->trial_count; i++)
        if (is_same_stage(&r->trials[i].kind, k)) return &r->trials[i];
    if (r->trial_count == MOST) return NULL;
    stage_trial *t = &r->trials[r->trial_count++];
    *t = (stage_trial){.kind = *k, .trial = {.ways = r->ways}};
    return t;
}

/* Sizes of a pass are spread evenly over its steps, so the first kind that comes again comes often. */
static int way_of(stage_trial *t, const mdm_step_kind *kind) {
    if (!t) return 0;
    if (!t->is_tried) t->kind = *kind;
    t->is_tried = 1;
    return t->trial.is_over || is_same(&t->kind, kind) ? mdm_recording_trial_next(&t->trial) : 0;
}

/* The slowest rank's times count, as the others wait for it. What was recorded in other ways is of no more
 * use.
 */
static mdm_status decide(mdm_recorder *r, stage_trial *t) {
    mdm_recording_trial_medians(&t->trial, t->milliseconds);
    MDM_TRY(mdm_comm_all_reduce(r->comm, t->milliseconds, MDM_RECORDING_WAYS, MDM_DOUBLE, MDM_MAX));
    mdm_recording_trial_decide(&t->trial, t->milliseconds);
    r->decided = t;
    for (int way = 0; way < t->trial.ways; way++)
        mdm_debug("a step of stage %d takes %.3f ms%s%s%s", t->kind.stage, t->milliseconds[way],
                  way & MDM_RECORD_BESIDE ? ", gradients of weights beside the rest" : "",
                  way & MDM_RECORD_EARLY ? ", kernels launched early" : "",
                  way == t->trial.chosen ? ": so from here on" : "");
    for (int i = 0; i < r->count; i++)
        for (int way = 0; way < MDM_RECORDING_WAYS; way++)
            if (is_same_stage(&r->steps[i].kind, &t->kind) && way != t->trial.chosen) drop(&r->steps[i], way);
    return MDM_OK;
}

/* The host has waited for the latest replay since. */
static mdm_status take_time(mdm_recorder *r) {
    stage_trial *t = r->timed;
    double milliseconds;
    r->timed = NULL;
    if (!t || t->trial.is_over) return MDM_OK;
    MDM_TRY(mdm_recording_milliseconds(r->device, &milliseconds));
    mdm_recording_trial_add(&t->trial, r->timed_way, milliseconds);
    return mdm_recording_trial_is_full(&t->trial) ? decide(r, t) : MDM_OK;
}

int mdm_recorder_is_settled(const mdm_recorder *r) {
    for (int i = 0; r->is_on && i < r->trial_count; i++)
        if (!r->trials[i].trial.is_over) return 0;
    return !r->is_on || r->trial_count > 0;
}

int mdm_recorder_way(const mdm_recorder *r, double milliseconds[MDM_RECORDING_WAYS]) {
    if (!r->is_on || !r->decided) return -1;
    for (int way = 0; way < MDM_RECORDING_WAYS; way++) milliseconds[way] = r->decided->milliseconds[way];
    return r->decided->trial.chosen;
}

/* Replays the step's recording, which is made if need be; a device may refuse a new one when it is launched
 * first. *failed as above. */
static mdm_status replay(mdm_recorder *r, recorded_step *step, int way, mdm_step_work *work, void *context,
                         int32_t *failed, char why[512]) {
    stage_trial *t = trial_of(r, &step->kind);
    int is_new = !step->recording[way];
    *failed = mdm_comm_size(r->comm);
    r->timed = t && !t->trial.is_over && is_same(&t->kind, &step->kind) ? t : NULL;
    r->timed_way = way;
    if (is_new) MDM_TRY(agree(r, step, way, record(r, step, way, work, context), 0, failed, why));
    if (!step->recording[way]) return MDM_OK;
    mdm_status status = mdm_recording_replay(step->recording[way], r->timed != NULL);
    if (is_new) return agree(r, step, way, status, 1, failed, why);
    if (status == MDM_RESOURCE)
        (void)mdm_fail(MDM_LOST, "%s; train.cuda_graph=false records none", mdm_last_message());
    return status == MDM_OK ? MDM_OK : MDM_LOST;
}

/* In the way of this turn, else plainly; *is_queued is 0 where steps are launched from here on. */
static mdm_status replay_some_way(mdm_recorder *r, recorded_step *step, mdm_step_work *work, void *context,
                                  int *is_queued) {
    stage_trial *t = trial_of(r, &step->kind);
    int way = way_of(t, &step->kind), ranks = mdm_comm_size(r->comm);
    int32_t failed;
    char why[512];
    MDM_TRY(replay(r, step, way, work, context, &failed, why));
    if (failed < ranks && way != 0) {
        mdm_debug("way %d of recording a step failed on rank %d: %s", way, failed, why);
        mdm_recording_trial_leave_out(&t->trial, way);
        MDM_TRY(replay(r, step, 0, work, context, &failed, why));
    }
    *is_queued = failed == ranks;
    if (*is_queued) return MDM_OK;
    mdm_warn("steps are launched kernel by kernel, as their recording failed on rank %d: %s; "
             "train.cuda_graph=false does not try",
             failed, why);
    mdm_recorder_turn_off(r);
    return MDM_OK;
}

mdm_status mdm_recorder_queue(mdm_recorder *r, const mdm_step_kind *kind, mdm_network *network,
                              mdm_step_work *work, void *context) {
    int is_queued;
    if (!r->is_on) return work(context);
    MDM_TRY(take_time(r));
    recorded_step *step = find(r, kind);
    if (!step) {
        add(r, kind);
        return work(context);
    }
    if (mdm_device_frees(r->device) != r->frees)
        return mdm_fail(MDM_LOST, "internal: memory of the device was freed inside a pass");
    MDM_TRY(mdm_executor_prepare(r->executor, network));
    MDM_TRY(replay_some_way(r, step, work, context, &is_queued));
    if (!is_queued) return work(context);
    mdm_network_moved(network);
    return MDM_OK;
}
