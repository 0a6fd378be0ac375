/* Views on a CUDA device: the tables that its kernel reads, and the rows of a step. */
#include "mdm/device/views.h"
#include "device.h"
#include <stdlib.h>
#include <string.h>

/* Blocks that share scratch for large pictures: two for each multiprocessor of an H200. */
enum { SCRATCH_BLOCKS = 264 };

struct mdm_view_maker {
    mdm_gpu *gpu;
    mdm_view_spec spec;
    mdm_view_policy *policy; /* on the device, as are normal [C,256], scratch and rows */
    float *normal;
    uint8_t *scratch;
    mdm_view_row *rows, *host_rows; /* [capacity] */
    mdm_gpu_mark *read;             /* behind what may read the rows of the step before */
    int64_t capacity, added;        /* rows; of this step so far */
};

static size_t picture_bytes(int height, int width, int channels) {
    return (size_t)height * (size_t)width * (size_t)channels;
}

static size_t shared_bytes(int height, int width, int channels) {
    return MDM_VIEW_BLOCK_BYTES + 2 * picture_bytes(height, width, channels);
}

size_t mdm_view_scratch_bytes(int height, int width, int channels) {
    return shared_bytes(height, width, channels) <= MDM_VIEW_SHARED
               ? 0
               : SCRATCH_BLOCKS * 2 * picture_bytes(height, width, channels);
}

static mdm_status fill(mdm_view_maker *m) {
    const mdm_view_spec *s = &m->spec;
    size_t scratch = mdm_view_scratch_bytes(s->height, s->width, s->channels);
    MDM_TRY(mdm_gpu_allocate(m->gpu, sizeof *s->policy, "the sub-policies", (void **)&m->policy));
    MDM_TRY(mdm_gpu_upload(m->gpu, m->policy, s->policy, sizeof *s->policy));
    MDM_TRY(mdm_gpu_allocate(m->gpu, sizeof s->normal, "the normalisation", (void **)&m->normal));
    MDM_TRY(mdm_gpu_upload(m->gpu, m->normal, s->normal, sizeof s->normal));
    if (scratch > 0) MDM_TRY(mdm_gpu_allocate(m->gpu, scratch, "the making of views", (void **)&m->scratch));
    return mdm_gpu_create_mark(m->gpu, &m->read);
}

mdm_status mdm_view_maker_create(mdm_device *device, const mdm_view_spec *spec, mdm_view_maker **out) {
    mdm_view_maker *m;
    *out = NULL;
    if (!device->info.is_cuda) return mdm_fail(MDM_USAGE, "%s makes no views by itself", device->info.name);
    MDM_TRY(MDM_ALLOCATE(m, 1, "the making of views"));
    m->gpu = mdm_cuda(device)->gpu;
    m->spec = *spec;
    mdm_status status = fill(m);
    m->spec.policy = NULL; /* the caller's */
    if (status != MDM_OK) {
        mdm_view_maker_destroy(m);
        return status;
    }
    *out = m;
    return MDM_OK;
}

void mdm_view_maker_destroy(mdm_view_maker *m) {
    if (!m) return;
    mdm_gpu_destroy_mark(m->gpu, m->read);
    void *memory[] = {m->policy, m->normal, m->scratch, m->rows};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) mdm_gpu_free(m->gpu, memory[i]);
    mdm_gpu_unpin(m->gpu, m->host_rows);
    free(m);
}

mdm_status mdm_view_maker_reserve(mdm_view_maker *m, int64_t rows) {
    if (rows <= m->capacity) return MDM_OK;
    MDM_TRY(mdm_view_maker_begin(m));
    mdm_gpu_free(m->gpu, m->rows);
    mdm_gpu_unpin(m->gpu, m->host_rows);
    m->rows = m->host_rows = NULL;
    m->capacity = 0;
    size_t bytes = sizeof *m->rows * (size_t)rows;
    MDM_TRY(mdm_gpu_allocate(m->gpu, bytes, "a step's views", (void **)&m->rows));
    MDM_TRY(mdm_gpu_pin(m->gpu, bytes, "a step's views", (void **)&m->host_rows));
    m->capacity = rows;
    return MDM_OK;
}

mdm_status mdm_view_maker_begin(mdm_view_maker *m) {
    m->added = 0;
    MDM_TRY(mdm_gpu_record(m->gpu, MDM_GPU_COMPUTING, m->read));
    return mdm_gpu_await(m->gpu, m->read);
}

mdm_status mdm_view_maker_add(mdm_view_maker *m, const mdm_view_row *rows, int64_t count, int64_t *first) {
    *first = m->added;
    if (m->added + count > m->capacity)
        return mdm_fail(MDM_LOST, "no room was made for %lld views", (long long)(m->added + count));
    if (count > 0) memcpy(m->host_rows + m->added, rows, sizeof *rows * (size_t)count);
    m->added += count;
    return MDM_OK;
}

mdm_status mdm_view_maker_send(mdm_view_maker *m, int64_t first, int64_t count) {
    if (count == 0) return MDM_OK;
    return mdm_gpu_send(m->gpu, MDM_GPU_COMPUTING, m->rows + first, m->host_rows + first,
                        sizeof *m->rows * (size_t)count);
}

mdm_status mdm_view_maker_make(mdm_view_maker *m, const uint8_t *pictures, int64_t first, int64_t count,
                               float *images) {
    const mdm_view_spec *s = &m->spec;
    if (count == 0) return MDM_OK;
    mdm_view_arguments a = {.rows = m->rows + first,
                            .pictures = pictures,
                            .policy = m->policy,
                            .normal = m->normal,
                            .scratch = m->scratch,
                            .images = images,
                            .seed = s->seed,
                            .count = (uint32_t)count,
                            .blocks = m->scratch && count > SCRATCH_BLOCKS ? SCRATCH_BLOCKS : (uint32_t)count,
                            .height = s->height,
                            .width = s->width,
                            .channels = s->channels,
                            .padding = s->padding};
    size_t shared = m->scratch ? MDM_VIEW_BLOCK_BYTES : shared_bytes(s->height, s->width, s->channels);
    mdm_gpu_make_views(m->gpu, a.blocks, shared, &a);
    return MDM_OK;
}
