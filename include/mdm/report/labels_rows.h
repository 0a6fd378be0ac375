/* labels.csv read back: rows as fields. */
#ifndef MDM_REPORT_LABELS_ROWS_H
#define MDM_REPORT_LABELS_ROWS_H

#include "mdm/base/text.h"
#include <stdint.h>

enum { MDM_LABELS_MOST_FIELDS = 16 };

typedef struct mdm_labels_rows {
    char *memory;  /* the file, cut into fields in place */
    char **fields; /* [rows * columns] */
    int64_t rows;  /* without the head */
    int columns;
    char *names[MDM_LABELS_MOST_FIELDS]; /* of the columns */
} mdm_labels_rows;

/* Reads labels.csv, RFC 4180, also as spreadsheets write it: separated by semicolons or tabs, with a byte
 * order mark, CRLF and empty rows at the end. MDM_INPUT where it is not such a file, or larger than 1 GiB and
 * a third of the memory. Ended by
 * mdm_labels_rows_free, also after a failure. */
MDM_MUST_CHECK mdm_status mdm_labels_rows_read(const char *path, mdm_labels_rows *rows);
void mdm_labels_rows_free(mdm_labels_rows *rows);
/* Takes verdict and suggested class from a copy of these rows that a person has corrected, read from `path`;
 * all else stays as the run wrote it. Rows that the copy lacks are left out. The copy may be the rows
 * themselves, which are only checked then; else it must outlive them. MDM_INPUT where the copy contradicts
 * the rows or itself. */
MDM_MUST_CHECK mdm_status mdm_labels_review(mdm_labels_rows *rows, const mdm_labels_rows *copy,
                                            const char *path, int64_t classes);
/* Field of a row by its column's name, or "". */
const char *mdm_labels_field(const mdm_labels_rows *rows, int64_t row, const char *column);

/* Adds a value as a CSV field, quoted where it must be. */
void mdm_csv_field(mdm_text *text, const char *value);

#endif
