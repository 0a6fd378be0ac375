#!/bin/sh
# tests/faults/full.sh [BUILD]: the fault tests with every call of every kind, by hand (about 30 minutes).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
build=$(CDPATH='' cd -- "${1:-$root/build}" && pwd)
export MDM_PROGRAM="$build/mdm-dist" MDM_SOURCE="$root" MDM_INJECTOR="$build/tests/faults/libmdm_inject.so"
export PYTHONDONTWRITEBYTECODE=1
for name in processes numbers hosts slurm; do
    status=0
    /usr/bin/python3 "$root/tests/faults/test_$name.py" || status=$?
    [ "$status" = 0 ] || [ "$status" = 77 ] || exit "$status"
done
/usr/bin/python3 "$root/tests/faults/test_storage.py" --full
/usr/bin/python3 "$root/tests/faults/test_folders.py" --full
/usr/bin/python3 "$root/tests/faults/test_surroundings.py" --full
