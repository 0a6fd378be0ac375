/* From the parts of a checkpoint to its bytes: by the HDF5 library the first time, which tells where each
 * part lies, then by copies to those places. Contiguous data without filters make that the same bytes. */
#include "checkpoint_form.h"
#include "checkpoint_block.h"
#include "hdf5_image.h"
#include <stdlib.h>
#include <string.h>

static size_t bytes_of(const mdm_checkpoint_part *part) {
    static const size_t sizes[] = {sizeof(float), sizeof(double), sizeof(int32_t), sizeof(int64_t), 1};
    if (part->type == MDM_CHECKPOINT_TEXT) return strlen(part->data) + 1;
    return sizes[part->type] * (size_t)part->count;
}

/* Texts are kept as their length. */
static int64_t length_of(const mdm_checkpoint_part *part) {
    return part->type == MDM_CHECKPOINT_TEXT ? (int64_t)bytes_of(part) : part->count;
}

static int is_of(const checkpoint_form *form, const mdm_checkpoint_part *parts, int count) {
    if (form->count != count) return 0;
    for (int i = 0; i < count; i++) {
        const mdm_checkpoint_part *mine = &form->parts[i];
        if (strcmp(mine->name, parts[i].name) != 0 || mine->type != parts[i].type ||
            mine->rank != parts[i].rank || mine->count != length_of(&parts[i]))
            return 0;
    }
    return 1;
}

void checkpoint_form_clear(checkpoint_form *form) {
    free(form->content);
    free(form->parts);
    free(form->offsets);
    *form = (checkpoint_form){0};
}

static mdm_status build(checkpoint_form *form, const mdm_checkpoint_part *parts, int count) {
    mdm_checkpoint_writer *writer;
    mdm_status status = MDM_OK;
    size_t bytes = 65536; /* the library's own, roughly */
    for (int i = 0; i < count; i++) bytes += bytes_of(&parts[i]) + 1024;
    MDM_TRY(checkpoint_begin_large(bytes, &writer));
    for (int i = 0; i < count && status == MDM_OK; i++)
        status = mdm_checkpoint_put(writer, parts[i].name, parts[i].type, parts[i].rank, &parts[i].count,
                                    parts[i].data);
    if (status == MDM_OK) return checkpoint_finish_image(writer, &form->content, &form->bytes);
    mdm_checkpoint_abandon(writer);
    return status;
}

/* Where the parts lie, checked against what was put there. */
static mdm_status locate(checkpoint_form *form, const mdm_checkpoint_part *parts, int count) {
    hid_t file;
    mdm_status status = MDM_OK;
    MDM_TRY(MDM_ALLOCATE(form->parts, count, "the parts of a checkpoint"));
    MDM_TRY(MDM_ALLOCATE(form->offsets, count, "the parts of a checkpoint"));
    MDM_TRY(image_open(form->content + BLOCK_BYTES, form->bytes - BLOCK_BYTES, "the checkpoint", &file));
    for (int i = 0; i < count && status == MDM_OK; i++) {
        size_t bytes = bytes_of(&parts[i]);
        int64_t at = bytes > 0 ? image_offset(file, parts[i].name) : -1;
        form->parts[i] = parts[i];
        form->parts[i].count = length_of(&parts[i]);
        form->parts[i].data = NULL;
        form->offsets[i] = at < 0 ? -1 : at + BLOCK_BYTES;
        if (bytes > 0 && (at < 0 || (size_t)at + BLOCK_BYTES + bytes > form->bytes ||
                          memcmp(form->content + BLOCK_BYTES + at, parts[i].data, bytes) != 0))
            status = mdm_fail(MDM_RESOURCE, "%s is not where the HDF5 library says it put it", parts[i].name);
    }
    H5Fclose(file);
    form->count = count;
    return status;
}

mdm_status checkpoint_form_fill(checkpoint_form *form, const mdm_checkpoint_part *parts, int count) {
    if (!is_of(form, parts, count)) {
        checkpoint_form_clear(form);
        mdm_status status = build(form, parts, count);
        if (status == MDM_OK) status = locate(form, parts, count);
        if (status != MDM_OK) checkpoint_form_clear(form);
        return status;
    }
    for (int i = 0; i < count; i++)
        if (form->offsets[i] >= 0)
            memcpy(form->content + form->offsets[i], parts[i].data, bytes_of(&parts[i]));
    return MDM_OK;
}
