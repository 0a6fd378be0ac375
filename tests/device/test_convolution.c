/* Convolutions against plain loops: directly and by Winograd's algorithm (which training uses), in single
 * precision and in bfloat16, whole and partial channel blocks, strides, one and three image channels;
 * forward, both gradients, the residual sum and accumulation. */
#include "golden.h"
#include "mdm/base/random.h"
#include "mdm/device/device.h"
#include "test_device.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct setting {
    mdm_convolution_shape shape;
    int out_height, out_width;
    int64_t x_count, y_count, w_count;
    float *x, *w, *y, *dy, *dx,
        *dw; /* plain layouts: given x, w, y (what forward adds to), dy; expected results */
} setting;

static float *draw(int64_t count, uint32_t item) {
    float *values = malloc(sizeof(float) * (size_t)count);
    assert_non_null(values);
    mdm_random random = mdm_random_stream(9, MDM_RANDOM_TEST, 0, item, 0);
    for (int64_t i = 0; i < count; i++) values[i] = (float)mdm_random_normal(&random);
    return values;
}

/* The products of output row (image, o, i, j) with input channel c, as the definition of a convolution has
 * them. */
static void add_products(setting *s, int image, int o, int i, int j, int c) {
    int k = s->shape.kernel, height = s->shape.height, width = s->shape.width;
    int64_t y = (((int64_t)image * s->shape.out_channels + o) * s->out_height + i) * s->out_width + j;
    int64_t plane = (int64_t)image * s->shape.in_channels + c, filter = (int64_t)o * s->shape.in_channels + c;
    for (int a = 0; a < k; a++)
        for (int b = 0; b < k; b++) {
            int row = i * s->shape.stride + a - k / 2, column = j * s->shape.stride + b - k / 2;
            if (row < 0 || column < 0 || row >= height || column >= width) continue;
            int64_t x = (plane * height + row) * width + column, w = (filter * k + a) * k + b;
            s->y[y] += s->x[x] * s->w[w];
            s->dx[x] += s->dy[y] * s->w[w];
            s->dw[w] += s->dy[y] * s->x[x];
        }
}

static void convolve_plainly(setting *s) {
    for (int image = 0; image < s->shape.batch; image++)
        for (int o = 0; o < s->shape.out_channels; o++)
            for (int i = 0; i < s->out_height; i++)
                for (int j = 0; j < s->out_width; j++)
                    for (int c = 0; c < s->shape.in_channels; c++) add_products(s, image, o, i, j, c);
}

static void open_setting(setting *s, mdm_convolution_shape shape) {
    memset(s, 0, sizeof *s);
    s->shape = shape;
    s->out_height = (shape.height - 1) / shape.stride + 1;
    s->out_width = (shape.width - 1) / shape.stride + 1;
    s->x_count = (int64_t)shape.batch * shape.in_channels * shape.height * shape.width;
    s->y_count = (int64_t)shape.batch * shape.out_channels * s->out_height * s->out_width;
    s->w_count = (int64_t)shape.out_channels * shape.in_channels * shape.kernel * shape.kernel;
    s->x = draw(s->x_count, 1);
    s->w = draw(s->w_count, 2);
    s->y = draw(s->y_count, 3);
    s->dy = draw(s->y_count, 4);
    s->dx = calloc((size_t)s->x_count, sizeof(float));
    s->dw = calloc((size_t)s->w_count, sizeof(float));
    assert_true(s->dx && s->dw);
}

static void close_setting(setting *s) {
    float *all[] = {s->x, s->w, s->y, s->dy, s->dx, s->dw};
    for (int i = 0; i < 6; i++) free(all[i]);
}

static mdm_precision precision; /* of the tensors */

static void *tensor(mdm_device *device, const float *plain, int n, int c, int h, int w) {
    void *memory = test_device_copy(device, NULL, mdm_tensor_bytes(device, n, c, h, w, precision));
    assert_int_equal(mdm_tensor_import(device, plain, n, c, h, w, precision, memory), MDM_OK);
    return memory;
}

/* Single precision is compared value by value. In bfloat16 every value carries a rounding of up to 1/256 of
 * the largest terms of its sum: there the error's root mean square is held against that of the values. */
static void compare(const float *actual, const float *expected, int64_t count, double absolute,
                    double relative, const char *what) {
    if (precision != MDM_BF16) {
        assert_close(actual, expected, count, absolute, relative, what);
        return;
    }
    double error = 0, square = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = (double)actual[i] - expected[i];
        error += difference * difference;
        square += (double)expected[i] * expected[i];
        if (!isfinite(actual[i])) fail_msg("%s: %g at %lld", what, actual[i], (long long)i);
    }
    if (sqrt(error / square) > relative) fail_msg("%s: relative error %g", what, sqrt(error / square));
}

static void check(mdm_convolution_shape shape, int winograd, double tolerance) {
    setting s;
    mdm_device *device;
    mdm_convolution *convolution;
    precision = shape.precision;
    open_setting(&s, shape);
    int n = shape.batch, ci = shape.in_channels, co = shape.out_channels, h = shape.height, w = shape.width;
    device = test_device_open(2, winograd);
    assert_int_equal(mdm_convolution_create(device, &shape, &convolution), MDM_OK);
    size_t weight_bytes = sizeof(float) * (size_t)s.w_count;
    float *weights = test_device_copy(device, s.w, weight_bytes);
    if (!shape.gradient_only) assert_int_equal(mdm_convolution_set_weights(convolution, weights), MDM_OK);
    void *x = shape.from_image ? test_device_copy(device, s.x, sizeof(float) * (size_t)s.x_count)
                               : tensor(device, s.x, n, ci, h, w);
    void *y = tensor(device, s.y, n, co, s.out_height, s.out_width);
    void *dy = tensor(device, s.dy, n, co, s.out_height, s.out_width);
    float *result = calloc((size_t)(s.x_count + s.y_count), sizeof(float)), *dw = draw(s.w_count, 5);
    memcpy(s.dw, dw, weight_bytes); /* gradients are added to what is there */
    float *gradient = test_device_copy(device, dw, weight_bytes);
    if (!shape.add_to_output) memset(s.y, 0, sizeof(float) * (size_t)s.y_count);
    convolve_plainly(&s);
    if (!shape.gradient_only) {
        assert_int_equal(mdm_convolution_forward(convolution, x, y), MDM_OK);
        assert_int_equal(mdm_tensor_export(device, y, n, co, s.out_height, s.out_width, precision, result),
                         MDM_OK);
        compare(result, s.y, s.y_count, tolerance * 10, tolerance, "output");
    }
    assert_int_equal(mdm_convolution_backward_weights(convolution, x, dy, gradient, 1), MDM_OK);
    assert_int_equal(mdm_device_download(device, dw, gradient, weight_bytes), MDM_OK);
    compare(dw, s.dw, s.w_count, tolerance * 40, tolerance, "gradient of the weights");
    if (!shape.from_image && !shape.gradient_only) {
        void *dx = tensor(device, s.x, n, ci, h, w);
        assert_int_equal(mdm_convolution_backward_data(convolution, dy, dx), MDM_OK);
        assert_int_equal(mdm_tensor_export(device, dx, n, ci, h, w, precision, result), MDM_OK);
        compare(result, s.dx, s.x_count, tolerance * 10, tolerance, "gradient of the input");
        mdm_device_free(device, dx);
    }
    void *memories[] = {x, y, dy, weights, gradient};
    for (int i = 0; i < 5; i++) mdm_device_free(device, memories[i]);
    free(result);
    free(dw);
    mdm_convolution_destroy(convolution);
    mdm_device_destroy(device);
    close_setting(&s);
}

static void every_shape(int winograd, double tolerance) {
    static const mdm_convolution_shape shapes[] = {
        {3, 16, 16, 28, 28, 3, 1, MDM_FP32, 0, 0, 0, 0, 0, 0, 0},
        {2, 32, 64, 16, 16, 3, 1, MDM_FP32, 0, 1, 0, 0, 0, 0, 0},
        {2, 8, 24, 9, 11, 3, 2, MDM_FP32, 0, 0, 0, 0, 0, 0, 0},
        {2, 16, 32, 14, 14, 1, 2, MDM_FP32, 0, 0, 0, 0, 0, 0, 0},
        {2, 64, 64, 7, 7, 3, 1, MDM_FP32, 0, 1, 0, 0, 0, 0, 0},
        {3, 1, 8, 28, 28, 3, 1, MDM_FP32, 1, 0, 0, 0, 0, 0, 0},
        {2, 3, 16, 32, 32, 3, 1, MDM_FP32, 1, 0, 0, 0, 0, 0, 0},
        {20, 64, 80, 9, 10, 3, 1, MDM_FP32, 0, 1, 0, 0, 0, 0,
         0}, /* enough pictures for Winograd's algorithm */
        {20, 64, 80, 9, 10, 3, 1, MDM_FP32, 0, 0, 0, 1, 0, 0, 0},
        {3, 64, 64, 12, 9, 3, 1, MDM_FP32, 0, 0, 0, 0, 1, 0, 0},
        {3, 1, 8, 28, 28, 3, 1, MDM_FP32, 1, 0, 0, 0, 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(shapes[i], winograd, tolerance);
}

static void direct_convolutions_equal_plain_loops(void **state) {
    (void)state;
    every_shape(0, 2e-5);
}

static void winograd_convolutions_equal_plain_loops_within_their_rounding(void **state) {
    (void)state;
    every_shape(1, 2e-4);
}

static int has_bfloat16(void) {
    mdm_device *device = test_device_open(1, 0);
    int able = mdm_device_get_info(device)->has_bf16;
    mdm_device_destroy(device);
    return able;
}

/* Direct ones round what they read and write, Winograd's also the transforms of both factors: 0.0028 and
 * 0.0048 are the largest errors seen over many shapes. */
static void bfloat16_convolutions_follow_plain_loops_within_their_rounding(void **state) {
    static const mdm_convolution_shape shapes[] = {
        {3, 64, 64, 16, 16, 3, 1, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {2, 32, 96, 7, 9, 3, 1, MDM_BF16, 0, 1, 0, 0, 0, 0, 0},
        {1, 128, 64, 5, 5, 3, 1, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {5, 256, 256, 4, 4, 3, 1, MDM_BF16, 0, 1, 0, 0, 0, 0, 0},
        {3, 60, 50, 8, 6, 3, 1, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {2, 40, 24, 9, 9, 3, 1, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {1, 32, 32, 1, 1, 3, 1, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {2, 64, 64, 9, 11, 3, 2, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {35, 16, 48, 6, 5, 3, 2, MDM_BF16, 0, 1, 0, 0, 0, 0, 0},
        {70, 48, 16, 3, 4, 3, 1, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {2, 32, 16, 9, 40, 3, 1, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {2, 16, 32, 15, 80, 3, 2, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {5, 64, 32, 9, 8, 1, 2, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {5, 32, 64, 5, 7, 1, 1, MDM_BF16, 0, 1, 0, 0, 0, 0, 0},
        {2, 32, 96, 34, 5, 1, 2, MDM_BF16, 0, 0, 0, 0, 0, 0, 0},
        {3, 64, 64, 12, 9, 3, 1, MDM_BF16, 0, 0, 0, 0, 1, 0, 0},
    };
    (void)state;
    if (!has_bfloat16()) skip();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check(shapes[i], 0, 0.004);
        check(shapes[i], 1, 0.007);
    }
}

/* Nothing may depend on how tiles are shared out. */
static void bfloat16_convolutions_have_the_same_bits_with_any_number_of_threads(void **state) {
    const mdm_convolution_shape shape = {5, 64, 96, 13, 10, 3, 1, MDM_BF16, 0, 1, 0, 0, 0, 0, 0};
    float *results[2][3];
    setting s;
    (void)state;
    if (test_device_is_cuda() || !has_bfloat16()) skip(); /* a CUDA device has no such setting */
    open_setting(&s, shape);
    precision = MDM_BF16;
    for (int i = 0; i < 2; i++) {
        mdm_device *device = test_device_open(1 + 2 * i, 1);
        mdm_convolution *convolution;
        assert_int_equal(mdm_convolution_create(device, &shape, &convolution), MDM_OK);
        assert_int_equal(mdm_convolution_set_weights(convolution, s.w), MDM_OK);
        void *x = tensor(device, s.x, 5, 64, 13, 10), *y = tensor(device, s.dy, 5, 96, 13, 10),
             *dx = tensor(device, s.x, 5, 64, 13, 10);
        int64_t counts[3] = {s.y_count, s.x_count, s.w_count};
        for (int r = 0; r < 3; r++) results[i][r] = calloc((size_t)counts[r], sizeof(float));
        assert_int_equal(mdm_convolution_backward_weights(convolution, x, y, results[i][2], 1), MDM_OK);
        assert_int_equal(mdm_convolution_backward_data(convolution, y, dx), MDM_OK);
        assert_int_equal(mdm_convolution_forward(convolution, x, y), MDM_OK);
        assert_int_equal(mdm_tensor_export(device, y, 5, 96, 13, 10, MDM_BF16, results[i][0]), MDM_OK);
        assert_int_equal(mdm_tensor_export(device, dx, 5, 64, 13, 10, MDM_BF16, results[i][1]), MDM_OK);
        for (int r = 0; i == 1 && r < 3; r++)
            assert_memory_equal(results[0][r], results[1][r], sizeof(float) * (size_t)counts[r]);
        void *memories[] = {x, y, dx};
        for (int m = 0; m < 3; m++) mdm_device_free(device, memories[m]);
        mdm_convolution_destroy(convolution);
        mdm_device_destroy(device);
    }
    for (int i = 0; i < 6; i++) free(results[i / 3][i % 3]);
    close_setting(&s);
}

/* Output and gradient of the input of pictures [first, first + n) of the setting, computed by themselves. */
static void compute_some(const setting *s, mdm_convolution_shape shape, int threads, int first, int n,
                         float *y_rows, float *dx_rows) {
    int64_t x_row = s->x_count / shape.batch, y_row = s->y_count / shape.batch;
    int ci = shape.in_channels, co = shape.out_channels, h = shape.height, w = shape.width;
    mdm_device *device = test_device_open(threads, 1);
    mdm_convolution *convolution;
    shape.batch = n;
    assert_int_equal(mdm_convolution_create(device, &shape, &convolution), MDM_OK);
    assert_int_equal(mdm_convolution_set_weights(convolution, s->w), MDM_OK);
    void *x = tensor(device, s->x + first * x_row, n, ci, h, w), *dx = tensor(device, s->x, n, ci, h, w),
         *y = tensor(device, s->dy + first * y_row, n, co, s->out_height, s->out_width);
    assert_int_equal(mdm_convolution_backward_data(convolution, y, dx), MDM_OK);
    assert_int_equal(mdm_convolution_forward(convolution, x, y), MDM_OK);
    assert_int_equal(
        mdm_tensor_export(device, y, n, co, s->out_height, s->out_width, precision, y_rows + first * y_row),
        MDM_OK);
    assert_int_equal(mdm_tensor_export(device, dx, n, ci, h, w, precision, dx_rows + first * x_row), MDM_OK);
    void *memories[] = {x, y, dx};
    for (int m = 0; m < 3; m++) mdm_device_free(device, memories[m]);
    mdm_convolution_destroy(convolution);
    mdm_device_destroy(device);
}

/* What deterministic=true builds on: oneDNN does not promise it. */
static void a_picture_gives_the_same_bits_whatever_is_beside_it_where_that_is_asked(void **state) {
    static const mdm_convolution_shape shapes[] = {
        {70, 64, 128, 9, 8, 3, 1, MDM_FP32, 0, 0, 0, 1, 0, 0, 0},
        {70, 16, 16, 14, 14, 3, 1, MDM_FP32, 0, 0, 0, 1, 0, 0, 0},
        {70, 128, 256, 8, 6, 3, 2, MDM_FP32, 0, 0, 0, 1, 0, 0, 0},
        {70, 256, 64, 5, 5, 1, 1, MDM_FP32, 0, 0, 0, 1, 0, 0, 0},
        {70, 32, 64, 8, 8, 1, 2, MDM_FP32, 0, 0, 0, 1, 0, 0, 0},
        {70, 64, 128, 9, 8, 3, 1, MDM_BF16, 0, 0, 0, 1, 0, 0, 0},
        {70, 32, 32, 16, 18, 3, 1, MDM_BF16, 0, 0, 0, 1, 0, 0, 0},
        {70, 128, 256, 8, 6, 3, 2, MDM_BF16, 0, 0, 0, 1, 0, 0, 0},
        {70, 32, 64, 8, 8, 1, 2, MDM_BF16, 0, 0, 0, 1, 0, 0, 0},
    };
    static const int cuts[][3] = {{23, 1, 46}, {5, 12, 53}, {35, 32, 3}};
    (void)state;
    if (test_device_is_cuda()) skip(); /* deterministic=true is refused there */
    mdm_device *device = test_device_open(1, 0);
    int able = mdm_device_get_info(device)->has_bf16;
    mdm_device_destroy(device);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        setting s;
        precision = shapes[i].precision;
        if (precision == MDM_BF16 && !able) continue;
        open_setting(&s, shapes[i]);
        float *y[2], *dx[2];
        for (int k = 0; k < 2; k++) {
            y[k] = calloc((size_t)s.y_count, sizeof(float));
            dx[k] = calloc((size_t)s.x_count, sizeof(float));
        }
        compute_some(&s, shapes[i], 2, 0, 70, y[0], dx[0]);
        for (int c = 0; c < 3; c++) {
            for (int part = 0, first = 0; part < 3; first += cuts[c][part++])
                compute_some(&s, shapes[i], 1 + part, first, cuts[c][part], y[1], dx[1]);
            assert_memory_equal(y[0], y[1], sizeof(float) * (size_t)s.y_count);
            assert_memory_equal(dx[0], dx[1], sizeof(float) * (size_t)s.x_count);
        }
        for (int k = 0; k < 2; k++) {
            free(y[k]);
            free(dx[k]);
        }
        close_setting(&s);
    }
}

/* Two starts one after the other: what the first has measured, the second finds and computes with. */
static void a_second_start_computes_the_same_bits(void **state) {
    const mdm_convolution_shape shape = {8, 64, 96, 13, 10, 3, 1, MDM_FP32, 0, 0, 0, 0, 0, 0, 0};
    char folder[] = "/tmp/mdm-test-plans-XXXXXX";
    float *results[2];
    setting s;
    (void)state;
    assert_non_null(mkdtemp(folder));
    setenv("MDM_CACHE_FOLDER", folder, 1);
    open_setting(&s, shape);
    precision = MDM_FP32;
    for (int i = 0; i < 2; i++) {
        mdm_device *device = test_device_open(1, 1);
        mdm_convolution *convolution;
        assert_int_equal(mdm_convolution_create(device, &shape, &convolution), MDM_OK);
        mdm_device_keep_plans(device);
        void *w = test_device_copy(device, s.w, sizeof(float) * (size_t)s.w_count);
        void *x = tensor(device, s.x, 8, 64, 13, 10), *y = tensor(device, s.y, 8, 96, 13, 10);
        assert_int_equal(mdm_convolution_set_weights(convolution, w), MDM_OK);
        assert_int_equal(mdm_convolution_forward(convolution, x, y), MDM_OK);
        results[i] = calloc((size_t)s.y_count, sizeof(float));
        assert_non_null(results[i]);
        assert_int_equal(mdm_tensor_export(device, y, 8, 96, 13, 10, MDM_FP32, results[i]), MDM_OK);
        void *memories[] = {w, x, y};
        for (int m = 0; m < 3; m++) mdm_device_free(device, memories[m]);
        mdm_convolution_destroy(convolution);
        mdm_device_destroy(device);
    }
    assert_memory_equal(results[0], results[1], sizeof(float) * (size_t)s.y_count);
    unsetenv("MDM_CACHE_FOLDER");
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 2; i++) free(results[i]);
    close_setting(&s);
}

int main(void) {
    test_device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(direct_convolutions_equal_plain_loops),
        cmocka_unit_test(winograd_convolutions_equal_plain_loops_within_their_rounding),
        cmocka_unit_test(bfloat16_convolutions_follow_plain_loops_within_their_rounding),
        cmocka_unit_test(bfloat16_convolutions_have_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(a_picture_gives_the_same_bits_whatever_is_beside_it_where_that_is_asked),
        cmocka_unit_test(a_second_start_computes_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
