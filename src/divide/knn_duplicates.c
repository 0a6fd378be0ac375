/* Identical embeddings, of which a collapsed network or a data set with repeated images makes thousands.
 *
 * Identical rows have the same exact similarity to anything, so among them the order is by index: a row with
 * k + 1 identical rows before it is never among anybody's k nearest. Such rows are not searched. Their own
 * answer is that of the row with exactly k identical ones before it (the head): neither is among the other's
 * neighbours, and everything else looks the same to both. This keeps ties from defeating the certificate of
 * every query. Rows are recognised by a 128-bit hash of their bytes.
 *
 * Where only some rows may be neighbours, identical ones among these count, and all rows have their
 * neighbours searched. */
#include "knn_internal.h"
#include <stdlib.h>
#include <string.h>

typedef struct hashed_row {
    uint64_t high, low;
    int64_t index;
} hashed_row;

static int compare_rows(const void *a, const void *b) {
    const hashed_row *x = a, *y = b;
    if (x->high != y->high) return x->high < y->high ? -1 : 1;
    if (x->low != y->low) return x->low < y->low ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int compare_indices(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static mdm_status gather_hashes(mdm_knn *knn, uint64_t *all, int64_t *counts) {
    for (int r = 0; r < knn->ranks; r++) {
        int64_t first;
        mdm_comm_slice(knn->total, r, knn->ranks, &first, &counts[r]);
        counts[r] *= 2;
    }
    return mdm_comm_all_gather(knn->comm, knn->hash, 2 * knn->n, all, counts, MDM_INT64);
}

static int may_be_neighbour(const mdm_knn *knn, int64_t row) {
    return !knn->among || knn->among[row];
}

/* Counts rows by some bits of their hashes, up to UINT8_MAX a place; tells whether one has more than `most`.
 */
static int count_rows(const mdm_knn *knn, const uint64_t *all, int most, uint8_t *counted, uint64_t places) {
    int is_crowded = 0;
    for (int64_t i = 0; i < knn->total; i++) {
        if (!may_be_neighbour(knn, i)) continue;
        uint8_t *place = &counted[all[2 * i] & (places - 1)];
        *place += *place < UINT8_MAX;
        is_crowded |= *place > most;
    }
    return is_crowded;
}

/* Rows that share a place with more than k others, sorted so that identical ones lie together in order of
 * index: all large classes are among them. Counting costs a few nanoseconds a row, sorting more than a
 * hundred; where no class is large hardly a row is left to be sorted. */
static mdm_status sort_suspects(const mdm_knn *knn, const uint64_t *all, hashed_row **rows, int64_t *count) {
    uint64_t places = 2;
    uint8_t *counted;
    int most = knn->k + 1 < UINT8_MAX ? knn->k + 1 : UINT8_MAX - 1;
    mdm_status status = MDM_OK;
    while (places < (uint64_t)knn->total * 2) places *= 2;
    MDM_TRY(MDM_ALLOCATE(counted, places, "hashes of the embeddings"));
    if (count_rows(knn, all, most, counted, places)) {
        for (int64_t i = 0; i < knn->total; i++)
            *count += may_be_neighbour(knn, i) && counted[all[2 * i] & (places - 1)] > most;
        status = MDM_ALLOCATE(*rows, *count, "hashes of the embeddings");
        for (int64_t i = 0, next = 0; status == MDM_OK && i < knn->total; i++)
            if (may_be_neighbour(knn, i) && counted[all[2 * i] & (places - 1)] > most)
                (*rows)[next++] = (hashed_row){all[2 * i + 1], all[2 * i], i};
    }
    free(counted);
    if (status == MDM_OK && *count > 0) qsort(*rows, (size_t)*count, sizeof **rows, compare_rows);
    return status;
}

/* Walks the classes of identical rows: marks each row as searched (-1) or with its class's head, and collects
 * heads. */
static void find_heads(mdm_knn *knn, const hashed_row *rows, int64_t count, int32_t *head_of) {
    for (int64_t i = 0; i < knn->total; i++) head_of[i] = -1;
    for (int64_t start = 0, end; start < count; start = end) {
        for (end = start;
             end < count && rows[end].high == rows[start].high && rows[end].low == rows[start].low;)
            end++;
        if (end - start <= knn->k + 1) continue;
        int32_t head = (int32_t)rows[start + knn->k].index;
        for (int64_t i = start + knn->k + 1; i < end; i++) head_of[rows[i].index] = head;
        knn->heads[knn->head_count++] = head;
    }
    qsort(knn->heads, (size_t)knn->head_count, sizeof *knn->heads, compare_indices);
}

/* Fills kept, copies and copy_of. */
static mdm_status sort_out(mdm_knn *knn, const int32_t *head_of) {
    int64_t next = 0;
    for (int r = 0; r < knn->ranks; r++) {
        int64_t first, count;
        mdm_comm_slice(knn->total, r, knn->ranks, &first, &count);
        knn->kept_start[r] = next;
        for (int64_t i = first; i < first + count; i++)
            if (head_of[i] < 0 && may_be_neighbour(knn, i)) knn->kept[next++] = (int32_t)i;
    }
    knn->kept_start[knn->ranks] = next;
    knn->report.searched = knn->among ? knn->total : next;
    if (knn->among) knn->head_count = 0; /* nobody's answer is another's */
    if (knn->among) return MDM_OK;
    int64_t copies = knn->n - mdm_knn_kept_count(knn, knn->rank);
    if (copies == 0) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(knn->copies, copies, "searched rows"));
    MDM_TRY(MDM_ALLOCATE(knn->copy_of, copies, "searched rows"));
    for (int64_t i = 0; i < knn->n; i++) {
        int32_t head = head_of[knn->first + i];
        if (head < 0) continue;
        int32_t *place = bsearch(&head, knn->heads, (size_t)knn->head_count, sizeof head, compare_indices);
        knn->copies[knn->copy_count] = (int32_t)i;
        knn->copy_of[knn->copy_count++] = (int32_t)(place - knn->heads);
    }
    return MDM_OK;
}

mdm_status mdm_knn_find_duplicates(mdm_knn *knn) {
    uint64_t *all = NULL;
    int64_t *counts = NULL, suspects = 0;
    hashed_row *rows = NULL;
    int32_t *head_of = NULL;
    mdm_status status = MDM_ALLOCATE(all, 2 * knn->total, "hashes of the embeddings");
    if (status == MDM_OK) status = MDM_ALLOCATE(counts, knn->ranks, "hashes of the embeddings");
    if (status == MDM_OK) status = MDM_ALLOCATE(head_of, knn->total, "hashes of the embeddings");
    if (status == MDM_OK) status = MDM_ALLOCATE(knn->kept, knn->total, "searched rows");
    if (status == MDM_OK) status = MDM_ALLOCATE(knn->kept_start, knn->ranks + 1, "searched rows");
    if (status == MDM_OK) status = MDM_ALLOCATE(knn->heads, knn->total / (knn->k + 2) + 1, "searched rows");
    MDM_TRY_OR(status, mdm_comm_agree(knn->comm, status), release);
    MDM_TRY_OR(status, gather_hashes(knn, all, counts), release);
    status = sort_suspects(knn, all, &rows, &suspects);
    if (status == MDM_OK) {
        find_heads(knn, rows, suspects, head_of);
        status = sort_out(knn, head_of);
    }
    status = mdm_comm_agree(knn->comm, status);
release:
    free(all);
    free(counts);
    free(rows);
    free(head_of);
    return status;
}

/* Number of heads of each rank times k, and where this rank's begin. */
static int64_t count_heads(const mdm_knn *knn, int64_t *counts) {
    int64_t before = 0, mine = 0;
    for (int r = 0; r < knn->ranks; r++) {
        int64_t first, count, end = before;
        mdm_comm_slice(knn->total, r, knn->ranks, &first, &count);
        while (end < knn->head_count && knn->heads[end] < first + count) end++;
        counts[r] = (end - before) * knn->k;
        if (r == knn->rank) mine = before;
        before = end;
    }
    return mine;
}

mdm_status mdm_knn_answer_duplicates(mdm_knn *knn) {
    if (knn->head_count == 0) return MDM_OK; /* the same on all ranks */
    int64_t *counts = NULL, k = knn->k;
    int32_t *index = NULL, *mine = NULL;
    double *similarity = NULL, *my_similarity = NULL;
    mdm_status status = MDM_ALLOCATE(counts, knn->ranks, "neighbours of identical rows");
    if (status == MDM_OK) status = MDM_ALLOCATE(index, knn->head_count * k, "neighbours of identical rows");
    if (status == MDM_OK) status = MDM_ALLOCATE(mine, knn->head_count * k, "neighbours of identical rows");
    if (status == MDM_OK)
        status = MDM_ALLOCATE(similarity, knn->head_count * k, "neighbours of identical rows");
    if (status == MDM_OK)
        status = MDM_ALLOCATE(my_similarity, knn->head_count * k, "neighbours of identical rows");
    MDM_TRY_OR(status, mdm_comm_agree(knn->comm, status), release);
    int64_t first = count_heads(knn, counts), own = counts[knn->rank];
    for (int64_t h = 0; h < own / k; h++) {
        int64_t row = knn->heads[first + h] - knn->first;
        memcpy(mine + h * k, knn->result + row * k, (size_t)k * sizeof *mine);
        memcpy(my_similarity + h * k, knn->result_similarity + row * k, (size_t)k * sizeof *my_similarity);
    }
    MDM_TRY_OR(status, mdm_comm_all_gather(knn->comm, mine, own, index, counts, MDM_INT32), release);
    MDM_TRY_OR(status, mdm_comm_all_gather(knn->comm, my_similarity, own, similarity, counts, MDM_DOUBLE),
               release);
    for (int64_t c = 0; c < knn->copy_count; c++) {
        int64_t row = knn->copies[c], head = knn->copy_of[c];
        memcpy(knn->result + row * k, index + head * k, (size_t)k * sizeof *index);
        memcpy(knn->result_similarity + row * k, similarity + head * k, (size_t)k * sizeof *similarity);
    }
release:
    free(counts);
    free(index);
    free(mine);
    free(similarity);
    free(my_similarity);
    return status;
}
