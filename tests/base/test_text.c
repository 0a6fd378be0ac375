/* Names, quoting, files and JSON text, and the status messages. */
#include "golden.h"

#include "mdm/base/text.h"
#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/mdm-test-text-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static int entries_of(const char *path) {
    DIR *listing = opendir(path);
    assert_non_null(listing);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

static void failures_keep_their_code_and_one_line_of_text(void **state) {
    (void)state;
    assert_int_equal(mdm_fail(MDM_INPUT, "bad %s\nline two\n", "file"), MDM_INPUT);
    assert_string_equal(mdm_last_message(), "bad file line two");
    assert_int_equal(mdm_fail(MDM_LOST, "rank 3: %s", mdm_last_message()), MDM_LOST);
    assert_string_equal(mdm_last_message(), "rank 3: bad file line two");
    char *long_text = malloc(5000);
    assert_non_null(long_text);
    memset(long_text, 'x', 4999);
    long_text[4999] = '\0';
    assert_int_equal(mdm_fail(MDM_USAGE, "%s", long_text), MDM_USAGE);
    assert_int_equal(strlen(mdm_last_message()), 1023);
    assert_string_equal(mdm_last_message() + 1020, "...");
    free(long_text);
}

static void allocated_memory_is_zero_and_aligned_and_impossible_sizes_are_refused(void **state) {
    (void)state;
    double *values;
    assert_int_equal(MDM_ALLOCATE(values, 1001, "values"), MDM_OK);
    assert_int_equal((uintptr_t)values % 64, 0);
    for (int i = 0; i < 1001; i++) assert_true(values[i] == 0.0);
    free(values);
    assert_int_equal(MDM_ALLOCATE(values, 1, "a value"), MDM_OK);
    assert_true(malloc_usable_size(values) < 64); /* no room behind it that hides what is written there */
    free(values);
    assert_int_equal(MDM_ALLOCATE(values, 0, "nothing"), MDM_OK);
    assert_non_null(values);
    free(values);
    assert_int_equal(MDM_ALLOCATE(values, -1, "values"), MDM_RESOURCE);
    assert_null(values);
    assert_int_equal(MDM_ALLOCATE(values, INT64_MAX / 4, "the neighbours"), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "the neighbours"));
}

static void edit_distance_counts_each_kind_of_typing_error_once(void **state) {
    (void)state;
    assert_int_equal(mdm_edit_distance("epochs", "epochs"), 0);
    assert_int_equal(mdm_edit_distance("epochs", "epoch"), 1);
    assert_int_equal(mdm_edit_distance("epochs", "epoxhs"), 1);
    assert_int_equal(mdm_edit_distance("epochs", "eopchs"), 1);
    assert_int_equal(mdm_edit_distance("epochs", "eppochs"), 1);
    assert_int_equal(mdm_edit_distance("", "abc"), 3);
    assert_int_equal(mdm_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(mdm_edit_distance("ca", "abc"), 3); /* the restricted distance: no edit inside a swap */
    char a[400], b[400];
    memset(a, 'a', 399), memset(b, 'b', 399);
    a[399] = b[300] = '\0';
    assert_int_equal(mdm_edit_distance(a, b), 399);
    assert_int_equal(mdm_edit_distance(a, a), 0);
}

static void the_nearest_name_is_found_only_when_it_is_plausible(void **state) {
    (void)state;
    const char *names[] = {"train.epochs", "train.batch", "divide.k", "seed", "pretrain.epochs"};
    assert_string_equal(mdm_nearest_name("train.epocs", names, 5), "train.epochs");
    assert_string_equal(mdm_nearest_name("train.bacth", names, 5), "train.batch");
    assert_string_equal(mdm_nearest_name("batch", names, 5), "train.batch");
    assert_string_equal(mdm_nearest_name("sede", names, 5), "seed");
    assert_null(mdm_nearest_name("colour", names, 5));
    assert_null(mdm_nearest_name("", names, 5));
    assert_null(mdm_nearest_name("seed", names, 0));
}

static void untrusted_text_is_quoted_and_cut_between_characters(void **state) {
    (void)state;
    char out[64];
    assert_string_equal(mdm_printable("plain \xC3\xA9", out, sizeof out), "plain \xC3\xA9");
    assert_string_equal(mdm_printable("a\033[2Jb\n\x7F", out, sizeof out), "a\\x1b[2Jb\\x0a\\x7f");
    assert_string_equal(mdm_printable("\xC2\x9B"
                                      "0m",
                                      out, sizeof out),
                        "\\xc2\\x9b0m"); /* a control of two bytes */
    assert_string_equal(mdm_printable("bad \xFF\xC3", out, sizeof out), "bad \\xff\\xc3");
    assert_string_equal(mdm_printable("ab\xC3\xA9", out, 4), "ab");
    assert_string_equal(mdm_printable("abcdef", out, 4), "abc");
    assert_string_equal(mdm_printable("abc", out, 1), "");
}

static void folders_are_made_with_their_parents_and_may_exist(void **state) {
    (void)state;
    char path[160];
    snprintf(path, sizeof path, "%s/a/b//c/", folder);
    assert_int_equal(mdm_make_folders(path), MDM_OK);
    assert_int_equal(mdm_make_folders(path), MDM_OK);
    struct stat made;
    assert_int_equal(stat(path, &made), 0);
    assert_true(S_ISDIR(made.st_mode));
    snprintf(path, sizeof path, "%s/file", folder);
    assert_int_equal(mdm_write_file(path, "x", 1), MDM_OK);
    snprintf(path, sizeof path, "%s/file/below", folder);
    assert_int_equal(mdm_make_folders(path), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "/file"));
    assert_int_equal(mdm_make_folders(""), MDM_RESOURCE);
}

static void a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it(void **state) {
    (void)state;
    char path[160], inside[128], *content;
    size_t bytes;
    snprintf(inside, sizeof inside, "%s/written", folder);
    assert_int_equal(mdm_make_folders(inside), MDM_OK);
    snprintf(path, sizeof path, "%s/file", inside);
    assert_int_equal(mdm_write_file(path, "old content", 11), MDM_OK);
    assert_int_equal(mdm_write_file(path, "n\0w", 3), MDM_OK);
    assert_int_equal(mdm_read_file(path, 100, &content, &bytes), MDM_OK);
    assert_int_equal(bytes, 3);
    assert_memory_equal(content, "n\0w\0", 4);
    free(content);
    assert_int_equal(entries_of(inside), 1);
    struct stat written;
    assert_int_equal(stat(path, &written), 0);
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(written.st_mode & 0777, 0666 & ~mask);
    /* The target is a folder: the rename fails, the folder stays, no temporary file does. */
    snprintf(path, sizeof path, "%s/a-folder/x", inside);
    assert_int_equal(mdm_make_folders(path), MDM_OK);
    snprintf(path, sizeof path, "%s/a-folder", inside);
    assert_int_equal(mdm_write_file(path, "x", 1), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), path));
    assert_int_equal(entries_of(inside), 2);
    snprintf(path, sizeof path, "%s/no-such-folder/file", inside);
    assert_int_equal(mdm_write_file(path, "x", 1), MDM_RESOURCE);
    char endless[5000];
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_int_equal(mdm_write_file(endless, "x", 1), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "the name is too long"));
}

static void a_file_written_in_pieces_appears_at_its_end_and_a_dropped_one_never(void **state) {
    (void)state;
    char path[160], inside[128], *content;
    mdm_writer *writer;
    size_t bytes;
    snprintf(inside, sizeof inside, "%s/pieces", folder);
    assert_int_equal(mdm_make_folders(inside), MDM_OK);
    snprintf(path, sizeof path, "%s/file", inside);
    for (int finished = 1; finished >= 0; finished--) {
        assert_int_equal(mdm_writer_open(path, &writer), MDM_OK);
        assert_int_equal(mdm_writer_add(writer, finished ? "one " : "three ", 4), MDM_OK);
        assert_int_equal(mdm_writer_add(writer, "two", 3), MDM_OK);
        assert_int_equal(access(path, F_OK), finished ? -1 : 0);
        if (finished)
            assert_int_equal(mdm_writer_finish(writer), MDM_OK);
        else
            mdm_writer_drop(writer);
        assert_int_equal(mdm_read_file(path, 100, &content, &bytes), MDM_OK);
        assert_string_equal(content, "one two");
        free(content);
        assert_int_equal(entries_of(inside), 1);
    }
    mdm_writer_drop(NULL);
}

static void nothing_takes_the_place_of_a_device_or_a_pipe(void **state) {
    (void)state;
    char pipe[128], link[128];
    struct stat found;
    snprintf(pipe, sizeof pipe, "%s/pipe", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(symlink(pipe, link), 0);
    assert_int_equal(mdm_write_file(pipe, "x", 1), MDM_RESOURCE);
    assert_int_equal(mdm_write_file(link, "x", 1), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "a device or a pipe"));
    assert_int_equal(mdm_check_replaceable("/dev/stdout"), MDM_RESOURCE);
    assert_int_equal(mdm_check_replaceable("/dev/null"), MDM_RESOURCE);
    assert_int_equal(lstat(pipe, &found), 0);
    assert_true(S_ISFIFO(found.st_mode));
    assert_int_equal(lstat(link, &found), 0);
    assert_true(S_ISLNK(found.st_mode));
    assert_int_equal(mdm_check_replaceable("/dev/shm/file"), MDM_OK);
}

static void reading_refuses_what_is_missing_too_large_or_no_file(void **state) {
    (void)state;
    char path[160], *content = (char *)path;
    size_t bytes = 9;
    snprintf(path, sizeof path, "%s/limit", folder);
    assert_int_equal(mdm_read_file(path, 10, &content, &bytes), MDM_INPUT);
    assert_null(content);
    assert_int_equal(bytes, 0);
    assert_non_null(strstr(mdm_last_message(), path));
    assert_int_equal(mdm_write_file(path, "12345", 5), MDM_OK);
    assert_int_equal(mdm_read_file(path, 4, &content, &bytes), MDM_INPUT);
    assert_null(content);
    assert_int_equal(mdm_read_file(path, 5, &content, &bytes), MDM_OK);
    assert_string_equal(content, "12345");
    free(content);
    assert_int_equal(mdm_read_file(folder, 100, &content, &bytes), MDM_INPUT);
    assert_int_equal(mdm_read_file("/dev/zero", 20000, &content, &bytes), MDM_INPUT); /* no size, no end */
    assert_null(content);
    assert_int_equal(mdm_read_file("/dev/null", 0, &content, NULL), MDM_OK);
    assert_string_equal(content, "");
    free(content);
}

static void text_grows_and_stays_terminated(void **state) {
    (void)state;
    mdm_text text = {0};
    for (int i = 0; i < 1000; i++) mdm_text_add(&text, "%d,", i);
    assert_false(text.failed);
    assert_int_equal(text.length, 3890);
    assert_int_equal(strlen(text.data), text.length);
    assert_string_equal(text.data + text.length - 8, "998,999,");
    mdm_text_add_bytes(&text, "a\0b", 3);
    assert_int_equal(text.length, 3893);
    mdm_text_add_bytes(&text, text.data, (size_t)-1 / 2); /* cannot be had */
    assert_true(text.failed);
    mdm_text_add(&text, "more");
    assert_int_equal(text.length, 3893);
    free(text.data);
}

static const char *json_of(mdm_text *text, const char *value) {
    text->length = 0;
    mdm_text_add_json_string(text, value);
    return text->data;
}

static void json_strings_are_escaped_and_always_valid_utf8(void **state) {
    (void)state;
    mdm_text text = {0};
    assert_string_equal(json_of(&text, ""), "\"\"");
    assert_string_equal(json_of(&text, "a\"b\\c\n\t\001"), "\"a\\\"b\\\\c\\n\\t\\u0001\"");
    assert_string_equal(json_of(&text, "\xE2\x82\xAC \xF0\x9F\x98\x80"), "\"\xE2\x82\xAC \xF0\x9F\x98\x80\"");
#define REPLACED "\xEF\xBF\xBD"
    assert_string_equal(json_of(&text, "\xFFx\xC3"), "\"" REPLACED "x" REPLACED "\"");
    assert_string_equal(json_of(&text, "\xC0\xAF"), "\"" REPLACED REPLACED "\"");              /* overlong */
    assert_string_equal(json_of(&text, "\xED\xA0\x80"), "\"" REPLACED REPLACED REPLACED "\""); /* surrogate */
    assert_string_equal(json_of(&text, "\xE2\x82"), "\"" REPLACED REPLACED "\"");              /* cut off */
    free(text.data);
}

static void json_numbers_read_back_as_the_same_float_and_non_finite_ones_are_null(void **state) {
    (void)state;
    float values[] = {0.1f, 1.0f / 3.0f, 3.4028235e38f, 1e-45f, -0.0f, 16777217.0f};
    for (int i = 0; i < 6; i++) {
        mdm_text text = {0};
        mdm_text_add_json_number(&text, values[i]);
        assert_true(strtof(text.data, NULL) == values[i]);
        free(text.data);
    }
    mdm_text text = {0};
    mdm_text_add_json_number(&text, NAN);
    mdm_text_add_json_number(&text, -INFINITY);
    mdm_text_add_json_number(&text, 42);
    assert_string_equal(text.data, "nullnull42");
    free(text.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_keep_their_code_and_one_line_of_text),
        cmocka_unit_test(allocated_memory_is_zero_and_aligned_and_impossible_sizes_are_refused),
        cmocka_unit_test(edit_distance_counts_each_kind_of_typing_error_once),
        cmocka_unit_test(the_nearest_name_is_found_only_when_it_is_plausible),
        cmocka_unit_test(untrusted_text_is_quoted_and_cut_between_characters),
        cmocka_unit_test(folders_are_made_with_their_parents_and_may_exist),
        cmocka_unit_test(a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it),
        cmocka_unit_test(a_file_written_in_pieces_appears_at_its_end_and_a_dropped_one_never),
        cmocka_unit_test(nothing_takes_the_place_of_a_device_or_a_pipe),
        cmocka_unit_test(reading_refuses_what_is_missing_too_large_or_no_file),
        cmocka_unit_test(text_grows_and_stays_terminated),
        cmocka_unit_test(json_strings_are_escaped_and_always_valid_utf8),
        cmocka_unit_test(json_numbers_read_back_as_the_same_float_and_non_finite_ones_are_null),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
