/* The loops of the neighbour search over one tile of similarities, for one instruction set
 * (MDM_KERNEL_LEVEL). Written so that the compiler vectorises them: a block of scores is compared as a whole,
 * and only a block with a hit, which is rare once the lists have filled, is looked at one by one. */
#include "kernel_names.h"

enum { BLOCK = 64 };

double MDM_KERNEL(knn_dot)(const float *a, const float *b, int64_t n) {
    typedef double lanes __attribute__((vector_size(64)));
    typedef float narrow __attribute__((vector_size(32)));
    lanes sum0 = {0}, sum1 = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        narrow a0, a1, b0, b1;
        __builtin_memcpy(&a0, a + i, sizeof a0);
        __builtin_memcpy(&b0, b + i, sizeof b0);
        __builtin_memcpy(&a1, a + i + 8, sizeof a1);
        __builtin_memcpy(&b1, b + i + 8, sizeof b1);
        sum0 += __builtin_convertvector(a0, lanes) * __builtin_convertvector(b0, lanes);
        sum1 += __builtin_convertvector(a1, lanes) * __builtin_convertvector(b1, lanes);
    }
    sum0 += sum1;
    double rest = 0;
    for (; i < n; i++) rest += (double)a[i] * (double)b[i];
    return (((sum0[0] + sum0[4]) + (sum0[2] + sum0[6])) + ((sum0[1] + sum0[5]) + (sum0[3] + sum0[7]))) + rest;
}

int64_t MDM_KERNEL(knn_scan_row)(const float *scores, int32_t columns, float row_threshold, int32_t row,
                                 mdm_knn_hit *hits) {
    int64_t count = 0;
    for (int32_t start = 0; start < columns; start += BLOCK) {
        int32_t end = start + BLOCK;
        if (end <= columns) {
            int any = 0;
            for (int32_t c = start; c < start + BLOCK; c++) any |= scores[c] > row_threshold;
            if (!any) continue;
        } else {
            end = columns;
        }
        for (int32_t c = start; c < end; c++)
            if (scores[c] > row_threshold) hits[count++] = (mdm_knn_hit){row, c, scores[c]};
    }
    return count;
}

int64_t MDM_KERNEL(knn_scan_both)(const float *scores, int32_t columns, float row_threshold,
                                  const float *column_threshold, int32_t row, mdm_knn_hit *hits,
                                  mdm_knn_hit *column_hits, int64_t *column_count) {
    int64_t count = 0, column_hit = *column_count;
    for (int32_t start = 0; start < columns; start += BLOCK) {
        int32_t end = start + BLOCK;
        if (end <= columns) {
            int any = 0;
            for (int32_t c = start; c < start + BLOCK; c++)
                any |= (scores[c] > row_threshold) | (scores[c] > column_threshold[c]);
            if (!any) continue;
        } else {
            end = columns;
        }
        for (int32_t c = start; c < end; c++) {
            if (scores[c] > row_threshold) hits[count++] = (mdm_knn_hit){row, c, scores[c]};
            if (scores[c] > column_threshold[c]) column_hits[column_hit++] = (mdm_knn_hit){c, row, scores[c]};
        }
    }
    *column_count = column_hit;
    return count;
}
