/* The child process that looks through a stranger's file: its end, however bad, is one status here. */
#include "dataset_pack.h"
#include "golden.h"
#include "places.h"
#include "screen.h"
#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[64], beside[80];

static int make_file(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/var/tmp/mdm-screen-XXXXXX");
    int descriptor = mkstemp(path);
    if (descriptor < 0) return 1;
    close(descriptor);
    snprintf(beside, sizeof beside, "%s.written", path);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    return file < 0 || H5Fclose(file) < 0;
}

static int remove_file(void **state) {
    (void)state;
    unlink(beside);
    return unlink(path);
}

static mdm_status find_nothing(const char *name, mdm_text *found) {
    (void)found;
    return strcmp(name, path) == 0 ? MDM_OK : mdm_fail(MDM_USAGE, "another path");
}

static mdm_status find_a_fault(const char *name, mdm_text *found) {
    (void)found;
    return mdm_fail(MDM_INPUT, "%s: the labels are wrong", name);
}

static mdm_status crash(const char *name, mdm_text *found) {
    (void)found;
    (void)name;
    raise(SIGSEGV);
    return MDM_OK;
}

static mdm_status leave(const char *name, mdm_text *found) {
    (void)found;
    (void)name;
    _exit(0); /* without an answer */
}

static mdm_status take_memory(const char *name, mdm_text *found) {
    (void)found;
    (void)name;
    for (int i = 0; i < 1 << 20; i++) {
        char *piece = malloc((size_t)1 << 30);
        if (!piece) return mdm_fail(MDM_RESOURCE, "no memory after %d GiB", i);
    }
    return MDM_OK;
}

static mdm_status write_a_file(const char *name, mdm_text *found) {
    (void)found;
    (void)name;
    signal(SIGXFSZ, SIG_IGN);
    int descriptor = open(beside, O_WRONLY | O_CREAT, 0600);
    ssize_t put = descriptor < 0 ? -1 : write(descriptor, "x", 1);
    return put == 1 ? MDM_OK : mdm_fail(MDM_INPUT, "nothing can be written");
}

static mdm_status find_much(const char *name, mdm_text *found) {
    (void)name;
    for (int i = 0; i < 100000; i++) mdm_text_add(found, "%d,", i); /* more than a pipe holds */
    return MDM_OK;
}

static mdm_status screen(mdm_status (*examine)(const char *name, mdm_text *found)) {
    mdm_text found = {0};
    mdm_status status = mdm_screen_file(path, examine, &found);
    free(found.data);
    return status;
}

static void what_the_child_finds_is_told(void **state) {
    (void)state;
    assert_int_equal(screen(find_nothing), MDM_OK);
    assert_int_equal(screen(find_a_fault), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "the labels are wrong"));
}

static void a_crash_is_a_bad_file(void **state) {
    (void)state;
    assert_int_equal(screen(crash), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "is refused"));
    assert_int_equal(screen(leave), MDM_INPUT);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void the_child_can_neither_fill_memory_nor_write(void **state) {
    (void)state;
    assert_int_equal(screen(take_memory), MDM_INPUT);
    const char *after = strstr(mdm_last_message(), "no memory after ");
    assert_non_null(after);
    assert_true(atoi(after + 16) <= 4); /* the machine's own address space ends much later */
    assert_int_equal(screen(write_a_file), MDM_INPUT);
}

static void what_the_child_found_comes_back(void **state) {
    (void)state;
    mdm_text here = {0}, there = {0};
    assert_int_equal(find_much(path, &here), MDM_OK);
    assert_int_equal(mdm_screen_file(path, find_much, &there), MDM_OK);
    assert_int_equal(there.length, here.length);
    assert_memory_equal(there.data, here.data, here.length);
    free(here.data);
    free(there.data);
}

static mdm_dataset *small_set(void) {
    mdm_dataset *d;
    const char *const names[2] = {"shirt", "shoe"};
    assert_int_equal(mdm_dataset_create(3, 2, 4, 4, 1, 2, 1, &d), MDM_OK);
    for (int i = 0; i < 3; i++) d->train_labels[i] = i % 2, d->true_labels[i] = i % 2 - 1;
    d->test_labels[1] = 1;
    d->mean[0] = d->std[0] = 0.5f;
    assert_int_equal(mdm_dataset_set_class_names(d, names, 2), MDM_OK);
    assert_int_equal(mdm_dataset_add_note(d, "made by", "a test"), MDM_OK);
    return d;
}

enum { FILE_BYTES = 1000 };

static mdm_status unpack(const mdm_text *packed, size_t bytes) {
    mdm_dataset *d;
    int has_statistics;
    mdm_status status = mdm_dataset_unpack("x.h5", FILE_BYTES, packed->data, bytes, &d, &has_statistics);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status unpack_changed(mdm_dataset *d) {
    mdm_text packed = {0};
    mdm_dataset_pack(d, 1, &packed);
    mdm_status status = unpack(&packed, packed.length);
    free(packed.data);
    return status;
}

static mdm_places *places_of(mdm_dataset *d, int split, mdm_places_kind kind, int64_t entries) {
    const mdm_places shape = {.kind = (int32_t)kind,
                              .split = split,
                              .count = split ? d->test_count : d->train_count,
                              .height = d->height,
                              .width = d->width,
                              .channels = d->channels,
                              .begin = 100,
                              .chunk = {2, 4, 4, 1}};
    free(d->places[split]);
    assert_int_equal(mdm_places_create(&shape, entries, &d->places[split]), MDM_OK);
    return d->places[split];
}

static void what_the_child_found_is_not_taken_on_trust(void **state) {
    (void)state;
    mdm_dataset *d = small_set(), *again;
    int has_statistics;
    mdm_text packed = {0};
    places_of(d, 0, MDM_PLACES_PLAIN, 0);
    places_of(d, 1, MDM_PLACES_PLAIN, 0)->begin = 200;
    mdm_dataset_pack(d, 1, &packed);
    assert_int_equal(
        mdm_dataset_unpack("x.h5", FILE_BYTES, packed.data, packed.length, &again, &has_statistics), MDM_OK);
    assert_memory_equal(again->true_labels, d->true_labels, 12);
    assert_string_equal(again->class_names[1], "shoe");
    assert_string_equal(again->notes[0].value, "a test");
    assert_int_equal(again->places[1]->begin, 200);
    assert_true(has_statistics);
    mdm_dataset_destroy(again);
    for (size_t bytes = 0; bytes < packed.length; bytes++)
        assert_int_equal(unpack(&packed, bytes), MDM_INPUT);
    free(packed.data);
    d->test_labels[0] = 2;
    assert_int_equal(unpack_changed(d), MDM_INPUT);
    d->test_labels[0] = 0;
    d->true_labels[0] = -2;
    assert_int_equal(unpack_changed(d), MDM_INPUT);
    d->true_labels[0] = 0;
    d->channels = 2;
    assert_int_equal(unpack_changed(d), MDM_INPUT);
    d->channels = 1;
    assert_int_equal(unpack_changed(d), MDM_OK);
    mdm_dataset_destroy(d);
}

/* Sets a number of the training set's places, and sets it back. */
static void expect_refused(mdm_dataset *d, void *number, size_t bytes, int64_t value) {
    int64_t before = 0;
    memcpy(&before, number, bytes);
    memcpy(number, &value, bytes);
    if (unpack_changed(d) != MDM_INPUT) fail_msg("%lld is taken", (long long)value);
    memcpy(number, &before, bytes);
    assert_int_equal(unpack_changed(d), MDM_OK);
}
#define REFUSED(number, value) expect_refused(d, &(number), sizeof(number), (value))

static void places_that_cannot_be_are_refused(void **state) {
    (void)state;
    mdm_dataset *d = small_set();
    places_of(d, 1, MDM_PLACES_PLAIN, 0);
    mdm_places *p = places_of(d, 0, MDM_PLACES_PLAIN, 0);
    REFUSED(p->begin, FILE_BYTES - 47);
    REFUSED(p->begin, -1);
    REFUSED(p->count, 4);
    REFUSED(p->width, 3);
    REFUSED(p->split, 1);
    REFUSED(p->kind, 3);
    REFUSED(p->entry_count, 1);
    REFUSED(d->places[1]->begin, FILE_BYTES + 1);
    p = places_of(d, 0, MDM_PLACES_ENCODED, 4);
    for (int i = 0; i < 4; i++) p->entries[i] = 10 * i;
    REFUSED(p->begin, FILE_BYTES - 29);
    REFUSED(p->entries[0], 1);
    REFUSED(p->entries[1], 20);
    REFUSED(p->entries[3], INT64_MAX);
    p = places_of(d, 0, MDM_PLACES_CHUNKED, 4);
    mdm_places_set_chunk(p, 0, (mdm_chunk_place){FILE_BYTES - 32, 32, 0});
    mdm_places_set_chunk(p, 1, (mdm_chunk_place){MDM_PLACE_NOWHERE, 0, 0});
    REFUSED(p->entries[0], FILE_BYTES - 31);
    REFUSED(p->entries[0], MDM_PLACE_HERE);
    REFUSED(p->entries[0], INT64_MAX);
    REFUSED(p->entries[1], FILE_BYTES + 1);
    REFUSED(p->chunk[0], 1);
    REFUSED(p->chunk[0], 0);
    REFUSED(p->chunk[1], (int64_t)1 << 40);
    REFUSED(p->filter_count, MDM_MOST_FILTERS + 1);
    REFUSED(p->fill, 256);
    p = places_of(d, 0, MDM_PLACES_CHUNKED, 2 + 6);
    p->chunk[0] = 3;
    mdm_places_set_chunk(p, 0, (mdm_chunk_place){MDM_PLACE_HERE, 48, 0});
    REFUSED(p->entries[1], 47);
    REFUSED(p->chunk[0], 4);
    mdm_dataset_destroy(d);
}

/* A data set of that size in a file of its own; what is not said is as usual. */
typedef struct oddity {
    const char *words;
    hsize_t count, chunk;
    int filtered, external, is_virtual, cut;
} oddity;

static void make_odd_file(const oddity *o) {
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, &o->count, NULL);
    if (o->chunk) assert_true(H5Pset_chunk(plist, 1, &o->chunk) >= 0);
    if (o->filtered) assert_true(H5Pset_nbit(plist) >= 0);
    if (o->external) assert_true(H5Pset_external(plist, beside, 0, o->count) >= 0);
    if (o->is_virtual) assert_true(H5Pset_virtual(plist, space, "other.h5", "/a", space) >= 0);
    if (o->cut) assert_true(H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY) >= 0);
    hid_t array = H5Dcreate2(file, "odd", H5T_STD_U8LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(array >= 0);
    haddr_t place = H5Dget_offset(array);
    H5Dclose(array);
    H5Sclose(space);
    H5Pclose(plist);
    assert_true(H5Fclose(file) >= 0);
    if (!o->cut) return;
    /* the superblock says, at byte 40, where the file ends */
    const uint64_t shorter = place + o->count / 2;
    int descriptor = open(path, O_WRONLY);
    assert_int_equal(pwrite(descriptor, &shorter, sizeof shorter, 40), sizeof shorter);
    assert_int_equal(ftruncate(descriptor, (off_t)shorter), 0);
    close(descriptor);
}

static void what_no_data_set_needs_is_refused_by_name(void **state) {
    (void)state;
    static const oddity cases[] = {
        {"/odd uses filter 5, which is refused", 64, 64, 1, 0, 0, 0},
        {"/odd keeps its values in other files", 64, 0, 0, 1, 0, 0},
        {"/odd is a virtual data set", 64, 0, 0, 0, 1, 0},
        {"the chunks of /odd are impossibly large", 1 << 30, 1 << 30, 0, 0, 0, 0},
        {"/odd announces more data than the file holds", 1 << 30, 64, 0, 0, 0, 0},
#if H5_VERSION_GE(1, 14, 0) /* does not open it */
        {"/odd cannot be opened as a data set; the file is damaged", 100000, 0, 0, 0, 0, 1},
#else
        {"was cut short: /odd should hold 100000 bytes", 100000, 0, 0, 0, 0, 1},
#endif
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_odd_file(&cases[i]);
        assert_int_equal(screen(find_nothing), MDM_INPUT);
        if (!strstr(mdm_last_message(), cases[i].words))
            fail_msg("\"%s\" is not in: %s", cases[i].words, mdm_last_message());
    }
}

static void links_without_end_are_refused(void **state) {
    (void)state;
    enum { LINKS = 100001 };
    char name[16];
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST); /* which is fast with many */
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Gclose(H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    for (int i = 0; i < LINKS; i++) {
        snprintf(name, sizeof name, "%d", i);
        if (H5Lcreate_hard(file, "group", file, name, H5P_DEFAULT, H5P_DEFAULT) < 0) fail();
    }
    assert_true(H5Fclose(file) >= 0);
    H5Pclose(access);
    assert_int_equal(screen(find_nothing), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "holds more than 100000 objects"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_the_child_finds_is_told),
                                       cmocka_unit_test(what_the_child_found_comes_back),
                                       cmocka_unit_test(what_the_child_found_is_not_taken_on_trust),
                                       cmocka_unit_test(places_that_cannot_be_are_refused),
                                       cmocka_unit_test(a_crash_is_a_bad_file),
                                       cmocka_unit_test(the_child_can_neither_fill_memory_nor_write),
                                       cmocka_unit_test(what_no_data_set_needs_is_refused_by_name),
                                       cmocka_unit_test(links_without_end_are_refused)};
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
