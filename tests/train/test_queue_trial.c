/* One queue or two: the ways take turns, medians decide, and two queues must gain something. */
#include "golden.h"
#include "queue_trial.h"

static void replay(mdm_queue_trial *t, int turn, double one, double two) {
    mdm_queue_way way = mdm_queue_trial_next(t, turn);
    mdm_queue_trial_add(t, way, way == MDM_ONE_QUEUE ? one : two);
}

static mdm_queue_way outcome(double one, double two) {
    mdm_queue_trial t = {0};
    double medians[MDM_QUEUE_WAYS];
    for (int turn = 0; !mdm_queue_trial_is_full(&t); turn++) {
        assert_true(turn < 2 * MDM_TRIAL_TURNS);
        double slow = turn / 2 == 3 ? 100 : 0; /* a replay that something held up */
        replay(&t, turn, one + slow, two + slow);
    }
    for (int w = 0; w < MDM_QUEUE_WAYS; w++) medians[w] = mdm_queue_trial_median(&t, (mdm_queue_way)w);
    assert_true(medians[MDM_ONE_QUEUE] == one && medians[MDM_TWO_QUEUES] == two);
    mdm_queue_trial_decide(&t, medians);
    for (int turn = 0; turn < 4; turn++) assert_int_equal(mdm_queue_trial_next(&t, turn), t.chosen);
    return t.chosen;
}

static void two_queues_are_taken_where_they_gain_more_than_a_hundredth(void **state) {
    (void)state;
    assert_int_equal(outcome(6.0, 5.5), MDM_TWO_QUEUES);
    assert_int_equal(outcome(6.0, 5.97), MDM_ONE_QUEUE);
    assert_int_equal(outcome(6.0, 6.0), MDM_ONE_QUEUE);
    assert_int_equal(outcome(6.0, 7.0), MDM_ONE_QUEUE);
}

static void steps_of_two_sizes_that_alternate_are_both_tried_both_ways(void **state) {
    (void)state;
    mdm_queue_trial t = {0};
    for (int i = 0; i < 2 * MDM_TRIAL_TURNS; i++) { /* sizes 64, 63, 64, 63, ... each with turns of its own */
        mdm_queue_way way = mdm_queue_trial_next(&t, i / 2);
        assert_int_equal(way, i / 2 % 2 == 0 ? MDM_ONE_QUEUE : MDM_TWO_QUEUES);
        mdm_queue_trial_add(&t, way, i % 2 == 0 ? 64 : 63);
    }
    assert_true(t.count[MDM_ONE_QUEUE] == MDM_TRIAL_TURNS && t.count[MDM_TWO_QUEUES] >= MDM_TRIAL_TURNS - 1);
}

/* Passes of three steps, the first of which is launched: the second way is not left behind. */
static void steps_that_begin_anew_again_and_again_get_to_an_end(void **state) {
    (void)state;
    mdm_queue_trial t = {0};
    for (int pass = 0; pass < MDM_TRIAL_TURNS; pass++) {
        int first = mdm_queue_trial_first_turn(&t);
        for (int turn = first; turn < first + 2; turn++) replay(&t, turn, 2, 1);
        replay(&t, mdm_queue_trial_first_turn(&t), 2, 1); /* of the other size, which comes once */
    }
    assert_true(mdm_queue_trial_is_full(&t));
}

static void a_trial_that_is_given_up_stays_with_one_queue(void **state) {
    (void)state;
    mdm_queue_trial t = {0};
    replay(&t, 0, 6, 1);
    replay(&t, 1, 6, 1);
    mdm_queue_trial_stay(&t);
    assert_int_equal(mdm_queue_trial_next(&t, 1), MDM_ONE_QUEUE);
    mdm_queue_trial_add(&t, MDM_ONE_QUEUE, 6);
    assert_int_equal(t.count[MDM_ONE_QUEUE], 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_queues_are_taken_where_they_gain_more_than_a_hundredth),
        cmocka_unit_test(steps_of_two_sizes_that_alternate_are_both_tried_both_ways),
        cmocka_unit_test(steps_that_begin_anew_again_and_again_get_to_an_end),
        cmocka_unit_test(a_trial_that_is_given_up_stays_with_one_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
