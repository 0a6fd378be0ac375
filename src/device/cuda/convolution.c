/* Convolutions of the CUDA device: filters cast from the float weights, channels padded to whole blocks, the
 * passes planned and run by gpu.h. */
#include "device.h"
#include <stdlib.h>

typedef struct cuda_convolution {
    mdm_convolution common;
    mdm_cuda_device *device;
    mdm_convolution_shape shape;
    int in, out, out_height, out_width; /* channels padded */
    void *filter;                       /* [out][k][k][in]; somebody else's where shape.is_served */
    size_t gradient_place; /* bytes of the device's room for gradients of filters before its own */
    mdm_gpu_plan *forward, *backward_data, *backward_filter;
} cuda_convolution;

static size_t element_of(const cuda_convolution *c) {
    return c->shape.precision == MDM_BF16 ? 2 : 4;
}

static size_t filter_bytes(const cuda_convolution *c) {
    return (size_t)c->out * (size_t)c->in * (size_t)c->shape.kernel * (size_t)c->shape.kernel * element_of(c);
}

static int backward_batch_of(const cuda_convolution *c) {
    return c->shape.backward_batch > 0 ? c->shape.backward_batch : c->shape.batch;
}

static mdm_status plan(cuda_convolution *c, mdm_gpu_pass pass, mdm_gpu_plan **out) {
    const mdm_convolution_shape *s = &c->shape;
    int batch = pass == MDM_GPU_FORWARD ? s->batch : backward_batch_of(c);
    mdm_gpu_convolution g = {pass,      s->precision, batch,     c->in,    c->out,
                             s->height, s->width,     s->kernel, s->stride};
    return mdm_gpu_plan_convolution(c->device->gpu, &g, out);
}

static mdm_status plan_all(cuda_convolution *c) {
    const mdm_convolution_shape *s = &c->shape;
    mdm_cuda_device *d = c->device;
    size_t rows = (size_t)s->batch * (size_t)s->height * (size_t)s->width;
    size_t out_rows = (size_t)s->batch * (size_t)c->out_height * (size_t)c->out_width;
    if (s->from_image)
        MDM_TRY(mdm_cuda_reserve(d, &d->image, &d->image_bytes, rows * (size_t)c->in * element_of(c),
                                 "the image batch"));
    if (s->add_to_output)
        MDM_TRY(mdm_cuda_reserve(d, &d->sum, &d->sum_bytes, out_rows * (size_t)c->out * element_of(c),
                                 "a residual sum"));
    if (!s->is_served) MDM_TRY(mdm_gpu_allocate(d->gpu, filter_bytes(c), "convolution weights", &c->filter));
    MDM_TRY(plan(c, MDM_GPU_FORWARD, &c->forward));
    if (s->forward_only) return MDM_OK;
    if (!s->is_served)
        MDM_TRY(mdm_cuda_reserve(d, &d->filter_gradient, &d->filter_gradient_bytes, filter_bytes(c),
                                 "a weight gradient"));
    if (!s->from_image) MDM_TRY(plan(c, MDM_GPU_BACKWARD_DATA, &c->backward_data));
    return plan(c, MDM_GPU_BACKWARD_FILTER, &c->backward_filter);
}

mdm_status mdm_cuda_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                       mdm_convolution **out) {
    cuda_convolution *c;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "a convolution"));
    c->common.operations = device->operations;
    c->device = mdm_cuda(device);
    c->shape = *shape;
    c->in = mdm_padded_channels(device, shape->in_channels);
    c->out = mdm_padded_channels(device, shape->out_channels);
    c->out_height = (shape->height + 2 * (shape->kernel / 2) - shape->kernel) / shape->stride + 1;
    c->out_width = (shape->width + 2 * (shape->kernel / 2) - shape->kernel) / shape->stride + 1;
    mdm_status status = plan_all(c);
    if (status != MDM_OK) {
        mdm_cuda_convolution_destroy(&c->common);
        return status;
    }
    *out = &c->common;
    return MDM_OK;
}

void mdm_cuda_convolution_destroy(mdm_convolution *convolution) {
    cuda_convolution *c = (cuda_convolution *)convolution;
    if (!c->shape.is_served) mdm_gpu_free(c->device->gpu, c->filter);
    free(c);
}

static mdm_weights_arguments weights_arguments(const cuda_convolution *c, const float *plain, void *filter) {
    mdm_weights_arguments a = {.plain = (float *)(uintptr_t)plain, /* written only for a gradient */
                               .filter = filter,
                               .in = (uint32_t)c->shape.in_channels,
                               .out = (uint32_t)c->shape.out_channels,
                               .padded_in = (uint32_t)c->in,
                               .taps = (uint32_t)(c->shape.kernel * c->shape.kernel),
                               .bf16 = c->shape.precision == MDM_BF16};
    return a;
}

mdm_status mdm_cuda_convolution_set_weights(mdm_convolution *convolution, const float *weights) {
    cuda_convolution *c = (cuda_convolution *)convolution;
    mdm_weights_arguments a = weights_arguments(c, weights, c->filter);
    a.count = (uint32_t)c->out * a.taps * (a.padded_in / MDM_GPU_LANES);
    mdm_gpu_to_filter(c->device->gpu, mdm_blocks_for(a.count), 1, &a);
    return MDM_OK;
}

mdm_status mdm_cuda_convolution_take(mdm_convolution *convolution, const mdm_filter_shape *shape,
                                     mdm_precision precision, void *filter, size_t gradient_place) {
    cuda_convolution *c = (cuda_convolution *)convolution;
    const mdm_convolution_shape *s = &c->shape;
    if (!s->is_served || s->precision != precision || s->in_channels != shape->in_channels ||
        s->out_channels != shape->out_channels || s->kernel != shape->kernel)
        return mdm_fail(MDM_LOST, "internal: a convolution of %d to %d channels is given another's filter",
                        s->in_channels, s->out_channels);
    c->filter = filter;
    c->gradient_place = gradient_place;
    return MDM_OK;
}

/* Float images [N,C,H,W] as a tensor; it lies in the device's buffer until the next convolution of images. */
static void *lay_image(cuda_convolution *c, int batch, const void *input) {
    mdm_cuda_device *d = c->device;
    if (!c->shape.from_image) return (void *)(uintptr_t)input;
    uint32_t pixels = (uint32_t)c->shape.height * (uint32_t)c->shape.width,
             groups = (uint32_t)c->in / MDM_GPU_LANES;
    mdm_layout_arguments a = {.from = input,
                              .to = d->image,
                              .count = (uint32_t)batch * pixels * groups,
                              .groups = groups,
                              .pixels = pixels,
                              .channels = (uint32_t)c->shape.in_channels,
                              .bf16 = c->shape.precision == MDM_BF16};
    mdm_gpu_to_tensor(d->gpu, mdm_blocks_for(a.count), 1, &a);
    return d->image;
}

mdm_status mdm_cuda_convolution_forward(mdm_convolution *convolution, const void *input, void *output) {
    cuda_convolution *c = (cuda_convolution *)convolution;
    mdm_cuda_device *d = c->device;
    void *x = lay_image(c, c->shape.batch, input), *y = c->shape.add_to_output ? d->sum : output;
    MDM_TRY(mdm_gpu_convolve(d->gpu, c->forward, x, c->filter, y));
    if (!c->shape.add_to_output) return MDM_OK;
    mdm_add_arguments a = {.a = output, .b = d->sum, .y = output, .bf16 = c->shape.precision == MDM_BF16};
    a.count = (uint32_t)c->shape.batch * (uint32_t)c->out_height * (uint32_t)c->out_width *
              ((uint32_t)c->out / MDM_GPU_LANES);
    mdm_gpu_add(d->gpu, mdm_blocks_for(a.count), 1, &a);
    return MDM_OK;
}

mdm_status mdm_cuda_convolution_backward_data(mdm_convolution *convolution, const void *output_gradient,
                                              void *input_gradient) {
    cuda_convolution *c = (cuda_convolution *)convolution;
    return mdm_gpu_convolve(c->device->gpu, c->backward_data, input_gradient, c->filter,
                            (void *)(uintptr_t)output_gradient);
}

mdm_status mdm_cuda_convolution_backward_weights(mdm_convolution *convolution, const void *input,
                                                 const void *output_gradient, float *gradient,
                                                 int accumulate) {
    cuda_convolution *c = (cuda_convolution *)convolution;
    mdm_cuda_device *d = c->device;
    void *filter_gradient = (char *)d->filter_gradient + c->gradient_place;
    MDM_TRY(mdm_gpu_convolve(d->gpu, c->backward_filter, lay_image(c, backward_batch_of(c), input),
                             filter_gradient, (void *)(uintptr_t)output_gradient));
    if (c->shape.is_served) return MDM_OK; /* until mdm_filters_take_gradient */
    mdm_weights_arguments a = weights_arguments(c, gradient, filter_gradient);
    a.accumulate = accumulate;
    a.count = a.out * a.in * a.taps;
    mdm_gpu_from_filter(d->gpu, mdm_blocks_for(a.count), 1, &a);
    return MDM_OK;
}
