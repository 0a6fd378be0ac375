/* One picture: from JPEG or PNG bytes to uint8 [H,W,C], and to the size of a data set.
 *
 * Decoding takes files of strangers. It does what Pillow's Image.open(...).convert("RGB" or "L") does, with
 * these rules: alpha is dropped, palettes are looked up, 16-bit values are rounded to 8, CMYK is taken as
 * Adobe writes it (inverted), and the EXIF orientation is applied. JPEG is decoded at full size with the
 * accurate integer transform; no scaled decoding, so that resizing gives the same pixels as Pillow.
 */
#ifndef MDM_DATA_PICTURE_H
#define MDM_DATA_PICTURE_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

enum { MDM_PICTURE_MOST_PIXELS = 1 << 27, MDM_PICTURE_MOST_SIDE = 16383 };

typedef struct mdm_picture {
    int height, width, channels; /* channels: 1 (the file is grey) or 3 */
    uint8_t *pixels;             /* [H,W,C], owned; mdm_picture_free() */
} mdm_picture;

/* Decodes a JPEG or PNG file of `size` bytes; `name` is for messages. MDM_INPUT when it is neither, damaged,
 * cut short, or of more than `most_pixels` pixels. Thread-safe. */
MDM_MUST_CHECK mdm_status mdm_picture_decode(const uint8_t *bytes, size_t size, const char *name,
                                             int64_t most_pixels, mdm_picture *picture);
void mdm_picture_free(mdm_picture *picture);

/* Orientation (1 to 8) of a TIFF block as EXIF holds it; 1 when absent or damaged. */
int mdm_exif_orientation(const uint8_t *bytes, size_t size);
/* Turns and mirrors as EXIF orientation 1 to 8 says. */
MDM_MUST_CHECK mdm_status mdm_picture_orient(mdm_picture *picture, int orientation);

/* Antialiased bilinear resizing [H,W,C] -> [height,width,C], the same bytes as Pillow's
 * Image.resize((width, height), BILINEAR): 22-bit fixed-point weights, rows first, each pass rounded to 8
 * bits. `out` must not overlap `in`. */
MDM_MUST_CHECK mdm_status mdm_picture_resize(const uint8_t *in, int in_height, int in_width, int channels,
                                             int height, int width, uint8_t *out);
/* Brings the picture to [height,width,channels] in `out`: scaled until it covers that size (for a square: the
 * shorter side becomes its side, the longer one is rounded down), cut out of the middle; grey is repeated to
 * colour, colour becomes grey by ITU-R 601 luma as in Pillow. A picture of that very size is only copied. */
MDM_MUST_CHECK mdm_status mdm_picture_fit(const mdm_picture *picture, int height, int width, int channels,
                                          uint8_t *out);

#endif
