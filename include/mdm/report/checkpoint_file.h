/* Checkpoint files: named arrays, written so that a crash at any moment leaves a whole one. Rank 0 only; all
 * calls from one thread.
 *
 * A file is a user block of 512 bytes of ASCII (magic, format version, payload size, SHA-256 digest of the
 * payload, padded with newlines) followed by an HDF5 file, so h5dump and h5py open it as it is. The same
 * content gives the same bytes. Saving: put together in memory, written to a hidden name, fsync, read back
 * and compared, renamed, fsync of the folder; then `latest` (the file's name in one line) the same way; then
 * old ones are removed. Loading: size and digest are checked before the HDF5 library sees a byte, and it only
 * sees memory. The digest detects damage, not forgery (it is no signature): do not load checkpoints of people
 * you do not trust.
 *
 * Names are epoch-NNNN.h5, at the end of an epoch, and epoch-NNNN-step-SSSSSS.h5, inside epoch NNNN and
 * therefore older than it. Epochs must grow over the whole run (a pretraining stage counts on, it does not
 * start at 0 again).
 */
#ifndef MDM_REPORT_CHECKPOINT_FILE_H
#define MDM_REPORT_CHECKPOINT_FILE_H

#include "mdm/base/status.h"
#include <stdint.h>

enum { MDM_CHECKPOINT_MAX_RANK = 8, MDM_CHECKPOINT_EPOCH_END = -1 };

typedef enum mdm_checkpoint_type {
    MDM_CHECKPOINT_FLOAT,
    MDM_CHECKPOINT_DOUBLE,
    MDM_CHECKPOINT_INT32,
    MDM_CHECKPOINT_INT64,
    MDM_CHECKPOINT_UINT8,
    MDM_CHECKPOINT_TEXT
} mdm_checkpoint_type;

/* ---- Writing ---- */

typedef struct mdm_checkpoint_writer mdm_checkpoint_writer;

/* An empty checkpoint in memory. MDM_RESOURCE when out of memory. Ended by commit or abandon. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_begin(mdm_checkpoint_writer **writer);

/* Adds `data`, row-major with lengths dims [rank] (rank 0, dims NULL: one number), which is copied. `name`
 * may be a path like network-a/encoder.conv1.weight. For MDM_CHECKPOINT_TEXT data is a zero-terminated
 * string, rank 0. MDM_RESOURCE when out of memory, or the name is taken. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_put(mdm_checkpoint_writer *writer, const char *name,
                                             mdm_checkpoint_type type, int rank, const int64_t *dims,
                                             const void *data);

/* Saves into `folder` (which exists) as the checkpoint of `epoch`, or of `step` inside it
 * (MDM_CHECKPOINT_EPOCH_END: none), makes `latest` name it, and removes older ones but for `keep` - 1 (at
 * least the new one is kept); a regular checkpoint also removes all older step ones. Later ones, of a run
 * that was resumed from an earlier point, are left alone. Frees the writer in any case. MDM_RESOURCE, with
 * every earlier checkpoint as it was, when it cannot be saved. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_commit(mdm_checkpoint_writer *writer, const char *folder,
                                                int64_t epoch, int64_t step, int keep);

/* Removes all of a folder, the newest and then `latest` last, so that a kill leaves the newest or none.
 * MDM_RESOURCE, naming the file, when one cannot be removed. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_remove_all(const char *folder);

/* ---- Writing by a thread of its own ---- */

typedef struct mdm_checkpoint_saver mdm_checkpoint_saver;

/* Starts the thread. MDM_RESOURCE when there is none to be had. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_saver_start(mdm_checkpoint_saver **saver);
/* One array of a checkpoint, see mdm_checkpoint_put. rank 0: one number (count 1) or a text; rank 1: `count`
 * elements. */
typedef struct mdm_checkpoint_part {
    char name[48];
    mdm_checkpoint_type type;
    int rank;
    int64_t count;
    const void *data;
} mdm_checkpoint_part;
/* Makes room for saves of such parts, so that the first of them takes no longer than the others; nothing is
 * saved. No save is under way. MDM_RESOURCE when out of memory; saves then try by themselves. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_saver_prepare(mdm_checkpoint_saver *saver,
                                                       const mdm_checkpoint_part *parts, int count);
/* Saves what mdm_checkpoint_commit would save of the same parts, byte for byte. The caller waits only until
 * they are copied (and for the save before, where it is still under way: its outcome is lost, so ask for it
 * first); the copy's memory is kept for the next one. MDM_RESOURCE when there is not enough of it. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_save_later(mdm_checkpoint_saver *saver,
                                                    const mdm_checkpoint_part *parts, int count,
                                                    const char *folder, int64_t epoch, int64_t step,
                                                    int keep);
typedef struct mdm_checkpoint_outcome {
    mdm_status status;
    double seconds; /* that the thread took */
    char message[1024];
} mdm_checkpoint_outcome;
/* 1, once for every save, when it has ended. 0: there is none, or it is still under way; with `wait` never
 * the latter. mdm_last_message stays as it was. */
int mdm_checkpoint_saver_ended(mdm_checkpoint_saver *saver, int wait, mdm_checkpoint_outcome *outcome);
/* Finishes the save under way and ends the thread; NULL is allowed. */
void mdm_checkpoint_saver_stop(mdm_checkpoint_saver *saver);

/* Drops a checkpoint that was begun; NULL is allowed. */
void mdm_checkpoint_abandon(mdm_checkpoint_writer *writer);

/* ---- Reading ---- */

typedef struct mdm_checkpoint mdm_checkpoint;

/* Opens the one that `latest` names if it is whole, otherwise the newest whole one by name. Each one that is
 * passed over gets a warning with its reason and stays as it is. No checkpoint in the folder, or no folder:
 * MDM_OK with *checkpoint NULL. Files there but none whole: MDM_INPUT (never a silent fresh start). */
MDM_MUST_CHECK mdm_status mdm_checkpoint_open_newest(const char *folder, mdm_checkpoint **checkpoint);

/* Opens one file. MDM_INPUT, with the reason, when it is missing, damaged or of a newer format. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_open(const char *path, mdm_checkpoint **checkpoint);
/* The same for a path that a user gave: links are followed, and so is a file that, as `latest` does, names a
 * checkpoint beside it. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_open_named(const char *path, mdm_checkpoint **checkpoint);
void mdm_checkpoint_close(mdm_checkpoint *checkpoint);

/* Path it was read from. */
const char *mdm_checkpoint_path(const mdm_checkpoint *checkpoint);

/* Copies an array of `count` elements into out. Another type or number of elements is MDM_INPUT. Values are
 * not judged. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_get(const mdm_checkpoint *checkpoint, const char *name,
                                             mdm_checkpoint_type type, int64_t count, void *out);
/* The same for floats, none of which may be infinite or NaN: for weights and momentum. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_get_finite(const mdm_checkpoint *checkpoint, const char *name,
                                                    int64_t count, float *out);
/* One integer within [minimum, maximum]; one text, in a new string that the caller frees. */
MDM_MUST_CHECK mdm_status mdm_checkpoint_get_integer(const mdm_checkpoint *checkpoint, const char *name,
                                                     int64_t minimum, int64_t maximum, int64_t *value);
MDM_MUST_CHECK mdm_status mdm_checkpoint_get_text(const mdm_checkpoint *checkpoint, const char *name,
                                                  char **text);

#endif
