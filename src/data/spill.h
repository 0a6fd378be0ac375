/* Working files of an import: pictures that are done, one after another, and a journal of what they are. An
 * import that was killed goes on behind the last whole block; nothing of it looks like a data set. */
#ifndef MDM_DATA_SPILL_H
#define MDM_DATA_SPILL_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef struct mdm_spill mdm_spill;

/* A run of listed pictures. `bytes` [count]: what each takes in the working file, 0 when it was left out;
 * `texts`: why, zero-terminated, one for each that was left out. `source` tells the state of its files. */
typedef struct mdm_spill_block {
    int64_t first, count;
    uint64_t source;
    uint64_t sum[3], square[3];
    int64_t colour, text_bytes;
    const int64_t *bytes;
    const char *texts;
} mdm_spill_block;

/* Opens or makes OUT.import-pictures and OUT.import-journal. What they hold is kept when it was made with the
 * same `key` and dropped otherwise. With `out` NULL the files have no name. Errors: MDM_RESOURCE when they
 * cannot be written, or another process is at it. */
MDM_MUST_CHECK mdm_status mdm_spill_open(const char *out, uint64_t key, mdm_spill **spill);
/* The files stay, unless mdm_spill_remove() was called. */
void mdm_spill_close(mdm_spill *spill);
void mdm_spill_remove(mdm_spill *spill);
/* The next block of the journal; *found is 0 behind the last whole one. Its arrays live until the next call.
 */
MDM_MUST_CHECK mdm_status mdm_spill_next(mdm_spill *spill, mdm_spill_block *block, int *found);
/* Accepts the block that mdm_spill_next() found. Those that were not accepted are dropped by the first
 * append. */
void mdm_spill_accept(mdm_spill *spill);
/* Adds pictures (`total` bytes) and then the block that describes them, both on the disk on return. */
MDM_MUST_CHECK mdm_status mdm_spill_append(mdm_spill *spill, const mdm_spill_block *block,
                                           const uint8_t *pictures, int64_t total);
MDM_MUST_CHECK mdm_status mdm_spill_read(const mdm_spill *spill, int64_t at, int64_t bytes, uint8_t *to);

#endif
