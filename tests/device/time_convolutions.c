/* time_convolutions [THREADS [BATCH]]: GFLOP/s of the convolutions of a ResNet-18 of width 64 at 32 x 32
 * pictures in bfloat16, the best of nine. Not a test: docs/benchmarks.md has its figures. */
#include "mdm/base/log.h"
#include "test_device.h"
#include <math.h>

enum { REPEATS = 9, PARTS = 4 };

typedef struct convolving {
    mdm_device *device;
    mdm_convolution *convolution;
    void *x, *y;
    float *weights, *gradient;
    size_t weight_count;
} convolving;

static void fill(const convolving *c, void *tensor, size_t bytes) {
    uint16_t *values = malloc(bytes);
    assert_non_null(values);
    for (size_t i = 0; i < bytes / 2; i++) values[i] = (uint16_t)(0x3f80 | (i * 7919 & 0x7f)); /* 1 to 2 */
    assert_int_equal(mdm_device_upload(c->device, tensor, values, bytes), MDM_OK);
    free(values);
}

static void open_layer(convolving *c, const mdm_convolution_shape *s, int out_side) {
    size_t x = mdm_tensor_bytes(c->device, s->batch, s->in_channels, s->height, s->width, MDM_BF16),
           y = mdm_tensor_bytes(c->device, s->batch, s->out_channels, out_side, out_side, MDM_BF16);
    c->weight_count = (size_t)(s->in_channels * s->out_channels * s->kernel * s->kernel);
    float *weights = malloc(sizeof(float) * c->weight_count);
    assert_non_null(weights);
    for (size_t i = 0; i < c->weight_count; i++) weights[i] = (float)(i % 13) * 0.01f;
    c->weights = test_device_copy(c->device, weights, sizeof(float) * c->weight_count);
    c->gradient = test_device_copy(c->device, weights, sizeof(float) * c->weight_count);
    free(weights);
    c->x = test_device_copy(c->device, NULL, x);
    c->y = test_device_copy(c->device, NULL, y);
    fill(c, c->x, x);
    fill(c, c->y, y);
    assert_int_equal(mdm_convolution_create(c->device, s, &c->convolution), MDM_OK);
}

static void close_layer(convolving *c) {
    void *memories[] = {c->x, c->y, c->weights, c->gradient};
    for (int i = 0; i < 4; i++) mdm_device_free(c->device, memories[i]);
    mdm_convolution_destroy(c->convolution);
}

static mdm_status run(const convolving *c, int part) {
    if (part == 0) return mdm_convolution_set_weights(c->convolution, c->weights);
    if (part == 1) return mdm_convolution_forward(c->convolution, c->x, c->y);
    if (part == 2) return mdm_convolution_backward_data(c->convolution, c->y, c->x);
    return mdm_convolution_backward_weights(c->convolution, c->x, c->y, c->gradient, 1);
}

/* The download waits for the device. */
static double seconds_of(const convolving *c, int part) {
    float waited_for;
    double start = mdm_seconds();
    assert_int_equal(run(c, part), MDM_OK);
    assert_int_equal(mdm_device_download(c->device, &waited_for, c->weights, sizeof waited_for), MDM_OK);
    return mdm_seconds() - start;
}

int main(int argc, char **argv) {
    static const int layers[][5] = {{64, 64, 32, 3, 1},  {128, 128, 16, 3, 1}, {256, 256, 8, 3, 1},
                                    {512, 512, 4, 3, 1}, {64, 128, 32, 3, 2},  {128, 256, 16, 3, 2},
                                    {256, 512, 8, 3, 2}, {64, 128, 32, 1, 2},  {128, 256, 16, 1, 2},
                                    {256, 512, 8, 1, 2}};
    int threads = argc > 1 ? atoi(argv[1]) : 1, batch = argc > 2 ? atoi(argv[2]) : 256;
    test_device_or_skip();
    convolving c = {.device = test_device_open(threads, 1)};
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const int *l = layers[i];
        mdm_convolution_shape shape = {batch, l[0], l[1], l[2], l[2], l[3], l[4], MDM_BF16,
                                       0,     0,    0,    0,    0,    0,    0};
        int out_side = (l[2] - 1) / l[4] + 1;
        double best[PARTS] = {INFINITY, INFINITY, INFINITY, INFINITY};
        open_layer(&c, &shape, out_side);
        for (int r = 0; r < REPEATS; r++)
            for (int p = 0; p < PARTS; p++) best[p] = fmin(best[p], seconds_of(&c, p));
        double gflop = 2e-9 * batch * (double)c.weight_count * out_side * out_side;
        printf("%3d to %3d, %2d x %2d, %dx%d, stride %d: weights %6.2f ms, forward %6.0f GFLOP/s, gradient "
               "of the "
               "input %6.0f, of the weights %6.0f\n",
               l[0], l[1], l[2], l[2], l[3], l[3], l[4], 1e3 * best[0], gflop / best[1], gflop / best[2],
               gflop / best[3]);
        close_layer(&c);
    }
    mdm_device_destroy(c.device);
    return 0;
}
