/* Text that names pictures, to a listing: lists of `path label`, and metadata in CSV and JSON lines. */
#include "listing.h"
#include "mdm/base/text.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct piece {
    const char *at;
    size_t length;
} piece;

/* The next line without its end; 0 when there is none. */
static int next_line(const char **at, const char *end, piece *line) {
    if (*at >= end) return 0;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    if (!stop) stop = end;
    *line = (piece){*at, (size_t)(stop - *at)};
    if (line->length && line->at[line->length - 1] == '\r') line->length--;
    *at = stop + 1;
    return 1;
}

static int is_blank(char c) {
    return c == ' ' || c == '\t';
}

static piece trim(piece p) {
    while (p.length && is_blank(*p.at)) {
        p.at++;
        p.length--;
    }
    while (p.length && is_blank(p.at[p.length - 1])) p.length--;
    return p;
}

/* The texts go into strings that end at a zero byte. */
static mdm_status check_text(const char *text, size_t length, const char *name) {
    if (memchr(text, 0, length)) return mdm_fail(MDM_INPUT, "%s holds zero bytes; it is no text file", name);
    return MDM_OK;
}

/* Editors of some systems put a byte order mark in front. */
static void skip_mark(const char **text, size_t *length) {
    if (*length < 3 || memcmp(*text, "\xef\xbb\xbf", 3) != 0) return;
    *text += 3;
    *length -= 3;
}

/* What separates path and label: the first of tab, comma and blank that every line has. */
static char find_separator(const char *text, size_t length) {
    int tab = 1, comma = 1;
    piece line;
    for (const char *at = text; next_line(&at, text + length, &line);) {
        line = trim(line);
        if (!line.length) continue;
        tab = tab && memchr(line.at, '\t', line.length);
        comma = comma && memchr(line.at, ',', line.length);
    }
    return tab ? '\t' : comma ? ',' : ' ';
}

mdm_status mdm_listing_add_list(mdm_listing *l, const char *text, size_t length, const char *name,
                                const char *root, int test) {
    MDM_TRY(check_text(text, length, name));
    skip_mark(&text, &length);
    char separator = find_separator(text, length);
    piece line;
    int64_t number = 0, before = l->count;
    for (const char *at = text; next_line(&at, text + length, &line);) {
        number++;
        line = trim(line);
        if (!line.length) continue;
        const char *split = line.at + line.length; /* behind the path */
        while (split > line.at && !(split[-1] == separator || (separator == ' ' && split[-1] == '\t')))
            split--;
        piece label = trim((piece){split, (size_t)(line.at + line.length - split)});
        piece path = trim((piece){line.at, split > line.at ? (size_t)(split - 1 - line.at) : 0});
        if (!path.length || !label.length)
            return mdm_fail(MDM_INPUT,
                            "%s, line %lld: expected `path label`, separated by a space, tab or comma", name,
                            (long long)number);
        MDM_TRY(mdm_listing_add(l, root, path.at, path.length, label.at, label.length, test));
    }
    if (l->count == before) return mdm_fail(MDM_INPUT, "%s is empty", name);
    return MDM_OK;
}

static int by_id(const void *a, const void *b) {
    return strcmp(((const mdm_listed *)a)->id, ((const mdm_listed *)b)->id);
}

mdm_status mdm_listing_add_keys(mdm_listing *l, const char *text, size_t length, const char *name,
                                mdm_listing *known, const char *labels, const char *root, int test) {
    piece line;
    int64_t number = 0, before = l->count;
    MDM_TRY(check_text(text, length, name));
    skip_mark(&text, &length);
    qsort(known->entries, (size_t)known->count, sizeof *known->entries, by_id);
    for (int64_t i = 1; i < known->count; i++)
        if (by_id(&known->entries[i], &known->entries[i - 1]) == 0 &&
            strcmp(known->entries[i].text, known->entries[i - 1].text) != 0)
            return mdm_fail(MDM_INPUT, "%s gives %s two labels", labels, known->entries[i].id);
    for (const char *at = text; next_line(&at, text + length, &line);) {
        number++;
        line = trim(line);
        if (!line.length) continue;
        mdm_listed key = {.id = strndup(line.at, line.length)};
        if (!key.id) return mdm_fail(MDM_RESOURCE, "out of memory for file names");
        const mdm_listed *found = bsearch(&key, known->entries, (size_t)known->count, sizeof key, by_id);
        mdm_status status =
            found ? mdm_listing_add(l, root, key.id, line.length, found->text, strlen(found->text), test)
                  : mdm_fail(MDM_INPUT, "%s, line %lld: %s has no label in %s", name, (long long)number,
                             key.id, labels);
        free(key.id);
        MDM_TRY(status);
    }
    if (l->count == before) return mdm_fail(MDM_INPUT, "%s is empty", name);
    return MDM_OK;
}

/* One field of a CSV record from *at on, unquoted into `out` (as long as the text). Returns what ended it:
 * ',',
 * '\n', 0 for the end of the text, or -1 when a quote is not closed. */
static int next_field(const char **at, const char *end, char *out) {
    int quoted = *at < end && **at == '"';
    if (quoted) (*at)++;
    for (; *at < end; (*at)++) {
        if (quoted && **at == '"') {
            if (*at + 1 < end && (*at)[1] == '"')
                (*at)++; /* a doubled quote stands for one */
            else {
                quoted = 0;
                continue;
            }
        } else if (!quoted && (**at == ',' || **at == '\n')) {
            *out = 0;
            return *(*at)++;
        } else if (!quoted && **at == '\r')
            continue;
        *out++ = **at;
    }
    *out = 0;
    return quoted ? -1 : 0;
}

static int is_label_column(const char *name, const char *column) {
    static const char *const usual[] = {"label", "labels", "class", "category"};
    if (column) return strcmp(name, column) == 0;
    for (int i = 0; i < 4; i++)
        if (strcmp(name, usual[i]) == 0) return 1;
    return 0;
}

static mdm_status add_prefixed(mdm_listing *l, const char *root, const char *prefix, const char *file,
                               const char *label, int test) {
    char id[4096];
    if (snprintf(id, sizeof id, "%s%s", prefix, file) >= (int)sizeof id)
        return mdm_fail(MDM_INPUT, "a file name of %zu bytes is too long", strlen(file));
    return mdm_listing_add(l, root, id, strlen(id), label, strlen(label), test);
}

static mdm_status add_records(mdm_listing *l, const char *at, const char *end, const char *name,
                              const char *root, const char *prefix, const char *column, int test, char *field,
                              char *file, char *label) {
    int file_column = -1, label_column = -1;
    for (int64_t record = 0; at < end; record++) {
        int stop = ',', fields = 0;
        *file = *label = 0;
        for (; stop == ','; fields++) {
            stop = next_field(&at, end, field);
            if (record == 0 && strcmp(field, "file_name") == 0) file_column = fields;
            if (record == 0 && is_label_column(field, column) && label_column < 0) label_column = fields;
            if (fields == file_column) strcpy(file, field);
            if (fields == label_column) strcpy(label, field);
        }
        if (stop < 0)
            return mdm_fail(MDM_INPUT, "%s, record %lld: a quote is not closed", name, (long long)record + 1);
        if (record == 0 && (file_column < 0 || label_column < 0))
            return mdm_fail(MDM_INPUT,
                            "%s: the first line must name the columns file_name and %s; --label-column", name,
                            column ? column : "label");
        if (record == 0 || (fields == 1 && !*field)) continue;
        if (!*file || !*label)
            return mdm_fail(MDM_INPUT, "%s, record %lld: the file name or the label is missing", name,
                            (long long)record + 1);
        MDM_TRY(add_prefixed(l, root, prefix, file, label, test));
    }
    return MDM_OK;
}

mdm_status mdm_listing_add_csv(mdm_listing *l, const char *text, size_t length, const char *name,
                               const char *root, const char *prefix, const char *column, int test) {
    char *fields;
    MDM_TRY(check_text(text, length, name));
    skip_mark(&text, &length);
    if (!length) return mdm_fail(MDM_INPUT, "%s is empty", name);
    MDM_TRY(MDM_ALLOCATE(fields, 3 * (length + 1), "a record"));
    mdm_status status = add_records(l, text, text + length, name, root, prefix, column, test, fields,
                                    fields + length + 1, fields + 2 * (length + 1));
    free(fields);
    return status;
}

static mdm_status add_object(mdm_listing *l, const json_t *object, const char *place, const char *root,
                             const char *prefix, const char *column, int test) {
    static const char *const usual[] = {"label", "labels", "class", "category"};
    char number[32];
    const char *file = json_string_value(json_object_get(object, "file_name"));
    const json_t *label = column ? json_object_get(object, column) : NULL;
    for (int i = 0; !column && !label && i < 4; i++) label = json_object_get(object, usual[i]);
    const char *text = json_string_value(label);
    if (json_is_integer(label)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(label));
        text = number;
    }
    if (!file || !*file || !text || !*text)
        return mdm_fail(MDM_INPUT, "%s: expected an object with file_name and %s (a text or a whole number)",
                        place, column ? column : "label");
    return add_prefixed(l, root, prefix, file, text, test);
}

mdm_status mdm_listing_add_jsonl(mdm_listing *l, const char *text, size_t length, const char *name,
                                 const char *root, const char *prefix, const char *column, int test) {
    char place[4200];
    piece line;
    int64_t number = 0;
    MDM_TRY(check_text(text, length, name));
    skip_mark(&text, &length);
    for (const char *at = text; next_line(&at, text + length, &line);) {
        json_error_t error;
        number++;
        line = trim(line);
        if (!line.length) continue;
        snprintf(place, sizeof place, "%s, line %lld", name, (long long)number);
        json_t *object = json_loadb(line.at, line.length, JSON_REJECT_DUPLICATES, &error);
        if (!object) return mdm_fail(MDM_INPUT, "%s is no JSON (%s)", place, error.text);
        mdm_status status = add_object(l, object, place, root, prefix, column, test);
        json_decref(object);
        MDM_TRY(status);
    }
    if (number == 0) return mdm_fail(MDM_INPUT, "%s is empty", name);
    return MDM_OK;
}
