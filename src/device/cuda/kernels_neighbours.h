/* What every thread of the neighbour search's kernels does (see kernels.h for the scheme, neighbours.c for
 * how they follow each other).
 *
 * Some of these kernels go through stages with a barrier between two: for them there is a function that tells
 * how many stages a block has, and one that does a thread's part of a stage.
 */
#ifndef MDM_DEVICE_CUDA_KERNELS_NEIGHBOURS_H
#define MDM_DEVICE_CUDA_KERNELS_NEIGHBOURS_H

#include "kernels.h"

enum {
    MDM_DOT_LANES = 16, /* partial sums of an exact dot product, one to a thread */
    MDM_DOT_ROWS = MDM_GPU_THREADS / MDM_DOT_LANES,
    MDM_NEIGHBOUR_WIDTH = 128, /* candidates of a query, at most */
    MDM_NEIGHBOUR_HITS = 64,   /* of a query in one tile, before the tile is looked through once more */
    MDM_TILE_ROWS = 2048,      /* at most; tiles are rows x columns similarities */
    MDM_TILE_COLUMNS = 4096,
    MDM_TILE_ALIGNMENT = 64,
    MDM_FILTER_ROWS = 16, /* of a block; its columns are four to a thread */
    MDM_FILTER_AHEAD = 4, /* rows read at a time; a part of MDM_FILTER_ROWS and of the alignment */
    MDM_MERGE_BLOCKS = 1056,
    /* What a thread looks at when a tile's row or column is looked through, and what can come of it: those
     * above the width-th greatest of the threads' maxima are in fewer than `width` threads' parts. */
    MDM_TILE_PART = MDM_TILE_COLUMNS / MDM_GPU_THREADS,
    MDM_MERGE_CANDIDATES = MDM_NEIGHBOUR_WIDTH + (MDM_NEIGHBOUR_WIDTH - 1) * MDM_TILE_PART + MDM_GPU_THREADS
};

/* A candidate; index -1 is an empty place. */
typedef struct mdm_neighbour {
    double exact; /* cosine, once it is known */
    float similarity;
    int32_t index; /* global */
} mdm_neighbour;

typedef struct mdm_similar {
    float similarity;
    int32_t index;
} mdm_similar;

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

/* ---- empty lists ---- */

typedef struct mdm_clear_arguments {
    mdm_neighbour *list; /* [count, width] */
    float *threshold;    /* [all]: what there is to beat, +inf behind `count`; may be NULL */
    uint32_t count, all, width;
} mdm_clear_arguments;

MDM_BOTH void mdm_clear_lists_thread(const mdm_clear_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->all) return;
    const mdm_neighbour empty = {-2.0, -INFINITY, -1};
    if (a->threshold) a->threshold[i] = i < a->count ? -INFINITY : INFINITY;
    for (uint32_t j = 0; i < a->count && j < a->width; j++) a->list[(size_t)i * a->width + j] = empty;
}

/* ---- a tile of similarities, of which few are above what its row's or column's list holds ---- */

/* The queries on one side of a tile. */
typedef struct mdm_tile_side {
    mdm_neighbour *list;  /* [count, width], descending */
    float *threshold;     /* [count]: nothing outside the list has a greater similarity */
    const int32_t *index; /* [count] global */
    mdm_similar *hit;     /* [count, MDM_NEIGHBOUR_HITS] index: place on the other side */
    uint32_t *hits;       /* [count]: how many there were, also of those that found no place; 0 in between */
    uint32_t count;
} mdm_tile_side;

typedef struct mdm_tile_arguments {
    const float *tile; /* [row.count, stride] */
    mdm_tile_side row, column;
    /* Queries with hits, a row or row.count + a column; and of these the ones that have too many. */
    uint32_t *active, *crowded;
    uint32_t *counts, *other_counts; /* [2] of both; tiles take turns with the two */
    uint32_t stride, width, blocks;  /* blocks: of the merging launch */
    int both;                        /* 0: only rows have lists */
    int diagonal; /* the columns are the rows: all of every row is looked through, itself excluded */
} mdm_tile_arguments;

MDM_BOTH void mdm_note_hit(const mdm_tile_arguments *a, const mdm_tile_side *side, uint32_t query,
                           uint32_t other, float similarity, uint32_t number) {
    uint32_t slot = mdm_atomic_add(&side->hits[query], 1);
    if (slot == 0) a->active[mdm_atomic_add(&a->counts[0], 1)] = number;
    if (slot == MDM_NEIGHBOUR_HITS) a->crowded[mdm_atomic_add(&a->counts[1], 1)] = number;
    if (slot >= MDM_NEIGHBOUR_HITS) return;
    const mdm_similar hit = {similarity, (int32_t)other};
    side->hit[(size_t)query * MDM_NEIGHBOUR_HITS + slot] = hit;
}

/* Four similarities of a row with the four columns from `column` on, of which `columns` are there. */
MDM_BOTH void mdm_filter_four(const mdm_tile_arguments *a, uint32_t row, uint32_t column, uint32_t columns,
                              const mdm_gpu_word *word, float least, const float *threshold) {
    for (uint32_t k = 0; k < 4; k++) {
        mdm_float_bits u;
        u.bits = word->part[k];
        if (k >= columns || !(u.value > least || u.value > threshold[k])) continue;
        if (u.value > least) mdm_note_hit(a, &a->row, row, column + k, u.value, row);
        if (u.value > threshold[k])
            mdm_note_hit(a, &a->column, column + k, row, u.value, a->row.count + column + k);
    }
}

/* Reads several rows before it looks at the first, as transfers take their time. The tile has whole groups of
 * rows, though not every row has a query. */
MDM_BOTH void mdm_filter_tile_thread(const mdm_tile_arguments *a, mdm_gpu_thread t) {
    uint32_t column = 4 * mdm_thread_number(t), row = t.block_row * MDM_FILTER_ROWS;
    if (column >= a->column.count) return;
    if (column == 0 && row == 0) a->other_counts[0] = a->other_counts[1] = 0; /* that tile has been merged */
    uint32_t columns = a->column.count - column < 4 ? a->column.count - column : 4;
    float threshold[4];
    for (uint32_t k = 0; k < 4; k++)
        threshold[k] = a->both && k < columns ? a->column.threshold[column + k] : INFINITY;
    for (uint32_t end = row + MDM_FILTER_ROWS; row < end && row < a->row.count; row += MDM_FILTER_AHEAD) {
        mdm_gpu_word word[MDM_FILTER_AHEAD];
        for (uint32_t r = 0; r < MDM_FILTER_AHEAD; r++)
            word[r] = *(const mdm_gpu_word *)(a->tile + (size_t)(row + r) * a->stride + column);
        for (uint32_t r = 0; r < MDM_FILTER_AHEAD && row + r < a->row.count; r++)
            mdm_filter_four(a, row + r, column, columns, &word[r], a->row.threshold[row + r], threshold);
    }
}

/* A query's list and its hits, where these have all found a place: a warp merges them. */
enum { MDM_WARP = 32, MDM_MERGE_WARPS = MDM_GPU_THREADS / MDM_WARP };

typedef struct mdm_merge_few {
    float threshold;
    uint32_t hits; /* 0: nothing to do */
    mdm_neighbour old[MDM_NEIGHBOUR_WIDTH];
    mdm_similar fresh[MDM_NEIGHBOUR_HITS];
} mdm_merge_few;

/* A query whose line of the tile is looked through. */
typedef struct mdm_merge_many {
    uint32_t count; /* candidates: the list's `width` and the fresh ones */
    float threshold, maximum[MDM_GPU_THREADS];
    double exact[MDM_NEIGHBOUR_WIDTH];
    mdm_similar candidate[MDM_MERGE_CANDIDATES];
} mdm_merge_many;

typedef union mdm_merge_shared {
    mdm_merge_few few[MDM_MERGE_WARPS];
    mdm_merge_many many;
} mdm_merge_shared;

/* One query's part of a tile. */
typedef struct mdm_tile_line {
    const mdm_tile_side *side;
    const int32_t *other; /* global indices of the other side */
    const float *first;   /* its similarity to the other side's first */
    size_t step;
    uint32_t query, others;
} mdm_tile_line;

MDM_BOTH mdm_tile_line mdm_line_of_tile(const mdm_tile_arguments *a, uint32_t number) {
    mdm_tile_line line;
    int is_row = number < a->row.count;
    line.query = is_row ? number : number - a->row.count;
    line.side = is_row ? &a->row : &a->column;
    line.other = is_row ? a->column.index : a->row.index;
    line.others = is_row ? a->column.count : a->row.count;
    line.first = a->tile + (is_row ? (size_t)line.query * a->stride : line.query);
    line.step = is_row ? 1 : a->stride;
    return line;
}

MDM_BOTH int mdm_is_more_similar(mdm_similar a, mdm_similar b) {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
}

/* ---- few hits: each of the list moves back by those before it, each hit counts what is before it ---- */

MDM_BOTH void mdm_load_few(const mdm_tile_arguments *a, const mdm_tile_line *line, uint32_t lane,
                           mdm_merge_few *s) {
    const mdm_neighbour *list = line->side->list + (size_t)line->query * a->width;
    const mdm_similar *hit = line->side->hit + (size_t)line->query * MDM_NEIGHBOUR_HITS;
    uint32_t hits = line->side->hits[line->query];
    if (hits > MDM_NEIGHBOUR_HITS) hits = 0; /* a block looks through its line, perhaps at this moment */
    for (uint32_t i = lane; hits > 0 && i < a->width; i += MDM_WARP) s->old[i] = list[i];
    for (uint32_t i = lane; i < hits; i += MDM_WARP) {
        s->fresh[i].similarity = hit[i].similarity;
        s->fresh[i].index = line->other[hit[i].index];
    }
    if (lane == 0) s->hits = hits;
}

MDM_BOTH void mdm_place_few(const mdm_tile_arguments *a, const mdm_tile_line *line, uint32_t lane,
                            const mdm_merge_few *s) {
    mdm_neighbour *list = line->side->list + (size_t)line->query * a->width;
    uint32_t last = a->width - 1;
    if (lane == 0) line->side->hits[line->query] = 0; /* of those with too many, too */
    if (s->hits == 0) return;
    for (uint32_t i = lane; i < a->width; i += MDM_WARP) {
        const mdm_similar mine = {s->old[i].similarity, s->old[i].index};
        uint32_t place = i;
        if (mine.index < 0) break; /* empty ones are the last */
        for (uint32_t j = 0; j < s->hits; j++) place += mdm_is_more_similar(s->fresh[j], mine);
        if (place <= last && place > i) list[place] = s->old[i];
        if (place == last) line->side->threshold[line->query] = mine.similarity;
    }
    for (uint32_t i = lane; i < s->hits; i += MDM_WARP) {
        const mdm_similar mine = s->fresh[i];
        const mdm_neighbour placed = {-2.0, mine.similarity, mine.index};
        uint32_t place = 0;
        for (uint32_t j = 0; j < a->width; j++)
            place += s->old[j].similarity > mine.similarity ||
                     (s->old[j].similarity == mine.similarity && s->old[j].index < mine.index);
        for (uint32_t j = 0; j < s->hits; j++) place += mdm_is_more_similar(s->fresh[j], mine);
        if (place <= last) list[place] = placed;
        if (place == last) line->side->threshold[line->query] = mine.similarity;
    }
}

/* ---- a line that is looked through, by a block ---- */

MDM_BOTH float mdm_similarity_in_line(const mdm_tile_arguments *a, const mdm_tile_line *line, uint32_t i) {
    return a->diagonal && i == line->query ? -INFINITY : line->first[i * line->step];
}

MDM_BOTH void mdm_add_candidate(mdm_merge_many *s, const mdm_tile_line *line, uint32_t other,
                                float similarity) {
    const mdm_similar fresh = {similarity, line->other[other]};
    s->candidate[mdm_atomic_add(&s->count, 1)] = fresh;
}

/* The list, and the greatest similarity of the thread's part of the line. */
MDM_BOTH void mdm_load_many(const mdm_tile_arguments *a, const mdm_tile_line *line, uint32_t thread,
                            mdm_merge_many *s) {
    const mdm_neighbour *list = line->side->list + (size_t)line->query * a->width;
    float greatest = -INFINITY;
    if (thread < a->width) {
        const mdm_similar old = {list[thread].similarity, list[thread].index};
        s->candidate[thread] = old;
        s->exact[thread] = list[thread].exact;
    }
    for (uint32_t i = thread; i < line->others; i += MDM_GPU_THREADS) {
        float similarity = mdm_similarity_in_line(a, line, i);
        if (similarity > greatest) greatest = similarity;
    }
    s->maximum[thread] = greatest;
    if (thread > 0) return;
    s->count = a->width;
    s->threshold = line->side->threshold[line->query];
}

/* The width-th greatest of the maxima: at least `width` similarities reach it. */
MDM_BOTH void mdm_raise_threshold(const mdm_tile_arguments *a, uint32_t thread, mdm_merge_many *s) {
    float mine = s->maximum[thread];
    uint32_t rank = 0;
    for (uint32_t i = 0; i < MDM_GPU_THREADS; i++)
        rank += s->maximum[i] > mine || (s->maximum[i] == mine && i < thread);
    if (rank == a->width - 1 && mine > s->threshold) s->threshold = mine;
}

/* Those above the threshold, and from each thread one at it, so that the list fills. */
MDM_BOTH void mdm_collect(const mdm_tile_arguments *a, const mdm_tile_line *line, uint32_t thread,
                          mdm_merge_many *s) {
    float greatest = s->maximum[thread], threshold = s->threshold;
    if (greatest == -INFINITY || greatest < threshold) return;
    for (uint32_t i = thread; i < line->others; i += MDM_GPU_THREADS) {
        float similarity = mdm_similarity_in_line(a, line, i);
        if (similarity > threshold) mdm_add_candidate(s, line, i, similarity);
        if (similarity == threshold && greatest == threshold) {
            mdm_add_candidate(s, line, i, similarity);
            return;
        }
    }
}

/* Every candidate that has fewer than `width` before it takes its place in the list. */
MDM_BOTH void mdm_place_many(const mdm_tile_arguments *a, const mdm_tile_line *line, uint32_t thread,
                             const mdm_merge_many *s) {
    for (uint32_t c = thread; c < s->count; c += MDM_GPU_THREADS) {
        mdm_similar mine = s->candidate[c];
        uint32_t rank = 0;
        if (mine.index < 0) continue;
        for (uint32_t i = 0; i < s->count && rank < a->width; i++)
            rank += mdm_is_more_similar(s->candidate[i], mine);
        if (rank >= a->width) continue;
        const mdm_neighbour placed = {c < a->width ? s->exact[c] : -2.0, mine.similarity, mine.index};
        line->side->list[(size_t)line->query * a->width + rank] = placed;
        if (rank == a->width - 1) line->side->threshold[line->query] = mine.similarity;
    }
}

/* ---- all of a tile: first those with few hits, MDM_MERGE_WARPS a block, then lines ---- */

enum { MDM_FEW_STAGES = 2, MDM_MANY_STAGES = 4 };

/* Turns of a block that takes `each` entries in a turn. */
MDM_BOTH uint32_t mdm_turns(uint32_t entries, uint32_t block, uint32_t blocks, uint32_t each) {
    return entries > block * each ? (entries - block * each + blocks * each - 1) / (blocks * each) : 0;
}

MDM_BOTH uint32_t mdm_few_stages(const mdm_tile_arguments *a, mdm_gpu_thread t) {
    return a->diagonal ? 0 : mdm_turns(a->counts[0], t.block, a->blocks, MDM_MERGE_WARPS) * MDM_FEW_STAGES;
}

MDM_BOTH uint32_t mdm_merge_tile_stages(const mdm_tile_arguments *a, mdm_gpu_thread t) {
    uint32_t lines = a->diagonal ? a->row.count : a->counts[1];
    return mdm_few_stages(a, t) + mdm_turns(lines, t.block, a->blocks, 1) * MDM_MANY_STAGES;
}

MDM_BOTH void mdm_merge_few_stage(const mdm_tile_arguments *a, mdm_gpu_thread t, mdm_merge_shared *s,
                                  uint32_t stage) {
    uint32_t warp = t.thread / MDM_WARP,
             entry = (t.block + stage / MDM_FEW_STAGES * a->blocks) * MDM_MERGE_WARPS + warp;
    if (entry >= a->counts[0]) return;
    mdm_tile_line line = mdm_line_of_tile(a, a->active[entry]);
    if (stage % MDM_FEW_STAGES == 0)
        mdm_load_few(a, &line, t.thread % MDM_WARP, &s->few[warp]);
    else
        mdm_place_few(a, &line, t.thread % MDM_WARP, &s->few[warp]);
}

MDM_BOTH void mdm_merge_many_stage(const mdm_tile_arguments *a, mdm_gpu_thread t, mdm_merge_shared *s,
                                   uint32_t stage) {
    uint32_t entry = t.block + stage / MDM_MANY_STAGES * a->blocks;
    mdm_tile_line line = mdm_line_of_tile(a, a->diagonal ? entry : a->crowded[entry]);
    switch (stage % MDM_MANY_STAGES) {
    case 0:
        mdm_load_many(a, &line, t.thread, &s->many);
        break;
    case 1:
        mdm_raise_threshold(a, t.thread, &s->many);
        break;
    case 2:
        mdm_collect(a, &line, t.thread, &s->many);
        break;
    default:
        mdm_place_many(a, &line, t.thread, &s->many);
    }
}

MDM_BOTH void mdm_merge_tile_stage(const mdm_tile_arguments *a, mdm_gpu_thread t, mdm_merge_shared *s,
                                   uint32_t stage) {
    uint32_t few = mdm_few_stages(a, t);
    if (stage < few)
        mdm_merge_few_stage(a, t, s, stage);
    else
        mdm_merge_many_stage(a, t, s, stage - few);
}

/* ---- exact similarities of the candidates that lie in a block of rows: MDM_DOT_ROWS candidates a block ----
 */

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
    case 1: /* what comes near */
        column += t.thread;
        if (column >= a->columns || a->other.kept[a->first_column + column] == self) break;
        if ((double)a->tile[(size_t)t.block * a->stride + column] +
                mdm_bound_of_bits(*a->error, a->dimension) >=
            a->limit[query])
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
