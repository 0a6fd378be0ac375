/* Robust warm-up on the given labels: symmetric cross entropy per sample on weak views; removed samples weigh
 * nothing. The baselines are the same loop over all samples with one loss alone. */
#include "mdm/device/losses.h"
#include "trainer.h"
#include <string.h>

static mdm_status prepare(mdm_trainer *t, int network, int64_t epoch) {
    int64_t samples = t->training_count, most;
    int64_t unused;
    mdm_stage stage = mdm_stage_of(t, t->place.position, &unused);
    mdm_random random = mdm_random_stream((uint64_t)t->config.seed, MDM_RANDOM_ORDER, (uint32_t)epoch, 0,
                                          mdm_view_number((int)stage, network, 0));
    for (int64_t i = 0; i < samples; i++) t->order[i] = t->training[i];
    mdm_shuffle_samples(t, &random, t->order, samples);
    t->steps = mdm_step_count(samples, t->config.train.batch);
    most = samples / t->steps + (samples % t->steps != 0);
    MDM_TRY(
        mdm_trainer_reserve(t, most / mdm_comm_size(t->comm) + 1, most / mdm_comm_size(t->comm) + 1, most));
    for (int64_t n = samples / t->steps; n <= most; n++) {
        int64_t first, count;
        mdm_comm_my_slice(t->comm, n, &first, &count);
        mdm_executor_set_batch(t->executor, 1, n);
        MDM_TRY(mdm_executor_plan(t->executor, (int)count, 0));
    }
    return MDM_OK;
}

static int64_t list(mdm_trainer *t, int network, int64_t epoch, int64_t step, int64_t *samples) {
    int64_t start, n, first, count;
    (void)network;
    (void)epoch;
    mdm_step_range(t->training_count, t->steps, step, &start, &n);
    mdm_comm_my_slice(t->comm, n, &first, &count);
    memcpy(samples, t->order + start + first, sizeof *samples * (size_t)count);
    return count;
}

/* What the steps of one kind have in common. */
typedef struct supervised {
    mdm_trainer *trainer;
    mdm_network *network;
    int64_t n, count; /* samples of all ranks, of this one */
    float rce_weight;
} supervised;

static mdm_status queue(void *context) {
    const supervised *s = context;
    mdm_trainer *t = s->trainer;
    const mdm_step_orders *orders = mdm_message_memory(t->message);
    const int32_t *label = (const int32_t *)(orders + 1);
    int count = (int)s->count;
    mdm_outputs out;
    mdm_guard_queue_begin(t, s->network);
    MDM_TRY(mdm_message_send(t->message, sizeof *orders + sizeof(int32_t) * 2 * (size_t)count));
    MDM_TRY(mdm_make_views(t));
    mdm_executor_set_batch(t->executor, 1, s->n);
    MDM_TRY(mdm_executor_forward(t->executor, s->network, count, t->step_images, MDM_PASS_TRAIN, &out));
    mdm_loss_rows rows = {.logits = out.logits,
                          .rows = count,
                          .classes = t->layout->spec.classes,
                          .weight = (const float *)(label + count),
                          .scale = 1.0f / (float)s->n,
                          .value = t->row_value,
                          .gradient = t->gradient};
    mdm_loss_hard(t->device, &rows, label, 1.0f, s->rce_weight);
    mdm_sum_rows(t->device, &(mdm_row_sum){t->row_value, count, (double)s->n, &t->result[0]}, 1);
    MDM_TRY(
        mdm_executor_backward(t->executor, s->network, count, t->step_images, NULL, NULL, t->gradient, 0, 1));
    MDM_TRY(mdm_executor_reduce_wait(t->executor, s->network));
    return mdm_guard_queue_end(t, s->network, MDM_STEP_ALL, orders, t->config.train.momentum,
                               t->config.train.weight_decay);
}

/* Orders, labels and weights; `keep` [N] weighs samples, NULL: all alike. */
static mdm_status tell(mdm_trainer *t, const mdm_step_orders *orders, int64_t count, const uint8_t *keep) {
    const int32_t *labels = mdm_store_labels(t->store, MDM_TRAIN);
    void *host;
    MDM_TRY(mdm_message_begin(t->message, &host));
    memcpy(host, orders, sizeof *orders);
    int32_t *label = (int32_t *)((mdm_step_orders *)host + 1);
    float *weight = (float *)(label + count);
    for (int64_t i = 0; i < count; i++) {
        label[i] = labels[t->sample_list[i]];
        weight[i] = keep ? (float)keep[t->sample_list[i]] : 1.0f;
    }
    return MDM_OK;
}

/* The supervised step that warm-up and baselines share. */
static mdm_status supervised_step(mdm_trainer *t, mdm_network *net, mdm_stage stage, int network,
                                  int64_t epoch, int64_t number, const uint8_t *keep, float rce_weight,
                                  mdm_step_report *report) {
    int64_t start, count = list(t, network, epoch, number, t->sample_list);
    double loss, epochs = t->config.train.epochs;
    supervised s = {.trainer = t, .network = net, .count = count, .rce_weight = rce_weight};
    mdm_step_orders orders;
    mdm_step_range(t->training_count, t->steps, number, &start, &s.n);
    MDM_TRY(mdm_guard_begin_step(t, net, mdm_cosine_rate(t->config.train.lr_backbone, (double)epoch, epochs),
                                 mdm_cosine_rate(t->config.train.lr_head, (double)epoch, epochs), &orders));
    MDM_TRY(tell(t, &orders, count, keep));
    MDM_TRY(mdm_load_step(t, count));
    MDM_TRY(mdm_views_ask(t->views, MDM_VIEW_WEAK, 0, count, (uint32_t)epoch,
                          mdm_view_number((int)stage, network, 0), NULL, t->step_images));
    const mdm_step_kind kind = {stage, network, 1, s.n};
    MDM_TRY(mdm_recorder_queue(t->recorder, &kind, net, queue, &s));
    MDM_TRY(mdm_guard_collect(t, net, &loss, &report->skipped));
    report->loss = loss;
    report->parts[MDM_PART_X] = loss;
    report->rows = s.n;
    report->images = s.n;
    return MDM_OK;
}

static mdm_status warmup_step(mdm_trainer *t, int network, int64_t epoch, int64_t number,
                              mdm_step_report *report) {
    return supervised_step(t, t->networks[network], MDM_STAGE_WARMUP, network, epoch, number, t->keep,
                           (float)t->config.train.rce_weight, report);
}

static mdm_status baseline_step(mdm_trainer *t, int network, int64_t epoch, int64_t number,
                                mdm_step_report *report) {
    int64_t unused;
    mdm_stage stage = mdm_stage_of(t, t->place.position, &unused);
    return supervised_step(t, t->baseline, stage, network, epoch, number, NULL,
                           stage == MDM_STAGE_BASELINE_SCE ? 1.0f : 0.0f, report);
}

const mdm_stage_methods mdm_warmup_methods = {prepare, list, warmup_step};
const mdm_stage_methods mdm_baseline_methods = {prepare, list, baseline_step};
