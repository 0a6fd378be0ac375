/* Data set files as the program reads them: what a child process found (screen.h), and pictures by the places
 * that it told. HDF5 is called in that child alone. */
#include "mdm/data/dataset_file.h"
#include "dataset_internal.h"
#include "dataset_pack.h"
#include "dataset_read.h"
#include "pictures.h"
#include "screen.h"
#include <stdlib.h>
#include <sys/stat.h>

/* What is told without HDF5's reading the file comes first, so that no process is made for it. */
mdm_status mdm_dataset_look_through(const char *path, mdm_dataset **out, int *has_statistics) {
    struct stat info;
    mdm_text found = {0};
    *out = NULL;
    if (stat(path, &info) != 0)
        return mdm_fail(MDM_INPUT, "%s: no such data set file; mdm-dist data import makes one", path);
    if (S_ISDIR(info.st_mode))
        return mdm_fail(
            MDM_INPUT, "%s is a folder, not a data set file; mdm-dist data import %s FILE.h5 makes one of it",
            path, path);
    if (!S_ISREG(info.st_mode)) return mdm_fail(MDM_INPUT, "%s is not a file", path);
    mdm_status status = mdm_screen_file(path, mdm_dataset_examine, &found);
    if (status == MDM_OK)
        status =
            mdm_dataset_unpack(path, (int64_t)info.st_size, found.data, found.length, out, has_statistics);
    free(found.data);
    return status;
}

mdm_status mdm_dataset_read_images(const char *path, const mdm_dataset *d, int split, int64_t first,
                                   int64_t count, uint8_t *images) {
    mdm_pictures *pictures;
    MDM_TRY(mdm_pictures_open(path, d->places[split], &pictures));
    mdm_status status = mdm_pictures_read(pictures, first, count, images);
    mdm_pictures_close(pictures);
    return status;
}

static mdm_status bring_pictures(const char *path, const mdm_dataset *d, int split, int64_t count,
                                 uint8_t **images) {
    MDM_TRY(mdm_allocate((void **)images, count, (long long)d->height * d->width * d->channels, "pictures"));
    return mdm_dataset_read_images(path, d, split, 0, count, *images);
}

mdm_status mdm_dataset_read(const char *path, mdm_dataset **out) {
    mdm_dataset *d;
    int has_statistics;
    *out = NULL;
    MDM_TRY(mdm_dataset_look_through(path, &d, &has_statistics));
    mdm_status status = bring_pictures(path, d, 0, d->train_count, &d->train_images);
    if (status == MDM_OK && d->test_count > 0)
        status = bring_pictures(path, d, 1, d->test_count, &d->test_images);
    if (status != MDM_OK) {
        mdm_dataset_destroy(d);
        return status;
    }
    if (!has_statistics) mdm_dataset_statistics(d);
    *out = d;
    return MDM_OK;
}

mdm_status mdm_dataset_read_labels(const char *path, mdm_dataset **out) {
    mdm_dataset *d;
    int has_statistics;
    *out = NULL;
    MDM_TRY(mdm_dataset_look_through(path, &d, &has_statistics));
    mdm_status status = has_statistics ? MDM_OK : mdm_dataset_stream_statistics(path, d);
    if (status != MDM_OK) {
        mdm_dataset_destroy(d);
        return status;
    }
    *out = d;
    return MDM_OK;
}
