/* Checkpoints, with every call of a save and of a load going wrong once: it succeeds or tells why not, what
 * was saved before still loads, and nothing is left behind. */
#include "checkpoint_block.h"
#include "failing.h"
#include "mdm/report/checkpoint_file.h"
#include "report_test.h"
#include <dirent.h>
#include <limits.h>

enum { WEIGHTS = 6, ROOM = 1 << 16 };
static const float weight[WEIGHTS] = {0, 1, 2, 3, 4, 5};
static char folder[64];
static char before[ROOM]; /* the checkpoint of epoch 1 */
static size_t before_bytes;

static const char *inside(const char *name) {
    return in_folder((void **)&(char *){folder}, name);
}

static mdm_status save(int64_t epoch, int64_t step, int keep) {
    const int64_t six[1] = {WEIGHTS}, none[1] = {0}, two_three[2] = {2, 3};
    const int32_t counts[WEIGHTS] = {-1, 0, INT32_MAX};
    const uint8_t split[WEIGHTS] = {0, 1, 2};
    const double best = 0.75;
    const struct {
        const char *name;
        mdm_checkpoint_type type;
        int rank;
        const int64_t *dims;
        const void *data;
    } parts[] = {{"network-a/weight", MDM_CHECKPOINT_FLOAT, 2, two_three, weight},
                 {"counts", MDM_CHECKPOINT_INT32, 1, six, counts},
                 {"split", MDM_CHECKPOINT_UINT8, 1, six, split},
                 {"empty", MDM_CHECKPOINT_DOUBLE, 1, none, NULL},
                 {"epoch", MDM_CHECKPOINT_INT64, 0, NULL, &epoch},
                 {"best", MDM_CHECKPOINT_DOUBLE, 0, NULL, &best},
                 {"config", MDM_CHECKPOINT_TEXT, 0, NULL, "seed: 1\n"}};
    mdm_checkpoint_writer *w;
    MDM_TRY(mdm_checkpoint_begin(&w));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        mdm_status status =
            mdm_checkpoint_put(w, parts[i].name, parts[i].type, parts[i].rank, parts[i].dims, parts[i].data);
        if (status == MDM_OK) continue;
        mdm_checkpoint_abandon(w);
        return status;
    }
    return mdm_checkpoint_commit(w, folder, epoch, step, keep);
}

/* All of a checkpoint; its epoch in *epoch, -1 where there is none. */
static mdm_status load_into(int64_t *epoch) {
    float floats[WEIGHTS];
    int32_t counts[WEIGHTS];
    uint8_t split[WEIGHTS];
    double best;
    char *config = NULL;
    mdm_checkpoint *c;
    mdm_status status;
    *epoch = -1;
    MDM_TRY(mdm_checkpoint_open_newest(folder, &c));
    if (!c) return MDM_OK;
    MDM_TRY_OR(status, mdm_checkpoint_get_finite(c, "network-a/weight", WEIGHTS, floats), done);
    MDM_TRY_OR(status, mdm_checkpoint_get(c, "counts", MDM_CHECKPOINT_INT32, WEIGHTS, counts), done);
    MDM_TRY_OR(status, mdm_checkpoint_get(c, "split", MDM_CHECKPOINT_UINT8, WEIGHTS, split), done);
    MDM_TRY_OR(status, mdm_checkpoint_get(c, "best", MDM_CHECKPOINT_DOUBLE, 1, &best), done);
    MDM_TRY_OR(status, mdm_checkpoint_get_text(c, "config", &config), done);
    MDM_TRY_OR(status, mdm_checkpoint_get_integer(c, "epoch", 0, 100, epoch), done);
    if (memcmp(floats, weight, sizeof weight) != 0 || strcmp(config, "seed: 1\n") != 0 ||
        counts[2] != INT32_MAX || split[2] != 2 || best != 0.75)
        status = mdm_fail(MDM_LOST, "other values came back than were saved");
done:
    free(config);
    mdm_checkpoint_close(c);
    return status;
}

static int64_t newest(void) {
    int64_t epoch;
    mdm_status status = load_into(&epoch);
    if (status != MDM_OK) fail_msg("nothing loads any more: %s", mdm_last_message());
    return epoch;
}

static void empty_folder(void) {
    DIR *entries = opendir(folder);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (entry->d_name[0] != '.' || strncmp(entry->d_name, ".epoch", 6) == 0)
            unlink(inside(entry->d_name));
    closedir(entries);
}

/* Two older checkpoints, of which the next one leaves one, and what a killed run left. */
static void begin_with_two(void) {
    empty_folder();
    write_bytes(inside("epoch-0000.h5"), before, before_bytes);
    write_bytes(inside("epoch-0001.h5"), before, before_bytes);
    write_bytes(inside("latest"), "epoch-0001.h5\n", 14);
    write_bytes(inside(".epoch-0007.h5.part"), "stray", 5);
}

static void one_of_two_loads_and_nothing_is_left(mdm_status status) {
    int64_t found = newest();
    assert_true(found == 2 || (status != MDM_OK && found == 1));
    DIR *entries = opendir(folder);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (!strstr(entry->d_name, "0007") &&
            (strstr(entry->d_name, ".part") || strstr(entry->d_name, "tmp")))
            fail_msg("%s is left", entry->d_name);
    closedir(entries);
}

static mdm_status save_second(void) {
    return save(2, MDM_CHECKPOINT_EPOCH_END, 2);
}

static mdm_status save_second_later(void) {
    const int64_t second = 2;
    const double best = 0.75;
    const int32_t counts[WEIGHTS] = {-1, 0, INT32_MAX};
    const uint8_t split[WEIGHTS] = {0, 1, 2};
    mdm_checkpoint_saver *saver;
    mdm_checkpoint_outcome outcome = {MDM_OK, 0, ""};
    const mdm_checkpoint_part parts[] = {{"network-a/weight", MDM_CHECKPOINT_FLOAT, 1, WEIGHTS, weight},
                                         {"counts", MDM_CHECKPOINT_INT32, 1, WEIGHTS, counts},
                                         {"split", MDM_CHECKPOINT_UINT8, 1, WEIGHTS, split},
                                         {"empty", MDM_CHECKPOINT_DOUBLE, 1, 0, NULL},
                                         {"epoch", MDM_CHECKPOINT_INT64, 0, 1, &second},
                                         {"best", MDM_CHECKPOINT_DOUBLE, 0, 1, &best},
                                         {"config", MDM_CHECKPOINT_TEXT, 0, 1, "seed: 1\n"}};
    MDM_TRY(mdm_checkpoint_saver_start(&saver));
    mdm_status status =
        mdm_checkpoint_save_later(saver, parts, 7, folder, second, MDM_CHECKPOINT_EPOCH_END, 2);
    if (status == MDM_OK && mdm_checkpoint_saver_ended(saver, 1, &outcome) && outcome.status != MDM_OK)
        status = mdm_fail(outcome.status, "%s", outcome.message);
    mdm_checkpoint_saver_stop(saver);
    return status;
}

static void the_thread_saved_or_not(mdm_status status) {
    mdm_checkpoint *c;
    int64_t epoch = -1;
    assert_int_equal(mdm_checkpoint_open_newest(folder, &c), MDM_OK);
    assert_int_equal(mdm_checkpoint_get_integer(c, "epoch", 1, 2, &epoch), MDM_OK);
    assert_true(epoch == 2 || status != MDM_OK);
    mdm_checkpoint_close(c);
}

static mdm_status load(void) {
    int64_t epoch;
    return load_into(&epoch);
}

static void a_save_whose_calls_fail_leaves_the_one_before(void **state) {
    (void)state;
    const failing_plan plan = {
        .prepare = begin_with_two, .run = save_second, .check = one_of_two_loads_and_nothing_is_left};
    assert_true(every_call_goes_wrong(&plan) > 100);
}

static void a_save_is_not_harmed_by_short_and_interrupted_calls(void **state) {
    (void)state;
    failing_plan plan = {.prepare = begin_with_two,
                         .run = save_second,
                         .check = one_of_two_loads_and_nothing_is_left,
                         .way = FAILING_SHORT,
                         .harmless = 1};
    assert_true(every_call_goes_wrong(&plan) >= 4);
    plan.way = FAILING_INTERRUPTED;
    assert_true(every_call_goes_wrong(&plan) >= 4);
}

static void a_file_system_without_fsync_of_folders_will_do(void **state) {
    (void)state;
    const failing_plan plan = {.prepare = begin_with_two,
                               .run = save_second,
                               .check = one_of_two_loads_and_nothing_is_left,
                               .only = "fsync",
                               .reason = EINVAL};
    assert_int_equal(every_call_goes_wrong(&plan), 5); /* two files, three times the folder */
}

static void a_thread_whose_calls_fail_leaves_the_one_before(void **state) {
    (void)state;
    const failing_plan plan = {
        .prepare = begin_with_two, .run = save_second_later, .check = the_thread_saved_or_not};
    assert_true(every_call_goes_wrong(&plan) > 100);
}

static void a_load_whose_calls_fail_says_so_and_changes_nothing(void **state) {
    (void)state;
    failing_plan plan = {.run = load};
    begin_with_two();
    unlink(inside("epoch-0000.h5"));
    assert_true(every_call_goes_wrong(&plan) > 50);
    plan.way = FAILING_ENDED;
    assert_true(every_call_goes_wrong(&plan) >= 2);
    plan.harmless = 1;
    plan.way = FAILING_SHORT;
    assert_true(every_call_goes_wrong(&plan) >= 2);
    plan.way = FAILING_INTERRUPTED;
    assert_true(every_call_goes_wrong(&plan) >= 2);
    assert_int_equal(newest(), 1);
}

static void storage_that_gives_back_an_older_file_is_not_trusted(void **state) {
    (void)state;
    begin_with_two();
    failing_opens_instead(".part", inside("epoch-0001.h5"));
    assert_int_equal(save_second(), MDM_RESOURCE);
    failing_opens_instead(NULL, NULL);
    assert_non_null(strstr(mdm_last_message(), "reads back other than it was written"));
    assert_int_equal(newest(), 1);
    assert_int_equal(exists(inside(".epoch-0002.h5.part")), 0);
}

static void paths_that_are_too_long_are_told(void **state) {
    (void)state;
    char path[PATH_MAX + 16];
    mdm_checkpoint *c;
    begin_with_two();
    snprintf(path, sizeof path, "%s", folder);
    while (strlen(path) < PATH_MAX - 10) strcat(path, "/."); /* it can be opened, but nothing in it */
    assert_int_equal(mdm_checkpoint_open_newest(path, &c), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "the path of the run folder is too long"));
    mdm_checkpoint_writer *w;
    assert_int_equal(mdm_checkpoint_begin(&w), MDM_OK);
    assert_int_equal(mdm_checkpoint_commit(w, path, 2, 3, 1), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "the path of the run folder is too long"));
    while (strlen(path) < PATH_MAX) strcat(path, "/.");
    mdm_checkpoint_saver *saver;
    assert_int_equal(mdm_checkpoint_saver_start(&saver), MDM_OK);
    assert_int_equal(mdm_checkpoint_save_later(saver, NULL, 0, path, 2, 3, 1), MDM_RESOURCE);
    mdm_checkpoint_saver_stop(saver);
}

static void what_no_checkpoint_holds_is_refused(void **state) {
    (void)state;
    mdm_checkpoint_writer *w;
    mdm_checkpoint *c;
    char text[8];
    begin_with_two();
    assert_int_equal(mdm_checkpoint_begin(&w), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "a", (mdm_checkpoint_type)99, 0, NULL, text), MDM_USAGE);
    mdm_checkpoint_abandon(w);
    assert_int_equal(mdm_checkpoint_open_newest(folder, &c), MDM_OK);
    assert_int_equal(mdm_checkpoint_get(c, "config", MDM_CHECKPOINT_TEXT, 1, text), MDM_USAGE);
    mdm_checkpoint_close(c);
}

static int make_first(void **state) {
    if (make_test_folder(state) != 0) return -1;
    snprintf(folder, sizeof folder, "%s", (const char *)*state);
    assert_int_equal(save(1, MDM_CHECKPOINT_EPOCH_END, 2), MDM_OK);
    char *content = read_bytes(inside("epoch-0001.h5"), &before_bytes);
    assert_true(before_bytes <= sizeof before);
    memcpy(before, content, before_bytes);
    free(content);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_save_whose_calls_fail_leaves_the_one_before),
        cmocka_unit_test(a_save_is_not_harmed_by_short_and_interrupted_calls),
        cmocka_unit_test(a_file_system_without_fsync_of_folders_will_do),
        cmocka_unit_test(a_thread_whose_calls_fail_leaves_the_one_before),
        cmocka_unit_test(a_load_whose_calls_fail_says_so_and_changes_nothing),
        cmocka_unit_test(storage_that_gives_back_an_older_file_is_not_trusted),
        cmocka_unit_test(paths_that_are_too_long_are_told),
        cmocka_unit_test(what_no_checkpoint_holds_is_refused),
    };
    return cmocka_run_group_tests(tests, make_first, remove_test_folder);
}
