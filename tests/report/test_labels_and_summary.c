/* labels.csv, summary.json and environment.json, as other programs read them. */
#include "mdm/base/machine.h"
#include "mdm/report/labels_csv.h"
#include "mdm/report/labels_rows.h"
#include "mdm/report/summary.h"

#include "report_test.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

static void labels_are_read_back_by_other_programs(void **state) {
    const char *path = in_folder(state, "labels.csv");
    const char *ids[] = {"plain", "a,\"b\"", "two\nlines", NULL};
    const int32_t given[] = {1, 1, 0, -1};
    const float probabilities[4 * 3] = {0.2f, 0.5f, 0.3f, 0.4f, 0.3f, 0.3f, 0, 0.1f, 0.9f, 0.3f, 0.3f, 0.3f};
    const float a[] = {0.25f, 0.1f, 0, 1}, b[] = {0.75f, 0.3f, 0, 1}, ood[] = {0.1f, 0.2f, 0.9f, NAN};
    const uint8_t verdict[] = {MDM_CLEAN, MDM_MISLABELLED, MDM_OUT_OF_DISTRIBUTION, MDM_CLEAN};
    int32_t suggested[4];
    float clean[4];
    mdm_labels_suggest(probabilities, 4, 3, suggested);
    mdm_labels_mean(a, b, 4, clean);
    mdm_label_table table = {4, ids, given, suggested, clean, ood, verdict, a, b};
    assert_int_equal(mdm_labels_write(path, &table), MDM_OK);
    char *content = read_bytes(path, NULL);
    assert_non_null(strstr(content, "\n0,plain,1,1,0.5,0.1"));
    assert_non_null(strstr(content, "\n1,\"a,\"\"b\"\"\",1,0,"));
    free(content);
    python_check("labels", path);
}

static void ids_may_be_missing_and_verdicts_may_not(void **state) {
    const char *path = in_folder(state, "labels.csv");
    const int32_t label = 3;
    const float score = 0.5f;
    uint8_t verdict = MDM_MISLABELLED;
    mdm_label_table table = {1, NULL, &label, &label, &score, &score, &verdict, NULL, NULL};
    assert_int_equal(mdm_labels_write(path, &table), MDM_OK);
    char *content = read_bytes(path, NULL);
    assert_string_equal(content,
                        "index,id,given,suggested,clean_probability,ood_score,verdict,suggested_probability,"
                        "mislabelled_score\n0,,3,3,0.5,0.5,mislabelled,,\n");
    free(content);
    verdict = 9;
    assert_int_equal(mdm_labels_write(path, &table), MDM_USAGE);
    assert_int_equal(mdm_labels_write(in_folder(state, "none/labels.csv"), &(mdm_label_table){0}),
                     MDM_RESOURCE);
}

static void many_rows_are_written_and_read_in_order(void **state) {
    enum { ROWS = 50000 }; /* several pieces */
    const char *path = in_folder(state, "labels.csv");
    int32_t *given;
    float *score;
    uint8_t *verdict;
    mdm_labels_rows rows;
    char index[16];
    assert_int_equal(MDM_ALLOCATE(given, ROWS, "labels"), MDM_OK);
    assert_int_equal(MDM_ALLOCATE(score, ROWS, "scores"), MDM_OK);
    assert_int_equal(MDM_ALLOCATE(verdict, ROWS, "verdicts"), MDM_OK);
    for (int i = 0; i < ROWS; i++) given[i] = i % 7, score[i] = (float)i / ROWS;
    mdm_label_table table = {ROWS, NULL, given, given, score, score, verdict, score, score};
    assert_int_equal(mdm_labels_write(path, &table), MDM_OK);
    assert_int_equal(mdm_labels_rows_read(path, &rows), MDM_OK);
    assert_int_equal(rows.rows, ROWS);
    for (int i = 0; i < ROWS; i++) {
        snprintf(index, sizeof index, "%d", i);
        assert_string_equal(mdm_labels_field(&rows, i, "index"), index);
        assert_int_equal(atoi(mdm_labels_field(&rows, i, "given")), given[i]);
        assert_true(strtof(mdm_labels_field(&rows, i, "mislabelled_score"), NULL) == score[i]);
    }
    mdm_labels_rows_free(&rows);
    free(given);
    free(score);
    free(verdict);
}

/* Files without content on the disk. */
static void memory_bounds_what_is_read_of_labels_csv(void **state) {
    const char *path = in_folder(state, "labels.csv");
    char source[256];
    mdm_labels_rows rows;
    double limit = mdm_memory_limit(source, sizeof source);
    int fits = limit / 3 > (double)((1LL << 30) + 1);
    close(creat(path, 0600));
    assert_int_equal(truncate(path, (1LL << 30) + 1), 0);
    assert_int_equal(mdm_labels_rows_read(path, &rows), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), fits ? "holds zero bytes" : "that such a file may have"));
    mdm_labels_rows_free(&rows);
    off_t beyond = limit > 0 ? (off_t)limit : (off_t)1 << 31;
    if (truncate(path, beyond) != 0) skip();
    assert_int_equal(mdm_labels_rows_read(path, &rows), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "that such a file may have"));
    mdm_labels_rows_free(&rows);
}

/* Two classes; three pictures are surely of class 0, of which one is labelled 1, and one of class 1. */
static void a_given_label_counts_as_evidence_beside_prediction_and_loss(void **state) {
    (void)state;
    const float sure[4 * 2] = {1, 0, 1, 0, 1, 0, 0, 1}, mixture[4] = {1, 0.5f, 0, 1};
    const int32_t given[4] = {0, 0, 1, 1};
    float clean[4];
    double transition[4] = {0}, blocks[4] = {0};
    mdm_labels_count(sure, given, 4, 2, transition);
    mdm_labels_scale(2, transition);
    mdm_labels_calibrate(sure, mixture, given, 4, 2, transition, clean);
    const float expected[4] = {1, 0.75f, 0, 1};
    for (int i = 0; i < 4; i++) assert_float_equal(clean[i], expected[i], 1e-6);
    /* soft: T[0] = (1.2, 0.6) / 1.8, T[1] = (0.3, 0.9) / 1.2 by hand from these predictions */
    const float soft[3 * 2] = {0.9f, 0.1f, 0.3f, 0.2f, 0.6f, 0.9f}, zero[3] = {0};
    const int32_t labels[3] = {0, 0, 1};
    memset(transition, 0, sizeof transition);
    mdm_labels_count(soft, labels, 3, 2, transition);
    mdm_labels_count(soft, labels, 1, 2, blocks); /* in two blocks: the same bits */
    mdm_labels_count(soft + 2, labels + 1, 2, 2, blocks);
    assert_memory_equal(blocks, transition, sizeof blocks);
    mdm_labels_scale(2, transition);
    mdm_labels_calibrate(soft, zero, labels, 3, 2, transition, clean);
    double t00 = 1.2 / 1.8, t01 = 0.6 / 1.8, t10 = 0.3 / 1.2, t11 = 0.9 / 1.2;
    assert_float_equal(clean[0], 0.5 * 0.9 * t00 / (0.9 * t00 + 0.1 * t10), 1e-6);
    assert_float_equal(clean[2], 0.5 * 0.9 * t11 / (0.6 * t01 + 0.9 * t11), 1e-6);
}

static void sorting_by_the_mislabelled_score_puts_sure_corrections_first(void **state) {
    (void)state;
    const float clean[4] = {0.1f, 0.4f, 0.0f, 0.9f}, probability[4] = {0.5f, 1.0f, 1.0f, 1.0f};
    const uint8_t verdict[4] = {MDM_MISLABELLED, MDM_MISLABELLED, MDM_OUT_OF_DISTRIBUTION, MDM_CLEAN};
    float score[4];
    mdm_labels_mislabelled(clean, probability, verdict, 4, score);
    assert_float_equal(score[0], 0.45, 1e-6);
    assert_float_equal(score[1], 0.6, 1e-6);
    assert_true(score[2] == 0 && score[3] == 0);
}

static void one_network_has_its_own_scores_as_mean(void **state) {
    const float a[2] = {0.25f, 0.5f};
    float mean[2];
    (void)state;
    mdm_labels_mean(a, NULL, 2, mean);
    assert_memory_equal(a, mean, sizeof a);
}

static void a_summary_is_json_with_null_for_the_unknown(void **state) {
    const char *path = in_folder(state, "summary.json");
    mdm_summary s = {.name = "quick \"start\"",
                     .status = "done",
                     .epochs = 30,
                     .final_top1 = 0.9,
                     .final_top5 = 0.99,
                     .best_top1 = NAN,
                     .best_epoch = -1,
                     .before_semi_top1 = NAN,
                     .baseline_ce_top1 = NAN,
                     .baseline_sce_top1 = NAN,
                     .auc_noise = {0.95, 0.94},
                     .auc_ood = {NAN, NAN},
                     .seconds = 100,
                     .seconds_semi = 12.5,
                     .images_per_s = 50,
                     .ranks = 2,
                     .networks = 2,
                     .device = "cpu",
                     .precision = "fp32"};
    assert_int_equal(mdm_summary_write(path, &s), MDM_OK);
    python_check("summary", path);
}

static void the_environment_tells_no_secrets(void **state) {
    const char *path = in_folder(state, "environment.json");
    const mdm_version versions[] = {{"HDF5", "1.10.8"}, {"Open MPI", "4.1.4"}};
    const mdm_rank_place places[] = {
        {"n1", "cpu", "0-1", 2}, {"n2", "cpu", NULL, 2}, {"n1", "cuda:0", "0-3", 4}};
    const char *arguments[] = {"mdm-dist", "seed=1"};
    setenv("OMP_NUM_THREADS", "3", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    setenv("SLURM_JOB_PASSWORD", "secret", 1);
    mdm_environment e = {.program_version = "0.1.0",
                         .versions = versions,
                         .version_count = 2,
                         .places = places,
                         .ranks = 3,
                         .arguments = arguments,
                         .argument_count = 2,
                         .folder = "/home/me",
                         .started = "2026-01-01T00:00:00Z"};
    assert_int_equal(mdm_environment_write(path, &e), MDM_OK);
    python_check("environment", path);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(labels_are_read_back_by_other_programs),
        IN_FOLDER(ids_may_be_missing_and_verdicts_may_not),
        IN_FOLDER(many_rows_are_written_and_read_in_order),
        IN_FOLDER(memory_bounds_what_is_read_of_labels_csv),
        cmocka_unit_test(a_given_label_counts_as_evidence_beside_prediction_and_loss),
        cmocka_unit_test(sorting_by_the_mislabelled_score_puts_sure_corrections_first),
        cmocka_unit_test(one_network_has_its_own_scores_as_mean),
        IN_FOLDER(a_summary_is_json_with_null_for_the_unknown),
        IN_FOLDER(the_environment_tells_no_secrets),
    };
    return cmocka_run_group_tests_name("labels and summary", tests, NULL, NULL);
}
