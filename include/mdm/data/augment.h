/* Augmentation of one image: crop and flip (weak), followed by one of AutoAugment's 25 CIFAR-10 sub-policies
 * (strong).
 *
 * All operations work on uint8 [H,W,C] with C = 1 or 3 and give the very bits that Pillow gives (Cubuk et al.
 * 2019, arXiv 1805.09501, table 7, in torchvision's discretisation: nearest sampling, fill 128). Sides below
 * 16384. What is drawn is a pure function of the random stream passed in.
 */
#ifndef MDM_DATA_AUGMENT_H
#define MDM_DATA_AUGMENT_H

#include "mdm/base/pixels.h"
#include <stdint.h>

typedef enum mdm_augment_kind {
    MDM_SHEAR_X,
    MDM_SHEAR_Y,
    MDM_TRANSLATE_X,
    MDM_TRANSLATE_Y,
    MDM_ROTATE,
    MDM_BRIGHTNESS,
    MDM_COLOR,
    MDM_CONTRAST,
    MDM_SHARPNESS,
    MDM_POSTERIZE,
    MDM_SOLARIZE,
    MDM_AUTOCONTRAST,
    MDM_EQUALIZE,
    MDM_INVERT
} mdm_augment_kind;

typedef struct mdm_augment_operation {
    mdm_augment_kind kind;
    float probability;
    int level; /* 0..9 */
} mdm_augment_operation;

/* The 25 sub-policies, two operations each. */
extern const mdm_augment_operation mdm_augment_policy[MDM_SUB_POLICIES][MDM_SUB_POLICY_STEPS];

/* One operation with an explicit magnitude, as Pillow computes it: shear as tan of the angle, translation in
 * pixels, rotation in degrees counter-clockwise, enhancement factor, bits to keep, threshold. `fill` is what
 * appears outside the image. `in` and `out` are [H,W,C] and must not overlap. */
void mdm_augment_apply(mdm_augment_kind kind, double magnitude, uint8_t fill, const uint8_t *in, int height,
                       int width, int channels, uint8_t *out);

/* The magnitude of `kind` at `level` (0..9) for an image of that size, without its sign. For brightness,
 * color, contrast and sharpness it is how far the factor lies from 1; translation is in whole pixels; 0 where
 * the operation has none. */
double mdm_augment_magnitude(mdm_augment_kind kind, int level, int height, int width);

/* Whether an operation's magnitude gets a random sign. */
int mdm_augment_is_signed(mdm_augment_kind kind);

/* What one view does, drawn but not yet done. */
typedef struct mdm_augment_plan {
    int top, left; /* corner of the crop in the padded image, 0..2*pad; `pad` is the uncropped image */
    int flip;      /* mirror left and right, after the crop */
    int policy;    /* sub-policy 0..24, -1 for a weak view */
    int count;     /* operations to apply, 0..2, in order */
    struct {
        mdm_augment_kind kind;
        double magnitude; /* signed, as mdm_augment_apply takes it */
    } operation[2];
} mdm_augment_plan;

/* Draws a view's plan (mdm_draw_view). */
mdm_augment_plan mdm_augment_draw(mdm_view view, mdm_random *random, int height, int width, int pad);

/* Makes the view that `plan` describes; buffers as for mdm_augment_view. */
void mdm_augment_make(const mdm_augment_plan *plan, const uint8_t *in, int height, int width, int channels,
                      int pad, uint8_t *out, uint8_t *scratch);

/* Makes one view: draws from `random` first the crop and the flip, then for a strong view the sub-policy, and
 * for each of its operations whether it is applied and its sign. `pad` zero pixels (4) surround the image
 * before the crop. `in`, `out` [H,W,C] must not overlap; `scratch` has 2*H*W*C bytes. */
void mdm_augment_view(mdm_view view, mdm_random *random, const uint8_t *in, int height, int width,
                      int channels, int pad, uint8_t *out, uint8_t *scratch);

/* For devices that make views themselves: an operation as mdm_augment_apply would do it on images of that
 * size, and all the sub-policies. Images and draws being the same, so are the views, to the bit. */
mdm_pixel_operation mdm_augment_prepare(mdm_augment_kind kind, double magnitude, uint8_t fill, int height,
                                        int width);
void mdm_augment_prepare_policy(int height, int width, mdm_view_policy *policy);

#endif
