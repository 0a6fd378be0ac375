/* Kernels of targets, losses and contrast, like those of kernels.h: what every thread does, for CUDA and for
 * C.
 *
 * They work on rows of a small matrix, a few threads (lanes, at most a warp) to a row, in phases with a
 * barrier between them: threads leave their share of a sum in the block's shared memory, and in the next
 * phase every lane adds up its row's shares in the same order. Nothing else is kept from phase to phase.
 */
#ifndef MDM_DEVICE_CUDA_KERNELS_LOSSES_H
#define MDM_DEVICE_CUDA_KERNELS_LOSSES_H

#include "kernels.h"
#include "mdm/device/losses.h"

enum {
    MDM_GPU_ROW_LANES = 32, /* most lanes of a row */
    MDM_GPU_SLOTS = 6       /* values that a thread can leave in shared memory */
};

/* ---- rows ---- */

typedef struct mdm_row_geometry {
    uint32_t rows, columns, lanes; /* lanes: a power of two */
} mdm_row_geometry;

/* As many lanes as columns, within a warp. */
MDM_BOTH mdm_row_geometry mdm_geometry_of_rows(int64_t rows, int64_t columns) {
    mdm_row_geometry g = {(uint32_t)rows, (uint32_t)columns, 1};
    while (g.lanes < MDM_GPU_ROW_LANES && g.lanes < g.columns) g.lanes *= 2;
    return g;
}

/* Blocks for all rows. */
MDM_BOTH uint32_t mdm_blocks_of_rows(const mdm_row_geometry *g) {
    uint32_t in_block = MDM_GPU_THREADS / g->lanes;
    return (g->rows + in_block - 1) / in_block;
}

/* A thread's row and its first column; the others follow `lanes` apart. Returns 0 behind the last row. */
MDM_BOTH int mdm_row_of(const mdm_row_geometry *g, mdm_gpu_thread t, size_t *row, uint32_t *lane) {
    *row = (size_t)t.block * (MDM_GPU_THREADS / g->lanes) + t.thread / g->lanes;
    *lane = t.thread % g->lanes;
    return *row < g->rows;
}

MDM_BOTH void mdm_leave(double *shared, int slot, mdm_gpu_thread t, double value) {
    shared[slot * MDM_GPU_THREADS + (int)t.thread] = value;
}

/* A block's sum in two steps of 16, in the same order always: from slot 0. */
MDM_BOTH void mdm_block_total_phase(mdm_gpu_thread t, int phase, double *shared, double *total) {
    double sum = 0.0;
    const double *left = phase == 1 ? shared + t.thread * 16 : shared + MDM_GPU_THREADS;
    if (t.thread >= (phase == 1 ? 16u : 1u)) return;
    for (int i = 0; i < 16; i++) sum += left[i];
    if (phase == 1)
        mdm_leave(shared, 1, t, sum);
    else
        *total = sum;
}

/* What the row's lanes left in a slot: sum, greatest, and the first lane's. */
MDM_BOTH const double *mdm_row_slot(const mdm_row_geometry *g, const double *shared, int slot,
                                    mdm_gpu_thread t) {
    return shared + slot * MDM_GPU_THREADS + t.thread / g->lanes * g->lanes;
}

MDM_BOTH double mdm_row_total(const mdm_row_geometry *g, const double *shared, int slot, mdm_gpu_thread t) {
    const double *left = mdm_row_slot(g, shared, slot, t);
    double sum = 0.0;
    for (uint32_t i = 0; i < g->lanes; i++) sum += left[i];
    return sum;
}

MDM_BOTH double mdm_row_greatest(const mdm_row_geometry *g, const double *shared, int slot,
                                 mdm_gpu_thread t) {
    const double *left = mdm_row_slot(g, shared, slot, t);
    double greatest = left[0];
    for (uint32_t i = 1; i < g->lanes; i++) greatest = left[i] > greatest ? left[i] : greatest;
    return greatest;
}

/* ---- softmax of rows: phase 0 leaves the greatest logit in slot 0, phase 1 the sum of exponentials in slot
 * 1; then every lane knows both. NaN anywhere makes the sum NaN. ---- */

typedef struct mdm_row_softmax {
    float greatest, sum;
} mdm_row_softmax;

MDM_BOTH void mdm_softmax_phase(const mdm_row_geometry *g, const float *z, uint32_t lane, int phase,
                                mdm_gpu_thread t, double *shared) {
    if (phase == 0) {
        float greatest = -INFINITY;
        for (uint32_t c = lane; c < g->columns; c += g->lanes) greatest = z[c] > greatest ? z[c] : greatest;
        mdm_leave(shared, 0, t, (double)greatest);
    } else {
        float greatest = (float)mdm_row_greatest(g, shared, 0, t), sum = 0.0f;
        for (uint32_t c = lane; c < g->columns; c += g->lanes) sum += expf(z[c] - greatest);
        mdm_leave(shared, 1, t, (double)sum);
    }
}

MDM_BOTH mdm_row_softmax mdm_softmax_of(const mdm_row_geometry *g, const double *shared, mdm_gpu_thread t) {
    mdm_row_softmax s;
    s.greatest = (float)mdm_row_greatest(g, shared, 0, t);
    s.sum = (float)mdm_row_total(g, shared, 1, t);
    return s;
}

MDM_BOTH float mdm_probability_of(mdm_row_softmax s, float logit) {
    return expf(logit - s.greatest) / s.sum;
}

typedef struct mdm_softmax_arguments {
    mdm_row_geometry rows;
    const float *logits;
    float *probability;
} mdm_softmax_arguments;

MDM_BOTH void mdm_softmax_rows_thread(const mdm_softmax_arguments *a, mdm_gpu_thread t, int phase,
                                      double *shared) {
    size_t row;
    uint32_t lane;
    if (!mdm_row_of(&a->rows, t, &row, &lane)) return;
    const float *z = a->logits + row * a->rows.columns;
    if (phase < 2) {
        mdm_softmax_phase(&a->rows, z, lane, phase, t, shared);
        return;
    }
    mdm_row_softmax s = mdm_softmax_of(&a->rows, shared, t);
    for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes)
        a->probability[row * a->rows.columns + c] = mdm_probability_of(s, z[c]);
}

/* ---- losses of logits ---- */

typedef struct mdm_loss_arguments {
    mdm_row_geometry rows;
    const float *logits, *target, *weight, *factor;
    const int32_t *label; /* NULL: soft targets */
    double *value;
    float *gradient;
    float scale, ce_weight, rce_weight;
    int accumulate;
} mdm_loss_arguments;

MDM_BOTH float mdm_weight_of_row(const mdm_loss_arguments *a, size_t row) {
    return a->weight ? a->weight[row] : 1.0f;
}

MDM_BOTH float mdm_scale_of_loss(const mdm_loss_arguments *a) {
    return a->factor ? a->scale * *a->factor : a->scale;
}

/* What a loss gives a row: its value without scale, by the first lane. */
MDM_BOTH void mdm_put_value(const mdm_loss_arguments *a, size_t row, uint32_t lane, float loss) {
    float weight = mdm_weight_of_row(a, row);
    if (a->value && lane == 0) a->value[row] = weight != 0.0f ? (double)weight * (double)loss : 0.0;
}

MDM_BOTH void mdm_put_gradient(const mdm_loss_arguments *a, size_t at, float gradient) {
    if (a->accumulate)
        a->gradient[at] += gradient;
    else
        a->gradient[at] = gradient;
}

/* One row: where it is, its softmax, its weight times scale. */
typedef struct mdm_loss_row {
    const float *z, *target;
    mdm_row_softmax softmax;
    float scale;
    uint32_t label;
} mdm_loss_row;

MDM_BOTH mdm_loss_row mdm_loss_row_of(const mdm_loss_arguments *a, size_t row, mdm_gpu_thread t,
                                      const double *shared) {
    mdm_loss_row r;
    r.z = a->logits + row * a->rows.columns;
    r.target = a->target ? a->target + row * a->rows.columns : NULL;
    r.softmax = mdm_softmax_of(&a->rows, shared, t);
    r.scale = mdm_scale_of_loss(a) * mdm_weight_of_row(a, row);
    r.label = a->label ? (uint32_t)a->label[row] : 0;
    return r;
}

/* dL/dp of the reverse term. */
MDM_BOTH float mdm_reverse_slope(const mdm_loss_arguments *a, const mdm_loss_row *r, uint32_t c, float p) {
    float factor = -r->scale * a->rce_weight;
    if (p < MDM_PROBABILITY_FLOOR || (a->label && c == r->label)) return 0.0f;
    return factor * (a->label ? logf(MDM_TARGET_FLOOR) : mdm_log_target(r->target[c]));
}

/* Slots 2 to 5: cross entropy, reverse cross entropy, sum of targets, sum of p * slope. */
MDM_BOTH void mdm_symmetric_sums(const mdm_loss_arguments *a, const mdm_loss_row *r, uint32_t lane,
                                 mdm_gpu_thread t, double *shared) {
    float log_of_sum = logf(r->softmax.sum), entropy = 0.0f, reverse = 0.0f, total = 0.0f, slopes = 0.0f;
    for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes) {
        float p = mdm_probability_of(r->softmax, r->z[c]),
              surprise = log_of_sum - (r->z[c] - r->softmax.greatest);
        if (a->label) {
            if (c == r->label)
                entropy = surprise;
            else
                reverse -= mdm_clamped_probability(p) * logf(MDM_TARGET_FLOOR);
        } else {
            entropy += r->target[c] * surprise;
            reverse -= mdm_clamped_probability(p) * mdm_log_target(r->target[c]);
            total += r->target[c];
        }
        slopes += p * mdm_reverse_slope(a, r, c, p);
    }
    mdm_leave(shared, 2, t, (double)entropy);
    mdm_leave(shared, 3, t, (double)reverse);
    mdm_leave(shared, 4, t, (double)total);
    mdm_leave(shared, 5, t, (double)slopes);
}

MDM_BOTH void mdm_symmetric_gradient(const mdm_loss_arguments *a, const mdm_loss_row *r, size_t row,
                                     uint32_t lane, float total, float slopes) {
    int counts = mdm_weight_of_row(a, row) != 0.0f;
    for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes) {
        float p = mdm_probability_of(r->softmax, r->z[c]);
        float off = a->label ? p - (float)(c == r->label) : total * p - r->target[c];
        float gradient = r->scale * a->ce_weight * off + p * (mdm_reverse_slope(a, r, c, p) - slopes);
        mdm_put_gradient(a, row * a->rows.columns + c, counts ? gradient : 0.0f);
    }
}

/* Cross entropy and its reverse, for labels and for soft targets. */
MDM_BOTH void mdm_loss_symmetric_thread(const mdm_loss_arguments *a, mdm_gpu_thread t, int phase,
                                        double *shared) {
    size_t row;
    uint32_t lane;
    if (!mdm_row_of(&a->rows, t, &row, &lane)) return;
    if (phase < 2) {
        mdm_softmax_phase(&a->rows, a->logits + row * a->rows.columns, lane, phase, t, shared);
        return;
    }
    mdm_loss_row r = mdm_loss_row_of(a, row, t, shared);
    if (phase == 2) {
        mdm_symmetric_sums(a, &r, lane, t, shared);
        return;
    }
    float entropy = (float)mdm_row_total(&a->rows, shared, 2, t),
          reverse = (float)mdm_row_total(&a->rows, shared, 3, t);
    mdm_put_value(a, row, lane, a->ce_weight * entropy + a->rce_weight * reverse);
    if (a->gradient)
        mdm_symmetric_gradient(a, &r, row, lane, (float)mdm_row_total(&a->rows, shared, 4, t),
                               (float)mdm_row_total(&a->rows, shared, 5, t));
}

/* Mean of (p - target)^2. */
MDM_BOTH void mdm_loss_consistency_thread(const mdm_loss_arguments *a, mdm_gpu_thread t, int phase,
                                          double *shared) {
    size_t row;
    uint32_t lane;
    if (!mdm_row_of(&a->rows, t, &row, &lane)) return;
    if (phase < 2) {
        mdm_softmax_phase(&a->rows, a->logits + row * a->rows.columns, lane, phase, t, shared);
        return;
    }
    mdm_loss_row r = mdm_loss_row_of(a, row, t, shared);
    float factor = 2.0f * r.scale / (float)a->rows.columns, squares = 0.0f, slopes = 0.0f;
    if (phase == 2) {
        for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes) {
            float p = mdm_probability_of(r.softmax, r.z[c]), off = p - r.target[c];
            squares += off * off;
            slopes += p * (factor * off);
        }
        mdm_leave(shared, 2, t, (double)squares);
        mdm_leave(shared, 3, t, (double)slopes);
        return;
    }
    squares = (float)mdm_row_total(&a->rows, shared, 2, t);
    slopes = (float)mdm_row_total(&a->rows, shared, 3, t);
    mdm_put_value(a, row, lane, squares / (float)a->rows.columns);
    int counts = mdm_weight_of_row(a, row) != 0.0f;
    for (uint32_t c = lane; a->gradient && c < a->rows.columns; c += a->rows.lanes) {
        float p = mdm_probability_of(r.softmax, r.z[c]);
        mdm_put_gradient(a, row * a->rows.columns + c,
                         counts ? p * (factor * (p - r.target[c]) - slopes) : 0.0f);
    }
}

/* Both, of soft targets: the blocks of labelled rows, then those of unlabelled ones. */
typedef struct mdm_soft_arguments {
    mdm_loss_arguments labelled, unlabelled;
} mdm_soft_arguments;

MDM_BOTH void mdm_loss_soft_thread(const mdm_soft_arguments *a, mdm_gpu_thread t, int phase, double *shared) {
    uint32_t labelled = mdm_blocks_of_rows(&a->labelled.rows);
    if (t.block < labelled) {
        mdm_loss_symmetric_thread(&a->labelled, t, phase, shared);
        return;
    }
    t.block -= labelled;
    mdm_loss_consistency_thread(&a->unlabelled, t, phase, shared);
}

/* ---- targets: rows 0..count-1 refine labels, rows count..2*count-1 guess them ---- */

typedef struct mdm_target_arguments {
    mdm_row_geometry rows;
    const float *own, *theirs, *clean_probability;
    const int32_t *label;
    float *target;
    double *confident;
    uint32_t count;
    float power, confidence;
} mdm_target_arguments;

/* Before sharpening. */
MDM_BOTH float mdm_raw_target(const mdm_target_arguments *a, size_t row, uint32_t c) {
    size_t count = a->count, classes = a->rows.columns, i = row < count ? row : row - count;
    const float *p = a->own + (row < count ? i : 2 * count + i) * classes + c;
    if (row < count)
        return mdm_refined_label(a->clean_probability[i], (uint32_t)a->label[i] == c, p[0],
                                 p[count * classes]);
    const float *q = a->theirs ? a->theirs + i * classes + c : p;
    return mdm_guessed_label(a->theirs != NULL, p[0], p[count * classes], q[0], q[count * classes]);
}

/* The greatest first, so that small temperatures do not underflow. */
MDM_BOTH float mdm_powered_target(const mdm_target_arguments *a, size_t row, uint32_t c, float most) {
    return powf(mdm_raw_target(a, row, c) / most, a->power);
}

/* Slots: 0 greatest raw value, 1 sum of powers, 2 greatest target. */
MDM_BOTH void mdm_make_targets_thread(const mdm_target_arguments *a, mdm_gpu_thread t, int phase,
                                      double *shared) {
    size_t row;
    uint32_t lane, classes = a->rows.columns, lanes = a->rows.lanes;
    if (!mdm_row_of(&a->rows, t, &row, &lane)) return;
    size_t i = row < a->count ? row : row - a->count, width = (size_t)classes + 1;
    float *first = a->target + ((row < a->count ? 0 : 2 * (size_t)a->count) + i) * width,
          *second = first + a->count * width;
    float most = phase ? (float)mdm_row_greatest(&a->rows, shared, 0, t) : FLT_MIN, value = 0.0f;
    if (phase == 0) {
        for (uint32_t c = lane; c < classes; c += lanes) {
            value = mdm_raw_target(a, row, c);
            most = value > most ? value : most;
        }
        mdm_leave(shared, 0, t, (double)most);
    } else if (phase == 1) {
        for (uint32_t c = lane; c < classes; c += lanes) value += mdm_powered_target(a, row, c, most);
        mdm_leave(shared, 1, t, (double)value);
    } else if (phase == 2) {
        float sum = (float)mdm_row_total(&a->rows, shared, 1, t);
        for (uint32_t c = lane; c < classes; c += lanes) {
            float target = first[c] = second[c] = mdm_powered_target(a, row, c, most) / sum;
            value = target > value ? target : value;
        }
        mdm_leave(shared, 2, t, (double)value);
    } else if (lane == 0) {
        int counts = (float)mdm_row_greatest(&a->rows, shared, 2, t) >= a->confidence;
        first[classes] = second[classes] = row < a->count || counts ? 1.0f : 0.0f;
        if (row >= a->count && a->confident) a->confident[i] = counts;
    }
}

/* ---- balance ---- */

typedef struct mdm_balance_arguments {
    mdm_row_geometry rows;
    const float *probability;
    const double *sum;
    double total;
    float factor; /* scale / C */
    double *value;
    float *gradient;
} mdm_balance_arguments;

/* The loss is told by the threads of the first row, which are there without rows too. Slots: 0 sum of p *
 * slope, 1 the loss. */
MDM_BOTH void mdm_balance_thread(const mdm_balance_arguments *a, mdm_gpu_thread t, int phase,
                                 double *shared) {
    size_t row;
    uint32_t lane;
    int is_row = mdm_row_of(&a->rows, t, &row, &lane), tells = row == 0 && a->value;
    size_t at = is_row ? row * a->rows.columns : 0;
    float slopes = phase ? (float)mdm_row_total(&a->rows, shared, 0, t) : 0.0f;
    double value = 0.0, classes = a->rows.columns;
    for (uint32_t c = lane; (is_row || tells) && c < a->rows.columns; c += a->rows.lanes) {
        double mean = a->sum[c] / a->total;
        float slope = mdm_balance_slope(mean, a->factor);
        if (phase == 0 && tells) value += log(1.0 / classes) - log(mdm_balance_mean(mean));
        if (phase == 0 && is_row) slopes += a->probability[at + c] * slope;
        if (phase == 1 && is_row) a->gradient[at + c] += a->probability[at + c] * (slope - slopes);
    }
    if (phase == 1) {
        if (tells && lane == 0) *a->value = mdm_row_total(&a->rows, shared, 1, t) / classes;
        return;
    }
    mdm_leave(shared, 0, t, (double)slopes);
    mdm_leave(shared, 1, t, value);
}

/* ---- unit rows and contrast ---- */

typedef struct mdm_unit_arguments {
    mdm_row_geometry rows;
    const float *row, *gradient; /* backward: row is the unit row */
    float *norm, *out;
} mdm_unit_arguments;

MDM_BOTH void mdm_unit_forward_thread(const mdm_unit_arguments *a, mdm_gpu_thread t, int phase,
                                      double *shared) {
    size_t row;
    uint32_t lane;
    if (!mdm_row_of(&a->rows, t, &row, &lane)) return;
    const float *x = a->row + row * a->rows.columns;
    float squares = 0.0f;
    if (phase == 0) {
        for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes) squares += x[c] * x[c];
        mdm_leave(shared, 0, t, (double)squares);
        return;
    }
    float norm = sqrtf((float)mdm_row_total(&a->rows, shared, 0, t)),
          divisor = norm > MDM_NORM_FLOOR ? norm : MDM_NORM_FLOOR;
    if (lane == 0) a->norm[row] = norm;
    for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes)
        a->out[row * a->rows.columns + c] = x[c] / divisor;
}

MDM_BOTH void mdm_unit_backward_thread(const mdm_unit_arguments *a, mdm_gpu_thread t, int phase,
                                       double *shared) {
    size_t row;
    uint32_t lane;
    if (!mdm_row_of(&a->rows, t, &row, &lane)) return;
    const float *unit = a->row + row * a->rows.columns, *gradient = a->gradient + row * a->rows.columns;
    float along = 0.0f;
    if (phase == 0) {
        for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes) along += unit[c] * gradient[c];
        mdm_leave(shared, 0, t, (double)along);
        return;
    }
    int floored = !(a->norm[row] > MDM_NORM_FLOOR); /* the divisor is a constant there */
    float divisor = floored ? MDM_NORM_FLOOR : a->norm[row];
    along = floored ? 0.0f : (float)mdm_row_total(&a->rows, shared, 0, t);
    for (uint32_t c = lane; c < a->rows.columns; c += a->rows.lanes)
        a->out[row * a->rows.columns + c] = (gradient[c] - unit[c] * along) / divisor;
}

typedef struct mdm_contrast_arguments {
    mdm_row_geometry rows; /* columns: 2 * pairs */
    float *similarity;
    double *value;
    uint32_t first;
} mdm_contrast_arguments;

/* Slots: 0 greatest similarity to another row, 1 sum of exponentials, 2 the positive's similarity. */
MDM_BOTH void mdm_contrast_rows_thread(const mdm_contrast_arguments *a, mdm_gpu_thread t, int phase,
                                       double *shared) {
    size_t row;
    uint32_t lane, all = a->rows.columns, pairs = all / 2;
    if (!mdm_row_of(&a->rows, t, &row, &lane)) return;
    uint32_t self = a->first + (uint32_t)row, positive = self < pairs ? self + pairs : self - pairs;
    float *s = a->similarity + row * all, most = -INFINITY, sum = 0.0f;
    if (phase == 0) {
        for (uint32_t c = lane; c < all; c += a->rows.lanes)
            if (c != self && s[c] > most) most = s[c];
        mdm_leave(shared, 0, t, (double)most);
        mdm_leave(shared, 2, t, (double)s[positive]);
        return;
    }
    most = (float)mdm_row_greatest(&a->rows, shared, 0, t);
    if (phase == 1) {
        for (uint32_t c = lane; c < all; c += a->rows.lanes)
            if (c != self) sum += expf(s[c] - most);
        mdm_leave(shared, 1, t, (double)sum);
        return;
    }
    sum = (float)mdm_row_total(&a->rows, shared, 1, t);
    float inverse = 1.0f / sum, at_positive = (float)*mdm_row_slot(&a->rows, shared, 2, t);
    for (uint32_t c = lane; c < all; c += a->rows.lanes) {
        float p = c == self ? 0.0f : expf(s[c] - most) * inverse;
        s[c] = c == positive ? p - 1.0f : p;
    }
    if (lane == 0) a->value[row] = (double)(logf(sum) - (at_positive - most));
}

/* ---- the list: P with the number of phases ---- */
#define MDM_GPU_LOSS_KERNELS(P)                                                                              \
    P(softmax_rows, mdm_softmax_arguments, 3)                                                                \
    P(loss_symmetric, mdm_loss_arguments, 4)                                                                 \
    P(loss_soft, mdm_soft_arguments, 4)                                                                      \
    P(make_targets, mdm_target_arguments, 4)                                                                 \
    P(balance, mdm_balance_arguments, 2)                                                                     \
    P(unit_forward, mdm_unit_arguments, 2)                                                                   \
    P(unit_backward, mdm_unit_arguments, 2)                                                                  \
    P(contrast_rows, mdm_contrast_arguments, 3)

#endif
