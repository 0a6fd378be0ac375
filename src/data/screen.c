/* A file of a stranger is opened by HDF5 in a child first: what crashes or hangs there costs one line here.
 * The child holds limits on memory, time and files, and tells its finding through a pipe.
 *
 * The child is a fork: it uses HDF5 and nothing of the parent's MPI or devices, and leaves by _exit(). */
#define _GNU_SOURCE /* pipe2 */
#include "screen.h"
#include "dataset_hdf5.h"
#include "mdm/base/log.h"
#include "mdm/base/watch.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MOST_LINKS = 100000,
    MOST_CHUNK = 1 << 28,
    MOST_RATIO = 2000,      /* deflate reaches 1032 */
    MOST_DEPTH = 32,        /* of groups in groups */
    MOST_SECONDS = 4,       /* of computing, and one for every 4 MiB of the file */
    MOST_WAIT = 120,        /* seconds until an answer, and one for every 32 MiB */
    SPARE_MEMORY = 2 << 10, /* MiB beyond what the parent had, and twice the file; for a small file less: */
    LEAST_MEMORY = 384,     /* MiB, and 64 times the file */
};

/* What the child says first; `bytes` of what it found follow. */
typedef struct finding {
    mdm_status status;
    char message[1000];
    int64_t bytes;
} finding;

typedef struct walk {
    const char *path;
    int64_t file_bytes, links;
    mdm_status status;
} walk;

static mdm_status check_filters(const walk *w, const char *name, hid_t plist) {
    for (int i = 0; i < H5Pget_nfilters(plist); i++) {
        unsigned flags, config;
        size_t values = 0;
        char title[64] = "";
        int filter = H5Pget_filter2(plist, (unsigned)i, &flags, &values, NULL, sizeof title, title, &config);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
            return mdm_fail(
                MDM_INPUT,
                "%s: /%s uses filter %d, which is refused; write it with gzip or without compression",
                w->path, name, filter);
    }
    return MDM_OK;
}

static mdm_status check_layout(const walk *w, const char *name, hid_t plist) {
    hsize_t chunk[H5S_MAX_RANK], elements = 1;
    H5D_layout_t layout = H5Pget_layout(plist);
    if (layout == H5D_VIRTUAL)
        return mdm_fail(MDM_INPUT,
                        "%s: /%s is a virtual data set, which is refused; copy the data into the file",
                        w->path, name);
    if (H5Pget_external_count(plist) > 0)
        return mdm_fail(MDM_INPUT, "%s: /%s keeps its values in other files, which is refused", w->path,
                        name);
    int rank = layout == H5D_CHUNKED ? H5Pget_chunk(plist, H5S_MAX_RANK, chunk) : 0;
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(elements, chunk[i], &elements) || elements > MOST_CHUNK)
            return mdm_fail(MDM_INPUT, "%s: the chunks of /%s are impossibly large; write it without chunks",
                            w->path, name);
    return check_filters(w, name, plist);
}

/* What a data set announces must be somewhere in the file. */
static mdm_status check_size(const walk *w, const char *name, hid_t array) {
    hid_t space = H5Dget_space(array), type = H5Dget_type(array);
    hsize_t dims[H5S_MAX_RANK], bytes = type >= 0 ? H5Tget_size(type) : 0;
    int rank = space >= 0 ? H5Sget_simple_extent_dims(space, dims, NULL) : -1, overflow = 0;
    for (int i = 0; i < rank; i++) overflow |= __builtin_mul_overflow(bytes, dims[i], &bytes);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (rank < 0)
        return mdm_fail(MDM_INPUT, "%s: /%s has no readable shape; the file is damaged", w->path, name);
    hsize_t stored = H5Dget_storage_size(array);
    haddr_t place = H5Dget_offset(array);
    int64_t room = w->file_bytes;
    if (stored > (hsize_t)room ||
        (place != HADDR_UNDEF && (place > (haddr_t)room || stored > (hsize_t)room - place)))
        return mdm_fail(MDM_INPUT, "%s was cut short: /%s should hold %llu bytes; copy or write it again",
                        w->path, name, (unsigned long long)stored);
    if (overflow || bytes / MOST_RATIO > stored + 65536 || (stored == 0 && bytes > 65536))
        return mdm_fail(MDM_INPUT, "%s: /%s announces more data than the file holds (%llu bytes are stored)",
                        w->path, name, (unsigned long long)stored);
    return MDM_OK;
}

static mdm_status check_array(const walk *w, hid_t file, const char *name) {
    hid_t array = H5Dopen2(file, name, H5P_DEFAULT);
    if (array < 0)
        return mdm_fail(MDM_INPUT, "%s: /%s cannot be opened as a data set; the file is damaged", w->path,
                        name);
    hid_t plist = H5Dget_create_plist(array);
    mdm_status status =
        plist >= 0 ? check_layout(w, name, plist) : mdm_fail(MDM_INPUT, "%s: /%s is damaged", w->path, name);
    if (status == MDM_OK) status = check_size(w, name, array);
    if (plist >= 0) H5Pclose(plist);
    H5Dclose(array);
    return status;
}

static mdm_status check_link(walk *w, hid_t file, const char *given, const H5L_info_t *link) {
    char name[256];
    H5O_info_t object;
    snprintf(name, sizeof name, "%s", given);
    for (char *c = name; *c; c++)
        if ((unsigned char)*c < ' ') *c = '?'; /* a name is a stranger's too */
    if (++w->links > MOST_LINKS)
        return mdm_fail(MDM_INPUT, "%s holds more than %d objects, which no data set has", w->path,
                        (int)MOST_LINKS);
    int depth = 0;
    for (const char *c = given; *c; c++) depth += *c == '/';
    if (depth > MOST_DEPTH)
        return mdm_fail(MDM_INPUT, "%s: groups lie %d deep in each other, which no data set has", w->path,
                        depth);
    if (link->type != H5L_TYPE_HARD)
        return mdm_fail(MDM_INPUT, "%s: /%s is a link%s, which is refused; copy the data", w->path, name,
                        link->type == H5L_TYPE_SOFT ? "" : " into another file");
    if (H5Oget_info_by_name2(file, given, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
        return mdm_fail(MDM_INPUT, "%s: /%s is damaged; write the file again", w->path, name);
    return object.type == H5O_TYPE_DATASET ? check_array(w, file, given) : MDM_OK;
}

static herr_t visit(hid_t file, const char *name, const H5L_info_t *link, void *context) {
    walk *w = context;
    w->status = check_link(w, file, name, link);
    return w->status == MDM_OK ? 0 : 1;
}

static mdm_status check_structure(const char *path) {
    struct stat info;
    walk w = {.path = path};
    if (stat(path, &info) != 0) return mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    w.file_bytes = (int64_t)info.st_size;
    if (H5Fis_hdf5(path) <= 0)
        return mdm_fail(MDM_INPUT, "%s is not an HDF5 file; mdm-dist data import converts other formats",
                        path);
    H5PLset_loading_state(0); /* no code from elsewhere for a filter */
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, 0, 1);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (file < 0)
        return mdm_fail(MDM_INPUT, "%s is damaged or was cut short (HDF5 cannot open it); write it again",
                        path);
    if (H5Lvisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, visit, &w) < 0 && w.status == MDM_OK)
        w.status = mdm_fail(MDM_INPUT, "%s is damaged (HDF5 cannot list it); write it again", path);
    H5Fclose(file);
    return w.status;
}

static int64_t address_space(void) {
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return -1;
    if (fscanf(file, "%lld", &pages) != 1) pages = -1;
    fclose(file);
    return pages < 0 ? -1 : pages * sysconf(_SC_PAGESIZE);
}

static void limit(int what, int64_t most) {
    struct rlimit now;
    if (getrlimit(what, &now) != 0) return;
    if (now.rlim_max != RLIM_INFINITY && (rlim_t)most > now.rlim_max) most = (int64_t)now.rlim_max;
    now.rlim_cur = now.rlim_max = (rlim_t)most;
    if (setrlimit(what, &now) != 0) return; /* best effort: the process itself is the main wall */
}

static int64_t spare_memory(int64_t file_bytes) {
    const int64_t mebibyte = 1 << 20, most = (int64_t)SPARE_MEMORY * mebibyte;
    int64_t spare = file_bytes < most / 64 ? LEAST_MEMORY * mebibyte + 64 * file_bytes : most;
    return (spare < most ? spare : most) + 2 * file_bytes;
}

static void be_limited(int64_t file_bytes) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL,
                                  SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    int64_t space = address_space();
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC); /* one line is told, by the parent */
    if (nowhere >= 0) {
        dup2(nowhere, STDOUT_FILENO);
        dup2(nowhere, STDERR_FILENO);
    }
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_CPU, MOST_SECONDS + (file_bytes >> 22));
    if (space >= 0) limit(RLIMIT_AS, space + spare_memory(file_bytes));
}

static int send(int to, const void *data, size_t bytes) {
    for (size_t sent = 0; sent < bytes;) {
        ssize_t part = write(to, (const char *)data + sent, bytes - sent);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return 0;
        sent += (size_t)part;
    }
    return 1;
}

static void examine_as_child(const char *path, int64_t file_bytes, int answer,
                             mdm_status (*examine)(const char *path, mdm_text *found)) {
    finding f = {0};
    mdm_text found = {0};
    mdm_watch_forget();
    be_limited(file_bytes);
    mdm_dataset_quiet();
    f.status = check_structure(path);
    if (f.status == MDM_OK) f.status = examine(path, &found);
    if (f.status == MDM_OK && found.failed) f.status = mdm_fail(MDM_RESOURCE, "no memory for what was found");
    if (f.status == MDM_RESOURCE) /* the limit goes with the file's size: the file is at fault */
        f.status = mdm_fail(MDM_INPUT, "%s announces more data than the file holds (%.900s)", path,
                            mdm_last_message());
    if (f.status != MDM_OK) snprintf(f.message, sizeof f.message, "%s", mdm_last_message());
    f.bytes = f.status == MDM_OK ? (int64_t)found.length : 0;
    _exit(send(answer, &f, sizeof f) && send(answer, found.data, (size_t)f.bytes) ? 0 : 1);
}

/* Waits for so many bytes; 0 when the time is over or the child is gone. */
static int receive(int from, void *data, size_t bytes, double until) {
    size_t got = 0;
    while (got < bytes) {
        struct pollfd wait_for = {.fd = from, .events = POLLIN};
        const double left = until - mdm_seconds();
        const int ready = left > 0 ? poll(&wait_for, 1, left < 1 ? (int)(left * 1000) + 1 : 1000) : 0;
        mdm_watch_progress(); /* the wait has an end of its own */
        if ((ready < 0 && errno == EINTR) || (ready == 0 && left > 0)) continue;
        if (ready <= 0) return 0;
        ssize_t part = read(from, (char *)data + got, bytes - got);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return 0;
        got += (size_t)part;
    }
    return 1;
}

/* The answer and what was found; *answered is 0 when it does not come, or says more than the child could have
 * had. */
static mdm_status receive_all(int from, int64_t file_bytes, finding *f, mdm_text *found, int *answered) {
    double until = mdm_seconds() + MOST_WAIT + (double)(file_bytes >> 25);
    *answered = receive(from, f, sizeof *f, until) && f->bytes >= 0 && f->bytes <= spare_memory(file_bytes);
    if (!*answered || f->bytes == 0) return MDM_OK;
    MDM_TRY(mdm_allocate((void **)&found->data, f->bytes, 1, "what is in a data set file"));
    found->length = found->capacity = (size_t)f->bytes;
    *answered = receive(from, found->data, found->length, until);
    return MDM_OK;
}

mdm_status mdm_screen_file(const char *path, mdm_status (*examine)(const char *path, mdm_text *found),
                           mdm_text *found) {
    struct stat info;
    int ends[2], how = 0, answered;
    finding f = {0};
    if (stat(path, &info) != 0 || access(path, R_OK) != 0)
        return mdm_fail(MDM_INPUT, "%s cannot be read: %s", path, strerror(errno));
    if (pipe2(ends, O_CLOEXEC) != 0)
        return mdm_fail(MDM_RESOURCE, "no pipe for looking through %s: %s", path, strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        examine_as_child(path, (int64_t)info.st_size, ends[1], examine);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return mdm_fail(MDM_RESOURCE, "no process for looking through %s (%s); raise ulimit -u", path,
                        strerror(errno));
    }
    mdm_status received = receive_all(ends[0], (int64_t)info.st_size, &f, found, &answered);
    close(ends[0]);
    if (!answered || received != MDM_OK) kill(child, SIGKILL);
    while (waitpid(child, &how, 0) < 0 && errno == EINTR) {
    }
    f.message[sizeof f.message - 1] = 0;
    MDM_TRY(received);
    if (!answered)
        return mdm_fail(MDM_INPUT,
                        "%s is refused: HDF5 crashes on it, or takes memory or time without end; it is "
                        "damaged or made to harm",
                        path);
    return f.status == MDM_OK ? MDM_OK : mdm_fail(f.status, "%s", f.message);
}
