/* How our kernels begin and are launched, for the *kernels.cu. */
#ifndef MDM_DEVICE_CUDA_LAUNCH_H
#define MDM_DEVICE_CUDA_LAUNCH_H

extern "C" {
#include "runtime.h"
}

/* The first thing of every kernel. One that was launched early (mdm_gpu_launch_early) waits here until all in
 * front of it have ended and their results can be read; and the next may come to its own wait as soon as all
 * blocks of this one are at work. Of kernels launched otherwise nothing becomes of it. */
static __device__ __forceinline__ void begin_kernel(void) {
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
#endif
}

/* A kernel of one argument. */
static inline void launch_kernel(mdm_gpu *gpu, const void *kernel, dim3 blocks, size_t shared,
                                 const void *argument, const char *what) {
    cudaLaunchAttribute early;
    cudaLaunchConfig_t config = {};
    void *arguments[] = {const_cast<void *>(argument)};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = blocks;
    config.blockDim = dim3(MDM_GPU_THREADS);
    config.dynamicSmemBytes = shared;
    config.stream = gpu->queued_to;
    config.attrs = &early;
    config.numAttrs = gpu->launches_early ? 1 : 0;
    mdm_gpu_note(gpu, cudaLaunchKernelExC(&config, kernel, arguments), what);
}

#endif
