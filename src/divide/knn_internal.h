/* The neighbour search's own state and phases; knn.c tells how they follow each other. */
#ifndef MDM_DIVIDE_KNN_INTERNAL_H
#define MDM_DIVIDE_KNN_INTERNAL_H

#include "kernels.h"
#include "mdm/base/status.h"
#include "mdm/comm/comm.h"
#include "mdm/device/device.h"
#include "mdm/divide/knn.h"
#include <stdint.h>

enum {
    MDM_KNN_TILE =
        256, /* rows of a tile of similarities: tile and operands stay in a core's second-level cache */
    MDM_KNN_SPARE = 6 /* candidates kept beyond k, so that the certificate has a gap to find */
};

/* An approximate neighbour; index -1 is an empty place. Lists are sorted by similarity, descending. */
typedef struct mdm_candidate {
    float similarity;
    int32_t index; /* global */
} mdm_candidate;

typedef struct mdm_knn {
    mdm_comm *comm;
    const mdm_kernels *kernels;
    int rank, ranks, dimension, k, width; /* width = k + MDM_KNN_SPARE */
    int64_t total, first, n;              /* this rank's rows are [first, first + n) of total */
    int64_t chunk;                        /* rows that travel at a time on CPUs; a multiple of MDM_KNN_TILE */
    const float *embedding;               /* [n, dimension] in host memory, the caller's or a copy */
    double *norm;                         /* [n] */
    uint64_t *hash;                       /* [n, 2] of the rows' bytes */
    const uint8_t *among;                 /* [total] who may be a neighbour, the caller's; NULL: everyone */

    mdm_device *device;          /* a CUDA device that searches, or NULL */
    const float *on_device;      /* [n, dimension] in its memory, the caller's */
    float *copy;                 /* of these in host memory, where they are needed there */
    int tile_rows, tile_columns; /* of the device's search; 0: as it likes them */

    /* Rows that may be neighbours: all but those with more than k identical rows before them
     * (knn_duplicates.c). Unless `among` is given they are also the rows whose neighbours are searched. */
    int32_t *kept;       /* [kept_start[ranks]] global indices, ascending */
    int64_t *kept_start; /* [ranks + 1] */
    int32_t *heads;      /* [head_count] rows that have exactly k identical ones before them and some after,
                            ascending */
    int64_t head_count;
    int32_t *copies;  /* [copy_count] this rank's rows that are not searched (local) */
    int32_t *copy_of; /* [copy_count] whose place in heads[] has their answer */
    int64_t copy_count;

    float *normal;       /* [kept of this rank, dimension] unit rows */
    mdm_candidate *list; /* [kept of this rank, width] */
    double *exact;       /* [kept of this rank, width] exact similarity of each candidate */

    int32_t *result;           /* [n, k] global indices */
    double *result_similarity; /* [n, k] */
    mdm_knn_report report;
} mdm_knn;

/* The searched rows of this rank: their number and their global indices. */
static inline int64_t mdm_knn_kept_count(const mdm_knn *knn, int rank) {
    return knn->kept_start[rank + 1] - knn->kept_start[rank];
}
static inline const int32_t *mdm_knn_kept(const mdm_knn *knn) {
    return knn->kept + knn->kept_start[knn->rank];
}

/* Global index of query `place`: with `among`, all of this rank's rows are searched. */
static inline int32_t mdm_knn_query(const mdm_knn *knn, int64_t place) {
    return knn->among ? (int32_t)(knn->first + place) : mdm_knn_kept(knn)[place];
}
static inline int64_t mdm_knn_query_count(const mdm_knn *knn) {
    return knn->among ? knn->n : mdm_knn_kept_count(knn, knn->rank);
}

/* Exact cosine of two rows of lengths norm_a and norm_b: 0 when one is zero, else their dot product in
 * double. */
static inline double mdm_knn_cosine(const mdm_knn *knn, const float *a, double norm_a, const float *b,
                                    double norm_b) {
    if (norm_a == 0 || norm_b == 0) return 0;
    double cosine = knn->kernels->dot(a, b, knn->dimension) / (norm_a * norm_b);
    return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}

/* Writes row / norm (or zeros) to `unit`. */
void mdm_knn_normalise(const float *row, double norm, int dimension, float *unit);

/* MDM_NUMERIC, naming the first sample whose norm[] is not finite. */
MDM_MUST_CHECK mdm_status mdm_knn_check_lengths(const mdm_knn *knn);
/* Room for result and result_similarity. */
MDM_MUST_CHECK mdm_status mdm_knn_allocate_result(mdm_knn *knn);
/* Makes `copy` of the rows on the device, and `embedding` it. */
MDM_MUST_CHECK mdm_status mdm_knn_copy_rows(mdm_knn *knn);

/* Collective. Fills kept, kept_start, heads, copies, copy_of. */
MDM_MUST_CHECK mdm_status mdm_knn_find_duplicates(mdm_knn *knn);
/* Collective. Fills result of the copies from that of the heads. */
MDM_MUST_CHECK mdm_status mdm_knn_answer_duplicates(mdm_knn *knn);

/* Collective. Fills list: the `width` candidates of largest approximate similarity. Every row outside a full
 * list has an approximate similarity of at most the list's last. */
MDM_MUST_CHECK mdm_status mdm_knn_search(mdm_knn *knn);

/* Collective. Scores the candidates exactly, proves or repeats, fills result of the searched rows. */
MDM_MUST_CHECK mdm_status mdm_knn_finish(mdm_knn *knn);

/* Collective. With `among`: fills result of all rows, by the second search alone. */
MDM_MUST_CHECK mdm_status mdm_knn_search_among(mdm_knn *knn);

/* Place in kept[] of the first row from global index `first` on. */
int64_t mdm_knn_kept_from(const mdm_knn *knn, int64_t first);

/* Collective. The whole search on knn->device. Writes `score` [n]; result and result_similarity are filled,
 * and have the last word, where the caller wants them or identical rows need them. */
MDM_MUST_CHECK mdm_status mdm_knn_run_on_device(mdm_knn *knn, int wants_neighbours, float *score);

/* mdm_knn_scores_on, or mdm_knn_scores_among where `among` is given (device NULL: on the CPU, from host
 * memory), with tiles of a given size. */
MDM_MUST_CHECK mdm_status mdm_knn_scores_tiled(mdm_comm *comm, mdm_device *device, const float *embedding,
                                               int64_t total, int dimension, int k, const uint8_t *among,
                                               int tile_rows, int tile_columns, float *score,
                                               int64_t *neighbour, float *similarity, mdm_knn_report *report);

#endif
