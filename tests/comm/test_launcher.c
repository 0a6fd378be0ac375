/* A program started alone is a group of one that needs no messages, and one that a launcher failed to join is
 * told. */
#include "golden.h"

#include "internal.h"
#include <stdlib.h>
#include <string.h>

static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE",      "SLURM_NTASKS",
                                        "SLURM_PROCID",         "SLURM_STEP_ID", "SLURM_STEPID",
                                        "SLURM_STEP_NUM_TASKS"};

static int forget_launchers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) unsetenv(variables[i]);
    return 0;
}

static void no_launcher_is_fine(void **state) {
    (void)state;
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_OK);
}

static void srun_without_pmix_is_refused_with_the_cure(void **state) {
    (void)state;
    setenv("SLURM_NTASKS", "4", 1);
    setenv("SLURM_PROCID", "2", 1);
    setenv("SLURM_STEP_ID", "0", 1);
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "srun --mpi=pmix"));
    assert_non_null(strstr(mdm_last_message(), "srun started 4 processes"));
    assert_int_equal(mdm_comm_check_launcher(4, "Open MPI 4.1.4"), MDM_OK);
    setenv("SLURM_STEP_NUM_TASKS", "1", 1); /* srun -n 1 in an allocation for four */
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_OK);
}

static void a_batch_script_without_srun_is_one_process(void **state) {
    (void)state;
    setenv("SLURM_NTASKS", "4", 1);
    setenv("SLURM_PROCID", "0", 1);
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_OK);
    setenv("SLURM_STEP_ID", "4294967291", 1); /* the script's own step */
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_OK);
}

static void a_foreign_mpirun_is_refused_and_one_rank_under_mpirun_in_slurm_is_not(void **state) {
    (void)state;
    setenv("PMI_SIZE", "8", 1);
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_RESOURCE);
    assert_non_null(strstr(mdm_last_message(), "8 processes"));
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_OK);
    setenv("OMPI_COMM_WORLD_SIZE", "two", 1);
    assert_int_equal(mdm_comm_check_launcher(1, "Open MPI 4.1.4"), MDM_RESOURCE);
}

static void started_alone_a_program_is_a_group_of_one(void **state) {
    (void)state;
    mdm_comm *comm;
    assert_int_equal(mdm_comm_start(NULL, NULL, &comm), MDM_OK);
    assert_int_equal(mdm_comm_rank(comm), 0);
    assert_int_equal(mdm_comm_size(comm), 1);
    assert_int_equal(mdm_comm_node_size(comm), 1);
    assert_true(strlen(mdm_comm_host(comm)) > 0);
    /* A group of one calls no MPI: these work on no communicator at all. */
    MPI_Comm world = comm->world, node = comm->node;
    comm->world = comm->node = MPI_COMM_NULL;
    float values[3] = {1, 2, 3}, copy[3] = {0};
    int64_t counts[1] = {3};
    assert_int_equal(mdm_comm_barrier(comm), MDM_OK);
    assert_int_equal(mdm_comm_broadcast(comm, values, 3, MDM_FLOAT, 0), MDM_OK);
    assert_int_equal(mdm_comm_all_reduce(comm, values, 3, MDM_FLOAT, MDM_MAX), MDM_OK);
    assert_int_equal(mdm_comm_reduce_start(comm, values, 3), MDM_OK);
    assert_int_equal(mdm_comm_poll(comm), MDM_OK);
    assert_int_equal(mdm_comm_reduce_wait(comm), MDM_OK);
    assert_int_equal(mdm_comm_all_gather(comm, values, 3, copy, NULL, MDM_FLOAT), MDM_OK);
    assert_memory_equal(copy, ((float[]){1, 2, 3}), sizeof copy);
    memset(copy, 0, sizeof copy);
    assert_int_equal(mdm_comm_reduce_scatter(comm, values, copy, counts), MDM_OK);
    assert_memory_equal(copy, values, sizeof copy);
    memset(copy, 0, sizeof copy);
    assert_int_equal(mdm_comm_ring_start(comm, values, sizeof values, copy, sizeof copy), MDM_OK);
    assert_int_equal(mdm_comm_ring_wait(comm), MDM_OK);
    assert_memory_equal(copy, values, sizeof copy);
    mdm_comm_shared *shared;
    void *memory;
    assert_int_equal(mdm_comm_shared_create(comm, 1000, &shared, &memory), MDM_OK);
    memset(memory, 1, 1000);
    assert_int_equal(mdm_comm_shared_sync(comm, shared), MDM_OK);
    mdm_comm_shared_free(shared);
    assert_int_equal(mdm_comm_agree(comm, MDM_OK), MDM_OK);
    assert_int_equal(mdm_comm_agree(comm, mdm_fail(MDM_INPUT, "as it was")), MDM_INPUT);
    assert_string_equal(mdm_last_message(), "as it was");
    comm->world = world;
    comm->node = node;
    mdm_comm_finish(comm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(no_launcher_is_fine, forget_launchers),
        cmocka_unit_test_setup(srun_without_pmix_is_refused_with_the_cure, forget_launchers),
        cmocka_unit_test_setup(a_batch_script_without_srun_is_one_process, forget_launchers),
        cmocka_unit_test_setup(a_foreign_mpirun_is_refused_and_one_rank_under_mpirun_in_slurm_is_not,
                               forget_launchers),
        cmocka_unit_test_setup(started_alone_a_program_is_a_group_of_one, forget_launchers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
