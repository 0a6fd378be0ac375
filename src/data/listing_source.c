/* Which pictures a source names: its class folders, list or metadata for training and test, to one listing.
 */
#include "import_internal.h"
#include "listing.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { TEXT_LIMIT = 1 << 30 };

static int is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* metadata.csv or metadata.jsonl in `folder`: its path, or NULL. */
static const char *find_metadata(const char *folder, char *path, size_t size) {
    static const char *const names[] = {"metadata.csv", "metadata.jsonl"};
    for (int i = 0; i < 2; i++)
        if (snprintf(path, size, "%s/%s", folder, names[i]) < (int)size && is_file(path)) return path;
    return NULL;
}

mdm_import_format mdm_pictures_recognise(const char *source) {
    char path[4096], inside[4096];
    if (is_file(source)) return MDM_IMPORT_LIST;
    if (find_metadata(source, path, sizeof path)) return MDM_IMPORT_METADATA;
    if (snprintf(inside, sizeof inside, "%s/train", source) < (int)sizeof inside && is_folder(inside) &&
        find_metadata(inside, path, sizeof path))
        return MDM_IMPORT_METADATA;
    return MDM_IMPORT_FOLDER;
}

static mdm_status add_split(mdm_listing *l, const mdm_import_options *o, const char *folder,
                            const char *prefix, int test) {
    char path[4096], *text;
    size_t bytes;
    if (!is_folder(folder)) return mdm_fail(MDM_INPUT, "%s: no such folder", folder);
    if (o->format != MDM_IMPORT_METADATA) return mdm_listing_add_folder(l, folder, prefix, test);
    if (!find_metadata(folder, path, sizeof path))
        return mdm_fail(MDM_INPUT, "%s holds neither metadata.csv nor metadata.jsonl", folder);
    MDM_TRY(mdm_read_file(path, TEXT_LIMIT, &text, &bytes));
    int64_t first = l->count;
    const char *dot = strrchr(path, '.');
    const mdm_listing_columns columns = {o->file_column, o->label_column};
    mdm_status status = strcmp(dot, ".csv") == 0
                            ? mdm_listing_add_csv(l, text, bytes, path, folder, "", &columns, test)
                            : mdm_listing_add_jsonl(l, text, bytes, path, folder, "", &columns, test);
    free(text);
    /* the ids start at the source, the paths at the split's folder */
    for (int64_t i = first; status == MDM_OK && *prefix && i < l->count; i++) {
        char id[8192];
        snprintf(id, sizeof id, "%s%s", prefix, l->entries[i].id);
        free(l->entries[i].id);
        if (!(l->entries[i].id = strdup(id))) status = mdm_fail(MDM_RESOURCE, "out of memory for file names");
    }
    return status;
}

/* Files that nobody would miss in the counts, and folders whose names say that they are no classes. */
static void tell_oddities(const mdm_listing *l, int named) {
    static const char *const parts[] = {"train", "training", "test", "testing", "val", "valid", "validation"};
    if (l->passed_over > 0)
        mdm_warn("%lld file%s passed over, as the name does not end in .jpg, .jpeg, .jpe or .png (first: %s)",
                 (long long)l->passed_over, l->passed_over > 1 ? "s are" : " is", l->first_passed_over);
    if (l->without_class > 0)
        mdm_warn("%lld picture%s passed over, being in no class folder (first: %s)",
                 (long long)l->without_class, l->without_class > 1 ? "s are" : " is", l->first_without_class);
    for (int64_t i = 0; !named && i < l->count; i++) {
        if (i > 0 && strcmp(l->entries[i].text, l->entries[i - 1].text) == 0) continue;
        for (int p = 0; p < 7 && !l->entries[i].test; p++)
            if (strcasecmp(l->entries[i].text, parts[p]) == 0)
                mdm_warn("the folder %s is taken for a class, as beside it there is no folder train",
                         l->entries[i].text);
    }
}

/* A folder with its test set: train/ and test/, val/, valid/ or validation/ inside, or the folder itself. */
static mdm_status list_folder(mdm_listing *l, const mdm_import_options *o, const char *source) {
    static const char *const tests[] = {"test", "val", "valid", "validation"};
    char folder[4096], prefix[32];
    int named = snprintf(folder, sizeof folder, "%s/train", source) < (int)sizeof folder && is_folder(folder);
    MDM_TRY(add_split(l, o, named ? folder : source, named ? "train/" : "", 0));
    if (o->test) MDM_TRY(add_split(l, o, o->test, "", 1));
    for (int i = 0; named && !o->test && i < 4; i++) {
        if (snprintf(folder, sizeof folder, "%s/%s", source, tests[i]) >= (int)sizeof folder ||
            !is_folder(folder))
            continue;
        snprintf(prefix, sizeof prefix, "%s/", tests[i]);
        MDM_TRY(add_split(l, o, folder, prefix, 1));
        break;
    }
    if (o->format != MDM_IMPORT_METADATA) tell_oddities(l, named);
    return MDM_OK;
}

/* Where a list's paths start when nothing else is said: the folder that it lies in, "" for the present one.
 */
static void folder_of(const char *path, char *folder, size_t size) {
    snprintf(folder, size, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        *folder = 0;
    else
        slash[slash == folder] = 0;
}

/* A mistaken root or an unknown header shows at the first picture, in words that say what a list is. */
static mdm_status check_first(const mdm_listing *l, int64_t first, const char *name, const char *root) {
    if (first == l->count || is_file(l->entries[first].path)) return MDM_OK;
    const char *path = l->entries[first].path;
    if (strchr(path, '\\'))
        return mdm_fail(MDM_INPUT,
                        "%s: its first picture is %s, which is not there; paths are written with /", name,
                        path);
    return mdm_fail(
        MDM_INPUT,
        "%s: its first picture is %s, which is not there; lines are `path label`, a header's columns "
        "are path and label or named by --file-column and --label-column, and paths start at %s "
        "(--root)",
        name, path, *root ? root : "this folder");
}

/* The list at `path`, of `path label` lines or, with the file `labels`, of paths alone. */
static mdm_status list_file(mdm_listing *l, const mdm_import_options *o, const char *path, const char *root,
                            const char *labels, int test) {
    char folder[4096], *text, *label_text = NULL;
    size_t bytes, label_bytes;
    int64_t first = l->count;
    const mdm_listing_columns columns = {o->file_column, o->label_column};
    folder_of(path, folder, sizeof folder);
    if (!root) root = folder;
    MDM_TRY(mdm_read_file(path, TEXT_LIMIT, &text, &bytes));
    mdm_status status = MDM_OK;
    if (labels) {
        mdm_listing known = {0};
        status = mdm_read_file(labels, TEXT_LIMIT, &label_text, &label_bytes);
        if (status == MDM_OK)
            status = mdm_listing_add_list(&known, label_text, label_bytes, labels, "", &columns, 0);
        if (status == MDM_OK) status = mdm_listing_add_keys(l, text, bytes, path, &known, labels, root, test);
        mdm_listing_free(&known);
        free(label_text);
    } else {
        status = mdm_listing_add_list(l, text, bytes, path, root, &columns, test);
    }
    free(text);
    if (status == MDM_OK && !o->skip_errors) status = check_first(l, first, path, root);
    return status;
}

mdm_status mdm_listing_collect(mdm_listing *l, const char *source, const mdm_import_options *o) {
    if (o->format == MDM_IMPORT_LIST) {
        MDM_TRY(list_file(l, o, source, o->root, o->labels, 0));
        if (o->test_list)
            MDM_TRY(list_file(l, o, o->test_list, o->test_root ? o->test_root : o->root,
                              o->test_labels ? o->test_labels : o->labels, 1));
        if (o->test) MDM_TRY(add_split(l, o, o->test, "", 1));
    } else {
        MDM_TRY(list_folder(l, o, source));
    }
    return mdm_listing_number(l, o->classes,
                              o->format == MDM_IMPORT_FOLDER ? MDM_NAMES_ALONE
                              : o->number_names              ? MDM_NUMBERS_ARE_NAMES
                                                             : MDM_NUMBERS_AS_THEY_ARE);
}
