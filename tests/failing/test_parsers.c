/* Every parser of users' files, with every call going wrong once while it reads a sound sample. */
#include "failing.h"
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

static void try_every_call(void) {
    failing_plan plan = {.run = read_sample};
    (void)every_call_goes_wrong(&plan);
    plan.way = FAILING_ENDED;
    (void)every_call_goes_wrong(&plan);
    plan.harmless = 1;
    plan.way = FAILING_SHORT;
    (void)every_call_goes_wrong(&plan);
    plan.way = FAILING_INTERRUPTED;
    (void)every_call_goes_wrong(&plan);
}

static void a_parser_whose_calls_fail_says_so_and_keeps_nothing(void **state) {
    (void)state;
    for (int i = 0; i < fuzz_target_count; i++) {
        char path[1024];
        target = &fuzz_targets[i];
        snprintf(path, sizeof path, "%s/%s", MDM_FUZZ_CORPUS, target->name);
        DIR *folder = opendir(path);
        assert_non_null(folder);
        for (const struct dirent *entry; (entry = readdir(folder));) {
            if (entry->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s/%s", MDM_FUZZ_CORPUS, target->name, entry->d_name);
            print_message("%s %s\n", target->name, entry->d_name);
            load_sample(path);
            try_every_call();
        }
        closedir(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parser_whose_calls_fail_says_so_and_keeps_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
