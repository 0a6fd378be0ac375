/* A CUDA device that is lost: whatever notices it first, the line has the device's number and CUDA's own name
 * for the cause. The CUDA runtime, cuDNN and cuBLASLt are stubs here, and the backend's own code is the real
 * one.
 */
#include "cuda/cublaslt.h"
#include "cuda/runtime.h"
#include "golden.h"
#include <string.h>

enum { NUMBER = 3 };
static const char cause[] = "unspecified launch failure (cudaErrorLaunchFailure)";

static cudaError_t state;                                       /* of the device: every call answers so */
static cudaError_t end_of_capture;                              /* of a recording, on a sound device */
static cublasStatus_t cublaslt_answers = CUBLAS_STATUS_SUCCESS; /* on a sound device too */

/* ---- the CUDA runtime ---- */

#define STUB(name, parameters)                                                                               \
    cudaError_t name parameters {                                                                            \
        return state;                                                                                        \
    }
#pragma GCC diagnostic ignored "-Wunused-parameter"
STUB(cudaGetDeviceCount, (int *count))
STUB(cudaDriverGetVersion, (int *version))
STUB(cudaGetLastError, (void))
STUB(cudaGetDeviceProperties, (struct cudaDeviceProp * properties, int number))
STUB(cudaRuntimeGetVersion, (int *version))
STUB(cudaSetDevice, (int number))
STUB(cudaStreamCreateWithFlags, (cudaStream_t * stream, unsigned flags))
STUB(cudaStreamDestroy, (cudaStream_t stream))
STUB(cudaStreamSynchronize, (cudaStream_t stream))
STUB(cudaStreamQuery, (cudaStream_t stream))
STUB(cudaStreamWaitEvent, (cudaStream_t stream, cudaEvent_t event, unsigned flags))
STUB(cudaEventCreate, (cudaEvent_t * event))
STUB(cudaEventCreateWithFlags, (cudaEvent_t * event, unsigned flags))
STUB(cudaEventDestroy, (cudaEvent_t event))
STUB(cudaEventRecord, (cudaEvent_t event, cudaStream_t stream))
STUB(cudaEventSynchronize, (cudaEvent_t event))
STUB(cudaEventQuery, (cudaEvent_t event))
STUB(cudaEventElapsedTime, (float *milliseconds, cudaEvent_t begin, cudaEvent_t end))
STUB(cudaMemGetInfo, (size_t * left, size_t *total))
STUB(cudaMalloc, (void **memory, size_t bytes))
STUB(cudaFree, (void *memory))
STUB(cudaHostAlloc, (void **memory, size_t bytes, unsigned flags))
STUB(cudaFreeHost, (void *memory))
STUB(cudaMemcpyAsync,
     (void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream))
STUB(cudaMemsetAsync, (void *memory, int value, size_t bytes, cudaStream_t stream))
STUB(cudaStreamBeginCapture, (cudaStream_t stream, enum cudaStreamCaptureMode mode))
STUB(cudaGraphInstantiate, (cudaGraphExec_t * exec, cudaGraph_t graph, unsigned long long flags))
STUB(cudaGraphUpload, (cudaGraphExec_t exec, cudaStream_t stream))
STUB(cudaGraphLaunch, (cudaGraphExec_t exec, cudaStream_t stream))
STUB(cudaGraphDestroy, (cudaGraph_t graph))
STUB(cudaGraphExecDestroy, (cudaGraphExec_t exec))

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    return state != cudaSuccess ? state : end_of_capture;
}

const char *cudaGetErrorString(cudaError_t code) {
    return code == cudaErrorLaunchFailure ? "unspecified launch failure" : "another failure";
}

const char *cudaGetErrorName(cudaError_t code) {
    return code == cudaErrorLaunchFailure ? "cudaErrorLaunchFailure" : "cudaErrorOfAnotherKind";
}

int mdm_gpu_kernels_wait(void) {
    return 1;
}

/* Kernels are queued on a stream that takes everything. */
void mdm_gpu_add_bias(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const mdm_bias_arguments *a) {
}

/* ---- the libraries ---- */

static cudaStream_t stream_told, stream_of_convolution;
static void *workspace_told;
static cudnnStatus_t execution_answers = CUDNN_STATUS_SUCCESS;

static cudnnStatus_t create_descriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *made) {
    return state != cudaSuccess ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t set_attribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                   cudnnBackendAttributeType_t type, int64_t count, const void *value) {
    if (name == CUDNN_ATTR_VARIANT_PACK_WORKSPACE) memcpy(&workspace_told, value, sizeof workspace_told);
    return CUDNN_STATUS_SUCCESS;
}

/* Nothing is named. */
static cudnnStatus_t get_attribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                   cudnnBackendAttributeType_t type, int64_t wanted, int64_t *count,
                                   void *value) {
    *count = 0;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finalize(cudnnBackendDescriptor_t descriptor) {
    return CUDNN_STATUS_SUCCESS;
}

/* The library remembers its stream, and on which one it was asked for something. */
static cudnnStatus_t set_stream(cudnnHandle_t handle, cudaStream_t stream) {
    stream_told = stream;
    return state != cudaSuccess ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t execute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                             cudnnBackendDescriptor_t pack) {
    stream_of_convolution = stream_told;
    return state != cudaSuccess ? CUDNN_STATUS_EXECUTION_FAILED : execution_answers;
}

static cudnnStatus_t destroy_descriptor(cudnnBackendDescriptor_t descriptor) {
    return CUDNN_STATUS_SUCCESS;
}

static void last_words(char *text, size_t size) {
    snprintf(text, size, "what it says last");
}

static const char *cudnn_words(cudnnStatus_t code) {
    return "cuDNN's words";
}

static cublasStatus_t multiply(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha,
                               const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                               cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                               cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                               const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t bytes,
                               cudaStream_t stream) {
    return state != cudaSuccess ? CUBLAS_STATUS_EXECUTION_FAILED : cublaslt_answers;
}

static cublasStatus_t describe(cublasLtMatmulDesc_t *operation, cublasComputeType_t kind, cudaDataType type) {
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                          const void *value, size_t size) {
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t lay_out(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                              uint64_t columns, int64_t step) {
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t prefer(cublasLtMatmulPreference_t *preference) {
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t set_preference(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                     size_t size) {
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t forget_preference(cublasLtMatmulPreference_t preference) {
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t find_algorithm(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                     cublasLtMatmulPreference_t preference, int wanted,
                                     cublasLtMatmulHeuristicResult_t *found, int *count) {
    *count = 1;
    return state != cudaSuccess ? CUBLAS_STATUS_INTERNAL_ERROR : CUBLAS_STATUS_SUCCESS;
}

static const char *cublaslt_words(cublasStatus_t code) {
    return "cuBLASLt's words";
}

static const mdm_cudnn cudnn = {.cudnnBackendCreateDescriptor = create_descriptor,
                                .cudnnBackendDestroyDescriptor = destroy_descriptor,
                                .cudnnBackendSetAttribute = set_attribute,
                                .cudnnBackendGetAttribute = get_attribute,
                                .cudnnBackendFinalize = finalize,
                                .cudnnBackendExecute = execute,
                                .cudnnSetStream = set_stream,
                                .cudnnGetLastErrorString = last_words,
                                .cudnnGetErrorString = cudnn_words};
static const mdm_cublaslt cublaslt = {.cublasLtMatmul = multiply,
                                      .cublasLtMatmulDescCreate = describe,
                                      .cublasLtMatmulDescSetAttribute = set,
                                      .cublasLtMatrixLayoutCreate = lay_out,
                                      .cublasLtMatmulPreferenceCreate = prefer,
                                      .cublasLtMatmulPreferenceSetAttribute = set_preference,
                                      .cublasLtMatmulPreferenceDestroy = forget_preference,
                                      .cublasLtMatmulAlgoGetHeuristic = find_algorithm,
                                      .cublasLtGetStatusString = cublaslt_words};

/* No library is looked for. */
mdm_status mdm_cudnn_load(const mdm_cudnn **table) {
    *table = &cudnn;
    return MDM_OK;
}

mdm_status mdm_cublaslt_load(const mdm_cublaslt **table) {
    *table = &cublaslt;
    return MDM_OK;
}

const char *mdm_precision_name(mdm_precision precision) {
    return "fp32";
}

/* ---- the tests ---- */

static mdm_plan_cache *cache; /* of nothing */

static int open_cache(void **unused) {
    return mdm_plan_cache_open("", "a stub", &cache) != MDM_OK;
}

static int close_cache(void **unused) {
    mdm_plan_cache_close(cache);
    return 0;
}

static mdm_gpu a_device(void) {
    return (mdm_gpu){.number = NUMBER, .cudnn = &cudnn, .cublaslt = &cublaslt, .cache = cache};
}

static int look_again;
static char streams[2];

static void look_on(void *context) {
}

static mdm_status look(void *context) {
    look_again++;
    return MDM_OK;
}

static const mdm_gpu_guard guard = {look_on, look, look_on, NULL};
static mdm_gpu_mark *mark;
static mdm_gpu_product *product;
static mdm_gpu_graph *graph;
static const mdm_product_shape shape = {.precision = MDM_FP32, .m = 4, .n = 4, .k = 4};

static void make_what_calls_need(mdm_gpu *gpu) {
    state = cudaSuccess;
    assert_int_equal(mdm_gpu_create_mark(gpu, &mark), MDM_OK);
    assert_int_equal(mdm_gpu_plan_product(gpu, &shape, &product), MDM_OK);
    assert_int_equal(mdm_gpu_begin_graph(gpu), MDM_OK);
    assert_int_equal(mdm_gpu_end_graph(gpu, 1, &graph), MDM_OK);
}

static void put_away(mdm_gpu *gpu) {
    state = cudaSuccess;
    mdm_gpu_destroy_mark(gpu, mark);
    mdm_gpu_destroy_graph(gpu, graph);
    mdm_gpu_release_products(gpu);
}

static mdm_status allocate(mdm_gpu *gpu) {
    void *memory;
    return mdm_gpu_allocate(gpu, 64, "a tensor", &memory);
}

static mdm_status pin(mdm_gpu *gpu) {
    void *memory;
    return mdm_gpu_pin(gpu, 64, "pictures", &memory);
}

static mdm_status upload(mdm_gpu *gpu) {
    return mdm_gpu_upload(gpu, NULL, NULL, 64);
}

static mdm_status download(mdm_gpu *gpu) {
    return mdm_gpu_download(gpu, NULL, NULL, 64);
}

static mdm_status download_under_guard(mdm_gpu *gpu) {
    mdm_gpu_set_guard(gpu, &guard);
    mdm_status status = mdm_gpu_download(gpu, NULL, NULL, 64);
    mdm_gpu_set_guard(gpu, NULL);
    return status;
}

static mdm_status send(mdm_gpu *gpu) {
    return mdm_gpu_send(gpu, MDM_GPU_SENDING, NULL, NULL, 64);
}

static mdm_status record(mdm_gpu *gpu) {
    return mdm_gpu_record(gpu, MDM_GPU_COMPUTING, mark);
}

static mdm_status follow(mdm_gpu *gpu) {
    return mdm_gpu_follow(gpu, MDM_GPU_COMMUNICATING, mark);
}

static mdm_status await(mdm_gpu *gpu) {
    return mdm_gpu_await(gpu, mark);
}

static mdm_status make_mark(mdm_gpu *gpu) {
    mdm_gpu_mark *another;
    return mdm_gpu_create_mark(gpu, &another);
}

static mdm_status convolve(mdm_gpu *gpu) {
    mdm_gpu_plan plan = {.kind = {.batch = 1, .kernel = 1, .stride = 1}};
    return mdm_gpu_convolve(gpu, &plan, NULL, NULL, NULL);
}

static mdm_status convolve_beside(mdm_gpu *gpu) {
    mdm_gpu_plan plan = {.kind = {.batch = 1, .kernel = 1, .stride = 1, .pass = MDM_GPU_BACKWARD_FILTER}};
    gpu->stream = (cudaStream_t)(void *)&streams[0];
    gpu->beside = (cudaStream_t)(void *)&streams[1];
    mdm_gpu_turn_to(gpu, MDM_GPU_BESIDE);
    mdm_status status = mdm_gpu_convolve(gpu, &plan, NULL, NULL, NULL);
    mdm_gpu_turn_to(gpu, MDM_GPU_COMPUTING);
    return status;
}

static mdm_status plan_convolution(mdm_gpu *gpu) {
    const mdm_gpu_convolution kind = {
        .batch = 1, .in = 8, .out = 8, .height = 4, .width = 4, .kernel = 3, .stride = 1};
    mdm_gpu_plan *plan;
    return mdm_gpu_plan_convolution(gpu, &kind, &plan);
}

static mdm_status multiply_matrices(mdm_gpu *gpu) {
    return mdm_gpu_multiply(gpu, product, 1, NULL, NULL, 0, NULL, NULL);
}

static mdm_status plan_product(mdm_gpu *gpu) {
    const mdm_product_shape other = {.precision = MDM_FP32, .m = 8, .n = 4, .k = 4};
    mdm_gpu_product *planned;
    return mdm_gpu_plan_product(gpu, &other, &planned);
}

static mdm_status begin_graph(mdm_gpu *gpu) {
    return mdm_gpu_begin_graph(gpu);
}

static mdm_status end_graph(mdm_gpu *gpu) {
    mdm_gpu_graph *made;
    return mdm_gpu_end_graph(gpu, 1, &made);
}

static mdm_status end_graph_that_is_not_kept(mdm_gpu *gpu) {
    mdm_gpu_graph *made;
    return mdm_gpu_end_graph(gpu, 0, &made);
}

static mdm_status launch_graph(mdm_gpu *gpu) {
    return mdm_gpu_launch_graph(gpu, graph, 1);
}

static mdm_status take_the_time_of_a_graph(mdm_gpu *gpu) {
    double milliseconds;
    return mdm_gpu_graph_milliseconds(gpu, &milliseconds);
}

static mdm_status enter(mdm_gpu *gpu) {
    return mdm_gpu_enter(gpu);
}

static mdm_status ask(mdm_gpu *gpu) {
    return mdm_gpu_check_device(gpu, "what came before");
}

static void every_call_on_a_lost_device_names_it_and_the_cause(void **unused) {
    (void)unused;
    static mdm_status (*const calls[])(mdm_gpu *) = {allocate,
                                                     pin,
                                                     upload,
                                                     download,
                                                     download_under_guard,
                                                     send,
                                                     record,
                                                     follow,
                                                     await,
                                                     make_mark,
                                                     convolve,
                                                     convolve_beside,
                                                     plan_convolution,
                                                     multiply_matrices,
                                                     plan_product,
                                                     begin_graph,
                                                     end_graph,
                                                     end_graph_that_is_not_kept,
                                                     launch_graph,
                                                     take_the_time_of_a_graph,
                                                     enter,
                                                     ask};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        mdm_gpu gpu = a_device();
        make_what_calls_need(&gpu);
        state = cudaErrorLaunchFailure;
        mdm_status status = calls[i](&gpu);
        const char *told = mdm_last_message();
        if (status != MDM_LOST || !strstr(told, "CUDA device 3 failed in ") || !strstr(told, cause))
            fail_msg("call %zu: %d, %s", i, (int)status, told);
        put_away(&gpu);
    }
}

static void what_cannot_fail_by_itself_is_told_by_the_next_call(void **unused) {
    (void)unused;
    static const char *const places[] = {"zeroing memory", "copying memory", "the kernel of a test"};
    for (int i = 0; i < 3; i++) {
        mdm_gpu gpu = a_device();
        state = cudaErrorLaunchFailure;
        if (i == 0) mdm_gpu_zero(&gpu, NULL, 64);
        if (i == 1) mdm_gpu_copy(&gpu, NULL, NULL, 64);
        if (i == 2) mdm_gpu_note(&gpu, state, places[2]);
        state = cudaErrorUnknown; /* the first failure is the one that counts */
        assert_int_equal(download(&gpu), MDM_LOST);
        assert_non_null(strstr(mdm_last_message(), places[i]));
        assert_non_null(strstr(mdm_last_message(), cause));
    }
}

static void libraries_that_fail_on_a_sound_device_have_their_own_words(void **unused) {
    (void)unused;
    mdm_gpu gpu = a_device();
    make_what_calls_need(&gpu);
    execution_answers = CUDNN_STATUS_NOT_SUPPORTED;
    cublaslt_answers = CUBLAS_STATUS_NOT_SUPPORTED;
    assert_int_equal(convolve(&gpu), MDM_LOST);
    assert_non_null(strstr(mdm_last_message(), "device 3: cuDNN's words what it says last"));
    assert_int_equal(multiply_matrices(&gpu), MDM_LOST);
    assert_non_null(strstr(mdm_last_message(), "device 3: cuBLASLt's words"));
    execution_answers = CUDNN_STATUS_SUCCESS;
    cublaslt_answers = CUBLAS_STATUS_SUCCESS;
    put_away(&gpu);
}

/* And scratch memory of its own; what comes next is where it was, whether that failed or not. */
static void a_gradient_of_filters_beside_the_rest_has_the_other_stream_for_itself(void **unused) {
    (void)unused;
    char scratch[2];
    mdm_gpu gpu = a_device();
    mdm_gpu_plan forward = {.kind = {.batch = 1, .pass = MDM_GPU_FORWARD}};
    state = cudaSuccess;
    gpu.workspace.memory = &scratch[0];
    gpu.workspace_beside.memory = &scratch[1];
    for (int fails = 0; fails < 2; fails++) {
        execution_answers = fails ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
        assert_int_equal(convolve_beside(&gpu), fails ? MDM_LOST : MDM_OK);
        assert_ptr_equal(stream_of_convolution, gpu.beside);
        assert_ptr_equal(workspace_told, &scratch[1]);
        execution_answers = CUDNN_STATUS_SUCCESS;
        assert_int_equal(mdm_gpu_convolve(&gpu, &forward, NULL, NULL, NULL), MDM_OK);
        assert_ptr_equal(stream_of_convolution, gpu.stream);
        assert_ptr_equal(workspace_told, &scratch[0]);
    }
    mdm_gpu_turn_to(&gpu, MDM_GPU_BESIDE);
    assert_int_equal(mdm_gpu_convolve(&gpu, &forward, NULL, NULL, NULL), MDM_LOST);
    assert_non_null(strstr(mdm_last_message(), "only gradients of filters"));
}

/* Then steps are launched kernel by kernel. */
static void a_graph_that_fails_on_a_sound_device_is_no_loss(void **unused) {
    (void)unused;
    mdm_gpu gpu = a_device();
    mdm_gpu_graph *made;
    state = cudaSuccess;
    end_of_capture = cudaErrorStreamCaptureInvalidated;
    assert_int_equal(mdm_gpu_begin_graph(&gpu), MDM_OK);
    assert_int_equal(mdm_gpu_end_graph(&gpu, 1, &made), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "a graph of CUDA device 3 failed in its end"));
    end_of_capture = cudaSuccess;
}

/* A query in the midst of a recording would end it. */
static void a_recording_is_not_asked(void **unused) {
    (void)unused;
    mdm_gpu gpu = a_device();
    state = cudaSuccess;
    assert_int_equal(mdm_gpu_begin_graph(&gpu), MDM_OK);
    state = cudaErrorStreamCaptureUnsupported;
    assert_int_equal(ask(&gpu), MDM_OK);
    state = cudaSuccess;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_on_a_lost_device_names_it_and_the_cause),
        cmocka_unit_test(what_cannot_fail_by_itself_is_told_by_the_next_call),
        cmocka_unit_test(libraries_that_fail_on_a_sound_device_have_their_own_words),
        cmocka_unit_test(a_gradient_of_filters_beside_the_rest_has_the_other_stream_for_itself),
        cmocka_unit_test(a_graph_that_fails_on_a_sound_device_is_no_loss),
        cmocka_unit_test(a_recording_is_not_asked),
    };
    return cmocka_run_group_tests(tests, open_cache, close_cache);
}
