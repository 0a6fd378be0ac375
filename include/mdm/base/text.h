/* Small helpers for text and files. */
#ifndef MDM_BASE_TEXT_H
#define MDM_BASE_TEXT_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdio.h>

/* Edit distance (Damerau-Levenshtein, adjacent transpositions) of two names. */
int mdm_edit_distance(const char *a, const char *b);

/* The nearest of `count` names to `name`, or NULL when none is near enough to be a plausible typing error. */
const char *mdm_nearest_name(const char *name, const char *const *names, int count);

/* Bytes of the well-formed UTF-8 character at `text` (RFC 3629: no overlong forms, no surrogates), 0 if it is
 * none. */
size_t mdm_utf8_character(const unsigned char *text);

/* Copies `text` into `out` with control characters written as \xNN, cut to `size` bytes: for quoting
 * untrusted text. */
const char *mdm_printable(const char *text, char *out, size_t size);

/* Creates `path` and its missing parents. MDM_RESOURCE with the reason otherwise. */
MDM_MUST_CHECK mdm_status mdm_make_folders(const char *path);

/* MDM_RESOURCE where `path` leads to a device, a pipe or a socket, which a file that is renamed to it would
 * take the place of. */
MDM_MUST_CHECK mdm_status mdm_check_replaceable(const char *path);

/* Writes the whole content to `path` so that a reader sees the old file or the new one, never a torn one:
 * temporary file beside it, fsync, rename, fsync of the folder. On failure the old file stays and the
 * temporary one is removed. */
MDM_MUST_CHECK mdm_status mdm_write_file(const char *path, const void *content, size_t bytes);

/* The same piece by piece, for what memory need not hold: the temporary file grows, and finish makes it
 * `path`. Ended by finish, also where that fails, or by drop, which leaves the old file as it was. */
typedef struct mdm_writer mdm_writer;
MDM_MUST_CHECK mdm_status mdm_writer_open(const char *path, mdm_writer **writer);
MDM_MUST_CHECK mdm_status mdm_writer_add(mdm_writer *writer, const void *content, size_t bytes);
MDM_MUST_CHECK mdm_status mdm_writer_finish(mdm_writer *writer);
void mdm_writer_drop(mdm_writer *writer);

/* Reads a whole file, at most `limit` bytes (MDM_INPUT beyond), into a new zero-terminated buffer that the
 * caller frees. */
MDM_MUST_CHECK mdm_status mdm_read_file(const char *path, size_t limit, char **content, size_t *bytes);

/* A growing text buffer (for JSON, CSV, HTML). Starts zeroed; the owner frees `data`. After a failed
 * allocation `failed` is set and further calls do nothing, so one check at the end is enough. */
typedef struct mdm_text {
    char *data;
    size_t length, capacity;
    int failed;
} mdm_text;
void mdm_text_add(mdm_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mdm_text_add_bytes(mdm_text *text, const char *bytes, size_t count);
/* `value` as a JSON string with quotes (invalid UTF-8 replaced). */
void mdm_text_add_json_string(mdm_text *text, const char *value);
/* A finite number with enough digits to read back (%.9g), otherwise null. */
void mdm_text_add_json_number(mdm_text *text, double value);

#endif
