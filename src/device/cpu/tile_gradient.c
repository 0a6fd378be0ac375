/* The gradient of the weights, whose common dimension is the pictures of a pixel. Compiled for AMX alone. */
#include "tile_inline.h"

/* Places (a pixel of a picture each) of y that are in tiles at a time: two groups of channels of both tensors
 * then fit the second cache. */
enum { MOST_PLACES = 4096 };

/* Bands of rows of y, of some groups of pictures at a time. Rows of x are kept in a ring, so that those which
 * two bands need are laid out once. */
typedef struct band {
    const mdm_tile_shape *shape;
    const uint16_t *x, *y_gradient;
    int groups, rows; /* at most at a time */
    int ring;         /* rows of x in tiles */
    int group, count; /* now */
    int first_row, end_row;
    uint16_t *y_tiles; /* [out / 16][group][row][pixel][16 channels][32 pictures] */
    uint16_t *x_tiles; /* [in / 16][group][row of the ring][pixel][16 pairs of pictures][16 channels][2] */
    float *sums;       /* [out / 32][in / 32][tap][2][2][16][16] */
} band;

static band band_of(const mdm_tile_shape *s) {
    band b = {.shape = s, .groups = 1};
    int all = groups_of(s->batch, PICTURES), row = PICTURES * s->out_width;
    b.rows = MOST_PLACES / row < s->out_height ? MOST_PLACES / row : s->out_height;
    if (b.rows < 1) b.rows = 1;
    if (b.rows == s->out_height) b.groups = MOST_PLACES / (row * b.rows);
    if (b.groups < 1) b.groups = 1;
    if (b.groups > all) b.groups = all;
    b.ring = (b.rows - 1) * s->stride + s->kernel;
    if (b.ring > s->height) b.ring = s->height;
    return b;
}

/* Values of one group of 16 channels. */
static size_t y_values(const band *b) {
    return (size_t)b->groups * (size_t)b->rows * (size_t)b->shape->out_width * TILE;
}

static size_t x_values(const band *b) {
    return (size_t)b->groups * (size_t)b->ring * (size_t)b->shape->width * TILE;
}

static int taps_of(const mdm_tile_shape *s) {
    return s->kernel * s->kernel;
}

size_t mdm_tile_gradient_scratch_bytes(const mdm_tile_shape *s) {
    band b = band_of(s);
    size_t sums = (size_t)groups_of(s->out, 2 * LANES) * (size_t)groups_of(s->in, 2 * LANES) *
                  (size_t)taps_of(s) * 4 * SUMS * sizeof(float);
    return 64 + sums +
           sizeof(uint16_t) *
               (y_values(&b) * (size_t)(s->out / LANES) + x_values(&b) * (size_t)(s->in / LANES));
}

static band prepare(const mdm_tile_shape *s, const uint16_t *x, const uint16_t *y_gradient, void *scratch) {
    band b = band_of(s);
    b.x = x;
    b.y_gradient = y_gradient;
    b.y_tiles = aligned(scratch);
    b.x_tiles = b.y_tiles + y_values(&b) * (size_t)(s->out / LANES);
    b.sums = (float *)(void *)(b.x_tiles + x_values(&b) * (size_t)(s->in / LANES));
    return b;
}

/* 16 channels of a pixel of a picture as the lower halves of 16 words; zero beyond the last picture. */
static inline __m512i load_pixel(const uint16_t *tensor, int64_t picture, int64_t pixel, int64_t pixels,
                                 int channels, int group, int batch) {
    if (picture >= batch) return _mm512_setzero_si512();
    const uint16_t *from = tensor + (picture * pixels + pixel) * channels + group * LANES;
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
}

static inline __m512i pair_of(__m512i first, __m512i second) {
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
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

/* Pairs of pictures of one pixel, all channels of a tensor; rows of y are transposed, so that a tile's row is
 * a channel. */
static inline __attribute__((always_inline)) void lay_pixel(const uint16_t *tensor, int batch, int group,
                                                            int64_t pixel, int64_t pixels, int channels,
                                                            int transposed, uint16_t *to, size_t next) {
    for (int c = 0; c < channels / LANES; c++, to += next) {
        __m512i words[LANES];
        for (int i = 0; i < LANES; i++) {
            int64_t picture = (int64_t)group * PICTURES + 2 * i;
            words[i] = pair_of(load_pixel(tensor, picture, pixel, pixels, channels, c, batch),
                               load_pixel(tensor, picture + 1, pixel, pixels, channels, c, batch));
        }
        if (transposed) transpose(words);
        for (int i = 0; i < LANES; i++) _mm512_storeu_si512(to + i * 2 * LANES, words[i]);
    }
}

static uint16_t *y_place(const band *b, int slot, int row, int column) {
    size_t line = (size_t)slot * (size_t)b->rows + (size_t)(row - b->first_row);
    return b->y_tiles + (line * (size_t)b->shape->out_width + (size_t)column) * TILE;
}

static uint16_t *x_place(const band *b, int slot, int row, int column) {
    size_t line = (size_t)slot * (size_t)b->ring + (size_t)(row % b->ring);
    return b->x_tiles + (line * (size_t)b->shape->width + (size_t)column) * TILE;
}

static void lay_y(const band *b, int slot, int row, int column) {
    const mdm_tile_shape *s = b->shape;
    lay_pixel(b->y_gradient, s->batch, b->group + slot, (int64_t)row * s->out_width + column,
              (int64_t)s->out_height * s->out_width, s->out, 1, y_place(b, slot, row, column), y_values(b));
}

static void lay_x(const band *b, int slot, int row, int column) {
    const mdm_tile_shape *s = b->shape;
    lay_pixel(b->x, s->batch, b->group + slot, (int64_t)row * s->width + column,
              (int64_t)s->height * s->width, s->in, 0, x_place(b, slot, row, column), x_values(b));
}

/* Rows of x that the band's taps read: [first, end). */
static int first_x_row(const band *b, int y_row) {
    int row = y_row * b->shape->stride - b->shape->kernel / 2;
    return row > 0 ? row : 0;
}

static int end_x_row(const band *b, int y_end) {
    int row = (y_end - 1) * b->shape->stride - b->shape->kernel / 2 + b->shape->kernel;
    return row < b->shape->height ? row : b->shape->height;
}

/* Tiles 0 to 3 are sums, 4 and 5 channels of y, 6 and 7 pictures of x. */
static inline void multiply(const uint16_t *y, const uint16_t *more_y, const uint16_t *x,
                            const uint16_t *more_x, int pixels, int stride) {
    for (int i = 0; i < pixels; i++) {
        _tile_loadd(4, y + (size_t)i * TILE, 64);
        _tile_loadd(6, x + (size_t)(i * stride) * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, more_x + (size_t)(i * stride) * TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, more_y + (size_t)i * TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

/* The sums of one tap of 32 by 32 channels. */
static float *sums_of(const band *b, int k, int i, int tap) {
    size_t block = (size_t)k * (size_t)groups_of(b->shape->in, 2 * LANES) + (size_t)i;
    return b->sums + (block * (size_t)taps_of(b->shape) + (size_t)tap) * 4 * SUMS;
}

static inline void load_sums(const float *sums, int continued) {
    if (continued) {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + SUMS, 64);
        _tile_loadd(2, sums + 2 * SUMS, 64);
        _tile_loadd(3, sums + 3 * SUMS, 64);
    } else {
        zero_sums();
    }
}

/* One tap of 32 by 32 channels over the whole band. Where there is no second group of 16, the first is
 * multiplied twice. */
static void multiply_band(const band *b, int k, int i, int tap, int continued) {
    const mdm_tile_shape *s = b->shape;
    int padding = s->kernel / 2, down = tap / s->kernel - padding, right = tap % s->kernel - padding;
    int first = right < 0 ? 1 : 0, end = s->out_width;
    while (end > first && (end - 1) * s->stride + right >= s->width) end--;
    size_t y_channels = (size_t)(2 * k) * y_values(b), x_channels = (size_t)(2 * i) * x_values(b),
           more_y = (2 * k + 1) * LANES < s->out ? y_values(b) : 0,
           more_x = (2 * i + 1) * LANES < s->in ? x_values(b) : 0;
    load_sums(sums_of(b, k, i, tap), continued);
    for (int slot = 0; slot < b->count; slot++)
        for (int row = b->first_row; row < b->end_row; row++) {
            int x_row = row * s->stride + down;
            if (x_row < 0 || x_row >= s->height || first >= end) continue;
            const uint16_t *y = y_place(b, slot, row, first) + y_channels,
                           *x = x_place(b, slot, x_row, first * s->stride + right) + x_channels;
            multiply(y, y + more_y, x, x + more_x, end - first, s->stride);
        }
    store_sums(sums_of(b, k, i, tap));
}

/* The sums of 16 by 16 channels to the gradient. */
static void finish(const band *b, int k, int i, int out_channels, int in_channels, int accumulate,
                   float *gradient) {
    int taps = taps_of(b->shape);
    const float *sums = sums_of(b, k / 2, i / 2, 0) + (2 * (k % 2) + i % 2) * SUMS;
    for (int o = 0; o < LANES && k * LANES + o < out_channels; o++)
        for (int c = 0; c < LANES && i * LANES + c < in_channels; c++) {
            size_t filter = (size_t)(k * LANES + o) * (size_t)in_channels + (size_t)(i * LANES + c);
            float *to = gradient + filter * (size_t)taps;
            for (int tap = 0; tap < taps; tap++) {
                float sum = sums[tap * 4 * SUMS + o * LANES + c];
                to[tap] = accumulate ? to[tap] + sum : sum;
            }
        }
}

/* Called by all threads of a team: lays out what the band needs beyond row `laid` of x, and adds its
 * products. */
static void add_band(const band *b, int laid, int continued) {
    const mdm_tile_shape *s = b->shape;
    int end = end_x_row(b, b->end_row);
#pragma omp for schedule(static) collapse(3) nowait
    for (int slot = 0; slot < b->count; slot++)
        for (int row = laid; row < end; row++)
            for (int column = 0; column < s->width; column++) lay_x(b, slot, row, column);
#pragma omp for schedule(static) collapse(3)
    for (int slot = 0; slot < b->count; slot++)
        for (int row = b->first_row; row < b->end_row; row++)
            for (int column = 0; column < s->out_width; column++) lay_y(b, slot, row, column);
#pragma omp for schedule(static) collapse(3)
    for (int k = 0; k < groups_of(s->out, 2 * LANES); k++)
        for (int i = 0; i < groups_of(s->in, 2 * LANES); i++)
            for (int tap = 0; tap < taps_of(s); tap++) multiply_band(b, k, i, tap, continued);
}

void mdm_tile_backward_weights(const mdm_tile_shape *shape, const uint16_t *x, const uint16_t *y_gradient,
                               int out_channels, int in_channels, int accumulate, float *gradient,
                               void *scratch) {
    band b = prepare(shape, x, y_gradient, scratch);
    int groups = groups_of(shape->batch, PICTURES);
#pragma omp parallel num_threads(shape->threads) firstprivate(b)
    {
        configure_tiles();
        for (b.group = 0; b.group < groups; b.group += b.groups) {
            int laid = 0;
            b.count = groups - b.group < b.groups ? groups - b.group : b.groups;
            for (b.first_row = 0; b.first_row < shape->out_height; b.first_row = b.end_row) {
                int first = first_x_row(&b, b.first_row);
                b.end_row =
                    b.first_row + b.rows < shape->out_height ? b.first_row + b.rows : shape->out_height;
                if (laid < first) laid = first;
                add_band(&b, laid, b.group > 0 || b.first_row > 0);
                laid = end_x_row(&b, b.end_row);
            }
        }
        _tile_release();
#pragma omp for schedule(static) collapse(2)
        for (int k = 0; k < shape->out / LANES; k++)
            for (int i = 0; i < shape->in / LANES; i++)
                finish(&b, k, i, out_channels, in_channels, accumulate, gradient);
    }
}
