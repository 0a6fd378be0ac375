/* What stands behind gpu.h in a build without the CUDA toolkit: no devices. */
#include "gpu.h"
#include <stdio.h>

static const char reason[] =
    "this build has no CUDA; build it where the CUDA toolkit 12 or newer and cuDNN 9 "
    "are found (MDM_CUDA=ON says what is missing)";

int mdm_gpu_count(char *why, size_t why_size, int *is_unusable) {
    if (is_unusable) *is_unusable = 0;
    if (why) snprintf(why, why_size, "%s", reason);
    return 0;
}

mdm_status mdm_gpu_identify(int number, unsigned char identity[MDM_DEVICE_IDENTITY]) {
    (void)identity;
    return mdm_fail(MDM_RESOURCE, "no CUDA device %d: %s", number, reason);
}

mdm_status mdm_gpu_open(int number, mdm_gpu **gpu, mdm_gpu_info *info) {
    (void)info;
    *gpu = NULL;
    return mdm_fail(MDM_RESOURCE, "no CUDA device %d: %s", number, reason);
}

/* Nothing below is reached without a device. */
void mdm_gpu_close(mdm_gpu *gpu) {
    (void)gpu;
}

mdm_status mdm_gpu_check_device(mdm_gpu *gpu, const char *what) {
    (void)gpu, (void)what;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_allocate(mdm_gpu *gpu, size_t bytes, const char *what, void **memory) {
    (void)gpu, (void)bytes;
    *memory = NULL;
    return mdm_fail(MDM_RESOURCE, "no memory for %s: %s", what, reason);
}

void mdm_gpu_free(mdm_gpu *gpu, void *memory) {
    (void)gpu, (void)memory;
}

mdm_status mdm_gpu_upload(mdm_gpu *gpu, void *memory, const void *host, size_t bytes) {
    (void)gpu, (void)memory, (void)host, (void)bytes;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_download(mdm_gpu *gpu, void *host, const void *memory, size_t bytes) {
    (void)gpu, (void)memory, (void)host, (void)bytes;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

void mdm_gpu_zero(mdm_gpu *gpu, void *memory, size_t bytes) {
    (void)gpu, (void)memory, (void)bytes;
}

void mdm_gpu_copy(mdm_gpu *gpu, void *to, const void *from, size_t bytes) {
    (void)gpu, (void)to, (void)from, (void)bytes;
}

void *mdm_gpu_stream(mdm_gpu *gpu, mdm_gpu_queue queue) {
    (void)gpu, (void)queue;
    return NULL;
}

void mdm_gpu_turn_to(mdm_gpu *gpu, mdm_gpu_queue queue) {
    (void)gpu, (void)queue;
}

void mdm_gpu_launch_early(mdm_gpu *gpu, int is_on) {
    (void)gpu, (void)is_on;
}

int mdm_gpu_can_launch_early(const mdm_gpu *gpu) {
    (void)gpu;
    return 0;
}

void mdm_gpu_set_guard(mdm_gpu *gpu, const mdm_gpu_guard *guard) {
    (void)gpu, (void)guard;
}

void mdm_gpu_give_up(mdm_gpu *gpu) {
    (void)gpu;
}

mdm_status mdm_gpu_pin(mdm_gpu *gpu, size_t bytes, const char *what, void **host) {
    (void)gpu, (void)bytes;
    *host = NULL;
    return mdm_fail(MDM_RESOURCE, "no memory for %s: %s", what, reason);
}

void mdm_gpu_unpin(mdm_gpu *gpu, void *host) {
    (void)gpu, (void)host;
}

mdm_status mdm_gpu_send(mdm_gpu *gpu, mdm_gpu_queue queue, void *memory, const void *pinned, size_t bytes) {
    (void)gpu, (void)queue, (void)memory, (void)pinned, (void)bytes;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_create_mark(mdm_gpu *gpu, mdm_gpu_mark **mark) {
    (void)gpu;
    *mark = NULL;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

void mdm_gpu_destroy_mark(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    (void)gpu, (void)mark;
}

mdm_status mdm_gpu_record(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    (void)gpu, (void)queue, (void)mark;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_follow(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    (void)gpu, (void)queue, (void)mark;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_await(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    (void)gpu, (void)mark;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_begin_graph(mdm_gpu *gpu) {
    (void)gpu;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_end_graph(mdm_gpu *gpu, int keep, mdm_gpu_graph **graph) {
    (void)gpu, (void)keep;
    *graph = NULL;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_launch_graph(mdm_gpu *gpu, mdm_gpu_graph *graph, int is_timed) {
    (void)gpu, (void)graph, (void)is_timed;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_graph_milliseconds(mdm_gpu *gpu, double *milliseconds) {
    (void)gpu;
    *milliseconds = 0;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

void mdm_gpu_destroy_graph(mdm_gpu *gpu, mdm_gpu_graph *graph) {
    (void)gpu, (void)graph;
}

mdm_status mdm_gpu_enter(mdm_gpu *gpu) {
    (void)gpu;
    return MDM_OK;
}

int mdm_gpu_is_recording(const mdm_gpu *gpu) {
    (void)gpu;
    return 0;
}

int64_t mdm_gpu_frees(const mdm_gpu *gpu) {
    (void)gpu;
    return 0;
}

mdm_status mdm_gpu_plan_convolution(mdm_gpu *gpu, const mdm_gpu_convolution *convolution,
                                    mdm_gpu_plan **plan) {
    (void)gpu, (void)convolution;
    *plan = NULL;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

void mdm_gpu_keep_plans(mdm_gpu *gpu) {
    (void)gpu;
}

mdm_status mdm_gpu_convolve(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    (void)gpu, (void)plan, (void)x, (void)filter, (void)y;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_plan_product(mdm_gpu *gpu, const mdm_product_shape *shape, mdm_gpu_product **product) {
    (void)gpu, (void)shape;
    *product = NULL;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

mdm_status mdm_gpu_multiply(mdm_gpu *gpu, mdm_gpu_product *product, float alpha, const void *a, const void *b,
                            float beta, const float *bias, float *c) {
    (void)gpu, (void)product, (void)alpha, (void)a, (void)b, (void)beta, (void)bias, (void)c;
    return mdm_fail(MDM_RESOURCE, "%s", reason);
}

#define DEFINE(name, arguments)                                                                              \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const arguments *a) {            \
        (void)gpu, (void)blocks, (void)block_rows, (void)a;                                                  \
    }
#define DEFINE_ROWS(name, arguments, phases)  DEFINE(name, arguments)
#define DEFINE_SUMMING(name, arguments, rest) DEFINE(name, arguments)
MDM_GPU_KERNELS(DEFINE, DEFINE_SUMMING)
MDM_GPU_HEAD_KERNELS(DEFINE, DEFINE_ROWS)
MDM_GPU_NEIGHBOUR_KERNELS(DEFINE, DEFINE_ROWS)
MDM_GPU_MIXTURE_KERNELS(DEFINE, DEFINE_ROWS)

#define DEFINE_PHASED(name, arguments)                                                                       \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, size_t shared, const arguments *a) {                  \
        (void)gpu, (void)blocks, (void)shared, (void)a;                                                      \
    }
MDM_GPU_PHASED_KERNELS(DEFINE_PHASED)
