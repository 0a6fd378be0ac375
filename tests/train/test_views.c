/* The views of a step by a CUDA device are those of the CPU, whether all pictures lie in the device's memory
 * or are brought there step by step, from memory or from the file, as announced or otherwise. */
#include "data/dataset_test.h"
#include "staging.h"
#include "test_device.h"
#include "views.h"
#include <unistd.h>

enum { TRAIN = 41, TEST = 13, H = 9, W = 7, C = 3, IMAGE = H * W * C, LIST = 12, STEPS = 6, SEED = 3 };

static mdm_comm *comm;
static char path[512];

/* Views of one store by one device. */
typedef struct side {
    mdm_device *device;
    mdm_store *store;
    mdm_views *views;
    float *images;
} side;

static void open_side(side *s, int on_tested, mdm_resident resident, int keep) {
    assert_int_equal(mdm_store_open(comm, path, resident, &s->store), MDM_OK);
    if (on_tested)
        s->device = test_device_open(1, 1);
    else
        assert_int_equal(mdm_device_create_cpu(1, 1, &s->device), MDM_OK);
    assert_int_equal(mdm_views_create(s->device, s->store, SEED, 4, 1, &s->views), MDM_OK);
    if (keep) {
        assert_int_equal(mdm_views_keep(s->views), MDM_OK);
        assert_int_equal(mdm_store_let_go(s->store), MDM_OK);
    }
    assert_int_equal(mdm_views_reserve(s->views, LIST, 2 * LIST), MDM_OK);
    s->images = test_device_copy(s->device, NULL, sizeof(float) * 2 * LIST * IMAGE);
}

static void close_side(side *s) {
    mdm_views_destroy(s->views);
    mdm_device_free(s->device, s->images);
    mdm_device_destroy(s->device);
    mdm_store_close(s->store);
}

/* The list of a step: of the test set at every third; with samples that occur twice. */
static mdm_split list_step(int step, int64_t *list) {
    mdm_split split = step % 3 == 2 ? MDM_TEST : MDM_TRAIN;
    mdm_random random = mdm_random_stream(SEED, MDM_RANDOM_TEST, 0, (uint64_t)step, 0);
    for (int i = 0; i < LIST; i++) list[i] = mdm_random_below(&random, split == MDM_TEST ? TEST : TRAIN);
    list[LIST - 1] = list[0];
    return split;
}

/* A step as training makes it: strong views of all, weak ones of the first half; the next one announced. */
static void make_step(side *s, int step, int announced, float *images) {
    int64_t list[LIST], next[LIST];
    uint32_t numbers[LIST];
    mdm_split split = list_step(step, list), next_split = list_step(announced, next);
    for (uint32_t i = 0; i < LIST; i++) numbers[i] = mdm_view_number(2, 1, (int)i % 4);
    assert_int_equal(mdm_views_load(s->views, split, list, LIST), MDM_OK);
    assert_int_equal(mdm_views_announce(s->views, next_split, next, LIST), MDM_OK);
    assert_int_equal(
        mdm_views_make(s->views, MDM_VIEW_STRONG, 0, LIST, (uint32_t)step, 0, numbers, s->images), MDM_OK);
    assert_int_equal(mdm_views_make(s->views, MDM_VIEW_WEAK, 0, LIST / 2, (uint32_t)step, 7, NULL,
                                    s->images + LIST * IMAGE),
                     MDM_OK);
    assert_int_equal(mdm_views_make(s->views, MDM_VIEW_NONE, LIST / 2, LIST / 2, 0, 0, NULL,
                                    s->images + (LIST + LIST / 2) * IMAGE),
                     MDM_OK);
    assert_int_equal(mdm_device_download(s->device, images, s->images, sizeof(float) * 2 * LIST * IMAGE),
                     MDM_OK);
}

static void views_are_the_same_wherever_pictures_are_kept(void **state) {
    (void)state;
    static const struct {
        mdm_resident resident;
        int keep;
    } ways[] = {
        {MDM_RESIDENT_HOST, 1}, {MDM_RESIDENT_STREAM, 1}, {MDM_RESIDENT_HOST, 0}, {MDM_RESIDENT_STREAM, 0}};
    static float expected[2 * LIST * IMAGE], actual[2 * LIST * IMAGE];
    for (int i = test_device_is_cuda() ? 0 : 2; i < 4; i++) {
        side cpu, tested;
        open_side(&cpu, 0, MDM_RESIDENT_HOST, 0);
        open_side(&tested, 1, ways[i].resident, ways[i].keep);
        assert_int_equal(mdm_views_read_ahead(tested.views),
                         test_device_is_cuda() ? !ways[i].keep : ways[i].resident == MDM_RESIDENT_STREAM);
        assert_int_equal(mdm_views_read_ahead(cpu.views), 0);
        for (int step = 0; step < STEPS; step++) {
            make_step(&cpu, step, step + 1, expected);
            make_step(&tested, step, step == 3 ? 1 : step + 1, actual); /* once not what follows */
            assert_memory_equal(actual, expected, sizeof expected);
        }
        close_side(&cpu);
        close_side(&tested);
    }
}

static void pictures_given_up_are_brought_step_by_step(void **state) {
    (void)state;
    static float kept[2 * LIST * IMAGE], brought[2 * LIST * IMAGE];
    side one, other;
    open_side(&one, 1, MDM_RESIDENT_HOST, 1);
    open_side(&other, 1, MDM_RESIDENT_HOST, 0);
    assert_int_equal(mdm_views_keep(other.views), MDM_OK);
    mdm_views_give_up(other.views);
    assert_int_equal(mdm_views_read_ahead(other.views), 1);
    make_step(&one, 0, 1, kept);
    make_step(&other, 0, 1, brought);
    assert_memory_equal(kept, brought, sizeof kept);
    close_side(&one);
    close_side(&other);
}

static void an_announced_step_is_brought_ahead_and_another_at_once(void **state) {
    (void)state;
    mdm_device *device;
    mdm_store *store;
    mdm_staging *staging;
    const uint8_t *memory;
    uint8_t bytes[LIST * IMAGE];
    int64_t list[LIST], next[LIST], first;
    assert_int_equal(mdm_device_create_cuda(0, 1, &device), MDM_OK);
    assert_int_equal(mdm_store_open(comm, path, MDM_RESIDENT_STREAM, &store), MDM_OK);
    assert_int_equal(mdm_staging_create(device, store, &staging), MDM_OK);
    assert_int_equal(mdm_staging_reserve(staging, LIST), MDM_OK);
    for (int step = 0; step < STEPS; step++) {
        mdm_split split = list_step(step, list), next_split = list_step(step + 1, next);
        assert_int_equal(mdm_staging_take(staging, split, list, LIST, &memory, &first), MDM_OK);
        assert_int_equal(mdm_staging_hits(staging), step < 4 ? step : step - 1);
        if (step == 3) next[2] ^= 1; /* not what follows */
        assert_int_equal(mdm_staging_announce(staging, next_split, next, LIST), MDM_OK);
        assert_int_equal(mdm_device_download(device, bytes, memory + first * IMAGE, sizeof bytes), MDM_OK);
        for (int i = 0; i < LIST; i++)
            for (int b = 0; b < IMAGE; b++)
                assert_int_equal(bytes[i * IMAGE + b], pixel_of(split == MDM_TEST, list[i], b));
    }
    assert_int_equal(mdm_staging_take(staging, MDM_TRAIN, NULL, 0, &memory, &first), MDM_OK);
    assert_null(memory);
    assert_int_equal(mdm_staging_announce(staging, MDM_TRAIN, list, LIST + 1), MDM_LOST);
    mdm_staging_destroy(staging);
    mdm_store_close(store);
    mdm_device_destroy(device);
}

static void a_file_cut_short_is_told_by_the_step_that_needs_it(void **state) {
    (void)state;
    mdm_device *device;
    mdm_store *store;
    mdm_staging *staging;
    const uint8_t *memory;
    int64_t list[2] = {TRAIN - 1, 0}, first;
    assert_int_equal(mdm_device_create_cuda(0, 1, &device), MDM_OK);
    assert_int_equal(mdm_store_open(comm, path, MDM_RESIDENT_STREAM, &store), MDM_OK);
    assert_int_equal(mdm_staging_create(device, store, &staging), MDM_OK);
    assert_int_equal(mdm_staging_reserve(staging, 2), MDM_OK);
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(mdm_staging_announce(staging, MDM_TRAIN, list, 2), MDM_OK);
    assert_int_equal(mdm_staging_take(staging, MDM_TRAIN, list, 2, &memory, &first), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "cannot be read any more"));
    mdm_staging_destroy(staging);
    mdm_store_close(store);
    mdm_device_destroy(device);
}

int main(int argc, char **argv) {
    const struct CMUnitTest on_both[] = {cmocka_unit_test(views_are_the_same_wherever_pictures_are_kept)};
    const struct CMUnitTest on_cuda[] = {
        cmocka_unit_test(views_are_the_same_wherever_pictures_are_kept),
        cmocka_unit_test(pictures_given_up_are_brought_step_by_step),
        cmocka_unit_test(an_announced_step_is_brought_ahead_and_another_at_once),
        cmocka_unit_test(a_file_cut_short_is_told_by_the_step_that_needs_it), /* last: it spoils the file */
    };
    const char *place = getenv("TMPDIR");
    test_device_or_skip();
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    snprintf(path, sizeof path, "%s/mdm-views-%ld.h5", place ? place : "/tmp", (long)getpid());
    mdm_dataset *d = small_dataset(TRAIN, TEST, H, W, C, 5);
    if (mdm_dataset_write(path, d, 1) != MDM_OK) return 1;
    mdm_dataset_destroy(d);
    int failed = test_device_is_cuda() ? cmocka_run_group_tests(on_cuda, NULL, NULL)
                                       : cmocka_run_group_tests(on_both, NULL, NULL);
    unlink(path);
    mdm_comm_finish(comm);
    return failed;
}
