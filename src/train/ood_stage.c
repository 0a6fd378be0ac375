/* Which embeddings of training samples are kept for judging new pictures, and the threshold: at the end of a
 * run, or where the first division's scores count, as the networks of that division see them.
 *
 * The references are training samples that the division kept, or with divide.ood_neighbours=clean those that
 * it labelled, evenly over the file. Every training sample is scored against them (itself left out); the
 * threshold is the score that the share of samples removed by the division exceeds, so that `predict` removes
 * of pictures like the training ones as many as the run did.
 */
#include "mdm/base/log.h"
#include "ood_reference.h"
#include "trainer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const mdm_run_member network_members[MDM_MOST_NETWORKS] = {MDM_RUN_OOD_A, MDM_RUN_OOD_B};

static int is_removed(const mdm_trainer *t, int network, int64_t sample) {
    return t->divided ? t->opinions[network].split[sample] == MDM_REMOVED : !t->keep[sample];
}

static int may_be_reference(const mdm_trainer *t, int network, int64_t sample) {
    int clean_only = t->divided && t->config.divide.ood_neighbours == MDM_CONFIG_OOD_NEIGHBOURS_CLEAN &&
                     t->opinions[network].counts.labelled > t->config.divide.k;
    return clean_only ? t->opinions[network].split[sample] == MDM_LABELLED : !is_removed(t, network, sample);
}

/* Place of every sample among the references, or -1. */
static int64_t choose_references(const mdm_trainer *t, int network, int64_t *place) {
    int64_t samples = t->data->train_count, kept = 0, seen = 0, chosen = 0;
    for (int64_t i = 0; i < samples; i++) kept += may_be_reference(t, network, i);
    int64_t wanted = kept < MDM_OOD_MOST_REFERENCES ? kept : MDM_OOD_MOST_REFERENCES;
    for (int64_t i = 0; i < samples; i++) {
        place[i] = -1;
        if (!may_be_reference(t, network, i)) continue;
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
    for (int64_t i = 0; i < samples; i++) removed += is_removed(t, network, i);
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
    MDM_TRY(mdm_check_outputs(t, embedding, count, r->width));
    mdm_ood_normalise(embedding, count, r->width);
    r->count[network] = choose_references(t, network, place);
    MDM_TRY(gather_references(t, embedding, place, r, network));
    return score_all(t, embedding, place, r, network);
}

/* Another run's, which nothing refers to. */
static void remove_first_networks(const mdm_trainer *t) {
    for (int n = 0; n < MDM_MOST_NETWORKS; n++) {
        char *path = mdm_run_folder_member(t->folder->path, network_members[n]);
        if (path) (void)unlink(path);
        free(path);
    }
}

/* Rank 0. The reference comes last: it names networks that are there. */
static mdm_status write_files(mdm_trainer *t, const mdm_ood_reference *r) {
    if (r->first_division)
        MDM_TRY(mdm_write_networks(t, network_members));
    else
        remove_first_networks(t);
    char *path = mdm_run_folder_member(t->folder->path, MDM_RUN_OOD_REFERENCE);
    mdm_status status = path ? mdm_ood_write(path, r) : mdm_fail(MDM_RESOURCE, "out of memory for a path");
    free(path);
    return status;
}

/* Collective. The references as the networks see them now; `first_division` as in mdm_ood_reference. The
 * caller frees *r, also after a failure. */
static mdm_status make_reference(mdm_trainer *t, uint64_t first_division, mdm_ood_reference *r) {
    int64_t first, count, *place = NULL;
    float *embedding = NULL;
    *r = (mdm_ood_reference){.networks = t->network_count,
                             .k = t->config.divide.k,
                             .width = t->layout->embedding,
                             .first_division = first_division};
    mdm_comm_my_slice(t->comm, t->data->train_count, &first, &count);
    mdm_status status = MDM_ALLOCATE(embedding, (count + 1) * r->width, "training embeddings");
    if (status == MDM_OK) status = MDM_ALLOCATE(place, t->data->train_count, "training embeddings");
    status = mdm_comm_agree(t->comm, status);
    for (int n = 0; status == MDM_OK && n < t->network_count; n++)
        status = refer_to(t, n, embedding, place, r);
    free(embedding);
    free(place);
    return status;
}

/* Identifies the first division by its scores, which count to the end, in checkpoints too. */
static uint64_t name_of_first_division(const mdm_trainer *t) {
    XXH64_hash_t name = 0;
    for (int n = 0; n < t->network_count; n++)
        name = XXH64(t->opinions[n].ood_score, sizeof(float) * (size_t)t->data->train_count, name);
    return name ? name : 1;
}

/* Rank 0. Whether this run, before it was resumed too, left its first division's. */
static int has_first_reference(mdm_trainer *t) {
    mdm_ood_reference r = {0};
    int is_there = 1;
    for (int n = 0; n <= t->network_count; n++) {
        mdm_run_member member = n < t->network_count ? network_members[n] : MDM_RUN_OOD_REFERENCE;
        char *path = mdm_run_folder_member(t->folder->path, member);
        is_there = is_there && path && access(path, F_OK) == 0;
        if (is_there && n == t->network_count)
            is_there = mdm_ood_read(path, t->network_count, t->layout->embedding, &r) == MDM_OK &&
                       r.first_division == name_of_first_division(t);
        free(path);
    }
    mdm_ood_free(&r);
    return is_there;
}

static int first_division_counts(const mdm_trainer *t) {
    return t->divided && t->config.divide.ood_scores == MDM_CONFIG_OOD_SCORES_FIRST;
}

mdm_status mdm_write_first_ood_reference(mdm_trainer *t) {
    mdm_ood_reference r;
    if (!first_division_counts(t) || t->options.dry_run) return MDM_OK;
    mdm_status status = make_reference(t, name_of_first_division(t), &r);
    if (status == MDM_OK && mdm_comm_rank(t->comm) == 0 && write_files(t, &r) != MDM_OK)
        mdm_warn("what predict needs of the first division could not be saved: %s; it will use the final "
                 "networks",
                 mdm_last_message());
    mdm_ood_free(&r);
    return status;
}

mdm_status mdm_write_ood_reference(mdm_trainer *t) {
    mdm_ood_reference r;
    int32_t is_there = mdm_comm_rank(t->comm) == 0 && first_division_counts(t) && has_first_reference(t);
    MDM_TRY(mdm_comm_all_reduce(t->comm, &is_there, 1, MDM_INT32, MDM_MAX));
    if (is_there) return MDM_OK;
    mdm_status status = make_reference(t, 0, &r);
    if (status == MDM_OK && mdm_comm_rank(t->comm) == 0) status = write_files(t, &r);
    mdm_ood_free(&r);
    return mdm_comm_agree(t->comm, status);
}
