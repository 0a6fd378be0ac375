/* What every thread of our CUDA kernels does, as inline functions that C can call too: kernels.cu makes
 * kernels of them, and the tests run all threads of a launch one after another on the CPU.
 *
 * Tensors are [N,H,W,C], C in blocks of 8, so a thread moves 8 channels with one or two 16-byte transfers.
 * Each kernel has a struct of arguments and a function of (arguments, thread); those that sum over a block
 * have two, before and after the barrier, with the block's shared memory between them. lanes.h has what they
 * share, kernels_norm.h those of batch norm, this file the others and the list of both.
 */
#ifndef MDM_DEVICE_CUDA_KERNELS_H
#define MDM_DEVICE_CUDA_KERNELS_H

#include "kernels_norm.h"

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
    const float *rate;
    const double *verdict; /* whether weights may be changed */
    uint32_t count;
    float momentum, weight_decay;
} mdm_sgd_arguments;

MDM_BOTH void mdm_sgd_thread(const mdm_sgd_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->count || *a->verdict != MDM_STEP_IS_SOUND) return;
    mdm_sgd_of(&a->weights[i], a->gradient[i], &a->velocity[i], *a->rate, a->momentum, a->weight_decay);
}

/* The same for weights with the filters of convolutions, which are written in the one pass. A block has a
 * piece of the weights, in its shared memory between the two; verdict NULL: weights are only read. */
enum { MDM_FILTER_PIECE = 2048 };

typedef struct mdm_filter_piece {
    uint64_t filter;       /* where the first weight's place is, in elements of `filters` */
    uint32_t first, count; /* of the weights */
    uint32_t inputs,
        taps;        /* inputs: of each output in the piece, or of one output some; 0: no convolution's */
    uint32_t padded; /* inputs of the filter [padded outputs][taps][padded] */
    uint32_t unused;
} mdm_filter_piece;

typedef struct mdm_filter_arguments {
    const mdm_filter_piece *pieces; /* [blocks] */
    float *weights, *velocity;
    const float *gradient, *rate;
    const double *verdict;
    void *filters;
    float momentum, weight_decay;
    int bf16;
} mdm_filter_arguments;

MDM_BOTH int mdm_filters_stay(const mdm_filter_arguments *a) {
    return a->verdict && *a->verdict != MDM_STEP_IS_SOUND;
}

MDM_BOTH void mdm_step_filters_thread(const mdm_filter_arguments *a, mdm_gpu_thread t, double *shared) {
    const mdm_filter_piece *p = &a->pieces[t.block];
    if (mdm_filters_stay(a)) return;
    for (uint32_t i = t.thread; i < p->count; i += MDM_GPU_THREADS) {
        size_t at = (size_t)p->first + i;
        if (a->verdict)
            mdm_sgd_of(&a->weights[at], a->gradient[at], &a->velocity[at], *a->rate, a->momentum,
                       a->weight_decay);
        shared[i] = (double)a->weights[at];
    }
}

/* Up to 8 inputs of a piece, that are one vector of the filters. */
typedef struct mdm_filter_vector {
    size_t vector;
    uint32_t first, inputs; /* among the piece's weights, the others `taps` apart; how many there are */
} mdm_filter_vector;

MDM_BOTH uint32_t mdm_vectors_of_piece(const mdm_filter_piece *p) {
    return p->inputs ? p->count / p->inputs * ((p->inputs + MDM_GPU_LANES - 1) / MDM_GPU_LANES) : 0;
}

MDM_BOTH mdm_filter_vector mdm_filter_vector_of(const mdm_filter_piece *p, uint32_t i) {
    uint32_t groups = (p->inputs + MDM_GPU_LANES - 1) / MDM_GPU_LANES, input = i % groups * MDM_GPU_LANES,
             tap = i / groups % p->taps, output = i / groups / p->taps;
    mdm_filter_vector v;
    v.vector = ((size_t)p->filter + ((size_t)output * p->taps + tap) * p->padded + input) / MDM_GPU_LANES;
    v.first = (output * p->inputs + input) * p->taps + tap;
    v.inputs = p->inputs - input;
    if (v.inputs > MDM_GPU_LANES) v.inputs = MDM_GPU_LANES;
    return v;
}

/* Behind the barrier: a thread per 8 inputs. */
MDM_BOTH void mdm_write_filters_thread(const mdm_filter_arguments *a, mdm_gpu_thread t,
                                       const double *shared) {
    const mdm_filter_piece *p = &a->pieces[t.block];
    if (mdm_filters_stay(a)) return;
    for (uint32_t i = t.thread; i < mdm_vectors_of_piece(p); i += MDM_GPU_THREADS) {
        mdm_filter_vector at = mdm_filter_vector_of(p, i);
        mdm_lanes v;
        for (uint32_t k = 0; k < MDM_GPU_LANES; k++)
            v.v[k] = k < at.inputs ? (float)shared[at.first + k * p->taps] : 0.0f;
        mdm_store_lanes(a->filters, at.vector, a->bf16, v);
    }
}

/* The way back: the gradient of filters becomes that of the weights, a block for each piece. */
typedef struct mdm_from_filters_arguments {
    const mdm_filter_piece *pieces; /* [blocks] */
    const void *filters;
    float *gradient;
    int bf16, accumulate;
} mdm_from_filters_arguments;

MDM_BOTH void mdm_from_filters_thread(const mdm_from_filters_arguments *a, mdm_gpu_thread t, double *shared) {
    const mdm_filter_piece *p = &a->pieces[t.block];
    for (uint32_t i = t.thread; i < mdm_vectors_of_piece(p); i += MDM_GPU_THREADS) {
        mdm_filter_vector at = mdm_filter_vector_of(p, i);
        mdm_lanes v = mdm_load_lanes(a->filters, at.vector, a->bf16);
        for (uint32_t k = 0; k < at.inputs; k++) shared[at.first + k * p->taps] = (double)v.v[k];
    }
}

/* Behind the barrier: a thread per weight. */
MDM_BOTH void mdm_take_gradient_thread(const mdm_from_filters_arguments *a, mdm_gpu_thread t,
                                       const double *shared) {
    const mdm_filter_piece *p = &a->pieces[t.block];
    for (uint32_t i = t.thread; p->inputs && i < p->count; i += MDM_GPU_THREADS) {
        float *to = &a->gradient[(size_t)p->first + i], value = (float)shared[i];
        *to = a->accumulate ? *to + value : value;
    }
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
    X(average, mdm_average_arguments)                                                                        \
    X(norm_from_sums, mdm_channel_arguments)                                                                 \
    X(norm_from_running, mdm_channel_arguments)                                                              \
    X(norm_gradients, mdm_channel_arguments)                                                                 \
    X(norm_means, mdm_channel_arguments)                                                                     \
    S(statistics, mdm_sum_arguments, block_sums)                                                             \
    S(backward_sums, mdm_sum_arguments, block_sums)                                                          \
    S(gather_sums, mdm_gather_arguments, slices)                                                             \
    S(step_filters, mdm_filter_arguments, write_filters)                                                     \
    S(from_filters, mdm_from_filters_arguments, take_gradient)

#endif
