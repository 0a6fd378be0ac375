/* The operations behind mdm_augment_apply, by family. Images are uint8 [H,W,C], C = 1 or 3; `in` and `out` do
 * not overlap. */
#ifndef MDM_DATA_AUGMENT_OPERATIONS_H
#define MDM_DATA_AUGMENT_OPERATIONS_H

#include "mdm/base/pixels.h"
#include <stdint.h>

/* Geometry: what lies outside the image becomes `fill`. Shears are tangents, angles in degrees. */
mdm_affine mdm_augment_shear(double shear_x, double shear_y);
mdm_affine mdm_augment_rotation(double degrees, int height, int width);
void mdm_augment_affine(mdm_affine affine, uint8_t fill, const uint8_t *in, int height, int width,
                        int channels, uint8_t *out);
/* The affine map of whole pixels does the same, slower. */
void mdm_augment_shift(int right, int down, uint8_t fill, const uint8_t *in, int height, int width,
                       int channels, uint8_t *out);
void mdm_augment_mirror(uint8_t *image, int height, int width, int channels);

/* Colour: enhancements blend the image with a degenerate one by a factor (1 leaves the image). */
void mdm_augment_brightness(double factor, const uint8_t *in, int height, int width, int channels,
                            uint8_t *out);
void mdm_augment_color(double factor, const uint8_t *in, int height, int width, int channels, uint8_t *out);
void mdm_augment_contrast(double factor, const uint8_t *in, int height, int width, int channels,
                          uint8_t *out);
void mdm_augment_sharpness(double factor, const uint8_t *in, int height, int width, int channels,
                           uint8_t *out);
/* The bits that stay. */
static inline uint8_t mdm_augment_posterize_mask(int bits) {
    return (uint8_t)(0xFF00u >> bits);
}
void mdm_augment_posterize(int bits, const uint8_t *in, int height, int width, int channels, uint8_t *out);
void mdm_augment_solarize(double threshold, const uint8_t *in, int height, int width, int channels,
                          uint8_t *out);
void mdm_augment_autocontrast(const uint8_t *in, int height, int width, int channels, uint8_t *out);
void mdm_augment_equalize(const uint8_t *in, int height, int width, int channels, uint8_t *out);
void mdm_augment_invert(const uint8_t *in, int height, int width, int channels, uint8_t *out);

#endif
