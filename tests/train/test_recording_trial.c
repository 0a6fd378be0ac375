/* Ways of recording: they take turns, medians decide, and another way than the plain one must gain something.
 */
#include "golden.h"
#include "recording_trial.h"
#include <math.h>

/* Replays until it is full, each third turn of a way held up by something. */
static void fill(mdm_recording_trial *t, const double *times) {
    int replays = 0;
    for (; !mdm_recording_trial_is_full(t); replays++) {
        int way = mdm_recording_trial_next(t);
        assert_true(replays < t->ways * MDM_TRIAL_TURNS && !t->is_out[way]);
        mdm_recording_trial_add(t, way, times[way] + (t->count[way] == 2 ? 100 : 0));
    }
}

static int outcome(int ways, const double *times) {
    mdm_recording_trial t = {.ways = ways};
    double medians[MDM_TRIAL_MOST_WAYS];
    fill(&t, times);
    mdm_recording_trial_medians(&t, medians);
    for (int w = 0; w < MDM_TRIAL_MOST_WAYS; w++)
        assert_true(w < ways ? medians[w] == times[w] : isinf(medians[w]));
    mdm_recording_trial_decide(&t, medians);
    for (int i = 0; i < 4; i++) assert_int_equal(mdm_recording_trial_next(&t), t.chosen);
    mdm_recording_trial_add(&t, 0, 1);
    assert_int_equal(t.count[0], MDM_TRIAL_TURNS);
    return t.chosen;
}

static void the_fastest_way_is_taken_where_it_gains_more_than_a_hundredth(void **state) {
    (void)state;
    static const struct {
        int ways, chosen;
        double times[MDM_TRIAL_MOST_WAYS];
    } cases[] = {{2, 1, {6.0, 5.5}},
                 {2, 0, {6.0, 5.97}},
                 {2, 0, {6.0, 7.0}},
                 {4, 3, {6.0, 5.9, 5.8, 5.7}},
                 {4, 2, {6.0, 6.1, 5.5, 5.6}},
                 {4, 0, {6.0, 6.0, 5.96, 6.3}},
                 {1, 0, {6.0}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(outcome(cases[i].ways, cases[i].times), cases[i].chosen);
}

static void ways_take_turns(void **state) {
    (void)state;
    mdm_recording_trial t = {.ways = 3};
    for (int i = 0; i < 3 * MDM_TRIAL_TURNS; i++) {
        assert_int_equal(mdm_recording_trial_next(&t), i % 3);
        mdm_recording_trial_add(&t, i % 3, 1);
    }
    assert_true(mdm_recording_trial_is_full(&t));
}

/* Its recording may fail at any of its turns. */
static void a_way_that_cannot_be_had_is_never_taken(void **state) {
    (void)state;
    static const double times[] = {6.0, 1.0, 5.0, 1.0};
    double medians[MDM_TRIAL_MOST_WAYS];
    mdm_recording_trial t = {.ways = 4};
    for (int i = 0; i < 4; i++) mdm_recording_trial_add(&t, mdm_recording_trial_next(&t), times[i]);
    mdm_recording_trial_leave_out(&t, 1);
    mdm_recording_trial_leave_out(&t, 3);
    fill(&t, times);
    mdm_recording_trial_add(&t, 1, 0.5);
    mdm_recording_trial_medians(&t, medians);
    mdm_recording_trial_decide(&t, medians);
    assert_int_equal(t.chosen, 2);
    mdm_recording_trial_leave_out(&t, 2);
    assert_int_equal(mdm_recording_trial_next(&t), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_way_is_taken_where_it_gains_more_than_a_hundredth),
        cmocka_unit_test(ways_take_turns),
        cmocka_unit_test(a_way_that_cannot_be_had_is_never_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
