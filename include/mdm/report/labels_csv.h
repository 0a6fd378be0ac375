/* labels.csv: what the run thinks of every given label (CONTRACT, section 4). Rank 0 only.
 *
 * Columns
 * index,id,given,suggested,clean_probability,ood_score,verdict,suggested_probability,mislabelled_score. Lines
 * end with a newline, fields with commas, quotes or line breaks are quoted as in RFC 4180; numbers that are
 * not finite are left empty.
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
    const float
        *suggested_probability;     /* [N] of the networks' mean prediction, or NULL: the column is empty */
    const float *mislabelled_score; /* [N] or NULL; what to sort by, see mdm_labels_mislabelled */
} mdm_label_table;

/* The class of largest probability in each row of probabilities [N,C] (ties: the lower class), into suggested
 * [N]. */
void mdm_labels_suggest(const float *probabilities, int64_t samples, int64_t classes, int32_t *suggested);

/* Mean of one or two networks' scores (b may be NULL) into mean [N]. */
void mdm_labels_mean(const float *a, const float *b, int64_t samples, float *mean);

/* Adds these samples' soft counts to transition [C,C], which begins as zeros and holds T[c][g], the share of
 * given label g among samples predicted as c, at [g * C + c] once it has seen all samples and was scaled
 * (Northcutt et al. 2021, arXiv 1911.00068, estimate it by hard counts). Samples may come block by block: the
 * sums are the same bits. */
void mdm_labels_count(const float *probabilities, const int32_t *given, int64_t samples, int64_t classes,
                      double *transition);
void mdm_labels_scale(int64_t classes, double *transition);

/* How likely each given label is right, into clean [N]: the mean of what the loss says and what the
 * prediction says. `mixture` [N] is the networks' mean clean probability by their mixtures of losses,
 * `probabilities` [N,C] their mean prediction. The prediction knows nothing of the given label, which is
 * evidence, too: with T of all samples, P(given right) = p_g T[g][g] / sum_c p_c T[c][g]. */
void mdm_labels_calibrate(const float *probabilities, const float *mixture, const int32_t *given,
                          int64_t samples, int64_t classes, const double *transition, float *clean);

/* score [N] = (1 - clean) * suggested_probability where the verdict is MDM_MISLABELLED, else 0: samples whose
 * label is surely wrong and whose suggestion is surely right come first. */
void mdm_labels_mislabelled(const float *clean, const float *suggested_probability, const uint8_t *verdict,
                            int64_t samples, float *score);

/* Writes the whole file, so that a reader sees all of it or the old one. MDM_RESOURCE when it cannot be
 * written. */
MDM_MUST_CHECK mdm_status mdm_labels_write(const char *path, const mdm_label_table *table);

#endif
