/* Plans that are built and then do not run (convolutions.c, cudnn_plans.c), over fake_runtime.h and a cuDNN
 * of engines that run or fail as they are told. */
#include "cuda/cublaslt.h"
#include "cuda/runtime.h"
#include "fake_runtime.h"
#include "mdm/base/log.h"
#include <string.h>

/* ---- cuDNN: the heuristics name engines 10 to 21, and as a fallback engine 0 ---- */

enum { FIRST = 10, COUNT = 12, LAST_RESORT = 0, ENGINES = FIRST + COUNT };

typedef struct object {
    int64_t engine;
    cudnnBackendHeurMode_t mode;
} object;

static struct {
    int fails[ENGINES], runs[ENGINES];
    int64_t workspace[ENGINES];
    int objects;        /* that there are */
    const object *held; /* by recorded steps; NULL once it is destroyed */
    void *operands[3];
} cudnn;

static cudnnStatus_t create_handle(cudnnHandle_t *handle) {
    *handle = (cudnnHandle_t)(void *)&cudnn;
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t destroy_handle(cudnnHandle_t handle) {
    (void)handle;
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t set_stream(cudnnHandle_t handle, cudaStream_t stream) {
    (void)handle, (void)stream;
    return CUDNN_STATUS_SUCCESS;
}
static size_t version(void) {
    return 91900;
}
static const char *words(cudnnStatus_t code) {
    return code == CUDNN_STATUS_SUCCESS ? "none" : "execution failed";
}
static void last_words(char *text, size_t size) {
    snprintf(text, size, "in a kernel");
}
static cudnnStatus_t create(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *made) {
    (void)type;
    *made = calloc(1, sizeof(object));
    cudnn.objects++;
    return *made ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_ALLOC_FAILED;
}
static cudnnStatus_t destroy(cudnnBackendDescriptor_t descriptor) {
    if (descriptor == cudnn.held) cudnn.held = NULL;
    free(descriptor);
    cudnn.objects--;
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t finalize(cudnnBackendDescriptor_t descriptor) {
    (void)descriptor;
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t count, const void *value) {
    object *o = descriptor, *other;
    (void)type;
    if (name == CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS) memcpy(cudnn.operands, value, sizeof cudnn.operands);
    if (name == CUDNN_ATTR_ENGINEHEUR_MODE) memcpy(&o->mode, value, sizeof o->mode);
    if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX) memcpy(&o->engine, value, sizeof o->engine);
    if (name == CUDNN_ATTR_ENGINECFG_ENGINE || name == CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG) {
        assert_int_equal(count, 1);
        memcpy(&other, value, sizeof other);
        o->engine = other->engine;
    }
    return CUDNN_STATUS_SUCCESS;
}
static void name_engines(cudnnBackendHeurMode_t mode, int64_t wanted, int64_t *count, object **list) {
    assert_true(mode == CUDNN_HEUR_MODE_A || mode == CUDNN_HEUR_MODE_FALLBACK);
    *count = mode == CUDNN_HEUR_MODE_A ? COUNT : 1;
    assert_true(wanted >= *count);
    for (int i = 0; i < *count; i++) list[i]->engine = mode == CUDNN_HEUR_MODE_A ? FIRST + i : LAST_RESORT;
}
static cudnnStatus_t get(const cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t wanted, int64_t *count, void *value) {
    const object *o = descriptor;
    (void)type;
    *count = 1;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS)
        name_engines(o->mode, wanted, count, value);
    else if (name == CUDNN_ATTR_ENGINECFG_ENGINE)
        (*(object **)value)->engine = o->engine;
    else if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX)
        memcpy(value, &o->engine, sizeof o->engine);
    else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
        memcpy(value, &cudnn.workspace[o->engine], sizeof(int64_t));
    else
        *count = 0; /* no notes, no knobs */
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t execute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                             cudnnBackendDescriptor_t pack) {
    const object *o = plan;
    (void)handle, (void)pack;
    cudnn.runs[o->engine]++;
    return cudnn.fails[o->engine] ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

mdm_status mdm_cudnn_load(const mdm_cudnn **table) {
    static const mdm_cudnn functions = {.cudnnGetVersion = version,
                                        .cudnnGetErrorString = words,
                                        .cudnnGetLastErrorString = last_words,
                                        .cudnnCreate = create_handle,
                                        .cudnnDestroy = destroy_handle,
                                        .cudnnSetStream = set_stream,
                                        .cudnnBackendCreateDescriptor = create,
                                        .cudnnBackendDestroyDescriptor = destroy,
                                        .cudnnBackendSetAttribute = set,
                                        .cudnnBackendGetAttribute = get,
                                        .cudnnBackendFinalize = finalize,
                                        .cudnnBackendExecute = execute};
    *table = &functions;
    return MDM_OK;
}

/* ---- what else the runtime opens ---- */

static cublasStatus_t create_cublaslt(cublasLtHandle_t *handle) {
    *handle = NULL;
    return CUBLAS_STATUS_SUCCESS;
}
mdm_status mdm_cublaslt_load(const mdm_cublaslt **table) {
    static const mdm_cublaslt functions = {.cublasLtCreate = create_cublaslt};
    *table = &functions;
    return MDM_OK;
}
void mdm_gpu_release_products(mdm_gpu *gpu) {
    (void)gpu;
}
int mdm_gpu_kernels_wait(void) {
    return 1;
}

/* ---- tests ---- */

static const mdm_gpu_convolution kind = {MDM_GPU_BACKWARD_FILTER, MDM_BF16, 2, 8, 8, 4, 4, 3, 1};
static char x, filter, y, warned[1000];

static void hear(void *context, const char *text) {
    (void)context;
    snprintf(warned, sizeof warned, "%s", text);
}

static mdm_gpu *open_gpu(void) {
    mdm_gpu *gpu;
    mdm_gpu_info info;
    memset(&cuda, 0, sizeof cuda);
    memset(&cudnn, 0, sizeof cudnn);
    warned[0] = '\0';
    mdm_log_set_warning_hook(hear, NULL);
    assert_int_equal(mdm_gpu_open(NUMBER, &gpu, &info), MDM_OK);
    return gpu;
}

static void close_gpu(mdm_gpu *gpu) {
    mdm_gpu_close(gpu);
    assert_int_equal(cuda.refused, 0);
    assert_int_equal(cudnn.objects, 0);
}

static mdm_status convolve(mdm_gpu *gpu, mdm_gpu_plan *plan) {
    memset(cudnn.operands, 0, sizeof cudnn.operands);
    mdm_status status = mdm_gpu_convolve(gpu, plan, &x, &filter, &y);
    if (status == MDM_OK)
        assert_true(cudnn.operands[0] == &x && cudnn.operands[1] == &filter && cudnn.operands[2] == &y);
    return status;
}

/* The plan of an earlier start. */
static mdm_gpu_plan *kept_plan(mdm_gpu *gpu, int64_t engine) {
    mdm_gpu_plan *plan;
    mdm_plan_cache_put(gpu->cache, &kind, &(mdm_plan_choice){.engine = engine});
    assert_int_equal(mdm_gpu_plan_convolution(gpu, &kind, &plan), MDM_OK);
    assert_int_equal(plan->cudnn.choice.engine, engine);
    assert_int_equal(cudnn.runs[engine], 0);
    return plan;
}

static void another_plan_goes_on_where_the_kept_one_fails(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    mdm_plan_choice found;
    mdm_gpu_plan *again, *plan = kept_plan(gpu, 11);
    int64_t frees = mdm_gpu_frees(gpu);
    cudnn.fails[11] = cudnn.fails[12] = 1;
    cudnn.held = plan->cudnn.plan;
    cudnn.workspace[10] = 1 << 20; /* for which recorded steps would lose their scratch memory */
    assert_int_equal(convolve(gpu, plan), MDM_OK);
    assert_int_equal(plan->cudnn.choice.engine, 13);
    assert_true(cudnn.runs[10] == 0 && cudnn.runs[11] == 1 && cudnn.runs[12] == 1 && cudnn.runs[13] == 1);
    assert_int_equal(mdm_gpu_frees(gpu), frees);
    assert_non_null(cudnn.held);
    assert_non_null(
        strstr(warned, "weight gradient of 2 pictures of 4x4, 8 to 8 channels, kernel 3, stride 1, in bf16 "
                       "failed (device 1: execution failed in a kernel): engine 13 goes on"));
    assert_false(mdm_plan_cache_find(gpu->cache, &kind, &found)); /* the next start measures */
    warned[0] = '\0';
    assert_int_equal(convolve(gpu, plan), MDM_OK);
    assert_true(cudnn.runs[11] == 1 && cudnn.runs[13] == 2 && !warned[0]);
    assert_int_equal(mdm_gpu_plan_convolution(gpu, &kind, &again), MDM_OK);
    assert_ptr_equal(again, plan);
    close_gpu(gpu);
}

/* It may have failed for other reasons, and steps are launched then. */
static void a_recording_tries_no_other_plan(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    mdm_gpu_graph *graph;
    mdm_plan_choice found;
    mdm_gpu_plan *plan = kept_plan(gpu, 11);
    cudnn.fails[11] = 1;
    assert_int_equal(mdm_gpu_begin_graph(gpu), MDM_OK);
    assert_int_equal(convolve(gpu, plan), MDM_LOST);
    assert_non_null(strstr(mdm_last_message(), "weight gradient of 2 pictures of 4x4, 8 to 8 channels"));
    assert_non_null(
        strstr(mdm_last_message(), "as a step was recorded: device 1: execution failed in a kernel"));
    assert_int_equal(mdm_gpu_end_graph(gpu, 0, &graph), MDM_OK);
    assert_true(mdm_plan_cache_find(gpu->cache, &kind, &found));
    assert_true(cudnn.runs[10] == 0 && !warned[0]);
    assert_int_equal(convolve(gpu, plan), MDM_OK);
    assert_int_equal(plan->cudnn.choice.engine, 10);
    close_gpu(gpu);
}

static void fail_all_but(int64_t engine) {
    for (int i = 0; i < ENGINES; i++) cudnn.fails[i] = i != engine;
}

static void the_fallback_goes_on_where_all_others_fail(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    mdm_gpu_plan *plan = kept_plan(gpu, 11);
    fail_all_but(LAST_RESORT);
    assert_int_equal(convolve(gpu, plan), MDM_OK);
    assert_int_equal(plan->cudnn.choice.engine, LAST_RESORT);
    fail_all_but(-1);
    assert_int_equal(convolve(gpu, plan), MDM_LOST);
    assert_non_null(
        strstr(mdm_last_message(), "none of cuDNN's plans runs for weight gradient of 2 pictures"));
    assert_non_null(
        strstr(mdm_last_message(), "device 1: execution failed in a kernel; another train.precision"));
    close_gpu(gpu);
}

/* Of the twelve the first eight are timed. */
static void what_does_not_run_when_it_is_timed_is_not_taken(void **state) {
    (void)state;
    const int64_t run[] = {12, FIRST + 10, LAST_RESORT};
    for (int i = 0; i < 3; i++) {
        mdm_gpu *gpu = open_gpu();
        mdm_gpu_plan *plan;
        mdm_plan_choice found;
        fail_all_but(run[i]);
        assert_int_equal(mdm_gpu_plan_convolution(gpu, &kind, &plan), MDM_OK);
        assert_true(mdm_plan_cache_find(gpu->cache, &kind, &found));
        assert_true(found.engine == run[i] && found.milliseconds > 0);
        assert_int_equal(convolve(gpu, plan), MDM_OK);
        close_gpu(gpu);
    }
    mdm_gpu *gpu = open_gpu();
    mdm_gpu_plan *plan;
    fail_all_but(-1);
    assert_int_equal(mdm_gpu_plan_convolution(gpu, &kind, &plan), MDM_LOST);
    assert_non_null(
        strstr(mdm_last_message(), "none of cuDNN's plans runs for weight gradient of 2 pictures"));
    assert_non_null(strstr(mdm_last_message(), "execution failed in a kernel"));
    close_gpu(gpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_plan_goes_on_where_the_kept_one_fails),
        cmocka_unit_test(a_recording_tries_no_other_plan),
        cmocka_unit_test(the_fallback_goes_on_where_all_others_fail),
        cmocka_unit_test(what_does_not_run_when_it_is_timed_is_not_taken),
    };
    setenv("MDM_CACHE_FOLDER", "", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
