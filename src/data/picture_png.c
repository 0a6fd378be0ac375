/* PNG bytes to grey or RGB pixels through libpng: palettes looked up, alpha dropped, 16 bits rounded to 8. */
#include "picture_internal.h"
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CHUNK = 64 << 20 };

typedef struct job {
    png_structp png;
    png_infop info;
    const uint8_t *bytes;
    size_t size, at;
    mdm_picture *picture;
    png_bytep *rows;
    jmp_buf back;
    char text[128];
} job;

static void leave(png_structp png, png_const_charp text) {
    job *j = png_get_error_ptr(png);
    snprintf(j->text, sizeof j->text, "%s", text);
    longjmp(j->back, 1);
}

static void pass_warning(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

static void read_bytes(png_structp png, png_bytep to, size_t count) {
    job *j = png_get_io_ptr(png);
    if (count > j->size - j->at) png_error(png, "it was cut short");
    memcpy(to, j->bytes + j->at, count);
    j->at += count;
}

static void ask_for_bytes(png_structp png, png_infop info) {
    int color = png_get_color_type(png, info);
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_strip_alpha(png);
    if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
}

static mdm_status decode(job *j, const char *name, int64_t most_pixels, int *orientation) {
    png_bytep exif;
    png_uint_32 exif_bytes;
    png_set_user_limits(j->png, MDM_PICTURE_MOST_SIDE, MDM_PICTURE_MOST_SIDE);
    png_set_chunk_malloc_max(j->png, MOST_CHUNK);
    png_set_read_fn(j->png, j, read_bytes);
    png_read_info(j->png, j->info);
    ask_for_bytes(j->png, j->info);
    png_set_interlace_handling(j->png);
    png_read_update_info(j->png, j->info);
    int channels = png_get_channels(j->png, j->info);
    int64_t height = png_get_image_height(j->png, j->info), width = png_get_image_width(j->png, j->info);
    if ((channels != 1 && channels != 3) || png_get_rowbytes(j->png, j->info) != (size_t)(width * channels))
        return mdm_fail(MDM_INPUT, "%s has %d channels, which is not supported", name, channels);
    MDM_TRY(mdm_picture_allocate(j->picture, name, height, width, channels, most_pixels));
    MDM_TRY(MDM_ALLOCATE(j->rows, height, "rows of pixels"));
    for (int64_t y = 0; y < height; y++) j->rows[y] = j->picture->pixels + y * width * channels;
    png_read_image(j->png, j->rows);
    png_read_end(j->png, j->info);
    if (png_get_eXIf_1(j->png, j->info, &exif_bytes, &exif))
        *orientation = mdm_exif_orientation(exif, exif_bytes);
    return MDM_OK;
}

mdm_status mdm_picture_decode_png(const uint8_t *bytes, size_t size, const char *name, int64_t most_pixels,
                                  mdm_picture *picture, int *orientation) {
    job *j; /* on the heap: longjmp leaves it as it is */
    MDM_TRY(MDM_ALLOCATE(j, 1, "a PNG decoder"));
    j->bytes = bytes;
    j->size = size;
    j->picture = picture;
    *orientation = 1;
    mdm_status status;
    if (setjmp(j->back)) {
        status = mdm_fail(MDM_INPUT, "%s is a damaged PNG file (%s)", name, j->text);
    } else {
        j->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, j, leave, pass_warning);
        j->info = j->png ? png_create_info_struct(j->png) : NULL;
        status = j->info ? decode(j, name, most_pixels, orientation)
                         : mdm_fail(MDM_RESOURCE, "out of memory for a PNG decoder");
    }
    png_destroy_read_struct(&j->png, &j->info, NULL);
    free(j->rows);
    free(j);
    if (status != MDM_OK) mdm_picture_free(picture);
    return status;
}
