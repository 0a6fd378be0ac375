/* Tables whose first line names the columns: metadata.csv, and lists with a header. */
#ifndef MDM_DATA_LISTING_TABLE_H
#define MDM_DATA_LISTING_TABLE_H

#include "listing.h"

typedef struct mdm_table {
    const char *name; /* for messages */
    const char *root, *prefix;
    const mdm_listing_columns *columns;
    char separator;
    int list; /* columns are found as people name them, and blanks around fields do not count */
    int test;
} mdm_table;

/* Whether the first line names a column of files and one of labels. MDM_RESOURCE without memory. */
MDM_MUST_CHECK mdm_status mdm_table_has_header(const mdm_table *table, const char *text, size_t length,
                                               int *found);
/* Adds every record behind the first line. */
MDM_MUST_CHECK mdm_status mdm_table_add(mdm_listing *listing, const mdm_table *table, const char *text,
                                        size_t length);

#endif
