/* Readers of tests/golden/golden.h5, for tests: the numbers that the reference implementation gave.
 *
 * A path names a dataset ("/gmm/overlapping/x"). Readers convert from whatever numeric type the file holds; a
 * missing dataset fails the running cmocka test by name. Arrays come in the file's order (row-major); the
 * caller frees them.
 */
#ifndef MDM_TESTS_GOLDEN_H
#define MDM_TESTS_GOLDEN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

/* Reads from another file from now on (NULL: tests/golden/golden.h5 again). The path is not copied. */
void golden_use(const char *path);

/* The whole dataset; the number of elements in *count, which may be NULL. */
float *golden_floats(const char *path, int64_t *count);
double *golden_doubles(const char *path, int64_t *count);
int32_t *golden_ints(const char *path, int64_t *count);
int64_t *golden_longs(const char *path, int64_t *count);
uint8_t *golden_bytes(const char *path, int64_t *count);

/* One number kept as an attribute of a group or dataset (booleans as 0 and 1); the first one of an array. */
double golden_attribute(const char *path, const char *name);

/* A text attribute, in a new string that the caller frees. */
char *golden_text_attribute(const char *path, const char *name);

/* Number of dimensions (0 for a single number), their lengths in dims. */
int golden_shape(const char *path, int64_t dims[8]);

/* Whether the file holds a group or dataset of this path. */
int golden_exists(const char *path);

/* Fails the test unless |actual - expected| <= absolute + relative * |expected| everywhere, naming the worst
 * element and how far it is off. Non-finite values must be equal (NaN to NaN, infinities by sign). */
void assert_close(const float *actual, const float *expected, int64_t n, double absolute, double relative,
                  const char *what);
void assert_close_double(const double *actual, const double *expected, int64_t n, double absolute,
                         double relative, const char *what);

#endif
