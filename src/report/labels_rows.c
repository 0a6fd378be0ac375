/* From the text of labels.csv to fields. */
#include "mdm/report/labels_rows.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 30 };

void mdm_csv_field(mdm_text *text, const char *value) {
    if (!strpbrk(value, ",\"\r\n")) {
        mdm_text_add_bytes(text, value, strlen(value));
        return;
    }
    mdm_text_add_bytes(text, "\"", 1);
    for (; *value; value++) {
        if (*value == '"') mdm_text_add_bytes(text, "\"", 1);
        mdm_text_add_bytes(text, value, 1);
    }
    mdm_text_add_bytes(text, "\"", 1);
}

/* Cuts one field off *at, in place; *last tells whether the row ends behind it. NULL where quotes do not
 * close. */
static char *cut_field(char **at, int *last) {
    char *start = *at, *from = *at, *to = *at;
    int quoted = *from == '"';
    if (quoted) {
        for (from++; *from; from++) {
            if (*from == '"' && from[1] != '"') break;
            if (*from == '"') from++;
            *to++ = *from;
        }
        if (*from != '"') return NULL;
        from++;
    } else {
        while (*from && *from != ',' && *from != '\n' && *from != '\r') *to++ = *from++;
    }
    if (*from == '\r') from++;
    if (*from && *from != ',' && *from != '\n') return NULL;
    *last = *from != ',';
    *at = *from ? from + 1 : from;
    *to = 0;
    return start;
}

static mdm_status cut_head(mdm_labels_rows *rows, char **at, const char *path) {
    for (int last = 0; !last; rows->columns++) {
        if (rows->columns == MDM_LABELS_MOST_FIELDS)
            return mdm_fail(MDM_INPUT, "%s has more than %d columns", path, MDM_LABELS_MOST_FIELDS);
        rows->names[rows->columns] = cut_field(at, &last);
        if (!rows->names[rows->columns]) return mdm_fail(MDM_INPUT, "%s: the first line is damaged", path);
    }
    if (strcmp(rows->names[0], "index") != 0)
        return mdm_fail(MDM_INPUT, "%s is not a labels.csv: its first column is not index", path);
    return MDM_OK;
}

mdm_status mdm_labels_rows_read(const char *path, mdm_labels_rows *rows) {
    size_t bytes;
    int64_t lines = 0;
    memset(rows, 0, sizeof *rows);
    MDM_TRY(mdm_read_file(path, MOST_BYTES, &rows->memory, &bytes));
    if (strlen(rows->memory) != bytes) return mdm_fail(MDM_INPUT, "%s holds zero bytes", path);
    for (size_t i = 0; i < bytes; i++) lines += rows->memory[i] == '\n';
    char *at = rows->memory;
    if (strncmp(at, "\xef\xbb\xbf", 3) == 0) at += 3; /* the mark that spreadsheets put first */
    MDM_TRY(cut_head(rows, &at, path));
    MDM_TRY(MDM_ALLOCATE(rows->fields, (lines + 1) * rows->columns, "the rows of labels.csv"));
    for (; *at; rows->rows++)
        for (int c = 0, last = 0; c < rows->columns; c++) {
            char *field = cut_field(&at, &last);
            if (!field || last != (c == rows->columns - 1))
                return mdm_fail(MDM_INPUT, "%s: row %lld has not %d fields", path, (long long)rows->rows,
                                rows->columns);
            rows->fields[rows->rows * rows->columns + c] = field;
        }
    return MDM_OK;
}

void mdm_labels_rows_free(mdm_labels_rows *rows) {
    free(rows->memory);
    free(rows->fields);
    memset(rows, 0, sizeof *rows);
}

const char *mdm_labels_field(const mdm_labels_rows *rows, int64_t row, const char *column) {
    for (int c = 0; c < rows->columns; c++)
        if (strcmp(rows->names[c], column) == 0) return rows->fields[row * rows->columns + c];
    return "";
}
