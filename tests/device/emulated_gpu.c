/* The CUDA backend's machine, emulated: every thread of every launch runs on the CPU, one block after
 * another, over memory that is locked at all other times, so that host code which touches device memory, and
 * kernels that touch host memory's neighbours, end the test. Convolutions and products are plain loops. What
 * this cannot show is the real device, cuDNN and the driver. It stands in for
 * src/device/cuda/{runtime,graph,convolutions,products}.c and *kernels.cu by being linked first.
 * MDM_EMULATED_MIB sets how much memory the device says it has.
 *
 * A graph is a list of calls with copies of their arguments: a launch makes those calls again, whatever the
 * host has changed meanwhile, but for page-locked memory, which sends read when they run, as on a device.
 * What a device would refuse between a graph's begin and end, ends the test. MDM_EMULATED_GRAPHS=refused lets
 * every graph fail at its end; "broken 1": on rank 1 a graph is broken off at its 40th call, and no
 * collective may be recorded from there on. The file that MDM_EMULATED_COUNTS names is told, at the end, how
 * often what was called of device 0.
 *
 * MDM_EMULATED_LOST names a kind of call, and MDM_EMULATED_LOST_AT which one of it, from 1: there the device
 * is lost, on rank MDM_EMULATED_LOST_RANK of Open MPI's launcher only, where that is set. Nothing runs on it
 * from then on, and every later call that can fail says so, as CUDA does. Kinds: the name of a kernel, copy,
 * convolution, product, collective, mark, upload, download, send, wait, allocation, recording (its
 * beginning), recorded (its end), graph. The file that MDM_EMULATED_LOST_HITS names is made when it happens.
 */
#include "cuda/gpu.h"
#include "cuda/product_layout.h"
#include "emulated_stream.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST = 4096, PAGE = 4096, WAITING = 16, MOST_WORKS = 64, CANARY = 0xA5 };

typedef struct allocation {
    char *pages, *memory;
    size_t length; /* of the pages, the locked one behind them apart */
} allocation;

/* A send that has been queued and has not happened yet. */
typedef struct send {
    void *memory;
    const void *pinned;
    size_t bytes;
} send;

/* Collectives are run when something waits for them, so that what does not wait finds wrong numbers. */
typedef struct stream {
    emulated_stream common;
    mdm_gpu *gpu;
    emulated_work *works[MOST_WORKS]; /* queued, done: numbers of all so far; slot number % MOST_WORKS */
    int64_t queued, done;
} stream;

/* How often it was called, but for what graphs call. */
typedef struct call_counts {
    int64_t launches; /* kernels, convolutions, products, copies and zeroing within the device */
    int64_t uploads, downloads, collectives, marks;
    int64_t recorded, replayed; /* graphs */
    int64_t longest;            /* calls of a graph, at most */
    int64_t bytes, most_bytes;  /* of memory, now and at most */
} call_counts;

/* A call that was recorded: what runs it, and a copy of its arguments. */
typedef struct call {
    void (*run)(mdm_gpu *gpu, const void *arguments);
    void *arguments;
} call;

struct mdm_gpu_graph {
    call *calls;
    int count, capacity;
};

struct mdm_gpu {
    mdm_gpu_graph *recording; /* NULL: calls run */
    pthread_t recorder;       /* the thread that began it */
    int is_replaying, number;
    int64_t frees;
    call_counts counts;
    allocation blocks[MOST];
    int count, unlocked;
    mdm_gpu_plan *plans;
    mdm_gpu_product *products;
    pthread_mutex_t lock; /* of what follows, which other threads queue in */
    send sends[WAITING];  /* sent, done: numbers of all sends so far; slot number % WAITING */
    int64_t sent, done;
    stream computing, communicating;
    mdm_gpu_guard guard;
    const char *doom; /* the kind of call that loses the device; NULL: none does */
    int64_t doom_at;
    _Atomic int64_t doom_calls;
    _Atomic int is_lost;
    int is_stuck; /* something queued never ends, and nothing behind it begins */
};

struct mdm_gpu_product {
    mdm_product_shape shape;
    mdm_gpu_product *next;
};

struct mdm_gpu_mark {
    int64_t sent;   /* sends before it */
    int64_t worked; /* collectives before it */
};

struct mdm_gpu_plan {
    mdm_gpu_convolution kind;
    mdm_gpu_plan *next;
};

static void set_lock(mdm_gpu *gpu, int locked) {
    for (int i = 0; i < gpu->count; i++)
        if (mprotect(gpu->blocks[i].pages, gpu->blocks[i].length,
                     locked ? PROT_NONE : PROT_READ | PROT_WRITE))
            abort();
    gpu->unlocked = !locked;
}

/* ---- the loss of the device ---- */

static void lose(mdm_gpu *gpu) {
    const char *hits = getenv("MDM_EMULATED_LOST_HITS");
    gpu->is_lost = 1;
    FILE *file = hits ? fopen(hits, "w") : NULL;
    if (file) fclose(file);
}

static void lose_stream(emulated_stream *common) {
    lose(((stream *)common)->gpu);
}

static int is_lost_in(mdm_gpu *gpu, const char *kind) {
    if (gpu->doom && strcmp(gpu->doom, kind) == 0 && ++gpu->doom_calls == gpu->doom_at) lose(gpu);
    return gpu->is_lost;
}

static mdm_status tell_loss(const mdm_gpu *gpu, const char *what) {
    if (!gpu->is_lost) return MDM_OK;
    return mdm_gpu_failed(gpu->number, what, "an illegal memory access was encountered",
                          "cudaErrorIllegalAddress");
}

/* A call that the host waits for: it is where the device may be lost, and tells. */
static mdm_status count_call(mdm_gpu *gpu, const char *kind, const char *what) {
    (void)is_lost_in(gpu, kind);
    return tell_loss(gpu, what);
}

static void prepare_loss(mdm_gpu *gpu) {
    const char *kind = getenv("MDM_EMULATED_LOST"), *at = getenv("MDM_EMULATED_LOST_AT"),
               *rank = getenv("MDM_EMULATED_LOST_RANK"), *mine = getenv("OMPI_COMM_WORLD_RANK");
    if (!kind || !at || (rank && strcmp(rank, mine ? mine : "0") != 0)) return;
    gpu->doom = kind;
    gpu->doom_at = atol(at);
}

enum { BROKEN_CALLS = 40 };

static int is_broken(const mdm_gpu *gpu) {
    const char *told = getenv("MDM_EMULATED_GRAPHS"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    return gpu->recording && gpu->recording->count >= BROKEN_CALLS && told &&
           strncmp(told, "broken ", 7) == 0 && strcmp(told + 7, rank ? rank : "0") == 0;
}

mdm_status mdm_gpu_check_device(mdm_gpu *gpu, const char *what) {
    MDM_TRY(tell_loss(gpu, what));
    return is_broken(gpu) ? mdm_gpu_failed(gpu->number, what, "the graph was broken off", "as it was told to")
                          : MDM_OK;
}

/* ---- graphs ---- */

/* 1 when the call is not to be run now: it was recorded, or the device is lost. Otherwise it is counted,
 * unless a graph makes it. */
static int is_recorded(mdm_gpu *gpu, const char *kind, void (*run)(mdm_gpu *, const void *),
                       const void *arguments, size_t bytes, int64_t *counter) {
    mdm_gpu_graph *g = gpu->recording;
    if (!g) {
        if (!gpu->is_replaying) ++*counter;
        return is_lost_in(gpu, kind);
    }
    if (g->count == g->capacity) {
        g->capacity = 2 * g->capacity + 256;
        g->calls = realloc(g->calls, sizeof *g->calls * (size_t)g->capacity);
        if (!g->calls) abort();
    }
    call *c = &g->calls[g->count++];
    *c = (call){run, malloc(bytes)};
    if (!c->arguments) abort();
    memcpy(c->arguments, arguments, bytes);
    return 1;
}

static void refuse_in_graph(const mdm_gpu *gpu, const char *what) {
    if (!gpu->recording || !pthread_equal(gpu->recorder, pthread_self())) return;
    fprintf(stderr, "%s while a graph is recorded\n", what);
    abort();
}

typedef struct work_call {
    stream *s;
    emulated_work *work;
} work_call;

static void queue_again(mdm_gpu *gpu, const void *arguments);

static void free_graph(mdm_gpu_graph *graph) {
    for (int i = 0; graph && i < graph->count; i++) {
        call *c = &graph->calls[i];
        if (c->run == queue_again) free(((work_call *)c->arguments)->work);
        free(c->arguments);
    }
    if (graph) free(graph->calls);
    free(graph);
}

mdm_status mdm_gpu_begin_graph(mdm_gpu *gpu) {
    refuse_in_graph(gpu, "a second graph begins");
    MDM_TRY(count_call(gpu, "recording", "the beginning of a graph"));
    gpu->recorder = pthread_self();
    return MDM_ALLOCATE(gpu->recording, 1, "a graph");
}

mdm_status mdm_gpu_end_graph(mdm_gpu *gpu, int keep, mdm_gpu_graph **graph) {
    const char *told = getenv("MDM_EMULATED_GRAPHS");
    int is_refused = is_broken(gpu) || (told && strcmp(told, "refused") == 0);
    mdm_gpu_graph *recorded = gpu->recording;
    *graph = NULL;
    gpu->recording = NULL;
    if (is_lost_in(gpu, "recorded")) {
        free_graph(recorded);
        return tell_loss(gpu, "the end of a graph");
    }
    if (keep && !is_refused) {
        gpu->counts.recorded++;
        if (recorded->count > gpu->counts.longest) gpu->counts.longest = recorded->count;
        *graph = recorded;
        return MDM_OK;
    }
    free_graph(recorded);
    return keep ? mdm_fail(MDM_RESOURCE, "the emulated device was told to refuse graphs") : MDM_OK;
}

mdm_status mdm_gpu_launch_graph(mdm_gpu *gpu, mdm_gpu_graph *graph) {
    refuse_in_graph(gpu, "a graph is launched");
    MDM_TRY(count_call(gpu, "graph", "a graph"));
    gpu->counts.replayed++;
    gpu->is_replaying = 1;
    for (int i = 0; i < graph->count; i++) graph->calls[i].run(gpu, graph->calls[i].arguments);
    gpu->is_replaying = 0;
    return MDM_OK;
}

void mdm_gpu_destroy_graph(mdm_gpu *gpu, mdm_gpu_graph *graph) {
    (void)gpu;
    free_graph(graph);
}

mdm_status mdm_gpu_enter(mdm_gpu *gpu) {
    (void)gpu;
    return MDM_OK;
}

int mdm_gpu_is_recording(const mdm_gpu *gpu) {
    return gpu->recording != NULL;
}

int64_t mdm_gpu_frees(const mdm_gpu *gpu) {
    return gpu->frees;
}

/* ---- collectives ---- */

/* Runs works up to a number, as far as they come to an end. */
static void run_works(stream *s, int64_t end) {
    mdm_gpu *gpu = s->gpu;
    for (; !gpu->is_stuck && s->done < end; s->done++) {
        emulated_work *work = s->works[s->done % MOST_WORKS];
        int state = 0;
        set_lock(gpu, 0);
        while (state == 0) {
            state = work->advance(work);
            if (state == 0) usleep(20);
            if (state == 0 && gpu->guard.look && gpu->guard.look(gpu->guard.context) != MDM_OK) state = -1;
        }
        set_lock(gpu, 1);
        if (state < 0) {
            gpu->is_stuck = 1;
            return;
        }
    }
}

static void queue_work(emulated_stream *common, emulated_work *work) {
    stream *s = (stream *)common;
    const work_call given = {s, work};
    if (is_broken(s->gpu)) refuse_in_graph(s->gpu, "a collective is queued in what is broken off");
    if (is_recorded(s->gpu, "collective", queue_again, &given, sizeof given, &s->gpu->counts.collectives))
        return;
    if (s->queued - s->done == MOST_WORKS) run_works(s, s->done + 1);
    s->works[s->queued++ % MOST_WORKS] = work;
    if (s == &s->gpu->computing) run_works(s, s->queued);
}

/* Of recorded work, which stays, a copy each time. */
static void queue_again(mdm_gpu *gpu, const void *arguments) {
    const work_call *c = arguments;
    (void)gpu;
    c->s->common.queue(&c->s->common, c->work->copy(c->work));
}

void *mdm_gpu_stream(mdm_gpu *gpu, mdm_gpu_queue queue) {
    return queue == MDM_GPU_COMMUNICATING ? &gpu->communicating : &gpu->computing;
}

void mdm_gpu_set_guard(mdm_gpu *gpu, const mdm_gpu_guard *guard) {
    gpu->guard = guard ? *guard : (mdm_gpu_guard){0};
}

void mdm_gpu_give_up(mdm_gpu *gpu) {
    gpu->is_stuck = 1;
}

/* Number of devices: MDM_EMULATED_GPUS; "old": the driver is too old. */
int mdm_gpu_count(char *why, size_t why_size, int *is_unusable) {
    const char *count = getenv("MDM_EMULATED_GPUS");
    int is_old = count && strcmp(count, "old") == 0;
    if (is_unusable) *is_unusable = is_old;
    if (why) snprintf(why, why_size, "%s", is_old ? "the emulated driver is too old" : " ");
    return count ? atoi(count) : 1;
}

mdm_status mdm_gpu_identify(int number, unsigned char identity[MDM_DEVICE_IDENTITY]) {
    memset(identity, number + 1, MDM_DEVICE_IDENTITY);
    return MDM_OK;
}

mdm_status mdm_gpu_open(int number, mdm_gpu **gpu, mdm_gpu_info *info) {
    MDM_TRY(MDM_ALLOCATE(*gpu, 1, "the emulated device"));
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "emulated device %d", number);
    snprintf(info->library, sizeof info->library, "none");
    snprintf(info->instructions, sizeof info->instructions, "emulated");
    const char *mebibytes = getenv("MDM_EMULATED_MIB");
    (*gpu)->number = number;
    info->memory_bytes = (mebibytes ? (size_t)atol(mebibytes) : 8192) << 20;
    pthread_mutex_init(&(*gpu)->lock, NULL);
    prepare_loss(*gpu);
    (*gpu)->computing = (stream){.common = {queue_work, lose_stream}, .gpu = *gpu};
    (*gpu)->communicating = (stream){.common = {queue_work, lose_stream}, .gpu = *gpu};
    return MDM_OK;
}

static void unmap(allocation *b) {
    munmap(b->pages, b->length + PAGE);
}

static void tell_counts(const mdm_gpu *gpu) {
    const char *path = getenv("MDM_EMULATED_COUNTS");
    const call_counts *c = &gpu->counts;
    FILE *file = path && gpu->number == 0 ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file,
            "{\"launches\":%lld,\"uploads\":%lld,\"downloads\":%lld,\"recorded\":%lld,\"replayed\":%lld,"
            "\"longest\":%lld,\"most_bytes\":%lld}\n",
            (long long)c->launches, (long long)c->uploads, (long long)c->downloads, (long long)c->recorded,
            (long long)c->replayed, (long long)c->longest, (long long)c->most_bytes);
    fclose(file);
}

void mdm_gpu_close(mdm_gpu *gpu) {
    tell_counts(gpu);
    for (int i = 0; i < gpu->count; i++) unmap(&gpu->blocks[i]);
    while (gpu->plans) {
        mdm_gpu_plan *next = gpu->plans->next;
        free(gpu->plans);
        gpu->plans = next;
    }
    while (gpu->products) {
        mdm_gpu_product *next = gpu->products->next;
        free(gpu->products);
        gpu->products = next;
    }

    pthread_mutex_destroy(&gpu->lock);
    free(gpu);
}

/* The memory ends where a locked page begins. */
mdm_status mdm_gpu_allocate(mdm_gpu *gpu, size_t bytes, const char *what, void **memory) {
    size_t wanted = (bytes + 15) / 16 * 16, length = (wanted + PAGE - 1) / PAGE * PAGE + PAGE;
    refuse_in_graph(gpu, "memory is allocated");
    *memory = NULL;
    MDM_TRY(count_call(gpu, "allocation", what));
    char *pages = mmap(NULL, length + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED || gpu->count == MOST)
        return mdm_fail(MDM_RESOURCE, "not enough emulated memory for %s", what);
    gpu->blocks[gpu->count++] = (allocation){pages, pages + length - wanted, length};
    *memory = pages + length - wanted;
    gpu->counts.bytes += (int64_t)wanted;
    if (gpu->counts.bytes > gpu->counts.most_bytes) gpu->counts.most_bytes = gpu->counts.bytes;
    return MDM_OK;
}

void mdm_gpu_free(mdm_gpu *gpu, void *memory) {
    if (!memory) return;
    refuse_in_graph(gpu, "memory is freed");
    gpu->frees++;
    for (int i = 0; i < gpu->count; i++)
        if (gpu->blocks[i].memory == (char *)memory) {
            gpu->counts.bytes -= gpu->blocks[i].pages + gpu->blocks[i].length - gpu->blocks[i].memory;
            unmap(&gpu->blocks[i]);
            gpu->blocks[i] = gpu->blocks[--gpu->count];
            return;
        }
    fprintf(stderr, "memory that was never allocated is freed\n");
    abort();
}

mdm_status mdm_gpu_upload(mdm_gpu *gpu, void *memory, const void *host, size_t bytes) {
    refuse_in_graph(gpu, "an upload");
    MDM_TRY(count_call(gpu, "upload", "an upload"));
    gpu->counts.uploads++;
    set_lock(gpu, 0);
    memcpy(memory, host, bytes);
    set_lock(gpu, 1);
    return MDM_OK;
}

mdm_status mdm_gpu_download(mdm_gpu *gpu, void *host, const void *memory, size_t bytes) {
    const mdm_gpu_guard *g = &gpu->guard;
    mdm_status status = MDM_OK;
    refuse_in_graph(gpu, "a download");
    gpu->counts.downloads++;
    if (g->look) {
        g->begin(g->context);
        while (gpu->is_stuck && status == MDM_OK) status = g->look(g->context);
        g->end(g->context);
    }
    MDM_TRY(status);
    MDM_TRY(count_call(gpu, "download", "what was queued before a download"));
    set_lock(gpu, 0);
    memcpy(host, memory, bytes);
    set_lock(gpu, 1);
    return MDM_OK;
}

/* Copies and zeros within the device's memory; copies from page-locked memory. */
typedef struct copy_call {
    void *to;
    const void *from; /* NULL: zeros */
    size_t bytes;
} copy_call;

static void run_copy(mdm_gpu *gpu, const void *arguments) {
    const copy_call *c = arguments;
    set_lock(gpu, 0);
    if (c->from)
        memcpy(c->to, c->from, c->bytes);
    else
        memset(c->to, 0, c->bytes);
    set_lock(gpu, 1);
}

static void queue_copy(mdm_gpu *gpu, copy_call c, int64_t *counter) {
    if (!is_recorded(gpu, "copy", run_copy, &c, sizeof c, counter)) run_copy(gpu, &c);
}

void mdm_gpu_zero(mdm_gpu *gpu, void *memory, size_t bytes) {
    queue_copy(gpu, (copy_call){memory, NULL, bytes}, &gpu->counts.launches);
}

void mdm_gpu_copy(mdm_gpu *gpu, void *to, const void *from, size_t bytes) {
    queue_copy(gpu, (copy_call){to, from, bytes}, &gpu->counts.launches);
}

/* A grid that a device would refuse ends the test; the arguments are copied, as a launch does. */
static void check_grid(uint32_t blocks, uint32_t block_rows) {
    if (blocks > 2147483647u || block_rows == 0 || block_rows > 65535) {
        fprintf(stderr, "a grid of %u x %u blocks\n", blocks, block_rows);
        abort();
    }
}

/* A launch, run now or recorded: `run_name` gets the grid with the arguments. */
#define LAUNCH(name, argument_type)                                                                          \
    typedef struct name##_launch {                                                                           \
        uint32_t blocks, block_rows;                                                                         \
        argument_type a;                                                                                     \
    } name##_launch;                                                                                         \
    static void run_##name(mdm_gpu *gpu, const void *arguments);                                             \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const argument_type *given) {    \
        name##_launch launch = {.blocks = blocks, .block_rows = block_rows};                                 \
        launch.a = *given;                                                                                   \
        if (!is_recorded(gpu, #name, run_##name, &launch, sizeof launch, &gpu->counts.launches))             \
            run_##name(gpu, &launch);                                                                        \
    }                                                                                                        \
    static void run_##name(mdm_gpu *gpu, const void *launched)
#define TAKE_LAUNCH(name, argument_type)                                                                     \
    const argument_type a = ((const name##_launch *)launched)->a;                                            \
    const uint32_t blocks = ((const name##_launch *)launched)->blocks,                                       \
                   block_rows = ((const name##_launch *)launched)->block_rows

#define RUN_SIMPLE(name, arguments)                                                                          \
    LAUNCH(name, arguments) {                                                                                \
        TAKE_LAUNCH(name, arguments);                                                                        \
        check_grid(blocks, block_rows);                                                                      \
        set_lock(gpu, 0);                                                                                    \
        for (uint32_t row = 0; row < block_rows; row++)                                                      \
            for (uint32_t block = 0; block < blocks; block++)                                                \
                for (uint32_t thread = 0; thread < MDM_GPU_THREADS; thread++)                                \
                    mdm_##name##_thread(&a, (mdm_gpu_thread){block, thread, row});                           \
        set_lock(gpu, 1);                                                                                    \
    }
/* Shared memory begins with noise: a kernel may not count on zeros. */
#define RUN_SUMMING(name, arguments, rest)                                                                   \
    LAUNCH(name, arguments) {                                                                                \
        static double shared[MDM_GPU_SHARED];                                                                \
        TAKE_LAUNCH(name, arguments);                                                                        \
        check_grid(blocks, block_rows);                                                                      \
        set_lock(gpu, 0);                                                                                    \
        for (uint32_t row = 0; row < block_rows; row++)                                                      \
            for (uint32_t block = 0; block < blocks; block++) {                                              \
                memset(shared, 0x7f, sizeof shared);                                                         \
                for (uint32_t thread = 0; thread < MDM_GPU_THREADS; thread++)                                \
                    mdm_##name##_thread(&a, (mdm_gpu_thread){block, thread, row}, shared);                   \
                for (uint32_t thread = 0; thread < MDM_GPU_THREADS; thread++)                                \
                    mdm_##rest##_thread(&a, (mdm_gpu_thread){block, thread, row}, shared);                   \
            }                                                                                                \
        set_lock(gpu, 1);                                                                                    \
    }
#define RUN_ROWS(name, arguments, phases)                                                                    \
    LAUNCH(name, arguments) {                                                                                \
        static double shared[MDM_GPU_SLOTS * MDM_GPU_THREADS];                                               \
        TAKE_LAUNCH(name, arguments);                                                                        \
        check_grid(blocks, block_rows);                                                                      \
        set_lock(gpu, 0);                                                                                    \
        for (uint32_t row = 0; row < block_rows; row++)                                                      \
            for (uint32_t block = 0; block < blocks; block++) {                                              \
                memset(shared, 0x7f, sizeof shared);                                                         \
                for (int phase = 0; phase < (phases); phase++)                                               \
                    for (uint32_t thread = 0; thread < MDM_GPU_THREADS; thread++)                            \
                        mdm_##name##_thread(&a, (mdm_gpu_thread){block, thread, row}, phase, shared);        \
            }                                                                                                \
        set_lock(gpu, 1);                                                                                    \
    }
/* Every thread must see the same number of stages, or the device would wait for ever. */
#define RUN_STAGED(name, arguments, shared_memory)                                                           \
    LAUNCH(name, arguments) {                                                                                \
        static shared_memory shared;                                                                         \
        TAKE_LAUNCH(name, arguments);                                                                        \
        check_grid(blocks, block_rows);                                                                      \
        set_lock(gpu, 0);                                                                                    \
        for (uint32_t row = 0; row < block_rows; row++)                                                      \
            for (uint32_t block = 0; block < blocks; block++) {                                              \
                const uint32_t stages = mdm_##name##_stages(&a, (mdm_gpu_thread){block, 0, row});            \
                memset(&shared, 0x7f, sizeof shared);                                                        \
                for (uint32_t thread = 0; thread < MDM_GPU_THREADS; thread++)                                \
                    if (mdm_##name##_stages(&a, (mdm_gpu_thread){block, thread, row}) != stages) abort();    \
                for (uint32_t stage = 0; stage < stages; stage++)                                            \
                    for (uint32_t thread = 0; thread < MDM_GPU_THREADS; thread++)                            \
                        mdm_##name##_stage(&a, (mdm_gpu_thread){block, thread, row}, &shared, stage);        \
            }                                                                                                \
        set_lock(gpu, 1);                                                                                    \
    }
MDM_GPU_KERNELS(RUN_SIMPLE, RUN_SUMMING)
MDM_GPU_HEAD_KERNELS(RUN_SIMPLE, RUN_ROWS)
MDM_GPU_NEIGHBOUR_KERNELS(RUN_SIMPLE, RUN_STAGED)
MDM_GPU_MIXTURE_KERNELS(RUN_SIMPLE, RUN_STAGED)

/* All threads of a block go through one phase before any begins the next. */
#define RUN_PHASED(name, arguments)                                                                          \
    typedef struct name##_launch {                                                                           \
        uint32_t blocks;                                                                                     \
        size_t shared_bytes;                                                                                 \
        arguments a;                                                                                         \
    } name##_launch;                                                                                         \
    static void run_##name(mdm_gpu *gpu, const void *launched);                                              \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, size_t shared, const arguments *given) {              \
        name##_launch launch = {.blocks = blocks, .shared_bytes = shared};                                   \
        launch.a = *given;                                                                                   \
        if (!is_recorded(gpu, #name, run_##name, &launch, sizeof launch, &gpu->counts.launches))             \
            run_##name(gpu, &launch);                                                                        \
    }                                                                                                        \
    static void run_##name(mdm_gpu *gpu, const void *launched) {                                             \
        const arguments a = ((const name##_launch *)launched)->a;                                            \
        const uint32_t blocks = ((const name##_launch *)launched)->blocks;                                   \
        const size_t shared_bytes = ((const name##_launch *)launched)->shared_bytes;                         \
        uint8_t *shared = malloc(shared_bytes + 1);                                                          \
        check_grid(blocks, 1);                                                                               \
        if (!shared || shared_bytes > MDM_VIEW_SHARED) abort();                                              \
        set_lock(gpu, 0);                                                                                    \
        for (uint32_t block = 0; block < blocks; block++) {                                                  \
            memset(shared, CANARY, shared_bytes + 1);                                                        \
            for (uint32_t phase = 0; phase < mdm_##name##_phases(&a, block); phase++)                        \
                for (uint32_t thread = 0; thread < MDM_GPU_THREADS; thread++)                                \
                    mdm_##name##_phase(&a, (mdm_gpu_thread){block, thread, 0}, shared, phase);               \
            if (shared[shared_bytes] != CANARY) abort();                                                     \
        }                                                                                                    \
        set_lock(gpu, 1);                                                                                    \
        free(shared);                                                                                        \
    }
MDM_GPU_PHASED_KERNELS(RUN_PHASED)

/* What is computed happens at once. Uploads beside it happen as late as the marks allow, so that memory which
 * is changed too early shows. */
static void catch_up(mdm_gpu *gpu, int64_t sends) {
    pthread_mutex_lock(&gpu->lock);
    set_lock(gpu, 0);
    for (; gpu->done < sends; gpu->done++) {
        send *s = &gpu->sends[gpu->done % WAITING];
        memcpy(s->memory, s->pinned, s->bytes);
    }
    set_lock(gpu, 1);
    pthread_mutex_unlock(&gpu->lock);
}

mdm_status mdm_gpu_pin(mdm_gpu *gpu, size_t bytes, const char *what, void **host) {
    refuse_in_graph(gpu, "memory is allocated");
    *host = NULL;
    MDM_TRY(tell_loss(gpu, what));
    return mdm_allocate(host, (long long)bytes + 1, 1, what);
}

void mdm_gpu_unpin(mdm_gpu *gpu, void *host) {
    if (host) gpu->frees++;
    free(host);
}

mdm_status mdm_gpu_send(mdm_gpu *gpu, mdm_gpu_queue queue, void *memory, const void *pinned, size_t bytes) {
    MDM_TRY(count_call(gpu, "send", "an upload"));
    if (queue == MDM_GPU_COMPUTING) {
        queue_copy(gpu, (copy_call){memory, pinned, bytes}, &gpu->counts.uploads);
        return MDM_OK;
    }
    pthread_mutex_lock(&gpu->lock);
    if (gpu->sent - gpu->done == WAITING) abort();
    gpu->sends[gpu->sent++ % WAITING] = (send){memory, pinned, bytes};
    pthread_mutex_unlock(&gpu->lock);
    return MDM_OK;
}

mdm_status mdm_gpu_create_mark(mdm_gpu *gpu, mdm_gpu_mark **mark) {
    (void)gpu;
    return MDM_ALLOCATE(*mark, 1, "a mark");
}

void mdm_gpu_destroy_mark(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    if (mark) catch_up(gpu, mark->sent);
    free(mark);
}

typedef struct mark_call {
    mdm_gpu_queue queue;
    mdm_gpu_mark *mark;
} mark_call;

static void run_record(mdm_gpu *gpu, const void *arguments) {
    const mark_call *c = arguments;
    pthread_mutex_lock(&gpu->lock);
    if (c->queue == MDM_GPU_SENDING) c->mark->sent = gpu->sent;
    if (c->queue == MDM_GPU_COMMUNICATING) c->mark->worked = gpu->communicating.queued;
    pthread_mutex_unlock(&gpu->lock);
}

static void run_follow(mdm_gpu *gpu, const void *arguments) {
    const mark_call *c = arguments;
    if (c->queue != MDM_GPU_COMPUTING) return;
    catch_up(gpu, c->mark->sent);
    run_works(&gpu->communicating, c->mark->worked);
}

/* Sends are never part of a graph: another thread queues them. */
static mdm_status queue_mark(mdm_gpu *gpu, void (*run)(mdm_gpu *, const void *), mark_call c) {
    MDM_TRY(tell_loss(gpu, "recording an event"));
    if (c.queue == MDM_GPU_SENDING || !is_recorded(gpu, "mark", run, &c, sizeof c, &gpu->counts.marks))
        run(gpu, &c);
    return MDM_OK;
}

mdm_status mdm_gpu_record(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    return queue_mark(gpu, run_record, (mark_call){queue, mark});
}

mdm_status mdm_gpu_follow(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    return queue_mark(gpu, run_follow, (mark_call){queue, mark});
}

mdm_status mdm_gpu_await(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    refuse_in_graph(gpu, "the host waits");
    MDM_TRY(count_call(gpu, "wait", "what was queued before an event"));
    pthread_mutex_lock(&gpu->lock);
    int behind = gpu->done < mark->sent;
    pthread_mutex_unlock(&gpu->lock);
    if (behind) catch_up(gpu, mark->sent);
    return MDM_OK;
}

mdm_status mdm_gpu_plan_convolution(mdm_gpu *gpu, const mdm_gpu_convolution *convolution,
                                    mdm_gpu_plan **plan) {
    if (convolution->in % MDM_GPU_LANES || convolution->out % MDM_GPU_LANES)
        return mdm_fail(MDM_LOST, "channels are not in whole blocks");
    MDM_TRY(MDM_ALLOCATE(*plan, 1, "a plan"));
    (*plan)->kind = *convolution;
    (*plan)->next = gpu->plans;
    gpu->plans = *plan;
    return MDM_OK;
}

/* Nothing was measured; the file that MDM_EMULATED_KEPT names tells that it was asked for. */
void mdm_gpu_keep_plans(mdm_gpu *gpu) {
    const char *path = getenv("MDM_EMULATED_KEPT");
    FILE *file = path ? fopen(path, "w") : NULL;
    (void)gpu;
    if (file) fclose(file);
}

static float get(const void *tensor, size_t i, int bf16) {
    return bf16 ? mdm_float_of_bf16(((const uint16_t *)tensor)[i]) : ((const float *)tensor)[i];
}

static void put(void *tensor, size_t i, int bf16, float value) {
    if (bf16)
        ((uint16_t *)tensor)[i] = (uint16_t)mdm_bf16_of(value);
    else
        ((float *)tensor)[i] = value;
}

/* Everything a pass reads, as floats; what it writes is summed in `result`. */
typedef struct operands {
    float *x, *w, *y;
    size_t x_count, w_count, y_count;
    int out_height, out_width;
} operands;

static float *floats_of(const void *tensor, size_t count, int bf16, int is_read) {
    float *values = calloc(count + 1, sizeof *values);
    if (!values) abort();
    for (size_t i = 0; is_read && i < count; i++) values[i] = get(tensor, i, bf16);
    return values;
}

/* One output pixel with one tap of the filter. */
static void convolve_tap(const mdm_gpu_convolution *k, const operands *o, size_t y, size_t x, size_t tap) {
    size_t taps = (size_t)k->kernel * (size_t)k->kernel, in = (size_t)k->in;
    for (size_t c = 0; c < (size_t)k->out; c++) {
        float *w = o->w + (c * taps + tap) * in, *from = o->x + x * in, *to = o->y + y * (size_t)k->out + c;
        if (k->pass == MDM_GPU_FORWARD) {
            float sum = 0;
            for (size_t i = 0; i < in; i++) sum += from[i] * w[i];
            *to += sum;
        } else if (k->pass == MDM_GPU_BACKWARD_DATA) {
            for (size_t i = 0; i < in; i++) from[i] += *to * w[i];
        } else {
            for (size_t i = 0; i < in; i++) w[i] += *to * from[i];
        }
    }
}

static void convolve(const mdm_gpu_convolution *k, const operands *o) {
    int pad = k->kernel / 2;
    for (int n = 0; n < k->batch; n++)
        for (int i = 0; i < o->out_height; i++)
            for (int j = 0; j < o->out_width; j++)
                for (int tap = 0; tap < k->kernel * k->kernel; tap++) {
                    int row = i * k->stride + tap / k->kernel - pad,
                        column = j * k->stride + tap % k->kernel - pad;
                    if (row < 0 || column < 0 || row >= k->height || column >= k->width) continue;
                    convolve_tap(
                        k, o,
                        ((size_t)n * (size_t)o->out_height + (size_t)i) * (size_t)o->out_width + (size_t)j,
                        ((size_t)n * (size_t)k->height + (size_t)row) * (size_t)k->width + (size_t)column,
                        (size_t)tap);
                }
}

typedef struct convolve_call {
    mdm_gpu_plan *plan;
    void *x, *filter, *y;
} convolve_call;

static void run_convolve(mdm_gpu *gpu, const void *arguments) {
    const convolve_call *given = arguments;
    const mdm_gpu_convolution *k = &given->plan->kind;
    void *x = given->x, *filter = given->filter, *y = given->y;
    int bf16 = k->precision == MDM_BF16, pad = k->kernel / 2;
    operands o = {.out_height = (k->height + 2 * pad - k->kernel) / k->stride + 1,
                  .out_width = (k->width + 2 * pad - k->kernel) / k->stride + 1};
    o.x_count = (size_t)k->batch * (size_t)k->height * (size_t)k->width * (size_t)k->in;
    o.y_count = (size_t)k->batch * (size_t)o.out_height * (size_t)o.out_width * (size_t)k->out;
    o.w_count = (size_t)k->out * (size_t)k->in * (size_t)k->kernel * (size_t)k->kernel;
    set_lock(gpu, 0);
    o.x = floats_of(x, o.x_count, bf16, k->pass != MDM_GPU_BACKWARD_DATA);
    o.w = floats_of(filter, o.w_count, bf16, k->pass != MDM_GPU_BACKWARD_FILTER);
    o.y = floats_of(y, o.y_count, bf16, k->pass != MDM_GPU_FORWARD);
    convolve(k, &o);
    for (size_t i = 0; k->pass == MDM_GPU_FORWARD && i < o.y_count; i++) put(y, i, bf16, o.y[i]);
    for (size_t i = 0; k->pass == MDM_GPU_BACKWARD_DATA && i < o.x_count; i++) put(x, i, bf16, o.x[i]);
    for (size_t i = 0; k->pass == MDM_GPU_BACKWARD_FILTER && i < o.w_count; i++) put(filter, i, bf16, o.w[i]);
    set_lock(gpu, 1);
    free(o.x);
    free(o.w);
    free(o.y);
}

mdm_status mdm_gpu_convolve(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    const convolve_call given = {plan, x, filter, y};
    MDM_TRY(tell_loss(gpu, "a convolution"));
    if (!is_recorded(gpu, "convolution", run_convolve, &given, sizeof given, &gpu->counts.launches))
        run_convolve(gpu, &given);
    return MDM_OK;
}

mdm_status mdm_gpu_plan_product(mdm_gpu *gpu, const mdm_product_shape *shape, mdm_gpu_product **product) {
    MDM_TRY(MDM_ALLOCATE(*product, 1, "a product"));
    (*product)->shape = *shape;
    (*product)->next = gpu->products;
    gpu->products = *product;
    return MDM_OK;
}

/* Element (row, column) of a factor. */
static float element(const void *matrix, mdm_column_matrix m, int row, int column, mdm_precision precision) {
    int i = m.is_transposed ? column : row, j = m.is_transposed ? row : column;
    if (i >= m.rows || j >= m.columns) abort();
    size_t at = (size_t)j * (size_t)m.rows + (size_t)i;
    return precision == MDM_FP16 ? mdm_float_of_half(((const uint16_t *)matrix)[at])
                                 : get(matrix, at, precision == MDM_BF16);
}

/* A factor as floats [lines, length]: the first's rows, or the second's columns. */
static float *lines_of(const void *matrix, mdm_column_matrix m, mdm_precision precision, int lines,
                       int length, int is_second) {
    float *values = calloc((size_t)lines * (size_t)length, sizeof *values), *next = values;
    if (!values) abort();
    for (int i = 0; i < lines; i++)
        for (int k = 0; k < length; k++)
            *next++ = element(matrix, m, is_second ? k : i, is_second ? i : k, precision);
    return values;
}

typedef struct multiply_call {
    mdm_gpu_product *product;
    float alpha, beta;
    const void *a, *b;
    const float *bias;
    float *c;
} multiply_call;

/* By columns, as the library does. */
static void run_multiply(mdm_gpu *gpu, const void *arguments) {
    const multiply_call *given = arguments;
    const mdm_product_shape *s = &given->product->shape;
    const float alpha = given->alpha, beta = given->beta, *bias = given->bias;
    const mdm_product_layout layout = mdm_layout_of_product(s);
    int rows = layout.result.rows, columns = layout.result.columns;
    set_lock(gpu, 0);
    float *c = given->c, *first = lines_of(given->b, layout.first, s->precision, rows, s->k, 0),
          *second = lines_of(given->a, layout.second, s->precision, columns, s->k, 1);
    for (int j = 0; j < columns; j++)
        for (int i = 0; i < rows; i++) {
            float sum = 0, *out = c + (size_t)j * (size_t)rows + (size_t)i;
            const float *x = first + (size_t)i * (size_t)s->k, *y = second + (size_t)j * (size_t)s->k;
            for (int k = 0; k < s->k; k++) sum += x[k] * y[k];
            sum *= alpha;
            if (beta != 0.0f) sum += beta * *out;
            *out = sum + (s->has_bias ? bias[i] : 0.0f);
        }
    set_lock(gpu, 1);
    free(first);
    free(second);
}

mdm_status mdm_gpu_multiply(mdm_gpu *gpu, mdm_gpu_product *product, float alpha, const void *a, const void *b,
                            float beta, const float *bias, float *c) {
    const multiply_call given = {product, alpha, beta, a, b, bias, c};
    MDM_TRY(tell_loss(gpu, "a product"));
    if (!is_recorded(gpu, "product", run_multiply, &given, sizeof given, &gpu->counts.launches))
        run_multiply(gpu, &given);
    return MDM_OK;
}
