/* Views: augmented, normalised images of listed samples, as a pure function of (seed, stage, network, epoch,
 * sample, view). */
#ifndef MDM_TRAIN_VIEWS_H
#define MDM_TRAIN_VIEWS_H

#include "mdm/data/augment.h"
#include "mdm/data/store.h"
#include "mdm/device/device.h"

typedef struct mdm_views mdm_views;

/* Views for steps on `device` (borrowed). `threads` scratch buffers are made; `padding` is that of the random
 * crop. */
MDM_MUST_CHECK mdm_status mdm_views_create(mdm_device *device, mdm_store *store, uint64_t seed, int padding,
                                           int threads, mdm_views **views);
void mdm_views_destroy(mdm_views *views);
/* Room for steps of `count` listed samples, of which `made` views are made. Not inside a step. */
MDM_MUST_CHECK mdm_status mdm_views_reserve(mdm_views *views, int64_t count, int64_t made);

/* Copies all pictures of the store (fewer than 2^32 a split) into the CUDA device's memory, from where they
 * are taken from now on; or MDM_RESOURCE, and nothing has changed. Before the first mdm_views_reserve. */
MDM_MUST_CHECK mdm_status mdm_views_keep(mdm_views *views);
/* Forgets them: pictures are brought step by step. */
void mdm_views_give_up(mdm_views *views);

/* Loads the pictures of a step's samples; they stay until the next load. Announced while the step before it
 * computes, they are read (and, for a CUDA device, sent) by then. */
MDM_MUST_CHECK mdm_status mdm_views_load(mdm_views *views, mdm_split split, const int64_t *samples,
                                         int64_t count);
MDM_MUST_CHECK mdm_status mdm_views_announce(mdm_views *views, mdm_split split, const int64_t *samples,
                                             int64_t count);
/* Whether announcing does anything. */
int mdm_views_read_ahead(const mdm_views *views);

/* Number of one view: the stage, the network and which of the sample's views. */
static inline uint32_t mdm_view_number(int stage, int network, int view) {
    return ((uint32_t)stage << 16) | ((uint32_t)network << 8) | (uint32_t)view;
}

/* The same in two steps, for up to MDM_MOST_ASKED sets of views of a step: they are asked for, `numbers`
 * staying as they are until they have been made; then all are queued, which can be recorded: in a replay the
 * views are those asked for by then, as many of each, in the same places. A load forgets what was asked for
 * before. */
enum { MDM_MOST_ASKED = 3 };
MDM_MUST_CHECK mdm_status mdm_views_ask(mdm_views *views, mdm_view kind, int64_t first, int64_t count,
                                        uint32_t epoch, uint32_t number, const uint32_t *numbers,
                                        float *images);
MDM_MUST_CHECK mdm_status mdm_views_make_asked(mdm_views *views);

/* Makes `count` images [channels,H,W], float, normalised, of the loaded pictures first .. first + count - 1
 * of the list, in the device's memory. `numbers` [count] are view numbers, or NULL: then all have `number`.
 */
MDM_MUST_CHECK mdm_status mdm_views_make(mdm_views *views, mdm_view kind, int64_t first, int64_t count,
                                         uint32_t epoch, uint32_t number, const uint32_t *numbers,
                                         float *images);

#endif
