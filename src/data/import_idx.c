/* IDX, the format of MNIST and its relatives: two zero bytes, the type, the number of dimensions, big-endian
 * lengths, data. */
#include "import_internal.h"
#include "mdm/base/machine.h"
#include "mdm/data/picture.h"
#include <stdlib.h>
#include <string.h>

enum { UBYTE = 0x08 };
static const size_t most_data = (size_t)1 << 36;

typedef struct idx {
    unsigned char *bytes; /* the whole file */
    const unsigned char *data;
    int64_t dims[3];
} idx;

/* Lengths from a file's first bytes; *bytes is what they announce, header and data. */
static mdm_status read_lengths(const mdm_source *source, const char *name, int rank, idx *out,
                               size_t *bytes) {
    unsigned char b[16];
    size_t count, header = 4 + 4 * (size_t)rank, data = 1;
    MDM_TRY(mdm_source_read_head(source, name, b, header, &count));
    if (count < header || b[0] || b[1] || b[2] != UBYTE || b[3] != rank)
        return mdm_fail(
            MDM_INPUT,
            "%s/%s is not an IDX file of bytes with %d dimension%s (its first bytes should be 0 0 8 %d)",
            source->path, name, rank, rank > 1 ? "s" : "", rank);
    for (int i = 0; i < rank; i++) {
        const unsigned char *d = b + 4 + 4 * i;
        out->dims[i] = ((int64_t)d[0] << 24) | (d[1] << 16) | (d[2] << 8) | d[3];
        if (out->dims[i] == 0)
            return mdm_fail(MDM_INPUT, "%s/%s holds nothing (a dimension is 0)", source->path, name);
        if (__builtin_mul_overflow(data, (size_t)out->dims[i], &data) || data > most_data)
            return mdm_fail(MDM_INPUT, "%s/%s announces more than 64 GiB of data; it is damaged",
                            source->path, name);
    }
    *bytes = header + data;
    return MDM_OK;
}

/* A gzipped file can be a thousandth of what it holds, so memory is asked about first. */
static mdm_status check_memory(const mdm_source *source, const char *name, size_t bytes) {
    char what[256];
    double limit = mdm_memory_limit(what, sizeof what);
    if (limit < 0 || (double)bytes <= limit) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "%s/%s announces %.1f GiB of data, but there are %.1f GiB of memory (%s)",
                    source->path, name, (double)bytes / (1 << 30), limit / (1 << 30), what);
}

static mdm_status read_idx(const mdm_source *source, const char *name, int rank, idx *out) {
    size_t count, announced = 0;
    memset(out, 0, sizeof *out);
    MDM_TRY(read_lengths(source, name, rank, out, &announced));
    MDM_TRY(check_memory(source, name, announced));
    MDM_TRY(mdm_source_read(source, name, announced, &out->bytes, &count));
    if (count != announced)
        return mdm_fail(MDM_INPUT,
                        "%s/%s has %zu bytes where its header announces %zu; it was cut short or damaged",
                        source->path, name, count, announced);
    out->data = out->bytes + 4 + 4 * rank;
    return MDM_OK;
}

/* Images and labels of one split. */
static mdm_status read_split(const mdm_source *source, const char *images_name, const char *labels_name,
                             idx *images, idx *labels) {
    MDM_TRY(read_idx(source, images_name, 3, images));
    MDM_TRY(read_idx(source, labels_name, 1, labels));
    if (images->dims[0] != labels->dims[0])
        return mdm_fail(MDM_INPUT, "%s: %s has %lld pictures, %s has %lld labels", source->path, images_name,
                        (long long)images->dims[0], labels_name, (long long)labels->dims[0]);
    return MDM_OK;
}

static int largest_label(const idx *labels) {
    int largest = 0;
    for (int64_t i = 0; labels->data && i < labels->dims[0]; i++)
        if (labels->data[i] > largest) largest = labels->data[i];
    return largest;
}

static mdm_status name_classes(const mdm_source *source, mdm_dataset *d) {
    static const char *const fashion[10] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                            "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
    static const char *const digits[10] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
    if (d->classes != 10) return MDM_OK;
    return mdm_dataset_set_class_names(d, strstr(source->path, "fashion") ? fashion : digits, 10);
}

static mdm_status fill(mdm_dataset *d, const idx *images, const idx *labels, const idx *test_images,
                       const idx *test_labels) {
    memcpy(d->train_images, images->data, (size_t)(images->dims[0] * images->dims[1] * images->dims[2]));
    for (int64_t i = 0; i < d->train_count; i++) d->train_labels[i] = d->true_labels[i] = labels->data[i];
    if (d->test_count > 0) {
        memcpy(d->test_images, test_images->data,
               (size_t)(test_images->dims[0] * test_images->dims[1] * test_images->dims[2]));
        for (int64_t i = 0; i < d->test_count; i++) d->test_labels[i] = test_labels->data[i];
    }
    mdm_dataset_statistics(d);
    return MDM_OK;
}

static mdm_status import_idx(const mdm_source *source, idx parts[4], mdm_dataset **out) {
    char path[4096];
    mdm_dataset *d;
    MDM_TRY(read_split(source, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", &parts[0], &parts[1]));
    if (mdm_source_find(source, "t10k-images-idx3-ubyte", path, sizeof path)) {
        MDM_TRY(read_split(source, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", &parts[2], &parts[3]));
        if (parts[2].dims[1] != parts[0].dims[1] || parts[2].dims[2] != parts[0].dims[2])
            return mdm_fail(MDM_INPUT, "%s: training pictures of %lldx%lld, test pictures of %lldx%lld",
                            source->path, (long long)parts[0].dims[1], (long long)parts[0].dims[2],
                            (long long)parts[2].dims[1], (long long)parts[2].dims[2]);
    }
    int largest = largest_label(&parts[1]), test = largest_label(&parts[3]);
    if (test > largest) largest = test;
    if (largest == 0)
        return mdm_fail(MDM_INPUT, "%s: all labels are 0; at least 2 classes are needed", source->path);
    if (parts[0].dims[1] > MDM_PICTURE_MOST_SIDE || parts[0].dims[2] > MDM_PICTURE_MOST_SIDE)
        return mdm_fail(MDM_INPUT, "%s has pictures of %lldx%lld pixels; at most %d a side are possible",
                        source->path, (long long)parts[0].dims[1], (long long)parts[0].dims[2],
                        (int)MDM_PICTURE_MOST_SIDE);
    MDM_TRY(mdm_dataset_create(parts[0].dims[0], parts[2].data ? parts[2].dims[0] : 0, (int)parts[0].dims[1],
                               (int)parts[0].dims[2], 1, largest + 1, 1, &d));
    *out = d;
    MDM_TRY(fill(d, &parts[0], &parts[1], &parts[2], &parts[3]));
    return name_classes(source, d);
}

mdm_status mdm_source_import_idx(const mdm_source *source, mdm_dataset **dataset) {
    idx parts[4];
    memset(parts, 0, sizeof parts);
    *dataset = NULL;
    mdm_status status = import_idx(source, parts, dataset);
    for (int i = 0; i < 4; i++) free(parts[i].bytes);
    if (status != MDM_OK) {
        mdm_dataset_destroy(*dataset);
        *dataset = NULL;
    }
    return status;
}
