/* Exact nearest neighbours over all ranks on CUDA devices: the way of knn.c, with the work on the device.
 *
 * Every rank keeps its queries and their lists; the others' rows come round the ring, a whole rank's at a
 * time, through host memory, and are searched as they come. Candidates are scored exactly while their rows
 * are there, so one round is enough; a second one is only for queries without proof, if there are any. */
#include "knn_internal.h"
#include "mdm/device/neighbours.h"
#include <stdlib.h>

typedef struct search {
    mdm_knn *knn;
    mdm_neighbours *neighbours;
    float *buffer[2]; /* rows that travel */
    int is_second;
} search;

mdm_status mdm_knn_copy_rows(mdm_knn *knn) {
    int64_t values = knn->n * knn->dimension;
    MDM_TRY(MDM_ALLOCATE(knn->copy, values, "embeddings in host memory"));
    knn->embedding = knn->copy;
    return mdm_device_download(knn->device, knn->copy, knn->on_device, (size_t)values * sizeof(float));
}

static mdm_status prepare(search *s) {
    mdm_knn *knn = s->knn;
    int64_t most = 0;
    for (int r = 0; r < knn->ranks; r++) {
        int64_t first, count;
        mdm_comm_slice(knn->total, r, knn->ranks, &first, &count);
        if (r != knn->rank && count > most) most = count;
    }
    const mdm_neighbours_shape shape = {.rows = knn->n,
                                        .first = knn->first,
                                        .visitors = most,
                                        .dimension = knn->dimension,
                                        .k = knn->k,
                                        .tile_rows = knn->tile_rows,
                                        .tile_columns = knn->tile_columns};
    MDM_TRY(MDM_ALLOCATE(knn->norm, knn->n, "lengths of the embeddings"));
    MDM_TRY(MDM_ALLOCATE(knn->hash, 2 * knn->n, "hashes of the embeddings"));
    MDM_TRY(mdm_neighbours_create(knn->device, &shape, knn->on_device, &s->neighbours));
    MDM_TRY(mdm_neighbours_measure(s->neighbours, knn->norm, knn->hash));
    MDM_TRY(mdm_knn_check_lengths(knn));
    if (knn->ranks == 1) return MDM_OK;
    MDM_TRY(mdm_knn_copy_rows(knn));
    for (int b = 0; b < 2; b++)
        MDM_TRY(MDM_ALLOCATE(s->buffer[b], knn->chunk * knn->dimension, "travelling embeddings"));
    return MDM_OK;
}

static mdm_status search_own(search *s) {
    if (s->is_second) return mdm_neighbours_again_own(s->neighbours);
    return mdm_neighbours_search_own(s->neighbours, mdm_knn_kept(s->knn),
                                     mdm_knn_kept_count(s->knn, s->knn->rank));
}

/* A chunk is all of a rank's rows. */
static mdm_status visit(mdm_knn *knn, const float *rows, int64_t first, int64_t count, void *context) {
    search *s = context;
    if (first == knn->first) return search_own(s);
    int64_t kept = mdm_knn_kept_from(knn, first), end = mdm_knn_kept_from(knn, first + count);
    const mdm_visiting_rows visitors = {rows, first, count, knn->kept + kept, end - kept};
    return s->is_second ? mdm_neighbours_again_visitors(s->neighbours, &visitors)
                        : mdm_neighbours_search_visitors(s->neighbours, &visitors);
}

static mdm_status go_round(search *s) {
    if (s->knn->ranks == 1) return search_own(s);
    return mdm_knn_pass_round(s->knn, s->buffer, visit, s);
}

static mdm_status search_again(search *s) {
    s->is_second = 1;
    MDM_TRY(mdm_comm_agree(s->knn->comm, mdm_neighbours_again_begin(s->neighbours)));
    MDM_TRY(go_round(s));
    mdm_neighbours_again_end(s->neighbours);
    return MDM_OK;
}

static mdm_status run(search *s, int wants_neighbours, float *score) {
    mdm_knn *knn = s->knn;
    MDM_TRY(mdm_comm_agree(knn->comm, prepare(s)));
    MDM_TRY(mdm_knn_find_duplicates(knn));
    MDM_TRY(go_round(s));
    MDM_TRY(mdm_comm_agree(knn->comm, mdm_neighbours_answer(s->neighbours, &knn->report.repeated)));
    MDM_TRY(mdm_comm_all_reduce(knn->comm, &knn->report.repeated, 1, MDM_INT64, MDM_SUM));
    if (knn->report.repeated > 0) MDM_TRY(search_again(s));
    mdm_status local = MDM_OK;
    if (wants_neighbours || knn->head_count > 0) local = mdm_knn_allocate_result(knn);
    if (local == MDM_OK)
        local = mdm_neighbours_read(s->neighbours, knn->result ? NULL : score, knn->result,
                                    knn->result_similarity);
    MDM_TRY(mdm_comm_agree(knn->comm, local));
    return mdm_knn_answer_duplicates(knn);
}

mdm_status mdm_knn_run_on_device(mdm_knn *knn, int wants_neighbours, float *score) {
    search s = {.knn = knn};
    mdm_status status = run(&s, wants_neighbours, score);
    mdm_neighbours_destroy(s.neighbours);
    free(s.buffer[0]);
    free(s.buffer[1]);
    return status;
}
