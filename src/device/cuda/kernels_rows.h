/* What every thread of the neighbour search's first kernels does: rows are measured, hashed and made unit
 * rows in half precision; and the exact dot product of the others.
 *
 * Some of the search's kernels go through stages with a barrier between two: for them there is a function
 * that tells how many stages a block has, and one that does a thread's part of a stage.
 */
#ifndef MDM_DEVICE_CUDA_KERNELS_ROWS_H
#define MDM_DEVICE_CUDA_KERNELS_ROWS_H

#include "kernels.h"

enum {
    MDM_DOT_LANES = 16, /* partial sums of an exact dot product, one to a thread */
    MDM_DOT_ROWS = MDM_GPU_THREADS / MDM_DOT_LANES,
    MDM_NEIGHBOUR_WIDTH = 128 /* candidates of a query, at most */
};

/* A candidate; index -1 is an empty place. */
typedef struct mdm_neighbour {
    double exact; /* cosine, once it is known */
    float similarity;
    int32_t index; /* global */
} mdm_neighbour;

/* Rows that are searched or searched in: all of a slice, and of these the ones that take part ("kept"). */
typedef struct mdm_row_block {
    const float *row; /* [count, dimension] */
    double *norm;     /* [count] */
    uint16_t *unit;   /* [kept, padded dimension] kept rows / norm in half precision */
    int32_t *kept;    /* [kept_count] global indices, ascending */
    int64_t first;    /* global index of row 0 */
    uint32_t count, kept_count;
} mdm_row_block;

/* Half precision, of values up to 65504: rounding to nearest even. */
MDM_BOTH uint32_t mdm_half_of(float value) {
    mdm_float_bits u;
    u.value = value;
    uint32_t sign = (u.bits >> 16) & 0x8000u, magnitude = u.bits & 0x7fffffffu;
    if (magnitude < 0x38800000u) { /* below 2^-14: whole multiples of 2^-24, to which adding 1/2 rounds */
        u.bits = magnitude;
        u.value += 0.5f;
        return sign | (u.bits - 0x3f000000u);
    }
    return sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13);
}

MDM_BOTH float mdm_float_of_half(uint32_t half) {
    mdm_float_bits u;
    if (half & 0x7c00u)
        u.bits = ((half & 0x7fffu) << 13) + 0x38000000u;
    else
        u.value = (float)(half & 0x3ffu) / 16777216.0f;
    u.bits |= (half & 0x8000u) << 16;
    return u.value;
}

/* ---- exact dot products, in the order of the CPU's (src/divide/knn_kernel.c): 16 lanes take every 16th
 * product of the whole sixteens, are folded, and the rest is added. Products of floats are exact in double.
 * ---- */

MDM_BOTH double mdm_dot_lane(const float *a, const float *b, uint32_t n, uint32_t lane) {
    double sum = 0;
    MDM_UNROLLED_BY_8 for (uint32_t i = lane; i < n / MDM_DOT_LANES * MDM_DOT_LANES; i += MDM_DOT_LANES)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

MDM_BOTH double mdm_dot_of_lanes(const double *lane, const float *a, const float *b, uint32_t n) {
    double s[8], rest = 0;
    for (int i = 0; i < 8; i++) s[i] = lane[i] + lane[i + 8];
    for (uint32_t i = n / MDM_DOT_LANES * MDM_DOT_LANES; i < n; i++) rest += (double)a[i] * (double)b[i];
    return (((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))) + rest;
}

MDM_BOTH double mdm_cosine_of(double dot, double norm_a, double norm_b) {
    if (norm_a == 0 || norm_b == 0) return 0;
    double cosine = dot / (norm_a * norm_b);
    return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}

/* ---- lengths and hashes of rows: MDM_DOT_ROWS rows a block ---- */

typedef struct mdm_measure_arguments {
    const float *row;
    double *norm;
    uint64_t *hash; /* [count, 2]; NULL: not wanted */
    uint32_t count, dimension;
} mdm_measure_arguments;

typedef struct mdm_measure_shared {
    double sum[MDM_GPU_THREADS];
    uint64_t hash[2][MDM_GPU_THREADS];
} mdm_measure_shared;

MDM_BOTH uint64_t mdm_hash_step(uint64_t hash, uint64_t word, uint64_t factor) {
    hash = (hash ^ word) * factor;
    return hash ^ (hash >> 29);
}

MDM_BOTH void mdm_hash_lane(const float *row, uint32_t n, uint32_t lane, uint64_t hash[2]) {
    hash[0] = 0x243f6a8885a308d3u + lane;
    hash[1] = 0x13198a2e03707344u + lane;
    for (uint32_t i = lane; i < n; i += MDM_DOT_LANES) {
        mdm_float_bits u;
        u.value = row[i];
        hash[0] = mdm_hash_step(hash[0], u.bits, 0x9e3779b97f4a7c15u);
        hash[1] = mdm_hash_step(hash[1], u.bits, 0xc2b2ae3d27d4eb4fu);
    }
}

MDM_BOTH uint32_t mdm_measure_stages(const mdm_measure_arguments *a, mdm_gpu_thread t) {
    (void)a, (void)t;
    return 2;
}

MDM_BOTH void mdm_measure_stage(const mdm_measure_arguments *a, mdm_gpu_thread t, mdm_measure_shared *s,
                                uint32_t stage) {
    uint32_t i = t.block * MDM_DOT_ROWS + t.thread / MDM_DOT_LANES, lane = t.thread % MDM_DOT_LANES;
    if (i >= a->count) return;
    const float *row = a->row + (size_t)i * a->dimension;
    if (stage == 0) {
        uint64_t hash[2];
        s->sum[t.thread] = mdm_dot_lane(row, row, a->dimension, lane);
        if (!a->hash) return;
        mdm_hash_lane(row, a->dimension, lane, hash);
        s->hash[0][t.thread] = hash[0];
        s->hash[1][t.thread] = hash[1];
    } else if (lane == 0) {
        a->norm[i] = sqrt(mdm_dot_of_lanes(s->sum + t.thread, row, row, a->dimension));
        for (uint32_t h = 0; a->hash && h < 2; h++) {
            uint64_t hash = a->dimension;
            for (uint32_t l = 0; l < MDM_DOT_LANES; l++)
                hash = mdm_hash_step(hash, s->hash[h][t.thread + l], 0xd6e8feb86659fd93u);
            a->hash[2 * (size_t)i + h] = hash ^ (hash >> 32);
        }
    }
}

/* ---- unit rows in half precision, and the largest distance of one from what it stands for ---- */

typedef struct mdm_pack_arguments {
    mdm_row_block block;
    uint32_t *error; /* the largest so far, the bits of a float */
    uint32_t dimension, padded;
} mdm_pack_arguments;

typedef struct mdm_pack_shared {
    double square[MDM_GPU_THREADS];
} mdm_pack_shared;

MDM_BOTH uint32_t mdm_pack_stages(const mdm_pack_arguments *a, mdm_gpu_thread t) {
    (void)a, (void)t;
    return 2;
}

MDM_BOTH void mdm_pack_stage(const mdm_pack_arguments *a, mdm_gpu_thread t, mdm_pack_shared *s,
                             uint32_t stage) {
    uint32_t i = t.block * MDM_DOT_ROWS + t.thread / MDM_DOT_LANES, lane = t.thread % MDM_DOT_LANES;
    if (i >= a->block.kept_count) return;
    if (stage == 0) {
        size_t from = (size_t)(a->block.kept[i] - a->block.first);
        const float *row = a->block.row + from * a->dimension;
        double norm = a->block.norm[from], inverse = norm > 0 ? 1.0 / norm : 0.0, square = 0;
        for (uint32_t d = lane; d < a->padded; d += MDM_DOT_LANES) {
            double value = d < a->dimension ? row[d] * inverse : 0.0;
            uint32_t half = mdm_half_of((float)value);
            double off = (double)mdm_float_of_half(half) - value;
            square += off * off;
            a->block.unit[(size_t)i * a->padded + d] = (uint16_t)half;
        }
        s->square[t.thread] = square;
    } else if (lane == 0) {
        double sum = 0;
        mdm_float_bits u;
        for (uint32_t l = 0; l < MDM_DOT_LANES; l++) sum += s->square[t.thread + l];
        u.value = (float)(sqrt(sum) * (1 + 1e-6)); /* rounded up, in effect */
        mdm_atomic_max(a->error, u.bits);
    }
}

/* How far a similarity of two such rows may be from the cosine. With h = u + e the half-precision row of a
 * unit row u and |e| <= error: |h.h' - u.u'| = |e.h' + u.e'| <= error (1 + error) + error. The products of
 * two halves are exact in single precision. Their sum: tensor cores cut off (not round) what they add to
 * the exponent of the greatest in a group of at least four products and the sum so far, which costs at most
 * one unit in the last place, 2^-23 of the sum of all magnitudes, |h| |h'| <= (1 + error)^2, for each of at
 * most 5/4 n addends, and as much for each of n/4 results: 3/2 n. It is taken as 2 (n + 16), which covers
 * rounding sums in any other order and a few partial sums too. The last factor is for the rounding of the
 * exact cosine (n 2^-53) and of `error` itself. */
MDM_BOTH double mdm_similarity_bound(double error, uint32_t dimension) {
    double sum = 2.0 * ((double)dimension + 16.0) / 8388608.0 * (1 + error) * (1 + error);
    return (error * (2 + error) + sum) * 1.001 + 1e-12;
}

MDM_BOTH double mdm_bound_of_bits(uint32_t error, uint32_t dimension) {
    mdm_float_bits u;
    u.bits = error;
    return mdm_similarity_bound((double)u.value, dimension);
}

#endif
