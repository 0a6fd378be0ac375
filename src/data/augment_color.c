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

static inline int clip(int value) {
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

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

/* Truncation towards zero before the clip gives what clipping before it gives. */
static inline uint8_t blend(int degenerate, int value, float factor) {
    return (uint8_t)clip((int)((float)degenerate + factor * (float)(value - degenerate)));
}

/* `out` may be `degenerate`. */
static void blend_bytes(const uint8_t *degenerate, const uint8_t *image, float factor, size_t bytes,
                        uint8_t *out) {
    for (size_t i = 0; i < bytes; i++) out[i] = blend(degenerate[i], image[i], factor);
}

static inline unsigned grey(const uint8_t *pixel) {
    return (pixel[0] * 19595u + pixel[1] * 38470u + pixel[2] * 7471u + 0x8000u) >> 16;
}

static void blend_with_constant(int constant, double factor, const uint8_t *in, int height, int width,
                                int channels, uint8_t *out) {
    uint8_t table[256];
    for (int v = 0; v < 256; v++) table[v] = blend(constant, v, (float)factor);
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
    for (int64_t i = 0; i < pixels; i++) sum += channels == 1 ? in[i] : grey(in + 3 * i);
    int mean = (int)((double)sum / (double)pixels + 0.5);
    blend_with_constant(mean, factor, in, height, width, channels, out);
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
        for (int i = 0; i < run; i++) memset(greys + 3 * i, (int)grey(in + 3 * (first + i)), 3);
        blend_bytes(greys, in + 3 * first, (float)factor, 3 * (size_t)run, out + 3 * first);
    }
}

/* The 3x3 mean with weights 1 1 1, 1 5 1, 1 1 1 of the inner columns of one row, rounded to nearest. Pillow
 * sums in single precision, but thirteenths plus one half are never within its error of a whole number, so
 * whole numbers give the same: floor((sum + 6) / 13), here as a product with 5042 / 65536, exact below
 * 6564. */
static void smooth_row(const uint8_t *above, const uint8_t *row, const uint8_t *below, int width,
                       int channels, uint8_t *out) {
    const int last = (width - 1) * channels;
    for (int i = channels; i < last; i++) {
        uint16_t sum =
            (uint16_t)(above[i - channels] + above[i] + above[i + channels] + row[i - channels] + 5 * row[i] +
                       row[i + channels] + below[i - channels] + below[i] + below[i + channels] + 6);
        out[i] = (uint8_t)((uint32_t)sum * 5042u >> 16);
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
    const uint8_t mask = (uint8_t)(0xFF00u >> bits);
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
    for (int c = 0; c < channels; c++) {
        double scale = high[c] > low[c] ? 255.0 / (high[c] - low[c]) : 1.0;
        double offset = high[c] > low[c] ? -low[c] * scale : 0.0;
        for (int v = 0; v < 256; v++) table[c][v] = (uint8_t)clip((int)(v * scale + offset));
    }
    apply_tables(table, in, height, width, channels, out);
}

/* One channel's equalising table from its histogram: the running sum in steps of (pixels - last used bin) /
 * 255. */
static void equalizing_table(const uint32_t histogram[256], uint32_t pixels, uint8_t table[256]) {
    int last = 255;
    while (last > 0 && histogram[last] == 0) last--;
    uint32_t step = (pixels - histogram[last]) / 255u; /* 0 also when only one value is used */
    if (step == 0) {
        for (int v = 0; v < 256; v++) table[v] = (uint8_t)v;
        return;
    }
    uint32_t sum = step / 2;
    for (int v = 0; v < 256; v++) {
        uint32_t value = sum / step;
        table[v] = (uint8_t)(value > 255 ? 255 : value);
        sum += histogram[v];
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
