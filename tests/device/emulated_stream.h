/* What a stream of the emulated device is to the fake NCCL: a queue that takes pieces of work, and runs them
 * in order, while the device's memory is unlocked. */
#ifndef MDM_TESTS_EMULATED_STREAM_H
#define MDM_TESTS_EMULATED_STREAM_H

#include <stdint.h>

/* Called again and again until it returns 1 (done), or -1: it never will be. */
typedef struct emulated_work {
    int (*advance)(struct emulated_work *work);
    /* The same work, not begun: for a graph, which keeps the one that was recorded. */
    struct emulated_work *(*copy)(const struct emulated_work *work);
} emulated_work;

typedef struct emulated_stream {
    void (*queue)(struct emulated_stream *stream, emulated_work *work);
    void (*lose)(struct emulated_stream *stream); /* the device is lost from now on */
    /* Waits so long, at most, for all work of all streams of the device; whether it is done. */
    int (*finish)(struct emulated_stream *stream, int64_t microseconds);
} emulated_stream;

#endif
