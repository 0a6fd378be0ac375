/* The start from a weights file (model.init), and which statistics batch norm uses in each stage. */
#include "mdm/base/log.h"
#include "mdm/train/weights.h"
#include "trainer.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void tell_table(const mdm_trainer *t, mdm_text *table) {
    if (table->failed || !table->data) return;
    if (t->options.dry_run) {
        fwrite(table->data, 1, table->length, stdout);
        fflush(stdout);
    }
    char *rest = table->data;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n"))
        if (*line) mdm_info("%s", line);
}

/* A frozen batch norm needs every statistic of a trained start. */
static mdm_status check_statistics(const mdm_trainer *t, const mdm_weights_fit *fit) {
    if (t->config.train.batchnorm != MDM_CONFIG_BATCHNORM_FROZEN || t->config.pretrain.epochs > 0 ||
        fit->statistics_missing == 0)
        return MDM_OK;
    return mdm_fail(
        MDM_INPUT,
        "train.batchnorm is frozen, but model.init=%s lacks %d running statistics of the encoder; "
        "use train.batchnorm=sync, or set pretrain.epochs above 0",
        t->config.model.init, fit->statistics_missing);
}

static mdm_status load_on_rank_0(mdm_trainer *t) {
    if (access(t->config.model.init, F_OK) != 0)
        return mdm_fail(MDM_INPUT, "model.init=%s: %s", t->config.model.init, strerror(errno));
    for (int n = 0; n < t->network_count; n++) {
        mdm_text table = {0};
        mdm_weights_fit fit;
        mdm_status status = mdm_weights_fit_file(t->networks[n], t->config.model.init, &table, &fit);
        if (n == 0) tell_table(t, &table); /* the other network takes the same */
        free(table.data);
        if (status == MDM_OK && n == 0) status = check_statistics(t, &fit);
        MDM_TRY(status);
        t->random_tensors = fit.encoder_count - fit.encoder_fitted;
        t->encoder_tensors = fit.encoder_count;
    }
    return MDM_OK;
}

mdm_status mdm_take_initial_weights(mdm_trainer *t) {
    MDM_TRY(mdm_comm_agree(t->comm, mdm_comm_rank(t->comm) == 0 ? load_on_rank_0(t) : MDM_OK));
    for (int n = 0; n < t->network_count; n++) {
        mdm_network *network = t->networks[n];
        MDM_TRY(mdm_network_fetch(network));
        MDM_TRY(mdm_comm_broadcast(t->comm, network->weights, t->layout->weight_count, MDM_FLOAT, 0));
        MDM_TRY(mdm_comm_broadcast(t->comm, network->statistics, t->layout->statistic_count, MDM_FLOAT, 0));
        mdm_network_touch(network);
    }
    return MDM_OK;
}

void mdm_warn_of_random_tensors(const mdm_trainer *t) {
    if (t->random_tensors > 0)
        mdm_warn("model.init=%s: %d of %d tensors of the encoder begin with random numbers",
                 t->config.model.init, t->random_tensors, t->encoder_tensors);
}

void mdm_use_batchnorm_of(mdm_trainer *t, mdm_stage stage) {
    static const mdm_batchnorm modes[] = {MDM_BATCHNORM_SYNC, MDM_BATCHNORM_LOCAL, MDM_BATCHNORM_FROZEN};
    mdm_batchnorm mode = modes[t->config.train.batchnorm];
    int trained_start = stage == MDM_STAGE_WARMUP || stage == MDM_STAGE_SEMI;
    if (mode == MDM_BATCHNORM_FROZEN && !trained_start) mode = MDM_BATCHNORM_SYNC;
    mdm_executor_set_batchnorm(t->executor, mode);
}
