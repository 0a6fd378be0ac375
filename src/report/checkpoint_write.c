/* From named arrays to a checkpoint on disk: an HDF5 file in memory, its user block, the commit, and the
 * removal of old ones. At every moment `latest` names a whole file. */
#include "checkpoint_block.h"
#include "hdf5_image.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/report/checkpoint_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct mdm_checkpoint_writer {
    hid_t file;
};

mdm_status checkpoint_begin_large(size_t bytes, mdm_checkpoint_writer **writer) {
    mdm_checkpoint_writer *w = NULL;
    *writer = NULL;
    MDM_TRY(MDM_ALLOCATE(w, 1, "a checkpoint"));
    mdm_status status = image_create(bytes, &w->file);
    if (status == MDM_OK)
        *writer = w;
    else
        free(w);
    return status;
}

mdm_status mdm_checkpoint_begin(mdm_checkpoint_writer **writer) {
    return checkpoint_begin_large(0, writer);
}

mdm_status mdm_checkpoint_put(mdm_checkpoint_writer *writer, const char *name, mdm_checkpoint_type type,
                              int rank, const int64_t *dims, const void *data) {
    switch (type) {
    case MDM_CHECKPOINT_FLOAT:
        return image_put(writer->file, name, H5T_NATIVE_FLOAT, rank, dims, data);
    case MDM_CHECKPOINT_DOUBLE:
        return image_put(writer->file, name, H5T_NATIVE_DOUBLE, rank, dims, data);
    case MDM_CHECKPOINT_INT32:
        return image_put(writer->file, name, H5T_NATIVE_INT32, rank, dims, data);
    case MDM_CHECKPOINT_INT64:
        return image_put(writer->file, name, H5T_NATIVE_INT64, rank, dims, data);
    case MDM_CHECKPOINT_UINT8:
        return image_put(writer->file, name, H5T_NATIVE_UINT8, rank, dims, data);
    case MDM_CHECKPOINT_TEXT:
        return image_put_text(writer->file, name, data);
    }
    return mdm_fail(MDM_USAGE, "no such type of checkpoint array: %d", (int)type);
}

void mdm_checkpoint_abandon(mdm_checkpoint_writer *writer) {
    if (!writer) return;
    H5Fclose(writer->file);
    free(writer);
}

/* Temporary files of this program that a kill left behind. The run folder's lock makes sure that they are
 * nobody's. */
static void remove_strays(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) return;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        int part = strncmp(entry->d_name, ".epoch-", 7) == 0 && strstr(entry->d_name, ".h5.part");
        if (part || strncmp(entry->d_name, "latest.tmp-", 11) == 0)
            (void)unlinkat(dirfd(entries), entry->d_name, 0);
    }
    closedir(entries);
}

static int sync_folder(const char *folder) {
    int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) return -1;
    int result = fsync(file), reason = errno;
    if (result != 0 && (reason == EINVAL || reason == ENOTSUP))
        result = 0; /* not offered by this file system */
    close(file);
    errno = reason;
    return result;
}

/* Puts the bytes in place under `name`, read back before they replace anything. */
static mdm_status place(const char *folder, const char *name, const char *content, size_t bytes) {
    char hidden[PATH_MAX], final[PATH_MAX], digest[DIGEST_TEXT];
    int a = snprintf(hidden, sizeof hidden, "%s/.%s.part", folder, name),
        b = snprintf(final, sizeof final, "%s/%s", folder, name);
    if (a >= (int)sizeof hidden - 40 || b >= (int)sizeof final)
        return mdm_fail(MDM_RESOURCE, "the path of the run folder is too long: %.100s...", folder);
    mdm_status status = mdm_write_file(hidden, content, bytes);
    if (status != MDM_OK) {
        unlink(hidden); /* there, but its folder could not be put on disk */
        return status;
    }
    status = block_check(hidden, NULL, NULL, digest);
    if (status == MDM_OK && memcmp(strstr(content, "sha256 ") + 7, digest, DIGEST_TEXT - 1) != 0)
        status = MDM_INPUT;
    if (status != MDM_OK)
        status = mdm_fail(MDM_RESOURCE,
                          "%s reads back other than it was written: the storage is not to be trusted", final);
    else if (rename(hidden, final) != 0)
        status = mdm_fail(MDM_RESOURCE, "cannot rename %s to %s: %s", hidden, name, strerror(errno));
    else if (sync_folder(folder) != 0)
        return mdm_fail(MDM_RESOURCE, "cannot make %s lasting: %s", final, strerror(errno));
    if (status != MDM_OK) unlink(hidden);
    return status;
}

static mdm_status point_latest(const char *folder, const char *name) {
    char path[PATH_MAX], line[NAME_BYTES + 1];
    snprintf(path, sizeof path, "%s/latest", folder);
    int length = snprintf(line, sizeof line, "%s\n", name);
    return mdm_write_file(path, line, (size_t)length);
}

/* Removes what is older than `now`: all but the newest keep - 1, and all inside epochs once `now` ends one.
 * Failures are not worth ending a run. */
static void prune(const char *folder, position now, int keep) {
    position *all = NULL;
    int64_t count = 0, kept = 1;
    char path[PATH_MAX], name[NAME_BYTES];
    if (position_list(folder, &all, &count) != MDM_OK) return;
    for (int64_t i = 0; i < count; i++) {
        if (position_compare(all[i], now) >= 0) continue;
        int superseded = now.step == INT64_MAX && all[i].step != INT64_MAX;
        if (!superseded && kept < keep) {
            kept++;
            continue;
        }
        position_name(all[i], name);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        if (unlink(path) != 0 && errno != ENOENT)
            mdm_warn("cannot remove old checkpoint %s: %s", path, strerror(errno));
    }
    free(all);
}

/* The failure that stands, with what is missing and what is left. */
static mdm_status not_saved(const char *folder, const char *name, size_t bytes) {
    char reason[1024], room[96] = "";
    struct statvfs space;
    snprintf(reason, sizeof reason, "%s", mdm_last_message());
    if (statvfs(folder, &space) == 0)
        snprintf(room, sizeof room, " (it needs %.1f MB, %.1f MB are free)", (double)bytes / 1e6,
                 (double)space.f_bavail * (double)space.f_frsize / 1e6);
    return mdm_fail(MDM_RESOURCE, "checkpoint %s not saved%s: %s", name, room, reason);
}

mdm_status checkpoint_finish_image(mdm_checkpoint_writer *writer, char **content, size_t *bytes) {
    *content = NULL;
    *bytes = 0;
    mdm_status status = image_finish(writer->file, BLOCK_BYTES, content, bytes);
    free(writer);
    return status;
}

mdm_status checkpoint_put_in_place(char *content, size_t bytes, const char *folder, position now, int keep) {
    char name[NAME_BYTES], digest[DIGEST_TEXT];
    position_name(now, name);
    mdm_status status = block_digest(content + BLOCK_BYTES, bytes - BLOCK_BYTES, digest);
    if (status == MDM_OK) {
        block_fill(content, bytes - BLOCK_BYTES, digest);
        remove_strays(folder);
        status = place(folder, name, content, bytes);
    }
    if (status == MDM_OK) status = point_latest(folder, name);
    if (status != MDM_OK) return not_saved(folder, name, bytes);
    prune(folder, now, keep);
    return MDM_OK;
}

mdm_status mdm_checkpoint_commit(mdm_checkpoint_writer *writer, const char *folder, int64_t epoch,
                                 int64_t step, int keep) {
    position now = {epoch, step == MDM_CHECKPOINT_EPOCH_END ? INT64_MAX : step};
    char *content;
    size_t bytes;
    mdm_status status = checkpoint_finish_image(writer, &content, &bytes);
    if (status == MDM_OK) status = checkpoint_put_in_place(content, bytes, folder, now, keep);
    free(content);
    return status;
}

static mdm_status remove_one(const char *folder, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (unlink(path) == 0 || errno == ENOENT) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "cannot remove the checkpoint %s of the run before: %s", path,
                    strerror(errno));
}

mdm_status mdm_checkpoint_remove_all(const char *folder) {
    position *all = NULL;
    int64_t count = 0;
    char name[NAME_BYTES];
    MDM_TRY(position_list(folder, &all, &count));
    mdm_status status = MDM_OK;
    for (int64_t i = count - 1; i >= 0 && status == MDM_OK; i--) {
        position_name(all[i], name);
        status = remove_one(folder, name);
    }
    free(all);
    if (status == MDM_OK) status = remove_one(folder, "latest");
    if (status == MDM_OK && sync_folder(folder) != 0)
        status = mdm_fail(MDM_RESOURCE, "cannot make the removal of checkpoints in %s lasting: %s", folder,
                          strerror(errno));
    return status;
}
