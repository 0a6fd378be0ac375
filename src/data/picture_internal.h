/* What the two decoders share. */
#ifndef MDM_DATA_PICTURE_INTERNAL_H
#define MDM_DATA_PICTURE_INTERNAL_H

#include "mdm/data/picture.h"

/* Memory for a picture of that size, after the limits were checked: MDM_INPUT beyond them. */
MDM_MUST_CHECK mdm_status mdm_picture_allocate(mdm_picture *picture, const char *name, int64_t height,
                                               int64_t width, int channels, int64_t most_pixels);
/* Each decodes one format and tells the EXIF orientation. On failure nothing stays allocated. */
MDM_MUST_CHECK mdm_status mdm_picture_decode_jpeg(const uint8_t *bytes, size_t size, const char *name,
                                                  int64_t most_pixels, mdm_picture *picture,
                                                  int *orientation);
MDM_MUST_CHECK mdm_status mdm_picture_decode_png(const uint8_t *bytes, size_t size, const char *name,
                                                 int64_t most_pixels, mdm_picture *picture, int *orientation);

#endif
