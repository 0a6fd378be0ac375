/* Convolutions by cuDNN: for each kind the fastest of the plans that its heuristics name, measured once. */
#include "runtime.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_TRIED = 6, TIMED_RUNS = 3 };
static const int64_t largest_workspace = (int64_t)512 << 20;

static mdm_status check(mdm_gpu *gpu, cudnnStatus_t code, const char *what) {
    char text[256] = "";
    if (code == CUDNN_STATUS_SUCCESS) return MDM_OK;
    gpu->cudnn->cudnnGetLastErrorString(text, sizeof text);
    return mdm_fail(MDM_LOST, "cuDNN failed in %s on device %d: %s %s", what, gpu->number,
                    gpu->cudnn->cudnnGetErrorString(code), text);
}

static cudnnStatus_t execute(mdm_gpu *gpu, const mdm_cudnn_plan *plan, void *x, void *filter, void *y) {
    const mdm_cudnn *cudnn = gpu->cudnn;
    cudnnBackendDescriptor_t pack = NULL;
    int64_t ids[3] = {MDM_X, MDM_FILTER, MDM_Y};
    void *pointers[3] = {x, filter, y};
    cudnnStatus_t code = cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (code) return code;
    code =
        cudnn->cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids);
    if (!code)
        code = cudnn->cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                               CUDNN_TYPE_VOID_PTR, 3, pointers);
    if (!code)
        code = cudnn->cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
                                               1, &gpu->workspace);
    if (!code) code = cudnn->cudnnBackendFinalize(pack);
    if (!code) code = cudnn->cudnnBackendExecute(gpu->handle, plan->plan, pack);
    (void)cudnn->cudnnBackendDestroyDescriptor(pack);
    return code;
}

/* The best of a few runs in milliseconds; negative when the plan does not run. */
static mdm_status time_plan(mdm_gpu *gpu, const mdm_cudnn_plan *plan, void **operands, float *best) {
    *best = -1;
    MDM_TRY(mdm_gpu_grow_workspace(gpu, (size_t)plan->workspace));
    for (int run = -1; run < TIMED_RUNS; run++) { /* the first is not counted */
        float milliseconds = 0;
        MDM_TRY(mdm_gpu_check(gpu, cudaEventRecord(gpu->begin, gpu->stream), "timing a convolution"));
        if (execute(gpu, plan, operands[0], operands[1], operands[2]) != CUDNN_STATUS_SUCCESS) {
            *best = -1;
            return MDM_OK;
        }
        MDM_TRY(mdm_gpu_check(gpu, cudaEventRecord(gpu->end, gpu->stream), "timing a convolution"));
        MDM_TRY(mdm_gpu_check(gpu, cudaEventSynchronize(gpu->end), "timing a convolution"));
        MDM_TRY(mdm_gpu_check(gpu, cudaEventElapsedTime(&milliseconds, gpu->begin, gpu->end),
                              "timing a convolution"));
        if (run >= 0 && (*best < 0 || milliseconds < *best)) *best = milliseconds;
    }
    return MDM_OK;
}

/* Memory for x, filter and y. */
static mdm_status allocate_operands(mdm_gpu *gpu, const mdm_gpu_convolution *k, void **operands) {
    size_t element = k->precision == MDM_BF16 ? 2 : 4, taps = (size_t)k->kernel * (size_t)k->kernel;
    size_t out_height = (size_t)((k->height + 2 * (k->kernel / 2) - k->kernel) / k->stride + 1),
           out_width = (size_t)((k->width + 2 * (k->kernel / 2) - k->kernel) / k->stride + 1);
    size_t counts[3] = {(size_t)k->batch * (size_t)k->height * (size_t)k->width * (size_t)k->in,
                        (size_t)k->out * taps * (size_t)k->in,
                        (size_t)k->batch * out_height * out_width * (size_t)k->out};
    for (int i = 0; i < 3; i++)
        MDM_TRY(mdm_gpu_allocate(gpu, counts[i] * element, "timing convolutions", &operands[i]));
    return MDM_OK;
}

static mdm_status choose(mdm_gpu *gpu, const mdm_gpu_convolution *k, mdm_cudnn_plan *plans, int count,
                         int *chosen, float *milliseconds) {
    void *operands[3] = {NULL, NULL, NULL};
    *chosen = 0;
    *milliseconds = 0;
    if (count == 1) return MDM_OK;
    mdm_status status = allocate_operands(gpu, k, operands);
    for (int i = 0; status == MDM_OK && i < count; i++) {
        float time;
        status = time_plan(gpu, &plans[i], operands, &time);
        if (time >= 0 && (*milliseconds == 0 || time < *milliseconds)) *chosen = i, *milliseconds = time;
    }
    for (int i = 0; i < 3; i++) mdm_gpu_free(gpu, operands[i]);
    return status;
}

static int same_kind(const mdm_gpu_convolution *a, const mdm_gpu_convolution *b) {
    return a->pass == b->pass && a->precision == b->precision && a->batch == b->batch && a->in == b->in &&
           a->out == b->out && a->height == b->height && a->width == b->width && a->kernel == b->kernel &&
           a->stride == b->stride;
}

mdm_status mdm_gpu_plan_convolution(mdm_gpu *gpu, const mdm_gpu_convolution *k, mdm_gpu_plan **out) {
    mdm_cudnn_target target = {gpu->cudnn, gpu->handle, NULL};
    mdm_cudnn_plan plans[MOST_TRIED];
    mdm_gpu_plan *made;
    int count, chosen = 0;
    for (*out = gpu->plans; *out; *out = (*out)->next)
        if (same_kind(&(*out)->kind, k)) return MDM_OK;
    MDM_TRY(mdm_cudnn_find_plans(&target, k, largest_workspace, MOST_TRIED, plans, &count));
    mdm_status status = MDM_ALLOCATE(made, 1, "a plan");
    if (status == MDM_OK) status = choose(gpu, k, plans, count, &chosen, &made->milliseconds);
    if (status == MDM_OK) status = mdm_gpu_grow_workspace(gpu, (size_t)plans[chosen].workspace);
    for (int i = 0; i < count; i++)
        if (status != MDM_OK || i != chosen) mdm_cudnn_release(gpu->cudnn, &plans[i]);
    if (status != MDM_OK) {
        free(made);
        return status;
    }
    made->kind = *k;
    made->cudnn = plans[chosen];
    made->next = gpu->plans;
    gpu->plans = made;
    *out = made;
    return MDM_OK;
}

void mdm_gpu_release_plans(mdm_gpu *gpu) {
    while (gpu->plans) {
        mdm_gpu_plan *next = gpu->plans->next;
        mdm_cudnn_release(gpu->cudnn, &gpu->plans->cudnn);
        free(gpu->plans);
        gpu->plans = next;
    }
}

mdm_status mdm_gpu_convolve(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    MDM_TRY(mdm_gpu_check(gpu, cudaSuccess, "a convolution"));
    return check(gpu, execute(gpu, &plan->cudnn, x, filter, y), "a convolution");
}
