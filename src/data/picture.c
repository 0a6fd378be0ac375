/* One picture from a file's bytes: which format, the right way up, and brought to a data set's size. */
#include "picture_internal.h"
#include <stdlib.h>
#include <string.h>

void mdm_picture_free(mdm_picture *p) {
    free(p->pixels);
    memset(p, 0, sizeof *p);
}

mdm_status mdm_picture_allocate(mdm_picture *p, const char *name, int64_t height, int64_t width, int channels,
                                int64_t most_pixels) {
    if (height < 1 || width < 1 || height > MDM_PICTURE_MOST_SIDE || width > MDM_PICTURE_MOST_SIDE ||
        height * width > most_pixels)
        return mdm_fail(MDM_INPUT, "%s has %lldx%lld pixels; at most %d a side and %lld in all are read",
                        name, (long long)height, (long long)width, (int)MDM_PICTURE_MOST_SIDE,
                        (long long)most_pixels);
    p->height = (int)height;
    p->width = (int)width;
    p->channels = channels;
    return MDM_ALLOCATE(p->pixels, height * width * channels, "a picture");
}

static unsigned number(const uint8_t *b, int bytes, int big) {
    unsigned value = 0;
    for (int i = 0; i < bytes; i++) value |= (unsigned)b[big ? bytes - 1 - i : i] << (8 * i);
    return value;
}

int mdm_exif_orientation(const uint8_t *b, size_t size) {
    enum { ORIENTATION = 0x0112, SHORT = 3, ENTRY = 12 };
    if (size < 8 || (memcmp(b, "II*\0", 4) != 0 && memcmp(b, "MM\0*", 4) != 0)) return 1;
    int big = b[0] == 'M';
    size_t at = number(b + 4, 4, big);
    if (at > size - 2) return 1;
    unsigned entries = number(b + at, 2, big);
    for (at += 2; entries > 0 && size - at >= ENTRY; entries--, at += ENTRY) {
        if (number(b + at, 2, big) != ORIENTATION) continue;
        unsigned value = number(b + at + 8, 2, big);
        int good = number(b + at + 2, 2, big) == SHORT && value >= 1 && value <= 8;
        return good ? (int)value : 1;
    }
    return 1;
}

mdm_status mdm_picture_orient(mdm_picture *p, int orientation) {
    if (orientation < 2 || orientation > 8) return MDM_OK;
    int swap = orientation >= 5, height = swap ? p->width : p->height, width = swap ? p->height : p->width;
    int from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    int from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    uint8_t *turned;
    MDM_TRY(MDM_ALLOCATE(turned, (int64_t)height * width * p->channels, "a turned picture"));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            int row = swap ? x : y, column = swap ? y : x;
            if (from_below) row = p->height - 1 - row;
            if (from_right) column = p->width - 1 - column;
            memcpy(turned + ((int64_t)y * width + x) * p->channels,
                   p->pixels + ((int64_t)row * p->width + column) * p->channels, (size_t)p->channels);
        }
    free(p->pixels);
    p->pixels = turned;
    p->height = height;
    p->width = width;
    return MDM_OK;
}

mdm_status mdm_picture_decode(const uint8_t *bytes, size_t size, const char *name, int64_t most_pixels,
                              mdm_picture *p) {
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    int orientation = 1;
    memset(p, 0, sizeof *p);
    if (size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff)
        MDM_TRY(mdm_picture_decode_jpeg(bytes, size, name, most_pixels, p, &orientation));
    else if (size >= sizeof png && memcmp(bytes, png, sizeof png) == 0)
        MDM_TRY(mdm_picture_decode_png(bytes, size, name, most_pixels, p, &orientation));
    else
        return mdm_fail(MDM_INPUT, "%s is neither JPEG nor PNG", name);
    mdm_status status = mdm_picture_orient(p, orientation);
    if (status != MDM_OK) mdm_picture_free(p);
    return status;
}

/* One pixel of `from` channels written with `to` channels. */
static void convert(const uint8_t *in, int from, int to, uint8_t *out) {
    if (from == to)
        memcpy(out, in, (size_t)to);
    else if (to == 3)
        out[0] = out[1] = out[2] = in[0];
    else
        out[0] = (uint8_t)((in[0] * 19595 + in[1] * 38470 + in[2] * 7471 + 0x8000) >> 16);
}

/* The size that covers height x width with the picture's proportions. */
static void cover(const mdm_picture *p, int height, int width, int *scaled_height, int *scaled_width) {
    if ((int64_t)p->width * height <= (int64_t)p->height * width) { /* the width decides */
        *scaled_width = width;
        *scaled_height = (int)((int64_t)p->height * width / p->width);
    } else {
        *scaled_height = height;
        *scaled_width = (int)((int64_t)p->width * height / p->height);
    }
}

mdm_status mdm_picture_fit(const mdm_picture *p, int height, int width, int channels, uint8_t *out) {
    int scaled_height, scaled_width;
    uint8_t *scaled = NULL;
    cover(p, height, width, &scaled_height, &scaled_width);
    /* a strip of extreme proportions would grow without bound */
    if ((int64_t)scaled_height * scaled_width > MDM_PICTURE_MOST_PIXELS)
        return mdm_fail(MDM_INPUT, "a picture of %dx%d cannot be scaled to cover %dx%d", p->height, p->width,
                        height, width);
    const uint8_t *from = p->pixels;
    if (scaled_height != p->height || scaled_width != p->width) {
        MDM_TRY(
            MDM_ALLOCATE(scaled, (int64_t)scaled_height * scaled_width * p->channels, "a scaled picture"));
        mdm_status status = mdm_picture_resize(p->pixels, p->height, p->width, p->channels, scaled_height,
                                               scaled_width, scaled);
        if (status != MDM_OK) {
            free(scaled);
            return status;
        }
        from = scaled;
    }
    int top = (scaled_height - height) / 2, left = (scaled_width - width) / 2;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            convert(from + (((int64_t)y + top) * scaled_width + left + x) * p->channels, p->channels,
                    channels, out + ((int64_t)y * width + x) * channels);
    free(scaled);
    return MDM_OK;
}
