/* Data set files: what is written is read again, other writers' types are understood, and everything that can
 * be wrong is told in one line that names the file, the data set and the reason. */
#include "dataset_test.h"
#include "places.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRAIN = 20, TEST = 6, H = 4, W = 5, C = 3, CLASSES = 4 };

static char folder[256];

static const char *path_of(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static mdm_dataset *named_dataset(void) {
    static const char *const names[CLASSES] = {"ant", "bee", "caf\xc3\xa9", ""};
    mdm_dataset *d = small_dataset(TRAIN, TEST, H, W, C, CLASSES);
    assert_int_equal(mdm_dataset_set_class_names(d, names, CLASSES), MDM_OK);
    assert_int_equal(MDM_ALLOCATE(d->ids, TRAIN, "ids"), MDM_OK);
    for (int i = 0; i < TRAIN; i++) {
        char id[32];
        snprintf(id, sizeof id, "%*d", 1 + i % 9, i);
        d->ids[i] = strdup(id);
    }
    assert_int_equal(mdm_dataset_add_note(d, "source", "a test"), MDM_OK);
    return d;
}

static void assert_same_dataset(const mdm_dataset *a, const mdm_dataset *b) {
    size_t bytes = (size_t)a->height * (size_t)a->width * (size_t)a->channels;
    assert_true(a->train_count == b->train_count && a->test_count == b->test_count &&
                a->classes == b->classes);
    assert_true(a->height == b->height && a->width == b->width && a->channels == b->channels);
    assert_memory_equal(a->train_images, b->train_images, bytes * (size_t)a->train_count);
    assert_memory_equal(a->test_images, b->test_images, bytes * (size_t)a->test_count);
    assert_memory_equal(a->train_labels, b->train_labels, 4 * (size_t)a->train_count);
    assert_memory_equal(a->true_labels, b->true_labels, 4 * (size_t)a->train_count);
    assert_memory_equal(a->test_labels, b->test_labels, 4 * (size_t)a->test_count);
    assert_memory_equal(a->mean, b->mean, sizeof a->mean);
    assert_memory_equal(a->std, b->std, sizeof a->std);
}

static void what_is_written_is_read_again(void **state) {
    (void)state;
    mdm_dataset *d = named_dataset(), *again;
    assert_int_equal(mdm_dataset_write(path_of("a.h5"), d, 1), MDM_OK);
    assert_int_equal(mdm_dataset_read(path_of("a.h5"), &again), MDM_OK);
    assert_same_dataset(d, again);
    for (int i = 0; i < TRAIN; i++) assert_string_equal(d->ids[i], again->ids[i]);
    for (int c = 0; c < CLASSES; c++) assert_string_equal(d->class_names[c], again->class_names[c]);
    assert_int_equal(again->note_count, 1);
    assert_string_equal(again->notes[0].key, "source");
    assert_string_equal(again->notes[0].value, "a test");
    mdm_dataset_destroy(again);
    mdm_dataset_destroy(d);
}

static char *content_of(const char *path, long *size) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *size = ftell(file);
    rewind(file);
    char *content = malloc((size_t)*size);
    assert_int_equal(fread(content, 1, (size_t)*size, file), *size);
    fclose(file);
    return content;
}

static void the_same_data_set_gives_the_same_bytes(void **state) {
    (void)state;
    mdm_dataset *d = named_dataset();
    long sizes[2];
    assert_int_equal(mdm_dataset_write(path_of("a.h5"), d, 1), MDM_OK);
    sleep(1); /* a time stamp would have seconds */
    assert_int_equal(mdm_dataset_write(path_of("b.h5"), d, 1), MDM_OK);
    char *a = content_of(path_of("a.h5"), &sizes[0]), *b = content_of(path_of("b.h5"), &sizes[1]);
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(a, b, (size_t)sizes[0]);
    free(a);
    free(b);
    mdm_dataset_destroy(d);
}

static void an_existing_file_is_replaced_by_force_only_and_a_failed_write_leaves_nothing(void **state) {
    (void)state;
    mdm_dataset *d = named_dataset(), *again;
    assert_int_equal(mdm_dataset_write(path_of("a.h5"), d, 1), MDM_OK);
    d->train_labels[0] = 3;
    assert_int_equal(mdm_dataset_write(path_of("a.h5"), d, 0), MDM_USAGE);
    assert_non_null(strstr(mdm_last_message(), "a.h5 exists; --force"));
    assert_int_equal(mdm_dataset_read(path_of("a.h5"), &again), MDM_OK);
    assert_int_equal(again->train_labels[0], 0);
    mdm_dataset_destroy(again);
    assert_int_equal(mdm_dataset_write(path_of("a.h5"), d, 1), MDM_OK);
    assert_int_equal(mdm_dataset_read(path_of("a.h5"), &again), MDM_OK);
    assert_int_equal(again->train_labels[0], 3);
    mdm_dataset_destroy(again);
    assert_int_equal(mdm_dataset_write(path_of("nowhere/a.h5"), d, 0), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "nowhere/a.h5"));
    assert_int_equal(mkdir(path_of("full"), 0700), 0);
    assert_int_equal(mdm_dataset_write(path_of("full"), d, 1),
                     MDM_RESOURCE); /* a folder cannot be replaced */
    assert_int_equal(rmdir(path_of("full")), 0);
    mdm_dataset_destroy(d);
}

static void a_file_is_written_into_the_present_folder_too_and_has_room_for_so_many_notes(void **state) {
    (void)state;
    char key[16];
    mdm_dataset *d = small_dataset(TRAIN, TEST, H, W, C, CLASSES), *again;
    for (int i = 0; i < MDM_MOST_NOTES; i++) {
        snprintf(key, sizeof key, "note-%d", i);
        assert_int_equal(mdm_dataset_add_note(d, key, "text"), MDM_OK);
    }
    assert_int_equal(mdm_dataset_add_note(d, "one", "more"), MDM_USAGE);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(mdm_dataset_write("a.h5", d, 1), MDM_OK);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(mdm_dataset_read(path_of("a.h5"), &again), MDM_OK);
    assert_int_equal(again->note_count, MDM_MOST_NOTES);
    mdm_dataset_destroy(again);
    mdm_dataset_destroy(d);
}

static void statistics_are_those_of_the_pixels(void **state) {
    (void)state;
    mdm_dataset *d = small_dataset(TRAIN, 0, H, W, C, CLASSES), *again;
    for (int c = 0; c < C; c++) {
        double sum = 0, square = 0;
        for (int64_t i = 0; i < TRAIN * H * W; i++) sum += d->train_images[i * C + c] / 255.0;
        double mean = sum / (TRAIN * H * W);
        for (int64_t i = 0; i < TRAIN * H * W; i++)
            square += pow(d->train_images[i * C + c] / 255.0 - mean, 2);
        assert_float_equal(d->mean[c], mean, 1e-6);
        assert_float_equal(d->std[c], sqrt(square / (TRAIN * H * W)), 1e-6);
    }
    float mean[3], std[3];
    memcpy(mean, d->mean, sizeof mean);
    memcpy(std, d->std, sizeof std);
    memset(d->std, 0, sizeof d->std); /* not known yet: computed when written */
    assert_int_equal(mdm_dataset_write(path_of("a.h5"), d, 1), MDM_OK);
    for (int pictures = 0; pictures < 2; pictures++) {
        hid_t file = H5Fopen(path_of("a.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
        if (pictures) assert_true(H5Adelete(file, "mean") >= 0); /* then both are computed from the file */
        H5Fclose(file);
        assert_int_equal(pictures ? mdm_dataset_read(path_of("a.h5"), &again)
                                  : mdm_dataset_read_labels(path_of("a.h5"), &again),
                         MDM_OK);
        assert_memory_equal(again->mean, mean, sizeof mean);
        assert_memory_equal(again->std, std, sizeof std);
        mdm_dataset_destroy(again);
    }
    memset(d->train_images, 7, (size_t)TRAIN * H * W * C);
    mdm_dataset_statistics(d);
    for (int c = 0; c < C; c++) assert_float_equal(d->std[c], 1.0f, 0);
    mdm_dataset_destroy(d);
}

/* A sound file with its parts to be spoilt, and the data set it holds. */
static hid_t open_sound(mdm_dataset **d, const char *name) {
    *d = small_dataset(TRAIN, TEST, H, W, C, CLASSES);
    assert_int_equal(mdm_dataset_write(path_of(name), *d, 1), MDM_OK);
    hid_t file = H5Fopen(path_of(name), H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void files_of_other_writers_are_understood(void **state) {
    (void)state;
    mdm_dataset *d, *again;
    hid_t file = open_sound(&d, "a.h5");
    hsize_t count = TRAIN, classes = CLASSES;
    uint8_t narrow[TRAIN];
    int64_t wide[TRAIN];
    const char *ids[TRAIN], *names[CLASSES] = {"w", "xx", "yyy", ""};
    for (int i = 0; i < TRAIN; i++) {
        narrow[i] = (uint8_t)d->train_labels[i];
        wide[i] = d->true_labels[i];
        ids[i] = i % 2 ? "odd" : "even";
    }
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    put(file, "/train/labels", 1, &count, H5T_NATIVE_UINT8, narrow, 0);
    put(file, "/train/true_labels", 1, &count, H5T_NATIVE_INT64, wide, 7);
    put(file, "/train/ids", 1, &count, text, ids, 0);
    put(file, "/class_names", 1, &classes, text, names, 0);
    put_attribute(file, "note", text, 0, &(const char *){"from elsewhere"});
    H5Adelete(file, "format"); /* six lines of h5py need not know of it */
    H5Adelete(file, "format_version");
    H5Fclose(file);
    compress(path_of("a.h5"), d, 6);
    assert_int_equal(mdm_dataset_read(path_of("a.h5"), &again), MDM_OK);
    assert_same_dataset(d, again);
    assert_string_equal(again->ids[7], "odd");
    assert_string_equal(again->class_names[2], "yyy");
    assert_string_equal(again->class_names[3], "");
    assert_int_equal(again->note_count, 1);
    assert_string_equal(again->notes[0].value, "from elsewhere");
    mdm_dataset_destroy(again);
    H5Tclose(text);
    mdm_dataset_destroy(d);
}

static void the_place_of_pictures_counts_from_the_files_beginning(void **state) {
    (void)state;
    mdm_dataset *d = small_dataset(TRAIN, TEST, H, W, C, CLASSES), *again;
    hid_t plist = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_userblock(plist, 1024);
    hid_t file = H5Fcreate(path_of("a.h5"), H5F_ACC_TRUNC, plist, H5P_DEFAULT);
    hsize_t dims[4] = {TRAIN, H, W, C};
    H5Gclose(H5Gcreate2(file, "/train", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    put(file, "/train/images", 4, dims, H5T_STD_U8LE, d->train_images, 0);
    put(file, "/train/labels", 1, dims, H5T_STD_I32LE, d->train_labels, 0);
    H5Fclose(file);
    H5Pclose(plist);
    assert_int_equal(mdm_dataset_read_labels(path_of("a.h5"), &again), MDM_OK);
    long size;
    char *content = content_of(path_of("a.h5"), &size);
    assert_true(again->places[0]->begin > 1024 && !again->places[1]);
    assert_memory_equal(content + again->places[0]->begin, d->train_images, (size_t)TRAIN * H * W * C);
    uint8_t some[3 * H * W * C];
    assert_int_equal(mdm_dataset_read_images(path_of("a.h5"), again, 0, 17, 3, some), MDM_OK);
    assert_memory_equal(some, d->train_images + 17 * H * W * C, sizeof some);
    assert_int_equal(truncate(path_of("a.h5"), again->places[0]->begin + 20 * H * W * C - 1), 0);
    assert_int_equal(mdm_dataset_read_images(path_of("a.h5"), again, 0, 17, 3, some), MDM_INPUT);
    free(content);
    mdm_dataset_destroy(again);
    mdm_dataset_destroy(d);
}

static const char *const damages[][2] = {
    {"no train images", "/train/images is missing"},
    {"no train labels", "/train/labels is missing"},
    {"no test labels", "/test/labels is missing"},
    {"no train group", "/train/images is missing"},
    {"float images", "/train/images has the wrong type; expected uint8"},
    {"signed images", "/train/images has the wrong type; expected uint8"},
    {"flat images", "/train/images has 2 dimensions, expected 4"},
    {"two channels", "/train/images has 2 channels"},
    {"no samples", "/train/images holds no samples"},
    {"no height", "/train/images has the impossible shape [20,0,5,3]"},
    {"test shape", "/test/images holds pictures of"},
    {"images are a group", "/train/images cannot be opened as a data set"},
    {"float labels", "/train/labels has the wrong type; expected integers"},
    {"short labels", "/train/labels has 19 entries for 20 pictures"},
    {"scalar labels", "/train/labels has 0 dimensions, expected 1"},
    {"negative label", "/train/labels of sample 13 is -1"},
    {"huge label", "/train/labels of sample 13 is 4294967296"},
    {"label beyond names", "/train/labels of sample 3 is 3, but class_names has 3 classes"},
    {"test label beyond names", "/test/labels of sample 2 is 3, but class_names has 3 classes"},
    {"true label -2", "/train/true_labels of sample 13 is -2"},
    {"true label beyond classes", "/train/true_labels of sample 13 is 4"},
    {"one class", "all labels are 0; at least 2 classes"},
    {"one class name", "class_names has a single class"},
    {"empty names", "/class_names is empty"},
    {"short ids", "/train/ids has 19 entries, expected 20"},
    {"number ids", "/train/ids must hold strings"},
    {"nan mean", "the attribute mean must hold 3 finite numbers"},
    {"zero std", "the attribute std must hold 3 finite numbers above 0"},
    {"two means", "the attribute mean must hold 3 finite numbers"},
    {"many means", "the attribute mean must hold 3 finite numbers"},
    {"text std", "the attribute std must hold 3"},
    {"other format", "the attribute format is not \"mdm-dataset\""},
    {"list of formats", "the attribute format is not \"mdm-dataset\""},
    {"version 2", "has format_version 2; this program reads version 1"},
    {"list of versions", "format_version 0; this program reads version 1"},
    {"external link", "is a link into another file, which is refused"},
    {"dangling link", "is a link, which is refused"},
};

static int is(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

static void spoil_images(hid_t file, const char *how) {
    float pixels[TRAIN * H * W * C] = {0};
    hsize_t dims[4] = {TRAIN, H, W, C};
    const char *name = is(how, "test shape") ? "/test/images" : "/train/images";
    hid_t type = is(how, "float images")    ? H5T_NATIVE_FLOAT
                 : is(how, "signed images") ? H5T_STD_I8LE
                                            : H5T_STD_U8LE;
    if (is(how, "two channels")) dims[3] = 2;
    if (is(how, "no samples")) dims[0] = 0;
    if (is(how, "no height")) dims[1] = 0;
    if (is(how, "test shape")) dims[0] = TEST, dims[1] = H + 1;
    if (is(how, "flat images")) dims[1] = H * W * C;
    put(file, name, is(how, "flat images") ? 2 : 4, dims, type, strncmp(how, "no ", 3) == 0 ? NULL : pixels,
        0);
}

static void spoil_labels(hid_t file, const char *how) {
    int64_t labels[TRAIN];
    float reals[TRAIN] = {0};
    hsize_t count = TRAIN, test = TEST;
    for (int i = 0; i < TRAIN; i++) labels[i] = is(how, "one class") ? 0 : i % CLASSES;
    if (is(how, "short labels")) count--;
    if (is(how, "negative label")) labels[13] = -1;
    if (is(how, "huge label")) labels[13] = 4294967296;
    if (is(how, "true label -2")) labels[13] = -2;
    if (is(how, "true label beyond classes")) labels[13] = CLASSES;
    const char *name = strstr(how, "true label") ? "/train/true_labels" : "/train/labels";
    if (is(how, "one class")) {
        put(file, "/test/labels", 1, &test, H5T_NATIVE_INT64, labels, 0);
        put(file, "/train/true_labels", 1, &count, H5T_NATIVE_INT64, labels, 0);
    }
    if (is(how, "float labels"))
        put(file, name, 1, &count, H5T_NATIVE_FLOAT, reals, 0);
    else
        put(file, name, is(how, "scalar labels") ? 0 : 1, &count, H5T_NATIVE_INT64, labels, 0);
}

static void spoil_names(hid_t file, const char *how) {
    char strings[TRAIN * 4] = "";
    int32_t below[TRAIN] = {0};
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 4);
    hsize_t count = is(how, "one class name") ? 1
                    : is(how, "empty names")  ? 0
                    : is(how, "short ids")    ? TRAIN - 1
                    : is(how, "number ids")   ? TRAIN
                                              : 3;
    if (is(how, "number ids"))
        put(file, "/train/ids", 1, &count, H5T_NATIVE_INT32, below, 0);
    else
        put(file, strstr(how, "ids") ? "/train/ids" : "/class_names", 1, &count, text, strings, 0);
    if (!strstr(how, "label beyond names")) count = TRAIN;
    if (is(how, "test label beyond names") || is(how, "one class name")) {
        hsize_t train = TRAIN;
        put(file, "/train/labels", 1, &train, H5T_NATIVE_INT32, below, 0);
        put(file, "/train/true_labels", 1, &train, H5T_NATIVE_INT32, below, 0);
    }
    if (is(how, "one class name")) {
        hsize_t test = TEST;
        put(file, "/test/labels", 1, &test, H5T_NATIVE_INT32, below, 0);
    }
    H5Tclose(text);
}

static void spoil_attributes(hid_t file, const char *how) {
    float numbers[100] = {0.5f, 0.5f, 0.5f};
    int versions[100] = {1, 1};
    char formats[100 * 32] = "other";
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 32);
    if (is(how, "nan mean")) numbers[1] = NAN;
    if (is(how, "zero std")) numbers[1] = 0;
    if (is(how, "version 2")) versions[0] = 2;
    if (is(how, "list of formats")) snprintf(formats, sizeof formats, "mdm-dataset");
    int count = is(how, "two means") ? 2 : is(how, "many means") ? 100 : 3;
    if (strstr(how, "mean"))
        put_attribute(file, "mean", H5T_NATIVE_FLOAT, count, numbers);
    else if (is(how, "zero std"))
        put_attribute(file, "std", H5T_NATIVE_FLOAT, 3, numbers);
    else if (is(how, "text std"))
        put_attribute(file, "std", text, 3, formats);
    else if (strstr(how, "format"))
        put_attribute(file, "format", text, is(how, "other format") ? 0 : 100, formats);
    else
        put_attribute(file, "format_version", H5T_NATIVE_INT, is(how, "version 2") ? 0 : 100, versions);
    H5Tclose(text);
}

static void spoil_links(hid_t file, const char *how) {
    const char *name = is(how, "no train labels")  ? "/train/labels"
                       : is(how, "no test labels") ? "/test/labels"
                       : is(how, "no train group") ? "/train"
                                                   : "/train/images";
    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    if (is(how, "images are a group"))
        H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    if (is(how, "external link"))
        H5Lcreate_external(path_of("b.h5"), name, file, name, H5P_DEFAULT, H5P_DEFAULT);
    if (is(how, "dangling link")) H5Lcreate_soft("/nowhere", file, name, H5P_DEFAULT, H5P_DEFAULT);
}

static void every_damage_is_told_in_one_line_with_file_and_data_set(void **state) {
    (void)state;
    mdm_dataset *other = small_dataset(TRAIN, TEST, H, W, C, CLASSES);
    assert_int_equal(mdm_dataset_write(path_of("b.h5"), other, 1), MDM_OK);
    mdm_dataset_destroy(other);
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        const char *how = damages[i][0];
        mdm_dataset *d, *read;
        hid_t file = open_sound(&d, "a.h5");
        if (strncmp(how, "no t", 4) == 0)
            spoil_links(file, how);
        else if (strstr(how, "link") || strstr(how, "group"))
            spoil_links(file, how);
        else if (strstr(how, "names") || strstr(how, "name") || strstr(how, "ids"))
            spoil_names(file, how);
        else if (strstr(how, "label") || is(how, "one class"))
            spoil_labels(file, how);
        else if (strstr(how, "mean") || strstr(how, "std") || strstr(how, "format") || strstr(how, "version"))
            spoil_attributes(file, how);
        else
            spoil_images(file, how);
        assert_true(H5Fclose(file) >= 0);
        for (int pictures = 0; pictures < 2; pictures++) {
            mdm_status status = pictures ? mdm_dataset_read(path_of("a.h5"), &read)
                                         : mdm_dataset_read_labels(path_of("a.h5"), &read);
            if (status != MDM_INPUT || !strstr(mdm_last_message(), damages[i][1]) ||
                !strstr(mdm_last_message(), "a.h5") || strchr(mdm_last_message(), '\n'))
                fail_msg("%s: status %d, message \"%s\"", how, status, mdm_last_message());
            assert_null(read);
        }
        mdm_dataset_destroy(d);
    }
}

static void pictures_in_another_file_are_refused_without_a_look_at_it(void **state) {
    (void)state;
    mdm_dataset *d, *read;
    hid_t file = open_sound(&d, "a.h5"), plist = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t dims[4] = {TRAIN, H, W, C};
    assert_true(H5Pset_external(plist, path_of("b.h5"), 0, TRAIN * H * W * C) >= 0);
    assert_true(H5Ldelete(file, "/train/images", H5P_DEFAULT) >= 0);
    hid_t space = H5Screate_simple(4, dims, NULL);
    H5Dclose(H5Dcreate2(file, "/train/images", H5T_STD_U8LE, space, H5P_DEFAULT, plist, H5P_DEFAULT));
    H5Sclose(space);
    H5Pclose(plist);
    assert_true(H5Fclose(file) >= 0);
    assert_int_equal(mdm_dataset_read_labels(path_of("a.h5"), &read), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "/train/images keeps its values in other files"));
    mdm_dataset_destroy(d);
}

static void what_is_no_file_or_no_hdf5_is_told(void **state) {
    (void)state;
    mdm_dataset *read;
    assert_int_equal(mdm_dataset_read(path_of("nowhere.h5"), &read), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "nowhere.h5: no such data set file"));
    assert_int_equal(mdm_dataset_read(folder, &read), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "is a folder, not a data set file; mdm-dist data import"));
    assert_int_equal(mdm_dataset_read("/dev/null", &read), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "is not a file"));
    for (int empty = 0; empty < 2; empty++) {
        FILE *file = fopen(path_of("a.h5"), "wb");
        if (!empty) fprintf(file, "label,path\n0,a.png\n");
        fclose(file);
        assert_int_equal(mdm_dataset_read(path_of("a.h5"), &read), MDM_INPUT);
        assert_non_null(strstr(mdm_last_message(), "is not an HDF5 file"));
    }
}

static void a_file_cut_anywhere_is_refused_without_a_crash(void **state) {
    (void)state;
    mdm_dataset *d = named_dataset(), *read;
    long size;
    assert_int_equal(mdm_dataset_write(path_of("a.h5"), d, 1), MDM_OK);
    char *content = content_of(path_of("a.h5"), &size);
    for (long keep = 0; keep < size; keep += 61) {
        FILE *file = fopen(path_of("b.h5"), "wb");
        assert_int_equal(fwrite(content, 1, (size_t)keep, file), keep);
        fclose(file);
        assert_int_equal(mdm_dataset_read(path_of("b.h5"), &read), MDM_INPUT);
        assert_int_equal(mdm_dataset_read_labels(path_of("b.h5"), &read), MDM_INPUT);
        assert_non_null(strstr(mdm_last_message(), "b.h5"));
    }
    free(content);
    mdm_dataset_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(the_same_data_set_gives_the_same_bytes),
        cmocka_unit_test(an_existing_file_is_replaced_by_force_only_and_a_failed_write_leaves_nothing),
        cmocka_unit_test(a_file_is_written_into_the_present_folder_too_and_has_room_for_so_many_notes),
        cmocka_unit_test(statistics_are_those_of_the_pixels),
        cmocka_unit_test(files_of_other_writers_are_understood),
        cmocka_unit_test(the_place_of_pictures_counts_from_the_files_beginning),
        cmocka_unit_test(every_damage_is_told_in_one_line_with_file_and_data_set),
        cmocka_unit_test(pictures_in_another_file_are_refused_without_a_look_at_it),
        cmocka_unit_test(what_is_no_file_or_no_hdf5_is_told),
        cmocka_unit_test(a_file_cut_anywhere_is_refused_without_a_crash),
    };
    const char *place = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/mdm-dataset-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path_of("a.h5"));
    unlink(path_of("b.h5"));
    if (rmdir(folder) != 0 && !failed) {
        fprintf(stderr, "a temporary file was left in %s\n", folder); /* by a failed write */
        return 1;
    }
    return failed;
}
