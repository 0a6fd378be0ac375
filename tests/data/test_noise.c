/* Label noise: labels move as the tables say and by as many as asked for, foreign pictures are told apart,
 * and what cannot be made is refused by the option at fault. */
#include "dataset_test.h"
#include "mdm/base/text.h"
#include "mdm/data/noise.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRAIN = 200, TEST = 10, SIDE = 32 };

/* Pictures of CIFAR's size whose labels are right. */
static mdm_dataset *clean_dataset(int64_t train, int side, int classes) {
    mdm_dataset *d = small_dataset(train, TEST, side, side, 3, classes);
    memcpy(d->true_labels, d->train_labels, sizeof *d->true_labels * (size_t)train);
    return d;
}

static void write_text(const char *text) {
    assert_int_equal(mdm_write_file(test_path, text, strlen(text)), MDM_OK);
}

static void refused(const mdm_dataset *source, const mdm_noise_options *o, mdm_status status,
                    const char *words) {
    mdm_dataset *noisy;
    mdm_noise_counts counts;
    assert_int_equal(mdm_noise_make(source, o, &noisy, &counts), status);
    assert_null(noisy);
    if (!strstr(mdm_last_message(), words)) fail_msg("\"%s\" is not in: %s", words, mdm_last_message());
}

static mdm_dataset *made(const mdm_dataset *source, const mdm_noise_options *o, mdm_noise_counts *counts) {
    mdm_dataset *noisy;
    if (mdm_noise_make(source, o, &noisy, counts) != MDM_OK) fail_msg("%s", mdm_last_message());
    return noisy;
}

static void cifar10s_classes_become_their_similar_ones(void **state) {
    (void)state;
    const int partner[10] = {0, 1, 0, 5, 7, 3, 6, 7, 8, 1}, car[1] = {1};
    int seen[10] = {0};
    mdm_noise_counts counts;
    mdm_noise_options o = {.asymmetric = 0.5, .seed = 4};
    mdm_dataset *source = clean_dataset(TRAIN, SIDE, 10), *noisy = made(source, &o, &counts);
    assert_true(counts.asymmetric == TRAIN / 2 && counts.samples == TRAIN);
    for (int i = 0; i < TRAIN; i++) {
        int truth = noisy->true_labels[i], given = noisy->train_labels[i];
        assert_true(given == truth || given == partner[truth]);
        seen[truth] += given != truth;
    }
    for (int c = 0; c < 10; c++) assert_int_equal(seen[c] > 0, partner[c] != c);
    mdm_dataset_destroy(noisy);
    /* trucks (now class 8) cannot be mistaken for cars when those are held out */
    o = (mdm_noise_options){.asymmetric = 0.99, .hold_out = car, .hold_out_count = 1, .seed = 4};
    noisy = made(source, &o, &counts);
    assert_true(noisy->classes == 9 && counts.wrong > 0);
    for (int64_t i = 0; i < noisy->train_count; i++)
        if (noisy->true_labels[i] == 8) assert_int_equal(noisy->train_labels[i], 8);
    mdm_dataset_destroy(noisy);
    mdm_dataset_destroy(source);
}

static void cifar100s_classes_become_the_next_of_their_superclass(void **state) {
    (void)state;
    enum { SAMPLES = 500 };
    mdm_noise_counts counts;
    const mdm_noise_options o = {.asymmetric = 0.9, .seed = 4};
    mdm_dataset *source = clean_dataset(SAMPLES, SIDE, 100), *noisy = made(source, &o, &counts);
    int partner[100] = {0}, trees = 0;
    for (int i = 0; i < SAMPLES; i++)
        if (noisy->train_labels[i] != noisy->true_labels[i])
            partner[noisy->true_labels[i]] = noisy->train_labels[i];
    assert_int_equal(partner[47], 52); /* maple, oak, palm, pine, willow, and round again */
    for (int c = partner[47]; c != 47; c = partner[c]) trees++;
    assert_true(trees == 4 && counts.wrong == SAMPLES * 9 / 10);
    mdm_dataset_destroy(noisy);
    mdm_dataset_destroy(source);
}

static void what_a_row_lacks_to_one_goes_to_the_last_class(void **state) {
    (void)state;
    enum { SAMPLES = 20000 };
    mdm_noise_counts counts;
    const mdm_noise_options o = {.asymmetric = 0.99, .transition_matrix = test_path, .seed = 1};
    mdm_dataset *source = clean_dataset(SAMPLES, 1, 4);
    write_text("0 0.9991 0 0  0 0 0.9991 0  0.9991 0 0 0  1 0 0 0");
    mdm_dataset *noisy = made(source, &o, &counts);
    int last = 0;
    for (int i = 0; i < SAMPLES; i++) last += noisy->train_labels[i] == 3 && noisy->true_labels[i] != 3;
    assert_in_range(last, 1, 40); /* 13 are to be expected */
    mdm_dataset_destroy(noisy);
    mdm_dataset_destroy(source);
}

static void without_a_number_as_many_samples_stay_as_the_share_of_strangers_allows(void **state) {
    (void)state;
    const int last[1] = {3};
    mdm_noise_counts counts;
    const mdm_noise_options o = {.hold_out = last, .hold_out_count = 1, .ood = 0.5};
    mdm_dataset *source = clean_dataset(TRAIN, 1, 4), *noisy = made(source, &o, &counts);
    assert_true(counts.samples == 100 && counts.ood == 50); /* there are 50 of the class held out */
    mdm_dataset_destroy(noisy);
    mdm_dataset_destroy(source);
}

static void a_matrix_moves_as_many_labels_as_asked_for(void **state) {
    (void)state;
    mdm_noise_counts counts;
    const mdm_noise_options o = {.asymmetric = 0.3, .transition_matrix = test_path, .seed = 1};
    mdm_dataset *source = clean_dataset(TRAIN, 4, 3);
    write_text("0,1,0\n0 0\t1\r\n1 0 0\n");
    mdm_dataset *noisy = made(source, &o, &counts);
    int64_t moved = 0;
    for (int i = 0; i < TRAIN; i++) {
        int truth = noisy->true_labels[i], given = noisy->train_labels[i];
        assert_true(given == truth || given == (truth + 1) % 3);
        moved += given != truth;
    }
    assert_true(moved == 60 && counts.asymmetric == 60 && counts.wrong == 60);
    mdm_dataset_destroy(noisy);
    mdm_dataset_destroy(source);
}

static void a_wrong_matrix_is_refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"0 1 0 0 0 1 1 0", "has 8 numbers; expected 3 x 3"},
        {"0 1 0 0 0 1 1 0 0 0", "has 10 numbers"},
        {"", "has 0 numbers"},
        {"0 1 x", "number 3 is no share"},
        {"0 -1 2", "number 2 is no share"},
        {"nan", "number 1 is no share"},
        {"inf", "number 1 is no share"},
        {"0 1 0 0 0.5 0.4 1 0 0", "row 1 sums to 0.9"},
    };
    const mdm_noise_options o = {.asymmetric = 0.3, .transition_matrix = test_path};
    mdm_dataset *source = clean_dataset(TRAIN, 4, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(cases[i][0]);
        refused(source, &o, MDM_INPUT, cases[i][1]);
    }
    const mdm_noise_options no_table = {.asymmetric = 0.3};
    refused(source, &no_table, MDM_USAGE, "with 3 x 3 numbers");
    mdm_dataset_destroy(source);
}

static void symmetric_noise_leaves_out_the_own_class_when_told(void **state) {
    (void)state;
    mdm_noise_counts counts;
    mdm_noise_options o = {.symmetric = 0.5, .exclude_own = 1, .seed = 2};
    mdm_dataset *source = clean_dataset(TRAIN, 4, 4), *noisy = made(source, &o, &counts);
    assert_true(counts.symmetric == TRAIN / 2 && counts.wrong == TRAIN / 2);
    mdm_dataset_destroy(noisy);
    o.exclude_own = 0;
    noisy = made(source, &o, &counts);
    assert_true(counts.symmetric == TRAIN / 2 && counts.wrong < TRAIN / 2 && counts.wrong > TRAIN / 4);
    mdm_dataset_destroy(noisy);
    mdm_dataset_destroy(source);
}

static void foreign_pictures_are_told_apart_and_keep_a_label(void **state) {
    (void)state;
    enum { FOREIGN = 50, BYTES = 4 * 4 * 3 };
    mdm_noise_counts counts;
    mdm_dataset *source = clean_dataset(TRAIN, 4, 4), *other = clean_dataset(FOREIGN, 4, 2);
    for (int64_t b = 0; b < FOREIGN * BYTES; b++) other->train_images[b] ^= 0xff;
    mdm_noise_options o = {.ood = 0.1, .ood_from = other, .seed = 3};
    mdm_dataset *noisy = made(source, &o, &counts);
    int seen[FOREIGN] = {0}, foreign = 0;
    for (int64_t i = 0; i < TRAIN; i++) {
        const char *id = noisy->ids[i];
        int is_foreign = strncmp(id, "ood:", 4) == 0, index = atoi(id + (is_foreign ? 4 : 0));
        assert_in_range(index, 0, is_foreign ? FOREIGN - 1 : TRAIN - 1);
        const uint8_t *from = (is_foreign ? other : source)->train_images + (int64_t)index * BYTES;
        assert_memory_equal(noisy->train_images + i * BYTES, from, BYTES);
        assert_true((noisy->true_labels[i] == -1) == is_foreign);
        assert_in_range(noisy->train_labels[i], 0, 3);
        if (is_foreign) assert_int_equal(seen[index]++, 0);
        foreign += is_foreign;
    }
    assert_true(foreign == 20 && counts.ood == 20);
    mdm_dataset_destroy(noisy);
    o.ood = 0.5;
    refused(source, &o, MDM_USAGE, "--ood-from has 50");
    other->height = 2;
    refused(source, &o, MDM_USAGE, "pictures of 2x4x3 do not fit 4x4x3");
    other->height = 4;
    mdm_dataset_destroy(other);
    mdm_dataset_destroy(source);
}

static void a_noise_file_gives_the_labels(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"[0, 1", "is no JSON"},
                                           {"{}", "must be a list of 3 labels"},
                                           {"[0, 1]", "it has 2 entries"},
                                           {"[0, 1, 4]", "entry 2 is no label from 0 to 3"},
                                           {"[0, -1, 1]", "entry 1 is no label"},
                                           {"[0.0, 1, 1]", "entry 0 is no label"}};
    mdm_noise_counts counts;
    mdm_noise_options o = {.symmetric = 0.5, .seed = 5};
    mdm_dataset *source = clean_dataset(TRAIN, 4, 4), *first = made(source, &o, &counts);
    assert_int_equal(mdm_noise_write_labels(test_path, first), MDM_OK);
    o = (mdm_noise_options){.labels_from = test_path};
    mdm_dataset *second = made(source, &o, &counts);
    assert_memory_equal(first->train_labels, second->train_labels, sizeof(int32_t) * TRAIN);
    mdm_dataset_destroy(second);
    mdm_dataset_destroy(first);
    mdm_dataset_destroy(source);
    source = clean_dataset(3, 4, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(cases[i][0]);
        refused(source, &o, MDM_INPUT, cases[i][1]);
    }
    mdm_dataset_destroy(source);
}

static void what_cannot_be_made_is_refused_by_the_option_at_fault(void **state) {
    (void)state;
    const int most[3] = {0, 1, 2}, none[1] = {4}, one[1] = {3};
    const struct {
        mdm_noise_options options;
        const char *words;
    } cases[] = {
        {{.symmetric = 1}, "a rate of 1"},
        {{.ood = -0.1}, "a rate of -0.1"},
        {{.transition_matrix = test_path}, "--transition-matrix needs --asymmetric"},
        {{.labels_from = test_path, .symmetric = 0.1}, "--noise-file gives the labels"},
        {{.samples = -1}, "--samples must not be negative"},
        {{.samples = TRAIN + 1}, "there are 200; lower --samples"},
        {{.ood = 0.1}, "--hold-out CLASSES or --ood-from FILE"},
        {{.hold_out = none, .hold_out_count = 1}, "--hold-out 4: the data set has classes 0 to 3"},
        {{.hold_out = most, .hold_out_count = 3}, "--hold-out leaves 1 class"},
        {{.hold_out = one, .hold_out_count = 1, .ood = 0.5, .samples = 120}, "held-out classes have 50"},
        {{.hold_out = one, .hold_out_count = 1, .ood = 0.2, .symmetric = 0.9}, "lower the rates"},
    };
    mdm_dataset *source = clean_dataset(TRAIN, 4, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(source, &cases[i].options, MDM_USAGE, cases[i].words);
    source->train_labels[7] ^= 1;
    const mdm_noise_options again = {.hold_out = one, .hold_out_count = 1};
    refused(source, &again, MDM_USAGE, "noisy already (sample 7)");
    mdm_dataset_destroy(source);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cifar10s_classes_become_their_similar_ones),
        cmocka_unit_test(cifar100s_classes_become_the_next_of_their_superclass),
        cmocka_unit_test(a_matrix_moves_as_many_labels_as_asked_for),
        cmocka_unit_test(what_a_row_lacks_to_one_goes_to_the_last_class),
        cmocka_unit_test(without_a_number_as_many_samples_stay_as_the_share_of_strangers_allows),
        cmocka_unit_test(a_wrong_matrix_is_refused),
        cmocka_unit_test(symmetric_noise_leaves_out_the_own_class_when_told),
        cmocka_unit_test(foreign_pictures_are_told_apart_and_keep_a_label),
        cmocka_unit_test(a_noise_file_gives_the_labels),
        cmocka_unit_test(what_cannot_be_made_is_refused_by_the_option_at_fault),
    };
    return cmocka_run_group_tests(tests, make_test_path, remove_test_path);
}
