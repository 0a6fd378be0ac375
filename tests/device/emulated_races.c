/* The emulated device's order, told to ThreadSanitizer (emulated_races.h). This file and the machine's others
 * are not instrumented themselves: what they touch is the host's, whichever queue they act for. */
#include "emulated_gpu.h"

#ifdef MDM_SHOW_RACES
#include <sanitizer/tsan_interface.h>
#include <stdio.h>
#include <sys/mman.h>

void __tsan_write_range(void *memory, unsigned long bytes);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);

/* RING: places in a queue that are told apart at a time; older ones count as the newest in their stead. */
enum { RING = 4096, QUEUE_STACK = 1 << 20, THREAD_STACK = 1 << 16 };

/* Something with an order of its own, and a stack: what is on one is no memory that two have in common. */
typedef struct fiber {
    void *fiber;
    char *stack;
    size_t stack_bytes;
} fiber;

/* Blocks go through a group one after another, as on a multiprocessor. */
typedef struct group {
    fiber fibers[EMULATED_FIBERS];
    uint64_t order; /* what is ordered by a barrier, by address */
    int is_busy;    /* in the present launch */
} group;

/* A queue, or a graph's part of one. */
typedef struct track {
    fiber fiber;
    group *groups;         /* [EMULATED_GROUPS]; NULL: it has launched nothing */
    uint64_t begin;        /* of a launch, by address, as are: */
    uint64_t queued[RING]; /* what the host had done */
    uint64_t done[RING];   /* behind so many entries */
} track;

struct emulated_races {
    track tracks[2][EMULATED_QUEUES]; /* of graphs: the second; computing is one in both */
    track *running;
    /* of the present launch */
    int is_inside; /* blocks have begun */
    uint32_t block, group, group_shift, thread_shift;
    emulated_thread thread;
    uint64_t random;
};

static track *track_of(mdm_gpu *gpu, emulated_place p) {
    return &gpu->races->tracks[p.is_in_graph && p.queue != MDM_GPU_COMPUTING][p.queue];
}

/* Marks of a graph count from its beginning. */
static uint64_t *done_of(mdm_gpu *gpu, int is_in_graph, mdm_gpu_queue queue, int64_t count) {
    return &gpu->races->tracks[is_in_graph][queue].done[count % RING];
}

static uint32_t draw(struct emulated_races *r) {
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->random >> 33);
}

/* ---- fibers ---- */

static void make_fiber(fiber *f, size_t stack_bytes, const char *name) {
    f->fiber = __tsan_create_fiber(0);
    __tsan_set_fiber_name(f->fiber, name);
    f->stack_bytes = stack_bytes;
    f->stack =
        mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->stack == MAP_FAILED) abort();
}

static void end_fiber(fiber *f) {
    __tsan_destroy_fiber(f->fiber);
    munmap(f->stack, f->stack_bytes);
}

static const char *name_of(const mdm_gpu *gpu, const track *t, char *name, size_t size) {
    static const char *const names[] = {"computing", "sending", "communicating", "beside"};
    _Static_assert(sizeof names / sizeof *names == EMULATED_QUEUES, "a queue has no name");
    long number = t - &gpu->races->tracks[0][0];
    snprintf(name, size, "%s%s", number >= EMULATED_QUEUES ? "a graph's " : "",
             names[number % EMULATED_QUEUES]);
    return name;
}

/* Made by the queue itself. */
static group *groups_of(mdm_gpu *gpu, track *t) {
    char name[64], whole[128];
    if (t->groups) return t->groups;
    t->groups = calloc(EMULATED_GROUPS, sizeof *t->groups);
    if (!t->groups) abort();
    for (int g = 0; g < EMULATED_GROUPS; g++)
        for (int f = 0; f < EMULATED_FIBERS; f++) {
            snprintf(whole, sizeof whole, "a thread of block group %d, %s", g,
                     name_of(gpu, t, name, sizeof name));
            make_fiber(&t->groups[g].fibers[f], THREAD_STACK, whole);
        }
    return t->groups;
}

static void become(void *f) {
    __tsan_switch_to_fiber(f, __tsan_switch_to_fiber_no_sync);
}

static __attribute__((noinline)) void call_on_stack(char *top, void (*run)(const void *), const void *task) {
    __asm__ volatile("movq %%rsp, %%rbx\n\tmovq %[top], %%rsp\n\tcall *%[run]\n\tmovq %%rbx, %%rsp"
                     : "+D"(task), [top] "+r"(top), [run] "+r"(run)
                     :
                     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2",
                       "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                       "xmm13", "xmm14", "xmm15", "memory", "cc");
}

static void call_on(const fiber *f, void (*run)(const void *), const void *task) {
    void *back = __tsan_get_current_fiber();
    become(f->fiber);
    call_on_stack(f->stack + f->stack_bytes, run, task);
    become(back);
}

/* ---- the host and its queues ---- */

/* All at once: a fiber comes behind what its maker had done. */
void emulated_open_races(mdm_gpu *gpu) {
    char name[64];
    gpu->races = calloc(1, sizeof *gpu->races);
    if (!gpu->races) abort();
    for (int i = 0; i < 2 * EMULATED_QUEUES; i++) {
        track *t = &gpu->races->tracks[0][0] + i;
        make_fiber(&t->fiber, QUEUE_STACK, name_of(gpu, t, name, sizeof name));
    }
    gpu->races->random = gpu->random;
}

void emulated_close_races(mdm_gpu *gpu) {
    track *tracks = &gpu->races->tracks[0][0];
    for (int i = 0; i < 2 * EMULATED_QUEUES; i++) {
        end_fiber(&tracks[i].fiber);
        for (int g = 0; tracks[i].groups && g < EMULATED_GROUPS; g++)
            for (int f = 0; f < EMULATED_FIBERS; f++) end_fiber(&tracks[i].groups[g].fibers[f]);
        free(tracks[i].groups);
    }
    free(gpu->races);
}

void emulated_order_queued(mdm_gpu *gpu, emulated_place p) {
    __tsan_release(&track_of(gpu, p)->queued[p.number % RING]);
}

void emulated_order_awaited(mdm_gpu *gpu, mdm_gpu_queue queue, int64_t count) {
    if (count > 0) __tsan_acquire(done_of(gpu, 0, queue, count));
}

static void order_on(mdm_gpu *gpu, emulated_place p, void (*order)(void *), void *address) {
    void *back = __tsan_get_current_fiber();
    become(track_of(gpu, p)->fiber.fiber);
    order(address);
    become(back);
}

/* Those of a graph come behind its launch, which computing has begun, or a mark that does. */
void emulated_order_begun(mdm_gpu *gpu, emulated_place p) {
    if (!p.is_in_graph) order_on(gpu, p, __tsan_acquire, &track_of(gpu, p)->queued[p.number % RING]);
}

void emulated_order_done(mdm_gpu *gpu, emulated_place p) {
    order_on(gpu, p, __tsan_release, done_of(gpu, p.is_in_graph, p.queue, p.number + 1));
}

void emulated_order_followed(mdm_gpu *gpu, emulated_place p, mdm_gpu_queue other, int64_t count) {
    if (count > 0) order_on(gpu, p, __tsan_acquire, done_of(gpu, p.is_in_graph, other, count));
}

void emulated_order_launched(mdm_gpu *gpu, emulated_place p) {
    for (int q = 0; q < EMULATED_QUEUES; q++) {
        track *t = &gpu->races->tracks[1][q];
        if (q == MDM_GPU_COMPUTING) continue;
        order_on(gpu, (emulated_place){(mdm_gpu_queue)q, 1, 0}, __tsan_release, &t->begin);
        order_on(gpu, p, __tsan_acquire, &t->begin);
    }
    emulated_order_done(gpu, p);
}

typedef struct there {
    void (*run)(void *);
    void *task;
} there;

static void do_there(const void *task) {
    const there *t = task;
    t->run(t->task);
}

void emulated_run_there(mdm_gpu *gpu, emulated_place p, void (*run)(void *task), void *task) {
    track *t = gpu->races->running = track_of(gpu, p);
    const there given = {run, task};
    call_on(&t->fiber, do_there, &given);
}

/* ---- launches ---- */

static void order_group(group *g, void (*order)(void *), void *address) {
    void *back = __tsan_get_current_fiber();
    for (int f = 0; f < EMULATED_FIBERS; f++) {
        become(g->fibers[f].fiber);
        order(address);
    }
    become(back);
}

/* Of blocks that follow each other as many as there are groups are in different ones. */
uint32_t emulated_begin_block(mdm_gpu *gpu) {
    struct emulated_races *r = gpu->races;
    group *groups = groups_of(gpu, r->running);
    if (!r->is_inside) {
        r->block = 0;
        r->is_inside = 1;
        __tsan_release(&r->running->begin);
    }
    if (r->block % EMULATED_GROUPS == 0) r->group_shift = draw(r);
    r->thread_shift = draw(r);
    r->group = (r->block++ * (2 * (r->group_shift >> 8) + 1) + r->group_shift) % EMULATED_GROUPS;
    group *g = &groups[r->group];
    if (!g->is_busy) order_group(g, __tsan_acquire, &r->running->begin);
    g->is_busy = 1;
    return r->group;
}

/* Of neighbouring threads as many as there are fibers are on different ones. */
void emulated_run_thread(mdm_gpu *gpu, emulated_thread_runner *run, emulated_thread thread) {
    struct emulated_races *r = gpu->races;
    uint32_t number = thread.at.thread,
             turn = (r->thread_shift + number / EMULATED_FIBERS) * 0x9e3779b9u >> 16;
    r->thread = thread;
    call_on(&r->running->groups[r->group].fibers[(number + turn) % EMULATED_FIBERS],
            (void (*)(const void *))run, &r->thread);
}

void emulated_end_phase(mdm_gpu *gpu) {
    struct emulated_races *r = gpu->races;
    group *g = &r->running->groups[r->group];
    order_group(g, __tsan_release, &g->order);
    order_group(g, __tsan_acquire, &g->order);
    r->thread_shift = draw(r);
}

void emulated_end_launch(mdm_gpu *gpu) {
    struct emulated_races *r = gpu->races;
    for (int i = 0; r->is_inside && i < EMULATED_GROUPS; i++) {
        group *g = &r->running->groups[i];
        if (g->is_busy) __tsan_acquire(&g->order);
        g->is_busy = 0;
    }
    r->is_inside = 0;
}

/* ---- the machine ---- */

#undef pthread_mutex_lock
#undef pthread_mutex_unlock

void emulated_lock(pthread_mutex_t *lock) {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    (void)pthread_mutex_lock(lock);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
}

void emulated_unlock(pthread_mutex_t *lock) {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    (void)pthread_mutex_unlock(lock);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
}

void emulated_note_written(void *memory, size_t bytes) {
    __tsan_write_range(memory, bytes);
}

void emulated_free(void *memory) {
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    free(memory);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}

#endif
