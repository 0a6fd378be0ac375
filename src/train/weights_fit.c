/* From a stranger's weights file to a network: names are matched without what wrappers put in front of them,
 * shapes are compared, and a table tells what became of every tensor. */
#include "mdm/report/safetensors.h"
#include "mdm/train/weights.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 128, MOST_LINES = 40 };

/* In front of a name, in any order and number: DataParallel, lightning modules, MoCo, SimCLR, BYOL, ... */
static const char *const prefixes[] = {"module.",   "model.",      "encoder.",       "encoder_q.",
                                       "backbone.", "net.",        "network.",       "base_encoder.",
                                       "resnet.",   "state_dict.", "online_encoder."};

/* Parts of a name that mean the same. */
static const struct {
    const char *theirs, *ours;
} synonyms[] = {{"downsample.", "shortcut."}, {"linear.", "fc."}, {"classifier.", "fc."}};

static const char *without_prefixes(const char *name) {
    for (int found = 1; found;) {
        found = 0;
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
            if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
                name += strlen(prefixes[i]);
                found = 1;
            }
    }
    return name;
}

/* The form in which names are compared; 0 when the name is too long to be one of ours. */
static int plain_name(const char *name, char plain[NAME]) {
    size_t used = 0;
    for (name = without_prefixes(name); *name;) {
        const char *piece = name;
        size_t taken = 1, length = 1;
        for (size_t i = 0; i < sizeof synonyms / sizeof *synonyms; i++)
            if (strncmp(name, synonyms[i].theirs, strlen(synonyms[i].theirs)) == 0 &&
                (used == 0 || plain[used - 1] == '.')) {
                piece = synonyms[i].ours;
                length = strlen(piece);
                taken = strlen(synonyms[i].theirs);
            }
        if (used + length >= NAME) return 0;
        memcpy(plain + used, piece, length);
        used += length;
        name += taken;
    }
    plain[used] = 0;
    return 1;
}

static int is_encoder(const mdm_tensor_info *tensor) {
    return strncmp(tensor->name, "encoder.", 8) == 0;
}

static void describe_shape(char *text, size_t size, int rank, const int64_t *shape) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int d = 0; d < rank && used < size; d++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, d ? "," : "", shape[d]);
    if (used < size) snprintf(text + used, size - used, "]");
}

/* What is known while a file is taken in. */
typedef struct fitting {
    mdm_network *network;
    const mdm_safetensors *file;
    char (*plain)[NAME]; /* [tensor_count] of the layout */
    int64_t *source;     /* [tensor_count] index in the file, or -1 */
    mdm_text refused;    /* lines about tensors of the file */
    int refused_lines;
} fitting;

static void refuse(fitting *f, int64_t index, const char *why) {
    char name[160], shape[128];
    int64_t dims[MDM_SAFETENSORS_MAX_RANK];
    int rank = mdm_safetensors_shape(f->file, index, dims);
    if (f->refused_lines++ >= MOST_LINES) return;
    describe_shape(shape, sizeof shape, rank, dims);
    mdm_text_add(&f->refused, "    %s %s: %s\n",
                 mdm_printable(mdm_safetensors_name(f->file, index), name, sizeof name), shape, why);
}

static int find_plain(const fitting *f, const char *plain) {
    for (int i = 0; i < f->network->layout->tensor_count; i++)
        if (strcmp(f->plain[i], plain) == 0) return i;
    return -1;
}

/* One tensor of the file: to the place that its name says, if its shape is right. */
static mdm_status take(fitting *f, int64_t index) {
    const mdm_layout *layout = f->network->layout;
    const char *name = mdm_safetensors_name(f->file, index);
    char plain[NAME], why[256], shape[128];
    int64_t dims[MDM_SAFETENSORS_MAX_RANK];
    size_t length = strlen(name);
    if (length >= 19 && strcmp(name + length - 19, "num_batches_tracked") == 0) return MDM_OK;
    int place = plain_name(name, plain) ? find_plain(f, plain) : -1;
    if (place < 0) {
        snprintf(why, sizeof why, "%s has no such tensor", layout->spec.arch);
        refuse(f, index, why);
        return MDM_OK;
    }
    const mdm_tensor_info *tensor = &layout->tensors[place];
    if (f->source[place] >= 0) {
        char other[160];
        snprintf(why, sizeof why, "%s comes from %s already", tensor->name,
                 mdm_printable(mdm_safetensors_name(f->file, f->source[place]), other, sizeof other));
        refuse(f, index, why);
        return MDM_OK;
    }
    int rank = mdm_safetensors_shape(f->file, index, dims);
    if (rank != tensor->rank || memcmp(dims, tensor->dims, (size_t)rank * sizeof *dims) != 0) {
        describe_shape(shape, sizeof shape, tensor->rank, tensor->dims);
        snprintf(why, sizeof why, "wrong shape, %s of this network is %s", tensor->name, shape);
        refuse(f, index, why);
        return MDM_OK;
    }
    float *to = (tensor->role == MDM_TENSOR_STATISTIC ? f->network->statistics : f->network->weights) +
                tensor->offset;
    MDM_TRY(mdm_safetensors_read(f->file, index, tensor->count, 1, to));
    f->source[place] = index;
    return MDM_OK;
}

/* The row of the table that a tensor is counted in: its first two names within the encoder, else the first.
 */
static void part_of(const mdm_tensor_info *tensor, char part[64]) {
    int dots = is_encoder(tensor) ? 2 : 1;
    size_t used = 0;
    for (; tensor->name[used] && used < 63; used++) {
        if (tensor->name[used] == '.' && --dots == 0) break;
        part[used] = tensor->name[used];
    }
    part[used] = 0;
}

static void add_parts(const fitting *f, mdm_text *table) {
    const mdm_layout *l = f->network->layout;
    mdm_text_add(table, "  %-20s %8s %8s\n", "part", "fitted", "of");
    for (int i = 0; i < l->tensor_count; i++) {
        char part[64], other[64];
        int first = 1, fitted = 0, count = 0;
        part_of(&l->tensors[i], part);
        for (int j = 0; j < l->tensor_count && first; j++) {
            part_of(&l->tensors[j], other);
            if (strcmp(part, other) != 0) continue;
            if (j < i) first = 0;
            count++;
            fitted += f->source[j] >= 0;
        }
        if (first) mdm_text_add(table, "  %-20s %8d %8d\n", part, fitted, count);
    }
}

static void write_table(const fitting *f, const char *path, const mdm_weights_fit *fit, mdm_text *table) {
    const mdm_layout *l = f->network->layout;
    mdm_text_add(table, "%s: %d of %d tensors fitted, %d of %d of the encoder\n", path, fit->fitted,
                 fit->count, fit->encoder_fitted, fit->encoder_count);
    add_parts(f, table);
    if (f->refused_lines) {
        mdm_text_add(table, "  in the file, not taken:\n");
        mdm_text_add_bytes(table, f->refused.data, f->refused.length);
        if (f->refused_lines > MOST_LINES)
            mdm_text_add(table, "    ... and %d more\n", f->refused_lines - MOST_LINES);
    }
    int missing = fit->count - fit->fitted, lines = 0;
    if (missing) mdm_text_add(table, "  not in the file, left as they begin:\n");
    for (int i = 0; i < l->tensor_count; i++) {
        char shape[128];
        if (f->source[i] >= 0 || lines++ >= MOST_LINES) continue;
        describe_shape(shape, sizeof shape, l->tensors[i].rank, l->tensors[i].dims);
        mdm_text_add(table, "    %s %s\n", l->tensors[i].name, shape);
    }
    if (missing > MOST_LINES) mdm_text_add(table, "    ... and %d more\n", missing - MOST_LINES);
}

static mdm_status take_all(fitting *f) {
    const mdm_layout *l = f->network->layout;
    MDM_TRY(MDM_ALLOCATE(f->plain, l->tensor_count, "names of tensors"));
    MDM_TRY(MDM_ALLOCATE(f->source, l->tensor_count, "names of tensors"));
    for (int i = 0; i < l->tensor_count; i++) {
        f->source[i] = -1;
        if (!plain_name(l->tensors[i].name, f->plain[i])) f->plain[i][0] = 0;
    }
    for (int64_t i = 0; i < mdm_safetensors_count(f->file); i++) MDM_TRY(take(f, i));
    return MDM_OK;
}

mdm_status mdm_weights_fit_file(mdm_network *network, const char *path, mdm_text *table,
                                mdm_weights_fit *fit) {
    const mdm_layout *l = network->layout;
    mdm_safetensors *file;
    memset(fit, 0, sizeof *fit);
    MDM_TRY(mdm_network_fetch(network));
    MDM_TRY(mdm_safetensors_open(path, &file));
    fitting f = {.network = network, .file = file};
    mdm_status status = take_all(&f);
    for (int i = 0; status == MDM_OK && i < l->tensor_count; i++) {
        int here = f.source[i] >= 0, encoder = is_encoder(&l->tensors[i]);
        fit->count++;
        fit->fitted += here;
        fit->encoder_count += encoder;
        fit->encoder_fitted += encoder && here;
        fit->statistics_missing += encoder && !here && l->tensors[i].role == MDM_TENSOR_STATISTIC;
    }
    if (status == MDM_OK) write_table(&f, path, fit, table);
    if (status == MDM_OK && (table->failed || f.refused.failed))
        status = mdm_fail(MDM_RESOURCE, "out of memory for the table of fitted weights");
    if (status == MDM_OK && fit->encoder_fitted == 0)
        status =
            mdm_fail(MDM_INPUT,
                     "model.init=%s: nothing in it fits the encoder of %s with model.width=%d; the table "
                     "above tells why",
                     path, l->spec.arch, l->spec.base_width);
    free(f.plain);
    free(f.source);
    free(f.refused.data);
    mdm_safetensors_close(file);
    mdm_network_touch(network);
    return status;
}
