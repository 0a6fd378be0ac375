#!/bin/sh
# Runs a program under mpirun with as many ranks as asked, on however many cores there are, one thread each.
ranks=$1
shift
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_orte_execute_quiet=1 # mpirun's -q, which Open MPI 5 refuses
exec mpirun --oversubscribe --bind-to none -np "$ranks" "$@"
