/* What the importers share: a source file, gzipped or not, read whole. */
#ifndef MDM_DATA_IMPORT_INTERNAL_H
#define MDM_DATA_IMPORT_INTERNAL_H

#include "mdm/data/import.h"
#include <stddef.h>

/* Whether `folder` holds `name` or `name`.gz; the path found in `path`. */
int mdm_source_find(const char *folder, const char *name, char *path, size_t size);
/* Reads the file (gzip or plain), at most `limit` bytes; MDM_INPUT when missing, damaged or larger. The
 * caller frees. */
MDM_MUST_CHECK mdm_status mdm_source_read(const char *folder, const char *name, size_t limit,
                                          unsigned char **bytes, size_t *count);
/* Lines of a text file as class names of the data set, where it has exactly that many; otherwise none are
 * set. */
MDM_MUST_CHECK mdm_status mdm_source_class_names(const char *folder, const char *name, mdm_dataset *dataset);

/* Which of the picture formats a source is. */
mdm_import_format mdm_pictures_recognise(const char *source);

#endif
