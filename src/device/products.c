/* Products and the operations of heads, handed on to the backend; linear layers, made of them; and products
 * in host memory. */
#include "operations.h"
#include <cblas.h>
#include <stdlib.h>

static const mdm_head_operations *heads_of(const mdm_device *device) {
    return device->operations->heads;
}

mdm_status mdm_product_create(mdm_device *device, const mdm_product_shape *shape, mdm_product **product) {
    *product = NULL;
    if (shape->m < 1 || shape->n < 1 || shape->k < 1)
        return mdm_fail(MDM_LOST, "a product of %d x %d x %d", shape->m, shape->n, shape->k);
    if (shape->precision == MDM_TF32 && !device->info.has_tf32)
        return mdm_fail(MDM_LOST, "a product in tf32 on %s", device->info.name);
    if (shape->precision == MDM_FP16 && !device->info.is_cuda)
        return mdm_fail(MDM_LOST, "a product in fp16 on %s", device->info.name);
    return heads_of(device)->product_create(device, shape, product);
}

void mdm_product_destroy(mdm_product *product) {
    if (product) product->operations->product_destroy(product);
}

mdm_status mdm_product_run(mdm_product *product, float alpha, const void *a, const void *b, float beta,
                           const float *bias, float *c) {
    return product->operations->product_run(product, alpha, a, b, beta, bias, c);
}

void mdm_round_to_bf16(mdm_device *device, const float *from, int64_t count, uint16_t *to) {
    heads_of(device)->round_to_bf16(device, from, count, to);
}

/* ---- linear layers ---- */

struct mdm_linear {
    mdm_device *device;
    int rows, inputs, outputs;
    mdm_product *forward, *weight_gradient, *x_gradient; /* NULL without rows */
};

static mdm_status plan_linear(mdm_linear *l, mdm_precision precision) {
    const mdm_product_shape forward = {MDM_PRODUCT_NT, precision, l->rows, l->outputs, l->inputs, 1},
                            weight = {MDM_PRODUCT_TN, precision, l->outputs, l->inputs, l->rows, 0},
                            x = {MDM_PRODUCT_NN, precision, l->rows, l->inputs, l->outputs, 0};
    if (l->rows == 0) return MDM_OK;
    MDM_TRY(mdm_product_create(l->device, &forward, &l->forward));
    MDM_TRY(mdm_product_create(l->device, &weight, &l->weight_gradient));
    return mdm_product_create(l->device, &x, &l->x_gradient);
}

mdm_status mdm_linear_create(mdm_device *device, int rows, int inputs, int outputs, mdm_precision precision,
                             mdm_linear **out) {
    mdm_linear *linear;
    *out = NULL;
    if (precision == MDM_BF16) return mdm_fail(MDM_LOST, "a linear layer in bf16: its matrices are floats");
    MDM_TRY(MDM_ALLOCATE(linear, 1, "a linear layer"));
    linear->device = device;
    linear->rows = rows;
    linear->inputs = inputs;
    linear->outputs = outputs;
    mdm_status status = plan_linear(linear, precision);
    if (status != MDM_OK) {
        mdm_linear_destroy(linear);
        return status;
    }
    *out = linear;
    return MDM_OK;
}

void mdm_linear_destroy(mdm_linear *linear) {
    if (!linear) return;
    mdm_product_destroy(linear->forward);
    mdm_product_destroy(linear->weight_gradient);
    mdm_product_destroy(linear->x_gradient);
    free(linear);
}

mdm_status mdm_linear_forward(mdm_linear *linear, const float *x, const float *weight, const float *bias,
                              float *y) {
    return linear->rows ? mdm_product_run(linear->forward, 1.0f, x, weight, 0.0f, bias, y) : MDM_OK;
}

mdm_status mdm_linear_backward(mdm_linear *l, const float *x, const float *weight, const float *y_gradient,
                               int accumulate, float *weight_gradient, float *bias_gradient, int add_to_x,
                               float *x_gradient) {
    heads_of(l->device)->column_gradient(l->device, l->rows, l->outputs, y_gradient, accumulate,
                                         bias_gradient);
    if (l->rows == 0) {
        size_t bytes = sizeof(float) * (size_t)l->outputs * (size_t)l->inputs;
        if (!accumulate) mdm_device_zero(l->device, weight_gradient, bytes);
        return MDM_OK;
    }
    MDM_TRY(mdm_product_run(l->weight_gradient, 1.0f, y_gradient, x, accumulate ? 1.0f : 0.0f, NULL,
                            weight_gradient));
    if (!x_gradient) return MDM_OK;
    return mdm_product_run(l->x_gradient, 1.0f, y_gradient, weight, add_to_x ? 1.0f : 0.0f, NULL, x_gradient);
}

/* ---- batch norm over rows ---- */

void mdm_column_statistics(mdm_device *device, int64_t rows, int columns, const float *x, double *sum,
                           double *square_sum, const mdm_norm_forward_rest *rest) {
    heads_of(device)->column_statistics(device, rows, columns, x, sum, square_sum, rest);
}

void mdm_column_norm_forward(mdm_device *device, int64_t rows, int columns, const float *x,
                             const mdm_norm_values *values, const float *gamma, const float *beta,
                             float *normalised, float *y) {
    heads_of(device)->column_norm_forward(device, rows, columns, x, values, gamma, beta, normalised, y);
}

void mdm_column_norm_backward_sums(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                   const float *normalised, double *sum, double *product_sum,
                                   const mdm_norm_backward_rest *rest) {
    heads_of(device)->column_norm_backward_sums(device, rows, columns, gradient, normalised, sum, product_sum,
                                                rest);
}

void mdm_column_norm_backward_input(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                    const float *normalised, const mdm_norm_values *values,
                                    const float *gamma, const float *mean_gradient, const float *mean_product,
                                    float *x_gradient) {
    heads_of(device)->column_norm_backward_input(device, rows, columns, gradient, normalised, values, gamma,
                                                 mean_gradient, mean_product, x_gradient);
}

/* ---- in host memory ---- */

void mdm_product_nt(int m, int n, int k, const float *a, const float *b, float beta, float *c) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, a, k, b, k, beta, c, n);
}
