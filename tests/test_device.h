/* The device that a test computes on: MDM_TEST_DEVICE=cpu (the default) or cuda. Without a CUDA device the
 * whole program ends with code 77, which ctest reports as skipped. MDM_TEST_ONLY names the one test to run of
 * the program's. */
#ifndef MDM_TESTS_TEST_DEVICE_H
#define MDM_TESTS_TEST_DEVICE_H

#include "golden.h"
#include "mdm/device/group.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a call that should have been MDM_OK its message is told too: it has CUDA's words. */
static inline void test_compare(int64_t a, int64_t b, const char *wanted, const char *file, int line) {
    if (a == b) return;
    print_error("%lld is not %lld: %s\n", (long long)a, (long long)b,
                strcmp(wanted, "MDM_OK") == 0 ? mdm_last_message() : wanted);
    _fail(file, line);
}
#undef assert_int_equal
#define assert_int_equal(a, b) test_compare((int64_t)(a), (int64_t)(b), #b, __FILE__, __LINE__)

static inline int test_device_is_cuda(void) {
    const char *name = getenv("MDM_TEST_DEVICE");
    return name && strcmp(name, "cuda") == 0;
}

/* To be called first in main, before MPI is started. */
static inline void test_device_or_skip(void) {
    char why[256];
    const char *only = getenv("MDM_TEST_ONLY");
    if (only) cmocka_set_test_filter(only);
    if (!test_device_is_cuda() || mdm_device_count_cuda(why, sizeof why, NULL) > 0) return;
    printf("skipped: %s\n", why);
    exit(77);
}

static inline mdm_device *test_device_open(int threads, int winograd) {
    mdm_device *device;
    assert_int_equal(test_device_is_cuda() ? mdm_device_create_cuda(0, threads, &device)
                                           : mdm_device_create_cpu(threads, winograd, &device),
                     MDM_OK);
    return device;
}

/* With MDM_TEST_GROUP=NCCL the ranks' devices join; ranks may share one, each passing for a host of its own.
 */
static inline void test_device_join(mdm_device *device, mdm_comm *comm) {
    const char *wanted = getenv("MDM_TEST_GROUP");
    char host[32], how[MDM_GROUP_HOW];
    if (!wanted || !test_device_is_cuda() || mdm_comm_size(comm) == 1) return;
    snprintf(host, sizeof host, "rank-%d", mdm_comm_rank(comm));
    assert_int_equal(setenv("NCCL_HOSTID", host, 1), 0);
    assert_int_equal(mdm_device_join(device, comm, how), MDM_OK);
    if (strncmp(how, wanted, strlen(wanted)) != 0) fail_msg("%s instead of %s", how, wanted);
}

/* Memory of the device with a copy of `bytes` at `host` (NULL: zeros). */
static inline void *test_device_copy(mdm_device *device, const void *host, size_t bytes) {
    void *memory;
    assert_int_equal(mdm_device_allocate(device, bytes, "a test", &memory), MDM_OK);
    if (host) assert_int_equal(mdm_device_upload(device, memory, host, bytes), MDM_OK);
    return memory;
}

#endif
