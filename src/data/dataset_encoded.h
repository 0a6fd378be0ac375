/* Reader of pictures kept as JPEG and PNG files, by their places. Several threads may read and decode. */
#ifndef MDM_DATA_DATASET_ENCODED_H
#define MDM_DATA_DATASET_ENCODED_H

#include "mdm/data/picture.h"
#include "places.h"

typedef struct mdm_encoded mdm_encoded;

/* `places` must stay as long as the reader. The caller closes it. */
MDM_MUST_CHECK mdm_status mdm_encoded_open(const char *path, const mdm_places *places, mdm_encoded **encoded);
void mdm_encoded_close(mdm_encoded *encoded);
/* Picture `index` as it is; the caller frees it. */
MDM_MUST_CHECK mdm_status mdm_encoded_decode(const mdm_encoded *encoded, int64_t index, mdm_picture *picture);
/* Picture `index` at the data set's size [H,W,C]; pictures [first, first + count) with several threads. */
MDM_MUST_CHECK mdm_status mdm_encoded_read_one(const mdm_encoded *encoded, int64_t index, uint8_t *pixels);
MDM_MUST_CHECK mdm_status mdm_encoded_read(const mdm_encoded *encoded, int threads, int64_t first,
                                           int64_t count, uint8_t *pixels);

#endif
