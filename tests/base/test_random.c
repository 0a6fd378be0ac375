/* The random numbers: the generator against published vectors, the distributions against their moments. */
#include "golden.h"

#include "mdm/base/random.h"
#include <stdlib.h>
#include <string.h>

static void check_vector(const uint32_t key[2], const uint32_t counter[4], const uint32_t expected[4]) {
    uint32_t out[4];
    mdm_philox(key, counter, out);
    for (int i = 0; i < 4; i++) assert_int_equal(out[i], expected[i]);
}

/* From the known-answer file of Random123, the authors' library (philox4x32, 10 rounds). */
static void philox_gives_the_published_vectors(void **state) {
    (void)state;
    check_vector((uint32_t[]){0, 0}, (uint32_t[]){0, 0, 0, 0},
                 (uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    check_vector((uint32_t[]){~0u, ~0u}, (uint32_t[]){~0u, ~0u, ~0u, ~0u},
                 (uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    check_vector((uint32_t[]){0xa4093822, 0x299f31d0},
                 (uint32_t[]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                 (uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void a_stream_hands_out_whole_blocks_in_order(void **state) {
    (void)state;
    mdm_random r = mdm_random_stream(0, (mdm_purpose)0, 0, 0, 0);
    uint32_t first[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, second[4];
    mdm_philox((uint32_t[]){0, 0}, (uint32_t[]){0, 0, 0, 1}, second);
    for (int i = 0; i < 4; i++) assert_int_equal(mdm_random_bits(&r), first[i]);
    for (int i = 0; i < 4; i++) assert_int_equal(mdm_random_bits(&r), second[i]);
}

static void streams_differ_in_every_part_of_their_name(void **state) {
    (void)state;
    mdm_random streams[] = {
        mdm_random_stream(1, MDM_RANDOM_AUGMENT, 2, 3, 4),
        mdm_random_stream(2, MDM_RANDOM_AUGMENT, 2, 3, 4),
        mdm_random_stream(1 + (1ull << 32), MDM_RANDOM_AUGMENT, 2, 3, 4),
        mdm_random_stream(1, MDM_RANDOM_ORDER, 2, 3, 4),
        mdm_random_stream(1, MDM_RANDOM_AUGMENT, 3, 3, 4),
        mdm_random_stream(1, MDM_RANDOM_AUGMENT, 2, 4, 4),
        mdm_random_stream(1, MDM_RANDOM_AUGMENT, 2, 3 + (1ull << 32), 4),
        mdm_random_stream(1, MDM_RANDOM_AUGMENT, 2, 3, 5),
    };
    enum { COUNT = sizeof streams / sizeof streams[0] };
    uint64_t draws[COUNT];
    for (int i = 0; i < COUNT; i++) {
        uint64_t high = mdm_random_bits(&streams[i]);
        draws[i] = high << 32 | mdm_random_bits(&streams[i]);
        for (int j = 0; j < i; j++) assert_true(draws[i] != draws[j]);
    }
}

static void uniform_draws_fill_the_unit_interval_evenly(void **state) {
    (void)state;
    enum { DRAWS = 200000, BINS = 50 };
    mdm_random r = mdm_random_stream(7, MDM_RANDOM_TEST, 0, 0, 0);
    int bins[BINS] = {0};
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < DRAWS; i++) {
        float u = mdm_random_uniform(&r);
        assert_true(u >= 0.0f && u < 1.0f);
        bins[(int)(u * BINS)]++;
        sum += u;
        squares += (double)u * u;
    }
    double expected = (double)DRAWS / BINS, chi = 0.0;
    for (int i = 0; i < BINS; i++) chi += (bins[i] - expected) * (bins[i] - expected) / expected;
    assert_true(chi > 20.0 && chi < 95.0); /* 49 degrees of freedom: 1e-4 on either side */
    assert_true(fabs(sum / DRAWS - 0.5) < 4.0 * sqrt(1.0 / 12.0 / DRAWS));
    assert_true(fabs(squares / DRAWS - 1.0 / 3.0) < 4.0 * sqrt(4.0 / 45.0 / DRAWS));
}

static void open_draws_never_reach_zero_or_one(void **state) {
    (void)state;
    mdm_random low = {.left = 4}, high = {.buffer = {~0u, ~0u, ~0u, ~0u}, .left = 4};
    assert_true(mdm_random_open(&low) > 0.0);
    assert_true(mdm_random_open(&high) < 1.0);
}

static void below_is_even_for_numbers_that_do_not_divide_two_to_the_32(void **state) {
    (void)state;
    enum { DRAWS = 120000 };
    mdm_random r = mdm_random_stream(8, MDM_RANDOM_TEST, 0, 0, 0);
    int bins[6] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint32_t k = mdm_random_below(&r, 6);
        assert_true(k < 6);
        bins[k]++;
    }
    double chi = 0.0;
    for (int i = 0; i < 6; i++) chi += (bins[i] - DRAWS / 6.0) * (bins[i] - DRAWS / 6.0) / (DRAWS / 6.0);
    assert_true(chi < 25.7); /* 5 degrees of freedom, 1e-4 */
    /* With n = 3 * 2^30 a plain remainder would land below 2^30 twice as often as in each other third. */
    uint32_t n = 3u << 30, thirds[3] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint32_t k = mdm_random_below(&r, n);
        assert_true(k < n);
        thirds[k >> 30]++;
    }
    for (int i = 0; i < 3; i++) assert_true(fabs(thirds[i] - DRAWS / 3.0) < 5.0 * sqrt(DRAWS * 2.0 / 9.0));
    for (int i = 0; i < 10; i++) assert_int_equal(mdm_random_below(&r, 1), 0);
}

static void normal_draws_have_mean_0_variance_1_and_kurtosis_3(void **state) {
    (void)state;
    enum { DRAWS = 200000 };
    mdm_random r = mdm_random_stream(9, MDM_RANDOM_TEST, 0, 0, 0);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    for (int i = 0; i < DRAWS; i++) {
        double x = mdm_random_normal(&r);
        m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
    }
    assert_true(fabs(m1 / DRAWS) < 4.0 * sqrt(1.0 / DRAWS));
    assert_true(fabs(m2 / DRAWS - 1.0) < 4.0 * sqrt(2.0 / DRAWS));
    assert_true(fabs(m3 / DRAWS) < 4.0 * sqrt(15.0 / DRAWS));
    assert_true(fabs(m4 / DRAWS - 3.0) < 4.0 * sqrt(96.0 / DRAWS));
}

/* mean a/(a+b), variance ab/((a+b)^2 (a+b+1)) */
static void check_beta(double a, double b) {
    enum { DRAWS = 100000 };
    mdm_random r = mdm_random_stream(10, MDM_RANDOM_MIXUP, 0, 0, 0);
    double sum = 0.0, squares = 0.0, mean = a / (a + b),
           variance = a * b / ((a + b) * (a + b) * (a + b + 1.0));
    for (int i = 0; i < DRAWS; i++) {
        double x = mdm_random_beta(&r, a, b);
        assert_true(x >= 0.0 && x <= 1.0);
        sum += x - mean;
        squares += (x - mean) * (x - mean);
    }
    assert_true(fabs(sum / DRAWS) < 4.0 * sqrt(variance / DRAWS));
    assert_true(fabs(squares / DRAWS / variance - 1.0) < 0.02);
}

static void beta_draws_have_the_right_mean_and_variance(void **state) {
    (void)state;
    check_beta(4.0, 4.0); /* mixup's default: mean 1/2, variance 1/36 */
    check_beta(0.5, 0.5); /* the branch for shapes below one */
    check_beta(2.0, 5.0);
    check_beta(0.001, 0.001); /* most draws are too small for a double */
}

static void shuffling_permutes_and_gives_every_place_the_same_chance(void **state) {
    (void)state;
    enum { N = 1000, TRIALS = 24000 };
    int64_t items[N];
    char seen[N] = {0};
    for (int i = 0; i < N; i++) items[i] = i;
    mdm_random r = mdm_random_stream(11, MDM_RANDOM_ORDER, 0, 0, 0);
    mdm_random_shuffle(&r, items, N);
    int moved = 0;
    for (int i = 0; i < N; i++) {
        assert_in_range(items[i], 0, N - 1);
        assert_false(seen[items[i]]);
        seen[items[i]] = 1;
        moved += items[i] != i;
    }
    assert_true(moved > N - 15);
    int counts[256] = {0}; /* all 24 orders of four, each named by its digits in base four */
    for (int t = 0; t < TRIALS; t++) {
        int64_t four[4] = {0, 1, 2, 3};
        mdm_random_shuffle(&r, four, 4);
        counts[four[0] + 4 * four[1] + 16 * four[2] + 64 * four[3]]++;
    }
    int orders = 0;
    double chi = 0.0, expected = TRIALS / 24.0;
    for (int i = 0; i < 256; i++)
        if (counts[i]) orders++, chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    assert_int_equal(orders, 24);
    assert_true(chi < 57.0); /* 23 degrees of freedom, 1e-4 */
    mdm_random_shuffle(&r, items, 0);
    mdm_random_shuffle(&r, items, 1);
}

static void an_order_by_blocks_is_random_and_uses_few_runs_at_a_time(void **state) {
    (void)state;
    enum { N = 10007, BLOCK = 10, WINDOW = 20, TRIALS = 2000 };
    static int64_t items[N];
    for (int trial = 0; trial < 3; trial++) {
        char seen[N] = {0};
        for (int i = 0; i < N; i++) items[i] = i;
        mdm_random r = mdm_random_stream(12, MDM_RANDOM_ORDER, (uint32_t)trial, 0, 0);
        mdm_random_shuffle_blocks(&r, items, N, BLOCK, WINDOW);
        int neighbours = 0;
        for (int i = 0; i < N; i++) {
            assert_in_range(items[i], 0, N - 1);
            assert_false(seen[items[i]]);
            seen[items[i]] = 1;
            neighbours += i > 0 && items[i] == items[i - 1] + 1;
        }
        assert_true(neighbours < N / 100); /* within a window nothing is left of the file's order */
        for (int first = 0; first < N; first += BLOCK * WINDOW) {
            char used[N / BLOCK + 2] = {0};
            int runs = 0;
            for (int i = first; i < first + BLOCK * WINDOW && i < N; i++)
                if (!used[items[i] / BLOCK]++) runs++;
            assert_true(runs <= WINDOW + 1);
        }
    }
    double mean = 0; /* of the place of the first item over many orders of whole runs */
    for (int trial = 0; trial < TRIALS; trial++) {
        for (int i = 0; i < 98; i++) items[i] = i;
        mdm_random r = mdm_random_stream(13, MDM_RANDOM_ORDER, (uint32_t)trial, 0, 0);
        mdm_random_shuffle_blocks(&r, items, 98, 7, 3);
        for (int i = 0; i < 98; i++)
            if (items[i] == 0) mean += (double)i / TRIALS;
    }
    assert_true(fabs(mean - 48.5) < 3.0); /* deviation 0.65 */
    mdm_random r = mdm_random_stream(14, MDM_RANDOM_ORDER, 0, 0, 0);
    mdm_random_shuffle_blocks(&r, items, 0, 7, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(a_stream_hands_out_whole_blocks_in_order),
        cmocka_unit_test(streams_differ_in_every_part_of_their_name),
        cmocka_unit_test(uniform_draws_fill_the_unit_interval_evenly),
        cmocka_unit_test(open_draws_never_reach_zero_or_one),
        cmocka_unit_test(below_is_even_for_numbers_that_do_not_divide_two_to_the_32),
        cmocka_unit_test(normal_draws_have_mean_0_variance_1_and_kurtosis_3),
        cmocka_unit_test(beta_draws_have_the_right_mean_and_variance),
        cmocka_unit_test(an_order_by_blocks_is_random_and_uses_few_runs_at_a_time),
        cmocka_unit_test(shuffling_permutes_and_gives_every_place_the_same_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
