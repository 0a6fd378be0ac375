/* Networks against the golden numbers: forward, every gradient, running statistics and three optimizer steps,
 * the same on any number of ranks; and finite differences through the whole network. */
#include "golden.h"
#include "loss_oracle.h"
#include "mdm/base/random.h"
#include "mdm/comm/comm.h"
#include "mdm/model/executor.h"
#include "test_device.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mdm_comm *comm;
static int reproducible; /* the second round of all tests */

typedef struct golden_network {
    const char *group;
    mdm_network_spec spec;
    int rows;
    const char *file; /* NULL: golden.h5 */
} golden_network;

/* the last two are torchvision's blocks behind the ImageNet stem: tests/golden/make_resnet_stem.py */
static const golden_network networks[] = {
    {"/net/slim10", {"preact_resnet10", 8, 16, 1, 28, 28, 8}, 8, NULL},
    {"/net/slim18", {"preact_resnet18", 8, 16, 3, 32, 32, 10}, 8, NULL},
    {"/net/mini84", {"preact_resnet10", 8, 16, 3, 84, 84, 10}, 4, NULL},
    {"/net/stem18", {"resnet18", 4, 16, 3, 36, 36, 10}, 8, MDM_STEM_FILE},
    {"/net/stem50", {"resnet50", 2, 16, 3, 64, 64, 6}, 8, MDM_STEM_FILE},
};
enum { NETWORKS = sizeof networks / sizeof *networks };

typedef struct bench {
    const golden_network *golden;
    mdm_device *device;
    mdm_layout *layout;
    mdm_network *network;
    mdm_executor *executor;
    float *images; /* this rank's rows, in the device's memory */
    int32_t *label;
    int64_t first, count;                   /* this rank's rows */
    float *embedding, *projection, *logits; /* this rank's rows of the latest outputs */
} bench;

static void path_of(char *path, const char *group, const char *sub, const char *name) {
    snprintf(path, 256, "%s/%s%s%s", group, sub, *sub ? "/" : "", name);
}

static void load_values(bench *b, const char *sub, float *weights, float *statistics) {
    char path[256];
    for (int i = 0; i < b->layout->tensor_count; i++) {
        const mdm_tensor_info *t = &b->layout->tensors[i];
        float *to = t->role == MDM_TENSOR_STATISTIC ? statistics : weights;
        int64_t count;
        if (!to) continue;
        path_of(path, b->golden->group, sub, t->name);
        float *values = golden_floats(path, &count);
        assert_int_equal(count, t->count);
        memcpy(to + t->offset, values, sizeof(float) * (size_t)count);
        free(values);
    }
}

static float *golden_values(bench *b, const char *sub, int statistics) {
    float *values =
        calloc((size_t)(statistics ? b->layout->statistic_count : b->layout->weight_count), sizeof(float));
    assert_non_null(values);
    load_values(b, sub, statistics ? NULL : values, statistics ? values : NULL);
    return values;
}

static void bench_open(bench *b, int number, mdm_precision precision, mdm_batchnorm batchnorm) {
    char path[256];
    memset(b, 0, sizeof *b);
    b->golden = &networks[number];
    golden_use(b->golden->file);
    const mdm_network_spec *s = &b->golden->spec;
    b->device = test_device_open(reproducible && mdm_comm_size(comm) == 1 ? 2 : 1, 0);
    test_device_join(b->device, comm);
    assert_int_equal(mdm_layout_create(s, &b->layout), MDM_OK);
    assert_int_equal(mdm_network_create(b->layout, 1, 0, &b->network), MDM_OK);
    assert_int_equal(mdm_executor_create(b->device, comm, b->layout, precision, batchnorm, &b->executor),
                     MDM_OK);
    if (reproducible) assert_int_equal(mdm_executor_make_reproducible(b->executor), MDM_OK);
    mdm_executor_set_batch(b->executor, 1, b->golden->rows);
    load_values(b, "initial", b->network->weights, b->network->statistics);
    mdm_network_touch(b->network);
    mdm_comm_my_slice(comm, b->golden->rows, &b->first, &b->count);
    size_t image = (size_t)s->channels * s->height * s->width;
    path_of(path, b->golden->group, "", "x");
    float *all = golden_floats(path, NULL);
    b->images =
        test_device_copy(b->device, all + image * (size_t)b->first, image * (size_t)b->count * sizeof(float));
    free(all);
    path_of(path, b->golden->group, "", "label");
    b->label = golden_ints(path, NULL);
    b->embedding = calloc((size_t)(b->count * b->layout->embedding) + 1, sizeof(float));
    b->projection = calloc((size_t)(b->count * s->projection) + 1, sizeof(float));
    b->logits = calloc((size_t)(b->count * s->classes) + 1, sizeof(float));
    assert_int_equal(mdm_executor_plan(b->executor, (int)b->count, 0), MDM_OK);
}

static void forward(bench *b, mdm_pass pass) {
    mdm_outputs out;
    assert_int_equal(mdm_executor_forward(b->executor, b->network, (int)b->count, b->images, pass, &out),
                     MDM_OK);
    struct {
        float *to;
        const float *from;
        int width;
    } outputs[] = {{b->embedding, out.embedding, b->layout->embedding},
                   {b->projection, out.projection, b->golden->spec.projection},
                   {b->logits, out.logits, b->golden->spec.classes}};
    assert_int_equal(out.projection == NULL, pass == MDM_PASS_EVALUATE);
    for (int i = 0; i < 3; i++)
        if (outputs[i].from)
            assert_int_equal(mdm_device_download(b->device, outputs[i].to, outputs[i].from,
                                                 sizeof(float) * (size_t)b->count * (size_t)outputs[i].width),
                             MDM_OK);
}

static void bench_close(bench *b) {
    free(b->embedding);
    free(b->projection);
    free(b->logits);
    mdm_executor_destroy(b->executor);
    mdm_network_destroy(b->network);
    mdm_layout_destroy(b->layout);
    mdm_device_free(b->device, b->images);
    mdm_device_destroy(b->device);
    free(b->label);
}

/* This rank's rows of [count, width] put at their place among all rows. */
static float *gather_rows(bench *b, const float *mine, int width) {
    float *all = calloc((size_t)b->golden->rows * (size_t)width, sizeof(float));
    int64_t counts[16];
    for (int r = 0; r < mdm_comm_size(comm); r++) {
        int64_t first;
        mdm_comm_slice(b->golden->rows, r, mdm_comm_size(comm), &first, &counts[r]);
        counts[r] *= width;
    }
    assert_int_equal(mdm_comm_all_gather(comm, mine, b->count * width, all, counts, MDM_FLOAT), MDM_OK);
    return all;
}

/* mean sce_hard + 0.1 nt_xent(first half, second half, 0.5), over all ranks' rows; gradients of this rank's
 * rows. */
static double golden_loss(bench *b, float *logits_gradient, float *projection_gradient) {
    const mdm_network_spec *s = &b->golden->spec;
    int rows = b->golden->rows, pairs = rows / 2, p = s->projection;
    float *logits = gather_rows(b, b->logits, s->classes), *loss = calloc((size_t)rows, sizeof(float));
    float *z = gather_rows(b, b->projection, p), *norm = calloc((size_t)rows, sizeof(float));
    float *unit_gradient = calloc((size_t)(rows * p), sizeof(float));
    mdm_sce_hard_forward(logits, b->label, rows, s->classes, 1, 1, loss);
    double value = oracle_sum(loss, NULL, rows) / rows;
    mdm_normalize_forward(z, rows, p, z, norm);
    value += 0.1 * oracle_nt_xent(z, pairs, 0, pairs, p, 0.5, 0.1 / rows, unit_gradient) / rows;
    mdm_normalize_backward(z, norm, unit_gradient, rows, p, unit_gradient);
    memset(logits_gradient, 0, sizeof(float) * (size_t)(b->count * s->classes));
    mdm_sce_hard_backward(b->logits, b->label + b->first, NULL, b->count, s->classes, 1, 1,
                          1.0f / (float)rows, logits_gradient);
    memcpy(projection_gradient, unit_gradient + b->first * p, sizeof(float) * (size_t)(b->count * p));
    free(logits);
    free(loss);
    free(z);
    free(norm);
    free(unit_gradient);
    return value;
}

static double forward_and_backward(bench *b) {
    const mdm_network_spec *s = &b->golden->spec;
    float *dlogits = calloc((size_t)(b->count * s->classes) + 1, sizeof(float));
    float *dprojection = calloc((size_t)(b->count * s->projection) + 1, sizeof(float));
    forward(b, MDM_PASS_TRAIN);
    double loss = golden_loss(b, dlogits, dprojection);
    float *logits = test_device_copy(b->device, dlogits, sizeof(float) * (size_t)(b->count * s->classes));
    float *projection =
        test_device_copy(b->device, dprojection, sizeof(float) * (size_t)(b->count * s->projection));
    assert_int_equal(mdm_executor_backward(b->executor, b->network, (int)b->count, b->images, NULL,
                                           projection, logits, 0, 1),
                     MDM_OK);
    mdm_device_free(b->device, logits);
    mdm_device_free(b->device, projection);
    assert_int_equal(mdm_executor_reduce_wait(b->executor, b->network), MDM_OK);
    assert_int_equal(mdm_network_fetch(b->network), MDM_OK);
    free(dlogits);
    free(dprojection);
    return loss;
}

static void assert_rows(bench *b, const float *mine, int width, const char *name, double tolerance) {
    char path[256];
    path_of(path, b->golden->group, "", name);
    float *expected = golden_floats(path, NULL), *all = gather_rows(b, mine, width);
    assert_close(all, expected, (int64_t)b->golden->rows * width, tolerance, tolerance, path);
    free(all);
    free(expected);
}

static void assert_tensors(bench *b, const float *actual, const float *expected, int statistics,
                           double absolute, double relative) {
    for (int i = 0; i < b->layout->tensor_count; i++) {
        const mdm_tensor_info *t = &b->layout->tensors[i];
        if ((t->role == MDM_TENSOR_STATISTIC) != statistics) continue;
        double largest = 0; /* tolerances are relative to the tensor's size, not to each element's */
        for (int64_t j = 0; j < t->count; j++) largest = fmax(largest, fabs(expected[t->offset + j]));
        assert_close(actual + t->offset, expected + t->offset, t->count, absolute + relative * largest,
                     relative, t->name);
    }
}

static void check_network(int number) {
    bench b;
    bench_open(&b, number, MDM_FP32, MDM_BATCHNORM_SYNC);
    double loss = forward_and_backward(&b);
    assert_rows(&b, b.embedding, b.layout->embedding, "embedding", 2e-5);
    assert_rows(&b, b.projection, b.golden->spec.projection, "projection", 2e-4);
    assert_rows(&b, b.logits, b.golden->spec.classes, "logits", 2e-5);
    char path[256];
    path_of(path, b.golden->group, "", "loss");
    float *expected_loss = golden_floats(path, NULL), value = (float)loss;
    assert_close(&value, expected_loss, 1, 1e-5, 1e-5, path);
    free(expected_loss);
    float *expected = golden_values(&b, "grad", 0);
    assert_tensors(&b, b.network->gradient, expected, 0, 5e-6, 5e-4);
    free(expected);
    expected = golden_values(&b, "after_forward", 1);
    assert_tensors(&b, b.network->statistics, expected, 1, 1e-6, 1e-5);
    free(expected);
    bench_close(&b);
}

static void every_output_and_gradient_of_the_slim_resnet10_is_golden(void **state) {
    (void)state;
    check_network(0);
}

static void every_output_and_gradient_of_the_slim_resnet18_is_golden(void **state) {
    (void)state;
    check_network(1);
}

static void every_output_and_gradient_at_84_pixels_is_golden(void **state) {
    (void)state;
    check_network(2);
}

static void every_output_and_gradient_of_torchvisions_resnet18_is_golden(void **state) {
    (void)state;
    check_network(3);
}

static void every_output_and_gradient_of_torchvisions_resnet50_is_golden(void **state) {
    (void)state;
    check_network(4);
}

/* The golden steps begin after a forward pass that moved the statistics once. */
static void three_optimizer_steps_and_the_evaluation_after_them_are_golden(void **state) {
    (void)state;
    for (int number = 0; number < NETWORKS; number++) {
        bench b;
        char path[256];
        bench_open(&b, number, MDM_FP32, MDM_BATCHNORM_SYNC);
        path_of(path, b.golden->group, "", "sgd_losses");
        float *expected = golden_floats(path, NULL), losses[3];
        const mdm_step_orders orders = {.rate_encoder = 0.02f, .rate_heads = 0.2f};
        const double sound = MDM_STEP_IS_SOUND;
        mdm_step_orders *told = test_device_copy(b.device, &orders, sizeof orders);
        double *verdict = test_device_copy(b.device, &sound, sizeof sound);
        forward_and_backward(&b);
        for (int step = 0; step < 3; step++) {
            losses[step] = (float)forward_and_backward(&b);
            mdm_network_step(b.device, b.network, MDM_STEP_ALL, told, verdict, 0.9f, 5e-4f);
        }
        mdm_device_free(b.device, told);
        mdm_device_free(b.device, verdict);
        assert_close(losses, expected, 3, 2e-3, 2e-3, path);
        free(expected);
        assert_int_equal(mdm_network_fetch(b.network), MDM_OK);
        expected = golden_values(&b, "after_sgd", 0);
        assert_tensors(&b, b.network->weights, expected, 0, 1e-4, 5e-3);
        free(expected);
        assert_int_equal(mdm_executor_plan(b.executor, (int)b.count, 1), MDM_OK);
        forward(&b, MDM_PASS_EVALUATE);
        assert_rows(&b, b.logits, b.golden->spec.classes, "eval_logits", 2e-2);
        bench_close(&b);
    }
}

/* Loss along a random direction of all weights, against the gradient. */
static void the_gradient_is_the_slope_of_the_loss_in_random_directions(void **state) {
    (void)state;
    mdm_batchnorm modes[2] = {MDM_BATCHNORM_SYNC, MDM_BATCHNORM_FROZEN};
    for (int m = 0; m < 2; m++) {
        bench b;
        bench_open(&b, 0, MDM_FP32, modes[m]);
        int64_t n = b.layout->weight_count;
        float *start = malloc(sizeof(float) * (size_t)n), *gradient = malloc(sizeof(float) * (size_t)n);
        forward_and_backward(&b);
        memcpy(start, b.network->weights, sizeof(float) * (size_t)n);
        memcpy(gradient, b.network->gradient, sizeof(float) * (size_t)n);
        for (uint32_t direction = 0; direction < 3; direction++) {
            double slope = 0, values[2], h = 2e-3;
            for (int side = 0; side < 2; side++) {
                mdm_random random = mdm_random_stream(3, MDM_RANDOM_TEST, 0, direction, 0);
                slope = 0;
                for (int64_t i = 0; i < n; i++) {
                    double d = mdm_random_normal(&random) * (fabs(start[i]) + 1e-3);
                    slope += d * gradient[i];
                    b.network->weights[i] = (float)(start[i] + (side ? h : -h) * d);
                }
                mdm_network_touch(b.network);
                values[side] = forward_and_backward(&b);
            }
            double measured = (values[1] - values[0]) / (2 * h);
            if (fabs(measured - slope) > 0.02 * fabs(slope) + 0.02)
                fail_msg("direction %u: slope %g, measured %g", direction, slope, measured);
        }
        free(start);
        free(gradient);
        bench_close(&b);
    }
}

/* With frozen batch norm nothing ties the rows of a batch together: chunks must add up to the whole. */
static void a_batch_in_chunks_has_the_outputs_and_gradients_of_the_whole(void **state) {
    (void)state;
    bench whole, chunked;
    if (reproducible) return; /* that has its own way to cut a batch */
    bench_open(&whole, 0, MDM_FP32, MDM_BATCHNORM_FROZEN);
    bench_open(&chunked, 0, MDM_FP32, MDM_BATCHNORM_FROZEN);
    int groups = mdm_comm_size(comm) == 3 ? 1 : 2; /* three ranks have odd slices */
    mdm_executor_set_chunks(chunked.executor, 1);
    mdm_executor_set_batch(chunked.executor, groups, chunked.golden->rows / groups);
    assert_int_equal(mdm_executor_plan(chunked.executor, (int)chunked.count, 0), MDM_OK);
    double loss = forward_and_backward(&whole), other = forward_and_backward(&chunked);
    if (fabs(loss - other) > 1e-6 * fabs(loss)) fail_msg("losses %.9g and %.9g", loss, other);
    assert_close(chunked.embedding, whole.embedding, whole.count * whole.layout->embedding, 1e-6, 1e-5,
                 "embedding");
    assert_tensors(&chunked, chunked.network->gradient, whole.network->gradient, 0, 1e-6, 1e-4);
    size_t least = mdm_executor_bytes(chunked.executor, 1);
    assert_true(least < mdm_executor_bytes(chunked.executor, (int)whole.count) || whole.count == 1);
    bench_close(&whole);
    bench_close(&chunked);
}

/* A step that is skipped leaves nothing behind in the sums. */
static void a_gradient_that_is_not_finite_is_gone_with_the_next_one(void **state) {
    (void)state;
    bench b;
    bench_open(&b, 0, MDM_FP32, MDM_BATCHNORM_FROZEN);
    int64_t count = b.layout->weight_count, place = b.layout->tensors[b.layout->classifier_weight].offset;
    float *before = calloc((size_t)count, sizeof(float)), weight = b.network->weights[place];
    assert_non_null(before);
    forward_and_backward(&b);
    memcpy(before, b.network->gradient, sizeof(float) * (size_t)count);
    b.network->weights[place] = NAN;
    mdm_network_touch(b.network);
    forward_and_backward(&b);
    int64_t bad = 0;
    for (int64_t i = 0; i < count; i++) bad += !isfinite(b.network->gradient[i]);
    assert_true(bad > 0);
    b.network->weights[place] = weight;
    mdm_network_touch(b.network);
    forward_and_backward(&b);
    assert_close(b.network->gradient, before, count, 1e-7, 1e-6, "gradient");
    free(before);
    bench_close(&b);
}

static void bfloat16_follows_single_precision_within_its_rounding(void **state) {
    (void)state;
    bench b;
    mdm_device *device = test_device_open(1, 1);
    int able = mdm_device_get_info(device)->has_bf16;
    mdm_device_destroy(device);
    if (!able) {
        print_message("this processor has no bfloat16 arithmetic\n");
        skip();
    }
    bench_open(&b, 1, MDM_BF16, MDM_BATCHNORM_SYNC);
    forward_and_backward(&b);
    assert_rows(&b, b.logits, b.golden->spec.classes, "logits", 0.06);
    float *expected = golden_values(&b, "grad", 0);
    double dot = 0, a2 = 0, b2 = 0;
    for (int64_t i = 0; i < b.layout->weight_count; i++) {
        dot += (double)b.network->gradient[i] * expected[i];
        a2 += (double)b.network->gradient[i] * b.network->gradient[i];
        b2 += (double)expected[i] * expected[i];
    }
    /* PyTorch's own bfloat16 reaches a cosine of 0.976 on this network */
    if (dot / sqrt(a2 * b2) < 0.97) fail_msg("cosine of the gradients is %g", dot / sqrt(a2 * b2));
    free(expected);
    bench_close(&b);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_output_and_gradient_of_the_slim_resnet10_is_golden),
        cmocka_unit_test(every_output_and_gradient_of_the_slim_resnet18_is_golden),
        cmocka_unit_test(every_output_and_gradient_at_84_pixels_is_golden),
        cmocka_unit_test(every_output_and_gradient_of_torchvisions_resnet18_is_golden),
        cmocka_unit_test(every_output_and_gradient_of_torchvisions_resnet50_is_golden),
        cmocka_unit_test(three_optimizer_steps_and_the_evaluation_after_them_are_golden),
        cmocka_unit_test(the_gradient_is_the_slope_of_the_loss_in_random_directions),
        cmocka_unit_test(a_batch_in_chunks_has_the_outputs_and_gradients_of_the_whole),
        cmocka_unit_test(a_gradient_that_is_not_finite_is_gone_with_the_next_one),
        cmocka_unit_test(bfloat16_follows_single_precision_within_its_rounding),
    };
    test_device_or_skip();
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    reproducible = 1;
    if (!test_device_is_cuda()) failed += cmocka_run_group_tests_name("reproducible sums", tests, NULL, NULL);
    mdm_comm_finish(comm);
    return failed;
}
