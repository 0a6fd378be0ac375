/* A file's pictures read by index, one step ahead of their use. */
#ifndef MDM_DATA_STORE_STREAM_H
#define MDM_DATA_STORE_STREAM_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef struct mdm_stream mdm_stream;

/* Pictures of `bytes` bytes each begin at `offset` of the file. Starts the reading thread. */
MDM_MUST_CHECK mdm_status mdm_stream_open(const char *path, int64_t offset, int64_t bytes,
                                          mdm_stream **stream);
void mdm_stream_close(mdm_stream *stream);
/* Lets the thread read these pictures. An earlier announcement that was not fetched is dropped. */
MDM_MUST_CHECK mdm_status mdm_stream_prefetch(mdm_stream *stream, const int64_t *index, int64_t count);
/* Pictures in order; those that were announced are (or are being) read already, otherwise they are read now.
 */
MDM_MUST_CHECK mdm_status mdm_stream_fetch(mdm_stream *stream, const int64_t *index, int64_t count,
                                           const uint8_t **pictures);
/* Asks the system for whole runs of `block` pictures (of `count` in all) when the first of a run is read. To
 * be called before the first announcement. */
void mdm_stream_expect_blocks(mdm_stream *stream, int64_t block, int64_t count);
/* Fetches that an announcement had prepared, for tests. */
int64_t mdm_stream_hits(const mdm_stream *stream);

#endif
