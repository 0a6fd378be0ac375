/* The store on 1 to 4 ranks: pictures and labels are those of the file whether they are resident, streamed or
 * unpacked, and what is wrong is told alike on all ranks. */
#include "dataset_test.h"
#include "mdm/data/store.h"
#include "places.h"
#include "store_stream.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TRAIN = 37, TEST = 11, H = 5, W = 4, C = 3, CLASSES = 5, BYTES = H * W * C };

static mdm_comm *comm;
static int rank;
static char folder[256];

static const char *path_of(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* Writes a file on rank 0 (chunk > 0: compressed) while the others wait. */
static void write_file(const char *path, int64_t train, int64_t test, int classes, int names, hsize_t chunk) {
    if (rank == 0) {
        static const char *const class_names[] = {"ant", "bee", "cat", "dog", "eel", "fox", "gnu"};
        mdm_dataset *d = small_dataset(train, test, H, W, C, classes);
        if (names) {
            assert_int_equal(mdm_dataset_set_class_names(d, class_names, classes), MDM_OK);
            assert_int_equal(MDM_ALLOCATE(d->ids, train, "ids"), MDM_OK);
            for (int64_t i = 0; i < train; i++) {
                char id[32];
                snprintf(id, sizeof id, "picture-%lld", (long long)i);
                d->ids[i] = strdup(id);
            }
        }
        assert_int_equal(mdm_dataset_write(path, d, 1), MDM_OK);
        if (chunk) compress(path, d, chunk);
        mdm_dataset_destroy(d);
    }
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
}

/* Fetches in three steps, with repeats, announced and not, from both splits by turns. */
static void assert_pictures(mdm_store *store) {
    const int64_t steps[3][6] = {{3, 36, 3, 0, 17, 3}, {36, 35, 34, 1, 2, 0}, {5, 5, 5, 5, 5, 5}};
    const uint8_t *pictures[6];
    for (int round = 0; round < 6; round++)
        for (int split = 0; split < 2; split++) {
            int64_t index[6];
            for (int i = 0; i < 6; i++) index[i] = steps[round % 3][i] % (split ? TEST : TRAIN);
            if (round < 4) assert_int_equal(mdm_store_prefetch(store, (mdm_split)split, index, 6), MDM_OK);
            if (round == 2) index[0] = 1; /* not what was announced */
            assert_int_equal(mdm_store_fetch(store, (mdm_split)split, index, 6, pictures), MDM_OK);
            for (int i = 0; i < 6; i++)
                for (int b = 0; b < BYTES; b++)
                    assert_int_equal(pictures[i][b], pixel_of(split, index[i], b));
        }
    assert_int_equal(mdm_store_prefetch(store, MDM_TRAIN, NULL, 0), MDM_OK);
    assert_int_equal(mdm_store_fetch(store, MDM_TRAIN, NULL, 0, NULL), MDM_OK);
}

static void assert_content(mdm_store *store, int resident, int names) {
    const mdm_store_info *info = mdm_store_get_info(store);
    assert_int_equal(info->train_count, TRAIN);
    assert_int_equal(info->test_count, TEST);
    assert_true(info->height == H && info->width == W && info->channels == C);
    assert_int_equal(info->classes, CLASSES);
    assert_int_equal(info->resident, resident);
    assert_true(info->mean[2] > 0 && info->std[2] > 0);
    for (int64_t i = 0; i < TRAIN; i++) {
        assert_int_equal(mdm_store_labels(store, MDM_TRAIN)[i], i % CLASSES);
        assert_int_equal(mdm_store_true_labels(store)[i], i % 7 == 0 ? -1 : i % CLASSES);
        char id[32];
        snprintf(id, sizeof id, "picture-%lld", (long long)i);
        if (names)
            assert_string_equal(mdm_store_id(store, i), id);
        else
            assert_null(mdm_store_id(store, i));
    }
    for (int64_t i = 0; i < TEST; i++)
        assert_int_equal(mdm_store_labels(store, MDM_TEST)[i], (i + 1) % CLASSES);
    if (names) assert_string_equal(mdm_store_class_name(store, 4), "eel");
    assert_null(mdm_store_class_name(store, CLASSES));
    assert_pictures(store);
}

static void every_way_of_keeping_pictures_gives_those_of_the_file(void **state) {
    (void)state;
    static const struct {
        mdm_resident asked;
        int resident;
    } ways[] = {{MDM_RESIDENT_AUTO, 1}, {MDM_RESIDENT_HOST, 1}, {MDM_RESIDENT_STREAM, 0}};
    for (int chunk = 0; chunk < 6; chunk += 5) {
        uint64_t fingerprint = 0;
        const char *path = path_of("whole.h5");
        write_file(path, TRAIN, TEST, CLASSES, 1, (hsize_t)chunk);
        for (int i = 0; i < 3; i++) {
            mdm_store *store;
            assert_int_equal(mdm_store_open(comm, path, ways[i].asked, &store), MDM_OK);
            assert_content(store, ways[i].resident, 1);
            uint64_t found = mdm_store_get_info(store)->fingerprint;
            if (i > 0) assert_true(found == fingerprint);
            fingerprint = found;
            assert_int_equal(mdm_store_let_go(store), MDM_OK);
            assert_content(store, 0, 1);
            mdm_store_close(store);
        }
    }
}

static void a_file_without_test_set_names_or_ids_is_enough(void **state) {
    (void)state;
    mdm_store *store;
    const char *path = path_of("plain.h5");
    write_file(path, TRAIN, 0, CLASSES, 0, 0);
    for (int stream = 0; stream < 2; stream++) {
        assert_int_equal(mdm_store_open(comm, path, stream ? MDM_RESIDENT_STREAM : MDM_RESIDENT_HOST, &store),
                         MDM_OK);
        assert_int_equal(mdm_store_get_info(store)->test_count, 0);
        assert_int_equal(mdm_store_get_info(store)->classes, CLASSES);
        assert_null(mdm_store_labels(store, MDM_TEST));
        assert_null(mdm_store_id(store, 0));
        assert_int_equal(mdm_store_prefetch(store, MDM_TEST, NULL, 0), MDM_OK);
        assert_int_equal(mdm_store_fetch(store, MDM_TEST, NULL, 0, NULL), MDM_OK);
        mdm_store_close(store);
    }
}

static void the_test_set_may_come_from_either_group_of_another_file(void **state) {
    (void)state;
    for (int group = 0; group < 2; group++)
        for (int stream = 0; stream < 2; stream++) {
            const char *path = path_of("train.h5"), *other = path_of("other.h5");
            mdm_store *store;
            const uint8_t *picture;
            int64_t last = 8;
            write_file(path, TRAIN, TEST, CLASSES, 0, 0);
            write_file(other, group ? 20 : 9, group ? 9 : 0, 7, 0, 0); /* two more classes */
            mdm_resident how = stream ? MDM_RESIDENT_STREAM : MDM_RESIDENT_HOST;
            assert_int_equal(mdm_store_open_with_test(comm, path, other, how, &store), MDM_OK);
            assert_int_equal(mdm_store_get_info(store)->test_count, 9);
            assert_int_equal(mdm_store_get_info(store)->classes, 7);
            assert_int_equal(mdm_store_labels(store, MDM_TEST)[last], group ? (last + 1) % 7 : last % 7);
            assert_int_equal(mdm_store_fetch(store, MDM_TEST, &last, 1, &picture), MDM_OK);
            for (int b = 0; b < BYTES; b++) assert_int_equal(picture[b], pixel_of(group, last, b));
            assert_int_equal(mdm_store_fetch(store, MDM_TRAIN, &last, 1, &picture), MDM_OK);
            for (int b = 0; b < BYTES; b++) assert_int_equal(picture[b], pixel_of(0, last, b));
            mdm_store_close(store);
        }
}

static void statistics_of_a_network_stand_in_for_missing_ones_and_runs_are_announced(void **state) {
    (void)state;
    const float mean[3] = {0.25f, 0.5f, 0.75f}, std[3] = {1, 2, 3};
    const uint8_t *pictures[TRAIN];
    const char *path = path_of("judged.h5");
    mdm_store *store;
    write_file(path, TRAIN, TEST, CLASSES, 0, 0);
    if (rank == 0) {
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(H5Adelete(file, "mean") >= 0 && H5Adelete(file, "std") >= 0 && H5Fclose(file) >= 0);
    }
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
    assert_int_equal(mdm_store_open_to_judge(comm, path, NULL, mean, std, &store), MDM_OK);
    for (int c = 0; c < mdm_store_get_info(store)->channels; c++) {
        assert_true(mdm_store_get_info(store)->mean[c] == mean[c]);
        assert_true(mdm_store_get_info(store)->std[c] == std[c]);
    }
    for (int64_t first = 0, count; first < TRAIN; first += count) {
        count = TRAIN - first < 7 ? TRAIN - first : 7;
        assert_int_equal(mdm_store_fetch_run(store, MDM_TRAIN, first, count, TRAIN, pictures), MDM_OK);
        for (int64_t i = 0; i < count; i++)
            for (int b = 0; b < BYTES; b++) assert_int_equal(pictures[i][b], pixel_of(0, first + i, b));
    }
    mdm_store_close(store);
}

static void a_test_file_with_unknown_classes_is_refused_by_sample(void **state) {
    (void)state;
    mdm_store *store;
    write_file(path_of("named.h5"), TRAIN, TEST, CLASSES, 1, 0);
    write_file(path_of("more.h5"), 9, 0, 7, 0, 0);
    assert_int_equal(
        mdm_store_open_with_test(comm, path_of("named.h5"), path_of("more.h5"), MDM_RESIDENT_HOST, &store),
        MDM_INPUT);
    assert_null(store);
    assert_non_null(
        strstr(mdm_last_message(), "more.h5: /train/labels of sample 5 is 5, but the training set has 5"));
}

static void all_ranks_get_rank_0s_message(void **state) {
    (void)state;
    mdm_store *store;
    assert_int_equal(mdm_store_open(comm, path_of("nowhere.h5"), MDM_RESIDENT_AUTO, &store), MDM_INPUT);
    assert_null(store);
    assert_non_null(strstr(mdm_last_message(), "nowhere.h5: no such data set file"));
}

static uint64_t fingerprint_after(const char *path, int what) {
    mdm_store *store;
    if (rank == 0) {
        mdm_dataset *d = small_dataset(TRAIN, TEST, H, W, C, CLASSES);
        if (what == 1) d->train_images[BYTES * 20 + 3] ^= 1; /* the statistics stay */
        if (what == 2) d->train_labels[7] = 4;
        if (what == 3) d->test_labels[7] = 4;
        if (what == 4) d->test_images[5] ^= 1;
        assert_int_equal(mdm_dataset_write(path, d, 1), MDM_OK);
        mdm_dataset_destroy(d);
    }
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
    assert_int_equal(mdm_store_open(comm, path, MDM_RESIDENT_STREAM, &store), MDM_OK);
    uint64_t fingerprint = mdm_store_get_info(store)->fingerprint;
    mdm_store_close(store);
    return fingerprint;
}

static void the_fingerprint_tells_pictures_and_labels_apart(void **state) {
    (void)state;
    uint64_t found[5];
    for (int what = 0; what < 5; what++) {
        found[what] = fingerprint_after(path_of("print.h5"), what);
        for (int other = 0; other < what; other++) assert_true(found[what] != found[other]);
    }
    assert_true(fingerprint_after(path_of("elsewhere.h5"), 0) == found[0]);
}

static void an_announced_step_is_read_ahead_and_another_is_read_at_once(void **state) {
    (void)state;
    mdm_dataset *d;
    int64_t index[3] = {4, 30, 4}, other[3] = {1, 2, 3};
    const uint8_t *pictures[3];
    mdm_stream *stream;
    const char *path = path_of("ahead.h5");
    write_file(path, TRAIN, TEST, CLASSES, 0, 0);
    assert_int_equal(mdm_dataset_read_labels(path, &d), MDM_OK);
    assert_null(d->train_images);
    assert_true(d->places[0]->kind == MDM_PLACES_PLAIN && d->places[1]->kind == MDM_PLACES_PLAIN);
    assert_int_equal(mdm_stream_open(path, d->places[0]->begin, BYTES, &stream), MDM_OK);
    mdm_dataset_destroy(d);
    for (int step = 1; step <= 50; step++) {
        index[1] = step % TRAIN;
        assert_int_equal(mdm_stream_prefetch(stream, index, 3), MDM_OK);
        assert_int_equal(mdm_stream_fetch(stream, index, 3, pictures), MDM_OK);
        assert_int_equal(mdm_stream_hits(stream), step);
        for (int b = 0; b < BYTES; b++) assert_int_equal(pictures[1][b], pixel_of(0, index[1], b));
    }
    assert_int_equal(mdm_stream_prefetch(stream, index, 3), MDM_OK);
    const uint8_t *earlier = pictures[0]; /* an announcement leaves the step in use alone */
    for (int b = 0; b < BYTES; b++) assert_int_equal(earlier[b], pixel_of(0, 4, b));
    assert_int_equal(mdm_stream_fetch(stream, other, 3, pictures), MDM_OK);
    assert_int_equal(mdm_stream_hits(stream), 50);
    for (int b = 0; b < BYTES; b++) assert_int_equal(pictures[2][b], pixel_of(0, 3, b));
    mdm_stream_close(stream);
}

static void a_file_cut_short_while_in_use_is_told(void **state) {
    (void)state;
    mdm_store *store;
    int64_t index = TRAIN - 1;
    const uint8_t *picture;
    const char *path = path_of("cut.h5");
    write_file(path, TRAIN, TEST, CLASSES, 0, 0);
    assert_int_equal(mdm_store_open(comm, path, MDM_RESIDENT_STREAM, &store), MDM_OK);
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
    if (rank == 0) assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
    assert_int_equal(mdm_store_fetch(store, MDM_TRAIN, &index, 1, &picture), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "cut.h5 cannot be read any more: it was cut short"));
    mdm_store_close(store);
}

/* On rank 0, later than any time that the file has, while the others wait. */
static void invert_bytes(const char *path) {
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
    if (rank == 0) {
        char bytes[65536];
        const struct timespec later = {.tv_nsec = 20 * 1000 * 1000};
        assert_int_equal(nanosleep(&later, NULL), 0);
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        size_t count = fread(bytes, 1, sizeof bytes, file);
        for (size_t i = 0; i < count; i++) bytes[i] = (char)~bytes[i];
        rewind(file);
        assert_int_equal(fwrite(bytes, 1, count, file), count);
        assert_int_equal(fclose(file), 0);
    }
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
}

static void a_streamed_file_that_is_overwritten_is_found_and_a_touched_one_is_not(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) { /* in one piece, in chunks, in memory */
        const char *path = path_of("watched.h5"), *other = path_of("other.h5");
        mdm_store *store;
        write_file(path, TRAIN, TEST, CLASSES, 0, kind == 1 ? 8 : 0);
        assert_int_equal(
            mdm_store_open(comm, path, kind < 2 ? MDM_RESIDENT_STREAM : MDM_RESIDENT_HOST, &store), MDM_OK);
        assert_int_equal(mdm_store_check_unchanged(store), MDM_OK);
        if (rank == 0) assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
        assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
        assert_int_equal(mdm_store_check_unchanged(store), MDM_OK);
        if (rank == 0) assert_int_equal(rename(path, other), 0); /* what is open is the same file still */
        write_file(path, TEST, TRAIN, CLASSES, 0, 0);
        assert_int_equal(mdm_store_check_unchanged(store), MDM_OK);
        assert_pictures(store);
        invert_bytes(other);
        assert_int_equal(mdm_store_check_unchanged(store), kind < 2 ? MDM_INPUT : MDM_OK);
        if (kind < 2)
            assert_non_null(strstr(mdm_last_message(), "watched.h5 was changed while it was in use"));
        mdm_store_close(store);
    }
}

static void remove_folder(void) {
    static const char *const names[] = {"whole.h5", "plain.h5", "train.h5",     "other.h5", "named.h5",
                                        "more.h5",  "print.h5", "elsewhere.h5", "ahead.h5", "cut.h5"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(path_of(names[i]));
    rmdir(folder);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_of_keeping_pictures_gives_those_of_the_file),
        cmocka_unit_test(a_file_without_test_set_names_or_ids_is_enough),
        cmocka_unit_test(the_test_set_may_come_from_either_group_of_another_file),
        cmocka_unit_test(statistics_of_a_network_stand_in_for_missing_ones_and_runs_are_announced),
        cmocka_unit_test(a_test_file_with_unknown_classes_is_refused_by_sample),
        cmocka_unit_test(all_ranks_get_rank_0s_message),
        cmocka_unit_test(the_fingerprint_tells_pictures_and_labels_apart),
        cmocka_unit_test(an_announced_step_is_read_ahead_and_another_is_read_at_once),
        cmocka_unit_test(a_streamed_file_that_is_overwritten_is_found_and_a_touched_one_is_not),
        cmocka_unit_test(a_file_cut_short_while_in_use_is_told),
    };
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    rank = mdm_comm_rank(comm);
    const char *place = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/mdm-store-XXXXXX", place ? place : "/tmp");
    if (rank == 0 && !mkdtemp(folder)) return 1;
    if (mdm_comm_broadcast(comm, folder, sizeof folder, MDM_BYTE, 0) != MDM_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) mdm_comm_abort(comm, 1); /* the other ranks may be waiting */
    if (mdm_comm_barrier(comm) != MDM_OK) return 1;
    if (rank == 0) remove_folder();
    mdm_comm_finish(comm);
    return failed;
}
