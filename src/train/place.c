/* Where a run stands: positions count the epochs of all stages, one after another. */
#include "trainer.h"

static int baseline_count(const mdm_trainer *t) {
    if (t->config.baseline == MDM_CONFIG_BASELINE_NONE) return 0;
    return t->config.baseline == MDM_CONFIG_BASELINE_BOTH ? 2 : 1;
}

int64_t mdm_position_count(const mdm_trainer *t) {
    return t->config.pretrain.epochs + (int64_t)t->config.train.epochs * (1 + baseline_count(t));
}

mdm_stage mdm_stage_of(const mdm_trainer *t, int64_t position, int64_t *epoch) {
    int64_t epochs = t->config.train.epochs;
    *epoch = position;
    if (position < t->config.pretrain.epochs) return MDM_STAGE_PRETRAIN;
    position -= t->config.pretrain.epochs;
    *epoch = position;
    if (position < epochs) return position < t->config.train.warmup ? MDM_STAGE_WARMUP : MDM_STAGE_SEMI;
    position -= epochs;
    *epoch = position % epochs;
    if (position >= baseline_count(t) * epochs) return MDM_STAGE_DONE;
    if (t->config.baseline == MDM_CONFIG_BASELINE_SCE) return MDM_STAGE_BASELINE_SCE;
    return position < epochs ? MDM_STAGE_BASELINE_CE : MDM_STAGE_BASELINE_SCE;
}

const char *mdm_stage_name(mdm_stage stage) {
    static const char *const names[] = {"pretrain", "warmup", "semi", "baseline_ce", "baseline_sce", "done"};
    return names[stage];
}

int64_t mdm_step_count(int64_t n, int64_t batch) {
    int64_t steps = n / batch;
    return steps > 0 ? steps : 1;
}

void mdm_step_range(int64_t n, int64_t steps, int64_t step, int64_t *first, int64_t *count) {
    int64_t size = n / steps, larger = n % steps;
    *first = step * size + (step < larger ? step : larger);
    *count = size + (step < larger);
}
