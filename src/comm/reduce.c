/* From every rank's numbers to their sum, minimum or maximum: at once, scattered, or bucket by bucket beside
 * the computation.
 *
 * The same bits on all ranks: Open MPI's all-reduce algorithms either compute an element on one rank and copy
 * it, or combine the same two operands on both sides, and a + b equals b + a. Minimum and maximum do not
 * commute for NaN and for zeros of both signs, so they are made here. (Only the payload of a NaN in a sum may
 * differ.) */
#include "internal.h"

#include <math.h>
#include <string.h>

/* 1 when a comes before b; -0 before +0. */
#define BEFORE(a, b) ((a) < (b) || ((a) == (b) && signbit(a) && !signbit(b)))

#define DEFINE_EXTREMES(type, not_a_number)                                                                  \
    static void least_##type(const type *in, type *inout, int count) {                                       \
        for (int i = 0; i < count; i++)                                                                      \
            if (isnan(in[i]) || isnan(inout[i]))                                                             \
                inout[i] = (not_a_number);                                                                   \
            else if (BEFORE(in[i], inout[i]))                                                                \
                inout[i] = in[i];                                                                            \
    }                                                                                                        \
    static void greatest_##type(const type *in, type *inout, int count) {                                    \
        for (int i = 0; i < count; i++)                                                                      \
            if (isnan(in[i]) || isnan(inout[i]))                                                             \
                inout[i] = (not_a_number);                                                                   \
            else if (BEFORE(inout[i], in[i]))                                                                \
                inout[i] = in[i];                                                                            \
    }
DEFINE_EXTREMES(float, NAN)
DEFINE_EXTREMES(double, (double)NAN)

static void least(void *in, void *inout, int *count, MPI_Datatype *type) {
    if (*type == MPI_FLOAT)
        least_float(in, inout, *count);
    else
        least_double(in, inout, *count);
}

static void greatest(void *in, void *inout, int *count, MPI_Datatype *type) {
    if (*type == MPI_FLOAT)
        greatest_float(in, inout, *count);
    else
        greatest_double(in, inout, *count);
}

mdm_status mdm_comm_make_operations(mdm_comm *comm) {
    MDM_MPI(comm, MPI_Op_create(least, 1, &comm->least), "MPI_Op_create");
    return mdm_comm_check(comm, MPI_Op_create(greatest, 1, &comm->greatest), "MPI_Op_create");
}

void mdm_comm_free_operations(mdm_comm *comm) {
    if (comm->least != MPI_OP_NULL) MPI_Op_free(&comm->least);
    if (comm->greatest != MPI_OP_NULL) MPI_Op_free(&comm->greatest);
}

static MPI_Op operation_for(const mdm_comm *comm, mdm_type type, mdm_reduction reduction) {
    int floating = type == MDM_FLOAT || type == MDM_DOUBLE;
    if (reduction == MDM_MIN) return floating ? comm->least : MPI_MIN;
    if (reduction == MDM_MAX) return floating ? comm->greatest : MPI_MAX;
    return MPI_SUM;
}

mdm_status mdm_comm_all_reduce(mdm_comm *comm, void *data, int64_t count, mdm_type type,
                               mdm_reduction reduction) {
    if (comm->size == 1) return MDM_OK;
    char *bytes = data;
    int64_t size = mdm_comm_type_size(type);
    for (int64_t done = 0; done < count; done += comm->piece) {
        int64_t now = count - done < comm->piece ? count - done : comm->piece;
        MDM_COLLECTIVE(comm,
                       MPI_Allreduce(MPI_IN_PLACE, bytes + done * size, (int)now, mdm_comm_datatype(type),
                                     operation_for(comm, type, reduction), comm->world),
                       "MPI_Allreduce", now * size);
    }
    return MDM_OK;
}

mdm_status mdm_comm_reduce_scatter(mdm_comm *comm, const float *all, float *mine, const int64_t *counts) {
    if (comm->size == 1) {
        if (counts[0] > 0 && all != mine) memmove(mine, all, (size_t)counts[0] * sizeof *mine);
        return MDM_OK;
    }
    int64_t total = 0;
    for (int r = 0; r < comm->size; r++) total += counts[r];
    if (total <= comm->piece) {
        for (int r = 0; r < comm->size; r++) comm->counts[r] = (int)counts[r];
        MDM_COLLECTIVE(comm, MPI_Reduce_scatter(all, mine, comm->counts, MPI_FLOAT, MPI_SUM, comm->world),
                       "MPI_Reduce_scatter", total * 4);
        return MDM_OK;
    }
    for (int r = 0; r < comm->size; r++) { /* too much for one call: part by part to its owner */
        for (int64_t done = 0; done < counts[r]; done += comm->piece) {
            int64_t now = counts[r] - done < comm->piece ? counts[r] - done : comm->piece;
            float *target = r == comm->rank ? mine + done : NULL;
            MDM_COLLECTIVE(comm, MPI_Reduce(all + done, target, (int)now, MPI_FLOAT, MPI_SUM, r, comm->world),
                           "MPI_Reduce", now * 4);
        }
        all += counts[r];
    }
    return MDM_OK;
}

mdm_status mdm_comm_reduce_start(mdm_comm *comm, float *data, int64_t count) {
    if (comm->size == 1) return MDM_OK;
    for (int64_t done = 0; done < count; done += comm->piece) {
        int64_t now = count - done < comm->piece ? count - done : comm->piece;
        if (comm->reductions_pending == MDM_COMM_REDUCTIONS) MDM_TRY(mdm_comm_reduce_wait(comm));
        MDM_MPI(comm,
                MPI_Iallreduce(MPI_IN_PLACE, data + done, (int)now, MPI_FLOAT, MPI_SUM, comm->world,
                               &comm->reductions[comm->reductions_pending]),
                "MPI_Iallreduce");
        comm->reductions_pending++;
    }
    return MDM_OK;
}

mdm_status mdm_comm_reduce_wait(mdm_comm *comm) {
    if (comm->reductions_pending == 0) return MDM_OK;
    int pending = comm->reductions_pending;
    comm->reductions_pending = 0;
    MDM_COLLECTIVE(comm, MPI_Waitall(pending, comm->reductions, MPI_STATUSES_IGNORE), "MPI_Iallreduce", 0);
    return MDM_OK;
}

mdm_status mdm_comm_poll(mdm_comm *comm) {
    int done = 0;
    if (comm->reductions_pending > 0) {
        MDM_MPI(comm, MPI_Testall(comm->reductions_pending, comm->reductions, &done, MPI_STATUSES_IGNORE),
                "MPI_Iallreduce");
        if (done) comm->reductions_pending = 0;
    }
    if (comm->ring_active && !comm->ring_done)
        MDM_MPI(comm, MPI_Testall(comm->ring_pending, comm->ring, &comm->ring_done, comm->ring_statuses),
                "the ring's transfer");
    return MDM_OK;
}
