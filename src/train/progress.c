/* How far the run is, for the people who wait: the progress line, with the time left of the stage and of the
 * run.
 *
 * A pass is one network's epoch. What a pass of a stage takes is what its passes took so far in this process;
 * a stage that has not begun is reckoned from the present one, and the run's time is then only a guess. */
#include "trainer.h"

#include "mdm/base/log.h"

#include <math.h>
#include <stdio.h>

static int64_t passes_of(const mdm_trainer *t, mdm_stage stage) {
    const mdm_config *c = &t->config;
    int both = c->baseline == MDM_CONFIG_BASELINE_BOTH;
    switch (stage) {
    case MDM_STAGE_PRETRAIN:
        return (int64_t)c->pretrain.epochs * t->network_count;
    case MDM_STAGE_WARMUP:
        return (int64_t)c->train.warmup * t->network_count;
    case MDM_STAGE_SEMI:
        return (int64_t)(c->train.epochs - c->train.warmup) * t->network_count;
    case MDM_STAGE_BASELINE_CE:
        return both || c->baseline == MDM_CONFIG_BASELINE_CE ? c->train.epochs : 0;
    case MDM_STAGE_BASELINE_SCE:
        return both || c->baseline == MDM_CONFIG_BASELINE_SCE ? c->train.epochs : 0;
    case MDM_STAGE_DONE:
        break;
    }
    return 0;
}

/* Whole passes of the stage that lie behind the present place. */
static int64_t passes_behind(const mdm_trainer *t, mdm_stage stage, int64_t epoch) {
    if (stage >= MDM_STAGE_BASELINE_CE) return epoch;
    int64_t before = stage == MDM_STAGE_SEMI ? t->config.train.warmup : 0;
    return (epoch - before) * t->network_count + t->place.network;
}

/* What a pass of a stage costs beside one of warm-up: pretraining has two views of each sample, and a step of
 * MixEMatch, of which there is one a batch of labelled samples, takes eight times as long
 * (docs/benchmarks.md); half of the samples labelled is a guess. */
static const double costs[MDM_STAGE_DONE] = {2, 1, 4, 1, 1};

/* A stage that has not ended a pass yet is taken from the present one, whose pass takes `present`. */
static double seconds_of_pass(const mdm_trainer *t, mdm_stage stage, mdm_stage now, double present) {
    return t->passes[stage] > 0 ? t->pass_seconds[stage] : present * costs[stage] / costs[now];
}

/* Dividing and testing come on top of the passes. */
static double overhead(const mdm_trainer *t) {
    double training = t->seconds[0] + t->seconds[1] + t->seconds[2] + t->seconds[5];
    return training > 0 ? 1 + (t->seconds[3] + t->seconds[4]) / training : 1;
}

void mdm_time_left(const mdm_trainer *t, mdm_stage stage, int64_t epoch, double seconds, double *of_stage,
                   double *of_run) {
    const mdm_place *p = &t->place;
    double steps = (double)(t->steps > 0 ? t->steps : 1), done = (double)p->step / steps;
    int64_t here = p->step - t->first_step; /* of this pass, since the process took it up */
    double pass = here > 0 ? seconds / (double)here * steps : 0;
    double usual = seconds_of_pass(t, stage, stage, pass);
    double left = (1 - done) * (done * pass + (1 - done) * usual); /* a few steps tell little of a pass */
    left += (double)(passes_of(t, stage) - passes_behind(t, stage, epoch) - 1) * usual;
    *of_stage = left * overhead(t);
    for (int later = stage + 1; later < MDM_STAGE_DONE; later++)
        left += (double)passes_of(t, (mdm_stage)later) * seconds_of_pass(t, (mdm_stage)later, stage, usual);
    *of_run = left * overhead(t);
}

static void write_duration(char *text, size_t size, double seconds) {
    long long s = isfinite(seconds) && seconds > 0 ? (long long)(seconds + 0.5) : 0;
    if (s >= 86400)
        snprintf(text, size, "%lld d %lld h", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(text, size, "%lld h %02lld min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(text, size, "%lld min %02lld s", s / 60, s % 60);
    else
        snprintf(text, size, "%lld s", s);
}

/* The last passes count most, so that the estimate follows a machine that others use too. */
void mdm_count_pass(mdm_trainer *t, mdm_stage stage, double seconds) {
    double share = t->passes[stage] > 0 ? 0.3 : 1;
    t->passes[stage]++;
    t->pass_seconds[stage] += share * (seconds - t->pass_seconds[stage]);
}

void mdm_show_progress(mdm_trainer *t, mdm_stage stage, int64_t epoch, double images, double seconds) {
    const mdm_place *p = &t->place;
    char text[256], of_stage[32], of_run[32], network[16] = "";
    int64_t total = passes_of(t, stage), behind = passes_behind(t, stage, epoch);
    int64_t epochs = stage == MDM_STAGE_PRETRAIN ? t->config.pretrain.epochs : t->config.train.epochs;
    double stage_left, run_left;
    mdm_time_left(t, stage, epoch, seconds, &stage_left, &run_left);
    write_duration(of_stage, sizeof of_stage, stage_left);
    write_duration(of_run, sizeof of_run, run_left);
    if (stage < MDM_STAGE_BASELINE_CE && t->network_count > 1)
        snprintf(network, sizeof network, ", network %c", 'a' + (int)p->network);
    snprintf(text, sizeof text,
             "%s epoch %lld/%lld%s: step %lld/%lld, loss %.4f, %.0f images/s, left: stage %s, run %s; %.0f%% "
             "waiting for "
             "data",
             mdm_stage_name(stage), (long long)epoch + 1, (long long)epochs, network, (long long)p->step,
             (long long)t->steps, p->rows > 0 ? p->sums[0] / p->rows : NAN,
             seconds > 0 ? images / seconds : 0.0, of_stage, of_run,
             seconds > 0 ? 100 * t->pace.reading / seconds : 0.0);
    double steps = (double)(t->steps > 0 ? t->steps : 1), done = (double)p->step / steps;
    double share = total > 0 ? ((double)behind + done) / (double)total : 1;
    mdm_progress_bar(share, text, behind + 1 == total && p->step == t->steps);
}
