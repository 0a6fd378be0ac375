/* Data sets that keep their pictures as JPEG and PNG files: they give the pixels of those files, and a list
 * of places that cannot be is refused before anything is read by it. */
#include "dataset_test.h"
#include "mdm/base/text.h"
#include "mdm/data/picture.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRAIN = 2, MOST_BYTES = 1 << 16 };

static const char *const files[TRAIN] = {MDM_PICTURES "/jpeg/turned", MDM_PICTURES "/png/RGB"};
/* The two pictures one behind the other. */
static void join(uint8_t *bytes, int64_t offsets[TRAIN + 1]) {
    offsets[0] = 0;
    for (int i = 0; i < TRAIN; i++) {
        char *content;
        size_t size;
        assert_int_equal(mdm_read_file(files[i], MOST_BYTES / TRAIN, &content, &size), MDM_OK);
        memcpy(bytes + offsets[i], content, size);
        offsets[i + 1] = offsets[i] + (int64_t)size;
        free(content);
    }
}

static void add_split(hid_t file, const char *group, const uint8_t *bytes, const int64_t *offsets) {
    const int32_t labels[TRAIN] = {0, 1};
    hsize_t two = TRAIN, three = TRAIN + 1, all = (hsize_t)offsets[TRAIN];
    char name[32];
    H5Gclose(H5Gcreate2(file, group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    snprintf(name, sizeof name, "%s/encoded", group);
    put(file, name, 1, &all, H5T_STD_U8LE, bytes, 0);
    snprintf(name, sizeof name, "%s/offsets", group);
    put(file, name, 1, &three, H5T_NATIVE_INT64, offsets, 0);
    snprintf(name, sizeof name, "%s/labels", group);
    put(file, name, 1, &two, H5T_NATIVE_INT32, labels, 0);
}

static hid_t sound_file(uint8_t *bytes, int64_t *offsets) {
    hid_t file = H5Fcreate(test_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    join(bytes, offsets);
    add_split(file, "/train", bytes, offsets);
    add_split(file, "/test", bytes, offsets);
    return file;
}

static void pictures_are_those_of_the_files(void **state) {
    (void)state;
    static uint8_t bytes[MOST_BYTES];
    int64_t offsets[TRAIN + 1];
    mdm_dataset *d;
    mdm_picture first, second;
    assert_true(H5Fclose(sound_file(bytes, offsets)) >= 0);
    if (mdm_dataset_read(test_path, &d) != MDM_OK) fail_msg("%s", mdm_last_message());
    assert_int_equal(mdm_picture_decode(bytes, (size_t)offsets[1], "first", MOST_BYTES, &first), MDM_OK);
    assert_int_equal(mdm_picture_decode(bytes + offsets[1], (size_t)(offsets[2] - offsets[1]), "second",
                                        MOST_BYTES, &second),
                     MDM_OK);
    assert_true(d->height == first.height && d->width == first.width && d->channels == first.channels);
    size_t size = (size_t)d->height * (size_t)d->width * (size_t)d->channels;
    uint8_t *fitted = malloc(size); /* without picture_size all take the first one's */
    assert_int_equal(mdm_picture_fit(&second, d->height, d->width, d->channels, fitted), MDM_OK);
    for (int split = 0; split < 2; split++) {
        const uint8_t *pixels = split ? d->test_images : d->train_images;
        assert_int_equal(split ? d->test_count : d->train_count, TRAIN);
        assert_memory_equal(pixels, first.pixels, size);
        assert_memory_equal(pixels + size, fitted, size);
    }
    uint8_t *again = malloc(size);
    assert_int_equal(mdm_dataset_read_images(test_path, d, 1, 1, 1, again), MDM_OK);
    assert_memory_equal(again, fitted, size);
    assert_int_equal(truncate(test_path, 3000), 0);
    assert_int_equal(mdm_dataset_read_images(test_path, d, 1, 1, 1, again), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "it was cut short while in use"));
    free(again);
    free(fitted);
    mdm_picture_free(&first);
    mdm_picture_free(&second);
    mdm_dataset_destroy(d);
}

static const char *const damages[][2] = {
    {"no offsets", "/train/offsets is missing"},
    {"real offsets", "/train/offsets must be a list of integers"},
    {"one offset", "/train/offsets holds no samples"},
    {"equal offsets", "/train/offsets must rise from 0"},
    {"negative offset", "/train/offsets must rise from 0"},
    {"offsets from 1", "/train/offsets must begin with 0 and end with the number of bytes"},
    {"offsets too short", "/train/offsets must begin with 0 and end with the number of bytes"},
    {"wide bytes", "/train/encoded must be uint8 in this file"},
    {"packed bytes", "/train/encoded must be uint8 in this file"},
    {"size of two", "picture_size must hold height, width and channels"},
    {"size without height", "picture_size must hold height, width and channels"},
    {"size of two channels", "picture_size must hold height, width and channels"},
    {"size beyond all", "picture_size must hold height, width and channels"},
    {"damaged first", "picture 0 of /train"},
    {"plain training pictures", "the attribute picture_size is missing"},
    {"plain training pictures and size", "/test/encoded holds pictures of 5x7x3, /train/images of 4x4x3"},
};

static int is(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

static void spoil_offsets(hid_t file, const char *how, int64_t *offsets) {
    hsize_t count = is(how, "one offset") ? 1 : TRAIN + 1;
    const double reals[TRAIN + 1] = {0, 1, 2};
    if (is(how, "equal offsets")) offsets[1] = 0;
    if (is(how, "negative offset")) offsets[0] = -1;
    if (is(how, "offsets from 1")) offsets[0] = 1;
    if (is(how, "offsets too short")) offsets[2]--;
    if (is(how, "no offsets"))
        assert_true(H5Ldelete(file, "/train/offsets", H5P_DEFAULT) >= 0);
    else if (is(how, "real offsets"))
        put(file, "/train/offsets", 1, &count, H5T_NATIVE_DOUBLE, reals, 0);
    else
        put(file, "/train/offsets", 1, &count, H5T_NATIVE_INT64, offsets, 0);
}

static void spoil_bytes(hid_t file, const char *how, uint8_t *bytes, hsize_t count) {
    static int16_t wide[MOST_BYTES];
    const hsize_t plain[4] = {TRAIN, 4, 4, 3};
    if (is(how, "wide bytes"))
        put(file, "/train/encoded", 1, &count, H5T_NATIVE_INT16, wide, 0);
    else if (is(how, "packed bytes"))
        put(file, "/train/encoded", 1, &count, H5T_STD_U8LE, bytes, count);
    else if (strncmp(how, "plain", 5) == 0) {
        put(file, "/train/images", 4, plain, H5T_STD_U8LE, bytes, 0);
        assert_true(H5Ldelete(file, "/train/encoded", H5P_DEFAULT) >= 0);
    } else {
        memset(bytes, 0, 20);
        put(file, "/train/encoded", 1, &count, H5T_STD_U8LE, bytes, 0);
    }
}

static void spoil_size(hid_t file, const char *how) {
    int size[3] = {5, 7, 3};
    if (is(how, "size without height")) size[0] = 0;
    if (is(how, "size of two channels")) size[2] = 2;
    if (is(how, "size beyond all")) size[1] = MDM_PICTURE_MOST_SIDE + 1;
    put_attribute(file, "picture_size", H5T_NATIVE_INT, is(how, "size of two") ? 2 : 3, size);
}

static void what_cannot_be_is_told_with_file_and_data_set(void **state) {
    (void)state;
    static uint8_t bytes[MOST_BYTES];
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const char *how = damages[i][0];
        int64_t offsets[TRAIN + 1];
        mdm_dataset *read;
        hid_t file = sound_file(bytes, offsets);
        if (strstr(how, "offset"))
            spoil_offsets(file, how, offsets);
        else if (strncmp(how, "size", 4) == 0)
            spoil_size(file, how);
        else
            spoil_bytes(file, how, bytes, (hsize_t)offsets[TRAIN]);
        if (strstr(how, "and size")) spoil_size(file, how);
        assert_true(H5Fclose(file) >= 0);
        mdm_status status = mdm_dataset_read(test_path, &read);
        if (status != MDM_INPUT || !strstr(mdm_last_message(), damages[i][1]) ||
            !strstr(mdm_last_message(), test_path) || strchr(mdm_last_message(), '\n'))
            fail_msg("%s: status %d, message \"%s\"", how, status, mdm_last_message());
        assert_null(read);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pictures_are_those_of_the_files),
                                       cmocka_unit_test(what_cannot_be_is_told_with_file_and_data_set)};
    return cmocka_run_group_tests(tests, make_test_path, remove_test_path);
}
