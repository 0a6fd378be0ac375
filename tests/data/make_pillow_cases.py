#!/usr/bin/env python3
"""Writes tests/golden/pillow.h5: what Pillow and torchvision make of small random images (fill 128).

    python3 tests/data/make_pillow_cases.py tests/golden/pillow.h5

Made with Pillow 9.4 and torchvision 0.14. Per image (grey 28x28, rgb 32x32, odd 33x21 wide x high) every operation at every
level and sign: all bytes for the grey image, FNV-1a 64 hashes for the others. /views: hashes of whole views drawn from the
same counter-based random stream that mdm/base/random.h defines, written here a second time.
"""
import sys
import h5py, numpy as np
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import functional as TF
from torchvision.transforms.autoaugment import _apply_op

FILL, PAD = 128, 4
KINDS = ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
         "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert"]  # order of mdm_augment_kind
auto = AutoAugment(AutoAugmentPolicy.CIFAR10, InterpolationMode.NEAREST, FILL)


def fnv(image):
    h = 0xCBF29CE484222325
    for b in np.asarray(image).tobytes():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def magnitude(kind, level, size):
    values, signed = auto._augmentation_space(10, size)[kind]
    return (float(values[level]) if values.ndim else 0.0), signed


def apply(image, kind, value):
    return _apply_op(image, kind, value, InterpolationMode.NEAREST, FILL)


class Stream:
    """Philox 4x32-10 over (seed, purpose, epoch, item, view), small numbers only."""
    def __init__(self, seed, purpose, epoch, item, view):
        self.key, self.counter, self.left = (seed, (purpose * 0x85EBCA6B) & 0xFFFFFFFF), [item, epoch, view, 0], []

    def bits(self):
        if not self.left:
            (k0, k1), (c0, c1, c2, c3) = self.key, self.counter
            for _ in range(10):
                p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
                c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
                k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
            self.left, self.counter[3] = [c0, c1, c2, c3], self.counter[3] + 1
        return self.left.pop(0)

    def uniform(self):
        return (self.bits() >> 8) / 16777216.0

    def below(self, n):
        while True:
            b = self.bits()
            if b >= 2 ** 32 % n: return b % n


def view(image, stream, strong):
    width, height = image.size
    top, left, flip = stream.below(2 * PAD + 1), stream.below(2 * PAD + 1), stream.uniform() < 0.5
    image = TF.crop(TF.pad(image, PAD), top, left, height, width)
    if flip: image = TF.hflip(image)
    if strong:
        for kind, probability, level in auto.policies[stream.below(25)]:
            applied, negative = stream.uniform() < np.float32(probability), stream.uniform() < 0.5
            if applied:
                value, signed = magnitude(kind, level or 0, (height, width))
                image = apply(image, kind, -value if signed and negative else value)
    return image


rng = np.random.default_rng(3)


def random_image(height, width, channels):
    """Noise on ramps of unequal range per channel, so that stretching and equalising have something to do."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [30 + 20 * c + (x * (3 + c) + y * (2 + c)) % (150 - 30 * c) + rng.integers(0, 40, (height, width)) for c in range(channels)]
    a = np.stack(planes, 2).astype(np.uint8)
    a[height // 3:height // 2, width // 4:width // 2] = rng.integers(0, 256, (height // 2 - height // 3, width // 2 - width // 4, channels))
    return a


with h5py.File(sys.argv[1], "w") as f:
    f.attrs["fill"], f.attrs["pad"] = FILL, PAD
    for name, shape in (("grey", (28, 28, 1)), ("rgb", (32, 32, 3)), ("odd", (21, 33, 3))):
        a = random_image(*shape)
        image, g = Image.fromarray(a[:, :, 0] if shape[2] == 1 else a), f.create_group(name)
        g["image"] = a
        kinds, levels, negatives, outputs = [], [], [], []
        for k, kind in enumerate(KINDS):
            values, signed = auto._augmentation_space(10, shape[:2])[kind]
            for level in range(10 if values.ndim else 1):
                for negative in (0, 1) if signed else (0,):
                    value, _ = magnitude(kind, level, shape[:2])
                    kinds.append(k); levels.append(level); negatives.append(negative)
                    outputs.append(np.asarray(apply(image, kind, -value if negative else value)))
        g["kind"], g["level"], g["negative"] = (np.array(v, np.uint8) for v in (kinds, levels, negatives))
        g["hash"] = np.array([fnv(o) for o in outputs], np.uint64)
        if shape[2] == 1: g.create_dataset("output", data=np.stack(outputs), compression="gzip", shuffle=True)
        for how, strong in (("weak", False), ("strong", True)):
            g[how] = np.array([fnv(view(image, Stream(11, 2, 5, item, 3), strong)) for item in range(300)], np.uint64)
    f["policy"] = np.array([[(KINDS.index(k), p, l or 0) for k, p, l in pair] for pair in auto.policies])
    sizes = np.array([(28, 28), (32, 32), (21, 33), (84, 84), (224, 224), (331, 331), (662, 96), (7, 5), (500, 375)], np.int32)
    f["sizes"] = sizes
    whole = lambda kind, value: float(int(value)) if kind.startswith("Translate") else value
    f["magnitudes"] = np.array([[[whole(k, magnitude(k, l, s)[0]) for l in range(10)] for k in KINDS] for s in map(tuple, sizes.tolist())])
