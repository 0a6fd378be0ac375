/* Floats to multiples of a small unit, added as whole numbers, and back. */
#include "mdm/base/grid_sum.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Loops over millions of weights: the widest vectors that the processor has. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) &&                       \
    !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define WIDE
#endif

/* 64 terms below 2^13, in multiples of 2^-44, stay below 2^63. */
static const double unit = 0x1p44, limit = 0x1p13;

mdm_status mdm_grid_sums_create(int64_t count, mdm_grid_sums *sums) {
    sums->count = count;
    return MDM_ALLOCATE(sums->whole, count + 1, "sums of gradients");
}

void mdm_grid_sums_free(mdm_grid_sums *sums) {
    free(sums->whole);
    sums->whole = NULL;
}

void mdm_grid_sums_clear(mdm_grid_sums *sums) {
    memset(sums->whole, 0, sizeof *sums->whole * (size_t)(sums->count + 1));
}

void mdm_grid_sums_clear_part(mdm_grid_sums *sums, int64_t first, int64_t n) {
    memset(sums->whole + first, 0, sizeof *sums->whole * (size_t)n);
}

/* A product with a power of two is exact, and so is the cut of the rest: float or double, the same number. */
#define DEFINE_ADD(name, type)                                                                               \
    WIDE static int64_t name(int64_t *restrict sums, const type *restrict terms, int64_t n) {                \
        int64_t unfit = 0;                                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            type term = terms[i];                                                                            \
            int fits = term < (type)limit && term > -(type)limit; /* false for NaN */                        \
            term = fits ? term : (type)0;                                                                    \
            sums[i] += (int64_t)(term * (type)unit);                                                         \
            unfit += !fits;                                                                                  \
        }                                                                                                    \
        return unfit;                                                                                        \
    }
DEFINE_ADD(add_floats, float)
DEFINE_ADD(add_doubles, double)

/* So many sums stay in the processor's nearest cache while all arrays are added to them. */
enum { BLOCK = 2048 };

int64_t mdm_grid_sums_add(mdm_grid_sums *sums, int64_t first, int64_t n, const float *const *terms,
                          int arrays, int accumulate) {
    int64_t unfit = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t *block = sums->whole + first + start, some = n - start < BLOCK ? n - start : BLOCK;
        if (!accumulate) memset(block, 0, sizeof *block * (size_t)some);
        for (int a = 0; a < arrays; a++) unfit += add_floats(block, terms[a] + start, some);
    }
    return unfit;
}

int64_t mdm_grid_sums_add_doubles(mdm_grid_sums *sums, int64_t first, int64_t n, const double *terms) {
    return add_doubles(sums->whole + first, terms, n);
}

WIDE static void get(const int64_t *restrict sums, int64_t n, double scale, float *restrict values) {
    for (int64_t i = 0; i < n; i++) values[i] = (float)((double)sums[i] * scale);
}

void mdm_grid_sums_get(const mdm_grid_sums *sums, int64_t first, int64_t n, float *values) {
    get(sums->whole + first, n, sums->whole[sums->count] != 0 ? (double)NAN : 1.0 / unit, values);
}
