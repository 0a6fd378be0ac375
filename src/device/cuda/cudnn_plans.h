/* From a convolution to cuDNN's plans for it, by the backend graph API. */
#ifndef MDM_DEVICE_CUDA_CUDNN_PLANS_H
#define MDM_DEVICE_CUDA_CUDNN_PLANS_H

#include "gpu.h"
#include "libraries.h"

enum { MDM_X = 1, MDM_FILTER = 2, MDM_Y = 3 }; /* the tensors' unique ids */

typedef struct mdm_cudnn_plan {
    cudnnBackendDescriptor_t plan, configuration;
    int64_t workspace; /* bytes */
} mdm_cudnn_plan;

/* Where plans are for: a handle on a device, or (handle NULL) a description of a device that need not be
 * there, from mdm_cudnn_describe. */
typedef struct mdm_cudnn_target {
    const mdm_cudnn *cudnn;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t description;
} mdm_cudnn_target;

/* A device description from cuDNN's JSON form (cuDNN 9.8 and newer). */
MDM_MUST_CHECK mdm_status mdm_cudnn_describe(const mdm_cudnn *cudnn, const char *json,
                                             cudnnBackendDescriptor_t *description);

/* Up to `most` plans in the order of cuDNN's heuristics, at least one: deterministic, compiled beforehand, in
 * the arithmetic that the precision allows, their workspace within `largest_workspace`. Released by
 * mdm_cudnn_release. */
MDM_MUST_CHECK mdm_status mdm_cudnn_find_plans(const mdm_cudnn_target *target,
                                               const mdm_gpu_convolution *convolution,
                                               int64_t largest_workspace, int most, mdm_cudnn_plan *plans,
                                               int *count);
void mdm_cudnn_release(const mdm_cudnn *cudnn, mdm_cudnn_plan *plan);

#endif
