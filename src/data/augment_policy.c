/* AutoAugment's CIFAR-10 policy as a table, and what its levels mean.
 *
 * Cubuk et al. 2019 (arXiv 1805.09501), table 7; levels become magnitudes as in torchvision 0.14: ten evenly
 * spaced single precision numbers per operation, counted from the nearer end.
 */
#include "mdm/data/augment.h"
#include <math.h>

/* Operations without a magnitude have level 0. */
const mdm_augment_operation mdm_augment_policy[25][2] = {
    {{MDM_INVERT, 0.1f, 0}, {MDM_CONTRAST, 0.2f, 6}},
    {{MDM_ROTATE, 0.7f, 2}, {MDM_TRANSLATE_X, 0.3f, 9}},
    {{MDM_SHARPNESS, 0.8f, 1}, {MDM_SHARPNESS, 0.9f, 3}},
    {{MDM_SHEAR_Y, 0.5f, 8}, {MDM_TRANSLATE_Y, 0.7f, 9}},
    {{MDM_AUTOCONTRAST, 0.5f, 0}, {MDM_EQUALIZE, 0.9f, 0}},
    {{MDM_SHEAR_Y, 0.2f, 7}, {MDM_POSTERIZE, 0.3f, 7}},
    {{MDM_COLOR, 0.4f, 3}, {MDM_BRIGHTNESS, 0.6f, 7}},
    {{MDM_SHARPNESS, 0.3f, 9}, {MDM_BRIGHTNESS, 0.7f, 9}},
    {{MDM_EQUALIZE, 0.6f, 0}, {MDM_EQUALIZE, 0.5f, 0}},
    {{MDM_CONTRAST, 0.6f, 7}, {MDM_SHARPNESS, 0.6f, 5}},
    {{MDM_COLOR, 0.7f, 7}, {MDM_TRANSLATE_X, 0.5f, 8}},
    {{MDM_EQUALIZE, 0.3f, 0}, {MDM_AUTOCONTRAST, 0.4f, 0}},
    {{MDM_TRANSLATE_Y, 0.4f, 3}, {MDM_SHARPNESS, 0.2f, 6}},
    {{MDM_BRIGHTNESS, 0.9f, 6}, {MDM_COLOR, 0.2f, 8}},
    {{MDM_SOLARIZE, 0.5f, 2}, {MDM_INVERT, 0.0f, 0}},
    {{MDM_EQUALIZE, 0.2f, 0}, {MDM_AUTOCONTRAST, 0.6f, 0}},
    {{MDM_EQUALIZE, 0.2f, 0}, {MDM_EQUALIZE, 0.6f, 0}},
    {{MDM_COLOR, 0.9f, 9}, {MDM_EQUALIZE, 0.6f, 0}},
    {{MDM_AUTOCONTRAST, 0.8f, 0}, {MDM_SOLARIZE, 0.2f, 8}},
    {{MDM_BRIGHTNESS, 0.1f, 3}, {MDM_COLOR, 0.7f, 0}},
    {{MDM_SOLARIZE, 0.4f, 5}, {MDM_AUTOCONTRAST, 0.9f, 0}},
    {{MDM_TRANSLATE_Y, 0.9f, 9}, {MDM_TRANSLATE_Y, 0.7f, 9}},
    {{MDM_AUTOCONTRAST, 0.9f, 0}, {MDM_SOLARIZE, 0.8f, 3}},
    {{MDM_EQUALIZE, 0.8f, 0}, {MDM_INVERT, 0.1f, 0}},
    {{MDM_TRANSLATE_Y, 0.7f, 9}, {MDM_AUTOCONTRAST, 0.9f, 0}},
};

/* Entry `level` of ten evenly spaced single precision numbers from `start` to `end`. */
static float spaced(float start, float end, int level) {
    float step = (end - start) / 9.0f;
    return level < 5 ? start + step * (float)level : end - step * (float)(9 - level);
}

double mdm_augment_magnitude(mdm_augment_kind kind, int level, int height, int width) {
    switch (kind) {
    case MDM_SHEAR_X:
    case MDM_SHEAR_Y:
        return spaced(0.0f, 0.3f, level);
    case MDM_TRANSLATE_X:
        return trunc((double)spaced(0.0f, (float)(150.0 / 331.0 * width), level));
    case MDM_TRANSLATE_Y:
        return trunc((double)spaced(0.0f, (float)(150.0 / 331.0 * height), level));
    case MDM_ROTATE:
        return spaced(0.0f, 30.0f, level);
    case MDM_BRIGHTNESS:
    case MDM_COLOR:
    case MDM_CONTRAST:
    case MDM_SHARPNESS:
        return spaced(0.0f, 0.9f, level);
    case MDM_POSTERIZE:
        return 8 - (8 * level + 9) / 18; /* 8 minus 4 level / 9 to nearest */
    case MDM_SOLARIZE:
        return spaced(255.0f, 0.0f, level);
    case MDM_AUTOCONTRAST:
    case MDM_EQUALIZE:
    case MDM_INVERT:
        break;
    }
    return 0.0;
}

int mdm_augment_is_signed(mdm_augment_kind kind) {
    return kind <= MDM_SHARPNESS;
}
