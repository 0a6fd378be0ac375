/* A queue of a CUDA device beside the one in which everything is computed: for gradients of convolutions'
 * weights, which nothing waits for before the optimizer. They can run while the layers that follow backward
 * pass over memory, or where a small convolution leaves multiprocessors idle. The results are the same bits.
 *
 * Only while a step is recorded that way (MDM_RECORD_BESIDE, recording.h) does anything go there; at other
 * times, and on CPUs, these functions do nothing, and all stays in one queue. What is computed beside reads
 * tensors that the first queue will write again. Each of them has a number, its place, by which the first
 * queue waits until it has been read.
 */
#ifndef MDM_DEVICE_BESIDE_H
#define MDM_DEVICE_BESIDE_H

#include "mdm/device/device.h"

enum { MDM_BESIDE_PLACES = 3 };

/* Until mdm_beside_end, kernels and gradients of convolutions' weights go beside, behind all that has been
 * queued so far. */
MDM_MUST_CHECK mdm_status mdm_beside_begin(mdm_device *device);
/* What was queued since reads the tensor of this place. */
MDM_MUST_CHECK mdm_status mdm_beside_end(mdm_device *device, int place);
/* What is queued from now on may write that tensor. */
MDM_MUST_CHECK mdm_status mdm_beside_wait(mdm_device *device, int place);
/* What is queued from now on finds everything done that went beside. */
MDM_MUST_CHECK mdm_status mdm_beside_join(mdm_device *device);
/* The same of what is communicated from now on (group.h). */
MDM_MUST_CHECK mdm_status mdm_beside_lead_communication(mdm_device *device);

#endif
