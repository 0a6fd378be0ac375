/* NVIDIA's libraries, found when they are needed and not before: one program runs with and without them, and
 * a package for CPUs needs none of them. The CUDA runtime is linked in (it looks for the driver by itself).
 * The tables hold the libraries' own functions under their own names. */
#ifndef MDM_DEVICE_CUDA_LIBRARIES_H
#define MDM_DEVICE_CUDA_LIBRARIES_H

#include "mdm/base/status.h"
#include <cudnn.h>

#define MDM_CUDNN_FUNCTIONS(X)                                                                               \
    X(cudnnGetVersion)                                                                                       \
    X(cudnnGetErrorString)                                                                                   \
    X(cudnnGetLastErrorString)                                                                               \
    X(cudnnCreate)                                                                                           \
    X(cudnnDestroy)                                                                                          \
    X(cudnnSetStream)                                                                                        \
    X(cudnnBackendCreateDescriptor)                                                                          \
    X(cudnnBackendDestroyDescriptor)                                                                         \
    X(cudnnBackendSetAttribute)                                                                              \
    X(cudnnBackendGetAttribute)                                                                              \
    X(cudnnBackendFinalize)                                                                                  \
    X(cudnnBackendExecute)

#define MDM_LIBRARY_MEMBER(name) __typeof__(&name) name;
typedef struct mdm_cudnn {
    MDM_CUDNN_FUNCTIONS(MDM_LIBRARY_MEMBER)
} mdm_cudnn;

typedef struct mdm_cublaslt mdm_cublaslt; /* cublaslt.h */

/* Opens a library, of the major version that this was built with, once per process. Looked for where the
 * loader looks (LD_LIBRARY_PATH, the system's folders), then in the toolkit's folder of the build and in
 * /usr/local/cuda/lib64.
 * MDM_RESOURCE where it is not. */
MDM_MUST_CHECK mdm_status mdm_cudnn_load(const mdm_cudnn **cudnn);

#endif
