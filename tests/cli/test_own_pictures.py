"""Somebody's own folder from end to end: JPEGs of six classes, a third of them in a wrong folder; imported, trained on, the labels
sorted by how surely they are wrong."""
import csv
import gzip
import json
import os
import random
import sys

try:
    from PIL import Image
except ImportError:
    print("skipped: python3-pil is not installed")
    sys.exit(77)
import numpy as np
from program import FASHION, main, run

CLASSES = {0: "shirt", 1: "trouser", 3: "dress", 5: "sandal", 8: "bag", 9: "boot"}
COUNT = 600
SETTINGS = ["pretrain.epochs=6", "train.epochs=16", "train.warmup=12", "divide.interval=2", "train.evaluate_every=100", "baseline=none",
            "model.width=16", "train.batch=32", "divide.remove_first=0.02", "divide.remove_step=0"]


def folder(work):
    """Pictures under pictures/CLASS/NUMBER.jpg, and which class each truly is."""
    with gzip.open(f"{FASHION}/train-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read()[16:], "u1").reshape(-1, 28, 28)
    with gzip.open(f"{FASHION}/train-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read()[8:], "u1")
    draw, truth, names = random.Random(5), {}, list(CLASSES.values())
    for i in [i for i in range(len(labels)) if labels[i] in CLASSES][:COUNT]:
        true = CLASSES[labels[i]]
        given = draw.choice([n for n in names if n != true]) if draw.random() < 1 / 3 else true
        path = f"{given}/{i:05d}.jpg"
        os.makedirs(work.file("mine/" + given), exist_ok=True)
        Image.fromarray(images[i]).save(work.file("mine/" + path), quality=92)
        truth[path] = true
    return truth


def labels_of(work):
    with open(work.file("own/labels.csv"), newline="") as f:
        return list(csv.DictReader(f))


TRUTH = {}


def a_folder_is_imported_and_trained_on(work):
    TRUTH.update(folder(work))
    assert run("data", "import", work.file("mine"), work.file("own.h5")).returncode == 0
    done = run("train", os.environ["MDM_SOURCE"] + "/configs/quickstart.yaml", f"data.train={work.file('own.h5')}",
               f"run={work.file('own')}", *SETTINGS, ranks=2, timeout=600)
    assert done.returncode == 0, done.stderr


def the_surest_tenth_of_the_wrong_labels_is_right_for_85_percent(work):
    rows = labels_of(work)
    assert len(rows) == COUNT
    with open(work.file("own/environment.json")) as f:
        json.load(f)
    names = sorted(CLASSES.values())
    surest = sorted(rows, key=lambda r: -float(r["mislabelled_score"]))[:COUNT // 10]
    wrong = [TRUTH[r["id"]] != r["id"].split("/")[0] for r in surest]
    corrected = [TRUTH[r["id"]] == names[int(r["suggested"])] for r in surest]
    print(f"        wrong indeed: {np.mean(wrong):.3f}, right suggestion: {np.mean(corrected):.3f}", flush=True)
    assert np.mean(wrong) >= 0.85 and np.mean(corrected) >= 0.85, (np.mean(wrong), np.mean(corrected))
    kept = [r for r in rows if r["verdict"] == "clean"]
    right = np.mean([TRUTH[r["id"]] == r["id"].split("/")[0] for r in kept])
    assert right > 0.8, right  # two thirds were right before


def the_report_shows_the_pictures_of_these_labels(work):
    with open(work.file("own/report.html"), encoding="utf-8") as f:
        page = f.read()
    assert all(name in page for name in CLASSES.values())
    surest = max(labels_of(work), key=lambda r: float(r["mislabelled_score"]))
    assert surest["id"] in page or surest["index"] in page


def a_cleaned_list_and_new_pictures_come_out_right(work):
    done = run("export", work.file("own"), "--list", work.file("cleaned.txt"), "--names")
    assert done.returncode == 0, done.stderr
    with open(work.file("cleaned.txt")) as f:
        cleaned = [line.rstrip("\n").rsplit(" ", 1) for line in f if line.strip()]
    right = np.mean([TRUTH[path] == name for path, name in cleaned if path in TRUTH])
    assert len(cleaned) > 0.8 * COUNT and right > 0.85, (len(cleaned), right)
    done = run("predict", work.file("own"), work.file("mine/boot"), "--json")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    right = np.mean([TRUTH["boot/" + os.path.basename(a["path"])] == a["name"] for a in answers])
    assert len(answers) == len(os.listdir(work.file("mine/boot"))) and right > 0.85, (right, answers[0])


if __name__ == "__main__":
    main([a_folder_is_imported_and_trained_on, the_surest_tenth_of_the_wrong_labels_is_right_for_85_percent,
          the_report_shows_the_pictures_of_these_labels, a_cleaned_list_and_new_pictures_come_out_right])
