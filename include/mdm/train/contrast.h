/* NT-Xent between two views of every sample of the global batch, whose rows are spread over the ranks (Chen
 * et al. 2020). */
#ifndef MDM_TRAIN_CONTRAST_H
#define MDM_TRAIN_CONTRAST_H

#include "mdm/comm/comm.h"
#include "mdm/device/losses.h"
#include "mdm/model/executor.h"

typedef struct mdm_contrast mdm_contrast;

/* Memory for global batches of at most `pairs` samples, whose projections the executor makes. Where it is
 * reproducible every rank computes all anchors in one thread, so that the gradient is the same to the bit for
 * every number of ranks. */
MDM_MUST_CHECK mdm_status mdm_contrast_create(mdm_comm *comm, const mdm_executor *executor, int64_t pairs,
                                              int width, float temperature, mdm_contrast **contrast);
void mdm_contrast_destroy(mdm_contrast *contrast);
int64_t mdm_contrast_pairs(const mdm_contrast *contrast);
/* To be called before the first step of so many samples. */
MDM_MUST_CHECK mdm_status mdm_contrast_plan(mdm_contrast *contrast, int64_t pairs);

/* Collective. All in the device's memory. projection [2 * count, width]: this rank's first views, then its
 * second views, of its slice of `pairs` samples. Writes their gradient of lambda * loss. */
MDM_MUST_CHECK mdm_status mdm_contrast_loss(mdm_contrast *contrast, int64_t pairs, float lambda,
                                            const float *projection, float *gradient);
/* For mdm_sum_rows behind it: *loss becomes this rank's part of the mean (sum over ranks gives the loss). */
mdm_row_sum mdm_contrast_sum(const mdm_contrast *contrast, int64_t pairs, double *loss);

#endif
