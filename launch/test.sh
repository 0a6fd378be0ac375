#!/bin/sh
# Installs, builds and runs every test. Arguments go to ctest: launch/test.sh -R gmm, launch/test.sh -j 1, ...
# The last line is ctest's verdict; skipped tests are named above it. The full log stays in build/tests.log.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
launch/install-dependencies.sh --tests
launch/build.sh -DMDM_TESTS=ON
cd "${BUILD:-build}"

status=0
ctest -j 2 --output-on-failure --no-tests=error --output-log tests.log "$@" || status=$?

names=$(sed -n 's/^.*Test *#[0-9]*: \([^ ]*\) .*\*\*\*\(Skipped\|Not Run\).*$/\1/p' tests.log | sort -u)
echo
if [ -n "$names" ]; then
    echo "skipped: $(echo "$names" | wc -l) ($(echo "$names" | paste -s -d ' ' -))"
else
    echo "skipped: 0"
fi
grep 'tests passed' tests.log || echo "ctest gave no verdict"
exit "$status"
