/* Kernels of heads and of whole steps: sums of rows and columns, batch norm over rows, mixing. In phases like
 * those of kernels_losses.h, or element by element.
 */
#ifndef MDM_DEVICE_CUDA_KERNELS_HEADS_H
#define MDM_DEVICE_CUDA_KERNELS_HEADS_H

#include "kernels_losses.h"

enum {
    MDM_GPU_COLUMN_TILE = 8,  /* columns of a block that sums columns */
    MDM_GPU_GRID_ROWS = 65535 /* of a launch */
};

/* ---- sums ---- */

typedef struct mdm_row_sums_arguments {
    mdm_row_sum sums[MDM_ROW_SUMS];
} mdm_row_sums_arguments;

/* A block for each sum. */
MDM_BOTH void mdm_sum_rows_thread(const mdm_row_sums_arguments *a, mdm_gpu_thread t, int phase,
                                  double *shared) {
    const mdm_row_sum *s = &a->sums[t.block];
    double sum = 0.0;
    if (phase == 0) {
        for (int64_t i = t.thread; i < s->rows; i += MDM_GPU_THREADS) sum += s->values[i];
        mdm_leave(shared, 0, t, sum);
        return;
    }
    mdm_block_total_phase(t, phase, shared, &sum);
    if (phase == 2 && t.thread == 0) *s->sum = sum / s->divisor;
}

/* The squares of all values, a sum for each block. */
enum { MDM_GPU_SQUARES = 2 * MDM_GPU_BLOCKS /* blocks at most */ };

typedef struct mdm_square_arguments {
    const float *values;
    double *partial;     /* [blocks] */
    size_t count, words; /* words: that values begin with, of 16 bytes */
    size_t threads;
} mdm_square_arguments;

MDM_BOTH double mdm_square_of_word(mdm_gpu_word word) {
    double sum = 0.0;
    MDM_UNROLLED for (int k = 0; k < 4; k++) {
        mdm_float_bits u;
        u.bits = word.part[k];
        sum += (double)u.value * (double)u.value;
    }
    return sum;
}

MDM_BOTH void mdm_squares_thread(const mdm_square_arguments *a, mdm_gpu_thread t, int phase, double *shared) {
    const mdm_gpu_word *words = (const mdm_gpu_word *)a->values;
    double sum = 0.0;
    if (phase == 0) {
        MDM_UNROLLED_BY_8 for (size_t i = mdm_thread_number(t); i < a->words; i += a->threads) sum +=
            mdm_square_of_word(words[i]);
        for (size_t i = 4 * a->words + mdm_thread_number(t); i < a->count; i += a->threads)
            sum += (double)a->values[i] * (double)a->values[i];
        mdm_leave(shared, 0, t, sum);
        return;
    }
    mdm_block_total_phase(t, phase, shared, &sum);
    if (phase == 2 && t.thread == 0) a->partial[t.block] = sum;
}

/* Per column: sums of x and of x * other, and what follows. A block takes 8 columns, 32 threads to each: rows
 * are those of a batch, too few for a second launch that adds up what blocks have found. */
typedef struct mdm_column_arguments {
    const float *x, *other;
    double *sum, *second; /* NULL: not wanted */
    float *gradient;      /* of the first sum; NULL: not wanted */
    uint32_t rows, columns;
    int accumulate; /* to the gradient */
    mdm_gpu_rest rest;
    mdm_channel_arguments channels; /* of the rest */
} mdm_column_arguments;

MDM_BOTH void mdm_sum_columns_thread(const mdm_column_arguments *a, mdm_gpu_thread t, int phase,
                                     double *shared) {
    const uint32_t lanes = MDM_GPU_THREADS / MDM_GPU_COLUMN_TILE;
    uint32_t lane = t.thread / MDM_GPU_COLUMN_TILE,
             c = t.block * MDM_GPU_COLUMN_TILE + t.thread % MDM_GPU_COLUMN_TILE;
    const mdm_gpu_thread of_column = {0, c, 0};
    double sums[2] = {0.0, 0.0};
    if (c >= a->columns || (phase == 1 && lane > 0)) return;
    if (phase == 0) {
        MDM_UNROLLED_BY_8 for (size_t r = lane; r < a->rows; r += lanes) {
            double x = (double)a->x[r * a->columns + c];
            sums[0] += x;
            sums[1] += x * (double)a->other[r * a->columns + c];
        }
        mdm_leave(shared, 0, t, sums[0]);
        mdm_leave(shared, 1, t, sums[1]);
        return;
    }
    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < lanes; i++)
            sums[k] += shared[k * MDM_GPU_THREADS + (int)(i * MDM_GPU_COLUMN_TILE + t.thread)];
    if (a->sum) a->sum[c] = sums[0];
    if (a->second) a->second[c] = sums[1];
    if (a->gradient) a->gradient[c] = (float)(a->accumulate ? (double)a->gradient[c] + sums[0] : sums[0]);
    if (a->rest == MDM_GPU_NORM_VALUES) mdm_norm_from_sums_thread(&a->channels, of_column);
    if (a->rest != MDM_GPU_NORM_GRADIENTS) return;
    mdm_norm_means_thread(&a->channels, of_column);
    mdm_norm_gradients_thread(&a->channels, of_column);
}

/* ---- element by element, each thread `threads` apart ---- */

typedef struct mdm_column_norm_arguments {
    const float *x, *mean, *inverse_deviation, *gamma, *beta, *mean_gradient, *mean_product;
    float *normalised, *out; /* backward: x is the gradient, normalised only read */
    size_t count, threads;
    uint32_t columns;
} mdm_column_norm_arguments;

MDM_BOTH void mdm_column_norm_forward_thread(const mdm_column_norm_arguments *a, mdm_gpu_thread t) {
    for (size_t i = mdm_thread_number(t); i < a->count; i += a->threads) {
        size_t c = i % a->columns;
        float v = (a->x[i] - a->mean[c]) * a->inverse_deviation[c];
        a->normalised[i] = v;
        a->out[i] = a->gamma[c] * v + a->beta[c];
    }
}

MDM_BOTH void mdm_column_norm_backward_thread(const mdm_column_norm_arguments *a, mdm_gpu_thread t) {
    for (size_t i = mdm_thread_number(t); i < a->count; i += a->threads) {
        size_t c = i % a->columns;
        a->out[i] = a->gamma[c] * a->inverse_deviation[c] *
                    (a->x[i] - a->mean_gradient[c] - a->normalised[i] * a->mean_product[c]);
    }
}

typedef struct mdm_round_arguments {
    const float *from;
    uint16_t *to;
    size_t count, threads;
} mdm_round_arguments;

MDM_BOTH void mdm_round_to_bf16_thread(const mdm_round_arguments *a, mdm_gpu_thread t) {
    for (size_t i = mdm_thread_number(t); i < a->count; i += a->threads)
        a->to[i] = (uint16_t)mdm_bf16_of(a->from[i]);
}

/* c [.., columns] += bias, one thread per element. */
typedef struct mdm_bias_arguments {
    const float *bias;
    float *c;
    uint32_t count, columns;
} mdm_bias_arguments;

MDM_BOTH void mdm_add_bias_thread(const mdm_bias_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i < a->count) a->c[i] += a->bias[i % a->columns];
}

/* ---- mixing: a block_row for each row (beyond the grid: every block_rows-th), threads along it ---- */

typedef struct mdm_mix_arguments {
    const float *lambda, *own, *all; /* backward: own is the gradient of mixed rows */
    const int32_t *partner;
    float *mixed, *mask; /* mask: of targets, whose last column it takes; NULL: rows of plain numbers */
    size_t rows, width, first, own_rows;
    uint32_t block_rows, blocks;
} mdm_mix_arguments;

MDM_BOTH void mdm_mix_rows_thread(const mdm_mix_arguments *a, mdm_gpu_thread t) {
    float mine = *a->lambda, theirs = 1.0f - mine;
    size_t stride = (size_t)a->blocks * MDM_GPU_THREADS, width = a->mask ? a->width - 1 : a->width;
    for (size_t row = t.block_row; row < a->rows; row += a->block_rows) {
        const float *own = a->own + row * a->width,
                    *other = a->all + (a->partner ? (size_t)a->partner[row] : row) * a->width;
        for (size_t i = mdm_thread_number(t); i < a->width; i += stride) {
            float value = mine * own[i] + theirs * other[i];
            if (i < width)
                a->mixed[row * width + i] = value;
            else
                a->mask[row] = value;
        }
    }
}

MDM_BOTH void mdm_mix_backward_thread(const mdm_mix_arguments *a, mdm_gpu_thread t) {
    float mine = *a->lambda, theirs = 1.0f - mine;
    size_t stride = (size_t)a->blocks * MDM_GPU_THREADS;
    for (size_t row = t.block_row; row < a->rows; row += a->block_rows) {
        int is_own = row >= a->first && row < a->first + a->own_rows, is_partner = a->partner[row] >= 0;
        const float *own = is_own ? a->own + (row - a->first) * a->width : NULL,
                    *other = is_partner ? a->own + (size_t)a->partner[row] * a->width : NULL;
        for (size_t i = mdm_thread_number(t); i < a->width; i += stride)
            a->mixed[row * a->width + i] =
                (is_own ? mine * own[i] : 0.0f) + (is_partner ? theirs * other[i] : 0.0f);
    }
}

/* Whole rows of 16 bytes at once, where they are aligned: images and embeddings. */
MDM_BOTH void mdm_mix_words_thread(const mdm_mix_arguments *a, mdm_gpu_thread t) {
    float mine = *a->lambda, theirs = 1.0f - mine;
    size_t stride = (size_t)a->blocks * MDM_GPU_THREADS, width = a->width / 4;
    for (size_t row = t.block_row; row < a->rows; row += a->block_rows) {
        const mdm_gpu_word *own = (const mdm_gpu_word *)a->own + row * width,
                           *other = (const mdm_gpu_word *)a->all +
                                    (a->partner ? (size_t)a->partner[row] : row) * width;
        for (size_t i = mdm_thread_number(t); i < width; i += stride) {
            mdm_gpu_word x = own[i], y = other[i];
            for (int k = 0; k < 4; k++) {
                mdm_float_bits p, q;
                p.bits = x.part[k];
                q.bits = y.part[k];
                p.value = mine * p.value + theirs * q.value;
                x.part[k] = p.bits;
            }
            ((mdm_gpu_word *)a->mixed)[row * width + i] = x;
        }
    }
}

/* ---- what a step comes to: one thread ---- */

MDM_BOTH void mdm_judge_step_thread(const mdm_step_judgement *a, mdm_gpu_thread t) {
    if (mdm_thread_number(t) == 0) mdm_judge(a);
}

/* ---- the list: X as in kernels.h; P with the number of phases, a barrier between each two ---- */
#define MDM_GPU_HEAD_KERNELS(X, P)                                                                           \
    X(column_norm_forward, mdm_column_norm_arguments)                                                        \
    X(column_norm_backward, mdm_column_norm_arguments)                                                       \
    X(round_to_bf16, mdm_round_arguments)                                                                    \
    X(add_bias, mdm_bias_arguments)                                                                          \
    X(mix_rows, mdm_mix_arguments)                                                                           \
    X(mix_words, mdm_mix_arguments)                                                                          \
    X(mix_backward, mdm_mix_arguments)                                                                       \
    X(judge_step, mdm_step_judgement)                                                                        \
    MDM_GPU_LOSS_KERNELS(P)                                                                                  \
    P(sum_rows, mdm_row_sums_arguments, 3)                                                                   \
    P(squares, mdm_square_arguments, 3)                                                                      \
    P(sum_columns, mdm_column_arguments, 2)

#endif
