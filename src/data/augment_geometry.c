/* Shear, translation, rotation and mirror of a uint8 image, nearest sampling, to the bit as Pillow computes
 * them.
 *
 * An output pixel (x, y) reads the source at the affine image of its centre. Pillow rounds the six
 * coefficients to 16.16 fixed point and steps by integer addition; torchvision fixes how they follow from an
 * angle. Both are repeated here operation by operation, because one different rounding moves whole pixels.
 */
#include "augment_operations.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t fixed_point(double value) {
    return (int64_t)floor(value * 65536.0 + 0.5);
}

static inline void copy_pixel(uint8_t *out, const uint8_t *in, int channels) {
    out[0] = in[0];
    if (channels == 3) {
        out[1] = in[1];
        out[2] = in[2];
    }
}

/* a: source x = a0 x + a1 y + a2, source y = a3 x + a4 y + a5. */
static mdm_affine affine_of(const double a[6]) {
    mdm_affine affine = {.x = fixed_point(a[2] + a[0] * 0.5 + a[1] * 0.5),
                         .y = fixed_point(a[5] + a[3] * 0.5 + a[4] * 0.5),
                         .column_x = fixed_point(a[0]),
                         .column_y = fixed_point(a[3]),
                         .row_x = fixed_point(a[1]),
                         .row_y = fixed_point(a[4])};
    return affine;
}

/* `channels` is a constant at both calls below, so each becomes its own loop. */
static inline void affine_rows(const mdm_affine *a, const uint8_t *in, int height, int width, int channels,
                               uint8_t *out) {
    const int64_t column_x = a->column_x, column_y = a->column_y;
    int64_t row_x = a->x, row_y = a->y;
    for (int y = 0; y < height; y++) {
        int64_t source_x = row_x, source_y = row_y;
        for (int x = 0; x < width; x++, out += channels) {
            int64_t column = source_x >> 16, row = source_y >> 16;
            if (column >= 0 && column < width && row >= 0 && row < height)
                copy_pixel(out, in + (row * width + column) * channels, channels);
            source_x += column_x;
            source_y += column_y;
        }
        row_x += a->row_x;
        row_y += a->row_y;
    }
}

void mdm_augment_affine(mdm_affine a, uint8_t fill, const uint8_t *in, int height, int width, int channels,
                        uint8_t *out) {
    memset(out, fill, (size_t)height * (size_t)width * (size_t)channels);
    if (channels == 3)
        affine_rows(&a, in, height, width, 3, out);
    else
        affine_rows(&a, in, height, width, 1, out);
}

/* Degrees and back: torchvision's round trip, kept for its roundings. */
static double shear_angle(double tangent) {
    const double pi = 3.141592653589793;
    return (atan(tangent) * (180.0 / pi)) * (pi / 180.0);
}

mdm_affine mdm_augment_shear(double shear_x, double shear_y) {
    double angle_x = shear_angle(shear_x), angle_y = shear_angle(shear_y);
    double a = cos(-angle_y) / cos(angle_y), b = -cos(-angle_y) * tan(angle_x) / cos(angle_y);
    double c = sin(-angle_y) / cos(angle_y), d = -sin(-angle_y) * tan(angle_x) / cos(angle_y) + 1.0;
    const double matrix[6] = {d, -b, 0.0, -c, a, 0.0};
    return affine_of(matrix);
}

/* To 15 decimals as Pillow's Python does, which is correctly rounded decimal arithmetic; a product with 1e15
 * is not. */
static double rounded(double value) {
    char text[32];
    snprintf(text, sizeof(text), "%.15f", value);
    return strtod(text, NULL);
}

mdm_affine mdm_augment_rotation(double degrees, int height, int width) {
    double turn = fmod(degrees, 360.0);
    if (turn < 0.0) turn += 360.0;
    double angle = -(turn * (3.141592653589793 / 180.0));
    double cosine = rounded(cos(angle)), sine = rounded(sin(angle));
    double centre_x = width / 2.0, centre_y = height / 2.0;
    const double matrix[6] = {cosine, sine,   (cosine * -centre_x + sine * -centre_y) + centre_x,
                              -sine,  cosine, (-sine * -centre_x + cosine * -centre_y) + centre_y};
    return affine_of(matrix);
}

void mdm_augment_shift(int right, int down, uint8_t fill, const uint8_t *in, int height, int width,
                       int channels, uint8_t *out) {
    const size_t row_bytes = (size_t)width * (size_t)channels;
    if (right <= -width || right >= width || down <= -height || down >= height) {
        memset(out, fill, (size_t)height * row_bytes);
        return;
    }
    const size_t gap = (size_t)(right < 0 ? -right : right) * (size_t)channels, kept = row_bytes - gap;
    for (int y = 0; y < height; y++, out += row_bytes) {
        int source = y - down;
        if (source < 0 || source >= height) {
            memset(out, fill, row_bytes);
            continue;
        }
        const uint8_t *row = in + (size_t)source * row_bytes;
        if (right >= 0) {
            memset(out, fill, gap);
            memcpy(out + gap, row, kept);
        } else {
            memcpy(out, row + gap, kept);
            memset(out + kept, fill, gap);
        }
    }
}

void mdm_augment_mirror(uint8_t *image, int height, int width, int channels) {
    for (int y = 0; y < height; y++) {
        uint8_t *left = image + (size_t)y * (size_t)width * (size_t)channels,
                *right = left + (size_t)(width - 1) * channels;
        for (; left < right; left += channels, right -= channels)
            for (int c = 0; c < channels; c++) {
                uint8_t kept = left[c];
                left[c] = right[c];
                right[c] = kept;
            }
    }
}
