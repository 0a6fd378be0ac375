/* What training pictures look like to a network: unit-length embeddings of training samples that were kept,
 * and the score beyond which a picture counts as out of distribution. */
#ifndef MDM_TRAIN_OOD_REFERENCE_H
#define MDM_TRAIN_OOD_REFERENCE_H

#include "mdm/base/status.h"
#include <stdint.h>

enum { MDM_OOD_MOST_REFERENCES = 4096 };

typedef struct mdm_ood_reference {
    int networks, k, width; /* width: D of the embeddings */
    int64_t count[2];       /* M */
    float *embedding[2];    /* [M,D] */
    double threshold[2];
    /* Not 0: the embeddings are by the networks of ood-a and ood-b.safetensors, as they were at the first
     * division, which this number identifies; 0: by the run's final networks. */
    uint64_t first_division;
} mdm_ood_reference;

MDM_MUST_CHECK mdm_status mdm_ood_write(const char *path, const mdm_ood_reference *reference);
/* Ended by mdm_ood_free, also after a failure. */
MDM_MUST_CHECK mdm_status mdm_ood_read(const char *path, int networks, int width,
                                       mdm_ood_reference *reference);
void mdm_ood_free(mdm_ood_reference *reference);

/* Scales each row of embedding [rows, width] to length 1 (zero rows stay zero). */
void mdm_ood_normalise(float *embedding, int64_t rows, int width);
/* score [rows]: mean of 1 - cosine to the k nearest of the `count` references. Query i leaves reference
 * own[i] out (own NULL or -1: none). Rows of both are of unit length. */
MDM_MUST_CHECK mdm_status mdm_ood_scores(const float *reference, int64_t count, int width, int k,
                                         const float *query, const int64_t *own, int64_t rows, float *score);

#endif
