#!/bin/sh
# Sets everything up and runs the main job: Fashion-MNIST with wrong labels and foreign pictures, on two ranks (one where there is
# a single core). Arguments go to mdm-dist, as in launch/quickstart.sh seed=2 run=runs/second
set -eu
samples=1000
source=/usr/share/datasets/fashion-mnist

CDPATH='' cd -- "$(dirname -- "$0")/.."
launch/install-dependencies.sh
launch/build.sh -DMDM_TESTS=OFF
program=${BUILD:-build}/mdm-dist

if [ ! -f datasets/fashion-mnist.h5 ]; then
    "$program" data import "$source" datasets/fashion-mnist.h5
fi
# Eight classes. Of the pictures, 20 % show one of the two other classes, and of 40 % the label is drawn anew.
"$program" data noise datasets/fashion-mnist.h5 datasets/fashion-mnist-noisy.h5 --samples "$samples" \
    --hold-out 8,9 --ood 0.2 --symmetric 0.4 --seed 1 --force

ranks=2
if [ "$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)" -lt 2 ]; then
    ranks=1
fi
launch/local.sh "$ranks" configs/quickstart.yaml "$@"

run=runs/quickstart
for argument; do
    case $argument in
    run=*) run=${argument#run=} ;;
    esac
done
if [ ! -f "$run/summary.json" ]; then # as with --dry-run
    exit 0
fi
echo
python3 - "$run/summary.json" <<'PYTHON'
import json
import sys

with open(sys.argv[1]) as file:
    summary = json.load(file)


def show(text, *keys):
    value = summary
    for key in keys:
        value = value.get(key) if value else None
    if value is not None:
        print(f"  {text:<58} {value:.3f}")


print("Accuracy on the clean test set, and how well the scores tell (area under the curve, 1 is perfect):")
show("accuracy of the ensemble", "final_top1")
show("  before the semi-supervised phase", "before_semi_top1")
show("  with cross entropy alone", "baseline_ce_top1")
show("  with symmetric cross entropy alone", "baseline_sce_top1")
show("wrong labels found by the noise score, last division", "auc_noise", "a")
show("foreign pictures found by the OOD score", "auc_ood", "a")
PYTHON
cat <<END

Results are in $run:
  labels.csv          every picture with its suggested label, scores and verdict
  summary.json        accuracy, scores, times
  metrics.jsonl       every epoch and every division
  divisions/          what each network thought of every picture, division by division
  model-a.safetensors, model-b.safetensors   the two networks
END
