/* Importers: the formats that data sets come in, to a data set in memory. Every check that fails is MDM_INPUT
 * naming the file. */
#ifndef MDM_DATA_IMPORT_H
#define MDM_DATA_IMPORT_H

#include "mdm/data/dataset_file.h"

typedef enum mdm_import_format {
    MDM_IMPORT_AUTO,
    MDM_IMPORT_IDX,
    MDM_IMPORT_CIFAR10,
    MDM_IMPORT_CIFAR100,
    MDM_IMPORT_FOLDER,  /* a folder a class */
    MDM_IMPORT_LIST,    /* a text file of `path label` lines */
    MDM_IMPORT_METADATA /* metadata.csv or metadata.jsonl beside the pictures */
} mdm_import_format;

typedef struct mdm_import_options {
    mdm_import_format format;
    const char *root;   /* list: folder that its paths start from; NULL: the list's own */
    const char *labels; /* list: file of `path label` lines for a list of paths alone; or NULL */
    const char *test; /* folder of test pictures (NULL: test, val, valid or validation in a folder source) */
    const char *test_list;               /* list file of test pictures, or NULL */
    const char *test_root, *test_labels; /* of the test list; NULL: root and labels */
    const char *classes; /* file of class names, one a line: order and number of the classes; or NULL */
    /* lists with a header and metadata: NULL for file_name (in lists also path, file, image and the like),
     * and for label, labels, class or category */
    const char *file_column, *label_column;
    int number_names; /* labels that are numbers are names, too, in the order of the numbers */
    int size;         /* side that pictures are scaled and cut to; 0: all must have one size */
    int keep_encoded; /* store the files as they are */
    int skip_errors;  /* leave unreadable pictures out and list them, instead of failing */
    int threads;      /* 0: the processors of the affinity mask */
    const char *work; /* pictures: working files begin with this path; NULL: in memory, nothing to resume */
} mdm_import_options;

/* Reads the data set at `source`, which MDM_IMPORT_AUTO recognises:
 *
 * - idx: a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-... (MNIST's names)
 *
 * - cifar10: data_batch_1.bin ... test_batch.bin, batches.meta.txt, or the Python files data_batch_1 ...
 *
 * - cifar100: train.bin, test.bin, fine_label_names.txt, or the Python files train, test, meta (fine labels)
 *
 * - folder: class folders of JPEG and PNG files, or train/ with them and test/, val/, valid/ or validation/
 *
 * - list: a text file; metadata: a folder (or its train/ and test/ ...) with metadata.csv or metadata.jsonl
 *
 * IDX and CIFAR files may lie in a tar archive (.tar, .tar.gz, .tgz); IDX and binary CIFAR may be gzipped.
 * The test set may be missing. IDX and CIFAR set true_labels to the source's labels; pictures have none, and
 * their ids are the paths relative to the source. Progress and skipped files are told on stderr. The order of
 * samples depends on the source only, not on threads.
 *
 * Pictures take bounded memory: the set refers to the working files WORK.import-pictures and
 * WORK.import-journal, from which an import that was stopped goes on; mdm_import_finish() removes them. The
 * caller owns the set. */
MDM_MUST_CHECK mdm_status mdm_import(const char *source, const mdm_import_options *options,
                                     mdm_dataset **dataset);

/* Removes an import's working files, after the set has been written. */
void mdm_import_finish(mdm_dataset *dataset);

MDM_MUST_CHECK mdm_status mdm_import_idx(const char *folder, mdm_dataset **dataset);
MDM_MUST_CHECK mdm_status mdm_import_cifar(const char *folder, int classes, mdm_dataset **dataset);
MDM_MUST_CHECK mdm_status mdm_import_cifar_python(const char *folder, int classes, mdm_dataset **dataset);
MDM_MUST_CHECK mdm_status mdm_import_pictures(const char *source, const mdm_import_options *options,
                                              mdm_dataset **dataset);

#endif
