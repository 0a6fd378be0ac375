/* The CUDA backend's machine, emulated: every thread of every launch runs on the CPU, over memory that is
 * locked at all other times, so that host code which touches device memory, and kernels that touch host
 * memory's neighbours, end the test. Convolutions and products are plain loops, those of convolutions in
 * another order for each number of pictures, as a library's plans are others. What this cannot show is the
 * real device, cuDNN and the driver. The emulated_*.c files stand in for
 * src/device/cuda/{runtime,graph,convolutions,products}.c and *kernels.cu by being linked first.
 * MDM_EMULATED_MIB sets how much memory the device says it has.
 *
 * Calls are queued, and run when the host waits for them, in an order of many that the marks permit; what a
 * result owes to another order than that of the marks shows as another result. MDM_EMULATED_ORDER chooses it:
 *
 * late (the default)  nothing runs before somebody waits for it, and only what is needed for that; sends and
 *                     what communicates come as late as that allows. Shows what does not follow them, and
 *                     host code that changes page-locked memory too soon, or reads before it has waited.
 * computing-last      the same, but sends and what communicates come before what is computed, as early as
 *                     marks allow. Shows what of them does not follow what is computed.
 * early               every call runs at once, unless marks forbid it. Shows what is sent before it is there.
 * random:SEED         a few calls at every turn, of any queue; also in the ranks' orders.
 *
 * Blocks of a launch, and threads in each phase, come in descending order in the first two, in ascending
 * order in the third, in a random one in the fourth. The results of all must be the same bits. What no order
 * shows, ThreadSanitizer does (emulated_races.h). The host's waits wait for what runtime.c's wait for, and
 * for nothing else.
 *
 * Graphs: emulated_graph.c. MDM_EMULATED_GRAPHS=refused lets every graph fail at its end; "broken 1": on
 * rank 1 a graph is broken off at its 40th call, and no collective may be recorded from there on;
 * "divided 1 20": it refuses its 20th launch of one. The file that MDM_EMULATED_COUNTS names is told, at the
 * end, how often what was called of device 0.
 *
 * MDM_EMULATED_LOST names a kind of call, and MDM_EMULATED_LOST_AT which one of it, from 1: there the device
 * is lost, on rank MDM_EMULATED_LOST_RANK of Open MPI's launcher only, where that is set. Nothing runs on it
 * from then on, and every later call that can fail says so, as CUDA does. Kinds: the name of a kernel, copy,
 * convolution, product, collective, which are lost when their turn comes, and mark, upload, download, send,
 * wait, allocation, recording (its beginning), recorded (its end), graph, which are lost when they are
 * called. The file that MDM_EMULATED_LOST_HITS names is made when it happens.
 */
#include "emulated_gpu.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, MOST_OPEN = 8 };

static mdm_gpu *open_devices[MOST_OPEN];

void emulated_refuse(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "the emulated device: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

void emulated_set_lock(mdm_gpu *gpu, int locked) {
    for (int i = 0; i < gpu->count; i++)
        if (mprotect(gpu->blocks[i].pages, gpu->blocks[i].length,
                     locked ? PROT_NONE : PROT_READ | PROT_WRITE))
            abort();
}

/* ---- the loss of the device ---- */

void emulated_lose(mdm_gpu *gpu) {
    const char *hits = getenv("MDM_EMULATED_LOST_HITS");
    gpu->is_lost = 1;
    FILE *file = hits ? fopen(hits, "w") : NULL;
    if (file) fclose(file);
}

int emulated_is_doomed(mdm_gpu *gpu, const char *kind) {
    return gpu->doom && strcmp(gpu->doom, kind) == 0 && ++gpu->doom_calls == gpu->doom_at;
}

mdm_status emulated_tell_loss(const mdm_gpu *gpu, const char *what) {
    if (!gpu->is_lost) return MDM_OK;
    return mdm_gpu_failed(gpu->number, what, "an illegal memory access was encountered",
                          "cudaErrorIllegalAddress");
}

mdm_status emulated_count_call(mdm_gpu *gpu, const char *kind, const char *what) {
    if (emulated_is_doomed(gpu, kind)) emulated_lose(gpu);
    return emulated_tell_loss(gpu, what);
}

static void prepare_loss(mdm_gpu *gpu) {
    const char *kind = getenv("MDM_EMULATED_LOST"), *at = getenv("MDM_EMULATED_LOST_AT"),
               *rank = getenv("MDM_EMULATED_LOST_RANK"), *mine = getenv("OMPI_COMM_WORLD_RANK");
    if (!kind || !at || (rank && strcmp(rank, mine ? mine : "0") != 0)) return;
    gpu->doom = kind;
    gpu->doom_at = atol(at);
}

mdm_status mdm_gpu_check_device(mdm_gpu *gpu, const char *what) {
    MDM_TRY(emulated_tell_loss(gpu, what));
    return emulated_is_broken(gpu)
               ? mdm_gpu_failed(gpu->number, what, "the graph was broken off", "as it was told to")
               : MDM_OK;
}

void mdm_gpu_set_guard(mdm_gpu *gpu, const mdm_gpu_guard *guard) {
    gpu->guard = guard ? *guard : (mdm_gpu_guard){0};
}

void mdm_gpu_give_up(mdm_gpu *gpu) {
    gpu->is_stuck = 1;
}

/* ---- beginning and end ---- */

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

static void note_open(const mdm_gpu *before, mdm_gpu *now) {
    for (int i = 0; i < MOST_OPEN; i++)
        if (open_devices[i] == before) {
            open_devices[i] = now;
            return;
        }
    emulated_refuse("more than %d are open", MOST_OPEN);
}

void emulated_go_on_beside_mpi(void) {
    for (int i = 0; i < MOST_OPEN; i++)
        if (open_devices[i] && !open_devices[i]->is_deserted) emulated_wait_for_works(open_devices[i]);
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
    prepare_loss(*gpu);
    emulated_open_queues(*gpu);
    note_open(NULL, *gpu);
    return MDM_OK;
}

mdm_status mdm_gpu_enter(mdm_gpu *gpu) {
    (void)gpu;
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
    note_open(gpu, NULL);
    emulated_close_queues(gpu);
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
    free(gpu);
}

/* ---- memory ---- */

/* What memory holds before it has been zeroed, as far as it may be touched. */
static void fill_with_noise(allocation *b, size_t bytes) {
    enum { MOST_NOISE = 1 << 16 };
    if (mprotect(b->pages, b->length, PROT_READ | PROT_WRITE)) abort();
    memset(b->memory, EMULATED_CANARY, bytes < MOST_NOISE ? bytes : MOST_NOISE);
    if (mprotect(b->pages, b->length, PROT_NONE)) abort();
}

typedef struct clear_call {
    char *memory;
    size_t bytes;
} clear_call;

/* Whole pages are dropped, which makes zeros of them when they are needed. */
static void run_clear(mdm_gpu *gpu, const void *arguments) {
    const clear_call *c = arguments;
    size_t before = (PAGE - (uintptr_t)c->memory % PAGE) % PAGE;
    (void)gpu;
    if (before > c->bytes) before = c->bytes;
    memset(c->memory, 0, before);
    if (c->bytes > before && madvise(c->memory + before, c->bytes - before, MADV_DONTNEED)) abort();
    emulated_note_written(c->memory, c->bytes);
}

/* The memory ends where a locked page begins. It is zeroed in the queue of what is computed. */
mdm_status mdm_gpu_allocate(mdm_gpu *gpu, size_t bytes, const char *what, void **memory) {
    size_t wanted = (bytes + 15) / 16 * 16, length = (wanted + PAGE - 1) / PAGE * PAGE + PAGE;
    emulated_refuse_in_graph(gpu, "memory is allocated");
    *memory = NULL;
    MDM_TRY(emulated_count_call(gpu, "allocation", what));
    char *pages = mmap(NULL, length + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED || gpu->count == EMULATED_MOST)
        return mdm_fail(MDM_RESOURCE, "not enough emulated memory for %s", what);
    pthread_mutex_lock(&gpu->lock);
    allocation *b = &gpu->blocks[gpu->count++];
    *b = (allocation){pages, pages + length - wanted, length};
    *memory = b->memory;
    gpu->counts.bytes += (int64_t)wanted;
    if (gpu->counts.bytes > gpu->counts.most_bytes) gpu->counts.most_bytes = gpu->counts.bytes;
    fill_with_noise(b, wanted);
    pthread_mutex_unlock(&gpu->lock);
    emulated_queue_call(gpu, "", run_clear, &(clear_call){*memory, wanted}, sizeof(clear_call), NULL);
    return MDM_OK;
}

void mdm_gpu_free(mdm_gpu *gpu, void *memory) {
    if (!memory) return;
    emulated_refuse_in_graph(gpu, "memory is freed");
    emulated_wait_for_all(gpu);
    gpu->frees++;
    for (int i = 0; i < gpu->count; i++)
        if (gpu->blocks[i].memory == (char *)memory) {
            gpu->counts.bytes -= gpu->blocks[i].pages + gpu->blocks[i].length - gpu->blocks[i].memory;
            unmap(&gpu->blocks[i]);
            gpu->blocks[i] = gpu->blocks[--gpu->count];
            return;
        }
    emulated_refuse("memory that was never allocated is freed");
}

int64_t mdm_gpu_frees(const mdm_gpu *gpu) {
    return gpu->frees;
}

mdm_status mdm_gpu_pin(mdm_gpu *gpu, size_t bytes, const char *what, void **host) {
    emulated_refuse_in_graph(gpu, "memory is allocated");
    *host = NULL;
    MDM_TRY(emulated_tell_loss(gpu, what));
    return mdm_allocate(host, (long long)bytes + 1, 1, what);
}

void mdm_gpu_unpin(mdm_gpu *gpu, void *host) {
    if (!host) return;
    emulated_refuse_in_graph(gpu, "memory is freed");
    emulated_wait_for_all(gpu);
    gpu->frees++;
    free(host);
}

/* ---- transfers ---- */

/* What is computed, and what that follows, has been done afterwards; somebody may look after the wait. */
static mdm_status wait_for_computing(mdm_gpu *gpu) {
    const mdm_gpu_guard *g = &gpu->guard;
    mdm_status status = MDM_OK;
    if (g->look) g->begin(g->context);
    emulated_wait_for_queue(gpu, MDM_GPU_COMPUTING);
    while (g->look && gpu->is_stuck && status == MDM_OK) status = g->look(g->context);
    if (g->look) g->end(g->context);
    return status;
}

static void copy_now(mdm_gpu *gpu, void *to, const void *from, size_t bytes) {
    pthread_mutex_lock(&gpu->lock);
    emulated_set_lock(gpu, 0);
    memcpy(to, from, bytes);
    emulated_set_lock(gpu, 1);
    pthread_mutex_unlock(&gpu->lock);
}

mdm_status mdm_gpu_upload(mdm_gpu *gpu, void *memory, const void *host, size_t bytes) {
    emulated_refuse_in_graph(gpu, "an upload");
    gpu->counts.uploads++;
    MDM_TRY(wait_for_computing(gpu));
    MDM_TRY(emulated_count_call(gpu, "upload", "an upload"));
    copy_now(gpu, memory, host, bytes);
    return MDM_OK;
}

mdm_status mdm_gpu_download(mdm_gpu *gpu, void *host, const void *memory, size_t bytes) {
    emulated_refuse_in_graph(gpu, "a download");
    gpu->counts.downloads++;
    MDM_TRY(wait_for_computing(gpu));
    MDM_TRY(emulated_count_call(gpu, "download", "what was queued before a download"));
    copy_now(gpu, host, memory, bytes);
    return MDM_OK;
}

void mdm_gpu_zero(mdm_gpu *gpu, void *memory, size_t bytes) {
    emulated_queue_copy(gpu, MDM_GPU_COMPUTING, memory, NULL, bytes, &gpu->counts.launches);
}

void mdm_gpu_copy(mdm_gpu *gpu, void *to, const void *from, size_t bytes) {
    emulated_queue_copy(gpu, MDM_GPU_COMPUTING, to, from, bytes, &gpu->counts.launches);
}

mdm_status mdm_gpu_send(mdm_gpu *gpu, mdm_gpu_queue queue, void *memory, const void *pinned, size_t bytes) {
    MDM_TRY(emulated_count_call(gpu, "send", "an upload"));
    emulated_queue_copy(gpu, queue, memory, pinned, bytes,
                        queue == MDM_GPU_COMPUTING ? &gpu->counts.uploads : NULL);
    return MDM_OK;
}
