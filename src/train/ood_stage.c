/* The end of a run: which embeddings of training samples are kept for judging new pictures, and the
 * threshold.
 *
 * The references are training samples that the division kept, evenly over the file. Every training sample is
 * scored against them (itself left out); the threshold is the score that the share of samples removed by the
 * division exceeds, so that `predict` removes of pictures like the training ones as many as the run did.
 */
#include "ood_reference.h"
#include "trainer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int is_kept(const mdm_trainer *t, int network, int64_t sample) {
    return t->divided ? t->opinions[network].split[sample] != MDM_REMOVED : t->keep[sample];
}

/* Place of every sample among the references, or -1. */
static int64_t choose_references(const mdm_trainer *t, int network, int64_t *place) {
    int64_t samples = t->data->train_count, kept = 0, seen = 0, chosen = 0;
    for (int64_t i = 0; i < samples; i++) kept += is_kept(t, network, i);
    int64_t wanted = kept < MDM_OOD_MOST_REFERENCES ? kept : MDM_OOD_MOST_REFERENCES;
    for (int64_t i = 0; i < samples; i++) {
        place[i] = -1;
        if (!is_kept(t, network, i)) continue;
        if (seen * wanted / kept < (seen + 1) * wanted / kept) place[i] = chosen++;
        seen++;
    }
    return chosen;
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static double choose_threshold(const mdm_trainer *t, int network, float *score) {
    int64_t samples = t->data->train_count, removed = 0;
    for (int64_t i = 0; i < samples; i++) removed += !is_kept(t, network, i);
    qsort(score, (size_t)samples, sizeof *score, descending);
    double least = 1e-6; /* a network that gives every picture the same embedding has only zeros */
    return removed < samples && score[removed] > least ? score[removed] : least;
}

/* This rank's rows of the references go to the front of `embedding`'s copy, all ranks' to reference. */
static mdm_status gather_references(mdm_trainer *t, const float *embedding, const int64_t *place,
                                    mdm_ood_reference *r, int network) {
    int ranks = mdm_comm_size(t->comm);
    int64_t first, count, mine = 0, *counts;
    float *rows;
    MDM_TRY(MDM_ALLOCATE(counts, ranks, "training embeddings"));
    for (int k = 0; k < ranks; k++) {
        mdm_comm_slice(t->data->train_count, k, ranks, &first, &count);
        for (int64_t i = first; i < first + count; i++) counts[k] += place[i] >= 0 ? r->width : 0;
    }
    mdm_comm_my_slice(t->comm, t->data->train_count, &first, &count);
    mdm_status status = MDM_ALLOCATE(rows, (count + 1) * r->width, "training embeddings");
    if (status == MDM_OK)
        status = MDM_ALLOCATE(r->embedding[network], r->count[network] * r->width, "training embeddings");
    for (int64_t i = 0; status == MDM_OK && i < count; i++)
        if (place[first + i] >= 0)
            memcpy(rows + mine++ * r->width, embedding + i * r->width, sizeof(float) * (size_t)r->width);
    status = mdm_comm_agree(t->comm, status);
    if (status == MDM_OK)
        status =
            mdm_comm_all_gather(t->comm, rows, mine * r->width, r->embedding[network], counts, MDM_FLOAT);
    free(rows);
    free(counts);
    return status;
}

static mdm_status score_all(mdm_trainer *t, const float *embedding, const int64_t *place,
                            mdm_ood_reference *r, int network) {
    int64_t first, count, samples = t->data->train_count, *counts = NULL;
    int ranks = mdm_comm_size(t->comm);
    float *mine, *all = NULL;
    mdm_comm_my_slice(t->comm, samples, &first, &count);
    mdm_status status = MDM_ALLOCATE(mine, count + 1, "scores");
    if (status == MDM_OK) status = MDM_ALLOCATE(all, samples, "scores");
    if (status == MDM_OK) status = MDM_ALLOCATE(counts, ranks, "scores");
    if (status == MDM_OK)
        status = mdm_ood_scores(r->embedding[network], r->count[network], r->width, r->k, embedding,
                                place + first, count, mine);
    status = mdm_comm_agree(t->comm, status);
    if (status == MDM_OK) {
        for (int k = 0; k < ranks; k++) {
            int64_t start;
            mdm_comm_slice(samples, k, ranks, &start, &counts[k]);
        }
        status = mdm_comm_all_gather(t->comm, mine, count, all, counts, MDM_FLOAT);
    }
    if (status == MDM_OK) r->threshold[network] = choose_threshold(t, network, all);
    free(counts);
    free(mine);
    free(all);
    return status;
}

static mdm_status refer_to(mdm_trainer *t, int network, float *embedding, int64_t *place,
                           mdm_ood_reference *r) {
    int64_t first, count;
    mdm_comm_my_slice(t->comm, t->data->train_count, &first, &count);
    MDM_TRY(mdm_evaluate_training(t, mdm_predicting_network(t, network),
                                  &(mdm_evaluation){.embedding = embedding}));
    mdm_ood_normalise(embedding, count, r->width);
    r->count[network] = choose_references(t, network, place);
    MDM_TRY(gather_references(t, embedding, place, r, network));
    return score_all(t, embedding, place, r, network);
}

mdm_status mdm_write_ood_reference(mdm_trainer *t) {
    mdm_ood_reference r = {
        .networks = t->network_count, .k = t->config.divide.k, .width = t->layout->embedding};
    int64_t first, count, *place = NULL;
    float *embedding = NULL;
    mdm_comm_my_slice(t->comm, t->data->train_count, &first, &count);
    mdm_status status = MDM_ALLOCATE(embedding, (count + 1) * r.width, "training embeddings");
    if (status == MDM_OK) status = MDM_ALLOCATE(place, t->data->train_count, "training embeddings");
    status = mdm_comm_agree(t->comm, status);
    for (int n = 0; status == MDM_OK && n < t->network_count; n++)
        status = refer_to(t, n, embedding, place, &r);
    free(embedding);
    free(place);
    if (status == MDM_OK && mdm_comm_rank(t->comm) == 0) {
        char *path = mdm_run_folder_member(t->folder->path, MDM_RUN_OOD_REFERENCE);
        status = path ? mdm_ood_write(path, &r) : mdm_fail(MDM_RESOURCE, "out of memory for a path");
        free(path);
    }
    mdm_ood_free(&r);
    return mdm_comm_agree(t->comm, status);
}
