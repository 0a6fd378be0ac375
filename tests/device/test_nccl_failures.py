"""A NCCL that fails: the right exit code, one line that names rank, host and collective, in bounded time, and no process left."""
import os
import re
import subprocess
import time

LIMIT = 1.2  # seconds: MDM_WATCH_FACTOR of the 120 that a wait may last
SLACK = 20  # that a busy machine may add


def processes():
    """The processes of this program."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.readlink(f"/proc/{name}/exe") == os.path.realpath(os.environ["MDM_PROGRAM"]):
                found.append(int(name))
        except OSError:
            continue
    return found


def fails(ranks, words, bound, limit=LIMIT, **variables):
    environment = dict(os.environ, MDM_WATCH_FACTOR=str(limit / 120), **variables)
    begin = time.monotonic()
    done = subprocess.run([os.environ["MDM_MPIRUN"], str(ranks), os.environ["MDM_PROGRAM"]], capture_output=True, text=True,
                          timeout=120, env=environment)
    took = time.monotonic() - begin
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    print(f"{variables}: {took:.1f} s, {lines}", flush=True)
    assert done.returncode == 6, (done.returncode, done.stderr)
    assert lines and re.match(r"error: rank \d on \S+: ", lines[0]), done.stderr
    for word in words:
        assert word in lines[0], (word, lines)
    assert took < bound + SLACK, took
    deadline = time.monotonic() + SLACK
    while processes():
        assert time.monotonic() < deadline, processes()
        time.sleep(0.05)
    return lines


TEXT = "the fake NCCL was told to fail"
for ranks in (3,):
    assert len(fails(ranks, ["ncclAllReduce failed: internal error", TEXT], 2, MDM_FAKE_NCCL_FAIL="error", MDM_FAKE_NCCL_AT="3")) == 1
    assert len(fails(ranks, ["ncclAllReduce failed: remote process", TEXT], 2, MDM_FAKE_NCCL_FAIL="async", MDM_FAKE_NCCL_AT="3")) == 1
    assert len(fails(ranks, ["ncclAllReduce has not ended"], LIMIT + 5, MDM_FAKE_NCCL_FAIL="hang", MDM_FAKE_NCCL_AT="3")) == 1
# The others wait, and do not reach their limit before the one that failed has spoken.
assert len(fails(2, ["rank 1 on", "ncclSend and ncclRecv failed", TEXT], 5, limit=12, MDM_FAKE_NCCL_FAIL="error", MDM_FAKE_NCCL_AT="2",
                 MDM_FAKE_NCCL_RANK="1")) == 1
assert len(fails(2, ["ncclSend and ncclRecv has not ended"], LIMIT + 8, MDM_FAKE_NCCL_FAIL="hang", MDM_FAKE_NCCL_AT="2",
                 MDM_FAKE_NCCL_ABORT="hang")) == 1
assert len(fails(2, ["ncclCommInitRank has not ended"], LIMIT + 5, MDM_FAKE_NCCL_FAIL="start")) == 1
