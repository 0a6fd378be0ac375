"""data import of JPEG and PNG: folders, lists, metadata, CIFAR's Python files; damaged pictures; training on what was imported."""
import csv
import gzip
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
import time

try:
    from PIL import Image
except ImportError:
    print("skipped: python3-pil is not installed")
    sys.exit(77)
import h5py
import numpy as np
from program import FASHION, PROGRAM, SMALL, events, main, run

NAMES = ["shirt", "trouser", "pullover", "dress"]


def fashion(part):
    with gzip.open(f"{FASHION}/{part}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read()[16:], "u1").reshape(-1, 28, 28)
    with gzip.open(f"{FASHION}/{part}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read()[8:], "u1")
    chosen = labels < len(NAMES)
    return images[chosen], labels[chosen]


def folder(work):
    """400 training and 100 test JPEGs, a third of the training labels drawn anew."""
    root, draw = work.file("pictures"), random.Random(1)
    if os.path.exists(root):
        return root
    for part, split, count in (("train", "train", 400), ("t10k", "test", 100)):
        images, labels = fashion(part)
        for i in range(count):
            name = NAMES[draw.randrange(4) if split == "train" and draw.random() < 1 / 3 else labels[i]]
            os.makedirs(f"{root}/{split}/{name}", exist_ok=True)
            Image.fromarray(images[i]).save(f"{root}/{split}/{name}/{i:04d}.jpg", quality=95)
    return root


def imported(work, name, *arguments):
    path = work.file(name)
    done = run("data", "import", *arguments[:1], path, *arguments[1:])
    assert done.returncode == 0, done.stderr
    return path


def same(a, b):
    with open(a, "rb") as f, open(b, "rb") as g:
        return f.read() == g.read()


def folders_are_imported_alike_by_any_number_of_threads(work):
    root = folder(work)
    first = imported(work, "one.h5", root, "--threads", "1")
    assert same(first, imported(work, "two.h5", root, "--threads", "2"))
    with h5py.File(first) as f:
        assert [n.decode() for n in f["class_names"]] == sorted(NAMES) and f["train/images"].shape == (400, 28, 28, 1)
        for i in (0, 57, 399):
            path = f["train/ids"][i].decode()
            assert np.array_equal(f["train/images"][i, :, :, 0], np.array(Image.open(f"{root}/{path}")))
            assert path.split("/")[1] == sorted(NAMES)[f["train/labels"][i]]
    with open(work.file("classes.txt"), "w") as f:
        f.write("\n".join(NAMES) + "\n")
    with h5py.File(imported(work, "ordered.h5", root, "--classes", work.file("classes.txt"))) as f:
        assert [n.decode() for n in f["class_names"]] == NAMES


def imports_go_on_where_they_were_killed(work):
    root, path = folder(work), work.file("killed.h5")
    # 785 KB a picture: blocks of 85
    whole = imported(work, "undisturbed.h5", root, "--size", "512")
    journal, pictures = path + ".import-journal", path + ".import-pictures"
    process = subprocess.Popen([PROGRAM, "data", "import", root, path, "--size", "512", "--threads", "1"], stderr=subprocess.DEVNULL)
    until = time.time() + 20
    while time.time() < until and not (os.path.exists(journal) and os.path.getsize(journal) > 2000):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9 and not os.path.exists(path)
    for name in (journal, pictures):
        shutil.copy(name, name.replace("killed", "saved"))

    def go_on(cut, with_pictures):
        for name in (journal, pictures):
            shutil.copy(name.replace("killed", "saved"), name)
        os.truncate(journal, os.path.getsize(journal) - cut)
        if not with_pictures:
            os.truncate(pictures, 1000)
        done = run("data", "import", root, path, "--size", "512")
        assert done.returncode == 0, done.stderr
        assert same(whole, path)
        os.remove(path)
        assert not [name for name in os.listdir(work.path) if name.startswith("killed.h5")]
        return "going on behind" in done.stderr

    assert go_on(0, True)
    assert go_on(3, True)  # a torn last record
    assert not go_on(0, False)  # records of pictures that are not there


def a_mended_picture_lets_the_import_go_on(work):
    root, path = work.file("mended"), work.file("mended.h5")
    shutil.copytree(folder(work), root)
    last = f"{root}/train/trouser/" + max(os.listdir(f"{root}/train/trouser"))
    with open(last, "rb") as f:
        good = f.read()
    with open(last, "wb") as f:
        f.write(good[:200])
    stopped = run("data", "import", root, path, "--size", "512")
    assert stopped.returncode == 3 and last in stopped.stderr, stopped.stderr
    assert not os.path.exists(path)
    with open(last, "wb") as f:
        f.write(good)
    done = run("data", "import", root, path, "--size", "512")
    assert done.returncode == 0 and "going on behind" in done.stderr, done.stderr
    assert same(path, imported(work, "mended-whole.h5", root, "--size", "512"))
    # a picture that was changed in the meantime is read again
    name = f"{root}/train/dress/" + min(os.listdir(f"{root}/train/dress"))
    os.remove(path)
    with open(last, "wb") as f:
        f.write(good[:200])
    assert run("data", "import", root, path, "--size", "512").returncode == 3
    Image.new("L", (28, 28), 200).save(name)
    with open(last, "wb") as f:
        f.write(good)
    done = run("data", "import", root, path, "--size", "512")
    assert done.returncode == 0 and "going on" not in done.stderr, done.stderr
    assert same(path, imported(work, "changed-whole.h5", root, "--size", "512"))


def lists_and_metadata_name_the_same_pictures(work):
    root = folder(work)
    entries = [(f"{n}/{p}", i) for i, n in enumerate(NAMES) for p in sorted(os.listdir(f"{root}/train/{n}"))[:20]]
    results = []
    for number, separator in enumerate(" \t,"):
        path = work.file(f"list{number}.txt")
        with open(path, "w") as f:
            f.writelines(f"{p}{separator}{y}\n" for p, y in entries)
        results.append(imported(work, f"list{number}.h5", path, "--root", f"{root}/train"))
    shutil.copytree(f"{root}/train", work.file("meta"))
    with open(work.file("meta/metadata.csv"), "w") as f:
        f.write("file_name,text,label\n" + "".join(f'"{p}","a, b",{y}\n' for p, y in entries))
    results.append(imported(work, "csv.h5", work.file("meta")))
    os.remove(work.file("meta/metadata.csv"))
    with open(work.file("meta/metadata.jsonl"), "w") as f:
        f.writelines(json.dumps({"file_name": p, "kind": y}) + "\n" for p, y in entries)
    results.append(imported(work, "jsonl.h5", work.file("meta"), "--label-column", "kind"))
    assert all(same(results[0], other) for other in results[1:])
    with open(work.file("named.txt"), "w") as f:
        f.writelines(f"{p} {NAMES[y]}\n" for p, y in entries)
    with h5py.File(imported(work, "named.h5", work.file("named.txt"), "--root", f"{root}/train", "--test-list",
                            work.file("named.txt"))) as f:
        assert [sorted(NAMES)[y] for y in f["train/labels"]] == [NAMES[y] for _, y in entries]
        assert f["test/labels"].shape == (80,)


def spreadsheets_lists_are_read_and_labels_from_1_are_told(work):
    """As a spreadsheet exports them: a mark of byte order, a header, quotes, Windows' line ends, absolute paths, labels from 1."""
    root, rows = work.file("sheet"), []
    os.makedirs(root)
    for i in range(6):
        name = f'{i}, "new" \u00fc.png'
        Image.new("L", (8, 8), 40 * i).save(f"{root}/{name}")
        rows.append([i, 1 + i % 2, f"{root}/{name}" if i % 3 else name])
    path = f"{root}/list.csv"
    with open(path, "w", newline="", encoding="utf-8-sig") as f:
        csv.writer(f).writerows([["id", "Label", "Path"]] + rows)
    done = run("data", "import", path, work.file("sheet.h5"))
    assert done.returncode == 0 and "warning: class 0 has no training picture" in done.stderr, done.stderr
    assert "--numbers-are-names" in done.stderr
    done = run("data", "import", path, work.file("sheet-named.h5"), "--numbers-are-names")
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    with h5py.File(work.file("sheet.h5")) as f, h5py.File(work.file("sheet-named.h5")) as g:
        assert f["train/labels"][:].tolist() == [1, 2] * 3 and g["train/labels"][:].tolist() == [0, 1] * 3
        assert [n.decode() for n in g["class_names"]] == ["1", "2"]
        assert [i.decode() for i in g["train/ids"]] == [p for _, _, p in rows]
        assert g["train/images"][:, 0, 0, 0].tolist() == [40 * i for i in range(6)]
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f, delimiter=";").writerows([["Nummer", "Klasse", "Bild"]] + rows)
    done = run("data", "import", path, work.file("sheet-german.h5"), "--numbers-are-names", "--file-column", "Bild",
               "--label-column", "Klasse")
    assert done.returncode == 0 and same(work.file("sheet-named.h5"), work.file("sheet-german.h5")), done.stderr


def what_folders_hold_beside_pictures_is_told(work):
    root = work.file("odd")
    for name in ("Train/cat", "Test/dog"):
        os.makedirs(f"{root}/{name}")
        Image.new("L", (8, 8)).save(f"{root}/{name}/a.png")
    for name in ("Train/cat/b\x1b[2J.webp", "Train/notes.txt", "c.png"):
        with open(f"{root}/{name}", "w") as f:
            f.write("x")
    done = run("data", "import", root, work.file("odd.h5"))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr, repr(done.stderr)
    for words in ("2 files are passed over", "Train/cat/b?[2J.webp", "1 picture is passed over, being in no class folder", "odd/c.png",
                  "the folder Test is taken for a class", "the folder Train is taken for a class"):
        assert words in done.stderr, (words, done.stderr)


def a_place_that_is_not_there_is_told_before_the_work(work):
    done = run("data", "import", folder(work), work.file("nowhere/x.h5"), "--size", "16")
    assert done.returncode == 4 and "nowhere/x.h5 cannot be written: its folder does not exist" in done.stderr, done.stderr


def the_published_layouts_are_imported(work):
    """WebVision, Clothing1M and the controlled-noise mini-ImageNet, three or four pictures of each."""
    root = work.file("published")

    def files(base, *paths):
        for i, path in enumerate(paths):
            os.makedirs(os.path.dirname(f"{root}/{base}/{path}"), exist_ok=True)
            Image.new("RGB", (8, 8), (40 * i, 10, 10)).save(f"{root}/{base}/{path}")

    def text(path, content):
        os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
        with open(f"{root}/{path}", "w", encoding="utf-8") as f:
            f.write(content)

    def contents(name, *arguments):
        with h5py.File(imported(work, name, *arguments)) as f:
            ids = [i.decode() for i in f["train/ids"]]
            return dict(zip(ids, f["train/labels"][:].tolist())), f["test/labels"][:].tolist(), f["test/images"][:, 0, 0, 0].tolist()

    files("web", "google/q0001/a.jpg", "google/q0002/b.jpg", "val_images_256/val0.jpg", "val_images_256/val1.jpg")
    text("web/info/train.txt", "google/q0001/a.jpg 0\ngoogle/q0002/b.jpg 1\n")
    text("web/info/val.txt", "val1.jpg 1\nval0.jpg 0\n")
    train, test, shades = contents("web.h5", f"{root}/web/info/train.txt", "--root", f"{root}/web", "--test-list",
                                   f"{root}/web/info/val.txt", "--test-root", f"{root}/web/val_images_256")
    assert train == {"google/q0001/a.jpg": 0, "google/q0002/b.jpg": 1} and test == [1, 0] and shades[0] > shades[1]
    files("c1m", "images/0/00/x,1.jpg", "images/0/01/y,2.jpg", "images/1/z.jpg")
    text("c1m/noisy_label_kv.txt", "images/1/z.jpg 0\nimages/0/01/y,2.jpg 1\nimages/0/00/x,1.jpg 0\n")
    text("c1m/clean_label_kv.txt", "images/1/z.jpg 1\n")
    text("c1m/train_keys.txt", "\ufeffimages/0/00/x,1.jpg\nimages/0/01/y,2.jpg\n")
    text("c1m/test_keys.txt", "images/1/z.jpg\n")
    keys = [f"{root}/c1m/train_keys.txt", "--labels", f"{root}/c1m/noisy_label_kv.txt", "--test-list", f"{root}/c1m/test_keys.txt"]
    train, test, _ = contents("c1m.h5", *keys, "--test-labels", f"{root}/c1m/clean_label_kv.txt")
    assert train == {"images/0/00/x,1.jpg": 0, "images/0/01/y,2.jpg": 1} and test == [1]
    assert contents("c1m-same.h5", *keys)[1] == [0]
    files("red", "all_images/n0185567200000001.jpg", "all_images/0f3c.jpg", "validation/0/n01.jpg", "validation/1/n02.jpg")
    text("red/split/red_noise_nl_0.4", "n0185567200000001.jpg 0\n0f3c.jpg 1\n")
    train, test, _ = contents("red.h5", f"{root}/red/split/red_noise_nl_0.4", "--root", f"{root}/red/all_images", "--test",
                              f"{root}/red/validation")
    assert train == {"n0185567200000001.jpg": 0, "0f3c.jpg": 1} and test == [0, 1]


def mistaken_lists_are_told_in_the_words_of_lists(work):
    def refused(name, content, *arguments):
        with open(work.file(name), "w", encoding="utf-8") as f:
            f.write(content)
        done = run("data", "import", work.file(name), work.file("refused.h5"), *arguments)
        assert done.stderr.count("\n") == 1 and not os.path.exists(work.file("refused.h5")), done.stderr
        return done.returncode, done.stderr

    code, said = refused("header.csv", "Bild,Klasse\nx.jpg,a\ny.jpg,b\n")
    assert code == 3 and "first picture is" in said and "--file-column" in said and "--root" in said, said
    code, said = refused("windows.csv", "path,label\r\na\\x.jpg,a\r\na\\y.jpg,b\r\n")
    assert code == 3 and "paths are written with /" in said, said
    code, said = refused("both.txt", "a.jpg 1\n", "--numbers-are-names", "--classes", work.file("header.csv"))
    assert code == 2 and "one is possible" in said, said
    code, said = refused("keys.txt", "a.jpg\nb.jpg\n", "--labels", work.file("header.csv"))
    assert code == 3 and "keys.txt, line 1: a.jpg has no label in" in said, said
    with open(work.file("two.txt"), "w") as f:
        f.write("a.jpg 0\na.jpg 1\n")
    code, said = refused("keys.txt", "a.jpg\n", "--labels", work.file("two.txt"))
    assert code == 3 and "gives a.jpg two labels" in said, said
    code, said = refused("keys.txt", "a.jpg 1\n", "--test-root", work.path)
    assert code == 2 and "--test-root goes with --test-list" in said, said


def damaged_pictures_fail_or_are_left_out_by_name(work):
    root = work.file("damaged")
    shutil.copytree(folder(work), root)
    victim = sorted(os.listdir(f"{root}/train/dress"))[3]
    with open(f"{root}/train/dress/{victim}", "r+b") as f:
        f.truncate(200)
    done = run("data", "import", root, work.file("damaged.h5"))
    assert done.returncode == 3 and victim in done.stderr and "--on-error skip" in done.stderr and not os.path.exists(work.file("damaged.h5"))
    done = run("data", "import", root, work.file("damaged.h5"), "--on-error", "skip")
    assert done.returncode == 0 and victim in done.stderr
    with h5py.File(work.file("damaged.h5")) as f, h5py.File(work.file("one.h5")) as g:
        left = [i for i in range(400) if g["train/ids"][i].decode() != f"train/dress/{victim}"]
        assert len(left) == 399 and np.array_equal(f["train/ids"][:], g["train/ids"][:][left])
        assert np.array_equal(f["train/images"][:], g["train/images"][:][left])
    assert not [name for name in os.listdir(work.path) if ".part-" in name]


def encoded_pictures_train_to_the_same_weights(work):
    root, weights = folder(work), []
    imported(work, "pixels.h5", root, "--size", "24")
    imported(work, "encoded.h5", root, "--size", "24", "--keep-encoded")
    assert json.loads(run("data", "info", work.file("encoded.h5"), "--json").stdout)["height"] == 24
    assert run("data", "verify", work.file("encoded.h5")).returncode == 0
    for name, resident in (("pixels", "host"), ("encoded", "host"), ("encoded", "stream")):
        done = run("train", f"data.train={work.file(name)}.h5", f"run={work.file(name)}-{resident}", *SMALL,
                   "train.epochs=2", "train.warmup=1", "pretrain.epochs=1", f"data.resident={resident}")
        assert done.returncode == 0, done.stderr
        with open(f"{work.file(name)}-{resident}/model-a.safetensors", "rb") as f:
            weights.append(f.read())
    assert weights[0] == weights[1] == weights[2]
    assert any("test_top1" in e for e in events(work, "encoded-stream"))
    with h5py.File(work.file("encoded.h5"), "r+") as f:
        start = int(f["train/offsets"][7])
        f["train/encoded"][start + 30:start + 200] = 0xff
    done = run("data", "verify", work.file("encoded.h5"))
    assert done.returncode == 3 and "picture 7" in done.stderr, done.stderr


def text(value):
    return b"U" + bytes([len(value)]) + value


def python_batch(key, images, labels):
    """A batch as Python 2 wrote it in 2009: protocol 2, plain strings."""
    shape = b"".join(b"J" + n.to_bytes(4, "little") for n in images.shape)
    listed = b"](" + b"".join(b"K" + bytes([y]) for y in labels) + b"e"
    array = (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape + b"\x86cnumpy\ndtype\n"
             b"U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" +
             images.size.to_bytes(4, "little") + images.tobytes() + b"tb")
    return b"\x80\x02}(" + text(key) + listed + text(b"data") + array + b"u."


def cifars_python_files_are_read_and_nothing_in_them_is_run(work):
    root, draw = work.file("cifar-10-batches-py"), np.random.default_rng(2)
    os.makedirs(root)
    images = draw.integers(0, 256, (60, 3072), "u1")
    for i in range(6):
        name = f"data_batch_{i + 1}" if i < 5 else "test_batch"
        with open(f"{root}/{name}", "wb") as f:
            part, labels = images[10 * i:10 * i + 10], list(range(10))
            f.write(python_batch(b"labels", part, labels) if i % 2 else pickle.dumps({"labels": labels, "data": part}, 4))
        assert list(pickle.load(open(f"{root}/{name}", "rb"), encoding="latin1")["labels"]) == labels
    with open(f"{root}/batches.meta", "wb") as f:
        pickle.dump({"label_names": [f"class{i}" for i in range(10)], "num_vis": 3072}, f, 2)
    with h5py.File(imported(work, "python.h5", root)) as f:
        assert np.array_equal(f["train/images"][:], images[:50].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        assert f["class_names"][3] == b"class3" and f["test/labels"].shape == (10,)
    for ending, mode in (("tar.gz", "w:gz"), ("tar", "w")):
        archive = work.file(f"cifar-10-python.{ending}")
        with tarfile.open(archive, mode) as t:
            t.add(root, "cifar-10-batches-py")
        assert same(work.file("python.h5"), imported(work, f"{ending}.h5", archive))
    with open(work.file("cifar-10-python.tar.gz"), "rb") as f:
        packed = f.read()
    with open(work.file("cut.tar.gz"), "wb") as f:
        f.write(packed[:-5])
    done = run("data", "import", work.file("cut.tar.gz"), work.file("cut.h5"))
    assert done.returncode == 3 and "cut short" in done.stderr, done.stderr
    with tarfile.open(work.file("other.tgz"), "w:gz") as t:
        t.add(__file__, "a.txt")
    done = run("data", "import", work.file("other.tgz"), work.file("cut.h5"))
    assert done.returncode == 3 and "neither CIFAR" in done.stderr, done.stderr
    with open(f"{root}/data_batch_3", "wb") as f:
        f.write(b"cos\nsystem\n(S'touch " + work.file("run").encode() + b"'\ntR.")
    done = run("data", "import", root, work.file("evil.h5"))
    assert done.returncode == 3 and "data_batch_3" in done.stderr and not os.path.exists(work.file("run"))


def noise_keeps_ids_and_refuses_noisy_input(work):
    out = work.file("subset.h5")
    assert run("data", "noise", work.full, out, "--samples", "50", "--symmetric", "0.2", "--seed", "9").returncode == 0
    with h5py.File(out) as f, h5py.File(work.full) as g:
        for i in range(50):
            assert np.array_equal(f["train/images"][i], g["train/images"][int(f["train/ids"][i])])
    info = json.loads(run("data", "info", out, "--json").stdout)
    assert info["ids"] and "seed 9" in info["notes"]["noise"] and len(info["notes"]["transition_counts"].split()) == 100
    done = run("data", "noise", out, work.file("twice.h5"), "--hold-out", "8,9", "--ood", "0.1")
    assert done.returncode == 2 and "noisy already" in done.stderr
    done = run("data", "noise", out, work.file("twice.h5"), "--symmetric", "0.1")
    assert done.returncode == 0 and "begins from its true labels" in done.stderr


main([folders_are_imported_alike_by_any_number_of_threads, imports_go_on_where_they_were_killed,
      a_mended_picture_lets_the_import_go_on, lists_and_metadata_name_the_same_pictures,
      spreadsheets_lists_are_read_and_labels_from_1_are_told, what_folders_hold_beside_pictures_is_told, a_place_that_is_not_there_is_told_before_the_work,
      the_published_layouts_are_imported, mistaken_lists_are_told_in_the_words_of_lists,
      damaged_pictures_fail_or_are_left_out_by_name, encoded_pictures_train_to_the_same_weights,
      cifars_python_files_are_read_and_nothing_in_them_is_run, noise_keeps_ids_and_refuses_noisy_input])
