/* What a child process found in a data set file, on its way to the program: all but the pictures, of which
 * their places go. */
#ifndef MDM_DATA_DATASET_PACK_H
#define MDM_DATA_DATASET_PACK_H

#include "mdm/base/text.h"
#include "mdm/data/dataset_file.h"

/* has_statistics: mean and std were in the file. */
void mdm_dataset_pack(const mdm_dataset *dataset, int has_statistics, mdm_text *packed);
/* The child may have been taken over by the file: what it says is looked through once more, against the
 * file's size. MDM_INPUT where it cannot be true. */
MDM_MUST_CHECK mdm_status mdm_dataset_unpack(const char *path, int64_t file_bytes, const char *packed,
                                             size_t bytes, mdm_dataset **dataset, int *has_statistics);

#endif
