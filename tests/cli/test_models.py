"""Weights in and out, and what a finished run answers: eval, predict, export."""
import csv
import io
import json
import os
import shutil
import subprocess

import h5py
import numpy as np
from program import PROGRAM, SMALL, SOURCE, main, read, read_safetensors, run, train


def write_safetensors(path, tensors):
    header, at, parts = {}, 0, []
    for name, value in tensors.items():
        data = np.ascontiguousarray(value, "<i8" if value.dtype == np.int64 else "<f4").tobytes()
        header[name] = {"dtype": "I64" if value.dtype == np.int64 else "F32", "shape": list(value.shape),
                        "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(parts))


def the_test_set(work):
    with h5py.File(work.data) as f:
        return f["test/images"][:], f["test/labels"][:]


def a_run_to_ask_ends_well(work):
    done = train(work, "asked")
    assert done.returncode == 0, done.stderr
    assert os.path.exists(work.file("asked") + "/ood-reference.safetensors")


def eval_gives_the_accuracy_that_the_run_measured(work):
    done = run("eval", work.file("asked"), "--json")
    assert done.returncode == 0, done.stderr
    result, summary = json.loads(done.stdout), json.loads(read(work, "asked", "summary.json"))
    assert abs(result["top1"] - summary["final_top1"]) < 1e-9 and abs(result["top5"] - summary["final_top5"]) < 1e-9
    confusion = np.array(result["confusion"])
    assert confusion.sum() == result["samples"] == 300
    assert np.isclose(np.trace(confusion) / 300, result["top1"], atol=1e-6)
    labels = the_test_set(work)[1]
    assert confusion.sum(1).tolist() == np.bincount(labels, minlength=8).tolist()
    for row in result["per_class"]:
        assert np.isclose(row["recall"], confusion[row["class"], row["class"]] / confusion[row["class"]].sum(), atol=1e-6)
    text = run("eval", work.file("asked"))
    assert text.returncode == 0 and f"{result['top1']:.4f}" in text.stdout and "confusion matrix" in text.stdout


def eval_counts_the_same_on_two_and_three_ranks(work):
    alone = json.loads(run("eval", work.file("asked"), work.data, "--json").stdout)
    for ranks in (2, 3):
        done = run("eval", work.file("asked"), work.data, "--json", ranks=ranks)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == alone


def eval_of_the_training_set_uses_the_truth_and_leaves_strangers_out(work):
    result = json.loads(run("eval", work.file("asked"), "--split", "train", "--json").stdout)
    with h5py.File(work.data) as f:
        truth = f["train/true_labels"][:]
    assert result["left_out"] == (truth < 0).sum() > 0
    assert result["samples"] == (truth >= 0).sum()
    assert np.array(result["confusion"]).sum(1).tolist() == np.bincount(truth[truth >= 0], minlength=8).tolist()


def a_set_without_the_truth_is_measured_by_its_given_labels_and_says_so(work):
    path = work.file("no-truth.h5")
    with h5py.File(work.data) as source, h5py.File(path, "w") as f:
        f["train/images"], f["train/labels"] = source["train/images"][:], source["train/labels"][:]
    told = [run("eval", work.file("asked"), data, "--split", "train").stdout for data in (path, work.data)]
    assert "against the given labels" in told[0] and "row: given class" in told[0], told[0]
    assert "given" not in told[1] and "row: true class" in told[1], told[1]


def eval_and_report_find_the_data_from_any_folder(work):
    done = train(work, "elsewhere/", "data.train=noisy.h5", "train.epochs=1", "train.warmup=1", "pretrain.epochs=0", cwd=work.path)
    assert done.returncode == 0 and "//report.html" not in done.stderr, done.stderr
    assert json.loads(read(work, "elsewhere", "summary.json"))["name"] == work.file("elsewhere")
    os.makedirs(work.file("beside"))
    told = [run("eval", work.file("elsewhere"), "--json", cwd=folder) for folder in (work.path, work.file("beside"))]
    assert told[0].returncode == told[1].returncode == 0, told[1].stderr
    assert json.loads(told[0].stdout)["top1"] == json.loads(told[1].stdout)["top1"]
    done = run("report", work.file("elsewhere"), cwd=work.file("beside"))
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr


def eval_refuses_pictures_of_another_size_and_unfinished_runs(work):
    with h5py.File(work.file("tiny.h5"), "w") as f:
        f["train/images"], f["train/labels"] = np.zeros((4, 16, 16, 1), np.uint8), np.arange(4, dtype=np.int32)
        f["test/images"], f["test/labels"] = np.zeros((4, 16, 16, 1), np.uint8), np.arange(4, dtype=np.int32)
    done = run("eval", work.file("asked"), work.file("tiny.h5"))
    assert done.returncode == 3 and "16x16x1" in done.stderr and "28x28x1" in done.stderr, done.stderr
    done = run("eval", work.file("nothing"))
    assert done.returncode == 3 and "nothing" in done.stderr
    os.makedirs(work.file("empty"))
    done = run("predict", work.file("empty"), work.data)
    assert done.returncode == 3 and "model-a.safetensors" in done.stderr


def classes_in_another_order_are_warned_of(work):
    names = [f"class {c}" for c in range(8)]
    for name, order in (("named.h5", names), ("turned.h5", names[1:] + names[:1])):
        shutil.copy(work.data, work.file(name))
        with h5py.File(work.file(name), "r+") as f:
            f.pop("class_names", None)
            f["class_names"] = order
    same, other = f"data.test={work.file('named.h5')}", f"data.test={work.file('turned.h5')}"
    warning = "class 0 is 'class 1', but 'class 0' in the training set"
    for test, expected in ((same, False), (other, True)):
        done = train(work, "order", f"data.train={work.file('named.h5')}", test, "--dry-run")
        assert done.returncode == 0 and (warning in done.stderr) == expected, done.stderr
    done = train(work, "order", f"data.train={work.file('named.h5')}", "train.epochs=1", "train.warmup=1", "pretrain.epochs=0")
    assert done.returncode == 0, done.stderr
    for name, expected in (("named.h5", False), ("turned.h5", True)):
        done = run("eval", work.file("order"), work.file(name), "--json")
        assert done.returncode == 0 and (warning in done.stderr) == expected, done.stderr


def predictions_agree_with_eval_and_flag_strangers(work):
    out = work.file("answers.csv")
    done = run("predict", work.file("asked"), work.data, "--csv", out)
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as f:
        rows = list(csv.DictReader(f))
    labels = the_test_set(work)[1]
    result = json.loads(run("eval", work.file("asked"), "--json").stdout)
    assert len(rows) == 300
    assert np.isclose(np.mean([int(r["class"]) == label for r, label in zip(rows, labels)]), result["top1"], atol=1e-6)
    lines = [json.loads(line) for line in run("predict", work.file("asked"), work.data, "--json").stdout.splitlines()]
    for row, line in zip(rows, lines):
        assert row["path"] == line["path"] and int(row["class"]) == line["class"] == int(np.argmax(line["probabilities"]))
        assert np.isclose(sum(line["probabilities"]), 1, atol=1e-5)
        assert np.isclose(float(row["confidence"]), max(line["probabilities"]), atol=1e-6)
        assert (float(row["ood_score"]) > 1) == line["out_of_distribution"] == (row["out_of_distribution"] == "1")


def only_the_split_that_is_asked_for_is_read_and_memory_stays_bounded(work):
    """No statistics in the file, and a training picture that cannot be read: whoever reads the training split fails."""
    from PIL import Image
    images, labels = the_test_set(work)
    with h5py.File(work.file("spoilt.h5"), "w") as f:
        for split in ("train", "test"):
            pictures = []
            for picture in images:
                png = io.BytesIO()
                Image.fromarray(picture[:, :, 0]).save(png, "PNG")
                pictures.append(png.getvalue())
            if split == "train":
                pictures[1] = b"not one of the 64 that the fingerprint samples"
            f[split + "/encoded"] = np.frombuffer(b"".join(pictures), np.uint8)
            f[split + "/offsets"] = np.cumsum([0] + [len(p) for p in pictures])
            f[split + "/labels"] = labels
    for command in ("eval", "predict"):
        answers = [run(command, work.file("asked"), data, "--json") for data in (work.data, work.file("spoilt.h5"))]
        assert answers[1].returncode == 0, answers[1].stderr
        assert answers[1].stdout == answers[0].stdout.replace(work.data, work.file("spoilt.h5"))
    assert run("eval", work.file("asked"), work.file("spoilt.h5"), "--split", "train").returncode == 3
    pictures, taken = 150000, {}
    with h5py.File(work.file("long.h5"), "w") as f:
        f["train/images"], f["train/labels"] = np.zeros((pictures, 28, 28, 1), np.uint8), np.arange(pictures) % 8
        f["test/images"], f["test/labels"] = images, labels
    for command in ("eval", "predict"):
        for data in (work.data, work.file("long.h5")):
            process = subprocess.Popen([PROGRAM, command, work.file("asked"), data, "--json"], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            taken[data] = usage.ru_maxrss * 1024
        assert taken[work.file("long.h5")] - taken[work.data] < pictures * 784 / 3, taken


def a_csv_of_predictions_appears_whole_or_not_at_all(work):
    os.makedirs(work.file("answers"))
    out = work.file("answers/csv")
    assert run("predict", work.file("asked"), work.data, "--csv", out).returncode == 0
    whole = open(out).read()
    assert whole.count("\n") == 301 and os.listdir(work.file("answers")) == ["csv"]
    done = run("predict", work.file("asked"), work.data, work.file("tiny.h5"), "--csv", out)
    assert done.returncode == 3 and "16x16x1" in done.stderr, done.stderr
    assert open(out).read() == whole and os.listdir(work.file("answers")) == ["csv"]
    with open(work.file("no.png"), "w"):
        pass
    assert run("predict", work.file("asked"), work.file("no.png"), "--csv", out).returncode == 3
    assert open(out).read() == whole[:whole.index("\n") + 1]
    done = run("predict", work.file("asked"), work.data, "--csv", work.file("nowhere/csv"))
    assert done.returncode == 4 and "cannot write" in done.stderr, done.stderr


def about_as_many_training_pictures_are_flagged_as_the_run_removed(work):
    with h5py.File(work.data) as source, h5py.File(work.file("training.h5"), "w") as f:
        f["train/images"], f["train/labels"] = source["train/images"][:], source["train/labels"][:]
        mean, std = source.attrs.get("mean"), source.attrs.get("std")
        if mean is not None:
            f.attrs["mean"], f.attrs["std"] = mean, std
    lines = [json.loads(x) for x in run("predict", work.file("asked"), work.file("training.h5"), "--json").stdout.splitlines()]
    flagged = np.mean([x["out_of_distribution"] for x in lines])
    with h5py.File(work.file("asked") + "/divisions/epoch-0003.h5") as f:
        removed = np.mean([(f[n]["split"][:] == 0).mean() for n in "ab"])
    assert 0.3 * removed <= flagged <= 1.7 * removed, (flagged, removed)


def the_exported_network_is_the_runs_and_list_and_csv_follow_the_verdicts(work):
    out = work.file("out.safetensors")
    assert run("export", work.file("asked"), "--safetensors", out, "--network", "b").returncode == 0
    assert open(out, "rb").read() == read(work, "asked", "model-b.safetensors")
    rows = list(csv.DictReader(io.StringIO(read(work, "asked", "labels.csv").decode())))
    kept = [r for r in rows if r["verdict"] != "out_of_distribution"]
    wanted = [f"{r['id'] or r['index']} {r['suggested' if r['verdict'] == 'mislabelled' else 'given']}" for r in kept]
    done = run("export", work.file("asked"), "--list", "-")
    assert done.returncode == 0 and done.stdout.splitlines() == wanted
    done = run("export", work.file("asked"), "--list", "-", "--drop-mislabelled", "--min-clean", "0.6")
    wanted = [f"{r['id'] or r['index']} {r['given']}" for r in kept
              if r["verdict"] == "clean" and float(r["clean_probability"]) >= 0.6]
    assert done.stdout.splitlines() == wanted
    for form in ("--safetensors", "--onnx"):
        done = run("export", work.file("asked"), form, "-", cwd=work.path)
        assert done.returncode == 2 and "name of a file" in done.stderr and not os.path.exists(work.file("-"))
    for wrong, told in ((("--onnx", "x.onnx", "--min-clean", "0.5"), "for --list and --csv"), (("--csv", "-", "--network", "b"), "--network")):
        done = run("export", work.file("asked"), *wrong, cwd=work.path)
        assert done.returncode == 2 and told in done.stderr and not done.stdout and not os.path.exists(work.file("x.onnx")), done.stderr
    done = run("export", work.file("order"), "--list", "-")
    assert done.returncode == 3 and "made no division" in done.stderr, done.stderr
    done = run("export", work.file("asked"), "--csv", "-", "--names")
    assert done.returncode == 2 and "for --list" in done.stderr
    done = run("export", work.file("asked"), "--csv", "-", "--verdict", "mislabelled", "--max-clean", "0.3")
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    assert found == [r for r in rows if r["verdict"] == "mislabelled" and float(r["clean_probability"]) <= 0.3] and found
    for wrong in (["--list", "-", "--csv", "-"], ["--network", "c", "--safetensors", out], ["--csv", "-", "--min-clean", "x"]):
        assert run("export", work.file("asked"), *wrong).returncode == 2, wrong


def labels_that_a_person_has_corrected_are_exported_in_place_of_the_runs(work):
    rows = list(csv.DictReader(io.StringIO(read(work, "asked", "labels.csv").decode())))
    rows[0]["verdict"], rows[1]["verdict"] = "out_of_distribution", "clean"
    rows[2]["verdict"], rows[2]["suggested"] = "mislabelled", "6"
    reviewed = work.file("reviewed.csv")

    def write(lines=rows, encoding="utf-8-sig", **form):
        with open(reviewed, "w", newline="", encoding=encoding) as f:  # as spreadsheets write it
            writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\r\n", **form)
            writer.writeheader()
            writer.writerows(lines)

    write()
    done = run("export", work.file("asked"), "--list", "-", "--labels", reviewed)
    wanted = [f"{r['id'] or r['index']} {r['suggested' if r['verdict'] == 'mislabelled' else 'given']}" for r in rows
              if r["verdict"] != "out_of_distribution"]
    assert done.returncode == 0 and done.stdout.splitlines() == wanted and wanted[1].endswith(" 6"), done.stderr
    # Sorted, quoted, separated by semicolons, with decimal commas and empty rows: the same list, and the run's own numbers.
    german = [{k: v.replace(".", ",") if k != "id" else v for k, v in r.items()} for r in reversed(rows)]
    for form in ({"delimiter": ";", "quoting": csv.QUOTE_ALL}, {"delimiter": ";"}, {"delimiter": "\t", "encoding": "utf-8"}):
        write(german + [dict.fromkeys(rows[0], "")], **form)
        done = run("export", work.file("asked"), "--list", "-", "--labels", reviewed)
        assert done.returncode == 0 and done.stdout.splitlines() == wanted and "lacks" not in done.stderr, (form, done.stderr)
        done = run("export", work.file("asked"), "--csv", "-", "--labels", reviewed)
        assert list(csv.DictReader(io.StringIO(done.stdout))) == rows, done.stderr
    write(rows[1:3])
    done = run("export", work.file("asked"), "--list", "-", "--labels", reviewed)
    assert done.stdout.splitlines() == wanted[:2] and f"lacks {len(rows) - 2} of the run's {len(rows)}" in done.stderr
    write(rows + rows[4:5])
    done = run("export", work.file("asked"), "--list", "-", "--labels", reviewed)
    assert done.returncode == 3 and "sample 4 is there twice" in done.stderr, done.stderr
    other = next(c for c in "012" if c not in (rows[1]["given"], rows[1]["suggested"]))
    write([{**rows[1], "verdict": "clean", "suggested": other}])
    done = run("export", work.file("asked"), "--list", "-", "--labels", reviewed)
    assert done.returncode == 3 and "a clean verdict keeps the given label" in done.stderr, done.stderr
    changed = (("verdict", "wrong"), ("suggested", "boot"), ("suggested", ""), ("suggested", "8"), ("id", "another"),
               ("given", str((int(rows[3]["given"]) + 1) % 8)))
    for column, value in changed:
        before, rows[3][column] = rows[3][column], value
        write()
        done = run("export", work.file("asked"), "--list", "-", "--labels", reviewed)
        assert done.returncode == 3 and ("of sample 3" in done.stderr or "for sample 3" in done.stderr), done.stderr
        rows[3][column] = before
    done = run("export", work.file("asked"), "--onnx", work.file("no.onnx"), "--labels", reviewed)
    assert done.returncode == 2 and "--labels" in done.stderr


def a_labels_csv_that_was_spoilt_in_place_is_refused(work):
    shutil.copytree(work.file("asked"), work.file("spoilt"))
    path = work.file("spoilt") + "/labels.csv"
    with open(path, newline="") as f:
        text = f.read()
    with open(path, "w", newline="") as f:
        f.write(text.replace(",clean,", ",cleen,", 1))
    done = run("export", work.file("spoilt"), "--list", "-")
    assert done.returncode == 3 and "'cleen'" in done.stderr, done.stderr


def quoted_ids_come_back_from_labels_csv_as_they_were(work):
    shutil.copytree(work.file("asked"), work.file("quoted"))
    with open(work.file("quoted") + "/labels.csv", newline="") as f:
        rows = list(csv.DictReader(f))[:3]
    for row, name in zip(rows, ('a "b", c.png', "two words.png", "plain.png")):
        row["id"], row["verdict"] = name, "clean"
    with open(work.file("quoted") + "/labels.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    done = run("export", work.file("quoted"), "--csv", "-")
    assert list(csv.DictReader(io.StringIO(done.stdout))) == rows, done.stdout
    # one separator for the whole list, so that the import finds it
    done = run("export", work.file("quoted"), "--list", work.file("quoted.txt"))
    with open(work.file("quoted.txt")) as f:
        assert f.read().splitlines() == [f"{r['id']}\t{r['given']}" for r in rows]
    rows[0]["id"] = "plain;.png"
    rows[1]["id"] = "two\twords.png"
    with open(work.file("quoted") + "/labels.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    done = run("export", work.file("quoted"), "--list", "-")
    assert done.returncode == 3 and f"sample {rows[1]['index']} holds a tab" in done.stderr, done.stderr
    with open(work.file("quoted") + "/labels.csv", "a") as f:
        f.write('7,"open')
    assert run("export", work.file("quoted"), "--csv", "-").returncode == 3


def pictures_from_files_folders_and_stdin_get_the_same_answers(work):
    if not os.path.exists(os.path.join(SOURCE, "include/mdm/data/picture.h")):
        print("        (skipped: this build does not decode single pictures)")
        return
    from PIL import Image
    images = the_test_set(work)[0][:300]
    os.makedirs(work.file("photos/deep"))
    for i, picture in enumerate(images):
        Image.fromarray(picture[:, :, 0]).save(work.file(f"photos/{'deep/' if i % 2 else ''}{i:03d}.png"))
    expected = {i: json.loads(line) for i, line in
                enumerate(run("predict", work.file("asked"), work.data, "--json").stdout.splitlines())}
    folder = run("predict", work.file("asked"), work.file("photos"), "--json")
    assert folder.returncode == 0, folder.stderr
    lines = [json.loads(line) for line in folder.stdout.splitlines()]
    assert len(lines) == 300
    for line in lines:
        wanted = expected[int(os.path.basename(line["path"])[:3])]
        assert np.allclose(line["probabilities"], wanted["probabilities"], atol=1e-6), line["path"]
        assert np.isclose(line["ood_score"], wanted["ood_score"], atol=1e-5)
    by_stdin = run("predict", work.file("asked"), "-", "--json", input="".join(line["path"] + "\n" for line in lines))
    assert by_stdin.stdout == folder.stdout
    assert run("predict", work.file("asked"), work.file("photos/"), "--json").stdout == folder.stdout
    one = run("predict", work.file("asked"), work.file("photos/000.png"), work.data, "--json")
    assert len(one.stdout.splitlines()) == 301 and json.loads(one.stdout.splitlines()[0])["path"].endswith("000.png")
    with open(work.file("photos/bad.png"), "wb") as f:
        f.write(open(work.file("photos/000.png"), "rb").read()[:100])
    os.symlink("nowhere", work.file("photos/gone.png"))
    bad = run("predict", work.file("asked"), work.file("photos"), "--json")
    assert bad.returncode == 3 and bad.stdout == folder.stdout, bad.stderr
    assert "bad.png" in bad.stderr and "gone.png" in bad.stderr, bad.stderr
    os.makedirs(work.file("hollow"))
    assert run("predict", work.file("asked"), work.file("hollow")).returncode == 3
    Image.fromarray(images[0, :, :, 0]).save(work.file("hollow/one.jpe"), "JPEG")
    assert len(run("predict", work.file("asked"), work.file("hollow"), "--json").stdout.splitlines()) == 1


INIT = ["pretrain.epochs=0", "train.epochs=1", "train.warmup=1", "train.lr_backbone=1e-12", "train.lr_head=1e-12"]


def weights_of_contrastive_checkpoints_start_a_run(work):
    tensors, _ = read_safetensors(read(work, "asked", "model-a.safetensors"))
    theirs = {"module." + n.replace("shortcut", "downsample"): v for n, v in tensors.items() if n.startswith("encoder.")}
    theirs["module.encoder.bn1.num_batches_tracked"] = np.array(7, np.int64)
    theirs["module.head.0.weight"] = np.zeros((64, 64), np.float32)
    theirs["module.fc.weight"] = np.zeros((1000, 64), np.float32)
    write_safetensors(work.file("simclr.safetensors"), theirs)
    dry = train(work, "init-dry", *INIT, f"model.init={work.file('simclr.safetensors')}", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    encoder = sum(n.startswith("encoder.") for n in tensors)
    assert f"{encoder} of {encoder} of the encoder" in dry.stdout, dry.stdout
    assert "module.head.0.weight [64,64]: preact_resnet10 has no such tensor" in dry.stdout
    assert "module.fc.weight [1000,64]: wrong shape, fc.weight of this network is [8,64]" in dry.stdout
    assert "projection_head.weight [16,64]" in dry.stdout and "num_batches_tracked" not in dry.stdout
    done = train(work, "init", *INIT, "train.batchnorm=frozen", f"model.init={work.file('simclr.safetensors')}", ranks=2)
    assert done.returncode == 0, done.stderr
    for member in ("model-a.safetensors", "model-b.safetensors"):
        got, _ = read_safetensors(read(work, "init", member))
        for name, value in tensors.items():
            if name.startswith("encoder."):
                assert np.allclose(got[name], value, atol=1e-6), (member, name)


def a_file_of_which_nothing_fits_is_refused_with_the_reasons(work):
    write_safetensors(work.file("other.safetensors"), {"conv1.weight": np.zeros((8, 3, 7, 7), np.float32),
                                                       "blocks.0.attn": np.zeros((4, 4), np.float32)})
    done = train(work, "init-none", *INIT, f"model.init={work.file('other.safetensors')}")
    assert done.returncode == 3 and "nothing in it fits" in done.stderr, done.stderr
    assert "conv1.weight [8,3,7,7]: wrong shape, encoder.conv1.weight of this network is [8,1,3,3]" in done.stderr
    done = train(work, "init-none", *INIT, f"model.init={work.file('missing.safetensors')}")
    assert done.returncode == 3 and "missing.safetensors" in done.stderr


def frozen_statistics_must_come_from_somewhere(work):
    tensors, _ = read_safetensors(read(work, "asked", "model-a.safetensors"))
    write_safetensors(work.file("bare.safetensors"), {n: v for n, v in tensors.items() if "running" not in n})
    arguments = [*INIT, "train.batchnorm=frozen"]
    done = train(work, "init-bare", *arguments, f"model.init={work.file('bare.safetensors')}")
    assert done.returncode == 3 and "running statistics" in done.stderr, done.stderr
    assert train(work, "init-bare", *arguments).returncode == 2
    done = train(work, "frozen", "train.batchnorm=frozen", "pretrain.epochs=1", "train.epochs=1", "train.warmup=1")
    assert done.returncode == 0, done.stderr
    variance = read_safetensors(read(work, "frozen", "model-a.safetensors"))[0]["encoder.bn1.running_var"]
    assert not np.any(variance == 1), "pretraining left the statistics as they began"


def the_notes_of_a_weights_file_rebuild_its_network(work):
    _, notes = read_safetensors(read(work, "asked", "model-a.safetensors"))
    assert notes["arch"] == "preact_resnet10" and notes["image"] == "1,28,28" and notes["classes"] == "8"
    assert SMALL[1] == "model.width=" + notes["width"] and len(json.loads(notes["class_names"])) in (0, 8)
    assert 0 < float(notes["mean"]) < 1 and 0 < float(notes["std"]) < 1


def names_of_classes_cannot_steer_the_terminal(work):
    shutil.copytree(work.file("asked"), work.file("steered"))
    for member in ("model-a.safetensors", "model-b.safetensors"):
        content = read(work, "asked", member)
        for name in (b"T-shirt/top", b"Trouser", b"Pullover", b"Sneaker"):
            assert content.count(name) == 1, (member, name)
            content = content.replace(name, rb"\\u001b".ljust(len(name), b"!"))
        with open(work.file("steered") + "/" + member, "wb") as f:
            f.write(content)
    for command in ("eval", "predict"):
        done = run(command, work.file("steered"), work.data)
        assert done.returncode == 0 and "\x1b" not in done.stdout and "\\x1b" in done.stdout, (command, done.stdout[-2000:], done.stderr)


main([a_run_to_ask_ends_well, eval_gives_the_accuracy_that_the_run_measured, eval_counts_the_same_on_two_and_three_ranks,
      eval_of_the_training_set_uses_the_truth_and_leaves_strangers_out,
      a_set_without_the_truth_is_measured_by_its_given_labels_and_says_so, eval_and_report_find_the_data_from_any_folder,
      eval_refuses_pictures_of_another_size_and_unfinished_runs, classes_in_another_order_are_warned_of,
      predictions_agree_with_eval_and_flag_strangers, only_the_split_that_is_asked_for_is_read_and_memory_stays_bounded,
      a_csv_of_predictions_appears_whole_or_not_at_all, about_as_many_training_pictures_are_flagged_as_the_run_removed,
      the_exported_network_is_the_runs_and_list_and_csv_follow_the_verdicts,
      labels_that_a_person_has_corrected_are_exported_in_place_of_the_runs,
      pictures_from_files_folders_and_stdin_get_the_same_answers, quoted_ids_come_back_from_labels_csv_as_they_were,
      a_labels_csv_that_was_spoilt_in_place_is_refused, weights_of_contrastive_checkpoints_start_a_run,
      a_file_of_which_nothing_fits_is_refused_with_the_reasons, frozen_statistics_must_come_from_somewhere,
      the_notes_of_a_weights_file_rebuild_its_network, names_of_classes_cannot_steer_the_terminal])
