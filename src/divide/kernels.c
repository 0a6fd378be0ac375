/* Chooses the widest compiled kernels that the processor can run. */
#include "kernels.h"
#include "kernel_names.h"

MDM_KERNELS_DECLARE(baseline);
static const mdm_kernels baseline = MDM_KERNELS_TABLE(baseline);
#ifdef MDM_KERNELS_v3
MDM_KERNELS_DECLARE(v3);
static const mdm_kernels v3 = MDM_KERNELS_TABLE(v3);
#endif
#ifdef MDM_KERNELS_v4
MDM_KERNELS_DECLARE(v4);
static const mdm_kernels v4 = MDM_KERNELS_TABLE(v4);
#endif

const mdm_kernels *mdm_divide_kernels(void) {
#ifdef MDM_KERNELS_v4
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &v4;
#endif
#ifdef MDM_KERNELS_v3
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
        return &v3;
#endif
    return &baseline;
}
