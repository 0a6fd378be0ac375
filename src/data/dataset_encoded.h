/* Reader of /train/encoded and /train/offsets (and of /test): pictures kept as JPEG or PNG files. HDF5 is
 * called while opening only; afterwards several threads may read and decode. */
#ifndef MDM_DATA_DATASET_ENCODED_H
#define MDM_DATA_DATASET_ENCODED_H

#include "mdm/data/picture.h"
#include <hdf5.h>

typedef struct mdm_encoded mdm_encoded;

/* Whether the split (0 train, 1 test) of an open file is kept encoded. */
int mdm_encoded_is_there(hid_t file, int split);
/* Checks places and sizes; the pictures themselves are checked when they are decoded. `file` may be closed
 * afterwards. */
MDM_MUST_CHECK mdm_status mdm_encoded_open(hid_t file, const char *path, int split, mdm_encoded **encoded);
void mdm_encoded_close(mdm_encoded *encoded);
/* The size that every picture is brought to; returns the number of pictures. */
int64_t mdm_encoded_get_size(const mdm_encoded *encoded, int *height, int *width, int *channels);
/* Picture `index` as it is; the caller frees it. */
MDM_MUST_CHECK mdm_status mdm_encoded_decode(const mdm_encoded *encoded, int64_t index, mdm_picture *picture);
/* Picture `index` at the data set's size [H,W,C]; pictures [first, first + count) with several threads. */
MDM_MUST_CHECK mdm_status mdm_encoded_read_one(const mdm_encoded *encoded, int64_t index, uint8_t *pixels);
MDM_MUST_CHECK mdm_status mdm_encoded_read(const mdm_encoded *encoded, int threads, int64_t first,
                                           int64_t count, uint8_t *pixels);

#endif
