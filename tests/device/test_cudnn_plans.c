/* Every convolution that the networks use has plans for an H200, in every pass and precision, and the one
 * that was chosen is built again without asking. cuDNN makes plans from a description of the device, so no
 * device is needed; without cuDNN the test is skipped. */
#include "cuda/cudnn_plans.h"
#include "golden.h"
#include "mdm/base/config.h"
#include "mdm/model/layout.h"
#include <dirent.h>
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

enum { MOST_KINDS = 8192, MOST_PLANS = 8 };

static mdm_cudnn_target target;
static int built;

static int padded(int channels) {
    return (channels + MDM_GPU_LANES - 1) / MDM_GPU_LANES * MDM_GPU_LANES;
}

/* Kinds of convolutions that have been looked at. */
static mdm_gpu_convolution kinds[MOST_KINDS];
static int kind_count;

static int is_known(const mdm_gpu_convolution *kind) {
    for (int i = 0; i < kind_count; i++)
        if (memcmp(&kinds[i], kind, sizeof *kind) == 0) return 1;
    return 0;
}

static char *json_of(const mdm_cudnn_plan *plan) {
    const mdm_cudnn *cudnn = target.cudnn;
    int64_t size = 0, got = 0;
    assert_int_equal(cudnn->cudnnBackendGetAttribute(plan->plan,
                                                     CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                                     CUDNN_TYPE_CHAR, 0, &size, NULL),
                     CUDNN_STATUS_SUCCESS);
    char *text = calloc((size_t)size + 1, 1);
    assert_non_null(text);
    assert_int_equal(cudnn->cudnnBackendGetAttribute(plan->plan,
                                                     CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                                     CUDNN_TYPE_CHAR, size, &got, text),
                     CUDNN_STATUS_SUCCESS);
    return text;
}

/* By engine and knobs alone the very same plan comes out. */
static void check_rebuilt(const mdm_gpu_convolution *k, const mdm_cudnn_plan *plan) {
    mdm_cudnn_plan again;
    assert_true(plan->is_nameable);
    assert_true(mdm_cudnn_rebuild_plan(&target, k, &plan->choice, &again));
    char *first = json_of(plan), *second = json_of(&again);
    assert_string_equal(first, second);
    assert_int_equal(again.workspace, plan->workspace);
    free(first);
    free(second);
    mdm_cudnn_release(target.cudnn, &again);
}

static void check_kind(const mdm_gpu_convolution *k, const mdm_network_spec *spec) {
    mdm_cudnn_plan plans[MOST_PLANS];
    int found;
    if (is_known(k)) return;
    assert_true(kind_count < MOST_KINDS);
    kinds[kind_count++] = *k;
    if (mdm_cudnn_find_plans(&target, k, MOST_PLANS, plans, &found) != MDM_OK)
        fail_msg("%s, width %d, %d rows, precision %d: %s", spec->arch, spec->base_width, k->batch,
                 k->precision, mdm_last_message());
    assert_true(found >= 1);
    for (int p = 0; p < found; p++) {
        assert_true(plans[p].workspace >= 0 && plans[p].workspace <= MDM_LARGEST_WORKSPACE);
        check_rebuilt(k, &plans[p]);
        mdm_cudnn_release(target.cudnn, &plans[p]);
    }
    built += found;
}

static void check_network(mdm_network_spec spec, int rows, mdm_precision precision, int forward_only) {
    mdm_layout *layout;
    assert_int_equal(mdm_layout_create(&spec, &layout), MDM_OK);
    for (int i = 0; i < layout->layer_count; i++) {
        const mdm_layer *l = &layout->layers[i];
        if (l->kind != MDM_LAYER_CONVOLUTION) continue;
        for (int pass = MDM_GPU_FORWARD; pass <= (forward_only ? MDM_GPU_FORWARD : MDM_GPU_BACKWARD_FILTER);
             pass++) {
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
            check_kind(&k, &spec);
        }
    }
    mdm_layout_destroy(layout);
}

static const mdm_network_spec cifar = {"preact_resnet18", 64, 128, 3, 32, 32, 100};

static void the_cifar_network_has_plans_in_every_precision(void **state) {
    (void)state;
    mdm_precision precisions[] = {MDM_BF16, MDM_TF32, MDM_FP32};
    for (int i = 0; i < 3; i++)
        for (int passes = 1; passes <= 3; passes++) check_network(cifar, passes * 256, precisions[i], 0);
}

/* Pictures of the data sets that the configurations are for. */
typedef struct picture {
    const char *config;
    int channels, height, width, classes;
} picture;
static const picture pictures[] = {{"quickstart.yaml", 1, 28, 28, 8},
                                   {"cifar10.yaml", 3, 32, 32, 10},
                                   {"cifar100.yaml", 3, 32, 32, 100},
                                   {"mini-imagenet.yaml", 3, 84, 84, 100},
                                   {"template.yaml", 3, 32, 32, 10}};

static mdm_network_spec spec_of(const mdm_config *config, const char *file) {
    mdm_network_spec spec = {
        .arch = "", .base_width = config->model.width, .projection = config->model.projection};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++)
        if (strcmp(pictures[i].config, file) == 0) {
            const picture *p = &pictures[i];
            spec.channels = p->channels;
            spec.height = p->height;
            spec.width = p->width;
            spec.classes = p->classes;
        }
    if (spec.classes == 0) fail_msg("configs/%s is new here: say how large its pictures are", file);
    (void)mdm_config_get(config, "model.arch", spec.arch, sizeof spec.arch);
    return spec;
}

/* A rank's share of warm-up, of steps with two and four groups of views in one to three passes at once,
 * pretraining, evaluation and prediction, as src/train plans them; on one rank and on eight. */
static void check_config(const char *file) {
    char path[512];
    mdm_config config;
    mdm_config_defaults(&config);
    snprintf(path, sizeof path, "%s/%s", MDM_CONFIG_FOLDER, file);
    assert_int_equal(mdm_config_read_yaml(&config, path), MDM_OK);
    mdm_network_spec spec = spec_of(&config, file);
    for (int ranks = 1; ranks <= 8; ranks *= 8) {
        int share = config.train.batch / ranks, views = 2 * config.pretrain.batch / ranks;
        int trained[] = {share, 2 * share, 4 * share, 6 * share, 8 * share, 12 * share, views};
        for (size_t i = 0; i < sizeof trained / sizeof *trained; i++)
            check_network(spec, trained[i], MDM_BF16, 0);
    }
    check_network(spec, 256, MDM_BF16, 1);
    check_network(spec, 128, MDM_BF16, 1);
}

static void every_configuration_has_plans_for_all_its_batches(void **state) {
    (void)state;
    int count = 0;
    DIR *listing = opendir(MDM_CONFIG_FOLDER);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        const char *end = strrchr(entry->d_name, '.');
        if (!end || strcmp(end, ".yaml") != 0) continue;
        check_config(entry->d_name);
        count++;
    }
    closedir(listing);
    assert_true(count >= 4);
}

static void every_architecture_has_plans(void **state) {
    (void)state;
    const char *cifar_stem[] = {"preact_resnet10", "preact_resnet18", "preact_resnet34", "preact_resnet50",
                                "preact_resnet101"};
    const char *imagenet_stem[] = {"resnet18", "resnet50"};
    for (size_t i = 0; i < sizeof cifar_stem / sizeof *cifar_stem; i++) {
        mdm_network_spec spec = {"", 64, 128, 3, 32, 32, 100};
        snprintf(spec.arch, sizeof spec.arch, "%s", cifar_stem[i]);
        check_network(spec, 256, MDM_BF16, 0);
    }
    for (size_t i = 0; i < sizeof imagenet_stem / sizeof *imagenet_stem; i++) {
        mdm_network_spec spec = {"", 64, 128, 3, 224, 224, 1000};
        snprintf(spec.arch, sizeof spec.arch, "%s", imagenet_stem[i]);
        check_network(spec, 64, MDM_BF16, 0);
        check_network(spec, 256, MDM_BF16, 1);
    }
    print_message("%d kinds of convolutions, %d plans built and built again\n", kind_count, built);
}

static void odd_batches_and_widths_have_plans(void **state) {
    (void)state;
    mdm_network_spec narrow = {"preact_resnet10", 12, 16, 1, 28, 28, 8};
    check_network(cifar, 253, MDM_BF16, 0);
    check_network(cifar, 1, MDM_BF16, 0);
    check_network(narrow, 7, MDM_BF16, 0);
    check_network(narrow, 7, MDM_FP32, 0);
}

static void large_pictures_and_the_imagenet_stem_have_plans(void **state) {
    (void)state;
    mdm_network_spec mini = {"preact_resnet18", 64, 128, 3, 84, 84, 100};
    mdm_network_spec stem = {"resnet50", 64, 128, 3, 224, 224, 1000};
    check_network(mini, 128, MDM_BF16, 0);
    check_network(stem, 32, MDM_BF16, 0);
    check_network(stem, 8, MDM_FP32, 0);
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
    assert_non_null(strstr(mdm_last_message(), "cuDNN has no plan for forward of 64 pictures"));
    (void)target.cudnn->cudnnBackendDestroyDescriptor(turing.description);
    free(old);
}

/* ---- the choice ---- */

/* Stands in for a device: the plans take what the list says, in the order in which they are asked. */
typedef struct stopwatch {
    float times[MOST_PLANS];
    int asked;
    mdm_plan_choice seen[MOST_PLANS];
} stopwatch;

static mdm_status read_stopwatch(void *context, const mdm_cudnn_plan *plan, float *milliseconds) {
    stopwatch *s = context;
    assert_true(s->asked < MOST_PLANS);
    s->seen[s->asked] = plan->choice;
    *milliseconds = s->times[s->asked++];
    return MDM_OK;
}

static const mdm_gpu_convolution some_kind = {MDM_GPU_FORWARD, MDM_BF16, 64, 64, 64, 32, 32, 3, 1};

/* What a start takes, with a cache that lasts for the process. */
static mdm_plan_choice choose(mdm_plan_cache *cache, const mdm_gpu_convolution *k, stopwatch *s) {
    mdm_cudnn_plan plan;
    assert_int_equal(mdm_cudnn_choose_plan(&target, cache, k, read_stopwatch, s, &plan), MDM_OK);
    assert_non_null(plan.plan);
    mdm_plan_choice choice = plan.choice;
    mdm_cudnn_release(target.cudnn, &plan);
    return choice;
}

static mdm_plan_cache *new_cache(void) {
    mdm_plan_cache *cache;
    assert_int_equal(mdm_plan_cache_open("", "H200", &cache), MDM_OK);
    return cache;
}

static void the_fastest_is_taken_and_measured_only_once(void **state) {
    (void)state;
    stopwatch first = {.times = {3, 2, -1, 1, 4, 5, 6, 7}}, second = {.asked = 0};
    mdm_plan_cache *cache = new_cache();
    mdm_plan_choice taken = choose(cache, &some_kind, &first);
    assert_true(first.asked > 4);
    assert_int_equal(taken.engine, first.seen[3].engine);
    assert_memory_equal(taken.knobs, first.seen[3].knobs, sizeof taken.knobs);
    assert_true(taken.milliseconds == 1);
    mdm_plan_choice again = choose(cache, &some_kind, &second);
    assert_int_equal(second.asked, 0);
    assert_memory_equal(&again, &taken, sizeof taken);
    mdm_plan_cache_close(cache);
}

static void check_measured_anew(const mdm_gpu_convolution *k, mdm_plan_choice kept) {
    stopwatch s = {.times = {1, 2, 3, 4, 5, 6, 7, 8}};
    mdm_plan_cache *cache = new_cache();
    mdm_plan_choice found;
    mdm_plan_cache_put(cache, k, &kept);
    mdm_plan_choice taken = choose(cache, k, &s);
    assert_true(s.asked > 1);
    assert_true(mdm_plan_cache_find(cache, k, &found));
    assert_memory_equal(&found, &taken, sizeof taken);
    mdm_plan_cache_close(cache);
}

static void a_kept_choice_that_cannot_be_built_is_measured_anew(void **state) {
    (void)state;
    stopwatch s = {.times = {1, 2, 3, 4, 5, 6, 7, 8}};
    mdm_plan_cache *cache = new_cache();
    mdm_plan_choice good = choose(cache, &some_kind, &s), bad = good;
    mdm_plan_cache_close(cache);
    assert_true(good.knob_count > 0);
    bad.engine = 99999;
    check_measured_anew(&some_kind, bad);
    bad = good;
    bad.knobs[0].type = 99999;
    check_measured_anew(&some_kind, bad);
    bad = good;
    bad.knobs[0].value = INT64_MAX;
    check_measured_anew(&some_kind, bad);
}

/* Tensor cores round the factors; a file that names them for single precision is not obeyed. */
static void a_kept_choice_in_lower_precision_is_not_taken(void **state) {
    (void)state;
    mdm_gpu_convolution tf32 = some_kind, fp32 = some_kind;
    mdm_cudnn_plan plan;
    stopwatch s = {.times = {1, 2, 3, 4, 5, 6, 7, 8}};
    tf32.precision = MDM_TF32;
    fp32.precision = MDM_FP32;
    mdm_plan_cache *cache = new_cache();
    mdm_plan_choice kept = choose(cache, &tf32, &s);
    mdm_plan_cache_close(cache);
    assert_true(mdm_cudnn_rebuild_plan(&target, &tf32, &kept, &plan));
    mdm_cudnn_release(target.cudnn, &plan);
    assert_false(mdm_cudnn_rebuild_plan(&target, &fp32, &kept, &plan));
    check_measured_anew(&fp32, kept);
}

/* Stands in for a device that runs one engine, and has no memory for another. */
typedef struct picky_device {
    int64_t engine, large_engine;
    int asked, ran;
} picky_device;

static mdm_status run_picky_device(void *context, const mdm_cudnn_plan *plan, float *milliseconds) {
    picky_device *d = context;
    d->asked++;
    if (plan->choice.engine == d->large_engine) return mdm_fail(MDM_RESOURCE, "no memory for it");
    *milliseconds = plan->choice.engine == d->engine ? 5 : -1;
    d->ran += *milliseconds > 0;
    if (*milliseconds < 0) (void)mdm_fail(MDM_LOST, "not that engine");
    return MDM_OK;
}

static void where_none_of_the_first_runs_the_next_that_does_is_taken(void **state) {
    (void)state;
    enum { LAST_RESORT = 0, NONE = -1 };
    picky_device device = {.engine = LAST_RESORT, .large_engine = NONE};
    mdm_cudnn_plan plan;
    mdm_plan_choice found;
    mdm_plan_cache *cache = new_cache();
    assert_int_equal(mdm_cudnn_choose_plan(&target, cache, &some_kind, run_picky_device, &device, &plan),
                     MDM_OK);
    assert_true(device.asked > MOST_PLANS);
    assert_int_equal(device.ran, 1);
    assert_true(mdm_plan_cache_find(cache, &some_kind, &found));
    assert_true(found.engine == LAST_RESORT && plan.choice.engine == LAST_RESORT && found.milliseconds == 5);
    mdm_cudnn_release(target.cudnn, &plan);
    mdm_plan_cache_close(cache);
}

static void plans_that_do_not_run_are_told(void **state) {
    (void)state;
    picky_device device = {.engine = -1, .large_engine = -1};
    mdm_cudnn_plan plan;
    mdm_plan_choice found;
    mdm_plan_cache *cache = new_cache();
    assert_int_equal(mdm_cudnn_choose_plan(&target, cache, &some_kind, run_picky_device, &device, &plan),
                     MDM_LOST);
    assert_non_null(strstr(mdm_last_message(),
                           "none of cuDNN's plans runs for forward of 64 pictures of 32x32, 64 to 64 "
                           "channels, kernel 3, stride 1, in bf16: not that engine; another "
                           "train.precision"));
    assert_false(mdm_plan_cache_find(cache, &some_kind, &found));
    mdm_plan_cache_close(cache);
}

/* Engine 0, which needs no scratch memory and no tensor cores: of every pass, in every precision, whatever
 * else there is no memory for. */
static void every_pass_and_precision_has_a_last_resort(void **state) {
    (void)state;
    const mdm_gpu_convolution kinds_of_layers[] = {
        {.batch = 256, .in = 64, .out = 64, .height = 32, .width = 32, .kernel = 3, .stride = 1},
        {.batch = 253, .in = 8, .out = 64, .height = 84, .width = 84, .kernel = 3, .stride = 1},
        {.batch = 256, .in = 128, .out = 256, .height = 16, .width = 16, .kernel = 1, .stride = 2},
        {.batch = 768, .in = 512, .out = 512, .height = 4, .width = 4, .kernel = 3, .stride = 1},
        {.batch = 64, .in = 8, .out = 64, .height = 224, .width = 224, .kernel = 7, .stride = 2}};
    for (size_t i = 0; i < sizeof kinds_of_layers / sizeof *kinds_of_layers; i++)
        for (int pass = MDM_GPU_FORWARD; pass <= MDM_GPU_BACKWARD_FILTER; pass++)
            for (int p = 0; p < 3; p++) {
                mdm_gpu_convolution k = kinds_of_layers[i];
                picky_device device = {.engine = 0, .large_engine = 1};
                mdm_cudnn_plan plan;
                k.pass = (mdm_gpu_pass)pass;
                k.precision = (mdm_precision[]){MDM_BF16, MDM_TF32, MDM_FP32}[p];
                if (mdm_cudnn_find_one_that_runs(&target, &k, run_picky_device, &device, &plan) != MDM_OK)
                    fail_msg("%s", mdm_last_message());
                assert_true(plan.choice.engine == 0 && plan.workspace == 0);
                mdm_cudnn_release(target.cudnn, &plan);
            }
}

static mdm_status find_no_memory(void *context, const mdm_cudnn_plan *plan, float *milliseconds) {
    int64_t *asked = context;
    (void)plan, (void)milliseconds;
    ++*asked;
    return mdm_fail(MDM_RESOURCE, "no memory to measure with");
}

/* The gradient of weights, whose plans differ in their workspaces. */
static void where_there_is_no_memory_to_measure_the_least_workspace_decides(void **state) {
    (void)state;
    mdm_gpu_convolution k = some_kind;
    mdm_cudnn_plan plans[MOST_PLANS], plan;
    mdm_plan_choice found;
    mdm_plan_cache *cache = new_cache();
    int count;
    int64_t asked = 0, least = INT64_MAX, most = 0;
    k.pass = MDM_GPU_BACKWARD_FILTER;
    assert_int_equal(mdm_cudnn_find_plans(&target, &k, 8, plans, &count), MDM_OK);
    for (int i = 0; i < count; i++) {
        if (plans[i].workspace < least) least = plans[i].workspace;
        if (plans[i].workspace > most) most = plans[i].workspace;
        mdm_cudnn_release(target.cudnn, &plans[i]);
    }
    assert_true(least < most);
    assert_int_equal(mdm_cudnn_choose_plan(&target, cache, &k, find_no_memory, &asked, &plan), MDM_OK);
    assert_int_equal(asked, 1);
    assert_int_equal(plan.workspace, least);
    assert_false(mdm_plan_cache_find(cache, &k, &found)); /* the next start may have memory */
    mdm_cudnn_release(target.cudnn, &plan);
    mdm_plan_cache_close(cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cifar_network_has_plans_in_every_precision),
        cmocka_unit_test(odd_batches_and_widths_have_plans),
        cmocka_unit_test(large_pictures_and_the_imagenet_stem_have_plans),
        cmocka_unit_test(every_configuration_has_plans_for_all_its_batches),
        cmocka_unit_test(every_architecture_has_plans),
        cmocka_unit_test(a_device_that_cannot_has_no_plan),
        cmocka_unit_test(the_fastest_is_taken_and_measured_only_once),
        cmocka_unit_test(a_kept_choice_that_cannot_be_built_is_measured_anew),
        cmocka_unit_test(a_kept_choice_in_lower_precision_is_not_taken),
        cmocka_unit_test(where_none_of_the_first_runs_the_next_that_does_is_taken),
        cmocka_unit_test(plans_that_do_not_run_are_told),
        cmocka_unit_test(every_pass_and_precision_has_a_last_resort),
        cmocka_unit_test(where_there_is_no_memory_to_measure_the_least_workspace_decides),
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
