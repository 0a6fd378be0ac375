/* Where a data set file's pictures lie. */
#ifndef MDM_DATA_DATASET_FIND_H
#define MDM_DATA_DATASET_FIND_H

#include "dataset_hdf5.h"
#include "places.h"

/* Whether the split (0 train, 1 test) is kept as JPEG and PNG files. */
int mdm_dataset_is_encoded(hid_t file, int split);
/* Checks shape and type of a split's pictures and finds their places. The caller frees them with free(). */
MDM_MUST_CHECK mdm_status mdm_dataset_find_pictures(const mdm_reader *reader, int split, mdm_places **places);
/* The same of a split that is kept as JPEG and PNG files. */
MDM_MUST_CHECK mdm_status mdm_dataset_find_encoded(const mdm_reader *reader, int split, mdm_places **places);

#endif
