/* cuBLASLt is found with all the functions that products need, and takes their descriptions; what it
 * computes, only a device can show. Without the library the test is skipped. */
#include "cuda/cublaslt.h"
#include "golden.h"
#include <stdio.h>

static const mdm_cublaslt *cublaslt;

static void its_version_is_the_one_that_this_was_built_with(void **state) {
    (void)state;
    assert_int_equal(cublaslt->cublasLtGetVersion() / 10000, CUBLAS_VER_MAJOR);
}

static void descriptions_of_products_are_taken(void **state) {
    (void)state;
    static const cublasComputeType_t kinds[] = {CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
    static const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const void *bias = (const void *)(uintptr_t)sizeof(float);
    for (int i = 0; i < 2; i++) {
        cublasLtMatmulDesc_t operation;
        assert_int_equal(cublaslt->cublasLtMatmulDescCreate(&operation, kinds[i], CUDA_R_32F), 0);
        assert_int_equal(cublaslt->cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                                  &epilogue, sizeof epilogue),
                         0);
        assert_int_equal(cublaslt->cublasLtMatmulDescSetAttribute(
                             operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
                         0);
        assert_int_equal(cublaslt->cublasLtMatmulDescDestroy(operation), 0);
    }
    static const cudaDataType types[] = {CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F};
    for (int i = 0; i < 3; i++) {
        cublasLtMatrixLayout_t layout;
        assert_int_equal(cublaslt->cublasLtMatrixLayoutCreate(&layout, types[i], 33, 10, 33), 0);
        assert_int_equal(cublaslt->cublasLtMatrixLayoutDestroy(layout), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_version_is_the_one_that_this_was_built_with),
        cmocka_unit_test(descriptions_of_products_are_taken),
    };
    if (mdm_cublaslt_load(&cublaslt) != MDM_OK) {
        printf("skipped: %s\n", mdm_last_message());
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
