/* MixEMatch: refine labels and guess the missing ones, mix inputs and final embeddings, add up six losses.
 *
 * Three passes of all rows per network: weak views without gradient, strong views, mixed images (DESIGN,
 * principle 5). The strong pass is taken back before the mixed one begins, so one set of activations is
 * enough. Partner rows of the mix may live on other ranks: their images were made again locally, their
 * targets and embeddings are gathered, and the gradients of embeddings are summed back to their owners.
 * (Manifold DivideMix, section on MixEMatch; reference: semi_loss.)
 */
#include "mdm/train/semi_step.h"
#include "mdm/device/losses.h"
#include "mdm/device/losses_host.h"
#include "mdm/train/contrast.h"
#include <stdlib.h>
#include <string.h>

struct mdm_semi_workspace {
    int64_t n;                        /* largest global batch */
    int64_t *counts;                  /* [P], elements per rank of a gather */
    float *own, *theirs;              /* softmax of weak views, [4 count, C], [2 count, C] */
    float *target, *target_all;       /* [4 count, C], [4 n, C + 1]: target and mask of every row */
    float *mixed_target, *mixed_mask; /* [4 count, C], [4 count] */
    float *embedding_all, *embedding_gradient_all; /* [4 n, D], rank-major */
    float *embedding, *mixed_embedding, *embedding_gradient, *mixed_embedding_gradient; /* [4 count, D] */
    float *logits, *logits_gradient, *sample_loss; /* [4 count, C], [4 count] */
    float *projection_gradient;                    /* [4 count, projection] */
    mdm_contrast *contrast;
    mdm_device *device;
    float *mixed, *share; /* [4 count, image], [1], in the device's memory */
    int64_t image;
    double *mean; /* [C] mean prediction */
};

/* The largest slice that any rank may get. */
static int64_t largest_slice(int64_t n, int ranks) {
    return n / ranks + (n % ranks != 0);
}

mdm_status mdm_semi_workspace_create(mdm_comm *comm, mdm_device *device, const mdm_layout *layout, int64_t n,
                                     mdm_semi_workspace **out) {
    mdm_semi_workspace *w;
    const mdm_network_spec *spec = &layout->spec;
    int64_t count = largest_slice(n, mdm_comm_size(comm)), c = spec->classes, d = layout->embedding,
            p = spec->projection;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(w, 1, "the step's memory"));
    w->n = n;
    w->device = device;
    w->image = (int64_t)spec->channels * spec->height * spec->width;
    struct {
        float **pointer;
        int64_t floats;
    } parts[] = {
        {&w->own, 4 * count * c},
        {&w->theirs, 2 * count * c},
        {&w->target, 4 * count * (c + 1)},
        {&w->target_all, 4 * n * (c + 1)},
        {&w->mixed_target, 4 * count * c},
        {&w->mixed_mask, 4 * count},
        {&w->embedding_all, 4 * n * d},
        {&w->embedding_gradient_all, 4 * n * d},
        {&w->embedding, 4 * count * d},
        {&w->mixed_embedding, 4 * count * d},
        {&w->embedding_gradient, 4 * count * d},
        {&w->mixed_embedding_gradient, 4 * count * d},
        {&w->logits, 4 * count * c},
        {&w->logits_gradient, 4 * count * c},
        {&w->sample_loss, 4 * count},
        {&w->projection_gradient, 4 * count * p},
    };
    size_t mixed = sizeof(float) * (size_t)(4 * count * w->image);
    mdm_status status = MDM_ALLOCATE(w->counts, mdm_comm_size(comm), "the step's memory");
    if (status == MDM_OK) status = mdm_device_allocate(device, mixed, "mixed images", (void **)&w->mixed);
    if (status == MDM_OK)
        status = mdm_device_allocate(device, sizeof(float), "mixed images", (void **)&w->share);
    if (status == MDM_OK) status = mdm_contrast_create(comm, n, spec->projection, &w->contrast);
    if (status == MDM_OK) status = MDM_ALLOCATE(w->mean, c, "the step's memory");
    for (size_t i = 0; status == MDM_OK && i < sizeof parts / sizeof *parts; i++)
        status =
            MDM_ALLOCATE(*parts[i].pointer, parts[i].floats > 0 ? parts[i].floats : 1, "the step's memory");
    if (status != MDM_OK) {
        mdm_semi_workspace_destroy(w);
        return status;
    }
    *out = w;
    return MDM_OK;
}

void mdm_semi_workspace_destroy(mdm_semi_workspace *w) {
    if (!w) return;
    float *parts[] = {w->own,
                      w->theirs,
                      w->target,
                      w->target_all,
                      w->mixed_target,
                      w->mixed_mask,
                      w->embedding_all,
                      w->embedding_gradient_all,
                      w->embedding,
                      w->mixed_embedding,
                      w->embedding_gradient,
                      w->mixed_embedding_gradient,
                      w->logits,
                      w->logits_gradient,
                      w->sample_loss,
                      w->projection_gradient};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
    mdm_device_free(w->device, w->mixed);
    mdm_device_free(w->device, w->share);
    mdm_contrast_destroy(w->contrast);
    free(w->counts);
    free(w->mean);
    free(w);
}

/* Elements of every rank when each sample of a group contributes `width` in `groups` groups. */
static const int64_t *counts_of(mdm_comm *comm, mdm_semi_workspace *w, int64_t n, int64_t groups,
                                int64_t width) {
    int ranks = mdm_comm_size(comm);
    for (int r = 0; r < ranks; r++) {
        int64_t first, count;
        mdm_comm_slice(n, r, ranks, &first, &count);
        w->counts[r] = groups * count * width;
    }
    return w->counts;
}

/* Where global row g stands in an array gathered in rank order, each rank's rows in its groups' order. */
static int64_t gathered_row(mdm_comm *comm, const mdm_semi_batch *b, int64_t row) {
    int ranks = mdm_comm_size(comm);
    int64_t group = row / b->n, sample = row % b->n;
    int rank = (int)((sample * ranks + ranks - 1) / b->n);
    int64_t first, count;
    if (rank >= ranks) rank = ranks - 1;
    mdm_comm_slice(b->n, rank, ranks, &first, &count);
    while (sample < first) mdm_comm_slice(b->n, --rank, ranks, &first, &count);
    while (sample >= first + count) mdm_comm_slice(b->n, ++rank, ranks, &first, &count);
    return b->groups * first + group * count + (sample - first);
}

/* Global row of this rank's row i. */
static int64_t global_row(const mdm_semi_batch *b, int64_t i) {
    return i / b->count * b->n + b->first + i % b->count;
}

/* Labelled: w * given label + (1 - w) * own prediction, sharpened; they always count. */
static void refine_labels(const mdm_semi_options *o, const mdm_semi_batch *b, int classes,
                          mdm_semi_workspace *w) {
    int64_t count = b->count;
    for (int64_t i = 0; i < count; i++) {
        float *target = w->target + i * (classes + 1), clean = b->clean_probability[i];
        const float *p1 = w->own + i * classes, *p2 = w->own + (count + i) * classes;
        for (int c = 0; c < classes; c++)
            target[c] = clean * (float)(c == b->label[i]) + (1.0f - clean) * 0.5f * (p1[c] + p2[c]);
        mdm_sharpen(target, 1, classes, o->temperature, target);
        target[classes] = 1.0f;
        memcpy(w->target + (count + i) * (classes + 1), target, sizeof(float) * (size_t)(classes + 1));
    }
}

/* Unlabelled: mean of all networks' predictions of both weak views, sharpened; counts when confident. Returns
 * how many do. */
static int64_t guess_labels(const mdm_semi_options *o, const mdm_semi_batch *b, int classes, int has_guesser,
                            mdm_semi_workspace *w) {
    int64_t count = b->count, confident = 0;
    float share = has_guesser ? 0.25f : 0.5f;
    for (int64_t i = 0; i < count; i++) {
        float *target = w->target + (2 * count + i) * (classes + 1), largest = 0;
        const float *p1 = w->own + (2 * count + i) * classes, *p2 = w->own + (3 * count + i) * classes;
        const float *q1 = w->theirs + i * classes, *q2 = w->theirs + (count + i) * classes;
        for (int c = 0; c < classes; c++)
            target[c] = share * (p1[c] + p2[c] + (has_guesser ? q1[c] + q2[c] : 0.0f));
        mdm_sharpen(target, 1, classes, o->temperature, target);
        for (int c = 0; c < classes; c++)
            if (target[c] > largest) largest = target[c];
        target[classes] = largest >= o->confidence ? 1.0f : 0.0f;
        confident += largest >= o->confidence;
        memcpy(w->target + (3 * count + i) * (classes + 1), target, sizeof(float) * (size_t)(classes + 1));
    }
    return confident;
}

/* First pass: weak views without gradient, by the network itself and (unlabelled ones) by the other. */
static mdm_status make_targets(mdm_executor *executor, mdm_network *network, mdm_network *guesser,
                               const mdm_semi_options *o, const mdm_semi_batch *b, mdm_semi_workspace *w,
                               int64_t *confident) {
    int classes = network->layout->spec.classes;
    mdm_outputs out;
    *confident = 0;
    MDM_TRY(
        mdm_executor_forward(executor, network, (int)(b->groups * b->count), b->weak, MDM_PASS_GUESS, &out));
    mdm_softmax(out.logits, b->groups * b->count, classes, w->own);
    refine_labels(o, b, classes, w);
    if (b->groups < 4) return MDM_OK;
    if (guesser) {
        const float *unlabelled = b->weak + 2 * b->count * w->image;
        MDM_TRY(mdm_executor_forward(executor, guesser, (int)(2 * b->count), unlabelled, MDM_PASS_EVALUATE,
                                     &out));
        mdm_softmax(out.logits, 2 * b->count, classes, w->theirs);
    }
    *confident = guess_labels(o, b, classes, guesser != NULL, w);
    return MDM_OK;
}

/* Mixed targets, masks and images of this rank's rows, from everybody's targets. */
static mdm_status mix_targets_and_images(mdm_comm *comm, const mdm_semi_batch *b, int classes,
                                         mdm_semi_workspace *w) {
    int64_t rows = b->groups * b->count, width = classes + 1;
    MDM_TRY(mdm_comm_all_gather(comm, w->target, rows * width, w->target_all,
                                counts_of(comm, w, b->n, b->groups, width), MDM_FLOAT));
    float own = b->lambda, theirs = 1.0f - b->lambda;
    for (int64_t i = 0; i < rows; i++) {
        const float *mine = w->target + i * width;
        const float *partner =
            w->target_all + gathered_row(comm, b, b->permutation[global_row(b, i)]) * width;
        for (int c = 0; c < classes; c++)
            w->mixed_target[i * classes + c] = own * mine[c] + theirs * partner[c];
        w->mixed_mask[i] = own * mine[classes] + theirs * partner[classes];
    }
    MDM_TRY(mdm_device_upload(w->device, w->share, &own, sizeof own));
    mdm_mix_rows(w->device, rows, w->image, w->share, b->strong, b->partner, NULL, w->mixed);
    return MDM_OK;
}

/* Value and gradient of the labelled and unlabelled losses of `logits`; the gradient is written. parts: this
 * rank's sums. */
static void supervised_and_consistency(const mdm_semi_options *o, const mdm_semi_batch *b, int classes,
                                       const float *logits, double lambda_x, double lambda_u,
                                       mdm_semi_workspace *w, double *part_x, double *part_u) {
    int64_t half = 2 * b->count, offset = half * classes;
    float scale_x = (float)(lambda_x / (2.0 * (double)b->n)),
          scale_u = (float)(lambda_u / (2.0 * (double)b->n));
    memset(w->logits_gradient, 0, sizeof(float) * (size_t)(b->groups * b->count * classes));
    mdm_sce_soft_forward(logits, w->mixed_target, half, classes, 1.0f, o->rce_weight, w->sample_loss);
    *part_x = mdm_weighted_sum(w->sample_loss, w->mixed_mask, half) / (2.0 * (double)b->n);
    mdm_sce_soft_backward(logits, w->mixed_target, w->mixed_mask, half, classes, 1.0f, o->rce_weight, scale_x,
                          w->logits_gradient);
    *part_u = 0;
    if (b->groups < 4) return;
    *part_u = mdm_consistency_forward(logits + offset, w->mixed_target + offset, w->mixed_mask + half, half,
                                      classes) /
              (2.0 * (double)b->n);
    mdm_consistency_backward(logits + offset, w->mixed_target + offset, w->mixed_mask + half, half, classes,
                             scale_u, w->logits_gradient + offset);
}

/* The losses on mixed embeddings; leaves the gradient of this rank's own embeddings in w->embedding_gradient.
 */
static mdm_status mix_embeddings(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                                 const mdm_semi_options *o, const mdm_semi_batch *b, mdm_semi_workspace *w,
                                 double *parts) {
    int64_t rows = b->groups * b->count, d = network->layout->embedding;
    int classes = network->layout->spec.classes;
    float own = b->lambda, theirs = 1.0f - b->lambda;
    MDM_TRY(mdm_comm_all_gather(comm, w->embedding, rows * d, w->embedding_all,
                                counts_of(comm, w, b->n, b->groups, d), MDM_FLOAT));
    for (int64_t i = 0; i < rows; i++) {
        const float *partner = w->embedding_all + gathered_row(comm, b, b->permutation[global_row(b, i)]) * d;
        for (int64_t j = 0; j < d; j++)
            w->mixed_embedding[i * d + j] = own * w->embedding[i * d + j] + theirs * partner[j];
    }
    MDM_TRY(mdm_classifier_forward(executor, network, w->mixed_embedding, w->logits));
    supervised_and_consistency(o, b, classes, w->logits, o->lambda_xe, (double)o->lambda_ue * b->ramp, w,
                               &parts[MDM_PART_XE], &parts[MDM_PART_UE]);
    MDM_TRY(mdm_classifier_backward(executor, network, w->mixed_embedding, w->logits_gradient,
                                    w->mixed_embedding_gradient, 1));
    memset(w->embedding_gradient_all, 0, sizeof(float) * (size_t)(b->groups * b->n * d));
    for (int64_t i = 0; i < rows; i++) {
        const float *gradient = w->mixed_embedding_gradient + i * d;
        float *mine = w->embedding_gradient_all + gathered_row(comm, b, global_row(b, i)) * d;
        float *partner =
            w->embedding_gradient_all + gathered_row(comm, b, b->permutation[global_row(b, i)]) * d;
        for (int64_t j = 0; j < d; j++) mine[j] += own * gradient[j];
        for (int64_t j = 0; j < d; j++) partner[j] += theirs * gradient[j];
    }
    return mdm_comm_reduce_scatter(comm, w->embedding_gradient_all, w->embedding_gradient,
                                   counts_of(comm, w, b->n, b->groups, d));
}

/* NT-Xent between the two strong views of every unlabelled sample (of every labelled one when there are no
 * others). */
static mdm_status contrast(const mdm_semi_options *o, const mdm_semi_batch *b, int width, int reproducible,
                           const float *projection, mdm_semi_workspace *w, double *part) {
    int64_t skip = (b->groups - 2) * b->count * width;
    memset(w->projection_gradient, 0, sizeof(float) * (size_t)(b->groups * b->count * width));
    return mdm_contrast_loss(w->contrast, b->n, b->first, b->count, reproducible, o->contrast_temperature,
                             o->lambda_contrast, projection + skip, w->projection_gradient + skip, part);
}

/* Second pass: strong views; embedding mixup and contrast, taken back at once. */
static mdm_status strong_pass(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                              const mdm_semi_options *o, const mdm_semi_batch *b, mdm_semi_workspace *w,
                              double *parts) {
    int rows = (int)(b->groups * b->count);
    mdm_outputs out;
    MDM_TRY(mdm_executor_forward(executor, network, rows, b->strong, MDM_PASS_MIXED, &out));
    memcpy(w->embedding, out.embedding, sizeof(float) * (size_t)rows * (size_t)network->layout->embedding);
    MDM_TRY(mix_embeddings(comm, executor, network, o, b, w, parts));
    MDM_TRY(contrast(o, b, network->layout->spec.projection, mdm_executor_is_reproducible(executor),
                     out.projection, w, &parts[MDM_PART_CONTRAST]));
    return mdm_executor_backward(executor, network, rows, b->strong, w->embedding_gradient,
                                 w->projection_gradient, NULL, 1, 0);
}

/* Keeps predictions from collapsing: the mean prediction over the global batch is drawn towards the uniform
 * one. */
static mdm_status balance(mdm_executor *executor, const mdm_semi_batch *b, int classes, const float *logits,
                          mdm_semi_workspace *w, double *part) {
    int64_t rows = b->groups * b->count, total = b->groups * b->n;
    MDM_TRY(mdm_executor_sum_rows(executor, logits, classes, mdm_balance_sum, w->mean));
    for (int c = 0; c < classes; c++) w->mean[c] /= (double)total;
    *part = mdm_balance_value(w->mean, classes);
    mdm_balance_backward(logits, w->mean, rows, classes, 1.0f / (float)total, w->logits_gradient);
    return MDM_OK;
}

/* Third pass: mixed images; supervised, consistency and balance losses; gradients are reduced while it is
 * taken back. */
static mdm_status mixed_pass(mdm_executor *executor, mdm_network *network, const mdm_semi_options *o,
                             const mdm_semi_batch *b, mdm_semi_workspace *w, double *parts,
                             double *balance_part) {
    int rows = (int)(b->groups * b->count), classes = network->layout->spec.classes;
    mdm_outputs out;
    MDM_TRY(mdm_executor_forward(executor, network, rows, w->mixed, MDM_PASS_MIXED, &out));
    supervised_and_consistency(o, b, classes, out.logits, o->lambda_x, (double)o->lambda_u * b->ramp, w,
                               &parts[MDM_PART_X], &parts[MDM_PART_U]);
    MDM_TRY(balance(executor, b, classes, out.logits, w, balance_part));
    MDM_TRY(mdm_executor_backward(executor, network, rows, w->mixed, NULL, NULL, w->logits_gradient, 1, 1));
    return mdm_executor_reduce_wait(executor, network);
}

mdm_status mdm_semi_step(mdm_comm *comm, mdm_executor *executor, mdm_network *network, mdm_network *guesser,
                         const mdm_semi_options *o, const mdm_semi_batch *b, mdm_semi_workspace *w,
                         mdm_semi_result *result) {
    double sums[MDM_PART_COUNT + 1] = {0},
                                 balance_part = 0; /* this rank's parts, then its confident guesses */
    int64_t confident;
    if (b->n > w->n)
        return mdm_fail(MDM_LOST, "a step of %lld rows in memory for %lld", (long long)b->n, (long long)w->n);
    mdm_executor_set_batch(executor, (int)b->groups, b->n);
    mdm_network_clear_gradient(network);
    MDM_TRY(make_targets(executor, network, guesser, o, b, w, &confident));
    MDM_TRY(mix_targets_and_images(comm, b, network->layout->spec.classes, w));
    MDM_TRY(strong_pass(comm, executor, network, o, b, w, sums));
    MDM_TRY(mixed_pass(executor, network, o, b, w, sums, &balance_part));
    sums[MDM_PART_COUNT] = (double)confident;
    MDM_TRY(mdm_comm_all_reduce(comm, sums, MDM_PART_COUNT + 1, MDM_DOUBLE, MDM_SUM));
    memcpy(result->parts, sums, sizeof result->parts);
    result->parts[MDM_PART_BALANCE] = balance_part; /* the same on all ranks */
    result->confident = b->groups < 4 ? 0.0 : sums[MDM_PART_COUNT] / (double)b->n;
    result->loss = o->lambda_x * sums[MDM_PART_X] + o->lambda_u * b->ramp * sums[MDM_PART_U] +
                   o->lambda_xe * sums[MDM_PART_XE] + o->lambda_ue * b->ramp * sums[MDM_PART_UE] +
                   o->lambda_contrast * sums[MDM_PART_CONTRAST] + balance_part;
    return MDM_OK;
}
