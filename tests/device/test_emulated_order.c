/* The emulated device itself: in which order it runs what is queued, what its waits wait for, and what it
 * refuses. Its orders are to show what a mark is missing for, so each is shown to differ from
 * another where one is missing, and not to where it is there; with ThreadSanitizer, to be reported. */
#include "cuda/gpu.h"
#include "emulated_stream.h"
#include "golden.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 512 };
static const char *const orders[] = {"late", "computing-last", "early", "random:1", "random:2", "random:3"};
enum { ORDERS = sizeof orders / sizeof *orders };

/* Memory of the device, [COUNT] each, and page-locked memory for it. */
typedef struct machine {
    mdm_gpu *gpu;
    float *a, *b, *pinned;
    mdm_gpu_mark *mark, *other;
} machine;

static void fill(float *values, float value) {
    for (int i = 0; i < COUNT; i++) values[i] = value;
}

static machine open_machine(const char *order) {
    machine m;
    mdm_gpu_info info;
    float zeros[COUNT] = {0};
    assert_int_equal(setenv("MDM_EMULATED_ORDER", order, 1), 0);
    assert_int_equal(mdm_gpu_open(0, &m.gpu, &info), MDM_OK);
    assert_int_equal(mdm_gpu_allocate(m.gpu, sizeof zeros, "a test", (void **)&m.a), MDM_OK);
    assert_int_equal(mdm_gpu_allocate(m.gpu, sizeof zeros, "a test", (void **)&m.b), MDM_OK);
    assert_int_equal(mdm_gpu_pin(m.gpu, sizeof zeros, "a test", (void **)&m.pinned), MDM_OK);
    assert_int_equal(mdm_gpu_create_mark(m.gpu, &m.mark), MDM_OK);
    assert_int_equal(mdm_gpu_create_mark(m.gpu, &m.other), MDM_OK);
    assert_int_equal(mdm_gpu_upload(m.gpu, m.a, zeros, sizeof zeros), MDM_OK);
    assert_int_equal(mdm_gpu_upload(m.gpu, m.b, zeros, sizeof zeros), MDM_OK);
    fill(m.pinned, 1);
    return m;
}

static void close_machine(machine *m) {
    mdm_gpu_destroy_mark(m->gpu, m->mark);
    mdm_gpu_destroy_mark(m->gpu, m->other);
    mdm_gpu_unpin(m->gpu, m->pinned);
    mdm_gpu_free(m->gpu, m->a);
    mdm_gpu_free(m->gpu, m->b);
    mdm_gpu_close(m->gpu);
}

static void send_to(machine *m, mdm_gpu_queue queue, float *memory) {
    assert_int_equal(mdm_gpu_send(m->gpu, queue, memory, m->pinned, sizeof(float) * COUNT), MDM_OK);
}

/* b = a, as something computed. */
static void compute(machine *m) {
    mdm_gpu_copy(m->gpu, m->b, m->a, sizeof(float) * COUNT);
}

static void pass(machine *m, mdm_gpu_queue from, mdm_gpu_queue to, mdm_gpu_mark *mark) {
    assert_int_equal(mdm_gpu_record(m->gpu, from, mark), MDM_OK);
    assert_int_equal(mdm_gpu_follow(m->gpu, to, mark), MDM_OK);
}

static float result(machine *m) {
    float values[COUNT];
    assert_int_equal(mdm_gpu_download(m->gpu, values, m->b, sizeof values), MDM_OK);
    for (int i = 1; i < COUNT; i++) assert_true(values[i] == values[0]);
    return values[0];
}

/* ---- programs; with `is_marked`, as they should be ---- */

static float computing_reads_what_is_sent(machine *m, int is_marked) {
    send_to(m, MDM_GPU_SENDING, m->a);
    if (is_marked) pass(m, MDM_GPU_SENDING, MDM_GPU_COMPUTING, m->mark);
    compute(m);
    return result(m);
}

static float a_send_replaces_what_computing_has_read(machine *m, int is_marked) {
    compute(m);
    if (is_marked) pass(m, MDM_GPU_COMPUTING, MDM_GPU_SENDING, m->mark);
    send_to(m, MDM_GPU_SENDING, m->a);
    return result(m);
}

static float the_host_changes_what_a_send_reads(machine *m, int is_marked) {
    send_to(m, MDM_GPU_COMPUTING, m->b);
    if (is_marked) {
        assert_int_equal(mdm_gpu_record(m->gpu, MDM_GPU_COMPUTING, m->mark), MDM_OK);
        assert_int_equal(mdm_gpu_await(m->gpu, m->mark), MDM_OK);
    }
    fill(m->pinned, 2);
    return result(m);
}

/* The same of a recorded step's send, whose memory the host changes before the replay has read it. */
static float the_host_changes_what_a_replay_reads(machine *m, int is_marked) {
    mdm_gpu_graph *graph;
    assert_int_equal(mdm_gpu_begin_graph(m->gpu), MDM_OK);
    send_to(m, MDM_GPU_COMPUTING, m->b);
    assert_int_equal(mdm_gpu_end_graph(m->gpu, 1, &graph), MDM_OK);
    assert_true(result(m) == 0);
    fill(m->pinned, 3);
    assert_int_equal(mdm_gpu_launch_graph(m->gpu, graph, 1), MDM_OK);
    if (is_marked) {
        assert_int_equal(mdm_gpu_record(m->gpu, MDM_GPU_COMPUTING, m->mark), MDM_OK);
        assert_int_equal(mdm_gpu_await(m->gpu, m->mark), MDM_OK);
    }
    fill(m->pinned, 2);
    mdm_gpu_destroy_graph(m->gpu, graph);
    return result(m);
}

/* The mark that is followed is the one that was recorded last before. */
static float what_is_followed_is_recorded_too_early(machine *m, int is_marked) {
    assert_int_equal(mdm_gpu_record(m->gpu, MDM_GPU_SENDING, m->mark), MDM_OK);
    send_to(m, MDM_GPU_SENDING, m->a);
    if (is_marked) assert_int_equal(mdm_gpu_record(m->gpu, MDM_GPU_SENDING, m->mark), MDM_OK);
    assert_int_equal(mdm_gpu_follow(m->gpu, MDM_GPU_COMPUTING, m->mark), MDM_OK);
    compute(m);
    assert_int_equal(mdm_gpu_record(m->gpu, MDM_GPU_SENDING, m->mark), MDM_OK);
    return result(m);
}

/* Memory is zeroed where things are computed. */
static float fresh_memory_is_sent_to(machine *m, int is_marked) {
    float *fresh;
    assert_int_equal(mdm_gpu_allocate(m->gpu, sizeof(float) * COUNT, "a test", (void **)&fresh), MDM_OK);
    if (is_marked) pass(m, MDM_GPU_COMPUTING, MDM_GPU_SENDING, m->other);
    send_to(m, MDM_GPU_SENDING, fresh);
    pass(m, MDM_GPU_SENDING, MDM_GPU_COMPUTING, m->mark);
    mdm_gpu_copy(m->gpu, m->b, fresh, sizeof(float) * COUNT);
    mdm_gpu_free(m->gpu, fresh);
    return result(m);
}

/* A graph with a branch: computing, beside it a transfer for which computing waits at the end. `is_marked`:
 * the two are in order. What was queued in either queue before is not part of it. */
static float a_graph_with_two_branches(machine *m, int is_marked) {
    mdm_gpu_graph *graph;
    assert_int_equal(mdm_gpu_begin_graph(m->gpu), MDM_OK);
    if (!is_marked) pass(m, MDM_GPU_COMPUTING, MDM_GPU_COMMUNICATING, m->mark);
    compute(m);
    if (is_marked) pass(m, MDM_GPU_COMPUTING, MDM_GPU_COMMUNICATING, m->mark);
    send_to(m, MDM_GPU_COMMUNICATING, m->a);
    pass(m, MDM_GPU_COMMUNICATING, MDM_GPU_COMPUTING, m->other);
    assert_int_equal(mdm_gpu_end_graph(m->gpu, 1, &graph), MDM_OK);
    assert_int_equal(mdm_gpu_launch_graph(m->gpu, graph, 1), MDM_OK);
    float first = result(m);
    assert_int_equal(mdm_gpu_launch_graph(m->gpu, graph, 1), MDM_OK);
    mdm_gpu_destroy_graph(m->gpu, graph); /* while it is queued */
    return first * 10 + result(m);
}

/* Kernels beside what is computed, which go there by a turn: b = a + a behind a = 1, and b is read. */
static float what_is_beside_follows_and_is_followed(machine *m, int is_marked) {
    mdm_add_arguments add = {.a = m->a, .b = m->a, .y = m->b, .count = COUNT / MDM_GPU_LANES};
    send_to(m, MDM_GPU_COMPUTING, m->a);
    if (is_marked) pass(m, MDM_GPU_COMPUTING, MDM_GPU_BESIDE, m->mark);
    mdm_gpu_turn_to(m->gpu, MDM_GPU_BESIDE);
    mdm_gpu_add(m->gpu, COUNT / MDM_GPU_LANES / MDM_GPU_THREADS + 1, 1, &add);
    mdm_gpu_turn_to(m->gpu, MDM_GPU_COMPUTING);
    if (is_marked) pass(m, MDM_GPU_BESIDE, MDM_GPU_COMPUTING, m->other);
    return result(m);
}

/* The same in a graph, whose two branches both are in order, or neither. */
static float a_graph_with_kernels_beside(machine *m, int is_marked) {
    mdm_gpu_graph *graph;
    assert_int_equal(mdm_gpu_begin_graph(m->gpu), MDM_OK);
    if (!is_marked) pass(m, MDM_GPU_COMPUTING, MDM_GPU_BESIDE, m->mark);
    send_to(m, MDM_GPU_COMPUTING, m->a);
    mdm_add_arguments add = {.a = m->a, .b = m->a, .y = m->b, .count = COUNT / MDM_GPU_LANES};
    if (is_marked) pass(m, MDM_GPU_COMPUTING, MDM_GPU_BESIDE, m->mark);
    mdm_gpu_turn_to(m->gpu, MDM_GPU_BESIDE);
    mdm_gpu_add(m->gpu, COUNT / MDM_GPU_LANES / MDM_GPU_THREADS + 1, 1, &add);
    mdm_gpu_turn_to(m->gpu, MDM_GPU_COMPUTING);
    pass(m, MDM_GPU_BESIDE, MDM_GPU_COMPUTING, m->other);
    assert_int_equal(mdm_gpu_end_graph(m->gpu, 1, &graph), MDM_OK);
    assert_int_equal(mdm_gpu_launch_graph(m->gpu, graph, 1), MDM_OK);
    float got = result(m);
    mdm_gpu_destroy_graph(m->gpu, graph);
    return got;
}

#ifdef MDM_SHOW_RACES

#include "races.h"

typedef struct trial {
    float (*program)(machine *, int);
    const char *order;
    int is_marked;
} trial;

static void try_program(const void *given) {
    const trial *t = given;
    machine m = open_machine(t->order);
    (void)t->program(&m, t->is_marked);
    close_machine(&m);
}

/* A missing mark is a race in every order, whatever comes of it. */
static void check_program(float (*program)(machine *, int), float expected) {
    (void)expected;
    for (int i = 0; i < ORDERS; i++)
        for (int is_marked = 0; is_marked < 2; is_marked++) {
            const trial t = {program, orders[i], is_marked};
            assert_int_equal(is_race_reported(try_program, &t), !is_marked);
        }
}

#else

static void check_program(float (*program)(machine *, int), float expected) {
    int wrong = 0;
    for (int i = 0; i < ORDERS; i++)
        for (int is_marked = 0; is_marked < 2; is_marked++) {
            machine m = open_machine(orders[i]);
            float got = program(&m, is_marked);
            close_machine(&m);
            if (is_marked) assert_true(got == expected);
            wrong += got != expected;
        }
    assert_true(wrong > 0);
}

#endif

static void a_missing_mark_shows_in_some_order_and_none_where_it_is_there(void **state) {
    (void)state;
    check_program(computing_reads_what_is_sent, 1);
    check_program(a_send_replaces_what_computing_has_read, 0);
    check_program(the_host_changes_what_a_send_reads, 1);
    check_program(the_host_changes_what_a_replay_reads, 3);
    check_program(what_is_followed_is_recorded_too_early, 1);
    check_program(fresh_memory_is_sent_to, 1);
    check_program(a_graph_with_two_branches, 1);
    check_program(what_is_beside_follows_and_is_followed, 2);
    check_program(a_graph_with_kernels_beside, 2);
}

/* ---- waits ---- */

#ifndef MDM_SHOW_RACES /* what it looks at is one */
static void a_wait_runs_no_more_than_what_it_waits_for(void **state) {
    (void)state;
    machine m = open_machine("late");
    send_to(&m, MDM_GPU_SENDING, m.b);
    assert_true(result(&m) == 0); /* a download waits for what is computed alone */
    assert_int_equal(mdm_gpu_record(m.gpu, MDM_GPU_COMPUTING, m.mark), MDM_OK);
    compute(&m);
    assert_int_equal(mdm_gpu_await(m.gpu, m.mark), MDM_OK);
    fill(m.pinned, 5); /* read by none yet */
    pass(&m, MDM_GPU_SENDING, MDM_GPU_COMPUTING, m.other);
    assert_true(result(&m) == 5);
    close_machine(&m);
}
#endif

static void a_mark_never_recorded_holds_nobody_up(void **state) {
    (void)state;
    for (int i = 0; i < ORDERS; i++) {
        machine m = open_machine(orders[i]);
        assert_int_equal(mdm_gpu_follow(m.gpu, MDM_GPU_COMPUTING, m.mark), MDM_OK);
        assert_int_equal(mdm_gpu_await(m.gpu, m.mark), MDM_OK);
        send_to(&m, MDM_GPU_COMPUTING, m.b);
        assert_true(result(&m) == 1);
        close_machine(&m);
    }
}

static int end_at_once(emulated_work *work) {
    (void)work;
    return 1;
}

/* Entries that are done leave their queue after a while, and are looked at no more. */
static void a_communication_is_waited_for_behind_thousands_of_calls(void **state) {
    (void)state;
    for (int i = 0; i < ORDERS; i++) {
        machine m = open_machine(orders[i]);
        emulated_stream *stream = mdm_gpu_stream(m.gpu, MDM_GPU_COMMUNICATING);
        emulated_work *work = calloc(1, sizeof *work);
        assert_non_null(work);
        send_to(&m, MDM_GPU_COMPUTING, m.a);
        for (int call = 0; call < 10000; call++) compute(&m);
        assert_true(result(&m) == 1);
        work->advance = end_at_once;
        stream->queue(stream, work);
        assert_int_equal(stream->finish(stream, 1000000), 1);
        close_machine(&m);
        free(work);
    }
}

/* ---- what is refused: programs whose last call does not return ---- */

static mdm_status follow_a_mark_of_outside(machine *m) {
    compute(m);
    MDM_TRY(mdm_gpu_record(m->gpu, MDM_GPU_COMPUTING, m->mark));
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    return mdm_gpu_follow(m->gpu, MDM_GPU_COMPUTING, m->mark);
}

static mdm_status communicate_beside_it(machine *m) {
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    return mdm_gpu_send(m->gpu, MDM_GPU_COMMUNICATING, m->a, m->pinned, 16);
}

static mdm_status leave_a_branch_open(machine *m) {
    mdm_gpu_graph *graph;
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    pass(m, MDM_GPU_COMPUTING, MDM_GPU_COMMUNICATING, m->mark);
    MDM_TRY(mdm_gpu_send(m->gpu, MDM_GPU_COMMUNICATING, m->a, m->pinned, 16));
    pass(m, MDM_GPU_COMMUNICATING, MDM_GPU_COMPUTING, m->other);
    MDM_TRY(mdm_gpu_send(m->gpu, MDM_GPU_COMMUNICATING, m->a, m->pinned, 16));
    return mdm_gpu_end_graph(m->gpu, 1, &graph);
}

static mdm_status leave_kernels_beside(machine *m) {
    mdm_gpu_graph *graph;
    const mdm_add_arguments add = {.a = m->a, .b = m->a, .y = m->b, .count = 1};
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    pass(m, MDM_GPU_COMPUTING, MDM_GPU_BESIDE, m->mark);
    mdm_gpu_turn_to(m->gpu, MDM_GPU_BESIDE);
    mdm_gpu_add(m->gpu, 1, 1, &add);
    return mdm_gpu_end_graph(m->gpu, 1, &graph);
}

static mdm_status record_inside(machine *m) {
    mdm_gpu_graph *graph;
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    MDM_TRY(mdm_gpu_record(m->gpu, MDM_GPU_COMPUTING, m->mark));
    return mdm_gpu_end_graph(m->gpu, 1, &graph);
}

static mdm_status await_a_mark_of_inside(machine *m) {
    MDM_TRY(record_inside(m));
    return mdm_gpu_await(m->gpu, m->mark);
}

static mdm_status follow_a_mark_of_inside(machine *m) {
    MDM_TRY(record_inside(m));
    return mdm_gpu_follow(m->gpu, MDM_GPU_COMMUNICATING, m->mark);
}

static mdm_status send_behind_a_mark_of_inside(machine *m) {
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    MDM_TRY(mdm_gpu_record(m->gpu, MDM_GPU_COMPUTING, m->mark));
    return mdm_gpu_follow(m->gpu, MDM_GPU_SENDING, m->mark);
}

static mdm_status wait_inside(machine *m) {
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    return mdm_gpu_await(m->gpu, m->mark);
}

static mdm_status free_a_mark_inside(machine *m) {
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    mdm_gpu_destroy_mark(m->gpu, m->mark);
    return MDM_OK;
}

static const mdm_gpu_convolution small = {MDM_GPU_FORWARD, MDM_FP32, 1, 8, 8, 1, 1, 1, 1};

static mdm_status plan_inside(machine *m) {
    mdm_gpu_plan *plan;
    MDM_TRY(mdm_gpu_plan_convolution(m->gpu, &small, &plan));
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    MDM_TRY(mdm_gpu_plan_convolution(m->gpu, &small, &plan)); /* which is known */
    mdm_gpu_convolution other = small;
    other.batch = 2;
    return mdm_gpu_plan_convolution(m->gpu, &other, &plan);
}

static mdm_status multiply_anew_inside(machine *m) {
    const mdm_product_shape shape = {MDM_PRODUCT_NT, MDM_FP32, 4, 4, 4, 0};
    mdm_gpu_product *product;
    MDM_TRY(mdm_gpu_begin_graph(m->gpu));
    return mdm_gpu_plan_product(m->gpu, &shape, &product);
}

static mdm_status convolve_askew(machine *m) {
    mdm_gpu_plan *plan;
    MDM_TRY(mdm_gpu_plan_convolution(m->gpu, &small, &plan));
    return mdm_gpu_convolve(m->gpu, plan, m->a, m->b, m->b + 65);
}

/* In a child, which must end by it, with a line that has these words. */
static void is_refused(mdm_status (*program)(machine *), const char *words) {
    char line[512] = "";
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        machine m = open_machine("late");
        _exit((int)program(&m));
    }
    close(ends[1]);
    FILE *told = fdopen(ends[0], "r");
    assert_non_null(told);
    assert_non_null(fgets(line, sizeof line, told));
    fclose(told);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    if (strstr(line, words) == NULL) fail_msg("%s instead of %s", line, words);
}

static void what_cuda_refuses_of_a_graph_ends_the_test(void **state) {
    (void)state;
    is_refused(follow_a_mark_of_outside, "follows a mark of outside of the graph");
    is_refused(communicate_beside_it, "is no part of it");
    is_refused(leave_a_branch_open, "before computing has followed");
    is_refused(leave_kernels_beside, "before computing has followed");
    is_refused(await_a_mark_of_inside, "the host waits for a mark that was recorded in a graph");
    is_refused(follow_a_mark_of_inside, "follows a mark that was recorded in a graph");
    is_refused(send_behind_a_mark_of_inside, "follows a mark that was recorded in a graph");
    is_refused(wait_inside, "the host waits while a graph is recorded");
    is_refused(free_a_mark_inside, "the host waits while a graph is recorded");
    is_refused(plan_inside, "is planned while a graph is recorded");
    is_refused(multiply_anew_inside, "is planned while a graph is recorded");
}

static void what_a_plan_was_not_told_ends_the_test(void **state) {
    (void)state;
    is_refused(convolve_askew, "not aligned as its plan was told");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_mark_shows_in_some_order_and_none_where_it_is_there),
#ifndef MDM_SHOW_RACES
        cmocka_unit_test(a_wait_runs_no_more_than_what_it_waits_for),
#endif
        cmocka_unit_test(a_mark_never_recorded_holds_nobody_up),
        cmocka_unit_test(a_communication_is_waited_for_behind_thousands_of_calls),
        cmocka_unit_test(what_cuda_refuses_of_a_graph_ends_the_test),
        cmocka_unit_test(what_a_plan_was_not_told_ends_the_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
