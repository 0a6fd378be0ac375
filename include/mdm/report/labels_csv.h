/* labels.csv: what the run thinks of every given label (CONTRACT, section 4). Rank 0 only.
 *
 * Columns index,id,given,suggested,clean_probability,ood_score,verdict. Lines end with a newline, fields with
 * commas, quotes or line breaks are quoted as in RFC 4180; numbers that are not finite are left empty.
 */
#ifndef MDM_REPORT_LABELS_CSV_H
#define MDM_REPORT_LABELS_CSV_H

#include "mdm/base/status.h"
#include <stdint.h>

typedef enum mdm_verdict { MDM_CLEAN = 0, MDM_MISLABELLED = 1, MDM_OUT_OF_DISTRIBUTION = 2 } mdm_verdict;

/* "clean", "mislabelled" or "out_of_distribution"; NULL for anything else. */
const char *mdm_verdict_name(int verdict);

typedef struct mdm_label_table {
    int64_t samples;                /* N */
    const char *const *ids;         /* [N] or NULL: the column stays empty; single ones may be NULL */
    const int32_t *given;           /* [N] */
    const int32_t *suggested;       /* [N] */
    const float *clean_probability; /* [N] mean of the networks */
    const float *ood_score;         /* [N] mean of the networks */
    const uint8_t *verdict;         /* [N] of mdm_verdict */
} mdm_label_table;

/* The class of largest probability in each row of probabilities [N,C] (ties: the lower class), into suggested
 * [N]. */
void mdm_labels_suggest(const float *probabilities, int64_t samples, int64_t classes, int32_t *suggested);

/* Mean of one or two networks' scores (b may be NULL) into mean [N]. */
void mdm_labels_mean(const float *a, const float *b, int64_t samples, float *mean);

/* Writes the whole file, so that a reader sees all of it or the old one. MDM_RESOURCE when it cannot be
 * written. */
MDM_MUST_CHECK mdm_status mdm_labels_write(const char *path, const mdm_label_table *table);

#endif
