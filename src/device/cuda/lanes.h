/* What all kernels are made of: threads, and tensors in pieces of 8 channels. */
#ifndef MDM_DEVICE_CUDA_LANES_H
#define MDM_DEVICE_CUDA_LANES_H

#include "mdm/device/formulas.h"
#include <stddef.h>
#include <stdint.h>

enum {
    MDM_GPU_THREADS = 256,    /* of every block */
    MDM_GPU_LANES = 8,        /* channels per thread */
    MDM_GPU_COLUMN = 256 + 1, /* doubles of a sum of a summing block, one a thread; odd to keep banks apart */
    MDM_GPU_SHARED = 16 * MDM_GPU_COLUMN, /* 8 channels, two sums */
    MDM_GPU_AHEAD = 4,                    /* pixels that a thread asks for at once, at most */
    MDM_GPU_RUN = 64,                     /* values summed in single precision before going on in double */
    MDM_GPU_BLOCKS = 396,                 /* that are at work at once: 3 on each of 132 multiprocessors */
    MDM_GPU_SLICES = 16,                  /* of the blocks' sums, each added by a thread of its own */
    MDM_GPU_SLICE = (MDM_GPU_BLOCKS + MDM_GPU_SLICES - 1) / MDM_GPU_SLICES
};

#ifdef __CUDA_ARCH__
#define MDM_UNROLLED      _Pragma("unroll")
#define MDM_UNROLLED_BY_8 _Pragma("unroll 8")
#else
#define MDM_UNROLLED
#define MDM_UNROLLED_BY_8
#endif

/* Where a thread stands in its launch. */
typedef struct mdm_gpu_thread {
    uint32_t block, thread, block_row; /* blockIdx.x, threadIdx.x, blockIdx.y */
} mdm_gpu_thread;

typedef struct mdm_lanes {
    float v[MDM_GPU_LANES];
} mdm_lanes;

typedef struct __attribute__((aligned(16), may_alias)) mdm_gpu_word {
    uint32_t part[4];
} mdm_gpu_word;

/* 8 channels as they lie in memory; in bfloat16 the second word is unused. */
typedef struct mdm_gpu_vector {
    mdm_gpu_word word[2];
} mdm_gpu_vector;

/* Vector number i of a tensor. */
MDM_BOTH mdm_gpu_vector mdm_fetch(const void *tensor, size_t i, int bf16) {
    const mdm_gpu_word *words = (const mdm_gpu_word *)tensor + (bf16 ? i : 2 * i);
    mdm_gpu_vector out;
    out.word[0] = words[0];
    out.word[1] = bf16 ? out.word[0] : words[1];
    return out;
}

MDM_BOTH mdm_lanes mdm_lanes_of(mdm_gpu_vector vector, int bf16) {
    mdm_lanes out;
    for (int k = 0; k < 4; k++) {
        mdm_float_bits a, b;
        a.bits = vector.word[0].part[k];
        b.bits = vector.word[1].part[k];
        out.v[bf16 ? 2 * k : k] = bf16 ? mdm_float_of_bf16(a.bits & 0xffffu) : a.value;
        out.v[bf16 ? 2 * k + 1 : 4 + k] = bf16 ? mdm_float_of_bf16(a.bits >> 16) : b.value;
    }
    return out;
}

MDM_BOTH mdm_lanes mdm_load_lanes(const void *tensor, size_t i, int bf16) {
    return mdm_lanes_of(mdm_fetch(tensor, i, bf16), bf16);
}

/* Two values, rounded as mdm_bf16_of does (of NaN the device keeps no payload); the first in the lower half.
 */
MDM_BOTH uint32_t mdm_bf16_pair(float low, float high) {
#ifdef __CUDA_ARCH__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return mdm_bf16_of(low) | (mdm_bf16_of(high) << 16);
#endif
}

/* Writes the vector; `values` are then what was written. */
MDM_BOTH void mdm_store_rounded(void *tensor, size_t i, int bf16, mdm_lanes *values) {
    mdm_gpu_word *words = (mdm_gpu_word *)tensor + (bf16 ? i : 2 * i);
    mdm_gpu_vector out;
    for (int k = 0; k < 4; k++) {
        mdm_float_bits a, b;
        a.value = values->v[k];
        b.value = values->v[4 + k];
        out.word[0].part[k] = bf16 ? mdm_bf16_pair(values->v[2 * k], values->v[2 * k + 1]) : a.bits;
        out.word[1].part[k] = b.bits;
    }
    words[0] = out.word[0];
    if (!bf16) words[1] = out.word[1];
    if (bf16) *values = mdm_lanes_of(out, bf16);
}

MDM_BOTH void mdm_store_lanes(void *tensor, size_t i, int bf16, mdm_lanes values) {
    mdm_store_rounded(tensor, i, bf16, &values);
}

MDM_BOTH mdm_lanes mdm_channel_lanes(const float *channels, uint32_t group) {
    return mdm_load_lanes(channels, group, 0);
}

MDM_BOTH mdm_lanes mdm_sum_of_lanes(const void *a, const void *b, size_t i, int bf16) {
    mdm_lanes out = mdm_load_lanes(a, i, bf16);
    if (b) {
        mdm_lanes more = mdm_load_lanes(b, i, bf16);
        for (int k = 0; k < MDM_GPU_LANES; k++) out.v[k] += more.v[k];
    }
    return out;
}

MDM_BOTH uint32_t mdm_thread_number(mdm_gpu_thread t) {
    return t.block * MDM_GPU_THREADS + t.thread;
}

/* Atomic operations: other threads may do such at the same place, and are ordered by none of them. */
MDM_BOTH uint32_t mdm_atomic_add(uint32_t *place, uint32_t value) {
#ifdef __CUDA_ARCH__
    return atomicAdd(place, value);
#else
    return __atomic_fetch_add(place, value, __ATOMIC_RELAXED);
#endif
}

MDM_BOTH void mdm_atomic_add_long(unsigned long long *place, unsigned long long value) {
#ifdef __CUDA_ARCH__
    atomicAdd(place, value);
#else
    (void)__atomic_fetch_add(place, value, __ATOMIC_RELAXED);
#endif
}

MDM_BOTH void mdm_atomic_max(uint32_t *place, uint32_t value) {
#ifdef __CUDA_ARCH__
    atomicMax(place, value);
#else
    uint32_t before = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (before < value &&
           !__atomic_compare_exchange_n(place, &before, value, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
#endif
}

MDM_BOTH void mdm_atomic_min(uint32_t *place, uint32_t value) {
#ifdef __CUDA_ARCH__
    atomicMin(place, value);
#else
    uint32_t before = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (before > value &&
           !__atomic_compare_exchange_n(place, &before, value, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
#endif
}

#endif
