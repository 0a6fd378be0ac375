/* The loops of the division that are worth the widest vectors: compiled once per instruction set, chosen at
 * run time. All levels give the same bits: sums run over a fixed number of lanes and are folded in a fixed
 * order. */
#ifndef MDM_DIVIDE_KERNELS_H
#define MDM_DIVIDE_KERNELS_H

#include "mdm/device/mixture.h"
#include <stdint.h>

/* One similarity that may belong to a list: `query` is the row of the list in its block, `other` the row
 * beside it. */
typedef struct mdm_knn_hit {
    int32_t query, other;
    float similarity;
} mdm_knn_hit;

/* One form for all that computes with them: the CPU's kernels and a device's. */
typedef mdm_mixture_density mdm_gmm_density;
typedef mdm_mixture_sums mdm_gmm_sums;

typedef struct mdm_kernels {
    /* Dot product in double of two float rows: the products are exact, the order of the sum is fixed. */
    double (*dot)(const float *a, const float *b, int64_t n);
    /* Appends to `hits` every entry of scores[0..columns) above `row_threshold` (query = row, other =
     * column); returns the count. */
    int64_t (*scan_row)(const float *scores, int32_t columns, float row_threshold, int32_t row,
                        mdm_knn_hit *hits);
    /* The same and, for the lists of the columns, entries above column_threshold[column] (query = column,
     * other = row) to `column_hits`, whose count is added to *column_count. */
    int64_t (*scan_both)(const float *scores, int32_t columns, float row_threshold,
                         const float *column_threshold, int32_t row, mdm_knn_hit *hits,
                         mdm_knn_hit *column_hits, int64_t *column_count);
    /* One E step over n losses, each counted multiplicity[i] times (NULL: once); adds to *sums. */
    void (*expectation)(const float *loss, const double *multiplicity, int64_t n,
                        const mdm_gmm_density *density, mdm_gmm_sums *sums);
    /* probability[i] = posterior of component 0. */
    void (*posterior)(const float *loss, int64_t n, const mdm_gmm_density *density, float *probability);
    const char *name;
} mdm_kernels;

/* The kernels for this processor. */
const mdm_kernels *mdm_divide_kernels(void);

#endif
