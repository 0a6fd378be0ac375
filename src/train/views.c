/* From stored pictures to the rows of a step: augmentation by the sample's own random stream, then
 * normalisation. On a CUDA device both are done there, on pictures that lie in its memory for good or are
 * brought step by step. */
#include "views.h"
#include "mdm/base/random.h"
#include "mdm/base/watch.h"
#include "mdm/device/views.h"
#include "staging.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { KEEP_BYTES = 16 << 20 /* of pictures that are copied to the device at once */ };

/* A set of views, as they were asked for. */
typedef struct asked_views {
    mdm_view kind;
    int64_t first, count, row; /* row: of the maker */
    uint32_t epoch, number;
    const uint32_t *numbers;
    float *images;
} asked_views;

struct mdm_views {
    mdm_device *device;
    mdm_store *store;
    uint64_t seed;
    int padding, threads, height, width, channels;
    int64_t *samples;
    int64_t capacity, count;
    float normal[3][256]; /* (v / 255 - mean) / std */
    /* on the CPU */
    const uint8_t **pictures;
    uint8_t *scratch; /* [threads, 3, image bytes]: the view, and what augmentation needs */
    /* on a CUDA device */
    mdm_view_maker *maker;
    mdm_staging *staging;
    uint8_t *kept[2]; /* [count, H, W, C] of each split, or NULL: brought step by step */
    const uint8_t *loaded;
    int64_t first_loaded; /* where pictures that were brought begin there */
    mdm_view_row *rows;   /* [capacity], on the host */
    /* asked for */
    asked_views asked[MDM_MOST_ASKED];
    int asked_count;
};

static size_t image_size(const mdm_views *views) {
    return (size_t)views->height * (size_t)views->width * (size_t)views->channels;
}

static mdm_status create_maker(mdm_views *views) {
    mdm_view_policy policy;
    mdm_view_spec spec = {.height = views->height,
                          .width = views->width,
                          .channels = views->channels,
                          .padding = views->padding,
                          .seed = views->seed,
                          .policy = &policy};
    memcpy(spec.normal, views->normal, sizeof spec.normal);
    mdm_augment_prepare_policy(views->height, views->width, &policy);
    MDM_TRY(mdm_view_maker_create(views->device, &spec, &views->maker));
    return mdm_staging_create(views->device, views->store, &views->staging);
}

mdm_status mdm_views_create(mdm_device *device, mdm_store *store, uint64_t seed, int padding, int threads,
                            mdm_views **out) {
    const mdm_store_info *info = mdm_store_get_info(store);
    mdm_views *views;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(views, 1, "views"));
    views->device = device;
    views->store = store;
    views->seed = seed;
    views->padding = padding;
    views->threads = threads;
    views->height = info->height;
    views->width = info->width;
    views->channels = info->channels;
    for (int c = 0; c < info->channels; c++)
        for (int v = 0; v < 256; v++)
            views->normal[c][v] = ((float)v / 255.0f - info->mean[c]) / info->std[c];
    mdm_status status = mdm_device_get_info(device)->is_cuda
                            ? create_maker(views)
                            : MDM_ALLOCATE(views->scratch, 3 * (int64_t)image_size(views) * threads, "views");
    if (status != MDM_OK) {
        mdm_views_destroy(views);
        return status;
    }
    *out = views;
    return MDM_OK;
}

void mdm_views_destroy(mdm_views *views) {
    if (!views) return;
    mdm_staging_destroy(views->staging);
    mdm_view_maker_destroy(views->maker);
    mdm_views_give_up(views);
    free(views->pictures);
    free(views->samples);
    free(views->scratch);
    free(views->rows);
    free(views);
}

/* Whether pictures have to be brought to the device step by step. */
static int are_brought(const mdm_views *views) {
    return views->maker && !views->kept[MDM_TRAIN];
}

mdm_status mdm_views_reserve(mdm_views *views, int64_t count, int64_t made) {
    if (views->maker) MDM_TRY(mdm_view_maker_reserve(views->maker, made));
    if (are_brought(views)) MDM_TRY(mdm_staging_reserve(views->staging, count));
    if (count <= views->capacity) return MDM_OK;
    free(views->pictures);
    free(views->samples);
    free(views->rows);
    views->pictures = NULL;
    views->samples = NULL;
    views->rows = NULL;
    views->capacity = 0;
    MDM_TRY(MDM_ALLOCATE(views->samples, count, "views"));
    if (views->maker)
        MDM_TRY(MDM_ALLOCATE(views->rows, count, "views"));
    else
        MDM_TRY(MDM_ALLOCATE(views->pictures, count, "views"));
    views->capacity = count;
    return MDM_OK;
}

/* ---- pictures on the device for good ---- */

/* Sends pictures from `first` on, which lie in one piece or in several. */
static mdm_status send_pictures(mdm_views *views, mdm_split split, int64_t first, int64_t count,
                                const uint8_t **pictures) {
    size_t size = image_size(views);
    for (int64_t i = 0, run; i < count; i += run) {
        for (run = 1; i + run < count && pictures[i + run] == pictures[i] + (size_t)run * size;) run++;
        MDM_TRY(mdm_device_upload(views->device, views->kept[split] + (size_t)(first + i) * size, pictures[i],
                                  (size_t)run * size));
    }
    return MDM_OK;
}

/* `some` at a time, the next ones read meanwhile; `index` [total], `pictures` [some]. */
static mdm_status send_split(mdm_views *views, mdm_split split, int64_t total, int64_t some, int64_t *index,
                             const uint8_t **pictures) {
    for (int64_t i = 0; i < total; i++) index[i] = i;
    for (int64_t first = 0; first < total; first += some) {
        int64_t count = total - first < some ? total - first : some, rest = total - first - count;
        mdm_watch_progress();
        MDM_TRY(mdm_store_fetch(views->store, split, index + first, count, pictures));
        MDM_TRY(mdm_store_prefetch(views->store, split, index + first + count, rest < some ? rest : some));
        MDM_TRY(send_pictures(views, split, first, count, pictures));
    }
    return MDM_OK;
}

static mdm_status keep_split(mdm_views *views, mdm_split split, int64_t total) {
    int64_t some = KEEP_BYTES / (int64_t)image_size(views) + 1, *index;
    const uint8_t **pictures;
    if (total == 0) return MDM_OK;
    MDM_TRY(mdm_device_allocate(views->device, image_size(views) * (size_t)total, "the data set's pictures",
                                (void **)&views->kept[split]));
    MDM_TRY(MDM_ALLOCATE(index, total, "views"));
    mdm_status status = MDM_ALLOCATE(pictures, some, "views");
    if (status == MDM_OK) status = send_split(views, split, total, some, index, pictures);
    free(index);
    free(pictures);
    return status;
}

mdm_status mdm_views_keep(mdm_views *views) {
    const mdm_store_info *info = mdm_store_get_info(views->store);
    mdm_status status = keep_split(views, MDM_TRAIN, info->train_count);
    if (status == MDM_OK) status = keep_split(views, MDM_TEST, info->test_count);
    if (status != MDM_OK) mdm_views_give_up(views);
    return status;
}

void mdm_views_give_up(mdm_views *views) {
    for (int split = 0; split < 2; split++) {
        if (views->kept[split]) mdm_device_free(views->device, views->kept[split]);
        views->kept[split] = NULL;
    }
}

/* ---- a step ---- */

int mdm_views_read_ahead(const mdm_views *views) {
    return views->maker ? are_brought(views) : !mdm_store_get_info(views->store)->resident;
}

mdm_status mdm_views_announce(mdm_views *views, mdm_split split, const int64_t *samples, int64_t count) {
    if (are_brought(views)) return mdm_staging_announce(views->staging, split, samples, count);
    return views->maker ? MDM_OK : mdm_store_prefetch(views->store, split, samples, count);
}

mdm_status mdm_views_load(mdm_views *views, mdm_split split, const int64_t *samples, int64_t count) {
    if (count > views->capacity)
        return mdm_fail(MDM_LOST, "no room was made for %lld samples", (long long)count);
    for (int64_t i = 0; i < count; i++) views->samples[i] = samples[i];
    views->count = count;
    views->asked_count = 0;
    if (!views->maker) return mdm_store_fetch(views->store, split, samples, count, views->pictures);
    views->loaded = views->kept[split];
    if (are_brought(views))
        MDM_TRY(
            mdm_staging_take(views->staging, split, samples, count, &views->loaded, &views->first_loaded));
    return mdm_view_maker_begin(views->maker);
}

/* [H,W,C] bytes to [C,H,W] floats. */
static void normalise(const mdm_views *views, const uint8_t *picture, float *image) {
    int pixels = views->height * views->width, channels = views->channels;
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < pixels; p++)
            image[(size_t)c * (size_t)pixels + (size_t)p] = views->normal[c][picture[p * channels + c]];
}

/* Images of the loaded pictures from `first` on, in host memory. */
static void make(mdm_views *views, mdm_view kind, int64_t first, int64_t count, uint32_t epoch,
                 uint32_t number, const uint32_t *numbers, float *images) {
    size_t size = image_size(views);
#pragma omp parallel for schedule(static) num_threads(views->threads)
    for (int64_t i = 0; i < count; i++) {
        uint8_t *mine = views->scratch + 3 * size * (size_t)omp_get_thread_num();
        const uint8_t *picture = views->pictures[first + i];
        if (kind != MDM_VIEW_NONE) {
            mdm_random random =
                mdm_random_stream(views->seed, MDM_RANDOM_AUGMENT, epoch, (uint64_t)views->samples[first + i],
                                  numbers ? numbers[i] : number);
            mdm_augment_view(kind, &random, picture, views->height, views->width, views->channels,
                             views->padding, mine, mine + size);
            picture = mine;
        }
        normalise(views, picture, images + size * (size_t)i);
    }
}

/* Tells the maker, whose row *row will be the first of them. */
static mdm_status add_rows(mdm_views *views, mdm_view kind, int64_t first, int64_t count, uint32_t epoch,
                           uint32_t number, const uint32_t *numbers, int64_t *row) {
    int brought = are_brought(views);
    for (int64_t i = 0; i < count; i++) {
        uint64_t sample = (uint64_t)views->samples[first + i];
        views->rows[i] = (mdm_view_row){
            .sample = sample,
            .picture = (uint32_t)(brought ? (uint64_t)(views->first_loaded + first + i) : sample),
            .epoch = epoch,
            .number = numbers ? numbers[i] : number,
            .view = kind};
    }
    return mdm_view_maker_add(views->maker, views->rows, count, row);
}

mdm_status mdm_views_make(mdm_views *views, mdm_view kind, int64_t first, int64_t count, uint32_t epoch,
                          uint32_t number, const uint32_t *numbers, float *images) {
    int64_t row;
    if (!views->maker) {
        make(views, kind, first, count, epoch, number, numbers, images);
        return MDM_OK;
    }
    MDM_TRY(add_rows(views, kind, first, count, epoch, number, numbers, &row));
    MDM_TRY(mdm_view_maker_send(views->maker, row, count));
    return mdm_view_maker_make(views->maker, views->loaded, row, count, images);
}

mdm_status mdm_views_ask(mdm_views *views, mdm_view kind, int64_t first, int64_t count, uint32_t epoch,
                         uint32_t number, const uint32_t *numbers, float *images) {
    int64_t row = 0;
    if (views->asked_count == MDM_MOST_ASKED)
        return mdm_fail(MDM_LOST, "internal: more than %d sets of views in a step", MDM_MOST_ASKED);
    if (views->maker) MDM_TRY(add_rows(views, kind, first, count, epoch, number, numbers, &row));
    views->asked[views->asked_count++] =
        (asked_views){kind, first, count, row, epoch, number, numbers, images};
    return MDM_OK;
}

mdm_status mdm_views_make_asked(mdm_views *views) {
    int64_t rows = 0;
    for (int i = 0; i < views->asked_count; i++) rows += views->asked[i].count;
    if (views->maker) MDM_TRY(mdm_view_maker_send(views->maker, 0, rows));
    for (int i = 0; i < views->asked_count; i++) {
        const asked_views *a = &views->asked[i];
        if (views->maker)
            MDM_TRY(mdm_view_maker_make(views->maker, views->loaded, a->row, a->count, a->images));
        else
            make(views, a->kind, a->first, a->count, a->epoch, a->number, a->numbers, a->images);
    }
    return MDM_OK;
}
