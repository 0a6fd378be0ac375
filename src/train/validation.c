/* What the best networks are chosen by: the test pictures of a clean file, or a share of the training samples
 * that no stage trains on.
 *
 * A share is drawn class by class, by given label, so that even a small one has every class. Its labels are
 * as noisy as the others': accuracies on it are lower than on clean pictures, but their order tells as much
 * where noise does not favour one network (Chen et al. 2021, "Robustness of accuracy metric and its
 * inspirations in learning with noisy labels"). */
#include "mdm/base/log.h"
#include "trainer.h"
#include <stdlib.h>

/* Marks the share in t->held, class by class: after each class the total is the share of all samples so far,
 * rounded down. `members` [N] is scratch. */
static void mark_share(mdm_trainer *t, double fraction, int64_t *members) {
    const int32_t *given = mdm_store_labels(t->store, MDM_TRAIN);
    int64_t seen = 0, held = 0;
    for (int c = 0; c < t->data->classes; c++) {
        mdm_random random =
            mdm_random_stream((uint64_t)t->config.seed, MDM_RANDOM_VALIDATION, 0, (uint64_t)c, 0);
        int64_t count = 0;
        for (int64_t i = 0; i < t->data->train_count; i++)
            if (given[i] == c) members[count++] = i;
        mdm_random_shuffle(&random, members, count);
        seen += count;
        for (int64_t i = 0; held < (int64_t)((double)seen * fraction); i++, held++) t->held[members[i]] = 1;
    }
}

mdm_status mdm_hold_out(mdm_trainer *t) {
    int64_t samples = t->data->train_count;
    double fraction = 0;
    MDM_TRY(MDM_ALLOCATE(t->held, samples, "the samples' state"));
    MDM_TRY(MDM_ALLOCATE(t->training, samples, "the samples' state"));
    if (mdm_config_validation(&t->config, &fraction) == MDM_VALIDATION_FRACTION)
        mark_share(t, fraction, t->training);
    t->training_count = 0;
    for (int64_t i = 0; i < samples; i++)
        if (!t->held[i]) t->training[t->training_count++] = i;
    int64_t held = samples - t->training_count, place = t->training_count;
    for (int64_t i = 0; i < samples; i++) /* the held ones behind them: what validation reads */
        if (t->held[i]) t->training[place++] = i;
    if (fraction > 0 && held == 0)
        return mdm_fail(MDM_USAGE, "data.validation=%g of %lld samples is none; use a larger share", fraction,
                        (long long)samples);
    if (held > 0)
        mdm_info("%lld of %lld training samples are held out for validation; their given labels are as noisy "
                 "as the others",
                 (long long)held, (long long)samples);
    return MDM_OK;
}

mdm_status mdm_evaluate_validation(mdm_trainer *t, mdm_network **networks, int count, mdm_score *score) {
    score->top1 = score->top5 = -1;
    if (t->validation) {
        mdm_pictures clean = {t->validation, t->validation_views, MDM_TEST, NULL,
                              mdm_store_get_info(t->validation)->test_count};
        return mdm_evaluate_pictures(t, &clean, networks, count, score);
    }
    mdm_pictures held = {t->store, t->views, MDM_TRAIN, t->training + t->training_count,
                         t->data->train_count - t->training_count};
    return mdm_evaluate_pictures(t, &held, networks, count, score);
}
