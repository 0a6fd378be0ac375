/* Every function of the process group, run by mpirun on 1, 2, 3 and 4 ranks. A test is run by all ranks
 * together. */
#include "golden.h"

#include "internal.h"
#include "mdm/base/random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static mdm_comm *comm;
static int rank, size;

/* What rank r holds at place i: different everywhere, and its sums need rounding. */
static float number_of(int r, int64_t i) {
    mdm_random stream = mdm_random_stream(5, MDM_RANDOM_TEST, (uint32_t)r, (uint64_t)i, 0);
    return (float)mdm_random_normal(&stream) * (i % 7 == 0 ? 1000.0f : 1.0f);
}

static float *numbers_of(int r, int64_t n) {
    float *values;
    assert_int_equal(MDM_ALLOCATE(values, n, "values"), MDM_OK);
    for (int64_t i = 0; i < n; i++) values[i] = number_of(r, i);
    return values;
}

/* Sums over ranks in double, against which float sums are measured. */
static float *sums(int64_t n) {
    float *values;
    assert_int_equal(MDM_ALLOCATE(values, n, "values"), MDM_OK);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int r = 0; r < size; r++) sum += number_of(r, i);
        values[i] = (float)sum;
    }
    return values;
}

/* Compares with rank 0's bits. */
static void assert_same_on_all_ranks(const void *data, int64_t bytes) {
    char *other = malloc((size_t)bytes + 1);
    assert_non_null(other);
    memcpy(other, data, (size_t)bytes);
    assert_int_equal(mdm_comm_broadcast(comm, other, bytes, MDM_BYTE, 0), MDM_OK);
    assert_memory_equal(other, data, (size_t)bytes);
    free(other);
}

static void the_group_knows_its_ranks_hosts_and_library(void **state) {
    (void)state;
    assert_in_range(rank, 0, size - 1);
    const char *told = getenv("OMPI_COMM_WORLD_SIZE");
    if (told) assert_int_equal(size, atoi(told));
    assert_int_equal(mdm_comm_node_size(comm), size); /* the test's mpirun uses one node */
    assert_int_equal(mdm_comm_node_rank(comm), rank);
    assert_true(strlen(mdm_comm_host(comm)) > 0);
    if (strncmp(mdm_comm_library(comm), "Open MPI ", 9) == 0)
        assert_in_range(mdm_comm_library(comm)[9], '0', '9');
}

static void slices_cover_everything_once_and_differ_by_one_at_most(void **state) {
    (void)state;
    const int64_t totals[] = {0, 1, 5, 97, 50000, 1281167, INT64_MAX / 2};
    for (int t = 0; t < 7; t++)
        for (int ranks = 1; ranks < 10; ranks++) {
            int64_t next = 0, first, count, smallest = INT64_MAX, largest = 0;
            for (int r = 0; r < ranks; r++) {
                mdm_comm_slice(totals[t], r, ranks, &first, &count);
                assert_true(first == next && count >= 0);
                if (totals[t] < 1000000000) assert_true(first == r * totals[t] / ranks);
                next = first + count;
                if (count < smallest) smallest = count;
                if (count > largest) largest = count;
            }
            assert_true(next == totals[t]);
            assert_true(largest - smallest <= 1);
        }
    int64_t mine[2], same[2];
    mdm_comm_my_slice(comm, 97, &mine[0], &mine[1]);
    mdm_comm_slice(97, rank, size, &same[0], &same[1]);
    assert_memory_equal(mine, same, sizeof mine);
}

static void a_barrier_holds_everybody_until_the_last_one_comes(void **state) {
    (void)state;
    mdm_comm_shared *shared;
    void *memory;
    assert_int_equal(mdm_comm_shared_create(comm, sizeof(int), &shared, &memory), MDM_OK);
    volatile int *late = memory;
    if (rank == size - 1) {
        usleep(100000);
        *late = 1;
    }
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
    assert_int_equal(*late, 1);
    assert_int_equal(mdm_comm_shared_sync(comm, shared), MDM_OK);
    mdm_comm_shared_free(shared);
}

static void a_broadcast_brings_the_roots_data_of_every_type(void **state) {
    (void)state;
    for (int root = 0; root < size; root++) {
        float f[3] = {rank + 0.5f, 2, 3};
        double d[2] = {rank + 0.25, -1};
        int32_t i[1] = {rank - 7};
        int64_t l[2] = {rank + (1ll << 40), 1};
        uint8_t b[5] = {(uint8_t)rank, 1, 2, 3, 4};
        assert_int_equal(mdm_comm_broadcast(comm, f, 3, MDM_FLOAT, root), MDM_OK);
        assert_int_equal(mdm_comm_broadcast(comm, d, 2, MDM_DOUBLE, root), MDM_OK);
        assert_int_equal(mdm_comm_broadcast(comm, i, 1, MDM_INT32, root), MDM_OK);
        assert_int_equal(mdm_comm_broadcast(comm, l, 2, MDM_INT64, root), MDM_OK);
        assert_int_equal(mdm_comm_broadcast(comm, b, 5, MDM_BYTE, root), MDM_OK);
        assert_true(f[0] == root + 0.5f && f[2] == 3 && d[0] == root + 0.25 && d[1] == -1);
        assert_true(i[0] == root - 7 && l[0] == root + (1ll << 40) && l[1] == 1 && b[0] == root && b[4] == 4);
        assert_int_equal(mdm_comm_broadcast(comm, NULL, 0, MDM_FLOAT, root), MDM_OK);
    }
}

static void check_float_sum(int64_t n) {
    float *values = numbers_of(rank, n), *expected = sums(n);
    assert_int_equal(mdm_comm_all_reduce(comm, values, n, MDM_FLOAT, MDM_SUM), MDM_OK);
    assert_close(values, expected, n, 1e-3, 1e-6, "sum over ranks");
    assert_same_on_all_ranks(values, n * (int64_t)sizeof *values);
    free(values);
    free(expected);
}

/* The sizes make Open MPI choose different algorithms. */
static void float_sums_are_right_and_the_same_to_the_bit_on_all_ranks(void **state) {
    (void)state;
    const int64_t lengths[] = {0, 1, 3, 100, 2000, 30011, 400009};
    for (int i = 0; i < 7; i++) check_float_sum(lengths[i]);
}

static void every_type_is_summed_and_its_extremes_are_found(void **state) {
    (void)state;
    double d[3] = {rank, -rank, 0.1 * rank};
    int32_t i[2] = {rank, 5 - rank};
    int64_t l[2] = {(1ll << 40) + rank, -rank};
    uint8_t b[2] = {(uint8_t)(200 + rank), (uint8_t)(9 - rank)};
    int last = size - 1, triangle = last * size / 2;
    assert_int_equal(mdm_comm_all_reduce(comm, d, 3, MDM_DOUBLE, MDM_SUM), MDM_OK);
    assert_true(d[0] == triangle && d[1] == -triangle && fabs(d[2] - 0.1 * triangle) < 1e-12);
    assert_int_equal(mdm_comm_all_reduce(comm, i, 2, MDM_INT32, MDM_MAX), MDM_OK);
    assert_true(i[0] == last && i[1] == 5);
    assert_int_equal(mdm_comm_all_reduce(comm, l, 2, MDM_INT64, MDM_MIN), MDM_OK);
    assert_true(l[0] == (1ll << 40) && l[1] == -last);
    assert_int_equal(mdm_comm_all_reduce(comm, l, 2, MDM_INT64, MDM_SUM), MDM_OK);
    assert_true(l[0] == size * (1ll << 40) && l[1] == -last * size);
    assert_int_equal(mdm_comm_all_reduce(comm, b, 2, MDM_BYTE, MDM_MAX), MDM_OK);
    assert_true(b[0] == 200 + last && b[1] == 9);
}

static void extremes_of_floats_agree_on_all_ranks_even_for_nan_and_signed_zeros(void **state) {
    (void)state;
    for (int where = 0; where < size; where++) {
        float high[4] = {rank == where ? NAN : 1.0f, rank == where ? 0.0f : -0.0f, (float)rank, -INFINITY};
        double low[4] = {rank == where ? NAN : 1.0, rank == where ? -0.0 : 0.0, rank, INFINITY};
        assert_int_equal(mdm_comm_all_reduce(comm, high, 4, MDM_FLOAT, MDM_MAX), MDM_OK);
        assert_int_equal(mdm_comm_all_reduce(comm, low, 4, MDM_DOUBLE, MDM_MIN), MDM_OK);
        assert_true(isnan(high[0]) && !signbit(high[1]) && high[2] == size - 1 && high[3] == -INFINITY);
        assert_true(isnan(low[0]) && signbit(low[1]) && low[2] == 0.0 && low[3] == INFINITY);
        assert_same_on_all_ranks(high, sizeof high);
        assert_same_on_all_ranks(low, sizeof low);
    }
}

/* Uneven parts: rank r has 3r (so rank 0 has none) or, by slices, parts that differ by one. */
static void uneven_parts_are_gathered_in_rank_order(void **state) {
    (void)state;
    int64_t counts[64], total = 0, first = 0;
    for (int r = 0; r < size; r++) {
        counts[r] = 3 * r;
        if (r < rank) first += counts[r];
        total += counts[r];
    }
    for (int way = 0; way < 3; way++) { /* with counts, without, and in place */
        int32_t all[512], mine[64];
        memset(all, 0xFF, sizeof all);
        for (int i = 0; i < 3 * rank; i++) mine[i] = 100 * rank + i;
        if (way == 2) memcpy(all + first, mine, (size_t)counts[rank] * sizeof *mine);
        assert_int_equal(mdm_comm_all_gather(comm, way == 2 ? all + first : mine, counts[rank], all,
                                             way == 1 ? NULL : counts, MDM_INT32),
                         MDM_OK);
        int32_t *place = all;
        for (int r = 0; r < size; r++)
            for (int i = 0; i < 3 * r; i++) assert_int_equal(*place++, 100 * r + i);
        assert_int_equal(all[total], -1); /* nothing written beyond */
    }
}

static void slices_of_doubles_are_gathered_into_the_whole(void **state) {
    (void)state;
    enum { N = 1003 };
    static double all[N], mine[N];
    int64_t first, count;
    mdm_comm_my_slice(comm, N, &first, &count);
    memset(all, 0, sizeof all);
    for (int64_t i = 0; i < count; i++) mine[i] = 0.5 * (double)(first + i);
    assert_int_equal(mdm_comm_all_gather(comm, mine, count, all, NULL, MDM_DOUBLE), MDM_OK);
    for (int i = 0; i < N; i++) assert_true(all[i] == 0.5 * i);
}

static void a_wrong_count_is_refused(void **state) {
    (void)state;
    if (size == 1) return;
    int64_t counts[64] = {0};
    int32_t mine[1] = {0}, all[1];
    assert_int_equal(mdm_comm_all_gather(comm, mine, 1, all, counts, MDM_INT32), MDM_LOST);
}

static void check_reduce_scatter(int64_t unit) {
    int64_t counts[64], total = 0, first = 0;
    for (int r = 0; r < size; r++) {
        counts[r] = unit * ((r + 1) % size); /* the last rank gets none (of several) */
        if (size == 1) counts[r] = unit;
        if (r < rank) first += counts[r];
        total += counts[r];
    }
    float *all = numbers_of(rank, total), *kept = numbers_of(rank, total), *expected = sums(total), *mine;
    assert_int_equal(MDM_ALLOCATE(mine, counts[rank] + 1, "part"), MDM_OK);
    mine[counts[rank]] = 77.0f;
    assert_int_equal(mdm_comm_reduce_scatter(comm, all, mine, counts), MDM_OK);
    assert_close(mine, expected + first, counts[rank], 1e-3, 1e-6, "my part of the sum");
    assert_true(mine[counts[rank]] == 77.0f);
    assert_memory_equal(all, kept, (size_t)total * sizeof *all);
    free(all), free(kept), free(expected), free(mine);
}

static void a_reduce_scatter_leaves_every_rank_its_part_of_the_sum(void **state) {
    (void)state;
    check_reduce_scatter(1);
    check_reduce_scatter(1000);
    check_reduce_scatter(60013);
}

/* Every rank's block (its length depends on its owner) visits every rank and comes home. */
static void check_ring(int64_t unit, int polling) {
    int64_t longest = unit * size;
    uint8_t *here = malloc((size_t)longest + 1), *coming = malloc((size_t)longest + 1);
    assert_non_null(here);
    assert_non_null(coming);
    for (int64_t i = 0; i < unit * rank; i++) here[i] = (uint8_t)(i * 31 + rank);
    for (int step = 1; step <= size; step++) {
        int owner = (rank - step + 2 * size) % size, leaving = (owner + 1) % size;
        memset(coming, 0xEE, (size_t)longest + 1);
        assert_int_equal(mdm_comm_ring_start(comm, here, unit * leaving, coming, unit * owner), MDM_OK);
        for (int i = 0; i < 20 * polling; i++) assert_int_equal(mdm_comm_poll(comm), MDM_OK);
        assert_int_equal(mdm_comm_ring_wait(comm), MDM_OK);
        for (int64_t i = 0; i < unit * owner; i++) assert_int_equal(coming[i], (uint8_t)(i * 31 + owner));
        assert_int_equal(coming[unit * owner], 0xEE);
        uint8_t *swap = here;
        here = coming;
        coming = swap;
    }
    free(here), free(coming);
}

static void blocks_go_all_the_way_round_the_ring(void **state) {
    (void)state;
    check_ring(1, 0);
    check_ring(1000, 1);
    check_ring(300007, 1);
}

static void a_second_transfer_before_the_first_has_ended_is_refused(void **state) {
    (void)state;
    if (size == 1) return;
    int out = rank, in = -1, other = -1;
    assert_int_equal(mdm_comm_ring_start(comm, &out, sizeof out, &in, sizeof in), MDM_OK);
    assert_int_equal(mdm_comm_ring_start(comm, &out, sizeof out, &other, sizeof other), MDM_LOST);
    assert_int_equal(mdm_comm_ring_wait(comm), MDM_OK);
    assert_int_equal(in, (rank + size - 1) % size);
    assert_int_equal(mdm_comm_ring_wait(comm), MDM_OK); /* nothing to wait for */
}

/* `buckets` reductions under way together, with other messages between them and polling as computation would.
 */
static void check_buckets(int buckets, int64_t length) {
    float **bucket = calloc((size_t)buckets, sizeof *bucket);
    assert_non_null(bucket);
    for (int b = 0; b < buckets; b++) {
        bucket[b] = numbers_of(rank, length + b);
        assert_int_equal(mdm_comm_reduce_start(comm, bucket[b], length + b), MDM_OK);
        for (int i = 0; i < 3; i++) assert_int_equal(mdm_comm_poll(comm), MDM_OK);
    }
    double both = 1.0;
    assert_int_equal(mdm_comm_all_reduce(comm, &both, 1, MDM_DOUBLE, MDM_SUM), MDM_OK);
    assert_true(both == size);
    assert_int_equal(mdm_comm_reduce_wait(comm), MDM_OK);
    float *expected = sums(length + buckets);
    for (int b = 0; b < buckets; b++) {
        assert_close(bucket[b], expected, length + b, 1e-3, 1e-6, "bucket");
        assert_same_on_all_ranks(bucket[b], (length + b) * (int64_t)sizeof(float));
        free(bucket[b]);
    }
    free(expected);
    free(bucket);
}

static void many_bucket_reductions_are_under_way_while_polling(void **state) {
    (void)state;
    check_buckets(1, 10);
    check_buckets(5, 40000);
    check_buckets(64, 100);
    check_buckets(70, 10); /* more than there are places: the first ones are waited for */
    assert_int_equal(mdm_comm_reduce_wait(comm), MDM_OK);
    assert_int_equal(mdm_comm_poll(comm), MDM_OK);
}

static void polling_alone_completes_a_reduction(void **state) {
    (void)state;
    float *values = numbers_of(rank, 5000), *expected = sums(5000);
    assert_int_equal(mdm_comm_reduce_start(comm, values, 5000), MDM_OK);
    for (int i = 0; i < 20000 && comm->reductions_pending > 0; i++) {
        assert_int_equal(mdm_comm_poll(comm), MDM_OK);
        if (i % 100 == 99) usleep(1000);
    }
    assert_int_equal(comm->reductions_pending, 0);
    assert_close(values, expected, 5000, 1e-3, 1e-6, "polled sum");
    assert_int_equal(mdm_comm_reduce_wait(comm), MDM_OK);
    free(values), free(expected);
}

/* What is too large for one MPI call is cut: here at 1000 elements instead of 2^28. */
static void large_counts_are_cut_into_pieces(void **state) {
    (void)state;
    int64_t piece = comm->piece;
    comm->piece = 1000;
    check_float_sum(1000);
    check_float_sum(30011);
    check_buckets(2, 4500);
    check_reduce_scatter(3511);
    check_ring(4001, 1);
    uneven_parts_are_gathered_in_rank_order(NULL);
    comm->piece = 5; /* smaller than the whole of these gathers */
    uneven_parts_are_gathered_in_rank_order(NULL);
    slices_of_doubles_are_gathered_into_the_whole(NULL);
    int32_t many[12];
    for (int i = 0; i < 12; i++) many[i] = rank * 100 + i;
    assert_int_equal(mdm_comm_broadcast(comm, many, 12, MDM_INT32, size - 1), MDM_OK);
    for (int i = 0; i < 12; i++) assert_int_equal(many[i], (size - 1) * 100 + i);
    char out[2000] = {0}, in[2000];
    if (size > 1)
        assert_int_equal(mdm_comm_ring_start(comm, out, 2000, in, 2000), MDM_RESOURCE); /* too many pieces */
    comm->piece = piece;
}

static void one_copy_of_shared_memory_is_seen_by_all_ranks_of_the_node(void **state) {
    (void)state;
    enum { N = 100003 };
    mdm_comm_shared *shared, *second;
    void *memory, *other;
    assert_int_equal(mdm_comm_shared_create(comm, N * (int64_t)sizeof(int32_t), &shared, &memory), MDM_OK);
    assert_int_equal(mdm_comm_shared_create(comm, 0, &second, &other), MDM_OK);
    assert_int_equal((uintptr_t)memory % 64, 0);
    int32_t *values = memory;
    for (int round = 1; round < 4; round++) {
        if (mdm_comm_node_rank(comm) == 0)
            for (int i = 0; i < N; i++) values[i] = i * round;
        assert_int_equal(mdm_comm_shared_sync(comm, shared), MDM_OK);
        for (int i = 0; i < N; i++) assert_int_equal(values[i], i * round);
        assert_int_equal(mdm_comm_shared_sync(comm, shared),
                         MDM_OK); /* all have read before the next write */
    }
    mdm_comm_shared_free(second);
    mdm_comm_shared_free(shared);
    mdm_comm_shared_free(NULL);
}

static void shared_memory_that_the_node_has_not_got_is_refused_with_the_remedy(void **state) {
    (void)state;
    mdm_comm_shared *shared;
    void *memory;
    if (size == 1) return;
    assert_int_equal(mdm_comm_shared_create(comm, (int64_t)1 << 50, &shared, &memory), MDM_RESOURCE);
    assert_null(shared);
    assert_null(memory);
    assert_non_null(strstr(mdm_last_message(), "data.resident=stream"));
}

static void everybody_well_is_agreed_on(void **state) {
    (void)state;
    assert_int_equal(mdm_comm_agree(comm, MDM_OK), MDM_OK);
}

static void one_failing_rank_tells_all_of_them(void **state) {
    (void)state;
    for (int failing = 0; failing < size; failing++) {
        char expected[400];
        mdm_status mine = MDM_OK;
        if (rank == failing) mine = mdm_fail(MDM_INPUT, "cannot open images-%d.h5", rank);
        assert_int_equal(mdm_comm_agree(comm, mine), MDM_INPUT);
        snprintf(expected, sizeof expected, "rank %d on %s: cannot open images-%d.h5", failing,
                 mdm_comm_host(comm), failing);
        if (size > 1) assert_string_equal(mdm_last_message(), expected);
        /* Agreeing once more on what everybody knows changes nothing. */
        if (size > 1) assert_int_equal(mdm_comm_agree(comm, MDM_INPUT), MDM_INPUT);
        if (size > 1) assert_string_equal(mdm_last_message(), expected);
    }
}

static void of_several_failing_ranks_the_lowest_speaks(void **state) {
    (void)state;
    if (size < 3) return;
    mdm_status mine = MDM_OK;
    if (rank == 1) mine = mdm_fail(MDM_RESOURCE, "no memory");
    if (rank == 2) mine = mdm_fail(MDM_NUMERIC, "not a number");
    assert_int_equal(mdm_comm_agree(comm, mine), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "rank 1 on "));
    assert_non_null(strstr(mdm_last_message(), ": no memory"));
}

static void what_all_ranks_say_alike_is_said_once_without_a_rank(void **state) {
    (void)state;
    assert_int_equal(mdm_comm_agree(comm, mdm_fail(MDM_USAGE, "unknown key")), MDM_USAGE);
    assert_string_equal(mdm_last_message(), "unknown key");
}

int main(int argc, char **argv) {
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) {
        fprintf(stderr, "%s\n", mdm_last_message());
        return 1;
    }
    rank = mdm_comm_rank(comm);
    size = mdm_comm_size(comm);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_group_knows_its_ranks_hosts_and_library),
        cmocka_unit_test(slices_cover_everything_once_and_differ_by_one_at_most),
        cmocka_unit_test(a_barrier_holds_everybody_until_the_last_one_comes),
        cmocka_unit_test(a_broadcast_brings_the_roots_data_of_every_type),
        cmocka_unit_test(float_sums_are_right_and_the_same_to_the_bit_on_all_ranks),
        cmocka_unit_test(every_type_is_summed_and_its_extremes_are_found),
        cmocka_unit_test(extremes_of_floats_agree_on_all_ranks_even_for_nan_and_signed_zeros),
        cmocka_unit_test(uneven_parts_are_gathered_in_rank_order),
        cmocka_unit_test(slices_of_doubles_are_gathered_into_the_whole),
        cmocka_unit_test(a_wrong_count_is_refused),
        cmocka_unit_test(a_reduce_scatter_leaves_every_rank_its_part_of_the_sum),
        cmocka_unit_test(blocks_go_all_the_way_round_the_ring),
        cmocka_unit_test(a_second_transfer_before_the_first_has_ended_is_refused),
        cmocka_unit_test(many_bucket_reductions_are_under_way_while_polling),
        cmocka_unit_test(polling_alone_completes_a_reduction),
        cmocka_unit_test(large_counts_are_cut_into_pieces),
        cmocka_unit_test(one_copy_of_shared_memory_is_seen_by_all_ranks_of_the_node),
        cmocka_unit_test(shared_memory_that_the_node_has_not_got_is_refused_with_the_remedy),
        cmocka_unit_test(everybody_well_is_agreed_on),
        cmocka_unit_test(one_failing_rank_tells_all_of_them),
        cmocka_unit_test(of_several_failing_ranks_the_lowest_speaks),
        cmocka_unit_test(what_all_ranks_say_alike_is_said_once_without_a_rank),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) mdm_comm_abort(comm, 1); /* the others may be waiting for a message that will not come */
    mdm_comm_finish(comm);
    return 0;
}
