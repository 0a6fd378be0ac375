/* Where asymmetric noise moves a label. */
#ifndef MDM_DATA_NOISE_TABLES_H
#define MDM_DATA_NOISE_TABLES_H

#include "mdm/data/dataset_file.h"

/* The matrix [C,C] (row: true class, rows sum to 1) over the classes that stay: from a text file, or
 * CIFAR-10's pairs, or CIFAR-100's cycles inside superclasses. remap: source class to new class. The caller
 * frees it. */
MDM_MUST_CHECK mdm_status mdm_noise_transitions(const mdm_dataset *source, const int *remap, int classes,
                                                const char *path, double **matrix);

#endif
