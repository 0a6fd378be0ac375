/* From an HDF5 file of a user to a checked data set: whatever can be wrong is found here and told in one
 * line.
 *
 * What HDF5 itself decodes is beyond this: release 1.10 can crash on flipped bytes inside its own metadata,
 * which carry no checksum in the old file format. So all this is done by a child process (screen.h), which
 * hands over what it found (dataset_pack.h). */
#include "dataset_read.h"
#include "dataset_chunks.h"
#include "dataset_find.h"
#include "dataset_hdf5.h"
#include "dataset_pack.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NOTE = 65536 }; /* bytes of an attribute */

/* Shape and places of a split's pictures, which must all be of one size. */
static mdm_status read_split(const mdm_reader *r, int split, mdm_dataset *d) {
    mdm_places *p;
    MDM_TRY(mdm_dataset_find_pictures(r, split, &d->places[split]));
    p = d->places[split];
    if (d->height && (d->height != p->height || d->width != p->width || d->channels != p->channels))
        return mdm_fail(MDM_INPUT, "%s: %s holds pictures of %dx%dx%d, %s of %dx%dx%d", r->path,
                        mdm_places_name(p), p->height, p->width, p->channels, mdm_places_name(d->places[0]),
                        d->height, d->width, d->channels);
    d->height = p->height;
    d->width = p->width;
    d->channels = p->channels;
    *(split ? &d->test_count : &d->train_count) = p->count;
    return MDM_OK;
}

static mdm_status read_labels(const mdm_reader *r, const char *name, int64_t count, int lowest,
                              int32_t **labels) {
    hsize_t dims[1];
    hid_t array;
    int64_t *wide = NULL;
    MDM_TRY(mdm_reader_open_array(r, name, 1, dims, &array));
    mdm_status status = mdm_reader_check_type(r, name, array, 0);
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

/* Strings of any length, which HDF5 allocates. */
static mdm_status read_variable(const mdm_reader *r, const char *name, hid_t array, hid_t type, int64_t count,
                                char **strings) {
    char **variable;
    MDM_TRY(MDM_ALLOCATE(variable, count, "names"));
    hid_t memory = H5Tcopy(H5T_C_S1), space = H5Dget_space(array);
    mdm_status status = MDM_OK;
    int is_read = space >= 0 && H5Tset_size(memory, H5T_VARIABLE) >= 0 &&
                  H5Tset_cset(memory, H5Tget_cset(type)) >= 0 &&
                  H5Dread(array, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, variable) >= 0;
    if (!is_read) status = mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", r->path, name);
    for (int64_t i = 0; status == MDM_OK && i < count; i++)
        if (!(strings[i] = strdup(variable[i] ? variable[i] : "")))
            status = mdm_fail(MDM_RESOURCE, "out of memory for names");
    if (is_read) H5Dvlen_reclaim(memory, space, H5P_DEFAULT, variable);
    H5Tclose(memory);
    H5Sclose(space);
    free(variable);
    return status;
}

/* Strings in fields of one width. */
static mdm_status read_fixed(const mdm_reader *r, const char *name, hid_t array, hid_t type, int64_t count,
                             char **strings) {
    size_t size = H5Tget_size(type);
    char *fixed;
    if (size == 0 || size > 65536)
        return mdm_fail(MDM_INPUT, "%s: the strings of %s are empty or too long", r->path, name);
    MDM_TRY(mdm_allocate((void **)&fixed, count, (long long)size, "names"));
    mdm_status status = MDM_OK;
    if (H5Dread(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, fixed) < 0)
        status = mdm_fail(MDM_INPUT, "%s: %s cannot be read; the file is damaged", r->path, name);
    for (int64_t i = 0; status == MDM_OK && i < count; i++)
        if (!(strings[i] = strndup(fixed + (size_t)i * size, size)))
            status = mdm_fail(MDM_RESOURCE, "out of memory for names");
    free(fixed);
    return status;
}

/* A list of strings; *count is how many there must be, -1: as many as there are. */
static mdm_status read_strings(const mdm_reader *r, const char *name, int64_t *count, char ***strings) {
    hsize_t dims[1];
    hid_t array;
    MDM_TRY(mdm_reader_open_array(r, name, 1, dims, &array));
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
    if (status == MDM_OK)
        status = (variable_length ? read_variable : read_fixed)(r, name, array, type, *count, *strings);
    H5Tclose(type);
    H5Dclose(array);
    return status;
}

/* Whether the root group has the attribute; what cannot be told is a damage. */
static mdm_status has_attribute(const mdm_reader *r, const char *name, int *found) {
    htri_t there = H5Aexists(r->file, name);
    *found = there > 0;
    if (there >= 0) return MDM_OK;
    return mdm_fail(MDM_INPUT, "%s: its attributes cannot be read; the file is damaged", r->path);
}

/* mean or std: one finite number per channel. *found tells whether the attribute is there. */
static mdm_status read_statistic(const mdm_reader *r, const char *name, int channels, float *values,
                                 int *found) {
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

/* The one text that an attribute holds, cut to the room; 0 where it holds none. */
static int read_text(hid_t attribute, char *text, size_t room) {
    hid_t type = H5Aget_type(attribute);
    int is_one = H5Tget_class(type) == H5T_STRING && mdm_reader_elements(attribute) == 1, found = 0;
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

static mdm_status check_format(const mdm_reader *r) {
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
        if (mdm_reader_elements(attribute) != 1 || H5Aread(attribute, H5T_NATIVE_INT, &version) < 0)
            version = 0;
        H5Aclose(attribute);
        if (version != 1)
            return mdm_fail(MDM_INPUT, "%s has format_version %d; this program reads version 1", r->path,
                            version);
    }
    return MDM_OK;
}

static mdm_status check_label_range(const mdm_reader *r, const mdm_dataset *d, const char *name,
                                    const int32_t *labels, int64_t count) {
    for (int64_t i = 0; labels && i < count; i++)
        if (labels[i] >= d->classes)
            return mdm_fail(MDM_INPUT,
                            "%s: %s of sample %lld is %d, but class_names has %d classes (0 to %d)", r->path,
                            name, (long long)i, labels[i], d->classes, d->classes - 1);
    return MDM_OK;
}

static mdm_status count_classes(const mdm_reader *r, mdm_dataset *d) {
    if (mdm_reader_has(r, "/class_names")) {
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

static mdm_status read_parts(const mdm_reader *r, mdm_dataset *d, int *has_statistics) {
    int has_mean, has_std;
    MDM_TRY(check_format(r));
    MDM_TRY(read_split(r, 0, d));
    MDM_TRY(read_labels(r, "/train/labels", d->train_count, 0, &d->train_labels));
    if (mdm_reader_has(r, "/train/true_labels"))
        MDM_TRY(read_labels(r, "/train/true_labels", d->train_count, -1, &d->true_labels));
    if (mdm_reader_has(r, "/train/ids")) {
        int64_t count = d->train_count;
        MDM_TRY(read_strings(r, "/train/ids", &count, &d->ids));
    }
    if (mdm_reader_has(r, "/test/images") || mdm_reader_has(r, "/test/labels") ||
        mdm_dataset_is_encoded(r->file, 1)) {
        MDM_TRY(read_split(r, 1, d));
        MDM_TRY(read_labels(r, "/test/labels", d->test_count, 0, &d->test_labels));
    }
    MDM_TRY(count_classes(r, d));
    MDM_TRY(read_statistic(r, "mean", d->channels, d->mean, &has_mean));
    MDM_TRY(read_statistic(r, "std", d->channels, d->std, &has_std));
    *has_statistics = has_mean && has_std;
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

static mdm_status read_file(const char *path, mdm_dataset *d, int *has_statistics) {
    mdm_reader r = {.path = path};
    MDM_TRY(mdm_reader_open(path, &r.file));
    mdm_status status = read_parts(&r, d, has_statistics);
    if (status == MDM_OK && H5Aiterate2(r.file, H5_INDEX_NAME, H5_ITER_INC, NULL, collect_note, d) < 0)
        status = mdm_fail(MDM_INPUT, "%s: its attributes cannot be read; the file is damaged", path);
    H5Fclose(r.file);
    return status;
}

/* Chunks are looked through before anything is begun with them, where that takes a second or two at most;
 * those of larger sets are told when they are read. */
static mdm_status check_chunks(const char *path, const mdm_places *places) {
    enum { MOST = 256 << 20 };
    mdm_chunks *chunks;
    if (!places || places->kind != MDM_PLACES_CHUNKED ||
        places->count > MOST / ((int64_t)places->height * places->width * places->channels))
        return MDM_OK;
    MDM_TRY(mdm_chunks_open(path, places, &chunks));
    mdm_status status = mdm_chunks_check(chunks);
    mdm_chunks_close(chunks);
    return status;
}

/* Memory that does not suffice here is the file's fault. */
mdm_status mdm_dataset_examine(const char *path, mdm_text *found) {
    mdm_dataset *d;
    int has_statistics;
    MDM_TRY(MDM_ALLOCATE(d, 1, "a data set"));
    mdm_status status = read_file(path, d, &has_statistics);
    for (int split = 0; status == MDM_OK && split < 2; split++) status = check_chunks(path, d->places[split]);
    if (status == MDM_OK) mdm_dataset_pack(d, has_statistics, found);
    mdm_dataset_destroy(d);
    return status;
}
