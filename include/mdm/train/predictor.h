/* A finished run's networks, ready to be asked about pictures: what eval, predict and export work with.
 *
 * Everything comes from the run folder: the weights files tell architecture, normalisation and class names,
 * ood-reference.safetensors what training pictures looked like. The data set of the run is not needed.
 */
#ifndef MDM_TRAIN_PREDICTOR_H
#define MDM_TRAIN_PREDICTOR_H

#include "mdm/comm/comm.h"
#include "mdm/train/weights.h"
#include <stdint.h>

typedef struct mdm_predictor mdm_predictor;

/* Collective. Opens the run folder `run` (model-a.safetensors and, with two networks, model-b.safetensors;
 * averaged weights where the run averaged them). MDM_INPUT when it holds no finished run. */
MDM_MUST_CHECK mdm_status mdm_predictor_open(mdm_comm *comm, const char *run, mdm_predictor **predictor);
void mdm_predictor_close(mdm_predictor *predictor);

/* The predictor's own; network 0 is a, 1 is b. */
const mdm_model_notes *mdm_predictor_notes(const mdm_predictor *predictor);
int mdm_predictor_networks(const mdm_predictor *predictor);
const mdm_network *mdm_predictor_network(const mdm_predictor *predictor, int number);
/* Whether the run left the embeddings that out-of-distribution scores need. */
int mdm_predictor_knows_ood(const mdm_predictor *predictor);

/* Not collective. pictures[i] is a uint8 [H,W,C] picture of the network's size. probability [count,classes]
 * is the mean of the networks' softmax. ood [count] (may be NULL) is the mean over the networks of the mean
 * cosine distance to the divide.k nearest training pictures, divided by that network's threshold: above 1
 * means out of distribution. NaN where the run left no reference. MDM_NUMERIC where a picture gets no finite
 * probabilities. */
MDM_MUST_CHECK mdm_status mdm_predictor_run(mdm_predictor *predictor, const uint8_t *const *pictures,
                                            int64_t count, float *probability, float *ood);

#endif
