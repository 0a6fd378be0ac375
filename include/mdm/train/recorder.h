/* Steps as the device gets them: launch by launch, or recorded once for each kind and replayed (docs/gpu.md).
 *
 * The first step of a kind runs plainly, because libraries load what they need when they need it first, which
 * a recording could not hold; the second is recorded, and all from there on are replayed. All ranks do the
 * same: what one of them cannot record, all launch. A device has several ways of recording
 * (mdm/device/recording.h): while a stage is new they take turns, and the fastest stays. Where nothing can be
 * recorded (CPUs, or ranks whose messages pass through host memory) every step runs plainly.
 */
#ifndef MDM_TRAIN_RECORDER_H
#define MDM_TRAIN_RECORDER_H

#include "mdm/device/recording.h"
#include "mdm/model/executor.h"

typedef struct mdm_recorder mdm_recorder;

/* What makes two steps the same but for what messages tell them. */
typedef struct mdm_step_kind {
    int stage, network, groups;
    int64_t n; /* samples of a group, of all ranks */
} mdm_step_kind;

/* `wanted`: train.cuda_graph. The executor and comm are borrowed. */
MDM_MUST_CHECK mdm_status mdm_recorder_create(mdm_comm *comm, mdm_executor *executor, int wanted,
                                              mdm_recorder **recorder);
void mdm_recorder_destroy(mdm_recorder *recorder);
/* Whether steps are recorded; the same on all ranks. */
int mdm_recorder_is_on(const mdm_recorder *recorder);
/* Bytes of a device's memory that its recordings may take beside everything else, where the longest step goes
 * through the network so many times; 0 where steps are not recorded. An estimate from above: docs/gpu.md says
 * of what. */
double mdm_recorder_bytes(const mdm_recorder *recorder, const mdm_layout *layout, double forward,
                          double backward);
/* Whether the fastest way has been found for all stages that there were, one at least. */
int mdm_recorder_is_settled(const mdm_recorder *recorder);
/* The way of the stage for which that was found last, and what its steps took in each, HUGE_VAL where it
 * cannot be had; -1: of none. */
int mdm_recorder_way(const mdm_recorder *recorder, double milliseconds[MDM_RECORDING_WAYS]);
/* Steps are launched from here on; to be called on all ranks. */
void mdm_recorder_turn_off(mdm_recorder *recorder);
/* Collective, when a pass has been prepared: recordings made before memory was freed are forgotten. */
MDM_MUST_CHECK mdm_status mdm_recorder_begin(mdm_recorder *recorder);
/* Collective. `work` queues all that the device does in a step of the network. `context` may hold what is the
 * same in all steps of a kind; what differs reaches the device by messages that were filled before. */
typedef mdm_status mdm_step_work(void *context);
MDM_MUST_CHECK mdm_status mdm_recorder_queue(mdm_recorder *recorder, const mdm_step_kind *kind,
                                             mdm_network *network, mdm_step_work *work, void *context);

#endif
