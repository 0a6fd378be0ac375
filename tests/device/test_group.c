/* The ranks' devices as a group, against sums and concatenations made here: on CPUs, on devices by way of
 * host memory, and over NCCL (MDM_TEST_GROUP=nccl demands it). */
#include "mdm/base/random.h"
#include "mdm/device/group.h"
#include "test_device.h"
#include <math.h>
#include <unistd.h>

enum { MOST = 5000 };

static mdm_comm *comm;
static mdm_device *device;
static mdm_group *group;
static int rank, size;

static float number_of(int r, int64_t i) {
    mdm_random stream = mdm_random_stream(6, MDM_RANDOM_TEST, (uint32_t)r, (uint64_t)i, 0);
    return (float)mdm_random_normal(&stream);
}

static void fill(int r, int64_t n, float *values) {
    for (int64_t i = 0; i < n; i++) values[i] = number_of(r, i);
}

static double sum_of(int64_t i) {
    double sum = 0;
    for (int r = 0; r < size; r++) sum += number_of(r, i);
    return sum;
}

static void fetch(void *host, const void *memory, size_t bytes) {
    assert_int_equal(mdm_device_download(device, host, memory, bytes), MDM_OK);
}

/* Sums of floats, rounded in any order, are near the true ones. */
static void assert_is_sum(const float *values, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double sum = sum_of(first + i), off = fabs(values[i] - sum);
        if (off > 1e-6 * (size + fabs(sum)))
            fail_msg("sum %lld is %.9g, not %.9g", (long long)(first + i), values[i], sum);
    }
}

static void assert_same_on_all_ranks(const void *data, size_t bytes) {
    char *other = malloc(bytes + 1);
    assert_non_null(other);
    memcpy(other, data, bytes);
    assert_int_equal(mdm_comm_broadcast(comm, other, (int64_t)bytes, MDM_BYTE, 0), MDM_OK);
    assert_memory_equal(other, data, bytes);
    free(other);
}

static void sums_of_every_type_are_right_and_the_same_on_all_ranks(void **state) {
    (void)state;
    float f[7], sums[7];
    fill(rank, 7, f);
    float *memory = test_device_copy(device, f, sizeof f);
    assert_int_equal(mdm_group_all_reduce(group, memory, 7, MDM_FLOAT, MDM_SUM), MDM_OK);
    fetch(sums, memory, sizeof sums);
    assert_is_sum(sums, 0, 7);
    assert_same_on_all_ranks(sums, sizeof sums);
    double d[2] = {rank + 0.25, 1};
    int64_t l[2] = {rank + (1ll << 40), -rank};
    double *doubles = test_device_copy(device, d, sizeof d);
    int64_t *longs = test_device_copy(device, l, sizeof l);
    assert_int_equal(mdm_group_all_reduce(group, doubles, 2, MDM_DOUBLE, MDM_SUM), MDM_OK);
    assert_int_equal(mdm_group_all_reduce(group, longs, 2, MDM_INT64, MDM_MAX), MDM_OK);
    fetch(d, doubles, sizeof d);
    fetch(l, longs, sizeof l);
    assert_true(d[0] == size * (size - 1) / 2 + 0.25 * size && d[1] == size);
    assert_true(l[0] == size - 1 + (1ll << 40) && l[1] == 0);
    mdm_device_free(device, memory);
    mdm_device_free(device, doubles);
    mdm_device_free(device, longs);
}

/* Slices as batches have them: equal, unequal, and with nothing for some ranks. */
static void gathers_and_scattered_sums_take_equal_and_unequal_slices(void **state) {
    (void)state;
    const int64_t totals[] = {12, 101, 3, 1};
    float host[128], all_of[128];
    for (int t = 0; t < 4; t++) {
        int64_t counts[16], first = 0, start;
        for (int r = 0; r < size; r++) {
            mdm_comm_slice(totals[t], r, size, &start, &counts[r]);
            if (r == rank) first = start;
        }
        for (int64_t i = 0; i < totals[t]; i++) host[i] = number_of(0, i);
        float *mine = test_device_copy(device, host + first, sizeof(float) * (size_t)counts[rank]);
        float *all = test_device_copy(device, NULL, sizeof host);
        assert_int_equal(mdm_group_all_gather(group, mine, all, counts, MDM_FLOAT), MDM_OK);
        fetch(all_of, all, sizeof(float) * (size_t)totals[t]);
        assert_memory_equal(all_of, host, sizeof(float) * (size_t)totals[t]);
        fill(rank, totals[t], host);
        assert_int_equal(mdm_device_upload(device, all, host, sizeof(float) * (size_t)totals[t]), MDM_OK);
        assert_int_equal(mdm_group_reduce_scatter(group, all, mine, counts), MDM_OK);
        fetch(host, mine, sizeof(float) * (size_t)counts[rank]);
        assert_is_sum(host, first, counts[rank]);
        mdm_device_free(device, mine);
        mdm_device_free(device, all);
    }
}

static void buckets_are_summed_beside_other_work_until_they_are_waited_for(void **state) {
    (void)state;
    static float host[MOST];
    const int64_t ends[] = {MOST, 3000, 2990, 17, 0}; /* from the back, as backward has them */
    fill(rank, MOST, host);
    float *memory = test_device_copy(device, host, sizeof host);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4; i++) {
            double statistics[2] = {i, rank},
                   *other = test_device_copy(device, statistics, sizeof statistics);
            assert_int_equal(mdm_group_reduce_start(group, memory + ends[i + 1], ends[i] - ends[i + 1]),
                             MDM_OK);
            assert_int_equal(mdm_group_all_reduce(group, other, 2, MDM_DOUBLE, MDM_SUM), MDM_OK);
            fetch(statistics, other, sizeof statistics);
            assert_true(statistics[0] == i * size && statistics[1] == size * (size - 1) / 2);
            mdm_device_free(device, other);
        }
        assert_int_equal(mdm_group_reduce_wait(group), MDM_OK);
        float *copy = test_device_copy(device, NULL, sizeof host); /* queued behind the wait */
        mdm_device_copy(device, copy, memory, sizeof host);
        fetch(host, copy, sizeof host);
        mdm_device_free(device, copy);
        assert_is_sum(host, 0, MOST);
        assert_same_on_all_ranks(host, sizeof host);
        fill(rank, MOST, host);
        assert_int_equal(mdm_device_upload(device, memory, host, sizeof host), MDM_OK);
    }
    mdm_device_free(device, memory);
}

static void blocks_travel_round_the_ring_and_come_home(void **state) {
    (void)state;
    enum { BLOCK = 100 };
    float host[BLOCK + 16], expected[BLOCK + 16];
    float *from = test_device_copy(device, NULL, sizeof host),
          *to = test_device_copy(device, NULL, sizeof host);
    fill(rank, BLOCK + rank, host);
    assert_int_equal(mdm_device_upload(device, from, host, sizeof(float) * (size_t)(BLOCK + rank)), MDM_OK);
    for (int step = 1; step <= size; step++) { /* rank r's block has BLOCK + r numbers */
        int out = (rank - step + 1 + size) % size, in = (rank - step + size) % size;
        assert_int_equal(mdm_group_ring_start(group, from, (BLOCK + out) * 4, to, (BLOCK + in) * 4), MDM_OK);
        assert_int_equal(mdm_group_ring_wait(group), MDM_OK);
        fetch(host, to, sizeof(float) * (size_t)(BLOCK + in));
        fill(in, BLOCK + in, expected);
        assert_memory_equal(host, expected, sizeof(float) * (size_t)(BLOCK + in));
        float *swap = from;
        from = to;
        to = swap;
    }
    mdm_device_free(device, from);
    mdm_device_free(device, to);
}

/* Told to fail by the fake NCCL, a sum (odd numbers of MDM_FAKE_NCCL_AT) or the ring (even ones) ends the run
 * as a training step or a division would: the status is the code. */
static int run_into_failure(void) {
    double numbers[2] = {1, 2}, *memory = test_device_copy(device, numbers, sizeof numbers);
    double *other = test_device_copy(device, NULL, sizeof numbers);
    mdm_status status = MDM_OK;
    for (int i = 0; i < 10 && status == MDM_OK; i++) {
        status = mdm_group_all_reduce(group, memory, 2, MDM_DOUBLE, MDM_SUM);
        if (status == MDM_OK) status = mdm_device_download(device, numbers, memory, sizeof numbers);
        if (status == MDM_OK)
            status = mdm_group_ring_start(group, memory, sizeof numbers, other, sizeof numbers);
        if (status == MDM_OK) status = mdm_group_ring_wait(group);
        if (status == MDM_OK) status = mdm_device_download(device, numbers, memory, sizeof numbers);
    }
    return (int)status;
}

static int leave(int code) {
    if (code != 0 && !mdm_comm_all_fail(comm, 2)) {
        fprintf(stderr, "error: %s\n", mdm_last_message());
        mdm_comm_abort(comm, code);
    }
    if (code != 0 && rank == 0) fprintf(stderr, "error: %s\n", mdm_last_message());
    fflush(stderr);
    /* the launcher ends the others as soon as one has left: not before rank 0 has spoken */
    if (mdm_comm_barrier(comm) != MDM_OK) _exit(1);
    _exit(code);
}

static int check_how(const char *how) {
    const char *wanted = getenv("MDM_TEST_GROUP");
    if (rank == 0) printf("# %s\n", how[0] ? how : "alone or on CPUs");
    if (!wanted || size == 1) return 1;
    return strncmp(how, wanted, strlen(wanted)) == 0 &&
           mdm_group_is_queued(group) == (strncmp(how, "NCCL", 4) == 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_every_type_are_right_and_the_same_on_all_ranks),
        cmocka_unit_test(gathers_and_scattered_sums_take_equal_and_unequal_slices),
        cmocka_unit_test(buckets_are_summed_beside_other_work_until_they_are_waited_for),
        cmocka_unit_test(blocks_travel_round_the_ring_and_come_home),
    };
    char how[MDM_GROUP_HOW], why[256];
    test_device_or_skip();
    if (mdm_comm_start(&argc, &argv, &comm) != MDM_OK) return 1;
    rank = mdm_comm_rank(comm);
    size = mdm_comm_size(comm);
    int devices = mdm_device_count_cuda(why, sizeof why, NULL);
    mdm_status status = test_device_is_cuda() ? mdm_device_create_cuda(rank % devices, 1, &device)
                                              : mdm_device_create_cpu(1, 0, &device);
    if (status != MDM_OK) return 1;
    snprintf(why, sizeof why, "rank-%d", rank);
    if (getenv("MDM_TEST_GROUP")) (void)setenv("NCCL_HOSTID", why, 1); /* ranks may share a device */
    status = mdm_device_join(device, comm, how);
    if (status != MDM_OK) leave((int)status);
    if (mdm_group_create(comm, device, &group) != MDM_OK || !check_how(how)) return 1;
    if (mdm_group_reserve(group, 1 << 16) != MDM_OK) return 1;
    if (getenv("MDM_FAKE_NCCL_FAIL")) leave(run_into_failure());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mdm_group_destroy(group);
    mdm_device_destroy(device);
    mdm_comm_finish(comm);
    return failed;
}
