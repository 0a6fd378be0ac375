/* What reads of a data set file by HDF5 have in common. Only the child of screen.h makes them. */
#ifndef MDM_DATA_DATASET_HDF5_H
#define MDM_DATA_DATASET_HDF5_H

#include "mdm/base/status.h"
#include <hdf5.h>

typedef struct mdm_reader {
    const char *path;
    hid_t file;
} mdm_reader;

/* Switches off HDF5's own error print. */
void mdm_dataset_quiet(void);
/* Opens the file for reading; the caller closes it. */
MDM_MUST_CHECK mdm_status mdm_reader_open(const char *path, hid_t *file);
/* 0 only for what is known not to be there: where HDF5 cannot tell, reading it will show. */
int mdm_reader_has(const mdm_reader *reader, const char *name);
/* Opens a data set of `rank` dimensions and reads its lengths; values in other files are refused. The caller
 * closes it. */
MDM_MUST_CHECK mdm_status mdm_reader_open_array(const mdm_reader *reader, const char *name, int rank,
                                                hsize_t *dims, hid_t *array);
/* Whether a link led out of the file: places would then mean another one. */
int mdm_reader_is_elsewhere(const mdm_reader *reader, hid_t array);
/* Whether its values are integers, with `bytes` unsigned ones of so many bytes. */
MDM_MUST_CHECK mdm_status mdm_reader_check_type(const mdm_reader *reader, const char *name, hid_t array,
                                                int bytes);
/* How many values an attribute has. */
hssize_t mdm_reader_elements(hid_t attribute);

#endif
