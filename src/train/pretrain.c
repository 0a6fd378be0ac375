/* Self-supervised start: SimCLR on two strong views of every sample, labels unused (Chen et al. 2020). Both
 * views go through the network in one pass. */
#include "trainer.h"
#include <string.h>

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
    most = samples / t->steps + (samples % t->steps != 0);
    MDM_TRY(mdm_trainer_reserve(t, 2 * (most / ranks + 1), 2 * (most / ranks + 1), 2 * (most / ranks + 1)));
    if (!t->contrast || mdm_contrast_pairs(t->contrast) < most) {
        mdm_contrast_destroy(t->contrast);
        t->contrast = NULL;
        MDM_TRY(mdm_contrast_create(t->comm, t->executor, most, t->config.model.projection,
                                    (float)t->config.pretrain.temperature, &t->contrast));
    }
    for (int64_t n = samples / t->steps; n <= most; n++) {
        int64_t first, count;
        mdm_comm_my_slice(t->comm, n, &first, &count);
        mdm_executor_set_batch(t->executor, 2, n);
        MDM_TRY(mdm_executor_plan(t->executor, (int)(2 * count), 0));
        MDM_TRY(mdm_contrast_plan(t->contrast, n));
    }
    return MDM_OK;
}

/* What the steps of one kind have in common. */
typedef struct contrasted {
    mdm_trainer *trainer;
    mdm_network *network;
    int64_t n, count; /* samples of all ranks, of this one */
} contrasted;

static mdm_status queue(void *context) {
    const contrasted *s = context;
    mdm_trainer *t = s->trainer;
    const mdm_step_orders *orders = mdm_message_memory(t->message);
    int rows = (int)(2 * s->count);
    mdm_outputs out;
    mdm_guard_queue_begin(t, s->network);
    MDM_TRY(mdm_message_send(t->message, sizeof *orders));
    MDM_TRY(mdm_make_views(t));
    mdm_executor_set_batch(t->executor, 2, s->n);
    MDM_TRY(mdm_executor_forward(t->executor, s->network, rows, t->step_images, MDM_PASS_TRAIN, &out));
    MDM_TRY(mdm_contrast_loss(t->contrast, s->n, 1.0f, out.projection, t->gradient));
    const mdm_row_sum loss = mdm_contrast_sum(t->contrast, s->n, &t->result[0]);
    mdm_sum_rows(t->device, &loss, 1);
    MDM_TRY(
        mdm_executor_backward(t->executor, s->network, rows, t->step_images, NULL, t->gradient, NULL, 0, 1));
    MDM_TRY(mdm_executor_reduce_wait(t->executor, s->network));
    return mdm_guard_queue_end(t, s->network, MDM_STEP_ENCODER | MDM_STEP_PROJECTION, orders,
                               t->config.pretrain.momentum, t->config.pretrain.weight_decay);
}

static mdm_status step(mdm_trainer *t, int network, int64_t epoch, int64_t number, mdm_step_report *report) {
    int64_t start, first;
    contrasted s = {.trainer = t, .network = t->networks[network]};
    mdm_step_orders orders;
    void *host;
    double loss;
    mdm_step_range(t->training_count, t->steps, number, &start, &s.n);
    mdm_comm_my_slice(t->comm, s.n, &first, &s.count);
    for (int64_t i = 0; i < 2 * s.count; i++)
        t->view_list[i] = mdm_view_number(MDM_STAGE_PRETRAIN, network, i >= s.count);
    MDM_TRY(mdm_guard_begin_step(t, s.network, t->config.pretrain.lr, t->config.pretrain.lr, &orders));
    MDM_TRY(mdm_message_begin(t->message, &host));
    memcpy(host, &orders, sizeof orders);
    MDM_TRY(mdm_load_step(t, list(t, network, epoch, number, t->sample_list)));
    MDM_TRY(mdm_views_ask(t->views, MDM_VIEW_STRONG, 0, 2 * s.count, (uint32_t)epoch, 0, t->view_list,
                          t->step_images));
    const mdm_step_kind kind = {MDM_STAGE_PRETRAIN, network, 2, s.n};
    MDM_TRY(mdm_recorder_queue(t->recorder, &kind, s.network, queue, &s));
    MDM_TRY(mdm_guard_collect(t, s.network, &loss, &report->skipped));
    report->loss = loss;
    report->parts[MDM_PART_CONTRAST] = loss;
    report->rows = s.n;
    report->images = 2 * s.n;
    return MDM_OK;
}

const mdm_stage_methods mdm_pretrain_methods = {prepare, list, step};
