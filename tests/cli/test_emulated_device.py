"""The whole program on an emulated CUDA device: where it keeps its pictures makes no difference, and is told."""
import json
import os
import re
import subprocess
import time
from math import nan

import h5py
import numpy as np
from program import PROGRAM, Skipped, events, main, read, run

TINY = ["model.arch=preact_resnet10", "model.width=8", "model.projection=8", "pretrain.epochs=1", "pretrain.batch=20",
        "pretrain.lr=0.02", "train.epochs=2", "train.warmup=1", "train.batch=16", "train.lr_backbone=0.01",
        "train.lr_head=0.01", "train.precision=fp32", "divide.interval=1", "divide.k=3", "run.threads=1", "report=false",
        "tensorboard=false", "baseline=none", "device=cuda", "run.oversubscribe=true"]


# Two devices and the library of tests/device/fake_nccl.c, where there is one.
FAKE_NCCL = {"LD_LIBRARY_PATH": os.environ["MDM_FAKE_NCCL"], "MDM_EMULATED_GPUS": "2"} if "MDM_FAKE_NCCL" in os.environ else {}


def make_pictures(path, count, test_count, side, channels):
    random, labels = np.random.default_rng(1), np.arange(count + test_count) % 4
    pictures = random.integers(0, 128, (4, side, side, channels))[labels] + random.integers(0, 120, (len(labels), side, side, channels))
    with h5py.File(path, "w") as f:
        f.attrs["format"], f.attrs["format_version"] = "mdm-dataset", 1
        f.attrs["mean"], f.attrs["std"] = np.full(channels, 0.5, "f4"), np.full(channels, 0.25, "f4")
        for group, part in (("train", slice(0, count)), ("test", slice(count, None))):
            f[group + "/images"], f[group + "/labels"] = pictures[part].astype("u1"), labels[part].astype("i4")


def with_memory(mebibytes):
    return {**os.environ, "MDM_EMULATED_MIB": str(mebibytes)}


def train(work, name, data, *arguments, memory=8192, variables={}, **options):
    return run("train", f"data.train={work.file(data)}", f"run={work.file(name)}", *TINY, *arguments,
               env={**with_memory(memory), **variables}, **options)


def networks_are_the_same_wherever_pictures_are_kept_and_by_mpi_or_nccl(work):
    make_pictures(work.file("tiny.h5"), 60, 16, 8, 3)
    places = {"device": "on the device", "host": "in memory", "stream": "streamed", "auto": "on the device"}
    for ranks, kept in ((1, ("device", "host", "stream", "auto")), (2, ("device", "stream"))):
        weights = set()
        for resident in kept:
            name, by_nccl = f"{resident}-{ranks}", bool(FAKE_NCCL) and ranks == 2 and resident == "device"
            done = train(work, name, "tiny.h5", "data.resident=" + resident, ranks=ranks, variables=FAKE_NCCL if by_nccl else {})
            assert done.returncode == 0, (name, done.stderr)
            assert f"4 classes, {places[resident]}\n" in done.stderr, (name, done.stderr)
            assert not by_nccl or "CUDA devices communicate by NCCL" in done.stderr, done.stderr
            weights.add(read(work, name, "model-a.safetensors") + read(work, name, "model-b.safetensors"))
        assert len(weights) == 1, f"{ranks} ranks"  # and sums of two ranks are the same in any order


def a_training_at_small_rates_ends_where_the_cpus_does(work):
    make_pictures(work.file("calm.h5"), 60, 16, 8, 3)
    ends = {}
    for device in ("cpu", "cuda"):
        done = train(work, "calm-" + device, "calm.h5", "pretrain.lr=0.0003", "train.lr_backbone=0.0003",
                     "train.lr_head=0.0003", "divide.save=all", "device=" + device)
        assert done.returncode == 0, done.stderr
        losses = [e["loss"] for e in events(work, "calm-" + device) if e["event"] == "epoch" and "loss" in e]
        assert len(losses) == 6 and np.isfinite(losses).all(), losses  # pretraining, warm-up, MixEMatch of two networks
        with h5py.File(work.file("calm-" + device) + "/divisions/epoch-0001.h5") as f:
            ends[device] = losses, [f[n]["split"][:] for n in "ab"], [f[n]["embedding"][:] for n in "ab"]
    assert np.allclose(ends["cpu"][0], ends["cuda"][0], rtol=2e-3), (ends["cpu"][0], ends["cuda"][0])
    for n, (mine, other) in enumerate(zip(ends["cpu"][1], ends["cuda"][1])):
        assert np.array_equal(mine, other), f"network {n}: {(mine != other).sum()} samples differ"
    assert np.allclose(ends["cpu"][2], ends["cuda"][2], rtol=0.01, atol=1e-3)


def train_by_graph(work, name, graph, ranks, **variables):
    """Steps of all stages, several of each size; what the first rank's device counted, and the weights."""
    counts = work.file(name + ".json")
    # one epoch of MixEMatch whose limits leave samples of both kinds
    done = run("train", f"data.train={work.file('replayed.h5')}", f"run={work.file(name)}", *TINY, "train.batch=4", "pretrain.batch=8",
               "divide.threshold=0.1", f"train.cuda_graph={graph}", ranks=ranks, env={**os.environ, "MDM_EMULATED_COUNTS": counts, **variables})
    assert done.returncode == 0, (name, done.stderr)
    with open(counts) as f:
        return json.load(f), read(work, name, "model-a.safetensors") + read(work, name, "model-b.safetensors"), done.stderr


def steps_that_are_replayed_are_those_that_are_launched(work):
    """Graph or not, the same weights; with it, far fewer calls, but the same one download a step."""
    make_pictures(work.file("replayed.h5"), 60, 16, 8, 3)
    for ranks in (1, 2):
        variables = FAKE_NCCL if ranks == 2 else {}
        launched, expected, _ = train_by_graph(work, f"launched-{ranks}", "false", ranks, **variables)
        replayed, weights, told = train_by_graph(work, f"replayed-{ranks}", "true", ranks, **variables)
        assert weights == expected, f"{ranks} ranks"
        assert launched["recorded"] == 0 and launched["replayed"] == 0, launched
        if ranks == 1 or FAKE_NCCL:
            # two networks in three stages
            assert replayed["recorded"] >= 6 and replayed["replayed"] > replayed["recorded"] + 6, replayed
            assert replayed["launches"] < launched["launches"], (launched, replayed)
            # views' rows and a message go up in each step, which a graph does by itself
            assert launched["uploads"] - replayed["uploads"] == 2 * replayed["replayed"], (launched, replayed)
        assert launched["downloads"] == replayed["downloads"], (launched, replayed)
        assert "launched kernel by kernel" not in told, told


def the_fastest_way_of_recording_steps_stays_and_the_networks_are_the_same(work):
    """As the stages' own steps tell; a way in which they cannot be recorded, or are refused when launched (nan), is left out."""
    make_pictures(work.file("ways.h5"), 60, 16, 8, 3)
    names = ["", ", gradients of weights beside the rest", ", kernels launched early", ", gradients of weights beside the rest, kernels launched early"]
    for ranks, times, special in ((1, None, ""), (1, [4, 3, 2, 1], ""), (1, [4, 1, 2, 3], ""), (1, [2, 2, 2, 2], ""), (1, [4, -1, 3, -1], ""), (1, [4, 3, nan, nan], ""), (2, None, ""), (2, [4, nan, nan, -1], ""),
                              (2, [4, 3, 2, 1], ""), (2, [4, 3, 2, 1], "1"), (2, [4, 9, 2, 3], "slower rank 1")):
        if ranks == 2 and not FAKE_NCCL:
            continue
        name = f"ways-{ranks}-{'-'.join(map(str, times or []))}-{special.replace(' ', '-')}"
        variables = {**(FAKE_NCCL if ranks == 2 else {}), "MDM_DEBUG": "1", **({"MDM_EMULATED_TIMES": ",".join(map(str, times))} if times else {}),
                     **({"MDM_EMULATED_OLD": special} if special == "1" else {})}
        if special == "slower rank 1":  # rank 0 alone would take the second way
            variables["MDM_EMULATED_TIMES"] = "4,1,2,3/4,9,2,3"
        done = train(work, name, "ways.h5", "train.batch=4", "pretrain.batch=4", "pretrain.epochs=2", "train.warmup=2", "train.epochs=12", "divide.threshold=0.1",
                     *([] if times else ["train.cuda_graph=false"]), ranks=ranks, variables=variables)
        assert done.returncode == 0 and "kernel by kernel" not in done.stderr, (name, done.stderr)
        fastest = min(range(2 if special == "1" else 4), key=lambda way: (times[way] if times[way] > 0 else 9, way)) if times else None
        expected = [(str(stage), names[fastest]) for stage in range(3)] if times else []
        decided = re.findall(r"a step of stage (.) takes [0-9.]+ ms(.*): so from here on", done.stderr)
        assert list(dict.fromkeys(decided)) == expected, (name, done.stderr)  # steps without unlabelled samples are tried by themselves
        left_out = re.findall(r"way (.) of recording a step failed on rank 0: the emulated", done.stderr)
        assert left_out == ([str(way) for way in range(4) if not times[way] > 0] * len(decided) if times else []), (name, done.stderr)
        weights = read(work, name, "model-a.safetensors") + read(work, name, "model-b.safetensors")
        launched = launched if times else weights
        assert weights == launched, name


def the_memory_set_aside_for_recorded_steps_is_enough_for_their_calls(work):
    """64 KiB a node and eleven recordings; a call may become several nodes."""
    make_pictures(work.file("replayed.h5"), 60, 16, 8, 3)
    for parts in ([], ["train.micro_batch=3"]):
        counts = work.file("longest.json")
        settings = [f"data.train={work.file('replayed.h5')}", f"run={work.file('longest')}", *TINY, "train.batch=8", "divide.threshold=0.1", *parts]
        told = run("train", *settings, "--dry-run").stderr
        aside = int(re.search(r"memory: of these (\d+) MiB are set aside for recorded steps", told).group(1))
        done = run("train", *settings, "--force", env={**os.environ, "MDM_EMULATED_COUNTS": counts})
        assert done.returncode == 0, done.stderr
        with open(counts) as f:
            longest = json.load(f)["longest"] * 11 / 16
        assert 1.2 * longest < aside < 5 * longest, (parts, longest, aside)
    assert "set aside" not in run("train", *settings, "train.cuda_graph=false", "--dry-run").stderr


def what_is_told_of_memory_is_what_the_device_allocates(work):
    make_pictures(work.file("medium.h5"), 300, 16, 16, 3)
    counts = work.file("most.json")
    done = run("train", f"data.train={work.file('medium.h5')}", f"run={work.file('most')}", *TINY, "model.width=16", "model.projection=16",
               "pretrain.batch=64", "train.batch=32", "--dry-run", env={**os.environ, "MDM_EMULATED_COUNTS": counts})
    told, aside = (float(re.search(words + r" (\d+) MiB", done.stderr).group(1)) for words in ("memory: about", "memory: of these"))
    with open(counts) as f:
        taken = json.load(f)["most_bytes"] / 2**20
    rest = told - aside - 1024  # without CUDA's own; a tile of the neighbour search is counted at its largest
    assert taken < rest < 1.5 * taken + 64, (told, aside, taken)


def steps_are_launched_where_recordings_do_not_fit(work):
    make_pictures(work.file("replayed.h5"), 60, 16, 8, 3)
    settings = ("data.resident=stream", "train.batch=8")
    lines = run("train", f"data.train={work.file('replayed.h5')}", f"run={work.file('room')}", *TINY, *settings, "--dry-run").stderr
    needed, aside = (int(re.search(words + r" (\d+) MiB", lines).group(1)) for words in ("memory: about", "memory: of these"))
    done = train(work, "no-room", "replayed.h5", *settings, memory=needed - aside + 10)
    assert done.returncode == 0 and done.stderr.count("steps are launched kernel by kernel: beside the run's") == 1, done.stderr
    assert train(work, "room", "replayed.h5", *settings).returncode == 0
    assert read(work, "no-room", "model-a.safetensors") == read(work, "room", "model-a.safetensors")


def a_device_that_refuses_graphs_gets_launches_and_one_line(work):
    make_pictures(work.file("replayed.h5"), 60, 16, 8, 3)
    _, expected, _ = train_by_graph(work, "plain", "false", 1)
    refused, weights, told = train_by_graph(work, "refused-graphs", "true", 1, MDM_EMULATED_GRAPHS="refused")
    assert weights == expected and refused["replayed"] == 0, refused
    assert told.count("steps are launched kernel by kernel, as their recording failed on rank 0") == 1, told
    for ranks in (1, 2) if FAKE_NCCL else (1,):  # made, but never launched
        refused, weights, told = train_by_graph(work, f"refused-launches-{ranks}", "true", ranks, **FAKE_NCCL, MDM_EMULATED_TIMES="nan,nan,nan,nan")
        assert refused["recorded"] > 0 and refused["replayed"] == 0, refused
        assert told.count("steps are launched kernel by kernel, as their recording failed on rank 0: the emulated device was told to launch") == 1, told
        assert weights == (expected if ranks == 1 else train_by_graph(work, "plain-2", "false", 2, **FAKE_NCCL)[1])


def a_graph_that_is_broken_off_on_one_rank_is_kept_away_from_nccl(work):
    """The communicator stays sound, and all ranks launch."""
    needs_fake_nccl()
    make_pictures(work.file("replayed.h5"), 60, 16, 8, 3)
    _, expected, _ = train_by_graph(work, "launched", "false", 2, **FAKE_NCCL)
    broken, weights, told = train_by_graph(work, "broken-graphs", "true", 2, **FAKE_NCCL, MDM_EMULATED_GRAPHS="broken 1")
    assert weights == expected and broken["replayed"] == 0, broken
    assert told.count("steps are launched kernel by kernel, as their recording failed on rank 1") == 1, told


def a_launch_that_only_one_rank_refuses_ends_the_run_at_once(work):
    """The others' collectives are under way, and wait for what never comes. The first launch is of a new recording, the fifth of one that has been launched."""
    needs_fake_nccl()
    make_pictures(work.file("replayed.h5"), 60, 16, 8, 3)
    for rank, launch, new in ((1, 1, True), (0, 1, True), (1, 5, False)):
        name = f"divided-{rank}-{launch}"
        begun = time.monotonic()
        done = train(work, name, "replayed.h5", "train.batch=4", "pretrain.batch=8", ranks=2, variables={**FAKE_NCCL, "MDM_EMULATED_GRAPHS": f"divided {rank} {launch}"})
        lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert done.returncode == 6 and len(lines) == 1, (name, done.returncode, done.stderr)
        assert re.match(rf"error( \(rank 1\))?: rank {rank} on \S+: the emulated device was told to refuse this launch of a graph"
                        + (", though other ranks have launched theirs" if new else "") + "; train.cuda_graph=false records none$", lines[0]), lines
        assert time.monotonic() - begun < 25, name  # the supervisor would find the ranks that wait after 30


def a_driver_that_is_too_old_is_told_before_the_processors_compute(work):
    make_pictures(work.file("old.h5"), 60, 16, 8, 1)
    done = train(work, "old", "old.h5", "device=auto", variables={"MDM_EMULATED_GPUS": "old"})
    assert done.returncode == 0 and done.stderr.count("no CUDA device can be used: rank 0 on") == 1, done.stderr
    assert "the emulated driver is too old" in done.stderr, done.stderr
    refused = train(work, "old-cuda", "old.h5", variables={"MDM_EMULATED_GPUS": "old"})
    assert refused.returncode == 4 and "the emulated driver is too old; use device=cpu or auto" in refused.stderr, refused.stderr


def a_run_keeps_the_plans_of_its_convolutions(work):
    make_pictures(work.file("plans.h5"), 60, 16, 8, 1)
    kept = work.file("kept")
    done = run("train", f"data.train={work.file('plans.h5')}", f"run={work.file('plans')}", *TINY,
               env={**os.environ, "MDM_EMULATED_KEPT": kept})
    assert done.returncode == 0 and os.path.exists(kept), done.stderr


def needs_fake_nccl():
    if not FAKE_NCCL:
        raise Skipped("this build has no NCCL, and so no fake one")


def nccl_that_fails_on_a_rank_ends_the_run_with_its_line(work):
    needs_fake_nccl()
    make_pictures(work.file("failing.h5"), 60, 16, 8, 3)
    failing = {"MDM_FAKE_NCCL_FAIL": "error", "MDM_FAKE_NCCL_AT": "60", "MDM_FAKE_NCCL_RANK": "1"}
    done = train(work, "failing", "failing.h5", ranks=2, variables={**FAKE_NCCL, **failing})
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert done.returncode == 6 and len(lines) == 1, (done.returncode, done.stderr)
    assert re.match(r"error \(rank 1\): rank 1 on \S+: nccl\w+ failed: internal error", lines[0]), lines


def pictures_of_one_channel_are_no_different(work):
    make_pictures(work.file("grey.h5"), 48, 8, 9, 1)
    weights = []
    for resident in ("device", "stream"):
        done = train(work, "grey-" + resident, "grey.h5", "data.resident=" + resident)
        assert done.returncode == 0, done.stderr
        weights.append(read(work, "grey-" + resident, "model-a.safetensors"))
    assert weights[0] == weights[1]


def told_of_memory(work, name, memory, data="large.h5", *arguments):
    """The lines of a dry run up to the first about memory; steps of so many pictures would take too long here."""
    lines = []
    with subprocess.Popen([PROGRAM, "train", f"data.train={work.file(data)}", f"run={work.file(name)}", *TINY, *arguments, "--dry-run"],
                          env=with_memory(memory), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if line.startswith("memory: "):
                break
        process.kill()
    return lines


def pictures_that_do_not_fit_the_device_are_sent_step_by_step(work):
    """24 MiB of them, on a device that has 12 MiB less than the run says it needs with them."""
    make_pictures(work.file("large.h5"), 8184, 8, 32, 3)
    roomy = told_of_memory(work, "roomy", 8192)
    assert len(roomy) == 1 and roomy[0].endswith("which has 8192 MiB; all pictures are among them"), roomy
    needed = int(re.match(r"memory: about (\d+) MiB on emulated device 0,", roomy[0]).group(1))
    tight = told_of_memory(work, "tight", needed - 12)
    assert len(tight) == 2 and tight[1].endswith(f"which has {needed - 12} MiB"), tight
    assert tight[0] == (f"pictures (24 MiB) are sent to the device step by step: beside the run's {needed - 24} MiB they do not fit "
                        f"the {needed - 12} MiB of emulated device 0"), tight
    refused = train(work, "refused", "large.h5", "data.resident=device", memory=needed - 12)
    assert refused.returncode == 4, refused.stderr
    assert "data.resident=device: the pictures' 24 MiB" in refused.stderr and "use auto" in refused.stderr, refused.stderr


def neighbours_that_do_not_fit_the_device_are_searched_by_the_processors(work):
    """With the pictures of the tests before, and the end of one of their runs."""
    needed = int(re.search(r"about (\d+) MiB", told_of_memory(work, "needed", 8192, "tiny.h5", "data.resident=stream")[0]).group(1))
    done = train(work, "tight", "tiny.h5", "data.resident=stream", memory=needed - 1)
    assert done.returncode == 0 and "divisions search for neighbours on the processors" in done.stderr, done.stderr
    assert read(work, "tight", "model-a.safetensors") == read(work, "stream-1", "model-a.safetensors")


def passes_that_do_not_fit_joined_are_made_one_after_another(work):
    """On a device that is made smaller until they are, once all that changes no result has given way."""
    make_pictures(work.file("wide.h5"), 120, 16, 16, 3)
    settings = ("data.resident=stream", "model.width=16", "train.batch=120")
    memory = int(re.search(r"about (\d+) MiB", told_of_memory(work, "wide", 8192, "wide.h5", *settings)[-1]).group(1))
    told = ""
    while "made one after another" not in told:
        memory -= 8
        told = "\n".join(told_of_memory(work, "wide", memory, "wide.h5", *settings))
        assert "memory: about" in told, (memory, told)
    done = train(work, "tight-passes", "wide.h5", *settings, memory=memory)
    assert done.returncode == 0 and done.stderr.count("the passes of a step of MixEMatch are made one after another") == 1, done.stderr
    for name, setting in (("in-turn", ["train.micro_batch=120"]), ("joined", [])):
        assert train(work, name, "wide.h5", *settings, *setting).returncode == 0
    weights = {name: read(work, name, "model-a.safetensors") for name in ("tight-passes", "in-turn", "joined")}
    assert weights["tight-passes"] == weights["in-turn"] != weights["joined"]
    losses = [[told["loss"] for told in events(work, name) if told.get("stage") == "semi" and "loss" in told] for name in ("in-turn", "joined")]
    assert losses[0] and all(abs(a - b) < 1e-3 * abs(a) for a, b in zip(*losses)), losses


def the_device_makes_views_for_the_benchmark(work):
    done = run("bench", "augment", "device=cuda", "run.threads=1")
    assert done.returncode == 0 and '"bench":"augment"' in done.stdout and "emulated device 0" in done.stdout, done.stderr


def doctor_sums_over_the_devices_and_names_the_rank_that_fails(work):
    needs_fake_nccl()
    sound = run("doctor", ranks=2, env={**os.environ, **FAKE_NCCL})
    assert sound.returncode == 0 and re.search(r"all-reduce, NCCL [\d.]+ .* right\n", sound.stdout), sound.stdout
    failing = {"MDM_FAKE_NCCL_FAIL": "error", "MDM_FAKE_NCCL_AT": "2", "MDM_FAKE_NCCL_RANK": "1", "MDM_WATCH_FACTOR": "0.02"}
    broken = run("doctor", ranks=2, env={**os.environ, **FAKE_NCCL, **failing})
    assert broken.returncode == 4, (broken.returncode, broken.stderr)
    assert re.search(r"problem: CUDA devices do not work together: rank 1 on \S+: ncclAllReduce failed", broken.stdout), broken.stdout


def bench_measures_recorded_steps_as_a_run_has_them(work):
    small = ["device=cuda", "model.arch=preact_resnet10", "model.width=8", "model.projection=8", "train.batch=8", "run.threads=1"]
    for measurement in ("step", "pretrain", "semi"):
        for setting, expected in (([], True), (["train.cuda_graph=false"], False)):
            done = run("bench", measurement, *small, *setting)
            assert done.returncode == 0, done.stderr
            told = [json.loads(done.stdout).get(key) for key in ("graph", "way", "plain_ms", "beside_ms", "early_ms", "both_ms")]
            assert told == ([True, "both", 4, 3, 2, 1] if expected else [False] + [None] * 5), told
            assert json.loads(done.stdout).get("joined") is (True if measurement == "semi" else None), done.stdout
        done = run("bench", measurement, *small, env={**os.environ, "MDM_EMULATED_GRAPHS": "refused"})
        assert done.returncode == 0 and json.loads(done.stdout)["graph"] is False, done.stderr
        assert done.stderr.count("their recording failed on rank 0") == 1, done.stderr
    done = run("bench", "semi", *small, "train.micro_batch=8")
    assert done.returncode == 0 and "joined" not in json.loads(done.stdout), done.stdout


def bench_has_deterministic_sums_wherever_a_run_would(work):
    small = ["model.arch=preact_resnet10", "model.width=8", "model.projection=8", "train.batch=8", "run.threads=1"]
    for device, setting, expected in (("cpu", "true", True), ("cpu", "auto", True), ("cpu", "false", None), ("cuda", "auto", None)):
        done = run("bench", "step", f"device={device}", f"deterministic={setting}", *small)
        assert done.returncode == 0 and json.loads(done.stdout).get("deterministic") is expected, (done.stdout, done.stderr)
    refused = run("bench", "step", "device=cuda", "deterministic=true", *small)
    assert refused.returncode == 2 and "device=cpu" in refused.stderr, refused.stderr


def bench_measures_what_ranks_exchange(work):
    environment = {**os.environ, **FAKE_NCCL, "MDM_EMULATED_GPUS": "2"}
    small = ["model.arch=preact_resnet10", "model.width=8", "model.projection=8", "train.batch=8", "train.precision=fp32", "run.threads=1"]
    for measurement, device in (("step", "cuda"), ("step", "cpu"), ("allreduce", "cuda")):
        done = run("bench", measurement, "device=" + device, *small, ranks=2, env=environment)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0 and all(line["bench"] == measurement and line["ranks"] == 2 for line in lines), done.stderr
        if measurement == "step":
            share = 100 * (1 - lines[0]["alone_median_ms"] / lines[0]["median_ms"])
            assert len(lines) == 1 and abs(lines[0]["exposed_percent"] - share) < 0.02 * abs(share) + 0.1, lines
        else:
            assert [line["bytes"] for line in lines[:4]] == [4096, 262144, 4194304, 67108864] and len(lines) == 5, lines
            assert {line["by"] for line in lines} == {"NCCL" if FAKE_NCCL else "MPI"}, lines
            assert all(abs(line["gbyte_per_s"] * line["median_ms"] * 1e6 / line["bytes"] - 1) < 0.01 for line in lines), lines


if __name__ == "__main__":
    main([a_driver_that_is_too_old_is_told_before_the_processors_compute, a_graph_that_is_broken_off_on_one_rank_is_kept_away_from_nccl,
          a_device_that_refuses_graphs_gets_launches_and_one_line, a_launch_that_only_one_rank_refuses_ends_the_run_at_once, a_run_keeps_the_plans_of_its_convolutions, a_training_at_small_rates_ends_where_the_cpus_does,
          bench_has_deterministic_sums_wherever_a_run_would, bench_measures_recorded_steps_as_a_run_has_them, bench_measures_what_ranks_exchange,
          doctor_sums_over_the_devices_and_names_the_rank_that_fails, networks_are_the_same_wherever_pictures_are_kept_and_by_mpi_or_nccl,
          nccl_that_fails_on_a_rank_ends_the_run_with_its_line, passes_that_do_not_fit_joined_are_made_one_after_another,
          neighbours_that_do_not_fit_the_device_are_searched_by_the_processors, pictures_of_one_channel_are_no_different,
          pictures_that_do_not_fit_the_device_are_sent_step_by_step, steps_that_are_replayed_are_those_that_are_launched, the_device_makes_views_for_the_benchmark,
          steps_are_launched_where_recordings_do_not_fit, the_fastest_way_of_recording_steps_stays_and_the_networks_are_the_same, the_memory_set_aside_for_recorded_steps_is_enough_for_their_calls,
          what_is_told_of_memory_is_what_the_device_allocates])
