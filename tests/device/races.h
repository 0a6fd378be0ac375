/* Whether ThreadSanitizer reports a race in a program, which runs in a child. */
#ifndef MDM_TESTS_RACES_H
#define MDM_TESTS_RACES_H

#include "golden.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REPORTED = 99 /* tests/sanitizers.c */ };

static int is_race_reported(void (*program)(const void *given), const void *given) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        program(given);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == REPORTED));
    return WEXITSTATUS(status) == REPORTED;
}

#endif
