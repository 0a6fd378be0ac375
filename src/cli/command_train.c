/* mdm-dist [train] [CONFIG.yaml] [key=value ...]: settings from the file and the arguments, then the run. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/config.h"
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/base/watch.h"
#include "mdm/comm/comm.h"
#include "mdm/data/import.h"
#include "mdm/data/noise.h"
#include "mdm/train/run.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int told_already;

int mdm_command_was_told(void) {
    return told_already;
}

void mdm_command_leave(mdm_comm *comm, mdm_status status) {
    char line[1400];
    if (status != MDM_OK &&
        !mdm_comm_all_fail(comm, 2.0)) { /* this rank's own failure: the others must not wait for it */
        mdm_comm_name_rank(comm, line, sizeof line);
        if (mdm_watch_claim(mdm_watch_page_get(), line)) mdm_error("%s", line);
        mdm_watch_told((int)status);
        mdm_comm_abort(comm, (int)status);
    }
    /* Now, while all ranks are still there: the launcher ends the others as soon as one has left with an
     * error, and would end rank 0 with its line unsaid. */
    if (status == MDM_LOST && mdm_comm_size(comm) == 1) { /* which host lost its device */
        mdm_comm_name_rank(comm, line, sizeof line);
        mdm_error("%s", line);
    } else if (status != MDM_OK && mdm_comm_rank(comm) == 0 && mdm_last_message()[0])
        mdm_error("%s", mdm_last_message());
    told_already = 1;
}

typedef struct request {
    const char *config_file;
    int help_config, print_config;
    mdm_run_options options;
} request;

/* A word without a dash and without '=': the config file, or a slip that is near it. */
static mdm_status take_config_file(request *r, const char *word) {
    for (int i = 0; i < mdm_config_key_count(); i++)
        if (strcmp(word, mdm_config_key_at(i)->name) == 0)
            return mdm_fail(MDM_USAGE, "the key %s is given without a value; write %s=VALUE", word, word);
    size_t length = strlen(word);
    if (length > 3 && strcmp(word + length - 3, ".h5") == 0)
        return mdm_fail(MDM_USAGE, "%s is a data set, not a config file; write data.train=%s", word, word);
    if (r->config_file)
        return mdm_fail(MDM_USAGE, "two config files, %s and %s; give one", r->config_file, word);
    r->config_file = word;
    return MDM_OK;
}

static mdm_status read_options(int argc, char **argv, request *r) {
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--help-config") == 0)
            r->help_config = 1;
        else if (strcmp(a, "--print-config") == 0)
            r->print_config = 1;
        else if (strcmp(a, "--dry-run") == 0)
            r->options.dry_run = 1;
        else if (strcmp(a, "--force") == 0)
            r->options.force = 1;
        else if (a[0] == '-')
            return mdm_manual_refuse_option("train", a);
        else if (!strchr(a, '=')) {
            MDM_TRY(take_config_file(r, a));
        }
    }
    return MDM_OK;
}

mdm_status mdm_command_read_config(int argc, char **argv, const char *file, mdm_config *config) {
    mdm_config_defaults(config);
    if (file)
        MDM_TRY(mdm_config_read_yaml(config, file));
    else
        MDM_TRY(mdm_config_quickstart(config));
    for (int i = 1; i < argc; i++)
        if (argv[i][0] != '-' && strchr(argv[i], '=')) MDM_TRY(mdm_config_set(config, argv[i]));
    char *run = config->run.folder; /* RUN/ is RUN: in summary.json, and before the names of its files */
    for (size_t end = strlen(run); end > 1 && run[end - 1] == '/'; end--) run[end - 1] = 0;
    return mdm_config_check(config);
}

static mdm_status print_config(const mdm_config *config) {
    mdm_text text = {0};
    mdm_config_write(config, &text);
    if (text.failed) return mdm_fail(MDM_RESOURCE, "out of memory");
    fwrite(text.data, 1, text.length, stdout);
    free(text.data);
    return MDM_OK;
}

/* The built-in quickstart makes its data set from Debian's Fashion-MNIST when it is not there: of 1000
 * samples in 8 classes 20 % show one of the two others, and the labels of 40 % are drawn anew
 * (launch/quickstart.sh does the same by commands). */
static mdm_status make_quickstart_data(const mdm_config *config) {
    static const int held_out[2] = {8, 9};
    static const char source[] = "/usr/share/datasets/fashion-mnist";
    mdm_noise_options options = {
        .samples = 1000, .symmetric = 0.4, .ood = 0.2, .hold_out = held_out, .hold_out_count = 2, .seed = 1};
    mdm_noise_counts counts;
    mdm_dataset *clean = NULL, *noisy = NULL;
    char folder[MDM_CONFIG_TEXT];
    const char *path = config->data.train;
    mdm_config built_in;
    MDM_TRY(mdm_config_quickstart(&built_in));
    /* a file of the user's own that is missing must stay missing, not become another data set */
    if (strcmp(path, built_in.data.train) != 0 || access(path, F_OK) == 0) return MDM_OK;
    if (access(source, F_OK) != 0)
        return mdm_fail(MDM_INPUT,
                        "the quickstart needs %s (apt-get install dataset-fashion-mnist), or name a CONFIG",
                        source);
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash) {
        *slash = 0;
        MDM_TRY(mdm_make_folders(folder));
    }
    mdm_info("making %s from %s", path, source);
    mdm_status status = mdm_import_idx(source, &clean);
    if (status == MDM_OK) status = mdm_noise_make(clean, &options, &noisy, &counts);
    if (status == MDM_OK) status = mdm_dataset_write(path, noisy, 0);
    mdm_dataset_destroy(clean);
    mdm_dataset_destroy(noisy);
    return status;
}

/* The settings are read on rank 0 alone and sent, so that all ranks have the same even if the file changes
 * meanwhile. */
static mdm_status run_under_mpi(mdm_comm *comm, int argc, char **argv, request *r) {
    mdm_config *config;
    mdm_status status = MDM_OK;
    MDM_TRY(mdm_comm_agree(comm, mdm_check_environment()));
    MDM_TRY(MDM_ALLOCATE(config, 1, "the configuration"));
    if (mdm_comm_rank(comm) == 0) status = mdm_command_read_config(argc, argv, r->config_file, config);
    if (mdm_comm_rank(comm) == 0 && status == MDM_OK && !r->config_file)
        status = make_quickstart_data(config);
    status = mdm_comm_agree(comm, status);
    if (status == MDM_OK) status = mdm_comm_broadcast(comm, config, sizeof *config, MDM_BYTE, 0);
    if (status == MDM_OK) status = mdm_run(comm, config, &r->options);
    free(config);
    return status;
}

mdm_status mdm_command_train(int argc, char **argv) {
    request r = {.options = {.argument_count = argc, .arguments = argv}};
    MDM_TRY(read_options(argc, argv, &r));
    if (r.help_config) {
        mdm_config_help(stdout);
        return MDM_OK;
    }
    if (r.print_config) {
        mdm_config *config;
        MDM_TRY(MDM_ALLOCATE(config, 1, "the configuration"));
        mdm_status status = mdm_command_read_config(argc, argv, r.config_file, config);
        if (status == MDM_OK) status = print_config(config);
        free(config);
        return status;
    }
    mdm_comm *comm;
    MDM_TRY(mdm_comm_start(&argc, &argv, &comm));
    mdm_log_set_rank(mdm_comm_rank(comm), mdm_comm_size(comm));
    mdm_status status = run_under_mpi(comm, argc, argv, &r);
    mdm_command_leave(comm, status);
    mdm_comm_finish(comm);
    return status;
}
