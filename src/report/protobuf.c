/* From values to protocol buffers' wire format, and from messages to TensorFlow's records and back.
 *
 * The wire format is little-endian whatever the machine; so are the lengths and checksums of records. */
#include "protobuf.h"

#include <string.h>

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };

static void add_varint(mdm_text *t, uint64_t value) {
    char bytes[10];
    size_t count = 0;
    do {
        bytes[count++] = (char)((value & 127) | (value > 127 ? 128 : 0));
        value >>= 7;
    } while (value);
    mdm_text_add_bytes(t, bytes, count);
}

static void add_fixed(mdm_text *t, uint64_t value, int count) {
    char bytes[8];
    for (int i = 0; i < count; i++) bytes[i] = (char)(value >> 8 * i & 255);
    mdm_text_add_bytes(t, bytes, (size_t)count);
}

static uint64_t get_fixed(const char *bytes, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value |= (uint64_t)(unsigned char)bytes[i] << 8 * i;
    return value;
}

static void add_key(mdm_text *t, int field, int wire) {
    add_varint(t, (uint64_t)field << 3 | (uint64_t)wire);
}

void protobuf_integer(mdm_text *t, int field, uint64_t value) {
    add_key(t, field, VARINT);
    add_varint(t, value);
}

static uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void protobuf_double(mdm_text *t, int field, double value) {
    add_key(t, field, FIXED64);
    add_fixed(t, bits_of(value), 8);
}

void protobuf_float(mdm_text *t, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    add_key(t, field, FIXED32);
    add_fixed(t, bits, 4);
}

void protobuf_bytes(mdm_text *t, int field, const void *bytes, size_t count) {
    add_key(t, field, LENGTH);
    add_varint(t, count);
    mdm_text_add_bytes(t, bytes, count);
}

void protobuf_doubles(mdm_text *t, int field, const double *values, int count) {
    add_key(t, field, LENGTH);
    add_varint(t, 8 * (uint64_t)count);
    for (int i = 0; i < count; i++) add_fixed(t, bits_of(values[i]), 8);
}

/* CRC-32C (Castagnoli) of the bytes, masked as records have it. */
static uint32_t record_checksum(const void *bytes, size_t count) {
    const unsigned char *b = bytes;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < count; i++) {
        crc ^= b[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

void record_add(mdm_text *t, const mdm_text *data) {
    size_t start = t->length;
    add_fixed(t, data->length, 8);
    if (t->failed) return;
    add_fixed(t, record_checksum(t->data + start, 8), 4);
    mdm_text_add_bytes(t, data->data, data->length);
    add_fixed(t, record_checksum(data->data, data->length), 4);
    t->failed |= data->failed;
}

int record_next(const char *bytes, size_t count, size_t *at, const char **data, size_t *length) {
    if (count - *at < 16) return 0;
    const char *start = bytes + *at;
    uint64_t size = get_fixed(start, 8);
    if (size > count - *at - 16 || get_fixed(start + 8, 4) != record_checksum(start, 8)) return 0;
    if (get_fixed(start + 12 + size, 4) != record_checksum(start + 12, (size_t)size)) return 0;
    *data = start + 12;
    *length = (size_t)size;
    *at += 16 + (size_t)size;
    return 1;
}
