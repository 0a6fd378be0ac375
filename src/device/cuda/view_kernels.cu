/* Kernels in phases: view_kernels.h. Compiled with --fmad=false: a fused product and sum would round
 * otherwise than the CPU and Pillow do. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "launch.h"

#define PHASED(name, arguments)                                                                              \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS)                                                \
        name##_kernel(const __grid_constant__ arguments a) {                                                 \
        extern __shared__ uint4 shared[];                                                                    \
        begin_kernel();                                                                                      \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, 0};                                                     \
        uint32_t phases = mdm_##name##_phases(&a, t.block);                                                  \
        for (uint32_t phase = 0; phase < phases; phase++) {                                                  \
            mdm_##name##_phase(&a, t, shared, phase);                                                        \
            __syncthreads();                                                                                 \
        }                                                                                                    \
    }                                                                                                        \
    extern "C" void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, size_t shared, const arguments *a) {       \
        if (blocks == 0) return;                                                                             \
        launch_kernel(gpu, (const void *)name##_kernel, dim3(blocks), shared, a, "the kernel " #name);       \
    }

MDM_GPU_PHASED_KERNELS(PHASED)
