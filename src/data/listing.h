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

/* Columns of a table that are named otherwise than usual; NULL: file_name (in lists also path, file, image
 * and the like, in any case of letters), and label, labels, class or category. */
typedef struct mdm_listing_columns {
    const char *file, *label;
} mdm_listing_columns;

typedef struct mdm_listing {
    mdm_listed *entries;
    int64_t count, capacity;
    char **classes; /* NULL when labels are bare numbers */
    int class_count;
    /* in folders: files that are no pictures by their names, and pictures beside the class folders */
    int64_t passed_over, without_class;
    char *first_passed_over, *first_without_class;
} mdm_listing;

void mdm_listing_free(mdm_listing *listing);
/* Copies the texts; the path is root/id. */
MDM_MUST_CHECK mdm_status mdm_listing_add(mdm_listing *listing, const char *root, const char *id,
                                          size_t id_length, const char *text, size_t text_length, int test);
/* Pictures of the class folders in `root`, ids with `prefix` in front; sorted by path. */
MDM_MUST_CHECK mdm_status mdm_listing_add_folder(mdm_listing *listing, const char *root, const char *prefix,
                                                 int test);
/* Lines `path label` of a list file; `name` is for messages. Fields are quoted as RFC 4180 says where a comma
 * or semicolon separates them. A first line that names the columns (NULL: the usual ones) is a header;
 * columns that are asked for must be there. */
MDM_MUST_CHECK mdm_status mdm_listing_add_list(mdm_listing *listing, const char *text, size_t length,
                                               const char *name, const char *root,
                                               const mdm_listing_columns *columns, int test);
/* Lines of paths alone; the label of each is that of the same path in `known`, which the file `labels` names
 * and which is sorted here. */
MDM_MUST_CHECK mdm_status mdm_listing_add_keys(mdm_listing *listing, const char *text, size_t length,
                                               const char *name, mdm_listing *known, const char *labels,
                                               const char *root, int test);
/* metadata.csv: a header line names the columns. */
MDM_MUST_CHECK mdm_status mdm_listing_add_csv(mdm_listing *listing, const char *text, size_t length,
                                              const char *name, const char *root, const char *prefix,
                                              const mdm_listing_columns *columns, int test);
/* metadata.jsonl: one object a line with the same members. */
MDM_MUST_CHECK mdm_status mdm_listing_add_jsonl(mdm_listing *listing, const char *text, size_t length,
                                                const char *name, const char *root, const char *prefix,
                                                const mdm_listing_columns *columns, int test);
/* How labels without a classes file become numbers. */
typedef enum mdm_numbering {
    MDM_NUMBERS_AS_THEY_ARE, /* whole numbers are kept when all are; otherwise by the sorted names */
    MDM_NUMBERS_ARE_NAMES,   /* by the sorted names; where all are whole numbers, sorted by these */
    MDM_NAMES_ALONE          /* by the sorted names, as folders are */
} mdm_numbering;
/* Turns label texts into numbers: by the lines of the classes file, or with NULL as `numbering` says. */
MDM_MUST_CHECK mdm_status mdm_listing_number(mdm_listing *listing, const char *classes_file,
                                             mdm_numbering numbering);

/* All of the source at `source` with its test set, numbered; options->format is FOLDER, LIST or METADATA. */
MDM_MUST_CHECK mdm_status mdm_listing_collect(mdm_listing *listing, const char *source,
                                              const mdm_import_options *options);

#endif
