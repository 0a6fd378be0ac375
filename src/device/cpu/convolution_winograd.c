/* Convolutions in bfloat16 by Winograd's algorithm as operations of the CPU device: weights transformed once
 * a step, scratch memory shared with oneDNN's primitives. */
#include "device.h"
#include "winograd.h"
#include <stdlib.h>

typedef struct winograd_convolution {
    mdm_own_convolution own; /* backward weights only where a gradient is asked */
    mdm_winograd plan;
} winograd_convolution;

int mdm_winograd_convolution_fits(const mdm_device *device, const mdm_convolution_shape *shape) {
    const mdm_cpu_device *cpu = (const mdm_cpu_device *)device;
    return cpu->winograd && !cpu->has_amx && shape->precision == MDM_BF16 && !shape->from_image &&
           device->info.has_bf16 && device->info.channel_block == MDM_WINOGRAD_BLOCK &&
           mdm_winograd_fits(mdm_padded_channels(device, shape->in_channels),
                             mdm_padded_channels(device, shape->out_channels), shape->kernel, shape->stride);
}

static void destroy(mdm_convolution *convolution) {
    winograd_convolution *c = (winograd_convolution *)convolution;
    if (!c) return;
    free(c->own.forward_weights);
    free(c->own.backward_weights);
    free(c);
}

static mdm_status set_weights(mdm_convolution *convolution, const float *weights) {
    winograd_convolution *c = (winograd_convolution *)convolution;
    int out = c->own.shape.out_channels, in = c->own.shape.in_channels;
    mdm_winograd_set_weights(&c->plan, weights, out, in, 0, c->own.forward_weights);
    if (c->own.backward_weights)
        mdm_winograd_set_weights(&c->plan, weights, out, in, 1, c->own.backward_weights);
    return MDM_OK;
}

static mdm_status forward(mdm_convolution *convolution, const void *input, void *output) {
    winograd_convolution *c = (winograd_convolution *)convolution;
    mdm_winograd_convolve(&c->plan, input, c->own.forward_weights, 0, c->own.shape.add_to_output, output,
                          c->own.device->scratch);
    return MDM_OK;
}

static mdm_status backward_data(mdm_convolution *convolution, const void *output_gradient,
                                void *input_gradient) {
    winograd_convolution *c = (winograd_convolution *)convolution;
    mdm_winograd_convolve(&c->plan, output_gradient, c->own.backward_weights, 1, 0, input_gradient,
                          c->own.device->scratch);
    return MDM_OK;
}

static mdm_status backward_weights(mdm_convolution *convolution, const void *input,
                                   const void *output_gradient, float *gradient, int accumulate) {
    winograd_convolution *c = (winograd_convolution *)convolution;
    mdm_winograd_weight_gradient(&c->plan, input, output_gradient, c->own.shape.out_channels,
                                 c->own.shape.in_channels, accumulate, gradient, c->own.device->scratch);
    return MDM_OK;
}

static const mdm_device_operations operations = {
    .convolution_destroy = destroy,
    .convolution_set_weights = set_weights,
    .convolution_forward = forward,
    .convolution_backward_data = backward_data,
    .convolution_backward_weights = backward_weights,
};

static mdm_status prepare(mdm_own_convolution *own) {
    winograd_convolution *c = (winograd_convolution *)own;
    const mdm_convolution_shape *s = &c->own.shape;
    mdm_device *device = &c->own.device->common;
    mdm_winograd_plan(&c->plan, s->batch, mdm_padded_channels(device, s->in_channels),
                      mdm_padded_channels(device, s->out_channels), s->height, s->width,
                      device->info.threads);
    int64_t count = mdm_winograd_weight_count(&c->plan);
    MDM_TRY(mdm_cpu_reserve_scratch(c->own.device, mdm_winograd_scratch_bytes(&c->plan)));
    if (s->gradient_only) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(c->own.forward_weights, count, "transformed weights"));
    return s->forward_only ? MDM_OK : MDM_ALLOCATE(c->own.backward_weights, count, "transformed weights");
}

mdm_status mdm_winograd_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                           mdm_convolution **out) {
    return mdm_own_convolution_create(device, shape, &operations, sizeof(winograd_convolution), prepare, out);
}
