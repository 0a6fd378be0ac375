#!/bin/bash
# tests/bundle/test_bundle.sh BUILD: makes the bundle, unpacks it elsewhere, hides the build tree and Open MPI's own folders where
# that is allowed, and runs run-checks and a training on two ranks from there.
set -euo pipefail
build=$1
for tool in xz ldd objdump ompi_info; do
    command -v "$tool" >/dev/null || { echo "skipped: $tool is missing"; exit 77; }
done
command -v orted >/dev/null || { echo "skipped: a bundle is made from Open MPI 4.1 alone, and orted is missing"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --build "$build" --target bundle >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
archive=$(ls "$build"/mdm-dist-*-linux-x86_64.tar.xz)
size=$(stat -c %s "$archive")
echo "archive: $((size / 1000000)) MB"
[ "$size" -le 40000000 ] || { echo "FAILED: the archive has more than 40 MB"; exit 1; }
mkdir "$work/elsewhere"
tar -C "$work/elsewhere" -xf "$archive"
bundle=$work/elsewhere/bundle

# Nothing but the C library's parts may come from the machine.
foreign=$(LD_LIBRARY_PATH=$bundle/lib ldd "$bundle"/libexec/* "$bundle"/lib/openmpi/*.so |
    awk -v own="$bundle/" '$2 == "=>" && index($3, own) != 1 { print $1, $3 }' | sort -u |
    grep -vE '^(libc|libm|libmvec|libdl|libpthread|librt|libresolv|libutil)\.so' || true)
[ -z "$foreign" ] || { echo "FAILED: not in the bundle: $foreign"; exit 1; }

cat >"$work/inside.sh" <<'I'
set -eu
for folder in $HIDE; do
    [ ! -d "$folder" ] || mount -t tmpfs none "$folder" 2>/dev/null || echo "(not hidden: $folder)"
done
cd "$WORK"
QUICK=1 "$BUNDLE/bin/run-checks" "$WORK/results.txt" || exit 1
# parts come in their own order, and what time is too short for is told
"$BUNDLE/bin/run-checks" "$WORK/parts.txt" steps plans ceilings || exit 1
TOTAL=1 "$BUNDLE/bin/run-checks" "$WORK/nothing.txt" tests runs || exit 1
! "$BUNDLE/bin/run-checks" "$WORK/wrong.txt" speed || exit 1
# the same program by the bundle's own C library
MDM_BUNDLED_GLIBC=1 "$BUNDLE/bin/mdm-dist" --version
I
export BUNDLE=$bundle WORK=$work HIDE="$build /usr/lib/x86_64-linux-gnu/openmpi /usr/lib/x86_64-linux-gnu/pmix2 /usr/share/openmpi /etc/openmpi"
quiet=(env -u LD_LIBRARY_PATH -u OPAL_PREFIX PATH=/usr/bin:/bin)
if unshare -m true 2>/dev/null; then
    "${quiet[@]}" unshare -m bash "$work/inside.sh"
else
    echo "(no mount namespaces here: nothing is hidden)"
    HIDE='' "${quiet[@]}" bash "$work/inside.sh"
fi
grep -q ' 0 failed' "$work/results.txt"
[ "$(grep -oE '^== [a-z]+|"bench":"[a-z]+"' "$work/parts.txt" | paste -sd' ')" = \
    '== ceilings "bench":"copy" "bench":"product" == plans == steps "bench":"step" "bench":"semi"' ]
grep -q '^0 passed, 0 failed, 0 skipped, [1-9]' "$work/nothing.txt" && grep -q '^left out: test_products$' "$work/nothing.txt"
grep -q 'passed   run on two CPU ranks' "$work/results.txt" || [ ! -d /usr/share/datasets/fashion-mnist ]
