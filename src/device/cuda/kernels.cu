/* Kernels of the functions in kernels.h, kernels_losses.h and kernels_heads.h, and their launches. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <type_traits>

#include "launch.h"

/* Where the arguments say a precision there is a kernel for each, so that the compiler knows the transfers;
 * and of those of batch norm one for tensors alone, without what may be added to them. */
template <class A, class = void> struct has_precision : std::false_type {};
template <class A> struct has_precision<A, std::void_t<decltype(A::bf16)>> : std::true_type {};
template <class A, class = void> struct has_pixels : std::false_type {};
template <class A> struct has_pixels<A, std::void_t<decltype(A::geometry)>> : std::true_type {};

static __device__ __forceinline__ void leave_alone(mdm_norm_forward_arguments &a) {
    a.residual = NULL;
}
static __device__ __forceinline__ void leave_alone(mdm_norm_backward_arguments &a) {
    a.other = NULL;
}
static __device__ __forceinline__ void leave_alone(mdm_sum_arguments &a) {
    a.residual = a.other = NULL;
}
static bool is_alone(const mdm_norm_forward_arguments &a) {
    return !a.residual;
}
static bool is_alone(const mdm_norm_backward_arguments &a) {
    return !a.other;
}
static bool is_alone(const mdm_sum_arguments &a) {
    return !a.residual && !a.other;
}

template <bool bf16, bool alone, class A> static __device__ __forceinline__ A of_kind(A a) {
    if constexpr (has_precision<A>::value) a.bf16 = bf16;
    if constexpr (has_pixels<A>::value && alone) leave_alone(a);
    return a;
}

/* The kernel for such arguments. */
#define CHOOSE(name, a)                                                                                      \
    if constexpr (has_pixels<decltype(a)>::value) {                                                          \
        if (is_alone(a)) return a.bf16 ? name##_kernel<true, true> : name##_kernel<false, true>;             \
    }                                                                                                        \
    if constexpr (has_precision<decltype(a)>::value)                                                         \
        if (a.bf16) return name##_kernel<true, false>;                                                       \
    return name##_kernel<false, false>;

/* Blocks of nothing are not launched: a rank may have no rows. */
#define LAUNCH(name, arguments)                                                                              \
    template <class A> static auto choose_##name(A a)->void (*)(A) {                                         \
        CHOOSE(name, a)                                                                                      \
    }                                                                                                        \
    extern "C" void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const arguments *a) { \
        if (blocks == 0 || block_rows == 0) return;                                                          \
        launch_kernel(gpu, (const void *)choose_##name(*a), dim3(blocks, block_rows), 0, a,                  \
                      "the kernel " #name);                                                                  \
    }

/* Blocks on a multiprocessor at once, at least: as MDM_GPU_BLOCKS says of those of batch norm. */
#define AT_ONCE(arguments) (has_pixels<arguments>::value ? MDM_GPU_BLOCKS / 132 : 2)

#define SIMPLE(name, arguments)                                                                              \
    template <bool bf16, bool alone>                                                                         \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS, AT_ONCE(arguments))                            \
        name##_kernel(const __grid_constant__ arguments given) {                                             \
        const arguments a = of_kind<bf16, alone>(given);                                                     \
        begin_kernel();                                                                                      \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        mdm_##name##_thread(&a, t);                                                                          \
    }                                                                                                        \
    LAUNCH(name, arguments)

#define SUMMING(name, arguments, rest)                                                                       \
    template <bool bf16, bool alone>                                                                         \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS, AT_ONCE(arguments))                            \
        name##_kernel(const __grid_constant__ arguments given) {                                             \
        __shared__ double shared[MDM_GPU_SHARED];                                                            \
        const arguments a = of_kind<bf16, alone>(given);                                                     \
        begin_kernel();                                                                                      \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        mdm_##name##_thread(&a, t, shared);                                                                  \
        __syncthreads();                                                                                     \
        mdm_##rest##_thread(&a, t, shared);                                                                  \
    }                                                                                                        \
    LAUNCH(name, arguments)

/* The phase is a constant in each of its copies. */
#define PHASED(name, arguments, phases)                                                                      \
    template <bool bf16, bool alone>                                                                         \
    static __global__ void __launch_bounds__(MDM_GPU_THREADS)                                                \
        name##_kernel(const __grid_constant__ arguments given) {                                             \
        const arguments a = of_kind<bf16, alone>(given);                                                     \
        __shared__ double shared[MDM_GPU_SLOTS * MDM_GPU_THREADS];                                           \
        begin_kernel();                                                                                      \
        mdm_gpu_thread t = {blockIdx.x, threadIdx.x, blockIdx.y};                                            \
        _Pragma("unroll") for (int phase = 0; phase < (phases); phase++) {                                   \
            if (phase > 0) __syncthreads();                                                                  \
            mdm_##name##_thread(&a, t, phase, shared);                                                       \
        }                                                                                                    \
    }                                                                                                        \
    LAUNCH(name, arguments)

MDM_GPU_KERNELS(SIMPLE, SUMMING)
MDM_GPU_HEAD_KERNELS(SIMPLE, PHASED)

/* All *kernels.cu are compiled for the same devices. Of code that the driver compiles for a newer one it
 * tells the version of what it was given. */
extern "C" int mdm_gpu_kernels_wait(void) {
    enum { LEAST_VERSION = 90 }; /* as in begin_kernel */
    cudaFuncAttributes attributes = {};
    cudaError_t code = cudaFuncGetAttributes(&attributes, (const void *)sgd_kernel<false, false>);
    if (code != cudaSuccess) (void)cudaGetLastError(); /* the first launch tells it */
    return code == cudaSuccess && attributes.ptxVersion >= LEAST_VERSION;
}
