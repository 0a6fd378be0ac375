"""Exported networks in a program that reads ONNX and is not ours: OpenCV's, as Debian has it."""
import sys

import numpy as np

try:
    import cv2
except ImportError:
    print("skipped: python3-opencv is not installed")
    sys.exit(77)
import h5py
from program import main, padded, predictions, run, train


def opencv_answers(work, run_name, data, count):
    path = work.file("model.onnx")
    done = run("export", work.file(run_name), "--onnx", path)
    assert done.returncode == 0, done.stderr
    network = cv2.dnn.readNetFromONNX(path)
    with h5py.File(data) as f:
        pictures = f["test/images"][:count].transpose(0, 3, 1, 2).astype(np.float32)
    network.setInput(np.ascontiguousarray(pictures), "pictures")
    return network.forward("probabilities")


def both_agree(work, run_name, data):
    ours, theirs = predictions(work, run_name, data, 12), opencv_answers(work, run_name, data, 12)
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-4, np.abs(ours - theirs).max()
    assert np.ptp(ours) > 0.05  # not all the same


def an_ensemble_gives_the_same_answers(work):
    done = train(work, "ensemble", "train.epochs=2")
    assert done.returncode == 0, done.stderr
    both_agree(work, "ensemble", work.data)


def a_network_with_the_imagenet_stem_gives_the_same_answers(work):
    data = padded(work)
    done = train(work, "stem", f"data.train={data}", "model.arch=resnet18", "model.width=4", "model.networks=1",
                 "pretrain.epochs=0", "train.epochs=2", "train.warmup=1")
    assert done.returncode == 0, done.stderr
    both_agree(work, "stem", data)


def colour_pictures_get_the_same_answers(work):
    data = work.file("colour.h5")
    with h5py.File(work.data) as source, h5py.File(data, "w") as f:
        for split in ("train", "test"):
            grey = source[split + "/images"][:]
            f[split + "/images"] = np.concatenate([grey, 255 - grey, grey // 2], 3)
            f[split + "/labels"] = source[split + "/labels"][:]
    done = train(work, "colour", f"data.train={data}", "pretrain.epochs=0", "train.epochs=2", "train.warmup=1",
                 "train.lr_backbone=0.05", "train.lr_head=0.05")
    assert done.returncode == 0, done.stderr
    both_agree(work, "colour", data)


main([an_ensemble_gives_the_same_answers, a_network_with_the_imagenet_stem_gives_the_same_answers,
      colour_pictures_get_the_same_answers])
