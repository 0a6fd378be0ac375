/* From stored pictures to the rows of a step: augmentation by the sample's own random stream, then
 * normalisation. */
#include "views.h"
#include "mdm/base/random.h"
#include <omp.h>
#include <stdlib.h>

enum { STAGED = 256 }; /* images that are made in host memory before they are sent */

struct mdm_views {
    mdm_device *device;
    mdm_store *store;
    uint64_t seed;
    int padding, threads, height, width, channels;
    float normal[3][256]; /* (v / 255 - mean) / std */
    const uint8_t **pictures;
    int64_t *samples;
    int64_t capacity, count;
    uint8_t *scratch; /* [threads, 3, image bytes]: the view, and what augmentation needs */
    float *staging;   /* [STAGED, image]; NULL where the device computes in host memory */
};

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
    long long image = (long long)info->height * info->width * info->channels;
    mdm_status status = MDM_ALLOCATE(views->scratch, 3 * image * threads, "views");
    if (status == MDM_OK && mdm_device_get_info(device)->is_cuda)
        status = MDM_ALLOCATE(views->staging, STAGED * image, "views");
    if (status != MDM_OK) {
        mdm_views_destroy(views);
        return status;
    }
    *out = views;
    return MDM_OK;
}

void mdm_views_destroy(mdm_views *views) {
    if (!views) return;
    free(views->pictures);
    free(views->samples);
    free(views->scratch);
    free(views->staging);
    free(views);
}

mdm_status mdm_views_reserve(mdm_views *views, int64_t count) {
    if (count <= views->capacity) return MDM_OK;
    free(views->pictures);
    free(views->samples);
    views->pictures = NULL;
    views->samples = NULL;
    views->capacity = 0;
    MDM_TRY(MDM_ALLOCATE(views->pictures, count, "views"));
    MDM_TRY(MDM_ALLOCATE(views->samples, count, "views"));
    views->capacity = count;
    return MDM_OK;
}

mdm_status mdm_views_load(mdm_views *views, mdm_split split, const int64_t *samples, int64_t count) {
    if (count > views->capacity)
        return mdm_fail(MDM_LOST, "no room was made for %lld samples", (long long)count);
    for (int64_t i = 0; i < count; i++) views->samples[i] = samples[i];
    views->count = count;
    return mdm_store_fetch(views->store, split, samples, count, views->pictures);
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
    size_t size = (size_t)views->height * (size_t)views->width * (size_t)views->channels;
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

mdm_status mdm_views_make(mdm_views *views, mdm_view kind, int64_t first, int64_t count, uint32_t epoch,
                          uint32_t number, const uint32_t *numbers, float *images) {
    size_t size = (size_t)views->height * (size_t)views->width * (size_t)views->channels;
    if (!views->staging) {
        make(views, kind, first, count, epoch, number, numbers, images);
        return MDM_OK;
    }
    for (int64_t done = 0; done < count; done += STAGED) {
        int64_t some = count - done < STAGED ? count - done : STAGED;
        make(views, kind, first + done, some, epoch, number, numbers ? numbers + done : NULL, views->staging);
        MDM_TRY(mdm_device_upload(views->device, images + size * (size_t)done, views->staging,
                                  sizeof(float) * size * (size_t)some));
    }
    return MDM_OK;
}
