/* The configuration's YAML: from a file's bytes, through libyaml's events, to mdm_config_set_key() for every
 * value.
 *
 * Only what a table of settings needs is taken: one document, one mapping, sections one level deep, scalars.
 * Everything by which YAML can surprise (anchors and aliases that expand, tags, merge keys, lists, keys given
 * twice) is refused with its line.
 */
#include "config_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

enum { NAME = 128, PLACE = 320, SHOWN = 80 };

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the present one; deleted by next_event */
    int has_event;
    mdm_config *config;
    const char *path;
    const char *text;
    size_t length;
    int key_line[MDM_CONFIG_MOST_KEYS];     /* where a key was given; 0: not yet */
    int section_line[MDM_CONFIG_MOST_KEYS]; /* where a section began, at the number of its first key */
} reader;

static const char *place_at(const reader *r, size_t line, char out[PLACE]) {
    char path[PLACE - 24];
    snprintf(out, PLACE, "%s:%zu", mdm_printable(r->path, path, sizeof path), line + 1);
    return out;
}

static const char *place(const reader *r, char out[PLACE]) {
    return place_at(r, r->event.start_mark.line, out);
}

static mdm_status syntax_error(const reader *r) {
    char where[PLACE];
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR) return mdm_fail(MDM_RESOURCE, "%s: no memory to read it", r->path);
    size_t line = p->problem_mark.line, column = p->problem_mark.column;
    if (p->error == YAML_READER_ERROR) { /* these come with an offset only */
        line = 0;
        column = 0;
        for (size_t i = 0; i < p->problem_offset && i < r->length; i++) {
            column = r->text[i] == '\n' ? 0 : column + 1;
            line += r->text[i] == '\n';
        }
    }
    return mdm_fail(MDM_USAGE,
                    "%s column %zu: not valid YAML: %s%s%s; allowed are lines like 'train.epochs: 5'",
                    place_at(r, line, where), column + 1, p->context != NULL ? p->context : "",
                    p->context != NULL ? ", " : "", p->problem != NULL ? p->problem : "unreadable");
}

/* Moves to the next event and refuses anchors, aliases, tags and lists, wherever they stand. */
static mdm_status next_event(reader *r) {
    char where[PLACE];
    if (r->has_event) yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event);
    if (!r->has_event) return syntax_error(r);
    const yaml_event_t *e = &r->event;
    const char *what = NULL;
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        what = "aliases (*name)";
        break;
    case YAML_SEQUENCE_START_EVENT:
        what = "lists";
        break;
    case YAML_SCALAR_EVENT:
        what = e->data.scalar.anchor != NULL ? "anchors (&name)"
               : e->data.scalar.tag != NULL  ? "tags (!name)"
                                             : NULL;
        break;
    case YAML_MAPPING_START_EVENT:
        what = e->data.mapping_start.anchor != NULL ? "anchors (&name)"
               : e->data.mapping_start.tag != NULL  ? "tags (!name)"
                                                    : NULL;
        break;
    case YAML_DOCUMENT_START_EVENT:
        what = e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end
                   ? "directives (%TAG)"
                   : NULL;
        break;
    default:
        break;
    }
    if (what == NULL) return MDM_OK;
    return mdm_fail(MDM_USAGE,
                    "%s: %s are not allowed in a configuration; write the value itself, as 'key: value'",
                    place(r, where), what);
}

/* The present scalar as text, at most `size` bytes with its end. */
static mdm_status scalar_text(const reader *r, const char *what, char *out, size_t size) {
    char where[PLACE], shown[SHOWN];
    const char *value = (const char *)r->event.data.scalar.value;
    size_t length = r->event.data.scalar.length;
    if (strlen(value) != length)
        return mdm_fail(MDM_USAGE, "%s: %s has a zero byte in it", place(r, where), what);
    if (length >= size)
        return mdm_fail(MDM_USAGE, "%s: %s '%s...' is %zu bytes long; allowed are %zu", place(r, where), what,
                        mdm_printable(value, shown, sizeof shown), length, size - 1);
    memcpy(out, value, length + 1);
    return MDM_OK;
}

/* The number of the first key in section `name`; -1 when there is no such section. */
static int find_section(const char *name) {
    size_t length = strlen(name);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const char *key = mdm_config_key_at(i)->name;
        if (length > 0 && strncmp(key, name, length) == 0 && key[length] == '.') return i;
    }
    return -1;
}

static int find_key(const char *name) {
    for (int i = 0; i < mdm_config_key_count(); i++)
        if (strcmp(mdm_config_key_at(i)->name, name) == 0) return i;
    return -1;
}

/* Notes that `name` is given in line `line`, which must be the first time. */
static mdm_status note_once(const reader *r, const char *name, int *first, size_t line) {
    char where[PLACE];
    if (*first != 0)
        return mdm_fail(MDM_USAGE, "%s: %s is given twice, first in line %d; allowed is once",
                        place_at(r, line, where), name, *first);
    *first = (int)line + 1;
    return MDM_OK;
}

static mdm_status read_value(reader *r, const char *name, size_t line) {
    char where[PLACE], value[MDM_CONFIG_TEXT];
    int key = find_key(name);
    if (key >= 0) {
        MDM_TRY(scalar_text(r, name, value, sizeof value));
        MDM_TRY(note_once(r, name, &r->key_line[key], line));
    } else {
        snprintf(value, sizeof value, "?");
        if (find_section(name) >= 0)
            return mdm_fail(MDM_USAGE, "%s: %s is a section, not a key; write its keys below it, as in '%s'",
                            place(r, where), name, mdm_config_key_at(find_section(name))->name);
    }
    return mdm_config_set_key(r->config, place_at(r, line, where), name, value);
}

static mdm_status unknown_section(const reader *r, const char *name, size_t line) {
    char where[PLACE], shown[SHOWN];
    const char *nearest = "train";
    int least = 1 << 30;
    place_at(r, line, where);
    mdm_printable(name, shown, sizeof shown);
    if (find_key(name) >= 0)
        return mdm_fail(MDM_USAGE, "%s: %s is a key and takes one value, not a section", where, shown);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const char *key = mdm_config_key_at(i)->name, *dot = strchr(key, '.');
        char section[NAME];
        if (dot == NULL) continue;
        snprintf(section, sizeof section, "%.*s", (int)(dot - key), key);
        int distance = mdm_edit_distance(name, section);
        if (distance >= least) continue;
        least = distance;
        nearest = mdm_config_key_at(find_section(section))->name;
    }
    return mdm_fail(
        MDM_USAGE, "%s: unknown section '%s'; the nearest known one is '%.*s' (--help-config lists all keys)",
        where, shown, (int)(strchr(nearest, '.') - nearest), nearest);
}

/* Reads the pairs of a mapping whose start is the present event, up to its end. `section` is "" at the top.
 */
static mdm_status read_mapping(reader *r, const char *section) {
    char where[PLACE], key[NAME / 2], name[NAME + 1];
    for (;;) {
        MDM_TRY(next_event(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return MDM_OK;
        if (r->event.type != YAML_SCALAR_EVENT)
            return mdm_fail(MDM_USAGE, "%s: a mapping stands where a key is expected; write 'key: value'",
                            place(r, where));
        size_t line = r->event.start_mark.line;
        MDM_TRY(scalar_text(r, "a key", key, sizeof key));
        if (strcmp(key, "<<") == 0)
            return mdm_fail(
                MDM_USAGE,
                "%s: merge keys (<<) are not allowed in a configuration; write the keys themselves",
                place(r, where));
        snprintf(name, sizeof name, "%s%s%s", section, section[0] != '\0' ? "." : "", key);
        MDM_TRY(next_event(r));
        if (r->event.type == YAML_SCALAR_EVENT) {
            MDM_TRY(read_value(r, name, line));
            continue;
        }
        int first = find_section(name);
        if (first < 0) return unknown_section(r, name, line);
        MDM_TRY(note_once(r, name, &r->section_line[first], line));
        MDM_TRY(read_mapping(r, name)); /* sections hold no sections: this is as deep as it gets */
    }
}

static mdm_status read_stream(reader *r) {
    char where[PLACE];
    MDM_TRY(next_event(r)); /* stream start */
    MDM_TRY(next_event(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return MDM_OK; /* nothing but comments */
    MDM_TRY(next_event(r));
    if (r->event.type == YAML_MAPPING_START_EVENT)
        MDM_TRY(read_mapping(r, ""));
    else if (r->event.data.scalar.length > 0)
        return mdm_fail(MDM_USAGE, "%s: the file is not a list of 'key: value' lines", place(r, where));
    MDM_TRY(next_event(r)); /* document end */
    MDM_TRY(next_event(r));
    if (r->event.type != YAML_STREAM_END_EVENT)
        return mdm_fail(MDM_USAGE, "%s: a second document begins; allowed is one", place(r, where));
    /* `run` as a key and as a section is one YAML key given twice, which other readers would not notice. */
    int run = find_key("run"), section = find_section("run");
    if (r->key_line[run] != 0 && r->section_line[section] != 0)
        return mdm_fail(
            MDM_USAGE,
            "%s: run is given twice, as a folder and as a section; write run.threads for the latter",
            place_at(r, (size_t)r->section_line[section] - 1, where));
    return MDM_OK;
}

/* Sets `run` to runs/<name of the file>. */
static mdm_status name_run(mdm_config *config, const char *path) {
    char folder[MDM_CONFIG_TEXT + 16];
    const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path,
               *dot = strrchr(base, '.');
    int has_ending = dot != NULL && dot != base && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
    size_t length = has_ending ? (size_t)(dot - base) : strlen(base);
    snprintf(folder, sizeof folder, "runs/%.*s", length < MDM_CONFIG_TEXT ? (int)length : MDM_CONFIG_TEXT,
             base);
    return mdm_config_set_key(config, path, "run", folder);
}

mdm_status mdm_config_read_text(mdm_config *config, const char *text, size_t length, const char *path) {
    mdm_config *changed = NULL;
    reader *r = NULL;
    mdm_status status = MDM_OK;
    if (length > MDM_CONFIG_FILE_LIMIT)
        return mdm_fail(MDM_USAGE, "%s: is larger than %d bytes, which is no configuration", path,
                        MDM_CONFIG_FILE_LIMIT);
    MDM_TRY_OR(status, MDM_ALLOCATE(changed, 1, "the configuration"), done);
    MDM_TRY_OR(status, MDM_ALLOCATE(r, 1, "the configuration's reader"), done);
    memcpy(changed, config, sizeof *changed);
    r->config = changed;
    r->path = path;
    r->text = text;
    r->length = length;
    if (!yaml_parser_initialize(&r->parser)) {
        status = mdm_fail(MDM_RESOURCE, "no memory to read %s", path);
        goto done;
    }
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    size_t mark =
        length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; /* the mark some editors put first */
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text + mark, length - mark);
    status = read_stream(r);
    if (status == MDM_OK && r->key_line[find_key("run")] == 0) status = name_run(changed, path);
    if (status == MDM_OK) memcpy(config, changed, sizeof *changed);
    if (r->has_event) yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
done:
    free(r);
    free(changed);
    return status;
}

/* The whole regular file; a FIFO or device must neither block nor be read. */
static mdm_status read_regular(const char *path, char *content, size_t *length) {
    struct stat about;
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return mdm_fail(MDM_USAGE, "%s: cannot open this configuration: %s", path, strerror(errno));
    mdm_status status = MDM_OK;
    *length = 0;
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode))
        status = mdm_fail(MDM_USAGE, "%s: is not a regular file; a configuration is a YAML file", path);
    while (status == MDM_OK &&
           *length <= MDM_CONFIG_FILE_LIMIT) { /* one byte more than allowed tells a file too large */
        ssize_t got = read(file, content + *length, MDM_CONFIG_FILE_LIMIT + 1 - *length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            status = mdm_fail(MDM_USAGE, "%s: cannot read this configuration: %s", path, strerror(errno));
        if (got <= 0) break;
        *length += (size_t)got;
    }
    close(file);
    return status;
}

mdm_status mdm_config_read_yaml(mdm_config *config, const char *path) {
    char *content = NULL;
    size_t length = 0;
    MDM_TRY(MDM_ALLOCATE(content, MDM_CONFIG_FILE_LIMIT + 1, "the configuration file"));
    mdm_status status = read_regular(path, content, &length);
    if (status == MDM_OK) status = mdm_config_read_text(config, content, length, path);
    free(content);
    return status;
}

mdm_status mdm_config_quickstart(mdm_config *config) {
    mdm_config_defaults(config);
    return mdm_config_read_text(config, mdm_config_quickstart_yaml, mdm_config_quickstart_length,
                                "quickstart.yaml");
}
