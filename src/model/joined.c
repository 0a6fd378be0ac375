/* Joined passes: the encoder takes the rows of all of them, one pass behind the other, and the heads take
 * each pass by itself. Backward leaves out the first. */
#include "executor.h"

/* Elements of a tensor that convolutions take for certain: their libraries count in 32 bits. */
static const double most_elements = 2147483647.0;

int mdm_executor_can_join(const mdm_executor *executor, int64_t rows, int passes) {
    const mdm_layout *layout = executor->layout;
    if (executor->shares_memory || executor->reproducible || executor->chunks.samples > 0) return 0;
    for (int i = 0; i < layout->buffer_count; i++) {
        const mdm_buffer_info *b = &layout->buffers[i];
        if ((double)rows * passes * b->channels * b->height * b->width > most_elements) return 0;
    }
    return 1;
}

void mdm_executor_set_joined(mdm_executor *executor, int is_joined) {
    executor->is_joined = is_joined;
}

int mdm_executor_is_joined(const mdm_executor *executor) {
    return executor->is_joined;
}

static plan *find_joined(const mdm_executor *executor, int rows, int passes) {
    for (int i = 0; i < executor->plan_count; i++)
        if (executor->plans[i]->rows == rows && executor->plans[i]->passes == passes && passes > 1)
            return executor->plans[i];
    return NULL;
}

mdm_status mdm_executor_plan_joined(mdm_executor *executor, int rows, int passes) {
    const plan empty = {.rows = rows, .passes = passes};
    if (!mdm_executor_can_join(executor, rows, passes) || passes < 2 || passes > MDM_JOINED_PASSES)
        return mdm_fail(MDM_USAGE, "%d passes of %d rows cannot be joined on this device", passes, rows);
    MDM_TRY(mdm_executor_plan_heads(executor, passes * rows));
    return find_joined(executor, rows, passes) ? MDM_OK : mdm_executor_add_plan(executor, &empty);
}

/* The heads' matrices from row `first` on. */
static head_buffers heads_from(const mdm_executor *executor, int first) {
    const mdm_network_spec *s = &executor->layout->spec;
    const head_buffers *h = &executor->heads;
    int64_t embedding = (int64_t)first * executor->layout->embedding,
            projection = (int64_t)first * s->projection;
    return (head_buffers){.embedding = h->embedding + embedding,
                          .embedding_gradient = h->embedding_gradient + embedding,
                          .linear = h->linear + projection,
                          .normalised = h->normalised + projection,
                          .projection = h->projection + projection,
                          .linear_gradient = h->linear_gradient + projection,
                          .logits = h->logits + (int64_t)first * s->classes};
}

/* What follows works on all rows of passes [first, first + passes) at once, or on one pass's: a set for each
 * where they have statistics of their own. */
static void work_on_passes(mdm_executor *executor, int first, int passes) {
    int rows = executor->current->rows;
    executor->whole.first = first * rows;
    executor->whole.rows = passes * rows;
    executor->whole.sets = executor->current_uses_batch_statistics ? passes : 1;
    executor->whole.first_set = executor->current_uses_batch_statistics ? first : 0;
}

/* And on matrices that begin with the rows of a pass. */
static void work_on_heads(mdm_executor *executor) {
    work_on_passes(executor, 0, 1);
    executor->whole.heads = executor->current->heads;
}

mdm_status mdm_executor_forward_joined(mdm_executor *executor, mdm_network *network, int rows,
                                       const float *images, mdm_joined_pass *passes, int count) {
    plan *p = find_joined(executor, rows, count), *heads = mdm_executor_find_heads(executor, count * rows);
    norm_mode mode = {.batch = executor->batchnorm != MDM_BATCHNORM_FROZEN, .track = 1, .keep = 1};
    if (!p || !heads)
        return mdm_fail(MDM_LOST, "no plan was made for %d joined passes of %d rows", count, rows);
    executor->chunks.in_chunks = 1;
    MDM_TRY(mdm_executor_begin_pass(executor, network, p));
    MDM_TRY(mdm_executor_lay_parts(executor, rows, 0));
    executor->current_total = mdm_executor_sums_alone(executor) ? rows : mdm_executor_total_rows(executor);
    executor->current_uses_batch_statistics = mode.batch;
    work_on_passes(executor, 0, count);
    MDM_TRY(mdm_executor_forward_layers(executor, network, mode, images));
    executor->whole.heads = heads->heads;
    MDM_TRY(mdm_executor_forward_heads(executor, network));
    work_on_heads(executor);
    for (int i = 0; i < count; i++) {
        head_buffers h = heads_from(executor, i * rows);
        mode.track = i == 0;
        if (passes[i].wants_projection)
            MDM_TRY(mdm_executor_project(executor, network, &h, &executor->head_norm[i], mode));
        passes[i].outputs = (mdm_outputs){h.embedding, h.projection, h.logits};
    }
    return MDM_OK;
}

mdm_status mdm_executor_backward_joined(mdm_executor *executor, mdm_network *network, int rows,
                                        const float *images, const mdm_joined_pass *passes, int count,
                                        int reduce) {
    if (!executor->current || executor->current != find_joined(executor, rows, count))
        return mdm_fail(MDM_LOST, "backward of %d joined passes does not follow their forward", count);
    work_on_heads(executor);
    for (int i = 1; i < count; i++) {
        head_buffers h = heads_from(executor, i * rows);
        MDM_TRY(mdm_executor_backward_heads(executor, network, &h, &executor->head_norm[i],
                                            passes[i].embedding_gradient, passes[i].projection_gradient,
                                            passes[i].logits_gradient, 1));
    }
    work_on_passes(executor, 1, count - 1);
    return mdm_executor_backward_layers(executor, network, images, 0, reduce);
}
