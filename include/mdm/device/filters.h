/* The weights of a network's convolutions as a CUDA device's convolutions read them: [out][taps][in],
 * channels in whole blocks, in the precision of the tensors. All convolutions of the network read the same
 * ones, and the optimizer writes them in the pass that changes the weights. On the CPU each convolution keeps
 * copies in the layouts that its algorithms want (mdm_convolution_set_weights), and the create function
 * returns MDM_USAGE.
 */
#ifndef MDM_DEVICE_FILTERS_H
#define MDM_DEVICE_FILTERS_H

#include "mdm/device/device.h"

typedef struct mdm_filters mdm_filters;

/* A convolution's weights [out,in,k,k], which begin at `offset` of all. */
typedef struct mdm_filter_shape {
    int64_t offset;
    int in_channels, out_channels, kernel;
} mdm_filter_shape;

/* Of `count` tensors in ascending order among `weights` weights, of which others may lie between them. */
MDM_MUST_CHECK mdm_status mdm_filters_create(mdm_device *device, const mdm_filter_shape *shapes, int count,
                                             int64_t weights, mdm_precision precision, mdm_filters **filters);
void mdm_filters_destroy(mdm_filters *filters);
/* All filters from the weights. */
void mdm_filters_make(mdm_filters *filters, const float *weights);
/* mdm_sgd_step of all weights, and with them the filters. */
void mdm_filters_step(mdm_filters *filters, float *weights, const float *gradient, float *velocity,
                      const float *rate, float momentum, float weight_decay, const double *verdict);
/* The gradient of the weights from `first` to before `end`, as far as they are convolutions', which have left
 * it in the layout of filters; written to all weights' `gradient` there or, with `accumulate`, added to it.
 * All convolutions of a device share that room: those of the next way back write it again. */
void mdm_filters_take_gradient(mdm_filters *filters, int64_t first, int64_t end, float *gradient,
                               int accumulate);
/* The convolution, created with `is_served`, reads the tensor at `offset` from here from now on. */
MDM_MUST_CHECK mdm_status mdm_filters_serve(const mdm_filters *filters, int64_t offset,
                                            mdm_convolution *convolution);

#endif
