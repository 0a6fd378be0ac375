/* Pictures of a step in a device's memory, brought there by a thread while the step before computes. */
#ifndef MDM_TRAIN_STAGING_H
#define MDM_TRAIN_STAGING_H

#include "mdm/data/store.h"
#include "mdm/device/views.h"

typedef struct mdm_staging mdm_staging;

/* From `store` to `device` (CUDA); both are borrowed, and from here on only this may fetch from the store
 * while an announcement stands. Starts the thread. */
MDM_MUST_CHECK mdm_status mdm_staging_create(mdm_device *device, mdm_store *store, mdm_staging **staging);
void mdm_staging_destroy(mdm_staging *staging);
/* Room for steps of `count` pictures; not inside a step. */
MDM_MUST_CHECK mdm_status mdm_staging_reserve(mdm_staging *staging, int64_t count);
/* Lets the thread bring these. */
MDM_MUST_CHECK mdm_status mdm_staging_announce(mdm_staging *staging, mdm_split split, const int64_t *index,
                                               int64_t count);
/* Where the pictures index[0..count) lie one behind the other for all that is queued from now on, until the
 * next call: from picture `first` of *memory on, which is the same between two calls of mdm_staging_reserve.
 * Those not announced are brought now, and what was announced is dropped. */
MDM_MUST_CHECK mdm_status mdm_staging_take(mdm_staging *staging, mdm_split split, const int64_t *index,
                                           int64_t count, const uint8_t **memory, int64_t *first);
/* Takes that an announcement had prepared, for tests. */
int64_t mdm_staging_hits(const mdm_staging *staging);

#endif
