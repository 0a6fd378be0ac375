/* From candidates to the proven answer.
 *
 * Every candidate's cosine is computed again in double from the caller's rows, which travel once round the
 * ring. The k-th best of them is a lower limit of the true k-th similarity. A row outside a list has an
 * approximate similarity of at most the list's last, and the approximation is off by at most `error_bound`;
 * when their sum is below the limit, the answer is proven. Otherwise the query is searched a second time: now
 * everything whose approximate similarity comes within the error bound of the limit is scored exactly, which
 * proves itself, however many ties there are.
 *
 * Where only some rows may be neighbours, the second search is the only one, from no limit at all: the first
 * gains by serving both rows of a pair. */
#include "knn_internal.h"
#include <cblas.h>
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = MDM_KNN_TILE, QUERIES = 64, FIRST = 32 };

typedef struct exact_neighbour {
    double similarity;
    int32_t index;
} exact_neighbour;

static int precedes(exact_neighbour a, exact_neighbour b) {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
}

/* Puts `fresh` in its place among the first `count` of `sorted`, which has room for `limit`; returns the new
 * count. */
static int insert(exact_neighbour *sorted, int count, int limit, exact_neighbour fresh) {
    if (count == limit) {
        if (!precedes(fresh, sorted[count - 1])) return count;
        count--;
    }
    int place = count;
    for (; place > 0 && precedes(fresh, sorted[place - 1]); place--) sorted[place] = sorted[place - 1];
    sorted[place] = fresh;
    return count + 1;
}

/* How far the float product of two unit rows may be from the cosine: rounding of both rows (one unit each,
 * and one for the products of these), n units for the sum in any order (Higham, Accuracy and Stability, 3.1),
 * and a little for denormals. */
static double error_bound(int dimension) {
    double unit = FLT_EPSILON / 2, sum = (dimension + 4) * unit;
    return sum < 0.5 ? sum / (1 - sum) * 1.001 + 1e-30 : 2.0;
}

static void slice_of_chunk(const mdm_knn *knn, int hop, int64_t c, int64_t *first, int64_t *count) {
    mdm_comm_slice(knn->total, (knn->rank - hop + knn->ranks) % knn->ranks, knn->ranks, first, count);
    *first += c * knn->chunk;
    *count -= c * knn->chunk;
    if (*count > knn->chunk) *count = knn->chunk;
    if (*count < 0) *count = 0;
}

/* Calls visit for all rows of all ranks: this rank's and those that come round the ring, a chunk at a time;
 * `buffer` is room for two chunks that travel. */
typedef mdm_status visit_rows(mdm_knn *knn, const float *rows, int64_t first, int64_t count, void *context);
static mdm_status pass_round(mdm_knn *knn, float *const buffer[2], visit_rows *visit, void *context) {
    int64_t most = (knn->total + knn->ranks - 1) / knn->ranks, row = knn->dimension * (int64_t)sizeof(float);
    for (int64_t c = 0; c * knn->chunk < most; c++) {
        int64_t first, count;
        slice_of_chunk(knn, 0, c, &first, &count);
        const float *here = count ? knn->embedding + (first - knn->first) * knn->dimension : NULL;
        for (int hop = 0; hop < knn->ranks; hop++) {
            int64_t next_first = 0, next_count = 0;
            float *next = buffer[hop & 1];
            if (hop + 1 < knn->ranks) {
                slice_of_chunk(knn, hop + 1, c, &next_first, &next_count);
                MDM_TRY(mdm_comm_ring_start(knn->comm, count ? here : buffer[!(hop & 1)], count * row, next,
                                            next_count * row));
            }
            mdm_status visited = count ? visit(knn, here, first, count, context) : MDM_OK;
            if (hop + 1 < knn->ranks) MDM_TRY(mdm_comm_ring_wait(knn->comm));
            MDM_TRY(visited);
            here = next;
            first = next_first;
            count = next_count;
        }
    }
    return MDM_OK;
}

static void measure_visitors(const mdm_knn *knn, const float *rows, int64_t count, double *norm) {
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        const float *row = rows + i * knn->dimension;
        norm[i] = sqrt(knn->kernels->dot(row, row, knn->dimension));
    }
}

/* Scores the candidates that lie in the visiting rows; context is room for their lengths. */
static mdm_status score_candidates(mdm_knn *knn, const float *rows, int64_t first, int64_t count,
                                   void *context) {
    double *norm = context;
    const int32_t *kept = mdm_knn_kept(knn);
    int64_t queries = mdm_knn_kept_count(knn, knn->rank);
    mdm_status status = MDM_OK;
    measure_visitors(knn, rows, count, norm);
#pragma omp parallel for schedule(dynamic, 64)
    for (int64_t q = 0; q < queries; q++) {
        int64_t own = kept[q] - knn->first;
        for (int64_t e = q * knn->width; e < (q + 1) * knn->width; e++) {
            int64_t at = knn->list[e].index - first;
            if (knn->list[e].index >= 0 && at >= 0 && at < count)
                knn->exact[e] = mdm_knn_cosine(knn, knn->embedding + own * knn->dimension, knn->norm[own],
                                               rows + at * knn->dimension, norm[at]);
        }
        if ((q & 63) == 0 && omp_get_thread_num() == 0 && knn->ranks > 1 && status == MDM_OK)
            status = mdm_comm_poll(knn->comm);
    }
    return status;
}

static void write_result(mdm_knn *knn, int64_t own, const exact_neighbour *sorted) {
    for (int j = 0; j < knn->k; j++) {
        knn->result[own * knn->k + j] = sorted[j].index;
        knn->result_similarity[own * knn->k + j] = sorted[j].similarity;
    }
}

/* A zero row has similarity 0 to everything, so its neighbours are the first others. */
static void answer_zero_row(mdm_knn *knn, int64_t own) {
    for (int j = 0; j < knn->k; j++) {
        knn->result[own * knn->k + j] = (int32_t)(j < knn->first + own ? j : j + 1);
        knn->result_similarity[own * knn->k + j] = 0;
    }
}

/* Answers from the candidates where that is proven; returns 1 where it is not, with the limit in *limit.
 * `sorted` is room for k neighbours. */
static int answer(mdm_knn *knn, int64_t q, exact_neighbour *sorted, double *limit) {
    int64_t own = mdm_knn_kept(knn)[q] - knn->first;
    if (knn->norm[own] == 0) {
        answer_zero_row(knn, own);
        return 0;
    }
    const mdm_candidate *list = knn->list + q * knn->width;
    int count = 0;
    for (int j = 0; j < knn->width; j++)
        if (list[j].index >= 0)
            count = insert(sorted, count, knn->k,
                           (exact_neighbour){knn->exact[q * knn->width + j], list[j].index});
    *limit = sorted[knn->k - 1].similarity; /* at least k others were searched, so the list has at least k */
    write_result(knn, own, sorted);
    return list[knn->width - 1].similarity + error_bound(knn->dimension) >= *limit;
}

/* The second search. */
typedef struct second {
    int64_t count;              /* queries */
    int32_t *query;             /* their places among the searched rows */
    double *limit;              /* known lower limit of the k-th similarity */
    exact_neighbour *neighbour; /* [count, k] */
    int *found;                 /* [count] how many of them are there */
    double *norm;               /* [chunk] of the visiting rows */
    float *unit;                /* [chunk, dimension] those that take part, scaled */
    int32_t *index;             /* [chunk] and their global indices */
    int workers;
    float *tile;       /* [workers, QUERIES, dimension + TILE] queries and similarities */
    mdm_knn_hit *hits; /* [workers, TILE] */
} second;

/* The rows of a tile that may be among the k nearest of query `u`, from its similarities to `columns` of
 * them, of which the first is place `column` of the visitors. */
static void take_near(mdm_knn *knn, second *s, int64_t u, const float *scores, int64_t column, int columns,
                      const float *rows, int64_t first, mdm_knn_hit *hits) {
    int dimension = knn->dimension;
    int64_t global = mdm_knn_query(knn, s->query[u]), own = global - knn->first;
    exact_neighbour *sorted = s->neighbour + u * knn->k;
    double limit = s->limit[u];
    if (s->found[u] == knn->k && sorted[knn->k - 1].similarity > limit) limit = sorted[knn->k - 1].similarity;
    float below = nextafterf((float)(limit - error_bound(dimension)), -INFINITY);
    int64_t found = knn->kernels->scan_row(scores, columns, below, 0, hits);
    for (int64_t h = 0; h < found; h++) {
        int32_t other = s->index[column + hits[h].other];
        if (other == global) continue;
        double cosine = mdm_knn_cosine(knn, knn->embedding + own * dimension, knn->norm[own],
                                       rows + (other - first) * dimension, s->norm[other - first]);
        s->found[u] = insert(sorted, s->found[u], knn->k, (exact_neighbour){cosine, other});
    }
}

/* Queries [begin, end) against visiting tile [column, column + columns). */
static void search_tile(mdm_knn *knn, second *s, int64_t begin, int64_t end, const float *queries,
                        float *scores, mdm_knn_hit *hits, const float *rows, int64_t first, int64_t column,
                        int columns) {
    int dimension = knn->dimension, count = (int)(end - begin);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, count, columns, dimension, 1.0f, queries, dimension,
                s->unit + column * dimension, dimension, 0.0f, scores, TILE);
    for (int i = 0; i < count; i++) {
        int64_t u = begin + i;
        for (int from = 0, next; from < columns; from = next) {
            /* a few at a time until there is a limit, so that few are scored without one */
            next = s->found[u] < knn->k && from + FIRST < columns ? from + FIRST : columns;
            take_near(knn, s, u, scores + (int64_t)i * TILE + from, column + from, next - from, rows, first,
                      hits);
        }
    }
}

int64_t mdm_knn_kept_from(const mdm_knn *knn, int64_t first) {
    int64_t low = 0, high = knn->kept_start[knn->ranks];
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (knn->kept[middle] < first)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int64_t pack_visitors(mdm_knn *knn, second *s, const float *rows, int64_t first, int64_t count) {
    int64_t all = knn->kept_start[knn->ranks], low = mdm_knn_kept_from(knn, first), packed = 0;
    for (; low + packed < all && knn->kept[low + packed] < first + count; packed++)
        s->index[packed] = knn->kept[low + packed];
#pragma omp parallel for
    for (int64_t i = 0; i < packed; i++)
        mdm_knn_normalise(rows + (s->index[i] - first) * knn->dimension, s->norm[s->index[i] - first],
                          knn->dimension, s->unit + i * knn->dimension);
    return packed;
}

static mdm_status search_again(mdm_knn *knn, const float *rows, int64_t first, int64_t count, void *context) {
    second *s = context;
    int dimension = knn->dimension;
    mdm_status status = MDM_OK;
    if (s->count == 0) return MDM_OK;
    measure_visitors(knn, rows, count, s->norm);
    int64_t packed = pack_visitors(knn, s, rows, first, count);
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->workers)
    for (int64_t begin = 0; begin < s->count; begin += QUERIES) {
        int64_t end = begin + QUERIES < s->count ? begin + QUERIES : s->count;
        int worker = omp_get_thread_num();
        float *queries = s->tile + (int64_t)worker * QUERIES * (dimension + TILE);
        for (int64_t u = begin; u < end; u++)
            memcpy(queries + (u - begin) * dimension, knn->normal + (int64_t)s->query[u] * dimension,
                   (size_t)dimension * sizeof(float));
        for (int64_t column = 0; column < packed; column += TILE)
            search_tile(knn, s, begin, end, queries, queries + QUERIES * dimension, s->hits + worker * TILE,
                        rows, first, column, (int)(packed - column < TILE ? packed - column : TILE));
        if (worker == 0 && knn->ranks > 1 && status == MDM_OK) status = mdm_comm_poll(knn->comm);
    }
    return status;
}

static mdm_status allocate_second(const mdm_knn *knn, second *s) {
    s->workers = omp_get_max_threads();
    MDM_TRY(MDM_ALLOCATE(s->neighbour, s->count * knn->k, "second neighbour search"));
    MDM_TRY(MDM_ALLOCATE(s->found, s->count, "second neighbour search"));
    MDM_TRY(MDM_ALLOCATE(s->norm, knn->chunk, "second neighbour search"));
    MDM_TRY(MDM_ALLOCATE(s->unit, knn->chunk * knn->dimension, "second neighbour search"));
    MDM_TRY(MDM_ALLOCATE(s->index, knn->chunk, "second neighbour search"));
    MDM_TRY(MDM_ALLOCATE(s->tile, (int64_t)s->workers * QUERIES * (knn->dimension + TILE),
                         "second neighbour search"));
    return MDM_ALLOCATE(s->hits, (int64_t)s->workers * TILE, "second neighbour search");
}

static void release_second(second *s) {
    free(s->query);
    free(s->limit);
    free(s->neighbour);
    free(s->found);
    free(s->norm);
    free(s->unit);
    free(s->index);
    free(s->tile);
    free(s->hits);
}

/* Answers what is proven and lists the rest in s. */
static mdm_status answer_all(mdm_knn *knn, second *s) {
    int64_t queries = mdm_knn_kept_count(knn, knn->rank);
    exact_neighbour *sorted = NULL;
    MDM_TRY(MDM_ALLOCATE(s->query, queries, "unproven neighbours"));
    MDM_TRY(MDM_ALLOCATE(s->limit, queries, "unproven neighbours"));
    MDM_TRY(MDM_ALLOCATE(sorted, knn->k, "unproven neighbours"));
    for (int64_t q = 0; q < queries; q++)
        if (answer(knn, q, sorted, &s->limit[s->count])) s->query[s->count++] = (int32_t)q;
    free(sorted);
    return MDM_OK;
}

/* The queries listed in s, among the rows of all ranks. */
static mdm_status search_all_rows(mdm_knn *knn, float *const buffer[2], second *s) {
    MDM_TRY(pass_round(knn, buffer, search_again, s));
    for (int64_t u = 0; u < s->count; u++)
        write_result(knn, mdm_knn_query(knn, s->query[u]) - knn->first, s->neighbour + u * knn->k);
    return MDM_OK;
}

static mdm_status repeat(mdm_knn *knn, float *const buffer[2], second *s) {
    knn->report.repeated = s->count;
    MDM_TRY(mdm_comm_all_reduce(knn->comm, &knn->report.repeated, 1, MDM_INT64, MDM_SUM));
    if (knn->report.repeated == 0) return MDM_OK;
    MDM_TRY(mdm_comm_agree(knn->comm, allocate_second(knn, s)));
    return search_all_rows(knn, buffer, s);
}

static mdm_status allocate_buffers(const mdm_knn *knn, float *buffer[2]) {
    for (int b = 0; b < 2 && knn->ranks > 1; b++)
        MDM_TRY(MDM_ALLOCATE(buffer[b], knn->chunk * knn->dimension, "travelling embeddings"));
    return MDM_OK;
}

mdm_status mdm_knn_finish(mdm_knn *knn) {
    float *buffer[2] = {NULL, NULL};
    double *norm = NULL;
    second again = {0};
    mdm_status status = MDM_ALLOCATE(norm, knn->chunk, "exact similarities");
    if (status == MDM_OK) status = allocate_buffers(knn, buffer);
    MDM_TRY_OR(status, mdm_comm_agree(knn->comm, status), release);
    MDM_TRY_OR(status, pass_round(knn, buffer, score_candidates, norm), release);
    MDM_TRY_OR(status, mdm_comm_agree(knn->comm, answer_all(knn, &again)), release);
    status = repeat(knn, buffer, &again);
release:
    release_second(&again);
    free(norm);
    free(buffer[0]);
    free(buffer[1]);
    return status;
}

/* Every row is a query that nothing is known of. */
static mdm_status list_all(mdm_knn *knn, second *s) {
    MDM_TRY(MDM_ALLOCATE(s->query, knn->n, "neighbours among some"));
    MDM_TRY(MDM_ALLOCATE(s->limit, knn->n, "neighbours among some"));
    for (; s->count < knn->n; s->count++) {
        s->query[s->count] = (int32_t)s->count;
        s->limit[s->count] = -INFINITY;
    }
    return MDM_OK;
}

mdm_status mdm_knn_search_among(mdm_knn *knn) {
    float *buffer[2] = {NULL, NULL};
    second all = {0};
    mdm_status status = allocate_buffers(knn, buffer);
    if (status == MDM_OK) status = list_all(knn, &all);
    if (status == MDM_OK) status = allocate_second(knn, &all);
    status = mdm_comm_agree(knn->comm, status);
    if (status == MDM_OK) status = search_all_rows(knn, buffer, &all);
    release_second(&all);
    free(buffer[0]);
    free(buffer[1]);
    return status;
}
