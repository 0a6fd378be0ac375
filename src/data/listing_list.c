/* List files to a listing: lines of `path label`, or of paths whose labels another list gives. */
#include "listing.h"
#include "listing_lines.h"
#include "listing_table.h"
#include <stdlib.h>
#include <string.h>

/* What separates path and label: the first of tab, comma, semicolon and blank that every line has. */
static char find_separator(const char *text, size_t length) {
    static const char separators[] = {'\t', ',', ';'};
    int everywhere[3] = {1, 1, 1};
    mdm_piece line;
    for (const char *at = text; mdm_next_line(&at, text + length, &line);) {
        line = mdm_trim(line);
        for (int i = 0; line.length && i < 3; i++)
            everywhere[i] = everywhere[i] && memchr(line.at, separators[i], line.length);
    }
    for (int i = 0; i < 3; i++)
        if (everywhere[i]) return separators[i];
    return ' ';
}

/* Where the label of a line begins: behind its last separator outside of quotes, or at its end when there is
 * none. Quotes count where a field begins with one, in lists as spreadsheets write them; NULL when one is not
 * closed. */
static const char *find_label(mdm_piece line, char separator) {
    const char *end = line.at + line.length, *label = end;
    int quotes = separator == ',' || separator == ';', quoted = 0, begins = 1;
    for (const char *at = line.at; at < end; at++) {
        if (quoted) {
            quoted = *at != '"'; /* a doubled quote ends one field and begins another with nothing between */
            begins = !quoted;
        } else if (*at == '"' && begins && quotes) {
            quoted = 1;
        } else if (*at == separator || (separator == ' ' && *at == '\t')) {
            label = at + 1;
            begins = 1;
        } else {
            begins = begins && *at == ' ';
        }
    }
    return quoted ? NULL : label;
}

/* A field's text for the caller to free, without its quotes; NULL without memory. *sound tells whether a
 * field that begins with a quote ends with one, those inside doubled. */
static char *unquoted(mdm_piece field, char separator, int *sound) {
    const char *end = field.at + field.length, *at = field.at;
    char *copy = malloc(field.length + 1), *to = copy;
    int quotes = separator == ',' || separator == ';', quoted = quotes && field.length && *at == '"';
    *sound = !quoted;
    if (!copy) return NULL;
    for (at += quoted; at < end; *to++ = *at++) {
        if (!quoted || *at != '"') continue;
        if (++at == end) *sound = 1; /* the closing one */
        if (at == end || *at != '"') break;
    }
    *to = 0;
    return copy;
}

static mdm_status add_fields(mdm_listing *l, mdm_piece path, mdm_piece label, char separator,
                             const char *root, int test, int *sound) {
    int sound_label;
    char *file = unquoted(path, separator, sound), *class_name = unquoted(label, separator, &sound_label);
    mdm_status status = MDM_OK;
    *sound = *sound && sound_label;
    if (!file || !class_name)
        status = mdm_fail(MDM_RESOURCE, "out of memory for file names");
    else if (*sound && (*sound = *file && *class_name))
        status = mdm_listing_add(l, root, file, strlen(file), class_name, strlen(class_name), test);
    free(file);
    free(class_name);
    return status;
}

static mdm_status add_lines(mdm_listing *l, const char *text, const char *end, const char *name,
                            char separator, int64_t number, const char *root, int test) {
    mdm_piece line;
    int64_t before = l->count;
    for (const char *at = text; mdm_next_line(&at, end, &line);) {
        number++;
        line = mdm_trim(line);
        if (!line.length) continue;
        const char *split = find_label(line, separator);
        if (!split)
            return mdm_fail(MDM_INPUT, "%s, line %lld: a quote is not closed", name, (long long)number);
        mdm_piece label = mdm_trim((mdm_piece){split, (size_t)(line.at + line.length - split)});
        mdm_piece path = mdm_trim((mdm_piece){line.at, split > line.at ? (size_t)(split - 1 - line.at) : 0});
        int sound = path.length && label.length;
        if (!sound)
            return mdm_fail(MDM_INPUT,
                            "%s, line %lld: expected `path label`, separated by a space, tab or comma", name,
                            (long long)number);
        MDM_TRY(add_fields(l, path, label, separator, root, test, &sound));
        if (!sound)
            return mdm_fail(
                MDM_INPUT,
                "%s, line %lld: expected `path%clabel`; what begins with a quote ends with one, and quotes "
                "inside are doubled",
                name, (long long)number, separator);
    }
    if (l->count == before) return mdm_fail(MDM_INPUT, "%s is empty", name);
    return MDM_OK;
}

/* What separates a list's fields: what makes a header of the first line, or else what every line has. */
static mdm_status find_fields(mdm_table *table, const char *text, size_t length, int *header) {
    static const char separators[] = {'\t', ',', ';', ' '};
    *header = 0;
    for (int i = 0; i < 4; i++) {
        table->separator = separators[i];
        if (length) MDM_TRY(mdm_table_has_header(table, text, length, header));
        if (*header) return MDM_OK;
    }
    table->separator = find_separator(text, length);
    return MDM_OK;
}

mdm_status mdm_listing_add_list(mdm_listing *l, const char *text, size_t length, const char *name,
                                const char *root, const mdm_listing_columns *columns, int test) {
    int header, asked = columns && (columns->file || columns->label);
    int64_t before = l->count;
    mdm_piece line;
    MDM_TRY(mdm_begin_text(&text, &length, name));
    mdm_table table = {.name = name, .root = root, .prefix = "", .columns = columns, .list = 1, .test = test};
    MDM_TRY(find_fields(&table, text, length, &header));
    const char *at = text, *end = text + length;
    if (header && table.separator == ' ') { /* paths may hold blanks, so lines are not fields */
        if (!mdm_next_line(&at, end, &line) || at > end) at = end;
        return add_lines(l, at, end, name, find_separator(at, (size_t)(end - at)), 1, root, test);
    }
    if (!header && !asked) return add_lines(l, at, end, name, table.separator, 0, root, test);
    if (length) MDM_TRY(mdm_table_add(l, &table, text, length)); /* or its words for the columns missing */
    return l->count > before ? MDM_OK : mdm_fail(MDM_INPUT, "%s is empty", name);
}

static int by_id(const void *a, const void *b) {
    return strcmp(((const mdm_listed *)a)->id, ((const mdm_listed *)b)->id);
}

mdm_status mdm_listing_add_keys(mdm_listing *l, const char *text, size_t length, const char *name,
                                mdm_listing *known, const char *labels, const char *root, int test) {
    mdm_piece line;
    int64_t number = 0, before = l->count;
    MDM_TRY(mdm_begin_text(&text, &length, name));
    qsort(known->entries, (size_t)known->count, sizeof *known->entries, by_id);
    for (int64_t i = 1; i < known->count; i++)
        if (by_id(&known->entries[i], &known->entries[i - 1]) == 0 &&
            strcmp(known->entries[i].text, known->entries[i - 1].text) != 0)
            return mdm_fail(MDM_INPUT, "%s gives %s two labels", labels, known->entries[i].id);
    for (const char *at = text; mdm_next_line(&at, text + length, &line);) {
        number++;
        line = mdm_trim(line);
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
