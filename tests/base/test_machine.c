/* The memory a process may use is the smallest of what machine, control groups and limits allow. */
#include "golden.h"

#include "mdm/base/machine.h"
#include "mdm/base/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/mdm-machine-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : 1;
}

static int remove_folder(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void write_text(const char *name, const char *text) {
    char path[256], parent[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = 0;
    assert_int_equal(mdm_make_folders(parent), MDM_OK);
    assert_int_equal(mdm_write_file(path, text, strlen(text)), MDM_OK);
}

static double limit(char *source) {
    char groups[256];
    snprintf(groups, sizeof groups, "%s/groups", folder);
    return mdm_memory_limit_of(folder, groups, 8e9, source, 256);
}

static void without_control_groups_the_machine_is_the_limit(void **state) {
    char source[256];
    (void)state;
    assert_true(limit(source) == 8e9);
    assert_string_equal(source, "the memory of the machine");
    assert_true(mdm_memory_limit(source, sizeof source) > 0);
}

static void the_limit_of_a_group_above_counts_in_version_2(void **state) {
    char source[256];
    (void)state;
    write_text("groups", "0::/job/step\n");
    write_text("job/step/memory.max", "max\n");
    write_text("job/memory.max", "3000000000\n");
    assert_true(limit(source) == 3e9);
    assert_non_null(strstr(source, "/job/memory.max"));
}

static void version_1_is_read_too_and_its_largest_number_is_no_limit(void **state) {
    char source[256];
    (void)state;
    write_text("groups", "8:pids:/\n4:memory:/slurm/job\n");
    write_text("memory/slurm/job/memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(limit(source) == 8e9);
    write_text("memory/slurm/job/memory.limit_in_bytes", "1000000000\n");
    assert_true(limit(source) == 1e9);
    write_text("memory/memory.limit_in_bytes", "500000000\n");
    assert_true(limit(source) == 5e8);
}

static void wrong_values_of_own_variables_are_named(void **state) {
    static const struct {
        const char *name, *right[3], *wrong[5];
    } cases[] = {{"MDM_WATCH_FACTOR", {"0.02", "2", ""}, {"abc", "2x", "-1", "0", "nan"}},
                 {"MDM_DEBUG", {"1", "0", ""}, {"yes", "2", "true", " 1", "on"}},
                 {"MDM_UNSUPERVISED", {"1", "0", ""}, {"yes", "2", "true", " 1", "on"}},
                 {"MDM_NCCL", {"off", "on", ""}, {"0", "OFF", "false", "no", "of"}}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        unsetenv(cases[c].name);
        assert_int_equal(mdm_check_environment(), MDM_OK);
        for (int i = 0; i < 5; i++) {
            setenv(cases[c].name, cases[c].wrong[i], 1);
            assert_int_equal(mdm_check_environment(), MDM_USAGE);
            assert_non_null(strstr(mdm_last_message(), cases[c].name));
            assert_non_null(strstr(mdm_last_message(), cases[c].wrong[i]));
        }
        for (int i = 0; i < 3; i++) {
            setenv(cases[c].name, cases[c].right[i], 1);
            assert_int_equal(mdm_check_environment(), MDM_OK);
        }
        unsetenv(cases[c].name);
    }
    setenv("MDM_WATCH_FACTOR", "1e7", 1);
    assert_true(mdm_watch_factor() < 0);
    setenv("MDM_WATCH_FACTOR", "0.5", 1);
    assert_true(mdm_watch_factor() == 0.5);
    unsetenv("MDM_WATCH_FACTOR");
    assert_true(mdm_watch_factor() == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_control_groups_the_machine_is_the_limit),
        cmocka_unit_test(the_limit_of_a_group_above_counts_in_version_2),
        cmocka_unit_test(version_1_is_read_too_and_its_largest_number_is_no_limit),
        cmocka_unit_test(wrong_values_of_own_variables_are_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
