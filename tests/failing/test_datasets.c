/* Data set files, imports and label noise, with every call going wrong once, here and in the process that
 * looks through a file first. */
#include "dataset_internal.h"
#include "dataset_test.h"
#include "failing.h"
#include "listing.h"
#include "mdm/base/text.h"
#include "mdm/data/import.h"
#include "mdm/data/noise.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRAIN = 12, TEST = 4, SIDE = 4, COLOURS = 3, CLASSES = 4, IMAGE = SIDE * SIDE * COLOURS };

static char folder[64];

static const char *inside(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *text) {
    assert_int_equal(mdm_write_file(inside(name), text, strlen(text)), MDM_OK);
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/mdm-failing-XXXXXX");
    return mkdtemp(folder) ? make_test_path(state) : -1;
}

static int remove_folder(void **state) {
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return remove_test_path(state) || system(command);
}

static mdm_dataset *named_dataset(void) {
    static const char *const names[CLASSES] = {"ant", "bee", "cat", "dog"};
    mdm_dataset *d = small_dataset(TRAIN, TEST, SIDE, SIDE, COLOURS, CLASSES);
    memcpy(d->true_labels, d->train_labels, sizeof(int32_t) * TRAIN);
    assert_int_equal(mdm_dataset_set_class_names(d, names, CLASSES), MDM_OK);
    assert_int_equal(MDM_ALLOCATE(d->ids, TRAIN, "ids"), MDM_OK);
    for (int i = 0; i < TRAIN; i++) {
        char id[32];
        snprintf(id, sizeof id, "%d", i);
        d->ids[i] = strdup(id);
    }
    assert_int_equal(mdm_dataset_add_note(d, "source", "a test"), MDM_OK);
    return d;
}

/* As this program writes it, or as others may: strings of variable length, compressed, without a mean. */
static void make_file(int other) {
    mdm_dataset *d = named_dataset();
    assert_int_equal(mdm_dataset_write(test_path, d, 1), MDM_OK);
    hid_t file = H5Fopen(test_path, H5F_ACC_RDWR, H5P_DEFAULT);
    if (other) {
        const char *format = "mdm-dataset", *note = "of a length of its own";
        hsize_t samples = TRAIN, classes = CLASSES;
        hid_t text = H5Tcopy(H5T_C_S1);
        H5Tset_size(text, H5T_VARIABLE);
        put(file, "/train/ids", 1, &samples, text, d->ids, 0);
        put(file, "/class_names", 1, &classes, text, d->class_names, 0);
        put_attribute(file, "format", text, 0, &format);
        put_attribute(file, "note", text, 0, &note);
        assert_true(H5Adelete(file, "mean") >= 0);
        H5Tclose(text);
    }
    H5Fclose(file);
    if (other) compress(test_path, d, 3);
    mdm_dataset_destroy(d);
}

static mdm_dataset *expected;

static int same_texts(char *const *a, char *const *b, int64_t count) {
    if (!a || !b) return a == b;
    for (int64_t i = 0; i < count; i++)
        if (strcmp(a[i], b[i]) != 0) return 0;
    return 1;
}

static int same_numbers(const void *a, const void *b, size_t bytes) {
    return a && b ? memcmp(a, b, bytes) == 0 : a == b;
}

/* But for pictures and notes. */
static mdm_status compare(const mdm_dataset *d) {
    const mdm_dataset *e = expected;
    const size_t train = sizeof(int32_t) * (size_t)e->train_count,
                 test = sizeof(int32_t) * (size_t)e->test_count;
    if (d->train_count == e->train_count && d->test_count == e->test_count && d->classes == e->classes &&
        same_numbers(d->train_labels, e->train_labels, train) &&
        same_numbers(d->true_labels, e->true_labels, train) &&
        same_numbers(d->test_labels, e->test_labels, test) &&
        same_numbers(d->mean, e->mean, sizeof e->mean) && same_numbers(d->std, e->std, sizeof e->std) &&
        same_texts(d->ids, e->ids, e->train_count) && same_texts(d->class_names, e->class_names, e->classes))
        return MDM_OK;
    fail_msg("other values came back than are in the file, and nothing was said");
    return MDM_LOST;
}

static mdm_status read_all(void) {
    mdm_dataset *d;
    MDM_TRY(mdm_dataset_read(test_path, &d));
    const size_t image = (size_t)d->height * (size_t)d->width * (size_t)d->channels;
    mdm_status status = compare(d);
    assert_memory_equal(d->train_images, expected->train_images, image * (size_t)d->train_count);
    assert_memory_equal(d->test_images, expected->test_images, image * (size_t)d->test_count);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status read_parts(void) {
    static uint8_t images[3 * IMAGE];
    mdm_dataset *d;
    MDM_TRY(mdm_dataset_read_labels(test_path, &d));
    mdm_status status = compare(d);
    if (status == MDM_OK) status = mdm_dataset_read_images(test_path, d, 1, 1, 3, images);
    if (status == MDM_OK) assert_memory_equal(images, expected->test_images + IMAGE, sizeof images);
    mdm_dataset_destroy(d);
    return status;
}

static void expect_what_is_there(void) {
    if (mdm_dataset_read(test_path, &expected) != MDM_OK) fail_msg("%s", mdm_last_message());
}

/* In this process and in its children, in every way. */
static void try_every_call(mdm_status (*run)(void)) {
    for (int children = 0; children < 2; children++) {
        failing_plan plan = {.run = run, .in_children = children};
        (void)every_call_goes_wrong(&plan);
        plan.way = FAILING_ENDED;
        (void)every_call_goes_wrong(&plan);
        plan.harmless = !children; /* whose answer through a pipe is never cut */
        plan.way = FAILING_SHORT;
        (void)every_call_goes_wrong(&plan);
        plan.way = FAILING_INTERRUPTED;
        (void)every_call_goes_wrong(&plan);
    }
}

static void a_file_that_cannot_be_read_is_told(void **state) {
    (void)state;
    for (int other = 0; other < 2; other++) {
        make_file(other);
        expect_what_is_there();
        try_every_call(read_all);
        try_every_call(read_parts);
        mdm_dataset_destroy(expected);
    }
}

static mdm_dataset *written;

static mdm_status write_second(void) {
    return mdm_dataset_write(inside("whole.h5"), written, 1);
}

static void write_first(void) {
    mdm_dataset *d = named_dataset();
    assert_int_equal(mdm_dataset_write(inside("whole.h5"), d, 1), MDM_OK);
    mdm_dataset_destroy(d);
}

static void the_first_or_the_second_is_whole(mdm_status status) {
    mdm_dataset *d;
    struct stat part;
    char path[256];
    if (mdm_dataset_read(inside("whole.h5"), &d) != MDM_OK) fail_msg("%s", mdm_last_message());
    assert_true(d->train_labels[0] == written->train_labels[0] ||
                (status != MDM_OK && d->train_labels[0] == 0));
    for (int i = 0; i < TRAIN; i++) assert_string_equal(d->ids[i], written->ids[i]);
    for (int c = 0; c < CLASSES; c++) assert_string_equal(d->class_names[c], written->class_names[c]);
    assert_memory_equal(d->train_images, written->train_images, TRAIN * IMAGE);
    mdm_dataset_destroy(d);
    snprintf(path, sizeof path, "%s.part-%ld", inside("whole.h5"), (long)getpid());
    assert_int_equal(stat(path, &part), -1);
}

static void a_file_is_written_whole_or_not_at_all(void **state) {
    (void)state;
    const failing_plan plan = {
        .prepare = write_first, .run = write_second, .check = the_first_or_the_second_is_whole};
    written = named_dataset();
    written->train_labels[0] = 3;
    assert_true(every_call_goes_wrong(&plan) > 100);
    mdm_dataset_destroy(written);
}

static void put_encoded(hid_t file, const char *group) {
    const int32_t labels[2] = {0, 1};
    char name[32], *content;
    size_t bytes;
    int64_t offsets[3] = {0};
    assert_int_equal(mdm_read_file(MDM_FUZZ_CORPUS "/png/RGB", 1 << 20, &content, &bytes), MDM_OK);
    char *twice = malloc(2 * bytes);
    memcpy(twice, content, bytes);
    memcpy(twice + bytes, content, bytes);
    offsets[1] = (int64_t)bytes;
    offsets[2] = 2 * (int64_t)bytes;
    hsize_t all = 2 * bytes, two = 2, three = 3;
    H5Gclose(H5Gcreate2(file, group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    snprintf(name, sizeof name, "%s/encoded", group);
    put(file, name, 1, &all, H5T_STD_U8LE, twice, 0);
    snprintf(name, sizeof name, "%s/offsets", group);
    put(file, name, 1, &three, H5T_NATIVE_INT64, offsets, 0);
    snprintf(name, sizeof name, "%s/labels", group);
    put(file, name, 1, &two, H5T_NATIVE_INT32, labels, 0);
    free(twice);
    free(content);
}

static void encoded_pictures_that_cannot_be_read_are_told(void **state) {
    (void)state;
    hid_t file = H5Fcreate(test_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    put_encoded(file, "/train");
    put_encoded(file, "/test");
    H5Fclose(file);
    expect_what_is_there();
    try_every_call(read_all);
    mdm_dataset_destroy(expected);
}

static mdm_dataset *source, *foreign;

static mdm_status make_noise(const mdm_noise_options *o) {
    mdm_dataset *noisy;
    mdm_noise_counts counts;
    MDM_TRY(mdm_noise_make(source, o, &noisy, &counts));
    mdm_status status = mdm_noise_write_labels(inside("labels.json"), noisy);
    mdm_dataset_destroy(noisy);
    return status;
}

static mdm_status make_noise_by_a_matrix(void) {
    static const int last[1] = {CLASSES - 1};
    return make_noise(&(mdm_noise_options){.symmetric = 0.3,
                                           .asymmetric = 0.3,
                                           .transition_matrix = inside("matrix"),
                                           .ood = 0.1,
                                           .hold_out = last,
                                           .hold_out_count = 1});
}

static mdm_status make_noise_with_foreign_pictures(void) {
    return make_noise(&(mdm_noise_options){.ood = 0.4, .ood_from = foreign});
}

static mdm_status make_noise_from_a_file(void) {
    return make_noise(&(mdm_noise_options){.labels_from = inside("given.json")});
}

static void noise_that_cannot_be_made_is_told(void **state) {
    (void)state;
    source = named_dataset();
    foreign = small_dataset(TRAIN, 0, SIDE, SIDE, COLOURS, 2);
    write_text("matrix", "0 1 0  0 0 1  1 0 0\n");
    write_text("given.json", "[0,1,2,3, 0,1,2,3, 3,2,1,0]\n");
    try_every_call(make_noise_by_a_matrix);
    try_every_call(make_noise_with_foreign_pictures);
    try_every_call(make_noise_from_a_file);
    mdm_dataset_destroy(source);
    mdm_dataset_destroy(foreign);
}

static mdm_status import_cifar(void) {
    mdm_dataset *d;
    MDM_TRY(mdm_import_cifar(inside("cifar"), 10, &d));
    mdm_dataset_destroy(d);
    return MDM_OK;
}

static void cifar_that_cannot_be_read_is_told(void **state) {
    (void)state;
    static const char record[3073];
    char name[64];
    assert_int_equal(mkdir(inside("cifar"), 0700), 0);
    assert_int_equal(mdm_write_file(inside("cifar/test_batch.bin"), record, sizeof record), MDM_OK);
    for (int i = 1; i <= 5; i++) {
        snprintf(name, sizeof name, "cifar/data_batch_%d.bin", i);
        assert_int_equal(mdm_write_file(inside(name), record, sizeof record), MDM_OK);
    }
    write_text("cifar/batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    try_every_call(import_cifar);
}

static mdm_import_options options;
static const char *listed;

static mdm_status collect(void) {
    mdm_listing l = {0};
    mdm_status status = mdm_listing_collect(&l, listed, &options);
    mdm_listing_free(&l);
    return status;
}

static void try_listing(const char *name, mdm_import_options given) {
    options = given;
    listed = inside(name);
    if (collect() != MDM_OK) fail_msg("%s: %s", name, mdm_last_message());
    try_every_call(collect);
}

static void pictures_that_cannot_be_listed_are_told(void **state) {
    (void)state;
    static const char *const folders[] = {"tree",        "tree/train", "tree/train/a", "tree/train/b",
                                          "tree/val",    "tree/val/a", "tables",       "tables/train",
                                          "tables/test", "lines",      "lines/train"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(mkdir(inside(folders[i]), 0700), 0);
    write_text("tree/train/a/1.png", "1");
    write_text("tree/train/a/2.jpeg", "2");
    write_text("tree/train/b/3.PNG", "3");
    write_text("tree/val/a/4.jpg", "4");
    write_text("tables/train/metadata.csv", "file_name,label\n1.png,a\n\"2.png\",\"b\"\n");
    write_text("tables/test/metadata.csv", "file_name,label\n3.png,a\n");
    write_text("lines/train/metadata.jsonl",
               "{\"file_name\": \"1.png\", \"label\": 0}\n{\"file_name\": \"2.png\", \"label\": 1}\n");
    write_text("classes", "b\na\n");
    write_text("list", "tree/train/a/1.png a\ntree/train/b/3.PNG b\n");
    write_text("keys", "tree/train/b/3.PNG\ntree/train/a/1.png\n");
    try_listing("tree", (mdm_import_options){.format = MDM_IMPORT_FOLDER});
    try_listing("tree/train", (mdm_import_options){.format = MDM_IMPORT_FOLDER, .test = inside("tree/val")});
    try_listing("tables", (mdm_import_options){.format = MDM_IMPORT_METADATA});
    try_listing("lines", (mdm_import_options){.format = MDM_IMPORT_METADATA});
    try_listing("list", (mdm_import_options){.format = MDM_IMPORT_LIST, .classes = inside("classes")});
    try_listing("keys", (mdm_import_options){.format = MDM_IMPORT_LIST,
                                             .labels = inside("list"),
                                             .root = folder,
                                             .test_list = inside("keys")});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_cannot_be_read_is_told),
        cmocka_unit_test(a_file_is_written_whole_or_not_at_all),
        cmocka_unit_test(encoded_pictures_that_cannot_be_read_are_told),
        cmocka_unit_test(noise_that_cannot_be_made_is_told),
        cmocka_unit_test(cifar_that_cannot_be_read_is_told),
        cmocka_unit_test(pictures_that_cannot_be_listed_are_told),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
