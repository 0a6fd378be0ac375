#!/bin/sh
# tests/coverage.sh [REGEX]: which lines of the host code the tests reach, by gcov, in a build folder of its own (build-coverage,
# or BUILD). Needs gcovr. By hand: the suite takes several times as long as usual. REGEX chooses tests as ctest -R does.
# Processes that are killed write no counts, so what only they reach counts as not reached.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
export BUILD="${BUILD:-$root/build-coverage}"
"$root/launch/build.sh" -DMDM_CUDA=OFF -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS=--coverage -fprofile-update=atomic -O1"
find "$BUILD" -name '*.gcda' -delete
ctest --test-dir "$BUILD" --output-on-failure -R "${1:-.}" || echo "(a test failed; its lines count all the same)" >&2
gcovr --root "$root" --filter 'src/' --exclude 'src/.*/winograd.*' --object-directory "$BUILD" --exclude-throw-branches \
    --sort-percentage --print-summary
