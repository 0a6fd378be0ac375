/* Makes small data sets of known content, and changes parts of their files by plain HDF5 calls. */
#include "dataset_test.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

uint8_t pixel_of(int split, int64_t index, int64_t b) {
    return (uint8_t)(index * 31 + b * 7 + (b * index) % 13 + split * 101);
}

mdm_dataset *small_dataset(int64_t train, int64_t test, int height, int width, int channels, int classes) {
    mdm_dataset *d;
    int64_t bytes = (int64_t)height * width * channels;
    assert_int_equal(mdm_dataset_create(train, test, height, width, channels, classes, 1, &d), MDM_OK);
    for (int64_t i = 0; i < train; i++) {
        d->train_labels[i] = (int32_t)(i % classes);
        d->true_labels[i] = i % 7 == 0 ? -1 : (int32_t)(i % classes);
        for (int64_t b = 0; b < bytes; b++) d->train_images[i * bytes + b] = pixel_of(0, i, b);
    }
    for (int64_t i = 0; i < test; i++) {
        d->test_labels[i] = (int32_t)((i + 1) % classes);
        for (int64_t b = 0; b < bytes; b++) d->test_images[i * bytes + b] = pixel_of(1, i, b);
    }
    mdm_dataset_statistics(d);
    return d;
}

void put(hid_t file, const char *name, int rank, const hsize_t *dims, hid_t type, const void *data,
         hsize_t chunk) {
    if (H5Lexists(file, name, H5P_DEFAULT) > 0) assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    hid_t space = rank > 0 ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk > 0) {
        hsize_t shape[8];
        for (int i = 0; i < rank; i++) shape[i] = i == 0 ? chunk : dims[i];
        assert_true(H5Pset_chunk(plist, rank, shape) >= 0 && H5Pset_deflate(plist, 4) >= 0);
    }
    hid_t array = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(array >= 0);
    if (data) assert_true(H5Dwrite(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(array);
    H5Pclose(plist);
    H5Sclose(space);
}

void put_attribute(hid_t file, const char *name, hid_t type, int count, const void *data) {
    hsize_t dims[1] = {(hsize_t)count};
    if (H5Aexists(file, name) > 0) assert_true(H5Adelete(file, name) >= 0);
    hid_t space = count > 0 ? H5Screate_simple(1, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, data) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

void compress(const char *path, const mdm_dataset *d, hsize_t chunk) {
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hsize_t dims[4] = {(hsize_t)d->train_count, (hsize_t)d->height, (hsize_t)d->width, (hsize_t)d->channels};
    assert_true(file >= 0);
    put(file, "/train/images", 4, dims, H5T_STD_U8LE, d->train_images, chunk);
    dims[0] = (hsize_t)d->test_count;
    if (d->test_count > 0) put(file, "/test/images", 4, dims, H5T_STD_U8LE, d->test_images, chunk);
    assert_true(H5Fclose(file) >= 0);
}

char test_path[64];

int make_test_path(void **state) {
    (void)state;
    snprintf(test_path, sizeof test_path, "/tmp/mdm-dataset-XXXXXX");
    int file = mkstemp(test_path);
    return file < 0 || close(file);
}

int remove_test_path(void **state) {
    (void)state;
    return unlink(test_path);
}
