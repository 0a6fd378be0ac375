#!/bin/sh
# launch/mpirun.sh RANKS COMMAND...: mpirun on this machine with the cores shared out among the ranks.
#
# Open MPI 4.1 alone would bind each of one or two ranks to a single core. Here no rank is bound, and the program gives each of them
# cores / ranks threads.
set -eu
ranks=$1
shift
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec mpirun -q --oversubscribe --bind-to none -np "$ranks" "$@"
