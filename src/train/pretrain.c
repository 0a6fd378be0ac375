/* Self-supervised start: SimCLR on two strong views of every sample, labels unused (Chen et al. 2020). Both
 * views go through the network in one pass. */
#include "trainer.h"

static int64_t list(mdm_trainer *t, int network, int64_t epoch, int64_t step, int64_t *samples) {
    int64_t start, n, first, count;
    (void)network;
    (void)epoch;
    mdm_step_range(t->training_count, t->steps, step, &start, &n);
    mdm_comm_my_slice(t->comm, n, &first, &count);
    for (int64_t i = 0; i < count; i++) samples[i] = samples[count + i] = t->order[start + first + i];
    return 2 * count;
}

static mdm_status prepare(mdm_trainer *t, int network, int64_t epoch) {
    int64_t samples = t->training_count, ranks = mdm_comm_size(t->comm), most;
    mdm_random random = mdm_random_stream((uint64_t)t->config.seed, MDM_RANDOM_ORDER, (uint32_t)epoch, 0,
                                          mdm_view_number(MDM_STAGE_PRETRAIN, network, 0));
    for (int64_t i = 0; i < samples; i++) t->order[i] = t->training[i];
    mdm_shuffle_samples(t, &random, t->order, samples);
    t->steps = mdm_step_count(samples, t->config.pretrain.batch);
    most = samples / t->steps + 1;
    MDM_TRY(mdm_trainer_reserve(t, 2 * (most / ranks + 1), 2 * (most / ranks + 1), 2 * (most / ranks + 1)));
    if (!t->contrast || mdm_contrast_pairs(t->contrast) < most) {
        mdm_contrast_destroy(t->contrast);
        t->contrast = NULL;
        MDM_TRY(mdm_contrast_create(t->comm, t->executor, most, t->config.model.projection,
                                    (float)t->config.pretrain.temperature, &t->contrast));
    }
    for (int64_t n = most - 1; n <= most; n++) {
        int64_t first, count;
        mdm_comm_my_slice(t->comm, n, &first, &count);
        mdm_executor_set_batch(t->executor, 2, n);
        MDM_TRY(mdm_executor_plan(t->executor, (int)(2 * count), 0));
        MDM_TRY(mdm_contrast_plan(t->contrast, n));
    }
    return MDM_OK;
}

static mdm_status step(mdm_trainer *t, int network, int64_t epoch, int64_t number, mdm_step_report *report) {
    int64_t start, n, first, count;
    mdm_network *net = t->networks[network];
    mdm_outputs out;
    double loss, square;
    mdm_step_range(t->training_count, t->steps, number, &start, &n);
    mdm_comm_my_slice(t->comm, n, &first, &count);
    for (int64_t i = 0; i < 2 * count; i++)
        t->view_list[i] = mdm_view_number(MDM_STAGE_PRETRAIN, network, i >= count);
    MDM_TRY(mdm_guard_begin_step(t, net));
    MDM_TRY(mdm_load_step(t, list(t, network, epoch, number, t->sample_list)));
    MDM_TRY(mdm_views_make(t->views, MDM_VIEW_STRONG, 0, 2 * count, (uint32_t)epoch, 0, t->view_list,
                           t->images_buffer[0]));
    mdm_executor_set_batch(t->executor, 2, n);
    MDM_TRY(
        mdm_executor_forward(t->executor, net, (int)(2 * count), t->images_buffer[0], MDM_PASS_TRAIN, &out));
    MDM_TRY(mdm_contrast_loss(t->contrast, n, 1.0f, out.projection, t->gradient, &t->result[0]));
    MDM_TRY(mdm_executor_backward(t->executor, net, (int)(2 * count), t->images_buffer[0], NULL, t->gradient,
                                  NULL, 0, 1));
    MDM_TRY(mdm_executor_reduce_wait(t->executor, net));
    MDM_TRY(mdm_collect_loss(t, net, &loss, &square));
    MDM_TRY(mdm_guarded_step(t, net, loss, square, MDM_STEP_ENCODER | MDM_STEP_PROJECTION,
                             t->config.pretrain.lr, t->config.pretrain.lr, t->config.pretrain.momentum,
                             t->config.pretrain.weight_decay, &report->skipped));
    report->loss = loss;
    report->parts[MDM_PART_CONTRAST] = loss;
    report->rows = n;
    report->images = 2 * n;
    return MDM_OK;
}

const mdm_stage_methods mdm_pretrain_methods = {prepare, list, step};
