/* Losses by their definitions in double, to compare devices with: test_losses_host.c checks them against the
 * reference's numbers and finite differences. Gradients are added to. */
#ifndef MDM_TESTS_LOSS_ORACLE_H
#define MDM_TESTS_LOSS_ORACLE_H

#include "mdm/device/formulas.h"
#include "mdm/device/losses_host.h"
#include <math.h>
#include <stdlib.h>

/* The sum of weight[i] * loss[i] (weights NULL: ones); rows of weight 0 are not looked at. */
static inline double oracle_sum(const float *loss, const float *weight, int64_t rows) {
    double sum = 0;
    for (int64_t i = 0; i < rows; i++)
        if (!weight || weight[i] != 0.0f) sum += (weight ? (double)weight[i] : 1.0) * (double)loss[i];
    return sum;
}

/* Adds the softmax of every row to sum [classes]. */
static inline void oracle_balance_sum(const float *logits, int64_t rows, int classes, double *sum) {
    float *p = calloc((size_t)classes, sizeof *p);
    for (int64_t i = 0; i < rows; i++) {
        mdm_softmax(logits + i * classes, 1, classes, p);
        for (int c = 0; c < classes; c++) sum[c] += (double)p[c];
    }
    free(p);
}

/* Gradient of KL(uniform || mean prediction), `mean` [classes] that of the global batch, of whose rows each
 * counts `scale`. */
static inline void oracle_balance_backward(const float *logits, const double *mean, int64_t rows, int classes,
                                           double scale, float *gradient) {
    float *p = calloc((size_t)classes, sizeof *p);
    for (int64_t i = 0; i < rows; i++, logits += classes, gradient += classes) {
        double along = 0;
        mdm_softmax(logits, 1, classes, p);
        for (int c = 0; c < classes; c++)
            along += (double)p[c] * -scale / classes / mdm_balance_mean(mean[c]);
        for (int c = 0; c < classes; c++)
            gradient[c] += (float)((double)p[c] * (-scale / classes / mdm_balance_mean(mean[c]) - along));
    }
    free(p);
}

static inline double oracle_dot(const float *a, const float *b, int width) {
    double sum = 0;
    for (int j = 0; j < width; j++) sum += (double)a[j] * (double)b[j];
    return sum;
}

/* NT-Xent's part of both views of samples first..first+count-1 as anchors: the sum of -log softmax at the
 * positive, and `scale` times its gradient with respect to all unit rows [2*pairs, width], first views before
 * second views. */
static inline double oracle_nt_xent(const float *unit, int64_t pairs, int64_t first, int64_t count, int width,
                                    double temperature, double scale, float *gradient) {
    int64_t all = 2 * pairs;
    double loss = 0, *p = calloc((size_t)all, sizeof *p), *sums = calloc((size_t)(all * width), sizeof *sums);
    for (int64_t a = 0; a < 2 * count; a++) {
        int64_t self = a < count ? first + a : pairs + first + a - count, positive = (self + pairs) % all;
        const float *anchor = unit + self * width;
        double total = 0, most = oracle_dot(anchor, unit + positive * width, width) / temperature;
        for (int64_t j = 0; j < all; j++) {
            p[j] = oracle_dot(anchor, unit + j * width, width) / temperature;
            if (j != self && p[j] > most) most = p[j];
        }
        loss -= p[positive] - most;
        for (int64_t j = 0; j < all; j++) total += p[j] = j == self ? 0 : exp(p[j] - most);
        loss += log(total);
        for (int64_t j = 0; j < all; j++) {
            double slope = scale / temperature * (p[j] / total - (j == positive ? 1 : 0));
            for (int d = 0; d < width; d++) {
                sums[self * width + d] += slope * (double)unit[j * width + d];
                sums[j * width + d] += slope * (double)anchor[d];
            }
        }
    }
    for (int64_t e = 0; e < all * width; e++) gradient[e] += (float)sums[e];
    free(p);
    free(sums);
    return loss;
}

#endif
