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
    mdm_exact_sums_add_sums(&halves[0], 5, &halves[1], 5, WIDTH);
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

static void floats_add_up_as_their_doubles_do(void **state) {
    (void)state;
    mdm_exact_sums floats, doubles;
    float single[WIDTH], x[WIDTH];
    double twice[WIDTH], y[WIDTH];
    assert_int_equal(mdm_exact_sums_create(WIDTH, &floats), MDM_OK);
    assert_int_equal(mdm_exact_sums_create(WIDTH, &doubles), MDM_OK);
    for (int t = 0; t < TERMS; t++) {
        for (int i = 0; i < WIDTH; i++) single[i] = (float)terms[t][i];
        mdm_exact_sums_add_floats(&floats, 0, WIDTH, single);
        for (int i = 0; i < WIDTH; i++) twice[i] = single[i];
        mdm_exact_sums_add_doubles(&doubles, 0, WIDTH, twice);
    }
    assert_memory_equal(floats.whole, doubles.whole, sizeof(int64_t) * (size_t)mdm_exact_sums_size(&floats));
    mdm_exact_sums_get_floats(&floats, 0, WIDTH, x);
    mdm_exact_sums_get_doubles(&doubles, 0, WIDTH, y);
    for (int i = 0; i < WIDTH; i++) assert_true(x[i] == (float)y[i]);
    mdm_exact_sums_clear_part(&floats, 1, WIDTH - 2);
    mdm_exact_sums_get_floats(&floats, 0, WIDTH, x);
    for (int i = 1; i < WIDTH - 1; i++) assert_true(x[i] == 0);
    assert_true(x[0] == (float)y[0] && x[WIDTH - 1] == (float)y[WIDTH - 1]);
    mdm_exact_sums_free(&floats);
    mdm_exact_sums_free(&doubles);
}

static void terms_that_are_no_numbers_or_too_large_make_the_sums_no_numbers(void **state) {
    (void)state;
    const double bad[] = {NAN, INFINITY, -INFINITY, 0x1p32, -1e300};
    for (int i = 0; i < 5; i++) {
        mdm_exact_sums sums, other;
        double value;
        assert_int_equal(mdm_exact_sums_create(3, &sums), MDM_OK);
        assert_int_equal(mdm_exact_sums_create(3, &other), MDM_OK);
        mdm_exact_sums_add_doubles(&sums, 1, 1, &bad[i]);
        mdm_exact_sums_add_sums(&other, 0, &sums, 0, 3);
        mdm_exact_sums_get_doubles(&other, 1, 1, &value);
        assert_true(isnan(value));
        mdm_exact_sums_clear(&other);
        mdm_exact_sums_get_doubles(&other, 1, 1, &value);
        assert_true(value == 0);
        mdm_exact_sums_free(&sums);
        mdm_exact_sums_free(&other);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_and_the_place_of_terms_do_not_matter),
        cmocka_unit_test(floats_add_up_as_their_doubles_do),
        cmocka_unit_test(terms_that_are_no_numbers_or_too_large_make_the_sums_no_numbers),
    };
    return cmocka_run_group_tests(tests, draw_terms, NULL);
}
