/* NCCL's table, apart from libraries.h: not every toolkit comes with its header. */
#ifndef MDM_DEVICE_CUDA_NCCL_TABLE_H
#define MDM_DEVICE_CUDA_NCCL_TABLE_H

#include "libraries.h"
#include <nccl.h>

#define MDM_NCCL_FUNCTIONS(X)                                                                                \
    X(ncclGetVersion)                                                                                        \
    X(ncclGetUniqueId)                                                                                       \
    X(ncclCommInitRankConfig)                                                                                \
    X(ncclCommFinalize)                                                                                      \
    X(ncclCommDestroy)                                                                                       \
    X(ncclCommAbort)                                                                                         \
    X(ncclCommGetAsyncError)                                                                                 \
    X(ncclGetErrorString)                                                                                    \
    X(ncclGetLastError)                                                                                      \
    X(ncclAllReduce)                                                                                         \
    X(ncclAllGather)                                                                                         \
    X(ncclReduceScatter)                                                                                     \
    X(ncclBroadcast)                                                                                         \
    X(ncclReduce)                                                                                            \
    X(ncclSend)                                                                                              \
    X(ncclRecv)                                                                                              \
    X(ncclGroupStart)                                                                                        \
    X(ncclGroupEnd)

typedef struct mdm_nccl_table {
    MDM_NCCL_FUNCTIONS(MDM_LIBRARY_MEMBER)
} mdm_nccl_table;

/* As mdm_cudnn_load. */
MDM_MUST_CHECK mdm_status mdm_nccl_load(const mdm_nccl_table **nccl);

#endif
