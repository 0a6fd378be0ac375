/* What writer and reader of checkpoints share: the user block before the HDF5 bytes, and the names in the
 * folder. */
#ifndef MDM_REPORT_CHECKPOINT_BLOCK_H
#define MDM_REPORT_CHECKPOINT_BLOCK_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

enum { BLOCK_BYTES = 512, DIGEST_TEXT = 65, NAME_BYTES = 64 };

/* Fills block [BLOCK_BYTES] for a payload of `bytes` bytes with this digest (64 hexadecimal digits). */
void block_fill(char *block, uint64_t bytes, const char *digest);

/* SHA-256 of the bytes, as text. */
mdm_status block_digest(const void *bytes, size_t count, char digest[DIGEST_TEXT]);

/* Checks a file against its own user block. With `content`, gives all its bytes, block included, in a new
 * buffer; without, reads in pieces. MDM_INPUT with the reason when it is not whole. */
mdm_status block_check(const char *path, char **content, size_t *bytes, char digest[DIGEST_TEXT]);

/* A place in the run. Orders as the run does: steps inside an epoch come before its end. */
typedef struct position {
    int64_t epoch, step; /* step INT64_MAX: the end of the epoch */
} position;

void position_name(position at, char name[NAME_BYTES]);
/* 1 if the whole of `name` is a checkpoint's name. */
int position_parse(const char *name, position *at);
/* Negative, zero or positive as in strcmp. */
int position_compare(position a, position b);

/* The positions of all checkpoints in `folder`, newest first, in a new array that the caller frees; none when
 * there is no such folder. */
mdm_status position_list(const char *folder, position **positions, int64_t *count);

/* checkpoint_write.c: mdm_checkpoint_begin with a guess of the size; the end of a writer's HDF5 file, in
 * memory, with room for the block (*content is the caller's); and all that happens on disk, for which content
 * [bytes] is filled in. The last calls no HDF5, so a thread may do it. */
typedef struct mdm_checkpoint_writer mdm_checkpoint_writer;
mdm_status checkpoint_begin_large(size_t bytes, mdm_checkpoint_writer **writer);
mdm_status checkpoint_finish_image(mdm_checkpoint_writer *writer, char **content, size_t *bytes);
mdm_status checkpoint_put_in_place(char *content, size_t bytes, const char *folder, position now, int keep);

#endif
