/* Whom the line about a hang names, from the records that ranks leave in the run folder. */
#include "golden.h"

#include "flight.h"
#include "supervisor.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static mdm_watch_page page;

static void open_folder(void) {
    char folder[] = "/tmp/mdm-test-flight-XXXXXX", flight[64];
    assert_non_null(mkdtemp(folder));
    memset(&page, 0, sizeof page);
    snprintf(page.folder, sizeof page.folder, "%s", folder);
    snprintf(flight, sizeof flight, "%s/flight", folder);
    assert_int_equal(mkdir(flight, 0700), 0);
    page.stage = "warmup";
    page.ranks = 3;
    page.folder_known = 1;
}

static void leave_record(int rank, int64_t collectives) {
    page.collectives = collectives;
    mdm_flight_record(&page, rank, "here", 'S', "waits");
}

/* Of rank 1, which waits in its ninth collective. */
static void assert_missing(const char *expected) {
    char text[256], command[MDM_WATCH_PATH + 16];
    page.collectives = 9;
    mdm_flight_missing(&page, 1, text, sizeof text);
    assert_string_equal(text, expected);
    snprintf(command, sizeof command, "rm -r %.300s", page.folder);
    assert_int_equal(system(command), 0);
}

static void nobody_is_missing_where_all_wait(void **state) {
    (void)state;
    open_folder();
    leave_record(0, 9);
    leave_record(2, 10);
    assert_missing("");
}

static void those_that_are_behind_are_named(void **state) {
    (void)state;
    open_folder();
    leave_record(0, 9);
    leave_record(2, 7);
    assert_missing("; it lacks rank 2 (behind)");
}

static void a_silent_rank_is_named_and_not_those_that_it_holds_up(void **state) {
    (void)state;
    open_folder();
    leave_record(0, 7);
    assert_missing("; it lacks rank 2 (silent)");
}

static void without_a_folder_nothing_is_recorded_or_said(void **state) {
    (void)state;
    char text[64];
    open_folder();
    page.folder_known = 0;
    leave_record(0, 1);
    mdm_flight_missing(&page, 1, text, sizeof text);
    assert_string_equal(text, "");
    assert_missing("");
}

static void people_are_told_what_each_rank_was_doing(void **state) {
    (void)state;
    char path[MDM_WATCH_PATH + 64];
    open_folder();
    for (int i = 0; i < 9; i++) page.ring[i] = (mdm_watch_entry){"all-reduce", i, 8, 1, i < 6};
    leave_record(0, 9);
    leave_record(1, 6);
    leave_record(2, 0);
    snprintf(path, sizeof path, "%s/flight/rank-3.json", page.folder);
    FILE *file = fopen(path, "w"); /* not whole */
    fputs("{\"rank\"", file);
    fclose(file);
    snprintf(path, sizeof path, "%s/flight/failure", page.folder);
    file = fopen(path, "w");
    fputs("error: it \x1b[31mwaits\nand more\n", file);
    fclose(file);
    char *told = mdm_flight_describe(page.folder);
    assert_string_equal(
        told, "the last failure: error: it \\x1b[31mwaits\n"
              "  rank 0 on here: waits; 9 collectives, the last all-reduce, waiting in it\n"
              "  rank 1 on here: waits; 6 collectives, the last all-reduce; it was behind the others\n"
              "  rank 2 on here: waits; 0 collectives, the last none; it was behind the others\n");
    free(told);
    assert_missing("; it lacks rank 2 (behind)");
    told = mdm_flight_describe(page.folder);
    assert_string_equal(told, "");
    free(told);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_missing_where_all_wait),
        cmocka_unit_test(those_that_are_behind_are_named),
        cmocka_unit_test(a_silent_rank_is_named_and_not_those_that_it_holds_up),
        cmocka_unit_test(without_a_folder_nothing_is_recorded_or_said),
        cmocka_unit_test(people_are_told_what_each_rank_was_doing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
