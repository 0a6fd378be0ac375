/* Kernels of the functions in kernels_rows.h, kernels_tiles.h, kernels_neighbours.h and kernels_mixture.h,
 * and their launches. */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "launch.h"

/* Blocks of nothing are not launched: a rank may have no rows. */
#define LAUNCH(name, arguments)                                                                              \
    extern "C" void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const arguments *a) { \
        if (blocks == 0 || block_rows == 0) return;                                                          \
        launch_kernel(gpu, (const void *)name##_kernel, dim3(blocks, block_rows), 0, a,                      \
                      "the kernel " #name);                                                                  \
    }

#define SIMPLE(name, arguments)                                                                              \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS)                                                \
        name##_kernel(const __grid_constant__ arguments a) {                                                 \
        begin_kernel();                                                                                      \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        mdm_##name##_thread(&a, t);                                                                          \
    }                                                                                                        \
    LAUNCH(name, arguments)

/* The number of stages is the same for all threads of a block. */
#define STAGED(name, arguments, shared_memory)                                                               \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS)                                                \
        name##_kernel(const __grid_constant__ arguments a) {                                                 \
        __shared__ shared_memory shared;                                                                     \
        begin_kernel();                                                                                      \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        const uint32_t stages = mdm_##name##_stages(&a, t);                                                  \
        for (uint32_t stage = 0; stage < stages; stage++) {                                                  \
            mdm_##name##_stage(&a, t, &shared, stage);                                                       \
            __syncthreads();                                                                                 \
        }                                                                                                    \
    }                                                                                                        \
    LAUNCH(name, arguments)

MDM_GPU_NEIGHBOUR_KERNELS(SIMPLE, STAGED)
MDM_GPU_MIXTURE_KERNELS(SIMPLE, STAGED)
