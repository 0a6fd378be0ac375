/* What doctor concludes from the ranks' accounts. */
#include "golden.h"

#include "doctor.h"
#include <stdio.h>
#include <string.h>

enum { RANKS = 4 };
static mdm_rank_account accounts[RANKS];
static mdm_findings findings;

/* Four sound ranks on two hosts of eight cores, two cores each. */
static int make_sound(void **state) {
    (void)state;
    memset(accounts, 0, sizeof accounts);
    memset(&findings, 0, sizeof findings);
    for (int r = 0; r < RANKS; r++) {
        mdm_rank_account *a = &accounts[r];
        snprintf(a->host, sizeof a->host, "node%d", r / 2);
        snprintf(a->program, sizeof a->program, "1.0");
        snprintf(a->mpi, sizeof a->mpi, "Open MPI 4.1.4");
        a->rank = r;
        a->node_rank = r % 2;
        a->node_size = 2;
        a->machine_cores = 8;
        CPU_SET(2 * (r % 2), &a->cores);
        CPU_SET(2 * (r % 2) + 1, &a->cores);
        a->memory_limit = a->shared_memory_free = 64e9;
        a->descriptors = 1024;
        a->stack = 8 << 20;
        a->program_bytes = 1e6;
    }
    return 0;
}

static void expect(int count, int problems, const char *words) {
    mdm_doctor_judge(accounts, RANKS, &findings);
    if (findings.count != count) print_message("first finding: %s\n", findings.list[0].what);
    assert_int_equal(findings.count, count);
    assert_int_equal(findings.problems, problems);
    if (count > 0) assert_non_null(strstr(findings.list[0].what, words));
    for (int i = 0; i < count; i++) assert_true(findings.list[i].cure[0] != 0);
}

static void a_sound_cluster_has_no_finding(void **state) {
    (void)state;
    expect(0, 0, "");
}

static void another_program_or_library_on_one_host_is_a_problem(void **state) {
    (void)state;
    snprintf(accounts[2].mpi, sizeof accounts[2].mpi, "Open MPI 5.0.0");
    accounts[3].program_bytes = 2e6;
    expect(2, 2, "the program is another one on rank 3");
    assert_non_null(strstr(findings.list[1].what, "Open MPI 5.0.0 on rank 2 (node1)"));
}

static void one_core_of_eight_is_a_warning_with_the_launchers_option(void **state) {
    (void)state;
    CPU_CLR(1, &accounts[0].cores);
    expect(1, 0, "may use core 0 alone, of 8");
    assert_non_null(strstr(findings.list[0].cure, "--bind-to none"));
}

static void ranks_on_the_same_cores_are_told_once_a_host(void **state) {
    (void)state;
    for (int r = 0; r < RANKS; r++) {
        CPU_ZERO(&accounts[r].cores);
        CPU_SET(5, &accounts[r].cores);
    }
    for (int r = 0; r < RANKS; r++) accounts[r].machine_cores = 1;
    expect(2, 0, "2 ranks on node0 share the cores 5");
}

static void small_limits_are_problems(void **state) {
    (void)state;
    accounts[1].stack = 256 << 10;
    accounts[2].shared_memory_free = 1 << 20;
    expect(2, 2, "stack of only 256 KiB");
    assert_non_null(strstr(findings.list[1].what, "/dev/shm on node1 has 1 MiB free"));
}

static void more_findings_than_there_is_room_for_are_counted(void **state) {
    (void)state;
    for (int i = 0; i < MDM_MOST_FINDINGS + 5; i++)
        mdm_findings_add(&findings, MDM_FINDING_PROBLEM, "cure", "finding %d", i);
    assert_int_equal(findings.count, MDM_MOST_FINDINGS);
    assert_int_equal(findings.left_out, 5);
    assert_int_equal(findings.problems, MDM_MOST_FINDINGS + 5);
}

static void cores_are_written_as_ranges(void **state) {
    char text[64];
    cpu_set_t cores;
    (void)state;
    CPU_ZERO(&cores);
    for (int i = 0; i < 4; i++) CPU_SET(i, &cores);
    CPU_SET(8, &cores);
    mdm_doctor_cores(&cores, text, sizeof text);
    assert_string_equal(text, "0-3,8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_sound_cluster_has_no_finding, make_sound),
        cmocka_unit_test_setup(another_program_or_library_on_one_host_is_a_problem, make_sound),
        cmocka_unit_test_setup(one_core_of_eight_is_a_warning_with_the_launchers_option, make_sound),
        cmocka_unit_test_setup(ranks_on_the_same_cores_are_told_once_a_host, make_sound),
        cmocka_unit_test_setup(small_limits_are_problems, make_sound),
        cmocka_unit_test_setup(more_findings_than_there_is_room_for_are_counted, make_sound),
        cmocka_unit_test(cores_are_written_as_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
