#!/bin/sh
# Installs what mdm-dist needs from the distribution (Debian 12). Root is needed only when
# something is missing. Exit codes: 0 everything is there, 4 something is missing and could not be installed.
set -eu

packages="build-essential cmake ninja-build pkg-config
    python3-onnx
    openmpi-bin libopenmpi-dev libhdf5-openmpi-dev hdf5-tools
    libdnnl-dev libopenblas-openmp-dev libopenblas0-openmp
    libyaml-dev libjansson-dev libxxhash-dev zlib1g-dev libcmocka-dev
    libjpeg62-turbo-dev libpng-dev
    python3 python3-h5py python3-numpy python3-pil xz-utils dataset-fashion-mnist"

if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian or Ubuntu. Install what these packages hold, then run launch/build.sh:" >&2
    echo "    $packages" >&2
    exit 4
fi

missing=""
for package in $packages; do
    state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) || state=""
    case $state in
    *"ok installed"*) ;;
    *) missing="$missing $package" ;;
    esac
done
if [ -z "$missing" ]; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    become=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    become="sudo -n"
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
echo "installing:$missing"
# A mirror that does not answer is no reason to stop: what is needed may be in the lists already.
apt update || echo "apt-get update failed; going on with the package lists that are there" >&2
# shellcheck disable=SC2086 # one word per package
if ! apt install -y --no-install-recommends $missing; then
    tail -n 20 "$log" >&2
    echo "The packages could not be installed, see above. They are:$missing" >&2
    exit 4
fi
