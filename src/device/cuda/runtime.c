/* A CUDA device: found, opened, its memory handed out, its failures told. */
#include "runtime.h"
#include "cublaslt.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Compute capabilities: tensor cores that know bfloat16; kernels that wait for the one in front. */
enum { LEAST_MAJOR = 8, EARLY_MAJOR = 9 };

void mdm_gpu_note(mdm_gpu *gpu, cudaError_t code, const char *what) {
    if (code == cudaSuccess || gpu->failure != cudaSuccess) return;
    gpu->failure = code;
    gpu->failed_in = what;
}

mdm_status mdm_gpu_check(mdm_gpu *gpu, cudaError_t code, const char *what) {
    if (gpu->failure != cudaSuccess) {
        code = gpu->failure;
        what = gpu->failed_in;
    }
    if (code == cudaSuccess) return MDM_OK;
    return mdm_gpu_failed(gpu->number, what, cudaGetErrorString(code), cudaGetErrorName(code));
}

/* A query's "not ready" would stay behind as the thread's last error, which every launch looks at. */
static cudaError_t answer_of(cudaError_t code) {
    if (code == cudaErrorNotReady) (void)cudaGetLastError();
    return code;
}

static cudaError_t ask_stream(mdm_gpu *gpu) {
    return answer_of(cudaStreamQuery(gpu->stream));
}

/* A query would spoil a recording, which may be asked whether it is spoilt already. */
static cudaError_t ask_recording(mdm_gpu *gpu) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusActive;
    cudaError_t code = cudaStreamIsCapturing(gpu->stream, &capture);
    return code == cudaSuccess && capture != cudaStreamCaptureStatusActive ? cudaErrorStreamCaptureInvalidated
                                                                           : code;
}

mdm_status mdm_gpu_check_device(mdm_gpu *gpu, const char *what) {
    cudaError_t code = gpu->is_recording ? ask_recording(gpu) : ask_stream(gpu);
    return mdm_gpu_check(gpu, code == cudaErrorNotReady ? cudaSuccess : code, what);
}

/* Why there is no device, as far as it is not plain that there is none: 0 is that. */
static int explain(cudaError_t code, char *why, size_t why_size) {
    int driver = 0, major = CUDART_VERSION / 1000;
    const char *none = NULL;
    if (code == cudaSuccess || code == cudaErrorNoDevice) none = "there is no CUDA device here";
    if (code == cudaErrorInsufficientDriver && (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0))
        none = "there is no NVIDIA driver here";
    if (none)
        snprintf(why, why_size, "%s", none);
    else if (code == cudaErrorInsufficientDriver)
        snprintf(
            why, why_size,
            "the NVIDIA driver is one for CUDA %d.%d, this program needs CUDA %d: install a newer driver or "
            "the package cuda-compat-%d-%d, or build with CUDA %d",
            driver / 1000, driver % 1000 / 10, major, major, CUDART_VERSION % 1000 / 10, driver / 1000);
    else
        snprintf(why, why_size, "%s (%s)%s", cudaGetErrorString(code), cudaGetErrorName(code),
                 code == cudaErrorSystemNotReady
                     ? "; on a node with NVSwitch the service nvidia-fabricmanager has to run"
                     : "");
    return !none;
}

int mdm_gpu_count(char *why, size_t why_size, int *is_unusable) {
    char unused[1];
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (is_unusable) *is_unusable = 0;
    if (code == cudaSuccess && count > 0) return count;
    int is_there = explain(code, why ? why : unused, why ? why_size : sizeof unused);
    if (is_unusable) *is_unusable = is_there;
    (void)cudaGetLastError(); /* not left for a later check */
    return 0;
}

static mdm_status read_properties(int number, struct cudaDeviceProp *properties) {
    char why[256] = "there are fewer devices";
    int count = mdm_gpu_count(why, sizeof why, NULL);
    if (number < 0 || number >= count) return mdm_fail(MDM_RESOURCE, "no CUDA device %d: %s", number, why);
    cudaError_t code = cudaGetDeviceProperties(properties, number);
    if (code == cudaSuccess) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "CUDA device %d does not answer: %s (%s)", number, cudaGetErrorString(code),
                    cudaGetErrorName(code));
}

mdm_status mdm_gpu_identify(int number, unsigned char identity[MDM_DEVICE_IDENTITY]) {
    struct cudaDeviceProp properties;
    MDM_TRY(read_properties(number, &properties));
    memcpy(identity, properties.uuid.bytes, MDM_DEVICE_IDENTITY);
    return MDM_OK;
}

static mdm_status check_cudnn(mdm_gpu *gpu, cudnnStatus_t code, const char *what) {
    char text[256] = ""; /* which of its libraries it does not find */
    if (code == CUDNN_STATUS_SUCCESS) return MDM_OK;
    MDM_TRY(mdm_gpu_check_device(gpu, what));
    gpu->cudnn->cudnnGetLastErrorString(text, sizeof text);
    return mdm_fail(MDM_RESOURCE, "cuDNN failed in %s on device %d: %s %s", what, gpu->number,
                    gpu->cudnn->cudnnGetErrorString(code), text);
}

static mdm_status start_cublaslt(mdm_gpu *gpu) {
    cublasStatus_t code = gpu->cublaslt->cublasLtCreate(&gpu->cublaslt_handle);
    if (code == CUBLAS_STATUS_SUCCESS) return MDM_OK;
    MDM_TRY(mdm_gpu_check_device(gpu, "the start of cuBLASLt"));
    return mdm_fail(MDM_RESOURCE, "cuBLASLt failed in its start on device %d: %s", gpu->number,
                    gpu->cublaslt->cublasLtGetStatusString(code));
}

/* The cache of plans for this kind of device: all that the speed of an engine depends on, the driver apart.
 */
static mdm_status open_cache(mdm_gpu *gpu, const struct cudaDeviceProp *p) {
    char folder[1024], machine[240];
    mdm_plan_cache_folder(folder, sizeof folder);
    snprintf(machine, sizeof machine,
             "cuDNN %zu, %.100s, sm_%d%d, %d multiprocessors, L2 %d, bus %d, shared memory %zu",
             gpu->cudnn->cudnnGetVersion(), p->name, p->major, p->minor, p->multiProcessorCount,
             p->l2CacheSize, p->memoryBusWidth, p->sharedMemPerBlockOptin);
    return mdm_plan_cache_open(folder, machine, &gpu->cache);
}

/* The first call that needs the device: it makes a context there. */
static mdm_status choose_first(int number, const char *name) {
    cudaError_t code = cudaSetDevice(number);
    if (code == cudaSuccess) return MDM_OK;
    (void)cudaGetLastError();
    return mdm_fail(
        MDM_RESOURCE, "CUDA device %d (%s) cannot be opened: %s (%s)%s", number, name,
        cudaGetErrorString(code), cudaGetErrorName(code),
        code == cudaErrorDevicesUnavailable
            ? "; another process may have it to itself (nvidia-smi -q -d COMPUTE tells the compute "
              "mode), a choice of another is CUDA_VISIBLE_DEVICES"
        : code == cudaErrorMemoryAllocation ? "; nvidia-smi tells which processes have its memory"
                                            : "");
}

static mdm_status start(mdm_gpu *gpu, int number, mdm_gpu_info *info) {
    struct cudaDeviceProp properties;
    int runtime = 0;
    MDM_TRY(read_properties(number, &properties));
    gpu->number = number;
    if (properties.major < LEAST_MAJOR)
        return mdm_fail(MDM_RESOURCE,
                        "CUDA device %d (%s) has compute capability %d.%d; %d.0 (A100) or newer is needed",
                        number, properties.name, properties.major, properties.minor, LEAST_MAJOR);
    MDM_TRY(mdm_cudnn_load(&gpu->cudnn));
    MDM_TRY(mdm_cublaslt_load(&gpu->cublaslt));
    MDM_TRY(choose_first(number, properties.name));
    MDM_TRY(mdm_gpu_check(gpu, cudaStreamCreateWithFlags(&gpu->stream, cudaStreamNonBlocking), "a stream"));
    MDM_TRY(mdm_gpu_check(gpu, cudaStreamCreateWithFlags(&gpu->sending, cudaStreamNonBlocking), "a stream"));
    MDM_TRY(mdm_gpu_check(gpu, cudaStreamCreateWithFlags(&gpu->communicating, cudaStreamNonBlocking),
                          "a stream"));
    MDM_TRY(mdm_gpu_check(gpu, cudaStreamCreateWithFlags(&gpu->beside, cudaStreamNonBlocking), "a stream"));
    gpu->queued_to = gpu->stream;
    gpu->can_launch_early = properties.major >= EARLY_MAJOR && mdm_gpu_kernels_wait();
    MDM_TRY(mdm_gpu_check(gpu, cudaEventCreate(&gpu->begin), "an event"));
    MDM_TRY(mdm_gpu_check(gpu, cudaEventCreate(&gpu->end), "an event"));
    MDM_TRY(check_cudnn(gpu, gpu->cudnn->cudnnCreate(&gpu->handle), "its start"));
    MDM_TRY(check_cudnn(gpu, gpu->cudnn->cudnnSetStream(gpu->handle, gpu->stream), "taking a stream"));
    MDM_TRY(start_cublaslt(gpu));
    MDM_TRY(open_cache(gpu, &properties));
    (void)cudaRuntimeGetVersion(&runtime);
    size_t version = gpu->cudnn->cudnnGetVersion();
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "%.120s", properties.name);
    snprintf(info->library, sizeof info->library, "cuDNN %zu.%zu.%zu, CUDA %d.%d", version / 10000,
             version / 100 % 100, version % 100, runtime / 1000, runtime % 1000 / 10);
    snprintf(info->instructions, sizeof info->instructions, "sm_%d%d", properties.major, properties.minor);
    info->memory_bytes = properties.totalGlobalMem;
    return MDM_OK;
}

mdm_status mdm_gpu_open(int number, mdm_gpu **out, mdm_gpu_info *info) {
    mdm_gpu *gpu;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(gpu, 1, "the CUDA device"));
    mdm_status status = start(gpu, number, info);
    if (status != MDM_OK) {
        mdm_gpu_close(gpu);
        return status;
    }
    *out = gpu;
    return MDM_OK;
}

/* What fails while closing is past mending. */
void mdm_gpu_close(mdm_gpu *gpu) {
    if (gpu->is_given_up) return; /* the process is about to end */
    if (gpu->sending) (void)cudaStreamSynchronize(gpu->sending);
    if (gpu->stream) (void)cudaStreamSynchronize(gpu->stream);
    mdm_gpu_release_plans(gpu);
    mdm_gpu_release_products(gpu);
    mdm_plan_cache_close(gpu->cache);
    mdm_gpu_free(gpu, gpu->workspace.memory);
    mdm_gpu_free(gpu, gpu->workspace_beside.memory);
    if (gpu->handle) (void)gpu->cudnn->cudnnDestroy(gpu->handle);
    if (gpu->cublaslt_handle) (void)gpu->cublaslt->cublasLtDestroy(gpu->cublaslt_handle);
    if (gpu->begin) (void)cudaEventDestroy(gpu->begin);
    if (gpu->end) (void)cudaEventDestroy(gpu->end);
    if (gpu->stream) (void)cudaStreamDestroy(gpu->stream);
    if (gpu->sending) (void)cudaStreamDestroy(gpu->sending);
    if (gpu->communicating) (void)cudaStreamDestroy(gpu->communicating);
    if (gpu->beside) (void)cudaStreamDestroy(gpu->beside);
    free(gpu);
}

static mdm_status out_of_memory(mdm_gpu *gpu, size_t bytes, const char *what) {
    const double mebibyte = 1 << 20;
    size_t left = 0, total = 0;
    (void)cudaGetLastError(); /* this failure is told here; the device is sound */
    (void)cudaMemGetInfo(&left, &total);
    return mdm_fail(
        MDM_RESOURCE,
        "not enough memory on CUDA device %d for %s: %.0f MiB wanted, %.0f of %.0f MiB free; a smaller "
        "train.batch, pretrain.batch or model.width, or more ranks, would shrink it",
        gpu->number, what, (double)bytes / mebibyte, (double)left / mebibyte, (double)total / mebibyte);
}

mdm_status mdm_gpu_allocate(mdm_gpu *gpu, size_t bytes, const char *what, void **memory) {
    *memory = NULL;
    MDM_TRY(mdm_gpu_check(gpu, cudaSuccess, what));
    size_t rounded = bytes > 0 ? (bytes + 255) / 256 * 256 : 256;
    cudaError_t code = cudaMalloc(memory, rounded);
    if (code == cudaErrorMemoryAllocation) return out_of_memory(gpu, rounded, what);
    MDM_TRY(mdm_gpu_check(gpu, code, what));
    mdm_gpu_zero(gpu, *memory, rounded);
    return MDM_OK;
}

/* CUDA says that cudaFree may wait for what is queued, and nothing of the kind of cudaFreeHost. */
static void wait_before_freeing(mdm_gpu *gpu) {
    cudaStream_t streams[] = {gpu->stream, gpu->sending, gpu->communicating, gpu->beside};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        mdm_gpu_note(gpu, cudaStreamSynchronize(streams[i]), "what was queued before memory is freed");
}

void mdm_gpu_free(mdm_gpu *gpu, void *memory) {
    if (!memory || gpu->is_given_up) return;
    wait_before_freeing(gpu);
    gpu->frees++;
    mdm_gpu_note(gpu, cudaFree(memory), "freeing memory");
}

void mdm_gpu_set_guard(mdm_gpu *gpu, const mdm_gpu_guard *guard) {
    gpu->guard = guard ? *guard : (mdm_gpu_guard){0};
}

void mdm_gpu_give_up(mdm_gpu *gpu) {
    __atomic_store_n(&gpu->is_given_up, 1, __ATOMIC_RELEASE);
}

/* Waits for what is computed; such a wait can be left where somebody looks after it. */
static mdm_status wait_for_computing(mdm_gpu *gpu, const char *what) {
    const mdm_gpu_guard *g = &gpu->guard;
    mdm_status status = MDM_OK;
    cudaError_t code;
    if (!g->look) return mdm_gpu_check(gpu, cudaStreamSynchronize(gpu->stream), what);
    g->begin(g->context);
    while ((code = ask_stream(gpu)) == cudaErrorNotReady && status == MDM_OK) status = g->look(g->context);
    g->end(g->context);
    return status == MDM_OK ? mdm_gpu_check(gpu, code, what) : status;
}

/* CUDA does not promise that pageable memory has been read when such a copy returns (where the device can
 * read it by itself, it need not have been): hence the wait. */
mdm_status mdm_gpu_upload(mdm_gpu *gpu, void *memory, const void *host, size_t bytes) {
    MDM_TRY(mdm_gpu_check(gpu, cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, gpu->stream),
                          "an upload"));
    return wait_for_computing(gpu, "what was queued before an upload");
}

mdm_status mdm_gpu_download(mdm_gpu *gpu, void *host, const void *memory, size_t bytes) {
    /* a copy to pageable memory is itself a wait that could not be left */
    if (gpu->guard.look) MDM_TRY(wait_for_computing(gpu, "what was queued before a download"));
    MDM_TRY(mdm_gpu_check(gpu, cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, gpu->stream),
                          "a download"));
    return mdm_gpu_check(gpu, cudaStreamSynchronize(gpu->stream), "a download");
}

void mdm_gpu_zero(mdm_gpu *gpu, void *memory, size_t bytes) {
    mdm_gpu_note(gpu, cudaMemsetAsync(memory, 0, bytes, gpu->stream), "zeroing memory");
}

void mdm_gpu_copy(mdm_gpu *gpu, void *to, const void *from, size_t bytes) {
    mdm_gpu_note(gpu, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, gpu->stream),
                 "copying memory");
}

/* Where there is no memory for more, what is kept already gets its own again with the next call. */
mdm_status mdm_gpu_grow_workspace(mdm_gpu *gpu, mdm_gpu_workspace *w, size_t bytes, int is_kept) {
    if (is_kept && bytes > w->kept) w->kept = bytes;
    if (bytes < w->kept) bytes = w->kept;
    if (bytes <= w->bytes) return MDM_OK;
    mdm_gpu_free(gpu, w->memory);
    w->memory = NULL;
    w->bytes = 0;
    MDM_TRY(mdm_gpu_allocate(gpu, bytes, "scratch memory of convolutions and products", &w->memory));
    w->bytes = bytes;
    return MDM_OK;
}

/* ---- queues and marks ---- */

struct mdm_gpu_mark {
    cudaEvent_t event;
    int is_in_graph; /* recorded there last: the host cannot wait for it, and need not */
};

static cudaStream_t stream_of(const mdm_gpu *gpu, mdm_gpu_queue queue) {
    return queue == MDM_GPU_SENDING         ? gpu->sending
           : queue == MDM_GPU_COMMUNICATING ? gpu->communicating
           : queue == MDM_GPU_BESIDE        ? gpu->beside
                                            : gpu->stream;
}

void mdm_gpu_launch_early(mdm_gpu *gpu, int is_on) {
    gpu->launches_early = is_on && gpu->can_launch_early;
}

int mdm_gpu_can_launch_early(const mdm_gpu *gpu) {
    return gpu->can_launch_early;
}

void mdm_gpu_turn_to(mdm_gpu *gpu, mdm_gpu_queue queue) {
    gpu->queued_to = stream_of(gpu, queue);
}

void *mdm_gpu_stream(mdm_gpu *gpu, mdm_gpu_queue queue) {
    return stream_of(gpu, queue);
}

/* Any thread may be here: what is remembered by mdm_gpu_note is left alone. */
static mdm_status check_queue(const mdm_gpu *gpu, cudaError_t code, const char *what) {
    if (code == cudaSuccess) return MDM_OK;
    return mdm_gpu_failed(gpu->number, what, cudaGetErrorString(code), cudaGetErrorName(code));
}

/* A thread begins with device 0, and its first call of any kind would open a context there. */
static mdm_status choose_device(const mdm_gpu *gpu, const char *what) {
    return check_queue(gpu, cudaSetDevice(gpu->number), what);
}

mdm_status mdm_gpu_enter(mdm_gpu *gpu) {
    return choose_device(gpu, "a thread's beginning");
}

mdm_status mdm_gpu_pin(mdm_gpu *gpu, size_t bytes, const char *what, void **host) {
    *host = NULL;
    MDM_TRY(choose_device(gpu, what));
    cudaError_t code = cudaHostAlloc(host, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (code != cudaErrorMemoryAllocation) return check_queue(gpu, code, what);
    (void)cudaGetLastError(); /* told here; the device is sound */
    return mdm_fail(MDM_RESOURCE,
                    "no %.0f MiB of page-locked host memory for %s; a smaller train.batch or pretrain.batch "
                    "would shrink it",
                    (double)bytes / (1 << 20), what);
}

void mdm_gpu_unpin(mdm_gpu *gpu, void *host) {
    if (!host || gpu->is_given_up) return;
    wait_before_freeing(gpu);
    gpu->frees++;
    mdm_gpu_note(gpu, cudaFreeHost(host), "freeing host memory");
}

mdm_status mdm_gpu_send(mdm_gpu *gpu, mdm_gpu_queue queue, void *memory, const void *pinned, size_t bytes) {
    MDM_TRY(choose_device(gpu, "an upload"));
    return check_queue(gpu,
                       cudaMemcpyAsync(memory, pinned, bytes, cudaMemcpyHostToDevice, stream_of(gpu, queue)),
                       "an upload");
}

mdm_status mdm_gpu_create_mark(mdm_gpu *gpu, mdm_gpu_mark **mark) {
    MDM_TRY(MDM_ALLOCATE(*mark, 1, "an event"));
    mdm_status status =
        check_queue(gpu, cudaEventCreateWithFlags(&(*mark)->event, cudaEventDisableTiming), "an event");
    if (status == MDM_OK) return MDM_OK;
    free(*mark);
    *mark = NULL;
    return status;
}

void mdm_gpu_destroy_mark(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    if (!mark || gpu->is_given_up) return;
    if (!mark->is_in_graph)
        mdm_gpu_note(gpu, cudaEventSynchronize(mark->event), "what was queued before an event");
    mdm_gpu_note(gpu, cudaEventDestroy(mark->event), "an event");
    free(mark);
}

mdm_status mdm_gpu_record(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    mark->is_in_graph = queue != MDM_GPU_SENDING && gpu->is_recording;
    MDM_TRY(choose_device(gpu, "recording an event"));
    return check_queue(gpu, cudaEventRecord(mark->event, stream_of(gpu, queue)), "recording an event");
}

mdm_status mdm_gpu_follow(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    MDM_TRY(choose_device(gpu, "waiting for an event"));
    return check_queue(gpu, cudaStreamWaitEvent(stream_of(gpu, queue), mark->event, 0),
                       "waiting for an event");
}

/* The thread that sends pictures waits here, perhaps behind a collective that never ends: where the device is
 * given up meanwhile, this wait ends too. */
mdm_status mdm_gpu_await(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    enum { AT_ONCE = 1000 };
    const struct timespec pause = {0, 20000};
    cudaError_t code;
    MDM_TRY(choose_device(gpu, "waiting for an event"));
    for (int looks = 0; (code = answer_of(cudaEventQuery(mark->event))) == cudaErrorNotReady; looks++) {
        if (__atomic_load_n(&gpu->is_given_up, __ATOMIC_ACQUIRE))
            return mdm_fail(MDM_LOST, "CUDA device %d was given up with work left in its queues",
                            gpu->number);
        if (looks >= AT_ONCE) nanosleep(&pause, NULL);
    }
    return check_queue(gpu, code, "what was queued before an event");
}
