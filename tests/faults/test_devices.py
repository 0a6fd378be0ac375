"""A CUDA device that is lost while a run computes on it, on the emulated device: one line with rank, host, device and CUDA's name for the
cause, exit code 6, everybody gone, and the same command goes on to the weights of a run left alone."""
import re
import socket

from faults import *  # noqa: F403
from program import events, main
from test_emulated_device import FAKE_NCCL, TINY as SMALLEST, make_pictures

BOUND = 10  # seconds from the loss to the last process gone
CAUSE = r"an illegal memory access was encountered \(cudaErrorIllegalAddress\)"


def start(work, name, *settings, ranks=1, nccl=False, **variables):
    """Two ranks share a device and communicate by MPI, or have one each and the NCCL of tests/device."""
    return run("train", f"data.train={work.file('pictures.h5')}", f"run={work.file(name)}", *SMALLEST, "divide.threshold=0.1", *settings,
               ranks=ranks, env={**os.environ, **(FAKE_NCCL if nccl else {}), **variables})


def undisturbed_runs_to_compare_with(work):
    make_pictures(work.file("pictures.h5"), 40, 8, 8, 1)
    for ranks in (1, 2):
        done = start(work, f"calm{ranks}", ranks=ranks)
        assert done.returncode == 0, done.stderr


def is_lost(work, name, call, at, *settings, ranks=1, nccl=False, **variables):
    """The at-th call of a kind, after the first checkpoint, loses the device of the last rank."""
    culprit, device, hits = ranks - 1, ranks - 1 if nccl else 0, work.file("lost")
    if os.path.exists(hits):
        os.remove(hits)
    done = start(work, name, *settings, ranks=ranks, nccl=nccl, MDM_EMULATED_LOST=call, MDM_EMULATED_LOST_AT=str(at),
                 MDM_EMULATED_LOST_RANK=str(culprit), MDM_EMULATED_LOST_HITS=hits, **variables)
    ended = time.time()
    assert os.path.exists(hits), f"{name}: not so many calls: {done.stderr}"
    lines = error_lines(done.stderr)
    assert done.returncode == 6 and len(lines) == 1, (name, done.returncode, done.stderr)
    rank = rf"error(?: \(rank {culprit}\))?: rank {culprit} on {re.escape(socket.gethostname())}: "
    assert re.match(rank + rf"CUDA device {device} failed in (?!its end)[^:]+: {CAUSE}$", lines[0]), (name, lines[0])
    assert "kernel by kernel" not in done.stderr, (name, done.stderr)
    took = ended - os.stat(hits).st_mtime
    print(f"        {name}: gone after {took:.1f} s: {lines[0]}", flush=True)
    assert took < BOUND + SLACK, took
    nobody_is_left(work, name)
    latest = open(work.file(name) + "/checkpoints/latest").read().strip()
    assert os.path.exists(os.path.join(work.file(name), "checkpoints", latest)), latest


def goes_on(work, name, *settings, ranks=1, nccl=False):
    """The same command, on a device that is there again, ends as if nothing had been."""
    done = start(work, name, *settings, ranks=ranks, nccl=nccl)
    assert done.returncode == 0 and [e for e in events(work, name) if e["event"] == "resume"], (name, done.stderr)
    same(work, name, f"calm{ranks}")


def a_streak_of_bad_steps_goes_back_once_with_half_the_rates(work):
    """What the device holds is newer than the checkpoint, averages too."""
    done = start(work, "streak", "train.batch=4", "train.lr_backbone=100", "train.lr_head=100", "train.rce_weight=1000",
                 "train.batchnorm=frozen", "model.ema=0.5")
    lines = error_lines(done.stderr)
    assert done.returncode == 5 and len(lines) == 1 and "8 steps in a row" in lines[0], (done.returncode, done.stderr)
    assert done.stderr.count("going on from there with half the learning rates") == 1, done.stderr


def a_device_lost_in_a_step_is_told_by_its_rank(work):
    """In the warm-up, after the four updates of heads in pretraining."""
    is_lost(work, "step", "sgd", 6, "train.cuda_graph=false")
    goes_on(work, "step", "train.cuda_graph=false")
    is_lost(work, "step-of-two", "sgd", 6, ranks=2)


def a_device_lost_in_a_division_is_told_by_its_rank(work):
    """The first removal searches for neighbours too, before the warm-up; the third search is the division's."""
    is_lost(work, "removal", "rescore", 1)
    is_lost(work, "division", "rescore", 3, ranks=2)
    goes_on(work, "division", ranks=2)


def a_device_lost_while_pictures_are_sent_is_told(work):
    """By the thread that sends them, or by whoever asks the device next."""
    is_lost(work, "send", "send", 40, "data.resident=stream")


def a_device_lost_in_a_recorded_step_is_no_reason_to_go_on_without_recordings(work):
    is_lost(work, "graph", "graph", 3)
    is_lost(work, "recording", "recording", 3)
    is_lost(work, "recorded", "recorded", 3)


def a_device_lost_under_nccl_is_told_instead_of_the_collective(work):
    """Whether NCCL notices first or not; its communicator could not end in order any more, and nobody waits for that."""
    if not FAKE_NCCL:
        return
    is_lost(work, "nccl", "no other call", 0, "train.cuda_graph=false", ranks=2, nccl=True, MDM_FAKE_NCCL_FAIL="lost", MDM_FAKE_NCCL_AT="140",
            MDM_FAKE_NCCL_RANK="1")
    is_lost(work, "nccl-end", "collective", 140, "train.cuda_graph=false", ranks=2, nccl=True, MDM_FAKE_NCCL_FINALIZE="hang")


def doctor_names_the_rank_whose_device_is_lost(work):
    if not FAKE_NCCL:
        return
    done = run("doctor", ranks=2, env={**os.environ, **FAKE_NCCL, "MDM_EMULATED_LOST": "upload", "MDM_EMULATED_LOST_AT": "1",
                                       "MDM_EMULATED_LOST_RANK": "1", "MDM_WATCH_FACTOR": "0.02"})
    told = rf"do not work together: rank 1 on {re.escape(socket.gethostname())}: CUDA device 1 failed in [^:]+: {CAUSE}"
    assert done.returncode == 4 and re.search(told, done.stdout), (done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    main([undisturbed_runs_to_compare_with, a_streak_of_bad_steps_goes_back_once_with_half_the_rates,
          a_device_lost_in_a_step_is_told_by_its_rank, a_device_lost_in_a_division_is_told_by_its_rank,
          a_device_lost_while_pictures_are_sent_is_told, a_device_lost_in_a_recorded_step_is_no_reason_to_go_on_without_recordings,
          a_device_lost_under_nccl_is_told_instead_of_the_collective, doctor_names_the_rank_whose_device_is_lost])
