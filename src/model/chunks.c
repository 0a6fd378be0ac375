/* Passes in chunks, where a whole batch's activations would not fit (train.micro_batch).
 *
 * A chunk takes its share of the samples of every group, so that the statistics of its batch norms see the
 * same mixture as the batch's would. Forward goes through all chunks and keeps their outputs only, so that
 * losses are still those of the whole batch; backward computes each chunk again before taking it back (the
 * last one is still there). */
#include "executor.h"

void mdm_executor_set_chunks(mdm_executor *executor, int64_t samples) {
    executor->chunks.samples = samples;
}

/* Chunks of a batch, the same on all ranks. */
static int chunk_count(const mdm_executor *executor) {
    int64_t samples = executor->chunks.samples, ranks = mdm_comm_size(executor->comm);
    int64_t largest = (executor->batch.n + ranks - 1) / ranks; /* slice of a rank */
    return samples <= 0 || largest <= samples ? 1 : (int)((largest + samples - 1) / samples);
}

/* Rows at most of a pass without batch statistics, which may be cut anywhere. */
static int evaluation_rows(const mdm_executor *executor) {
    return (int)(4 * executor->chunks.samples);
}

/* Samples [*first, *first + *count) of the `all` that each group has on this rank. */
static void chunk_range(int64_t all, int chunk, int chunks, int64_t *first, int64_t *count) {
    mdm_comm_slice(all, chunk, chunks, first, count);
}

int64_t mdm_executor_total_rows(const mdm_executor *executor) {
    int ranks = mdm_comm_size(executor->comm);
    int64_t total = 0, first, count, some;
    if (executor->chunks.in_chunks == 1) return executor->batch.groups * executor->batch.n;
    for (int r = 0; r < ranks; r++) {
        mdm_comm_slice(executor->batch.n, r, ranks, &first, &count);
        chunk_range(count, executor->chunks.chunk, executor->chunks.in_chunks, &first, &some);
        total += executor->batch.groups * some;
    }
    return total;
}

static int64_t image_floats(const mdm_executor *executor) {
    const mdm_network_spec *s = &executor->layout->spec;
    return (int64_t)s->channels * s->height * s->width;
}

/* Copies a chunk's rows between an array of all rows [groups, all, width] and one of the chunk's alone. */
static void move_rows(const mdm_executor *executor, int rows, int chunk, int chunks, int64_t width,
                      int gather, float *all, float *mine) {
    int64_t groups = executor->batch.groups, count = rows / groups, first, some;
    chunk_range(count, chunk, chunks, &first, &some);
    for (int64_t g = 0; g < groups; g++) {
        float *from = all + (g * count + first) * width, *to = mine + g * some * width;
        mdm_device_copy(executor->device, gather ? to : from, gather ? from : to,
                        sizeof(float) * (size_t)(some * width));
    }
}

static int chunk_rows(const mdm_executor *executor, int rows, int chunk, int chunks) {
    int64_t groups = executor->batch.groups, first, count;
    chunk_range(rows / groups, chunk, chunks, &first, &count);
    return (int)(groups * count);
}

static mdm_status grow(mdm_executor *executor, float **array, int64_t floats, const char *what) {
    mdm_device_free(executor->device, *array);
    *array = NULL;
    return mdm_device_allocate(executor->device, sizeof(float) * (size_t)floats, what, (void **)array);
}

/* Room for the outputs of `rows` rows and for what one chunk of `most` rows reads. */
static mdm_status reserve(mdm_executor *executor, int rows, int most) {
    chunking *c = &executor->chunks;
    int64_t widths[CHUNK_ARRAYS] = {executor->layout->embedding, executor->layout->spec.projection,
                                    executor->layout->spec.classes};
    if (rows > c->rows) {
        for (int i = 0; i < CHUNK_ARRAYS; i++)
            MDM_TRY(grow(executor, &c->output[i], rows * widths[i], "the outputs of a batch in chunks"));
        c->rows = rows;
    }
    if (most > c->most) {
        MDM_TRY(grow(executor, &c->images, most * image_floats(executor), "the images of a chunk"));
        for (int i = 0; i < CHUNK_ARRAYS; i++)
            MDM_TRY(grow(executor, &c->gradient[i], most * widths[i], "the gradients of a chunk"));
        c->most = most;
    }
    return MDM_OK;
}

mdm_status mdm_executor_plan(mdm_executor *executor, int rows, int forward_only) {
    int chunks = chunk_count(executor), most = 0;
    if (executor->chunks.samples > 0 && forward_only && rows > evaluation_rows(executor)) {
        most = evaluation_rows(executor);
        MDM_TRY(mdm_executor_plan_pass(executor, most, 1));
        MDM_TRY(mdm_executor_plan_pass(executor, rows % most, 1));
        return reserve(executor, rows, most);
    }
    if (chunks == 1 || forward_only) return mdm_executor_plan_pass(executor, rows, forward_only);
    for (int i = 0; i < chunks; i++) {
        int some = chunk_rows(executor, rows, i, chunks);
        MDM_TRY(mdm_executor_plan_pass(executor, some, 0));
        if (some > most) most = some;
    }
    MDM_TRY(mdm_executor_plan_heads(executor, rows));
    return reserve(executor, rows, most);
}

static void give_outputs(const mdm_executor *executor, mdm_outputs *outputs) {
    *outputs =
        (mdm_outputs){executor->chunks.output[0], executor->chunks.output[1], executor->chunks.output[2]};
}

/* Rows one after another: no statistics tie them together. */
static mdm_status evaluate_in_pieces(mdm_executor *executor, mdm_network *network, int rows,
                                     const float *images, mdm_outputs *outputs) {
    int64_t widths[CHUNK_ARRAYS] = {executor->layout->embedding, executor->layout->spec.projection,
                                    executor->layout->spec.classes};
    for (int done = 0, most = evaluation_rows(executor); done < rows; done += most) {
        int some = rows - done < most ? rows - done : most;
        mdm_outputs out;
        MDM_TRY(mdm_executor_forward_pass(executor, network, some, images + done * image_floats(executor),
                                          MDM_PASS_EVALUATE, &out));
        const float *parts[CHUNK_ARRAYS] = {out.embedding, out.projection, out.logits};
        for (int i = 0; i < CHUNK_ARRAYS; i++)
            if (parts[i])
                mdm_device_copy(executor->device, executor->chunks.output[i] + done * widths[i], parts[i],
                                sizeof(float) * (size_t)(some * widths[i]));
    }
    give_outputs(executor, outputs);
    outputs->projection = NULL;
    return MDM_OK;
}

static mdm_status forward_chunk(mdm_executor *executor, mdm_network *network, int rows, int chunk, int chunks,
                                const float *images, mdm_pass pass, mdm_outputs *out) {
    chunking *c = &executor->chunks;
    c->chunk = chunk;
    move_rows(executor, rows, chunk, chunks, image_floats(executor), 1, (float *)images, c->images);
    return mdm_executor_forward_pass(executor, network, chunk_rows(executor, rows, chunk, chunks), c->images,
                                     pass, out);
}

mdm_status mdm_executor_forward(mdm_executor *executor, mdm_network *network, int rows, const float *images,
                                mdm_pass pass, mdm_outputs *outputs) {
    chunking *c = &executor->chunks;
    int chunks = pass == MDM_PASS_EVALUATE ? 1 : chunk_count(executor);
    c->in_chunks = chunks;
    if (pass == MDM_PASS_EVALUATE && c->samples > 0 && rows > evaluation_rows(executor))
        return evaluate_in_pieces(executor, network, rows, images, outputs);
    if (chunks == 1) return mdm_executor_forward_pass(executor, network, rows, images, pass, outputs);
    plan *heads = mdm_executor_find_heads(executor, rows);
    if (!heads) return mdm_fail(MDM_LOST, "no plan was made for %d rows in chunks", rows);
    for (int i = 0; i < chunks; i++) {
        mdm_outputs out;
        MDM_TRY(forward_chunk(executor, network, rows, i, chunks, images, pass, &out));
        move_rows(executor, rows, i, chunks, executor->layout->embedding, 0, c->output[0],
                  (float *)out.embedding);
        move_rows(executor, rows, i, chunks, executor->layout->spec.projection, 0, c->output[1],
                  (float *)out.projection);
        move_rows(executor, rows, i, chunks, executor->layout->spec.classes, 0, c->output[2],
                  (float *)out.logits);
    }
    executor->whole.rows = rows; /* what the classifier alone and sums over rows work on */
    executor->whole.heads = heads->heads;
    give_outputs(executor, outputs);
    return MDM_OK;
}

/* A chunk's rows of a gradient with respect to output `number`; NULL stays NULL. */
static const float *chunk_gradient(mdm_executor *executor, int number, int rows, int chunk, int64_t width,
                                   const float *gradient) {
    chunking *c = &executor->chunks;
    if (!gradient) return NULL;
    move_rows(executor, rows, chunk, c->in_chunks, width, 1, (float *)gradient, c->gradient[number]);
    return c->gradient[number];
}

mdm_status mdm_executor_backward(mdm_executor *executor, mdm_network *network, int rows, const float *images,
                                 const float *embedding_gradient, const float *projection_gradient,
                                 const float *logits_gradient, int accumulate, int reduce) {
    chunking *c = &executor->chunks;
    const mdm_layout *layout = executor->layout;
    if (c->in_chunks == 1)
        return mdm_executor_backward_pass(executor, network, rows, images, embedding_gradient,
                                          projection_gradient, logits_gradient, accumulate, reduce);
    for (int i = c->in_chunks - 1; i >= 0; i--) {
        mdm_outputs out;
        int some = chunk_rows(executor, rows, i, c->in_chunks), is_first = i == c->in_chunks - 1;
        if (!is_first) /* the running statistics have moved already */
            MDM_TRY(forward_chunk(executor, network, rows, i, c->in_chunks, images, MDM_PASS_MIXED, &out));
        executor->whole.rows = some;
        executor->whole.heads = executor->current->heads;
        const float *e = chunk_gradient(executor, 0, rows, i, layout->embedding, embedding_gradient);
        const float *p = chunk_gradient(executor, 1, rows, i, layout->spec.projection, projection_gradient);
        const float *l = chunk_gradient(executor, 2, rows, i, layout->spec.classes, logits_gradient);
        MDM_TRY(mdm_executor_backward_pass(executor, network, some, c->images, e, p, l,
                                           accumulate || !is_first, reduce && i == 0));
    }
    return MDM_OK;
}

void mdm_executor_free_chunks(mdm_executor *executor) {
    chunking *c = &executor->chunks;
    mdm_device_free(executor->device, c->images);
    for (int i = 0; i < CHUNK_ARRAYS; i++) {
        mdm_device_free(executor->device, c->output[i]);
        mdm_device_free(executor->device, c->gradient[i]);
    }
}
