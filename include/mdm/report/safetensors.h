/* Weights files: safetensors (https://github.com/huggingface/safetensors, "Format").
 *
 * 8 bytes little-endian header length, a JSON header
 * {"name":{"dtype","shape","data_offsets":[begin,end]},...,
 * "__metadata__":{text:text}}, then the tensors' bytes, row-major, one after the other. Rank 0 only.
 *
 * Reading takes files of strangers: everything in the header is checked before it is used, nothing in it is
 * trusted for the size of an allocation, and tensors' bytes are read only when asked for.
 */
#ifndef MDM_REPORT_SAFETENSORS_H
#define MDM_REPORT_SAFETENSORS_H

#include "mdm/base/status.h"
#include <stdint.h>

enum { MDM_SAFETENSORS_MAX_RANK = 8 };

typedef struct mdm_safetensors_entry {
    const char *name;
    int rank; /* 0 for a single number */
    int64_t shape[MDM_SAFETENSORS_MAX_RANK];
    const float *data; /* [product of shape] */
} mdm_safetensors_entry;

typedef struct mdm_safetensors_note {
    const char *key, *value;
} mdm_safetensors_note;

/* Writes `count` float tensors and the notes (into __metadata__; `notes` may be NULL) so that a reader sees
 * the old file or the new one. Memory for one copy of the file is needed for the time of the call. The
 * tensors' bytes start at a multiple of 8. MDM_RESOURCE when it cannot be written (the old file stays),
 * MDM_USAGE for doubled names. */
MDM_MUST_CHECK mdm_status mdm_safetensors_write(const char *path, const mdm_safetensors_entry *entries,
                                                int64_t count, const mdm_safetensors_note *notes,
                                                int64_t note_count);

typedef struct mdm_safetensors mdm_safetensors;

/* Opens and checks a file: header at most 16 MB and well-formed, no name twice, known types, shapes that fit
 * their bytes, bytes that cover the file without gap or overlap. MDM_INPUT, naming what is wrong, otherwise.
 * The file stays open until mdm_safetensors_close(). */
MDM_MUST_CHECK mdm_status mdm_safetensors_open(const char *path, mdm_safetensors **file);
void mdm_safetensors_close(mdm_safetensors *file);

/* Tensors in the order of their bytes. Texts belong to the file. */
int64_t mdm_safetensors_count(const mdm_safetensors *file);
const char *mdm_safetensors_name(const mdm_safetensors *file, int64_t index);
int mdm_safetensors_shape(const mdm_safetensors *file, int64_t index,
                          int64_t shape[MDM_SAFETENSORS_MAX_RANK]);
int64_t mdm_safetensors_elements(const mdm_safetensors *file, int64_t index);
/* -1 when there is no such tensor. */
int64_t mdm_safetensors_find(const mdm_safetensors *file, const char *name);
/* NULL when there is no such note. */
const char *mdm_safetensors_note_value(const mdm_safetensors *file, const char *key);

/* Reads tensor `index` as floats into out [count]. F32, F16, BF16 and F64 (rounded) are converted, other
 * types, another number of elements than `count`, and with `refuse_non_finite` any infinity or NaN are
 * MDM_INPUT. */
MDM_MUST_CHECK mdm_status mdm_safetensors_read(const mdm_safetensors *file, int64_t index, int64_t count,
                                               int refuse_non_finite, float *out);

#endif
