/* What every thread of the neighbour search's kernels between products does: empty lists, and a tile of
 * similarities that is filtered and merged into the lists of its rows and columns (see kernels_rows.h for the
 * stages). */
#ifndef MDM_DEVICE_CUDA_KERNELS_TILES_H
#define MDM_DEVICE_CUDA_KERNELS_TILES_H

#include "kernels_rows.h"

enum {
    MDM_NEIGHBOUR_HITS = 64, /* of a query in one tile, before the tile is looked through once more */
    MDM_TILE_ROWS = 2048,    /* at most; tiles are rows x columns similarities */
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

typedef struct mdm_similar {
    float similarity;
    int32_t index;
} mdm_similar;

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

#endif
