/* 3x3 convolutions of stride 1 in bfloat16 by Winograd's algorithm F(2x2, 3x3) (Lavin and Gray, "Fast
 * Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1): 16 products in place of 36 for each
 * four outputs. oneDNN has it in single precision only.
 *
 * Tensors are [N,C/16,H,W,16] bfloat16. Inputs are transformed by additions in single precision, rounded to
 * bfloat16 (the one rounding that a direct convolution does not have), multiplied in bfloat16 with sums in
 * single precision. Tiles of 2x2 outputs are numbered over the whole batch; no result depends on the number
 * of threads.
 */
#ifndef MDM_DEVICE_CPU_WINOGRAD_H
#define MDM_DEVICE_CPU_WINOGRAD_H

#include <stddef.h>
#include <stdint.h>

enum { MDM_WINOGRAD_BLOCK = 16 }; /* channels of a block */

typedef struct mdm_winograd {
    int height, width, tiles_high, tiles_wide;
    int in, out; /* channels, multiples of 32 */
    int64_t tiles;
    int threads;
} mdm_winograd;

/* Whether the shape has enough channels, in whole pairs of blocks, for the algorithm to pay. */
int mdm_winograd_fits(int in, int out, int kernel, int stride);
void mdm_winograd_plan(mdm_winograd *plan, int batch, int in, int out, int height, int width, int threads);
/* Scratch memory of the operations, for all threads. */
size_t mdm_winograd_scratch_bytes(const mdm_winograd *plan);
/* Number of transformed weights, the same for both directions. */
int64_t mdm_winograd_weight_count(const mdm_winograd *plan);

/* Transforms weights [out_channels,in_channels,3,3]; channels beyond them are zero. `backward`: for the
 * gradient of the input, that is mirrored and with in and out exchanged. */
void mdm_winograd_set_weights(const mdm_winograd *plan, const float *weights, int out_channels,
                              int in_channels, int backward, uint16_t *transformed);
/* y = x * w, or y += with `add`. With backward weights: x has plan->out channels, y plan->in. */
void mdm_winograd_convolve(const mdm_winograd *plan, const uint16_t *x, const uint16_t *transformed,
                           int backward, int add, uint16_t *y, void *scratch);
/* gradient [out_channels,in_channels,3,3], added to with `accumulate`. */
void mdm_winograd_weight_gradient(const mdm_winograd *plan, const uint16_t *x, const uint16_t *y_gradient,
                                  int out_channels, int in_channels, int accumulate, float *gradient,
                                  void *scratch);

#endif
