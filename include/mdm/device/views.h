/* Pictures on a CUDA device: how they get there, and augmented, normalised views of them made there.
 *
 * Pictures are uint8 [H,W,C], C = 1 or 3, one behind the other in the device's memory: the whole data set, or
 * those of a step, which mdm_upload brings. A view is a pure function of (seed, epoch, sample, number), the
 * same bits as the CPU's (mdm/data/augment.h). What a kernel needs to know about the views of a step it reads
 * from the device's memory. On the CPU there is nothing of this: its create functions return MDM_USAGE.
 */
#ifndef MDM_DEVICE_VIEWS_H
#define MDM_DEVICE_VIEWS_H

#include "mdm/base/pixels.h"
#include "mdm/device/device.h"

/* ---- pictures of a step: two page-locked buffers in turn, so that one is filled while the other is used
 * ----
 */
typedef struct mdm_upload mdm_upload;

/* Buffers of `bytes` each, two on the host and two on the device. */
MDM_MUST_CHECK mdm_status mdm_upload_create(mdm_device *device, size_t bytes, const char *what,
                                            mdm_upload **upload);
void mdm_upload_destroy(mdm_upload *upload);
/* The host memory to fill next; waits until what it held before has gone up. This and mdm_upload_send may be
 * called by another thread than the device's, one buffer at a time: begin, send, take, begin, ... */
MDM_MUST_CHECK mdm_status mdm_upload_begin(mdm_upload *upload, void **host);
/* Starts sending the first `bytes` of it, beside what the device computes. */
MDM_MUST_CHECK mdm_status mdm_upload_send(mdm_upload *upload, size_t bytes);
/* Where the buffer that was sent last lies for all that is queued from now on: `offset` bytes into *memory,
 * which is the same every time. The one taken before it may be overwritten when what is queued by now is
 * done. */
MDM_MUST_CHECK mdm_status mdm_upload_take(mdm_upload *upload, const uint8_t **memory, size_t *offset);

/* ---- views ---- */

/* One view to be made. */
typedef struct mdm_view_row {
    uint64_t sample;  /* whose random stream it is */
    uint32_t picture; /* its place among the pictures */
    uint32_t epoch, number;
    uint32_t view; /* mdm_view */
} mdm_view_row;

typedef struct mdm_view_spec {
    int height, width, channels, padding; /* zero pixels around a picture before the crop */
    uint64_t seed;
    float normal[3][256];          /* what a channel's values become */
    const mdm_view_policy *policy; /* for that size; copied */
} mdm_view_spec;

typedef struct mdm_view_maker mdm_view_maker;

MDM_MUST_CHECK mdm_status mdm_view_maker_create(mdm_device *device, const mdm_view_spec *spec,
                                                mdm_view_maker **maker);
void mdm_view_maker_destroy(mdm_view_maker *maker);
/* Room for steps of `rows` views. Not inside a step. */
MDM_MUST_CHECK mdm_status mdm_view_maker_reserve(mdm_view_maker *maker, int64_t rows);
/* Begins a step: waits for what was queued, which may still read the rows of the step before. */
MDM_MUST_CHECK mdm_status mdm_view_maker_begin(mdm_view_maker *maker);
/* Notes rows of the step (copied), the first of which is its row *first; several calls share its room. */
MDM_MUST_CHECK mdm_status mdm_view_maker_add(mdm_view_maker *maker, const mdm_view_row *rows, int64_t count,
                                             int64_t *first);
/* Queues the sending of so many of them. In a recording this and the next are replayed with the rows that
 * were added by then. */
MDM_MUST_CHECK mdm_status mdm_view_maker_send(mdm_view_maker *maker, int64_t first, int64_t count);
/* Queues the views of rows that were sent: float images [count,C,H,W] of the pictures in the device's memory.
 */
MDM_MUST_CHECK mdm_status mdm_view_maker_make(mdm_view_maker *maker, const uint8_t *pictures, int64_t first,
                                              int64_t count, float *images);
/* Bytes of the device's memory that makers of pictures of that size need beside the rows: 0 where a picture
 * fits a multiprocessor's own memory. */
size_t mdm_view_scratch_bytes(int height, int width, int channels);

#endif
