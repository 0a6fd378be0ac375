/* Sums of many floats whose value does not depend on the order of their terms, in half the room of exact
 * sums: every term is cut to a multiple of 2^-44 (about 6e-14), and multiples add up without rounding. For
 * gradients, whose terms are far from both ends: a term may be up to 2^13 in magnitude, and up to 64 terms
 * fit. Larger and non-finite terms are counted in one last number, and make every value of the array NaN.
 */
#ifndef MDM_BASE_GRID_SUM_H
#define MDM_BASE_GRID_SUM_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef struct mdm_grid_sums {
    int64_t *whole; /* [count + 1]: the sums, and the terms that do not fit; what ranks add up */
    int64_t count;
} mdm_grid_sums;

MDM_MUST_CHECK mdm_status mdm_grid_sums_create(int64_t count, mdm_grid_sums *sums);
void mdm_grid_sums_free(mdm_grid_sums *sums);
void mdm_grid_sums_clear(mdm_grid_sums *sums);
/* Clears elements [first, first + n) alone. */
void mdm_grid_sums_clear_part(mdm_grid_sums *sums, int64_t first, int64_t n);
/* sums[first + i] += terms[0][i] + ... + terms[arrays - 1][i] for i < n, from what they hold or, without
 * `accumulate`, from zero. Returns the number of terms that do not fit, for the caller to add to
 * whole[count]: threads may work on different parts at once. */
int64_t mdm_grid_sums_add(mdm_grid_sums *sums, int64_t first, int64_t n, const float *const *terms,
                          int arrays, int accumulate);
/* sums[first + i] += terms[i]; returns the same. */
int64_t mdm_grid_sums_add_doubles(mdm_grid_sums *sums, int64_t first, int64_t n, const double *terms);
/* values[i] = sums[first + i], rounded once. */
void mdm_grid_sums_get(const mdm_grid_sums *sums, int64_t first, int64_t n, float *values);

#endif
