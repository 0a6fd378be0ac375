/* The CUDA backend's machine as one that only counts: nothing of what is queued runs, and every call is
 * written down as it is made, with its grid and the bytes that it has to move, each tensor once. So steps of
 * full width can be counted in a moment, without a device (tests/scale/count_device.py).
 *
 * The file that MDM_COUNTED_CALLS names gets a line a call: its name, blocks, rows of blocks, bytes,
 * operations; between the lines `begin` and `end` what a graph records. Memory is there and holds what was
 * uploaded, but for large uploads; what is downloaded is zeros.
 */
#include "cuda/gpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST = 4096, LARGE = 64 << 20 };

struct mdm_gpu {
    FILE *calls;
    struct {
        void *memory;
        size_t bytes;
    } blocks[MOST];
    int count;
    int64_t frees;
    mdm_gpu_plan *plans;
    mdm_gpu_product *products;
};

struct mdm_gpu_plan {
    mdm_gpu_convolution kind;
    mdm_gpu_plan *next;
};

struct mdm_gpu_product {
    mdm_product_shape shape;
    mdm_gpu_product *next;
};

struct mdm_gpu_mark {
    int unused;
};

struct mdm_gpu_graph {
    int unused;
};

static void write_call(const mdm_gpu *gpu, const char *name, uint32_t blocks, uint32_t block_rows,
                       double bytes, double operations) {
    if (blocks > 0 && block_rows > 0)
        fprintf(gpu->calls, "%s %u %u %.0f %.0f\n", name, blocks, block_rows, bytes, operations);
}

/* ---- bytes of kernels ---- */

static uint32_t grid; /* blocks of the launch that is counted */

static double element(int bf16) {
    return bf16 ? 2 : 4;
}

static double vector(int bf16) {
    return MDM_GPU_LANES * element(bf16);
}

static double tensor(const mdm_pixel_geometry *g, int bf16) {
    return (double)g->sets * g->rows * g->groups * vector(bf16);
}

static double bytes_of_norm_forward(const mdm_norm_forward_arguments *a) {
    return tensor(&a->geometry, a->bf16) * (a->residual ? 3 : 2);
}

static double bytes_of_norm_backward(const mdm_norm_backward_arguments *a) {
    return tensor(&a->geometry, a->bf16) * (a->other ? 4 : 3);
}

/* What a block of pixels leaves: two sums of each channel. */
static double partial(const mdm_pixel_geometry *g) {
    return (double)g->sets * g->blocks * g->groups * 16 * sizeof(double);
}

static double bytes_of_statistics(const mdm_sum_arguments *a) {
    return tensor(&a->geometry, a->bf16) * (a->residual ? 3 : 1) + partial(&a->geometry);
}

static double bytes_of_backward_sums(const mdm_sum_arguments *a) {
    return tensor(&a->geometry, a->bf16) * (a->other ? 3 : 2) + partial(&a->geometry);
}

static double bytes_of_gather_sums(const mdm_gather_arguments *a) {
    return (double)a->sets * a->blocks * a->groups * 16 * sizeof(double);
}

static double bytes_of_channels(const mdm_channel_arguments *a) {
    return 64.0 * (a->sets > 0 ? a->sets * a->padded : a->channels);
}
#define bytes_of_norm_from_sums    bytes_of_channels
#define bytes_of_norm_from_running bytes_of_channels
#define bytes_of_norm_gradients    bytes_of_channels
#define bytes_of_norm_means        bytes_of_channels

static double bytes_of_add(const mdm_add_arguments *a) {
    return a->count * vector(a->bf16) * 3;
}

static double bytes_of_add_backward(const mdm_add_backward_arguments *a) {
    return a->count * vector(a->bf16) * (a->other ? 5 : 4);
}

static double bytes_of_max_pool_forward(const mdm_max_pool_arguments *a) {
    return a->count * vector(a->bf16) * 5;
}

static double bytes_of_max_pool_backward(const mdm_max_pool_arguments *a) {
    return a->count * vector(a->bf16) * (2 + (a->other ? 3 : 2) / 4.0);
}

static double bytes_of_pool_forward(const mdm_pool_arguments *a) {
    return a->count * (a->pixels * vector(a->bf16) * (a->residual ? 2 : 1) + vector(0));
}

static double bytes_of_pool_backward(const mdm_pool_arguments *a) {
    return a->count * (vector(a->bf16) + vector(0) / a->pixels);
}

static double bytes_of_layout(const mdm_layout_arguments *a) {
    return a->count * vector(a->bf16) + 4.0 * a->count / a->groups * a->channels;
}
#define bytes_of_to_tensor   bytes_of_layout
#define bytes_of_from_tensor bytes_of_layout

static double bytes_of_to_filter(const mdm_weights_arguments *a) {
    return a->count * vector(a->bf16) + 4.0 * a->in * a->out * a->taps;
}

static double bytes_of_from_filter(const mdm_weights_arguments *a) {
    return a->count * (element(a->bf16) + (a->accumulate ? 8 : 4));
}

static double bytes_of_sgd(const mdm_sgd_arguments *a) {
    return 20.0 * a->count;
}

static double bytes_of_squares(const mdm_square_arguments *a) {
    return 4.0 * (double)a->count;
}

static double bytes_of_average(const mdm_average_arguments *a) {
    return 12.0 * a->count;
}

static double bytes_of_step_filters(const mdm_filter_arguments *a) {
    double weights = 0, filters = 0;
    for (uint32_t i = 0; i < grid; i++) {
        weights += a->pieces[i].count;
        if (a->pieces[i].inputs) filters += a->pieces[i].count;
    }
    return weights * (a->verdict ? 20 : 4) + filters * element(a->bf16);
}

static double bytes_of_from_filters(const mdm_from_filters_arguments *a) {
    double weights = 0;
    for (uint32_t i = 0; i < grid; i++)
        if (a->pieces[i].inputs) weights += a->pieces[i].count;
    return weights * (element(a->bf16) + (a->accumulate ? 8 : 4));
}

static double bytes_of_column_norm_forward(const mdm_column_norm_arguments *a) {
    return 12.0 * (double)a->count;
}
#define bytes_of_column_norm_backward bytes_of_column_norm_forward

static double bytes_of_round_to_bf16(const mdm_round_arguments *a) {
    return 6.0 * (double)a->count;
}

static double bytes_of_add_bias(const mdm_bias_arguments *a) {
    return 8.0 * a->count;
}

static double bytes_of_mix(const mdm_mix_arguments *a) {
    return 12.0 * (double)a->rows * (double)a->width;
}
#define bytes_of_mix_rows     bytes_of_mix
#define bytes_of_mix_words    bytes_of_mix
#define bytes_of_mix_backward bytes_of_mix

static double bytes_of_judge_step(const mdm_step_judgement *a) {
    return sizeof(double) * (size_t)a->count;
}

static double matrix(const mdm_row_geometry *g) {
    return 4.0 * g->rows * g->columns;
}

static double bytes_of_softmax_rows(const mdm_softmax_arguments *a) {
    return 2 * matrix(&a->rows);
}

static double bytes_of_loss(const mdm_loss_arguments *a) {
    return matrix(&a->rows) * ((a->target ? 2 : 1) + (a->gradient ? 1 : 0) + (a->accumulate ? 1 : 0));
}
#define bytes_of_loss_symmetric bytes_of_loss

static double bytes_of_loss_soft(const mdm_soft_arguments *a) {
    return bytes_of_loss(&a->labelled) + bytes_of_loss(&a->unlabelled);
}

static double bytes_of_make_targets(const mdm_target_arguments *a) {
    return matrix(&a->rows) * (a->theirs ? 6 : 4);
}

static double bytes_of_balance(const mdm_balance_arguments *a) {
    return 3 * matrix(&a->rows);
}

static double bytes_of_unit_forward(const mdm_unit_arguments *a) {
    return 2 * matrix(&a->rows);
}

static double bytes_of_unit_backward(const mdm_unit_arguments *a) {
    return 3 * matrix(&a->rows);
}

static double bytes_of_contrast_rows(const mdm_contrast_arguments *a) {
    return 2 * matrix(&a->rows);
}

static double bytes_of_sum_rows(const mdm_row_sums_arguments *a) {
    double rows = 0;
    for (int i = 0; i < MDM_ROW_SUMS; i++) rows += (double)a->sums[i].rows;
    return 8 * rows;
}

static double bytes_of_sum_columns(const mdm_column_arguments *a) {
    return 4.0 * a->rows * a->columns * (a->x == a->other ? 1 : 2);
}

static double bytes_of_clear_lists(const mdm_clear_arguments *a) {
    return (double)a->count * a->width * sizeof(mdm_neighbour);
}

static double bytes_of_filter_tile(const mdm_tile_arguments *a) {
    return 4.0 * a->row.count * a->column.count;
}

/* Of a tile on the diagonal; how many queries of another have hits is not known without its numbers. */
static double bytes_of_merge_tile(const mdm_tile_arguments *a) {
    return a->diagonal ? 4.0 * a->row.count * a->column.count : 0;
}

static double bytes_of_answer(const mdm_answer_arguments *a) {
    return (double)a->own.kept_count * a->width * sizeof(mdm_neighbour);
}

static double bytes_of_gather_units(const mdm_gather_units_arguments *a) {
    return 4.0 * a->count * a->padded;
}

static double bytes_of_take_again(const mdm_take_again_arguments *a) {
    return 28.0 * a->count * a->k;
}

static double bytes_of_mean_distance(const mdm_mean_distance_arguments *a) {
    return 8.0 * a->own.kept_count * a->k;
}

static double bytes_of_measure(const mdm_measure_arguments *a) {
    return 4.0 * a->count * a->dimension;
}

static double bytes_of_pack(const mdm_pack_arguments *a) {
    return 6.0 * a->block.kept_count * a->dimension;
}

static double bytes_of_rescore(const mdm_rescore_arguments *a) {
    return 4.0 * a->own.kept_count * a->width * a->dimension;
}

static double bytes_of_search_again(const mdm_search_again_arguments *a) {
    return 4.0 * grid * a->columns;
}

static double bytes_of_mixture(const mdm_mixture_arguments *a) {
    return 4.0 * a->count;
}
#define bytes_of_posterior  bytes_of_mixture
#define bytes_of_expect_all bytes_of_mixture
#define bytes_of_extremes   bytes_of_mixture
#define bytes_of_histogram  bytes_of_mixture
#define bytes_of_expect     bytes_of_mixture

static double bytes_of_make_views(const mdm_view_arguments *a) {
    return 5.0 * a->count * a->height * a->width * a->channels;
}

/* ---- launches ---- */

#define COUNT(name, argument_type)                                                                           \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, uint32_t block_rows, const argument_type *a) {        \
        grid = blocks;                                                                                       \
        write_call(gpu, #name, blocks, block_rows, bytes_of_##name(a), 0);                                   \
    }
#define COUNT_MORE(name, argument_type, more) COUNT(name, argument_type)
MDM_GPU_KERNELS(COUNT, COUNT_MORE)
MDM_GPU_HEAD_KERNELS(COUNT, COUNT_MORE)
MDM_GPU_NEIGHBOUR_KERNELS(COUNT, COUNT_MORE)
MDM_GPU_MIXTURE_KERNELS(COUNT, COUNT_MORE)
#define COUNT_PHASED(name, argument_type)                                                                    \
    void mdm_gpu_##name(mdm_gpu *gpu, uint32_t blocks, size_t shared, const argument_type *a) {              \
        (void)shared;                                                                                        \
        write_call(gpu, #name, blocks, 1, bytes_of_##name(a), 0);                                            \
    }
MDM_GPU_PHASED_KERNELS(COUNT_PHASED)

mdm_status mdm_gpu_plan_convolution(mdm_gpu *gpu, const mdm_gpu_convolution *convolution,
                                    mdm_gpu_plan **plan) {
    MDM_TRY(MDM_ALLOCATE(*plan, 1, "a plan"));
    **plan = (mdm_gpu_plan){*convolution, gpu->plans};
    gpu->plans = *plan;
    return MDM_OK;
}

mdm_status mdm_gpu_convolve(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    static const char *const names[] = {"convolution", "convolution_data", "convolution_filter"};
    const mdm_gpu_convolution *k = &plan->kind;
    double size = element(k->precision == MDM_BF16), in = (double)k->batch * k->height * k->width * k->in,
           weights = (double)k->in * k->out * k->kernel * k->kernel,
           pixels = (double)k->batch * ((k->height - 1) / k->stride + 1) * ((k->width - 1) / k->stride + 1);
    (void)x, (void)filter, (void)y;
    write_call(gpu, names[k->pass], 1, 1, size * (in + weights + pixels * k->out), 2 * pixels * weights);
    return MDM_OK;
}

void mdm_gpu_keep_plans(mdm_gpu *gpu) {
    (void)gpu;
}

mdm_status mdm_gpu_plan_product(mdm_gpu *gpu, const mdm_product_shape *shape, mdm_gpu_product **product) {
    MDM_TRY(MDM_ALLOCATE(*product, 1, "a product"));
    **product = (mdm_gpu_product){*shape, gpu->products};
    gpu->products = *product;
    return MDM_OK;
}

mdm_status mdm_gpu_multiply(mdm_gpu *gpu, mdm_gpu_product *product, float alpha, const void *a, const void *b,
                            float beta, const float *bias, float *c) {
    const mdm_product_shape *s = &product->shape;
    double size = element(s->precision == MDM_BF16 || s->precision == MDM_FP16), m = s->m, n = s->n, k = s->k;
    (void)alpha, (void)a, (void)b, (void)bias, (void)c;
    write_call(gpu, s->precision == MDM_FP16 ? "tile_product" : "product", 1, 1,
               size * (m * k + n * k) + (beta != 0.0f ? 8 : 4) * m * n, 2 * m * n * k);
    return MDM_OK;
}

/* ---- memory ---- */

mdm_status mdm_gpu_allocate(mdm_gpu *gpu, size_t bytes, const char *what, void **memory) {
    *memory =
        mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*memory == MAP_FAILED || gpu->count == MOST)
        return mdm_fail(MDM_RESOURCE, "not enough memory for %s", what);
    gpu->blocks[gpu->count].memory = *memory;
    gpu->blocks[gpu->count++].bytes = bytes + 1;
    return MDM_OK;
}

void mdm_gpu_free(mdm_gpu *gpu, void *memory) {
    gpu->frees += memory != NULL;
    for (int i = 0; i < gpu->count; i++)
        if (gpu->blocks[i].memory == memory) {
            munmap(memory, gpu->blocks[i].bytes);
            gpu->blocks[i] = gpu->blocks[--gpu->count];
            return;
        }
}

mdm_status mdm_gpu_upload(mdm_gpu *gpu, void *memory, const void *host, size_t bytes) {
    write_call(gpu, "upload", 1, 1, (double)bytes, 0);
    if (bytes < LARGE) memcpy(memory, host, bytes);
    return MDM_OK;
}

mdm_status mdm_gpu_download(mdm_gpu *gpu, void *host, const void *memory, size_t bytes) {
    const uint64_t one = 0x3ff0000000000000u;
    (void)memory;
    write_call(gpu, "download", 1, 1, (double)bytes, 0);
    memset(host, 0, bytes);
    for (uint64_t i = 0; i < bytes / sizeof i; i++) {
        const uint64_t word = one + i;
        memcpy((char *)host + i * sizeof word, &word, sizeof word);
    }
    return MDM_OK;
}

void mdm_gpu_zero(mdm_gpu *gpu, void *memory, size_t bytes) {
    (void)memory;
    write_call(gpu, "zero", 1, 1, (double)bytes, 0);
}

void mdm_gpu_copy(mdm_gpu *gpu, void *to, const void *from, size_t bytes) {
    (void)to, (void)from;
    write_call(gpu, "copy", 1, 1, 2 * (double)bytes, 0);
}

mdm_status mdm_gpu_pin(mdm_gpu *gpu, size_t bytes, const char *what, void **host) {
    (void)gpu;
    return mdm_allocate(host, (long long)bytes + 1, 1, what);
}

void mdm_gpu_unpin(mdm_gpu *gpu, void *host) {
    (void)gpu;
    free(host);
}

mdm_status mdm_gpu_send(mdm_gpu *gpu, mdm_gpu_queue queue, void *memory, const void *pinned, size_t bytes) {
    (void)queue, (void)memory, (void)pinned;
    write_call(gpu, "send", 1, 1, (double)bytes, 0);
    return MDM_OK;
}

/* ---- the device, queues and graphs ---- */

int mdm_gpu_count(char *why, size_t why_size, int *is_unusable) {
    if (is_unusable) *is_unusable = 0;
    if (why) snprintf(why, why_size, " ");
    return 1;
}

mdm_status mdm_gpu_identify(int number, unsigned char identity[MDM_DEVICE_IDENTITY]) {
    memset(identity, number + 1, MDM_DEVICE_IDENTITY);
    return MDM_OK;
}

mdm_status mdm_gpu_open(int number, mdm_gpu **gpu, mdm_gpu_info *info) {
    const char *path = getenv("MDM_COUNTED_CALLS");
    MDM_TRY(MDM_ALLOCATE(*gpu, 1, "the counting device"));
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "counting device %d", number);
    snprintf(info->library, sizeof info->library, "none");
    snprintf(info->instructions, sizeof info->instructions, "counted");
    info->memory_bytes = (size_t)141 << 30;
    (*gpu)->calls = fopen(path ? path : "/dev/null", "w");
    return (*gpu)->calls ? MDM_OK : mdm_fail(MDM_USAGE, "MDM_COUNTED_CALLS=%s cannot be written", path);
}

void mdm_gpu_close(mdm_gpu *gpu) {
    while (gpu->count > 0) mdm_gpu_free(gpu, gpu->blocks[0].memory);
    for (mdm_gpu_plan *next; gpu->plans; gpu->plans = next) {
        next = gpu->plans->next;
        free(gpu->plans);
    }
    for (mdm_gpu_product *next; gpu->products; gpu->products = next) {
        next = gpu->products->next;
        free(gpu->products);
    }
    if (gpu->calls) fclose(gpu->calls);
    free(gpu);
}

mdm_status mdm_gpu_check_device(mdm_gpu *gpu, const char *what) {
    (void)gpu, (void)what;
    return MDM_OK;
}

void mdm_gpu_set_guard(mdm_gpu *gpu, const mdm_gpu_guard *guard) {
    (void)gpu, (void)guard;
}

void mdm_gpu_give_up(mdm_gpu *gpu) {
    (void)gpu;
}

void *mdm_gpu_stream(mdm_gpu *gpu, mdm_gpu_queue queue) {
    (void)queue;
    return gpu;
}

mdm_status mdm_gpu_create_mark(mdm_gpu *gpu, mdm_gpu_mark **mark) {
    (void)gpu;
    return MDM_ALLOCATE(*mark, 1, "a mark");
}

void mdm_gpu_destroy_mark(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    (void)gpu;
    free(mark);
}

mdm_status mdm_gpu_record(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    (void)gpu, (void)queue, (void)mark;
    return MDM_OK;
}

mdm_status mdm_gpu_follow(mdm_gpu *gpu, mdm_gpu_queue queue, mdm_gpu_mark *mark) {
    return mdm_gpu_record(gpu, queue, mark);
}

mdm_status mdm_gpu_await(mdm_gpu *gpu, mdm_gpu_mark *mark) {
    return mdm_gpu_record(gpu, MDM_GPU_COMPUTING, mark);
}

mdm_status mdm_gpu_begin_graph(mdm_gpu *gpu) {
    fprintf(gpu->calls, "begin\n");
    return MDM_OK;
}

mdm_status mdm_gpu_end_graph(mdm_gpu *gpu, int keep, mdm_gpu_graph **graph) {
    fprintf(gpu->calls, "end\n");
    *graph = NULL;
    return keep ? MDM_ALLOCATE(*graph, 1, "a graph") : MDM_OK;
}

mdm_status mdm_gpu_launch_graph(mdm_gpu *gpu, mdm_gpu_graph *graph, int is_timed) {
    (void)graph, (void)is_timed;
    fprintf(gpu->calls, "launch\n");
    return MDM_OK;
}

mdm_status mdm_gpu_graph_milliseconds(mdm_gpu *gpu, double *milliseconds) {
    (void)gpu;
    *milliseconds = 0; /* so that everything stays in one queue */
    return MDM_OK;
}

void mdm_gpu_launch_early(mdm_gpu *gpu, int is_on) {
    (void)gpu, (void)is_on;
}

int mdm_gpu_can_launch_early(const mdm_gpu *gpu) {
    (void)gpu;
    return 0;
}

void mdm_gpu_turn_to(mdm_gpu *gpu, mdm_gpu_queue queue) {
    (void)gpu, (void)queue;
}

void mdm_gpu_destroy_graph(mdm_gpu *gpu, mdm_gpu_graph *graph) {
    (void)gpu;
    free(graph);
}

mdm_status mdm_gpu_enter(mdm_gpu *gpu) {
    (void)gpu;
    return MDM_OK;
}

int mdm_gpu_is_recording(const mdm_gpu *gpu) {
    (void)gpu;
    return 0;
}

int64_t mdm_gpu_frees(const mdm_gpu *gpu) {
    return gpu->frees;
}
