/* mdm-dist slurm [CONFIG] [key=value ...]: from settings and a wish for nodes and time to an sbatch file in
 * which every line is explained. Nothing is submitted. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/config.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct request {
    long long nodes, ranks, cpus, gpus, lead;
    const char *time, *memory, *partition, *account, *name, *config_file;
    int mpirun;
    char **argv;
    int argc;
} request;

/* A word of a shell command: as it is where that is safe, else in single quotes. */
static void put_word(const char *word) {
    int safe = *word != 0;
    for (const char *c = word; *c; c++)
        safe &= isalnum((unsigned char)*c) || strchr("_-./=:,+@%", *c) != NULL;
    if (safe) {
        fputs(word, stdout);
        return;
    }
    putchar('\'');
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*word);
    putchar('\'');
}

/* minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S, as Slurm reads them, in seconds; 0 is no limit. */
static mdm_status read_time(const char *text, double *seconds) {
    double parts[4] = {0};
    int digits = 0, colons = 0, dashes = 0, good = 1;
    for (const char *c = text; *c && good; c++) {
        if (isdigit((unsigned char)*c)) {
            parts[colons + dashes] = 10 * parts[colons + dashes] + *c - '0';
            digits++;
            continue;
        }
        good = digits > 0 && ((*c == ':' && colons < 2) || (*c == '-' && !dashes && !colons));
        colons += *c == ':';
        dashes += *c == '-';
        digits = 0;
    }
    *seconds = dashes        ? 86400 * parts[0] + 3600 * parts[1] + 60 * parts[2] + parts[3]
               : colons == 2 ? 3600 * parts[0] + 60 * parts[1] + parts[2]
                             : 60 * parts[0] + parts[1];
    if (good && digits > 0) return MDM_OK;
    return mdm_fail(MDM_USAGE,
                    "--time %s: expected minutes, H:MM:SS, D-HH or D-HH:MM:SS, as in 8:00:00 or 1-12", text);
}

/* The signal would come before the start. */
static mdm_status check_time(const request *r) {
    double seconds;
    MDM_TRY(read_time(r->time, &seconds));
    if (seconds == 0 || seconds > (double)r->lead) return MDM_OK;
    return mdm_fail(
        MDM_USAGE,
        "--time %s is %.0f seconds, and the run is to save --lead %lld seconds before its end; ask "
        "for more time, written as minutes or H:MM:SS, or for a shorter lead",
        r->time, seconds, r->lead);
}

/* Values that stand behind #SBATCH, where no shell reads them: one plain word each. */
static mdm_status check_plain(const char *option, const char *text) {
    if (!text) return MDM_OK;
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("_-.,+@:/", *c))
            return mdm_fail(MDM_USAGE, "%s %s: only letters, digits and _ - . , + @ : / may be in it", option,
                            text);
    return *text ? MDM_OK : mdm_fail(MDM_USAGE, "%s needs a value that is not empty", option);
}

static mdm_status read_request(int argc, char **argv, request *r) {
    mdm_arguments a;
    MDM_TRY(mdm_arguments_read("slurm", argc, argv, &a));
    MDM_TRY(mdm_arguments_integer(&a, "--nodes", 1, 100000, 1, &r->nodes));
    MDM_TRY(mdm_arguments_integer(&a, "--gpus", 0, 64, 0, &r->gpus));
    MDM_TRY(mdm_arguments_integer(&a, "--ranks", 1, 4096, r->gpus > 0 ? r->gpus : 1, &r->ranks));
    MDM_TRY(mdm_arguments_integer(&a, "--cpus", 1, 4096, 8, &r->cpus));
    MDM_TRY(mdm_arguments_integer(&a, "--lead", 10, 86400, 180, &r->lead));
    static const char *const names[] = {"--time", "--memory", "--partition", "--account", "--name"};
    const char **places[] = {&r->time, &r->memory, &r->partition, &r->account, &r->name};
    for (int i = 0; i < 5; i++) {
        *places[i] = mdm_arguments_get(&a, names[i]);
        MDM_TRY(check_plain(names[i], *places[i]));
    }
    if (!r->time) r->time = "24:00:00";
    if (!r->name) r->name = "mdm-dist";
    MDM_TRY(check_time(r));
    if (r->gpus > 0 && r->ranks > r->gpus)
        return mdm_fail(MDM_USAGE,
                        "--ranks %lld with --gpus %lld: one rank uses one GPU; ask for as many ranks as GPUs",
                        r->ranks, r->gpus);
    const char *launcher = mdm_arguments_get(&a, "--launcher");
    r->mpirun = launcher && strcmp(launcher, "mpirun") == 0;
    for (int i = 0; i < a.word_count; i++)
        if (!strchr(a.words[i], '=')) {
            if (r->config_file)
                return mdm_fail(MDM_USAGE, "two config files, %s and %s; give one", r->config_file,
                                a.words[i]);
            r->config_file = a.words[i];
        }
    return MDM_OK;
}

static void print_header(const request *r) {
    printf("#!/bin/bash\n"
           "# Made by: mdm-dist slurm");
    for (int i = 1; i < r->argc; i++) {
        putchar(' ');
        put_word(r->argv[i]);
    }
    printf("\n# Submit it from the folder that the paths below start in: sbatch THIS_FILE\n#\n"
           "# The name that squeue shows.\n#SBATCH --job-name=%s\n",
           r->name);
    if (r->partition) printf("# The partition.\n#SBATCH --partition=%s\n", r->partition);
    if (r->account) printf("# The account that pays.\n#SBATCH --account=%s\n", r->account);
    printf("# Nodes, ranks on each, cores of each rank. A rank starts as many threads as it has cores.\n"
           "#SBATCH --nodes=%lld\n#SBATCH --ntasks-per-node=%lld\n#SBATCH --cpus-per-task=%lld\n",
           r->nodes, r->ranks, r->cpus);
    if (r->gpus > 0)
        printf("# GPUs of each node, not of each task: every rank of a node must see all of them to talk to "
               "the others'\n"
               "# directly.\n#SBATCH --gpus-per-node=%lld\n",
               r->gpus);
    if (r->memory)
        printf(
            "# Memory of each node; mdm-dist CONFIG --dry-run tells what a rank needs.\n#SBATCH --mem=%s\n",
            r->memory);
    printf("# The time limit of one start. The run saves before it and goes on in the next start.\n#SBATCH "
           "--time=%s\n",
           r->time);
    if (r->mpirun)
        printf("# So many seconds before the limit Slurm tells this script (B:), which passes it on to "
               "mpirun: save and end\n"
               "# with 75. It may come up to a minute early.\n#SBATCH --signal=B:USR1@%lld\n",
               r->lead);
    else
        printf("# So many seconds before the limit Slurm tells every rank: save and end with 75. It may come "
               "up to a minute\n"
               "# early.\n#SBATCH --signal=USR1@%lld\n",
               r->lead);
    printf("# The job may be queued again, by this script or when a node fails, and adds to its old output "
           "then.\n"
           "#SBATCH --requeue\n#SBATCH --open-mode=append\n"
           "# One file for all ranks.\n#SBATCH --output=%s-%%j.log\n\n",
           r->name);
}

static void print_environment(void) {
    printf("# The program; MDM_DIST=/path/to/mdm-dist sbatch ... names another.\n"
           "program=${MDM_DIST:-mdm-dist}\n\n"
           "# When the allocation ends, in seconds since 1970: the run stops by itself in time even where "
           "the signal is lost.\n"
           "if [ -z \"${SLURM_JOB_END_TIME:-}\" ]; then\n"
           "    end=$(squeue --noheader --job \"$SLURM_JOB_ID\" --format=%%e 2>/dev/null) &&\n"
           "        SLURM_JOB_END_TIME=$(date -d \"$end\" +%%s 2>/dev/null) && export SLURM_JOB_END_TIME\n"
           "fi\n\n");
}

static void print_arguments(const request *r) {
    if (r->config_file) {
        printf(" \\\n    ");
        put_word(r->config_file);
    }
    for (int i = 1; i < r->argc; i++)
        if (r->argv[i][0] != '-' && strchr(r->argv[i], '=')) { /* no option's value may have a = in it */
            putchar(' ');
            put_word(r->argv[i]);
        }
}

static void print_start(const request *r) {
    if (r->mpirun) {
        printf("# mpirun finds nodes and ranks in the allocation. It runs in the background, because a shell "
               "answers signals only\n"
               "# between commands; each rank is bound to its own cores; the talking is left to mdm-dist.\n"
               "export OMPI_MCA_orte_execute_quiet=1\n"
               "mpirun --map-by \"slot:PE=${SLURM_CPUS_PER_TASK:-1}\" --bind-to core \"$program\"");
        print_arguments(r);
        printf(" &\njob=$!\n# Open MPI passes USR1 on to all ranks and waits; TERM it would follow by KILL "
               "after a second.\n"
               "trap 'kill -USR1 $job 2>/dev/null' USR1 TERM\n\n");
    } else {
        printf("# Since Slurm 22.05 srun does not take this over from the lines above by itself.\n"
               "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}\n"
               "# pmix is how the ranks find each other. It runs in the background, because a shell answers "
               "signals only between\n"
               "# commands; when one rank ends badly, all end; each rank is bound to its own cores.\n"
               "srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores \"$program\"");
        print_arguments(r);
        printf(" &\njob=$!\n# scancel --batch and node shutdowns signal this script alone: passed on as "
               "\"save and end\".\n"
               "trap 'scancel --signal=USR1 \"$SLURM_JOB_ID.0\" 2>/dev/null || kill -USR1 $job 2>/dev/null' "
               "USR1 TERM\n\n");
    }
    printf("# A signal ends a wait early, so it is repeated until the program is gone; the last one tells "
           "its exit code.\n"
           "wait $job\ncode=$?\n"
           "while kill -0 $job 2>/dev/null; do\n    wait $job\n    code=$?\ndone\n\n"
           "# 75: stopped with the state saved; the same job goes on from there. Everything else ends here: "
           "0 is done, and a run\n"
           "# that lost a rank without getting any further in three starts (6) must not start for ever.\n"
           "if [ $code -eq 75 ]; then\n"
           "    # scancel without a signal saves as well, but ends the job for good.\n"
           "    case $(squeue --noheader --states=all --job \"$SLURM_JOB_ID\" --format=%%T 2>/dev/null) in\n"
           "    COMPLETING* | CANCELLED*) exit $code ;;\n    esac\n"
           "    scontrol requeue \"$SLURM_JOB_ID\" && exit 0\nfi\nexit $code\n");
}

mdm_status mdm_command_slurm(int argc, char **argv) {
    request r = {.argc = argc, .argv = argv};
    mdm_config *config;
    MDM_TRY(read_request(argc, argv, &r));
    MDM_TRY(MDM_ALLOCATE(config, 1, "the configuration"));
    mdm_status status = mdm_command_read_config(argc, argv, r.config_file, config);
    if (status == MDM_OK) status = mdm_config_check_ranks(config, (int)(r.nodes * r.ranks));
    free(config);
    MDM_TRY(status);
    print_header(&r);
    print_environment();
    print_start(&r);
    return MDM_OK;
}
