/* oneDNN's C API as this program uses it, the same for 2.x and 3.x, which describe layouts and convolutions
 * differently. Functions return oneDNN's own status.
 */
#ifndef MDM_DEVICE_CPU_ONEDNN_H
#define MDM_DEVICE_CPU_ONEDNN_H

#include <dnnl.h>

/* Whether the processor has these instructions and oneDNN may use them (ONEDNN_MAX_CPU_ISA): tensors are laid
 * out for both. */
int mdm_onednn_uses(dnnl_cpu_isa_t instructions);

/* The layout of a tensor: one that its maker must forget, and one that is only looked at. */
#if DNNL_VERSION_MAJOR == 2
typedef dnnl_memory_desc_t *mdm_layout;
typedef const dnnl_memory_desc_t *mdm_layout_view;
#elif DNNL_VERSION_MAJOR == 3
typedef dnnl_memory_desc_t mdm_layout;
typedef const_dnnl_memory_desc_t mdm_layout_view;
#else
#error "oneDNN 2.x or 3.x is needed (libdnnl-dev of Debian 12 or 13)"
#endif

/* Of four dimensions, in a known order or, with dnnl_format_tag_any, in one that oneDNN shall choose. */
dnnl_status_t mdm_describe_layout(mdm_layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                  dnnl_format_tag_t tag);
/* Of four dimensions that lie so many values apart. */
dnnl_status_t mdm_describe_strides(mdm_layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                   const dnnl_dims_t strides);
void mdm_forget_layout(mdm_layout layout); /* NULL: nothing */

/* Has what an operation computes added to what is there already. */
dnnl_status_t mdm_append_sum(dnnl_post_ops_t post);

/* One convolution: its own layouts or those of the gradients. */
typedef struct mdm_convolution_plan {
    dnnl_engine_t engine;
    dnnl_alg_kind_t algorithm;
    mdm_layout_view x, weights, y;
    dnnl_dims_t strides, padding; /* height, width */
} mdm_convolution_plan;

/* Descriptions that the caller destroys; NULL on failure. The gradients are of what `forward` describes. */
dnnl_status_t mdm_describe_forward(const mdm_convolution_plan *plan, dnnl_prop_kind_t kind,
                                   const_dnnl_primitive_attr_t attributes,
                                   dnnl_primitive_desc_t *description);
dnnl_status_t mdm_describe_backward_data(const mdm_convolution_plan *plan,
                                         const_dnnl_primitive_attr_t attributes,
                                         const_dnnl_primitive_desc_t forward,
                                         dnnl_primitive_desc_t *description);
dnnl_status_t mdm_describe_backward_weights(const mdm_convolution_plan *plan,
                                            const_dnnl_primitive_attr_t attributes,
                                            const_dnnl_primitive_desc_t forward,
                                            dnnl_primitive_desc_t *description);

#endif
