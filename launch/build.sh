#!/bin/sh
# Builds mdm-dist into build/, or into the folder that BUILD names. Arguments go to cmake:
#   launch/build.sh -DCMAKE_BUILD_TYPE=RelWithDebInfo      optimised less, for a debugger
#   BUILD=build-sanitize launch/build.sh -DMDM_SANITIZE=ON
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=${BUILD:-$root/build}
mkdir -p "$build"

log=$build/configure.log
if ! cmake -G Ninja -S "$root" -B "$build" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "cmake could not configure, see above; launch/install-dependencies.sh installs what is needed." >&2
    exit 1
fi
# ninja tells of failures only, where it can (1.11)
quiet=""
if ninja --help 2>&1 | grep -q -- --quiet; then
    quiet="--quiet"
fi
echo "building into $build"
exec ninja -C "$build" ${quiet:+"$quiet"}
