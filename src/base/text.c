/* From names, paths and values to text: the name somebody may have meant, files written whole or not at all,
 * and a growing buffer with what JSON needs. */
#include "mdm/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST_NAME = 255 };

static int smaller(int a, int b) {
    return a < b ? a : b;
}

/* Three rows of the table suffice: a transposition looks two rows back. Names too long for them are never
 * typing errors of each other; the longer length is an upper bound of their distance. */
int mdm_edit_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST_NAME || m > LONGEST_NAME) return strcmp(a, b) == 0 ? 0 : (int)(n > m ? n : m);
    int rows[3][LONGEST_NAME + 1];
    for (size_t j = 0; j <= m; j++) rows[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = smaller(above[j - 1] + (a[i - 1] != b[j - 1]), smaller(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = smaller(row[j], two_above[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

/* One error in a short name, one more for every four letters: "ephocs" finds "epochs", "cat" does not find
 * "dog". A name given without its section ("epochs") also finds the full one ("train.epochs"), at the price
 * of one error. */
const char *mdm_nearest_name(const char *name, const char *const *names, int count) {
    const char *best = NULL;
    int allowed = 1 + (int)(strlen(name) / 4), best_distance = allowed + 1;
    if (strlen(name) < 2) allowed = 0, best_distance = 1;
    for (int i = 0; i < count; i++) {
        int distance = mdm_edit_distance(name, names[i]);
        const char *dot = strrchr(names[i], '.');
        if (dot && !strchr(name, '.')) distance = smaller(distance, mdm_edit_distance(name, dot + 1) + 1);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

size_t mdm_utf8_character(const unsigned char *s) {
    if (s[0] < 0x80) return s[0] ? 1 : 0;
    size_t length = s[0] >= 0xC2 && s[0] <= 0xDF   ? 2
                    : (s[0] & 0xF0) == 0xE0        ? 3
                    : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4
                                                   : 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80) return 0; /* also stops at the terminating zero */
    if (s[0] == 0xE0 && s[1] < 0xA0) return 0;
    if (s[0] == 0xED && s[1] > 0x9F) return 0;
    if (s[0] == 0xF0 && s[1] < 0x90) return 0;
    if (s[0] == 0xF4 && s[1] > 0x8F) return 0;
    return length;
}

const char *mdm_printable(const char *text, char *out, size_t size) {
    const unsigned char *s = (const unsigned char *)text;
    size_t used = 0;
    if (size == 0) return "";
    while (*s) {
        char piece[8];
        size_t take = mdm_utf8_character(s), length;
        int control = *s < 0x20 || *s == 0x7F || (*s == 0xC2 && take == 2 && s[1] < 0xA0);
        if (take == 0 || control) {
            length = (size_t)snprintf(piece, sizeof piece, "\\x%02x", *s);
            take =
                1; /* the second byte of a control character of two is quoted on its own, as it is no start */
        } else {
            length = take;
            memcpy(piece, s, take);
        }
        if (used + length >= size) break;
        memcpy(out + used, piece, length);
        used += length;
        s += take;
    }
    out[used] = '\0';
    return out;
}

mdm_status mdm_make_folders(const char *path) {
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part)
        return mdm_fail(MDM_RESOURCE, "cannot create a folder whose name has %zu characters", length);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        struct stat state;
        if (mkdir(part, 0777) == 0) continue;
        int reason = errno; /* some file systems answer EROFS or EACCES for a folder that exists */
        if (stat(part, &state) == 0) {
            if (S_ISDIR(state.st_mode)) continue;
            reason = ENOTDIR;
        }
        return mdm_fail(MDM_RESOURCE, "cannot create folder %s: %s", part, strerror(reason));
    }
    return MDM_OK;
}

static int write_all(int file, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t n = write(file, bytes, count);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        bytes += n;
        count -= (size_t)n;
    }
    return 0;
}

/* A rename is only lasting when its folder is on disk too. Some file systems refuse fsync of folders
 * (EINVAL). */
static int sync_folder_of(const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, path, length);
    folder[length] = '\0';
    int file = open(!slash ? "." : length ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) return errno == EACCES ? 0 : -1; /* a folder may be writable without being readable */
    int result = fsync(file);
    if (result != 0 && (errno == EINVAL || errno == ENOTSUP)) result = 0;
    int reason = errno;
    close(file);
    errno = reason;
    return result;
}

/* /dev/stdout may lead to a file; its name is a device's all the same. */
mdm_status mdm_check_replaceable(const char *path) {
    int is_device = strncmp(path, "/dev/", 5) == 0 && strncmp(path, "/dev/shm/", 9) != 0;
    struct stat state;
    if (!is_device && (stat(path, &state) != 0 || S_ISREG(state.st_mode) || S_ISDIR(state.st_mode)))
        return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "cannot write %s: it is a device or a pipe, not a file", path);
}

struct mdm_writer {
    int file;
    char path[PATH_MAX], temporary[PATH_MAX];
};

/* Before anything else can change errno. */
static mdm_status refuse_write(const mdm_writer *w) {
    return mdm_fail(MDM_RESOURCE, "cannot write %s: %s", w->path, strerror(errno));
}

static mdm_status open_temporary(mdm_writer *w) {
    for (int attempt = 0; attempt < 100; attempt++) { /* names left over from a killed run are skipped */
        snprintf(w->temporary, sizeof w->temporary, "%.*s.tmp-%ld-%d", PATH_MAX - 33, w->path, (long)getpid(),
                 attempt);
        w->file = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->file >= 0) return MDM_OK;
        if (errno != EEXIST) break;
    }
    return refuse_write(w);
}

mdm_status mdm_writer_open(const char *path, mdm_writer **writer) {
    mdm_writer *w;
    *writer = NULL;
    if (strlen(path) + 32 >= sizeof w->temporary)
        return mdm_fail(MDM_RESOURCE, "cannot write %.200s...: the name is too long", path);
    MDM_TRY(mdm_check_replaceable(path));
    MDM_TRY(MDM_ALLOCATE(w, 1, "a file to write"));
    strcpy(w->path, path);
    mdm_status status = open_temporary(w);
    if (status == MDM_OK)
        *writer = w;
    else
        free(w);
    return status;
}

mdm_status mdm_writer_add(mdm_writer *w, const void *content, size_t bytes) {
    return write_all(w->file, content, bytes) == 0 ? MDM_OK : refuse_write(w);
}

void mdm_writer_drop(mdm_writer *w) {
    if (!w) return;
    if (w->file >= 0) close(w->file);
    unlink(w->temporary);
    free(w);
}

mdm_status mdm_writer_finish(mdm_writer *w) {
    mdm_status status = fsync(w->file) == 0 ? MDM_OK : refuse_write(w);
    int closed = close(w->file);
    w->file = -1;
    if (status == MDM_OK && (closed != 0 || rename(w->temporary, w->path) != 0)) status = refuse_write(w);
    if (status != MDM_OK) {
        mdm_writer_drop(w);
        return status;
    }
    if (sync_folder_of(w->path) != 0)
        status = mdm_fail(MDM_RESOURCE, "cannot make %s lasting: %s", w->path, strerror(errno));
    free(w);
    return status;
}

mdm_status mdm_write_file(const char *path, const void *content, size_t bytes) {
    mdm_writer *w;
    MDM_TRY(mdm_writer_open(path, &w));
    mdm_status status = mdm_writer_add(w, content, bytes);
    if (status == MDM_OK) return mdm_writer_finish(w);
    mdm_writer_drop(w);
    return status;
}

/* Reads until the end or one byte beyond the limit, growing as needed: also pipes, whose size is unknown. */
static mdm_status read_open_file(int file, const char *path, size_t expected, size_t limit, char **content,
                                 size_t *bytes) {
    size_t capacity = expected + 1, used = 0;
    char *buffer = malloc(capacity + 1);
    mdm_status status = MDM_OK;
    if (!buffer) return mdm_fail(MDM_RESOURCE, "not enough memory to read %s", path);
    for (;;) {
        if (used == capacity) {
            capacity = capacity * 2 + 4096;
            char *larger = malloc(capacity + 1);
            if (!larger) {
                status = mdm_fail(MDM_RESOURCE, "not enough memory to read %s", path);
                break;
            }
            memcpy(larger, buffer, used);
            free(buffer);
            buffer = larger;
        }
        ssize_t n = read(file, buffer + used, capacity - used);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = mdm_fail(MDM_INPUT, "cannot read %s: %s", path, strerror(errno));
        if (n <= 0) break;
        used += (size_t)n;
        if (used > limit) {
            status =
                mdm_fail(MDM_INPUT, "%s is larger than the %zu bytes that such a file may have", path, limit);
            break;
        }
    }
    if (status != MDM_OK) {
        free(buffer);
        return status;
    }
    buffer[used] = '\0';
    *content = buffer;
    if (bytes) *bytes = used;
    return MDM_OK;
}

mdm_status mdm_read_file(const char *path, size_t limit, char **content, size_t *bytes) {
    *content = NULL;
    if (bytes) *bytes = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat state;
    if (file < 0) return mdm_fail(MDM_INPUT, "cannot open %s: %s", path, strerror(errno));
    mdm_status status;
    if (fstat(file, &state) != 0)
        status = mdm_fail(MDM_INPUT, "cannot read %s: %s", path, strerror(errno));
    else if (S_ISDIR(state.st_mode))
        status = mdm_fail(MDM_INPUT, "cannot read %s: it is a folder, not a file", path);
    else if (S_ISREG(state.st_mode) && (uint64_t)state.st_size > limit)
        status = mdm_fail(MDM_INPUT, "%s has %lld bytes, more than the %zu that such a file may have", path,
                          (long long)state.st_size, limit);
    else
        status = read_open_file(file, path, S_ISREG(state.st_mode) ? (size_t)state.st_size : 4096, limit,
                                content, bytes);
    close(file);
    return status;
}

/* Room for `count` more bytes and the terminating zero. */
static int make_room(mdm_text *text, size_t count) {
    if (text->failed) return 0;
    if (count >= SIZE_MAX / 4 - text->length) {
        text->failed = 1;
        return 0;
    }
    size_t needed = text->length + count + 1;
    if (needed <= text->capacity) return 1;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity < needed) capacity *= 2;
    char *larger = realloc(text->data, capacity);
    if (!larger) {
        text->failed = 1;
        return 0;
    }
    text->data = larger;
    text->capacity = capacity;
    return 1;
}

void mdm_text_add_bytes(mdm_text *text, const char *bytes, size_t count) {
    if (!make_room(text, count)) return;
    if (count) memcpy(text->data + text->length, bytes, count);
    text->length += count;
    text->data[text->length] = '\0';
}

void mdm_text_add(mdm_text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) text->failed = 1;
    if (length < 0 || !make_room(text, (size_t)length)) return;
    va_start(arguments, format);
    vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)length;
}

void mdm_text_add_json_string(mdm_text *text, const char *value) {
    const unsigned char *s = (const unsigned char *)value;
    mdm_text_add_bytes(text, "\"", 1);
    while (*s) {
        size_t take = mdm_utf8_character(s);
        if (take == 0) {
            mdm_text_add_bytes(text, "\xEF\xBF\xBD", 3); /* U+FFFD, the replacement character */
            take = 1;
        } else if (*s == '"' || *s == '\\') {
            char escaped[2] = {'\\', (char)*s};
            mdm_text_add_bytes(text, escaped, 2);
        } else if (*s == '\n')
            mdm_text_add_bytes(text, "\\n", 2);
        else if (*s == '\t')
            mdm_text_add_bytes(text, "\\t", 2);
        else if (*s < 0x20 || *s == 0x7F)
            mdm_text_add(text, "\\u%04x", *s);
        else
            mdm_text_add_bytes(text, (const char *)s, take);
        s += take;
    }
    mdm_text_add_bytes(text, "\"", 1);
}

void mdm_text_add_json_number(mdm_text *text, double value) {
    char number[32] = "null";
    if (isfinite(value)) snprintf(number, sizeof number, "%.9g", value);
    for (char *c = number; *c; c++)
        if (*c == ',') *c = '.'; /* a library may have set a locale with decimal commas */
    mdm_text_add_bytes(text, number, strlen(number));
}
