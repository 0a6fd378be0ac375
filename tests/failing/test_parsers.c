/* Every parser of users' files, with every call going wrong once while it reads a sound sample. */
#include "failing.h"
#include "mdm/base/config.h"
#include "mdm/base/text.h"
#include "targets.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 };
static const fuzz_target *target;
static uint8_t sample[MOST_BYTES];
static size_t sample_bytes;

static mdm_status read_sample(void) {
    return target->read(sample, sample_bytes);
}

static void load_sample(const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    sample_bytes = fread(sample, 1, MOST_BYTES, file);
    assert_true(sample_bytes < MOST_BYTES);
    fclose(file);
}

/* In every way; returns how many calls there are that can fail. */
static long calls_that_go_wrong(mdm_status (*run)(void)) {
    failing_plan plan = {.run = run};
    long count = every_call_goes_wrong(&plan);
    plan.way = FAILING_ENDED;
    (void)every_call_goes_wrong(&plan);
    plan.harmless = 1;
    plan.way = FAILING_SHORT;
    (void)every_call_goes_wrong(&plan);
    plan.way = FAILING_INTERRUPTED;
    (void)every_call_goes_wrong(&plan);
    return count;
}

static void a_parser_whose_calls_fail_says_so_and_keeps_nothing(void **state) {
    (void)state;
    long all = 0;
    for (int i = 0; i < fuzz_target_count; i++) {
        char path[1024];
        long count = 0;
        target = &fuzz_targets[i];
        snprintf(path, sizeof path, "%s/%s", MDM_FUZZ_CORPUS, target->name);
        DIR *folder = opendir(path);
        assert_non_null(folder);
        for (const struct dirent *entry; (entry = readdir(folder));) {
            if (entry->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s/%s", MDM_FUZZ_CORPUS, target->name, entry->d_name);
            load_sample(path);
            count += calls_that_go_wrong(read_sample);
        }
        closedir(folder);
        print_message("           %ld calls of %s\n", count, target->name);
        all += count; /* some call nothing that can fail */
    }
    assert_true(all > 200);
}

static mdm_status read_settings(void) {
    mdm_config config;
    mdm_config_defaults(&config);
    return mdm_config_read_yaml(&config, MDM_FUZZ_CORPUS "/yaml/nested");
}

/* The system does not tell how long it is. */
static mdm_status read_a_file_that_grows(void) {
    char *content;
    MDM_TRY(mdm_read_file("/proc/self/status", 1 << 20, &content, NULL));
    free(content);
    return MDM_OK;
}

static void files_that_cannot_be_read_are_told(void **state) {
    (void)state;
    assert_true(calls_that_go_wrong(read_settings) >= 5);
    assert_true(calls_that_go_wrong(read_a_file_that_grows) >= 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parser_whose_calls_fail_says_so_and_keeps_nothing),
        cmocka_unit_test(files_that_cannot_be_read_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
