/* Lists of pictures: folders, `path label` lines, CSV and JSON lines, as people and their editors write them;
 * what cannot be meant is refused with file and line. */
#include "golden.h"
#include "import_internal.h"
#include "listing.h"
#include "mdm/base/text.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static const char *inside(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put_text(const char *name, const char *text) {
    assert_int_equal(mdm_write_file(inside(name), text, strlen(text)), MDM_OK);
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/mdm-listing-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void refused(mdm_status status, const char *words) {
    if (status != MDM_INPUT || !strstr(mdm_last_message(), words))
        fail_msg("status %d, \"%s\" is not in: %s", status, words, mdm_last_message());
}

static mdm_status add_csv(mdm_listing *l, const char *text) {
    return mdm_listing_add_csv(l, text, strlen(text), "m.csv", "root", "", NULL, 0);
}

static mdm_status add_jsonl(mdm_listing *l, const char *text) {
    return mdm_listing_add_jsonl(l, text, strlen(text), "m.jsonl", "root", "", NULL, 0);
}

static mdm_status add_list(mdm_listing *l, const char *text) {
    return mdm_listing_add_list(l, text, strlen(text), "list", "root", NULL, 0);
}

static void assert_entry(const mdm_listing *l, int64_t at, const char *path, const char *text) {
    assert_true(at < l->count);
    assert_string_equal(l->entries[at].path, path);
    assert_string_equal(l->entries[at].text, text);
}

static void marks_blanks_and_line_ends_of_any_editor_do_no_harm(void **state) {
    (void)state;
    mdm_listing l = {0};
    assert_int_equal(add_list(&l, "\xef\xbb\xbf  a.png\t cat \r\n\r\n\tb.png\tdog"), MDM_OK);
    assert_entry(&l, 0, "root/a.png", "cat");
    assert_entry(&l, 1, "root/b.png", "dog");
    assert_int_equal(add_csv(&l, "\xef\xbb\xbf"
                                 "file_name,label\r\n\"c,\"\"1\"\".png\",cat\r\n\r\nd.png,dog\r\n"),
                     MDM_OK);
    assert_entry(&l, 2, "root/c,\"1\".png", "cat");
    assert_entry(&l, 3, "root/d.png", "dog");
    assert_int_equal(add_jsonl(&l, "\xef\xbb\xbf{\"file_name\": \"e.png\", \"class\": \"cat\"}\n\n"), MDM_OK);
    assert_entry(&l, 4, "root/e.png", "cat");
    assert_int_equal(mdm_listing_number(&l, NULL, MDM_NUMBERS_AS_THEY_ARE), MDM_OK);
    assert_true(l.class_count == 2 && l.entries[3].label == 1);
    mdm_listing_free(&l);
}

static void lines_that_cannot_be_meant_are_refused(void **state) {
    (void)state;
    char name[PATH_MAX + 64], text[2 * PATH_MAX];
    static const struct {
        mdm_status (*add)(mdm_listing *l, const char *text);
        const char *text, *words;
    } cases[] = {
        {add_list, "", "list is empty"},
        {add_list, "a.png cat\ndog\n", "list, line 2: expected `path label`"},
        {add_csv, "", "m.csv is empty"},
        {add_csv, "name,label\na,b\n", "must name the columns file_name and label"},
        {add_csv, "file_name,label\n\"a.png,cat\n", "record 2: a quote is not closed"},
        {add_csv, "file_name,label\na.png\n", "record 2: the file name or the label is missing"},
        {add_jsonl, "", "m.jsonl is empty"},
        {add_jsonl, "\n[1, 2", "m.jsonl, line 2 is no JSON"},
        {add_jsonl, "{\"file_name\": \"a\"}", "line 1: expected an object with file_name and label"},
        {add_jsonl, "{\"file_name\": \"a\", \"label\": 0.5}", "(a text or a whole number)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mdm_listing l = {0};
        refused(cases[i].add(&l, cases[i].text), cases[i].words);
        mdm_listing_free(&l);
    }
    mdm_listing l = {0};
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    snprintf(text, sizeof text, "file_name,label\n%s,cat\n", name);
    refused(add_csv(&l, text), "a file name of 4159 bytes is too long");
    refused(mdm_listing_add_csv(&l, "a\0b", 3, "m.csv", "", "", NULL, 0), "holds zero bytes");
    mdm_listing_free(&l);
}

static void quoted_fields_of_a_list_are_read_as_rfc_4180_says(void **state) {
    (void)state;
    mdm_listing l = {0};
    assert_int_equal(
        add_list(&l, "\"a,1.png\",cat\r\n\"b \"\"2\"\".png\" , \"big, black\"\r\nc,3 \"x\".png,dog\n"),
        MDM_OK);
    assert_int_equal(l.count, 3);
    assert_entry(&l, 0, "root/a,1.png", "cat");
    assert_entry(&l, 1, "root/b \"2\".png", "big, black");
    assert_entry(&l, 2, "root/c,3 \"x\".png", "dog"); /* unquoted, the last comma separates */
    assert_int_equal(add_list(&l, "\"d;4.png\";1,5\ne.png;\"2\"\n"), MDM_OK);
    assert_entry(&l, 3, "root/d;4.png", "1,5");
    assert_entry(&l, 4, "root/e.png", "2");
    assert_int_equal(add_list(&l, "\"f.png\"\t\"dog\"\n"), MDM_OK); /* elsewhere a quote is a letter */
    assert_entry(&l, 5, "root/\"f.png\"", "\"dog\"");
    refused(add_list(&l, "a.png,cat\nb.png,\"dog\n"), "list, line 2: a quote is not closed");
    refused(add_list(&l, "\"a\"b.png,cat\n"),
            "list, line 1: expected `path,label`; what begins with a quote");
    refused(add_list(&l, "\"a.png\",x,cat\n"), "list, line 1: expected `path,label`");
    refused(add_list(&l, "\"\",cat\n"), "list, line 1: expected `path,label`");
    refused(add_list(&l, "a.png,\"\"\n"), "list, line 1: expected `path,label`");
    refused(add_list(&l, "\xff\xfe"
                         "a"),
            "list is UTF-16 text; save it as UTF-8");
    assert_int_equal(l.count, 7); /* the sound line before the bad one */
    mdm_listing_free(&l);
}

static void a_header_line_names_the_columns_of_a_list(void **state) {
    (void)state;
    const mdm_listing_columns columns = {"Bild", "Klasse"};
    const char *german = "Bild;Klasse\r\na.png;Katze\r\n";
    mdm_listing l = {0};
    assert_int_equal(add_list(&l, "\xef\xbb\xbf"
                                  "id,Label,Path\r\n0, \"big, black\" , a.png\r\n\r\n1,dog,\"b\n.png\"\r\n"),
                     MDM_OK);
    assert_int_equal(l.count, 2);
    assert_entry(&l, 0, "root/a.png", "big, black");
    assert_entry(&l, 1, "root/b\n.png", "dog");
    assert_int_equal(add_list(&l, "image\tclass\textra\nc 1.png\tcat\t5\n"), MDM_OK);
    assert_entry(&l, 2, "root/c 1.png", "cat");
    assert_int_equal(add_list(&l, "path label\nd 1.png cat\n"), MDM_OK);
    assert_entry(&l, 3, "root/d 1.png", "cat");
    assert_int_equal(mdm_listing_add_list(&l, german, strlen(german), "list", "root", &columns, 1), MDM_OK);
    assert_entry(&l, 4, "root/a.png", "Katze");
    assert_true(l.entries[4].test);
    assert_int_equal(add_list(&l, german), MDM_OK); /* not known for a header */
    assert_entry(&l, 5, "root/Bild", "Klasse");
    const char *other = "Bild;Art\na.png;Katze\n";
    refused(mdm_listing_add_list(&l, other, strlen(other), "list", "root", &columns, 0),
            "list: the first line must name the columns Bild and Klasse");
    refused(mdm_listing_add_list(&l, "", 0, "list", "root", &columns, 0), "list is empty");
    refused(add_list(&l, "path,label\n"), "list is empty");
    refused(add_list(&l, "path label\n"), "list is empty");
    refused(add_list(&l, "path label"), "list is empty"); /* no byte behind the text is read */
    refused(add_list(&l, "path label\na.png cat\nb.png\n"), "list, line 3: expected `path label`");
    refused(add_list(&l, "path,label\na.png,\n"), "list, record 2: the file name or the label is missing");
    mdm_listing_free(&l);
}

static void numbers_are_kept_or_taken_for_names(void **state) {
    (void)state;
    const char *list = "a 10\nb 2\nc 10\nd 7\n";
    mdm_listing l = {0};
    assert_int_equal(add_list(&l, list), MDM_OK);
    assert_int_equal(mdm_listing_number(&l, NULL, MDM_NUMBERS_AS_THEY_ARE), MDM_OK);
    assert_true(l.class_count == 11 && !l.classes && l.entries[1].label == 2);
    mdm_listing_free(&l);
    assert_int_equal(add_list(&l, list), MDM_OK);
    assert_int_equal(mdm_listing_number(&l, NULL, MDM_NUMBERS_ARE_NAMES), MDM_OK);
    assert_int_equal(l.class_count, 3);
    assert_string_equal(l.classes[0], "2");
    assert_string_equal(l.classes[2], "10");
    assert_true(l.entries[0].label == 2 && l.entries[1].label == 0 && l.entries[3].label == 1);
    mdm_listing_free(&l);
    assert_int_equal(add_list(&l, list), MDM_OK);
    assert_int_equal(mdm_listing_number(&l, NULL, MDM_NAMES_ALONE), MDM_OK);
    assert_true(l.class_count == 3 && l.entries[0].label == 0 && l.entries[1].label == 1);
    mdm_listing_free(&l);
}

static void files_in_folders_do_not_disappear_silently(void **state) {
    (void)state;
    mdm_listing l = {0};
    assert_true(mkdir(inside("cat"), 0700) == 0 && mkdir(inside("cat/deep"), 0700) == 0);
    put_text("cat/a.png", "");
    put_text("cat/b.webp", "");
    put_text("cat/deep/c.gif", "");
    put_text("cat/.hidden", "");
    put_text("d.JPG", "");
    put_text("readme.txt", "");
    assert_int_equal(symlink("nowhere", inside("cat/link.png")), 0);
    assert_int_equal(mdm_listing_add_folder(&l, folder, "", 0), MDM_OK);
    assert_int_equal(l.count, 2); /* what cannot be opened is told when its turn comes */
    assert_entry(&l, 1, inside("cat/link.png"), "cat");
    assert_int_equal(l.passed_over, 3);
    assert_string_equal(l.first_passed_over, inside("cat/b.webp"));
    assert_int_equal(l.without_class, 1);
    assert_string_equal(l.first_without_class, inside("d.JPG"));
    mdm_listing_free(&l);
}

static mdm_status add_keys(mdm_listing *l, const char *labels, const char *keys) {
    mdm_listing known = {0};
    assert_int_equal(add_list(&known, labels), MDM_OK);
    mdm_status status = mdm_listing_add_keys(l, keys, strlen(keys), "keys", &known, "labels", "root", 0);
    mdm_listing_free(&known);
    return status;
}

static void paths_alone_take_their_labels_from_another_list(void **state) {
    (void)state;
    mdm_listing l = {0};
    assert_int_equal(add_keys(&l, "b dog\na cat\nb dog\n", "b\n\na\n"), MDM_OK);
    assert_entry(&l, 0, "root/b", "dog");
    refused(add_keys(&l, "b dog\nb cat\n", "b\n"), "labels gives b two labels");
    refused(add_keys(&l, "b dog\n", "b\nc\n"), "keys, line 2: c has no label in labels");
    refused(add_keys(&l, "b dog\n", "\n"), "keys is empty");
    mdm_listing_free(&l);
}

static mdm_status number(const char *list, const char *classes) {
    mdm_listing l = {0};
    assert_int_equal(add_list(&l, list), MDM_OK);
    if (classes) put_text("classes", classes);
    mdm_status status = mdm_listing_number(&l, classes ? inside("classes") : NULL, MDM_NUMBERS_AS_THEY_ARE);
    mdm_listing_free(&l);
    return status;
}

static void classes_that_do_not_fit_are_refused(void **state) {
    (void)state;
    assert_int_equal(number("a 1\nb cat\n", "dog\ncat\n"), MDM_OK); /* a number stands for a line */
    assert_int_equal(number("a dog\nb cat\n", "\xef\xbb\xbf"
                                              "dog\r\n\r\n cat \r\n"),
                     MDM_OK);
    refused(number("a cat\nb bird\n", "dog\ncat\n"), "b: its class bird is not in");
    refused(number("a 2\n", "dog\ncat\n"), "a: its class 2 is not in");
    refused(number("a cat\n", "cat\ncat\n"), "names the class cat twice");
    refused(number("a cat\n", "cat\n"), "has 1 lines; expected one class name a line, at least 2");
    refused(number("a cat\nb cat\n", NULL), "the source has a single class (cat)");
    mdm_listing none = {0};
    refused(mdm_listing_number(&none, NULL, MDM_NUMBERS_AS_THEY_ARE), "the source names no pictures");
}

static void a_million_classes_are_the_most(void **state) {
    (void)state;
    enum { LINES = 1000001, LINE = 12 };
    mdm_listing l = {0};
    char *text = malloc((size_t)LINES * LINE + 1), *at = text;
    assert_non_null(text);
    for (int i = 0; i < LINES; i++) at += sprintf(at, "p c%07d\n", i);
    assert_int_equal(add_list(&l, text), MDM_OK);
    refused(mdm_listing_number(&l, NULL, MDM_NUMBERS_AS_THEY_ARE),
            "1000001 different labels; at most 1000000 are possible");
    mdm_listing_free(&l);
    free(text);
}

static void folders_without_end_or_pictures_are_refused(void **state) {
    (void)state;
    char path[PATH_MAX];
    mdm_listing l = {0};
    refused(mdm_listing_add_folder(&l, inside("none"), "", 0), "cannot be read: No such file");
    refused(mdm_listing_add_folder(&l, folder, "", 0), "holds no folders with .jpg, .jpeg or .png files");
    snprintf(path, sizeof path, "%s", folder);
    for (int depth = 0; depth < 34; depth++) {
        strcat(path, "/d");
        assert_int_equal(mkdir(path, 0700), 0);
    }
    refused(mdm_listing_add_folder(&l, folder, "", 0), "folders are nested more than 32 deep");
    mdm_listing_free(&l);
}

static void paths_that_are_too_long_are_refused(void **state) {
    (void)state;
    char name[200], root[PATH_MAX + 16];
    mdm_listing l = {0};
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(mkdir(inside("cat"), 0700), 0);
    assert_int_equal(chdir(inside("cat")), 0);
    for (int depth = 0; depth < 25; depth++) /* too deep to be named from the root */
        assert_true(mkdir(name, 0700) == 0 && chdir(name) == 0);
    assert_int_equal(chdir("/"), 0);
    refused(mdm_listing_add_folder(&l, folder, "", 0), "the path is too long");
    snprintf(root, sizeof root, "%s", folder);
    while (strlen(root) < PATH_MAX - 2) strcat(root, "/.");
    refused(mdm_listing_add_folder(&l, root, "", 0), "the path is too long");
    mdm_listing_free(&l);
}

static void what_a_source_is_shows_by_what_lies_in_it(void **state) {
    (void)state;
    assert_int_equal(mdm_pictures_recognise(folder), MDM_IMPORT_FOLDER);
    assert_int_equal(mkdir(inside("train"), 0700), 0);
    assert_int_equal(mdm_pictures_recognise(folder), MDM_IMPORT_FOLDER);
    put_text("train/metadata.jsonl", "");
    assert_int_equal(mdm_pictures_recognise(folder), MDM_IMPORT_METADATA);
    put_text("metadata.csv", "");
    assert_int_equal(mdm_pictures_recognise(folder), MDM_IMPORT_METADATA);
    assert_int_equal(mdm_pictures_recognise(inside("metadata.csv")), MDM_IMPORT_LIST);
}

static void sources_without_what_they_promise_are_refused(void **state) {
    (void)state;
    mdm_listing l = {0};
    mdm_import_options o = {.format = MDM_IMPORT_METADATA};
    refused(mdm_listing_collect(&l, folder, &o), "holds neither metadata.csv nor metadata.jsonl");
    put_text("metadata.csv", "file_name,label\na.png,cat\nb.png,dog\n");
    o.test = inside("nowhere");
    refused(mdm_listing_collect(&l, folder, &o), "nowhere: no such folder");
    put_text("list", "a.png cat\n");
    o = (mdm_import_options){.format = MDM_IMPORT_LIST};
    refused(mdm_listing_collect(&l, inside("list"), &o), "its first picture is");
    assert_int_equal(chdir(folder), 0); /* a list without a folder in front: its paths start here */
    refused(mdm_listing_collect(&l, "list", &o), "paths start at this folder (--root)");
    put_text("a.png", "");
    put_text("list", "a.png cat\na.png dog\n");
    mdm_listing_free(&l);
    assert_int_equal(mdm_listing_collect(&l, "list", &o), MDM_OK);
    assert_entry(&l, 0, "a.png", "cat");
    assert_int_equal(chdir("/"), 0);
    mdm_listing_free(&l);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_blanks_and_line_ends_of_any_editor_do_no_harm),
        cmocka_unit_test(lines_that_cannot_be_meant_are_refused),
        cmocka_unit_test(quoted_fields_of_a_list_are_read_as_rfc_4180_says),
        cmocka_unit_test(a_header_line_names_the_columns_of_a_list),
        cmocka_unit_test(numbers_are_kept_or_taken_for_names),
        IN_FOLDER(files_in_folders_do_not_disappear_silently),
        cmocka_unit_test(paths_alone_take_their_labels_from_another_list),
        IN_FOLDER(classes_that_do_not_fit_are_refused),
        cmocka_unit_test(a_million_classes_are_the_most),
        IN_FOLDER(folders_without_end_or_pictures_are_refused),
        IN_FOLDER(paths_that_are_too_long_are_refused),
        IN_FOLDER(what_a_source_is_shows_by_what_lies_in_it),
        IN_FOLDER(sources_without_what_they_promise_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
