/* What every thread of our CUDA kernels does, as inline functions that C can call too: kernels.cu makes
 * kernels of them, and the tests run all threads of a launch one after another on the CPU.
 *
 * Tensors are [N,H,W,C], C in blocks of 8, so a thread moves 8 channels with one or two 16-byte transfers.
 * Each kernel has a struct of arguments and a function of (arguments, thread); those that sum over a block
 * have two, before and after the barrier, with the block's shared memory between them. What they wait for is
 * memory: threads that need numbers of a channel keep to their 8 channels and go through many pixels, asking
 * for MDM_GPU_AHEAD of them before they use the first.
 */
#ifndef MDM_DEVICE_CUDA_KERNELS_H
#define MDM_DEVICE_CUDA_KERNELS_H

#include "mdm/device/formulas.h"
#include <stddef.h>
#include <stdint.h>

enum {
    MDM_GPU_THREADS = 256,    /* of every block */
    MDM_GPU_LANES = 8,        /* channels per thread */
    MDM_GPU_COLUMN = 256 + 1, /* doubles of a sum of a summing block, one a thread; odd to keep banks apart */
    MDM_GPU_SHARED = 16 * MDM_GPU_COLUMN, /* 8 channels, two sums */
    MDM_GPU_AHEAD = 4,                    /* pixels that a thread asks for at once, at most */
    MDM_GPU_RUN = 64,                     /* values summed in single precision before going on in double */
    MDM_GPU_BLOCKS = 264,                 /* that are at work at once: 2 on each of 132 multiprocessors */
    MDM_GPU_SLICES = 16                   /* of the blocks' sums, each added by a thread of its own */
};

#ifdef __CUDA_ARCH__
#define MDM_UNROLLED      _Pragma("unroll")
#define MDM_UNROLLED_BY_8 _Pragma("unroll 8")
#else
#define MDM_UNROLLED
#define MDM_UNROLLED_BY_8
#endif

/* Where a thread stands in its launch. */
typedef struct mdm_gpu_thread {
    uint32_t block, thread, block_row; /* blockIdx.x, threadIdx.x, blockIdx.y */
} mdm_gpu_thread;

typedef struct mdm_lanes {
    float v[MDM_GPU_LANES];
} mdm_lanes;

typedef struct __attribute__((aligned(16), may_alias)) mdm_gpu_word {
    uint32_t part[4];
} mdm_gpu_word;

/* 8 channels as they lie in memory; in bfloat16 the second word is unused. */
typedef struct mdm_gpu_vector {
    mdm_gpu_word word[2];
} mdm_gpu_vector;

/* Vector number i of a tensor. */
MDM_BOTH mdm_gpu_vector mdm_fetch(const void *tensor, size_t i, int bf16) {
    const mdm_gpu_word *words = (const mdm_gpu_word *)tensor + (bf16 ? i : 2 * i);
    mdm_gpu_vector out;
    out.word[0] = words[0];
    out.word[1] = bf16 ? out.word[0] : words[1];
    return out;
}

MDM_BOTH mdm_lanes mdm_lanes_of(mdm_gpu_vector vector, int bf16) {
    mdm_lanes out;
    for (int k = 0; k < 4; k++) {
        mdm_float_bits a, b;
        a.bits = vector.word[0].part[k];
        b.bits = vector.word[1].part[k];
        out.v[bf16 ? 2 * k : k] = bf16 ? mdm_float_of_bf16(a.bits & 0xffffu) : a.value;
        out.v[bf16 ? 2 * k + 1 : 4 + k] = bf16 ? mdm_float_of_bf16(a.bits >> 16) : b.value;
    }
    return out;
}

MDM_BOTH mdm_lanes mdm_load_lanes(const void *tensor, size_t i, int bf16) {
    return mdm_lanes_of(mdm_fetch(tensor, i, bf16), bf16);
}

/* Two values, rounded as mdm_bf16_of does (of NaN the device keeps no payload); the first in the lower half.
 */
MDM_BOTH uint32_t mdm_bf16_pair(float low, float high) {
#ifdef __CUDA_ARCH__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return mdm_bf16_of(low) | (mdm_bf16_of(high) << 16);
#endif
}

/* Writes the vector; `values` are then what was written. */
MDM_BOTH void mdm_store_rounded(void *tensor, size_t i, int bf16, mdm_lanes *values) {
    mdm_gpu_word *words = (mdm_gpu_word *)tensor + (bf16 ? i : 2 * i);
    mdm_gpu_vector out;
    for (int k = 0; k < 4; k++) {
        mdm_float_bits a, b;
        a.value = values->v[k];
        b.value = values->v[4 + k];
        out.word[0].part[k] = bf16 ? mdm_bf16_pair(values->v[2 * k], values->v[2 * k + 1]) : a.bits;
        out.word[1].part[k] = b.bits;
    }
    words[0] = out.word[0];
    if (!bf16) words[1] = out.word[1];
    if (bf16) *values = mdm_lanes_of(out, bf16);
}

MDM_BOTH void mdm_store_lanes(void *tensor, size_t i, int bf16, mdm_lanes values) {
    mdm_store_rounded(tensor, i, bf16, &values);
}

MDM_BOTH mdm_lanes mdm_channel_lanes(const float *channels, uint32_t group) {
    return mdm_load_lanes(channels, group, 0);
}

MDM_BOTH mdm_lanes mdm_sum_of_lanes(const void *a, const void *b, size_t i, int bf16) {
    mdm_lanes out = mdm_load_lanes(a, i, bf16);
    if (b) {
        mdm_lanes more = mdm_load_lanes(b, i, bf16);
        for (int k = 0; k < MDM_GPU_LANES; k++) out.v[k] += more.v[k];
    }
    return out;
}

MDM_BOTH uint32_t mdm_thread_number(mdm_gpu_thread t) {
    return t.block * MDM_GPU_THREADS + t.thread;
}

/* ---- blocks of pixels ----
 *
 * A block has 8 x `block_groups` channels of `block_rows` pixels: thread t has group t % block_groups and
 * every lanes-th pixel from t / block_groups on. */
typedef struct mdm_pixel_geometry {
    uint32_t rows, groups;                    /* pixels of all pictures; vectors per pixel */
    uint32_t block_groups, lanes, block_rows; /* of a block */
    uint32_t blocks, block_columns;           /* grid: x over pixels, y over groups */
} mdm_pixel_geometry;

/* Blocks of at least `least` pixels a thread, about `blocks` in all. */
MDM_BOTH mdm_pixel_geometry mdm_geometry_of(uint32_t rows, uint32_t groups, uint32_t least, uint32_t blocks) {
    mdm_pixel_geometry g;
    g.rows = rows;
    g.groups = groups;
    g.block_groups = groups < 32 ? groups : 32;
    g.lanes = MDM_GPU_THREADS / g.block_groups;
    g.block_columns = (groups + g.block_groups - 1) / g.block_groups;
    uint32_t most = blocks / g.block_columns;
    if (most < 1) most = 1;
    g.block_rows = (rows + most - 1) / most;
    if (g.block_rows < g.lanes * least) g.block_rows = g.lanes * least;
    g.blocks = (rows + g.block_rows - 1) / g.block_rows;
    return g;
}

/* Of a sum: as many blocks as are at work at once, since each leaves sums for others to add. */
MDM_BOTH mdm_pixel_geometry mdm_geometry_of_sum(uint32_t rows, uint32_t groups) {
    return mdm_geometry_of(rows, groups, 2 * MDM_GPU_AHEAD, MDM_GPU_BLOCKS);
}

/* Of what writes a tensor of the same shape: where there is enough to do, blocks small enough that the last
 * ones do not keep the device waiting. */
MDM_BOTH mdm_pixel_geometry mdm_geometry_of_map(uint32_t rows, uint32_t groups) {
    return mdm_geometry_of(rows, groups, 1, 8 * MDM_GPU_BLOCKS);
}

/* Which pixels and channels a thread has; 0 when none. */
MDM_BOTH int mdm_pixel_range(const mdm_pixel_geometry *g, mdm_gpu_thread t, uint32_t *group, uint32_t *row,
                             uint32_t *end) {
    uint32_t lane = t.thread / g->block_groups;
    *group = t.block_row * g->block_groups + t.thread % g->block_groups;
    *row = t.block * g->block_rows + lane;
    *end = g->rows - t.block * g->block_rows < g->block_rows ? g->rows : (t.block + 1) * g->block_rows;
    return lane < g->lanes && *group < g->groups;
}

/* Of a kernel that reads so many tensors: registers for the same bytes, more or less. */
MDM_BOTH uint32_t mdm_pixels_ahead(int tensors, int bf16) {
    uint32_t most = tensors > 2 ? MDM_GPU_AHEAD / 2 : MDM_GPU_AHEAD;
    return bf16 ? most : most / 2;
}

/* Where the next pixels of a thread lie, and which of them there are. */
typedef struct mdm_gpu_ahead {
    uint32_t at[MDM_GPU_AHEAD]; /* numbers of vectors */
    int is_there[MDM_GPU_AHEAD];
} mdm_gpu_ahead;

MDM_BOTH mdm_gpu_ahead mdm_look_ahead(const mdm_pixel_geometry *g, uint32_t group, uint32_t row, uint32_t end,
                                      uint32_t count) {
    mdm_gpu_ahead out;
    MDM_UNROLLED for (uint32_t j = 0; j < MDM_GPU_AHEAD; j++) {
        out.at[j] = (row + j * g->lanes) * g->groups + group;
        out.is_there[j] = j < count && row + j * g->lanes < end;
    }
    return out;
}

/* Asks for one vector of each of the next pixels; nothing without a tensor. */
MDM_BOTH void mdm_fetch_ahead(const void *tensor, const mdm_gpu_ahead *ahead, int bf16,
                              mdm_gpu_vector vectors[MDM_GPU_AHEAD]) {
    MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
        if (tensor && ahead->is_there[j]) vectors[j] = mdm_fetch(tensor, ahead->at[j], bf16);
    }
}

/* Their sum, where there is a second one. */
MDM_BOTH mdm_lanes mdm_sum_of_vectors(const mdm_gpu_vector *a, const mdm_gpu_vector *b, const void *second,
                                      int bf16) {
    mdm_lanes out = mdm_lanes_of(*a, bf16);
    if (second) {
        mdm_lanes more = mdm_lanes_of(*b, bf16);
        for (int k = 0; k < MDM_GPU_LANES; k++) out.v[k] += more.v[k];
    }
    return out;
}

/* ---- batch norm, applied ---- */

typedef struct mdm_norm_forward_arguments {
    mdm_pixel_geometry geometry;
    const void *x, *residual;
    void *y;
    const float *scale, *shift;
    int bf16, linear;
} mdm_norm_forward_arguments;

MDM_BOTH void mdm_norm_forward_thread(const mdm_norm_forward_arguments *a, mdm_gpu_thread t) {
    const uint32_t count = mdm_pixels_ahead(2, a->bf16);
    uint32_t group, row, end;
    if (!mdm_pixel_range(&a->geometry, t, &group, &row, &end)) return;
    mdm_lanes scale = mdm_channel_lanes(a->scale, group), shift = mdm_channel_lanes(a->shift, group);
    for (; row < end; row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, group, row, end, count);
        mdm_gpu_vector x[MDM_GPU_AHEAD], residual[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->residual, &ahead, a->bf16, residual);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes v = mdm_sum_of_vectors(&x[j], &residual[j], a->residual, a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float z = v.v[k] * scale.v[k] + shift.v[k];
                v.v[k] = a->linear || z > 0.0f ? z : 0.0f;
            }
            mdm_store_lanes(a->y, ahead.at[j], a->bf16, v);
        }
    }
}

typedef struct mdm_norm_backward_arguments {
    mdm_pixel_geometry geometry;
    void *gradient;
    const void *other, *x;
    const float *scale, *shift, *mean, *inverse_deviation, *mean_gradient, *mean_product;
    int bf16, linear;
} mdm_norm_backward_arguments;

MDM_BOTH void mdm_norm_backward_thread(const mdm_norm_backward_arguments *a, mdm_gpu_thread t) {
    const uint32_t count = mdm_pixels_ahead(3, a->bf16);
    uint32_t group, row, end;
    if (!mdm_pixel_range(&a->geometry, t, &group, &row, &end)) return;
    mdm_lanes scale = mdm_channel_lanes(a->scale, group), shift = mdm_channel_lanes(a->shift, group),
              mean = mdm_channel_lanes(a->mean, group), offset = mdm_channel_lanes(a->mean_gradient, group),
              slope = mdm_channel_lanes(a->inverse_deviation, group),
              product = mdm_channel_lanes(a->mean_product, group);
    for (int k = 0; k < MDM_GPU_LANES; k++) slope.v[k] *= product.v[k];
    for (; row < end; row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, group, row, end, count);
        mdm_gpu_vector gradient[MDM_GPU_AHEAD], other[MDM_GPU_AHEAD], x[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->gradient, &ahead, a->bf16, gradient);
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->other, &ahead, a->bf16, other);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes g = mdm_sum_of_vectors(&gradient[j], &other[j], a->other, a->bf16),
                      v = mdm_lanes_of(x[j], a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float dz = a->linear || v.v[k] * scale.v[k] + shift.v[k] > 0.0f ? g.v[k] : 0.0f;
                g.v[k] = scale.v[k] * (dz - offset.v[k] - (v.v[k] - mean.v[k]) * slope.v[k]);
            }
            mdm_store_lanes(a->gradient, ahead.at[j], a->bf16, g);
        }
    }
}

/* ---- one vector per thread ---- */

/* y = max(0, a + b), or y = a + b. */
typedef struct mdm_add_arguments {
    const void *a, *b;
    void *y;
    uint32_t count;
    int bf16, relu;
} mdm_add_arguments;

MDM_BOTH void mdm_add_thread(const mdm_add_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    mdm_lanes v = mdm_sum_of_lanes(a->a, a->b, i, a->bf16);
    for (int k = 0; k < MDM_GPU_LANES; k++)
        if (a->relu && !(v.v[k] > 0.0f)) v.v[k] = 0.0f;
    mdm_store_lanes(a->y, i, a->bf16, v);
}

typedef struct mdm_add_backward_arguments {
    void *gradient, *copy;
    const void *other, *y;
    uint32_t count;
    int bf16;
} mdm_add_backward_arguments;

MDM_BOTH void mdm_add_backward_thread(const mdm_add_backward_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    mdm_lanes g = mdm_sum_of_lanes(a->gradient, a->other, i, a->bf16), y = mdm_load_lanes(a->y, i, a->bf16);
    for (int k = 0; k < MDM_GPU_LANES; k++)
        if (!(y.v[k] > 0.0f)) g.v[k] = 0.0f;
    mdm_store_lanes(a->gradient, i, a->bf16, g);
    mdm_store_lanes(a->copy, i, a->bf16, g);
}

/* ---- pooling ---- */

/* Vectors are [n][height][width][groups] inside, [n][rows][columns][groups] outside. */
typedef struct mdm_max_pool_arguments {
    const void *x, *y, *gradient, *other; /* y, gradient, other: backward */
    void *out;                            /* forward: y; backward: the gradient of x */
    uint32_t count, groups;               /* count: vectors of `out` */
    int height, width, bf16;
} mdm_max_pool_arguments;

/* A place in an image of vectors. */
typedef struct mdm_gpu_place {
    uint32_t n, group;
    int row, column;
} mdm_gpu_place;

MDM_BOTH mdm_gpu_place mdm_place_of(uint32_t i, uint32_t groups, int height, int width) {
    mdm_gpu_place p;
    p.group = i % groups;
    uint32_t pixel = i / groups;
    p.column = (int)(pixel % (uint32_t)width);
    p.row = (int)(pixel / (uint32_t)width % (uint32_t)height);
    p.n = pixel / (uint32_t)width / (uint32_t)height;
    return p;
}

MDM_BOTH size_t mdm_vector_at(uint32_t n, int row, int column, uint32_t group, int height, int width,
                              uint32_t groups) {
    return (((size_t)n * (size_t)height + (size_t)row) * (size_t)width + (size_t)column) * groups + group;
}

MDM_BOTH int mdm_lower(int value, int limit) {
    return value < limit ? value : limit;
}

MDM_BOTH void mdm_max_pool_forward_thread(const mdm_max_pool_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    mdm_gpu_place p = mdm_place_of(i, a->groups, (a->height + 1) / 2, (a->width + 1) / 2);
    int top = p.row ? 2 * p.row - 1 : 0, left = p.column ? 2 * p.column - 1 : 0;
    size_t corner = mdm_vector_at(p.n, top, left, p.group, a->height, a->width, a->groups);
    mdm_lanes best = mdm_load_lanes(a->x, corner, a->bf16);
    for (int r = top; r < mdm_lower(2 * p.row + 2, a->height); r++)
        for (int c = left; c < mdm_lower(2 * p.column + 2, a->width); c++) {
            size_t at = mdm_vector_at(p.n, r, c, p.group, a->height, a->width, a->groups);
            mdm_lanes v = mdm_load_lanes(a->x, at, a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++)
                if (v.v[k] > best.v[k]) best.v[k] = v.v[k];
        }
    mdm_store_lanes(a->out, i, a->bf16, best);
}

/* What one window gives to the input at (row, column): its gradient in the channels whose first greatest
 * input that is. */
MDM_BOTH void mdm_max_pool_take(const mdm_max_pool_arguments *a, mdm_gpu_place p, int window_row,
                                int window_column, mdm_lanes x, mdm_lanes *sum) {
    int rows = (a->height + 1) / 2, columns = (a->width + 1) / 2;
    size_t out = mdm_vector_at(p.n, window_row, window_column, p.group, rows, columns, a->groups);
    mdm_lanes best = mdm_load_lanes(a->y, out, a->bf16);
    uint32_t open = 0; /* channels that this input wins, unless an earlier one does */
    for (int k = 0; k < MDM_GPU_LANES; k++)
        if (x.v[k] == best.v[k]) open |= 1u << k;
    for (int r = window_row ? 2 * window_row - 1 : 0; open && r <= p.row; r++)
        for (int c = window_column ? 2 * window_column - 1 : 0;
             c < mdm_lower(2 * window_column + 2, a->width) && (r < p.row || c < p.column); c++) {
            size_t at = mdm_vector_at(p.n, r, c, p.group, a->height, a->width, a->groups);
            mdm_lanes v = mdm_load_lanes(a->x, at, a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++)
                if (v.v[k] == best.v[k]) open &= ~(1u << k);
        }
    if (!open) return;
    mdm_lanes g = mdm_sum_of_lanes(a->gradient, a->other, out, a->bf16);
    for (int k = 0; k < MDM_GPU_LANES; k++)
        if (open >> k & 1u) sum->v[k] += g.v[k];
}

MDM_BOTH void mdm_max_pool_backward_thread(const mdm_max_pool_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    mdm_gpu_place p = mdm_place_of(i, a->groups, a->height, a->width);
    mdm_lanes x = mdm_load_lanes(a->x, i, a->bf16), sum;
    for (int k = 0; k < MDM_GPU_LANES; k++) sum.v[k] = 0.0f;
    /* windows 2r-1 .. 2r+1 that hold the input's row: r = row / 2, and for odd rows the next one too */
    for (int r = p.row / 2; r <= mdm_lower((p.row + 1) / 2, (a->height + 1) / 2 - 1); r++)
        for (int c = p.column / 2; c <= mdm_lower((p.column + 1) / 2, (a->width + 1) / 2 - 1); c++)
            mdm_max_pool_take(a, p, r, c, x, &sum);
    mdm_store_lanes(a->out, i, a->bf16, sum);
}

/* Mean over pixels: embedding [n, channels] float. One thread per picture and 8 channels. */
typedef struct mdm_pool_arguments {
    const void *x, *residual;
    void *gradient;   /* backward: written */
    float *embedding; /* forward: written; backward: its gradient */
    uint32_t count, groups, pixels, channels;
    int bf16;
} mdm_pool_arguments;

MDM_BOTH void mdm_pool_forward_thread(const mdm_pool_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    uint32_t n = i / a->groups, group = i % a->groups;
    mdm_lanes sum;
    for (int k = 0; k < MDM_GPU_LANES; k++) sum.v[k] = 0.0f;
    for (uint32_t p = 0; p < a->pixels; p++) {
        mdm_lanes v =
            mdm_sum_of_lanes(a->x, a->residual, ((size_t)n * a->pixels + p) * a->groups + group, a->bf16);
        for (int k = 0; k < MDM_GPU_LANES; k++) sum.v[k] += v.v[k];
    }
    for (uint32_t k = 0; k < MDM_GPU_LANES && group * MDM_GPU_LANES + k < a->channels; k++)
        a->embedding[(size_t)n * a->channels + group * MDM_GPU_LANES + k] = sum.v[k] / (float)a->pixels;
}

/* One thread per vector of the gradient. */
MDM_BOTH void mdm_pool_backward_thread(const mdm_pool_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    uint32_t n = i / a->groups / a->pixels, first = i % a->groups * MDM_GPU_LANES;
    mdm_lanes g;
    for (uint32_t k = 0; k < MDM_GPU_LANES; k++)
        g.v[k] = first + k < a->channels
                     ? a->embedding[(size_t)n * a->channels + first + k] / (float)a->pixels
                     : 0.0f;
    mdm_store_lanes(a->gradient, i, a->bf16, g);
}

/* ---- layouts ---- */

/* Between plain float [n][channels][pixels] and a tensor; one thread per vector. */
typedef struct mdm_layout_arguments {
    const void *from;
    void *to;
    uint32_t count, groups, pixels, channels;
    int bf16;
} mdm_layout_arguments;

MDM_BOTH void mdm_to_tensor_thread(const mdm_layout_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    uint32_t first = i % a->groups * MDM_GPU_LANES, pixel = i / a->groups % a->pixels,
             n = i / a->groups / a->pixels;
    const float *plain = (const float *)a->from;
    mdm_lanes v;
    for (uint32_t k = 0; k < MDM_GPU_LANES; k++)
        v.v[k] =
            first + k < a->channels ? plain[((size_t)n * a->channels + first + k) * a->pixels + pixel] : 0.0f;
    mdm_store_lanes(a->to, i, a->bf16, v);
}

MDM_BOTH void mdm_from_tensor_thread(const mdm_layout_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    uint32_t first = i % a->groups * MDM_GPU_LANES, pixel = i / a->groups % a->pixels,
             n = i / a->groups / a->pixels;
    float *plain = (float *)a->to;
    mdm_lanes v = mdm_load_lanes(a->from, i, a->bf16);
    for (uint32_t k = 0; k < MDM_GPU_LANES && first + k < a->channels; k++)
        plain[((size_t)n * a->channels + first + k) * a->pixels + pixel] = v.v[k];
}

/* Between float weights [out][in][taps] and a filter [padded out][taps][padded in]. */
typedef struct mdm_weights_arguments {
    float *plain;
    void *filter;
    uint32_t count, in, out, padded_in, taps; /* count: of threads */
    int bf16, accumulate;
} mdm_weights_arguments;

/* One thread per 8 inputs of the filter. */
MDM_BOTH void mdm_to_filter_thread(const mdm_weights_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t), groups = a->padded_in / MDM_GPU_LANES;
    if (i >= a->count) return;
    uint32_t first = i % groups * MDM_GPU_LANES, tap = i / groups % a->taps, o = i / groups / a->taps;
    mdm_lanes v;
    for (uint32_t k = 0; k < MDM_GPU_LANES; k++)
        v.v[k] = o < a->out && first + k < a->in ? a->plain[((size_t)o * a->in + first + k) * a->taps + tap]
                                                 : 0.0f;
    mdm_store_lanes(a->filter, i, a->bf16, v);
}

/* One thread per weight. */
MDM_BOTH void mdm_from_filter_thread(const mdm_weights_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    uint32_t tap = i % a->taps, c = i / a->taps % a->in, o = i / a->taps / a->in;
    size_t at = ((size_t)o * a->taps + tap) * a->padded_in + c;
    float value =
        a->bf16 ? mdm_float_of_bf16(((const uint16_t *)a->filter)[at]) : ((const float *)a->filter)[at];
    a->plain[i] = a->accumulate ? a->plain[i] + value : value;
}

/* ---- optimizer: one thread per weight ---- */

typedef struct mdm_sgd_arguments {
    float *weights, *velocity;
    const float *gradient;
    const float *rate_at; /* NULL: rate */
    uint32_t count;
    float rate, momentum, weight_decay;
} mdm_sgd_arguments;

MDM_BOTH void mdm_sgd_thread(const mdm_sgd_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    mdm_sgd_of(&a->weights[i], a->gradient[i], &a->velocity[i], a->rate_at ? *a->rate_at : a->rate,
               a->momentum, a->weight_decay);
}

typedef struct mdm_finite_arguments {
    const float *values;
    double *flag; /* threads that write at once write the same */
    uint32_t count;
} mdm_finite_arguments;

MDM_BOTH void mdm_note_not_finite_thread(const mdm_finite_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i < a->count && !(0.0f * a->values[i] == 0.0f)) *a->flag = 1.0;
}

typedef struct mdm_average_arguments {
    float *average;
    const float *values;
    uint32_t count;
    float decay;
} mdm_average_arguments;

MDM_BOTH void mdm_average_thread(const mdm_average_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count) return;
    mdm_average_of(&a->average[i], a->values[i], a->decay);
}

/* ---- sums per channel over all pixels ----
 *
 * A block's sums go to `partial` [blocks][groups][16]; a second kernel adds them in order, so the result
 * depends on the sizes alone. */
typedef struct mdm_sum_arguments {
    mdm_pixel_geometry geometry;
    void *x; /* statistics: the residual is added to it in place */
    const void *residual;
    const void *gradient, *other; /* backward sums */
    const float *scale, *shift, *mean, *inverse_deviation;
    double *partial;
    int bf16, linear;
} mdm_sum_arguments;

/* The two running sums of a thread: in single precision for a while, then in double, in its places of the
 * block's shared memory, [16][MDM_GPU_COLUMN]: 8 of the first sum, 8 of the second. */
typedef struct mdm_thread_sums {
    float part[2][MDM_GPU_LANES];
    double *whole;
    uint32_t parts, count;
} mdm_thread_sums;

MDM_BOTH double *mdm_whole_sum(const mdm_thread_sums *s, int i, int k) {
    return s->whole + (i * MDM_GPU_LANES + k) * MDM_GPU_COLUMN;
}

MDM_BOTH void mdm_begin_sums(mdm_thread_sums *s, double *shared, mdm_gpu_thread t) {
    s->parts = s->count = 0;
    s->whole = shared + t.thread;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < MDM_GPU_LANES; k++) s->part[i][k] = 0.0f, *mdm_whole_sum(s, i, k) = 0.0;
}

MDM_BOTH void mdm_widen_sums(mdm_thread_sums *s) {
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < MDM_GPU_LANES; k++) {
            *mdm_whole_sum(s, i, k) += (double)s->part[i][k];
            s->part[i][k] = 0.0f;
        }
    s->count += s->parts;
    s->parts = 0;
}

/* Sums of x and x^2. They run on x - f, f the thread's first value, so that large means cost no precision. */
MDM_BOTH void mdm_statistics_thread(const mdm_sum_arguments *a, mdm_gpu_thread t, double *shared) {
    const uint32_t count = mdm_pixels_ahead(2, a->bf16);
    uint32_t group, row, end;
    mdm_thread_sums s;
    mdm_lanes first;
    int begun = 0;
    mdm_begin_sums(&s, shared, t);
    for (int k = 0; k < MDM_GPU_LANES; k++) first.v[k] = 0.0f;
    if (!mdm_pixel_range(&a->geometry, t, &group, &row, &end)) row = end;
    for (; row < end; row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, group, row, end, count);
        mdm_gpu_vector x[MDM_GPU_AHEAD], residual[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->residual, &ahead, a->bf16, residual);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes v = mdm_sum_of_vectors(&x[j], &residual[j], a->residual, a->bf16);
            if (a->residual) mdm_store_rounded(a->x, ahead.at[j], a->bf16, &v);
            if (!begun) first = v, begun = 1;
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float d = v.v[k] - first.v[k];
                s.part[0][k] += d;
                s.part[1][k] += d * d;
            }
            s.parts++;
        }
        if (s.parts >= MDM_GPU_RUN) mdm_widen_sums(&s);
    }
    mdm_widen_sums(&s);
    for (int k = 0; k < MDM_GPU_LANES; k++) {
        double f = first.v[k], n = s.count, sum = *mdm_whole_sum(&s, 0, k);
        *mdm_whole_sum(&s, 0, k) = sum + n * f;
        *mdm_whole_sum(&s, 1, k) += 2.0 * f * sum + n * f * f;
    }
}

/* Sums of dz and dz * (x - mean) * inverse deviation, dz the gradient behind the ReLU. */
MDM_BOTH void mdm_backward_sums_thread(const mdm_sum_arguments *a, mdm_gpu_thread t, double *shared) {
    const uint32_t count = mdm_pixels_ahead(3, a->bf16);
    uint32_t group, row, end;
    mdm_thread_sums s;
    mdm_begin_sums(&s, shared, t);
    if (!mdm_pixel_range(&a->geometry, t, &group, &row, &end)) row = end, group = 0;
    mdm_lanes scale = mdm_channel_lanes(a->scale, group), shift = mdm_channel_lanes(a->shift, group),
              mean = mdm_channel_lanes(a->mean, group);
    for (; row < end; row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, group, row, end, count);
        mdm_gpu_vector gradient[MDM_GPU_AHEAD], other[MDM_GPU_AHEAD], x[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->gradient, &ahead, a->bf16, gradient);
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->other, &ahead, a->bf16, other);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes g = mdm_sum_of_vectors(&gradient[j], &other[j], a->other, a->bf16),
                      v = mdm_lanes_of(x[j], a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float dz = a->linear || v.v[k] * scale.v[k] + shift.v[k] > 0.0f ? g.v[k] : 0.0f;
                s.part[0][k] += dz;
                s.part[1][k] += dz * (v.v[k] - mean.v[k]);
            }
            s.parts++;
        }
        if (s.parts >= MDM_GPU_RUN) mdm_widen_sums(&s);
    }
    mdm_widen_sums(&s);
    mdm_lanes inverse = mdm_channel_lanes(a->inverse_deviation, group);
    for (int k = 0; k < MDM_GPU_LANES; k++) *mdm_whole_sum(&s, 1, k) *= (double)inverse.v[k];
}

/* Behind the barrier: the block's sums. */
MDM_BOTH void mdm_block_sums_thread(const mdm_sum_arguments *a, mdm_gpu_thread t, const double *shared) {
    const mdm_pixel_geometry *g = &a->geometry;
    for (uint32_t i = t.thread; i < g->block_groups * 16; i += MDM_GPU_THREADS) {
        uint32_t item = i % 16, in_block = i / 16, group = t.block_row * g->block_groups + in_block;
        if (group >= g->groups) continue;
        double sum = 0;
        for (uint32_t lane = 0; lane < g->lanes; lane++)
            sum += shared[item * MDM_GPU_COLUMN + lane * g->block_groups + in_block];
        a->partial[((size_t)t.block * g->groups + group) * 16 + item] = sum;
    }
}

/* ---- one thread per channel ---- */

typedef struct mdm_channel_arguments {
    const double *sum, *second;
    const float *gamma, *beta;
    float *running_mean, *running_variance; /* NULL: from sums, left alone */
    float *mean, *inverse_deviation, *scale, *shift;
    float *gamma_gradient, *beta_gradient, *mean_gradient, *mean_product;
    double count;
    uint32_t channels;
    int accumulate;
} mdm_channel_arguments;

MDM_BOTH void mdm_norm_from_sums_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t c = mdm_thread_number(t);
    if (c >= a->channels) return;
    float mean, inverse;
    mdm_norm_of_sums(a->sum[c], a->second[c], a->count, &mean, &inverse,
                     a->running_mean ? &a->running_mean[c] : NULL,
                     a->running_mean ? &a->running_variance[c] : NULL);
    a->mean[c] = mean;
    a->inverse_deviation[c] = inverse;
    mdm_norm_scale(mean, inverse, a->gamma[c], a->beta[c], &a->scale[c], &a->shift[c]);
}

MDM_BOTH void mdm_norm_from_running_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t c = mdm_thread_number(t);
    if (c >= a->channels) return;
    a->mean[c] = a->running_mean[c];
    a->inverse_deviation[c] = mdm_inverse_deviation((double)a->running_variance[c]);
    mdm_norm_scale(a->mean[c], a->inverse_deviation[c], a->gamma[c], a->beta[c], &a->scale[c], &a->shift[c]);
}

MDM_BOTH void mdm_norm_gradients_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t c = mdm_thread_number(t);
    if (c >= a->channels) return;
    double before_gamma = a->accumulate ? (double)a->gamma_gradient[c] : 0.0,
           before_beta = a->accumulate ? (double)a->beta_gradient[c] : 0.0;
    a->gamma_gradient[c] = (float)(before_gamma + a->second[c]);
    a->beta_gradient[c] = (float)(before_beta + a->sum[c]);
}

MDM_BOTH void mdm_norm_means_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t c = mdm_thread_number(t);
    if (c >= a->channels) return;
    a->mean_gradient[c] = a->count > 0 ? (float)(a->sum[c] / a->count) : 0.0f;
    a->mean_product[c] = a->count > 0 ? (float)(a->second[c] / a->count) : 0.0f;
}

/* ---- the blocks' sums, added: a block for 8 channels, in MDM_GPU_SLICES slices; and what follows ---- */

typedef enum mdm_gpu_rest { MDM_GPU_SUMS_ONLY, MDM_GPU_NORM_VALUES, MDM_GPU_NORM_GRADIENTS } mdm_gpu_rest;

typedef struct mdm_gather_arguments {
    const double *partial;
    double *sum, *second;
    uint32_t blocks, groups;
    mdm_gpu_rest rest;
    mdm_channel_arguments channels; /* of the rest */
} mdm_gather_arguments;

MDM_BOTH void mdm_gather_sums_thread(const mdm_gather_arguments *a, mdm_gpu_thread t, double *shared) {
    const double *from = a->partial + (size_t)t.block * 16 + t.thread % 16;
    double sum = 0;
    MDM_UNROLLED_BY_8 for (uint32_t b = t.thread / 16; b < a->blocks; b += MDM_GPU_SLICES) sum +=
        from[(size_t)b * 16 * a->groups];
    shared[t.thread] = sum;
}

/* Behind the barrier, a thread per channel: its slices in order. */
MDM_BOTH void mdm_slices_thread(const mdm_gather_arguments *a, mdm_gpu_thread t, const double *shared) {
    uint32_t channel = t.block * MDM_GPU_LANES + t.thread;
    mdm_gpu_thread of_channel = {0, channel, 0};
    mdm_channel_arguments padded = a->channels;
    double sum = 0, second = 0;
    if (t.thread >= MDM_GPU_LANES) return;
    for (uint32_t slice = 0; slice < MDM_GPU_SLICES; slice++) {
        sum += shared[slice * 16 + t.thread];
        second += shared[slice * 16 + MDM_GPU_LANES + t.thread];
    }
    a->sum[channel] = sum;
    a->second[channel] = second;
    padded.channels = a->groups * MDM_GPU_LANES;
    if (a->rest == MDM_GPU_NORM_VALUES) mdm_norm_from_sums_thread(&a->channels, of_channel);
    if (a->rest == MDM_GPU_NORM_GRADIENTS) {
        mdm_norm_gradients_thread(&a->channels, of_channel);
        mdm_norm_means_thread(&padded, of_channel);
    }
}

/* ---- the list: X(kernel, its arguments), and S(kernel, its arguments, what is behind the barrier) ---- */
#define MDM_GPU_KERNELS(X, S)                                                                                \
    X(norm_forward, mdm_norm_forward_arguments)                                                              \
    X(norm_backward, mdm_norm_backward_arguments)                                                            \
    X(add, mdm_add_arguments)                                                                                \
    X(add_backward, mdm_add_backward_arguments)                                                              \
    X(max_pool_forward, mdm_max_pool_arguments)                                                              \
    X(max_pool_backward, mdm_max_pool_arguments)                                                             \
    X(pool_forward, mdm_pool_arguments)                                                                      \
    X(pool_backward, mdm_pool_arguments)                                                                     \
    X(to_tensor, mdm_layout_arguments)                                                                       \
    X(from_tensor, mdm_layout_arguments)                                                                     \
    X(to_filter, mdm_weights_arguments)                                                                      \
    X(from_filter, mdm_weights_arguments)                                                                    \
    X(sgd, mdm_sgd_arguments)                                                                                \
    X(note_not_finite, mdm_finite_arguments)                                                                 \
    X(average, mdm_average_arguments)                                                                        \
    X(norm_from_sums, mdm_channel_arguments)                                                                 \
    X(norm_from_running, mdm_channel_arguments)                                                              \
    X(norm_gradients, mdm_channel_arguments)                                                                 \
    X(norm_means, mdm_channel_arguments)                                                                     \
    S(statistics, mdm_sum_arguments, block_sums)                                                             \
    S(backward_sums, mdm_sum_arguments, block_sums)                                                          \
    S(gather_sums, mdm_gather_arguments, slices)

#endif
