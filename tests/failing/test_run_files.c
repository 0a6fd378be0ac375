/* Other files of a run, with every call of their writing and reading going wrong once: divisions, weights,
 * and the records of a failure. What was there before stays, or the new one is whole. */
#include "failing.h"
#include "mdm/base/watch.h"
#include "mdm/report/division_file.h"
#include "mdm/report/safetensors.h"
#include "report_test.h"
#include "supervisor.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { N = 5 };
static char path[128], run_folder[64];
static int64_t epoch;

static mdm_status read_division(void) {
    static const uint8_t split[N] = {0, 1, 2, 1, 1};
    static const int32_t neighbour[N] = {1, 0, 4, 2, 3};
    mdm_division d;
    MDM_TRY(mdm_division_read(path, 1, &d));
    int same = d.samples == N && memcmp(d.network[0].split, split, N) == 0;
    if (same && d.network[0].neighbour)
        same = memcmp(d.network[0].neighbour, neighbour, sizeof neighbour) == 0;
    epoch = d.epoch;
    mdm_division_free(&d);
    return same ? MDM_OK : mdm_fail(MDM_LOST, "other values came back than were written");
}

static mdm_status write_division_of(int64_t of) {
    static const float scores[N] = {0, 1, 2, 3, 4};
    static const uint8_t split[N] = {0, 1, 2, 1, 1};
    static const int32_t neighbour[N] = {1, 0, 4, 2, 3};
    mdm_division d = {.epoch = of, .samples = N, .networks = 2, .held_out = split};
    for (int n = 0; n < 2; n++)
        d.network[n] = (mdm_division_network){.loss = scores,
                                              .clean_probability = scores,
                                              .ood_score = scores,
                                              .split = split,
                                              .neighbour = n ? NULL : neighbour,
                                              .embedding = scores,
                                              .embedding_width = 1,
                                              .removed = 1};
    return mdm_division_write(path, &d);
}

static mdm_status write_division(void) {
    return write_division_of(2);
}

static void write_the_first(void) {
    assert_int_equal(write_division_of(1), MDM_OK);
}

static void one_of_two_is_there(mdm_status status) {
    if (read_division() != MDM_OK) fail_msg("%s", mdm_last_message());
    assert_true(epoch == 2 || (status != MDM_OK && epoch == 1));
    assert_int_equal(count_entries(run_folder), 1);
}

static void a_division_is_written_whole_or_not_at_all(void **state) {
    failing_plan plan = {.prepare = write_the_first, .run = write_division, .check = one_of_two_is_there};
    snprintf(path, sizeof path, "%s", in_folder(state, "epoch-0001.h5"));
    snprintf(run_folder, sizeof run_folder, "%s", (const char *)*state);
    assert_true(every_call_goes_wrong(&plan) > 100);
}

static void a_division_that_cannot_be_read_is_told(void **state) {
    const failing_plan plan = {.run = read_division};
    snprintf(path, sizeof path, "%s", in_folder(state, "epoch-0001.h5"));
    write_the_first();
    assert_true(every_call_goes_wrong(&plan) > 100);
}

static mdm_status write_weights_of(float value) {
    const float values[2] = {value, value};
    const mdm_safetensors_entry entries[] = {{"a.weight", 1, {2}, values}, {"b", 0, {0}, values}};
    const mdm_safetensors_note notes[] = {{"format", "pt"}};
    return mdm_safetensors_write(path, entries, 2, notes, 1);
}

static mdm_status write_weights(void) {
    return write_weights_of(2);
}

static void write_the_first_weights(void) {
    assert_int_equal(write_weights_of(1), MDM_OK);
}

static void one_of_two_weights_is_there(mdm_status status) {
    mdm_safetensors *f;
    float values[2];
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_OK);
    assert_int_equal(mdm_safetensors_read(f, mdm_safetensors_find(f, "a.weight"), 2, 1, values), MDM_OK);
    mdm_safetensors_close(f);
    assert_true(values[1] == 2 || (status != MDM_OK && values[1] == 1));
    assert_int_equal(count_entries(run_folder), 1);
}

static void weights_are_written_whole_or_not_at_all(void **state) {
    failing_plan plan = {
        .prepare = write_the_first_weights, .run = write_weights, .check = one_of_two_weights_is_there};
    snprintf(path, sizeof path, "%s", in_folder(state, "a.safetensors"));
    snprintf(run_folder, sizeof run_folder, "%s", (const char *)*state);
    assert_true(every_call_goes_wrong(&plan) > 5);
}

static mdm_status describe_failure(void) {
    char *told = mdm_flight_describe(run_folder);
    if (!told) return mdm_fail(MDM_RESOURCE, "no memory for the records");
    free(told);
    return MDM_OK;
}

static void records_of_a_failure_that_cannot_be_read_do_no_harm(void **state) {
    static const char record[] = "{\"rank\": 0, \"host\": \"here\", \"why\": \"waits\", \"collectives\": 3}";
    const failing_plan plan = {.run = describe_failure, .only = "realloc"}; /* one looks for 4096 files */
    snprintf(run_folder, sizeof run_folder, "%s", (const char *)*state);
    assert_int_equal(mkdir(in_folder(state, "flight"), 0700), 0);
    write_bytes(in_folder(state, "flight/failure"), "error: it waits\n", 16);
    write_bytes(in_folder(state, "flight/rank-0.json"), record, sizeof record - 1);
    assert_true(every_call_goes_wrong(&plan) > 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_division_is_written_whole_or_not_at_all),
        IN_FOLDER(a_division_that_cannot_be_read_is_told),
        IN_FOLDER(weights_are_written_whole_or_not_at_all),
        IN_FOLDER(records_of_a_failure_that_cannot_be_read_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
