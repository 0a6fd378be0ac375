/* Forward, and the gradient of the input: one product of tiles for each tap of each pixel. Compiled for AMX
 * alone. */
#include "tile_inline.h"
#include <string.h>

enum { WAVE_BYTES = 1 << 20 }; /* of the source that are in tiles at a time: they fit the second cache */

/* One direction: from the source to the result. Backward, the source is the gradient of y. */
typedef struct direction {
    const mdm_tile_shape *shape;
    int backward, add;
    int channels, height, width;                      /* of the source */
    int result_channels, result_height, result_width; /* of the result */
    int steps;                                        /* of 32 source channels */
    const uint16_t *source, *weights;
    uint16_t *result, *tiles;
} direction;

static direction direction_of(const mdm_tile_shape *s, int backward) {
    direction d = {.shape = s, .backward = backward};
    d.channels = backward ? s->out : s->in;
    d.height = backward ? s->out_height : s->height;
    d.width = backward ? s->out_width : s->width;
    d.result_channels = backward ? s->in : s->out;
    d.result_height = backward ? s->height : s->out_height;
    d.result_width = backward ? s->width : s->out_width;
    d.steps = groups_of(d.channels, 2 * LANES);
    return d;
}

/* Values of one group of pictures in tiles: [pixel][step][2][16 pictures][32 channels]. */
static size_t group_values(const direction *d) {
    return (size_t)d->height * (size_t)d->width * (size_t)d->steps * 2 * TILE;
}

/* Groups whose tiles are made at a time. */
static int wave_of(const direction *d) {
    int groups = groups_of(d->shape->batch, PICTURES);
    size_t wave = WAVE_BYTES / (group_values(d) * sizeof(uint16_t));
    if (wave < 1) wave = 1;
    return wave < (size_t)groups ? (int)wave : groups;
}

static size_t direction_bytes(const mdm_tile_shape *shape, int backward) {
    direction d = direction_of(shape, backward);
    return (size_t)wave_of(&d) * group_values(&d) * sizeof(uint16_t) + 64;
}

size_t mdm_tile_scratch_bytes(const mdm_tile_shape *shape) {
    size_t most = mdm_tile_gradient_scratch_bytes(shape);
    for (int backward = 0; backward < 2; backward++) {
        size_t bytes = direction_bytes(shape, backward);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* Weights: [result channels / 32][tap][step][2][16 pairs of source channels][16 result channels][2]. */
static size_t block_values(const direction *d) {
    return (size_t)(d->shape->kernel * d->shape->kernel) * (size_t)d->steps * 2 * TILE;
}

int64_t mdm_tile_weight_count(const mdm_tile_shape *shape) {
    direction forward = direction_of(shape, 0), backward = direction_of(shape, 1);
    size_t a = block_values(&forward) * (size_t)groups_of(forward.result_channels, 2 * LANES),
           b = block_values(&backward) * (size_t)groups_of(backward.result_channels, 2 * LANES);
    return (int64_t)(a > b ? a : b);
}

static inline uint16_t bfloat16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* stays no number */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* The tiles of one step: 32 source channels by 32 result channels, all taps. */
static void tile_weights(const direction *d, const float *weights, int out_channels, int in_channels,
                         int block, int step, uint16_t *tiles) {
    int taps = d->shape->kernel * d->shape->kernel;
    uint16_t *to = tiles + (size_t)block * block_values(d) + (size_t)step * 2 * TILE;
    size_t next_tap = (size_t)d->steps * 2 * TILE;
    for (int half = 0; half < 2; half++)
        for (int pair = 0; pair < LANES; pair++)
            for (int lane = 0; lane < LANES; lane++)
                for (int second = 0; second < 2; second++) {
                    int source = step * 2 * LANES + 2 * pair + second,
                        result = (2 * block + half) * LANES + lane;
                    int o = d->backward ? source : result, i = d->backward ? result : source;
                    size_t at = (size_t)half * TILE + (size_t)(pair * LANES + lane) * 2 + (size_t)second;
                    const float *from =
                        weights + ((size_t)o * (size_t)in_channels + (size_t)i) * (size_t)taps;
                    int present = o < out_channels && i < in_channels;
                    for (int tap = 0; tap < taps; tap++)
                        to[(size_t)tap * next_tap + at] = present ? bfloat16_of(from[tap]) : 0;
                }
}

void mdm_tile_weights(const mdm_tile_shape *shape, const float *weights, int out_channels, int in_channels,
                      int backward, uint16_t *tiles) {
    direction d = direction_of(shape, backward);
    int blocks = groups_of(d.result_channels, 2 * LANES);
#pragma omp parallel for schedule(static) collapse(2) num_threads(shape->threads)
    for (int block = 0; block < blocks; block++)
        for (int step = 0; step < d.steps; step++)
            tile_weights(&d, weights, out_channels, in_channels, block, step, tiles);
}

/* One pixel of a group of pictures to its tiles; pictures and channels that are not there are zero. */
static void lay_pixel(const direction *d, int group, int slot, int pixel) {
    int channels = d->channels, pixels = d->height * d->width;
    uint16_t *to = d->tiles + (size_t)slot * group_values(d) + (size_t)pixel * (size_t)d->steps * 2 * TILE;
    for (int i = 0; i < PICTURES; i++) {
        int64_t picture = (int64_t)group * PICTURES + i;
        const uint16_t *from = d->source + (picture * pixels + pixel) * channels;
        uint16_t *row = to + (size_t)(i / LANES) * TILE + (size_t)(i % LANES) * 2 * LANES;
        for (int step = 0; step < d->steps; step++, row += 2 * TILE) {
            int rest = picture < d->shape->batch ? channels - step * 2 * LANES : 0;
            __mmask32 there = rest >= 2 * LANES ? 0xffffffffu : rest > 0 ? 0xffffu : 0;
            _mm512_storeu_si512(row, _mm512_maskz_loadu_epi16(there, from + step * 2 * LANES));
        }
    }
}

/* Where tap `a` of a row (or column) reads, -1 beyond the border or, backward, between the strides. */
static inline int reached(const direction *d, int place, int a, int size) {
    int stride = d->shape->stride, padding = d->shape->kernel / 2;
    int from = d->backward ? place + padding - a : place * stride + a - padding;
    if (from < 0) return -1;
    if (d->backward) {
        if (from % stride) return -1;
        from /= stride;
    }
    return from < size ? from : -1;
}

/* Adds one tap: tiles 0 to 3 are sums, 4 and 5 pictures, 6 and 7 weights. */
static inline void multiply(const uint16_t *pictures, const uint16_t *weights, int steps) {
    for (int s = 0; s < steps; s++, pictures += 2 * TILE, weights += 2 * TILE) {
        _tile_loadd(4, pictures, 64);
        _tile_loadd(6, weights, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, weights + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, pictures + TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

static inline __m512 widen(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Sums [2 pictures][2 channels][16][16] of one pixel to the result, rounded. */
static void write_pixel(const direction *d, const float *sums, int group, int pixel, int block) {
    int channels = d->result_channels, pixels = d->result_height * d->result_width,
        whole = (block + 1) * 2 * LANES <= channels;
    __mmask32 there = whole ? 0xffffffffu : 0xffffu;
    for (int i = 0; i < PICTURES; i++) {
        int64_t picture = (int64_t)group * PICTURES + i;
        if (picture >= d->shape->batch) return;
        const float *row = sums + (size_t)(i / LANES) * 2 * SUMS + (size_t)(i % LANES) * LANES;
        uint16_t *to = d->result + (picture * pixels + pixel) * channels + block * 2 * LANES;
        __m512 low = _mm512_load_ps(row), high = _mm512_load_ps(row + SUMS);
        if (d->add) {
            __m512i old = _mm512_maskz_loadu_epi16(there, to);
            low = _mm512_add_ps(low, widen(_mm512_castsi512_si256(old)));
            high = _mm512_add_ps(high, widen(_mm512_extracti64x4_epi64(old, 1)));
        }
        _mm512_mask_storeu_epi16(to, there, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* One row of pixels of one group of pictures, 32 channels of the result. */
static void convolve_row(const direction *d, int group, int slot, int block, int y) {
    float sums[4 * SUMS] __attribute__((aligned(64)));
    int kernel = d->shape->kernel;
    size_t pixel_values = (size_t)d->steps * 2 * TILE;
    const uint16_t *tiles = d->tiles + (size_t)slot * group_values(d),
                   *weights = d->weights + (size_t)block * block_values(d);
    for (int x = 0; x < d->result_width; x++) {
        zero_sums();
        for (int tap = 0; tap < kernel * kernel; tap++) {
            int row = reached(d, y, tap / kernel, d->height), column = reached(d, x, tap % kernel, d->width);
            if (row < 0 || column < 0) continue;
            multiply(tiles + (size_t)(row * d->width + column) * pixel_values,
                     weights + (size_t)tap * pixel_values, d->steps);
        }
        store_sums(sums);
        write_pixel(d, sums, group, y * d->result_width + x, block);
    }
}

static void convolve(direction *d, void *scratch) {
    int groups = groups_of(d->shape->batch, PICTURES), wave = wave_of(d), pixels = d->height * d->width,
        blocks = groups_of(d->result_channels, 2 * LANES);
    d->tiles = aligned(scratch);
#pragma omp parallel num_threads(d->shape->threads)
    {
        configure_tiles();
        for (int first = 0; first < groups; first += wave) {
            int count = groups - first < wave ? groups - first : wave;
#pragma omp for schedule(static) collapse(2)
            for (int slot = 0; slot < count; slot++)
                for (int pixel = 0; pixel < pixels; pixel++) lay_pixel(d, first + slot, slot, pixel);
#pragma omp for schedule(static) collapse(3)
            for (int block = 0; block < blocks; block++)
                for (int slot = 0; slot < count; slot++)
                    for (int y = 0; y < d->result_height; y++) convolve_row(d, first + slot, slot, block, y);
        }
        _tile_release();
    }
}

void mdm_tile_forward(const mdm_tile_shape *shape, const uint16_t *x, const uint16_t *weights, int add,
                      uint16_t *y, void *scratch) {
    direction d = direction_of(shape, 0);
    d.source = x;
    d.weights = weights;
    d.add = add;
    d.result = y;
    convolve(&d, scratch);
}

void mdm_tile_backward_data(const mdm_tile_shape *shape, const uint16_t *y_gradient, const uint16_t *weights,
                            uint16_t *x_gradient, void *scratch) {
    direction d = direction_of(shape, 1);
    d.source = y_gradient;
    d.weights = weights;
    d.result = x_gradient;
    convolve(&d, scratch);
}
