/* Convolutions by oneDNN.
 *
 * Activations are pinned to one blocked layout so that nothing is reordered between layers; weights take the
 * layout each algorithm asks for and are reordered from the float master copy once a step. Scratch memory is
 * one buffer shared by all primitives. Those that own kernels serve better are made in
 * convolution_winograd.c and convolution_tiles.c.
 */
#include "device.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY_DNNL(call, what)                                                                                 \
    do {                                                                                                     \
        dnnl_status_t dnnl_code_ = (call);                                                                   \
        if (dnnl_code_ != dnnl_success) return dnnl_failure(dnnl_code_, what);                               \
    } while (0)

static mdm_status dnnl_failure(dnnl_status_t code, const char *what) {
    if (code == dnnl_out_of_memory)
        return mdm_fail(MDM_RESOURCE, "out of memory in oneDNN (%s): use a smaller batch or network", what);
    return mdm_fail(MDM_LOST, "oneDNN failed in %s (code %d)", what, (int)code);
}

/* One primitive with its arguments, ready to be executed. */
typedef struct operation {
    dnnl_primitive_t primitive;
    dnnl_memory_t source, weights, destination,
        scratch; /* destination: what is written, or the gradient read */
} operation;

/* A change of layout. */
typedef struct reorder {
    dnnl_primitive_t primitive;
    dnnl_memory_t scratch;
} reorder;

typedef struct mdm_cpu_convolution {
    mdm_convolution common;
    mdm_cpu_device *device;
    mdm_convolution_shape shape;
    int data_gradient, weight_gradient; /* asked for */
    dnnl_alg_kind_t algorithm;
    operation forward, backward_data, backward_weights;
    void *image; /* the image in that layout, when it is not plain float [N,C,H,W] */
    dnnl_memory_t plain_image, laid_image;
    reorder image_reorder;
    int in, out;                              /* channels as oneDNN sees them: whole blocks */
    float *padded;                            /* weights with whole blocks, where the channels need it */
    dnnl_memory_t plain_weights;              /* float [out,in,k,k], handle set per call */
    reorder to_forward, to_backward;          /* weight reorders */
    reorder from_gradient, from_gradient_add; /* weight gradient to the plain layout */
} mdm_cpu_convolution;

mdm_status mdm_onednn_start(mdm_cpu_device *device) {
    const dnnl_version_t *version = dnnl_version();
    snprintf(device->common.info.library, sizeof device->common.info.library, "oneDNN %d.%d.%d",
             version->major, version->minor, version->patch);
    device->has_amx = mdm_onednn_uses(dnnl_cpu_isa_avx512_core_amx);
    TRY_DNNL(dnnl_engine_create(&device->engine, dnnl_cpu, 0), "engine");
    TRY_DNNL(dnnl_stream_create(&device->stream, device->engine, dnnl_stream_default_flags), "stream");
    return MDM_OK;
}

void mdm_onednn_stop(mdm_cpu_device *device) {
    if (device->stream) dnnl_stream_destroy(device->stream);
    if (device->engine) dnnl_engine_destroy(device->engine);
}

mdm_status mdm_cpu_reserve_scratch(mdm_cpu_device *device, size_t bytes) {
    if (bytes <= device->scratch_bytes) return MDM_OK;
    free(device->scratch);
    device->scratch = NULL;
    device->scratch_bytes = 0;
    MDM_TRY(mdm_allocate(&device->scratch, (long long)bytes, 1, "convolution scratch memory"));
    device->scratch_bytes = bytes;
    return MDM_OK;
}

static dnnl_data_type_t data_type(mdm_precision precision) {
    return precision == MDM_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_format_tag_t layout_of(const mdm_cpu_device *device, mdm_precision precision) {
    if (mdm_cpu_channels_last(&device->common, precision)) return dnnl_nhwc;
    return device->common.info.channel_block == 16 ? dnnl_nChw16c : dnnl_nChw8c;
}

static mdm_status describe(mdm_layout *layout, int n, int c, int h, int w, dnnl_data_type_t type,
                           dnnl_format_tag_t tag) {
    dnnl_dims_t dims = {n, c, h, w};
    TRY_DNNL(mdm_describe_layout(layout, dims, type, tag), "a layout");
    return MDM_OK;
}

static mdm_status make_memory(mdm_cpu_device *device, mdm_layout_view layout, void *handle,
                              dnnl_memory_t *memory) {
    TRY_DNNL(dnnl_memory_create(memory, layout, device->engine, handle), "a memory object");
    return MDM_OK;
}

/* Attributes of every operation: scratch memory from us, and the sum with what is there where asked. */
static mdm_status make_attributes(int add_to_output, dnnl_primitive_attr_t *attributes) {
    TRY_DNNL(dnnl_primitive_attr_create(attributes), "attributes");
    TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user),
             "scratchpad mode");
    if (add_to_output) {
        dnnl_post_ops_t post;
        TRY_DNNL(dnnl_post_ops_create(&post), "post operations");
        TRY_DNNL(mdm_append_sum(post), "sum post operation");
        TRY_DNNL(dnnl_primitive_attr_set_post_ops(*attributes, post), "post operations");
        dnnl_post_ops_destroy(post);
    }
    return MDM_OK;
}

static mdm_layout_view layout_named(dnnl_primitive_desc_t description, dnnl_query_t query) {
    return dnnl_primitive_desc_query_md(description, query, 0);
}

static mdm_status make_reorder(mdm_cpu_device *device, mdm_layout_view from, mdm_layout_view to,
                               int accumulate, reorder *out) {
    dnnl_primitive_desc_t description;
    dnnl_primitive_attr_t attributes;
    MDM_TRY(make_attributes(accumulate, &attributes));
    TRY_DNNL(dnnl_reorder_primitive_desc_create(&description, from, device->engine, to, device->engine,
                                                attributes),
             "a reorder description");
    dnnl_primitive_attr_destroy(attributes);
    mdm_layout_view scratch = layout_named(description, dnnl_query_scratchpad_md);
    MDM_TRY(mdm_cpu_reserve_scratch(device, dnnl_memory_desc_get_size(scratch)));
    MDM_TRY(make_memory(device, scratch, DNNL_MEMORY_NONE, &out->scratch));
    TRY_DNNL(dnnl_primitive_create(&out->primitive, description), "a reorder");
    dnnl_primitive_desc_destroy(description);
    return MDM_OK;
}

static mdm_status run_reorder(mdm_cpu_device *device, const reorder *r, dnnl_memory_t from,
                              dnnl_memory_t to) {
    dnnl_exec_arg_t arguments[3] = {
        {DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}, {DNNL_ARG_SCRATCHPAD, r->scratch}};
    TRY_DNNL(dnnl_memory_set_data_handle(r->scratch, device->scratch), "scratch memory");
    TRY_DNNL(dnnl_primitive_execute(r->primitive, device->stream, 3, arguments), "a reorder");
    return MDM_OK;
}

static void destroy_reorder(const reorder *r) {
    if (r->primitive) dnnl_primitive_destroy(r->primitive);
    if (r->scratch) dnnl_memory_destroy(r->scratch);
}

/* Pictures one by one: whatever lies between them is no part of a layout. */
static mdm_status convert(mdm_cpu_device *device, mdm_layout_view from, const void *source,
                          size_t source_bytes, mdm_layout_view to, void *destination,
                          size_t destination_bytes, int n) {
    reorder change = {NULL, NULL};
    dnnl_memory_t a, b;
    MDM_TRY(make_memory(device, from, DNNL_MEMORY_NONE, &a));
    MDM_TRY(make_memory(device, to, DNNL_MEMORY_NONE, &b));
    MDM_TRY(make_reorder(device, from, to, 0, &change));
    mdm_status status = MDM_OK;
    for (int i = 0; i < n && status == MDM_OK; i++) {
        TRY_DNNL(dnnl_memory_set_data_handle(a, (char *)source + (size_t)i * source_bytes), "a picture");
        TRY_DNNL(dnnl_memory_set_data_handle(b, (char *)destination + (size_t)i * destination_bytes),
                 "a picture");
        status = run_reorder(device, &change, a, b);
    }
    destroy_reorder(&change);
    dnnl_memory_destroy(a);
    dnnl_memory_destroy(b);
    return status;
}

/* One picture of a tensor of that many channels, which lie within whole blocks. */
static mdm_status describe_picture(const mdm_cpu_device *device, mdm_layout *layout, int channels, int height,
                                   int width, mdm_precision precision) {
    int64_t pixel = mdm_padded_channels(&device->common, channels), row = pixel * width;
    dnnl_dims_t dims = {1, channels, height, width}, strides = {row * height, 1, row, pixel};
    if (!mdm_cpu_channels_last(&device->common, precision))
        return describe(layout, 1, channels, height, width, data_type(precision),
                        layout_of(device, precision));
    TRY_DNNL(mdm_describe_strides(layout, dims, data_type(precision), strides), "a layout");
    return MDM_OK;
}

mdm_status mdm_cpu_tensor_import(mdm_device *public_device, const float *plain, int n, int channels,
                                 int height, int width, mdm_precision precision, void *tensor) {
    mdm_cpu_device *device = (mdm_cpu_device *)public_device;
    mdm_layout from, to;
    size_t plain_bytes = sizeof(float) * (size_t)channels * (size_t)height * (size_t)width,
           bytes = mdm_tensor_bytes(public_device, 1, channels, height, width, precision);
    MDM_TRY(describe(&from, 1, channels, height, width, dnnl_f32, dnnl_nchw));
    MDM_TRY(describe_picture(device, &to, channels, height, width, precision));
    memset(tensor, 0, bytes * (size_t)n);
    mdm_status status = convert(device, from, plain, plain_bytes, to, tensor, bytes, n);
    mdm_forget_layout(from);
    mdm_forget_layout(to);
    return status;
}

mdm_status mdm_cpu_tensor_export(mdm_device *public_device, const void *tensor, int n, int channels,
                                 int height, int width, mdm_precision precision, float *plain) {
    mdm_cpu_device *device = (mdm_cpu_device *)public_device;
    mdm_layout from, to;
    size_t plain_bytes = sizeof(float) * (size_t)channels * (size_t)height * (size_t)width,
           bytes = mdm_tensor_bytes(public_device, 1, channels, height, width, precision);
    MDM_TRY(describe_picture(device, &from, channels, height, width, precision));
    MDM_TRY(describe(&to, 1, channels, height, width, dnnl_f32, dnnl_nchw));
    mdm_status status = convert(device, from, tensor, bytes, to, plain, plain_bytes, n);
    mdm_forget_layout(from);
    mdm_forget_layout(to);
    return status;
}

/* The layouts of one convolution as its description names them, and as long as that is there. */
typedef struct layouts {
    mdm_layout_view source, weights, destination;
} layouts;

static mdm_status finish_operation(mdm_cpu_device *device, dnnl_primitive_desc_t description,
                                   dnnl_query_t weights_query, operation *out, layouts *names,
                                   dnnl_query_t source_query, dnnl_query_t destination_query) {
    names->source = layout_named(description, source_query);
    names->weights = layout_named(description, weights_query);
    names->destination = layout_named(description, destination_query);
    mdm_layout_view scratch = layout_named(description, dnnl_query_scratchpad_md);
    MDM_TRY(mdm_cpu_reserve_scratch(device, dnnl_memory_desc_get_size(scratch)));
    TRY_DNNL(dnnl_primitive_create(&out->primitive, description), "a convolution");
    MDM_TRY(make_memory(device, names->source, DNNL_MEMORY_NONE, &out->source));
    MDM_TRY(make_memory(device, names->weights, DNNL_MEMORY_ALLOCATE, &out->weights));
    MDM_TRY(make_memory(device, names->destination, DNNL_MEMORY_NONE, &out->destination));
    return make_memory(device, scratch, DNNL_MEMORY_NONE, &out->scratch);
}

/* Whether oneDNN found an optimised implementation: its reference loops are hundreds of times slower. */
static int is_reference(dnnl_primitive_desc_t description) {
    const char *name = "";
    dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name);
    return strncmp(name, "ref", 3) == 0;
}

/* What the operations of a convolution are made from. */
typedef struct planning {
    mdm_layout x, w, w_gradient, y;
    dnnl_primitive_attr_t plain, with_sum;
    dnnl_primitive_desc_t forward, backward_data, backward_weights;
    layouts of_forward, of_data, of_weights;
} planning;

static void forget_plans(planning *plan) {
    mdm_layout made[4] = {plan->x, plan->w, plan->w_gradient, plan->y};
    dnnl_primitive_attr_t attributes[2] = {plan->plain, plan->with_sum};
    dnnl_primitive_desc_t descriptions[3] = {plan->forward, plan->backward_data, plan->backward_weights};
    for (int i = 0; i < 4; i++) mdm_forget_layout(made[i]);
    for (int i = 0; i < 2; i++)
        if (attributes[i]) dnnl_primitive_attr_destroy(attributes[i]);
    for (int i = 0; i < 3; i++)
        if (descriptions[i]) dnnl_primitive_desc_destroy(descriptions[i]);
}

static mdm_status plan_layouts(mdm_cpu_convolution *c, planning *plan) {
    const mdm_convolution_shape *s = &c->shape;
    dnnl_data_type_t type = data_type(s->precision);
    int pad = s->kernel / 2, out_height = (s->height + 2 * pad - s->kernel) / s->stride + 1,
        out_width = (s->width + 2 * pad - s->kernel) / s->stride + 1;
    MDM_TRY(describe(&plan->x, s->batch, c->in, s->height, s->width, type,
                     s->from_image ? dnnl_format_tag_any : layout_of(c->device, s->precision)));
    MDM_TRY(describe(&plan->y, s->batch, c->out, out_height, out_width, type,
                     layout_of(c->device, s->precision)));
    MDM_TRY(describe(&plan->w, c->out, c->in, s->kernel, s->kernel, type, dnnl_format_tag_any));
    MDM_TRY(describe(&plan->w_gradient, c->out, c->in, s->kernel, s->kernel, dnnl_f32, dnnl_format_tag_any));
    MDM_TRY(make_attributes(0, &plan->plain));
    return make_attributes(s->add_to_output, &plan->with_sum);
}

/* What the operations have in common, with the layouts of the forward one. */
static mdm_convolution_plan common_plan(const mdm_cpu_convolution *c, const planning *plan) {
    const mdm_convolution_shape *s = &c->shape;
    int pad = s->kernel / 2;
    mdm_convolution_plan out = {.engine = c->device->engine,
                                .algorithm = c->algorithm,
                                .x = plan->x,
                                .weights = plan->w,
                                .y = plan->y,
                                .strides = {s->stride, s->stride},
                                .padding = {pad, pad}};
    return out;
}

/* `forward` stays NULL where oneDNN has none. */
static mdm_status describe_forward(mdm_cpu_convolution *c, planning *plan, dnnl_alg_kind_t algorithm) {
    mdm_convolution_plan common = common_plan(c, plan);
    common.algorithm = c->algorithm = algorithm;
    if (plan->forward) dnnl_primitive_desc_destroy(plan->forward);
    dnnl_status_t code = mdm_describe_forward(
        &common, c->data_gradient + c->weight_gradient == 0 ? dnnl_forward_inference : dnnl_forward_training,
        plan->with_sum, &plan->forward);
    return code == dnnl_out_of_memory ? dnnl_failure(code, "a forward convolution") : MDM_OK;
}

/* Below 64 channels Winograd's algorithm was slower than plain products for batches up to 32, and hardly
 * faster for larger ones; and images have so few that its layout would force the weight gradient into the
 * reference loops. Its sums are cut by the number of all pictures' tiles, so a picture's results depend on
 * how many there are. */
static dnnl_alg_kind_t choose_algorithm(const mdm_cpu_convolution *c) {
    const mdm_convolution_shape *s = &c->shape;
    int few = s->in_channels < 64 || s->out_channels < 64;
    int tiles = s->batch * ((s->height + 3) / 4) * ((s->width + 3) / 4);
    if (!c->device->winograd || s->from_image || few || s->rows_alone ||
        mdm_cpu_channels_last(&c->device->common, s->precision))
        return dnnl_convolution_direct;
    /* oneDNN's choice thinks of larger batches than the shards that gradients are asked of alone */
    if (s->gradient_only && s->kernel == 3 && s->stride == 1 && tiles >= 24) return dnnl_convolution_winograd;
    return dnnl_convolution_auto;
}

static mdm_status plan_forward(mdm_cpu_convolution *c, planning *plan) {
    MDM_TRY(describe_forward(c, plan, choose_algorithm(c)));
    if (c->algorithm != dnnl_convolution_direct && (!plan->forward || is_reference(plan->forward)))
        MDM_TRY(describe_forward(c, plan, dnnl_convolution_direct));
    if (!plan->forward)
        return mdm_fail(MDM_LOST, "oneDNN has no forward convolution %d -> %d channels at %dx%d",
                        c->shape.in_channels, c->shape.out_channels, c->shape.height, c->shape.width);
    if (c->shape.gradient_only) {
        plan->of_forward.source = layout_named(plan->forward, dnnl_query_src_md);
        return MDM_OK;
    }
    return finish_operation(c->device, plan->forward, dnnl_query_weights_md, &c->forward, &plan->of_forward,
                            dnnl_query_src_md, dnnl_query_dst_md);
}

static mdm_status plan_backward_data(mdm_cpu_convolution *c, planning *plan) {
    mdm_convolution_plan common = common_plan(c, plan);
    TRY_DNNL(mdm_describe_backward_data(&common, plan->plain, plan->forward, &plan->backward_data),
             "a backward convolution");
    return finish_operation(c->device, plan->backward_data, dnnl_query_weights_md, &c->backward_data,
                            &plan->of_data, dnnl_query_diff_src_md, dnnl_query_diff_dst_md);
}

static mdm_status plan_backward_weights(mdm_cpu_convolution *c, planning *plan) {
    mdm_convolution_plan common = common_plan(c, plan);
    if (c->shape.from_image) common.x = plan->of_forward.source;
    common.weights = plan->w_gradient;
    TRY_DNNL(mdm_describe_backward_weights(&common, plan->plain, plan->forward, &plan->backward_weights),
             "a weight gradient");
    return finish_operation(c->device, plan->backward_weights, dnnl_query_diff_weights_md,
                            &c->backward_weights, &plan->of_weights, dnnl_query_src_md,
                            dnnl_query_diff_dst_md);
}

/* An image arrives as plain float [N,C,H,W]; where the convolution wants something else, it is reordered
 * first. */
static mdm_status plan_image(mdm_cpu_convolution *c, mdm_layout_view plain, mdm_layout_view wanted) {
    if (dnnl_memory_desc_equal(plain, wanted)) return MDM_OK;
    MDM_TRY(mdm_allocate(&c->image, (long long)dnnl_memory_desc_get_size(wanted), 1, "the image batch"));
    MDM_TRY(make_memory(c->device, plain, DNNL_MEMORY_NONE, &c->plain_image));
    MDM_TRY(make_memory(c->device, wanted, c->image, &c->laid_image));
    return make_reorder(c->device, plain, wanted, 0, &c->image_reorder);
}

static mdm_status plan_weights(mdm_cpu_convolution *c, const planning *plan, mdm_layout_view plain) {
    const mdm_convolution_shape *s = &c->shape;
    if (c->out != s->out_channels || c->in != s->in_channels)
        MDM_TRY(MDM_ALLOCATE(c->padded, (int64_t)c->out * c->in * s->kernel * s->kernel, "padded weights"));
    MDM_TRY(make_memory(c->device, plain, DNNL_MEMORY_NONE, &c->plain_weights));
    if (c->forward.primitive)
        MDM_TRY(make_reorder(c->device, plain, plan->of_forward.weights, 0, &c->to_forward));
    if (c->backward_data.primitive)
        MDM_TRY(make_reorder(c->device, plain, plan->of_data.weights, 0, &c->to_backward));
    if (c->backward_weights.primitive) {
        MDM_TRY(make_reorder(c->device, plan->of_weights.weights, plain, 0, &c->from_gradient));
        MDM_TRY(make_reorder(c->device, plan->of_weights.weights, plain, 1, &c->from_gradient_add));
    }
    return MDM_OK;
}

static mdm_status plan_operations(mdm_cpu_convolution *c, planning *plan) {
    MDM_TRY(plan_layouts(c, plan));
    MDM_TRY(plan_forward(c, plan));
    if (c->data_gradient) MDM_TRY(plan_backward_data(c, plan));
    return c->weight_gradient ? plan_backward_weights(c, plan) : MDM_OK;
}

static mdm_status plan_all(mdm_cpu_convolution *c) {
    const mdm_convolution_shape *s = &c->shape;
    planning plan = {0};
    mdm_layout image = NULL, weights = NULL; /* as they come */
    mdm_status status = plan_operations(c, &plan);
    if (status == MDM_OK && s->from_image) {
        status = describe(&image, s->batch, s->in_channels, s->height, s->width, dnnl_f32, dnnl_nchw);
        if (status == MDM_OK) status = plan_image(c, image, plan.of_forward.source);
    }
    if (status == MDM_OK)
        status = describe(&weights, c->out, c->in, s->kernel, s->kernel, dnnl_f32, dnnl_oihw);
    if (status == MDM_OK) status = plan_weights(c, &plan, weights);
    mdm_forget_layout(image);
    mdm_forget_layout(weights);
    forget_plans(&plan);
    return status;
}

mdm_status mdm_own_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                      const mdm_device_operations *operations, size_t bytes,
                                      mdm_status (*prepare)(mdm_own_convolution *convolution),
                                      mdm_convolution **out) {
    void *memory;
    *out = NULL;
    MDM_TRY(mdm_allocate(&memory, (long long)bytes, 1, "a convolution"));
    mdm_own_convolution *c = memory;
    c->common.operations = operations;
    c->device = (mdm_cpu_device *)device;
    c->shape = *shape;
    mdm_status status = prepare(c);
    if (status == MDM_OK)
        *out = &c->common;
    else
        operations->convolution_destroy(&c->common);
    return status;
}

mdm_status mdm_cpu_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                      mdm_convolution **out) {
#ifdef MDM_X86
    if (mdm_tile_convolution_fits(device, shape)) return mdm_tile_convolution_create(device, shape, out);
    if (mdm_winograd_convolution_fits(device, shape))
        return mdm_winograd_convolution_create(device, shape, out);
#endif
    int data_gradient = !shape->forward_only && !shape->from_image && !shape->gradient_only;
    return mdm_direct_convolution_create(device, shape, data_gradient, !shape->forward_only, out);
}

mdm_status mdm_direct_convolution_create(mdm_device *device, const mdm_convolution_shape *shape,
                                         int data_gradient, int weight_gradient, mdm_convolution **out) {
    mdm_cpu_convolution *c;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(c, 1, "a convolution"));
    c->common.operations = device->operations;
    c->device = (mdm_cpu_device *)device;
    c->shape = *shape;
    c->data_gradient = data_gradient;
    c->weight_gradient = weight_gradient;
    /* Whole blocks of channels: with partial ones oneDNN falls back to its reference loops. The lanes beyond
     * are zero. */
    c->in = shape->from_image ? shape->in_channels : mdm_padded_channels(device, shape->in_channels);
    c->out = mdm_padded_channels(device, shape->out_channels);
    int threads = omp_get_max_threads(); /* what a primitive runs on must be set when it is made */
    omp_set_num_threads(device->info.threads);
    mdm_status status = plan_all(c);
    omp_set_num_threads(threads);
    if (status != MDM_OK) {
        mdm_cpu_convolution_destroy(&c->common);
        return status;
    }
    *out = &c->common;
    return MDM_OK;
}

static void destroy_operation(operation *o) {
    if (o->primitive) dnnl_primitive_destroy(o->primitive);
    dnnl_memory_t memories[4] = {o->source, o->weights, o->destination, o->scratch};
    for (int i = 0; i < 4; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
}

void mdm_cpu_convolution_destroy(mdm_convolution *convolution) {
    mdm_cpu_convolution *c = (mdm_cpu_convolution *)convolution;
    if (!c) return;
    destroy_operation(&c->forward);
    destroy_operation(&c->backward_data);
    destroy_operation(&c->backward_weights);
    const reorder *reorders[5] = {&c->image_reorder, &c->to_forward, &c->to_backward, &c->from_gradient,
                                  &c->from_gradient_add};
    for (int i = 0; i < 5; i++) destroy_reorder(reorders[i]);
    dnnl_memory_t memories[3] = {c->plain_image, c->laid_image, c->plain_weights};
    for (int i = 0; i < 3; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    free(c->image);
    free(c->padded);
    free(c);
}

/* Copies between the caller's weights and the padded ones, whose other lanes stay zero. */
static void pad_weights(mdm_cpu_convolution *c, const float *weights) {
    size_t taps = (size_t)c->shape.kernel * (size_t)c->shape.kernel,
           row = (size_t)c->shape.in_channels * taps;
    memset(c->padded, 0,
           sizeof(float) * (size_t)c->out * (size_t)c->in * taps); /* a gradient may have been there */
    for (int o = 0; o < c->shape.out_channels; o++)
        memcpy(c->padded + (size_t)o * (size_t)c->in * taps, weights + (size_t)o * row, sizeof(float) * row);
}

static void unpad_gradient(const mdm_cpu_convolution *c, float *gradient, int accumulate) {
    size_t taps = (size_t)c->shape.kernel * (size_t)c->shape.kernel,
           row = (size_t)c->shape.in_channels * taps;
    for (int o = 0; o < c->shape.out_channels; o++) {
        const float *from = c->padded + (size_t)o * (size_t)c->in * taps;
        float *to = gradient + (size_t)o * row;
        for (size_t i = 0; i < row; i++) to[i] = accumulate ? to[i] + from[i] : from[i];
    }
}

mdm_status mdm_cpu_convolution_set_weights(mdm_convolution *convolution, const float *weights) {
    mdm_cpu_convolution *c = (mdm_cpu_convolution *)convolution;
    if (c->padded) pad_weights(c, weights);
    TRY_DNNL(dnnl_memory_set_data_handle(c->plain_weights, c->padded ? (void *)c->padded : (void *)weights),
             "weights");
    MDM_TRY(run_reorder(c->device, &c->to_forward, c->plain_weights, c->forward.weights));
    if (c->to_backward.primitive)
        MDM_TRY(run_reorder(c->device, &c->to_backward, c->plain_weights, c->backward_data.weights));
    return MDM_OK;
}

static mdm_status execute(mdm_cpu_convolution *c, operation *o, int source_argument, const void *source,
                          int weights_argument, int destination_argument, const void *destination) {
    TRY_DNNL(dnnl_memory_set_data_handle(o->source, (void *)source), "a tensor");
    TRY_DNNL(dnnl_memory_set_data_handle(o->destination, (void *)destination), "a tensor");
    TRY_DNNL(dnnl_memory_set_data_handle(o->scratch, c->device->scratch), "scratch memory");
    dnnl_exec_arg_t arguments[4] = {{source_argument, o->source},
                                    {weights_argument, o->weights},
                                    {destination_argument, o->destination},
                                    {DNNL_ARG_SCRATCHPAD, o->scratch}};
    TRY_DNNL(dnnl_primitive_execute(o->primitive, c->device->stream, 4, arguments), "a convolution");
    return MDM_OK;
}

/* The image as the convolution wants it. */
static mdm_status lay_image(mdm_cpu_convolution *c, const void *input, const void **laid) {
    *laid = input;
    if (!c->image_reorder.primitive) return MDM_OK;
    TRY_DNNL(dnnl_memory_set_data_handle(c->plain_image, (void *)input), "an image batch");
    MDM_TRY(run_reorder(c->device, &c->image_reorder, c->plain_image, c->laid_image));
    *laid = c->image;
    return MDM_OK;
}

mdm_status mdm_cpu_convolution_forward(mdm_convolution *convolution, const void *input, void *output) {
    mdm_cpu_convolution *c = (mdm_cpu_convolution *)convolution;
    MDM_TRY(lay_image(c, input, &input));
    return execute(c, &c->forward, DNNL_ARG_SRC, input, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, output);
}

mdm_status mdm_cpu_convolution_backward_data(mdm_convolution *convolution, const void *output_gradient,
                                             void *input_gradient) {
    mdm_cpu_convolution *c = (mdm_cpu_convolution *)convolution;
    return execute(c, &c->backward_data, DNNL_ARG_DIFF_SRC, input_gradient, DNNL_ARG_WEIGHTS,
                   DNNL_ARG_DIFF_DST, output_gradient);
}

mdm_status mdm_cpu_convolution_backward_weights(mdm_convolution *convolution, const void *input,
                                                const void *output_gradient, float *gradient,
                                                int accumulate) {
    mdm_cpu_convolution *c = (mdm_cpu_convolution *)convolution;
    MDM_TRY(lay_image(c, input, &input));
    MDM_TRY(execute(c, &c->backward_weights, DNNL_ARG_SRC, input, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST,
                    output_gradient));
    TRY_DNNL(dnnl_memory_set_data_handle(c->plain_weights, c->padded ? c->padded : gradient),
             "a weight gradient");
    MDM_TRY(run_reorder(c->device, accumulate && !c->padded ? &c->from_gradient_add : &c->from_gradient,
                        c->backward_weights.weights, c->plain_weights));
    if (c->padded) unpad_gradient(c, gradient, accumulate);
    return MDM_OK;
}
