/* Graphs of the emulated device: what is queued for computing between begin and end, and in queues beside it
 * behind a mark of it, as lists of calls with copies of their arguments, ordered by the marks that were
 * recorded among them and by nothing else. A launch is one entry of the computing queue.
 *
 * What CUDA refuses of a capture ends the test: cudaErrorStreamCaptureIsolation (a mark of outside is
 * followed inside), cudaErrorStreamCaptureUnjoined (the end comes before computing has followed what is
 * beside it), cudaErrorCapturedEvent (the host, or a queue outside, waits for a mark of inside), and
 * cudaErrorStreamCaptureUnsupported (the host waits, or memory is allocated or freed, or something is
 * planned, for which cuDNN and cuBLASLt may do either); and work of the ranks on a communicating queue that
 * is not part of it, which would run once and never again. */
#include "emulated_gpu.h"
#include "mdm/device/recording.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BROKEN_CALLS = 40 };

int emulated_is_broken(const mdm_gpu *gpu) {
    const char *told = getenv("MDM_EMULATED_GRAPHS"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    return gpu->recording && gpu->recording->calls >= BROKEN_CALLS && told &&
           strncmp(told, "broken ", 7) == 0 && strcmp(told + 7, rank ? rank : "0") == 0;
}

/* MDM_EMULATED_GRAPHS="divided 1 20": rank 1 refuses its 20th launch of a graph. The others' works in it
 * never end, and as those of a device that computes beside the host, they do not keep it from MPI. */
static mdm_status divide_ranks(mdm_gpu *gpu) {
    const char *told = getenv("MDM_EMULATED_GRAPHS"), *mine = getenv("OMPI_COMM_WORLD_RANK");
    int rank, at;
    if (!told || sscanf(told, "divided %d %d", &rank, &at) != 2 || gpu->counts.replayed + 1 != at)
        return MDM_OK;
    if (rank == atoi(mine ? mine : "0"))
        return mdm_fail(MDM_RESOURCE, "the emulated device was told to refuse this launch of a graph");
    gpu->is_deserted = 1;
    return MDM_OK;
}

static int way_of(const mdm_gpu_graph *graph) {
    return (graph->lanes[MDM_GPU_BESIDE].queued > 0 ? MDM_RECORD_BESIDE : 0) |
           (graph->is_early ? MDM_RECORD_EARLY : 0);
}

/* What graphs take that were recorded one way or another: MDM_EMULATED_TIMES=A,B,C,D, behind a / those of
 * rank 1, else 4, 3, 2 and 1 milliseconds; below 0 they fail at their end, and of "nan" when launched. */
static double time_of(int way) {
    const char *told = getenv("MDM_EMULATED_TIMES"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    const char *others = told ? strchr(told, '/') : NULL;
    double times[MDM_RECORDING_WAYS] = {4, 3, 2, 1};
    if (others && rank && strcmp(rank, "1") == 0) told = others + 1;
    if (told && sscanf(told, "%lf,%lf,%lf,%lf", &times[0], &times[1], &times[2], &times[3]) != 4)
        emulated_refuse("MDM_EMULATED_TIMES=%s: four times are expected", told);
    return times[way];
}

int mdm_gpu_is_recording(const mdm_gpu *gpu) {
    return gpu->recording != NULL;
}

int emulated_is_captured(const mdm_gpu *gpu, mdm_gpu_queue queue) {
    if (!gpu->recording || queue == MDM_GPU_SENDING) return 0;
    return queue == MDM_GPU_COMPUTING || gpu->recording->is_forked[queue];
}

void emulated_refuse_in_graph(const mdm_gpu *gpu, const char *what) {
    if (gpu->recording && pthread_equal(gpu->recording->recorder, pthread_self()))
        emulated_refuse("%s while a graph is recorded", what);
}

void emulated_capture(mdm_gpu *gpu, mdm_gpu_queue queue, entry e) {
    mdm_gpu_graph *g = gpu->recording;
    g->is_early |= gpu->launches_early;
    if (e.kind == WORK && emulated_is_broken(gpu))
        emulated_refuse_in_graph(gpu, "a collective is queued in what is broken off");
    if (e.kind == WORK) e.number = g->works++;
    g->calls++;
    emulated_push(&g->lanes[queue], e);
    g->busy[queue] = g->lanes[queue].queued;
}

void emulated_record_in_graph(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    mdm_gpu_graph *g = gpu->recording;
    g->calls++;
    *mark = (mdm_gpu_mark){{queue, g->lanes[queue].queued}, g->serial};
}

int emulated_follow_in_graph(mdm_gpu *gpu, mdm_gpu_queue queue, const mdm_gpu_mark *mark) {
    mdm_gpu_graph *g = gpu->recording;
    int is_captured = emulated_is_captured(gpu, queue), is_inside = g && mark->graph == g->serial;
    if (is_captured && !is_inside && (mark->graph || mark->point.count > 0))
        emulated_refuse("a queue that is recorded follows a mark of outside of the graph");
    if (!is_captured && mark->graph && (!is_inside || queue == MDM_GPU_SENDING))
        emulated_refuse("a queue follows a mark that was recorded in a graph");
    if (!is_inside) return is_captured;
    g->calls++;
    g->is_forked[queue] = 1;
    if (queue == MDM_GPU_COMPUTING) g->joined[mark->point.queue] = mark->point.count;
    emulated_push(&g->lanes[queue], (entry){.kind = FOLLOW, .point = mark->point});
    return 1;
}

static void free_graph(mdm_gpu_graph *graph) {
    for (int q = 0; graph && q < EMULATED_QUEUES; q++) emulated_free_lane(&graph->lanes[q], 1);
    free(graph);
}

/* A launch is over. */
void emulated_finish_graph(mdm_gpu_graph *graph) {
    graph->launches--;
    if (graph->is_destroyed && graph->launches == 0) free_graph(graph);
}

mdm_status mdm_gpu_begin_graph(mdm_gpu *gpu) {
    mdm_gpu_graph *graph;
    emulated_refuse_in_graph(gpu, "a second graph begins");
    MDM_TRY(emulated_count_call(gpu, "recording", "the beginning of a graph"));
    MDM_TRY(MDM_ALLOCATE(graph, 1, "a graph"));
    pthread_mutex_lock(&gpu->lock);
    graph->recorder = pthread_self();
    graph->serial = ++gpu->graphs;
    gpu->recording = graph;
    pthread_mutex_unlock(&gpu->lock);
    return MDM_OK;
}

mdm_status mdm_gpu_end_graph(mdm_gpu *gpu, int keep, mdm_gpu_graph **graph) {
    const char *told = getenv("MDM_EMULATED_GRAPHS");
    int is_refused = emulated_is_broken(gpu) || (told && strcmp(told, "refused") == 0);
    *graph = NULL;
    pthread_mutex_lock(&gpu->lock);
    mdm_gpu_graph *recorded = gpu->recording;
    is_refused |= time_of(way_of(recorded)) < 0;
    gpu->recording = NULL;
    pthread_mutex_unlock(&gpu->lock);
    mdm_status status = emulated_count_call(gpu, "recorded", "the end of a graph");
    if (status == MDM_OK && keep && is_refused)
        status = mdm_fail(MDM_RESOURCE, "the emulated device was told to refuse graphs");
    for (int q = MDM_GPU_SENDING; q < EMULATED_QUEUES && status == MDM_OK && keep; q++)
        if (recorded->busy[q] > recorded->joined[q])
            emulated_refuse("a graph ends before computing has followed all that is beside it");
    if (status != MDM_OK || !keep) {
        free_graph(recorded);
        return status;
    }
    gpu->counts.recorded++;
    if (recorded->calls > gpu->counts.longest) gpu->counts.longest = recorded->calls;
    *graph = recorded;
    return MDM_OK;
}

mdm_status mdm_gpu_launch_graph(mdm_gpu *gpu, mdm_gpu_graph *graph, int is_timed) {
    emulated_refuse_in_graph(gpu, "a graph is launched");
    MDM_TRY(emulated_count_call(gpu, "graph", "a graph"));
    if (isnan(time_of(way_of(graph))))
        return mdm_fail(MDM_RESOURCE, "the emulated device was told to launch no such graph");
    MDM_TRY(divide_ranks(gpu));
    pthread_mutex_lock(&gpu->lock);
    entry e = {.kind = GRAPH, .graph = graph, .number = gpu->works_queued};
    gpu->counts.replayed++;
    if (is_timed) gpu->timed_way = way_of(graph) + 1;
    graph->launches++;
    for (int64_t i = 0; i < graph->works; i++)
        if (emulated_is_doomed(gpu, "collective")) gpu->doomed_work = gpu->works_queued + i;
    gpu->works_queued += graph->works;
    emulated_order_queued(gpu, (emulated_place){MDM_GPU_COMPUTING, 0, gpu->lanes[MDM_GPU_COMPUTING].queued});
    emulated_push(&gpu->lanes[MDM_GPU_COMPUTING], e);
    emulated_go_on(gpu);
    pthread_mutex_unlock(&gpu->lock);
    return MDM_OK;
}

mdm_status mdm_gpu_graph_milliseconds(mdm_gpu *gpu, double *milliseconds) {
    if (!gpu->timed_way) emulated_refuse("no graph was timed");
    *milliseconds = time_of(gpu->timed_way - 1);
    return emulated_tell_loss(gpu, "the time of a graph");
}

/* One that is under way is freed when it has ended. */
void mdm_gpu_destroy_graph(mdm_gpu *gpu, mdm_gpu_graph *graph) {
    if (!graph) return;
    pthread_mutex_lock(&gpu->lock);
    graph->is_destroyed = 1;
    if (graph->launches == 0) free_graph(graph);
    pthread_mutex_unlock(&gpu->lock);
}
