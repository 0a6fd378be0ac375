/* Messages from the host, and steps recorded as graphs of a CUDA device. */
#include "mdm/device/recording.h"
#include "cuda/device.h"
#include "cuda/nccl.h"
#include <stdlib.h>

struct mdm_message {
    mdm_device *device;
    void *host, *memory; /* the same on the CPU */
    mdm_gpu_mark *read;  /* CUDA: behind what may still read it */
};

struct mdm_recording {
    mdm_device *device;
    mdm_gpu_graph *graph;
};

static mdm_gpu *gpu_of(const mdm_device *device) {
    return ((const mdm_cuda_device *)device)->gpu;
}

/* ---- messages ---- */

static mdm_status make_room(mdm_message *m, size_t bytes, const char *what) {
    MDM_TRY(mdm_device_allocate(m->device, bytes, what, &m->memory));
    m->host = m->memory;
    if (!m->device->info.is_cuda) return MDM_OK;
    m->host = NULL;
    MDM_TRY(mdm_gpu_create_mark(gpu_of(m->device), &m->read));
    return mdm_gpu_pin(gpu_of(m->device), bytes, what, &m->host);
}

mdm_status mdm_message_create(mdm_device *device, size_t bytes, const char *what, mdm_message **out) {
    mdm_message *m;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(m, 1, what));
    m->device = device;
    mdm_status status = make_room(m, bytes, what);
    if (status != MDM_OK) {
        mdm_message_destroy(m);
        return status;
    }
    *out = m;
    return MDM_OK;
}

void mdm_message_destroy(mdm_message *m) {
    if (!m) return;
    if (m->device->info.is_cuda) {
        mdm_gpu_destroy_mark(gpu_of(m->device), m->read);
        mdm_gpu_unpin(gpu_of(m->device), m->host);
    }
    mdm_device_free(m->device, m->memory);
    free(m);
}

mdm_status mdm_message_begin(mdm_message *m, void **host) {
    *host = m->host;
    if (!m->device->info.is_cuda) return MDM_OK;
    MDM_TRY(mdm_gpu_record(gpu_of(m->device), MDM_GPU_COMPUTING, m->read));
    return mdm_gpu_await(gpu_of(m->device), m->read);
}

void *mdm_message_memory(const mdm_message *message) {
    return message->memory;
}

mdm_status mdm_message_send(mdm_message *m, size_t bytes) {
    if (!m->device->info.is_cuda) return MDM_OK;
    return mdm_gpu_send(gpu_of(m->device), MDM_GPU_COMPUTING, m->memory, m->host, bytes);
}

/* ---- recordings ---- */

int mdm_device_can_record(const mdm_device *device) {
    return device->info.is_cuda;
}

int64_t mdm_device_frees(const mdm_device *device) {
    return device->info.is_cuda ? mdm_gpu_frees(gpu_of(device)) : 0;
}

int mdm_device_recording_ways(const mdm_device *device) {
    return !device->info.is_cuda                      ? 0
           : mdm_gpu_can_launch_early(gpu_of(device)) ? MDM_RECORDING_WAYS
                                                      : MDM_RECORD_EARLY;
}

static void set_way(mdm_device *device, int way) {
    mdm_cuda_turn_beside(mdm_cuda(device), (way & MDM_RECORD_BESIDE) != 0);
    mdm_gpu_launch_early(gpu_of(device), (way & MDM_RECORD_EARLY) != 0);
}

mdm_status mdm_recording_begin(mdm_device *device, int way) {
    if (!device->info.is_cuda) return mdm_fail(MDM_USAGE, "%s records no steps", device->info.name);
    MDM_TRY(mdm_gpu_begin_graph(gpu_of(device)));
    set_way(device, way);
    return MDM_OK;
}

mdm_status mdm_recording_end(mdm_device *device, int keep, mdm_recording **out) {
    mdm_recording *r;
    *out = NULL;
    mdm_status status = MDM_ALLOCATE(r, 1, "a recorded step");
    mdm_gpu_graph *graph;
    if (status != MDM_OK) keep = 0;
    set_way(device, 0);
    mdm_status ended = mdm_gpu_end_graph(gpu_of(device), keep, &graph);
    if (status == MDM_OK) status = ended;
    if (status != MDM_OK || !graph) {
        free(r);
        return status;
    }
    *r = (mdm_recording){device, graph};
    *out = r;
    return MDM_OK;
}

mdm_status mdm_recording_replay(mdm_recording *r, int is_timed) {
    if (mdm_cuda(r->device)->nccl) mdm_nccl_expect_replay(mdm_cuda(r->device)->nccl);
    return mdm_gpu_launch_graph(gpu_of(r->device), r->graph, is_timed);
}

mdm_status mdm_recording_milliseconds(mdm_device *device, double *milliseconds) {
    return mdm_gpu_graph_milliseconds(gpu_of(device), milliseconds);
}

void mdm_recording_destroy(mdm_recording *r) {
    if (!r) return;
    mdm_gpu_destroy_graph(gpu_of(r->device), r->graph);
    free(r);
}
