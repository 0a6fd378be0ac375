/* Pictures of a split in their order, wherever they lie in the file. */
#ifndef MDM_DATA_PICTURES_H
#define MDM_DATA_PICTURES_H

#include "places.h"

typedef struct mdm_pictures mdm_pictures;

/* `places` must stay as long as the reader. The caller closes it. */
MDM_MUST_CHECK mdm_status mdm_pictures_open(const char *path, const mdm_places *places,
                                            mdm_pictures **pictures);
void mdm_pictures_close(mdm_pictures *pictures);
/* Reads pictures [first, first + count). */
MDM_MUST_CHECK mdm_status mdm_pictures_read(mdm_pictures *pictures, int64_t first, int64_t count,
                                            uint8_t *images);

#endif
