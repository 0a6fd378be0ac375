/* metrics.jsonl: whole lines, resume, and a disk without room. */
#include "mdm/report/metrics.h"

#include "report_test.h"

static mdm_metrics *open_metrics(const char *path, int64_t length) {
    mdm_metrics *m = NULL;
    assert_int_equal(mdm_metrics_open(path, length, &m), MDM_OK);
    return m;
}

static void add_epoch(mdm_metrics *m, int64_t epoch) {
    mdm_metrics_begin(m, "epoch");
    mdm_metrics_integer(m, "epoch", epoch);
    mdm_metrics_end(m);
}

static void assert_content(const char *path, const char *expected) {
    char *content = read_bytes(path, NULL);
    assert_string_equal(content, expected);
    free(content);
}

static void events_are_lines_of_json(void **state) {
    const char *path = in_folder(state, "metrics.jsonl");
    const double means[] = {0.125, strtod("inf", NULL)};
    mdm_metrics *m = open_metrics(path, 0);
    mdm_metrics_begin(m, "start");
    mdm_metrics_end(m);
    mdm_metrics_begin(m, "epoch");
    mdm_metrics_text(m, "stage", "war\"m\n");
    mdm_metrics_integer(m, "epoch", -((int64_t)1 << 53));
    mdm_metrics_number(m, "loss", 1.25);
    mdm_metrics_number(m, "loss_u", strtod("nan", NULL));
    mdm_metrics_end(m);
    mdm_metrics_begin(m, "divide");
    mdm_metrics_numbers(m, "gmm_means", means, 2);
    mdm_metrics_numbers(m, "empty", NULL, 0);
    mdm_metrics_end(m);
    mdm_metrics_warning(m, "look \"here\"");
    size_t bytes = 0;
    free(read_bytes(path, &bytes));
    assert_int_equal(mdm_metrics_length(m), bytes);
    assert_int_equal(mdm_metrics_lost(m), 0);
    mdm_metrics_close(m);
    python_check("metrics", path);
}

static void resume_cuts_back_to_the_checkpoint(void **state) {
    const char *path = in_folder(state, "metrics.jsonl");
    mdm_metrics *m = open_metrics(path, 0);
    add_epoch(m, 1);
    int64_t length = mdm_metrics_length(m);
    add_epoch(m, 2);
    mdm_metrics_sync(m);
    mdm_metrics_close(m);
    m = open_metrics(path, length);
    add_epoch(m, 3);
    mdm_metrics_close(m);
    assert_content(path, "{\"event\":\"epoch\",\"epoch\":1}\n{\"event\":\"epoch\",\"epoch\":3}\n");
}

static void a_half_line_is_ended_first(void **state) {
    const char *path = in_folder(state, "metrics.jsonl");
    write_bytes(path, "{\"event\":\"ep", 12);
    mdm_metrics *m = open_metrics(path, MDM_METRICS_APPEND);
    add_epoch(m, 3);
    assert_int_equal(mdm_metrics_length(m), 12 + 1 + 28);
    mdm_metrics_close(m);
    assert_content(path, "{\"event\":\"ep\n{\"event\":\"epoch\",\"epoch\":3}\n");
}

static void a_file_shorter_than_the_checkpoint_says_is_kept_with_a_warning(void **state) {
    const char *path = in_folder(state, "metrics.jsonl");
    int warnings;
    count_warnings(&warnings);
    write_bytes(path, "{}\n", 3);
    mdm_metrics *m = open_metrics(path, 1000);
    assert_int_equal(warnings, 1);
    assert_int_equal(mdm_metrics_length(m), 3);
    mdm_metrics_close(m);
}

static void a_warning_inside_an_event_gets_its_own_line(void **state) {
    const char *path = in_folder(state, "metrics.jsonl");
    mdm_metrics *m = open_metrics(path, 0);
    mdm_log_set_warning_hook(mdm_metrics_warning, m);
    mdm_metrics_begin(m, "epoch");
    mdm_warn("something between begin and end");
    mdm_metrics_end(m);
    mdm_log_set_warning_hook(NULL, NULL);
    mdm_metrics_close(m);
    assert_content(
        path,
        "{\"event\":\"warning\",\"message\":\"something between begin and end\"}\n{\"event\":\"epoch\"}\n");
}

/* The hook writes to the very log that cannot be written: that must not recurse, nor tear the file. */
static void write_until_it_fails(const char *path, void (*make_room)(const char *)) {
    mdm_metrics *m = open_metrics(path, 0);
    mdm_log_set_warning_hook(mdm_metrics_warning, m);
    int64_t written = 0;
    for (int i = 0; i < 100000 && mdm_metrics_lost(m) < 3; i++) {
        add_epoch(m, i);
        written += mdm_metrics_lost(m) == 0;
    }
    assert_true(written > 0);
    assert_true(mdm_metrics_lost(m) >= 3);
    int64_t lost = mdm_metrics_lost(m);
    size_t bytes;
    char *content = read_bytes(path, &bytes);
    assert_int_equal(mdm_metrics_length(m), bytes);
    assert_int_equal(content[bytes - 1], '\n');
    free(content);
    make_room(path);
    add_epoch(m, 7);
    assert_int_equal(mdm_metrics_lost(m), lost);
    mdm_log_set_warning_hook(NULL, NULL);
    mdm_metrics_close(m);
}

static void lift_limit(const char *path) {
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    (void)path;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_file_size_limit_loses_lines_but_not_the_run(void **state) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    write_until_it_fails(in_folder(state, "metrics.jsonl"), lift_limit);
}

static void remove_filler(const char *path) {
    char filler[512];
    snprintf(filler, sizeof filler, "%.*s/filler", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(unlink(filler), 0);
}

static void a_full_disk_loses_lines_but_not_the_run(void **state) {
    const char *disk = mount_small_disk(state, 65536);
    if (!disk) skip();
    char path[512], filler[512], zeros[32768] = {0};
    snprintf(path, sizeof path, "%s/metrics.jsonl", disk);
    snprintf(filler, sizeof filler, "%s/filler", disk);
    write_bytes(filler, zeros, sizeof zeros);
    write_until_it_fails(path, remove_filler);
    unmount_small_disk(disk);
}

static void a_log_that_cannot_be_opened_is_a_resource_error(void **state) {
    mdm_metrics *m = NULL;
    assert_int_equal(mdm_metrics_open(in_folder(state, "none/metrics.jsonl"), 0, &m), MDM_RESOURCE);
    assert_null(m);
    assert_non_null(strstr(mdm_last_message(), "none/metrics.jsonl"));
    assert_int_equal(mdm_metrics_open(*state, 0, &m), MDM_RESOURCE);
}

static void no_log_takes_events_too(void **state) {
    (void)state;
    add_epoch(NULL, 1);
    mdm_metrics_text(NULL, "a", "b");
    mdm_metrics_number(NULL, "a", 1);
    mdm_metrics_numbers(NULL, "a", NULL, 0);
    mdm_metrics_warning(NULL, "a");
    mdm_metrics_sync(NULL);
    assert_int_equal(mdm_metrics_length(NULL), 0);
    mdm_metrics_close(NULL);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(events_are_lines_of_json),
        IN_FOLDER(resume_cuts_back_to_the_checkpoint),
        IN_FOLDER(a_half_line_is_ended_first),
        IN_FOLDER(a_file_shorter_than_the_checkpoint_says_is_kept_with_a_warning),
        IN_FOLDER(a_warning_inside_an_event_gets_its_own_line),
        IN_FOLDER(a_file_size_limit_loses_lines_but_not_the_run),
        IN_FOLDER(a_full_disk_loses_lines_but_not_the_run),
        IN_FOLDER(a_log_that_cannot_be_opened_is_a_resource_error),
        cmocka_unit_test(no_log_takes_events_too),
    };
    signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
