/* From a convolution to cuDNN's plans for it, by the backend graph API. */
#ifndef MDM_DEVICE_CUDA_CUDNN_PLANS_H
#define MDM_DEVICE_CUDA_CUDNN_PLANS_H

#include "gpu.h"
#include "libraries.h"
#include "plan_cache.h"

enum { MDM_X = 1, MDM_FILTER = 2, MDM_Y = 3 }; /* the tensors' unique ids */
enum { MDM_LARGEST_WORKSPACE = 512 << 20 };    /* bytes */

typedef struct mdm_cudnn_plan {
    cudnnBackendDescriptor_t plan, configuration;
    int64_t workspace; /* bytes */
    mdm_plan_choice choice;
    int is_nameable; /* `choice` says all that is needed to build it again */
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
 * the arithmetic that the precision allows, their workspace within MDM_LARGEST_WORKSPACE. Released by
 * mdm_cudnn_release. */
MDM_MUST_CHECK mdm_status mdm_cudnn_find_plans(const mdm_cudnn_target *target,
                                               const mdm_gpu_convolution *convolution, int most,
                                               mdm_cudnn_plan *plans, int *count);
/* The plan that was chosen before, without asking the heuristics; 0 when cuDNN does not build it, or it does
 * not keep what mdm_cudnn_find_plans promises. */
int mdm_cudnn_rebuild_plan(const mdm_cudnn_target *target, const mdm_gpu_convolution *convolution,
                           const mdm_plan_choice *choice, mdm_cudnn_plan *plan);

/* How long a plan takes; negative when it does not run, which is no failure and has its reason in
 * mdm_last_message(). MDM_RESOURCE: there is no memory to measure with. */
typedef mdm_status mdm_cudnn_measure(void *context, const mdm_cudnn_plan *plan, float *milliseconds);

/* The plan to take: what `cache` says, where that can still be built; otherwise the fastest of the first that
 * the heuristics name, or where none of these runs, the next that does; `cache` is then told. Where there is
 * no memory to measure with, that of the least workspace. */
MDM_MUST_CHECK mdm_status mdm_cudnn_choose_plan(const mdm_cudnn_target *target, mdm_plan_cache *cache,
                                                const mdm_gpu_convolution *convolution,
                                                mdm_cudnn_measure *measure, void *context,
                                                mdm_cudnn_plan *plan);

/* The first of all that the heuristics name, and behind them of their fallbacks, for which `measure` has a
 * time; built one by one. MDM_LOST, with the latest reason, where none has. */
MDM_MUST_CHECK mdm_status mdm_cudnn_find_one_that_runs(const mdm_cudnn_target *target,
                                                       const mdm_gpu_convolution *convolution,
                                                       mdm_cudnn_measure *measure, void *context,
                                                       mdm_cudnn_plan *plan);

/* Its pass, shape and precision in words, in `name`, which is returned. */
enum { MDM_CONVOLUTION_NAME = 160 };
const char *mdm_cudnn_name(const mdm_gpu_convolution *convolution, char name[MDM_CONVOLUTION_NAME]);

void mdm_cudnn_release(const mdm_cudnn *cudnn, mdm_cudnn_plan *plan);

#endif
