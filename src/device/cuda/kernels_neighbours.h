/* What every thread of the neighbour search's last kernels does: candidates are scored exactly, answers
 * proven, and the unproven searched again (see kernels.h for the scheme, kernels_rows.h for the stages,
 * neighbours.c for how the kernels follow each other). */
#ifndef MDM_DEVICE_CUDA_KERNELS_NEIGHBOURS_H
#define MDM_DEVICE_CUDA_KERNELS_NEIGHBOURS_H

#include "kernels_tiles.h"

/* ---- exact similarities of candidates in a block of rows: MDM_DOT_ROWS of them a block of threads ---- */

typedef struct mdm_rescore_arguments {
    mdm_row_block own, other;
    mdm_neighbour *list; /* [own.kept_count, width] */
    uint32_t dimension, width;
} mdm_rescore_arguments;

typedef struct mdm_rescore_shared {
    double sum[MDM_GPU_THREADS];
} mdm_rescore_shared;

MDM_BOTH uint32_t mdm_rescore_stages(const mdm_rescore_arguments *a, mdm_gpu_thread t) {
    (void)a, (void)t;
    return 2;
}

MDM_BOTH void mdm_rescore_stage(const mdm_rescore_arguments *a, mdm_gpu_thread t, mdm_rescore_shared *s,
                                uint32_t stage) {
    size_t entry = (size_t)t.block * MDM_DOT_ROWS + t.thread / MDM_DOT_LANES;
    uint32_t lane = t.thread % MDM_DOT_LANES;
    if (entry >= (size_t)a->own.kept_count * a->width) return;
    int64_t at = a->list[entry].index - a->other.first, own = a->own.kept[entry / a->width] - a->own.first;
    if (a->list[entry].index < 0 || at < 0 || at >= (int64_t)a->other.count) return;
    const float *query = a->own.row + (size_t)own * a->dimension,
                *row = a->other.row + (size_t)at * a->dimension;
    if (stage == 0)
        s->sum[t.thread] = mdm_dot_lane(query, row, a->dimension, lane);
    else if (lane == 0)
        a->list[entry].exact = mdm_cosine_of(mdm_dot_of_lanes(s->sum + t.thread, query, row, a->dimension),
                                             a->own.norm[own], a->other.norm[at]);
}

/* ---- answers: one thread per candidate ---- */

typedef struct mdm_answer_arguments {
    mdm_row_block own;
    const mdm_neighbour *list; /* [own.kept_count, width] */
    const float *threshold;
    const uint32_t *error;
    int32_t *result;           /* [own.count, k] global indices, by (similarity descending, index) */
    double *result_similarity; /* [own.count, k] */
    double *limit;             /* [own.kept_count] a lower limit of the k-th similarity */
    uint32_t *unproven;        /* queries without proof, in no order */
    uint32_t *unproven_count;
    uint32_t dimension, width, k;
} mdm_answer_arguments;

MDM_BOTH int mdm_is_nearer(mdm_neighbour a, mdm_neighbour b) {
    return a.exact > b.exact || (a.exact == b.exact && a.index < b.index);
}

/* A zero row has similarity 0 to everything: its neighbours are the first others. */
MDM_BOTH void mdm_answer_zero_row(const mdm_answer_arguments *a, int64_t own, uint32_t j) {
    if (j >= a->k) return;
    a->result[(size_t)own * a->k + j] = (int32_t)(j < a->own.first + own ? j : j + 1);
    a->result_similarity[(size_t)own * a->k + j] = 0;
}

MDM_BOTH void mdm_answer_thread(const mdm_answer_arguments *a, mdm_gpu_thread t) {
    size_t entry = (size_t)t.block * MDM_GPU_THREADS + t.thread;
    if (entry >= (size_t)a->own.kept_count * a->width) return;
    uint32_t query = (uint32_t)(entry / a->width), j = (uint32_t)(entry % a->width), rank = 0;
    int64_t own = a->own.kept[query] - a->own.first;
    if (a->own.norm[own] == 0) {
        mdm_answer_zero_row(a, own, j);
        return;
    }
    const mdm_neighbour *list = a->list + (size_t)query * a->width, mine = list[j];
    if (mine.index < 0) return;
    for (uint32_t i = 0; i < a->width && rank < a->k; i++)
        rank += list[i].index >= 0 && mdm_is_nearer(list[i], mine);
    if (rank >= a->k) return;
    a->result[(size_t)own * a->k + rank] = mine.index;
    a->result_similarity[(size_t)own * a->k + rank] = mine.exact;
    if (rank < a->k - 1) return;
    /* The k-th of the candidates. No row outside the list can reach it if even the greatest similarity that
     * was left out, and the most that it may be wrong by, stays below. */
    a->limit[query] = mine.exact;
    if ((double)a->threshold[query] + mdm_bound_of_bits(*a->error, a->dimension) < mine.exact) return;
    a->unproven[mdm_atomic_add(a->unproven_count, 1)] = query;
}

/* ---- the second search: everything that the bound does not exclude is scored exactly ---- */

/* Copies the unit rows of queries [first, first + count) of `unproven`; one thread per 8 values. */
typedef struct mdm_gather_units_arguments {
    const uint16_t *unit;
    const uint32_t *unproven;
    uint16_t *to; /* [count, padded] */
    uint32_t count, padded;
} mdm_gather_units_arguments;

MDM_BOTH void mdm_gather_units_thread(const mdm_gather_units_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t), words = a->padded / 8;
    if (i >= a->count * words) return;
    const mdm_gpu_word *from = (const mdm_gpu_word *)a->unit;
    ((mdm_gpu_word *)a->to)[i] = from[(size_t)a->unproven[i / words] * words + i % words];
}

typedef struct mdm_search_again_arguments {
    const float *tile; /* [count, stride] similarities of unproven queries to `columns` rows of `other` */
    mdm_row_block own, other;
    const uint32_t *unproven; /* [count] */
    const double *limit;      /* of every query */
    const uint32_t *error;
    mdm_neighbour *list; /* [count, k] the nearest so far */
    uint32_t stride, columns, first_column, dimension, k;
} mdm_search_again_arguments;

typedef struct mdm_search_again_shared {
    uint32_t count;
    uint32_t place[MDM_GPU_THREADS]; /* of the hits among the kept rows of `other` */
    double sum[MDM_GPU_THREADS * MDM_DOT_LANES];
    mdm_neighbour candidate[MDM_NEIGHBOUR_WIDTH + MDM_GPU_THREADS];
} mdm_search_again_shared;

enum { MDM_SEARCH_AGAIN_STAGES = 5 };

MDM_BOTH uint32_t mdm_search_again_stages(const mdm_search_again_arguments *a, mdm_gpu_thread t) {
    (void)t;
    return (a->columns + MDM_GPU_THREADS - 1) / MDM_GPU_THREADS * MDM_SEARCH_AGAIN_STAGES;
}

/* The row of a hit, and its place in other.row. */
MDM_BOTH const float *mdm_row_of_hit(const mdm_search_again_arguments *a, uint32_t place, int64_t *at) {
    *at = a->other.kept[place] - a->other.first;
    return a->other.row + (size_t)*at * a->dimension;
}

MDM_BOTH void mdm_search_again_stage(const mdm_search_again_arguments *a, mdm_gpu_thread t,
                                     mdm_search_again_shared *s, uint32_t stage) {
    uint32_t query = a->unproven[t.block], column = stage / MDM_SEARCH_AGAIN_STAGES * MDM_GPU_THREADS;
    int32_t self = a->own.kept[query];
    int64_t own = self - a->own.first, at;
    const float *row = a->own.row + (size_t)own * a->dimension, *other;
    mdm_neighbour *list = a->list + (size_t)t.block * a->k;
    switch (stage % MDM_SEARCH_AGAIN_STAGES) {
    case 0: /* the list, as it stands */
        if (t.thread < a->k) s->candidate[t.thread] = list[t.thread];
        if (t.thread == 0) s->count = 0;
        break;
    case 1: /* what comes near, at least as near as the k-th so far */
        column += t.thread;
        if (column >= a->columns || a->other.kept[a->first_column + column] == self) break;
        if ((double)a->tile[(size_t)t.block * a->stride + column] +
                mdm_bound_of_bits(*a->error, a->dimension) >=
            fmax(a->limit[query], s->candidate[a->k - 1].exact))
            s->place[mdm_atomic_add(&s->count, 1)] = a->first_column + column;
        break;
    case 2:
        for (uint32_t i = t.thread / MDM_DOT_LANES; i < s->count; i += MDM_DOT_ROWS) {
            other = mdm_row_of_hit(a, s->place[i], &at);
            s->sum[i * MDM_DOT_LANES + t.thread % MDM_DOT_LANES] =
                mdm_dot_lane(row, other, a->dimension, t.thread % MDM_DOT_LANES);
        }
        break;
    case 3:
        if (t.thread < s->count) {
            other = mdm_row_of_hit(a, s->place[t.thread], &at);
            const mdm_neighbour fresh = {
                mdm_cosine_of(mdm_dot_of_lanes(s->sum + t.thread * MDM_DOT_LANES, row, other, a->dimension),
                              a->own.norm[own], a->other.norm[at]),
                0, a->other.kept[s->place[t.thread]]};
            s->candidate[a->k + t.thread] = fresh;
        }
        break;
    default:
        for (uint32_t c = t.thread; s->count > 0 && c < a->k + s->count; c += MDM_GPU_THREADS) {
            uint32_t rank = 0;
            for (uint32_t i = 0; i < a->k + s->count && rank < a->k; i++)
                rank += mdm_is_nearer(s->candidate[i], s->candidate[c]);
            if (s->candidate[c].index >= 0 && rank < a->k) list[rank] = s->candidate[c];
        }
    }
}

/* Writes what the second search found; one thread per query and neighbour. */
typedef struct mdm_take_again_arguments {
    mdm_row_block own;
    const uint32_t *unproven;
    const mdm_neighbour *list; /* [count, k] */
    int32_t *result;
    double *result_similarity;
    uint32_t count, k;
} mdm_take_again_arguments;

MDM_BOTH void mdm_take_again_thread(const mdm_take_again_arguments *a, mdm_gpu_thread t) {
    size_t entry = (size_t)t.block * MDM_GPU_THREADS + t.thread;
    if (entry >= (size_t)a->count * a->k) return;
    int64_t own = a->own.kept[a->unproven[entry / a->k]] - a->own.first;
    a->result[(size_t)own * a->k + entry % a->k] = a->list[entry].index;
    a->result_similarity[(size_t)own * a->k + entry % a->k] = a->list[entry].exact;
}

/* score = mean of 1 - similarity, added up from the nearest on; one thread per kept row. */
typedef struct mdm_mean_distance_arguments {
    mdm_row_block own;
    const double *result_similarity;
    float *score; /* [own.count] */
    uint32_t k;
} mdm_mean_distance_arguments;

MDM_BOTH void mdm_mean_distance_thread(const mdm_mean_distance_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->own.kept_count) return;
    int64_t own = a->own.kept[i] - a->own.first;
    double distance = 0;
    for (uint32_t j = 0; j < a->k; j++) distance += 1.0 - a->result_similarity[(size_t)own * a->k + j];
    a->score[own] = (float)(distance / (int)a->k);
}

/* ---- the list: X of one function, G of stages, with the block's shared memory ---- */
#define MDM_GPU_NEIGHBOUR_KERNELS(X, G)                                                                      \
    X(clear_lists, mdm_clear_arguments)                                                                      \
    X(filter_tile, mdm_tile_arguments)                                                                       \
    X(answer, mdm_answer_arguments)                                                                          \
    X(gather_units, mdm_gather_units_arguments)                                                              \
    X(take_again, mdm_take_again_arguments)                                                                  \
    X(mean_distance, mdm_mean_distance_arguments)                                                            \
    G(measure, mdm_measure_arguments, mdm_measure_shared)                                                    \
    G(pack, mdm_pack_arguments, mdm_pack_shared)                                                             \
    G(merge_tile, mdm_tile_arguments, mdm_merge_shared)                                                      \
    G(rescore, mdm_rescore_arguments, mdm_rescore_shared)                                                    \
    G(search_again, mdm_search_again_arguments, mdm_search_again_shared)

#endif
