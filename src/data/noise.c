/* Noise: choose samples, hold classes out, bring foreign pictures in, then change labels; every draw from its
 * own stream. */
#include "mdm/data/noise.h"
#include "mdm/base/log.h"
#include "mdm/base/random.h"
#include "mdm/base/text.h"
#include "noise_tables.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Streams of draws; changing one leaves the others as they are. */
enum { DRAW_SAMPLES = 1, DRAW_OOD_SAMPLES, DRAW_MIX, DRAW_NOISY, DRAW_LABELS, DRAW_OOD_LABELS, DRAW_FOREIGN };

static mdm_random draws(const mdm_noise_options *o, int kind) {
    return mdm_random_stream(o->seed, MDM_RANDOM_NOISE, 0, (uint64_t)kind, 0);
}

/* A plan: which source picture each new sample is, and its labels. */
typedef struct plan {
    int64_t n, ood;
    int64_t *source; /* [n] index in the source; foreign pictures: -1 - index in ood_from */
    int32_t *truth, *given;
    int classes;
    int remap[1024]; /* source class to new class, -1: held out */
} plan;

static const int32_t *truth_of(const mdm_dataset *d) {
    return d->true_labels ? d->true_labels : d->train_labels;
}

static mdm_status map_classes(const mdm_dataset *source, const mdm_noise_options *o, plan *p) {
    if (source->classes > 1024) return mdm_fail(MDM_USAGE, "more than 1024 classes");
    for (int c = 0; c < source->classes; c++) p->remap[c] = 0;
    for (int i = 0; i < o->hold_out_count; i++) {
        if (o->hold_out[i] < 0 || o->hold_out[i] >= source->classes)
            return mdm_fail(MDM_USAGE, "--hold-out %d: the data set has classes 0 to %d", o->hold_out[i],
                            source->classes - 1);
        p->remap[o->hold_out[i]] = -1;
    }
    for (int c = 0; c < source->classes; c++)
        if (p->remap[c] >= 0) p->remap[c] = p->classes++;
    if (p->classes < 2)
        return mdm_fail(MDM_USAGE, "--hold-out leaves %d class; at least 2 must stay", p->classes);
    return MDM_OK;
}

/* Indices of the in-distribution and of the held-out samples, each in random order. */
static mdm_status sort_out(const mdm_dataset *source, const mdm_noise_options *o, const plan *p,
                           int64_t *inside, int64_t *inside_count, int64_t *outside, int64_t *outside_count) {
    const int32_t *truth = truth_of(source);
    *inside_count = *outside_count = 0;
    for (int64_t i = 0; i < source->train_count; i++) {
        if (truth[i] < 0 || p->remap[truth[i]] < 0)
            outside[(*outside_count)++] = i;
        else
            inside[(*inside_count)++] = i;
    }
    mdm_random a = draws(o, DRAW_SAMPLES), b = draws(o, DRAW_OOD_SAMPLES);
    mdm_random_shuffle(&a, inside, *inside_count);
    mdm_random_shuffle(&b, outside, *outside_count);
    return MDM_OK;
}

static mdm_status check_counts(const mdm_noise_options *o, const plan *p, int64_t inside, int64_t outside) {
    int foreign = o->ood_from != NULL;
    if (p->ood > 0 && !foreign && o->hold_out_count == 0)
        return mdm_fail(MDM_USAGE, "--ood needs pictures of no class: --hold-out CLASSES or --ood-from FILE");
    if (!foreign && p->ood > outside)
        return mdm_fail(
            MDM_USAGE,
            "--ood asks for %lld samples, but the held-out classes have %lld; lower --ood or --samples",
            (long long)p->ood, (long long)outside);
    if (foreign && p->ood > o->ood_from->train_count)
        return mdm_fail(MDM_USAGE, "--ood asks for %lld samples, but --ood-from has %lld", (long long)p->ood,
                        (long long)o->ood_from->train_count);
    if ((foreign ? p->n : p->n - p->ood) > inside)
        return mdm_fail(MDM_USAGE,
                        "%lld in-distribution samples are asked for, but there are %lld; lower --samples",
                        (long long)(foreign ? p->n : p->n - p->ood), (long long)inside);
    return MDM_OK;
}

/* Fills the plan's source and true labels: in-distribution samples and held-out ones, mixed. */
static void choose_samples(const mdm_dataset *source, const mdm_noise_options *o, plan *p,
                           const int64_t *inside, const int64_t *outside) {
    const int32_t *truth = truth_of(source);
    int64_t own = o->ood_from ? p->n : p->n - p->ood;
    memcpy(p->source, inside, sizeof(int64_t) * (size_t)own);
    if (!o->ood_from) memcpy(p->source + own, outside, sizeof(int64_t) * (size_t)p->ood);
    mdm_random mix = draws(o, DRAW_MIX), labels = draws(o, DRAW_OOD_LABELS);
    if (p->n ==
        source->train_count) { /* every sample stays: in the source's order, which noise files rely on */
        for (int64_t i = 0; i < p->n; i++) p->source[i] = i;
    } else {
        mdm_random_shuffle(&mix, p->source, p->n);
    }
    for (int64_t i = 0; i < p->n; i++) {
        int32_t label = truth[p->source[i]];
        p->truth[i] = label < 0 ? -1 : p->remap[label];
        p->given[i] =
            p->truth[i] < 0 ? (int32_t)mdm_random_below(&labels, (uint32_t)p->classes) : p->truth[i];
    }
}

/* Pictures of the other file take the place of random samples, which keep their given label. */
static mdm_status bring_foreign(const mdm_noise_options *o, plan *p) {
    int64_t *order, *foreign;
    if (!o->ood_from || p->ood == 0) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(order, p->n, "noise"));
    mdm_status status = MDM_ALLOCATE(foreign, o->ood_from->train_count, "noise");
    if (status == MDM_OK) {
        mdm_random random = draws(o, DRAW_FOREIGN);
        for (int64_t i = 0; i < p->n; i++) order[i] = i;
        for (int64_t i = 0; i < o->ood_from->train_count; i++) foreign[i] = i;
        mdm_random_shuffle(&random, order, p->n);
        mdm_random_shuffle(&random, foreign, o->ood_from->train_count);
        for (int64_t i = 0; i < p->ood; i++) {
            p->source[order[i]] = -1 - foreign[i];
            p->truth[order[i]] = -1;
        }
        free(foreign);
    }
    free(order);
    return status;
}

/* One label moved by a row of the transition matrix. */
static int32_t draw_from_row(const double *row, int classes, mdm_random *random) {
    double u = mdm_random_open(random), sum = 0;
    for (int c = 0; c < classes; c++)
        if ((sum += row[c]) > u) return c;
    return classes - 1;
}

static int32_t other_class(int32_t own, int classes, int exclude_own, mdm_random *random) {
    if (!exclude_own) return (int32_t)mdm_random_below(random, (uint32_t)classes);
    int32_t drawn = (int32_t)mdm_random_below(random, (uint32_t)classes - 1);
    return drawn + (drawn >= own);
}

static mdm_status change_labels(const mdm_dataset *source, const mdm_noise_options *o, plan *p,
                                mdm_noise_counts *counts) {
    int64_t *order, clean = 0;
    double *matrix = NULL;
    counts->symmetric = llround(o->symmetric * (double)p->n);
    counts->asymmetric = llround(o->asymmetric * (double)p->n);
    MDM_TRY(MDM_ALLOCATE(order, p->n, "noise"));
    for (int64_t i = 0; i < p->n; i++)
        if (p->truth[i] >= 0) order[clean++] = i;
    mdm_status status = MDM_OK;
    if (counts->symmetric + counts->asymmetric > clean)
        status =
            mdm_fail(MDM_USAGE,
                     "%lld labels are to change, but only %lld samples are in distribution; lower the rates",
                     (long long)(counts->symmetric + counts->asymmetric), (long long)clean);
    if (status == MDM_OK && counts->asymmetric > 0)
        status = mdm_noise_transitions(source, p->remap, p->classes, o->transition_matrix, &matrix);
    if (status == MDM_OK) {
        mdm_random pick = draws(o, DRAW_NOISY), labels = draws(o, DRAW_LABELS);
        mdm_random_shuffle(&pick, order, clean);
        for (int64_t i = 0; i < counts->symmetric; i++)
            p->given[order[i]] = other_class(p->truth[order[i]], p->classes, o->exclude_own, &labels);
        for (int64_t i = counts->symmetric; i < counts->symmetric + counts->asymmetric; i++)
            p->given[order[i]] =
                draw_from_row(matrix + (size_t)p->truth[order[i]] * (size_t)p->classes, p->classes, &labels);
    }
    free(matrix);
    free(order);
    return status;
}

mdm_status mdm_noise_parse_labels(const char *text, size_t bytes, const char *path, int64_t count,
                                  int classes, int32_t *labels) {
    json_error_t error;
    json_t *list = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!list) return mdm_fail(MDM_INPUT, "%s is no JSON (line %d: %s)", path, error.line, error.text);
    mdm_status status = MDM_OK;
    if (!json_is_array(list) || json_array_size(list) != (size_t)count)
        status =
            mdm_fail(MDM_INPUT, "%s must be a list of %lld labels, one for each sample; it has %zu entries",
                     path, (long long)count, json_is_array(list) ? json_array_size(list) : 0);
    for (int64_t i = 0; status == MDM_OK && i < count; i++) {
        const json_t *entry = json_array_get(list, (size_t)i);
        json_int_t value = json_integer_value(entry);
        if (!json_is_integer(entry) || value < 0 || value >= classes)
            status = mdm_fail(MDM_INPUT, "%s: entry %lld is no label from 0 to %d", path, (long long)i,
                              classes - 1);
        else
            labels[i] = (int32_t)value;
    }
    json_decref(list);
    return status;
}

static mdm_status read_labels(const char *path, plan *p) {
    char *text;
    size_t bytes;
    MDM_TRY(mdm_read_file(path, (size_t)1 << 30, &text, &bytes));
    mdm_status status = mdm_noise_parse_labels(text, bytes, path, p->n, p->classes, p->given);
    free(text);
    return status;
}

mdm_status mdm_noise_write_labels(const char *path, const mdm_dataset *d) {
    mdm_text text = {0};
    mdm_text_add(&text, "[");
    for (int64_t i = 0; i < d->train_count; i++) mdm_text_add(&text, i ? ", %d" : "%d", d->train_labels[i]);
    mdm_text_add(&text, "]\n");
    mdm_status status = text.failed ? mdm_fail(MDM_RESOURCE, "out of memory for %s", path)
                                    : mdm_write_file(path, text.data, text.length);
    free(text.data);
    return status;
}

/* The test set without held-out classes. */
static void copy_test(const mdm_dataset *source, const plan *p, mdm_dataset *d) {
    size_t image = (size_t)d->height * (size_t)d->width * (size_t)d->channels;
    int64_t kept = 0;
    for (int64_t i = 0; i < source->test_count; i++) {
        int label = p->remap[source->test_labels[i]];
        if (label < 0) continue;
        memcpy(d->test_images + image * (size_t)kept, source->test_images + image * (size_t)i, image);
        d->test_labels[kept++] = label;
    }
}

static mdm_status describe(const mdm_dataset *source, const mdm_noise_options *o, const plan *p,
                           mdm_dataset *d, mdm_noise_counts *counts) {
    char text[256];
    mdm_text matrix = {0};
    if (source->class_names) {
        const char *names[1024];
        for (int c = 0; c < source->classes; c++)
            if (p->remap[c] >= 0) names[p->remap[c]] = source->class_names[c];
        MDM_TRY(mdm_dataset_set_class_names(d, names, p->classes));
    }
    snprintf(text, sizeof text,
             "samples %lld, symmetric %lld%s, asymmetric %lld, out of distribution %lld, seed %llu%s",
             (long long)p->n, (long long)counts->symmetric, o->exclude_own ? " (never the own class)" : "",
             (long long)counts->asymmetric, (long long)p->ood, (unsigned long long)o->seed,
             o->labels_from ? ", labels from a file" : "");
    MDM_TRY(mdm_dataset_add_note(d, "noise", text));
    int64_t *table;
    MDM_TRY(MDM_ALLOCATE(table, (int64_t)p->classes * p->classes, "the transition matrix"));
    for (int64_t i = 0; i < p->n; i++) {
        if (p->truth[i] < 0) continue;
        table[p->truth[i] * p->classes + p->given[i]]++;
        counts->wrong += p->truth[i] != p->given[i];
    }
    for (int c = 0; c < p->classes * p->classes; c++)
        mdm_text_add(&matrix, "%lld%s", (long long)table[c], (c + 1) % p->classes ? " " : "\n");
    free(table);
    mdm_status status =
        matrix.failed ? mdm_fail(MDM_RESOURCE, "out of memory for the transition matrix") : MDM_OK;
    if (status == MDM_OK && matrix.length < 60000) /* an HDF5 attribute holds 64 KiB */
        status = mdm_dataset_add_note(d, "transition_counts", matrix.data);
    free(matrix.data);
    return status;
}

/* Ids lead back to the source: its own, or the sample's number in it; "ood:" stands before those of the other
 * file. */
static mdm_status copy_ids(const mdm_dataset *source, const mdm_noise_options *o, const plan *p,
                           mdm_dataset *d) {
    MDM_TRY(MDM_ALLOCATE(d->ids, p->n, "ids"));
    for (int64_t i = 0; i < p->n; i++) {
        int foreign = p->source[i] < 0;
        const mdm_dataset *from = foreign ? o->ood_from : source;
        int64_t index = foreign ? -1 - p->source[i] : p->source[i];
        mdm_text id = {0};
        if (foreign) mdm_text_add(&id, "ood:");
        if (from->ids)
            mdm_text_add_bytes(&id, from->ids[index], strlen(from->ids[index]) + 1);
        else
            mdm_text_add(&id, "%lld", (long long)index);
        d->ids[i] = id.data;
        if (id.failed || !id.data) return mdm_fail(MDM_RESOURCE, "out of memory for ids");
    }
    return MDM_OK;
}

static mdm_status assemble(const mdm_dataset *source, const mdm_noise_options *o, const plan *p,
                           mdm_dataset **out, mdm_noise_counts *counts) {
    size_t image = (size_t)source->height * (size_t)source->width * (size_t)source->channels;
    int64_t test = 0;
    for (int64_t i = 0; i < source->test_count; i++) test += p->remap[source->test_labels[i]] >= 0;
    MDM_TRY(
        mdm_dataset_create(p->n, test, source->height, source->width, source->channels, p->classes, 1, out));
    mdm_dataset *d = *out;
    for (int64_t i = 0; i < p->n; i++) {
        const uint8_t *from = p->source[i] >= 0
                                  ? source->train_images + image * (size_t)p->source[i]
                                  : o->ood_from->train_images + image * (size_t)(-1 - p->source[i]);
        memcpy(d->train_images + image * (size_t)i, from, image);
    }
    memcpy(d->train_labels, p->given, sizeof(int32_t) * (size_t)p->n);
    memcpy(d->true_labels, p->truth, sizeof(int32_t) * (size_t)p->n);
    copy_test(source, p, d);
    MDM_TRY(copy_ids(source, o, p, d));
    mdm_dataset_statistics(d);
    counts->samples = p->n;
    counts->ood = p->ood;
    return describe(source, o, p, d, counts);
}

static mdm_status make(const mdm_dataset *source, const mdm_noise_options *o, plan *p, int64_t *inside,
                       int64_t *outside, mdm_dataset **noisy, mdm_noise_counts *counts) {
    int64_t inside_count, outside_count;
    MDM_TRY(map_classes(source, o, p));
    MDM_TRY(sort_out(source, o, p, inside, &inside_count, outside, &outside_count));
    p->n = o->samples;
    if (p->n == 0) { /* all that the share of OOD samples allows */
        p->n = o->ood_from || o->hold_out_count == 0 ? inside_count
                                                     : (int64_t)((double)inside_count / (1.0 - o->ood));
        while (!o->ood_from && p->n > 0 && o->hold_out_count > 0 &&
               (llround(o->ood * (double)p->n) > outside_count ||
                p->n - llround(o->ood * (double)p->n) > inside_count))
            p->n--;
    }
    p->ood = llround(o->ood * (double)p->n);
    MDM_TRY(check_counts(o, p, inside_count, outside_count));
    MDM_TRY(MDM_ALLOCATE(p->source, p->n, "noise"));
    MDM_TRY(MDM_ALLOCATE(p->truth, p->n, "noise"));
    MDM_TRY(MDM_ALLOCATE(p->given, p->n, "noise"));
    choose_samples(source, o, p, inside, outside);
    MDM_TRY(bring_foreign(o, p));
    if (o->labels_from)
        MDM_TRY(read_labels(o->labels_from, p));
    else
        MDM_TRY(change_labels(source, o, p, counts));
    return assemble(source, o, p, noisy, counts);
}

static mdm_status check_options(const mdm_dataset *source, const mdm_noise_options *o) {
    double rates[3] = {o->symmetric, o->asymmetric, o->ood};
    for (int i = 0; i < 3; i++)
        if (!(rates[i] >= 0 && rates[i] < 1))
            return mdm_fail(MDM_USAGE, "a rate of %g: expected at least 0 and below 1", rates[i]);
    if (o->transition_matrix && o->asymmetric == 0)
        return mdm_fail(MDM_USAGE,
                        "--transition-matrix needs --asymmetric R, the share of samples that it moves");
    if (o->labels_from && (o->symmetric > 0 || o->asymmetric > 0))
        return mdm_fail(MDM_USAGE,
                        "--noise-file gives the labels, so --symmetric and --asymmetric cannot change them");
    if (o->samples < 0 || o->samples > (int64_t)UINT32_MAX)
        return mdm_fail(MDM_USAGE, "--samples must not be negative");
    int64_t ood = 0, first = source->train_count;
    for (int64_t i = 0; source->true_labels && i < source->train_count; i++) {
        if (source->true_labels[i] != source->train_labels[i] && i < first) first = i;
        ood += source->true_labels[i] < 0;
    }
    if (first < source->train_count) {
        if (o->hold_out_count > 0 || o->ood > 0)
            return mdm_fail(
                MDM_USAGE,
                "the input is noisy already (sample %lld): --hold-out and --ood would drop its labels; "
                "start from the clean file",
                (long long)first);
        mdm_warn("the input is noisy already: the noise begins from its true labels, and its %lld "
                 "out-of-distribution samples are left out",
                 (long long)ood);
    }
    const mdm_dataset *f = o->ood_from;
    if (f && (f->height != source->height || f->width != source->width || f->channels != source->channels))
        return mdm_fail(MDM_USAGE, "--ood-from: pictures of %dx%dx%d do not fit %dx%dx%d", f->height,
                        f->width, f->channels, source->height, source->width, source->channels);
    return MDM_OK;
}

mdm_status mdm_noise_make(const mdm_dataset *source, const mdm_noise_options *o, mdm_dataset **noisy,
                          mdm_noise_counts *counts) {
    plan *p = NULL;
    int64_t *inside = NULL, *outside = NULL;
    *noisy = NULL;
    memset(counts, 0, sizeof *counts);
    MDM_TRY(check_options(source, o));
    mdm_status status = MDM_ALLOCATE(p, 1, "noise");
    if (status == MDM_OK) status = MDM_ALLOCATE(inside, source->train_count, "noise");
    if (status == MDM_OK) status = MDM_ALLOCATE(outside, source->train_count, "noise");
    if (status == MDM_OK) status = make(source, o, p, inside, outside, noisy, counts);
    if (p) {
        free(p->source);
        free(p->truth);
        free(p->given);
    }
    free(p);
    free(inside);
    free(outside);
    if (status != MDM_OK) {
        mdm_dataset_destroy(*noisy);
        *noisy = NULL;
    }
    return status;
}
