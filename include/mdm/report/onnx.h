/* ONNX models (https://onnx.ai, IR version 7, operator set 13), by an own encoder of their protocol buffers.
 *
 * Initializers, nodes, inputs and outputs are added in the order of execution, then the file is written
 * whole. A failed allocation is remembered and reported by mdm_onnx_write. Rank 0 only.
 */
#ifndef MDM_REPORT_ONNX_H
#define MDM_REPORT_ONNX_H

#include "mdm/base/text.h"
#include <stdint.h>

enum { MDM_ONNX_OPSET = 13, MDM_ONNX_DYNAMIC = -1 };

/* Parts of the model as encoded so far; starts zeroed, ended by mdm_onnx_free. */
typedef struct mdm_onnx {
    mdm_text nodes, initializers, inputs, outputs, notes;
} mdm_onnx;

typedef enum mdm_onnx_kind { MDM_ONNX_INTEGER, MDM_ONNX_FLOAT, MDM_ONNX_INTEGERS } mdm_onnx_kind;
typedef struct mdm_onnx_attribute {
    const char *name;
    mdm_onnx_kind kind;
    float real;
    int count; /* of integers; 1 for MDM_ONNX_INTEGER */
    int64_t integers[4];
} mdm_onnx_attribute;

/* A float constant. */
void mdm_onnx_tensor(mdm_onnx *model, const char *name, int rank, const int64_t *dims, const float *data);
/* One operator; inputs and attributes as the operator set asks for. */
void mdm_onnx_node(mdm_onnx *model, const char *operator, int input_count, const char *const *inputs,
                   const char *output, int attribute_count, const mdm_onnx_attribute *attributes);
/* A float input or output of the model; MDM_ONNX_DYNAMIC is the batch, any number of rows. */
void mdm_onnx_input(mdm_onnx *model, const char *name, int rank, const int64_t *dims);
void mdm_onnx_output(mdm_onnx *model, const char *name, int rank, const int64_t *dims);
/* A text in the model's metadata. */
void mdm_onnx_note(mdm_onnx *model, const char *key, const char *value);

/* MDM_RESOURCE when it cannot be put together or written; a reader sees the old file or the new one. */
MDM_MUST_CHECK mdm_status mdm_onnx_write(const mdm_onnx *model, const char *description, const char *path);
void mdm_onnx_free(mdm_onnx *model);

#endif
