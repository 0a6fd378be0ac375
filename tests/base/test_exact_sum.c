/* Exact sums: any order, any cut between accumulators, the same bits; and as near as double can say. */
#include "golden.h"
#include "mdm/base/exact_sum.h"
#include "mdm/base/random.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TERMS = 500, WIDTH = 67 };

static double terms[TERMS][WIDTH];

/* Magnitudes from 1e-9 to 1e9, both signs. */
static int draw_terms(void **state) {
    (void)state;
    for (int t = 0; t < TERMS; t++) {
        mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 0, (uint64_t)t, 0);
        for (int i = 0; i < WIDTH; i++)
            terms[t][i] = (mdm_random_open(&random) - 0.5) * pow(10.0, 18.0 * mdm_random_open(&random) - 9.0);
    }
    return 0;
}

static void the_order_and_the_place_of_terms_do_not_matter(void **state) {
    (void)state;
    mdm_exact_sums forward, halves[2];
    assert_int_equal(mdm_exact_sums_create(WIDTH, &forward), MDM_OK);
    for (int h = 0; h < 2; h++) assert_int_equal(mdm_exact_sums_create(WIDTH + 5, &halves[h]), MDM_OK);
    for (int t = 0; t < TERMS; t++) {
        mdm_exact_sums_add_doubles(&forward, 0, WIDTH, terms[t]);
        mdm_exact_sums_add_doubles(&halves[t % 3 == 0], 5, WIDTH, terms[TERMS - 1 - t]);
    }
    for (int64_t i = 0; i < mdm_exact_sums_size(&halves[0]); i++) halves[0].whole[i] += halves[1].whole[i];
    double a[WIDTH], b[WIDTH];
    mdm_exact_sums_get_doubles(&forward, 0, WIDTH, a);
    mdm_exact_sums_get_doubles(&halves[0], 5, WIDTH, b);
    assert_memory_equal(a, b, sizeof a);
    for (int i = 0; i < WIDTH; i++) {
        long double expected = 0;
        for (int t = 0; t < TERMS; t++) expected += (long double)terms[t][i];
        assert_true(fabsl((long double)a[i] - expected) <= 1e-15L * fabsl(expected) + 1e-17L);
    }
    mdm_exact_sums_free(&forward);
    for (int h = 0; h < 2; h++) mdm_exact_sums_free(&halves[h]);
}

static void terms_that_are_no_numbers_or_too_large_make_the_sums_no_numbers(void **state) {
    (void)state;
    const double bad[] = {NAN, INFINITY, -INFINITY, 0x1p32, -1e300};
    for (int i = 0; i < 5; i++) {
        mdm_exact_sums sums;
        double value;
        assert_int_equal(mdm_exact_sums_create(3, &sums), MDM_OK);
        mdm_exact_sums_add_doubles(&sums, 1, 1, &bad[i]);
        mdm_exact_sums_get_doubles(&sums, 1, 1, &value);
        assert_true(isnan(value));
        mdm_exact_sums_clear(&sums);
        mdm_exact_sums_get_doubles(&sums, 1, 1, &value);
        assert_true(value == 0);
        mdm_exact_sums_free(&sums);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_and_the_place_of_terms_do_not_matter),
        cmocka_unit_test(terms_that_are_no_numbers_or_too_large_make_the_sums_no_numbers),
    };
    return cmocka_run_group_tests(tests, draw_terms, NULL);
}
