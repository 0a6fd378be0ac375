/* Data sets in memory: made, described by their statistics, and written to a file that a reader sees whole or
 * not at all. */
#include "dataset_hdf5.h"
#include "dataset_internal.h"
#include "mdm/base/text.h"
#include "pictures.h"
#include "spill.h"
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

mdm_status mdm_dataset_create(int64_t train_count, int64_t test_count, int height, int width, int channels,
                              int classes, int with_truth, mdm_dataset **out) {
    mdm_dataset *d;
    long long image = (long long)height * width * channels;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(d, 1, "a data set"));
    d->train_count = train_count;
    d->test_count = test_count;
    d->height = height;
    d->width = width;
    d->channels = channels;
    d->classes = classes;
    mdm_status status;
    MDM_TRY_OR(status, MDM_ALLOCATE(d->train_images, train_count * image, "training pictures"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(d->train_labels, train_count, "labels"), failed);
    if (with_truth) MDM_TRY_OR(status, MDM_ALLOCATE(d->true_labels, train_count, "labels"), failed);
    if (test_count > 0) {
        MDM_TRY_OR(status, MDM_ALLOCATE(d->test_images, test_count * image, "test pictures"), failed);
        MDM_TRY_OR(status, MDM_ALLOCATE(d->test_labels, test_count, "labels"), failed);
    }
    *out = d;
    return MDM_OK;
failed:
    mdm_dataset_destroy(d);
    return status;
}

void mdm_dataset_destroy(mdm_dataset *d) {
    if (!d) return;
    mdm_spill_close(d->spill);
    for (int64_t i = 0; d->ids && i < d->train_count; i++) free(d->ids[i]);
    for (int c = 0; d->class_names && c < d->classes; c++) free(d->class_names[c]);
    for (int i = 0; i < d->note_count; i++) {
        free(d->notes[i].key);
        free(d->notes[i].value);
    }
    free(d->ids);
    free(d->class_names);
    free(d->train_images);
    free(d->test_images);
    free(d->train_encoded);
    free(d->test_encoded);
    for (int split = 0; split < 2; split++) free(d->places[split]);
    free(d->train_offsets);
    free(d->test_offsets);
    free(d->train_labels);
    free(d->true_labels);
    free(d->test_labels);
    free(d);
}

mdm_status mdm_dataset_add_note(mdm_dataset *d, const char *key, const char *value) {
    if (d->note_count == MDM_MOST_NOTES)
        return mdm_fail(MDM_USAGE, "more than %d notes on a data set", MDM_MOST_NOTES);
    mdm_dataset_note note = {strdup(key), strdup(value)};
    if (!note.key || !note.value) {
        free(note.key);
        free(note.value);
        return mdm_fail(MDM_RESOURCE, "out of memory for notes");
    }
    d->notes[d->note_count++] = note;
    return MDM_OK;
}

mdm_status mdm_dataset_set_class_names(mdm_dataset *d, const char *const *names, int count) {
    if (count != d->classes) return mdm_fail(MDM_USAGE, "%d class names for %d classes", count, d->classes);
    for (int c = 0; d->class_names && c < count; c++) free(d->class_names[c]);
    free(d->class_names);
    d->class_names = NULL;
    MDM_TRY(MDM_ALLOCATE(d->class_names, count, "class names"));
    for (int c = 0; c < count; c++)
        if (!(d->class_names[c] = strdup(names[c])))
            return mdm_fail(MDM_RESOURCE, "out of memory for class names");
    return MDM_OK;
}

/* Exact sums of pixel values and their squares. */
static void add_pixels(const uint8_t *images, int64_t count, int64_t pixels, int channels, uint64_t sum[3],
                       uint64_t square[3]) {
    for (int64_t i = 0; i < count * pixels; i++)
        for (int c = 0; c < channels; c++) {
            uint64_t v = images[i * channels + c];
            sum[c] += v;
            square[c] += v * v;
        }
}

void mdm_dataset_finish_statistics(mdm_dataset *d, const uint64_t sum[3], const uint64_t square[3]) {
    double n = (double)d->train_count * d->height * d->width;
    for (int c = 0; c < d->channels; c++) {
        double mean = (double)sum[c] / n, variance = (double)square[c] / n - mean * mean;
        d->mean[c] = (float)(mean / 255.0);
        d->std[c] = variance > 1e-9 ? (float)(sqrt(variance) / 255.0) : 1.0f;
    }
}

void mdm_dataset_statistics(mdm_dataset *d) {
    uint64_t sum[3] = {0}, square[3] = {0};
    add_pixels(d->train_images, d->train_count, (int64_t)d->height * d->width, d->channels, sum, square);
    mdm_dataset_finish_statistics(d, sum, square);
}

mdm_status mdm_dataset_stream_statistics(const char *path, mdm_dataset *d) {
    uint64_t sum[3] = {0}, square[3] = {0};
    int64_t image = (int64_t)d->height * d->width * d->channels, piece = ((int64_t)64 << 20) / image + 1;
    uint8_t *buffer;
    mdm_pictures *pictures;
    if (piece > d->train_count) piece = d->train_count;
    MDM_TRY(mdm_pictures_open(path, d->places[0], &pictures));
    mdm_status status = MDM_ALLOCATE(buffer, piece * image, "pictures");
    for (int64_t first = 0; status == MDM_OK && first < d->train_count; first += piece) {
        int64_t count = d->train_count - first < piece ? d->train_count - first : piece;
        status = mdm_pictures_read(pictures, first, count, buffer);
        if (status == MDM_OK)
            add_pixels(buffer, count, (int64_t)d->height * d->width, d->channels, sum, square);
    }
    free(buffer);
    mdm_pictures_close(pictures);
    if (status == MDM_OK) mdm_dataset_finish_statistics(d, sum, square);
    return status;
}

static int write_array(hid_t file, const char *name, int rank, const hsize_t *dims, hid_t stored,
                       hid_t memory, const void *data) {
    hid_t space = H5Screate_simple(rank, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(plist, 0); /* the same data give the same bytes */
    hid_t array = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    int good = array >= 0 && H5Dwrite(array, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    if (array >= 0) good = H5Dclose(array) >= 0 && good;
    H5Sclose(space);
    H5Pclose(plist);
    return good;
}

/* Copies `count` rows of `bytes` from the import's working file, piece by piece. Its pixels are RGB; of grey
 * pictures one channel is kept. */
static int copy_rows(hid_t array, const mdm_spill *spill, int64_t at, int rank, const hsize_t *dims,
                     int64_t bytes, int grey) {
    int64_t count = (int64_t)dims[0], piece = ((int64_t)16 << 20) / bytes + 1;
    uint8_t *rows;
    if (piece > count) piece = count;
    if (mdm_allocate((void **)&rows, piece, bytes, "pictures") != MDM_OK) return 0;
    int good = 1;
    hid_t space = H5Dget_space(array);
    for (int64_t first = 0; good && first < count; first += piece) {
        hsize_t start[4] = {(hsize_t)first}, size[4];
        memcpy(size, dims, sizeof *dims * (size_t)rank);
        size[0] = (hsize_t)(count - first < piece ? count - first : piece);
        int64_t total = (int64_t)size[0] * bytes;
        good = mdm_spill_read(spill, at + first * bytes, total, rows) == MDM_OK;
        for (int64_t i = 0; good && grey && i < total / 3; i++) rows[i] = rows[3 * i];
        hid_t memory = H5Screate_simple(rank, size, NULL);
        good = good && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0 &&
               H5Dwrite(array, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, rows) >= 0;
        H5Sclose(memory);
    }
    H5Sclose(space);
    free(rows);
    return good;
}

/* An array of bytes that come from the import's working file, from `at` on. */
static int write_spilled(hid_t file, const char *name, int rank, const hsize_t *dims, const mdm_dataset *d,
                         int64_t at) {
    hid_t space = H5Screate_simple(rank, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    int64_t bytes = rank == 4 ? (int64_t)d->height * d->width * 3 : 1;
    H5Pset_obj_track_times(plist, 0);
    H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER);
    hid_t array = H5Dcreate2(file, name, H5T_STD_U8LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    int good = array >= 0 && copy_rows(array, d->spill, at, rank, dims, bytes, rank == 4 && d->channels == 1);
    if (array >= 0) good = H5Dclose(array) >= 0 && good;
    H5Sclose(space);
    H5Pclose(plist);
    return good;
}

/* -1 where there is none to be had. */
static hid_t text_type(size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0 || (H5Tset_size(type, size) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0)) return type;
    H5Tclose(type);
    return -1;
}

static int write_strings(hid_t file, const char *name, char *const *strings, int64_t count) {
    size_t size = 1;
    for (int64_t i = 0; i < count; i++) size = strlen(strings[i]) + 1 > size ? strlen(strings[i]) + 1 : size;
    char *fixed = NULL;
    if (mdm_allocate((void **)&fixed, count, (long long)size, "names") != MDM_OK) return 0;
    for (int64_t i = 0; i < count; i++) memcpy(fixed + (size_t)i * size, strings[i], strlen(strings[i]));
    hid_t type = text_type(size);
    hsize_t dims[1] = {(hsize_t)count};
    int good = write_array(file, name, 1, dims, type, type, fixed);
    H5Tclose(type);
    free(fixed);
    return good;
}

static int write_attribute(hid_t file, const char *name, hid_t type, int count, const void *data) {
    hsize_t dims[1] = {(hsize_t)count};
    hid_t space = count > 0 ? H5Screate_simple(1, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    int good = attribute >= 0 && H5Awrite(attribute, type, data) >= 0;
    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(space);
    return good;
}

static int write_text_attribute(hid_t file, const char *name, const char *text) {
    hid_t type = text_type(strlen(text) + 1);
    int good = write_attribute(file, name, type, 0, text);
    H5Tclose(type);
    return good;
}

static int write_encoded(hid_t file, const char *group, const mdm_dataset *d, int64_t count, int test) {
    const int64_t *offsets = test ? d->test_offsets : d->train_offsets;
    char name[64];
    hsize_t bytes = (hsize_t)offsets[count], ends = (hsize_t)count + 1;
    snprintf(name, sizeof name, "%s/encoded", group);
    int good = d->spill ? write_spilled(file, name, 1, &bytes, d, test ? d->spill_test : 0)
                        : write_array(file, name, 1, &bytes, H5T_STD_U8LE, H5T_NATIVE_UINT8,
                                      test ? d->test_encoded : d->train_encoded);
    snprintf(name, sizeof name, "%s/offsets", group);
    return good && write_array(file, name, 1, &ends, H5T_STD_I64LE, H5T_NATIVE_INT64, offsets);
}

static int write_split(hid_t file, const char *group, const mdm_dataset *d, int64_t count, int test) {
    const uint8_t *images = test ? d->test_images : d->train_images;
    const int32_t *labels = test ? d->test_labels : d->train_labels, *truth = test ? NULL : d->true_labels;
    char name[64];
    hsize_t dims[4] = {(hsize_t)count, (hsize_t)d->height, (hsize_t)d->width, (hsize_t)d->channels};
    hid_t plist = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(plist, 0);
    hid_t made = H5Gcreate2(file, group, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Pclose(plist);
    if (made < 0) return 0;
    H5Gclose(made);
    snprintf(name, sizeof name, "%s/images", group);
    int good;
    if (d->train_offsets)
        good = write_encoded(file, group, d, count, test);
    else if (d->spill)
        good = write_spilled(file, name, 4, dims, d, test ? d->spill_test : 0);
    else
        good = write_array(file, name, 4, dims, H5T_STD_U8LE, H5T_NATIVE_UINT8, images);
    snprintf(name, sizeof name, "%s/labels", group);
    good = good && write_array(file, name, 1, dims, H5T_STD_I32LE, H5T_NATIVE_INT32, labels);
    snprintf(name, sizeof name, "%s/true_labels", group);
    return good && (!truth || write_array(file, name, 1, dims, H5T_STD_I32LE, H5T_NATIVE_INT32, truth));
}

static int write_content(hid_t file, const mdm_dataset *d) {
    int version = 1;
    int good = write_text_attribute(file, "format", "mdm-dataset") &&
               write_attribute(file, "format_version", H5T_NATIVE_INT, 0, &version) &&
               write_attribute(file, "mean", H5T_NATIVE_FLOAT, d->channels, d->mean) &&
               write_attribute(file, "std", H5T_NATIVE_FLOAT, d->channels, d->std);
    for (int i = 0; good && i < d->note_count; i++)
        good = write_text_attribute(file, d->notes[i].key, d->notes[i].value);
    int size[3] = {d->height, d->width, d->channels};
    if (d->train_offsets) good = good && write_attribute(file, "picture_size", H5T_NATIVE_INT, 3, size);
    good = good && write_split(file, "/train", d, d->train_count, 0);
    if (d->ids) good = good && write_strings(file, "/train/ids", d->ids, d->train_count);
    if (d->test_count > 0) good = good && write_split(file, "/test", d, d->test_count, 1);
    if (d->class_names) good = good && write_strings(file, "/class_names", d->class_names, d->classes);
    return good;
}

/* A name is on the disk once its folder is. Not every file system can: best effort. */
static void sync_folder(const char *path) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder] = 0;
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    if (fsync(descriptor) != 0) errno = 0;
    close(descriptor);
}

static int sync_path(const char *path) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return 0;
    int good = fsync(descriptor) == 0;
    return close(descriptor) == 0 && good;
}

mdm_status mdm_dataset_write(const char *path, const mdm_dataset *d, int force) {
    char temporary[4096];
    mdm_dataset_quiet();
    if (!force && access(path, F_OK) == 0) return mdm_fail(MDM_USAGE, "%s exists; --force replaces it", path);
    MDM_TRY(mdm_check_replaceable(path));
    /* an import is alone at its place, so that what a killed one left is replaced */
    int length = d->spill ? snprintf(temporary, sizeof temporary, "%s.part", path)
                          : snprintf(temporary, sizeof temporary, "%s.part-%ld", path, (long)getpid());
    if (length >= (int)sizeof temporary) return mdm_fail(MDM_USAGE, "the path %s is too long", path);
    mdm_dataset with_statistics = *d; /* borrows the arrays */
    if (d->std[0] == 0.0f) mdm_dataset_statistics(&with_statistics);
    errno = 0;
    hid_t file = H5Fcreate(temporary, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0)
        return mdm_fail(MDM_RESOURCE, "%s cannot be written (%s); choose another place", path,
                        strerror(errno));
    int good = write_content(file, &with_statistics);
    good = H5Fclose(file) >= 0 && good;
    good = good && sync_path(temporary);
    if (good && rename(temporary, path) == 0) {
        sync_folder(path);
        return MDM_OK;
    }
    int reason = errno;
    unlink(temporary);
    return mdm_fail(MDM_RESOURCE, "%s could not be written (%s); is the disk full?", path,
                    strerror(reason ? reason : EIO));
}
