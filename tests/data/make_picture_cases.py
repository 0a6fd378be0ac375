"""Writes picture_cases.h: what Pillow makes of the pictures in tests/fuzz/corpus and of a resized pattern. The header is kept."""
import os

import numpy as np
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join(HERE, "..", "fuzz", "corpus")
FILES = ["jpeg/grey", "jpeg/turned", "jpeg/progressive", "jpeg/inks", "png/1", "png/L", "png/LA", "png/P", "png/RGB", "png/RGBA"]
SIZES = [(5, 7), (17, 4), (29, 40), (1, 1), (17, 13), (16, 13), (3, 39)]


def array(name, values):
    numbers = ",".join(map(str, values.reshape(-1).tolist()))
    return f"static const uint8_t {name}[] = {{{numbers}}};\n"


y, x, c = np.mgrid[0:13, 0:17, 0:3]
pattern = ((y * 31 + x * 17 + c * 71 + (x * y) % 23 * 5) % 256).astype("u1")
out = "/* Pixels by Pillow (make_picture_cases.py). */\n/* clang-format off */\n"
rows = ""
for number, size in enumerate(SIZES):
    resized = np.array(Image.fromarray(pattern).resize(size, Image.BILINEAR))
    out += array(f"resized_{number}", resized)
    rows += f"    {{{size[1]}, {size[0]}, resized_{number}}},\n"
out += f"static const struct {{ int height, width; const uint8_t *pixels; }} resize_cases[] = {{\n{rows}}};\n"
rows = ""
for number, name in enumerate(FILES):
    image = ImageOps.exif_transpose(Image.open(os.path.join(CORPUS, name)))
    pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    out += array(f"decoded_{number}", pixels)
    rows += f'    {{"{name}", {pixels.shape[0]}, {pixels.shape[1]}, {1 if pixels.ndim == 2 else 3}, decoded_{number}}},\n'
out += f"static const struct {{ const char *name; int height, width, channels; const uint8_t *pixels; }} decode_cases[] = {{\n{rows}}};\n"
with open(os.path.join(HERE, "picture_cases.h"), "w") as f:
    f.write(out)
