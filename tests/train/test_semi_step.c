/* One MixEMatch step of two networks against the golden numbers, on any number of ranks. */
#include "golden.h"
#include "mdm/train/recorder.h"
#include "mdm/train/semi_step.h"
#include "test_device.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mdm_comm *comm;
static int reproducible, joined; /* the second round of all tests: on CPUs, on devices */
enum { N = 6, IMAGE = 28 * 28, CLASSES = 8 };

typedef struct setting {
    mdm_device *device;
    mdm_layout *layout;
    mdm_network *a, *b;
    mdm_executor *executor;
    mdm_semi_workspace *workspace;
    mdm_semi_options options;
    mdm_semi_batch batch;
    float *images; /* in the device's memory */
    float *views, *clean;
    int32_t *label;
    int64_t *permutation;
} setting;

static void load_network(const mdm_layout *layout, mdm_network *network, const char *group) {
    for (int i = 0; i < layout->tensor_count; i++) {
        const mdm_tensor_info *t = &layout->tensors[i];
        char path[256];
        snprintf(path, sizeof path, "%s/%s", group, t->name);
        float *values = golden_floats(path, NULL);
        float *to = t->role == MDM_TENSOR_STATISTIC ? network->statistics : network->weights;
        memcpy(to + t->offset, values, sizeof(float) * (size_t)t->count);
        free(values);
    }
    mdm_network_touch(network);
}

/* views is [8, N, image]: weak x 1, 2, strong x 1, 2, weak u 1, 2, strong u 1, 2. */
static const float *view_of(const setting *s, int64_t global_row, int strong) {
    int64_t group = global_row / N, sample = global_row % N;
    int view = (int)((group / 2) * 4 + (strong ? 2 : 0) + group % 2);
    return s->views + ((int64_t)view * N + sample) * IMAGE;
}

static void fill_batch(setting *s) {
    mdm_semi_batch *b = &s->batch;
    int64_t rows = 4 * b->count;
    size_t bytes = sizeof(float) * (size_t)(MDM_SEMI_PASSES * rows * IMAGE);
    float *images = malloc(bytes + 1), *weak = images + MDM_SEMI_WEAK * rows * IMAGE,
          *partner = images + MDM_SEMI_MIXED * rows * IMAGE,
          *strong = images + MDM_SEMI_STRONG * rows * IMAGE;
    assert_non_null(images);
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = i / b->count * N + b->first + i % b->count;
        memcpy(weak + i * IMAGE, view_of(s, row, 0), sizeof(float) * IMAGE);
        memcpy(strong + i * IMAGE, view_of(s, row, 1), sizeof(float) * IMAGE);
        memcpy(partner + i * IMAGE, view_of(s, s->permutation[row], 1), sizeof(float) * IMAGE);
    }
    b->images = s->images = test_device_copy(s->device, images, bytes);
    free(images);
    b->label = s->label + b->first;
    b->clean_probability = s->clean + b->first;
    b->permutation = s->permutation;
}

static void open_setting(setting *s) {
    mdm_network_spec spec = {"preact_resnet10", 8, 16, 1, 28, 28, CLASSES};
    memset(s, 0, sizeof *s);
    s->device = test_device_open(reproducible ? 2 : 1, 0);
    test_device_join(s->device, comm);
    assert_int_equal(mdm_layout_create(&spec, &s->layout), MDM_OK);
    assert_int_equal(mdm_network_create(s->layout, 1, 0, &s->a), MDM_OK);
    assert_int_equal(mdm_network_create(s->layout, 1, 1, &s->b), MDM_OK);
    load_network(s->layout, s->a, "/step/semi/net_a");
    load_network(s->layout, s->b, "/step/semi/net_b");
    assert_int_equal(
        mdm_executor_create(s->device, comm, s->layout, MDM_FP32, MDM_BATCHNORM_SYNC, &s->executor), MDM_OK);
    if (reproducible) assert_int_equal(mdm_executor_make_reproducible(s->executor), MDM_OK);
    mdm_executor_set_batch(s->executor, 4, N);
    mdm_executor_set_joined(s->executor, joined);
    assert_int_equal(mdm_semi_workspace_create(comm, s->executor, s->layout, N, 0.05f, &s->workspace),
                     MDM_OK);
    assert_int_equal(mdm_semi_workspace_plan(s->workspace, N), MDM_OK);
    s->views = golden_floats("/step/semi/views", NULL);
    s->label = golden_ints("/step/semi/label", NULL);
    s->clean = golden_floats("/step/semi/clean_probability", NULL);
    s->permutation = golden_longs("/step/semi/permutation", NULL);
    s->options = (mdm_semi_options){.temperature = 0.5f,
                                    .confidence = 0.3f,
                                    .lambda_x = 1,
                                    .lambda_u = 100,
                                    .lambda_xe = 1,
                                    .lambda_ue = 100,
                                    .lambda_contrast = 1,
                                    .rce_weight = 1};
    s->batch = (mdm_semi_batch){.n = N, .groups = 4, .lambda = 0.7f, .ramp = 0.25f};
    mdm_comm_my_slice(comm, N, &s->batch.first, &s->batch.count);
    fill_batch(s);
    assert_int_equal(mdm_semi_plan_passes(s->executor, &s->options, (int)(4 * s->batch.count)), MDM_OK);
    assert_int_equal(mdm_executor_plan(s->executor, (int)(2 * s->batch.count), 1), MDM_OK);
}

static void close_setting(setting *s) {
    mdm_semi_workspace_destroy(s->workspace);
    mdm_executor_destroy(s->executor);
    mdm_network_destroy(s->a);
    mdm_network_destroy(s->b);
    mdm_layout_destroy(s->layout);
    mdm_device_free(s->device, s->images);
    mdm_device_destroy(s->device);
    free(s->views);
    free(s->clean);
    free(s->label);
    free(s->permutation);
}

/* As if an earlier step had left a gradient. */
static mdm_status leave_gradient(setting *s) {
    size_t bytes = sizeof(float) * (size_t)s->layout->weight_count;
    float *left = malloc(bytes);
    assert_non_null(left);
    for (int64_t i = 0; i < s->layout->weight_count; i++) left[i] = 7.0f;
    mdm_status status = mdm_device_upload(s->device, s->a->home.gradient, left, bytes);
    free(left);
    return status;
}

static mdm_status take_step_guided_by(setting *s, mdm_network *guesser, mdm_semi_result *result) {
    MDM_TRY(mdm_semi_tell(comm, s->executor, s->a, guesser, &s->batch, s->workspace));
    MDM_TRY(leave_gradient(s));
    MDM_TRY(mdm_semi_queue(comm, s->executor, s->a, guesser, &s->options, &s->batch, s->workspace));
    return mdm_semi_collect(&s->batch, s->workspace, result);
}

static mdm_status take_step(setting *s, mdm_semi_result *result) {
    return take_step_guided_by(s, s->b, result);
}

static void assert_golden_number(double value, const char *path, double tolerance) {
    float *expected = golden_floats(path, NULL), actual = (float)value;
    assert_close(&actual, expected, 1, 1e-6, tolerance, path);
    free(expected);
}

static void one_whole_mixematch_step_is_golden(void **state) {
    (void)state;
    setting s;
    mdm_semi_result result;
    open_setting(&s);
    assert_int_equal(take_step(&s, &result), MDM_OK);
    assert_int_equal(mdm_network_fetch(s.a), MDM_OK);
    assert_golden_number(result.parts[MDM_PART_X], "/step/semi/lx", 1e-4);
    assert_golden_number(result.parts[MDM_PART_U], "/step/semi/lu", 1e-3);
    assert_golden_number(result.parts[MDM_PART_XE], "/step/semi/lxe", 1e-4);
    assert_golden_number(result.parts[MDM_PART_UE], "/step/semi/lue", 1e-3);
    assert_golden_number(result.parts[MDM_PART_CONTRAST], "/step/semi/contrast", 1e-4);
    assert_golden_number(result.parts[MDM_PART_BALANCE], "/step/semi/balance", 1e-3);
    double square = 0;
    for (int64_t i = 0; i < s.layout->weight_count; i++)
        square += (double)s.a->gradient[i] * s.a->gradient[i];
    assert_true(fabs(result.gradient_square - square) <= 1e-9 * square);
    assert_golden_number(result.loss, "/step/semi/loss", 1e-4);
    for (int i = 0; i < s.layout->tensor_count; i++) {
        const mdm_tensor_info *t = &s.layout->tensors[i];
        int statistic = t->role == MDM_TENSOR_STATISTIC;
        char path[256];
        snprintf(path, sizeof path, "/step/semi/%s/%s", statistic ? "after_step_a" : "grad_a", t->name);
        float *expected = golden_floats(path, NULL);
        const float *actual = (statistic ? s.a->statistics : s.a->gradient) + t->offset;
        double largest = 0;
        for (int64_t j = 0; j < t->count; j++) largest = fmax(largest, fabs(expected[j]));
        assert_close(actual, expected, t->count, 5e-5 + 2e-3 * largest, 2e-3, path);
        free(expected);
    }
    close_setting(&s);
}

static void the_guesser_is_only_read(void **state) {
    (void)state;
    setting s;
    mdm_semi_result result;
    open_setting(&s);
    float *before = malloc(sizeof(float) * (size_t)s.layout->statistic_count);
    memcpy(before, s.b->statistics, sizeof(float) * (size_t)s.layout->statistic_count);
    assert_int_equal(take_step(&s, &result), MDM_OK);
    assert_int_equal(mdm_network_fetch(s.b), MDM_OK);
    assert_memory_equal(before, s.b->statistics, sizeof(float) * (size_t)s.layout->statistic_count);
    free(before);
    close_setting(&s);
}

/* Two groups: no unlabelled samples, so no consistency, and contrast between the labelled views. */
static void a_step_without_unlabelled_samples_has_no_consistency_part(void **state) {
    (void)state;
    setting s;
    mdm_semi_result result;
    open_setting(&s);
    s.batch.groups = 2;
    mdm_executor_set_batch(s.executor, 2, N);
    assert_int_equal(mdm_semi_plan_passes(s.executor, &s.options, (int)(2 * s.batch.count)), MDM_OK);
    for (int64_t i = 0; i < 2 * N; i++) s.permutation[i] = (i + 3) % (2 * N);
    assert_int_equal(take_step(&s, &result), MDM_OK);
    assert_true(result.parts[MDM_PART_U] == 0 && result.parts[MDM_PART_UE] == 0);
    assert_true(result.parts[MDM_PART_X] > 0 && isfinite(result.loss));
    close_setting(&s);
}

/* Gradients and running statistics, but for what convolutions of other batches round otherwise. That of the
 * first batch norm's scale is next to nothing, as the next one takes it out: rounding of sums of much more.
 */
static void assert_same_but_for_rounding(const setting *a, const setting *b) {
    assert_close(b->a->statistics, a->a->statistics, a->layout->statistic_count, 1e-5, 1e-5,
                 "running statistics");
    for (int i = 0; i < a->layout->tensor_count; i++) {
        const mdm_tensor_info *t = &a->layout->tensors[i];
        const float *expected = a->a->gradient + t->offset;
        double largest = 0;
        if (t->role == MDM_TENSOR_STATISTIC) continue;
        for (int64_t j = 0; j < t->count; j++) largest = fmax(largest, fabs(expected[j]));
        assert_close(b->a->gradient + t->offset, expected, t->count, 2e-5 + 2e-3 * largest, 2e-3, t->name);
    }
}

/* Weights so small that the strong pass is run and adds nothing that a float could hold, and weights of zero.
 * Where passes are joined, those are convolutions of three passes and of two, which a device's library may
 * compute with different engines; a pass by itself is the same to the bit. */
static void
a_step_without_losses_of_strong_views_has_the_gradient_of_one_where_they_weigh_nothing(void **state) {
    (void)state;
    setting s[2];
    mdm_semi_result result[2];
    for (int i = 0; i < 2; i++) {
        const float weight = i == 0 ? 1e-30f : 0.0f;
        open_setting(&s[i]);
        assert_int_equal(take_step(&s[i], &result[i]), MDM_OK); /* nothing of its losses stays */
        s[i].options.lambda_xe = s[i].options.lambda_ue = s[i].options.lambda_contrast = weight;
        assert_int_equal(mdm_semi_has_strong_pass(&s[i].options), i == 0);
        assert_int_equal(mdm_semi_plan_passes(s[i].executor, &s[i].options, (int)(4 * s[i].batch.count)),
                         MDM_OK);
        assert_int_equal(take_step(&s[i], &result[i]), MDM_OK);
        assert_int_equal(mdm_network_fetch(s[i].a), MDM_OK);
    }
    const double part_off = fabs(result[0].parts[MDM_PART_X] - result[1].parts[MDM_PART_X]),
                 loss_off = fabs(result[0].loss - result[1].loss);
    if (joined) {
        assert_same_but_for_rounding(&s[0], &s[1]);
        assert_true(part_off < 1e-5 * result[1].parts[MDM_PART_X] && loss_off < 1e-5 * result[1].loss);
    } else {
        for (int64_t j = 0; j < s[0].layout->weight_count; j++)
            assert_true(fabsf(s[0].a->gradient[j] - s[1].a->gradient[j]) < 1e-20f);
        assert_memory_equal(s[0].a->statistics, s[1].a->statistics,
                            sizeof(float) * (size_t)s[0].layout->statistic_count);
        assert_true(part_off == 0 && loss_off < 1e-12);
    }
    assert_true(result[0].parts[MDM_PART_XE] > 0 && result[0].parts[MDM_PART_CONTRAST] > 0);
    assert_true(result[1].parts[MDM_PART_XE] == 0 && result[1].parts[MDM_PART_UE] == 0 &&
                result[1].parts[MDM_PART_CONTRAST] == 0 && result[1].loss > 0);
    for (int i = 0; i < 2; i++) close_setting(&s[i]);
}

/* The same gradient and statistics but for rounding: of joined passes, and of one after another. No other
 * pass comes before them, as nobody else guesses. */
static void joined_passes_are_those_in_turn_whatever_batch_norm_normalises_with(void **state) {
    (void)state;
    static const mdm_batchnorm modes[] = {MDM_BATCHNORM_SYNC, MDM_BATCHNORM_LOCAL, MDM_BATCHNORM_FROZEN};
    if (!joined) skip();
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        setting s[2];
        mdm_semi_result result[2];
        for (int i = 0; i < 2; i++) {
            joined = i;
            open_setting(&s[i]);
            mdm_executor_set_batchnorm(s[i].executor, modes[m]);
            assert_int_equal(take_step_guided_by(&s[i], NULL, &result[i]), MDM_OK);
            assert_int_equal(mdm_network_fetch(s[i].a), MDM_OK);
        }
        assert_true(fabs(result[0].loss - result[1].loss) < 1e-5 * fabs(result[0].loss));
        assert_true(fabs(result[0].gradient_square - result[1].gradient_square) <
                    1e-3 * result[0].gradient_square);
        assert_same_but_for_rounding(&s[0], &s[1]);
        for (int i = 0; i < 2; i++) close_setting(&s[i]);
    }
}

static void passes_are_joined_on_devices_alone_and_only_where_they_fit(void **state) {
    (void)state;
    setting s;
    open_setting(&s);
    assert_int_equal(mdm_executor_can_join(s.executor, 4 * N, MDM_SEMI_PASSES), test_device_is_cuda());
    assert_int_equal(mdm_executor_can_join(s.executor, 1 << 20, MDM_SEMI_PASSES), 0); /* 2^31 elements */
    mdm_executor_set_chunks(s.executor, N);
    assert_int_equal(mdm_executor_can_join(s.executor, 4 * N, MDM_SEMI_PASSES), 0);
    close_setting(&s);
}

/* ---- steps with the optimizer behind them, recorded and replayed where the device can ---- */

enum { STEPS = 6, SPIKE_AT = 4, RECORDED_AT = 1 };

typedef struct step_work {
    setting *s;
    int calls, fails_at; /* fails_at: of the calls, from 0; none: -1 */
} step_work;

static mdm_status queue_step(void *context) {
    step_work *w = context;
    setting *s = w->s;
    MDM_TRY(mdm_semi_queue(comm, s->executor, s->a, s->b, &s->options, &s->batch, s->workspace));
    if (w->calls++ == w->fails_at) return mdm_fail(MDM_RESOURCE, "the test has this recording fail");
    mdm_network_step(s->device, s->a, MDM_STEP_ALL, mdm_semi_orders(s->workspace),
                     mdm_semi_verdict(s->workspace), 0.9f, 5e-4f);
    return MDM_OK;
}

/* What changes from step to step. */
static void change_batch(setting *s, int step) {
    s->batch.lambda = 0.5f + 0.08f * (float)step;
    s->batch.ramp = 0.25f * (float)step;
    s->batch.orders = (mdm_step_orders){.square_limit = INFINITY,
                                        .loss_limit = step == SPIKE_AT ? 1e-3 : INFINITY,
                                        .rate_encoder = 0.01f / (float)(step + 1),
                                        .rate_heads = 0.02f};
    for (int64_t i = 0; i < N; i++) s->label[i] = (s->label[i] + 1) % CLASSES;
    for (int64_t i = 0; i < 4 * N; i++) s->permutation[i] = (s->permutation[i] + 1) % (4 * N);
}

/* Weights, momentum and statistics after every step, one after another, and the steps' results. */
typedef struct course {
    float *values;
    size_t floats; /* of a step */
    mdm_semi_result results[STEPS];
    int was_on; /* at the end: steps were recorded */
} course;

static course take_steps(int is_recorded, int fails_at) {
    setting s;
    course c = {0};
    mdm_recorder *recorder;
    open_setting(&s);
    step_work work = {&s, 0, -1};
    size_t weights = (size_t)s.layout->weight_count, statistics = (size_t)s.layout->statistic_count;
    c.floats = 2 * weights + statistics;
    c.values = malloc(sizeof(float) * c.floats * STEPS);
    assert_non_null(c.values);
    assert_int_equal(mdm_recorder_create(comm, s.executor, is_recorded, &recorder), MDM_OK);
    assert_int_equal(mdm_recorder_is_on(recorder),
                     is_recorded &&
                         (mdm_comm_size(comm) == 1 || mdm_group_is_queued(mdm_executor_group(s.executor))));
    if (mdm_recorder_is_on(recorder)) work.fails_at = fails_at; /* otherwise nothing is recorded that could */
    assert_int_equal(mdm_recorder_begin(recorder), MDM_OK);
    for (int step = 0; step < STEPS; step++) {
        const mdm_step_kind kind = {.groups = 4, .n = N};
        float *to = c.values + c.floats * (size_t)step;
        change_batch(&s, step);
        assert_int_equal(mdm_network_send(s.a, s.device), MDM_OK);
        assert_int_equal(mdm_semi_tell(comm, s.executor, s.a, s.b, &s.batch, s.workspace), MDM_OK);
        assert_int_equal(mdm_recorder_queue(recorder, &kind, s.a, queue_step, &work), MDM_OK);
        assert_int_equal(mdm_semi_collect(&s.batch, s.workspace, &c.results[step]), MDM_OK);
        assert_int_equal(mdm_network_fetch(s.a), MDM_OK);
        memcpy(to, s.a->weights, sizeof(float) * weights);
        memcpy(to + weights, s.a->velocity, sizeof(float) * weights);
        memcpy(to + 2 * weights, s.a->statistics, sizeof(float) * statistics);
    }
    c.was_on = mdm_recorder_is_on(recorder);
    mdm_recorder_destroy(recorder);
    close_setting(&s);
    return c;
}

static void assert_same_course(const course *a, const course *b) {
    for (int step = 0; step < STEPS; step++) {
        const size_t at = a->floats * (size_t)step;
        assert_int_equal(a->results[step].verdict, step == SPIKE_AT ? MDM_STEP_IS_SPIKE : MDM_STEP_IS_SOUND);
        assert_true(a->results[step].loss == b->results[step].loss);
        assert_true(a->results[step].gradient_square == b->results[step].gradient_square);
        assert_memory_equal(a->values + at, b->values + at, sizeof(float) * a->floats);
    }
}

static void replayed_steps_are_the_launched_ones_to_the_bit(void **state) {
    (void)state;
    if (!test_device_is_cuda()) skip(); /* nothing is recorded there */
    course launched = take_steps(0, -1), replayed = take_steps(1, -1);
    assert_same_course(&launched, &replayed);
    free(launched.values);
    free(replayed.values);
}

/* A recording that is given up has made no copies of weights, whatever it was about to. */
static void steps_whose_recording_fails_are_launched_to_the_bit(void **state) {
    (void)state;
    if (!test_device_is_cuda()) skip(); /* nothing is recorded there */
    course launched = take_steps(0, -1), tried = take_steps(1, RECORDED_AT);
    assert_false(tried.was_on);
    assert_same_course(&launched, &tried);
    free(launched.values);
    free(tried.values);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_whole_mixematch_step_is_golden),
        cmocka_unit_test(the_guesser_is_only_read),
        cmocka_unit_test(a_step_without_unlabelled_samples_has_no_consistency_part),
        cmocka_unit_test(
            a_step_without_losses_of_strong_views_has_the_gradient_of_one_where_they_weigh_nothing),
        cmocka_unit_test(joined_passes_are_those_in_turn_whatever_batch_norm_normalises_with),
        cmocka_unit_test(passes_are_joined_on_devices_alone_and_only_where_they_fit),
        cmocka_unit_test(replayed_steps_are_the_launched_ones_to_the_bit),
        cmocka_unit_test(steps_whose_recording_fails_are_launched_to_the_bit),
    };
    test_device_or_skip();
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    joined = test_device_is_cuda();
    reproducible = !joined;
    failed += cmocka_run_group_tests_name(joined ? "joined passes" : "reproducible sums", tests, NULL, NULL);
    mdm_comm_finish(comm);
    return failed;
}
