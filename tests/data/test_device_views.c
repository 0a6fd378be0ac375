/* Views made on a CUDA device against those of the CPU and of Pillow: the same bytes, whatever the size of
 * the picture, the channels, the sub-policy and where the pictures lie. */
#include "golden.h"
#include "mdm/data/augment.h"
#include "mdm/device/views.h"
#include "pillow.h"
#include "test_device.h"
#include <stdio.h>

enum { PAD = 4, SEED = 11 };

/* A device with pictures of one size, and a maker whose images are their bytes as floats. */
typedef struct bench {
    mdm_device *device;
    mdm_view_maker *maker;
    uint8_t *pictures; /* on the device */
    float *images, *host_images;
    int height, width, channels;
    int64_t room; /* views */
    size_t bytes;
} bench;

static void open_bench(bench *b, const uint8_t *pictures, int64_t count, int height, int width, int channels,
                       const mdm_view_policy *policy, int padding, int64_t room) {
    mdm_view_spec spec = {.height = height,
                          .width = width,
                          .channels = channels,
                          .padding = padding,
                          .seed = SEED,
                          .policy = policy};
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) spec.normal[c][v] = (float)(v + 1000 * c);
    memset(b, 0, sizeof *b);
    b->device = test_device_open(1, 1);
    b->height = height;
    b->width = width;
    b->channels = channels;
    b->room = room;
    b->bytes = (size_t)height * (size_t)width * (size_t)channels;
    b->pictures = test_device_copy(b->device, pictures, b->bytes * (size_t)count);
    b->images = test_device_copy(b->device, NULL, sizeof(float) * b->bytes * (size_t)room);
    b->host_images = malloc(sizeof(float) * b->bytes * (size_t)room);
    assert_non_null(b->host_images);
    assert_int_equal(mdm_view_maker_create(b->device, &spec, &b->maker), MDM_OK);
    assert_int_equal(mdm_view_maker_reserve(b->maker, room), MDM_OK);
}

static void close_bench(bench *b) {
    mdm_view_maker_destroy(b->maker);
    mdm_device_free(b->device, b->pictures);
    mdm_device_free(b->device, b->images);
    mdm_device_destroy(b->device);
    free(b->host_images);
}

/* Views of rows added and sent now. */
static mdm_status make_now(bench *b, const uint8_t *pictures, const mdm_view_row *rows, int64_t count,
                           float *images) {
    int64_t first;
    MDM_TRY(mdm_view_maker_add(b->maker, rows, count, &first));
    MDM_TRY(mdm_view_maker_send(b->maker, first, count));
    return mdm_view_maker_make(b->maker, pictures, first, count, images);
}

static void make(bench *b, const uint8_t *pictures, const mdm_view_row *rows, int64_t count) {
    assert_in_range(count, 1, b->room);
    assert_int_equal(mdm_view_maker_begin(b->maker), MDM_OK);
    assert_int_equal(make_now(b, pictures, rows, count, b->images), MDM_OK);
    assert_int_equal(
        mdm_device_download(b->device, b->host_images, b->images, sizeof(float) * b->bytes * (size_t)count),
        MDM_OK);
}

/* View `number` of those made, as bytes [H,W,C]. */
static void bytes_of(const bench *b, int64_t number, uint8_t *bytes) {
    int pixels = b->height * b->width;
    const float *image = b->host_images + (size_t)number * b->bytes;
    for (int c = 0; c < b->channels; c++)
        for (int i = 0; i < pixels; i++) {
            float value = image[c * pixels + i] - 1000.0f * (float)c;
            assert_true(value >= 0.0f && value <= 255.0f);
            bytes[i * b->channels + c] = (uint8_t)value;
        }
}

static void assert_same_bytes(const uint8_t *actual, const uint8_t *expected, size_t count,
                              const char *what) {
    for (size_t i = 0; i < count; i++)
        if (actual[i] != expected[i])
            fail_msg("%s: byte %zu is %d, expected %d", what, i, actual[i], expected[i]);
}

/* A policy whose every sub-policy is that one operation, and nothing else. */
static void set_single(mdm_view_policy *policy, mdm_augment_kind kind, double magnitude, uint8_t fill,
                       int height, int width) {
    memset(policy, 0, sizeof *policy);
    for (int p = 0; p < MDM_SUB_POLICIES; p++) {
        policy->step[p][0].probability = 1.0f;
        for (int sign = 0; sign < 2; sign++)
            policy->step[p][0].operation[sign] = mdm_augment_prepare(kind, magnitude, fill, height, width);
    }
}

/* A row whose strong view has no flip, so that without padding nothing but the operation is done. */
static mdm_view_row unflipped(void) {
    for (uint64_t sample = 0;; sample++) {
        mdm_random random = mdm_random_stream(SEED, MDM_RANDOM_AUGMENT, 0, sample, 0);
        if (!mdm_draw_view(MDM_VIEW_STRONG, &random, 0).flip)
            return (mdm_view_row){.sample = sample, .view = MDM_VIEW_STRONG};
    }
}

/* One operation alone on a picture, by the device. */
static void apply(const uint8_t *picture, int height, int width, int channels, mdm_augment_kind kind,
                  double magnitude, uint8_t fill, uint8_t *out) {
    mdm_view_policy policy;
    mdm_view_row row = unflipped();
    bench b;
    set_single(&policy, kind, magnitude, fill, height, width);
    open_bench(&b, picture, 1, height, width, channels, &policy, 0, 1);
    make(&b, b.pictures, &row, 1);
    bytes_of(&b, 0, out);
    close_bench(&b);
}

static void every_golden_operation_is_met_to_the_bit(void **state) {
    (void)state;
    int64_t count;
    uint8_t *input = golden_bytes("/augment/input_u8", &count), *output = malloc((size_t)count);
    for (size_t i = 0; i < sizeof golden_operations / sizeof *golden_operations; i++) {
        char path[64];
        snprintf(path, sizeof path, "/augment/%s_u8", golden_operations[i].name);
        uint8_t *expected = golden_bytes(path, &count);
        apply(input, 32, 32, 3, golden_operations[i].kind, golden_operations[i].magnitude, 0, output);
        assert_same_bytes(output, expected, (size_t)count, golden_operations[i].name);
        free(expected);
    }
    free(output);
    free(input);
}

static void every_level_and_sign_is_met_to_the_bit_at_fill_128(void **state) {
    (void)state;
    for (int which = 0; which < 3; which++) {
        pillow_cases cases;
        pillow_cases_read(which, &cases);
        size_t bytes = (size_t)(cases.height * cases.width * cases.channels);
        uint8_t *output = malloc(bytes);
        for (int64_t i = 0; i < cases.count; i++) {
            char what[96];
            double magnitude = pillow_magnitude(&cases, i);
            apply(cases.image, cases.height, cases.width, cases.channels, (mdm_augment_kind)cases.kind[i],
                  magnitude, 128, output);
            snprintf(what, sizeof what, "%s: operation %d level %d negative %d", cases.name, cases.kind[i],
                     cases.level[i], cases.negative[i]);
            if (pillow_hash(output, (int64_t)bytes) != cases.hash[i])
                fail_msg("%s: other bytes than Pillow's", what);
        }
        free(output);
        pillow_cases_free(&cases);
    }
}

static void whole_views_are_those_of_torchvision_on_the_same_draws(void **state) {
    (void)state;
    for (int which = 0; which < 3; which++)
        for (int strong = 0; strong < 2; strong++) {
            const char *name;
            int height, width, channels;
            int64_t views;
            mdm_view_policy policy;
            bench b;
            uint8_t *image = pillow_image(which, &name, &height, &width, &channels);
            uint64_t *hash = pillow_read(name, strong ? "strong" : "weak", H5T_NATIVE_UINT64, &views);
            mdm_augment_prepare_policy(height, width, &policy);
            open_bench(&b, image, 1, height, width, channels, &policy, PAD, views);
            mdm_view_row *rows = calloc((size_t)views, sizeof *rows);
            for (int64_t i = 0; i < views; i++)
                rows[i] = (mdm_view_row){.sample = (uint64_t)i,
                                         .epoch = 5,
                                         .number = 3,
                                         .view = strong ? MDM_VIEW_STRONG : MDM_VIEW_WEAK};
            make(&b, b.pictures, rows, views);
            uint8_t *output = malloc(b.bytes);
            for (int64_t i = 0; i < views; i++) {
                bytes_of(&b, i, output);
                if (pillow_hash(output, (int64_t)b.bytes) != hash[i])
                    fail_msg("%s: view %lld (strong %d) differs", name, (long long)i, strong);
            }
            free(output);
            free(rows);
            close_bench(&b);
            free(hash);
            free(image);
        }
}

/* Pictures of every kind that operations treat differently: noise, few values, one value, gradients. */
static uint8_t *draw_pictures(int64_t count, size_t bytes) {
    uint8_t *pictures = malloc(bytes * (size_t)count);
    assert_non_null(pictures);
    mdm_random random = mdm_random_stream(SEED, MDM_RANDOM_TEST, 0, bytes, 0);
    for (int64_t i = 0; i < count; i++)
        for (size_t j = 0; j < bytes; j++) {
            uint32_t bits = mdm_random_bits(&random);
            pictures[(size_t)i * bytes + j] = (uint8_t)(i % 4 == 0   ? bits
                                                        : i % 4 == 1 ? 100 + bits % 7
                                                        : i % 4 == 2 ? (size_t)(3 * i)
                                                                     : j / 3 + bits % 30);
        }
    return pictures;
}

static void compare_views(int height, int width, int channels, int64_t views) {
    enum { PICTURES = 8 };
    mdm_view_policy policy;
    bench b;
    size_t bytes = (size_t)height * (size_t)width * (size_t)channels;
    uint8_t *pictures = draw_pictures(PICTURES, bytes), *output = malloc(bytes), *expected = malloc(bytes),
            *scratch = malloc(2 * bytes);
    mdm_view_row *rows = calloc((size_t)views, sizeof *rows);
    assert_true(output && expected && scratch && rows);
    mdm_random random = mdm_random_stream(SEED, MDM_RANDOM_TEST, 1, bytes, 0);
    for (int64_t i = 0; i < views; i++)
        rows[i] = (mdm_view_row){.sample = ((uint64_t)mdm_random_bits(&random) << 8) + (uint64_t)i,
                                 .picture = mdm_random_below(&random, PICTURES),
                                 .epoch = mdm_random_below(&random, 1000),
                                 .number = mdm_random_bits(&random),
                                 .view = i % 16 == 0  ? MDM_VIEW_NONE
                                         : i % 8 == 1 ? MDM_VIEW_WEAK
                                                      : MDM_VIEW_STRONG};
    mdm_augment_prepare_policy(height, width, &policy);
    open_bench(&b, pictures, PICTURES, height, width, channels, &policy, PAD, views);
    make(&b, b.pictures, rows, views);
    for (int64_t i = 0; i < views; i++) {
        char what[96];
        mdm_random stream =
            mdm_random_stream(SEED, MDM_RANDOM_AUGMENT, rows[i].epoch, rows[i].sample, rows[i].number);
        mdm_augment_view((mdm_view)rows[i].view, &stream, pictures + bytes * rows[i].picture, height, width,
                         channels, PAD, expected, scratch);
        bytes_of(&b, i, output);
        snprintf(what, sizeof what, "%dx%dx%d: view %lld", height, width, channels, (long long)i);
        assert_same_bytes(output, expected, bytes, what);
    }
    close_bench(&b);
    free(rows);
    free(scratch);
    free(expected);
    free(output);
    free(pictures);
}

static void views_are_the_cpus_for_every_size_seed_and_sample(void **state) {
    (void)state;
    static const struct {
        int height, width, channels, views;
    } cases[] = {{32, 32, 3, 2000}, {28, 28, 1, 2000}, {84, 84, 3, 150}, {21, 33, 3, 500}, {7, 5, 1, 500},
                 {1, 1, 3, 200},    {2, 9, 3, 300},    {3, 2, 1, 300},   {3, 3, 3, 300}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        compare_views(cases[i].height, cases[i].width, cases[i].channels, cases[i].views);
}

/* More of them than blocks share the scratch, so that some make several. */
static void pictures_beyond_shared_memory_are_made_the_same(void **state) {
    (void)state;
    assert_int_equal(mdm_view_scratch_bytes(84, 84, 3), 0);
    assert_true(mdm_view_scratch_bytes(90, 89, 3) > 0);
    compare_views(90, 89, 3, 300);
    compare_views(160, 161, 1, 8);
}

static void several_calls_share_a_steps_room(void **state) {
    (void)state;
    enum { VIEWS = 6 };
    mdm_view_policy policy;
    bench b;
    uint8_t *picture = draw_pictures(1, 12 * 12 * 3);
    mdm_view_row rows[VIEWS];
    mdm_augment_prepare_policy(12, 12, &policy);
    open_bench(&b, picture, 1, 12, 12, 3, &policy, PAD, VIEWS);
    for (int i = 0; i < VIEWS; i++) rows[i] = (mdm_view_row){.sample = (uint64_t)i, .view = MDM_VIEW_STRONG};
    make(&b, b.pictures, rows, VIEWS);
    size_t bytes = sizeof(float) * b.bytes * VIEWS;
    float *together = malloc(bytes);
    memcpy(together, b.host_images, bytes);
    for (int step = 0; step < 3; step++) {
        mdm_device_zero(b.device, b.images, bytes);
        assert_int_equal(mdm_view_maker_begin(b.maker), MDM_OK);
        for (int i = 0; i < VIEWS; i += 2)
            assert_int_equal(make_now(&b, b.pictures, rows + i, 2, b.images + (size_t)i * b.bytes), MDM_OK);
        assert_int_equal(make_now(&b, b.pictures, rows, 1, b.images), MDM_LOST);
        assert_int_equal(mdm_device_download(b.device, b.host_images, b.images, bytes), MDM_OK);
        assert_memory_equal(b.host_images, together, bytes);
    }
    free(together);
    close_bench(&b);
    free(picture);
}

/* The host waits for nothing but for what it is about to change. */
static void steps_follow_each_other_without_a_wait_for_the_first(void **state) {
    (void)state;
    enum { STEPS = 6, SIDE = 12 };
    mdm_view_policy policy;
    bench b;
    mdm_upload *upload;
    uint8_t *pictures = draw_pictures(STEPS, SIDE * SIDE * 3), *sent;
    mdm_view_row rows[STEPS];
    mdm_augment_prepare_policy(SIDE, SIDE, &policy);
    open_bench(&b, pictures, STEPS, SIDE, SIDE, 3, &policy, PAD, STEPS);
    size_t bytes = sizeof(float) * b.bytes * STEPS;
    float *together = malloc(bytes);
    for (uint32_t i = 0; i < STEPS; i++)
        rows[i] = (mdm_view_row){.sample = i, .picture = i, .view = MDM_VIEW_STRONG};
    make(&b, b.pictures, rows, STEPS);
    memcpy(together, b.host_images, bytes);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(mdm_view_maker_begin(b.maker), MDM_OK);
        assert_int_equal(make_now(&b, b.pictures, rows + i, 1, b.images + (size_t)i * b.bytes), MDM_OK);
    }
    assert_int_equal(mdm_device_download(b.device, b.host_images, b.images, bytes), MDM_OK);
    assert_memory_equal(b.host_images, together, bytes);
    assert_int_equal(mdm_upload_create(b.device, b.bytes, "a test", &upload), MDM_OK);
    for (size_t i = 0; i < STEPS; i++) {
        const uint8_t *memory;
        void *host;
        size_t offset;
        assert_int_equal(mdm_upload_begin(upload, &host), MDM_OK);
        memcpy(host, pictures + i * b.bytes, b.bytes);
        assert_int_equal(mdm_upload_send(upload, b.bytes), MDM_OK);
        assert_int_equal(mdm_upload_take(upload, &memory, &offset), MDM_OK);
        mdm_device_copy(b.device, (uint8_t *)b.images + i * b.bytes, memory + offset, b.bytes);
    }
    assert_non_null(sent = malloc(STEPS * b.bytes));
    assert_int_equal(mdm_device_download(b.device, sent, b.images, STEPS * b.bytes), MDM_OK);
    assert_memory_equal(sent, pictures, STEPS * b.bytes);
    mdm_upload_destroy(upload);
    free(sent);
    free(together);
    close_bench(&b);
    free(pictures);
}

/* Each buffer is filled while the views of the one before are still to be made. */
static void uploaded_pictures_give_the_views_of_resident_ones(void **state) {
    (void)state;
    enum { STEPS = 5, ROWS = 7, SIDE = 9 };
    mdm_view_policy policy;
    mdm_upload *upload;
    void *host;
    const uint8_t *memory, *before = NULL;
    size_t offset;
    bench b;
    uint8_t *pictures = draw_pictures(STEPS * ROWS, SIDE * SIDE * 3);
    mdm_augment_prepare_policy(SIDE, SIDE, &policy);
    open_bench(&b, pictures, STEPS * ROWS, SIDE, SIDE, 3, &policy, PAD, ROWS);
    assert_int_equal(mdm_upload_create(b.device, ROWS * b.bytes, "a test", &upload), MDM_OK);
    float *resident = malloc(sizeof(float) * ROWS * b.bytes);
    assert_int_equal(mdm_upload_begin(upload, &host), MDM_OK);
    memcpy(host, pictures, ROWS * b.bytes);
    assert_int_equal(mdm_upload_send(upload, ROWS * b.bytes), MDM_OK);
    for (int step = 0; step < STEPS; step++) {
        mdm_view_row rows[ROWS];
        for (uint32_t i = 0; i < ROWS; i++)
            rows[i] = (mdm_view_row){.sample = i, .picture = (uint32_t)step * ROWS + i, .view = 2};
        make(&b, b.pictures, rows, ROWS);
        memcpy(resident, b.host_images, sizeof(float) * ROWS * b.bytes);
        assert_int_equal(mdm_upload_take(upload, &memory, &offset), MDM_OK);
        assert_true(!before || memory == before);
        before = memory;
        if (step + 1 < STEPS) {
            assert_int_equal(mdm_upload_begin(upload, &host), MDM_OK);
            memcpy(host, pictures + (size_t)(step + 1) * ROWS * b.bytes, ROWS * b.bytes);
            assert_int_equal(mdm_upload_send(upload, ROWS * b.bytes), MDM_OK);
        }
        for (uint32_t i = 0; i < ROWS; i++) rows[i].picture = i;
        make(&b, memory + offset, rows, ROWS);
        assert_memory_equal(b.host_images, resident, sizeof(float) * ROWS * b.bytes);
    }
    mdm_upload_destroy(upload);
    free(resident);
    close_bench(&b);
    free(pictures);
}

static void the_cpu_has_nothing_of_this(void **state) {
    (void)state;
    mdm_device *device;
    mdm_view_maker *maker;
    mdm_upload *upload;
    mdm_view_spec spec = {.height = 4, .width = 4, .channels = 1};
    assert_int_equal(mdm_device_create_cpu(1, 1, &device), MDM_OK);
    assert_int_equal(mdm_view_maker_create(device, &spec, &maker), MDM_USAGE);
    assert_null(maker);
    assert_int_equal(mdm_upload_create(device, 16, "a test", &upload), MDM_USAGE);
    assert_null(upload);
    mdm_device_destroy(device);
}

int main(void) {
    const struct CMUnitTest on_cpu[] = {cmocka_unit_test(the_cpu_has_nothing_of_this)};
    const struct CMUnitTest on_cuda[] = {
        cmocka_unit_test(every_golden_operation_is_met_to_the_bit),
        cmocka_unit_test(every_level_and_sign_is_met_to_the_bit_at_fill_128),
        cmocka_unit_test(whole_views_are_those_of_torchvision_on_the_same_draws),
        cmocka_unit_test(views_are_the_cpus_for_every_size_seed_and_sample),
        cmocka_unit_test(pictures_beyond_shared_memory_are_made_the_same),
        cmocka_unit_test(several_calls_share_a_steps_room),
        cmocka_unit_test(steps_follow_each_other_without_a_wait_for_the_first),
        cmocka_unit_test(uploaded_pictures_give_the_views_of_resident_ones),
    };
    test_device_or_skip();
    if (!test_device_is_cuda()) return cmocka_run_group_tests(on_cpu, NULL, NULL);
    return cmocka_run_group_tests(on_cuda, NULL, NULL);
}
