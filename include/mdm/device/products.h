/* Products of matrices and what the heads of a network make of them, on device pointers.
 *
 * Matrices are dense, row-major, float unless said otherwise, in the memory of their device (device.h), where
 * results are left too. Objects are planned when created (the CUDA backend asks its library for an algorithm
 * and reserves working memory); running one neither allocates nor compiles, and can be recorded in a graph
 * (which is to be recorded again once more was planned on its device: working memory may have moved).
 * Matrices may begin anywhere that is aligned to their elements; products on CUDA are faster where all begin
 * at and have rows of multiples of 16 bytes.
 */
#ifndef MDM_DEVICE_PRODUCTS_H
#define MDM_DEVICE_PRODUCTS_H

#include "mdm/device/device.h"

/* ---- products ---- */

typedef enum mdm_product_form {
    MDM_PRODUCT_NT, /* a [m,k], b [n,k]: a * b^T */
    MDM_PRODUCT_NN, /* a [m,k], b [k,n]: a * b */
    MDM_PRODUCT_TN  /* a [k,m], b [k,n]: a^T * b */
} mdm_product_form;

typedef struct mdm_product_shape {
    mdm_product_form form;
    /* MDM_FP32; MDM_TF32 (CUDA only): factors rounded to 10 bits of fraction; MDM_BF16: a and b are bfloat16
     * (mdm_round_to_bf16); MDM_FP16 (CUDA only): a and b are IEEE half precision. Sums and c are single
     * precision in all of them. */
    mdm_precision precision;
    int m, n, k;  /* each >= 1 */
    int has_bias; /* c += bias [n], the same in every row */
} mdm_product_shape;

typedef struct mdm_product mdm_product;
MDM_MUST_CHECK mdm_status mdm_product_create(mdm_device *device, const mdm_product_shape *shape,
                                             mdm_product **product);
void mdm_product_destroy(mdm_product *product);
/* c [m,n] = alpha * (the form's product) + beta * c (not read for beta 0) + bias (NULL without has_bias). */
MDM_MUST_CHECK mdm_status mdm_product_run(mdm_product *product, float alpha, const void *a, const void *b,
                                          float beta, const float *bias, float *c);

/* to [count] = from, rounded to the nearest bfloat16 (even where half way); NaN stays NaN. */
void mdm_round_to_bf16(mdm_device *device, const float *from, int64_t count, uint16_t *to);

/* ---- a linear layer: y [rows,outputs] = x [rows,inputs] * weight^T + bias, weight [outputs,inputs] ---- */

typedef struct mdm_linear mdm_linear;
/* `rows` may be 0: a rank without samples. Precision: MDM_FP32 or MDM_TF32. */
MDM_MUST_CHECK mdm_status mdm_linear_create(mdm_device *device, int rows, int inputs, int outputs,
                                            mdm_precision precision, mdm_linear **linear);
void mdm_linear_destroy(mdm_linear *linear);
MDM_MUST_CHECK mdm_status mdm_linear_forward(mdm_linear *linear, const float *x, const float *weight,
                                             const float *bias, float *y);
/* weight_gradient, bias_gradient: written, or with `accumulate` added to. x_gradient (NULL: not wanted):
 * written, or with `add_to_x` added to. */
MDM_MUST_CHECK mdm_status mdm_linear_backward(mdm_linear *linear, const float *x, const float *weight,
                                              const float *y_gradient, int accumulate, float *weight_gradient,
                                              float *bias_gradient, int add_to_x, float *x_gradient);

/* ---- batch norm over rows, as in the projection head, in pieces that ranks' sums fit between ----
 *
 * forward: mdm_column_statistics, sums over ranks, mdm_norm_from_sums (or mdm_norm_from_running),
 * mdm_column_norm_forward. Backward: mdm_column_norm_backward_sums, mdm_norm_gradients with this rank's sums,
 * sums over ranks, mdm_norm_means (count 0 where the statistics were constants),
 * mdm_column_norm_backward_input. Of mdm_norm_values mean and inverse_deviation are used. */

/* Per column: sum and square_sum of x [rows,columns], written; and mdm_norm_from_sums of them, where no other
 * rank's sums come in between (NULL: not wanted). */
void mdm_column_statistics(mdm_device *device, int64_t rows, int columns, const float *x, double *sum,
                           double *square_sum, const mdm_norm_forward_rest *rest);
/* normalised = (x - mean) * inverse_deviation, kept for the way back; y = gamma * normalised + beta. */
void mdm_column_norm_forward(mdm_device *device, int64_t rows, int columns, const float *x,
                             const mdm_norm_values *values, const float *gamma, const float *beta,
                             float *normalised, float *y);
/* Per column: sum of the gradient of y, and of gradient * normalised; written. And mdm_norm_gradients and
 * mdm_norm_means of them, as above. */
void mdm_column_norm_backward_sums(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                   const float *normalised, double *sum, double *product_sum,
                                   const mdm_norm_backward_rest *rest);
/* x_gradient = gamma * inverse_deviation * (gradient - mean_gradient - normalised * mean_product); may be
 * `gradient`. */
void mdm_column_norm_backward_input(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                    const float *normalised, const mdm_norm_values *values,
                                    const float *gamma, const float *mean_gradient, const float *mean_product,
                                    float *x_gradient);

#endif
