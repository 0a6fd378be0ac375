/* Inside of the executor, shared by executor.c, forward.c and backward.c. */
#ifndef MDM_MODEL_EXECUTOR_INSIDE_H
#define MDM_MODEL_EXECUTOR_INSIDE_H

#include "mdm/model/executor.h"

/* What batch norm layer number i remembers between forward and backward, per channel (padded). */
typedef struct norm_state {
    float *mean, *inverse_deviation, *scale, *shift;
} norm_state;

/* The convolutions and buffers for one number of rows. */
typedef struct plan {
    int rows, forward_only;
    mdm_convolution **convolutions; /* [layer_count], NULL for other layers */
    size_t *buffer_offset;          /* [buffer_count], bytes into the arena */
    size_t slot_offset[3];
    size_t bytes;
    uint64_t prepared; /* version of the weights that the convolutions hold */
} plan;

/* Small float matrices of the heads, [rows, ...]; grown with the largest plan. */
typedef struct head_buffers {
    float *embedding, *embedding_gradient;                     /* [rows, D] */
    float *linear, *normalised, *projection, *linear_gradient; /* [rows, projection] */
    float *logits;                                             /* [rows, C] */
    int rows;
} head_buffers;

struct mdm_executor {
    mdm_device *device;
    mdm_comm *comm;
    const mdm_layout *layout;
    mdm_precision precision;
    mdm_batchnorm batchnorm;
    plan **plans;
    int plan_count, plan_capacity;
    char *arena;
    size_t arena_bytes;
    norm_state *norms; /* [layer_count] */
    float *norm_memory;
    float *mean_gradient, *mean_product; /* [widest] */
    double *sums;                        /* [2 * widest + 1] */
    float *head_mean, *head_inverse;     /* [projection] */
    head_buffers heads;
    plan *current; /* of the latest forward pass */
    int current_uses_batch_statistics;
    int64_t current_total; /* rows over all ranks of the latest pass */
};

plan *mdm_executor_find_plan(mdm_executor *executor, int rows, int forward_only);
/* Collective when `reduced`. Sums `count` doubles and the row count over ranks; returns the rows over all
 * ranks. */
MDM_MUST_CHECK mdm_status mdm_executor_sum(mdm_executor *executor, double *sums, int count, int rows,
                                           int64_t *total);

#endif
