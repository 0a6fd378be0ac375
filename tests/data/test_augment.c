/* Augmentation against what Pillow and torchvision computed (golden.h5 and pillow.h5), and what its header
 * promises. */
#include "golden.h"
#include "pillow.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAD = 4 };

static void assert_same_bytes(const uint8_t *actual, const uint8_t *expected, int64_t count,
                              const char *what) {
    for (int64_t i = 0; i < count; i++)
        if (actual[i] != expected[i])
            fail_msg("%s: byte %lld is %d, expected %d", what, (long long)i, actual[i], expected[i]);
}

static void every_golden_operation_is_met_to_the_bit(void **state) {
    (void)state;
    int64_t count;
    uint8_t *input = golden_bytes("/augment/input_u8", &count), *output = malloc((size_t)count);
    assert_int_equal(count, 32 * 32 * 3);
    for (size_t i = 0; i < sizeof(golden_operations) / sizeof(golden_operations[0]); i++) {
        char path[64];
        snprintf(path, sizeof(path), "/augment/%s_u8", golden_operations[i].name);
        uint8_t *expected = golden_bytes(path, &count);
        mdm_augment_apply(golden_operations[i].kind, golden_operations[i].magnitude, 0, input, 32, 32, 3,
                          output);
        assert_same_bytes(output, expected, count, golden_operations[i].name);
        free(expected);
    }
    uint8_t *expected = golden_bytes("/augment/flip_u8", &count);
    mdm_augment_plan flip = {.top = PAD, .left = PAD, .flip = 1, .policy = -1};
    mdm_augment_make(&flip, input, 32, 32, 3, PAD, output, NULL);
    assert_same_bytes(output, expected, count, "flip");
    free(expected);
    free(output);
    free(input);
}

static void every_level_and_sign_is_met_to_the_bit_at_fill_128(void **state) {
    (void)state;
    for (int which = 0; which < 3; which++) {
        pillow_cases cases;
        pillow_cases_read(which, &cases);
        int64_t bytes = (int64_t)cases.height * cases.width * cases.channels;
        uint8_t *output = malloc((size_t)bytes);
        for (int64_t i = 0; i < cases.count; i++) {
            char what[96];
            snprintf(what, sizeof(what), "%s: operation %d level %d negative %d", cases.name, cases.kind[i],
                     cases.level[i], cases.negative[i]);
            mdm_augment_apply((mdm_augment_kind)cases.kind[i], pillow_magnitude(&cases, i), 128, cases.image,
                              cases.height, cases.width, cases.channels, output);
            if (cases.output) assert_same_bytes(output, cases.output + i * bytes, bytes, what);
            if (pillow_hash(output, bytes) != cases.hash[i]) fail_msg("%s: other bytes than Pillow's", what);
        }
        free(output);
        pillow_cases_free(&cases);
    }
}

static void whole_views_are_those_of_torchvision_on_the_same_draws(void **state) {
    (void)state;
    for (int which = 0; which < 3; which++)
        for (int strong = 0; strong < 2; strong++) {
            const char *name;
            int height, width, channels;
            int64_t views;
            uint8_t *image = pillow_image(which, &name, &height, &width, &channels);
            uint64_t *hash = pillow_read(name, strong ? "strong" : "weak", H5T_NATIVE_UINT64, &views);
            int64_t bytes = (int64_t)height * width * channels;
            uint8_t *output = malloc((size_t)bytes), *scratch = malloc(2 * (size_t)bytes);
            for (int64_t i = 0; i < views; i++) {
                mdm_random random = mdm_random_stream(11, MDM_RANDOM_AUGMENT, 5, (uint64_t)i, 3);
                mdm_augment_view(strong ? MDM_VIEW_STRONG : MDM_VIEW_WEAK, &random, image, height, width,
                                 channels, PAD, output, scratch);
                if (pillow_hash(output, bytes) != hash[i])
                    fail_msg("%s: view %lld (strong %d) differs", name, (long long)i, strong);
            }
            free(scratch);
            free(output);
            free(hash);
            free(image);
        }
}

static void levels_mean_what_torchvision_says_at_every_size(void **state) {
    (void)state;
    int64_t numbers, count;
    int32_t *sizes = pillow_read("/", "sizes", H5T_NATIVE_INT32, &numbers);
    double *expected = pillow_read("/", "magnitudes", H5T_NATIVE_DOUBLE, &count);
    assert_int_equal(count, numbers / 2 * 14 * 10);
    for (int64_t i = 0; i < count; i++) {
        int kind = (int)(i / 10 % 14), level = (int)(i % 10);
        int height = sizes[2 * (i / 140)], width = sizes[2 * (i / 140) + 1];
        double actual = mdm_augment_magnitude((mdm_augment_kind)kind, level, height, width);
        if (actual != expected[i])
            fail_msg("operation %d level %d at %dx%d is %.17g, expected %.17g", kind, level, height, width,
                     actual, expected[i]);
    }
    free(expected);
    free(sizes);
}

static void the_policy_is_drawn_with_its_probabilities_and_signs(void **state) {
    (void)state;
    enum { DRAWS = 200000 };
    int sub_policy[25] = {0}, used[25][2] = {{0}}, negative = 0, with_sign = 0, flips = 0;
    int crops[2 * PAD + 1][2 * PAD + 1] = {{0}};
    for (int i = 0; i < DRAWS; i++) {
        mdm_random random = mdm_random_stream(7, MDM_RANDOM_AUGMENT, 0, (uint64_t)i, 0);
        mdm_augment_plan plan = mdm_augment_draw(MDM_VIEW_STRONG, &random, 32, 32, PAD);
        assert_in_range(plan.policy, 0, 24);
        crops[plan.top][plan.left]++;
        flips += plan.flip;
        sub_policy[plan.policy]++;
        for (int j = 0; j < plan.count; j++) {
            const mdm_augment_operation *pair = mdm_augment_policy[plan.policy];
            if (plan.count == 2) assert_int_equal(plan.operation[j].kind, pair[j].kind);
            if (pair[0].kind != pair[1].kind) used[plan.policy][plan.operation[j].kind == pair[1].kind]++;
            if (plan.operation[j].kind != MDM_TRANSLATE_Y) continue;
            with_sign++;
            negative += plan.operation[j].magnitude < 0;
        }
    }
    assert_in_range(flips, DRAWS * 49 / 100, DRAWS * 51 / 100);
    assert_in_range(negative, with_sign * 48 / 100, with_sign * 52 / 100);
    for (int p = 0; p < 25; p++) {
        assert_in_range(sub_policy[p], 7600, 8400);
        if (mdm_augment_policy[p][0].kind == mdm_augment_policy[p][1].kind) continue;
        for (int j = 0; j < 2; j++) {
            float share = (float)used[p][j] / (float)sub_policy[p];
            assert_float_equal(share, mdm_augment_policy[p][j].probability, 0.025f);
        }
    }
    for (int t = 0; t <= 2 * PAD; t++)
        for (int l = 0; l <= 2 * PAD; l++) assert_in_range(crops[t][l], 2200, 2750);
}

static void the_table_of_sub_policies_is_torchvisions(void **state) {
    (void)state;
    int64_t count;
    double *expected = pillow_read("/", "policy", H5T_NATIVE_DOUBLE, &count);
    assert_int_equal(count, 25 * 2 * 3);
    for (int i = 0; i < 50; i++) {
        const mdm_augment_operation *operation = &mdm_augment_policy[i / 2][i % 2];
        assert_int_equal(operation->kind, (int)expected[3 * i]);
        assert_float_equal(operation->probability, (float)expected[3 * i + 1], 0);
        assert_int_equal(operation->level, (int)expected[3 * i + 2]);
    }
    free(expected);
}

static void a_weak_view_crops_the_zero_padded_image_then_flips_it(void **state) {
    (void)state;
    enum { H = 5, W = 7, C = 3 };
    uint8_t image[H * W * C], output[H * W * C], scratch[2 * H * W * C];
    for (int i = 0; i < H * W * C; i++) image[i] = (uint8_t)(i + 1);
    for (int top = 0; top <= 2 * PAD; top++)
        for (int left = 0; left <= 2 * PAD; left++)
            for (int flip = 0; flip < 2; flip++) {
                mdm_augment_plan plan = {.top = top, .left = left, .flip = flip, .policy = -1};
                mdm_augment_make(&plan, image, H, W, C, PAD, output, scratch);
                for (int y = 0; y < H; y++)
                    for (int x = 0; x < W; x++)
                        for (int c = 0; c < C; c++) {
                            int row = y + top - PAD, column = (flip ? W - 1 - x : x) + left - PAD;
                            int inside = row >= 0 && row < H && column >= 0 && column < W;
                            assert_int_equal(output[(y * W + x) * C + c],
                                             inside ? image[(row * W + column) * C + c] : 0);
                        }
            }
}

static void a_strong_view_starts_from_the_weak_view_of_the_same_stream(void **state) {
    (void)state;
    for (uint64_t item = 0; item < 100; item++) {
        mdm_random one = mdm_random_stream(1, MDM_RANDOM_AUGMENT, 2, item, 3), two = one;
        mdm_augment_plan weak = mdm_augment_draw(MDM_VIEW_WEAK, &one, 28, 28, PAD);
        mdm_augment_plan strong = mdm_augment_draw(MDM_VIEW_STRONG, &two, 28, 28, PAD);
        assert_int_equal(weak.top, strong.top);
        assert_int_equal(weak.left, strong.left);
        assert_int_equal(weak.flip, strong.flip);
        assert_int_equal(weak.count, 0);
    }
}

static void no_view_is_the_image_and_draws_nothing(void **state) {
    (void)state;
    uint8_t image[4 * 6], output[4 * 6], scratch[2 * 4 * 6];
    for (int i = 0; i < 24; i++) image[i] = (uint8_t)(10 * i);
    mdm_random random = mdm_random_stream(1, MDM_RANDOM_AUGMENT, 0, 0, 0), before = random;
    mdm_augment_view(MDM_VIEW_NONE, &random, image, 4, 6, 1, PAD, output, scratch);
    assert_memory_equal(image, output, sizeof(image));
    assert_memory_equal(&random, &before, sizeof(random));
}

/* Views of odd sizes: the same twice, and no byte beyond the buffers touched (the sanitizer looks at the
 * input too). */
static void views_repeat_and_stay_inside_their_buffers_at_every_size(void **state) {
    (void)state;
    static const int shapes[][3] = {{28, 28, 1}, {84, 84, 3}, {7, 5, 3}, {1, 1, 3},
                                    {2, 9, 1},   {3, 2, 3},   {3, 3, 1}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        int height = shapes[s][0], width = shapes[s][1], channels = shapes[s][2];
        size_t bytes = (size_t)(height * width * channels);
        uint8_t *image = malloc(bytes), *output = malloc(bytes + 1), *again = malloc(bytes),
                *scratch = malloc(2 * bytes);
        for (size_t i = 0; i < bytes; i++) image[i] = (uint8_t)(i * 7 + i / 13);
        output[bytes] = 0xA5;
        for (uint64_t item = 0; item < 500; item++) {
            mdm_random random = mdm_random_stream(9, MDM_RANDOM_AUGMENT, 0, item, 0), same = random;
            mdm_augment_view(MDM_VIEW_STRONG, &random, image, height, width, channels, PAD, output, scratch);
            memset(scratch, (int)item, 2 * bytes);
            mdm_augment_view(MDM_VIEW_STRONG, &same, image, height, width, channels, PAD, again, scratch);
            assert_memory_equal(output, again, bytes);
        }
        for (int k = MDM_SHEAR_X; k <= MDM_INVERT; k++)
            for (int level = 0; level < 10; level++) {
                double magnitude = mdm_augment_magnitude((mdm_augment_kind)k, level, height, width);
                mdm_augment_apply((mdm_augment_kind)k, magnitude, 128, image, height, width, channels,
                                  output);
                mdm_augment_apply((mdm_augment_kind)k, -magnitude * (k != MDM_POSTERIZE), 128, image, height,
                                  width, channels, again);
            }
        assert_int_equal(output[bytes], 0xA5);
        free(scratch);
        free(again);
        free(output);
        free(image);
    }
}

static void a_translation_beyond_the_image_leaves_only_fill(void **state) {
    (void)state;
    uint8_t image[6 * 4 * 3], output[6 * 4 * 3];
    memset(image, 7, sizeof(image));
    static const int far_away[] = {4, -4, 6, -6, 1000, -1000};
    for (int i = 0; i < 6; i++) {
        mdm_augment_apply(MDM_TRANSLATE_X, far_away[i], 128, image, 6, 4, 3, output);
        for (size_t j = 0; j < sizeof(output); j++) assert_int_equal(output[j], 128);
        if (i < 2) continue;
        mdm_augment_apply(MDM_TRANSLATE_Y, far_away[i], 128, image, 6, 4, 3, output);
        for (size_t j = 0; j < sizeof(output); j++) assert_int_equal(output[j], 128);
    }
}

static void one_channel_color_is_the_image(void **state) {
    (void)state;
    uint8_t image[16], output[16];
    for (int i = 0; i < 16; i++) image[i] = (uint8_t)(16 * i);
    mdm_augment_apply(MDM_COLOR, 0.1, 128, image, 4, 4, 1, output);
    assert_memory_equal(image, output, sizeof(image));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_operation_is_met_to_the_bit),
        cmocka_unit_test(every_level_and_sign_is_met_to_the_bit_at_fill_128),
        cmocka_unit_test(whole_views_are_those_of_torchvision_on_the_same_draws),
        cmocka_unit_test(levels_mean_what_torchvision_says_at_every_size),
        cmocka_unit_test(the_policy_is_drawn_with_its_probabilities_and_signs),
        cmocka_unit_test(the_table_of_sub_policies_is_torchvisions),
        cmocka_unit_test(a_weak_view_crops_the_zero_padded_image_then_flips_it),
        cmocka_unit_test(a_strong_view_starts_from_the_weak_view_of_the_same_stream),
        cmocka_unit_test(no_view_is_the_image_and_draws_nothing),
        cmocka_unit_test(views_repeat_and_stay_inside_their_buffers_at_every_size),
        cmocka_unit_test(a_translation_beyond_the_image_leaves_only_fill),
        cmocka_unit_test(one_channel_color_is_the_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
