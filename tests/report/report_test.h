/* What the tests of the run folder's files share: a folder of their own, whole files, Python as the other
 * reader. */
#ifndef MDM_TESTS_REPORT_TEST_H
#define MDM_TESTS_REPORT_TEST_H

#include "mdm/base/log.h"
#include "mdm/base/status.h"
#include "mdm/base/text.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Setup and teardown of a test: *state is the path of a new empty folder. */
int make_test_folder(void **state);
int remove_test_folder(void **state);

/* "folder/name", valid until the eighth next call. */
const char *in_folder(void **state, const char *name);

char *read_bytes(const char *path, size_t *bytes);
void write_bytes(const char *path, const void *content, size_t bytes);
/* Inverts one bit of a file in place. */
void flip_bit(const char *path, size_t byte, int bit);
int exists(const char *path);
int count_entries(const char *folder);

/* Runs a check of check_files.py on a file; skips the test when Python or a module it needs is missing. */
void python_check(const char *check, const char *path);

/* Counts warnings from here on, into *count. */
void count_warnings(int *count);

/* Mounts a tmpfs of `bytes` on a new folder inside the test's; NULL when that is not allowed. */
const char *mount_small_disk(void **state, long bytes);
void unmount_small_disk(const char *path);

#endif
