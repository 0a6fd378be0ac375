#!/bin/sh
# tests/faults/full.sh [BUILD]: the fault tests with every call of every kind, by hand (about 20 minutes).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
build=$(CDPATH='' cd -- "${1:-$root/build}" && pwd)
export MDM_PROGRAM="$build/mdm-dist" MDM_SOURCE="$root" MDM_INJECTOR="$build/tests/faults/libmdm_inject.so"
export PYTHONDONTWRITEBYTECODE=1
/usr/bin/python3 "$root/tests/faults/test_processes.py"
/usr/bin/python3 "$root/tests/faults/test_storage.py" --full
