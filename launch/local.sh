#!/bin/sh
# launch/local.sh RANKS [mdm-dist's arguments]: runs the built mdm-dist on this machine with so many ranks.
#   launch/local.sh 2 configs/quickstart.yaml train.epochs=5
# BUILD names the build folder (default build/, and where that is not there the installed mdm-dist); MPIRUN_OPTIONS are passed to mpirun.
#
# Every rank gets its own cores, all of them the same number, and the program starts as many threads as it finds. Open MPI 4.1 by
# itself would bind each of one or two ranks to a single core, however many there are.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
program=${BUILD:-$root/build}/mdm-dist
[ -n "${BUILD:-}" ] || [ -x "$program" ] || program=$(command -v mdm-dist || echo "$program")

ranks=${1:-}
case $ranks in
'' | 0 | *[!0-9]*)
    echo "usage: launch/local.sh RANKS [mdm-dist's arguments], as in launch/local.sh 2 configs/quickstart.yaml" >&2
    exit 2
    ;;
esac
shift
if [ ! -x "$program" ]; then
    echo "$program is not there yet; launch/build.sh builds it" >&2
    exit 4
fi

# Open MPI refuses root, as in a container, unless told that it is meant.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# Cores, not hardware threads, and only those that this process may use. (nproc would repeat OMP_NUM_THREADS.)
usable=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
threads_per_core=$(LC_ALL=C lscpu | sed -n 's/^Thread(s) per core: *//p')
case $threads_per_core in
'' | 0 | *[!0-9]*) threads_per_core=1 ;;
esac
cores=$((usable / threads_per_core))
if [ "$cores" -lt 1 ]; then
    cores=1
fi

layout="--oversubscribe --bind-to none"
if [ "$ranks" -le "$cores" ]; then
    bound="--map-by slot:PE=$((cores / ranks)) --bind-to core"
    # Where binding is not allowed, as in some containers, ranks stay unbound and share the cores.
    # shellcheck disable=SC2086 # several words
    if mpirun -np "$ranks" $bound true >/dev/null 2>&1; then
        layout=$bound
    fi
fi
export OMPI_MCA_orte_execute_quiet=1 # mdm-dist does the talking; mpirun's -q, which Open MPI 5 refuses
# shellcheck disable=SC2086 # several words
exec mpirun -np "$ranks" $layout ${MPIRUN_OPTIONS:-} "$program" "$@"
