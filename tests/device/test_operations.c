/* Every operation of the CUDA backend, its kernels run on the CPU thread by thread, against the CPU backend:
 * the same numbers in both layouts, single precision and bfloat16, channels that fill no block, many blocks.
 */
#include "cuda/gpu.h"
#include "golden.h"
#include "mdm/base/random.h"
#include "test_device.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS = 6, VECTORS = 8 };

/* The two devices with the same values on both. */
typedef struct pair {
    mdm_device *device[2]; /* CPU, CUDA */
    mdm_norm_shape shape;
    int height, width;
    void *tensor[2][TENSORS];
    float *vector[2][VECTORS]; /* per channel */
    double *sums[2];           /* [2, padded] */
    float *plain[2];
    int64_t count;
} pair;

static float *draw(int64_t count, uint32_t item) {
    float *values = malloc(sizeof(float) * (size_t)count);
    assert_non_null(values);
    mdm_random random = mdm_random_stream(5, MDM_RANDOM_TEST, 0, item, 0);
    for (int64_t i = 0; i < count; i++) values[i] = (float)mdm_random_normal(&random);
    return values;
}

static void open_pair(pair *p, int n, int channels, int height, int width, mdm_precision precision) {
    memset(p, 0, sizeof *p);
    p->shape = (mdm_norm_shape){n, channels, height * width, precision, 0, 1};
    p->height = height;
    p->width = width;
    p->count = (int64_t)n * channels * height * width;
    assert_int_equal(mdm_device_create_cpu(1, 0, &p->device[0]), MDM_OK);
    assert_int_equal(mdm_device_create_cuda(0, 1, &p->device[1]), MDM_OK);
    for (int d = 0; d < 2; d++) {
        size_t bytes = mdm_tensor_bytes(p->device[d], n, channels, height, width, precision);
        size_t padded = (size_t)mdm_padded_channels(p->device[d], channels);
        p->plain[d] = calloc((size_t)p->count, sizeof(float));
        assert_int_equal(mdm_device_reserve_norm(p->device[d], &p->shape), MDM_OK);
        for (uint32_t i = 0; i < TENSORS; i++) {
            float *values = draw(p->count, i);
            for (int64_t j = 0; i == 0 && j < p->count; j++)
                values[j] = values[j] * 0.5f + 30.0f; /* a large mean */
            assert_int_equal(mdm_device_allocate(p->device[d], bytes, "a test", &p->tensor[d][i]), MDM_OK);
            assert_int_equal(mdm_tensor_import(p->device[d], values, n, channels, height, width, precision,
                                               p->tensor[d][i]),
                             MDM_OK);
            free(values);
        }
        for (uint32_t i = 0; i < VECTORS; i++) {
            float *values = draw(channels, 100 + i);
            assert_int_equal(mdm_device_allocate(p->device[d], padded * sizeof(float), "a test",
                                                 (void **)&p->vector[d][i]),
                             MDM_OK);
            assert_int_equal(
                mdm_device_upload(p->device[d], p->vector[d][i], values, (size_t)channels * sizeof(float)),
                MDM_OK);
            free(values);
        }
        assert_int_equal(
            mdm_device_allocate(p->device[d], 2 * padded * sizeof(double), "a test", (void **)&p->sums[d]),
            MDM_OK);
    }
}

static void close_pair(pair *p) {
    for (int d = 0; d < 2; d++) {
        for (int i = 0; i < TENSORS; i++) mdm_device_free(p->device[d], p->tensor[d][i]);
        for (int i = 0; i < VECTORS; i++) mdm_device_free(p->device[d], p->vector[d][i]);
        mdm_device_free(p->device[d], p->sums[d]);
        mdm_device_destroy(p->device[d]);
        free(p->plain[d]);
    }
}

/* bfloat16 keeps 8 bits: a value computed in another order may round to a neighbour, 1 / 128 away. */
static double tolerance_of(const pair *p) {
    return p->shape.precision == MDM_BF16 ? 1.0 / 128 : 2e-6;
}

static void assert_tensors_equal(pair *p, int tensor, const char *what) {
    for (int d = 0; d < 2; d++)
        assert_int_equal(mdm_tensor_export(p->device[d], p->tensor[d][tensor], p->shape.n, p->shape.channels,
                                           p->height, p->width, p->shape.precision, p->plain[d]),
                         MDM_OK);
    assert_close(p->plain[1], p->plain[0], p->count, tolerance_of(p), tolerance_of(p), what);
}

/* The lanes beyond the channels stay zero, as the next convolution expects. */
static void assert_padding_is_zero(pair *p, int tensor, const char *what) {
    mdm_device *cuda = p->device[1];
    int padded = mdm_padded_channels(cuda, p->shape.channels), bf16 = p->shape.precision == MDM_BF16;
    size_t bytes =
        mdm_tensor_bytes(cuda, p->shape.n, p->shape.channels, p->height, p->width, p->shape.precision);
    char *copy = malloc(bytes);
    assert_int_equal(mdm_device_download(cuda, copy, p->tensor[1][tensor], bytes), MDM_OK);
    size_t pixels = (size_t)p->shape.n * (size_t)p->shape.pixels, element = bf16 ? 2 : 4;
    for (size_t i = 0; i < pixels; i++)
        for (int c = p->shape.channels; c < padded; c++)
            for (size_t b = 0; b < element; b++)
                if (copy[(i * (size_t)padded + (size_t)c) * element + b] & (b + 1 == element ? 0x7f : 0xff))
                    fail_msg("%s: channel %d of pixel %zu is not zero", what, c, i);
    free(copy);
}

static void assert_vectors_equal(pair *p, int vector, double tolerance, const char *what) {
    int channels = p->shape.channels;
    for (int d = 0; d < 2; d++)
        assert_int_equal(mdm_device_download(p->device[d], p->plain[d], p->vector[d][vector],
                                             sizeof(float) * (size_t)channels),
                         MDM_OK);
    assert_close(p->plain[1], p->plain[0], channels, tolerance, tolerance, what);
}

static void assert_sums_equal(pair *p, double scale, const char *what) {
    double *sums[2];
    int channels = p->shape.channels;
    for (int d = 0; d < 2; d++) {
        size_t padded = (size_t)mdm_padded_channels(p->device[d], channels);
        double *all = malloc(sizeof(double) * 2 * padded);
        sums[d] = malloc(sizeof(double) * 2 * (size_t)channels);
        assert_int_equal(mdm_device_download(p->device[d], all, p->sums[d], sizeof(double) * 2 * padded),
                         MDM_OK);
        memcpy(sums[d], all, sizeof(double) * (size_t)channels);
        memcpy(sums[d] + channels, all + padded, sizeof(double) * (size_t)channels);
        free(all);
    }
    assert_close_double(sums[1], sums[0], 2 * channels, scale * 1e-6, 2e-6, what);
    free(sums[0]);
    free(sums[1]);
}

/* Tensors: 0 x, 1 residual, 2 gradient, 3 other, 4 and 5 outputs. */
static void check_norm_statistics(pair *p, int with_other, double pixels) {
    for (int d = 0; d < 2; d++) {
        mdm_device *device = p->device[d];
        int channels = p->shape.channels, padded = mdm_padded_channels(device, channels);
        double *sum = p->sums[d], *second = sum + padded;
        float **v = p->vector[d]; /* 0, 1 gamma and beta; 2, 3 running; 4 to 7 values */
        mdm_norm_values values = {v[4], v[5], v[6], v[7]};
        mdm_norm_statistics(device, &p->shape, p->tensor[d][0], with_other ? p->tensor[d][1] : NULL, sum,
                            second);
        mdm_norm_from_sums(device, channels, 1, sum, second, pixels, v[0], v[1], v[2], v[3], &values);
        mdm_norm_relu_forward(device, &p->shape, p->tensor[d][0], NULL, v[6], v[7], p->tensor[d][4]);
        mdm_norm_relu_forward(device, &p->shape, p->tensor[d][0], p->tensor[d][1], v[6], v[7],
                              p->tensor[d][5]);
    }
    assert_sums_equal(p, pixels, "sums of the statistics");
    assert_tensors_equal(p, 0, "x with the residual");
    const char *names[] = {"gamma", "beta", "running mean", "running variance", "mean", "inverse deviation",
                           "scale", "shift"};
    for (int i = 2; i < 8; i++) assert_vectors_equal(p, i, i == 7 ? 2e-4 : 5e-6, names[i]);
}

/* The rest is on equal numbers: what was rounded differently is taken over. */
static void take_values_over(pair *p) {
    for (int i = 4; i < 8; i++) {
        float values[4096];
        assert_int_equal(mdm_device_download(p->device[0], values, p->vector[0][i],
                                             sizeof(float) * (size_t)p->shape.channels),
                         MDM_OK);
        assert_int_equal(mdm_device_upload(p->device[1], p->vector[1][i], values,
                                           sizeof(float) * (size_t)p->shape.channels),
                         MDM_OK);
    }
}

static void check_norm_forward(pair *p) {
    for (int d = 0; d < 2; d++) {
        float **v = p->vector[d];
        mdm_norm_relu_forward(p->device[d], &p->shape, p->tensor[d][0], NULL, v[6], v[7], p->tensor[d][4]);
        mdm_norm_relu_forward(p->device[d], &p->shape, p->tensor[d][0], p->tensor[d][1], v[6], v[7],
                              p->tensor[d][5]);
    }
    assert_tensors_equal(p, 4, "norm forward");
    assert_tensors_equal(p, 5, "norm forward with a residual");
    assert_padding_is_zero(p, 5, "norm forward");
}

static void check_norm_backward(pair *p, int with_other, double pixels) {
    for (int d = 0; d < 2; d++) {
        mdm_device *device = p->device[d];
        int channels = p->shape.channels, padded = mdm_padded_channels(device, channels);
        double *sum = p->sums[d], *second = sum + padded;
        float **v = p->vector[d];
        const void *other = with_other ? p->tensor[d][3] : NULL;
        mdm_norm_relu_backward_sums(device, &p->shape, p->tensor[d][2], other, p->tensor[d][0], v[6], v[7],
                                    v[4], v[5], sum, second);
    }
    assert_sums_equal(p, sqrt(pixels) * 100, "sums of the backward pass");
    for (int d = 0; d < 2; d++) {
        mdm_device *device = p->device[d];
        int channels = p->shape.channels, padded = mdm_padded_channels(device, channels);
        double *sum = p->sums[d], *second = sum + padded;
        float **v = p->vector[d];
        mdm_norm_gradients(device, channels, 1, sum, second, with_other, v[0], v[1]);
        mdm_norm_means(device, channels, sum, second, pixels, v[2], v[3]);
        mdm_norm_relu_backward_input(device, &p->shape, p->tensor[d][2], with_other ? p->tensor[d][3] : NULL,
                                     p->tensor[d][0], v[6], v[7], v[4], v[5], v[2], v[3]);
    }
    assert_vectors_equal(p, 0, 1e-3, "gradient of gamma");
    assert_vectors_equal(p, 1, 1e-3, "gradient of beta");
    assert_vectors_equal(p, 2, 1e-5, "mean gradient");
    assert_vectors_equal(p, 3, 1e-5, "mean product");
    assert_tensors_equal(p, 2, "norm backward");
    assert_padding_is_zero(p, 2, "norm backward");
}

static void check_norm(pair *p, int with_other, int linear) {
    const double pixels = (double)p->shape.n * p->shape.pixels;
    p->shape.linear = linear;
    check_norm_statistics(p, with_other, pixels);
    take_values_over(p);
    check_norm_forward(p);
    check_norm_backward(p, with_other, pixels);
}

static void assert_same_bits(pair *p, float *const *one, float *const *other, int first, int end) {
    size_t bytes = sizeof(float) * (size_t)p->shape.channels;
    float a[4096], b[4096];
    for (int i = first; i < end; i++) {
        assert_int_equal(mdm_device_download(p->device[1], a, one[i], bytes), MDM_OK);
        assert_int_equal(mdm_device_download(p->device[1], b, other[i], bytes), MDM_OK);
        assert_memory_equal(a, b, bytes);
    }
}

/* Sums with what follows them, against the same step by step: the same bits, and the sums are left too. */
static void check_steps_in_one(pair *p) {
    mdm_device *device = p->device[1];
    int channels = p->shape.channels, padded = mdm_padded_channels(device, channels);
    double pixels = (double)p->shape.n * p->shape.pixels, *sum = p->sums[1], *second = sum + padded;
    size_t bytes = sizeof(double) * 2 * (size_t)padded;
    double *before = malloc(bytes), *after = malloc(bytes);
    float **v = p->vector[1], *u[VECTORS];
    assert_true(before && after);
    for (int i = 0; i < VECTORS; i++) {
        float plain[4096] = {0};
        assert_int_equal(mdm_device_download(device, plain, v[i], sizeof(float) * (size_t)padded), MDM_OK);
        assert_int_equal(
            mdm_device_allocate(device, sizeof(float) * (size_t)padded, "a test", (void **)&u[i]), MDM_OK);
        assert_int_equal(mdm_device_upload(device, u[i], plain, sizeof(float) * (size_t)padded), MDM_OK);
    }
    mdm_norm_values values = {v[4], v[5], v[6], v[7]}, others = {u[4], u[5], u[6], u[7]};
    mdm_norm_statistics(device, &p->shape, p->tensor[1][0], NULL, sum, second);
    mdm_norm_from_sums(device, channels, 1, sum, second, pixels, v[0], v[1], v[2], v[3], &values);
    assert_int_equal(mdm_device_download(device, before, sum, bytes), MDM_OK);
    mdm_device_zero(device, sum, bytes);
    mdm_norm_forward_rest forward = {pixels, u[0], u[1], u[2], u[3], &others};
    mdm_norm_statistics_then(device, &p->shape, p->tensor[1][0], NULL, sum, second, &forward);
    assert_int_equal(mdm_device_download(device, after, sum, bytes), MDM_OK);
    assert_memory_equal(before, after, bytes);
    assert_same_bits(p, v, u, 2, VECTORS);
    mdm_norm_relu_backward_sums(device, &p->shape, p->tensor[1][2], p->tensor[1][3], p->tensor[1][0], v[6],
                                v[7], v[4], v[5], sum, second);
    mdm_norm_gradients(device, channels, 1, sum, second, 1, v[0], v[1]);
    mdm_norm_means(device, padded, sum, second, pixels, v[2], v[3]);
    mdm_norm_backward_rest backward = {u[0], u[1], 1, pixels, u[2], u[3]};
    mdm_norm_relu_backward_sums_then(device, &p->shape, p->tensor[1][2], p->tensor[1][3], p->tensor[1][0],
                                     &others, sum, second, &backward);
    assert_same_bits(p, v, u, 0, 4);
    for (int i = 0; i < VECTORS; i++) mdm_device_free(device, u[i]);
    free(before);
    free(after);
}

static const struct {
    int n, channels, height, width;
} sizes[] = {{3, 8, 9, 7}, {2, 20, 5, 6}, {1, 264, 3, 3}, {2, 1, 4, 4}, {40, 16, 32, 32}, {5, 600, 2, 2}};

static void batch_norm_equals_the_cpu_in_every_piece(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int variant = 0; variant < 4; variant++) {
            pair p;
            open_pair(&p, sizes[i].n, sizes[i].channels, sizes[i].height, sizes[i].width,
                      variant % 2 ? MDM_BF16 : MDM_FP32);
            check_norm(&p, variant / 2, variant / 2);
            check_steps_in_one(&p);
            close_pair(&p);
        }
}

static void frozen_statistics_equal_the_cpus(void **state) {
    (void)state;
    pair p;
    open_pair(&p, 1, 20, 2, 2, MDM_FP32);
    for (int d = 0; d < 2; d++) {
        float **v = p.vector[d];
        mdm_norm_values values = {v[4], v[5], v[6], v[7]};
        mdm_norm_from_running(p.device[d], 20, v[2], v[0], v[0], v[1], &values);
        mdm_norm_means(p.device[d], 20, p.sums[d], p.sums[d], 0, v[2], v[3]);
    }
    float zeros[20] = {0}, got[20];
    assert_vectors_equal(&p, 4, 1e-6, "mean");
    assert_vectors_equal(&p, 6, 1e-6, "scale");
    assert_int_equal(mdm_device_download(p.device[1], got, p.vector[1][2], sizeof got), MDM_OK);
    assert_close(got, zeros, 20, 0, 0, "means of constants");
    close_pair(&p);
}

static void sums_with_relu_and_their_gradients_equal_the_cpus(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pair p;
        open_pair(&p, sizes[i].n, sizes[i].channels, sizes[i].height, sizes[i].width,
                  i % 2 ? MDM_BF16 : MDM_FP32);
        for (int d = 0; d < 2; d++) {
            void **t = p.tensor[d];
            mdm_add_relu_forward(p.device[d], &p.shape, t[1], t[2], t[4]);
            mdm_add_relu_backward(p.device[d], &p.shape, t[3], i % 3 ? t[5] : NULL, t[4], t[5]);
        }
        assert_tensors_equal(&p, 4, "sum with ReLU");
        assert_tensors_equal(&p, 3, "its gradient");
        assert_tensors_equal(&p, 5, "its copy");
        close_pair(&p);
    }
}

/* Few different values, so that windows have several greatest ones. */
static void coarsen(pair *p, int tensor) {
    float *values = draw(p->count, 77);
    for (int64_t i = 0; i < p->count; i++) values[i] = floorf(values[i]);
    for (int d = 0; d < 2; d++)
        assert_int_equal(mdm_tensor_import(p->device[d], values, p->shape.n, p->shape.channels, p->height,
                                           p->width, p->shape.precision, p->tensor[d][tensor]),
                         MDM_OK);
    free(values);
}

static void max_pooling_and_its_gradient_equal_the_cpus_with_ties(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pair p;
        open_pair(&p, sizes[i].n, sizes[i].channels, sizes[i].height, sizes[i].width, MDM_FP32);
        mdm_max_pool_shape pool = {p.shape.n, p.shape.channels, p.height, p.width, MDM_FP32};
        coarsen(&p, 0);
        for (int d = 0; d < 2; d++) {
            void **t = p.tensor[d]; /* 1, 2, 3 hold the smaller output and its gradients */
            mdm_max_pool_forward(p.device[d], &pool, t[0], t[1]);
        }
        int height = p.height, width = p.width;
        p.height = (height + 1) / 2, p.width = (width + 1) / 2;
        p.count = (int64_t)p.shape.n * p.shape.channels * p.height * p.width;
        assert_tensors_equal(&p, 1, "max pooling");
        coarsen(&p, 2);
        coarsen(&p, 3);
        p.height = height, p.width = width;
        p.count = (int64_t)p.shape.n * p.shape.channels * height * width;
        for (int d = 0; d < 2; d++) {
            void **t = p.tensor[d];
            mdm_max_pool_backward(p.device[d], &pool, t[2], i % 2 ? t[3] : NULL, t[0], t[1], t[4]);
        }
        assert_tensors_equal(&p, 4, "gradient of max pooling");
        close_pair(&p);
    }
}

static void mean_pooling_and_its_gradient_equal_the_cpus(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pair p;
        open_pair(&p, sizes[i].n, sizes[i].channels, sizes[i].height, sizes[i].width,
                  i % 2 ? MDM_BF16 : MDM_FP32);
        size_t bytes = sizeof(float) * (size_t)p.shape.n * (size_t)p.shape.channels;
        float *embedding[2], *copy[2];
        for (int d = 0; d < 2; d++) {
            copy[d] = malloc(bytes);
            assert_int_equal(mdm_device_allocate(p.device[d], bytes, "a test", (void **)&embedding[d]),
                             MDM_OK);
            mdm_pool_forward(p.device[d], &p.shape, p.tensor[d][0], i % 3 ? p.tensor[d][1] : NULL,
                             embedding[d]);
            assert_int_equal(mdm_device_download(p.device[d], copy[d], embedding[d], bytes), MDM_OK);
            mdm_pool_backward(p.device[d], &p.shape, embedding[d], p.tensor[d][4]);
        }
        assert_close(copy[1], copy[0], (int64_t)(bytes / sizeof(float)), 1e-5, 1e-5, "mean pooling");
        assert_tensors_equal(&p, 4, "gradient of mean pooling");
        assert_padding_is_zero(&p, 4, "gradient of mean pooling");
        for (int d = 0; d < 2; d++) {
            mdm_device_free(p.device[d], embedding[d]);
            free(copy[d]);
        }
        close_pair(&p);
    }
}

static void the_optimizer_step_equals_the_cpus(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    pair p;
    open_pair(&p, 1, 8, 2, 2, MDM_FP32);
    static const char *const names[3] = {"weights", "copy", "average"};
    float *after[2][3];
    for (int d = 0; d < 2; d++) {
        float *memory[3];
        for (uint32_t i = 0; i < 3; i++) {
            float *values = draw(COUNT, 200 + i);
            assert_int_equal(
                mdm_device_allocate(p.device[d], sizeof(float) * COUNT, "a test", (void **)&memory[i]),
                MDM_OK);
            assert_int_equal(mdm_device_upload(p.device[d], memory[i], values, sizeof(float) * COUNT),
                             MDM_OK);
            free(values);
        }
        const float rate = 0.1f;
        const double sound = MDM_STEP_IS_SOUND;
        float *rate_there = test_device_copy(p.device[d], &rate, sizeof rate);
        double *verdict = test_device_copy(p.device[d], &sound, sizeof sound);
        mdm_sgd_step(p.device[d], memory[0], memory[1], memory[2], COUNT, rate_there, 0.9f, 5e-4f, verdict);
        mdm_device_free(p.device[d], rate_there);
        mdm_device_free(p.device[d], verdict);
        mdm_average_step(p.device[d], memory[2], memory[0], COUNT - 1, 0.75f);
        mdm_device_copy(p.device[d], memory[1], memory[0], 10 * sizeof(float));
        for (int i = 0; i < 3; i++) {
            after[d][i] = malloc(sizeof(float) * COUNT);
            assert_int_equal(mdm_device_download(p.device[d], after[d][i], memory[i], sizeof(float) * COUNT),
                             MDM_OK);
        }
        for (int i = 0; i < 3; i++) mdm_device_free(p.device[d], memory[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_close(after[1][i], after[0][i], COUNT, 1e-6, 1e-6, names[i]);
        free(after[0][i]);
        free(after[1][i]);
    }
    close_pair(&p);
}

/* NaN and both infinities show in the sum, wherever they stand; the largest finite numbers do not. */
static void sums_of_squares_equal_the_cpus_and_show_what_is_not_finite(void **state) {
    (void)state;
    enum { COUNT = 40000 };
    static const int places[] = {0, 511, COUNT - 1};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    pair p;
    double sums[2][4];
    open_pair(&p, 1, 8, 2, 2, MDM_FP32);
    for (int d = 0; d < 2; d++) {
        float *values = draw(COUNT, 300);
        void *memory, *sum;
        assert_int_equal(mdm_device_allocate(p.device[d], sizeof(float) * COUNT, "a test", &memory), MDM_OK);
        assert_int_equal(mdm_device_allocate(p.device[d], sizeof(double), "a test", &sum), MDM_OK);
        for (int i = 0; i < 4; i++) {
            if (i > 0) values[places[i - 1]] = bad[i - 1];
            assert_int_equal(mdm_device_upload(p.device[d], memory, values, sizeof(float) * COUNT), MDM_OK);
            mdm_sum_squares(p.device[d], memory, COUNT, sum);
            assert_int_equal(mdm_device_download(p.device[d], &sums[d][i], sum, sizeof(double)), MDM_OK);
            if (i > 0) values[places[i - 1]] = 3.4e38f;
        }
        assert_true(isfinite(sums[d][0]) && !isfinite(sums[d][1]) && !isfinite(sums[d][2]) &&
                    !isfinite(sums[d][3]));
        mdm_device_free(p.device[d], memory);
        mdm_device_free(p.device[d], sum);
        free(values);
    }
    assert_true(sums[0][0] > 0 && fabs(sums[1][0] - sums[0][0]) <= 1e-12 * sums[0][0]);
    close_pair(&p);
}

/* Whatever the sizes: each pixel and 8 channels are some thread's, once, and the grid is one a device takes.
 */
static void check_grid(mdm_pixel_geometry s, uint32_t rows, uint32_t groups) {
    uint64_t visits[MDM_NORM_SETS] = {0};
    assert_true(s.lanes >= 1 && s.lanes * s.block_groups <= MDM_GPU_THREADS);
    assert_true(s.blocks >= 1 && mdm_geometry_block_rows(&s) <= 65535);
    assert_true(s.block_columns * s.block_groups >= groups);
    for (uint32_t y = 0; y < mdm_geometry_block_rows(&s); y++)
        for (uint32_t x = 0; x < s.blocks; x++)
            for (uint32_t t = 0; t < MDM_GPU_THREADS; t++) {
                mdm_pixel_range r;
                uint32_t set = y / s.block_columns;
                if (!mdm_pixel_range_of(&s, (mdm_gpu_thread){x, t, y}, &r)) continue;
                assert_true(r.row >= set * rows && r.end <= (set + 1) * rows && r.group < groups);
                assert_true(r.values == set * groups + r.group);
                if (r.row < r.end) visits[set] += (r.end - r.row - 1) / s.lanes + 1;
            }
    for (uint32_t set = 0; set < s.sets; set++) assert_true(visits[set] == (uint64_t)rows * groups);
}

static void the_grids_of_sums_and_maps_visit_every_value_once(void **state) {
    (void)state;
    static const uint32_t rows[] = {1, 7, 63, 64, 1000, 786432, 4161600},
                          groups[] = {1, 3, 8, 32, 33, 256, 300};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
            for (uint32_t sets = 1; sets <= MDM_NORM_SETS; sets++) {
                mdm_pixel_geometry sum = mdm_geometry_of_sum(rows[r], groups[g], sets);
                assert_true(sum.blocks * sets <= MDM_GPU_BLOCKS);
                check_grid(sum, rows[r], groups[g]);
                check_grid(mdm_geometry_of_map(rows[r], groups[g], sets), rows[r], groups[g]);
            }
}

static void bfloat16_rounds_to_nearest_even_and_keeps_nan(void **state) {
    (void)state;
    assert_int_equal(mdm_bf16_of(1.0f), 0x3f80);
    assert_int_equal(mdm_bf16_of(1.00390625f), 0x3f80); /* half way: to even */
    assert_int_equal(mdm_bf16_of(1.01171875f), 0x3f82);
    assert_int_equal(mdm_bf16_of(1.004f), 0x3f81);
    assert_true(isnan(mdm_float_of_bf16(mdm_bf16_of(NAN))));
    assert_true(isinf(mdm_float_of_bf16(mdm_bf16_of(3.4e38f))));
}

/* Where the library of products adds none. */
static void the_bias_kernel_adds_one_value_a_column(void **state) {
    (void)state;
    enum { ROWS = 37, COLUMNS = 10 };
    float c[ROWS * COLUMNS], bias[COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++) c[i] = (float)i;
    for (int i = 0; i < COLUMNS; i++) bias[i] = 1000.0f * (float)(i + 1);
    const mdm_bias_arguments a = {bias, c, ROWS * COLUMNS, COLUMNS};
    for (uint32_t i = 0; i < 2 * MDM_GPU_THREADS; i++)
        mdm_add_bias_thread(&a, (mdm_gpu_thread){i / MDM_GPU_THREADS, i % MDM_GPU_THREADS, 0});
    for (int i = 0; i < ROWS * COLUMNS; i++)
        assert_true(c[i] == (float)i + 1000.0f * (float)(i % COLUMNS + 1));
}

/* Every half, what lies half way between two of them, and a little to either side. */
static void half_precision_rounds_to_nearest_even_down_to_the_smallest(void **state) {
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++) {
        float below = mdm_float_of_half(half), above = mdm_float_of_half(half + 1),
              middle = below + (above - below) / 2;
        assert_true(below < above);
        assert_int_equal(mdm_half_of(below), half);
        assert_int_equal(mdm_half_of(-below), half | 0x8000);
        assert_int_equal(mdm_half_of(middle), half + (half & 1));
        assert_int_equal(mdm_half_of(nextafterf(middle, 0)), half);
        assert_int_equal(mdm_half_of(nextafterf(middle, 1e9f)), half + 1);
        assert_true(mdm_float_of_half(half | 0x8000) == -below);
    }
    assert_true(mdm_float_of_half(1) == 0x1p-24f && mdm_float_of_half(0x3c00) == 1 &&
                mdm_float_of_half(0x7bff) == 65504);
}

/* Sums are cut off at every addition here, as tensor cores do at most; the bound is above what comes of it,
 * and not a hundred times that. */
static void the_bound_of_half_precision_similarities_holds(void **state) {
    (void)state;
    enum { ROWS = 40, D = 512 };
    static uint16_t halves[ROWS][D];
    static double unit[ROWS][D];
    double error = 0, worst = 0;
    float *values = draw(ROWS * D, 90);
    for (int i = 0; i < ROWS; i++) {
        double square = 0, norm = 0;
        for (int d = 0; d < D; d++) norm += (double)values[i * D + d] * values[i * D + d];
        for (int d = 0; d < D; d++) {
            unit[i][d] = values[i * D + d] / sqrt(norm);
            halves[i][d] = (uint16_t)mdm_half_of((float)unit[i][d]);
            double off = mdm_float_of_half(halves[i][d]) - unit[i][d];
            square += off * off;
        }
        if (sqrt(square) > error) error = sqrt(square);
    }
    free(values);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < ROWS; j++) {
            float sum = 0;
            double exact = 0;
            for (int d = 0; d < D; d++) {
                double next = (double)sum + (double)mdm_float_of_half(halves[i][d]) *
                                                (double)mdm_float_of_half(halves[j][d]);
                sum = (float)next;
                if (fabs((double)sum) > fabs(next)) sum = nextafterf(sum, 0);
                exact += unit[i][d] * unit[j][d];
            }
            if (fabs(sum - exact) > worst) worst = fabs(sum - exact);
        }
    double bound = mdm_similarity_bound(error, D);
    assert_true(worst < bound && worst > bound / 100 && bound < 1e-3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_norm_equals_the_cpu_in_every_piece),
        cmocka_unit_test(frozen_statistics_equal_the_cpus),
        cmocka_unit_test(sums_with_relu_and_their_gradients_equal_the_cpus),
        cmocka_unit_test(max_pooling_and_its_gradient_equal_the_cpus_with_ties),
        cmocka_unit_test(mean_pooling_and_its_gradient_equal_the_cpus),
        cmocka_unit_test(the_optimizer_step_equals_the_cpus),
        cmocka_unit_test(sums_of_squares_equal_the_cpus_and_show_what_is_not_finite),
        cmocka_unit_test(the_grids_of_sums_and_maps_visit_every_value_once),
        cmocka_unit_test(bfloat16_rounds_to_nearest_even_and_keeps_nan),
        cmocka_unit_test(the_bias_kernel_adds_one_value_a_column),
        cmocka_unit_test(half_precision_rounds_to_nearest_even_down_to_the_smallest),
        cmocka_unit_test(the_bound_of_half_precision_similarities_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
