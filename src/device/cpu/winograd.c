/* From tiles of bfloat16 pictures to their transforms, products of transforms, and back: Winograd's algorithm
 * F(2x2, 3x3) for the forward pass and both gradients. Compiled for AVX-512 with bfloat16 products alone.
 *
 * Convolution, per block of tiles that fits the cache of a core:
 *     V[p][t][c] = (B' d B)[p]        the 16 points p of each tile t, d its 4x4 inputs
 *     M[p][t][k] = sum_c V[p][t][c] U[p][c][k],    U = G g G'
 *     y = A' M A                      2x2 outputs
 * Weight gradient, per chunk of tiles, all threads together:
 *     S[p][c][k] += sum_t V[p][t][c] D[p][t][k],   D = A dy A';    at the end dw = G' S G
 * The products instruction adds two neighbouring terms of a sum, which therefore lie side by side.
 */
#include "winograd.h"
#include <immintrin.h>
#include <omp.h>
#include <string.h>

enum { LANES = MDM_WINOGRAD_BLOCK, PAIR = 2 * LANES, POINTS = 16, ROWS = 12 };
enum { BLOCK_BYTES = 256 << 10 };                     /* of V, in the convolution */
enum { CHUNK_VALUES = 131072, CHUNK_AT_LEAST = 256 }; /* tiles of a chunk: so many channels, or tiles */

static inline __m512 load(const uint16_t *from) {
    __m256i half = _mm256_loadu_si256((const __m256i *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static inline void store(uint16_t *to, __m512 value) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(value));
}

/* ---- shapes ---- */

int mdm_winograd_fits(int in, int out, int kernel, int stride) {
    return kernel == 3 && stride == 1 && in % PAIR == 0 && out % PAIR == 0;
}

void mdm_winograd_plan(mdm_winograd *plan, int batch, int in, int out, int height, int width, int threads) {
    *plan = (mdm_winograd){.height = height, .width = width, .in = in, .out = out, .threads = threads};
    plan->tiles_high = (height + 1) / 2;
    plan->tiles_wide = (width + 1) / 2;
    plan->tiles = (int64_t)batch * plan->tiles_high * plan->tiles_wide;
}

/* Tiles of a block whose V fits the cache, no more than give every thread one. */
static int block_tiles(const mdm_winograd *plan, int channels) {
    int64_t fitting = BLOCK_BYTES / (POINTS * 2 * channels) / ROWS * ROWS,
            shared = (plan->tiles + plan->threads - 1) / plan->threads;
    if (fitting > shared) fitting = (shared + ROWS - 1) / ROWS * ROWS;
    return fitting < 2 * ROWS ? 2 * ROWS : (int)fitting;
}

static int chunk_tiles(const mdm_winograd *plan) {
    int fitting = CHUNK_VALUES / (plan->in + plan->out) / 2 * 2;
    if (fitting < CHUNK_AT_LEAST) fitting = CHUNK_AT_LEAST;
    int64_t all = (plan->tiles + 1) / 2 * 2;
    return all < fitting ? (int)all : fitting;
}

/* One thread's V and M of the convolution. */
static size_t block_bytes(const mdm_winograd *plan, int channels) {
    return (size_t)POINTS * block_tiles(plan, channels) * (2 * channels + 4 * PAIR);
}

static size_t gradient_bytes(const mdm_winograd *plan) {
    return (size_t)POINTS *
           ((size_t)chunk_tiles(plan) * 2 * (plan->in + plan->out) + sizeof(float) * plan->in * plan->out);
}

size_t mdm_winograd_scratch_bytes(const mdm_winograd *plan) {
    size_t forward = block_bytes(plan, plan->in), backward = block_bytes(plan, plan->out),
           block = (forward > backward ? forward : backward) * plan->threads, gradient = gradient_bytes(plan);
    return block > gradient ? block : gradient;
}

int64_t mdm_winograd_weight_count(const mdm_winograd *plan) {
    return (int64_t)POINTS * plan->in * plan->out;
}

/* ---- transforms ---- */

/* Where a tile lies: its picture and the first row and column of its outputs. */
typedef struct place {
    int64_t picture;
    int row, column;
} place;

static inline place place_of(const mdm_winograd *plan, int64_t tile) {
    int per_picture = plan->tiles_high * plan->tiles_wide, within = (int)(tile % per_picture);
    return (place){tile / per_picture, within / plan->tiles_wide * 2, within % plan->tiles_wide * 2};
}

static inline const uint16_t *plane_of(const mdm_winograd *plan, const uint16_t *tensor, int channels,
                                       place at, int block) {
    int64_t plane = at.picture * (channels / LANES) + block;
    return tensor + plane * plan->height * plan->width * LANES;
}

/* B' d with B' = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1], along one direction. */
static inline void transform_four(__m512 *d0, __m512 *d1, __m512 *d2, __m512 *d3) {
    __m512 a = _mm512_sub_ps(*d0, *d2), b = _mm512_add_ps(*d1, *d2), c = _mm512_sub_ps(*d2, *d1),
           d = _mm512_sub_ps(*d1, *d3);
    *d0 = a, *d1 = b, *d2 = c, *d3 = d;
}

static inline __attribute__((always_inline)) void
input_transform(const mdm_winograd *plan, const uint16_t *plane, place at, __m512 v[POINTS]) {
    int top = at.row - 1, left = at.column - 1;
    if (top >= 0 && left >= 0 && top + 4 <= plan->height && left + 4 <= plan->width) {
        const uint16_t *from = plane + ((int64_t)top * plan->width + left) * LANES;
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) v[4 * i + j] = load(from + ((int64_t)i * plan->width + j) * LANES);
    } else {
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                int row = top + i, column = left + j;
                int inside = row >= 0 && column >= 0 && row < plan->height && column < plan->width;
                v[4 * i + j] = inside ? load(plane + ((int64_t)row * plan->width + column) * LANES)
                                      : _mm512_setzero_ps();
            }
    }
    for (int j = 0; j < 4; j++) transform_four(&v[j], &v[4 + j], &v[8 + j], &v[12 + j]);
    for (int i = 0; i < 4; i++) transform_four(&v[4 * i], &v[4 * i + 1], &v[4 * i + 2], &v[4 * i + 3]);
}

/* A dy A' with A = [1 0; 1 1; 1 -1; 0 -1]; outputs beyond the picture count nothing. */
static inline __attribute__((always_inline)) void
gradient_transform(const mdm_winograd *plan, const uint16_t *plane, place at, __m512 v[POINTS]) {
    __m512 zero = _mm512_setzero_ps(), half[8];
    const uint16_t *from = plane + ((int64_t)at.row * plan->width + at.column) * LANES;
    int below = at.row + 1 < plan->height, right = at.column + 1 < plan->width;
    int64_t line = (int64_t)plan->width * LANES;
    __m512 d[4] = {load(from), right ? load(from + LANES) : zero, below ? load(from + line) : zero,
                   below && right ? load(from + line + LANES) : zero};
    for (int j = 0; j < 2; j++) {
        half[j] = d[j];
        half[2 + j] = _mm512_add_ps(d[j], d[2 + j]);
        half[4 + j] = _mm512_sub_ps(d[j], d[2 + j]);
        half[6 + j] = _mm512_sub_ps(zero, d[2 + j]);
    }
    for (int i = 0; i < 4; i++) {
        __m512 a = half[2 * i], b = half[2 * i + 1];
        v[4 * i] = a, v[4 * i + 1] = _mm512_add_ps(a, b);
        v[4 * i + 2] = _mm512_sub_ps(a, b), v[4 * i + 3] = _mm512_sub_ps(zero, b);
    }
}

/* A' m with A' = [1 1 1 0; 0 1 -1 -1]. */
static inline void output_four(__m512 m0, __m512 m1, __m512 m2, __m512 m3, __m512 *a, __m512 *b) {
    *a = _mm512_add_ps(_mm512_add_ps(m0, m1), m2);
    *b = _mm512_sub_ps(_mm512_sub_ps(m1, m2), m3);
}

static inline void write_output(const mdm_winograd *plan, uint16_t *plane, place at, int add,
                                const __m512 y[4]) {
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            if (at.row + i >= plan->height || at.column + j >= plan->width) continue;
            uint16_t *to = plane + ((int64_t)(at.row + i) * plan->width + at.column + j) * LANES;
            store(to, add ? _mm512_add_ps(y[2 * i + j], load(to)) : y[2 * i + j]);
        }
}

/* ---- products ---- */

/* c[r][0..31] (+)= sum over steps s of the two products a[r][s] . b[s][0..31]. Strides in bytes; rows of `a`
 * are pairs of bfloat16, a step of `b` is 32 such pairs. */
static inline __attribute__((always_inline)) void product(const int rows, const char *a, const size_t a_row,
                                                          const size_t a_step, const char *b, int steps,
                                                          int add, float *c, size_t c_row) {
    __m512 sum[ROWS][2];
    const char *third[ROWS / 3];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 2; i++)
            sum[r][i] = add ? _mm512_loadu_ps(c + r * c_row + i * LANES) : _mm512_setzero_ps();
    for (int i = 0; i < ROWS / 3; i++) third[i] = a + 3 * i * a_row;
#pragma GCC unroll 2
    for (int s = 0; s < steps; s++) {
        __m512bh b0 = (__m512bh)_mm512_loadu_ps(b + (size_t)s * 4 * PAIR),
                 b1 = (__m512bh)_mm512_loadu_ps(b + (size_t)s * 4 * PAIR + 4 * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, third[r / 3] + (r % 3) * a_row + s * a_step, sizeof pair);
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], both, b0);
            sum[r][1] = _mm512_dpbf16_ps(sum[r][1], both, b1);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 2; i++) _mm512_storeu_ps(c + r * c_row + i * LANES, sum[r][i]);
}

/* ---- convolution ---- */

/* V of `count` tiles from `first`, two channel blocks at a time, so that whole cache lines are written. */
static void transform_block(const mdm_winograd *plan, const uint16_t *x, int channels, int64_t first,
                            int count, int capacity, uint16_t *v) {
    for (int pair = 0; pair < channels / PAIR; pair++)
        for (int t = 0; t < count; t++) {
            place at = place_of(plan, first + t);
            __m512 low[POINTS], high[POINTS];
            input_transform(plan, plane_of(plan, x, channels, at, 2 * pair), at, low);
            input_transform(plan, plane_of(plan, x, channels, at, 2 * pair + 1), at, high);
            for (int p = 0; p < POINTS; p++)
                _mm512_storeu_si512(v + ((size_t)p * capacity + t) * channels + pair * PAIR,
                                    (__m512i)_mm512_cvtne2ps_pbh(high[p], low[p]));
        }
}

/* M of one pair of output blocks, for all tiles of the block (rows beyond `count` are never read). */
static void multiply_block(const uint16_t *v, int channels, int count, int capacity, const uint16_t *u,
                           float *m) {
    const size_t row = sizeof(uint16_t) * channels;
    for (int p = 0; p < POINTS; p++) {
        const char *a = (const char *)(v + (size_t)p * capacity * channels),
                   *b = (const char *)(u + (size_t)p * channels * PAIR);
        float *c = m + (size_t)p * capacity * PAIR;
        int t = 0;
        for (; t + ROWS <= count; t += ROWS)
            product(ROWS, a + t * row, row, 4, b, channels / 2, 0, c + (size_t)t * PAIR, PAIR);
        for (; t < count; t++)
            product(1, a + t * row, row, 4, b, channels / 2, 0, c + (size_t)t * PAIR, PAIR);
    }
}

static void finish_block(const mdm_winograd *plan, const float *m, int64_t first, int count, int capacity,
                         int channels, int pair, int add, uint16_t *y) {
    for (int i = 0; i < 2; i++)
        for (int t = 0; t < count; t++) {
            place at = place_of(plan, first + t);
            const float *from = m + (size_t)t * PAIR + i * LANES;
            __m512 half[8], out[4];
            for (int j = 0; j < 4; j++) {
                __m512 column[4];
                for (int k = 0; k < 4; k++)
                    column[k] = _mm512_loadu_ps(from + (size_t)(4 * k + j) * capacity * PAIR);
                output_four(column[0], column[1], column[2], column[3], &half[j], &half[4 + j]);
            }
            output_four(half[0], half[1], half[2], half[3], &out[0], &out[1]);
            output_four(half[4], half[5], half[6], half[7], &out[2], &out[3]);
            write_output(plan, (uint16_t *)plane_of(plan, y, channels, at, 2 * pair + i), at, add, out);
        }
}

void mdm_winograd_convolve(const mdm_winograd *plan, const uint16_t *x, const uint16_t *transformed,
                           int backward, int add, uint16_t *y, void *scratch) {
    int in = backward ? plan->out : plan->in, out = backward ? plan->in : plan->out;
    int capacity = block_tiles(plan, in);
    int64_t blocks = (plan->tiles + capacity - 1) / capacity;
#pragma omp parallel num_threads(plan->threads)
    {
        char *own = (char *)scratch + block_bytes(plan, in) * (size_t)omp_get_thread_num();
        uint16_t *v = (uint16_t *)own;
        float *m = (float *)(own + sizeof(uint16_t) * POINTS * (size_t)capacity * in);
#pragma omp for schedule(dynamic)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = block * capacity, rest = plan->tiles - first;
            int count = rest < capacity ? (int)rest : capacity;
            transform_block(plan, x, in, first, count, capacity, v);
            for (int pair = 0; pair < out / PAIR; pair++) {
                multiply_block(v, in, count, capacity, transformed + (size_t)pair * POINTS * in * PAIR, m);
                finish_block(plan, m, first, count, capacity, out, pair, add, y);
            }
        }
    }
}

/* ---- weights ---- */

/* G g with G = [1 0 0; .5 .5 .5; .5 -.5 .5; 0 0 1], along one direction. */
static inline void weight_four(float g0, float g1, float g2, float out[4]) {
    out[0] = g0, out[1] = 0.5f * (g0 + g1 + g2), out[2] = 0.5f * (g0 - g1 + g2), out[3] = g2;
}

static void weight_transform(const float *g, int mirrored, float u[POINTS]) {
    float rows[4][3], column[4];
    for (int j = 0; j < 3; j++) {
        int at = mirrored ? 8 - j : j, step = mirrored ? -3 : 3;
        weight_four(g[at], g[at + step], g[at + 2 * step], column);
        for (int i = 0; i < 4; i++) rows[i][j] = column[i];
    }
    for (int i = 0; i < 4; i++) weight_four(rows[i][0], rows[i][1], rows[i][2], u + 4 * i);
}

/* U [pair of output blocks][point][c / 2][32 outputs][2 inputs]. */
void mdm_winograd_set_weights(const mdm_winograd *plan, const float *weights, int out_channels,
                              int in_channels, int backward, uint16_t *transformed) {
    int in = backward ? plan->out : plan->in, out = backward ? plan->in : plan->out;
#pragma omp parallel for schedule(static) num_threads(plan->threads)
    for (int pair = 0; pair < out / PAIR; pair++)
        for (int c = 0; c < in; c++) {
            float u[POINTS][PAIR] = {{0}};
            for (int k = 0; k < PAIR; k++) {
                int source = backward ? pair * PAIR + k : c, target = backward ? c : pair * PAIR + k;
                float points[POINTS];
                if (source >= in_channels || target >= out_channels) continue;
                weight_transform(weights + ((size_t)target * in_channels + source) * 9, backward, points);
                for (int p = 0; p < POINTS; p++) u[p][k] = points[p];
            }
            for (int p = 0; p < POINTS; p++) {
                uint16_t rounded[PAIR];
                uint16_t *to =
                    transformed + (((size_t)pair * POINTS + p) * (in / 2) + c / 2) * 2 * PAIR + c % 2;
                store(rounded, _mm512_loadu_ps(u[p]));
                store(rounded + LANES, _mm512_loadu_ps(u[p] + LANES));
                for (int k = 0; k < PAIR; k++) to[2 * k] = rounded[k];
            }
        }
}

/* ---- gradient of the weights ---- */

/* Transforms of two tiles side by side: [point][pair of channel blocks][t / 2][32 channels][2 tiles]. */
static void transform_couple(const mdm_winograd *plan, const uint16_t *tensor, int channels, int is_input,
                             int64_t first, int couple, int couples, uint16_t *out) {
    static const uint16_t zip[PAIR] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_loadu_si512(zip);
    int64_t tile = first + 2 * couple;
    place at = place_of(plan, tile), next = place_of(plan, tile + 1);
    for (int block = 0; block < channels / LANES; block++) {
        __m512 one[POINTS], other[POINTS];
        for (int p = 0; p < POINTS; p++) other[p] = _mm512_setzero_ps();
        const uint16_t *plane = plane_of(plan, tensor, channels, at, block),
                       *next_plane = plane_of(plan, tensor, channels, next, block);
        if (is_input)
            input_transform(plan, plane, at, one);
        else
            gradient_transform(plan, plane, at, one);
        if (tile + 1 < plan->tiles && is_input)
            input_transform(plan, next_plane, next, other);
        else if (tile + 1 < plan->tiles)
            gradient_transform(plan, next_plane, next, other);
        for (int p = 0; p < POINTS; p++) {
            size_t panel = (size_t)p * (channels / PAIR) + block / 2;
            uint16_t *to = out + ((panel * couples + couple) * PAIR + block % 2 * LANES) * 2;
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(other[p], one[p]);
            _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, both));
        }
    }
}

/* S of one point and 32 input channels, over one chunk. */
static void multiply_chunk(const mdm_winograd *plan, const uint16_t *v, const uint16_t *d, int item,
                           int couples, int count, int add, float *sums) {
    int pairs = plan->in / PAIR, outs = plan->out / PAIR, p = item / pairs, pair = item % pairs;
    const size_t panel = (size_t)couples * PAIR * 2, row = (size_t)plan->out;
    const char *a = (const char *)(v + (size_t)item * panel);
    for (int k = 0; k < outs; k++) {
        const char *b = (const char *)(d + ((size_t)p * outs + k) * panel);
        float *c = sums + ((size_t)p * plan->in + (size_t)pair * PAIR) * row + (size_t)k * PAIR;
        product(ROWS, a, 4, 4 * PAIR, b, count, add, c, row);
        product(ROWS, a + 4 * ROWS, 4, 4 * PAIR, b, count, add, c + ROWS * row, row);
        product(PAIR - 2 * ROWS, a + 8 * ROWS, 4, 4 * PAIR, b, count, add, c + 2 * ROWS * row, row);
    }
}

/* G' s with G as above, along one direction. */
static inline void gradient_three(__m512 s0, __m512 s1, __m512 s2, __m512 s3, __m512 *a, __m512 *b,
                                  __m512 *c) {
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 sum = _mm512_mul_ps(half, _mm512_add_ps(s1, s2));
    *a = _mm512_add_ps(s0, sum);
    *b = _mm512_mul_ps(half, _mm512_sub_ps(s1, s2));
    *c = _mm512_add_ps(sum, s3);
}

/* dw of 16 x 16 channels, gathered here so that whole filters are written. */
static void finish_gradient(const mdm_winograd *plan, const float *sums, int c0, int k0, int out_channels,
                            int in_channels, int accumulate, float *gradient) {
    float taps[LANES][9][LANES];
    for (int c = 0; c < LANES; c++) {
        __m512 rows[3][4], out[3];
        const float *from = sums + (size_t)(c0 + c) * plan->out + k0;
        const size_t point = (size_t)plan->in * plan->out;
        for (int j = 0; j < 4; j++)
            gradient_three(_mm512_loadu_ps(from + j * point), _mm512_loadu_ps(from + (4 + j) * point),
                           _mm512_loadu_ps(from + (8 + j) * point), _mm512_loadu_ps(from + (12 + j) * point),
                           &rows[0][j], &rows[1][j], &rows[2][j]);
        for (int i = 0; i < 3; i++) {
            gradient_three(rows[i][0], rows[i][1], rows[i][2], rows[i][3], &out[0], &out[1], &out[2]);
            for (int j = 0; j < 3; j++) _mm512_storeu_ps(taps[c][3 * i + j], out[j]);
        }
    }
    for (int k = 0; k < LANES && k0 + k < out_channels; k++)
        for (int c = 0; c < LANES && c0 + c < in_channels; c++) {
            float *to = gradient + ((size_t)(k0 + k) * in_channels + c0 + c) * 9;
            for (int i = 0; i < 9; i++) to[i] = accumulate ? to[i] + taps[c][i][k] : taps[c][i][k];
        }
}

void mdm_winograd_weight_gradient(const mdm_winograd *plan, const uint16_t *x, const uint16_t *y_gradient,
                                  int out_channels, int in_channels, int accumulate, float *gradient,
                                  void *scratch) {
    const int chunk = chunk_tiles(plan), couples = chunk / 2, blocks = plan->out / LANES;
    uint16_t *v = scratch, *d = v + (size_t)POINTS * chunk * plan->in;
    float *sums = (float *)(d + (size_t)POINTS * chunk * plan->out);
#pragma omp parallel num_threads(plan->threads)
    {
        for (int64_t first = 0; first < plan->tiles; first += chunk) {
            int64_t rest = plan->tiles - first;
            int count = (int)((rest < chunk ? rest : chunk) + 1) / 2;
#pragma omp for schedule(static)
            for (int couple = 0; couple < count; couple++) {
                transform_couple(plan, x, plan->in, 1, first, couple, couples, v);
                transform_couple(plan, y_gradient, plan->out, 0, first, couple, couples, d);
            }
#pragma omp for schedule(dynamic)
            for (int item = 0; item < POINTS * plan->in / PAIR; item++)
                multiply_chunk(plan, v, d, item, couples, count, first > 0, sums);
        }
#pragma omp for schedule(static) collapse(2)
        for (int c = 0; c < plan->in / LANES; c++)
            for (int k = 0; k < blocks; k++)
                finish_gradient(plan, sums, c * LANES, k * LANES, out_channels, in_channels, accumulate,
                                gradient);
    }
}
