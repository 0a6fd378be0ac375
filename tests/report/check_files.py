"""Reads files of a run with other people's readers. Called by the C tests: check_files.py CHECK PATH.

Exit 0: as expected. 77: a module is missing. Anything else: an assertion failed.
"""
import csv
import hashlib
import json
import struct
import sys

try:
    import numpy as np
except ImportError:
    sys.exit(77)


def open_h5(path):
    try:
        import h5py
    except ImportError:
        sys.exit(77)
    return h5py.File(path, "r")


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def read_safetensors(path):
    """As the format's page says, by hand."""
    raw = open(path, "rb").read()
    (length,) = struct.unpack("<Q", raw[:8])
    assert (8 + length) % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    data, tensors, end = raw[8 + length :], {}, 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, stop = entry["data_offsets"]
        assert begin == end
        end = stop
        assert entry["dtype"] == "F32"
        tensors[name] = np.frombuffer(data[begin:stop], "<f4").reshape(entry["shape"])
    assert end == len(data)
    return tensors, header.get("__metadata__", {})


def metrics(path):
    lines = [json.loads(line) for line in open(path, encoding="utf-8")]
    assert [line["event"] for line in lines] == ["start", "epoch", "divide", "warning"]
    assert lines[1]["stage"] == 'war"m\n' and lines[1]["epoch"] == -(2**53) and lines[1]["loss"] == 1.25
    assert lines[1]["loss_u"] is None
    assert lines[2]["gmm_means"] == [0.125, None] and lines[2]["empty"] == []


def safetensors(path):
    tensors, notes = read_safetensors(path)
    assert list(tensors) == ["encoder.conv1.weight", "bn.running_mean", "scalar", "nothing"]
    weight = tensors["encoder.conv1.weight"]
    assert weight.shape == (2, 3, 1) and np.array_equal(weight.ravel(), np.arange(6, dtype="f4") * 0.5 - 1)
    assert tensors["scalar"].shape == () and tensors["nothing"].shape == (0, 4)
    assert notes == {"format": "pt", "network": 'a "quoted" ü'}


def halves(path):
    """Tensors that were read from F16, BF16 and F64 by the C reader and written as F32."""
    tensors, _ = read_safetensors(path)
    bits = np.arange(65536, dtype="<u2")
    same = lambda a, b: np.array_equal(a, b, equal_nan=True)
    with np.errstate(all="ignore"):
        assert same(tensors["half"], bits.view("<f2").astype("f4"))
        assert same(tensors["bfloat"], (bits.astype("<u4") << 16).view("<f4"))
        assert same(tensors["double"], np.array([1 / 3, -1e300, 5e-324], "f8").astype("f4"))


def checkpoint(path):
    content = open(path, "rb").read()
    version, size, digest = content[:512].split(b"\n")[:3]
    assert version == b"mdm-dist checkpoint 2" and size == b"bytes %d" % (len(content) - 512)
    assert digest == b"sha256 " + hashlib.sha256(content[512:]).hexdigest().encode()
    with open_h5(path) as f:
        assert np.array_equal(f["network-a/encoder.conv1.weight"][:].ravel(), np.arange(6, dtype="f4"))
        assert f["network-a/encoder.conv1.weight"].shape == (2, 3)
        assert f["epoch"][()] == 12 and f["best"][()] == 0.75
        assert f["split"].dtype == np.uint8 and f["counts"].dtype == np.int32
        assert text(f["config"][()]) == "seed: 1\nname: ü\n"


def division(path):
    with open_h5(path) as f:
        assert text(f.attrs["format"]) == "mdm-division" and f.attrs["epoch"] == 30
        assert sorted(f) == ["a", "b"]
        for k, group in enumerate((f["a"], f["b"])):
            assert group["loss"].dtype == np.float32 and group["split"].dtype == np.uint8
            assert np.array_equal(group["loss"][:], np.arange(5, dtype="f4") + k)
            assert list(group["split"][:]) == [0, 1, 2, 1, 1]
            assert list(group.attrs["gmm_means"]) == [0.1, 0.7] and group.attrs["removed"] == 1
            assert all("description" in group[name].attrs for name in group)
        assert f["a/embedding"].shape == (5, 3) and f["a/logits"].shape == (5, 2)
        assert "embedding" not in f["b"]


def labels(path):
    rows = list(csv.DictReader(open(path, newline="", encoding="utf-8")))
    assert list(rows[0]) == "index,id,given,suggested,clean_probability,ood_score,verdict,suggested_probability,mislabelled_score".split(",")
    assert [row["id"] for row in rows] == ["plain", 'a,"b"', "two\nlines", ""]
    assert [int(row["index"]) for row in rows] == [0, 1, 2, 3]
    assert [int(row["suggested"]) for row in rows] == [1, 0, 2, 0]
    assert float(rows[0]["clean_probability"]) == 0.5 and rows[3]["ood_score"] == ""
    assert [row["verdict"] for row in rows] == ["clean", "mislabelled", "out_of_distribution", "clean"]


def summary(path):
    s = json.load(open(path, encoding="utf-8"))
    assert s["final_top1"] == 0.9 and s["best_top1"] is None and s["best_epoch"] is None
    assert s["auc_noise"] == {"a": 0.95, "b": 0.94} and s["seconds_by_stage"]["semi"] == 12.5
    assert s["device"] == "cpu" and s["ranks"] == 2


def environment(path):
    e = json.load(open(path, encoding="utf-8"))
    assert e["versions"]["HDF5"] == "1.10.8" and e["hosts"] == ["n1", "n2"]
    assert [p["rank"] for p in e["rank_places"]] == [0, 1, 2] and e["rank_places"][2]["binding"] == "0-3"
    assert e["command"] == ["mdm-dist", "seed=1"] and e["environment"]["OMP_NUM_THREADS"] == "3"
    assert "secret" not in json.dumps(e)


globals()[sys.argv[1]](sys.argv[2])
