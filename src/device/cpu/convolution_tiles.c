/* Convolutions in bfloat16 by tile products as operations of the CPU device: weights laid into tiles once a
 * step, scratch memory shared with oneDNN's primitives. Where rows of pixels fill oneDNN's own tiles, its
 * kernels are the faster ones for forward, and with stride 1 for the gradient of the input
 * (docs/benchmarks.md); the gradient of the weights always comes from here. */
#include "device.h"
#include "tiles.h"
#include <stdlib.h>

enum { WIDE = 16 }; /* pixels of a result's row from which on oneDNN's kernels are faster */

typedef struct tile_convolution {
    mdm_own_convolution own;
    mdm_tile_shape tiles;
    mdm_convolution *direct; /* oneDNN's, or NULL */
} tile_convolution;

int mdm_tile_convolution_fits(const mdm_device *device, const mdm_convolution_shape *shape) {
    const mdm_cpu_device *cpu = (const mdm_cpu_device *)device;
    return cpu->has_amx && shape->precision == MDM_BF16 && !shape->from_image &&
           device->info.channel_block == 16 && (shape->kernel == 1 || shape->kernel == 3) &&
           (shape->stride == 1 || shape->stride == 2);
}

static void destroy(mdm_convolution *convolution) {
    tile_convolution *c = (tile_convolution *)convolution;
    if (!c) return;
    mdm_cpu_convolution_destroy(c->direct);
    free(c->own.forward_weights);
    free(c->own.backward_weights);
    free(c);
}

static mdm_status set_weights(mdm_convolution *convolution, const float *weights) {
    tile_convolution *c = (tile_convolution *)convolution;
    int out = c->own.shape.out_channels, in = c->own.shape.in_channels;
    if (c->direct) MDM_TRY(mdm_cpu_convolution_set_weights(c->direct, weights));
    if (c->own.forward_weights) mdm_tile_weights(&c->tiles, weights, out, in, 0, c->own.forward_weights);
    if (c->own.backward_weights) mdm_tile_weights(&c->tiles, weights, out, in, 1, c->own.backward_weights);
    return MDM_OK;
}

static mdm_status forward(mdm_convolution *convolution, const void *input, void *output) {
    tile_convolution *c = (tile_convolution *)convolution;
    if (!c->own.forward_weights) return mdm_cpu_convolution_forward(c->direct, input, output);
    mdm_tile_forward(&c->tiles, input, c->own.forward_weights, c->own.shape.add_to_output, output,
                     c->own.device->scratch);
    return MDM_OK;
}

static mdm_status backward_data(mdm_convolution *convolution, const void *output_gradient,
                                void *input_gradient) {
    tile_convolution *c = (tile_convolution *)convolution;
    if (!c->own.backward_weights)
        return mdm_cpu_convolution_backward_data(c->direct, output_gradient, input_gradient);
    mdm_tile_backward_data(&c->tiles, output_gradient, c->own.backward_weights, input_gradient,
                           c->own.device->scratch);
    return MDM_OK;
}

static mdm_status backward_weights(mdm_convolution *convolution, const void *input,
                                   const void *output_gradient, float *gradient, int accumulate) {
    tile_convolution *c = (tile_convolution *)convolution;
    mdm_tile_backward_weights(&c->tiles, input, output_gradient, c->own.shape.out_channels,
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
    tile_convolution *c = (tile_convolution *)own;
    const mdm_convolution_shape *s = &c->own.shape;
    mdm_device *device = &c->own.device->common;
    c->tiles = (mdm_tile_shape){.batch = s->batch,
                                .in = mdm_padded_channels(device, s->in_channels),
                                .out = mdm_padded_channels(device, s->out_channels),
                                .height = s->height,
                                .width = s->width,
                                .out_height = (s->height - 1) / s->stride + 1,
                                .out_width = (s->width - 1) / s->stride + 1,
                                .kernel = s->kernel,
                                .stride = s->stride,
                                .threads = device->info.threads};
    int wide = c->tiles.out_width >= WIDE || s->kernel == 1,
        direct_data = c->tiles.out_width >= WIDE && s->stride == 1 && !s->forward_only;
    int64_t count = mdm_tile_weight_count(&c->tiles);
    MDM_TRY(mdm_cpu_reserve_scratch(c->own.device, mdm_tile_scratch_bytes(&c->tiles)));
    if (s->gradient_only) return MDM_OK;
    if (wide) MDM_TRY(mdm_direct_convolution_create(device, s, direct_data, 0, &c->direct));
    if (!wide) MDM_TRY(MDM_ALLOCATE(c->own.forward_weights, count, "weights in tiles"));
    if (direct_data || s->forward_only) return MDM_OK;
    return MDM_ALLOCATE(c->own.backward_weights, count, "weights in tiles");
}

mdm_status mdm_tile_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                       mdm_convolution **out) {
    return mdm_own_convolution_create(device, shape, &operations, sizeof(tile_convolution), prepare, out);
}
