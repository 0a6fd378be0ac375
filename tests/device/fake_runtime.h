/* A CUDA runtime made of the promises in NVIDIA's manual that are easily forgotten, for test_runtime.c:
 * copies from pageable memory may happen later; a query leaves "not ready" behind as the thread's last error;
 * a thread begins with device 0, and what it calls first opens a context there; in a capture the host waits
 * for nothing, and allocates nothing. What is promised here and not kept by a device, only a device can show.
 */
#ifndef MDM_TESTS_FAKE_RUNTIME_H
#define MDM_TESTS_FAKE_RUNTIME_H

#include "cuda/runtime.h"
#include "golden.h"
#include <stdlib.h>
#include <string.h>

enum { DEVICES = 2, NUMBER = 1, MOST_COPIES = 16, QUEUES = 4 };

static _Thread_local int current;
static _Thread_local cudaError_t last_error;

static struct {
    int has_context[DEVICES];
    struct {
        void *to;
        const void *from;
        size_t bytes;
    } copies[MOST_COPIES];
    int copy_count;
    int busy;         /* queries that will find the stream so */
    int is_capturing; /* in this mode: */
    enum cudaStreamCaptureMode mode;
    int refused; /* calls that a capture does not allow */
    int host_frees, frees, graphs, executables, waits;
    cudaError_t instantiation, launching; /* what they come to */
    int is_broken;                        /* the capture */
    cudaError_t counting, choosing;
    int driver;
    size_t most_bytes; /* of an allocation; 0: any */
} cuda;

static cudaError_t leave(cudaError_t code) {
    if (code != cudaSuccess) last_error = code;
    return code;
}

/* Calls that need the device open a context on the one that is current. */
static cudaError_t use(void) {
    cuda.has_context[current] = 1;
    return cudaSuccess;
}

/* And those that a capture forbids to the thread that began it. */
static cudaError_t use_outside_of_captures(void) {
    (void)use();
    if (!cuda.is_capturing) return cudaSuccess;
    cuda.refused++;
    return leave(cudaErrorStreamCaptureUnsupported);
}

static void finish_copies(void) {
    for (int i = 0; i < cuda.copy_count; i++)
        memcpy(cuda.copies[i].to, cuda.copies[i].from, cuda.copies[i].bytes);
    cuda.copy_count = 0;
}

/* ---- NVIDIA's functions ---- */

const char *cudaGetErrorString(cudaError_t code) {
    return code == cudaSuccess ? "no error" : "an error";
}
const char *cudaGetErrorName(cudaError_t code) {
    return cudaGetErrorString(code);
}
cudaError_t cudaGetLastError(void) {
    cudaError_t code = last_error;
    last_error = cudaSuccess;
    return code;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = cuda.counting == cudaSuccess ? DEVICES : 0;
    return leave(cuda.counting);
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = cuda.driver;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "device %d", device);
    properties->major = 9;
    properties->totalGlobalMem = (size_t)1 << 30;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    if (cuda.choosing != cudaSuccess) return leave(cuda.choosing);
    current = device;
    return use();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    static char streams[8];
    static int made;
    assert_int_equal(flags, cudaStreamNonBlocking); /* others would wait for the default stream */
    *stream = (cudaStream_t)(void *)&streams[made++ % 8];
    return use();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    (void)stream;
    return use();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    (void)stream;
    cuda.waits++;
    if (use_outside_of_captures() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
    finish_copies();
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    (void)stream;
    if (use_outside_of_captures() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
    if (cuda.busy > 0) {
        cuda.busy--;
        return leave(cudaErrorNotReady);
    }
    finish_copies();
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    (void)stream;
    *status = !cuda.is_capturing ? cudaStreamCaptureStatusNone
              : cuda.is_broken   ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return use();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    (void)flags;
    *event = calloc(1, sizeof(int)); /* 1: recorded in a capture */
    return *event ? use() : cudaErrorMemoryAllocation;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return use();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    (void)stream;
    *(int *)(void *)event = cuda.is_capturing;
    return use();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    cuda.waits++;
    if (*(int *)(void *)event) cuda.refused++;
    return use_outside_of_captures();
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (*(int *)(void *)event) cuda.refused++;
    if (use_outside_of_captures() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
    if (cuda.busy <= 0) return cudaSuccess;
    cuda.busy--;
    return leave(cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    assert_true(begin != end);
    *milliseconds = 1.5f;
    return use();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
    (void)stream, (void)event, (void)flags;
    return use();
}
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    *left = *total = 0;
    return use();
}
cudaError_t cudaMalloc(void **memory, size_t bytes) {
    if (cuda.most_bytes && bytes > cuda.most_bytes) return leave(cudaErrorMemoryAllocation);
    *memory = malloc(bytes);
    return use_outside_of_captures();
}
cudaError_t cudaFree(void *memory) {
    free(memory);
    cuda.frees++;
    return use_outside_of_captures();
}
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned int flags) {
    (void)flags;
    *memory = malloc(bytes);
    return use_outside_of_captures();
}
cudaError_t cudaFreeHost(void *memory) {
    free(memory);
    cuda.host_frees++;
    return use_outside_of_captures();
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    (void)stream;
    memset(memory, value, bytes);
    return use();
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    (void)kind, (void)stream;
    assert_true(cuda.copy_count < MOST_COPIES);
    cuda.copies[cuda.copy_count].to = to;
    cuda.copies[cuda.copy_count].from = from;
    cuda.copies[cuda.copy_count++].bytes = bytes;
    return use();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void)stream;
    cuda.is_capturing = 1;
    cuda.mode = mode;
    return use();
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    (void)stream;
    assert_true(cuda.is_capturing);
    cuda.is_capturing = 0;
    *graph = (cudaGraph_t)(void *)&cuda;
    cuda.graphs++;
    return use();
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    (void)graph;
    cuda.graphs--;
    return use();
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
    (void)graph, (void)flags;
    if (cuda.instantiation != cudaSuccess) return leave(cuda.instantiation);
    *exec = (cudaGraphExec_t)(void *)&cuda;
    cuda.executables++;
    return use();
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    (void)exec, (void)stream;
    return use();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    (void)exec, (void)stream;
    return cuda.launching != cudaSuccess ? leave(cuda.launching) : use();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    (void)exec;
    cuda.executables--;
    return use();
}

#endif
