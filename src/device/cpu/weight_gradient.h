/* Gradients of the weights of 3x3 convolutions of stride 1 in bfloat16 by the processor's matrix products
 * (AMX). oneDNN 2.6 has them too, at a third of the speed.
 *
 * Tensors are [N,H,W,C] bfloat16. For each of the nine taps the gradient is a product of matrices whose
 * common dimension is the pixel: dw[k][c] = sum_p dy[p][k] x[p + tap][c]. Pixels are laid on one line with a
 * zero between rows and a row of zeros between pictures, so that a tap is a constant distance. Sums are made
 * in single precision and a fixed order: no result depends on the number of threads.
 */
#ifndef MDM_DEVICE_CPU_WEIGHT_GRADIENT_H
#define MDM_DEVICE_CPU_WEIGHT_GRADIENT_H

#include <stddef.h>
#include <stdint.h>

typedef struct mdm_weight_gradient {
    int batch, in, out, height, width, threads; /* channels in whole blocks of 16 */
    int row, picture;                           /* places on the line */
    int pictures;                               /* at most that are laid out at a time */
    int steps;                                  /* of 32 places, that they take */
} mdm_weight_gradient;

int mdm_weight_gradient_fits(int in, int out, int kernel, int stride);
void mdm_weight_gradient_plan(mdm_weight_gradient *plan, int batch, int in, int out, int height, int width,
                              int threads);
size_t mdm_weight_gradient_scratch_bytes(const mdm_weight_gradient *plan);
/* gradient [out_channels,in_channels,3,3], added to with `accumulate`. */
void mdm_weight_gradient_compute(const mdm_weight_gradient *plan, const uint16_t *x,
                                 const uint16_t *y_gradient, int out_channels, int in_channels,
                                 int accumulate, float *gradient, void *scratch);

#endif
