/* Sums on a grid: any order, any grouping of the arrays, the same bits; and as near as the grid allows. */
#include "golden.h"
#include "mdm/base/grid_sum.h"
#include "mdm/base/random.h"
#include <math.h>
#include <stdlib.h>

enum { TERMS = 48, WIDTH = 5000 }; /* more than a block, and a rest */

static float terms[TERMS][WIDTH];

/* Magnitudes from 1e-12 to 1e3, both signs. */
static int draw_terms(void **state) {
    (void)state;
    for (int t = 0; t < TERMS; t++) {
        mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 0, (uint64_t)t, 0);
        for (int i = 0; i < WIDTH; i++)
            terms[t][i] =
                (float)((mdm_random_open(&random) - 0.5) * pow(10.0, 15.0 * mdm_random_open(&random) - 12.0));
    }
    return 0;
}

static void create(mdm_grid_sums *sums) {
    assert_int_equal(mdm_grid_sums_create(WIDTH, sums), MDM_OK);
}

static void the_order_and_the_grouping_of_terms_do_not_matter(void **state) {
    (void)state;
    mdm_grid_sums whole, parts;
    const float *all[TERMS];
    float a[WIDTH], b[WIDTH];
    create(&whole);
    create(&parts);
    for (int t = 0; t < TERMS; t++) all[t] = terms[t];
    whole.whole[3] = 12345; /* from an earlier step */
    assert_int_equal(mdm_grid_sums_add(&whole, 0, WIDTH, all, TERMS, 0), 0);
    for (int t = TERMS - 1; t >= 0; t -= 3) /* three at a time, from the end, in two parts of the array */
        for (int half = 0; half < 2; half++) {
            int first = half ? 1 : 0, n = half ? WIDTH - 1 : 1;
            const float *three[3] = {terms[t] + first, terms[t - 2] + first, terms[t - 1] + first};
            assert_int_equal(mdm_grid_sums_add(&parts, first, n, three, 3, 1), 0);
        }
    assert_memory_equal(whole.whole, parts.whole, sizeof(int64_t) * (WIDTH + 1));
    mdm_grid_sums_get(&whole, 0, WIDTH, a);
    mdm_grid_sums_get(&parts, 2, WIDTH - 2, b + 2);
    assert_memory_equal(a + 2, b + 2, sizeof(float) * (WIDTH - 2));
    for (int i = 0; i < WIDTH; i++) {
        double expected = 0;
        for (int t = 0; t < TERMS; t++) expected += (double)terms[t][i];
        assert_true(fabs((double)a[i] - expected) <= 6e-8 * fabs(expected) + TERMS * 0x1p-44);
    }
    mdm_grid_sums_free(&whole);
    mdm_grid_sums_free(&parts);
}

static void doubles_add_up_as_their_floats_do_and_a_part_can_be_cleared(void **state) {
    (void)state;
    mdm_grid_sums floats, doubles;
    double twice[WIDTH];
    float value[3];
    create(&floats);
    create(&doubles);
    for (int t = 0; t < TERMS; t++) {
        const float *one = terms[t];
        for (int i = 0; i < WIDTH; i++) twice[i] = terms[t][i];
        assert_int_equal(mdm_grid_sums_add(&floats, 0, WIDTH, &one, 1, 1), 0);
        assert_int_equal(mdm_grid_sums_add_doubles(&doubles, 0, WIDTH, twice), 0);
    }
    assert_memory_equal(floats.whole, doubles.whole, sizeof(int64_t) * (WIDTH + 1));
    mdm_grid_sums_clear_part(&floats, 11, 1);
    mdm_grid_sums_get(&floats, 10, 3, value);
    assert_true(value[1] == 0 && value[0] != 0 && value[2] != 0);
    mdm_grid_sums_clear(&floats);
    for (int i = 0; i <= WIDTH; i++) assert_true(floats.whole[i] == 0);
    mdm_grid_sums_free(&floats);
    mdm_grid_sums_free(&doubles);
}

static void terms_that_are_no_numbers_or_too_large_make_the_sums_no_numbers(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 8192.0f, -1e30f};
    for (int i = 0; i < 5; i++) {
        mdm_grid_sums sums;
        const float *one = &bad[i];
        double same = bad[i];
        float value[WIDTH];
        create(&sums);
        assert_int_equal(mdm_grid_sums_add_doubles(&sums, 7, 1, &same), 1);
        sums.whole[WIDTH] += mdm_grid_sums_add(&sums, 7, 1, &one, 1, 1);
        assert_true(sums.whole[WIDTH] == 1 && sums.whole[7] == 0);
        mdm_grid_sums_get(&sums, 0, WIDTH, value);
        assert_true(isnan(value[7]) && isnan(value[0]));
        mdm_grid_sums_free(&sums);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_and_the_grouping_of_terms_do_not_matter),
        cmocka_unit_test(doubles_add_up_as_their_floats_do_and_a_part_can_be_cleared),
        cmocka_unit_test(terms_that_are_no_numbers_or_too_large_make_the_sums_no_numbers),
    };
    return cmocka_run_group_tests(tests, draw_terms, NULL);
}
