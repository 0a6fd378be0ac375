/* mdm-dist doctor [RUN]: every rank tells what it has, messages of every kind are sent and checked, and rank
 * 0 says what is wrong and how to mend it. */
#include "commands.h"
#include "doctor.h"
#include "manual.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/comm/comm.h"
#include "mdm/report/run_folder.h"
#include "supervisor.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ELEMENTS = 1 << 20, REPEATS = 5, KINDS = 6, PATHS = KINDS + 1 };

typedef struct doctor {
    mdm_comm *comm;
    mdm_arguments arguments;
    const char *run;
    mdm_rank_account *accounts;
    mdm_findings findings;
    mdm_doctor_path paths[PATHS]; /* by MPI, then between CUDA devices where there are any */
    float *data, *other;
    int64_t *counts;
    char *failure; /* of the run, rank 0 */
} doctor;

static double sum_of_ranks(const doctor *d) {
    int ranks = mdm_comm_size(d->comm);
    return 0.5 * ranks * (ranks + 1);
}

static int all_are(const float *values, int64_t count, double expected) {
    for (int64_t i = 0; i < count; i++)
        if ((double)values[i] != expected) return 0;
    return 1;
}

static mdm_status send_reduce(doctor *d, int64_t count, int *right) {
    for (int64_t i = 0; i < count; i++) d->data[i] = (float)(mdm_comm_rank(d->comm) + 1);
    MDM_TRY(mdm_comm_all_reduce(d->comm, d->data, count, MDM_FLOAT, MDM_SUM));
    *right = all_are(d->data, count, sum_of_ranks(d));
    return MDM_OK;
}

static mdm_status send_buckets(doctor *d, int64_t count, int *right) {
    for (int64_t i = 0; i < count; i++) d->data[i] = (float)(mdm_comm_rank(d->comm) + 1);
    for (int b = 0; b < 4; b++) MDM_TRY(mdm_comm_reduce_start(d->comm, d->data + b * (count / 4), count / 4));
    MDM_TRY(mdm_comm_poll(d->comm));
    MDM_TRY(mdm_comm_reduce_wait(d->comm));
    *right = all_are(d->data, count / 4 * 4, sum_of_ranks(d));
    return MDM_OK;
}

static mdm_status send_ring(doctor *d, int64_t count, int *right) {
    int ranks = mdm_comm_size(d->comm), rank = mdm_comm_rank(d->comm);
    for (int64_t i = 0; i < count; i++) d->data[i] = (float)(rank + 1);
    MDM_TRY(mdm_comm_ring_start(d->comm, d->data, count * 4, d->other, count * 4));
    MDM_TRY(mdm_comm_ring_wait(d->comm));
    *right = all_are(d->other, count, (rank + ranks - 1) % ranks + 1);
    return MDM_OK;
}

static mdm_status send_gather(doctor *d, int64_t count, int *right) {
    int ranks = mdm_comm_size(d->comm), rank = mdm_comm_rank(d->comm);
    int64_t share = count / ranks;
    for (int r = 0; r < ranks; r++) d->counts[r] = share;
    for (int64_t i = 0; i < share; i++) d->data[i] = (float)(rank + 1);
    MDM_TRY(mdm_comm_all_gather(d->comm, d->data, share, d->other, d->counts, MDM_FLOAT));
    *right = 1;
    for (int r = 0; r < ranks; r++) *right &= all_are(d->other + r * share, share, r + 1);
    return MDM_OK;
}

static mdm_status send_scatter(doctor *d, int64_t count, int *right) {
    int ranks = mdm_comm_size(d->comm);
    int64_t share = count / ranks;
    for (int r = 0; r < ranks; r++) d->counts[r] = share;
    for (int64_t i = 0; i < share * ranks; i++) d->data[i] = (float)(mdm_comm_rank(d->comm) + 1);
    MDM_TRY(mdm_comm_reduce_scatter(d->comm, d->data, d->other, d->counts));
    *right = all_are(d->other, share, sum_of_ranks(d));
    return MDM_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sends on every path that training uses, checks what arrives, and takes the time of the slowest rank. */
static mdm_status try_paths(doctor *d) {
    static const struct {
        const char *name;
        int64_t count;
        mdm_status (*send)(doctor *d, int64_t count, int *right);
    } kinds[KINDS] = {{"all-reduce, one number", 1, send_reduce},
                      {"all-reduce", ELEMENTS, send_reduce},
                      {"all-reduce in the background", ELEMENTS, send_buckets},
                      {"ring", ELEMENTS, send_ring},
                      {"all-gather", ELEMENTS, send_gather},
                      {"reduce-scatter", ELEMENTS, send_scatter}};
    for (int p = 0; p < KINDS; p++) {
        double times[REPEATS];
        int32_t right = 1;
        for (int i = -1; i < REPEATS; i++) {
            int mine = 0;
            MDM_TRY(mdm_comm_barrier(d->comm));
            double start = mdm_seconds();
            MDM_TRY(kinds[p].send(d, kinds[p].count, &mine));
            double seconds = mdm_seconds() - start;
            MDM_TRY(mdm_comm_all_reduce(d->comm, &seconds, 1, MDM_DOUBLE, MDM_MAX));
            right &= mine;
            if (i >= 0) times[i] = seconds;
        }
        MDM_TRY(mdm_comm_all_reduce(d->comm, &right, 1, MDM_INT32, MDM_MIN));
        qsort(times, REPEATS, sizeof *times, by_value);
        snprintf(d->paths[p].name, sizeof d->paths[p].name, "%s", kinds[p].name);
        d->paths[p].bytes = kinds[p].count * 4;
        d->paths[p].seconds = times[REPEATS / 2];
        d->paths[p].right = right;
        if (!right)
            mdm_findings_add(
                &d->findings, MDM_FINDING_PROBLEM,
                "test the network and memory of the hosts; try OMPI_MCA_btl_vader_single_copy_mechanism=none",
                "%s between the ranks gave wrong numbers", kinds[p].name);
    }
    return MDM_OK;
}

static void look_at_run(doctor *d) {
    struct statvfs disk;
    struct stat folder;
    char who[256];
    if (stat(d->run, &folder) != 0 || !S_ISDIR(folder.st_mode)) {
        mdm_findings_add(&d->findings, MDM_FINDING_PROBLEM, "check the name and the current folder",
                         "there is no run folder %s", d->run);
        return;
    }
    if (access(d->run, W_OK | X_OK) != 0)
        mdm_findings_add(&d->findings, MDM_FINDING_PROBLEM,
                         "choose another with run=, or mend its permissions", "%s cannot be written into: %s",
                         d->run, strerror(errno));
    if (statvfs(d->run, &disk) == 0) {
        double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
        if (free_bytes < 1024.0 * 1024.0 * 1024.0)
            mdm_findings_add(
                &d->findings, MDM_FINDING_WARNING, "make room, or choose another place with run=",
                "%.0f MiB are free where %s is; a checkpoint takes 16 bytes a weight and network",
                free_bytes / 1048576.0, d->run);
    }
    if (mdm_run_folder_alive(d->run, who, sizeof who))
        mdm_findings_add(&d->findings, MDM_FINDING_WARNING,
                         "wait for it, or choose another folder with run=", "a run is alive in %s: %s",
                         d->run, who);
}

static mdm_status read_records(doctor *d) {
    if (!d->run || mdm_comm_rank(d->comm) != 0) return MDM_OK;
    d->failure = mdm_flight_describe(d->run);
    return d->failure ? MDM_OK : mdm_fail(MDM_RESOURCE, "out of memory");
}

static mdm_status examine(doctor *d) {
    int ranks = mdm_comm_size(d->comm);
    mdm_rank_account *mine;
    MDM_TRY(MDM_ALLOCATE(d->accounts, ranks + 1, "the ranks' accounts"));
    MDM_TRY(MDM_ALLOCATE(d->counts, ranks, "the ranks' accounts"));
    MDM_TRY(MDM_ALLOCATE(d->data, ELEMENTS, "messages"));
    MDM_TRY(MDM_ALLOCATE(d->other, ELEMENTS, "messages"));
    mine = &d->accounts[ranks];
    mdm_doctor_describe(mine);
    mine->rank = mdm_comm_rank(d->comm);
    mine->node_rank = mdm_comm_node_rank(d->comm);
    mine->node_size = mdm_comm_node_size(d->comm);
    snprintf(mine->host, sizeof mine->host, "%s", mdm_comm_host(d->comm));
    snprintf(mine->mpi, sizeof mine->mpi, "%s", mdm_comm_library(d->comm));
    for (int r = 0; r < ranks; r++) d->counts[r] = sizeof *mine;
    MDM_TRY(mdm_comm_all_gather(d->comm, mine, sizeof *mine, d->accounts, d->counts, MDM_BYTE));
    mdm_doctor_judge(d->accounts, ranks, &d->findings);
    MDM_TRY(try_paths(d));
    MDM_TRY(mdm_doctor_try_devices(d->comm, d->data, &d->findings, &d->paths[KINDS]));
    if (d->run && mdm_comm_rank(d->comm) == 0) look_at_run(d);
    MDM_TRY(read_records(d));
    return mdm_comm_broadcast(d->comm, &d->findings.problems, 1, MDM_INT32, 0);
}

static void print_text(const doctor *d) {
    int ranks = mdm_comm_size(d->comm);
    const mdm_rank_account *first = d->accounts;
    char cores[128];
    printf("mdm-dist %s, %s, HDF5 %s, %s\n", first->program, first->mpi, first->hdf5, first->onednn);
    printf("%d rank%s\n", ranks, ranks > 1 ? "s" : "");
    for (int r = 0; r < ranks; r++) {
        const mdm_rank_account *a = &d->accounts[r];
        mdm_doctor_cores(&a->cores, cores, sizeof cores);
        printf("  rank %-3d %s, process %d: cores %s of %d, %s (%s)", r, a->host, a->process, cores,
               a->machine_cores, a->processor, a->instructions);
        if (a->memory_limit >= 0) printf(", %.1f GiB memory", a->memory_limit / 1073741824.0);
        printf("\n");
    }
    printf("messages between them\n");
    for (int p = 0; p < PATHS; p++) {
        const mdm_doctor_path *path = &d->paths[p];
        if (path->bytes == 0) continue;
        printf("  %-30s %8lld bytes %10.3f ms", path->name, (long long)path->bytes, 1e3 * path->seconds);
        if (path->bytes > 1024 && path->seconds > 0)
            printf(" %8.2f GB/s", (double)path->bytes / path->seconds / 1e9);
        printf("  %s\n", path->right ? "right" : "WRONG");
    }
    if (d->failure) fputs(d->failure, stdout);
    for (int i = 0; i < d->findings.count; i++)
        printf("%s: %s\n  mend it: %s\n",
               d->findings.list[i].level == MDM_FINDING_PROBLEM ? "problem" : "warning",
               d->findings.list[i].what, d->findings.list[i].cure);
    if (d->findings.left_out) printf("and %d more findings\n", d->findings.left_out);
    printf(d->findings.problems ? "not sound\n" : "sound\n");
}

static void add_string(mdm_text *t, const char *name, const char *value) {
    mdm_text_add(t, "\"%s\":", name);
    mdm_text_add_json_string(t, value);
}

static void add_number(mdm_text *t, const char *name, double value) {
    mdm_text_add(t, ",\"%s\":", name);
    mdm_text_add_json_number(t, value);
}

static void add_place(mdm_text *t, const mdm_rank_account *a) {
    char cores[128];
    mdm_doctor_cores(&a->cores, cores, sizeof cores);
    mdm_text_add(t, "{\"rank\":%d,\"process\":%d,", a->rank, a->process);
    add_string(t, "host", a->host);
    mdm_text_add(t, ",");
    add_string(t, "cores", cores);
    mdm_text_add(t, ",\"machine_cores\":%d,\"gpus\":%d,", a->machine_cores, a->gpus);
    add_string(t, "device", a->processor);
    mdm_text_add(t, ",");
    add_string(t, "instructions", a->instructions);
    add_number(t, "memory_bytes", a->memory_limit);
    mdm_text_add(t, ",");
    add_string(t, "memory_limit_from", a->memory_source);
    add_number(t, "shared_memory_free_bytes", a->shared_memory_free);
    add_number(t, "descriptors", a->descriptors);
    mdm_text_add(t, "}");
}

static mdm_status print_json(const doctor *d) {
    mdm_text t = {0};
    const mdm_rank_account *first = d->accounts;
    mdm_text_add(&t, "{\"sound\":%s,\"ranks\":%d,\"versions\":{", d->findings.problems ? "false" : "true",
                 mdm_comm_size(d->comm));
    const char *names[] = {"mdm-dist", "MPI", "HDF5", "oneDNN"};
    const char *values[] = {first->program, first->mpi, first->hdf5, first->onednn};
    for (int i = 0; i < 4; i++) {
        if (i) mdm_text_add(&t, ",");
        add_string(&t, names[i], values[i]);
    }
    mdm_text_add(&t, "},\"places\":[");
    for (int r = 0; r < mdm_comm_size(d->comm); r++) {
        if (r) mdm_text_add(&t, ",");
        add_place(&t, &d->accounts[r]);
    }
    mdm_text_add(&t, "],\"paths\":[");
    for (int p = 0; p < PATHS; p++) {
        if (d->paths[p].bytes == 0) continue;
        mdm_text_add(&t, p ? ",{" : "{");
        add_string(&t, "path", d->paths[p].name);
        mdm_text_add(&t, ",\"bytes\":%lld", (long long)d->paths[p].bytes);
        add_number(&t, "median_ms", 1e3 * d->paths[p].seconds);
        mdm_text_add(&t, ",\"right\":%s}", d->paths[p].right ? "true" : "false");
    }
    mdm_text_add(&t, "],\"findings\":[");
    for (int i = 0; i < d->findings.count; i++) {
        const mdm_finding *f = &d->findings.list[i];
        mdm_text_add(&t, i ? ",{" : "{");
        add_string(&t, "level", f->level == MDM_FINDING_PROBLEM ? "problem" : "warning");
        mdm_text_add(&t, ",");
        add_string(&t, "what", f->what);
        mdm_text_add(&t, ",");
        add_string(&t, "cure", f->cure);
        mdm_text_add(&t, "}");
    }
    mdm_text_add(&t, "]");
    if (d->failure) {
        mdm_text_add(&t, ",");
        add_string(&t, "failure", d->failure);
    }
    mdm_text_add(&t, "}");
    if (t.failed) {
        free(t.data);
        return mdm_fail(MDM_RESOURCE, "out of memory");
    }
    puts(t.data);
    free(t.data);
    return MDM_OK;
}

static mdm_status report(const doctor *d) {
    if (mdm_comm_rank(d->comm) == 0) {
        if (mdm_arguments_get(&d->arguments, "--json"))
            MDM_TRY(print_json(d));
        else
            print_text(d);
        fflush(stdout);
    }
    if (d->findings.problems == 0) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "%d problem%s would stop a run; each is listed above with its cure",
                    d->findings.problems, d->findings.problems > 1 ? "s" : "");
}

mdm_status mdm_command_doctor(int argc, char **argv) {
    doctor *d;
    MDM_TRY(MDM_ALLOCATE(d, 1, "the doctor"));
    mdm_status status = mdm_arguments_read("doctor", argc, argv, &d->arguments);
    if (status == MDM_OK && d->arguments.word_count > 1)
        status = mdm_fail(MDM_USAGE, "doctor takes one run folder; %s is one name too many",
                          d->arguments.words[1]);
    if (status == MDM_OK && d->arguments.word_count > 0) d->run = d->arguments.words[0];
    if (status == MDM_OK) status = mdm_comm_start(&argc, &argv, &d->comm);
    if (status == MDM_OK) {
        mdm_log_set_rank(mdm_comm_rank(d->comm), mdm_comm_size(d->comm));
        status = mdm_comm_agree(d->comm, examine(d));
        if (status == MDM_OK) status = report(d);
        mdm_command_leave(d->comm, status);
        mdm_comm_finish(d->comm);
    }
    free(d->failure);
    free(d->accounts);
    free(d->counts);
    free(d->data);
    free(d->other);
    free(d);
    return status;
}
