/* Which device each rank computes on: CUDA devices are dealt out over the ranks of a node; a device that
 * several ranks would share is told before anything starts. */
#include "mdm/base/log.h"
#include "mdm/device/group.h"
#include "mdm/train/run.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a rank found, told to all. */
typedef struct finding {
    char host[64], why[192];
    unsigned char identity[MDM_DEVICE_IDENTITY];
    int32_t count, is_unusable;
} finding;

static int device_number(mdm_comm *comm, int count) {
    return count > 0 ? mdm_comm_node_rank(comm) % count : 0;
}

static void look_around(mdm_comm *comm, finding *mine) {
    memset(mine, 0, sizeof *mine);
    snprintf(mine->host, sizeof mine->host, "%s", mdm_comm_host(comm));
    int is_unusable;
    mine->count = mdm_device_count_cuda(mine->why, sizeof mine->why, &is_unusable);
    mine->is_unusable = is_unusable;
    if (mine->count > 0 &&
        mdm_device_identify_cuda(device_number(comm, mine->count), mine->identity) != MDM_OK) {
        snprintf(mine->why, sizeof mine->why, "%.190s", mdm_last_message());
        mine->count = 0;
        mine->is_unusable = 1;
    }
}

/* Ranks that would compute on the same device as rank r, r itself included. */
static int ranks_on_device_of(const finding *all, int ranks, int r) {
    int sharing = 0;
    for (int i = 0; i < ranks; i++)
        sharing += strcmp(all[i].host, all[r].host) == 0 &&
                   memcmp(all[i].identity, all[r].identity, MDM_DEVICE_IDENTITY) == 0;
    return sharing;
}

/* What device=auto does not pass over in silence: devices that only some ranks have, or nobody can use. */
static void tell_of_unused(const finding *all, int ranks, int with, int without) {
    int unusable = -1;
    for (int r = ranks - 1; r >= 0; r--)
        if (all[r].is_unusable) unusable = r;
    if (with > 0)
        mdm_warn("%d of %d ranks have a CUDA device, but rank %d on %s has none (%s); all compute on CPUs",
                 with, ranks, without, all[without].host, all[without].why);
    else if (unusable >= 0)
        mdm_warn("no CUDA device can be used: rank %d on %s: %s; all compute on CPUs, as device=cpu says "
                 "without this line",
                 unusable, all[unusable].host, all[unusable].why);
}

/* The same answer on every rank. */
static mdm_status decide(const finding *all, int ranks, const mdm_config *config, int is_first,
                         int *use_cuda) {
    int with = 0, without = -1, most = 0, crowded = 0;
    for (int r = 0; r < ranks; r++) {
        with += all[r].count > 0;
        if (all[r].count == 0 && without < 0) without = r;
    }
    *use_cuda = with == ranks;
    if (with < ranks && config->device == MDM_CONFIG_DEVICE_CUDA)
        return mdm_fail(MDM_RESOURCE, "device=cuda, but for rank %d on %s: %s; use device=cpu or auto",
                        without, all[without].host, all[without].why);
    if (with < ranks && is_first) tell_of_unused(all, ranks, with, without);
    for (int r = 0; *use_cuda && r < ranks; r++) {
        int sharing = ranks_on_device_of(all, ranks, r);
        if (sharing > most) most = sharing, crowded = r;
    }
    if (most <= 1) return MDM_OK;
    if (!config->run.oversubscribe)
        return mdm_fail(
            MDM_RESOURCE,
            "%d ranks on %s would share one CUDA device (rank %d is one of them), which is slower than one "
            "rank; start as many ranks as there are devices, or allow it with run.oversubscribe=true, or "
            "use device=cpu",
            most, all[crowded].host, crowded);
    if (is_first) mdm_warn("%d ranks on %s share one CUDA device", most, all[crowded].host);
    return MDM_OK;
}

static mdm_status choose_cuda(mdm_comm *comm, const mdm_config *config, int *use_cuda, int *number) {
    int ranks = mdm_comm_size(comm);
    finding mine, *all;
    int64_t *counts;
    look_around(comm, &mine);
    *number = device_number(comm, mine.count);
    MDM_TRY(MDM_ALLOCATE(all, ranks, "the ranks' devices"));
    mdm_status status = MDM_ALLOCATE(counts, ranks, "the ranks' devices");
    if (status == MDM_OK) {
        for (int r = 0; r < ranks; r++) counts[r] = sizeof mine;
        status = mdm_comm_all_gather(comm, &mine, sizeof mine, all, counts, MDM_BYTE);
    }
    if (status == MDM_OK) status = decide(all, ranks, config, mdm_comm_rank(comm) == 0, use_cuda);
    free(all);
    free(counts);
    return status;
}

static mdm_status choose_precision(const mdm_config *config, const mdm_device_info *info,
                                   mdm_precision *precision) {
    int wanted = config->train.precision;
    if (wanted == MDM_CONFIG_PRECISION_AUTO || wanted == MDM_CONFIG_PRECISION_PREFER_BF16) {
        int with_bf16 = wanted == MDM_CONFIG_PRECISION_AUTO ? info->is_cuda : info->has_bf16;
        *precision = with_bf16 ? MDM_BF16 : MDM_FP32;
        return MDM_OK;
    }
    *precision = wanted == MDM_CONFIG_PRECISION_BF16   ? MDM_BF16
                 : wanted == MDM_CONFIG_PRECISION_TF32 ? MDM_TF32
                                                       : MDM_FP32;
    if (*precision == MDM_BF16 && !info->has_bf16)
        return mdm_fail(MDM_RESOURCE,
                        "train.precision=bf16: this processor (%s) has no bfloat16 arithmetic; use fp32",
                        info->name);
    if (*precision == MDM_TF32 && !info->has_tf32)
        return mdm_fail(MDM_RESOURCE, "train.precision=tf32 is for CUDA devices; use fp32 on %s", info->name);
    return MDM_OK;
}

/* Processors of one run may differ: bf16 where every rank's has it. */
static mdm_status choose_for_all(mdm_comm *comm, mdm_precision *precision) {
    int64_t with_bf16 = *precision == MDM_BF16;
    MDM_TRY(mdm_comm_all_reduce(comm, &with_bf16, 1, MDM_INT64, MDM_MIN));
    if (!with_bf16) *precision = MDM_FP32;
    return MDM_OK;
}

mdm_status mdm_choose_device(mdm_comm *comm, const mdm_config *config, int threads, mdm_device **device,
                             mdm_precision *precision) {
    int use_cuda = 0, number = 0;
    *device = NULL;
    if (config->device != MDM_CONFIG_DEVICE_CPU) MDM_TRY(choose_cuda(comm, config, &use_cuda, &number));
    mdm_status status = use_cuda ? mdm_device_create_cuda(number, threads, device)
                                 : mdm_device_create_cpu(threads, 1, device);
    if (status == MDM_RESOURCE && use_cuda)
        status = mdm_fail(MDM_RESOURCE, "%s; device=cpu computes without it", mdm_last_message());
    if (status == MDM_OK) status = choose_precision(config, mdm_device_get_info(*device), precision);
    MDM_TRY(mdm_comm_agree(comm, status));
    if (config->train.precision == MDM_CONFIG_PRECISION_PREFER_BF16) MDM_TRY(choose_for_all(comm, precision));
    char how[MDM_GROUP_HOW];
    MDM_TRY(mdm_device_join(*device, comm, how));
    if (how[0] && mdm_comm_rank(comm) == 0) mdm_info("CUDA devices communicate by %s", how);
    return MDM_OK;
}
