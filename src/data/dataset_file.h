/* Inside the room: the pictures of a data set file opened without its labels, as ranks other than 0 need them. */
#ifndef MDM_DATA_DATASET_FILE_INTERNAL_H
#define MDM_DATA_DATASET_FILE_INTERNAL_H

#include "hdf5_read.h"
#include "mdm/data/dataset_file.h"

struct mdm_dataset_file {
    hid_t file;
    hdf5_set images[2]; /* by mdm_split */
    mdm_dataset set;
    char *path;
};

extern const char *const dataset_image_names[2];

/* Opens the file and checks the pictures' type and shape only; for mdm_dataset_read. */
mdm_status dataset_open_pictures(const char *path, mdm_dataset_file **file);

/* Adds a picture's pixels to histograms [channels][256]. */
void dataset_count_pixels(const uint8_t *pixels, int64_t pictures, int64_t area, int channels, int64_t *histogram);
void dataset_histogram_statistics(const int64_t *histogram, int channels, float *mean, float *std);

/* Checks labels against the class count: MDM_INPUT names the sample and the value. */
mdm_status dataset_check_labels(const char *path, const char *name, const int32_t *labels, int64_t count, int32_t lowest,
                                int classes);

#endif
