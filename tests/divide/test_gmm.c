/* The mixture of losses against the reference's numbers, on several ranks, and its degenerate cases. */
#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mdm/base/random.h"
#include "mdm/comm/comm.h"
#include "mdm/divide/gmm.h"
#include "test_device.h"

static mdm_comm *comm;
static mdm_device *device;
static const mdm_gmm_options converged = {500, 1e-7, 5e-4}, usual = {20, 1e-2, 5e-4};

static mdm_status fit_on_device(const float *loss, int64_t n, const mdm_gmm_options *options, mdm_gmm *gmm,
                                float *probability) {
    size_t bytes = (size_t)n * sizeof *loss;
    float *losses = test_device_copy(device, loss, bytes), *answer = test_device_copy(device, NULL, bytes);
    mdm_status status = mdm_gmm_fit_on(comm, device, losses, n, options, gmm, answer);
    assert_int_equal(mdm_device_download(device, probability, answer, bytes), MDM_OK);
    mdm_device_free(device, losses);
    mdm_device_free(device, answer);
    return status;
}

static void assert_relative(const double *a, const double *b, int count) {
    for (int i = 0; i < count; i++) assert_true(fabs(a[i] - b[i]) <= 1e-12 * fabs(b[i]) + 1e-15);
}

/* A device's fit and the CPU's: the same but for the rounding of sums, and the same samples on either side of
 * any threshold that is not itself a probability. */
static void assert_same_fit(const mdm_gmm *a, const mdm_gmm *b, const float *p, const float *q, int64_t n) {
    assert_relative(a->mean, b->mean, 2);
    assert_relative(a->variance, b->variance, 2);
    assert_relative(a->weight, b->weight, 2);
    assert_true(fabs(a->log_likelihood - b->log_likelihood) <= 1e-12);
    assert_true(a->minimum == b->minimum && a->maximum == b->maximum);
    assert_int_equal(a->iterations, b->iterations);
    assert_int_equal(a->converged, b->converged);
    assert_int_equal(a->degenerate, b->degenerate);
    for (int64_t i = 0; i < n; i++) {
        assert_true(fabsf(p[i] - q[i]) <= 1e-6f * q[i]);
        for (int t = 1; t < 10; t++) assert_int_equal(p[i] > t * 0.1, q[i] > t * 0.1);
    }
}

/* Fits this rank's slice of `loss` [total]; the slice's probabilities go to their places in `probability`. */
static mdm_gmm fit(const float *loss, int64_t total, const mdm_gmm_options *options, float *probability) {
    mdm_gmm gmm, reference;
    int64_t first, n;
    mdm_comm_my_slice(comm, total, &first, &n);
    float *mine = calloc((size_t)n + 1, sizeof *mine), *answer = calloc((size_t)n + 1, sizeof *answer),
          *expected = calloc((size_t)n + 1, sizeof *expected);
    memcpy(mine, loss + first, (size_t)n * sizeof *mine);
    mdm_status status = mdm_gmm_fit(comm, mine, n, options, &reference, expected);
    if (status == MDM_OK) status = fit_on_device(mine, n, options, &gmm, answer);
    if (status != MDM_OK) print_error("%s\n", mdm_last_message());
    assert_int_equal(status, MDM_OK);
    assert_same_fit(&gmm, &reference, answer, expected, n);
    memcpy(probability + first, answer, (size_t)n * sizeof *answer);
    free(mine);
    free(answer);
    free(expected);
    return gmm;
}

static void check_golden(const char *name, double tolerance) {
    char path[64];
    int64_t total, first, n;
    snprintf(path, sizeof path, "/gmm/%s/x", name);
    float *loss = golden_floats(path, &total), *probability = calloc((size_t)total, sizeof *probability);
    snprintf(path, sizeof path, "/gmm/%s/means", name);
    double *mean = golden_doubles(path, NULL);
    snprintf(path, sizeof path, "/gmm/%s/vars", name);
    double *variance = golden_doubles(path, NULL);
    snprintf(path, sizeof path, "/gmm/%s/weights", name);
    double *weight = golden_doubles(path, NULL);
    snprintf(path, sizeof path, "/gmm/%s/prob", name);
    float *expected = golden_floats(path, NULL);
    snprintf(path, sizeof path, "/gmm/%s", name);
    for (int64_t i = 0; i < total; i++) loss[i] = fabsf(loss[i]);
    mdm_gmm gmm = fit(loss, total, &converged, probability);
    assert_false(gmm.degenerate);
    assert_true(gmm.converged);
    assert_true(gmm.log_likelihood >= golden_attribute(path, "mean_log_likelihood") - 5e-6);
    assert_close_double(gmm.mean, mean, 2, tolerance, 0, path);
    assert_close_double(gmm.variance, variance, 2, tolerance, 0, path);
    assert_close_double(gmm.weight, weight, 2, 10 * tolerance, 0, path);
    mdm_comm_my_slice(comm, total, &first, &n);
    assert_close(probability + first, expected + first, n, 10 * tolerance, 0, path);
    free(loss);
    free(probability);
    free(mean);
    free(variance);
    free(weight);
    free(expected);
}

static void golden_mixtures_are_met(void **state) {
    (void)state;
    check_golden("separated", 1e-5);
    check_golden("overlapping", 1e-4);
    check_golden("rare_noise", 1e-5);
    check_golden("heavy_noise", 1e-5);
}

/* The likelihood of one mode is nearly flat along a valley, on which the reference stopped somewhere. */
static void one_mode_is_fitted_and_not_called_degenerate(void **state) {
    (void)state;
    check_golden("one_mode", 2e-3);
}

static float *two_modes(int64_t total) {
    float *loss = calloc((size_t)total, sizeof *loss);
    mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 0, 0, 0);
    for (int64_t i = 0; i < total; i++)
        loss[i] =
            i % 10 < 7 ? (float)mdm_random_gamma(&random, 1) * 0.2f : 4 + (float)mdm_random_normal(&random);
    return loss;
}

static void constant_losses_keep_every_sample(void **state) {
    (void)state;
    int64_t total, first, n;
    float *loss = golden_floats("/gmm/constant/x", &total),
          *probability = calloc((size_t)total, sizeof *probability);
    mdm_gmm gmm = fit(loss, total, &usual, probability);
    assert_true(gmm.degenerate);
    assert_string_equal(gmm.degenerate_reason, "all losses are equal");
    mdm_comm_my_slice(comm, total, &first, &n);
    for (int64_t i = first; i < first + n; i++) assert_true(probability[i] == 1.0f);
    free(loss);
    free(probability);
}

static void fewer_than_two_samples_are_degenerate(void **state) {
    (void)state;
    float loss[1] = {2}, probability[1] = {0};
    mdm_gmm gmm = fit(loss, 1, &usual, probability);
    assert_true(gmm.degenerate);
    assert_non_null(gmm.degenerate_reason);
    gmm = fit(loss, 0, &usual, probability);
    assert_true(gmm.degenerate);
}

static void two_different_samples_are_told_apart(void **state) {
    (void)state;
    float loss[2] = {3, 1}, probability[2] = {0.5f, 0.5f};
    mdm_gmm gmm = fit(loss, 2, &usual, probability);
    int64_t first, n;
    mdm_comm_my_slice(comm, 2, &first, &n);
    assert_false(gmm.degenerate);
    for (int64_t i = first; i < first + n; i++) assert_true(fabsf(probability[i] - (float)i) < 1e-6f);
}

static void probabilities_are_the_posterior_of_the_returned_parameters(void **state) {
    (void)state;
    enum { TOTAL = 40001 };
    float *loss = two_modes(TOTAL), *probability = calloc(TOTAL, sizeof *probability);
    mdm_gmm gmm = fit(loss, TOTAL, &usual, probability);
    int64_t first, n;
    mdm_comm_my_slice(comm, TOTAL, &first, &n);
    assert_true(gmm.mean[0] < gmm.mean[1] && fabs(gmm.weight[0] + gmm.weight[1] - 1) < 1e-9);
    double likelihood = 0;
    for (int64_t i = 0; i < TOTAL; i++) {
        double u = (loss[i] - gmm.minimum) / (gmm.maximum - gmm.minimum), p[2];
        for (int c = 0; c < 2; c++)
            p[c] = gmm.weight[c] / sqrt(6.283185307179586 * gmm.variance[c]) *
                   exp(-0.5 * (u - gmm.mean[c]) * (u - gmm.mean[c]) / gmm.variance[c]);
        likelihood += log(p[0] + p[1]);
        if (i >= first && i < first + n) assert_true(fabs(probability[i] - p[0] / (p[0] + p[1])) < 1e-6);
    }
    assert_true(fabs(gmm.log_likelihood - likelihood / TOTAL) < 1e-9);
    free(loss);
    free(probability);
}

/* Scaling makes the fit indifferent to the losses' unit, up to rounding. */
static void shifted_and_stretched_losses_have_the_same_mixture(void **state) {
    (void)state;
    enum { TOTAL = 5000 };
    float *loss = two_modes(TOTAL), *probability = calloc(TOTAL, sizeof *probability);
    mdm_gmm a = fit(loss, TOTAL, &converged, probability);
    for (int64_t i = 0; i < TOTAL; i++) loss[i] = loss[i] * 8 + 16;
    mdm_gmm b = fit(loss, TOTAL, &converged, probability);
    assert_close_double(a.mean, b.mean, 2, 1e-5, 0, "mean");
    assert_close_double(a.variance, b.variance, 2, 1e-5, 0, "variance");
    assert_true(fabs(b.minimum - (a.minimum * 8 + 16)) < 1e-4 &&
                fabs(b.maximum - (a.maximum * 8 + 16)) < 1e-4);
    free(loss);
    free(probability);
}

static void one_outlier_is_a_component_of_its_own(void **state) {
    (void)state;
    float loss[1000], probability[1000];
    for (int i = 0; i < 1000; i++) loss[i] = (float)(i % 17) * 0.01f;
    loss[600] = 50;
    mdm_gmm gmm = fit(loss, 1000, &converged, probability);
    int64_t first, n;
    mdm_comm_my_slice(comm, 1000, &first, &n);
    for (int64_t i = first; i < first + n; i++)
        assert_true(gmm.degenerate ? probability[i] == 1
                    : i == 600     ? probability[i] < 0.01f
                                   : probability[i] > 0.99f);
}

static void a_loss_that_is_not_finite_is_refused_by_rank_and_sample(void **state) {
    (void)state;
    int last = mdm_comm_size(comm) - 1;
    float loss[8] = {1, 2, 3, 4, 5, 6, 7, 8}, probability[8];
    if (mdm_comm_rank(comm) == last) loss[5] = -INFINITY;
    mdm_gmm gmm;
    assert_int_equal(fit_on_device(loss, 8, &usual, &gmm, probability), MDM_NUMERIC);
    char expected[64];
    snprintf(expected, sizeof expected, "sample 5 of rank %d is -inf", last);
    assert_non_null(strstr(mdm_last_message(), expected));
    if (mdm_comm_rank(comm) == last) loss[5] = NAN;
    assert_int_equal(fit_on_device(loss, 8, &usual, &gmm, probability), MDM_NUMERIC);
}

static void options_out_of_range_are_refused(void **state) {
    (void)state;
    const mdm_gmm_options bad[] = {{0, 1e-2, 5e-4}, {20, -1, 5e-4}, {20, 1e-2, -1}, {20, NAN, 5e-4}};
    float loss[4] = {1, 2, 3, 4}, probability[4];
    mdm_gmm gmm;
    for (int i = 0; i < 4; i++)
        assert_int_equal(fit_on_device(loss, 4, &bad[i], &gmm, probability), MDM_USAGE);
}

int main(int argc, char **argv) {
    test_device_or_skip();
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    device = test_device_open(1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_mixtures_are_met),
        cmocka_unit_test(one_mode_is_fitted_and_not_called_degenerate),
        cmocka_unit_test(constant_losses_keep_every_sample),
        cmocka_unit_test(fewer_than_two_samples_are_degenerate),
        cmocka_unit_test(two_different_samples_are_told_apart),
        cmocka_unit_test(probabilities_are_the_posterior_of_the_returned_parameters),
        cmocka_unit_test(shifted_and_stretched_losses_have_the_same_mixture),
        cmocka_unit_test(one_outlier_is_a_component_of_its_own),
        cmocka_unit_test(a_loss_that_is_not_finite_is_refused_by_rank_and_sample),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mdm_device_destroy(device);
    mdm_comm_finish(comm);
    return failed;
}
