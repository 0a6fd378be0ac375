/* Convolutions in bfloat16 by the processor's products of matrix tiles (AMX), for every kernel of 1x1 or 3x3
 * and stride of 1 or 2. oneDNN 2.6 lays the pixels of a row into a tile, and runs at a fifth of the speed
 * where rows are short or strided; here the rows of a tile are pictures.
 *
 * For one pixel of the result, the places that its taps read are the same in every picture. With 32 pictures
 * at a time each tap of each pixel is a product of whole matrices, [pictures, channels] by [channels, result
 * channels], for any size and stride; taps beyond the border are left out. For the gradient of the weights
 * the pictures are the common dimension: dw[k][c] = sum over pixels and pictures dy[p][k] x[tap of p][c].
 *
 * Tensors are [N,H,W,C] bfloat16 with channels in multiples of 16. Sums are made in single precision and in
 * a fixed order: no result depends on the number of threads.
 */
#ifndef MDM_DEVICE_CPU_TILES_H
#define MDM_DEVICE_CPU_TILES_H

#include <stddef.h>
#include <stdint.h>

typedef struct mdm_tile_shape {
    int batch, in, out; /* channels in multiples of 16 */
    int height, width, out_height, out_width;
    int kernel, stride; /* padded by kernel / 2 */
    int threads;
} mdm_tile_shape;

/* tile_convolution.c */

/* Bytes of scratch memory that any of the operations takes. */
size_t mdm_tile_scratch_bytes(const mdm_tile_shape *shape);
/* Number of values of weights in tiles, for one direction. */
int64_t mdm_tile_weight_count(const mdm_tile_shape *shape);
/* Weights [out_channels,in_channels,kernel,kernel] in the order in which tiles are multiplied; channels
 * beyond them are zero. `backward`: for the gradient of the input. */
void mdm_tile_weights(const mdm_tile_shape *shape, const float *weights, int out_channels, int in_channels,
                      int backward, uint16_t *tiles);
/* y = x * w, or y += with `add`. */
void mdm_tile_forward(const mdm_tile_shape *shape, const uint16_t *x, const uint16_t *weights, int add,
                      uint16_t *y, void *scratch);
/* The gradient of x from that of y. */
void mdm_tile_backward_data(const mdm_tile_shape *shape, const uint16_t *y_gradient, const uint16_t *weights,
                            uint16_t *x_gradient, void *scratch);

/* tile_gradient.c */

size_t mdm_tile_gradient_scratch_bytes(const mdm_tile_shape *shape);
/* gradient [out_channels,in_channels,kernel,kernel], added to with `accumulate`. */
void mdm_tile_backward_weights(const mdm_tile_shape *shape, const uint16_t *x, const uint16_t *y_gradient,
                               int out_channels, int in_channels, int accumulate, float *gradient,
                               void *scratch);

#endif
