/* IDX and CIFAR files, put together by hand: what they hold comes out, and what cannot be is refused by name.
 */
#include "golden.h"
#include "mdm/base/machine.h"
#include "mdm/base/text.h"
#include "mdm/data/import.h"
#include "source.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { COLUMNS = 3072, MOST_BYTES = 1 << 16 };

static char folder[64];

static const char *inside(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put_file(const char *name, const void *bytes, size_t size) {
    assert_int_equal(mdm_write_file(inside(name), bytes, size), MDM_OK);
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/mdm-import-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void refused(mdm_status status, const char *words) {
    if (status != MDM_INPUT || !strstr(mdm_last_message(), words))
        fail_msg("status %d, \"%s\" is not in: %s", status, words, mdm_last_message());
}

static mdm_dataset *imported(mdm_import_format format) {
    mdm_dataset *d;
    if (mdm_import(folder, &(mdm_import_options){.format = format}, &d) != MDM_OK)
        fail_msg("%s", mdm_last_message());
    return d;
}

/* IDX */

static void put_idx(const char *name, int count, int height, int width, uint8_t first) {
    uint8_t bytes[MOST_BYTES] = {0, 0, 8, height ? 3 : 1, 0, 0, 0, (uint8_t)count};
    size_t at = 8;
    if (height) {
        bytes[11] = (uint8_t)height;
        bytes[15] = (uint8_t)width;
        at = 16;
    }
    for (int i = 0; i < count * (height ? height * width : 1); i++) bytes[at++] = (uint8_t)(first + i);
    put_file(name, bytes, at);
}

static void put_sound_idx(void) {
    put_idx("train-images-idx3-ubyte", 3, 2, 4, 100);
    put_idx("train-labels-idx1-ubyte", 3, 0, 0, 0);
    put_idx("t10k-images-idx3-ubyte", 2, 2, 4, 50);
    put_idx("t10k-labels-idx1-ubyte", 2, 0, 0, 8);
}

static void idx_files_give_their_pictures_and_labels(void **state) {
    (void)state;
    put_sound_idx();
    mdm_dataset *d = imported(MDM_IMPORT_AUTO);
    assert_true(d->train_count == 3 && d->test_count == 2 && d->height == 2 && d->width == 4);
    assert_true(d->train_images[8] == 108 && d->test_images[15] == 65 && d->train_labels[2] == 2 &&
                d->test_labels[1] == 9);
    assert_string_equal(d->class_names[9], "9"); /* ten classes are digits */
    mdm_dataset_destroy(d);
    unlink(inside("t10k-images-idx3-ubyte"));
    d = imported(MDM_IMPORT_IDX);
    assert_true(d->test_count == 0 && d->classes == 3 && !d->class_names);
    mdm_dataset_destroy(d);
}

static void idx_files_that_do_not_fit_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int count, height, width;
        const char *words;
    } cases[] = {
        {"train-images-idx3-ubyte", 3, 2, 0, "holds nothing (a dimension is 0)"},
        {"train-images-idx3-ubyte", 3, 0, 0, "is not an IDX file of bytes with 3 dimensions"},
        {"train-labels-idx1-ubyte", 3, 1, 1, "is not an IDX file of bytes with 1 dimension "},
        {"train-labels-idx1-ubyte", 4, 0, 0, "has 3 pictures, train-labels-idx1-ubyte has 4 labels"},
        {"t10k-images-idx3-ubyte", 2, 3, 4, "training pictures of 2x4, test pictures of 3x4"},
    };
    static const uint8_t wide[16 + 2 * 16384] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 64, 0};
    static const uint8_t huge[16] = {0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    mdm_dataset *d;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_sound_idx();
        put_idx(cases[i].name, cases[i].count, cases[i].height, cases[i].width, 0);
        refused(mdm_import_idx(folder, &d), cases[i].words);
        assert_null(d);
    }
    put_sound_idx();
    put_file("train-images-idx3-ubyte", huge, sizeof huge);
    refused(mdm_import_idx(folder, &d), "announces more than 64 GiB of data");
    put_idx("train-images-idx3-ubyte", 3, 2, 4, 0);
    assert_int_equal(truncate(inside("train-images-idx3-ubyte"), 16 + 23), 0);
    refused(mdm_import_idx(folder, &d), "has 39 bytes where its header announces 40; it was cut short");
    assert_int_equal(truncate(inside("train-images-idx3-ubyte"), 16 + 25), 0);
    refused(mdm_import_idx(folder, &d), "is larger than the 40 bytes that its format allows");
    unlink(inside("t10k-images-idx3-ubyte"));
    put_file("train-images-idx3-ubyte", wide, sizeof wide);
    put_idx("train-labels-idx1-ubyte", 2, 0, 0, 0);
    refused(mdm_import_idx(folder, &d), "pictures of 1x16384 pixels; at most 16383 a side");
    put_idx("train-images-idx3-ubyte", 1, 2, 4, 0);
    put_idx("train-labels-idx1-ubyte", 1, 0, 0, 0);
    refused(mdm_import_idx(folder, &d), "all labels are 0");
    unlink(inside("train-images-idx3-ubyte"));
    refused(mdm_import_idx(folder, &d), "train-images-idx3-ubyte is missing");
}

/* A gzipped file of 16 bytes and then so many zeros. */
static void put_bomb(const char *name, const uint8_t header[16], int64_t zeros) {
    static const uint8_t nothing[1 << 20];
    gzFile file = gzopen(inside(name), "wb1");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, header, 16), 16);
    for (; zeros > 0; zeros -= (int64_t)sizeof nothing)
        assert_int_equal(gzwrite(file, nothing, sizeof nothing), sizeof nothing);
    assert_int_equal(gzclose(file), Z_OK);
}

static void a_gzipped_idx_file_takes_no_more_memory_than_it_announces(void **state) {
    (void)state;
    static const uint8_t small[16] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 4};
    static const uint8_t vast[16] = {0, 0, 8, 3, 0, 0, 0xE0, 0, 0, 0, 4, 0, 0, 0, 4, 0}; /* 56 GiB */
    struct rusage before, after;
    char what[256];
    mdm_dataset *d;
    put_sound_idx();
    unlink(inside("train-images-idx3-ubyte"));
    put_bomb("train-images-idx3-ubyte.gz", small, (int64_t)256 << 20);
    assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
    refused(mdm_import_idx(folder, &d), "is larger than the 40 bytes that its format allows");
    assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
    assert_true(after.ru_maxrss - before.ru_maxrss < 64 << 10);
    put_bomb("train-images-idx3-ubyte.gz", vast, 1);
    double limit = mdm_memory_limit(what, sizeof what);
    mdm_status status = mdm_import_idx(folder, &d);
    assert_int_equal(status, limit >= 0 && limit < 56.0 * (1 << 30) ? MDM_RESOURCE : MDM_INPUT);
    unlink(inside("train-images-idx3-ubyte.gz"));
}

/* CIFAR's binary files */

static void put_records(const char *name, int label_bytes, int count, int label) {
    uint8_t bytes[8 * (COLUMNS + 2)];
    for (int i = 0; i < count; i++) {
        uint8_t *record = bytes + i * (label_bytes + COLUMNS);
        memset(record, i, (size_t)(label_bytes + COLUMNS));
        record[label_bytes - 1] = (uint8_t)(label + i);
        memset(record + label_bytes, 200, COLUMNS / 3); /* the red plane */
    }
    put_file(name, bytes, (size_t)count * (size_t)(label_bytes + COLUMNS));
}

static void put_sound_cifar10(void) {
    char name[32];
    for (int i = 1; i <= 5; i++) {
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        put_records(name, 1, 2, i);
    }
    put_records("test_batch.bin", 1, 1, 9);
    put_file("batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n", 21);
}

static void binary_cifar_gives_its_pictures_labels_and_names(void **state) {
    (void)state;
    put_sound_cifar10();
    mdm_dataset *d = imported(MDM_IMPORT_AUTO);
    assert_true(d->train_count == 10 && d->test_count == 1 && d->classes == 10);
    assert_true(d->train_labels[3] == 3 && d->train_images[3 * COLUMNS] == 200 &&
                d->train_images[3 * COLUMNS + 1] == 1);
    assert_string_equal(d->class_names[2], "c");
    mdm_dataset_destroy(d);
    put_file("batches.meta.txt", "a\nb\n", 4); /* of something else */
    d = imported(MDM_IMPORT_CIFAR10);
    assert_null(d->class_names);
    mdm_dataset_destroy(d);
    put_records("train.bin", 2, 3, 97);
    unlink(inside("data_batch_1.bin")); /* by which CIFAR-10 is known */
    d = imported(MDM_IMPORT_AUTO);
    assert_true(d->train_count == 3 && d->train_labels[2] == 99 && d->test_count == 0 && d->classes == 100);
    mdm_dataset_destroy(d);
}

static void binary_cifar_that_cannot_be_is_refused(void **state) {
    (void)state;
    mdm_dataset *d;
    put_sound_cifar10();
    put_records("data_batch_4.bin", 1, 2, 9);
    refused(mdm_import_cifar(folder, 10, &d),
            "data_batch_4.bin: the label of record 1 is 10; expected 0 to 9");
    put_file("data_batch_4.bin", "too short", 9);
    refused(mdm_import_cifar(folder, 10, &d), "is no whole number of 3073-byte CIFAR-10 records");
    assert_null(d);
}

/* CIFAR's Python files */

typedef struct buffer {
    uint8_t bytes[MOST_BYTES];
    size_t used;
} buffer;

static void add(buffer *b, const void *bytes, size_t size) {
    assert_true(b->used + size <= sizeof b->bytes);
    memcpy(b->bytes + b->used, bytes, size);
    b->used += size;
}

#define ADD(text) add(b, text, sizeof(text) - 1)

static void add_text(buffer *b, const char *text) {
    const uint8_t length = (uint8_t)strlen(text);
    ADD("U");
    add(b, &length, 1);
    add(b, text, length);
}

/* A dictionary of labels and an array of [count, columns] bytes. */
static void put_batch(const char *name, const char *key, int labels, int first, int count, int columns) {
    static buffer batch;
    static uint8_t pixels[4 * COLUMNS];
    buffer *b = &batch;
    const uint32_t bytes = (uint32_t)(count * columns);
    b->used = 0;
    ADD("\x80\x02}(");
    add_text(b, key);
    ADD("](");
    for (int i = 0; i < labels; i++) {
        const uint8_t label[2] = {'K', (uint8_t)(first + i)};
        add(b, label, 2);
    }
    ADD("e");
    add_text(b, "data");
    ADD("cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01"
        "b\x87R(K\x01K");
    add(b, &(uint8_t){(uint8_t)count}, 1);
    ADD("M");
    add(b, &(uint16_t){(uint16_t)columns}, 2);
    ADD("\x86"
        "cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
    add(b, &bytes, 4);
    for (uint32_t i = 0; i < bytes; i++) pixels[i] = i % COLUMNS < COLUMNS / 3 ? 200 : 7;
    add(b, pixels, bytes);
    ADD("tbu.");
    put_file(name, b->bytes, b->used);
}

static void put_names(const char *name, const char *key, int count, const char *last) {
    static buffer names;
    buffer *b = &names;
    b->used = 0;
    ADD("\x80\x02}");
    add_text(b, key);
    ADD("](");
    for (int i = 0; i < count - 1; i++) add_text(b, (char[]){(char)('a' + i % 26), 0});
    if (last)
        add_text(b, last);
    else
        ADD("K\x01");
    ADD("es.");
    put_file(name, b->bytes, b->used);
}

static void put_sound_python_cifar10(void) {
    char name[32];
    for (int i = 1; i <= 5; i++) {
        snprintf(name, sizeof name, "data_batch_%d", i);
        put_batch(name, "labels", 2, i, 2, COLUMNS);
    }
    put_batch("test_batch", "labels", 1, 9, 1, COLUMNS);
    put_names("batches.meta", "label_names", 10, "last");
}

static void python_cifar_gives_its_pictures_labels_and_names(void **state) {
    (void)state;
    put_sound_python_cifar10();
    mdm_dataset *d = imported(MDM_IMPORT_AUTO);
    assert_true(d->train_count == 10 && d->test_count == 1 && d->classes == 10);
    assert_true(d->train_labels[3] == 3 && d->test_labels[0] == 9 && d->train_images[3 * COLUMNS] == 200 &&
                d->train_images[3 * COLUMNS + 1] == 7);
    assert_string_equal(d->class_names[9], "last");
    mdm_dataset_destroy(d);
    const struct {
        int count;
        const char *last;
    } others[] = {{9, "last"}, {10, NULL}}; /* too few, or no texts: no names */
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        put_names("batches.meta", "label_names", others[i].count, others[i].last);
        d = imported(MDM_IMPORT_CIFAR10);
        assert_null(d->class_names);
        mdm_dataset_destroy(d);
    }
    put_batch("train", "fine_labels", 2, 98, 2, COLUMNS);
    put_names("meta", "fine_label_names", 100, "last");
    unlink(inside("data_batch_1")); /* by which CIFAR-10 is known */
    d = imported(MDM_IMPORT_AUTO);
    assert_true(d->train_count == 2 && d->train_labels[1] == 99);
    assert_string_equal(d->class_names[99], "last");
    mdm_dataset_destroy(d);
}

static void python_cifar_that_cannot_be_is_refused(void **state) {
    (void)state;
    mdm_dataset *d;
    put_sound_python_cifar10();
    put_batch("data_batch_2", "labels", 2, 9, 2, COLUMNS);
    refused(mdm_import_cifar_python(folder, 10, &d),
            "data_batch_2: the label of record 1 is not from 0 to 9");
    put_batch("data_batch_2", "labels", 3, 1, 2, COLUMNS);
    refused(mdm_import_cifar_python(folder, 10, &d), "data_batch_2: labels is no list of 2 labels");
    put_batch("data_batch_2", "labels", 2, 1, 2, COLUMNS - 1);
    refused(mdm_import_cifar_python(folder, 10, &d), "data_batch_2: data is no array of bytes with 3072");
    assert_null(d);
}

static void options_that_nothing_would_heed_are_refused(void **state) {
    (void)state;
    static const struct {
        mdm_import_options options;
        const char *words;
    } cases[] = {
        {{.format = MDM_IMPORT_IDX, .size = 32}, "--size, --keep-encoded, --classes"},
        {{.format = MDM_IMPORT_FOLDER, .root = "x"}, "--root is for list files"},
        {{.format = MDM_IMPORT_FOLDER, .labels = "x"}, "--labels is for list files"},
        {{.format = MDM_IMPORT_FOLDER, .test_list = "x"}, "--test-list is for list files"},
        {{.format = MDM_IMPORT_FOLDER, .test_root = "x"}, "--test-root is for list files"},
        {{.format = MDM_IMPORT_FOLDER, .test_labels = "x"}, "--test-labels is for list files"},
        {{.format = MDM_IMPORT_LIST, .test = "x", .test_list = "y"}, "name two test sets; one is possible"},
        {{.format = MDM_IMPORT_LIST, .test_root = "x"}, "--test-root goes with --test-list FILE"},
        {{.format = MDM_IMPORT_LIST, .test_labels = "x"}, "--test-labels goes with --test-list FILE"},
        {{.format = MDM_IMPORT_FOLDER, .label_column = "x"}, "--label-column is for lists, metadata.csv"},
    };
    mdm_dataset *d;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mdm_import(folder, &cases[i].options, &d), MDM_USAGE);
        if (!strstr(mdm_last_message(), cases[i].words))
            fail_msg("\"%s\" is not in: %s", cases[i].words, mdm_last_message());
    }
}

static void what_is_no_source_of_that_format_is_refused(void **state) {
    (void)state;
    const mdm_import_options idx = {.format = MDM_IMPORT_IDX}, any = {0};
    const char nothing[1024] = ""; /* an archive without files */
    mdm_dataset *d;
    put_file("file", "x", 1);
    refused(mdm_import(inside("file"), &idx, &d), "is not a folder; give the folder that holds the files");
    refused(mdm_import(inside("none"), &any, &d), "no such folder, archive or list file");
    put_file("empty.tar", nothing, sizeof nothing);
    refused(mdm_import(inside("empty.tar"), &any, &d), "holds neither CIFAR's nor IDX files; unpack it");
    refused(mdm_import(folder, &any, &d), "holds no folders with .jpg"); /* what it is taken for */
}

static void files_larger_than_their_format_allows_are_refused(void **state) {
    (void)state;
    mdm_source plain = {.path = folder}, archive;
    unsigned char *bytes;
    size_t count;
    put_records("train.bin", 2, 2, 0);
    refused(mdm_source_read(&plain, "train.bin", 10, &bytes, &count),
            "train.bin is larger than the 10 bytes");
    assert_null(bytes);
    assert_int_equal(mdm_source_open(MDM_FUZZ_CORPUS "/archive/plain", &archive), MDM_OK);
    refused(mdm_source_read(&archive, "train.bin", 10, &bytes, &count),
            "train.bin is larger than the 10 bytes");
    refused(mdm_source_read(&archive, "none.bin", 10, &bytes, &count), "holds no file none.bin");
    mdm_source_close(&archive);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(idx_files_give_their_pictures_and_labels),
        IN_FOLDER(idx_files_that_do_not_fit_are_refused),
        IN_FOLDER(a_gzipped_idx_file_takes_no_more_memory_than_it_announces),
        IN_FOLDER(binary_cifar_gives_its_pictures_labels_and_names),
        IN_FOLDER(binary_cifar_that_cannot_be_is_refused),
        IN_FOLDER(python_cifar_gives_its_pictures_labels_and_names),
        IN_FOLDER(python_cifar_that_cannot_be_is_refused),
        IN_FOLDER(options_that_nothing_would_heed_are_refused),
        IN_FOLDER(what_is_no_source_of_that_format_is_refused),
        IN_FOLDER(files_larger_than_their_format_allows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
