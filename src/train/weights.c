/* A network's own weights files: tensors under PyTorch's names, and notes from which the network can be
 * rebuilt without the run's data. */
#include "mdm/train/weights.h"
#include "mdm/report/safetensors.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CLASSES = 100000 };

static void add_numbers(char *text, size_t size, const float *values, int count) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%.9g", i ? "," : "", (double)values[i]);
}

static char *class_names_text(const mdm_model_notes *notes) {
    mdm_text text = {0};
    mdm_text_add(&text, "[");
    for (int c = 0; notes->class_names && c < notes->spec.classes; c++) {
        if (c) mdm_text_add(&text, ",");
        mdm_text_add_json_string(&text, notes->class_names[c] ? notes->class_names[c] : "");
    }
    mdm_text_add(&text, "]");
    if (!text.failed) return text.data;
    free(text.data);
    return NULL;
}

static void fill_entries(const mdm_network *network, mdm_safetensors_entry *entries) {
    const mdm_layout *l = network->layout;
    for (int i = 0; i < l->tensor_count; i++) {
        const mdm_tensor_info *tensor = &l->tensors[i];
        entries[i].name = tensor->name;
        entries[i].rank = tensor->rank;
        memcpy(entries[i].shape, tensor->dims, sizeof tensor->dims);
        entries[i].data =
            (tensor->role == MDM_TENSOR_STATISTIC ? network->statistics : network->weights) + tensor->offset;
    }
}

mdm_status mdm_weights_write(const mdm_network *network, const mdm_model_notes *notes, const char *path) {
    const mdm_layout *l = network->layout;
    const mdm_network_spec *s = &l->spec;
    mdm_safetensors_entry *entries;
    char width[16], projection[16], classes[16], image[48], mean[64], std[64];
    MDM_TRY(MDM_ALLOCATE(entries, l->tensor_count, "weights"));
    fill_entries(network, entries);
    char *names = class_names_text(notes);
    snprintf(width, sizeof width, "%d", s->base_width);
    snprintf(projection, sizeof projection, "%d", s->projection);
    snprintf(classes, sizeof classes, "%d", s->classes);
    snprintf(image, sizeof image, "%d,%d,%d", s->channels, s->height, s->width);
    add_numbers(mean, sizeof mean, notes->mean, s->channels < 3 ? s->channels : 3);
    add_numbers(std, sizeof std, notes->std, s->channels < 3 ? s->channels : 3);
    const mdm_safetensors_note all[] = {
        {"format", "pt"},           {"arch", s->arch},    {"width", width}, {"image", image},
        {"projection", projection}, {"classes", classes}, {"mean", mean},   {"std", std},
        {"class_names", names}};
    mdm_status status = names ? mdm_safetensors_write(path, entries, l->tensor_count, all, 9)
                              : mdm_fail(MDM_RESOURCE, "out of memory for the notes of %s", path);
    free(names);
    free(entries);
    return status;
}

/* ---- reading ---- */

static int read_numbers(const char *text, int count, double low, double high, double *values) {
    for (int i = 0; i < count; i++) {
        char *end;
        values[i] = strtod(text ? text : "", &end);
        if (!text || end == text || !(values[i] >= low && values[i] <= high) ||
            *end != (i + 1 < count ? ',' : 0))
            return 0;
        text = end + 1;
    }
    return 1;
}

static int read_sizes(const mdm_safetensors *file, mdm_network_spec *s) {
    double image[3], width, projection, classes;
    const char *arch = mdm_safetensors_note_value(file, "arch");
    if (!arch || strlen(arch) >= sizeof s->arch ||
        !read_numbers(mdm_safetensors_note_value(file, "image"), 3, 1, 65536, image) ||
        !read_numbers(mdm_safetensors_note_value(file, "width"), 1, 1, 1024, &width) ||
        !read_numbers(mdm_safetensors_note_value(file, "projection"), 1, 1, 65536, &projection) ||
        !read_numbers(mdm_safetensors_note_value(file, "classes"), 1, 2, MOST_CLASSES, &classes))
        return 0;
    *s = (mdm_network_spec){.base_width = (int)width,
                            .projection = (int)projection,
                            .channels = (int)image[0],
                            .height = (int)image[1],
                            .width = (int)image[2],
                            .classes = (int)classes};
    snprintf(s->arch, sizeof s->arch, "%s", arch);
    return s->channels == 1 || s->channels == 3;
}

static int read_normalisation(const mdm_safetensors *file, mdm_model_notes *notes) {
    double mean[3], std[3];
    int channels = notes->spec.channels;
    if (!read_numbers(mdm_safetensors_note_value(file, "mean"), channels, -1e6, 1e6, mean) ||
        !read_numbers(mdm_safetensors_note_value(file, "std"), channels, 1e-9, 1e6, std))
        return 0;
    for (int c = 0; c < channels; c++) notes->mean[c] = (float)mean[c], notes->std[c] = (float)std[c];
    return 1;
}

static mdm_status read_class_names(const mdm_safetensors *file, mdm_model_notes *notes) {
    const char *text = mdm_safetensors_note_value(file, "class_names");
    json_t *list = text ? json_loads(text, 0, NULL) : NULL;
    mdm_status status = MDM_OK;
    if (json_is_array(list) && (int)json_array_size(list) == notes->spec.classes) {
        status = MDM_ALLOCATE(notes->class_names, notes->spec.classes, "class names");
        for (int c = 0; status == MDM_OK && c < notes->spec.classes; c++) {
            const char *name = json_string_value(json_array_get(list, (size_t)c));
            notes->class_names[c] = strdup(name ? name : "");
            if (!notes->class_names[c]) status = mdm_fail(MDM_RESOURCE, "out of memory for class names");
        }
    }
    json_decref(list);
    return status;
}

mdm_status mdm_model_notes_read(const char *path, mdm_model_notes *notes) {
    mdm_safetensors *file;
    memset(notes, 0, sizeof *notes);
    MDM_TRY(mdm_safetensors_open(path, &file));
    mdm_status status = MDM_OK;
    if (!read_sizes(file, &notes->spec) || !read_normalisation(file, notes))
        status = mdm_fail(MDM_INPUT,
                          "%s does not say which network it is of (notes arch, width, image, mean, ...); it "
                          "was not written by this version",
                          path);
    if (status == MDM_OK) status = read_class_names(file, notes);
    mdm_safetensors_close(file);
    return status;
}

void mdm_model_notes_free(mdm_model_notes *notes) {
    for (int c = 0; notes->class_names && c < notes->spec.classes; c++) free(notes->class_names[c]);
    free(notes->class_names);
    notes->class_names = NULL;
}

static mdm_status read_tensor(const mdm_safetensors *file, const mdm_tensor_info *tensor,
                              mdm_network *network, const char *path) {
    int64_t shape[MDM_SAFETENSORS_MAX_RANK], index = mdm_safetensors_find(file, tensor->name);
    if (index < 0) return mdm_fail(MDM_INPUT, "%s lacks the tensor %s", path, tensor->name);
    int rank = mdm_safetensors_shape(file, index, shape);
    if (rank != tensor->rank || memcmp(shape, tensor->dims, (size_t)rank * sizeof *shape) != 0)
        return mdm_fail(MDM_INPUT, "%s: the tensor %s has another shape than its network", path,
                        tensor->name);
    float *to =
        (tensor->role == MDM_TENSOR_STATISTIC ? network->statistics : network->weights) + tensor->offset;
    return mdm_safetensors_read(file, index, tensor->count, 1, to);
}

mdm_status mdm_weights_read(mdm_network *network, const char *path) {
    mdm_safetensors *file;
    mdm_status status = MDM_OK;
    MDM_TRY(mdm_network_fetch(network));
    MDM_TRY(mdm_safetensors_open(path, &file));
    for (int i = 0; status == MDM_OK && i < network->layout->tensor_count; i++)
        status = read_tensor(file, &network->layout->tensors[i], network, path);
    mdm_safetensors_close(file);
    mdm_network_touch(network);
    return status;
}
