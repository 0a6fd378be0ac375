/* From float tensors in memory to a safetensors file: the header's text, then the bytes, put on disk whole.
 */
#include "mdm/base/text.h"
#include "mdm/report/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian; this writer copies memory as it is"
#endif

static mdm_status entry_bytes(const mdm_safetensors_entry *entry, int64_t *bytes) {
    int64_t product = (int64_t)sizeof(float);
    if (entry->rank < 0 || entry->rank > MDM_SAFETENSORS_MAX_RANK)
        return mdm_fail(MDM_USAGE, "tensor %s has %d dimensions, at most %d can be written", entry->name,
                        entry->rank, MDM_SAFETENSORS_MAX_RANK);
    for (int d = 0; d < entry->rank; d++)
        if (entry->shape[d] < 0 || __builtin_mul_overflow(product, entry->shape[d], &product))
            return mdm_fail(MDM_USAGE, "tensor %s has an impossible shape", entry->name);
    *bytes = product;
    return MDM_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mdm_status check_names(const mdm_safetensors_entry *entries, int64_t count) {
    const char **names = NULL;
    mdm_status status = MDM_OK;
    MDM_TRY(MDM_ALLOCATE(names, count + 1, "the names of the tensors"));
    for (int64_t i = 0; i < count; i++) names[i] = entries[i].name;
    qsort(names, (size_t)count, sizeof *names, compare_names);
    for (int64_t i = 0; i < count && status == MDM_OK; i++) {
        if (strcmp(names[i], "__metadata__") == 0)
            status = mdm_fail(MDM_USAGE, "no tensor can have the name __metadata__");
        else if (i > 0 && strcmp(names[i - 1], names[i]) == 0)
            status = mdm_fail(MDM_USAGE, "two tensors have the name %s", names[i]);
    }
    free(names);
    return status;
}

static mdm_status add_header(mdm_text *text, const mdm_safetensors_entry *entries, int64_t count,
                             const mdm_safetensors_note *notes, int64_t note_count, int64_t *data_bytes) {
    int64_t offset = 0, bytes = 0;
    uint64_t length = 0;
    mdm_text_add_bytes(text, (const char *)&length, sizeof length); /* filled in below */
    mdm_text_add_bytes(text, "{", 1);
    if (note_count > 0) {
        mdm_text_add(text, "\"__metadata__\":{");
        for (int64_t i = 0; i < note_count; i++) {
            if (i > 0) mdm_text_add_bytes(text, ",", 1);
            mdm_text_add_json_string(text, notes[i].key);
            mdm_text_add_bytes(text, ":", 1);
            mdm_text_add_json_string(text, notes[i].value);
        }
        mdm_text_add_bytes(text, "}", 1);
    }
    for (int64_t i = 0; i < count; i++) {
        MDM_TRY(entry_bytes(&entries[i], &bytes));
        if (i > 0 || note_count > 0) mdm_text_add_bytes(text, ",", 1);
        mdm_text_add_json_string(text, entries[i].name);
        mdm_text_add(text, ":{\"dtype\":\"F32\",\"shape\":[");
        for (int d = 0; d < entries[i].rank; d++)
            mdm_text_add(text, "%s%" PRId64, d > 0 ? "," : "", entries[i].shape[d]);
        mdm_text_add(text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", offset, offset + bytes);
        if (__builtin_add_overflow(offset, bytes, &offset))
            return mdm_fail(MDM_USAGE, "the tensors are too large for one file");
    }
    mdm_text_add_bytes(text, "}", 1);
    while (!text->failed && text->length % 8 != 0) mdm_text_add_bytes(text, " ", 1);
    if (text->failed) return mdm_fail(MDM_RESOURCE, "not enough memory for the header of a weights file");
    length = text->length - sizeof length;
    memcpy(text->data, &length, sizeof length);
    *data_bytes = offset;
    return MDM_OK;
}

mdm_status mdm_safetensors_write(const char *path, const mdm_safetensors_entry *entries, int64_t count,
                                 const mdm_safetensors_note *notes, int64_t note_count) {
    mdm_text text = {0};
    char *content = NULL;
    int64_t data_bytes = 0, bytes = 0;
    mdm_status status;
    if (!notes) note_count = 0;
    MDM_TRY(check_names(entries, count));
    MDM_TRY_OR(status, add_header(&text, entries, count, notes, note_count, &data_bytes), done);
    size_t used = text.length;
    content = realloc(text.data, used + (size_t)data_bytes + 1);
    if (!content) {
        status = mdm_fail(MDM_RESOURCE, "not enough memory to put %s together (%" PRId64 " bytes)", path,
                          data_bytes);
        goto done;
    }
    text.data = content;
    for (int64_t i = 0; i < count; i++) {
        MDM_TRY_OR(status, entry_bytes(&entries[i], &bytes), done);
        if (bytes > 0) memcpy(content + used, entries[i].data, (size_t)bytes);
        used += (size_t)bytes;
    }
    status = mdm_write_file(path, content, used);
done:
    free(text.data);
    return status;
}
