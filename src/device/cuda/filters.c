/* Filters of a network on a CUDA device: all weights, cut into pieces for the blocks of one launch. Gradients
 * of filters lie as filters do, in room that all networks of the device share: it is read before the next way
 * back. */
#include "mdm/device/filters.h"
#include "device.h"
#include <stdlib.h>

enum { ALIGNMENT = 128 /* elements, at which a filter begins */ };

struct mdm_filters {
    mdm_cuda_device *device;
    mdm_filter_shape *shapes;
    uint64_t *places;                  /* of the filters in memory, in elements */
    uint32_t *first_piece, *end_piece; /* of each tensor */
    int count;
    mdm_precision precision;
    void *memory;             /* on the device, as is the next */
    mdm_filter_piece *pieces; /* [piece_count] */
    uint32_t piece_count;
};

/* Pieces are counted first, then written by the same functions. */
typedef struct cutting {
    mdm_filter_piece *pieces; /* NULL while counting */
    uint32_t count;
} cutting;

static void add(cutting *c, mdm_filter_piece piece) {
    if (c->pieces) c->pieces[c->count] = piece;
    c->count++;
}

static uint32_t lower(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

/* Weights of no convolution. */
static void cut_others(cutting *c, int64_t first, int64_t end) {
    for (; first < end; first += MDM_FILTER_PIECE) {
        int64_t left = end - first;
        add(c, (mdm_filter_piece){.first = (uint32_t)first,
                                  .count = left < MDM_FILTER_PIECE ? (uint32_t)left : MDM_FILTER_PIECE});
    }
}

/* Whole outputs, as many as a piece holds, or inputs of one output. */
static void cut_convolution(cutting *c, const mdm_filter_shape *s, uint32_t padded, uint64_t place) {
    const uint32_t in = (uint32_t)s->in_channels, out = (uint32_t)s->out_channels,
                   taps = (uint32_t)(s->kernel * s->kernel), row = in * taps, first = (uint32_t)s->offset;
    const int is_whole = row <= MDM_FILTER_PIECE;
    const uint32_t outputs = is_whole ? MDM_FILTER_PIECE / row : 1,
                   inputs = is_whole ? in : MDM_FILTER_PIECE / taps / MDM_GPU_LANES * MDM_GPU_LANES;
    for (uint32_t o = 0; o < out; o += outputs)
        for (uint32_t i = 0; i < in; i += inputs) {
            uint32_t some = lower(inputs, in - i);
            add(c, (mdm_filter_piece){.filter = place + (uint64_t)o * taps * padded + i,
                                      .first = first + o * row + i * taps,
                                      .count = lower(outputs, out - o) * some * taps,
                                      .inputs = some,
                                      .taps = taps,
                                      .padded = padded});
        }
}

static void cut(mdm_filters *f, int64_t weights, cutting *c) {
    int64_t done = 0;
    for (int i = 0; i < f->count; i++) {
        const mdm_filter_shape *s = &f->shapes[i];
        cut_others(c, done, s->offset);
        f->first_piece[i] = c->count;
        cut_convolution(c, s, mdm_blocks_of_lanes(s->in_channels), f->places[i]);
        f->end_piece[i] = c->count;
        done = s->offset + (int64_t)s->in_channels * s->out_channels * s->kernel * s->kernel;
    }
    cut_others(c, done, weights);
}

static mdm_status send_pieces(mdm_filters *f, int64_t weights) {
    cutting c = {0};
    cut(f, weights, &c);
    size_t bytes = sizeof *f->pieces * c.count;
    mdm_gpu *gpu = f->device->gpu;
    MDM_TRY(mdm_gpu_allocate(gpu, bytes, "the optimizer's pieces", (void **)&f->pieces));
    MDM_TRY(MDM_ALLOCATE(c.pieces, c.count + 1, "the optimizer's pieces"));
    f->piece_count = c.count;
    c.count = 0;
    cut(f, weights, &c);
    mdm_status status = bytes > 0 ? mdm_gpu_upload(gpu, f->pieces, c.pieces, bytes) : MDM_OK;
    free(c.pieces);
    return status;
}

static mdm_status make_room(mdm_filters *f, const mdm_filter_shape *shapes, int64_t weights) {
    mdm_cuda_device *d = f->device;
    uint64_t elements = 0;
    MDM_TRY(MDM_ALLOCATE(f->shapes, f->count + 1, "filters"));
    MDM_TRY(MDM_ALLOCATE(f->places, f->count + 1, "filters"));
    MDM_TRY(MDM_ALLOCATE(f->first_piece, f->count + 1, "filters"));
    MDM_TRY(MDM_ALLOCATE(f->end_piece, f->count + 1, "filters"));
    for (int i = 0; i < f->count; i++) {
        const mdm_filter_shape *s = &shapes[i];
        uint64_t size = (uint64_t)mdm_blocks_of_lanes(s->in_channels) * mdm_blocks_of_lanes(s->out_channels) *
                        (uint64_t)(s->kernel * s->kernel);
        f->shapes[i] = *s;
        f->places[i] = elements;
        elements += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    size_t bytes = (size_t)elements * (f->precision == MDM_BF16 ? 2 : 4);
    MDM_TRY(mdm_gpu_allocate(d->gpu, bytes, "convolution weights", &f->memory));
    MDM_TRY(mdm_cuda_reserve(d, &d->filter_gradient, &d->filter_gradient_bytes, bytes, "weight gradients"));
    return send_pieces(f, weights);
}

mdm_status mdm_filters_create(mdm_device *device, const mdm_filter_shape *shapes, int count, int64_t weights,
                              mdm_precision precision, mdm_filters **out) {
    mdm_filters *f;
    *out = NULL;
    if (!device->info.is_cuda) return mdm_fail(MDM_USAGE, "%s keeps no filters", device->info.name);
    MDM_TRY(MDM_ALLOCATE(f, 1, "filters"));
    f->device = mdm_cuda(device);
    f->count = count;
    f->precision = precision;
    mdm_status status = make_room(f, shapes, weights);
    if (status != MDM_OK) {
        mdm_filters_destroy(f);
        return status;
    }
    *out = f;
    return MDM_OK;
}

void mdm_filters_destroy(mdm_filters *f) {
    if (!f) return;
    mdm_gpu_free(f->device->gpu, f->memory);
    mdm_gpu_free(f->device->gpu, f->pieces);
    free(f->shapes);
    free(f->places);
    free(f->first_piece);
    free(f->end_piece);
    free(f);
}

static void launch(mdm_filters *f, mdm_filter_arguments a) {
    a.pieces = f->pieces;
    a.filters = f->memory;
    a.bf16 = f->precision == MDM_BF16;
    mdm_gpu_step_filters(f->device->gpu, f->piece_count, 1, &a);
}

void mdm_filters_make(mdm_filters *f, const float *weights) {
    launch(f, (mdm_filter_arguments){.weights = (float *)(uintptr_t)weights}); /* only read */
}

void mdm_filters_step(mdm_filters *f, float *weights, const float *gradient, float *velocity,
                      const float *rate, float momentum, float weight_decay, const double *verdict) {
    launch(f, (mdm_filter_arguments){.weights = weights,
                                     .velocity = velocity,
                                     .gradient = gradient,
                                     .rate = rate,
                                     .verdict = verdict,
                                     .momentum = momentum,
                                     .weight_decay = weight_decay});
}

void mdm_filters_take_gradient(mdm_filters *f, int64_t first, int64_t end, float *gradient, int accumulate) {
    mdm_from_filters_arguments a = {.filters = f->device->filter_gradient,
                                    .gradient = gradient,
                                    .bf16 = f->precision == MDM_BF16,
                                    .accumulate = accumulate};
    int i = 0, next;
    while (i < f->count && f->shapes[i].offset < first) i++;
    for (next = i; next < f->count && f->shapes[next].offset < end;) next++;
    if (i == next) return;
    a.pieces = f->pieces + f->first_piece[i];
    mdm_gpu_from_filters(f->device->gpu, f->end_piece[next - 1] - f->first_piece[i], 1, &a);
}

mdm_status mdm_filters_serve(const mdm_filters *f, int64_t offset, mdm_convolution *convolution) {
    for (int i = 0; i < f->count; i++) {
        size_t place = (f->precision == MDM_BF16 ? 2 : 4) * (size_t)f->places[i];
        if (f->shapes[i].offset != offset) continue;
        return mdm_cuda_convolution_take(convolution, &f->shapes[i], f->precision, (char *)f->memory + place,
                                         place);
    }
    return mdm_fail(MDM_LOST, "internal: no filter was made of the weights at %lld", (long long)offset);
}
