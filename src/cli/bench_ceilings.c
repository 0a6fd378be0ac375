/* What the device can do at best, to hold the other measurements against: copies within its memory, and a
 * large product in the precision of the run. */
#include "bench.h"
#include "mdm/device/products.h"
#include <stdio.h>
#include <stdlib.h>

enum { AT_ONCE = 10 }; /* calls of a measurement, so that the host's part does not count */

typedef struct ceilings {
    char *from, *to; /* in the device's memory, as all */
    size_t bytes;
    mdm_product *product;
    float *factors, *result; /* [side, side] */
    uint16_t *rounded;       /* the factors in bfloat16 */
    int side, is_bf16;
} ceilings;

static mdm_status wait_for(bench *b, const void *memory) {
    char last;
    return mdm_device_download(b->device, &last, memory, sizeof last);
}

static mdm_status run_copies(bench *b, void *context) {
    const ceilings *c = context;
    for (int i = 0; i < AT_ONCE; i++) mdm_device_copy(b->device, c->to, c->from, c->bytes);
    return wait_for(b, c->to);
}

static mdm_status run_products(bench *b, void *context) {
    const ceilings *c = context;
    const void *factors = c->is_bf16 ? (const void *)c->rounded : c->factors;
    for (int i = 0; i < AT_ONCE; i++)
        MDM_TRY(mdm_product_run(c->product, 1.0f, factors, factors, 0.0f, NULL, c->result));
    return wait_for(b, c->result);
}

static mdm_status make_room(bench *b, ceilings *c) {
    static const char what[] = "bench data";
    size_t values = (size_t)c->side * (size_t)c->side;
    const mdm_product_shape shape = {
        MDM_PRODUCT_NT, c->is_bf16 ? MDM_BF16 : b->precision, c->side, c->side, c->side, 0};
    MDM_TRY(mdm_device_allocate(b->device, c->bytes, what, (void **)&c->from));
    MDM_TRY(mdm_device_allocate(b->device, c->bytes, what, (void **)&c->to));
    MDM_TRY(mdm_bench_send_random(b, (int64_t)values, &c->factors));
    MDM_TRY(mdm_device_allocate(b->device, sizeof *c->rounded * values, what, (void **)&c->rounded));
    MDM_TRY(mdm_device_allocate(b->device, sizeof *c->result * values, what, (void **)&c->result));
    mdm_round_to_bf16(b->device, c->factors, (int64_t)values, c->rounded);
    return mdm_product_create(b->device, &shape, &c->product);
}

static mdm_status measure(bench *b, ceilings *c) {
    double times[MOST_TIMES], side = c->side;
    char more[96];
    MDM_TRY(mdm_bench_measure(b, run_copies, c, times, REPEATS));
    double moved = 2e-9 * AT_ONCE * (double)c->bytes * mdm_comm_size(b->comm);
    snprintf(more, sizeof more, ",\"bytes\":%zu,\"gbyte_per_s\":%.4g", c->bytes,
             moved / mdm_bench_median(times, REPEATS));
    mdm_bench_report(b, "copy", times, REPEATS, 0, 0, more);
    MDM_TRY(mdm_bench_measure(b, run_products, c, times, REPEATS));
    snprintf(more, sizeof more, ",\"side\":%d", c->side);
    mdm_bench_report(b, "product", times, REPEATS, 0,
                     2 * side * side * side * AT_ONCE * mdm_comm_size(b->comm), more);
    return MDM_OK;
}

mdm_status mdm_bench_ceilings(bench *b) {
    int is_cuda = mdm_device_get_info(b->device)->is_cuda;
    ceilings c = {.bytes = (size_t)(is_cuda ? 512 : 64) << 20,
                  .side = is_cuda ? 8192 : 1024,
                  .is_bf16 = b->precision == MDM_BF16};
    mdm_status status = mdm_comm_agree(b->comm, make_room(b, &c));
    if (status == MDM_OK) status = measure(b, &c);
    mdm_product_destroy(c.product);
    void *memory[] = {c.from, c.to, c.factors, c.rounded, c.result};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) mdm_device_free(b->device, memory[i]);
    return status;
}
