/* What the importers share. */
#ifndef MDM_DATA_IMPORT_INTERNAL_H
#define MDM_DATA_IMPORT_INTERNAL_H

#include "mdm/data/import.h"
#include "source.h"
#include <stddef.h>

MDM_MUST_CHECK mdm_status mdm_source_import_idx(const mdm_source *source, mdm_dataset **dataset);
MDM_MUST_CHECK mdm_status mdm_source_import_cifar(const mdm_source *source, int classes,
                                                  mdm_dataset **dataset);
MDM_MUST_CHECK mdm_status mdm_source_import_cifar_python(const mdm_source *source, int classes,
                                                         mdm_dataset **dataset);

/* Which of the picture formats a source is. */
mdm_import_format mdm_pictures_recognise(const char *source);

#endif
