#!/bin/bash
# launch/bench-with-peer.sh PEER.py: measures mdm-dist beside a PyTorch program of the same method, in turns on one machine, and
# prints a markdown table of medians and ratios.
#
# PEER.py takes `bench --what warmup|semi|knn|gmm --arch resnet18 --width W --batch B --threads T --n N [--bf16 --channels-last]`
# and prints one JSON line: {"what":..,"ms":..,"img_s":..} for steps, {"what":..,"sec":..} for knn and gmm.
#
# Variables: BUILD (build folder), PYTHON (with PyTorch, default python3), THREADS (default all cores), ROUNDS (3), WIDTH (64),
# BATCH (64), KNN_SAMPLES (20000), GMM_SAMPLES (1000000), PRECISIONS ("fp32 bf16"), MEASUREMENTS ("step semi knn gmm"),
# LINES_FILE (file that keeps every JSON line as it came).
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
program=${BUILD:-$root/build}/mdm-dist
python=${PYTHON:-python3}
threads=${THREADS:-$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)}
rounds=${ROUNDS:-3}
width=${WIDTH:-64}
batch=${BATCH:-64}
knn_samples=${KNN_SAMPLES:-20000}
gmm_samples=${GMM_SAMPLES:-1000000}
read -r -a precisions <<<"${PRECISIONS:-fp32 bf16}"
read -r -a measurements <<<"${MEASUREMENTS:-step semi knn gmm}"

peer=${1:-}
if [ ! -f "$peer" ]; then
    echo "usage: launch/bench-with-peer.sh PEER.py, a PyTorch program of the same method" >&2
    exit 2
fi
if [ ! -x "$program" ]; then
    echo "$program is not there yet; launch/build.sh builds it" >&2
    exit 4
fi

lines=${LINES_FILE:-$(mktemp)}
: >"$lines"
export OMP_NUM_THREADS=$threads

# keep NAME PRECISION WHO COMMAND...: runs the command and keeps the last JSON line that it prints.
keep() {
    local name=$1 precision=$2 who=$3 output answer status=0
    shift 3
    output=$("$@" 2>&1) || status=$?
    answer=$(grep '^{' <<<"$output" | tail -n 1) || answer=""
    if [ "$status" -ne 0 ] || [ -z "$answer" ]; then
        echo "$who, $name $precision: no measurement (exit code $status): $(tail -n 1 <<<"$output")" >&2
        return 0
    fi
    printf '%s\t%s\t%s\t%s\n' "$name" "$precision" "$who" "$answer" >>"$lines"
    echo "$who, $name $precision: $answer" >&2
}

ours() {
    local name=$1 precision=$2
    keep "$name" "$precision" mdm-dist "$program" bench "$name" model.arch=preact_resnet18 "model.width=$width" \
        "train.batch=$batch" "train.precision=$precision" "run.threads=$threads"
}

theirs() {
    local name=$1 precision=$2 what=$1 options=()
    [ "$name" != step ] || what=warmup
    [ "$name" != knn ] || options+=(--n "$knn_samples")
    [ "$name" != gmm ] || options+=(--n "$gmm_samples")
    [ "$precision" != bf16 ] || options+=(--bf16 --channels-last)
    keep "$name" "$precision" peer "$python" "$peer" bench --what "$what" --arch resnet18 --width "$width" --batch "$batch" \
        --threads "$threads" --warm 1 --reps 3 "${options[@]}"
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for name in "${measurements[@]}"; do
        for precision in "${precisions[@]}"; do
            # neighbours and mixtures are always computed in fp32 and fp64
            if [ "$precision" = bf16 ] && { [ "$name" = knn ] || [ "$name" = gmm ]; }; then
                continue
            fi
            ours "$name" "$precision"
            theirs "$name" "$precision"
        done
    done
done

"$python" - "$lines" "$rounds" "$threads" "$width" "$batch" "$knn_samples" "$gmm_samples" <<'PYTHON'
import collections
import json
import platform
import statistics
import sys

lines, rounds, threads, width, batch, knn_samples, gmm_samples = sys.argv[1:]
titles = {"step": f"training step, width {width}, batch {batch}", "semi": f"MixEMatch step, width {width}, batch {batch}",
          "knn": f"KNN, {knn_samples} x 512, k 10", "gmm": f"GMM, {gmm_samples} losses"}
milliseconds = collections.defaultdict(list)
with open(lines) as file:
    for line in file:
        name, precision, who, answer = line.rstrip("\n").split("\t", 3)
        answer = json.loads(answer)
        value = answer.get("median_ms", answer.get("ms"))
        if value is None and answer.get("sec") is not None:
            value = 1000 * answer["sec"]
        if value is not None:
            milliseconds[name, precision, who].append(float(value))

cpu = platform.machine()
try:
    with open("/proc/cpuinfo") as file:
        cpu = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
except (OSError, StopIteration):
    pass
print(f"{cpu}, {threads} threads; medians of {rounds} rounds, taken in turns; smallest and largest round in brackets\n")
print("| measurement | precision | mdm-dist, ms | peer, ms | peer / mdm-dist |")
print("|---|---|---|---|---|")


def cell(values):
    if not values:
        return "none"
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


missing = False
for name, precision in dict.fromkeys(key[:2] for key in milliseconds):
    own, other = milliseconds[name, precision, "mdm-dist"], milliseconds[name, precision, "peer"]
    ratio = f"{statistics.median(other) / statistics.median(own):.2f}" if own and other else "none"
    missing = missing or ratio == "none"
    print(f"| {titles.get(name, name)} | {precision} | {cell(own)} | {cell(other)} | {ratio} |")
sys.exit(1 if missing or not milliseconds else 0)
PYTHON
