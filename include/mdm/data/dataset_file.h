/* Data set files in memory: reading, checking and writing /train, /test, names and statistics (CONTRACT
 * section 3).
 *
 * For importers, noise injection and inspection, which handle a data set as a whole. Training uses
 * mdm/data/store.h.
 */
#ifndef MDM_DATA_DATASET_FILE_H
#define MDM_DATA_DATASET_FILE_H

#include "mdm/base/status.h"
#include <stdint.h>

enum { MDM_MOST_NOTES = 32 };

typedef struct mdm_dataset_note {
    char *key, *value; /* a root attribute that tells where the data come from */
} mdm_dataset_note;

typedef struct mdm_dataset {
    int64_t train_count, test_count; /* test_count 0: no test set */
    int height, width, channels, classes;
    uint8_t *train_images, *test_images; /* [N,H,W,C] */
    /* Instead of images: JPEG or PNG files one after another, and where each begins, [N+1]. Decoded, a
     * picture is brought to [H,W,C] as mdm_picture_fit() does. */
    uint8_t *train_encoded, *test_encoded;
    int64_t *train_offsets, *test_offsets;
    /* Instead of both, after an import of picture files: they lie in its working file (owned), as RGB or
     * encoded, those of the test set from spill_test on. Only mdm_dataset_write() can take such a data set.
     */
    struct mdm_spill *spill;
    int64_t spill_test;
    struct mdm_places *places[2]; /* where pictures of train and test lie in the file it was read from */
    int32_t *train_labels, *true_labels,
        *test_labels;      /* true_labels NULL when unknown; -1: no class of this set */
    char **ids;            /* [train_count] or NULL */
    char **class_names;    /* [classes] or NULL */
    float mean[3], std[3]; /* per channel, of pixel / 255 */
    mdm_dataset_note notes[MDM_MOST_NOTES];
    int note_count;
} mdm_dataset;

/* Allocates images and labels for the given sizes (true labels with `with_truth`); everything else is empty.
 * The caller owns it. */
MDM_MUST_CHECK mdm_status mdm_dataset_create(int64_t train_count, int64_t test_count, int height, int width,
                                             int channels, int classes, int with_truth,
                                             mdm_dataset **dataset);
void mdm_dataset_destroy(mdm_dataset *dataset);
/* Copies. */
MDM_MUST_CHECK mdm_status mdm_dataset_add_note(mdm_dataset *dataset, const char *key, const char *value);
MDM_MUST_CHECK mdm_status mdm_dataset_set_class_names(mdm_dataset *dataset, const char *const *names,
                                                      int count);
/* Mean and deviation from exact sums of the training pixels and of their squares, per channel. */
void mdm_dataset_finish_statistics(mdm_dataset *dataset, const uint64_t sum[3], const uint64_t square[3]);
/* Mean and standard deviation of the training images per channel; a constant channel gets deviation 1. */
void mdm_dataset_statistics(mdm_dataset *dataset);

/* Reads and checks a whole file. MDM_INPUT, one line, for everything that is wrong with it. */
MDM_MUST_CHECK mdm_status mdm_dataset_read(const char *path, mdm_dataset **dataset);
/* The same without pictures: the image pointers stay NULL, `places` tell where to read them. */
MDM_MUST_CHECK mdm_status mdm_dataset_read_labels(const char *path, mdm_dataset **dataset);
/* Reads pictures [first, first + count) of a split (0 train, 1 test) of that file into `images`. */
MDM_MUST_CHECK mdm_status mdm_dataset_read_images(const char *path, const mdm_dataset *dataset, int split,
                                                  int64_t first, int64_t count, uint8_t *images);
/* Warns when there are classes that no training label names, which the networks would learn to expect all the
 * same; `cure` says what to do. */
void mdm_warn_of_empty_classes(const int32_t *labels, int64_t count, int classes, const char *cure);
/* Warns, and returns 1, where the file names a class otherwise than the networks' data set does; either name
 * may be NULL. Labels are compared by number, so another order of the classes gives wrong accuracies. */
int mdm_warn_of_other_name(const char *path, int label, const char *name, const char *expected);
/* Writes the file so that a reader sees the old one or the new one; an existing file is replaced only with
 * `force`, else MDM_USAGE. The same data set gives the same bytes. */
MDM_MUST_CHECK mdm_status mdm_dataset_write(const char *path, const mdm_dataset *dataset, int force);

#endif
