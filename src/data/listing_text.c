/* Metadata beside pictures, to a listing: metadata.csv and JSON lines. */
#include "listing.h"
#include "listing_lines.h"
#include "listing_table.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

mdm_status mdm_listing_add_csv(mdm_listing *l, const char *text, size_t length, const char *name,
                               const char *root, const char *prefix, const mdm_listing_columns *columns,
                               int test) {
    MDM_TRY(mdm_begin_text(&text, &length, name));
    const mdm_table table = {
        .name = name, .root = root, .prefix = prefix, .columns = columns, .separator = ',', .test = test};
    if (!length) return mdm_fail(MDM_INPUT, "%s is empty", name);
    return mdm_table_add(l, &table, text, length);
}

static mdm_status add_object(mdm_listing *l, const json_t *object, const char *place, const char *root,
                             const char *prefix, const mdm_listing_columns *columns, int test) {
    static const char *const usual[] = {"label", "labels", "class", "category"};
    char number[32];
    const char *column = columns ? columns->label : NULL, *of_files = columns ? columns->file : NULL;
    const char *file = json_string_value(json_object_get(object, of_files ? of_files : "file_name"));
    const json_t *label = column ? json_object_get(object, column) : NULL;
    for (int i = 0; !column && !label && i < 4; i++) label = json_object_get(object, usual[i]);
    const char *text = json_string_value(label);
    if (json_is_integer(label)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(label));
        text = number;
    }
    if (!file || !*file || !text || !*text)
        return mdm_fail(MDM_INPUT, "%s: expected an object with %s and %s (a text or a whole number)", place,
                        of_files ? of_files : "file_name", column ? column : "label");
    char id[4096];
    if (snprintf(id, sizeof id, "%s%s", prefix, file) >= (int)sizeof id)
        return mdm_fail(MDM_INPUT, "a file name of %zu bytes is too long", strlen(file));
    return mdm_listing_add(l, root, id, strlen(id), text, strlen(text), test);
}

mdm_status mdm_listing_add_jsonl(mdm_listing *l, const char *text, size_t length, const char *name,
                                 const char *root, const char *prefix, const mdm_listing_columns *columns,
                                 int test) {
    char place[4200];
    mdm_piece line;
    int64_t number = 0;
    MDM_TRY(mdm_begin_text(&text, &length, name));
    for (const char *at = text; mdm_next_line(&at, text + length, &line);) {
        json_error_t error;
        number++;
        line = mdm_trim(line);
        if (!line.length) continue;
        snprintf(place, sizeof place, "%s, line %lld", name, (long long)number);
        json_t *object = json_loadb(line.at, line.length, JSON_REJECT_DUPLICATES, &error);
        if (!object) return mdm_fail(MDM_INPUT, "%s is no JSON (%s)", place, error.text);
        mdm_status status = add_object(l, object, place, root, prefix, columns, test);
        json_decref(object);
        MDM_TRY(status);
    }
    if (number == 0) return mdm_fail(MDM_INPUT, "%s is empty", name);
    return MDM_OK;
}
