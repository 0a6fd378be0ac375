/* The page between a worker and its supervisor: what it says of the place in the run, and how long a pause
 * may last there. */
#include "golden.h"
#include "mdm/base/watch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int64_t second = 1000000000;

static void pause_for(int64_t nanoseconds) {
    const struct timespec time = {nanoseconds / second, (long)(nanoseconds % second)};
    nanosleep(&time, NULL);
}

static void without_a_supervisor_nothing_is_noted(void **state) {
    (void)state;
    unsetenv("MDM_WATCH_FACTOR");
    assert_null(mdm_watch_page_get());
    mdm_watch_ranks(1, 2);
    mdm_watch_stage("warmup", 0, 0, 30);
    mdm_watch_step(1);
    mdm_watch_progress();
    mdm_watch_aside("save", 30);
    mdm_watch_back();
    mdm_watch_floor(30);
    mdm_watch_enter("barrier", 0);
    mdm_watch_pulse();
    mdm_watch_leave();
    mdm_watch_reading(60);
    mdm_watch_read_begins();
    mdm_watch_read_ends();
    mdm_watch_folder("/tmp");
    mdm_watch_told(5);
    assert_int_equal(mdm_watch_claim(NULL, "the others do not know"), 1);
    assert_true(mdm_watch_limit() == 120);
    setenv("MDM_WATCH_FACTOR", "0.5", 1);
    assert_true(mdm_watch_limit() == 60);
}

static void the_page_tells_where_the_worker_is(void **state) {
    (void)state;
    setenv("MDM_WATCH_FACTOR", "2", 1);
    mdm_watch_page *page = mdm_watch_create();
    assert_non_null(page);
    assert_ptr_equal(mdm_watch_page_get(), page);
    assert_true(page->rank == -1 && page->epoch == -1 && page->step == -1);
    assert_string_equal(atomic_load(&page->stage), "start");
    assert_true(mdm_watch_allowed(page) == 240 * second);
    mdm_watch_ranks(1, 2);
    mdm_watch_stage("warmup", 3, 1, 30);
    mdm_watch_step(7);
    assert_true(page->rank == 1 && page->ranks == 2 && page->epoch == 3 && page->network == 1 &&
                page->step == 7);
    mdm_watch_stage("warmup", 4, 0, 30);
    assert_true(page->epoch == 4 && page->network == 0 && page->step == -1);
    for (int64_t i = 0; i < MDM_WATCH_RING + 3; i++) {
        mdm_watch_enter("all-reduce", 8 * i);
        assert_int_equal(page->inside, 1);
        mdm_watch_pulse();
        mdm_watch_leave();
    }
    const mdm_watch_entry *latest = &page->ring[2];
    assert_true(page->collectives == MDM_WATCH_RING + 3 && latest->number == MDM_WATCH_RING + 2 &&
                latest->bytes == 8 * latest->number && latest->left >= latest->entered);
    assert_true(page->inside == 0 && page->pulse == MDM_WATCH_RING + 3);
    mdm_watch_told(5);
    assert_int_equal(page->told, 5);
}

static void five_times_the_longest_pause_of_a_stage_is_allowed(void **state) {
    (void)state;
    setenv("MDM_WATCH_FACTOR", "1", 1);
    mdm_watch_page *page = mdm_watch_create();
    static const char slow[] = "slow", fast[] = "fast";
    mdm_watch_stage(slow, 0, -1, 0.001);
    pause_for(second / 20);
    mdm_watch_progress();
    int64_t seen = page->longest;
    assert_true(seen >= second / 20 && mdm_watch_allowed(page) == 5 * seen);
    assert_true(mdm_watch_limit() > 10.2); /* a supervisor speaks before the worker does */
    mdm_watch_stage(fast, 0, -1, 0.001);
    assert_true(page->longest == 0 && mdm_watch_allowed(page) == second / 1000);
    mdm_watch_floor(0.5);
    assert_true(mdm_watch_allowed(page) == second / 2);
    mdm_watch_stage(slow, 1, -1, 0.001); /* which comes back */
    assert_true(page->longest == seen);
    mdm_watch_aside("save", 60);
    assert_string_equal(atomic_load(&page->stage), "save");
    assert_true(mdm_watch_allowed(page) == 60 * second);
    pause_for(second / 5);
    mdm_watch_progress();
    mdm_watch_back();
    assert_ptr_equal(atomic_load(&page->stage), slow);
    assert_true(page->longest == seen); /* a save says nothing about steps */
    mdm_watch_back();
    assert_ptr_equal(atomic_load(&page->stage), slow);
}

static void a_read_is_progress_where_much_is_read(void **state) {
    (void)state;
    setenv("MDM_WATCH_FACTOR", "2", 1);
    mdm_watch_page *page = mdm_watch_create();
    mdm_watch_stage("open", -1, -1, 30);
    assert_true(mdm_watch_allowed_busy(page) == 60 * second);
    int64_t before = page->progress;
    mdm_watch_read_begins();
    assert_int_equal(page->reads, 1);
    mdm_watch_read_ends();
    assert_true(page->reads == 0 && page->progress == before);
    mdm_watch_reading(10);
    assert_true(mdm_watch_allowed_busy(page) == 20 * second && mdm_watch_allowed(page) == 60 * second);
    before = page->progress;
    mdm_watch_read_begins();
    pause_for(1000);
    mdm_watch_read_ends();
    assert_true(page->progress > before);
    mdm_watch_stage("load", -1, -1, 30);
    assert_true(mdm_watch_allowed_busy(page) == 60 * second);
    mdm_watch_forget();
    assert_null(mdm_watch_page_get());
}

static void of_more_stages_than_there_is_room_for_the_first_are_remembered(void **state) {
    (void)state;
    static const char names[32][2] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"};
    mdm_watch_page *page = mdm_watch_create();
    for (int i = 0; i < 32; i++) {
        mdm_watch_stage(names[i], i, -1, 1);
        assert_true(page->longest == 0 && page->epoch == i);
    }
}

static void one_of_those_that_fail_has_the_word(void **state) {
    (void)state;
    char folder[] = "/tmp/mdm-watch-XXXXXX", path[128], text[64] = "", too_long[MDM_WATCH_PATH + 1];
    mdm_watch_page *page = mdm_watch_create();
    assert_non_null(mkdtemp(folder));
    assert_int_equal(mdm_watch_claim(page, "there is no folder yet"), 1);
    memset(too_long, 'x', MDM_WATCH_PATH);
    too_long[MDM_WATCH_PATH] = 0;
    mdm_watch_folder(too_long);
    assert_int_equal(page->folder_known, 0);
    mdm_watch_folder(folder);
    assert_int_equal(page->folder_known, 1);
    assert_int_equal(mdm_watch_claim(page, "the first"), 1); /* it makes flight/, too */
    assert_int_equal(mdm_watch_claim(page, "the second"), 0);
    snprintf(path, sizeof path, "%s/flight/failure", folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    assert_string_equal(text, "the first\n");
    unlink(path);
    snprintf(path, sizeof path, "%s/flight", folder);
    rmdir(path);
    rmdir(folder);
    assert_int_equal(mdm_watch_claim(page, "what cannot be written must be said"), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_supervisor_nothing_is_noted),
        cmocka_unit_test(the_page_tells_where_the_worker_is),
        cmocka_unit_test(five_times_the_longest_pause_of_a_stage_is_allowed),
        cmocka_unit_test(a_read_is_progress_where_much_is_read),
        cmocka_unit_test(of_more_stages_than_there_is_room_for_the_first_are_remembered),
        cmocka_unit_test(one_of_those_that_fail_has_the_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
