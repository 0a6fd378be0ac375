/* From the text of labels.csv to fields. */
#include "mdm/report/labels_rows.h"
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/report/labels_csv.h"
#include <stdlib.h>
#include <string.h>

/* A file and its fields take two to three times what it has on the disk. */
static size_t most_bytes(void) {
    static const size_t least = (size_t)1 << 30;
    char source[256];
    double third = mdm_memory_limit(source, sizeof source) / 3;
    return third > (double)least ? (size_t)third : least;
}

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

/* Cuts one field off *at, in place, up to the separator or the end of the line; *last tells whether the row
 * ends behind it. NULL where quotes do not close. */
static char *cut_field(char **at, char separator, int *last) {
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
        while (*from && *from != separator && *from != '\n' && *from != '\r') *to++ = *from++;
    }
    if (*from == '\r') from++;
    if (*from && *from != separator && *from != '\n') return NULL;
    *last = *from != separator;
    *at = *from ? from + 1 : from;
    *to = 0;
    return start;
}

static int column_of(const mdm_labels_rows *rows, const char *name) {
    for (int c = 0; c < rows->columns; c++)
        if (strcmp(rows->names[c], name) == 0) return c;
    return -1;
}

static mdm_status cut_head(mdm_labels_rows *rows, char **at, char separator, const char *path) {
    static const char *const needed[] = {"index", "id", "given", "suggested", "verdict"};
    for (int last = 0; !last; rows->columns++) {
        if (rows->columns == MDM_LABELS_MOST_FIELDS)
            return mdm_fail(MDM_INPUT, "%s has more than %d columns", path, MDM_LABELS_MOST_FIELDS);
        rows->names[rows->columns] = cut_field(at, separator, &last);
        if (!rows->names[rows->columns]) return mdm_fail(MDM_INPUT, "%s: the first line is damaged", path);
    }
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (column_of(rows, needed[i]) < 0)
            return mdm_fail(MDM_INPUT, "%s is not a labels.csv: its first line names no column %s", path,
                            needed[i]);
    return MDM_OK;
}

/* Cuts one row; where all its fields are empty, as at the end of a spreadsheet, it does not count. */
static mdm_status cut_row(mdm_labels_rows *rows, char **at, char separator, const char *path) {
    char **fields = rows->fields + rows->rows * rows->columns;
    int filled = 0;
    for (int c = 0, last = 0; c < rows->columns; c++) {
        fields[c] = cut_field(at, separator, &last);
        if (!fields[c] || last != (c == rows->columns - 1))
            return mdm_fail(MDM_INPUT, "%s: row %lld has not %d fields", path, (long long)rows->rows,
                            rows->columns);
        filled |= *fields[c] != 0;
    }
    rows->rows += filled;
    return MDM_OK;
}

mdm_status mdm_labels_rows_read(const char *path, mdm_labels_rows *rows) {
    size_t bytes;
    int64_t lines = 0;
    memset(rows, 0, sizeof *rows);
    MDM_TRY(mdm_read_file(path, most_bytes(), &rows->memory, &bytes));
    if (strlen(rows->memory) != bytes)
        return mdm_fail(MDM_INPUT, "%s holds zero bytes; CSV in UTF-8 is read", path);
    for (size_t i = 0; i < bytes; i++) lines += rows->memory[i] == '\n';
    char *at = rows->memory;
    if (strncmp(at, "\xef\xbb\xbf", 3) == 0) at += 3; /* the mark that spreadsheets put first */
    char separator = at[strcspn(at, ",;\t\r\n")];     /* no column's name holds one */
    if (!separator || strchr("\r\n", separator)) separator = ',';
    MDM_TRY(cut_head(rows, &at, separator, path));
    MDM_TRY(MDM_ALLOCATE(rows->fields, (lines + 1) * rows->columns, "the rows of labels.csv"));
    while (*at) MDM_TRY(cut_row(rows, &at, separator, path));
    return MDM_OK;
}

void mdm_labels_rows_free(mdm_labels_rows *rows) {
    free(rows->memory);
    free(rows->fields);
    memset(rows, 0, sizeof *rows);
}

const char *mdm_labels_field(const mdm_labels_rows *rows, int64_t row, const char *column) {
    int c = column_of(rows, column);
    return c < 0 ? "" : rows->fields[row * rows->columns + c];
}

/* What a person may have written into a row. */
static mdm_status check_judgement(const mdm_labels_rows *copy, int64_t row, int64_t classes,
                                  const char *path) {
    const char *verdict = mdm_labels_field(copy, row, "verdict"),
               *suggested = mdm_labels_field(copy, row, "suggested"),
               *sample = mdm_labels_field(copy, row, "index");
    char *end;
    int known = 0;
    for (int v = MDM_CLEAN; v <= MDM_OUT_OF_DISTRIBUTION; v++)
        known |= strcmp(verdict, mdm_verdict_name(v)) == 0;
    if (!known)
        return mdm_fail(MDM_INPUT,
                        "%s: the verdict of sample %s is '%s'; expected clean, mislabelled or "
                        "out_of_distribution",
                        path, sample, verdict);
    long long number = strtoll(suggested, &end, 10);
    if (!*suggested || suggested[strspn(suggested, "0123456789")] || number >= classes)
        return mdm_fail(MDM_INPUT,
                        "%s: '%s' is suggested for sample %s; expected the number of a class, 0 to %lld",
                        path, suggested, sample, (long long)classes - 1);
    return MDM_OK;
}

/* The run's row that a row of the copy belongs to; what must not be changed is compared. */
static mdm_status find_row(const mdm_labels_rows *rows, const mdm_labels_rows *copy, int64_t row,
                           const char *path, int64_t *own) {
    const char *sample = mdm_labels_field(copy, row, "index"), *id = mdm_labels_field(copy, row, "id"),
               *given = mdm_labels_field(copy, row, "given");
    *own = *sample && !sample[strspn(sample, "0123456789")] ? strtoll(sample, NULL, 10) : -1;
    if (*own < 0 || *own >= rows->rows || strcmp(mdm_labels_field(rows, *own, "index"), sample) != 0)
        return mdm_fail(MDM_INPUT, "%s: the run has no sample of index '%s'", path, sample);
    const char *right = mdm_labels_field(rows, *own, "id");
    if (strcmp(right, id) != 0)
        return mdm_fail(MDM_INPUT,
                        "%s: the id of sample %s is '%s', but '%s' in the run; give a copy of this run's "
                        "labels.csv, saved as UTF-8",
                        path, sample, id, right);
    right = mdm_labels_field(rows, *own, "given");
    if (strcmp(right, given) == 0) return MDM_OK;
    return mdm_fail(
        MDM_INPUT,
        "%s: the given label of sample %s is '%s', but '%s' in the run; write the right class into "
        "suggested, and mislabelled as the verdict",
        path, sample, given, right);
}

/* Writes one corrected row into the run's; seen tells the rows that had theirs. */
static mdm_status review_row(mdm_labels_rows *rows, const mdm_labels_rows *copy, int64_t row, int64_t classes,
                             const char *path, uint8_t *seen) {
    int64_t own;
    MDM_TRY(find_row(rows, copy, row, path, &own));
    MDM_TRY(check_judgement(copy, row, classes, path));
    char **fields = rows->fields + own * rows->columns;
    char *verdict = copy->fields[row * copy->columns + column_of(copy, "verdict")],
         *suggested = copy->fields[row * copy->columns + column_of(copy, "suggested")];
    if (seen[own]++) return mdm_fail(MDM_INPUT, "%s: sample %lld is there twice", path, (long long)own);
    if (strcmp(verdict, mdm_verdict_name(MDM_CLEAN)) == 0 &&
        strcmp(suggested, fields[column_of(rows, "suggested")]) != 0 &&
        strcmp(suggested, fields[column_of(rows, "given")]) != 0)
        return mdm_fail(
            MDM_INPUT,
            "%s: class %s is suggested for sample %lld, but a clean verdict keeps the given label "
            "%s; write mislabelled as its verdict",
            path, suggested, (long long)own, fields[column_of(rows, "given")]);
    fields[column_of(rows, "verdict")] = verdict;
    fields[column_of(rows, "suggested")] = suggested;
    return MDM_OK;
}

/* Keeps the rows that the copy has. */
static void keep_seen(mdm_labels_rows *rows, const uint8_t *seen, const char *path) {
    int64_t kept = 0, all = rows->rows;
    for (int64_t i = 0; i < all; i++)
        if (seen[i])
            memmove(rows->fields + kept++ * rows->columns, rows->fields + i * rows->columns,
                    (size_t)rows->columns * sizeof *rows->fields);
    rows->rows = kept;
    if (kept < all)
        mdm_warn("%s lacks %lld of the run's %lld samples; they are left out", path, (long long)(all - kept),
                 (long long)all);
}

mdm_status mdm_labels_review(mdm_labels_rows *rows, const mdm_labels_rows *copy, const char *path,
                             int64_t classes) {
    uint8_t *seen;
    mdm_status status = MDM_ALLOCATE(seen, rows->rows + 1, "the rows of labels.csv");
    for (int64_t i = 0; status == MDM_OK && i < copy->rows; i++)
        status = review_row(rows, copy, i, classes, path, seen);
    if (status == MDM_OK) keep_seen(rows, seen, path);
    free(seen);
    return status;
}
