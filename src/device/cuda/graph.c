/* Graphs of a CUDA device: what a step queues, captured once and launched as a whole. The capture holds for
 * the calling thread, so that the thread which sends pictures may go on; what it queues is not part of it. */
#include "runtime.h"
#include <stdlib.h>

struct mdm_gpu_graph {
    cudaGraphExec_t exec;
};

/* Where the device is not at fault. */
static mdm_status refuse(mdm_gpu *gpu, const char *what, cudaError_t code) {
    (void)cudaGetLastError(); /* told here */
    MDM_TRY(mdm_gpu_check_device(gpu, "a graph"));
    return mdm_fail(MDM_RESOURCE, "CUDA device %d %s no graph: %s (%s)", gpu->number, what,
                    cudaGetErrorString(code), cudaGetErrorName(code));
}

mdm_status mdm_gpu_begin_graph(mdm_gpu *gpu) {
    MDM_TRY(mdm_gpu_check(gpu, cudaSuccess, "what was queued before a graph"));
    cudaError_t code = cudaStreamBeginCapture(gpu->stream, cudaStreamCaptureModeThreadLocal);
    gpu->is_recording = code == cudaSuccess;
    return code == cudaSuccess ? MDM_OK : refuse(gpu, "begins", code);
}

/* Ready to be launched, and in the device's memory already. */
static cudaError_t make_ready(mdm_gpu *gpu, cudaGraph_t graph, mdm_gpu_graph *ready) {
    cudaError_t code = cudaGraphInstantiate(&ready->exec, graph, 0);
    if (code == cudaSuccess) code = cudaGraphUpload(ready->exec, gpu->stream);
    return code;
}

mdm_status mdm_gpu_end_graph(mdm_gpu *gpu, int keep, mdm_gpu_graph **out) {
    cudaGraph_t graph = NULL;
    mdm_gpu_graph *ready = NULL;
    *out = NULL;
    mdm_status status = MDM_ALLOCATE(ready, 1, "a graph");
    cudaError_t noted = gpu->failure, code = cudaStreamEndCapture(gpu->stream, &graph);
    const char *what = noted != cudaSuccess ? gpu->failed_in : "its end";
    gpu->is_recording = 0;
    gpu->failure = cudaSuccess; /* there was none when the graph began */
    if (noted != cudaSuccess) code = noted;
    if (code == cudaSuccess && keep && status == MDM_OK) {
        what = "its instantiation";
        code = make_ready(gpu, graph, ready);
    }
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError(); /* told here */
    if (status == MDM_OK && keep && code == cudaSuccess) {
        *out = ready;
        return MDM_OK;
    }
    mdm_gpu_destroy_graph(gpu, ready);
    MDM_TRY(mdm_gpu_check_device(gpu, "the end of a graph"));
    if (status != MDM_OK || !keep) return status;
    return mdm_fail(MDM_RESOURCE, "a graph of CUDA device %d failed in %s: %s (%s)", gpu->number, what,
                    cudaGetErrorString(code), cudaGetErrorName(code));
}

mdm_status mdm_gpu_launch_graph(mdm_gpu *gpu, mdm_gpu_graph *graph, int is_timed) {
    MDM_TRY(mdm_gpu_check(gpu, cudaSuccess, "what was queued before a graph"));
    if (is_timed) MDM_TRY(mdm_gpu_check(gpu, cudaEventRecord(gpu->begin, gpu->stream), "a graph"));
    cudaError_t code = cudaGraphLaunch(graph->exec, gpu->stream);
    if (code != cudaSuccess) return refuse(gpu, "launches", code);
    return is_timed ? mdm_gpu_check(gpu, cudaEventRecord(gpu->end, gpu->stream), "a graph") : MDM_OK;
}

mdm_status mdm_gpu_graph_milliseconds(mdm_gpu *gpu, double *milliseconds) {
    static const char what[] = "the time of a graph";
    float elapsed = 0;
    *milliseconds = 0;
    MDM_TRY(mdm_gpu_check(gpu, cudaEventSynchronize(gpu->end), what));
    MDM_TRY(mdm_gpu_check(gpu, cudaEventElapsedTime(&elapsed, gpu->begin, gpu->end), what));
    *milliseconds = (double)elapsed;
    return MDM_OK;
}

/* One that is under way is freed when it has ended. */
void mdm_gpu_destroy_graph(mdm_gpu *gpu, mdm_gpu_graph *graph) {
    if (!graph) return;
    if (graph->exec && !gpu->is_given_up)
        mdm_gpu_note(gpu, cudaGraphExecDestroy(graph->exec), "a graph's end");
    free(graph);
}

int mdm_gpu_is_recording(const mdm_gpu *gpu) {
    return gpu->is_recording;
}

int64_t mdm_gpu_frees(const mdm_gpu *gpu) {
    return gpu->frees;
}
