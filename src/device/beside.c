/* Gradients of weights beside the rest: forks and joins of a CUDA device's queues. */
#include "mdm/device/beside.h"
#include "cuda/device.h"

static mdm_cuda_device *device_of(mdm_device *device) {
    return device->info.is_cuda && mdm_cuda(device)->beside.is_on ? mdm_cuda(device) : NULL;
}

/* What a step that failed has left is forgotten. */
void mdm_cuda_turn_beside(mdm_cuda_device *d, int is_on) {
    d->beside.is_on = is_on;
    d->beside.latest = NULL;
    for (int i = 0; i < MDM_BESIDE_PLACES; i++) d->beside.is_read[i] = 0;
    mdm_gpu_turn_to(d->gpu, MDM_GPU_COMPUTING);
}

mdm_status mdm_beside_begin(mdm_device *device) {
    mdm_cuda_device *d = device_of(device);
    if (!d) return MDM_OK;
    MDM_TRY(mdm_gpu_record(d->gpu, MDM_GPU_COMPUTING, d->beside.begun));
    MDM_TRY(mdm_gpu_follow(d->gpu, MDM_GPU_BESIDE, d->beside.begun));
    mdm_gpu_turn_to(d->gpu, MDM_GPU_BESIDE);
    return MDM_OK;
}

mdm_status mdm_beside_end(mdm_device *device, int place) {
    mdm_cuda_device *d = device_of(device);
    if (!d) return MDM_OK;
    mdm_gpu_turn_to(d->gpu, MDM_GPU_COMPUTING);
    MDM_TRY(mdm_gpu_record(d->gpu, MDM_GPU_BESIDE, d->beside.ended[place]));
    d->beside.is_read[place] = 1;
    d->beside.latest = d->beside.ended[place];
    return MDM_OK;
}

mdm_status mdm_beside_wait(mdm_device *device, int place) {
    mdm_cuda_device *d = device_of(device);
    if (!d || !d->beside.is_read[place]) return MDM_OK;
    d->beside.is_read[place] = 0;
    return mdm_gpu_follow(d->gpu, MDM_GPU_COMPUTING, d->beside.ended[place]);
}

/* The queue beside keeps its order: who follows its latest end follows all. */
mdm_status mdm_beside_join(mdm_device *device) {
    mdm_cuda_device *d = device_of(device);
    if (!d || !d->beside.latest) return MDM_OK;
    mdm_gpu_mark *latest = d->beside.latest;
    for (int i = 0; i < MDM_BESIDE_PLACES; i++) d->beside.is_read[i] = 0;
    d->beside.latest = NULL;
    return mdm_gpu_follow(d->gpu, MDM_GPU_COMPUTING, latest);
}

mdm_status mdm_beside_lead_communication(mdm_device *device) {
    mdm_cuda_device *d = device_of(device);
    if (!d || !d->beside.latest) return MDM_OK;
    return mdm_gpu_follow(d->gpu, MDM_GPU_COMMUNICATING, d->beside.latest);
}
