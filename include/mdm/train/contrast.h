/* NT-Xent between two views of every sample of the global batch, whose rows are spread over the ranks (Chen
 * et al. 2020). */
#ifndef MDM_TRAIN_CONTRAST_H
#define MDM_TRAIN_CONTRAST_H

#include "mdm/base/status.h"
#include "mdm/comm/comm.h"

typedef struct mdm_contrast mdm_contrast;

/* Memory for global batches of at most `pairs` samples. */
MDM_MUST_CHECK mdm_status mdm_contrast_create(mdm_comm *comm, int64_t pairs, int width,
                                              mdm_contrast **contrast);
void mdm_contrast_destroy(mdm_contrast *contrast);
int64_t mdm_contrast_pairs(const mdm_contrast *contrast);

/* Collective. projection [2 * count, width]: this rank's first views, then its second views, of samples
 * [first, first + count) of `pairs`. Writes their gradient of lambda * loss; *loss is this rank's part of the
 * mean (sum over ranks gives the loss). With `reproducible` every rank computes all anchors in one thread, so
 * that the gradient is the same to the bit for every number of ranks. */
MDM_MUST_CHECK mdm_status mdm_contrast_loss(mdm_contrast *contrast, int64_t pairs, int64_t first,
                                            int64_t count, int reproducible, float temperature, float lambda,
                                            const float *projection, float *gradient, double *loss);

#endif
