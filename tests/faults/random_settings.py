"""Random settings at the ends of what is allowed, run for real on small odd data sets; each case is a function of its seed.

    MDM_PROGRAM=build/mdm-dist MDM_SOURCE=. tests/faults/random_settings.py FIRST COUNT [cpu|cuda]

A case is refused before it trains, by --dry-run alike and in one line that names what to change, or its numbers go bad (exit
code 5), or it ends with whole files of finite numbers that eval, export and report read, goes on from a checkpoint to the same
bits, and is the same on another number of ranks: bits with deterministic=true, else the first loss within rounding.
"""
import csv
import glob
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from PIL import Image

PROGRAM, SOURCE = os.environ["MDM_PROGRAM"], os.environ["MDM_SOURCE"]
LIMIT = float(os.environ.get("MDM_RANDOM_LIMIT", 120))  # seconds of a command

# What a case may set some of the keys to, beside BASE.
EXTREMES = {
    "seed": [0, 9223372036854775807], "baseline": ["ce", "sce", "both"], "deterministic": ["true", "true", "auto"],
    "data.validation": [0.01, 0.3, 0.5, 0.9, 0.999], "data.resident": ["host", "stream"], "data.shuffle": ["blocks"],
    "model.arch": ["preact_resnet18", "preact_resnet34", "preact_resnet50", "preact_resnet101", "resnet18", "resnet50"], "model.width": [1, 2, 3],
    "model.projection": [1, 3, 200], "model.networks": [1], "model.ema": [1e-30, 0.5, 0.999999],
    "train.warmup": [0, 0, 3], "train.epochs": [1, 1, 3], "train.batch": [1, 2, 3, 7, 31, 64, 1000], "train.cuda_graph": ["false"],
    "train.micro_batch": [1, 2, 3, 5], "train.evaluate_every": [2, 1000000], "train.patience": [1, 1000000],
    "train.lr_backbone": [0, 1e-30, 0.02, 1, 100], "train.lr_head": [1e-300, 0.05, 1, 100], "train.momentum": [0, 0.999999],
    "train.weight_decay": [0, 1], "train.rce_weight": [0, 1000], "train.precision": ["bf16", "prefer_bf16", "auto"],
    "train.batchnorm": ["local", "frozen", "frozen"], "train.crop_padding": [0, 1, 8, 30], "pretrain.epochs": [1, 2],
    "pretrain.batch": [2, 3, 5, 33, 1000], "pretrain.lr": [1e-300, 0.05, 1, 100], "pretrain.momentum": [0], "pretrain.weight_decay": [0, 1],
    "pretrain.temperature": [0.001, 0.01, 100], "divide.interval": [2, 1000000], "divide.k": [1, 2, 10, 29, 299, 1000],
    "divide.ood_scores": ["first"], "divide.ood_neighbours": ["clean"], "divide.remove_first": [0, 1e-9, 0.5, 0.6, 0.99, 0.999999],
    "divide.remove_step": [0, 1e-9, 0.3, 0.49, 0.6], "divide.loss_limit": [1e-300, 0.1, 1, 1000000],
    "divide.threshold": [1e-300, 1e-6, 0.999999, 0.99999999999999], "divide.gmm_iterations": [1, 100000], "divide.gmm_tolerance": [0, 1],
    "divide.gmm_floor": [1e-300, 1e-12, 1], "divide.save": ["all"], "semi.temperature": [1e-300, 1e-6, 0.01, 100],
    "semi.alpha": [1e-300, 1e-10, 0.01, 1000], "semi.confidence": [0, 0.999999], "semi.rampup": [0, 1, 1000000],
    "semi.supervised": ["ce"], "semi.rce_weight": [0, 1000], "semi.views": ["weak"], "semi.lambda_x": [0, 0, 1000000],
    "semi.lambda_u": [0, 0, 1000000], "semi.lambda_xe": [0, 0, 1000000], "semi.lambda_ue": [0, 0, 1000000],
    "semi.lambda_c": [0, 0, 1000000], "semi.contrast_temperature": [0.001, 0.001, 100], "checkpoint.every": [2, 1000000],
    "checkpoint.minutes": [0, 1e-9, 1000000], "tensorboard": ["false"], "report": ["false"]}
BASE = {"model.arch": "preact_resnet10", "model.width": 4, "model.projection": 8, "pretrain.batch": 16, "train.epochs": 2,
        "train.warmup": 1, "train.batch": 16, "divide.interval": 1, "divide.k": 3, "run.threads": 1, "checkpoint.keep": 1000000,
        "train.lr_backbone": 0.001, "train.lr_head": 0.001, "pretrain.lr": 0.001, "run.oversubscribe": "true", "train.precision": "fp32"}
# The same, for most cases no more than goes together.
LIMITS = {"divide.remove_first": 0.5, "divide.remove_step": 0.15, "train.warmup": 1, "train.micro_batch": 1, "train.crop_padding": 8}


def draw_data(draw, settings):
    side = 32 if settings["model.arch"].startswith("resnet") else draw.choice([8, 8, 9, 13, 16])
    return {"count": draw.choice([1, 2, 3, 5, 30, 60, 300]) if draw.random() < 0.2 else draw.randrange(30, 80),
            "tests": draw.choice([0, 1, 7, 40]), "height": side, "width": draw.choice([side, side + 3]), "channels": draw.choice([1, 3]),
            "classes": draw.choice([2, 2, 3, 5, 10, 50]), "encoded": draw.random() < 0.15, "true": draw.random() < 0.5,
            "pictures": draw.choice(["noise", "classes", "classes", "classes", "constant", "duplicated", "black"]),
            "labels": draw.choice(["cyclic", "cyclic", "same", "gap", "random"])}


def make_data(path, spec, seed):
    draw, n, classes = np.random.default_rng(seed), spec["count"], spec["classes"]
    total, shape = n + spec["tests"], (spec["height"], spec["width"], spec["channels"])
    truth = np.arange(total) % classes
    noise = draw.integers(0, 256, (total, *shape))
    pictures = {"noise": noise, "classes": draw.integers(0, 128, (classes, *shape))[truth] + noise // 2, "black": 0 * noise,
                "constant": np.broadcast_to(noise[:, :1, :1, :1], noise.shape), "duplicated": noise[np.arange(total) % 3 % total]}
    labels = {"cyclic": truth, "same": 0 * truth + classes - 1, "gap": np.where(truth == 0, classes - 1, truth),
              "random": draw.integers(0, classes, total)}[spec["labels"]]
    with h5py.File(path, "w") as f:
        for group, part in (("train", slice(0, n)), ("test", slice(n, total)))[:1 + (spec["tests"] > 0)]:
            mine = pictures[spec["pictures"]][part].astype("u1")
            if spec["encoded"]:
                files = [io.BytesIO() for _ in mine]
                for picture, file in zip(mine, files):
                    Image.fromarray(picture.squeeze()).save(file, "PNG")
                f[group + "/encoded"] = np.frombuffer(b"".join(file.getvalue() for file in files), "u1")
                f[group + "/offsets"] = np.cumsum([0] + [len(file.getvalue()) for file in files]).astype("i8")
            else:
                f[group + "/images"] = mine
            f[group + "/labels"] = labels[part].astype("i4")
        f["class_names"] = [f"class {i}" for i in range(classes)]
        if spec["true"]:
            f["train/true_labels"] = np.where(draw.random(n) < 0.2, -1, truth[:n]).astype("i4")


def draw_case(seed):
    draw = random.Random(seed)
    settings = dict(BASE)
    for key in draw.sample(sorted(EXTREMES), draw.choice([2, 4, 8, 16, 30])):
        settings[key] = draw.choice(EXTREMES[key])
    data = draw_data(draw, settings)
    if draw.random() < 0.2:
        data["height"] = draw.choice([7, data["height"]])
        return data, settings, draw.choice([1, 2, 3])
    data["count"] = max(data["count"], 30)
    for key in LIMITS.keys() & settings.keys():
        settings[key] = min(settings[key], LIMITS[key])
    for key in ("train.batch", "pretrain.batch", "divide.k"):
        settings[key] = min(settings[key], data["count"] // 3)
    if "train.patience" in settings or "data.validation" in settings:
        settings["data.validation"] = 0.3
    if settings.get("train.batchnorm") == "frozen":
        settings["pretrain.epochs"] = 1
    if settings.get("deterministic") == "true":
        settings.pop("train.micro_batch", None)
        settings.pop("train.batchnorm", None)
    return data, settings, draw.choice([1, 1, 2, 3])


class Case:
    def __init__(self, seed, device):
        self.seed, self.wrong = seed, []
        self.data, self.settings, self.ranks = draw_case(seed)
        self.settings["device"] = device
        self.folder = tempfile.mkdtemp(prefix=f"mdm-random-{seed}-")
        make_data(self.path("data.h5"), self.data, seed)
        self.divides = self.settings["train.warmup"] < self.settings["train.epochs"]

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def check(self, holds, text):
        if not holds:
            self.wrong.append(text)
        return holds

    def command(self, *arguments, ranks=1):
        head = [PROGRAM] if ranks == 1 else [os.path.join(SOURCE, "tests", "mpirun.sh"), str(ranks), PROGRAM]
        try:
            done = subprocess.run([*head, *arguments], capture_output=True, text=True, timeout=LIMIT, errors="replace")
            if done.returncode == 4 and "MPI_Init" in done.stderr:  # Open MPI's, three times of 2000 on a busy machine
                print("started again:", done.stderr, flush=True)
                done = subprocess.run([*head, *arguments], capture_output=True, text=True, timeout=LIMIT, errors="replace")
        except subprocess.TimeoutExpired as late:
            self.wrong.append(f"no end: {' '.join(arguments)} {(late.stderr or b'')[-300:]}")
            return subprocess.CompletedProcess(arguments, -1, "", "")
        self.check(not re.search(r"Sanitizer|runtime error:|Assertion", done.stderr), done.stderr[-3000:])
        return done

    def train(self, name, *arguments, ranks, **changed):
        settings = {**self.settings, **changed, "data.train": self.path("data.h5")}
        with open(self.path("config.yaml"), "w") as f:
            f.writelines(f"{key}: {value}\n" for key, value in settings.items())
        return self.command("train", f.name, "run=" + self.path(name), *arguments, ranks=ranks)


def strict(text):
    def refuse(word):
        raise ValueError(f"{word} in JSON")
    return json.loads(text, parse_constant=refuse)


def events(case, name):
    path = case.path(name, "metrics.jsonl")
    return [strict(line) for line in open(path)] if os.path.exists(path) else []


def weights(case, name):
    """Of each network."""
    for network in "ab"[:case.settings.get("model.networks", 2)]:
        raw = open(case.path(name, f"model-{network}.safetensors"), "rb").read()
        yield np.frombuffer(raw[8 + int.from_bytes(raw[:8], "little"):], "<f4")


def files_are_sound(case, name, told):
    for event in events(case, name):
        nulls = [key for key, value in event.items() if value is None]
        explained = event["event"] == "epoch" and ("skipped" in told or "no labelled samples" in told)
        case.check(not nulls or explained, f"null: {nulls} of {event}")
    strict(open(case.path(name, "summary.json")).read())
    case.check(all(np.isfinite(w).all() for w in weights(case, name)), "weights are not finite")
    if not case.divides:
        return
    rows = list(csv.DictReader(open(case.path(name, "labels.csv"), newline="")))
    case.check(len(rows) == case.data["count"], f"labels.csv has {len(rows)} rows")
    known = ("given", "suggested", "clean_probability", "ood_score", "suggested_probability")
    case.check(all(np.isfinite(float(row[key])) for row in rows for key in known), f"labels.csv: {rows[0]}")
    for path in glob.glob(case.path(name, "divisions", "*.h5")):
        with h5py.File(path) as f:
            for key in (n for network in "ab" if network in f for n in (network + "/" + k for k in f[network])):
                case.check(np.isfinite(f[key][()]).all(), f"{path}: {key} is not finite")


def finished_run_serves(case, draw):
    run = case.path("run")
    commands = [("report", run), ("export", run, "--safetensors", case.path("c.st")), ("export", run, "--onnx", case.path("c.onnx")),
                ("status", run), ("eval", run, "--json", "--split", "test" if case.data["tests"] else "train")]
    if case.divides:
        commands += [("export", run, "--csv", case.path("c.csv")), ("export", run, "--list", case.path("c.txt"))]
    for words in draw.sample(commands, 2):
        done = case.command(*words)
        if case.check(done.returncode == 0, f"{words}: {done.returncode} {done.stderr[-400:]}") and "--json" in words:
            strict(done.stdout)


def same_weights(case, other, why):
    for mine, theirs in zip(weights(case, "run"), weights(case, other)):
        case.check(np.array_equal(mine, theirs), f"{why}: weights differ by {np.abs(mine - theirs).max()}")


def first_loss(case, name):
    return next((e["loss"] or 0 for e in events(case, name) if e["event"] == "epoch" and "loss" in e), 0)


def is_calm(case):
    """Whether rounding alone tells numbers of ranks apart, and stays small for an epoch."""
    kept = ("train.lr_backbone", "train.lr_head", "pretrain.lr", "train.batchnorm", "train.micro_batch", "train.precision",
            "model.projection", "model.arch", "train.rce_weight")
    return all(case.settings.get(key) == BASE.get(key) for key in kept) and case.data["pictures"] in ("noise", "classes")


def other_ranks_agree(case, draw):
    ranks = draw.choice([r for r in (1, 2, 3) if r != case.ranks])
    if ranks > min(case.settings["train.batch"], case.settings["pretrain.batch"]):
        return
    other = case.train("other", ranks=ranks)
    if other.returncode == 5 and not is_calm(case) or not case.check(other.returncode == 0, f"{ranks} ranks: {other.returncode} {other.stderr[-600:]}"):
        return
    files_are_sound(case, "other", other.stderr)
    if case.settings.get("deterministic") == "true":
        same_weights(case, "other", f"{case.ranks} and {ranks} ranks")
    elif is_calm(case):
        mine, theirs = first_loss(case, "run"), first_loss(case, "other")
        case.check(abs(mine - theirs) <= 0.05 * abs(mine) + 1e-3, f"first loss on {case.ranks} and {ranks} ranks: {mine} {theirs}")


def examine(case):
    """What a case came to: a word; case.wrong tells what should not be."""
    draw = random.Random(case.seed)
    dry, done = case.train("dry", "--dry-run", ranks=case.ranks), case.train("run", ranks=case.ranks)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    case.check(done.returncode in (0, 2, 3, 4, 5) and len(lines) == (done.returncode != 0), f"{done.returncode}: {done.stderr[-900:]}")
    case.check(dry.returncode == (0 if done.returncode == 5 else done.returncode),
               f"--dry-run {dry.returncode} {dry.stderr[-300:]} but {done.returncode} {done.stderr[-300:]}")
    if done.returncode != 0:
        trained = [e for e in events(case, "run") if e["event"] == "epoch"]
        case.check(done.returncode == 5 or not trained, f"refused after {len(trained)} epochs: {lines}")
        return f"ended with {done.returncode}: {lines[:1]}"
    files_are_sound(case, "run", done.stderr)
    finished_run_serves(case, draw)
    states = sorted(glob.glob(case.path("run", "checkpoints", "*.h5")))
    if len(states) > 1 and draw.random() < 0.7:
        again = case.train("again", ranks=case.ranks, resume=states[0])
        if case.check(again.returncode == 0, f"resumed: {again.returncode} {again.stderr[-500:]}"):
            same_weights(case, "again", "resumed")
    other_ranks_agree(case, draw)
    return "ended"


def main():
    first, count, device = int(sys.argv[1]), int(sys.argv[2]), (sys.argv[3:] + ["cpu"])[0]
    failed = 0
    for seed in range(first, first + count):
        case = Case(seed, device)
        try:
            word = examine(case)
        except Exception as error:  # noqa: a failed case must not hide the others
            word = f"{type(error).__name__}: {error}"
            case.wrong.append(word)
        changed = " ".join(f"{k}={v}" for k, v in case.settings.items() if BASE.get(k) != v)
        print(f"{seed} {word} | {case.ranks} ranks {case.data} {changed}", *case.wrong, sep=f"\nWRONG {seed}: ", flush=True)
        failed += bool(case.wrong)
        shutil.rmtree(case.folder)
    print(f"{count - failed} of {count} hold")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
