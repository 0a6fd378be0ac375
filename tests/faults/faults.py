"""What the fault tests share: tiny runs with a fault injected, and what must hold after each of them."""
import glob
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from program import SMALL, SOURCE, PROGRAM, command, halve_pictures, read, run, shorten_test_set  # noqa: E402

INJECTOR = os.environ["MDM_INJECTOR"]
# About two seconds. Faults are injected at counted calls: gradients go by MPI_Iallreduce while backward goes on, as in most runs.
TINY = [*SMALL, "deterministic=false", "pretrain.epochs=1", "train.epochs=4", "train.warmup=2"]
MINI = ["model.width=2", "model.projection=8", "pretrain.batch=50", "train.epochs=3", "train.warmup=1", "train.batch=20",
        "report=false", "tensorboard=false"]  # on small_data() less than one
SLACK = 25  # seconds that a busy machine may add to a bound


def arguments_of(work, name, *more):
    return ["train", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={work.data}",
            f"run={work.file(name)}", *TINY, *more]


def small_data(work):
    """100 training and 40 test pictures of 14 by 14 instead of the workspace's."""
    work.data = work.file("mini.h5")
    made = run("data", "noise", work.full, work.data, "--samples", "100", "--hold-out", "8,9", "--ood", "0.2", "--symmetric", "0.4",
               "--seed", "3")
    assert made.returncode == 0, made.stderr
    shorten_test_set(work.data, 40)
    halve_pictures(work.data)


def calm_runs(work, *settings, ranks=(1, 2)):
    """Undisturbed runs to compare with."""
    for count in ranks:
        done, _ = train(work, f"calm{count}", *settings, ranks=count)
        assert done.returncode == 0, done.stderr


def same(work, name, reference="calm1"):
    for member in ("model-a.safetensors", "model-b.safetensors", "labels.csv"):
        assert read(work, name, member) == read(work, reference, member), f"{member} of {name} differs from {reference}'s"


def as_root():
    if os.getuid() == 0:
        return True
    print("        (not root: left out)")
    return False


def refused(done, code, *words):
    lines = error_lines(done.stderr)
    assert done.returncode == code and len(lines) == 1, (code, done.returncode, done.stderr)
    for word in words:
        assert word in lines[0], (word, lines[0])


def foreign_code():
    """Where the CUDA runtime lies in the program that it is linked into: its allocations are not ours to fail."""
    listed = subprocess.run(["nm", "--defined-only", PROGRAM], capture_output=True, text=True).stdout
    symbols = sorted(line.split() for line in listed.splitlines())
    ranges, first = [], None
    for address, kind, name in symbols:
        if kind not in "tTwW":
            continue
        is_cuda = name.startswith(("libcudart_static_", "__cuda"))
        if is_cuda and first is None:
            first = address
        elif not is_cuda and first is not None:
            ranges.append(f"{first}-{address}")
            first = None
    return ",".join(ranges + ([f"{first}-ffffffff"] if first else []))


FOREIGN = foreign_code()


def injected(work, call, at, action, rank=None, path=None, **more):
    """The environment in which the at-th such call goes wrong; the file of hits tells whether it was reached."""
    hits = work.file("hits")
    if os.path.exists(hits):
        os.remove(hits)
    variables = dict(os.environ, LD_PRELOAD=INJECTOR, MDM_INJECT_CALL=call, MDM_INJECT_AT=str(at),
                     MDM_INJECT_ACTION=action, MDM_INJECT_HITS=hits, MDM_INJECT_FOREIGN=FOREIGN, **more)
    if rank is not None:
        variables["MDM_INJECT_RANK"] = str(rank)
    if path is not None:
        variables["MDM_INJECT_PATH"] = path
    return variables


def was_hit(work):
    return os.path.exists(work.file("hits"))


def train(work, name, *more, ranks=1, environment=None):
    """The finished run, and when it ended."""
    done = subprocess.run(command(ranks, arguments_of(work, name, *more)), capture_output=True, text=True, timeout=240,
                          env=environment)
    return done, time.time()


def error_lines(text):
    return [line for line in text.splitlines() if line.startswith("error")]


def processes_of(work, name):
    """(process, parent) of every process of a run, supervisors and workers, but not of mpirun."""
    found, mark = [], f"run={work.file(name)}".encode()
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            words = open(folder + "/cmdline", "rb").read().split(b"\0")
            status = open(folder + "/stat").read().rsplit(")", 1)[1].split()
            program = os.readlink(folder + "/exe")
        except OSError:
            continue
        if mark in words and program == os.path.realpath(PROGRAM) and status[0] != "Z":
            found.append((int(folder[6:]), int(status[1])))
    return found


def workers_of(work, name):
    """The workers by rank."""
    all_of_them = processes_of(work, name)
    parents = {p for p, _ in all_of_them}
    workers = [p for p, parent in all_of_them if parent in parents]

    def rank(process):
        variables = open(f"/proc/{process}/environ", "rb").read().split(b"\0")
        return next((int(v.split(b"=")[1]) for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")), 0)
    return sorted(workers, key=rank)


def nobody_is_left(work, name, within=5):
    deadline = time.time() + within + SLACK
    while processes_of(work, name):
        assert time.time() < deadline, f"still there: {processes_of(work, name)}"
        time.sleep(0.05)


def whole(work, name, reference, ranks=1):
    """Goes on to the end, and expects the files of a run that nothing happened to."""
    done, _ = train(work, name, ranks=ranks)
    assert done.returncode == 0, done.stderr
    for member in ("model-a.safetensors", "model-b.safetensors", "labels.csv"):
        assert read(work, name, member) == read(work, reference, member), f"{member} differs from an undisturbed run's"
    folder = work.file(name)
    stray = [f for f in glob.glob(folder + "/**", recursive=True) + glob.glob(folder + "/**/.*", recursive=True)
             if f.endswith(".part") or ".tmp-" in os.path.basename(f)]
    assert not stray, stray
    assert not os.path.exists(folder + "/flight"), os.listdir(folder + "/flight")
    latest = open(folder + "/checkpoints/latest").read().strip()
    assert os.path.exists(os.path.join(folder, "checkpoints", latest))


def start_and_wait_for(work, name, stage, *more, ranks=1, environment=None):
    """A run that has ended an epoch of `stage`."""
    process = subprocess.Popen(command(ranks, arguments_of(work, name, *more)), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment)
    metrics, deadline = work.file(name) + "/metrics.jsonl", time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if os.path.exists(metrics) and f'"stage":"{stage}"' in open(metrics).read():
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"{stage} was not reached: {process.communicate()[1]}")


def one_line_names(text, rank, *words):
    lines = error_lines(text)
    assert len(lines) == 1, f"{len(lines)} error lines: {text}"
    assert re.match(rf"error: rank {rank} on \S+: ", lines[0]), lines[0]
    for word in words:
        assert word in lines[0], (word, lines[0])


__all__ = [n for n in dir() if not n.startswith("_")] + ["signal", "time", "os", "subprocess"]
