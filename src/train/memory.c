/* From settings, data and ranks to the memory that the run will take, and to a refusal that names the way out
 * when that is more than there is. */
#include "mdm/base/log.h"
#include "mdm/base/machine.h"
#include "mdm/device/neighbours.h"
#include "mdm/device/views.h"
#include "trainer.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct need {
    double networks, activations, plans, images, samples; /* bytes of a rank */
    double data, saving;                                  /* bytes once a node */
    double device;   /* of a CUDA device's own memory; the first three then count for the host no more */
    double search;   /* of these, a division's embeddings and the search of their neighbours */
    double recorded; /* and of these, recorded steps */
} need;

/* The largest slice of a global step that one rank gets, where n samples are cut into batches. */
static double slice_rows(const mdm_trainer *t, int batch) {
    int64_t steps = mdm_step_count(t->training_count, batch);
    return (double)((t->training_count / steps + 1) / mdm_comm_size(t->comm) + 1);
}

static double pictures_of(const mdm_trainer *t) {
    const mdm_store_info *d = t->data;
    return (double)(d->train_count + d->test_count) * d->channels * d->height * d->width;
}

/* What mdm/device/neighbours.h and src/divide/knn_device.c take: rows in single and half precision, once more
 * those of visiting ranks, candidates, answers and a tile. */
static double search_bytes(const mdm_trainer *t) {
    const double tile = 64 << 20;
    double width = t->layout->embedding, k = t->config.divide.k, ranks = mdm_comm_size(t->comm);
    double rows = (double)t->data->train_count / ranks + 1;
    double own = t->config.divide.ood_neighbours == MDM_CONFIG_OOD_NEIGHBOURS_CLEAN ? 8 : 6; /* visit, too */
    return rows * ((ranks > 1 ? 16 : own) * width + 16 * (2 * k + MDM_NEIGHBOUR_SPARE) + 12 * k + 64) + tile;
}

/* Of recorded steps, of which MixEMatch's are the longest: its passes, joined or in so many chunks, of which
 * all but the last are passed through once more on the way back, and the other network's guesses of half as
 * many rows. */
static double recorded_bytes(const mdm_trainer *t, double chunks) {
    const mdm_semi_options options = mdm_semi_options_of(&t->config);
    double passes = mdm_semi_passes(&options), guesses = t->network_count - 1;
    if (mdm_executor_is_joined(t->executor))
        return mdm_recorder_bytes(t->recorder, t->layout, 1 + guesses, 1);
    return mdm_recorder_bytes(t->recorder, t->layout,
                              passes * chunks + (passes - 1) * (chunks - 1) + guesses * ceil(chunks / 2),
                              (passes - 1) * chunks);
}

/* What is known of all samples on every rank, and of its slice while it divides: embeddings as they are, of
 * unit length and travelling, and the lists of the neighbour search; and with the last predictions, their
 * counts by class. */
static double sample_bytes(const mdm_trainer *t) {
    double count = (double)t->data->train_count, slice = count / mdm_comm_size(t->comm),
           width = t->layout->embedding, classes = t->data->classes, k = t->config.divide.k;
    return count * (21.0 * t->network_count + 42) + slice * (4 * (3 * width + classes) + 40 * k + 96) +
           8 * classes * classes;
}

/* What rank 0 collects with divide.save=all, and puts together to a file in memory twice over. */
static double saved_bytes(const mdm_trainer *t) {
    double row = t->network_count * ((double)t->layout->embedding + t->data->classes);
    return t->config.divide.save == MDM_CONFIG_SAVE_ALL ? 3 * 4 * row * (double)t->data->train_count : 0;
}

/* With batches computed at most `chunk` samples a rank at once (0: no limit). */
static need estimate(const mdm_trainer *t, double chunk) {
    const mdm_config *c = &t->config;
    const mdm_store_info *d = t->data;
    need n = {0};
    double weights = 4.0 * (double)t->layout->weight_count, count = (double)d->train_count;
    double image = (double)d->channels * d->height * d->width, ranks = mdm_comm_size(t->comm);
    double train = slice_rows(t, c->train.batch);
    double pretrain = c->pretrain.epochs > 0 ? slice_rows(t, c->pretrain.batch) : 0;
    double rows = 4 * train > 2 * pretrain ? 4 * train : 2 * pretrain, at_once = rows;
    int copies = t->network_count * (c->model.ema > 0 ? 2 : 1) + (t->baseline != NULL);
    double evaluation = count / ranks < 256 ? count / ranks : 256;
    const mdm_semi_options options = mdm_semi_options_of(c);
    double joined = 4 * train * (mdm_executor_is_joined(t->executor) ? mdm_semi_passes(&options) : 1);
    if (chunk > 0 && at_once > 4 * chunk) at_once = 4 * chunk;
    if (chunk > 0 && evaluation > 4 * chunk) evaluation = 4 * chunk;
    n.networks = 3.0 * weights * copies;
    n.saving = 2.0 * weights * copies + saved_bytes(t); /* weights and momentum, for the thread that saves */
    if (chunk == 0 && at_once < joined) at_once = joined;
    n.activations =
        (double)mdm_executor_bytes(t->executor, (int)(at_once > evaluation ? at_once : evaluation));
    /* Each plan's convolutions keep the weights in the layouts their algorithms want, and steps of two sizes
     * in each stage have plans of their own: about ten plans, three or four copies in each. */
    n.plans = 10 * 3.5 * weights;
    if (t->deterministic) { /* two sizes of shards in each stage for each thread, the shards' gradients of the
                             * largest tensor, and sums of whole numbers */
        n.plans += (3.0 * 2 * t->threads + 0.25 * MDM_SHARDS / ranks) * weights;
        n.networks += 2.0 * weights * (t->network_count + (t->baseline != NULL));
    }
    n.images = 4.0 * image * (3 * rows + evaluation) + 4.0 * image * rows;
    n.samples = sample_bytes(t);
    if (d->resident && !t->on_device) n.data = (count + (double)d->test_count) * image;
    if (mdm_device_get_info(t->device)->is_cuda) {
        n.plans = weights * (copies + 1); /* filters, which all plans share, and their gradients */
        double listed = 8 * train > 2 * pretrain ? 8 * train : 2 * pretrain; /* pictures of a step */
        n.device = n.networks / 3 * 4 + n.activations + n.plans + 4.0 * image * (3 * rows + evaluation) +
                   (double)mdm_tensor_bytes(t->device, (int)at_once, d->channels, d->height, d->width,
                                            t->precision) +
                   (double)mdm_view_scratch_bytes(d->height, d->width, d->channels) +
                   (t->on_device ? pictures_of(t) : 2 * image * listed);
        n.search = t->searches_on_device ? search_bytes(t) : 0;
        double share = train > pretrain ? train : pretrain;
        n.recorded = recorded_bytes(t, chunk > 0 ? ceil(share / chunk) : 1);
        n.device += n.search + n.recorded;
        n.activations = n.plans = 0;
        n.images = t->on_device ? 0 : image * listed * (d->resident ? 2 : 4);
    }
    return n;
}

static const double mebibyte = 1 << 20, cuda_libraries = 1 << 30; /* CUDA's and cuDNN's own, and scratch */

/* The passes of a step of MixEMatch are joined where that fits. That decides on the last bits of what a run
 * computes, so all that does not gives way first: it counts as if it had. Collective. */
static mdm_status join_passes(mdm_trainer *t) {
    const mdm_device_info *info = mdm_device_get_info(t->device);
    const mdm_semi_options options = mdm_semi_options_of(&t->config);
    double rows = 4 * slice_rows(t, t->config.train.batch), memory = (double)info->memory_bytes / mebibyte;
    int can = t->config.train.micro_batch == 0 && t->config.train.epochs > t->config.train.warmup &&
              mdm_executor_can_join(t->executor, (int64_t)rows, mdm_semi_passes(&options));
    mdm_executor_set_joined(t->executor, can);
    need n = estimate(t, 0);
    double wanted = (n.device - n.search - n.recorded + cuda_libraries) / mebibyte;
    int32_t fits = can && wanted <= memory;
    MDM_TRY(mdm_comm_all_reduce(t->comm, &fits, 1, MDM_INT32, MDM_MIN));
    mdm_executor_set_joined(t->executor, fits);
    if (can && !fits)
        mdm_info(
            "the passes of a step of MixEMatch are made one after another: joined, the run would need %.0f "
            "MiB of the %.0f MiB of %s",
            wanted, memory, info->name);
    return MDM_OK;
}

/* Whether pictures lie on the devices: where every rank's has room for them beside the rest. Collective. */
static mdm_status place_pictures(mdm_trainer *t) {
    const mdm_device_info *info = mdm_device_get_info(t->device);
    int wanted = t->config.data.resident == MDM_CONFIG_RESIDENT_DEVICE;
    if (wanted && !info->is_cuda)
        return mdm_fail(MDM_USAGE,
                        "data.resident=device needs a CUDA device, and the run computes on %s; use "
                        "auto, host or stream",
                        info->name);
    if (!info->is_cuda || (!wanted && t->config.data.resident != MDM_CONFIG_RESIDENT_AUTO)) return MDM_OK;
    t->on_device = 1;
    need n = estimate(t, 0);
    double pictures = pictures_of(t) / mebibyte, rest = (n.device + cuda_libraries) / mebibyte - pictures,
           memory = (double)info->memory_bytes / mebibyte;
    int32_t fits = pictures + rest <= memory;
    MDM_TRY(mdm_comm_all_reduce(t->comm, &fits, 1, MDM_INT32, MDM_MIN));
    t->on_device = fits;
    if (fits) return MDM_OK;
    if (wanted)
        return mdm_fail(MDM_RESOURCE,
                        "data.resident=device: the pictures' %.0f MiB and the run's %.0f MiB do not fit each "
                        "%s's %.0f MiB; use auto, or a smaller train.batch or model.width, or more ranks",
                        pictures, rest, info->name, memory);
    mdm_info("pictures (%.0f MiB) are sent to the device step by step: beside the run's %.0f MiB they do not "
             "fit the %.0f MiB of %s",
             pictures, rest, memory, info->name);
    return MDM_OK;
}

/* The processors search for neighbours where one device has no room for it, the pictures in their place.
 * Collective. */
static mdm_status place_search(mdm_trainer *t) {
    const mdm_device_info *info = mdm_device_get_info(t->device);
    if (!t->searches_on_device) return MDM_OK;
    need n = estimate(t, 0);
    double search = n.search / mebibyte, rest = (n.device + cuda_libraries) / mebibyte - search,
           memory = (double)info->memory_bytes / mebibyte;
    int32_t fits = search + rest <= memory;
    MDM_TRY(mdm_comm_all_reduce(t->comm, &fits, 1, MDM_INT32, MDM_MIN));
    t->searches_on_device = fits;
    if (!fits)
        mdm_warn("divisions search for neighbours on the processors: beside the run's %.0f MiB the "
                 "embeddings and what the search takes (%.0f MiB) do not fit the %.0f MiB of %s",
                 rest, search, memory, info->name);
    return MDM_OK;
}

/* Steps are launched where there is no room for them recorded, all the rest in its place. Collective. */
static mdm_status place_recordings(mdm_trainer *t, double chunk) {
    const mdm_device_info *info = mdm_device_get_info(t->device);
    need n = estimate(t, chunk);
    double wanted = (n.device + cuda_libraries) / mebibyte, memory = (double)info->memory_bytes / mebibyte;
    int32_t fits = wanted <= memory;
    if (!mdm_recorder_is_on(t->recorder)) return MDM_OK;
    MDM_TRY(mdm_comm_all_reduce(t->comm, &fits, 1, MDM_INT32, MDM_MIN));
    if (fits) return MDM_OK;
    mdm_recorder_turn_off(t->recorder);
    mdm_info("steps are launched kernel by kernel: beside the run's %.0f MiB what recorded ones may take "
             "(%.0f MiB) does not fit the %.0f MiB of %s",
             wanted - n.recorded / mebibyte, n.recorded / mebibyte, memory, info->name);
    return MDM_OK;
}

static mdm_status check_device(const mdm_trainer *t, const need *n) {
    const mdm_device_info *info = mdm_device_get_info(t->device);
    double wanted = (n->device + cuda_libraries) / mebibyte, memory = (double)info->memory_bytes / mebibyte;
    if (!info->is_cuda) return MDM_OK;
    if (t->options.dry_run)
        mdm_info("memory: about %.0f MiB on %s, which has %.0f MiB%s", wanted, info->name, memory,
                 t->on_device ? "; all pictures are among them" : "");
    if (t->options.dry_run && n->recorded > 0)
        mdm_info("memory: of these %.0f MiB are set aside for recorded steps (train.cuda_graph)",
                 n->recorded / mebibyte);
    if (wanted <= memory) return MDM_OK;
    return mdm_fail(MDM_RESOURCE,
                    "the run needs about %.0f MiB on each %s, which has %.0f MiB; a smaller train.batch, "
                    "pretrain.batch or model.width, or more ranks, would shrink it",
                    wanted, info->name, memory);
}

/* What a node holds once, whatever its number of ranks. */
static double of_node(const need *n) {
    return n->data + n->saving;
}

static double of_rank(const need *n) {
    const double libraries = 140 << 20; /* MPI, HDF5, oneDNN and the program itself: measured */
    return libraries + n->networks + n->activations + n->plans + n->images + n->samples;
}

/* How many samples at once: train.micro_batch, or for auto all, halved until the run fits. */
static double choose_chunk(const mdm_trainer *t, int node, double limit) {
    double chunk = t->config.train.micro_batch, share = slice_rows(t, t->config.train.batch);
    if (chunk > 0 || t->deterministic || limit < 0) return chunk;
    if (t->config.pretrain.epochs > 0 && slice_rows(t, t->config.pretrain.batch) > share)
        share = slice_rows(t, t->config.pretrain.batch);
    need n = estimate(t, 0);
    double aim =
        of_rank(&n) * node + of_node(&n) <= limit ? limit : 0.7 * limit; /* an estimate is no promise */
    while (of_rank(&n) * node + of_node(&n) > aim && share > 2) {
        chunk = share = floor(share / 2);
        n = estimate(t, chunk);
    }
    return of_rank(&n) * node + of_node(&n) > limit ? 0 : chunk;
}

/* deterministic=auto computes whole batches only: it gives way where they do not fit some node. */
static mdm_status give_way(mdm_trainer *t, int node, double limit) {
    if (!t->deterministic || t->config.deterministic != MDM_CONFIG_DETERMINISTIC_AUTO) return MDM_OK;
    need n = estimate(t, 0);
    int32_t fits = limit < 0 || of_rank(&n) * node + of_node(&n) <= limit;
    MDM_TRY(mdm_comm_all_reduce(t->comm, &fits, 1, MDM_INT32, MDM_MIN));
    t->deterministic = fits;
    return MDM_OK;
}

mdm_status mdm_check_memory(mdm_trainer *t) {
    char source[256];
    t->searches_on_device =
        mdm_device_get_info(t->device)->is_cuda && t->config.divide.k <= MDM_NEIGHBOURS_MOST;
    MDM_TRY(join_passes(t));
    MDM_TRY(place_pictures(t));
    MDM_TRY(place_search(t));
    int node = mdm_comm_node_size(t->comm);
    double limit = mdm_memory_limit(source, sizeof source);
    MDM_TRY(give_way(t, node, limit));
    double chunk = choose_chunk(t, node, limit);
    double parts = chunk > 0 ? -chunk : -INFINITY; /* every node computes in the smallest node's parts */
    MDM_TRY(mdm_comm_all_reduce(t->comm, &parts, 1, MDM_DOUBLE, MDM_MAX));
    chunk = isfinite(parts) ? -parts : 0;
    if (chunk > 0 && t->config.train.micro_batch == 0)
        mdm_warn("memory is short: batches are computed in parts, as train.micro_batch=%.0f would, and batch "
                 "norm takes the statistics of a part",
                 chunk);
    if (chunk > 0) mdm_executor_set_joined(t->executor, 0);
    mdm_executor_set_chunks(t->executor, (int64_t)chunk);
    MDM_TRY(place_recordings(t, chunk));
    need n = estimate(t, chunk);
    MDM_TRY(check_device(t, &n));
    double wanted = of_rank(&n) * node + of_node(&n);
    if (t->options.dry_run)
        mdm_info("memory: about %.0f MiB a rank (activations %.0f, networks %.0f, convolutions %.0f, "
                 "pictures of a "
                 "step %.0f, samples' scores and embeddings %.0f)%s",
                 of_rank(&n) / mebibyte, n.activations / mebibyte, n.networks / mebibyte, n.plans / mebibyte,
                 n.images / mebibyte, n.samples / mebibyte,
                 n.data > 0 ? ", and once a node the pictures and a copy of the networks to save"
                            : ", and once a node a copy of the networks to save");
    if (t->options.dry_run)
        mdm_info("memory: about %.0f MiB on a node of %d rank%s; it has %.0f MiB (%s)", wanted / mebibyte,
                 node, node > 1 ? "s" : "", limit / mebibyte, source);
    if (limit < 0 || wanted <= limit) return MDM_OK;
    const char *largest = n.activations >= n.data && n.activations >= n.samples
                              ? "a smaller train.micro_batch, train.batch or model.width"
                          : n.data >= n.samples ? "data.resident=stream"
                                                : "fewer samples in data.train";
    return mdm_fail(MDM_RESOURCE,
                    "the run needs about %.0f MiB on this node for %d rank%s, but there are %.0f MiB (%s); "
                    "%s would shrink "
                    "it most, or use more nodes",
                    wanted / mebibyte, node, node > 1 ? "s" : "", limit / mebibyte, source, largest);
}
