#!/bin/sh
# old_cudnn_headers.sh SOURCE INCLUDE COMPILER [OPTION...]: the backend's calls of cuDNN are compiled with the headers in INCLUDE as they were
# before cuDNN 9.8, without what came later; the values that the backend has for it then are those of INCLUDE.
set -eu
source=$1 include=$2 compiler=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/old"
for header in "$include"/cudnn*.h; do
    sed -E -e '/DEVICEPROP|STRICT_NAN_PROP|CUBLASLT_DEPENDENCY|SUPPORTS_CUDA_GRAPH_NATIVE/d' \
        -e 's/^(#define CUDNN_([A-Z]+_)?MINOR) .*/\1 7/' "$header" >"$work/old/${header##*/}"
done
plans=$source/src/device/cuda/cudnn_plans.c
compile() {
    "$compiler" -std=gnu11 -fsyntax-only -Wall -Wextra -Werror "$@" -isystem "$include" -I "$source/include" -I "$source/src/device" \
        '-DMDM_CUDA_LIBRARY_FOLDER=""' "$work/test.c"
}
for file in "$plans" "${plans%/*}/convolutions.c" "${plans%/*}/libraries.c"; do
    echo "#include \"$file\"" >"$work/test.c"
    compile -isystem "$work/old" "$@"
done
echo '#include <cudnn.h>' >"$work/test.c"
sed -nE 's/^#define (CUDNN_[A-Z_]*DEVICEPROP[A-Z_]*) .*\)([0-9]+)\)$/_Static_assert(\1 == \2, "another value");/p' "$plans" >>"$work/test.c"
[ "$(grep -c _Static_assert "$work/test.c")" = 5 ]
compile "$@"
