/* Inside of the CUDA device proper, shared by runtime.c, graph.c, convolutions.c, products.c and kernels.cu.
 */
#ifndef MDM_DEVICE_CUDA_RUNTIME_H
#define MDM_DEVICE_CUDA_RUNTIME_H

#include "cudnn_plans.h"
#include "gpu.h"
#include <cuda_runtime_api.h>

typedef struct mdm_gpu_workspace {
    void *memory;
    size_t bytes, kept; /* what there is; what plans that are kept need */
} mdm_gpu_workspace;

struct mdm_gpu {
    cudaStream_t stream;  /* everything computed runs on it, in order */
    cudaStream_t sending; /* uploads beside it */
    cudaStream_t communicating, beside;
    cudaStream_t queued_to; /* kernels and convolutions: stream, or beside */
    int can_launch_early, launches_early;
    mdm_gpu_guard guard; /* look is NULL: nobody */
    int is_given_up;     /* set by the computing thread, read by others too */
    int number;
    int is_recording;    /* between mdm_gpu_begin_graph and _end_graph */
    int64_t frees;       /* of memory */
    cudaError_t failure; /* the first one that could not be told at once */
    const char *failed_in;
    const mdm_cudnn *cudnn;
    cudnnHandle_t handle;
    const mdm_cublaslt *cublaslt;
    struct cublasLtContext *cublaslt_handle;
    mdm_gpu_workspace workspace;        /* of convolutions and products, which run one after another */
    mdm_gpu_workspace workspace_beside; /* of gradients of filters, where they run beside those */
    struct mdm_gpu_plan *plans;         /* newest first */
    mdm_plan_cache *cache;
    mdm_gpu_product *products; /* newest first */
    cudaEvent_t begin, end;    /* for timing plans and graphs */
};

struct mdm_gpu_plan {
    mdm_gpu_convolution kind;
    mdm_cudnn_plan cudnn;
    struct mdm_gpu_plan *next;
};

/* Remembers a failure of a call that cannot return one. */
void mdm_gpu_note(mdm_gpu *gpu, cudaError_t code, const char *what);
/* The failure as a status. */
MDM_MUST_CHECK mdm_status mdm_gpu_check(mdm_gpu *gpu, cudaError_t code, const char *what);
/* Makes a workspace at least so large, while planning: for a plan that is kept, or for a trial, whose failure
 * takes nothing from the others. */
MDM_MUST_CHECK mdm_status mdm_gpu_grow_workspace(mdm_gpu *gpu, mdm_gpu_workspace *workspace, size_t bytes,
                                                 int is_kept);
/* kernels.cu: whether the code that this device runs our kernels with has their wait (launch.h). It has not
 * where all that was compiled is for older ones, as by CMAKE_CUDA_ARCHITECTURES=80. */
int mdm_gpu_kernels_wait(void);
/* convolutions.c, products.c */
void mdm_gpu_release_plans(mdm_gpu *gpu);
void mdm_gpu_release_products(mdm_gpu *gpu);

#endif
