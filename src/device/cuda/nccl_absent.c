/* What stands behind nccl.h in a build without NCCL's header. */
#include "nccl.h"

static const char reason[] = "this build has no NCCL; build it where CUDA and NCCL's header (nccl.h) are";

mdm_status mdm_nccl_find(int *version) {
    *version = 0;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_nccl_create(mdm_comm *comm, mdm_gpu *gpu, mdm_nccl **nccl) {
    (void)comm, (void)gpu;
    *nccl = NULL;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

/* Nothing below is reached without a communicator. */
void mdm_nccl_destroy(mdm_nccl *nccl) {
    (void)nccl;
}

mdm_status mdm_nccl_all_reduce(mdm_nccl *nccl, mdm_gpu_queue queue, void *data, int64_t count, mdm_type type,
                               mdm_reduction reduction) {
    (void)nccl, (void)queue, (void)data, (void)count, (void)type, (void)reduction;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_nccl_all_gather(mdm_nccl *nccl, const void *mine, void *all, const int64_t *counts,
                               mdm_type type) {
    (void)nccl, (void)mine, (void)all, (void)counts, (void)type;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_nccl_reduce_scatter(mdm_nccl *nccl, const float *all, float *mine, const int64_t *counts) {
    (void)nccl, (void)all, (void)mine, (void)counts;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_nccl_shift(mdm_nccl *nccl, mdm_gpu_queue queue, const void *out, int64_t bytes_out, void *in,
                          int64_t bytes_in) {
    (void)nccl, (void)queue, (void)out, (void)bytes_out, (void)in, (void)bytes_in;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_nccl_fork(mdm_nccl *nccl) {
    (void)nccl;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_nccl_join(mdm_nccl *nccl) {
    (void)nccl;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

void mdm_nccl_expect_replay(mdm_nccl *nccl) {
    (void)nccl;
}
