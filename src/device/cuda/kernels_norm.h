/* Kernels of batch norm with ReLU: applied, its sums over all pixels, and what is made of them per channel.
 * What they wait for is memory: a thread keeps to its 8 channels and goes through many pixels, asking for up
 * to MDM_GPU_AHEAD of them before it uses the first.
 */
#ifndef MDM_DEVICE_CUDA_KERNELS_NORM_H
#define MDM_DEVICE_CUDA_KERNELS_NORM_H

#include "lanes.h"

/* ---- blocks of pixels ----
 *
 * A block has 8 x `block_groups` channels of `block_rows` pixels: thread t has group t % block_groups and
 * every lanes-th pixel from t / block_groups on. Where pictures come in sets with statistics of their own,
 * all pixels of a block are of one of them. */
typedef struct mdm_pixel_geometry {
    uint32_t rows, groups;                    /* pixels of a set's pictures; vectors per pixel */
    uint32_t block_groups, lanes, block_rows; /* of a block */
    uint32_t blocks, block_columns, sets;     /* grid: x over a set's pixels, y over groups, then over sets */
} mdm_pixel_geometry;

/* Blocks of at least `least` pixels a thread, about `blocks` in all. */
MDM_BOTH mdm_pixel_geometry mdm_geometry_of(uint32_t rows, uint32_t groups, uint32_t sets, uint32_t least,
                                            uint32_t blocks) {
    mdm_pixel_geometry g;
    g.rows = rows;
    g.groups = groups;
    g.sets = sets;
    g.block_groups = groups < 32 ? groups : 32;
    g.lanes = MDM_GPU_THREADS / g.block_groups;
    g.block_columns = (groups + g.block_groups - 1) / g.block_groups;
    uint32_t most = blocks / (g.block_columns * sets);
    if (most < 1) most = 1;
    g.block_rows = (rows + most - 1) / most;
    if (g.block_rows < g.lanes * least) g.block_rows = g.lanes * least;
    g.blocks = (rows + g.block_rows - 1) / g.block_rows;
    return g;
}

/* Of a sum: as many blocks as are at work at once, since each leaves sums for others to add. */
MDM_BOTH mdm_pixel_geometry mdm_geometry_of_sum(uint32_t rows, uint32_t groups, uint32_t sets) {
    return mdm_geometry_of(rows, groups, sets, 2 * MDM_GPU_AHEAD, MDM_GPU_BLOCKS);
}

/* Of what writes a tensor of the same shape: where there is enough to do, blocks small enough that the last
 * ones do not keep the device waiting. */
MDM_BOTH mdm_pixel_geometry mdm_geometry_of_map(uint32_t rows, uint32_t groups, uint32_t sets) {
    return mdm_geometry_of(rows, groups, sets, 1, 8 * MDM_GPU_BLOCKS);
}

/* Rows of blocks of its grid. */
MDM_BOTH uint32_t mdm_geometry_block_rows(const mdm_pixel_geometry *g) {
    return g->block_columns * g->sets;
}

/* Which pixels and channels a thread has; 0 when none. */
typedef struct mdm_pixel_range {
    uint32_t group, row, end; /* vector of a pixel; pixels among those of all sets */
    uint32_t values;          /* that vector among what each set has of its own: [sets][groups] */
} mdm_pixel_range;

MDM_BOTH int mdm_pixel_range_of(const mdm_pixel_geometry *g, mdm_gpu_thread t, mdm_pixel_range *r) {
    uint32_t lane = t.thread / g->block_groups, set = t.block_row / g->block_columns,
             column = t.block_row % g->block_columns, first = t.block * g->block_rows;
    r->group = column * g->block_groups + t.thread % g->block_groups;
    r->row = set * g->rows + first + lane;
    r->end = set * g->rows + (g->rows - first < g->block_rows ? g->rows : first + g->block_rows);
    r->values = set * g->groups + r->group;
    return lane < g->lanes && r->group < g->groups;
}

/* Of a kernel that reads so many tensors: registers for the same bytes, more or less. */
MDM_BOTH uint32_t mdm_pixels_ahead(int tensors, int bf16) {
    uint32_t most = tensors > 2 ? MDM_GPU_AHEAD / 2 : MDM_GPU_AHEAD;
    return bf16 ? most : most / 2;
}

/* Where the next pixels of a thread lie, and which of them there are. */
typedef struct mdm_gpu_ahead {
    uint32_t at[MDM_GPU_AHEAD]; /* numbers of vectors */
    int is_there[MDM_GPU_AHEAD];
} mdm_gpu_ahead;

MDM_BOTH mdm_gpu_ahead mdm_look_ahead(const mdm_pixel_geometry *g, const mdm_pixel_range *r, uint32_t count) {
    mdm_gpu_ahead out;
    MDM_UNROLLED for (uint32_t j = 0; j < MDM_GPU_AHEAD; j++) {
        out.at[j] = (r->row + j * g->lanes) * g->groups + r->group;
        out.is_there[j] = j < count && r->row + j * g->lanes < r->end;
    }
    return out;
}

/* Asks for one vector of each of the next pixels; nothing without a tensor. */
MDM_BOTH void mdm_fetch_ahead(const void *tensor, const mdm_gpu_ahead *ahead, int bf16,
                              mdm_gpu_vector vectors[MDM_GPU_AHEAD]) {
    MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
        if (tensor && ahead->is_there[j]) vectors[j] = mdm_fetch(tensor, ahead->at[j], bf16);
    }
}

/* Their sum, where there is a second one. */
MDM_BOTH mdm_lanes mdm_sum_of_vectors(const mdm_gpu_vector *a, const mdm_gpu_vector *b, const void *second,
                                      int bf16) {
    mdm_lanes out = mdm_lanes_of(*a, bf16);
    if (second) {
        mdm_lanes more = mdm_lanes_of(*b, bf16);
        for (int k = 0; k < MDM_GPU_LANES; k++) out.v[k] += more.v[k];
    }
    return out;
}

/* ---- batch norm, applied ---- */

typedef struct mdm_norm_forward_arguments {
    mdm_pixel_geometry geometry;
    const void *x, *residual;
    void *y;
    const float *scale, *shift;
    int bf16, linear;
} mdm_norm_forward_arguments;

MDM_BOTH void mdm_norm_forward_thread(const mdm_norm_forward_arguments *a, mdm_gpu_thread t) {
    const uint32_t count = mdm_pixels_ahead(2, a->bf16);
    mdm_pixel_range r;
    if (!mdm_pixel_range_of(&a->geometry, t, &r)) return;
    mdm_lanes scale = mdm_channel_lanes(a->scale, r.values), shift = mdm_channel_lanes(a->shift, r.values);
    for (; r.row < r.end; r.row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, &r, count);
        mdm_gpu_vector x[MDM_GPU_AHEAD], residual[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->residual, &ahead, a->bf16, residual);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes v = mdm_sum_of_vectors(&x[j], &residual[j], a->residual, a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float z = v.v[k] * scale.v[k] + shift.v[k];
                v.v[k] = a->linear || z > 0.0f ? z : 0.0f;
            }
            mdm_store_lanes(a->y, ahead.at[j], a->bf16, v);
        }
    }
}

typedef struct mdm_norm_backward_arguments {
    mdm_pixel_geometry geometry;
    void *gradient;
    const void *other, *x;
    const float *scale, *shift, *mean, *inverse_deviation, *mean_gradient, *mean_product;
    int bf16, linear;
} mdm_norm_backward_arguments;

MDM_BOTH void mdm_norm_backward_thread(const mdm_norm_backward_arguments *a, mdm_gpu_thread t) {
    const uint32_t count = mdm_pixels_ahead(3, a->bf16);
    mdm_pixel_range r;
    if (!mdm_pixel_range_of(&a->geometry, t, &r)) return;
    mdm_lanes scale = mdm_channel_lanes(a->scale, r.values), shift = mdm_channel_lanes(a->shift, r.values),
              mean = mdm_channel_lanes(a->mean, r.values),
              offset = mdm_channel_lanes(a->mean_gradient, r.values),
              slope = mdm_channel_lanes(a->inverse_deviation, r.values),
              product = mdm_channel_lanes(a->mean_product, r.values);
    for (int k = 0; k < MDM_GPU_LANES; k++) slope.v[k] *= product.v[k];
    for (; r.row < r.end; r.row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, &r, count);
        mdm_gpu_vector gradient[MDM_GPU_AHEAD], other[MDM_GPU_AHEAD], x[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->gradient, &ahead, a->bf16, gradient);
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->other, &ahead, a->bf16, other);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes g = mdm_sum_of_vectors(&gradient[j], &other[j], a->other, a->bf16),
                      v = mdm_lanes_of(x[j], a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float dz = a->linear || v.v[k] * scale.v[k] + shift.v[k] > 0.0f ? g.v[k] : 0.0f;
                g.v[k] = scale.v[k] * (dz - offset.v[k] - (v.v[k] - mean.v[k]) * slope.v[k]);
            }
            mdm_store_lanes(a->gradient, ahead.at[j], a->bf16, g);
        }
    }
}

/* ---- sums per channel over all pixels ----
 *
 * A block's sums go to `partial` [sets][blocks][groups][16]; a second kernel adds them in order, so the
 * result depends on the sizes alone. */
typedef struct mdm_sum_arguments {
    mdm_pixel_geometry geometry;
    void *x; /* statistics: the residual is added to it in place */
    const void *residual;
    const void *gradient, *other; /* backward sums */
    const float *scale, *shift, *mean, *inverse_deviation;
    double *partial;
    int bf16, linear;
} mdm_sum_arguments;

/* The two running sums of a thread: in single precision for a while, then in double, in its places of the
 * block's shared memory, [16][MDM_GPU_COLUMN]: 8 of the first sum, 8 of the second. */
typedef struct mdm_thread_sums {
    float part[2][MDM_GPU_LANES];
    volatile double *whole; /* not in registers, of which the loads need all */
    uint32_t parts, count;
} mdm_thread_sums;

MDM_BOTH volatile double *mdm_whole_sum(const mdm_thread_sums *s, int i, int k) {
    return s->whole + (i * MDM_GPU_LANES + k) * MDM_GPU_COLUMN;
}

MDM_BOTH void mdm_begin_sums(mdm_thread_sums *s, double *shared, mdm_gpu_thread t) {
    s->parts = s->count = 0;
    s->whole = shared + t.thread;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < MDM_GPU_LANES; k++) s->part[i][k] = 0.0f, *mdm_whole_sum(s, i, k) = 0.0;
}

MDM_BOTH void mdm_widen_sums(mdm_thread_sums *s) {
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < MDM_GPU_LANES; k++) {
            *mdm_whole_sum(s, i, k) += (double)s->part[i][k];
            s->part[i][k] = 0.0f;
        }
    s->count += s->parts;
    s->parts = 0;
}

/* Sums of x and x^2. They run on x - f, f the thread's first value, so that large means cost no precision. */
MDM_BOTH void mdm_statistics_thread(const mdm_sum_arguments *a, mdm_gpu_thread t, double *shared) {
    const uint32_t count = mdm_pixels_ahead(2, a->bf16);
    mdm_pixel_range r;
    mdm_thread_sums s;
    mdm_lanes first;
    int begun = 0;
    mdm_begin_sums(&s, shared, t);
    for (int k = 0; k < MDM_GPU_LANES; k++) first.v[k] = 0.0f;
    if (!mdm_pixel_range_of(&a->geometry, t, &r)) r.row = r.end;
    for (; r.row < r.end; r.row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, &r, count);
        mdm_gpu_vector x[MDM_GPU_AHEAD], residual[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->residual, &ahead, a->bf16, residual);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes v = mdm_sum_of_vectors(&x[j], &residual[j], a->residual, a->bf16);
            if (a->residual) mdm_store_rounded(a->x, ahead.at[j], a->bf16, &v);
            if (!begun) first = v, begun = 1;
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float d = v.v[k] - first.v[k];
                s.part[0][k] += d;
                s.part[1][k] += d * d;
            }
            s.parts++;
        }
        if (s.parts >= MDM_GPU_RUN) mdm_widen_sums(&s);
    }
    mdm_widen_sums(&s);
    for (int k = 0; k < MDM_GPU_LANES; k++) {
        double f = first.v[k], n = s.count, sum = *mdm_whole_sum(&s, 0, k);
        *mdm_whole_sum(&s, 0, k) = sum + n * f;
        *mdm_whole_sum(&s, 1, k) += 2.0 * f * sum + n * f * f;
    }
}

/* Sums of dz and dz * (x - mean) * inverse deviation, dz the gradient behind the ReLU. */
MDM_BOTH void mdm_backward_sums_thread(const mdm_sum_arguments *a, mdm_gpu_thread t, double *shared) {
    const uint32_t count = mdm_pixels_ahead(3, a->bf16);
    mdm_pixel_range r;
    mdm_thread_sums s;
    mdm_begin_sums(&s, shared, t);
    if (!mdm_pixel_range_of(&a->geometry, t, &r)) r.row = r.end, r.values = 0;
    mdm_lanes scale = mdm_channel_lanes(a->scale, r.values), shift = mdm_channel_lanes(a->shift, r.values),
              mean = mdm_channel_lanes(a->mean, r.values);
    for (; r.row < r.end; r.row += count * a->geometry.lanes) {
        mdm_gpu_ahead ahead = mdm_look_ahead(&a->geometry, &r, count);
        mdm_gpu_vector gradient[MDM_GPU_AHEAD], other[MDM_GPU_AHEAD], x[MDM_GPU_AHEAD];
        mdm_fetch_ahead(a->gradient, &ahead, a->bf16, gradient);
        mdm_fetch_ahead(a->x, &ahead, a->bf16, x);
        mdm_fetch_ahead(a->other, &ahead, a->bf16, other);
        MDM_UNROLLED for (int j = 0; j < MDM_GPU_AHEAD; j++) {
            if (!ahead.is_there[j]) continue;
            mdm_lanes g = mdm_sum_of_vectors(&gradient[j], &other[j], a->other, a->bf16),
                      v = mdm_lanes_of(x[j], a->bf16);
            for (int k = 0; k < MDM_GPU_LANES; k++) {
                float dz = a->linear || v.v[k] * scale.v[k] + shift.v[k] > 0.0f ? g.v[k] : 0.0f;
                s.part[0][k] += dz;
                s.part[1][k] += dz * (v.v[k] - mean.v[k]);
            }
            s.parts++;
        }
        if (s.parts >= MDM_GPU_RUN) mdm_widen_sums(&s);
    }
    mdm_widen_sums(&s);
    mdm_lanes inverse = mdm_channel_lanes(a->inverse_deviation, r.values);
    for (int k = 0; k < MDM_GPU_LANES; k++) *mdm_whole_sum(&s, 1, k) *= (double)inverse.v[k];
}

/* Behind the barrier: the block's sums. */
MDM_BOTH void mdm_block_sums_thread(const mdm_sum_arguments *a, mdm_gpu_thread t, const double *shared) {
    const mdm_pixel_geometry *g = &a->geometry;
    uint32_t set = t.block_row / g->block_columns, column = t.block_row % g->block_columns;
    for (uint32_t i = t.thread; i < g->block_groups * 16; i += MDM_GPU_THREADS) {
        uint32_t item = i % 16, in_block = i / 16, group = column * g->block_groups + in_block;
        if (group >= g->groups) continue;
        double sum = 0;
        for (uint32_t lane = 0; lane < g->lanes; lane++)
            sum += shared[item * MDM_GPU_COLUMN + lane * g->block_groups + in_block];
        a->partial[((size_t)(set * g->blocks + t.block) * g->groups + group) * 16 + item] = sum;
    }
}

/* ---- one thread per channel of a set ---- */

typedef struct mdm_channel_arguments {
    const double *sum, *second;             /* [sets][padded], as all that each set has of its own */
    const float *gamma, *beta;              /* [channels] */
    float *running_mean, *running_variance; /* NULL: from sums, left alone; moved by the first set */
    float *mean, *inverse_deviation, *scale, *shift;
    float *gamma_gradient, *beta_gradient; /* [channels], from all sets */
    float *mean_gradient, *mean_product;
    double count; /* of values of a set */
    uint32_t channels, padded, sets;
    int accumulate;
} mdm_channel_arguments;

MDM_BOTH void mdm_norm_from_sums_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t), c = i % a->padded;
    int moves = a->running_mean && i < a->padded;
    if (i >= a->sets * a->padded || c >= a->channels) return;
    float mean, inverse;
    mdm_norm_of_sums(a->sum[i], a->second[i], a->count, &mean, &inverse, moves ? &a->running_mean[c] : NULL,
                     moves ? &a->running_variance[c] : NULL);
    a->mean[i] = mean;
    a->inverse_deviation[i] = inverse;
    mdm_norm_scale(mean, inverse, a->gamma[c], a->beta[c], &a->scale[i], &a->shift[i]);
}

MDM_BOTH void mdm_norm_from_running_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t c = mdm_thread_number(t);
    if (c >= a->channels) return;
    a->mean[c] = a->running_mean[c];
    a->inverse_deviation[c] = mdm_inverse_deviation((double)a->running_variance[c]);
    mdm_norm_scale(a->mean[c], a->inverse_deviation[c], a->gamma[c], a->beta[c], &a->scale[c], &a->shift[c]);
}

MDM_BOTH void mdm_norm_gradients_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t c = mdm_thread_number(t);
    if (c >= a->channels) return;
    double gamma = a->accumulate ? (double)a->gamma_gradient[c] : 0.0,
           beta = a->accumulate ? (double)a->beta_gradient[c] : 0.0;
    for (uint32_t set = 0; set < a->sets; set++) {
        gamma += a->second[set * a->padded + c];
        beta += a->sum[set * a->padded + c];
    }
    a->gamma_gradient[c] = (float)gamma;
    a->beta_gradient[c] = (float)beta;
}

MDM_BOTH void mdm_norm_means_thread(const mdm_channel_arguments *a, mdm_gpu_thread t) {
    uint32_t i = mdm_thread_number(t);
    if (i >= a->sets * a->padded) return;
    a->mean_gradient[i] = a->count > 0 ? (float)(a->sum[i] / a->count) : 0.0f;
    a->mean_product[i] = a->count > 0 ? (float)(a->second[i] / a->count) : 0.0f;
}

/* ---- the blocks' sums, added: a block for 8 channels of all sets, in MDM_GPU_SLICES slices; and what
 * follows
 * ---- */

typedef enum mdm_gpu_rest { MDM_GPU_SUMS_ONLY, MDM_GPU_NORM_VALUES, MDM_GPU_NORM_GRADIENTS } mdm_gpu_rest;

typedef struct mdm_gather_arguments {
    const double *partial;
    double *sum, *second; /* [sets][8 * groups] */
    uint32_t blocks, groups, sets;
    mdm_gpu_rest rest;
    mdm_channel_arguments channels; /* of the rest */
} mdm_gather_arguments;

/* Of one set. */
MDM_BOTH double mdm_gather_slice(const mdm_gather_arguments *a, mdm_gpu_thread t, uint32_t set) {
    const double *from = a->partial + ((size_t)set * a->blocks * a->groups + t.block) * 16 + t.thread % 16;
    double sum = 0;
    for (uint32_t first = t.thread / 16; first < a->blocks; first += MDM_GPU_SLICE * MDM_GPU_SLICES) {
        double part[MDM_GPU_SLICE]; /* all asked for before the first is used */
        MDM_UNROLLED for (uint32_t i = 0; i < MDM_GPU_SLICE; i++) {
            uint32_t block = first + i * MDM_GPU_SLICES;
            part[i] = block < a->blocks ? from[(size_t)block * 16 * a->groups] : 0.0;
        }
        MDM_UNROLLED for (int i = 0; i < MDM_GPU_SLICE; i++) sum += part[i];
    }
    return sum;
}

MDM_BOTH void mdm_gather_sums_thread(const mdm_gather_arguments *a, mdm_gpu_thread t, double *shared) {
    for (uint32_t set = 0; set < a->sets; set++)
        shared[set * MDM_GPU_THREADS + t.thread] = mdm_gather_slice(a, t, set);
}

/* Behind the barrier, a thread per channel: its slices in order. */
MDM_BOTH void mdm_slices_thread(const mdm_gather_arguments *a, mdm_gpu_thread t, const double *shared) {
    uint32_t channel = t.block * MDM_GPU_LANES + t.thread;
    const mdm_gpu_thread of_channel = {0, channel, 0};
    if (t.thread >= MDM_GPU_LANES) return;
    for (uint32_t set = 0; set < a->sets; set++) {
        const double *mine = shared + set * MDM_GPU_THREADS + t.thread;
        const mdm_gpu_thread of_set = {0, set * a->groups * MDM_GPU_LANES + channel, 0};
        double sum = 0, second = 0;
        for (uint32_t slice = 0; slice < MDM_GPU_SLICES; slice++) {
            sum += mine[slice * 16];
            second += mine[slice * 16 + MDM_GPU_LANES];
        }
        a->sum[of_set.thread] = sum;
        a->second[of_set.thread] = second;
        if (a->rest == MDM_GPU_NORM_VALUES) mdm_norm_from_sums_thread(&a->channels, of_set);
        if (a->rest == MDM_GPU_NORM_GRADIENTS) mdm_norm_means_thread(&a->channels, of_set);
    }
    if (a->rest == MDM_GPU_NORM_GRADIENTS) mdm_norm_gradients_thread(&a->channels, of_channel);
}

#endif
