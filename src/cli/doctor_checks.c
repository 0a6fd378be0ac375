/* From what the ranks say of themselves to what is wrong and how to mend it. */
#include "doctor.h"
#include "mdm/base/machine.h"
#include "mdm/device/device.h"
#include <dirent.h>
#include <hdf5.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static const double mebibyte = 1024.0 * 1024.0;

void mdm_findings_add(mdm_findings *f, mdm_finding_level level, const char *cure, const char *format, ...) {
    va_list arguments;
    f->problems += level == MDM_FINDING_PROBLEM;
    if (f->count == MDM_MOST_FINDINGS) {
        f->left_out++;
        return;
    }
    mdm_finding *finding = &f->list[f->count++];
    finding->level = level;
    snprintf(finding->cure, sizeof finding->cure, "%s", cure);
    va_start(arguments, format);
    vsnprintf(finding->what, sizeof finding->what, format, arguments);
    va_end(arguments);
}

void mdm_doctor_cores(const cpu_set_t *cores, char *text, int size) {
    int used = 0;
    text[0] = 0;
    for (int i = 0; i < CPU_SETSIZE && used + 16 < size; i++) {
        int end = i;
        if (!CPU_ISSET(i, cores)) continue;
        while (end + 1 < CPU_SETSIZE && CPU_ISSET(end + 1, cores)) end++;
        used += snprintf(text + used, (size_t)(size - used), end > i ? "%s%d-%d" : "%s%d", used ? "," : "", i,
                         end);
        i = end;
    }
}

static double soft_limit(int resource) {
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return -1;
    return (double)limit.rlim_cur;
}

/* Device files nvidia0, nvidia1, ...: what the driver offers to this process. */
static int count_gpus(void) {
    DIR *folder = opendir("/dev");
    int count = 0;
    if (!folder) return 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count +=
            strncmp(entry->d_name, "nvidia", 6) == 0 && entry->d_name[6] >= '0' && entry->d_name[6] <= '9';
    closedir(folder);
    return count;
}

void mdm_doctor_describe(mdm_rank_account *a) {
    unsigned major = 0, minor = 0, release = 0;
    struct statvfs shared;
    struct stat program;
    mdm_device *device;
    const char *threads = getenv("OMP_NUM_THREADS");
    snprintf(a->program, sizeof a->program, "%s", MDM_VERSION);
    if (H5get_libversion(&major, &minor, &release) >= 0)
        snprintf(a->hdf5, sizeof a->hdf5, "%u.%u.%u", major, minor, release);
    if (mdm_device_create_cpu(1, 0, &device) == MDM_OK) {
        const mdm_device_info *info = mdm_device_get_info(device);
        snprintf(a->processor, sizeof a->processor, "%s", info->name);
        snprintf(a->instructions, sizeof a->instructions, "%s%s", info->instructions,
                 info->has_bf16 ? ", bf16" : "");
        snprintf(a->onednn, sizeof a->onednn, "%s", info->library);
        mdm_device_destroy(device);
    }
    CPU_ZERO(&a->cores);
    if (sched_getaffinity(0, sizeof a->cores, &a->cores) != 0) CPU_ZERO(&a->cores);
    a->machine_cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    a->omp_threads = threads ? (int32_t)strtol(threads, NULL, 10) : 0;
    if (mdm_check_environment() != MDM_OK)
        snprintf(a->environment, sizeof a->environment, "%s", mdm_last_message());
    a->process = (int32_t)getpid();
    a->gpus = count_gpus();
    a->cuda_devices = mdm_device_count_cuda(a->why_no_cuda, sizeof a->why_no_cuda, NULL);
    a->memory_limit = mdm_memory_limit(a->memory_source, sizeof a->memory_source);
    a->shared_memory_free =
        statvfs("/dev/shm", &shared) == 0 ? (double)shared.f_bavail * (double)shared.f_frsize : -1;
    a->descriptors = soft_limit(RLIMIT_NOFILE);
    a->stack = soft_limit(RLIMIT_STACK);
    a->program_bytes = stat("/proc/self/exe", &program) == 0 ? (double)program.st_size : -1;
    a->clock = (double)time(NULL);
}

static void judge_limits(const mdm_rank_account *a, mdm_findings *f) {
    const double shared_wanted = 32 * mebibyte * a->node_size;
    if (a->environment[0])
        mdm_findings_add(f, MDM_FINDING_PROBLEM, "give it such a value, or unset it", "rank %d on %s: %s",
                         a->rank, a->host, a->environment);
    if (a->descriptors >= 0 && a->descriptors < 256)
        mdm_findings_add(f, MDM_FINDING_PROBLEM, "ulimit -n 1024 before the start",
                         "rank %d on %s may open only %.0f files at once", a->rank, a->host, a->descriptors);
    if (a->stack >= 0 && a->stack < mebibyte)
        mdm_findings_add(f, MDM_FINDING_PROBLEM, "ulimit -s 8192 before the start",
                         "rank %d on %s has a stack of only %.0f KiB", a->rank, a->host, a->stack / 1024);
    if (a->node_rank == 0 && a->node_size > 1 && a->shared_memory_free >= 0 &&
        a->shared_memory_free < shared_wanted)
        mdm_findings_add(
            f, MDM_FINDING_PROBLEM,
            "remove old files from /dev/shm, or give a container more (docker run --shm-size=1g)",
            "/dev/shm on %s has %.0f MiB free; its %d ranks want %.0f MiB to talk through", a->host,
            a->shared_memory_free / mebibyte, a->node_size, shared_wanted / mebibyte);
    if (a->node_rank == 0 && a->memory_limit >= 0 && a->memory_limit < 512 * mebibyte * a->node_size)
        mdm_findings_add(f, MDM_FINDING_WARNING,
                         "ask for more memory, or start fewer ranks; CONFIG --dry-run tells the need",
                         "the %d ranks on %s may use %.0f MiB together (%s)", a->node_size, a->host,
                         a->memory_limit / mebibyte, a->memory_source);
    if (a->gpus > 0 && a->cuda_devices == 0 && a->node_rank == 0)
        mdm_findings_add(f, MDM_FINDING_WARNING,
                         "docs/gpu.md tells what is needed; otherwise it runs on the cores",
                         "%s has %d GPU%s that cannot be used: %s", a->host, a->gpus, a->gpus > 1 ? "s" : "",
                         a->why_no_cuda);
}

static int sharers(const mdm_rank_account *accounts, int ranks, int mine) {
    int count = 0;
    for (int r = 0; r < ranks; r++) {
        cpu_set_t both;
        CPU_AND(&both, &accounts[r].cores, &accounts[mine].cores);
        count += strcmp(accounts[r].host, accounts[mine].host) == 0 && CPU_COUNT(&both) > 0;
    }
    return count;
}

/* Too few cores, or the same ones as others: told once a node, for its first rank that has it so. */
static void judge_binding(const mdm_rank_account *all, int ranks, int r, mdm_findings *f) {
    const mdm_rank_account *a = &all[r];
    char cores[128];
    int own = CPU_COUNT(&a->cores), sharing = sharers(all, ranks, r);
    mdm_doctor_cores(&a->cores, cores, sizeof cores);
    if (a->node_rank != 0 || own == 0) return;
    if (own == 1 && a->machine_cores > a->node_size)
        mdm_findings_add(
            f, MDM_FINDING_WARNING,
            "mpirun --map-by slot:PE=n --bind-to core, or --bind-to none; srun -c n --cpu-bind=cores",
            "rank %d on %s may use core %s alone, of %d", a->rank, a->host, cores, a->machine_cores);
    if (sharing > own)
        mdm_findings_add(f, MDM_FINDING_WARNING, "start fewer ranks, or bind each to cores of its own",
                         "%d ranks on %s share the cores %s", sharing, a->host, cores);
    if (a->omp_threads > 0)
        mdm_findings_add(f, MDM_FINDING_WARNING, "unset OMP_NUM_THREADS; run.threads is the setting",
                         "OMP_NUM_THREADS=%d is set on %s, but threads follow the cores of each rank",
                         a->omp_threads, a->host);
}

static void compare(const mdm_rank_account *all, int ranks, size_t offset, const char *what,
                    mdm_finding_level level, mdm_findings *f) {
    const char *first = (const char *)&all[0] + offset;
    for (int r = 1; r < ranks; r++) {
        const char *other = (const char *)&all[r] + offset;
        if (strcmp(first, other) == 0) continue;
        mdm_findings_add(f, level, "start the same program with the same libraries on every host",
                         "%s differs: %s on rank 0 (%s), %s on rank %d (%s)", what, first, all[0].host, other,
                         r, all[r].host);
        return;
    }
}

static void compare_programs(const mdm_rank_account *all, int ranks, mdm_findings *f) {
    for (int r = 1; r < ranks; r++)
        if (all[r].program_bytes != all[0].program_bytes) {
            mdm_findings_add(
                f, MDM_FINDING_PROBLEM, "copy one build to every host, or use one on a shared file system",
                "the program is another one on rank %d (%s, %.0f bytes) than on rank 0 (%s, %.0f bytes)", r,
                all[r].host, all[r].program_bytes, all[0].host, all[0].program_bytes);
            return;
        }
}

void mdm_doctor_judge(const mdm_rank_account *all, int ranks, mdm_findings *f) {
    compare(all, ranks, offsetof(mdm_rank_account, program), "the version of mdm-dist", MDM_FINDING_PROBLEM,
            f);
    compare_programs(all, ranks, f);
    compare(all, ranks, offsetof(mdm_rank_account, mpi), "the MPI library", MDM_FINDING_PROBLEM, f);
    compare(all, ranks, offsetof(mdm_rank_account, hdf5), "HDF5", MDM_FINDING_PROBLEM, f);
    compare(all, ranks, offsetof(mdm_rank_account, onednn), "oneDNN", MDM_FINDING_WARNING, f);
    compare(all, ranks, offsetof(mdm_rank_account, instructions),
            "the instruction set (sums then round differently)", MDM_FINDING_WARNING, f);
    for (int r = 0; r < ranks; r++) {
        judge_limits(&all[r], f);
        judge_binding(all, ranks, r, f);
        if (all[r].clock - all[0].clock > 120 || all[0].clock - all[r].clock > 120)
            mdm_findings_add(f, MDM_FINDING_WARNING, "let the hosts keep their time by NTP",
                             "the clock of %s is %.0f s from that of %s", all[r].host,
                             all[r].clock - all[0].clock, all[0].host);
    }
}
