/* mdm-dist: the commands. Arguments in, exit code out; the only place that ends the program. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/log.h"
#include "supervisor.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What each command says about itself is in manual_table.c. */
typedef struct command {
    const char *name;
    mdm_status (*run)(int argc, char **argv);
} command;

static const command commands[] = {
    {"train", mdm_command_train},           {"data", mdm_command_data},     {"eval", mdm_command_eval},
    {"predict", mdm_command_predict},       {"export", mdm_command_export}, {"bench", mdm_command_bench},
    {"doctor", mdm_command_doctor},         {"status", mdm_command_status}, {"slurm", mdm_command_slurm},
    {"completion", mdm_command_completion}, {"man", mdm_command_man},       {"report", mdm_command_report},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

/* A first word that is neither a command, a file nor key=value is a typing error. */
static mdm_status check_first_word(const char *word) {
    if (strchr(word, '=') || strchr(word, '.') || strchr(word, '/') || word[0] == '-') return MDM_OK;
    return mdm_manual_refuse_command(word);
}

static int asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return 1;
    return 0;
}

/* --help anywhere prints the page of what the other words name: a command, a group of them, or else train.
 * 0 when a command has no page in the table. */
static int print_help(int argc, char **argv) {
    int group;
    const char *first = argc > 1 ? argv[1] : "";
    if (argc == 2) {
        mdm_manual_print_overview(stdout);
        return 1;
    }
    const mdm_manual *page = mdm_manual_find(first, argc > 2 ? argv[2] : NULL, &group);
    if (page)
        mdm_manual_print(stdout, page);
    else if (group)
        mdm_manual_print_group(stdout, first);
    else if (check_first_word(first) == MDM_OK)
        mdm_manual_print(stdout, mdm_manual_find("train", NULL, &group));
    else
        return 0;
    return 1;
}

static mdm_status run(int argc, char **argv) {
    if (asks_for_help(argc, argv) && print_help(argc, argv)) return MDM_OK;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("mdm-dist %s\n", MDM_VERSION);
        return MDM_OK;
    }
    for (int i = 0; argc > 1 && i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    if (argc > 1) MDM_TRY(check_first_word(argv[1]));
    return mdm_command_train(argc, argv);
}

/* Idle threads of the OpenMP library spin by default, which on a shared machine takes the cores from those
 * that work (measured: up to 7 times slower steps). The library reads its setting when it is loaded, so the
 * program starts itself once more. */
static void start_with_sleeping_threads(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0) execv("/proc/self/exe", argv); /* on failure: as it is */
}

/* Whether this command line starts a training; the other commands are short and need nobody to watch them. */
static int trains(int argc, char **argv) {
    static const char *const short_ones[] = {"--help", "-h", "--version", "--help-config", "--print-config"};
    for (int i = 1; i < argc; i++)
        for (size_t s = 0; s < sizeof short_ones / sizeof *short_ones; s++)
            if (strcmp(argv[i], short_ones[s]) == 0) return 0;
    for (int i = 0; argc > 1 && i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run == mdm_command_train;
    return 1;
}

/* Results that did not reach stdout, on a full disk above all, must not pass for a success. A reader that has
 * seen enough is no failure. */
static mdm_status check_stdout(mdm_status status) {
    errno = 0;
    int lost = fflush(stdout) != 0 || ferror(stdout);
    if (!lost || errno == EPIPE || status != MDM_OK) return status;
    mdm_error("the results could not be written to stdout%s%s", errno ? ": " : "",
              errno ? strerror(errno) : "");
    return MDM_RESOURCE;
}

int main(int argc, char **argv) {
    umask(umask(0) | S_IWOTH); /* nothing that is written is for everybody to change */
    start_with_sleeping_threads(argv);
    if (trains(argc, argv)) mdm_supervise();
    mdm_status status = run(argc, argv);
    if (status != MDM_OK && mdm_last_message()[0] && !mdm_command_was_told())
        mdm_error("%s", mdm_last_message());
    return (int)check_stdout(status);
}
