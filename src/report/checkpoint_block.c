/* From a checkpoint's bytes to the user block that vouches for them, and from folder entries to positions in
 * the run. */
#include "checkpoint_block.h"

#include "mdm/base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT_VERSION = 2, PIECE_BYTES = 1024 * 1024 };

#define BLOCK_FORMAT "mdm-dist checkpoint %d\nbytes %" PRIu64 "\nsha256 %s\n"

void block_fill(char *block, uint64_t bytes, const char *digest) {
    char text[BLOCK_BYTES];
    int length = snprintf(text, sizeof text, BLOCK_FORMAT, FORMAT_VERSION, bytes, digest);
    memset(block, '\n', BLOCK_BYTES);
    memcpy(block, text, (size_t)length);
}

static mdm_status finish_digest(EVP_MD_CTX *context, char text[DIGEST_TEXT]) {
    unsigned char digest[(DIGEST_TEXT - 1) / 2];
    if (EVP_DigestFinal_ex(context, digest, NULL) != 1)
        return mdm_fail(MDM_RESOURCE, "the digest of a checkpoint could not be computed");
    for (size_t i = 0; i < sizeof digest; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return MDM_OK;
}

static mdm_status start_digest(EVP_MD_CTX **context) {
    *context = EVP_MD_CTX_new();
    if (*context && EVP_DigestInit_ex(*context, EVP_sha256(), NULL) == 1) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "not enough memory for the digest of a checkpoint");
}

mdm_status block_digest(const void *bytes, size_t count, char digest[DIGEST_TEXT]) {
    EVP_MD_CTX *context;
    mdm_status status = start_digest(&context);
    if (status == MDM_OK && EVP_DigestUpdate(context, bytes, count) != 1)
        status = mdm_fail(MDM_RESOURCE, "the digest of a checkpoint could not be computed");
    if (status == MDM_OK) status = finish_digest(context, digest);
    EVP_MD_CTX_free(context);
    return status;
}

/* The block is believed when it is, byte for byte, what block_fill() makes of the numbers in it. */
static mdm_status parse_block(const char *path, const char *block, uint64_t *bytes,
                              char digest[DIGEST_TEXT]) {
    char text[BLOCK_BYTES + 1], again[BLOCK_BYTES];
    int version = 0;
    memcpy(text, block, BLOCK_BYTES);
    text[BLOCK_BYTES] = '\0';
    if (sscanf(text, "mdm-dist checkpoint %9d", &version) != 1)
        return mdm_fail(MDM_INPUT, "%s is not a checkpoint, or its first bytes are damaged", path);
    if (version > FORMAT_VERSION)
        return mdm_fail(
            MDM_INPUT,
            "%s has checkpoint format %d, this program knows %d: use the program that wrote it (or its "
            "first bytes are damaged)",
            path, version, FORMAT_VERSION);
    if (version == FORMAT_VERSION - 1)
        return mdm_fail(MDM_INPUT,
                        "%s has checkpoint format %d of an earlier program, which this one cannot "
                        "go on from (or its first bytes are damaged)",
                        path, version);
    if (sscanf(text, "mdm-dist checkpoint %9d bytes %19" SCNu64 " sha256 %64[0-9a-f]", &version, bytes,
               digest) == 3) {
        block_fill(again, *bytes, digest);
        if (version == FORMAT_VERSION && memcmp(again, block, BLOCK_BYTES) == 0) return MDM_OK;
    }
    return mdm_fail(MDM_INPUT, "%s is damaged: its first %d bytes are not as they were written", path,
                    BLOCK_BYTES);
}

static int read_exactly(int file, char *to, size_t count) {
    while (count > 0) {
        ssize_t n = read(file, to, count);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENODATA;
            return -1;
        }
        to += n;
        count -= (size_t)n;
    }
    return 0;
}

/* Reads the payload into `to`, or through a small buffer when that is NULL, and digests it. */
static mdm_status digest_payload(int file, const char *path, uint64_t bytes, char *to,
                                 char digest[DIGEST_TEXT]) {
    EVP_MD_CTX *context;
    char *piece = to ? NULL : malloc(PIECE_BYTES);
    mdm_status status = start_digest(&context);
    if (!to && !piece) status = mdm_fail(MDM_RESOURCE, "not enough memory to read %s", path);
    for (uint64_t done = 0, n; done < bytes && status == MDM_OK; done += n) {
        n = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        char *here = to ? to + done : piece;
        if (read_exactly(file, here, n) != 0)
            status = mdm_fail(MDM_INPUT, "cannot read %s: %s", path, strerror(errno));
        else if (EVP_DigestUpdate(context, here, n) != 1)
            status = mdm_fail(MDM_RESOURCE, "the digest of %s could not be computed", path);
    }
    if (status == MDM_OK) status = finish_digest(context, digest);
    free(piece);
    EVP_MD_CTX_free(context);
    return status;
}

static mdm_status check_open_file(int file, const char *path, char **content, size_t *bytes,
                                  char digest[DIGEST_TEXT]) {
    struct stat state;
    char block[BLOCK_BYTES], found[DIGEST_TEXT], *buffer = NULL;
    uint64_t payload = 0;
    if (fstat(file, &state) != 0) return mdm_fail(MDM_INPUT, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(state.st_mode)) return mdm_fail(MDM_INPUT, "%s is not a regular file", path);
    if (state.st_size < BLOCK_BYTES)
        return mdm_fail(MDM_INPUT, "%s is damaged: it has only %lld bytes", path, (long long)state.st_size);
    if (read_exactly(file, block, sizeof block) != 0)
        return mdm_fail(MDM_INPUT, "cannot read %s: %s", path, strerror(errno));
    MDM_TRY(parse_block(path, block, &payload, digest));
    if (payload != (uint64_t)state.st_size - BLOCK_BYTES)
        return mdm_fail(MDM_INPUT, "%s is damaged: it has %lld bytes, %" PRIu64 " were written", path,
                        (long long)state.st_size, payload + BLOCK_BYTES);
    if (content) {
        MDM_TRY(MDM_ALLOCATE(buffer, state.st_size, "a checkpoint"));
        memcpy(buffer, block, BLOCK_BYTES);
    }
    mdm_status status = digest_payload(file, path, payload, buffer ? buffer + BLOCK_BYTES : NULL, found);
    if (status == MDM_OK && strcmp(found, digest) != 0)
        status = mdm_fail(MDM_INPUT, "%s is damaged: its digest is %s, %s was written", path, found, digest);
    if (status != MDM_OK) {
        free(buffer);
    } else if (content) {
        *content = buffer;
        *bytes = (size_t)state.st_size;
    }
    return status;
}

mdm_status block_check(const char *path, char **content, size_t *bytes, char digest[DIGEST_TEXT]) {
    if (content) *content = NULL;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0) return mdm_fail(MDM_INPUT, "cannot open the checkpoint %s: %s", path, strerror(errno));
    /* What is checked right after writing should come from the disk; a file system may ignore this. */
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    mdm_status status = check_open_file(file, path, content, bytes, digest);
    close(file);
    return status;
}

void position_name(position at, char name[NAME_BYTES]) {
    if (at.step == INT64_MAX)
        snprintf(name, NAME_BYTES, "epoch-%04" PRId64 ".h5", at.epoch);
    else
        snprintf(name, NAME_BYTES, "epoch-%04" PRId64 "-step-%06" PRId64 ".h5", at.epoch, at.step);
}

int position_parse(const char *name, position *at) {
    char again[NAME_BYTES];
    position found = {0, INT64_MAX};
    if (sscanf(name, "epoch-%12" SCNd64 "-step-%12" SCNd64, &found.epoch, &found.step) < 1) return 0;
    position_name(found, again);
    if (found.epoch < 0 || found.step < 0 || strcmp(name, again) != 0) return 0;
    *at = found;
    return 1;
}

int position_compare(position a, position b) {
    if (a.epoch != b.epoch) return a.epoch < b.epoch ? -1 : 1;
    return a.step == b.step ? 0 : a.step < b.step ? -1 : 1;
}

static int newest_first(const void *a, const void *b) {
    return position_compare(*(const position *)b, *(const position *)a);
}

mdm_status position_list(const char *folder, position **positions, int64_t *count) {
    int64_t capacity = 0;
    *positions = NULL;
    *count = 0;
    DIR *entries = opendir(folder);
    if (!entries && errno == ENOENT) return MDM_OK;
    if (!entries) return mdm_fail(MDM_INPUT, "cannot read the folder %s: %s", folder, strerror(errno));
    mdm_status status = MDM_OK;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        position at;
        if (!position_parse(entry->d_name, &at)) continue;
        if (*count == capacity) {
            capacity = capacity * 2 + 16;
            position *more = realloc(*positions, (size_t)capacity * sizeof *more);
            if (!more) {
                status = mdm_fail(MDM_RESOURCE, "not enough memory to list %s", folder);
                break;
            }
            *positions = more;
        }
        (*positions)[(*count)++] = at;
    }
    closedir(entries);
    if (status != MDM_OK) {
        free(*positions);
        *positions = NULL;
        *count = 0;
    } else if (*count > 1) {
        qsort(*positions, (size_t)*count, sizeof **positions, newest_first);
    }
    return status;
}
