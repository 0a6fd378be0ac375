/* The operations of losses.h, handed on to the backend; and NT-Xent, tile after tile of products. */
#include "mdm/device/losses.h"
#include "operations.h"
#include <stdlib.h>

static const mdm_head_operations *heads_of(const mdm_device *device) {
    return device->operations->heads;
}

void mdm_sum_rows(mdm_device *device, const mdm_row_sum *sums, int count) {
    heads_of(device)->sum_rows(device, sums, count);
}

void mdm_softmax_rows(mdm_device *device, const float *logits, int64_t rows, int classes,
                      float *probability) {
    heads_of(device)->softmax_rows(device, logits, rows, classes, probability);
}

void mdm_make_targets(mdm_device *device, const mdm_target_batch *batch, float *target, double *confident) {
    heads_of(device)->make_targets(device, batch, target, confident);
}

void mdm_mix_rows(mdm_device *device, int64_t rows, int64_t width, const float *lambda, const float *own,
                  const float *all, const int32_t *partner, float *mixed) {
    heads_of(device)->mix_rows(device, rows, width, lambda, own, all, partner, mixed);
}

void mdm_mix_targets(mdm_device *device, int64_t rows, int classes, const float *lambda, const float *own,
                     const float *all, const int32_t *partner, float *mixed_target, float *mixed_mask) {
    heads_of(device)->mix_targets(device, rows, classes, lambda, own, all, partner, mixed_target, mixed_mask);
}

void mdm_mix_rows_backward(mdm_device *device, int64_t all_rows, int64_t rows, int64_t width, int64_t first,
                           const float *lambda, const float *gradient, const int32_t *mixed_with,
                           float *all_gradient) {
    heads_of(device)->mix_rows_backward(device, all_rows, rows, width, first, lambda, gradient, mixed_with,
                                        all_gradient);
}

void mdm_loss_hard(mdm_device *device, const mdm_loss_rows *rows, const int32_t *label, float ce_weight,
                   float rce_weight) {
    heads_of(device)->loss_hard(device, rows, label, ce_weight, rce_weight);
}

void mdm_loss_soft(mdm_device *device, const mdm_loss_rows *labelled, const mdm_loss_rows *unlabelled,
                   const float *target, float ce_weight, float rce_weight) {
    heads_of(device)->loss_soft(device, labelled, unlabelled, target, ce_weight, rce_weight);
}

void mdm_balance_sums(mdm_device *device, const float *logits, int64_t rows, int classes, float *probability,
                      double *sum) {
    heads_of(device)->balance_sums(device, logits, rows, classes, probability, sum);
}

void mdm_loss_balance(mdm_device *device, const float *probability, int64_t rows, int classes,
                      const double *sum, double total, float scale, double *value, float *gradient) {
    heads_of(device)->loss_balance(device, probability, rows, classes, sum, total, scale, value, gradient);
}

void mdm_judge_step(mdm_device *device, const mdm_step_judgement *judgement) {
    heads_of(device)->judge_step(device, judgement);
}

void mdm_unit_rows_forward(mdm_device *device, const float *row, int64_t rows, int width, float *unit,
                           float *norm) {
    heads_of(device)->unit_rows_forward(device, row, rows, width, unit, norm);
}

void mdm_unit_rows_backward(mdm_device *device, const float *unit, const float *norm, const float *gradient,
                            int64_t rows, int width, float *out) {
    heads_of(device)->unit_rows_backward(device, unit, norm, gradient, rows, width, out);
}

/* ---- NT-Xent ---- */

enum { LEAST_TILE = 128, CUDA_TILE_BYTES = 64 << 20 };

/* The products of one tile: similarities, and what they add to the anchors' and to everybody's gradient. */
typedef struct tile_products {
    int64_t rows;
    mdm_product *similarity, *anchors, *all;
} tile_products;

struct mdm_nt_xent_loss {
    mdm_device *device;
    mdm_nt_xent_shape shape;
    int64_t ranges;            /* of anchors: the two views, or one of all rows where they touch */
    int64_t rows, tile;        /* of a range; of a tile */
    tile_products whole, rest; /* of tiles of `tile` rows, and of what is left over */
    float *similarity;         /* [tile, 2 * pairs] */
};

static mdm_status plan_tile(mdm_nt_xent_loss *l, int64_t rows, tile_products *t) {
    const int n = (int)rows, all = (int)(2 * l->shape.pairs), width = l->shape.width;
    const mdm_product_shape similarity = {MDM_PRODUCT_NT, l->shape.precision, n, all, width, 0},
                            anchors = {MDM_PRODUCT_NN, l->shape.precision, n, width, all, 0},
                            others = {MDM_PRODUCT_TN, l->shape.precision, all, width, n, 0};
    t->rows = rows;
    if (rows == 0) return MDM_OK;
    MDM_TRY(mdm_product_create(l->device, &similarity, &t->similarity));
    MDM_TRY(mdm_product_create(l->device, &anchors, &t->anchors));
    return mdm_product_create(l->device, &others, &t->all);
}

static void free_tile(tile_products *t) {
    mdm_product_destroy(t->similarity);
    mdm_product_destroy(t->anchors);
    mdm_product_destroy(t->all);
}

static mdm_status plan_loss(mdm_nt_xent_loss *l) {
    const mdm_nt_xent_shape *s = &l->shape;
    int is_cuda = l->device->info.is_cuda, is_all = is_cuda && s->count == s->pairs;
    size_t row_bytes = sizeof(float) * 2 * (size_t)s->pairs;
    int64_t fitting = is_cuda && row_bytes > 0 ? (int64_t)((size_t)CUDA_TILE_BYTES / row_bytes) : 0;
    l->ranges = is_all ? 1 : 2;
    l->rows = is_all ? 2 * s->count : s->count;
    l->tile = fitting > LEAST_TILE ? fitting : LEAST_TILE;
    if (l->tile > l->rows) l->tile = l->rows;
    if (l->tile == 0) return MDM_OK;
    MDM_TRY(mdm_device_allocate(l->device, (size_t)l->tile * row_bytes, "similarities of projections",
                                (void **)&l->similarity));
    MDM_TRY(plan_tile(l, l->tile, &l->whole));
    return plan_tile(l, l->rows % l->tile, &l->rest);
}

mdm_status mdm_nt_xent_create(mdm_device *device, const mdm_nt_xent_shape *shape, mdm_nt_xent_loss **out) {
    mdm_nt_xent_loss *loss;
    *out = NULL;
    if (shape->precision == MDM_BF16)
        return mdm_fail(MDM_LOST, "contrast in bf16: projections and similarities are floats");
    MDM_TRY(MDM_ALLOCATE(loss, 1, "contrast"));
    loss->device = device;
    loss->shape = *shape;
    mdm_status status = plan_loss(loss);
    if (status != MDM_OK) {
        mdm_nt_xent_destroy(loss);
        return status;
    }
    *out = loss;
    return MDM_OK;
}

void mdm_nt_xent_destroy(mdm_nt_xent_loss *loss) {
    if (!loss) return;
    free_tile(&loss->whole);
    free_tile(&loss->rest);
    if (loss->similarity) mdm_device_free(loss->device, loss->similarity);
    free(loss);
}

/* Anchors `anchor` and on against all rows. The first tile writes the gradient, the others add to it. */
static mdm_status run_tile(mdm_nt_xent_loss *l, const tile_products *t, const float *unit, int64_t anchor,
                           int is_first, float scale, double *value, float *gradient) {
    const float inverse = 1.0f / l->shape.temperature, step = scale / l->shape.temperature;
    const float *own = unit + anchor * l->shape.width;
    MDM_TRY(mdm_product_run(t->similarity, inverse, own, unit, 0.0f, NULL, l->similarity));
    heads_of(l->device)->contrast_rows(l->device, t->rows, l->shape.pairs, anchor, l->similarity, value);
    MDM_TRY(mdm_product_run(t->all, step, l->similarity, own, is_first ? 0.0f : 1.0f, NULL, gradient));
    return mdm_product_run(t->anchors, step, l->similarity, unit, 1.0f, NULL,
                           gradient + anchor * l->shape.width);
}

mdm_status mdm_nt_xent_run(mdm_nt_xent_loss *l, const float *unit, float scale, double *value,
                           float *gradient) {
    const mdm_nt_xent_shape *s = &l->shape;
    if (l->rows == 0)
        mdm_device_zero(l->device, gradient, sizeof(float) * 2 * (size_t)s->pairs * (size_t)s->width);
    for (int64_t range = 0; range < l->ranges; range++)
        for (int64_t done = 0; done < l->rows; done += l->tile)
            MDM_TRY(run_tile(l, l->rows - done >= l->tile ? &l->whole : &l->rest, unit,
                             range * s->pairs + s->first + done, range == 0 && done == 0, scale,
                             value + range * l->rows + done, gradient));
    return MDM_OK;
}
