/* From logits, targets and projections to loss values and gradients, one loss after the other.
 *
 * The losses of probabilities share one step: with p = softmax(z) and g = dL/dp, dL/dz_j = p_j (g_j - sum_c
 * p_c g_c). Each gives g as a function of class and probability, and add_through_softmax does the rest. */
#include "mdm/device/losses_host.h"
#include "device.h"
#include "mdm/device/formulas.h"
#include <float.h>
#include <math.h>

static inline float weight_of(const float *sample_weight, int64_t row) {
    return sample_weight ? sample_weight[row] : 1.0f;
}

/* What softmax needs of a row: its greatest logit and the sum of exp(z - greatest). */
typedef struct row_sum {
    float greatest, sum;
} row_sum;

static row_sum sum_row(const float *logits, int classes) {
    row_sum row = {logits[0], 0.0f};
    for (int c = 1; c < classes; c++) row.greatest = logits[c] > row.greatest ? logits[c] : row.greatest;
    for (int c = 0; c < classes; c++) row.sum += expf(logits[c] - row.greatest);
    return row;
}

static inline float probability_of(row_sum row, float logit) {
    return expf(logit - row.greatest) / row.sum;
}

/* ---- probabilities ---- */

void mdm_softmax(const float *logits, int64_t rows, int classes, float *probability) {
    for (int64_t i = 0; i < rows; i++, logits += classes, probability += classes) {
        row_sum row = sum_row(logits, classes);
        for (int c = 0; c < classes; c++) probability[c] = probability_of(row, logits[c]);
    }
}

void mdm_sharpen(const float *probability, int64_t rows, int classes, float temperature, float *sharpened) {
    const float power = 1.0f / temperature;
    for (int64_t i = 0; i < rows; i++, probability += classes, sharpened += classes) {
        float most = FLT_MIN, sum = 0.0f; /* by the greatest first: small temperatures must not underflow */
        for (int c = 0; c < classes; c++) most = probability[c] > most ? probability[c] : most;
        for (int c = 0; c < classes; c++) sum += sharpened[c] = powf(probability[c] / most, power);
        for (int c = 0; c < classes; c++) sharpened[c] /= sum;
    }
}

/* What a loss's slope dL/dp of one row depends on; each loss uses its own part. */
typedef struct slope_of_row {
    const float *target; /* soft targets of the row, or NULL */
    int label, classes;
    float factor;
} slope_of_row;

typedef float (*slope_function)(const slope_of_row *row, int class, float probability);

/* gradient += the slope taken through the softmax. Inlined with a constant `slope`. */
static inline __attribute__((always_inline)) void add_through_softmax(const float *logits, row_sum sum,
                                                                      slope_function slope,
                                                                      const slope_of_row *row,
                                                                      float *gradient) {
    float mean_slope = 0.0f;
    for (int c = 0; c < row->classes; c++) {
        float p = probability_of(sum, logits[c]);
        mean_slope += p * slope(row, c, p);
    }
    for (int c = 0; c < row->classes; c++) {
        float p = probability_of(sum, logits[c]);
        gradient[c] += p * (slope(row, c, p) - mean_slope);
    }
}

/* ---- cross entropy and symmetric cross entropy ---- */

void mdm_sce_hard_forward(const float *logits, const int32_t *label, int64_t rows, int classes,
                          float ce_weight, float rce_weight, float *loss) {
    const float log_floor = logf(MDM_TARGET_FLOOR);
    for (int64_t i = 0; i < rows; i++, logits += classes) {
        row_sum row = sum_row(logits, classes);
        float cross_entropy = logf(row.sum) - (logits[label[i]] - row.greatest), others = 0.0f;
        for (int c = 0; c < classes; c++)
            if (c != label[i]) others += mdm_clamped_probability(probability_of(row, logits[c]));
        loss[i] = ce_weight * cross_entropy - rce_weight * others * log_floor;
    }
}

void mdm_sce_soft_forward(const float *logits, const float *target, int64_t rows, int classes,
                          float ce_weight, float rce_weight, float *loss) {
    for (int64_t i = 0; i < rows; i++, logits += classes, target += classes) {
        row_sum row = sum_row(logits, classes);
        float log_of_sum = logf(row.sum), cross_entropy = 0.0f, reverse = 0.0f;
        for (int c = 0; c < classes; c++) {
            cross_entropy += target[c] * (log_of_sum - (logits[c] - row.greatest));
            reverse -= mdm_clamped_probability(probability_of(row, logits[c])) * mdm_log_target(target[c]);
        }
        loss[i] = ce_weight * cross_entropy + rce_weight * reverse;
    }
}

static float reverse_slope_hard(const slope_of_row *row, int class, float probability) {
    return class == row->label || probability < MDM_PROBABILITY_FLOOR ? 0.0f : row->factor;
}

static float reverse_slope_soft(const slope_of_row *row, int class, float probability) {
    return probability < MDM_PROBABILITY_FLOOR ? 0.0f : row->factor * mdm_log_target(row->target[class]);
}

void mdm_sce_hard_backward(const float *logits, const int32_t *label, const float *sample_weight,
                           int64_t rows, int classes, float ce_weight, float rce_weight, float scale,
                           float *gradient) {
    const float log_floor = logf(MDM_TARGET_FLOOR);
    for (int64_t i = 0; i < rows; i++, logits += classes, gradient += classes) {
        const float weight = scale * weight_of(sample_weight, i);
        if (weight == 0.0f) continue;
        row_sum sum = sum_row(logits, classes);
        for (int c = 0; c < classes; c++) gradient[c] += weight * ce_weight * probability_of(sum, logits[c]);
        gradient[label[i]] -= weight * ce_weight;
        slope_of_row row = {
            .label = label[i], .classes = classes, .factor = -weight * rce_weight * log_floor};
        if (rce_weight != 0.0f) add_through_softmax(logits, sum, reverse_slope_hard, &row, gradient);
    }
}

void mdm_sce_soft_backward(const float *logits, const float *target, const float *sample_weight, int64_t rows,
                           int classes, float ce_weight, float rce_weight, float scale, float *gradient) {
    for (int64_t i = 0; i < rows; i++, logits += classes, target += classes, gradient += classes) {
        const float weight = scale * weight_of(sample_weight, i);
        if (weight == 0.0f) continue;
        row_sum sum = sum_row(logits, classes);
        float total = 0.0f; /* targets need not sum to one exactly */
        for (int c = 0; c < classes; c++) total += target[c];
        for (int c = 0; c < classes; c++)
            gradient[c] += weight * ce_weight * (total * probability_of(sum, logits[c]) - target[c]);
        slope_of_row row = {.target = target, .classes = classes, .factor = -weight * rce_weight};
        if (rce_weight != 0.0f) add_through_softmax(logits, sum, reverse_slope_soft, &row, gradient);
    }
}

/* ---- consistency ---- */

double mdm_consistency_forward(const float *logits, const float *target, const float *mask, int64_t rows,
                               int classes) {
    double sum = 0.0;
    for (int64_t i = 0; i < rows; i++, logits += classes, target += classes) {
        const float weight = weight_of(mask, i);
        if (weight == 0.0f) continue;
        row_sum row = sum_row(logits, classes);
        float squares = 0.0f;
        for (int c = 0; c < classes; c++) {
            float off = probability_of(row, logits[c]) - target[c];
            squares += off * off;
        }
        sum += (double)weight * (double)squares / classes;
    }
    return sum;
}

static float consistency_slope(const slope_of_row *row, int class, float probability) {
    return row->factor * (probability - row->target[class]);
}

void mdm_consistency_backward(const float *logits, const float *target, const float *mask, int64_t rows,
                              int classes, float scale, float *gradient) {
    for (int64_t i = 0; i < rows; i++, logits += classes, target += classes, gradient += classes) {
        const float weight = weight_of(mask, i);
        if (weight == 0.0f) continue;
        slope_of_row row = {
            .target = target, .classes = classes, .factor = 2.0f * scale * weight / (float)classes};
        add_through_softmax(logits, sum_row(logits, classes), consistency_slope, &row, gradient);
    }
}

/* ---- balance ---- */

double mdm_balance_value(const double *sum, double total, int classes) {
    double value = 0.0;
    for (int c = 0; c < classes; c++) value += log(1.0 / classes) - log(mdm_balance_mean(sum[c] / total));
    return value / classes;
}

/* ---- contrast ---- */

static float dot(const float *a, const float *b, int width) {
    float sum = 0.0f;
    for (int j = 0; j < width; j++) sum += a[j] * b[j];
    return sum;
}

void mdm_normalize_forward(const float *row, int64_t rows, int width, float *unit, float *norm) {
    for (int64_t i = 0; i < rows; i++, row += width, unit += width) {
        norm[i] = sqrtf(dot(row, row, width));
        float divisor = norm[i] > MDM_NORM_FLOOR ? norm[i] : MDM_NORM_FLOOR;
        for (int j = 0; j < width; j++) unit[j] = row[j] / divisor;
    }
}

void mdm_normalize_backward(const float *unit, const float *norm, const float *gradient, int64_t rows,
                            int width, float *out) {
    for (int64_t i = 0; i < rows; i++, unit += width, gradient += width, out += width) {
        const int floored = !(norm[i] > MDM_NORM_FLOOR); /* the divisor is a constant there */
        const float along = floored ? 0.0f : dot(unit, gradient, width),
                    divisor = floored ? MDM_NORM_FLOOR : norm[i];
        for (int j = 0; j < width; j++) out[j] = (gradient[j] - unit[j] * along) / divisor;
    }
}

float mdm_contrast_row(float *similarity, int64_t all, int64_t self, int64_t positive) {
    float most = similarity[positive], sum = 0.0f, at_positive = similarity[positive];
    similarity[self] = -INFINITY;
    for (int64_t j = 0; j < all; j++) most = similarity[j] > most ? similarity[j] : most;
    for (int64_t j = 0; j < all; j++) sum += similarity[j] = expf(similarity[j] - most);
    const float inverse = 1.0f / sum;
    for (int64_t j = 0; j < all; j++) similarity[j] *= inverse;
    similarity[positive] -= 1.0f;
    return logf(sum) - (at_positive - most);
}
