/* The neighbour search on a CUDA device: from rows to tiles of similarities, lists and answers.
 *
 * Own rows against own rows is symmetric. First every tile on the diagonal fills the lists of its rows; then
 * the tiles right of it, each multiplied once, serve the lists of their rows and of their columns. A tile is
 * written by a product, stays in the second-level cache, and is read by a filter that compares each
 * similarity with the least of two lists and notes the few hits; a kernel merges these, a warp to a query.
 * Where a query has more hits than there is room for, as it may when rows come sorted by class, a block looks
 * through its line of the tile instead, so nothing is lost. Everything is queued; the host waits in measure,
 * answer and read alone. */
#include "mdm/device/neighbours.h"
#include "device.h"
#include <stdlib.h>
#include <string.h>

struct mdm_neighbours {
    mdm_gpu *gpu;
    mdm_neighbours_shape shape;
    uint32_t padded, width, tile_rows, tile_columns;
    mdm_gpu_product *square, *oblong; /* tiles of tile_rows x tile_rows, and x tile_columns */
    void *memory;                     /* everything below but the second search's, in one piece */
    mdm_row_block own, visitors;
    uint64_t *hash;
    float *tile, *threshold;
    mdm_neighbour *list;
    mdm_similar *hit; /* of the tile's rows, then its columns */
    uint32_t *hits, *active, *crowded, *counters;
    int turn;      /* which of the two pairs of counters the next tile takes */
    int64_t tiles; /* that were multiplied in the first search */
    int32_t *result;
    double *result_similarity, *limit;
    uint32_t *unproven;
    float *score;
    int64_t unproven_count;
    void *again;
    mdm_neighbour *again_list;
    uint16_t *again_unit;
};

/* counters[]: of a tile there are two, of active and of crowded queries, for each turn */
enum { ERROR, UNPROVEN, OF_TILE, COUNTERS = OF_TILE + 2 * 2 };

static int64_t round_up(int64_t value, int64_t unit) {
    return (value + unit - 1) / unit * unit;
}

/* ---- memory: one piece, laid out by the same function that tells its size ---- */

typedef struct layout {
    char *memory; /* NULL while measuring */
    size_t bytes;
} layout;

static void *lay(layout *l, int64_t count, size_t size) {
    void *place = l->memory ? l->memory + l->bytes : NULL;
    l->bytes += (size_t)round_up((int64_t)((size_t)count * size), 256);
    return place;
}

/* Unit rows are padded to whole tiles. */
static void lay_block(layout *l, const mdm_neighbours *n, int64_t rows, mdm_row_block *block) {
    block->norm = lay(l, rows, sizeof *block->norm);
    block->unit = lay(l, (rows + n->tile_rows + n->tile_columns) * n->padded, sizeof *block->unit);
    block->kept = lay(l, rows, sizeof *block->kept);
}

static size_t lay_out(mdm_neighbours *n) {
    layout l = {n->memory, 0};
    int64_t rows = n->shape.rows, lines = n->tile_rows + n->tile_columns;
    n->counters = lay(&l, COUNTERS, sizeof *n->counters);
    lay_block(&l, n, rows, &n->own);
    if (n->shape.visitors > 0) lay_block(&l, n, n->shape.visitors, &n->visitors);
    n->hash = lay(&l, 2 * rows, sizeof *n->hash);
    n->tile = lay(&l, (int64_t)n->tile_rows * n->tile_columns, sizeof *n->tile);
    n->threshold = lay(&l, rows + lines, sizeof *n->threshold);
    n->list = lay(&l, rows * n->width, sizeof *n->list);
    n->hit = lay(&l, lines * MDM_NEIGHBOUR_HITS, sizeof *n->hit);
    n->hits = lay(&l, lines, sizeof *n->hits);
    n->active = lay(&l, lines, sizeof *n->active);
    n->crowded = lay(&l, lines, sizeof *n->crowded);
    n->result = lay(&l, rows * n->shape.k, sizeof *n->result);
    n->result_similarity = lay(&l, rows * n->shape.k, sizeof *n->result_similarity);
    n->limit = lay(&l, rows, sizeof *n->limit);
    n->unproven = lay(&l, rows, sizeof *n->unproven);
    n->score = lay(&l, rows, sizeof *n->score);
    return l.bytes;
}

static uint32_t tile_side(int64_t wanted, int64_t most, int64_t rows) {
    if (wanted > 0) return (uint32_t)wanted;
    int64_t side = round_up(rows > 0 ? rows : 1, MDM_TILE_ALIGNMENT);
    return (uint32_t)(side < most ? side : most);
}

static mdm_status plan_tile(mdm_neighbours *n, uint32_t columns, mdm_gpu_product **product) {
    const mdm_product_shape shape = {.form = MDM_PRODUCT_NT,
                                     .precision = MDM_FP16,
                                     .m = (int)n->tile_rows,
                                     .n = (int)columns,
                                     .k = (int)n->padded};
    return mdm_gpu_plan_product(n->gpu, &shape, product);
}

static mdm_status start(mdm_neighbours *n) {
    int64_t longest = n->shape.rows > n->shape.visitors ? n->shape.rows : n->shape.visitors;
    n->padded = (uint32_t)round_up(n->shape.dimension, 8);
    n->width = (uint32_t)n->shape.k + MDM_NEIGHBOUR_SPARE;
    n->tile_rows = tile_side(n->shape.tile_rows, MDM_TILE_ROWS, n->shape.rows);
    n->tile_columns = tile_side(n->shape.tile_columns, MDM_TILE_COLUMNS, longest);
    MDM_TRY(plan_tile(n, n->tile_rows, &n->square));
    MDM_TRY(plan_tile(n, n->tile_columns, &n->oblong));
    MDM_TRY(mdm_gpu_allocate(n->gpu, lay_out(n), "the neighbour search", &n->memory));
    lay_out(n);
    return MDM_OK;
}

mdm_status mdm_neighbours_create(mdm_device *device, const mdm_neighbours_shape *shape, const float *rows,
                                 mdm_neighbours **neighbours) {
    mdm_neighbours *n;
    *neighbours = NULL;
    MDM_TRY(MDM_ALLOCATE(n, 1, "the neighbour search"));
    n->gpu = mdm_cuda(device)->gpu;
    n->shape = *shape;
    mdm_status status = start(n);
    if (status != MDM_OK) {
        mdm_neighbours_destroy(n);
        return status;
    }
    n->own.row = rows;
    n->own.first = shape->first;
    n->own.count = (uint32_t)shape->rows;
    *neighbours = n;
    return MDM_OK;
}

void mdm_neighbours_destroy(mdm_neighbours *n) {
    if (!n) return;
    mdm_gpu_free(n->gpu, n->again);
    mdm_gpu_free(n->gpu, n->memory);
    free(n);
}

/* ---- rows ---- */

static uint32_t blocks_of_rows(int64_t rows) {
    return (uint32_t)((rows + MDM_DOT_ROWS - 1) / MDM_DOT_ROWS);
}

static void measure(mdm_neighbours *n, const mdm_row_block *block, uint64_t *hash) {
    mdm_measure_arguments a = {block->row, block->norm, hash, block->count, (uint32_t)n->shape.dimension};
    mdm_gpu_measure(n->gpu, blocks_of_rows(a.count), 1, &a);
}

mdm_status mdm_neighbours_measure(mdm_neighbours *n, double *norm, uint64_t *hash) {
    measure(n, &n->own, n->hash);
    MDM_TRY(mdm_gpu_download(n->gpu, norm, n->own.norm, n->own.count * sizeof *norm));
    return mdm_gpu_download(n->gpu, hash, n->hash, 2 * n->own.count * sizeof *hash);
}

static mdm_status pack(mdm_neighbours *n, mdm_row_block *block, const int32_t *kept, int64_t count) {
    block->kept_count = (uint32_t)count;
    if (count > 0) MDM_TRY(mdm_gpu_upload(n->gpu, block->kept, kept, (size_t)count * sizeof *kept));
    mdm_pack_arguments a = {*block, n->counters + ERROR, (uint32_t)n->shape.dimension, n->padded};
    mdm_gpu_pack(n->gpu, blocks_of_rows(count), 1, &a);
    return MDM_OK;
}

/* The scratch behind the rows that are kept may hold those of a longer block: finite, and passed over. */
static mdm_status receive(mdm_neighbours *n, const mdm_visiting_rows *rows) {
    n->visitors.row = rows->row;
    n->visitors.first = rows->first;
    n->visitors.count = (uint32_t)rows->count;
    measure(n, &n->visitors, NULL);
    return pack(n, &n->visitors, rows->kept, rows->kept_count);
}

/* ---- the first search ---- */

/* Rows [from, from + count) of own, and their lists; `place` among the tile's lines. */
static mdm_tile_side side_of(const mdm_neighbours *n, int64_t from, int64_t count, uint32_t place) {
    return (mdm_tile_side){.list = n->list + from * n->width,
                           .threshold = n->threshold + from,
                           .index = n->own.kept + from,
                           .hit = n->hit + (size_t)place * MDM_NEIGHBOUR_HITS,
                           .hits = n->hits + place,
                           .count = (uint32_t)count};
}

/* Multiplies units [tile_rows] of own from `row` on with those of `other` from `column` on. */
static mdm_status multiply(mdm_neighbours *n, const uint16_t *units, const mdm_row_block *other,
                           int64_t column, int64_t columns, uint32_t *stride) {
    int is_square = columns <= n->tile_rows;
    *stride = is_square ? n->tile_rows : n->tile_columns;
    return mdm_gpu_multiply(n->gpu, is_square ? n->square : n->oblong, 1.0f, units,
                            other->unit + column * n->padded, 0.0f, NULL, n->tile);
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* So many blocks that each has work once, unless lines are looked through. */
static void merge(mdm_neighbours *n, mdm_tile_arguments *a, uint32_t most) {
    a->blocks = most < MDM_MERGE_BLOCKS ? most : MDM_MERGE_BLOCKS;
    mdm_gpu_merge_tile(n->gpu, a->blocks, 1, a);
}

/* Rows from `row` on with each other. */
static mdm_status search_diagonal(mdm_neighbours *n, int64_t row) {
    int64_t rows = least(n->tile_rows, n->own.kept_count - row);
    mdm_tile_arguments a = {.tile = n->tile,
                            .row = side_of(n, row, rows, 0),
                            .column = side_of(n, row, rows, 0),
                            .width = n->width,
                            .diagonal = 1};
    MDM_TRY(multiply(n, n->own.unit + row * n->padded, &n->own, row, rows, &a.stride));
    merge(n, &a, a.row.count);
    n->tiles++;
    return MDM_OK;
}

/* Rows from `row` on with the rows of `other` from `column` on; the lists of these are served too where they
 * are own. */
static mdm_status search_tile(mdm_neighbours *n, int64_t row, const mdm_row_block *other, int64_t column) {
    int64_t rows = least(n->tile_rows, n->own.kept_count - row),
            columns = least(n->tile_columns, other->kept_count - column);
    int both = other == &n->own;
    mdm_tile_arguments a = {.tile = n->tile,
                            .row = side_of(n, row, rows, 0),
                            .column = side_of(n, both ? column : 0, columns, n->tile_rows),
                            .active = n->active,
                            .crowded = n->crowded,
                            .counts = n->counters + OF_TILE + 2 * n->turn,
                            .other_counts = n->counters + OF_TILE + 2 * !n->turn,
                            .width = n->width,
                            .both = both};
    if (!both) a.column.index = other->kept + column;
    MDM_TRY(multiply(n, n->own.unit + row * n->padded, other, column, columns, &a.stride));
    mdm_gpu_filter_tile(n->gpu, mdm_blocks_for((size_t)(columns + 3) / 4),
                        (uint32_t)((rows + MDM_FILTER_ROWS - 1) / MDM_FILTER_ROWS), &a);
    uint32_t lines = a.row.count + (both ? a.column.count : 0);
    merge(n, &a, (lines + MDM_MERGE_WARPS - 1) / MDM_MERGE_WARPS);
    n->turn = !n->turn;
    n->tiles++;
    return MDM_OK;
}

static void rescore(mdm_neighbours *n, const mdm_row_block *other) {
    mdm_rescore_arguments a = {n->own, *other, n->list, (uint32_t)n->shape.dimension, n->width};
    mdm_gpu_rescore(n->gpu, blocks_of_rows((int64_t)n->own.kept_count * n->width), 1, &a);
}

mdm_status mdm_neighbours_begin(mdm_neighbours *n, const int32_t *kept, int64_t count) {
    MDM_TRY(pack(n, &n->own, kept, count));
    mdm_clear_arguments clear = {n->list, n->threshold, (uint32_t)count,
                                 (uint32_t)n->shape.rows + n->tile_rows + n->tile_columns, n->width};
    mdm_gpu_clear_lists(n->gpu, mdm_blocks_for(clear.all), 1, &clear);
    for (int64_t row = 0; row < count; row += n->tile_rows) MDM_TRY(search_diagonal(n, row));
    return MDM_OK;
}

mdm_status mdm_neighbours_search_own(mdm_neighbours *n) {
    int64_t count = n->own.kept_count;
    for (int64_t row = 0; row < count; row += n->tile_rows)
        for (int64_t column = row + n->tile_rows; column < count; column += n->tile_columns)
            MDM_TRY(search_tile(n, row, &n->own, column));
    rescore(n, &n->own);
    return MDM_OK;
}

mdm_status mdm_neighbours_search_visitors(mdm_neighbours *n, const mdm_visiting_rows *visitors) {
    MDM_TRY(receive(n, visitors));
    for (int64_t row = 0; row < n->own.kept_count; row += n->tile_rows)
        for (int64_t column = 0; column < n->visitors.kept_count; column += n->tile_columns)
            MDM_TRY(search_tile(n, row, &n->visitors, column));
    rescore(n, &n->visitors);
    return MDM_OK;
}

int64_t mdm_neighbours_tiles(const mdm_neighbours *n) {
    return n->tiles;
}

/* ---- answers ---- */

static uint32_t blocks_of(int64_t threads) {
    return mdm_blocks_for((size_t)threads);
}

mdm_status mdm_neighbours_answer(mdm_neighbours *n, int64_t *unproven) {
    uint32_t count = 0;
    mdm_answer_arguments a = {.own = n->own,
                              .list = n->list,
                              .threshold = n->threshold,
                              .error = n->counters + ERROR,
                              .result = n->result,
                              .result_similarity = n->result_similarity,
                              .limit = n->limit,
                              .unproven = n->unproven,
                              .unproven_count = n->counters + UNPROVEN,
                              .dimension = (uint32_t)n->shape.dimension,
                              .width = n->width,
                              .k = (uint32_t)n->shape.k};
    mdm_gpu_answer(n->gpu, blocks_of((int64_t)n->own.kept_count * n->width), 1, &a);
    MDM_TRY(mdm_gpu_download(n->gpu, &count, n->counters + UNPROVEN, sizeof count));
    *unproven = n->unproven_count = count;
    return MDM_OK;
}

mdm_status mdm_neighbours_again_begin(mdm_neighbours *n) {
    layout l = {NULL, 0};
    for (int pass = 0; pass < 2; pass++) {
        l = (layout){n->again, 0};
        n->again_list = lay(&l, n->unproven_count * n->shape.k, sizeof *n->again_list);
        n->again_unit = lay(&l, (int64_t)n->tile_rows * n->padded, sizeof *n->again_unit);
        if (pass == 0) MDM_TRY(mdm_gpu_allocate(n->gpu, l.bytes, "the second neighbour search", &n->again));
    }
    mdm_clear_arguments clear = {n->again_list, NULL, (uint32_t)n->unproven_count,
                                 (uint32_t)n->unproven_count, (uint32_t)n->shape.k};
    mdm_gpu_clear_lists(n->gpu, mdm_blocks_for(clear.all), 1, &clear);
    return MDM_OK;
}

mdm_status mdm_neighbours_begin_among(mdm_neighbours *n, const int32_t *all, int64_t count) {
    double *limit = NULL;
    uint32_t *query = NULL;
    mdm_status status = MDM_ALLOCATE(limit, count, "neighbours among some");
    if (status == MDM_OK) status = MDM_ALLOCATE(query, count, "neighbours among some");
    for (int64_t i = 0; status == MDM_OK && i < count; i++) {
        limit[i] = -2.0; /* below every cosine, by more than the bound */
        query[i] = (uint32_t)i;
    }
    if (status == MDM_OK) status = pack(n, &n->own, all, count);
    if (status == MDM_OK && count > 0)
        status = mdm_gpu_upload(n->gpu, n->limit, limit, (size_t)count * sizeof *limit);
    if (status == MDM_OK && count > 0)
        status = mdm_gpu_upload(n->gpu, n->unproven, query, (size_t)count * sizeof *query);
    free(limit);
    free(query);
    MDM_TRY(status);
    n->unproven_count = count;
    return mdm_neighbours_again_begin(n);
}

static mdm_status search_again(mdm_neighbours *n, const mdm_row_block *other) {
    mdm_search_again_arguments a = {.tile = n->tile,
                                    .own = n->own,
                                    .other = *other,
                                    .limit = n->limit,
                                    .error = n->counters + ERROR,
                                    .dimension = (uint32_t)n->shape.dimension,
                                    .k = (uint32_t)n->shape.k};
    for (int64_t first = 0; first < n->unproven_count; first += n->tile_rows) {
        uint32_t count = (uint32_t)least(n->tile_rows, n->unproven_count - first);
        mdm_gather_units_arguments gather = {n->own.unit, n->unproven + first, n->again_unit, count,
                                             n->padded};
        mdm_gpu_gather_units(n->gpu, mdm_blocks_for((size_t)count * (n->padded / 8)), 1, &gather);
        a.unproven = n->unproven + first;
        a.list = n->again_list + first * n->shape.k;
        for (int64_t column = 0; column < other->kept_count; column += n->tile_columns) {
            a.first_column = (uint32_t)column;
            a.columns = (uint32_t)least(n->tile_columns, other->kept_count - column);
            MDM_TRY(multiply(n, n->again_unit, other, column, a.columns, &a.stride));
            mdm_gpu_search_again(n->gpu, count, 1, &a);
        }
    }
    return MDM_OK;
}

mdm_status mdm_neighbours_again_own(mdm_neighbours *n) {
    return search_again(n, &n->own);
}

mdm_status mdm_neighbours_again_visitors(mdm_neighbours *n, const mdm_visiting_rows *visitors) {
    MDM_TRY(receive(n, visitors));
    return search_again(n, &n->visitors);
}

void mdm_neighbours_again_end(mdm_neighbours *n) {
    mdm_take_again_arguments a = {.own = n->own,
                                  .unproven = n->unproven,
                                  .list = n->again_list,
                                  .result = n->result,
                                  .result_similarity = n->result_similarity,
                                  .count = (uint32_t)n->unproven_count,
                                  .k = (uint32_t)n->shape.k};
    mdm_gpu_take_again(n->gpu, blocks_of(n->unproven_count * n->shape.k), 1, &a);
    mdm_gpu_free(n->gpu, n->again);
    n->again = NULL;
}

mdm_status mdm_neighbours_read(mdm_neighbours *n, float *score, int32_t *index, double *similarity) {
    size_t rows = n->own.count, entries = rows * (size_t)n->shape.k;
    mdm_mean_distance_arguments a = {n->own, n->result_similarity, n->score, (uint32_t)n->shape.k};
    if (rows == 0) return MDM_OK;
    if (score) {
        mdm_gpu_mean_distance(n->gpu, mdm_blocks_for(n->own.kept_count), 1, &a);
        MDM_TRY(mdm_gpu_download(n->gpu, score, n->score, rows * sizeof *score));
    }
    if (index) MDM_TRY(mdm_gpu_download(n->gpu, index, n->result, entries * sizeof *index));
    if (similarity)
        MDM_TRY(mdm_gpu_download(n->gpu, similarity, n->result_similarity, entries * sizeof *similarity));
    return MDM_OK;
}
