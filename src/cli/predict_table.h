/* What predict writes: a table for people, CSV, or JSON lines, a row a picture. */
#ifndef MDM_CLI_PREDICT_TABLE_H
#define MDM_CLI_PREDICT_TABLE_H

#include "mdm/base/text.h"
#include "mdm/train/predictor.h"

enum { PREDICT_NAME = 4352 }; /* bytes of a picture's name: a path and a number */

typedef enum mdm_predict_form { MDM_PREDICT_TABLE, MDM_PREDICT_CSV, MDM_PREDICT_JSON } mdm_predict_form;

void mdm_predict_head(mdm_text *text, mdm_predict_form form);
/* probability [classes]; ood as mdm_predictor_run gives it. */
void mdm_predict_row(mdm_text *text, mdm_predict_form form, const mdm_model_notes *notes, const char *name,
                     const float *probability, float ood);

#endif
