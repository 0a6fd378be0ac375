"""report.html as it stands in the run folder: whole, escaped, small, and with the numbers of the run."""
import csv
import json
import os
import re
import shutil
import time

import h5py
import numpy as np

from program import main, run, train
from report_pages import contrast, palette, read_page

TWINS = 5


def prepare(work):
    """One run for all tests: a data set in which a few pictures come twice."""
    if os.path.exists(work.file("told")):
        return work.file("told")
    with h5py.File(work.data, "r+") as f:
        for i in range(TWINS):
            f["train/images"][50 + i] = f["train/images"][i]
    done = train(work, "told", "train.epochs=6", "divide.interval=2", "baseline=ce")
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stderr
    return work.file("told")


def member(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return f.read()


def labels(folder):
    with open(os.path.join(folder, "labels.csv"), newline="") as f:
        return list(csv.DictReader(f))


def copy(work, name):
    shutil.rmtree(work.file(name), ignore_errors=True)
    shutil.copytree(prepare(work), work.file(name))
    return work.file(name)


def replace(folder, name, change):
    text = member(folder, name)
    changed = change(text)
    assert changed != text
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(changed)


def the_report_is_whole_and_has_all_sections(work):
    page = read_page(os.path.join(prepare(work), "report.html"))
    for section in ("overview", "pictures", "labels", "training", "divisions", "time", "settings"):
        assert section in page.ids
    words = page.words()
    for chart in ("Accuracy on the test set", "Training loss", "Losses, network a", "Losses, network b",
                  "Distances, network a", "The three sets, network b", "Finding wrong labels", "Finding strangers",
                  "From given to suggested label", "Where the time went", "Throughput", "cross entropy alone"):
        assert chart in words, chart
    assert words.count("Before epoch") == 2  # divisions before epochs 3 and 5
    assert sum(tag == "svg" for tag, a in page.elements if a.get("role") == "img") >= 20


def its_numbers_are_those_of_summary_json_and_labels_csv(work):
    folder = prepare(work)
    page, summary, rows = read_page(folder + "/report.html"), json.loads(member(folder, "summary.json")), labels(folder)
    keys = [key for key, _, _, _ in page.figures]
    for key in ("final_top1", "auc_noise.a", "auc_noise.b", "auc_ood.a", "auc_ood.b", "baseline_ce_top1",
                "before_semi_top1"):
        assert key in keys, key
    for key, value, shown, _ in page.figures:
        told = summary
        for part in key.split("."):
            told = told[part]
        assert value == told, key
        number = float(shown.replace("\u00a0%", ""))
        assert abs(number - (100 * told if "%" in shown else told)) <= (0.0501 if "%" in shown else 0.000501), (key, shown)
    words = page.words()
    for n in ("a", "b"):  # computed again from the division file
        for name in ("auc_noise", "auc_ood"):
            assert f"network {n}, AUC {summary[name][n]:.3f}" in words
    counts = {v: sum(r["verdict"] == v for r in rows) for v in ("clean", "mislabelled", "out_of_distribution")}
    assert (f'aria-label="{counts["clean"]} clean, {counts["mislabelled"]} mislabelled, '
            f'{counts["out_of_distribution"]} out of distribution"') in page.html
    for key, value in summary["seconds_by_stage"].items():
        assert f"seconds_by_stage.{key}" in words


def a_run_that_a_single_network_beats_says_so(work):
    """In its log, as its own figures are, and in the report, with figures changed to either side."""
    words = "A single network without divisions was better"
    done = train(work, "beaten", "baseline=sce", "train.lr_backbone=1e-5", "train.lr_head=1e-5")
    assert done.returncode == 0, done.stderr
    summary = json.loads(member(work.file("beaten"), "summary.json"))
    assert summary["baseline_sce_top1"] is not None and ("a single network without divisions was better" in done.stderr) == (
        summary["baseline_sce_top1"] > summary["final_top1"]), (summary, done.stderr)
    folder = copy(work, "either")
    for better, expected in ((1.0, True), (0.0, False)):
        summary = json.loads(member(folder, "summary.json"))
        replace(folder, "summary.json", lambda text: json.dumps({**summary, "baseline_ce_top1": better}))
        assert run("report", folder).returncode == 0
        assert (words in read_page(folder + "/report.html").words()) == expected


def what_is_warned_of_after_the_end_leaves_a_run_ended(work):
    folder = copy(work, "warned")
    replace(folder, "metrics.jsonl", lambda text: text + '{"event":"warning","message":"too late"}\n')
    assert run("report", folder).returncode == 0
    words = read_page(folder + "/report.html").words()
    assert "too late" in words and "has not ended" not in words
    assert json.loads(run("status", folder, "--json").stdout)["state"] == "finished"
    replace(folder, "metrics.jsonl", lambda text: text + '{"event":"resume"}\n')
    assert run("report", folder).returncode == 0 and "has not ended" in read_page(folder + "/report.html").words()


def the_divisions_charts_count_epochs_as_their_tabs_do(work):
    html = member(prepare(work), "report.html")
    tabs = re.findall(r"<h3>Before epoch (\d+)</h3>", html)
    table = html[html.index("<b>Sizes of the sets</b>"):].split("</table>")[0]
    assert len(tabs) > 1 and re.findall(r'<th scope="row">(\d+)</th>', table) == tabs


def galleries_show_the_first_of_labels_csv_in_its_order(work):
    folder = prepare(work)
    rows, html = labels(folder), member(folder, "report.html")
    wrong = sorted((r for r in rows if r["verdict"] == "mislabelled"), key=lambda r: -float(r["mislabelled_score"]))
    strange = sorted((r for r in rows if r["verdict"] == "out_of_distribution"), key=lambda r: -float(r["ood_score"]))
    galleries = re.findall(r'<ul class="gallery">(.*?)</ul>', html, re.S)
    assert len(galleries) == 2 and wrong and strange
    for gallery, expected in zip(galleries, (wrong, strange)):
        shown = [int(n) for n in re.findall(r'alt="Picture (\d+),', gallery)]
        assert len(shown) == min(36, len(expected))
        score = "mislabelled_score" if expected is wrong else "ood_score"
        assert [float(rows[i][score]) for i in shown] == [float(r[score]) for r in expected[:len(shown)]]


def pictures_that_come_twice_are_found(work):
    folder = prepare(work)
    html = member(folder, "report.html")
    pairs = re.search(r'<ul class="gallery pairs">(.*?)</ul>', html, re.S).group(1)
    found = [tuple(sorted(map(int, re.findall(r'alt="Picture (\d+),', item)))) for item in pairs.split("</li>")[:-1]]
    assert set(found) >= {(i, 50 + i) for i in range(TWINS)}, found
    assert all(0 <= float(d) <= 12 for d in re.findall(r"([\d.]+) grey levels apart", pairs))


def words_of_users_are_escaped(work):
    folder = copy(work, "hostile")
    data = work.file("hostile.h5")
    shutil.copy(work.data, data)
    evil = ['<script>alert("x")</script>', "a & b < c", "it's \"quoted\"", "</title><b>", "ünï", "\u202e", "x" * 200, "<!--"]
    with h5py.File(data, "r+") as f:
        del f["class_names"]
        f["class_names"] = np.array(evil, dtype=h5py.string_dtype())
    replace(folder, "config.yaml", lambda t: t.replace(work.data, data))
    rows = labels(folder)
    with open(folder + "/labels.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "id": '"><img src=x onerror=alert(1)>\'&, ' + row["index"]} for row in rows)
    done = run("report", folder)
    assert done.returncode == 0, done.stderr
    page = read_page(folder + "/report.html")  # no script, no foreign image, no event handler
    assert '<script>alert("x")</script>' in page.words() and "a & b < c" in page.words()
    assert '"><img src=x onerror=alert(1)>\'&, ' in page.words()


def long_names_of_classes_stay_different(work):
    folder, data = copy(work, "wordy"), work.file("wordy.h5")
    shutil.copy(work.data, data)
    names = [f"garment of the eastern sort, number {c}{c}" for c in range(7)] + ["\u30b3\u30fc\u30c8" * 10 + "77"]
    with h5py.File(data, "r+") as f:
        del f["class_names"]
        f["class_names"] = np.array(names, dtype=h5py.string_dtype())
    replace(folder, "config.yaml", lambda t: t.replace(work.data, data))
    assert run("report", folder).returncode == 0
    shown = re.findall(r'<text class="tick"[^>]*>([^<]*\u2026[^<]*)</text>', member(folder, "report.html"))
    assert {f"garment of th\u2026rt, number {c}{c}" for c in range(7)} < set(shown), shown
    assert "\u30b3\u30fc\u30c8\u30b3\u30fc\u30c8\u2026\u30fc\u30c8\u30b3\u30fc\u30c877" in shown, shown  # wide letters count twice
    assert any(re.fullmatch(r"garm\S*.*\u2026.*\d\d \u2192 .*\u2026.*\d\d", s) for s in shown), shown


def without_the_data_set_file_the_page_tells_so(work):
    folder = copy(work, "lonely")
    replace(folder, "config.yaml", lambda t: t.replace(work.data, work.file("gone.h5")))
    done = run("report", folder)
    assert done.returncode == 0 and "gone.h5" in done.stderr
    assert done.stdout.strip() == folder + "/report.html"
    page = read_page(folder + "/report.html")
    assert not page.images and "The galleries are left out" in page.words() and "gone.h5" in page.words()
    assert "labelled" in page.words() and "Finding wrong labels" not in page.words()


def a_data_set_of_other_labels_is_not_taken_for_the_runs(work):
    folder = copy(work, "other")
    other = work.file("other.h5")
    shutil.copy(work.data, other)
    with h5py.File(other, "r+") as f:
        f["train/labels"][0] = (f["train/labels"][0] + 1) % 8
    replace(folder, "config.yaml", lambda t: t.replace(work.data, other))
    assert run("report", folder).returncode == 0
    assert not read_page(folder + "/report.html").images


def labels_that_cannot_be_read_are_told(work):
    folder = copy(work, "unreadable")
    assert "warning" not in run("report", folder).stderr
    replace(folder, "labels.csv", lambda t: t.replace("suggested", "supposed"))
    done = run("report", folder)
    assert done.returncode == 0 and "names no column suggested: the report is made without labels" in done.stderr, done.stderr


def damaged_members_do_not_take_the_page_down(work):
    folder = copy(work, "damaged")
    division = sorted(os.listdir(folder + "/divisions"))[0]
    with open(f"{folder}/divisions/{division}", "r+b") as f:
        f.truncate(1000)
    with open(folder + "/metrics.jsonl", "a") as f:
        f.write('{"event":"epo')
    os.remove(folder + "/environment.json")
    os.remove(folder + "/summary.json")
    done = run("report", folder)
    assert done.returncode == 0, done.stderr
    assert division in read_page(folder + "/report.html").words()
    os.remove(folder + "/metrics.jsonl")
    refused = run("report", folder)
    assert refused.returncode == 3 and "metrics.jsonl" in refused.stderr
    assert run("report", work.file("nowhere")).returncode == 3
    assert run("report").returncode == 2


def a_report_that_cannot_be_written_is_a_warning(work):
    os.makedirs(work.file("blocked/report.html/in-the-way"))
    done = train(work, "blocked", "pretrain.epochs=0", "train.epochs=2", "train.warmup=1")
    assert done.returncode == 0, done.stderr
    assert "warning: the report could not be written" in done.stderr
    assert os.path.exists(work.file("blocked/summary.json"))
    done = train(work, "silent", "pretrain.epochs=0", "train.epochs=2", "train.warmup=1", "report=false")
    assert done.returncode == 0 and not os.path.exists(work.file("silent/report.html"))


def several_runs_are_set_side_by_side(work):
    first = prepare(work)
    second = copy(work, "second")
    replace(second, "summary.json", lambda t: re.sub(r'"final_top1": [\d.]+', '"final_top1": 0.1234', t))
    replace(second, "config.yaml", lambda t: t.replace("k: 5", "k: 7"))
    out = work.file("both.html")
    done = run("report", first, second, "--out", out)
    assert done.returncode == 0 and done.stdout.strip() == out, done.stderr
    page = read_page(out)
    shown = [text for key, _, text, _ in page.figures if key == "final_top1"]
    assert shown == [f"{100 * json.loads(member(first, 'summary.json'))['final_top1']:.1f}\u00a0%", "12.3\u00a0%"]
    assert re.search(r"divide\.k</th><td>5</td><td>7</td>", page.html)
    os.makedirs(work.file("seeds"), exist_ok=True)
    third = copy(work, "seeds/second")
    assert run("report", first, second, third + "/", "--out", out).returncode == 0
    heads = re.findall(r'<th scope="col">(.*?)</th>', read_page(out).html.split("</thead>")[0])
    assert heads == ["run", "told", os.path.basename(work.path) + "/second", "seeds/second"], heads
    assert run("report", first, copy(work, "a-run-with-a-name-that-no-chart-has-room-for"), "--out", out).returncode == 0
    ends = re.findall(r'<text class="name"[^>]*>(.*?)</text>', read_page(out).html)
    assert set(ends) == {"told", "a-run-wi\u2026room-for"}, ends


def text_stands_out_from_its_ground_in_light_and_dark(work):
    html = member(prepare(work), "report.html")
    for dark in (False, True):
        colors = palette(html, dark)
        for name in ("ink", "muted", "clean", "wrong", "ood", "a", "b", "both", "base"):
            for ground in ("bg", "card"):
                assert contrast(colors[name], colors[ground]) >= 4.5, (dark, name, ground)
        for name in ("clean", "wrong", "ood"):
            assert contrast(colors["on"], colors[name]) >= 4.5, (dark, name)


def write_large_run(folder, samples, epochs, divisions, classes):
    random = np.random.default_rng(1)
    os.makedirs(folder + "/divisions")
    with open(folder + "/metrics.jsonl", "w") as f:
        for epoch in range(epochs):
            stage = "warmup" if epoch < 20 else "semi"
            for network in "ab":
                f.write(json.dumps({"event": "epoch", "stage": stage, "epoch": epoch, "network": network,
                                    "loss": 2 + random.random(), "loss_x": 1.0, "loss_u": 0.5, "images_per_s": 900.0,
                                    "seconds": 9.0}) + "\n")
            f.write(json.dumps({"event": "epoch", "stage": stage, "epoch": epoch, "network": "ensemble",
                                "test_top1": random.random(), "test_top5": 0.9}) + "\n")
    score = random.random((4, samples), dtype=np.float32)
    split = random.integers(0, 3, samples).astype(np.uint8)
    for d in range(divisions):
        with h5py.File(f"{folder}/divisions/epoch-{20 + 10 * d:04d}.h5", "w") as f:
            f.attrs["format"], f.attrs["format_version"], f.attrs["epoch"] = "mdm-division", np.int64(1), np.int64(20 + 10 * d)
            for network in "ab":
                g = f.create_group(network)
                g["loss"], g["clean_probability"], g["ood_score"], g["split"] = 5 * score[0], score[1], score[2], split
                g.attrs["gmm_means"], g.attrs["gmm_variances"] = np.array([0.2, 0.7]), np.array([0.01, 0.02])
                g.attrs["gmm_weights"], g.attrs["removed"] = np.array([0.5, 0.5]), np.int64(5)
                g.attrs["loss_minimum"], g.attrs["loss_maximum"] = 0.0, 5.0
    given, suggested = random.integers(0, classes, (2, samples))
    verdict = np.array(["out_of_distribution", "clean", "mislabelled"])[split]
    with open(folder + "/labels.csv", "w") as f:
        f.write("index,id,given,suggested,clean_probability,ood_score,verdict,suggested_probability,mislabelled_score\n")
        f.writelines(f"{i},train/{i}.png,{given[i]},{suggested[i]},{score[1][i]},{score[2][i]},{verdict[i]},"
                     f"{score[3][i]},{score[3][i] * (split[i] == 2)}\n" for i in range(samples))
    return given


def fifty_thousand_samples_make_less_than_five_megabytes(work):
    folder, data, samples, classes = work.file("large"), work.file("large.h5"), 50000, 100
    given = write_large_run(folder, samples, 300, 28, classes)
    with h5py.File(data, "w") as f:  # pictures of noise: the worst for PNG
        f["train/images"] = np.random.default_rng(2).integers(0, 256, (samples, 32, 32, 3)).astype(np.uint8)
        f["train/labels"] = given.astype(np.int32)
        f["class_names"] = np.array([f"class number {c}" for c in range(classes)], dtype=h5py.string_dtype())
        f.attrs["format"], f.attrs["format_version"] = "mdm-dataset", 1
        f.attrs["mean"], f.attrs["std"] = np.full(3, 0.5), np.full(3, 0.25)
    with open(folder + "/config.yaml", "w") as f:
        f.write(f"data.train: {data}\n")
    start = time.time()
    done = run("report", folder)
    assert done.returncode == 0, done.stderr
    took, size = time.time() - start, os.path.getsize(folder + "/report.html")
    page = read_page(folder + "/report.html")
    assert len(page.images) == 72 and "10 of the 28 divisions are shown" in page.words()
    assert size < 5e6 and took < 30, (size, took)


def a_thousand_classes_leave_the_most_frequent_changes_in_a_small_page(work):
    folder, classes = work.file("thousand"), 1000
    write_large_run(folder, 20000, 3, 1, classes)
    with open(folder + "/labels.csv", "a") as f:  # two changes that stand out, and one that does not count
        f.writelines(f"{20000 + i},,{given},{suggested},0.1,0.1,{verdict},0.9,0.8\n" for i, (given, suggested, verdict) in enumerate(
            60 * [(998, 3, "mislabelled")] + 50 * [(2, 999, "mislabelled")] + 70 * [(5, 6, "out_of_distribution")]))
    done = run("report", folder)
    assert done.returncode == 0, done.stderr
    text = member(folder, "report.html")
    assert len(text) < 5e5 and "it is drawn for at most 120 classes" in text, len(text)
    shown = re.findall(r'<text class="tick"[^>]*>(class \d+ \u2192 class \d+)</text>', text)
    assert len(shown) == 14 and shown[:2] == ["class 998 \u2192 class 3", "class 2 \u2192 class 999"], shown
    assert "class 5 \u2192 class 6" not in shown


def losses_beyond_whole_numbers_have_axes_all_the_same(work):
    folder = copy(work, "steep")
    division = sorted(os.listdir(folder + "/divisions"))[-1]
    with h5py.File(f"{folder}/divisions/{division}", "r+") as f:
        f["a/loss"][:] = f["a"].attrs["loss_minimum"] = f["a"].attrs["loss_maximum"] = 3e20
    assert run("report", folder, timeout=60).returncode == 0
    ticks = re.findall(r"<text class=.tick.[^>]*>([^<]*)</text>", member(folder, "report.html"))
    assert "3e+20" in ticks and not [t for t in ticks if "9,223,372" in t], ticks


if __name__ == "__main__":
    main([the_report_is_whole_and_has_all_sections, its_numbers_are_those_of_summary_json_and_labels_csv,
          a_run_that_a_single_network_beats_says_so, what_is_warned_of_after_the_end_leaves_a_run_ended,
          the_divisions_charts_count_epochs_as_their_tabs_do, galleries_show_the_first_of_labels_csv_in_its_order, pictures_that_come_twice_are_found,
          words_of_users_are_escaped, long_names_of_classes_stay_different, without_the_data_set_file_the_page_tells_so,
          a_data_set_of_other_labels_is_not_taken_for_the_runs, labels_that_cannot_be_read_are_told, damaged_members_do_not_take_the_page_down,
          a_report_that_cannot_be_written_is_a_warning, several_runs_are_set_side_by_side,
          text_stands_out_from_its_ground_in_light_and_dark, fifty_thousand_samples_make_less_than_five_megabytes,
          a_thousand_classes_leave_the_most_frequent_changes_in_a_small_page,
          losses_beyond_whole_numbers_have_axes_all_the_same])
