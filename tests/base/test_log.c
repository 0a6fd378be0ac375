/* The log: who speaks, what reaches the warning hook, how often progress is printed to a file. */
#include "golden.h"

#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Runs `talk` with stderr going to a file and returns what it wrote; the caller frees. */
static char *captured(void (*talk)(void)) {
    char path[] = "/tmp/mdm-test-log-XXXXXX", *content = NULL;
    int file = mkstemp(path), old = dup(STDERR_FILENO);
    assert_true(file >= 0 && old >= 0);
    fflush(stderr);
    dup2(file, STDERR_FILENO);
    talk();
    fflush(stderr);
    dup2(old, STDERR_FILENO);
    close(old);
    close(file);
    mdm_status status = mdm_read_file(path, 100000, &content, NULL);
    unlink(path);
    assert_int_equal(status, MDM_OK);
    return content;
}

static void say_all(void) {
    mdm_info("epoch %d", 3);
    mdm_warn("disk nearly full");
    mdm_error("rank lost");
}

static void rank_0_says_everything_and_others_only_errors(void **state) {
    (void)state;
    mdm_log_set_rank(0, 2);
    char *text = captured(say_all);
    assert_string_equal(text, "epoch 3\nwarning: disk nearly full\nerror: rank lost\n");
    free(text);
    mdm_log_set_rank(1, 2);
    text = captured(say_all);
    mdm_log_set_rank(0, 1);
    assert_string_equal(text, "error (rank 1): rank lost\n");
    free(text);
}

static void debug_a_little(void) {
    mdm_debug("engine %d", 62);
}

static void debug_lines_come_only_when_wanted(void **state) {
    (void)state;
    unsetenv("MDM_DEBUG");
    char *text = captured(debug_a_little);
    assert_string_equal(text, "");
    free(text);
    setenv("MDM_DEBUG", "1", 1);
    text = captured(debug_a_little);
    assert_string_equal(text, "debug: engine 62\n");
    free(text);
    mdm_log_set_rank(1, 2);
    text = captured(debug_a_little);
    mdm_log_set_rank(0, 1);
    unsetenv("MDM_DEBUG");
    assert_string_equal(text, "");
    free(text);
}

static void remember(void *context, const char *text) {
    mdm_info("inside the hook"); /* must not lock up */
    strcpy(context, text);
}

static void warnings_reach_the_hook(void **state) {
    (void)state;
    char heard[100] = "";
    mdm_log_set_warning_hook(remember, heard);
    char *text = captured(say_all);
    mdm_log_set_warning_hook(NULL, NULL);
    assert_string_equal(heard, "disk nearly full");
    free(text);
}

static void report_progress(void) {
    for (int i = 0; i < 100; i++) mdm_progress("working", 0);
    mdm_progress("done", 1);
}

static void progress_in_a_file_is_rare_but_ends_with_the_last_line(void **state) {
    (void)state;
    char *text = captured(report_progress);
    assert_string_equal(text, "working\ndone\n");
    free(text);
}

/* The same on a terminal of `columns`: what it was sent. */
static char *shown(void (*talk)(void), unsigned short columns) {
    int terminal, other, old = dup(STDERR_FILENO);
    struct winsize size = {.ws_row = 24, .ws_col = columns};
    char *text = calloc(1, 4096);
    assert_true(text && old >= 0 && openpty(&terminal, &other, NULL, NULL, &size) == 0);
    dup2(other, STDERR_FILENO);
    talk();
    dup2(old, STDERR_FILENO);
    for (size_t used = 0; !strchr(text, '\n');) {
        ssize_t n = read(terminal, text + used, 4095 - used);
        assert_true(n > 0);
        used += (size_t)n;
    }
    close(old);
    close(terminal);
    close(other);
    return text;
}

static void report_half(void) {
    mdm_progress_bar(0.5, "half of it", 0);
    mdm_progress_bar(1, "all of it", 1);
}

static void a_terminal_shows_a_bar_that_is_rewritten_in_place(void **state) {
    (void)state;
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C", 1);
    setenv("NO_COLOR", "1", 1);
    char *text = shown(report_half, 80);
    assert_string_equal(text, "\r########........ half of it\033[K\r################ all of it\033[K\r\n");
    free(text);
    text = shown(report_half, 20); /* too narrow for the bar */
    assert_string_equal(text, "\rhalf of it\033[K\rall of it\033[K\r\n");
    free(text);
    text = shown(report_half, 6);
    assert_string_equal(text, "\rhalf \033[K\rall o\033[K\r\n");
    free(text);
}

static void colours_come_only_without_no_color_and_never_on_a_dumb_terminal(void **state) {
    (void)state;
    unsetenv("NO_COLOR");
    setenv("LC_ALL", "C.UTF-8", 1);
    char *text = shown(report_half, 80);
    assert_non_null(strstr(text, "\033[36m\xe2\x94\x81"));
    assert_non_null(strstr(text, "\033[0m half of it"));
    free(text);
    setenv("NO_COLOR", "1", 1);
    text = shown(report_half, 80);
    assert_null(strstr(text, "\033[3"));
    free(text);
    setenv("TERM", "dumb", 1);
    text = shown(report_half, 80);
    assert_null(strstr(text, "\033"));
    free(text);
}

static void seconds_never_run_backwards(void **state) {
    (void)state;
    double before = mdm_seconds();
    for (int i = 0; i < 1000; i++) {
        double now = mdm_seconds();
        assert_true(now >= before);
        before = now;
    }
    usleep(20000);
    double waited = mdm_seconds() - before;
    assert_true(waited >= 0.019 && waited < 10.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_0_says_everything_and_others_only_errors),
        cmocka_unit_test(debug_lines_come_only_when_wanted),
        cmocka_unit_test(warnings_reach_the_hook),
        cmocka_unit_test(progress_in_a_file_is_rare_but_ends_with_the_last_line),
        cmocka_unit_test(a_terminal_shows_a_bar_that_is_rewritten_in_place),
        cmocka_unit_test(colours_come_only_without_no_color_and_never_on_a_dumb_terminal),
        cmocka_unit_test(seconds_never_run_backwards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
