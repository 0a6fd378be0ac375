/* The split of all samples into removed, labelled and unlabelled (reference: the divide stage of train()). */
#ifndef MDM_DIVIDE_SPLIT_H
#define MDM_DIVIDE_SPLIT_H

#include "mdm/base/status.h"
#include <stdint.h>

enum { MDM_REMOVED = 0, MDM_LABELLED = 1, MDM_UNLABELLED = 2 };

typedef struct mdm_split_counts {
    int64_t removed, labelled, unlabelled;
} mdm_split_counts;

/* Not collective: every rank passes all N scores and gets the same answer. Marks in split [N] the `remove`
 * samples of largest ood_score (ties: lower index first) as MDM_REMOVED, the rest as MDM_LABELLED where
 * clean_probability > threshold, else MDM_UNLABELLED. */
MDM_MUST_CHECK mdm_status mdm_split_samples(const float *ood_score, const float *clean_probability, int64_t n,
                                            int64_t remove, double threshold, uint8_t *split,
                                            mdm_split_counts *counts);

/* Noise score: rank[i] is how many samples are less suspicious than i, by 1 - clean_probability and, where
 * the mixture no longer tells (equal probabilities), by the larger loss. Equal pairs share a rank. */
MDM_MUST_CHECK mdm_status mdm_noise_rank(const float *clean_probability, const float *loss, int64_t n,
                                         float *rank);

/* Area under the ROC curve of `score` for telling positive (positive[i] != 0) from the rest; ties count half.
 * NaN when one class is empty. MDM_RESOURCE when out of memory. */
MDM_MUST_CHECK mdm_status mdm_auc(const float *score, const uint8_t *positive, int64_t n, double *auc);

#endif
