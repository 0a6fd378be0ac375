/* Batch norm of pictures in several sets, each with statistics of its own, against the same of every set by
 * itself; a CUDA device takes all of them in one launch. */
#include "mdm/base/random.h"
#include "mdm/device/device.h"
#include "test_device.h"
#include <math.h>

enum { SETS = 3, VALUES = 4 };

/* What one way of computing it leaves. */
typedef struct course {
    void *x, *y, *gradient;                               /* tensors of all sets */
    float *values[VALUES], *mean_gradient, *mean_product; /* [SETS, padded] */
    float *gamma, *beta, *running_mean, *running_variance, *gamma_gradient, *beta_gradient;
    double *sums; /* [2, SETS, padded] */
} course;

typedef struct setting {
    mdm_device *device;
    mdm_norm_shape shape; /* of one set */
    int height, width, padded, has_other;
    size_t set_bytes;
    void *residual, *other;
    course at_once, one_by_one;
} setting;

static float *draw(int64_t count, uint32_t item, float mean) {
    float *values = malloc(sizeof(float) * (size_t)count);
    assert_non_null(values);
    mdm_random random = mdm_random_stream(7, MDM_RANDOM_TEST, 0, item, 0);
    for (int64_t i = 0; i < count; i++) values[i] = (float)mdm_random_normal(&random) + mean;
    return values;
}

static void *draw_tensor(const setting *s, uint32_t item, float mean) {
    const mdm_norm_shape *shape = &s->shape;
    float *plain = draw((int64_t)SETS * shape->n * shape->channels * shape->pixels, item, mean);
    void *tensor = test_device_copy(s->device, NULL, SETS * s->set_bytes);
    assert_int_equal(mdm_tensor_import(s->device, plain, SETS * shape->n, shape->channels, s->height,
                                       s->width, shape->precision, tensor),
                     MDM_OK);
    free(plain);
    return tensor;
}

static float *draw_vector(const setting *s, uint32_t item) {
    float *plain = draw(s->padded, item, 1.0f);
    float *vector = test_device_copy(s->device, plain, sizeof(float) * (size_t)s->padded);
    free(plain);
    return vector;
}

static void open_course(const setting *s, course *c) {
    size_t all = sizeof(float) * SETS * (size_t)s->padded;
    c->x = draw_tensor(s, 0, 5.0f);
    c->y = test_device_copy(s->device, NULL, SETS * s->set_bytes);
    c->gradient = draw_tensor(s, 1, 0.1f);
    for (int i = 0; i < VALUES; i++) c->values[i] = test_device_copy(s->device, NULL, all);
    c->mean_gradient = test_device_copy(s->device, NULL, all);
    c->mean_product = test_device_copy(s->device, NULL, all);
    float **vectors[] = {&c->gamma,          &c->beta,         &c->running_mean, &c->running_variance,
                         &c->gamma_gradient, &c->beta_gradient};
    for (uint32_t i = 0; i < 6; i++) *vectors[i] = draw_vector(s, 10 + i);
    c->sums = test_device_copy(s->device, NULL, sizeof(double) * 2 * SETS * (size_t)s->padded);
}

static void close_course(const setting *s, course *c) {
    void *all[] = {c->x,
                   c->y,
                   c->gradient,
                   c->values[0],
                   c->values[1],
                   c->values[2],
                   c->values[3],
                   c->mean_gradient,
                   c->mean_product,
                   c->gamma,
                   c->beta,
                   c->running_mean,
                   c->running_variance,
                   c->gamma_gradient,
                   c->beta_gradient,
                   c->sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mdm_device_free(s->device, all[i]);
}

static void open_setting(setting *s, int n, int channels, int height, int width, mdm_precision precision,
                         int has_other) {
    memset(s, 0, sizeof *s);
    s->device = test_device_open(1, 0);
    s->shape = (mdm_norm_shape){n, channels, height * width, precision, 0, 1};
    s->height = height;
    s->width = width;
    s->padded = mdm_padded_channels(s->device, channels);
    s->has_other = has_other;
    s->set_bytes = mdm_tensor_bytes(s->device, n, channels, height, width, precision);
    mdm_norm_shape all = s->shape;
    all.n *= SETS;
    all.sets = SETS;
    assert_int_equal(mdm_device_reserve_norm(s->device, &all), MDM_OK);
    assert_int_equal(mdm_device_reserve_norm(s->device, &s->shape), MDM_OK);
    s->residual = draw_tensor(s, 2, 0.0f);
    s->other = draw_tensor(s, 3, 0.0f);
    open_course(s, &s->at_once);
    open_course(s, &s->one_by_one);
}

static void close_setting(setting *s) {
    close_course(s, &s->at_once);
    close_course(s, &s->one_by_one);
    mdm_device_free(s->device, s->residual);
    mdm_device_free(s->device, s->other);
    mdm_device_destroy(s->device);
}

/* Sets [first, first + sets) of a course, in as few steps as there are or piece by piece. */
static void compute(const setting *s, course *c, int first, int sets, int in_pieces) {
    mdm_device *d = s->device;
    mdm_norm_shape shape = s->shape;
    const double count = (double)shape.n * shape.pixels;
    const size_t skip = (size_t)first * s->set_bytes;
    const int at = first * s->padded, total = sets * s->padded, accumulates = 1;
    char *x = (char *)c->x + skip, *y = (char *)c->y + skip, *gradient = (char *)c->gradient + skip;
    const void *residual = s->has_other ? (char *)s->residual + skip : NULL,
               *other = s->has_other ? (char *)s->other + skip : NULL;
    double *sum = c->sums, *second = sum + total;
    mdm_norm_values v = {c->values[0] + at, c->values[1] + at, c->values[2] + at, c->values[3] + at};
    float *running_mean = first == 0 ? c->running_mean : NULL; /* the first set's alone move it */
    mdm_norm_forward_rest forward = {count, c->gamma, c->beta, running_mean, c->running_variance, &v};
    mdm_norm_backward_rest backward = {c->gamma_gradient,     c->beta_gradient,    accumulates, count,
                                       c->mean_gradient + at, c->mean_product + at};
    shape.n *= sets;
    shape.sets = sets;
    if (in_pieces) {
        mdm_norm_statistics(d, &shape, x, residual, sum, second);
        mdm_norm_from_sums(d, shape.channels, sets, sum, second, count, c->gamma, c->beta, running_mean,
                           c->running_variance, &v);
    } else {
        mdm_norm_statistics_then(d, &shape, x, residual, sum, second, &forward);
    }
    mdm_norm_relu_forward(d, &shape, x, NULL, v.scale, v.shift, y);
    if (in_pieces) {
        mdm_norm_relu_backward_sums(d, &shape, gradient, other, x, v.scale, v.shift, v.mean,
                                    v.inverse_deviation, sum, second);
        mdm_norm_gradients(d, shape.channels, sets, sum, second, accumulates, c->gamma_gradient,
                           c->beta_gradient);
        mdm_norm_means(d, total, sum, second, count, c->mean_gradient + at, c->mean_product + at);
    } else {
        mdm_norm_relu_backward_sums_then(d, &shape, gradient, other, x, &v, sum, second, &backward);
    }
    mdm_norm_relu_backward_input(d, &shape, gradient, other, x, v.scale, v.shift, v.mean, v.inverse_deviation,
                                 c->mean_gradient + at, c->mean_product + at);
}

static void assert_floats_equal(const setting *s, const float *a, const float *b, int64_t count,
                                double tolerance, const char *what) {
    size_t bytes = sizeof(float) * (size_t)count;
    float *one = malloc(bytes), *other = malloc(bytes);
    assert_true(one && other);
    assert_int_equal(mdm_device_download(s->device, one, a, bytes), MDM_OK);
    assert_int_equal(mdm_device_download(s->device, other, b, bytes), MDM_OK);
    assert_close(one, other, count, tolerance, tolerance, what);
    free(one);
    free(other);
}

/* In bfloat16 a value may be rounded the other way where its last bits differ. */
static void assert_tensors_equal(const setting *s, const void *a, const void *b, const char *what) {
    const mdm_norm_shape *shape = &s->shape;
    const int64_t count = (int64_t)SETS * shape->n * shape->channels * shape->pixels;
    const double tolerance = shape->precision == MDM_BF16 ? 1.0 / 64 : 2e-5;
    float *plain[2];
    const void *tensors[] = {a, b};
    for (int i = 0; i < 2; i++) {
        plain[i] = malloc(sizeof(float) * (size_t)count);
        assert_non_null(plain[i]);
        assert_int_equal(mdm_tensor_export(s->device, tensors[i], SETS * shape->n, shape->channels, s->height,
                                           s->width, shape->precision, plain[i]),
                         MDM_OK);
    }
    assert_close(plain[0], plain[1], count, tolerance, tolerance, what);
    free(plain[0]);
    free(plain[1]);
}

static void assert_same(const setting *s, double tolerance) {
    const course *a = &s->at_once, *b = &s->one_by_one;
    const int channels = s->shape.channels;
    for (int set = 0; set < SETS; set++) {
        const int at = set * s->padded;
        for (int i = 0; i < VALUES; i++)
            assert_floats_equal(s, a->values[i] + at, b->values[i] + at, channels, tolerance,
                                "a set's values");
        assert_floats_equal(s, a->mean_gradient + at, b->mean_gradient + at, channels, tolerance,
                            "a set's mean gradient");
        assert_floats_equal(s, a->mean_product + at, b->mean_product + at, channels, tolerance,
                            "a set's mean product");
    }
    assert_floats_equal(s, a->running_mean, b->running_mean, channels, tolerance, "the running mean");
    assert_floats_equal(s, a->running_variance, b->running_variance, channels, tolerance,
                        "the running variance");
    assert_floats_equal(s, a->gamma_gradient, b->gamma_gradient, channels, 10 * tolerance,
                        "gamma's gradient");
    assert_floats_equal(s, a->beta_gradient, b->beta_gradient, channels, 10 * tolerance, "beta's gradient");
    assert_tensors_equal(s, a->x, b->x, "x with the residual");
    assert_tensors_equal(s, a->y, b->y, "the output");
    assert_tensors_equal(s, a->gradient, b->gradient, "the gradient of x");
}

static const struct {
    int n, channels, height, width;
} sizes[] = {{3, 8, 9, 7}, {1, 20, 5, 6}, {2, 264, 3, 3}, {9, 16, 32, 32}, {2, 600, 2, 2}};

static void every_size(int in_pieces, int of_others_in_pieces, int sets_of_others, double tolerance) {
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int variant = 0; variant < 4; variant++) {
            setting s;
            open_setting(&s, sizes[i].n, sizes[i].channels, sizes[i].height, sizes[i].width,
                         variant % 2 ? MDM_BF16 : MDM_FP32, variant / 2);
            compute(&s, &s.at_once, 0, SETS, in_pieces);
            for (int set = 0; set < SETS; set += sets_of_others)
                compute(&s, &s.one_by_one, set, sets_of_others, of_others_in_pieces);
            assert_same(&s, tolerance);
            close_setting(&s);
        }
}

static void sets_at_once_equal_each_set_by_itself(void **state) {
    (void)state;
    every_size(0, 0, 1, 2e-5);
}

static void sets_piece_by_piece_equal_the_steps_in_one_to_the_bit(void **state) {
    (void)state;
    every_size(1, 0, SETS, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_at_once_equal_each_set_by_itself),
        cmocka_unit_test(sets_piece_by_piece_equal_the_steps_in_one_to_the_bit),
    };
    test_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
