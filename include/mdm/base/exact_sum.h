/* Sums whose value does not depend on the order of their terms: every term is cut into two whole numbers,
 * which add up without rounding. Sums of several threads or ranks are added as int64, element by element.
 *
 * A term is kept to 2^-69 (about 2e-21) and may be up to 2^32 in magnitude; up to 512 terms fit. Larger and
 * non-finite terms are counted in one last number, and make every value of the array NaN.
 */
#ifndef MDM_BASE_EXACT_SUM_H
#define MDM_BASE_EXACT_SUM_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef struct mdm_exact_sums {
    int64_t *whole; /* [2 * count + 1]: high parts, low parts, terms that do not fit; what ranks add up */
    int64_t count;
} mdm_exact_sums;

MDM_MUST_CHECK mdm_status mdm_exact_sums_create(int64_t count, mdm_exact_sums *sums);
void mdm_exact_sums_free(mdm_exact_sums *sums);
/* The int64 numbers of the array. */
int64_t mdm_exact_sums_size(const mdm_exact_sums *sums);
void mdm_exact_sums_clear(mdm_exact_sums *sums);
/* sums[first + i] += terms[i] for i < n. */
void mdm_exact_sums_add_doubles(mdm_exact_sums *sums, int64_t first, int64_t n, const double *terms);
/* values[i] = sums[first + i], rounded once. */
void mdm_exact_sums_get_doubles(const mdm_exact_sums *sums, int64_t first, int64_t n, double *values);

#endif
