/* Antialiased bilinear resizing in fixed point: every output pixel is a weighted sum of the input pixels
 * under a triangle as wide as the reduction, first along rows, then along columns. */
#include "mdm/data/picture.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRACTION = 22
}; /* bits of a weight behind the point: 8 for the pixel and 2 for the sum remain of 32 */

/* Output i is the sum over k < count[i] of weight[i * most + k] * input[first[i] + k]. */
typedef struct kernel {
    int most, *first, *count;
    int32_t *weight;
} kernel;

static void free_kernel(kernel *k) {
    free(k->first);
    free(k->count);
    free(k->weight);
}

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static mdm_status make_kernel(int in, int out, kernel *k) {
    double scale = (double)in / out, reach = scale > 1.0 ? scale : 1.0, *row = NULL;
    k->most = (int)ceil(reach) * 2 + 1;
    mdm_status status = MDM_ALLOCATE(k->first, out, "resizing");
    if (status == MDM_OK) status = MDM_ALLOCATE(k->count, out, "resizing");
    if (status == MDM_OK) status = MDM_ALLOCATE(k->weight, (int64_t)out * k->most, "resizing");
    if (status == MDM_OK) status = MDM_ALLOCATE(row, k->most, "resizing");
    for (int i = 0; status == MDM_OK && i < out; i++) {
        double center = (i + 0.5) * scale, sum = 0, inverse = 1.0 / reach;
        int first = (int)(center - reach + 0.5), end = (int)(center + reach + 0.5);
        if (first < 0) first = 0;
        if (end > in) end = in;
        for (int x = first; x < end; x++) sum += row[x - first] = triangle((x - center + 0.5) * inverse);
        for (int x = 0; x < end - first; x++)
            k->weight[(int64_t)i * k->most + x] =
                (int32_t)(0.5 + (sum != 0.0 ? row[x] / sum : row[x]) * (1 << FRACTION));
        k->first[i] = first;
        k->count[i] = end - first;
    }
    free(row);
    return status;
}

static uint8_t round_sum(int32_t sum) {
    sum >>= FRACTION;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void resize_rows(const uint8_t *in, int height, int in_width, int channels, int width, const kernel *k,
                        uint8_t *out) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++) {
                const int32_t *w = k->weight + (int64_t)x * k->most;
                const uint8_t *from = in + ((int64_t)y * in_width + k->first[x]) * channels + c;
                int32_t sum = 1 << (FRACTION - 1);
                for (int i = 0; i < k->count[x]; i++) sum += from[i * channels] * w[i];
                out[((int64_t)y * width + x) * channels + c] = round_sum(sum);
            }
}

static void resize_columns(const uint8_t *in, int64_t stride, int height, const kernel *k, int32_t *sums,
                           uint8_t *out) {
    for (int y = 0; y < height; y++) {
        const int32_t *w = k->weight + (int64_t)y * k->most;
        for (int64_t x = 0; x < stride; x++) sums[x] = 1 << (FRACTION - 1);
        for (int i = 0; i < k->count[y]; i++) {
            const uint8_t *from = in + (k->first[y] + i) * stride;
            for (int64_t x = 0; x < stride; x++) sums[x] += from[x] * w[i];
        }
        for (int64_t x = 0; x < stride; x++) out[y * stride + x] = round_sum(sums[x]);
    }
}

mdm_status mdm_picture_resize(const uint8_t *in, int in_height, int in_width, int channels, int height,
                              int width, uint8_t *out) {
    kernel across = {0}, down = {0};
    uint8_t *middle = NULL;
    int32_t *sums = NULL;
    int64_t stride = (int64_t)width * channels;
    mdm_status status = make_kernel(in_width, width, &across);
    if (status == MDM_OK) status = make_kernel(in_height, height, &down);
    if (status == MDM_OK) status = MDM_ALLOCATE(middle, in_height * stride, "resizing");
    if (status == MDM_OK) status = MDM_ALLOCATE(sums, stride, "resizing");
    if (status == MDM_OK) {
        if (width == in_width)
            memcpy(middle, in, (size_t)(in_height * stride));
        else
            resize_rows(in, in_height, in_width, channels, width, &across, middle);
        if (height == in_height)
            memcpy(out, middle, (size_t)(height * stride));
        else
            resize_columns(middle, stride, height, &down, sums, out);
    }
    free_kernel(&across);
    free_kernel(&down);
    free(middle);
    free(sums);
    return status;
}
