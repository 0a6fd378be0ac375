/* From a path in the golden file to plain arrays, through the HDF5 C interface; and the comparison of arrays.
 */
#include "golden.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *golden_file = MDM_GOLDEN_FILE;

void golden_use(const char *path) {
    golden_file = path ? path : MDM_GOLDEN_FILE;
}

/* MDM_GOLDEN_FOLDER: where the files lie on a machine without the sources. */
static hid_t open_file(void) {
    char path[4096];
    const char *folder = getenv("MDM_GOLDEN_FOLDER"), *name = strrchr(golden_file, '/');
    snprintf(path, sizeof path, "%s", golden_file);
    if (folder && name) snprintf(path, sizeof path, "%s%s", folder, name);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) fail_msg("cannot open %s", path);
    return file;
}

/* H5Lexists wants every parent to exist: ask step by step. */
static int link_exists(hid_t file, const char *path) {
    char part[512];
    size_t length = strlen(path);
    if (length >= sizeof part) return 0;
    if (strcmp(path, "/") == 0) return 1;
    for (size_t i = 1; i <= length; i++)
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (H5Lexists(file, part, H5P_DEFAULT) <= 0) return 0;
        }
    return 1;
}

static hid_t open_dataset(hid_t file, const char *path) {
    hid_t dataset = link_exists(file, path) ? H5Dopen2(file, path, H5P_DEFAULT) : -1;
    if (dataset < 0) {
        H5Fclose(file);
        fail_msg("%s holds no dataset %s", golden_file, path);
    }
    return dataset;
}

/* A conversion that would wrap or cut (300 as a byte) is a mistake of the test, not something to clip
 * silently. */
static H5T_conv_ret_t refuse_exception(H5T_conv_except_t kind, hid_t from, hid_t to, void *source,
                                       void *target, void *data) {
    (void)from, (void)to, (void)source, (void)target;
    if (kind == H5T_CONV_EXCEPT_RANGE_HI || kind == H5T_CONV_EXCEPT_RANGE_LOW) *(int *)data = 1;
    return H5T_CONV_UNHANDLED;
}

static void *read_dataset(const char *path, hid_t type, size_t size, int64_t *count) {
    hid_t file = open_file(), dataset = open_dataset(file, path);
    hid_t space = H5Dget_space(dataset), transfer = H5Pcreate(H5P_DATASET_XFER),
          stored = H5Dget_type(dataset);
    int64_t n = (int64_t)H5Sget_simple_extent_npoints(space);
    int out_of_range = 0;
    void *values = calloc((size_t)(n > 0 ? n : 1), size);
    assert_non_null(values);
    H5Pset_type_conv_cb(transfer, refuse_exception, &out_of_range);
    herr_t result = -1;
    if (H5Tget_class(stored) != H5T_ENUM)
        result = H5Dread(dataset, type, H5S_ALL, H5S_ALL, transfer, values);
    else { /* h5py keeps booleans as an enumeration of one byte */
        int8_t *flags = calloc((size_t)(n > 0 ? n : 1), 1);
        assert_non_null(flags);
        if (H5Tget_size(stored) == 1) result = H5Dread(dataset, stored, H5S_ALL, H5S_ALL, H5P_DEFAULT, flags);
        for (int64_t i = 0; i < n; i++) {
            if (type == H5T_NATIVE_FLOAT)
                ((float *)values)[i] = flags[i];
            else if (type == H5T_NATIVE_DOUBLE)
                ((double *)values)[i] = flags[i];
            else if (type == H5T_NATIVE_INT32)
                ((int32_t *)values)[i] = flags[i];
            else if (type == H5T_NATIVE_INT64)
                ((int64_t *)values)[i] = flags[i];
            else
                ((uint8_t *)values)[i] = (uint8_t)flags[i];
        }
        free(flags);
    }
    H5Tclose(stored);
    H5Pclose(transfer);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
    if (result < 0) fail_msg("cannot read %s of %s as numbers", path, golden_file);
    if (out_of_range)
        fail_msg("%s of %s holds numbers that do not fit the type asked for", path, golden_file);
    if (count) *count = n;
    return values;
}

float *golden_floats(const char *path, int64_t *count) {
    return read_dataset(path, H5T_NATIVE_FLOAT, sizeof(float), count);
}

double *golden_doubles(const char *path, int64_t *count) {
    return read_dataset(path, H5T_NATIVE_DOUBLE, sizeof(double), count);
}

int32_t *golden_ints(const char *path, int64_t *count) {
    return read_dataset(path, H5T_NATIVE_INT32, sizeof(int32_t), count);
}

int64_t *golden_longs(const char *path, int64_t *count) {
    return read_dataset(path, H5T_NATIVE_INT64, sizeof(int64_t), count);
}

uint8_t *golden_bytes(const char *path, int64_t *count) {
    return read_dataset(path, H5T_NATIVE_UINT8, sizeof(uint8_t), count);
}

static hid_t open_attribute(hid_t file, const char *path, const char *name) {
    hid_t attribute = -1;
    if (link_exists(file, path) && H5Aexists_by_name(file, path, name, H5P_DEFAULT) > 0)
        attribute = H5Aopen_by_name(file, path, name, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0) {
        H5Fclose(file);
        fail_msg("%s holds no attribute %s of %s", golden_file, name, path);
    }
    return attribute;
}

double golden_attribute(const char *path, const char *name) {
    hid_t file = open_file(), attribute = open_attribute(file, path, name);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    int64_t n = (int64_t)H5Sget_simple_extent_npoints(space);
    double *values = calloc((size_t)(n > 0 ? n : 1), sizeof *values), first = NAN;
    assert_non_null(values);
    herr_t result = -1;
    if (n > 0 && H5Tget_class(type) == H5T_ENUM && H5Tget_size(type) == 1) {
        result = H5Aread(attribute, type, values);
        first = *(const int8_t *)values;
    } else if (n > 0 && (H5Tget_class(type) == H5T_INTEGER || H5Tget_class(type) == H5T_FLOAT)) {
        result = H5Aread(attribute, H5T_NATIVE_DOUBLE, values);
        first = values[0];
    }
    free(values);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    H5Fclose(file);
    if (result < 0) fail_msg("attribute %s of %s is no number", name, path);
    return first;
}

char *golden_text_attribute(const char *path, const char *name) {
    hid_t file = open_file(), attribute = open_attribute(file, path, name);
    hid_t type = H5Aget_type(attribute);
    char *text = NULL;
    if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0) {
        char *stored = NULL;
        if (H5Aread(attribute, type, &stored) >= 0 && stored) text = strdup(stored);
        H5free_memory(stored);
    } else if (H5Tget_class(type) == H5T_STRING) {
        text = calloc(H5Tget_size(type) + 1, 1);
        assert_non_null(text);
        if (H5Aread(attribute, type, text) < 0) text[0] = '\0';
    }
    H5Tclose(type);
    H5Aclose(attribute);
    H5Fclose(file);
    if (!text) fail_msg("attribute %s of %s is no text", name, path);
    return text;
}

int golden_shape(const char *path, int64_t dims[8]) {
    hid_t file = open_file(), dataset = open_dataset(file, path), space = H5Dget_space(dataset);
    hsize_t lengths[H5S_MAX_RANK];
    int rank = H5Sget_simple_extent_dims(space, lengths, NULL);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
    if (rank < 0 || rank > 8) fail_msg("%s has %d dimensions", path, rank);
    for (int i = 0; i < rank; i++) dims[i] = (int64_t)lengths[i];
    return rank;
}

int golden_exists(const char *path) {
    hid_t file = open_file();
    int exists = link_exists(file, path);
    H5Fclose(file);
    return exists;
}

/* How far off, in multiples of what is allowed; above 1 is too far. */
static double excess(double actual, double expected, double absolute, double relative) {
    if (isnan(expected) || isnan(actual)) return isnan(expected) && isnan(actual) ? 0.0 : INFINITY;
    if (isinf(expected) || isinf(actual)) return actual == expected ? 0.0 : INFINITY;
    double off = fabs(actual - expected), allowed = absolute + relative * fabs(expected);
    if (off == 0.0) return 0.0;
    return allowed > 0.0 ? off / allowed : INFINITY;
}

typedef struct worst_element {
    int64_t index, wrong;
    double excess, actual, expected;
} worst_element;

static void look_at(worst_element *worst, int64_t index, double actual, double expected, double absolute,
                    double relative) {
    double e = excess(actual, expected, absolute, relative);
    if (e > 1.0) worst->wrong++;
    if (e > worst->excess) {
        worst->excess = e;
        worst->index = index;
        worst->actual = actual;
        worst->expected = expected;
    }
}

static void fail_when_wrong(const worst_element *worst, int64_t n, double absolute, double relative,
                            const char *what) {
    if (worst->wrong == 0) return;
    fail_msg("%s: %lld of %lld elements are off, worst [%lld] is %.9g, expected %.9g (off by %.3g; allowed "
             "%.3g + %.3g * |expected|)",
             what, (long long)worst->wrong, (long long)n, (long long)worst->index, worst->actual,
             worst->expected, fabs(worst->actual - worst->expected), absolute, relative);
}

void assert_close(const float *actual, const float *expected, int64_t n, double absolute, double relative,
                  const char *what) {
    worst_element worst = {0};
    for (int64_t i = 0; i < n; i++)
        look_at(&worst, i, (double)actual[i], (double)expected[i], absolute, relative);
    fail_when_wrong(&worst, n, absolute, relative, what);
}

void assert_close_double(const double *actual, const double *expected, int64_t n, double absolute,
                         double relative, const char *what) {
    worst_element worst = {0};
    for (int64_t i = 0; i < n; i++) look_at(&worst, i, actual[i], expected[i], absolute, relative);
    fail_when_wrong(&worst, n, absolute, relative, what);
}
