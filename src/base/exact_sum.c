/* From terms to whole numbers that add up in any order, and back. */
#include "mdm/base/exact_sum.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Loops over millions of weights: the widest vectors that the processor has. Sanitizers are not ready yet
 * when the choice is made, as the program is loaded. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) &&                       \
    !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define WIDE
#endif

/* The high part counts 2^-16, the low one 2^-69: 512 terms below 2^32 stay below 2^57, and as many rests
 * below 2^-16 stay below 2^63. */
static const double high_unit = 0x1p16, low_unit = 0x1p69, limit = 0x1p32;

mdm_status mdm_exact_sums_create(int64_t count, mdm_exact_sums *sums) {
    sums->count = count;
    return MDM_ALLOCATE(sums->whole, mdm_exact_sums_size(sums), "exact sums");
}

void mdm_exact_sums_free(mdm_exact_sums *sums) {
    free(sums->whole);
    sums->whole = NULL;
}

int64_t mdm_exact_sums_size(const mdm_exact_sums *sums) {
    return 2 * sums->count + 1;
}

void mdm_exact_sums_clear(mdm_exact_sums *sums) {
    memset(sums->whole, 0, sizeof *sums->whole * (size_t)mdm_exact_sums_size(sums));
}

void mdm_exact_sums_clear_part(mdm_exact_sums *sums, int64_t first, int64_t n) {
    memset(sums->whole + first, 0, sizeof *sums->whole * (size_t)n);
    memset(sums->whole + sums->count + first, 0, sizeof *sums->whole * (size_t)n);
}

/* A double below the limit is its part above 2^-16, cut off, plus a rest that is exact in double. */
#define DEFINE_ADD(name, type)                                                                               \
    WIDE static int64_t name(int64_t *restrict high, int64_t *restrict low, const type *restrict terms,      \
                             int64_t n) {                                                                    \
        int64_t unfit = 0;                                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            double term = terms[i];                                                                          \
            int fits = term < limit && term > -limit; /* false for NaN */                                    \
            term = fits ? term : 0.0;                                                                        \
            int64_t whole = (int64_t)(term * high_unit);                                                     \
            double rest = term - (double)whole / high_unit;                                                  \
            high[i] += whole;                                                                                \
            low[i] += (int64_t)(rest * low_unit);                                                            \
            unfit += !fits;                                                                                  \
        }                                                                                                    \
        return unfit;                                                                                        \
    }
DEFINE_ADD(add_floats, float)
DEFINE_ADD(add_doubles, double)

void mdm_exact_sums_add_floats(mdm_exact_sums *sums, int64_t first, int64_t n, const float *terms) {
    sums->whole[2 * sums->count] +=
        add_floats(sums->whole + first, sums->whole + sums->count + first, terms, n);
}

void mdm_exact_sums_add_doubles(mdm_exact_sums *sums, int64_t first, int64_t n, const double *terms) {
    sums->whole[2 * sums->count] +=
        add_doubles(sums->whole + first, sums->whole + sums->count + first, terms, n);
}

void mdm_exact_sums_add_sums(mdm_exact_sums *to, int64_t to_first, const mdm_exact_sums *from,
                             int64_t from_first, int64_t n) {
    for (int half = 0; half < 2; half++) {
        int64_t *target = to->whole + half * to->count + to_first;
        const int64_t *source = from->whole + half * from->count + from_first;
        for (int64_t i = 0; i < n; i++) target[i] += source[i];
    }
    to->whole[2 * to->count] += from->whole[2 * from->count];
}

static double value_of(const mdm_exact_sums *sums, int64_t i) {
    if (sums->whole[2 * sums->count] != 0) return NAN;
    return (double)sums->whole[i] / high_unit + (double)sums->whole[sums->count + i] / low_unit;
}

void mdm_exact_sums_get_floats(const mdm_exact_sums *sums, int64_t first, int64_t n, float *values) {
    for (int64_t i = 0; i < n; i++) values[i] = (float)value_of(sums, first + i);
}

void mdm_exact_sums_get_doubles(const mdm_exact_sums *sums, int64_t first, int64_t n, double *values) {
    for (int64_t i = 0; i < n; i++) values[i] = value_of(sums, first + i);
}
