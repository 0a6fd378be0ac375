/* Inside of the executor, shared by executor.c, parts.c, chunks.c, joined.c, forward.c and backward.c. */
#ifndef MDM_MODEL_EXECUTOR_INSIDE_H
#define MDM_MODEL_EXECUTOR_INSIDE_H

#include "mdm/base/exact_sum.h"
#include "mdm/device/beside.h"
#include "mdm/device/products.h"
#include "mdm/model/executor.h"

/* Linear layers on the embedding. */
enum { CLASSIFIER, PROJECTION, HEADS };

/* The convolutions, heads and buffers for one number of rows. */
typedef struct plan {
    int rows, forward_only;
    int passes;     /* of so many rows each, joined; 1 otherwise */
    int heads_only; /* rows that passes take in chunks, or of all joined ones: no convolutions */
    mdm_convolution **convolutions; /* [layer_count], NULL for other layers */
    mdm_linear *heads[HEADS];
    size_t *buffer_offset; /* [buffer_count], bytes into the arena */
    size_t slot_offset[3];
    size_t bytes;
    uint64_t prepared; /* version of the weights that the convolutions hold */
} plan;

/* Small float matrices of the heads in the device's memory, [rows, ...]; grown with the largest plan. */
typedef struct head_buffers {
    float *embedding, *embedding_gradient;                     /* [rows, D] */
    float *linear, *normalised, *projection, *linear_gradient; /* [rows, projection] */
    float *logits;                                             /* [rows, C] */
    int rows;
} head_buffers;

/* Rows [first, first + rows) of a pass, computed by one device with its convolutions for so many rows. A pass
 * is one part; for reproducible sums over rows it is one for each shard and group as well. */
typedef struct part {
    int first, rows;
    int shard, group;    /* of this rank's in the latest pass; the group within the shard */
    int sets, first_set; /* joined passes: of those with statistics of their own */
    mdm_device *device;
    mdm_convolution *const *convolutions; /* [layer_count]; a shard's are for gradients of weights alone */
    mdm_linear *const *heads;             /* [HEADS] */
    double *sums;                         /* [2 * widest], of this part alone while it is worked on */
} part;

/* One thread's own device and room. */
typedef struct worker {
    mdm_device *device;
    double *sums; /* [2 * widest] */
} worker;

/* Every worker's convolutions and heads for one number of rows. */
typedef struct convolution_set {
    int rows, forward_only;
    mdm_convolution **convolutions; /* [worker_count, layer_count], none where forward_only */
    mdm_linear **heads;             /* [worker_count, HEADS] */
} convolution_set;

/* What reproducible results need. */
typedef struct reproducible {
    int worker_count;
    worker *workers;
    mdm_exact_sums sums; /* [2 * widest] of the layer at work */
    convolution_set *sets;
    int set_count, set_capacity;
    part *parts; /* of the latest pass: the groups of each shard in a row */
    int part_count, part_capacity, parts_in_shard;
    float *shard_gradient[MDM_SHARDS]; /* of this rank's shards: [largest tensor and a head's bias] */
} reproducible;

/* What passes in chunks need, in the device's memory. */
enum { CHUNK_ARRAYS = 3 }; /* embedding, projection, logits */
typedef struct chunking {
    int64_t samples;               /* at most in a chunk; 0: no limit */
    int in_chunks, chunk;          /* of the latest pass */
    int rows, most;                /* room for a batch's outputs, for a chunk's inputs */
    float *output[CHUNK_ARRAYS];   /* [rows, ...] */
    float *images;                 /* [most, image] */
    float *gradient[CHUNK_ARRAYS]; /* [most, ...] */
} chunking;

struct mdm_executor {
    mdm_device *device;
    mdm_comm *comm;
    mdm_group *group; /* the same ranks, over memory of their devices */
    const mdm_layout *layout;
    mdm_precision precision;
    mdm_batchnorm batchnorm;
    plan **plans;
    int plan_count, plan_capacity;
    /* in the device's memory */
    char *arena;
    size_t arena_bytes;
    /* [layer_count], what batch norm layers remember between forward and backward, of each set */
    mdm_norm_values *norms;
    float *norm_memory;
    float *mean_gradient, *mean_product;      /* [sets, widest] */
    double *sums;                             /* [2 * sets * widest] */
    mdm_norm_values head_norm[MDM_NORM_SETS]; /* [projection], of each joined pass */
    head_buffers heads;
    plan *current; /* of the latest forward pass */
    int current_uses_batch_statistics;
    int64_t current_total; /* rows that share the latest pass's batch statistics, of all ranks under sync */
    int shares_memory;     /* the device computes in host memory */
    int is_joined;         /* passes of a step are joined */
    struct {
        int groups; /* rows are this rank's slice of n in each group */
        int64_t n;
    } batch;
    chunking chunks;
    part whole;                 /* the latest pass as one part */
    reproducible *reproducible; /* NULL: sums in the order that is fastest */
};

plan *mdm_executor_find_plan(mdm_executor *executor, int rows, int forward_only);
/* The heads for so many rows that chunks or joined passes make up; while planning, and afterwards. */
MDM_MUST_CHECK mdm_status mdm_executor_plan_heads(mdm_executor *executor, int rows);
plan *mdm_executor_find_heads(mdm_executor *executor, int rows);
/* Collective under sync. Sums the first `count` doubles of executor->sums over ranks. */
MDM_MUST_CHECK mdm_status mdm_executor_sum(mdm_executor *executor, int count);
/* Collective, whatever the statistics: the first `count` of those sums over ranks. */
MDM_MUST_CHECK mdm_status mdm_executor_add_ranks(mdm_executor *executor, int count);

/* 1 where mdm_executor_sum would find nothing to add: the sums of this pass are whole already. */
int mdm_executor_sums_alone(const mdm_executor *executor);

/* Rows of all ranks in the chunk at work, as mdm_executor_set_batch told. */
int64_t mdm_executor_total_rows(const mdm_executor *executor);

/* chunks.c makes public passes of these, which take all rows at once. */
MDM_MUST_CHECK mdm_status mdm_executor_plan_pass(mdm_executor *executor, int rows, int forward_only);
MDM_MUST_CHECK mdm_status mdm_executor_forward_pass(mdm_executor *executor, mdm_network *network, int rows,
                                                    const float *images, mdm_pass pass, mdm_outputs *outputs);
MDM_MUST_CHECK mdm_status mdm_executor_backward_pass(mdm_executor *executor, mdm_network *network, int rows,
                                                     const float *images, const float *embedding_gradient,
                                                     const float *projection_gradient,
                                                     const float *logits_gradient, int accumulate,
                                                     int reduce);
void mdm_executor_free_chunks(mdm_executor *executor);

/* executor.c: a plan in which there is nothing yet but its rows, to be filled; it is gone where that fails.
 */
MDM_MUST_CHECK mdm_status mdm_executor_add_plan(mdm_executor *executor, const plan *empty);

/* forward.c, backward.c: what passes are made of. Statistics that a pass normalises with, whether it moves
 * the running ones, and whether backward follows. */
typedef struct norm_mode {
    int batch, track, keep;
} norm_mode;
/* The network is on the device, and the plan's convolutions read its weights. */
MDM_MUST_CHECK mdm_status mdm_executor_begin_pass(mdm_executor *executor, mdm_network *network, plan *p);
/* All layers, of the rows of executor->whole. */
MDM_MUST_CHECK mdm_status mdm_executor_forward_layers(mdm_executor *executor, mdm_network *network,
                                                      norm_mode mode, const float *images);
MDM_MUST_CHECK mdm_status mdm_executor_backward_layers(mdm_executor *executor, mdm_network *network,
                                                       const float *images, int accumulate, int reduce);
/* Both linear heads of the rows of executor->whole, from the first on. */
MDM_MUST_CHECK mdm_status mdm_executor_forward_heads(mdm_executor *executor, mdm_network *network);
/* Batch norm of the projections of as many rows, which lie in `h`. */
MDM_MUST_CHECK mdm_status mdm_executor_project(mdm_executor *executor, mdm_network *network,
                                               const head_buffers *h, const mdm_norm_values *norm,
                                               norm_mode mode);
/* h->embedding_gradient = all that reaches the embedding, from what is not NULL. */
MDM_MUST_CHECK mdm_status mdm_executor_backward_heads(mdm_executor *executor, mdm_network *network,
                                                      const head_buffers *h, const mdm_norm_values *norm,
                                                      const float *embedding_gradient,
                                                      const float *projection_gradient,
                                                      const float *logits_gradient, int accumulate);

/* parts.c: the parts of the pass that begins. */
MDM_MUST_CHECK mdm_status mdm_executor_lay_parts(mdm_executor *executor, int rows, int row_by_row);
/* Does `work` for the latest pass as a whole: what gives a row the same bits whatever is beside it. */
typedef mdm_status part_work(mdm_executor *executor, const part *p, void *context);
MDM_MUST_CHECK mdm_status mdm_executor_whole(mdm_executor *executor, part_work *work, void *context);
/* Does it for every part, in parallel where there are several shards: sums over rows. */
MDM_MUST_CHECK mdm_status mdm_executor_each_part(mdm_executor *executor, part_work *work, void *context);
/* The same, for work that writes `count` sums of its part to p->sums: the sum over this rank's parts is left
 * in executor->sums. */
MDM_MUST_CHECK mdm_status mdm_executor_sum_parts(mdm_executor *executor, part_work *work, void *context,
                                                 int count);
/* Where a part leaves, or with *accumulate (which is changed) adds, its share of a tensor's gradient, whose
 * place is `gradient`. Shards have room of their own, in which another tensor takes `behind` floats. */
float *mdm_part_gradient(mdm_executor *executor, const part *p, float *gradient, int64_t behind,
                         int *accumulate);
/* Behind the parts' work: the shards' room becomes, or is added to, the tensor's gradient. */
void mdm_executor_sum_shards(mdm_executor *executor, mdm_network *network, int tensor, int64_t behind,
                             int accumulate);
/* network->gradient = its sums, once all ranks' are added up. */
void mdm_executor_get_sums(mdm_executor *executor, mdm_network *network);
/* The convolutions that passes in parts will need; while planning. */
MDM_MUST_CHECK mdm_status mdm_executor_plan_parts(mdm_executor *executor, int row_by_row);
void mdm_executor_forget_parts(mdm_executor *executor);
void mdm_executor_free_parts(mdm_executor *executor);
/* `kind`: batches, and what is wanted of them. */
MDM_MUST_CHECK mdm_status mdm_executor_create_convolutions(mdm_executor *executor, mdm_device *device,
                                                           const mdm_convolution_shape *kind,
                                                           mdm_convolution **convolutions);
MDM_MUST_CHECK mdm_status mdm_executor_create_heads(mdm_executor *executor, mdm_device *device, int rows,
                                                    mdm_linear **heads);

/* A batch norm layer's tensor of a part's rows, and how many values of each kind all sets have. */
mdm_norm_shape mdm_executor_norm_shape(const mdm_executor *executor, const mdm_layer *layer, const part *p);
int mdm_executor_norm_count(const mdm_executor *executor, const mdm_layer *layer);
/* Channels of the widest tensor, in whole blocks. */
int mdm_executor_widest_layer(const mdm_executor *executor);
/* A tensor's memory from row `first` on: of an activation, and of a gradient slot that has its shape. */
void *mdm_executor_rows(const mdm_executor *executor, int buffer, int first);
void *mdm_executor_slot_rows(const mdm_executor *executor, int slot, int shape_of_buffer, int first);

#endif
