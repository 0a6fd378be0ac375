/* MixEMatch epochs: each network trains on the other's split (co-divide, DivideMix). An epoch has one step
 * per batch of labelled samples; unlabelled ones are drawn from an endless run of permutations. */
#include "mdm/base/log.h"
#include "trainer.h"
#include <string.h>

static int guide_of(const mdm_trainer *t, int network) {
    return (network + 1) % t->network_count; /* whose opinion this network trains on */
}

static mdm_random order_stream(const mdm_trainer *t, int network, int64_t epoch, int list, int64_t cycle) {
    return mdm_random_stream((uint64_t)t->config.seed, MDM_RANDOM_ORDER, (uint32_t)epoch, (uint64_t)cycle,
                             mdm_view_number(MDM_STAGE_SEMI, network, list));
}

/* The epoch's labelled samples in order, and the unlabelled ones repeated until every step has as many of
 * them. */
static void order_samples(mdm_trainer *t, int network, int64_t epoch, int64_t *labelled,
                          int64_t *unlabelled) {
    const uint8_t *split = t->opinions[guide_of(t, network)].split;
    *labelled = *unlabelled = 0;
    for (int64_t k = 0; k < t->training_count; k++) {
        int64_t i = t->training[k];
        if (split[i] == MDM_LABELLED)
            t->order[(*labelled)++] = i;
        else if (split[i] == MDM_UNLABELLED)
            t->unlabelled[(*unlabelled)++] = i;
    }
    mdm_random random = order_stream(t, network, epoch, 1, 0);
    mdm_shuffle_samples(t, &random, t->order, *labelled);
    for (int64_t filled = 0, cycle = 0; *unlabelled > 0 && filled < *labelled; cycle++) {
        /* each cycle shuffles from the sorted list: the order is a function of the cycle's number alone */
        int64_t *list = t->labelled;
        memcpy(list, t->unlabelled, sizeof(int64_t) * (size_t)*unlabelled);
        random = order_stream(t, network, epoch, 2, cycle);
        mdm_shuffle_samples(t, &random, list, *unlabelled);
        for (int64_t i = 0; i < *unlabelled && filled < *labelled; i++) t->pool[filled++] = list[i];
    }
}

static mdm_status prepare(mdm_trainer *t, int network, int64_t epoch) {
    const mdm_semi_options options = mdm_semi_options_of(&t->config);
    int64_t labelled, unlabelled, most, share;
    order_samples(t, network, epoch, &labelled, &unlabelled);
    t->place_labelled = labelled;
    t->groups = unlabelled > 0 ? 4 : 2;
    if (labelled == 0) { /* nothing to learn from: the epoch goes by without a step */
        t->steps = 0;
        mdm_warn("epoch %lld, network %c: no labelled samples, so it does not train in this epoch; a lower "
                 "divide.threshold would keep some",
                 (long long)epoch + 1, 'a' + network);
        return MDM_OK;
    }
    if (unlabelled == 0)
        mdm_warn("epoch %lld, network %c: no unlabelled samples; steps use labelled views only",
                 (long long)epoch + 1, 'a' + network);
    t->steps = mdm_step_count(labelled, t->config.train.batch);
    most = labelled / t->steps + (labelled % t->steps != 0);
    share = most / mdm_comm_size(t->comm) + 1;
    MDM_TRY(mdm_trainer_reserve(t, 4 * share, 8 * share, 6 * share));
    if (!t->workspace || t->workspace_rows < most) {
        mdm_semi_workspace_destroy(t->workspace);
        t->workspace = NULL;
        t->workspace_rows = most + t->config.train.batch / 8;
        MDM_TRY(mdm_semi_workspace_create(t->comm, t->executor, t->layout, t->workspace_rows,
                                          (float)t->config.semi.contrast_temperature, &t->workspace));
    }
    for (int64_t n = labelled / t->steps; n <= most; n++) {
        int64_t first, count;
        mdm_comm_my_slice(t->comm, n, &first, &count);
        mdm_executor_set_batch(t->executor, t->groups, n);
        MDM_TRY(mdm_semi_plan_passes(t->executor, &options, (int)(t->groups * count)));
        MDM_TRY(mdm_semi_workspace_plan(t->workspace, n));
        if (t->network_count > 1) MDM_TRY(mdm_executor_plan(t->executor, (int)(2 * count), 1));
    }
    return MDM_OK;
}

/* The step's slice of the batch, mixing weight and partners: a function of seed, epoch, network and step. */
static int64_t draw_batch(mdm_trainer *t, int network, int64_t epoch, int64_t number, mdm_semi_batch *b) {
    mdm_random random = mdm_random_stream((uint64_t)t->config.seed, MDM_RANDOM_MIXUP, (uint32_t)epoch,
                                          (uint64_t)number, (uint32_t)network);
    int64_t start;
    b->groups = t->groups;
    mdm_step_range(t->place_labelled, t->steps, number, &start, &b->n);
    mdm_comm_my_slice(t->comm, b->n, &b->first, &b->count);
    double lambda = mdm_random_beta(&random, t->config.semi.alpha, t->config.semi.alpha);
    b->lambda = (float)(lambda > 0.5 ? lambda : 1.0 - lambda);
    for (int64_t i = 0; i < b->groups * b->n; i++) t->permutation[i] = i;
    mdm_random_shuffle(&random, t->permutation, b->groups * b->n);
    b->permutation = t->permutation;
    return start;
}

/* Row i of this rank among the rows of the global batch: groups of n, of which this rank has a slice. */
static int64_t global_row(const mdm_semi_batch *b, int64_t i) {
    return i / b->count * b->n + b->first + i % b->count;
}

static int64_t sample_of_row(const mdm_trainer *t, int64_t start, int64_t n, int64_t row) {
    return row / n < 2 ? t->order[start + row % n] : t->pool[start + row % n];
}

/* This rank's samples, then their mixing partners, whoever owns those. */
static int64_t list(mdm_trainer *t, int network, int64_t epoch, int64_t number, int64_t *samples) {
    mdm_semi_batch b = {0};
    int64_t start = draw_batch(t, network, epoch, number, &b), rows = b.groups * b.count;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = global_row(&b, i);
        samples[i] = sample_of_row(t, start, b.n, row);
        samples[rows + i] = sample_of_row(t, start, b.n, b.permutation[row]);
    }
    return 2 * rows;
}

/* Fills the batch's images: weak views, strong views, and the partners' strong views, which are made again
 * here whoever owns them. */
static mdm_status make_images(mdm_trainer *t, int network, int64_t epoch, const mdm_semi_batch *b) {
    mdm_view mixed = t->config.semi.views == MDM_CONFIG_VIEWS_STRONG ? MDM_VIEW_STRONG : MDM_VIEW_WEAK;
    int64_t rows = b->groups * b->count, floats = rows * t->data->channels * t->data->height * t->data->width;
    uint32_t *weak = t->view_list + 2 * rows;
    for (int64_t i = 0; i < rows; i++) { /* of the views 0 to 3 of a sample, 2 and 3 are mixed */
        int64_t row = global_row(b, i), partner = b->permutation[row];
        t->view_list[i] = mdm_view_number(MDM_STAGE_SEMI, network, 2 + (int)(row / b->n % 2));
        t->view_list[rows + i] = mdm_view_number(MDM_STAGE_SEMI, network, 2 + (int)(partner / b->n % 2));
        weak[i] = t->view_list[i] - 2;
    }
    MDM_TRY(mdm_load_step(t, 2 * rows));
    MDM_TRY(mdm_views_ask(t->views, mixed, 0, rows, (uint32_t)epoch, 0, t->view_list,
                          b->images + MDM_SEMI_STRONG * floats));
    MDM_TRY(mdm_views_ask(t->views, mixed, rows, rows, (uint32_t)epoch, 0, t->view_list + rows,
                          b->images + MDM_SEMI_MIXED * floats));
    return mdm_views_ask(t->views, MDM_VIEW_WEAK, 0, rows, (uint32_t)epoch, 0, weak,
                         b->images + MDM_SEMI_WEAK * floats);
}

/* How far lambda_u has risen: from 0 at the end of warm-up to 1 after semi.rampup epochs. */
static float ramp_at(const mdm_trainer *t, double epoch) {
    if (t->config.semi.rampup <= 0) return 1.0f;
    double ramp = (epoch - t->config.train.warmup) / t->config.semi.rampup;
    return ramp < 0 ? 0.0f : ramp > 1 ? 1.0f : (float)ramp;
}

/* What a step queues works with; of the batch, sizes and places alone. */
typedef struct mixed_step {
    mdm_trainer *trainer;
    mdm_network *network, *guesser;
    mdm_semi_options options;
    mdm_semi_batch batch;
} mixed_step;

static mdm_status queue(void *context) {
    const mixed_step *s = context;
    mdm_trainer *t = s->trainer;
    mdm_guard_queue_begin(t, s->network);
    MDM_TRY(mdm_make_views(t));
    MDM_TRY(
        mdm_semi_queue(t->comm, t->executor, s->network, s->guesser, &s->options, &s->batch, t->workspace));
    mdm_network_step(t->device, s->network, MDM_STEP_ALL, mdm_semi_orders(t->workspace),
                     mdm_semi_verdict(t->workspace), (float)t->config.train.momentum,
                     (float)t->config.train.weight_decay);
    return MDM_OK;
}

/* The batch as the device is told of it. */
static mdm_status make_batch(mdm_trainer *t, int network, int64_t epoch, int64_t number, mdm_semi_batch *b) {
    const mdm_opinion *guide = &t->opinions[guide_of(t, network)];
    const int32_t *labels = mdm_store_labels(t->store, MDM_TRAIN);
    list(t, network, epoch, number, t->sample_list);
    draw_batch(t, network, epoch, number, b);
    b->ramp = ramp_at(t, (double)epoch + (double)number / (double)t->steps);
    float *weight = (float *)(t->told + b->count);
    for (int64_t i = 0; i < b->count; i++) {
        int64_t sample = t->sample_list[i]; /* the first group is the labelled samples' first view */
        t->told[i] = labels[sample];
        weight[i] = guide->clean_probability[sample];
    }
    b->label = t->told;
    b->clean_probability = weight;
    b->images = t->step_images;
    return make_images(t, network, epoch, b);
}

static mdm_status step(mdm_trainer *t, int network, int64_t epoch, int64_t number, mdm_step_report *report) {
    mixed_step s = {
        .trainer = t, .network = t->networks[network], .options = mdm_semi_options_of(&t->config)};
    mdm_semi_batch *b = &s.batch;
    mdm_semi_result result;
    double epochs = t->config.train.epochs;
    if (t->network_count > 1) s.guesser = mdm_predicting_network(t, guide_of(t, network));
    MDM_TRY(make_batch(t, network, epoch, number, b));
    MDM_TRY(mdm_guard_begin_step(
        t, s.network, mdm_cosine_rate(t->config.train.lr_backbone, (double)epoch, epochs),
        mdm_cosine_rate(t->config.train.lr_head, (double)epoch, epochs), &b->orders));
    MDM_TRY(mdm_semi_tell(t->comm, t->executor, s.network, s.guesser, b, t->workspace));
    const mdm_step_kind kind = {MDM_STAGE_SEMI, network, b->groups, b->n};
    MDM_TRY(mdm_recorder_queue(t->recorder, &kind, s.network, queue, &s));
    MDM_TRY(mdm_semi_collect(b, t->workspace, &result));
    MDM_TRY(mdm_guard_end_step(t, s.network, result.loss, result.gradient_square, result.verdict,
                               &report->skipped));
    report->loss = result.loss;
    memcpy(report->parts, result.parts, sizeof result.parts);
    report->confident = result.confident;
    report->rows = b->n;
    report->images = b->groups / 2 * b->n;
    return MDM_OK;
}

const mdm_stage_methods mdm_semi_methods = {prepare, list, step};
