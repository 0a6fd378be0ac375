/* From operators and constants to an ONNX file. Field numbers are those of onnx.proto. */
#include "mdm/report/onnx.h"

#include "protobuf.h"

#include <stdlib.h>
#include <string.h>

enum { IR_VERSION = 7, FLOAT_TENSOR = 1, TWO_GIGABYTES = 0x7fffffff };

static void add_integer(mdm_text *text, int field, int64_t value) {
    protobuf_integer(text, field, (uint64_t)value);
}

static void add_string(mdm_text *text, int field, const char *value) {
    protobuf_bytes(text, field, value, strlen(value));
}

/* A message inside a message; frees it. */
static void add_message(mdm_text *text, int field, mdm_text *inner) {
    if (inner->failed) text->failed = 1;
    protobuf_bytes(text, field, inner->data, inner->failed ? 0 : inner->length);
    free(inner->data);
    memset(inner, 0, sizeof *inner);
}

void mdm_onnx_tensor(mdm_onnx *model, const char *name, int rank, const int64_t *dims, const float *data) {
    mdm_text tensor = {0};
    size_t bytes = sizeof *data;
    for (int d = 0; d < rank; d++) {
        add_integer(&tensor, 1, dims[d]);
        bytes *= (size_t)dims[d];
    }
    add_integer(&tensor, 2, FLOAT_TENSOR);
    add_string(&tensor, 8, name);
    protobuf_bytes(&tensor, 9, data,
                   bytes); /* raw_data: little-endian, as this memory is (see safetensors) */
    add_message(&model->initializers, 5, &tensor);
}

static void add_attribute(mdm_text *node, const mdm_onnx_attribute *a) {
    static const int types[] = {[MDM_ONNX_INTEGER] = 2, [MDM_ONNX_FLOAT] = 1, [MDM_ONNX_INTEGERS] = 7};
    mdm_text text = {0};
    add_string(&text, 1, a->name);
    if (a->kind == MDM_ONNX_FLOAT) protobuf_float(&text, 2, a->real);
    if (a->kind == MDM_ONNX_INTEGER) add_integer(&text, 3, a->integers[0]);
    for (int i = 0; a->kind == MDM_ONNX_INTEGERS && i < a->count; i++) add_integer(&text, 8, a->integers[i]);
    add_integer(&text, 20, types[a->kind]);
    add_message(node, 5, &text);
}

void mdm_onnx_node(mdm_onnx *model, const char *operator, int input_count, const char *const *inputs,
                   const char *output, int attribute_count, const mdm_onnx_attribute *attributes) {
    mdm_text node = {0};
    for (int i = 0; i < input_count; i++) add_string(&node, 1, inputs[i]);
    add_string(&node, 2, output);
    add_string(&node, 3, output);
    add_string(&node, 4, operator);
    for (int i = 0; i < attribute_count; i++) add_attribute(&node, &attributes[i]);
    add_message(&model->nodes, 1, &node);
}

static void add_value(mdm_text *to, int field, const char *name, int rank, const int64_t *dims) {
    mdm_text shape = {0}, tensor = {0}, type = {0}, value = {0};
    for (int d = 0; d < rank; d++) {
        mdm_text dim = {0};
        if (dims[d] == MDM_ONNX_DYNAMIC)
            add_string(&dim, 2, "batch");
        else
            add_integer(&dim, 1, dims[d]);
        add_message(&shape, 1, &dim);
    }
    add_integer(&tensor, 1, FLOAT_TENSOR);
    add_message(&tensor, 2, &shape);
    add_message(&type, 1, &tensor);
    add_string(&value, 1, name);
    add_message(&value, 2, &type);
    add_message(to, field, &value);
}

void mdm_onnx_input(mdm_onnx *model, const char *name, int rank, const int64_t *dims) {
    add_value(&model->inputs, 11, name, rank, dims);
}

void mdm_onnx_output(mdm_onnx *model, const char *name, int rank, const int64_t *dims) {
    add_value(&model->outputs, 12, name, rank, dims);
}

void mdm_onnx_note(mdm_onnx *model, const char *key, const char *value) {
    mdm_text note = {0};
    add_string(&note, 1, key);
    add_string(&note, 2, value);
    add_message(&model->notes, 14, &note);
}

static void join(mdm_text *to, const mdm_text *part) {
    if (part->failed) to->failed = 1;
    if (part->length) mdm_text_add_bytes(to, part->data, part->length);
}

mdm_status mdm_onnx_write(const mdm_onnx *model, const char *description, const char *path) {
    mdm_text graph = {0}, opset = {0}, file = {0};
    join(&graph, &model->nodes);
    add_string(&graph, 2, "mdm-dist");
    join(&graph, &model->initializers);
    join(&graph, &model->inputs);
    join(&graph, &model->outputs);
    add_integer(&file, 1, IR_VERSION);
    add_string(&file, 2, "mdm-dist");
    add_string(&file, 6, description);
    add_message(&file, 7, &graph);
    add_string(&opset, 1, "");
    add_integer(&opset, 2, MDM_ONNX_OPSET);
    add_message(&file, 8, &opset);
    join(&file, &model->notes);
    mdm_status status = MDM_OK;
    if (file.failed)
        status = mdm_fail(MDM_RESOURCE, "not enough memory to put %s together", path);
    else if (file.length > TWO_GIGABYTES)
        status = mdm_fail(MDM_USAGE, "the network is too large for one ONNX file (2 GB)");
    if (status == MDM_OK) status = mdm_write_file(path, file.data, file.length);
    free(file.data);
    return status;
}

void mdm_onnx_free(mdm_onnx *model) {
    mdm_text *parts[] = {&model->nodes, &model->initializers, &model->inputs, &model->outputs, &model->notes};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]->data);
    memset(model, 0, sizeof *model);
}
