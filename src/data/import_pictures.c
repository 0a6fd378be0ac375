/* Picture files to a data set: the source is listed first, so that order and numbers are known; then several
 * threads read, decode and scale, each into its own place. */
#include "import_internal.h"
#include "listing.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/data/picture.h"
#include "workers.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_LIMIT = 256 << 20, TEXT_LIMIT = 1 << 30 };

typedef struct import {
    const mdm_import_options *options;
    mdm_listing listing;
    int height, width;
    uint8_t *pixels;       /* [N,H,W,3], NULL when kept encoded */
    unsigned char **files; /* [N] when kept encoded */
    int64_t *bytes;        /* [N] of the files */
    char **errors;         /* [N] why a picture is left out, or NULL */
    double begun;
    pthread_mutex_t lock; /* of what follows */
    int colour;
    uint64_t sum[3], square[3]; /* of training pictures */
} import;

static int is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* metadata.csv or metadata.jsonl in `folder`: its path, or NULL. */
static const char *find_metadata(const char *folder, char *path, size_t size) {
    static const char *const names[] = {"metadata.csv", "metadata.jsonl"};
    for (int i = 0; i < 2; i++)
        if (snprintf(path, size, "%s/%s", folder, names[i]) < (int)size && is_file(path)) return path;
    return NULL;
}

mdm_import_format mdm_pictures_recognise(const char *source) {
    char path[4096], inside[4096];
    if (is_file(source)) return MDM_IMPORT_LIST;
    if (find_metadata(source, path, sizeof path)) return MDM_IMPORT_METADATA;
    if (snprintf(inside, sizeof inside, "%s/train", source) < (int)sizeof inside && is_folder(inside) &&
        find_metadata(inside, path, sizeof path))
        return MDM_IMPORT_METADATA;
    return MDM_IMPORT_FOLDER;
}

static mdm_status add_split(import *m, const char *folder, const char *prefix, int test) {
    char path[4096], *text;
    size_t bytes;
    if (!is_folder(folder)) return mdm_fail(MDM_INPUT, "%s: no such folder", folder);
    if (m->options->format == MDM_IMPORT_FOLDER)
        return mdm_listing_add_folder(&m->listing, folder, prefix, test);
    if (!find_metadata(folder, path, sizeof path))
        return mdm_fail(MDM_INPUT, "%s holds neither metadata.csv nor metadata.jsonl", folder);
    MDM_TRY(mdm_read_file(path, TEXT_LIMIT, &text, &bytes));
    int64_t first = m->listing.count;
    const char *dot = strrchr(path, '.');
    mdm_status status =
        strcmp(dot, ".csv") == 0
            ? mdm_listing_add_csv(&m->listing, text, bytes, path, folder, "", m->options->label_column, test)
            : mdm_listing_add_jsonl(&m->listing, text, bytes, path, folder, "", m->options->label_column,
                                    test);
    free(text);
    /* the ids start at the source, the paths at the split's folder */
    for (int64_t i = first; status == MDM_OK && *prefix && i < m->listing.count; i++) {
        char id[8192];
        snprintf(id, sizeof id, "%s%s", prefix, m->listing.entries[i].id);
        free(m->listing.entries[i].id);
        if (!(m->listing.entries[i].id = strdup(id)))
            status = mdm_fail(MDM_RESOURCE, "out of memory for file names");
    }
    return status;
}

/* A folder with its test set: train/ and test/, val/, valid/ or validation/ inside, or the folder itself. */
static mdm_status list_folder(import *m, const char *source) {
    static const char *const tests[] = {"test", "val", "valid", "validation"};
    char folder[4096], prefix[32];
    int named = snprintf(folder, sizeof folder, "%s/train", source) < (int)sizeof folder && is_folder(folder);
    MDM_TRY(add_split(m, named ? folder : source, named ? "train/" : "", 0));
    if (m->options->test) return add_split(m, m->options->test, "", 1);
    for (int i = 0; named && i < 4; i++) {
        if (snprintf(folder, sizeof folder, "%s/%s", source, tests[i]) >= (int)sizeof folder ||
            !is_folder(folder))
            continue;
        snprintf(prefix, sizeof prefix, "%s/", tests[i]);
        return add_split(m, folder, prefix, 1);
    }
    return MDM_OK;
}

static mdm_status list_file(import *m, const char *path, int test) {
    char folder[4096], *text;
    size_t bytes;
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder] = 0;
    MDM_TRY(mdm_read_file(path, TEXT_LIMIT, &text, &bytes));
    mdm_status status = mdm_listing_add_list(&m->listing, text, bytes, path,
                                             m->options->root ? m->options->root : folder, test);
    free(text);
    return status;
}

static mdm_status list_source(import *m, const char *source) {
    if (m->options->format == MDM_IMPORT_LIST) {
        MDM_TRY(list_file(m, source, 0));
        if (m->options->test_list) MDM_TRY(list_file(m, m->options->test_list, 1));
    } else {
        MDM_TRY(list_folder(m, source));
    }
    return mdm_listing_number(&m->listing, m->options->classes, m->options->format == MDM_IMPORT_FOLDER);
}

static mdm_status read_picture(const mdm_listed *e, char **file, size_t *bytes, mdm_picture *picture) {
    MDM_TRY(mdm_read_file(e->path, FILE_LIMIT, file, bytes));
    mdm_status status =
        mdm_picture_decode((const uint8_t *)*file, *bytes, e->path, MDM_PICTURE_MOST_PIXELS, picture);
    if (status != MDM_OK) {
        free(*file);
        *file = NULL;
    }
    return status;
}

/* The first readable training picture's size is everybody's, unless --size says another. */
static mdm_status find_size(import *m) {
    m->height = m->width = m->options->size;
    for (int64_t i = 0; !m->height && i < m->listing.count; i++) {
        char *file;
        size_t bytes;
        mdm_picture picture;
        mdm_status status = read_picture(&m->listing.entries[i], &file, &bytes, &picture);
        if (status != MDM_OK && !(status == MDM_INPUT && m->options->skip_errors)) return status;
        if (status != MDM_OK) continue;
        m->height = picture.height;
        m->width = picture.width;
        mdm_picture_free(&picture);
        free(file);
    }
    return m->height ? MDM_OK
                     : mdm_fail(MDM_INPUT, "none of the pictures can be read: %s", mdm_last_message());
}

/* Exact sums over a training picture; they do not depend on the order of threads. */
static void add_sums(import *m, const uint8_t *pixels, int colour, int test) {
    uint64_t sum[3] = {0}, square[3] = {0};
    for (int64_t i = 0; !test && i < (int64_t)m->height * m->width; i++)
        for (int c = 0; c < 3; c++) {
            uint64_t v = pixels[3 * i + c];
            sum[c] += v;
            square[c] += v * v;
        }
    pthread_mutex_lock(&m->lock);
    m->colour |= colour;
    for (int c = 0; c < 3; c++) {
        m->sum[c] += sum[c];
        m->square[c] += square[c];
    }
    pthread_mutex_unlock(&m->lock);
}

static mdm_status import_one(import *m, int64_t i) {
    const mdm_listed *e = &m->listing.entries[i];
    mdm_picture picture;
    char *file = NULL;
    size_t bytes;
    uint8_t *fitted = NULL, *to = m->pixels ? m->pixels + i * 3 * m->height * m->width : NULL;
    MDM_TRY(read_picture(e, &file, &bytes, &picture));
    mdm_status status = MDM_OK;
    if (!m->options->size && (picture.height != m->height || picture.width != m->width))
        status = mdm_fail(MDM_INPUT, "%s has %dx%d pixels, others %dx%d; --size N scales them all", e->path,
                          picture.height, picture.width, m->height, m->width);
    if (status == MDM_OK && !to) {
        status = MDM_ALLOCATE(fitted, (int64_t)m->height * m->width * 3, "a picture");
        to = fitted;
    }
    if (status == MDM_OK) status = mdm_picture_fit(&picture, m->height, m->width, 3, to);
    if (status == MDM_OK) add_sums(m, to, picture.channels == 3, e->test);
    mdm_picture_free(&picture);
    free(fitted);
    if (status == MDM_OK && m->files) {
        m->files[i] = (unsigned char *)file;
        m->bytes[i] = (int64_t)bytes;
        return MDM_OK;
    }
    free(file);
    return status;
}

static mdm_status work(void *context, int64_t i) {
    import *m = context;
    mdm_status status = import_one(m, i);
    if (status != MDM_INPUT || !m->options->skip_errors) return status;
    m->errors[i] = strdup(mdm_last_message());
    return m->errors[i] ? MDM_OK : mdm_fail(MDM_RESOURCE, "out of memory for messages");
}

static void show_progress(void *context, int64_t begun) {
    const import *m = context;
    char text[128];
    double seconds = mdm_seconds() - m->begun;
    if (begun % 64 != 0 && begun != m->listing.count) return;
    snprintf(text, sizeof text, "import  %lld of %lld pictures, %.0f a second", (long long)begun,
             (long long)m->listing.count, seconds > 0 ? (double)begun / seconds : 0.0);
    mdm_progress(text, begun == m->listing.count);
}

/* Moves what belongs to one split to the data set; pixels lose two channels when every picture is grey. */
static mdm_status take_split(import *m, int test, int64_t count, mdm_dataset *d) {
    int64_t area = (int64_t)m->height * m->width, at = 0, total = 0;
    uint8_t **images = test ? &d->test_images : &d->train_images,
            **encoded = test ? &d->test_encoded : &d->train_encoded;
    int64_t **offsets = test ? &d->test_offsets : &d->train_offsets;
    int32_t **labels = test ? &d->test_labels : &d->train_labels;
    for (int64_t i = 0; m->files && i < m->listing.count; i++)
        if (!m->errors[i] && m->listing.entries[i].test == test) total += m->bytes[i];
    MDM_TRY(MDM_ALLOCATE(*labels, count, "labels"));
    if (!test) MDM_TRY(MDM_ALLOCATE(d->ids, count, "ids"));
    if (m->files) {
        MDM_TRY(MDM_ALLOCATE(*encoded, total, "encoded pictures"));
        MDM_TRY(MDM_ALLOCATE(*offsets, count + 1, "offsets"));
    } else {
        MDM_TRY(MDM_ALLOCATE(*images, count * area * d->channels, "pictures"));
    }
    for (int64_t i = 0; i < m->listing.count; i++) {
        mdm_listed *e = &m->listing.entries[i];
        if (m->errors[i] || e->test != test) continue;
        (*labels)[at] = e->label;
        if (!test) {
            d->ids[at] = e->id;
            e->id = NULL;
        }
        if (m->files) {
            memcpy(*encoded + (*offsets)[at], m->files[i], (size_t)m->bytes[i]);
            (*offsets)[at + 1] = (*offsets)[at] + m->bytes[i];
            free(m->files[i]);
            m->files[i] = NULL;
        } else {
            const uint8_t *from = m->pixels + i * 3 * area;
            uint8_t *to = *images + at * area * d->channels;
            for (int64_t p = 0; p < area; p++)
                memcpy(to + p * d->channels, from + 3 * p, (size_t)d->channels);
        }
        at++;
    }
    return MDM_OK;
}

static mdm_status assemble(import *m, mdm_dataset *d) {
    int64_t counts[2] = {0, 0}, skipped = 0;
    char text[64];
    for (int64_t i = 0; i < m->listing.count; i++) {
        if (m->errors[i])
            mdm_warn("left out: %s", m->errors[i]);
        else
            counts[m->listing.entries[i].test]++;
        skipped += m->errors[i] != NULL;
    }
    if (counts[0] == 0) return mdm_fail(MDM_INPUT, "none of the training pictures can be read");
    d->train_count = counts[0];
    d->test_count = counts[1];
    d->height = m->height;
    d->width = m->width;
    d->channels = m->colour ? 3 : 1;
    d->classes = m->listing.class_count;
    mdm_dataset_finish_statistics(d, m->sum, m->square);
    MDM_TRY(take_split(m, 0, counts[0], d));
    if (counts[1] > 0) MDM_TRY(take_split(m, 1, counts[1], d));
    if (m->listing.classes)
        MDM_TRY(
            mdm_dataset_set_class_names(d, (const char *const *)m->listing.classes, m->listing.class_count));
    if (skipped == 0) return MDM_OK;
    mdm_warn("%lld of %lld pictures were left out", (long long)skipped, (long long)m->listing.count);
    snprintf(text, sizeof text, "%lld", (long long)skipped);
    return mdm_dataset_add_note(d, "left_out", text);
}

static mdm_status import_all(import *m, const char *source, mdm_dataset **dataset) {
    int threads = m->options->threads > 0 ? m->options->threads : mdm_workers_count(1);
    MDM_TRY(list_source(m, source));
    MDM_TRY(find_size(m));
    int64_t count = m->listing.count;
    MDM_TRY(MDM_ALLOCATE(m->errors, count, "messages"));
    if (m->options->keep_encoded) {
        MDM_TRY(MDM_ALLOCATE(m->files, count, "pictures"));
        MDM_TRY(MDM_ALLOCATE(m->bytes, count, "pictures"));
    } else if (mdm_allocate((void **)&m->pixels, count, 3LL * m->height * m->width, "pictures") != MDM_OK) {
        return mdm_fail(MDM_RESOURCE,
                        "no memory for %lld pictures of %dx%d; --keep-encoded or a smaller --size needs less",
                        (long long)count, m->height, m->width);
    }
    m->begun = mdm_seconds();
    MDM_TRY(mdm_workers_run(threads, count, work, show_progress, m));
    MDM_TRY(MDM_ALLOCATE(*dataset, 1, "a data set"));
    return assemble(m, *dataset);
}

mdm_status mdm_import_pictures(const char *source, const mdm_import_options *options, mdm_dataset **dataset) {
import m = {.options = options };
    *dataset = NULL;
    pthread_mutex_init(&m.lock, NULL);
    mdm_status status = import_all(&m, source, dataset);
    pthread_mutex_destroy(&m.lock);
    for (int64_t i = 0; i < m.listing.count; i++) {
        if (m.files) free(m.files[i]);
        if (m.errors) free(m.errors[i]);
    }
    free(m.files);
    free(m.bytes);
    free(m.errors);
    free(m.pixels);
    mdm_listing_free(&m.listing);
    if (status != MDM_OK) {
        mdm_dataset_destroy(*dataset);
        *dataset = NULL;
    }
    return status;
}
