/* Exact K-nearest-neighbour scores over all ranks' embeddings: the out-of-distribution score of the method.
 *
 * Cosine similarity, self excluded by index, neighbours ordered by (similarity descending, index ascending),
 * so the answer does not depend on the number of ranks. score = mean over the k nearest others of 1 - cosine
 * (reference: knn_ood_score). Memory O(N D / P + tile), never N x N. The answer is that of an exhaustive
 * search with cosines in double, the same to the bit on the CPU and on CUDA: a faster, less exact search
 * finds candidates, and every answer is proven or searched for a second time (docs/method.md).
 */
#ifndef MDM_DIVIDE_KNN_H
#define MDM_DIVIDE_KNN_H

#include "mdm/base/status.h"
#include "mdm/comm/comm.h"
#include "mdm/device/device.h"
#include <stdint.h>

/* Collective. `embedding` [n, dimension] holds this rank's rows [first, first + n) of `total`
 * (mdm_comm_my_slice); it is not modified. Writes this rank's `score` [n]; `neighbour` [n, k] (global
 * indices) and `similarity` [n, k] when not NULL. 0 < k < total < 2^31, else MDM_USAGE. A zero embedding has
 * similarity 0 to everything. Non-finite embeddings are MDM_NUMERIC naming the sample. */
MDM_MUST_CHECK mdm_status mdm_knn_scores(mdm_comm *comm, const float *embedding, int64_t total, int dimension,
                                         int k, float *score, int64_t *neighbour, float *similarity);

/* What a search did besides answering. */
typedef struct mdm_knn_report {
    int64_t searched; /* rows of all ranks that took part; the rest are copies of theirs */
    int64_t repeated; /* queries of all ranks that the first search could not prove, and that were searched
                         again without leaving anything out */
    int64_t tiles;    /* of similarities that this rank's device multiplied in the first search */
} mdm_knn_report;

/* Collective. The same for embeddings in the memory of `device`, of which all ranks have the same kind, and
 * there the search runs (for k above MDM_NEIGHBOURS_MOST, on the CPU). The answers go to host memory.
 * `report` may be NULL. */
MDM_MUST_CHECK mdm_status mdm_knn_scores_on(mdm_comm *comm, mdm_device *device, const float *embedding,
                                            int64_t total, int dimension, int k, float *score,
                                            int64_t *neighbour, float *similarity, mdm_knn_report *report);

/* Collective. The same where only the rows marked in `among` [total], which every rank passes, may be
 * neighbours: score = mean over the k nearest marked others of 1 - cosine. More than k are marked, else
 * MDM_USAGE. `device` NULL: on the CPU, from embeddings in host memory. */
MDM_MUST_CHECK mdm_status mdm_knn_scores_among(mdm_comm *comm, mdm_device *device, const float *embedding,
                                               int64_t total, int dimension, int k, const uint8_t *among,
                                               float *score);

#endif
