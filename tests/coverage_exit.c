/* Linked into every program by tests/coverage.sh: processes that leave by _exit() write their counts too, as
 * the supervisor, the child that looks through a stranger's file and a rank that ends the others do. */
#define _DEFAULT_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef void begins(int, char **, char **);

void __gcov_dump(void);
extern begins *__init_array_start[] __attribute__((visibility("hidden"))),
    *__init_array_end[] __attribute__((visibility("hidden")));

static int has_begun;

__attribute__((constructor)) static void begin(void) {
    has_begun = 1;
}

/* That child may write nothing. It may not lift that either, so the most of it is left open for the counts.
 */
int setrlimit(int what, const struct rlimit *given) {
    struct rlimit limits = *given;
    if (what == RLIMIT_FSIZE) limits.rlim_max = RLIM_INFINITY;
    return (int)syscall(SYS_prlimit64, 0, what, &limits, NULL);
}

void _exit(int code) {
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    /* what the supervisor looks at before the libraries begin may end the process before there are counts */
    for (begins **next = __init_array_start; !has_begun && next < __init_array_end; next++)
        (*next)(0, (char *[]){0}, (char *[]){0});
    setrlimit(RLIMIT_FSIZE, &none);
    __gcov_dump();
    for (;;) syscall(SYS_exit_group, code);
}
