/* The data set file (HDF5): read and checked, or written whole.
 *
 * Layout: /train/images uint8 [N,H,W,C], /train/labels int32 [N] (the given labels), optional /train/true_labels int32
 * [N] (-1: no class of this set), optional /train/ids strings [N], optional /test/images and /test/labels, optional
 * /class_names strings [classes]; root attributes format = "mdm-dataset", format_version = 1, optional mean and std [C] of
 * pixel / 255 (computed from the training pictures when missing). Contiguous or chunked (gzip, shuffle, Fletcher32).
 * Labels of any integer type are read.
 *
 * One process at a time uses these functions on one thread; nothing here is collective.
 */
#ifndef MDM_DATA_DATASET_FILE_H
#define MDM_DATA_DATASET_FILE_H

#include "mdm/base/status.h"
#include "mdm/data/store.h"
#include <stdint.h>

/* Everything of a data set but its pictures. Texts are rows of `..._width` bytes, zero-terminated. Arrays that the file
 * has not got are NULL. */
typedef struct mdm_dataset {
    int64_t train_count, test_count; /* samples */
    int height, width, channels;     /* of a picture; channels is 1 or 3 */
    int classes;                     /* number of class names, else 1 + the largest label */
    float mean[3], std[3];           /* per channel, of pixel / 255 */
    int32_t *train_labels;           /* [train_count] given */
    int32_t *true_labels;            /* [train_count], -1: no class of this set; or NULL */
    int32_t *test_labels;            /* [test_count] or NULL */
    char *class_names;               /* [classes, class_name_width] or NULL */
    int class_name_width;
    char *ids; /* [train_count, id_width] or NULL */
    int id_width;
    char *noise;      /* root attribute `noise`: what label noise was injected, a JSON object; or NULL */
    int64_t noise_seed; /* root attribute `noise_seed`, 0 without `noise` */
} mdm_dataset;

/* Frees the arrays (not the struct) and forgets them. */
void mdm_dataset_release(mdm_dataset *set);

typedef struct mdm_dataset_file mdm_dataset_file;

/* Opens the file and checks all of it but the pixels: MDM_INPUT with one line that names the file, the data set, what is
 * there and what should be. Closed by the caller. */
MDM_MUST_CHECK mdm_status mdm_dataset_open(const char *path, mdm_dataset_file **file);
void mdm_dataset_close(mdm_dataset_file *file);
/* Belongs to the file and goes with it. */
const mdm_dataset *mdm_dataset_get(const mdm_dataset_file *file);
/* Pictures [first, first + count) of a split into out, uint8 [count,H,W,C]. */
MDM_MUST_CHECK mdm_status mdm_dataset_read(mdm_dataset_file *file, mdm_split split, int64_t first, int64_t count,
                                           uint8_t *out);
/* Byte of the file at which the pictures of a split begin, -1 when they are stored in chunks. */
int64_t mdm_dataset_offset(const mdm_dataset_file *file, mdm_split split);

/* Mean and standard deviation per channel, of pixel / 255, of `count` pictures (pictures[i] is uint8 [H,W,C]). */
void mdm_dataset_statistics(const uint8_t *const *pictures, int64_t count, int height, int width, int channels,
                            float *mean, float *std);

/* Writes a whole file through a temporary one (fsync, rename): readers see the old file, the new one, or none. The pictures
 * are train[i] and test[i], uint8 [H,W,C] each; mean and std come from `train`, not from `set`. An existing file is
 * MDM_USAGE unless `force`. MDM_INPUT when the set breaks the rules above, MDM_RESOURCE when the disk refuses. */
MDM_MUST_CHECK mdm_status mdm_dataset_write(const char *path, const mdm_dataset *set, const uint8_t *const *train,
                                            const uint8_t *const *test, int force);

#endif
