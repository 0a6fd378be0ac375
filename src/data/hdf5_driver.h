/* An HDF5 driver that reads files as the usual one does, and tells where a chunk lies instead of reading it.
 * HDF5 1.10 has a call for the place of a chunk, but that one looks through all chunks each time: of 60 000
 * chunks that takes minutes. Reading a chunk finds it at once. */
#ifndef MDM_DATA_HDF5_DRIVER_H
#define MDM_DATA_HDF5_DRIVER_H

#include <hdf5.h>

/* A list of file access properties with this driver, negative on failure. The caller closes it. */
hid_t mdm_driver_access(void);
/* Finds the chunk at these coordinates of a data set in a file that was opened so; `buffer` has room for it,
 * of `bytes` bytes, and keeps what is in it. Returns 0 where it cannot be found. */
int mdm_driver_find_chunk(hid_t array, const hsize_t at[], size_t bytes, void *buffer, haddr_t *place,
                          uint32_t *left_out);

#endif
