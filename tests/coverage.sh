#!/bin/sh
# tests/coverage.sh [REGEX [WORDS]]: which lines of the host code the tests reach, by gcov, in a build folder of its own
# (build-coverage, or BUILD). Needs gcovr. By hand: the suite takes several times as long as usual. REGEX chooses tests as
# ctest -R does, WORDS go to ctest too: tests/coverage.sh . -E 'browser|bundle' -j 2
# Processes that a signal ends write no counts, so what only they reach counts as not reached.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
export BUILD="${BUILD:-$root/build-coverage}"
mkdir -p "$BUILD"
cc -O1 -c "$root/tests/coverage_exit.c" -o "$BUILD/coverage_exit.o"
"$root/launch/build.sh" -DMDM_CUDA=OFF -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS=--coverage -fprofile-update=atomic -O1" \
    "-DCMAKE_EXE_LINKER_FLAGS=$BUILD/coverage_exit.o"
find "$BUILD" \( -name '*.gcda' -o -name 'CMakeC*.gcno' -o -name 'a-CMakeC*.gcno' \) -delete
tests=${1:-.}
[ $# -eq 0 ] || shift
ctest --test-dir "$BUILD" --output-on-failure -R "$tests" "$@" ||
    echo "(a test failed; its lines count all the same)" >&2
gcovr --root "$root" --filter 'src/' --exclude 'src/.*/winograd.*' --object-directory "$BUILD" --exclude-throw-branches \
    --sort-percentage --print-summary "$BUILD"
