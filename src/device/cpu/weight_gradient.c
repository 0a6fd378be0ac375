/* From tensors to matrices that the tile products read, and the products. Compiled for AMX alone.
 *
 * The products instruction multiplies 16 rows of 32 values (here: 16 output channels, 32 places) with 16 rows
 * of 16 pairs (16 pairs of places, 16 input channels). A tap may shift places by an odd number, so that pairs
 * of both parities are made of x.
 */
#include "weight_gradient.h"
#include <immintrin.h>
#include <omp.h>
#include <string.h>

enum { LANES = 16, PLACES = 32, TAPS = 9, TILE = 512, SUMS = 256 }; /* TILE: bfloat16 values, SUMS: floats */
/* Places that are laid out together: two groups of channels of both tensors then fit the second cache. */
enum { MOST_PLACES = 5120 };

int mdm_weight_gradient_fits(int in, int out, int kernel, int stride) {
    return kernel == 3 && stride == 1 && in % LANES == 0 && out % LANES == 0;
}

void mdm_weight_gradient_plan(mdm_weight_gradient *plan, int batch, int in, int out, int height, int width,
                              int threads) {
    *plan = (mdm_weight_gradient){
        .batch = batch, .in = in, .out = out, .height = height, .width = width, .threads = threads};
    plan->row = width + 1;
    plan->picture = (height + 1) * plan->row;
    plan->pictures = MOST_PLACES / plan->picture;
    if (plan->pictures > batch) plan->pictures = batch;
    if (plan->pictures < 1) plan->pictures = 1;
    plan->steps = (plan->pictures * plan->picture + PLACES - 1) / PLACES;
}

/* Pairs of places of x, of one parity: the last tap reads so far beyond the last step. */
static int pairs_of(const mdm_weight_gradient *plan) {
    return plan->steps * LANES + plan->row + 1;
}

/* The parts of the scratch memory, each a multiple of 64 bytes. */
static size_t rows_bytes(const mdm_weight_gradient *plan) { /* of dy: [out / 16][steps][16][32] */
    return (size_t)plan->out * (size_t)plan->steps * PLACES * sizeof(uint16_t);
}

static size_t pairs_bytes(const mdm_weight_gradient *plan) { /* of x: [parity][in / 16][pairs][16][2] */
    return (size_t)plan->in * (size_t)pairs_of(plan) * 2 * 2 * sizeof(uint16_t);
}

static size_t sums_bytes(const mdm_weight_gradient *plan) { /* [9][out / 16][in / 16][16][16] */
    return sizeof(float) * TAPS * (size_t)plan->out * (size_t)plan->in;
}

size_t mdm_weight_gradient_scratch_bytes(const mdm_weight_gradient *plan) {
    return rows_bytes(plan) + pairs_bytes(plan) + sums_bytes(plan) + 64;
}

/* The pictures at work, and where their values are laid out. */
typedef struct chunk {
    const uint16_t *x, *y_gradient;
    int pictures;
    uint16_t *rows, *pairs;
    float *sums;
} chunk;

/* The pixel at a place of dy's line, -1 between them. x lies one row and one column further on. */
static int64_t pixel_at(const mdm_weight_gradient *plan, const chunk *c, int place) {
    if (place < 0) return -1;
    int picture = place / plan->picture, within = place % plan->picture, row = within / plan->row,
        column = within % plan->row;
    if (picture >= c->pictures || row >= plan->height || column >= plan->width) return -1;
    return ((int64_t)picture * plan->height + row) * plan->width + column;
}

/* 16 channels of a pixel as the lower halves of 16 words. */
static inline __m512i load_pixel(const uint16_t *tensor, int64_t pixel, int channels, int group) {
    if (pixel < 0) return _mm512_setzero_si512();
    const uint16_t *from = tensor + pixel * channels + group * LANES;
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
}

static inline __m512i pair_of(__m512i first, __m512i second) {
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}

static void lay_pair(const mdm_weight_gradient *plan, const chunk *c, int parity, int pair) {
    int place = 2 * pair + parity - plan->row - 1, pairs = pairs_of(plan), groups = plan->in / LANES;
    int64_t first = pixel_at(plan, c, place), second = pixel_at(plan, c, place + 1);
    uint16_t *to = c->pairs + ((size_t)parity * groups * pairs + pair) * PLACES;
    for (int g = 0; g < groups; g++, to += (size_t)pairs * PLACES)
        _mm512_storeu_si512(
            to, pair_of(load_pixel(c->x, first, plan->in, g), load_pixel(c->x, second, plan->in, g)));
}

/* Rows and columns of 16 x 16 words change places. */
static inline __attribute__((always_inline)) void transpose(__m512i r[LANES]) {
    __m512i t[LANES];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            r[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
            r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) { /* quarters of rows: column j of every block of four */
        __m512i a = r[j], b = r[4 + j], c = r[8 + j], d = r[12 + j];
        __m512i ab0 = _mm512_shuffle_i32x4(a, b, 0x88), ab1 = _mm512_shuffle_i32x4(a, b, 0xdd),
                cd0 = _mm512_shuffle_i32x4(c, d, 0x88), cd1 = _mm512_shuffle_i32x4(c, d, 0xdd);
        t[j] = _mm512_shuffle_i32x4(ab0, cd0, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(ab0, cd0, 0xdd);
        t[4 + j] = _mm512_shuffle_i32x4(ab1, cd1, 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(ab1, cd1, 0xdd);
    }
    for (int i = 0; i < LANES; i++) r[i] = t[i];
}

static void lay_rows(const mdm_weight_gradient *plan, const chunk *c, int step) {
    int64_t pixels[PLACES];
    for (int i = 0; i < PLACES; i++) pixels[i] = pixel_at(plan, c, step * PLACES + i);
    for (int g = 0; g < plan->out / LANES; g++) {
        __m512i words[LANES];
        uint16_t *to = c->rows + ((size_t)g * plan->steps + step) * TILE;
        for (int i = 0; i < LANES; i++)
            words[i] = pair_of(load_pixel(c->y_gradient, pixels[2 * i], plan->out, g),
                               load_pixel(c->y_gradient, pixels[2 * i + 1], plan->out, g));
        transpose(words);
        for (int i = 0; i < LANES; i++) _mm512_storeu_si512(to + i * PLACES, words[i]);
    }
}

typedef struct __attribute__((packed)) tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

static void configure_tiles(void) {
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) shapes.row_bytes[i] = 64, shapes.rows[i] = LANES;
    _tile_loadconfig(&shapes);
}

/* Up to two groups of output and input channels of one tap: tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7
 * pairs. */
static void multiply(const mdm_weight_gradient *plan, const chunk *c, int tap, int k, int i, int continued) {
    int pairs = pairs_of(plan), groups = plan->in / LANES, shift = tap / 3 * plan->row + tap % 3;
    int two_k = (k + 1) * LANES < plan->out, two_i = i + 1 < groups;
    const uint16_t *rows = c->rows + (size_t)k * plan->steps * TILE,
                   *more_rows = rows + (two_k ? (size_t)plan->steps * TILE : 0),
                   *x = c->pairs + ((size_t)(shift & 1) * groups * pairs + (size_t)i * pairs) * PLACES +
                        (size_t)(shift >> 1) * PLACES,
                   *more_x = x + (two_i ? (size_t)pairs * PLACES : 0);
    float *sums = c->sums + (((size_t)tap * (plan->out / LANES) + k) * groups + i) * SUMS,
          *more_sums = sums + (two_k ? (size_t)groups * SUMS : 0);
    int next = two_i ? SUMS : 0;
    if (continued) {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + next, 64);
        _tile_loadd(2, more_sums, 64);
        _tile_loadd(3, more_sums + next, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int s = 0; s < plan->steps; s++) {
        _tile_loadd(4, rows + (size_t)s * TILE, 64);
        _tile_loadd(6, x + (size_t)s * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, more_x + (size_t)s * TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, more_rows + (size_t)s * TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    /* where there is no second group, the same sums are stored twice */
    _tile_stored(3, more_sums + next, 64);
    _tile_stored(2, more_sums, 64);
    _tile_stored(1, sums + next, 64);
    _tile_stored(0, sums, 64);
}

static void finish(const mdm_weight_gradient *plan, const chunk *c, int k, int i, int out_channels,
                   int in_channels, int accumulate, float *gradient) {
    int groups = plan->in / LANES;
    size_t tap_sums = (size_t)plan->out * (size_t)plan->in;
    const float *sums = c->sums + ((size_t)k * groups + i) * SUMS;
    for (int a = 0; a < LANES && k * LANES + a < out_channels; a++)
        for (int b = 0; b < LANES && i * LANES + b < in_channels; b++) {
            float *to = gradient + ((size_t)(k * LANES + a) * in_channels + i * LANES + b) * TAPS;
            for (int tap = 0; tap < TAPS; tap++) {
                float sum = sums[(size_t)tap * tap_sums + a * LANES + b];
                to[tap] = accumulate ? to[tap] + sum : sum;
            }
        }
}

void mdm_weight_gradient_compute(const mdm_weight_gradient *plan, const uint16_t *x,
                                 const uint16_t *y_gradient, int out_channels, int in_channels,
                                 int accumulate, float *gradient, void *scratch) {
    int out = plan->out / LANES, in = plan->in / LANES, pairs = pairs_of(plan),
        pixels = plan->height * plan->width;
    char *memory = (char *)(((uintptr_t)scratch + 63) / 64 * 64);
    chunk c = {.rows = (uint16_t *)memory,
               .pairs = (uint16_t *)(memory + rows_bytes(plan)),
               .sums = (float *)(memory + rows_bytes(plan) + pairs_bytes(plan))};
#pragma omp parallel num_threads(plan->threads) firstprivate(c)
    {
        for (int first = 0; first < plan->batch; first += plan->pictures) {
            int rest = plan->batch - first;
            c.pictures = rest < plan->pictures ? rest : plan->pictures;
            c.x = x + (size_t)first * pixels * plan->in;
            c.y_gradient = y_gradient + (size_t)first * pixels * plan->out;
#pragma omp for schedule(static) nowait
            for (int pair = 0; pair < 2 * pairs; pair++) lay_pair(plan, &c, pair >= pairs, pair % pairs);
#pragma omp for schedule(static)
            for (int step = 0; step < plan->steps; step++) lay_rows(plan, &c, step);
            configure_tiles();
#pragma omp for schedule(static) collapse(3)
            for (int k = 0; k < out; k += 2)
                for (int i = 0; i < in; i += 2)
                    for (int tap = 0; tap < TAPS; tap++) multiply(plan, &c, tap, k, i, first > 0);
            _tile_release();
        }
#pragma omp for schedule(static) collapse(2)
        for (int k = 0; k < out; k++)
            for (int i = 0; i < in; i++)
                finish(plan, &c, k, i, out_channels, in_channels, accumulate, gradient);
    }
}
