/* A network as data: a flat table of layers in execution order, and the table of its tensors.
 *
 * PreActResNet with the CIFAR stem (conv3x3, batch norm, ReLU), or ResNet (post-activation blocks,
 * torchvision's form) with the ImageNet stem (conv7x7 of stride 2, batch norm, ReLU, max pooling); four
 * stages, global average pooling, a linear classifier (fc) and a projection head (linear, batch norm) for
 * contrast; names and shapes are those of the PyTorch modules in the reference, so that weights travel both
 * ways. Adding an architecture is adding a row to the table of stages in layout.c.
 */
#ifndef MDM_MODEL_LAYOUT_H
#define MDM_MODEL_LAYOUT_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef struct mdm_network_spec {
    char arch[32];  /* preact_resnet10, 18, 34 (basic blocks), 50, 101 (bottlenecks), resnet18, 50 */
    int base_width; /* channels of the first stage; 64 in the publications */
    int projection; /* outputs of the projection head */
    int channels, height, width; /* of the images */
    int classes;
} mdm_network_spec;

typedef enum mdm_layer_kind {
    MDM_LAYER_CONVOLUTION,
    MDM_LAYER_NORM_RELU,
    MDM_LAYER_POOL,     /* mean over all pixels: the embedding */
    MDM_LAYER_ADD_RELU, /* end of a post-activation block: max(0, input + residual) */
    MDM_LAYER_MAX_POOL  /* 3x3, stride 2 */
} mdm_layer_kind;

/* One row of the execution table. Buffers hold activations, slots gradients; -1 means none. */
typedef struct mdm_layer {
    mdm_layer_kind kind;
    int input, output;  /* activation buffers; input -1 is the image, the pool's output is the embedding */
    int residual;       /* norm, pool, add: buffer added to the input first */
    int linear;         /* norm: without the ReLU */
    int add_to_output;  /* convolution: adds to what the output holds */
    int gradient;       /* slot of the gradient of the output (norm: replaced by that of the input) */
    int other;          /* norm, add, max pool: second part of the output's gradient */
    int input_gradient; /* convolution, max pool: slot written; add: slot for the residual's gradient */
    int in_channels, out_channels, height, width; /* of the input */
    int kernel, stride;
    int weight;  /* convolution: tensor; norm: gamma, and weight + 1 is beta */
    int running; /* norm: buffer tensor of the running mean, running + 1 the variance */
} mdm_layer;

typedef enum mdm_tensor_role {
    MDM_TENSOR_ENCODER,
    MDM_TENSOR_CLASSIFIER,
    MDM_TENSOR_PROJECTION,
    MDM_TENSOR_STATISTIC
} mdm_tensor_role;

typedef struct mdm_tensor_info {
    char name[64];
    int rank;
    int64_t dims[4];
    int64_t offset, count; /* in floats, within the weights or (statistics) within the statistics */
    mdm_tensor_role role;
} mdm_tensor_info;

typedef struct mdm_buffer_info {
    int channels, height, width;
} mdm_buffer_info;

typedef struct mdm_layout {
    mdm_network_spec spec;
    int embedding; /* D */
    mdm_layer *layers;
    int layer_count;
    mdm_buffer_info *buffers; /* activations */
    int buffer_count;
    mdm_tensor_info
        *tensors; /* weights in backward-ready order (encoder, classifier, projection), then statistics */
    int tensor_count;
    int64_t weight_count, encoder_count; /* floats; the encoder's come first */
    int64_t statistic_count;
    int classifier_weight, projection_weight, projection_gamma,
        projection_running; /* tensor numbers; bias or beta is the next */
    int layer_capacity, buffer_capacity, tensor_capacity;
} mdm_layout;

/* MDM_USAGE for an unknown architecture or impossible sizes, naming the config key. The caller owns the
 * layout. */
MDM_MUST_CHECK mdm_status mdm_layout_create(const mdm_network_spec *spec, mdm_layout **layout);
void mdm_layout_destroy(mdm_layout *layout);
/* Multiply-adds times two of one image's forward pass. */
double mdm_layout_forward_flop(const mdm_layout *layout);

#endif
