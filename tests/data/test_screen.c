/* The child process that looks through a stranger's file: its end, however bad, is one status here. */
#include "golden.h"
#include "screen.h"
#include <fcntl.h>
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

static mdm_status find_nothing(const char *name) {
    return strcmp(name, path) == 0 ? MDM_OK : mdm_fail(MDM_USAGE, "another path");
}

static mdm_status find_a_fault(const char *name) {
    return mdm_fail(MDM_INPUT, "%s: the labels are wrong", name);
}

static mdm_status crash(const char *name) {
    (void)name;
    raise(SIGSEGV);
    return MDM_OK;
}

static mdm_status leave(const char *name) {
    (void)name;
    _exit(0); /* without an answer */
}

static mdm_status take_memory(const char *name) {
    (void)name;
    for (int i = 0; i < 1 << 20; i++) {
        char *piece = malloc((size_t)1 << 30);
        if (!piece) return mdm_fail(MDM_RESOURCE, "no memory after %d GiB", i);
    }
    return MDM_OK;
}

static mdm_status write_a_file(const char *name) {
    (void)name;
    signal(SIGXFSZ, SIG_IGN);
    int descriptor = open(beside, O_WRONLY | O_CREAT, 0600);
    ssize_t put = descriptor < 0 ? -1 : write(descriptor, "x", 1);
    return put == 1 ? MDM_OK : mdm_fail(MDM_INPUT, "nothing can be written");
}

static void what_the_child_finds_is_told(void **state) {
    (void)state;
    assert_int_equal(mdm_screen_file(path, find_nothing), MDM_OK);
    assert_int_equal(mdm_screen_file(path, find_a_fault), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "the labels are wrong"));
}

static void a_crash_is_a_bad_file(void **state) {
    (void)state;
    assert_int_equal(mdm_screen_file(path, crash), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "is refused"));
    assert_int_equal(mdm_screen_file(path, leave), MDM_INPUT);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void the_child_can_neither_fill_memory_nor_write(void **state) {
    (void)state;
    assert_int_equal(mdm_screen_file(path, take_memory), MDM_INPUT);
    const char *after = strstr(mdm_last_message(), "no memory after ");
    assert_non_null(after);
    assert_true(atoi(after + 16) <= 4); /* the machine's own address space ends much later */
    assert_int_equal(mdm_screen_file(path, write_a_file), MDM_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_the_child_finds_is_told),
                                       cmocka_unit_test(a_crash_is_a_bad_file),
                                       cmocka_unit_test(the_child_can_neither_fill_memory_nor_write)};
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
