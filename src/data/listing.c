/* Listings of picture files: kept in order, and their labels turned from texts into numbers. */
#include "listing.h"
#include "listing_lines.h"
#include "mdm/base/text.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MOST_CLASSES = 1000000, MOST_DEPTH = 32 };

void mdm_listing_free(mdm_listing *l) {
    for (int64_t i = 0; i < l->count; i++) {
        free(l->entries[i].path);
        free(l->entries[i].id);
        free(l->entries[i].text);
    }
    for (int c = 0; l->classes && c < l->class_count; c++) free(l->classes[c]);
    free(l->entries);
    free(l->classes);
    free(l->first_passed_over);
    free(l->first_without_class);
    memset(l, 0, sizeof *l);
}

mdm_status mdm_listing_add(mdm_listing *l, const char *root, const char *id, size_t id_length,
                           const char *text, size_t text_length, int test) {
    if (l->count == l->capacity) {
        int64_t capacity = l->capacity ? 2 * l->capacity : 1024;
        mdm_listed *larger = realloc(l->entries, sizeof *larger * (size_t)capacity);
        if (!larger)
            return mdm_fail(MDM_RESOURCE, "out of memory for a list of %lld files", (long long)capacity);
        l->entries = larger;
        l->capacity = capacity;
    }
    size_t root_length = id_length && id[0] == '/' ? 0 : strlen(root);
    mdm_listed *e = &l->entries[l->count];
    *e = (mdm_listed){malloc(root_length + id_length + 2), strndup(id, id_length), strndup(text, text_length),
                      -1, test};
    l->count++;
    if (!e->path || !e->id || !e->text) return mdm_fail(MDM_RESOURCE, "out of memory for file names");
    if (root_length)
        snprintf(e->path, root_length + id_length + 2, "%s/%s", root, e->id);
    else
        memcpy(e->path, e->id, strlen(e->id) + 1);
    return MDM_OK;
}

static int is_picture(const char *name) {
    static const char *const endings[] = {".jpg", ".jpeg", ".jpe", ".png"};
    const char *dot = strrchr(name, '.');
    for (int i = 0; dot && i < 4; i++)
        if (strcasecmp(dot, endings[i]) == 0) return 1;
    return 0;
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static mdm_status set_path(mdm_listed *e, const char *path) {
    free(e->path);
    e->path = strdup(path);
    return e->path ? MDM_OK : mdm_fail(MDM_RESOURCE, "out of memory for file names");
}

static mdm_status too_long(const char *root, const char *inside) {
    return mdm_fail(MDM_INPUT, "the path is too long: %.100s/%.100s...", root, inside);
}

/* Counts a file that is no picture by its name, or a picture that lies in no class folder. */
static mdm_status pass_over(mdm_listing *l, const char *path, int without_class) {
    char **first = without_class ? &l->first_without_class : &l->first_passed_over;
    int64_t *count = without_class ? &l->without_class : &l->passed_over;
    if ((*count)++ == 0 && !(*first = strdup(path)))
        return mdm_fail(MDM_RESOURCE, "out of memory for file names");
    return MDM_OK;
}

/* Adds everything under root/inside; the first folder on the way is the class. */
static mdm_status add_inside(mdm_listing *l, const char *root, const char *inside, const char *class_name,
                             const char *prefix, int depth, int test) {
    char folder[4096], path[4096], id[4096];
    struct dirent **names;
    struct stat info;
    if (depth > MOST_DEPTH)
        return mdm_fail(MDM_INPUT, "%s: folders are nested more than %d deep", root, (int)MOST_DEPTH);
    if (snprintf(folder, sizeof folder, "%s/%s", root, inside) >= (int)sizeof folder)
        return too_long(root, inside);
    int count = scandir(folder, &names, is_visible, by_name);
    if (count < 0) return mdm_fail(MDM_INPUT, "%s cannot be read: %s", folder, strerror(errno));
    mdm_status status = MDM_OK;
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        int length = snprintf(path, sizeof path, "%s%s%s", inside, *inside ? "/" : "", name);
        if (status == MDM_OK && (length >= (int)sizeof path ||
                                 snprintf(folder, sizeof folder, "%s/%s", root, path) >= (int)sizeof folder ||
                                 snprintf(id, sizeof id, "%s%s", prefix, path) >= (int)sizeof id))
            status = too_long(root, path);
        int there = status == MDM_OK && stat(folder, &info) == 0; /* not so a link to nowhere */
        if (there && S_ISDIR(info.st_mode))
            status = add_inside(l, root, path, class_name ? class_name : name, prefix, depth + 1, test);
        else if (status == MDM_OK && class_name && is_picture(name) && (!there || S_ISREG(info.st_mode))) {
            status = mdm_listing_add(l, "", id, strlen(id), class_name, strlen(class_name), test);
            if (status == MDM_OK) status = set_path(&l->entries[l->count - 1], folder);
        } else if (status == MDM_OK)
            status = pass_over(l, folder, !class_name && is_picture(name));
        free(names[i]);
    }
    free(names);
    return status;
}

mdm_status mdm_listing_add_folder(mdm_listing *l, const char *root, const char *prefix, int test) {
    int64_t before = l->count;
    MDM_TRY(add_inside(l, root, "", NULL, prefix, 0, test));
    if (l->count == before)
        return mdm_fail(MDM_INPUT, "%s holds no folders with .jpg, .jpeg or .png files; a folder is a class",
                        root);
    return MDM_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A label written as a whole number below MOST_CLASSES, or -1. */
static int32_t number_in(const char *text) {
    int32_t value = 0;
    if (!*text || strlen(text) > 6) return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return -1;
        value = value * 10 + (*text - '0');
    }
    return value;
}

static mdm_status add_class(mdm_listing *l, mdm_piece name) {
    if (!(l->classes[l->class_count] = strndup(name.at, name.length)))
        return mdm_fail(MDM_RESOURCE, "out of memory for class names");
    l->class_count++;
    return MDM_OK;
}

static mdm_status read_classes(mdm_listing *l, const char *path) {
    char *text;
    mdm_piece line;
    size_t bytes, lines = 1;
    MDM_TRY(mdm_read_file(path, (size_t)64 << 20, &text, &bytes));
    const char *at = text;
    mdm_status status = mdm_begin_text(&at, &bytes, path);
    const char *end = at + bytes;
    for (const char *c = at; c < end; c++) lines += *c == '\n';
    if (status == MDM_OK) status = MDM_ALLOCATE(l->classes, lines, "class names");
    while (status == MDM_OK && mdm_next_line(&at, end, &line)) {
        line = mdm_trim(line);
        if (line.length) status = add_class(l, line);
    }
    free(text);
    if (status == MDM_OK && (l->class_count < 2 || l->class_count > MOST_CLASSES))
        return mdm_fail(MDM_INPUT, "%s has %d lines; expected one class name a line, at least 2", path,
                        l->class_count);
    return status;
}

/* 2 before 10; of one number written in two ways, by the text. */
static int by_number(const void *a, const void *b) {
    int32_t x = number_in(*(char *const *)a), y = number_in(*(char *const *)b);
    return x != y ? (x > y) - (x < y) : by_text(a, b);
}

/* The different texts in order. */
static mdm_status collect_classes(mdm_listing *l, int numbers) {
    char **texts;
    MDM_TRY(MDM_ALLOCATE(texts, l->count, "class names"));
    for (int64_t i = 0; i < l->count; i++) texts[i] = l->entries[i].text;
    qsort(texts, (size_t)l->count, sizeof *texts, numbers ? by_number : by_text);
    int64_t different = 0;
    for (int64_t i = 0; i < l->count; i++)
        if (i == 0 || strcmp(texts[i], texts[i - 1]) != 0) texts[different++] = texts[i];
    mdm_status status = different > MOST_CLASSES
                            ? mdm_fail(MDM_INPUT, "%lld different labels; at most %d are possible",
                                       (long long)different, (int)MOST_CLASSES)
                            : MDM_ALLOCATE(l->classes, different, "class names");
    for (int64_t i = 0; status == MDM_OK && i < different; i++)
        status = add_class(l, (mdm_piece){texts[i], strlen(texts[i])});
    free(texts);
    return status;
}

typedef struct class_place {
    const char *name;
    int32_t number;
} class_place;

static int by_class_name(const void *a, const void *b) {
    return strcmp(((const class_place *)a)->name, ((const class_place *)b)->name);
}

static mdm_status look_up(mdm_listing *l, const char *classes_file) {
    class_place *places;
    MDM_TRY(MDM_ALLOCATE(places, l->class_count, "class names"));
    for (int c = 0; c < l->class_count; c++) places[c] = (class_place){l->classes[c], c};
    qsort(places, (size_t)l->class_count, sizeof *places, by_class_name);
    mdm_status status = MDM_OK;
    for (int c = 1; status == MDM_OK && c < l->class_count; c++)
        if (strcmp(places[c].name, places[c - 1].name) == 0)
            status = mdm_fail(MDM_INPUT, "%s names the class %s twice", classes_file, places[c].name);
    for (int64_t i = 0; status == MDM_OK && i < l->count; i++) {
        class_place key = {l->entries[i].text, 0},
                    *found = bsearch(&key, places, (size_t)l->class_count, sizeof *places, by_class_name);
        char quoted[128];
        int32_t number = found ? found->number : number_in(l->entries[i].text);
        if (number < 0 || number >= l->class_count)
            status = mdm_fail(MDM_INPUT, "%s: its class %s is not in %s", l->entries[i].id,
                              mdm_printable(l->entries[i].text, quoted, sizeof quoted), classes_file);
        l->entries[i].label = number;
    }
    free(places);
    return status;
}

mdm_status mdm_listing_number(mdm_listing *l, const char *classes_file, mdm_numbering numbering) {
    int numbers = numbering != MDM_NAMES_ALONE && !classes_file;
    if (l->count == 0) return mdm_fail(MDM_INPUT, "the source names no pictures");
    for (int64_t i = 0; numbers && i < l->count; i++) numbers = number_in(l->entries[i].text) >= 0;
    if (!numbers || numbering == MDM_NUMBERS_ARE_NAMES) {
        if (classes_file)
            MDM_TRY(read_classes(l, classes_file));
        else
            MDM_TRY(collect_classes(l, numbers));
        MDM_TRY(look_up(l, classes_file ? classes_file : "the source"));
    } else {
        for (int64_t i = 0; i < l->count; i++) {
            l->entries[i].label = number_in(l->entries[i].text);
            if (l->entries[i].label >= l->class_count) l->class_count = l->entries[i].label + 1;
        }
    }
    if (l->class_count < 2)
        return mdm_fail(MDM_INPUT, "the source has a single class (%s); at least 2 are needed",
                        l->entries[0].text);
    return MDM_OK;
}
