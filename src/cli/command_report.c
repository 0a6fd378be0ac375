/* mdm-dist report RUN [RUN ...]: from run folders to a page for people. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/base/text.h"
#include "mdm/comm/comm.h"
#include "mdm/data/store.h"
#include "mdm/report/report.h"
#include "mdm/report/run_folder.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The run's data set by its own settings; `why` tells what is missing. Pictures stay in the file. */
static void open_data(mdm_comm *comm, const char *run, mdm_store **store, char *why, size_t size) {
    mdm_config *config = NULL;
    char *path = mdm_run_folder_member(run, MDM_RUN_CONFIG), quoted[512], data[MDM_CONFIG_TEXT];
    *store = NULL;
    snprintf(why, size, "config.yaml, which names the data set file, cannot be read");
    if (path && MDM_ALLOCATE(config, 1, "the configuration") == MDM_OK) {
        mdm_config_defaults(config);
        int readable = mdm_config_read_yaml(config, path) == MDM_OK;
        mdm_run_folder_data(run, config->data.train, data, sizeof data);
        if (readable && mdm_store_open(comm, data, MDM_RESIDENT_STREAM, store) != MDM_OK)
            snprintf(why, size, "the data set file cannot be read (%s)",
                     mdm_printable(mdm_last_message(), quoted, sizeof quoted));
        if (*store && !config->data.test[0]) /* whose pictures the fingerprint would count */
            mdm_run_folder_compare_data(run, data, mdm_store_get_info(*store)->fingerprint);
    }
    free(config);
    free(path);
}

static mdm_status report_one(mdm_comm *comm, const char *run, const char *out) {
    mdm_store *store;
    struct stat folder;
    char why[768], path[4096];
    if (stat(run, &folder) != 0 || !S_ISDIR(folder.st_mode))
        return mdm_fail(MDM_INPUT, "there is no run folder %s", run);
    open_data(comm, run, &store, why, sizeof why);
    if (!store) mdm_warn("%s: the report has no pictures and no true labels", why);
    mdm_status status = mdm_report_write(run, store, why, out);
    if (store) mdm_store_close(store);
    MDM_TRY(status);
    char *member = out ? NULL : mdm_run_folder_member(run, MDM_RUN_REPORT);
    snprintf(path, sizeof path, "%s", out ? out : member ? member : "report.html");
    free(member);
    puts(path);
    return MDM_OK;
}

mdm_status mdm_command_report(int argc, char **argv) {
    mdm_arguments a;
    mdm_comm *comm;
    MDM_TRY(mdm_arguments_read("report", argc, argv, &a));
    const char *out = mdm_arguments_get(&a, "--out");
    if (a.word_count == 0)
        return mdm_fail(MDM_USAGE, "report needs a run folder, as in mdm-dist report runs/quickstart");
    MDM_TRY(mdm_check_environment());
    if (a.word_count > 1) {
        if (!out) out = "comparison.html";
        MDM_TRY(mdm_report_compare(a.words, a.word_count, out));
        puts(out);
        return MDM_OK;
    }
    MDM_TRY(mdm_comm_start(&argc, &argv, &comm));
    mdm_status status = mdm_comm_size(comm) > 1
                            ? mdm_fail(MDM_USAGE, "report is made by one process; start it without mpirun")
                            : report_one(comm, a.words[0], out);
    mdm_command_leave(comm, status);
    mdm_comm_finish(comm);
    return status;
}
