#!/bin/sh
# Gives includes_point_downwards.sh small source trees, sound and not, and checks its answers.
set -eu
check=$(dirname "$0")/includes_point_downwards.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# expect STATUS FILE LINE: the answer for a tree whose only file is FILE with this line
expect() {
    rm -rf "$work/src" "$work/include"
    mkdir -p "$work/$(dirname "$2")"
    printf '%s\n' "$3" >"$work/$2"
    status=0
    answer=$("$check" "$work" 2>&1) || status=$?
    if [ "$status" -ne "$1" ]; then
        echo "$2 with '$3': exit code $status instead of $1: $answer"
        exit 1
    fi
}
expect 0 src/comm/a.c '#include "mdm/base/log.h"'
expect 0 src/comm/a.c '#include "mdm/comm/comm.h"'
expect 0 include/mdm/train/a.h '#include "mdm/report/metrics.h"'
expect 1 src/base/a.c '#include "mdm/comm/comm.h"'
expect 1 include/mdm/data/a.h '#include "mdm/train/run.h"'
expect 1 src/device/cpu/a.c '#  include <mdm/model/network.h>'
expect 1 src/model/a.c '#include "mdm/divide/knn.h"' # the same floor
expect 1 src/model/a.c '#include "../base/log.h"'
expect 1 src/model/a.c '#include "mdm/cellar/wine.h"'
expect 1 src/cellar/a.c '#include "mdm/base/log.h"'
expect 1 src/base/a.c '#include <stdio.h>' # nothing to check is not a success
echo "all eleven answers are right"
