"""data import, noise and info through the command line, on small real files of every format and kind of damage."""
import gzip
import json
import os
import struct

import h5py
import numpy as np
from program import FASHION, main, run

RANDOM = np.random.default_rng(5)


def write(path, content):
    with (gzip.open if path.endswith(".gz") else open)(path, "wb") as f:
        f.write(content)


def idx(array):
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_folder(work, name, ending="", **changes):
    folder = work.file(name)
    os.makedirs(folder, exist_ok=True)
    files = {"train-images-idx3-ubyte": idx(RANDOM.integers(0, 256, (30, 9, 11), "u1")),
             "train-labels-idx1-ubyte": idx(np.arange(30, dtype="u1") % 3),
             "t10k-images-idx3-ubyte": idx(RANDOM.integers(0, 256, (6, 9, 11), "u1")),
             "t10k-labels-idx1-ubyte": idx(np.arange(6, dtype="u1") % 3)}
    files.update({k.replace("_", "-"): v for k, v in changes.items()})
    for file, content in files.items():
        write(f"{folder}/{file}{ending}", content)
    return folder, files


def idx_files_plain_and_gzipped_give_the_same_bytes(work):
    folder, files = idx_folder(work, "idx")
    assert run("data", "import", folder, work.file("plain.h5")).returncode == 0
    packed = work.file("packed-idx")
    os.makedirs(packed)
    for file, content in files.items():
        write(f"{packed}/{file}.gz", content)
    assert run("data", "import", packed, work.file("packed.h5")).returncode == 0
    assert open(work.file("plain.h5"), "rb").read() == open(work.file("packed.h5"), "rb").read()
    with h5py.File(work.file("plain.h5")) as f:
        assert f["train/images"].shape == (30, 9, 11, 1)
        assert f["train/images"][:].tobytes() == files["train-images-idx3-ubyte"][16:]
        assert f["train/labels"][:].tolist() == [i % 3 for i in range(30)]


def cifar_records(labels, label_bytes):
    images = RANDOM.integers(0, 256, (len(labels), 3, 32, 32), "u1")
    records = b"".join(bytes([7] * (label_bytes - 1) + [int(y)]) + x.tobytes() for x, y in zip(images, labels))
    return images, records


def cifar_records_of_both_kinds_are_read(work):
    folder = work.file("cifar10")
    os.makedirs(folder)
    everything = []
    for i in range(1, 6):
        images, records = cifar_records(np.arange(8) % 10, 1)
        everything.append(images)
        write(f"{folder}/data_batch_{i}.bin", records)
    write(f"{folder}/test_batch.bin", cifar_records(np.arange(4), 1)[1])
    write(f"{folder}/batches.meta.txt", b"\n".join(b"class%d" % i for i in range(10)) + b"\n\n")
    assert run("data", "import", folder, work.file("c10.h5")).returncode == 0
    with h5py.File(work.file("c10.h5")) as f:
        assert np.array_equal(f["train/images"][:], np.concatenate(everything).transpose(0, 2, 3, 1))
        assert f["class_names"][3] == b"class3" and f["test/labels"].shape == (4,)
    folder = work.file("cifar100")
    os.makedirs(folder)
    write(f"{folder}/train.bin", cifar_records(np.arange(200) % 100, 2)[1])
    write(f"{folder}/test.bin.gz", cifar_records(np.arange(5), 2)[1])
    assert run("data", "import", folder, work.file("c100.h5"), "--format", "cifar100").returncode == 0
    with h5py.File(work.file("c100.h5")) as f:
        assert f["train/labels"][:].tolist() == [i % 100 for i in range(200)]


def damaged_sources_are_refused_by_name(work):
    image, label = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    whole = idx(RANDOM.integers(0, 256, (30, 9, 11), "u1"))
    for number, (file, content) in enumerate([(image, whole[:-1]), (image, whole + b"x"), (image, b"\1" + whole[1:]),
                                              (image, whole[:2]), (image, b""), (label, idx(np.zeros(29, "u1"))),
                                              (label, idx(np.zeros(0, "u1")))]):
        folder, _ = idx_folder(work, f"bad{number}")
        write(f"{folder}/{file}", content)
        done = run("data", "import", folder, work.file("bad.h5"))
        assert done.returncode == 3 and file in done.stderr and done.stderr.count("\n") == 1, (number, done.stderr)
        assert not os.path.exists(work.file("bad.h5"))
    folder, _ = idx_folder(work, "badgz")
    packed = gzip.compress(whole)
    os.remove(f"{folder}/{image}")
    with open(f"{folder}/{image}.gz", "wb") as f:
        f.write(packed[:len(packed) // 2])
    assert run("data", "import", folder, work.file("bad.h5")).returncode == 3
    folder = work.file("badcifar")
    os.makedirs(folder)
    write(f"{folder}/train.bin", cifar_records([100], 2)[1])
    done = run("data", "import", folder, work.file("bad.h5"))
    assert done.returncode == 3 and "label" in done.stderr
    assert run("data", "import", work.file("nowhere"), work.file("bad.h5")).returncode == 3


def noise_has_the_counts_asked_for(work):
    out = work.file("counts.h5")
    done = run("data", "noise", work.full, out, "--samples", "1000", "--hold-out", "8,9", "--ood", "0.15", "--symmetric",
               "0.3", "--exclude-own", "--seed", "4", "--json")
    counts = json.loads(done.stdout)
    assert (counts["samples"], counts["symmetric"], counts["out_of_distribution"], counts["classes"]) == (1000, 300, 150, 8)
    with h5py.File(out) as f:
        given, truth = f["train/labels"][:], f["train/true_labels"][:]
        assert (truth == -1).sum() == 150 and ((truth >= 0) & (given != truth)).sum() == 300
        assert f["test/labels"].shape == (8000,) and given.max() == 7
    told = json.loads(run("data", "info", out, "--json").stdout)
    assert told["wrong_labels"] == 300 and told["out_of_distribution"] == 150, told  # as data noise counts them
    again = work.file("again.h5")
    run("data", "noise", work.full, again, "--samples", "1000", "--hold-out", "8,9", "--ood", "0.15", "--symmetric", "0.3",
        "--exclude-own", "--seed", "4")
    assert open(out, "rb").read() == open(again, "rb").read()


def asymmetric_noise_stays_inside_superclasses(work):
    out = work.file("asymmetric.h5")
    done = run("data", "noise", work.file("c100.h5"), out, "--asymmetric", "0.5", "--json")
    assert json.loads(done.stdout)["wrong_labels"] == 100
    with h5py.File(out) as f:
        moved = {(int(t), int(g)) for t, g in zip(f["train/true_labels"], f["train/labels"]) if t != g}
    assert (0, 51) in moved or (0, 53) in moved or not [m for m in moved if m[0] == 0]  # apple's neighbours are fruit
    fruit = {0, 51, 53, 57, 83}
    assert all((t in fruit) == (g in fruit) for t, g in moved)
    assert run("data", "noise", work.full, work.file("none.h5"), "--asymmetric", "0.2").returncode == 2


def a_noise_file_puts_every_label_on_its_own_picture(work):
    labels = work.file("labels.json")
    done = run("data", "noise", work.full, work.file("first.h5"), "--symmetric", "0.4", "--write-noise-file", labels)
    assert done.returncode == 0, done.stderr
    published = open(labels).read()
    again = ("data", "noise", work.full, work.file("other-draw.h5"), "--symmetric", "0.2", "--write-noise-file", labels)
    refused = run(*again)
    assert refused.returncode == 2 and f"{labels} exists; --force" in refused.stderr, refused.stderr
    assert open(labels).read() == published and not os.path.exists(work.file("other-draw.h5"))
    done = run("data", "noise", work.full, work.file("second.h5"), "--noise-file", labels)
    assert done.returncode == 0, done.stderr
    with h5py.File(work.file("first.h5")) as f, h5py.File(work.file("second.h5")) as g, h5py.File(work.full) as h:
        assert np.array_equal(f["train/labels"], g["train/labels"])
        assert np.array_equal(g["train/images"], h["train/images"])
        assert np.array_equal(g["train/true_labels"], h["train/labels"])
    assert run(*again, "--force").returncode == 0 and open(labels).read() != published
    for text in ("[1, 2]", "{}", "[", json.dumps([99] * 60000)):
        with open(labels, "w") as f:
            f.write(text)
        assert run("data", "noise", work.full, work.file("third.h5"), "--noise-file", labels).returncode == 3, text[:20]


def impossible_noise_is_refused_with_exit_code_2(work):
    for arguments in (["--samples", "70000"], ["--ood", "0.2"], ["--hold-out", "8,9", "--ood", "0.9", "--samples", "20000"], ["--symmetric", "1.5"],
                      ["--hold-out", "10"], ["--hold-out", "0,1,2,3,4,5,6,7,8"], ["--symetric", "0.1"],
                      ["--transition-matrix", "x"], ["--samples", "ten"]):
        done = run("data", "noise", work.full, work.file("impossible.h5"), *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, (arguments, done.stderr)
    assert run("data", "import", FASHION, work.full).returncode == 2  # exists, no --force


def info_tells_what_a_file_holds(work):
    info = json.loads(run("data", "info", work.data, "--json").stdout)
    assert info["train"] == 400 and info["out_of_distribution"] == 80 and len(info["classes"]) == 8
    assert "Trouser" in run("data", "info", work.data).stdout


main([idx_files_plain_and_gzipped_give_the_same_bytes, cifar_records_of_both_kinds_are_read,
      damaged_sources_are_refused_by_name, noise_has_the_counts_asked_for, asymmetric_noise_stays_inside_superclasses,
      a_noise_file_puts_every_label_on_its_own_picture, impossible_noise_is_refused_with_exit_code_2,
      info_tells_what_a_file_holds])
