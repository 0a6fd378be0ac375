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

void mdm_network_touch(mdm_network *network) {
    network->version = atomic_fetch_add(&next_version, 1);
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
    free(network->weights);
    free(network->gradient);
    free(network->velocity);
    free(network->statistics);
    free(network);
}

void mdm_network_copy(mdm_network *to, const mdm_network *from) {
    memcpy(to->weights, from->weights, (size_t)from->layout->weight_count * sizeof(float));
    memcpy(to->statistics, from->statistics, (size_t)from->layout->statistic_count * sizeof(float));
    mdm_network_touch(to);
}

void mdm_network_step(mdm_device *device, mdm_network *network, int roles, float rate_encoder,
                      float rate_heads, float momentum, float weight_decay) {
    const mdm_layout *layout = network->layout;
    int64_t classifier = layout->encoder_count,
            projection = layout->tensors[layout->projection_weight].offset;
    struct {
        int role;
        int64_t first, end;
        float rate;
    } parts[3] = {{MDM_STEP_ENCODER, 0, classifier, rate_encoder},
                  {MDM_STEP_CLASSIFIER, classifier, projection, rate_heads},
                  {MDM_STEP_PROJECTION, projection, layout->weight_count, rate_heads}};
    for (int i = 0; i < 3; i++)
        if (roles & parts[i].role)
            mdm_sgd_step(device, network->weights + parts[i].first, network->gradient + parts[i].first,
                         network->velocity + parts[i].first, parts[i].end - parts[i].first, parts[i].rate,
                         momentum, weight_decay);
    mdm_network_touch(network);
}

static void average_array(float *average, const float *values, int64_t count, float decay) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) average[i] += (1.0f - decay) * (values[i] - average[i]);
}

void mdm_network_average(mdm_network *average, const mdm_network *network, float decay) {
    average_array(average->weights, network->weights, network->layout->weight_count, decay);
    average_array(average->statistics, network->statistics, network->layout->statistic_count, decay);
    mdm_network_touch(average);
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
