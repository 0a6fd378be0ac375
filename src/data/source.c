/* Files of a folder or of a tar archive, read whole. Of an archive only what CIFAR's have is taken: regular
 * files with short names (ustar; extended headers are skipped). Nothing is unpacked to the disk. */
#include "source.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum { RECORD = 512, MOST_MEMBERS = 10000 };
static const int64_t most_bytes = (int64_t)16 << 30; /* of an archive, unpacked */

int mdm_source_is_archive(const char *path) {
    static const char *const endings[] = {".tar", ".tar.gz", ".tgz"};
    size_t length = strlen(path);
    for (int i = 0; i < 3; i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && strcmp(path + length - ending, endings[i]) == 0) return 1;
    }
    return 0;
}

/* A number of a header field: octal digits between blanks; -1 for anything else. */
static int64_t read_octal(const unsigned char *field, int size) {
    int64_t value = 0;
    int i = 0, digits = 0;
    while (i < size && field[i] == ' ') i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++, digits++) value = 8 * value + field[i] - '0';
    for (; i < size; i++)
        if (field[i] != ' ' && field[i] != 0) return -1;
    return digits > 0 ? value : -1;
}

/* The sum of a header's bytes, its own field taken as blanks. */
static int header_is_sound(const unsigned char header[RECORD]) {
    int64_t sum = 0;
    for (int i = 0; i < RECORD; i++) sum += i >= 148 && i < 156 ? ' ' : header[i];
    return read_octal(header + 148, 8) == sum;
}

static mdm_status fail_archive(const char *path, const char *what) {
    return mdm_fail(MDM_INPUT, "%s is no sound tar archive: %s; fetch it again", path, what);
}

static mdm_status add_member(mdm_source *s, const unsigned char *header, int64_t offset, int64_t bytes) {
    char name[101];
    if (header[156] != '0' && header[156] != 0) return MDM_OK;
    if (s->member_count == MOST_MEMBERS) return fail_archive(s->path, "it holds more than 10000 files");
    memcpy(name, header, 100);
    name[100] = 0;
    const char *slash = strrchr(name, '/');
    mdm_source_member *m = &s->members[s->member_count++];
    snprintf(m->name, sizeof m->name, "%s", slash ? slash + 1 : name);
    m->offset = offset;
    m->bytes = bytes;
    return MDM_OK;
}

/* Reads exactly `bytes` bytes. */
static int read_exactly(gzFile file, void *to, int64_t bytes) {
    unsigned char *next = to;
    while (bytes > 0) {
        int got = gzread(file, next, bytes > (1 << 30) ? 1u << 30 : (unsigned)bytes);
        if (got <= 0) return 0;
        next += got;
        bytes -= got;
    }
    return 1;
}

static mdm_status list_members(mdm_source *s, gzFile file, unsigned char *buffer, size_t size) {
    unsigned char header[RECORD];
    static const unsigned char zeros[RECORD];
    for (int64_t at = 0;;) {
        if (!read_exactly(file, header, RECORD)) return fail_archive(s->path, "it was cut short or damaged");
        at += RECORD;
        if (memcmp(header, zeros, RECORD) == 0) break;
        int64_t bytes = read_octal(header + 124, 12);
        if (!header_is_sound(header)) return fail_archive(s->path, "a header's sum is wrong");
        if (bytes < 0 || bytes > most_bytes - at) return fail_archive(s->path, "a size in it is impossible");
        MDM_TRY(add_member(s, header, at, bytes));
        int64_t left = (bytes + RECORD - 1) / RECORD * RECORD;
        at += left;
        for (; left > 0; left -= left < (int64_t)size ? left : (int64_t)size)
            if (!read_exactly(file, buffer, left < (int64_t)size ? left : (int64_t)size))
                return fail_archive(s->path, "it was cut short or damaged");
    }
    int got; /* to the end: a gzip file's own sum is behind everything */
    for (int64_t rest = 0; (got = gzread(file, buffer, (unsigned)size)) > 0; rest += got)
        if (rest > (64 << 20)) return fail_archive(s->path, "too much lies behind its end");
    return got == 0 ? MDM_OK : fail_archive(s->path, "it was cut short or damaged");
}

mdm_status mdm_source_open(const char *path, mdm_source *s) {
    struct stat info;
    unsigned char *buffer;
    enum { BUFFER = 1 << 20 };
    *s = (mdm_source){.path = path};
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return MDM_OK;
    s->is_archive = 1;
    MDM_TRY(MDM_ALLOCATE(s->members, MOST_MEMBERS, "an archive's files"));
    mdm_status status = MDM_ALLOCATE(buffer, BUFFER, "an archive");
    gzFile file = status == MDM_OK ? gzopen(path, "rb") : NULL;
    if (file)
        status = list_members(s, file, buffer, BUFFER);
    else if (status == MDM_OK)
        status = mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    int closed = file ? gzclose(file) : Z_OK;
    if (status == MDM_OK && closed != Z_OK) status = fail_archive(path, "it was cut short");
    free(buffer);
    if (status != MDM_OK) mdm_source_close(s);
    return status;
}

void mdm_source_close(mdm_source *s) {
    free(s->members);
    s->members = NULL;
    s->member_count = 0;
}

/* The last file of that name, as unpacking would leave it. */
static const mdm_source_member *find_member(const mdm_source *s, const char *name) {
    for (int i = s->member_count; i-- > 0;)
        if (strcmp(s->members[i].name, name) == 0) return &s->members[i];
    return NULL;
}

static mdm_status read_member(const mdm_source *s, const char *name, size_t limit, unsigned char **bytes,
                              size_t *count) {
    const mdm_source_member *m = find_member(s, name);
    if (!m) return mdm_fail(MDM_INPUT, "%s holds no file %s", s->path, name);
    if ((uint64_t)m->bytes > limit)
        return mdm_fail(MDM_INPUT, "%s: %s is larger than the %zu bytes that its format allows", s->path,
                        name, limit);
    MDM_TRY(MDM_ALLOCATE(*bytes, m->bytes + 1, "a file of an archive"));
    gzFile file = gzopen(s->path, "rb");
    int good = file && gzbuffer(file, 1 << 18) == 0 &&
               gzseek(file, (z_off_t)m->offset, SEEK_SET) == m->offset &&
               read_exactly(file, *bytes, m->bytes);
    if (file) gzclose_r(file);
    *count = (size_t)m->bytes;
    if (good) return MDM_OK;
    free(*bytes);
    *bytes = NULL;
    return mdm_fail(MDM_INPUT, "%s: %s cannot be read; the archive was changed or damaged", s->path, name);
}

int mdm_source_find(const mdm_source *source, const char *name, char *path, size_t size) {
    static const char *const endings[] = {"", ".gz"};
    if (source->is_archive) {
        snprintf(path, size, "%s: %s", source->path, name);
        return find_member(source, name) != NULL;
    }
    for (int i = 0; i < 2; i++) {
        struct stat info;
        if (snprintf(path, size, "%s/%s%s", source->path, name, endings[i]) >= (int)size) return 0;
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) return 1;
    }
    snprintf(path, size, "%s/%s", source->path, name);
    return 0;
}

mdm_status mdm_source_read_head(const mdm_source *source, const char *name, unsigned char *bytes, size_t size,
                                size_t *count) {
    char path[4096];
    *count = 0;
    if (!mdm_source_find(source, name, path, sizeof path))
        return source->is_archive ? mdm_fail(MDM_INPUT, "%s holds no file %s", source->path, name)
                                  : mdm_fail(MDM_INPUT, "%s is missing (and so is %s.gz)", path, name);
    const mdm_source_member *m = source->is_archive ? find_member(source, name) : NULL;
    if (m && (uint64_t)m->bytes < size) size = (size_t)m->bytes;
    gzFile file = gzopen(m ? source->path : path, "rb");
    if (!file) return mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    int found = !m || gzseek(file, (z_off_t)m->offset, SEEK_SET) == m->offset;
    int got = found ? gzread(file, bytes, (unsigned)size) : -1;
    gzclose_r(file);
    if (got < 0) return mdm_fail(MDM_INPUT, "%s is damaged", path);
    *count = (size_t)got;
    return MDM_OK;
}

mdm_status mdm_source_read(const mdm_source *source, const char *name, size_t limit, unsigned char **bytes,
                           size_t *count) {
    char path[4096];
    size_t capacity = 1 << 20;
    *bytes = NULL;
    *count = 0;
    if (source->is_archive) return read_member(source, name, limit, bytes, count);
    if (!mdm_source_find(source, name, path, sizeof path))
        return mdm_fail(MDM_INPUT, "%s is missing (and so is %s.gz)", path, name);
    gzFile file = gzopen(path, "rb");
    if (!file) return mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    mdm_status status = MDM_OK;
    for (;;) {
        if (!*bytes || *count == capacity) {
            if (*bytes) capacity *= 2;
            if (capacity > limit) capacity = limit + 1; /* the one beyond tells a larger file */
            unsigned char *larger = realloc(*bytes, capacity);
            if (!larger) {
                status = mdm_fail(MDM_RESOURCE, "out of memory for %s", path);
                break;
            }
            *bytes = larger;
        }
        size_t room = capacity - *count;
        int got = gzread(file, *bytes + *count, room > (1u << 30) ? 1u << 30 : (unsigned)room);
        if (got < 0) status = mdm_fail(MDM_INPUT, "%s is damaged: %s", path, gzerror(file, &got));
        if (got <= 0) break;
        *count += (size_t)got;
        if (*count > limit) {
            status =
                mdm_fail(MDM_INPUT, "%s is larger than the %zu bytes that its format allows", path, limit);
            break;
        }
    }
    int closed = gzclose(file);
    if (status == MDM_OK && closed != Z_OK) status = mdm_fail(MDM_INPUT, "%s was cut short", path);
    if (status != MDM_OK) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}

mdm_status mdm_source_class_names(const mdm_source *source, const char *name, mdm_dataset *d) {
    char path[4096];
    const char *names[1024];
    unsigned char *bytes;
    size_t count;
    int lines = 0;
    if (!mdm_source_find(source, name, path, sizeof path)) return MDM_OK;
    MDM_TRY(mdm_source_read(source, name, 1 << 20, &bytes, &count));
    char *text = malloc(count + 1);
    if (!text) {
        free(bytes);
        return mdm_fail(MDM_RESOURCE, "out of memory for %s", path);
    }
    memcpy(text, bytes, count);
    text[count] = 0;
    char *rest;
    for (char *line = strtok_r(text, "\r\n", &rest); line && lines < 1024;
         line = strtok_r(NULL, "\r\n", &rest))
        names[lines++] = line;
    mdm_status status = lines == d->classes ? mdm_dataset_set_class_names(d, names, lines) : MDM_OK;
    free(text);
    free(bytes);
    return status;
}
