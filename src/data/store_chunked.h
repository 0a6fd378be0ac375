/* Pictures of a chunked or compressed data set by index, read by the calling thread. */
#ifndef MDM_DATA_STORE_CHUNKED_H
#define MDM_DATA_STORE_CHUNKED_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef struct mdm_chunked mdm_chunked;

/* Opens the pictures of a split (0 train, 1 test), `bytes` bytes each. The caller owns the reader. */
MDM_MUST_CHECK mdm_status mdm_chunked_open(const char *path, int split, int64_t bytes, mdm_chunked **chunked);
void mdm_chunked_close(mdm_chunked *chunked);
/* Reads the pictures into the reader's own buffer, in which they stay until the next call. Indices may
 * repeat. */
MDM_MUST_CHECK mdm_status mdm_chunked_fetch(mdm_chunked *chunked, const int64_t *index, int64_t count,
                                            const uint8_t **pictures);

#endif
