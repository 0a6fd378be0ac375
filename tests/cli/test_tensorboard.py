"""TensorBoard's events, read by a small reader of its own: records, checksums, protocol buffers; against metrics.jsonl."""
import glob
import math
import os
import signal
import struct
import time

import h5py

from program import SMALL, SOURCE, events, main, start, train

TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def masked_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    with open(path, "rb") as f:
        content = f.read()
    at = 0
    while at < len(content):
        head = content[at:at + 8]
        length, check = struct.unpack("<QI", content[at:at + 12])
        data = content[at + 12:at + 12 + length]
        assert masked_crc32c(head) == check
        assert masked_crc32c(data) == struct.unpack("<I", content[at + 12 + length:at + 16 + length])[0]
        yield data
        at += 16 + length
    assert at == len(content)


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """Of a message: {number: [values]}, bytes for what has a length."""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 1:
            value, at = struct.unpack("<d", data[at:at + 8])[0], at + 8
        elif key & 7 == 5:
            value, at = struct.unpack("<f", data[at:at + 4])[0], at + 4
        else:
            assert key & 7 == 2
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        found.setdefault(key >> 3, []).append(value)
    return found


def read_events(folder):
    """The only events file: its events as (wall time, step, fields)."""
    paths = glob.glob(folder + "/events.out.tfevents.*")
    assert len(paths) == 1, paths
    read = [fields(data) for data in records(paths[0])]
    assert read[0][3] == [b"brain.Event:2"]
    assert fields(read[1][7][0]) == {1: [1]} and read[1][2] == [0]  # session start, at step 0
    return [(e[1][0], e[2][0], e) for e in read]


def values(folder):
    """{tag: [(step, fields of the value)]}"""
    found = {}
    for _, step, event in read_events(folder):
        for summary in event.get(5, []):
            for value in fields(summary).get(1, []):
                v = fields(value)
                found.setdefault(v[1][0].decode(), []).append((step, v))
    return found


def expected_scalars(work, name):
    found, step = {}, 0
    for e in events(work, name):
        kind, stage, network = e["event"], e.get("stage"), e.get("network")
        if kind not in ("epoch", "divide", "end"):
            continue
        step = e.get("epoch", step)
        group = {"end": "run", "divide": stage or "divide"}.get(kind, "train" if stage in ("warmup", "semi") else stage)
        for field, value in e.items():
            tag = f"{group}/{field}" + (f"/{network}" if network else "")
            if field in ("event", "stage", "network", "epoch"):
                continue
            for suffix, number in ([("", value)] if not isinstance(value, list) else
                                   [(f"/{i}", v) for i, v in enumerate(value)]):
                found.setdefault(tag + suffix, []).append((step, number))
    return found


def check_scalars(work, name):
    told, expected = values(work.file(name)), expected_scalars(work, name)
    scalars = {tag: [(step, v[2][0]) for step, v in series] for tag, series in told.items() if 2 in series[0][1]}
    assert scalars.keys() == expected.keys() and len(scalars) > 50
    for tag, series in expected.items():
        assert [s for s, _ in scalars[tag]] == [s for s, _ in series], tag
        assert all(math.isclose(a, b, rel_tol=1e-6) for (_, a), (_, b) in zip(scalars[tag], series)), tag
        steps = [s for s, _ in series]
        assert steps == sorted(set(steps)), (tag, steps)


def every_number_of_the_metrics_is_a_scalar(work):
    with h5py.File(work.data, "r+") as f:
        names = [name.decode() for name in f["class_names"][:]]
        del f["class_names"]
        f["class_names"] = [f"größe/{name}" for name in names]
    assert train(work, "told", "train.epochs=6", "divide.interval=2", "baseline=ce").returncode == 0
    check_scalars(work, "told")


def divisions_have_histograms_of_all_samples(work):
    told = values(work.file("told"))
    for network in "ab":
        for name, array in (("losses", "loss"), ("ood_scores", "ood_score"), ("clean_probabilities", "clean_probability")):
            series = told[f"divide/{name}/{network}"]
            assert [step for step, _ in series] == [2, 4]
            for step, value in series:
                h = fields(value[5][0])
                with h5py.File(f"{work.file('told')}/divisions/epoch-{step:04d}.h5") as f:
                    data = f[f"{network}/{array}"][:]
                limits, counts = (struct.unpack(f"<{len(h[i][0]) // 8}d", h[i][0]) for i in (6, 7))
                assert h[1][0] == data.min() and h[2][0] == data.max() and h[3][0] == len(data) == sum(counts)
                assert math.isclose(h[4][0], data.sum(dtype=float), rel_tol=1e-6)
                assert math.isclose(h[5][0], (data.astype(float) ** 2).sum(), rel_tol=1e-6)
                assert list(limits) == sorted(limits) and limits[-1] >= data.max()
                below = sum(counts[:32])
                assert abs(below - (data <= limits[31]).sum()) <= 1


def pictures_come_at_the_end(work):
    pictures = {tag: fields(series[0][1][4][0]) for tag, series in values(work.file("told")).items() if 4 in series[0][1]}
    assert any(tag.startswith("mislabelled/01 given größe-") for tag in pictures)
    assert any(tag.startswith("out_of_distribution/01 given größe-") for tag in pictures)
    for p in pictures.values():
        assert (p[1][0], p[2][0], p[3][0]) == (28, 28, 1) and p[4][0].startswith(b"\x89PNG")
        assert struct.unpack(">II", p[4][0][16:24]) == (28, 28)


def a_resume_drops_the_steps_that_are_done_again_and_keeps_the_times(work):
    settings = ["train.epochs=16", "train.warmup=2", "divide.interval=3", "checkpoint.every=5", "checkpoint.minutes=0"]
    process = start("train", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={work.data}",
                    f"run={work.file('killed')}", *SMALL, *settings)
    deadline = time.time() + 120
    while time.time() < deadline:
        time.sleep(0.02)
        if os.path.exists(work.file("killed/metrics.jsonl")):
            done = [e for e in events_so_far(work, "killed") if e["event"] == "epoch" and e["stage"] == "semi"]
            if done and done[-1]["epoch"] >= 6:
                break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    before = read_events(work.file("killed"))
    assert max(step for _, step, _ in before) >= 6
    assert train(work, "killed", *settings).returncode == 0
    check_scalars(work, "killed")
    after = read_events(work.file("killed"))
    lines = events(work, "killed")
    assert [e["event"] for e in lines].count("resume") == 1
    same = next(i for i, (a, b) in enumerate(zip(before, after)) if a[0] != b[0])
    kept = lines[:[e["event"] for e in lines].index("resume")]
    assert same >= 2 + sum(e["event"] in ("epoch", "divide") for e in kept)  # all that was kept has its first time
    assert all(a[1:] == b[1:] for a, b in zip(before[:same], after[:same]))
    assert all(a[0] <= b[0] for a, b in zip(after[2:], after[3:])), "times go on"


def events_so_far(work, name):
    import json
    with open(work.file(name) + "/metrics.jsonl") as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def none_are_written_where_they_are_not_wanted_or_not_possible(work):
    short = ["pretrain.epochs=0", "train.epochs=2", "train.warmup=1", "report=false"]
    assert train(work, "quiet", *short, "tensorboard=false").returncode == 0
    assert not glob.glob(work.file("quiet") + "/events*")
    # events of an earlier run that is begun anew go, too
    assert train(work, "quiet", *short, "--force").returncode == 0
    first = glob.glob(work.file("quiet") + "/events*")
    assert train(work, "quiet", *short, "--force").returncode == 0
    second = glob.glob(work.file("quiet") + "/events*")
    assert len(first) == len(second) == 1 and first != second
    check = [step for _, step, _ in read_events(work.file("quiet"))]
    assert max(check) == 1


if __name__ == "__main__":
    main([every_number_of_the_metrics_is_a_scalar, divisions_have_histograms_of_all_samples, pictures_come_at_the_end,
          a_resume_drops_the_steps_that_are_done_again_and_keeps_the_times,
          none_are_written_where_they_are_not_wanted_or_not_possible])
