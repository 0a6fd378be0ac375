/* From scores and clean probabilities to the split; and the area under a ROC curve, which says how well a
 * score tells. */
#include "mdm/divide/split.h"
#include <math.h>
#include <stdlib.h>

typedef struct scored_sample {
    float score;
    int64_t index;
} scored_sample;

/* Largest score first, lower index first among equals. */
static int compare_descending(const void *a, const void *b) {
    const scored_sample *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static mdm_status sort_scores(const float *score, int64_t n, scored_sample **sorted) {
    MDM_TRY(MDM_ALLOCATE(*sorted, n, "sorted scores"));
    for (int64_t i = 0; i < n; i++) (*sorted)[i] = (scored_sample){score[i], i};
    qsort(*sorted, (size_t)n, sizeof **sorted, compare_descending);
    return MDM_OK;
}

static mdm_status check_finite(const float *value, int64_t n, const char *what) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(value[i]))
            return mdm_fail(
                MDM_NUMERIC,
                "the %s of sample %lld is %g; the network has diverged, try a lower learning rate", what,
                (long long)i, (double)value[i]);
    return MDM_OK;
}

mdm_status mdm_split_samples(const float *ood_score, const float *clean_probability, int64_t n,
                             int64_t remove, double threshold, uint8_t *split, mdm_split_counts *counts) {
    if (remove < 0 || remove > n)
        return mdm_fail(
            MDM_USAGE,
            "%lld samples are to be removed of %lld; see divide.remove_first and divide.remove_step",
            (long long)remove, (long long)n);
    MDM_TRY(check_finite(ood_score, n, "out-of-distribution score"));
    MDM_TRY(check_finite(clean_probability, n, "clean probability"));
    scored_sample *sorted = NULL;
    MDM_TRY(sort_scores(ood_score, n, &sorted));
    for (int64_t i = 0; i < n; i++)
        split[i] = clean_probability[i] > threshold ? MDM_LABELLED : MDM_UNLABELLED;
    for (int64_t i = 0; i < remove; i++) split[sorted[i].index] = MDM_REMOVED;
    free(sorted);
    *counts = (mdm_split_counts){0, 0, 0};
    for (int64_t i = 0; i < n; i++) {
        counts->removed += split[i] == MDM_REMOVED;
        counts->labelled += split[i] == MDM_LABELLED;
        counts->unlabelled += split[i] == MDM_UNLABELLED;
    }
    return MDM_OK;
}

typedef struct suspect {
    float clean_probability, loss;
    int64_t index;
} suspect;

static int compare_suspicion(const void *a, const void *b) {
    const suspect *x = a, *y = b;
    if (x->clean_probability != y->clean_probability)
        return x->clean_probability > y->clean_probability ? -1 : 1;
    return (x->loss > y->loss) - (x->loss < y->loss);
}

mdm_status mdm_noise_rank(const float *clean_probability, const float *loss, int64_t n, float *rank) {
    suspect *sorted = NULL;
    MDM_TRY(check_finite(clean_probability, n, "clean probability"));
    MDM_TRY(check_finite(loss, n, "loss"));
    MDM_TRY(MDM_ALLOCATE(sorted, n, "sorted noise scores"));
    for (int64_t i = 0; i < n; i++) sorted[i] = (suspect){clean_probability[i], loss[i], i};
    qsort(sorted, (size_t)n, sizeof *sorted, compare_suspicion);
    int64_t same = 0; /* first of those that equal sample i */
    for (int64_t i = 0; i < n; i++) {
        if (compare_suspicion(&sorted[same], &sorted[i]) != 0) same = i;
        rank[sorted[i].index] = (float)same;
    }
    free(sorted);
    return MDM_OK;
}

/* The area is the share of (positive, other) pairs in the right order: from the top score down, every other
 * sample is beaten by the positive ones above it, and half by those that share its score. */
mdm_status mdm_auc(const float *score, const uint8_t *positive, int64_t n, double *auc) {
    scored_sample *sorted = NULL;
    MDM_TRY(check_finite(score, n, "score"));
    MDM_TRY(sort_scores(score, n, &sorted));
    double above = 0, others = 0, pairs = 0; /* whole and half numbers: exact up to 2^52 pairs */
    for (int64_t start = 0, end; start < n; start = end) {
        double same_positive = 0, same_other = 0;
        for (end = start; end < n && sorted[end].score == sorted[start].score; end++) {
            if (positive[sorted[end].index])
                same_positive++;
            else
                same_other++;
        }
        pairs += same_other * (above + 0.5 * same_positive);
        above += same_positive;
        others += same_other;
    }
    free(sorted);
    *auc = above > 0 && others > 0 ? pairs / (above * others) : NAN;
    return MDM_OK;
}
