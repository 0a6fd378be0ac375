#!/bin/sh
# launch/hosts.sh HOST:RANKS[,HOST:RANKS ...] [mdm-dist's arguments]: runs mdm-dist on several hosts over ssh.
#   launch/hosts.sh node1:2,node2:2 configs/cifar10.yaml run=/shared/runs/night
#   launch/hosts.sh node1:2,node2:2 doctor            # first: are hosts, libraries and links sound?
# The program, the run folder and the data must lie at the same path on every host (a shared file system), ssh must work
# without a password, and the MPI library must be the same. BUILD names the build folder (default build/, and where that is not there the installed mdm-dist); CORES is the
# number of cores of each rank (default: ranks are not bound and share the host's cores); MPIRUN_OPTIONS go to mpirun, as
# --mca btl_tcp_if_include 10.0.0.0/24 where hosts have several networks.
# USR1 or TERM to this script saves and ends the run (exit code 75).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
program=$(realpath -m -- "${BUILD:-$root/build}")/mdm-dist
[ -n "${BUILD:-}" ] || [ -x "$program" ] || program=$(command -v mdm-dist || echo "$program")

hosts=${1:-}
case $hosts in
'' | -* | *[!A-Za-z0-9.,:_-]*)
    echo "usage: launch/hosts.sh HOST:RANKS[,HOST:RANKS ...] [mdm-dist's arguments]" >&2
    exit 2
    ;;
esac
shift
if [ ! -x "$program" ]; then
    echo "$program is not there yet; launch/build.sh builds it" >&2
    exit 4
fi
ranks=0
for host in $(echo "$hosts" | tr , ' '); do
    count=${host#*:}
    case $host in *:*) ;; *) count=1 ;; esac
    case $count in
    '' | 0 | *[!0-9]*)
        echo "$host: expected HOST:RANKS with at least one rank" >&2
        exit 2
        ;;
    esac
    ranks=$((ranks + count))
done

# Open MPI refuses root, as in a container, unless told that it is meant.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
layout="--bind-to none"
if [ -n "${CORES:-}" ]; then
    layout="--map-by slot:PE=$CORES --bind-to core"
fi

# Hosts that go silent are noticed in 45 s, not in 8 minutes. mpirun runs in the background, because a shell answers signals
# only between commands; it is sent USR1, which it passes on to all ranks, where TERM would kill them after a second.
export OMPI_MCA_orte_execute_quiet=1 # mdm-dist does the talking; mpirun's -q, which Open MPI 5 refuses
# shellcheck disable=SC2086 # several words
mpirun -np "$ranks" -H "$hosts" $layout --mca oob_tcp_keepalive_time 30 --mca oob_tcp_keepalive_intvl 5 \
    --mca oob_tcp_keepalive_probes 3 ${MPIRUN_OPTIONS:-} "$program" "$@" &
job=$!
trap 'kill -USR1 $job 2>/dev/null || true' USR1 TERM INT
code=0
wait $job || code=$?
while kill -0 $job 2>/dev/null; do
    code=0
    wait $job || code=$?
done
exit $code
