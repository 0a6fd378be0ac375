/* Convolutions and products of the emulated device: plain loops. */
#include "cuda/product_layout.h"
#include "emulated_gpu.h"
#include <stdio.h>
#include <stdlib.h>

static int same_kind(const mdm_gpu_convolution *a, const mdm_gpu_convolution *b) {
    return a->pass == b->pass && a->precision == b->precision && a->batch == b->batch && a->in == b->in &&
           a->out == b->out && a->height == b->height && a->width == b->width && a->kernel == b->kernel &&
           a->stride == b->stride;
}

/* What is new takes memory to be measured, and frees it; a larger scratch memory takes the place of the one
 * that graphs have been recorded with. */
static void plan_anew(mdm_gpu *gpu) {
    emulated_refuse_in_graph(gpu, "a convolution or product is planned");
    gpu->frees++;
}

mdm_status mdm_gpu_plan_convolution(mdm_gpu *gpu, const mdm_gpu_convolution *convolution,
                                    mdm_gpu_plan **plan) {
    if (convolution->in % MDM_GPU_LANES || convolution->out % MDM_GPU_LANES)
        return mdm_fail(MDM_LOST, "channels are not in whole blocks");
    for (*plan = gpu->plans; *plan; *plan = (*plan)->next)
        if (same_kind(&(*plan)->kind, convolution)) return MDM_OK;
    plan_anew(gpu);
    MDM_TRY(MDM_ALLOCATE(*plan, 1, "a plan"));
    (*plan)->kind = *convolution;
    (*plan)->next = gpu->plans;
    gpu->plans = *plan;
    return MDM_OK;
}

/* Nothing was measured; the file that MDM_EMULATED_KEPT names tells that it was asked for. */
void mdm_gpu_keep_plans(mdm_gpu *gpu) {
    const char *path = getenv("MDM_EMULATED_KEPT");
    FILE *file = path ? fopen(path, "w") : NULL;
    (void)gpu;
    if (file) fclose(file);
}

static float get(const void *tensor, size_t i, int bf16) {
    return bf16 ? mdm_float_of_bf16(((const uint16_t *)tensor)[i]) : ((const float *)tensor)[i];
}

static void put(void *tensor, size_t i, int bf16, float value) {
    if (bf16)
        ((uint16_t *)tensor)[i] = (uint16_t)mdm_bf16_of(value);
    else
        ((float *)tensor)[i] = value;
}

/* Everything a pass reads, as floats; what it writes is summed in `result`. */
typedef struct operands {
    float *x, *w, *y;
    size_t x_count, w_count, y_count;
    int out_height, out_width;
} operands;

static float *floats_of(const void *tensor, size_t count, int bf16, int is_read) {
    float *values = calloc(count + 1, sizeof *values);
    if (!values) abort();
    for (size_t i = 0; is_read && i < count; i++) values[i] = get(tensor, i, bf16);
    return values;
}

/* Where sums begin. A library that has a plan for each number of pictures adds in an order of each, so that
 * no test may take for granted what a device need not give: the same bits whatever else is in the batch. */
static size_t start_of(const mdm_gpu_convolution *k, size_t terms) {
    return (size_t)k->batch * 5 / 8 % terms; /* not the same where batches are of whole blocks */
}

/* One output pixel with one tap of the filter. */
static void convolve_tap(const mdm_gpu_convolution *k, const operands *o, size_t y, size_t x, size_t tap) {
    size_t taps = (size_t)k->kernel * (size_t)k->kernel, in = (size_t)k->in, out = (size_t)k->out,
           start = start_of(k, in), c = start_of(k, out);
    for (size_t n = 0; n < out; n++, c = c + 1 < out ? c + 1 : 0) {
        float *w = o->w + (c * taps + tap) * in, *from = o->x + x * in, *to = o->y + y * out + c;
        if (k->pass == MDM_GPU_FORWARD) {
            float sum = 0;
            for (size_t i = start; i < in; i++) sum += from[i] * w[i];
            for (size_t i = 0; i < start; i++) sum += from[i] * w[i];
            *to += sum;
        } else if (k->pass == MDM_GPU_BACKWARD_DATA) {
            for (size_t i = 0; i < in; i++) from[i] += *to * w[i];
        } else {
            for (size_t i = 0; i < in; i++) w[i] += *to * from[i];
        }
    }
}

static void convolve(const mdm_gpu_convolution *k, const operands *o) {
    int pad = k->kernel / 2;
    for (int m = 0, n = k->batch / 3; m < k->batch; m++, n = n + 1 < k->batch ? n + 1 : 0)
        for (int i = 0; i < o->out_height; i++)
            for (int j = 0; j < o->out_width; j++)
                for (int tap = 0; tap < k->kernel * k->kernel; tap++) {
                    int row = i * k->stride + tap / k->kernel - pad,
                        column = j * k->stride + tap % k->kernel - pad;
                    if (row < 0 || column < 0 || row >= k->height || column >= k->width) continue;
                    convolve_tap(
                        k, o,
                        ((size_t)n * (size_t)o->out_height + (size_t)i) * (size_t)o->out_width + (size_t)j,
                        ((size_t)n * (size_t)k->height + (size_t)row) * (size_t)k->width + (size_t)column,
                        (size_t)tap);
                }
}

typedef struct convolve_call {
    mdm_gpu_plan *plan;
    void *x, *filter, *y;
} convolve_call;

static void run_convolve(mdm_gpu *gpu, const void *arguments) {
    const convolve_call *given = arguments;
    const mdm_gpu_convolution *k = &given->plan->kind;
    void *x = given->x, *filter = given->filter, *y = given->y;
    int bf16 = k->precision == MDM_BF16, pad = k->kernel / 2;
    operands o = {.out_height = (k->height + 2 * pad - k->kernel) / k->stride + 1,
                  .out_width = (k->width + 2 * pad - k->kernel) / k->stride + 1};
    (void)gpu;
    o.x_count = (size_t)k->batch * (size_t)k->height * (size_t)k->width * (size_t)k->in;
    o.y_count = (size_t)k->batch * (size_t)o.out_height * (size_t)o.out_width * (size_t)k->out;
    o.w_count = (size_t)k->out * (size_t)k->in * (size_t)k->kernel * (size_t)k->kernel;
    o.x = floats_of(x, o.x_count, bf16, k->pass != MDM_GPU_BACKWARD_DATA);
    o.w = floats_of(filter, o.w_count, bf16, k->pass != MDM_GPU_BACKWARD_FILTER);
    o.y = floats_of(y, o.y_count, bf16, k->pass != MDM_GPU_FORWARD);
    convolve(k, &o);
    for (size_t i = 0; k->pass == MDM_GPU_FORWARD && i < o.y_count; i++) put(y, i, bf16, o.y[i]);
    for (size_t i = 0; k->pass == MDM_GPU_BACKWARD_DATA && i < o.x_count; i++) put(x, i, bf16, o.x[i]);
    for (size_t i = 0; k->pass == MDM_GPU_BACKWARD_FILTER && i < o.w_count; i++) put(filter, i, bf16, o.w[i]);
    free(o.x);
    free(o.w);
    free(o.y);
}

mdm_status mdm_gpu_convolve(mdm_gpu *gpu, mdm_gpu_plan *plan, void *x, void *filter, void *y) {
    const convolve_call given = {plan, x, filter, y};
    if (gpu->turned_to != MDM_GPU_COMPUTING && plan->kind.pass != MDM_GPU_BACKWARD_FILTER)
        emulated_refuse("a convolution beside others that is no gradient of filters");
    if (((uintptr_t)x | (uintptr_t)filter | (uintptr_t)y) % 16)
        emulated_refuse("a convolution of tensors that are not aligned as its plan was told");
    MDM_TRY(emulated_tell_loss(gpu, "a convolution"));
    emulated_queue_call(gpu, "convolution", run_convolve, &given, sizeof given, &gpu->counts.launches);
    return MDM_OK;
}

static int same_product(const mdm_product_shape *a, const mdm_product_shape *b) {
    return a->form == b->form && a->precision == b->precision && a->m == b->m && a->n == b->n &&
           a->k == b->k && !a->has_bias == !b->has_bias;
}

mdm_status mdm_gpu_plan_product(mdm_gpu *gpu, const mdm_product_shape *shape, mdm_gpu_product **product) {
    for (*product = gpu->products; *product; *product = (*product)->next)
        if (same_product(&(*product)->shape, shape)) return MDM_OK;
    plan_anew(gpu);
    MDM_TRY(MDM_ALLOCATE(*product, 1, "a product"));
    (*product)->shape = *shape;
    (*product)->next = gpu->products;
    gpu->products = *product;
    return MDM_OK;
}

/* Element (row, column) of a factor. */
static float element(const void *matrix, mdm_column_matrix m, int row, int column, mdm_precision precision) {
    int i = m.is_transposed ? column : row, j = m.is_transposed ? row : column;
    if (i >= m.rows || j >= m.columns) abort();
    size_t at = (size_t)j * (size_t)m.rows + (size_t)i;
    return precision == MDM_FP16 ? mdm_float_of_half(((const uint16_t *)matrix)[at])
                                 : get(matrix, at, precision == MDM_BF16);
}

/* A factor as floats [lines, length]: the first's rows, or the second's columns. */
static float *lines_of(const void *matrix, mdm_column_matrix m, mdm_precision precision, int lines,
                       int length, int is_second) {
    float *values = calloc((size_t)lines * (size_t)length, sizeof *values), *next = values;
    if (!values) abort();
    for (int i = 0; i < lines; i++)
        for (int k = 0; k < length; k++)
            *next++ = element(matrix, m, is_second ? k : i, is_second ? i : k, precision);
    return values;
}

typedef struct multiply_call {
    mdm_gpu_product *product;
    float alpha, beta;
    const void *a, *b;
    const float *bias;
    float *c;
} multiply_call;

/* By columns, as the library does. */
static void run_multiply(mdm_gpu *gpu, const void *arguments) {
    const multiply_call *given = arguments;
    const mdm_product_shape *s = &given->product->shape;
    const float alpha = given->alpha, beta = given->beta, *bias = given->bias;
    const mdm_product_layout layout = mdm_layout_of_product(s);
    int rows = layout.result.rows, columns = layout.result.columns;
    float *c = given->c, *first = lines_of(given->b, layout.first, s->precision, rows, s->k, 0),
          *second = lines_of(given->a, layout.second, s->precision, columns, s->k, 1);
    (void)gpu;
    for (int j = 0; j < columns; j++)
        for (int i = 0; i < rows; i++) {
            float sum = 0, *out = c + (size_t)j * (size_t)rows + (size_t)i;
            const float *x = first + (size_t)i * (size_t)s->k, *y = second + (size_t)j * (size_t)s->k;
            for (int k = 0; k < s->k; k++) sum += x[k] * y[k];
            sum *= alpha;
            if (beta != 0.0f) sum += beta * *out;
            *out = sum + (s->has_bias ? bias[i] : 0.0f);
        }
    free(first);
    free(second);
}

mdm_status mdm_gpu_multiply(mdm_gpu *gpu, mdm_gpu_product *product, float alpha, const void *a, const void *b,
                            float beta, const float *bias, float *c) {
    const multiply_call given = {product, alpha, beta, a, b, bias, c};
    if (gpu->turned_to != MDM_GPU_COMPUTING) emulated_refuse("a product beside what is computed");
    MDM_TRY(emulated_tell_loss(gpu, "a product"));
    emulated_queue_call(gpu, "product", run_multiply, &given, sizeof given, &gpu->counts.launches);
    return MDM_OK;
}
