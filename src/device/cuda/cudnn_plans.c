/* A convolution as a graph of one operation, the plans that cuDNN's heuristics name for it, and the one of
 * them that is taken. */
#include "cudnn_plans.h"
#include "mdm/base/log.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if CUDNN_VERSION < 90800 /* whose headers lack the names by which newer ones know described devices */
#define CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR       ((cudnnBackendDescriptorType_t)38)
#define CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION ((cudnnBackendAttributeName_t)2702)
#define CUDNN_ATTR_ENGINEHEUR_DEVICEPROP          ((cudnnBackendAttributeName_t)204)
#define CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP      ((cudnnBackendAttributeName_t)407)
#define CUDNN_ATTR_ENGINE_DEVICEPROP              ((cudnnBackendAttributeName_t)1307)
#endif

enum { MOST_CONFIGURATIONS = 64, MOST_DESCRIPTORS = 8 + MDM_MOST_KNOBS, MOST_TRIED = 8 };
static const char *const pass_names[] = {"forward", "backward data", "weight gradient"};

/* Descriptors under construction. The first failure stops everything behind it; all are destroyed at the
 * end. */
typedef struct builder {
    const mdm_cudnn *cudnn;
    cudnnBackendDescriptor_t made[MOST_DESCRIPTORS];
    int count;
    mdm_status status;
} builder;

static void check(builder *b, cudnnStatus_t code, const char *what) {
    char text[256] = "";
    if (code == CUDNN_STATUS_SUCCESS || b->status != MDM_OK) return;
    b->cudnn->cudnnGetLastErrorString(text, sizeof text);
    b->status = mdm_fail(MDM_LOST, "cuDNN refused %s of a convolution: %s %s", what,
                         b->cudnn->cudnnGetErrorString(code), text);
}

static cudnnBackendDescriptor_t make(builder *b, cudnnBackendDescriptorType_t type, const char *what) {
    cudnnBackendDescriptor_t made = NULL;
    if (b->status != MDM_OK) return NULL;
    check(b, b->cudnn->cudnnBackendCreateDescriptor(type, &made), what);
    if (made) b->made[b->count++] = made;
    return made;
}

static void set(builder *b, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values, const char *what) {
    if (b->status != MDM_OK) return;
    check(b, b->cudnn->cudnnBackendSetAttribute(descriptor, name, type, count, values), what);
}

static void set_descriptor(builder *b, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                           cudnnBackendDescriptor_t value, const char *what) {
    set(b, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value, what);
}

static void finalize(builder *b, cudnnBackendDescriptor_t descriptor, const char *what) {
    if (b->status == MDM_OK) check(b, b->cudnn->cudnnBackendFinalize(descriptor), what);
}

static void destroy_all(builder *b) {
    while (b->count > 0) (void)b->cudnn->cudnnBackendDestroyDescriptor(b->made[--b->count]);
}

/* [n,h,w,c] in memory; cuDNN names the dimensions in the order n, c, h, w. Filters: [k,r,s,c] as k, c, r, s.
 */
static cudnnBackendDescriptor_t make_tensor(builder *b, int64_t id, mdm_precision precision, int64_t n,
                                            int64_t c, int64_t h, int64_t w) {
    const char *what = "a tensor";
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR, what);
    cudnnDataType_t type = precision == MDM_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    int64_t dims[4] = {n, c, h, w}, strides[4] = {c * h * w, 1, w * c, c}, alignment = 16;
    bool is_virtual = false;
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims, what);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides, what);
    set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id, what);
    set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment, what);
    set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual, what);
    finalize(b, d, what);
    return d;
}

static cudnnBackendDescriptor_t make_convolution(builder *b, const mdm_gpu_convolution *k) {
    const char *what = "the shape";
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, what);
    cudnnDataType_t type = CUDNN_DATA_FLOAT; /* sums in single precision */
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t dims = 2, ones[2] = {1, 1}, strides[2] = {k->stride, k->stride},
            padding[2] = {k->kernel / 2, k->kernel / 2};
    set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode, what);
    set(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims, what);
    set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones, what);
    set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides, what);
    set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding, what);
    set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding, what);
    finalize(b, d, what);
    return d;
}

/* The attributes of the three passes are alike but for their names. */
typedef struct pass_attributes {
    cudnnBackendDescriptorType_t operation;
    cudnnBackendAttributeName_t alpha, beta, shape, filter, x, y;
} pass_attributes;

static const pass_attributes attributes_of[] = {
    [MDM_GPU_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
    [MDM_GPU_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
    [MDM_GPU_BACKWARD_FILTER] = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}};

static cudnnBackendDescriptor_t make_operation(builder *b, const mdm_gpu_convolution *k) {
    const pass_attributes *names = &attributes_of[k->pass];
    const char *what = "the operation";
    float alpha = 1, beta = 0;
    int64_t out_height = (k->height + 2 * (k->kernel / 2) - k->kernel) / k->stride + 1,
            out_width = (k->width + 2 * (k->kernel / 2) - k->kernel) / k->stride + 1;
    cudnnBackendDescriptor_t shape = make_convolution(b, k);
    cudnnBackendDescriptor_t x = make_tensor(b, MDM_X, k->precision, k->batch, k->in, k->height, k->width);
    cudnnBackendDescriptor_t filter =
        make_tensor(b, MDM_FILTER, k->precision, k->out, k->in, k->kernel, k->kernel);
    cudnnBackendDescriptor_t y = make_tensor(b, MDM_Y, k->precision, k->batch, k->out, out_height, out_width);
    cudnnBackendDescriptor_t d = make(b, names->operation, what);
    set(b, d, names->alpha, CUDNN_TYPE_FLOAT, 1, &alpha, what);
    set(b, d, names->beta, CUDNN_TYPE_FLOAT, 1, &beta, what);
    set_descriptor(b, d, names->shape, shape, what);
    set_descriptor(b, d, names->filter, filter, what);
    set_descriptor(b, d, names->x, x, what);
    set_descriptor(b, d, names->y, y, what);
    finalize(b, d, what);
    return d;
}

static cudnnBackendDescriptor_t make_graph(builder *b, const mdm_cudnn_target *target,
                                           const mdm_gpu_convolution *k) {
    const char *what = "the graph";
    cudnnBackendDescriptor_t operation = make_operation(b, k);
    cudnnBackendDescriptor_t graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, what);
    set_descriptor(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation, what);
    if (target->handle)
        set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target->handle, what);
    finalize(b, graph, what);
    return graph;
}

/* Whether an engine computes as the precision promises: sums in single precision, the same bits every time,
 * and, in fp32, without tensor cores, which would round the factors. */
static int is_suitable(const mdm_cudnn *cudnn, cudnnBackendDescriptor_t configuration,
                       mdm_precision precision) {
    cudnnBackendDescriptor_t engine = NULL;
    cudnnBackendNumericalNote_t numeric[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behaviour[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t got = 0, numerics = 0, behaviours = 0;
    int suitable = 1;
    if (cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine)) return 0;
    if (cudnn->cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &got, &engine) ||
        cudnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                        CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &numerics, numeric) ||
        cudnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                        CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &behaviours, behaviour))
        suitable = 0;
    for (int64_t i = 0; suitable && i < numerics; i++)
        if (numeric[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
            numeric[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||
            numeric[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS ||
            numeric[i] == CUDNN_NUMERICAL_NOTE_FFT || numeric[i] == CUDNN_NUMERICAL_NOTE_WINOGRAD ||
            (numeric[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE && precision == MDM_FP32))
            suitable = 0;
    for (int64_t i = 0; suitable && i < behaviours; i++)
        if (behaviour[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) suitable = 0;
    (void)cudnn->cudnnBackendDestroyDescriptor(engine);
    return suitable;
}

static int get_number(const mdm_cudnn *cudnn, cudnnBackendDescriptor_t descriptor,
                      cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, void *value) {
    int64_t got = 0;
    return cudnn->cudnnBackendGetAttribute(descriptor, name, type, 1, &got, value) == CUDNN_STATUS_SUCCESS &&
           got == 1;
}

/* Engine and knobs of a configuration; 0 when they cannot be told. */
static int read_choice(const mdm_cudnn *cudnn, cudnnBackendDescriptor_t configuration,
                       mdm_plan_choice *choice) {
    cudnnBackendDescriptor_t engine = NULL, knobs[MDM_MOST_KNOBS];
    int64_t count = 0;
    int made = 0, good = 0;
    memset(choice, 0, sizeof *choice);
    if (cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine)) return 0;
    while (made < MDM_MOST_KNOBS &&
           !cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[made]))
        made++;
    good = get_number(cudnn, configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                      &engine) &&
           get_number(cudnn, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, &choice->engine) &&
           !cudnn->cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                            CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &count, knobs) &&
           count <= made;
    for (int i = 0; good && i < (int)count; i++) {
        cudnnBackendKnobType_t type;
        good = get_number(cudnn, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, &type) &&
               get_number(cudnn, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64,
                          &choice->knobs[i].value);
        choice->knobs[i].type = good ? (int64_t)type : 0;
    }
    choice->knob_count = (int32_t)count;
    while (made > 0) (void)cudnn->cudnnBackendDestroyDescriptor(knobs[--made]);
    (void)cudnn->cudnnBackendDestroyDescriptor(engine);
    return good;
}

/* A plan of one configuration; 0 when cuDNN does not build it after all, which is no failure. */
static int build_plan(const mdm_cudnn_target *target, cudnnBackendDescriptor_t configuration,
                      mdm_cudnn_plan *out) {
    const mdm_cudnn *cudnn = target->cudnn;
    int64_t got = 0;
    memset(out, 0, sizeof *out);
    if (cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &out->plan)) return 0;
    cudnnStatus_t code = cudnn->cudnnBackendSetAttribute(out->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &configuration);
    if (!code && target->handle)
        code = cudnn->cudnnBackendSetAttribute(out->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE,
                                               1, &target->handle);
    if (!code && !target->handle)
        code = cudnn->cudnnBackendSetAttribute(out->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->description);
    if (!code) code = cudnn->cudnnBackendFinalize(out->plan);
    if (!code)
        code = cudnn->cudnnBackendGetAttribute(out->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                               CUDNN_TYPE_INT64, 1, &got, &out->workspace);
    if (!code && out->workspace <= MDM_LARGEST_WORKSPACE) return 1;
    (void)cudnn->cudnnBackendDestroyDescriptor(out->plan);
    out->plan = NULL;
    return 0;
}

void mdm_cudnn_release(const mdm_cudnn *cudnn, mdm_cudnn_plan *plan) {
    if (plan->plan) (void)cudnn->cudnnBackendDestroyDescriptor(plan->plan);
    if (plan->configuration) (void)cudnn->cudnnBackendDestroyDescriptor(plan->configuration);
    memset(plan, 0, sizeof *plan);
}

/* What one mode of the heuristics names and the precision allows, in its order; the caller destroys it. */
static int list_configurations(const mdm_cudnn_target *target, cudnnBackendDescriptor_t graph,
                               cudnnBackendHeurMode_t mode, mdm_precision precision,
                               cudnnBackendDescriptor_t list[MOST_CONFIGURATIONS]) {
    const mdm_cudnn *cudnn = target->cudnn;
    cudnnBackendDescriptor_t heuristics = NULL;
    int64_t got = 0;
    int made = 0, kept = 0;
    if (cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics)) return 0;
    cudnnStatus_t code = cudnn->cudnnBackendSetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    if (!code)
        code = cudnn->cudnnBackendSetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE,
                                               1, &mode);
    if (!code && !target->handle)
        code = cudnn->cudnnBackendSetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->description);
    if (!code) code = cudnn->cudnnBackendFinalize(heuristics);
    for (; !code && made < MOST_CONFIGURATIONS; made++)
        if (cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &list[made])) break;
    if (!code)
        code = cudnn->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &got, list);
    for (int i = 0; i < made; i++)
        if (!code && i < got && is_suitable(cudnn, list[i], precision))
            list[kept++] = list[i];
        else
            (void)cudnn->cudnnBackendDestroyDescriptor(list[i]);
    (void)cudnn->cudnnBackendDestroyDescriptor(heuristics);
    return kept;
}

/* The configuration becomes the plan's, or is destroyed: 0. */
static int take_configuration(const mdm_cudnn_target *target, cudnnBackendDescriptor_t configuration,
                              mdm_cudnn_plan *plan) {
    int is_built = build_plan(target, configuration, plan);
    if (is_built) {
        plan->is_nameable = read_choice(target->cudnn, configuration, &plan->choice);
        plan->configuration = configuration;
    } else {
        (void)target->cudnn->cudnnBackendDestroyDescriptor(configuration);
    }
    return is_built;
}

const char *mdm_cudnn_name(const mdm_gpu_convolution *k, char name[MDM_CONVOLUTION_NAME]) {
    snprintf(name, MDM_CONVOLUTION_NAME,
             "%s of %d pictures of %dx%d, %d to %d channels, kernel %d, stride %d, in %s",
             pass_names[k->pass], k->batch, k->height, k->width, k->in, k->out, k->kernel, k->stride,
             mdm_precision_name(k->precision));
    return name;
}

/* Adds the plans that one mode of the heuristics names. */
static void build_plans(const mdm_cudnn_target *target, cudnnBackendDescriptor_t graph,
                        cudnnBackendHeurMode_t mode, const mdm_gpu_convolution *k, int most,
                        mdm_cudnn_plan *plans, int *count) {
    cudnnBackendDescriptor_t list[MOST_CONFIGURATIONS];
    int listed = list_configurations(target, graph, mode, k->precision, list);
    for (int i = 0; i < listed; i++)
        if (*count < most)
            *count += take_configuration(target, list[i], &plans[*count]);
        else
            (void)target->cudnn->cudnnBackendDestroyDescriptor(list[i]);
}

mdm_status mdm_cudnn_find_plans(const mdm_cudnn_target *target, const mdm_gpu_convolution *k, int most,
                                mdm_cudnn_plan *plans, int *count) {
    builder b = {.cudnn = target->cudnn};
    char name[MDM_CONVOLUTION_NAME];
    *count = 0;
    cudnnBackendDescriptor_t graph = make_graph(&b, target, k);
    if (b.status == MDM_OK) {
        build_plans(target, graph, CUDNN_HEUR_MODE_A, k, most, plans, count);
        if (*count == 0) build_plans(target, graph, CUDNN_HEUR_MODE_FALLBACK, k, most, plans, count);
        if (*count == 0) b.status = mdm_fail(MDM_LOST, "cuDNN has no plan for %s", mdm_cudnn_name(k, name));
    }
    destroy_all(&b);
    return b.status;
}

/* Of those that one mode names; *milliseconds stays negative where none runs. Where there is no memory for
 * one, another may need none. */
static mdm_status try_plans(const mdm_cudnn_target *target, cudnnBackendDescriptor_t graph,
                            cudnnBackendHeurMode_t mode, const mdm_gpu_convolution *k,
                            mdm_cudnn_measure *measure, void *context, mdm_cudnn_plan *plan) {
    cudnnBackendDescriptor_t list[MOST_CONFIGURATIONS];
    int listed = list_configurations(target, graph, mode, k->precision, list), is_found = 0;
    mdm_status status = MDM_OK;
    for (int i = 0; i < listed; i++) {
        if (is_found || status == MDM_LOST) {
            (void)target->cudnn->cudnnBackendDestroyDescriptor(list[i]);
        } else if (take_configuration(target, list[i], plan)) {
            status = measure(context, plan, &plan->choice.milliseconds);
            is_found = status == MDM_OK && plan->choice.milliseconds >= 0;
            if (!is_found) mdm_cudnn_release(target->cudnn, plan);
        }
    }
    return status == MDM_LOST ? status : MDM_OK;
}

mdm_status mdm_cudnn_find_one_that_runs(const mdm_cudnn_target *target, const mdm_gpu_convolution *k,
                                        mdm_cudnn_measure *measure, void *context, mdm_cudnn_plan *plan) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    builder b = {.cudnn = target->cudnn};
    char name[MDM_CONVOLUTION_NAME], why[512];
    memset(plan, 0, sizeof *plan);
    cudnnBackendDescriptor_t graph = make_graph(&b, target, k);
    for (size_t i = 0; i < sizeof modes / sizeof *modes && b.status == MDM_OK && !plan->plan; i++)
        b.status = try_plans(target, graph, modes[i], k, measure, context, plan);
    destroy_all(&b);
    if (b.status != MDM_OK || plan->plan) return b.status;
    snprintf(why, sizeof why, "%.500s", mdm_last_message());
    return mdm_fail(
        MDM_LOST,
        "none of cuDNN's plans runs for %s: %s; another train.precision or cuDNN, or a newer driver, "
        "may have one that does",
        mdm_cudnn_name(k, name), why);
}

/* The configuration that a choice names, kept out of the builder's list when it was made. */
static cudnnBackendDescriptor_t make_configuration(builder *b, const mdm_cudnn_target *target,
                                                   cudnnBackendDescriptor_t graph,
                                                   const mdm_plan_choice *choice) {
    const char *what = "an engine";
    cudnnBackendDescriptor_t knobs[MDM_MOST_KNOBS], configuration;
    cudnnBackendDescriptor_t engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR, what);
    set_descriptor(b, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph, what);
    set(b, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &choice->engine, what);
    if (!target->handle) set_descriptor(b, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, target->description, what);
    finalize(b, engine, what);
    for (int i = 0; i < choice->knob_count; i++) {
        cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)choice->knobs[i].type;
        knobs[i] = make(b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, what);
        set(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type, what);
        set(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &choice->knobs[i].value,
            what);
        finalize(b, knobs[i], what);
    }
    configuration = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, what);
    set_descriptor(b, configuration, CUDNN_ATTR_ENGINECFG_ENGINE, engine, what);
    if (choice->knob_count > 0)
        set(b, configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
            choice->knob_count, knobs, what);
    finalize(b, configuration, what);
    if (b->status != MDM_OK) return NULL;
    b->count--;
    return configuration;
}

int mdm_cudnn_rebuild_plan(const mdm_cudnn_target *target, const mdm_gpu_convolution *k,
                           const mdm_plan_choice *choice, mdm_cudnn_plan *plan) {
    builder b = {.cudnn = target->cudnn};
    cudnnBackendDescriptor_t graph = make_graph(&b, target, k);
    cudnnBackendDescriptor_t configuration = make_configuration(&b, target, graph, choice);
    int built = configuration && is_suitable(target->cudnn, configuration, k->precision) &&
                build_plan(target, configuration, plan);
    if (built) {
        plan->configuration = configuration;
        plan->choice = *choice;
        plan->is_nameable = 1;
    } else if (configuration) {
        (void)target->cudnn->cudnnBackendDestroyDescriptor(configuration);
    }
    destroy_all(&b);
    return built;
}

static void tell_choice(const mdm_gpu_convolution *k, const mdm_cudnn_plan *plan, const char *how) {
    mdm_debug("%s of %dx%dx%d, batch %d, to %d channels, kernel %d, stride %d: engine %lld, %.3f ms (%s)",
              pass_names[k->pass], k->height, k->width, k->in, k->batch, k->out, k->kernel, k->stride,
              (long long)plan->choice.engine, (double)plan->choice.milliseconds, how);
}

/* The fastest of the plans, -1 where none runs; a single one is not measured. */
static mdm_status measure_plans(mdm_cudnn_plan *plans, int count, mdm_cudnn_measure *measure, void *context,
                                int *best) {
    *best = count == 1 ? 0 : -1;
    for (int i = 0; i < count && count > 1; i++) {
        float *milliseconds = &plans[i].choice.milliseconds;
        MDM_TRY(measure(context, &plans[i], milliseconds));
        if (*milliseconds >= 0 && (*best < 0 || *milliseconds < plans[*best].choice.milliseconds)) *best = i;
    }
    return MDM_OK;
}

/* The plan with the least scratch memory; of several the one that the heuristics name first. */
static int most_frugal(const mdm_cudnn_plan *plans, int count) {
    int best = 0;
    for (int i = 1; i < count; i++)
        if (plans[i].workspace < plans[best].workspace) best = i;
    return best;
}

mdm_status mdm_cudnn_choose_plan(const mdm_cudnn_target *target, mdm_plan_cache *cache,
                                 const mdm_gpu_convolution *k, mdm_cudnn_measure *measure, void *context,
                                 mdm_cudnn_plan *plan) {
    mdm_cudnn_plan plans[MOST_TRIED];
    mdm_plan_choice known;
    int count, best;
    memset(plan, 0, sizeof *plan);
    if (mdm_plan_cache_find(cache, k, &known) && mdm_cudnn_rebuild_plan(target, k, &known, plan)) {
        tell_choice(k, plan, "kept");
        return MDM_OK;
    }
    MDM_TRY(mdm_cudnn_find_plans(target, k, MOST_TRIED, plans, &count));
    mdm_status status = measure_plans(plans, count, measure, context, &best);
    int is_measured = status != MDM_RESOURCE;
    if (!is_measured) { /* a run may fit where measuring beside it does not */
        best = most_frugal(plans, count);
        status = MDM_OK;
    }
    for (int i = 0; i < count; i++)
        if (status != MDM_OK || i != best) mdm_cudnn_release(target->cudnn, &plans[i]);
    MDM_TRY(status);
    if (best < 0)
        MDM_TRY(mdm_cudnn_find_one_that_runs(target, k, measure, context, plan));
    else
        *plan = plans[best];
    tell_choice(k, plan, is_measured ? "measured" : "no memory to measure");
    if (plan->is_nameable && is_measured) mdm_plan_cache_put(cache, k, &plan->choice);
    return MDM_OK;
}

mdm_status mdm_cudnn_describe(const mdm_cudnn *cudnn, const char *json,
                              cudnnBackendDescriptor_t *description) {
    builder b = {.cudnn = cudnn};
    const char *what = "the device description";
    cudnnBackendDescriptor_t d = make(&b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, what);
    set(&b, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1, json,
        what);
    finalize(&b, d, what);
    if (b.status != MDM_OK) destroy_all(&b);
    *description = b.status == MDM_OK ? d : NULL;
    return b.status;
}
