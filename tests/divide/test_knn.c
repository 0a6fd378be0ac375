/* Nearest neighbours against the reference's numbers and against an exhaustive search in double, on several
 * ranks. */
#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "knn_internal.h"
#include "mdm/base/random.h"
#include "mdm/comm/comm.h"
#include "mdm/divide/knn.h"
#include "test_device.h"

static mdm_comm *comm;
static mdm_device *device;

typedef struct answer {
    int64_t first, n;
    float *score, *similarity;
    int64_t *neighbour;
    mdm_knn_report report;
} answer;

static void release(answer *a) {
    free(a->score);
    free(a->similarity);
    free(a->neighbour);
}

/* Searches this rank's part of `embedding` [total, dimension] on the CPU (`on` NULL) or a device, there in
 * tiles of a given size (0: its own choice), among the rows marked in `among` (NULL: all). */
static answer search_on(mdm_device *on, int tile_rows, int tile_columns, const float *embedding,
                        int64_t total, int dimension, int k, const uint8_t *among) {
    answer a;
    mdm_comm_my_slice(comm, total, &a.first, &a.n);
    a.score = calloc((size_t)a.n + 1, sizeof *a.score);
    a.similarity = calloc((size_t)(a.n * k) + 1, sizeof *a.similarity);
    a.neighbour = calloc((size_t)(a.n * k) + 1, sizeof *a.neighbour);
    size_t bytes = (size_t)(a.n * dimension) * sizeof(float);
    float *mine = calloc(bytes / sizeof(float) + 1, sizeof *mine); /* so that ASan sees overruns */
    memcpy(mine, embedding + a.first * dimension, bytes);
    float *rows = on ? test_device_copy(on, mine, bytes) : mine;
    mdm_status status = mdm_knn_scores_tiled(comm, on, rows, total, dimension, k, among, tile_rows,
                                             tile_columns, a.score, a.neighbour, a.similarity, &a.report);
    if (status != MDM_OK) print_error("%s\n", mdm_last_message());
    assert_int_equal(status, MDM_OK);
    if (on) assert_int_equal(mdm_device_download(on, mine, rows, bytes), MDM_OK);
    assert_memory_equal(mine, embedding + a.first * dimension, bytes);
    if (on) mdm_device_free(on, rows);
    free(mine);
    return a;
}

static void assert_same(const answer *a, const answer *b, int k) {
    assert_memory_equal(b->neighbour, a->neighbour, (size_t)(a->n * k) * sizeof *a->neighbour);
    assert_memory_equal(b->similarity, a->similarity, (size_t)(a->n * k) * sizeof *a->similarity);
    assert_memory_equal(b->score, a->score, (size_t)a->n * sizeof *a->score);
    assert_int_equal(b->report.searched, a->report.searched);
}

/* Searches on the device under test; a CUDA device must answer as the CPU does, to the bit, in tiles of any
 * size, whether it is asked for neighbours or for scores alone. */
static answer search_among(const float *embedding, int64_t total, int dimension, int k,
                           const uint8_t *among) {
    answer a = search_on(NULL, 0, 0, embedding, total, dimension, k, among);
    if (!test_device_is_cuda()) return a;
    const int tiles[][2] = {{64, 192}, {0, 0}};
    for (int t = getenv("MDM_TEST_GROUP") ? 1 : 0; t < 2; t++) { /* over NCCL the ring alone is of interest */
        answer b = search_on(device, tiles[t][0], tiles[t][1], embedding, total, dimension, k, among);
        assert_same(&a, &b, k);
        release(&a);
        a = b;
    }
    return a;
}

static answer search(const float *embedding, int64_t total, int dimension, int k) {
    return search_among(embedding, total, dimension, k, NULL);
}

/* Exhaustive search in double by definition; the same order of summation as the room's for rows of whole
 * numbers, whose products and sums are exact. */
static void assert_exhaustive_among(const answer *a, const float *embedding, int64_t total, int dimension,
                                    int k, const uint8_t *among) {
    double *norm = calloc((size_t)total, sizeof *norm), *cosine = calloc((size_t)total, sizeof *cosine);
    for (int64_t i = 0; i < total; i++) {
        for (int d = 0; d < dimension; d++)
            norm[i] += (double)embedding[i * dimension + d] * embedding[i * dimension + d];
        norm[i] = sqrt(norm[i]);
    }
    for (int64_t i = a->first; i < a->first + a->n; i++) {
        for (int64_t j = 0; j < total; j++) {
            double dot = 0;
            for (int d = 0; d < dimension; d++)
                dot += (double)embedding[i * dimension + d] * embedding[j * dimension + d];
            cosine[j] = norm[i] > 0 && norm[j] > 0 ? fmin(dot / (norm[i] * norm[j]), 1) : 0;
            if (among && !among[j]) cosine[j] = -INFINITY;
        }
        cosine[i] = -INFINITY;
        double distance = 0;
        for (int n = 0; n < k; n++) {
            int64_t best = 0;
            for (int64_t j = 1; j < total; j++)
                if (cosine[j] > cosine[best]) best = j;
            int64_t at = (i - a->first) * k + n;
            if (a->neighbour[at] != best)
                fail_msg("neighbour %d of sample %lld is %lld, expected %lld", n, (long long)i,
                         (long long)a->neighbour[at], (long long)best);
            assert_true(fabs(a->similarity[at] - cosine[best]) < 1e-6);
            distance += 1 - cosine[best];
            cosine[best] = -INFINITY;
        }
        assert_true(fabs(a->score[i - a->first] - distance / k) < 1e-6);
    }
    free(norm);
    free(cosine);
}

static void assert_exhaustive(const answer *a, const float *embedding, int64_t total, int dimension, int k) {
    assert_exhaustive_among(a, embedding, total, dimension, k, NULL);
}

static void check_golden(const char *group, int dimension, int k) {
    char path[128];
    int64_t count;
    snprintf(path, sizeof path, "%s/embedding", group);
    float *embedding = golden_floats(path, &count);
    int64_t total = count / dimension;
    snprintf(path, sizeof path, "%s/score", group);
    float *score = golden_floats(path, NULL);
    snprintf(path, sizeof path, "%s/similarity", group);
    float *similarity = golden_floats(path, NULL);
    snprintf(path, sizeof path, "%s/neighbours", group);
    int64_t *neighbour = golden_longs(path, NULL);
    answer a = search(embedding, total, dimension, k);
    assert_close(a.score, score + a.first, a.n, 1e-6, 0, "score");
    assert_close(a.similarity, similarity + a.first * k, a.n * k, 1e-6, 0, "similarity");
    assert_memory_equal(a.neighbour, neighbour + a.first * k, (size_t)(a.n * k) * sizeof *neighbour);
    release(&a);
    free(embedding);
    free(score);
    free(similarity);
    free(neighbour);
}

static void golden_neighbours_and_scores_are_met(void **state) {
    (void)state;
    check_golden("/knn/n257_d16_k10", 16, 10);
    check_golden("/knn/n1000_d64_k10", 64, 10);
    check_golden("/knn/n513_d128_k5", 128, 5);
}

static float *random_embeddings(int64_t total, int dimension, uint32_t range, uint32_t purpose) {
    float *embedding = calloc((size_t)(total * dimension), sizeof *embedding);
    mdm_random random = mdm_random_stream(3, MDM_RANDOM_TEST, purpose, 0, 0);
    for (int64_t e = 0; e < total * dimension; e++)
        embedding[e] = range ? (float)mdm_random_below(&random, range) : (float)mdm_random_normal(&random);
    return embedding;
}

/* Every other row becomes the first one, so many of them. */
static void make_identical(float *embedding, int dimension, int count) {
    for (int i = 1; i < count; i++)
        memcpy(embedding + 2 * (int64_t)i * dimension, embedding, sizeof(float) * (size_t)dimension);
}

/* More rows than a tile, than a chunk, and a ragged end. */
static void many_rows_are_searched_exhaustively_on_any_number_of_ranks(void **state) {
    (void)state;
    const int64_t totals[] = {2900, 1025, 37};
    for (int t = 0; t < 3; t++) {
        float *embedding = random_embeddings(totals[t], 24, 0, (uint32_t)t);
        answer a = search(embedding, totals[t], 24, 7);
        assert_exhaustive(&a, embedding, totals[t], 24, 7);
        assert_true(a.report.repeated < totals[t] / 20);
        release(&a);
        free(embedding);
    }
}

static void fewer_rows_than_ranks_and_every_other_row_as_neighbour_work(void **state) {
    (void)state;
    float *embedding = random_embeddings(20, 5, 0, 9);
    const int64_t totals[] = {2, 3, 20};
    for (int t = 0; t < 3; t++) {
        answer a = search(embedding, totals[t], 5, (int)totals[t] - 1);
        assert_exhaustive(&a, embedding, totals[t], 5, (int)totals[t] - 1);
        release(&a);
    }
    free(embedding);
}

/* Rows of few small whole numbers: similarities tie by the hundred and among rows that are not identical. */
static void ties_are_broken_by_lower_index(void **state) {
    (void)state;
    float *embedding = random_embeddings(1500, 6, 3, 20);
    answer a = search(embedding, 1500, 6, 10);
    /* Scaled copies tie in exact arithmetic; rounding of the lengths may part them, the same way on any
     * number of ranks. */
    assert_exhaustive(&a, embedding, 1500, 6, 10);
    release(&a);
    free(embedding);
}

/* Rows of a few directions and a hundred lengths: more neighbours tie than any list of candidates holds. */
static void more_ties_than_candidates_are_searched_again(void **state) {
    (void)state;
    float *embedding = random_embeddings(2000, 6, 5, 21);
    for (int64_t i = 20; i < 2000; i++)
        for (int d = 0; d < 6; d++) embedding[i * 6 + d] = embedding[i % 20 * 6 + d] * (float)(1 + i / 20);
    answer a = search(embedding, 2000, 6, 10);
    assert_exhaustive(&a, embedding, 2000, 6, 10);
    assert_true(a.report.repeated > 1900);
    release(&a);
    free(embedding);
}

/* Rows sorted by class, as folders of pictures are read, so that the neighbours of many come all at once, in
 * the part of a tile that nobody expected to matter. */
static void sorted_classes_with_tight_clusters_are_searched_exhaustively(void **state) {
    (void)state;
    enum { TOTAL = 1700, D = 16, CLASS = 170 };
    float *embedding = random_embeddings(TOTAL, D, 0, 22);
    for (int64_t i = 0; i < TOTAL; i++)
        for (int d = 0; d < D; d++)
            embedding[i * D + d] = 0.1f * embedding[i * D + d] + (d == i / CLASS ? 1.0f : 0.2f);
    answer a = search(embedding, TOTAL, D, 10);
    assert_exhaustive(&a, embedding, TOTAL, D, 10);
    assert_true(a.report.repeated < TOTAL / 10);
    release(&a);
    free(embedding);
}

/* Pairs of clusters of rows that single precision tells apart and half precision does not: those that the
 * product takes for the nearest are not, and only the bound of its error says so. */
static void rows_that_half_precision_cannot_tell_apart_are_found(void **state) {
    (void)state;
    enum { TOTAL = 1200, D = 32, CLUSTER = 120 };
    float *embedding = random_embeddings(TOTAL, D, 0, 23);
    for (int64_t i = 0; i < TOTAL; i++)
        for (int d = 0; d < D; d++)
            embedding[i * D + d] =
                embedding[i / CLUSTER * CLUSTER * D + d] + (i % CLUSTER ? 4e-3f * embedding[i * D + d] : 0);
    answer a = search(embedding, TOTAL, D, 10);
    assert_exhaustive(&a, embedding, TOTAL, D, 10);
    if (test_device_is_cuda()) assert_true(a.report.repeated > TOTAL / 2);
    release(&a);
    free(embedding);
}

static void thousands_of_identical_rows_are_answered_without_searching_them(void **state) {
    (void)state;
    enum { TOTAL = 6000, D = 32, K = 10 };
    float *embedding = random_embeddings(TOTAL, D, 0, 30);
    for (int64_t i = 0; i < TOTAL; i++)
        if (i % 3)
            memcpy(embedding + i * D, embedding, D * sizeof(float)); /* 0 and 4000 more are one class */
    answer a = search(embedding, TOTAL, D, K);
    assert_int_equal(a.report.searched, 1999 + K + 1);
    assert_true(a.report.repeated < 100);
    const int64_t twins[K + 1] = {0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14};
    for (int64_t i = a.first; i < a.first + a.n; i++) {
        if (i % 3 == 0 && i > 0) continue;
        int next = 0;
        for (int j = 0; j < K; j++, next++) {
            if (twins[next] == i) next++;
            assert_int_equal(a.neighbour[(i - a.first) * K + j], twins[next]);
        }
        assert_true(fabsf(a.score[i - a.first]) < 1e-6f);
    }
    release(&a);
    for (int64_t i = 0; i < TOTAL; i++)
        memcpy(embedding + i * D, embedding, D * sizeof(float)); /* a collapsed network */
    a = search(embedding, TOTAL, D, K);
    assert_int_equal(a.report.searched, K + 1);
    for (int64_t i = 0; i < a.n * K; i++) assert_true(a.neighbour[i] <= K);
    release(&a);
    free(embedding);
}

static void some_identical_rows_give_the_exhaustive_answer(void **state) {
    (void)state;
    float *embedding = random_embeddings(900, 8, 0, 31);
    for (int64_t i = 0; i < 900; i++)
        if (i % 5 < 3) memcpy(embedding + i * 8, embedding + i % 23 * 8, 8 * sizeof(float));
    answer a = search(embedding, 900, 8, 4);
    for (int64_t i = 0; i < a.n; i++)
        for (int j = 1; j < 4; j++) { /* ordered, distinct and not oneself */
            int64_t at = i * 4 + j;
            assert_true(a.similarity[at] <= a.similarity[at - 1]);
            assert_true(a.neighbour[at] != a.neighbour[at - 1] && a.neighbour[at] != a.first + i);
        }
    assert_exhaustive(&a, embedding, 900, 8, 4);
    release(&a);
    free(embedding);
}

/* More of them than a place of the count of rows holds. */
static void hundreds_of_identical_rows_are_told_from_hundreds_and_one(void **state) {
    (void)state;
    enum { TOTAL = 900, D = 8, K = 300 };
    const int identical[] = {K + 1, K + 2, 450};
    for (int t = 0; t < 3; t++) {
        float *embedding = random_embeddings(TOTAL, D, 0, 32);
        make_identical(embedding, D, identical[t]);
        answer a = search(embedding, TOTAL, D, K);
        assert_int_equal(a.report.searched, TOTAL - (identical[t] - (K + 1)));
        assert_exhaustive(&a, embedding, TOTAL, D, K);
        release(&a);
        free(embedding);
    }
}

/* How many of rows [first, first + n) are searched where make_identical has made `identical` rows so. */
static int64_t searched_rows(int64_t first, int64_t n, int identical, int k) {
    int64_t searched = 0;
    for (int64_t i = first; i < first + n; i++) searched += i % 2 == 1 || i / 2 <= k || i / 2 >= identical;
    return searched;
}

static int64_t pieces(int64_t count, int64_t size) {
    return count > 0 ? (count + size - 1) / size : 0;
}

/* Tiles of this rank's rows with each other and with those of the other ranks; where some of its rows are set
 * aside, first those on the diagonal with them. */
static int64_t expected_tiles(int64_t total, int identical, int k, int rows, int columns) {
    int64_t first, n, tiles;
    mdm_comm_my_slice(comm, total, &first, &n);
    int64_t own = searched_rows(first, n, identical, k);
    tiles = own < n ? pieces(n, rows) : 0;
    for (int64_t row = 0; row < own; row += rows) tiles += 1 + pieces(own - row - rows, columns);
    for (int r = 0; r < mdm_comm_size(comm); r++) {
        mdm_comm_slice(total, r, mdm_comm_size(comm), &first, &n);
        if (r != mdm_comm_rank(comm))
            tiles += pieces(own, rows) * pieces(searched_rows(first, n, identical, k), columns);
    }
    return tiles;
}

static void rows_that_are_set_aside_cost_no_second_search(void **state) {
    (void)state;
    if (!test_device_is_cuda()) skip();
    enum { TOTAL = 2000, D = 16, K = 10, ROWS = 64, COLUMNS = 192 };
    const int identical[] = {0, K, K + 1, K + 2, 700};
    for (int t = 0; t < 5; t++) {
        float *embedding = random_embeddings(TOTAL, D, 0, 33);
        make_identical(embedding, D, identical[t]);
        answer a = search_on(NULL, 0, 0, embedding, TOTAL, D, K, NULL);
        answer b = search_on(device, ROWS, COLUMNS, embedding, TOTAL, D, K, NULL);
        assert_same(&a, &b, K);
        assert_int_equal(b.report.tiles, expected_tiles(TOTAL, identical[t], K, ROWS, COLUMNS));
        release(&a);
        release(&b);
        free(embedding);
    }
}

static void zero_rows_are_similar_to_nothing(void **state) {
    (void)state;
    float *embedding = random_embeddings(600, 4, 3, 40);
    for (int64_t i = 0; i < 600; i++)
        if (i % 4 == 1) memset(embedding + i * 4, 0, 4 * sizeof(float));
    answer a = search(embedding, 600, 4, 6);
    assert_exhaustive(&a, embedding, 600, 4, 6);
    for (int64_t i = a.first; i < a.first + a.n; i++)
        if (i % 4 == 1) assert_true(a.score[i - a.first] == 1.0f);
    release(&a);
    free(embedding);
}

/* Directions so close that the float product cannot tell them apart: every answer needs the second search. */
static void neighbours_closer_than_float_resolution_are_found(void **state) {
    (void)state;
    float *embedding = random_embeddings(1200, 16, 0, 50);
    for (int64_t e = 0; e < 1200 * 16; e++) embedding[e] = 1 + 1e-4f * embedding[e];
    answer a = search(embedding, 1200, 16, 5);
    assert_true(a.report.repeated > 600);
    double *norm = calloc(1200, sizeof *norm);
    for (int64_t i = 0; i < 1200; i++)
        norm[i] = sqrt(mdm_divide_kernels()->dot(embedding + i * 16, embedding + i * 16, 16));
    for (int64_t i = 0; i < a.n;
         i++) { /* nobody else is nearer than the last neighbour, by the same double cosine */
        int64_t self = a.first + i, last = a.neighbour[i * 5 + 4];
        double worst = mdm_divide_kernels()->dot(embedding + self * 16, embedding + last * 16, 16) /
                       (norm[self] * norm[last]);
        int nearer = 0;
        for (int64_t j = 0; j < 1200; j++)
            nearer += j != self && mdm_divide_kernels()->dot(embedding + self * 16, embedding + j * 16, 16) /
                                           (norm[self] * norm[j]) >
                                       worst;
        assert_true(nearer <= 4);
    }
    free(norm);
    release(&a);
    free(embedding);
}

/* Marks every `step`-th row, and those of the first `front`. */
static uint8_t *mark(int64_t total, int64_t step, int64_t front) {
    uint8_t *among = calloc((size_t)total, 1);
    for (int64_t i = 0; i < total; i++) among[i] = i < front;
    for (int64_t i = 0; i < total; i += step) among[i] = 1;
    return among;
}

static void check_among(const float *embedding, int64_t total, int dimension, int k, int64_t step,
                        int64_t front) {
    uint8_t *among = mark(total, step, front);
    answer a = search_among(embedding, total, dimension, k, among);
    assert_exhaustive_among(&a, embedding, total, dimension, k, among);
    release(&a);
    free(among);
}

static void neighbours_among_marked_rows_are_the_exhaustive_answer(void **state) {
    (void)state;
    const int64_t totals[] = {2900, 1025, 37};
    for (int t = 0; t < 3; t++) {
        float *embedding = random_embeddings(totals[t], 24, 0, 60 + (uint32_t)t);
        check_among(embedding, totals[t], 24, 7, 3, 0);
        check_among(embedding, totals[t], 24, 7, totals[t],
                    8); /* all of the first rank's, as few as possible */
        check_among(embedding, totals[t], 24, 7, 1, 0);
        free(embedding);
    }
}

/* Hundreds of ties, identical rows on either side of the mark, more of them marked than k, and zero rows. */
static void ties_and_identical_rows_among_marked_ones_go_by_index(void **state) {
    (void)state;
    enum { TOTAL = 1500, D = 6, K = 10 };
    float *embedding = random_embeddings(TOTAL, D, 3, 70);
    for (int64_t i = 0; i < TOTAL; i++) {
        if (i % 5 < 2) memcpy(embedding + i * D, embedding + i % 7 * D, D * sizeof(float));
        if (i % 11 == 3) memset(embedding + i * D, 0, D * sizeof(float));
    }
    check_among(embedding, TOTAL, D, K, 2, 0);
    check_among(embedding, TOTAL, D, K, 3, 40);
    for (int64_t i = 0; i < TOTAL; i++)
        memcpy(embedding + i * D, embedding, D * sizeof(float)); /* a collapsed network */
    check_among(embedding, TOTAL, D, K, 2, 0);
    free(embedding);
}

static void fewer_marked_rows_than_neighbours_are_refused_on_every_rank(void **state) {
    (void)state;
    float *embedding = random_embeddings(40, 4, 0, 61), score[40];
    uint8_t *among = mark(40, 40, 3);
    int64_t first, n;
    mdm_comm_my_slice(comm, 40, &first, &n);
    assert_int_equal(mdm_knn_scores_among(comm, NULL, embedding + first * 4, 40, 4, 3, among, score),
                     MDM_USAGE);
    assert_int_equal(mdm_knn_scores_among(comm, NULL, embedding + first * 4, 40, 4, 2, among, score), MDM_OK);
    free(among);
    free(embedding);
}

static void bad_arguments_and_embeddings_are_refused_on_every_rank(void **state) {
    (void)state;
    float *embedding = random_embeddings(40, 4, 0, 60), score[40];
    int64_t first, n;
    mdm_comm_my_slice(comm, 40, &first, &n);
    const float *mine = embedding + first * 4;
    assert_int_equal(mdm_knn_scores(comm, mine, 40, 4, 40, score, NULL, NULL), MDM_USAGE);
    assert_int_equal(mdm_knn_scores(comm, mine, 40, 4, 0, score, NULL, NULL), MDM_USAGE);
    assert_int_equal(mdm_knn_scores(comm, mine, 40, 0, 3, score, NULL, NULL), MDM_USAGE);
    embedding[17 * 4 + 2] = NAN;
    assert_int_equal(mdm_knn_scores(comm, mine, 40, 4, 3, score, NULL, NULL), MDM_NUMERIC);
    assert_non_null(strstr(mdm_last_message(), "sample 17"));
    embedding[17 * 4 + 2] = 3e38f; /* large is fine */
    assert_int_equal(mdm_knn_scores(comm, mine, 40, 4, 3, score, NULL, NULL), MDM_OK);
    free(embedding);
}

int main(int argc, char **argv) {
    test_device_or_skip();
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    device = test_device_open(1, 0);
    test_device_join(device, comm);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_neighbours_and_scores_are_met),
        cmocka_unit_test(many_rows_are_searched_exhaustively_on_any_number_of_ranks),
        cmocka_unit_test(fewer_rows_than_ranks_and_every_other_row_as_neighbour_work),
        cmocka_unit_test(ties_are_broken_by_lower_index),
        cmocka_unit_test(more_ties_than_candidates_are_searched_again),
        cmocka_unit_test(sorted_classes_with_tight_clusters_are_searched_exhaustively),
        cmocka_unit_test(rows_that_half_precision_cannot_tell_apart_are_found),
        cmocka_unit_test(thousands_of_identical_rows_are_answered_without_searching_them),
        cmocka_unit_test(some_identical_rows_give_the_exhaustive_answer),
        cmocka_unit_test(hundreds_of_identical_rows_are_told_from_hundreds_and_one),
        cmocka_unit_test(rows_that_are_set_aside_cost_no_second_search),
        cmocka_unit_test(zero_rows_are_similar_to_nothing),
        cmocka_unit_test(neighbours_closer_than_float_resolution_are_found),
        cmocka_unit_test(neighbours_among_marked_rows_are_the_exhaustive_answer),
        cmocka_unit_test(ties_and_identical_rows_among_marked_ones_go_by_index),
        cmocka_unit_test(fewer_marked_rows_than_neighbours_are_refused_on_every_rank),
        cmocka_unit_test(bad_arguments_and_embeddings_are_refused_on_every_rank),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mdm_device_destroy(device);
    mdm_comm_finish(comm);
    return failed;
}
