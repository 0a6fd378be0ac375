"""What the whole-program tests share: a small real data set, runs of mdm-dist under mpirun, and readers of run folders."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

PROGRAM = os.environ["MDM_PROGRAM"]
SOURCE = os.environ["MDM_SOURCE"]
FASHION = "/usr/share/datasets/fashion-mnist"

SMALL = ["model.arch=preact_resnet10", "model.width=8", "model.projection=16", "pretrain.epochs=2", "pretrain.batch=100",
         "pretrain.lr=0.02", "train.epochs=4", "train.warmup=2", "train.batch=40", "train.lr_backbone=0.01",
         "train.lr_head=0.01", "divide.interval=1", "divide.k=5", "semi.lambda_u=5", "semi.lambda_ue=5",
         "semi.lambda_c=0.1", "semi.contrast_temperature=0.5", "semi.rampup=6", "model.ema=0", "train.rce_weight=1",
         "train.evaluate_every=1", "divide.loss_limit=0", "run.threads=1", "baseline=none",
         "train.precision=fp32"]


class Workspace:
    """A folder for one test program, with the data sets in it; `halved`: training pictures of every other pixel, a quarter of the work."""

    def __init__(self, halved):
        self.path = tempfile.mkdtemp(prefix="mdm-test-")
        self.full = os.path.join(self.path, "fashion.h5")
        self.data = os.path.join(self.path, "noisy.h5")
        assert run("data", "import", FASHION, self.full).returncode == 0
        made = run("data", "noise", self.full, self.data, "--samples", "400", "--hold-out", "8,9", "--ood", "0.2",
                   "--symmetric", "0.4", "--seed", "3")
        assert made.returncode == 0, made.stderr
        shorten_test_set(self.data, 300)
        if halved:
            halve_pictures(self.data)

    def file(self, name):
        return os.path.join(self.path, name)

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def shorten_test_set(path, count):
    import h5py
    with h5py.File(path, "r+") as f:
        images, labels = f["test/images"][:count], f["test/labels"][:count]
        del f["test"]
        f["test/images"], f["test/labels"] = images, labels


def halve_pictures(path):
    import h5py
    with h5py.File(path, "r+") as f:
        for part in ("train", "test"):
            images = f[part + "/images"][:, ::2, ::2]
            del f[part + "/images"]
            f[part + "/images"] = images


def command(ranks, arguments):
    if ranks == 1:
        return [PROGRAM, *arguments]
    return [os.path.join(SOURCE, "tests", "mpirun.sh"), str(ranks), PROGRAM, *arguments]


def run(*arguments, ranks=1, timeout=240, **options):
    return subprocess.run(command(ranks, arguments), capture_output=True, text=True, timeout=timeout, **options)


def start(*arguments, ranks=1):
    return subprocess.Popen(command(ranks, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train(work, name, *arguments, ranks=1, small=True, **options):
    config = os.path.join(SOURCE, "configs", "quickstart.yaml")
    return run("train", config, f"data.train={work.data}", f"run={work.file(name)}", *(SMALL if small else []), *arguments,
               ranks=ranks, **options)


def read_safetensors(raw):
    import numpy as np
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    notes = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        tensors[name] = np.frombuffer(raw[8 + length + begin:8 + length + end], "<f4").reshape(t["shape"])
    return tensors, notes


def predictions(work, name, data, count):
    """The probabilities that a run's ensemble gives the first test pictures."""
    import numpy as np
    lines = run("predict", work.file(name), data, "--json").stdout.splitlines()[:count]
    return np.array([json.loads(line)["probabilities"] for line in lines])


def padded(work):
    """The data set with pictures of 32x32, which the ImageNet stem needs."""
    import h5py
    import numpy as np
    path = work.file("padded.h5")
    with h5py.File(work.data) as source, h5py.File(path, "w") as f:
        for split in ("train", "test"):
            f[split + "/images"] = np.pad(source[split + "/images"][:], ((0, 0), (2, 2), (2, 2), (0, 0)))
            f[split + "/labels"] = source[split + "/labels"][:]
    return path


def events(work, name):
    with open(os.path.join(work.file(name), "metrics.jsonl")) as f:
        return [json.loads(line) for line in f]


def read(work, name, member):
    with open(os.path.join(work.file(name), member), "rb") as f:
        return f.read()


class Skipped(Exception):
    """Raised by a test that lacks what it needs, with what that is."""


def main(tests, halved=False):
    """Runs every function, prints a line each, exits 1 when one failed."""
    work, failed, skipped = Workspace(halved), [], []
    try:
        for test in tests:
            if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
                continue
            try:
                test(work)
                print(f"ok      {test.__name__}", flush=True)
            except Skipped as why:
                skipped.append(test.__name__)
                print(f"skipped {test.__name__}: {why}", flush=True)
            except Exception as error:  # noqa: a failed test must not hide the others
                failed.append(test.__name__)
                print(f"FAILED  {test.__name__}: {type(error).__name__}: {error}", flush=True)
    finally:
        work.remove()
    passed = len(tests) - len(failed) - len(skipped)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped" + "".join(f" {name}" for name in skipped))
    sys.exit(1 if failed else 0)
