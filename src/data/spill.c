/* Blocks of pictures to the working file, and a record of each to the journal: first the pictures reach the
 * disk, then the record, which ends with its own checksum. So a record that is whole speaks of pictures that
 * are there, however the process ended. */
#define _GNU_SOURCE /* memfd_create */
#include "spill.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { MOST_COUNT = 1 << 20, MOST_TEXT = 1 << 28 };

typedef struct head {
    char magic[8];
    uint64_t key;
} head;

/* A record: this, bytes [count], texts, checksum. */
typedef struct record {
    int64_t first, count, end; /* end: of the pictures in the working file */
    uint64_t source;
    uint64_t sum[3], square[3];
    int64_t colour, text_bytes;
} record;

struct mdm_spill {
    char *pictures_path, *journal_path; /* NULL: without names */
    int pictures, journal;
    int64_t end, journal_end;           /* of what was accepted */
    int64_t next_end, next_journal_end; /* of the block found last */
    unsigned char *buffer;              /* that block */
    int cut;                            /* what lies behind the accepted blocks has been dropped */
};

static const char magic[8] = "mdmimp1";

static int read_at(int descriptor, void *to, int64_t bytes, int64_t at) {
    char *next = to;
    while (bytes > 0) {
        ssize_t got = pread(descriptor, next, (size_t)bytes, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        next += got;
        at += got;
        bytes -= got;
    }
    return 1;
}

static int write_at(int descriptor, const void *from, int64_t bytes, int64_t at) {
    const char *next = from;
    while (bytes > 0) {
        ssize_t put = pwrite(descriptor, next, (size_t)bytes, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return 0;
        next += put;
        at += put;
        bytes -= put;
    }
    return 1;
}

static mdm_status fail_writing(const mdm_spill *s) {
    return mdm_fail(MDM_RESOURCE,
                    "%s cannot be written (%s); with room there, the import goes on from where it was",
                    s->pictures_path ? s->pictures_path : "the import's working file", strerror(errno));
}

static mdm_status fail_opening(const char *path) {
    return mdm_fail(MDM_RESOURCE, "%s cannot be written (%s); choose another place", path, strerror(errno));
}

static char *join(const char *out, const char *ending) {
    size_t size = strlen(out) + strlen(ending) + 1;
    char *path = malloc(size);
    if (path) snprintf(path, size, "%s%s", out, ending);
    return path;
}

static mdm_status open_files(mdm_spill *s, const char *out) {
    int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    if (!out) {
        s->pictures = memfd_create("mdm-import", MFD_CLOEXEC);
        s->journal = memfd_create("mdm-import", MFD_CLOEXEC);
        return s->pictures >= 0 && s->journal >= 0 ? MDM_OK : fail_writing(s);
    }
    s->pictures_path = join(out, ".import-pictures");
    s->journal_path = join(out, ".import-journal");
    if (!s->pictures_path || !s->journal_path) return mdm_fail(MDM_RESOURCE, "out of memory for file names");
    s->journal = open(s->journal_path, flags, 0644);
    if (s->journal < 0 && errno == ENOENT)
        return mdm_fail(MDM_RESOURCE, "%s cannot be written: its folder does not exist; make it first", out);
    if (s->journal < 0) return fail_opening(s->journal_path);
    if (flock(s->journal, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return mdm_fail(MDM_RESOURCE, "%s is being imported by another process", out);
    s->pictures = open(s->pictures_path, flags, 0644);
    return s->pictures >= 0 ? MDM_OK : fail_opening(s->pictures_path);
}

mdm_status mdm_spill_open(const char *out, uint64_t key, mdm_spill **spill) {
    mdm_spill *s;
    head is, wanted = {.key = key};
    *spill = NULL;
    memcpy(wanted.magic, magic, sizeof magic);
    MDM_TRY(MDM_ALLOCATE(s, 1, "the import's working files"));
    s->pictures = s->journal = -1;
    mdm_status status = open_files(s, out);
    int same =
        status == MDM_OK && read_at(s->journal, &is, sizeof is, 0) && memcmp(&is, &wanted, sizeof is) == 0;
    if (status == MDM_OK && !same &&
        (ftruncate(s->journal, 0) != 0 || ftruncate(s->pictures, 0) != 0 ||
         !write_at(s->journal, &wanted, sizeof wanted, 0)))
        status = fail_writing(s);
    s->journal_end = sizeof wanted;
    if (status == MDM_OK)
        *spill = s;
    else
        mdm_spill_close(s);
    return status;
}

void mdm_spill_close(mdm_spill *s) {
    if (!s) return;
    if (s->pictures >= 0) close(s->pictures);
    if (s->journal >= 0) close(s->journal);
    free(s->pictures_path);
    free(s->journal_path);
    free(s->buffer);
    free(s);
}

void mdm_spill_remove(mdm_spill *s) {
    /* the journal last: it holds the lock */
    if (s->pictures_path) unlink(s->pictures_path);
    if (s->journal_path) unlink(s->journal_path);
}

mdm_status mdm_spill_next(mdm_spill *s, mdm_spill_block *b, int *found) {
    record r;
    uint64_t sum;
    struct stat info;
    *found = 0;
    if (!read_at(s->journal, &r, sizeof r, s->journal_end)) return MDM_OK;
    if (r.count < 1 || r.count > MOST_COUNT || r.text_bytes < 0 || r.text_bytes > MOST_TEXT) return MDM_OK;
    int64_t bytes = (int64_t)sizeof r + 8 * r.count + r.text_bytes;
    free(s->buffer);
    MDM_TRY(MDM_ALLOCATE(s->buffer, bytes, "the import's journal"));
    if (!read_at(s->journal, s->buffer, bytes, s->journal_end) ||
        !read_at(s->journal, &sum, sizeof sum, s->journal_end + bytes) ||
        XXH3_64bits(s->buffer, (size_t)bytes) != sum)
        return MDM_OK;
    if (fstat(s->pictures, &info) != 0 || info.st_size < r.end) return MDM_OK;
    *b = (mdm_spill_block){.first = r.first,
                           .count = r.count,
                           .source = r.source,
                           .colour = r.colour,
                           .text_bytes = r.text_bytes,
                           .bytes = (const int64_t *)(const void *)(s->buffer + sizeof r),
                           .texts = (const char *)s->buffer + sizeof r + 8 * r.count};
    memcpy(b->sum, r.sum, sizeof b->sum);
    memcpy(b->square, r.square, sizeof b->square);
    s->next_end = r.end;
    s->next_journal_end = s->journal_end + bytes + (int64_t)sizeof sum;
    *found = 1;
    return MDM_OK;
}

void mdm_spill_accept(mdm_spill *s) {
    s->end = s->next_end;
    s->journal_end = s->next_journal_end;
}

mdm_status mdm_spill_append(mdm_spill *s, const mdm_spill_block *b, const uint8_t *pictures, int64_t total) {
    record r = {.first = b->first,
                .count = b->count,
                .end = s->end + total,
                .source = b->source,
                .colour = b->colour,
                .text_bytes = b->text_bytes};
    memcpy(r.sum, b->sum, sizeof r.sum);
    memcpy(r.square, b->square, sizeof r.square);
    int64_t bytes = (int64_t)sizeof r + 8 * r.count + r.text_bytes;
    unsigned char *whole;
    MDM_TRY(MDM_ALLOCATE(whole, bytes + 8, "the import's journal"));
    memcpy(whole, &r, sizeof r);
    memcpy(whole + sizeof r, b->bytes, (size_t)(8 * r.count));
    if (r.text_bytes) memcpy(whole + sizeof r + 8 * r.count, b->texts, (size_t)r.text_bytes);
    uint64_t sum = XXH3_64bits(whole, (size_t)bytes);
    memcpy(whole + bytes, &sum, sizeof sum);
    int good = s->cut || (ftruncate(s->journal, (off_t)s->journal_end) == 0 &&
                          ftruncate(s->pictures, (off_t)s->end) == 0);
    s->cut = 1;
    good = good && write_at(s->pictures, pictures, total, s->end) && fdatasync(s->pictures) == 0 &&
           write_at(s->journal, whole, bytes + 8, s->journal_end);
    free(whole);
    if (!good) return fail_writing(s);
    s->end += total;
    s->journal_end += bytes + 8;
    return MDM_OK;
}

mdm_status mdm_spill_read(const mdm_spill *s, int64_t at, int64_t bytes, uint8_t *to) {
    if (read_at(s->pictures, to, bytes, at)) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "%s cannot be read back; start the import again",
                    s->pictures_path ? s->pictures_path : "the import's working file");
}
