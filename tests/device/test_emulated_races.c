/* What ThreadSanitizer reports of kernels on the emulated device (emulated_races.h): races of a launch, in
 * whichever order its blocks and threads come, and nothing where CUDA orders them. */
#include "emulated_gpu.h"
#include "races.h"

enum { BLOCKS = 6 };

typedef struct arguments {
    uint32_t *words; /* [BLOCKS][MDM_GPU_THREADS] */
    emulated_thread_runner *run;
    uint32_t blocks, phases;
} arguments;

static void run_kernel(mdm_gpu *gpu, const void *given) {
    static uint32_t shared[EMULATED_GROUPS][MDM_GPU_THREADS];
    const arguments a = *(const arguments *)given;
    emulated_thread t = {.arguments = &a};
    for (emulated_grid g = emulated_draw_grid(gpu, a.blocks, 1);
         emulated_next_block(gpu, &g, shared, sizeof *shared, &t);)
        for (uint32_t phase = 0; phase < a.phases; phase++) emulated_run_phase(gpu, a.run, t, phase);
}

static void queue_kernel(mdm_gpu *gpu, const arguments *a) {
    emulated_queue_call(gpu, "test", run_kernel, a, sizeof *a, NULL);
}

/* ---- kernels ---- */

static uint32_t *words_of(const emulated_thread *t) {
    return ((const arguments *)t->arguments)->words;
}

static void write_own_word(const emulated_thread *t) {
    words_of(t)[mdm_thread_number(t->at)] = 1;
}

/* The same value, too, is a race. */
static void write_first_word_by_each_block(const emulated_thread *t) {
    if (t->at.thread == 0) words_of(t)[0] = 1;
}

static void count_in_first_word(const emulated_thread *t) {
    (void)mdm_atomic_add(&words_of(t)[0], 1);
}

static void count_and_look(const emulated_thread *t) {
    if (t->at.thread == 0 && t->at.block == 0)
        words_of(t)[1] = words_of(t)[0];
    else
        (void)mdm_atomic_add(&words_of(t)[0], 1);
}

/* Block 0 writes, the next one reads a phase later: no barrier is for both. */
static void read_what_another_block_wrote(const emulated_thread *t) {
    uint32_t *words = words_of(t);
    if (t->phase == 0 && t->at.block == 0) words[t->at.thread] = 1;
    if (t->phase == 1 && t->at.block == 1) words[MDM_GPU_THREADS + t->at.thread] = words[t->at.thread];
}

static void leave_in_shared_memory(const emulated_thread *t) {
    ((uint32_t *)t->shared)[t->at.thread] = t->at.thread;
}

static void take_from_neighbour(const emulated_thread *t) {
    words_of(t)[mdm_thread_number(t->at)] = ((uint32_t *)t->shared)[(t->at.thread + 1) % MDM_GPU_THREADS];
}

static void pass_on_behind_a_barrier(const emulated_thread *t) {
    t->phase == 0 ? leave_in_shared_memory(t) : take_from_neighbour(t);
}

static void pass_on_without_a_barrier(const emulated_thread *t) {
    leave_in_shared_memory(t);
    take_from_neighbour(t);
}

/* Escaping locals of two threads are not one memory. */
static void use_own_stack(const emulated_thread *t) {
    volatile uint32_t values[64];
    for (uint32_t i = 0; i < 64; i++) values[i] = i + t->at.thread;
    words_of(t)[mdm_thread_number(t->at)] = values[t->at.thread % 64];
}

/* ---- launches ---- */

typedef struct launches {
    const char *order;
    emulated_thread_runner *first, *second; /* second: a launch behind it, or NULL */
    uint32_t blocks, phases;
} launches;

static void run_launches(const void *given) {
    const launches *l = given;
    uint32_t words[BLOCKS * MDM_GPU_THREADS];
    mdm_gpu *gpu;
    mdm_gpu_info info;
    arguments a = {.run = l->first, .blocks = l->blocks, .phases = l->phases};
    assert_int_equal(setenv("MDM_EMULATED_ORDER", l->order, 1), 0);
    assert_int_equal(mdm_gpu_open(0, &gpu, &info), MDM_OK);
    assert_int_equal(mdm_gpu_allocate(gpu, sizeof words, "a test", (void **)&a.words), MDM_OK);
    queue_kernel(gpu, &a);
    a.run = l->second;
    if (a.run) queue_kernel(gpu, &a);
    assert_int_equal(mdm_gpu_download(gpu, words, a.words, sizeof words), MDM_OK);
    mdm_gpu_free(gpu, a.words);
    mdm_gpu_close(gpu);
}

static void check(emulated_thread_runner *first, emulated_thread_runner *second, uint32_t blocks,
                  uint32_t phases, int is_race) {
    static const char *const orders[] = {"late", "early", "random:1", "random:2"};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        const launches l = {orders[i], first, second, blocks, phases};
        assert_int_equal(is_race_reported(run_launches, &l), is_race);
    }
}

static void blocks_of_a_launch_are_in_no_order(void **state) {
    (void)state;
    check(write_own_word, NULL, BLOCKS, 1, 0);
    check(write_first_word_by_each_block, NULL, BLOCKS, 1, 1);
    check(write_first_word_by_each_block, NULL, 1, 2, 0);
    check(read_what_another_block_wrote, NULL, 2, 2, 1);
}

static void a_barrier_orders_the_threads_of_a_block(void **state) {
    (void)state;
    check(pass_on_behind_a_barrier, NULL, BLOCKS, 2, 0);
    check(pass_on_without_a_barrier, NULL, BLOCKS, 1, 1);
    check(pass_on_without_a_barrier, NULL, 1, 1, 1);
}

static void launches_of_a_queue_are_in_order(void **state) {
    (void)state;
    check(write_own_word, write_first_word_by_each_block, 1, 1, 0);
    check(write_own_word, write_own_word, BLOCKS, 1, 0);
    check(count_in_first_word, write_own_word, BLOCKS, 1, 0);
}

static void atomic_operations_are_none_of_a_race_and_order_nothing(void **state) {
    (void)state;
    check(count_in_first_word, NULL, BLOCKS, 1, 0);
    check(count_and_look, NULL, BLOCKS, 1, 1);
    check(count_and_look, NULL, 1, 1, 1);
}

static void threads_have_stacks_of_their_own(void **state) {
    (void)state;
    check(use_own_stack, use_own_stack, BLOCKS, 2, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_a_launch_are_in_no_order),
        cmocka_unit_test(a_barrier_orders_the_threads_of_a_block),
        cmocka_unit_test(launches_of_a_queue_are_in_order),
        cmocka_unit_test(atomic_operations_are_none_of_a_race_and_order_nothing),
        cmocka_unit_test(threads_have_stacks_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
