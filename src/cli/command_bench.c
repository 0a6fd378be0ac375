/* mdm-dist bench: times the product's own operations on synthetic data of given sizes; one JSON line a
 * measurement.
 *
 * Steps are those of training: weights, views and labels are random, the arithmetic is the same. Ranks work
 * together, and the slowest one sets the time.
 */
#include "bench.h"
#include "commands.h"
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/base/random.h"
#include "mdm/data/augment.h"
#include "mdm/data/store.h"
#include "mdm/device/group.h"
#include "mdm/device/views.h"
#include "mdm/divide/gmm.h"
#include "mdm/divide/knn.h"
#include "mdm/train/run.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float *random_floats(int64_t count, uint32_t item) {
    float *values;
    if (MDM_ALLOCATE(values, count > 0 ? count : 1, "bench data") != MDM_OK) return NULL;
    mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 0, item, 0);
    for (int64_t i = 0; i < count; i++) values[i] = (float)mdm_random_normal(&random);
    return values;
}

mdm_status mdm_bench_send_random(bench *b, int64_t count, float **values) {
    size_t bytes = sizeof(float) * (size_t)count;
    float *host = random_floats(count, 1);
    if (!host) return mdm_fail(MDM_RESOURCE, "out of memory; a smaller train.batch needs less");
    mdm_status status = mdm_device_allocate(b->device, bytes, "bench data", (void **)values);
    if (status == MDM_OK) status = mdm_device_upload(b->device, *values, host, bytes);
    free(host);
    return status;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double mdm_bench_median(double *times, int count) {
    qsort(times, (size_t)count, sizeof *times, by_value);
    return times[count / 2];
}

void mdm_bench_report(const bench *b, const char *name, double *times, int count, double images, double flop,
                      const char *more) {
    double median = mdm_bench_median(times, count);
    if (mdm_comm_rank(b->comm) != 0) return;
    printf("{\"bench\":\"%s\",\"median_ms\":%.4g,\"min_ms\":%.4g,\"images_per_s\":%.6g,\"gflop_per_s\":%.5g,"
           "\"device\":\"%s\","
           "\"ranks\":%d,\"threads\":%d,\"precision\":\"%s\"%s}\n",
           name, 1e3 * median, 1e3 * times[0], images / median, flop / median / 1e9,
           mdm_device_get_info(b->device)->name, mdm_comm_size(b->comm), b->threads,
           mdm_precision_name(b->precision), more);
    fflush(stdout);
}

static void report(const bench *b, const char *name, double *times, int count, double images, double flop) {
    mdm_bench_report(b, name, times, count, images, flop, "");
}

mdm_status mdm_bench_time(bench *b, work run, void *context, double *seconds) {
    MDM_TRY(mdm_comm_barrier(b->comm));
    double start = mdm_seconds();
    MDM_TRY(run(b, context));
    *seconds = mdm_seconds() - start;
    return mdm_comm_all_reduce(b->comm, seconds, 1, MDM_DOUBLE, MDM_MAX);
}

mdm_status mdm_bench_measure(bench *b, work run, void *context, double *times, int repeats) {
    double seconds;
    for (int i = -WARM_UPS; i < repeats; i++) {
        MDM_TRY(mdm_bench_time(b, run, context, &seconds));
        if (i >= 0) times[i] = seconds;
    }
    return MDM_OK;
}

/* Memory of the device with a copy of `host`, which on the CPU is the same. */
static mdm_status to_device(bench *b, float *host, int64_t count, float **memory) {
    void *room = host;
    if (mdm_device_get_info(b->device)->is_cuda) {
        size_t bytes = sizeof *host * (size_t)count;
        MDM_TRY(mdm_device_allocate(b->device, bytes, "bench data", &room));
        *memory = room;
        return mdm_device_upload(b->device, room, host, bytes);
    }
    *memory = room;
    return MDM_OK;
}

static void free_on_device(bench *b, const float *host, float *memory) {
    if (memory != host) mdm_device_free(b->device, memory);
}

typedef struct knn_context {
    float *embedding, *on_device, *score;
    uint8_t *among; /* [total] with divide.ood_neighbours=clean: every other sample; or NULL */
    int64_t total, first, count;
    int dimension, k;
    mdm_knn_report report;
} knn_context;

static mdm_status run_knn(bench *b, void *context) {
    knn_context *c = context;
    if (c->among)
        return mdm_knn_scores_among(b->comm, b->device, c->on_device, c->total, c->dimension, c->k, c->among,
                                    c->score);
    return mdm_knn_scores_on(b->comm, b->device, c->on_device, c->total, c->dimension, c->k, c->score, NULL,
                             NULL, &c->report);
}

static mdm_status make_embeddings(bench *b, knn_context *c) {
    mdm_comm_my_slice(b->comm, c->total, &c->first, &c->count);
    MDM_TRY(MDM_ALLOCATE(c->embedding, c->count * c->dimension, "bench data"));
    MDM_TRY(MDM_ALLOCATE(c->score, c->count, "bench data"));
    if (b->config->divide.ood_neighbours == MDM_CONFIG_OOD_NEIGHBOURS_CLEAN)
        MDM_TRY(MDM_ALLOCATE(c->among, c->total, "bench data"));
    for (int64_t i = 0; c->among && i < c->total; i += 2) c->among[i] = 1;
#pragma omp parallel for num_threads(b->threads)
    for (int64_t i = 0; i < c->count; i++) {
        mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 4, (uint64_t)(c->first + i), 0);
        for (int d = 0; d < c->dimension; d++)
            c->embedding[i * c->dimension + d] = (float)mdm_random_normal(&random);
    }
    return to_device(b, c->embedding, c->count * c->dimension, &c->on_device);
}

static mdm_status time_knn(bench *b, int64_t total) {
    knn_context c = {.total = total, .dimension = 512, .k = b->config->divide.k};
    double times[MOST_TIMES];
    char more[128];
    mdm_status status = mdm_comm_agree(b->comm, make_embeddings(b, &c));
    if (status == MDM_OK) status = mdm_bench_measure(b, run_knn, &c, times, 3);
    snprintf(more, sizeof more, ",\"samples\":%lld,\"searched_again\":%lld", (long long)total,
             (long long)c.report.repeated);
    double pairs = (double)total * (double)total / (c.among ? 2 : 1);
    if (status == MDM_OK)
        mdm_bench_report(b, "knn", times, 3, (double)total, 2.0 * pairs * c.dimension, more);
    free_on_device(b, c.embedding, c.on_device);
    free(c.embedding);
    free(c.score);
    free(c.among);
    return status;
}

/* A CUDA device is through with 20 000 before it is warm. */
static mdm_status bench_knn(bench *b) {
    if (!mdm_device_get_info(b->device)->is_cuda) return time_knn(b, 20000);
    MDM_TRY(time_knn(b, 50000));
    return time_knn(b, 1000000);
}

typedef struct gmm_context {
    float *loss, *probability, *loss_on_device, *probability_on_device;
    int64_t count;
} gmm_context;

static mdm_status run_gmm(bench *b, void *context) {
    gmm_context *c = context;
    mdm_gmm fit;
    mdm_gmm_options o = {b->config->divide.gmm_iterations, b->config->divide.gmm_tolerance,
                         b->config->divide.gmm_floor};
    MDM_TRY(
        mdm_gmm_fit_on(b->comm, b->device, c->loss_on_device, c->count, &o, &fit, c->probability_on_device));
    if (c->probability_on_device == c->probability) return MDM_OK;
    return mdm_device_download(b->device, c->probability, c->probability_on_device,
                               sizeof *c->probability * (size_t)c->count);
}

static mdm_status make_losses(bench *b, int64_t total, gmm_context *c) {
    int64_t first;
    mdm_comm_my_slice(b->comm, total, &first, &c->count);
    MDM_TRY(MDM_ALLOCATE(c->loss, c->count, "bench data"));
    MDM_TRY(MDM_ALLOCATE(c->probability, c->count, "bench data"));
    for (int64_t i = 0; i < c->count; i++) { /* half gamma(1, 0.2), half normal(4, 1): the peer's losses */
        mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 1, (uint64_t)(first + i), 0);
        c->loss[i] = (float)(i % 2 ? 0.2 * mdm_random_gamma(&random, 1) : 4 + mdm_random_normal(&random));
    }
    MDM_TRY(to_device(b, c->loss, c->count, &c->loss_on_device));
    return to_device(b, c->probability, c->count, &c->probability_on_device);
}

static mdm_status bench_gmm(bench *b) {
    gmm_context c;
    double times[MOST_TIMES];
    memset(&c, 0, sizeof c);
    const int64_t total = 1000000;
    mdm_status status = mdm_comm_agree(b->comm, make_losses(b, total, &c));
    if (status == MDM_OK) status = mdm_bench_measure(b, run_gmm, &c, times, REPEATS);
    if (status == MDM_OK) report(b, "gmm", times, REPEATS, (double)total, 0);
    free_on_device(b, c.loss, c.loss_on_device);
    free_on_device(b, c.probability, c.probability_on_device);
    free(c.loss);
    free(c.probability);
    return status;
}

enum { VIEWS = 4000 };

static mdm_status run_augment(bench *b, void *context) {
    uint8_t *pictures = context;
    size_t image = (size_t)CHANNELS * SIDE * SIDE;
#pragma omp parallel for schedule(static) num_threads(b->threads)
    for (int i = 0; i < VIEWS; i++) {
        uint8_t out[CHANNELS * SIDE * SIDE], scratch[2 * CHANNELS * SIDE * SIDE];
        mdm_random random = mdm_random_stream(1, MDM_RANDOM_AUGMENT, 0, (uint64_t)i, 0);
        mdm_augment_view(MDM_VIEW_STRONG, &random, pictures + image * (size_t)(i % 100), SIDE, SIDE, CHANNELS,
                         4, out, scratch);
    }
    return MDM_OK;
}

/* Views that a CUDA device makes, normalised, of pictures in its memory. */
typedef struct device_views {
    mdm_view_maker *maker;
    uint8_t *pictures;
    float *images;
    mdm_view_row *rows; /* [VIEWS], on the host */
} device_views;

static mdm_status run_augment_on_device(bench *b, void *context) {
    device_views *c = context;
    float waited_for;
    int64_t first;
    MDM_TRY(mdm_view_maker_begin(c->maker));
    MDM_TRY(mdm_view_maker_add(c->maker, c->rows, VIEWS, &first));
    MDM_TRY(mdm_view_maker_send(c->maker, first, VIEWS));
    MDM_TRY(mdm_view_maker_make(c->maker, c->pictures, first, VIEWS, c->images));
    return mdm_device_download(b->device, &waited_for, c->images, sizeof waited_for);
}

static mdm_status fill_device_views(bench *b, const uint8_t *pictures, size_t bytes, device_views *c) {
    mdm_view_policy policy;
    mdm_view_spec spec = {
        .height = SIDE, .width = SIDE, .channels = CHANNELS, .padding = 4, .seed = 1, .policy = &policy};
    size_t images = sizeof(float) * VIEWS * CHANNELS * SIDE * SIDE;
    mdm_augment_prepare_policy(SIDE, SIDE, &policy);
    for (int v = 0; v < 256; v++) spec.normal[0][v] = spec.normal[1][v] = spec.normal[2][v] = (float)v;
    MDM_TRY(MDM_ALLOCATE(c->rows, VIEWS, "bench data"));
    for (uint32_t i = 0; i < VIEWS; i++)
        c->rows[i] = (mdm_view_row){.sample = i, .picture = i % 100, .view = MDM_VIEW_STRONG};
    MDM_TRY(mdm_device_allocate(b->device, bytes, "bench data", (void **)&c->pictures));
    MDM_TRY(mdm_device_upload(b->device, c->pictures, pictures, bytes));
    MDM_TRY(mdm_device_allocate(b->device, images, "bench data", (void **)&c->images));
    MDM_TRY(mdm_view_maker_create(b->device, &spec, &c->maker));
    return mdm_view_maker_reserve(c->maker, VIEWS);
}

static mdm_status measure_on_device(bench *b, const uint8_t *pictures, size_t bytes, double *times) {
    device_views c = {0};
    mdm_status status = fill_device_views(b, pictures, bytes, &c);
    if (status == MDM_OK) status = mdm_bench_measure(b, run_augment_on_device, &c, times, REPEATS);
    mdm_view_maker_destroy(c.maker);
    mdm_device_free(b->device, c.pictures);
    mdm_device_free(b->device, c.images);
    free(c.rows);
    return status;
}

static mdm_status bench_augment(bench *b) {
    uint8_t *pictures;
    double times[MOST_TIMES];
    size_t bytes = 100 * CHANNELS * SIDE * SIDE;
    MDM_TRY(MDM_ALLOCATE(pictures, bytes, "bench data"));
    mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 2, 0, 0);
    for (size_t i = 0; i < bytes; i++) pictures[i] = (uint8_t)mdm_random_bits(&random);
    mdm_status status = mdm_device_get_info(b->device)->is_cuda
                            ? measure_on_device(b, pictures, bytes, times)
                            : mdm_bench_measure(b, run_augment, pictures, times, REPEATS);
    if (status == MDM_OK) report(b, "augment", times, REPEATS, (double)VIEWS * mdm_comm_size(b->comm), 0);
    free(pictures);
    return status;
}

typedef struct io_context {
    mdm_store *store;
    int64_t *order, count, next, end; /* this rank's pictures of an epoch */
    int64_t per_call;
    const uint8_t **pictures;
} io_context;

/* A part of an epoch, a batch after another, each announced one ahead as in training. */
static mdm_status run_io(bench *b, void *context) {
    io_context *c = context;
    (void)b;
    for (int64_t done = 0; done < c->per_call; done += c->count, c->next += c->count) {
        if (c->next + c->count > c->end) c->next = 0; /* another epoch */
        int64_t after = c->next + c->count;
        MDM_TRY(mdm_store_fetch(c->store, MDM_TRAIN, c->order + c->next, c->count, c->pictures));
        if (after + c->count <= c->end)
            MDM_TRY(mdm_store_prefetch(c->store, MDM_TRAIN, c->order + after, c->count));
    }
    return MDM_OK;
}

static mdm_status order_io(bench *b, io_context *c) {
    int64_t samples = mdm_store_get_info(c->store)->train_count;
    MDM_TRY(MDM_ALLOCATE(c->order, samples, "bench data"));
    MDM_TRY(MDM_ALLOCATE(c->pictures, c->count, "bench data"));
    for (int64_t i = 0; i < samples; i++) c->order[i] = i;
    mdm_random random = mdm_random_stream(1, MDM_RANDOM_TEST, 3, 0, 0);
    if (b->config->data.shuffle == MDM_CONFIG_SHUFFLE_BLOCKS) {
        mdm_store_expect_blocks(c->store);
        mdm_random_shuffle_blocks(&random, c->order, samples, mdm_store_block(c->store), MDM_STORE_WINDOW);
    } else {
        mdm_random_shuffle(&random, c->order, samples);
    }
    int64_t ranks = mdm_comm_size(b->comm), rank = mdm_comm_rank(b->comm);
    /* steps are of all ranks: each takes its rows of every one */
    int64_t steps = samples / (c->count * ranks), at = 0;
    if (steps < 1)
        return mdm_fail(MDM_USAGE, "train.batch is more than the data set's %lld samples",
                        (long long)samples);
    for (int64_t step = 0; step < steps; step++)
        for (int64_t i = 0; i < c->count; i++)
            c->order[at++] = c->order[(step * ranks + rank) * c->count + i];
    c->end = at;
    c->per_call = steps / (WARM_UPS + REPEATS) * c->count;
    if (c->per_call == 0) c->per_call = c->count;
    return MDM_OK;
}

/* One epoch of data.train in the order of data.shuffle, streamed, in equal parts. */
static mdm_status bench_io(bench *b) {
    io_context c = {.count = b->config->train.batch};
    double times[MOST_TIMES];
    MDM_TRY(mdm_store_open(b->comm, b->config->data.train, MDM_RESIDENT_STREAM, &c.store));
    mdm_status status = order_io(b, &c);
    if (status == MDM_OK) status = mdm_bench_measure(b, run_io, &c, times, REPEATS);
    if (status == MDM_OK) report(b, "io", times, REPEATS, (double)c.per_call * mdm_comm_size(b->comm), 0);
    free(c.order);
    free(c.pictures);
    mdm_store_close(c.store);
    return status;
}

typedef struct allreduce_context {
    mdm_group *group;
    float *values; /* in the device's memory */
    int64_t count;
} allreduce_context;

static mdm_status run_allreduce(bench *b, void *context) {
    const allreduce_context *c = context;
    float waited_for;
    MDM_TRY(mdm_group_reduce_start(c->group, c->values, c->count));
    MDM_TRY(mdm_group_reduce_wait(c->group));
    return mdm_device_download(b->device, &waited_for, c->values, sizeof waited_for);
}

static mdm_status time_allreduce(bench *b, allreduce_context *c) {
    double times[MOST_TIMES], gigabytes = 4e-9 * (double)c->count;
    char more[160];
    MDM_TRY(mdm_bench_measure(b, run_allreduce, c, times, REPEATS));
    snprintf(more, sizeof more, ",\"bytes\":%lld,\"gbyte_per_s\":%.4g,\"by\":\"%s\"", 4 * (long long)c->count,
             gigabytes / mdm_bench_median(times, REPEATS), mdm_group_is_queued(c->group) ? "NCCL" : "MPI");
    mdm_bench_report(b, "allreduce", times, REPEATS, 0, 0, more);
    return MDM_OK;
}

/* Sums of several sizes, the last one that of the network's gradient. */
static mdm_status bench_allreduce(bench *b) {
    const int64_t counts[] = {1 << 10, 1 << 16, 1 << 20, 1 << 24, b->layout->weight_count};
    enum { SIZES = sizeof counts / sizeof *counts };
    int64_t most = counts[3] > counts[4] ? counts[3] : counts[4];
    allreduce_context c = {0};
    mdm_status status = mdm_bench_send_random(b, most, &c.values);
    if (status == MDM_OK) status = mdm_group_create(b->comm, b->device, &c.group);
    if (status == MDM_OK) status = mdm_group_reserve(c.group, sizeof(float) * (size_t)most);
    status = mdm_comm_agree(b->comm, status);
    for (int i = 0; i < SIZES && status == MDM_OK; i++) {
        c.count = counts[i];
        status = time_allreduce(b, &c);
    }
    mdm_group_destroy(c.group);
    mdm_device_free(b->device, c.values);
    return status;
}

static const struct {
    const char *name;
    mdm_status (*run)(bench *b);
} benches[] = {{"ceilings", mdm_bench_ceilings}, {"step", mdm_bench_step}, {"semi", mdm_bench_semi},
               {"pretrain", mdm_bench_pretrain}, {"knn", bench_knn},       {"gmm", bench_gmm},
               {"augment", bench_augment},       {"io", bench_io},         {"allreduce", bench_allreduce}};
enum { BENCHES = sizeof benches / sizeof *benches };

static mdm_status open_bench(bench *b) {
    char text[256];
    mdm_network_spec spec = {.base_width = b->config->model.width,
                             .projection = b->config->model.projection,
                             .channels = CHANNELS,
                             .height = SIDE,
                             .width = SIDE,
                             .classes = CLASSES};
    mdm_config_get(b->config, "model.arch", spec.arch, sizeof spec.arch);
    MDM_TRY(mdm_choose_threads(b->comm, b->config->run.threads, &b->threads, text, sizeof text));
    MDM_TRY(mdm_choose_device(b->comm, b->config, b->threads, &b->device, &b->precision));
    MDM_TRY(mdm_layout_create(&spec, &b->layout));
    MDM_TRY(mdm_network_create(b->layout, 1, 0, &b->network));
    mdm_comm_my_slice(b->comm, b->config->train.batch, &b->first, &b->count);
    MDM_TRY(
        mdm_executor_create(b->device, b->comm, b->layout, b->precision, MDM_BATCHNORM_SYNC, &b->executor));
    if (b->config->deterministic == MDM_CONFIG_DETERMINISTIC_TRUE ||
        (b->config->deterministic == MDM_CONFIG_DETERMINISTIC_AUTO &&
         mdm_executor_can_be_reproducible(b->executor)))
        MDM_TRY(mdm_executor_make_reproducible(b->executor));
    else
        mdm_executor_set_chunks(b->executor, b->config->train.micro_batch);
    return mdm_recorder_create(b->comm, b->executor, b->config->train.cuda_graph, &b->recorder);
}

static mdm_status run_benches(bench *b, const char *name) {
    MDM_TRY(mdm_comm_agree(b->comm, open_bench(b)));
    int all = strcmp(name, "all") == 0;
    for (int i = 0; i < BENCHES; i++) {
        if (!all && strcmp(benches[i].name, name) != 0) continue;
        if (all && strcmp(benches[i].name, "io") == 0 && !b->config->data.train[0]) continue;
        MDM_TRY(benches[i].run(b));
    }
    return MDM_OK;
}

static mdm_status read_settings(int argc, char **argv, mdm_config *config) {
    mdm_config_defaults(config);
    for (int i = 2; i < argc; i++) MDM_TRY(mdm_config_set(config, argv[i]));
    return MDM_OK;
}

static mdm_status check_name(const char *name) {
    const char *names[BENCHES + 1];
    for (int i = 0; i < BENCHES; i++) names[i] = benches[i].name;
    names[BENCHES] = "all";
    for (int i = 0; i <= BENCHES; i++)
        if (strcmp(names[i], name) == 0) return MDM_OK;
    const char *near = mdm_nearest_name(name, names, BENCHES + 1);
    return mdm_fail(MDM_USAGE, "there is no measurement '%s'%s%s; mdm-dist bench --help lists them", name,
                    near ? "; did you mean " : "", near ? near : "");
}

mdm_status mdm_command_bench(int argc, char **argv) {
    bench b;
    memset(&b, 0, sizeof b);
    if (argc < 2) return mdm_fail(MDM_USAGE, "bench needs a measurement; mdm-dist bench --help lists them");
    MDM_TRY(check_name(argv[1]));
    MDM_TRY(MDM_ALLOCATE(b.config, 1, "the configuration"));
    mdm_status status = read_settings(argc, argv, b.config);
    if (status == MDM_OK) status = mdm_comm_start(&argc, &argv, &b.comm);
    if (status == MDM_OK) {
        mdm_log_set_rank(mdm_comm_rank(b.comm), mdm_comm_size(b.comm));
        status = mdm_comm_agree(b.comm, mdm_check_environment());
        if (status == MDM_OK) status = run_benches(&b, argv[1]);
        mdm_command_leave(b.comm, status);
        mdm_recorder_destroy(b.recorder);
        mdm_executor_destroy(b.executor);
        mdm_network_destroy(b.network);
        mdm_layout_destroy(b.layout);
        mdm_device_destroy(b.device);
        mdm_comm_finish(b.comm);
    }
    free(b.config);
    return status;
}
