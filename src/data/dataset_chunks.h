/* Pictures out of chunks, packed or not, by the chunks' places in the file and without HDF5. */
#ifndef MDM_DATA_DATASET_CHUNKS_H
#define MDM_DATA_DATASET_CHUNKS_H

#include "places.h"

typedef struct mdm_chunks mdm_chunks;

typedef struct mdm_wanted {
    int64_t index; /* of a picture */
    uint8_t *to;
} mdm_wanted;

/* `places` must stay as long as the reader. The caller closes it. It keeps the latest chunks unpacked, in at
 * most 16 MiB or one chunk. */
MDM_MUST_CHECK mdm_status mdm_chunks_open(const char *path, const mdm_places *places, mdm_chunks **chunks);
void mdm_chunks_close(mdm_chunks *chunks);
/* Reads pictures whose indices do not fall. A chunk is unpacked once for all that are wanted of it; MDM_INPUT
 * where it does not unpack to just its pictures. */
MDM_MUST_CHECK mdm_status mdm_chunks_read(mdm_chunks *chunks, const mdm_wanted *wanted, int64_t count);
/* Unpacks every chunk once, for nothing but the answer. */
MDM_MUST_CHECK mdm_status mdm_chunks_check(mdm_chunks *chunks);

#endif
