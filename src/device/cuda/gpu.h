/* What the CUDA backend asks of the machine: memory, launches of our kernels, convolutions, products.
 *
 * Two programs' worth of code stand behind it: runtime.c, convolutions.c, products.c and the *kernels.cu for
 * CUDA devices; and, in the tests, one that runs every thread of every launch on the CPU over memory that
 * only kernels may touch, so that all of the backend but these files is checked without a device. absent.c is
 * what a build without the CUDA toolkit has.
 */
#ifndef MDM_DEVICE_CUDA_GPU_H
#define MDM_DEVICE_CUDA_GPU_H

#include "kernels_heads.h"
#include "kernels_mixture.h"
#include "kernels_neighbours.h"
#include "operations.h"
#include "view_kernels.h"

typedef struct mdm_gpu mdm_gpu;

typedef struct mdm_gpu_info {
    char name[128], library[64], instructions[32];
    size_t memory_bytes;
} mdm_gpu_info;

/* A failure of a device in one line, with CUDA's words and name for it. */
static inline mdm_status mdm_gpu_failed(int number, const char *what, const char *words, const char *name) {
    return mdm_fail(MDM_LOST, "CUDA device %d failed in %s: %s (%s)", number, what, words, name);
}

int mdm_gpu_count(char *why, size_t why_size, int *is_unusable); /* mdm_device_count_cuda */
MDM_MUST_CHECK mdm_status mdm_gpu_identify(int number, unsigned char identity[MDM_DEVICE_IDENTITY]);
MDM_MUST_CHECK mdm_status mdm_gpu_open(int number, mdm_gpu **gpu, mdm_gpu_info *info);
void mdm_gpu_close(mdm_gpu *gpu);
/* Whether the device is still there: where a library failed on it in `what`, CUDA's own name for the cause
 * tells more than the library's. Of a graph, whether it can still be one. */
MDM_MUST_CHECK mdm_status mdm_gpu_check_device(mdm_gpu *gpu, const char *what);

/* Aligned to 256 bytes. Zeroed in the queue of what is computed, which other queues must follow first. */
MDM_MUST_CHECK mdm_status mdm_gpu_allocate(mdm_gpu *gpu, size_t bytes, const char *what, void **memory);
/* Waits for everything in all queues, as mdm_gpu_unpin does. */
void mdm_gpu_free(mdm_gpu *gpu, void *memory);
/* Waits for everything queued: `host` may be changed again on return. */
MDM_MUST_CHECK mdm_status mdm_gpu_upload(mdm_gpu *gpu, void *memory, const void *host, size_t bytes);
/* Waits for everything queued; tells earlier failures. */
MDM_MUST_CHECK mdm_status mdm_gpu_download(mdm_gpu *gpu, void *host, const void *memory, size_t bytes);
void mdm_gpu_zero(mdm_gpu *gpu, void *memory, size_t bytes);
/* Within the device's memory. */
void mdm_gpu_copy(mdm_gpu *gpu, void *to, const void *from, size_t bytes);

/* Queues kernels of MDM_GPU_THREADS threads a block. Failures are told by the next download. */
#define MDM_GPU_DECLARE(name, arguments)                                                                     \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const arguments *a);
#define MDM_GPU_DECLARE_ROWS(name, arguments, phases)  MDM_GPU_DECLARE(name, arguments)
#define MDM_GPU_DECLARE_SUMMING(name, arguments, rest) MDM_GPU_DECLARE(name, arguments)
MDM_GPU_KERNELS(MDM_GPU_DECLARE, MDM_GPU_DECLARE_SUMMING)
MDM_GPU_HEAD_KERNELS(MDM_GPU_DECLARE, MDM_GPU_DECLARE_ROWS)
MDM_GPU_NEIGHBOUR_KERNELS(MDM_GPU_DECLARE, MDM_GPU_DECLARE_ROWS)
MDM_GPU_MIXTURE_KERNELS(MDM_GPU_DECLARE, MDM_GPU_DECLARE_ROWS)
#undef MDM_GPU_DECLARE_ROWS
#undef MDM_GPU_DECLARE
#undef MDM_GPU_DECLARE_SUMMING

/* Queues kernels in phases (view_kernels.h), with so many bytes of shared memory a block. */
#define MDM_GPU_DECLARE_PHASED(name, arguments)                                                              \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, size_t shared, const arguments *a);
MDM_GPU_PHASED_KERNELS(MDM_GPU_DECLARE_PHASED)
#undef MDM_GPU_DECLARE_PHASED

/* Queues, each in its own order: of what is computed (all of the above), of uploads, of communication and of
 * convolutions beside it. Their functions below may be called by any thread. */
typedef enum mdm_gpu_queue {
    MDM_GPU_COMPUTING,
    MDM_GPU_SENDING,
    MDM_GPU_COMMUNICATING,
    MDM_GPU_BESIDE
} mdm_gpu_queue;
/* From now on kernels and convolutions are queued there: for computing, or beside it, where convolutions have
 * scratch memory of their own only for gradients of filters. Zeroing and copies stay with what is computed,
 * and there are no products meanwhile. */
void mdm_gpu_turn_to(mdm_gpu *gpu, mdm_gpu_queue queue);
/* Before a thread of its own calls a library that uses CUDA: that would begin with device 0. */
MDM_MUST_CHECK mdm_status mdm_gpu_enter(mdm_gpu *gpu);
/* The cudaStream_t of a queue, for NCCL. */
void *mdm_gpu_stream(mdm_gpu *gpu, mdm_gpu_queue queue);

/* Looks after the host's waits for what is computed (downloads): `look` is called again and again in one, and
 * its failure ends the wait. NULL: nobody. */
typedef struct mdm_gpu_guard {
    void (*begin)(void *context);
    mdm_status (*look)(void *context);
    void (*end)(void *context);
    void *context;
} mdm_gpu_guard;
void mdm_gpu_set_guard(mdm_gpu *gpu, const mdm_gpu_guard *guard);
/* What is queued may never end: from now on nothing waits for it, and its memory is left to it. */
void mdm_gpu_give_up(mdm_gpu *gpu);

/* From now on kernels may be launched before the one in front of them has ended; they wait for its end before
 * they read or write anything. Nothing where the device cannot. */
void mdm_gpu_launch_early(mdm_gpu *gpu, int is_on);
int mdm_gpu_can_launch_early(const mdm_gpu *gpu);

/* Page-locked host memory, which sends read when their turn comes. */
MDM_MUST_CHECK mdm_status mdm_gpu_pin(mdm_gpu *gpu, size_t bytes, const char *what, void **host);
void mdm_gpu_unpin(mdm_gpu *gpu, void *host);
MDM_MUST_CHECK mdm_status mdm_gpu_send(mdm_gpu *gpu, mdm_gpu_queue queue, void *memory, const void *pinned,
                                       size_t bytes);
/* A mark stands behind all that was in a queue when it was recorded; one never recorded holds nobody up. */
typedef struct mdm_gpu_mark mdm_gpu_mark;
MDM_MUST_CHECK mdm_status mdm_gpu_create_mark(mdm_gpu *gpu, mdm_gpu_mark **mark);
void mdm_gpu_destroy_mark(mdm_gpu *gpu, mdm_gpu_mark *mark); /* when it has been reached */
MDM_MUST_CHECK mdm_status mdm_gpu_record(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark);
/* What is queued from now on runs behind the mark; the host waits for it. */
MDM_MUST_CHECK mdm_status mdm_gpu_follow(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark);
MDM_MUST_CHECK mdm_status mdm_gpu_await(mdm_gpu *gpu, mdm_gpu_mark *mark);

/* A graph: what is queued for computing between begin and end, and in other queues behind a mark of it, is
 * recorded and not run; a launch queues all of it. Without `keep`, or when it fails, *graph is NULL, and
 * failures in between are forgotten. In between there are no allocations, uploads, downloads or waits. A
 * launch that the device refuses queues nothing and is MDM_RESOURCE. */
typedef struct mdm_gpu_graph mdm_gpu_graph;
MDM_MUST_CHECK mdm_status mdm_gpu_begin_graph(mdm_gpu *gpu);
MDM_MUST_CHECK mdm_status mdm_gpu_end_graph(mdm_gpu *gpu, int keep, mdm_gpu_graph **graph);
MDM_MUST_CHECK mdm_status mdm_gpu_launch_graph(mdm_gpu *gpu, mdm_gpu_graph *graph, int is_timed);
void mdm_gpu_destroy_graph(mdm_gpu *gpu, mdm_gpu_graph *graph);
int mdm_gpu_is_recording(const mdm_gpu *gpu);
/* How long the device took for the latest launch that was timed, which the host has waited for. */
MDM_MUST_CHECK mdm_status mdm_gpu_graph_milliseconds(mdm_gpu *gpu, double *milliseconds);
/* How often memory, page-locked memory too, was freed. */
int64_t mdm_gpu_frees(const mdm_gpu *gpu);

/* One pass of a convolution over tensors [N,H,W,C] and a filter [K,R,S,C], channels in whole blocks; 16-byte
 * aligned. In MDM_BF16 all three are bfloat16, sums in single precision. */
typedef enum mdm_gpu_pass {
    MDM_GPU_FORWARD,        /* writes y */
    MDM_GPU_BACKWARD_DATA,  /* reads y's gradient, writes x's */
    MDM_GPU_BACKWARD_FILTER /* reads x and y's gradient, writes the filter's */
} mdm_gpu_pass;

typedef struct mdm_gpu_convolution {
    mdm_gpu_pass pass;
    mdm_precision precision;
    int batch, in, out, height, width, kernel, stride; /* in, out: padded; padding kernel / 2 */
} mdm_gpu_convolution;

/* Owned by `gpu`, which keeps it for the next convolution of the same kind. May time several ways, where no
 * earlier start has. */
typedef struct mdm_gpu_plan mdm_gpu_plan;
MDM_MUST_CHECK mdm_status mdm_gpu_plan_convolution(mdm_gpu *gpu, const mdm_gpu_convolution *convolution,
                                                   mdm_gpu_plan **plan);
/* What was measured is kept for the next start, as far as that is possible. */
void mdm_gpu_keep_plans(mdm_gpu *gpu);
MDM_MUST_CHECK mdm_status mdm_gpu_convolve(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y);

/* A product of dense row-major matrices; owned by `gpu`, which keeps it for the next one of the same shape.
 */
typedef struct mdm_gpu_product mdm_gpu_product;
MDM_MUST_CHECK mdm_status mdm_gpu_plan_product(mdm_gpu *gpu, const mdm_product_shape *shape,
                                               mdm_gpu_product **product);
MDM_MUST_CHECK mdm_status mdm_gpu_multiply(mdm_gpu *gpu, mdm_gpu_product *product, float alpha, const void *a,
                                           const void *b, float beta, const float *bias, float *c);

#endif
