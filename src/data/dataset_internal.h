/* Inside of the data set file, shared by dataset_read.c, dataset_write.c and the store. */
#ifndef MDM_DATA_DATASET_INTERNAL_H
#define MDM_DATA_DATASET_INTERNAL_H

#include "dataset_encoded.h"
#include "mdm/data/dataset_file.h"
#include <hdf5.h>

/* Switches off HDF5's own error print. */
void mdm_dataset_quiet(void);
/* Opens the pictures of a split (0 train, 1 test) for reading; the caller closes both. */
MDM_MUST_CHECK mdm_status mdm_dataset_open_images(const char *path, int split, hid_t *file, hid_t *array,
                                                  hsize_t dims[4]);
/* Opens a split that is kept encoded; *encoded is NULL when it holds pixels. */
MDM_MUST_CHECK mdm_status mdm_dataset_open_encoded(const char *path, int split, mdm_encoded **encoded);
/* Bytes of a file from `at` on; MDM_INPUT when there are not so many. */
MDM_MUST_CHECK mdm_status mdm_dataset_read_place(const char *path, int64_t at, int64_t bytes, uint8_t *to);
/* Mean and deviation of the training pictures, read piece by piece from their place (-1: by HDF5). */
MDM_MUST_CHECK mdm_status mdm_dataset_stream_statistics(const char *path, int64_t place,
                                                        mdm_dataset *dataset);

#endif
