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

mdm_status mdm_import(const char *folder, mdm_import_format format, mdm_dataset **dataset) {
    char path[4096];
    struct stat info;
    *dataset = NULL;
    if (stat(folder, &info) != 0) return mdm_fail(MDM_INPUT, "%s: no such folder", folder);
    if (!S_ISDIR(info.st_mode))
        return mdm_fail(MDM_INPUT, "%s is not a folder; give the folder that holds the files", folder);
    if (format == MDM_IMPORT_AUTO) {
        if (mdm_source_find(folder, "train-images-idx3-ubyte", path, sizeof path))
            format = MDM_IMPORT_IDX;
        else if (mdm_source_find(folder, "data_batch_1.bin", path, sizeof path))
            format = MDM_IMPORT_CIFAR10;
        else if (mdm_source_find(folder, "train.bin", path, sizeof path))
            format = MDM_IMPORT_CIFAR100;
        else
            return mdm_fail(MDM_INPUT,
                            "%s holds none of train-images-idx3-ubyte (IDX), data_batch_1.bin (CIFAR-10 "
                            "binary), train.bin "
                            "(CIFAR-100 binary)",
                            folder);
    }
    if (format == MDM_IMPORT_IDX) return mdm_import_idx(folder, dataset);
    return mdm_import_cifar(folder, format == MDM_IMPORT_CIFAR10 ? 10 : 100, dataset);
}
