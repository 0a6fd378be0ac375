/* Which importer a source wants. */
#include "import_internal.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static mdm_import_format recognise(const mdm_source *source) {
    char path[4096];
    if (mdm_source_find(source, "train-images-idx3-ubyte", path, sizeof path)) return MDM_IMPORT_IDX;
    if (mdm_source_find(source, "data_batch_1.bin", path, sizeof path) ||
        mdm_source_find(source, "data_batch_1", path, sizeof path))
        return MDM_IMPORT_CIFAR10;
    if (mdm_source_find(source, "train.bin", path, sizeof path) ||
        (mdm_source_find(source, "train", path, sizeof path) &&
         mdm_source_find(source, "meta", path, sizeof path)))
        return MDM_IMPORT_CIFAR100;
    return source->is_archive ? MDM_IMPORT_AUTO : mdm_pictures_recognise(source->path);
}

/* Options of picture files do not pass silently where nothing heeds them. */
static mdm_status refuse_picture_options(const mdm_import_options *o) {
    if (o->size || o->keep_encoded || o->classes || o->test || o->test_list || o->test_root ||
        o->test_labels || o->root || o->labels || o->label_column || o->file_column || o->number_names)
        return mdm_fail(
            MDM_USAGE,
            "--size, --keep-encoded, --classes, --test, --label-column and the options of lists are "
            "for picture files, not for IDX and CIFAR");
    return MDM_OK;
}

static mdm_status check_picture_options(const mdm_import_options *o) {
    int list = o->format == MDM_IMPORT_LIST;
    const char *of_lists = o->root          ? "--root"
                           : o->labels      ? "--labels"
                           : o->test_list   ? "--test-list"
                           : o->test_root   ? "--test-root"
                           : o->test_labels ? "--test-labels"
                                            : NULL;
    if (!list && of_lists) return mdm_fail(MDM_USAGE, "%s is for list files", of_lists);
    if (o->test && o->test_list)
        return mdm_fail(MDM_USAGE, "--test FOLDER and --test-list FILE name two test sets; one is possible");
    if (!o->test_list && (o->test_root || o->test_labels))
        return mdm_fail(MDM_USAGE, "%s goes with --test-list FILE",
                        o->test_root ? "--test-root" : "--test-labels");
    const char *of_tables = o->label_column   ? "--label-column"
                            : o->file_column  ? "--file-column"
                            : o->number_names ? "--numbers-are-names"
                                              : NULL;
    if (o->format == MDM_IMPORT_FOLDER && of_tables)
        return mdm_fail(MDM_USAGE, "%s is for lists, metadata.csv and metadata.jsonl", of_tables);
    if (o->classes && o->number_names)
        return mdm_fail(MDM_USAGE,
                        "--classes FILE gives the names; --numbers-are-names takes the numbers for "
                        "them: one is possible");
    return MDM_OK;
}

/* IDX and CIFAR, from a folder or an archive. */
static mdm_status import_arrays(const mdm_source *source, const mdm_import_options *o,
                                mdm_dataset **dataset) {
    char path[4096];
    MDM_TRY(refuse_picture_options(o));
    if (o->format == MDM_IMPORT_IDX) return mdm_source_import_idx(source, dataset);
    int classes = o->format == MDM_IMPORT_CIFAR10 ? 10 : 100;
    if (mdm_source_find(source, classes == 10 ? "data_batch_1" : "train", path, sizeof path))
        return mdm_source_import_cifar_python(source, classes, dataset);
    return mdm_source_import_cifar(source, classes, dataset);
}

static mdm_status import_archive(const char *path, mdm_import_options *o, mdm_dataset **dataset) {
    mdm_source source;
    MDM_TRY(mdm_source_open(path, &source));
    if (o->format == MDM_IMPORT_AUTO) o->format = recognise(&source);
    mdm_status status =
        o->format == MDM_IMPORT_IDX || o->format == MDM_IMPORT_CIFAR10 || o->format == MDM_IMPORT_CIFAR100
            ? import_arrays(&source, o, dataset)
            : mdm_fail(MDM_INPUT, "%s holds neither CIFAR's nor IDX files; unpack it and give the folder",
                       path);
    mdm_source_close(&source);
    return status;
}

static mdm_status import_any(const char *path, mdm_import_options o, mdm_dataset **dataset) {
    struct stat info;
    const mdm_source source = {.path = path};
    if (stat(path, &info) != 0) return mdm_fail(MDM_INPUT, "%s: no such folder, archive or list file", path);
    if (!S_ISDIR(info.st_mode) && o.format != MDM_IMPORT_LIST && mdm_source_is_archive(path))
        return import_archive(path, &o, dataset);
    if (o.format == MDM_IMPORT_AUTO) o.format = S_ISDIR(info.st_mode) ? recognise(&source) : MDM_IMPORT_LIST;
    if (!S_ISDIR(info.st_mode) && o.format != MDM_IMPORT_LIST)
        return mdm_fail(MDM_INPUT,
                        "%s is not a folder; give the folder that holds the files, or a .tar.gz archive",
                        path);
    if (o.format < MDM_IMPORT_FOLDER) return import_arrays(&source, &o, dataset);
    MDM_TRY(check_picture_options(&o));
    return mdm_import_pictures(path, &o, dataset);
}

mdm_status mdm_import(const char *path, const mdm_import_options *options, mdm_dataset **dataset) {
    *dataset = NULL;
    MDM_TRY(import_any(path, *options, dataset));
    const mdm_dataset *d = *dataset;
    mdm_warn_of_empty_classes(d->train_labels, d->train_count, d->classes,
                              d->class_names ? "is that meant?"
                                             : "Where the labels come from a list, --numbers-are-names makes "
                                               "classes of those alone that it has");
    return MDM_OK;
}

mdm_status mdm_import_idx(const char *folder, mdm_dataset **dataset) {
    const mdm_source source = {.path = folder};
    return mdm_source_import_idx(&source, dataset);
}

mdm_status mdm_import_cifar(const char *folder, int classes, mdm_dataset **dataset) {
    const mdm_source source = {.path = folder};
    return mdm_source_import_cifar(&source, classes, dataset);
}

mdm_status mdm_import_cifar_python(const char *folder, int classes, mdm_dataset **dataset) {
    const mdm_source source = {.path = folder};
    return mdm_source_import_cifar_python(&source, classes, dataset);
}
