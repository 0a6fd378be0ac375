"""Weights in PyTorch, taken by the lines that docs/weights.md gives: the same answers as predict's."""
import re
import sys

try:
    import torch
except ImportError:
    print("skipped: python3-torch is not installed")
    sys.exit(77)
import h5py
import numpy as np
from program import SOURCE, main, predictions, read, read_safetensors, train

COUNT = 20


def lines_of_the_manual():
    with open(SOURCE + "/docs/weights.md") as f:
        block, = (b for b in re.findall(r"```python\n(.*?)```", f.read(), re.S) if "def logits" in b)
    names = {}
    exec(block, names)
    return names["logits"]


def probabilities(work, name):
    logits, sum_of_networks = lines_of_the_manual(), 0
    with h5py.File(work.data) as f:
        pictures = torch.tensor(f["test/images"][:COUNT].transpose(0, 3, 1, 2) / 255, dtype=torch.float32)
    for letter in "ab":
        tensors, notes = read_safetensors(read(work, name, f"model-{letter}.safetensors"))
        mean, std = (torch.tensor([float(v) for v in notes[k].split(",")]).view(1, -1, 1, 1) for k in ("mean", "std"))
        d = {k: torch.tensor(v) for k, v in tensors.items()}
        sum_of_networks += logits(d, (pictures - mean) / std).softmax(1).numpy()
    return sum_of_networks / 2


def the_manuals_lines_answer_as_predict_does(work):
    for arch in ("preact_resnet10", "preact_resnet18", "preact_resnet50"):
        done = train(work, arch, f"model.arch={arch}", "model.width=4", "pretrain.epochs=0", "train.epochs=1",
                     "train.warmup=1", "train.lr_backbone=0.1", "train.lr_head=0.1")
        assert done.returncode == 0, done.stderr
        ours = predictions(work, arch, work.data, COUNT)
        theirs = probabilities(work, arch)
        assert np.ptp(ours) > 0.05 and np.abs(theirs - ours).max() < 1e-5, (arch, np.ptp(ours), np.abs(theirs - ours).max())


main([the_manuals_lines_answer_as_predict_does], halved=True)
