/* Filters: what the optimizer writes beside the weights is, to the bit, what a convolution makes of these by
 * itself, and so are gradients; weights and momentum are those of the plain step. */
#include "mdm/base/random.h"
#include "mdm/device/filters.h"
#include "mdm/device/losses.h"
#include "test_device.h"
#include <math.h>

/* Tensors among other weights: the first pieces hold many outputs, the last ones parts of one; channels in
 * whole blocks and not. */
enum { TENSORS = 7, BETWEEN = 37, HEIGHT = 6, WIDTH = 5, BATCH = 2 };
static const struct {
    int in, out, kernel;
} sizes[TENSORS] = {{3, 5, 7}, {3, 16, 3}, {16, 24, 3}, {40, 130, 1}, {2100, 3, 1}, {300, 9, 3}, {64, 8, 7}};

typedef struct model {
    mdm_device *device;
    mdm_precision precision;
    mdm_filter_shape shapes[TENSORS];
    int64_t count;
    float *host[3], *first[3], *second[3]; /* weights, gradient, momentum: drawn; two sets on the device */
    mdm_filters *filters;
    float *rate;
    double *verdict;
} model;

static float *draw(int64_t count, uint32_t item) {
    float *values = malloc(sizeof(float) * (size_t)count);
    assert_non_null(values);
    mdm_random random = mdm_random_stream(11, MDM_RANDOM_TEST, 0, item, 0);
    for (int64_t i = 0; i < count; i++) values[i] = (float)mdm_random_normal(&random);
    return values;
}

static void open_model(model *m, mdm_precision precision, int verdict) {
    const float rate = 0.05f;
    const double judged = verdict;
    memset(m, 0, sizeof *m);
    m->device = test_device_open(1, 0);
    m->precision = precision;
    m->count = BETWEEN;
    for (int i = 0; i < TENSORS; i++) {
        m->shapes[i] = (mdm_filter_shape){m->count, sizes[i].in, sizes[i].out, sizes[i].kernel};
        /* the last two tensors touch */
        m->count += (int64_t)sizes[i].in * sizes[i].out * sizes[i].kernel * sizes[i].kernel +
                    (i == TENSORS - 2 ? 0 : BETWEEN * (1 + 200 * (i == 2)));
    }
    size_t bytes = sizeof(float) * (size_t)m->count;
    for (uint32_t i = 0; i < 3; i++) {
        m->host[i] = draw(m->count, i);
        m->first[i] = test_device_copy(m->device, m->host[i], bytes);
        m->second[i] = test_device_copy(m->device, m->host[i], bytes);
    }
    m->rate = test_device_copy(m->device, &rate, sizeof rate);
    m->verdict = test_device_copy(m->device, &judged, sizeof judged);
    assert_int_equal(mdm_filters_create(m->device, m->shapes, TENSORS, m->count, precision, &m->filters),
                     MDM_OK);
}

static void close_model(model *m) {
    mdm_filters_destroy(m->filters);
    for (int i = 0; i < 3; i++) {
        mdm_device_free(m->device, m->first[i]);
        mdm_device_free(m->device, m->second[i]);
        free(m->host[i]);
    }
    mdm_device_free(m->device, m->rate);
    mdm_device_free(m->device, m->verdict);
    mdm_device_destroy(m->device);
}

/* A convolution of tensor i, which reads the filters, or copies that it makes of `weights`. */
static mdm_convolution *convolution_of(model *m, int i, const float *weights, int forward_only) {
    mdm_convolution_shape shape = {.batch = BATCH,
                                   .in_channels = sizes[i].in,
                                   .out_channels = sizes[i].out,
                                   .height = HEIGHT,
                                   .width = WIDTH,
                                   .kernel = sizes[i].kernel,
                                   .stride = 1,
                                   .precision = m->precision,
                                   .forward_only = forward_only,
                                   .is_served = weights == NULL};
    mdm_convolution *convolution;
    assert_int_equal(mdm_convolution_create(m->device, &shape, &convolution), MDM_OK);
    assert_int_equal(weights ? mdm_convolution_set_weights(convolution, weights + m->shapes[i].offset)
                             : mdm_filters_serve(m->filters, m->shapes[i].offset, convolution),
                     MDM_OK);
    return convolution;
}

/* A tensor of drawn values. */
static void *tensor(const model *m, int channels, uint32_t item) {
    float *values = draw((int64_t)BATCH * channels * HEIGHT * WIDTH, item);
    void *there = test_device_copy(m->device, NULL,
                                   mdm_tensor_bytes(m->device, BATCH, channels, HEIGHT, WIDTH, m->precision));
    assert_int_equal(
        mdm_tensor_import(m->device, values, BATCH, channels, HEIGHT, WIDTH, m->precision, there), MDM_OK);
    free(values);
    return there;
}

/* What a convolution of tensor i gives. */
static void convolve(model *m, int i, const float *weights, float *result) {
    mdm_convolution *convolution = convolution_of(m, i, weights, 1);
    void *x = tensor(m, sizes[i].in, 9), *y = tensor(m, sizes[i].out, 10);
    assert_int_equal(mdm_convolution_forward(convolution, x, y), MDM_OK);
    assert_int_equal(
        mdm_tensor_export(m->device, y, BATCH, sizes[i].out, HEIGHT, WIDTH, m->precision, result), MDM_OK);
    mdm_convolution_destroy(convolution);
    mdm_device_free(m->device, x);
    mdm_device_free(m->device, y);
}

/* The gradient of tensor i: left with the filters, or written or added to all weights' `gradient`. */
static void take_back(model *m, int i, const float *weights, float *gradient, int accumulate) {
    mdm_convolution *convolution = convolution_of(m, i, weights, 0);
    void *x = tensor(m, sizes[i].in, 9), *dy = tensor(m, sizes[i].out, 10);
    assert_int_equal(mdm_convolution_backward_weights(
                         convolution, x, dy, gradient ? gradient + m->shapes[i].offset : NULL, accumulate),
                     MDM_OK);
    mdm_convolution_destroy(convolution);
    mdm_device_free(m->device, x);
    mdm_device_free(m->device, dy);
}

static void assert_filters_are_of(model *m, const float *weights) {
    for (int i = 0; i < TENSORS; i++) {
        size_t values = (size_t)BATCH * (size_t)sizes[i].out * HEIGHT * WIDTH;
        float *by_filters = malloc(sizeof(float) * values), *by_copies = malloc(sizeof(float) * values);
        assert_true(by_filters && by_copies);
        convolve(m, i, NULL, by_filters);
        convolve(m, i, weights, by_copies);
        assert_memory_equal(by_filters, by_copies, sizeof(float) * values);
        free(by_filters);
        free(by_copies);
    }
}

static void assert_same_on_device(model *m, const float *a, const float *b) {
    size_t bytes = sizeof(float) * (size_t)m->count;
    float *x = malloc(bytes), *y = malloc(bytes);
    assert_true(x && y);
    assert_int_equal(mdm_device_download(m->device, x, a, bytes), MDM_OK);
    assert_int_equal(mdm_device_download(m->device, y, b, bytes), MDM_OK);
    assert_memory_equal(x, y, bytes);
    free(x);
    free(y);
}

static const mdm_precision precisions[] = {MDM_FP32, MDM_BF16};

static void filters_are_what_convolutions_make_of_weights(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        model m;
        open_model(&m, precisions[i], MDM_STEP_IS_SOUND);
        mdm_filters_make(m.filters, m.first[0]);
        assert_filters_are_of(&m, m.first[0]);
        assert_same_on_device(&m, m.first[0], m.second[0]); /* they were only read */
        close_model(&m);
    }
}

static void steps_move_weights_and_filters_in_one(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        model m;
        open_model(&m, precisions[i], MDM_STEP_IS_SOUND);
        for (int step = 0; step < 2; step++) {
            mdm_filters_step(m.filters, m.first[0], m.first[1], m.first[2], m.rate, 0.9f, 5e-4f, m.verdict);
            mdm_sgd_step(m.device, m.second[0], m.second[1], m.second[2], m.count, m.rate, 0.9f, 5e-4f,
                         m.verdict);
        }
        for (int k = 0; k < 3; k++) assert_same_on_device(&m, m.first[k], m.second[k]);
        assert_filters_are_of(&m, m.second[0]);
        close_model(&m);
    }
}

static void gradients_of_filters_are_those_of_convolutions_alone(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const int accumulate = i % 2;
        model m;
        open_model(&m, precisions[i / 2], MDM_STEP_IS_SOUND);
        for (int k = 0; k < TENSORS; k++) take_back(&m, k, m.first[0], m.second[1], accumulate);
        for (int k = 0; k < TENSORS; k++) take_back(&m, k, NULL, NULL, 0);
        /* some tensors, none, the others */
        const int64_t cuts[] = {0, m.shapes[2].offset, m.shapes[2].offset, m.shapes[5].offset, m.count};
        for (int k = 0; k < 4; k++)
            mdm_filters_take_gradient(m.filters, cuts[k], cuts[k + 1], m.first[1], accumulate);
        assert_same_on_device(&m, m.first[1], m.second[1]);
        close_model(&m);
    }
}

static void an_unsound_step_leaves_both_as_they_were(void **state) {
    (void)state;
    model m;
    open_model(&m, MDM_BF16, MDM_STEP_IS_SPIKE);
    mdm_filters_make(m.filters, m.first[0]);
    mdm_filters_step(m.filters, m.first[0], m.first[1], m.first[2], m.rate, 0.9f, 5e-4f, m.verdict);
    for (int k = 0; k < 3; k++) assert_same_on_device(&m, m.first[k], m.second[k]);
    assert_filters_are_of(&m, m.second[0]);
    close_model(&m);
}

static void a_convolution_takes_no_filter_of_another_shape(void **state) {
    (void)state;
    model m;
    mdm_convolution *convolution;
    open_model(&m, MDM_FP32, MDM_STEP_IS_SOUND);
    const mdm_convolution_shape shape = {.batch = 1,
                                         .in_channels = sizes[1].in,
                                         .out_channels = sizes[1].out,
                                         .height = 4,
                                         .width = 4,
                                         .kernel = 3,
                                         .stride = 1,
                                         .precision = MDM_FP32,
                                         .is_served = 1};
    assert_int_equal(mdm_convolution_create(m.device, &shape, &convolution), MDM_OK);
    assert_int_equal(mdm_filters_serve(m.filters, m.shapes[1].offset, convolution), MDM_OK);
    assert_int_equal(mdm_filters_serve(m.filters, m.shapes[2].offset, convolution), MDM_LOST);
    assert_int_equal(mdm_filters_serve(m.filters, m.shapes[1].offset + 1, convolution), MDM_LOST);
    mdm_convolution_destroy(convolution);
    close_model(&m);
}

static void the_cpu_keeps_none(void **state) {
    (void)state;
    mdm_device *device = test_device_open(1, 0);
    mdm_filters *filters;
    assert_int_equal(mdm_filters_create(device, NULL, 0, 10, MDM_FP32, &filters), MDM_USAGE);
    assert_null(filters);
    mdm_device_destroy(device);
}

int main(void) {
    const struct CMUnitTest on_cuda[] = {
        cmocka_unit_test(filters_are_what_convolutions_make_of_weights),
        cmocka_unit_test(steps_move_weights_and_filters_in_one),
        cmocka_unit_test(gradients_of_filters_are_those_of_convolutions_alone),
        cmocka_unit_test(an_unsound_step_leaves_both_as_they_were),
        cmocka_unit_test(a_convolution_takes_no_filter_of_another_shape),
    };
    const struct CMUnitTest on_cpu[] = {cmocka_unit_test(the_cpu_keeps_none)};
    test_device_or_skip();
    return test_device_is_cuda() ? cmocka_run_group_tests(on_cuda, NULL, NULL)
                                 : cmocka_run_group_tests(on_cpu, NULL, NULL);
}
