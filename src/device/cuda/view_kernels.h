/* The kernel that makes views: a block of threads a view, in phases with a barrier behind each, as inline
 * functions that C can call too (kernels.h).
 *
 * The picture lies twice in the block's shared memory (a larger one in global memory, twice per block) and
 * every operation goes from one copy to the other: draw; crop and flip; then for each operation measure, sum
 * up, make its table, apply; normalise. Operations on single values are tables of 256 entries, one a thread.
 * The arithmetic is mdm/base/pixels.h's; view_kernels.cu is compiled without fused products and sums, which
 * would round otherwise than Pillow.
 */
#ifndef MDM_DEVICE_CUDA_VIEW_KERNELS_H
#define MDM_DEVICE_CUDA_VIEW_KERNELS_H

#include "kernels.h"
#include "mdm/device/views.h"

enum {
    MDM_VIEW_DRAW,
    MDM_VIEW_CROP,
    MDM_VIEW_STEP, /* the first of four phases for each step of the sub-policy: */
    MDM_VIEW_MEASURE = 0,
    MDM_VIEW_SUM_UP,
    MDM_VIEW_TABLE,
    MDM_VIEW_APPLY,
    MDM_VIEW_STEP_PHASES,
    MDM_VIEW_NORMALISE = MDM_VIEW_STEP + MDM_SUB_POLICY_STEPS * MDM_VIEW_STEP_PHASES,
    MDM_VIEW_PHASES,
    MDM_VIEW_GROUPS = 16,      /* of 16 values each, in which a histogram is summed */
    MDM_VIEW_SHARED = 48 << 10 /* bytes of shared memory that every block may have */
};

typedef struct mdm_view_arguments {
    const mdm_view_row *rows; /* [count] */
    const uint8_t *pictures;
    const mdm_view_policy *policy;
    const float *normal; /* [C,256] */
    uint8_t *scratch;    /* [blocks, 2, picture], or NULL: pictures are in shared memory */
    float *images;       /* [count, C, H, W] */
    uint64_t seed;
    uint32_t count, blocks;
    int height, width, channels, padding;
} mdm_view_arguments;

/* A block's shared memory, before its pictures. */
typedef struct mdm_view_block {
    const uint8_t *picture;
    mdm_view_draw draw;
    const mdm_pixel_operation *operation[MDM_SUB_POLICY_STEPS];
    int count;                                                                    /* operations to do */
    unsigned long long sum;                                                       /* of greys */
    uint32_t histogram[3][256], group[3][MDM_VIEW_GROUPS], lowest[3], highest[3]; /* values in use */
    uint8_t table[3][256];
} mdm_view_block;

/* Where two copies of a picture begin behind it. */
enum { MDM_VIEW_BLOCK_BYTES = (sizeof(mdm_view_block) + 15) / 16 * 16 };

/* Thread 0: which picture, and what is done to it. */
MDM_BOTH void mdm_view_draw_thread(const mdm_view_arguments *a, mdm_gpu_thread t, mdm_view_block *s,
                                   uint32_t number) {
    if (t.thread > 0) return;
    const mdm_view_row *row = a->rows + number;
    mdm_random random = mdm_random_stream(a->seed, MDM_RANDOM_AUGMENT, row->epoch, row->sample, row->number);
    s->picture = a->pictures + (size_t)row->picture * (size_t)(a->height * a->width * a->channels);
    s->draw = mdm_draw_view((mdm_view)row->view, &random, a->padding);
    s->count = 0;
    for (int i = 0; s->draw.policy >= 0 && i < MDM_SUB_POLICY_STEPS; i++)
        if (s->draw.chance[i] < a->policy->step[s->draw.policy][i].probability)
            s->operation[s->count++] = &a->policy->step[s->draw.policy][i].operation[s->draw.negative[i]];
}

/* For the next measuring. */
MDM_BOTH void mdm_view_clear_thread(mdm_gpu_thread t, mdm_view_block *s) {
    for (int c = 0; c < 3; c++) s->histogram[c][t.thread] = 0;
    if (t.thread < 3) {
        s->lowest[t.thread] = 255;
        s->highest[t.thread] = 0;
    }
    if (t.thread == 0) s->sum = 0;
}

MDM_BOTH void mdm_view_crop_thread(const mdm_view_arguments *a, mdm_gpu_thread t, mdm_view_block *s,
                                   uint8_t *out) {
    int pixels = a->height * a->width, channels = a->channels;
    for (int i = (int)t.thread; i < pixels; i += MDM_GPU_THREADS) {
        int y = i / a->width, x = i - y * a->width, row = y + s->draw.top - a->padding,
            column = (s->draw.flip ? a->width - 1 - x : x) + s->draw.left - a->padding;
        int inside = row >= 0 && row < a->height && column >= 0 && column < a->width;
        for (int c = 0; c < channels; c++)
            out[i * channels + c] = inside ? s->picture[(row * a->width + column) * channels + c] : 0;
    }
}

MDM_BOTH int mdm_view_needs_histogram(const mdm_pixel_operation *o) {
    return o->kind == MDM_PIXEL_EQUALIZE || o->kind == MDM_PIXEL_AUTOCONTRAST;
}

MDM_BOTH void mdm_view_measure_thread(const mdm_view_arguments *a, mdm_gpu_thread t, mdm_view_block *s,
                                      const mdm_pixel_operation *o, const uint8_t *in) {
    int pixels = a->height * a->width, channels = a->channels;
    if (o->kind == MDM_PIXEL_CONTRAST) {
        unsigned long long sum = 0;
        for (int i = (int)t.thread; i < pixels; i += MDM_GPU_THREADS)
            sum += channels == 1 ? in[i] : mdm_pixel_grey(in + 3 * i);
        mdm_atomic_add_long(&s->sum, sum);
    } else if (mdm_view_needs_histogram(o)) {
        for (int i = (int)t.thread; i < pixels; i += MDM_GPU_THREADS)
            for (int c = 0; c < channels; c++)
                (void)mdm_atomic_add(&s->histogram[c][in[i * channels + c]], 1);
    }
}

/* The values in use, and the sums of groups of 16 values. */
MDM_BOTH void mdm_view_sum_up_thread(const mdm_view_arguments *a, mdm_gpu_thread t, mdm_view_block *s,
                                     const mdm_pixel_operation *o) {
    if (!mdm_view_needs_histogram(o)) return;
    for (int c = 0; c < a->channels; c++)
        if (s->histogram[c][t.thread] > 0) {
            mdm_atomic_min(&s->lowest[c], t.thread);
            mdm_atomic_max(&s->highest[c], t.thread);
        }
    if (t.thread >= (uint32_t)a->channels * MDM_VIEW_GROUPS) return;
    uint32_t c = t.thread / MDM_VIEW_GROUPS, group = t.thread % MDM_VIEW_GROUPS, sum = 0;
    for (uint32_t v = 0; v < 256 / MDM_VIEW_GROUPS; v++)
        sum += s->histogram[c][group * (256 / MDM_VIEW_GROUPS) + v];
    s->group[c][group] = sum;
}

/* How many of a channel's pixels are below a value. */
MDM_BOTH uint32_t mdm_view_below(const mdm_view_block *s, int c, uint32_t value) {
    uint32_t group = value / (256 / MDM_VIEW_GROUPS), below = 0;
    for (uint32_t g = 0; g < group; g++) below += s->group[c][g];
    for (uint32_t v = group * (256 / MDM_VIEW_GROUPS); v < value; v++) below += s->histogram[c][v];
    return below;
}

/* What a channel's value becomes, for the operations on single values. */
MDM_BOTH uint8_t mdm_view_value(const mdm_view_arguments *a, const mdm_view_block *s,
                                const mdm_pixel_operation *o, int c, int value) {
    uint32_t pixels = (uint32_t)a->height * (uint32_t)a->width, share;
    switch (o->kind) {
    case MDM_PIXEL_BRIGHTNESS:
        return mdm_pixel_blend(0, value, o->factor);
    case MDM_PIXEL_CONTRAST:
        return mdm_pixel_blend(mdm_pixel_contrast((int64_t)s->sum, pixels), value, o->factor);
    case MDM_PIXEL_POSTERIZE:
        return (uint8_t)(value & o->level);
    case MDM_PIXEL_SOLARIZE:
        return (uint8_t)(value < o->level ? value : 255 - value);
    case MDM_PIXEL_AUTOCONTRAST:
        return mdm_pixel_stretch(value, (int)s->lowest[c], (int)s->highest[c]);
    case MDM_PIXEL_EQUALIZE:
        share = mdm_pixel_equal_share(pixels, s->histogram[c][s->highest[c]]);
        return share == 0 ? (uint8_t)value : mdm_pixel_equalize(mdm_view_below(s, c, (uint32_t)value), share);
    case MDM_PIXEL_INVERT:
        return (uint8_t)(255 - value);
    default: /* on more than single values */
        return (uint8_t)value;
    }
}

MDM_BOTH void mdm_view_affine_thread(const mdm_view_arguments *a, mdm_gpu_thread t,
                                     const mdm_pixel_operation *o, const uint8_t *in, uint8_t *out) {
    int pixels = a->height * a->width, channels = a->channels;
    const mdm_affine *m = &o->affine;
    for (int i = (int)t.thread; i < pixels; i += MDM_GPU_THREADS) {
        int y = i / a->width, x = i - y * a->width;
        int64_t column = (m->x + x * m->column_x + y * m->row_x) >> 16,
                row = (m->y + x * m->column_y + y * m->row_y) >> 16;
        int inside = column >= 0 && column < a->width && row >= 0 && row < a->height;
        int from = inside ? ((int)row * a->width + (int)column) * channels : 0;
        for (int c = 0; c < channels; c++) out[i * channels + c] = inside ? in[from + c] : (uint8_t)o->fill;
    }
}

MDM_BOTH void mdm_view_color_thread(const mdm_view_arguments *a, mdm_gpu_thread t,
                                    const mdm_pixel_operation *o, const uint8_t *in, uint8_t *out) {
    int pixels = a->height * a->width, channels = a->channels;
    for (int i = (int)t.thread; i < pixels; i += MDM_GPU_THREADS) {
        int grey = channels == 1 ? in[i] : (int)mdm_pixel_grey(in + 3 * i);
        for (int c = 0; c < channels; c++)
            out[i * channels + c] = mdm_pixel_blend(grey, in[i * channels + c], o->factor);
    }
}

/* The border is its own degenerate: it stays. */
MDM_BOTH void mdm_view_sharpness_thread(const mdm_view_arguments *a, mdm_gpu_thread t,
                                        const mdm_pixel_operation *o, const uint8_t *in, uint8_t *out) {
    int width = a->width * a->channels, bytes = a->height * width, channels = a->channels;
    for (int i = (int)t.thread; i < bytes; i += MDM_GPU_THREADS) {
        int y = i / width, x = i - y * width;
        const uint8_t *row = in + i;
        if (y == 0 || y == a->height - 1 || x < channels || x >= width - channels) {
            out[i] = *row;
            continue;
        }
        const uint8_t *above = row - width, *below = row + width;
        uint32_t sum = (uint32_t)above[-channels] + above[0] + above[channels] + row[-channels] +
                       5u * row[0] + row[channels] + below[-channels] + below[0] + below[channels] + 6u;
        out[i] = mdm_pixel_blend(mdm_pixel_smooth(sum), *row, o->factor);
    }
}

MDM_BOTH void mdm_view_apply_thread(const mdm_view_arguments *a, mdm_gpu_thread t, const mdm_view_block *s,
                                    const mdm_pixel_operation *o, const uint8_t *in, uint8_t *out) {
    int pixels = a->height * a->width, channels = a->channels;
    if (o->kind == MDM_PIXEL_AFFINE) {
        mdm_view_affine_thread(a, t, o, in, out);
    } else if (o->kind == MDM_PIXEL_COLOR) {
        mdm_view_color_thread(a, t, o, in, out);
    } else if (o->kind == MDM_PIXEL_SHARPNESS) {
        mdm_view_sharpness_thread(a, t, o, in, out);
    } else {
        for (int i = (int)t.thread; i < pixels; i += MDM_GPU_THREADS)
            for (int c = 0; c < channels; c++) out[i * channels + c] = s->table[c][in[i * channels + c]];
    }
}

/* [H,W,C] bytes to [C,H,W] floats. */
MDM_BOTH void mdm_view_normalise_thread(const mdm_view_arguments *a, mdm_gpu_thread t, const uint8_t *in,
                                        uint32_t number) {
    int pixels = a->height * a->width, channels = a->channels;
    float *image = a->images + (size_t)number * (size_t)(pixels * channels);
    for (int c = 0; c < channels; c++)
        for (int i = (int)t.thread; i < pixels; i += MDM_GPU_THREADS)
            image[c * pixels + i] = a->normal[c * 256 + in[i * channels + c]];
}

/* One phase of one step of the sub-policy. */
MDM_BOTH void mdm_view_step_thread(const mdm_view_arguments *a, mdm_gpu_thread t, mdm_view_block *s,
                                   const mdm_pixel_operation *o, uint32_t phase, const uint8_t *in,
                                   uint8_t *out) {
    if (phase == MDM_VIEW_MEASURE) {
        mdm_view_measure_thread(a, t, s, o, in);
    } else if (phase == MDM_VIEW_SUM_UP) {
        mdm_view_sum_up_thread(a, t, s, o);
    } else if (phase == MDM_VIEW_TABLE) {
        for (int c = 0; c < a->channels; c++)
            s->table[c][t.thread] = mdm_view_value(a, s, o, c, (int)t.thread);
    } else {
        mdm_view_apply_thread(a, t, s, o, in, out);
        mdm_view_clear_thread(t, s); /* read by the phases before only */
    }
}

/* Phases of a block, which makes the views block, block + blocks, ... */
MDM_BOTH uint32_t mdm_make_views_phases(const mdm_view_arguments *a, uint32_t block) {
    return block < a->count ? ((a->count - 1 - block) / a->blocks + 1) * MDM_VIEW_PHASES : 0;
}

MDM_BOTH void mdm_make_views_phase(const mdm_view_arguments *a, mdm_gpu_thread t, void *shared,
                                   uint32_t all_phases) {
    mdm_view_block *s = (mdm_view_block *)shared;
    uint32_t number = t.block + all_phases / MDM_VIEW_PHASES * a->blocks,
             phase = all_phases % MDM_VIEW_PHASES;
    size_t bytes = (size_t)(a->height * a->width * a->channels);
    uint8_t *copies =
        a->scratch ? a->scratch + 2 * bytes * t.block : (uint8_t *)shared + MDM_VIEW_BLOCK_BYTES;
    if (phase == MDM_VIEW_DRAW) {
        mdm_view_draw_thread(a, t, s, number);
    } else if (phase == MDM_VIEW_CROP) {
        mdm_view_crop_thread(a, t, s, copies);
        mdm_view_clear_thread(t, s);
    } else if (phase == MDM_VIEW_NORMALISE) {
        mdm_view_normalise_thread(a, t, copies + (s->count == 1 ? bytes : 0), number);
    } else {
        int step = (int)(phase - MDM_VIEW_STEP) / MDM_VIEW_STEP_PHASES;
        if (step >= s->count) return;
        mdm_view_step_thread(a, t, s, s->operation[step], (phase - MDM_VIEW_STEP) % MDM_VIEW_STEP_PHASES,
                             copies + (step == 0 ? 0 : bytes), copies + (step == 0 ? bytes : 0));
    }
}

/* ---- the list: kernel, its arguments; mdm_NAME_phases and mdm_NAME_phase are its functions ---- */
#define MDM_GPU_PHASED_KERNELS(P) P(make_views, mdm_view_arguments)

#endif
