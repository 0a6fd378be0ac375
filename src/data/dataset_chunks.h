/* Chunked pictures, which HDF5 alone can find and unpack, looked through where a crash costs nothing. */
#ifndef MDM_DATA_DATASET_CHUNKS_H
#define MDM_DATA_DATASET_CHUNKS_H

#include "dataset_pack.h"

/* Whether every chunk of both splits lies in the file and unpacks to just its pictures: HDF5 1.10 goes by
 * what the chunk should hold, and reads beyond one that holds less. Then all of them are read by HDF5 once.
 * Larger sets than some size are taken as they are: that would take longer than it is worth. */
MDM_MUST_CHECK mdm_status mdm_dataset_check_chunks(const char *path, const mdm_dataset *dataset,
                                                   const mdm_dataset_places *places);

#endif
