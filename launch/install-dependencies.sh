#!/bin/sh
# Installs what mdm-dist needs from the distribution (Debian 12 or 13); with --tests also what only some tests need (a browser, Slurm,
# environment modules, ONNX), and without which those are skipped. Root is needed only when something is missing.
# Exit codes: 0 everything is there, 4 something is missing and could not be installed.
set -eu

packages="build-essential cmake ninja-build pkg-config
    openmpi-bin libopenmpi-dev libhdf5-openmpi-dev hdf5-tools
    libdnnl-dev libopenblas-openmp-dev libopenblas0-openmp
    libyaml-dev libjansson-dev libxxhash-dev libssl-dev zlib1g-dev libcmocka-dev
    libjpeg62-turbo-dev libpng-dev
    python3 python3-h5py python3-numpy python3-pil xz-utils dataset-fashion-mnist"
wished=""
if [ "${1:-}" = --tests ]; then
    wished="chromium slurmctld slurmd slurm-client munge environment-modules iproute2 groff-base dpkg-dev file python3-onnx python3-opencv valgrind"
fi

if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian or Ubuntu. Install what these packages hold, then run launch/build.sh:" >&2
    echo "    $packages" >&2
    exit 4
fi

absent() {
    for package in "$@"; do
        state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) || state=""
        case $state in
        *"ok installed"*) ;;
        *) printf ' %s' "$package" ;;
        esac
    done
}
# shellcheck disable=SC2086 # one word per package
missing=$(absent $packages)
# shellcheck disable=SC2086
unfulfilled=$(absent $wished)
if [ -z "$missing$unfulfilled" ]; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    become=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    become="sudo -n"
elif [ -z "$missing" ]; then
    echo "tests that need these packages will be skipped:$unfulfilled" >&2
    exit 0
else
    echo "Packages are missing, and this user may not install them. Run this line as root, then start again:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 4
fi

# apt's own output is long; it is shown only when something fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    # shellcheck disable=SC2086 # no word when already root
    $become env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1
}
echo "installing:$missing$unfulfilled"
# A mirror that does not answer is no reason to stop: what is needed may be in the lists already.
apt update || echo "apt-get update failed; going on with the package lists that are there" >&2
# shellcheck disable=SC2086 # one word per package
if [ -n "$missing" ] && ! apt install -y --no-install-recommends $missing; then
    tail -n 20 "$log" >&2
    echo "The packages could not be installed, see above. They are:$missing" >&2
    exit 4
fi
# shellcheck disable=SC2086
if [ -n "$unfulfilled" ] && ! apt install -y --no-install-recommends $unfulfilled; then
    echo "could not be installed, so tests that need them will be skipped:$unfulfilled" >&2
fi
