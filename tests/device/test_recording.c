/* Recorded steps: replays do what launches do, to the bit, with what the host tells them each time; a step
 * that the device judges unsound changes nothing. */
#include "mdm/device/losses.h"
#include "mdm/device/recording.h"
#include "test_device.h"
#include <math.h>

enum { COUNT = 3000, STEPS = 9, NOT_FINITE_AT = 4, SPIKE_AT = 6, RECORDED_AT = 1 };

/* What a step is told: orders, then its gradient. */
typedef struct news {
    mdm_step_orders orders;
    float gradient[COUNT];
} news;

/* Weights that a small step moves: their gradient's squared norm is judged, its sum is the loss. */
typedef struct model {
    mdm_device *device;
    mdm_message *message;
    float *weights, *velocity;
    double *result; /* part of the loss, loss, square, verdict */
} model;

static void open_model(model *m) {
    float *first = malloc(sizeof(float) * COUNT);
    m->device = test_device_open(1, 0);
    for (int i = 0; i < COUNT; i++) first[i] = (float)(i % 17) * 0.125f;
    m->weights = test_device_copy(m->device, first, sizeof(float) * COUNT);
    m->velocity = test_device_copy(m->device, NULL, sizeof(float) * COUNT);
    m->result = test_device_copy(m->device, NULL, sizeof(double) * 4);
    assert_int_equal(mdm_message_create(m->device, sizeof(news), "a test", &m->message), MDM_OK);
    free(first);
}

static void close_model(model *m) {
    mdm_message_destroy(m->message);
    mdm_device_free(m->device, m->weights);
    mdm_device_free(m->device, m->velocity);
    mdm_device_free(m->device, m->result);
    mdm_device_destroy(m->device);
}

static void tell(const model *m, int step) {
    void *host;
    assert_int_equal(mdm_message_begin(m->message, &host), MDM_OK);
    news *n = host;
    n->orders = (mdm_step_orders){.square_limit = step == SPIKE_AT ? 1e-3 : INFINITY,
                                  .loss_limit = INFINITY,
                                  .rate_encoder = 0.1f / (float)(step + 1),
                                  .rate_heads = 0.5f};
    for (int i = 0; i < COUNT; i++) n->gradient[i] = (float)((i * 7 + step * 3) % 11) - 4.0f;
    if (step == NOT_FINITE_AT) n->gradient[COUNT / 2] = NAN;
}

static void queue(const model *m) {
    const news *told = mdm_message_memory(m->message);
    assert_int_equal(mdm_message_send(m->message, sizeof *told), MDM_OK);
    mdm_sum_squares(m->device, told->gradient, COUNT, &m->result[2]);
    mdm_sum_squares(m->device, m->weights, COUNT, &m->result[0]);
    const mdm_step_judgement judgement = {.terms = {{&m->result[0], NULL, 0.5f}},
                                          .count = 1,
                                          .square = &m->result[2],
                                          .orders = &told->orders,
                                          .loss = &m->result[1],
                                          .verdict = &m->result[3]};
    mdm_judge_step(m->device, &judgement);
    mdm_sgd_step(m->device, m->weights, told->gradient, m->velocity, COUNT, &told->orders.rate_encoder, 0.9f,
                 5e-4f, &m->result[3]);
}

/* All steps, their weights and results into `weights` [STEPS, COUNT] and `results` [STEPS, 4]; of the last
 * one only, where the host `hurries`. */
static void run(int is_recorded, int way, int hurries, float *weights, double *results) {
    model m;
    mdm_recording *recording = NULL;
    open_model(&m);
    for (int step = 0; step < STEPS; step++) {
        tell(&m, step);
        if (is_recorded && step == RECORDED_AT) {
            assert_int_equal(mdm_recording_begin(m.device, way), MDM_OK);
            queue(&m);
            assert_int_equal(mdm_recording_end(m.device, 1, &recording), MDM_OK);
            assert_non_null(recording);
        }
        if (recording)
            assert_int_equal(mdm_recording_replay(recording, 0), MDM_OK);
        else
            queue(&m);
        if (hurries && step < STEPS - 1) continue;
        assert_int_equal(mdm_device_download(m.device, results + 4 * step, m.result, sizeof(double) * 4),
                         MDM_OK);
        assert_int_equal(
            mdm_device_download(m.device, weights + step * COUNT, m.weights, sizeof(float) * COUNT), MDM_OK);
    }
    mdm_recording_destroy(recording);
    close_model(&m);
}

static void a_replayed_step_is_the_launched_one_to_the_bit(void **state) {
    (void)state;
    static float launched[STEPS * COUNT], replayed[STEPS * COUNT];
    double results[2][STEPS * 4];
    if (!test_device_is_cuda()) skip(); /* the CPU records nothing, as another test says */
    mdm_device *device = test_device_open(1, 0);
    const int ways = mdm_device_recording_ways(device);
    mdm_device_destroy(device);
    assert_true(ways == MDM_RECORDING_WAYS || ways == MDM_RECORD_EARLY);
    run(0, 0, 0, launched, results[0]);
    for (int way = 0; way < ways; way++) {
        run(1, way, 0, replayed, results[1]);
        assert_memory_equal(launched, replayed, sizeof launched);
        assert_memory_equal(results[0], results[1], sizeof results[0]);
    }
}

/* Messages are begun that the steps before may still have to read. */
static void steps_are_the_same_where_the_host_does_not_wait_for_them(void **state) {
    (void)state;
    static float patient[STEPS * COUNT], hurried[STEPS * COUNT];
    double results[2][STEPS * 4];
    run(0, 0, 0, patient, results[0]);
    for (int is_recorded = 0; is_recorded <= test_device_is_cuda(); is_recorded++) {
        run(is_recorded, MDM_RECORD_EARLY, 1, hurried, results[1]);
        assert_memory_equal(hurried + (STEPS - 1) * COUNT, patient + (STEPS - 1) * COUNT,
                            sizeof(float) * COUNT);
        assert_memory_equal(results[1] + (STEPS - 1) * 4, results[0] + (STEPS - 1) * 4, sizeof(double) * 4);
    }
}

static void an_unsound_step_changes_nothing_and_the_next_one_goes_on(void **state) {
    (void)state;
    static float weights[STEPS * COUNT];
    double results[STEPS * 4];
    run(test_device_is_cuda(), 0, 0, weights, results);
    for (int step = 1; step < STEPS; step++) {
        int is_unsound = step == NOT_FINITE_AT || step == SPIKE_AT;
        assert_int_equal((int)results[4 * step + 3], step == NOT_FINITE_AT ? MDM_STEP_IS_NOT_FINITE
                                                     : step == SPIKE_AT    ? MDM_STEP_IS_SPIKE
                                                                           : MDM_STEP_IS_SOUND);
        assert_int_equal(
            memcmp(weights + step * COUNT, weights + (step - 1) * COUNT, sizeof(float) * COUNT) == 0,
            is_unsound);
    }
}

static void a_loss_beyond_its_limit_is_a_spike_and_factors_multiply_weights(void **state) {
    (void)state;
    mdm_device *device = test_device_open(1, 0);
    const double given[] = {3.0, 5.0, 1.0}; /* two parts, the square */
    const float factor = 0.25f;
    const double limits[] = {16.0, 15.9}; /* below and above 2 * 3 + 8 * 0.25 * 5 = 16 */
    double *parts = test_device_copy(device, given, sizeof given), *out = test_device_copy(device, NULL, 16);
    float *factor_there = test_device_copy(device, &factor, sizeof factor);
    for (int i = 0; i < 2; i++) {
        const mdm_step_orders orders = {INFINITY, limits[i], 0, 0};
        mdm_step_orders *there = test_device_copy(device, &orders, sizeof orders);
        const mdm_step_judgement judgement = {
            .terms = {{&parts[0], NULL, 2.0f}, {&parts[1], factor_there, 8.0f}},
            .count = 2,
            .square = &parts[2],
            .orders = there,
            .loss = &out[0],
            .verdict = &out[1]};
        double result[2];
        mdm_judge_step(device, &judgement);
        assert_int_equal(mdm_device_download(device, result, out, sizeof result), MDM_OK);
        assert_true(result[0] == 16.0);
        assert_int_equal((int)result[1], i == 0 ? MDM_STEP_IS_SOUND : MDM_STEP_IS_SPIKE);
        mdm_device_free(device, there);
    }
    mdm_device_free(device, parts);
    mdm_device_free(device, out);
    mdm_device_free(device, factor_there);
    mdm_device_destroy(device);
}

static void a_recording_that_is_given_up_leaves_the_device_sound(void **state) {
    (void)state;
    model m;
    mdm_recording *recording;
    double result[4];
    open_model(&m);
    assert_int_equal(mdm_device_can_record(m.device), test_device_is_cuda());
    if (!test_device_is_cuda()) {
        assert_int_equal(mdm_recording_begin(m.device, 0), MDM_USAGE);
    } else {
        tell(&m, 0);
        assert_int_equal(mdm_recording_begin(m.device, 0), MDM_OK);
        queue(&m);
        assert_int_equal(mdm_recording_end(m.device, 0, &recording), MDM_OK);
        assert_null(recording);
        assert_int_equal(mdm_device_download(m.device, result, m.result, sizeof result), MDM_OK);
        assert_true(result[1] == 0.0 && result[2] == 0.0); /* nothing ran */
        queue(&m);
        assert_int_equal(mdm_device_download(m.device, result, m.result, sizeof result), MDM_OK);
        assert_true(result[1] > 0.0 && result[2] > 0.0);
    }
    close_model(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replayed_step_is_the_launched_one_to_the_bit),
        cmocka_unit_test(steps_are_the_same_where_the_host_does_not_wait_for_them),
        cmocka_unit_test(an_unsound_step_changes_nothing_and_the_next_one_goes_on),
        cmocka_unit_test(a_loss_beyond_its_limit_is_a_spike_and_factors_multiply_weights),
        cmocka_unit_test(a_recording_that_is_given_up_leaves_the_device_sound),
    };
    test_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
