/* From networks to one ONNX model: the table of layers becomes operators, batch norm in its inference form,
 * with the normalisation of the pictures in front and softmax behind. */
#include "mdm/report/onnx.h"
#include "mdm/train/weights.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 96 };

/* One network being written: `value` tells the name of what a buffer holds at this point. */
typedef struct graph {
    mdm_onnx *model;
    const mdm_network *network;
    char letter;
    int next;            /* number of the next value */
    char (*value)[NAME]; /* [buffer_count] */
} graph;

static void tensor_name(const graph *g, int tensor, char name[NAME]) {
    snprintf(name, NAME, "%c.%s", g->letter, g->network->layout->tensors[tensor].name);
}

static void add_tensor(const graph *g, int number, char name[NAME]) {
    const mdm_tensor_info *t = &g->network->layout->tensors[number];
    const float *from = t->role == MDM_TENSOR_STATISTIC ? g->network->statistics : g->network->weights;
    tensor_name(g, number, name);
    mdm_onnx_tensor(g->model, name, t->rank, t->dims, from + t->offset);
}

static void new_value(graph *g, const char *operator, char name[NAME]) {
    snprintf(name, NAME, "%c.%d.%s", g->letter, g->next++, operator);
}

static void add_sum(graph *g, const char *first, const char *second, char name[NAME]) {
    const char *inputs[2] = {first, second};
    char result[NAME];
    new_value(g, "Add", result);
    mdm_onnx_node(g->model, "Add", 2, inputs, result, 0, NULL);
    memcpy(name, result, NAME);
}

static void add_convolution(graph *g, const mdm_layer *l) {
    char weight[NAME], result[NAME];
    int64_t k = l->kernel, pad = l->kernel / 2, stride = l->stride;
    const mdm_onnx_attribute attributes[] = {{"kernel_shape", MDM_ONNX_INTEGERS, 0, 2, {k, k}},
                                             {"strides", MDM_ONNX_INTEGERS, 0, 2, {stride, stride}},
                                             {"pads", MDM_ONNX_INTEGERS, 0, 4, {pad, pad, pad, pad}}};
    add_tensor(g, l->weight, weight);
    const char *inputs[2] = {l->input < 0 ? "normalised" : g->value[l->input], weight};
    new_value(g, "Conv", result);
    mdm_onnx_node(g->model, "Conv", 2, inputs, result, 3, attributes);
    if (l->add_to_output)
        add_sum(g, g->value[l->output], result, g->value[l->output]);
    else
        memcpy(g->value[l->output], result, NAME);
}

static void read_input(graph *g, const mdm_layer *l, char name[NAME]) {
    memcpy(name, g->value[l->input], NAME);
    if (l->residual >= 0) add_sum(g, name, g->value[l->residual], name);
}

static void add_relu(graph *g, const char *input, char name[NAME]) {
    const char *inputs[1] = {input};
    new_value(g, "Relu", name);
    mdm_onnx_node(g->model, "Relu", 1, inputs, name, 0, NULL);
}

static void add_norm(graph *g, const mdm_layer *l) {
    const mdm_onnx_attribute epsilon = {.name = "epsilon", .kind = MDM_ONNX_FLOAT, .real = 1e-5f};
    char input[NAME], names[4][NAME], norm[NAME];
    read_input(g, l, input);
    add_tensor(g, l->weight, names[0]);
    add_tensor(g, l->weight + 1, names[1]);
    add_tensor(g, l->running, names[2]);
    add_tensor(g, l->running + 1, names[3]);
    const char *inputs[5] = {input, names[0], names[1], names[2], names[3]};
    new_value(g, "BatchNormalization", norm);
    mdm_onnx_node(g->model, "BatchNormalization", 5, inputs, norm, 1, &epsilon);
    if (l->linear)
        memcpy(g->value[l->output], norm, NAME);
    else
        add_relu(g, norm, g->value[l->output]);
}

static void add_max_pool(graph *g, const mdm_layer *l) {
    const mdm_onnx_attribute attributes[] = {{"kernel_shape", MDM_ONNX_INTEGERS, 0, 2, {3, 3}},
                                             {"strides", MDM_ONNX_INTEGERS, 0, 2, {2, 2}},
                                             {"pads", MDM_ONNX_INTEGERS, 0, 4, {1, 1, 1, 1}}};
    const char *inputs[1] = {g->value[l->input]};
    new_value(g, "MaxPool", g->value[l->output]);
    mdm_onnx_node(g->model, "MaxPool", 1, inputs, g->value[l->output], 3, attributes);
}

static void add_heads(graph *g, const mdm_layer *pool, const char *logits) {
    const mdm_onnx_attribute transposed = {.name = "transB", .count = 1, .integers = {1}};
    const mdm_layout *l = g->network->layout;
    char input[NAME], mean[NAME], flat[NAME], weight[NAME], bias[NAME];
    read_input(g, pool, input);
    new_value(g, "GlobalAveragePool", mean);
    new_value(g, "Flatten", flat);
    const char *of_pool[1] = {input}, *of_flatten[1] = {mean};
    mdm_onnx_node(g->model, "GlobalAveragePool", 1, of_pool, mean, 0, NULL);
    mdm_onnx_node(g->model, "Flatten", 1, of_flatten, flat, 0, NULL);
    add_tensor(g, l->classifier_weight, weight);
    add_tensor(g, l->classifier_weight + 1, bias);
    const char *inputs[3] = {flat, weight, bias};
    mdm_onnx_node(g->model, "Gemm", 3, inputs, logits, 1, &transposed);
}

static mdm_status add_network(mdm_onnx *model, const mdm_network *network, char letter, const char *logits) {
    const mdm_layout *layout = network->layout;
    graph g = {.model = model, .network = network, .letter = letter};
    MDM_TRY(MDM_ALLOCATE(g.value, layout->buffer_count, "names of values"));
    for (int i = 0; i < layout->layer_count; i++) {
        const mdm_layer *l = &layout->layers[i];
        if (l->kind == MDM_LAYER_CONVOLUTION)
            add_convolution(&g, l);
        else if (l->kind == MDM_LAYER_NORM_RELU)
            add_norm(&g, l);
        else if (l->kind == MDM_LAYER_MAX_POOL)
            add_max_pool(&g, l);
        else if (l->kind == MDM_LAYER_ADD_RELU) {
            char sum[NAME];
            read_input(&g, l, sum);
            add_relu(&g, sum, g.value[l->output]);
        } else
            add_heads(&g, l, logits);
    }
    free(g.value);
    return MDM_OK;
}

static void add_softmax(mdm_onnx *model, const char *logits, const char *probabilities) {
    const mdm_onnx_attribute axis = {.name = "axis", .count = 1, .integers = {1}};
    const char *inputs[1] = {logits};
    mdm_onnx_node(model, "Softmax", 1, inputs, probabilities, 1, &axis);
}

/* Of two values. OpenCV's reader has no Mean of several. */
static void add_mean(mdm_onnx *model, const char *const values[2], const char *mean) {
    static const float two = 2.0f;
    const int64_t dims[2] = {1, 1};
    const char *inputs[2] = {"sum", "networks"};
    mdm_onnx_tensor(model, "networks", 2, dims, &two);
    mdm_onnx_node(model, "Add", 2, values, "sum", 0, NULL);
    mdm_onnx_node(model, "Div", 2, inputs, mean, 0, NULL);
}

/* Pictures hold grey levels 0 to 255: normalised = (pictures - 255 mean) / (255 std). The constants are
 * [C,1,1]: OpenCV 4.6 fails with [1,C,1,1] where C is 3. */
static void add_normalisation(mdm_onnx *model, const mdm_model_notes *notes) {
    int64_t channels = notes->spec.channels, dims[3] = {channels, 1, 1};
    int64_t shape[4] = {MDM_ONNX_DYNAMIC, channels, notes->spec.height, notes->spec.width};
    float mean[3], std[3];
    for (int c = 0; c < channels; c++) mean[c] = 255.0f * notes->mean[c], std[c] = 255.0f * notes->std[c];
    mdm_onnx_input(model, "pictures", 4, shape);
    mdm_onnx_tensor(model, "mean", 3, dims, mean);
    mdm_onnx_tensor(model, "std", 3, dims, std);
    const char *first[2] = {"pictures", "mean"}, *second[2] = {"centred", "std"};
    mdm_onnx_node(model, "Sub", 2, first, "centred", 0, NULL);
    mdm_onnx_node(model, "Div", 2, second, "normalised", 0, NULL);
}

static void add_notes(mdm_onnx *model, const mdm_model_notes *notes) {
    mdm_text names = {0};
    mdm_text_add(&names, "[");
    for (int c = 0; notes->class_names && c < notes->spec.classes; c++) {
        if (c) mdm_text_add(&names, ",");
        mdm_text_add_json_string(&names, notes->class_names[c]);
    }
    mdm_text_add(&names, "]");
    mdm_onnx_note(model, "arch", notes->spec.arch);
    if (names.failed)
        model->notes.failed = 1;
    else
        mdm_onnx_note(model, "class_names", names.data);
    free(names.data);
}

mdm_status mdm_onnx_export(const mdm_network *const *networks, int count, const mdm_model_notes *notes,
                           const char *path) {
    static const char description[] =
        "Input pictures: float32 [batch, channels, height, width], grey levels 0 to 255 (normalised inside).";
    static const char *const logits[2] = {"logits_a", "logits_b"}, *const softmax[2] = {"softmax_a",
                                                                                        "softmax_b"};
    int64_t shape[2] = {MDM_ONNX_DYNAMIC, notes->spec.classes};
    mdm_onnx model = {0};
    mdm_status status = MDM_OK;
    add_normalisation(&model, notes);
    for (int n = 0; status == MDM_OK && n < count; n++) {
        const char *name = count == 1 ? "logits" : logits[n];
        status = add_network(&model, networks[n], (char)('a' + n), name);
        add_softmax(&model, name, count == 1 ? "probabilities" : softmax[n]);
        mdm_onnx_output(&model, name, 2, shape);
    }
    if (count == 2) add_mean(&model, softmax, "probabilities");
    mdm_onnx_output(&model, "probabilities", 2, shape);
    add_notes(&model, notes);
    if (status == MDM_OK) status = mdm_onnx_write(&model, description, path);
    mdm_onnx_free(&model);
    return status;
}
