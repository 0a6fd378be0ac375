/* What a backend of the device room is: a table of its operations. device.c hands the public functions on. */
#ifndef MDM_DEVICE_OPERATIONS_H
#define MDM_DEVICE_OPERATIONS_H

#include "mdm/device/losses.h"
#include "mdm/device/products.h"

/* What products.h and losses.h ask of a backend: the same names, mostly. */
typedef struct mdm_head_operations {
    mdm_status (*product_create)(mdm_device *device, const mdm_product_shape *shape, mdm_product **product);
    void (*product_destroy)(mdm_product *product);
    mdm_status (*product_run)(mdm_product *product, float alpha, const void *a, const void *b, float beta,
                              const float *bias, float *c);
    void (*round_to_bf16)(mdm_device *device, const float *from, int64_t count, uint16_t *to);
    void (*column_statistics)(mdm_device *device, int64_t rows, int columns, const float *x, double *sum,
                              double *square_sum, const mdm_norm_forward_rest *rest);
    /* gradient [columns] = the sums of x's columns, with `accumulate` added. */
    void (*column_gradient)(mdm_device *device, int64_t rows, int columns, const float *x, int accumulate,
                            float *gradient);
    void (*column_norm_forward)(mdm_device *device, int64_t rows, int columns, const float *x,
                                const mdm_norm_values *values, const float *gamma, const float *beta,
                                float *normalised, float *y);
    void (*column_norm_backward_sums)(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                      const float *normalised, double *sum, double *product_sum,
                                      const mdm_norm_backward_rest *rest);
    void (*column_norm_backward_input)(mdm_device *device, int64_t rows, int columns, const float *gradient,
                                       const float *normalised, const mdm_norm_values *values,
                                       const float *gamma, const float *mean_gradient,
                                       const float *mean_product, float *x_gradient);
    void (*sum_rows)(mdm_device *device, const mdm_row_sum *sums, int count);
    void (*softmax_rows)(mdm_device *device, const float *logits, int64_t rows, int classes,
                         float *probability);
    void (*make_targets)(mdm_device *device, const mdm_target_batch *batch, float *target, double *confident);
    void (*mix_rows)(mdm_device *device, int64_t rows, int64_t width, const float *lambda, const float *own,
                     const float *all, const int32_t *partner, float *mixed);
    void (*mix_targets)(mdm_device *device, int64_t rows, int classes, const float *lambda, const float *own,
                        const float *all, const int32_t *partner, float *mixed_target, float *mixed_mask);
    void (*mix_rows_backward)(mdm_device *device, int64_t all_rows, int64_t rows, int64_t width,
                              int64_t first, const float *lambda, const float *gradient,
                              const int32_t *mixed_with, float *all_gradient);
    void (*loss_hard)(mdm_device *device, const mdm_loss_rows *rows, const int32_t *label, float ce_weight,
                      float rce_weight);
    void (*loss_soft)(mdm_device *device, const mdm_loss_rows *labelled, const mdm_loss_rows *unlabelled,
                      const float *target, float ce_weight, float rce_weight);
    void (*balance_sums)(mdm_device *device, const float *logits, int64_t rows, int classes,
                         float *probability, double *sum);
    void (*loss_balance)(mdm_device *device, const float *probability, int64_t rows, int classes,
                         const double *sum, double total, float scale, double *value, float *gradient);
    void (*judge_step)(mdm_device *device, const mdm_step_judgement *judgement);
    void (*unit_rows_forward)(mdm_device *device, const float *row, int64_t rows, int width, float *unit,
                              float *norm);
    void (*unit_rows_backward)(mdm_device *device, const float *unit, const float *norm,
                               const float *gradient, int64_t rows, int width, float *out);
    /* similarity [rows, 2 * pairs] of anchors first..first+rows-1 of all, over the temperature: becomes
     * softmax over the others minus the positive's one-hot; value [rows] written. */
    void (*contrast_rows)(mdm_device *device, int64_t rows, int64_t pairs, int64_t first, float *similarity,
                          double *value);
} mdm_head_operations;

/* The table in a file whose functions have these names. */
#define MDM_HEADS_OF_THIS_FILE                                                                               \
    {                                                                                                        \
        .product_create = product_create, .product_destroy = product_destroy, .product_run = product_run,    \
        .round_to_bf16 = round_to_bf16, .column_statistics = column_statistics,                              \
        .column_gradient = column_gradient, .column_norm_forward = column_norm_forward,                      \
        .column_norm_backward_sums = column_norm_backward_sums,                                              \
        .column_norm_backward_input = column_norm_backward_input, .sum_rows = sum_rows,                      \
        .softmax_rows = softmax_rows, .make_targets = make_targets, .mix_rows = mix_rows,                    \
        .mix_targets = mix_targets, .mix_rows_backward = mix_rows_backward, .loss_hard = loss_hard,          \
        .loss_soft = loss_soft, .balance_sums = balance_sums, .loss_balance = loss_balance,                  \
        .judge_step = judge_step, .unit_rows_forward = unit_rows_forward,                                    \
        .unit_rows_backward = unit_rows_backward, .contrast_rows = contrast_rows                             \
    }

typedef struct mdm_device_operations {
    void (*destroy)(mdm_device *device);
    mdm_status (*create_worker)(mdm_device *device, mdm_device **worker); /* NULL: there are none */
    mdm_status (*allocate)(mdm_device *device, size_t bytes, const char *what, void **memory);
    void (*release)(mdm_device *device, void *memory);
    mdm_status (*upload)(mdm_device *device, void *memory, const void *host, size_t bytes);
    mdm_status (*download)(mdm_device *device, void *host, const void *memory, size_t bytes);
    void (*zero)(mdm_device *device, void *memory, size_t bytes);
    void (*keep_plans)(mdm_device *device); /* NULL: there is nothing to keep */
    void (*copy)(mdm_device *device, void *to, const void *from, size_t bytes);
    mdm_status (*tensor_import)(mdm_device *device, const float *plain, int n, int channels, int height,
                                int width, mdm_precision precision, void *tensor);
    mdm_status (*tensor_export)(mdm_device *device, const void *tensor, int n, int channels, int height,
                                int width, mdm_precision precision, float *plain);
    mdm_status (*convolution_create)(mdm_device *device, const mdm_convolution_shape *shape,
                                     mdm_convolution **convolution);
    void (*convolution_destroy)(mdm_convolution *convolution);
    mdm_status (*convolution_set_weights)(mdm_convolution *convolution, const float *weights);
    mdm_status (*convolution_forward)(mdm_convolution *convolution, const void *input, void *output);
    mdm_status (*convolution_backward_data)(mdm_convolution *convolution, const void *output_gradient,
                                            void *input_gradient);
    mdm_status (*convolution_backward_weights)(mdm_convolution *convolution, const void *input,
                                               const void *output_gradient, float *gradient, int accumulate);
    mdm_status (*reserve_norm)(mdm_device *device, const mdm_norm_shape *shape);
    void (*norm_statistics)(mdm_device *device, const mdm_norm_shape *shape, void *x, const void *residual,
                            double *sum, double *square_sum);
    /* The next two may be NULL: the steps one by one. */
    void (*norm_statistics_then)(mdm_device *device, const mdm_norm_shape *shape, void *x,
                                 const void *residual, double *sum, double *square_sum,
                                 const mdm_norm_forward_rest *rest);
    void (*norm_relu_backward_sums_then)(mdm_device *device, const mdm_norm_shape *shape,
                                         const void *gradient, const void *other, const void *x,
                                         const mdm_norm_values *values, double *sum, double *product_sum,
                                         const mdm_norm_backward_rest *rest);
    void (*norm_relu_forward)(mdm_device *device, const mdm_norm_shape *shape, const void *x,
                              const void *residual, const float *scale, const float *shift, void *y);
    void (*norm_relu_backward_sums)(mdm_device *device, const mdm_norm_shape *shape, const void *gradient,
                                    const void *other, const void *x, const float *scale, const float *shift,
                                    const float *mean, const float *inverse_deviation, double *sum,
                                    double *product_sum);
    void (*norm_relu_backward_input)(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                                     const void *other, const void *x, const float *scale, const float *shift,
                                     const float *mean, const float *inverse_deviation,
                                     const float *mean_gradient, const float *mean_product);
    void (*norm_from_sums)(mdm_device *device, int channels, int sets, const double *sum,
                           const double *square_sum, double count, const float *gamma, const float *beta,
                           float *running_mean, float *running_variance, const mdm_norm_values *values);
    void (*norm_from_running)(mdm_device *device, int channels, const float *running_mean,
                              const float *running_variance, const float *gamma, const float *beta,
                              const mdm_norm_values *values);
    void (*norm_gradients)(mdm_device *device, int channels, int sets, const double *sum,
                           const double *product_sum, int accumulate, float *gamma_gradient,
                           float *beta_gradient);
    void (*norm_means)(mdm_device *device, int values, const double *sum, const double *product_sum,
                       double count, float *mean_gradient, float *mean_product);
    void (*add_relu_forward)(mdm_device *device, const mdm_norm_shape *shape, const void *a, const void *b,
                             void *y);
    void (*add_relu_backward)(mdm_device *device, const mdm_norm_shape *shape, void *gradient,
                              const void *other, const void *y, void *copy);
    void (*max_pool_forward)(mdm_device *device, const mdm_max_pool_shape *shape, const void *x, void *y);
    void (*max_pool_backward)(mdm_device *device, const mdm_max_pool_shape *shape, const void *gradient,
                              const void *other, const void *x, const void *y, void *x_gradient);
    void (*pool_forward)(mdm_device *device, const mdm_norm_shape *shape, const void *x, const void *residual,
                         float *embedding);
    void (*pool_backward)(mdm_device *device, const mdm_norm_shape *shape, const float *embedding_gradient,
                          void *gradient);
    void (*sgd_step)(mdm_device *device, float *weights, const float *gradient, float *velocity,
                     int64_t count, const float *rate, float momentum, float weight_decay,
                     const double *verdict);
    void (*sum_squares)(mdm_device *device, const float *values, int64_t count, double *sum);
    void (*average_step)(mdm_device *device, float *average, const float *values, int64_t count, float decay);
    const mdm_head_operations *heads;
} mdm_device_operations;

/* The first member of every backend's device, convolution and product. */
struct mdm_device {
    const mdm_device_operations *operations;
    mdm_device_info info;
};
struct mdm_convolution {
    const mdm_device_operations *operations;
};
struct mdm_product {
    const mdm_head_operations *operations;
    mdm_product_shape shape;
};

#endif
