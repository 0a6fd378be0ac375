/* From a folder of checkpoints to the newest whole one, and from it to arrays. Bytes are verified before HDF5
 * sees them. */
#include "checkpoint_block.h"
#include "hdf5_image.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/report/checkpoint_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct mdm_checkpoint {
    char *path;
    char *content; /* the whole file; `file` reads from it */
    hid_t file;
};

mdm_status mdm_checkpoint_open(const char *path, mdm_checkpoint **checkpoint) {
    mdm_checkpoint *c = NULL;
    char digest[DIGEST_TEXT];
    size_t bytes = 0;
    mdm_status status = MDM_OK;
    *checkpoint = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "a checkpoint"));
    c->file = -1;
    c->path = strdup(path);
    if (!c->path) {
        status = mdm_fail(MDM_RESOURCE, "not enough memory to open %s", path);
        goto fail;
    }
    MDM_TRY_OR(status, block_check(path, &c->content, &bytes, digest), fail);
    MDM_TRY_OR(status, image_open(c->content + BLOCK_BYTES, bytes - BLOCK_BYTES, c->path, &c->file), fail);
    *checkpoint = c;
    return MDM_OK;
fail:
    mdm_checkpoint_close(c);
    return status;
}

void mdm_checkpoint_close(mdm_checkpoint *c) {
    if (!c) return;
    if (c->file >= 0) H5Fclose(c->file);
    free(c->content);
    free(c->path);
    free(c);
}

/* The first line of a file, cut to fit; 0 with errno where it cannot be opened. */
static int read_name(const char *path, char text[NAME_BYTES + 2]) {
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0) return 0;
    ssize_t length = read(file, text, NAME_BYTES + 1);
    close(file);
    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return 1;
}

/* What `latest` names, if it names a checkpoint; anything else in it is told and passed over. */
static int read_latest(const char *folder, position *at) {
    char path[PATH_MAX], text[NAME_BYTES + 2] = "", quoted[2 * NAME_BYTES];
    snprintf(path, sizeof path, "%s/latest", folder);
    if (!read_name(path, text)) {
        if (errno != ENOENT)
            mdm_warn("cannot open %s: %s; looking for the newest checkpoint by name", path, strerror(errno));
        return 0;
    }
    if (position_parse(text, at)) return 1;
    mdm_warn("%s does not name a checkpoint but \"%s\"; looking for the newest by name", path,
             mdm_printable(text, quoted, sizeof quoted));
    return 0;
}

/* MDM_OK with *checkpoint NULL when this one is damaged and another may be tried. */
static mdm_status try_position(const char *folder, position at, mdm_checkpoint **checkpoint) {
    char path[PATH_MAX], name[NAME_BYTES];
    position_name(at, name);
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return mdm_fail(MDM_INPUT, "the path of the run folder is too long: %.100s...", folder);
    mdm_status status = mdm_checkpoint_open(path, checkpoint);
    if (status != MDM_INPUT) return status;
    mdm_warn("checkpoint passed over: %s", mdm_last_message());
    return MDM_OK;
}

mdm_status mdm_checkpoint_open_newest(const char *folder, mdm_checkpoint **checkpoint) {
    position *all = NULL, latest = {-1, -1};
    int64_t count = 0;
    mdm_status status = MDM_OK;
    *checkpoint = NULL;
    MDM_TRY(position_list(folder, &all, &count));
    int named = read_latest(folder, &latest);
    if (named) status = try_position(folder, latest, checkpoint);
    for (int64_t i = 0; i < count && status == MDM_OK && !*checkpoint; i++)
        if (!named || position_compare(all[i], latest) != 0)
            status = try_position(folder, all[i], checkpoint);
    free(all);
    if (status == MDM_OK && !*checkpoint && count > 0)
        status =
            mdm_fail(MDM_INPUT,
                     "none of the %" PRId64 " checkpoints in %s is whole; repair one, or start anew with "
                     "resume=never in another run folder",
                     count, folder);
    return status;
}

mdm_status mdm_checkpoint_open_named(const char *path, mdm_checkpoint **checkpoint) {
    char text[NAME_BYTES + 2] = "";
    position at;
    struct stat state;
    *checkpoint = NULL;
    char *real = realpath(path, NULL);
    if (!real) return mdm_fail(MDM_INPUT, "cannot open the checkpoint %s: %s", path, strerror(errno));
    mdm_status status = MDM_OK;
    if (stat(real, &state) == 0 && S_ISDIR(state.st_mode)) {
        status = mdm_fail(MDM_INPUT,
                          "%s is a folder, not a checkpoint; give one of the files checkpoints/epoch-NNNN.h5 "
                          "of a run, or checkpoints/latest",
                          path);
    } else if (read_name(real, text) && position_parse(text, &at)) {
        mdm_text beside = {0};
        mdm_text_add(&beside, "%.*s/%s", (int)(strrchr(real, '/') - real), real, text);
        status = beside.failed ? mdm_fail(MDM_RESOURCE, "not enough memory to open %s", path)
                               : mdm_checkpoint_open(beside.data, checkpoint);
        free(beside.data);
    } else {
        status = mdm_checkpoint_open(real, checkpoint);
    }
    free(real);
    return status;
}

const char *mdm_checkpoint_path(const mdm_checkpoint *c) {
    return c->path;
}

mdm_status mdm_checkpoint_get(const mdm_checkpoint *c, const char *name, mdm_checkpoint_type type,
                              int64_t count, void *out) {
    switch (type) {
    case MDM_CHECKPOINT_FLOAT:
        return image_get(c->file, c->path, name, H5T_NATIVE_FLOAT, count, out);
    case MDM_CHECKPOINT_DOUBLE:
        return image_get(c->file, c->path, name, H5T_NATIVE_DOUBLE, count, out);
    case MDM_CHECKPOINT_INT32:
        return image_get(c->file, c->path, name, H5T_NATIVE_INT32, count, out);
    case MDM_CHECKPOINT_INT64:
        return image_get(c->file, c->path, name, H5T_NATIVE_INT64, count, out);
    case MDM_CHECKPOINT_UINT8:
        return image_get(c->file, c->path, name, H5T_NATIVE_UINT8, count, out);
    case MDM_CHECKPOINT_TEXT:
        break;
    }
    return mdm_fail(MDM_USAGE, "texts of a checkpoint are read by mdm_checkpoint_get_text()");
}

mdm_status mdm_checkpoint_get_finite(const mdm_checkpoint *c, const char *name, int64_t count, float *out) {
    MDM_TRY(mdm_checkpoint_get(c, name, MDM_CHECKPOINT_FLOAT, count, out));
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(out[i]))
            return mdm_fail(MDM_INPUT, "%s: %s holds infinities or NaN; resume from an earlier checkpoint",
                            c->path, name);
    return MDM_OK;
}

mdm_status mdm_checkpoint_get_integer(const mdm_checkpoint *c, const char *name, int64_t minimum,
                                      int64_t maximum, int64_t *value) {
    int64_t found = 0;
    MDM_TRY(mdm_checkpoint_get(c, name, MDM_CHECKPOINT_INT64, 1, &found));
    if (found < minimum || found > maximum)
        return mdm_fail(MDM_INPUT, "%s: %s is %" PRId64 ", not within %" PRId64 " and %" PRId64, c->path,
                        name, found, minimum, maximum);
    *value = found;
    return MDM_OK;
}

mdm_status mdm_checkpoint_get_text(const mdm_checkpoint *c, const char *name, char **text) {
    image_dataset set;
    *text = NULL;
    MDM_TRY(image_open_dataset(c->file, c->path, name, &set));
    mdm_status status = MDM_OK;
    hid_t type = H5Dget_type(set.id);
    if (set.kind != H5T_STRING || set.elements != 1 || H5Tis_variable_str(type) != 0)
        status = mdm_fail(MDM_INPUT, "%s: %s is not a text", c->path, name);
    else
        status = MDM_ALLOCATE(*text, set.size + 1, "a text of a checkpoint");
    if (status == MDM_OK && H5Dread(set.id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *text) < 0)
        status = mdm_fail(MDM_INPUT, "%s: %s cannot be read", c->path, name);
    H5Tclose(type);
    H5Dclose(set.id);
    if (status != MDM_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}
