/* Exact nearest neighbours over all ranks: from embeddings to out-of-distribution scores.
 *
 * 1. Rows with more than k identical rows before them are set aside: nobody's neighbour, and their own answer
 * is known from the last identical row that takes part (knn_duplicates.c).
 * 2. Unit rows in float are multiplied tile by tile, each pair of tiles once in the whole group; every query
 * keeps its k + MDM_KNN_SPARE best (knn_search.c).
 * 3. The candidates are scored again in double from the caller's rows, in a fixed order of summation. A
 * query's answer is proven when no row outside its list can reach its k-th similarity, given the error bound
 * of the float product; the others are searched again against that known limit (knn_exact.c). So the answer
 * is that of an exhaustive search in double, whatever the tiles, threads and ranks.
 *
 * Where only some rows may be neighbours, all queries go the way of those that were not proven: tiles serve
 * one side, as rows and columns differ.
 *
 * A CUDA device goes the same way with products in half precision (knn_device.c). */
#include "mdm/divide/knn.h"
#include "knn_internal.h"
#include "mdm/device/neighbours.h"
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void mdm_knn_normalise(const float *row, double norm, int dimension, float *unit) {
    double inverse = norm > 0 ? 1.0 / norm : 0.0;
    for (int d = 0; d < dimension; d++) unit[d] = (float)(row[d] * inverse);
}

static mdm_status check_arguments(const mdm_knn *knn) {
    if (knn->dimension < 1)
        return mdm_fail(MDM_USAGE,
                        "nearest neighbours: the embedding has dimension %d; it must be at least 1",
                        knn->dimension);
    if (knn->k < 1 || knn->k >= knn->total)
        return mdm_fail(MDM_USAGE,
                        "divide.k is %d but must be at least 1 and less than the number of samples, %lld",
                        knn->k, (long long)knn->total);
    if (knn->total > INT32_MAX)
        return mdm_fail(MDM_USAGE, "nearest neighbours: %lld samples, at most %d are supported",
                        (long long)knn->total, INT32_MAX);
    int64_t marked = 0;
    for (int64_t i = 0; knn->among && i < knn->total; i++) marked += knn->among[i] != 0;
    if (knn->among && marked <= knn->k)
        return mdm_fail(MDM_USAGE, "nearest neighbours among %lld samples; divide.k is %d and must be less",
                        (long long)marked, knn->k);
    return MDM_OK;
}

/* Finite rows of floats have finite lengths in double. */
mdm_status mdm_knn_check_lengths(const mdm_knn *knn) {
    for (int64_t i = 0; i < knn->n; i++)
        if (!isfinite(knn->norm[i]))
            return mdm_fail(
                MDM_NUMERIC,
                "the embedding of sample %lld (rank %d) is not finite; the network has diverged, try a lower "
                "learning rate",
                (long long)(knn->first + i), knn->rank);
    return MDM_OK;
}

static mdm_status measure_rows(mdm_knn *knn) {
    MDM_TRY(MDM_ALLOCATE(knn->norm, knn->n, "lengths of the embeddings"));
    MDM_TRY(MDM_ALLOCATE(knn->hash, 2 * knn->n, "hashes of the embeddings"));
#pragma omp parallel for
    for (int64_t i = 0; i < knn->n; i++) {
        const float *row = knn->embedding + i * knn->dimension;
        knn->norm[i] = sqrt(knn->kernels->dot(row, row, knn->dimension));
        XXH128_hash_t hash = XXH3_128bits(row, (size_t)knn->dimension * sizeof(float));
        knn->hash[2 * i] = hash.low64;
        knn->hash[2 * i + 1] = hash.high64;
    }
    return mdm_knn_check_lengths(knn);
}

mdm_status mdm_knn_allocate_result(mdm_knn *knn) {
    MDM_TRY(MDM_ALLOCATE(knn->result, knn->n * knn->k, "nearest neighbours"));
    return MDM_ALLOCATE(knn->result_similarity, knn->n * knn->k, "nearest neighbours");
}

/* What the phases after duplicates need, at this rank's number of searched rows. */
static mdm_status allocate_search(mdm_knn *knn) {
    int64_t rows = mdm_knn_query_count(knn), entries = knn->among ? 0 : rows * knn->width;
    MDM_TRY(MDM_ALLOCATE(knn->normal, rows * knn->dimension, "unit embeddings"));
    MDM_TRY(MDM_ALLOCATE(knn->list, entries, "neighbour candidates"));
    MDM_TRY(MDM_ALLOCATE(knn->exact, entries, "neighbour candidates"));
    MDM_TRY(mdm_knn_allocate_result(knn));
    for (int64_t e = 0; e < entries; e++) knn->list[e] = (mdm_candidate){-INFINITY, -1};
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = mdm_knn_query(knn, i) - knn->first;
        mdm_knn_normalise(knn->embedding + row * knn->dimension, knn->norm[row], knn->dimension,
                          knn->normal + i * knn->dimension);
    }
    return MDM_OK;
}

static mdm_status run_on_cpu(mdm_knn *knn) {
    MDM_TRY(mdm_comm_agree(knn->comm, measure_rows(knn)));
    MDM_TRY(mdm_knn_find_duplicates(knn));
    MDM_TRY(mdm_comm_agree(knn->comm, allocate_search(knn)));
    if (knn->among) return mdm_knn_search_among(knn);
    MDM_TRY(mdm_knn_search(knn));
    MDM_TRY(mdm_knn_finish(knn));
    return mdm_knn_answer_duplicates(knn);
}

/* The CPU's, for rows on a device, where k is more than the device can do. */
static mdm_status copy_from_device(mdm_knn *knn) {
    MDM_TRY(mdm_knn_copy_rows(knn));
    knn->device = NULL;
    return MDM_OK;
}

static mdm_status run(mdm_knn *knn, int wants_neighbours, float *score) {
    mdm_status local = check_arguments(knn);
    if (local == MDM_OK && knn->device && knn->k > MDM_NEIGHBOURS_MOST) local = copy_from_device(knn);
    MDM_TRY(mdm_comm_agree(knn->comm, local));
    if (knn->device) return mdm_knn_run_on_device(knn, wants_neighbours, score);
    /* The workers are OpenMP threads that each multiply their own tiles. OpenBLAS with its own threads would
     * start more of them per worker; built on OpenMP it does not, and its number is better left alone. */
    int own_threads = openblas_get_parallel() == OPENBLAS_THREAD, threads = openblas_get_num_threads();
    if (own_threads) openblas_set_num_threads(1);
    mdm_status status = run_on_cpu(knn);
    if (own_threads) openblas_set_num_threads(threads);
    return status;
}

static void write_answer(const mdm_knn *knn, float *score, int64_t *neighbour, float *similarity) {
    for (int64_t i = 0; i < knn->n; i++) {
        double distance = 0;
        for (int64_t j = i * knn->k; j < (i + 1) * knn->k; j++) {
            distance += 1.0 - knn->result_similarity[j];
            if (neighbour) neighbour[j] = knn->result[j];
            if (similarity) similarity[j] = (float)knn->result_similarity[j];
        }
        score[i] = (float)(distance / knn->k);
    }
}

mdm_status mdm_knn_scores_tiled(mdm_comm *comm, mdm_device *device, const float *embedding, int64_t total,
                                int dimension, int k, const uint8_t *among, int tile_rows, int tile_columns,
                                float *score, int64_t *neighbour, float *similarity, mdm_knn_report *report) {
    int is_cuda = device && mdm_device_get_info(device)->is_cuda;
    mdm_knn knn = {.comm = comm,
                   .kernels = mdm_divide_kernels(),
                   .device = is_cuda ? device : NULL,
                   .on_device = is_cuda ? embedding : NULL,
                   .embedding = is_cuda ? NULL : embedding,
                   .among = among,
                   .tile_rows = tile_rows,
                   .tile_columns = tile_columns,
                   .total = total};
    knn.rank = mdm_comm_rank(comm);
    knn.ranks = mdm_comm_size(comm);
    knn.dimension = dimension;
    knn.k = k;
    knn.width = k + MDM_KNN_SPARE;
    mdm_comm_my_slice(comm, total, &knn.first, &knn.n);
    int64_t parts = 8 * (int64_t)knn.ranks, part = (total + parts - 1) / parts;
    knn.chunk = (part + MDM_KNN_TILE - 1) / MDM_KNN_TILE * MDM_KNN_TILE;
    mdm_status status = run(&knn, neighbour || similarity, score);
    if (status == MDM_OK && knn.result) write_answer(&knn, score, neighbour, similarity);
    if (report) *report = knn.report;
    free(knn.copy);
    free(knn.norm);
    free(knn.hash);
    free(knn.kept);
    free(knn.kept_start);
    free(knn.heads);
    free(knn.copies);
    free(knn.copy_of);
    free(knn.normal);
    free(knn.list);
    free(knn.exact);
    free(knn.result);
    free(knn.result_similarity);
    return status;
}

mdm_status mdm_knn_scores_on(mdm_comm *comm, mdm_device *device, const float *embedding, int64_t total,
                             int dimension, int k, float *score, int64_t *neighbour, float *similarity,
                             mdm_knn_report *report) {
    return mdm_knn_scores_tiled(comm, device, embedding, total, dimension, k, NULL, 0, 0, score, neighbour,
                                similarity, report);
}

mdm_status mdm_knn_scores_among(mdm_comm *comm, mdm_device *device, const float *embedding, int64_t total,
                                int dimension, int k, const uint8_t *among, float *score) {
    return mdm_knn_scores_tiled(comm, device, embedding, total, dimension, k, among, 0, 0, score, NULL, NULL,
                                NULL);
}

mdm_status mdm_knn_scores(mdm_comm *comm, const float *embedding, int64_t total, int dimension, int k,
                          float *score, int64_t *neighbour, float *similarity) {
    return mdm_knn_scores_on(comm, NULL, embedding, total, dimension, k, score, neighbour, similarity, NULL);
}
