/* Pictures of a chunked or compressed data set by index, read by the calling thread. */
#ifndef MDM_DATA_STORE_CHUNKED_H
#define MDM_DATA_STORE_CHUNKED_H

#include "places.h"

typedef struct mdm_chunked mdm_chunked;

/* `places` must stay as long as the reader. The caller closes it. */
MDM_MUST_CHECK mdm_status mdm_chunked_open(const char *path, const mdm_places *places, mdm_chunked **chunked);
void mdm_chunked_close(mdm_chunked *chunked);
/* Reads the pictures into the reader's own buffer, in which they stay until the next call. Indices may
 * repeat. */
MDM_MUST_CHECK mdm_status mdm_chunked_fetch(mdm_chunked *chunked, const int64_t *index, int64_t count,
                                            const uint8_t **pictures);

#endif
