/* HDF5 files built and read in memory (core driver without backing store).
 *
 * The library hides write errors when it writes files itself (a full disk gives a file that reads as zeros),
 * so files of the run folder are built in memory and written by mdm_write_file(). The same content gives the
 * same bytes: no times, no filters, contiguous data. Not thread-safe, like the library: one thread at a time.
 */
#ifndef MDM_REPORT_HDF5_IMAGE_H
#define MDM_REPORT_HDF5_IMAGE_H

#include "mdm/base/status.h"
#include <hdf5.h>
#include <stddef.h>
#include <stdint.h>

enum { IMAGE_MAX_RANK = 8 };

/* An empty file in memory; `bytes` is a guess of what it will hold, 0 for little. The caller ends it with
 * image_finish() or H5Fclose(). */
mdm_status image_create(size_t bytes, hid_t *file);

/* Dataset `name` (a path; missing groups are made) under `place`, elements of `type` in memory order. */
mdm_status image_put(hid_t place, const char *name, hid_t type, int rank, const int64_t *dims,
                     const void *data);
mdm_status image_put_text(hid_t place, const char *name, const char *text);

/* Attributes of the object `name` under `place` ("." for itself). */
mdm_status image_put_attribute(hid_t place, const char *name, const char *attribute, hid_t type, int count,
                               const void *data);
mdm_status image_put_text_attribute(hid_t place, const char *name, const char *attribute, const char *text);

/* Closes the file and gives its bytes in a new buffer after `prefix` bytes of zeros; *bytes counts both. */
mdm_status image_finish(hid_t file, size_t prefix, char **content, size_t *bytes);

/* Opens `bytes` bytes as a file to be read, without copying: they must outlive it. `label` is for messages.
 */
mdm_status image_open(void *content, size_t bytes, const char *label, hid_t *file);

typedef struct image_dataset {
    hid_t id;
    H5T_class_t kind;
    size_t size; /* of an element, bytes */
    int is_signed;
    int rank;
    int64_t dims[IMAGE_MAX_RANK], elements;
} image_dataset;

/* Opens dataset `name` (no leading slash) if it is what image_put() writes: reached by hard links only,
 * contiguous, no bytes outside the file. MDM_INPUT otherwise. The caller closes `id`. */
mdm_status image_open_dataset(hid_t place, const char *label, const char *name, image_dataset *set);

/* Reads a dataset of exactly this type and number of elements. */
mdm_status image_get(hid_t place, const char *label, const char *name, hid_t type, int64_t count, void *out);

/* Where the elements of a contiguous dataset begin in the file; -1 where there are none. */
int64_t image_offset(hid_t place, const char *name);

/* 1 if the object can be reached by hard links only. */
int image_has(hid_t place, const char *name);

#endif
