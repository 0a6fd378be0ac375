/* Inside of the data set file, shared by dataset_file.c and dataset_write.c. */
#ifndef MDM_DATA_DATASET_INTERNAL_H
#define MDM_DATA_DATASET_INTERNAL_H

#include "mdm/data/dataset_file.h"

/* As mdm_dataset_read_labels(); statistics that the file lacks are not computed, which takes all training
 * pictures, but stay 0. */
MDM_MUST_CHECK mdm_status mdm_dataset_look_through(const char *path, mdm_dataset **dataset,
                                                   int *has_statistics);
/* Mean and deviation of the training pictures, read piece by piece. */
MDM_MUST_CHECK mdm_status mdm_dataset_stream_statistics(const char *path, mdm_dataset *dataset);

#endif
