"""A whole training on the emulated CUDA device, whose queues run in orders of many that their marks permit: the same to the bit in each."""
import os

from program import main, read, run
from test_emulated_device import FAKE_NCCL, TINY, make_pictures

# Pictures come step by step, steps are recorded and replayed, and limits leave samples of both kinds to MixEMatch.
SETTINGS = [*TINY, "data.resident=stream", "train.batch=8", "divide.threshold=0.1", "train.epochs=2"]
ORDERS = os.environ.get("MDM_ORDERS", "late computing-last early random:1 random:2").split()


def train(work, order, ranks):
    """All that the run leaves of what it computed."""
    name = f"{order.replace(':', '-')}-{ranks}"
    done = run("train", f"data.train={work.file('tiny.h5')}", f"run={work.file(name)}", *SETTINGS, ranks=ranks,
               env={**os.environ, **(FAKE_NCCL if ranks > 1 else {}), "MDM_EMULATED_ORDER": order})
    assert done.returncode == 0, (name, done.stderr)
    assert ranks == 1 or not FAKE_NCCL or "CUDA devices communicate by NCCL" in done.stderr, done.stderr
    return [read(work, name, file) for file in ("model-a.safetensors", "model-b.safetensors", "labels.csv")]


def a_training_is_the_same_in_every_order_of_the_devices_calls(work):
    make_pictures(work.file("tiny.h5"), 60, 16, 8, 3)
    for ranks in (1, 2):
        expected = train(work, "late", ranks)
        for order in ORDERS[1:]:
            assert train(work, order, ranks) == expected, (order, ranks)


if __name__ == "__main__":
    main([a_training_is_the_same_in_every_order_of_the_devices_calls])
