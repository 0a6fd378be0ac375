/* What stands behind the encoder, on the CUDA device: from operations to launches of kernels_losses.h and
 * kernels_heads.h, and products. */
#include "device.h"
#include <stdlib.h>

static mdm_gpu *gpu_of(mdm_device *device) {
    return mdm_cuda(device)->gpu;
}

/* ---- products ---- */

typedef struct cuda_product {
    mdm_product common;
    mdm_gpu *gpu;
    mdm_gpu_product *product;
} cuda_product;

static mdm_status product_create(mdm_device *device, const mdm_product_shape *shape, mdm_product **out) {
    cuda_product *product;
    MDM_TRY(MDM_ALLOCATE(product, 1, "a product"));
    product->common.operations = device->operations->heads;
    product->common.shape = *shape;
    product->gpu = gpu_of(device);
    mdm_status status = mdm_gpu_plan_product(product->gpu, shape, &product->product);
    if (status != MDM_OK) {
        free(product);
        return status;
    }
    *out = &product->common;
    return MDM_OK;
}

static void product_destroy(mdm_product *product) {
    free(product);
}

static mdm_status product_run(mdm_product *public_product, float alpha, const void *a, const void *b,
                              float beta, const float *bias, float *c) {
    const cuda_product *product = (const cuda_product *)public_product;
    return mdm_gpu_multiply(product->gpu, product->product, alpha, a, b, beta, bias, c);
}

/* Blocks for `count` elements, each thread taking several where they are very many. */
static uint32_t blocks_of_elements(size_t count, size_t *threads) {
    size_t blocks = (count + MDM_GPU_THREADS - 1) / MDM_GPU_THREADS, most = 16 * (size_t)MDM_GPU_BLOCKS;
    if (blocks > most) blocks = most;
    *threads = blocks * MDM_GPU_THREADS;
    return (uint32_t)blocks;
}

static void round_to_bf16(mdm_device *device, const float *from, int64_t count, uint16_t *to) {
    mdm_round_arguments a = {.from = from, .to = to, .count = (size_t)count};
    uint32_t blocks = blocks_of_elements(a.count, &a.threads);
    mdm_gpu_round_to_bf16(gpu_of(device), blocks, 1, &a);
}

/* ---- columns ---- */

/* What `a` wants of the columns' sums. */
static void sum_columns(mdm_device *device, int64_t rows, int columns, mdm_column_arguments a) {
    a.rows = (uint32_t)rows;
    a.columns = a.channels.padded = (uint32_t)columns;
    a.channels.sets = 1;
    mdm_gpu_sum_columns(gpu_of(device), (a.columns + MDM_GPU_COLUMN_TILE - 1) / MDM_GPU_COLUMN_TILE, 1, &a);
}

static void column_statistics(mdm_device *device, int64_t rows, int columns, const float *x, double *sum,
                              double *square_sum, const mdm_norm_forward_rest *rest) {
    mdm_column_arguments a = {.x = x, .other = x, .sum = sum, .second = square_sum};
    if (rest) {
        a.rest = MDM_GPU_NORM_VALUES;
        a.channels = mdm_cuda_norm_values(columns, sum, square_sum, rest);
    }
    sum_columns(device, rows, columns, a);
}

static void column_gradient(mdm_device *device, int64_t rows, int columns, const float *x, int accumulate,
                            float *gradient) {
    mdm_column_arguments a = {.x = x, .other = x, .gradient = gradient, .accumulate = accumulate};
    sum_columns(device, rows, columns, a);
}

static void column_norm_backward_sums(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                      const float *normalised, double *sum, double *product_sum,
                                      const mdm_norm_backward_rest *rest) {
    mdm_column_arguments a = {.x = gradient, .other = normalised, .sum = sum, .second = product_sum};
    if (rest) {
        a.rest = MDM_GPU_NORM_GRADIENTS;
        a.channels = mdm_cuda_norm_gradients(columns, sum, product_sum, rest);
    }
    sum_columns(device, rows, columns, a);
}

static void column_norm_forward(mdm_device *device, int64_t rows, int columns, const float *x,
                                const mdm_norm_values *values, const float *gamma, const float *beta,
                                float *normalised, float *y) {
    mdm_column_norm_arguments a = {.x = x,
                                   .mean = values->mean,
                                   .inverse_deviation = values->inverse_deviation,
                                   .gamma = gamma,
                                   .beta = beta,
                                   .normalised = normalised,
                                   .out = y,
                                   .count = (size_t)rows * (size_t)columns,
                                   .columns = (uint32_t)columns};
    uint32_t blocks = blocks_of_elements(a.count, &a.threads);
    mdm_gpu_column_norm_forward(gpu_of(device), blocks, 1, &a);
}

static void column_norm_backward_input(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                       const float *normalised, const mdm_norm_values *values,
                                       const float *gamma, const float *mean_gradient,
                                       const float *mean_product, float *x_gradient) {
    mdm_column_norm_arguments a = {.x = gradient,
                                   .inverse_deviation = values->inverse_deviation,
                                   .gamma = gamma,
                                   .mean_gradient = mean_gradient,
                                   .mean_product = mean_product,
                                   .normalised = (float *)(uintptr_t)normalised, /* only read */
                                   .out = x_gradient,
                                   .count = (size_t)rows * (size_t)columns,
                                   .columns = (uint32_t)columns};
    uint32_t blocks = blocks_of_elements(a.count, &a.threads);
    mdm_gpu_column_norm_backward(gpu_of(device), blocks, 1, &a);
}

static void sum_rows(mdm_device *device, const mdm_row_sum *sums, int count) {
    mdm_row_sums_arguments a;
    for (int i = 0; i < MDM_ROW_SUMS; i++) a.sums[i] = i < count ? sums[i] : (mdm_row_sum){.divisor = 1.0};
    mdm_gpu_sum_rows(gpu_of(device), (uint32_t)count, 1, &a);
}

/* ---- targets ---- */

static void softmax_rows(mdm_device *device, const float *logits, int64_t rows, int classes,
                         float *probability) {
    mdm_softmax_arguments a = {mdm_geometry_of_rows(rows, classes), logits, probability};
    mdm_gpu_softmax_rows(gpu_of(device), mdm_blocks_of_rows(&a.rows), 1, &a);
}

static void make_targets(mdm_device *device, const mdm_target_batch *b, float *target, double *confident) {
    mdm_target_arguments a = {.rows = mdm_geometry_of_rows(b->groups / 2 * b->count, b->classes),
                              .own = b->own,
                              .theirs = b->theirs,
                              .clean_probability = b->clean_probability,
                              .label = b->label,
                              .target = target,
                              .confident = confident,
                              .count = (uint32_t)b->count,
                              .power = 1.0f / b->temperature,
                              .confidence = b->confidence};
    mdm_gpu_make_targets(gpu_of(device), mdm_blocks_of_rows(&a.rows), 1, &a);
}

/* ---- mixing ---- */

typedef void mix_kernel(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const mdm_mix_arguments *a);

static void mix(mdm_device *device, mix_kernel *kernel, size_t words, mdm_mix_arguments a) {
    a.block_rows = a.rows < MDM_GPU_GRID_ROWS ? (uint32_t)a.rows : MDM_GPU_GRID_ROWS;
    a.blocks = words < (size_t)MDM_GPU_BLOCKS * MDM_GPU_THREADS ? mdm_blocks_for(words) : MDM_GPU_BLOCKS;
    if (a.rows > 0) kernel(gpu_of(device), a.blocks, a.block_rows, &a);
}

static void mix_rows(mdm_device *device, int64_t rows, int64_t width, const float *lambda, const float *own,
                     const float *all, const int32_t *partner, float *mixed) {
    mdm_mix_arguments a = {.lambda = lambda,
                           .own = own,
                           .all = all,
                           .partner = partner,
                           .mixed = mixed,
                           .rows = (size_t)rows,
                           .width = (size_t)width};
    int in_words = width % 4 == 0 && ((uintptr_t)own | (uintptr_t)all | (uintptr_t)mixed) % 16 == 0;
    mix(device, in_words ? mdm_gpu_mix_words : mdm_gpu_mix_rows, in_words ? a.width / 4 : a.width, a);
}

static void mix_targets(mdm_device *device, int64_t rows, int classes, const float *lambda, const float *own,
                        const float *all, const int32_t *partner, float *mixed_target, float *mixed_mask) {
    mdm_mix_arguments a = {.lambda = lambda,
                           .own = own,
                           .all = all,
                           .partner = partner,
                           .mixed = mixed_target,
                           .mask = mixed_mask,
                           .rows = (size_t)rows,
                           .width = (size_t)classes + 1};
    mix(device, mdm_gpu_mix_rows, a.width, a);
}

static void mix_rows_backward(mdm_device *device, int64_t all_rows, int64_t rows, int64_t width,
                              int64_t first, const float *lambda, const float *gradient,
                              const int32_t *mixed_with, float *all_gradient) {
    mdm_mix_arguments a = {.lambda = lambda,
                           .own = gradient,
                           .partner = mixed_with,
                           .mixed = all_gradient,
                           .rows = (size_t)all_rows,
                           .width = (size_t)width,
                           .first = (size_t)first,
                           .own_rows = (size_t)rows};
    mix(device, mdm_gpu_mix_backward, a.width, a);
}

/* ---- losses ---- */

static mdm_loss_arguments loss_arguments(const mdm_loss_rows *r) {
    mdm_loss_arguments a = {.rows = mdm_geometry_of_rows(r->rows, r->classes),
                            .logits = r->logits,
                            .weight = r->weight,
                            .factor = r->factor,
                            .value = r->value,
                            .gradient = r->gradient,
                            .scale = r->scale,
                            .accumulate = r->accumulate};
    return a;
}

static void loss_hard(mdm_device *device, const mdm_loss_rows *rows, const int32_t *label, float ce_weight,
                      float rce_weight) {
    mdm_loss_arguments a = loss_arguments(rows);
    a.label = label;
    a.ce_weight = ce_weight;
    a.rce_weight = rce_weight;
    mdm_gpu_loss_symmetric(gpu_of(device), mdm_blocks_of_rows(&a.rows), 1, &a);
}

static void loss_soft(mdm_device *device, const mdm_loss_rows *labelled, const mdm_loss_rows *unlabelled,
                      const float *target, float ce_weight, float rce_weight) {
    mdm_soft_arguments a = {loss_arguments(labelled), loss_arguments(unlabelled)};
    a.labelled.target = target;
    a.labelled.ce_weight = ce_weight;
    a.labelled.rce_weight = rce_weight;
    a.unlabelled.target = target + labelled->rows * labelled->classes;
    mdm_gpu_loss_soft(gpu_of(device),
                      mdm_blocks_of_rows(&a.labelled.rows) + mdm_blocks_of_rows(&a.unlabelled.rows), 1, &a);
}

static void balance_sums(mdm_device *device, const float *logits, int64_t rows, int classes,
                         float *probability, double *sum) {
    mdm_column_arguments a = {.x = probability, .other = probability, .sum = sum};
    softmax_rows(device, logits, rows, classes, probability);
    sum_columns(device, rows, classes, a);
}

static void loss_balance(mdm_device *device, const float *probability, int64_t rows, int classes,
                         const double *sum, double total, float scale, double *value, float *gradient) {
    mdm_balance_arguments a = {.rows = mdm_geometry_of_rows(rows, classes),
                               .probability = probability,
                               .sum = sum,
                               .total = total,
                               .factor = scale / (float)classes,
                               .value = value,
                               .gradient = gradient};
    mdm_gpu_balance(gpu_of(device), rows > 0 ? mdm_blocks_of_rows(&a.rows) : 1, 1, &a);
}

static void judge_step(mdm_device *device, const mdm_step_judgement *judgement) {
    mdm_gpu_judge_step(gpu_of(device), 1, 1, judgement);
}

/* ---- contrast ---- */

static void unit_rows_forward(mdm_device *device, const float *row, int64_t rows, int width, float *unit,
                              float *norm) {
    mdm_unit_arguments a = {.rows = mdm_geometry_of_rows(rows, width), .row = row, .norm = norm, .out = unit};
    mdm_gpu_unit_forward(gpu_of(device), mdm_blocks_of_rows(&a.rows), 1, &a);
}

static void unit_rows_backward(mdm_device *device, const float *unit, const float *norm,
                               const float *gradient, int64_t rows, int width, float *out) {
    mdm_unit_arguments a = {.rows = mdm_geometry_of_rows(rows, width),
                            .row = unit,
                            .gradient = gradient,
                            .norm = (float *)(uintptr_t)norm, /* only read */
                            .out = out};
    mdm_gpu_unit_backward(gpu_of(device), mdm_blocks_of_rows(&a.rows), 1, &a);
}

static void contrast_rows(mdm_device *device, int64_t rows, int64_t pairs, int64_t first, float *similarity,
                          double *value) {
    mdm_contrast_arguments a = {mdm_geometry_of_rows(rows, 2 * pairs), similarity, value, (uint32_t)first};
    mdm_gpu_contrast_rows(gpu_of(device), mdm_blocks_of_rows(&a.rows), 1, &a);
}

const mdm_head_operations mdm_cuda_head_operations = MDM_HEADS_OF_THIS_FILE;
