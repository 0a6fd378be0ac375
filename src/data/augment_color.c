/* Operations on the pixel values of a uint8 image, to the bit as Pillow computes them.
 *
 * Two families: tables (each channel's values go through 256 entries made from constants, the histogram or
 * the range) and blends out = degenerate + factor (image - degenerate) in single precision, truncated and
 * clipped. The compiler must not fuse that product and sum (contraction is off in this project).
 */
#include "augment_operations.h"
#include <string.h>

enum { CHANNELS_MOST = 3, RUN = 128 /* pixels of a blend held on the stack */ };

typedef uint8_t table_set[CHANNELS_MOST][256];

/* Channel c of every pixel through table[c]. */
static void apply_tables(table_set table, const uint8_t *in, int height, int width, int channels,
                         uint8_t *out) {
    const size_t pixels = (size_t)height * (size_t)width;
    if (channels == 1) {
        for (size_t i = 0; i < pixels; i++) out[i] = table[0][in[i]];
        return;
    }
    for (size_t i = 0; i < pixels; i++, in += 3, out += 3) {
        uint8_t red = table[0][in[0]], green = table[1][in[1]], blue = table[2][in[2]];
        out[0] = red;
        out[1] = green;
        out[2] = blue;
    }
}

/* Every byte through one table. */
static void apply_table(const uint8_t table[256], const uint8_t *in, int height, int width, int channels,
                        uint8_t *out) {
    const size_t bytes = (size_t)height * (size_t)width * (size_t)channels;
    for (size_t i = 0; i < bytes; i++) out[i] = table[in[i]];
}

/* `out` may be `degenerate`. */
static void blend_bytes(const uint8_t *degenerate, const uint8_t *image, float factor, size_t bytes,
                        uint8_t *out) {
    for (size_t i = 0; i < bytes; i++) out[i] = mdm_pixel_blend(degenerate[i], image[i], factor);
}

static void blend_with_constant(int constant, double factor, const uint8_t *in, int height, int width,
                                int channels, uint8_t *out) {
    uint8_t table[256];
    for (int v = 0; v < 256; v++) table[v] = mdm_pixel_blend(constant, v, (float)factor);
    apply_table(table, in, height, width, channels, out);
}

void mdm_augment_brightness(double factor, const uint8_t *in, int height, int width, int channels,
                            uint8_t *out) {
    blend_with_constant(0, factor, in, height, width, channels, out);
}

void mdm_augment_contrast(double factor, const uint8_t *in, int height, int width, int channels,
                          uint8_t *out) {
    const int64_t pixels = (int64_t)height * width;
    int64_t sum = 0;
    for (int64_t i = 0; i < pixels; i++) sum += channels == 1 ? in[i] : mdm_pixel_grey(in + 3 * i);
    blend_with_constant(mdm_pixel_contrast(sum, pixels), factor, in, height, width, channels, out);
}

void mdm_augment_color(double factor, const uint8_t *in, int height, int width, int channels, uint8_t *out) {
    const int64_t pixels = (int64_t)height * width;
    if (channels == 1) { /* grey already: the degenerate image is the image */
        memcpy(out, in, (size_t)pixels);
        return;
    }
    uint8_t greys[3 * RUN];
    for (int64_t first = 0; first < pixels; first += RUN) {
        int run = pixels - first < RUN ? (int)(pixels - first) : RUN;
        for (int i = 0; i < run; i++) memset(greys + 3 * i, (int)mdm_pixel_grey(in + 3 * (first + i)), 3);
        blend_bytes(greys, in + 3 * first, (float)factor, 3 * (size_t)run, out + 3 * first);
    }
}

/* The smoothed inner columns of one row. */
static void smooth_row(const uint8_t *above, const uint8_t *row, const uint8_t *below, int width,
                       int channels, uint8_t *out) {
    const int last = (width - 1) * channels;
    for (int i = channels; i < last; i++) {
        uint16_t sum =
            (uint16_t)(above[i - channels] + above[i] + above[i + channels] + row[i - channels] + 5 * row[i] +
                       row[i + channels] + below[i - channels] + below[i] + below[i + channels] + 6);
        out[i] = mdm_pixel_smooth(sum);
    }
}

void mdm_augment_sharpness(double factor, const uint8_t *in, int height, int width, int channels,
                           uint8_t *out) {
    const size_t row_bytes = (size_t)width * (size_t)channels;
    memcpy(out, in,
           (size_t)height * row_bytes); /* the border is its own degenerate, so the blend leaves it */
    if (height < 3 || width < 3) return;
    for (int y = 1; y < height - 1; y++) {
        const uint8_t *row = in + (size_t)y * row_bytes;
        uint8_t *made = out + (size_t)y * row_bytes;
        smooth_row(row - row_bytes, row, row + row_bytes, width, channels, made);
        blend_bytes(made + channels, row + channels, (float)factor, row_bytes - 2 * (size_t)channels,
                    made + channels);
    }
}

void mdm_augment_posterize(int bits, const uint8_t *in, int height, int width, int channels, uint8_t *out) {
    const uint8_t mask = mdm_augment_posterize_mask(bits);
    const size_t bytes = (size_t)height * (size_t)width * (size_t)channels;
    for (size_t i = 0; i < bytes; i++) out[i] = in[i] & mask;
}

void mdm_augment_solarize(double threshold, const uint8_t *in, int height, int width, int channels,
                          uint8_t *out) {
    uint8_t table[256];
    for (int v = 0; v < 256; v++) table[v] = (uint8_t)((double)v < threshold ? v : 255 - v);
    apply_table(table, in, height, width, channels, out);
}

void mdm_augment_invert(const uint8_t *in, int height, int width, int channels, uint8_t *out) {
    const size_t bytes = (size_t)height * (size_t)width * (size_t)channels;
    for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)(255 - in[i]);
}

/* Least and greatest value of each channel. Runs of 48 bytes hold whole pixels of 1 and of 3 channels, so the
 * inner loop has no channel in it. */
static void channel_ranges(const uint8_t *in, size_t bytes, int channels, uint8_t low[], uint8_t high[]) {
    uint8_t least[48], most[48];
    memset(least, 255, sizeof(least));
    memset(most, 0, sizeof(most));
    size_t i = 0;
    for (; i + 48 <= bytes; i += 48)
        for (int j = 0; j < 48; j++) {
            uint8_t value = in[i + (size_t)j];
            least[j] = value < least[j] ? value : least[j];
            most[j] = value > most[j] ? value : most[j];
        }
    for (int j = 0; i < bytes; i++, j++) {
        least[j] = in[i] < least[j] ? in[i] : least[j];
        most[j] = in[i] > most[j] ? in[i] : most[j];
    }
    for (int c = 0; c < channels; c++) {
        low[c] = 255;
        high[c] = 0;
        for (int j = c; j < 48; j += channels) {
            low[c] = least[j] < low[c] ? least[j] : low[c];
            high[c] = most[j] > high[c] ? most[j] : high[c];
        }
    }
}

void mdm_augment_autocontrast(const uint8_t *in, int height, int width, int channels, uint8_t *out) {
    uint8_t low[CHANNELS_MOST], high[CHANNELS_MOST];
    table_set table;
    channel_ranges(in, (size_t)height * (size_t)width * (size_t)channels, channels, low, high);
    for (int c = 0; c < channels; c++)
        for (int v = 0; v < 256; v++) table[c][v] = mdm_pixel_stretch(v, low[c], high[c]);
    apply_tables(table, in, height, width, channels, out);
}

/* One channel's equalising table from its histogram. */
static void equalizing_table(const uint32_t histogram[256], uint32_t pixels, uint8_t table[256]) {
    int last = 255;
    while (last > 0 && histogram[last] == 0) last--;
    uint32_t share = mdm_pixel_equal_share(pixels, histogram[last]), below = 0;
    for (int v = 0; v < 256; v++) {
        table[v] = share == 0 ? (uint8_t)v : mdm_pixel_equalize(below, share);
        below += histogram[v];
    }
}

void mdm_augment_equalize(const uint8_t *in, int height, int width, int channels, uint8_t *out) {
    uint32_t histogram[CHANNELS_MOST][256];
    table_set table;
    memset(histogram, 0, sizeof(histogram));
    const size_t pixels = (size_t)height * (size_t)width;
    const uint8_t *pixel = in;
    for (size_t i = 0; i < pixels; i++, pixel += channels)
        for (int c = 0; c < channels; c++) histogram[c][pixel[c]]++;
    for (int c = 0; c < channels; c++) equalizing_table(histogram[c], (uint32_t)pixels, table[c]);
    apply_tables(table, in, height, width, channels, out);
}
