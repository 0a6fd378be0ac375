/* From a path to a checked data set: labels, names and statistics in memory, pictures ready to be read. What a user can get
 * wrong is found here, in the order in which it is best told. */
#include "dataset_file.h"

#include "mdm/base/log.h"
#include "mdm/base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT_VERSION = 1, LONGEST_SIDE = 16383, BLOCK_BYTES = 16 << 20, LONGEST_NOISE_TEXT = 32768 };

const char *const dataset_image_names[2] = {"/train/images", "/test/images"};
static const char *const label_names[2] = {"/train/labels", "/test/labels"};

void mdm_dataset_release(mdm_dataset *set) {
    free(set->train_labels);
    free(set->true_labels);
    free(set->test_labels);
    free(set->class_names);
    free(set->ids);
    free(set->noise);
    memset(set, 0, sizeof *set);
}

void mdm_dataset_close(mdm_dataset_file *file) {
    if (!file) return;
    mdm_dataset_release(&file->set);
    for (int split = 0; split < 2; split++) hdf5_read_close_set(&file->images[split]);
    if (file->file >= 0) H5Fclose(file->file);
    free(file->path);
    free(file);
}

const mdm_dataset *mdm_dataset_get(const mdm_dataset_file *file) {
    return &file->set;
}

int64_t mdm_dataset_offset(const mdm_dataset_file *file, mdm_split split) {
    return file->images[split].offset;
}

static mdm_status check_format(mdm_dataset_file *file) {
    char format[64], quoted[128];
    double version = 0;
    int found = hdf5_read_text_attribute(file->file, "format", format, sizeof format);
    if (found == 0)
        return mdm_fail(MDM_INPUT,
                        "%s lacks the root attribute format; it must be \"mdm-dataset\" (h5py: "
                        "f.attrs['format'] = 'mdm-dataset')",
                        file->path);
    if (found < 0 || strcmp(format, "mdm-dataset") != 0)
        return mdm_fail(MDM_INPUT, "%s: root attribute format is \"%s\", it must be \"mdm-dataset\"; is this a data set file?",
                        file->path, mdm_printable(format, quoted, sizeof quoted));
    found = hdf5_read_number_attribute(file->file, "format_version", &version, 1);
    if (found <= 0)
        return mdm_fail(MDM_INPUT, "%s: root attribute format_version is missing or no number; it must be %d", file->path,
                        FORMAT_VERSION);
    if (version != FORMAT_VERSION)
        return mdm_fail(MDM_INPUT, "%s has format_version %g, this program reads version %d; make it again or use a newer program",
                        file->path, version, FORMAT_VERSION);
    return MDM_OK;
}

static mdm_status check_image_shape(const mdm_dataset_file *file, int split) {
    const hdf5_set *images = &file->images[split];
    const char *name = dataset_image_names[split], *path = file->path;
    const int64_t *d = images->dims;
    if (images->kind != H5T_INTEGER || images->size != 1 || images->is_signed)
        return mdm_fail(MDM_INPUT, "%s: %s must be uint8 pixels from 0 to 255, not %s; convert it (numpy: astype('uint8'))",
                        path, name, images->kind == H5T_FLOAT ? "floats" : "another type");
    if (images->rank != 4)
        return mdm_fail(MDM_INPUT, "%s: %s has %d dimensions, it must have 4: [N,H,W,C]%s", path, name, images->rank,
                        images->rank == 3 ? "; for grey pictures add one (numpy: x[..., None])" : "");
    if (d[0] == 0) return mdm_fail(MDM_INPUT, "%s: %s holds no samples", path, name);
    if (d[3] != 1 && d[3] != 3)
        return mdm_fail(MDM_INPUT, "%s: %s is [%lld,%lld,%lld,%lld]; the last dimension, the channels, must be 1 or 3%s", path,
                        name, (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3],
                        d[1] == 1 || d[1] == 3 ? " (numpy: x.transpose(0, 2, 3, 1))" : "");
    if (d[1] < 1 || d[2] < 1 || d[1] > LONGEST_SIDE || d[2] > LONGEST_SIDE)
        return mdm_fail(MDM_INPUT, "%s: pictures of %s are %lld x %lld pixels; sides must be from 1 to %d", path, name,
                        (long long)d[1], (long long)d[2], LONGEST_SIDE);
    return MDM_OK;
}

static mdm_status open_images(mdm_dataset_file *file) {
    mdm_dataset *set = &file->set;
    if (!hdf5_read_has(file->file, dataset_image_names[MDM_TRAIN]) && hdf5_read_has(file->file, "/train/encoded"))
        return mdm_fail(MDM_INPUT, "%s holds encoded pictures (/train/encoded), which this version does not read; store pixels as /train/images",
                        file->path);
    for (int split = 0; split < 2; split++) {
        hdf5_set *images = &file->images[split];
        MDM_TRY(hdf5_read_open_set(file->file, file->path, dataset_image_names[split], split == MDM_TEST, images));
        if (images->id >= 0) MDM_TRY(check_image_shape(file, split));
    }
    const int64_t *train = file->images[MDM_TRAIN].dims, *test = file->images[MDM_TEST].dims;
    set->train_count = train[0];
    set->height = (int)train[1];
    set->width = (int)train[2];
    set->channels = (int)train[3];
    if (file->images[MDM_TEST].id < 0) return MDM_OK;
    set->test_count = test[0];
    if (memcmp(train + 1, test + 1, 3 * sizeof *train) != 0)
        return mdm_fail(MDM_INPUT,
                        "%s: pictures of /test/images are [%lld,%lld,%lld], those of /train/images [%lld,%lld,%lld]; "
                        "both must have one shape",
                        file->path, (long long)test[1], (long long)test[2], (long long)test[3], (long long)train[1],
                        (long long)train[2], (long long)train[3]);
    return MDM_OK;
}

mdm_status dataset_check_labels(const char *path, const char *name, const int32_t *labels, int64_t count, int32_t lowest,
                                int classes) {
    int64_t wrong = 0, first = -1;
    for (int64_t i = 0; i < count; i++)
        if (labels[i] < lowest || labels[i] >= classes) {
            if (wrong++ == 0) first = i;
        }
    if (wrong == 0) return MDM_OK;
    return mdm_fail(MDM_INPUT, "%s: %s[%lld] is %d, labels must be from %d to %d (%lld such sample%s); correct them", path,
                    name, (long long)first, labels[first], lowest, classes - 1, (long long)wrong, wrong > 1 ? "s" : "");
}

static mdm_status narrow_labels(const char *path, const char *name, const int64_t *wide, int64_t count, int32_t *labels) {
    for (int64_t i = 0; i < count; i++) {
        if (wide[i] < -1 || wide[i] >= INT32_MAX)
            return mdm_fail(MDM_INPUT, "%s: %s[%lld] is %lld, which is no label; labels count from 0", path, name,
                            (long long)i, (long long)wide[i]);
        labels[i] = (int32_t)wide[i];
    }
    return MDM_OK;
}

static mdm_status read_labels(const mdm_dataset_file *file, const char *name, int optional, int64_t expected,
                              const char *images, int32_t **labels) {
    hdf5_set set;
    int64_t *wide = NULL;
    mdm_status status = MDM_OK;
    *labels = NULL;
    MDM_TRY(hdf5_read_open_set(file->file, file->path, name, optional, &set));
    if (set.id < 0) return MDM_OK;
    if (set.kind != H5T_INTEGER || set.size > 8)
        status = mdm_fail(MDM_INPUT, "%s: %s must be int32 class numbers, not %s; convert it (numpy: astype('int32'))",
                          file->path, name, set.kind == H5T_FLOAT ? "floats" : "another type");
    else if (set.rank != 1)
        status = mdm_fail(MDM_INPUT, "%s: %s has %d dimensions, it must have one: [N]%s", file->path, name, set.rank,
                          set.rank == 2 ? " (from one-hot rows, numpy: y.argmax(1))" : "");
    else if (set.dims[0] != expected)
        status = mdm_fail(MDM_INPUT, "%s: %s has %lld entries, %s has %lld pictures; there must be one label a picture",
                          file->path, name, (long long)set.dims[0], images, (long long)expected);
    if (status != MDM_OK) goto end;
    MDM_TRY_OR(status, MDM_ALLOCATE(wide, expected + 1, "labels"), end);
    MDM_TRY_OR(status, hdf5_read_rows(&set, file->path, name, H5T_NATIVE_INT64, 0, expected, wide), end);
    MDM_TRY_OR(status, MDM_ALLOCATE(*labels, expected + 1, "labels"), end);
    status = narrow_labels(file->path, name, wide, expected, *labels);
end:
    free(wide);
    hdf5_read_close_set(&set);
    return status;
}

static mdm_status read_texts(const mdm_dataset_file *file, const char *name, char **texts, int *width, int64_t *count) {
    hdf5_set set;
    *count = -1;
    MDM_TRY(hdf5_read_open_set(file->file, file->path, name, 1, &set));
    if (set.id < 0) return MDM_OK;
    mdm_status status = hdf5_read_texts(&set, file->path, name, texts, width);
    *count = set.elements;
    hdf5_read_close_set(&set);
    return status;
}

static int32_t largest(const int32_t *labels, int64_t count, int32_t than) {
    for (int64_t i = 0; labels && i < count; i++)
        if (labels[i] > than) than = labels[i];
    return than;
}

/* Without names the labels tell the number of classes; one beyond the number of samples is a slip, not a class. */
static mdm_status count_classes(mdm_dataset_file *file, int64_t names) {
    mdm_dataset *set = &file->set;
    int64_t classes = names;
    if (names < 0) {
        classes = (int64_t)largest(set->train_labels, set->train_count, -1) + 1;
        if (classes > set->train_count && classes > 2)
            return mdm_fail(MDM_INPUT, "%s: the largest of /train/labels is %lld, but there are only %lld samples; correct the labels",
                            file->path, (long long)classes - 1, (long long)set->train_count);
        classes = (int64_t)largest(set->true_labels, set->train_count, (int32_t)classes - 1) + 1;
    }
    if (classes < 2)
        return mdm_fail(MDM_INPUT, "%s: %s; at least two classes are needed", file->path,
                        names < 0 ? "all of /train/labels are the same class" : "/class_names has fewer than two names");
    if (classes > 1 << 20)
        return mdm_fail(MDM_INPUT, "%s has %lld classes, more than this program takes (%d)", file->path,
                        (long long)classes, 1 << 20);
    set->classes = (int)classes;
    return MDM_OK;
}

static mdm_status read_all_labels(mdm_dataset_file *file) {
    mdm_dataset *set = &file->set;
    const char *train = dataset_image_names[MDM_TRAIN], *test = dataset_image_names[MDM_TEST];
    int64_t names, ids;
    MDM_TRY(read_labels(file, label_names[MDM_TRAIN], 0, set->train_count, train, &set->train_labels));
    MDM_TRY(read_labels(file, "/train/true_labels", 1, set->train_count, train, &set->true_labels));
    if (set->test_count > 0)
        MDM_TRY(read_labels(file, label_names[MDM_TEST], 0, set->test_count, test, &set->test_labels));
    else if (hdf5_read_has(file->file, label_names[MDM_TEST]))
        return mdm_fail(MDM_INPUT, "%s has /test/labels but no /test/images; add them or remove the labels", file->path);
    MDM_TRY(read_texts(file, "/class_names", &set->class_names, &set->class_name_width, &names));
    MDM_TRY(read_texts(file, "/train/ids", &set->ids, &set->id_width, &ids));
    if (ids >= 0 && ids != set->train_count)
        return mdm_fail(MDM_INPUT, "%s: /train/ids has %lld entries, /train/images has %lld pictures; there must be one id a picture",
                        file->path, (long long)ids, (long long)set->train_count);
    MDM_TRY(count_classes(file, names));
    MDM_TRY(dataset_check_labels(file->path, label_names[MDM_TRAIN], set->train_labels, set->train_count, 0, set->classes));
    if (set->true_labels)
        MDM_TRY(dataset_check_labels(file->path, "/train/true_labels", set->true_labels, set->train_count, -1, set->classes));
    return dataset_check_labels(file->path, label_names[MDM_TEST], set->test_labels, set->test_count, 0, set->classes);
}

void dataset_count_pixels(const uint8_t *pixels, int64_t pictures, int64_t area, int channels, int64_t *histogram) {
    int64_t values = pictures * area * channels;
    if (channels == 1)
        for (int64_t i = 0; i < values; i++) histogram[pixels[i]]++;
    else
        for (int64_t i = 0; i < values; i += 3) {
            histogram[pixels[i]]++;
            histogram[256 + pixels[i + 1]]++;
            histogram[512 + pixels[i + 2]]++;
        }
}

void dataset_histogram_statistics(const int64_t *histogram, int channels, float *mean, float *std) {
    for (int c = 0; c < channels; c++) {
        double count = 0, sum = 0, spread = 0;
        for (int v = 0; v < 256; v++) {
            count += (double)histogram[c * 256 + v];
            sum += (double)histogram[c * 256 + v] * v;
        }
        double middle = count > 0 ? sum / count : 0;
        for (int v = 0; v < 256; v++) spread += (double)histogram[c * 256 + v] * (v - middle) * (v - middle);
        mean[c] = (float)(middle / 255.0);
        std[c] = (float)(count > 0 ? sqrt(spread / count) / 255.0 : 0);
    }
}

void mdm_dataset_statistics(const uint8_t *const *pictures, int64_t count, int height, int width, int channels,
                            float *mean, float *std) {
    int64_t histogram[3 * 256] = {0};
    for (int64_t i = 0; i < count; i++)
        dataset_count_pixels(pictures[i], 1, (int64_t)height * width, channels, histogram);
    dataset_histogram_statistics(histogram, channels, mean, std);
}

static mdm_status compute_statistics(mdm_dataset_file *file, float *mean, float *std) {
    mdm_dataset *set = &file->set;
    int64_t area = (int64_t)set->height * set->width, bytes = area * set->channels, block = BLOCK_BYTES / bytes;
    int64_t histogram[3 * 256] = {0};
    uint8_t *pixels = NULL;
    if (block < 1) block = 1;
    MDM_TRY(MDM_ALLOCATE(pixels, block * bytes, "a block of pictures"));
    mdm_status status = MDM_OK;
    for (int64_t first = 0; status == MDM_OK && first < set->train_count; first += block) {
        int64_t count = set->train_count - first < block ? set->train_count - first : block;
        status = mdm_dataset_read(file, MDM_TRAIN, first, count, pixels);
        if (status == MDM_OK) dataset_count_pixels(pixels, count, area, set->channels, histogram);
    }
    free(pixels);
    dataset_histogram_statistics(histogram, set->channels, mean, std);
    return status;
}

static mdm_status read_statistics(mdm_dataset_file *file) {
    mdm_dataset *set = &file->set;
    double mean[3], std[3];
    float own_mean[3] = {0}, own_std[3] = {0};
    int has_mean = hdf5_read_number_attribute(file->file, "mean", mean, set->channels),
        has_std = hdf5_read_number_attribute(file->file, "std", std, set->channels);
    if (has_mean < 0 || has_std < 0)
        return mdm_fail(MDM_INPUT, "%s: root attribute %s must be %d number%s, one a channel; correct it, or delete it to have it computed",
                        file->path, has_mean < 0 ? "mean" : "std", set->channels, set->channels > 1 ? "s" : "");
    if (!has_mean || !has_std) MDM_TRY(compute_statistics(file, own_mean, own_std));
    for (int c = 0; c < set->channels; c++) {
        set->mean[c] = has_mean ? (float)mean[c] : own_mean[c];
        set->std[c] = has_std ? (float)std[c] : own_std[c];
        if (!isfinite(set->mean[c]) || !isfinite(set->std[c]) || set->std[c] <= 0.0f)
            return mdm_fail(MDM_INPUT, "%s: channel %d has mean %g and std %g, with which pictures cannot be normalised; %s",
                            file->path, c, (double)set->mean[c], (double)set->std[c],
                            has_std ? "correct the root attributes, or delete them to have them computed"
                                    : "all its pixels are the same");
    }
    return MDM_OK;
}

static mdm_status read_noise(mdm_dataset_file *file) {
    double seed = 0;
    char *text = NULL;
    MDM_TRY(MDM_ALLOCATE(text, LONGEST_NOISE_TEXT, "noise settings"));
    if (hdf5_read_text_attribute(file->file, "noise", text, LONGEST_NOISE_TEXT) <= 0) {
        free(text);
        return MDM_OK;
    }
    file->set.noise = text;
    if (hdf5_read_number_attribute(file->file, "noise_seed", &seed, 1) > 0 && fabs(seed) < 9e15)
        file->set.noise_seed = (int64_t)seed;
    return MDM_OK;
}

static mdm_status start(const char *path, mdm_dataset_file **out) {
    mdm_dataset_file *file;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(file, 1, "data set file"));
    file->file = file->images[0].id = file->images[1].id = -1;
    file->path = strdup(path);
    mdm_status status = file->path ? hdf5_read_open(path, &file->file) : mdm_fail(MDM_RESOURCE, "out of memory");
    if (status == MDM_OK) status = check_format(file);
    if (status == MDM_OK) status = open_images(file);
    if (status != MDM_OK)
        mdm_dataset_close(file);
    else
        *out = file;
    return status;
}

mdm_status dataset_open_pictures(const char *path, mdm_dataset_file **out) {
    return start(path, out);
}

mdm_status mdm_dataset_open(const char *path, mdm_dataset_file **out) {
    mdm_status status;
    MDM_TRY(start(path, out));
    MDM_TRY_OR(status, read_all_labels(*out), failed);
    MDM_TRY_OR(status, read_statistics(*out), failed);
    MDM_TRY_OR(status, read_noise(*out), failed);
    return MDM_OK;
failed:
    mdm_dataset_close(*out);
    *out = NULL;
    return status;
}

mdm_status mdm_dataset_read(mdm_dataset_file *file, mdm_split split, int64_t first, int64_t count, uint8_t *out) {
    if (file->images[split].id < 0 || first < 0 || count < 0 || count > file->images[split].dims[0] - first)
        return mdm_fail(MDM_LOST, "pictures %lld to %lld of %s were asked for, which %s does not have", (long long)first,
                        (long long)(first + count), dataset_image_names[split], file->path);
    return hdf5_read_rows(&file->images[split], file->path, dataset_image_names[split], H5T_NATIVE_UINT8, first, count,
                          out);
}
