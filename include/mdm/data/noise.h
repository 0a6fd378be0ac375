/* Label noise with exact counts, for experiments whose truth is known. */
#ifndef MDM_DATA_NOISE_H
#define MDM_DATA_NOISE_H

#include "mdm/data/dataset_file.h"
#include <stddef.h>

typedef struct mdm_noise_options {
    int64_t samples;   /* random subset of the training set; 0: all */
    double symmetric;  /* share of all samples whose label is redrawn uniformly, own class included unless
                          exclude_own */
    double asymmetric; /* share of all samples whose label moves to a similar class, or by the matrix */
    double ood;        /* share of all samples that are out of distribution */
    int exclude_own;
    const char
        *transition_matrix; /* text file of C x C numbers, row: true class; NULL: CIFAR's pairs and cycles */
    const int *hold_out;    /* classes that leave the label set; their pictures are the OOD samples */
    int hold_out_count;
    const mdm_dataset
        *ood_from; /* pictures of another set instead; replaced samples keep their given label */
    const char
        *labels_from; /* JSON list of N labels that replaces symmetric and asymmetric noise; NULL: none */
    uint64_t seed;
} mdm_noise_options;

typedef struct mdm_noise_counts {
    int64_t samples, symmetric, asymmetric, ood; /* samples whose label was redrawn, moved, or lost */
    int64_t wrong; /* in-distribution samples whose given label is not the true one */
} mdm_noise_counts;

/* Makes a new data set. Exactly round(rate * N) samples of each kind, none of two kinds. MDM_USAGE with the
 * largest possible number when the source has too few samples. The true labels are those of `source` (its
 * given labels when it has no others). Ids are those of `source`, or the sample's number in it; "ood:" stands
 * before those from `ood_from`. A source with wrong labels and hold_out or ood is MDM_USAGE: its labels would
 * be lost. */
MDM_MUST_CHECK mdm_status mdm_noise_make(const mdm_dataset *source, const mdm_noise_options *options,
                                         mdm_dataset **noisy, mdm_noise_counts *counts);

/* Reads the text of a noise file into labels [count] of 0 to classes - 1; `path` is for messages. */
MDM_MUST_CHECK mdm_status mdm_noise_parse_labels(const char *text, size_t bytes, const char *path,
                                                 int64_t count, int classes, int32_t *labels);
/* The published noise file: a JSON list of the N given labels. */
MDM_MUST_CHECK mdm_status mdm_noise_write_labels(const char *path, const mdm_dataset *dataset);

#endif
