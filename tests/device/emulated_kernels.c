/* Kernels of the emulated device: every thread of every launch, one after another. A block goes through a
 * launch as a whole; its threads go through one phase before any begins the next. In which order threads and
 * blocks come is drawn anew for each phase and each launch (emulated_draw_order), so that what a barrier is
 * missing for, and what one block of a launch has from another, shows. */
#include "emulated_gpu.h"
#include <stdlib.h>
#include <string.h>

/* A grid that a device would refuse ends the test. */
static void check_grid(uint32_t blocks, uint32_t block_rows) {
    if (blocks > 2147483647u || block_rows == 0 || block_rows > 65535 ||
        (uint64_t)blocks * block_rows > UINT32_MAX)
        emulated_refuse("a grid of %u x %u blocks", blocks, block_rows);
}

/* The blocks of a launch, in their order. */
typedef struct grid {
    emulated_order order;
    uint32_t blocks;
} grid;

static grid draw_grid(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows) {
    return (grid){emulated_draw_order(gpu, blocks * block_rows), blocks};
}

static mdm_gpu_thread block_of(const grid *g, uint32_t i) {
    uint32_t number = emulated_number(&g->order, i);
    return (mdm_gpu_thread){number % g->blocks, 0, number / g->blocks};
}

#define FOR_BLOCKS(t)                                                                                        \
    const grid launch_grid = draw_grid(gpu, blocks, block_rows);                                             \
    mdm_gpu_thread t;                                                                                        \
    for (uint32_t at = 0; at < launch_grid.order.n && (t = block_of(&launch_grid, at), 1); at++)
/* `what` by all threads of a block. */
#define BY_ALL_THREADS(t, what)                                                                              \
    do {                                                                                                     \
        const emulated_order thread_order = emulated_draw_order(gpu, MDM_GPU_THREADS);                       \
        for (uint32_t in_block = 0; in_block < MDM_GPU_THREADS; in_block++) {                                \
            t.thread = emulated_number(&thread_order, in_block);                                             \
            what;                                                                                            \
        }                                                                                                    \
    } while (0)

/* A launch is queued with a copy of its arguments; the body behind it runs it. */
#define LAUNCH(name, argument_type)                                                                          \
    typedef struct name##_launch {                                                                           \
        uint32_t blocks, block_rows;                                                                         \
        argument_type a;                                                                                     \
    } name##_launch;                                                                                         \
    static void run_##name(mdm_gpu *gpu, const void *launched);                                              \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const argument_type *given) {    \
        name##_launch launch = {.blocks = blocks, .block_rows = block_rows};                                 \
        launch.a = *given;                                                                                   \
        check_grid(blocks, block_rows);                                                                      \
        emulated_queue_call(gpu, #name, run_##name, &launch, sizeof launch, &gpu->counts.launches);          \
    }                                                                                                        \
    static void run_##name(mdm_gpu *gpu, const void *launched)
#define TAKE_LAUNCH(name, argument_type)                                                                     \
    const argument_type a = ((const name##_launch *)launched)->a;                                            \
    const uint32_t blocks = ((const name##_launch *)launched)->blocks,                                       \
                   block_rows = ((const name##_launch *)launched)->block_rows

#define RUN_SIMPLE(name, arguments)                                                                          \
    LAUNCH(name, arguments) {                                                                                \
        TAKE_LAUNCH(name, arguments);                                                                        \
        FOR_BLOCKS(t) {                                                                                      \
            BY_ALL_THREADS(t, mdm_##name##_thread(&a, t));                                                   \
        }                                                                                                    \
    }
/* Shared memory begins with noise: a kernel may not count on zeros. */
#define RUN_SUMMING(name, arguments, rest)                                                                   \
    LAUNCH(name, arguments) {                                                                                \
        static double shared[MDM_GPU_SHARED];                                                                \
        TAKE_LAUNCH(name, arguments);                                                                        \
        FOR_BLOCKS(t) {                                                                                      \
            memset(shared, 0x7f, sizeof shared);                                                             \
            BY_ALL_THREADS(t, mdm_##name##_thread(&a, t, shared));                                           \
            BY_ALL_THREADS(t, mdm_##rest##_thread(&a, t, shared));                                           \
        }                                                                                                    \
    }
#define RUN_ROWS(name, arguments, phases)                                                                    \
    LAUNCH(name, arguments) {                                                                                \
        static double shared[MDM_GPU_SLOTS * MDM_GPU_THREADS];                                               \
        TAKE_LAUNCH(name, arguments);                                                                        \
        FOR_BLOCKS(t) {                                                                                      \
            memset(shared, 0x7f, sizeof shared);                                                             \
            for (int phase = 0; phase < (phases); phase++)                                                   \
                BY_ALL_THREADS(t, mdm_##name##_thread(&a, t, phase, shared));                                \
        }                                                                                                    \
    }
/* Every thread must see the same number of stages, or the device would wait for ever. */
#define RUN_STAGED(name, arguments, shared_memory)                                                           \
    LAUNCH(name, arguments) {                                                                                \
        static shared_memory shared;                                                                         \
        TAKE_LAUNCH(name, arguments);                                                                        \
        FOR_BLOCKS(t) {                                                                                      \
            const uint32_t stages = mdm_##name##_stages(&a, t);                                              \
            memset(&shared, 0x7f, sizeof shared);                                                            \
            BY_ALL_THREADS(t, if (mdm_##name##_stages(&a, t) != stages) abort());                            \
            for (uint32_t stage = 0; stage < stages; stage++)                                                \
                BY_ALL_THREADS(t, mdm_##name##_stage(&a, t, &shared, stage));                                \
        }                                                                                                    \
    }
MDM_GPU_KERNELS(RUN_SIMPLE, RUN_SUMMING)
MDM_GPU_HEAD_KERNELS(RUN_SIMPLE, RUN_ROWS)
MDM_GPU_NEIGHBOUR_KERNELS(RUN_SIMPLE, RUN_STAGED)
MDM_GPU_MIXTURE_KERNELS(RUN_SIMPLE, RUN_STAGED)

#define RUN_PHASED(name, arguments)                                                                          \
    typedef struct name##_launch {                                                                           \
        uint32_t blocks;                                                                                     \
        size_t shared_bytes;                                                                                 \
        arguments a;                                                                                         \
    } name##_launch;                                                                                         \
    static void run_##name(mdm_gpu *gpu, const void *launched) {                                             \
        const arguments a = ((const name##_launch *)launched)->a;                                            \
        const uint32_t blocks = ((const name##_launch *)launched)->blocks, block_rows = 1;                   \
        const size_t shared_bytes = ((const name##_launch *)launched)->shared_bytes;                         \
        uint8_t *shared = malloc(shared_bytes + 1);                                                          \
        if (!shared || shared_bytes > MDM_VIEW_SHARED) abort();                                              \
        FOR_BLOCKS(t) {                                                                                      \
            memset(shared, EMULATED_CANARY, shared_bytes + 1);                                               \
            for (uint32_t phase = 0; phase < mdm_##name##_phases(&a, t.block); phase++)                      \
                BY_ALL_THREADS(t, mdm_##name##_phase(&a, t, shared, phase));                                 \
            if (shared[shared_bytes] != EMULATED_CANARY) abort();                                            \
        }                                                                                                    \
        free(shared);                                                                                        \
    }                                                                                                        \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, size_t shared, const arguments *given) {              \
        name##_launch launch = {.blocks = blocks, .shared_bytes = shared};                                   \
        launch.a = *given;                                                                                   \
        check_grid(blocks, 1);                                                                               \
        emulated_queue_call(gpu, #name, run_##name, &launch, sizeof launch, &gpu->counts.launches);          \
    }
MDM_GPU_PHASED_KERNELS(RUN_PHASED)
