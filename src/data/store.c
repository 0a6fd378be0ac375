/* The store: rank 0 looks through the file, labels and the places of pictures go to every rank, pictures into
 * one window per node (or stay in the file).
 *
 * Streamed pictures that lie in one piece are read by a thread that works one step ahead, JPEG and PNG files
 * by several; chunks are unpacked by the calling thread when their pictures are fetched.
 */
#include "mdm/data/store.h"
#include "dataset_internal.h"
#include "mdm/base/log.h"
#include "pictures.h"
#include "store_chunked.h"
#include "store_encoded.h"
#include "store_stream.h"
#include "workers.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* One split's pictures. */
typedef struct pictures {
    char *path;
    int64_t count;
    mdm_places *places; /* in that file */
    uint8_t *resident;  /* in the shared window, NULL when streamed */
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
    mdm_chunked *chunked[2];  /* streamed and in chunks */
    /* streamed: the files as they were when the streams were opened */
    int is_watched, descriptors[2];
    struct stat states[2];
    uint64_t pictures;
};

/* What rank 0 tells the others before the arrays. */
typedef struct header {
    mdm_store_info info;
    int has_truth;
    int64_t place_bytes[2];
    int64_t id_bytes, class_bytes; /* 0: none */
    uint64_t pictures;             /* XXH3 of the pictures that the fingerprint samples */
} header;

typedef struct statistics {
    const float *mean, *std; /* [3] */
} statistics;

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
    for (int c = 0; train->class_names && test->class_names && c < train->classes && c < test->classes; c++)
        if (mdm_warn_of_other_name(path, c, test->class_names[c], train->class_names[c])) break;
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

/* Takes the test set of another file, or else its training set, over into `train`. */
static mdm_status take_test_set(mdm_dataset *train, const char *path) {
    mdm_dataset *test;
    int has_statistics; /* the training set's are taken */
    MDM_TRY(mdm_dataset_look_through(path, &test, &has_statistics));
    mdm_status status = check_test_file(train, test, path);
    if (status == MDM_OK) {
        const int from = test->test_count > 0;
        int32_t **labels = from ? &test->test_labels : &test->train_labels;
        free(train->test_labels);
        free(train->places[1]);
        train->test_count = from ? test->test_count : test->train_count;
        train->test_labels = *labels;
        train->places[1] = test->places[from];
        *labels = NULL;
        test->places[from] = NULL;
    }
    mdm_dataset_destroy(test);
    return status;
}

/* Hashes up to 64 pictures, evenly spread over a split. */
static mdm_status hash_pictures(XXH3_state_t *state, const char *path, const mdm_places *places) {
    enum { MOST = 64 };
    const int64_t step = places->count > MOST ? places->count / MOST : 1,
                  bytes = (int64_t)places->height * places->width * places->channels;
    mdm_pictures *reader;
    uint8_t *picture;
    MDM_TRY(mdm_pictures_open(path, places, &reader));
    mdm_status status = MDM_ALLOCATE(picture, bytes, "a picture");
    for (int64_t i = 0; status == MDM_OK && i < places->count; i += step) {
        status = mdm_pictures_read(reader, i, 1, picture);
        if (status == MDM_OK) XXH3_64bits_update(state, picture, (size_t)bytes);
    }
    free(picture);
    mdm_pictures_close(reader);
    return status;
}

/* The sampled pictures of both splits, which may lie in different files. */
static mdm_status hash_splits(XXH3_state_t *state, const char *path, const char *test_path,
                              mdm_places *const places[2]) {
    MDM_TRY(hash_pictures(state, path, places[0]));
    return places[1] ? hash_pictures(state, test_path ? test_path : path, places[1]) : MDM_OK;
}

static mdm_status take_fingerprint(const mdm_dataset *d, const char *path, const char *test_path,
                                   header *head) {
    int64_t shape[6] = {d->train_count, d->test_count, d->height, d->width, d->channels, d->classes};
    XXH3_state_t *state = XXH3_createState();
    if (!state) return mdm_fail(MDM_RESOURCE, "out of memory for the data set's fingerprint");
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, shape, sizeof shape);
    XXH3_64bits_update(state, d->train_labels, sizeof(int32_t) * (size_t)d->train_count);
    if (d->test_count > 0) XXH3_64bits_update(state, d->test_labels, sizeof(int32_t) * (size_t)d->test_count);
    XXH3_64bits_update(state, d->mean, sizeof d->mean);
    XXH3_64bits_update(state, d->std, sizeof d->std);
    mdm_status status = hash_splits(state, path, test_path, d->places);
    head->info.fingerprint = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return status;
}

/* The same pictures alone. */
static mdm_status hash_samples(const char *path, const char *test_path, mdm_places *const places[2],
                               uint64_t *hash) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) return mdm_fail(MDM_RESOURCE, "out of memory for the data set's fingerprint");
    XXH3_64bits_reset(state);
    mdm_status status = hash_splits(state, path, test_path, places);
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return status;
}

/* What a rank reads under the path must be what rank 0 sees there: hosts with disks of their own may hold
 * copies. */
static mdm_status check_same_pictures(const mdm_store *store, const header *head) {
    mdm_places *const places[2] = {store->splits[0].places, store->splits[1].places};
    uint64_t mine = 0;
    if (mdm_comm_rank(store->comm) == 0) return MDM_OK;
    mdm_status status = hash_samples(store->splits[0].path, store->splits[1].path, places, &mine);
    if (status == MDM_INPUT) /* other bytes where rank 0 has pictures */
        return mdm_fail(MDM_INPUT,
                        "%s is another file here than on rank 0's host (%.900s); copy the file of one host "
                        "to the others",
                        store->path, mdm_last_message());
    MDM_TRY(status);
    if (mine == head->pictures) return MDM_OK;
    return mdm_fail(
        MDM_INPUT,
        "%s holds other pictures here than on rank 0's host (hash %016llx, not %016llx); copy the file of "
        "one host to the others",
        store->path, (unsigned long long)mine, (unsigned long long)head->pictures);
}

/* The file's statistics, or else those given. */
static mdm_status read_with_statistics(const char *path, const statistics *given, mdm_dataset **dataset) {
    int has_statistics;
    if (!given) return mdm_dataset_read_labels(path, dataset);
    MDM_TRY(mdm_dataset_look_through(path, dataset, &has_statistics));
    for (int c = 0; c < (*dataset)->channels && !has_statistics; c++) {
        (*dataset)->mean[c] = given->mean[c];
        (*dataset)->std[c] = given->std[c];
    }
    return MDM_OK;
}

static mdm_status read_on_rank_0(mdm_store *store, const char *path, const char *test_path,
                                 const statistics *given, header *head, mdm_dataset **dataset) {
    mdm_dataset *d;
    MDM_TRY(read_with_statistics(path, given, &d));
    *dataset = d;
    if (test_path) MDM_TRY(take_test_set(d, test_path));
    for (int s = 0; s < 2; s++) head->place_bytes[s] = d->places[s] ? d->places[s]->bytes : 0;
    head->info = (mdm_store_info){.train_count = d->train_count,
                                  .test_count = d->test_count,
                                  .height = d->height,
                                  .width = d->width,
                                  .channels = d->channels,
                                  .classes = d->classes};
    memcpy(head->info.mean, d->mean, sizeof d->mean);
    memcpy(head->info.std, d->std, sizeof d->std);
    MDM_TRY(take_fingerprint(d, path, test_path, head));
    if (mdm_comm_size(store->comm) > 1) MDM_TRY(hash_samples(path, test_path, d->places, &head->pictures));
    head->has_truth = d->true_labels != NULL;
    MDM_TRY(pack_strings(d->ids, d->train_count, &store->id_text, &head->id_bytes));
    return pack_strings(d->class_names, d->classes, &store->class_text, &head->class_bytes);
}

/* Memory for an array that rank 0 will send; its own content comes from `source` unless it is there already.
 */
static mdm_status make_array(void **array, const void *source, int64_t bytes) {
    if (bytes == 0) return MDM_OK;
    if (!*array) MDM_TRY(mdm_allocate(array, bytes, 1, "the data set's labels and places"));
    if (source) memcpy(*array, source, (size_t)bytes);
    return MDM_OK;
}

static mdm_status make_arrays(mdm_store *store, const header *head, const mdm_dataset *d) {
    int64_t train = head->info.train_count * 4, test = head->info.test_count * 4;
    MDM_TRY(make_array((void **)&store->splits[0].labels, d ? d->train_labels : NULL, train));
    MDM_TRY(make_array((void **)&store->splits[1].labels, d ? d->test_labels : NULL, test));
    for (int s = 0; s < 2; s++)
        MDM_TRY(make_array((void **)&store->splits[s].places, d ? d->places[s] : NULL, head->place_bytes[s]));
    if (head->has_truth) MDM_TRY(make_array((void **)&store->true_labels, d ? d->true_labels : NULL, train));
    MDM_TRY(make_array((void **)&store->id_text, NULL, head->id_bytes));
    return make_array((void **)&store->class_text, NULL, head->class_bytes);
}

/* All ranks have their memory when this begins, so that none waits for one that gave up. */
static mdm_status share_arrays(mdm_store *store, const header *head) {
    struct {
        void *data;
        int64_t bytes;
    } arrays[] = {{store->splits[0].labels, head->info.train_count * 4},
                  {store->splits[1].labels, head->info.test_count * 4},
                  {store->splits[0].places, head->place_bytes[0]},
                  {store->splits[1].places, head->place_bytes[1]},
                  {store->true_labels, head->has_truth ? head->info.train_count * 4 : 0},
                  {store->id_text, head->id_bytes},
                  {store->class_text, head->class_bytes}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
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

static mdm_status fill_part(const pictures *p, int64_t first, int64_t count, uint8_t *to) {
    mdm_pictures *reader;
    MDM_TRY(mdm_pictures_open(p->path, p->places, &reader));
    mdm_status status = mdm_pictures_read(reader, first, count, to);
    mdm_pictures_close(reader);
    return status;
}

/* Every rank of the node reads its share of both splits into the window. */
static mdm_status fill_window(mdm_store *store) {
    int rank = mdm_comm_node_rank(store->comm), ranks = mdm_comm_node_size(store->comm);
    for (int s = 0; s < 2; s++) {
        pictures *p = &store->splits[s];
        int64_t first, count;
        mdm_comm_slice(p->count, rank, ranks, &first, &count);
        if (count > 0) MDM_TRY(fill_part(p, first, count, p->resident + first * picture_bytes(store)));
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

static mdm_status open_stream(mdm_store *store, int s) {
    const pictures *p = &store->splits[s];
    mdm_encoded *encoded;
    if (p->places->kind == MDM_PLACES_PLAIN)
        return mdm_stream_open(p->path, p->places->begin, picture_bytes(store), &store->streams[s]);
    if (p->places->kind == MDM_PLACES_CHUNKED)
        return mdm_chunked_open(p->path, p->places, &store->chunked[s]);
    MDM_TRY(mdm_encoded_open(p->path, p->places, &encoded));
    return mdm_decoder_open(encoded, picture_bytes(store), mdm_workers_count(mdm_comm_node_size(store->comm)),
                            &store->decoders[s]);
}

/* The sampled pictures of the files that are open, whatever has taken their names meanwhile. */
static mdm_status hash_open_files(const mdm_store *store, uint64_t *hash) {
    mdm_places *const places[2] = {store->splits[0].places, store->splits[1].places};
    char paths[2][40];
    for (int s = 0; s < 2; s++)
        snprintf(paths[s], sizeof paths[s], "/proc/self/fd/%d", store->descriptors[s]);
    return hash_samples(paths[0], paths[1], places, hash);
}

/* Without /proc there is no watch. */
static void begin_watch(mdm_store *store) {
    int opened = 1;
    for (int s = 0; s < 2; s++) {
        store->descriptors[s] =
            store->splits[s].count > 0 ? open(store->splits[s].path, O_RDONLY | O_CLOEXEC) : -1;
        if (store->splits[s].count > 0)
            opened &= store->descriptors[s] >= 0 && fstat(store->descriptors[s], &store->states[s]) == 0;
    }
    store->is_watched = opened && hash_open_files(store, &store->pictures) == MDM_OK;
}

static void end_watch(mdm_store *store) {
    for (int s = 0; s < 2; s++)
        if (store->descriptors[s] >= 0) close(store->descriptors[s]);
}

/* Sizes and times only give rise to a look. */
static int has_new_times(mdm_store *store, int s) {
    struct stat now, *then = &store->states[s];
    if (store->descriptors[s] < 0 || fstat(store->descriptors[s], &now) != 0) return 0;
    int changed = now.st_size != then->st_size ||
                  memcmp(&now.st_mtim, &then->st_mtim, sizeof now.st_mtim) != 0 ||
                  memcmp(&now.st_ctim, &then->st_ctim, sizeof now.st_ctim) != 0;
    *then = now;
    return changed;
}

static mdm_status look_again(mdm_store *store) {
    uint64_t now = 0;
    int first = has_new_times(store, 0), second = has_new_times(store, 1);
    if (!store->is_watched || (!first && !second)) return MDM_OK;
    if (hash_open_files(store, &now) == MDM_OK && now == store->pictures) return MDM_OK;
    return mdm_fail(MDM_INPUT,
                    "%s was changed while it was in use: its pictures are not those of the start; put the "
                    "former file back and start again to go on from the last checkpoint",
                    store->splits[first ? 0 : 1].path);
}

mdm_status mdm_store_check_unchanged(mdm_store *store) {
    return store->info.resident ? MDM_OK : mdm_comm_agree(store->comm, look_again(store));
}

static mdm_status open_streams(mdm_store *store) {
    for (int s = 0; s < 2; s++)
        if (store->splits[s].count > 0) MDM_TRY(open_stream(store, s));
    begin_watch(store);
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
        p->count = s == 0 ? head->info.train_count : head->info.test_count;
        if (!p->path || !store->path) return mdm_fail(MDM_RESOURCE, "out of memory for paths");
    }
    return MDM_OK;
}

static mdm_status open_store(mdm_store *store, const char *path, const char *test_path,
                             const statistics *given, mdm_resident resident) {
    header head;
    mdm_dataset *dataset = NULL;
    mdm_status status = MDM_OK;
    memset(&head, 0, sizeof head);
    if (mdm_comm_rank(store->comm) == 0)
        status = read_on_rank_0(store, path, test_path, given, &head, &dataset);
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

static mdm_status create_store(mdm_comm *comm, const char *path, const char *test_path,
                               const statistics *given, mdm_resident resident, mdm_store **out) {
    mdm_store *store;
    *out = NULL;
    MDM_TRY(mdm_comm_agree(comm, MDM_ALLOCATE(store, 1, "the data store")));
    store->comm = comm;
    store->descriptors[0] = store->descriptors[1] = -1;
    mdm_status status = open_store(store, path, test_path, given, resident);
    if (status != MDM_OK) {
        mdm_store_close(store);
        return status;
    }
    *out = store;
    return MDM_OK;
}

mdm_status mdm_store_open_with_test(mdm_comm *comm, const char *path, const char *test_path,
                                    mdm_resident resident, mdm_store **store) {
    return create_store(comm, path, test_path, NULL, resident, store);
}

mdm_status mdm_store_open_to_judge(mdm_comm *comm, const char *path, const char *test_path, const float *mean,
                                   const float *std, mdm_store **store) {
    const statistics given = {mean, std};
    return create_store(comm, path, test_path, &given, MDM_RESIDENT_STREAM, store);
}

mdm_status mdm_store_open(mdm_comm *comm, const char *path, mdm_resident resident, mdm_store **store) {
    return mdm_store_open_with_test(comm, path, NULL, resident, store);
}

void mdm_store_close(mdm_store *store) {
    if (!store) return;
    if (store->shared) mdm_comm_shared_free(store->shared);
    end_watch(store);
    for (int s = 0; s < 2; s++) {
        mdm_stream_close(store->streams[s]);
        mdm_decoder_close(store->decoders[s]);
        mdm_chunked_close(store->chunked[s]);
        free(store->splits[s].path);
        free(store->splits[s].labels);
        free(store->splits[s].places);
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

mdm_status mdm_store_fetch_run(mdm_store *store, mdm_split split, int64_t first, int64_t count, int64_t end,
                               const uint8_t **images) {
    int64_t index[MDM_STORE_MOST_RUN] = {0}, next = first + count,
            rest = end - next < count ? end - next : count;
    for (int64_t i = 0; i < count; i++) index[i] = first + i;
    MDM_TRY(mdm_store_fetch(store, split, index, count, images));
    for (int64_t i = 0; i < rest; i++) index[i] = next + i;
    return mdm_store_prefetch(store, split, index, rest);
}
