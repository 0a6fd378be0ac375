/* cuBLASLt's table, apart from libraries.h: its headers cannot be read inside of extern "C", as our .cu files
 * read ours. */
#ifndef MDM_DEVICE_CUDA_CUBLASLT_H
#define MDM_DEVICE_CUDA_CUBLASLT_H

#include "libraries.h"
#include <cublasLt.h>

#define MDM_CUBLASLT_FUNCTIONS(X)                                                                            \
    X(cublasLtGetVersion)                                                                                    \
    X(cublasLtGetStatusString)                                                                               \
    X(cublasLtCreate)                                                                                        \
    X(cublasLtDestroy)                                                                                       \
    X(cublasLtMatmulDescCreate)                                                                              \
    X(cublasLtMatmulDescDestroy)                                                                             \
    X(cublasLtMatmulDescSetAttribute)                                                                        \
    X(cublasLtMatrixLayoutCreate)                                                                            \
    X(cublasLtMatrixLayoutDestroy)                                                                           \
    X(cublasLtMatmulPreferenceCreate)                                                                        \
    X(cublasLtMatmulPreferenceDestroy)                                                                       \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                  \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                        \
    X(cublasLtMatmul)

struct mdm_cublaslt {
    MDM_CUBLASLT_FUNCTIONS(MDM_LIBRARY_MEMBER)
};

/* As mdm_cudnn_load. */
MDM_MUST_CHECK mdm_status mdm_cublaslt_load(const mdm_cublaslt **cublaslt);

#endif
