/* The run, told top to bottom.
 *
 * Pretraining (labels unused), first removal of out-of-distribution samples, robust warm-up; then, every few
 * epochs, the division into clean, noisy and removed samples, and MixEMatch training on it; after each epoch
 * the ensemble is tested and the state saved. Baselines, where asked for, come last.
 */
#include "mdm/base/log.h"
#include "mdm/base/watch.h"
#include "trainer.h"
#include <stdio.h>
#include <string.h>

enum { MOST_PLANS = 24 };

static mdm_status begin_training(mdm_trainer *t) {
    for (int n = 0; n < t->network_count; n++) {
        MDM_TRY(mdm_network_clear_velocity(t->networks[n]));
        if (t->averages[n]) MDM_TRY(mdm_network_copy(t->averages[n], t->networks[n]));
    }
    return mdm_remove_first(t);
}

static int divides_at(const mdm_trainer *t, int64_t epoch) {
    int warmup = t->config.train.warmup;
    return epoch >= warmup && (epoch == warmup || epoch % t->config.divide.interval == 0);
}

/* How long a division may give no sign of life: its neighbour search, at a billion operations a second. */
static double division_seconds(const mdm_trainer *t) {
    double n = (double)t->data->train_count, width = t->layout->embedding;
    return 120 + 2 * n * n * width / mdm_comm_size(t->comm) / 1e9;
}

/* What comes before an epoch's first step. */
static mdm_status open_epoch(mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    if (stage == MDM_STAGE_BASELINE_CE || stage == MDM_STAGE_BASELINE_SCE) {
        if (epoch > 0) return MDM_OK;
        mdm_network *fresh;
        MDM_TRY(mdm_network_create(t->layout, (uint64_t)t->config.seed, 0, &fresh));
        mdm_status status = mdm_network_copy(t->baseline, fresh);
        mdm_network_destroy(fresh);
        MDM_TRY(status);
        return mdm_network_clear_velocity(t->baseline);
    }
    if (stage != MDM_STAGE_PRETRAIN && epoch == 0) {
        mdm_watch_stage("divide", epoch, -1, division_seconds(t));
        MDM_TRY(begin_training(t));
    }
    if (stage == MDM_STAGE_SEMI && divides_at(t, epoch)) {
        mdm_watch_stage("divide", epoch, -1, division_seconds(t));
        MDM_TRY(mdm_divide(t, epoch));
    }
    return MDM_OK;
}

/* The best networks by a clean validation set are kept beside the last ones. */
static mdm_status validate_ensemble(mdm_trainer *t, mdm_network **networks, int64_t epoch, double *top1) {
    mdm_score score;
    MDM_TRY(mdm_evaluate_validation(t, networks, t->network_count, &score));
    *top1 = score.top1;
    if (score.top1 <= t->best_validation) return MDM_OK;
    t->best_validation = score.top1;
    t->best_validation_epoch = epoch;
    mdm_status status = MDM_OK;
    if (mdm_comm_rank(t->comm) == 0 && !t->options.dry_run) status = mdm_write_best(t);
    return mdm_comm_agree(t->comm, status);
}

static mdm_status validate_baseline(mdm_trainer *t, double *best, double *top1) {
    mdm_score score;
    MDM_TRY(mdm_evaluate_validation(t, &t->baseline, 1, &score));
    *top1 = score.top1;
    if (score.top1 > *best) *best = score.top1;
    return MDM_OK;
}

/* After a measurement: whether train.patience epochs after the warm-up brought no better validation accuracy.
 */
static int is_patience_over(const mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    int64_t since =
        t->best_validation_epoch > t->config.train.warmup ? t->best_validation_epoch : t->config.train.warmup;
    return stage == MDM_STAGE_SEMI && t->config.train.patience > 0 &&
           epoch - since >= t->config.train.patience;
}

static mdm_status test_ensemble(mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    mdm_network *networks[MDM_MOST_NETWORKS];
    double start = mdm_seconds();
    int baseline = stage == MDM_STAGE_BASELINE_CE || stage == MDM_STAGE_BASELINE_SCE;
    double *best = baseline ? &t->baseline_validation[stage == MDM_STAGE_BASELINE_SCE] : &t->best_validation;
    mdm_score score;
    for (int n = 0; n < t->network_count; n++) networks[n] = mdm_predicting_network(t, n);
    if (baseline) networks[0] = t->baseline;
    MDM_TRY(mdm_evaluate_test(t, networks, baseline ? 1 : t->network_count, &score));
    double validation = -1;
    MDM_TRY(baseline ? validate_baseline(t, best, &validation)
                     : validate_ensemble(t, networks, epoch, &validation));
    t->seconds[4] += mdm_seconds() - start;
    if (score.top1 < 0 && validation < 0) return MDM_OK;
    if (baseline) {
        t->baseline_score[stage == MDM_STAGE_BASELINE_SCE] = score;
    } else {
        t->latest = score;
        if (stage == MDM_STAGE_WARMUP) t->before_semi = score;
        if (score.top1 > t->best_top1) t->best_top1 = score.top1, t->best_epoch = epoch;
    }
    mdm_metrics_begin(t->metrics, "epoch");
    mdm_metrics_text(t->metrics, "stage", mdm_stage_name(stage));
    mdm_metrics_integer(t->metrics, "epoch", epoch);
    mdm_metrics_text(t->metrics, "network", baseline ? "baseline" : t->network_count > 1 ? "ensemble" : "a");
    if (score.top1 >= 0) {
        mdm_metrics_number(t->metrics, "test_top1", score.top1);
        mdm_metrics_number(t->metrics, "test_top5", score.top5);
    }
    if (validation >= 0) mdm_metrics_number(t->metrics, "validation_top1", validation);
    mdm_metrics_end(t->metrics);
    if (validation >= 0)
        mdm_info("%s epoch %lld: validation accuracy %.4f, best %.4f", mdm_stage_name(stage),
                 (long long)epoch + 1, validation, *best);
    if (score.top1 < 0) return MDM_OK;
    mdm_info("%s epoch %lld: test accuracy %.4f%s", mdm_stage_name(stage), (long long)epoch + 1, score.top1,
             baseline || t->network_count == 1 ? "" : " (ensemble)");
    return MDM_OK;
}

static int is_evaluated(const mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    int64_t unused;
    if (stage == MDM_STAGE_PRETRAIN) return 0;
    return (epoch + 1) % t->config.train.evaluate_every == 0 ||
           mdm_stage_of(t, t->place.position + 1, &unused) != stage;
}

/* What comes after an epoch's last step. The place moves on first, so that the checkpoint says where to
 * begin. */
static mdm_status close_epoch(mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    const int is_measured = is_evaluated(t, stage, epoch);
    if (is_measured) {
        mdm_watch_stage("evaluate", epoch, -1, 120);
        MDM_TRY(test_ensemble(t, stage, epoch));
    }
    t->place.position++;
    if (is_measured && is_patience_over(t, stage, epoch)) {
        t->place.position = t->config.pretrain.epochs + (int64_t)t->config.train.epochs;
        mdm_info("training ends after epoch %lld: no better validation accuracy in train.patience=%d epochs",
                 (long long)epoch + 1, t->config.train.patience);
    }
    int last = t->place.position == mdm_position_count(t);
    MDM_TRY(mdm_check_replicas(t));
    int32_t stop = mdm_signals_stop();
    MDM_TRY(mdm_comm_all_reduce(t->comm, &stop, 1, MDM_INT32, MDM_MAX));
    if (last || stop || t->place.position % t->config.checkpoint.every == 0)
        MDM_TRY(mdm_save_checkpoint(t, stop && !last));
    if (stop && !last)
        return mdm_fail(MDM_STOPPED, "stopped by a signal; the state is saved, start again to go on");
    return MDM_OK;
}

/* Events that cannot be written take nothing away from the run. */
static void open_events(mdm_trainer *t, int resumed) {
    if (mdm_comm_rank(t->comm) != 0 || t->options.dry_run) return;
    if (!t->config.tensorboard) {
        if (!resumed) mdm_events_remove(t->folder->path);
        return;
    }
    if (mdm_events_open(t->folder->path, &t->events) != MDM_OK)
        mdm_warn("there will be no events for TensorBoard: %s", mdm_last_message());
    mdm_metrics_set_observer(t->metrics, mdm_events_take, t->events);
}

/* After a streak of steps without finite numbers: once more from the last checkpoint, with half the rates. */
static mdm_status return_with_smaller_steps(mdm_trainer *t, mdm_status status) {
    char cause[512];
    int found = 0;
    int64_t skipped = t->guard.skipped, rollbacks = t->guard.rollbacks;
    snprintf(cause, sizeof cause, "%s", mdm_last_message());
    if (status != MDM_NUMERIC || t->guard.streak == 0 || rollbacks > 0 || t->options.dry_run) return status;
    mdm_log_set_warning_hook(NULL, NULL);
    mdm_events_close(t->events);
    t->events = NULL;
    MDM_TRY(mdm_return_to_checkpoint(t, &found));
    if (!found) return mdm_fail(status, "%s", cause);
    mdm_log_set_warning_hook(mdm_metrics_warning, t->metrics);
    open_events(t, 1);
    t->guard.skipped = skipped;
    t->guard.streak = 0;
    t->guard.rollbacks = rollbacks + 1;
    t->guard.rate_scale /= 2;
    mdm_warn("%s: going on from there with half the learning rates", cause);
    return MDM_OK;
}

/* Pictures that are read from files must stay what they were. */
static mdm_status check_data(mdm_trainer *t) {
    if (!t->on_device) MDM_TRY(mdm_store_check_unchanged(t->store));
    return t->validation ? mdm_store_check_unchanged(t->validation) : MDM_OK;
}

static mdm_status train(mdm_trainer *t) {
    int64_t epoch;
    for (mdm_stage stage = mdm_stage_of(t, t->place.position, &epoch); stage != MDM_STAGE_DONE;
         stage = mdm_stage_of(t, t->place.position, &epoch)) {
        MDM_TRY(check_data(t));
        int inside = t->place.network > 0 || t->place.step > 0; /* resumed in the middle of an epoch */
        if (!inside) MDM_TRY(open_epoch(t, stage, epoch));
        mdm_use_batchnorm_of(t, stage);
        mdm_status status = mdm_run_epoch(t, stage, epoch);
        if (status != MDM_OK) {
            MDM_TRY(return_with_smaller_steps(t, status));
            continue;
        }
        MDM_TRY(close_epoch(t, stage, epoch));
        mdm_executor_forget_beyond(t->executor, MOST_PLANS); /* the next epoch's steps may have other sizes */
    }
    return check_data(t);
}

/* One step of every stage, on the division that untrained networks give: at rates of 0, as a single step can
 * make networks diverge that more steps train well. */
static mdm_status rehearse(mdm_trainer *t) {
    int64_t positions[3] = {0, t->config.pretrain.epochs, t->config.pretrain.epochs + t->config.train.warmup};
    t->guard.rate_scale = 0;
    int count = t->config.train.warmup > 0 ? 3 : 2; /* without warm-up the last two are one */
    for (int i = t->config.pretrain.epochs > 0 ? 0 : 1; i < count; i++) {
        int64_t epoch;
        t->place.position = positions[i];
        mdm_stage stage = mdm_stage_of(t, positions[i], &epoch);
        if (i == 1) MDM_TRY(begin_training(t));
        if (stage == MDM_STAGE_SEMI) MDM_TRY(mdm_divide(t, epoch));
        if (stage == MDM_STAGE_DONE || stage >= MDM_STAGE_BASELINE_CE) continue;
        mdm_use_batchnorm_of(t, stage);
        MDM_TRY(mdm_run_epoch(t, stage, epoch));
        mdm_info("dry run: %s works", mdm_stage_name(stage));
    }
    return mdm_foresee_start(t);
}

static mdm_status run_opened(mdm_trainer *t) {
    int resumed = 0;
    mdm_watch_stage("load", -1, -1, 300);
    MDM_TRY(mdm_load_checkpoint(t, &resumed));
    t->has_saved =
        resumed && strcmp(t->config.resume, "auto") == 0; /* by a PATH it may come from elsewhere */
    if (!resumed && t->config.model.init[0]) MDM_TRY(mdm_take_initial_weights(t));
    MDM_TRY(mdm_begin_records(t));
    mdm_log_set_warning_hook(mdm_metrics_warning, t->metrics);
    mdm_warn_of_random_tensors(t);
    if (t->options.dry_run) return rehearse(t);
    open_events(t, resumed);
    MDM_TRY(mdm_comm_agree(t->comm, mdm_write_start(t, resumed)));
    int counts = mdm_comm_rank(t->comm) == 0 && t->place.position < mdm_position_count(t);
    MDM_TRY(mdm_comm_agree(t->comm, counts ? mdm_restarts_count(t) : MDM_OK));
    MDM_TRY(mdm_comm_agree(t->comm, counts ? mdm_prepare_saves(t) : MDM_OK));
    mdm_status status = train(t);
    (void)mdm_notice_saved(t, 1);
    if (counts && (status == MDM_OK || status == MDM_STOPPED)) mdm_restarts_forget(t);
    MDM_TRY(status);
    mdm_watch_stage("results", -1, -1, 300);
    return mdm_write_results(t);
}

mdm_status mdm_run(mdm_comm *comm, const mdm_config *config, const mdm_run_options *options) {
    mdm_trainer *t;
    mdm_signals_install();
    mdm_status status = mdm_trainer_open(comm, config, options, &t);
    if (status == MDM_OK) status = run_opened(t);
    mdm_log_set_warning_hook(NULL, NULL);
    char why[1024];
    snprintf(why, sizeof why, "%s", mdm_last_message());
    mdm_trainer_close(t); /* whose own failures, as those of a device that is lost, tell nothing new */
    return status == MDM_OK ? MDM_OK : mdm_fail(status, "%s", why);
}
