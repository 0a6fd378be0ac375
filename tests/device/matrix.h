/* Matrices that a test has twice: on the host, and on the device that it computes on. */
#ifndef MDM_TESTS_DEVICE_MATRIX_H
#define MDM_TESTS_DEVICE_MATRIX_H

#include "mdm/base/random.h"
#include "test_device.h"
#include <math.h>

static mdm_device *device;

typedef struct matrix {
    float *host, *there;
    int64_t count;
} matrix;

/* Takes over host memory. */
static inline matrix matrix_of(float *host, int64_t count) {
    matrix m = {host, test_device_copy(device, host, sizeof(float) * (size_t)count), count};
    return m;
}

/* Normal numbers, the same for the same `item`. */
static inline matrix make(int64_t count, uint32_t item) {
    float *values = malloc(sizeof(float) * (size_t)(count > 0 ? count : 1));
    assert_non_null(values);
    mdm_random random = mdm_random_stream(11, MDM_RANDOM_TEST, 0, item, 0);
    for (int64_t i = 0; i < count; i++) values[i] = (float)mdm_random_normal(&random);
    return matrix_of(values, count);
}

static inline void let_go(matrix *m) {
    free(m->host);
    mdm_device_free(device, m->there);
}

/* Makes the device's copy that of the host. */
static inline void send(const matrix *m) {
    assert_int_equal(mdm_device_upload(device, m->there, m->host, sizeof(float) * (size_t)m->count), MDM_OK);
}

static inline void assert_there(const matrix *m, const float *expected, double tolerance, const char *what) {
    float *copy = malloc(sizeof(float) * (size_t)(m->count > 0 ? m->count : 1));
    assert_int_equal(mdm_device_download(device, copy, m->there, sizeof(float) * (size_t)m->count), MDM_OK);
    assert_close(copy, expected, m->count, tolerance, tolerance, what);
    free(copy);
}

#endif
