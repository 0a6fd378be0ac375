/* From an HDF5 file of a user to a checked data set: whatever can be wrong is found here and told in one
 * line.
 *
 * What HDF5 itself decodes is beyond this: release 1.10 can crash on flipped bytes inside its own metadata,
 * which carry no checksum in the old file format. So a child process reads the file (screen.h) and hands over
 * what it found (dataset_pack.h). HDF5 is called in the program's own process only for pictures that it alone
 * can find: chunked and encoded ones. */
#include "dataset_chunks.h"
#include "dataset_encoded.h"
#include "dataset_internal.h"
#include "dataset_pack.h"
#include "screen.h"
#include "workers.h"
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_NOTE = 65536 }; /* bytes of an attribute */

typedef struct reader {
    const char *path;
    hid_t file;
} reader;

void mdm_dataset_quiet(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* our one line is enough */
}

static mdm_status open_file(const char *path, hid_t *file) {
    struct stat info;
    mdm_dataset_quiet();
    if (stat(path, &info) != 0)
        return mdm_fail(MDM_INPUT, "%s: no such data set file; mdm-dist data import makes one", path);
    if (!S_ISREG(info.st_mode)) return mdm_fail(MDM_INPUT, "%s is not a file", path);
    if (H5Fis_hdf5(path) <= 0)
        return mdm_fail(MDM_INPUT, "%s is not an HDF5 file; mdm-dist data import converts other formats",
                        path);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, 0, 1); /* read-only: no locks, which NFS and Lustre may not have */
    *file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (*file < 0)
        return mdm_fail(MDM_INPUT, "%s is damaged or was cut short (HDF5 cannot open it); write it again",
                        path);
    return MDM_OK;
}

/* 0 only for what is known not to be there: where HDF5 cannot tell, reading it will show. */
static int exists(const reader *r, const char *name) {
    char parent[64];
    snprintf(parent, sizeof parent, "%s", name);
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent) {
        *slash = 0;
        if (H5Lexists(r->file, parent, H5P_DEFAULT) == 0) return 0;
    }
    return H5Lexists(r->file, name, H5P_DEFAULT) != 0;
}

/* Whether an external link led out of the file: places of pictures would then mean another one. */
static int is_elsewhere(const reader *r, hid_t array) {
    H5O_info_t ours, its;
    return H5Oget_info2(r->file, &ours, H5O_INFO_BASIC) < 0 ||
           H5Oget_info2(array, &its, H5O_INFO_BASIC) < 0 || ours.fileno != its.fileno;
}

/* Opens a data set of `rank` dimensions and reads its lengths; external storage is refused. */
static mdm_status open_array(const reader *r, const char *name, int rank, hsize_t *dims, hid_t *array) {
    if (!exists(r, name))
        return mdm_fail(MDM_INPUT, "%s: %s is missing; docs/formats.md describes the file", r->path, name);
    *array = H5Dopen2(r->file, name, H5P_DEFAULT);
    if (*array < 0)
        return mdm_fail(MDM_INPUT, "%s: %s cannot be opened as a data set; the file is damaged", r->path,
                        name);
    hid_t space = H5Dget_space(*array), plist = H5Dget_create_plist(*array);
    int actual = H5Sget_simple_extent_ndims(space), external = H5Pget_external_count(plist);
    if (actual == rank && H5Sget_simple_extent_dims(space, dims, NULL) != rank) actual = -1;
    H5Sclose(space);
    H5Pclose(plist);
    mdm_status status = MDM_OK;
    if (actual != rank)
        status = mdm_fail(MDM_INPUT, "%s: %s has %d dimension%s, expected %d", r->path, name, actual,
                          actual == 1 ? "" : "s", rank);
    else if (is_elsewhere(r, *array))
        status = mdm_fail(MDM_INPUT, "%s: %s is a link into another file, which is refused; copy the data",
                          r->path, name);
    else if (external > 0)
        status =
            mdm_fail(MDM_INPUT, "%s: %s keeps its values in other files, which is refused", r->path, name);
    if (status != MDM_OK) H5Dclose(*array);
    return status;
}

static mdm_status check_type(const reader *r, const char *name, hid_t array, int bytes) {
    hid_t type = H5Dget_type(array);
    size_t size = H5Tget_size(type), bits = H5Tget_precision(type);
    int first = H5Tget_offset(type);
    int right = H5Tget_class(type) == H5T_INTEGER && size >= 1 && size <= 8 && bits >= 1 && first >= 0 &&
                bits + (size_t)first <= 8 * size &&
                (bytes == 0 || ((int)size == bytes && H5Tget_sign(type) == H5T_SGN_NONE));
    H5Tclose(type);
    if (right) return MDM_OK;
    return mdm_fail(MDM_INPUT, "%s: %s has the wrong type; expected %s", r->path, name,
                    bytes ? "uint8 (0 to 255)" : "integers (int32)");
}

/* Pictures of a split: shape, type, and where they lie. */
static mdm_status read_pictures(const reader *r, const char *name, mdm_dataset *d, int64_t *count,
                                int64_t *offset) {
    hsize_t dims[4];
    hid_t array;
    MDM_TRY(open_array(r, name, 4, dims, &array));
    mdm_status status = check_type(r, name, array, 1);
    if (status == MDM_OK && dims[0] == 0)
        status = mdm_fail(MDM_INPUT, "%s: %s holds no samples", r->path, name);
    if (status == MDM_OK &&
        (dims[0] > (hsize_t)UINT32_MAX || dims[1] < 1 || dims[2] < 1 || dims[1] > 16383 || dims[2] > 16383))
        status = mdm_fail(MDM_INPUT, "%s: %s has the impossible shape [%llu,%llu,%llu,%llu]", r->path, name,
                          (unsigned long long)dims[0], (unsigned long long)dims[1],
                          (unsigned long long)dims[2], (unsigned long long)dims[3]);
    if (status == MDM_OK && dims[3] != 1 && dims[3] != 3)
        status =
            mdm_fail(MDM_INPUT, "%s: %s has %llu channels; expected [N,H,W,C] with C 1 (grey) or 3 (colour)",
                     r->path, name, (unsigned long long)dims[3]);
    if (status == MDM_OK && d->height &&
        ((hsize_t)d->height != dims[1] || (hsize_t)d->width != dims[2] || (hsize_t)d->channels != dims[3]))
        status = mdm_fail(MDM_INPUT, "%s: %s holds pictures of %llux%llux%llu, /train/images of %dx%dx%d",
                          r->path, name, (unsigned long long)dims[1], (unsigned long long)dims[2],
                          (unsigned long long)dims[3], d->height, d->width, d->channels);
    if (status == MDM_OK) {
        d->height = (int)dims[1];
        d->width = (int)dims[2];
        d->channels = (int)dims[3];
        *count = (int64_t)dims[0];
        haddr_t place = H5Dget_offset(array);
        hsize_t bytes = dims[0] * dims[1] * dims[2] * dims[3];
        struct stat info;
        *offset = place == HADDR_UNDEF ? -1 : (int64_t)place;
        if (*offset >= 0 && (stat(r->path, &info) != 0 || (uint64_t)info.st_size < (uint64_t)place + bytes))
            status =
                mdm_fail(MDM_INPUT, "%s was cut short: %s should reach byte %llu; copy or write it again",
                         r->path, name, (unsigned long long)(place + bytes));
    }
    H5Dclose(array);
    return status;
}

/* The same of a split that is kept as JPEG and PNG files. It has no pictures of fixed place: *offset -1. */
static mdm_status read_encoded(const reader *r, int split, mdm_dataset *d, int64_t *count, int64_t *offset) {
    mdm_encoded *encoded;
    int height, width, channels;
    *offset = -1;
    MDM_TRY(mdm_encoded_open(r->file, r->path, split, &encoded));
    *count = mdm_encoded_get_size(encoded, &height, &width, &channels);
    mdm_status status = MDM_OK;
    if (d->height && (d->height != height || d->width != width || d->channels != channels))
        status = mdm_fail(MDM_INPUT, "%s: /test holds pictures of %dx%dx%d, /train of %dx%dx%d", r->path,
                          height, width, channels, d->height, d->width, d->channels);
    d->height = height;
    d->width = width;
    d->channels = channels;
    mdm_encoded_close(encoded);
    return status;
}

/* Pictures of a split in whichever form it has. */
static mdm_status read_split(const reader *r, int split, mdm_dataset *d, int64_t *offset) {
    int64_t *count = split ? &d->test_count : &d->train_count;
    const char *name = split ? "/test/images" : "/train/images";
    if (!exists(r, name) && mdm_encoded_is_there(r->file, split))
        return read_encoded(r, split, d, count, offset);
    return read_pictures(r, name, d, count, offset);
}

static mdm_status read_labels(const reader *r, const char *name, int64_t count, int lowest,
                              int32_t **labels) {
    hsize_t dims[1];
    hid_t array;
    int64_t *wide = NULL;
    MDM_TRY(open_array(r, name, 1, dims, &array));
    mdm_status status = check_type(r, name, array, 0);
    if (status == MDM_OK && dims[0] != (hsize_t)count)
        status = mdm_fail(MDM_INPUT, "%s: %s has %llu entries for %lld pictures", r->path, name,
                          (unsigned long long)dims[0], (long long)count);
    if (status == MDM_OK) status = MDM_ALLOCATE(wide, count, "labels");
    if (status == MDM_OK) status = MDM_ALLOCATE(*labels, count, "labels");
    if (status == MDM_OK && H5Dread(array, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, wide) < 0)
        status = mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", r->path, name);
    for (int64_t i = 0; status == MDM_OK && i < count; i++) {
        if (wide[i] < lowest || wide[i] > 999999)
            status = mdm_fail(MDM_INPUT, "%s: %s of sample %lld is %lld; expected %d to 999999", r->path,
                              name, (long long)i, (long long)wide[i], lowest);
        (*labels)[i] = (int32_t)wide[i];
    }
    free(wide);
    H5Dclose(array);
    return status;
}

/* A list of strings, of variable or fixed length. */
static mdm_status read_strings(const reader *r, const char *name, int64_t *count, char ***strings) {
    hsize_t dims[1];
    hid_t array;
    MDM_TRY(open_array(r, name, 1, dims, &array));
    hid_t type = H5Dget_type(array);
    htri_t variable_length = H5Tis_variable_str(type);
    mdm_status status = MDM_OK;
    if (H5Tget_class(type) != H5T_STRING || variable_length < 0)
        status = mdm_fail(MDM_INPUT, "%s: %s must hold strings", r->path, name);
    else if (*count >= 0 && dims[0] != (hsize_t)*count)
        status = mdm_fail(MDM_INPUT, "%s: %s has %llu entries, expected %lld", r->path, name,
                          (unsigned long long)dims[0], (long long)*count);
    else if (dims[0] < 1 || dims[0] > (hsize_t)UINT32_MAX)
        status = mdm_fail(MDM_INPUT, "%s: %s is empty", r->path, name);
    if (status == MDM_OK) {
        *count = (int64_t)dims[0];
        status = MDM_ALLOCATE(*strings, *count, "names");
    }
    if (status == MDM_OK && variable_length) {
        char **variable;
        status = MDM_ALLOCATE(variable, *count, "names");
        if (status == MDM_OK) {
            hid_t memory = H5Tcopy(H5T_C_S1), space = H5Dget_space(array);
            int is_read = space >= 0 && H5Tset_size(memory, H5T_VARIABLE) >= 0 &&
                          H5Tset_cset(memory, H5Tget_cset(type)) >= 0 &&
                          H5Dread(array, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, variable) >= 0;
            if (!is_read)
                status = mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", r->path, name);
            for (int64_t i = 0; status == MDM_OK && i < *count; i++)
                if (!((*strings)[i] = strdup(variable[i] ? variable[i] : "")))
                    status = mdm_fail(MDM_RESOURCE, "out of memory for names");
            if (is_read) H5Dvlen_reclaim(memory, space, H5P_DEFAULT, variable);
            H5Tclose(memory);
            H5Sclose(space);
            free(variable);
        }
    } else if (status == MDM_OK) {
        size_t size = H5Tget_size(type);
        char *fixed = NULL;
        if (size == 0 || size > 65536)
            status = mdm_fail(MDM_INPUT, "%s: the strings of %s are empty or too long", r->path, name);
        if (status == MDM_OK) status = mdm_allocate((void **)&fixed, *count, (long long)size, "names");
        if (status == MDM_OK && H5Dread(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, fixed) < 0)
            status = mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", r->path, name);
        for (int64_t i = 0; status == MDM_OK && i < *count; i++)
            if (!((*strings)[i] = strndup(fixed + (size_t)i * size, size)))
                status = mdm_fail(MDM_RESOURCE, "out of memory for names");
        free(fixed);
    }
    H5Tclose(type);
    H5Dclose(array);
    return status;
}

/* Whether the root group has the attribute; what cannot be told is a damage. */
static mdm_status has_attribute(const reader *r, const char *name, int *found) {
    htri_t there = H5Aexists(r->file, name);
    *found = there > 0;
    if (there >= 0) return MDM_OK;
    return mdm_fail(MDM_INPUT, "%s: its attributes cannot be read; the file is damaged", r->path);
}

/* mean or std: one finite number per channel. *found tells whether the attribute is there. */
static mdm_status read_statistic(const reader *r, const char *name, int channels, float *values, int *found) {
    MDM_TRY(has_attribute(r, name, found));
    if (!*found) return MDM_OK;
    hid_t attribute = H5Aopen(r->file, name, H5P_DEFAULT), space = H5Aget_space(attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    float buffer[3];
    int good = count == channels && H5Aread(attribute, H5T_NATIVE_FLOAT, buffer) >= 0;
    H5Sclose(space);
    H5Aclose(attribute);
    for (int c = 0; good && c < channels; c++) {
        good = isfinite(buffer[c]) && (strcmp(name, "std") != 0 || buffer[c] > 0);
        values[c] = buffer[c];
    }
    if (good) return MDM_OK;
    return mdm_fail(
        MDM_INPUT, "%s: the attribute %s must hold %d finite number%s%s; without it they are computed",
        r->path, name, channels, channels > 1 ? "s" : "", strcmp(name, "std") == 0 ? " above 0" : "");
}

/* Numbers in an attribute: what is read into a single variable must be one. */
static hssize_t elements(hid_t attribute) {
    hid_t space = H5Aget_space(attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    return count;
}

/* The one text that an attribute holds, cut to the room; 0 where it holds none. */
static int read_text(hid_t attribute, char *text, size_t room) {
    hid_t type = H5Aget_type(attribute);
    int is_one = H5Tget_class(type) == H5T_STRING && elements(attribute) == 1, found = 0;
    htri_t variable = is_one ? H5Tis_variable_str(type) : -1;
    size_t size = H5Tget_size(type);
    char *its = NULL;
    memset(text, 0, room);
    if (variable > 0 && H5Aread(attribute, type, &its) >= 0 && its) {
        snprintf(text, room, "%s", its);
        H5free_memory(its);
        found = 1;
    }
    if (variable == 0 && size > 0 && size < room) found = H5Aread(attribute, type, text) >= 0;
    H5Tclose(type);
    return found;
}

static mdm_status check_format(const reader *r) {
    int found;
    MDM_TRY(has_attribute(r, "format", &found));
    if (found) {
        hid_t attribute = H5Aopen(r->file, "format", H5P_DEFAULT);
        char text[64];
        int ours = read_text(attribute, text, sizeof text) && strcmp(text, "mdm-dataset") == 0;
        H5Aclose(attribute);
        if (!ours)
            return mdm_fail(MDM_INPUT,
                            "%s: the attribute format is not \"mdm-dataset\"; is this the right file?",
                            r->path);
    }
    MDM_TRY(has_attribute(r, "format_version", &found));
    if (found) {
        hid_t attribute = H5Aopen(r->file, "format_version", H5P_DEFAULT);
        int version = 0;
        if (elements(attribute) != 1 || H5Aread(attribute, H5T_NATIVE_INT, &version) < 0) version = 0;
        H5Aclose(attribute);
        if (version != 1)
            return mdm_fail(MDM_INPUT, "%s has format_version %d; this program reads version 1", r->path,
                            version);
    }
    return MDM_OK;
}

static mdm_status check_label_range(const reader *r, const mdm_dataset *d, const char *name,
                                    const int32_t *labels, int64_t count) {
    for (int64_t i = 0; labels && i < count; i++)
        if (labels[i] >= d->classes)
            return mdm_fail(MDM_INPUT,
                            "%s: %s of sample %lld is %d, but class_names has %d classes (0 to %d)", r->path,
                            name, (long long)i, labels[i], d->classes, d->classes - 1);
    return MDM_OK;
}

static mdm_status count_classes(const reader *r, mdm_dataset *d) {
    if (exists(r, "/class_names")) {
        int64_t count = -1;
        mdm_status status = read_strings(r, "/class_names", &count, &d->class_names);
        if (d->class_names) d->classes = (int)count; /* so many are to be freed */
        MDM_TRY(status);
        MDM_TRY(check_label_range(r, d, "/train/labels", d->train_labels, d->train_count));
        MDM_TRY(check_label_range(r, d, "/train/true_labels", d->true_labels, d->train_count));
        MDM_TRY(check_label_range(r, d, "/test/labels", d->test_labels, d->test_count));
    } else {
        int largest = 0;
        for (int64_t i = 0; i < d->train_count; i++)
            largest = d->train_labels[i] > largest ? d->train_labels[i] : largest;
        for (int64_t i = 0; i < d->test_count; i++)
            largest = d->test_labels[i] > largest ? d->test_labels[i] : largest;
        d->classes = largest + 1;
        MDM_TRY(check_label_range(r, d, "/train/true_labels", d->true_labels, d->train_count));
    }
    if (d->classes < 2)
        return mdm_fail(MDM_INPUT, "%s: %s; at least 2 classes are needed", r->path,
                        d->class_names ? "class_names has a single class" : "all labels are 0");
    return MDM_OK;
}

static mdm_status read_parts(const reader *r, mdm_dataset *d, mdm_dataset_places *places) {
    int has_mean, has_std;
    places->offset[1] = -1;
    MDM_TRY(check_format(r));
    MDM_TRY(read_split(r, 0, d, &places->offset[0]));
    MDM_TRY(read_labels(r, "/train/labels", d->train_count, 0, &d->train_labels));
    if (exists(r, "/train/true_labels"))
        MDM_TRY(read_labels(r, "/train/true_labels", d->train_count, -1, &d->true_labels));
    if (exists(r, "/train/ids")) {
        int64_t count = d->train_count;
        MDM_TRY(read_strings(r, "/train/ids", &count, &d->ids));
    }
    if (exists(r, "/test/images") || exists(r, "/test/labels") || mdm_encoded_is_there(r->file, 1)) {
        MDM_TRY(read_split(r, 1, d, &places->offset[1]));
        MDM_TRY(read_labels(r, "/test/labels", d->test_count, 0, &d->test_labels));
    }
    MDM_TRY(count_classes(r, d));
    MDM_TRY(read_statistic(r, "mean", d->channels, d->mean, &has_mean));
    MDM_TRY(read_statistic(r, "std", d->channels, d->std, &has_std));
    places->has_statistics = has_mean && has_std;
    return MDM_OK;
}

static herr_t collect_note(hid_t file, const char *name, const H5A_info_t *info, void *context) {
    (void)info;
    static const char *const known[] = {"format", "format_version", "mean", "std", "picture_size"};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, known[i]) == 0) return 0;
    mdm_dataset *d = context;
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    char text[MOST_NOTE];
    int kept = d->note_count < MDM_MOST_NOTES && read_text(attribute, text, sizeof text) &&
               mdm_dataset_add_note(d, name, text) == MDM_OK;
    (void)kept; /* out of memory: the note is dropped, it is only for people */
    H5Aclose(attribute);
    return 0;
}

static mdm_status read_opened(const char *path, mdm_dataset **out, mdm_dataset_places *places) {
    reader r = {.path = path};
    mdm_dataset *d;
    *out = NULL;
    MDM_TRY(open_file(path, &r.file));
    mdm_status status = MDM_ALLOCATE(d, 1, "a data set");
    if (status == MDM_OK) {
        status = read_parts(&r, d, places);
        if (status == MDM_OK && H5Aiterate2(r.file, H5_INDEX_NAME, H5_ITER_INC, NULL, collect_note, d) < 0)
            status = mdm_fail(MDM_INPUT, "%s: its attributes cannot be read; the file is damaged", path);
        if (status != MDM_OK)
            mdm_dataset_destroy(d);
        else
            *out = d;
    }
    H5Fclose(r.file);
    return status;
}

static int64_t picture_bytes(const mdm_dataset *d) {
    return (int64_t)d->height * d->width * d->channels;
}

/* What the child does. Memory that does not suffice there is the file's fault. */
static mdm_status examine(const char *path, mdm_text *found) {
    mdm_dataset *d;
    mdm_dataset_places places;
    mdm_status status = read_opened(path, &d, &places);
    if (status == MDM_OK) status = mdm_dataset_check_chunks(path, d, &places);
    if (status == MDM_OK) mdm_dataset_pack(d, &places, found);
    mdm_dataset_destroy(d);
    return status;
}

/* What is told without HDF5's reading the file comes first, so that no process is made for it. */
static mdm_status read_file(const char *path, mdm_dataset **out, mdm_dataset_places *places) {
    struct stat info;
    mdm_text found = {0};
    *out = NULL;
    if (stat(path, &info) != 0)
        return mdm_fail(MDM_INPUT, "%s: no such data set file; mdm-dist data import makes one", path);
    if (!S_ISREG(info.st_mode)) return mdm_fail(MDM_INPUT, "%s is not a file", path);
    mdm_status status = mdm_screen_file(path, examine, &found);
    if (status == MDM_OK)
        status = mdm_dataset_unpack(path, (int64_t)info.st_size, found.data, found.length, out, places);
    free(found.data);
    return status;
}

static mdm_status bring_pictures(const char *path, int split, int64_t place, int64_t count, int64_t bytes,
                                 uint8_t **images) {
    MDM_TRY(mdm_allocate((void **)images, count, bytes, "pictures"));
    return mdm_dataset_read_images_at(path, split, place, bytes, 0, count, *images);
}

mdm_status mdm_dataset_read(const char *path, mdm_dataset **out) {
    mdm_dataset *d;
    mdm_dataset_places places;
    *out = NULL;
    MDM_TRY(read_file(path, &d, &places));
    mdm_status status =
        bring_pictures(path, 0, places.offset[0], d->train_count, picture_bytes(d), &d->train_images);
    if (status == MDM_OK && d->test_count > 0)
        status = bring_pictures(path, 1, places.offset[1], d->test_count, picture_bytes(d), &d->test_images);
    if (status != MDM_OK) {
        mdm_dataset_destroy(d);
        return status;
    }
    if (!places.has_statistics) mdm_dataset_statistics(d);
    *out = d;
    return MDM_OK;
}

mdm_status mdm_dataset_read_labels(const char *path, mdm_dataset **out, int64_t offset[2]) {
    mdm_dataset *d;
    mdm_dataset_places places;
    *out = NULL;
    MDM_TRY(read_file(path, &d, &places));
    mdm_status status =
        places.has_statistics ? MDM_OK : mdm_dataset_stream_statistics(path, places.offset[0], d);
    if (status != MDM_OK) {
        mdm_dataset_destroy(d);
        return status;
    }
    memcpy(offset, places.offset, sizeof places.offset);
    *out = d;
    return MDM_OK;
}

mdm_status mdm_dataset_open_images(const char *path, int split, hid_t *file, hid_t *array, hsize_t dims[4]) {
    reader r = {path, H5I_INVALID_HID};
    *file = *array = H5I_INVALID_HID;
    MDM_TRY(open_file(path, &r.file));
    mdm_status status = open_array(&r, split == 0 ? "/train/images" : "/test/images", 4, dims, array);
    if (status == MDM_OK)
        *file = r.file;
    else {
        *array = H5I_INVALID_HID;
        H5Fclose(r.file);
    }
    return status;
}

mdm_status mdm_dataset_open_encoded(const char *path, int split, mdm_encoded **encoded) {
    hid_t file;
    *encoded = NULL;
    MDM_TRY(open_file(path, &file));
    reader r = {path, file};
    mdm_status status = MDM_OK;
    if (!exists(&r, split ? "/test/images" : "/train/images") && mdm_encoded_is_there(file, split))
        status = mdm_encoded_open(file, path, split, encoded);
    H5Fclose(file);
    return status;
}

static mdm_status decode_images(mdm_encoded *encoded, const char *path, int64_t first, int64_t count,
                                uint8_t *images) {
    int height, width, channels;
    mdm_status status = first + count <= mdm_encoded_get_size(encoded, &height, &width, &channels)
                            ? mdm_encoded_read(encoded, mdm_workers_count(1), first, count, images)
                            : mdm_fail(MDM_INPUT, "%s was changed while it was in use; start again", path);
    mdm_encoded_close(encoded);
    return status;
}

/* Reads `bytes` bytes at `at` of the file, without HDF5. */
mdm_status mdm_dataset_read_place(const char *path, int64_t at, int64_t bytes, uint8_t *to) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    mdm_status status = MDM_OK;
    while (status == MDM_OK && bytes > 0) {
        ssize_t got = pread(descriptor, to, (size_t)bytes, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            status = mdm_fail(MDM_INPUT, "%s cannot be read any more: %s", path,
                              got < 0 ? strerror(errno) : "it was cut short while in use");
            break;
        }
        to += got;
        at += got;
        bytes -= got;
    }
    close(descriptor);
    return status;
}

/* Rows [first, first + count) of an open array of pictures: by their place where there is one. */
static mdm_status read_rows(const char *path, int split, hid_t array, const hsize_t dims[4], int64_t first,
                            int64_t count, uint8_t *images) {
    int64_t row = (int64_t)(dims[1] * dims[2] * dims[3]);
    haddr_t place = H5Dget_offset(array);
    if ((hsize_t)(first + count) > dims[0])
        return mdm_fail(MDM_INPUT, "%s was changed while it was in use; start again", path);
    if (place != HADDR_UNDEF)
        return mdm_dataset_read_place(path, (int64_t)place + first * row, count * row, images);
    hsize_t start[4] = {(hsize_t)first, 0, 0, 0}, size[4] = {(hsize_t)count, dims[1], dims[2], dims[3]};
    hid_t space = H5Dget_space(array), memory = H5Screate_simple(4, size, NULL);
    mdm_status status = MDM_OK;
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) < 0 ||
        H5Dread(array, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, images) < 0)
        status =
            mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged or changed while it was in use",
                     path, split == 0 ? "/train/images" : "/test/images");
    H5Sclose(space);
    H5Sclose(memory);
    return status;
}

mdm_status mdm_dataset_read_images(const char *path, int split, int64_t first, int64_t count,
                                   uint8_t *images) {
    hsize_t dims[4];
    hid_t file, array;
    mdm_encoded *encoded;
    if (count == 0) return MDM_OK;
    MDM_TRY(mdm_dataset_open_encoded(path, split, &encoded));
    if (encoded) return decode_images(encoded, path, first, count, images);
    MDM_TRY(mdm_dataset_open_images(path, split, &file, &array, dims));
    reader r = {path, file};
    mdm_status status = check_type(&r, split == 0 ? "/train/images" : "/test/images", array, 1);
    if (status == MDM_OK) status = read_rows(path, split, array, dims, first, count, images);
    H5Dclose(array);
    H5Fclose(file);
    return status;
}

mdm_status mdm_dataset_read_images_at(const char *path, int split, int64_t place, int64_t bytes,
                                      int64_t first, int64_t count, uint8_t *images) {
    if (place < 0) return mdm_dataset_read_images(path, split, first, count, images);
    return mdm_dataset_read_place(path, place + first * bytes, count * bytes, images);
}
