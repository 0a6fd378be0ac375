/* Every small sample of every format, cut at every byte: refused, never a crash. */
#include "golden.h"
#include "targets.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *read_sample(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

static void cut(const fuzz_target *t, const uint8_t *bytes, size_t size) {
    for (size_t length = 0; length < size; length++) {
        uint8_t *part = malloc(length + 1); /* of its own, so that reading on is seen */
        assert_non_null(part);
        memcpy(part, bytes, length);
        mdm_status status = t->read(part, length);
        if (t->strict && status != MDM_INPUT)
            fail_msg("%s: the first %zu of %zu bytes give status %d: %s", t->name, length, size, status,
                     mdm_last_message());
        if (status != MDM_OK && status != MDM_INPUT && status != MDM_USAGE)
            fail_msg("%s: the first %zu of %zu bytes give status %d", t->name, length, size, status);
        free(part);
    }
}

static void every_beginning_of_every_sample_is_refused(void **state) {
    (void)state;
    for (int i = 0; i < fuzz_target_count; i++) {
        const fuzz_target *t = &fuzz_targets[i];
        char path[1024];
        int samples = 0;
        snprintf(path, sizeof path, "%s/%s", MDM_FUZZ_CORPUS, t->name);
        DIR *folder = opendir(path);
        assert_non_null(folder);
        for (const struct dirent *entry; (entry = readdir(folder));) {
            size_t size;
            if (entry->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s/%s", MDM_FUZZ_CORPUS, t->name, entry->d_name);
            uint8_t *bytes = read_sample(path, &size);
            mdm_status whole = t->read(bytes, size);
            if (whole != MDM_OK) fail_msg("%s is not sound: %s", path, mdm_last_message());
            cut(t, bytes, size);
            free(bytes);
            samples++;
        }
        closedir(folder);
        assert_true(samples > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_beginning_of_every_sample_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
