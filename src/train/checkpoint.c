/* Checkpoints of a run: everything a bit-exact continuation needs, gathered on rank 0 (replicas are equal)
 * and put on disk by a thread while training goes on; loading spreads it to all ranks. The random numbers
 * have no state: they follow from the place. */
#include "mdm/base/log.h"
#include "mdm/base/watch.h"
#include "mdm/report/checkpoint_file.h"
#include "trainer.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 3 };

/* One array of the state, by name: the same table saves and loads. */
typedef struct entry {
    char name[48];
    mdm_checkpoint_type type;
    mdm_type wire; /* for the broadcast */
    int64_t count;
    void *data;
} entry;

enum { MOST_ENTRIES = 64 };

static void add(entry *entries, int *count, const char *name, mdm_checkpoint_type type, int64_t elements,
                void *data) {
    static const mdm_type wires[] = {MDM_FLOAT, MDM_DOUBLE, MDM_INT32, MDM_INT64, MDM_BYTE};
    entry *e = &entries[(*count)++];
    snprintf(e->name, sizeof e->name, "%s", name);
    e->type = type;
    e->wire = wires[type];
    e->count = elements;
    e->data = data;
}

static void add_network(entry *entries, int *count, const char *prefix, mdm_network *network) {
    const mdm_layout *l = network->layout;
    char name[48];
    snprintf(name, sizeof name, "%s/weights", prefix);
    add(entries, count, name, MDM_CHECKPOINT_FLOAT, l->weight_count, network->weights);
    snprintf(name, sizeof name, "%s/momentum", prefix);
    add(entries, count, name, MDM_CHECKPOINT_FLOAT, l->weight_count, network->velocity);
    snprintf(name, sizeof name, "%s/statistics", prefix);
    add(entries, count, name, MDM_CHECKPOINT_FLOAT, l->statistic_count, network->statistics);
}

static void add_opinion(entry *entries, int *count, char letter, mdm_opinion *o, int64_t samples) {
    struct {
        const char *name;
        mdm_checkpoint_type type;
        int64_t elements;
        void *data;
    } parts[] = {{"loss", MDM_CHECKPOINT_FLOAT, samples, o->loss},
                 {"clean_probability", MDM_CHECKPOINT_FLOAT, samples, o->clean_probability},
                 {"ood_score", MDM_CHECKPOINT_FLOAT, samples, o->ood_score},
                 {"split", MDM_CHECKPOINT_UINT8, samples, o->split},
                 {"gmm_means", MDM_CHECKPOINT_DOUBLE, 2, o->gmm.mean},
                 {"gmm_variances", MDM_CHECKPOINT_DOUBLE, 2, o->gmm.variance},
                 {"gmm_weights", MDM_CHECKPOINT_DOUBLE, 2, o->gmm.weight},
                 {"gmm_range", MDM_CHECKPOINT_DOUBLE, 2, &o->gmm.minimum},
                 {"counts", MDM_CHECKPOINT_INT64, 3, &o->counts},
                 {"auc", MDM_CHECKPOINT_DOUBLE, 2, &o->auc_noise}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[48];
        snprintf(name, sizeof name, "division-%c/%s", letter, parts[i].name);
        add(entries, count, name, parts[i].type, parts[i].elements, parts[i].data);
    }
}

/* The scalars of the run, copied to and from these arrays. */
typedef struct scalars {
    int64_t integers[10];
    double numbers[MDM_PART_COUNT + 2 + 16];
} scalars;

static void collect_scalars(mdm_trainer *t, scalars *s, int restore) {
    int64_t divided = t->divided;
    int64_t *integers[] = {&t->place.position,
                           &t->place.network,
                           &t->place.step,
                           &t->removed,
                           &divided,
                           &t->best_epoch,
                           &t->best_validation_epoch,
                           &t->guard.skipped,
                           &t->guard.streak,
                           &t->guard.rollbacks};
    double *numbers[] = {&t->place.rows,
                         &t->place.seconds,
                         &t->latest.top1,
                         &t->latest.top5,
                         &t->before_semi.top1,
                         &t->before_semi.top5,
                         &t->baseline_score[0].top1,
                         &t->baseline_score[0].top5,
                         &t->baseline_score[1].top1,
                         &t->baseline_score[1].top5,
                         &t->best_top1,
                         &t->best_validation,
                         &t->images,
                         &t->guard.rate_scale};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        if (restore)
            *integers[i] = s->integers[i];
        else
            s->integers[i] = *integers[i];
    size_t n = sizeof numbers / sizeof *numbers;
    for (size_t i = 0; i < n; i++)
        if (restore)
            *numbers[i] = s->numbers[i];
        else
            s->numbers[i] = *numbers[i];
    for (int i = 0; i < MDM_PART_COUNT + 2; i++)
        if (restore)
            t->place.sums[i] = s->numbers[n + (size_t)i];
        else
            s->numbers[n + (size_t)i] = t->place.sums[i];
    /* added later: files without it have 0 there, which is "not measured" */
    for (int i = 0; i < 2; i++) {
        double *kept = &s->numbers[n + MDM_PART_COUNT + 2 + (size_t)i];
        if (restore)
            t->baseline_validation[i] = *kept - 1;
        else
            *kept = t->baseline_validation[i] + 1;
    }
    t->divided = (int)divided;
}

static int list_state(mdm_trainer *t, entry *entries, scalars *s) {
    int count = 0;
    int64_t samples = t->data->train_count;
    for (int n = 0; n < t->network_count; n++) {
        char name[16];
        snprintf(name, sizeof name, "network-%c", 'a' + n);
        add_network(entries, &count, name, t->networks[n]);
        snprintf(name, sizeof name, "average-%c", 'a' + n);
        if (t->averages[n]) add_network(entries, &count, name, t->averages[n]);
        add_opinion(entries, &count, (char)('a' + n), &t->opinions[n], samples);
    }
    if (t->baseline) add_network(entries, &count, "baseline", t->baseline);
    add(entries, &count, "keep", MDM_CHECKPOINT_UINT8, samples, t->keep);
    add(entries, &count, "integers", MDM_CHECKPOINT_INT64,
        (int64_t)(sizeof s->integers / sizeof *s->integers), s->integers);
    add(entries, &count, "numbers", MDM_CHECKPOINT_DOUBLE, (int64_t)(sizeof s->numbers / sizeof *s->numbers),
        s->numbers);
    add(entries, &count, "seconds", MDM_CHECKPOINT_DOUBLE, 6, t->seconds);
    add(entries, &count, "spikes", MDM_CHECKPOINT_DOUBLE, (int64_t)(sizeof t->spikes / sizeof(double)),
        &t->spikes);
    return count;
}

/* The parts of a checkpoint beside the table's. */
typedef struct marks {
    char config_hash[32], data_fingerprint[32];
    int64_t format, metrics_length;
} marks;

static void add_part(mdm_checkpoint_part *parts, int *count, const char *name, mdm_checkpoint_type type,
                     int rank, int64_t elements, const void *data) {
    mdm_checkpoint_part *p = &parts[(*count)++];
    *p = (mdm_checkpoint_part){.type = type, .rank = rank, .count = elements, .data = data};
    snprintf(p->name, sizeof p->name, "%.47s", name);
}

static int list_parts(mdm_trainer *t, mdm_checkpoint_part *parts, scalars *s, marks *m) {
    entry entries[MOST_ENTRIES];
    int count = 0;
    memset(s, 0, sizeof *s);
    collect_scalars(t, s, 0);
    int entry_count = list_state(t, entries, s);
    for (int i = 0; i < entry_count; i++)
        add_part(parts, &count, entries[i].name, entries[i].type, 1, entries[i].count, entries[i].data);
    snprintf(m->config_hash, sizeof m->config_hash, "%016" PRIx64, mdm_config_hash(&t->config));
    snprintf(m->data_fingerprint, sizeof m->data_fingerprint, "%016" PRIx64, t->data->fingerprint);
    m->format = FORMAT;
    m->metrics_length = mdm_metrics_length(t->metrics);
    add_part(parts, &count, "config_hash", MDM_CHECKPOINT_TEXT, 0, 1, m->config_hash);
    add_part(parts, &count, "data_fingerprint", MDM_CHECKPOINT_TEXT, 0, 1, m->data_fingerprint);
    add_part(parts, &count, "format", MDM_CHECKPOINT_INT64, 0, 1, &m->format);
    add_part(parts, &count, "metrics_length", MDM_CHECKPOINT_INT64, 0, 1, &m->metrics_length);
    return count;
}

/* Says how a save ended. A full disk must not end a night's training: the previous checkpoint stands, the
 * next save tries again. */
static void note_outcome(mdm_trainer *t, mdm_status status, double seconds, const char *message) {
    if (status == MDM_OK)
        t->has_saved = 1;
    else
        mdm_warn("the checkpoint could not be saved: %s", message);
    if (seconds > t->longest_save) t->longest_save = seconds;
}

mdm_status mdm_notice_saved(mdm_trainer *t, int wait) {
    mdm_checkpoint_outcome o = {.status = MDM_OK};
    if (t->saver && mdm_checkpoint_saver_ended(t->saver, wait, &o))
        note_outcome(t, o.status, o.seconds, o.message);
    return o.status;
}

/* The library puts together the first checkpoint only, which takes many times as long as a save: before the
 * training begins nobody waits for it in the middle of a step. */
mdm_status mdm_prepare_saves(mdm_trainer *t) {
    mdm_checkpoint_part parts[MOST_ENTRIES + 4];
    scalars s;
    marks m;
    if (!t->saver) MDM_TRY(mdm_checkpoint_saver_start(&t->saver));
    int count = list_parts(t, parts, &s, &m);
    if (mdm_checkpoint_saver_prepare(t->saver, parts, count) != MDM_OK)
        mdm_warn("there may be no room for checkpoints: %s", mdm_last_message());
    return MDM_OK;
}

static mdm_status save_on_rank_0(mdm_trainer *t) {
    mdm_checkpoint_part parts[MOST_ENTRIES + 4];
    scalars s;
    marks m;
    (void)mdm_notice_saved(t, 1); /* where it failed, this save is the next attempt */
    mdm_metrics_begin(t->metrics, "checkpoint");
    mdm_metrics_integer(t->metrics, "position", t->place.position);
    mdm_metrics_end(t->metrics);
    mdm_metrics_sync(t->metrics);
    int inside = t->place.network > 0 || t->place.step > 0, count = list_parts(t, parts, &s, &m);
    int64_t step = inside ? t->place.network * 1000000 + t->place.step : MDM_CHECKPOINT_EPOCH_END;
    char *folder = mdm_run_folder_member(t->folder->path, MDM_RUN_CHECKPOINTS);
    if (!folder) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    mdm_status status = mdm_checkpoint_save_later(t->saver, parts, count, folder, t->place.position, step,
                                                  t->config.checkpoint.keep);
    free(folder);
    return status;
}

/* 1 where the state is not, or with `now` could not be put, on disk. */
static int32_t save_or_warn(mdm_trainer *t, int now) {
    mdm_status status = save_on_rank_0(t);
    t->last_save = mdm_seconds();
    if (status != MDM_OK) note_outcome(t, status, 0, mdm_last_message());
    if (status == MDM_OK && now) status = mdm_notice_saved(t, 1);
    return status != MDM_OK;
}

static double checkpoint_bytes(mdm_trainer *t) {
    entry entries[MOST_ENTRIES];
    scalars s;
    double bytes = 0;
    int count = list_state(t, entries, &s);
    for (int i = 0; i < count; i++) bytes += 8.0 * (double)entries[i].count; /* no element is wider */
    return bytes;
}

mdm_status mdm_save_checkpoint(mdm_trainer *t, int now) {
    if (t->options.dry_run) return MDM_OK;
    int32_t failed = 0;
    mdm_watch_aside("save", 60 + checkpoint_bytes(t) / 5e6);
    MDM_TRY(mdm_check_replicas(t));
    MDM_TRY(mdm_comm_agree(t->comm, mdm_check_weights(t)));
    if (mdm_comm_rank(t->comm) == 0) failed = save_or_warn(t, now);
    MDM_TRY(mdm_comm_broadcast(t->comm, &failed, 1, MDM_INT32, 0));
    mdm_watch_back();
    if (failed && now)
        return mdm_fail(MDM_RESOURCE, "stopped by a signal, but the checkpoint could not be saved; the one "
                                      "before stands, if there is one");
    return MDM_OK;
}

static mdm_status check_fingerprint(const mdm_checkpoint *file, const char *name, uint64_t expected,
                                    int *same) {
    char *text, wanted[32];
    snprintf(wanted, sizeof wanted, "%016" PRIx64, expected);
    MDM_TRY(mdm_checkpoint_get_text(file, name, &text));
    *same = strcmp(text, wanted) == 0;
    free(text);
    return MDM_OK;
}

static mdm_status refuse_other(const mdm_checkpoint *file, const char *what) {
    return mdm_fail(
        MDM_USAGE,
        "%s was made with other %s; start again with them, choose another folder (run=...), or begin afresh "
        "with --force",
        mdm_checkpoint_path(file), what);
}

/* Which settings they are, by the config.yaml of the run that the checkpoint belongs to, where it can be
 * read. */
static mdm_status refuse_other_settings(const mdm_trainer *t, const mdm_checkpoint *file) {
    static const char known[] = "settings (config.yaml in the run folder has them)";
    char path[4200], differences[700], what[800];
    mdm_config *before;
    snprintf(path, sizeof path, "%s", mdm_checkpoint_path(file));
    for (int up = 0; up < 2 && strrchr(path, '/'); up++) *strrchr(path, '/') = 0;
    strncat(path, "/config.yaml", sizeof path - strlen(path) - 1);
    MDM_TRY(MDM_ALLOCATE(before, 1, "the configuration"));
    mdm_config_defaults(before);
    int readable = mdm_config_read_yaml(before, path) == MDM_OK &&
                   mdm_config_differences(before, &t->config, differences, sizeof differences) > 0;
    free(before);
    if (!readable) return refuse_other(file, known);
    snprintf(what, sizeof what, "settings: %s", differences);
    return refuse_other(file, what);
}

/* The baseline that a checkpoint's run had in its settings, and whether none has begun yet. */
typedef struct origin {
    int baseline, is_fresh;
} origin;

/* Whether a run that asked for baseline b, and stands `done` epochs after its training, has all that is
 * `wanted`. */
static int has_all(const mdm_trainer *t, int b, int64_t done, int wanted) {
    int64_t epochs = t->config.train.epochs;
    if (done < 0 || wanted == MDM_CONFIG_BASELINE_NONE) return done >= 0;
    return b == MDM_CONFIG_BASELINE_BOTH && done >= (wanted == MDM_CONFIG_BASELINE_CE ? 1 : 2) * epochs;
}

/* Whether a run with these settings and data may go on from the file. Baselines come last and begin afresh,
 * so others than before may be asked for until the first has begun, and a second one after it; fewer when
 * those are there. */
static mdm_status check_origin(mdm_trainer *t, const mdm_checkpoint *file, origin *from) {
    int64_t format, integers[sizeof((scalars *)0)->integers / sizeof(int64_t)];
    MDM_TRY(mdm_checkpoint_get_integer(file, "format", FORMAT, FORMAT, &format));
    MDM_TRY(mdm_checkpoint_get(file, "integers", MDM_CHECKPOINT_INT64,
                               (int64_t)(sizeof integers / sizeof *integers), integers));
    int64_t trained = t->config.pretrain.epochs + (int64_t)t->config.train.epochs, position = integers[0];
    from->is_fresh = position < trained || (position == trained && integers[1] == 0 && integers[2] == 0);
    int wanted = t->config.baseline, same = 0;
    mdm_status status = MDM_OK;
    for (int b = MDM_CONFIG_BASELINE_NONE; status == MDM_OK && !same && b <= MDM_CONFIG_BASELINE_BOTH; b++) {
        int may = b == wanted || from->is_fresh || has_all(t, b, position - trained, wanted) ||
                  (b == MDM_CONFIG_BASELINE_CE && wanted == MDM_CONFIG_BASELINE_BOTH);
        t->config.baseline = from->baseline = b;
        if (may) status = check_fingerprint(file, "config_hash", mdm_config_hash(&t->config), &same);
    }
    t->config.baseline = wanted;
    MDM_TRY(status);
    if (!same) return refuse_other_settings(t, file);
    MDM_TRY(check_fingerprint(file, "data_fingerprint", t->data->fingerprint, &same));
    return same ? MDM_OK : refuse_other(file, "data");
}

static mdm_status read_on_rank_0(mdm_trainer *t, const mdm_checkpoint *file, entry *entries, int count,
                                 origin *from) {
    MDM_TRY(check_origin(t, file, from));
    for (int i = 0; i < count; i++) {
        if (from->is_fresh && strncmp(entries[i].name, "baseline", 8) == 0) continue;
        if (entries[i].type == MDM_CHECKPOINT_FLOAT && strncmp(entries[i].name, "division", 8) != 0)
            MDM_TRY(mdm_checkpoint_get_finite(file, entries[i].name, entries[i].count, entries[i].data));
        else
            MDM_TRY(mdm_checkpoint_get(file, entries[i].name, entries[i].type, entries[i].count,
                                       entries[i].data));
    }
    return MDM_OK;
}

/* A right digest proves that nobody damaged the file, not that what is in it makes sense. */
static mdm_status check_scalars(mdm_trainer *t, const mdm_checkpoint *file, const scalars *s, int baseline) {
    int wanted = t->config.baseline;
    t->config.baseline = baseline; /* the file's, whose epochs its position counts */
    int64_t positions = mdm_position_count(t);
    t->config.baseline = wanted;
    const struct {
        const char *name;
        int64_t value, most;
    } limits[] = {{"position", s->integers[0], positions},
                  {"network", s->integers[1], t->network_count - 1},
                  {"step", s->integers[2], INT32_MAX},
                  {"number of samples removed", s->integers[3], t->data->train_count}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].value < 0 || limits[i].value > limits[i].most)
            return mdm_fail(MDM_INPUT, "%s: its %s is %lld, of 0 to %lld; it is damaged or made up",
                            mdm_checkpoint_path(file), limits[i].name, (long long)limits[i].value,
                            (long long)limits[i].most);
    return MDM_OK;
}

static mdm_status open_on_rank_0(mdm_trainer *t, int from_here, mdm_checkpoint **file) {
    *file = NULL;
    if (!from_here && strcmp(t->config.resume, "auto") != 0 && strcmp(t->config.resume, "never") != 0)
        return mdm_checkpoint_open_named(t->config.resume, file);
    char *folder = mdm_run_folder_member(t->config.run.folder, MDM_RUN_CHECKPOINTS);
    if (!folder) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    mdm_status status = mdm_checkpoint_open_newest(folder, file);
    free(folder);
    return status;
}

static mdm_status load_on_rank_0(mdm_trainer *t, entry *entries, int count, const scalars *s, int from_here,
                                 int64_t *metrics_length) {
    mdm_checkpoint *file;
    origin from;
    *metrics_length = -1;
    MDM_TRY(open_on_rank_0(t, from_here, &file));
    if (!file) return MDM_OK;
    mdm_status status = read_on_rank_0(t, file, entries, count, &from);
    if (status == MDM_OK) status = check_scalars(t, file, s, from.baseline);
    if (status == MDM_OK)
        status = mdm_checkpoint_get_integer(file, "metrics_length", 0, INT64_MAX, metrics_length);
    if (status == MDM_OK) mdm_info("going on from %s", mdm_checkpoint_path(file));
    mdm_checkpoint_close(file);
    return status;
}

static mdm_status foresee_on_rank_0(mdm_trainer *t) {
    mdm_checkpoint *file;
    origin from;
    MDM_TRY(open_on_rank_0(t, 0, &file));
    if (!file) return MDM_OK;
    mdm_status status = check_origin(t, file, &from);
    if (status == MDM_OK) status = mdm_refuse_used_folder(t);
    if (status == MDM_OK) mdm_info("dry run: the run would go on from %s", mdm_checkpoint_path(file));
    mdm_checkpoint_close(file);
    return status;
}

mdm_status mdm_foresee_start(mdm_trainer *t) {
    int asks = mdm_comm_rank(t->comm) == 0 && !t->options.force;
    return mdm_comm_agree(t->comm, asks ? foresee_on_rank_0(t) : MDM_OK);
}

static mdm_status open_metrics(mdm_trainer *t) {
    char *path = mdm_run_folder_member(t->folder->path, MDM_RUN_METRICS);
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    mdm_status status = mdm_metrics_open(path, t->metrics_kept, &t->metrics);
    free(path);
    return status;
}

static mdm_status forget_run_before(const mdm_trainer *t) {
    char *folder = mdm_run_folder_member(t->folder->path, MDM_RUN_CHECKPOINTS);
    if (!folder) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    mdm_status status = mdm_checkpoint_remove_all(folder);
    free(folder);
    return status == MDM_OK ? mdm_run_folder_forget(t->folder) : status;
}

static mdm_status begin_on_rank_0(mdm_trainer *t) {
    if (t->options.force) MDM_TRY(forget_run_before(t));
    return open_metrics(t);
}

mdm_status mdm_begin_records(mdm_trainer *t) {
    int opens = mdm_comm_rank(t->comm) == 0 && !t->options.dry_run;
    return mdm_comm_agree(t->comm, opens ? begin_on_rank_0(t) : MDM_OK);
}

/* With `from_here` what was saved by this run itself, after --force or resume=never as well. */
static mdm_status load_everywhere(mdm_trainer *t, int from_here, int *resumed) {
    entry entries[MOST_ENTRIES];
    scalars s;
    int64_t length = -1;
    mdm_status status = MDM_OK;
    memset(&s, 0, sizeof s);
    int count = list_state(t, entries, &s);
    if (mdm_comm_rank(t->comm) == 0 && !t->options.dry_run && (!t->options.force || from_here))
        status = load_on_rank_0(t, entries, count, &s, from_here, &length);
    MDM_TRY(mdm_comm_agree(t->comm, status));
    MDM_TRY(mdm_comm_broadcast(t->comm, &length, 1, MDM_INT64, 0));
    *resumed = length >= 0;
    t->metrics_kept = *resumed ? length : 0;
    if (!*resumed) return MDM_OK;
    for (int i = 0; i < count; i++)
        MDM_TRY(mdm_comm_broadcast(t->comm, entries[i].data, entries[i].count, entries[i].wire, 0));
    collect_scalars(t, &s, 1);
    if (t->place.position > mdm_position_count(t)) /* a baseline had begun that is not asked for any more */
        t->place = (mdm_place){.position = mdm_position_count(t)};
    if (!from_here) {
        t->seconds_before = t->place.seconds;
        for (int i = 0; i < 6; i++) t->seconds_before += t->seconds[i];
    }
    for (int n = 0; n < t->network_count; n++) {
        mdm_network_touch(t->networks[n]);
        if (t->averages[n]) mdm_network_touch(t->averages[n]);
    }
    if (t->baseline) mdm_network_touch(t->baseline);
    return MDM_OK;
}

mdm_status mdm_load_checkpoint(mdm_trainer *t, int *resumed) {
    return load_everywhere(t, 0, resumed);
}

mdm_status mdm_return_to_checkpoint(mdm_trainer *t, int *found) {
    (void)mdm_notice_saved(t, 1);
    int32_t saved = t->has_saved;
    *found = 0;
    MDM_TRY(mdm_comm_broadcast(t->comm, &saved, 1, MDM_INT32, 0));
    if (!saved) return MDM_OK;
    mdm_metrics_close(t->metrics);
    t->metrics = NULL;
    MDM_TRY(mdm_comm_agree(t->comm, mdm_fetch_networks(t))); /* no device has newer ones then */
    MDM_TRY(load_everywhere(t, 1, found));
    int opens = mdm_comm_rank(t->comm) == 0 && *found;
    return mdm_comm_agree(t->comm, opens ? open_metrics(t) : MDM_OK);
}
