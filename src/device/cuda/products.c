/* Products by cuBLASLt, with the algorithms that its heuristics name first.
 *
 * For each kind of product there are up to two algorithms: one for matrices aligned to 16 bytes, as tensor
 * cores like them, and one for any. Where none adds a bias, a kernel does. How it sees our matrices:
 * product_layout.h. */
#include "cublaslt.h"
#include "product_layout.h"
#include "runtime.h"
#include <stdlib.h>
#include <string.h>

enum { ALIGNED = 16 };
static const uint64_t largest_workspace = (uint64_t)32 << 20; /* as cuBLAS itself takes on Hopper */

typedef struct algorithm {
    int is_there;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
} algorithm;

struct mdm_gpu_product {
    mdm_product_shape shape;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t first, second, result; /* b, a and c, as columns */
    algorithm aligned, any;
    int adds_bias; /* the algorithms do; otherwise a kernel behind them */
    struct mdm_gpu_product *next;
};

static mdm_status check(mdm_gpu *gpu, cublasStatus_t code, const char *what) {
    if (code == CUBLAS_STATUS_SUCCESS) return MDM_OK;
    MDM_TRY(mdm_gpu_check_device(gpu, what));
    return mdm_fail(MDM_LOST, "cuBLASLt failed in %s on device %d: %s", what, gpu->number,
                    gpu->cublaslt->cublasLtGetStatusString(code));
}

static cudaDataType factor_type(const mdm_product_shape *s) {
    return s->precision == MDM_BF16 ? CUDA_R_16BF : s->precision == MDM_FP16 ? CUDA_R_16F : CUDA_R_32F;
}

static int element_bytes(const mdm_product_shape *s) {
    return s->precision == MDM_BF16 || s->precision == MDM_FP16 ? 2 : 4;
}

static mdm_status set_operation(mdm_gpu *gpu, mdm_gpu_product *p, cublasLtMatmulDescAttributes_t attribute,
                                const void *value, size_t size) {
    return check(gpu, gpu->cublaslt->cublasLtMatmulDescSetAttribute(p->operation, attribute, value, size),
                 "describing a product");
}

static mdm_status set_bias(mdm_gpu *gpu, mdm_gpu_product *p, const void *bias) {
    return set_operation(gpu, p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
}

static mdm_status describe_matrix(mdm_gpu *gpu, cublasLtMatrixLayout_t *matrix, cudaDataType type,
                                  mdm_column_matrix m) {
    return check(gpu,
                 gpu->cublaslt->cublasLtMatrixLayoutCreate(matrix, type, (uint64_t)m.rows,
                                                           (uint64_t)m.columns, (int64_t)m.rows),
                 "describing a product");
}

static mdm_status set_epilogue(mdm_gpu *gpu, mdm_gpu_product *p, int adds_bias) {
    const cublasLtEpilogue_t epilogue = adds_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    p->adds_bias = adds_bias;
    return set_operation(gpu, p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
}

static mdm_status describe(mdm_gpu *gpu, mdm_gpu_product *p) {
    const mdm_product_shape *s = &p->shape;
    const mdm_product_layout layout = mdm_layout_of_product(s);
    const cublasOperation_t first = layout.first.is_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = layout.second.is_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cudaDataType factors = factor_type(s);
    MDM_TRY(
        check(gpu,
              gpu->cublaslt->cublasLtMatmulDescCreate(
                  &p->operation, s->precision == MDM_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                  CUDA_R_32F),
              "describing a product"));
    MDM_TRY(set_operation(gpu, p, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    MDM_TRY(set_operation(gpu, p, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    MDM_TRY(describe_matrix(gpu, &p->first, factors, layout.first));
    MDM_TRY(describe_matrix(gpu, &p->second, factors, layout.second));
    return describe_matrix(gpu, &p->result, CUDA_R_32F, layout.result);
}

static mdm_status set_preferences(mdm_gpu *gpu, cublasLtMatmulPreference_t preference, uint32_t factors,
                                  uint32_t result) {
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t size;
    } all[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &largest_workspace, sizeof largest_workspace},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &factors, sizeof factors},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &factors, sizeof factors},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &result, sizeof result},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &result, sizeof result}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        MDM_TRY(check(gpu,
                      gpu->cublaslt->cublasLtMatmulPreferenceSetAttribute(preference, all[i].attribute,
                                                                          all[i].value, all[i].size),
                      "choosing an algorithm"));
    return MDM_OK;
}

static mdm_status choose(mdm_gpu *gpu, mdm_gpu_product *p, uint32_t factors, uint32_t result,
                         algorithm *chosen) {
    const mdm_cublaslt *lt = gpu->cublaslt;
    const mdm_product_shape *s = &p->shape;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    memset(&found, 0, sizeof found);
    /* of a bias only the alignment is looked at; it is read as the result is written */
    if (p->adds_bias) MDM_TRY(set_bias(gpu, p, (const void *)(uintptr_t)result));
    MDM_TRY(check(gpu, lt->cublasLtMatmulPreferenceCreate(&preference), "choosing an algorithm"));
    mdm_status status = set_preferences(gpu, preference, factors, result);
    cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
    if (status == MDM_OK)
        code = lt->cublasLtMatmulAlgoGetHeuristic(gpu->cublaslt_handle, p->operation, p->first, p->second,
                                                  p->result, p->result, preference, 1, &found, &count);
    (void)lt->cublasLtMatmulPreferenceDestroy(preference);
    MDM_TRY(status);
    if (code != CUBLAS_STATUS_SUCCESS || count < 1 || found.state != CUBLAS_STATUS_SUCCESS) {
        MDM_TRY(mdm_gpu_check_device(gpu, "planning a product"));
        return mdm_fail(MDM_RESOURCE,
                        "cuBLASLt has no algorithm on device %d for a product of %d x %d x %d in %s: %s",
                        gpu->number, s->m, s->n, s->k, mdm_precision_name(s->precision),
                        lt->cublasLtGetStatusString(code != CUBLAS_STATUS_SUCCESS ? code : found.state));
    }
    *chosen = (algorithm){1, found.algo, found.workspaceSize};
    return MDM_OK;
}

/* Whether the rows of all three matrices are whole multiples of 16 bytes. */
static int rows_can_be_aligned(const mdm_product_shape *s) {
    const mdm_product_layout layout = mdm_layout_of_product(s);
    int element = element_bytes(s);
    return layout.first.rows * element % ALIGNED == 0 && layout.second.rows * element % ALIGNED == 0 &&
           layout.result.rows * 4 % ALIGNED == 0;
}

/* With one of the two there is a way for most matrices. */
static mdm_status choose_both(mdm_gpu *gpu, mdm_gpu_product *p) {
    uint32_t element = (uint32_t)element_bytes(&p->shape);
    mdm_status status = choose(gpu, p, element, sizeof(float), &p->any);
    if (rows_can_be_aligned(&p->shape)) status = choose(gpu, p, ALIGNED, ALIGNED, &p->aligned);
    return p->any.is_there || p->aligned.is_there ? MDM_OK : status;
}

static mdm_status plan(mdm_gpu *gpu, mdm_gpu_product *p) {
    MDM_TRY(describe(gpu, p));
    MDM_TRY(set_epilogue(gpu, p, p->shape.has_bias));
    mdm_status status = choose_both(gpu, p);
    if (status != MDM_OK && p->adds_bias) {
        MDM_TRY(set_epilogue(gpu, p, 0));
        status = choose_both(gpu, p);
    }
    MDM_TRY(status);
    size_t most = p->any.workspace > p->aligned.workspace ? p->any.workspace : p->aligned.workspace;
    return mdm_gpu_grow_workspace(gpu, &gpu->workspace, most, 1);
}

static void release(const mdm_cublaslt *lt, mdm_gpu_product *p) {
    if (p->first) (void)lt->cublasLtMatrixLayoutDestroy(p->first);
    if (p->second) (void)lt->cublasLtMatrixLayoutDestroy(p->second);
    if (p->result) (void)lt->cublasLtMatrixLayoutDestroy(p->result);
    if (p->operation) (void)lt->cublasLtMatmulDescDestroy(p->operation);
    free(p);
}

void mdm_gpu_release_products(mdm_gpu *gpu) {
    while (gpu->products) {
        mdm_gpu_product *next = gpu->products->next;
        release(gpu->cublaslt, gpu->products);
        gpu->products = next;
    }
}

static int same_product(const mdm_product_shape *a, const mdm_product_shape *b) {
    return a->form == b->form && a->precision == b->precision && a->m == b->m && a->n == b->n &&
           a->k == b->k && !a->has_bias == !b->has_bias;
}

mdm_status mdm_gpu_plan_product(mdm_gpu *gpu, const mdm_product_shape *shape, mdm_gpu_product **out) {
    mdm_gpu_product *made;
    for (*out = gpu->products; *out; *out = (*out)->next)
        if (same_product(&(*out)->shape, shape)) return MDM_OK;
    MDM_TRY(MDM_ALLOCATE(made, 1, "a product"));
    made->shape = *shape;
    mdm_status status = plan(gpu, made);
    if (status != MDM_OK) {
        release(gpu->cublaslt, made);
        return status;
    }
    made->next = gpu->products;
    gpu->products = made;
    *out = made;
    return MDM_OK;
}

static void add_bias(mdm_gpu *gpu, const mdm_product_shape *s, const float *bias, float *c) {
    const mdm_bias_arguments a = {
        .bias = bias, .c = c, .count = (uint32_t)s->m * (uint32_t)s->n, .columns = (uint32_t)s->n};
    mdm_gpu_add_bias(gpu, (a.count + MDM_GPU_THREADS - 1) / MDM_GPU_THREADS, 1, &a);
}

mdm_status mdm_gpu_multiply(mdm_gpu *gpu, mdm_gpu_product *p, float alpha, const void *a, const void *b,
                            float beta, const float *bias, float *c) {
    uintptr_t bits = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (p->adds_bias ? (uintptr_t)bias : 0);
    const mdm_product_shape *s = &p->shape;
    const algorithm *chosen = p->aligned.is_there && bits % ALIGNED == 0 ? &p->aligned : &p->any;
    MDM_TRY(mdm_gpu_check(gpu, cudaSuccess, "a product"));
    if (gpu->queued_to != gpu->stream)
        return mdm_fail(MDM_LOST, "internal: products are not computed beside the rest");
    if (!chosen->is_there)
        return mdm_fail(MDM_RESOURCE,
                        "cuBLASLt has an algorithm on device %d for a product of %d x %d x %d in %s only "
                        "where matrices are aligned to 16 bytes",
                        gpu->number, s->m, s->n, s->k, mdm_precision_name(s->precision));
    if (p->adds_bias) MDM_TRY(set_bias(gpu, p, bias));
    MDM_TRY(
        check(gpu,
              gpu->cublaslt->cublasLtMatmul(gpu->cublaslt_handle, p->operation, &alpha, b, p->first, a,
                                            p->second, &beta, c, p->result, c, p->result, &chosen->algorithm,
                                            gpu->workspace.memory, gpu->workspace.bytes, gpu->stream),
              "a product"));
    if (s->has_bias && !p->adds_bias) add_bias(gpu, s, bias, c);
    return MDM_OK;
}
