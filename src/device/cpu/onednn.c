#include "onednn.h"
#include <stddef.h>
#include <stdlib.h>

int mdm_onednn_uses(dnnl_cpu_isa_t instructions) {
    return (dnnl_get_effective_cpu_isa() & instructions) == instructions;
}

#if DNNL_VERSION_MAJOR == 2

static dnnl_status_t allocate(mdm_layout *layout) {
    *layout = calloc(1, sizeof **layout);
    return *layout ? dnnl_success : dnnl_out_of_memory;
}

static dnnl_status_t keep_if(dnnl_status_t status, mdm_layout *layout) {
    if (status == dnnl_success) return status;
    free(*layout);
    *layout = NULL;
    return status;
}

dnnl_status_t mdm_describe_layout(mdm_layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                  dnnl_format_tag_t tag) {
    dnnl_status_t status = allocate(layout);
    if (status != dnnl_success) return status;
    return keep_if(dnnl_memory_desc_init_by_tag(*layout, 4, dims, type, tag), layout);
}

dnnl_status_t mdm_describe_strides(mdm_layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                   const dnnl_dims_t strides) {
    dnnl_status_t status = allocate(layout);
    if (status != dnnl_success) return status;
    return keep_if(dnnl_memory_desc_init_by_strides(*layout, 4, dims, type, strides), layout);
}

void mdm_forget_layout(mdm_layout layout) {
    free(layout);
}

dnnl_status_t mdm_append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1.0f);
}

/* The description of what `operation` names, where it could be named. */
static dnnl_status_t describe(dnnl_status_t named, const dnnl_convolution_desc_t *operation,
                              const mdm_convolution_plan *plan, const_dnnl_primitive_attr_t attributes,
                              const_dnnl_primitive_desc_t forward, dnnl_primitive_desc_t *description) {
    *description = NULL;
    if (named != dnnl_success) return named;
    return dnnl_primitive_desc_create(description, operation, attributes, plan->engine, forward);
}

dnnl_status_t mdm_describe_forward(const mdm_convolution_plan *plan, dnnl_prop_kind_t kind,
                                   const_dnnl_primitive_attr_t attributes,
                                   dnnl_primitive_desc_t *description) {
    dnnl_convolution_desc_t operation;
    dnnl_status_t named =
        dnnl_convolution_forward_desc_init(&operation, kind, plan->algorithm, plan->x, plan->weights, NULL,
                                           plan->y, plan->strides, plan->padding, plan->padding);
    return describe(named, &operation, plan, attributes, NULL, description);
}

dnnl_status_t mdm_describe_backward_data(const mdm_convolution_plan *plan,
                                         const_dnnl_primitive_attr_t attributes,
                                         const_dnnl_primitive_desc_t forward,
                                         dnnl_primitive_desc_t *description) {
    dnnl_convolution_desc_t operation;
    dnnl_status_t named =
        dnnl_convolution_backward_data_desc_init(&operation, plan->algorithm, plan->x, plan->weights, plan->y,
                                                 plan->strides, plan->padding, plan->padding);
    return describe(named, &operation, plan, attributes, forward, description);
}

dnnl_status_t mdm_describe_backward_weights(const mdm_convolution_plan *plan,
                                            const_dnnl_primitive_attr_t attributes,
                                            const_dnnl_primitive_desc_t forward,
                                            dnnl_primitive_desc_t *description) {
    dnnl_convolution_desc_t operation;
    dnnl_status_t named =
        dnnl_convolution_backward_weights_desc_init(&operation, plan->algorithm, plan->x, plan->weights, NULL,
                                                    plan->y, plan->strides, plan->padding, plan->padding);
    return describe(named, &operation, plan, attributes, forward, description);
}

#else

static const dnnl_dims_t not_dilated = {0, 0};

dnnl_status_t mdm_describe_layout(mdm_layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                  dnnl_format_tag_t tag) {
    *layout = NULL;
    return dnnl_memory_desc_create_with_tag(layout, 4, dims, type, tag);
}

dnnl_status_t mdm_describe_strides(mdm_layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                   const dnnl_dims_t strides) {
    *layout = NULL;
    return dnnl_memory_desc_create_with_strides(layout, 4, dims, type, strides);
}

void mdm_forget_layout(mdm_layout layout) {
    if (layout) dnnl_memory_desc_destroy(layout);
}

dnnl_status_t mdm_append_sum(dnnl_post_ops_t post) {
    return dnnl_post_ops_append_sum(post, 1.0f, 0, dnnl_data_type_undef);
}

dnnl_status_t mdm_describe_forward(const mdm_convolution_plan *plan, dnnl_prop_kind_t kind,
                                   const_dnnl_primitive_attr_t attributes,
                                   dnnl_primitive_desc_t *description) {
    *description = NULL;
    return dnnl_convolution_forward_primitive_desc_create(
        description, plan->engine, kind, plan->algorithm, plan->x, plan->weights, NULL, plan->y,
        plan->strides, not_dilated, plan->padding, plan->padding, attributes);
}

dnnl_status_t mdm_describe_backward_data(const mdm_convolution_plan *plan,
                                         const_dnnl_primitive_attr_t attributes,
                                         const_dnnl_primitive_desc_t forward,
                                         dnnl_primitive_desc_t *description) {
    *description = NULL;
    return dnnl_convolution_backward_data_primitive_desc_create(
        description, plan->engine, plan->algorithm, plan->x, plan->weights, plan->y, plan->strides,
        not_dilated, plan->padding, plan->padding, forward, attributes);
}

dnnl_status_t mdm_describe_backward_weights(const mdm_convolution_plan *plan,
                                            const_dnnl_primitive_attr_t attributes,
                                            const_dnnl_primitive_desc_t forward,
                                            dnnl_primitive_desc_t *description) {
    *description = NULL;
    return dnnl_convolution_backward_weights_primitive_desc_create(
        description, plan->engine, plan->algorithm, plan->x, plan->weights, NULL, plan->y, plan->strides,
        not_dilated, plan->padding, plan->padding, forward, attributes);
}

#endif
