/* From the variables a launcher sets to the verdict whether MPI has understood that launcher. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

/* The variable's number, -1 when it is not set or no number. */
static long long number_of(const char *variable) {
    const char *text = getenv(variable);
    char *end;
    if (!text || !*text) return -1;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    return *end || errno ? -1 : value;
}

int mdm_comm_has_launcher(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return 1;
    return 0;
}

/* srun sets the step's number; the steps in which a batch script or a login shell runs have numbers at the
 * top of 32 bits, and there SLURM_NTASKS speaks of the allocation, not of processes already started. */
static long long tasks_of_srun(void) {
    const long long first_special_step = 0xFFFFFFF0ll;
    long long step = number_of("SLURM_STEP_ID");
    if (step < 0) step = number_of("SLURM_STEPID");
    if (step < 0 || step >= first_special_step || number_of("SLURM_PROCID") < 0) return -1;
    long long tasks = number_of("SLURM_STEP_NUM_TASKS");
    return tasks > 0 ? tasks : number_of("SLURM_NTASKS");
}

mdm_status mdm_comm_check_launcher(int size, const char *library) {
    if (size != 1) return MDM_OK;
    /* The innermost launcher decides: mpirun inside a Slurm step sets its own size. */
    long long processes = number_of("OMPI_COMM_WORLD_SIZE");
    const char *launcher = "mpirun of Open MPI";
    if (processes < 0) {
        processes = number_of("PMI_SIZE");
        launcher = "a launcher that speaks PMI (of MPICH or Intel MPI, or srun --mpi=pmi2)";
    }
    if (processes < 0) {
        processes = tasks_of_srun();
        launcher = "srun";
    }
    if (processes <= 1) return MDM_OK;
    return mdm_fail(
        MDM_RESOURCE,
        "%s started %lld processes, but %s sees each of them alone; start with srun --mpi=pmix (srun "
        "--mpi=list tells what there is), or with the mpirun that belongs to %s",
        launcher, processes, library, library);
}
