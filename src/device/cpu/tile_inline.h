/* What both files of tile products share. Included where the compiler may use AMX alone. */
#ifndef MDM_DEVICE_CPU_TILE_INLINE_H
#define MDM_DEVICE_CPU_TILE_INLINE_H

#include "tiles.h"
#include <immintrin.h>

enum {
    LANES = 16,    /* rows of a tile, and columns of sums */
    PICTURES = 32, /* at a time: two tiles of rows, or one tile of a common dimension */
    TILE = 512,    /* bfloat16 values of a tile: 16 x 32 */
    SUMS = 256     /* sums in single precision of a tile: 16 x 16 */
};

typedef struct __attribute__((packed)) tile_layout {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_layout;

/* All eight tiles: 16 rows of 64 bytes. Each thread needs it before its first product, and _tile_release
 * behind its last. */
static inline void configure_tiles(void) {
    tile_layout layout = {.palette = 1};
    for (int i = 0; i < 8; i++) layout.row_bytes[i] = 64, layout.rows[i] = LANES;
    _tile_loadconfig(&layout);
}

/* Tiles 0 to 3 hold sums: two groups of rows by two of columns. */
static inline void zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static inline void store_sums(float *sums) {
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + SUMS, 64);
    _tile_stored(2, sums + 2 * SUMS, 64);
    _tile_stored(3, sums + 3 * SUMS, 64);
}

static inline int groups_of(int count, int size) {
    return (count + size - 1) / size;
}

static inline void *aligned(void *memory) {
    return (void *)(((uintptr_t)memory + 63) / 64 * 64);
}

#endif
