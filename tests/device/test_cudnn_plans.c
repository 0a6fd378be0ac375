/* Every convolution that the networks use has plans for an H200, in every pass and precision. cuDNN makes
 * them from a description of the device, so no device is needed; without cuDNN the test is skipped. */
#include "cuda/cudnn_plans.h"
#include "golden.h"
#include "mdm/model/layout.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char h200[] =
    "{\"deviceVer\":900,\"driverVer\":13000,\"cudaDeviceId\":0,\"totalGlobalMem\":150000000000,"
    "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,"
    "\"multiProcessorCount\":132,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"reservedSharedMemoryPerBlock\":1024,"
    "\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,"
    "\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000,"
    "\"memClockRateKHz\":3201000,\"l2CacheSize\":62914560,\"deviceName\":\"NVIDIA H200\"}";

enum { MOST_KINDS = 512, MOST_PLANS = 6 };

static mdm_cudnn_target target;
static int built;

static int is_known(const mdm_gpu_convolution *kinds, int count, const mdm_gpu_convolution *kind) {
    for (int i = 0; i < count; i++)
        if (memcmp(&kinds[i], kind, sizeof *kind) == 0) return 1;
    return 0;
}

static int padded(int channels) {
    return (channels + MDM_GPU_LANES - 1) / MDM_GPU_LANES * MDM_GPU_LANES;
}

static void check_network(mdm_network_spec spec, int rows, mdm_precision precision) {
    static mdm_gpu_convolution kinds[MOST_KINDS];
    mdm_layout *layout;
    int count = 0;
    assert_int_equal(mdm_layout_create(&spec, &layout), MDM_OK);
    for (int i = 0; i < layout->layer_count; i++) {
        const mdm_layer *l = &layout->layers[i];
        if (l->kind != MDM_LAYER_CONVOLUTION) continue;
        for (int pass = MDM_GPU_FORWARD; pass <= MDM_GPU_BACKWARD_FILTER; pass++) {
            mdm_gpu_convolution k;
            if (pass == MDM_GPU_BACKWARD_DATA && l->input < 0) continue;
            memset(&k, 0, sizeof k);
            k = (mdm_gpu_convolution){(mdm_gpu_pass)pass,
                                      precision,
                                      rows,
                                      padded(l->in_channels),
                                      padded(l->out_channels),
                                      l->height,
                                      l->width,
                                      l->kernel,
                                      l->stride};
            if (is_known(kinds, count, &k)) continue;
            assert_true(count < MOST_KINDS);
            kinds[count++] = k;
            mdm_cudnn_plan plans[MOST_PLANS];
            int found;
            if (mdm_cudnn_find_plans(&target, &k, MOST_PLANS, plans, &found) != MDM_OK)
                fail_msg("%s, width %d, precision %d: %s", spec.arch, spec.base_width, precision,
                         mdm_last_message());
            assert_true(found >= 1);
            for (int p = 0; p < found; p++) {
                assert_true(plans[p].workspace >= 0 && plans[p].workspace <= MDM_LARGEST_WORKSPACE);
                mdm_cudnn_release(target.cudnn, &plans[p]);
            }
            built += found;
        }
    }
    mdm_layout_destroy(layout);
}

static const mdm_network_spec cifar = {"preact_resnet18", 64, 128, 3, 32, 32, 100};

static void the_cifar_network_has_plans_in_every_precision(void **state) {
    (void)state;
    mdm_precision precisions[] = {MDM_BF16, MDM_TF32, MDM_FP32};
    for (int i = 0; i < 3; i++) check_network(cifar, 256, precisions[i]);
    print_message("%d plans built\n", built);
}

static void odd_batches_and_widths_have_plans(void **state) {
    (void)state;
    mdm_network_spec narrow = {"preact_resnet10", 12, 16, 1, 28, 28, 8};
    check_network(cifar, 253, MDM_BF16);
    check_network(cifar, 1, MDM_BF16);
    check_network(narrow, 7, MDM_BF16);
    check_network(narrow, 7, MDM_FP32);
}

static void large_pictures_and_the_imagenet_stem_have_plans(void **state) {
    (void)state;
    mdm_network_spec mini = {"preact_resnet18", 64, 128, 3, 84, 84, 100};
    mdm_network_spec stem = {"resnet50", 64, 128, 3, 224, 224, 1000};
    check_network(mini, 128, MDM_BF16);
    check_network(stem, 32, MDM_BF16);
    check_network(stem, 8, MDM_FP32);
}

/* The same question for a device without bfloat16 is answered with no: the description is really read. */
static void a_device_that_cannot_has_no_plan(void **state) {
    (void)state;
    char *old = malloc(sizeof h200);
    memcpy(old, h200, sizeof h200);
    memcpy(strstr(old, "900"), "750", 3);
    mdm_cudnn_target turing = target;
    mdm_gpu_convolution k = {MDM_GPU_FORWARD, MDM_BF16, 64, 64, 64, 32, 32, 3, 1};
    mdm_cudnn_plan plans[MOST_PLANS];
    int found;
    assert_int_equal(mdm_cudnn_describe(target.cudnn, old, &turing.description), MDM_OK);
    assert_int_equal(mdm_cudnn_find_plans(&turing, &k, MOST_PLANS, plans, &found), MDM_LOST);
    assert_non_null(strstr(mdm_last_message(), "cuDNN has no forward plan"));
    free(old);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cifar_network_has_plans_in_every_precision),
        cmocka_unit_test(odd_batches_and_widths_have_plans),
        cmocka_unit_test(large_pictures_and_the_imagenet_stem_have_plans),
        cmocka_unit_test(a_device_that_cannot_has_no_plan),
    };
    if (mdm_cudnn_load(&target.cudnn) != MDM_OK) {
        printf("skipped: %s\n", mdm_last_message());
        return 77;
    }
    if (mdm_cudnn_describe(target.cudnn, h200, &target.description) != MDM_OK) {
        printf("skipped: %s (cuDNN 9.8 or newer is needed)\n", mdm_last_message());
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
