/* Collectives between devices by way of host memory. */
#include "mdm/model/exchange.h"
#include <stdlib.h>

struct mdm_exchange {
    mdm_comm *comm;
    mdm_device *device;
    float *mine, *all; /* in host memory; NULL where arrays need not be brought there */
};

mdm_status mdm_exchange_create(mdm_comm *comm, mdm_device *device, int64_t floats, mdm_exchange **out) {
    mdm_exchange *x;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(x, 1, "exchange between ranks"));
    x->comm = comm;
    x->device = device;
    mdm_status status = MDM_OK;
    if (mdm_comm_size(comm) > 1 && mdm_device_get_info(device)->is_cuda) {
        status = MDM_ALLOCATE(x->mine, floats, "exchange between ranks");
        if (status == MDM_OK) status = MDM_ALLOCATE(x->all, floats, "exchange between ranks");
    }
    if (status != MDM_OK) {
        mdm_exchange_destroy(x);
        return status;
    }
    *out = x;
    return MDM_OK;
}

void mdm_exchange_destroy(mdm_exchange *x) {
    if (!x) return;
    free(x->mine);
    free(x->all);
    free(x);
}

static int64_t total_of(const mdm_exchange *x, const int64_t *counts) {
    int64_t total = 0;
    for (int r = 0; r < mdm_comm_size(x->comm); r++) total += counts[r];
    return total;
}

mdm_status mdm_exchange_gather(mdm_exchange *x, const float *mine, float *all, const int64_t *counts) {
    int64_t count = counts[mdm_comm_rank(x->comm)];
    if (mdm_comm_size(x->comm) == 1) {
        mdm_device_copy(x->device, all, mine, sizeof(float) * (size_t)count);
        return MDM_OK;
    }
    if (!x->all) return mdm_comm_all_gather(x->comm, mine, count, all, counts, MDM_FLOAT);
    MDM_TRY(mdm_device_download(x->device, x->mine, mine, sizeof(float) * (size_t)count));
    MDM_TRY(mdm_comm_all_gather(x->comm, x->mine, count, x->all, counts, MDM_FLOAT));
    return mdm_device_upload(x->device, all, x->all, sizeof(float) * (size_t)total_of(x, counts));
}

mdm_status mdm_exchange_reduce_scatter(mdm_exchange *x, const float *all, float *mine,
                                       const int64_t *counts) {
    size_t own = sizeof(float) * (size_t)counts[mdm_comm_rank(x->comm)];
    if (mdm_comm_size(x->comm) == 1) {
        mdm_device_copy(x->device, mine, all, own);
        return MDM_OK;
    }
    if (!x->all) return mdm_comm_reduce_scatter(x->comm, all, mine, counts);
    MDM_TRY(mdm_device_download(x->device, x->all, all, sizeof(float) * (size_t)total_of(x, counts)));
    MDM_TRY(mdm_comm_reduce_scatter(x->comm, x->all, x->mine, counts));
    return mdm_device_upload(x->device, mine, x->mine, own);
}
