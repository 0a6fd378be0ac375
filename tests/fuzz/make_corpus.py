"""Writes corpus/: a few small sound files of every format (Debian's python3-pil and python3-numpy). Run once; the files are kept."""
import gzip
import io
import json
import os
import pickle
import struct
import tarfile

import numpy as np
from PIL import Image

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
RANDOM = np.random.default_rng(1)


def put(target, name, content):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, name), "wb") as f:
        f.write(content)


def picture(mode, size=(7, 5), **options):
    values = RANDOM.integers(0, 256, (size[1], size[0], 4), "u1")
    image = Image.fromarray(values).convert("RGB").convert(mode)
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


exif = Image.Exif()
exif[0x112] = 6
put("idx", "images", struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(range(24)))
put("cifar", "record", bytes([3, 7]) + RANDOM.integers(0, 256, 3072, "u1").tobytes())
for protocol in (2, 4):
    # Python 3 writes bytes of protocol 2 through _codecs; CIFAR's files have plain strings, as protocol 4 has plain bytes
    batch = {"data": np.arange(2 * 3072, dtype="u1").reshape(2, 3072), "fine_labels": [3, 99], "coarse_labels": [1, 2],
             "filenames": ["a.png", "b.png"]}
    if protocol == 4:
        put("pickle", "python3", pickle.dumps(batch, protocol))
text = lambda s: b"U" + bytes([len(s)]) + s
put("pickle", "python2", b"\x80\x02}q\x01(" + text(b"fine_labels") + b"q\x02]q\x03(K\x03K\x63e" + text(b"data") +
    b"q\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02M\x00\x0c\x86"
    b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x18\x00\x00" +
    bytes(6144) + b"tbu.")
put("list", "names", b"a/1.jpg cat\na/2.jpg dog\n")
put("keys", "names", b"a/1.jpg cat\na/2.jpg dog\nb.png cat\n--\nb.png\na/2.jpg\n")
put("list", "numbers", b"a/1 x.jpg,0\r\nb.png,1\n")
put("list", "quoted", b'"a,1.png",cat\r\n"b ""2"".png" ,"big, black"\r\nc.png;1,dog\r\n')
put("list", "semicolons", b'"a;1.png";1,5\nb.png;"2"\n')
put("list", "header", b'\xef\xbb\xbfid,Label,Path\r\n0, "big, black" , a.png\r\n1,dog,"b\n.png"\r\n')
put("csv", "quoted", b'file_name,text,label\n"a,""1"".png",x,cat\nb.png,,dog\n')
put("jsonl", "both", b'{"file_name": "a.png", "label": 0}\n{"file_name": "b.png", "label": 1}\n')
put("exif", "turned", exif.tobytes()[6:])
put("jpeg", "grey", picture("L", format="JPEG"))
put("jpeg", "turned", picture("RGB", format="JPEG", exif=exif.tobytes()))
put("jpeg", "progressive", picture("RGB", (20, 18), format="JPEG", progressive=True))
put("jpeg", "inks", picture("CMYK", format="JPEG"))
for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
    put("png", mode, picture(mode, format="PNG"))
out = io.BytesIO()
Image.fromarray(RANDOM.integers(0, 65536, (5, 7)).astype("u2")).save(out, format="PNG")
put("png", "deep", out.getvalue())
header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"k": "v"}}).encode()
put("safetensors", "one", struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2))
put("yaml", "nested", b"run: runs/x\ndata.train: a.h5\ntrain:\n  epochs: 5\n  warmup: 1\ndivide.k: 7\n")
put("setting", "epochs", b"train.epochs=12")
put("noise", "eight", b"[0, 1, 2, 3, 4, 5, 6, 9]")
unpacked = io.BytesIO()
with tarfile.open(fileobj=unpacked, mode="w", format=tarfile.USTAR_FORMAT) as t:
    for name in ("train.bin", "test.bin"):
        member = tarfile.TarInfo("cifar-100-binary/" + name)
        member.size = 3074
        t.addfile(member, io.BytesIO(b"\x01\x63" + bytes(3072)))
put("archive", "binary", gzip.compress(unpacked.getvalue(), mtime=0))
put("archive", "plain", unpacked.getvalue()[:8704])  # to the first block of zeros, which ends it
