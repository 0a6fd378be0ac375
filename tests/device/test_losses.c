/* Targets, mixing, losses and contrast on every backend: the reference implementation's values and gradients
 * (golden.h5, loss/...), the plain formulas of losses_host.h and loss_oracle.h (which have their finite
 * differences in test_losses_host.c) at odd sizes, and what happens to NaN. */
#include "loss_oracle.h"
#include "matrix.h"
#include "mdm/device/losses.h"
#include "mdm/device/products.h"
#include <string.h>

enum { B = 24, C = 10 };

/* What a loss is given and what it gives. */
typedef struct loss_case {
    mdm_loss_rows rows;
    matrix logits, target, weight, gradient;
    int32_t *label, *label_there;
    double *value_there, *sum_there;
    float scale;
} loss_case;

static void open_case(loss_case *l, matrix logits, matrix target, matrix weight, const int32_t *label,
                      int rows, int classes) {
    *l = (loss_case){.logits = logits, .target = target, .weight = weight, .gradient = make(logits.count, 9)};
    l->label = malloc(sizeof(int32_t) * (size_t)(rows + 1));
    for (int i = 0; i < rows; i++) l->label[i] = label ? label[i] : i * 7 % classes;
    l->label_there = test_device_copy(device, l->label, sizeof(int32_t) * (size_t)rows);
    l->value_there = test_device_copy(device, NULL, sizeof(double) * (size_t)rows);
    l->sum_there = test_device_copy(device, NULL, sizeof(double));
    l->rows = (mdm_loss_rows){.logits = l->logits.there,
                              .rows = rows,
                              .classes = classes,
                              .weight = weight.there,
                              .scale = 1.0f,
                              .value = l->value_there,
                              .gradient = l->gradient.there};
}

static void close_case(loss_case *l) {
    let_go(&l->logits);
    if (l->target.there) let_go(&l->target);
    if (l->weight.there) let_go(&l->weight);
    let_go(&l->gradient);
    free(l->label);
    mdm_device_free(device, l->label_there);
    mdm_device_free(device, l->value_there);
    mdm_device_free(device, l->sum_there);
}

static matrix golden_matrix(const char *path) {
    int64_t count;
    float *values = golden_floats(path, &count);
    return matrix_of(values, count);
}

/* The rows' values over `divisor`. */
static double sum_of(const loss_case *l, double divisor) {
    double sum;
    mdm_row_sum wanted = {l->value_there, l->rows.rows, divisor, l->sum_there};
    mdm_sum_rows(device, &wanted, 1);
    assert_int_equal(mdm_device_download(device, &sum, l->sum_there, sizeof sum), MDM_OK);
    return sum;
}

static void assert_golden_gradient(const loss_case *l, const char *path, const char *what) {
    float *expected = golden_floats(path, NULL);
    assert_there(&l->gradient, expected, 1e-6, what);
    free(expected);
}

static void assert_values(const loss_case *l, const float *expected, double tolerance, const char *what) {
    int64_t rows = l->rows.rows;
    double *values = malloc(sizeof(double) * (size_t)(rows + 1));
    float *narrow = malloc(sizeof(float) * (size_t)(rows + 1));
    assert_int_equal(mdm_device_download(device, values, l->value_there, sizeof(double) * (size_t)rows),
                     MDM_OK);
    for (int64_t i = 0; i < rows; i++) narrow[i] = (float)values[i];
    assert_close(narrow, expected, rows, tolerance, tolerance, what);
    free(values);
    free(narrow);
}

/* Rows of soft targets that are all labelled, or all unlabelled. */
static void lose_softly(const loss_case *l, float ce_weight, float rce_weight) {
    const mdm_loss_rows none = {.classes = l->rows.classes};
    mdm_loss_soft(device, &l->rows, &none, l->target.there, ce_weight, rce_weight);
}

static void lose_consistently(const loss_case *l) {
    const mdm_loss_rows none = {.classes = l->rows.classes};
    mdm_loss_soft(device, &none, &l->rows, l->target.there, 1.0f, 1.0f);
}

/* ---- the reference's numbers ---- */

static void symmetric_cross_entropy_is_the_references(void **state) {
    (void)state;
    const matrix none = {NULL, NULL, 0};
    loss_case hard, soft;
    int32_t *label = golden_ints("/loss/sce_hard/label", NULL);
    float *expected = golden_floats("/loss/sce_hard/per_sample", NULL);
    open_case(&hard, golden_matrix("/loss/sce_hard/logits"), none, none, label, B, C);
    hard.rows.scale = 1.0f / B;
    mdm_loss_hard(device, &hard.rows, hard.label_there, 1.0f, 1.0f);
    assert_values(&hard, expected, 1e-5, "hard SCE");
    assert_golden_gradient(&hard, "/loss/sce_hard/grad", "gradient of hard SCE");
    close_case(&hard);
    free(expected);
    free(label);
    expected = golden_floats("/loss/sce_soft/per_sample", NULL);
    open_case(&soft, golden_matrix("/loss/sce_soft/logits"), golden_matrix("/loss/sce_soft/target"),
              golden_matrix("/loss/sce_soft/mask"), NULL, B, C);
    for (int i = 0; i < B; i++) expected[i] *= soft.weight.host[i];
    soft.rows.scale = 1.0f / B;
    lose_softly(&soft, 1.0f, 1.0f);
    assert_values(&soft, expected, 1e-5, "soft SCE");
    assert_golden_gradient(&soft, "/loss/sce_soft/grad", "gradient of soft SCE");
    close_case(&soft);
    free(expected);
}

static void consistency_is_the_references(void **state) {
    (void)state;
    loss_case l;
    float *expected = golden_floats("/loss/consistency/value", NULL);
    open_case(&l, golden_matrix("/loss/consistency/logits"), golden_matrix("/loss/consistency/target"),
              golden_matrix("/loss/consistency/mask"), NULL, B, C);
    l.rows.scale = 1.0f / B;
    lose_consistently(&l);
    float value = (float)sum_of(&l, B);
    assert_close(&value, expected, 1, 1e-7, 1e-5, "consistency");
    assert_golden_gradient(&l, "/loss/consistency/grad", "gradient of consistency");
    close_case(&l);
    free(expected);
}

static void balance_from_three_ranks_sums_is_the_references(void **state) {
    (void)state;
    matrix logits = golden_matrix("/loss/balance/logits"), probability = make(B * C, 1),
           gradient = matrix_of(calloc(B * C, sizeof(float)), B * C);
    float *expected = golden_floats("/loss/balance/value", NULL),
          *expected_gradient = golden_floats("/loss/balance/grad", NULL);
    double all[C] = {0}, sum[C], value;
    double *sum_there = test_device_copy(device, NULL, sizeof sum),
           *value_there = test_device_copy(device, NULL, sizeof value);
    for (int rank = 0; rank < 3; rank++) {
        int64_t at = rank * 8 * C;
        mdm_balance_sums(device, logits.there + at, 8, C, probability.there + at, sum_there);
        assert_int_equal(mdm_device_download(device, sum, sum_there, sizeof sum), MDM_OK);
        for (int c = 0; c < C; c++) all[c] += sum[c];
    }
    assert_int_equal(mdm_device_upload(device, sum_there, all, sizeof all), MDM_OK);
    for (int rank = 0; rank < 4; rank++) { /* the last has no rows, but the loss */
        int64_t at = rank * 8 * C, rows = rank < 3 ? 8 : 0;
        mdm_loss_balance(device, probability.there + at, rows, C, sum_there, B, 1.0f / B,
                         rank % 2 ? value_there : NULL, gradient.there + at);
        assert_int_equal(mdm_device_download(device, &value, value_there, sizeof value), MDM_OK);
        float narrow = (float)value;
        if (rank % 2) assert_close(&narrow, expected, 1, 1e-7, 1e-5, "balance");
        value = 0;
        assert_int_equal(mdm_device_upload(device, value_there, &value, sizeof value), MDM_OK);
    }
    assert_there(&gradient, expected_gradient, 1e-7, "gradient of balance");
    let_go(&logits);
    let_go(&probability);
    let_go(&gradient);
    mdm_device_free(device, sum_there);
    mdm_device_free(device, value_there);
    free(expected);
    free(expected_gradient);
}

/* The loss and the gradient with respect to rows [2 * pairs, width], by so many ranks. */
static double contrast(const matrix *row, int64_t pairs, int width, float temperature, int ranks,
                       const matrix *gradient) {
    int64_t all = 2 * pairs * width;
    double loss = 0, value, *values = test_device_copy(device, NULL, sizeof(double) * 2 * (size_t)pairs),
           *value_there = test_device_copy(device, NULL, sizeof(double));
    matrix unit = make(all, 1), norm = make(2 * pairs, 2), part = make(all, 3),
           sum = matrix_of(calloc((size_t)all, sizeof(float)), all);
    mdm_unit_rows_forward(device, row->there, 2 * pairs, width, unit.there, norm.there);
    for (int rank = 0; rank < ranks; rank++) {
        int64_t first = pairs * rank / ranks, count = pairs * (rank + 1) / ranks - first;
        mdm_nt_xent_shape shape = {pairs, first, count, width, temperature, MDM_FP32};
        mdm_nt_xent_loss *object;
        mdm_row_sum wanted = {values, 2 * count, 2.0 * (double)pairs, value_there};
        assert_int_equal(mdm_nt_xent_create(device, &shape, &object), MDM_OK);
        assert_int_equal(mdm_nt_xent_run(object, unit.there, 1.0f / (float)(2 * pairs), values, part.there),
                         MDM_OK);
        mdm_sum_rows(device, &wanted, 1);
        assert_int_equal(mdm_device_download(device, &value, value_there, sizeof value), MDM_OK);
        assert_int_equal(mdm_device_download(device, part.host, part.there, sizeof(float) * (size_t)all),
                         MDM_OK);
        for (int64_t i = 0; i < all; i++) sum.host[i] += part.host[i];
        loss += value;
        mdm_nt_xent_destroy(object);
    }
    send(&sum);
    mdm_unit_rows_backward(device, unit.there, norm.there, sum.there, 2 * pairs, width, gradient->there);
    let_go(&unit);
    let_go(&norm);
    let_go(&part);
    let_go(&sum);
    mdm_device_free(device, values);
    mdm_device_free(device, value_there);
    return loss;
}

static void contrast_of_one_or_three_ranks_is_the_references(void **state) {
    (void)state;
    enum { PAIRS = 16, WIDTH = 32, N = PAIRS * WIDTH };
    static const char *const groups[] = {"/loss/nt_xent_tau0.05", "/loss/nt_xent_tau0.5"};
    static const char *const names[] = {"view1", "view2", "grad1", "grad2", "value"};
    for (int g = 0; g < 2; g++) {
        matrix row = make(2 * N, 1), gradient = make(2 * N, 2);
        float *golden[5], expected[2 * N];
        for (int i = 0; i < 5; i++) {
            char path[64];
            snprintf(path, sizeof path, "%s/%s", groups[g], names[i]);
            golden[i] = golden_floats(path, NULL);
            if (i < 4) memcpy((i < 2 ? row.host : expected) + i % 2 * N, golden[i], N * sizeof(float));
        }
        send(&row);
        for (int ranks = 1; ranks <= 3; ranks += 2) {
            float tau = (float)golden_attribute(groups[g], "tau"),
                  value = (float)contrast(&row, PAIRS, WIDTH, tau, ranks, &gradient);
            assert_close(&value, golden[4], 1, 1e-5, 1e-5, "NT-Xent");
            assert_there(&gradient, expected, 1e-5, "gradient of NT-Xent");
        }
        for (int i = 0; i < 5; i++) free(golden[i]);
        let_go(&row);
        let_go(&gradient);
    }
}

/* Both views alike, so that the guess before sharpening is the prediction itself. */
static void sharpening_of_guesses_is_the_references(void **state) {
    (void)state;
    float *p = golden_floats("/loss/sharpen/p", NULL), *expected = golden_floats("/loss/sharpen/out", NULL),
          *own = calloc(4 * B * C, sizeof(float)), *out = malloc(sizeof(float) * 4 * B * (C + 1));
    for (int view = 2; view < 4; view++) memcpy(own + view * B * C, p, sizeof(float) * B * C);
    matrix own_there = matrix_of(own, 4 * B * C), target = make((int64_t)4 * B * (C + 1), 1),
           clean = make(B, 2);
    int32_t *label = test_device_copy(device, NULL, sizeof(int32_t) * B);
    mdm_target_batch batch = {.count = B,
                              .groups = 4,
                              .classes = C,
                              .own = own_there.there,
                              .label = label,
                              .clean_probability = clean.there,
                              .temperature = (float)golden_attribute("/loss/sharpen", "T"),
                              .confidence = 0.5f};
    mdm_make_targets(device, &batch, target.there, NULL);
    assert_int_equal(mdm_device_download(device, out, target.there, sizeof(float) * 4 * B * (C + 1)), MDM_OK);
    for (int i = 0; i < B; i++)
        for (int view = 2; view < 4; view++)
            assert_close(out + (view * B + i) * (C + 1), expected + i * C, C, 1e-7, 1e-5, "sharpened");
    let_go(&own_there);
    let_go(&target);
    let_go(&clean);
    mdm_device_free(device, label);
    free(p);
    free(expected);
    free(out);
}

/* ---- the plain formulas, at sizes that fill nothing ---- */

static const int sizes[][2] = {{1, 1}, {1, 1000}, {3, 2}, {17, 10}, {50, 33}, {300, 10}, {9, 101}};

/* Rows of positive weights but every third, a scale with a factor, a gradient that is added to. */
static void open_random_case(loss_case *l, int rows, int classes, matrix *factor) {
    matrix logits = make((int64_t)rows * classes, 1), target = make((int64_t)rows * classes, 2),
           weight = make(rows, 3);
    mdm_softmax(target.host, rows, classes, target.host);
    for (int i = 0; i < rows; i++) weight.host[i] = i % 3 == 2 ? 0.0f : fabsf(weight.host[i]) + 0.1f;
    target.host[0] = 0.0f;                    /* log 0 becomes log 1e-4 */
    if (classes > 2) logits.host[2] = -40.0f; /* a probability below the clamp */
    send(&target);
    send(&weight);
    send(&logits);
    open_case(l, logits, target, weight, NULL, rows, classes);
    *factor = make(1, 4);
    l->scale = 0.25f * factor->host[0];
    l->rows.scale = 0.25f;
    l->rows.factor = factor->there;
}

typedef enum loss_kind { HARD, SOFT, CONSISTENCY, KINDS } loss_kind;

static void lose(loss_case *l, loss_kind kind) {
    if (kind == HARD) mdm_loss_hard(device, &l->rows, l->label_there, 0.7f, 1.3f);
    if (kind == SOFT) lose_softly(l, 0.7f, 1.3f);
    if (kind == CONSISTENCY) lose_consistently(l);
}

/* Per row, weighted; the gradient is added. */
static void lose_plainly(const loss_case *l, loss_kind kind, float *value, float *gradient) {
    int64_t rows = l->rows.rows;
    int classes = l->rows.classes;
    const float *z = l->logits.host, *target = l->target.host, *weight = l->weight.host;
    if (kind == HARD) {
        mdm_sce_hard_forward(z, l->label, rows, classes, 0.7f, 1.3f, value);
        mdm_sce_hard_backward(z, l->label, weight, rows, classes, 0.7f, 1.3f, l->scale, gradient);
    } else if (kind == SOFT) {
        mdm_sce_soft_forward(z, target, rows, classes, 0.7f, 1.3f, value);
        mdm_sce_soft_backward(z, target, weight, rows, classes, 0.7f, 1.3f, l->scale, gradient);
    } else {
        for (int64_t i = 0; i < rows; i++)
            value[i] =
                (float)mdm_consistency_forward(z + i * classes, target + i * classes, NULL, 1, classes);
        mdm_consistency_backward(z, target, weight, rows, classes, l->scale, gradient);
    }
    for (int64_t i = 0; i < rows; i++) value[i] *= weight[i];
}

static void losses_at_odd_sizes_are_the_plain_formulas(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                loss_case l;
                matrix factor;
                float value[300];
                open_random_case(&l, sizes[i][0], sizes[i][1], &factor);
                l.rows.accumulate = accumulate;
                if (!accumulate) memset(l.gradient.host, 0, sizeof(float) * (size_t)l.gradient.count);
                lose(&l, kind);
                lose_plainly(&l, kind, value, l.gradient.host);
                assert_values(&l, value, 1e-5, "loss");
                assert_there(&l.gradient, l.gradient.host, 2e-6, "gradient of a loss");
                double expected = 0, sum = sum_of(&l, 3.0);
                for (int r = 0; r < sizes[i][0]; r++) expected += (double)value[r] / 3.0;
                assert_close_double(&sum, &expected, 1, 1e-6, 1e-5, "sum of a loss");
                let_go(&factor);
                close_case(&l);
            }
}

/* The first third labelled, the others not. */
static void labelled_and_unlabelled_rows_in_one_are_as_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int rows = sizes[i][0], classes = sizes[i][1], first = rows / 3;
        loss_case l;
        matrix factor;
        float labelled[300], unlabelled[300];
        open_random_case(&l, rows, classes, &factor);
        float *gradient = calloc((size_t)l.gradient.count, sizeof(float));
        memset(l.gradient.host, 0, sizeof(float) * (size_t)l.gradient.count);
        lose_plainly(&l, SOFT, labelled, l.gradient.host);
        lose_plainly(&l, CONSISTENCY, unlabelled, gradient);
        memcpy(labelled + first, unlabelled + first, sizeof(float) * (size_t)(rows - first));
        memcpy(l.gradient.host + first * classes, gradient + first * classes,
               sizeof(float) * (size_t)((rows - first) * classes));
        mdm_loss_rows head = l.rows, rest = l.rows;
        head.rows = first;
        rest.rows = rows - first;
        rest.logits += first * classes;
        rest.weight += first;
        rest.value += first;
        rest.gradient += first * classes;
        mdm_loss_soft(device, &head, &rest, l.target.there, 0.7f, 1.3f);
        assert_values(&l, labelled, 1e-5, "losses of labelled and unlabelled rows");
        assert_there(&l.gradient, l.gradient.host, 2e-6, "their gradient");
        free(gradient);
        let_go(&factor);
        close_case(&l);
    }
}

static void values_alone_and_gradients_alone_are_the_same(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        loss_case l;
        matrix factor;
        float value[50];
        open_random_case(&l, 50, 33, &factor);
        memset(l.gradient.host, 0, sizeof(float) * (size_t)l.gradient.count);
        lose_plainly(&l, kind, value, l.gradient.host);
        mdm_loss_rows both = l.rows;
        l.rows.gradient = NULL;
        lose(&l, kind);
        assert_values(&l, value, 1e-5, "values alone");
        l.rows = both;
        l.rows.value = NULL;
        lose(&l, kind);
        assert_there(&l.gradient, l.gradient.host, 2e-6, "gradient alone");
        let_go(&factor);
        close_case(&l);
    }
}

static void predictions_below_the_clamp_count_as_the_clamp_and_pass_no_gradient(void **state) {
    (void)state;
    enum { MANY = 2000 };
    const float expected = (float)((MANY - 1) * 1e-7 * 9.2103404);
    for (int kind = HARD; kind <= SOFT; kind++) {
        loss_case l;
        float *flat = calloc(MANY, sizeof(float)), *zeros = calloc(MANY, sizeof(float)),
              *target = calloc(MANY, sizeof(float));
        flat[0] = 17.0f; /* the others have 4e-8 each */
        target[0] = 1.0f;
        open_case(&l, matrix_of(flat, MANY), matrix_of(target, MANY), make(1, 3), NULL, 1, MANY);
        l.rows.weight = NULL;
        if (kind == HARD) mdm_loss_hard(device, &l.rows, l.label_there, 0.0f, 1.0f);
        if (kind == SOFT) lose_softly(&l, 0.0f, 1.0f);
        assert_values(&l, &expected, 1e-6, "reverse cross entropy");
        assert_there(&l.gradient, zeros, 0, "gradient below the clamp");
        free(zeros);
        close_case(&l);
    }
}

static void softmax_and_balance_at_odd_sizes_are_the_plain_formulas(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int rows = sizes[i][0], classes = sizes[i][1];
        int64_t count = (int64_t)rows * classes;
        matrix logits = make(count, 1), probability = make(count, 2), gradient = make(count, 3);
        double *sum_there = test_device_copy(device, NULL, sizeof(double) * (size_t)classes),
               *value_there = test_device_copy(device, NULL, sizeof(double)), value,
               *mean = calloc((size_t)classes, sizeof(double));
        mdm_balance_sums(device, logits.there, rows, classes, probability.there, sum_there);
        mdm_loss_balance(device, probability.there, rows, classes, sum_there, rows, 0.5f, value_there,
                         gradient.there);
        mdm_softmax_rows(device, logits.there, rows, classes, logits.there); /* in place */
        mdm_softmax(logits.host, rows, classes, probability.host);
        assert_there(&probability, probability.host, 1e-6, "softmax with sums");
        assert_there(&logits, probability.host, 1e-6, "softmax");
        oracle_balance_sum(logits.host, rows, classes, mean);
        for (int c = 0; c < classes; c++) mean[c] /= rows;
        oracle_balance_backward(logits.host, mean, rows, classes, 0.5f, gradient.host);
        assert_there(&gradient, gradient.host, 1e-5, "gradient of balance");
        double expected = mdm_balance_value(mean, 1.0, classes);
        assert_int_equal(mdm_device_download(device, &value, value_there, sizeof value), MDM_OK);
        assert_close_double(&value, &expected, 1, 1e-6, 1e-6, "balance");
        let_go(&logits);
        let_go(&probability);
        let_go(&gradient);
        mdm_device_free(device, sum_there);
        mdm_device_free(device, value_there);
        free(mean);
    }
}

static void contrast_over_tiles_and_ranks_is_the_plain_formula(void **state) {
    (void)state;
    static const int pair_counts[] = {1, 2, 33, 150};
    enum { WIDTH = 7 };
    for (size_t i = 0; i < sizeof pair_counts / sizeof *pair_counts; i++) {
        int64_t pairs = pair_counts[i], all = 2 * pairs * WIDTH;
        matrix row = make(all, 1), gradient = make(all, 2);
        float *unit = calloc((size_t)all, sizeof(float)), *norm = calloc((size_t)(2 * pairs), sizeof(float)),
              *expected = calloc((size_t)all, sizeof(float));
        mdm_normalize_forward(row.host, 2 * pairs, WIDTH, unit, norm);
        double wanted =
            oracle_nt_xent(unit, pairs, 0, pairs, WIDTH, 0.1, 1.0 / (double)(2 * pairs), expected) /
            (2.0 * (double)pairs);
        mdm_normalize_backward(unit, norm, expected, 2 * pairs, WIDTH, expected);
        for (int ranks = 1; ranks <= 4; ranks += 3) { /* four ranks of one pair: three have nothing */
            double loss = contrast(&row, pairs, WIDTH, 0.1f, ranks, &gradient);
            assert_close_double(&loss, &wanted, 1, 1e-6, 1e-5, "NT-Xent");
            assert_there(&gradient, expected, 2e-6, "gradient of NT-Xent");
        }
        free(unit);
        free(norm);
        free(expected);
        let_go(&row);
        let_go(&gradient);
    }
}

/* ---- NaN ---- */

static void nan_is_visible_but_not_in_rows_of_weight_zero(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        loss_case l;
        matrix factor;
        float gradient[3 * 5];
        double value[3];
        open_random_case(&l, 3, 5, &factor); /* row 2 has weight 0 */
        l.logits.host[1] = NAN;
        for (int c = 0; c < 5; c++) l.logits.host[2 * 5 + c] = c == 1 ? INFINITY : NAN;
        send(&l.logits);
        lose(&l, kind);
        assert_int_equal(mdm_device_download(device, gradient, l.gradient.there, sizeof gradient), MDM_OK);
        assert_int_equal(mdm_device_download(device, value, l.value_there, sizeof value), MDM_OK);
        assert_true(isnan(value[0]) && isfinite(value[1]) && value[2] == 0.0);
        assert_true(isnan(sum_of(&l, 1.0)));
        for (int c = 0; c < 5; c++) {
            assert_true(isnan(gradient[c]));
            assert_true(isfinite(gradient[5 + c]) && gradient[10 + c] == 0.0f);
        }
        let_go(&factor);
        close_case(&l);
    }
}

static void contrast_shows_nan_and_survives_a_zero_row(void **state) {
    (void)state;
    enum { PAIRS = 3, WIDTH = 4, N = 2 * PAIRS * WIDTH };
    matrix row = make(N, 1), gradient = make(N, 2);
    float out[N];
    memset(row.host, 0, sizeof(float) * WIDTH);
    send(&row);
    assert_true(isfinite(contrast(&row, PAIRS, WIDTH, 0.001f, 1, &gradient)));
    assert_int_equal(mdm_device_download(device, out, gradient.there, sizeof out), MDM_OK);
    for (int i = 0; i < N; i++) assert_true(isfinite(out[i]));
    row.host[5] = NAN;
    send(&row);
    assert_true(isnan(contrast(&row, PAIRS, WIDTH, 0.5f, 1, &gradient)));
    let_go(&row);
    let_go(&gradient);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(symmetric_cross_entropy_is_the_references),
        cmocka_unit_test(consistency_is_the_references),
        cmocka_unit_test(balance_from_three_ranks_sums_is_the_references),
        cmocka_unit_test(contrast_of_one_or_three_ranks_is_the_references),
        cmocka_unit_test(sharpening_of_guesses_is_the_references),
        cmocka_unit_test(losses_at_odd_sizes_are_the_plain_formulas),
        cmocka_unit_test(labelled_and_unlabelled_rows_in_one_are_as_alone),
        cmocka_unit_test(values_alone_and_gradients_alone_are_the_same),
        cmocka_unit_test(predictions_below_the_clamp_count_as_the_clamp_and_pass_no_gradient),
        cmocka_unit_test(softmax_and_balance_at_odd_sizes_are_the_plain_formulas),
        cmocka_unit_test(contrast_over_tiles_and_ranks_is_the_plain_formula),
        cmocka_unit_test(nan_is_visible_but_not_in_rows_of_weight_zero),
        cmocka_unit_test(contrast_shows_nan_and_survives_a_zero_row),
    };
    test_device_or_skip();
    device = test_device_open(2, 0);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    mdm_device_destroy(device);
    return failures;
}
