"""Campaigns of random faults, by hand; docs/reliability.md has the last figures.

    MDM_PROGRAM=build/mdm-dist MDM_SOURCE=. MDM_INJECTOR=build/tests/faults/libmdm_inject.so tests/faults/campaign.py WHAT [COUNT [SEED]]

    injected    COUNT runs [500] on 2 or 3 ranks in which a random call on a random rank goes wrong: error lines, culprit, time to the end
    hangs       the same with ranks that stop or loop alone [60]
    kills       COUNT times [200] everything of a run is killed at a random time, and the run started again: no whole checkpoint is lost
    stops       a run is stopped by USR1 at three random steps in each stage and goes on: the weights of one left alone
    costs       what a supervisor takes in a minute, and COUNT times [10] from a start to the first step after a resume
    crowd       COUNT seconds [600] of eight ranks on the cores that there are: no alarm
"""
import hashlib
import random
import statistics
import sys

from faults import *  # noqa: F403
from program import Workspace

COUNTED = ("MPI_Allreduce", "MPI_Iallreduce", "write", "fsync", "rename", "unlink", "pread", "MPI_Finalize")
HANGS = ("stop", "loop")
ACTIONS = 12 * ("kill", "segv", "abort") + HANGS


def remove(work, name):
    subprocess.run(["rm", "-rf", work.file(name)], check=True)


def agrees(work, name, reference):
    try:
        same(work, name, reference)
    except AssertionError:
        return False
    return True


def end_of_all(work, name, limit=60):
    deadline = time.time() + limit
    while processes_of(work, name):
        assert time.time() < deadline, "processes are left"
        time.sleep(0.02)
    return time.time()


def injected_runs(work, count, seed=11, actions=ACTIONS):
    """Most injected calls end the worker in one of its calls; a stopped or looping one is found at a tenth of the limits."""
    draw, seconds, hangs, odd, fatal, right, lines_wrong, untouched = random.Random(seed), [], [], [], 0, 0, 0, 0
    calls = {}
    for ranks in (2, 3):
        done, _ = train(work, f"calm{ranks}", *MINI, ranks=ranks)
        assert done.returncode == 0, done.stderr
        for call in COUNTED:
            for rank in range(ranks):
                train(work, "counted", *MINI, ranks=ranks, environment=injected(
                    work, call, 1, "delay", rank=rank, MDM_INJECT_TIMES="1000000000", MDM_INJECT_DELAY="0"))
                calls[ranks, call, rank] = os.path.getsize(work.file("hits")) if was_hit(work) else 0
                remove(work, "counted")
    print(calls, flush=True)
    number = 0
    while number < count:
        ranks = draw.choice((2, 3))
        rank, call, action = draw.randrange(ranks), draw.choice(COUNTED), draw.choice(actions)
        if not calls[ranks, call, rank]:
            continue
        at = draw.randint(1, calls[ranks, call, rank])
        number += 1
        what = f"{number}: {action} in {call} {at} of rank {rank} of {ranks}"
        done, _ = train(work, "one", *MINI, ranks=ranks, environment=injected(work, call, at, action, rank=rank, MDM_WATCH_FACTOR="0.1"))
        ended = end_of_all(work, "one")
        if not was_hit(work):
            untouched += 1  # fewer calls than in the counted run
            assert done.returncode == 0, (what, done.stderr)
            remove(work, "one")
            continue
        fatal += 1
        lines = error_lines(done.stderr)
        took = ended - os.stat(work.file("hits")).st_mtime
        (hangs if action in ("stop", "loop") else seconds).append(took)
        named = len(lines) == 1 and f"rank {rank} on" in lines[0]
        if len(lines) != 1 or done.returncode != 6:
            lines_wrong += 1
        right += named
        if not named or done.returncode != 6 or took > (5 if action not in ("stop", "loop") else 12):
            odd.append(what)
            print(f"{what}: exit {done.returncode}, {took:.1f} s, {lines}", flush=True)
        remove(work, "one")
        if number % 20 == 0:
            print(f"{number} runs, {fatal} hit, {untouched} not reached; not exactly one line and exit 6: {lines_wrong}; culprit right {right};"
                  f" to the last process gone: median {statistics.median(seconds or [0]):.2f} s, max {max(seconds or [0]):.2f} s;"
                  f" hangs median {statistics.median(hangs or [0]):.2f} s, max {max(hangs or [0]):.2f} s", flush=True)


def soundness(path):
    """None, or what is wrong with a checkpoint: size and SHA-256 of its image, without the program."""
    content = open(path, "rb").read()
    words = content[:512].decode("ascii", "replace").split()
    digest = hashlib.sha256(content[512:]).hexdigest()
    return None if digest in words and str(len(content) - 512) in words else f"{path}: {words[:8]}"


def position(name):
    return [int(n) for n in re.findall("[0-9]+", name)]


def hangs(work, count, seed=14):
    injected_runs(work, count, seed, HANGS)


def kills(work, count, seed=12):
    """Everything of the run, mpirun first, at a time drawn from its length; the newest whole checkpoint never goes back."""
    draw, lost, done_runs, differ = random.Random(seed), 0, 0, 0
    begun = time.time()
    done, _ = train(work, "calm", *MINI, ranks=2)
    length = time.time() - begun
    assert done.returncode == 0, done.stderr
    newest, unfinished = [], 0
    for number in range(1, count + 1):
        process = subprocess.Popen(command(2, arguments_of(work, "one", *MINI)), stderr=subprocess.PIPE, text=True)
        try:
            _, text = process.communicate(timeout=draw.uniform(0.2, 1) * length)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            for member, _ in processes_of(work, "one"):
                try:
                    os.kill(member, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            end_of_all(work, "one")
        else:
            assert process.returncode == 0, (process.returncode, text)
            done_runs += 1
            differ += not agrees(work, "one", "calm")
            remove(work, "one")
            newest = []
            continue
        unfinished += 1
        folder = work.file("one") + "/checkpoints"
        names = [n for n in (os.listdir(folder) if os.path.isdir(folder) else []) if n.startswith("epoch-") and n.endswith(".h5")]
        bad = [soundness(os.path.join(folder, n)) for n in names if soundness(os.path.join(folder, n))]
        best = max((position(n) for n in names), default=[])
        if bad or best < newest:
            lost += 1
            print(f"{number}: {bad} {best} after {newest}", flush=True)
        newest = best
        if os.path.exists(work.file("one") + "/restarts.json"):
            os.remove(work.file("one") + "/restarts.json")
        if number % 20 == 0:
            print(f"{number} starts, {unfinished} killed, {done_runs} runs came to their end, {differ} with other weights;"
                  f" whole checkpoints lost: {lost}", flush=True)


def ends_of(work, name, stage):
    """How many epochs of a stage have ended so far."""
    path = work.file(name) + "/metrics.jsonl"
    return sum(f'"stage":"{stage}"' in line for line in open(path)) if os.path.exists(path) else 0


def stops(work, _, seed=13):
    """USR1 at random times: three in each stage, on one, two and three ranks."""
    draw = random.Random(seed)
    longer = ["pretrain.epochs=12", "train.epochs=24", "train.warmup=12", "report=false", "tensorboard=false"]
    for ranks in (1, 2, 3):
        done, _ = train(work, f"calm{ranks}", *longer, ranks=ranks)
        assert done.returncode == 0, done.stderr
        for stage in ("pretrain", "warmup", "semi"):
            name, places = f"stopped-{stage}-{ranks}", []
            while len(places) < 3:
                ended = ends_of(work, name, stage)
                process = start_and_wait_for(work, name, stage, *longer, ranks=ranks)
                while ends_of(work, name, stage) <= ended and process.poll() is None:  # each start gets on
                    time.sleep(0.01)
                time.sleep(draw.uniform(0, 0.4))
                process.send_signal(signal.SIGUSR1)
                _, text = process.communicate(timeout=120)
                if process.returncode == 0:
                    break
                assert process.returncode == 75, text
                places.append(open(work.file(name) + "/checkpoints/latest").read().strip())
            done, _ = train(work, name, *longer, ranks=ranks)
            assert done.returncode == 0, done.stderr
            print(f"{stage} on {ranks} ranks: stopped at {places}: {'the same bits' if agrees(work, name, f'calm{ranks}') else 'DIFFERENT'}",
                  flush=True)


def crowd(work, seconds, _=0):
    begun, runs = time.time(), 0
    while time.time() - begun < seconds:
        done = subprocess.run(command(8, arguments_of(work, f"crowd{runs}", "train.epochs=30", "train.warmup=10")), capture_output=True,
                              text=True)
        assert done.returncode == 0 and not error_lines(done.stderr), done.stderr
        runs += 1
    print(f"{runs} runs of eight ranks in {time.time() - begun:.0f} s without an alarm", flush=True)


def own_memory(process):
    """Kilobytes that a process shares with no other."""
    lines = open(f"/proc/{process}/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def ticks(process):
    words = open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()
    return int(words[11]) + int(words[12])


def costs(work, repeats, _=0):
    """What a supervisor takes while its rank trains, and how long it is from a start to the first exchanged gradient after a resume."""
    long = ["train.epochs=1000", "train.warmup=999", "train.batch=100", "pretrain.batch=100", "model.width=8"]
    process = start_and_wait_for(work, "watched", "warmup", *MINI, *long, ranks=2)
    workers = workers_of(work, "watched")
    supervisors = [parent for p, parent in processes_of(work, "watched") if p in workers]
    before, begun = sum(map(ticks, supervisors)), time.time()
    time.sleep(60)
    used, seconds = (sum(map(ticks, supervisors)) - before) / os.sysconf("SC_CLK_TCK"), time.time() - begun
    print(f"two supervisors: {1000 * used:.0f} ms of CPU time in {seconds:.0f} s, {50 * used / seconds:.3f} % of a core each;"
          f" {[own_memory(s) for s in supervisors]} kB of their own", flush=True)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=120)
    assert process.returncode == 75, process.returncode
    first = []
    for _ in range(repeats):
        begun = time.time()
        again = subprocess.Popen(command(2, arguments_of(work, "watched", *MINI, *long)), stderr=subprocess.PIPE, text=True,
                                 env=injected(work, "MPI_Iallreduce", 1, "delay", rank=0, MDM_INJECT_DELAY="0"))
        while not was_hit(work):
            assert again.poll() is None and time.time() < begun + 120, again.communicate()[1]
            time.sleep(0.005)
        first.append(time.time() - begun)
        again.send_signal(signal.SIGUSR1)
        assert again.wait(timeout=120) == 75
    print(f"from the start of mpirun to the first exchange of a resumed run: median {statistics.median(first):.2f} s, max {max(first):.2f} s",
          flush=True)


def main():
    what = sys.argv[1]
    work = Workspace(halved=True)
    small_data(work)
    defaults = {"injected": 500, "hangs": 60, "kills": 200, "stops": 0, "crowd": 600, "costs": 10}
    campaign = {"injected": injected_runs, "hangs": hangs, "kills": kills, "stops": stops, "crowd": crowd, "costs": costs}[what]
    try:
        campaign(work, *([int(word) for word in sys.argv[2:4]] or [defaults[what]]))
    finally:
        work.remove()


if __name__ == "__main__":
    main()
