"""A run under a Slurm of two nodes that is hit again and again, in every way that docs/reliability.md names, and submitted again each
time as its user would; it must end with the weights and the report of a run that was left alone. By hand, about an hour:

    MDM_PROGRAM=build/mdm-dist MDM_SOURCE=. MDM_INJECTOR=build/tests/faults/libmdm_inject.so tests/faults/hour.py [MINUTES]

So that it takes little of the machine, every all-reduce of the run pauses for a moment until the last hit. What each hit led to is
printed, and the comparison; the exit code is 0 when the two runs agree."""
import atexit
import json
import random
import sys

from faults import *  # noqa: F403
from faults import TINY
from program import Workspace, events, run
from slurm_site import Site, what_is_missing

LENGTH = [*TINY, "model.width=4", "train.epochs=40", "train.warmup=8", "divide.interval=5", "pretrain.epochs=4", "report=true"]
MINUTES = float(sys.argv.pop(1)) if len(sys.argv) > 1 else 55
PAUSE = int(100 * MINUTES)  # milliseconds, so that the last hit comes before the run's own end
draw = random.Random(20261126)


class Hit:
    """One way of losing a run: `do` is told the job and the run's processes, `expected` are the states that it may end in."""

    def __init__(self, name, do, *expected, seconds=60):
        self.name, self.do, self.expected, self.seconds = name, do, expected or ("FAILED",), seconds


def log_of(site, job):
    path = f"{site.path}/mdm-dist-{job}.log"
    return open(path).read() if os.path.exists(path) else ""


def pairs(work):
    """(worker, supervisor) of each rank, in no order."""
    found = processes_of(work, "hit")
    parents = {p for p, _ in found}
    return [(p, parent) for p, parent in found if parent in parents]


def launcher(site, work, job):
    """srun's process that stands above the batch script's step."""
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            words = open(folder + "/cmdline", "rb").read().split(b"\0")
        except OSError:
            continue
        if words and words[0] == b"srun" and f"run={work.file('hit')}".encode() in words:
            return int(folder[6:])
    raise AssertionError("no srun")


def while_saving(site, work, job):
    folder, deadline = work.file("hit") + "/checkpoints", time.time() + 400
    while not any(name.endswith(".part") for name in os.listdir(folder)):
        assert time.time() < deadline, "no save"
        time.sleep(0.0005)
    for worker, _ in pairs(work):
        os.kill(worker, signal.SIGKILL)


def and_damaged(site, work, job):
    os.kill(draw.choice(pairs(work))[0], signal.SIGKILL)
    nobody_is_left(work, "hit")
    folder = work.file("hit") + "/checkpoints"
    newest = os.path.join(folder, open(folder + "/latest").read().strip())
    with open(newest, "r+b") as f:
        at = draw.randrange(os.path.getsize(newest))
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1 << draw.randrange(8)]))


def sent(number, both=False):
    def do(site, work, job):
        worker, supervisor = draw.choice(pairs(work))
        os.kill(worker, number)
        if both:
            os.kill(supervisor, number)
    return do


def to_supervisor(site, work, job):
    os.kill(draw.choice(pairs(work))[1], signal.SIGKILL)


def time_limit(site, work, job):
    used = site.job(job)["RunTime"].split(":")
    minutes = int(used[0]) * 60 + int(used[1])
    assert site.call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes + 4}").returncode == 0


HITS = [
    Hit("USR1 by scancel", lambda site, work, job: site.call("scancel", "--signal=USR1", job), "PENDING"),
    Hit("USR1 to one worker", sent(signal.SIGUSR1), "PENDING"),
    Hit("time limit near", time_limit, "PENDING", seconds=300),
    Hit("worker killed", sent(signal.SIGKILL)),
    Hit("segmentation fault", sent(signal.SIGSEGV)),
    Hit("abort", sent(signal.SIGABRT)),
    Hit("worker stopped", sent(signal.SIGSTOP), seconds=400),
    Hit("rank frozen with its supervisor", sent(signal.SIGSTOP, both=True), seconds=400),
    Hit("supervisor killed", to_supervisor),
    Hit("launcher killed", lambda site, work, job: os.kill(launcher(site, work, job), signal.SIGKILL), "FAILED", "PENDING"),
    Hit("job cancelled", lambda site, work, job: site.call("scancel", job), "CANCELLED", seconds=100),
    Hit("all killed in a save", while_saving),
    Hit("worker killed, newest checkpoint damaged", and_damaged),
]


class Run:
    def __init__(self, site, work):
        self.site, self.work, self.job = site, work, None
        self.pausing = site.path + "/pausing"
        open(self.pausing, "w").close()
        self.program = site.file("paused-mdm-dist", f"""#!/bin/sh
if [ -e {self.pausing} ]; then
    export LD_PRELOAD={INJECTOR} MDM_INJECT_CALL=MPI_Iallreduce MDM_INJECT_AT=1 MDM_INJECT_TIMES=100000000
    export MDM_INJECT_ACTION=delay MDM_INJECT_DELAY={PAUSE}
fi
exec nice -n 10 {PROGRAM} "$@"
""", 0o755)

    def submit(self):
        printed = run("slurm", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={self.work.data}",
                      f"run={self.work.file('hit')}", *LENGTH, "--nodes", "2", "--ranks", "1", "--cpus", "1", "--time", "3:00:00")
        assert printed.returncode == 0, printed.stderr
        self.job = self.site.submit(self.site.file("hit.sbatch", printed.stdout), MDM_DIST=self.program)

    def again(self):
        """What a user does, or Slurm by itself after two minutes."""
        if self.site.state(self.job) != "PENDING":  # a job that lost its ranks is not queued again by itself
            self.submit()
            return
        for node in ("n1", "n2"):
            self.site.until(lambda: f"[{self.job}.0] done with job" in open(f"{self.site.path}/slurmd.{node}.log").read(),
                            "the end of the step")
        self.site.call("scontrol", "update", f"JobId={self.job}", "TimeLimit=180", "StartTime=now")

    def checkpoints(self):
        try:
            return sum(1 for e in events(self.work, "hit") if e["event"] == "checkpoint")
        except (OSError, ValueError):
            return 0

    def hit(self, hit):
        before, begun = self.job, time.time()
        told = len(log_of(self.site, self.job))
        hit.do(self.site, self.work, self.job)
        self.site.until(lambda: self.site.state(before) in hit.expected, f"{hit.name}: the end of job {before}: "
                        f"{log_of(self.site, before)[told:]}", hit.seconds)
        gone = time.time() - begun
        nobody_is_left(self.work, "hit")
        lines = [line for line in error_lines(log_of(self.site, before)[told:])]
        print(f"{hit.name}: {self.site.state(before)} after {gone:.1f} s, exit {self.site.job(before).get('ExitCode')}; "
              f"{len(lines)} error line(s){': ' + lines[0][:150] if lines else ''}", flush=True)


def differences(work):
    differing = [m for m in ("model-a.safetensors", "model-b.safetensors", "labels.csv") if read(work, "hit", m) != read(work, "calm", m)]
    for name in sorted(os.listdir(work.file("calm") + "/divisions")):
        if read(work, "hit", "divisions/" + name) != read(work, "calm", "divisions/" + name):
            differing.append("divisions/" + name)
    from report_text import comparable_report
    mine, calm = comparable_report(work.file("hit")), comparable_report(work.file("calm"))
    if mine != calm:
        differing.append("report: " + json.dumps([pair for pair in zip(mine, calm) if pair[0] != pair[1]][:5]))
    return differing


def main():
    missing = what_is_missing()
    if missing:
        print("skipped:", missing)
        sys.exit(77)
    work = Workspace(halved=True)  # stays, for a look at what differs
    site = Site()
    atexit.register(site.end)
    print("in", work.path, flush=True)
    calm = subprocess.Popen(["nice", "-n", "10", *command(2, arguments_of(work, "calm", *LENGTH))], stderr=subprocess.DEVNULL)
    started, one = time.time(), Run(site, work)
    one.submit()
    hits = list(HITS)
    draw.shuffle(hits)
    for number, hit in enumerate(hits):
        due = started + 60 * MINUTES * (number + draw.uniform(0.3, 1)) / len(hits)
        site.until(lambda: one.site.state(one.job) == "RUNNING" and len(pairs(work)) == 2, "the run under way", 300)
        have = one.checkpoints()
        site.until(lambda: time.time() >= due and one.checkpoints() > have or number == 0 and one.checkpoints() > 1,
                   "a newer checkpoint", 3600)
        one.hit(hit)
        if number == len(hits) - 1:
            os.remove(one.pausing)
        one.again()
    site.until(lambda: site.state(one.job) in ("COMPLETED", "FAILED", "CANCELLED"), f"the end: {log_of(site, one.job)}", 1800)
    print(f"{len(hits)} hits in {(time.time() - started) / 60:.0f} minutes; the run ended {site.state(one.job)}", flush=True)
    assert calm.wait() == 0
    differing = differences(work)
    print("differs: " + ", ".join(differing) if differing else "the same weights, labels, divisions and report as a run left alone")
    sys.exit(1 if differing or site.state(one.job) != "COMPLETED" else 0)


if __name__ == "__main__":
    main()
