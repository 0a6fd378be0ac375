/* The values of one network: fresh weights, copies, the momentum step. */
#include "mdm/model/network.h"
#include "mdm/base/random.h"
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* Versions are unique over all networks of the process, so a prepared copy is never mistaken for another's.
 */
static atomic_ullong next_version = 1;

static void renew(mdm_network *network) {
    network->version = atomic_fetch_add(&next_version, 1);
}

/* The same where filters moved with the weights, if they held them. */
static void renew_with_filters(mdm_network *network) {
    int held = network->filters && network->filtered == network->version;
    renew(network);
    if (held) network->filtered = network->version;
}

void mdm_network_touch(mdm_network *network) {
    network->host_is_newer = 1;
    renew(network);
}

static int ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* Fan in of the tensor that sets the bound: a bias takes that of its weight, the tensor before it. */
static double uniform_bound(const mdm_layout *layout, int tensor) {
    const mdm_tensor_info *t = &layout->tensors[tensor];
    if (t->rank == 1) t = &layout->tensors[tensor - 1];
    double fan_in = 1;
    for (int i = 1; i < t->rank; i++) fan_in *= (double)t->dims[i];
    return 1.0 / sqrt(fan_in);
}

/* Batch norm's tensors are those that a vector-shaped weight leads: gamma 1, beta 0, mean 0, variance 1. */
static int is_norm(const mdm_layout *layout, int tensor) {
    const mdm_tensor_info *t = &layout->tensors[tensor];
    if (t->rank != 1) return 0;
    return ends_with(t->name, ".weight") || (tensor > 0 && layout->tensors[tensor - 1].rank == 1);
}

static void draw_weights(mdm_network *network, uint64_t seed, int number) {
    const mdm_layout *layout = network->layout;
    for (int i = 0; i < layout->tensor_count; i++) {
        const mdm_tensor_info *t = &layout->tensors[i];
        if (t->role == MDM_TENSOR_STATISTIC) {
            float value = ends_with(t->name, "running_var") ? 1.0f : 0.0f;
            for (int64_t j = 0; j < t->count; j++) network->statistics[t->offset + j] = value;
        } else if (is_norm(layout, i)) {
            float value = ends_with(t->name, ".weight") ? 1.0f : 0.0f;
            for (int64_t j = 0; j < t->count; j++) network->weights[t->offset + j] = value;
        } else {
            mdm_random random = mdm_random_stream(seed, MDM_RANDOM_WEIGHTS, 0, (uint64_t)i, (uint32_t)number);
            double bound = uniform_bound(layout, i);
            for (int64_t j = 0; j < t->count; j++)
                network->weights[t->offset + j] = (float)((2.0 * mdm_random_open(&random) - 1.0) * bound);
        }
    }
}

mdm_status mdm_network_create(const mdm_layout *layout, uint64_t seed, int number, mdm_network **out) {
    mdm_network *network;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(network, 1, "a network"));
    network->layout = layout;
    mdm_status status;
    MDM_TRY_OR(status, MDM_ALLOCATE(network->weights, layout->weight_count, "weights"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(network->gradient, layout->weight_count, "gradients"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(network->velocity, layout->weight_count, "momentum"), failed);
    MDM_TRY_OR(status, MDM_ALLOCATE(network->statistics, layout->statistic_count, "running statistics"),
               failed);
    network->home.weights = network->weights;
    network->home.gradient = network->gradient;
    network->home.velocity = network->velocity;
    network->home.statistics = network->statistics;
    draw_weights(network, seed, number);
    mdm_network_touch(network);
    *out = network;
    return MDM_OK;
failed:
    mdm_network_destroy(network);
    return status;
}

void mdm_network_destroy(mdm_network *network) {
    if (!network) return;
    if (network->device) {
        mdm_filters_destroy(network->filters);
        mdm_device_free(network->device, network->home.weights);
        mdm_device_free(network->device, network->home.gradient);
        mdm_device_free(network->device, network->home.velocity);
        mdm_device_free(network->device, network->home.statistics);
    }
    free(network->weights);
    free(network->gradient);
    free(network->velocity);
    free(network->statistics);
    mdm_grid_sums_free(&network->gradient_sums);
    free(network);
}

/* The arrays, twice, with their sizes in bytes. */
typedef struct twin {
    float *host, **on_device;
    size_t bytes;
} twin;

enum { TWINS = 4 };

static void list_twins(mdm_network *network, twin *twins) {
    size_t weights = sizeof(float) * (size_t)network->layout->weight_count;
    size_t statistics = sizeof(float) * (size_t)network->layout->statistic_count;
    twins[0] = (twin){network->weights, &network->home.weights, weights};
    twins[1] = (twin){network->velocity, &network->home.velocity, weights};
    twins[2] = (twin){network->statistics, &network->home.statistics, statistics};
    twins[3] = (twin){network->gradient, &network->home.gradient, weights};
}

mdm_status mdm_network_fetch(mdm_network *network) {
    twin twins[TWINS];
    if (!network->device || !network->device_is_newer) return MDM_OK;
    if (network->host_is_newer)
        return mdm_fail(MDM_LOST, "a network was changed by hand without its values of the device");
    list_twins(network, twins);
    for (int i = 0; i < TWINS; i++)
        MDM_TRY(mdm_device_download(network->device, twins[i].host, *twins[i].on_device, twins[i].bytes));
    network->device_is_newer = 0;
    return MDM_OK;
}

/* From here on the values are on the device: freed there whatever fails. */
static mdm_status settle(mdm_network *network, mdm_device *device, twin *twins) {
    for (int i = 0; i < TWINS; i++) *twins[i].on_device = NULL;
    network->device = device;
    for (int i = 0; i < TWINS; i++) {
        MDM_TRY(mdm_device_allocate(device, twins[i].bytes,
                                    "a network (model.width, model.networks and model.ema set its size)",
                                    (void **)twins[i].on_device));
    }
    network->host_is_newer = 1;
    return MDM_OK;
}

mdm_status mdm_network_send(mdm_network *network, mdm_device *device) {
    twin twins[TWINS];
    if (!mdm_device_get_info(device)->is_cuda) return MDM_OK;
    list_twins(network, twins);
    if (!network->device) MDM_TRY(settle(network, device, twins));
    if (network->device != device)
        return mdm_fail(MDM_LOST, "a network cannot be computed with on two devices");
    if (!network->host_is_newer) return MDM_OK;
    if (network->device_is_newer)
        return mdm_fail(MDM_LOST, "a network was changed by hand without its values of the device");
    for (int i = 0; i < TWINS - 1; i++) /* not the gradient: it is never made by hand */
        MDM_TRY(mdm_device_upload(device, *twins[i].on_device, twins[i].host, twins[i].bytes));
    network->host_is_newer = 0;
    return MDM_OK;
}

static mdm_status create_filters(mdm_network *network, mdm_precision precision) {
    const mdm_layout *layout = network->layout;
    mdm_filter_shape *shapes;
    int count = 0;
    MDM_TRY(MDM_ALLOCATE(shapes, layout->layer_count + 1, "a network's filters"));
    for (int tensor = 0; tensor < layout->tensor_count; tensor++) /* in the weights' order */
        for (int i = 0; i < layout->layer_count; i++) {
            const mdm_layer *l = &layout->layers[i];
            if (l->kind == MDM_LAYER_CONVOLUTION && l->weight == tensor)
                shapes[count++] = (mdm_filter_shape){layout->tensors[tensor].offset, l->in_channels,
                                                     l->out_channels, l->kernel};
        }
    mdm_status status = mdm_filters_create(network->device, shapes, count, layout->encoder_count, precision,
                                           &network->filters);
    free(shapes);
    return status;
}

mdm_status mdm_network_make_filters(mdm_network *network, mdm_precision precision) {
    if (!network->device) return MDM_OK;
    if (!network->filters)
        MDM_TRY(create_filters(network, precision));
    else if (network->filtered == network->version)
        return MDM_OK;
    mdm_filters_make(network->filters, network->home.weights);
    network->filtered = network->version;
    return MDM_OK;
}

mdm_status mdm_network_copy(mdm_network *to, mdm_network *from) {
    MDM_TRY(mdm_network_fetch(from));
    MDM_TRY(mdm_network_fetch(to)); /* its momentum stays */
    memcpy(to->weights, from->weights, (size_t)from->layout->weight_count * sizeof(float));
    memcpy(to->statistics, from->statistics, (size_t)from->layout->statistic_count * sizeof(float));
    mdm_network_touch(to);
    return MDM_OK;
}

mdm_status mdm_network_clear_velocity(mdm_network *network) {
    MDM_TRY(mdm_network_fetch(network));
    memset(network->velocity, 0, sizeof(float) * (size_t)network->layout->weight_count);
    mdm_network_touch(network);
    return MDM_OK;
}

static void clear_gradient_from(mdm_network *network, int64_t first) {
    size_t bytes = sizeof(float) * (size_t)(network->layout->weight_count - first);
    if (network->device)
        mdm_device_zero(network->device, network->home.gradient + first, bytes);
    else
        memset(network->gradient + first, 0, bytes);
}

void mdm_network_clear_gradient(mdm_network *network) {
    clear_gradient_from(network, 0);
    if (network->gradient_sums.whole) mdm_grid_sums_clear(&network->gradient_sums);
}

void mdm_network_clear_heads_gradient(mdm_network *network) {
    clear_gradient_from(network, network->layout->encoder_count);
}

void mdm_network_moved(mdm_network *network) {
    network->device_is_newer = network->device != NULL;
    renew_with_filters(network);
}

void mdm_network_step(mdm_device *device, mdm_network *network, int roles, const mdm_step_orders *orders,
                      const double *verdict, float momentum, float weight_decay) {
    const mdm_layout *layout = network->layout;
    int64_t projection = layout->tensors[layout->projection_weight].offset,
            head = roles & MDM_STEP_CLASSIFIER ? layout->encoder_count : projection,
            end = roles & MDM_STEP_PROJECTION ? layout->weight_count : projection;
    const struct {
        int64_t first, end;
        const float *rate;
    } parts[2] = {{0, roles & MDM_STEP_ENCODER ? layout->encoder_count : 0, &orders->rate_encoder},
                  {head, end, &orders->rate_heads}};
    for (int i = 0; i < 2; i++) {
        int64_t first = parts[i].first, count = parts[i].end - first;
        if (count <= 0) continue;
        if (first == 0 && network->filters)
            mdm_filters_step(network->filters, network->home.weights, network->home.gradient,
                             network->home.velocity, parts[i].rate, momentum, weight_decay, verdict);
        else
            mdm_sgd_step(device, network->home.weights + first, network->home.gradient + first,
                         network->home.velocity + first, count, parts[i].rate, momentum, weight_decay,
                         verdict);
    }
    mdm_network_moved(network);
}

mdm_status mdm_network_average(mdm_device *device, mdm_network *average, mdm_network *network, float decay) {
    const mdm_layout *l = network->layout;
    MDM_TRY(mdm_network_send(network, device));
    MDM_TRY(mdm_network_send(average, device));
    mdm_average_step(device, average->home.weights, network->home.weights, l->weight_count, decay);
    mdm_average_step(device, average->home.statistics, network->home.statistics, l->statistic_count, decay);
    average->device_is_newer = average->device != NULL;
    renew(average);
    return MDM_OK;
}

void mdm_network_square_gradient(mdm_device *device, const mdm_network *network, double *square) {
    mdm_sum_squares(device, network->home.gradient, network->layout->weight_count, square);
}

void mdm_network_save_statistics(mdm_device *device, const mdm_network *network, float *saved) {
    mdm_device_copy(device, saved, network->home.statistics,
                    sizeof(float) * (size_t)network->layout->statistic_count);
}

void mdm_network_restore_statistics(mdm_device *device, mdm_network *network, const float *saved) {
    mdm_device_copy(device, network->home.statistics, saved,
                    sizeof(float) * (size_t)network->layout->statistic_count);
    network->device_is_newer = network->device != NULL;
    renew_with_filters(network);
}

const char *mdm_network_bad_gradient(const mdm_network *network) {
    const mdm_layout *layout = network->layout;
    for (int i = 0; i < layout->tensor_count; i++) {
        const mdm_tensor_info *t = &layout->tensors[i];
        for (int64_t j = 0; t->role != MDM_TENSOR_STATISTIC && j < t->count; j++)
            if (!isfinite(network->gradient[t->offset + j])) return t->name;
    }
    return NULL;
}

int mdm_network_not_finite(const mdm_network *network, const char **tensor) {
    const mdm_layout *layout = network->layout;
    for (int i = 0; i < layout->tensor_count; i++) {
        const mdm_tensor_info *t = &layout->tensors[i];
        const float *values =
            (t->role == MDM_TENSOR_STATISTIC ? network->statistics : network->weights) + t->offset;
        for (int64_t j = 0; j < t->count; j++)
            if (!isfinite(values[j])) {
                *tensor = t->name;
                return 1;
            }
    }
    return 0;
}

double mdm_cosine_rate(double rate, double epoch, double epochs) {
    return epochs <= 0 ? rate : 0.5 * rate * (1.0 + cos(pi * epoch / epochs));
}
