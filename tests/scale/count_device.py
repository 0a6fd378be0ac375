"""Counts what a CUDA device has to do in a step, in a search and for views, and what that should take on an H200.

    MDM_PROGRAM=build/tests/cli/mdm_dist_counting python3 tests/scale/count_device.py [semi] [pretrain] [step] [augment] [knn]

All of it takes a minute, for the neighbours of a million rows; the test suite counts a step of MixEMatch alone. The program is the whole one on a device that computes nothing and writes every call down (tests/device/counting_gpu.c). The times are
products of these counts with the rates below, which are assumptions; nothing here is a measurement.
"""
import collections
import json
import math
import os
import subprocess
import sys
import tempfile

MEMORY, CACHE = 4.3e12, 5.5e12  # bytes/s from the device's memory, and where all that a call moves fits into CACHED bytes
CACHED = 25e6
CONVOLUTIONS = (500e12, 600e12, 700e12)  # operations/s of convolutions: low, assumed, high
TILES = 550e12  # of the products of the neighbour search: few operations a number
NODE = 1.2e-6  # from one call to the next inside a graph, and as much outside of it
START = 1.0e-6  # a kernel's first loads and last stores
PRODUCT = 5e-6  # of a head: too few blocks to fill the device
PHASES = 3e-6  # kernels of a few blocks that wait several times for each other
EXTRA = {"convolution_filter": 1}  # cuDNN adds up parts of these sums in a kernel of its own
MERGE = 4e-6  # of a tile's hits, some thousand warps at once
VIEWS, ROUND = 8 * 132, 15e-6  # made at once, one a block, in some eleven phases
CONVERSIONS = 132 * 16 * 1.7e9  # of floats to doubles, per second

NORM = "norm_forward norm_backward statistics backward_sums".split()
PHASED = """softmax_rows loss_symmetric loss_soft make_targets balance unit_forward unit_backward
contrast_rows sum_rows sum_columns judge_step norm_from_sums norm_gradients norm_means""".split()
PARTS = [("convolutions", ["convolution", "convolution_data", "convolution_filter"]), ("batch norm and ReLU", NORM),
         ("sums of batch norm, second part", ["gather_sums"]), ("sums at shortcuts", ["add"]),
         ("gradients of weights, from filters", ["from_filters"]), ("optimizer and the gradient's norm", ["step_filters", "sgd", "squares"])]
REST = "images, pooling, heads, losses, copies"

Call = collections.namedtuple("Call", "name blocks rows bytes operations")


def calls_of(*arguments):
    """What `mdm-dist bench` says, and the calls that it makes, with them begin, end (of a graph) and launch."""
    with tempfile.NamedTemporaryFile("r") as file:
        done = subprocess.run([os.environ["MDM_PROGRAM"], "bench", *arguments, "device=cuda", "train.precision=bf16"], check=True,
                              stdout=subprocess.PIPE, text=True, env={**os.environ, "MDM_COUNTED_CALLS": file.name})
        return (json.loads(done.stdout.splitlines()[0]),
                [Call(name, *map(float, rest)) if rest else Call(name, 0, 0, 0, 0) for name, *rest in map(str.split, file)])


def step_of(bench, batch):
    """Those that its last graph records."""
    told, calls = calls_of(bench, "model.arch=preact_resnet18", "model.width=64", f"train.batch={batch}")
    names = [c.name for c in calls]
    end = len(names) - 1 - names[::-1].index("end")
    step = calls[end - names[end::-1].index("begin") + 1:end]
    flop = sum(c.operations for c in step)
    # channels are padded, and the first layer has no gradient of its input
    assert 0.98 < flop / (told["gflop_per_s"] * told["median_ms"] * 1e6) < 1.02, (flop, told)
    return step


def seconds(call, rate):
    """On the device, from the call before to the next."""
    moved = START + call.bytes / (CACHE if call.bytes < CACHED else MEMORY)
    if call.name.startswith("convolution"):
        return NODE * (1 + EXTRA.get(call.name, 0)) + START + max(call.operations / rate, call.bytes / MEMORY)
    if call.name == "tile_product":
        return NODE + START + call.operations / TILES
    if call.name == "product":
        return NODE + PRODUCT
    if call.name == "merge_tile":
        return NODE + max(MERGE, moved)
    if call.name == "make_views":
        return NODE + -(-call.blocks // VIEWS) * ROUND
    if call.name == "rescore":
        return NODE + moved + call.bytes / 4 * 2 / CONVERSIONS
    return NODE + (max(PHASES, moved) if call.name in PHASED else moved)


def table_of_step(title, calls):
    print(f"{title}\n\n| part | calls | GB | TFLOP | ms |\n|---|---|---|---|---|")
    sums = [0, 0, 0]
    for part, names in PARTS + [(REST, None)]:
        known = [n for _, some in PARTS for n in some]
        some = [c for c in calls if (c.name in names if names else c.name not in known)]
        times = [sum(seconds(c, rate) for c in some) * 1e3 for rate in CONVOLUTIONS]
        sums = [a + b for a, b in zip(sums, times)]
        flop = sum(c.operations for c in some) / 1e12
        print(f"| {part} | {len(some)} | {sum(c.bytes for c in some) / 1e9:.2f} | {f'{flop:.2f}' if flop > 0.01 else ''} | {times[1]:.2f} |")
    flop = sum(c.operations for c in calls)
    print(f"| all | {len(calls)} | {sum(c.bytes for c in calls) / 1e9:.2f} | {flop / 1e12:.2f} | {sums[1]:.2f} "
          f"({sums[2]:.2f} to {sums[0]:.2f}; {flop / sums[1] / 1e9:.0f} TFLOP/s) |\n")


def table_of_search(title, calls):
    print(f"{title}\n\n| part | calls | GB | TFLOP | ms |\n|---|---|---|---|---|")
    counts = collections.Counter(c.name for c in calls)
    for name in counts:
        some = [c for c in calls if c.name == name]
        print(f"| {name} | {len(some)} | {sum(c.bytes for c in some) / 1e9:.2f} | {sum(c.operations for c in some) / 1e12:.2f} "
              f"| {sum(seconds(c, CONVOLUTIONS[1]) for c in some) * 1e3:.2f} |")
    print(f"| all | {len(calls)} | | | {sum(seconds(c, CONVOLUTIONS[1]) for c in calls) * 1e3:.2f} |\n")


def searches_of(calls):
    """One search of each size."""
    found = {}
    for c in calls:
        if c.name == "measure":
            found[c.bytes] = here = []
        if found and c.name not in ("upload", "download"):
            here.append(c)
    return found


def count_views():
    told, calls = calls_of("augment")
    made = next(c for c in calls if c.name == "make_views")
    print(f"{made.blocks:.0f} views, {made.bytes / 1e6:.0f} MB: {seconds(made, 0) * 1e3:.2f} ms, "
          f"{made.blocks / seconds(made, 0) / 1e6:.0f} million a second\n")


def exact_scores(rows, among):
    """Seconds of the exact scores of a search among some: of a query's first 256 columns all, and of later ones, in random order, those that
    come nearer than the tenth so far. The first lie in the cache, as all queries of a tile have the same; both rows are converted."""
    return rows * (256 + 10 * math.log(among / 256)) * 512 * 2 / CONVERSIONS


def count_searches():
    for size, calls in searches_of(calls_of("knn", "divide.k=10")[1]).items():
        table_of_search(f"neighbours of {size / 2048:.0f} x 512", calls)
    for size, calls in searches_of(calls_of("knn", "divide.k=10", "divide.ood_neighbours=clean")[1]).items():
        rows = size / 2048
        table_of_search(f"neighbours of {rows:.0f} x 512 among every other", calls)
        print(f"and {exact_scores(rows, rows / 2) * 1e3:.2f} ms of exact scores\n")


PARTS_TO_COUNT = {"semi": lambda: table_of_step("MixEMatch, 64 labelled and 64 unlabelled", step_of("semi", 64)),
                  "pretrain": lambda: table_of_step("SimCLR, 512 pictures", step_of("pretrain", 512)),
                  "step": lambda: table_of_step("training, 64 pictures", step_of("step", 64)),
                  "augment": count_views,
                  "knn": count_searches}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(PARTS_TO_COUNT)
    if "MDM_PROGRAM" not in os.environ or not set(wanted) <= set(PARTS_TO_COUNT):
        sys.exit(__doc__)
    for part in wanted:
        PARTS_TO_COUNT[part]()
