/* divisions/epoch-NNNN.h5: written whole, explained, read back. */
#include "mdm/report/division_file.h"

#include "report_test.h"
#include <hdf5.h>

enum { N = 5 };

static const float loss[2][N] = {{0, 1, 2, 3, 4}, {1, 2, 3, 4, 5}},
                   probability[N] = {0, 0.25f, 0.5f, 0.75f, 1}, ood[N] = {2, 0.1f, 0.2f, 0.3f, 0.4f},
                   embedding[N * 3] = {1, 2, 3}, logits[N * 2] = {4, 5};
static const int32_t neighbour[N] = {1, 0, 4, 2, 3};
static const uint8_t split[N] = {0, 1, 2, 1, 1};

static mdm_division sample(void) {
    mdm_division d = {.epoch = 30, .samples = N, .networks = 2};
    for (int n = 0; n < 2; n++)
        d.network[n] = (mdm_division_network){.loss = loss[n],
                                              .clean_probability = probability,
                                              .ood_score = ood,
                                              .split = split,
                                              .gmm_means = {0.1, 0.7},
                                              .gmm_variances = {0.01, 0.02},
                                              .gmm_weights = {0.6, 0.4},
                                              .loss_minimum = n,
                                              .loss_maximum = 4 + n,
                                              .removed = 1};
    d.network[0].neighbour = neighbour;
    d.network[0].similarity = ood;
    d.network[0].embedding = embedding;
    d.network[0].embedding_width = 3;
    d.network[0].logits = logits;
    d.network[0].classes = 2;
    return d;
}

static void a_division_round_trips(void **state) {
    const char *path = in_folder(state, "epoch-0030.h5");
    mdm_division written = sample(), read;
    assert_int_equal(mdm_division_write(path, &written), MDM_OK);
    assert_int_equal(count_entries(*state), 1);
    assert_int_equal(mdm_division_read(path, 1, &read), MDM_OK);
    assert_int_equal(read.epoch, 30);
    assert_int_equal(read.samples, N);
    assert_int_equal(read.networks, 2);
    for (int n = 0; n < 2; n++) {
        assert_memory_equal(read.network[n].loss, loss[n], sizeof loss[n]);
        assert_memory_equal(read.network[n].clean_probability, probability, sizeof probability);
        assert_memory_equal(read.network[n].ood_score, ood, sizeof ood);
        assert_memory_equal(read.network[n].split, split, sizeof split);
        assert_true(read.network[n].gmm_variances[1] == 0.02 && read.network[n].gmm_weights[0] == 0.6);
        assert_true(read.network[n].loss_maximum == 4 + n && read.network[n].removed == 1);
    }
    assert_memory_equal(read.network[0].embedding, embedding, sizeof embedding);
    assert_int_equal(read.network[0].embedding_width, 3);
    assert_memory_equal(read.network[0].logits, logits, sizeof logits);
    assert_null(read.network[1].embedding);
    mdm_division_free(&read);
    assert_int_equal(mdm_division_read(path, 0, &read), MDM_OK);
    assert_null(read.network[0].embedding);
    assert_memory_equal(read.network[0].neighbour, neighbour, sizeof neighbour);
    assert_memory_equal(read.network[0].similarity, ood, sizeof ood);
    assert_null(read.network[1].neighbour);
    mdm_division_free(&read);
    python_check("division", path);
}

static void one_network_is_a_division_too(void **state) {
    const char *path = in_folder(state, "epoch-0030.h5");
    mdm_division written = sample(), read;
    written.networks = 1;
    assert_int_equal(mdm_division_write(path, &written), MDM_OK);
    assert_int_equal(mdm_division_read(path, 1, &read), MDM_OK);
    assert_int_equal(read.networks, 1);
    assert_null(read.network[1].loss);
    mdm_division_free(&read);
}

static void every_truncation_is_an_input_error(void **state) {
    const char *path = in_folder(state, "epoch-0030.h5"), *bad = in_folder(state, "bad.h5");
    mdm_division written = sample(), read;
    size_t bytes;
    assert_int_equal(mdm_division_write(path, &written), MDM_OK);
    char *content = read_bytes(path, &bytes);
    for (size_t n = 0; n < bytes; n += n < 3000 ? 1 : 97) {
        write_bytes(bad, content, n);
        assert_int_equal(mdm_division_read(bad, 1, &read), MDM_INPUT);
    }
    free(content);
    assert_int_equal(mdm_division_read(in_folder(state, "none.h5"), 1, &read), MDM_INPUT);
    assert_int_equal(mdm_division_read(*state, 1, &read), MDM_INPUT);
}

/* Replaces one dataset of a good file by another one. */
static void with_dataset(const char *path, const char *name, hid_t type, int rank, const hsize_t *dims) {
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), space = H5Screate_simple(rank, dims, NULL);
    assert_true(file >= 0 && H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
}

static void arrays_that_do_not_fit_are_refused(void **state) {
    const char *path = in_folder(state, "epoch-0030.h5");
    const hsize_t shorter[1] = {N - 1}, matrix[2] = {N, 1}, right[1] = {N}, huge[1] = {(hsize_t)1 << 50};
    mdm_division written = sample(), read;
    const struct {
        const char *name;
        hid_t type;
        int rank;
        const hsize_t *dims;
    } cases[] = {{"b/loss", H5T_NATIVE_FLOAT, 1, shorter},
                 {"a/ood_score", H5T_NATIVE_FLOAT, 2, matrix},
                 {"a/clean_probability", H5T_NATIVE_INT32, 1, right},
                 {"a/split", H5T_NATIVE_INT64, 1, right},
                 {"a/loss", H5T_NATIVE_FLOAT, 1, huge}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mdm_division_write(path, &written), MDM_OK);
        with_dataset(path, cases[i].name, cases[i].type, cases[i].rank, cases[i].dims);
        assert_int_equal(mdm_division_read(path, 1, &read), MDM_INPUT);
        assert_non_null(strstr(mdm_last_message(), path));
    }
}

static void links_that_lead_out_of_the_file_are_not_followed(void **state) {
    const char *path = in_folder(state, "epoch-0030.h5"), *other = in_folder(state, "other.h5");
    mdm_division written = sample(), read;
    assert_int_equal(mdm_division_write(path, &written), MDM_OK);
    assert_int_equal(mdm_division_write(other, &written), MDM_OK);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(H5Ldelete(file, "a/loss", H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_external(other, "/a/loss", file, "a/loss", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    assert_int_equal(mdm_division_read(path, 1, &read), MDM_INPUT);
}

static void without_room_the_old_division_stays(void **state) {
    const char *disk = mount_small_disk(state, 65536);
    if (!disk) skip();
    char path[512];
    static float many[40000];
    static uint8_t marks[40000];
    mdm_division small = sample(), large = {.epoch = 31, .samples = 40000, .networks = 1}, read;
    large.network[0] =
        (mdm_division_network){.loss = many, .clean_probability = many, .ood_score = many, .split = marks};
    snprintf(path, sizeof path, "%s/epoch-0030.h5", disk);
    assert_int_equal(mdm_division_write(path, &small), MDM_OK);
    assert_int_equal(mdm_division_write(path, &large), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), path));
    assert_int_equal(mdm_division_read(path, 1, &read), MDM_OK);
    assert_int_equal(read.epoch, 30);
    mdm_division_free(&read);
    assert_int_equal(count_entries(disk), 1);
    unmount_small_disk(disk);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_division_round_trips),
        IN_FOLDER(one_network_is_a_division_too),
        IN_FOLDER(every_truncation_is_an_input_error),
        IN_FOLDER(arrays_that_do_not_fit_are_refused),
        IN_FOLDER(links_that_lead_out_of_the_file_are_not_followed),
        IN_FOLDER(without_room_the_old_division_stays),
    };
    signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("division file", tests, NULL, NULL);
}
