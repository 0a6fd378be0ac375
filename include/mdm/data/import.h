/* Importers: the formats that data sets come in, to a data set in memory. Every check that fails is MDM_INPUT
 * naming the file. */
#ifndef MDM_DATA_IMPORT_H
#define MDM_DATA_IMPORT_H

#include "mdm/data/dataset_file.h"

typedef enum mdm_import_format {
    MDM_IMPORT_AUTO,
    MDM_IMPORT_IDX,
    MDM_IMPORT_CIFAR10,
    MDM_IMPORT_CIFAR100
} mdm_import_format;

/* Reads the data set in `folder`, gzipped or not. MDM_IMPORT_AUTO looks which files are there.
 *   idx       train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-..., t10k-labels-... (MNIST's
 * names) cifar10   data_batch_1.bin .. data_batch_5.bin, test_batch.bin, batches.meta.txt cifar100 train.bin,
 * test.bin, fine_label_names.txt (fine labels) The test files may be missing. true_labels are those of the
 * source. The caller owns the data set. */
MDM_MUST_CHECK mdm_status mdm_import(const char *folder, mdm_import_format format, mdm_dataset **dataset);

MDM_MUST_CHECK mdm_status mdm_import_idx(const char *folder, mdm_dataset **dataset);
MDM_MUST_CHECK mdm_status mdm_import_cifar(const char *folder, int classes, mdm_dataset **dataset);

#endif
