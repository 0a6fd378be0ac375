/* Divide: joint evaluation, exact KNN scores and a mixture fitted over all samples, then the split; for every
 * network.
 *
 * store -> evaluate (my slice) -> losses and embeddings -> GMM + KNN ring -> gathered -> split, the same on
 * every rank.
 */
#include "mdm/base/log.h"
#include "mdm/divide/knn.h"
#include "trainer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLLECTED = 1 << 20 }; /* numbers that travel at once to rank 0 */

/* This rank's slice of what a division computes. */
typedef struct slice {
    int64_t first, count;
    float *loss, *cut, *embedding, *logits, *score, *clean; /* [count, ...]; some only where wanted */
    int64_t *neighbour;                                     /* [count, k], and how similar: */
    float *similarity;
    float *block;     /* [COLLECTED] of embeddings and logits on the way to rank 0 */
    float *on_device; /* [count, D] embeddings in the memory of the CUDA device that searches them, or NULL */
} slice;

static void free_slice(const mdm_trainer *t, slice *s) {
    mdm_device_free(t->device, s->on_device);
    free(s->loss);
    free(s->cut);
    free(s->embedding);
    free(s->logits);
    free(s->score);
    free(s->clean);
    free(s->neighbour);
    free(s->similarity);
    free(s->block);
}

/* `save_all`: embeddings and logits go to the division's file. */
static mdm_status allocate_slice(mdm_trainer *t, int save_all, slice *s) {
    memset(s, 0, sizeof *s);
    mdm_comm_my_slice(t->comm, t->data->train_count, &s->first, &s->count);
    long long n = s->count > 0 ? s->count : 1, values = n * t->layout->embedding;
    if (t->searches_on_device)
        MDM_TRY(mdm_device_allocate(t->device, sizeof(float) * (size_t)values, "embeddings of all samples",
                                    (void **)&s->on_device));
    MDM_TRY(MDM_ALLOCATE(s->loss, n, "losses of all samples"));
    MDM_TRY(MDM_ALLOCATE(s->cut, n, "losses of all samples"));
    if (save_all || !s->on_device) MDM_TRY(MDM_ALLOCATE(s->embedding, values, "embeddings of all samples"));
    if (save_all) MDM_TRY(MDM_ALLOCATE(s->logits, n * t->layout->spec.classes, "logits of all samples"));
    if (save_all) MDM_TRY(MDM_ALLOCATE(s->block, COLLECTED, "divide.save=all"));
    MDM_TRY(MDM_ALLOCATE(s->score, n, "scores of all samples"));
    MDM_TRY(MDM_ALLOCATE(s->neighbour, n * t->config.divide.k, "neighbours of all samples"));
    MDM_TRY(MDM_ALLOCATE(s->similarity, n * t->config.divide.k, "neighbours of all samples"));
    return MDM_ALLOCATE(s->clean, n, "clean probabilities of all samples");
}

mdm_status mdm_gather_samples(mdm_trainer *t, const void *mine, void *all, mdm_type type) {
    int ranks = mdm_comm_size(t->comm);
    int64_t *counts, first;
    MDM_TRY(MDM_ALLOCATE(counts, ranks, "a gather"));
    for (int r = 0; r < ranks; r++) mdm_comm_slice(t->data->train_count, r, ranks, &first, &counts[r]);
    mdm_status status = mdm_comm_all_gather(t->comm, mine, counts[mdm_comm_rank(t->comm)], all, counts, type);
    free(counts);
    return status;
}

static mdm_status gather_values(mdm_trainer *t, const float *mine, float *all) {
    return mdm_gather_samples(t, mine, all, MDM_FLOAT);
}

/* Rows of `width` numbers, which only rank 0 has room for all of: block by block through `block`. */
static mdm_status collect_rows(mdm_trainer *t, const float *mine, int64_t width, float *block, float *all) {
    int ranks = mdm_comm_size(t->comm), rank = mdm_comm_rank(t->comm);
    for (int r = 0; r < ranks; r++) {
        int64_t first, count;
        mdm_comm_slice(t->data->train_count, r, ranks, &first, &count);
        for (int64_t done = 0; done < count * width; done += COLLECTED) {
            int64_t now = count * width - done < COLLECTED ? count * width - done : COLLECTED;
            if (r == rank) memcpy(block, mine + done, sizeof *block * (size_t)now);
            if (ranks > 1) MDM_TRY(mdm_comm_broadcast(t->comm, block, now, MDM_FLOAT, r));
            if (rank == 0) memcpy(all + first * width + done, block, sizeof *block * (size_t)now);
        }
    }
    return MDM_OK;
}

/* The first of each sample's k neighbours, which the division file keeps. */
static mdm_status gather_neighbours(mdm_trainer *t, slice *s, mdm_opinion *o) {
    int32_t *nearest;
    MDM_TRY(MDM_ALLOCATE(nearest, s->count + 1, "neighbours of all samples"));
    for (int64_t i = 0; i < s->count; i++) {
        nearest[i] = (int32_t)s->neighbour[i * t->config.divide.k];
        s->similarity[i] = s->similarity[i * t->config.divide.k];
    }
    mdm_status status = mdm_gather_samples(t, nearest, o->neighbour, MDM_INT32);
    free(nearest);
    MDM_TRY(status);
    return gather_values(t, s->similarity, o->similarity);
}

static mdm_status true_auc(mdm_trainer *t, const float *score, int against_given, double *auc) {
    const int32_t *truth = mdm_store_true_labels(t->store), *given = mdm_store_labels(t->store, MDM_TRAIN);
    uint8_t *positive;
    *auc = NAN;
    if (!truth) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(positive, t->data->train_count, "truth"));
    for (int64_t i = 0; i < t->data->train_count; i++)
        positive[i] = against_given ? given[i] != truth[i] : truth[i] < 0;
    mdm_status status = mdm_auc(score, positive, t->data->train_count, auc);
    free(positive);
    return status;
}

static int is_on_cuda(const mdm_trainer *t) {
    return mdm_device_get_info(t->device)->is_cuda;
}

/* Embeddings, where the neighbour search wants them, and what else is wanted of all samples. */
static mdm_status evaluate(mdm_trainer *t, int network, float *loss, slice *s) {
    const mdm_evaluation wanted = {.loss = loss,
                                   .embedding = s->on_device ? NULL : s->embedding,
                                   .logits = s->logits,
                                   .embedding_on_device = s->on_device};
    MDM_TRY(mdm_evaluate_training(t, mdm_predicting_network(t, network), &wanted));
    if (!s->on_device || !s->embedding) return MDM_OK;
    return mdm_device_download(t->device, s->embedding, s->on_device,
                               sizeof(float) * (size_t)(s->count * t->layout->embedding));
}

/* score, and neighbour and similarity where they are wanted, from the embeddings. */
static mdm_status search_neighbours(mdm_trainer *t, slice *s, int64_t *neighbour, float *similarity) {
    mdm_device *device = s->on_device ? t->device : NULL;
    return mdm_knn_scores_on(t->comm, device, device ? s->on_device : s->embedding, t->data->train_count,
                             t->layout->embedding, t->config.divide.k, s->score, neighbour, similarity, NULL);
}

/* So many samples are removed from here on, but never more than half of all. */
static void remove_so_many(mdm_trainer *t, int64_t count) {
    int64_t half = t->data->train_count / 2;
    if (count > half && t->removed < half)
        mdm_warn(
            "divide.remove_first and divide.remove_step ask for %lld of %lld samples; no more than half of "
            "them are removed",
            (long long)count, (long long)t->data->train_count);
    t->removed = count < half ? count : half;
}

/* Scores by neighbours among the samples that the network's own mixture finds clean: strangers that are still
 * there make each other look at home. */
static mdm_status score_among_clean(mdm_trainer *t, int64_t epoch, int network, slice *s) {
    const mdm_opinion *o = &t->opinions[network];
    int64_t samples = t->data->train_count, clean = 0;
    uint8_t *among;
    MDM_TRY(mdm_comm_agree(t->comm, MDM_ALLOCATE(among, samples, "clean samples")));
    for (int64_t i = 0; i < samples; i++) {
        among[i] = o->clean_probability[i] > t->config.divide.threshold; /* as the split does */
        clean += among[i];
    }
    mdm_device *device = s->on_device ? t->device : NULL;
    mdm_status status = MDM_OK;
    if (clean > t->config.divide.k)
        status = mdm_knn_scores_among(t->comm, device, device ? s->on_device : s->embedding, samples,
                                      t->layout->embedding, t->config.divide.k, among, s->score);
    else
        mdm_warn("epoch %lld, network %c: %lld clean samples are too few for divide.ood_neighbours=clean; "
                 "scores are of neighbours among all",
                 (long long)epoch + 1, 'a' + network, (long long)clean);
    free(among);
    return status;
}

mdm_status mdm_remove_first(mdm_trainer *t) {
    int64_t samples = t->data->train_count;
    mdm_opinion *o = &t->opinions[0];
    mdm_split_counts counts;
    slice s;
    double auc;
    t->removed = 0;
    remove_so_many(t, (int64_t)ceil(t->config.divide.remove_first * (double)samples));
    mdm_status status = mdm_comm_agree(t->comm, allocate_slice(t, 0, &s));
    if (status == MDM_OK) status = evaluate(t, 0, NULL, &s);
    if (status == MDM_OK) status = search_neighbours(t, &s, NULL, NULL);
    if (status == MDM_OK) status = gather_values(t, s.score, o->ood_score);
    free_slice(t, &s);
    MDM_TRY(status);
    for (int64_t i = 0; i < samples; i++) o->clean_probability[i] = 1.0f;
    MDM_TRY(
        mdm_split_samples(o->ood_score, o->clean_probability, samples, t->removed, 0.5, o->split, &counts));
    for (int64_t i = 0; i < samples; i++) t->keep[i] = o->split[i] != MDM_REMOVED;
    MDM_TRY(true_auc(t, o->ood_score, 0, &auc));
    if (isfinite(auc))
        mdm_info("first removal: %lld of %lld samples; AUC of the OOD score %.3f", (long long)t->removed,
                 (long long)samples, auc);
    else
        mdm_info("first removal: %lld of %lld samples", (long long)t->removed, (long long)samples);
    mdm_metrics_begin(t->metrics, "divide");
    mdm_metrics_integer(t->metrics, "epoch", 0);
    mdm_metrics_text(t->metrics, "stage", "first_removal");
    mdm_metrics_text(t->metrics, "network", "a");
    mdm_metrics_integer(t->metrics, "removed", t->removed);
    if (isfinite(auc)) mdm_metrics_number(t->metrics, "auc_ood", auc);
    mdm_metrics_end(t->metrics);
    return MDM_OK;
}

static void warn_of_degenerate_cases(mdm_trainer *t, int64_t epoch, int network) {
    const mdm_opinion *o = &t->opinions[network];
    const int32_t *given = mdm_store_labels(t->store, MDM_TRAIN);
    int classes = t->layout->spec.classes, missing = 0, first = -1;
    uint8_t *found; /* of each class: 1 a picture, 2 or 3 a labelled one */
    if (o->gmm.degenerate)
        mdm_warn("epoch %lld, network %c: %s; every sample that stays counts as clean", (long long)epoch + 1,
                 'a' + network, o->gmm.degenerate_reason);
    if (MDM_ALLOCATE(found, classes, "the classes found") != MDM_OK) return;
    for (int64_t i = 0; i < t->data->train_count; i++) found[given[i]] |= o->split[i] == MDM_LABELLED ? 2 : 1;
    for (int c = 0; c < classes; c++)
        if (found[c] == 1 && !missing++) first = c; /* a class without pictures is told at the start */
    free(found);
    if (missing && o->counts.labelled > 0)
        mdm_warn("epoch %lld, network %c: %d class%s without labelled samples (first: %d); guesses alone can "
                 "keep %s",
                 (long long)epoch + 1, 'a' + network, missing, missing > 1 ? "es" : "", first,
                 missing > 1 ? "them" : "it");
}

/* Nothing where the truth is not known, or the data set has none of the kind. */
static void write_auc(char *text, size_t size, const char *what, double auc) {
    text[0] = '\0';
    if (isfinite(auc)) snprintf(text, size, "; AUC of %s %.3f", what, auc);
}

static void report_division(mdm_trainer *t, int64_t epoch, int network, double knn_seconds,
                            double gmm_seconds) {
    const mdm_opinion *o = &t->opinions[network];
    char name[2] = {(char)('a' + network), 0}, noise[32], ood[32];
    mdm_metrics_begin(t->metrics, "divide");
    mdm_metrics_integer(t->metrics, "epoch", epoch);
    mdm_metrics_text(t->metrics, "network", name);
    mdm_metrics_integer(t->metrics, "labelled", o->counts.labelled);
    mdm_metrics_integer(t->metrics, "unlabelled", o->counts.unlabelled);
    mdm_metrics_integer(t->metrics, "removed", o->counts.removed);
    mdm_metrics_numbers(t->metrics, "gmm_means", o->gmm.mean, 2);
    mdm_metrics_numbers(t->metrics, "gmm_variances", o->gmm.variance, 2);
    mdm_metrics_numbers(t->metrics, "gmm_weights", o->gmm.weight, 2);
    mdm_metrics_integer(t->metrics, "gmm_iterations", o->gmm.iterations);
    mdm_metrics_number(t->metrics, "knn_seconds", knn_seconds);
    mdm_metrics_number(t->metrics, "gmm_seconds", gmm_seconds);
    if (isfinite(o->auc_noise)) mdm_metrics_number(t->metrics, "auc_noise", o->auc_noise);
    if (isfinite(o->auc_ood)) mdm_metrics_number(t->metrics, "auc_ood", o->auc_ood);
    mdm_metrics_end(t->metrics);
    write_auc(noise, sizeof noise, "noise", o->auc_noise);
    write_auc(ood, sizeof ood, "OOD", o->auc_ood);
    mdm_info("divide, epoch %lld, network %s: %lld labelled, %lld unlabelled, %lld removed%s%s",
             (long long)epoch + 1, name, (long long)o->counts.labelled, (long long)o->counts.unlabelled,
             (long long)o->counts.removed, noise, ood);
}

/* The losses that the mixture sees: beyond a multiple of log C, the loss of a guess, more says no more. */
static void cut_losses(const mdm_trainer *t, slice *s) {
    double limit = t->config.divide.loss_limit * log((double)t->layout->spec.classes);
    for (int64_t i = 0; i < s->count; i++)
        s->cut[i] = limit > 0 && (double)s->loss[i] > limit ? (float)limit : s->loss[i];
}

/* Fits the mixture to the first `front` of loss [n] and judges all n by it. */
static mdm_status fit_and_judge(mdm_trainer *t, mdm_comm *comm, const float *loss, int64_t front, int64_t n,
                                mdm_gmm *gmm, float *clean) {
    mdm_gmm_options options = {t->config.divide.gmm_iterations, t->config.divide.gmm_tolerance,
                               t->config.divide.gmm_floor};
    if (!is_on_cuda(t)) {
        MDM_TRY(mdm_gmm_fit(comm, loss, front, &options, gmm, clean));
        mdm_gmm_clean_probability(gmm, loss + front, n - front, clean + front);
        return MDM_OK;
    }
    void *memory = NULL;
    size_t bytes = sizeof *loss * (size_t)n;
    mdm_status status = mdm_device_allocate(t->device, 2 * bytes, "losses of all samples", &memory);
    float *losses = memory;
    if (status == MDM_OK) status = mdm_device_upload(t->device, losses, loss, bytes);
    status = mdm_comm_agree(t->comm, status);
    if (status == MDM_OK) status = mdm_gmm_fit_on(comm, t->device, losses, front, &options, gmm, losses + n);
    if (status == MDM_OK) {
        float *answer = losses + n;
        mdm_gmm_clean_probability_on(t->device, gmm, losses + front, n - front, answer + front);
        status = mdm_device_download(t->device, clean, answer, bytes);
    }
    mdm_device_free(t->device, memory);
    return status;
}

/* Fits the mixture to the losses [n] of the samples trained on; those held out are judged by it. `packed` [n]
 * and `loss` are written over. */
static mdm_status fit_mixture(mdm_trainer *t, mdm_comm *comm, int64_t n, const uint8_t *held, float *loss,
                              float *packed, mdm_gmm *gmm, float *clean) {
    int64_t front = 0, back = n;
    for (int64_t i = 0; i < n; i++) packed[held[i] ? --back : front++] = loss[i];
    MDM_TRY(fit_and_judge(t, comm, packed, front, n, gmm, loss));
    front = 0, back = n;
    for (int64_t i = 0; i < n; i++) clean[i] = loss[held[i] ? --back : front++];
    return MDM_OK;
}

/* The same by every rank for all samples, so that no sum depends on how they are spread. */
static mdm_status fit_mixture_alone(mdm_trainer *t, slice *s, mdm_gmm *gmm) {
    int64_t samples = t->data->train_count;
    float *memory;
    mdm_comm *alone;
    MDM_TRY(MDM_ALLOCATE(memory, 3 * samples, "losses of all samples"));
    mdm_status status = gather_values(t, s->cut, memory);
    if (status == MDM_OK) status = mdm_comm_create_alone(&alone);
    if (status == MDM_OK) {
        status = fit_mixture(t, alone, samples, t->held, memory, memory + samples, gmm, memory + 2 * samples);
        mdm_comm_finish(alone);
        memcpy(s->clean, memory + 2 * samples + s->first, sizeof(float) * (size_t)s->count);
    }
    free(memory);
    return status;
}

/* Rank 0's room, with divide.save=all, for the rows that all networks have of all samples. */
typedef struct saved_rows {
    float *embedding, *logits;
} saved_rows;

static mdm_status allocate_saved(mdm_trainer *t, saved_rows *all) {
    int64_t rows = t->data->train_count * t->network_count;
    if (mdm_comm_rank(t->comm) != 0) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(all->embedding, rows * t->layout->embedding, "divide.save=all"));
    return MDM_ALLOCATE(all->logits, rows * t->layout->spec.classes, "divide.save=all");
}

static mdm_status collect_saved(mdm_trainer *t, int network, const slice *s, const saved_rows *all) {
    int64_t before = network * t->data->train_count, d = t->layout->embedding, c = t->layout->spec.classes;
    if (!s->block) return MDM_OK;
    MDM_TRY(collect_rows(t, s->embedding, d, s->block, all->embedding ? all->embedding + before * d : NULL));
    return collect_rows(t, s->logits, c, s->block, all->logits ? all->logits + before * c : NULL);
}

/* One network's opinion of all samples. */
static mdm_status form_opinion(mdm_trainer *t, int64_t epoch, int network, slice *s, const saved_rows *all) {
    mdm_opinion *o = &t->opinions[network];
    int64_t samples = t->data->train_count;
    MDM_TRY(evaluate(t, network, s->loss, s));
    double start = mdm_seconds();
    cut_losses(t, s);
    if (t->deterministic)
        MDM_TRY(fit_mixture_alone(t, s, &o->gmm));
    else /* there are no scores yet: their memory is free */
        MDM_TRY(fit_mixture(t, t->comm, s->count, t->held + s->first, s->cut, s->score, &o->gmm, s->clean));
    double middle = mdm_seconds();
    MDM_TRY(gather_values(t, s->loss, o->loss));
    MDM_TRY(gather_values(t, s->clean, o->clean_probability));
    MDM_TRY(search_neighbours(t, s, s->neighbour, s->similarity));
    if (t->config.divide.ood_scores == MDM_CONFIG_OOD_SCORES_LATEST || !t->divided) {
        if (t->config.divide.ood_neighbours == MDM_CONFIG_OOD_NEIGHBOURS_CLEAN)
            MDM_TRY(score_among_clean(t, epoch, network, s));
        MDM_TRY(gather_values(t, s->score, o->ood_score));
    }
    double end = mdm_seconds();
    MDM_TRY(gather_neighbours(t, s, o));
    MDM_TRY(collect_saved(t, network, s, all));
    MDM_TRY(mdm_split_samples(o->ood_score, o->clean_probability, samples, t->removed,
                              t->config.divide.threshold, o->split, &o->counts));
    MDM_TRY(true_auc(t, o->ood_score, 0, &o->auc_ood));
    float *suspicion;
    MDM_TRY(MDM_ALLOCATE(suspicion, samples, "noise scores"));
    mdm_status status = mdm_noise_rank(o->clean_probability, o->loss, samples, suspicion);
    if (status == MDM_OK) status = true_auc(t, suspicion, 1, &o->auc_noise);
    free(suspicion);
    MDM_TRY(status);
    report_division(t, epoch, network, end - middle, middle - start);
    if (!t->options.dry_run) warn_of_degenerate_cases(t, epoch, network); /* one step tells nothing */
    return MDM_OK;
}

mdm_status mdm_divide(mdm_trainer *t, int64_t epoch) {
    int64_t samples = t->data->train_count;
    int save_all = t->config.divide.save == MDM_CONFIG_SAVE_ALL;
    saved_rows all = {0};
    slice s;
    double start = mdm_seconds();
    remove_so_many(t, t->removed + (int64_t)ceil(t->config.divide.remove_step * (double)samples));
    mdm_status status = allocate_slice(t, save_all, &s);
    if (status == MDM_OK && save_all) status = allocate_saved(t, &all);
    status = mdm_comm_agree(t->comm, status);
    for (int n = 0; status == MDM_OK && n < t->network_count; n++)
        status = form_opinion(t, epoch, n, &s, &all);
    free_slice(t, &s);
    int is_first = !t->divided;
    t->divided = status == MDM_OK;
    if (status == MDM_OK) status = mdm_write_division(t, epoch, all.embedding, all.logits);
    if (status == MDM_OK && is_first) status = mdm_write_first_ood_reference(t);
    free(all.embedding);
    free(all.logits);
    t->seconds[3] += mdm_seconds() - start;
    return status;
}
