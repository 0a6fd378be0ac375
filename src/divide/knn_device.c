/* Exact nearest neighbours over all ranks on CUDA devices: the way of knn.c, with the work on the device.
 *
 * Every rank keeps its queries and their lists; the others' rows come round the ring from device to device, a
 * whole rank's at a time, and are searched while the next ones travel. Candidates are scored exactly while
 * their rows are there, so one round is enough; a second one is only for queries without proof, if there are
 * any.
 *
 * The host looks for identical rows while the device does a first, small part of the search among own rows,
 * as if there were none to leave out; where there are, that part alone is done once more without them.
 *
 * Where only some rows may be neighbours, there is the second round alone, and own rows come as visitors. */
#include "knn_internal.h"
#include "mdm/device/group.h"
#include "mdm/device/neighbours.h"
#include <stdlib.h>

typedef struct search {
    mdm_knn *knn;
    mdm_neighbours *neighbours;
    mdm_group *group;
    float *buffer[2]; /* rows of other ranks, in the device's memory */
    int32_t *all;     /* [n] this rank's rows, global indices */
    int is_second;    /* search, of queries without proof or of all */
} search;

mdm_status mdm_knn_copy_rows(mdm_knn *knn) {
    int64_t values = knn->n * knn->dimension;
    MDM_TRY(MDM_ALLOCATE(knn->copy, values, "embeddings in host memory"));
    knn->embedding = knn->copy;
    return mdm_device_download(knn->device, knn->copy, knn->on_device, (size_t)values * sizeof(float));
}

static mdm_status prepare(search *s) {
    mdm_knn *knn = s->knn;
    int64_t most = knn->among ? knn->n : 0;
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
    MDM_TRY(MDM_ALLOCATE(s->all, knn->n, "searched rows"));
    for (int64_t i = 0; i < knn->n; i++) s->all[i] = (int32_t)(knn->first + i);
    MDM_TRY(mdm_neighbours_create(knn->device, &shape, knn->on_device, &s->neighbours));
    MDM_TRY(mdm_neighbours_measure(s->neighbours, knn->norm, knn->hash));
    MDM_TRY(mdm_knn_check_lengths(knn));
    if (knn->ranks == 1) return MDM_OK;
    size_t bytes = (size_t)(most * knn->dimension) * sizeof(float);
    MDM_TRY(mdm_group_create(knn->comm, knn->device, &s->group));
    MDM_TRY(mdm_group_reserve(s->group, bytes + (size_t)(knn->n * knn->dimension) * sizeof(float)));
    for (int b = 0; b < 2; b++)
        MDM_TRY(mdm_device_allocate(knn->device, bytes, "travelling embeddings", (void **)&s->buffer[b]));
    return MDM_OK;
}

/* Rows [first, first + count). */
static mdm_status search_visitors(search *s, const float *rows, int64_t first, int64_t count) {
    const mdm_knn *knn = s->knn;
    int64_t kept = mdm_knn_kept_from(knn, first), end = mdm_knn_kept_from(knn, first + count);
    const mdm_visiting_rows visitors = {rows, first, count, knn->kept + kept, end - kept};
    return s->is_second ? mdm_neighbours_again_visitors(s->neighbours, &visitors)
                        : mdm_neighbours_search_visitors(s->neighbours, &visitors);
}

/* Collective, the first time. */
static mdm_status search_own(search *s) {
    mdm_knn *knn = s->knn;
    if (knn->among) return search_visitors(s, knn->on_device, knn->first, knn->n);
    if (s->is_second) return mdm_neighbours_again_own(s->neighbours);
    mdm_status begun = mdm_neighbours_begin(s->neighbours, s->all, knn->n);
    MDM_TRY(mdm_knn_find_duplicates(knn));
    MDM_TRY(begun);
    int64_t kept = mdm_knn_kept_count(knn, knn->rank);
    if (kept < knn->n) MDM_TRY(mdm_neighbours_begin(s->neighbours, mdm_knn_kept(knn), kept));
    return mdm_neighbours_search_own(s->neighbours);
}

/* A rank's rows are searched while the next one's come. */
static mdm_status go_round(search *s) {
    const mdm_knn *knn = s->knn;
    const float *here = knn->on_device;
    int64_t row = knn->dimension * (int64_t)sizeof(float), first = knn->first, count = knn->n;
    for (int hop = 0; hop < knn->ranks; hop++) {
        int64_t next_first = 0, next_count = 0;
        float *next = s->buffer[hop & 1];
        int is_last = hop + 1 == knn->ranks;
        if (!is_last) {
            mdm_comm_slice(knn->total, (knn->rank - hop - 1 + knn->ranks) % knn->ranks, knn->ranks,
                           &next_first, &next_count);
            MDM_TRY(mdm_group_ring_start(s->group, here, count * row, next, next_count * row));
        }
        mdm_status searched = hop == 0 ? search_own(s) : search_visitors(s, here, first, count);
        if (!is_last) MDM_TRY(mdm_group_ring_wait(s->group));
        MDM_TRY(searched);
        here = next;
        first = next_first;
        count = next_count;
    }
    return MDM_OK;
}

static mdm_status search_again(search *s) {
    s->is_second = 1;
    MDM_TRY(mdm_comm_agree(s->knn->comm, mdm_neighbours_again_begin(s->neighbours)));
    MDM_TRY(go_round(s));
    mdm_neighbours_again_end(s->neighbours);
    return MDM_OK;
}

static mdm_status search_among(search *s) {
    MDM_TRY(mdm_knn_find_duplicates(s->knn));
    MDM_TRY(mdm_comm_agree(s->knn->comm, mdm_neighbours_begin_among(s->neighbours, s->all, s->knn->n)));
    s->is_second = 1;
    MDM_TRY(go_round(s));
    mdm_neighbours_again_end(s->neighbours);
    return MDM_OK;
}

static mdm_status search_everyone(search *s) {
    mdm_knn *knn = s->knn;
    MDM_TRY(go_round(s));
    knn->report.tiles = mdm_neighbours_tiles(s->neighbours);
    MDM_TRY(mdm_comm_agree(knn->comm, mdm_neighbours_answer(s->neighbours, &knn->report.repeated)));
    MDM_TRY(mdm_comm_all_reduce(knn->comm, &knn->report.repeated, 1, MDM_INT64, MDM_SUM));
    return knn->report.repeated > 0 ? search_again(s) : MDM_OK;
}

static mdm_status run(search *s, int wants_neighbours, float *score) {
    mdm_knn *knn = s->knn;
    MDM_TRY(mdm_comm_agree(knn->comm, prepare(s)));
    MDM_TRY(knn->among ? search_among(s) : search_everyone(s));
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
    free(s.all);
    for (int b = 0; b < 2; b++) mdm_device_free(knn->device, s.buffer[b]);
    mdm_group_destroy(s.group);
    return status;
}
