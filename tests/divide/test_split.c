/* The split into removed, labelled and unlabelled samples, and the area under the ROC curve. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mdm/base/random.h"
#include "mdm/divide/split.h"

static void largest_scores_are_removed_and_the_rest_split_by_probability(void **state) {
    (void)state;
    const float score[6] = {0.1f, 0.9f, 0.3f, 0.8f, 0.2f, 0.0f}, clean[6] = {0.9f, 1, 0.3f, 0, 0.31f, 0.1f};
    const uint8_t expected[6] = {MDM_LABELLED, MDM_REMOVED,  MDM_UNLABELLED,
                                 MDM_REMOVED,  MDM_LABELLED, MDM_UNLABELLED};
    uint8_t split[6];
    mdm_split_counts counts;
    assert_int_equal(mdm_split_samples(score, clean, 6, 2, 0.305, split, &counts), MDM_OK);
    assert_memory_equal(split, expected, 6);
    assert_int_equal(counts.removed, 2);
    assert_int_equal(counts.labelled, 2);
    assert_int_equal(counts.unlabelled, 2);
}

static void a_probability_at_the_threshold_is_not_labelled(void **state) {
    (void)state;
    const float score[2] = {0, 0}, clean[2] = {0.5f, 0.50001f};
    uint8_t split[2];
    mdm_split_counts counts;
    assert_int_equal(mdm_split_samples(score, clean, 2, 0, 0.5, split, &counts), MDM_OK);
    assert_int_equal(split[0], MDM_UNLABELLED);
    assert_int_equal(split[1], MDM_LABELLED);
}

static void equal_scores_are_removed_by_lower_index(void **state) {
    (void)state;
    float score[100], clean[100];
    uint8_t split[100];
    mdm_split_counts counts;
    for (int i = 0; i < 100; i++) {
        score[i] = i % 2 ? 0.5f : 0.25f;
        clean[i] = 1;
    }
    assert_int_equal(mdm_split_samples(score, clean, 100, 30, 0.5, split, &counts), MDM_OK);
    for (int i = 0; i < 100; i++) assert_int_equal(split[i], i % 2 && i < 60 ? MDM_REMOVED : MDM_LABELLED);
}

static void all_or_none_may_be_removed_but_not_more(void **state) {
    (void)state;
    const float score[3] = {1, 2, 3}, clean[3] = {1, 1, 1};
    uint8_t split[3];
    mdm_split_counts counts;
    assert_int_equal(mdm_split_samples(score, clean, 3, 3, 0.5, split, &counts), MDM_OK);
    assert_int_equal(counts.removed, 3);
    assert_int_equal(mdm_split_samples(score, clean, 3, 0, 0.5, split, &counts), MDM_OK);
    assert_int_equal(counts.labelled, 3);
    assert_int_equal(mdm_split_samples(score, clean, 3, 4, 0.5, split, &counts), MDM_USAGE);
    assert_int_equal(mdm_split_samples(score, clean, 3, -1, 0.5, split, &counts), MDM_USAGE);
}

static void a_score_that_is_not_finite_is_refused_by_name(void **state) {
    (void)state;
    const float score[3] = {1, NAN, 3}, clean[3] = {1, 1, 1};
    uint8_t split[3];
    mdm_split_counts counts;
    assert_int_equal(mdm_split_samples(score, clean, 3, 1, 0.5, split, &counts), MDM_NUMERIC);
    assert_non_null(strstr(mdm_last_message(), "sample 1"));
}

static void area_is_one_half_or_nothing_for_right_equal_and_wrong_orders(void **state) {
    (void)state;
    const float score[4] = {0.1f, 0.2f, 0.8f, 0.9f}, equal[4] = {1, 1, 1, 1};
    const uint8_t positive[4] = {0, 0, 1, 1}, wrong[4] = {7, 1, 0, 0};
    double auc;
    assert_int_equal(mdm_auc(score, positive, 4, &auc), MDM_OK);
    assert_true(auc == 1.0);
    assert_int_equal(mdm_auc(score, wrong, 4, &auc), MDM_OK);
    assert_true(auc == 0.0);
    assert_int_equal(mdm_auc(equal, positive, 4, &auc), MDM_OK);
    assert_true(auc == 0.5);
}

static void suspicion_goes_by_clean_probability_and_then_by_loss(void **state) {
    (void)state;
    const float clean[5] = {1, 0, 0, 0.5f, 0}, loss[5] = {9, 3, 4, 0, 3};
    float rank[5];
    assert_int_equal(mdm_noise_rank(clean, loss, 5, rank), MDM_OK);
    const float expected[5] = {0, 2, 4, 1, 2}; /* samples 1 and 4 share a rank */
    for (int i = 0; i < 5; i++) assert_true(rank[i] == expected[i]);
    const float damaged[5] = {9, 3, NAN, 0, 3};
    assert_int_equal(mdm_noise_rank(clean, damaged, 5, rank), MDM_NUMERIC);
}

static void area_of_one_class_is_not_a_number(void **state) {
    (void)state;
    const float score[2] = {1, 2};
    const uint8_t none[2] = {0, 0}, all[2] = {1, 1};
    double auc = 0;
    assert_int_equal(mdm_auc(score, none, 2, &auc), MDM_OK);
    assert_true(isnan(auc));
    assert_int_equal(mdm_auc(score, all, 2, &auc), MDM_OK);
    assert_true(isnan(auc));
    assert_int_equal(mdm_auc(score, all, 0, &auc), MDM_OK);
    assert_true(isnan(auc));
}

static void area_is_that_of_counting_all_pairs(void **state) {
    (void)state;
    enum { N = 700 };
    float score[N];
    uint8_t positive[N];
    mdm_random random = mdm_random_stream(5, MDM_RANDOM_TEST, 0, 0, 0);
    for (int i = 0; i < N; i++) {
        positive[i] = mdm_random_uniform(&random) < 0.3f;
        score[i] = (float)mdm_random_below(&random, 40) + (float)positive[i] * 5; /* with many ties */
    }
    double right = 0, pairs = 0, auc;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (positive[i] && !positive[j]) {
                pairs++;
                right += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
            }
    assert_int_equal(mdm_auc(score, positive, N, &auc), MDM_OK);
    assert_true(fabs(auc - right / pairs) < 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(largest_scores_are_removed_and_the_rest_split_by_probability),
        cmocka_unit_test(a_probability_at_the_threshold_is_not_labelled),
        cmocka_unit_test(equal_scores_are_removed_by_lower_index),
        cmocka_unit_test(all_or_none_may_be_removed_but_not_more),
        cmocka_unit_test(a_score_that_is_not_finite_is_refused_by_name),
        cmocka_unit_test(area_is_one_half_or_nothing_for_right_equal_and_wrong_orders),
        cmocka_unit_test(suspicion_goes_by_clean_probability_and_then_by_loss),
        cmocka_unit_test(area_of_one_class_is_not_a_number),
        cmocka_unit_test(area_is_that_of_counting_all_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
