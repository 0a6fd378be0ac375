/* Decoding, turning and resizing give Pillow's pixels. */
#include "golden.h"
#include "mdm/base/text.h"
#include "mdm/data/picture.h"
#include "picture_cases.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 13, W = 17, LIMIT = 1 << 20 };

static void resizing_gives_pillows_pixels(void **state) {
    uint8_t pattern[H * W * 3], out[64 * 64 * 3];
    (void)state;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < 3; c++)
                pattern[(y * W + x) * 3 + c] = (uint8_t)((y * 31 + x * 17 + c * 71 + (x * y) % 23 * 5) % 256);
    for (size_t i = 0; i < sizeof resize_cases / sizeof *resize_cases; i++) {
        int height = resize_cases[i].height, width = resize_cases[i].width;
        assert_int_equal(mdm_picture_resize(pattern, H, W, 3, height, width, out), MDM_OK);
        assert_memory_equal(out, resize_cases[i].pixels, (size_t)(height * width * 3));
    }
}

static void decoding_gives_pillows_pixels(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof decode_cases / sizeof *decode_cases; i++) {
        char path[1024], *bytes;
        size_t size;
        mdm_picture p;
        snprintf(path, sizeof path, "%s/%s", MDM_PICTURES, decode_cases[i].name);
        assert_int_equal(mdm_read_file(path, LIMIT, &bytes, &size), MDM_OK);
        if (mdm_picture_decode((uint8_t *)bytes, size, path, LIMIT, &p) != MDM_OK)
            fail_msg("%s", mdm_last_message());
        assert_int_equal(p.height, decode_cases[i].height);
        assert_int_equal(p.width, decode_cases[i].width);
        assert_int_equal(p.channels, decode_cases[i].channels);
        assert_memory_equal(p.pixels, decode_cases[i].pixels, (size_t)(p.height * p.width * p.channels));
        int too_few = p.height * p.width - 1;
        mdm_picture_free(&p);
        assert_int_equal(mdm_picture_decode((uint8_t *)bytes, size, path, too_few, &p), MDM_INPUT);
        free(bytes);
        assert_null(p.pixels);
    }
}

/* Of the six pixels of a 2x3 picture, which one comes first, and the new height: EXIF 2.3, table of
 * orientations. */
static void every_orientation_turns_as_exif_says(void **state) {
    static const int expected[9][7] = {{0},
                                       {2, 0, 1, 2, 3, 4, 5},
                                       {2, 2, 1, 0, 5, 4, 3},
                                       {2, 5, 4, 3, 2, 1, 0},
                                       {2, 3, 4, 5, 0, 1, 2},
                                       {3, 0, 3, 1, 4, 2, 5},
                                       {3, 3, 0, 4, 1, 5, 2},
                                       {3, 5, 2, 4, 1, 3, 0},
                                       {3, 2, 5, 1, 4, 0, 3}};
    (void)state;
    for (int o = 1; o <= 8; o++) {
        mdm_picture p = {2, 3, 1, malloc(6)};
        for (int i = 0; i < 6; i++) p.pixels[i] = (uint8_t)i;
        assert_int_equal(mdm_picture_orient(&p, o), MDM_OK);
        assert_int_equal(p.height, expected[o][0]);
        for (int i = 0; i < 6; i++) assert_int_equal(p.pixels[i], expected[o][1 + i]);
        mdm_picture_free(&p);
    }
}

static void fitting_scales_the_shorter_side_and_cuts_the_middle(void **state) {
    uint8_t wide[2 * 6], out[4];
    (void)state;
    for (int i = 0; i < 12; i++) wide[i] = (uint8_t)(10 * (i % 6));
    mdm_picture p = {2, 6, 1, wide};
    assert_int_equal(mdm_picture_fit(&p, 2, 2, 1, out), MDM_OK);
    assert_memory_equal(out, ((const uint8_t[]){20, 30, 20, 30}), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(resizing_gives_pillows_pixels),
                                       cmocka_unit_test(decoding_gives_pillows_pixels),
                                       cmocka_unit_test(every_orientation_turns_as_exif_says),
                                       cmocka_unit_test(fitting_scales_the_shorter_side_and_cuts_the_middle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
