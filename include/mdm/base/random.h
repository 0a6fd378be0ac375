/* Counter-based random numbers: Philox 4x32-10 (Salmon et al., SC 2011).
 *
 * Every draw of the program is a pure function of (seed, purpose, epoch, item, view, draw), so it depends
 * neither on the number of ranks nor on the order of the work, and a restart needs no generator state. `item`
 * is a sample index, a step or a parameter, as the purpose says. Header only: the same text is compiled for
 * the CPU and for CUDA.
 */
#ifndef MDM_BASE_RANDOM_H
#define MDM_BASE_RANDOM_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define MDM_INLINE static inline __host__ __device__
#else
#define MDM_INLINE static inline
#endif

typedef enum mdm_purpose {
    MDM_RANDOM_WEIGHTS = 1,    /* item: tensor number; view: network */
    MDM_RANDOM_AUGMENT = 2,    /* item: sample; view: stage, network and view number packed by the caller */
    MDM_RANDOM_ORDER = 3,      /* permutation of an epoch's samples; view: network and list */
    MDM_RANDOM_MIXUP = 4,      /* item: step; view: network */
    MDM_RANDOM_NOISE = 5,      /* label noise injection */
    MDM_RANDOM_VALIDATION = 6, /* choice of the validation samples */
    MDM_RANDOM_TEST = 7
} mdm_purpose;

typedef struct mdm_random {
    uint32_t key[2];
    uint32_t counter[4]; /* item low, item high xor epoch, view, block of four draws */
    uint32_t buffer[4];
    int left; /* draws left in the buffer */
} mdm_random;

MDM_INLINE void mdm_philox(const uint32_t key_in[2], const uint32_t counter[4], uint32_t out[4]) {
    uint32_t k0 = key_in[0], k1 = key_in[1], c0 = counter[0], c1 = counter[1], c2 = counter[2],
             c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* A stream of draws for one (seed, purpose, epoch, item, view). */
MDM_INLINE mdm_random mdm_random_stream(uint64_t seed, mdm_purpose purpose, uint32_t epoch, uint64_t item,
                                        uint32_t view) {
    mdm_random r;
    r.key[0] = (uint32_t)seed;
    r.key[1] = (uint32_t)(seed >> 32) ^ ((uint32_t)purpose * 0x85EBCA6Bu);
    r.counter[0] = (uint32_t)item;
    r.counter[1] = ((uint32_t)(item >> 32) << 24) ^ epoch;
    r.counter[2] = view;
    r.counter[3] = 0;
    r.buffer[0] = r.buffer[1] = r.buffer[2] = r.buffer[3] = 0;
    r.left = 0;
    return r;
}

MDM_INLINE uint32_t mdm_random_bits(mdm_random *r) {
    if (r->left == 0) {
        mdm_philox(r->key, r->counter, r->buffer);
        r->counter[3]++;
        r->left = 4;
    }
    return r->buffer[4 - r->left--];
}

/* Uniform in [0, 1) with 24 bits: the same value as float and as double. */
MDM_INLINE float mdm_random_uniform(mdm_random *r) {
    return (float)(mdm_random_bits(r) >> 8) * (1.0f / 16777216.0f);
}

/* Uniform in (0, 1) with 52 bits, for logarithms. (With 53, adding a half would round the largest one up
 * to 1.) */
MDM_INLINE double mdm_random_open(mdm_random *r) {
    uint64_t high = mdm_random_bits(r), low = mdm_random_bits(r);
    return ((double)(((high << 32) | low) >> 12) + 0.5) * (1.0 / 4503599627370496.0);
}

/* Uniform integer in [0, n), n >= 1, without bias (rejection). */
MDM_INLINE uint32_t mdm_random_below(mdm_random *r, uint32_t n) {
    uint32_t limit = (uint32_t)(0x100000000ull % n), bits;
    do bits = mdm_random_bits(r);
    while (bits < limit);
    return bits % n;
}

/* Standard normal draw (Box and Muller; the second of the pair is dropped). */
MDM_INLINE double mdm_random_normal(mdm_random *r) {
    double u = mdm_random_open(r), v = mdm_random_open(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/* Gamma(shape, 1) by Marsaglia and Tsang (2000); shape > 0. */
MDM_INLINE double mdm_random_gamma(mdm_random *r, double shape) {
    double boost = 1.0;
    if (shape < 1.0) {
        boost = pow(mdm_random_open(r), 1.0 / shape);
        shape += 1.0;
    }
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double x = mdm_random_normal(r), v = 1.0 + c * x;
        if (v <= 0.0) continue;
        v = v * v * v;
        if (log(mdm_random_open(r)) < 0.5 * x * x + d - d * v + d * log(v)) return boost * d * v;
    }
}

/* Beta(a, b). Where both draws are too small for a double, as for shapes below 0.01, it is 0 or 1. */
MDM_INLINE double mdm_random_beta(mdm_random *r, double a, double b) {
    double x = mdm_random_gamma(r, a), y = mdm_random_gamma(r, b);
    if (x + y > 0.0) return x / (x + y);
    return mdm_random_open(r) < a / (a + b) ? 1.0 : 0.0;
}

/* Puts items[0..n) into random order (Fisher and Yates), n < 2^32. */
MDM_INLINE void mdm_random_shuffle(mdm_random *r, int64_t *items, int64_t n) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)mdm_random_below(r, (uint32_t)(i + 1)), t = items[i];
        items[i] = items[j];
        items[j] = t;
    }
}

/* A random order that can be read at the speed of storage: the items, which lie in the order of the file, are
 * cut into runs of `block` neighbours, the runs put into random order (a last one that is not whole stays
 * behind), and the items shuffled within every `window` runs. Only about `window` runs of the file are in use
 * at any time. n < 2^32. */
MDM_INLINE void mdm_random_shuffle_blocks(mdm_random *r, int64_t *items, int64_t n, int64_t block,
                                          int64_t window) {
    int64_t runs = n / block;
    for (int64_t i = runs - 1; i > 0; i--) {
        int64_t j = (int64_t)mdm_random_below(r, (uint32_t)(i + 1));
        for (int64_t k = 0; j < i && k < block; k++) {
            int64_t t = items[i * block + k];
            items[i * block + k] = items[j * block + k];
            items[j * block + k] = t;
        }
    }
    for (int64_t first = 0; first < n; first += window * block)
        mdm_random_shuffle(r, items + first, n - first < window * block ? n - first : window * block);
}

#endif
