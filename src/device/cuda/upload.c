/* Pictures of a step on their way to the device: two pairs of buffers in turn. Sends go through a queue of
 * their own, so that they run beside what is computed; marks in both queues keep either from overtaking the
 * other. */
#include "device.h"
#include "mdm/device/views.h"
#include <stdlib.h>

typedef struct pair {
    void *host;
    mdm_gpu_mark *sent, *used; /* behind the latest send; behind what read it, or the memory's first zeros */
} pair;

struct mdm_upload {
    mdm_gpu *gpu;
    uint8_t *memory; /* both pairs': a recorded step knows one place only */
    size_t bytes;    /* of one */
    pair pairs[2];
    int next; /* the pair to fill; the other one is in use */
};

static mdm_status create_pair(mdm_gpu *gpu, size_t bytes, const char *what, pair *p) {
    MDM_TRY(mdm_gpu_pin(gpu, bytes, what, &p->host));
    MDM_TRY(mdm_gpu_create_mark(gpu, &p->sent));
    MDM_TRY(mdm_gpu_create_mark(gpu, &p->used));
    return mdm_gpu_record(gpu, MDM_GPU_COMPUTING, p->used);
}

mdm_status mdm_upload_create(mdm_device *device, size_t bytes, const char *what, mdm_upload **out) {
    mdm_upload *u;
    *out = NULL;
    if (!device->info.is_cuda) return mdm_fail(MDM_USAGE, "%s has no memory of its own", device->info.name);
    MDM_TRY(MDM_ALLOCATE(u, 1, what));
    u->gpu = mdm_cuda(device)->gpu;
    u->bytes = bytes;
    mdm_status status = mdm_gpu_allocate(u->gpu, 2 * bytes, what, (void **)&u->memory);
    if (status == MDM_OK) status = create_pair(u->gpu, bytes, what, &u->pairs[0]);
    if (status == MDM_OK) status = create_pair(u->gpu, bytes, what, &u->pairs[1]);
    if (status != MDM_OK) {
        mdm_upload_destroy(u);
        return status;
    }
    *out = u;
    return MDM_OK;
}

void mdm_upload_destroy(mdm_upload *u) {
    if (!u) return;
    for (int i = 0; i < 2; i++) {
        mdm_gpu_destroy_mark(u->gpu, u->pairs[i].sent); /* waits for it */
        mdm_gpu_destroy_mark(u->gpu, u->pairs[i].used);
        mdm_gpu_unpin(u->gpu, u->pairs[i].host);
    }
    mdm_gpu_free(u->gpu, u->memory);
    free(u);
}

mdm_status mdm_upload_begin(mdm_upload *u, void **host) {
    *host = u->pairs[u->next].host;
    return mdm_gpu_await(u->gpu, u->pairs[u->next].sent);
}

mdm_status mdm_upload_send(mdm_upload *u, size_t bytes) {
    pair *p = &u->pairs[u->next];
    MDM_TRY(mdm_gpu_follow(u->gpu, MDM_GPU_SENDING, p->used));
    MDM_TRY(mdm_gpu_send(u->gpu, MDM_GPU_SENDING, u->memory + (size_t)u->next * u->bytes, p->host, bytes));
    return mdm_gpu_record(u->gpu, MDM_GPU_SENDING, p->sent);
}

mdm_status mdm_upload_take(mdm_upload *u, const uint8_t **memory, size_t *offset) {
    *memory = u->memory;
    *offset = (size_t)u->next * u->bytes;
    MDM_TRY(mdm_gpu_record(u->gpu, MDM_GPU_COMPUTING, u->pairs[!u->next].used));
    MDM_TRY(mdm_gpu_follow(u->gpu, MDM_GPU_COMPUTING, u->pairs[u->next].sent));
    u->next = !u->next;
    return MDM_OK;
}
