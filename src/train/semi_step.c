/* MixEMatch: refine labels and guess the missing ones, mix inputs and final embeddings, add up six losses.
 *
 * Three passes of all rows per network: weak views without gradient, mixed images, strong views (DESIGN,
 * principle 5). One after another, the strong pass is taken back before the mixed one begins, so one set of
 * activations is enough; joined (executor.h), they are one pass with batch statistics of three. The strong
 * pass is left out where none of its losses counts, as in DivideMix: its gradient would be zero, and it moves
 * no statistics. Partner rows of the mix may live on other ranks: their images were made again locally, their
 * targets and embeddings are gathered, and the gradients of embeddings are summed back to their owners.
 * (Manifold DivideMix, section on MixEMatch; reference: semi_loss.)
 */
#include "mdm/train/semi_step.h"
#include "mdm/device/group.h"
#include "mdm/device/recording.h"
#include "mdm/train/contrast.h"
#include <stdlib.h>
#include <string.h>

struct mdm_semi_workspace {
    int64_t n; /* largest global batch */
    int64_t image;
    mdm_device *device;
    mdm_group *group;
    mdm_contrast *contrast;
    int64_t *counts;      /* [P], elements per rank of a gather */
    mdm_message *message; /* what a step is told: 4-byte words */
    /* in the device's memory */
    float *own, *theirs;              /* softmax of weak views, [4 count, C], [2 count, C] */
    float *target, *target_all;       /* [4 count, C + 1], [4 n, C + 1]: target and mask of every row */
    float *mixed_target, *mixed_mask; /* [4 count, C], [4 count] */
    float *embedding_all, *embedding_gradient_all; /* [4 n, D], rank-major; NULL on one rank, as target_all */
    float *mixed_embedding, *embedding_gradient, *mixed_embedding_gradient; /* [4 count, D] */
    float *logits, *logits_gradient, *probability;                          /* [4 count, C] */
    float *projection_gradient;                                             /* [4 count, projection] */
    double *value;  /* of losses per row: [MDM_PART_UE + 1][2 count], then confident guesses [count] */
    double *result; /* [RESULTS] */
};

/* What a step leaves: the parts and how many guesses count, summed over ranks; then what is the same on all.
 */
enum { CONFIDENT = MDM_PART_BALANCE, BALANCE, GRADIENT_SQUARE, LOSS, VERDICT, RESULTS };

/* Where what a step is told stands in the device's memory. */
typedef struct told {
    const mdm_step_orders *orders;
    const float *lambda, *ramp;          /* [1] */
    const int32_t *label;                /* [count] */
    const float *clean_probability;      /* [count] */
    const int32_t *partner, *mixed_with; /* [groups * count], [groups * n]: rows as gathered */
} told;

/* The largest slice that any rank may get. */
static int64_t largest_slice(int64_t n, int ranks) {
    return n / ranks + (n % ranks != 0);
}

enum { ORDER_WORDS = sizeof(mdm_step_orders) / sizeof(int32_t), SCALAR_WORDS = ORDER_WORDS + 2 };

static int64_t told_words(int64_t groups, int64_t n, int64_t count) {
    return SCALAR_WORDS + 2 * count + groups * (count + n);
}

static mdm_status allocate(mdm_semi_workspace *w, mdm_comm *comm, const mdm_layout *layout) {
    const mdm_network_spec *spec = &layout->spec;
    int64_t n = w->n, count = largest_slice(n, mdm_comm_size(comm)), c = spec->classes, d = layout->embedding,
            gathered = mdm_comm_size(comm) > 1 ? 4 * n : 0;
    struct {
        float **pointer;
        int64_t floats;
    } parts[] = {
        {&w->own, 4 * count * c},
        {&w->theirs, 2 * count * c},
        {&w->target, 4 * count * (c + 1)},
        {&w->target_all, gathered * (c + 1)},
        {&w->mixed_target, 4 * count * c},
        {&w->mixed_mask, 4 * count},
        {&w->embedding_all, gathered * d},
        {&w->embedding_gradient_all, gathered * d},
        {&w->mixed_embedding, 4 * count * d},
        {&w->embedding_gradient, 4 * count * d},
        {&w->mixed_embedding_gradient, 4 * count * d},
        {&w->logits, 4 * count * c},
        {&w->logits_gradient, 4 * count * c},
        {&w->probability, 4 * count * c},
        {&w->projection_gradient, 4 * count * spec->projection},
        {(float **)&w->value, 2 * (2 * count * (MDM_PART_UE + 1) + count)},
        {(float **)&w->result, 2 * RESULTS},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].floats > 0)
            MDM_TRY(mdm_device_allocate(w->device, sizeof(float) * (size_t)parts[i].floats,
                                        "the step's memory", (void **)parts[i].pointer));
    MDM_TRY(mdm_message_create(w->device, sizeof(int32_t) * (size_t)told_words(4, n, count),
                               "what a step is told", &w->message));
    MDM_TRY(mdm_group_create(comm, w->device, &w->group));
    MDM_TRY(mdm_group_reserve(w->group, 2 * sizeof(float) * (size_t)(4 * n * (d > c + 1 ? d : c + 1))));
    return MDM_ALLOCATE(w->counts, mdm_comm_size(comm), "the step's memory");
}

mdm_status mdm_semi_workspace_create(mdm_comm *comm, const mdm_executor *executor, const mdm_layout *layout,
                                     int64_t n, float contrast_temperature, mdm_semi_workspace **out) {
    mdm_semi_workspace *w;
    const mdm_network_spec *spec = &layout->spec;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(w, 1, "the step's memory"));
    w->n = n;
    w->device = mdm_executor_device(executor);
    w->image = (int64_t)spec->channels * spec->height * spec->width;
    mdm_status status = allocate(w, comm, layout);
    if (status == MDM_OK)
        status = mdm_contrast_create(comm, executor, n, spec->projection, contrast_temperature, &w->contrast);
    if (status != MDM_OK) {
        mdm_semi_workspace_destroy(w);
        return status;
    }
    *out = w;
    return MDM_OK;
}

mdm_status mdm_semi_workspace_plan(mdm_semi_workspace *w, int64_t n) {
    return mdm_contrast_plan(w->contrast, n);
}

void mdm_semi_workspace_destroy(mdm_semi_workspace *w) {
    if (!w) return;
    void *parts[] = {w->own,
                     w->theirs,
                     w->target,
                     w->target_all,
                     w->mixed_target,
                     w->mixed_mask,
                     w->embedding_all,
                     w->embedding_gradient_all,
                     w->mixed_embedding,
                     w->embedding_gradient,
                     w->mixed_embedding_gradient,
                     w->logits,
                     w->logits_gradient,
                     w->probability,
                     w->projection_gradient,
                     w->value,
                     w->result};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) mdm_device_free(w->device, parts[i]);
    mdm_contrast_destroy(w->contrast);
    mdm_group_destroy(w->group);
    free(w->counts);
    mdm_message_destroy(w->message);
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

/* Where all ranks' rows go, and the gradients of all: on one rank these are its own. */
static float *of_all_ranks(float *gathered, const float *own) {
    return gathered ? gathered : (float *)(uintptr_t)own;
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

static told places(const mdm_semi_batch *b, const mdm_semi_workspace *w) {
    const int32_t *words = mdm_message_memory(w->message), *rest = words + SCALAR_WORDS;
    return (told){.orders = (const mdm_step_orders *)words,
                  .lambda = (const float *)(words + ORDER_WORDS),
                  .ramp = (const float *)(words + ORDER_WORDS + 1),
                  .label = rest,
                  .clean_probability = (const float *)(rest + b->count),
                  .partner = rest + 2 * b->count,
                  .mixed_with = rest + 2 * b->count + b->groups * b->count};
}

const mdm_step_orders *mdm_semi_orders(const mdm_semi_workspace *workspace) {
    return mdm_message_memory(workspace->message);
}

const double *mdm_semi_verdict(const mdm_semi_workspace *workspace) {
    return &workspace->result[VERDICT];
}

/* All that this step knows and the last one did not, in one message to the device. */
mdm_status mdm_semi_tell(mdm_comm *comm, mdm_executor *executor, mdm_network *network, mdm_network *guesser,
                         const mdm_semi_batch *b, mdm_semi_workspace *w) {
    int64_t rows = b->groups * b->count, all = b->groups * b->n;
    void *host;
    if (b->n > w->n)
        return mdm_fail(MDM_LOST, "a step of %lld rows in memory for %lld", (long long)b->n, (long long)w->n);
    MDM_TRY(mdm_network_send(network, w->device));
    if (guesser && b->groups == 4) MDM_TRY(mdm_executor_prepare(executor, guesser));
    MDM_TRY(mdm_message_begin(w->message, &host));
    int32_t *words = host, *rest = words + SCALAR_WORDS, *partner = rest + 2 * b->count,
            *mixed_with = partner + rows;
    memcpy(words, &b->orders, sizeof b->orders);
    memcpy(words + ORDER_WORDS, &b->lambda, sizeof b->lambda);
    memcpy(words + ORDER_WORDS + 1, &b->ramp, sizeof b->ramp);
    memcpy(rest, b->label, sizeof *b->label * (size_t)b->count);
    memcpy(rest + b->count, b->clean_probability, sizeof(float) * (size_t)b->count);
    for (int64_t i = 0; i < all; i++) mixed_with[i] = -1;
    for (int64_t i = 0; i < rows; i++) {
        partner[i] = (int32_t)gathered_row(comm, b, b->permutation[global_row(b, i)]);
        mixed_with[partner[i]] = (int32_t)i;
    }
    return MDM_OK;
}

/* The images of the three passes, [groups * count, image] each. */
static float *images_of(const mdm_semi_batch *b, const mdm_semi_workspace *w, mdm_semi_images which) {
    return b->images + which * b->groups * b->count * w->image;
}

/* What the other network says of the weak views of unlabelled samples. */
static mdm_status guess(mdm_executor *executor, mdm_network *guesser, const mdm_semi_batch *b,
                        mdm_semi_workspace *w) {
    const float *unlabelled = images_of(b, w, MDM_SEMI_WEAK) + 2 * b->count * w->image;
    mdm_outputs out;
    if (b->groups < 4 || !guesser) return MDM_OK;
    MDM_TRY(
        mdm_executor_forward(executor, guesser, (int)(2 * b->count), unlabelled, MDM_PASS_EVALUATE, &out));
    mdm_softmax_rows(w->device, out.logits, 2 * b->count, guesser->layout->spec.classes, w->theirs);
    return MDM_OK;
}

/* Labels are refined, and guessed where there are none, by what the network itself (`logits`, of weak views)
 * and the other say. */
static void make_targets(const mdm_network *network, const mdm_network *guesser, const mdm_semi_options *o,
                         const mdm_semi_batch *b, const told *t, const float *logits, mdm_semi_workspace *w) {
    int classes = network->layout->spec.classes;
    mdm_target_batch targets = {.count = b->count,
                                .groups = b->groups,
                                .classes = classes,
                                .own = w->own,
                                .theirs = b->groups == 4 && guesser ? w->theirs : NULL,
                                .label = t->label,
                                .clean_probability = t->clean_probability,
                                .temperature = o->temperature,
                                .confidence = o->confidence};
    mdm_softmax_rows(w->device, logits, b->groups * b->count, classes, w->own);
    mdm_make_targets(w->device, &targets, w->target, w->value + 2 * b->count * (MDM_PART_UE + 1));
}

/* Every row's partner becomes their mix. */
static void mix_images(const mdm_semi_batch *b, const told *t, mdm_semi_workspace *w) {
    float *mixed = images_of(b, w, MDM_SEMI_MIXED);
    mdm_mix_rows(w->device, b->groups * b->count, w->image, t->lambda, images_of(b, w, MDM_SEMI_STRONG),
                 mixed, NULL, mixed);
}

/* Mixed targets and masks of this rank's rows, from everybody's targets. */
static mdm_status mix_targets(mdm_comm *comm, const mdm_semi_batch *b, int classes, const told *t,
                              mdm_semi_workspace *w) {
    int64_t rows = b->groups * b->count;
    float *all = of_all_ranks(w->target_all, w->target);
    MDM_TRY(mdm_group_all_gather(w->group, w->target, all, counts_of(comm, w, b->n, b->groups, classes + 1),
                                 MDM_FLOAT));
    mdm_mix_targets(w->device, rows, classes, t->lambda, w->target, all, t->partner, w->mixed_target,
                    w->mixed_mask);
    return MDM_OK;
}

/* Gradient of the labelled and unlabelled losses of `logits`, written, and their values per row, which go to
 * parts `part_x` and `part_u`. */
static void supervised_and_consistency(const mdm_semi_options *o, const mdm_semi_batch *b, int classes,
                                       const float *logits, const told *t, float lambda_x, float lambda_u,
                                       int part_x, int part_u, mdm_semi_workspace *w) {
    int64_t half = 2 * b->count, offset = half * classes;
    mdm_loss_rows labelled = {.logits = logits,
                              .rows = half,
                              .classes = classes,
                              .weight = w->mixed_mask,
                              .scale = lambda_x / (2.0f * (float)b->n),
                              .value = w->value + half * part_x,
                              .gradient = w->logits_gradient};
    mdm_loss_rows unlabelled = {.logits = logits + offset,
                                .rows = b->groups < 4 ? 0 : half,
                                .classes = classes,
                                .weight = w->mixed_mask + half,
                                .scale = lambda_u / (2.0f * (float)b->n),
                                .factor = t->ramp,
                                .value = w->value + half * part_u,
                                .gradient = w->logits_gradient + offset};
    mdm_loss_soft(w->device, &labelled, &unlabelled, w->mixed_target, 1.0f, o->rce_weight);
}

/* The losses on mixed embeddings; leaves the gradient of this rank's own embeddings in w->embedding_gradient.
 */
static mdm_status mix_embeddings(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                                 const mdm_semi_options *o, const mdm_semi_batch *b, const told *t,
                                 const float *embedding, mdm_semi_workspace *w) {
    int64_t rows = b->groups * b->count, d = network->layout->embedding;
    int classes = network->layout->spec.classes;
    const int64_t *counts = counts_of(comm, w, b->n, b->groups, d);
    float *all = of_all_ranks(w->embedding_all, embedding),
          *all_gradient = of_all_ranks(w->embedding_gradient_all, w->embedding_gradient);
    MDM_TRY(mdm_group_all_gather(w->group, embedding, all, counts, MDM_FLOAT));
    mdm_mix_rows(w->device, rows, d, t->lambda, embedding, all, t->partner, w->mixed_embedding);
    MDM_TRY(mdm_classifier_forward(executor, network, w->mixed_embedding, w->logits));
    supervised_and_consistency(o, b, classes, w->logits, t, o->lambda_xe, o->lambda_ue, MDM_PART_XE,
                               MDM_PART_UE, w);
    MDM_TRY(mdm_classifier_backward(executor, network, w->mixed_embedding, w->logits_gradient,
                                    w->mixed_embedding_gradient, 1));
    mdm_mix_rows_backward(w->device, b->groups * b->n, rows, d, b->groups * b->first, t->lambda,
                          w->mixed_embedding_gradient, t->mixed_with, all_gradient);
    return mdm_group_reduce_scatter(w->group, all_gradient, w->embedding_gradient, counts);
}

/* NT-Xent between the two strong views of every unlabelled sample (of every labelled one when there are no
 * others). */
static mdm_status contrast(const mdm_semi_options *o, const mdm_semi_batch *b, int width,
                           const float *projection, mdm_semi_workspace *w) {
    int64_t skip = (b->groups - 2) * b->count * width;
    mdm_device_zero(w->device, w->projection_gradient, sizeof(float) * (size_t)skip);
    return mdm_contrast_loss(w->contrast, b->n, o->lambda_contrast, projection + skip,
                             w->projection_gradient + skip);
}

mdm_semi_options mdm_semi_options_of(const mdm_config *config) {
    const int is_sce = config->semi.supervised == MDM_CONFIG_SUPERVISED_SCE;
    return (mdm_semi_options){.temperature = (float)config->semi.temperature,
                              .confidence = (float)config->semi.confidence,
                              .lambda_x = (float)config->semi.lambda_x,
                              .lambda_u = (float)config->semi.lambda_u,
                              .lambda_xe = (float)config->semi.lambda_xe,
                              .lambda_ue = (float)config->semi.lambda_ue,
                              .lambda_contrast = (float)config->semi.lambda_c,
                              .rce_weight = is_sce ? (float)config->semi.rce_weight : 0.0f};
}

int mdm_semi_has_strong_pass(const mdm_semi_options *o) {
    return o->lambda_xe > 0 || o->lambda_ue > 0 || o->lambda_contrast > 0;
}

int mdm_semi_passes(const mdm_semi_options *o) {
    return mdm_semi_has_strong_pass(o) ? MDM_SEMI_PASSES : MDM_SEMI_STRONG;
}

mdm_status mdm_semi_plan_passes(mdm_executor *executor, const mdm_semi_options *o, int rows) {
    return mdm_executor_is_joined(executor) ? mdm_executor_plan_joined(executor, rows, mdm_semi_passes(o))
                                            : mdm_executor_plan(executor, rows, 0);
}

/* Losses of the strong views: embedding mixup and contrast. */
static mdm_status strong_losses(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                                const mdm_semi_options *o, const mdm_semi_batch *b, const told *t,
                                const mdm_outputs *out, mdm_semi_workspace *w) {
    MDM_TRY(mix_embeddings(comm, executor, network, o, b, t, out->embedding, w));
    return contrast(o, b, network->layout->spec.projection, out->projection, w);
}

/* Keeps predictions from collapsing: the mean prediction over the global batch is drawn towards the uniform
 * one. */
static mdm_status balance(mdm_executor *executor, const mdm_semi_batch *b, int classes, const float *logits,
                          mdm_semi_workspace *w) {
    double total = (double)(b->groups * b->n);
    const double *sums;
    MDM_TRY(mdm_executor_sum_predictions(executor, logits, w->probability, &sums));
    mdm_loss_balance(w->device, w->probability, b->groups * b->count, classes, sums, total,
                     1.0f / (float)total, &w->result[BALANCE], w->logits_gradient);
    return MDM_OK;
}

/* Losses of the mixed images: supervised, consistency and balance. */
static mdm_status mixed_losses(mdm_executor *executor, const mdm_semi_options *o, const mdm_semi_batch *b,
                               int classes, const told *t, const mdm_outputs *out, mdm_semi_workspace *w) {
    supervised_and_consistency(o, b, classes, out->logits, t, o->lambda_x, o->lambda_u, MDM_PART_X,
                               MDM_PART_U, w);
    return balance(executor, b, classes, out->logits, w);
}

/* The passes one after another; gradients are reduced while the last is taken back. */
static mdm_status take_passes(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                              const mdm_network *guesser, const mdm_semi_options *o, const mdm_semi_batch *b,
                              const told *t, mdm_semi_workspace *w) {
    int rows = (int)(b->groups * b->count), classes = network->layout->spec.classes;
    const float *mixed = images_of(b, w, MDM_SEMI_MIXED), *strong = images_of(b, w, MDM_SEMI_STRONG);
    mdm_outputs out;
    MDM_TRY(
        mdm_executor_forward(executor, network, rows, images_of(b, w, MDM_SEMI_WEAK), MDM_PASS_GUESS, &out));
    make_targets(network, guesser, o, b, t, out.logits, w);
    MDM_TRY(mix_targets(comm, b, classes, t, w));
    if (mdm_semi_has_strong_pass(o)) {
        MDM_TRY(mdm_executor_forward(executor, network, rows, strong, MDM_PASS_MIXED, &out));
        MDM_TRY(strong_losses(comm, executor, network, o, b, t, &out, w));
        MDM_TRY(mdm_executor_backward(executor, network, rows, strong, w->embedding_gradient,
                                      w->projection_gradient, NULL, 1, 0));
    }
    MDM_TRY(mdm_executor_forward(executor, network, rows, mixed, MDM_PASS_MIXED, &out));
    MDM_TRY(mixed_losses(executor, o, b, classes, t, &out, w));
    return mdm_executor_backward(executor, network, rows, mixed, NULL, NULL, w->logits_gradient, 1, 1);
}

/* The same as one pass. Its images lie in this order. */
static mdm_status take_joined_passes(mdm_comm *comm, mdm_executor *executor, mdm_network *network,
                                     const mdm_network *guesser, const mdm_semi_options *o,
                                     const mdm_semi_batch *b, const told *t, mdm_semi_workspace *w) {
    int rows = (int)(b->groups * b->count), classes = network->layout->spec.classes,
        count = mdm_semi_passes(o);
    mdm_joined_pass passes[MDM_JOINED_PASSES] = {
        [MDM_SEMI_WEAK] = {.wants_projection = 1}, /* whose statistics move as well */
        [MDM_SEMI_MIXED] = {.logits_gradient = w->logits_gradient},
        [MDM_SEMI_STRONG] = {.wants_projection = 1,
                             .embedding_gradient = w->embedding_gradient,
                             .projection_gradient = w->projection_gradient}};
    MDM_TRY(mdm_executor_forward_joined(executor, network, rows, b->images, passes, count));
    make_targets(network, guesser, o, b, t, passes[MDM_SEMI_WEAK].outputs.logits, w);
    MDM_TRY(mix_targets(comm, b, classes, t, w));
    if (mdm_semi_has_strong_pass(o))
        MDM_TRY(strong_losses(comm, executor, network, o, b, t, &passes[MDM_SEMI_STRONG].outputs, w));
    MDM_TRY(mixed_losses(executor, o, b, classes, t, &passes[MDM_SEMI_MIXED].outputs, w));
    return mdm_executor_backward_joined(executor, network, rows, b->images, passes, count, 1);
}

/* This rank's sums, then everybody's. */
static mdm_status sum_up(const mdm_semi_options *o, const mdm_semi_batch *b, mdm_semi_workspace *w) {
    int64_t half = 2 * b->count, guessed = b->groups < 4 ? 0 : b->count;
    double divisor = 2.0 * (double)b->n;
    mdm_row_sum sums[MDM_PART_UE + 3];
    for (int part = 0; part <= MDM_PART_UE; part++) {
        int is_labelled = part == MDM_PART_X || part == MDM_PART_XE,
            is_computed = part == MDM_PART_X || part == MDM_PART_U || mdm_semi_has_strong_pass(o);
        sums[part] =
            (mdm_row_sum){w->value + half * part, is_computed && (is_labelled || guessed > 0) ? half : 0,
                          divisor, &w->result[part]};
    }
    sums[MDM_PART_UE + 1] =
        (mdm_row_sum){w->value + half * (MDM_PART_UE + 1), guessed, 1.0, &w->result[CONFIDENT]};
    sums[MDM_PART_UE + 2] = mdm_contrast_sum(w->contrast, b->n, &w->result[MDM_PART_CONTRAST]);
    if (!mdm_semi_has_strong_pass(o)) sums[MDM_PART_UE + 2].rows = 0;
    mdm_sum_rows(w->device, sums, MDM_PART_UE + 3);
    return mdm_group_all_reduce(w->group, w->result, CONFIDENT + 1, MDM_DOUBLE, MDM_SUM);
}

static void judge(const mdm_semi_options *o, const told *t, mdm_semi_workspace *w) {
    const mdm_step_judgement judgement = {.terms = {{&w->result[MDM_PART_X], NULL, o->lambda_x},
                                                    {&w->result[MDM_PART_U], t->ramp, o->lambda_u},
                                                    {&w->result[MDM_PART_XE], NULL, o->lambda_xe},
                                                    {&w->result[MDM_PART_UE], t->ramp, o->lambda_ue},
                                                    {&w->result[MDM_PART_CONTRAST], NULL, o->lambda_contrast},
                                                    {&w->result[BALANCE], NULL, 1.0f}},
                                          .count = MDM_PART_COUNT,
                                          .square = &w->result[GRADIENT_SQUARE],
                                          .orders = t->orders,
                                          .loss = &w->result[LOSS],
                                          .verdict = &w->result[VERDICT]};
    mdm_judge_step(w->device, &judgement);
}

mdm_status mdm_semi_queue(mdm_comm *comm, mdm_executor *executor, mdm_network *network, mdm_network *guesser,
                          const mdm_semi_options *o, const mdm_semi_batch *b, mdm_semi_workspace *w) {
    const told t = places(b, w);
    mdm_executor_set_batch(executor, b->groups, b->n);
    MDM_TRY(mdm_message_send(w->message, sizeof(int32_t) * (size_t)told_words(b->groups, b->n, b->count)));
    if (mdm_executor_is_joined(executor))
        mdm_network_clear_heads_gradient(network); /* the encoder's is written, by the only way back */
    else
        mdm_network_clear_gradient(network);
    MDM_TRY(guess(executor, guesser, b, w));
    mix_images(b, &t, w);
    if (mdm_executor_is_joined(executor))
        MDM_TRY(take_joined_passes(comm, executor, network, guesser, o, b, &t, w));
    else
        MDM_TRY(take_passes(comm, executor, network, guesser, o, b, &t, w));
    MDM_TRY(mdm_executor_reduce_wait(executor, network));
    MDM_TRY(sum_up(o, b, w));
    mdm_network_square_gradient(w->device, network, &w->result[GRADIENT_SQUARE]);
    judge(o, &t, w);
    return MDM_OK;
}

mdm_status mdm_semi_collect(const mdm_semi_batch *b, mdm_semi_workspace *w, mdm_semi_result *result) {
    double values[RESULTS];
    MDM_TRY(mdm_device_download(w->device, values, w->result, sizeof values));
    memcpy(result->parts, values, sizeof *values * MDM_PART_BALANCE);
    result->parts[MDM_PART_BALANCE] = values[BALANCE];
    result->confident = b->groups < 4 ? 0.0 : values[CONFIDENT] / (double)b->n;
    result->gradient_square = values[GRADIENT_SQUARE];
    result->loss = values[LOSS];
    result->verdict = (int)values[VERDICT];
    return MDM_OK;
}
