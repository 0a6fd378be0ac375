/* The run folder: made, refused, locked. */
#include "mdm/report/run_folder.h"

#include "report_test.h"

static void a_run_folder_is_made_with_its_inner_ones(void **state) {
    mdm_run_folder *f = NULL;
    const char *path = in_folder(state, "runs/deep/first run");
    assert_int_equal(mdm_run_folder_open(path, &f), MDM_OK);
    assert_int_equal(f->is_new, 1);
    assert_int_equal(exists(in_folder(state, "runs/deep/first run/divisions")), 1);
    assert_int_equal(exists(in_folder(state, "runs/deep/first run/checkpoints")), 1);
    mdm_run_folder_close(f);
    write_bytes(in_folder(state, "runs/deep/first run/checkpoints/epoch-0001.h5"), "", 0);
    assert_int_equal(mdm_run_folder_open(path, &f), MDM_OK);
    assert_int_equal(f->is_new, 0);
    mdm_run_folder_close(f);
}

static void members_have_the_names_of_the_contract(void **state) {
    (void)state;
    char *config = mdm_run_folder_member("r", MDM_RUN_CONFIG),
         *b = mdm_run_folder_member("r", MDM_RUN_MODEL_B), *division = mdm_run_folder_division("r", 7),
         *weights = mdm_run_folder_division_weights("r", 12345, 1);
    assert_string_equal(config, "r/config.yaml");
    assert_string_equal(b, "r/model-b.safetensors");
    assert_string_equal(division, "r/divisions/epoch-0007.h5");
    assert_string_equal(weights, "r/divisions/epoch-12345-b.safetensors");
    free(config);
    free(b);
    free(division);
    free(weights);
}

static void a_file_in_the_way_is_named(void **state) {
    mdm_run_folder *f = NULL;
    const char *path = in_folder(state, "file");
    write_bytes(path, "x", 1);
    assert_int_equal(mdm_run_folder_open(path, &f), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "in the way"));
    assert_int_equal(mdm_run_folder_open(in_folder(state, "file/run"), &f), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), path));
    assert_int_equal(mkdir(in_folder(state, "run"), 0700), 0);
    write_bytes(in_folder(state, "run/checkpoints"), "x", 1);
    assert_int_equal(mdm_run_folder_open(in_folder(state, "run"), &f), MDM_RESOURCE);
    assert_null(f);
}

static void a_place_that_cannot_be_written_is_refused(void **state) {
    mdm_run_folder *f = NULL;
    (void)state;
    assert_int_equal(mdm_run_folder_open("/proc/no-such-run", &f), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "/proc/no-such-run"));
    assert_int_equal(mdm_run_folder_open("/proc/self", &f), MDM_RESOURCE);
}

/* A child process that opens the folder and then waits for the pipe to end. */
static pid_t hold(const char *path, int release[2]) {
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(release), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mdm_run_folder *f = NULL;
        close(release[1]);
        int opened = mdm_run_folder_open(path, &f) == MDM_OK && write(ready[1], "x", 1) == 1;
        close(ready[1]);
        (void)!read(release[0], &byte, 1);
        _exit(opened ? 0 : 1);
    }
    close(ready[1]);
    close(release[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void a_second_run_is_refused_while_the_first_lives(void **state) {
    mdm_run_folder *f = NULL;
    const char *path = in_folder(state, "run");
    char who[256], expected[64];
    int release[2];
    assert_int_equal(mdm_run_folder_alive(path, who, sizeof who), 0);
    pid_t first = hold(path, release);
    assert_int_equal(mdm_run_folder_open(path, &f), MDM_RESOURCE);
    snprintf(expected, sizeof expected, "in use by process %ld on ", (long)first);
    assert_non_null(strstr(mdm_last_message(), expected));
    assert_int_equal(mdm_run_folder_alive(path, who, sizeof who), 1);
    assert_non_null(strstr(who, "process "));
    assert_int_equal(kill(first, SIGKILL), 0);
    assert_int_equal(waitpid(first, NULL, 0), first);
    close(release[1]);
    assert_int_equal(mdm_run_folder_alive(path, who, sizeof who), 0);
    assert_string_equal(who, "");
    assert_int_equal(mdm_run_folder_open(path, &f), MDM_OK);
    mdm_run_folder_close(f);
}

static void what_a_kill_left_half_written_is_removed(void **state) {
    static const char *const left[] = {"run/report.html.tmp-12-0", "run/model-a.safetensors.tmp-12-3",
                                       "run/divisions/epoch-0003.h5.tmp-12-0"};
    static const char *const kept[] = {"run/summary.json.tmp-12-0.old", "run/notes.txt.tmp-12-0",
                                       "run/summary.json", "run/summary.json.tmp-12-x",
                                       "run/divisions/epoch-0003.h5"};
    enum { LEFT = sizeof left / sizeof *left, KEPT = sizeof kept / sizeof *kept };
    mdm_run_folder *f = NULL;
    assert_int_equal(mkdir(in_folder(state, "run"), 0700), 0);
    assert_int_equal(mkdir(in_folder(state, "run/divisions"), 0700), 0);
    for (int i = 0; i < LEFT; i++) write_bytes(in_folder(state, left[i]), "x", 1);
    for (int i = 0; i < KEPT; i++) write_bytes(in_folder(state, kept[i]), "x", 1);
    assert_int_equal(mdm_run_folder_open(in_folder(state, "run"), &f), MDM_OK);
    mdm_run_folder_close(f);
    for (int i = 0; i < LEFT; i++) assert_int_equal(exists(in_folder(state, left[i])), 0);
    for (int i = 0; i < KEPT; i++) assert_int_equal(exists(in_folder(state, kept[i])), 1);
}

static void a_planted_link_is_not_followed(void **state) {
    mdm_run_folder *f = NULL;
    const char *victim = in_folder(state, "victim");
    write_bytes(victim, "precious", 8);
    assert_int_equal(mkdir(in_folder(state, "run"), 0700), 0);
    assert_int_equal(symlink(victim, in_folder(state, "run/.lock")), 0);
    assert_int_equal(mdm_run_folder_open(in_folder(state, "run"), &f), MDM_RESOURCE);
    char *content = read_bytes(victim, NULL);
    assert_string_equal(content, "precious");
    free(content);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_run_folder_is_made_with_its_inner_ones),
        cmocka_unit_test(members_have_the_names_of_the_contract),
        IN_FOLDER(a_file_in_the_way_is_named),
        cmocka_unit_test(a_place_that_cannot_be_written_is_refused),
        IN_FOLDER(a_second_run_is_refused_while_the_first_lives),
        IN_FOLDER(what_a_kill_left_half_written_is_removed),
        IN_FOLDER(a_planted_link_is_not_followed),
    };
    return cmocka_run_group_tests_name("run folder", tests, NULL, NULL);
}
