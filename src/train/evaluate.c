/* Evaluation without augmentation and with running statistics: every rank takes its slice of the samples. */
#include "mdm/base/log.h"
#include "mdm/base/watch.h"
#include "mdm/device/losses.h"
#include "mdm/device/losses_host.h"
#include "trainer.h"
#include <math.h>
#include <stdlib.h>

enum { EVALUATION_ROWS = 256 };

mdm_network *mdm_predicting_network(mdm_trainer *t, int number) {
    return t->averages[number] ? t->averages[number] : t->networks[number];
}

static mdm_status plan_slice(mdm_trainer *t, int64_t count) {
    int64_t rows = count < EVALUATION_ROWS ? count : EVALUATION_ROWS;
    MDM_TRY(mdm_trainer_reserve(t, rows > 0 ? rows : 1, EVALUATION_ROWS, EVALUATION_ROWS));
    if (count >= EVALUATION_ROWS) MDM_TRY(mdm_executor_plan(t->executor, EVALUATION_ROWS, 1));
    return mdm_executor_plan(t->executor, (int)(count % EVALUATION_ROWS), 1);
}

/* Sample i of the pictures to measure on. */
static int64_t sample_at(const mdm_pictures *pictures, int64_t i) {
    return pictures->samples ? pictures->samples[i] : i;
}

/* Images [first, first + rows) of those pictures, into the first image buffer. */
static mdm_status load_rows(mdm_trainer *t, const mdm_pictures *pictures, int64_t first, int64_t rows) {
    for (int64_t i = 0; i < rows; i++) t->sample_list[i] = sample_at(pictures, first + i);
    MDM_TRY(mdm_views_load(pictures->views, pictures->split, t->sample_list, rows));
    return mdm_views_make(pictures->views, MDM_VIEW_NONE, 0, rows, 0, 0, NULL, t->step_images);
}

/* Labels and losses of a rank's slice, in the device's memory: no batch waits for the one before it. Logits
 * of a batch, in host memory. */
typedef struct judgement {
    int32_t *label;
    double *value;
    float *logits;
} judgement;

static mdm_status prepare_losses(mdm_trainer *t, int64_t first, int64_t count, judgement *j) {
    const int32_t *labels = mdm_store_labels(t->store, MDM_TRAIN);
    size_t n = (size_t)(count > 0 ? count : 1);
    MDM_TRY(
        mdm_device_allocate(t->device, n * sizeof *j->label, "labels of all samples", (void **)&j->label));
    MDM_TRY(
        mdm_device_allocate(t->device, n * sizeof *j->value, "losses of all samples", (void **)&j->value));
    return mdm_device_upload(t->device, j->label, labels + first, (size_t)count * sizeof *j->label);
}

static mdm_status fetch_losses(mdm_trainer *t, const judgement *j, int64_t count, float *loss) {
    double *value;
    MDM_TRY(MDM_ALLOCATE(value, count + 1, "losses of all samples"));
    mdm_status status = mdm_device_download(t->device, value, j->value, (size_t)count * sizeof *value);
    for (int64_t i = 0; status == MDM_OK && i < count; i++) loss[i] = (float)value[i];
    free(value);
    return status;
}

/* What is wanted of rows [done, done + rows) of the slice. */
static mdm_status take_outputs(mdm_trainer *t, const mdm_outputs *out, int64_t done, int64_t rows,
                               const judgement *j, const mdm_evaluation *wanted) {
    int64_t d = t->layout->embedding, c = t->layout->spec.classes;
    size_t bytes = sizeof(float) * (size_t)(rows * d);
    if (wanted->loss) {
        const mdm_loss_rows each = {
            .logits = out->logits, .rows = rows, .classes = (int)c, .value = j->value + done};
        mdm_loss_hard(t->device, &each, j->label + done, 1.0f, 0.0f);
    }
    if (wanted->embedding_on_device)
        mdm_device_copy(t->device, wanted->embedding_on_device + done * d, out->embedding, bytes);
    if (wanted->embedding)
        MDM_TRY(mdm_device_download(t->device, wanted->embedding + done * d, out->embedding, bytes));
    bytes = sizeof(float) * (size_t)(rows * c);
    if (wanted->logits)
        MDM_TRY(mdm_device_download(t->device, wanted->logits + done * c, out->logits, bytes));
    if (!wanted->prediction) return MDM_OK;
    MDM_TRY(mdm_device_download(t->device, j->logits, out->logits, bytes));
    mdm_softmax(j->logits, rows, (int)c, j->logits);
    for (int64_t i = 0; i < rows * c; i++)
        wanted->prediction[done * c + i] += j->logits[i] / (float)wanted->networks;
    return MDM_OK;
}

static mdm_status evaluate_slice(mdm_trainer *t, mdm_network *network, int64_t first, int64_t count,
                                 judgement *j, const mdm_evaluation *wanted) {
    const mdm_pictures all = {t->store, t->views, MDM_TRAIN, NULL, t->data->train_count};
    MDM_TRY(plan_slice(t, count));
    if (wanted->loss) MDM_TRY(prepare_losses(t, first, count, j));
    if (wanted->prediction)
        MDM_TRY(MDM_ALLOCATE(j->logits, EVALUATION_ROWS * (long long)t->layout->spec.classes, "predictions"));
    for (int64_t done = 0; done < count; done += EVALUATION_ROWS) {
        mdm_watch_progress();
        int64_t rows = count - done < EVALUATION_ROWS ? count - done : EVALUATION_ROWS;
        mdm_outputs out;
        MDM_TRY(load_rows(t, &all, first + done, rows));
        MDM_TRY(
            mdm_executor_forward(t->executor, network, (int)rows, t->step_images, MDM_PASS_EVALUATE, &out));
        MDM_TRY(take_outputs(t, &out, done, rows, j, wanted));
    }
    return wanted->loss ? fetch_losses(t, j, count, wanted->loss) : MDM_OK;
}

mdm_status mdm_check_outputs(mdm_trainer *t, const float *value, int64_t count, int64_t width) {
    mdm_status status = MDM_OK;
    for (int64_t i = 0; status == MDM_OK && i < count * width; i++)
        if (!isfinite(value[i]))
            status = mdm_fail(MDM_NUMERIC,
                              "training picture %lld of rank %d gets no finite numbers: the networks have "
                              "diverged; lower train.lr_backbone, train.lr_head or pretrain.lr",
                              (long long)(i / width), mdm_comm_rank(t->comm));
    return mdm_comm_agree(t->comm, status);
}

mdm_status mdm_evaluate_training(mdm_trainer *t, mdm_network *network, const mdm_evaluation *wanted) {
    int64_t first, count;
    judgement j = {0};
    mdm_comm_my_slice(t->comm, t->data->train_count, &first, &count);
    mdm_status status = evaluate_slice(t, network, first, count, &j, wanted);
    mdm_device_free(t->device, j.label);
    mdm_device_free(t->device, j.value);
    free(j.logits);
    return status;
}

static int first_of_largest(const float *probability, int classes) {
    int best = 0;
    for (int c = 1; c < classes; c++)
        if (probability[c] > probability[best]) best = c;
    return best;
}

/* Counts right answers among the first one and five of a row, and rows without finite numbers, which are
 * none; ties count for the lower class, so constant outputs earn nothing. */
static void count_hits(const float *probability, int classes, int label, int64_t *hits) {
    int better = 0;
    if (!isfinite(probability[label])) { /* softmax makes all of a row so */
        hits[2]++;
        return;
    }
    for (int c = 0; c < classes; c++)
        better += probability[c] > probability[label] || (c < label && probability[c] == probability[label]);
    hits[0] += better < 1;
    hits[1] += better < 5;
}

/* Told where it begins: a network that gives every picture the same class has usually diverged. Labels of one
 * class alone ask for nothing else. */
static void tell_collapse(mdm_trainer *t, const int64_t *extremes, int64_t total) {
    enum { LEAST_PICTURES = 20 };
    int collapsed = total >= LEAST_PICTURES && -extremes[0] == extremes[1] && -extremes[2] < extremes[3];
    if (collapsed && !t->collapsed)
        mdm_warn(
            "all %lld pictures measured are taken for class %lld; if that stays so, lower the learning rates",
            (long long)total, (long long)extremes[1]);
    t->collapsed = collapsed;
}

/* Told where it begins, too: training may find back, but its end does not pass with such networks. */
static void tell_lost(mdm_trainer *t, int64_t lost, int64_t total) {
    if (lost && !t->lost)
        mdm_warn("%lld of the %lld pictures measured get no finite numbers and count as wrong: the networks "
                 "have diverged; lower the learning rates",
                 (long long)lost, (long long)total);
    t->lost = lost > 0;
}

/* Adds a network's softmax of pictures [first, first + count) to sum [count, C]. */
static mdm_status add_predictions(mdm_trainer *t, const mdm_pictures *pictures, mdm_network *network,
                                  int64_t first, int64_t count, float *sum, float *one) {
    int classes = t->layout->spec.classes;
    for (int64_t done = 0; done < count; done += EVALUATION_ROWS) {
        mdm_watch_progress();
        int64_t rows = count - done < EVALUATION_ROWS ? count - done : EVALUATION_ROWS;
        mdm_outputs out;
        MDM_TRY(load_rows(t, pictures, first + done, rows));
        MDM_TRY(
            mdm_executor_forward(t->executor, network, (int)rows, t->step_images, MDM_PASS_EVALUATE, &out));
        MDM_TRY(mdm_device_download(t->device, one, out.logits, sizeof(float) * (size_t)(rows * classes)));
        mdm_softmax(one, rows, classes, one);
        for (int64_t i = 0; i < rows * classes; i++) sum[done * classes + i] += one[i];
    }
    return MDM_OK;
}

mdm_status mdm_evaluate_pictures(mdm_trainer *t, const mdm_pictures *pictures, mdm_network **networks,
                                 int count, mdm_score *score) {
    int64_t total = pictures->count, first, mine, hits[3] = {0, 0, 0};
    int64_t extremes[4] = {-INT64_MAX, -1, -INT64_MAX,
                           -1}; /* of predictions and labels; the lowest ones negated */
    int classes = t->layout->spec.classes;
    const int32_t *labels = mdm_store_labels(pictures->store, pictures->split);
    score->top1 = score->top5 = -1;
    if (total == 0) return MDM_OK;
    mdm_comm_my_slice(t->comm, total, &first, &mine);
    MDM_TRY(plan_slice(t, mine));
    MDM_TRY(mdm_views_reserve(pictures->views, EVALUATION_ROWS, EVALUATION_ROWS));
    float *sum, *one;
    MDM_TRY(MDM_ALLOCATE(sum, (mine + EVALUATION_ROWS) * (long long)classes, "predictions"));
    one = sum + (size_t)mine * (size_t)classes;
    mdm_status status = MDM_OK;
    for (int n = 0; status == MDM_OK && n < count;
         n++) /* networks outside: their weights are laid out once */
        status = add_predictions(t, pictures, networks[n], first, mine, sum, one);
    for (int64_t i = 0; status == MDM_OK && i < mine; i++) {
        int64_t label = labels[sample_at(pictures, first + i)],
                best = first_of_largest(sum + i * classes, classes);
        count_hits(sum + i * classes, classes, (int)label, hits);
        const int64_t here[4] = {-best, best, -label, label};
        for (int e = 0; e < 4; e++)
            if (here[e] > extremes[e]) extremes[e] = here[e];
    }
    free(sum);
    MDM_TRY(status);
    MDM_TRY(mdm_comm_all_reduce(t->comm, hits, 3, MDM_INT64, MDM_SUM));
    MDM_TRY(mdm_comm_all_reduce(t->comm, extremes, 4, MDM_INT64, MDM_MAX));
    tell_lost(t, hits[2], total);
    if (!t->lost) tell_collapse(t, extremes, total);
    score->top1 = (double)hits[0] / (double)total;
    score->top5 = (double)hits[1] / (double)total;
    return MDM_OK;
}

mdm_status mdm_evaluate_test(mdm_trainer *t, mdm_network **networks, int count, mdm_score *score) {
    mdm_pictures test = {t->store, t->views, MDM_TEST, NULL, t->data->test_count};
    return mdm_evaluate_pictures(t, &test, networks, count, score);
}
