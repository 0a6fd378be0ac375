/* A data set file's content but for the pictures, read by HDF5. */
#ifndef MDM_DATA_DATASET_READ_H
#define MDM_DATA_DATASET_READ_H

#include "mdm/base/text.h"

/* What the child of screen.h does: all that is in the file is checked and packed for mdm_dataset_unpack(). */
MDM_MUST_CHECK mdm_status mdm_dataset_examine(const char *path, mdm_text *found);

#endif
