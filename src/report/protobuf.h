/* The few pieces of protocol buffers that ONNX files and events are made of, and TensorFlow's record format.
 * Internal to this room. */
#ifndef MDM_REPORT_PROTOBUF_INTERNAL_H
#define MDM_REPORT_PROTOBUF_INTERNAL_H

#include "mdm/base/text.h"
#include <stdint.h>

/* Fields of a message, each with its number. */
void protobuf_integer(mdm_text *message, int field, uint64_t value);
void protobuf_double(mdm_text *message, int field, double value);
void protobuf_float(mdm_text *message, int field, float value);
void protobuf_bytes(mdm_text *message, int field, const void *bytes, size_t count);
void protobuf_doubles(mdm_text *message, int field, const double *values, int count);

/* Adds a record: length, checksum of the length, data, checksum of the data. */
void record_add(mdm_text *records, const mdm_text *data);
/* The record at *at of `bytes`; 0 at the end, or where a record is cut or damaged. */
int record_next(const char *bytes, size_t count, size_t *at, const char **data, size_t *length);

#endif
