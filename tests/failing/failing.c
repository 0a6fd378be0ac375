/* The calls that may go wrong, and the search through them. */
#include "failing.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yaml.h>
#include <zlib.h>

enum { MOST_BLOCKS = 1 << 16, MOST_OBJECTS = 1 << 12, MOST_CALLS = 100000 };

static const failing_plan *plan; /* NULL: all calls do as always */
static long calls, wanted;
static int in_child;
static struct {
    volatile int reached;
    char name[64];
} * hit; /* shared with children */
static const char *instead_of, *instead;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *blocks[MOST_BLOCKS]; /* that our code allocated and has not freed */
static int block_count;
static hid_t objects[MOST_OBJECTS]; /* of HDF5, made in this try */
static int object_count;

static int goes_wrong(const char *name, failing_way way, int reason) {
    if (!plan || plan->way != way || plan->in_children != in_child) return 0;
    if (plan->only && strncmp(name, plan->only, strlen(plan->only)) != 0) return 0;
    if (__sync_add_and_fetch(&calls, 1) != wanted) return 0;
    snprintf(hit->name, sizeof hit->name, "%s", name);
    hit->reached = 1;
    errno = way == FAILING_INTERRUPTED ? EINTR : plan->reason ? plan->reason : reason;
    return 1;
}

/* `name` first: CMake reads it from here. */
#define CALL(name, type, failure, reason, parameters, arguments)                                             \
    type __real_##name parameters;                                                                           \
    type __wrap_##name parameters;                                                                           \
    type __wrap_##name parameters {                                                                          \
        return goes_wrong(#name, FAILING_ERROR, reason) ? (failure) : __real_##name arguments;               \
    }

/* What it closes is closed even where it tells of an error. */
#define CLOSING_CALL(name, type, failure, parameters, arguments)                                             \
    type __real_##name parameters;                                                                           \
    type __wrap_##name parameters;                                                                           \
    type __wrap_##name parameters {                                                                          \
        type result = __real_##name arguments;                                                               \
        return goes_wrong(#name, FAILING_ERROR, EIO) ? (failure) : result;                                   \
    }

#define HDF5_CALL(name, parameters, arguments) CALL(name, herr_t, -1, 0, parameters, arguments)

static hid_t note_object(hid_t object) {
    if (plan && object >= 0 && object_count < MOST_OBJECTS) objects[object_count++] = object;
    return object;
}

#define HDF5_ID_CALL(name, parameters, arguments)                                                            \
    hid_t __real_##name parameters;                                                                          \
    hid_t __wrap_##name parameters;                                                                          \
    hid_t __wrap_##name parameters {                                                                         \
        return goes_wrong(#name, FAILING_ERROR, 0) ? -1 : note_object(__real_##name arguments);              \
    }

/* Memory */

static void *note_block(void *block) {
    pthread_mutex_lock(&lock);
    if (block && block_count < MOST_BLOCKS) blocks[block_count++] = block;
    pthread_mutex_unlock(&lock);
    return block;
}

static void forget_block(const void *block) {
    pthread_mutex_lock(&lock);
    for (int i = block_count; block && i-- > 0;) {
        if (blocks[i] != block) continue;
        blocks[i] = blocks[--block_count];
        break;
    }
    pthread_mutex_unlock(&lock);
}

#define MEMORY_CALL(name, parameters, arguments)                                                             \
    void *__real_##name parameters;                                                                          \
    void *__wrap_##name parameters;                                                                          \
    void *__wrap_##name parameters {                                                                         \
        return goes_wrong(#name, FAILING_ERROR, ENOMEM) ? NULL : note_block(__real_##name arguments);        \
    }

MEMORY_CALL(malloc, (size_t size), (size))
MEMORY_CALL(calloc, (size_t count, size_t size), (count, size))
MEMORY_CALL(memalign, (size_t alignment, size_t size), (alignment, size))
MEMORY_CALL(strdup, (const char *text), (text))
MEMORY_CALL(strndup, (const char *text, size_t size), (text, size))

#define TRACKED_CALL(name) /* CMake reads it from here */

TRACKED_CALL(realloc)
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size) {
    if (goes_wrong("realloc", FAILING_ERROR, ENOMEM)) return NULL;
    forget_block(old);
    return note_block(__real_realloc(old, size));
}

TRACKED_CALL(free)
void __real_free(void *block);
void __wrap_free(void *block);
void __wrap_free(void *block) {
    forget_block(block);
    __real_free(block);
}

/* Files */

TRACKED_CALL(open)
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    if (goes_wrong("open", FAILING_ERROR, EIO)) return -1;
    size_t length = strlen(path), ending = instead_of ? strlen(instead_of) : 0;
    int other = instead_of && (flags & O_ACCMODE) == O_RDONLY && length >= ending &&
                strcmp(path + length - ending, instead_of) == 0;
    return __real_open(other ? instead : path, flags, mode);
}

TRACKED_CALL(read)
ssize_t __real_read(int file, void *data, size_t count);
ssize_t __wrap_read(int file, void *data, size_t count);
ssize_t __wrap_read(int file, void *data, size_t count) {
    if (goes_wrong("read", FAILING_ERROR, EIO) || goes_wrong("read", FAILING_INTERRUPTED, 0)) return -1;
    if (goes_wrong("read", FAILING_ENDED, 0)) return 0;
    int part = count > 1 && goes_wrong("read", FAILING_SHORT, 0);
    return __real_read(file, data, part ? count / 2 : count);
}

TRACKED_CALL(pread)
ssize_t __real_pread(int file, void *data, size_t count, off_t at);
ssize_t __wrap_pread(int file, void *data, size_t count, off_t at);
ssize_t __wrap_pread(int file, void *data, size_t count, off_t at) {
    if (goes_wrong("pread", FAILING_ERROR, EIO) || goes_wrong("pread", FAILING_INTERRUPTED, 0)) return -1;
    if (goes_wrong("pread", FAILING_ENDED, 0)) return 0;
    int part = count > 1 && goes_wrong("pread", FAILING_SHORT, 0);
    return __real_pread(file, data, part ? count / 2 : count, at);
}

TRACKED_CALL(write)
ssize_t __real_write(int file, const void *data, size_t count);
ssize_t __wrap_write(int file, const void *data, size_t count);
ssize_t __wrap_write(int file, const void *data, size_t count) {
    if (goes_wrong("write", FAILING_ERROR, ENOSPC) || goes_wrong("write", FAILING_INTERRUPTED, 0)) return -1;
    int part = count > 1 && goes_wrong("write", FAILING_SHORT, 0);
    return __real_write(file, data, part ? count / 2 : count);
}

CALL(fsync, int, -1, EIO, (int file), (file))
CLOSING_CALL(close, int, -1, (int file), (file))
CALL(rename, int, -1, EIO, (const char *from, const char *to), (from, to))
CALL(unlink, int, -1, EIO, (const char *path), (path))
CALL(unlinkat, int, -1, EIO, (int folder, const char *path, int flags), (folder, path, flags))
CALL(stat, int, -1, EIO, (const char *path, struct stat *about), (path, about))
CALL(fstat, int, -1, EIO, (int file, struct stat *about), (file, about))
CALL(access, int, -1, EACCES, (const char *path, int mode), (path, mode))
CALL(opendir, DIR *, NULL, EIO, (const char *path), (path))
CALL(scandir, int, -1, EIO,
     (const char *path, struct dirent ***names, int (*filter)(const struct dirent *),
      int (*compare)(const struct dirent **, const struct dirent **)),
     (path, names, filter, compare))
CALL(statvfs, int, -1, EIO, (const char *path, struct statvfs *about), (path, about))

/* Processes and threads */

CALL(pipe2, int, -1, EMFILE, (int ends[2], int flags), (ends, flags))
CALL(dup2, int, -1, EBUSY, (int from, int to), (from, to))
CALL(getrlimit, int, -1, EINVAL, (__rlimit_resource_t what, struct rlimit *limits), (what, limits))
CALL(pthread_create, int, EAGAIN, EAGAIN,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument),
     (thread, attributes, start, argument))

TRACKED_CALL(fork)
pid_t __real_fork(void);
pid_t __wrap_fork(void);
pid_t __wrap_fork(void) {
    if (goes_wrong("fork", FAILING_ERROR, EAGAIN)) return -1;
    pid_t made = __real_fork();
    if (made == 0) in_child = 1, calls = 0;
    return made;
}

/* What tests/coverage.sh does at the end of a process is not looked at. */
TRACKED_CALL(_exit)
_Noreturn void __real__exit(int code);
_Noreturn void __wrap__exit(int code);
_Noreturn void __wrap__exit(int code) {
    plan = NULL;
    __real__exit(code);
}

TRACKED_CALL(waitpid)
pid_t __real_waitpid(pid_t process, int *status, int options);
pid_t __wrap_waitpid(pid_t process, int *status, int options);
pid_t __wrap_waitpid(pid_t process, int *status, int options) {
    return goes_wrong("waitpid", FAILING_INTERRUPTED, 0) ? -1 : __real_waitpid(process, status, options);
}

TRACKED_CALL(poll)
int __real_poll(struct pollfd *files, nfds_t count, int milliseconds);
int __wrap_poll(struct pollfd *files, nfds_t count, int milliseconds);
int __wrap_poll(struct pollfd *files, nfds_t count, int milliseconds) {
    if (goes_wrong("poll", FAILING_ERROR, ENOMEM) || goes_wrong("poll", FAILING_INTERRUPTED, 0)) return -1;
    return goes_wrong("poll", FAILING_ENDED, 0) ? 0 : __real_poll(files, count, milliseconds);
}

/* Libraries */

CALL(gzopen, gzFile, NULL, EIO, (const char *path, const char *mode), (path, mode))
CALL(gzread, int, -1, EIO, (gzFile file, voidp data, unsigned count), (file, data, count))
CALL(gzseek, z_off_t, -1, EIO, (gzFile file, z_off_t at, int from), (file, at, from))
CALL(gzbuffer, int, -1, ENOMEM, (gzFile file, unsigned size), (file, size))
CLOSING_CALL(gzclose, int, Z_BUF_ERROR, (gzFile file), (file))

CALL(EVP_MD_CTX_new, EVP_MD_CTX *, NULL, ENOMEM, (void), ())
CALL(EVP_DigestInit_ex, int, 0, 0, (EVP_MD_CTX * context, const EVP_MD *type, ENGINE *engine),
     (context, type, engine))
CALL(EVP_DigestUpdate, int, 0, 0, (EVP_MD_CTX * context, const void *data, size_t count),
     (context, data, count))
CALL(EVP_DigestFinal_ex, int, 0, 0, (EVP_MD_CTX * context, unsigned char *digest, unsigned *size),
     (context, digest, size))

CALL(yaml_parser_initialize, int, 0, ENOMEM, (yaml_parser_t * parser), (parser))

HDF5_ID_CALL(H5Pcreate, (hid_t class), (class))
HDF5_CALL(H5Pset_fapl_core, (hid_t list, size_t growth, hbool_t on_disk), (list, growth, on_disk))
HDF5_CALL(H5Pset_create_intermediate_group, (hid_t list, unsigned on), (list, on))
HDF5_CALL(H5Pset_obj_track_times, (hid_t list, hbool_t on), (list, on))
HDF5_CALL(H5Pset_fill_time, (hid_t list, H5D_fill_time_t when), (list, when))
HDF5_CALL(H5Pset_file_image, (hid_t list, void *bytes, size_t count), (list, bytes, count))
HDF5_CALL(H5Pset_file_image_callbacks, (hid_t list, H5FD_file_image_callbacks_t *callbacks),
          (list, callbacks))
HDF5_CALL(H5Pset_file_locking, (hid_t list, hbool_t on, hbool_t ignored), (list, on, ignored))
CALL(H5Pget_external_count, int, -1, 0, (hid_t list), (list))
CALL(H5Pget_layout, H5D_layout_t, H5D_LAYOUT_ERROR, 0, (hid_t list), (list))
CALL(H5Pget_nfilters, int, -1, 0, (hid_t list), (list))
HDF5_CALL(H5Pfill_value_defined, (hid_t list, H5D_fill_value_t *how), (list, how))
HDF5_CALL(H5Pget_fill_value, (hid_t list, hid_t type, void *value), (list, type, value))
HDF5_CALL(H5Pset_driver, (hid_t list, hid_t driver, const void *settings), (list, driver, settings))
CALL(H5Pget_chunk, int, -1, 0, (hid_t list, int most, hsize_t *dims), (list, most, dims))
CLOSING_CALL(H5Pclose, herr_t, -1, (hid_t list), (list))
HDF5_ID_CALL(H5Fcreate, (const char *path, unsigned flags, hid_t creation, hid_t access),
             (path, flags, creation, access))
HDF5_ID_CALL(H5Fopen, (const char *path, unsigned flags, hid_t access), (path, flags, access))
HDF5_CALL(H5Fflush, (hid_t file, H5F_scope_t scope), (file, scope))
CALL(H5Fget_file_image, ssize_t, -1, 0, (hid_t file, void *bytes, size_t count), (file, bytes, count))
CALL(H5Fis_hdf5, htri_t, -1, 0, (const char *path), (path))
HDF5_ID_CALL(H5Gcreate2, (hid_t place, const char *name, hid_t links, hid_t creation, hid_t access),
             (place, name, links, creation, access))
CLOSING_CALL(H5Gclose, herr_t, -1, (hid_t group), (group))
CLOSING_CALL(H5Fclose, herr_t, -1, (hid_t file), (file))
HDF5_ID_CALL(H5Screate, (H5S_class_t class), (class))
HDF5_ID_CALL(H5Screate_simple, (int rank, const hsize_t *dims, const hsize_t *most), (rank, dims, most))
CALL(H5Sget_simple_extent_ndims, int, -1, 0, (hid_t space), (space))
CALL(H5Sget_simple_extent_dims, int, -1, 0, (hid_t space, hsize_t *dims, hsize_t *most), (space, dims, most))
CALL(H5Sget_simple_extent_npoints, hssize_t, -1, 0, (hid_t space), (space))
HDF5_CALL(H5Sselect_hyperslab,
          (hid_t space, H5S_seloper_t how, const hsize_t *start, const hsize_t *stride, const hsize_t *count,
           const hsize_t *block),
          (space, how, start, stride, count, block))
CLOSING_CALL(H5Sclose, herr_t, -1, (hid_t space), (space))
HDF5_ID_CALL(H5Tcopy, (hid_t type), (type))
HDF5_CALL(H5Tset_size, (hid_t type, size_t size), (type, size))
HDF5_CALL(H5Tset_cset, (hid_t type, H5T_cset_t set), (type, set))
CALL(H5Tget_class, H5T_class_t, H5T_NO_CLASS, 0, (hid_t type), (type))
CALL(H5Tget_size, size_t, 0, 0, (hid_t type), (type))
CALL(H5Tget_sign, H5T_sign_t, H5T_SGN_ERROR, 0, (hid_t type), (type))
CALL(H5Tis_variable_str, htri_t, -1, 0, (hid_t type), (type))
CLOSING_CALL(H5Tclose, herr_t, -1, (hid_t type), (type))
HDF5_ID_CALL(H5Dcreate2,
             (hid_t place, const char *name, hid_t type, hid_t space, hid_t links, hid_t creation,
              hid_t access),
             (place, name, type, space, links, creation, access))
HDF5_ID_CALL(H5Dopen2, (hid_t place, const char *name, hid_t access), (place, name, access))
HDF5_ID_CALL(H5Dget_space, (hid_t set), (set))
HDF5_ID_CALL(H5Dget_type, (hid_t set), (set))
HDF5_ID_CALL(H5Dget_create_plist, (hid_t set), (set))
CALL(H5Dget_offset, haddr_t, HADDR_UNDEF, 0, (hid_t set), (set))
HDF5_CALL(H5Dget_num_chunks, (hid_t set, hid_t space, hsize_t *count), (set, space, count))
HDF5_CALL(H5Dget_chunk_storage_size, (hid_t set, const hsize_t *at, hsize_t *bytes), (set, at, bytes))
HDF5_CALL(H5Dread_chunk, (hid_t set, hid_t transfer, const hsize_t *at, uint32_t *filters, void *data),
          (set, transfer, at, filters, data))
CALL(H5Dget_storage_size, hsize_t, 0, 0, (hid_t set), (set))
HDF5_CALL(H5Dread, (hid_t set, hid_t type, hid_t memory, hid_t space, hid_t transfer, void *data),
          (set, type, memory, space, transfer, data))
HDF5_CALL(H5Dwrite, (hid_t set, hid_t type, hid_t memory, hid_t space, hid_t transfer, const void *data),
          (set, type, memory, space, transfer, data))
CLOSING_CALL(H5Dclose, herr_t, -1, (hid_t set), (set))
HDF5_ID_CALL(H5Acreate2,
             (hid_t place, const char *name, hid_t type, hid_t space, hid_t creation, hid_t access),
             (place, name, type, space, creation, access))
HDF5_ID_CALL(H5Acreate_by_name,
             (hid_t place, const char *object, const char *name, hid_t type, hid_t space, hid_t creation,
              hid_t access, hid_t links),
             (place, object, name, type, space, creation, access, links))
HDF5_CALL(H5Awrite, (hid_t attribute, hid_t type, const void *data), (attribute, type, data))
CALL(H5Aexists_by_name, htri_t, -1, 0, (hid_t place, const char *object, const char *name, hid_t links),
     (place, object, name, links))
HDF5_ID_CALL(H5Aopen_by_name, (hid_t place, const char *object, const char *name, hid_t access, hid_t links),
             (place, object, name, access, links))
CALL(H5Aexists, htri_t, -1, 0, (hid_t place, const char *name), (place, name))
HDF5_ID_CALL(H5Aopen, (hid_t place, const char *name, hid_t access), (place, name, access))
HDF5_ID_CALL(H5Aget_space, (hid_t attribute), (attribute))
HDF5_ID_CALL(H5Aget_type, (hid_t attribute), (attribute))
HDF5_CALL(H5Aread, (hid_t attribute, hid_t type, void *data), (attribute, type, data))
HDF5_CALL(H5Aiterate2,
          (hid_t place, H5_index_t index, H5_iter_order_t order, hsize_t *at, H5A_operator2_t visit,
           void *context),
          (place, index, order, at, visit, context))
CLOSING_CALL(H5Aclose, herr_t, -1, (hid_t attribute), (attribute))
CALL(H5Lexists, htri_t, -1, 0, (hid_t place, const char *name, hid_t access), (place, name, access))
HDF5_CALL(H5Lget_info, (hid_t place, const char *name, H5L_info_t *about, hid_t access),
          (place, name, about, access))
HDF5_CALL(H5Lvisit,
          (hid_t place, H5_index_t index, H5_iter_order_t order, H5L_iterate_t visit, void *context),
          (place, index, order, visit, context))
HDF5_CALL(H5Oget_info2, (hid_t object, H5O_info_t *about, unsigned fields), (object, about, fields))
HDF5_CALL(H5Oget_info_by_name2,
          (hid_t place, const char *name, H5O_info_t *about, unsigned fields, hid_t access),
          (place, name, about, fields, access))

/* The search */

typedef struct belongings {
    int blocks, files, objects;
} belongings;

static belongings count_belongings(void) {
    belongings b = {.blocks = block_count};
    DIR *entries = __real_opendir("/proc/self/fd");
    while (entries && readdir(entries)) b.files++;
    if (entries) closedir(entries);
    for (int i = 0; i < object_count; i++) b.objects += H5Iis_valid(objects[i]) > 0;
    return b;
}

static void assert_as_before(const belongings *before, long number) {
    belongings now = count_belongings();
    if (now.blocks != before->blocks || now.files != before->files || now.objects != before->objects)
        fail_msg("call %ld (%s): left behind: %d pieces of memory, %d open files, %d of HDF5's objects",
                 number, hit->name, now.blocks - before->blocks, now.files - before->files, now.objects);
    if (__real_waitpid(-1, NULL, WNOHANG) != -1)
        fail_msg("call %ld (%s): a process is left", number, hit->name);
}

long every_call_goes_wrong(const failing_plan *given) {
    if (!hit) hit = mmap(NULL, sizeof *hit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(hit != MAP_FAILED);
    for (long number = 0;; number++) { /* with 0 none goes wrong: the libraries begin */
        assert_true(number < MOST_CALLS);
        if (given->prepare) given->prepare();
        object_count = 0;
        belongings before = count_belongings();
        memset(hit, 0, sizeof *hit);
        (void)mdm_fail(MDM_OK, "%s", "");
        calls = 0;
        wanted = number;
        plan = given;
        mdm_status status = given->run();
        plan = NULL;
        if (status != MDM_OK && (!hit->reached || given->harmless))
            fail_msg("call %ld (%s): %s", number, hit->name, mdm_last_message());
        if (status != MDM_OK && (!mdm_last_message()[0] || strchr(mdm_last_message(), '\n')))
            fail_msg("call %ld (%s): status %d without a message", number, hit->name, status);
        if (number > 0) assert_as_before(&before, number);
        if (given->check) given->check(status);
        if (number > 0 && !hit->reached) return number - 1;
    }
}

void failing_opens_instead(const char *ending, const char *other) {
    instead_of = ending;
    instead = other;
}
