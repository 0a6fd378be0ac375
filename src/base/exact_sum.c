/* From terms to whole numbers that add up in any order, and back. */
#include "mdm/base/exact_sum.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* A double below the limit is its part above 2^-16, cut off, plus a rest that is exact in double. */
void mdm_exact_sums_add_doubles(mdm_exact_sums *sums, int64_t first, int64_t n, const double *terms) {
    int64_t *high = sums->whole + first, *low = high + sums->count, unfit = 0;
    for (int64_t i = 0; i < n; i++) {
        int fits = terms[i] < limit && terms[i] > -limit; /* false for NaN */
        double term = fits ? terms[i] : 0.0;
        int64_t whole = (int64_t)(term * high_unit);
        double rest = term - (double)whole / high_unit;
        high[i] += whole;
        low[i] += (int64_t)(rest * low_unit);
        unfit += !fits;
    }
    sums->whole[2 * sums->count] += unfit;
}

static double value_of(const mdm_exact_sums *sums, int64_t i) {
    if (sums->whole[2 * sums->count] != 0) return NAN;
    return (double)sums->whole[i] / high_unit + (double)sums->whole[sums->count + i] / low_unit;
}

void mdm_exact_sums_get_doubles(const mdm_exact_sums *sums, int64_t first, int64_t n, double *values) {
    for (int64_t i = 0; i < n; i++) values[i] = value_of(sums, first + i);
}
