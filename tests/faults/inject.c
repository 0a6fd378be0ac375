/* A library to be preloaded: makes one call of one kind fail, come short, take long, or end its process.
 *
 *   MDM_INJECT_CALL   write, pwrite, fsync, rename, unlink, open, MPI_Allreduce, MPI_Iallreduce or
 *                     MPI_Init_thread
 *   MDM_INJECT_AT     which call of that kind, from 1 (counted in each process that MDM_INJECT_RANK selects)
 *   MDM_INJECT_TIMES  how many calls from there on [1]
 *   MDM_INJECT_ACTION errno (EIO), full (ENOSPC), short, kill, stop, loop, segv, abort; of MPI_Iallreduce
 * also nan (among what is sent) and flip (a bit of what this rank received) MDM_INJECT_RANK   only in this
 * rank of Open MPI's launcher [every one] MDM_INJECT_PATH   only calls on files whose path contains this text
 * (not for MPI) MDM_INJECT_HITS   a file that gets a byte when the call is reached
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <mpi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;
static void *to_flip; /* a buffer under way that gets a wrong bit */

static void mark_hit(void) {
    int (*open_file)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    ssize_t (*write_file)(int, const void *, size_t) =
        (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    const char *path = getenv("MDM_INJECT_HITS");
    int file = path ? open_file(path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    if (file < 0) return;
    if (write_file(file, "x", 1) != 1) abort();
    close(file);
}

/* 1: the call fails with errno set; 2: it does a part only; 0: as always. */
static int reach(const char *call, const char *path) {
    const char *wanted = getenv("MDM_INJECT_CALL"), *at = getenv("MDM_INJECT_AT"),
               *rank = getenv("MDM_INJECT_RANK"), *part = getenv("MDM_INJECT_PATH"),
               *mine = getenv("OMPI_COMM_WORLD_RANK"), *action = getenv("MDM_INJECT_ACTION");
    if (!wanted || !at || !action || strcmp(wanted, call) != 0) return 0;
    if (rank && strcmp(rank, mine ? mine : "0") != 0) return 0;
    if (part && (!path || !strstr(path, part))) return 0;
    const char *times = getenv("MDM_INJECT_TIMES");
    long number = __sync_add_and_fetch(&calls, 1), first = atol(at);
    if (number < first || number >= first + (times ? atol(times) : 1)) return 0;
    mark_hit();
    if (strcmp(action, "kill") == 0) raise(SIGKILL);
    if (strcmp(action, "stop") == 0) raise(SIGSTOP);
    if (strcmp(action, "segv") == 0) raise(SIGSEGV);
    if (strcmp(action, "abort") == 0) abort();
    if (strcmp(action, "loop") == 0)
        for (volatile int i = 0;; i++) {
        }
    if (strcmp(action, "short") == 0) return 2;
    if (strcmp(action, "nan") == 0) return 3;
    if (strcmp(action, "flip") == 0) return 4;
    errno = strcmp(action, "full") == 0 ? ENOSPC : EIO;
    return 1;
}

static const char *path_of(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
    return path;
}

/* The next definition of a function, found at its first call. */
#define NEXT(name, type)                                                                                     \
    static __typeof__(type) next;                                                                            \
    if (!next) next = (type)dlsym(RTLD_NEXT, name)

ssize_t write(int file, const void *data, size_t count) {
    char path[4096];
    NEXT("write", ssize_t(*)(int, const void *, size_t));
    int what = getenv("MDM_INJECT_CALL") ? reach("write", path_of(file, path, sizeof path)) : 0;
    return what == 1 ? -1 : next(file, data, what == 2 && count > 1 ? count / 2 : count);
}

ssize_t pwrite(int file, const void *data, size_t count, off_t at) {
    char path[4096];
    NEXT("pwrite", ssize_t(*)(int, const void *, size_t, off_t));
    int what = getenv("MDM_INJECT_CALL") ? reach("pwrite", path_of(file, path, sizeof path)) : 0;
    return what == 1 ? -1 : next(file, data, what == 2 && count > 1 ? count / 2 : count, at);
}

int fsync(int file) {
    char path[4096];
    NEXT("fsync", int (*)(int));
    return reach("fsync", path_of(file, path, sizeof path)) ? -1 : next(file);
}

int rename(const char *from, const char *to) {
    NEXT("rename", int (*)(const char *, const char *));
    return reach("rename", to) ? -1 : next(from, to);
}

int unlink(const char *path) {
    NEXT("unlink", int (*)(const char *));
    return reach("unlink", path) ? -1 : next(path);
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    mode_t mode = 0;
    NEXT("open", int (*)(const char *, int, ...));
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return flags & (O_WRONLY | O_RDWR) && reach("open", path) ? -1 : next(path, flags, mode);
}

int MPI_Allreduce(const void *send, void *receive, int count, MPI_Datatype type, MPI_Op operation,
                  MPI_Comm group) {
    (void)reach("MPI_Allreduce", NULL);
    return PMPI_Allreduce(send, receive, count, type, operation, group);
}

int MPI_Iallreduce(const void *send, void *receive, int count, MPI_Datatype type, MPI_Op operation,
                   MPI_Comm group, MPI_Request *request) {
    int what = reach("MPI_Iallreduce", NULL);
    if (what == 3) ((float *)receive)[count / 2] = NAN; /* in place */
    if (what == 4) to_flip = receive;
    return PMPI_Iallreduce(send, receive, count, type, operation, group, request);
}

int MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]) {
    int code = PMPI_Waitall(count, requests, statuses);
    if (to_flip) *(unsigned *)to_flip ^= 1u << 18;
    to_flip = NULL;
    return code;
}

int MPI_Init_thread(int *argc, char ***argv, int wanted, int *provided) {
    (void)reach("MPI_Init_thread", NULL);
    return PMPI_Init_thread(argc, argv, wanted, provided);
}
