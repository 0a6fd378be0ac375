"""The shell commands of README.md and docs/*.md, block after block, in a folder that holds what their reader is said to have. Only a block
under a comment `<!-- not run: why -->` is left out, and named."""
import glob
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import h5py
import numpy as np
from PIL import Image

PROGRAM, SOURCE = os.environ["MDM_PROGRAM"], os.environ["MDM_SOURCE"]
FASHION = "/usr/share/datasets/fashion-mnist"
SMALL = ("model: {arch: preact_resnet10, width: 8, projection: 16}\ntrain: {batch: 10, epochs: 2, warmup: 1, evaluate_every: 50}\n"
         "divide: {interval: 50, k: 3}\npretrain: {epochs: 1, batch: 20}\nrun.threads: 1\n")

# What a page's own commands make.
MAKES_ITSELF = {"README.md": ["datasets/mine-noisy.h5"], "first-run.md": ["noisy.h5", "runs"], "own-data.md": ["noisy.h5"]}


def shell(script, folder, timeout=300):
    environment = dict(os.environ, PATH=f"{os.path.dirname(PROGRAM)}:{os.environ['PATH']}", BUILD=os.path.dirname(PROGRAM),
                       OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_mpi_yield_when_idle="1",
                       OMPI_MCA_btl_vader_single_copy_mechanism="none")
    return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=timeout)


def blocks_of(path):
    """(script, why it is not run or None) of every block of shell commands."""
    with open(path) as f:
        text = f.read()
    assert not re.search(r"^    (mdm-dist|launch/|cmake|ninja|mpirun) ", text, re.M), f"{path}: commands outside a block"
    for match in re.finditer(r"(?:<!-- not run: (.*?) -->\n)?```sh\n(.*?)```", text, re.S):
        yield match.group(2), match.group(1)


def pictures(folder, count, size=20):
    """Class folders of small JPEG files."""
    random = np.random.default_rng(3)
    for label, name in enumerate(("cat", "dog", "owl")):
        os.makedirs(f"{folder}/{name}")
        for i in range(count):
            values = random.integers(0, 120, (size, size, 3)) + 40 * label
            Image.fromarray(values.astype(np.uint8)).save(f"{folder}/{name}/{i}.jpg")


def cifar(work):
    random = np.random.default_rng(4)

    def batch(folder, name, count, key, classes):
        os.makedirs(f"{work}/{folder}", exist_ok=True)
        values = {"data": random.integers(0, 256, (count, 3072), dtype=np.uint8), key: [int(i % classes) for i in range(count)]}
        with open(f"{work}/{folder}/{name}", "wb") as f:
            pickle.dump(values, f, 4)
    for i in range(1, 6):
        batch("cifar-10-batches-py", f"data_batch_{i}", 40, "labels", 10)
    batch("cifar-10-batches-py", "test_batch", 20, "labels", 10)
    batch("cifar-100-python", "train", 200, "fine_labels", 100)
    batch("cifar-100-python", "test", 100, "fine_labels", 100)
    with open(f"{work}/cifar-100-python/meta", "wb") as f:
        pickle.dump({"fine_label_names": [f"class{i}" for i in range(100)]}, f, 4)
    with tarfile.open(f"{work}/cifar-10-python.tar.gz", "w:gz") as t:
        t.add(f"{work}/cifar-10-batches-py", "cifar-10-batches-py")


def prepare(work):
    """Pictures, lists, CIFAR's files, a noisy data set, a configuration of the reader's own, and finished runs."""
    for name in ("configs", "launch"):
        os.symlink(f"{SOURCE}/{name}", f"{work}/{name}")
    os.makedirs(f"{work}/datasets")
    pictures(f"{work}/my-pictures", 14)
    pictures(f"{work}/pictures/train", 24, 28)
    pictures(f"{work}/pictures/test", 3, 28)
    shutil.copytree(f"{work}/my-pictures", f"{work}/images")
    os.makedirs(f"{work}/photos")
    shutil.copy(f"{work}/my-pictures/cat/1.jpg", f"{work}/photos")
    for name, files in (("train", range(14)), ("val", range(3))):
        with open(f"{work}/{name}.txt", "w") as f:
            f.writelines(f"{c}/{i}.jpg {c}\n" for c in ("cat", "dog", "owl") for i in files)
    cifar(work)
    with open(f"{work}/my.yaml", "w") as f:
        f.write("data:\n  train: datasets/mine-noisy.h5\n" + SMALL)
    with open(f"{work}/start.yaml", "w") as f:
        f.write("data:\n  train: noisy.h5\n" + SMALL)
    done = shell(f"mdm-dist data import {FASHION} whole.h5 && mdm-dist data noise whole.h5 noisy.h5 --samples 120 --symmetric 0.4 && "
                 "rm whole.h5", work)
    assert done.returncode == 0, done.stderr
    with h5py.File(f"{work}/noisy.h5", "r+") as f:
        images, labels = f["test/images"][:200], f["test/labels"][:200]
        del f["test"]
        f["test/images"], f["test/labels"] = images, labels
    shutil.copy(f"{work}/noisy.h5", f"{work}/datasets/mine-noisy.h5")
    done = shell("mdm-dist start.yaml run=runs/quickstart", work)
    assert done.returncode == 0, done.stderr
    for name in ("first", "second", "mine"):
        shutil.copytree(f"{work}/runs/quickstart", f"{work}/runs/{name}")
    shutil.copy(f"{work}/runs/quickstart/model-a.safetensors", f"{work}/encoder.safetensors")


def run_the_commands_of(path, prepared):
    """Blocks run one after the other, as they are read."""
    work = tempfile.mkdtemp(prefix="mdm-docs-")
    shutil.copytree(prepared, work, symlinks=True, dirs_exist_ok=True)
    for name in MAKES_ITSELF.get(os.path.basename(path), ()):
        (shutil.rmtree if os.path.isdir(f"{work}/{name}") else os.remove)(f"{work}/{name}")
    count = 0
    try:
        for script, reason in blocks_of(path):
            if reason:
                print(f"        not run: {script.splitlines()[0]} ({reason})", flush=True)
                continue
            done = shell(script, work)
            assert done.returncode == 0, f"exit code {done.returncode} of\n{script}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
            count += 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def main():
    if not os.path.exists(FASHION):
        print(f"skipped: {FASHION} is not installed")
        return 77
    failed, total, prepared = 0, 0, tempfile.mkdtemp(prefix="mdm-docs-")
    try:
        prepare(prepared)
        for path in [f"{SOURCE}/README.md", *sorted(glob.glob(f"{SOURCE}/docs/*.md"))]:
            if len(sys.argv) > 1 and os.path.basename(path) not in sys.argv[1:]:
                continue
            try:
                began = time.time()
                count = run_the_commands_of(path, prepared)
                total += count
                print(f"ok      {os.path.basename(path)}: {count} blocks of commands, {time.time() - began:.0f} s", flush=True)
            except Exception as error:  # noqa: a failed page must not hide the others
                failed += 1
                print(f"FAILED  {os.path.basename(path)}: {type(error).__name__}: {error}", flush=True)
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    print(f"{total} blocks ran, {failed} pages failed")
    return 1 if failed or (total < 15 and len(sys.argv) == 1) else 0


if __name__ == "__main__":
    sys.exit(main())
