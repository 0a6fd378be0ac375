/* Inside of the emulated device, shared by the emulated_*.c files. Everything in it is under `lock`, which
 * every call of gpu.h takes: pictures are sent by a thread of their own. */
#ifndef MDM_TESTS_EMULATED_GPU_H
#define MDM_TESTS_EMULATED_GPU_H

#include "cuda/gpu.h"
#include "emulated_races.h"
#include "emulated_stream.h"
#include <pthread.h>
#include <stdatomic.h>

enum { EMULATED_MOST = 4096, EMULATED_QUEUES = 4, EMULATED_CANARY = 0xA5 };

typedef struct allocation {
    char *pages, *memory;
    size_t length; /* of the pages, the locked one behind them apart */
} allocation;

/* A place in a queue: behind so many of its calls. */
typedef struct point {
    mdm_gpu_queue queue;
    int64_t count;
} point;

typedef void call_runner(mdm_gpu *gpu, const void *arguments);

/* What was queued. */
typedef struct entry {
    enum { CALL, WORK, FOLLOW, GRAPH } kind;
    int is_doomed; /* CALL: the device is lost in it */
    /* CALL */
    call_runner *run;
    void *arguments; /* a copy */
    /* WORK, of all ranks: they run in the order in which they were queued, on whichever queue, as NCCL has
     * those of one communicator run */
    emulated_work *work;
    int64_t number; /* among works; in a graph, among its works */
    /* FOLLOW */
    point point;
    /* GRAPH */
    mdm_gpu_graph *graph;
} entry;

/* A queue, or what a graph has of one: entries run in order. */
typedef struct lane {
    entry *entries; /* [capacity], the first of them number `first` */
    int64_t first, done, queued, capacity;
} lane;

struct mdm_gpu_graph {
    int64_t serial;
    lane lanes[EMULATED_QUEUES]; /* none of sending */
    int64_t works, first_work, calls;
    int is_forked[EMULATED_QUEUES];  /* the queue is part of it */
    int64_t busy[EMULATED_QUEUES];   /* of a queue beside computing: behind the last of its calls, */
    int64_t joined[EMULATED_QUEUES]; /* and how far computing has followed it */
    int64_t launches;                /* queued and not done */
    int is_under_way;                /* the oldest of them has begun */
    int is_destroyed;                /* when they are done */
    int is_early;                    /* kernels were launched early */
    pthread_t recorder;              /* the thread that began it */
};

struct mdm_gpu_mark {
    point point;
    int64_t graph; /* serial of the one it was recorded in; 0: in none */
};

struct mdm_gpu_product {
    mdm_product_shape shape;
    mdm_gpu_product *next;
};

struct mdm_gpu_plan {
    mdm_gpu_convolution kind;
    mdm_gpu_plan *next;
};

typedef enum order_policy { ORDER_LATE, ORDER_EARLY, ORDER_COMPUTING_LAST, ORDER_RANDOM } order_policy;

/* How often it was called, but for what graphs call. */
typedef struct call_counts {
    int64_t launches; /* kernels, convolutions, products, copies and zeroing within the device */
    int64_t uploads, downloads;
    int64_t recorded, replayed; /* graphs */
    int64_t longest;            /* calls of a graph, at most */
    int64_t bytes, most_bytes;  /* of memory, now and at most */
} call_counts;

typedef struct stream {
    emulated_stream common;
    mdm_gpu *gpu;
    mdm_gpu_queue queue;
} stream;

struct mdm_gpu {
    pthread_mutex_t lock; /* recursive */
    pthread_t owner;      /* which alone may speak to MPI, and so run works */
    int number;
    call_counts counts;
    int64_t frees;
    allocation blocks[EMULATED_MOST];
    int count;
    mdm_gpu_plan *plans;
    mdm_gpu_product *products;
    /* queues */
    lane lanes[EMULATED_QUEUES];
    stream streams[EMULATED_QUEUES];
    int64_t works_queued, works_done;
    int64_t patience; /* with a work, in microseconds; 0: as long as the guard has it */
    int is_running;   /* its memory is unlocked */
    mdm_gpu_guard guard;
    order_policy policy;
    mdm_gpu_queue turned_to; /* where kernels and convolutions are queued */
    int launches_early;
    uint64_t random;
    /* graphs */
    mdm_gpu_graph *recording; /* NULL: calls are queued */
    int64_t graphs;
    int timed_way; /* of the graph that was timed last, as mdm/device/recording.h numbers them, from 1; 0:
                      none */
    /* loss */
    const char *doom; /* the kind of call that loses the device; NULL: none does */
    int64_t doom_at, doomed_work;
    _Atomic int64_t doom_calls;
    _Atomic int is_lost;
    int is_stuck;    /* something queued never ends, and nothing behind it begins */
    int is_deserted; /* its works are those of fewer ranks than they are for */
    struct emulated_races *races;
};

/* One line on stderr, and the end of the test: what a device would refuse, or never come to. */
void emulated_refuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- emulated_gpu.c ---- */
void emulated_set_lock(mdm_gpu *gpu, int locked);
void emulated_lose(mdm_gpu *gpu);
/* Counts a call of this kind; 1 when it is the one that loses the device. */
int emulated_is_doomed(mdm_gpu *gpu, const char *kind);
/* The failure as a status, where the device is lost. */
mdm_status emulated_tell_loss(const mdm_gpu *gpu, const char *what);
/* A call that loses the device, if it does, at once, and tells. */
mdm_status emulated_count_call(mdm_gpu *gpu, const char *kind, const char *what);
/* Works of all devices that are open go on, as the host is about to wait for other ranks. */
void emulated_go_on_beside_mpi(void);

/* ---- emulated_queues.c ---- */
void emulated_open_queues(mdm_gpu *gpu);
void emulated_close_queues(mdm_gpu *gpu);
/* A call of what is computed, or beside it; `counter` may be NULL. */
void emulated_queue_call(mdm_gpu *gpu, const char *kind, call_runner *run, const void *arguments,
                         size_t bytes, int64_t *counter);
/* Copies and zeros (from NULL) within the device's memory; copies from page-locked memory. */
void emulated_queue_copy(mdm_gpu *gpu, mdm_gpu_queue queue, void *to, const void *from, size_t bytes,
                         int64_t *counter);
void emulated_push(lane *l, entry e);
void emulated_free_lane(lane *l, int is_graph);
/* A new entry may already run, as the order wants it. */
void emulated_go_on(mdm_gpu *gpu);
/* Until the queue has done so many; returns early when the device is lost or stuck. */
void emulated_wait(mdm_gpu *gpu, mdm_gpu_queue queue, int64_t count);
/* For everything in this queue, or in all. */
void emulated_wait_for_queue(mdm_gpu *gpu, mdm_gpu_queue queue);
void emulated_wait_for_all(mdm_gpu *gpu);
/* Works that are queued, as they would go on by themselves while the host does something else. */
void emulated_wait_for_works(mdm_gpu *gpu);

/* ---- emulated_graph.c ---- */
/* It was told to break off what it records. */
int emulated_is_broken(const mdm_gpu *gpu);
/* 1 when what is queued there becomes part of the graph that is recorded. */
int emulated_is_captured(const mdm_gpu *gpu, mdm_gpu_queue queue);
void emulated_capture(mdm_gpu *gpu, mdm_gpu_queue queue, entry e);
/* The calling thread does what CUDA refuses to one that records. */
void emulated_refuse_in_graph(const mdm_gpu *gpu, const char *what);
void emulated_finish_graph(mdm_gpu_graph *graph);
/* A mark is recorded or followed in what may be a capture; 1: nothing more is to be done. */
void emulated_record_in_graph(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark);
int emulated_follow_in_graph(mdm_gpu *gpu, mdm_gpu_queue queue, const mdm_gpu_mark *mark);

/* ---- in which order things of one launch come: number i of n ---- */
typedef struct emulated_order {
    uint32_t n, start, step;
} emulated_order;

emulated_order emulated_draw_order(mdm_gpu *gpu, uint32_t n);
uint64_t emulated_draw(mdm_gpu *gpu);

static inline uint32_t emulated_number(const emulated_order *order, uint32_t i) {
    return (uint32_t)((order->start + (uint64_t)i * order->step) % order->n);
}

/* ---- emulated_kernels.c: the blocks of a launch, in their order ---- */
typedef struct emulated_grid {
    emulated_order order;
    uint32_t blocks, next;
} emulated_grid;

emulated_grid emulated_draw_grid(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows);
/* 0 behind the last. A block has its part of `shared` [EMULATED_GROUPS][bytes]. */
int emulated_next_block(mdm_gpu *gpu, emulated_grid *g, void *shared, size_t bytes, emulated_thread *t);
/* One phase, by all threads of the block; a barrier ends it. */
void emulated_run_phase(mdm_gpu *gpu, emulated_thread_runner *run, emulated_thread t, uint32_t phase);

#endif
