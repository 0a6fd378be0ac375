/* The steps of training as bench measures them: weights, views and labels are random, the arithmetic is the
 * same. */
#include "bench.h"
#include "mdm/base/random.h"
#include "mdm/device/losses.h"
#include "mdm/train/contrast.h"
#include "mdm/train/semi_step.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the device's memory but for the batch of a MixEMatch step. */
typedef struct step_context {
    bench *bench;
    float *images, *gradient;
    int32_t *label_on_device;
    mdm_step_orders *orders;
    double *result, *value; /* [RESULTS]; losses of rows */
    mdm_semi_workspace *workspace;
    mdm_contrast *contrast;
    mdm_semi_batch batch;
    float *clean_probability;
    int32_t *label;
    int64_t *permutation;
} step_context;

enum { PART, LOSS, SQUARE, VERDICT, RESULTS };
static const mdm_step_orders orders = {INFINITY, INFINITY, 0.01f, 0.01f};

static void optimizer_step(bench *b, const mdm_step_orders *told, const double *verdict) {
    mdm_network_step(b->device, b->network, MDM_STEP_ALL, told, verdict, 0.9f, 5e-4f);
}

/* What a run does with every step: the verdict and the optimizer. */
static mdm_status queue_end(bench *b, step_context *c) {
    const mdm_step_judgement judgement = {.terms = {{&c->result[PART], NULL, 1.0f}},
                                          .count = 1,
                                          .square = &c->result[SQUARE],
                                          .orders = c->orders,
                                          .loss = &c->result[LOSS],
                                          .verdict = &c->result[VERDICT]};
    MDM_TRY(mdm_executor_reduce_wait(b->executor, b->network));
    mdm_network_square_gradient(b->device, b->network, &c->result[SQUARE]);
    mdm_judge_step(b->device, &judgement);
    optimizer_step(b, c->orders, &c->result[VERDICT]);
    return MDM_OK;
}

/* As a run has them: recorded and replayed where the device can. */
static mdm_status queue_step(step_context *c, int groups, mdm_step_work *queue) {
    bench *b = c->bench;
    const mdm_step_kind kind = {.groups = groups, .n = b->config->train.batch};
    return mdm_recorder_queue(b->recorder, &kind, b->network, queue, c);
}

/* What the step came to. */
static mdm_status collect(step_context *c) {
    double result[RESULTS];
    return mdm_device_download(c->bench->device, result, c->result, sizeof result);
}

static mdm_status queue_warmup(void *context) {
    step_context *c = context;
    bench *b = c->bench;
    mdm_outputs out;
    int rows = (int)b->count;
    MDM_TRY(mdm_executor_forward(b->executor, b->network, rows, c->images, MDM_PASS_TRAIN, &out));
    mdm_loss_rows losses = {.logits = out.logits,
                            .rows = rows,
                            .classes = CLASSES,
                            .scale = 1.0f / (float)b->config->train.batch,
                            .value = c->value,
                            .gradient = c->gradient};
    mdm_loss_hard(b->device, &losses, c->label_on_device, 1, 1);
    mdm_sum_rows(b->device, &(mdm_row_sum){c->value, rows, b->config->train.batch, &c->result[PART]}, 1);
    MDM_TRY(mdm_executor_backward(b->executor, b->network, rows, c->images, NULL, NULL, c->gradient, 0, 1));
    return queue_end(b, c);
}

static mdm_status warmup_step(bench *b, void *context) {
    (void)b; /* the context's own may be another */
    MDM_TRY(queue_step(context, 1, queue_warmup));
    return collect(context);
}

static mdm_status queue_pretrain(void *context) {
    step_context *c = context;
    bench *b = c->bench;
    mdm_outputs out;
    int rows = (int)(2 * b->count);
    MDM_TRY(mdm_executor_forward(b->executor, b->network, rows, c->images, MDM_PASS_TRAIN, &out));
    MDM_TRY(mdm_contrast_loss(c->contrast, b->config->train.batch, 1.0f, out.projection, c->gradient));
    const mdm_row_sum loss = mdm_contrast_sum(c->contrast, b->config->train.batch, &c->result[PART]);
    mdm_sum_rows(b->device, &loss, 1);
    MDM_TRY(mdm_executor_backward(b->executor, b->network, rows, c->images, NULL, c->gradient, NULL, 0, 1));
    return queue_end(b, c);
}

static mdm_status pretrain_step(bench *b, void *context) {
    (void)b;
    MDM_TRY(queue_step(context, 2, queue_pretrain));
    return collect(context);
}

static mdm_status queue_semi(void *context) {
    step_context *c = context;
    bench *b = c->bench;
    const mdm_semi_options o = mdm_semi_options_of(b->config);
    MDM_TRY(mdm_semi_queue(b->comm, b->executor, b->network, NULL, &o, &c->batch, c->workspace));
    optimizer_step(b, mdm_semi_orders(c->workspace), mdm_semi_verdict(c->workspace));
    return MDM_OK;
}

static mdm_status semi_step(bench *b, void *context) {
    step_context *c = context;
    mdm_semi_result result;
    MDM_TRY(mdm_semi_tell(b->comm, b->executor, b->network, NULL, &c->batch, c->workspace));
    MDM_TRY(queue_step(c, 4, queue_semi));
    return mdm_semi_collect(&c->batch, c->workspace, &result);
}

static mdm_status make_step_data(bench *b, step_context *c, int views) {
    int64_t image = (int64_t)CHANNELS * SIDE * SIDE, batch = b->config->train.batch;
    size_t labels = sizeof(int32_t) * (size_t)b->count;
    memset(c, 0, sizeof *c);
    c->bench = b;
    MDM_TRY(mdm_bench_send_random(b, views * b->count * image, &c->images));
    MDM_TRY(mdm_bench_send_random(b, 2 * b->count * (CLASSES + b->config->model.projection), &c->gradient));
    MDM_TRY(MDM_ALLOCATE(c->label, b->count, "bench data"));
    MDM_TRY(MDM_ALLOCATE(c->clean_probability, b->count, "bench data"));
    MDM_TRY(MDM_ALLOCATE(c->permutation, 4 * batch, "bench data"));
    for (int64_t i = 0; i < b->count; i++) c->label[i] = (int32_t)((i * 7) % CLASSES);
    for (int64_t i = 0; i < b->count; i++) c->clean_probability[i] = 0.5f;
    MDM_TRY(mdm_device_allocate(b->device, labels, "bench data", (void **)&c->label_on_device));
    MDM_TRY(mdm_device_upload(b->device, c->label_on_device, c->label, labels));
    MDM_TRY(mdm_device_allocate(b->device, sizeof orders, "bench data", (void **)&c->orders));
    MDM_TRY(mdm_device_upload(b->device, c->orders, &orders, sizeof orders));
    MDM_TRY(mdm_device_allocate(b->device, sizeof(double) * RESULTS, "bench data", (void **)&c->result));
    MDM_TRY(
        mdm_device_allocate(b->device, sizeof(double) * (size_t)b->count, "bench data", (void **)&c->value));
    mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 0, 3, 0);
    for (int64_t i = 0; i < 4 * batch; i++) c->permutation[i] = i;
    mdm_random_shuffle(&random, c->permutation, 4 * batch);
    return MDM_OK;
}

static void free_step_data(bench *b, step_context *c) {
    mdm_semi_workspace_destroy(c->workspace);
    mdm_contrast_destroy(c->contrast);
    mdm_device_free(b->device, c->images);
    mdm_device_free(b->device, c->gradient);
    mdm_device_free(b->device, c->label_on_device);
    mdm_device_free(b->device, c->orders);
    mdm_device_free(b->device, c->result);
    mdm_device_free(b->device, c->value);
    free(c->clean_probability);
    free(c->label);
    free(c->permutation);
}

/* The step of each rank by itself, with nothing summed over ranks: what a step takes more than that is what
 * it waits for the others, communication that no computation hides. */
typedef struct lonely {
    bench bench;
    step_context context;
} lonely;

static mdm_status plan_alone(const bench *b, lonely *l) {
    MDM_TRY(mdm_comm_create_alone(&l->bench.comm));
    MDM_TRY(mdm_executor_create(b->device, l->bench.comm, b->layout, b->precision, MDM_BATCHNORM_SYNC,
                                &l->bench.executor));
    if (mdm_executor_is_reproducible(b->executor))
        MDM_TRY(mdm_executor_make_reproducible(l->bench.executor));
    else
        mdm_executor_set_chunks(l->bench.executor, b->config->train.micro_batch);
    mdm_executor_set_batch(l->bench.executor, 1, b->count);
    MDM_TRY(mdm_executor_plan(l->bench.executor, (int)b->count, 0));
    MDM_TRY(mdm_recorder_create(l->bench.comm, l->bench.executor, b->config->train.cuda_graph,
                                &l->bench.recorder));
    return mdm_recorder_begin(l->bench.recorder);
}

/* Recorded steps have found the faster of their ways, as they have early in a run. */
static mdm_status settle(bench *b, work run, step_context *c) {
    enum { MOST_STEPS = 64 };
    double unused;
    for (int i = 0; i < MOST_STEPS && !mdm_recorder_is_settled(c->bench->recorder); i++)
        MDM_TRY(mdm_bench_time(b, run, c, &unused));
    return MDM_OK;
}

/* In turns, so that both see the same machine. */
static mdm_status measure_in_turns(bench *b, step_context *c, lonely *l, double *together, double *alone) {
    double seconds[2];
    MDM_TRY(settle(b, warmup_step, c));
    MDM_TRY(settle(b, warmup_step, &l->context));
    for (int i = -WARM_UPS; i < REPEATS; i++) {
        MDM_TRY(mdm_bench_time(b, warmup_step, c, &seconds[0]));
        MDM_TRY(mdm_bench_time(b, warmup_step, &l->context, &seconds[1]));
        if (i < 0) continue;
        together[i] = seconds[0];
        alone[i] = seconds[1];
    }
    return MDM_OK;
}

/* Times of a step and, as text, its exposed communication ("" for one rank). */
static mdm_status measure_exposed(bench *b, step_context *c, double *times, char *exposed, size_t size) {
    double alone[MOST_TIMES];
    lonely l = {*b, *c};
    exposed[0] = '\0';
    if (mdm_comm_size(b->comm) == 1) {
        MDM_TRY(settle(b, warmup_step, c));
        return mdm_bench_measure(b, warmup_step, c, times, REPEATS);
    }
    l.context.bench = &l.bench;
    l.bench.executor = NULL;
    l.bench.comm = NULL;
    l.bench.recorder = NULL;
    mdm_status status = mdm_comm_agree(b->comm, plan_alone(b, &l));
    if (status == MDM_OK) status = measure_in_turns(b, c, &l, times, alone);
    if (status == MDM_OK) {
        double median = mdm_bench_median(times, REPEATS), lone = mdm_bench_median(alone, REPEATS);
        snprintf(exposed, size, ",\"alone_median_ms\":%.4g,\"exposed_percent\":%.3g", 1e3 * lone,
                 100 * (median - lone) / median);
    }
    mdm_recorder_destroy(l.bench.recorder);
    mdm_executor_destroy(l.bench.executor);
    if (l.bench.comm) mdm_comm_finish(l.bench.comm);
    return status;
}

static mdm_status plan_step(bench *b, int views) {
    mdm_executor_set_batch(b->executor, views, b->config->train.batch);
    MDM_TRY(mdm_executor_plan(b->executor, (int)(views * b->count), 0));
    return mdm_recorder_begin(b->recorder);
}

static mdm_status plan_semi(bench *b) {
    const mdm_semi_options o = mdm_semi_options_of(b->config);
    mdm_executor_set_batch(b->executor, 4, b->config->train.batch);
    mdm_executor_set_joined(b->executor,
                            mdm_executor_can_join(b->executor, 4 * b->count, mdm_semi_passes(&o)));
    MDM_TRY(mdm_semi_plan_passes(b->executor, &o, (int)(4 * b->count)));
    return mdm_recorder_begin(b->recorder);
}

/* A time of a way, or that it cannot be had. */
static void write_time(char *text, size_t size, double milliseconds) {
    if (isfinite(milliseconds))
        snprintf(text, size, "%.4g", milliseconds);
    else
        snprintf(text, size, "null");
}

/* How the device was given the steps. */
static void describe_steps(const bench *b, char *text, size_t size) {
    static const char *const names[MDM_RECORDING_WAYS] = {"plain", "beside", "early", "both"};
    double took[MDM_RECORDING_WAYS];
    int way = mdm_recorder_way(b->recorder, took), can_record = mdm_device_get_info(b->device)->is_cuda;
    size_t used = 0;
    if (mdm_executor_is_reproducible(b->executor))
        snprintf(text, size, ",\"deterministic\":true");
    else
        used = (size_t)snprintf(text, size, "%s",
                                !can_record                       ? ""
                                : mdm_recorder_is_on(b->recorder) ? ",\"graph\":true"
                                                                  : ",\"graph\":false");
    for (int w = 0; way >= 0 && w < MDM_RECORDING_WAYS; w++) {
        char time[32];
        write_time(time, sizeof time, took[w]);
        used += (size_t)snprintf(text + used, size - used, ",\"%s_ms\":%s", names[w], time);
    }
    if (way >= 0) snprintf(text + used, size - used, ",\"way\":\"%s\"", names[way]);
}

static void report_step(const bench *b, const char *name, double *times, int views, double passes,
                        const char *more) {
    double batch = b->config->train.batch, flop = mdm_layout_forward_flop(b->layout);
    char fields[384], how[256];
    describe_steps(b, how, sizeof how);
    snprintf(fields, sizeof fields, "%s%s", more, how);
    mdm_bench_report(b, name, times, REPEATS, batch, batch * views * flop * passes, fields);
}

/* `passes` in forward ones, of which a backward pass is worth two. */
static mdm_status time_step(bench *b, const char *name, int views, double passes, work run, step_context *c,
                            const char *more) {
    double times[MOST_TIMES];
    MDM_TRY(settle(b, run, c));
    MDM_TRY(mdm_bench_measure(b, run, c, times, REPEATS));
    report_step(b, name, times, views, passes, more);
    return MDM_OK;
}

mdm_status mdm_bench_step(bench *b) {
    step_context c;
    char exposed[128];
    double times[MOST_TIMES];
    mdm_status status = make_step_data(b, &c, 1);
    if (status == MDM_OK) status = plan_step(b, 1);
    if (status == MDM_OK) status = measure_exposed(b, &c, times, exposed, sizeof exposed);
    if (status == MDM_OK) report_step(b, "step", times, 1, 3, exposed);
    free_step_data(b, &c);
    return status;
}

mdm_status mdm_bench_pretrain(bench *b) {
    step_context c;
    mdm_status status = make_step_data(b, &c, 2);
    if (status == MDM_OK)
        status = mdm_contrast_create(b->comm, b->executor, b->config->train.batch,
                                     b->config->model.projection, 0.5f, &c.contrast);
    if (status == MDM_OK) status = mdm_contrast_plan(c.contrast, b->config->train.batch);
    if (status == MDM_OK) status = plan_step(b, 2);
    if (status == MDM_OK) status = time_step(b, "pretrain", 2, 3, pretrain_step, &c, "");
    free_step_data(b, &c);
    return status;
}

mdm_status mdm_bench_semi(bench *b) {
    step_context c;
    mdm_status status = make_step_data(b, &c, 4 * MDM_SEMI_PASSES);
    if (status == MDM_OK)
        status = mdm_semi_workspace_create(b->comm, b->executor, b->layout, b->config->train.batch, 0.05f,
                                           &c.workspace);
    if (status == MDM_OK) status = mdm_semi_workspace_plan(c.workspace, b->config->train.batch);
    if (status == MDM_OK) {
        c.batch = (mdm_semi_batch){.n = b->config->train.batch,
                                   .first = b->first,
                                   .count = b->count,
                                   .groups = 4,
                                   .images = c.images,
                                   .label = c.label,
                                   .clean_probability = c.clean_probability,
                                   .permutation = c.permutation,
                                   .lambda = 0.7f,
                                   .ramp = 1.0f,
                                   .orders = orders};
        status = plan_semi(b);
    }
    if (status == MDM_OK) {
        const mdm_semi_options o = mdm_semi_options_of(b->config);
        status = time_step(b, "semi", 4, mdm_semi_has_strong_pass(&o) ? 7 : 4, semi_step, &c,
                           mdm_executor_is_joined(b->executor) ? ",\"joined\":true" : "");
    }
    free_step_data(b, &c);
    return status;
}
