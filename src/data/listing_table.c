/* Tables whose first line names the columns, to a listing. */
#include "listing_table.h"
#include "listing_lines.h"
#include "mdm/base/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const usual_labels[] = {"label", "labels", "class", "category"};
static const char *const usual_files[] = {"file_name", "filename",   "file",  "path", "file_path",
                                          "filepath",  "image_path", "image", NULL};

/* What a record is read into, each as long as the text. */
typedef struct buffers {
    char *field, *file, *label;
} buffers;

typedef struct places {
    int file, label; /* columns by number, -1: not found */
} places;

static mdm_status get_buffers(size_t length, buffers *b) {
    MDM_TRY(MDM_ALLOCATE(b->field, 3 * (length + 1), "a record"));
    b->file = b->field + length + 1;
    b->label = b->file + length + 1;
    return MDM_OK;
}

static int is_file_column(const mdm_table *t, const char *name) {
    if (t->columns && t->columns->file) return strcmp(name, t->columns->file) == 0;
    if (!t->list) return strcmp(name, usual_files[0]) == 0;
    for (int i = 0; usual_files[i]; i++)
        if (strcasecmp(name, usual_files[i]) == 0) return 1;
    return 0;
}

static int is_label_column(const mdm_table *t, const char *name) {
    if (t->columns && t->columns->label) return strcmp(name, t->columns->label) == 0;
    for (int i = 0; i < 4; i++)
        if (t->list ? strcasecmp(name, usual_labels[i]) == 0 : strcmp(name, usual_labels[i]) == 0) return 1;
    return 0;
}

static void trim(char *text) {
    mdm_piece p = mdm_trim((mdm_piece){text, strlen(text)});
    memmove(text, p.at, p.length);
    text[p.length] = 0;
}

/* One record from *at on: its file and label by `p`, or, of the header, `p` by its fields. Returns the number
 * of fields, or -1 when a quote is not closed. */
static int read_record(const mdm_table *t, const char **at, const char *end, int header, places *p,
                       buffers *b) {
    int stop = t->separator, fields = 0;
    *b->file = *b->label = 0;
    for (; stop == t->separator; fields++) {
        while (t->list && t->separator != ' ' && *at < end && **at == ' ') (*at)++; /* before a quote, too */
        stop = mdm_next_field(at, end, t->separator, b->field);
        if (t->list) trim(b->field);
        if (header && p->file < 0 && is_file_column(t, b->field)) p->file = fields;
        if (header && p->label < 0 && is_label_column(t, b->field)) p->label = fields;
        if (fields == p->file) strcpy(b->file, b->field);
        if (fields == p->label) strcpy(b->label, b->field);
    }
    return stop < 0 ? -1 : fields;
}

mdm_status mdm_table_has_header(const mdm_table *t, const char *text, size_t length, int *found) {
    const char *line_end = memchr(text, '\n', length), *at = text;
    buffers b;
    places p = {-1, -1};
    if (line_end) length = (size_t)(line_end - text);
    MDM_TRY(get_buffers(length, &b));
    *found = read_record(t, &at, text + length, 1, &p, &b) >= 0 && p.file >= 0 && p.label >= 0;
    free(b.field);
    return MDM_OK;
}

static mdm_status add_record(mdm_listing *l, const mdm_table *t, const buffers *b) {
    char id[4096];
    if (snprintf(id, sizeof id, "%s%s", t->prefix, b->file) >= (int)sizeof id)
        return mdm_fail(MDM_INPUT, "a file name of %zu bytes is too long", strlen(b->file));
    return mdm_listing_add(l, t->root, id, strlen(id), b->label, strlen(b->label), t->test);
}

static mdm_status add_records(mdm_listing *l, const mdm_table *t, const char *at, const char *end,
                              buffers *b) {
    const char *file = t->columns && t->columns->file ? t->columns->file : usual_files[0];
    const char *label = t->columns && t->columns->label ? t->columns->label : usual_labels[0];
    places p = {-1, -1};
    for (int64_t record = 1; at < end; record++) {
        int fields = read_record(t, &at, end, record == 1, &p, b);
        if (fields < 0)
            return mdm_fail(MDM_INPUT, "%s, record %lld: a quote is not closed", t->name, (long long)record);
        if (record == 1 && (p.file < 0 || p.label < 0))
            return mdm_fail(MDM_INPUT,
                            "%s: the first line must name the columns %s and %s; --file-column and "
                            "--label-column name others",
                            t->name, file, label);
        if (record == 1 || (fields == 1 && !*b->field)) continue;
        if (!*b->file || !*b->label)
            return mdm_fail(MDM_INPUT, "%s, record %lld: the file name or the label is missing", t->name,
                            (long long)record);
        MDM_TRY(add_record(l, t, b));
    }
    return MDM_OK;
}

mdm_status mdm_table_add(mdm_listing *l, const mdm_table *t, const char *text, size_t length) {
    buffers b;
    MDM_TRY(get_buffers(length, &b));
    mdm_status status = add_records(l, t, text, text + length, &b);
    free(b.field);
    return status;
}
