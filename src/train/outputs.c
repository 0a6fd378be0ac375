/* What a run leaves in its folder: settings, environment, divisions, weights, cleaned labels, summary. */
#include "mdm/base/log.h"
#include "mdm/data/dataset_file.h"
#include "mdm/device/losses_host.h"
#include "mdm/report/division_file.h"
#include "mdm/report/labels_csv.h"
#include "mdm/report/report.h"
#include "mdm/report/summary.h"
#include "mdm/train/weights.h"
#include "trainer.h"
#include <cblas.h>
#include <hdf5.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static mdm_status write_config(mdm_trainer *t) {
    mdm_text text = {0};
    char *path = mdm_run_folder_member(t->folder->path, MDM_RUN_CONFIG);
    mdm_config_write(&t->config, &text);
    mdm_status status = !path || text.failed ? mdm_fail(MDM_RESOURCE, "out of memory for config.yaml")
                                             : mdm_write_file(path, text.data, text.length);
    free(path);
    free(text.data);
    return status;
}

/* One rank's line of environment.json, as fixed-size text so that it can be gathered. */
typedef struct place_text {
    char host[64], device[128], binding[128];
    int threads;
} place_text;

static void describe_place(const mdm_trainer *t, place_text *place) {
    cpu_set_t cores;
    size_t used = 0;
    memset(place, 0, sizeof *place);
    snprintf(place->host, sizeof place->host, "%s", mdm_comm_host(t->comm));
    snprintf(place->device, sizeof place->device, "%s", mdm_device_get_info(t->device)->name);
    place->threads = t->threads;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) return;
    for (int i = 0; i < CPU_SETSIZE && used + 8 < sizeof place->binding; i++)
        if (CPU_ISSET(i, &cores))
            used +=
                (size_t)snprintf(place->binding + used, sizeof place->binding - used, used ? ",%d" : "%d", i);
}

static mdm_status write_environment(mdm_trainer *t, const place_text *texts) {
    int ranks = mdm_comm_size(t->comm);
    unsigned major, minor, release;
    char hdf5[32], folder[4096] = "", started[32] = "", fingerprint[32];
    time_t now = time(NULL);
    struct tm utc;
    mdm_rank_place *places;
    MDM_TRY(MDM_ALLOCATE(places, ranks, "environment.json"));
    for (int r = 0; r < ranks; r++)
        places[r] = (mdm_rank_place){texts[r].host, texts[r].device, texts[r].binding, texts[r].threads};
    H5get_libversion(&major, &minor, &release);
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, t->data->fingerprint);
    snprintf(hdf5, sizeof hdf5, "%u.%u.%u", major, minor, release);
    if (!getcwd(folder, sizeof folder)) folder[0] = 0;
    if (gmtime_r(&now, &utc)) strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &utc);
    const mdm_version versions[] = {{"MPI", mdm_comm_library(t->comm)},
                                    {"HDF5", hdf5},
                                    {mdm_device_get_info(t->device)->is_cuda ? "cuDNN" : "oneDNN",
                                     mdm_device_get_info(t->device)->library},
                                    {"OpenBLAS", openblas_get_config()},
                                    {"compiler", __VERSION__},
                                    {"kernels", mdm_device_get_info(t->device)->instructions}};
    mdm_environment environment = {.program_version = MDM_VERSION,
                                   .versions = versions,
                                   .version_count = (int)(sizeof versions / sizeof *versions),
                                   .places = places,
                                   .ranks = ranks,
                                   .arguments = (const char *const *)t->options.arguments,
                                   .argument_count = t->options.argument_count,
                                   .folder = folder,
                                   .data_fingerprint = fingerprint,
                                   .started = started};
    char *path = mdm_run_folder_member(t->folder->path, MDM_RUN_ENVIRONMENT);
    mdm_status status = path ? mdm_environment_write(path, &environment)
                             : mdm_fail(MDM_RESOURCE, "out of memory for environment.json");
    free(path);
    free(places);
    return status;
}

static void announce(const mdm_trainer *t, int resumed) {
    const mdm_device_info *info = mdm_device_get_info(t->device);
    mdm_info("%s: %lld training and %lld test pictures of %dx%dx%d, %d classes, %s", t->config.data.train,
             (long long)t->data->train_count, (long long)t->data->test_count, t->data->height, t->data->width,
             t->data->channels, t->data->classes,
             t->on_device        ? "on the device"
             : t->data->resident ? "in memory"
                                 : "streamed");
    mdm_info("%s; %s on %s, %s", t->thread_text, info->library, info->name, mdm_precision_name(t->precision));
    mdm_info("%d network%s %s, width %d: %.2f M weights each; results in %s", t->network_count,
             t->network_count > 1 ? "s" : "", t->layout->spec.arch, t->layout->spec.base_width,
             (double)t->layout->weight_count / 1e6, t->folder->path);
    mdm_metrics_begin(t->metrics, resumed ? "resume" : "start");
    mdm_metrics_text(t->metrics, "version", MDM_VERSION);
    mdm_metrics_integer(t->metrics, "ranks", mdm_comm_size(t->comm));
    mdm_metrics_integer(t->metrics, "threads", t->threads);
    mdm_metrics_integer(t->metrics, "samples", t->data->train_count);
    mdm_metrics_integer(t->metrics, "position", t->place.position);
    mdm_metrics_end(t->metrics);
    if (t->config.baseline != MDM_CONFIG_BASELINE_NONE && t->data->test_count == 0 &&
        !t->config.data.validation[0])
        mdm_warn(
            "baseline is trained, but nothing will measure it: there is no test set (data.test names one)");
    if (!resumed)
        mdm_warn_of_empty_classes(mdm_store_labels(t->store, MDM_TRAIN), t->data->train_count,
                                  t->data->classes,
                                  "the networks have an answer too many; labels count from 0 without gaps");
}

mdm_status mdm_write_start(mdm_trainer *t, int resumed) {
    int ranks = mdm_comm_size(t->comm);
    place_text mine, *all;
    int64_t *counts;
    describe_place(t, &mine);
    MDM_TRY(MDM_ALLOCATE(all, ranks, "environment.json"));
    MDM_TRY(MDM_ALLOCATE(counts, ranks, "environment.json"));
    for (int r = 0; r < ranks; r++) counts[r] = sizeof mine;
    mdm_status status = mdm_comm_all_gather(t->comm, &mine, sizeof mine, all, counts, MDM_BYTE);
    if (status == MDM_OK && mdm_comm_rank(t->comm) == 0) {
        announce(t, resumed);
        status = write_config(t);
        if (status == MDM_OK) status = write_environment(t, all);
    }
    free(all);
    free(counts);
    return status;
}

static mdm_status write_network(mdm_trainer *t, mdm_network *network, const char *path) {
    mdm_model_notes notes = {.spec = t->layout->spec};
    memcpy(notes.mean, t->data->mean, sizeof notes.mean);
    memcpy(notes.std, t->data->std, sizeof notes.std);
    MDM_TRY(mdm_network_fetch(network));
    MDM_TRY(MDM_ALLOCATE(notes.class_names, notes.spec.classes, "class names"));
    int named = 0;
    for (int c = 0; c < notes.spec.classes; c++) {
        /* written at once and not changed: the store's own text may be lent */
        notes.class_names[c] = (char *)(uintptr_t)mdm_store_class_name(t->store, c);
        named += notes.class_names[c] != NULL;
    }
    char **names = notes.class_names;
    if (!named) notes.class_names = NULL;
    mdm_status status = mdm_weights_write(network, &notes, path);
    free(names);
    return status;
}

mdm_status mdm_write_networks(mdm_trainer *t, const mdm_run_member names[MDM_MOST_NETWORKS]) {
    for (int n = 0; n < MDM_MOST_NETWORKS; n++) {
        char *path = mdm_run_folder_member(t->folder->path, names[n]);
        if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
        mdm_status status = MDM_OK;
        if (n < t->network_count)
            status = write_network(t, mdm_predicting_network(t, n), path);
        else
            (void)unlink(path); /* an earlier run's, which would be taken for this one's */
        free(path);
        MDM_TRY(status);
    }
    return MDM_OK;
}

mdm_status mdm_write_best(mdm_trainer *t) {
    static const mdm_run_member names[MDM_MOST_NETWORKS] = {MDM_RUN_BEST_A, MDM_RUN_BEST_B};
    return mdm_write_networks(t, names);
}

static mdm_status write_division_weights(mdm_trainer *t, int64_t epoch) {
    for (int n = 0; n < t->network_count; n++) {
        char *path = mdm_run_folder_division_weights(t->folder->path, epoch, n);
        if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
        mdm_status status = write_network(t, mdm_predicting_network(t, n), path);
        free(path);
        MDM_TRY(status);
    }
    return MDM_OK;
}

mdm_status mdm_write_division(mdm_trainer *t, int64_t epoch, const float *embedding, const float *logits) {
    if (mdm_comm_rank(t->comm) != 0 || t->options.dry_run) return MDM_OK;
    int64_t samples = t->data->train_count, d = t->layout->embedding, c = t->layout->spec.classes;
    mdm_division division = {.epoch = epoch,
                             .samples = samples,
                             .networks = t->network_count,
                             .held_out = t->training_count < samples ? t->held : NULL};
    for (int n = 0; n < t->network_count; n++) {
        const mdm_opinion *o = &t->opinions[n];
        mdm_division_network *out = &division.network[n];
        out->loss = o->loss;
        out->clean_probability = o->clean_probability;
        out->ood_score = o->ood_score;
        out->split = o->split;
        out->neighbour = o->neighbour;
        out->similarity = o->similarity;
        out->embedding = embedding ? embedding + n * samples * d : NULL;
        out->logits = logits ? logits + n * samples * c : NULL;
        out->embedding_width = d;
        out->classes = c;
        memcpy(out->gmm_means, o->gmm.mean, sizeof out->gmm_means);
        memcpy(out->gmm_variances, o->gmm.variance, sizeof out->gmm_variances);
        memcpy(out->gmm_weights, o->gmm.weight, sizeof out->gmm_weights);
        out->loss_minimum = o->gmm.minimum;
        out->loss_maximum = o->gmm.maximum;
        out->removed = o->counts.removed;
    }
    char *path = mdm_run_folder_division(t->folder->path, epoch);
    mdm_status status =
        path ? mdm_division_write(path, &division) : mdm_fail(MDM_RESOURCE, "out of memory for a path");
    free(path);
    if (status == MDM_OK && embedding) status = write_division_weights(t, epoch);
    /* a division file is for people; a full disk does not end the training */
    if (status != MDM_OK)
        mdm_warn("the division of epoch %lld could not be saved: %s", (long long)epoch + 1,
                 mdm_last_message());
    return MDM_OK;
}

/* What the networks together think of every training sample: their suggestion and how sure they are of it,
 * and how likely the given label is right. */
typedef struct suggestions {
    int32_t *label; /* [N] */
    float *certain, *clean;
} suggestions;

static void free_suggestions(suggestions *s) {
    free(s->label);
    free(s->certain);
    free(s->clean);
}

static mdm_status allocate_suggestions(int64_t samples, suggestions *s) {
    MDM_TRY(MDM_ALLOCATE(s->label, samples + 1, "labels.csv"));
    MDM_TRY(MDM_ALLOCATE(s->certain, samples + 1, "labels.csv"));
    return MDM_ALLOCATE(s->clean, samples + 1, "labels.csv");
}

/* Counts all ranks' samples in their order, one rank after the other, so that no sum depends on the number of
 * ranks: the counts travel, which are few beside the predictions. */
static mdm_status count_transitions(mdm_trainer *t, const float *predictions, int64_t first, int64_t count,
                                    double *transition) {
    int64_t classes = t->layout->spec.classes;
    for (int r = 0; r < mdm_comm_size(t->comm); r++) {
        if (r == mdm_comm_rank(t->comm))
            mdm_labels_count(predictions, mdm_store_labels(t->store, MDM_TRAIN) + first, count, classes,
                             transition);
        MDM_TRY(mdm_comm_broadcast(t->comm, transition, classes * classes, MDM_DOUBLE, r));
    }
    mdm_labels_scale(classes, transition);
    return MDM_OK;
}

/* Of this rank's slice; transition [C,C], predictions [count,C] and mixture [count] are scratch. */
static mdm_status suggest_for_slice(mdm_trainer *t, double *transition, float *predictions, float *mixture,
                                    suggestions *mine) {
    int64_t first, count, classes = t->layout->spec.classes;
    const mdm_opinion *a = &t->opinions[0], *b = t->network_count > 1 ? &t->opinions[1] : NULL;
    mdm_comm_my_slice(t->comm, t->data->train_count, &first, &count);
    for (int n = 0; n < t->network_count; n++)
        MDM_TRY(mdm_evaluate_training(
            t, mdm_predicting_network(t, n),
            &(mdm_evaluation){.prediction = predictions, .networks = t->network_count}));
    MDM_TRY(mdm_check_outputs(t, predictions, count, classes));
    mdm_labels_suggest(predictions, count, classes, mine->label);
    for (int64_t i = 0; i < count; i++) mine->certain[i] = predictions[i * classes + mine->label[i]];
    MDM_TRY(count_transitions(t, predictions, first, count, transition));
    mdm_labels_mean(a->clean_probability + first, b ? b->clean_probability + first : NULL, count, mixture);
    mdm_labels_calibrate(predictions, mixture, mdm_store_labels(t->store, MDM_TRAIN) + first, count, classes,
                         transition, mine->clean);
    return MDM_OK;
}

/* Collective. Predictions of all classes stay on the rank that makes them. */
static mdm_status suggest_labels(mdm_trainer *t, suggestions *all) {
    int64_t first, count, classes = t->layout->spec.classes;
    double *transition = NULL;
    float *predictions = NULL, *mixture = NULL;
    suggestions mine = {0};
    mdm_comm_my_slice(t->comm, t->data->train_count, &first, &count);
    mdm_status status = allocate_suggestions(t->data->train_count, all);
    if (status == MDM_OK) status = allocate_suggestions(count, &mine);
    if (status == MDM_OK) status = MDM_ALLOCATE(mixture, count + 1, "labels.csv");
    if (status == MDM_OK) status = MDM_ALLOCATE(predictions, (count + 1) * classes, "predictions");
    if (status == MDM_OK)
        status = MDM_ALLOCATE(transition, classes * classes, "the transitions between labels");
    status = mdm_comm_agree(t->comm, status);
    if (status == MDM_OK) status = suggest_for_slice(t, transition, predictions, mixture, &mine);
    if (status == MDM_OK) status = mdm_gather_samples(t, mine.label, all->label, MDM_INT32);
    if (status == MDM_OK) status = mdm_gather_samples(t, mine.certain, all->certain, MDM_FLOAT);
    if (status == MDM_OK) status = mdm_gather_samples(t, mine.clean, all->clean, MDM_FLOAT);
    free(transition);
    free(predictions);
    free(mixture);
    free_suggestions(&mine);
    return status;
}

/* Out of distribution: removed by every network's latest division. Otherwise clean when the calibrated
 * probability of that is above a half or the prediction agrees with the given label. */
static void judge(const mdm_trainer *t, const float *clean, const int32_t *suggested, uint8_t *verdict) {
    const int32_t *given = mdm_store_labels(t->store, MDM_TRAIN);
    for (int64_t i = 0; i < t->data->train_count; i++) {
        int removed = 0;
        for (int n = 0; n < t->network_count; n++) removed += t->opinions[n].split[i] == MDM_REMOVED;
        if (removed == t->network_count)
            verdict[i] = MDM_OUT_OF_DISTRIBUTION;
        else if (suggested[i] == given[i] || clean[i] > 0.5f)
            verdict[i] = MDM_CLEAN;
        else
            verdict[i] = MDM_MISLABELLED;
    }
}

/* Networks that have learnt nothing disagree with most labels. */
static void warn_of_most_labels(const mdm_trainer *t, const uint8_t *verdict) {
    int64_t wrong = 0, samples = t->data->train_count;
    for (int64_t i = 0; i < samples; i++) wrong += verdict[i] == MDM_MISLABELLED;
    if (2 * wrong > samples)
        mdm_warn(
            "labels.csv calls %lld of %lld labels wrong; if that cannot be, the networks have learnt too "
            "little to judge: docs/settings.md, \"Are the settings right?\", tells what to change",
            (long long)wrong, (long long)samples);
}

/* Rank 0. */
static mdm_status write_labels(mdm_trainer *t, const suggestions *s) {
    int64_t samples = t->data->train_count;
    const mdm_opinion *a = &t->opinions[0], *b = t->network_count > 1 ? &t->opinions[1] : NULL;
    float *score = NULL, *wrong = NULL;
    uint8_t *verdict = NULL;
    const char **ids = NULL;
    mdm_status status = MDM_ALLOCATE(score, samples, "labels.csv");
    if (status == MDM_OK) status = MDM_ALLOCATE(wrong, samples, "labels.csv");
    if (status == MDM_OK) status = MDM_ALLOCATE(verdict, samples, "labels.csv");
    if (status == MDM_OK) status = MDM_ALLOCATE(ids, samples, "labels.csv");
    if (status == MDM_OK) {
        mdm_labels_mean(a->ood_score, b ? b->ood_score : NULL, samples, score);
        judge(t, s->clean, s->label, verdict);
        warn_of_most_labels(t, verdict);
        mdm_labels_mislabelled(s->clean, s->certain, verdict, samples, wrong);
        for (int64_t i = 0; i < samples; i++) ids[i] = mdm_store_id(t->store, i);
        mdm_label_table table = {samples,  ids,        mdm_store_labels(t->store, MDM_TRAIN),
                                 s->label, s->clean,   score,
                                 verdict,  s->certain, wrong};
        char *path = mdm_run_folder_member(t->folder->path, MDM_RUN_LABELS);
        status =
            path ? mdm_labels_write(path, &table) : mdm_fail(MDM_RESOURCE, "out of memory for labels.csv");
        free(path);
    }
    free(score);
    free(wrong);
    free(verdict);
    free(ids);
    return status;
}

static double known(double accuracy) {
    return accuracy < 0 ? NAN : accuracy;
}

/* Of all its starts: this one, and what the stages took in those before. */
static double seconds_of_run(const mdm_trainer *t) {
    return mdm_seconds() - t->started + t->seconds_before;
}

static mdm_status write_summary(mdm_trainer *t) {
    double training = t->seconds[0] + t->seconds[1] + t->seconds[2];
    mdm_summary s = {.name = t->config.run.folder,
                     .status = "done",
                     .epochs = t->config.train.epochs,
                     .final_top1 = known(t->latest.top1),
                     .final_top5 = known(t->latest.top1 < 0 ? -1 : t->latest.top5),
                     .best_top1 = known(t->best_top1),
                     .best_epoch = t->best_epoch,
                     .best_validation_top1 = known(t->best_validation),
                     .best_validation_epoch = t->best_validation_epoch,
                     .before_semi_top1 = known(t->before_semi.top1),
                     .baseline_ce_top1 = known(t->baseline_score[0].top1),
                     .baseline_sce_top1 = known(t->baseline_score[1].top1),
                     .baseline_ce_best_validation_top1 = known(t->baseline_validation[0]),
                     .baseline_sce_best_validation_top1 = known(t->baseline_validation[1]),
                     .auc_noise = {t->opinions[0].auc_noise, t->opinions[1].auc_noise},
                     .auc_ood = {t->opinions[0].auc_ood, t->opinions[1].auc_ood},
                     .seconds = seconds_of_run(t),
                     .seconds_pretrain = t->seconds[0],
                     .seconds_warmup = t->seconds[1],
                     .seconds_semi = t->seconds[2],
                     .seconds_divide = t->seconds[3],
                     .seconds_evaluate = t->seconds[4],
                     .seconds_baseline = t->seconds[5],
                     .images_per_s = training > 0 ? t->images / training : NAN,
                     .ranks = mdm_comm_size(t->comm),
                     .networks = t->network_count,
                     .device = mdm_device_get_info(t->device)->name,
                     .precision = mdm_precision_name(t->precision)};
    char *path = mdm_run_folder_member(t->folder->path, MDM_RUN_SUMMARY);
    mdm_status status =
        path ? mdm_summary_write(path, &s) : mdm_fail(MDM_RESOURCE, "out of memory for summary.json");
    free(path);
    return status;
}

static void tell_end(mdm_trainer *t) {
    char before[64] = "";
    mdm_metrics_begin(t->metrics, "end");
    mdm_metrics_number(t->metrics, "seconds", seconds_of_run(t));
    if (t->latest.top1 >= 0) mdm_metrics_number(t->metrics, "test_top1", t->latest.top1);
    mdm_metrics_end(t->metrics);
    if (t->divided && t->before_semi.top1 >= 0)
        snprintf(before, sizeof before, " (%.4f before the semi-supervised phase)", t->before_semi.top1);
    if (t->latest.top1 >= 0)
        mdm_info("test accuracy of the %s: %.4f%s", t->network_count > 1 ? "ensemble" : "network",
                 t->latest.top1, before);
    if (t->baseline_score[0].top1 >= 0) mdm_info("cross entropy alone: %.4f", t->baseline_score[0].top1);
    if (t->baseline_score[1].top1 >= 0)
        mdm_info("symmetric cross entropy alone: %.4f", t->baseline_score[1].top1);
    if (t->latest.top1 >= 0 &&
        (t->baseline_score[0].top1 > t->latest.top1 || t->baseline_score[1].top1 > t->latest.top1))
        mdm_warn(
            "a single network without divisions was better than this run: it was short, or its settings do "
            "not suit the data; docs/settings.md, \"Are the settings right?\", tells what to change");
    mdm_info("done in %.0f s; results in %s", mdm_seconds() - t->started, t->folder->path);
}

/* A report that cannot be made takes nothing away from the run. */
static void write_report(mdm_trainer *t) {
    if (!t->config.report) return;
    if (mdm_report_write(t->folder->path, t->store, NULL, NULL) == MDM_OK)
        mdm_info("the report is %s/report.html", t->folder->path);
    else
        mdm_warn("the report could not be written: %s", mdm_last_message());
}

mdm_status mdm_write_results(mdm_trainer *t) {
    static const mdm_run_member names[MDM_MOST_NETWORKS] = {MDM_RUN_MODEL_A, MDM_RUN_MODEL_B};
    suggestions all = {0};
    mdm_status status = t->divided ? suggest_labels(t, &all) : MDM_OK;
    if (status == MDM_OK && mdm_comm_rank(t->comm) == 0) {
        status = mdm_write_networks(t, names);
        if (status == MDM_OK && t->divided) status = write_labels(t, &all);
    }
    free_suggestions(&all);
    MDM_TRY(mdm_comm_agree(t->comm, status));
    MDM_TRY(mdm_write_ood_reference(t));
    if (mdm_comm_rank(t->comm) == 0) {
        status = write_summary(t);
        if (status == MDM_OK) {
            tell_end(t);
            mdm_events_add_pictures(t->events, t->store);
            write_report(t);
        }
    }
    return mdm_comm_agree(t->comm, status);
}
