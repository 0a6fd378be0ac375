"""Sound data set files with all kinds of structures, and the list of damages to plant into them."""
import zlib

import h5py
import numpy as np
from hdf5_walk import Bytes

DAMAGES = []
COUNT, SIDE = 40, 8
LARGE_COUNT, LARGE_SIDE = 1100, 512  # 275 MiB


def damage(*formats, of=None, harmless="", train="", cve=""):
    """`of`: a file of another kind, some of which are refused anyway; here they must be told all the same. `harmless`: why the file is
    read as if it were sound. `train`: the form with which two ranks also begin a
    training."""
    def note(plant):
        for form in formats:
            DAMAGES.append((plant, form, of, 0 if harmless else 3, train == form))
        return plant
    return note


OLD, NEW = "earliest", "latest"


def add_pictures(f, name, count, side, **how):
    f.create_dataset(name + "/images", data=np.arange(count * side * side, dtype="u1").reshape(count, side, side, 1), **how)
    f[name + "/labels"] = np.arange(count, dtype="i4") % 4


def add_large_pictures(f, name, count, side):
    """Black ones, in chunks of twenty, which are 1000 times as small."""
    images = f.create_dataset(name + "/images", (count, side, side, 1), "u1", chunks=(20, side, side, 1), compression="gzip")
    packed = zlib.compress(bytes(20 * side * side))
    for i in range(0, count, 20):
        images.id.write_direct_chunk((i, 0, 0, 0), packed)
    f[name + "/labels"] = np.arange(count, dtype="i4") % 4


def add_kinds(f):
    """Data sets that no run reads, but that whoever looks through a file meets."""
    inner = np.dtype([("x", "i4"), ("y", "f4")])
    f["kinds/compound"] = np.zeros(4, [("first", inner), ("second", "i2"), ("third", "S5")])
    f["kinds/array"] = np.zeros(4, [("matrix", "i4", (2, 3))])
    f.create_dataset("kinds/enum", data=np.zeros(4, "i1"), dtype=h5py.enum_dtype({"clean": 0, "mislabelled": 1, "stranger": 2}, "i1"))
    f["kinds/type"] = np.dtype("i4")
    f.create_dataset("kinds/named", (4,), dtype=f["kinds/type"])
    lists = f.create_dataset("kinds/lists", (2,), h5py.vlen_dtype("i4"))
    lists[0], lists[1] = [1, 2], [3]
    for i in range(20):
        f[f"many/member{i:02d}"] = np.arange(i + 1)


def add_compact(f, name, values):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(f.id, name, h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((len(values),)), layout).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.array(values, "i4"))


def make(path, form, of):
    """A sound data set with all kinds of structures, and where its objects begin."""
    count, side = (LARGE_COUNT, LARGE_SIDE) if of == "large" else (COUNT, SIDE)
    options = dict(fs_strategy="fsm", fs_persist=True) if form == NEW else {}
    with h5py.File(path, "w", libver=form, **options) as f:
        f.attrs["format"], f.attrs["format_version"] = "mdm-dataset", 1
        f.attrs["made_by"] = np.bytes_("a test")
        for i in range(6):
            f.attrs[f"note{i}"] = "a line"
        if of == "packed":
            add_pictures(f, "train", count, side, chunks=(10, SIDE, SIDE, 1), compression="gzip", shuffle=True, fletcher32=True, track_times=True)
        elif of == "summed":
            add_pictures(f, "train", count, side, chunks=(10, SIDE, SIDE, 1), fletcher32=True, track_times=True)
        elif of == "large":
            add_large_pictures(f, "train", count, side)
        elif of == "chunked":
            add_pictures(f, "train", count, side, chunks=(10, SIDE, SIDE, 1), track_times=True)
        else:
            add_pictures(f, "train", count, side, track_times=True)
        f.create_dataset("train/true_labels", data=np.arange(count, dtype="i4") % 4, chunks=(10,), fillvalue=7)
        f["train/ids"] = [f"picture {i}" for i in range(count)]
        f["class_names"] = ["shirt", "shoe", "bag", "coat"]
        add_pictures(f, "test", 8, side, chunks=(4, side, side, 1))
        del f["test/labels"]
        add_compact(f, b"test/labels", [0, 1, 2, 3, 0, 1, 2, 3])
        add_kinds(f)
        if of == "external":
            f.create_dataset("kinds/external", (40,), "u1", external=[("elsewhere", 0, 40)])
        if of == "virtual":
            layout = h5py.VirtualLayout((40,), "u1")
            layout[:] = h5py.VirtualSource("elsewhere", "there", (40,))
            f.create_virtual_dataset("kinds/virtual", layout)
        if of == "scaled":
            f.create_dataset("kinds/scaled", data=np.arange(40), chunks=(10,), scaleoffset=4)
        if of == "linked":
            f["kinds/linked"] = h5py.ExternalLink("elsewhere", "/there")
            f["kinds/soft"] = h5py.SoftLink("/there")
        places = {"/": h5py.h5o.get_info(f.id).addr}

        def note(name, item):
            places[name] = h5py.h5o.get_info(item.id).addr
        f.visititems(note)
    with open(path, "rb") as f:
        return Bytes(f.read(), places)
