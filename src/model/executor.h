/* Inside of the executor, shared by executor.c, forward.c and backward.c. */
#ifndef MDM_MODEL_EXECUTOR_INSIDE_H
#define MDM_MODEL_EXECUTOR_INSIDE_H

#include "mdm/model/executor.h"

/* The convolutions and buffers for one number of rows. */
typedef struct plan {
    int rows, forward_only;
    mdm_convolution **convolutions; /* [layer_count], NULL for other layers */
    size_t *buffer_offset;          /* [buffer_count], bytes into the arena */
    size_t slot_offset[3];
    size_t bytes;
    uint64_t prepared; /* version of the weights that the convolutions hold */
} plan;

/* Small float matrices of the heads in host memory, [rows, ...]; grown with the largest plan. */
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
    /* in the device's memory */
    char *arena;
    size_t arena_bytes;
    mdm_norm_values *norms; /* [layer_count], what batch norm layers remember between forward and backward */
    float *norm_memory;
    float *mean_gradient, *mean_product; /* [widest] */
    double *sums;                        /* [2 * widest + 1] */
    float *embedding;                    /* [rows, D]: of the pass, then its gradient */
    float *images;                       /* of the latest pass; NULL on the CPU, which reads the caller's */
    int64_t device_rows;                 /* of the two above */
    /* in host memory */
    double *host_sums;               /* [2 * widest + 1]; the device's on the CPU */
    float *head_mean, *head_inverse; /* [projection] */
    head_buffers heads;
    plan *current; /* of the latest forward pass */
    int current_uses_batch_statistics;
    int64_t current_total; /* rows over all ranks of the latest pass */
    int shares_memory;     /* the device computes in host memory */
};

plan *mdm_executor_find_plan(mdm_executor *executor, int rows, int forward_only);
/* Collective under sync. Sums the first `count` doubles of executor->sums (device) or host_sums and the row
 * count over ranks; returns the rows over all ranks. */
MDM_MUST_CHECK mdm_status mdm_executor_sum(mdm_executor *executor, int count, int rows, int64_t *total);
MDM_MUST_CHECK mdm_status mdm_executor_sum_on_host(mdm_executor *executor, int count, int rows,
                                                   int64_t *total);

#endif
