/* One call after another goes wrong. The linker leads the calls that the program's own code makes of libc,
 * HDF5, OpenSSL and zlib through failing.c (tests/failing/CMakeLists.txt); the libraries' own are left alone.
 */
#ifndef MDM_TESTS_FAILING_H
#define MDM_TESTS_FAILING_H

#include "golden.h"
#include "mdm/base/status.h"

typedef enum failing_way {
    FAILING_ERROR,       /* the call fails: no memory, EIO, HDF5's -1 */
    FAILING_INTERRUPTED, /* read, write, pread, poll, waitpid: EINTR */
    FAILING_SHORT,       /* read, write, pread: half of it */
    FAILING_ENDED        /* read, pread: the end of the file; poll: the time is over */
} failing_way;

typedef struct failing_plan {
    mdm_status (*run)(void);          /* what is tried */
    void (*prepare)(void);            /* before each try; may be NULL */
    void (*check)(mdm_status status); /* after each; may be NULL */
    failing_way way;
    const char *only; /* calls whose name begins so; NULL: all */
    int reason;       /* errno of the failing call; 0: its usual one */
    int in_children;  /* in processes that are forked, instead of here */
    int harmless;     /* each try must succeed */
} failing_plan;

/* Tries with the first call going wrong, then with the second, until one was not touched, which must succeed.
 * Every other try succeeds or tells why not, in one line; and none leaves memory, an open file, an object of
 * HDF5 or a process behind. Returns how many calls there were. */
long every_call_goes_wrong(const failing_plan *plan);

/* Storage that gives older content: from now on, who opens a path that ends so, for reading, gets the other
 * file. NULL: no more. */
void failing_opens_instead(const char *ending, const char *other);

#endif
