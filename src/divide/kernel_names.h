/* Names of the kernels of one instruction set: MDM_KERNEL(x) is mdm_x_<level>. Included once per level by
 * kernels.c to declare them, and by the kernel files, which are compiled once per level. */
#ifndef MDM_DIVIDE_KERNEL_NAMES_H
#define MDM_DIVIDE_KERNEL_NAMES_H

#include "kernels.h"

#define MDM_KERNEL_JOIN(name, level) mdm_##name##_##level
#define MDM_KERNEL_AT(name, level)   MDM_KERNEL_JOIN(name, level)

#define MDM_KERNELS_DECLARE(level)                                                                           \
    double MDM_KERNEL_AT(knn_dot, level)(const float *, const float *, int64_t);                             \
    int64_t MDM_KERNEL_AT(knn_scan_row, level)(const float *, int32_t, float, int32_t, mdm_knn_hit *);       \
    int64_t MDM_KERNEL_AT(knn_scan_both, level)(const float *, int32_t, float, const float *, int32_t,       \
                                                mdm_knn_hit *, mdm_knn_hit *, int64_t *);                    \
    void MDM_KERNEL_AT(gmm_expectation, level)(const float *, const double *, int64_t,                       \
                                               const mdm_gmm_density *, mdm_gmm_sums *);                     \
    void MDM_KERNEL_AT(gmm_posterior, level)(const float *, int64_t, const mdm_gmm_density *, float *)

#define MDM_KERNELS_TABLE(level)                                                                             \
    {                                                                                                        \
        MDM_KERNEL_AT(knn_dot, level), MDM_KERNEL_AT(knn_scan_row, level),                                   \
            MDM_KERNEL_AT(knn_scan_both, level), MDM_KERNEL_AT(gmm_expectation, level),                      \
            MDM_KERNEL_AT(gmm_posterior, level), #level                                                      \
    }

#ifdef MDM_KERNEL_LEVEL
#define MDM_KERNEL(name) MDM_KERNEL_AT(name, MDM_KERNEL_LEVEL)
MDM_KERNELS_DECLARE(MDM_KERNEL_LEVEL);
#endif

#endif
