/* Batch norm with ReLU, pooling and the optimizer step on blocked tensors, each one pass over memory.
 *
 * The file is compiled once per instruction set with MDM_KERNEL_NAME, MDM_KERNEL_BLOCK (lanes of a channel
 * block, one vector register) and MDM_KERNEL_INSTRUCTIONS. Sums are made per picture and channel block, then
 * over pictures in order, so they do not depend on the number of threads.
 */
#include "kernels.h"
#include <math.h>
#include <string.h>

#define B MDM_KERNEL_BLOCK
typedef float vector __attribute__((vector_size(B * 4)));
typedef int32_t vector_int __attribute__((vector_size(B * 4)));
typedef uint32_t vector_bits __attribute__((vector_size(B * 4)));
typedef uint16_t vector_half __attribute__((vector_size(B * 2)));
typedef double vector_double __attribute__((vector_size(B * 8)));

/* Sums run in single precision over so many pixels, then go on in double: means of large pictures must not
 * drift. */
enum { RUN = 64 };

/* Element `i` counts vectors of B lanes. bfloat16 is the upper half of a float; stores round to nearest even.
 */
static inline vector load(const void *tensor, size_t i, int bf16) {
    vector value;
    if (bf16) {
        vector_half half;
        memcpy(&half, (const uint16_t *)tensor + i * B, sizeof half);
        vector_bits bits = __builtin_convertvector(half, vector_bits) << 16;
        memcpy(&value, &bits, sizeof value);
    } else {
        memcpy(&value, (const float *)tensor + i * B, sizeof value);
    }
    return value;
}

static inline void store(void *tensor, size_t i, int bf16, vector value) {
    if (bf16) {
        vector_bits bits;
        memcpy(&bits, &value, sizeof bits);
        bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        vector_half half = __builtin_convertvector(bits, vector_half);
        memcpy((uint16_t *)tensor + i * B, &half, sizeof half);
    } else {
        memcpy((float *)tensor + i * B, &value, sizeof value);
    }
}

static inline vector load_channels(const float *channels, int block) {
    vector value;
    memcpy(&value, channels + (size_t)block * B, sizeof value);
    return value;
}

static inline vector positive_part(vector v, vector condition) {
    vector_int mask = condition > 0.0f;
    vector_int bits;
    memcpy(&bits, &v, sizeof bits);
    bits &= mask;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline vector_double widen(vector v) {
    return __builtin_convertvector(v, vector_double);
}

static inline int run_end(int start, int pixels) {
    return start + RUN < pixels ? start + RUN : pixels;
}

/* Adds the planes' partial sums over pictures, in order. */
static void sum_partials(const mdm_kernel_shape *shape, const double *partial, double *first,
                         double *second) {
    int blocks = shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (int block = 0; block < blocks; block++) {
        double a[B] = {0}, b[B] = {0};
        for (int n = 0; n < shape->n; n++) {
            const double *p = partial + ((size_t)n * blocks + block) * 2 * B;
            for (int lane = 0; lane < B; lane++) a[lane] += p[lane], b[lane] += p[B + lane];
        }
        memcpy(first + (size_t)block * B, a, sizeof a);
        memcpy(second + (size_t)block * B, b, sizeof b);
    }
}

static inline void plane_statistics(void *x, const void *residual, size_t base, int pixels, int bf16,
                                    double *partial, size_t plane) {
    vector_double sum = {0}, deviation = {0};
    for (int start = 0; start < pixels; start += RUN) {
        vector part = {0};
        for (int p = start; p < run_end(start, pixels); p++) {
            vector v = load(x, base + p, bf16);
            if (residual) {
                v += load(residual, base + p, bf16);
                store(x, base + p, bf16, v);
                if (bf16) v = load(x, base + p, bf16);
            }
            part += v;
        }
        sum += widen(part);
    }
    vector mean = __builtin_convertvector(sum / (double)pixels, vector);
    for (int start = 0; start < pixels; start += RUN) { /* the plane is still in the cache */
        vector part = {0};
        for (int p = start; p < run_end(start, pixels); p++) {
            vector d = load(x, base + p, bf16) - mean;
            part += d * d;
        }
        deviation += widen(part);
    }
    /* sum of x^2 = sum (x - m)^2 + 2 m sum x - pixels m^2, with m the rounded mean */
    vector_double m = widen(mean), square = deviation + 2.0 * m * sum - (double)pixels * m * m;
    memcpy(partial + plane * 2 * B, &sum, sizeof sum);
    memcpy(partial + (plane * 2 + 1) * B, &square, sizeof square);
}

static void statistics(const mdm_kernel_shape *shape, void *x, const void *residual, double *partial,
                       double *sum, double *square_sum) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++) {
        size_t base = plane * shape->pixels;
        if (shape->bf16)
            plane_statistics(x, residual, base, shape->pixels, 1, partial, plane);
        else
            plane_statistics(x, residual, base, shape->pixels, 0, partial, plane);
    }
    sum_partials(shape, partial, sum, square_sum);
}

static inline void plane_forward(const void *x, const void *residual, size_t base, int pixels, int bf16,
                                 int linear, vector scale, vector shift, void *y) {
    for (int p = 0; p < pixels; p++) {
        vector v = load(x, base + p, bf16);
        if (residual) v += load(residual, base + p, bf16);
        v = v * scale + shift;
        store(y, base + p, bf16, linear ? v : positive_part(v, v));
    }
}

static void relu_forward(const mdm_kernel_shape *shape, const void *x, const void *residual,
                         const float *scale, const float *shift, void *y) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++) {
        int block = (int)(plane % (size_t)shape->channel_blocks);
        vector a = load_channels(scale, block), b = load_channels(shift, block);
        size_t base = plane * shape->pixels;
        if (shape->bf16)
            plane_forward(x, residual, base, shape->pixels, 1, shape->linear, a, b, y);
        else
            plane_forward(x, residual, base, shape->pixels, 0, shape->linear, a, b, y);
    }
}

/* The gradient behind the norm, where the ReLU let `z` pass. */
static inline vector passed(vector g, vector z, int linear) {
    return linear ? g : positive_part(g, z);
}

static inline vector gradient_at(const void *gradient, const void *other, size_t i, int bf16) {
    vector g = load(gradient, i, bf16);
    if (other) g += load(other, i, bf16);
    return g;
}

static inline void plane_backward_sums(const void *gradient, const void *other, const void *x, size_t base,
                                       int pixels, int bf16, int linear, vector scale, vector shift,
                                       vector mean, vector inverse, double *partial, size_t plane) {
    vector_double sum = {0}, product = {0};
    for (int start = 0; start < pixels; start += RUN) {
        vector part = {0}, part_product = {0};
        for (int p = start; p < run_end(start, pixels); p++) {
            vector v = load(x, base + p, bf16);
            vector dz = passed(gradient_at(gradient, other, base + p, bf16), v * scale + shift, linear);
            part += dz;
            part_product += dz * (v - mean);
        }
        sum += widen(part);
        product += widen(part_product);
    }
    product *= widen(inverse);
    memcpy(partial + plane * 2 * B, &sum, sizeof sum);
    memcpy(partial + (plane * 2 + 1) * B, &product, sizeof product);
}

static void relu_backward_sums(const mdm_kernel_shape *shape, const void *gradient, const void *other,
                               const void *x, const float *scale, const float *shift, const float *mean,
                               const float *inverse_deviation, double *partial, double *sum,
                               double *product_sum) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++) {
        int block = (int)(plane % (size_t)shape->channel_blocks);
        vector a = load_channels(scale, block), b = load_channels(shift, block),
               m = load_channels(mean, block), i = load_channels(inverse_deviation, block);
        size_t base = plane * shape->pixels;
        if (shape->bf16)
            plane_backward_sums(gradient, other, x, base, shape->pixels, 1, shape->linear, a, b, m, i,
                                partial, plane);
        else
            plane_backward_sums(gradient, other, x, base, shape->pixels, 0, shape->linear, a, b, m, i,
                                partial, plane);
    }
    sum_partials(shape, partial, sum, product_sum);
}

static inline void plane_backward_input(void *gradient, const void *other, const void *x, size_t base,
                                        int pixels, int bf16, int linear, vector scale, vector shift,
                                        vector mean, vector constant, vector slope) {
    for (int p = 0; p < pixels; p++) {
        vector v = load(x, base + p, bf16);
        vector dz = passed(gradient_at(gradient, other, base + p, bf16), v * scale + shift, linear);
        store(gradient, base + p, bf16, scale * (dz - constant - (v - mean) * slope));
    }
}

static void relu_backward_input(const mdm_kernel_shape *shape, void *gradient, const void *other,
                                const void *x, const float *scale, const float *shift, const float *mean,
                                const float *inverse_deviation, const float *mean_gradient,
                                const float *mean_product) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++) {
        int block = (int)(plane % (size_t)shape->channel_blocks);
        vector a = load_channels(scale, block), b = load_channels(shift, block),
               m = load_channels(mean, block);
        vector constant = load_channels(mean_gradient, block);
        vector slope = load_channels(inverse_deviation, block) * load_channels(mean_product, block);
        size_t base = plane * shape->pixels;
        if (shape->bf16)
            plane_backward_input(gradient, other, x, base, shape->pixels, 1, shape->linear, a, b, m, constant,
                                 slope);
        else
            plane_backward_input(gradient, other, x, base, shape->pixels, 0, shape->linear, a, b, m, constant,
                                 slope);
    }
}

static void add_relu_forward(const mdm_kernel_shape *shape, const void *a, const void *b, void *y) {
    size_t count = (size_t)shape->n * shape->channel_blocks * shape->pixels;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; i++) {
        vector v = load(a, i, shape->bf16) + load(b, i, shape->bf16);
        store(y, i, shape->bf16, positive_part(v, v));
    }
}

static void add_relu_backward(const mdm_kernel_shape *shape, void *gradient, const void *other, const void *y,
                              void *copy) {
    size_t count = (size_t)shape->n * shape->channel_blocks * shape->pixels;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; i++) {
        vector g = positive_part(gradient_at(gradient, other, i, shape->bf16), load(y, i, shape->bf16));
        store(gradient, i, shape->bf16, g);
        store(copy, i, shape->bf16, g);
    }
}

/* The 3x3 window of an output pixel, cut to the picture: rows [top, bottom), columns [left, right). */
typedef struct window {
    int top, bottom, left, right;
} window;

static inline window window_of(const mdm_kernel_shape *shape, int row, int column) {
    window w = {2 * row - 1, 2 * row + 2, 2 * column - 1, 2 * column + 2};
    if (w.top < 0) w.top = 0;
    if (w.left < 0) w.left = 0;
    if (w.bottom > shape->height) w.bottom = shape->height;
    if (w.right > shape->width) w.right = shape->width;
    return w;
}

static void max_pool_forward(const mdm_kernel_shape *shape, const void *x, void *y) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
    int rows = (shape->height + 1) / 2, columns = (shape->width + 1) / 2;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++)
        for (int out = 0; out < rows * columns; out++) {
            window w = window_of(shape, out / columns, out % columns);
            size_t base = plane * shape->pixels;
            vector best = load(x, base + (size_t)w.top * shape->width + w.left, shape->bf16);
            for (int i = w.top; i < w.bottom; i++)
                for (int j = w.left; j < w.right; j++) {
                    vector v = load(x, base + (size_t)i * shape->width + j, shape->bf16);
                    vector_int greater = v > best;
                    for (int lane = 0; lane < B; lane++) best[lane] = greater[lane] ? v[lane] : best[lane];
                }
            store(y, plane * rows * columns + out, shape->bf16, best);
        }
}

/* Windows overlap, but only within a plane, which one thread has to itself. */
static void max_pool_backward(const mdm_kernel_shape *shape, const void *gradient, const void *other,
                              const void *x, const void *y, void *x_gradient) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
    int rows = (shape->height + 1) / 2, columns = (shape->width + 1) / 2;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++) {
        size_t base = plane * shape->pixels, out_base = plane * rows * columns;
        vector zero = {0};
        for (int p = 0; p < shape->pixels; p++) store(x_gradient, base + p, shape->bf16, zero);
        for (int out = 0; out < rows * columns; out++) {
            window w = window_of(shape, out / columns, out % columns);
            vector best = load(y, out_base + out, shape->bf16);
            vector g = gradient_at(gradient, other, out_base + out, shape->bf16);
            vector_int open = {0};
            open = ~open; /* lanes whose greatest input is still to be met */
            for (int i = w.top; i < w.bottom; i++)
                for (int j = w.left; j < w.right; j++) {
                    size_t at = base + (size_t)i * shape->width + j;
                    vector_int here = (load(x, at, shape->bf16) == best) & open;
                    vector_int bits;
                    vector part;
                    memcpy(&bits, &g, sizeof bits);
                    bits &= here;
                    memcpy(&part, &bits, sizeof part);
                    store(x_gradient, at, shape->bf16, load(x_gradient, at, shape->bf16) + part);
                    open &= ~here;
                }
        }
    }
}

static void pool_forward(const mdm_kernel_shape *shape, const void *x, const void *residual, int channels,
                         float *embedding) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++) {
        int block = (int)(plane % (size_t)shape->channel_blocks),
            n = (int)(plane / (size_t)shape->channel_blocks);
        size_t base = plane * shape->pixels;
        vector sum = {0};
        for (int p = 0; p < shape->pixels; p++) {
            sum += load(x, base + p, shape->bf16);
            if (residual) sum += load(residual, base + p, shape->bf16);
        }
        for (int lane = 0; lane < B && block * B + lane < channels; lane++)
            embedding[(size_t)n * channels + block * B + lane] = sum[lane] / (float)shape->pixels;
    }
}

static void pool_backward(const mdm_kernel_shape *shape, const float *embedding_gradient, int channels,
                          void *gradient) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (size_t plane = 0; plane < planes; plane++) {
        int block = (int)(plane % (size_t)shape->channel_blocks),
            n = (int)(plane / (size_t)shape->channel_blocks);
        vector g = {0};
        for (int lane = 0; lane < B && block * B + lane < channels; lane++)
            g[lane] = embedding_gradient[(size_t)n * channels + block * B + lane] / (float)shape->pixels;
        for (int p = 0; p < shape->pixels; p++) store(gradient, plane * shape->pixels + p, shape->bf16, g);
    }
}

static void sgd(float *weights, const float *gradient, float *velocity, int64_t count, float rate,
                float momentum, float weight_decay) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float v = momentum * velocity[i] + (gradient[i] + weight_decay * weights[i]);
        velocity[i] = v;
        weights[i] -= rate * v;
    }
}

const mdm_kernels MDM_KERNEL_NAME = {
    MDM_KERNEL_INSTRUCTIONS,
    B,
    statistics,
    relu_forward,
    relu_backward_sums,
    relu_backward_input,
    add_relu_forward,
    add_relu_backward,
    max_pool_forward,
    max_pool_backward,
    pool_forward,
    pool_backward,
    sgd,
};
