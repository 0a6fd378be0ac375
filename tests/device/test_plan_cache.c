/* The kept choices of cuDNN's engines: what was put comes back, and no file, however damaged, is believed. */
#include "cuda/plan_cache.h"
#include "golden.h"
#include "mdm/base/text.h"
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

static const char machine[] = "cuDNN 91900, test device, sm_90";
static const mdm_gpu_convolution forward = {MDM_GPU_FORWARD, MDM_BF16, 256, 64, 64, 32, 32, 3, 1};
static char folder[64];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/mdm-test-plans-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* In place and without waiting for the disk. */
static void overwrite(const char *path, const void *content, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(content, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static mdm_plan_choice some_choice(int64_t engine) {
    mdm_plan_choice choice = {.engine = engine, .knob_count = 2, .milliseconds = 0.25f};
    choice.knobs[0] = (mdm_plan_knob){2, 4};
    choice.knobs[1] = (mdm_plan_knob){27, 8};
    return choice;
}

static mdm_plan_cache *open_cache(const char *of) {
    mdm_plan_cache *cache;
    assert_int_equal(mdm_plan_cache_open(folder, of, &cache), MDM_OK);
    return cache;
}

static void put(const char *of, mdm_gpu_convolution shape, int64_t engine) {
    mdm_plan_cache *cache = open_cache(of);
    mdm_plan_choice choice = some_choice(engine);
    mdm_plan_cache_put(cache, &shape, &choice);
    mdm_plan_cache_save(cache);
    mdm_plan_cache_close(cache);
}

/* The engine that a new process would find; -1 for none. */
static int64_t engine_of(const char *of, mdm_gpu_convolution shape) {
    mdm_plan_cache *cache = open_cache(of);
    mdm_plan_choice choice = {.engine = -1};
    (void)mdm_plan_cache_find(cache, &shape, &choice);
    mdm_plan_cache_close(cache);
    return choice.engine;
}

/* The only file of the folder. */
static void find_file(char path[PATH_MAX]) {
    DIR *listing = opendir(folder);
    int count = 0;
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;)
        if (entry->d_name[0] != '.') {
            snprintf(path, PATH_MAX, "%s/%s", folder, entry->d_name);
            count++;
        }
    closedir(listing);
    assert_int_equal(count, 1);
}

static void a_choice_comes_back_as_it_was(void **state) {
    (void)state;
    mdm_plan_choice choice = some_choice(62), found;
    put(machine, forward, 62);
    mdm_plan_cache *cache = open_cache(machine);
    assert_true(mdm_plan_cache_find(cache, &forward, &found));
    assert_memory_equal(&found, &choice, sizeof choice);
    mdm_plan_cache_close(cache);
}

static void every_part_of_the_shape_counts(void **state) {
    (void)state;
    int *numbers;
    mdm_gpu_convolution other;
    put(machine, forward, 62);
    for (size_t i = 0; i < sizeof other / sizeof(int); i++) {
        other = forward;
        numbers = (int *)&other;
        numbers[i]++;
        assert_int_equal(engine_of(machine, other), -1);
    }
}

static void another_device_or_version_has_choices_of_its_own(void **state) {
    (void)state;
    put(machine, forward, 62);
    assert_int_equal(engine_of("cuDNN 92000, test device, sm_90", forward), -1);
}

/* Under the name that the other device's file has. */
static void the_file_of_another_device_is_not_believed(void **state) {
    (void)state;
    char mine[PATH_MAX], theirs[PATH_MAX];
    put("another device", forward, 7);
    find_file(theirs);
    assert_int_equal(unlink(theirs), 0);
    put(machine, forward, 62);
    find_file(mine);
    assert_int_equal(rename(mine, theirs), 0);
    assert_int_equal(engine_of("another device", forward), -1);
    put("another device", forward, 8);
    assert_int_equal(engine_of("another device", forward), 8);
}

static void a_later_choice_replaces_the_first(void **state) {
    (void)state;
    put(machine, forward, 62);
    put(machine, forward, 65);
    assert_int_equal(engine_of(machine, forward), 65);
}

/* Though it is still in the file that is read once more before it is written; until another is put there. */
static void a_choice_that_is_forgotten_is_gone_and_others_stay(void **state) {
    (void)state;
    mdm_gpu_convolution other = forward;
    mdm_plan_choice choice;
    other.batch++;
    put(machine, forward, 62);
    put(machine, other, 63);
    mdm_plan_cache *cache = open_cache(machine);
    assert_int_equal(mdm_plan_cache_forget(cache, &forward), 1);
    assert_int_equal(mdm_plan_cache_forget(cache, &forward), 0);
    assert_int_equal(mdm_plan_cache_find(cache, &forward, &choice), 0);
    mdm_plan_cache_save(cache);
    mdm_plan_cache_close(cache);
    assert_int_equal(engine_of(machine, forward), -1);
    assert_int_equal(engine_of(machine, other), 63);
    put(machine, forward, 64);
    assert_int_equal(engine_of(machine, forward), 64);
}

static void what_others_added_in_the_meantime_is_kept(void **state) {
    (void)state;
    mdm_gpu_convolution backward = forward;
    mdm_plan_choice choice = some_choice(1);
    backward.pass = MDM_GPU_BACKWARD_DATA;
    mdm_plan_cache *early = open_cache(machine);
    put(machine, forward, 62);
    mdm_plan_cache_put(early, &backward, &choice);
    mdm_plan_cache_save(early);
    mdm_plan_cache_close(early);
    assert_int_equal(engine_of(machine, forward), 62);
    assert_int_equal(engine_of(machine, backward), 1);
}

static void a_cut_or_changed_file_counts_as_empty_and_is_written_anew(void **state) {
    (void)state;
    char path[PATH_MAX], *content;
    size_t bytes;
    put(machine, forward, 62);
    find_file(path);
    assert_int_equal(mdm_read_file(path, 1 << 20, &content, &bytes), MDM_OK);
    for (size_t length = 0; length < bytes; length++) {
        overwrite(path, content, length);
        assert_int_equal(engine_of(machine, forward), -1);
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned char flip = (unsigned char)(1u << i % 8);
        content[i] = (char)(content[i] ^ flip);
        overwrite(path, content, bytes);
        assert_int_equal(engine_of(machine, forward), -1);
        content[i] = (char)(content[i] ^ flip);
    }
    put(machine, forward, 65);
    assert_int_equal(engine_of(machine, forward), 65);
    free(content);
}

/* What a damaged file has, a file with more behind its end or of impossible size has too. */
static void a_file_that_is_too_long_counts_as_empty(void **state) {
    (void)state;
    char path[PATH_MAX], *content;
    size_t bytes;
    put(machine, forward, 62);
    find_file(path);
    assert_int_equal(mdm_read_file(path, 1 << 20, &content, &bytes), MDM_OK);
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    assert_int_equal(fputc(0, file), 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(engine_of(machine, forward), -1);
    assert_int_equal(truncate(path, (off_t)1 << 33), 0);
    assert_int_equal(engine_of(machine, forward), -1);
    free(content);
}

/* A file with a right checksum, but for `count` bytes at `at`. */
static void write_forged(const char *path, const char *content, size_t bytes, size_t at, const void *what,
                         size_t count) {
    char *forged = malloc(bytes);
    assert_non_null(forged);
    memcpy(forged, content, bytes);
    memcpy(forged + at, what, count);
    uint64_t sum = XXH3_64bits(forged, bytes - sizeof sum);
    memcpy(forged + bytes - sizeof sum, &sum, sizeof sum);
    overwrite(path, forged, bytes);
    free(forged);
}

static void numbers_that_cannot_be_are_not_believed_behind_a_right_checksum(void **state) {
    (void)state;
    enum { VERSION_AT = 8, COUNT_AT = 12, CHOICE_AT = 256 + 48 };
    char path[PATH_MAX], *content;
    size_t bytes;
    uint32_t version = 99, counts[] = {0, 2, 4097, UINT32_MAX};
    int64_t engine = -1;
    int32_t knobs[] = {-1, MDM_MOST_KNOBS + 1, INT_MAX};
    float times[] = {-1, NAN, INFINITY};
    put(machine, forward, 62);
    find_file(path);
    assert_int_equal(mdm_read_file(path, 1 << 20, &content, &bytes), MDM_OK);
    write_forged(path, content, bytes, CHOICE_AT, &(int64_t){63}, sizeof engine);
    assert_int_equal(engine_of(machine, forward), 63); /* the forgery works */
    write_forged(path, content, bytes, VERSION_AT, &version, sizeof version);
    assert_int_equal(engine_of(machine, forward), -1);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        write_forged(path, content, bytes, COUNT_AT, &counts[i], sizeof *counts);
        assert_int_equal(engine_of(machine, forward), -1);
    }
    write_forged(path, content, bytes, CHOICE_AT, &engine, sizeof engine);
    assert_int_equal(engine_of(machine, forward), -1);
    for (size_t i = 0; i < 3; i++) {
        write_forged(path, content, bytes, CHOICE_AT + 8, &knobs[i], sizeof *knobs);
        assert_int_equal(engine_of(machine, forward), -1);
        write_forged(path, content, bytes, CHOICE_AT + 12, &times[i], sizeof *times);
        assert_int_equal(engine_of(machine, forward), -1);
    }
    free(content);
}

static void where_nothing_can_be_written_choices_last_for_the_process(void **state) {
    (void)state;
    char blocked[128], log[128], *said;
    size_t bytes;
    mdm_plan_cache *cache;
    mdm_plan_choice choice = some_choice(62), found;
    snprintf(blocked, sizeof blocked, "%s/file/plans", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    blocked[strlen(folder) + 5] = '\0';
    assert_int_equal(mdm_write_file(blocked, "", 0), MDM_OK);
    blocked[strlen(folder) + 5] = '/';
    setenv("MDM_DEBUG", "1", 1);
    int kept = dup(STDERR_FILENO);
    assert_non_null(freopen(log, "w", stderr));
    assert_int_equal(mdm_plan_cache_open(blocked, machine, &cache), MDM_OK);
    for (int i = 0; i < 3; i++) {
        mdm_plan_cache_put(cache, &forward, &choice);
        mdm_plan_cache_save(cache);
    }
    fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    unsetenv("MDM_DEBUG");
    assert_true(mdm_plan_cache_find(cache, &forward, &found));
    mdm_plan_cache_close(cache);
    assert_int_equal(mdm_read_file(log, 1 << 16, &said, &bytes), MDM_OK);
    assert_non_null(strstr(said, "debug: cuDNN's plans are not kept for the next start: "));
    assert_ptr_equal(strchr(said, '\n'), said + bytes - 1); /* one line */
    free(said);
}

static void no_folder_is_no_file(void **state) {
    (void)state;
    mdm_plan_cache *cache;
    mdm_plan_choice choice = some_choice(62);
    assert_int_equal(mdm_plan_cache_open("", machine, &cache), MDM_OK);
    mdm_plan_cache_put(cache, &forward, &choice);
    mdm_plan_cache_save(cache);
    mdm_plan_cache_close(cache);
}

/* More than there is room for: the latest are there. */
static void the_oldest_make_room(void **state) {
    (void)state;
    mdm_gpu_convolution shape = forward;
    mdm_plan_choice choice = some_choice(3);
    mdm_plan_cache *cache = open_cache(machine);
    for (shape.batch = 1; shape.batch <= 4100; shape.batch++) mdm_plan_cache_put(cache, &shape, &choice);
    mdm_plan_cache_save(cache);
    mdm_plan_cache_close(cache);
    shape.batch = 4;
    assert_int_equal(engine_of(machine, shape), -1);
    shape.batch = 5;
    assert_int_equal(engine_of(machine, shape), 3);
    shape.batch = 4100;
    assert_int_equal(engine_of(machine, shape), 3);
}

/* Writers replace the whole file: a reader in between always finds a whole one. */
static void processes_that_write_at_once_leave_a_whole_file(void **state) {
    (void)state;
    enum { WRITERS = 4, ROUNDS = 25 };
    pid_t writers[WRITERS];
    put(machine, forward, 62);
    for (int w = 0; w < WRITERS; w++) {
        writers[w] = fork();
        assert_true(writers[w] >= 0);
        if (writers[w] > 0) continue;
        for (int i = 0; i < ROUNDS; i++) {
            mdm_gpu_convolution shape = forward;
            shape.batch = 1000 * w + i + 1;
            put(machine, shape, w);
        }
        _exit(0);
    }
    for (int i = 0; i < 4 * ROUNDS; i++) assert_int_equal(engine_of(machine, forward), 62);
    for (int w = 0; w < WRITERS; w++) {
        int status;
        assert_int_equal(waitpid(writers[w], &status, 0), writers[w]);
        assert_int_equal(status, 0);
    }
    char path[PATH_MAX];
    find_file(path); /* nobody's temporary file is left */
    assert_int_equal(engine_of(machine, forward), 62);
}

static void the_environment_names_the_folder(void **state) {
    (void)state;
    char path[256];
    setenv("HOME", "/home/ada", 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("MDM_CACHE_FOLDER");
    mdm_plan_cache_folder(path, sizeof path);
    assert_string_equal(path, "/home/ada/.cache/mdm-dist");
    setenv("XDG_CACHE_HOME", "relative", 1); /* which the specification has ignored */
    mdm_plan_cache_folder(path, sizeof path);
    assert_string_equal(path, "/home/ada/.cache/mdm-dist");
    setenv("XDG_CACHE_HOME", "/scratch/ada", 1);
    mdm_plan_cache_folder(path, sizeof path);
    assert_string_equal(path, "/scratch/ada/mdm-dist");
    setenv("MDM_CACHE_FOLDER", "plans", 1);
    mdm_plan_cache_folder(path, sizeof path);
    assert_string_equal(path, "plans");
    mdm_plan_cache_folder(path, 4); /* a name that is cut would be another one */
    assert_string_equal(path, "");
    setenv("MDM_CACHE_FOLDER", "", 1);
    mdm_plan_cache_folder(path, sizeof path);
    assert_string_equal(path, "");
    unsetenv("MDM_CACHE_FOLDER");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    mdm_plan_cache_folder(path, sizeof path);
    assert_string_equal(path, "");
}

int main(void) {
#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(a_choice_comes_back_as_it_was),
        IN_A_FOLDER(every_part_of_the_shape_counts),
        IN_A_FOLDER(another_device_or_version_has_choices_of_its_own),
        IN_A_FOLDER(the_file_of_another_device_is_not_believed),
        IN_A_FOLDER(a_later_choice_replaces_the_first),
        IN_A_FOLDER(a_choice_that_is_forgotten_is_gone_and_others_stay),
        IN_A_FOLDER(what_others_added_in_the_meantime_is_kept),
        IN_A_FOLDER(a_cut_or_changed_file_counts_as_empty_and_is_written_anew),
        IN_A_FOLDER(a_file_that_is_too_long_counts_as_empty),
        IN_A_FOLDER(numbers_that_cannot_be_are_not_believed_behind_a_right_checksum),
        IN_A_FOLDER(where_nothing_can_be_written_choices_last_for_the_process),
        IN_A_FOLDER(the_oldest_make_room),
        IN_A_FOLDER(processes_that_write_at_once_leave_a_whole_file),
        cmocka_unit_test(no_folder_is_no_file),
        cmocka_unit_test(the_environment_names_the_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
