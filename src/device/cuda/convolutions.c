/* Convolutions by cuDNN: for each kind the fastest of the plans that its heuristics name, measured
 * once a machine (plan_cache.h). */
#include "mdm/base/log.h"
#include "runtime.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP_RUNS = 2, LEADING_RUNS = 2, TIMED_RUNS = 7, NOISE_WORDS = 1 << 16 };

/* What cuDNN says of a failure, as this thread's last message. */
static void note(mdm_gpu *gpu, cudnnStatus_t code) {
    char text[256] = "";
    gpu->cudnn->cudnnGetLastErrorString(text, sizeof text);
    (void)mdm_fail(MDM_LOST, "device %d: %s %s", gpu->number, gpu->cudnn->cudnnGetErrorString(code), text);
}

static cudnnStatus_t execute(mdm_gpu *gpu, const mdm_cudnn_plan *plan, mdm_gpu_workspace *workspace, void *x,
                             void *filter, void *y) {
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
                                               1, &workspace->memory);
    if (!code) code = cudnn->cudnnBackendFinalize(pack);
    if (!code) code = cudnn->cudnnBackendExecute(gpu->handle, plan->plan, pack);
    (void)cudnn->cudnnBackendDestroyDescriptor(pack);
    return code;
}

typedef struct timing {
    mdm_gpu *gpu;
    const mdm_gpu_convolution *kind;
    void *operands[3]; /* x, filter, y; only there once something is to be measured */
} timing;

static int compare_times(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int runs(const timing *t, const mdm_cudnn_plan *plan) {
    cudnnStatus_t code =
        execute(t->gpu, plan, &t->gpu->workspace, t->operands[0], t->operands[1], t->operands[2]);
    if (code != CUDNN_STATUS_SUCCESS) note(t->gpu, code);
    return code == CUDNN_STATUS_SUCCESS;
}

/* Milliseconds of one run; negative when the plan does not run. The ones before it keep the device busy while
 * the host queues what is timed: it would wait for the host between the two events otherwise. */
static mdm_status time_once(const timing *t, const mdm_cudnn_plan *plan, float *milliseconds) {
    static const char what[] = "timing a convolution";
    mdm_gpu *gpu = t->gpu;
    *milliseconds = -1;
    for (int i = 0; i < LEADING_RUNS; i++)
        if (!runs(t, plan)) return mdm_gpu_check_device(gpu, what);
    MDM_TRY(mdm_gpu_check(gpu, cudaEventRecord(gpu->begin, gpu->stream), what));
    if (!runs(t, plan)) return mdm_gpu_check_device(gpu, what);
    MDM_TRY(mdm_gpu_check(gpu, cudaEventRecord(gpu->end, gpu->stream), what));
    MDM_TRY(mdm_gpu_check(gpu, cudaEventSynchronize(gpu->end), what));
    return mdm_gpu_check(gpu, cudaEventElapsedTime(milliseconds, gpu->begin, gpu->end), what);
}

/* Numbers of size 1/2 to 1, of either sign, in both precisions: multipliers draw less power on zeros, and
 * run faster. */
static mdm_status fill_with_noise(mdm_gpu *gpu, char *memory, size_t bytes) {
    uint32_t *noise, state = 1;
    size_t done = NOISE_WORDS * sizeof *noise < bytes ? NOISE_WORDS * sizeof *noise : bytes;
    MDM_TRY(MDM_ALLOCATE(noise, NOISE_WORDS, "timing convolutions"));
    for (int i = 0; i < NOISE_WORDS; i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = ((state ^ state >> 15) & 0x807f807fu) | 0x3f003f00u;
    }
    mdm_status status = mdm_gpu_upload(gpu, memory, noise, done);
    free(noise);
    MDM_TRY(status);
    for (size_t here; done < bytes; done += here) { /* what is there, once more behind itself */
        here = bytes - done < done ? bytes - done : done;
        MDM_TRY(mdm_gpu_check(
            gpu, cudaMemcpyAsync(memory + done, memory, here, cudaMemcpyDeviceToDevice, gpu->stream),
            "timing convolutions"));
    }
    return MDM_OK;
}

static mdm_status allocate_operands(timing *t) {
    const mdm_gpu_convolution *k = t->kind;
    size_t element = k->precision == MDM_BF16 ? 2 : 4, taps = (size_t)k->kernel * (size_t)k->kernel;
    size_t out_height = (size_t)((k->height + 2 * (k->kernel / 2) - k->kernel) / k->stride + 1),
           out_width = (size_t)((k->width + 2 * (k->kernel / 2) - k->kernel) / k->stride + 1);
    size_t counts[3] = {(size_t)k->batch * (size_t)k->height * (size_t)k->width * (size_t)k->in,
                        (size_t)k->out * taps * (size_t)k->in,
                        (size_t)k->batch * out_height * out_width * (size_t)k->out};
    for (int i = 0; i < 3; i++) {
        size_t bytes = counts[i] * element;
        MDM_TRY(mdm_gpu_allocate(t->gpu, bytes, "timing convolutions", &t->operands[i]));
        MDM_TRY(fill_with_noise(t->gpu, t->operands[i], bytes));
    }
    return MDM_OK;
}

/* The median of a few runs. */
static mdm_status time_plan(void *context, const mdm_cudnn_plan *plan, float *milliseconds) {
    timing *t = context;
    float times[TIMED_RUNS];
    if (!t->operands[0]) MDM_TRY(allocate_operands(t));
    MDM_TRY(mdm_gpu_grow_workspace(t->gpu, &t->gpu->workspace, (size_t)plan->workspace, 0));
    for (int run = -WARM_UP_RUNS; run < TIMED_RUNS; run++) {
        MDM_TRY(time_once(t, plan, milliseconds));
        if (*milliseconds < 0) return MDM_OK;
        if (run >= 0) times[run] = *milliseconds;
    }
    qsort(times, TIMED_RUNS, sizeof *times, compare_times);
    *milliseconds = times[TIMED_RUNS / 2];
    return MDM_OK;
}

static int same_kind(const mdm_gpu_convolution *a, const mdm_gpu_convolution *b) {
    return a->pass == b->pass && a->precision == b->precision && a->batch == b->batch && a->in == b->in &&
           a->out == b->out && a->height == b->height && a->width == b->width && a->kernel == b->kernel &&
           a->stride == b->stride;
}

static mdm_status choose(mdm_gpu *gpu, const mdm_gpu_convolution *k, mdm_cudnn_plan *plan) {
    mdm_cudnn_target target = {gpu->cudnn, gpu->handle, NULL};
    timing t = {.gpu = gpu, .kind = k};
    mdm_status status = mdm_cudnn_choose_plan(&target, gpu->cache, k, time_plan, &t, plan);
    if (status != MDM_OK && mdm_gpu_check_device(gpu, "planning a convolution") != MDM_OK) status = MDM_LOST;
    for (int i = 0; i < 3; i++) mdm_gpu_free(gpu, t.operands[i]);
    return status;
}

static mdm_status reserve_workspaces(mdm_gpu *gpu, const mdm_gpu_convolution *k, size_t bytes) {
    if (k->pass == MDM_GPU_BACKWARD_FILTER)
        MDM_TRY(mdm_gpu_grow_workspace(gpu, &gpu->workspace_beside, bytes, 1));
    return mdm_gpu_grow_workspace(gpu, &gpu->workspace, bytes, 1);
}

mdm_status mdm_gpu_plan_convolution(mdm_gpu *gpu, const mdm_gpu_convolution *k, mdm_gpu_plan **out) {
    mdm_gpu_plan *made;
    for (*out = gpu->plans; *out; *out = (*out)->next)
        if (same_kind(&(*out)->kind, k)) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(made, 1, "a plan"));
    mdm_status status = choose(gpu, k, &made->cudnn);
    if (status == MDM_OK) status = reserve_workspaces(gpu, k, (size_t)made->cudnn.workspace);
    if (status != MDM_OK) {
        mdm_cudnn_release(gpu->cudnn, &made->cudnn);
        free(made);
        return status;
    }
    made->kind = *k;
    made->next = gpu->plans;
    gpu->plans = made;
    *out = made;
    return MDM_OK;
}

void mdm_gpu_keep_plans(mdm_gpu *gpu) {
    mdm_plan_cache_save(gpu->cache);
}

void mdm_gpu_release_plans(mdm_gpu *gpu) {
    while (gpu->plans) {
        mdm_gpu_plan *next = gpu->plans->next;
        mdm_cudnn_release(gpu->cudnn, &gpu->plans->cudnn);
        free(gpu->plans);
        gpu->plans = next;
    }
}

/* ---- a plan that does not run ---- */

typedef struct replacement {
    mdm_gpu *gpu;
    const mdm_gpu_plan *failed;
    void *operands[3];
} replacement;

static int same_choice(const mdm_cudnn_plan *a, const mdm_cudnn_plan *b) {
    return a->is_nameable && b->is_nameable && a->choice.engine == b->choice.engine &&
           a->choice.knob_count == b->choice.knob_count &&
           memcmp(a->choice.knobs, b->choice.knobs, sizeof a->choice.knobs) == 0;
}

/* Computes what is wanted, so nothing is timed. Scratch memory is not moved, as recorded steps use it. */
static mdm_status compute_by(void *context, const mdm_cudnn_plan *plan, float *milliseconds) {
    replacement *r = context;
    mdm_gpu *gpu = r->gpu;
    size_t room = gpu->workspace.bytes;
    if (r->failed->kind.pass == MDM_GPU_BACKWARD_FILTER && gpu->workspace_beside.bytes < room)
        room = gpu->workspace_beside.bytes;
    *milliseconds = -1;
    if (same_choice(plan, &r->failed->cudnn) || (size_t)plan->workspace > room) return MDM_OK;
    cudnnStatus_t code = execute(gpu, plan, &gpu->workspace, r->operands[0], r->operands[1], r->operands[2]);
    if (code == CUDNN_STATUS_SUCCESS) {
        *milliseconds = 0;
        return MDM_OK;
    }
    note(gpu, code);
    return mdm_gpu_check_device(gpu, "a convolution");
}

/* The failed one is kept aside, as recorded steps may hold it. The next start measures anew. */
static mdm_status replace(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    mdm_cudnn_target target = {gpu->cudnn, gpu->handle, NULL};
    replacement r = {gpu, plan, {x, filter, y}};
    char name[MDM_CONVOLUTION_NAME], why[400];
    mdm_gpu_plan *aside;
    mdm_cudnn_plan found;
    snprintf(why, sizeof why, "%.390s", mdm_last_message());
    if (mdm_plan_cache_forget(gpu->cache, &plan->kind)) mdm_plan_cache_save(gpu->cache);
    MDM_TRY(MDM_ALLOCATE(aside, 1, "a plan"));
    mdm_status status = mdm_cudnn_find_one_that_runs(&target, &plan->kind, compute_by, &r, &found);
    if (status != MDM_OK) {
        free(aside);
        return status;
    }
    *aside = (mdm_gpu_plan){.cudnn = plan->cudnn, .next = gpu->plans};
    gpu->plans = aside;
    plan->cudnn = found;
    mdm_warn(
        "cuDNN's plan for %s failed (%s): engine %lld goes on in its place, perhaps slower; the next start "
        "measures anew",
        mdm_cudnn_name(&plan->kind, name), why, (long long)found.choice.engine);
    return MDM_OK;
}

/* In a recording, which may have failed for other reasons, nothing can be tried: it is given up, and launched
 * the step comes here again. */
static mdm_status settle(mdm_gpu *gpu, mdm_gpu_plan *plan, cudnnStatus_t code, void *x, void *filter,
                         void *y) {
    char name[MDM_CONVOLUTION_NAME], why[400];
    if (code == CUDNN_STATUS_SUCCESS) return MDM_OK;
    MDM_TRY(mdm_gpu_check_device(gpu, "a convolution"));
    note(gpu, code);
    if (!gpu->is_recording) return replace(gpu, plan, x, filter, y);
    snprintf(why, sizeof why, "%.390s", mdm_last_message());
    return mdm_fail(MDM_LOST, "cuDNN failed in %s, as a step was recorded: %s",
                    mdm_cudnn_name(&plan->kind, name), why);
}

/* Beside what is computed the library is told of the other stream for this call alone. */
static mdm_status convolve_beside(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    if (plan->kind.pass != MDM_GPU_BACKWARD_FILTER)
        return mdm_fail(MDM_LOST, "internal: only gradients of filters are computed beside the rest");
    cudnnStatus_t code = gpu->cudnn->cudnnSetStream(gpu->handle, gpu->queued_to);
    if (code == CUDNN_STATUS_SUCCESS) code = execute(gpu, &plan->cudnn, &gpu->workspace_beside, x, filter, y);
    cudnnStatus_t back = gpu->cudnn->cudnnSetStream(gpu->handle, gpu->stream);
    return settle(gpu, plan, code != CUDNN_STATUS_SUCCESS ? code : back, x, filter, y);
}

mdm_status mdm_gpu_convolve(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    MDM_TRY(mdm_gpu_check(gpu, cudaSuccess, "a convolution"));
    if (gpu->queued_to != gpu->stream) return convolve_beside(gpu, plan, x, filter, y);
    return settle(gpu, plan, execute(gpu, &plan->cudnn, &gpu->workspace, x, filter, y), x, filter, y);
}
