/* The arithmetic of views and of their pixels, to the bit as Pillow computes it: what the CPU (data/) and the
 * kernels of CUDA devices (device/) share.
 *
 * Header only: the same text is compiled for both. No product and sum in here may be fused: the C compiler
 * and the CUDA compiler are told so (-ffp-contract=off, --fmad=false).
 */
#ifndef MDM_BASE_PIXELS_H
#define MDM_BASE_PIXELS_H

#include "mdm/base/random.h"
#include <stdint.h>

/* None: the picture as it is. Weak: crop and flip. Strong: weak, then a sub-policy. */
typedef enum mdm_view { MDM_VIEW_NONE, MDM_VIEW_WEAK, MDM_VIEW_STRONG } mdm_view;

enum { MDM_SUB_POLICIES = 25, MDM_SUB_POLICY_STEPS = 2 };

/* What is drawn for a view. */
typedef struct mdm_view_draw {
    int top, left; /* corner of the crop in the padded picture, 0..2*pad; `pad` is the uncropped picture */
    int flip;      /* mirror left and right, after the crop */
    int policy;    /* sub-policy 0..24, -1 for a weak view */
    float chance[MDM_SUB_POLICY_STEPS]; /* a step is done where this is below its probability */
    int negative[MDM_SUB_POLICY_STEPS]; /* the sign of its magnitude, where it has one */
} mdm_view_draw;

/* A weak view takes three draws and a strong one five more, so a strong view's crop and flip are those of the
 * weak view of the same stream. */
MDM_INLINE mdm_view_draw mdm_draw_view(mdm_view view, mdm_random *random, int pad) {
    mdm_view_draw draw = {pad, pad, 0, -1, {1.0f, 1.0f}, {0, 0}};
    if (view == MDM_VIEW_NONE) return draw;
    draw.top = (int)mdm_random_below(random, 2 * (uint32_t)pad + 1);
    draw.left = (int)mdm_random_below(random, 2 * (uint32_t)pad + 1);
    draw.flip = mdm_random_uniform(random) < 0.5f;
    if (view == MDM_VIEW_WEAK) return draw;
    draw.policy = (int)mdm_random_below(random, MDM_SUB_POLICIES);
    for (int i = 0; i < MDM_SUB_POLICY_STEPS; i++) {
        draw.chance[i] = mdm_random_uniform(random);
        draw.negative[i] = mdm_random_uniform(random) < 0.5f;
    }
    return draw;
}

/* Where the centre of output pixel (0, 0) lies in the source, and how far a step to the right (column) or
 * down (row) moves: 16.16 fixed point, as Pillow rounds the coefficients. */
typedef struct mdm_affine {
    int64_t x, y, column_x, column_y, row_x, row_y;
} mdm_affine;

typedef enum mdm_pixel_kind {
    MDM_PIXEL_AFFINE, /* shear, translation, rotation: nearest sampling */
    MDM_PIXEL_BRIGHTNESS,
    MDM_PIXEL_COLOR,
    MDM_PIXEL_CONTRAST,
    MDM_PIXEL_SHARPNESS,
    MDM_PIXEL_POSTERIZE,
    MDM_PIXEL_SOLARIZE,
    MDM_PIXEL_AUTOCONTRAST,
    MDM_PIXEL_EQUALIZE,
    MDM_PIXEL_INVERT
} mdm_pixel_kind;

/* An operation on pictures of one size, its magnitude worked out. */
typedef struct mdm_pixel_operation {
    mdm_pixel_kind kind;
    float factor;      /* of a blend */
    int level;         /* posterize: the mask of the bits that stay; solarize: the least value inverted */
    int fill;          /* what appears outside the picture, 0..255 */
    mdm_affine affine; /* of MDM_PIXEL_AFFINE */
} mdm_pixel_operation;

/* The sub-policies for pictures of one size. */
typedef struct mdm_view_policy {
    struct {
        float probability;
        mdm_pixel_operation operation[2]; /* with a positive and with a negative magnitude */
    } step[MDM_SUB_POLICIES][MDM_SUB_POLICY_STEPS];
} mdm_view_policy;

MDM_INLINE int mdm_pixel_clip(int value) {
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

/* degenerate + factor (value - degenerate). Truncation towards zero before the clip gives what clipping
 * before it gives. */
MDM_INLINE uint8_t mdm_pixel_blend(int degenerate, int value, float factor) {
    return (uint8_t)mdm_pixel_clip((int)((float)degenerate + factor * (float)(value - degenerate)));
}

MDM_INLINE unsigned mdm_pixel_grey(const uint8_t *pixel) {
    return (pixel[0] * 19595u + pixel[1] * 38470u + pixel[2] * 7471u + 0x8000u) >> 16;
}

/* The constant that contrast blends with: the mean of so many greys. */
MDM_INLINE int mdm_pixel_contrast(int64_t sum, int64_t pixels) {
    return (int)((double)sum / (double)pixels + 0.5);
}

/* The 3x3 mean with weights 1 1 1, 1 5 1, 1 1 1, rounded to nearest, from that weighted sum plus 6. Pillow
 * sums in single precision, but thirteenths plus one half are never within its error of a whole number, so
 * whole numbers give the same: floor((sum + 6) / 13), here as a product with 5042 / 65536, exact below
 * 6564. */
MDM_INLINE uint8_t mdm_pixel_smooth(uint32_t sum_and_6) {
    return (uint8_t)(sum_and_6 * 5042u >> 16);
}

/* A channel's value stretched from [low, high] to [0, 255]; a channel of one value stays. */
MDM_INLINE uint8_t mdm_pixel_stretch(int value, int low, int high) {
    double scale = high > low ? 255.0 / (high - low) : 1.0;
    double offset = high > low ? -low * scale : 0.0;
    return (uint8_t)mdm_pixel_clip((int)(value * scale + offset));
}

/* Equalising: pixels of a channel for each step of the output, from all its pixels and those of the greatest
 * value in use. 0 (also when only one value is used): the channel stays. */
MDM_INLINE uint32_t mdm_pixel_equal_share(uint32_t pixels, uint32_t of_greatest) {
    return (pixels - of_greatest) / 255u;
}

/* The equalised value of a value that so many pixels of its channel are below. */
MDM_INLINE uint8_t mdm_pixel_equalize(uint32_t below, uint32_t share) {
    uint32_t value = (share / 2 + below) / share;
    return (uint8_t)(value > 255 ? 255 : value);
}

#endif
