/* How a product of row-major matrices looks to a library that thinks in columns: what is row-major to us is
 * its transpose to it, and c^T = b^T a^T, so our b is its first factor and our rows are its columns. The
 * emulated device computes by the same description. */
#ifndef MDM_DEVICE_CUDA_PRODUCT_LAYOUT_H
#define MDM_DEVICE_CUDA_PRODUCT_LAYOUT_H

#include "mdm/device/products.h"

/* A matrix stored by columns, `rows` apart; as a factor it is transposed first where that says so. */
typedef struct mdm_column_matrix {
    int rows, columns, is_transposed;
} mdm_column_matrix;

typedef struct mdm_product_layout {
    mdm_column_matrix first, second, result; /* our b, a and c */
} mdm_product_layout;

static inline mdm_product_layout mdm_layout_of_product(const mdm_product_shape *s) {
    const mdm_column_matrix as_it_is[3] = {{s->n, s->k, 0}, {s->k, s->m, 0}, {s->n, s->m, 0}},
                            first_transposed = {s->k, s->n, 1}, second_transposed = {s->m, s->k, 1};
    mdm_product_layout layout = {s->form == MDM_PRODUCT_NT ? first_transposed : as_it_is[0],
                                 s->form == MDM_PRODUCT_TN ? second_transposed : as_it_is[1], as_it_is[2]};
    return layout;
}

#endif
