/* Pictures in chunks, of any form that HDF5 writes: found by it and read without it, they are those that were
 * written; chunks that are not what the file says are refused. */
#include "dataset_chunks.h"
#include "dataset_test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COUNT = 23, H = 6, W = 5, C = 3, BYTES = H * W * C, FILL = 77 };
enum {
    DEFLATE = 1,
    SUM = 2,
    SUM_FIRST = 4,
    SHUFFLE = 8,
    BLOCK = 16,
    LATEST = 32,
    PLAIN_EDGES = 64,
    PART = 128
};

static const hsize_t forms[][4] = {{6, H, W, C}, {1, H, W, C},  {23, H, W, C}, {40, 8, 9, 4}, {7, 4, 2, 1},
                                   {5, 1, 5, 3}, {64, 3, 5, 2}, {2, 6, 1, 3},  {16, H, W, C}};
static const int manners[] = {0,
                              DEFLATE,
                              SUM,
                              DEFLATE | SUM,
                              DEFLATE | SUM_FIRST,
                              DEFLATE | SHUFFLE | SUM,
                              BLOCK,
                              BLOCK | DEFLATE,
                              LATEST,
                              LATEST | BLOCK | DEFLATE | SUM,
                              LATEST | DEFLATE | PLAIN_EDGES,
                              PART,
                              PART | DEFLATE | LATEST};

static void filter(hid_t plist, int manner) {
    if (manner & SUM_FIRST) assert_true(H5Pset_fletcher32(plist) >= 0);
    if (manner & SHUFFLE) assert_true(H5Pset_shuffle(plist) >= 0);
    if (manner & DEFLATE) assert_true(H5Pset_deflate(plist, 6) >= 0);
    if (manner & SUM) assert_true(H5Pset_fletcher32(plist) >= 0);
    if (manner & PLAIN_EDGES)
        assert_true(H5Pset_chunk_opts(plist, H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS) >= 0);
}

static hid_t create_file(int manner) {
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    if (manner & BLOCK) assert_true(H5Pset_userblock(creation, 1024) >= 0);
    if (manner & LATEST) assert_true(H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST) >= 0);
    hid_t file = H5Fcreate(test_path, H5F_ACC_TRUNC, creation, access);
    assert_true(file >= 0);
    H5Pclose(creation);
    H5Pclose(access);
    H5Gclose(H5Gcreate2(file, "/train", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    return file;
}

/* Writes the pictures so; with PART the first ten alone, and the expectation of the others becomes FILL. */
static void write_pictures(const hsize_t form[4], int manner, mdm_dataset *d) {
    const hsize_t dims[4] = {COUNT, H, W, C}, start[4] = {0}, part[4] = {10, H, W, C},
                  most[4] = {H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED};
    const uint8_t fill = FILL;
    hid_t file = create_file(manner), plist = H5Pcreate(H5P_DATASET_CREATE),
          space = H5Screate_simple(4, dims, most),
          memory = H5Screate_simple(4, manner & PART ? part : dims, NULL);
    assert_true(H5Pset_chunk(plist, 4, form) >= 0 && H5Pset_fill_value(plist, H5T_NATIVE_UINT8, &fill) >= 0);
    filter(plist, manner);
    hid_t array = H5Dcreate2(file, "/train/images", H5T_STD_U8LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(array >= 0);
    if (manner & PART) {
        assert_true(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, part, NULL) >= 0);
        memset(d->train_images + 10 * BYTES, FILL, (COUNT - 10) * BYTES);
    }
    assert_true(H5Dwrite(array, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, d->train_images) >= 0);
    put(file, "/train/labels", 1, dims, H5T_STD_I32LE, d->train_labels, 0);
    H5Dclose(array);
    H5Sclose(memory);
    H5Sclose(space);
    H5Pclose(plist);
    assert_true(H5Fclose(file) >= 0);
}

static mdm_dataset *look(void) {
    mdm_dataset *d;
    if (mdm_dataset_read_labels(test_path, &d) != MDM_OK) fail_msg("%s", mdm_last_message());
    assert_int_equal(d->places[0]->kind, MDM_PLACES_CHUNKED);
    return d;
}

/* Some pictures in rising order, and some of them again: what is kept must not matter. */
static void expect_pictures(const mdm_dataset *found, const uint8_t *pictures) {
    static uint8_t read[COUNT * BYTES];
    static const int64_t orders[][4] = {{0, 1, 2, 3}, {0, 9, 17, 22}, {22, -1}, {5, 6, 21, 22}, {0, -1}};
    mdm_chunks *chunks;
    assert_int_equal(mdm_chunks_open(test_path, found->places[0], &chunks), MDM_OK);
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        mdm_wanted wanted[4];
        int64_t count = 0;
        for (; count < 4 && orders[o][count] >= 0; count++)
            wanted[count] = (mdm_wanted){orders[o][count], read + count * BYTES};
        memset(read, 1, sizeof read);
        if (mdm_chunks_read(chunks, wanted, count) != MDM_OK) fail_msg("%s", mdm_last_message());
        for (int64_t i = 0; i < count; i++)
            assert_memory_equal(wanted[i].to, pictures + wanted[i].index * BYTES, BYTES);
    }
    mdm_chunks_close(chunks);
    memset(read, 1, sizeof read);
    assert_int_equal(mdm_dataset_read_images(test_path, found, 0, 1, COUNT - 1, read), MDM_OK);
    assert_memory_equal(read, pictures + BYTES, (COUNT - 1) * BYTES);
}

static void pictures_in_chunks_of_every_form_are_those_written(void **state) {
    (void)state;
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
        for (size_t m = 0; m < sizeof manners / sizeof *manners; m++) {
            mdm_dataset *d = small_dataset(COUNT, 0, H, W, C, 4);
            write_pictures(forms[f], manners[m], d);
            mdm_dataset *found = look();
            expect_pictures(found, d->train_images);
            mdm_dataset_destroy(found);
            mdm_dataset_destroy(d);
        }
}

static void pictures_in_the_header_are_read_too(void **state) {
    (void)state;
    const hsize_t dims[4] = {COUNT, H, W, C};
    mdm_dataset *d = small_dataset(COUNT, 0, H, W, C, 4);
    hid_t file = create_file(0), plist = H5Pcreate(H5P_DATASET_CREATE),
          space = H5Screate_simple(4, dims, NULL);
    assert_true(H5Pset_layout(plist, H5D_COMPACT) >= 0);
    hid_t array = H5Dcreate2(file, "/train/images", H5T_STD_U8LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(H5Dwrite(array, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, d->train_images) >= 0);
    put(file, "/train/labels", 1, dims, H5T_STD_I32LE, d->train_labels, 0);
    H5Dclose(array);
    H5Sclose(space);
    H5Pclose(plist);
    assert_true(H5Fclose(file) >= 0);
    mdm_dataset *found = look();
    expect_pictures(found, d->train_images);
    mdm_dataset_destroy(found);
    mdm_dataset_destroy(d);
}

/* HDF5's own call for a chunk's place would take minutes here, and longer than the child may take. */
static void many_chunks_are_found_soon(void **state) {
    (void)state;
    enum { MANY = 50000 };
    const hsize_t dims[4] = {MANY, 1, 2, 1}, chunk[4] = {1, 1, 2, 1};
    mdm_dataset *d = small_dataset(MANY, 0, 1, 2, 1, 4);
    hid_t file = create_file(0), plist = H5Pcreate(H5P_DATASET_CREATE),
          space = H5Screate_simple(4, dims, NULL);
    assert_true(H5Pset_chunk(plist, 4, chunk) >= 0);
    hid_t array = H5Dcreate2(file, "/train/images", H5T_STD_U8LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(H5Dwrite(array, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, d->train_images) >= 0);
    put(file, "/train/labels", 1, dims, H5T_STD_I32LE, d->train_labels, 0);
    H5Dclose(array);
    H5Sclose(space);
    H5Pclose(plist);
    assert_true(H5Fclose(file) >= 0);
    mdm_dataset *found;
    if (mdm_dataset_read(test_path, &found) != MDM_OK) fail_msg("%s", mdm_last_message());
    assert_memory_equal(found->train_images, d->train_images, 2 * MANY);
    mdm_dataset_destroy(found);
    mdm_dataset_destroy(d);
}

static void spoil(int64_t at, uint8_t by) {
    FILE *file = fopen(test_path, "r+b");
    assert_true(file && fseek(file, (long)at, SEEK_SET) == 0);
    int byte = fgetc(file);
    assert_true(byte != EOF && fseek(file, (long)at, SEEK_SET) == 0);
    assert_true(fputc(byte ^ by, file) != EOF && fclose(file) == 0);
}

static mdm_status read_again(const mdm_dataset *found) {
    static uint8_t read[COUNT * BYTES];
    return mdm_dataset_read_images(test_path, found, 0, 0, COUNT, read);
}

static void a_chunk_that_is_not_what_the_file_says_is_refused(void **state) {
    (void)state;
    static const int spoilt[] = {DEFLATE, SUM, DEFLATE | SUM, DEFLATE | SUM_FIRST};
    for (size_t m = 0; m < sizeof spoilt / sizeof *spoilt; m++) {
        mdm_dataset *d = small_dataset(COUNT, 0, H, W, C, 4), *again;
        write_pictures(forms[0], spoilt[m], d);
        mdm_dataset *found = look();
        mdm_places *p = found->places[0];
        mdm_chunk_place whole = mdm_places_get_chunk(p, 1), other = whole;
        assert_true(whole.at > 0);
        other.bytes = whole.bytes - 1;
        mdm_places_set_chunk(p, 1, other);
        assert_int_equal(read_again(found), MDM_INPUT);
        assert_non_null(strstr(mdm_last_message(), "/train/images cannot be read; the file is damaged"));
        other.bytes = 2;
        mdm_places_set_chunk(p, 1, other);
        assert_int_equal(read_again(found), MDM_INPUT);
        other = whole;
        other.left_out = UINT32_MAX;
        other.bytes = 6 * BYTES + 1;
        mdm_places_set_chunk(p, 1, other);
        assert_int_equal(read_again(found), MDM_INPUT);
        mdm_places_set_chunk(p, 1, whole);
        assert_int_equal(read_again(found), MDM_OK);
        spoil(whole.at + whole.bytes / 2, 0x40);
        assert_int_equal(read_again(found), MDM_INPUT);
        assert_int_equal(mdm_dataset_read_labels(test_path, &again),
                         MDM_INPUT); /* and is found at the start */
        spoil(whole.at + whole.bytes / 2, 0x40);
        assert_int_equal(truncate(test_path, (off_t)(whole.at + 1)), 0);
        assert_int_equal(read_again(found), MDM_INPUT);
        assert_non_null(strstr(mdm_last_message(), "it was cut short while in use"));
        mdm_dataset_destroy(found);
        mdm_dataset_destroy(d);
    }
}

/* More pictures than the file says a chunk holds must not be written anywhere. */
static void a_chunk_that_unpacks_to_more_is_refused(void **state) {
    (void)state;
    mdm_dataset *d = small_dataset(COUNT, 0, H, W, C, 4);
    write_pictures(forms[0], DEFLATE, d);
    mdm_dataset *found = look();
    mdm_places *p = found->places[0];
    const mdm_chunk_place first = mdm_places_get_chunk(p, 0);
    p->chunk[0] = 5;
    mdm_places *smaller;
    assert_int_equal(mdm_places_create(p, 10, &smaller), MDM_OK);
    for (int i = 0; i < 5; i++) mdm_places_set_chunk(smaller, i, first);
    free(p);
    found->places[0] = smaller;
    assert_int_equal(read_again(found), MDM_INPUT);
    mdm_dataset_destroy(found);
    mdm_dataset_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pictures_in_chunks_of_every_form_are_those_written),
                                       cmocka_unit_test(pictures_in_the_header_are_read_too),
                                       cmocka_unit_test(many_chunks_are_found_soon),
                                       cmocka_unit_test(a_chunk_that_is_not_what_the_file_says_is_refused),
                                       cmocka_unit_test(a_chunk_that_unpacks_to_more_is_refused)};
    return cmocka_run_group_tests(tests, make_test_path, remove_test_path);
}
