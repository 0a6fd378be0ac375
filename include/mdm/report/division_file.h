/* divisions/epoch-NNNN.h5: what each network thinks of every sample (CONTRACT, section 4). Rank 0 only.
 *
 * Groups `a` and `b`, one per network, with loss, clean_probability, ood_score [N] float, split [N] uint8 (0
 * removed, 1 labelled, 2 unlabelled), optionally neighbour [N] int32, similarity [N], embedding [N,D] and
 * logits [N,C] float; dataset held_out [N] uint8 where a share was held out; attributes gmm_means,
 * gmm_variances, gmm_weights (two numbers each), removed, and a description on everything, so that the file
 * explains itself.
 */
#ifndef MDM_REPORT_DIVISION_FILE_H
#define MDM_REPORT_DIVISION_FILE_H

#include "mdm/base/status.h"
#include <stdint.h>

enum { MDM_DIVISION_NETWORKS = 2 };

typedef struct mdm_division_network {
    const float *loss;              /* [N] cross-entropy of the given label */
    const float *clean_probability; /* [N] */
    const float *ood_score;         /* [N] mean cosine distance to the k nearest others */
    const uint8_t *split;           /* [N] MDM_REMOVED, MDM_LABELLED, MDM_UNLABELLED of mdm/divide/split.h */
    const int32_t *neighbour;       /* [N] index of the nearest other sample, NULL: not saved */
    const float *similarity;        /* [N] cosine similarity to it, NULL: not saved */
    const float *embedding;         /* [N,embedding_width], NULL: not saved */
    const float *logits;            /* [N,classes], NULL: not saved */
    int64_t embedding_width, classes;
    double gmm_means[2], gmm_variances[2],
        gmm_weights[2];                /* of the losses scaled to [0, 1], lower mean first */
    double loss_minimum, loss_maximum; /* the scale */
    int64_t removed;
} mdm_division_network;

typedef struct mdm_division {
    int64_t epoch, samples;  /* samples: N */
    int networks;            /* 1 or 2 */
    const uint8_t *held_out; /* [N] 1: not trained on but kept for validation; NULL: none are. Written only */
    mdm_division_network network[MDM_DIVISION_NETWORKS];
    void *memory[MDM_DIVISION_NETWORKS][8]; /* of a division that was read; mdm_division_free() frees it */
} mdm_division;

/* Writes the whole file, so that a reader sees all of it or the old one. Needs memory for one copy of it. The
 * arrays stay the caller's. MDM_RESOURCE when it cannot be written. */
MDM_MUST_CHECK mdm_status mdm_division_write(const char *path, const mdm_division *division);

/* Reads one; embedding and logits only when `with_features` and present. MDM_INPUT when it is missing,
 * damaged or its arrays do not fit each other. Ended by mdm_division_free(), also after a failure. */
MDM_MUST_CHECK mdm_status mdm_division_read(const char *path, int with_features, mdm_division *division);
void mdm_division_free(mdm_division *division);

#endif
