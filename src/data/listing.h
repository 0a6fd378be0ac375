/* Which picture files a source names, with their labels: folders, list files, metadata files. Nothing is
 * decoded. */
#ifndef MDM_DATA_LISTING_H
#define MDM_DATA_LISTING_H

#include "mdm/data/import.h"
#include <stddef.h>

typedef struct mdm_listed {
    char *path, *id, *text; /* to open; relative to the source; the label as it was written */
    int32_t label;          /* after mdm_listing_number() */
    int test;               /* belongs to the test set */
} mdm_listed;

typedef struct mdm_listing {
    mdm_listed *entries;
    int64_t count, capacity;
    char **classes; /* NULL when labels are bare numbers */
    int class_count;
} mdm_listing;

void mdm_listing_free(mdm_listing *listing);
/* Copies the texts; the path is root/id. */
MDM_MUST_CHECK mdm_status mdm_listing_add(mdm_listing *listing, const char *root, const char *id,
                                          size_t id_length, const char *text, size_t text_length, int test);
/* Pictures of the class folders in `root`, ids with `prefix` in front; sorted by path. */
MDM_MUST_CHECK mdm_status mdm_listing_add_folder(mdm_listing *listing, const char *root, const char *prefix,
                                                 int test);
/* Lines `path label` of a list file; `name` is for messages. */
MDM_MUST_CHECK mdm_status mdm_listing_add_list(mdm_listing *listing, const char *text, size_t length,
                                               const char *name, const char *root, int test);
/* Lines of paths alone; the label of each is that of the same path in `known`, which the file `labels` names
 * and which is sorted here. */
MDM_MUST_CHECK mdm_status mdm_listing_add_keys(mdm_listing *listing, const char *text, size_t length,
                                               const char *name, mdm_listing *known, const char *labels,
                                               const char *root, int test);
/* metadata.csv: a header line with file_name and the label column (NULL: label, labels, class or category).
 */
MDM_MUST_CHECK mdm_status mdm_listing_add_csv(mdm_listing *listing, const char *text, size_t length,
                                              const char *name, const char *root, const char *prefix,
                                              const char *column, int test);
/* metadata.jsonl: one object a line with the same members. */
MDM_MUST_CHECK mdm_status mdm_listing_add_jsonl(mdm_listing *listing, const char *text, size_t length,
                                                const char *name, const char *root, const char *prefix,
                                                const char *column, int test);
/* Turns label texts into numbers: by the lines of the classes file (NULL: none); else, when every text is a
 * whole number and `folders` is 0, as they are; else by the sorted names. */
MDM_MUST_CHECK mdm_status mdm_listing_number(mdm_listing *listing, const char *classes_file, int folders);

/* All of the source at `source` with its test set, numbered; options->format is FOLDER, LIST or METADATA. */
MDM_MUST_CHECK mdm_status mdm_listing_collect(mdm_listing *listing, const char *source,
                                              const mdm_import_options *options);

#endif
