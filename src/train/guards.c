/* Guards against numbers that went bad: a step whose loss or gradient is not finite, or a spike, is skipped
 * on all ranks (by the device itself, whose optimizer reads the verdict; the host learns of it with the
 * loss), a streak of the former goes back to the last checkpoint once with half the learning rates, and
 * replicas are compared before anything is saved. */
#include "mdm/base/log.h"
#include "mdm/device/losses.h"
#include "trainer.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { LONGEST_STREAK = 8 };
/* t->result: this rank's part of the loss, then everybody's; the rest is the same on all ranks. */
enum { PART, LOSS, SQUARE, VERDICT, RESULTS };

mdm_status mdm_guard_create(mdm_trainer *t) {
    t->guard.rate_scale = 1;
    MDM_TRY(mdm_device_allocate(t->device, sizeof(double) * RESULTS, "a step's loss", (void **)&t->result));
    return mdm_device_allocate(t->device, sizeof(float) * (size_t)t->layout->statistic_count,
                               "running statistics", (void **)&t->guard.statistics);
}

mdm_status mdm_guard_begin_step(mdm_trainer *t, mdm_network *network, double rate_encoder, double rate_heads,
                                mdm_step_orders *orders) {
    memset(orders, 0, sizeof *orders);
    mdm_spike_limits(t, &orders->square_limit, &orders->loss_limit);
    orders->rate_encoder = (float)(rate_encoder * t->guard.rate_scale);
    orders->rate_heads = (float)(rate_heads * t->guard.rate_scale);
    return mdm_network_send(network, t->device);
}

void mdm_guard_queue_begin(mdm_trainer *t, const mdm_network *network) {
    mdm_network_save_statistics(t->device, network, t->guard.statistics);
}

mdm_status mdm_guard_queue_end(mdm_trainer *t, mdm_network *network, int roles, const mdm_step_orders *orders,
                               double momentum, double weight_decay) {
    const mdm_step_judgement judgement = {.terms = {{&t->result[PART], NULL, 1.0f}},
                                          .count = 1,
                                          .square = &t->result[SQUARE],
                                          .orders = orders,
                                          .loss = &t->result[LOSS],
                                          .verdict = &t->result[VERDICT]};
    MDM_TRY(mdm_group_all_reduce(mdm_executor_group(t->executor), &t->result[PART], 1, MDM_DOUBLE, MDM_SUM));
    mdm_network_square_gradient(t->device, network, &t->result[SQUARE]);
    mdm_judge_step(t->device, &judgement);
    mdm_network_step(t->device, network, roles, orders, &t->result[VERDICT], (float)momentum,
                     (float)weight_decay);
    return MDM_OK;
}

/* The optimizer has left weights and momentum as they were. */
static void undo_step(mdm_trainer *t, mdm_network *network) {
    mdm_network_restore_statistics(t->device, network, t->guard.statistics);
}

static void name_step(mdm_trainer *t, const char *what, const char *of) {
    int64_t epoch;
    mdm_stage stage = mdm_stage_of(t, t->place.position, &epoch);
    snprintf(t->guard.cause, sizeof t->guard.cause, "%s epoch %lld, step %lld of network %c: %s%s",
             mdm_stage_name(stage), (long long)epoch + 1, (long long)t->place.step + 1,
             'a' + (int)t->place.network, what, of);
}

static mdm_status skip_step(mdm_trainer *t, mdm_network *network, double loss, double gradient_square) {
    const char *tensor = NULL;
    if (!isfinite(gradient_square)) {
        MDM_TRY(mdm_network_fetch(network));
        tensor = mdm_network_bad_gradient(network);
    }
    t->guard.skipped++;
    t->guard.streak++;
    name_step(t, tensor ? "the gradient is not finite, first in " : "the loss is not finite",
              tensor ? tensor : "");
    undo_step(t, network);
    mdm_warn("%s; the step is skipped (%lld so far; loss %g)", t->guard.cause, (long long)t->guard.skipped,
             loss);
    if (t->guard.streak < LONGEST_STREAK) return MDM_OK;
    return mdm_fail(MDM_NUMERIC,
                    "%d steps in a row had no finite numbers (%s); lower train.lr_backbone, "
                    "train.lr_head or pretrain.lr; the last checkpoint stands",
                    LONGEST_STREAK, t->guard.cause);
}

mdm_status mdm_guard_collect(mdm_trainer *t, mdm_network *network, double *loss, int *skipped) {
    double result[RESULTS];
    MDM_TRY(mdm_device_download(t->device, result, t->result, sizeof result));
    *loss = result[LOSS];
    return mdm_guard_end_step(t, network, result[LOSS], result[SQUARE], (int)result[VERDICT], skipped);
}

mdm_status mdm_guard_end_step(mdm_trainer *t, mdm_network *network, double loss, double gradient_square,
                              int verdict, int *skipped) {
    char spike[128];
    *skipped = verdict != MDM_STEP_IS_SOUND;
    if (verdict == MDM_STEP_IS_NOT_FINITE) return skip_step(t, network, loss, gradient_square);
    t->guard.streak = 0;
    if (verdict == MDM_STEP_IS_SOUND) {
        mdm_spike_remember(t, gradient_square, loss);
        return MDM_OK;
    }
    mdm_spike_count(t, gradient_square, spike, sizeof spike);
    undo_step(t, network);
    name_step(t, spike, "");
    mdm_warn("%s; the step is skipped (spike %.0f so far; loss %g)", t->guard.cause, t->spikes.total, loss);
    return MDM_OK;
}

mdm_status mdm_fetch_networks(mdm_trainer *t) {
    for (int n = 0; n < t->network_count; n++) {
        MDM_TRY(mdm_network_fetch(t->networks[n]));
        if (t->averages[n]) MDM_TRY(mdm_network_fetch(t->averages[n]));
    }
    return t->baseline ? mdm_network_fetch(t->baseline) : MDM_OK;
}

/* All that must be the same on every rank. Local batch norm has statistics of its own inside an epoch. */
static uint64_t hash_of(const mdm_trainer *t, mdm_network *const *networks, int count) {
    XXH64_state_t *state = XXH64_createState();
    if (!state) return 0;
    XXH64_reset(state, 0);
    for (int i = 0; i < count; i++) {
        const mdm_network *n = networks[i];
        if (!n) continue;
        size_t weights = sizeof(float) * (size_t)t->layout->weight_count;
        XXH64_update(state, n->weights, weights);
        XXH64_update(state, n->velocity, weights);
        if (t->config.train.batchnorm != MDM_CONFIG_BATCHNORM_LOCAL)
            XXH64_update(state, n->statistics, sizeof(float) * (size_t)t->layout->statistic_count);
    }
    uint64_t hash = XXH64_digest(state);
    XXH64_freeState(state);
    return hash;
}

/* The lowest rank whose hash is not the most frequent one; -1: all are alike. */
static int differing_rank(const int64_t *hash, int ranks, int *is_majority) {
    int best = 0, most = 0;
    for (int r = 0; r < ranks; r++) {
        int same = 0;
        for (int other = 0; other < ranks; other++) same += hash[other] == hash[r];
        if (same > most) best = r, most = same;
    }
    *is_majority = 2 * most > ranks;
    for (int r = 0; r < ranks; r++)
        if (hash[r] != hash[best]) return r;
    return -1;
}

mdm_status mdm_check_replicas(mdm_trainer *t) {
    int ranks = mdm_comm_size(t->comm), is_majority;
    int64_t *hash, mine;
    if (ranks == 1) return MDM_OK;
    MDM_TRY(mdm_comm_agree(t->comm, mdm_fetch_networks(t)));
    mdm_network *networks[] = {t->networks[0], t->networks[1], t->averages[0], t->averages[1], t->baseline};
    uint64_t value = hash_of(t, networks, sizeof networks / sizeof *networks);
    memcpy(&mine, &value, sizeof mine);
    MDM_TRY(MDM_ALLOCATE(hash, ranks, "the replicas' hashes"));
    mdm_status status = mdm_comm_all_gather(t->comm, &mine, 1, hash, NULL, MDM_INT64);
    int rank = status == MDM_OK ? differing_rank(hash, ranks, &is_majority) : -1;
    free(hash);
    MDM_TRY(status);
    if (rank < 0) return MDM_OK;
    if (!is_majority)
        return mdm_fail(MDM_NUMERIC,
                        "the weights of the ranks differ since the last check: memory or a link is "
                        "faulty; the last checkpoint stands, start again, on other nodes if it returns");
    return mdm_fail(
        MDM_NUMERIC,
        "the weights of rank %d differ from the other ranks' since the last check: memory or a link of "
        "its node is faulty; the last checkpoint stands, start again without that node",
        rank);
}

mdm_status mdm_check_weights(mdm_trainer *t) {
    MDM_TRY(mdm_fetch_networks(t));
    mdm_network *networks[] = {t->networks[0], t->networks[1], t->averages[0], t->averages[1], t->baseline};
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        const char *tensor;
        if (networks[i] && mdm_network_not_finite(networks[i], &tensor))
            return mdm_fail(MDM_NUMERIC,
                            "%s is not finite, so that this state is not saved; lower train.lr_backbone, "
                            "train.lr_head or pretrain.lr; the last checkpoint stands",
                            tensor);
    }
    return MDM_OK;
}
