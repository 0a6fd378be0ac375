/* The parsers, each fed with bytes: formats that are read from a folder get one with that file in memory. */
#include "targets.h"
#include "listing.h"
#include "mdm/base/config.h"
#include "mdm/data/import.h"
#include "mdm/data/noise.h"
#include "mdm/data/picture.h"
#include "mdm/report/safetensors.h"
#include "pickle.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_PIXELS = 1 << 20 };

static char folder[64];

static void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) fprintf(stderr, "%s stays\n", folder);
}

/* The path of a file with these bytes in the target's own folder, which lies in memory where the system has
 * one. */
static const char *put_file(const char *name, const void *bytes, size_t size) {
    static char path[256];
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s/mdm-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp");
        if (!mkdtemp(folder)) abort();
        atexit(remove_folder);
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) abort();
    return path;
}

static mdm_status read_idx(const uint8_t *bytes, size_t size) {
    static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 0, 1};
    mdm_dataset *d;
    put_file("train-images-idx3-ubyte", bytes, size);
    put_file("train-labels-idx1-ubyte", labels, sizeof labels);
    mdm_status status = mdm_import_idx(folder, &d);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status read_cifar(const uint8_t *bytes, size_t size) {
    mdm_dataset *d;
    put_file("train.bin", bytes, size);
    mdm_status status = mdm_import_cifar(folder, 100, &d);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status read_pickle(const uint8_t *bytes, size_t size) {
    mdm_dataset *d;
    put_file("train", bytes, size);
    mdm_status status = mdm_import_cifar_python(folder, 100, &d);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status read_archive(const uint8_t *bytes, size_t size) {
    const mdm_import_options options = {0};
    mdm_dataset *d;
    mdm_status status = mdm_import(put_file("cifar.tar.gz", bytes, size), &options, &d);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status read_list(const uint8_t *bytes, size_t size) {
    mdm_listing l = {0};
    mdm_status status = mdm_listing_add_list(&l, (const char *)bytes, size, "list", "root", NULL, 0);
    if (status == MDM_OK) status = mdm_listing_number(&l, NULL, MDM_NUMBERS_AS_THEY_ARE);
    mdm_listing_free(&l);
    return status;
}

/* The list of labels, a line `--`, the paths. */
static mdm_status read_keys(const uint8_t *bytes, size_t size) {
    const char *text = (const char *)bytes;
    size_t labels = 0;
    while (labels + 4 <= size && memcmp(text + labels, "\n--\n", 4) != 0) labels++;
    if (labels + 4 > size) labels = size;
    size_t keys = labels < size ? labels + 4 : size;
    mdm_listing known = {0}, l = {0};
    mdm_status status = mdm_listing_add_list(&known, text, labels, "labels", "root", NULL, 0);
    if (status == MDM_OK)
        status = mdm_listing_add_keys(&l, text + keys, size - keys, "keys", &known, "labels", "root", 0);
    if (status == MDM_OK) status = mdm_listing_number(&l, NULL, MDM_NUMBERS_AS_THEY_ARE);
    mdm_listing_free(&known);
    mdm_listing_free(&l);
    return status;
}

static mdm_status read_csv(const uint8_t *bytes, size_t size) {
    mdm_listing l = {0};
    mdm_status status = mdm_listing_add_csv(&l, (const char *)bytes, size, "csv", "root", "train/", NULL, 0);
    if (status == MDM_OK) status = mdm_listing_number(&l, NULL, MDM_NUMBERS_AS_THEY_ARE);
    mdm_listing_free(&l);
    return status;
}

static mdm_status read_jsonl(const uint8_t *bytes, size_t size) {
    mdm_listing l = {0};
    mdm_status status =
        mdm_listing_add_jsonl(&l, (const char *)bytes, size, "jsonl", "root", "train/", NULL, 0);
    if (status == MDM_OK) status = mdm_listing_number(&l, NULL, MDM_NUMBERS_AS_THEY_ARE);
    mdm_listing_free(&l);
    return status;
}

static mdm_status read_exif(const uint8_t *bytes, size_t size) {
    int orientation = mdm_exif_orientation(bytes, size);
    if (orientation < 1 || orientation > 8) abort();
    return orientation > 1 ? MDM_OK : MDM_INPUT;
}

static mdm_status read_picture(const uint8_t *bytes, size_t size) {
    static uint8_t fitted[16 * 16 * 3];
    mdm_picture p;
    mdm_status status = mdm_picture_decode(bytes, size, "picture", MOST_PIXELS, &p);
    if (status != MDM_OK) return status;
    /* the bound on extreme proportions may refuse it, which is no finding */
    mdm_status fits = mdm_picture_fit(&p, 16, 16, 3, fitted);
    mdm_picture_free(&p);
    return fits;
}

static mdm_status read_safetensors(const uint8_t *bytes, size_t size) {
    mdm_safetensors *file;
    MDM_TRY(mdm_safetensors_open(put_file("weights.safetensors", bytes, size), &file));
    for (int64_t i = 0; i < mdm_safetensors_count(file); i++) {
        float values[64];
        int64_t count = mdm_safetensors_elements(file, i);
        if (count <= 64 && mdm_safetensors_read(file, i, count, 1, values) == MDM_OK) continue;
    }
    mdm_safetensors_close(file);
    return MDM_OK;
}

static mdm_status read_yaml(const uint8_t *bytes, size_t size) {
    mdm_config config;
    mdm_config_defaults(&config);
    MDM_TRY(mdm_config_read_text(&config, (const char *)bytes, size, "fuzz.yaml"));
    return mdm_config_check(&config);
}

static mdm_status read_setting(const uint8_t *bytes, size_t size) {
    mdm_config config;
    char *argument = strndup((const char *)bytes, size);
    if (!argument) return mdm_fail(MDM_RESOURCE, "no memory for an argument");
    mdm_config_defaults(&config);
    mdm_status status = mdm_config_set(&config, argument);
    free(argument);
    return status;
}

static mdm_status read_noise(const uint8_t *bytes, size_t size) {
    int32_t labels[8];
    return mdm_noise_parse_labels((const char *)bytes, size, "noise", 8, 10, labels);
}

const fuzz_target fuzz_targets[] = {{"idx", read_idx, 1},
                                    {"cifar", read_cifar, 1},
                                    {"pickle", read_pickle, 1},
                                    {"list", read_list, 0},
                                    {"keys", read_keys, 0},
                                    {"csv", read_csv, 0},
                                    {"jsonl", read_jsonl, 0},
                                    {"exif", read_exif, 0},
                                    {"jpeg", read_picture, 1},
                                    {"png", read_picture, 1},
                                    {"safetensors", read_safetensors, 1},
                                    {"yaml", read_yaml, 0},
                                    {"setting", read_setting, 0},
                                    {"noise", read_noise, 1},
                                    {"archive", read_archive, 1}};
const int fuzz_target_count = sizeof fuzz_targets / sizeof *fuzz_targets;

const fuzz_target *fuzz_target_find(const char *name) {
    for (int i = 0; i < fuzz_target_count; i++)
        if (strcmp(fuzz_targets[i].name, name) == 0) return &fuzz_targets[i];
    return NULL;
}
