/* Checkpoints: whatever happens to the newest, a whole one is found, or the truth is told. */
#include "mdm/report/checkpoint_file.h"

#include "report_test.h"

#include <math.h>

static const float weight[6] = {0, 1, 2, 3, 4, 5};
static const double three_quarters = 0.75;

static mdm_checkpoint_writer *fill(int64_t epoch) {
    const int64_t two_three[2] = {2, 3}, three[1] = {3}, none[1] = {0};
    const int32_t counts[3] = {-1, 0, INT32_MAX};
    const uint8_t split[3] = {0, 1, 2};
    mdm_checkpoint_writer *w = NULL;
    assert_int_equal(mdm_checkpoint_begin(&w), MDM_OK);
    assert_int_equal(
        mdm_checkpoint_put(w, "network-a/encoder.conv1.weight", MDM_CHECKPOINT_FLOAT, 2, two_three, weight),
        MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "counts", MDM_CHECKPOINT_INT32, 1, three, counts), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "split", MDM_CHECKPOINT_UINT8, 1, three, split), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "empty", MDM_CHECKPOINT_DOUBLE, 1, none, NULL), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "epoch", MDM_CHECKPOINT_INT64, 0, NULL, &epoch), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "best", MDM_CHECKPOINT_DOUBLE, 0, NULL, &three_quarters), MDM_OK);
    assert_int_equal(
        mdm_checkpoint_put(w, "config", MDM_CHECKPOINT_TEXT, 0, NULL, "seed: 1\nname: \xC3\xBC\n"), MDM_OK);
    return w;
}

static void save(const char *folder, int64_t epoch, int64_t step, int keep) {
    if (mdm_checkpoint_commit(fill(epoch), folder, epoch, step, keep) != MDM_OK)
        fail_msg("%s", mdm_last_message());
}

/* The epoch stored in the newest whole one; -1: none there; -2: all damaged. */
static int64_t newest(const char *folder) {
    mdm_checkpoint *c = NULL;
    int64_t epoch = -1;
    mdm_status status = mdm_checkpoint_open_newest(folder, &c);
    if (status == MDM_INPUT) return -2;
    assert_int_equal(status, MDM_OK);
    if (c) assert_int_equal(mdm_checkpoint_get_integer(c, "epoch", 0, 1000000, &epoch), MDM_OK);
    mdm_checkpoint_close(c);
    return epoch;
}

static void assert_latest(void **state, const char *expected) {
    char *content = read_bytes(in_folder(state, "latest"), NULL);
    assert_string_equal(content, expected);
    free(content);
}

static void a_checkpoint_round_trips(void **state) {
    mdm_checkpoint *c = NULL;
    float floats[6];
    int32_t counts[3];
    uint8_t split[3];
    double best = 0;
    char *config = NULL;
    save(*state, 12, MDM_CHECKPOINT_EPOCH_END, 2);
    assert_latest(state, "epoch-0012.h5\n");
    assert_int_equal(count_entries(*state), 2);
    assert_int_equal(mdm_checkpoint_open_newest(*state, &c), MDM_OK);
    assert_non_null(c);
    assert_string_equal(mdm_checkpoint_path(c), in_folder(state, "epoch-0012.h5"));
    assert_int_equal(mdm_checkpoint_get_finite(c, "network-a/encoder.conv1.weight", 6, floats), MDM_OK);
    assert_memory_equal(floats, weight, sizeof weight);
    assert_int_equal(mdm_checkpoint_get(c, "counts", MDM_CHECKPOINT_INT32, 3, counts), MDM_OK);
    assert_int_equal(counts[2], INT32_MAX);
    assert_int_equal(mdm_checkpoint_get(c, "split", MDM_CHECKPOINT_UINT8, 3, split), MDM_OK);
    assert_int_equal(split[2], 2);
    assert_int_equal(mdm_checkpoint_get(c, "empty", MDM_CHECKPOINT_DOUBLE, 0, NULL), MDM_OK);
    assert_int_equal(mdm_checkpoint_get(c, "best", MDM_CHECKPOINT_DOUBLE, 1, &best), MDM_OK);
    assert_true(best == 0.75);
    assert_int_equal(mdm_checkpoint_get_text(c, "config", &config), MDM_OK);
    assert_string_equal(config, "seed: 1\nname: \xC3\xBC\n");
    free(config);
    mdm_checkpoint_close(c);
    python_check("checkpoint", in_folder(state, "epoch-0012.h5"));
}

static void what_does_not_fit_is_an_input_error(void **state) {
    mdm_checkpoint *c = NULL;
    float floats[6];
    double best;
    int64_t epoch;
    char *text = NULL;
    save(*state, 12, MDM_CHECKPOINT_EPOCH_END, 2);
    assert_int_equal(mdm_checkpoint_open_newest(*state, &c), MDM_OK);
    assert_int_equal(mdm_checkpoint_get(c, "network-a/encoder.conv1.weight", MDM_CHECKPOINT_FLOAT, 5, floats),
                     MDM_INPUT);
    assert_int_equal(mdm_checkpoint_get(c, "network-a/encoder.conv1.weight", MDM_CHECKPOINT_INT32, 6, floats),
                     MDM_INPUT);
    assert_int_equal(mdm_checkpoint_get(c, "network-a", MDM_CHECKPOINT_FLOAT, 6, floats), MDM_INPUT);
    assert_int_equal(mdm_checkpoint_get(c, "none", MDM_CHECKPOINT_FLOAT, 6, floats), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "none"));
    assert_int_equal(mdm_checkpoint_get(c, "epoch", MDM_CHECKPOINT_DOUBLE, 1, &best), MDM_INPUT);
    assert_int_equal(mdm_checkpoint_get_integer(c, "epoch", 13, 20, &epoch), MDM_INPUT);
    assert_int_equal(mdm_checkpoint_get_text(c, "epoch", &text), MDM_INPUT);
    assert_null(text);
    mdm_checkpoint_close(c);
}

static void weights_that_are_not_finite_are_refused(void **state) {
    const int64_t two[1] = {2};
    const float bad[2] = {1, NAN};
    float out[2];
    mdm_checkpoint_writer *w = NULL;
    mdm_checkpoint *c = NULL;
    assert_int_equal(mdm_checkpoint_begin(&w), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "w", MDM_CHECKPOINT_FLOAT, 1, two, bad), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "w", MDM_CHECKPOINT_FLOAT, 1, two, bad), MDM_RESOURCE);
    assert_int_equal(mdm_checkpoint_commit(w, *state, 0, MDM_CHECKPOINT_EPOCH_END, 1), MDM_OK);
    assert_int_equal(mdm_checkpoint_open_newest(*state, &c), MDM_OK);
    assert_int_equal(mdm_checkpoint_get(c, "w", MDM_CHECKPOINT_FLOAT, 2, out), MDM_OK);
    assert_int_equal(mdm_checkpoint_get_finite(c, "w", 2, out), MDM_INPUT);
    mdm_checkpoint_close(c);
    assert_int_equal(mdm_checkpoint_begin(&w), MDM_OK);
    mdm_checkpoint_abandon(w);
    mdm_checkpoint_abandon(NULL);
}

static void the_same_state_gives_the_same_bytes(void **state) {
    size_t first_bytes, second_bytes;
    save(*state, 12, MDM_CHECKPOINT_EPOCH_END, 2);
    char *first = read_bytes(in_folder(state, "epoch-0012.h5"), &first_bytes);
    sleep(1);
    save(*state, 12, MDM_CHECKPOINT_EPOCH_END, 2);
    char *second = read_bytes(in_folder(state, "epoch-0012.h5"), &second_bytes);
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(first, second, first_bytes);
    free(first);
    free(second);
}

static void the_newest_are_kept_and_steps_go_when_their_epoch_ends(void **state) {
    write_bytes(in_folder(state, "notes.txt"), "mine", 4);
    write_bytes(in_folder(state, ".epoch-0002.h5.part.tmp-99-0"), "stray", 5);
    for (int64_t epoch = 1; epoch <= 4; epoch++) save(*state, epoch, MDM_CHECKPOINT_EPOCH_END, 2);
    assert_int_equal(count_entries(*state), 4); /* two checkpoints, latest, the foreign file */
    assert_int_equal(exists(in_folder(state, "epoch-0003.h5")), 1);
    assert_int_equal(exists(in_folder(state, "notes.txt")), 1);
    save(*state, 5, 100, 2);
    assert_latest(state, "epoch-0005-step-000100.h5\n");
    assert_int_equal(exists(in_folder(state, "epoch-0004.h5")), 1);
    assert_int_equal(newest(*state), 5);
    save(*state, 5, MDM_CHECKPOINT_EPOCH_END, 2);
    assert_int_equal(exists(in_folder(state, "epoch-0005-step-000100.h5")), 0);
    assert_int_equal(exists(in_folder(state, "epoch-0004.h5")), 1);
    assert_int_equal(count_entries(*state), 4);
    save(*state, 6, MDM_CHECKPOINT_EPOCH_END, 0);
    assert_int_equal(count_entries(*state), 3);
    save(*state, 12345, MDM_CHECKPOINT_EPOCH_END, 2);
    assert_int_equal(newest(*state), 12345);
}

static void a_later_one_of_an_abandoned_branch_is_not_taken(void **state) {
    save(*state, 8, MDM_CHECKPOINT_EPOCH_END, 5);
    save(*state, 9, MDM_CHECKPOINT_EPOCH_END, 5);
    save(*state, 8, 3, 5);
    assert_int_equal(newest(*state), 8);
    assert_int_equal(exists(in_folder(state, "epoch-0009.h5")), 1);
}

static void no_checkpoint_is_a_fresh_start(void **state) {
    assert_int_equal(newest(*state), -1);
    assert_int_equal(newest(in_folder(state, "none")), -1);
    write_bytes(in_folder(state, "epoch-12.h5"), "not our name", 12);
    write_bytes(in_folder(state, "epoch-0012.h5.bak"), "not our name", 12);
    assert_int_equal(newest(*state), -1);
}

static void a_pointer_that_leads_nowhere_falls_back_to_the_newest(void **state) {
    static const char *const pointers[] = {"epoch-0099.h5\n",
                                           "",
                                           "\n",
                                           "../x\n",
                                           "epoch-0002.h5/../epoch-0001.h5\n",
                                           "/etc/passwd\n",
                                           "epoch-2.h5\n",
                                           "epoch--002.h5\n",
                                           "\x01\xff\xfe\n",
                                           "epoch-0099999999999999999999999999.h5\n"};
    int warnings;
    const char *latest = in_folder(state, "latest");
    save(*state, 1, MDM_CHECKPOINT_EPOCH_END, 3);
    save(*state, 2, MDM_CHECKPOINT_EPOCH_END, 3);
    for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++) {
        write_bytes(latest, pointers[i], strlen(pointers[i]));
        count_warnings(&warnings);
        assert_int_equal(newest(*state), 2);
        assert_int_equal(warnings, 1);
    }
    assert_int_equal(unlink(latest), 0);
    assert_int_equal(newest(*state), 2);
    assert_int_equal(symlink(in_folder(state, "epoch-0001.h5"), latest), 0);
    assert_int_equal(newest(*state), 2);
    assert_int_equal(unlink(latest), 0);
    assert_int_equal(mkdir(latest, 0700), 0);
    assert_int_equal(newest(*state), 2);
    assert_int_equal(rmdir(latest), 0);
    write_bytes(latest, "epoch-0001.h5\n", 14);
    assert_int_equal(newest(*state), 1);
}

static void a_named_path_is_followed_through_links_and_latest(void **state) {
    mdm_checkpoint *c = NULL;
    save(*state, 1, MDM_CHECKPOINT_EPOCH_END, 3);
    save(*state, 2, MDM_CHECKPOINT_EPOCH_END, 3);
    assert_int_equal(mdm_checkpoint_open_named(in_folder(state, "latest"), &c), MDM_OK);
    assert_string_equal(mdm_checkpoint_path(c), in_folder(state, "epoch-0002.h5"));
    mdm_checkpoint_close(c);
    assert_int_equal(symlink("epoch-0001.h5", in_folder(state, "mine")), 0);
    assert_int_equal(mdm_checkpoint_open_named(in_folder(state, "mine"), &c), MDM_OK);
    assert_string_equal(mdm_checkpoint_path(c), in_folder(state, "epoch-0001.h5"));
    mdm_checkpoint_close(c);
    assert_int_equal(mdm_checkpoint_open_named(*state, &c), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "is a folder"));
    assert_int_equal(unlink(in_folder(state, "epoch-0002.h5")), 0);
    assert_int_equal(mdm_checkpoint_open_named(in_folder(state, "latest"), &c), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "epoch-0002.h5: No such file"));
    write_bytes(in_folder(state, "latest"), "epoch-0001\n", 11);
    assert_int_equal(mdm_checkpoint_open_named(in_folder(state, "latest"), &c), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "latest is damaged"));
    assert_null(c);
}

static void all_are_removed_or_one_that_stays_is_named(void **state) {
    for (int64_t epoch = 1; epoch <= 3; epoch++) save(*state, epoch, MDM_CHECKPOINT_EPOCH_END, 3);
    save(*state, 4, 2, 3);
    assert_int_equal(mdm_checkpoint_remove_all(*state), MDM_OK);
    assert_int_equal(count_entries(*state), 0);
    assert_int_equal(mdm_checkpoint_remove_all(*state), MDM_OK);
    assert_int_equal(mkdir(in_folder(state, "epoch-0001.h5"), 0700), 0);
    assert_int_equal(mdm_checkpoint_remove_all(*state), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "epoch-0001.h5 of the run before"));
    assert_int_equal(rmdir(in_folder(state, "epoch-0001.h5")), 0);
}

static void a_damaged_one_is_passed_over_and_kept(void **state) {
    int warnings;
    for (int64_t epoch = 1; epoch <= 3; epoch++) save(*state, epoch, MDM_CHECKPOINT_EPOCH_END, 3);
    flip_bit(in_folder(state, "epoch-0003.h5"), 1000, 4);
    count_warnings(&warnings);
    assert_int_equal(newest(*state), 2);
    assert_int_equal(warnings, 1);
    assert_int_equal(truncate(in_folder(state, "epoch-0002.h5"), 700), 0);
    assert_int_equal(newest(*state), 1);
    flip_bit(in_folder(state, "epoch-0001.h5"), 3, 4);
    count_warnings(&warnings);
    assert_int_equal(newest(*state), -2);
    assert_int_equal(warnings, 3);
    assert_non_null(strstr(mdm_last_message(), "resume=never"));
    assert_int_equal(count_entries(*state), 4);
}

static void every_truncation_and_every_flipped_bit_is_found(void **state) {
    const char *bad = in_folder(state, "bad.h5");
    mdm_checkpoint *c = NULL;
    size_t bytes;
    save(*state, 12, MDM_CHECKPOINT_EPOCH_END, 1);
    char *content = read_bytes(in_folder(state, "epoch-0012.h5"), &bytes);
    write_bytes(bad, content, bytes);
    for (size_t i = 0; i < bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            if (i >= 512 && bit != (int)(i % 8))
                continue; /* all bits of the user block, one of every other byte */
            flip_bit(bad, i, bit);
            if (mdm_checkpoint_open(bad, &c) != MDM_INPUT)
                fail_msg("bit %d of byte %zu was not found", bit, i);
            flip_bit(bad, i, bit);
        }
    assert_int_equal(mdm_checkpoint_open(bad, &c), MDM_OK);
    mdm_checkpoint_close(c);
    assert_int_equal(truncate(bad, (off_t)bytes + 1), 0);
    assert_int_equal(mdm_checkpoint_open(bad, &c), MDM_INPUT);
    for (size_t n = bytes; n-- > 0;) {
        assert_int_equal(truncate(bad, (off_t)n), 0);
        assert_int_equal(mdm_checkpoint_open(bad, &c), MDM_INPUT);
        assert_null(c);
    }
    free(content);
}

static void two_can_be_open_at_once(void **state) {
    mdm_checkpoint *c[2] = {NULL, NULL};
    int64_t epoch = 0;
    save(*state, 1, MDM_CHECKPOINT_EPOCH_END, 2);
    mdm_checkpoint_writer *unfinished = fill(3);
    save(*state, 2, MDM_CHECKPOINT_EPOCH_END, 2);
    assert_int_equal(mdm_checkpoint_open(in_folder(state, "epoch-0001.h5"), &c[0]), MDM_OK);
    assert_int_equal(mdm_checkpoint_open(in_folder(state, "epoch-0002.h5"), &c[1]), MDM_OK);
    assert_int_equal(mdm_checkpoint_get_integer(c[0], "epoch", 1, 1, &epoch), MDM_OK);
    mdm_checkpoint_close(c[0]);
    assert_int_equal(mdm_checkpoint_get_integer(c[1], "epoch", 2, 2, &epoch), MDM_OK);
    mdm_checkpoint_close(c[1]);
    mdm_checkpoint_abandon(unfinished);
}

static void another_format_is_named(void **state) {
    mdm_checkpoint *c = NULL;
    char *content;
    size_t bytes;
    save(*state, 12, MDM_CHECKPOINT_EPOCH_END, 1);
    content = read_bytes(in_folder(state, "epoch-0012.h5"), &bytes);
    for (int format = 1; format <= 7; format += 6) {
        char wanted[16];
        content[strlen("mdm-dist checkpoint ")] = (char)('0' + format);
        write_bytes(in_folder(state, "epoch-0013.h5"), content, bytes);
        assert_int_equal(mdm_checkpoint_open(in_folder(state, "epoch-0013.h5"), &c), MDM_INPUT);
        snprintf(wanted, sizeof wanted, "format %d", format);
        assert_non_null(strstr(mdm_last_message(), wanted));
    }
    free(content);
    assert_int_equal(mdm_checkpoint_open(in_folder(state, "none.h5"), &c), MDM_INPUT);
    assert_int_equal(mdm_checkpoint_open(*state, &c), MDM_INPUT);
    assert_int_equal(mkfifo(in_folder(state, "pipe"), 0600), 0);
    assert_int_equal(mdm_checkpoint_open(in_folder(state, "pipe"), &c), MDM_INPUT);
}

/* A checkpoint whose one array has `count` floats. */
static mdm_status save_large(const char *folder, int64_t epoch, int64_t count) {
    float *data = calloc((size_t)count, sizeof *data);
    mdm_checkpoint_writer *w = fill(epoch);
    assert_int_equal(mdm_checkpoint_put(w, "large", MDM_CHECKPOINT_FLOAT, 1, &count, data), MDM_OK);
    free(data);
    return mdm_checkpoint_commit(w, folder, epoch, MDM_CHECKPOINT_EPOCH_END, 2);
}

static void without_room_the_previous_one_stays(void **state) {
    struct rlimit limit, small;
    save(*state, 1, MDM_CHECKPOINT_EPOCH_END, 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 50000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(save_large(*state, 2, 100000), MDM_RESOURCE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_non_null(strstr(mdm_last_message(), "epoch-0002.h5 not saved"));
    assert_non_null(strstr(mdm_last_message(), *state));
    assert_int_equal(newest(*state), 1);
    assert_int_equal(count_entries(*state), 2);
    assert_int_equal(mdm_checkpoint_commit(fill(3), in_folder(state, "none"), 3, MDM_CHECKPOINT_EPOCH_END, 1),
                     MDM_RESOURCE);
    assert_int_equal(save_large(*state, 2, 100000), MDM_OK);
    assert_int_equal(newest(*state), 2);
}

static void a_full_disk_never_costs_the_previous_one(void **state) {
    const char *disk = mount_small_disk(state, 256 * 1024);
    if (!disk) skip();
    char filler[512];
    static char zeros[256 * 1024];
    snprintf(filler, sizeof filler, "%s/filler", disk);
    int saved = 0, refused = 0;
    save(disk, 1, MDM_CHECKPOINT_EPOCH_END, 2);
    for (size_t used = 0; used <= 228 * 1024; used += 12 * 1024) {
        FILE *file = fopen(filler, "wb"); /* takes what there is, if it is less */
        assert_non_null(file);
        (void)!fwrite(zeros, 1, used, file);
        (void)!fclose(file);
        mdm_status status = save_large(disk, 2, 20000);
        assert_true(status == MDM_OK || status == MDM_RESOURCE);
        if (status == MDM_OK)
            saved++;
        else
            refused++;
        int64_t epoch = newest(disk);
        assert_true(epoch == (status == MDM_OK || saved > 0 ? 2 : 1));
        assert_int_equal(unlink(filler), 0);
    }
    assert_true(saved > 0 && refused > 0);
    unmount_small_disk(disk);
}

/* A child saves without end and is killed at some moment; a whole checkpoint must be there every time, and
 * what `latest` names must be whole. */
static void a_kill_at_any_moment_leaves_a_whole_one(void **state) {
    int64_t epoch = 1, before = 0;
    double start = mdm_seconds();
    assert_int_equal(save_large(*state, epoch, 23000), MDM_OK); /* the largest of the child's */
    double one_save = mdm_seconds() - start;
    for (int round = 0; round < 40 || (epoch == 1 && round < 400); round++) { /* a busy machine: longer */
        before = newest(*state);
        assert_true(before >= 1);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            for (int64_t e = before + 1;; e++)
                if (save_large(*state, e, 5000 + e % 7 * 3000) != MDM_OK) _exit(1);
        usleep((useconds_t)(one_save * 1e6 *
                            (0.5 + round * 0.2))); /* in the first to eighth save of this child */
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        int warnings;
        count_warnings(&warnings);
        epoch = newest(*state);
        assert_true(epoch >= before);
        assert_int_equal(warnings, 0);
    }
    assert_true(epoch > 1);
    save(*state, epoch + 1, MDM_CHECKPOINT_EPOCH_END, 1);
    save(*state, epoch + 2, MDM_CHECKPOINT_EPOCH_END, 1);
    assert_int_equal(count_entries(*state), 2);
}

enum { SAVE_LATER, ONLY_PREPARE };

/* The same as fill(), for the thread. */
static mdm_status ask_thread(mdm_checkpoint_saver *saver, int what, const char *folder, int64_t epoch,
                             const char *config) {
    static const int32_t counts[3] = {-1, 0, INT32_MAX};
    static const uint8_t split[3] = {0, 1, 2};
    static const double best = 0.75;
    const mdm_checkpoint_part parts[] = {
        {"weight", MDM_CHECKPOINT_FLOAT, 1, 6, weight}, {"counts", MDM_CHECKPOINT_INT32, 1, 3, counts},
        {"split", MDM_CHECKPOINT_UINT8, 1, 3, split},   {"empty", MDM_CHECKPOINT_DOUBLE, 1, 0, NULL},
        {"epoch", MDM_CHECKPOINT_INT64, 0, 1, &epoch},  {"best", MDM_CHECKPOINT_DOUBLE, 0, 1, &best},
        {"config", MDM_CHECKPOINT_TEXT, 0, 1, config}};
    if (what == ONLY_PREPARE) return mdm_checkpoint_saver_prepare(saver, parts, 7);
    return mdm_checkpoint_save_later(saver, parts, 7, folder, epoch, MDM_CHECKPOINT_EPOCH_END, 2);
}

static mdm_status save_later(mdm_checkpoint_saver *saver, const char *folder, int64_t epoch,
                             const char *config) {
    return ask_thread(saver, SAVE_LATER, folder, epoch, config);
}

/* The same as save_later(), by the caller itself. */
static void save_now(const char *folder, int64_t epoch, const char *config) {
    const int64_t six[1] = {6}, three[1] = {3}, none[1] = {0};
    const int32_t counts[3] = {-1, 0, INT32_MAX};
    const uint8_t split[3] = {0, 1, 2};
    mdm_checkpoint_writer *w = NULL;
    assert_int_equal(mdm_checkpoint_begin(&w), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "weight", MDM_CHECKPOINT_FLOAT, 1, six, weight), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "counts", MDM_CHECKPOINT_INT32, 1, three, counts), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "split", MDM_CHECKPOINT_UINT8, 1, three, split), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "empty", MDM_CHECKPOINT_DOUBLE, 1, none, NULL), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "epoch", MDM_CHECKPOINT_INT64, 0, NULL, &epoch), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "best", MDM_CHECKPOINT_DOUBLE, 0, NULL, &three_quarters), MDM_OK);
    assert_int_equal(mdm_checkpoint_put(w, "config", MDM_CHECKPOINT_TEXT, 0, NULL, config), MDM_OK);
    assert_int_equal(mdm_checkpoint_commit(w, folder, epoch, MDM_CHECKPOINT_EPOCH_END, 2), MDM_OK);
}

static void a_thread_saves_the_same_bytes_while_the_caller_goes_on(void **state) {
    mdm_checkpoint_saver *saver = NULL;
    mdm_checkpoint_outcome outcome;
    size_t bytes, other_bytes;
    assert_int_equal(mdm_checkpoint_saver_start(&saver), MDM_OK);
    assert_int_equal(mdm_checkpoint_saver_ended(saver, 1, &outcome), 0); /* nothing to wait for */
    assert_int_equal(ask_thread(saver, ONLY_PREPARE, NULL, 0, "seed: 1"), MDM_OK);
    assert_int_equal(mdm_checkpoint_saver_ended(saver, 1, &outcome), 0); /* that was no save */
    assert_int_equal(count_entries(*state), 0);
    for (int64_t epoch = 1; epoch <= 20; epoch++) { /* one after another, without asking between */
        /* the form is filled in again, and made anew when the text grows longer */
        assert_int_equal(save_later(saver, *state, epoch, epoch < 10 ? "seed: 1" : "seed: 12"), MDM_OK);
        if (epoch % 3 == 0) (void)mdm_checkpoint_saver_ended(saver, 0, &outcome);
    }
    assert_int_equal(mdm_checkpoint_saver_ended(saver, 1, &outcome), 1);
    assert_int_equal(outcome.status, MDM_OK);
    assert_true(outcome.seconds > 0);
    assert_int_equal(mdm_checkpoint_saver_ended(saver, 1, &outcome), 0); /* told once */
    assert_latest(state, "epoch-0020.h5\n");
    assert_int_equal(count_entries(*state), 3); /* two are kept, and `latest` */
    char *content = read_bytes(in_folder(state, "epoch-0020.h5"), &bytes);
    save_now(*state, 20, "seed: 12");
    char *other = read_bytes(in_folder(state, "epoch-0020.h5"), &other_bytes);
    assert_int_equal(bytes, other_bytes);
    assert_memory_equal(content, other, bytes);
    free(content);
    free(other);
    assert_int_equal(save_later(saver, *state, 21, "seed: 12"), MDM_OK);
    mdm_checkpoint_saver_stop(saver); /* finishes it */
    assert_latest(state, "epoch-0021.h5\n");
}

static void a_thread_that_cannot_save_says_so_and_tries_again(void **state) {
    mdm_checkpoint_saver *saver = NULL;
    mdm_checkpoint_outcome outcome;
    char nowhere[1100];
    save(*state, 1, MDM_CHECKPOINT_EPOCH_END, 2);
    snprintf(nowhere, sizeof nowhere, "%s", in_folder(state, "no-such-folder"));
    assert_int_equal(mdm_checkpoint_saver_start(&saver), MDM_OK);
    assert_int_equal(mdm_fail(MDM_NUMERIC, "another failure"), MDM_NUMERIC);
    assert_int_equal(save_later(saver, nowhere, 2, "seed: 1"), MDM_OK);
    assert_int_equal(mdm_checkpoint_saver_ended(saver, 1, &outcome), 1);
    assert_int_equal(outcome.status, MDM_RESOURCE);
    assert_non_null(strstr(outcome.message, "epoch-0002.h5 not saved"));
    assert_string_equal(mdm_last_message(), "another failure");
    assert_int_equal(newest(*state), 1);
    assert_int_equal(save_later(saver, *state, 3, "seed: 1"), MDM_OK);
    assert_int_equal(mdm_checkpoint_saver_ended(saver, 1, &outcome), 1);
    assert_int_equal(outcome.status, MDM_OK);
    assert_int_equal(newest(*state), 3);
    mdm_checkpoint_saver_stop(saver);
    mdm_checkpoint_saver_stop(NULL);
}

static void a_planted_link_is_not_written_through(void **state) {
    const char *victim = in_folder(state, "victim");
    write_bytes(victim, "precious", 8);
    assert_int_equal(symlink(victim, in_folder(state, "epoch-0001.h5")), 0);
    assert_int_equal(symlink(victim, in_folder(state, ".epoch-0001.h5.part")), 0);
    assert_int_equal(symlink(victim, in_folder(state, "latest")), 0);
    save(*state, 1, MDM_CHECKPOINT_EPOCH_END, 1);
    char *content = read_bytes(victim, NULL);
    assert_string_equal(content, "precious");
    free(content);
    assert_int_equal(newest(*state), 1);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_checkpoint_round_trips),
        IN_FOLDER(what_does_not_fit_is_an_input_error),
        IN_FOLDER(weights_that_are_not_finite_are_refused),
        IN_FOLDER(the_same_state_gives_the_same_bytes),
        IN_FOLDER(the_newest_are_kept_and_steps_go_when_their_epoch_ends),
        IN_FOLDER(a_later_one_of_an_abandoned_branch_is_not_taken),
        IN_FOLDER(no_checkpoint_is_a_fresh_start),
        IN_FOLDER(a_pointer_that_leads_nowhere_falls_back_to_the_newest),
        IN_FOLDER(a_named_path_is_followed_through_links_and_latest),
        IN_FOLDER(all_are_removed_or_one_that_stays_is_named),
        IN_FOLDER(a_damaged_one_is_passed_over_and_kept),
        IN_FOLDER(every_truncation_and_every_flipped_bit_is_found),
        IN_FOLDER(two_can_be_open_at_once),
        IN_FOLDER(another_format_is_named),
        IN_FOLDER(without_room_the_previous_one_stays),
        IN_FOLDER(a_full_disk_never_costs_the_previous_one),
        IN_FOLDER(a_kill_at_any_moment_leaves_a_whole_one),
        IN_FOLDER(a_thread_saves_the_same_bytes_while_the_caller_goes_on),
        IN_FOLDER(a_thread_that_cannot_save_says_so_and_tries_again),
        IN_FOLDER(a_planted_link_is_not_written_through),
    };
    signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("checkpoint file", tests, NULL, NULL);
}
