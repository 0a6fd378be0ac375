/* Picture files to a data set: the source is listed first, so that order and numbers are known; then several
 * threads read, decode and scale a block, each picture into its own place, and the block goes to the working
 * file. Memory is that of one block, whatever the number of pictures. */
#include "import_internal.h"
#include "listing.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/data/picture.h"
#include "spill.h"
#include "workers.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { FILE_LIMIT = 256 << 20, BLOCK_BYTES = 64 << 20, BLOCK_COUNT = 16384 };

typedef struct import {
    const mdm_import_options *options;
    mdm_listing listing;
    int height, width;
    int64_t *bytes; /* [N] in the working file, 0 when left out; before that, of the source's file */
    int64_t *times; /* [N] when the source's file was changed */
    char **errors;  /* [N] why a picture is left out, or NULL */
    mdm_spill *spill;
    int64_t first, count;  /* the block at work */
    uint8_t *pixels;       /* its pictures [count,H,W,3], NULL when kept encoded */
    unsigned char **files; /* its files [count] when kept encoded */
    double begun;
    int64_t resumed; /* pictures that an earlier start had done */
    int colour;
    uint64_t sum[3], square[3]; /* of training pictures */
    pthread_mutex_t lock;       /* of what follows */
    int block_colour;
    uint64_t block_sum[3], block_square[3];
} import;

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
    m->block_colour |= colour;
    for (int c = 0; c < 3; c++) {
        m->block_sum[c] += sum[c];
        m->block_square[c] += square[c];
    }
    pthread_mutex_unlock(&m->lock);
}

static mdm_status import_one(import *m, int64_t i) {
    const mdm_listed *e = &m->listing.entries[i];
    mdm_picture picture;
    char *file = NULL;
    size_t bytes;
    uint8_t *fitted = NULL, *to = m->pixels ? m->pixels + (i - m->first) * 3 * m->height * m->width : NULL;
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
    if (status == MDM_OK) m->bytes[i] = m->files ? (int64_t)bytes : (int64_t)m->height * m->width * 3;
    if (status == MDM_OK && m->files) {
        m->files[i - m->first] = (unsigned char *)file;
        return MDM_OK;
    }
    free(file);
    return status;
}

/* The error of a picture that cannot be read, with what to do about it. */
static mdm_status suggest_skipping(void) {
    char message[1024];
    snprintf(message, sizeof message, "%s", mdm_last_message());
    return mdm_fail(MDM_INPUT, "%s (--on-error skip leaves out such pictures)", message);
}

static mdm_status work(void *context, int64_t offset) {
    import *m = context;
    int64_t i = m->first + offset;
    mdm_status status = import_one(m, i);
    if (status == MDM_OK) return MDM_OK;
    m->bytes[i] = 0;
    if (status == MDM_INPUT && !m->options->skip_errors) return suggest_skipping();
    if (status != MDM_INPUT) return status;
    m->errors[i] = strdup(mdm_last_message());
    return m->errors[i] ? MDM_OK : mdm_fail(MDM_RESOURCE, "out of memory for messages");
}

static void show_progress(void *context, int64_t begun) {
    const import *m = context;
    char text[160];
    int64_t done = m->first + begun;
    double seconds = mdm_seconds() - m->begun;
    if (begun % 64 != 0 && done != m->listing.count) return;
    double rate = seconds > 0 ? (double)(done - m->resumed) / seconds : 0.0;
    snprintf(text, sizeof text, "import  %lld of %lld pictures, %.0f a second, %.0f s left", (long long)done,
             (long long)m->listing.count, rate, rate > 0 ? (double)(m->listing.count - done) / rate : 0.0);
    mdm_progress(text, done == m->listing.count);
}

/* How many pictures from `first` on make a block; a function of the source alone. */
static int64_t block_length(const import *m, int64_t first) {
    int64_t count = 0, bytes = 0;
    while (first + count < m->listing.count && count < BLOCK_COUNT) {
        bytes += m->options->keep_encoded ? m->bytes[first + count] : (int64_t)m->height * m->width * 3;
        if (count > 0 && bytes > BLOCK_BYTES) break;
        count++;
    }
    return count;
}

/* Which files a block is made of, and in which state they are. */
static mdm_status hash_block(const import *m, int64_t first, int64_t count, uint64_t *hash) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) return mdm_fail(MDM_RESOURCE, "out of memory for the import's journal");
    XXH3_64bits_reset(state);
    for (int64_t i = first; i < first + count; i++) {
        const mdm_listed *e = &m->listing.entries[i];
        int64_t numbers[3] = {m->bytes[i], m->times[i], e->test};
        XXH3_64bits_update(state, e->path, strlen(e->path) + 1);
        XXH3_64bits_update(state, numbers, sizeof numbers);
    }
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return MDM_OK;
}

/* Takes over a block that an earlier start had done. */
static mdm_status take_block(import *m, const mdm_spill_block *b) {
    const char *text = b->texts;
    for (int64_t i = 0; i < b->count; i++) {
        m->bytes[b->first + i] = b->bytes[i];
        if (b->bytes[i] > 0) continue;
        size_t length = strnlen(text, (size_t)(b->texts + b->text_bytes - text));
        if (!(m->errors[b->first + i] = strndup(text, length)))
            return mdm_fail(MDM_RESOURCE, "out of memory for messages");
        text += length < (size_t)(b->texts + b->text_bytes - text) ? length + 1 : length;
    }
    m->colour |= (int)b->colour;
    for (int c = 0; c < 3; c++) {
        m->sum[c] += b->sum[c];
        m->square[c] += b->square[c];
    }
    mdm_spill_accept(m->spill);
    m->first += b->count;
    return MDM_OK;
}

static mdm_status resume(import *m) {
    mdm_spill_block b;
    for (;;) {
        int found;
        uint64_t hash;
        MDM_TRY(mdm_spill_next(m->spill, &b, &found));
        if (!found || b.first != m->first || b.count != block_length(m, m->first)) break;
        MDM_TRY(hash_block(m, b.first, b.count, &hash));
        if (hash != b.source || (b.text_bytes > 0 && !m->options->skip_errors)) break;
        MDM_TRY(take_block(m, &b));
    }
    m->resumed = m->first;
    if (m->resumed > 0)
        mdm_info("import: going on behind %lld pictures of an earlier start", (long long)m->resumed);
    return MDM_OK;
}

/* Moves the block's pictures together, those left out excepted; the block's bytes in all, and its messages.
 */
static mdm_status pack_block(import *m, uint8_t **packed, int64_t *total, mdm_text *texts) {
    int64_t at = 0;
    *total = 0;
    for (int64_t i = m->first; i < m->first + m->count; i++) {
        *total += m->bytes[i];
        if (m->errors[i]) mdm_text_add_bytes(texts, m->errors[i], strlen(m->errors[i]) + 1);
    }
    if (texts->failed) return mdm_fail(MDM_RESOURCE, "out of memory for messages");
    *packed = m->pixels;
    if (m->files) MDM_TRY(MDM_ALLOCATE(*packed, *total + 1, "encoded pictures"));
    for (int64_t i = 0; i < m->count; i++) {
        int64_t bytes = m->bytes[m->first + i];
        const uint8_t *from = m->files ? m->files[i] : m->pixels + i * 3 * m->height * m->width;
        if (bytes > 0 && from != *packed + at) memmove(*packed + at, from, (size_t)bytes);
        at += bytes;
    }
    return MDM_OK;
}

static mdm_status keep_block(import *m, uint64_t source) {
    uint8_t *packed = NULL;
    int64_t total;
    mdm_text texts = {0};
    mdm_status status = pack_block(m, &packed, &total, &texts);
    mdm_spill_block b = {.first = m->first,
                         .count = m->count,
                         .source = source,
                         .colour = m->block_colour,
                         .text_bytes = (int64_t)texts.length,
                         .bytes = m->bytes + m->first,
                         .texts = texts.data};
    m->colour |= m->block_colour;
    for (int c = 0; c < 3; c++) {
        b.sum[c] = m->block_sum[c];
        b.square[c] = m->block_square[c];
        m->sum[c] += m->block_sum[c];
        m->square[c] += m->block_square[c];
        m->block_sum[c] = m->block_square[c] = 0;
    }
    m->block_colour = 0;
    if (status == MDM_OK) status = mdm_spill_append(m->spill, &b, packed, total);
    if (m->files) free(packed);
    free(texts.data);
    return status;
}

static mdm_status import_block(import *m, int threads) {
    uint64_t source;
    MDM_TRY(hash_block(m, m->first, m->count, &source));
    if (m->options->keep_encoded)
        MDM_TRY(MDM_ALLOCATE(m->files, m->count, "pictures"));
    else if (mdm_allocate((void **)&m->pixels, m->count, 3LL * m->height * m->width, "pictures") != MDM_OK)
        return mdm_fail(MDM_RESOURCE,
                        "no memory for %lld pictures of %dx%d; --keep-encoded or a smaller --size needs less",
                        (long long)m->count, m->height, m->width);
    mdm_status status = mdm_workers_run(threads, m->count, work, show_progress, m);
    if (status == MDM_OK) status = keep_block(m, source);
    for (int64_t i = 0; m->files && i < m->count; i++) free(m->files[i]);
    free(m->files);
    free(m->pixels);
    m->files = NULL;
    m->pixels = NULL;
    m->first += m->count;
    return status;
}

/* Labels, names and places of one split. */
static mdm_status take_split(import *m, int test, int64_t count, mdm_dataset *d) {
    int64_t at = 0;
    int64_t **offsets = test ? &d->test_offsets : &d->train_offsets;
    int32_t **labels = test ? &d->test_labels : &d->train_labels;
    MDM_TRY(MDM_ALLOCATE(*labels, count, "labels"));
    if (!test) MDM_TRY(MDM_ALLOCATE(d->ids, count, "ids"));
    if (m->options->keep_encoded) MDM_TRY(MDM_ALLOCATE(*offsets, count + 1, "offsets"));
    for (int64_t i = 0; i < m->listing.count; i++) {
        mdm_listed *e = &m->listing.entries[i];
        if (m->errors[i] || e->test != test) continue;
        (*labels)[at] = e->label;
        if (!test) {
            d->ids[at] = e->id;
            e->id = NULL;
        }
        if (*offsets) (*offsets)[at + 1] = (*offsets)[at] + m->bytes[i];
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
        if (!m->listing.entries[i].test) d->spill_test += m->bytes[i]; /* training pictures come first */
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

/* Sizes and times of the source's files; one that is missing is found when its turn comes. */
static mdm_status look_at_files(import *m) {
    struct stat info;
    int64_t count = m->listing.count;
    MDM_TRY(MDM_ALLOCATE(m->errors, count, "messages"));
    MDM_TRY(MDM_ALLOCATE(m->bytes, count, "sizes of files"));
    MDM_TRY(MDM_ALLOCATE(m->times, count, "times of files"));
    for (int64_t i = 0; i < count; i++) {
        if (stat(m->listing.entries[i].path, &info) != 0) continue;
        m->bytes[i] = (int64_t)info.st_size;
        m->times[i] = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    }
    return MDM_OK;
}

static mdm_status import_all(import *m, const char *source, mdm_dataset **dataset) {
    int threads = m->options->threads > 0 ? m->options->threads : mdm_workers_count(1);
    MDM_TRY(mdm_listing_collect(&m->listing, source, m->options));
    MDM_TRY(find_size(m));
    MDM_TRY(look_at_files(m));
    int32_t key[4] = {m->height, m->width, m->options->size, m->options->keep_encoded};
    MDM_TRY(mdm_spill_open(m->options->work, XXH3_64bits(key, sizeof key), &m->spill));
    MDM_TRY(resume(m));
    m->begun = mdm_seconds();
    while (m->first < m->listing.count) {
        m->count = block_length(m, m->first);
        MDM_TRY(import_block(m, threads));
    }
    MDM_TRY(MDM_ALLOCATE(*dataset, 1, "a data set"));
    MDM_TRY(assemble(m, *dataset));
    (*dataset)->spill = m->spill;
    m->spill = NULL;
    return MDM_OK;
}

mdm_status mdm_import_pictures(const char *source, const mdm_import_options *options, mdm_dataset **dataset) {
import m = {.options = options };
    *dataset = NULL;
    pthread_mutex_init(&m.lock, NULL);
    mdm_status status = import_all(&m, source, dataset);
    pthread_mutex_destroy(&m.lock);
    for (int64_t i = 0; m.errors && i < m.listing.count; i++) free(m.errors[i]);
    free(m.bytes);
    free(m.times);
    free(m.errors);
    mdm_spill_close(m.spill);
    mdm_listing_free(&m.listing);
    if (status != MDM_OK) {
        mdm_dataset_destroy(*dataset);
        *dataset = NULL;
    }
    return status;
}

void mdm_import_finish(mdm_dataset *dataset) {
    if (dataset->spill) mdm_spill_remove(dataset->spill);
}
