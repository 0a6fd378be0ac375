/* JPEG bytes to grey or RGB pixels through libjpeg; damage that libjpeg would paint over is refused. */
#include "picture_internal.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum { MOST_SCANS = 200 };

typedef struct errors {
    struct jpeg_error_mgr base;
    jmp_buf back;
    char text[JMSG_LENGTH_MAX];
} errors;

typedef struct job {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_progress_mgr progress;
    errors errors;
    mdm_picture *picture;
    uint8_t *row; /* CMYK only */
} job;

static void leave(j_common_ptr jpeg) {
    errors *e = (errors *)jpeg->err;
    e->base.format_message(jpeg, e->text);
    longjmp(e->back, 1);
}

/* Warnings that mean lost pixels end the decoding; harmless ones (stray bytes, odd markers) pass. */
static void weigh_message(j_common_ptr jpeg, int level) {
    int code = jpeg->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE))
        leave(jpeg);
}

/* A small progressive file can ask for scan after scan over a large picture. */
static void limit_scans(j_common_ptr jpeg) {
    errors *e = (errors *)jpeg->err;
    if (((j_decompress_ptr)jpeg)->input_scan_number <= MOST_SCANS) return;
    snprintf(e->text, sizeof e->text, "more than %d scans", (int)MOST_SCANS);
    longjmp(e->back, 1);
}

/* Four inverted inks to RGB. */
static void add_ink_row(const uint8_t *inks, int width, uint8_t *out) {
    for (int x = 0; x < width; x++) {
        int light = inks[4 * x + 3];
        for (int c = 0; c < 3; c++) {
            int product = (255 - inks[4 * x + c]) * light + 128;
            out[3 * x + c] = (uint8_t)(light - ((product + (product >> 8)) >> 8));
        }
    }
}

static int find_orientation(const struct jpeg_decompress_struct *jpeg) {
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && memcmp(m->data, "Exif\0", 6) == 0)
            return mdm_exif_orientation(m->data + 6, m->data_length - 6);
    return 1;
}

static mdm_status decode(job *j, const char *name, int64_t most_pixels, int *orientation) {
    j_decompress_ptr jpeg = &j->jpeg;
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    *orientation = find_orientation(jpeg);
    int inks = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    int grey = jpeg->jpeg_color_space == JCS_GRAYSCALE;
    jpeg->out_color_space = inks ? JCS_CMYK : grey ? JCS_GRAYSCALE : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    MDM_TRY(mdm_picture_allocate(j->picture, name, jpeg->image_height, jpeg->image_width, grey ? 1 : 3,
                                 most_pixels));
    if (inks) MDM_TRY(MDM_ALLOCATE(j->row, 4 * (int64_t)jpeg->image_width, "a row of pixels"));
    jpeg_start_decompress(jpeg);
    int64_t stride = (int64_t)j->picture->width * j->picture->channels;
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = j->picture->pixels + stride * jpeg->output_scanline;
        JSAMPROW row = inks ? j->row : to;
        jpeg_read_scanlines(jpeg, &row, 1);
        if (inks) add_ink_row(j->row, j->picture->width, to);
    }
    jpeg_finish_decompress(jpeg);
    return MDM_OK;
}

mdm_status mdm_picture_decode_jpeg(const uint8_t *bytes, size_t size, const char *name, int64_t most_pixels,
                                   mdm_picture *picture, int *orientation) {
    job *j; /* on the heap: longjmp leaves it as it is */
    MDM_TRY(MDM_ALLOCATE(j, 1, "a JPEG decoder"));
    j->picture = picture;
    j->jpeg.err = jpeg_std_error(&j->errors.base);
    j->errors.base.error_exit = leave;
    j->errors.base.emit_message = weigh_message;
    mdm_status status;
    if (setjmp(j->errors.back)) {
        status = mdm_fail(MDM_INPUT, "%s is a damaged JPEG file (%s)", name, j->errors.text);
    } else {
        jpeg_create_decompress(&j->jpeg);
        j->progress.progress_monitor = limit_scans;
        j->jpeg.progress = &j->progress;
        jpeg_mem_src(&j->jpeg, bytes, size);
        status = decode(j, name, most_pixels, orientation);
    }
    jpeg_destroy_decompress(&j->jpeg);
    free(j->row);
    free(j);
    if (status != MDM_OK) mdm_picture_free(picture);
    return status;
}
