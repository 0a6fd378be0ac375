/* The E step and the posterior of the two-component mixture for one instruction set (MDM_KERNEL_LEVEL).
 *
 * With d = log p(u, 1) - log p(u, 0), the posterior of component 0 is 1 / (1 + exp d) and the log likelihood
 * is log p(u, m) + log(1 + exp(-|d|)), m being the likelier component: one exponential per sample. The
 * logarithms of a lane are taken together, as the logarithm of the product of up to GROUP factors in [1, 2].
 */
#include "kernel_names.h"
#include <math.h>
#include <string.h>

enum { LANES = 8, GROUP = 512 };
typedef double lanes __attribute__((vector_size(64)));
typedef uint64_t whole __attribute__((vector_size(64)));
typedef float narrow __attribute__((vector_size(32)));

/* where[i] ? yes[i] : no[i]; a comparison of vectors is all ones or all zeros. */
static inline __attribute__((always_inline)) lanes choose(whole where, lanes yes, lanes no) {
    return (lanes)((where & (whole)yes) | (~where & (whole)no));
}

/* exp(x) for x <= 0 to about 1e-15 relative; below -700 it is taken as exp(-700), which is nothing beside 1.
 */
static inline __attribute__((always_inline)) lanes negative_exponential(lanes x) {
    const double magic =
        6755399441055744.0; /* 1.5 * 2^52: adding it leaves the rounded integer in the low bits */
    x = choose((whole)(x < -700.0), (lanes){0} - 700.0, x);
    lanes shifted = x * 1.4426950408889634074 + magic;
    lanes n = shifted - magic;
    lanes r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6; /* ln 2 in two parts */
    lanes p = r * (1.0 / 39916800) + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    whole exponent = ((whole)shifted << 52) + (whole)p; /* p * 2^n: adds n to the exponent field */
    return (lanes)exponent;
}

/* Posterior of component 0, and e = exp(-|d|) and log p of the likelier component. */
static inline __attribute__((always_inline)) lanes responsibility(lanes u, const mdm_gmm_density *density,
                                                                  lanes *e, lanes *likelier) {
    lanes from0 = u - density->mean[0], from1 = u - density->mean[1];
    lanes log0 = density->constant[0] - from0 * from0 * density->scale[0];
    lanes log1 = density->constant[1] - from1 * from1 * density->scale[1];
    lanes d = log1 - log0;
    whole noisy = (whole)(d > 0.0);
    *likelier = choose(noisy, log1, log0);
    *e = negative_exponential(choose(noisy, -d, d));
    return choose(noisy, *e, (lanes){0} + 1.0) / (*e + 1.0);
}

static inline __attribute__((always_inline)) lanes load_scaled(const float *loss,
                                                               const mdm_gmm_density *density) {
    narrow x;
    memcpy(&x, loss, sizeof x);
    return (__builtin_convertvector(x, lanes) - density->minimum) * density->inverse_range;
}

static double fold(lanes v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

typedef struct lane_sums {
    lanes weight[2], first[2], second[2], likelier;
} lane_sums;

static inline __attribute__((always_inline)) lanes add_samples(lane_sums *s, lanes u, lanes multiplicity,
                                                               const mdm_gmm_density *density) {
    lanes e, likelier;
    lanes r0 = responsibility(u, density, &e, &likelier) * multiplicity, r1 = multiplicity - r0;
    lanes from0 = u - density->mean[0], from1 = u - density->mean[1];
    s->weight[0] += r0;
    s->weight[1] += r1;
    s->first[0] += r0 * from0;
    s->first[1] += r1 * from1;
    s->second[0] += r0 * from0 * from0;
    s->second[1] += r1 * from1 * from1;
    s->likelier += likelier * multiplicity;
    return e + 1.0;
}

/* Sum over lanes of log(factor): every lane takes its product apart on its own. */
static double log_product(lanes factor) {
    double sum = 0;
    for (int i = 0; i < LANES; i++) sum += log(factor[i]);
    return sum;
}

void MDM_KERNEL(gmm_expectation)(const float *loss, const double *multiplicity, int64_t n,
                                 const mdm_gmm_density *density, mdm_gmm_sums *sums) {
    lane_sums s;
    memset(&s, 0, sizeof s);
    const mdm_gmm_density local = *density;
    lanes one = (lanes){0} + 1.0;
    double logs = 0;
    int64_t i = 0;
    while (i + LANES <= n) {
        lanes product = one;
        if (multiplicity) {
            lanes m;
            memcpy(&m, multiplicity + i, sizeof m);
            lanes factor = add_samples(&s, load_scaled(loss + i, &local), m, &local);
            for (int lane = 0; lane < LANES; lane++)
                if (m[lane] > 0) logs += m[lane] * log(factor[lane]);
            i += LANES;
            continue;
        }
        for (int group = 0; group < GROUP && i + LANES <= n; group++, i += LANES)
            product *= add_samples(&s, load_scaled(loss + i, &local), one, &local);
        logs += log_product(product);
    }
    if (i < n) { /* the last few: absent samples count zero times */
        float rest[LANES];
        lanes m = {0};
        for (int lane = 0; lane < LANES; lane++) {
            rest[lane] = loss[i + lane < n ? i + lane : n - 1];
            if (i + lane < n) m[lane] = multiplicity ? multiplicity[i + lane] : 1.0;
        }
        lanes factor = add_samples(&s, load_scaled(rest, &local), m, &local);
        for (int lane = 0; lane < LANES; lane++) logs += m[lane] * log(factor[lane]);
    }
    for (int c = 0; c < 2; c++) {
        sums->weight[c] += fold(s.weight[c]);
        sums->first[c] += fold(s.first[c]);
        sums->second[c] += fold(s.second[c]);
    }
    sums->log_likelihood += fold(s.likelier) + logs;
}

void MDM_KERNEL(gmm_posterior)(const float *loss, int64_t n, const mdm_gmm_density *density,
                               float *probability) {
    const mdm_gmm_density local = *density;
    lanes e, likelier;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        narrow r = __builtin_convertvector(
            responsibility(load_scaled(loss + i, &local), &local, &e, &likelier), narrow);
        memcpy(probability + i, &r, sizeof r);
    }
    if (i < n) {
        float rest[LANES];
        for (int lane = 0; lane < LANES; lane++) rest[lane] = loss[i + lane < n ? i + lane : n - 1];
        narrow r =
            __builtin_convertvector(responsibility(load_scaled(rest, &local), &local, &e, &likelier), narrow);
        memcpy(probability + i, &r, (size_t)(n - i) * sizeof(float));
    }
}
