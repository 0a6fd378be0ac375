/* From a safetensors file of unknown origin to float tensors. The header is parsed by jansson into a tree,
 * turned into a table sorted by offset, and believed only after the table covers the file exactly. */
#include "mdm/base/text.h"
#include "mdm/report/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LARGEST_HEADER = 16 * 1024 * 1024,
    MOST_TENSORS = 100000,
    MOST_MARKS = 2000000, /* of { [ , in the header: bounds the memory of the tree */
    PIECE = 64 * 1024     /* bytes converted at a time */
};

typedef struct tensor {
    const char *name, *type; /* owned by the tree */
    int rank;
    int64_t shape[MDM_SAFETENSORS_MAX_RANK];
    int64_t elements, begin, end; /* bytes, relative to the end of the header */
} tensor;

struct mdm_safetensors {
    char *path;
    int file;
    int64_t data_start, data_bytes;
    json_t *header;
    int64_t count;
    tensor *tensors;  /* [count], by begin, then end */
    tensor **by_name; /* [count] */
};

static const struct {
    const char *name;
    int bytes;
} types[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8},     {"I64", 8},
             {"U64", 8}, {"I32", 4}, {"U32", 4},  {"I16", 2},     {"U16", 2},
             {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static int type_bytes(const char *type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, type) == 0) return types[i].bytes;
    return 0;
}

static mdm_status damaged(const mdm_safetensors *f, const char *name, const char *what) {
    char quoted[128];
    return mdm_fail(MDM_INPUT, "%s is not a sound safetensors file: %s%s%s", f->path, name ? "tensor " : "",
                    name ? mdm_printable(name, quoted, sizeof quoted) : "", what);
}

static int read_at(int file, void *out, size_t bytes, int64_t offset) {
    char *to = out;
    while (bytes > 0) {
        ssize_t n = pread(file, to, bytes, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENODATA; /* the file became shorter */
            return -1;
        }
        to += n;
        offset += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* The header's text in a new buffer, its length checked against file and limits. */
static mdm_status read_header(mdm_safetensors *f, char **text, size_t *length) {
    struct stat state;
    uint8_t prefix[8];
    if (fstat(f->file, &state) != 0)
        return mdm_fail(MDM_INPUT, "cannot read %s: %s", f->path, strerror(errno));
    if (!S_ISREG(state.st_mode)) return damaged(f, NULL, "it is not a regular file");
    if (state.st_size < 10) return damaged(f, NULL, "it is shorter than the shortest header");
    if (read_at(f->file, prefix, sizeof prefix, 0) != 0)
        return mdm_fail(MDM_INPUT, "cannot read %s: %s", f->path, strerror(errno));
    uint64_t bytes = 0;
    for (int i = 7; i >= 0; i--) bytes = bytes << 8 | prefix[i];
    if (bytes > LARGEST_HEADER) return damaged(f, NULL, "its header claims more than 16 MB");
    if (bytes < 2 || (int64_t)bytes > state.st_size - 8)
        return damaged(f, NULL, "its header is longer than the file, or empty");
    f->data_start = 8 + (int64_t)bytes;
    f->data_bytes = state.st_size - f->data_start;
    MDM_TRY(MDM_ALLOCATE(*text, bytes + 1, "the header of a weights file"));
    if (read_at(f->file, *text, bytes, 8) != 0)
        return mdm_fail(MDM_INPUT, "cannot read %s: %s", f->path, strerror(errno));
    *length = bytes;
    return MDM_OK;
}

static mdm_status parse_header(mdm_safetensors *f, const char *text, size_t length) {
    json_error_t error;
    char quoted[128];
    size_t marks = 0;
    if (text[0] != '{') return damaged(f, NULL, "its header does not begin with {");
    for (size_t i = 0; i < length; i++) marks += text[i] == '{' || text[i] == '[' || text[i] == ',';
    if (marks > MOST_MARKS) return damaged(f, NULL, "its header has too many parts");
    f->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!f->header)
        return mdm_fail(MDM_INPUT, "%s is not a sound safetensors file: header, position %d: %s", f->path,
                        error.position, mdm_printable(error.text, quoted, sizeof quoted));
    return MDM_OK;
}

static mdm_status parse_tensor(mdm_safetensors *f, const char *name, json_t *value, tensor *t) {
    json_t *type = json_object_get(value, "dtype"), *shape = json_object_get(value, "shape"),
           *offsets = json_object_get(value, "data_offsets");
    if (!json_is_string(type) || !json_is_array(shape) || !json_is_array(offsets))
        return damaged(f, name, " lacks dtype, shape or data_offsets");
    t->name = name;
    t->type = json_string_value(type);
    int bytes = type_bytes(t->type);
    if (bytes == 0) return damaged(f, name, " has an unknown dtype");
    if (json_array_size(shape) > MDM_SAFETENSORS_MAX_RANK)
        return damaged(f, name, " has too many dimensions");
    t->rank = (int)json_array_size(shape);
    t->elements = 1;
    for (int d = 0; d < t->rank; d++) {
        json_t *size = json_array_get(shape, (size_t)d);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return damaged(f, name, " has a shape that is not made of counts");
        t->shape[d] = json_integer_value(size);
        if (__builtin_mul_overflow(t->elements, t->shape[d], &t->elements))
            return damaged(f, name, " has a shape larger than any file");
    }
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return damaged(f, name, " has data_offsets that are not two integers");
    t->begin = json_integer_value(begin);
    t->end = json_integer_value(end);
    int64_t needed;
    if (t->begin < 0 || t->end < t->begin || t->end > f->data_bytes)
        return damaged(f, name, " lies outside the file; was it copied whole?");
    if (__builtin_mul_overflow(t->elements, (int64_t)bytes, &needed) || needed != t->end - t->begin)
        return damaged(f, name, " has a shape that does not fit its bytes");
    return MDM_OK;
}

static int compare_begin(const void *a, const void *b) {
    const tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_name(const void *a, const void *b) {
    return strcmp((*(tensor *const *)a)->name, (*(tensor *const *)b)->name);
}

static mdm_status check_notes(const mdm_safetensors *f, json_t *notes) {
    const char *key;
    json_t *value;
    if (!json_is_object(notes)) return damaged(f, NULL, "its __metadata__ is not an object");
    json_object_foreach(notes, key, value) if (!json_is_string(value)) return damaged(
        f, NULL, "its __metadata__ holds something else than text");
    return MDM_OK;
}

static mdm_status build_table(mdm_safetensors *f) {
    const char *name;
    json_t *value;
    size_t size = json_object_size(f->header);
    if (size > MOST_TENSORS) return damaged(f, NULL, "it has more than 100000 tensors");
    MDM_TRY(MDM_ALLOCATE(f->tensors, size + 1, "the table of a weights file"));
    MDM_TRY(MDM_ALLOCATE(f->by_name, size + 1, "the table of a weights file"));
    json_object_foreach(f->header, name, value) {
        if (strcmp(name, "__metadata__") == 0)
            MDM_TRY(check_notes(f, value));
        else
            MDM_TRY(parse_tensor(f, name, value, &f->tensors[f->count++]));
    }
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, compare_begin);
    int64_t covered = 0;
    for (int64_t i = 0; i < f->count; i++) {
        if (f->tensors[i].begin != covered)
            return damaged(f, f->tensors[i].name, " overlaps another or leaves a gap");
        covered = f->tensors[i].end;
        f->by_name[i] = &f->tensors[i];
    }
    if (covered != f->data_bytes) return damaged(f, NULL, "bytes after the last tensor belong to none");
    qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, compare_name);
    return MDM_OK;
}

mdm_status mdm_safetensors_open(const char *path, mdm_safetensors **file) {
    mdm_safetensors *f = NULL;
    char *text = NULL;
    size_t length = 0;
    mdm_status status = MDM_OK;
    *file = NULL;
    MDM_TRY(MDM_ALLOCATE(f, 1, "a weights file"));
    f->file = -1;
    f->path = strdup(path);
    if (!f->path) {
        status = mdm_fail(MDM_RESOURCE, "not enough memory to open %s", path);
        goto done;
    }
    f->file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not hang the run */
    if (f->file < 0) {
        status = mdm_fail(MDM_INPUT, "cannot open the weights file %s: %s", path, strerror(errno));
        goto done;
    }
    MDM_TRY_OR(status, read_header(f, &text, &length), done);
    MDM_TRY_OR(status, parse_header(f, text, length), done);
    MDM_TRY_OR(status, build_table(f), done);
    *file = f;
    f = NULL;
done:
    free(text);
    mdm_safetensors_close(f);
    return status;
}

void mdm_safetensors_close(mdm_safetensors *f) {
    if (!f) return;
    if (f->file >= 0) close(f->file);
    json_decref(f->header);
    free(f->tensors);
    free(f->by_name);
    free(f->path);
    free(f);
}

int64_t mdm_safetensors_count(const mdm_safetensors *f) {
    return f->count;
}

const char *mdm_safetensors_name(const mdm_safetensors *f, int64_t index) {
    return f->tensors[index].name;
}

int mdm_safetensors_shape(const mdm_safetensors *f, int64_t index, int64_t shape[MDM_SAFETENSORS_MAX_RANK]) {
    memcpy(shape, f->tensors[index].shape, sizeof f->tensors[index].shape);
    return f->tensors[index].rank;
}

int64_t mdm_safetensors_elements(const mdm_safetensors *f, int64_t index) {
    return f->tensors[index].elements;
}

int64_t mdm_safetensors_find(const mdm_safetensors *f, const char *name) {
    tensor wanted = {.name = name}, *key = &wanted;
    tensor **found =
        f->count ? bsearch(&key, f->by_name, (size_t)f->count, sizeof *f->by_name, compare_name) : NULL;
    return found ? *found - f->tensors : -1;
}

const char *mdm_safetensors_note_value(const mdm_safetensors *f, const char *key) {
    return json_string_value(json_object_get(json_object_get(f->header, "__metadata__"), key));
}

static float from_half(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 1023;
    float value = exponent == 31  ? (fraction ? NAN : INFINITY)
                  : exponent == 0 ? ldexpf((float)fraction, -24)
                                  : ldexpf((float)(fraction | 1024), exponent - 25);
    return half & 0x8000 ? -value : value;
}

static float from_bfloat(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Converts `count` elements of a type of `bytes` bytes each from raw memory. */
static void convert(const char *type, const uint8_t *raw, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        double wide;
        if (type[0] == 'F' && type[1] == '6') {
            memcpy(&wide, raw + i * 8, sizeof wide);
            out[i] = (float)wide;
        } else {
            memcpy(&bits, raw + i * 2, sizeof bits);
            out[i] = type[0] == 'B' ? from_bfloat(bits) : from_half(bits);
        }
    }
}

static int is_float(const char *type) {
    return strcmp(type, "F32") == 0 || strcmp(type, "F16") == 0 || strcmp(type, "BF16") == 0 ||
           strcmp(type, "F64") == 0;
}

mdm_status mdm_safetensors_read(const mdm_safetensors *f, int64_t index, int64_t count, int refuse_non_finite,
                                float *out) {
    const tensor *t = &f->tensors[index];
    int bytes = type_bytes(t->type), failed = 0;
    _Alignas(8) uint8_t piece[PIECE];
    if (!is_float(t->type)) return damaged(f, t->name, " does not hold floating point numbers");
    if (t->elements != count) {
        char quoted[128];
        return mdm_fail(MDM_INPUT, "%s: tensor %s has %" PRId64 " elements, %" PRId64 " were expected",
                        f->path, mdm_printable(t->name, quoted, sizeof quoted), t->elements, count);
    }
    int64_t from = f->data_start + t->begin;
    if (strcmp(t->type, "F32") == 0)
        failed = count > 0 && read_at(f->file, out, (size_t)count * sizeof *out, from) != 0;
    else
        for (int64_t done = 0, n; done < count && !failed; done += n) {
            n = count - done < PIECE / bytes ? count - done : PIECE / bytes;
            failed = read_at(f->file, piece, (size_t)(n * bytes), from + done * bytes) != 0;
            if (!failed) convert(t->type, piece, n, out + done);
        }
    if (failed) return mdm_fail(MDM_INPUT, "cannot read %s: %s", f->path, strerror(errno));
    for (int64_t i = 0; refuse_non_finite && i < count; i++)
        if (!isfinite(out[i]))
            return damaged(f, t->name, " holds infinities or NaN; was the training sound?");
    return MDM_OK;
}
