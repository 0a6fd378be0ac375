"""A run from the command line: what it writes, on any number of ranks, stopped and gone on with."""
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np
from program import (events, halve_pictures, main, read, read_safetensors, run, shorten_test_set, start, train, command, PROGRAM,
                     SMALL, SOURCE)


def a_run_leaves_every_file_of_the_contract(work):
    done = train(work, "whole", "baseline=both")
    assert done.returncode == 0, done.stderr
    names = set(os.listdir(work.file("whole")))
    assert {"config.yaml", "environment.json", "metrics.jsonl", "divisions", "checkpoints", "model-a.safetensors",
            "model-b.safetensors", "labels.csv", "summary.json"} <= names, names
    summary = json.loads(read(work, "whole", "summary.json"))
    for key in ("final_top1", "before_semi_top1", "baseline_ce_top1", "baseline_sce_top1"):
        assert 0 <= summary[key] <= 1, key
    environment = json.loads(read(work, "whole", "environment.json"))
    assert environment["ranks"], environment
    kinds = {e["event"] for e in events(work, "whole")}
    assert {"start", "epoch", "divide", "checkpoint", "end"} <= kinds, kinds


def every_stage_and_loss_part_is_in_the_metrics(work):
    epochs = [e for e in events(work, "whole") if e["event"] == "epoch" and "loss" in e]
    assert {"pretrain", "warmup", "semi", "baseline_ce", "baseline_sce"} == {e["stage"] for e in epochs}
    for e in epochs:
        assert np.isfinite(e["loss"]) and e["images_per_s"] > 0
        if e["stage"] == "semi":
            for part in ("loss_x", "loss_u", "loss_xe", "loss_ue", "loss_contrast", "loss_balance"):
                assert np.isfinite(e[part]), part


def parts_of_the_loss_that_have_no_weight_are_neither_computed_nor_in_the_metrics(work):
    weights = ["semi.lambda_xe=0", "semi.lambda_ue=0", "semi.lambda_c=0"]
    done = train(work, "mixed-alone", "pretrain.epochs=0", "train.epochs=3", *weights, ranks=2)
    assert done.returncode == 0, done.stderr
    semi = [e for e in events(work, "mixed-alone") if e["event"] == "epoch" and e["stage"] == "semi" and "loss" in e]
    assert semi
    for e in semi:
        assert {name for name in e if name.startswith("loss_")} == {"loss_x", "loss_u", "loss_balance"}, e
        assert np.isfinite(e["loss"]) and e["loss"] >= e["loss_x"], e
    assert os.path.getsize(work.file("mixed-alone") + "/report.html") > 10000


def labels_csv_has_a_line_and_a_verdict_for_every_sample(work):
    with open(work.file("whole") + "/labels.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 400 and [int(r["index"]) for r in rows] == list(range(400))
    with h5py.File(work.data) as f:
        given = f["train/labels"][:]
    assert [int(r["given"]) for r in rows] == given.tolist()
    assert {r["verdict"] for r in rows} <= {"clean", "mislabelled", "out_of_distribution"}
    assert all(0 <= float(r["clean_probability"]) <= 1 for r in rows)
    assert sum(r["verdict"] == "out_of_distribution" for r in rows) > 0


def log_lines_count_epochs_from_1_and_files_from_0(work):
    log = train(work, "counted-on", "train.epochs=3", "pretrain.epochs=0", "report=false").stderr
    assert re.findall(r"^divide, epoch (\d+), network a", log, re.M) == re.findall(r"^semi epoch (\d+): test accuracy", log, re.M) == ["3"], log
    assert [e["epoch"] for e in events(work, "counted-on") if e["event"] == "divide" and "labelled" in e] == [2, 2]
    assert os.listdir(work.file("counted-on") + "/divisions") == ["epoch-0002.h5"]


def divisions_hold_scores_and_splits_that_agree_with_the_metrics(work):
    divide = [e for e in events(work, "whole") if e["event"] == "divide" and "labelled" in e]
    assert len(divide) == 4  # two divisions of two networks
    for e in divide:
        with h5py.File(work.file("whole") + f"/divisions/epoch-{e['epoch']:04d}.h5") as f:
            g = f[e["network"]]
            split = g["split"][:]
            assert [int((split == v).sum()) for v in (1, 2, 0)] == [e["labelled"], e["unlabelled"], e["removed"]]
            assert g["loss"].shape == g["clean_probability"].shape == g["ood_score"].shape == (400,)
            removed, kept = g["ood_score"][:][split == 0], g["ood_score"][:][split != 0]
            assert removed.min() >= kept.max()


def ood_scores_that_count_are_the_first_divisions_or_the_latest(work):
    for scores in ("first", "latest"):
        done = train(work, "scores-" + scores, "divide.ood_scores=" + scores)
        assert done.returncode == 0, done.stderr
        with h5py.File(work.file("scores-" + scores) + "/divisions/epoch-0002.h5") as before, \
                h5py.File(work.file("scores-" + scores) + "/divisions/epoch-0003.h5") as after:
            for network in "ab":
                assert not np.array_equal(before[network]["loss"][:], after[network]["loss"][:])
                same = np.array_equal(before[network]["ood_score"][:], after[network]["ood_score"][:])
                assert same == (scores == "first"), (scores, network)
                gone, still = (f[network]["split"][:] == 0 for f in (before, after))
                assert still.sum() > gone.sum() and (scores == "latest" or still[gone].all()), (scores, network)


def mean_distance(rows, among, k, own):
    """Mean cosine distance to the k nearest rows of `among`; a row is its own neighbour only with `own`."""
    similarity = rows @ rows.T
    if not own:
        np.fill_diagonal(similarity, -2)
    return 1 - np.sort(similarity[:, among], axis=1)[:, -k:].mean(axis=1)


def scores_among_clean_neighbours_and_the_networks_of_the_first_division_serve_predict(work):
    done = train(work, "among", "divide.ood_neighbours=clean", "divide.ood_scores=first", "divide.save=all")
    assert done.returncode == 0, done.stderr
    folder, expected = work.file("among"), 0
    with h5py.File(work.data) as f, h5py.File(work.file("asked.h5"), "w") as g:
        g["train/images"], g["train/labels"] = f["train/images"][:], f["train/labels"][:]
    reference, notes = read_safetensors(read(work, "among", "ood-reference.safetensors"))
    for network in "ab":
        with h5py.File(f"{folder}/divisions/epoch-0002.h5") as f:
            g = {name: array[:] for name, array in f[network].items()}
        rows = g["embedding"] / np.linalg.norm(g["embedding"], axis=1, keepdims=True)
        clean, labelled = g["clean_probability"] > 0.5, g["split"] == 1
        assert 20 < clean.sum() < 380
        assert np.allclose(g["ood_score"], mean_distance(rows, clean, 5, own=False), atol=1e-5)
        assert np.allclose(reference[network + ".embedding"], rows[labelled], atol=1e-5)
        threshold = float(notes[network + ".threshold"])
        beyond = mean_distance(rows, labelled, 5, own=False) > threshold
        assert abs(int(beyond.sum()) - int((g["split"] == 0).sum())) <= 1
        expected = expected + mean_distance(rows, labelled, 5, own=True) / threshold / 2
        assert (read(work, "among", f"ood-{network}.safetensors")
                == read(work, "among", f"divisions/epoch-0002-{network}.safetensors"))
    asked = run("predict", folder, work.file("asked.h5"), "--json")
    assert asked.returncode == 0, asked.stderr
    assert np.allclose([json.loads(line)["ood_score"] for line in asked.stdout.splitlines()], expected, atol=1e-3)


def another_run_in_the_folder_leaves_no_networks_of_the_first_division(work):
    before = read(work, "among", "ood-reference.safetensors")
    done = train(work, "among", "divide.ood_scores=latest", "--force")
    assert done.returncode == 0, done.stderr
    assert read(work, "among", "ood-reference.safetensors") != before
    assert not os.path.exists(work.file("among") + "/ood-a.safetensors")


def the_configuration_written_repeats_the_run(work):
    again = run("train", work.file("whole") + "/config.yaml", f"run={work.file('again')}")
    assert again.returncode == 0, again.stderr
    assert read(work, "again", "model-a.safetensors") == read(work, "whole", "model-a.safetensors")


# Without deterministic sums rounding differs with the number of ranks, and training amplifies it (about tenfold every few steps at
# the quickstart's rates, in the same program on one rank as well): small rates keep the comparison a test of the distributed code.
CALM = ["deterministic=false", "pretrain.lr=0.0003", "train.lr_backbone=0.0003", "train.lr_head=0.0003", "divide.interval=10"]


def lies_at_a_limit(division, sample, threshold):
    """Whether rounding may decide about a sample: its OOD score is that of the last one removed, or its clean probability the threshold."""
    last_kept = division["ood_score"][division["split"] != 0].max()
    return (abs(division["ood_score"][sample] - last_kept) <= 2e-3 * last_kept
            or abs(division["clean_probability"][sample] - threshold) <= 0.01)


def without_deterministic_sums_losses_and_all_but_marginal_splits_do_not_depend_on_the_number_of_ranks(work):
    reference = None
    for ranks in (1, 2, 3, 4):
        name = f"calm{ranks}"
        done = train(work, name, *CALM, ranks=ranks)
        assert done.returncode == 0, done.stderr
        losses = [(e["stage"], e["epoch"], e["network"], e["loss"]) for e in events(work, name)
                  if e["event"] == "epoch" and "loss" in e]
        assert len(losses) == 12  # two epochs of each stage, two networks
        with h5py.File(work.file(name) + "/divisions/epoch-0002.h5") as f:
            divisions = [{k: f[n][k][:] for k in ("split", "ood_score", "clean_probability")} for n in "ab"]
        if reference is None:
            reference = losses, divisions
            continue
        for mine, other in zip(divisions, reference[1]):
            differing = np.nonzero(mine["split"] != other["split"])[0]
            assert len(differing) <= 4, f"{ranks} ranks: {len(differing)} of 400 samples differ"
            for sample in differing:
                assert lies_at_a_limit(mine, sample, 0.5) and lies_at_a_limit(other, sample, 0.5), (ranks, sample)
        for mine, other in zip(losses, reference[0]):
            assert mine[:3] == other[:3]
            assert abs(mine[3] - other[3]) <= 1e-3 * abs(other[3]), (ranks, mine, other)


def splits_losses_and_weights_are_the_same_bits_on_every_number_of_ranks_and_threads(work):
    for precision in ("fp32", "prefer_bf16"):
        have_the_same_bits(work, precision)
    done = train(work, "five", "deterministic=true", "run.oversubscribe=true", ranks=5)
    assert done.returncode == 2 and "1, 2, 3, 4, 6 and 12" in done.stderr, done.stderr
    done = train(work, "five", "run.oversubscribe=true", ranks=5)
    assert done.returncode == 0 and "deterministic=auto: sums differ by rounding" in done.stderr, done.stderr


def have_the_same_bits(work, precision):
    """As the quickstart has it (deterministic=auto), at full learning rates, where a rounding in the last place soon decides about
    samples near the threshold."""
    settings = ["train.lr_backbone=0.02", "train.lr_head=0.05", "pretrain.lr=0.06", "run.oversubscribe=true", f"train.precision={precision}",
                "divide.save=all"]
    reference = None
    for ranks, threads in ((1, 2), (1, 1), (2, 1), (3, 1), (4, 2), (6, 1)):
        name = f"exact{ranks}-{threads}-{precision}"
        done = train(work, name, *settings, f"run.threads={threads}", ranks=ranks)
        assert done.returncode == 0, done.stderr
        with h5py.File(work.file(name) + "/divisions/epoch-0003.h5") as f:
            arrays = {f"{n}/{a}": f[f"{n}/{a}"][:] for n in "ab"
                      for a in ("loss", "clean_probability", "ood_score", "split", "embedding", "logits")}
        files = [read(work, name, member) for member in ("model-a.safetensors", "model-b.safetensors", "labels.csv")]
        losses = [e["loss"] for e in events(work, name) if e["event"] == "epoch" and "loss" in e]
        reference = reference or (arrays, files, losses)
        for key, values in arrays.items():
            assert np.array_equal(values, reference[0][key]), f"{name}: {key} differs"
        assert files == reference[1], f"{name}: weights or labels differ"
        assert np.allclose(losses, reference[2], rtol=1e-9, atol=0), name  # told with nine digits


def runs_to_compare_with_end_well(work):
    for ranks in (1, 2):
        done = train(work, f"ranks{ranks}", ranks=ranks)
        assert done.returncode == 0, done.stderr


def stop_in_the_middle(work, name, ranks, stage):
    """Starts a run, stops it by USR1 once `stage` has begun, and returns the exit code."""
    arguments = ["train", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={work.data}",
                 f"run={work.file(name)}", *SMALL]
    process = start(*arguments, ranks=ranks)
    metrics = work.file(name) + "/metrics.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if os.path.exists(metrics) and f'"stage":"{stage}"' in open(metrics).read().replace(" ", ""):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=120)
    return process.returncode


def a_stopped_run_goes_on_to_the_same_bits(work):
    for stage in ("pretrain", "warmup", "semi"):
        name = "stopped-" + stage
        code = stop_in_the_middle(work, name, 1, stage)
        assert code == 75, f"{stage}: exit code {code}"
        done = train(work, name)
        assert done.returncode == 0, done.stderr
        for member in ("model-a.safetensors", "model-b.safetensors", "labels.csv"):
            assert read(work, name, member) == read(work, "ranks1", member), f"{stage}: {member} differs"
        with open(work.file(name) + "/metrics.jsonl") as f:
            lines = [json.loads(line) for line in f]
        losses = [(e["stage"], e["epoch"], e["network"], e["loss"]) for e in lines if e["event"] == "epoch" and "loss" in e]
        wanted = [(e["stage"], e["epoch"], e["network"], e["loss"]) for e in events(work, "ranks1")
                  if e["event"] == "epoch" and "loss" in e]
        assert losses == wanted, stage
        assert count_images(work, name) == count_images(work, "ranks1"), stage
        summary = json.loads(read(work, name, "summary.json"))
        taken = summary["seconds_by_stage"]  # before the stop as well
        assert taken[stage] >= (1 - 1e-6) * sum(e["seconds"] for e in lines if e.get("stage") == stage and "seconds" in e), stage
        assert summary["seconds"] >= sum(taken.values()), (stage, summary)


def count_images(work, name):
    """Of pretraining, warm-up and MixEMatch, as the summary's rate tells."""
    summary = json.loads(read(work, name, "summary.json"))
    return round(summary["images_per_s"] * sum(summary["seconds_by_stage"][stage] for stage in ("pretrain", "warmup", "semi")))


def a_run_stopped_on_two_ranks_goes_on_with_the_same_bits_on_two(work):
    assert stop_in_the_middle(work, "two", 2, "warmup") == 75
    assert train(work, "two", ranks=2).returncode == 0
    assert read(work, "two", "model-a.safetensors") == read(work, "ranks2", "model-a.safetensors")


def a_run_stopped_on_one_rank_goes_on_on_three(work):
    assert stop_in_the_middle(work, "moved", 1, "warmup") == 75
    done = train(work, "moved", ranks=3)
    assert done.returncode == 0, done.stderr
    assert events(work, "moved")[-1]["event"] == "end"
    assert any(e["event"] == "resume" and e["ranks"] == 3 for e in events(work, "moved"))


def a_finished_run_started_again_has_nothing_to_do(work):
    before, summary = read(work, "whole", "model-a.safetensors"), json.loads(read(work, "whole", "summary.json"))
    assert train(work, "whole", "baseline=both").returncode == 0
    assert read(work, "whole", "model-a.safetensors") == before
    again = json.loads(read(work, "whole", "summary.json"))  # its seconds are those of all its starts
    assert again["seconds"] >= sum(again["seconds_by_stage"].values()) > 0, again
    assert again["seconds_by_stage"] == summary["seconds_by_stage"], (summary, again)


def baselines_may_be_asked_for_until_the_first_has_begun_and_after_the_run(work):
    shutil.copytree(work.file("ranks1"), work.file("asked-later"))
    done = train(work, "asked-later", "baseline=ce", "--dry-run")
    assert done.returncode == 0 and "would go on from" in done.stderr, done.stderr
    for baseline, ran in (("ce", 4), ("both", 8)):
        done = train(work, "asked-later", f"baseline={baseline}")
        assert done.returncode == 0, done.stderr
        losses = [e["loss"] for e in events(work, "asked-later") if "loss" in e and e["stage"].startswith("baseline")]
        wanted = [e["loss"] for e in events(work, "whole") if "loss" in e and e["stage"].startswith("baseline")]
        assert len(wanted) == 8 and losses == wanted[:ran], (losses, wanted)
    for member in ("model-a.safetensors", "model-b.safetensors", "labels.csv"):
        assert read(work, "asked-later", member) == read(work, "whole", member), member
    known = [json.loads(read(work, name, "summary.json")) for name in ("asked-later", "whole")]
    for key in ("final_top1", "before_semi_top1", "baseline_ce_top1", "baseline_sce_top1"):
        assert known[0][key] == known[1][key], key

def a_finished_run_has_nothing_to_do_for_fewer_baselines(work):
    before = {member: read(work, "asked-later", member) for member in ("model-a.safetensors", "labels.csv", "checkpoints/latest")}
    scores = json.loads(read(work, "asked-later", "summary.json"))
    for baseline in ("none", "ce", "sce", "both"):
        for check in (["--dry-run"], []):
            done = train(work, "asked-later", f"baseline={baseline}", *check)
            assert done.returncode == 0, done.stderr
        assert {member: read(work, "asked-later", member) for member in before} == before, baseline
        known = json.loads(read(work, "asked-later", "summary.json"))
        assert all(known[key] == scores[key] is not None for key in ("baseline_ce_top1", "baseline_sce_top1", "final_top1")), known
    shutil.copytree(work.file("ranks1"), work.file("one-later"))
    assert train(work, "one-later", "baseline=ce").returncode == 0
    for baseline, code in (("none", 0), ("sce", 2), ("ce", 0)):
        for check in (["--dry-run"], []):
            done = train(work, "one-later", f"baseline={baseline}", *check)
            assert done.returncode == code, done.stderr
    assert len([e for e in events(work, "one-later") if "loss" in e and e["stage"] == "baseline_ce"]) == 4


def of_the_run_before(work, name):
    folder = work.file(name) + "/checkpoints/"
    return {member: read(work, name, "checkpoints/" + member) for member in os.listdir(folder)}, read(work, name, "metrics.jsonl")


def force_loses_nothing_to_a_slip_and_then_leaves_nothing_to_go_on_from(work):
    shutil.copytree(work.file("ranks1"), work.file("anew"))
    before = of_the_run_before(work, "anew")
    for slip, code in (("model.init=nowhere.safetensors", 3), ("data.train=nowhere.h5", 3), ("train.batch=4000", 2),
                       (f"resume={work.file('anew')}/checkpoints/latest", 2)):
        done = train(work, "anew", "--force", slip)
        assert done.returncode == code and of_the_run_before(work, "anew") == before, (slip, done.stderr)
    metrics = work.file("anew") + "/metrics.jsonl"
    process = start("train", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={work.data}", f"run={work.file('anew')}",
                    *SMALL, "--force", "checkpoint.every=99", "checkpoint.minutes=600")
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        text = open(metrics, "rb").read()
        if len(text) < len(before[1]) and b'"loss"' in text:
            break
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and os.listdir(work.file("anew") + "/checkpoints") == [], process.returncode
    left = set(os.listdir(work.file("anew"))) - {".lock", "flight", "checkpoints", "divisions", "config.yaml", "environment.json",
                                                 "metrics.jsonl", "restarts.json"}
    assert all(name.startswith("events.") for name in left) and os.listdir(work.file("anew") + "/divisions") == [], left
    done = train(work, "anew")
    assert done.returncode == 0 and "going on from" not in done.stderr, done.stderr
    assert read(work, "anew", "model-a.safetensors") == read(work, "ranks1", "model-a.safetensors")


def a_dry_run_foresees_that_its_run_would_be_refused(work):
    before = sorted(os.listdir(work.file("whole")))
    for arguments, told in ((["train.batch=20"], "train.batch was 40 and is 20"),
                            (["baseline=both", "resume=never"], "holds a run and resume=never")):
        done = train(work, "whole", "--dry-run", *arguments)
        assert done.returncode == 2 and told in done.stderr and "semi works" in done.stderr, done.stderr
        assert train(work, "whole", "--dry-run", "--force", *arguments).returncode == 0
    assert sorted(os.listdir(work.file("whole"))) == before


def one_network_streamed_data_local_statistics_and_bf16_all_work(work):
    variants = {"one": ["model.networks=1"], "stream": ["data.resident=stream"], "local": ["train.batchnorm=local"],
                "frozen": ["train.batchnorm=frozen"], "average": ["model.ema=0.9"], "all": ["divide.save=all"],
                "views": ["semi.views=weak", "semi.supervised=ce"]}
    if "avx512_bf16" in open("/proc/cpuinfo").read():
        variants["bf16"] = ["train.precision=bf16"]
    for name, arguments in variants.items():
        done = train(work, "v-" + name, *arguments, ranks=2)
        assert done.returncode == 0, (name, done.stderr)
    assert read(work, "v-stream", "model-a.safetensors") == read(work, "ranks2", "model-a.safetensors")
    with h5py.File(work.file("v-all") + "/divisions/epoch-0002.h5") as f:
        assert f["a/embedding"].shape == (400, 64) and f["b/logits"].shape == (400, 8)


def a_streamed_file_that_is_overwritten_ends_the_run(work):
    path, former = work.file("overwritten.h5"), open(work.data, "rb").read()
    with open(path, "wb") as f:
        f.write(former)
    settings = [f"data.train={path}", "data.resident=stream", "train.epochs=200", "divide.interval=50"]
    process = start("train", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"run={work.file('overwritten')}", *SMALL, *settings, ranks=2)
    metrics = work.file("overwritten") + "/metrics.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None and not (os.path.exists(metrics) and '"loss"' in open(metrics).read()):
        time.sleep(0.02)
    os.utime(path)  # harmless
    time.sleep(1)
    assert process.poll() is None, process.communicate()
    with h5py.File(path, "r+") as f:  # in place
        f["train/images"][:] = 255 - f["train/images"][:]
    told = process.communicate(timeout=120)[1]
    errors = [line for line in told.splitlines() if line.startswith("error")]
    assert process.returncode == 3 and len(errors) == 1 and "overwritten.h5 was changed while it was in use" in errors[0], told
    again = train(work, "overwritten", *settings)
    assert again.returncode == 2 and "was made with other data" in again.stderr, again.stderr


def results_are_not_taken_for_those_of_a_file_that_has_changed(work):
    path = work.file("replaced.h5")
    shutil.copy(work.data, path)
    assert train(work, "replaced", f"data.train={path}", "train.epochs=3", "pretrain.epochs=0").returncode == 0
    os.utime(path)
    for other in (False, True):
        if other:
            with h5py.File(path, "r+") as f:
                f["train/labels"][:] = f["train/labels"][:][::-1]
        for command_line in (["eval", work.file("replaced")], ["report", work.file("replaced"), "--out", work.file("replaced.html")]):
            done = run(*command_line)
            assert done.returncode == 0 and ("replaced.h5 is not the data set of the run" in done.stderr) == other, done.stderr
    named = run("eval", work.file("replaced"), path)
    assert named.returncode == 0 and "is not the data set" not in named.stderr, named.stderr


def averaged_weights_have_the_same_local_statistics_on_all_ranks(work):
    """What two ranks measured, each its own pictures, is what the file of the first one's network is worth."""
    for batch in (8, 16):
        name = f"averaged-{batch}"
        done = train(work, name, "train.batchnorm=local", "model.ema=0.5", "model.networks=1", "pretrain.epochs=0", "train.epochs=2",
                     "train.rce_weight=0.1", "train.lr_backbone=0.02", "train.lr_head=0.02", f"train.batch={batch}", "report=false", ranks=2)
        assert done.returncode == 0, done.stderr
        alone, summary = json.loads(run("eval", work.file(name), work.data, "--json").stdout), json.loads(read(work, name, "summary.json"))
        for kind in ("top1", "top5"):
            assert abs(alone[kind] - summary["final_" + kind]) < 1e-6, (batch, kind, alone[kind], summary)


def ranks_prefer_bf16_where_the_processors_of_all_have_it(work):
    flags = open("/proc/cpuinfo").read()
    # The second rank's processor passes for an older one.
    older = ["sh", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then export ONEDNN_MAX_CPU_ISA=AVX2; fi; exec "$@"', "sh", PROGRAM]
    for name, program, expected in (("alike", [PROGRAM], "bf16" if "avx512_bf16" in flags else "fp32"), ("mixed", older, "fp32")):
        arguments = ["train", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={work.data}", f"run={work.file('p-' + name)}",
                     *SMALL, "train.precision=prefer_bf16", "train.epochs=2", "train.warmup=1", "pretrain.epochs=1"]
        done = subprocess.run([os.path.join(SOURCE, "tests", "mpirun.sh"), "2", *program, *arguments], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert json.loads(read(work, "p-" + name, "summary.json"))["precision"] == expected, (name, expected)


def without_a_warm_up_nothing_is_told_of_before(work):
    done = train(work, "cold", "train.warmup=0", "train.epochs=1", "pretrain.epochs=0", "model.networks=1", "report=false")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\ntest accuracy of the network: 0\.\d+\n", done.stderr), done.stderr
    assert "before the semi-supervised phase)" in train(work, "ranks1").stderr


def no_more_than_half_of_the_samples_is_removed(work):
    settings = ["divide.remove_first=0.6", "divide.remove_step=0.1", "pretrain.epochs=0", "model.networks=1", "report=false"]
    done = train(work, "halved", *settings)
    assert done.returncode == 0, done.stderr
    assert [e["removed"] for e in events(work, "halved") if e["event"] == "divide"] == [200, 200, 200]
    told = [e for e in events(work, "halved") if e["event"] == "warning" and "240 of 400 samples" in e["message"]]
    assert len(told) == 1, done.stderr


def what_a_set_has_none_of_gets_no_auc(work):
    done = train(work, "strangers")
    assert re.search(r"divide, epoch \d, network a: .* removed; AUC of noise 0\.\d+; AUC of OOD [01]\.\d+\n", done.stderr), done.stderr
    made = run("data", "noise", work.full, work.file("members.h5"), "--samples", "200", "--symmetric", "0.4", "--seed", "3")
    assert made.returncode == 0, made.stderr
    shorten_test_set(work.file("members.h5"), 100)
    halve_pictures(work.file("members.h5"))
    done = train(work, "members", f"data.train={work.file('members.h5')}")
    assert re.search(r"divide, epoch \d, network a: .* removed; AUC of noise 0\.\d+\n", done.stderr), done.stderr
    kinds = {("auc_noise" in e, "auc_ood" in e) for e in events(work, "members") if e["event"] == "divide"}
    assert (True, False) in kinds and not any(strangers for _, strangers in kinds), kinds


def a_baseline_that_nothing_measures_is_warned_of(work):
    with h5py.File(work.data) as source, h5py.File(work.file("no-test.h5"), "w") as f:
        f["train/images"], f["train/labels"] = source["train/images"][:], source["train/labels"][:]
    short = ["train.epochs=1", "train.warmup=1", "pretrain.epochs=0", "baseline=ce"]
    done = train(work, "unmeasured", f"data.train={work.file('no-test.h5')}", *short)
    assert done.returncode == 0 and "nothing will measure it" in done.stderr, done.stderr
    done = train(work, "measured", *short)
    assert done.returncode == 0 and "nothing will measure it" not in done.stderr, done.stderr


def an_order_by_blocks_is_another_one_and_the_same_wherever_pictures_are_kept(work):
    few, config = work.file("runs.h5"), os.path.join(SOURCE, "configs", "quickstart.yaml")
    # 1337 pictures are a run: two of them and a rest
    assert run("data", "noise", work.full, few, "--samples", "2700", "--symmetric", "0.2").returncode == 0
    weights = []
    for name, arguments in (("s", ["data.resident=stream", "data.shuffle=blocks"]), ("h", ["data.shuffle=blocks"]), ("f", [])):
        done = run("train", config, f"data.train={few}", f"run={work.file('blocks-' + name)}", *SMALL, "train.epochs=1",
                   "train.warmup=1", "pretrain.epochs=1", "model.networks=1", "report=false", *arguments)
        assert done.returncode == 0, done.stderr
        weights.append(read(work, "blocks-" + name, "model-a.safetensors"))
    assert weights[0] == weights[1]
    assert weights[1] != weights[2]


def a_validation_set_chooses_the_best_networks_and_ends_training_in_time(work):
    clean = work.file("clean.h5")
    shutil.copy(work.data, clean)  # measured on its test set, as on the training file's own: the numbers must agree
    done = train(work, "validated", f"data.validation={clean}", ranks=2)
    assert done.returncode == 0, done.stderr
    measured = [e for e in events(work, "validated") if "validation_top1" in e]
    assert len(measured) == 4 and all(e["validation_top1"] == e["test_top1"] for e in measured)
    with open(work.file("validated") + "/summary.json") as f:
        summary = json.load(f)
    best = max(measured, key=lambda e: e["validation_top1"])
    assert summary["best_validation_top1"] == best["validation_top1"]
    assert summary["best_validation_epoch"] == best["epoch"]
    beside = train(work, "validated", f"data.validation={clean}", "baseline=both")
    assert beside.returncode == 0, beside.stderr
    compared = [e for e in events(work, "validated") if e.get("network") == "baseline"]
    assert len(compared) == 8 and all(e["validation_top1"] == e["test_top1"] for e in compared), compared
    both = json.loads(read(work, "validated", "summary.json"))
    for kind in ("ce", "sce"):
        seen = [e["validation_top1"] for e in compared if e["stage"] == f"baseline_{kind}"]
        assert both[f"baseline_{kind}_best_validation_top1"] == max(seen) and both[f"baseline_{kind}_top1"] == seen[-1], (both, seen)
        assert f'data-key="baseline_{kind}_best_validation_top1"' in read(work, "validated", "report.html").decode()
    assert both["best_validation_top1"] == summary["best_validation_top1"] and both["best_validation_epoch"] == summary["best_validation_epoch"]
    assert train(work, "validated", f"data.validation={clean}").returncode == 0  # taken from the checkpoint
    again = json.loads(read(work, "validated", "summary.json"))
    assert [again[key] for key in again if "validation" in key] == [both[key] for key in both if "validation" in key], again
    last_is_best = best["epoch"] == measured[-1]["epoch"]
    for letter in "ab":
        same = read(work, "validated", f"best-{letter}.safetensors") == read(work, "validated", f"model-{letter}.safetensors")
        assert same == last_is_best
    done = train(work, "patient", f"data.validation={clean}", "train.patience=1", "train.epochs=9", "train.lr_backbone=1e-9",
                 "train.lr_head=1e-9", "train.batchnorm=frozen", "divide.interval=100")
    assert done.returncode == 0, done.stderr
    trained = {e["epoch"] for e in events(work, "patient") if e.get("stage") in ("warmup", "semi")}
    assert trained == {0, 1, 2, 3}, trained  # warm-up of two, one to compare with, one without gain
    done = train(work, "measured-late", f"data.validation={clean}", "train.patience=1", "train.epochs=9", "train.evaluate_every=6",
                 "train.lr_backbone=1e-9", "train.lr_head=1e-9", "train.batchnorm=frozen", "divide.interval=100")
    assert done.returncode == 0, done.stderr
    measured = [e["epoch"] for e in events(work, "measured-late") if "validation_top1" in e]
    assert measured == [1, 5], measured  # nothing is given up before it was measured


def a_share_held_out_is_judged_but_never_trained_on(work):
    """Other pictures in the share change nothing that is learned (with no removal by neighbours); others elsewhere do."""
    settings = ["data.validation=0.2", "divide.remove_first=0", "divide.remove_step=0", "pretrain.epochs=1", "train.epochs=3"]
    done = train(work, "share", *settings, ranks=2)
    assert done.returncode == 0 and "80 of 400" in done.stderr, done.stderr
    with h5py.File(work.file("share") + "/divisions/epoch-0002.h5") as f:
        held = f["held_out"][:].astype(bool)
    with h5py.File(work.data) as f:
        labels = f["train/labels"][:]
    assert held.sum() == 80 and all(abs(held[labels == c].sum() - 0.2 * (labels == c).sum()) <= 1 for c in range(8))
    measured = [e["validation_top1"] for e in events(work, "share") if "validation_top1" in e]
    assert len(measured) == 3 and all(abs(80 * m - round(80 * m)) < 1e-9 for m in measured), measured
    with open(work.file("share") + "/summary.json") as f:
        assert json.load(f)["best_validation_top1"] == max(measured)
    for name, changed in (("held", np.flatnonzero(held)), ("trained", np.flatnonzero(~held)[:5])):
        path = work.file(f"other-{name}.h5")
        shutil.copy(work.data, path)
        with h5py.File(path, "r+") as f:
            images = f["train/images"][:]
            images[changed] = 255 - images[changed]
            f["train/images"][...] = images
        done = train(work, f"other-{name}", f"data.train={path}", *settings, ranks=2)
        assert done.returncode == 0, done.stderr
        same = read(work, "share", "model-a.safetensors") == read(work, f"other-{name}", "model-a.safetensors")
        assert same == (name == "held"), name


def micro_batches_change_nothing_where_no_statistics_tie_rows_together(work):
    """Frozen batch norm: steps in parts are the same steps. With statistics of their own they still train."""
    settings = ["pretrain.epochs=0", "train.batchnorm=frozen", f"model.init={work.file('whole')}/model-a.safetensors", "train.epochs=3"]
    losses = []
    for name, extra in (("at-once", []), ("in-parts", ["train.micro_batch=7"])):
        done = train(work, name, *settings, *extra, ranks=2)
        assert done.returncode == 0, done.stderr
        losses.append([e["loss"] for e in events(work, name) if e["event"] == "epoch" and "loss" in e])
    assert len(losses[0]) == 6 and np.allclose(losses[0][:2], losses[1][:2], rtol=1e-4), losses
    assert np.allclose(losses[0], losses[1], rtol=2e-2), losses  # a sample near the threshold may change sides
    done = train(work, "parts-with-statistics", "train.micro_batch=5", "pretrain.epochs=1", "train.epochs=3")
    assert done.returncode == 0, done.stderr
    told = {}
    for parts in ("auto", "4"):
        done = train(work, "tell", "--dry-run", f"train.micro_batch={parts}", "pretrain.batch=400", "train.batch=200")
        told[parts] = int(done.stderr.split("(activations ")[1].split(",")[0])
    assert told["4"] < told["auto"] / 4, told


def a_dry_run_writes_nothing(work):
    done = train(work, "dry", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not os.path.exists(work.file("dry"))
    assert "semi works" in done.stderr


def a_dry_run_rehearses_every_stage_once_and_learns_nothing(work):
    fatal = ["pretrain.lr=100", "train.lr_backbone=100", "train.lr_head=100", "train.rce_weight=1000", "train.batch=400"]  # to the first division after one step
    for warmup, stages in ((2, ["pretrain", "warmup", "semi"]), (0, ["pretrain", "semi"]), (4, ["pretrain", "warmup"])):
        done = train(work, "dry", "--dry-run", f"train.warmup={warmup}", *fatal)
        assert done.returncode == 0 and re.findall(r"dry run: (\w+) works", done.stderr) == stages, (warmup, done.returncode, done.stderr)


def weights_load_under_their_pytorch_names(work):
    raw = read(work, "whole", "model-a.safetensors")
    header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
    for name in ("encoder.conv1.weight", "encoder.bn1.running_mean", "encoder.layer1.0.bn1.weight",
                 "encoder.layer2.0.shortcut.0.weight", "fc.weight", "fc.bias", "projection_head.weight",
                 "bnl.running_var"):
        assert name in header, name
    assert header["fc.weight"]["shape"] == [8, 64]


main([a_run_leaves_every_file_of_the_contract, every_stage_and_loss_part_is_in_the_metrics,
      parts_of_the_loss_that_have_no_weight_are_neither_computed_nor_in_the_metrics,
      labels_csv_has_a_line_and_a_verdict_for_every_sample,
      log_lines_count_epochs_from_1_and_files_from_0, divisions_hold_scores_and_splits_that_agree_with_the_metrics,
      ood_scores_that_count_are_the_first_divisions_or_the_latest,
      scores_among_clean_neighbours_and_the_networks_of_the_first_division_serve_predict,
      another_run_in_the_folder_leaves_no_networks_of_the_first_division, the_configuration_written_repeats_the_run,
      without_deterministic_sums_losses_and_all_but_marginal_splits_do_not_depend_on_the_number_of_ranks,
      splits_losses_and_weights_are_the_same_bits_on_every_number_of_ranks_and_threads, runs_to_compare_with_end_well,
      a_stopped_run_goes_on_to_the_same_bits,
      a_run_stopped_on_two_ranks_goes_on_with_the_same_bits_on_two, a_run_stopped_on_one_rank_goes_on_on_three,
      a_finished_run_started_again_has_nothing_to_do,
      baselines_may_be_asked_for_until_the_first_has_begun_and_after_the_run, a_finished_run_has_nothing_to_do_for_fewer_baselines,
      force_loses_nothing_to_a_slip_and_then_leaves_nothing_to_go_on_from,
      a_dry_run_foresees_that_its_run_would_be_refused, one_network_streamed_data_local_statistics_and_bf16_all_work,
      a_streamed_file_that_is_overwritten_ends_the_run, results_are_not_taken_for_those_of_a_file_that_has_changed,
      averaged_weights_have_the_same_local_statistics_on_all_ranks,
      an_order_by_blocks_is_another_one_and_the_same_wherever_pictures_are_kept,
      ranks_prefer_bf16_where_the_processors_of_all_have_it, what_a_set_has_none_of_gets_no_auc, without_a_warm_up_nothing_is_told_of_before, no_more_than_half_of_the_samples_is_removed,
      a_baseline_that_nothing_measures_is_warned_of,
      a_validation_set_chooses_the_best_networks_and_ends_training_in_time,
      a_share_held_out_is_judged_but_never_trained_on, a_dry_run_writes_nothing, a_dry_run_rehearses_every_stage_once_and_learns_nothing,
      micro_batches_change_nothing_where_no_statistics_tie_rows_together, weights_load_under_their_pytorch_names], halved=True)
