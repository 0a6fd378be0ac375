/* Whether the ranks' CUDA devices sum together: each rank opens its own, they join, and a sum of known
 * numbers goes round. What fails on any rank is told by all, so that the rank at fault is named. */
#include "doctor.h"
#include "mdm/base/log.h"
#include "mdm/device/group.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ELEMENTS = 1 << 20, REPEATS = 5, MESSAGE = 400 };

/* How far a rank came. */
typedef struct outcome {
    int32_t status;
    char message[MESSAGE];
} outcome;

static int waited_in_vain(const outcome *o) {
    return strstr(o->message, "has not ended") != NULL;
}

/* The first rank that says why, else the first that waited for it; -1: all is well. */
static int rank_at_fault(const outcome *all, int ranks) {
    int fault = -1;
    for (int r = 0; r < ranks; r++)
        if (all[r].status != MDM_OK &&
            (fault < 0 || (waited_in_vain(&all[fault]) && !waited_in_vain(&all[r]))))
            fault = r;
    return fault;
}

/* Collective. Every rank's outcome of what the devices were asked; *sound tells whether to go on. */
static mdm_status compare(mdm_comm *comm, mdm_status status, mdm_findings *findings, int *sound) {
    int ranks = mdm_comm_size(comm);
    outcome mine, *all;
    memset(&mine, 0, sizeof mine);
    mine.status = status;
    if (status != MDM_OK) mdm_comm_name_rank(comm, mine.message, sizeof mine.message);
    char *advice = strstr(mine.message, ". Another rank"); /* is for trainings */
    if (advice) *advice = 0;
    MDM_TRY(mdm_comm_agree(comm, MDM_ALLOCATE(all, ranks, "the ranks' devices")));
    status = mdm_comm_all_gather(comm, &mine, sizeof mine, all, NULL, MDM_BYTE);
    int fault = status == MDM_OK ? rank_at_fault(all, ranks) : -1;
    *sound = status == MDM_OK && fault < 0;
    if (fault >= 0)
        mdm_findings_add(findings, MDM_FINDING_PROBLEM,
                         "NCCL_DEBUG=INFO tells what NCCL does; MDM_NCCL=off communicates by MPI instead, "
                         "device=cpu without GPUs",
                         "CUDA devices do not work together: %s", all[fault].message);
    free(all);
    return status;
}

static mdm_status sum_once(mdm_group *group, mdm_device *device, float *memory, float *host, float value,
                           double *seconds) {
    size_t bytes = ELEMENTS * sizeof *host;
    for (int i = 0; i < ELEMENTS; i++) host[i] = value;
    MDM_TRY(mdm_device_upload(device, memory, host, bytes));
    double start = mdm_seconds();
    MDM_TRY(mdm_group_all_reduce(group, memory, ELEMENTS, MDM_FLOAT, MDM_SUM));
    MDM_TRY(mdm_device_download(device, host, memory, sizeof *host)); /* waits */
    *seconds = mdm_seconds() - start;
    return mdm_device_download(device, host, memory, bytes);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median of this rank's times, and whether its sums were right. */
static mdm_status sum(mdm_comm *comm, mdm_group *group, mdm_device *device, float *host,
                      mdm_doctor_path *path) {
    double times[REPEATS + 1], ranks = mdm_comm_size(comm), expected = 0.5 * ranks * (ranks + 1);
    void *memory;
    MDM_TRY(mdm_group_reserve(group, ELEMENTS * sizeof *host));
    MDM_TRY(mdm_device_allocate(device, ELEMENTS * sizeof *host, "messages", &memory));
    mdm_status status = MDM_OK;
    path->right = 1;
    for (int i = 0; i <= REPEATS && status == MDM_OK; i++) {
        status = sum_once(group, device, memory, host, (float)(mdm_comm_rank(comm) + 1), &times[i]);
        for (int e = 0; e < ELEMENTS && status == MDM_OK; e++) path->right &= (double)host[e] == expected;
    }
    mdm_device_free(device, memory);
    qsort(times + 1, REPEATS, sizeof *times, by_value); /* the first one is for warming up */
    path->seconds = times[1 + REPEATS / 2];
    path->bytes = ELEMENTS * sizeof *host;
    return status;
}

static mdm_status try_sum(mdm_comm *comm, mdm_device *device, float *host, mdm_findings *findings,
                          mdm_doctor_path *path) {
    mdm_group *group = NULL;
    int sound;
    mdm_status status = mdm_group_create(comm, device, &group);
    if (status == MDM_OK) status = sum(comm, group, device, host, path);
    mdm_group_destroy(group);
    MDM_TRY(compare(comm, status, findings, &sound));
    int32_t right = path->right;
    if (!sound) {
        path->bytes = 0;
        return MDM_OK;
    }
    MDM_TRY(mdm_comm_all_reduce(comm, &right, 1, MDM_INT32, MDM_MIN));
    MDM_TRY(mdm_comm_all_reduce(comm, &path->seconds, 1, MDM_DOUBLE, MDM_MAX));
    path->right = right;
    if (!right)
        mdm_findings_add(findings, MDM_FINDING_PROBLEM,
                         "test the devices and the links between them; MDM_NCCL=off communicates by MPI",
                         "the sum over CUDA devices by %s gave wrong numbers", path->name);
    return MDM_OK;
}

mdm_status mdm_doctor_try_devices(mdm_comm *comm, float *host, mdm_findings *findings,
                                  mdm_doctor_path *path) {
    char why[256], how[MDM_GROUP_HOW];
    int32_t devices = mdm_device_count_cuda(why, sizeof why, NULL), least = devices;
    mdm_device *device = NULL;
    int sound;
    path->bytes = 0;
    MDM_TRY(mdm_comm_all_reduce(comm, &least, 1, MDM_INT32, MDM_MIN));
    if (least == 0 || mdm_comm_size(comm) == 1) return MDM_OK;
    mdm_status status = mdm_device_create_cuda(mdm_comm_node_rank(comm) % devices, 1, &device);
    MDM_TRY_OR(status, compare(comm, status, findings, &sound), release);
    if (!sound) goto release;
    MDM_TRY_OR(status, compare(comm, mdm_device_join(device, comm, how), findings, &sound), release);
    if (!sound) goto release;
    snprintf(path->name, sizeof path->name, "all-reduce, %.40s", how);
    if (strncmp(how, "NCCL", 4) == 0)
        status = try_sum(comm, device, host, findings, path);
    else
        mdm_findings_add(findings, MDM_FINDING_WARNING, "docs/gpu.md, Several ranks, tells what NCCL wants",
                         "CUDA devices communicate by %s", how);
release:
    mdm_device_destroy(device);
    return status;
}
