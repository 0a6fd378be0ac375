"""Streams an epoch of many small pictures (1 million by default, 3 GB) and tells speed, bytes read and memory. Not part of the test suite.

    MDM_PROGRAM=build/mdm-dist python3 tests/scale/stream.py FOLDER [PICTURES]

The file is made in FOLDER and removed afterwards. In a control group with less memory than the file (systemd-run -p MemoryMax=600M ...)
it is what a data set beyond memory costs.
"""
import os
import subprocess
import sys

import h5py
import numpy as np

PIECE = 4096


def make(path, count):
    pixels = np.random.default_rng(1).integers(0, 256, (PIECE, 32, 32, 3), "u1")
    with h5py.File(path, "w") as f:
        f.attrs["format"], f.attrs["format_version"] = "mdm-dataset", 1
        f.attrs["mean"], f.attrs["std"] = [0.5] * 3, [0.3] * 3
        images = f.create_dataset("train/images", (count, 32, 32, 3), "u1")
        for i in range(0, count, PIECE):
            images[i:i + PIECE] = pixels[:min(PIECE, count - i)]
        f["train/labels"] = (np.arange(count) % 100).astype("i4")


def leave_page_cache(path):
    os.sync()
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def main(folder, count=1000000):
    path = os.path.join(folder, "stream.h5")
    try:
        make(path, count)
        for shuffle in ("blocks", "full"):
            leave_page_cache(path)
            run = subprocess.Popen([os.environ["MDM_PROGRAM"], "bench", "io", f"data.train={path}", "train.batch=256",
                                    f"data.shuffle={shuffle}"], stdout=subprocess.PIPE, text=True)
            line = run.stdout.read().strip()
            _, status, used = os.wait4(run.pid, 0)
            assert status == 0, f"bench ended with {status}"
            print(f"{shuffle}: {line}")
            print(f"  read {used.ru_inblock * 512 / (count * 3072):.2f} times the pictures' bytes, {used.ru_maxrss / 1000:.0f} MB resident")
    finally:
        if os.path.exists(path):
            os.remove(path)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], *[int(n) for n in sys.argv[2:3]])
