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

/* The vectors of one channel block of one picture: number `first`, then every `step`-th. */
typedef struct plane {
    size_t first, step;
} plane;

static inline plane plane_of(const mdm_kernel_shape *shape, size_t number, int pixels) {
    size_t blocks = (size_t)shape->channel_blocks;
    if (!shape->channels_last) return (plane){number * (size_t)pixels, 1};
    return (plane){number / blocks * (size_t)pixels * blocks + number % blocks, blocks};
}

static inline size_t vector_at(plane place, int pixel) {
    return place.first + (size_t)pixel * place.step;
}

static inline int run_end(int start, int pixels) {
    return start + RUN < pixels ? start + RUN : pixels;
}

/* What one thread takes: planes [first, end) of a picture, whose vectors are neighbours, run by run. */
typedef struct strip {
    size_t first, end;
} strip;

static inline size_t strip_count(const mdm_kernel_shape *shape) {
    return (size_t)shape->n * (shape->channels_last ? 1 : (size_t)shape->channel_blocks);
}

static inline strip strip_of(const mdm_kernel_shape *shape, size_t number) {
    size_t planes = shape->channels_last ? (size_t)shape->channel_blocks : 1;
    return (strip){number * planes, (number + 1) * planes};
}

static inline int block_of(const mdm_kernel_shape *shape, size_t number) {
    return (int)(number % (size_t)shape->channel_blocks);
}

/* The two partial sums of a plane. */
static inline double *partial_of(double *partial, size_t number, int second) {
    return partial + (2 * number + (size_t)second) * B;
}

static inline void add_partial(double *partial, vector part) {
    vector_double sum;
    memcpy(&sum, partial, sizeof sum);
    sum += widen(part);
    memcpy(partial, &sum, sizeof sum);
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

/* With a residual, leaves the sum in x. */
static inline vector run_sum(void *x, const void *residual, plane place, int start, int end, int bf16) {
    vector part = {0};
    for (int p = start; p < end; p++) {
        size_t i = vector_at(place, p);
        vector v = load(x, i, bf16);
        if (residual) {
            v += load(residual, i, bf16);
            store(x, i, bf16, v);
            if (bf16) v = load(x, i, bf16);
        }
        part += v;
    }
    return part;
}

static inline vector mean_of(const double *sum, int pixels) {
    vector_double total;
    memcpy(&total, sum, sizeof total);
    return __builtin_convertvector(total / (double)pixels, vector);
}

static inline vector run_deviation(const void *x, vector mean, plane place, int start, int end, int bf16) {
    vector part = {0};
    for (int p = start; p < end; p++) {
        vector d = load(x, vector_at(place, p), bf16) - mean;
        part += d * d;
    }
    return part;
}

/* From the sum around the mean to that of the squares: sum x^2 = sum (x - m)^2 + 2 m sum x - pixels m^2, with
 * m the rounded mean. */
static inline void finish_square_sum(double *sums, int pixels) {
    vector_double sum, deviation, m = widen(mean_of(sums, pixels));
    memcpy(&sum, sums, sizeof sum);
    memcpy(&deviation, sums + B, sizeof deviation);
    vector_double square = deviation + 2.0 * m * sum - (double)pixels * m * m;
    memcpy(sums + B, &square, sizeof square);
}

static inline void strip_statistics(const mdm_kernel_shape *shape, strip s, void *x, const void *residual,
                                    int bf16, double *partial) {
    int pixels = shape->pixels;
    memset(partial_of(partial, s.first, 0), 0, (s.end - s.first) * 2 * B * sizeof *partial);
    for (int start = 0; start < pixels; start += RUN)
        for (size_t i = s.first; i < s.end; i++)
            add_partial(partial_of(partial, i, 0), run_sum(x, residual, plane_of(shape, i, pixels), start,
                                                           run_end(start, pixels), bf16));
    for (int start = 0; start < pixels; start += RUN) /* the strip is still in the cache */
        for (size_t i = s.first; i < s.end; i++)
            add_partial(partial_of(partial, i, 1),
                        run_deviation(x, mean_of(partial_of(partial, i, 0), pixels),
                                      plane_of(shape, i, pixels), start, run_end(start, pixels), bf16));
    for (size_t i = s.first; i < s.end; i++) finish_square_sum(partial_of(partial, i, 0), pixels);
}

static void statistics(const mdm_kernel_shape *shape, void *x, const void *residual, double *partial,
                       double *sum, double *square_sum) {
    size_t strips = strip_count(shape);
#pragma omp parallel for schedule(static)
    for (size_t number = 0; number < strips; number++) {
        if (shape->bf16)
            strip_statistics(shape, strip_of(shape, number), x, residual, 1, partial);
        else
            strip_statistics(shape, strip_of(shape, number), x, residual, 0, partial);
    }
    sum_partials(shape, partial, sum, square_sum);
}

static inline void run_forward(const void *x, const void *residual, plane place, int start, int end, int bf16,
                               int linear, vector scale, vector shift, void *y) {
    for (int p = start; p < end; p++) {
        size_t i = vector_at(place, p);
        vector v = load(x, i, bf16);
        if (residual) v += load(residual, i, bf16);
        v = v * scale + shift;
        store(y, i, bf16, linear ? v : positive_part(v, v));
    }
}

static inline void strip_forward(const mdm_kernel_shape *shape, strip s, const void *x, const void *residual,
                                 int bf16, const float *scale, const float *shift, void *y) {
    int pixels = shape->pixels;
    for (int start = 0; start < pixels; start += RUN)
        for (size_t i = s.first; i < s.end; i++)
            run_forward(x, residual, plane_of(shape, i, pixels), start, run_end(start, pixels), bf16,
                        shape->linear, load_channels(scale, block_of(shape, i)),
                        load_channels(shift, block_of(shape, i)), y);
}

static void relu_forward(const mdm_kernel_shape *shape, const void *x, const void *residual,
                         const float *scale, const float *shift, void *y) {
    size_t strips = strip_count(shape);
#pragma omp parallel for schedule(static)
    for (size_t number = 0; number < strips; number++) {
        if (shape->bf16)
            strip_forward(shape, strip_of(shape, number), x, residual, 1, scale, shift, y);
        else
            strip_forward(shape, strip_of(shape, number), x, residual, 0, scale, shift, y);
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

/* What the backward pass reads, and the channels' values. */
typedef struct norm_gradient {
    const void *gradient, *other, *x;
    const float *scale, *shift, *mean, *inverse, *mean_gradient, *mean_product;
} norm_gradient;

static inline void run_backward_sums(const norm_gradient *g, const mdm_kernel_shape *shape, int bf16,
                                     size_t number, int start, int end, double *partial) {
    plane place = plane_of(shape, number, shape->pixels);
    int block = block_of(shape, number);
    vector scale = load_channels(g->scale, block), shift = load_channels(g->shift, block),
           mean = load_channels(g->mean, block), part = {0}, product = {0};
    for (int p = start; p < end; p++) {
        size_t i = vector_at(place, p);
        vector v = load(g->x, i, bf16);
        vector dz = passed(gradient_at(g->gradient, g->other, i, bf16), v * scale + shift, shape->linear);
        part += dz;
        product += dz * (v - mean);
    }
    add_partial(partial_of(partial, number, 0), part);
    add_partial(partial_of(partial, number, 1), product);
}

static inline void strip_backward_sums(const norm_gradient *g, const mdm_kernel_shape *shape, strip s,
                                       int bf16, double *partial) {
    int pixels = shape->pixels;
    memset(partial_of(partial, s.first, 0), 0, (s.end - s.first) * 2 * B * sizeof *partial);
    for (int start = 0; start < pixels; start += RUN)
        for (size_t i = s.first; i < s.end; i++)
            run_backward_sums(g, shape, bf16, i, start, run_end(start, pixels), partial);
    for (size_t i = s.first; i < s.end; i++) {
        const float *inverse = g->inverse + (size_t)block_of(shape, i) * B;
        double *product = partial_of(partial, i, 1);
        for (int lane = 0; lane < B; lane++) product[lane] *= (double)inverse[lane];
    }
}

static void relu_backward_sums(const mdm_kernel_shape *shape, const void *gradient, const void *other,
                               const void *x, const float *scale, const float *shift, const float *mean,
                               const float *inverse_deviation, double *partial, double *sum,
                               double *product_sum) {
    norm_gradient g = {gradient, other, x, scale, shift, mean, inverse_deviation, NULL, NULL};
    size_t strips = strip_count(shape);
#pragma omp parallel for schedule(static)
    for (size_t number = 0; number < strips; number++) {
        if (shape->bf16)
            strip_backward_sums(&g, shape, strip_of(shape, number), 1, partial);
        else
            strip_backward_sums(&g, shape, strip_of(shape, number), 0, partial);
    }
    sum_partials(shape, partial, sum, product_sum);
}

static inline void run_backward_input(const norm_gradient *g, const mdm_kernel_shape *shape, int bf16,
                                      size_t number, int start, int end, void *out) {
    plane place = plane_of(shape, number, shape->pixels);
    int block = block_of(shape, number);
    vector scale = load_channels(g->scale, block), shift = load_channels(g->shift, block),
           mean = load_channels(g->mean, block), constant = load_channels(g->mean_gradient, block),
           slope = load_channels(g->inverse, block) * load_channels(g->mean_product, block);
    for (int p = start; p < end; p++) {
        size_t i = vector_at(place, p);
        vector v = load(g->x, i, bf16);
        vector dz = passed(gradient_at(out, g->other, i, bf16), v * scale + shift, shape->linear);
        store(out, i, bf16, scale * (dz - constant - (v - mean) * slope));
    }
}

static inline void strip_backward_input(const norm_gradient *g, const mdm_kernel_shape *shape, strip s,
                                        int bf16, void *out) {
    int pixels = shape->pixels;
    for (int start = 0; start < pixels; start += RUN)
        for (size_t i = s.first; i < s.end; i++)
            run_backward_input(g, shape, bf16, i, start, run_end(start, pixels), out);
}

static void relu_backward_input(const mdm_kernel_shape *shape, void *gradient, const void *other,
                                const void *x, const float *scale, const float *shift, const float *mean,
                                const float *inverse_deviation, const float *mean_gradient,
                                const float *mean_product) {
    norm_gradient g = {gradient,          other,         x,           scale, shift, mean,
                       inverse_deviation, mean_gradient, mean_product};
    size_t strips = strip_count(shape);
#pragma omp parallel for schedule(static)
    for (size_t number = 0; number < strips; number++) {
        if (shape->bf16)
            strip_backward_input(&g, shape, strip_of(shape, number), 1, gradient);
        else
            strip_backward_input(&g, shape, strip_of(shape, number), 0, gradient);
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
    for (size_t number = 0; number < planes; number++) {
        plane place = plane_of(shape, number, shape->pixels),
              outside = plane_of(shape, number, rows * columns);
        for (int out = 0; out < rows * columns; out++) {
            window w = window_of(shape, out / columns, out % columns);
            vector best = load(x, vector_at(place, w.top * shape->width + w.left), shape->bf16);
            for (int i = w.top; i < w.bottom; i++)
                for (int j = w.left; j < w.right; j++) {
                    vector v = load(x, vector_at(place, i * shape->width + j), shape->bf16);
                    vector_int greater = v > best;
                    for (int lane = 0; lane < B; lane++) best[lane] = greater[lane] ? v[lane] : best[lane];
                }
            store(y, vector_at(outside, out), shape->bf16, best);
        }
    }
}

/* Windows overlap, but only within a plane, which one thread has to itself. */
static void max_pool_backward(const mdm_kernel_shape *shape, const void *gradient, const void *other,
                              const void *x, const void *y, void *x_gradient) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
    int rows = (shape->height + 1) / 2, columns = (shape->width + 1) / 2;
#pragma omp parallel for schedule(static)
    for (size_t number = 0; number < planes; number++) {
        plane place = plane_of(shape, number, shape->pixels),
              outside = plane_of(shape, number, rows * columns);
        vector zero = {0};
        for (int p = 0; p < shape->pixels; p++) store(x_gradient, vector_at(place, p), shape->bf16, zero);
        for (int out = 0; out < rows * columns; out++) {
            window w = window_of(shape, out / columns, out % columns);
            vector best = load(y, vector_at(outside, out), shape->bf16);
            vector g = gradient_at(gradient, other, vector_at(outside, out), shape->bf16);
            vector_int open = {0};
            open = ~open; /* lanes whose greatest input is still to be met */
            for (int i = w.top; i < w.bottom; i++)
                for (int j = w.left; j < w.right; j++) {
                    size_t at = vector_at(place, i * shape->width + j);
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
    for (size_t number = 0; number < planes; number++) {
        int block = (int)(number % (size_t)shape->channel_blocks),
            n = (int)(number / (size_t)shape->channel_blocks);
        plane place = plane_of(shape, number, shape->pixels);
        vector sum = {0};
        for (int p = 0; p < shape->pixels; p++) {
            sum += load(x, vector_at(place, p), shape->bf16);
            if (residual) sum += load(residual, vector_at(place, p), shape->bf16);
        }
        for (int lane = 0; lane < B && block * B + lane < channels; lane++)
            embedding[(size_t)n * channels + block * B + lane] = sum[lane] / (float)shape->pixels;
    }
}

static void pool_backward(const mdm_kernel_shape *shape, const float *embedding_gradient, int channels,
                          void *gradient) {
    size_t planes = (size_t)shape->n * shape->channel_blocks;
#pragma omp parallel for schedule(static)
    for (size_t number = 0; number < planes; number++) {
        int block = (int)(number % (size_t)shape->channel_blocks),
            n = (int)(number / (size_t)shape->channel_blocks);
        plane place = plane_of(shape, number, shape->pixels);
        vector g = {0};
        for (int lane = 0; lane < B && block * B + lane < channels; lane++)
            g[lane] = embedding_gradient[(size_t)n * channels + block * B + lane] / (float)shape->pixels;
        for (int p = 0; p < shape->pixels; p++) store(gradient, vector_at(place, p), shape->bf16, g);
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
