/* The runtime of the CUDA backend (runtime.c, graph.c, products.c) over fake_runtime.h. */
#include "cuda/cublaslt.h"
#include "cuda/runtime.h"
#include "fake_runtime.h"
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- what else the runtime opens ---- */

static cudnnStatus_t cudnn_starts = CUDNN_STATUS_SUCCESS;

static cudnnStatus_t create_cudnn(cudnnHandle_t *handle) {
    *handle = NULL;
    return cudnn_starts;
}
static const char *cudnn_words(cudnnStatus_t code) {
    return code == CUDNN_STATUS_SUCCESS ? "none" : "a library is missing";
}
static void cudnn_last_words(char *text, size_t size) {
    snprintf(text, size, "libcudnn_graph.so.9");
}
static cudnnStatus_t set_cudnn_stream(cudnnHandle_t handle, cudaStream_t stream) {
    (void)handle, (void)stream;
    return CUDNN_STATUS_SUCCESS;
}
static size_t cudnn_version(void) {
    return 91900;
}
static cublasStatus_t create_cublaslt(cublasLtHandle_t *handle) {
    *handle = NULL;
    return CUBLAS_STATUS_SUCCESS;
}

static int kernels_wait = 1;

int mdm_gpu_kernels_wait(void) {
    return kernels_wait;
}

/* A library of products that knows an algorithm where these say so. */
static struct {
    int has_bias, has_unaligned;   /* what it knows */
    int adds_bias, alignment;      /* what is asked for */
    int products, biases, kernels; /* runs; those that add the bias; our kernel */
    int bias_alignment, used;      /* what was said of it; the alignment of the latest run's algorithm */
} lt;

static cublasStatus_t make_operation(cublasLtMatmulDesc_t *operation, cublasComputeType_t compute,
                                     cudaDataType_t scale) {
    (void)compute, (void)scale;
    *operation = (cublasLtMatmulDesc_t)(void *)&lt;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t set_operation(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                    const void *value, size_t bytes) {
    cublasLtEpilogue_t epilogue;
    const void *bias;
    (void)operation;
    if (attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER) {
        assert_int_equal(bytes, sizeof bias);
        memcpy(&bias, value, sizeof bias);
        lt.bias_alignment = (uintptr_t)bias % 16 == 0 ? 16 : 4;
    }
    if (attribute != CUBLASLT_MATMUL_DESC_EPILOGUE) return CUBLAS_STATUS_SUCCESS;
    assert_int_equal(bytes, sizeof epilogue);
    memcpy(&epilogue, value, sizeof epilogue);
    lt.adds_bias = epilogue == CUBLASLT_EPILOGUE_BIAS;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t destroy_operation(cublasLtMatmulDesc_t operation) {
    (void)operation;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t make_matrix(cublasLtMatrixLayout_t *matrix, cudaDataType type, uint64_t rows,
                                  uint64_t columns, int64_t stride) {
    (void)type, (void)rows, (void)columns, (void)stride;
    *matrix = (cublasLtMatrixLayout_t)(void *)&lt;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t destroy_matrix(cublasLtMatrixLayout_t matrix) {
    (void)matrix;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t make_preference(cublasLtMatmulPreference_t *preference) {
    *preference = (cublasLtMatmulPreference_t)(void *)&lt;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t set_preference(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                     size_t bytes) {
    uint32_t alignment;
    (void)preference;
    if (attribute != CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) return CUBLAS_STATUS_SUCCESS;
    assert_int_equal(bytes, sizeof alignment);
    memcpy(&alignment, value, sizeof alignment);
    lt.alignment = (int)alignment;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t destroy_preference(cublasLtMatmulPreference_t preference) {
    (void)preference;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t find_algorithm(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                     cublasLtMatmulPreference_t preference, int most,
                                     cublasLtMatmulHeuristicResult_t *found, int *count) {
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference, (void)most;
    *count = (lt.has_bias || !lt.adds_bias) && (lt.has_unaligned || lt.alignment >= 16);
    found->state = CUBLAS_STATUS_SUCCESS;
    if (lt.adds_bias) assert_int_equal(lt.bias_alignment, lt.alignment);
    found->algo.data[0] = (uint64_t)lt.alignment;
    return *count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
static cublasStatus_t multiply(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha,
                               const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                               cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                               cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                               const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t bytes,
                               cudaStream_t stream) {
    (void)handle, (void)operation, (void)alpha, (void)a, (void)a_layout, (void)b, (void)b_layout;
    (void)beta, (void)c, (void)c_layout, (void)d, (void)d_layout, (void)workspace, (void)bytes, (void)stream;
    lt.used = (int)algorithm->data[0];
    if (lt.adds_bias) assert_true(lt.bias_alignment >= lt.used); /* whole words of it are read */
    lt.products++;
    lt.biases += lt.adds_bias;
    return CUBLAS_STATUS_SUCCESS;
}
static const char *tell_status(cublasStatus_t code) {
    return code == CUBLAS_STATUS_SUCCESS ? "none" : "not supported";
}
void mdm_gpu_add_bias(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const mdm_bias_arguments *a) {
    (void)gpu;
    assert_true(block_rows == 1 && blocks * MDM_GPU_THREADS >= a->count && a->count % a->columns == 0);
    lt.kernels++;
}

mdm_status mdm_cudnn_load(const mdm_cudnn **cudnn) {
    static const mdm_cudnn table = {.cudnnCreate = create_cudnn,
                                    .cudnnSetStream = set_cudnn_stream,
                                    .cudnnGetVersion = cudnn_version,
                                    .cudnnGetErrorString = cudnn_words,
                                    .cudnnGetLastErrorString = cudnn_last_words};
    *cudnn = &table;
    return MDM_OK;
}
mdm_status mdm_cublaslt_load(const mdm_cublaslt **cublaslt) {
    static const mdm_cublaslt table = {.cublasLtCreate = create_cublaslt,
                                       .cublasLtGetStatusString = tell_status,
                                       .cublasLtMatmulDescCreate = make_operation,
                                       .cublasLtMatmulDescSetAttribute = set_operation,
                                       .cublasLtMatmulDescDestroy = destroy_operation,
                                       .cublasLtMatrixLayoutCreate = make_matrix,
                                       .cublasLtMatrixLayoutDestroy = destroy_matrix,
                                       .cublasLtMatmulPreferenceCreate = make_preference,
                                       .cublasLtMatmulPreferenceSetAttribute = set_preference,
                                       .cublasLtMatmulPreferenceDestroy = destroy_preference,
                                       .cublasLtMatmulAlgoGetHeuristic = find_algorithm,
                                       .cublasLtMatmul = multiply};
    *cublaslt = &table;
    return MDM_OK;
}
void mdm_gpu_release_plans(mdm_gpu *gpu) {
    (void)gpu;
}

/* ---- tests ---- */

static mdm_gpu *open_gpu(void) {
    mdm_gpu *gpu;
    mdm_gpu_info info;
    memset(&cuda, 0, sizeof cuda);
    current = 0;
    last_error = cudaSuccess;
    assert_int_equal(mdm_gpu_open(NUMBER, &gpu, &info), MDM_OK);
    return gpu;
}

static void close_gpu(mdm_gpu *gpu) {
    assert_int_equal(cuda.refused, 0);
    assert_int_equal(cuda.graphs, 0);
    assert_int_equal(cuda.executables, 0);
    assert_false(cuda.has_context[0]);
    mdm_gpu_close(gpu);
    assert_false(cuda.has_context[0]);
}

static int looks;

static void begin_looking(void *context) {
    (void)context;
}

/* Gives up at the tenth look. */
static mdm_status look(void *context) {
    (void)context;
    return ++looks < 10 ? MDM_OK : mdm_fail(MDM_LOST, "nobody waits any longer");
}

static const mdm_gpu_guard guard = {begin_looking, look, begin_looking, NULL};

static void a_wait_that_is_looked_after_leaves_no_error_behind(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    void *memory;
    int number = 5;
    assert_int_equal(mdm_gpu_allocate(gpu, sizeof number, "a test", &memory), MDM_OK);
    mdm_gpu_set_guard(gpu, &guard);
    looks = 0;
    cuda.busy = 4;
    assert_int_equal(mdm_gpu_download(gpu, &number, memory, sizeof number), MDM_OK);
    assert_int_equal(looks, 4);
    assert_int_equal(number, 0);
    /* what a launch would take for its own failure */
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    cuda.busy = 1000;
    looks = 0;
    assert_int_equal(mdm_gpu_download(gpu, &number, memory, sizeof number), MDM_LOST);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    cuda.busy = 0;
    mdm_gpu_set_guard(gpu, NULL);
    mdm_gpu_free(gpu, memory);
    close_gpu(gpu);
}

static void what_is_uploaded_may_be_changed_at_once(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    void *memory;
    int number, back;
    assert_int_equal(mdm_gpu_allocate(gpu, sizeof number, "a test", &memory), MDM_OK);
    for (int guarded = 0; guarded < 2; guarded++) {
        if (guarded) mdm_gpu_set_guard(gpu, &guard);
        number = 41 + guarded;
        looks = 0;
        cuda.busy = guarded ? 3 : 0;
        assert_int_equal(mdm_gpu_upload(gpu, memory, &number, sizeof number), MDM_OK);
        number = -1;
        assert_int_equal(mdm_gpu_download(gpu, &back, memory, sizeof back), MDM_OK);
        assert_int_equal(back, 41 + guarded);
    }
    mdm_gpu_set_guard(gpu, NULL);
    mdm_gpu_free(gpu, memory);
    close_gpu(gpu);
}

/* As after a library's call that did not work out while others are under way. */
static void looking_after_the_device_leaves_no_error_behind(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    cuda.busy = 1;
    assert_int_equal(mdm_gpu_check_device(gpu, "a test"), MDM_OK);
    assert_int_equal(cuda.busy, 0);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    close_gpu(gpu);
}

/* One that works or is plainly not there, and one that a user believes to have. */
static void a_device_that_cannot_be_used_is_told_from_none(void **state) {
    (void)state;
    const struct {
        cudaError_t code;
        int driver, is_unusable;
        const char *words;
    } cases[] = {{cudaErrorNoDevice, 13000, 0, "there is no CUDA device here"},
                 {cudaErrorInsufficientDriver, 0, 0, "there is no NVIDIA driver here"},
                 {cudaErrorInsufficientDriver, 12040, 1, "is one for CUDA 12.4, this program needs CUDA "},
                 {cudaErrorSystemNotReady, 13000, 1, "an error (an error); on a node with NVSwitch"},
                 {cudaErrorUnknown, 13000, 1, "an error (an error)"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[192];
        int is_unusable = -1;
        memset(&cuda, 0, sizeof cuda);
        cuda.counting = cases[i].code;
        cuda.driver = cases[i].driver;
        assert_int_equal(mdm_gpu_count(why, sizeof why, &is_unusable), 0);
        assert_int_equal(is_unusable, cases[i].is_unusable);
        assert_non_null(strstr(why, cases[i].words));
        assert_int_equal(mdm_gpu_count(NULL, 0, NULL), 0);
        assert_int_equal(cudaGetLastError(), cudaSuccess);
    }
}

static void a_device_that_another_process_has_is_no_lost_one(void **state) {
    (void)state;
    mdm_gpu *gpu;
    mdm_gpu_info info;
    memset(&cuda, 0, sizeof cuda);
    cuda.choosing = cudaErrorDevicesUnavailable;
    assert_int_equal(mdm_gpu_open(NUMBER, &gpu, &info), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "CUDA device 1 (device 1) cannot be opened"));
    assert_non_null(strstr(mdm_last_message(), "compute mode"));
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static void a_cudnn_that_does_not_start_says_why(void **state) {
    (void)state;
    mdm_gpu *gpu;
    mdm_gpu_info info;
    memset(&cuda, 0, sizeof cuda);
    cudnn_starts = CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED;
    assert_int_equal(mdm_gpu_open(NUMBER, &gpu, &info), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "device 1: a library is missing libcudnn_graph.so.9"));
    cudnn_starts = CUDNN_STATUS_SUCCESS;
}

/* A plan is tried that there is no memory for, after another was kept. */
static void scratch_memory_of_plans_that_are_kept_survives_a_trial(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    assert_int_equal(mdm_gpu_grow_workspace(gpu, &gpu->workspace, 4096, 1), MDM_OK);
    cuda.most_bytes = 8192;
    assert_int_equal(mdm_gpu_grow_workspace(gpu, &gpu->workspace, 1 << 20, 0), MDM_RESOURCE);
    assert_int_equal(mdm_gpu_grow_workspace(gpu, &gpu->workspace, 512, 1), MDM_OK);
    assert_true(gpu->workspace.memory && gpu->workspace.bytes >= 4096);
    close_gpu(gpu);
}

typedef struct sending {
    mdm_gpu *gpu;
    mdm_gpu_mark *sent, *used;
    void *memory, *pinned;
    int step; /* the one call that the thread makes */
} sending;

/* A program built for older devices alone, whose code the driver compiles for this one. */
static void kernels_that_do_not_wait_are_never_launched_early(void **state) {
    (void)state;
    for (kernels_wait = 0; kernels_wait < 2; kernels_wait++) {
        mdm_gpu *gpu = open_gpu();
        mdm_gpu_launch_early(gpu, 1);
        assert_int_equal(mdm_gpu_can_launch_early(gpu), kernels_wait);
        assert_int_equal(gpu->launches_early, kernels_wait);
        close_gpu(gpu);
    }
    kernels_wait = 1;
}

static void *call_once(void *context) {
    sending *s = context;
    mdm_status status = s->step == 0   ? mdm_gpu_await(s->gpu, s->sent)
                        : s->step == 1 ? mdm_gpu_follow(s->gpu, MDM_GPU_SENDING, s->used)
                        : s->step == 2 ? mdm_gpu_send(s->gpu, MDM_GPU_SENDING, s->memory, s->pinned, 1)
                        : s->step == 3 ? mdm_gpu_enter(s->gpu)
                                       : mdm_gpu_record(s->gpu, MDM_GPU_SENDING, s->sent);
    if (current != NUMBER) status = MDM_LOST;
    return (void *)(intptr_t)status;
}

/* Whichever call a new thread makes first. */
static void other_threads_use_the_devices_context_alone(void **state) {
    (void)state;
    sending s = {.gpu = open_gpu()};
    assert_int_equal(mdm_gpu_allocate(s.gpu, 1, "a test", &s.memory), MDM_OK);
    assert_int_equal(mdm_gpu_pin(s.gpu, 1, "a test", &s.pinned), MDM_OK);
    assert_int_equal(mdm_gpu_create_mark(s.gpu, &s.sent), MDM_OK);
    assert_int_equal(mdm_gpu_create_mark(s.gpu, &s.used), MDM_OK);
    for (s.step = 0; s.step < 5; s.step++) {
        pthread_t thread;
        void *status;
        assert_int_equal(pthread_create(&thread, NULL, call_once, &s), 0);
        assert_int_equal(pthread_join(thread, &status), 0);
        assert_int_equal((intptr_t)status, MDM_OK);
        assert_false(cuda.has_context[0]);
    }
    mdm_gpu_destroy_mark(s.gpu, s.sent);
    mdm_gpu_destroy_mark(s.gpu, s.used);
    mdm_gpu_unpin(s.gpu, s.pinned);
    mdm_gpu_free(s.gpu, s.memory);
    close_gpu(s.gpu);
}

/* CUDA's own calls that free memory need not wait for it. */
static void memory_is_freed_when_nothing_queued_reads_it(void **state) {
    (void)state;
    mdm_gpu *gpu = open_gpu();
    char read = 0, *pinned, *memory;
    assert_int_equal(mdm_gpu_pin(gpu, 1, "a test", (void **)&pinned), MDM_OK);
    assert_int_equal(mdm_gpu_allocate(gpu, 1, "a test", (void **)&memory), MDM_OK);
    *pinned = *memory = 7;
    assert_int_equal(mdm_gpu_send(gpu, MDM_GPU_SENDING, &read, pinned, 1), MDM_OK);
    mdm_gpu_unpin(gpu, pinned);
    assert_true(read == 7 && cuda.waits == QUEUES && cuda.host_frees == 1);
    read = 0;
    mdm_gpu_copy(gpu, &read, memory, 1);
    mdm_gpu_free(gpu, memory);
    assert_true(read == 7 && cuda.waits == 2 * QUEUES && cuda.frees == 1);
    close_gpu(gpu);
}

/* Nor is memory given back, which would wait for it. */
static void a_device_that_was_given_up_is_waited_for_no_more(void **state) {
    (void)state;
    static void *memory, *pinned; /* what is left to the device is still known */
    static mdm_gpu_mark *mark;
    static mdm_gpu *gpu;
    gpu = open_gpu();
    assert_int_equal(mdm_gpu_allocate(gpu, 1, "a test", &memory), MDM_OK);
    assert_int_equal(mdm_gpu_pin(gpu, 1, "a test", &pinned), MDM_OK);
    assert_int_equal(mdm_gpu_create_mark(gpu, &mark), MDM_OK);
    assert_int_equal(mdm_gpu_record(gpu, MDM_GPU_COMPUTING, mark), MDM_OK);
    cuda.busy = 2000; /* a wait that comes to its end, and leaves no error behind */
    assert_int_equal(mdm_gpu_await(gpu, mark), MDM_OK);
    assert_true(cuda.busy == 0 && cudaGetLastError() == cudaSuccess);
    cuda.busy = INT_MAX;
    mdm_gpu_give_up(gpu);
    assert_int_equal(mdm_gpu_await(gpu, mark), MDM_LOST);
    assert_true(cudaGetLastError() == cudaSuccess);
    mdm_gpu_unpin(gpu, pinned);
    mdm_gpu_free(gpu, memory);
    mdm_gpu_destroy_mark(gpu, mark);
    mdm_gpu_close(gpu);
    assert_true(cuda.host_frees == 0 && cuda.frees == 0 && cuda.waits == 0);
}

/* A step as it is recorded: from page-locked memory, with a fork to the queue of communication and back. */
static void queue_step(mdm_gpu *gpu, mdm_gpu_mark *computed, mdm_gpu_mark *communicated, void *memory,
                       const void *pinned) {
    assert_int_equal(mdm_gpu_send(gpu, MDM_GPU_COMPUTING, memory, pinned, 1), MDM_OK);
    mdm_gpu_zero(gpu, memory, 1);
    assert_int_equal(mdm_gpu_record(gpu, MDM_GPU_COMPUTING, computed), MDM_OK);
    assert_int_equal(mdm_gpu_follow(gpu, MDM_GPU_COMMUNICATING, computed), MDM_OK);
    assert_int_equal(mdm_gpu_record(gpu, MDM_GPU_COMMUNICATING, communicated), MDM_OK);
    assert_int_equal(mdm_gpu_follow(gpu, MDM_GPU_COMPUTING, communicated), MDM_OK);
}

static void a_capture_ends_whatever_fails_in_it(void **state) {
    (void)state;
    enum { SOUND, REFUSED_AT_ITS_LAUNCH, NOT_KEPT, FAILED_INSIDE, FAILED_AT_ITS_END, CASES };
    mdm_gpu *gpu = open_gpu();
    void *memory, *pinned;
    mdm_gpu_mark *computed, *communicated;
    assert_int_equal(mdm_gpu_allocate(gpu, 1, "a test", &memory), MDM_OK);
    assert_int_equal(mdm_gpu_pin(gpu, 1, "a test", &pinned), MDM_OK);
    assert_int_equal(mdm_gpu_create_mark(gpu, &computed), MDM_OK);
    assert_int_equal(mdm_gpu_create_mark(gpu, &communicated), MDM_OK);
    for (int i = 0; i < CASES; i++) {
        mdm_gpu_graph *graph;
        cuda.instantiation = i == FAILED_AT_ITS_END ? cudaErrorMemoryAllocation : cudaSuccess;
        cuda.launching = i == REFUSED_AT_ITS_LAUNCH ? cudaErrorNotSupported : cudaSuccess;
        assert_int_equal(mdm_gpu_begin_graph(gpu), MDM_OK);
        assert_int_equal(cuda.mode, cudaStreamCaptureModeThreadLocal); /* others send pictures meanwhile */
        queue_step(gpu, computed, communicated, memory, pinned);
        if (i == FAILED_INSIDE) mdm_gpu_note(gpu, cudaErrorInvalidConfiguration, "a kernel");
        mdm_status status = mdm_gpu_end_graph(gpu, i != NOT_KEPT, &graph);
        assert_int_equal(status, i < FAILED_INSIDE ? MDM_OK : MDM_RESOURCE);
        assert_true((graph != NULL) == (i < NOT_KEPT));
        assert_int_equal(cuda.is_capturing, 0);
        if (graph) assert_int_equal(mdm_gpu_launch_graph(gpu, graph, 1), i == SOUND ? MDM_OK : MDM_RESOURCE);
        assert_int_equal(cudaGetLastError(), cudaSuccess);
        mdm_gpu_destroy_graph(gpu, graph);
        queue_step(gpu, computed, communicated, memory, pinned); /* the device is sound */
        assert_int_equal(mdm_gpu_await(gpu, communicated), MDM_OK);
    }
    assert_int_equal(mdm_gpu_begin_graph(gpu), MDM_OK);
    queue_step(gpu, computed, communicated, memory, pinned);
    assert_int_equal(mdm_gpu_check_device(gpu, "a test"), MDM_OK);
    cuda.is_broken = 1; /* by a call that no capture allows */
    assert_int_equal(mdm_gpu_check_device(gpu, "a test"), MDM_LOST);
    mdm_gpu_graph *graph;
    assert_int_equal(mdm_gpu_end_graph(gpu, 0, &graph), MDM_OK);
    mdm_gpu_destroy_mark(gpu, computed); /* recorded in a capture last: nothing to wait for */
    mdm_gpu_destroy_mark(gpu, communicated);
    mdm_gpu_unpin(gpu, pinned);
    mdm_gpu_free(gpu, memory);
    close_gpu(gpu);
}

/* Of a linear layer whose rows can be aligned, at places that are and are not. */
static void products_find_a_way_where_the_library_lacks_one(void **state) {
    (void)state;
    static float a[64], b[64], c[64], biases[16];
    const mdm_product_shape shape = {MDM_PRODUCT_NT, MDM_FP32, 4, 8, 4, 1};
    for (int knows = 0; knows < 4; knows++) {
        mdm_gpu *gpu = open_gpu();
        mdm_gpu_product *product;
        memset(&lt, 0, sizeof lt);
        lt.has_bias = knows & 1;
        lt.has_unaligned = knows >> 1;
        float *place = (float *)(((uintptr_t)c + 15) / 16 * 16),
              *x = (float *)(((uintptr_t)a + 15) / 16 * 16), *y = (float *)(((uintptr_t)b + 15) / 16 * 16),
              *bias = (float *)(((uintptr_t)biases + 15) / 16 * 16);
        assert_int_equal(mdm_gpu_plan_product(gpu, &shape, &product), MDM_OK);
        assert_int_equal(mdm_gpu_multiply(gpu, product, 1.0f, x, y, 0.0f, bias, place), MDM_OK);
        assert_int_equal(lt.products, 1);
        assert_int_equal(lt.biases, lt.has_bias);
        assert_int_equal(lt.kernels, !lt.has_bias);
        assert_int_equal(lt.used, 16);
        assert_int_equal(mdm_gpu_multiply(gpu, product, 1.0f, x, y, 0.0f, bias + 1, place),
                         lt.has_unaligned || !lt.has_bias ? MDM_OK : MDM_RESOURCE);
        if (lt.has_unaligned && lt.has_bias) assert_int_equal(lt.used, 4);
        assert_int_equal(mdm_gpu_multiply(gpu, product, 1.0f, x + 1, y, 0.0f, bias, place),
                         lt.has_unaligned ? MDM_OK : MDM_RESOURCE);
        close_gpu(gpu);
    }
    mdm_gpu *gpu = open_gpu();
    mdm_gpu_product *product;
    const mdm_product_shape odd = {MDM_PRODUCT_NT, MDM_FP32, 4, 3, 5, 1};
    memset(&lt, 0, sizeof lt); /* its rows cannot be aligned */
    assert_int_equal(mdm_gpu_plan_product(gpu, &odd, &product), MDM_RESOURCE);
    close_gpu(gpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wait_that_is_looked_after_leaves_no_error_behind),
        cmocka_unit_test(looking_after_the_device_leaves_no_error_behind),
        cmocka_unit_test(a_device_that_cannot_be_used_is_told_from_none),
        cmocka_unit_test(a_device_that_another_process_has_is_no_lost_one),
        cmocka_unit_test(a_cudnn_that_does_not_start_says_why),
        cmocka_unit_test(scratch_memory_of_plans_that_are_kept_survives_a_trial),
        cmocka_unit_test(what_is_uploaded_may_be_changed_at_once),
        cmocka_unit_test(kernels_that_do_not_wait_are_never_launched_early),
        cmocka_unit_test(other_threads_use_the_devices_context_alone),
        cmocka_unit_test(memory_is_freed_when_nothing_queued_reads_it),
        cmocka_unit_test(a_device_that_was_given_up_is_waited_for_no_more),
        cmocka_unit_test(a_capture_ends_whatever_fails_in_it),
        cmocka_unit_test(products_find_a_way_where_the_library_lacks_one),
    };
    setenv("MDM_CACHE_FOLDER", "", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
