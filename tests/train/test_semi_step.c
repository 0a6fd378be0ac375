/* One MixEMatch step of two networks against the golden numbers, on any number of ranks. */
#include "golden.h"
#include "mdm/train/semi_step.h"
#include "test_device.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mdm_comm *comm;
static int reproducible; /* the second round of all tests */
enum { N = 6, IMAGE = 28 * 28, CLASSES = 8 };

typedef struct setting {
    mdm_device *device;
    mdm_layout *layout;
    mdm_network *a, *b;
    mdm_executor *executor;
    mdm_semi_workspace *workspace;
    mdm_semi_options options;
    mdm_semi_batch batch;
    float *weak, *strong, *partner; /* in the device's memory */
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
    size_t bytes = sizeof(float) * (size_t)(rows * IMAGE);
    float *weak = malloc(bytes + 1), *strong = malloc(bytes + 1), *partner = malloc(bytes + 1);
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = i / b->count * N + b->first + i % b->count;
        memcpy(weak + i * IMAGE, view_of(s, row, 0), sizeof(float) * IMAGE);
        memcpy(strong + i * IMAGE, view_of(s, row, 1), sizeof(float) * IMAGE);
        memcpy(partner + i * IMAGE, view_of(s, s->permutation[row], 1), sizeof(float) * IMAGE);
    }
    b->weak = s->weak = test_device_copy(s->device, weak, bytes);
    b->strong = s->strong = test_device_copy(s->device, strong, bytes);
    b->partner = s->partner = test_device_copy(s->device, partner, bytes);
    free(weak);
    free(strong);
    free(partner);
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
    assert_int_equal(mdm_executor_plan(s->executor, (int)(4 * s->batch.count), 0), MDM_OK);
    assert_int_equal(mdm_executor_plan(s->executor, (int)(2 * s->batch.count), 1), MDM_OK);
}

static void close_setting(setting *s) {
    mdm_semi_workspace_destroy(s->workspace);
    mdm_executor_destroy(s->executor);
    mdm_network_destroy(s->a);
    mdm_network_destroy(s->b);
    mdm_layout_destroy(s->layout);
    mdm_device_free(s->device, s->weak);
    mdm_device_free(s->device, s->strong);
    mdm_device_free(s->device, s->partner);
    mdm_device_destroy(s->device);
    free(s->views);
    free(s->clean);
    free(s->label);
    free(s->permutation);
}

static mdm_status take_step(setting *s, mdm_semi_result *result) {
    MDM_TRY(mdm_semi_tell(comm, s->executor, s->a, s->b, &s->batch, s->workspace));
    MDM_TRY(mdm_semi_queue(comm, s->executor, s->a, s->b, &s->options, &s->batch, s->workspace));
    return mdm_semi_collect(&s->batch, s->workspace, result);
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
    assert_int_equal(mdm_executor_plan(s.executor, (int)(2 * s.batch.count), 0), MDM_OK);
    for (int64_t i = 0; i < 2 * N; i++) s.permutation[i] = (i + 3) % (2 * N);
    assert_int_equal(take_step(&s, &result), MDM_OK);
    assert_true(result.parts[MDM_PART_U] == 0 && result.parts[MDM_PART_UE] == 0);
    assert_true(result.parts[MDM_PART_X] > 0 && isfinite(result.loss));
    close_setting(&s);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_whole_mixematch_step_is_golden),
        cmocka_unit_test(the_guesser_is_only_read),
        cmocka_unit_test(a_step_without_unlabelled_samples_has_no_consistency_part),
    };
    test_device_or_skip();
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    reproducible = 1;
    if (!test_device_is_cuda()) failed += cmocka_run_group_tests_name("reproducible sums", tests, NULL, NULL);
    mdm_comm_finish(comm);
    return failed;
}
