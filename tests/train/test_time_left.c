/* The time left that a run shows: near the truth after few steps, and without leaps where passes end. */
#include "golden.h"
#include "trainer.h"
#include <math.h>
#include <stdlib.h>

enum { STEPS = 20 };
static const double pass_seconds[MDM_STAGE_DONE] = {20, 10, 40, 10, 10};

/* Five epochs of pretraining and of both other stages by two networks, then one baseline: 800 seconds. */
static mdm_trainer *make_trainer(void) {
    mdm_trainer *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->network_count = 2;
    t->config.pretrain.epochs = 5;
    t->config.train.warmup = 5;
    t->config.train.epochs = 10;
    t->config.baseline = MDM_CONFIG_BASELINE_CE;
    t->steps = STEPS;
    return t;
}

static double left_of_run(mdm_trainer *t, mdm_stage stage, int64_t epoch, int network, int64_t step,
                          double seconds) {
    double of_stage, of_run;
    t->place.network = network;
    t->place.step = step;
    mdm_time_left(t, stage, epoch, seconds, &of_stage, &of_run);
    assert_true(of_stage <= of_run + 1e-9);
    return of_run;
}

static void an_even_run_is_known_from_its_first_step_on(void **state) {
    (void)state;
    mdm_trainer *t = make_trainer();
    double truth = 800;
    for (int stage = MDM_STAGE_PRETRAIN; stage <= MDM_STAGE_BASELINE_CE; stage++) {
        int passes = 10, networks = stage < MDM_STAGE_BASELINE_CE ? 2 : 1;
        for (int pass = 0; pass < passes; pass++) {
            int64_t epoch = pass / networks + (stage == MDM_STAGE_SEMI ? 5 : 0);
            for (int step = 1; step <= STEPS; step++) {
                double spent = pass_seconds[stage] * step / STEPS;
                double left = left_of_run(t, (mdm_stage)stage, epoch, pass % networks, step, spent);
                if (fabs(left - (truth - spent)) > 1e-6)
                    fail_msg("stage %d, pass %d, step %d: %g for %g", stage, pass, step, left, truth - spent);
            }
            truth -= pass_seconds[stage];
            mdm_count_pass(t, (mdm_stage)stage, pass_seconds[stage]);
        }
    }
    assert_true(fabs(truth) < 1e-6);
    free(t);
}

static void a_slow_first_step_of_a_pass_moves_little(void **state) {
    (void)state;
    mdm_trainer *t = make_trainer();
    for (int pass = 0; pass < 4; pass++) mdm_count_pass(t, MDM_STAGE_PRETRAIN, 20);
    double before = left_of_run(t, MDM_STAGE_PRETRAIN, 2, 0, 0, 0);
    /* ten times as slow as the others were */
    double after = left_of_run(t, MDM_STAGE_PRETRAIN, 2, 0, 1, 10);
    assert_true(after < before * 1.03);
    /* but a machine that stays slow is noticed, by and by and then in full */
    double middle = left_of_run(t, MDM_STAGE_PRETRAIN, 2, 0, 10, 20);
    assert_true(middle > before - 10);
    for (int pass = 0; pass < 5; pass++) mdm_count_pass(t, MDM_STAGE_PRETRAIN, 40);
    double slow = t->pass_seconds[MDM_STAGE_PRETRAIN];
    assert_true(slow > 36 && slow < 40);
    free(t);
}

static void dividing_and_testing_come_on_top(void **state) {
    (void)state;
    mdm_trainer *t = make_trainer();
    double plain = left_of_run(t, MDM_STAGE_PRETRAIN, 0, 0, 10, 10);
    t->seconds[0] = 10;
    t->seconds[3] = 4;
    t->seconds[4] = 1;
    double with_both = left_of_run(t, MDM_STAGE_PRETRAIN, 0, 0, 10, 10);
    assert_true(fabs(with_both - 1.5 * plain) < 1e-6 && plain > 0);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_even_run_is_known_from_its_first_step_on),
        cmocka_unit_test(a_slow_first_step_of_a_pass_moves_little),
        cmocka_unit_test(dividing_and_testing_come_on_top),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
