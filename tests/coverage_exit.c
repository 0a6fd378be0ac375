/* Linked into every program by tests/coverage.sh: processes that leave by _exit() write their counts too, as
 * the supervisor, the child that looks through a stranger's file and a rank that ends the others do. */
#define _DEFAULT_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void __gcov_dump(void);

/* That child may write nothing. It may not lift that either, so the most of it is left open for the counts.
 */
int setrlimit(int what, const struct rlimit *given) {
    struct rlimit limits = *given;
    if (what == RLIMIT_FSIZE) limits.rlim_max = RLIM_INFINITY;
    return (int)syscall(SYS_prlimit64, 0, what, &limits, NULL);
}

void _exit(int code) {
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &none);
    __gcov_dump();
    for (;;) syscall(SYS_exit_group, code);
}
