/* From the networks' scores of all samples to divisions/epoch-NNNN.h5, and back. The tables below name every
 * array once. */
#include "mdm/report/division_file.h"

#include "hdf5_image.h"
#include "mdm/base/text.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT_VERSION = 1, LOSS = 0, CLEAN, OOD, SPLIT, NEIGHBOUR, SIMILARITY, EMBEDDING, LOGITS, ARRAYS };

static const char *const group_names[MDM_DIVISION_NETWORKS] = {"a", "b"};

static const struct {
    const char *name, *description;
    size_t member; /* offset of the pointer */
} arrays[ARRAYS] = {
    [LOSS] = {"loss", "cross-entropy of the network's prediction and the given label, per sample, in nats",
              offsetof(mdm_division_network, loss)},
    [CLEAN] =
        {"clean_probability",
         "posterior of the mixture component with the lower mean loss: how likely the given label is right",
         offsetof(mdm_division_network, clean_probability)},
    [OOD] = {"ood_score",
             "mean cosine distance (0 to 2) to the k nearest other samples in the embedding: large means "
             "that the "
             "picture is unlike all others and may be of no class of this set",
             offsetof(mdm_division_network, ood_score)},
    [SPLIT] = {"split",
               "what this network proposes: 0 removed (out of distribution), 1 labelled (label believed), 2 "
               "unlabelled "
               "(label ignored, picture used); under co-division it trains the other network",
               offsetof(mdm_division_network, split)},
    [NEIGHBOUR] = {"neighbour", "index of the sample whose embedding is the most similar",
                   offsetof(mdm_division_network, neighbour)},
    [SIMILARITY] = {"similarity",
                    "cosine similarity (-1 to 1) of the embeddings of the sample and its neighbour",
                    offsetof(mdm_division_network, similarity)},
    [EMBEDDING] = {"embedding", "the network's features of the sample, before the classifier",
                   offsetof(mdm_division_network, embedding)},
    [LOGITS] = {"logits", "the classifier's output before the softmax",
                offsetof(mdm_division_network, logits)}};

static const struct {
    const char *name;
    size_t member;
    int count;
} numbers[] = {{"gmm_means", offsetof(mdm_division_network, gmm_means), 2},
               {"gmm_variances", offsetof(mdm_division_network, gmm_variances), 2},
               {"gmm_weights", offsetof(mdm_division_network, gmm_weights), 2},
               {"loss_minimum", offsetof(mdm_division_network, loss_minimum), 1},
               {"loss_maximum", offsetof(mdm_division_network, loss_maximum), 1}};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static const void *array_of(const mdm_division_network *network, int array) {
    const void *pointer;
    memcpy(&pointer, (const char *)network + arrays[array].member, sizeof pointer);
    return pointer;
}

static int64_t width_of(const mdm_division_network *network, int array) {
    return array == EMBEDDING ? network->embedding_width : array == LOGITS ? network->classes : 1;
}

static hid_t type_of(int array) {
    return array == SPLIT ? H5T_NATIVE_UINT8 : array == NEIGHBOUR ? H5T_NATIVE_INT32 : H5T_NATIVE_FLOAT;
}

static mdm_status put_network(hid_t file, const char *group, const mdm_division_network *network,
                              int64_t samples) {
    char path[64];
    for (int i = 0; i < ARRAYS; i++) {
        const void *data = array_of(network, i);
        int64_t dims[2] = {samples, width_of(network, i)};
        if (!data && i >= NEIGHBOUR) continue;
        snprintf(path, sizeof path, "%s/%s", group, arrays[i].name);
        MDM_TRY(image_put(file, path, type_of(i), i >= EMBEDDING ? 2 : 1, dims, data));
        MDM_TRY(image_put_text_attribute(file, path, "description", arrays[i].description));
    }
    for (int i = 0; i < NUMBERS; i++)
        MDM_TRY(image_put_attribute(file, group, numbers[i].name, H5T_NATIVE_DOUBLE, numbers[i].count,
                                    (const char *)network + numbers[i].member));
    MDM_TRY(image_put_attribute(file, group, "removed", H5T_NATIVE_INT64, 1, &network->removed));
    return image_put_text_attribute(file, group, "description",
                                    "scores of one network; gmm_means, gmm_variances and gmm_weights are the "
                                    "two-component Gaussian mixture (lower "
                                    "mean first) of the losses scaled to [0, 1] by loss_minimum and "
                                    "loss_maximum; removed counts split = 0");
}

static mdm_status put_division(hid_t file, const mdm_division *division) {
    const int64_t version = FORMAT_VERSION;
    for (int n = 0; n < division->networks; n++)
        MDM_TRY(put_network(file, group_names[n], &division->network[n], division->samples));
    if (division->held_out) {
        MDM_TRY(image_put(file, "held_out", H5T_NATIVE_UINT8, 1, &division->samples, division->held_out));
        MDM_TRY(image_put_text_attribute(file, "held_out", "description",
                                         "1: held out by data.validation; not trained on, but judged"));
    }
    MDM_TRY(image_put_text_attribute(file, ".", "format", "mdm-division"));
    MDM_TRY(image_put_attribute(file, ".", "format_version", H5T_NATIVE_INT64, 1, &version));
    MDM_TRY(image_put_attribute(file, ".", "epoch", H5T_NATIVE_INT64, 1, &division->epoch));
    return image_put_text_attribute(
        file, ".", "description",
        "division of the training samples by Manifold DivideMix after the epoch `epoch`; row i "
        "of every array is sample i of the data set file");
}

mdm_status mdm_division_write(const char *path, const mdm_division *division) {
    hid_t file = -1;
    char *content = NULL;
    size_t bytes = 0;
    if (division->networks < 1 || division->networks > MDM_DIVISION_NETWORKS || division->samples < 0)
        return mdm_fail(MDM_USAGE, "a division of %d networks cannot be written", division->networks);
    MDM_TRY(image_create(0, &file));
    mdm_status status = put_division(file, division);
    if (status != MDM_OK) {
        H5Fclose(file);
        return status;
    }
    MDM_TRY(image_finish(file, 0, &content, &bytes));
    status = mdm_write_file(path, content, bytes);
    free(content);
    return status;
}

static mdm_status get_numbers(hid_t file, const char *path, const char *group, const char *name, hid_t type,
                              int count, void *out) {
    mdm_status status = mdm_fail(MDM_INPUT, "%s: %s lacks its attribute %s", path, group, name);
    hid_t attribute = H5Aexists_by_name(file, group, name, H5P_DEFAULT) > 0
                          ? H5Aopen_by_name(file, group, name, H5P_DEFAULT, H5P_DEFAULT)
                          : -1;
    if (attribute < 0) return status;
    hid_t space = H5Aget_space(attribute), found = H5Aget_type(attribute);
    if (H5Sget_simple_extent_npoints(space) == count && H5Tget_class(found) == H5Tget_class(type) &&
        H5Aread(attribute, type, out) >= 0)
        status = MDM_OK;
    H5Tclose(found);
    H5Sclose(space);
    H5Aclose(attribute);
    return status;
}

/* One array into new memory, its shape checked; the first array of the file sets the number of samples. */
static mdm_status get_array(hid_t file, const char *path, int n, int array, mdm_division *division) {
    char name[64];
    image_dataset set;
    mdm_division_network *network = &division->network[n];
    int rank = array >= EMBEDDING ? 2 : 1;
    snprintf(name, sizeof name, "%s/%s", group_names[n], arrays[array].name);
    MDM_TRY(image_open_dataset(file, path, name, &set));
    hsize_t stored = H5Dget_storage_size(set.id);
    H5Dclose(set.id);
    if (division->samples < 0 && set.rank == 1) division->samples = set.dims[0];
    if (set.rank != rank || set.dims[0] != division->samples)
        return mdm_fail(MDM_INPUT, "%s: %s has not one row for each of the %" PRId64 " samples", path, name,
                        division->samples);
    if ((uint64_t)set.elements > stored) /* declared, but never written: not worth an allocation */
        return mdm_fail(MDM_INPUT, "%s: %s is not all there", path, name);
    if (array == EMBEDDING) network->embedding_width = set.dims[1];
    if (array == LOGITS) network->classes = set.dims[1];
    MDM_TRY(
        mdm_allocate(&division->memory[n][array], set.elements + 1, array == SPLIT ? 1 : 4, "a division"));
    memcpy((char *)network + arrays[array].member, &division->memory[n][array], sizeof(void *));
    return image_get(file, path, name, type_of(array), set.elements, division->memory[n][array]);
}

static mdm_status get_network(hid_t file, const char *path, int n, int with_features,
                              mdm_division *division) {
    mdm_division_network *network = &division->network[n];
    char name[64];
    for (int i = 0; i < ARRAYS; i++) {
        snprintf(name, sizeof name, "%s/%s", group_names[n], arrays[i].name);
        if (i >= EMBEDDING && !with_features) continue;
        if (i >= NEIGHBOUR && !image_has(file, name)) continue;
        MDM_TRY(get_array(file, path, n, i, division));
    }
    for (int64_t i = 0; i < division->samples; i++)
        if (network->split[i] > 2)
            return mdm_fail(MDM_INPUT, "%s: %s/split holds %d, only 0, 1 and 2 mean something", path,
                            group_names[n], network->split[i]);
    for (int i = 0; i < NUMBERS; i++)
        MDM_TRY(get_numbers(file, path, group_names[n], numbers[i].name, H5T_NATIVE_DOUBLE, numbers[i].count,
                            (char *)network + numbers[i].member));
    return get_numbers(file, path, group_names[n], "removed", H5T_NATIVE_INT64, 1, &network->removed);
}

mdm_status mdm_division_read(const char *path, int with_features, mdm_division *division) {
    int64_t version = 0;
    memset(division, 0, sizeof *division);
    division->samples = -1;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return mdm_fail(MDM_INPUT, "cannot open the division %s: it is missing, or not a whole HDF5 file",
                        path);
    mdm_status status = get_numbers(file, path, ".", "format_version", H5T_NATIVE_INT64, 1, &version);
    if (status == MDM_OK && version != FORMAT_VERSION)
        status = mdm_fail(MDM_INPUT, "%s has division format %" PRId64 ", this program knows %d", path,
                          version, FORMAT_VERSION);
    if (status == MDM_OK)
        status = get_numbers(file, path, ".", "epoch", H5T_NATIVE_INT64, 1, &division->epoch);
    for (int n = 0; n < MDM_DIVISION_NETWORKS && status == MDM_OK; n++) {
        if (n > 0 && !image_has(file, group_names[n])) break;
        status = get_network(file, path, n, with_features, division);
        division->networks = n + 1;
    }
    H5Fclose(file);
    if (status != MDM_OK) mdm_division_free(division);
    return status;
}

void mdm_division_free(mdm_division *division) {
    for (int n = 0; n < MDM_DIVISION_NETWORKS; n++)
        for (int i = 0; i < ARRAYS; i++) free(division->memory[n][i]);
    memset(division, 0, sizeof *division);
}
