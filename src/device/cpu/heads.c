/* What stands behind the encoder, on the CPU: the plain formulas of losses_host.h row by row, products by
 * OpenBLAS. */
#include "device.h"
#include "mdm/device/formulas.h"
#include "mdm/device/losses_host.h"
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

/* ---- products ---- */

typedef struct cpu_product {
    mdm_product common;
    float *a, *b; /* bfloat16 factors as floats; NULL where they are floats already */
} cpu_product;

static void product_destroy(mdm_product *public_product) {
    cpu_product *product = (cpu_product *)public_product;
    free(product->a);
    free(product->b);
    free(product);
}

static mdm_status product_create(mdm_device *device, const mdm_product_shape *shape, mdm_product **out) {
    cpu_product *product;
    mdm_status status = MDM_OK;
    MDM_TRY(MDM_ALLOCATE(product, 1, "a product"));
    product->common.operations = device->operations->heads;
    product->common.shape = *shape;
    if (shape->precision == MDM_BF16) {
        status = MDM_ALLOCATE(product->a, (int64_t)shape->m * shape->k, "a product's factors");
        if (status == MDM_OK)
            status = MDM_ALLOCATE(product->b, (int64_t)shape->k * shape->n, "a product's factors");
    }
    if (status != MDM_OK) {
        product_destroy(&product->common);
        return status;
    }
    *out = &product->common;
    return MDM_OK;
}

static const float *floats_of(const void *bf16, int64_t count, float *floats) {
    const uint16_t *from = bf16;
    for (int64_t i = 0; i < count; i++) floats[i] = mdm_float_of_bf16(from[i]);
    return floats;
}

static mdm_status product_run(mdm_product *public_product, float alpha, const void *a, const void *b,
                              float beta, const float *bias, float *c) {
    const cpu_product *product = (const cpu_product *)public_product;
    const mdm_product_shape *s = &public_product->shape;
    const int m = s->m, n = s->n, k = s->k, transpose_a = s->form == MDM_PRODUCT_TN,
              transpose_b = s->form == MDM_PRODUCT_NT;
    const float *x = product->a ? floats_of(a, (int64_t)m * k, product->a) : a,
                *y = product->b ? floats_of(b, (int64_t)k * n, product->b) : b;
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, m, n, k, alpha, x, transpose_a ? m : k, y,
                transpose_b ? k : n, beta, c, n);
    for (int64_t i = 0; s->has_bias && i < m; i++)
        for (int j = 0; j < n; j++) c[i * n + j] += bias[j];
    return MDM_OK;
}

static void round_to_bf16(mdm_device *device, const float *from, int64_t count, uint16_t *to) {
    (void)device;
    for (int64_t i = 0; i < count; i++) to[i] = (uint16_t)mdm_bf16_of(from[i]);
}

/* ---- columns ---- */

static void column_statistics(mdm_device *device, int64_t rows, int columns, const float *x, double *sum,
                              double *square_sum, const mdm_norm_forward_rest *rest) {
    for (int c = 0; c < columns; c++) sum[c] = square_sum[c] = 0.0;
    for (int64_t i = 0; i < rows; i++, x += columns)
        for (int c = 0; c < columns; c++) {
            double v = x[c];
            sum[c] += v;
            square_sum[c] += v * v;
        }
    if (rest)
        mdm_norm_from_sums(device, columns, 1, sum, square_sum, rest->count, rest->gamma, rest->beta,
                           rest->running_mean, rest->running_variance, rest->values);
}

static void column_gradient(mdm_device *device, int64_t rows, int columns, const float *x, int accumulate,
                            float *gradient) {
    (void)device;
    for (int c = 0; c < columns; c++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++) sum += x[i * columns + c];
        gradient[c] = (float)(accumulate ? gradient[c] + sum : sum);
    }
}

static void column_norm_forward(mdm_device *device, int64_t rows, int columns, const float *x,
                                const mdm_norm_values *values, const float *gamma, const float *beta,
                                float *normalised, float *y) {
    (void)device;
    for (int64_t i = 0; i < rows; i++)
        for (int c = 0; c < columns; c++) {
            int64_t at = i * columns + c;
            normalised[at] = (x[at] - values->mean[c]) * values->inverse_deviation[c];
            y[at] = gamma[c] * normalised[at] + beta[c];
        }
}

static void column_norm_backward_sums(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                      const float *normalised, double *sum, double *product_sum,
                                      const mdm_norm_backward_rest *rest) {
    for (int c = 0; c < columns; c++) sum[c] = product_sum[c] = 0.0;
    for (int64_t i = 0; i < rows; i++, gradient += columns, normalised += columns)
        for (int c = 0; c < columns; c++) {
            sum[c] += gradient[c];
            product_sum[c] += (double)gradient[c] * normalised[c];
        }
    if (!rest) return;
    mdm_norm_gradients(device, columns, 1, sum, product_sum, rest->accumulate, rest->gamma_gradient,
                       rest->beta_gradient);
    mdm_norm_means(device, columns, sum, product_sum, rest->count, rest->mean_gradient, rest->mean_product);
}

static void column_norm_backward_input(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                       const float *normalised, const mdm_norm_values *values,
                                       const float *gamma, const float *mean_gradient,
                                       const float *mean_product, float *x_gradient) {
    (void)device;
    for (int64_t i = 0; i < rows; i++)
        for (int c = 0; c < columns; c++) {
            int64_t at = i * columns + c;
            x_gradient[at] = gamma[c] * values->inverse_deviation[c] *
                             (gradient[at] - mean_gradient[c] - normalised[at] * mean_product[c]);
        }
}

static void sum_rows(mdm_device *device, const mdm_row_sum *sums, int count) {
    (void)device;
    for (int s = 0; s < count; s++) {
        double sum = 0.0;
        for (int64_t i = 0; i < sums[s].rows; i++) sum += sums[s].values[i];
        *sums[s].sum = sum / sums[s].divisor;
    }
}

/* ---- targets ---- */

static void softmax_rows(mdm_device *device, const float *logits, int64_t rows, int classes,
                         float *probability) {
    (void)device;
    mdm_softmax(logits, rows, classes, probability);
}

static void refine_label(const mdm_target_batch *b, int64_t i, float *target) {
    const float *first = b->own + i * b->classes, *second = b->own + (b->count + i) * b->classes,
                clean = b->clean_probability[i];
    for (int c = 0; c < b->classes; c++)
        target[c] = mdm_refined_label(clean, c == b->label[i], first[c], second[c]);
    mdm_sharpen(target, 1, b->classes, b->temperature, target);
    target[b->classes] = 1.0f;
}

/* Returns whether the guess counts. */
static int guess_label(const mdm_target_batch *b, int64_t i, float *target) {
    const int classes = b->classes;
    const float *p1 = b->own + (2 * b->count + i) * classes, *p2 = b->own + (3 * b->count + i) * classes;
    const float *q1 = b->theirs ? b->theirs + i * classes : p1,
                *q2 = b->theirs ? b->theirs + (b->count + i) * classes : p2;
    float largest = 0.0f;
    for (int c = 0; c < classes; c++)
        target[c] = mdm_guessed_label(b->theirs != NULL, p1[c], p2[c], q1[c], q2[c]);
    mdm_sharpen(target, 1, classes, b->temperature, target);
    for (int c = 0; c < classes; c++)
        if (target[c] > largest) largest = target[c];
    target[classes] = largest >= b->confidence ? 1.0f : 0.0f;
    return largest >= b->confidence;
}

static void make_targets(mdm_device *device, const mdm_target_batch *b, float *target, double *confident) {
    const int64_t width = b->classes + 1;
    const size_t bytes = sizeof(float) * (size_t)(b->count * width);
    (void)device;
    for (int64_t i = 0; i < b->count; i++) {
        refine_label(b, i, target + i * width);
        if (b->groups < 4) continue;
        int counts = guess_label(b, i, target + (2 * b->count + i) * width);
        if (confident) confident[i] = counts;
    }
    for (int view = 0; view < b->groups; view += 2)
        if (bytes > 0)
            memcpy(target + (view + 1) * b->count * width, target + view * b->count * width, bytes);
}

/* ---- mixing ---- */

static void mix_rows(mdm_device *device, int64_t rows, int64_t width, const float *lambda, const float *own,
                     const float *all, const int32_t *partner, float *mixed) {
    const float mine = *lambda, theirs = 1.0f - *lambda;
    (void)device;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const float *other = all + (partner ? partner[i] : i) * width;
        for (int64_t j = 0; j < width; j++)
            mixed[i * width + j] = mine * own[i * width + j] + theirs * other[j];
    }
}

static void mix_targets(mdm_device *device, int64_t rows, int classes, const float *lambda, const float *own,
                        const float *all, const int32_t *partner, float *mixed_target, float *mixed_mask) {
    const float mine = *lambda, theirs = 1.0f - *lambda;
    const int64_t width = classes + 1;
    (void)device;
    for (int64_t i = 0; i < rows; i++) {
        const float *self = own + i * width, *other = all + (partner ? partner[i] : i) * width;
        for (int c = 0; c < classes; c++) mixed_target[i * classes + c] = mine * self[c] + theirs * other[c];
        mixed_mask[i] = mine * self[classes] + theirs * other[classes];
    }
}

static void mix_rows_backward(mdm_device *device, int64_t all_rows, int64_t rows, int64_t width,
                              int64_t first, const float *lambda, const float *gradient,
                              const int32_t *mixed_with, float *all_gradient) {
    const float mine = *lambda, theirs = 1.0f - *lambda;
    (void)device;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < all_rows; i++) {
        float *out = all_gradient + i * width;
        const float *self = i >= first && i < first + rows ? gradient + (i - first) * width : NULL;
        const float *other = mixed_with[i] >= 0 ? gradient + mixed_with[i] * width : NULL;
        for (int64_t j = 0; j < width; j++)
            out[j] = (self ? mine * self[j] : 0.0f) + (other ? theirs * other[j] : 0.0f);
    }
}

/* ---- losses ---- */

static float scale_of(const mdm_loss_rows *r) {
    return r->factor ? r->scale * *r->factor : r->scale;
}

static void begin_gradient(const mdm_loss_rows *r) {
    size_t bytes = sizeof(float) * (size_t)r->rows * (size_t)r->classes;
    if (r->gradient && !r->accumulate && bytes > 0) memset(r->gradient, 0, bytes);
}

/* Weight times loss of row i; a row of weight 0 counts for nothing whatever its loss. */
static void put_value(const mdm_loss_rows *r, int64_t i, float loss) {
    float weight = r->weight ? r->weight[i] : 1.0f;
    r->value[i] = weight != 0.0f ? (double)weight * (double)loss : 0.0;
}

static void loss_hard(mdm_device *device, const mdm_loss_rows *r, const int32_t *label, float ce_weight,
                      float rce_weight) {
    (void)device;
    for (int64_t i = 0; r->value && i < r->rows; i++) {
        float loss;
        mdm_sce_hard_forward(r->logits + i * r->classes, label + i, 1, r->classes, ce_weight, rce_weight,
                             &loss);
        put_value(r, i, loss);
    }
    begin_gradient(r);
    if (r->gradient)
        mdm_sce_hard_backward(r->logits, label, r->weight, r->rows, r->classes, ce_weight, rce_weight,
                              scale_of(r), r->gradient);
}

static void loss_symmetric(const mdm_loss_rows *r, const float *target, float ce_weight, float rce_weight) {
    for (int64_t i = 0; r->value && i < r->rows; i++) {
        float loss;
        mdm_sce_soft_forward(r->logits + i * r->classes, target + i * r->classes, 1, r->classes, ce_weight,
                             rce_weight, &loss);
        put_value(r, i, loss);
    }
    begin_gradient(r);
    if (r->gradient)
        mdm_sce_soft_backward(r->logits, target, r->weight, r->rows, r->classes, ce_weight, rce_weight,
                              scale_of(r), r->gradient);
}

static void loss_consistency(const mdm_loss_rows *r, const float *target) {
    for (int64_t i = 0; r->value && i < r->rows; i++)
        r->value[i] = mdm_consistency_forward(r->logits + i * r->classes, target + i * r->classes,
                                              r->weight ? r->weight + i : NULL, 1, r->classes);
    begin_gradient(r);
    if (r->gradient)
        mdm_consistency_backward(r->logits, target, r->weight, r->rows, r->classes, scale_of(r), r->gradient);
}

static void loss_soft(mdm_device *device, const mdm_loss_rows *labelled, const mdm_loss_rows *unlabelled,
                      const float *target, float ce_weight, float rce_weight) {
    (void)device;
    loss_symmetric(labelled, target, ce_weight, rce_weight);
    loss_consistency(unlabelled, target + labelled->rows * labelled->classes);
}

static void balance_sums(mdm_device *device, const float *logits, int64_t rows, int classes,
                         float *probability, double *sum) {
    (void)device;
    mdm_softmax(logits, rows, classes, probability);
    for (int c = 0; c < classes; c++) sum[c] = 0.0;
    for (int64_t i = 0; i < rows; i++)
        for (int c = 0; c < classes; c++) sum[c] += (double)probability[i * classes + c];
}

static void loss_balance(mdm_device *device, const float *probability, int64_t rows, int classes,
                         const double *sum, double total, float scale, double *value, float *gradient) {
    const float factor = scale / (float)classes;
    (void)device;
    if (value) *value = mdm_balance_value(sum, total, classes);
    for (int64_t i = 0; i < rows; i++, probability += classes, gradient += classes) {
        float mean_slope = 0.0f;
        for (int c = 0; c < classes; c++)
            mean_slope += probability[c] * mdm_balance_slope(sum[c] / total, factor);
        for (int c = 0; c < classes; c++)
            gradient[c] += probability[c] * (mdm_balance_slope(sum[c] / total, factor) - mean_slope);
    }
}

/* ---- contrast ---- */

static void unit_rows_forward(mdm_device *device, const float *row, int64_t rows, int width, float *unit,
                              float *norm) {
    (void)device;
    mdm_normalize_forward(row, rows, width, unit, norm);
}

static void unit_rows_backward(mdm_device *device, const float *unit, const float *norm,
                               const float *gradient, int64_t rows, int width, float *out) {
    (void)device;
    mdm_normalize_backward(unit, norm, gradient, rows, width, out);
}

static void judge_step(mdm_device *device, const mdm_step_judgement *judgement) {
    (void)device;
    mdm_judge(judgement);
}

static void contrast_rows(mdm_device *device, int64_t rows, int64_t pairs, int64_t first, float *similarity,
                          double *value) {
    (void)device;
#pragma omp parallel for if (rows * pairs > 16384)
    for (int64_t i = 0; i < rows; i++) {
        int64_t self = first + i;
        value[i] = (double)mdm_contrast_row(similarity + i * 2 * pairs, 2 * pairs, self,
                                            self < pairs ? self + pairs : self - pairs);
    }
}

const mdm_head_operations mdm_cpu_head_operations = MDM_HEADS_OF_THIS_FILE;
