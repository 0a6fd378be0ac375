/* From samples to small PNG files: which ones a gallery shows, and their pictures. */
#include "report_run.h"

#include "mdm/data/picture.h"
#include "mdm/report/labels_csv.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

int64_t report_largest(const float *score, int64_t count, int64_t *index, int64_t most) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!(score[i] > 0) || (found == most && !(score[i] > score[index[most - 1]]))) continue;
        int64_t at = found < most ? found++ : most - 1;
        while (at > 0 && score[index[at - 1]] < score[i]) {
            index[at] = index[at - 1];
            at--;
        }
        index[at] = i;
    }
    return found;
}

void report_mislabelled_scores(const report_run *run, float *score) {
    const report_labels *l = &run->labels;
    for (int64_t i = 0; i < l->count; i++) {
        /* runs of earlier versions have no score to sort by */
        float doubt = isfinite(l->wrong[i]) ? l->wrong[i] : 1 - l->clean[i];
        score[i] = l->verdict[i] == MDM_MISLABELLED && l->given[i] != l->suggested[i] ? doubt : 0;
    }
}

void report_stranger_scores(const report_run *run, float *score) {
    const report_labels *l = &run->labels;
    for (int64_t i = 0; i < l->count; i++)
        score[i] = l->verdict[i] == MDM_OUT_OF_DISTRIBUTION ? l->ood[i] : 0;
}

typedef struct buffer {
    report_picture *picture;
    size_t room;
} buffer;

static void append(png_structp png, png_bytep bytes, size_t count) {
    buffer *b = png_get_io_ptr(png);
    if (b->picture->count + count > b->room) {
        size_t room = 2 * (b->picture->count + count);
        uint8_t *more = realloc(b->picture->bytes, room);
        if (!more) png_error(png, "out of memory");
        b->picture->bytes = more;
        b->room = room;
    }
    memcpy(b->picture->bytes + b->picture->count, bytes, count);
    b->picture->count += count;
}

static void nothing(png_structp png) {
    (void)png;
}

static int write_rows(png_structp png, png_infop info, buffer *b, const uint8_t *pixels, int channels) {
    if (setjmp(png_jmpbuf(png))) return 0;
    png_set_write_fn(png, b, append, nothing);
    png_set_compression_level(png, 9);
    png_set_IHDR(png, info, (png_uint_32)b->picture->width, (png_uint_32)b->picture->height, 8,
                 channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < b->picture->height; y++)
        png_write_row(png, pixels + (size_t)y * (size_t)b->picture->width * (size_t)channels);
    png_write_end(png, info);
    return 1;
}

static mdm_status write_png(const uint8_t *pixels, int height, int width, int channels,
                            report_picture *picture) {
    *picture = (report_picture){.width = width, .height = height};
    buffer b = {picture, 0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    int done = info && write_rows(png, info, &b, pixels, channels);
    png_destroy_write_struct(&png, &info);
    if (done) return MDM_OK;
    free(picture->bytes);
    picture->bytes = NULL;
    return mdm_fail(MDM_RESOURCE, "out of memory for a PNG picture");
}

mdm_status report_picture_make(const report_run *run, int64_t sample, int side, report_picture *picture) {
    const mdm_store_info *info = mdm_store_get_info(run->store);
    const uint8_t *pixels;
    uint8_t *small = NULL;
    int longer = info->height > info->width ? info->height : info->width;
    memset(picture, 0, sizeof *picture);
    MDM_TRY(mdm_store_fetch(run->store, MDM_TRAIN, &sample, 1, &pixels));
    if (longer <= side) return write_png(pixels, info->height, info->width, info->channels, picture);
    int height = info->height * side / longer, width = info->width * side / longer;
    if (height < 1) height = 1;
    if (width < 1) width = 1;
    MDM_TRY(MDM_ALLOCATE(small, (int64_t)height * width * info->channels, "a small picture"));
    mdm_status status =
        mdm_picture_resize(pixels, info->height, info->width, info->channels, height, width, small);
    if (status == MDM_OK) status = write_png(small, height, width, info->channels, picture);
    free(small);
    return status;
}
