/* Linked into every program of a build with MDM_SANITIZE: what the sanitizers must know of the libraries.
 *
 * Open MPI and what it opens at start keep a little memory to the end; only what they themselves allocate is
 * left out of the search for leaks (through vasprintf too, which our code does not call). cuDNN's engines do
 * not give back a handle of cuBLASLt that cannot be made where there is no device. */
#if defined(__SANITIZE_ADDRESS__)

const char *__asan_default_options(void);
const char *__lsan_default_options(void);
const char *__lsan_default_suppressions(void);
int dlclose(void *handle);

/* malloc tells that there is no memory as it does elsewhere: callers handle that, and tests try it. The exit
 * code is none of the program's own. */
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1:exitcode=99";
}

const char *__lsan_default_options(void) {
    return "print_suppressions=0"; /* tests look at every line */
}

const char *__lsan_default_suppressions(void) {
    return "leak:libmpi\nleak:libopen-pal\nleak:libopen-rte\nleak:mca_\nleak:libpmix\n"
           "leak:libhwloc\nleak:libevent\nleak:libuc\nleak:__vasprintf_internal\n"
           "leak:libcudnn_engines\n";
}

/* Libraries stay: the search at the end could not name an allocation of one that is gone. */
int dlclose(void *handle) {
    (void)handle;
    return 0;
}

#endif

#if defined(__SANITIZE_THREAD__)

const char *__tsan_default_options(void);
const char *__tsan_default_suppressions(void);

const char *__tsan_default_options(void) {
    return "allocator_may_return_null=1:exitcode=99";
}

/* Open MPI's transports take their own locks in changing order. */
const char *__tsan_default_suppressions(void) {
    return "deadlock:mca_\ndeadlock:libopen-pal\ndeadlock:libmpi\n";
}

#endif
