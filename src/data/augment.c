/* One view of one image: from a uint8 image and a random stream to the augmented uint8 image.
 *
 * A view is drawn as a plan (crop, flip, at most two operations) and then made: the crop from the zero-padded
 * image, the mirror, the operations one after the other between two buffers. The operations themselves are in
 * augment_geometry.c and augment_color.c, the policy in augment_policy.c.
 */
#include "mdm/data/augment.h"
#include "augment_operations.h"
#include <string.h>

enum { POLICY_FILL = 128 };

void mdm_augment_apply(mdm_augment_kind kind, double magnitude, uint8_t fill, const uint8_t *in, int height,
                       int width, int channels, uint8_t *out) {
    switch (kind) {
    case MDM_SHEAR_X:
        mdm_augment_shear(magnitude, 0.0, fill, in, height, width, channels, out);
        return;
    case MDM_SHEAR_Y:
        mdm_augment_shear(0.0, magnitude, fill, in, height, width, channels, out);
        return;
    case MDM_TRANSLATE_X:
        mdm_augment_shift((int)magnitude, 0, fill, in, height, width, channels, out);
        return;
    case MDM_TRANSLATE_Y:
        mdm_augment_shift(0, (int)magnitude, fill, in, height, width, channels, out);
        return;
    case MDM_ROTATE:
        mdm_augment_rotate(magnitude, fill, in, height, width, channels, out);
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
    mdm_augment_plan plan = {.top = pad, .left = pad, .policy = -1};
    if (view == MDM_VIEW_NONE) return plan;
    plan.top = (int)mdm_random_below(random, 2 * (uint32_t)pad + 1);
    plan.left = (int)mdm_random_below(random, 2 * (uint32_t)pad + 1);
    plan.flip = mdm_random_uniform(random) < 0.5f;
    if (view == MDM_VIEW_WEAK) return plan;
    plan.policy = (int)mdm_random_below(random, 25);
    for (int i = 0; i < 2; i++) {
        const mdm_augment_operation *operation = &mdm_augment_policy[plan.policy][i];
        int applied = mdm_random_uniform(random) < operation->probability;
        int negative = mdm_random_uniform(random) < 0.5f;
        if (!applied) continue;
        plan.operation[plan.count].kind = operation->kind;
        plan.operation[plan.count++].magnitude =
            signed_magnitude(operation->kind, operation->level, negative, height, width);
    }
    return plan;
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
