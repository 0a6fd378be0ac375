/* The approximate search: unit rows in, each query's best candidates out.
 *
 * Every pair of tiles is multiplied once in the whole group and feeds the lists of both its sides. Within a
 * rank that is the upper triangle of tiles. Between ranks, chunks of rows travel half way round the ring
 * together with lists of their own, which go on round the other half to come home and be merged; with an even
 * number of ranks the last stop of a chunk meets a pair of ranks that both hold the pair's tiles, and the two
 * share them like a chess board. The rows of the next stop travel while those of the present one are
 * multiplied. */
#include "knn_internal.h"
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = MDM_KNN_TILE, FLUSH = 4096, HITS = FLUSH + TILE };

/* Rows with lists: this rank's, or a visiting chunk's. */
typedef struct side {
    const float *rows;
    int64_t count;
    const int32_t *index; /* global */
    mdm_candidate *list;
    omp_lock_t *lock; /* one per tile, over the tile's lists */
} side;

typedef struct worker {
    float *scores;                   /* [TILE, TILE] */
    mdm_knn_hit *hits, *column_hits; /* [HITS] each */
    float left_threshold[TILE], right_threshold[TILE];
} worker;

typedef struct search {
    mdm_knn *knn;
    int workers;
    worker *worker;
    side own, visitor;
    omp_lock_t *own_locks, *visitor_locks;
    int64_t own_lock_count, visitor_lock_count;
    float *rows[2];         /* travelling rows [chunk, dimension] */
    mdm_candidate *list[2]; /* and lists [chunk, width] */
} search;

static void insert(mdm_candidate *list, int width, float similarity, int32_t index) {
    if (!(similarity > list[width - 1].similarity)) return;
    int place = width - 1;
    for (; place > 0 && list[place - 1].similarity < similarity; place--) list[place] = list[place - 1];
    list[place] = (mdm_candidate){similarity, index};
}

static void read_thresholds(const side *s, int64_t tile, int width, float *threshold) {
    int64_t first = tile * TILE, rows = s->count - first < TILE ? s->count - first : TILE;
    omp_set_lock(&s->lock[tile]);
    for (int64_t i = 0; i < rows; i++) threshold[i] = s->list[(first + i) * width + width - 1].similarity;
    omp_unset_lock(&s->lock[tile]);
}

/* Puts the hits of tile `tile` of `s` against tile `other_tile` of `other` into the lists; reads the new
 * thresholds. */
static void insert_hits(const side *s, int64_t tile, const side *other, int64_t other_tile,
                        const mdm_knn_hit *hits, int64_t count, int width, float *threshold) {
    if (count == 0) return;
    omp_set_lock(&s->lock[tile]);
    for (int64_t h = 0; h < count; h++) {
        mdm_candidate *list = s->list + (tile * TILE + hits[h].query) * width;
        insert(list, width, hits[h].similarity, other->index[other_tile * TILE + hits[h].other]);
        threshold[hits[h].query] = list[width - 1].similarity;
    }
    omp_unset_lock(&s->lock[tile]);
}

static void multiply_tile(const search *s, worker *w, const side *left, int64_t i, const side *right,
                          int64_t j) {
    int dimension = s->knn->dimension, width = s->knn->width, same = left == right && i == j;
    int rows = (int)(left->count - i * TILE < TILE ? left->count - i * TILE : TILE);
    int columns = (int)(right->count - j * TILE < TILE ? right->count - j * TILE : TILE);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, dimension, 1.0f,
                left->rows + i * TILE * dimension, dimension, right->rows + j * TILE * dimension, dimension,
                0.0f, w->scores, TILE);
    read_thresholds(left, i, width, w->left_threshold);
    if (!same) read_thresholds(right, j, width, w->right_threshold);
    int64_t count = 0, column_count = 0;
    for (int row = 0; row < rows; row++) {
        float *scores = w->scores + (int64_t)row * TILE;
        if (same) {
            scores[row] = -INFINITY; /* nobody is a neighbour of oneself */
            count += s->knn->kernels->scan_row(scores, columns, w->left_threshold[row], row, w->hits + count);
        } else {
            count += s->knn->kernels->scan_both(scores, columns, w->left_threshold[row], w->right_threshold,
                                                row, w->hits + count, w->column_hits, &column_count);
        }
        if (count >= FLUSH || column_count >= FLUSH || row == rows - 1) {
            insert_hits(left, i, right, j, w->hits, count, width, w->left_threshold);
            insert_hits(right, j, left, i, w->column_hits, column_count, width, w->right_threshold);
            count = column_count = 0;
        }
    }
}

static int64_t tiles_of(int64_t rows) {
    return (rows + TILE - 1) / TILE;
}

/* Multiplies tiles [first, end) of `left` with those of `right`: of the same side only the upper triangle;
 * `colour` 0 or 1 takes the fields of a chess board with that parity, right's tiles being numbered from
 * `right_offset`; -1 takes all. */
static mdm_status multiply(search *s, const side *left, int64_t first, int64_t end, const side *right,
                           int colour, int64_t right_offset) {
    int64_t across = tiles_of(right->count), jobs = (end - first) * across, next = 0;
    mdm_status status = MDM_OK;
    if (jobs <= 0) return MDM_OK;
#pragma omp parallel num_threads(s->workers)
    {
        worker *w = &s->worker[omp_get_thread_num()];
        for (;;) {
            int64_t job;
#pragma omp atomic capture
            job = next++;
            if (job >= jobs) break;
            int64_t i = first + job / across, j = job % across;
            if (left == right && j < i) continue;
            if (colour >= 0 && ((i + j + right_offset) & 1) != colour) continue;
            multiply_tile(s, w, left, i, right, j);
            if (omp_get_thread_num() == 0 && s->knn->ranks > 1 && status == MDM_OK)
                status = mdm_comm_poll(s->knn->comm);
        }
    }
    return status;
}

/* Rows of chunk `c` of `rank`. */
static int64_t chunk_rows(const mdm_knn *knn, int rank, int64_t c) {
    int64_t left = mdm_knn_kept_count(knn, rank) - c * knn->chunk;
    return left < 0 ? 0 : left < knn->chunk ? left : knn->chunk;
}

/* This rank's tiles that chunk c covers against all from there on. */
static mdm_status multiply_own(search *s, int64_t c) {
    int64_t first = c * s->knn->chunk / TILE, end = first + tiles_of(chunk_rows(s->knn, s->knn->rank, c));
    return multiply(s, &s->own, first, end, &s->own, -1, 0);
}

/* Chunk c of `source`, which has come to this rank with rows[buffer] and list[buffer], against all own rows.
 */
static mdm_status multiply_visitor(search *s, int64_t c, int source, int hop, int buffer) {
    const mdm_knn *knn = s->knn;
    s->visitor = (side){.rows = s->rows[buffer],
                        .count = chunk_rows(knn, source, c),
                        .index = knn->kept + knn->kept_start[source] + c * knn->chunk,
                        .list = s->list[buffer],
                        .lock = s->visitor_locks};
    int colour = 2 * hop == knn->ranks ? knn->rank > source : -1;
    return multiply(s, &s->own, 0, tiles_of(s->own.count), &s->visitor, colour, c * knn->chunk / TILE);
}

/* The travelling lists of chunk c start empty, with this rank's k'-th similarity as what there is to beat. */
static void pack_lists(const search *s, int64_t c, mdm_candidate *list) {
    const mdm_knn *knn = s->knn;
    int64_t rows = chunk_rows(knn, knn->rank, c);
    int width = knn->width;
    for (int64_t i = 0; i < rows; i++) {
        float worst = knn->list[(c * knn->chunk + i) * width + width - 1].similarity;
        for (int j = 0; j < width; j++) list[i * width + j] = (mdm_candidate){worst, -1};
    }
}

static void merge_lists(const search *s, int64_t c, const mdm_candidate *list) {
    const mdm_knn *knn = s->knn;
    int64_t entries = chunk_rows(knn, knn->rank, c) * knn->width;
    for (int64_t e = 0; e < entries; e++)
        if (list[e].index >= 0)
            insert(knn->list + (c * knn->chunk + e / knn->width) * knn->width, knn->width, list[e].similarity,
                   list[e].index);
}

static int source_of(const mdm_knn *knn, int hop) {
    return (knn->rank - hop + knn->ranks) % knn->ranks;
}

/* Hands the lists of chunk c on: those in list[from] go, those that arrive at hop `hop` are put in the other
 * buffer. */
static mdm_status pass_lists(search *s, int64_t c, int hop, int from) {
    const mdm_knn *knn = s->knn;
    int64_t row = (int64_t)knn->width * (int64_t)sizeof(mdm_candidate);
    MDM_TRY(mdm_comm_ring_start(knn->comm, s->list[from], chunk_rows(knn, source_of(knn, hop - 1), c) * row,
                                s->list[!from], chunk_rows(knn, source_of(knn, hop), c) * row));
    return mdm_comm_ring_wait(knn->comm);
}

/* The way of chunk c of every rank: out over half the ring, its lists home over the rest. */
static mdm_status send_round(search *s, int64_t c) {
    mdm_knn *knn = s->knn;
    int half = knn->ranks / 2, buffer = 0; /* what is here lies in [buffer]; hop 0 is home */
    int64_t row = knn->dimension * (int64_t)sizeof(float);
    for (int hop = 1; hop <= half; hop++) {
        const float *out = hop == 1 ? knn->normal + c * knn->chunk * knn->dimension : s->rows[buffer];
        int64_t rows_out = chunk_rows(knn, source_of(knn, hop - 1), c);
        if (rows_out == 0) out = s->rows[buffer];
        MDM_TRY(mdm_comm_ring_start(knn->comm, out, rows_out * row, s->rows[!buffer],
                                    chunk_rows(knn, source_of(knn, hop), c) * row));
        mdm_status multiplied =
            hop == 1 ? multiply_own(s, c) : multiply_visitor(s, c, source_of(knn, hop - 1), hop - 1, buffer);
        MDM_TRY(mdm_comm_ring_wait(knn->comm));
        MDM_TRY(multiplied);
        if (hop == 1) pack_lists(s, c, s->list[buffer]);
        MDM_TRY(pass_lists(s, c, hop, buffer));
        buffer = !buffer;
    }
    if (half == 0) return multiply_own(s, c);
    MDM_TRY(multiply_visitor(s, c, source_of(knn, half), half, buffer));
    for (int hop = half + 1; hop <= knn->ranks; hop++) {
        MDM_TRY(pass_lists(s, c, hop, buffer));
        buffer = !buffer;
    }
    merge_lists(s, c, s->list[buffer]);
    return MDM_OK;
}

static mdm_status allocate_locks(omp_lock_t **locks, int64_t count, int64_t *made) {
    MDM_TRY(MDM_ALLOCATE(*locks, count, "locks of the neighbour lists"));
    for (; *made < count; ++*made) omp_init_lock(&(*locks)[*made]);
    return MDM_OK;
}

static mdm_status allocate(search *s) {
    mdm_knn *knn = s->knn;
    s->workers = omp_get_max_threads();
    MDM_TRY(MDM_ALLOCATE(s->worker, s->workers, "neighbour search"));
    for (int w = 0; w < s->workers; w++) {
        MDM_TRY(MDM_ALLOCATE(s->worker[w].scores, TILE * TILE, "tile of similarities"));
        MDM_TRY(MDM_ALLOCATE(s->worker[w].hits, HITS, "neighbour hits"));
        MDM_TRY(MDM_ALLOCATE(s->worker[w].column_hits, HITS, "neighbour hits"));
    }
    int64_t rows = mdm_knn_kept_count(knn, knn->rank);
    MDM_TRY(allocate_locks(&s->own_locks, tiles_of(rows), &s->own_lock_count));
    s->own = (side){knn->normal, rows, mdm_knn_kept(knn), knn->list, s->own_locks};
    if (knn->ranks == 1) return MDM_OK;
    MDM_TRY(allocate_locks(&s->visitor_locks, knn->chunk / TILE, &s->visitor_lock_count));
    for (int b = 0; b < 2; b++) {
        MDM_TRY(MDM_ALLOCATE(s->rows[b], knn->chunk * knn->dimension, "travelling embeddings"));
        MDM_TRY(MDM_ALLOCATE(s->list[b], knn->chunk * knn->width, "travelling neighbour lists"));
    }
    return MDM_OK;
}

static void release(search *s) {
    for (int64_t i = 0; i < s->own_lock_count; i++) omp_destroy_lock(&s->own_locks[i]);
    for (int64_t i = 0; i < s->visitor_lock_count; i++) omp_destroy_lock(&s->visitor_locks[i]);
    free(s->own_locks);
    free(s->visitor_locks);
    for (int w = 0; s->worker && w < s->workers; w++) {
        free(s->worker[w].scores);
        free(s->worker[w].hits);
        free(s->worker[w].column_hits);
    }
    free(s->worker);
    for (int b = 0; b < 2; b++) {
        free(s->rows[b]);
        free(s->list[b]);
    }
}

mdm_status mdm_knn_search(mdm_knn *knn) {
    search s = {.knn = knn};
    int64_t most = 0;
    for (int r = 0; r < knn->ranks; r++)
        if (mdm_knn_kept_count(knn, r) > most) most = mdm_knn_kept_count(knn, r);
    mdm_status status = mdm_comm_agree(knn->comm, allocate(&s));
    for (int64_t c = 0; status == MDM_OK && c * knn->chunk < most; c++) status = send_round(&s, c);
    release(&s);
    return status;
}
