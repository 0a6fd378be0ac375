/* Queues of the emulated device, and the order in which what is in them runs (emulated_gpu.c tells the
 * policies). At every wait a next entry is chosen among the queues' first ones, as far as marks permit them,
 * until what is waited for is done. */
#include "emulated_gpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CHOICES = 2 * EMULATED_QUEUES, LONGEST_HELP_US = 60 * 1000 * 1000, NAP_US = 50 };

/* ---- lanes ---- */

static entry *entry_at(const lane *l, int64_t number) {
    return &l->entries[number - l->first];
}

static void drop_done(lane *l) {
    int64_t done = l->done - l->first;
    memmove(l->entries, l->entries + done, sizeof *l->entries * (size_t)(l->queued - l->done));
    l->first = l->done;
}

void emulated_push(lane *l, entry e) {
    if (l->queued - l->first == l->capacity) {
        l->capacity = 2 * l->capacity + 256;
        l->entries = realloc(l->entries, sizeof *l->entries * (size_t)l->capacity);
        if (!l->entries) abort();
    }
    *entry_at(l, l->queued++) = e;
}

/* What was not done, too; of a graph, all. */
void emulated_free_lane(lane *l, int is_graph) {
    for (int64_t i = is_graph ? 0 : l->done; i < l->queued; i++) {
        entry *e = entry_at(l, i);
        emulated_free(e->arguments);
        emulated_free(e->work);
        if (e->kind == GRAPH) emulated_finish_graph(e->graph);
    }
    free(l->entries);
}

/* ---- choices ---- */

/* A lane whose first entry may run; in a graph, or not (NULL). */
typedef struct choice {
    lane *lane;
    mdm_gpu_graph *graph;
} choice;

static int is_ready(mdm_gpu *gpu, const entry *e, mdm_gpu_graph *graph) {
    if (e->kind == FOLLOW) return (graph ? graph->lanes : gpu->lanes)[e->point.queue].done >= e->point.count;
    if (e->kind != WORK) return 1;
    return (graph ? graph->first_work : 0) + e->number == gpu->works_done &&
           pthread_equal(gpu->owner, pthread_self());
}

static int add_choice(mdm_gpu *gpu, lane *l, mdm_gpu_graph *graph, int64_t limit, choice *choices) {
    if (l->done == l->queued || l->done >= limit || !is_ready(gpu, entry_at(l, l->done), graph)) return 0;
    *choices = (choice){l, graph};
    return 1;
}

/* Computing first, sending last. A graph that has begun stands for the queue that it is the first of. */
static int find_choices(mdm_gpu *gpu, const int64_t *limit, choice *choices) {
    lane *computing = &gpu->lanes[MDM_GPU_COMPUTING];
    const entry *first = computing->done < computing->queued ? entry_at(computing, computing->done) : NULL;
    mdm_gpu_graph *graph = first && first->kind == GRAPH && first->graph->is_under_way ? first->graph : NULL;
    int count = 0;
    if (!graph) {
        count += add_choice(gpu, computing, NULL, limit[MDM_GPU_COMPUTING], choices);
    } else if (computing->done < limit[MDM_GPU_COMPUTING]) {
        for (int q = 0; q < EMULATED_QUEUES; q++)
            count += add_choice(gpu, &graph->lanes[q], graph, INT64_MAX, choices + count);
    }
    for (int q = EMULATED_QUEUES - 1; q >= MDM_GPU_SENDING; q--)
        count += add_choice(gpu, &gpu->lanes[q], NULL, limit[q], choices + count);
    return count;
}

uint64_t emulated_draw(mdm_gpu *gpu) {
    gpu->random = gpu->random * 6364136223846793005u + 1442695040888963407u;
    return gpu->random >> 33;
}

static uint32_t common_divisor(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

emulated_order emulated_draw_order(mdm_gpu *gpu, uint32_t n) {
    emulated_order order = {n, 0, 1};
    if (n > 0 && (gpu->policy == ORDER_LATE || gpu->policy == ORDER_COMPUTING_LAST))
        order.start = order.step = n - 1;
    if (n > 0 && gpu->policy == ORDER_RANDOM) {
        order.start = (uint32_t)(emulated_draw(gpu) % n);
        do order.step = (uint32_t)(emulated_draw(gpu) % n);
        while (common_divisor(n, order.step) != 1);
    }
    return order;
}

/* ---- running ---- */

/* An entry that its queue runs. */
typedef struct task {
    mdm_gpu *gpu;
    const entry *entry;
    emulated_work *work;
    int state;
} task;

static void do_call(void *given) {
    const task *t = given;
    t->entry->run(t->gpu, t->entry->arguments);
}

static void do_copy_work(void *given) {
    task *t = given;
    t->work = t->entry->work->copy(t->entry->work);
}

static void do_advance(void *given) {
    task *t = given;
    t->state = t->work->advance(t->work);
}

static void run_work(mdm_gpu *gpu, const entry *e, emulated_place place) {
    task t = {gpu, e, e->work, 0};
    int state = 0;
    int64_t waited = 0;
    if (place.is_in_graph) emulated_run_there(gpu, place, do_copy_work, &t);
    if (gpu->works_done == gpu->doomed_work) emulated_lose(gpu);
    while (state == 0 && !gpu->is_lost) {
        emulated_run_there(gpu, place, do_advance, &t);
        state = t.state;
        if (state == 0) usleep(20);
        if (state == 0 && gpu->patience > 0 && (waited += 20) > gpu->patience) state = -1;
        if (state == 0 && gpu->guard.look && gpu->guard.look(gpu->guard.context) != MDM_OK) state = -1;
    }
    gpu->is_stuck |= state < 0;
    gpu->works_done += state > 0;
}

static void finish_launch(mdm_gpu *gpu, mdm_gpu_graph *graph) {
    for (int q = 0; q < EMULATED_QUEUES; q++)
        if (graph->lanes[q].done < graph->lanes[q].queued) return;
    graph->is_under_way = 0;
    emulated_order_launched(gpu,
                            (emulated_place){MDM_GPU_COMPUTING, 0, gpu->lanes[MDM_GPU_COMPUTING].done++});
    emulated_finish_graph(graph);
}

static void begin_launch(mdm_gpu *gpu, const entry *e) {
    for (int q = 0; q < EMULATED_QUEUES; q++) e->graph->lanes[q].done = 0;
    e->graph->first_work = e->number;
    e->graph->is_under_way = 1;
    finish_launch(gpu, e->graph);
}

static void run_choice(mdm_gpu *gpu, choice c) {
    entry *e = entry_at(c.lane, c.lane->done);
    const emulated_place place = {(mdm_gpu_queue)(c.lane - (c.graph ? c.graph->lanes : gpu->lanes)),
                                  c.graph != NULL, c.lane->done};
    emulated_order_begun(gpu, place);
    if (e->kind == GRAPH) {
        begin_launch(gpu, e);
        return;
    }
    if (e->is_doomed) emulated_lose(gpu);
    if (e->kind == WORK) run_work(gpu, e, place);
    if (gpu->is_lost || gpu->is_stuck) return;
    if (e->kind == FOLLOW) emulated_order_followed(gpu, place, e->point.queue, e->point.count);
    if (e->kind == CALL) emulated_run_there(gpu, place, do_call, &(task){gpu, e, NULL, 0});
    if (!c.graph) emulated_free(e->arguments);
    emulated_order_done(gpu, place);
    c.lane->done++;
    if (c.graph) finish_launch(gpu, c.graph);
    if (!c.graph && c.lane->done - c.lane->first > 4096) drop_done(c.lane);
}

static int are_done(const mdm_gpu *gpu, const int64_t *wanted) {
    for (int q = 0; q < EMULATED_QUEUES; q++)
        if (gpu->lanes[q].done < wanted[q]) return 0;
    return 1;
}

/* Up to `steps` entries within the limits, until the queues have done what is wanted; 0 when that is not so
 * and nothing may run. */
static int run_some(mdm_gpu *gpu, const int64_t *limit, const int64_t *wanted, int64_t steps) {
    choice choices[MOST_CHOICES];
    int count = 1;
    if (gpu->is_running || are_done(gpu, wanted)) return 1;
    emulated_set_lock(gpu, 0);
    gpu->is_running = 1;
    for (; steps > 0 && !gpu->is_lost && !gpu->is_stuck && !are_done(gpu, wanted); steps--) {
        count = find_choices(gpu, limit, choices);
        if (count == 0) break;
        run_choice(gpu, choices[gpu->policy == ORDER_COMPUTING_LAST ? count - 1
                                : gpu->policy == ORDER_RANDOM ? (int)(emulated_draw(gpu) % (uint64_t)count)
                                                              : 0]);
    }
    gpu->is_running = 0;
    emulated_set_lock(gpu, 1);
    return count > 0;
}

/* ---- waits ---- */

/* The last of an entry's works; -1: it has none. */
static int64_t last_work(const entry *e) {
    return e->kind == WORK                           ? e->number
           : e->kind == GRAPH && e->graph->works > 0 ? e->number + e->graph->works - 1
                                                     : -1;
}

static int raise(int64_t *limit, int64_t to) {
    if (*limit >= to) return 0;
    *limit = to;
    return 1;
}

/* Works that come before one of this number. */
static int add_works_before(const mdm_gpu *gpu, int64_t number, int64_t *limit) {
    int is_more = 0;
    for (int q = 0; q < EMULATED_QUEUES; q++) {
        const lane *l = &gpu->lanes[q]; /* of which entries that are done may have been dropped */
        for (int64_t i = l->queued; i-- > limit[q] && i >= l->done;) {
            const entry *e = entry_at(l, i);
            if (last_work(e) >= 0 && e->number < number) is_more |= raise(&limit[q], i + 1);
        }
    }
    return is_more;
}

/* All that the entries within the limits wait for is within them afterwards. */
static void add_what_is_needed(const mdm_gpu *gpu, int64_t *limit) {
    for (int is_more = 1; is_more;) {
        is_more = 0;
        for (int q = 0; q < EMULATED_QUEUES; q++)
            for (int64_t i = gpu->lanes[q].done; i < limit[q]; i++) {
                const entry *e = entry_at(&gpu->lanes[q], i);
                if (e->kind == FOLLOW) is_more |= raise(&limit[e->point.queue], e->point.count);
                if (last_work(e) >= 0) is_more |= add_works_before(gpu, last_work(e), limit);
            }
    }
}

static int try(mdm_gpu *gpu, const int64_t *wanted) {
    int64_t limit[EMULATED_QUEUES];
    for (int q = 0; q < EMULATED_QUEUES; q++)
        limit[q] = gpu->policy == ORDER_LATE ? wanted[q] : gpu->lanes[q].queued;
    if (gpu->policy == ORDER_LATE) add_what_is_needed(gpu, limit);
    return run_some(gpu, limit, wanted, INT64_MAX);
}

/* Where a thread of the program's needs a work, which the owner alone may run, the owner is waited for: it
 * will come by in a wait of its own. */
static void wait_for(mdm_gpu *gpu, const int64_t *wanted) {
    for (int64_t waited = 0;; waited += NAP_US) {
        pthread_mutex_lock(&gpu->lock);
        int is_over = try(gpu, wanted);
        pthread_mutex_unlock(&gpu->lock);
        if (is_over) return;
        if (pthread_equal(gpu->owner, pthread_self())) emulated_refuse("the queues wait for each other");
        if (waited > LONGEST_HELP_US) emulated_refuse("a thread waits for a collective that nobody runs");
        usleep(NAP_US);
    }
}

void emulated_wait(mdm_gpu *gpu, mdm_gpu_queue queue, int64_t count) {
    int64_t wanted[EMULATED_QUEUES] = {0};
    wanted[queue] = count;
    wait_for(gpu, wanted);
    emulated_order_awaited(gpu, queue, count);
}

void emulated_wait_for_queue(mdm_gpu *gpu, mdm_gpu_queue queue) {
    pthread_mutex_lock(&gpu->lock);
    int64_t count = gpu->lanes[queue].queued;
    pthread_mutex_unlock(&gpu->lock);
    emulated_wait(gpu, queue, count);
}

void emulated_wait_for_all(mdm_gpu *gpu) {
    int64_t wanted[EMULATED_QUEUES];
    pthread_mutex_lock(&gpu->lock);
    for (int q = 0; q < EMULATED_QUEUES; q++) wanted[q] = gpu->lanes[q].queued;
    pthread_mutex_unlock(&gpu->lock);
    wait_for(gpu, wanted);
    for (int q = 0; q < EMULATED_QUEUES; q++) emulated_order_awaited(gpu, (mdm_gpu_queue)q, wanted[q]);
}

void emulated_wait_for_works(mdm_gpu *gpu) {
    int64_t wanted[EMULATED_QUEUES] = {0};
    if (!pthread_equal(gpu->owner, pthread_self()) || gpu->works_done == gpu->works_queued) return;
    pthread_mutex_lock(&gpu->lock);
    (void)add_works_before(gpu, INT64_MAX, wanted);
    pthread_mutex_unlock(&gpu->lock);
    wait_for(gpu, wanted);
}

void emulated_go_on(mdm_gpu *gpu) {
    int64_t all[EMULATED_QUEUES], steps = 0;
    if (gpu->policy == ORDER_EARLY) steps = INT64_MAX;
    if (gpu->policy == ORDER_RANDOM && emulated_draw(gpu) % 4 == 0)
        steps = (int64_t)(emulated_draw(gpu) % 16);
    if (steps == 0) return;
    for (int q = 0; q < EMULATED_QUEUES; q++) all[q] = gpu->lanes[q].queued;
    (void)run_some(gpu, all, all, steps);
}

/* ---- what is queued ---- */

/* Into its queue, or the graph that is recorded. */
static void queue_entry(mdm_gpu *gpu, mdm_gpu_queue queue, entry e) {
    if (emulated_is_captured(gpu, queue)) {
        emulated_capture(gpu, queue, e);
        return;
    }
    if (gpu->recording && queue != MDM_GPU_SENDING)
        emulated_refuse("a graph is recorded, and what communicates beside it is no part of it");
    if (e.kind == WORK) {
        e.number = gpu->works_queued++;
        if (emulated_is_doomed(gpu, "collective")) gpu->doomed_work = e.number;
    }
    emulated_order_queued(gpu, (emulated_place){queue, 0, gpu->lanes[queue].queued});
    emulated_push(&gpu->lanes[queue], e);
    emulated_go_on(gpu);
}

static void queue_call(mdm_gpu *gpu, mdm_gpu_queue queue, entry e, const char *kind, int64_t *counter) {
    pthread_mutex_lock(&gpu->lock);
    if (!emulated_is_captured(gpu, queue)) {
        if (counter) ++*counter;
        e.is_doomed = emulated_is_doomed(gpu, kind);
    }
    queue_entry(gpu, queue, e);
    pthread_mutex_unlock(&gpu->lock);
}

static entry call_of(call_runner *runner, const void *arguments, size_t bytes) {
    entry e = {.kind = CALL, .run = runner, .arguments = malloc(bytes)};
    if (!e.arguments) abort();
    memcpy(e.arguments, arguments, bytes);
    return e;
}

void emulated_queue_call(mdm_gpu *gpu, const char *kind, call_runner *runner, const void *arguments,
                         size_t bytes, int64_t *counter) {
    queue_call(gpu, gpu->turned_to, call_of(runner, arguments, bytes), kind, counter);
}

typedef struct copy_call {
    void *to;
    const void *from;
    size_t bytes;
} copy_call;

static void run_copy(mdm_gpu *gpu, const void *arguments) {
    const copy_call *c = arguments;
    (void)gpu;
    if (c->from)
        memcpy(c->to, c->from, c->bytes);
    else
        memset(c->to, 0, c->bytes);
}

void emulated_queue_copy(mdm_gpu *gpu, mdm_gpu_queue queue, void *to, const void *from, size_t bytes,
                         int64_t *counter) {
    const copy_call c = {to, from, bytes};
    queue_call(gpu, queue, call_of(run_copy, &c, sizeof c), queue == MDM_GPU_COMPUTING ? "copy" : "",
               counter);
}

/* ---- streams, for the fake NCCL ---- */

static void queue_work(emulated_stream *common, emulated_work *work) {
    stream *s = (stream *)common;
    pthread_mutex_lock(&s->gpu->lock);
    queue_entry(s->gpu, s->queue, (entry){.kind = WORK, .work = work});
    pthread_mutex_unlock(&s->gpu->lock);
}

static void lose_stream(emulated_stream *common) {
    emulated_lose(((stream *)common)->gpu);
}

static int finish_works(emulated_stream *common, int64_t microseconds) {
    mdm_gpu *gpu = ((stream *)common)->gpu;
    gpu->patience = microseconds;
    emulated_wait_for_works(gpu);
    gpu->patience = 0;
    return gpu->works_done == gpu->works_queued;
}

void *mdm_gpu_stream(mdm_gpu *gpu, mdm_gpu_queue queue) {
    return &gpu->streams[queue].common;
}

void mdm_gpu_turn_to(mdm_gpu *gpu, mdm_gpu_queue queue) {
    gpu->turned_to = queue;
}

void mdm_gpu_launch_early(mdm_gpu *gpu, int is_on) {
    gpu->launches_early = is_on;
}

/* Not on the rank that MDM_EMULATED_OLD names. */
int mdm_gpu_can_launch_early(const mdm_gpu *gpu) {
    const char *old = getenv("MDM_EMULATED_OLD"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    (void)gpu;
    return !old || strcmp(old, rank ? rank : "0") != 0;
}

/* ---- marks ---- */

mdm_status mdm_gpu_create_mark(mdm_gpu *gpu, mdm_gpu_mark **mark) {
    (void)gpu;
    return MDM_ALLOCATE(*mark, 1, "a mark");
}

void mdm_gpu_destroy_mark(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    if (mark) emulated_refuse_in_graph(gpu, "the host waits");
    if (mark && !mark->graph) emulated_wait(gpu, mark->point.queue, mark->point.count);
    free(mark);
}

/* Those of sends are left to another thread, and are not counted. */
static mdm_status count_mark(mdm_gpu *gpu, mdm_gpu_queue queue) {
    static const char what[] = "recording an event";
    if (queue == MDM_GPU_SENDING || emulated_is_captured(gpu, queue)) return emulated_tell_loss(gpu, what);
    return emulated_count_call(gpu, "mark", what);
}

mdm_status mdm_gpu_record(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    MDM_TRY(count_mark(gpu, queue));
    pthread_mutex_lock(&gpu->lock);
    if (emulated_is_captured(gpu, queue))
        emulated_record_in_graph(gpu, queue, mark);
    else
        *mark = (mdm_gpu_mark){.point = {queue, gpu->lanes[queue].queued}};
    pthread_mutex_unlock(&gpu->lock);
    return MDM_OK;
}

mdm_status mdm_gpu_follow(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    MDM_TRY(count_mark(gpu, queue));
    pthread_mutex_lock(&gpu->lock);
    if (!emulated_follow_in_graph(gpu, queue, mark)) {
        emulated_push(&gpu->lanes[queue], (entry){.kind = FOLLOW, .point = mark->point});
        emulated_go_on(gpu);
    }
    pthread_mutex_unlock(&gpu->lock);
    return MDM_OK;
}

mdm_status mdm_gpu_await(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    emulated_refuse_in_graph(gpu, "the host waits");
    if (mark->graph) emulated_refuse("the host waits for a mark that was recorded in a graph");
    MDM_TRY(emulated_count_call(gpu, "wait", "what was queued before an event"));
    emulated_wait(gpu, mark->point.queue, mark->point.count);
    return emulated_tell_loss(gpu, "what was queued before an event");
}

/* ---- beginning and end ---- */

/* The ranks' orders differ. */
static void choose_policy(mdm_gpu *gpu) {
    const char *told = getenv("MDM_EMULATED_ORDER"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!told || strcmp(told, "late") == 0) {
        gpu->policy = ORDER_LATE;
    } else if (strcmp(told, "early") == 0) {
        gpu->policy = ORDER_EARLY;
    } else if (strcmp(told, "computing-last") == 0) {
        gpu->policy = ORDER_COMPUTING_LAST;
    } else if (strncmp(told, "random:", 7) == 0) {
        gpu->policy = ORDER_RANDOM;
        gpu->random = (uint64_t)(atoll(told + 7) * 64 + (rank ? atoi(rank) : 0));
        for (int i = 0; i < 8; i++) (void)emulated_draw(gpu);
    } else {
        emulated_refuse("MDM_EMULATED_ORDER=%s: late, early, computing-last and random:SEED are known", told);
    }
}

void emulated_open_queues(mdm_gpu *gpu) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&gpu->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    gpu->owner = pthread_self();
    gpu->doomed_work = -1;
    choose_policy(gpu);
    emulated_open_races(gpu);
    for (int q = 0; q < EMULATED_QUEUES; q++)
        gpu->streams[q] = (stream){{queue_work, lose_stream, finish_works}, gpu, (mdm_gpu_queue)q};
}

void emulated_close_queues(mdm_gpu *gpu) {
    emulated_wait_for_queue(gpu, MDM_GPU_SENDING);
    emulated_wait_for_queue(gpu, MDM_GPU_BESIDE);
    emulated_wait_for_queue(gpu, MDM_GPU_COMPUTING);
    for (int q = 0; q < EMULATED_QUEUES; q++) emulated_free_lane(&gpu->lanes[q], 0);
    emulated_close_races(gpu);
    pthread_mutex_destroy(&gpu->lock);
}
