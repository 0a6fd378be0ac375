/* Losses against the reference implementation's values and gradients (golden.h5, loss/...), and gradients
 * against finite differences of the formulas written a second time in double. */
#include "golden.h"
#include "loss_oracle.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 24, C = 10 };

static float *zeros(int64_t count) {
    float *values = calloc((size_t)count, sizeof(float));
    assert_non_null(values);
    return values;
}

/* Deterministic numbers in [-1, 1). */
static float noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

static void fill(float *values, int64_t count, float scale, uint32_t seed) {
    for (int64_t i = 0; i < count; i++) values[i] = scale * noise(&seed);
}

/* ---- golden values ---- */

static void hard_symmetric_cross_entropy_is_the_references(void **state) {
    (void)state;
    float *logits = golden_floats("/loss/sce_hard/logits", NULL),
          *expected = golden_floats("/loss/sce_hard/per_sample", NULL);
    float *gradient_expected = golden_floats("/loss/sce_hard/grad", NULL), loss[B], *gradient = zeros(B * C);
    int32_t *label = golden_ints("/loss/sce_hard/label", NULL);
    mdm_sce_hard_forward(logits, label, B, C, 1.0f, 1.0f, loss);
    assert_close(loss, expected, B, 1e-5, 1e-6, "hard SCE");
    mdm_sce_hard_backward(logits, label, NULL, B, C, 1.0f, 1.0f, 1.0f / B, gradient);
    assert_close(gradient, gradient_expected, B * C, 1e-6, 1e-5, "gradient of hard SCE");
    free(logits);
    free(expected);
    free(gradient_expected);
    free(gradient);
    free(label);
}

static void soft_symmetric_cross_entropy_is_the_references(void **state) {
    (void)state;
    float *logits = golden_floats("/loss/sce_soft/logits", NULL),
          *expected = golden_floats("/loss/sce_soft/per_sample", NULL);
    float *target = golden_floats("/loss/sce_soft/target", NULL),
          *mask = golden_floats("/loss/sce_soft/mask", NULL);
    float *gradient_expected = golden_floats("/loss/sce_soft/grad", NULL), loss[B], *gradient = zeros(B * C);
    mdm_sce_soft_forward(logits, target, B, C, 1.0f, 1.0f, loss);
    assert_close(loss, expected, B, 1e-5, 1e-6, "soft SCE");
    mdm_sce_soft_backward(logits, target, mask, B, C, 1.0f, 1.0f, 1.0f / B, gradient);
    assert_close(gradient, gradient_expected, B * C, 1e-6, 1e-5, "gradient of soft SCE");
    free(logits);
    free(expected);
    free(target);
    free(mask);
    free(gradient_expected);
    free(gradient);
}

static void consistency_is_the_references(void **state) {
    (void)state;
    float *logits = golden_floats("/loss/consistency/logits", NULL),
          *target = golden_floats("/loss/consistency/target", NULL);
    float *mask = golden_floats("/loss/consistency/mask", NULL),
          *expected = golden_floats("/loss/consistency/value", NULL);
    float *gradient_expected = golden_floats("/loss/consistency/grad", NULL), *gradient = zeros(B * C);
    float value = (float)(mdm_consistency_forward(logits, target, mask, B, C) / B);
    assert_close(&value, expected, 1, 1e-7, 1e-5, "consistency");
    mdm_consistency_backward(logits, target, mask, B, C, 1.0f / B, gradient);
    assert_close(gradient, gradient_expected, B * C, 1e-8, 1e-5, "gradient of consistency");
    free(logits);
    free(target);
    free(mask);
    free(expected);
    free(gradient_expected);
    free(gradient);
}

static void balance_from_three_ranks_sums_is_the_references(void **state) {
    (void)state;
    float *logits = golden_floats("/loss/balance/logits", NULL),
          *expected = golden_floats("/loss/balance/value", NULL);
    float *gradient_expected = golden_floats("/loss/balance/grad", NULL), *gradient = zeros(B * C);
    double mean[C] = {0};
    for (int rank = 0; rank < 3; rank++) oracle_balance_sum(logits + rank * 8 * C, 8, C, mean);
    for (int c = 0; c < C; c++) mean[c] /= B;
    float value = (float)mdm_balance_value(mean, 1.0, C);
    assert_close(&value, expected, 1, 1e-7, 1e-5, "balance");
    for (int rank = 0; rank < 3; rank++)
        oracle_balance_backward(logits + rank * 8 * C, mean, 8, C, 1.0f / B, gradient + rank * 8 * C);
    assert_close(gradient, gradient_expected, B * C, 1e-7, 1e-5, "gradient of balance");
    free(logits);
    free(expected);
    free(gradient_expected);
    free(gradient);
}

static void sharpening_is_the_references(void **state) {
    (void)state;
    float *p = golden_floats("/loss/sharpen/p", NULL), *expected = golden_floats("/loss/sharpen/out", NULL);
    mdm_sharpen(p, B, C, (float)golden_attribute("/loss/sharpen", "T"), p);
    assert_close(p, expected, B * C, 1e-7, 1e-5, "sharpened");
    free(p);
    free(expected);
}

/* The loss of `ranks` ranks' parts and the gradient with respect to rows [2 * pairs, width]. */
static double contrast(const float *row, int64_t pairs, int width, float temperature, int ranks,
                       float *gradient) {
    float *unit = zeros(2 * pairs * width), *norm = zeros(2 * pairs),
          *unit_gradient = zeros(2 * pairs * width);
    double loss = 0;
    mdm_normalize_forward(row, 2 * pairs, width, unit, norm);
    for (int rank = 0; rank < ranks; rank++) {
        int64_t first = pairs * rank / ranks, count = pairs * (rank + 1) / ranks - first;
        loss += oracle_nt_xent(unit, pairs, first, count, width, temperature, 1.0 / (double)(2 * pairs),
                               unit_gradient);
    }
    mdm_normalize_backward(unit, norm, unit_gradient, 2 * pairs, width, gradient);
    free(unit);
    free(norm);
    free(unit_gradient);
    return loss / (double)(2 * pairs);
}

static void contrast_of_one_or_three_ranks_is_the_references(void **state) {
    (void)state;
    enum { PAIRS = 16, WIDTH = 32, N = PAIRS * WIDTH };
    static const char *const groups[] = {"/loss/nt_xent_tau0.05", "/loss/nt_xent_tau0.5"};
    for (int g = 0; g < 2; g++)
        for (int ranks = 1; ranks <= 3; ranks += 2) {
            static const char *const names[] = {"view1", "view2", "grad1", "grad2", "value"};
            float *golden[5], row[2 * N], expected[2 * N], gradient[2 * N];
            for (int i = 0; i < 5; i++) {
                char path[64];
                snprintf(path, sizeof(path), "%s/%s", groups[g], names[i]);
                golden[i] = golden_floats(path, NULL);
            }
            for (int i = 0; i < 4; i++)
                memcpy((i < 2 ? row : expected) + (i % 2) * N, golden[i], N * sizeof(float));
            float tau = (float)golden_attribute(groups[g], "tau"),
                  value = (float)contrast(row, PAIRS, WIDTH, tau, ranks, gradient);
            assert_close(&value, golden[4], 1, 1e-5, 1e-5, "NT-Xent");
            assert_close(gradient, expected, 2 * N, 1e-5, 1e-5, "gradient of NT-Xent");
            for (int i = 0; i < 5; i++) free(golden[i]);
        }
}

/* ---- the same formulas in double, and their finite differences ---- */

typedef struct loss_case {
    const float *target, *weight; /* [rows, classes], [rows] */
    const int32_t *label;
    int rows, classes;
    double ce, rce, temperature;
} loss_case;

typedef double (*loss_in_double)(const double *x, const loss_case *given);

static void softmax_in_double(const double *z, int classes, double *p) {
    double most = z[0], sum = 0;
    for (int c = 0; c < classes; c++) most = fmax(most, z[c]);
    for (int c = 0; c < classes; c++) sum += p[c] = exp(z[c] - most);
    for (int c = 0; c < classes; c++) p[c] /= sum;
}

static double symmetric_in_double(const double *z, const loss_case *given) {
    double loss = 0, p[64];
    for (int i = 0; i < given->rows; i++, z += given->classes) {
        softmax_in_double(z, given->classes, p);
        for (int c = 0; c < given->classes; c++) {
            double t = given->label ? (given->label[i] == c) : (double)given->target[i * given->classes + c];
            double one =
                -given->ce * t * log(p[c]) - given->rce * fmax(p[c], 1e-7) * log(fmin(fmax(t, 1e-4), 1.0));
            loss += (double)given->weight[i] * one;
        }
    }
    return loss;
}

static double consistency_in_double(const double *z, const loss_case *given) {
    double loss = 0, p[64];
    for (int i = 0; i < given->rows; i++, z += given->classes) {
        softmax_in_double(z, given->classes, p);
        for (int c = 0; c < given->classes; c++)
            loss += (double)given->weight[i] * pow(p[c] - (double)given->target[i * given->classes + c], 2) /
                    given->classes;
    }
    return loss;
}

static double balance_in_double(const double *z, const loss_case *given) {
    double loss = 0, p[64], mean[64] = {0};
    for (int i = 0; i < given->rows; i++, z += given->classes) {
        softmax_in_double(z, given->classes, p);
        for (int c = 0; c < given->classes; c++) mean[c] += p[c] / given->rows;
    }
    for (int c = 0; c < given->classes; c++)
        loss += (log(1.0 / given->classes) - log(mean[c])) / given->classes;
    return loss;
}

/* rows: 2 * pairs; classes: width. */
static double contrast_in_double(const double *x, const loss_case *given) {
    double loss = 0;
    const int n = given->rows, width = given->classes;
    for (int i = 0; i < n; i++) {
        double sum = 0, positive = 0;
        for (int j = 0; j < n; j++) {
            double xy = 0, xx = 0, yy = 0;
            for (int d = 0; d < width; d++) {
                xy += x[i * width + d] * x[j * width + d];
                xx += x[i * width + d] * x[i * width + d];
                yy += x[j * width + d] * x[j * width + d];
            }
            double s = xy / (sqrt(xx) * sqrt(yy)) / given->temperature;
            if (j != i) sum += exp(s);
            if (j == (i + n / 2) % n) positive = s;
        }
        loss += (log(sum) - positive) / n;
    }
    return loss;
}

static void assert_is_slope_of(loss_in_double loss, const float *at, const loss_case *given,
                               const float *gradient, const char *what) {
    const int count = given->rows * given->classes;
    double *x = malloc((size_t)count * sizeof(double));
    float *expected = zeros(count);
    assert_non_null(x);
    for (int i = 0; i < count; i++) x[i] = (double)at[i];
    for (int i = 0; i < count; i++) {
        const double kept = x[i], step = 1e-5;
        x[i] = kept + step;
        double above = loss(x, given);
        x[i] = kept - step;
        double below = loss(x, given);
        x[i] = kept;
        expected[i] = (float)((above - below) / (2 * step));
    }
    assert_close(gradient, expected, count, 3e-6, 1e-4, what);
    free(expected);
    free(x);
}

typedef struct random_batch {
    float logits[7 * 5], target[7 * 5], weight[7], gradient[7 * 5];
    int32_t label[7];
    loss_case given;
} random_batch;

static void make_batch(random_batch *batch) {
    memset(batch, 0, sizeof(*batch));
    fill(batch->logits, 35, 3.0f, 1);
    fill(batch->target, 35, 2.0f, 2);
    mdm_softmax(batch->target, 7, 5, batch->target);
    fill(batch->weight, 7, 0.5f, 3);
    for (int i = 0; i < 7; i++) {
        batch->weight[i] += 0.5f;
        batch->label[i] = i % 5;
    }
    batch->target[0] = 0.0f; /* log 0 becomes log 1e-4 */
    batch->target[6] = 1.0f;
    batch->logits[12] = -40.0f; /* a probability below the clamp */
    batch->given = (loss_case){
        .target = batch->target, .weight = batch->weight, .rows = 7, .classes = 5, .ce = 0.7, .rce = 1.3};
}

static void hard_symmetric_cross_entropy_has_its_formulas_slope(void **state) {
    (void)state;
    random_batch batch;
    float loss[7];
    make_batch(&batch);
    batch.given.label = batch.label;
    mdm_sce_hard_backward(batch.logits, batch.label, batch.weight, 7, 5, 0.7f, 1.3f, 1.0f, batch.gradient);
    assert_is_slope_of(symmetric_in_double, batch.logits, &batch.given, batch.gradient, "hard SCE");
    mdm_sce_hard_forward(batch.logits, batch.label, 7, 5, 0.7f, 1.3f, loss);
    double x[35];
    for (int i = 0; i < 35; i++) x[i] = (double)batch.logits[i];
    double value = oracle_sum(loss, batch.weight, 7), expected = symmetric_in_double(x, &batch.given);
    assert_close_double(&value, &expected, 1, 1e-5, 1e-6, "hard SCE");
}

static void soft_symmetric_cross_entropy_has_its_formulas_slope(void **state) {
    (void)state;
    random_batch batch;
    float loss[7];
    make_batch(&batch);
    mdm_sce_soft_backward(batch.logits, batch.target, batch.weight, 7, 5, 0.7f, 1.3f, 1.0f, batch.gradient);
    assert_is_slope_of(symmetric_in_double, batch.logits, &batch.given, batch.gradient, "soft SCE");
    mdm_sce_soft_forward(batch.logits, batch.target, 7, 5, 0.7f, 1.3f, loss);
    double x[35];
    for (int i = 0; i < 35; i++) x[i] = (double)batch.logits[i];
    double value = oracle_sum(loss, batch.weight, 7), expected = symmetric_in_double(x, &batch.given);
    assert_close_double(&value, &expected, 1, 1e-5, 1e-6, "soft SCE");
}

static void consistency_has_its_formulas_slope(void **state) {
    (void)state;
    random_batch batch;
    make_batch(&batch);
    mdm_consistency_backward(batch.logits, batch.target, batch.weight, 7, 5, 1.0f, batch.gradient);
    assert_is_slope_of(consistency_in_double, batch.logits, &batch.given, batch.gradient, "consistency");
}

static void balance_has_its_formulas_slope(void **state) {
    (void)state;
    random_batch batch;
    make_batch(&batch);
    double mean[5] = {0};
    oracle_balance_sum(batch.logits, 7, 5, mean);
    for (int c = 0; c < 5; c++) mean[c] /= 7;
    oracle_balance_backward(batch.logits, mean, 7, 5, 1.0f / 7, batch.gradient);
    assert_is_slope_of(balance_in_double, batch.logits, &batch.given, batch.gradient, "balance");
}

static void contrast_has_its_formulas_slope_through_the_normalisation(void **state) {
    (void)state;
    float row[12 * 6], gradient[12 * 6];
    fill(row, 72, 2.0f, 5);
    loss_case given = {.rows = 12, .classes = 6, .temperature = 0.3};
    contrast(row, 6, 6, 0.3f, 2, gradient);
    assert_is_slope_of(contrast_in_double, row, &given, gradient, "NT-Xent");
}

/* ---- properties ---- */

static void contrast_over_tiles_and_ranks_is_that_of_one_rank(void **state) {
    (void)state;
    enum { PAIRS = 301, WIDTH = 24, N = 2 * PAIRS * WIDTH }; /* more anchors than one tile, uneven slices */
    float *row = zeros(N), *one = zeros(N), *many = zeros(N);
    fill(row, N, 1.0f, 9);
    double expected = contrast(row, PAIRS, WIDTH, 0.05f, 1, one);
    for (int ranks = 2; ranks <= 7; ranks++) {
        double actual = contrast(row, PAIRS, WIDTH, 0.05f, ranks, many);
        assert_close_double(&actual, &expected, 1, 0, 1e-6, "NT-Xent over ranks");
        assert_close(many, one, N, 1e-7, 1e-4, "gradient of NT-Xent over ranks");
    }
    double *x = malloc(N * sizeof(double));
    for (int i = 0; i < N; i++) x[i] = (double)row[i];
    loss_case given = {.rows = 2 * PAIRS, .classes = WIDTH, .temperature = 0.05};
    double exact = contrast_in_double(x, &given);
    assert_close_double(&expected, &exact, 1, 0, 1e-5, "NT-Xent against the formula");
    free(x);
    free(row);
    free(one);
    free(many);
}

static void contrast_is_finite_at_a_tiny_temperature_and_for_a_zero_row(void **state) {
    (void)state;
    float row[8 * 4], gradient[8 * 4], unit[4], norm, zero[4] = {0}, ones[4] = {1, 1, 1, 1};
    fill(row, 32, 1.0f, 4);
    double loss = contrast(row, 4, 4, 1e-3f, 1, gradient);
    assert_true(isfinite(loss));
    for (int i = 0; i < 32; i++) assert_true(isfinite(gradient[i]));
    mdm_normalize_forward(zero, 1, 4, unit, &norm);
    assert_memory_equal(unit, zero, sizeof(zero));
    mdm_normalize_backward(unit, &norm, ones, 1, 4, gradient);
    for (int j = 0; j < 4; j++) assert_float_equal(gradient[j] * 1e-12f, 1.0f, 1e-6f);
}

static void one_pair_has_no_contrast(void **state) {
    (void)state;
    float row[2 * 3] = {1, 2, 3, -1, 0, 2}, gradient[6];
    double loss = contrast(row, 1, 3, 0.5f, 1, gradient);
    assert_true(loss == 0.0);
    for (int i = 0; i < 6; i++) assert_float_equal(gradient[i], 0, 1e-7f);
}

static void a_sample_of_weight_zero_gets_no_gradient_even_with_bad_logits(void **state) {
    (void)state;
    float logits[2 * 3] = {1, 2, 3, NAN, 0, INFINITY}, target[6] = {0, 0, 1, 1, 0, 0}, weight[2] = {1, 0},
                     loss[2];
    float gradient[6] = {0};
    int32_t label[2] = {2, 0};
    mdm_sce_hard_backward(logits, label, weight, 2, 3, 1, 1, 1, gradient);
    mdm_sce_soft_backward(logits, target, weight, 2, 3, 1, 1, 1, gradient);
    mdm_consistency_backward(logits, target, weight, 2, 3, 1, gradient);
    for (int c = 0; c < 3; c++) {
        assert_true(gradient[c] != 0.0f && isfinite(gradient[c]));
        assert_true(gradient[3 + c] == 0.0f);
    }
    mdm_sce_soft_forward(logits, target, 2, 3, 1, 1, loss);
    assert_true(isfinite(oracle_sum(loss, weight, 2)));
    assert_true(isfinite(mdm_consistency_forward(logits, target, weight, 2, 3)));
}

static void extreme_logits_give_finite_losses(void **state) {
    (void)state;
    float logits[2 * 3] = {1e4f, -1e4f, 0, -3e38f, 3e38f, 0}, loss[2], p[6], gradient[6] = {0};
    int32_t label[2] = {0, 1};
    mdm_sce_hard_forward(logits, label, 2, 3, 1, 0, loss);
    assert_float_equal(loss[0], 0, 1e-6f);
    assert_float_equal(loss[1], 0, 1e-6f);
    label[0] = 1;
    mdm_sce_hard_forward(logits, label, 1, 3, 1, 0, loss);
    assert_float_equal(loss[0], 2e4f, 1e-2f);
    mdm_softmax(logits, 2, 3, p);
    assert_float_equal(p[0], 1, 0);
    assert_float_equal(p[4], 1, 0);
    mdm_sce_hard_backward(logits, label, NULL, 2, 3, 1, 1, 1, gradient);
    for (int i = 0; i < 6; i++) assert_true(isfinite(gradient[i]));
    double mean[3] = {1, 0, 0}; /* collapsed to the last bit: finite all the same */
    assert_true(isfinite(mdm_balance_value(mean, 1.0, 3)));
    oracle_balance_backward(logits, mean, 1, 3, 1, gradient);
    for (int i = 0; i < 3; i++) assert_true(isfinite(gradient[i]));
}

static void predictions_below_the_clamp_count_as_the_clamp_and_pass_no_gradient(void **state) {
    (void)state;
    enum { MANY = 2000 };
    float *logits = zeros(MANY), *target = zeros(MANY), *gradient = zeros(MANY), loss[2];
    int32_t label = 0;
    logits[0] = 17.0f; /* the others have 4e-8 each */
    target[0] = 1.0f;
    mdm_sce_hard_forward(logits, &label, 1, MANY, 0.0f, 1.0f, &loss[0]);
    mdm_sce_soft_forward(logits, target, 1, MANY, 0.0f, 1.0f, &loss[1]);
    for (int i = 0; i < 2; i++) assert_float_equal(loss[i], (MANY - 1) * 1e-7 * 9.2103404, 1e-6f);
    mdm_sce_hard_backward(logits, &label, NULL, 1, MANY, 0.0f, 1.0f, 1.0f, gradient);
    mdm_sce_soft_backward(logits, target, NULL, 1, MANY, 0.0f, 1.0f, 1.0f, gradient);
    for (int c = 0; c < MANY; c++) assert_true(gradient[c] == 0.0f);
    free(logits);
    free(target);
    free(gradient);
}

static void sharpening_survives_a_low_temperature(void **state) {
    (void)state;
    float p[4] = {0.24f, 0.26f, 0.25f, 0.25f}, zero[2] = {0, 1};
    mdm_sharpen(p, 1, 4, 0.002f, p);
    assert_float_equal(p[1], 1, 1e-6f);
    assert_float_equal(p[0] + p[1] + p[2] + p[3], 1, 1e-6f);
    mdm_sharpen(zero, 1, 2, 0.5f, zero);
    assert_float_equal(zero[0], 0, 0);
    assert_float_equal(zero[1], 1, 0);
}

static void gradients_are_added_to_what_is_there(void **state) {
    (void)state;
    random_batch once, twice;
    make_batch(&once);
    make_batch(&twice);
    mdm_consistency_backward(once.logits, once.target, NULL, 7, 5, 1, once.gradient);
    for (int i = 0; i < 2; i++)
        mdm_consistency_backward(twice.logits, twice.target, NULL, 7, 5, 1, twice.gradient);
    for (int i = 0; i < 35; i++) assert_float_equal(twice.gradient[i], 2 * once.gradient[i], 1e-7f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hard_symmetric_cross_entropy_is_the_references),
        cmocka_unit_test(soft_symmetric_cross_entropy_is_the_references),
        cmocka_unit_test(consistency_is_the_references),
        cmocka_unit_test(balance_from_three_ranks_sums_is_the_references),
        cmocka_unit_test(sharpening_is_the_references),
        cmocka_unit_test(contrast_of_one_or_three_ranks_is_the_references),
        cmocka_unit_test(hard_symmetric_cross_entropy_has_its_formulas_slope),
        cmocka_unit_test(soft_symmetric_cross_entropy_has_its_formulas_slope),
        cmocka_unit_test(consistency_has_its_formulas_slope),
        cmocka_unit_test(balance_has_its_formulas_slope),
        cmocka_unit_test(contrast_has_its_formulas_slope_through_the_normalisation),
        cmocka_unit_test(contrast_over_tiles_and_ranks_is_that_of_one_rank),
        cmocka_unit_test(contrast_is_finite_at_a_tiny_temperature_and_for_a_zero_row),
        cmocka_unit_test(one_pair_has_no_contrast),
        cmocka_unit_test(a_sample_of_weight_zero_gets_no_gradient_even_with_bad_logits),
        cmocka_unit_test(extreme_logits_give_finite_losses),
        cmocka_unit_test(predictions_below_the_clamp_count_as_the_clamp_and_pass_no_gradient),
        cmocka_unit_test(sharpening_survives_a_low_temperature),
        cmocka_unit_test(gradients_are_added_to_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
