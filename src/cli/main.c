/* mdm-dist: the commands. Arguments in, exit code out; the only place that ends the program. */
#include "commands.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct command {
    const char *name, *summary;
    mdm_status (*run)(int argc, char **argv);
} command;

static const command commands[] = {
    {"train", "train on a noisy data set (the default command)", mdm_command_train},
    {"data", "import, noise, info: make and look at data set files", mdm_command_data},
    {"eval", "accuracy, per class and confused, of a run's networks", mdm_command_eval},
    {"predict", "class, confidence and out-of-distribution flag of new pictures", mdm_command_predict},
    {"export", "weights, cleaned labels and lists for other programs", mdm_command_export},
    {"bench", "measure steps, KNN, GMM, augmentation, all-reduce", mdm_command_bench},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out) {
    fprintf(out, "mdm-dist %s: learning from badly labelled pictures (Manifold DivideMix)\n\n", MDM_VERSION);
    fprintf(out,
            "  mdm-dist [CONFIG.yaml] [key=value ...]     train; without CONFIG the built-in quickstart\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  mdm-dist %-8s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n  --help, COMMAND --help, --version, train --help-config\n\n"
                 "Examples:\n"
                 "  mdm-dist data import /usr/share/datasets/fashion-mnist fashion.h5\n"
                 "  mdm-dist data noise fashion.h5 noisy.h5 --symmetric 0.4 --seed 1\n"
                 "  mpirun -np 4 mdm-dist configs/template.yaml data.train=noisy.h5 train.epochs=50\n\n"
                 "Exit codes: 0 done, 2 usage or config, 3 bad input file, 4 resource, 5 numbers went bad, 6 "
                 "a rank was lost,\n"
                 "75 stopped by a signal with the state saved.\n");
}

/* A first word that is neither a command, a file nor key=value is a typing error. */
static mdm_status check_first_word(const char *word) {
    const char *names[COMMANDS];
    if (strchr(word, '=') || strchr(word, '.') || strchr(word, '/') || word[0] == '-') return MDM_OK;
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    const char *near = mdm_nearest_name(word, names, COMMANDS);
    return mdm_fail(MDM_USAGE, "there is no command '%s'%s%s%s; mdm-dist --help lists them", word,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'" : "");
}

static mdm_status run(int argc, char **argv) {
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help(stdout);
        return MDM_OK;
    }
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

int main(int argc, char **argv) {
    start_with_sleeping_threads(argv);
    mdm_status status = run(argc, argv);
    if (status != MDM_OK && mdm_last_message()[0] && !mdm_command_was_told())
        mdm_error("%s", mdm_last_message());
    return (int)status;
}
