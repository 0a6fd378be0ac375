/* From every rank's own outcome to one that all ranks know, with the message of the rank where it went wrong.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>

typedef struct notice {
    int32_t status;
    char host[256];
    char text[1024];
} notice;

mdm_status mdm_comm_agree(mdm_comm *comm, mdm_status mine) {
    if (comm->size == 1) return mine;
    int speaker = mine == MDM_OK ? comm->size : comm->rank;
    MDM_COLLECTIVE(comm, MPI_Allreduce(MPI_IN_PLACE, &speaker, 1, MPI_INT, MPI_MIN, comm->world),
                   "MPI_Allreduce", 4);
    if (speaker == comm->size) return MDM_OK;

    notice told = {.status = mine};
    if (speaker == comm->rank) {
        snprintf(told.host, sizeof told.host, "%s", comm->host);
        snprintf(told.text, sizeof told.text, "%s", mdm_last_message());
    }
    MDM_COLLECTIVE(comm, MPI_Bcast(&told, (int)sizeof told, MPI_BYTE, speaker, comm->world), "MPI_Bcast",
                   sizeof told);

    /* When all ranks say the same (a wrong configuration, or something agreed on before), whose word it is
     * tells nothing. */
    int same = (int32_t)mine == told.status && strcmp(mdm_last_message(), told.text) == 0;
    MDM_COLLECTIVE(comm, MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_MIN, comm->world),
                   "MPI_Allreduce", 4);
    if (!same && strncmp(told.text, "rank ", 5) == 0) /* as failures of MPI and NCCL begin */
        mdm_fail((mdm_status)told.status, "%s", told.text);
    else if (!same)
        mdm_fail((mdm_status)told.status, "rank %d on %s: %s", speaker, told.host, told.text);
    snprintf(comm->agreed, sizeof comm->agreed, "%s", mdm_last_message());
    return (mdm_status)told.status;
}
