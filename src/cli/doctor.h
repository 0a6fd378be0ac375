/* What doctor knows of every rank, and what it concludes. */
#ifndef MDM_CLI_DOCTOR_H
#define MDM_CLI_DOCTOR_H

#include "mdm/comm/comm.h"
#include <sched.h>
#include <stdint.h>

/* One rank's account of itself: fixed size, so that it can be gathered. Sizes in bytes; negative: unknown. */
typedef struct mdm_rank_account {
    char host[64], processor[128], instructions[64];
    char program[32], mpi[128], hdf5[32], onednn[64];
    char memory_source[160];
    cpu_set_t cores;
    int32_t rank, process, node_rank, node_size, machine_cores;
    int32_t gpus, cuda_devices; /* that the driver offers; that this program can use, */
    char why_no_cuda[160];      /* or why there are none */
    int32_t omp_threads;        /* OMP_NUM_THREADS; 0: not set */
    char environment[200];      /* what is wrong with an MDM_... variable; empty: nothing */
    double memory_limit, shared_memory_free, descriptors, stack, program_bytes, clock;
} mdm_rank_account;

typedef enum mdm_finding_level { MDM_FINDING_WARNING, MDM_FINDING_PROBLEM } mdm_finding_level;
typedef struct mdm_finding {
    mdm_finding_level level;
    char what[400], cure[240];
} mdm_finding;

enum { MDM_MOST_FINDINGS = 64 };
typedef struct mdm_findings {
    mdm_finding list[MDM_MOST_FINDINGS];
    int count, problems, left_out;
} mdm_findings;

void mdm_findings_add(mdm_findings *findings, mdm_finding_level level, const char *cure, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

/* A way that messages between ranks take, as it was tried. */
typedef struct mdm_doctor_path {
    char name[64];
    int64_t bytes;  /* 0: not tried */
    double seconds; /* median, of the slowest rank */
    int right;      /* on all ranks */
} mdm_doctor_path;

/* Collective. Where every rank has a CUDA device: sums over them by NCCL, into `path`. `host` is room for 4
 * MiB. A rank that fails, or waits in vain for two minutes, is a finding that names it. */
MDM_MUST_CHECK mdm_status mdm_doctor_try_devices(mdm_comm *comm, float *host, mdm_findings *findings,
                                                 mdm_doctor_path *path);

/* Judges all ranks' accounts [ranks]: limits, bindings, and what must be the same everywhere. */
void mdm_doctor_judge(const mdm_rank_account *accounts, int ranks, mdm_findings *findings);

/* Fills this process's account but for rank and host. */
void mdm_doctor_describe(mdm_rank_account *account);

/* "0-3,8" */
void mdm_doctor_cores(const cpu_set_t *cores, char *text, int size);

#endif
