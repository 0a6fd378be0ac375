/* Races on the emulated device, shown by ThreadSanitizer: a program that is built with MDM_SHOW_RACES tells
 * it what CUDA orders, and nothing else, so that two accesses of which one writes are reported wherever CUDA
 * leaves their order open, in whichever order they were run. Without it all of this is empty.
 *
 * - A queue is a thread of its own to the sanitizer. What it runs comes behind what the host had done when it
 *   was queued, what the queue ran before, and marks it followed; the host comes behind what it waits for.
 * - Blocks and threads of a launch are spread over a few such threads, drawn anew for each: a block over the
 *   EMULATED_FIBERS of one of EMULATED_GROUPS. A barrier orders the threads of its block alone. So of two
 * that race one time in eight, at most, is missed, where all their accesses are to happen once in a launch.
 * - Atomic operations are none of a race, and order nothing.
 * - What a graph runs beside computing comes behind nothing but marks that are recorded in it.
 *
 * It says nothing of what is not compiled for it: the machine of the emulated_*.c files but kernels and
 * products, MPI, OpenMP. */
#ifndef MDM_TESTS_EMULATED_RACES_H
#define MDM_TESTS_EMULATED_RACES_H

#include "cuda/gpu.h"
#include <pthread.h>
#include <stdlib.h>

/* An entry of a queue, or of a graph's part of one. */
typedef struct emulated_place {
    mdm_gpu_queue queue;
    int is_in_graph;
    int64_t number;
} emulated_place;

/* What one thread does of a launch: of a phase, between two barriers. */
typedef struct emulated_thread {
    const void *arguments;
    void *shared; /* memory of its block */
    uint32_t phase;
    mdm_gpu_thread at;
} emulated_thread;
typedef void emulated_thread_runner(const emulated_thread *thread);

#ifdef MDM_SHOW_RACES

enum { EMULATED_GROUPS = 8, EMULATED_FIBERS = 8 };

void emulated_open_races(mdm_gpu *gpu);
void emulated_close_races(mdm_gpu *gpu);

/* The host has queued an entry (not in a graph), or has waited for so many of a queue. */
void emulated_order_queued(mdm_gpu *gpu, emulated_place place);
void emulated_order_awaited(mdm_gpu *gpu, mdm_gpu_queue queue, int64_t count);
/* The queue comes to an entry; is done with it; is behind `count` entries of another, of the same graph. */
void emulated_order_begun(mdm_gpu *gpu, emulated_place place);
void emulated_order_done(mdm_gpu *gpu, emulated_place place);
void emulated_order_followed(mdm_gpu *gpu, emulated_place place, mdm_gpu_queue other, int64_t count);
/* The launch of a graph, an entry of computing, is over: all its parts are. */
void emulated_order_launched(mdm_gpu *gpu, emulated_place place);

/* Done by the queue. */
void emulated_run_there(mdm_gpu *gpu, emulated_place place, void (*run)(void *task), void *task);
/* One more block of a launch begins; returns which of the EMULATED_GROUPS blocks' shared memory it has. */
uint32_t emulated_begin_block(mdm_gpu *gpu);
/* In that block. */
void emulated_run_thread(mdm_gpu *gpu, emulated_thread_runner *run, emulated_thread thread);
void emulated_end_phase(mdm_gpu *gpu);
void emulated_end_launch(mdm_gpu *gpu);

/* The machine's lock, which has no counterpart in CUDA, orders nothing. */
void emulated_lock(pthread_mutex_t *lock);
void emulated_unlock(pthread_mutex_t *lock);
#define pthread_mutex_lock   emulated_lock
#define pthread_mutex_unlock emulated_unlock

/* The queue wrote what no code has. */
void emulated_note_written(void *memory, size_t bytes);
/* Of what queues read and the host frees when they have. */
void emulated_free(void *memory);

#else

enum { EMULATED_GROUPS = 1 };

static inline void emulated_open_races(mdm_gpu *gpu) {
    (void)gpu;
}
static inline void emulated_close_races(mdm_gpu *gpu) {
    (void)gpu;
}
static inline void emulated_order_queued(mdm_gpu *gpu, emulated_place place) {
    (void)gpu, (void)place;
}
static inline void emulated_order_awaited(mdm_gpu *gpu, mdm_gpu_queue queue, int64_t count) {
    (void)gpu, (void)queue, (void)count;
}
static inline void emulated_order_begun(mdm_gpu *gpu, emulated_place place) {
    (void)gpu, (void)place;
}
static inline void emulated_order_done(mdm_gpu *gpu, emulated_place place) {
    (void)gpu, (void)place;
}
static inline void emulated_order_followed(mdm_gpu *gpu, emulated_place place, mdm_gpu_queue other,
                                           int64_t count) {
    (void)gpu, (void)place, (void)other, (void)count;
}
static inline void emulated_order_launched(mdm_gpu *gpu, emulated_place place) {
    (void)gpu, (void)place;
}
static inline void emulated_run_there(mdm_gpu *gpu, emulated_place place, void (*run)(void *task),
                                      void *task) {
    (void)gpu, (void)place;
    run(task);
}
static inline uint32_t emulated_begin_block(mdm_gpu *gpu) {
    (void)gpu;
    return 0;
}
static inline void emulated_run_thread(mdm_gpu *gpu, emulated_thread_runner *run, emulated_thread thread) {
    (void)gpu;
    run(&thread);
}
static inline void emulated_end_phase(mdm_gpu *gpu) {
    (void)gpu;
}
static inline void emulated_end_launch(mdm_gpu *gpu) {
    (void)gpu;
}
static inline void emulated_note_written(void *memory, size_t bytes) {
    (void)memory, (void)bytes;
}
static inline void emulated_free(void *memory) {
    free(memory);
}

#endif
#endif
