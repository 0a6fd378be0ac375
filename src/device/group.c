/* From every rank's device memory to all ranks': by NCCL where the devices have joined, else by MPI, over
 * host memory where the device has its own. */
#include "mdm/device/group.h"
#include "cuda/device.h"
#include "cuda/nccl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REDUCTIONS = 64 };

struct mdm_group {
    mdm_comm *comm;
    mdm_device *device;
    mdm_nccl *nccl; /* NULL: MPI */
    int is_staged;  /* by MPI, over host memory that is not the device's */
    /* staging */
    char *host;
    size_t host_bytes, used;
    struct {
        float *data, *host;
        int64_t count;
    } reductions[MOST_REDUCTIONS];
    int reduction_count;
    void *ring_in;
    char *ring_host;
    int64_t ring_bytes;
};

/* ---- joining ---- */

/* What a rank tells of itself. */
typedef struct account {
    char host[128], why[192];
    unsigned char identity[MDM_DEVICE_IDENTITY];
    int32_t is_cuda, version, is_off;
} account;

static void describe(const mdm_device *device, const mdm_comm *comm, account *mine) {
    const char *other_host = getenv("NCCL_HOSTID"), *choice = getenv("MDM_NCCL");
    int version = 0;
    memset(mine, 0, sizeof *mine);
    /* NCCL takes its host's name from there, and refuses two ranks on one device of one host only */
    snprintf(mine->host, sizeof mine->host, "%.60s %.60s", mdm_comm_host(comm), other_host ? other_host : "");
    mine->is_off = choice && strcmp(choice, "off") == 0;
    mine->is_cuda = device->info.is_cuda;
    if (mine->is_cuda &&
        (mdm_device_identify_cuda(((const mdm_cuda_device *)device)->number, mine->identity) != MDM_OK ||
         mdm_nccl_find(&version) != MDM_OK))
        snprintf(mine->why, sizeof mine->why, "%.190s", mdm_last_message());
    mine->version = version;
}

/* 1 when NCCL can carry it; the same on all ranks. */
static int judge(const account *all, int ranks, char how[MDM_GROUP_HOW]) {
    static const char by_mpi[] = "MPI by way of host memory";
    for (int r = 0; r < ranks; r++)
        if (!all[r].is_cuda) return 0;
    if (all[0].is_off) return snprintf(how, MDM_GROUP_HOW, "%s: MDM_NCCL=off", by_mpi), 0;
    for (int r = 0; r < ranks; r++) {
        if (all[r].why[0]) return snprintf(how, MDM_GROUP_HOW, "%s: rank %d: %s", by_mpi, r, all[r].why), 0;
        if (all[r].version != all[0].version)
            return snprintf(how, MDM_GROUP_HOW, "%s: NCCL is of version %d on rank 0, %d on rank %d", by_mpi,
                            all[0].version, all[r].version, r),
                   0;
        for (int s = 0; s < r; s++)
            if (strcmp(all[r].host, all[s].host) == 0 &&
                memcmp(all[r].identity, all[s].identity, sizeof all[r].identity) == 0)
                return snprintf(how, MDM_GROUP_HOW, "%s: ranks %d and %d share a CUDA device", by_mpi, s, r),
                       0;
    }
    int version = all[0].version;
    snprintf(how, MDM_GROUP_HOW, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return 1;
}

mdm_status mdm_device_join(mdm_device *device, mdm_comm *comm, char how[MDM_GROUP_HOW]) {
    int ranks = mdm_comm_size(comm);
    account mine, *all;
    how[0] = '\0';
    if (ranks == 1) return MDM_OK;
    describe(device, comm, &mine);
    MDM_TRY(mdm_comm_agree(comm, MDM_ALLOCATE(all, ranks, "the ranks' devices")));
    mdm_status status = mdm_comm_all_gather(comm, &mine, sizeof mine, all, NULL, MDM_BYTE);
    int can = status == MDM_OK && judge(all, ranks, how);
    free(all);
    if (!can || mdm_cuda(device)->nccl) return status;
    status = mdm_nccl_create(comm, mdm_cuda(device)->gpu, &mdm_cuda(device)->nccl);
    if (status == MDM_OK) mdm_cuda(device)->joined = comm;
    return status;
}

mdm_status mdm_group_create(mdm_comm *comm, mdm_device *device, mdm_group **out) {
    mdm_group *g;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(g, 1, "a group of devices"));
    g->comm = comm;
    g->device = device;
    if (device->info.is_cuda && mdm_cuda(device)->joined == comm) g->nccl = mdm_cuda(device)->nccl;
    g->is_staged = device->info.is_cuda && !g->nccl && mdm_comm_size(comm) > 1;
    *out = g;
    return MDM_OK;
}

void mdm_group_destroy(mdm_group *g) {
    if (!g) return;
    free(g->host);
    free(g);
}

int mdm_group_is_queued(const mdm_group *g) {
    return g->nccl != NULL;
}

/* ---- staging ---- */

mdm_status mdm_group_reserve(mdm_group *g, size_t bytes) {
    bytes += 64 * MOST_REDUCTIONS; /* each begins on a line of the cache */
    if (!g->is_staged || bytes <= g->host_bytes) return MDM_OK;
    free(g->host);
    g->host = NULL;
    g->host_bytes = 0;
    MDM_TRY(MDM_ALLOCATE(g->host, bytes, "what the ranks exchange"));
    g->host_bytes = bytes;
    return MDM_OK;
}

/* A piece of the room, given back when nothing is under way any more. */
static mdm_status take(mdm_group *g, size_t bytes, char **host) {
    size_t end = g->used + (bytes + 63) / 64 * 64;
    *host = NULL;
    if (end > g->host_bytes)
        return mdm_fail(MDM_LOST, "internal: the ranks exchange %zu bytes at once, %zu were planned", end,
                        g->host_bytes);
    *host = g->host + g->used;
    g->used = end;
    return MDM_OK;
}

static mdm_status bring(mdm_group *g, const void *memory, size_t bytes, char **host) {
    MDM_TRY(take(g, bytes, host));
    return mdm_device_download(g->device, *host, memory, bytes);
}

static size_t size_of(mdm_type type) {
    return type == MDM_BYTE ? 1 : type == MDM_FLOAT || type == MDM_INT32 ? 4 : 8;
}

static int64_t total_of(const mdm_group *g, const int64_t *counts, int64_t *before) {
    int64_t total = 0;
    for (int r = 0; r < mdm_comm_size(g->comm); r++) {
        if (r == mdm_comm_rank(g->comm)) *before = total;
        total += counts[r];
    }
    return total;
}

/* Sums, gathers and scatters over host memory; the room they took is free again afterwards. */
static mdm_status all_reduce_staged(mdm_group *g, void *data, size_t bytes, int64_t count, mdm_type type,
                                    mdm_reduction reduction) {
    char *host;
    MDM_TRY(bring(g, data, bytes, &host));
    MDM_TRY(mdm_comm_all_reduce(g->comm, host, count, type, reduction));
    return mdm_device_upload(g->device, data, host, bytes);
}

static mdm_status all_gather_staged(mdm_group *g, const void *mine, void *all, const int64_t *counts,
                                    mdm_type type) {
    int64_t before = 0, total = total_of(g, counts, &before), count = counts[mdm_comm_rank(g->comm)];
    size_t size = size_of(type);
    char *host;
    MDM_TRY(take(g, (size_t)total * size, &host));
    char *place = host + (size_t)before * size;
    MDM_TRY(mdm_device_download(g->device, place, mine, (size_t)count * size));
    MDM_TRY(mdm_comm_all_gather(g->comm, place, count, host, counts, type));
    return mdm_device_upload(g->device, all, host, (size_t)total * size);
}

static mdm_status reduce_scatter_staged(mdm_group *g, const float *all, float *mine, const int64_t *counts) {
    int64_t before = 0, total = total_of(g, counts, &before);
    size_t bytes = sizeof(float) * (size_t)counts[mdm_comm_rank(g->comm)];
    char *host, *sums;
    MDM_TRY(bring(g, all, sizeof(float) * (size_t)total, &host));
    MDM_TRY(take(g, bytes, &sums));
    MDM_TRY(mdm_comm_reduce_scatter(g->comm, (float *)host, (float *)sums, counts));
    return mdm_device_upload(g->device, mine, sums, bytes);
}

/* ---- in order ---- */

mdm_status mdm_group_all_reduce(mdm_group *g, void *data, int64_t count, mdm_type type,
                                mdm_reduction reduction) {
    if (mdm_comm_size(g->comm) == 1 || count == 0) return MDM_OK;
    if (g->nccl) return mdm_nccl_all_reduce(g->nccl, MDM_GPU_COMPUTING, data, count, type, reduction);
    if (!g->is_staged) return mdm_comm_all_reduce(g->comm, data, count, type, reduction);
    size_t used = g->used;
    mdm_status status = all_reduce_staged(g, data, (size_t)count * size_of(type), count, type, reduction);
    g->used = used;
    return status;
}

mdm_status mdm_group_all_gather(mdm_group *g, const void *mine, void *all, const int64_t *counts,
                                mdm_type type) {
    if (g->nccl) return mdm_nccl_all_gather(g->nccl, mine, all, counts, type);
    if (mdm_comm_size(g->comm) == 1) {
        if (mine != all) mdm_device_copy(g->device, all, mine, (size_t)counts[0] * size_of(type));
        return MDM_OK;
    }
    if (!g->is_staged)
        return mdm_comm_all_gather(g->comm, mine, counts[mdm_comm_rank(g->comm)], all, counts, type);
    size_t used = g->used;
    mdm_status status = all_gather_staged(g, mine, all, counts, type);
    g->used = used;
    return status;
}

mdm_status mdm_group_reduce_scatter(mdm_group *g, const float *all, float *mine, const int64_t *counts) {
    if (g->nccl) return mdm_nccl_reduce_scatter(g->nccl, all, mine, counts);
    if (mdm_comm_size(g->comm) == 1) {
        if (mine != all) mdm_device_copy(g->device, mine, all, (size_t)counts[0] * sizeof *all);
        return MDM_OK;
    }
    if (!g->is_staged) return mdm_comm_reduce_scatter(g->comm, all, mine, counts);
    size_t used = g->used;
    mdm_status status = reduce_scatter_staged(g, all, mine, counts);
    g->used = used;
    return status;
}

/* ---- beside ---- */

mdm_status mdm_group_reduce_start(mdm_group *g, float *data, int64_t count) {
    char *host;
    if (mdm_comm_size(g->comm) == 1 || count == 0) return MDM_OK;
    if (g->nccl) {
        MDM_TRY(mdm_nccl_fork(g->nccl));
        MDM_TRY(mdm_beside_lead_communication(g->device));
        return mdm_nccl_all_reduce(g->nccl, MDM_GPU_COMMUNICATING, data, count, MDM_FLOAT, MDM_SUM);
    }
    if (!g->is_staged) return mdm_comm_reduce_start(g->comm, data, count);
    if (g->reduction_count == MOST_REDUCTIONS) MDM_TRY(mdm_group_reduce_wait(g));
    MDM_TRY(bring(g, data, (size_t)count * sizeof *data, &host));
    MDM_TRY(mdm_comm_reduce_start(g->comm, (float *)host, count));
    g->reductions[g->reduction_count].data = data;
    g->reductions[g->reduction_count].host = (float *)host;
    g->reductions[g->reduction_count++].count = count;
    return MDM_OK;
}

mdm_status mdm_group_reduce_wait(mdm_group *g) {
    if (g->nccl) return mdm_nccl_join(g->nccl);
    if (mdm_comm_size(g->comm) == 1) return MDM_OK;
    MDM_TRY(mdm_comm_reduce_wait(g->comm));
    int count = g->reduction_count;
    g->reduction_count = 0;
    for (int i = 0; i < count; i++)
        MDM_TRY(mdm_device_upload(g->device, g->reductions[i].data, g->reductions[i].host,
                                  (size_t)g->reductions[i].count * sizeof(float)));
    if (g->ring_bytes == 0) g->used = 0;
    return MDM_OK;
}

mdm_status mdm_group_ring_start(mdm_group *g, const void *out, int64_t bytes_out, void *in,
                                int64_t bytes_in) {
    char *host;
    if (g->nccl) {
        MDM_TRY(mdm_nccl_fork(g->nccl));
        return mdm_nccl_shift(g->nccl, MDM_GPU_COMMUNICATING, out, bytes_out, in, bytes_in);
    }
    if (mdm_comm_size(g->comm) == 1) { /* its own neighbour */
        if (bytes_out != bytes_in)
            return mdm_fail(MDM_LOST, "internal: a ring of one sends %lld bytes and expects %lld",
                            (long long)bytes_out, (long long)bytes_in);
        if (in != out) mdm_device_copy(g->device, in, out, (size_t)bytes_in);
        return MDM_OK;
    }
    if (!g->is_staged) return mdm_comm_ring_start(g->comm, out, bytes_out, in, bytes_in);
    MDM_TRY(bring(g, out, (size_t)bytes_out, &host));
    MDM_TRY(take(g, (size_t)bytes_in, &g->ring_host));
    g->ring_in = in;
    g->ring_bytes = bytes_in;
    return mdm_comm_ring_start(g->comm, host, bytes_out, g->ring_host, bytes_in);
}

mdm_status mdm_group_ring_wait(mdm_group *g) {
    if (g->nccl) return mdm_nccl_join(g->nccl);
    if (mdm_comm_size(g->comm) == 1) return MDM_OK;
    MDM_TRY(mdm_comm_ring_wait(g->comm));
    if (!g->is_staged) return MDM_OK;
    size_t bytes = (size_t)g->ring_bytes;
    g->ring_bytes = 0;
    if (g->reduction_count == 0) g->used = 0;
    return bytes > 0 ? mdm_device_upload(g->device, g->ring_in, g->ring_host, bytes) : MDM_OK;
}
