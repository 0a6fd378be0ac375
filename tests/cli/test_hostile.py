"""Data set files of strangers: refused with exit code 3 and one line, nothing outside them is read, nothing crashes."""
import os
import random
import shutil

import h5py
import numpy as np
from program import main, run, train

IMAGES = np.zeros((40, 8, 8, 1), "u1")
LABELS = np.arange(40, dtype="i4") % 4


def make(work, name, change):
    path = work.file(name)
    if os.path.exists(path):
        os.remove(path)
    with h5py.File(path, "w") as f:
        f.attrs["format"], f.attrs["format_version"] = "mdm-dataset", 1
        f["train/images"], f["train/labels"] = IMAGES, LABELS
        change(f)
    return path


def replace(f, name, value):
    del f[name]
    f[name] = value


def told(path, *command):
    done = run(*(command or ("data", "info")), path)
    assert done.returncode == 3, f"{path}: exit code {done.returncode}: {done.stderr}{done.stdout}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and os.path.basename(path) in lines[0], done.stderr
    return lines[0]


def links_out_of_the_file_are_refused(work):
    make(work, "other.h5", lambda f: None)
    outside = h5py.ExternalLink(work.file("other.h5"), "/train/images")
    assert "link into another file" in told(make(work, "external.h5", lambda f: replace(f, "train/images", outside)))
    whole = h5py.ExternalLink(work.file("other.h5"), "/train")
    assert "/train is a link" in told(make(work, "group.h5", lambda f: replace(f, "train", whole)))
    # also where nothing reads it yet
    assert "link into another file" in told(make(work, "aside.h5", lambda f: f.__setitem__("notes", outside)))
    soft = h5py.SoftLink("/train/labels")
    assert "/train/true_labels is a link" in told(make(work, "soft.h5", lambda f: f.__setitem__("train/true_labels", soft)))


def values_in_other_files_are_refused(work):
    secret = work.file("secret")
    with open(secret, "wb") as f:
        f.write(bytes(40 * 64))

    def external(f):
        del f["train/images"]
        f.create_dataset("train/images", (40, 8, 8, 1), "u1", external=[(secret, 0, 40 * 64)])

    assert "other files" in told(make(work, "storage.h5", external))

    def virtual(f):
        del f["train/images"]
        layout = h5py.VirtualLayout((40, 8, 8, 1), "u1")
        layout[:] = h5py.VirtualSource(work.file("other.h5"), "train/images", (40, 8, 8, 1))
        f.create_virtual_dataset("train/images", layout)

    assert "virtual" in told(make(work, "virtual.h5", virtual))


def unknown_filters_are_refused_and_known_ones_read(work):
    def packed(f, **how):
        del f["train/images"]
        f.create_dataset("train/images", data=IMAGES, chunks=(10, 8, 8, 1), **how)

    line = told(make(work, "lzf.h5", lambda f: packed(f, compression="lzf")))
    assert "filter 32000" in line and "gzip" in line
    path = make(work, "gzip.h5", lambda f: packed(f, compression="gzip", shuffle=True, fletcher32=True))
    assert run("data", "verify", path).returncode == 0


def absurd_sizes_are_refused(work):
    def sparse(f, shape, **how):
        del f["train/images"]
        f.create_dataset("train/images", shape, "u1", **how)

    assert "more data than the file holds" in told(
        make(work, "sparse.h5", lambda f: sparse(f, (4000000000, 8, 8, 1), chunks=(10, 8, 8, 1))))
    assert "more data than the file holds" in told(make(work, "never-written.h5", lambda f: sparse(f, (10**9, 8, 8, 1))))
    assert "chunks" in told(make(work, "chunks.h5", lambda f: sparse(f, (40, 4000, 4000, 1), chunks=(40, 4000, 4000, 1))))
    path = make(work, "cut.h5", lambda f: f.create_dataset("train/ids", data=np.full(40, b"x" * 1000)))
    os.truncate(path, os.path.getsize(path) - 2000)
    assert told(path)


def trains_of_several_ranks_end_with_the_same_line(work):
    path = make(work, "train.h5", lambda f: replace(f, "train/images", h5py.ExternalLink("other.h5", "/train/images")))
    done = train(work, "hostile", f"data.train={path}", ranks=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert done.returncode == 3 and len(errors) == 1 and "another file" in errors[0], done.stderr


def flipped_bytes_never_crash_the_program(work):
    path, draw = make(work, "sound.h5", lambda f: None), random.Random(7)
    with open(path, "rb") as f:
        sound = bytearray(f.read())
    codes = {0: 0, 3: 0}
    metadata = [i for i in range(len(sound)) if sound[i]]  # where the structure is: most pixels are 0
    for i in range(120):
        bad = bytearray(sound)
        for _ in range(draw.choice((1, 1, 4))):
            bad[draw.choice(metadata)] = draw.randrange(256)
        with open(work.file("flipped.h5"), "wb") as f:
            f.write(bad)
        done = run("data", "info", work.file("flipped.h5"), timeout=150, errors="replace")
        assert done.returncode in codes, f"round {i}: exit code {done.returncode}: {done.stderr}"
        assert not set(done.stderr + done.stdout) & set("\x00\x07\x08\x1b"), repr(done.stderr + done.stdout)
        assert len(done.stderr.strip().splitlines()) == (done.returncode == 3), done.stderr
        codes[done.returncode] += 1
    assert codes[3] > 20, codes


def nothing_that_is_written_is_for_everybody(work):
    """Whatever the user's umask: no file or folder of a run is writable for others."""
    config = os.path.join(os.environ["MDM_SOURCE"], "configs", "quickstart.yaml")
    from program import SMALL
    before = os.umask(0)
    try:
        os.environ["A_SECRET_TOKEN"] = "do-not-tell-4711"
        done = run("train", config, f"data.train={work.data}", f"run={work.file('private')}", *SMALL, "train.epochs=3")
        path = work.file("copy.h5")
        assert run("data", "noise", work.full, path, "--samples", "60").returncode == 0
    finally:
        os.umask(before)
        del os.environ["A_SECRET_TOKEN"]
    assert done.returncode == 0, done.stderr
    names = [path] + [os.path.join(at, n) for at, folders, files in os.walk(work.file("private")) for n in folders + files]
    assert len(names) > 8
    for name in names + [work.file("private")]:
        assert os.stat(name).st_mode & 0o002 == 0, name
        if os.path.isfile(name):
            with open(name, "rb") as f:
                assert b"do-not-tell-4711" not in f.read(), name
    shutil.rmtree(work.file("private"))


main([links_out_of_the_file_are_refused, values_in_other_files_are_refused, unknown_filters_are_refused_and_known_ones_read,
      absurd_sizes_are_refused, trains_of_several_ranks_end_with_the_same_line, flipped_bytes_never_crash_the_program,
      nothing_that_is_written_is_for_everybody])
