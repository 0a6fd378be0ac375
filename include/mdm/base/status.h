/* Status codes and the message that goes with them.
 *
 * Every function that can fail returns an mdm_status. The value is the exit code the program ends with
 * (CONTRACT: 0 done, 2 usage or config, 3 bad input file, 4 resource, 5 numbers went bad, 6 a rank or link
 * was lost, 75 stopped by a signal). The text, which names the file, key or rank and says what to do, is set
 * by mdm_fail() where it is known best and kept per thread until the next failure.
 */
#ifndef MDM_BASE_STATUS_H
#define MDM_BASE_STATUS_H

typedef enum mdm_status {
    MDM_OK = 0,
    MDM_USAGE = 2,    /* bad command line or configuration */
    MDM_INPUT = 3,    /* a data, weights or checkpoint file is missing, damaged or unsuitable */
    MDM_RESOURCE = 4, /* no memory, disk, device, permission */
    MDM_NUMERIC = 5,  /* non-finite numbers after the guards */
    MDM_LOST = 6,     /* a rank or a link was lost, or an internal call failed */
    MDM_STOPPED = 75  /* stopped by a signal, state saved */
} mdm_status;

#define MDM_MUST_CHECK __attribute__((warn_unused_result))

/* Stores the message (one line: what, where, remedy) and returns `code`. */
mdm_status mdm_fail(mdm_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The message of this thread's last failure; "" when there was none. */
const char *mdm_last_message(void);

/* Returns the status of `call` from the enclosing function unless it is MDM_OK. */
#define MDM_TRY(call)                                                                                        \
    do {                                                                                                     \
        mdm_status mdm_try_status_ = (call);                                                                 \
        if (mdm_try_status_ != MDM_OK) return mdm_try_status_;                                               \
    } while (0)

/* Like MDM_TRY, for functions with something to release: stores into `status` and jumps to `label`. */
#define MDM_TRY_OR(status, call, label)                                                                      \
    do {                                                                                                     \
        (status) = (call);                                                                                   \
        if ((status) != MDM_OK) goto label;                                                                  \
    } while (0)

/* Zeroed memory of count * size bytes, or MDM_RESOURCE naming `what`. The caller frees with free(). 64-byte
 * aligned. */
MDM_MUST_CHECK mdm_status mdm_allocate(void **memory, long long count, long long size, const char *what);
#define MDM_ALLOCATE(pointer, count, what)                                                                   \
    mdm_allocate((void **)&(pointer), (long long)(count), (long long)sizeof(*(pointer)), (what))

#endif
