/* Steps as the device gets them: launch by launch, or recorded once for each kind and replayed (docs/gpu.md).
 *
 * All ranks do the same: what one of them cannot record, all launch. Memory is freed between passes only, and
 * what was recorded before is then made anew. */
#include "mdm/base/log.h"
#include "trainer.h"
#include <string.h>

void mdm_steps_forget(mdm_trainer *t) {
    for (int i = 0; i < t->recorded.count; i++) mdm_recording_destroy(t->recorded.steps[i].recording);
    t->recorded.count = t->recorded.next = 0;
}

/* Nothing of a step may pass through the host: ranks communicate from device to device. */
void mdm_steps_create(mdm_trainer *t) {
    t->recorded.is_on = t->config.train.cuda_graph && mdm_device_can_record(t->device) &&
                        (mdm_comm_size(t->comm) == 1 || mdm_group_is_queued(mdm_executor_group(t->executor)));
}

mdm_status mdm_steps_begin(mdm_trainer *t) {
    int64_t frees = mdm_device_frees(t->device);
    int32_t is_stale = frees != t->recorded.frees;
    if (!t->recorded.is_on) return MDM_OK;
    MDM_TRY(mdm_comm_all_reduce(t->comm, &is_stale, 1, MDM_INT32, MDM_MAX));
    if (is_stale) mdm_steps_forget(t);
    t->recorded.frees = frees;
    return MDM_OK;
}

static mdm_recorded_step *find(mdm_trainer *t, const mdm_step_kind *k) {
    for (int i = 0; i < t->recorded.count; i++) {
        const mdm_step_kind *here = &t->recorded.steps[i].kind;
        if (here->stage == k->stage && here->network == k->network && here->groups == k->groups &&
            here->n == k->n)
            return &t->recorded.steps[i];
    }
    return NULL;
}

/* A kind that is new takes the place of the oldest one when there is no other. */
static void add(mdm_trainer *t, const mdm_step_kind *kind) {
    int i = t->recorded.next;
    t->recorded.next = (i + 1) % MDM_MOST_RECORDED;
    if (t->recorded.count < MDM_MOST_RECORDED)
        t->recorded.count++;
    else
        mdm_recording_destroy(t->recorded.steps[i].recording);
    t->recorded.steps[i] = (mdm_recorded_step){*kind, NULL};
}

/* Where any rank fails, none records from here on, and the lowest of them tells. */
static mdm_status record(mdm_trainer *t, mdm_recorded_step *r, mdm_step_work *work, void *context) {
    int ranks = mdm_comm_size(t->comm), rank = mdm_comm_rank(t->comm);
    mdm_executor_forget_weights(t->executor);
    mdm_status status = mdm_recording_begin(t->device);
    if (status == MDM_OK) {
        mdm_status inside = work(t, context);
        char why[512];
        snprintf(why, sizeof why, "%.500s", inside == MDM_OK ? "" : mdm_last_message());
        status = mdm_recording_end(t->device, inside == MDM_OK, &r->recording);
        if (inside != MDM_OK) status = mdm_fail(inside, "%s", why);
    }
    int32_t failed = status == MDM_OK ? ranks : rank;
    MDM_TRY(mdm_comm_all_reduce(t->comm, &failed, 1, MDM_INT32, MDM_MIN));
    if (failed == ranks) return MDM_OK;
    if (failed == rank)
        mdm_warn("steps are launched kernel by kernel, as their recording failed on rank %d: %s; "
                 "train.cuda_graph=false does not try",
                 rank, mdm_last_message());
    mdm_steps_forget(t);
    t->recorded.is_on = 0;
    return MDM_OK;
}

mdm_status mdm_queue_step(mdm_trainer *t, const mdm_step_kind *kind, mdm_network *network,
                          mdm_step_work *work, void *context) {
    mdm_recorded_step *r = find(t, kind);
    if (!t->recorded.is_on) return work(t, context);
    if (!r) { /* libraries load what they need when they need it first, which a recording could not hold */
        add(t, kind);
        return work(t, context);
    }
    if (mdm_device_frees(t->device) != t->recorded.frees)
        return mdm_fail(MDM_LOST, "internal: memory of the device was freed inside a pass");
    if (!r->recording) MDM_TRY(record(t, r, work, context));
    if (!t->recorded.is_on) return work(t, context);
    mdm_executor_forget_weights(t->executor);
    MDM_TRY(mdm_recording_replay(r->recording));
    mdm_network_moved(network);
    return MDM_OK;
}
