/* Opening a run: checks at the door, then data, networks and memory, before any step is taken. */
#include "mdm/base/log.h"
#include "mdm/base/watch.h"
#include "mdm/report/checkpoint_file.h"
#include "trainer.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Settings that this build cannot honour are refused, never ignored. */
static mdm_status refuse_missing(const mdm_config *c) {
    int deterministic = c->deterministic == MDM_CONFIG_DETERMINISTIC_TRUE;
    if (deterministic && c->train.batchnorm == MDM_CONFIG_BATCHNORM_LOCAL)
        return mdm_fail(MDM_USAGE,
                        "deterministic=true cannot be had with train.batchnorm=local, whose statistics are "
                        "each rank's own; use sync or frozen");
    if (c->train.patience > 0 && !c->data.validation[0])
        return mdm_fail(MDM_USAGE, "train.patience=%d needs data.validation to measure on",
                        c->train.patience);
    if (deterministic && c->train.micro_batch > 0)
        return mdm_fail(MDM_USAGE,
                        "deterministic=true cuts batches in its own way; use train.micro_batch=auto");
    return MDM_OK;
}

/* Of several files in the settings, which one is missing. */
static mdm_status find_files(const mdm_config *c) {
    const int has_validation = mdm_config_validation(c, NULL) == MDM_VALIDATION_FILE;
    if (c->data.test[0] && access(c->data.test, F_OK) != 0)
        return mdm_fail(MDM_INPUT, "data.test=%s: %s", c->data.test, strerror(errno));
    if (has_validation && access(c->data.validation, F_OK) != 0)
        return mdm_fail(MDM_INPUT, "data.validation=%s: %s", c->data.validation, strerror(errno));
    return MDM_OK;
}

static mdm_status open_data(mdm_trainer *t) {
    mdm_resident resident = t->config.data.resident == MDM_CONFIG_RESIDENT_STREAM ? MDM_RESIDENT_STREAM
                            : t->config.data.resident == MDM_CONFIG_RESIDENT_HOST ? MDM_RESIDENT_HOST
                                                                                  : MDM_RESIDENT_AUTO;
    const char *test = t->config.data.test[0] ? t->config.data.test : NULL;
    MDM_TRY(mdm_comm_agree(t->comm, mdm_comm_rank(t->comm) == 0 ? find_files(&t->config) : MDM_OK));
    MDM_TRY(mdm_store_open_with_test(t->comm, t->config.data.train, test, resident, &t->store));
    t->data = mdm_store_get_info(t->store);
    if (t->config.data.shuffle == MDM_CONFIG_SHUFFLE_BLOCKS) mdm_store_expect_blocks(t->store);
    if (mdm_config_validation(&t->config, NULL) ==
        MDM_VALIDATION_FILE) /* with the training set's shape, classes and normalisation */
        MDM_TRY(mdm_store_open_with_test(t->comm, t->config.data.train, t->config.data.validation,
                                         MDM_RESIDENT_STREAM, &t->validation));
    MDM_TRY(mdm_config_check_data(&t->config, t->data->train_count, t->data->classes, t->data->height,
                                  t->data->width));
    return mdm_config_check_ranks(&t->config, mdm_comm_size(t->comm));
}

static mdm_status choose_device(mdm_trainer *t) {
    MDM_TRY(mdm_choose_threads(t->comm, t->config.run.threads, &t->threads, t->thread_text,
                               sizeof t->thread_text));
    return mdm_choose_device(t->comm, &t->config, t->threads, &t->device, &t->precision);
}

static mdm_status create_networks(mdm_trainer *t) {
    mdm_network_spec spec = {.base_width = t->config.model.width,
                             .projection = t->config.model.projection,
                             .channels = t->data->channels,
                             .height = t->data->height,
                             .width = t->data->width,
                             .classes = t->data->classes};
    mdm_batchnorm modes[] = {MDM_BATCHNORM_SYNC, MDM_BATCHNORM_LOCAL, MDM_BATCHNORM_FROZEN};
    mdm_config_get(&t->config, "model.arch", spec.arch, sizeof spec.arch);
    MDM_TRY(mdm_layout_create(&spec, &t->layout));
    MDM_TRY(mdm_executor_create(t->device, t->comm, t->layout, t->precision, modes[t->config.train.batchnorm],
                                &t->executor));
    MDM_TRY(mdm_recorder_create(t->comm, t->executor, t->config.train.cuda_graph, &t->recorder));
    t->network_count = t->config.model.networks;
    for (int n = 0; n < t->network_count; n++) {
        MDM_TRY(mdm_network_create(t->layout, (uint64_t)t->config.seed, n, &t->networks[n]));
        if (t->config.model.ema > 0)
            MDM_TRY(mdm_network_create(t->layout, (uint64_t)t->config.seed, n, &t->averages[n]));
    }
    if (t->config.baseline != MDM_CONFIG_BASELINE_NONE)
        MDM_TRY(mdm_network_create(t->layout, (uint64_t)t->config.seed, 0, &t->baseline));
    return MDM_OK;
}

/* Whether deterministic=auto can be had beside the other settings; memory may speak against it yet. */
static int could_be_deterministic(const mdm_trainer *t) {
    const mdm_config *c = &t->config;
    return mdm_executor_can_be_reproducible(t->executor) &&
           c->train.batchnorm != MDM_CONFIG_BATCHNORM_LOCAL && c->train.micro_batch <= 0;
}

/* Collective. Once the device is known. */
static mdm_status settle_memory(mdm_trainer *t) {
    int asked = t->config.deterministic;
    t->deterministic = asked == MDM_CONFIG_DETERMINISTIC_TRUE ||
                       (asked == MDM_CONFIG_DETERMINISTIC_AUTO && could_be_deterministic(t));
    MDM_TRY(mdm_check_memory(t));
    if (asked == MDM_CONFIG_DETERMINISTIC_AUTO)
        mdm_info("deterministic=auto: %s", t->deterministic
                                               ? "the same bits on 1, 2, 3, 4, 6 and 12 ranks"
                                               : "sums differ by rounding with the number of ranks");
    return t->deterministic ? mdm_executor_make_reproducible(t->executor) : MDM_OK;
}

static mdm_status allocate_state(mdm_trainer *t) {
    int64_t samples = t->data->train_count;
    MDM_TRY(MDM_ALLOCATE(t->keep, samples, "the samples' state"));
    memset(t->keep, 1, (size_t)samples);
    int64_t **lists[] = {&t->order, &t->labelled, &t->unlabelled, &t->pool};
    for (int i = 0; i < 4; i++) MDM_TRY(MDM_ALLOCATE(*lists[i], samples, "the samples' order"));
    for (int n = 0; n < t->network_count; n++) {
        mdm_opinion *o = &t->opinions[n];
        MDM_TRY(MDM_ALLOCATE(o->loss, samples, "the samples' state"));
        MDM_TRY(MDM_ALLOCATE(o->clean_probability, samples, "the samples' state"));
        MDM_TRY(MDM_ALLOCATE(o->ood_score, samples, "the samples' state"));
        MDM_TRY(MDM_ALLOCATE(o->split, samples, "the samples' state"));
        MDM_TRY(MDM_ALLOCATE(o->neighbour, samples, "the samples' state"));
        MDM_TRY(MDM_ALLOCATE(o->similarity, samples, "the samples' state"));
        o->auc_noise = o->auc_ood = NAN;
    }
    MDM_TRY(mdm_guard_create(t));
    MDM_TRY(mdm_views_create(t->device, t->store, (uint64_t)t->config.seed, t->config.train.crop_padding,
                             t->threads, &t->views));
    if (!t->validation) return MDM_OK;
    return mdm_views_create(t->device, t->validation, (uint64_t)t->config.seed, t->config.train.crop_padding,
                            t->threads, &t->validation_views);
}

static mdm_status renew_on_device(mdm_trainer *t, size_t bytes, void **memory) {
    mdm_device_free(t->device, *memory);
    *memory = NULL;
    return mdm_device_allocate(t->device, bytes, "a step's images and samples", memory);
}

/* Copies the pictures to where mdm_check_memory found room for them. A device that has less than it says is
 * told of, unless the user insists. */
static mdm_status keep_pictures(mdm_trainer *t) {
    int32_t kept = 1;
    if (!t->on_device) return MDM_OK;
    mdm_status status = mdm_views_keep(t->views);
    if (status == MDM_RESOURCE && t->config.data.resident == MDM_CONFIG_RESIDENT_AUTO) {
        mdm_warn("%s; pictures are sent there step by step instead", mdm_last_message());
        status = MDM_OK;
        kept = 0;
    }
    MDM_TRY(mdm_comm_agree(t->comm, status));
    MDM_TRY(mdm_comm_all_reduce(t->comm, &kept, 1, MDM_INT32, MDM_MIN));
    t->on_device = kept;
    if (kept) return mdm_store_let_go(t->store);
    mdm_views_give_up(t->views);
    return MDM_OK;
}

mdm_status mdm_trainer_reserve(mdm_trainer *t, int64_t rows, int64_t listed, int64_t samples) {
    int64_t image = (int64_t)t->data->channels * t->data->height * t->data->width;
    int64_t width = t->layout->spec.classes > t->layout->spec.projection ? t->layout->spec.classes
                                                                         : t->layout->spec.projection;
    if (rows > t->image_rows) {
        t->image_rows = 0;
        MDM_TRY(renew_on_device(t, sizeof(float) * (size_t)(MDM_SEMI_PASSES * rows * image),
                                (void **)&t->step_images));
        MDM_TRY(renew_on_device(t, sizeof(float) * (size_t)(rows * width), (void **)&t->gradient));
        t->image_rows = rows;
    }
    if (samples > t->list_size) {
        void *lists[] = {t->sample_list, t->next_list, t->view_list, t->told, t->permutation};
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]);
        t->sample_list = t->next_list = NULL;
        t->view_list = NULL;
        t->told = NULL;
        t->permutation = NULL;
        int64_t global = samples * mdm_comm_size(t->comm); /* a permutation is of all ranks' rows */
        MDM_TRY(MDM_ALLOCATE(t->sample_list, 2 * samples, "a step's samples"));
        MDM_TRY(MDM_ALLOCATE(t->next_list, 2 * samples, "a step's samples"));
        MDM_TRY(MDM_ALLOCATE(t->view_list, 2 * samples, "a step's samples"));
        MDM_TRY(MDM_ALLOCATE(t->told, 2 * samples, "a step's samples"));
        MDM_TRY(MDM_ALLOCATE(t->permutation, global, "a step's samples"));
        mdm_message_destroy(t->message);
        MDM_TRY(mdm_message_create(t->device, sizeof(mdm_step_orders) + sizeof(int32_t) * 2 * (size_t)samples,
                                   "what a step is told", &t->message));
        MDM_TRY(renew_on_device(t, sizeof(double) * (size_t)samples, (void **)&t->row_value));
        t->list_size = samples;
    }
    return mdm_views_reserve(t->views, listed, 3 * rows);
}

mdm_status mdm_refuse_used_folder(const mdm_trainer *t) {
    if (t->options.force || strcmp(t->config.resume, "never") != 0) return MDM_OK;
    return mdm_fail(MDM_USAGE,
                    "%s holds a run and resume=never; choose another folder (run=...), resume=auto to go "
                    "on, or --force to begin afresh",
                    t->config.run.folder);
}

/* Whether the folder could be made and written, without doing it. */
static mdm_status try_folder(const char *folder) {
    char part[MDM_CONFIG_TEXT], inside[MDM_CONFIG_TEXT + 2];
    snprintf(part, sizeof part, "%s", folder);
    for (;;) {
        char *slash = strrchr(part, '/');
        snprintf(inside, sizeof inside, "%s/.", part); /* only folders have this */
        if (faccessat(AT_FDCWD, inside, W_OK | X_OK, AT_EACCESS) == 0) return MDM_OK;
        if (errno != ENOENT || strcmp(part, ".") == 0 || strcmp(part, "/") == 0)
            return mdm_fail(MDM_RESOURCE, "run=%s cannot be written: %s: %s", folder, part, strerror(errno));
        if (slash && slash > part)
            *slash = 0;
        else
            snprintf(part, sizeof part, "%s", slash ? "/" : ".");
    }
}

static mdm_status open_folder(mdm_trainer *t) {
    if (t->options.dry_run) return try_folder(t->config.run.folder);
    MDM_TRY(mdm_run_folder_open(t->config.run.folder, &t->folder));
    return t->folder->is_new ? MDM_OK : mdm_refuse_used_folder(t);
}

static mdm_status open_all(mdm_trainer *t) {
    MDM_TRY(refuse_missing(&t->config));
    if (t->options.force && strcmp(t->config.resume, "auto") != 0 && strcmp(t->config.resume, "never") != 0)
        return mdm_fail(MDM_USAGE, "--force begins afresh, resume=%s does not; leave one of them out",
                        t->config.resume);
    mdm_watch_stage("open", -1, -1, 1800); /* a large data set is read, perhaps by rank 0 alone */
    mdm_watch_reading(60);
    MDM_TRY(open_data(t));
    mdm_watch_reading(0);
    mdm_status status = mdm_hold_out(t);
    if (status == MDM_OK && mdm_comm_rank(t->comm) == 0) status = open_folder(t);
    MDM_TRY(mdm_comm_agree(t->comm, status));
    if (!t->options.dry_run) mdm_watch_folder(t->config.run.folder);
    MDM_TRY(mdm_comm_agree(t->comm, choose_device(t)));
    MDM_TRY(mdm_comm_agree(t->comm, create_networks(t)));
    status = settle_memory(t);
    if (status == MDM_OK) status = allocate_state(t);
    MDM_TRY(mdm_comm_agree(t->comm, status));
    return keep_pictures(t);
}

mdm_status mdm_trainer_open(mdm_comm *comm, const mdm_config *config, const mdm_run_options *options,
                            mdm_trainer **trainer) {
    mdm_trainer *t;
    *trainer = NULL;
    MDM_TRY(MDM_ALLOCATE(t, 1, "the trainer"));
    *trainer = t; /* closed by the caller whatever comes */
    t->comm = comm;
    t->config = *config;
    t->options = *options;
    t->latest.top1 = t->before_semi.top1 = t->baseline_score[0].top1 = t->baseline_score[1].top1 = -1;
    t->best_top1 = t->best_validation = t->baseline_validation[0] = t->baseline_validation[1] = -1;
    t->best_epoch = t->best_validation_epoch = -1;
    t->started = t->last_save = mdm_seconds();
    return open_all(t);
}

static void free_opinion(mdm_opinion *o) {
    free(o->loss);
    free(o->clean_probability);
    free(o->ood_score);
    free(o->split);
    free(o->neighbour);
    free(o->similarity);
}

void mdm_trainer_close(mdm_trainer *t) {
    if (!t) return;
    mdm_checkpoint_saver_stop(t->saver);
    mdm_metrics_close(t->metrics);
    mdm_events_close(t->events);
    mdm_run_folder_close(t->folder);
    mdm_recorder_destroy(t->recorder);
    mdm_message_destroy(t->message);
    mdm_semi_workspace_destroy(t->workspace);
    mdm_contrast_destroy(t->contrast);
    mdm_executor_destroy(t->executor);
    for (int n = 0; n < MDM_MOST_NETWORKS; n++) {
        mdm_network_destroy(t->networks[n]);
        mdm_network_destroy(t->averages[n]);
        free_opinion(&t->opinions[n]);
    }
    void *on_device[] = {t->step_images, t->gradient, t->row_value, t->result, t->guard.statistics};
    for (size_t i = 0; i < sizeof on_device / sizeof *on_device; i++)
        if (on_device[i]) mdm_device_free(t->device, on_device[i]);
    mdm_network_destroy(t->baseline);
    mdm_layout_destroy(t->layout);
    mdm_views_destroy(t->views);
    mdm_views_destroy(t->validation_views);
    mdm_device_destroy(t->device);
    mdm_store_close(t->store);
    mdm_store_close(t->validation);
    void *arrays[] = {t->keep,      t->order, t->labelled,    t->unlabelled, t->pool, t->sample_list,
                      t->view_list, t->told,  t->permutation, t->next_list,  t->held, t->training};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
    free(t);
}
