/* Steps that are recorded once and replayed: on CUDA devices as a graph, which is launched as a whole.
 *
 * A recording holds what is queued, kernels with their arguments, products, copies and collectives between
 * devices, and nothing that the host does in between. So a recorded step reads all that changes from step to
 * step from the device's memory, and the host tells it by a message, whose sending is recorded too.
 */
#ifndef MDM_DEVICE_RECORDING_H
#define MDM_DEVICE_RECORDING_H

#include "mdm/device/device.h"

/* ---- messages: room in host memory, and the same in the device's (on the CPU the same memory) ---- */
typedef struct mdm_message mdm_message;
MDM_MUST_CHECK mdm_status mdm_message_create(mdm_device *device, size_t bytes, const char *what,
                                             mdm_message **message);
void mdm_message_destroy(mdm_message *message);
/* The host memory to fill. Waits for all that was queued, which may still read it. */
MDM_MUST_CHECK mdm_status mdm_message_begin(mdm_message *message, void **host);
/* Where it arrives. */
void *mdm_message_memory(const mdm_message *message);
/* Queues the sending of the first `bytes`; a replay sends what the host memory holds by then. */
MDM_MUST_CHECK mdm_status mdm_message_send(mdm_message *message, size_t bytes);

/* ---- recordings ---- */
typedef struct mdm_recording mdm_recording;
int mdm_device_can_record(const mdm_device *device);
/* How a step is recorded: bits. The results are the same bits; what is fastest, a device's own times tell. */
enum {
    MDM_RECORD_BESIDE = 1, /* gradients of weights on a queue of their own: beside.h */
    MDM_RECORD_EARLY = 2,  /* kernels are launched before those in front have ended, and wait for them */
    MDM_RECORDING_WAYS = 4 /* all combinations */
};
/* The ways that the device has are those below this one: all, or those that are not early. */
int mdm_device_recording_ways(const mdm_device *device);
/* From here on what is queued is recorded in one of the ways, and not run; the host may not wait for the
 * device, upload, download, allocate or free. Other threads may send pictures (views.h). */
MDM_MUST_CHECK mdm_status mdm_recording_begin(mdm_device *device, int way);
/* Ends it. Without `keep` (what was to be recorded failed) or where it fails, nothing is left of it, and what
 * went wrong inside is forgotten: if the device is at fault, it will tell again. */
MDM_MUST_CHECK mdm_status mdm_recording_end(mdm_device *device, int keep, mdm_recording **recording);
/* Queues all of it, and takes its time or not. Collective where collectives are in it. MDM_RESOURCE where the
 * device refuses it, with nothing queued. */
MDM_MUST_CHECK mdm_status mdm_recording_replay(mdm_recording *recording, int is_timed);
/* How long the device took for the latest replay that was timed, which the host has waited for. */
MDM_MUST_CHECK mdm_status mdm_recording_milliseconds(mdm_device *device, double *milliseconds);
void mdm_recording_destroy(mdm_recording *recording);
/* How often memory of the device was freed. A recording is of no use any more where that has changed since,
 * unless what was freed is known. */
int64_t mdm_device_frees(const mdm_device *device);

#endif
