/* The store: rank 0 reads and checks the file, labels go to every rank, pictures into one window per node (or
 * stay in the file).
 *
 * Streamed pictures are read with pread at the place HDF5 names, by a thread that works one step ahead; HDF5
 * itself is not called from it. Chunked or compressed files have no such place: streamed, they are read by
 * the calling thread when they are fetched.
 */
#include "mdm/data/store.h"
#include "dataset_internal.h"
#include "mdm/base/log.h"
#include "store_chunked.h"
#include "store_encoded.h"
#include "store_stream.h"
#include "workers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* One split's pictures. */
typedef struct pictures {
    char *path;
    int group; /* 0: /train of that file, 1: /test */
    int64_t count, offset;
    uint8_t *resident; /* in the shared window, NULL when streamed */
    int32_t *labels;
} pictures;

struct mdm_store {
    mdm_comm *comm;
    mdm_store_info info;
    char *path;
    pictures splits[2];
    int32_t *true_labels;
    char *id_text, *class_text; /* strings one after another */
    int64_t *id_offset, *class_offset;
    mdm_comm_shared *shared;
    mdm_stream *streams[2];   /* streamed and contiguous */
    mdm_decoder *decoders[2]; /* streamed and kept encoded */
    mdm_chunked *chunked[2];  /* streamed, but only HDF5 can read it */
};

/* What rank 0 tells the others before the arrays. */
typedef struct header {
    mdm_store_info info;
    int64_t offset[2];
    int test_group, has_truth;
    int64_t id_bytes, class_bytes; /* 0: none */
    uint64_t pictures;             /* XXH3 of the pictures that the fingerprint samples */
} header;

static int64_t picture_bytes(const mdm_store *store) {
    return (int64_t)store->info.height * store->info.width * store->info.channels;
}

/* Strings packed one after another, so that they can be sent; returns the bytes. */
static mdm_status pack_strings(char **strings, int64_t count, char **text, int64_t *bytes) {
    *bytes = 0;
    if (!strings) return MDM_OK;
    for (int64_t i = 0; i < count; i++) *bytes += (int64_t)strlen(strings[i]) + 1;
    MDM_TRY(MDM_ALLOCATE(*text, *bytes, "names"));
    char *next = *text;
    for (int64_t i = 0; i < count; i++) {
        size_t length = strlen(strings[i]) + 1;
        memcpy(next, strings[i], length);
        next += length;
    }
    return MDM_OK;
}

static mdm_status index_strings(const char *text, int64_t count, int64_t **offset) {
    MDM_TRY(MDM_ALLOCATE(*offset, count, "names"));
    for (int64_t i = 0, at = 0; i < count; i++) {
        (*offset)[i] = at;
        at += (int64_t)strlen(text + at) + 1;
    }
    return MDM_OK;
}

static mdm_status check_test_file(mdm_dataset *train, const mdm_dataset *test, const char *path) {
    if (test->height != train->height || test->width != train->width || test->channels != train->channels)
        return mdm_fail(MDM_INPUT, "%s: pictures of %dx%dx%d do not fit the training set's %dx%dx%d", path,
                        test->height, test->width, test->channels, train->height, train->width,
                        train->channels);
    int from_test = test->test_count > 0;
    const int32_t *labels = from_test ? test->test_labels : test->train_labels;
    int64_t count = from_test ? test->test_count : test->train_count;
    for (int64_t i = 0; i < count; i++) {
        if (labels[i] < train->classes) continue;
        if (train->class_names)
            return mdm_fail(MDM_INPUT,
                            "%s: %s of sample %lld is %d, but the training set has %d classes (0 to %d)",
                            path, from_test ? "/test/labels" : "/train/labels", (long long)i, labels[i],
                            train->classes, train->classes - 1);
        train->classes = labels[i] + 1;
    }
    return MDM_OK;
}

/* Takes the test set of another file over into `train`. */
static mdm_status take_test_set(mdm_dataset *train, const char *path, header *head) {
    mdm_dataset *test;
    int64_t offset[2];
    MDM_TRY(mdm_dataset_read_labels(path, &test, offset));
    mdm_status status = check_test_file(train, test, path);
    if (status == MDM_OK) {
        head->test_group = test->test_count > 0;
        head->offset[1] = offset[head->test_group];
        free(train->test_labels);
        train->test_count = head->test_group ? test->test_count : test->train_count;
        int32_t **labels = head->test_group ? &test->test_labels : &test->train_labels;
        train->test_labels = *labels;
        *labels = NULL;
    }
    mdm_dataset_destroy(test);
    return status;
}

static mdm_status hash_encoded(XXH3_state_t *state, mdm_encoded *encoded, int64_t count, int64_t step,
                               int64_t bytes) {
    uint8_t *picture;
    mdm_status status = MDM_ALLOCATE(picture, bytes, "a picture");
    if (status == MDM_OK) {
        for (int64_t i = 0; status == MDM_OK && i < count; i += step) {
            status = mdm_encoded_read_one(encoded, i, picture);
            if (status == MDM_OK) XXH3_64bits_update(state, picture, (size_t)bytes);
        }
        free(picture);
    }
    mdm_encoded_close(encoded);
    return status;
}

static mdm_status hash_places(XXH3_state_t *state, const char *path, int64_t place, int64_t count,
                              int64_t step, int64_t bytes) {
    uint8_t *picture;
    mdm_status status = MDM_ALLOCATE(picture, bytes, "a picture");
    for (int64_t i = 0; status == MDM_OK && i < count; i += step) {
        status = mdm_dataset_read_images_at(path, 0, place, bytes, i, 1, picture);
        if (status == MDM_OK) XXH3_64bits_update(state, picture, (size_t)bytes);
    }
    free(picture);
    return status;
}

/* Hashes up to 64 pictures, evenly spread over a split. */
static mdm_status hash_pictures(XXH3_state_t *state, const char *path, int group, int64_t place,
                                int64_t count, int64_t bytes) {
    enum { MOST = 64 };
    int64_t step = count > MOST ? count / MOST : 1;
    mdm_chunked *reader;
    mdm_encoded *encoded;
    if (place >= 0) return hash_places(state, path, place, count, step, bytes);
    MDM_TRY(mdm_dataset_open_encoded(path, group, &encoded));
    if (encoded) return hash_encoded(state, encoded, count, step, bytes);
    MDM_TRY(mdm_chunked_open(path, group, bytes, &reader));
    mdm_status status = MDM_OK;
    for (int64_t i = 0; status == MDM_OK && i < count; i += step) {
        const uint8_t *picture;
        status = mdm_chunked_fetch(reader, &i, 1, &picture);
        if (status == MDM_OK) XXH3_64bits_update(state, picture, (size_t)bytes);
    }
    mdm_chunked_close(reader);
    return status;
}

static mdm_status take_fingerprint(const mdm_dataset *d, const char *path, const char *test_path,
                                   header *head) {
    int64_t shape[6] = {d->train_count, d->test_count, d->height, d->width, d->channels, d->classes};
    int64_t bytes = (int64_t)d->height * d->width * d->channels;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return mdm_fail(MDM_RESOURCE, "out of memory for the data set's fingerprint");
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, shape, sizeof shape);
    XXH3_64bits_update(state, d->train_labels, sizeof(int32_t) * (size_t)d->train_count);
    if (d->test_count > 0) XXH3_64bits_update(state, d->test_labels, sizeof(int32_t) * (size_t)d->test_count);
    XXH3_64bits_update(state, d->mean, sizeof d->mean);
    XXH3_64bits_update(state, d->std, sizeof d->std);
    mdm_status status = hash_pictures(state, path, 0, head->offset[0], d->train_count, bytes);
    if (status == MDM_OK && d->test_count > 0)
        status = hash_pictures(state, test_path ? test_path : path, head->test_group, head->offset[1],
                               d->test_count, bytes);
    head->info.fingerprint = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return status;
}

/* The same pictures of both splits, alone. */
static mdm_status hash_samples(const header *head, const char *path, const char *test_path, uint64_t *hash) {
    const mdm_store_info *info = &head->info;
    int64_t bytes = (int64_t)info->height * info->width * info->channels;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return mdm_fail(MDM_RESOURCE, "out of memory for the data set's fingerprint");
    XXH3_64bits_reset(state);
    mdm_status status = hash_pictures(state, path, 0, head->offset[0], info->train_count, bytes);
    if (status == MDM_OK && info->test_count > 0)
        status = hash_pictures(state, test_path, head->test_group, head->offset[1], info->test_count, bytes);
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return status;
}

/* What a rank reads under the path must be what rank 0 sees there: hosts with disks of their own may hold
 * copies. */
static mdm_status check_same_pictures(const mdm_store *store, const header *head) {
    uint64_t mine;
    if (mdm_comm_rank(store->comm) == 0) return MDM_OK;
    MDM_TRY(hash_samples(head, store->splits[0].path, store->splits[1].path, &mine));
    if (mine == head->pictures) return MDM_OK;
    return mdm_fail(
        MDM_INPUT,
        "%s holds other pictures here than on rank 0's host (hash %016llx, not %016llx); copy the file of "
        "one host to the others",
        store->path, (unsigned long long)mine, (unsigned long long)head->pictures);
}

static mdm_status read_on_rank_0(mdm_store *store, const char *path, const char *test_path, header *head,
                                 mdm_dataset **dataset) {
    mdm_dataset *d;
    MDM_TRY(mdm_dataset_read_labels(path, &d, head->offset));
    *dataset = d;
    head->test_group = 1;
    if (test_path) MDM_TRY(take_test_set(d, test_path, head));
    head->info = (mdm_store_info){.train_count = d->train_count,
                                  .test_count = d->test_count,
                                  .height = d->height,
                                  .width = d->width,
                                  .channels = d->channels,
                                  .classes = d->classes};
    memcpy(head->info.mean, d->mean, sizeof d->mean);
    memcpy(head->info.std, d->std, sizeof d->std);
    MDM_TRY(take_fingerprint(d, path, test_path, head));
    if (mdm_comm_size(store->comm) > 1)
        MDM_TRY(hash_samples(head, path, test_path ? test_path : path, &head->pictures));
    head->has_truth = d->true_labels != NULL;
    MDM_TRY(pack_strings(d->ids, d->train_count, &store->id_text, &head->id_bytes));
    return pack_strings(d->class_names, d->classes, &store->class_text, &head->class_bytes);
}

/* Memory for an array that rank 0 will send; its own content comes from `source` unless it is there already.
 */
static mdm_status make_array(void **array, const void *source, int64_t bytes) {
    if (bytes == 0) return MDM_OK;
    if (!*array) MDM_TRY(mdm_allocate(array, bytes, 1, "the data set's labels"));
    if (source) memcpy(*array, source, (size_t)bytes);
    return MDM_OK;
}

static mdm_status make_arrays(mdm_store *store, const header *head, const mdm_dataset *d) {
    int64_t train = head->info.train_count * 4, test = head->info.test_count * 4;
    MDM_TRY(make_array((void **)&store->splits[0].labels, d ? d->train_labels : NULL, train));
    MDM_TRY(make_array((void **)&store->splits[1].labels, d ? d->test_labels : NULL, test));
    if (head->has_truth) MDM_TRY(make_array((void **)&store->true_labels, d ? d->true_labels : NULL, train));
    MDM_TRY(make_array((void **)&store->id_text, NULL, head->id_bytes));
    return make_array((void **)&store->class_text, NULL, head->class_bytes);
}

/* All ranks have their memory when this begins, so that none waits for one that gave up. */
static mdm_status share_arrays(mdm_store *store, const header *head) {
    struct {
        void *data;
        int64_t bytes;
    } arrays[5] = {{store->splits[0].labels, head->info.train_count * 4},
                   {store->splits[1].labels, head->info.test_count * 4},
                   {store->true_labels, head->has_truth ? head->info.train_count * 4 : 0},
                   {store->id_text, head->id_bytes},
                   {store->class_text, head->class_bytes}};
    for (int i = 0; i < 5; i++)
        if (arrays[i].bytes > 0)
            MDM_TRY(mdm_comm_broadcast(store->comm, arrays[i].data, arrays[i].bytes, MDM_BYTE, 0));
    if (head->id_bytes) MDM_TRY(index_strings(store->id_text, head->info.train_count, &store->id_offset));
    if (head->class_bytes)
        MDM_TRY(index_strings(store->class_text, head->info.classes, &store->class_offset));
    return MDM_OK;
}

/* The number in a file of one number; -1 when there is none ("max" is none too). */
static long long number_in(const char *path) {
    long long value;
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    if (fscanf(file, "%lld", &value) != 1) value = -1;
    fclose(file);
    return value;
}

/* Bytes that the node can still give: MemAvailable, and what the control group (version 2 or 1) leaves. */
static int64_t memory_available(void) {
    static const char *const groups[2][2] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
    long long available = -1;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lld kB", &available) == 1) break;
    if (file) fclose(file);
    available = available < 0 ? (long long)1 << 40 : available * 1024;
    for (int i = 0; i < 2; i++) {
        long long limit = number_in(groups[i][0]), used = number_in(groups[i][1]);
        if (limit >= 0 && used >= 0 && limit - used < available) available = limit > used ? limit - used : 0;
    }
    return available;
}

/* Every rank of the node reads its share of both splits into the window. */
static mdm_status fill_window(mdm_store *store) {
    int rank = mdm_comm_node_rank(store->comm), ranks = mdm_comm_node_size(store->comm);
    for (int s = 0; s < 2; s++) {
        pictures *p = &store->splits[s];
        int64_t first, count;
        mdm_comm_slice(p->count, rank, ranks, &first, &count);
        if (count > 0)
            MDM_TRY(mdm_dataset_read_images_at(p->path, p->group, p->offset, picture_bytes(store), first,
                                               count, p->resident + first * picture_bytes(store)));
    }
    return MDM_OK;
}

/* One window a node. Creating it is agreed upon within a node only, hence the agreement of all. */
static mdm_status create_window(mdm_store *store) {
    int64_t train = store->splits[0].count * picture_bytes(store),
            test = store->splits[1].count * picture_bytes(store);
    void *window;
    mdm_status status = mdm_comm_agree(
        store->comm, mdm_comm_shared_create(store->comm, train + test, &store->shared, &window));
    if (status != MDM_OK) {
        mdm_comm_shared_free(store->shared);
        store->shared = NULL;
        return status;
    }
    store->splits[0].resident = window;
    store->splits[1].resident = (uint8_t *)window + train;
    return MDM_OK;
}

static mdm_status open_streams(mdm_store *store) {
    for (int s = 0; s < 2; s++) {
        pictures *p = &store->splits[s];
        if (p->count == 0) continue;
        mdm_encoded *encoded = NULL;
        if (p->offset < 0) MDM_TRY(mdm_dataset_open_encoded(p->path, p->group, &encoded));
        if (encoded)
            MDM_TRY(mdm_decoder_open(encoded, picture_bytes(store),
                                     mdm_workers_count(mdm_comm_node_size(store->comm)),
                                     &store->decoders[s]));
        else if (p->offset < 0)
            MDM_TRY(mdm_chunked_open(p->path, p->group, picture_bytes(store), &store->chunked[s]));
        else
            MDM_TRY(mdm_stream_open(p->path, p->offset, picture_bytes(store), &store->streams[s]));
    }
    return MDM_OK;
}

static mdm_status place_pictures(mdm_store *store, mdm_resident resident) {
    int64_t bytes = (store->splits[0].count + store->splits[1].count) * picture_bytes(store);
    int32_t fits =
        resident == MDM_RESIDENT_HOST || (resident == MDM_RESIDENT_AUTO && bytes < memory_available() / 2);
    MDM_TRY(mdm_comm_all_reduce(store->comm, &fits, 1, MDM_INT32, MDM_MIN));
    if (fits) {
        mdm_status status = create_window(store);
        if (status == MDM_RESOURCE && resident == MDM_RESIDENT_AUTO) {
            mdm_warn("%s; reading the pictures from the file instead", mdm_last_message());
            fits = 0;
        } else {
            MDM_TRY(status);
        }
    }
    store->info.resident = fits;
    if (!fits) return mdm_comm_agree(store->comm, open_streams(store));
    MDM_TRY(mdm_comm_agree(store->comm, fill_window(store)));
    return mdm_comm_shared_sync(store->comm, store->shared);
}

static mdm_status set_paths(mdm_store *store, const char *path, const char *test_path, const header *head) {
    store->info = head->info;
    store->path = strdup(path);
    store->info.path = store->path;
    for (int s = 0; s < 2; s++) {
        pictures *p = &store->splits[s];
        p->path = strdup(s == 1 && test_path ? test_path : path);
        p->group = s == 1 ? head->test_group : 0;
        p->offset = head->offset[s];
        p->count = s == 0 ? head->info.train_count : head->info.test_count;
        if (!p->path || !store->path) return mdm_fail(MDM_RESOURCE, "out of memory for paths");
    }
    return MDM_OK;
}

static mdm_status open_store(mdm_store *store, const char *path, const char *test_path,
                             mdm_resident resident) {
    header head;
    mdm_dataset *dataset = NULL;
    mdm_status status = MDM_OK;
    memset(&head, 0, sizeof head);
    if (mdm_comm_rank(store->comm) == 0) status = read_on_rank_0(store, path, test_path, &head, &dataset);
    status = mdm_comm_agree(store->comm, status);
    if (status == MDM_OK) status = mdm_comm_broadcast(store->comm, &head, sizeof head, MDM_BYTE, 0);
    if (status == MDM_OK) {
        status = set_paths(store, path, test_path, &head);
        if (status == MDM_OK) status = make_arrays(store, &head, dataset);
        status = mdm_comm_agree(store->comm, status);
    }
    mdm_dataset_destroy(dataset);
    MDM_TRY(status);
    MDM_TRY(mdm_comm_agree(store->comm, share_arrays(store, &head)));
    MDM_TRY(mdm_comm_agree(store->comm, check_same_pictures(store, &head)));
    return place_pictures(store, resident);
}

mdm_status mdm_store_open_with_test(mdm_comm *comm, const char *path, const char *test_path,
                                    mdm_resident resident, mdm_store **out) {
    mdm_store *store;
    *out = NULL;
    MDM_TRY(mdm_comm_agree(comm, MDM_ALLOCATE(store, 1, "the data store")));
    store->comm = comm;
    mdm_status status = open_store(store, path, test_path, resident);
    if (status != MDM_OK) {
        mdm_store_close(store);
        return status;
    }
    *out = store;
    return MDM_OK;
}

mdm_status mdm_store_open(mdm_comm *comm, const char *path, mdm_resident resident, mdm_store **store) {
    return mdm_store_open_with_test(comm, path, NULL, resident, store);
}

void mdm_store_close(mdm_store *store) {
    if (!store) return;
    if (store->shared) mdm_comm_shared_free(store->shared);
    for (int s = 0; s < 2; s++) {
        mdm_stream_close(store->streams[s]);
        mdm_decoder_close(store->decoders[s]);
        mdm_chunked_close(store->chunked[s]);
        free(store->splits[s].path);
        free(store->splits[s].labels);
    }
    free(store->true_labels);
    free(store->id_text);
    free(store->class_text);
    free(store->id_offset);
    free(store->class_offset);
    free(store->path);
    free(store);
}

mdm_status mdm_store_let_go(mdm_store *store) {
    if (!store->info.resident) return MDM_OK;
    mdm_comm_shared_free(store->shared);
    store->shared = NULL;
    store->splits[0].resident = store->splits[1].resident = NULL;
    store->info.resident = 0;
    return mdm_comm_agree(store->comm, open_streams(store));
}

const mdm_store_info *mdm_store_get_info(const mdm_store *store) {
    return &store->info;
}

const int32_t *mdm_store_labels(const mdm_store *store, mdm_split split) {
    return store->splits[split].labels;
}

const int32_t *mdm_store_true_labels(const mdm_store *store) {
    return store->true_labels;
}

const char *mdm_store_id(const mdm_store *store, int64_t index) {
    return store->id_offset ? store->id_text + store->id_offset[index] : NULL;
}

const char *mdm_store_class_name(const mdm_store *store, int label) {
    return store->class_offset && label >= 0 && label < store->info.classes
               ? store->class_text + store->class_offset[label]
               : NULL;
}

int64_t mdm_store_block(const mdm_store *store) {
    int64_t run = ((int64_t)1 << 20) / picture_bytes(store);
    return run > 8 ? run : 8;
}

void mdm_store_expect_blocks(mdm_store *store) {
    if (store->streams[MDM_TRAIN])
        mdm_stream_expect_blocks(store->streams[MDM_TRAIN], mdm_store_block(store),
                                 store->splits[MDM_TRAIN].count);
}

mdm_status mdm_store_prefetch(mdm_store *store, mdm_split split, const int64_t *index, int64_t count) {
    if (count > 0 && store->decoders[split])
        return mdm_decoder_prefetch(store->decoders[split], index, count);
    return count > 0 && store->streams[split] ? mdm_stream_prefetch(store->streams[split], index, count)
                                              : MDM_OK;
}

mdm_status mdm_store_fetch(mdm_store *store, mdm_split split, const int64_t *index, int64_t count,
                           const uint8_t **images) {
    if (count == 0) return MDM_OK;
    if (store->streams[split]) return mdm_stream_fetch(store->streams[split], index, count, images);
    if (store->decoders[split]) return mdm_decoder_fetch(store->decoders[split], index, count, images);
    if (store->chunked[split]) return mdm_chunked_fetch(store->chunked[split], index, count, images);
    for (int64_t i = 0; i < count; i++)
        images[i] = store->splits[split].resident + index[i] * picture_bytes(store);
    return MDM_OK;
}
