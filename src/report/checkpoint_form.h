/* A checkpoint as a file in memory that the next one of the same parts is written over: only the first is put
 * together by the HDF5 library, which takes many times as long as the copies. */
#ifndef MDM_REPORT_CHECKPOINT_FORM_H
#define MDM_REPORT_CHECKPOINT_FORM_H

#include "mdm/report/checkpoint_file.h"
#include <stddef.h>

typedef struct checkpoint_form {
    char *content; /* user block and HDF5 file, [bytes] */
    size_t bytes;
    mdm_checkpoint_part *parts; /* what lies in it, [count]; their data is not kept */
    int64_t *offsets;           /* in content; -1: the part is empty */
    int count;
} checkpoint_form;

/* Fills the form with these parts, anew where it holds others. MDM_RESOURCE when out of memory; the form is
 * then empty. */
mdm_status checkpoint_form_fill(checkpoint_form *form, const mdm_checkpoint_part *parts, int count);
void checkpoint_form_clear(checkpoint_form *form);

#endif
