/* One view of one image: from a uint8 image and a random stream to the augmented uint8 image.
 *
 * A view is drawn as a plan (crop, flip, at most two operations) and then made: the crop from the zero-padded
 * image, the mirror, the operations one after the other between two buffers. The operations themselves are in
 * augment_geometry.c and augment_color.c, the policy in augment_policy.c.
 */
#include "mdm/data/augment.h"
#include "augment_operations.h"
#include <math.h>
#include <string.h>

enum { POLICY_FILL = 128 };

void mdm_augment_apply(mdm_augment_kind kind, double magnitude, uint8_t fill, const uint8_t *in, int height,
                       int width, int channels, uint8_t *out) {
    switch (kind) {
    case MDM_SHEAR_X:
        mdm_augment_affine(mdm_augment_shear(magnitude, 0.0), fill, in, height, width, channels, out);
        return;
    case MDM_SHEAR_Y:
        mdm_augment_affine(mdm_augment_shear(0.0, magnitude), fill, in, height, width, channels, out);
        return;
    case MDM_TRANSLATE_X:
        mdm_augment_shift((int)magnitude, 0, fill, in, height, width, channels, out);
        return;
    case MDM_TRANSLATE_Y:
        mdm_augment_shift(0, (int)magnitude, fill, in, height, width, channels, out);
        return;
    case MDM_ROTATE:
        mdm_augment_affine(mdm_augment_rotation(magnitude, height, width), fill, in, height, width, channels,
                           out);
        return;
    case MDM_BRIGHTNESS:
        mdm_augment_brightness(magnitude, in, height, width, channels, out);
        return;
    case MDM_COLOR:
        mdm_augment_color(magnitude, in, height, width, channels, out);
        return;
    case MDM_CONTRAST:
        mdm_augment_contrast(magnitude, in, height, width, channels, out);
        return;
    case MDM_SHARPNESS:
        mdm_augment_sharpness(magnitude, in, height, width, channels, out);
        return;
    case MDM_POSTERIZE:
        mdm_augment_posterize((int)magnitude, in, height, width, channels, out);
        return;
    case MDM_SOLARIZE:
        mdm_augment_solarize(magnitude, in, height, width, channels, out);
        return;
    case MDM_AUTOCONTRAST:
        mdm_augment_autocontrast(in, height, width, channels, out);
        return;
    case MDM_EQUALIZE:
        mdm_augment_equalize(in, height, width, channels, out);
        return;
    case MDM_INVERT:
        mdm_augment_invert(in, height, width, channels, out);
        return;
    }
}

static double signed_magnitude(mdm_augment_kind kind, int level, int negative, int height, int width) {
    double magnitude = mdm_augment_magnitude(kind, level, height, width);
    if (!mdm_augment_is_signed(kind)) return magnitude;
    if (negative) magnitude = -magnitude;
    return kind >= MDM_BRIGHTNESS ? 1.0 + magnitude : magnitude;
}

mdm_augment_plan mdm_augment_draw(mdm_view view, mdm_random *random, int height, int width, int pad) {
    mdm_view_draw draw = mdm_draw_view(view, random, pad);
    mdm_augment_plan plan = {.top = draw.top, .left = draw.left, .flip = draw.flip, .policy = draw.policy};
    for (int i = 0; draw.policy >= 0 && i < MDM_SUB_POLICY_STEPS; i++) {
        const mdm_augment_operation *operation = &mdm_augment_policy[draw.policy][i];
        if (!(draw.chance[i] < operation->probability)) continue;
        plan.operation[plan.count].kind = operation->kind;
        plan.operation[plan.count++].magnitude =
            signed_magnitude(operation->kind, operation->level, draw.negative[i], height, width);
    }
    return plan;
}

static mdm_affine shift_of(int right, int down) {
    const int64_t pixel = 1 << 16;
    mdm_affine affine = {
        .x = pixel / 2 - right * pixel, .y = pixel / 2 - down * pixel, .column_x = pixel, .row_y = pixel};
    return affine;
}

mdm_pixel_operation mdm_augment_prepare(mdm_augment_kind kind, double magnitude, uint8_t fill, int height,
                                        int width) {
    mdm_pixel_operation o = {.kind = MDM_PIXEL_AFFINE, .factor = (float)magnitude, .fill = fill};
    switch (kind) {
    case MDM_SHEAR_X:
        o.affine = mdm_augment_shear(magnitude, 0.0);
        return o;
    case MDM_SHEAR_Y:
        o.affine = mdm_augment_shear(0.0, magnitude);
        return o;
    case MDM_TRANSLATE_X:
        o.affine = shift_of((int)magnitude, 0);
        return o;
    case MDM_TRANSLATE_Y:
        o.affine = shift_of(0, (int)magnitude);
        return o;
    case MDM_ROTATE:
        o.affine = mdm_augment_rotation(magnitude, height, width);
        return o;
    case MDM_POSTERIZE:
        o.level = mdm_augment_posterize_mask((int)magnitude);
        break;
    case MDM_SOLARIZE: /* a value is a whole number */
        o.level = (int)ceil(magnitude);
        break;
    default:
        break;
    }
    o.kind = (mdm_pixel_kind)(MDM_PIXEL_BRIGHTNESS + (kind - MDM_BRIGHTNESS)); /* in the same order */
    return o;
}

void mdm_augment_prepare_policy(int height, int width, mdm_view_policy *policy) {
    memset(policy, 0, sizeof *policy);
    for (int p = 0; p < MDM_SUB_POLICIES; p++)
        for (int i = 0; i < MDM_SUB_POLICY_STEPS; i++) {
            const mdm_augment_operation *operation = &mdm_augment_policy[p][i];
            policy->step[p][i].probability = operation->probability;
            for (int negative = 0; negative < 2; negative++)
                policy->step[p][i].operation[negative] = mdm_augment_prepare(
                    operation->kind,
                    signed_magnitude(operation->kind, operation->level, negative, height, width), POLICY_FILL,
                    height, width);
        }
}

void mdm_augment_make(const mdm_augment_plan *plan, const uint8_t *in, int height, int width, int channels,
                      int pad, uint8_t *out, uint8_t *scratch) {
    /* Buffers alternate so that the last step writes to `out`. */
    uint8_t *from = plan->count == 1 ? scratch : out, *to = plan->count == 1 ? out : scratch;
    mdm_augment_shift(pad - plan->left, pad - plan->top, 0, in, height, width, channels, from);
    if (plan->flip) mdm_augment_mirror(from, height, width, channels);
    for (int i = 0; i < plan->count; i++) {
        mdm_augment_apply(plan->operation[i].kind, plan->operation[i].magnitude, POLICY_FILL, from, height,
                          width, channels, to);
        uint8_t *made = to;
        to = from;
        from = made;
    }
}

void mdm_augment_view(mdm_view view, mdm_random *random, const uint8_t *in, int height, int width,
                      int channels, int pad, uint8_t *out, uint8_t *scratch) {
    mdm_augment_plan plan = mdm_augment_draw(view, random, height, width, pad);
    mdm_augment_make(&plan, in, height, width, channels, pad, out, scratch);
}
