/* From the run's figures and surroundings to two small JSON files, indented for people. */
#include "mdm/report/summary.h"

#include "mdm/base/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Variables that change what a run does or tell where it ran. Never tokens, paths of keys, or user names. */
static const char *const allowed[] = {"CUDA_DEVICE_ORDER",
                                      "CUDA_VISIBLE_DEVICES",
                                      "DNNL_MAX_CPU_ISA",
                                      "GOMP_CPU_AFFINITY",
                                      "HDF5_USE_FILE_LOCKING",
                                      "KMP_AFFINITY",
                                      "LANG",
                                      "LC_ALL",
                                      "NCCL_ALGO",
                                      "NCCL_DEBUG",
                                      "NCCL_IB_DISABLE",
                                      "NCCL_IB_HCA",
                                      "NCCL_NVLS_ENABLE",
                                      "NCCL_P2P_DISABLE",
                                      "NCCL_PROTO",
                                      "NCCL_SOCKET_IFNAME",
                                      "NVIDIA_TF32_OVERRIDE",
                                      "OMPI_COMM_WORLD_LOCAL_SIZE",
                                      "OMPI_COMM_WORLD_SIZE",
                                      "OMPI_MCA_btl",
                                      "OMPI_MCA_hwloc_base_binding_policy",
                                      "OMPI_MCA_pml",
                                      "OMP_DYNAMIC",
                                      "OMP_NUM_THREADS",
                                      "OMP_PLACES",
                                      "OMP_PROC_BIND",
                                      "OMP_SCHEDULE",
                                      "OMP_WAIT_POLICY",
                                      "OPENBLAS_CORETYPE",
                                      "OPENBLAS_NUM_THREADS",
                                      "SLURM_CLUSTER_NAME",
                                      "SLURM_CPUS_PER_TASK",
                                      "SLURM_GPUS_PER_NODE",
                                      "SLURM_JOB_ID",
                                      "SLURM_JOB_NAME",
                                      "SLURM_JOB_NODELIST",
                                      "SLURM_JOB_PARTITION",
                                      "SLURM_NNODES",
                                      "SLURM_NTASKS",
                                      "SLURM_RESTART_COUNT"};
enum { ALLOWED = sizeof allowed / sizeof *allowed };

/* A JSON object under construction: `first` saves the comma before its first member. */
typedef struct object {
    mdm_text *text;
    int depth, first;
} object;

static void add_name(object *o, const char *name) {
    mdm_text_add(o->text, "%s\n%*s", o->first ? "" : ",", 2 * o->depth, "");
    o->first = 0;
    mdm_text_add_json_string(o->text, name);
    mdm_text_add_bytes(o->text, ": ", 2);
}

static void add_text(object *o, const char *name, const char *value) {
    add_name(o, name);
    if (value)
        mdm_text_add_json_string(o->text, value);
    else
        mdm_text_add_bytes(o->text, "null", 4);
}

static void add_number(object *o, const char *name, double value) {
    add_name(o, name);
    mdm_text_add_json_number(o->text, value);
}

static void add_integer(object *o, const char *name, int64_t value) {
    add_name(o, name);
    mdm_text_add(o->text, "%" PRId64, value);
}

static object open_object(object *o, const char *name) {
    object inside = {o->text, o->depth + 1, 1};
    add_name(o, name);
    mdm_text_add_bytes(o->text, "{", 1);
    return inside;
}

static void close_object(object *o) {
    if (!o->first) mdm_text_add(o->text, "\n%*s", 2 * (o->depth - 1), "");
    mdm_text_add_bytes(o->text, "}", 1);
}

static mdm_status save(const char *path, mdm_text *text) {
    mdm_text_add_bytes(text, "\n", 1);
    mdm_status status = text->failed ? mdm_fail(MDM_RESOURCE, "not enough memory to put %s together", path)
                                     : mdm_write_file(path, text->data, text->length);
    free(text->data);
    return status;
}

static void add_networks(object *o, const char *name, const double *values, int networks) {
    object inside = open_object(o, name);
    add_number(&inside, "a", values[0]);
    if (networks > 1) add_number(&inside, "b", values[1]);
    close_object(&inside);
}

mdm_status mdm_summary_write(const char *path, const mdm_summary *s) {
    mdm_text text = {0};
    object all = {&text, 1, 1}, inside;
    mdm_text_add_bytes(&text, "{", 1);
    add_text(&all, "name", s->name);
    add_text(&all, "status", s->status);
    add_integer(&all, "epochs", s->epochs);
    add_number(&all, "final_top1", s->final_top1);
    add_number(&all, "final_top5", s->final_top5);
    add_number(&all, "best_top1", s->best_top1);
    if (s->best_epoch >= 0)
        add_integer(&all, "best_epoch", s->best_epoch);
    else
        add_text(&all, "best_epoch", NULL);
    if (s->best_validation_epoch >= 0) {
        add_number(&all, "best_validation_top1", s->best_validation_top1);
        add_integer(&all, "best_validation_epoch", s->best_validation_epoch);
        add_number(&all, "baseline_ce_best_validation_top1", s->baseline_ce_best_validation_top1);
        add_number(&all, "baseline_sce_best_validation_top1", s->baseline_sce_best_validation_top1);
    }
    add_number(&all, "before_semi_top1", s->before_semi_top1);
    add_number(&all, "baseline_ce_top1", s->baseline_ce_top1);
    add_number(&all, "baseline_sce_top1", s->baseline_sce_top1);
    add_networks(&all, "auc_noise", s->auc_noise, s->networks);
    add_networks(&all, "auc_ood", s->auc_ood, s->networks);
    add_number(&all, "seconds", s->seconds);
    inside = open_object(&all, "seconds_by_stage");
    add_number(&inside, "pretrain", s->seconds_pretrain);
    add_number(&inside, "warmup", s->seconds_warmup);
    add_number(&inside, "semi", s->seconds_semi);
    add_number(&inside, "divide", s->seconds_divide);
    add_number(&inside, "evaluate", s->seconds_evaluate);
    add_number(&inside, "baseline", s->seconds_baseline);
    close_object(&inside);
    add_number(&all, "images_per_s", s->images_per_s);
    add_integer(&all, "ranks", s->ranks);
    add_text(&all, "device", s->device);
    add_text(&all, "precision", s->precision);
    close_object(&all);
    return save(path, &text);
}

static void add_places(object *o, const mdm_environment *e) {
    add_name(o, "rank_places");
    mdm_text_add_bytes(o->text, "[", 1);
    for (int r = 0; r < e->ranks; r++) {
        mdm_text_add(o->text, "%s\n%*s{", r > 0 ? "," : "", 2 * (o->depth + 1), "");
        object inside = {o->text, o->depth + 2, 1};
        add_integer(&inside, "rank", r);
        add_text(&inside, "host", e->places[r].host);
        add_text(&inside, "device", e->places[r].device);
        add_text(&inside, "binding", e->places[r].binding);
        add_integer(&inside, "threads", e->places[r].threads);
        close_object(&inside);
    }
    mdm_text_add_bytes(o->text, "]", 1);
}

static int host_is_new(const mdm_environment *e, int rank) {
    for (int r = 0; r < rank; r++)
        if (e->places[r].host && e->places[rank].host && strcmp(e->places[r].host, e->places[rank].host) == 0)
            return 0;
    return 1;
}

static void add_list(object *o, const char *name, const char *const *values, int count) {
    int written = 0;
    add_name(o, name);
    mdm_text_add_bytes(o->text, "[", 1);
    for (int i = 0; i < count; i++) {
        if (!values[i]) continue;
        if (written++) mdm_text_add_bytes(o->text, ", ", 2);
        mdm_text_add_json_string(o->text, values[i]);
    }
    mdm_text_add_bytes(o->text, "]", 1);
}

mdm_status mdm_environment_write(const char *path, const mdm_environment *e) {
    mdm_text text = {0};
    object all = {&text, 1, 1}, inside;
    const char **hosts = NULL;
    int host_count = 0;
    MDM_TRY(MDM_ALLOCATE(hosts, e->ranks + 1, "the list of hosts"));
    for (int r = 0; r < e->ranks; r++)
        if (host_is_new(e, r)) hosts[host_count++] = e->places[r].host;
    mdm_text_add_bytes(&text, "{", 1);
    add_text(&all, "program_version", e->program_version);
    add_text(&all, "started", e->started);
    inside = open_object(&all, "versions");
    for (int i = 0; i < e->version_count; i++) add_text(&inside, e->versions[i].name, e->versions[i].version);
    close_object(&inside);
    add_list(&all, "command", e->arguments, e->argument_count);
    add_text(&all, "folder", e->folder);
    if (e->data_fingerprint) add_text(&all, "data_fingerprint", e->data_fingerprint);
    add_integer(&all, "ranks", e->ranks);
    add_list(&all, "hosts", hosts, host_count);
    add_places(&all, e);
    inside = open_object(&all, "environment");
    for (int i = 0; i < ALLOWED; i++)
        if (getenv(allowed[i])) add_text(&inside, allowed[i], getenv(allowed[i]));
    close_object(&inside);
    close_object(&all);
    free(hosts);
    return save(path, &text);
}
