/* Kernels of the functions in kernels.h, kernels_losses.h and kernels_heads.h, and their launches. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <type_traits>

extern "C" {
#include "runtime.h"
}

/* Where the arguments say a precision there is a kernel for each, so that the compiler knows the transfers. */
template <class A, class = void> struct has_precision : std::false_type {};
template <class A> struct has_precision<A, std::void_t<decltype(A::bf16)>> : std::true_type {};

template <bool bf16, class A> static __device__ __forceinline__ A of_precision(A a) {
    if constexpr (has_precision<A>::value) a.bf16 = bf16;
    return a;
}

template <class A> static bool is_bf16(const A &a) {
    if constexpr (has_precision<A>::value) return a.bf16 != 0;
    return false;
}

/* Blocks of nothing are not launched: a rank may have no rows. */
#define LAUNCH(name, arguments)                                                                              \
    extern "C" void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const arguments *a) { \
        const dim3 grid(blocks, block_rows);                                                                 \
        if (blocks == 0 || block_rows == 0) return;                                                          \
        if (is_bf16(*a))                                                                                     \
            name##_kernel<has_precision<arguments>::value><<<grid, MDM_GPU_THREADS, 0, gpu->stream>>>(*a);   \
        else                                                                                                 \
            name##_kernel<false><<<grid, MDM_GPU_THREADS, 0, gpu->stream>>>(*a);                             \
        mdm_gpu_note(gpu, cudaGetLastError(), "the kernel " #name);                                          \
    }

#define SIMPLE(name, arguments)                                                                              \
    template <bool bf16>                                                                                     \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS, 2)                                             \
        name##_kernel(const __grid_constant__ arguments given) {                                             \
        const arguments a = of_precision<bf16>(given);                                                       \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        mdm_##name##_thread(&a, t);                                                                          \
    }                                                                                                        \
    LAUNCH(name, arguments)

#define SUMMING(name, arguments, rest)                                                                       \
    template <bool bf16>                                                                                     \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS, 2)                                             \
        name##_kernel(const __grid_constant__ arguments given) {                                             \
        __shared__ double shared[MDM_GPU_SHARED];                                                            \
        const arguments a = of_precision<bf16>(given);                                                       \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        mdm_##name##_thread(&a, t, shared);                                                                  \
        __syncthreads();                                                                                     \
        mdm_##rest##_thread(&a, t, shared);                                                                  \
    }                                                                                                        \
    LAUNCH(name, arguments)

/* The phase is a constant in each of its copies. */
#define PHASED(name, arguments, phases)                                                                      \
    template <bool bf16>                                                                                     \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS)                                                \
        name##_kernel(const __grid_constant__ arguments given) {                                             \
        const arguments a = of_precision<bf16>(given);                                                       \
        __shared__ double shared[MDM_GPU_SLOTS * MDM_GPU_THREADS];                                           \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        _Pragma("unroll") for (int phase = 0; phase < (phases); phase++) {                                   \
            if (phase > 0) __syncthreads();                                                                  \
            mdm_##name##_thread(&a, t, phase, shared);                                                       \
        }                                                                                                    \
    }                                                                                                        \
    LAUNCH(name, arguments)

MDM_GPU_KERNELS(SIMPLE, SUMMING)
MDM_GPU_HEAD_KERNELS(SIMPLE, PHASED)
