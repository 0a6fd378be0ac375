/* Targets and the mix on every backend, against their formulas written once more. */
#include "matrix.h"
#include "mdm/device/losses.h"
#include <string.h>

/* ---- targets ---- */

static void soften(const float *logits, int64_t rows, int classes, float *probability) {
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int c = 0; c < classes; c++) sum += exp((double)logits[i * classes + c]);
        for (int c = 0; c < classes; c++)
            probability[i * classes + c] = (float)(exp((double)logits[i * classes + c]) / sum);
    }
}

/* Returns the greatest. */
static double sharpen(double *p, int classes, double temperature) {
    double sum = 0, greatest = 0;
    for (int c = 0; c < classes; c++) sum += p[c] = pow(p[c], 1 / temperature);
    for (int c = 0; c < classes; c++) greatest = fmax(greatest, p[c] /= sum);
    return greatest;
}

typedef struct target_case {
    mdm_target_batch batch; /* on the device */
    matrix own, theirs, clean, target;
    int32_t *label;
    double *confident_there;
} target_case;

static void open_targets(target_case *t, int count, int groups, int classes, int has_guesser) {
    memset(t, 0, sizeof *t);
    t->own = make((int64_t)groups * count * classes, 1);
    t->theirs = make((int64_t)2 * count * classes, 2);
    t->clean = make(count, 3);
    t->target = make((int64_t)groups * count * (classes + 1), 4);
    soften(t->own.host, (int64_t)groups * count, classes, t->own.host);
    soften(t->theirs.host, (int64_t)2 * count, classes, t->theirs.host);
    t->label = malloc(sizeof(int32_t) * (size_t)(count + 1));
    for (int i = 0; i < count; i++) t->label[i] = i * 5 % classes;
    for (int i = 0; i < count; i++) t->clean.host[i] = i % 4 == 3 ? 1.0f : (float)(i % 4) / 3.0f;
    send(&t->own);
    send(&t->theirs);
    send(&t->clean);
    t->confident_there = test_device_copy(device, NULL, sizeof(double) * (size_t)count);
    t->batch = (mdm_target_batch){.count = count,
                                  .groups = groups,
                                  .classes = classes,
                                  .own = t->own.there,
                                  .theirs = has_guesser ? t->theirs.there : NULL,
                                  .clean_probability = t->clean.there,
                                  .temperature = 0.5f,
                                  .confidence = 0.4f};
    t->batch.label = test_device_copy(device, t->label, sizeof(int32_t) * (size_t)count);
}

static void close_targets(target_case *t) {
    mdm_device_free(device, (void *)(uintptr_t)t->batch.label);
    mdm_device_free(device, t->confident_there);
    let_go(&t->own);
    let_go(&t->theirs);
    let_go(&t->clean);
    let_go(&t->target);
    free(t->label);
}

/* The target and mask of sample i of the labelled (group 0) or unlabelled (group 2) ones. */
static void expect_target(const target_case *t, int group, int64_t i, double *p) {
    const int64_t count = t->batch.count;
    const int classes = t->batch.classes;
    const float *first = t->own.host + (group * count + i) * classes, *second = first + count * classes;
    const float *third = t->theirs.host + i * classes, *fourth = third + count * classes;
    double clean = (double)t->clean.host[i];
    for (int c = 0; c < classes; c++) {
        double own = ((double)first[c] + (double)second[c]) / 2;
        if (group == 0)
            p[c] = clean * (c == t->label[i]) + (1 - clean) * own;
        else
            p[c] = t->batch.theirs ? own / 2 + ((double)third[c] + (double)fourth[c]) / 4 : own;
    }
    double greatest = sharpen(p, classes, (double)t->batch.temperature);
    p[classes] = group == 0 || greatest >= (double)t->batch.confidence;
}

static void targets_are_refined_guessed_and_masked(void **state) {
    (void)state;
    static const int sizes[][2] = {{1, 1}, {1, 1000}, {5, 3}, {37, 10}, {300, 33}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int variant = 0; variant < 3; variant++) { /* without unlabelled; one network; two */
            int count = sizes[s][0], classes = sizes[s][1], groups = variant ? 4 : 2;
            target_case t;
            double p[1001], *confident = malloc(sizeof(double) * (size_t)count);
            open_targets(&t, count, groups, classes, variant == 2);
            mdm_make_targets(device, &t.batch, t.target.there, t.confident_there);
            assert_int_equal(
                mdm_device_download(device, confident, t.confident_there, sizeof(double) * (size_t)count),
                MDM_OK);
            for (int group = 0; group < groups; group++)
                for (int64_t i = 0; i < count; i++) {
                    expect_target(&t, group / 2 * 2, i, p);
                    float *out = t.target.host + (group * (int64_t)count + i) * (classes + 1);
                    for (int c = 0; c <= classes; c++) out[c] = (float)p[c];
                    if (group == 2) assert_true(confident[i] == p[classes]);
                }
            assert_there(&t.target, t.target.host, 1e-5, "targets and masks");
            free(confident);
            close_targets(&t);
        }
}

static void a_prediction_of_nan_makes_a_target_of_nan_that_does_not_count(void **state) {
    (void)state;
    enum { COUNT = 3, CLASSES = 4 };
    target_case t;
    double confident[COUNT];
    float out[4 * COUNT * (CLASSES + 1)];
    open_targets(&t, COUNT, 4, CLASSES, 1);
    t.own.host[1] = NAN;                             /* labelled sample 0 */
    t.own.host[(2 * COUNT + 1) * CLASSES + 2] = NAN; /* unlabelled sample 1 */
    send(&t.own);
    mdm_make_targets(device, &t.batch, t.target.there, t.confident_there);
    assert_int_equal(mdm_device_download(device, out, t.target.there, sizeof out), MDM_OK);
    assert_int_equal(mdm_device_download(device, confident, t.confident_there, sizeof confident), MDM_OK);
    for (int group = 0; group < 4; group++)
        for (int i = 0; i < COUNT; i++) {
            const float *row = out + (group * COUNT + i) * (CLASSES + 1);
            int is_bad = i == group / 2; /* sample 0 of the labelled, 1 of the unlabelled */
            for (int c = 0; c < CLASSES; c++) assert_true(isnan(row[c]) == is_bad);
            if (is_bad) assert_true(row[CLASSES] == (group < 2 ? 1.0f : 0.0f));
        }
    assert_true(confident[1] == 0.0);
    close_targets(&t);
}

static void a_low_temperature_does_not_underflow(void **state) {
    (void)state;
    target_case t;
    float out[2 * 5];
    open_targets(&t, 1, 2, 4, 0);
    for (int view = 0; view < 2; view++) {
        static const float p[4] = {0.24f, 0.26f, 0.25f, 0.25f};
        memcpy(t.own.host + view * 4, p, sizeof p);
    }
    send(&t.own);
    t.batch.temperature = 0.002f; /* the label's share is 0 (sample 0) */
    mdm_make_targets(device, &t.batch, t.target.there, NULL);
    assert_int_equal(mdm_device_download(device, out, t.target.there, sizeof out), MDM_OK);
    assert_float_equal(out[1], 1, 1e-6f);
    assert_float_equal(out[0] + out[1] + out[2] + out[3], 1, 1e-6f);
    close_targets(&t);
}

/* ---- mixing ---- */

/* A permutation of n without a short cycle. */
static int64_t partner_of(int64_t i, int64_t n) {
    return n > 1 ? (i * 7 + 3) % n : 0;
}

static void rows_are_mixed_with_their_partners(void **state) {
    (void)state;
    static const int sizes[][3] = {{1, 1, 0}, {5, 3, 0}, {9, 4, 0}, {9, 4, 1}, {4, 3072, 0}, {70000, 1, 0}};
    const float lambda = 0.75f;
    float *lambda_there = test_device_copy(device, &lambda, sizeof lambda);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int has_partner = 0; has_partner < 2; has_partner++) {
            const int64_t rows = sizes[s][0], width = sizes[s][1], offset = sizes[s][2];
            matrix own = make(rows * width + offset, 1), all = make(rows * width + offset, 2),
                   mixed = make(rows * width + offset, 3);
            int32_t *partner = malloc(sizeof(int32_t) * (size_t)rows);
            for (int64_t i = 0; i < rows; i++) partner[i] = (int32_t)(has_partner ? partner_of(i, rows) : i);
            int32_t *partner_there = test_device_copy(device, partner, sizeof(int32_t) * (size_t)rows);
            mdm_mix_rows(device, rows, width, lambda_there, own.there + offset, all.there + offset,
                         has_partner ? partner_there : NULL, mixed.there + offset);
            for (int64_t i = 0; i < rows * width; i++)
                mixed.host[offset + i] = 0.75f * own.host[offset + i] +
                                         0.25f * all.host[offset + partner[i / width] * width + i % width];
            assert_there(&mixed, mixed.host, 1e-6, "mixed rows");
            let_go(&own);
            let_go(&all);
            let_go(&mixed);
            free(partner);
            mdm_device_free(device, partner_there);
        }
    mdm_device_free(device, lambda_there);
}

static void masks_are_mixed_as_targets_are(void **state) {
    (void)state;
    enum { ROWS = 6, CLASSES = 10, W = CLASSES + 1 };
    const float lambda = 0.75f;
    int32_t partner[ROWS];
    matrix all = make(ROWS * W, 1), target = make(ROWS * CLASSES, 2), mask = make(ROWS, 3);
    float *lambda_there = test_device_copy(device, &lambda, sizeof lambda);
    for (int i = 0; i < ROWS; i++) partner[i] = (int32_t)partner_of(i, ROWS);
    int32_t *partner_there = test_device_copy(device, partner, sizeof partner);
    mdm_mix_targets(device, ROWS, CLASSES, lambda_there, all.there, all.there, partner_there, target.there,
                    mask.there);
    for (int i = 0; i < ROWS; i++)
        for (int c = 0; c < W; c++) {
            float value = 0.75f * all.host[i * W + c] + 0.25f * all.host[partner[i] * W + c];
            if (c < CLASSES)
                target.host[i * CLASSES + c] = value;
            else
                mask.host[i] = value;
        }
    assert_there(&target, target.host, 1e-6, "mixed targets");
    assert_there(&mask, mask.host, 1e-6, "mixed masks");
    let_go(&all);
    let_go(&target);
    let_go(&mask);
    mdm_device_free(device, lambda_there);
    mdm_device_free(device, partner_there);
}

/* Mixing is linear: <mix(x), g> over all ranks' rows = <x, its transpose of g>. */
static void gradients_of_mixed_rows_go_back_to_where_the_rows_came_from(void **state) {
    (void)state;
    static const int64_t widths[] = {1, 4, 33};
    enum { ALL = 11, RANKS = 3 };
    const float lambda = 0.6f;
    float *lambda_there = test_device_copy(device, &lambda, sizeof lambda);
    for (size_t s = 0; s < sizeof widths / sizeof *widths; s++) {
        const int64_t width = widths[s];
        matrix gradient = make(ALL * width, 1), back = make(ALL * width, 2);
        float *expected = calloc((size_t)(ALL * width), sizeof(float)),
              *sum = calloc((size_t)(ALL * width), sizeof(float));
        for (int rank = 0; rank < RANKS; rank++) {
            int64_t first = ALL * rank / RANKS, rows = ALL * (rank + 1) / RANKS - first;
            int32_t mixed_with[ALL];
            for (int i = 0; i < ALL; i++) mixed_with[i] = -1;
            for (int64_t i = 0; i < rows; i++) mixed_with[partner_of(first + i, ALL)] = (int32_t)i;
            int32_t *there = test_device_copy(device, mixed_with, sizeof mixed_with);
            mdm_mix_rows_backward(device, ALL, rows, width, first, lambda_there,
                                  gradient.there + first * width, there, back.there);
            assert_int_equal(
                mdm_device_download(device, back.host, back.there, sizeof(float) * (size_t)(ALL * width)),
                MDM_OK);
            for (int64_t i = 0; i < ALL * width; i++) sum[i] += back.host[i];
            mdm_device_free(device, there);
        }
        for (int64_t i = 0; i < ALL; i++)
            for (int64_t j = 0; j < width; j++) {
                expected[i * width + j] += 0.6f * gradient.host[i * width + j];
                expected[partner_of(i, ALL) * width + j] += 0.4f * gradient.host[i * width + j];
            }
        assert_close(sum, expected, ALL * width, 1e-6, 1e-6, "gradient of mixed rows");
        free(expected);
        free(sum);
        let_go(&gradient);
        let_go(&back);
    }
    mdm_device_free(device, lambda_there);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_refined_guessed_and_masked),
        cmocka_unit_test(a_prediction_of_nan_makes_a_target_of_nan_that_does_not_count),
        cmocka_unit_test(a_low_temperature_does_not_underflow),
        cmocka_unit_test(rows_are_mixed_with_their_partners),
        cmocka_unit_test(masks_are_mixed_as_targets_are),
        cmocka_unit_test(gradients_of_mixed_rows_go_back_to_where_the_rows_came_from),
    };
    test_device_or_skip();
    device = test_device_open(2, 0);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    mdm_device_destroy(device);
    return failures;
}
