/* From an architecture's name and width to the table of layers and tensors that the executor walks.
 *
 * Pre-activation residual blocks (He et al. 2016, arXiv 1603.05027) as in DivideMix and the reference:
 * BN-ReLU-conv repeated, a 1x1 convolution on the pre-activated input where the shape changes, no norm after
 * the last block. resnet18 and resnet50 are those of torchvision: the ImageNet stem, and blocks with the ReLU
 * behind the sum (He et al. 2015, arXiv 1512.03385; the stride in the 3x3 convolution of a bottleneck).
 */
#include "mdm/model/layout.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct architecture {
    const char *name;
    int blocks[4];
    int bottleneck;
    int post_activation; /* and the ImageNet stem */
} architecture;

static const architecture architectures[] = {
    {"preact_resnet10", {1, 1, 1, 1}, 0, 0},   {"preact_resnet18", {2, 2, 2, 2}, 0, 0},
    {"preact_resnet34", {3, 4, 6, 3}, 0, 0},   {"preact_resnet50", {3, 4, 6, 3}, 1, 0},
    {"preact_resnet101", {3, 4, 23, 3}, 1, 0}, {"resnet18", {2, 2, 2, 2}, 0, 1},
    {"resnet50", {3, 4, 6, 3}, 1, 1},
};

enum { BOTTLENECK_EXPANSION = 4 };

/* What is known while the table grows: the running shape and whether an allocation failed. */
typedef struct builder {
    mdm_layout *layout;
    int channels, height, width;
    int buffer;   /* holds the present activation */
    int residual; /* buffer still to be added to it by whoever reads it next, or -1 */
    int slot;     /* gradient slot of the present activation, counted while building forwards */
    int other;    /* post-activation: slot of the second part of that gradient */
    mdm_status status;
} builder;

static int grow(void **array, int *capacity, int count, size_t size) {
    if (count < *capacity) return 1;
    int wanted = *capacity ? *capacity * 2 : 64;
    void *larger = realloc(*array, (size_t)wanted * size);
    if (!larger) return 0;
    *array = larger;
    *capacity = wanted;
    return 1;
}

static int add_tensor(builder *b, mdm_tensor_role role, int rank, const int64_t *dims, const char *name) {
    mdm_layout *l = b->layout;
    if (!grow((void **)&l->tensors, &l->tensor_capacity, l->tensor_count, sizeof *l->tensors)) {
        b->status = mdm_fail(MDM_RESOURCE, "out of memory for the network's table");
        return 0;
    }
    mdm_tensor_info *t = &l->tensors[l->tensor_count];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rank = rank;
    t->count = 1;
    for (int i = 0; i < rank; i++) t->dims[i] = dims[i], t->count *= dims[i];
    t->role = role;
    return l->tensor_count++;
}

static int add_named(builder *b, mdm_tensor_role role, int rank, const int64_t *dims, const char *prefix,
                     const char *suffix) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", prefix, suffix);
    return add_tensor(b, role, rank, dims, name);
}

static int add_buffer(builder *b, int channels, int height, int width) {
    mdm_layout *l = b->layout;
    if (!grow((void **)&l->buffers, &l->buffer_capacity, l->buffer_count, sizeof *l->buffers)) {
        b->status = mdm_fail(MDM_RESOURCE, "out of memory for the network's table");
        return 0;
    }
    l->buffers[l->buffer_count] = (mdm_buffer_info){channels, height, width};
    return l->buffer_count++;
}

static mdm_layer *add_layer(builder *b, mdm_layer_kind kind) {
    static mdm_layer nowhere; /* written to after a failed allocation, never read */
    mdm_layout *l = b->layout;
    if (!grow((void **)&l->layers, &l->layer_capacity, l->layer_count, sizeof *l->layers)) {
        b->status = mdm_fail(MDM_RESOURCE, "out of memory for the network's table");
        return &nowhere;
    }
    mdm_layer *layer = &l->layers[l->layer_count++];
    *layer = (mdm_layer){.kind = kind,
                         .input = b->buffer,
                         .output = -1,
                         .residual = -1,
                         .gradient = -1,
                         .other = -1,
                         .input_gradient = -1,
                         .in_channels = b->channels,
                         .out_channels = b->channels,
                         .height = b->height,
                         .width = b->width,
                         .kernel = 1,
                         .stride = 1,
                         .weight = -1,
                         .running = -1};
    return layer;
}

/* Batch norm with ReLU; takes the pending residual with it. */
static void add_norm(builder *b, const char *prefix, int gradient, int other) {
    int64_t dims[1] = {b->channels};
    mdm_layer *layer = add_layer(b, MDM_LAYER_NORM_RELU);
    layer->residual = b->residual;
    layer->gradient = gradient;
    layer->other = other;
    layer->weight = add_named(b, MDM_TENSOR_ENCODER, 1, dims, prefix, "weight");
    add_named(b, MDM_TENSOR_ENCODER, 1, dims, prefix, "bias");
    layer->running = add_named(b, MDM_TENSOR_STATISTIC, 1, dims, prefix, "running_mean");
    add_named(b, MDM_TENSOR_STATISTIC, 1, dims, prefix, "running_var");
    layer->output = add_buffer(b, b->channels, b->height, b->width);
    b->buffer = layer->output;
    b->residual = -1;
}

/* A convolution from the present activation into `output` (-1: a new buffer). Does not move the builder on.
 */
static int add_convolution(builder *b, const char *name, int out_channels, int kernel, int stride, int output,
                           int gradient, int input_gradient) {
    int64_t dims[4] = {out_channels, b->channels, kernel, kernel};
    int pad = kernel / 2, height = (b->height + 2 * pad - kernel) / stride + 1,
        width = (b->width + 2 * pad - kernel) / stride + 1;
    mdm_layer *layer = add_layer(b, MDM_LAYER_CONVOLUTION);
    layer->out_channels = out_channels;
    layer->kernel = kernel;
    layer->stride = stride;
    layer->gradient = gradient;
    layer->input_gradient = input_gradient;
    layer->weight = add_named(b, MDM_TENSOR_ENCODER, 4, dims, name, "weight");
    layer->add_to_output = output >= 0;
    layer->output = output >= 0 ? output : add_buffer(b, out_channels, height, width);
    return layer->output;
}

static void move_to(builder *b, int buffer) {
    if (b->status != MDM_OK) return;
    mdm_buffer_info info = b->layout->buffers[buffer];
    b->buffer = buffer;
    b->channels = info.channels;
    b->height = info.height;
    b->width = info.width;
}

/* One block. Gradient slots: `out` holds the gradient of the block's output; the first norm leaves that of
 * its input in the slot it returns in b->slot. Walking backwards: last convolution, ..., first convolution,
 * shortcut, first norm. */
static void add_block(builder *b, const char *prefix, int channels, int stride, int bottleneck) {
    int stages = bottleneck ? 3 : 2, out_channels = channels * (bottleneck ? BOTTLENECK_EXPANSION : 1);
    int kernels[3] = {bottleneck ? 1 : 3, 3, 1},
        widths[3] = {channels, bottleneck ? channels : out_channels, out_channels};
    int strides[3] = {bottleneck ? 1 : stride, bottleneck ? stride : 1, 1};
    int has_shortcut = stride != 1 || b->channels != out_channels;
    char name[48];
    /* b->slot: slot of the gradient of the block's input, to be left there by the first norm. The three slots
     * rotate. */
    int first = b->slot, second = (first + 1) % 3, out = (first + 2) % 3;
    snprintf(name, sizeof name, "%s.bn1", prefix);
    add_norm(b, name, first, has_shortcut ? second : out);
    int activated = b->buffer, output = -1;
    if (has_shortcut) {
        snprintf(name, sizeof name, "%s.shortcut.0", prefix);
        output = add_convolution(b, name, out_channels, 1, stride, -1, out, second);
    }
    int chain[4] = {first, second, bottleneck ? first : out,
                    out}; /* slots of the gradients between the convolutions */
    for (int s = 0; s < stages; s++) {
        int last = s == stages - 1;
        if (s > 0) {
            snprintf(name, sizeof name, "%s.bn%d", prefix, s + 1);
            add_norm(b, name, chain[s], -1);
        }
        snprintf(name, sizeof name, "%s.conv%d", prefix, s + 1);
        int buffer = add_convolution(b, name, widths[s], kernels[s], strides[s], last ? output : -1,
                                     last ? out : chain[s + 1], chain[s]);
        move_to(b, buffer);
    }
    b->residual = has_shortcut ? -1 : activated;
    b->slot = out;
}

/* Batch norm without ReLU behind the present activation; its gradient is left in place. */
static void add_linear_norm(builder *b, const char *prefix, int gradient) {
    add_norm(b, prefix, gradient, -1);
    if (b->status == MDM_OK) b->layout->layers[b->layout->layer_count - 1].linear = 1;
}

/* One post-activation block: shortcut first, then the chain, then their sum with ReLU. The gradient of the
 * block's output lies in two slots, (slot, other), and the third is free; walking backwards the sum leaves it
 * whole in `sum` for the chain and, copied, in `copy` for the shortcut. The chain alternates between `sum`
 * and `free`, so that with two convolutions its end, the gradient of the block's input, comes to lie in
 * `sum`, with three in `free`; the shortcut's convolution writes to the one that is left. */
static void add_post_block(builder *b, const char *prefix, int channels, int stride, int bottleneck) {
    int stages = bottleneck ? 3 : 2, out_channels = channels * (bottleneck ? BOTTLENECK_EXPANSION : 1);
    int kernels[3] = {bottleneck ? 1 : 3, 3, 1}, widths[3] = {channels, channels, out_channels};
    int strides[3] = {bottleneck ? 1 : stride, bottleneck ? stride : 1, 1};
    int projects = stride != 1 || b->channels != out_channels, input = b->buffer, shortcut = input;
    int third =
        3 - b->slot - b->other; /* of the input's gradient: (slot, other) as the next layer wants it */
    int sum = bottleneck ? (projects ? b->other : third) : b->slot;
    int copy = projects ? third : b->other, unused = 3 - sum - copy;
    char name[48];
    if (projects) {
        snprintf(name, sizeof name, "%s.downsample.0", prefix);
        shortcut = add_convolution(b, name, out_channels, 1, stride, -1, copy, b->other);
        move_to(b, shortcut);
        snprintf(name, sizeof name, "%s.downsample.1", prefix);
        add_linear_norm(b, name, copy);
        shortcut = b->buffer;
        move_to(b, input);
    }
    for (int s = 0; s < stages; s++) {
        int from_end = stages - 1 - s, slot = from_end % 2 ? unused : sum;
        snprintf(name, sizeof name, "%s.conv%d", prefix, s + 1);
        move_to(b, add_convolution(b, name, widths[s], kernels[s], strides[s], -1, slot,
                                   slot == sum ? unused : sum));
        snprintf(name, sizeof name, "%s.bn%d", prefix, s + 1);
        if (from_end == 0)
            add_linear_norm(b, name, slot);
        else
            add_norm(b, name, slot, -1);
    }
    mdm_layer *add = add_layer(b, MDM_LAYER_ADD_RELU);
    add->residual = shortcut;
    add->gradient = sum;
    add->other = add->input_gradient = copy;
    add->output = add_buffer(b, b->channels, b->height, b->width);
    b->buffer = add->output;
    b->slot = sum;
    b->other = copy;
}

/* conv 7x7 of stride 2, norm, ReLU, max pooling. */
static void add_imagenet_stem(builder *b, int channels) {
    move_to(b, add_convolution(b, "encoder.conv1", channels, 7, 2, -1, 0, -1));
    add_norm(b, "encoder.bn1", 0, -1);
    mdm_layer *pool = add_layer(b, MDM_LAYER_MAX_POOL);
    pool->kernel = 3;
    pool->stride = 2;
    pool->gradient = b->slot = 1;
    pool->other = b->other = 2;
    pool->input_gradient = 0;
    pool->output = add_buffer(b, b->channels, (b->height + 1) / 2, (b->width + 1) / 2);
    move_to(b, pool->output);
}

static void add_heads(builder *b) {
    mdm_layout *l = b->layout;
    const mdm_network_spec *s = &l->spec;
    mdm_layer *pool = add_layer(b, MDM_LAYER_POOL);
    mdm_layer *last = l->layer_count > 1 ? &l->layers[l->layer_count - 2] : pool;
    if (last->kind == MDM_LAYER_ADD_RELU) last->other = -1; /* the pool's gradient is in one slot */
    pool->residual = b->residual;
    pool->gradient = b->slot;
    l->embedding = b->channels;
    int64_t fc[2] = {s->classes, b->channels}, head[2] = {s->projection, b->channels};
    l->classifier_weight = add_named(b, MDM_TENSOR_CLASSIFIER, 2, fc, "fc", "weight");
    add_named(b, MDM_TENSOR_CLASSIFIER, 1, fc, "fc", "bias");
    l->projection_weight = add_named(b, MDM_TENSOR_PROJECTION, 2, head, "projection_head", "weight");
    add_named(b, MDM_TENSOR_PROJECTION, 1, head, "projection_head", "bias");
    l->projection_gamma = add_named(b, MDM_TENSOR_PROJECTION, 1, head, "bnl", "weight");
    add_named(b, MDM_TENSOR_PROJECTION, 1, head, "bnl", "bias");
    l->projection_running = add_named(b, MDM_TENSOR_STATISTIC, 1, head, "bnl", "running_mean");
    add_named(b, MDM_TENSOR_STATISTIC, 1, head, "bnl", "running_var");
}

/* Gives every tensor its place: weights in table order, so that backward completes them from the end;
 * statistics apart. */
static void place_tensors(mdm_layout *l) {
    for (int i = 0; i < l->tensor_count; i++) {
        mdm_tensor_info *t = &l->tensors[i];
        int64_t *end = t->role == MDM_TENSOR_STATISTIC ? &l->statistic_count : &l->weight_count;
        t->offset = *end;
        *end += t->count;
        if (t->role == MDM_TENSOR_ENCODER) l->encoder_count = l->weight_count;
    }
}

static mdm_status check_spec(const mdm_network_spec *s, const architecture **found) {
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        if (strcmp(architectures[i].name, s->arch) == 0) *found = &architectures[i];
    if (!*found)
        return mdm_fail(MDM_USAGE,
                        "model.arch=%s is not known; there are preact_resnet10, 18, 34, 50, 101, "
                        "resnet18 and 50",
                        s->arch);
    if (s->base_width < 1 || s->base_width > 1024)
        return mdm_fail(MDM_USAGE, "model.width=%d: must be between 1 and 1024", s->base_width);
    if (s->projection < 1 || s->classes < 2 || s->channels < 1)
        return mdm_fail(MDM_USAGE,
                        "a network needs at least 1 projection output, 2 classes and 1 image channel "
                        "(model.projection=%d, %d classes, %d channels)",
                        s->projection, s->classes, s->channels);
    if ((*found)->post_activation && (s->height < 32 || s->width < 32))
        return mdm_fail(MDM_USAGE,
                        "pictures of %dx%d are too small for the ImageNet stem; at least 32x32 is needed",
                        s->width, s->height);
    if (s->height < 8 || s->width < 8)
        return mdm_fail(MDM_USAGE,
                        "pictures of %dx%d are too small for three halvings; at least 8x8 is needed",
                        s->width, s->height);
    return MDM_OK;
}

mdm_status mdm_layout_create(const mdm_network_spec *spec, mdm_layout **out) {
    const architecture *arch = NULL;
    mdm_layout *layout;
    *out = NULL;
    MDM_TRY(check_spec(spec, &arch));
    MDM_TRY(MDM_ALLOCATE(layout, 1, "the network's table"));
    layout->spec = *spec;
    builder b = {layout, spec->channels, spec->height, spec->width, -1, -1, 0, -1, MDM_OK};
    if (arch->post_activation) {
        add_imagenet_stem(&b, spec->base_width);
    } else {
        move_to(&b, add_convolution(&b, "encoder.conv1", spec->base_width, 3, 1, -1, 0, -1));
        add_norm(&b, "encoder.bn1", 0, -1);
    }
    for (int stage = 0; stage < 4; stage++)
        for (int block = 0; block < arch->blocks[stage]; block++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "encoder.layer%d.%d", stage + 1, block);
            (arch->post_activation ? add_post_block : add_block)(&b, prefix, spec->base_width << stage,
                                                                 stage && !block ? 2 : 1, arch->bottleneck);
        }
    add_heads(&b);
    place_tensors(layout);
    if (b.status != MDM_OK) {
        mdm_layout_destroy(layout);
        return b.status;
    }
    *out = layout;
    return MDM_OK;
}

void mdm_layout_destroy(mdm_layout *layout) {
    if (!layout) return;
    free(layout->layers);
    free(layout->buffers);
    free(layout->tensors);
    free(layout);
}

double mdm_layout_forward_flop(const mdm_layout *layout) {
    double flop = 2.0 * layout->embedding * (layout->spec.classes + layout->spec.projection);
    for (int i = 0; i < layout->layer_count; i++) {
        const mdm_layer *l = &layout->layers[i];
        if (l->kind != MDM_LAYER_CONVOLUTION) continue;
        const mdm_buffer_info *out = &layout->buffers[l->output];
        flop += 2.0 * l->in_channels * l->out_channels * l->kernel * l->kernel * out->height * out->width;
    }
    return flop;
}
