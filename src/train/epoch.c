/* One epoch of one stage: steps of every network, with progress, agreed signals, saves and the epoch's
 * metrics. */
#include "mdm/base/log.h"
#include "mdm/base/watch.h"
#include "trainer.h"
#include <stdio.h>
#include <string.h>

/* How long a step may give no sign of life at least: the first one of a stage, of which nothing is known yet;
 * the first of an epoch, which may plan new sizes; and the others. */
enum { FIRST_STEP_SECONDS = 900, NEXT_EPOCH_SECONDS = 120, STEP_SECONDS = 30 };
/* Why to stop; any rank's reason holds, the greater one. */
enum { GOES_ON, SIGNAL_CAME, TIME_IS_UP };

static const mdm_stage_methods *methods_of(mdm_stage stage) {
    if (stage == MDM_STAGE_PRETRAIN) return &mdm_pretrain_methods;
    if (stage == MDM_STAGE_WARMUP) return &mdm_warmup_methods;
    return stage == MDM_STAGE_SEMI ? &mdm_semi_methods : &mdm_baseline_methods;
}

static int networks_in(const mdm_trainer *t, mdm_stage stage) {
    return stage == MDM_STAGE_BASELINE_CE || stage == MDM_STAGE_BASELINE_SCE ? 1 : t->network_count;
}

static void add_report(mdm_place *place, const mdm_step_report *report) {
    double rows = (double)report->rows;
    place->sums[0] += report->loss * rows;
    for (int i = 0; i < MDM_PART_COUNT; i++) place->sums[1 + i] += report->parts[i] * rows;
    place->sums[1 + MDM_PART_COUNT] += report->confident * rows;
    place->rows += rows;
}

/* Parts of the loss that the stage computes. */
static int has_part(const mdm_trainer *t, mdm_stage stage, int part) {
    const mdm_semi_options o = mdm_semi_options_of(&t->config);
    if (stage == MDM_STAGE_PRETRAIN) return part == MDM_PART_CONTRAST;
    if (stage != MDM_STAGE_SEMI || part == MDM_PART_X) return part == MDM_PART_X;
    return part == MDM_PART_U || part == MDM_PART_BALANCE || mdm_semi_has_strong_pass(&o);
}

static void write_epoch_event(mdm_trainer *t, mdm_stage stage, int64_t epoch, double images_per_s) {
    static const char *const part_names[MDM_PART_COUNT] = {"loss_x",  "loss_u",        "loss_xe",
                                                           "loss_ue", "loss_contrast", "loss_balance"};
    const mdm_place *p = &t->place;
    char network[2] = {(char)('a' + p->network), 0};
    int pretrain = stage == MDM_STAGE_PRETRAIN;
    mdm_metrics_begin(t->metrics, "epoch");
    mdm_metrics_text(t->metrics, "stage", mdm_stage_name(stage));
    mdm_metrics_integer(t->metrics, "epoch", epoch);
    mdm_metrics_text(t->metrics, "network", network);
    mdm_metrics_number(t->metrics, "loss", p->rows > 0 ? p->sums[0] / p->rows : NAN);
    for (int i = 0; i < MDM_PART_COUNT; i++)
        if (has_part(t, stage, i))
            mdm_metrics_number(t->metrics, part_names[i], p->rows > 0 ? p->sums[1 + i] / p->rows : NAN);
    if (stage == MDM_STAGE_SEMI)
        mdm_metrics_number(t->metrics, "confident",
                           p->rows > 0 ? p->sums[1 + MDM_PART_COUNT] / p->rows : NAN);
    double epochs = t->config.train.epochs;
    mdm_metrics_number(t->metrics, "lr_backbone",
                       pretrain ? t->config.pretrain.lr
                                : mdm_cosine_rate(t->config.train.lr_backbone, (double)epoch, epochs));
    mdm_metrics_number(t->metrics, "lr_head",
                       pretrain ? t->config.pretrain.lr
                                : mdm_cosine_rate(t->config.train.lr_head, (double)epoch, epochs));
    mdm_metrics_number(t->metrics, "images_per_s", images_per_s);
    mdm_metrics_number(t->metrics, "seconds", p->seconds);
    if (mdm_comm_size(t->comm) > 1) {
        mdm_metrics_integer(t->metrics, "slowest_rank", t->pace.slowest);
        mdm_metrics_number(t->metrics, "slowest_rank_speed", t->pace.speed);
    }
    mdm_metrics_end(t->metrics);
}

/* What the ranks agree on after every step: whether to stop, whether to save. */
static mdm_status agree_on_signals(mdm_trainer *t, int *stop, int *save) {
    int32_t flags[2] = {mdm_signals_stop() ? SIGNAL_CAME : GOES_ON, mdm_signals_take_save()};
    double minutes = t->config.checkpoint.minutes;
    if (minutes > 0 && mdm_comm_rank(t->comm) == 0 && mdm_seconds() - t->last_save > 60.0 * minutes)
        flags[1] = 1;
    /* Before a time limit: half a minute to leave in, two saves, and what may lie between two agreements, a
     * division for example. */
    double now = mdm_seconds();
    if (t->last_agreed > 0 && now - t->last_agreed > t->longest_gap) t->longest_gap = now - t->last_agreed;
    t->last_agreed = now;
    if (mdm_comm_rank(t->comm) == 0 &&
        mdm_signals_time_is_up(30 + 1.25 * t->longest_gap + 2 * t->longest_save))
        flags[0] = TIME_IS_UP;
    MDM_TRY(mdm_comm_all_reduce(t->comm, flags, 2, MDM_INT32, MDM_MAX));
    *stop = flags[0];
    *save = flags[1];
    return MDM_OK;
}

static mdm_status after_step(mdm_trainer *t) {
    int stop, save;
    MDM_TRY(agree_on_signals(t, &stop, &save));
    (void)mdm_notice_saved(t, 0);
    if (stop || save) MDM_TRY(mdm_save_checkpoint(t, stop));
    if (stop)
        return mdm_fail(MDM_STOPPED, "stopped %s; the state is saved, start again to go on",
                        stop == TIME_IS_UP ? "before the time limit" : "by a signal");
    return MDM_OK;
}

static mdm_status average_weights(mdm_trainer *t, int network) {
    if (!t->averages[network]) return MDM_OK;
    return mdm_network_average(t->device, t->averages[network], t->networks[network],
                               (float)t->config.model.ema);
}

void mdm_shuffle_samples(const mdm_trainer *t, mdm_random *random, int64_t *samples, int64_t count) {
    if (t->config.data.shuffle == MDM_CONFIG_SHUFFLE_BLOCKS)
        mdm_random_shuffle_blocks(random, samples, count, mdm_store_block(t->store), MDM_STORE_WINDOW);
    else
        mdm_random_shuffle(random, samples, count);
}

mdm_status mdm_load_step(mdm_trainer *t, int64_t count) {
    double start = mdm_seconds();
    mdm_status status = mdm_views_load(t->views, MDM_TRAIN, t->sample_list, count);
    t->pace.reading += mdm_seconds() - start;
    MDM_TRY(status);
    return mdm_views_announce(t->views, MDM_TRAIN, t->next_list, t->next_count);
}

mdm_status mdm_make_views(mdm_trainer *t) {
    double start = mdm_seconds();
    mdm_status status = mdm_views_make_asked(t->views);
    t->pace.views += mdm_seconds() - start;
    return status;
}

/* Pictures that have to be read or sent are announced a step ahead; others need no list. */
static void list_next_step(mdm_trainer *t, const mdm_stage_methods *methods, int network, int64_t epoch) {
    int64_t next = t->place.step + 1;
    t->next_count = 0;
    if (mdm_views_read_ahead(t->views) && next < t->steps)
        t->next_count = methods->list(t, network, epoch, next, t->next_list);
}

/* The rest of one network's epoch. */
static mdm_status run_network(mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    const mdm_stage_methods *methods = methods_of(stage);
    mdm_place *p = &t->place;
    int network = (int)p->network;
    double images = 0, start = mdm_seconds(), earlier = p->seconds;
    int stage_clock = stage == MDM_STAGE_PRETRAIN ? 0
                      : stage == MDM_STAGE_WARMUP ? 1
                      : stage == MDM_STAGE_SEMI   ? 2
                                                  : 5;
    int seen = t->seen_stages >> stage & 1;
    mdm_watch_stage(mdm_stage_name(stage), epoch, network, seen ? NEXT_EPOCH_SECONDS : FIRST_STEP_SECONDS);
    t->seen_stages |= 1 << stage;
    MDM_TRY(methods->prepare(t, network, epoch));
    MDM_TRY(mdm_recorder_begin(t->recorder));
    mdm_pace_begin(t);
    t->first_step = p->step;
    while (p->step < t->steps) {
        mdm_step_report report;
        memset(&report, 0, sizeof report);
        list_next_step(t, methods, network, epoch);
        MDM_TRY(methods->step(t, network, epoch, p->step, &report));
        if (!report.skipped) {
            if (stage == MDM_STAGE_WARMUP || stage == MDM_STAGE_SEMI) MDM_TRY(average_weights(t, network));
            add_report(p, &report);
        }
        images += (double)report.images;
        if (stage_clock != 5) t->images += (double)report.images;
        p->step++;
        mdm_watch_step(p->step);
        mdm_watch_floor(STEP_SECONDS);
        p->seconds = earlier + mdm_seconds() - start;
        mdm_show_progress(t, stage, epoch, images, mdm_seconds() - start);
        if (p->step < t->steps || t->options.dry_run) MDM_TRY(after_step(t));
        if (t->options.dry_run) break;
    }
    const double taken = mdm_seconds() - start;
    t->seconds[stage_clock] += earlier + taken;
    if (t->first_step == 0) mdm_count_pass(t, stage, taken);
    int is_baseline = stage >= MDM_STAGE_BASELINE_CE;
    MDM_TRY(mdm_executor_agree_statistics(t->executor, is_baseline ? t->baseline : t->networks[network]));
    if (!is_baseline && t->averages[network])
        MDM_TRY(mdm_executor_agree_statistics(t->executor, t->averages[network]));
    MDM_TRY(mdm_pace_compare(t));
    write_epoch_event(t, stage, epoch, taken > 0 ? images / taken : NAN);
    return MDM_OK;
}

mdm_status mdm_run_epoch(mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    for (; t->place.network < networks_in(t, stage); t->place.network++) {
        MDM_TRY(run_network(t, stage, epoch));
        t->place.step = 0;
        t->place.rows = t->place.seconds = 0;
        memset(t->place.sums, 0, sizeof t->place.sums);
    }
    t->place.network = 0;
    return MDM_OK;
}
