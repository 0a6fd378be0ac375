/* Exact K-nearest-neighbour scores over all ranks' embeddings: the out-of-distribution score of the method.
 *
 * Cosine similarity, self excluded by index, neighbours ordered by (similarity descending, index ascending),
 * so the answer does not depend on the number of ranks. score = mean over the k nearest others of 1 - cosine
 * (reference: knn_ood_score). Memory O(N D / P + tile), never N x N.
 */
#ifndef MDM_DIVIDE_KNN_H
#define MDM_DIVIDE_KNN_H

#include "mdm/base/status.h"
#include "mdm/comm/comm.h"
#include <stdint.h>

/* Collective. `embedding` [n, dimension] holds this rank's rows [first, first + n) of `total`
 * (mdm_comm_my_slice); it is not modified. Writes this rank's `score` [n]; `neighbour` [n, k] (global
 * indices) and `similarity` [n, k] when not NULL. 0 < k < total < 2^31, else MDM_USAGE. A zero embedding has
 * similarity 0 to everything. Non-finite embeddings are MDM_NUMERIC naming the sample. */
MDM_MUST_CHECK mdm_status mdm_knn_scores(mdm_comm *comm, const float *embedding, int64_t total, int dimension,
                                         int k, float *score, int64_t *neighbour, float *similarity);

#endif
