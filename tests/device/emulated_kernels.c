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

emulated_grid emulated_draw_grid(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows) {
    return (emulated_grid){emulated_draw_order(gpu, blocks * block_rows), blocks, 0};
}

int emulated_next_block(mdm_gpu *gpu, emulated_grid *g, void *shared, size_t bytes, emulated_thread *t) {
    if (g->next == g->order.n) {
        emulated_end_launch(gpu);
        return 0;
    }
    uint32_t number = emulated_number(&g->order, g->next++);
    t->at = (mdm_gpu_thread){number % g->blocks, 0, number / g->blocks};
    t->shared = (char *)shared + bytes * emulated_begin_block(gpu);
    return 1;
}

void emulated_run_phase(mdm_gpu *gpu, emulated_thread_runner *run, emulated_thread t, uint32_t phase) {
    const emulated_order order = emulated_draw_order(gpu, MDM_GPU_THREADS);
    t.phase = phase;
    for (uint32_t i = 0; i < MDM_GPU_THREADS; i++) {
        t.at.thread = emulated_number(&order, i);
        emulated_run_thread(gpu, run, t);
    }
    emulated_end_phase(gpu);
}

static void fill_with_noise(const emulated_thread *t) {
    memset(t->shared, 0x7f, t->phase);
}

/* Shared memory begins with noise: a kernel may not count on zeros. */
static void make_noise(mdm_gpu *gpu, emulated_thread t, size_t bytes) {
    t.phase = (uint32_t)bytes;
    emulated_run_thread(gpu, fill_with_noise, t);
    emulated_end_phase(gpu);
}

#define FOR_BLOCKS(t, shared, bytes)                                                                         \
    emulated_thread t = {.arguments = &a};                                                                   \
    for (emulated_grid g = emulated_draw_grid(gpu, blocks, block_rows);                                      \
         emulated_next_block(gpu, &g, shared, bytes, &t);)
#define BY_ALL_THREADS(name, t, phase) emulated_run_phase(gpu, thread_of_##name, t, phase)

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

#define RUN_SIMPLE(name, arguments_type)                                                                     \
    static void thread_of_##name(const emulated_thread *t) {                                                 \
        mdm_##name##_thread(t->arguments, t->at);                                                            \
    }                                                                                                        \
    LAUNCH(name, arguments_type) {                                                                           \
        TAKE_LAUNCH(name, arguments_type);                                                                   \
        FOR_BLOCKS(t, &t, 0) BY_ALL_THREADS(name, t, 0);                                                     \
    }
#define RUN_SUMMING(name, arguments_type, rest)                                                              \
    static void thread_of_##name(const emulated_thread *t) {                                                 \
        if (t->phase == 0)                                                                                   \
            mdm_##name##_thread(t->arguments, t->at, t->shared);                                             \
        else                                                                                                 \
            mdm_##rest##_thread(t->arguments, t->at, t->shared);                                             \
    }                                                                                                        \
    LAUNCH(name, arguments_type) {                                                                           \
        static double shared[EMULATED_GROUPS][MDM_GPU_SHARED];                                               \
        TAKE_LAUNCH(name, arguments_type);                                                                   \
        FOR_BLOCKS(t, shared, sizeof *shared) {                                                              \
            make_noise(gpu, t, sizeof *shared);                                                              \
            for (uint32_t phase = 0; phase < 2; phase++) BY_ALL_THREADS(name, t, phase);                     \
        }                                                                                                    \
    }
#define RUN_ROWS(name, arguments_type, phases)                                                               \
    static void thread_of_##name(const emulated_thread *t) {                                                 \
        mdm_##name##_thread(t->arguments, t->at, (int)t->phase, t->shared);                                  \
    }                                                                                                        \
    LAUNCH(name, arguments_type) {                                                                           \
        static double shared[EMULATED_GROUPS][MDM_GPU_SLOTS * MDM_GPU_THREADS];                              \
        TAKE_LAUNCH(name, arguments_type);                                                                   \
        FOR_BLOCKS(t, shared, sizeof *shared) {                                                              \
            make_noise(gpu, t, sizeof *shared);                                                              \
            for (uint32_t phase = 0; phase < (phases); phase++) BY_ALL_THREADS(name, t, phase);              \
        }                                                                                                    \
    }
/* Every thread must see the same number of stages, or the device would wait for ever. */
#define RUN_STAGED(name, arguments_type, shared_memory)                                                      \
    static void check_stages_of_##name(const emulated_thread *t) {                                           \
        if (mdm_##name##_stages(t->arguments, t->at) != t->phase) abort();                                   \
    }                                                                                                        \
    static void thread_of_##name(const emulated_thread *t) {                                                 \
        mdm_##name##_stage(t->arguments, t->at, t->shared, t->phase);                                        \
    }                                                                                                        \
    LAUNCH(name, arguments_type) {                                                                           \
        static shared_memory shared[EMULATED_GROUPS];                                                        \
        TAKE_LAUNCH(name, arguments_type);                                                                   \
        FOR_BLOCKS(t, shared, sizeof *shared) {                                                              \
            const uint32_t stages = mdm_##name##_stages(&a, t.at);                                           \
            make_noise(gpu, t, sizeof *shared);                                                              \
            emulated_run_phase(gpu, check_stages_of_##name, t, stages);                                      \
            for (uint32_t stage = 0; stage < stages; stage++) BY_ALL_THREADS(name, t, stage);                \
        }                                                                                                    \
    }
MDM_GPU_KERNELS(RUN_SIMPLE, RUN_SUMMING)
MDM_GPU_HEAD_KERNELS(RUN_SIMPLE, RUN_ROWS)
MDM_GPU_NEIGHBOUR_KERNELS(RUN_SIMPLE, RUN_STAGED)
MDM_GPU_MIXTURE_KERNELS(RUN_SIMPLE, RUN_STAGED)

/* A byte behind each block's shared memory shows what is written beyond it. */
#define RUN_PHASED(name, arguments_type)                                                                     \
    typedef struct name##_launch {                                                                           \
        uint32_t blocks;                                                                                     \
        size_t shared_bytes;                                                                                 \
        arguments_type a;                                                                                    \
    } name##_launch;                                                                                         \
    static void thread_of_##name(const emulated_thread *t) {                                                 \
        mdm_##name##_phase(t->arguments, t->at, t->shared, t->phase);                                        \
    }                                                                                                        \
    static void run_##name(mdm_gpu *gpu, const void *launched) {                                             \
        const arguments_type a = ((const name##_launch *)launched)->a;                                       \
        const uint32_t blocks = ((const name##_launch *)launched)->blocks, block_rows = 1;                   \
        const size_t bytes = ((const name##_launch *)launched)->shared_bytes, step = bytes / 16 * 16 + 16;   \
        uint8_t *shared = malloc(EMULATED_GROUPS * step);                                                    \
        if (!shared || bytes > MDM_VIEW_SHARED) abort();                                                     \
        for (size_t i = 0; i < EMULATED_GROUPS; i++) shared[i * step + bytes] = EMULATED_CANARY;             \
        FOR_BLOCKS(t, shared, step) {                                                                        \
            make_noise(gpu, t, bytes);                                                                       \
            for (uint32_t phase = 0; phase < mdm_##name##_phases(&a, t.at.block); phase++)                   \
                BY_ALL_THREADS(name, t, phase);                                                              \
        }                                                                                                    \
        for (size_t i = 0; i < EMULATED_GROUPS; i++)                                                         \
            if (shared[i * step + bytes] != EMULATED_CANARY) abort();                                        \
        free(shared);                                                                                        \
    }                                                                                                        \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, size_t shared, const arguments_type *given) {         \
        name##_launch launch = {.blocks = blocks, .shared_bytes = shared};                                   \
        launch.a = *given;                                                                                   \
        check_grid(blocks, 1);                                                                               \
        emulated_queue_call(gpu, #name, run_##name, &launch, sizeof launch, &gpu->counts.launches);          \
    }
MDM_GPU_PHASED_KERNELS(RUN_PHASED)
