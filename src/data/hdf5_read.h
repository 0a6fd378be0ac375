/* Careful reading of an HDF5 file that somebody else wrote: no error stacks on stderr, no plug-ins, no bytes from other
 * files, nothing believed that the file's size contradicts. Not thread-safe, like the library. */
#ifndef MDM_DATA_HDF5_READ_H
#define MDM_DATA_HDF5_READ_H

#include "mdm/base/status.h"
#include <hdf5.h>
#include <stdint.h>

enum { HDF5_READ_MAX_RANK = 8, HDF5_READ_LONGEST_TEXT = 256 };

typedef struct hdf5_set {
    hid_t id; /* -1: not in the file */
    H5T_class_t kind;
    size_t size; /* bytes of an element */
    int is_signed, rank;
    int64_t dims[HDF5_READ_MAX_RANK], elements;
    int64_t offset; /* byte of the file at which a contiguous data set begins, -1 when it is stored in another way */
} hdf5_set;

/* Switches the library's own messages and its plug-ins off. */
void hdf5_read_be_quiet(void);

/* Opens `path` for reading. MDM_INPUT tells a missing file, another format and a cut file apart. */
mdm_status hdf5_read_open(const char *path, hid_t *file);

/* 1 if `name` (absolute, as "/train/images") is there; a link that leads out of the file is not followed. */
int hdf5_read_has(hid_t file, const char *name);

/* Opens a data set; set->id is closed by hdf5_read_close_set(). A missing one is MDM_INPUT, or MDM_OK with id -1 if `optional`. */
mdm_status hdf5_read_open_set(hid_t file, const char *path, const char *name, int optional, hdf5_set *set);
void hdf5_read_close_set(hdf5_set *set);

/* Rows [first, first + count) along the first dimension, converted to `type` in memory. */
mdm_status hdf5_read_rows(const hdf5_set *set, const char *path, const char *name, hid_t type, int64_t first,
                          int64_t count, void *out);

/* A one-dimensional data set of strings, of fixed or variable length, as rows of *width bytes, zero-terminated. The caller
 * frees *texts. */
mdm_status hdf5_read_texts(const hdf5_set *set, const char *path, const char *name, char **texts, int *width);

/* Root attributes: 1 found, 0 not there, -1 there but of another type or number. Text longer than `size` is -1. */
int hdf5_read_text_attribute(hid_t file, const char *name, char *text, size_t size);
int hdf5_read_number_attribute(hid_t file, const char *name, double *numbers, int count);

#endif
