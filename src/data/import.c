/* Source files, and which importer a folder wants. */
#include "import_internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

int mdm_source_find(const char *folder, const char *name, char *path, size_t size) {
    static const char *const endings[] = {"", ".gz"};
    for (int i = 0; i < 2; i++) {
        struct stat info;
        if (snprintf(path, size, "%s/%s%s", folder, name, endings[i]) >= (int)size) return 0;
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) return 1;
    }
    snprintf(path, size, "%s/%s", folder, name);
    return 0;
}

mdm_status mdm_source_read(const char *folder, const char *name, size_t limit, unsigned char **bytes,
                           size_t *count) {
    char path[4096];
    size_t capacity = 1 << 20;
    *bytes = NULL;
    *count = 0;
    if (!mdm_source_find(folder, name, path, sizeof path))
        return mdm_fail(MDM_INPUT, "%s is missing (and so is %s.gz)", path, name);
    gzFile file = gzopen(path, "rb");
    if (!file) return mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    mdm_status status = MDM_OK;
    for (;;) {
        if (!*bytes || *count == capacity) {
            if (*bytes) capacity *= 2;
            unsigned char *larger = realloc(*bytes, capacity);
            if (!larger) {
                status = mdm_fail(MDM_RESOURCE, "out of memory for %s", path);
                break;
            }
            *bytes = larger;
        }
        size_t room = capacity - *count;
        int got = gzread(file, *bytes + *count, room > (1u << 30) ? 1u << 30 : (unsigned)room);
        if (got < 0) status = mdm_fail(MDM_INPUT, "%s is damaged: %s", path, gzerror(file, &got));
        if (got <= 0) break;
        *count += (size_t)got;
        if (*count > limit) {
            status =
                mdm_fail(MDM_INPUT, "%s is larger than the %zu bytes that its format allows", path, limit);
            break;
        }
    }
    int closed = gzclose(file);
    if (status == MDM_OK && closed != Z_OK) status = mdm_fail(MDM_INPUT, "%s was cut short", path);
    if (status != MDM_OK) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}

mdm_status mdm_source_class_names(const char *folder, const char *name, mdm_dataset *d) {
    char path[4096];
    const char *names[1024];
    unsigned char *bytes;
    size_t count;
    int lines = 0;
    if (!mdm_source_find(folder, name, path, sizeof path)) return MDM_OK;
    MDM_TRY(mdm_source_read(folder, name, 1 << 20, &bytes, &count));
    char *text = malloc(count + 1);
    if (!text) {
        free(bytes);
        return mdm_fail(MDM_RESOURCE, "out of memory for %s", path);
    }
    memcpy(text, bytes, count);
    text[count] = 0;
    char *rest;
    for (char *line = strtok_r(text, "\r\n", &rest); line && lines < 1024;
         line = strtok_r(NULL, "\r\n", &rest))
        names[lines++] = line;
    mdm_status status = lines == d->classes ? mdm_dataset_set_class_names(d, names, lines) : MDM_OK;
    free(text);
    free(bytes);
    return status;
}

static mdm_import_format recognise(const char *folder) {
    char path[4096];
    if (mdm_source_find(folder, "train-images-idx3-ubyte", path, sizeof path)) return MDM_IMPORT_IDX;
    if (mdm_source_find(folder, "data_batch_1.bin", path, sizeof path) ||
        mdm_source_find(folder, "data_batch_1", path, sizeof path))
        return MDM_IMPORT_CIFAR10;
    if (mdm_source_find(folder, "train.bin", path, sizeof path) ||
        (mdm_source_find(folder, "train", path, sizeof path) &&
         mdm_source_find(folder, "meta", path, sizeof path)))
        return MDM_IMPORT_CIFAR100;
    return mdm_pictures_recognise(folder);
}

/* Options of picture files do not pass silently where nothing heeds them. */
static mdm_status refuse_picture_options(const mdm_import_options *o) {
    if (o->size || o->keep_encoded || o->classes || o->test || o->test_list || o->root || o->label_column)
        return mdm_fail(
            MDM_USAGE,
            "--size, --keep-encoded, --classes, --test, --test-list, --root and --label-column are "
            "for picture files, not for IDX and CIFAR");
    return MDM_OK;
}

static mdm_status check_picture_options(const mdm_import_options *o) {
    int list = o->format == MDM_IMPORT_LIST;
    if (!list && (o->root || o->test_list))
        return mdm_fail(MDM_USAGE, "%s is for list files", o->root ? "--root" : "--test-list");
    if (list && o->test)
        return mdm_fail(MDM_USAGE, "--test is for folders; a list's test set is --test-list FILE");
    if (o->format != MDM_IMPORT_METADATA && o->label_column)
        return mdm_fail(MDM_USAGE, "--label-column is for metadata.csv and metadata.jsonl");
    return MDM_OK;
}

mdm_status mdm_import(const char *source, const mdm_import_options *given, mdm_dataset **dataset) {
    char path[4096];
    struct stat info;
    mdm_import_options o = *given;
    *dataset = NULL;
    if (stat(source, &info) != 0) return mdm_fail(MDM_INPUT, "%s: no such folder or list file", source);
    if (o.format == MDM_IMPORT_AUTO) o.format = S_ISDIR(info.st_mode) ? recognise(source) : MDM_IMPORT_LIST;
    if (!S_ISDIR(info.st_mode) && o.format != MDM_IMPORT_LIST)
        return mdm_fail(MDM_INPUT, "%s is not a folder; give the folder that holds the files", source);
    if (o.format >= MDM_IMPORT_FOLDER) {
        MDM_TRY(check_picture_options(&o));
        return mdm_import_pictures(source, &o, dataset);
    }
    MDM_TRY(refuse_picture_options(&o));
    if (o.format == MDM_IMPORT_IDX) return mdm_import_idx(source, dataset);
    int classes = o.format == MDM_IMPORT_CIFAR10 ? 10 : 100;
    if (mdm_source_find(source, classes == 10 ? "data_batch_1" : "train", path, sizeof path))
        return mdm_import_cifar_python(source, classes, dataset);
    return mdm_import_cifar(source, classes, dataset);
}
