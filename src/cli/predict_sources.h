/* Where predict's pictures come from: files, folders, and lines on stdin, as one list of paths. */
#ifndef MDM_CLI_PREDICT_SOURCES_H
#define MDM_CLI_PREDICT_SOURCES_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef struct mdm_paths {
    char **path;
    int64_t count, capacity;
} mdm_paths;

/* Adds what an argument stands for: `-` one path a line from stdin, a folder all .jpg, .jpeg, .jpe and .png
 * files in it and below, in the order of their names, anything else itself. MDM_INPUT for an argument that is
 * not there. */
MDM_MUST_CHECK mdm_status mdm_paths_add(mdm_paths *paths, const char *argument);
void mdm_paths_free(mdm_paths *paths);
/* Whether a name ends in `end`, without regard to case. */
int mdm_path_ends_with(const char *path, const char *end);

#endif
