/* From a data set in memory to its file. The library lays the file out, we write the bytes: it hides errors of the disk (a
 * full one gives a file that reads as zeros), write() and fsync() do not. */
#include "dataset_file.h"

#include "mdm/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT_VERSION = 1, BUFFER_BYTES = 4 << 20, MOST_PLACES = 8 };

/* A data set's place in the file and what belongs there. */
typedef struct place {
    int64_t offset, bytes;
    const void *data;               /* in one piece, or */
    const uint8_t *const *pictures; /* in pieces of picture_bytes */
} place;

typedef struct layout {
    hid_t file;
    const char *path;
    place places[MOST_PLACES];
    int count;
    int64_t picture_bytes;
} layout;

static mdm_status cannot(const char *path, const char *what) {
    return mdm_fail(MDM_RESOURCE, "cannot write %s: %s; is the disk full?", path, what);
}

/* Space is allocated at once and never filled, so the address is known and the library writes no pixel. */
static mdm_status add_set(layout *l, const char *name, hid_t type, int rank, const hsize_t *dims, place contents) {
    hid_t space = H5Screate_simple(rank, dims, NULL), links = H5Pcreate(H5P_LINK_CREATE),
          creation = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    int good = space >= 0 && links >= 0 && creation >= 0 && l->count < MOST_PLACES &&
               H5Pset_create_intermediate_group(links, 1) >= 0 && H5Pset_obj_track_times(creation, 0) >= 0 &&
               H5Pset_layout(creation, H5D_CONTIGUOUS) >= 0 &&
               H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY) >= 0 &&
               H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0;
    if (good) set = H5Dcreate2(l->file, name, type, space, links, creation, H5P_DEFAULT);
    haddr_t offset = set >= 0 ? H5Dget_offset(set) : HADDR_UNDEF;
    good = offset != HADDR_UNDEF;
    if (good) {
        contents.offset = (int64_t)offset;
        contents.bytes = (int64_t)(H5Sget_simple_extent_npoints(space) * (hssize_t)H5Tget_size(type));
        l->places[l->count++] = contents;
    }
    if (set >= 0 && H5Dclose(set) < 0) good = 0;
    if (creation >= 0) H5Pclose(creation);
    if (links >= 0) H5Pclose(links);
    if (space >= 0) H5Sclose(space);
    return good ? MDM_OK : cannot(l->path, name);
}

static hid_t text_type(size_t width) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, width) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        H5Tclose(type);
        type = -1;
    }
    return type;
}

static mdm_status add_texts(layout *l, const char *name, const char *texts, int width, int64_t count) {
    if (!texts) return MDM_OK;
    hsize_t dims[1] = {(hsize_t)count};
    hid_t type = text_type((size_t)width);
    if (type < 0) return cannot(l->path, name);
    mdm_status status = add_set(l, name, type, 1, dims, (place){.data = texts});
    H5Tclose(type);
    return status;
}

static mdm_status add_labels(layout *l, const char *name, const int32_t *labels, int64_t count) {
    hsize_t dims[1] = {(hsize_t)count};
    return labels ? add_set(l, name, H5T_STD_I32LE, 1, dims, (place){.data = labels}) : MDM_OK;
}

static mdm_status add_images(layout *l, const char *name, const mdm_dataset *set, int64_t count,
                             const uint8_t *const *pictures) {
    hsize_t dims[4] = {(hsize_t)count, (hsize_t)set->height, (hsize_t)set->width, (hsize_t)set->channels};
    return add_set(l, name, H5T_STD_U8LE, 4, dims, (place){.pictures = pictures});
}

static mdm_status add_attribute(layout *l, const char *name, hid_t stored, hid_t type, int count, const void *data) {
    hsize_t dims[1] = {(hsize_t)count};
    hid_t space = count > 0 ? H5Screate_simple(1, dims, NULL) : H5Screate(H5S_SCALAR), attribute = -1;
    if (space >= 0) attribute = H5Acreate2(l->file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    int good = attribute >= 0 && H5Awrite(attribute, type, data) >= 0;
    if (attribute >= 0 && H5Aclose(attribute) < 0) good = 0;
    if (space >= 0) H5Sclose(space);
    return good ? MDM_OK : cannot(l->path, name);
}

static mdm_status add_text_attribute(layout *l, const char *name, const char *text) {
    hid_t type = text_type(strlen(text) + 1);
    if (type < 0) return cannot(l->path, name);
    mdm_status status = add_attribute(l, name, type, type, 0, text);
    H5Tclose(type);
    return status;
}

static mdm_status lay_out(layout *l, const mdm_dataset *set, const uint8_t *const *train, const uint8_t *const *test,
                          const float *mean, const float *std) {
    int32_t version = FORMAT_VERSION;
    MDM_TRY(add_text_attribute(l, "format", "mdm-dataset"));
    MDM_TRY(add_attribute(l, "format_version", H5T_STD_I32LE, H5T_NATIVE_INT32, 0, &version));
    MDM_TRY(add_attribute(l, "mean", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, set->channels, mean));
    MDM_TRY(add_attribute(l, "std", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, set->channels, std));
    if (set->noise) {
        MDM_TRY(add_text_attribute(l, "noise", set->noise));
        MDM_TRY(add_attribute(l, "noise_seed", H5T_STD_I64LE, H5T_NATIVE_INT64, 0, &set->noise_seed));
    }
    MDM_TRY(add_texts(l, "/class_names", set->class_names, set->class_name_width, set->classes));
    MDM_TRY(add_labels(l, "/train/labels", set->train_labels, set->train_count));
    MDM_TRY(add_labels(l, "/train/true_labels", set->true_labels, set->train_count));
    MDM_TRY(add_texts(l, "/train/ids", set->ids, set->id_width, set->train_count));
    if (set->test_count > 0) {
        MDM_TRY(add_labels(l, "/test/labels", set->test_labels, set->test_count));
        MDM_TRY(add_images(l, "/test/images", set, set->test_count, test));
    }
    return add_images(l, "/train/images", set, set->train_count, train);
}

static mdm_status write_at(int file, const char *path, const uint8_t *bytes, int64_t count, int64_t offset) {
    while (count > 0) {
        ssize_t n = pwrite(file, bytes, (size_t)count, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return mdm_fail(MDM_RESOURCE, "cannot write %s: %s", path, strerror(errno));
        bytes += n;
        count -= n;
        offset += n;
    }
    return MDM_OK;
}

static mdm_status write_pictures(int file, const layout *l, const place *p, uint8_t *buffer, int64_t room) {
    int64_t used = 0, offset = p->offset, pictures = p->bytes / l->picture_bytes;
    for (int64_t i = 0; i < pictures; i++) {
        memcpy(buffer + used, p->pictures[i], (size_t)l->picture_bytes);
        used += l->picture_bytes;
        if (used + l->picture_bytes <= room && i + 1 < pictures) continue;
        MDM_TRY(write_at(file, l->path, buffer, used, offset));
        offset += used;
        used = 0;
    }
    return MDM_OK;
}

static mdm_status write_places(const layout *l, const char *temporary) {
    int64_t room = l->picture_bytes > BUFFER_BYTES ? l->picture_bytes : BUFFER_BYTES;
    uint8_t *buffer;
    MDM_TRY(MDM_ALLOCATE(buffer, room, "a buffer for pictures"));
    mdm_status status = MDM_OK;
    int file = open(temporary, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) status = mdm_fail(MDM_RESOURCE, "cannot write %s: %s", l->path, strerror(errno));
    for (int i = 0; status == MDM_OK && i < l->count; i++) {
        const place *p = &l->places[i];
        status = p->pictures ? write_pictures(file, l, p, buffer, room)
                             : write_at(file, l->path, p->data, p->bytes, p->offset);
    }
    if (status == MDM_OK && fsync(file) != 0)
        status = mdm_fail(MDM_RESOURCE, "cannot write %s: %s", l->path, strerror(errno));
    if (file >= 0 && close(file) != 0 && status == MDM_OK)
        status = mdm_fail(MDM_RESOURCE, "cannot write %s: %s", l->path, strerror(errno));
    free(buffer);
    return status;
}

/* The folder's own entry must be on disk as well; folders that refuse fsync (EINVAL, EACCES) are let be. */
static void sync_folder_of(const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, path, length);
    folder[length] = '\0';
    int file = open(!slash ? "." : length ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) return;
    (void)!fsync(file);
    close(file);
}

static mdm_status create_temporary(const char *path, char *temporary, size_t size) {
    if (strlen(path) + 32 >= size) return mdm_fail(MDM_RESOURCE, "cannot write %.200s...: the name is too long", path);
    int file = -1;
    for (int attempt = 0; file < 0 && attempt < 100; attempt++) {
        snprintf(temporary, size, "%s.tmp-%ld-%d", path, (long)getpid(), attempt);
        file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file < 0 && errno != EEXIST) break;
    }
    if (file < 0) return mdm_fail(MDM_RESOURCE, "cannot write %s: %s", path, strerror(errno));
    close(file);
    return MDM_OK;
}

static mdm_status check_set(const char *path, const mdm_dataset *set) {
    if (set->train_count < 1) return mdm_fail(MDM_INPUT, "%s would hold no training samples", path);
    if (set->classes < 2) return mdm_fail(MDM_INPUT, "%s would have fewer than two classes", path);
    if ((set->channels != 1 && set->channels != 3) || set->height < 1 || set->width < 1)
        return mdm_fail(MDM_INPUT, "%s: pictures of %d x %d pixels with %d channels cannot be stored", path, set->height,
                        set->width, set->channels);
    MDM_TRY(dataset_check_labels(path, "/train/labels", set->train_labels, set->train_count, 0, set->classes));
    if (set->true_labels)
        MDM_TRY(dataset_check_labels(path, "/train/true_labels", set->true_labels, set->train_count, -1, set->classes));
    return dataset_check_labels(path, "/test/labels", set->test_labels, set->test_count, 0, set->classes);
}

static mdm_status write_temporary(layout *l, const char *temporary, const mdm_dataset *set, const uint8_t *const *train,
                                  const uint8_t *const *test) {
    float mean[3], std[3];
    mdm_dataset_statistics(train, set->train_count, set->height, set->width, set->channels, mean, std);
    for (int c = 0; c < set->channels; c++)
        if (!(std[c] > 0))
            return mdm_fail(MDM_INPUT, "%s: all pixels of channel %d of the training pictures are the same", l->path, c);
    hdf5_read_be_quiet();
    l->file = H5Fcreate(temporary, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (l->file < 0) return cannot(l->path, "the file cannot be created");
    mdm_status status = lay_out(l, set, train, test, mean, std);
    if (H5Fclose(l->file) < 0 && status == MDM_OK) status = cannot(l->path, "the file cannot be closed");
    return status == MDM_OK ? write_places(l, temporary) : status;
}

mdm_status mdm_dataset_write(const char *path, const mdm_dataset *set, const uint8_t *const *train,
                             const uint8_t *const *test, int force) {
    char temporary[PATH_MAX];
    struct stat state;
    if (!force && stat(path, &state) == 0)
        return mdm_fail(MDM_USAGE, "%s exists already; --force replaces it", path);
    MDM_TRY(check_set(path, set));
    MDM_TRY(create_temporary(path, temporary, sizeof temporary));
    layout l = {.file = -1, .path = path, .picture_bytes = (int64_t)set->height * set->width * set->channels};
    mdm_status status = write_temporary(&l, temporary, set, train, test);
    if (status == MDM_OK && rename(temporary, path) != 0)
        status = mdm_fail(MDM_RESOURCE, "cannot write %s: %s", path, strerror(errno));
    if (status != MDM_OK)
        unlink(temporary);
    else
        sync_folder_of(path);
    return status;
}
