/* Inside of the CPU device, shared by device.c and convolution.c. */
#ifndef MDM_DEVICE_CPU_DEVICE_H
#define MDM_DEVICE_CPU_DEVICE_H

#include "kernels.h"
#include "mdm/device/device.h"
#include <dnnl.h>

struct mdm_device {
    mdm_device_info info;
    const mdm_kernels *kernels;
    int winograd;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    void *scratch; /* shared by all primitives: they run one after another */
    size_t scratch_bytes;
    double *partial; /* sums of each picture and channel block */
    size_t partial_doubles;
};

MDM_MUST_CHECK mdm_status mdm_onednn_start(mdm_device *device);
void mdm_onednn_stop(mdm_device *device);
MDM_MUST_CHECK mdm_status mdm_device_reserve_partial(mdm_device *device, size_t doubles);

#endif
