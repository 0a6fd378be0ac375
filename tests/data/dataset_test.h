/* Small data sets for tests, and ways to spoil their files. */
#ifndef MDM_TESTS_DATASET_TEST_H
#define MDM_TESTS_DATASET_TEST_H

#include "golden.h"
#include "mdm/data/dataset_file.h"
#include <hdf5.h>

/* What the picture at `index` of a split (0 train, 1 test) holds at byte `b`. */
uint8_t pixel_of(int split, int64_t index, int64_t b);
/* A data set with known content: labels are index % classes, true labels follow with -1 at every seventh
 * sample. */
mdm_dataset *small_dataset(int64_t train, int64_t test, int height, int width, int channels, int classes);
/* Replaces a data set of an open file by `data`; chunk > 0: compressed chunks of so many rows. */
void put(hid_t file, const char *name, int rank, const hsize_t *dims, hid_t type, const void *data,
         hsize_t chunk);
void put_attribute(hid_t file, const char *name, hid_t type, int count, const void *data);
/* Around a group of tests: a file of its own, there and empty. */
extern char test_path[64];
int make_test_path(void **state);
int remove_test_path(void **state);
/* Stores the pictures of both splits again, compressed. */
void compress(const char *path, const mdm_dataset *dataset, hsize_t chunk);

#endif
