/* Products, linear layers and batch norm over rows against plain loops in double, on every backend. */
#include "matrix.h"
#include "mdm/device/formulas.h"
#include "mdm/device/products.h"

/* ---- products ---- */

static double factor_of(const float *values, int row, int column, int stride, int is_transposed) {
    return (double)(is_transposed ? values[column * stride + row] : values[row * stride + column]);
}

static void multiply_plainly(const mdm_product_shape *s, float alpha, const float *a, const float *b,
                             float beta, const float *bias, float *c) {
    int transpose_a = s->form == MDM_PRODUCT_TN, transpose_b = s->form == MDM_PRODUCT_NT;
    for (int i = 0; i < s->m; i++)
        for (int j = 0; j < s->n; j++) {
            double sum = 0;
            for (int k = 0; k < s->k; k++)
                sum += factor_of(a, i, k, transpose_a ? s->m : s->k, transpose_a) *
                       factor_of(b, k, j, transpose_b ? s->k : s->n, transpose_b);
            float *out = c + i * s->n + j;
            *out = (float)((double)alpha * sum + (beta != 0 ? (double)(beta * *out) : 0.0) +
                           (double)(bias ? bias[j] : 0.0f));
        }
}

static const int product_sizes[][3] = {{1, 1, 1}, {7, 5, 3}, {32, 16, 64}, {33, 10, 65}, {3, 130, 20}};

static void check_product(const mdm_product_shape *s, float alpha, float beta, int64_t offset) {
    mdm_product *product;
    matrix a = make((int64_t)s->m * s->k + offset, 1), b = make((int64_t)s->k * s->n + offset, 2),
           bias = make(s->n, 3), c = make((int64_t)s->m * s->n + offset, 4);
    assert_int_equal(mdm_product_create(device, s, &product), MDM_OK);
    assert_int_equal(mdm_product_run(product, alpha, a.there + offset, b.there + offset, beta,
                                     s->has_bias ? bias.there : NULL, c.there + offset),
                     MDM_OK);
    multiply_plainly(s, alpha, a.host + offset, b.host + offset, beta, s->has_bias ? bias.host : NULL,
                     c.host + offset);
    assert_there(&c, c.host, s->precision == MDM_TF32 ? 0.05 : 2e-5, "product");
    mdm_product_destroy(product);
    let_go(&a);
    let_go(&b);
    let_go(&bias);
    let_go(&c);
}

static void products_of_every_form_and_size_are_those_of_plain_loops(void **state) {
    (void)state;
    static const mdm_product_form forms[] = {MDM_PRODUCT_NT, MDM_PRODUCT_NN, MDM_PRODUCT_TN};
    for (int f = 0; f < 3; f++)
        for (size_t i = 0; i < sizeof product_sizes / sizeof *product_sizes; i++)
            for (int variant = 0; variant < 4; variant++) {
                const int *size = product_sizes[i];
                mdm_product_shape s = {forms[f], MDM_FP32, size[0], size[1], size[2], variant & 1};
                check_product(&s, variant & 1 ? 0.5f : 1.0f, variant & 2 ? 1.0f : 0.0f, variant == 3);
            }
}

static void products_in_tf32_are_near_and_only_where_the_device_has_it(void **state) {
    (void)state;
    mdm_product *product;
    mdm_product_shape s = {MDM_PRODUCT_NT, MDM_TF32, 33, 20, 64, 1};
    if (mdm_device_get_info(device)->has_tf32)
        check_product(&s, 1.0f, 1.0f, 0);
    else
        assert_int_equal(mdm_product_create(device, &s, &product), MDM_LOST);
}

static void products_of_bfloat16_round_the_factors_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof product_sizes / sizeof *product_sizes; i++) {
        const int *size = product_sizes[i];
        mdm_product_shape s = {MDM_PRODUCT_NT, MDM_BF16, size[0], size[1], size[2], 0};
        mdm_product *product;
        matrix factors[2] = {make((int64_t)s.m * s.k, 1), make((int64_t)s.n * s.k, 2)},
               c = make((int64_t)s.m * s.n, 3);
        uint16_t *rounded[2];
        for (int f = 0; f < 2; f++) {
            rounded[f] = test_device_copy(device, NULL, sizeof(uint16_t) * (size_t)factors[f].count);
            mdm_round_to_bf16(device, factors[f].there, factors[f].count, rounded[f]);
            for (int64_t j = 0; j < factors[f].count; j++)
                factors[f].host[j] = mdm_float_of_bf16(mdm_bf16_of(factors[f].host[j]));
        }
        assert_int_equal(mdm_product_create(device, &s, &product), MDM_OK);
        assert_int_equal(mdm_product_run(product, 1.0f, rounded[0], rounded[1], 0.0f, NULL, c.there), MDM_OK);
        multiply_plainly(&s, 1.0f, factors[0].host, factors[1].host, 0.0f, NULL, c.host);
        assert_there(&c, c.host, 2e-5, "product of bfloat16");
        mdm_product_destroy(product);
        for (int f = 0; f < 2; f++) {
            mdm_device_free(device, rounded[f]);
            let_go(&factors[f]);
        }
        let_go(&c);
    }
}

/* Whole numbers, which half precision holds and whose products and sums are exact. */
static void products_of_half_precision_are_for_cuda_alone(void **state) {
    (void)state;
    enum { M = 5, N = 19, K = 40 };
    mdm_product_shape s = {MDM_PRODUCT_NT, MDM_FP16, M, N, K, 0};
    mdm_product *product;
    _Float16 halves[2][N * K];
    float factors[2][N * K], expected[M * N];
    if (!mdm_device_get_info(device)->is_cuda) {
        assert_int_equal(mdm_product_create(device, &s, &product), MDM_LOST);
        return;
    }
    for (int i = 0; i < N * K; i++) {
        factors[0][i] = (float)(i * 7 % 23 - 11);
        factors[1][i] = (float)(i * 5 % 31 - 15);
        for (int f = 0; f < 2; f++) halves[f][i] = (_Float16)factors[f][i];
    }
    void *a = test_device_copy(device, halves[0], sizeof(_Float16) * M * K),
         *b = test_device_copy(device, halves[1], sizeof(_Float16) * N * K);
    matrix c = make(M * N, 3);
    assert_int_equal(mdm_product_create(device, &s, &product), MDM_OK);
    assert_int_equal(mdm_product_run(product, 1.0f, a, b, 0.0f, NULL, c.there), MDM_OK);
    multiply_plainly(&s, 1.0f, factors[0], factors[1], 0.0f, NULL, expected);
    assert_there(&c, expected, 0, "product of half precision");
    mdm_product_destroy(product);
    mdm_device_free(device, a);
    mdm_device_free(device, b);
    let_go(&c);
}

static void a_product_shows_nan_and_forgets_what_it_overwrites(void **state) {
    (void)state;
    float a[4] = {1, 2, NAN, 4}, b[4] = {1, 0, 0, 1}, before[4] = {NAN, NAN, NAN, NAN}, c[4];
    mdm_product_shape s = {MDM_PRODUCT_NN, MDM_FP32, 2, 2, 2, 0};
    mdm_product *product;
    float *there[3] = {test_device_copy(device, a, sizeof a), test_device_copy(device, b, sizeof b),
                       test_device_copy(device, before, sizeof before)};
    assert_int_equal(mdm_product_create(device, &s, &product), MDM_OK);
    assert_int_equal(mdm_product_run(product, 1.0f, there[0], there[1], 0.0f, NULL, there[2]), MDM_OK);
    assert_int_equal(mdm_device_download(device, c, there[2], sizeof c), MDM_OK);
    assert_true(c[0] == 1.0f && c[1] == 2.0f && isnan(c[2]) && isnan(c[3]));
    mdm_product_destroy(product);
    for (int i = 0; i < 3; i++) mdm_device_free(device, there[i]);
    s.k = 0;
    assert_int_equal(mdm_product_create(device, &s, &product), MDM_LOST);
}

/* ---- linear layers ---- */

typedef struct layer {
    int rows, inputs, outputs;
    matrix x, weight, bias, y, y_gradient, weight_gradient, bias_gradient, x_gradient;
} layer;

static void check_linear(int rows, int inputs, int outputs, int adds) {
    layer l = {rows,
               inputs,
               outputs,
               make((int64_t)rows * inputs, 1),
               make((int64_t)outputs * inputs, 2),
               make(outputs, 3),
               make((int64_t)rows * outputs, 4),
               make((int64_t)rows * outputs, 5),
               make((int64_t)outputs * inputs, 6),
               make(outputs, 7),
               make((int64_t)rows * inputs, 8)};
    const mdm_product_shape forward = {MDM_PRODUCT_NT, MDM_FP32, rows, outputs, inputs, 1},
                            weight = {MDM_PRODUCT_TN, MDM_FP32, outputs, inputs, rows, 0},
                            x = {MDM_PRODUCT_NN, MDM_FP32, rows, inputs, outputs, 0};
    const float beta = adds ? 1.0f : 0.0f;
    mdm_linear *linear;
    assert_int_equal(mdm_linear_create(device, rows, inputs, outputs, MDM_FP32, &linear), MDM_OK);
    assert_int_equal(mdm_linear_forward(linear, l.x.there, l.weight.there, l.bias.there, l.y.there), MDM_OK);
    assert_int_equal(mdm_linear_backward(linear, l.x.there, l.weight.there, l.y_gradient.there, adds,
                                         l.weight_gradient.there, l.bias_gradient.there, adds,
                                         l.x_gradient.there),
                     MDM_OK);
    multiply_plainly(&forward, 1.0f, l.x.host, l.weight.host, 0.0f, l.bias.host, l.y.host);
    multiply_plainly(&weight, 1.0f, l.y_gradient.host, l.x.host, beta, NULL, l.weight_gradient.host);
    multiply_plainly(&x, 1.0f, l.y_gradient.host, l.weight.host, beta, NULL, l.x_gradient.host);
    for (int j = 0; j < outputs; j++) {
        double sum = adds ? (double)l.bias_gradient.host[j] : 0.0;
        for (int i = 0; i < rows; i++) sum += (double)l.y_gradient.host[i * outputs + j];
        l.bias_gradient.host[j] = (float)sum;
    }
    assert_there(&l.y, l.y.host, 3e-5, "linear layer");
    assert_there(&l.weight_gradient, l.weight_gradient.host, 1e-4, "gradient of weights");
    assert_there(&l.bias_gradient, l.bias_gradient.host, 1e-5, "gradient of biases");
    assert_there(&l.x_gradient, l.x_gradient.host, 3e-5, "gradient of inputs");
    mdm_linear_destroy(linear);
    matrix *all[] = {&l.x,          &l.weight,          &l.bias,          &l.y,
                     &l.y_gradient, &l.weight_gradient, &l.bias_gradient, &l.x_gradient};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) let_go(all[i]);
}

static void linear_layers_and_their_gradients_are_those_of_plain_loops(void **state) {
    (void)state;
    for (int adds = 0; adds < 2; adds++) {
        check_linear(1, 1, 1, adds);
        check_linear(7, 33, 10, adds);
        check_linear(300, 16, 45, adds);
        check_linear(0, 8, 4, adds); /* a rank without rows: zeros, or what was there */
    }
    mdm_linear *linear;
    assert_int_equal(mdm_linear_create(device, 2, 2, 2, MDM_BF16, &linear), MDM_LOST);
}

/* ---- batch norm over rows ---- */

typedef struct norm_case {
    int rows, columns, is_in_one; /* what follows the sums is left to the same call */
    mdm_norm_values values;
    double *sums; /* [2, columns] */
    matrix x, gamma, beta, normalised, y, gradient, x_gradient, mean_gradient, mean_product;
    matrix gamma_gradient, beta_gradient; /* added to */
} norm_case;

static void run_norm(norm_case *n) {
    double *second = n->sums + n->columns;
    const mdm_norm_forward_rest forward = {n->rows, n->gamma.there, n->beta.there, NULL, NULL, &n->values};
    const mdm_norm_backward_rest backward = {n->gamma_gradient.there, n->beta_gradient.there, 1, n->rows,
                                             n->mean_gradient.there,  n->mean_product.there};
    mdm_column_statistics(device, n->rows, n->columns, n->x.there, n->sums, second,
                          n->is_in_one ? &forward : NULL);
    if (!n->is_in_one)
        mdm_norm_from_sums(device, n->columns, 1, n->sums, second, n->rows, n->gamma.there, n->beta.there,
                           NULL, NULL, &n->values);
    mdm_column_norm_forward(device, n->rows, n->columns, n->x.there, &n->values, n->gamma.there,
                            n->beta.there, n->normalised.there, n->y.there);
    mdm_column_norm_backward_sums(device, n->rows, n->columns, n->gradient.there, n->normalised.there,
                                  n->sums, second, n->is_in_one ? &backward : NULL);
    if (!n->is_in_one) {
        mdm_norm_gradients(device, n->columns, 1, n->sums, second, 1, n->gamma_gradient.there,
                           n->beta_gradient.there);
        mdm_norm_means(device, n->columns, n->sums, second, n->rows, n->mean_gradient.there,
                       n->mean_product.there);
    }
    mdm_column_norm_backward_input(device, n->rows, n->columns, n->gradient.there, n->normalised.there,
                                   &n->values, n->gamma.there, n->mean_gradient.there, n->mean_product.there,
                                   n->x_gradient.there);
}

/* The same for one column, in double. */
static void expect_column(const norm_case *n, int c) {
    double sum = 0, squares = 0, gradients = 0, products = 0;
    for (int i = 0; i < n->rows; i++) sum += (double)n->x.host[i * n->columns + c];
    for (int i = 0; i < n->rows; i++)
        squares += pow((double)n->x.host[i * n->columns + c] - sum / n->rows, 2);
    double inverse = 1 / sqrt(squares / n->rows + 1e-5), gamma = (double)n->gamma.host[c];
    for (int i = 0; i < n->rows; i++) {
        int at = i * n->columns + c;
        double v = ((double)n->x.host[at] - sum / n->rows) * inverse;
        n->normalised.host[at] = (float)v;
        n->y.host[at] = (float)(gamma * v + (double)n->beta.host[c]);
        gradients += (double)n->gradient.host[at] / n->rows;
        products += (double)n->gradient.host[at] * v / n->rows;
    }
    n->beta_gradient.host[c] += (float)(gradients * n->rows);
    n->gamma_gradient.host[c] += (float)(products * n->rows);
    for (int i = 0; i < n->rows; i++) {
        int at = i * n->columns + c;
        n->x_gradient.host[at] =
            (float)(gamma * inverse *
                    ((double)n->gradient.host[at] - gradients - (double)n->normalised.host[at] * products));
    }
}

static void batch_norm_over_rows_and_its_gradient_are_those_of_plain_loops(void **state) {
    (void)state;
    static const int sizes[][2] = {{2, 1}, {7, 33}, {1000, 10}, {129, 130}};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        int rows = sizes[i / 2][0], columns = sizes[i / 2][1];
        int64_t all = (int64_t)rows * columns;
        norm_case n = {.rows = rows, .columns = columns, .is_in_one = i % 2};
        matrix *used[] = {&n.x,
                          &n.normalised,
                          &n.y,
                          &n.gradient,
                          &n.x_gradient,
                          &n.gamma,
                          &n.beta,
                          &n.mean_gradient,
                          &n.mean_product,
                          &n.gamma_gradient,
                          &n.beta_gradient};
        for (uint32_t u = 0; u < 11; u++) *used[u] = make(u < 5 ? all : columns, u);
        matrix values[4];
        for (uint32_t v = 0; v < 4; v++) values[v] = make(mdm_padded_channels(device, columns), 10 + v);
        n.values = (mdm_norm_values){values[0].there, values[1].there, values[2].there, values[3].there};
        n.sums = test_device_copy(device, NULL, sizeof(double) * 2 * (size_t)columns);
        run_norm(&n);
        for (int c = 0; c < columns; c++) expect_column(&n, c);
        double tolerance = rows < 3 ? 2e-3 : 2e-5; /* two rows: the gradient is a difference of equals */
        assert_there(&n.y, n.y.host, 1e-4, "batch norm over rows");
        assert_there(&n.x_gradient, n.x_gradient.host, tolerance, "gradient of batch norm over rows");
        assert_there(&n.gamma_gradient, n.gamma_gradient.host, 1e-3, "gradient of gamma");
        assert_there(&n.beta_gradient, n.beta_gradient.host, 1e-3, "gradient of beta");
        for (int u = 0; u < 11; u++) let_go(used[u]);
        for (int v = 0; v < 4; v++) let_go(&values[v]);
        mdm_device_free(device, n.sums);
    }
}

/* ---- what steps need besides ---- */

static void a_step_moves_weights_unless_the_verdict_is_against_it(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static const double verdicts[] = {MDM_STEP_IS_SOUND, MDM_STEP_IS_NOT_FINITE, MDM_STEP_IS_SPIKE};
    const float rate = 0.1f;
    matrix weights = make(COUNT, 1), velocity = make(COUNT, 2), gradient = make(COUNT, 3),
           copy = make(COUNT, 4);
    float expected[2][COUNT];
    for (int i = 0; i < COUNT; i++) {
        expected[0][i] = 0.9f * velocity.host[i] + gradient.host[i] + 5e-4f * weights.host[i];
        expected[1][i] = weights.host[i] - rate * expected[0][i];
    }
    float *rate_there = test_device_copy(device, &rate, sizeof rate);
    for (int v = 0; v < 3; v++) { /* the first moves, the others leave all as it is */
        double *verdict = test_device_copy(device, &verdicts[v], sizeof *verdicts);
        mdm_sgd_step(device, weights.there, gradient.there, velocity.there, COUNT, rate_there, 0.9f, 5e-4f,
                     verdict);
        assert_there(&velocity, expected[0], 1e-6, "velocity");
        assert_there(&weights, expected[1], 1e-6, "weights");
        mdm_device_free(device, verdict);
    }
    mdm_device_copy(device, copy.there, weights.there, sizeof(float) * COUNT);
    assert_there(&copy, expected[1], 1e-6, "a copy");
    matrix *used[] = {&weights, &velocity, &gradient, &copy};
    for (int i = 0; i < 4; i++) let_go(used[i]);
    mdm_device_free(device, rate_there);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_every_form_and_size_are_those_of_plain_loops),
        cmocka_unit_test(products_in_tf32_are_near_and_only_where_the_device_has_it),
        cmocka_unit_test(products_of_bfloat16_round_the_factors_alone),
        cmocka_unit_test(products_of_half_precision_are_for_cuda_alone),
        cmocka_unit_test(a_product_shows_nan_and_forgets_what_it_overwrites),
        cmocka_unit_test(linear_layers_and_their_gradients_are_those_of_plain_loops),
        cmocka_unit_test(batch_norm_over_rows_and_its_gradient_are_those_of_plain_loops),
        cmocka_unit_test(a_step_moves_weights_unless_the_verdict_is_against_it),
    };
    test_device_or_skip();
    device = test_device_open(2, 0);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    mdm_device_destroy(device);
    return failures;
}
