/* From predict's arguments to a list of files. */
#include "predict_sources.h"
#include "mdm/base/text.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MOST_DEPTH = 32 };

int mdm_path_ends_with(const char *path, const char *end) {
    size_t a = strlen(path), b = strlen(end);
    return a >= b && strcasecmp(path + a - b, end) == 0;
}

static mdm_status add_path(mdm_paths *paths, const char *path) {
    if (paths->count == paths->capacity) {
        int64_t wanted = paths->capacity ? 2 * paths->capacity : 256;
        char **larger = realloc(paths->path, (size_t)wanted * sizeof *larger);
        if (!larger) return mdm_fail(MDM_RESOURCE, "out of memory for the list of pictures");
        paths->path = larger;
        paths->capacity = wanted;
    }
    char *copy = strdup(path);
    if (!copy) return mdm_fail(MDM_RESOURCE, "out of memory for the list of pictures");
    paths->path[paths->count++] = copy;
    return MDM_OK;
}

static mdm_status add_folder(mdm_paths *paths, const char *folder, int depth);

static mdm_status add_member(mdm_paths *paths, const char *folder, const char *name, int depth) {
    static const char *const endings[] = {".jpg", ".jpeg", ".jpe", ".png"};
    const char *between = mdm_path_ends_with(folder, "/") ? "" : "/";
    struct stat state;
    char path[4096];
    if (name[0] == '.') return MDM_OK;
    if (snprintf(path, sizeof path, "%s%s%s", folder, between, name) >= (int)sizeof path)
        return mdm_fail(MDM_INPUT, "a path in %s is longer than 4095 bytes", folder);
    if (stat(path, &state) == 0 && S_ISDIR(state.st_mode)) return add_folder(paths, path, depth + 1);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) /* a link to nothing is told when read */
        if (mdm_path_ends_with(name, endings[i])) return add_path(paths, path);
    return MDM_OK;
}

static mdm_status add_folder(mdm_paths *paths, const char *folder, int depth) {
    struct dirent **members;
    mdm_status status = MDM_OK;
    if (depth > MOST_DEPTH) /* a link that leads back up */
        return mdm_fail(MDM_INPUT, "%s lies more than %d folders deep", folder, MOST_DEPTH);
    int count = scandir(folder, &members, NULL, alphasort);
    if (count < 0) return mdm_fail(MDM_INPUT, "cannot read the folder %s: %s", folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        if (status == MDM_OK) status = add_member(paths, folder, members[i]->d_name, depth);
        free(members[i]);
    }
    free(members);
    return status;
}

static mdm_status add_lines(mdm_paths *paths) {
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    mdm_status status = MDM_OK;
    while (status == MDM_OK && (length = getline(&line, &size, stdin)) >= 0) {
        while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) line[--length] = 0;
        if (length > 0) status = add_path(paths, line);
    }
    free(line);
    return status;
}

mdm_status mdm_paths_add(mdm_paths *paths, const char *argument) {
    struct stat state;
    if (strcmp(argument, "-") == 0) return add_lines(paths);
    if (stat(argument, &state) != 0)
        return mdm_fail(MDM_INPUT, "cannot read %s: %s", argument, strerror(errno));
    int64_t before = paths->count;
    if (!S_ISDIR(state.st_mode)) return add_path(paths, argument);
    MDM_TRY(add_folder(paths, argument, 0));
    if (paths->count == before)
        return mdm_fail(MDM_INPUT, "the folder %s holds no .jpg, .jpeg, .jpe or .png files", argument);
    return MDM_OK;
}

void mdm_paths_free(mdm_paths *paths) {
    for (int64_t i = 0; i < paths->count; i++) free(paths->path[i]);
    free(paths->path);
    memset(paths, 0, sizeof *paths);
}
