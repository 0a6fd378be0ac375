/* A library to be preloaded: makes one call of one kind fail, come short, take long, or end its process.
 *
 *   MDM_INJECT_CALL   write, pwrite, pread, fsync, rename, unlink, open (for writing), malloc
 *                     (and its relatives, called by the program itself, not by its libraries),
 *                     MPI_Allreduce, MPI_Iallreduce, MPI_Init_thread or MPI_Finalize
 *                     Those of a supervisor, and of the child that looks through a file, do not count.
 *   MDM_INJECT_AT     which call of that kind, from 1 (counted in each process that MDM_INJECT_RANK selects)
 *   MDM_INJECT_TIMES  how many calls from there on [1]
 *   MDM_INJECT_ACTION errno (EIO, or the name in MDM_INJECT_ERRNO), full (ENOSPC), short, kill, stop, loop,
 *                     segv, abort, delay (MDM_INJECT_DELAY milliseconds, then as always); of MPI_Iallreduce
 *                     also nan (among what is sent), large (what is sent, a million times as much) and flip
 *                     (a bit of what this rank received); of MPI_Allreduce also skip
 *   MDM_INJECT_RANK   only in this rank of Open MPI's launcher [every one]
 *   MDM_INJECT_PATH   only calls on files whose path contains this text, or ends with it: /folder$ (not for
 * MPI) MDM_INJECT_FOREIGN parts of the program whose allocations do not count: the CUDA runtime, linked into
 * it MDM_INJECT_HITS   a file that gets a byte when the call is reached
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <math.h>
#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

static long calls;
static int is_supervisor, is_child; /* a first fork with SIGCHLD blocked makes a worker */
static int looks_through_file;      /* what a worker forks: its end would count for the file's fault */
static void *to_flip;               /* a buffer under way that gets a wrong bit */

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

static int error_named(const char *name) {
    static const struct {
        const char *name;
        int number;
    } known[] = {{"EIO", EIO},       {"ESTALE", ESTALE}, {"EINTR", EINTR},   {"EROFS", EROFS},
                 {"EDQUOT", EDQUOT}, {"EXDEV", EXDEV},   {"EACCES", EACCES}, {"ENOMEM", ENOMEM}};
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) return known[i].number;
    return EIO;
}

/* Also in a thread that blocks signals, as a fault of its own would. */
static void crash(int number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
}

/* Whether the path contains the text, or ends with it where the text ends with a dollar sign. */
static int path_fits(const char *path, const char *part) {
    size_t length = path ? strlen(path) : 0, wanted = strlen(part);
    if (!path || wanted == 0 || part[wanted - 1] != '$') return path && strstr(path, part);
    return length >= wanted - 1 && strncmp(path + length - (wanted - 1), part, wanted - 1) == 0;
}

/* 1: the call fails with errno set; 2: it does a part only; 0: as always. */
static int reach(const char *call, const char *path) {
    const char *wanted = getenv("MDM_INJECT_CALL"), *at = getenv("MDM_INJECT_AT"),
               *rank = getenv("MDM_INJECT_RANK"), *part = getenv("MDM_INJECT_PATH"),
               *mine = getenv("OMPI_COMM_WORLD_RANK"), *action = getenv("MDM_INJECT_ACTION");
    if (!wanted || !at || !action || strcmp(wanted, call) != 0) return 0;
    if (strcmp(program_invocation_short_name, "mdm-dist") != 0) return 0; /* mpirun is not our affair */
    if (is_supervisor || looks_through_file || (rank && strcmp(rank, mine ? mine : "0") != 0)) return 0;
    if (part && !path_fits(path, part)) return 0;
    const char *times = getenv("MDM_INJECT_TIMES");
    long number = __sync_add_and_fetch(&calls, 1), first = atol(at);
    if (number < first || number >= first + (times ? atol(times) : 1)) return 0;
    mark_hit();
    if (strcmp(action, "kill") == 0) raise(SIGKILL);
    if (strcmp(action, "stop") == 0) raise(SIGSTOP);
    if (strcmp(action, "segv") == 0) crash(SIGSEGV);
    if (strcmp(action, "abort") == 0) abort();
    if (strcmp(action, "loop") == 0)
        for (volatile int i = 0;; i++) {
        }
    if (strcmp(action, "short") == 0) return 2;
    if (strcmp(action, "nan") == 0) return 3;
    if (strcmp(action, "flip") == 0) return 4;
    if (strcmp(action, "large") == 0) return 5;
    if (strcmp(action, "skip") == 0) return 6;
    if (strcmp(action, "delay") == 0) {
        const char *delay = getenv("MDM_INJECT_DELAY");
        usleep((useconds_t)(delay ? 1000 * atol(delay) : 1000000));
        return 0;
    }
    errno = strcmp(action, "full") == 0 ? ENOSPC : error_named(getenv("MDM_INJECT_ERRNO"));
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

pid_t fork(void) {
    NEXT("fork", pid_t(*)(void));
    sigset_t blocked;
    sigemptyset(&blocked);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    pid_t made = next();
    if (made == 0 && is_child) looks_through_file = 1;
    if (made == 0) is_child = 1;
    if (made > 0 && !is_child && sigismember(&blocked, SIGCHLD) == 1) is_supervisor = 1;
    return made;
}

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

ssize_t pread(int file, void *data, size_t count, off_t at) {
    char path[4096];
    NEXT("pread", ssize_t(*)(int, void *, size_t, off_t));
    int what = getenv("MDM_INJECT_CALL") ? reach("pread", path_of(file, path, sizeof path)) : 0;
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
    if (reach("MPI_Allreduce", NULL) == 6) return MPI_SUCCESS;
    return PMPI_Allreduce(send, receive, count, type, operation, group);
}

int MPI_Iallreduce(const void *send, void *receive, int count, MPI_Datatype type, MPI_Op operation,
                   MPI_Comm group, MPI_Request *request) {
    int what = reach("MPI_Iallreduce", NULL);
    if (what == 3) ((float *)receive)[count / 2] = NAN; /* in place */
    if (what == 4) to_flip = receive;
    if (what == 5)
        for (int i = 0; i < count; i++) ((float *)receive)[i] *= 1e6f;
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

int MPI_Finalize(void) {
    (void)reach("MPI_Finalize", NULL);
    return PMPI_Finalize();
}

/* glibc's own allocator: dlsym would allocate. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static int note_program(struct dl_phdr_info *info, size_t size, void *range) {
    (void)size;
    uintptr_t *ends = range;
    ends[2] = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X)) continue;
        ends[0] = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        ends[1] = ends[0] + info->dlpi_phdr[i].p_memsz;
    }
    return 1; /* the first is the program */
}

/* Whether the caller lies in the parts of the program that MDM_INJECT_FOREIGN names: `first-end,...`,
 * hexadecimal, from where the program begins. */
static int is_foreign(uintptr_t caller, uintptr_t base) {
    const char *ranges = getenv("MDM_INJECT_FOREIGN");
    while (ranges && *ranges) {
        char *next;
        uintptr_t first = strtoul(ranges, &next, 16);
        if (*next != '-') return 0;
        uintptr_t end = strtoul(next + 1, &next, 16);
        if (caller >= base + first && caller < base + end) return 1;
        ranges = *next == ',' ? next + 1 : NULL;
    }
    return 0;
}

/* Whether this allocation, asked for at `caller`, is to fail. Wanted or not is found out once, because getenv
 * is slow for every allocation. */
static int no_memory(const void *caller) {
    static int wanted = -1;
    static uintptr_t program[3]; /* its code, and where addresses count from */
    if (wanted < 0) {
        const char *call = getenv("MDM_INJECT_CALL");
        wanted = call && strcmp(call, "malloc") == 0;
        if (wanted) dl_iterate_phdr(note_program, program);
    }
    struct rlimit most;
    if (!wanted || (uintptr_t)caller < program[0] || (uintptr_t)caller >= program[1] ||
        is_foreign((uintptr_t)caller, program[2]))
        return 0;
    if (getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur == 0)
        return 0; /* the child that looks through files */
    if (!reach("malloc", NULL)) return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **place, size_t alignment, size_t size) {
    if (no_memory(__builtin_return_address(0))) return ENOMEM;
    void *memory = __libc_memalign(alignment, size);
    if (memory) *place = memory;
    return memory ? 0 : ENOMEM;
}
