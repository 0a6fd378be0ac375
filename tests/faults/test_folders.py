"""Run folders and data files that change, fail or vanish while they are used, and checkpoints that are not what they seem."""
import hashlib
import shutil
import sys

from faults import *  # noqa: F403
from program import events, main

FULL = "--full" in sys.argv
if FULL:
    sys.argv.remove("--full")
LONG = [*MINI, "train.epochs=40", "train.warmup=30"]


def prepared(work):
    small_data(work)
    calm_runs(work, *MINI, ranks=(1, 2, 3))


def checkpoints(work, name):
    folder = work.file(name) + "/checkpoints"
    return sorted(n for n in os.listdir(folder) if n.endswith(".h5")), folder


def copy_of_calm(work, name, without_results=True):
    shutil.rmtree(work.file(name), ignore_errors=True)
    shutil.copytree(work.file("calm1"), work.file(name))
    if without_results:
        names, folder = checkpoints(work, name)
        os.remove(os.path.join(folder, names[-1]))
        os.remove(folder + "/latest")
    return checkpoints(work, name)


def is_sound(path):
    """Size and SHA-256 of a checkpoint's image are what its first block tells, found without the program."""
    content = open(path, "rb").read()
    words = content[:512].decode("ascii", "replace").split()
    return hashlib.sha256(content[512:]).hexdigest() in words and str(len(content) - 512) in words


def still_copy(path, copied):
    """A copy of a file that nothing changed meanwhile."""
    content = None
    while content is None or content != open(path, "rb").read():
        content = open(path, "rb").read()
        time.sleep(0.05)
    with open(copied, "wb") as f:
        f.write(content)


def saves_that_fail_in_any_way_are_told_and_the_training_goes_on(work):
    """By the kind of error that a file system may give: a lost server, another device, no rights, no quota, read-only."""
    for call, name in (("write", "ESTALE"), ("rename", "EXDEV"), ("rename", "EACCES"), ("fsync", "EIO"), ("write", "EDQUOT"),
                       ("open", "EROFS"), ("open", "ESTALE"), ("rename", "ESTALE")):
        folder = f"fails-{call}-{name}"
        done, _ = train(work, folder, *MINI, environment=injected(work, call, 1, "errno", path="/checkpoints", MDM_INJECT_ERRNO=name))
        assert was_hit(work) and done.returncode == 0 and not error_lines(done.stderr), (call, name, done.stderr)
        assert done.stderr.count("could not be saved") == 1, (call, name, done.stderr)
        same(work, folder)
        names, where = checkpoints(work, folder)
        assert not [n for n in os.listdir(where) if n.startswith(".")] and os.path.exists(where + "/latest")


def interrupted_and_slow_writes_are_completed(work):
    done, _ = train(work, "eintr", *MINI, environment=injected(work, "write", 1, "errno", path="/checkpoints", MDM_INJECT_ERRNO="EINTR",
                                                               MDM_INJECT_TIMES="3"))
    assert was_hit(work) and done.returncode == 0 and "could not be saved" not in done.stderr, done.stderr
    same(work, "eintr")
    done, _ = train(work, "slow", *MINI, environment=injected(work, "fsync", 1, "delay", path="/checkpoints", MDM_INJECT_DELAY="700",
                                                              MDM_INJECT_TIMES="100000"))
    assert was_hit(work) and done.returncode == 0, done.stderr
    same(work, "slow")
    assert [e["epoch"] for e in events(work, "slow") if e["event"] == "epoch"] == [e["epoch"] for e in events(work, "calm1")
                                                                                    if e["event"] == "epoch"]


def a_disk_without_inodes_costs_saves_not_the_training(work):
    if not as_root():
        return
    os.mkdir(work.file("disk"))
    assert subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m,nr_inodes=14", "tmpfs", work.file("disk")]).returncode == 0
    try:
        done, _ = train(work, "disk/run", *MINI)
        assert "could not be saved" in done.stderr and done.returncode in (0, 4), done.stderr
        assert len(error_lines(done.stderr)) == (done.returncode == 4), done.stderr
    finally:
        subprocess.run(["umount", work.file("disk")], check=True)


def a_disk_that_becomes_read_only_costs_saves_not_the_training(work):
    if not as_root():
        return
    os.mkdir(work.file("ro"))
    assert subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", work.file("ro")]).returncode == 0
    try:
        process = start_and_wait_for(work, "ro/run", "warmup", *LONG)
        names, folder = checkpoints(work, "ro/run")
        assert subprocess.run(["mount", "-o", "remount,ro", work.file("ro")], capture_output=True).returncode in (0, 32)
        read_only = not os.access(folder, os.W_OK)
        _, text = process.communicate(timeout=120)
        if read_only:
            assert process.returncode == 4 and "could not be saved" in text and len(error_lines(text)) == 1, (process.returncode, text)
        else:
            print("        (open files keep this tmpfs writable: left out)")
    finally:
        subprocess.run(["umount", "-l", work.file("ro")], check=True)


def after_a_power_cut_the_checkpoints_that_were_told_of_are_there(work):
    """The run folder is on a disk made of a file; what that file holds while the run stands still is what a power cut would leave."""
    if not as_root():
        return
    disk, copied = work.file("disk.img"), work.file("cut.img")
    where, after = work.file("disk-of-file"), work.file("cut")
    with open(disk, "wb") as f:
        f.truncate(64 << 20)
    os.mkdir(where)
    os.mkdir(after)
    made = subprocess.run(["mkfs.ext4", "-q", disk], capture_output=True).returncode if shutil.which("mkfs.ext4") else 1
    if made != 0 or subprocess.run(["mount", "-o", "loop", disk, where], capture_output=True).returncode != 0:
        print("        (no disks made of files here: left out)")
        return
    long = ["train.epochs=250", "train.warmup=248"]
    try:
        process = start_and_wait_for(work, "disk-of-file/run", "warmup", *MINI, *long)
        for cut in range(5 if FULL else 2):
            time.sleep(0.3)
            members = [p for p, _ in processes_of(work, "disk-of-file/run")]
            named = open(where + "/run/checkpoints/latest").read().strip()
            time.sleep(0.2)  # one that is named may not be on the disk yet, the one before it is
            for p in members:
                os.kill(p, signal.SIGSTOP)
            assert process.poll() is None, "the run is over"
            still_copy(disk, copied)
            assert subprocess.run(["mount", "-o", "loop", copied, after]).returncode == 0
            try:
                folder = after + "/run/checkpoints"
                newest = open(folder + "/latest").read().strip()
                assert re.findall("[0-9]+", newest) >= re.findall("[0-9]+", named), (newest, named, os.listdir(folder))
                assert is_sound(os.path.join(folder, newest)), newest
                done, _ = train(work, "cut/run", *MINI, *long)
                assert done.returncode == 0 and "going on from" in done.stderr and "damaged" not in done.stderr, done.stderr
                shutil.copytree(after + "/run", work.file(f"cut{cut}"))
            finally:
                subprocess.run(["umount", after], check=True)
                for p in members:
                    os.kill(p, signal.SIGCONT)
        _, text = process.communicate(timeout=240)
        assert process.returncode == 0, text
        for number in range(cut + 1):
            same(work, f"cut{number}", "disk-of-file/run")
    finally:
        for p, _ in processes_of(work, "disk-of-file/run"):
            os.kill(p, signal.SIGKILL)
        nobody_is_left(work, "disk-of-file/run")
        subprocess.run(["umount", "-l", where], check=True)


def a_folder_that_vanishes_ends_with_the_models_lost_but_one_line(work):
    process = start_and_wait_for(work, "gone", "warmup", *LONG)
    os.rename(work.file("gone"), work.file("elsewhere"))
    _, text = process.communicate(timeout=120)
    assert process.returncode == 4 and len(error_lines(text)) == 1 and "could not be saved" in text, (process.returncode, text)
    os.rename(work.file("elsewhere"), work.file("gone"))
    names, folder = checkpoints(work, "gone")
    assert names


def with_every_checkpoint_damaged_nothing_is_begun_anew(work):
    names, folder = copy_of_calm(work, "all-bad")
    for name in names:
        with open(os.path.join(folder, name), "r+b") as f:
            f.seek(700)
            byte = f.read(1)
            f.seek(700)
            f.write(bytes([byte[0] ^ 4]))
    before = {n: open(os.path.join(folder, n), "rb").read() for n in names}
    for ranks in (1, 2):
        done, _ = train(work, "all-bad", *MINI, ranks=ranks)
        refused(done, 3, "resume=never")
        assert all(name in done.stderr for name in names), done.stderr
    assert before == {n: open(os.path.join(folder, n), "rb").read() for n in names}


def forged(path, change):
    """Changes a checkpoint and makes its digest right again, as only someone could who means it."""
    import h5py
    content = open(path, "rb").read()
    with open(path + ".inner", "wb") as f:
        f.write(content[512:])
    with h5py.File(path + ".inner", "r+") as f:
        change(f)
    inner = open(path + ".inner", "rb").read()
    os.remove(path + ".inner")
    digest = hashlib.sha256(inner).hexdigest().encode()
    block, count = re.subn(rb"(bytes\s+)\d+(\s+sha256\s+)[0-9a-f]{64}", lambda m: m[1] + b"%d" % len(inner) + m[2] + digest,
                           content[:512].rstrip(b"\n"))
    assert count == 1
    with open(path, "wb") as f:
        f.write(block.ljust(512, b"\n") + inner)


def put(name, index, value):
    def change(f):
        data = f[name][()]
        if index is None:
            data = value
        else:
            data[index] = value
        f[name][...] = data
    return change


def forged_checkpoints_are_refused_by_what_is_wrong_in_them(work):
    import h5py
    import numpy as np

    def replaced(name, value):
        def change(f):
            del f[name]
            f[name] = value
        return change
    cases = [(put("network-a/weights", 5, np.nan), "network-a/weights"), (put("network-b/momentum", 0, np.inf), "network-b/momentum"),
             (put("format", None, 99), "format"), (replaced("network-a/weights", np.zeros(7, "f4")), "network-a/weights"),
             (replaced("keep", np.zeros(10 ** 6, "u1")), "keep"), (lambda f: f.__delitem__("integers"), "integers"),
             (put("integers", 0, -1), "position"), (put("integers", 0, 10 ** 12), "position"), (put("integers", 1, 9), "network"),
             (put("integers", 2, -5), "step"),
             (replaced("config_hash", "x" * 5000), "config_hash"), (replaced("data_fingerprint", "0" * 16), "data_fingerprint")]
    names, folder = copy_of_calm(work, "original")
    for number, (change, word) in enumerate(cases):
        name = f"forged{number}"
        shutil.copytree(work.file("original"), work.file(name))
        for n in checkpoints(work, name)[0][:-1]:
            os.remove(os.path.join(work.file(name), "checkpoints", n))
        path = os.path.join(work.file(name), "checkpoints", checkpoints(work, name)[0][0])
        forged(path, change)
        done, _ = train(work, name, *MINI)
        lines = error_lines(done.stderr)
        assert done.returncode in (2, 3) and len(lines) == 1 and word in lines[0], (number, word, done.returncode, done.stderr)
        shutil.rmtree(work.file(name))


def another_data_set_is_not_gone_on_with(work):
    import h5py
    other = work.file("other.h5")
    shutil.copy(work.data, other)
    with h5py.File(other, "r+") as f:
        f["train/labels"][0], f["train/labels"][1] = (f["train/labels"][0] + 1) % 8, (f["train/labels"][1] + 3) % 8
    copy_of_calm(work, "swapped")
    done, _ = train(work, "swapped", *MINI, f"data.train={other}")
    refused(done, 2, "other data")


def strangers_and_remains_beside_the_checkpoints_are_left_or_cleared(work):
    names, folder = copy_of_calm(work, "remains")
    for name in (".epoch-0009.h5.part", "latest.tmp-1-1", "notes.txt", "epoch-x.h5"):
        open(os.path.join(folder, name), "w").write("remains")
    done, _ = train(work, "remains", *MINI)
    assert done.returncode == 0, done.stderr
    same(work, "remains")
    left = os.listdir(folder)
    assert "notes.txt" in left and "epoch-x.h5" in left and not [n for n in left if ".part" in n or "tmp-" in n], left


def a_second_run_in_the_same_folder_is_refused_and_a_dead_one_is_no_hindrance(work):
    process = start_and_wait_for(work, "shared", "warmup", *LONG)
    done, _ = train(work, "shared", *LONG)
    refused(done, 4, "in use by")
    os.kill(workers_of(work, "shared")[0], signal.SIGKILL)
    process.communicate(timeout=60)
    process = subprocess.Popen(command(1, arguments_of(work, "shared", *LONG)), stderr=subprocess.PIPE, text=True)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0 and "going on from" in text, text


def a_clock_that_jumps_changes_nothing(work):
    if not shutil.which("faketime"):
        print("        (no faketime: left out)")
        return
    names, folder = copy_of_calm(work, "clock")
    for number, shift in enumerate(("-1d", "+1y")):
        copy_of_calm(work, f"clock{number}")
        done = subprocess.run(["faketime", "-f", shift, PROGRAM, *arguments_of(work, f"clock{number}", *MINI)], capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0 and "going on from" in done.stderr, (shift, done.stderr)
        same(work, f"clock{number}")
        assert all(e.get("seconds", 0) >= 0 for e in events(work, f"clock{number}"))


def a_planted_link_at_the_temporary_name_is_not_written_through(work):
    names, folder = copy_of_calm(work, "planted")
    with open(work.file("victim"), "w") as f:
        f.write("untouched")
    for n in range(1, 6):
        os.symlink(work.file("victim"), f"{folder}/.epoch-{n:04d}.h5.part")
    done, _ = train(work, "planted", *MINI)
    assert done.returncode == 0, done.stderr
    assert open(work.file("victim")).read() == "untouched"
    same(work, "planted")


def logs_that_cannot_be_written_are_told_once(work):
    done, _ = train(work, "mute", *MINI, environment=injected(work, "write", 3, "errno", path="metrics.jsonl", MDM_INJECT_TIMES="100000"))
    assert was_hit(work) and done.returncode == 0 and done.stderr.count("metrics.jsonl") == 1, done.stderr
    same(work, "mute")


def a_data_file_that_shrinks_or_fails_while_it_streams_is_told(work):
    copied = work.file("shrinks.h5")
    shutil.copy(work.data, copied)
    process = start_and_wait_for(work, "shrinks", "warmup", *LONG, "data.resident=stream", f"data.train={copied}")
    os.truncate(copied, 3000)
    _, text = process.communicate(timeout=120)
    lines = error_lines(text)
    assert process.returncode == 3 and len(lines) == 1 and "shrinks.h5" in lines[0], (process.returncode, text)
    for action, at, code in (("errno", 150, 3), ("short", 150, 0)):
        done, _ = train(work, f"reads-{action}", *MINI, "data.resident=stream",
                        environment=injected(work, "pread", at, action, path="mini.h5", MDM_INJECT_TIMES="1"))
        assert was_hit(work), action
        if done.returncode == 0:
            same(work, f"reads-{action}")
        else:
            refused(done, 3, "mini.h5")
    done, _ = train(work, "reads-late", *MINI, "data.resident=stream", ranks=2,
                    environment=injected(work, "pread", 60, "delay", rank=1, path="mini.h5", MDM_INJECT_DELAY="1500"))
    assert was_hit(work) and done.returncode == 0, done.stderr
    same(work, "reads-late", "calm2")


def ranks_may_come_and_go_between_starts(work):
    """1, 2, 3 and 1 ranks in turn: the same samples in the same steps, so the same losses but for rounding."""
    settings = [*MINI, "train.epochs=8", "train.warmup=6"]
    done, _ = train(work, "steady", *settings)
    assert done.returncode == 0
    for ranks in (1, 2, 3):
        before = sum(e["event"] == "checkpoint" for e in events(work, "changing")) if os.path.exists(work.file("changing")) else 0
        process = subprocess.Popen(command(ranks, arguments_of(work, "changing", *settings)), stderr=subprocess.PIPE, text=True)
        deadline = time.time() + 60
        while time.time() < deadline and process.poll() is None:
            path = work.file("changing") + "/metrics.jsonl"
            if os.path.exists(path) and open(path).read().count('"checkpoint"') > before + 1:
                process.send_signal(signal.SIGUSR1)
                break
            time.sleep(0.005)
        _, text = process.communicate(timeout=60)
        assert process.returncode in (0, 75), text
    done, _ = train(work, "changing", *settings)
    assert done.returncode == 0, done.stderr
    losses, steady = ([(e["stage"], e["epoch"], e["network"], e["loss"]) for e in events(work, name) if e["event"] == "epoch" and "loss" in e]
                      for name in ("changing", "steady"))
    assert [key[:3] for key in losses] == [key[:3] for key in steady]
    warm = [(a[3], b[3]) for a, b in zip(losses, steady) if a[0] != "semi"]
    assert all(abs(a - b) < 1e-3 * abs(b) for a, b in warm), warm


if __name__ == "__main__":
    main([prepared, saves_that_fail_in_any_way_are_told_and_the_training_goes_on, interrupted_and_slow_writes_are_completed,
          a_disk_without_inodes_costs_saves_not_the_training, a_disk_that_becomes_read_only_costs_saves_not_the_training,
          a_folder_that_vanishes_ends_with_the_models_lost_but_one_line, after_a_power_cut_the_checkpoints_that_were_told_of_are_there, with_every_checkpoint_damaged_nothing_is_begun_anew,
          forged_checkpoints_are_refused_by_what_is_wrong_in_them, another_data_set_is_not_gone_on_with,
          strangers_and_remains_beside_the_checkpoints_are_left_or_cleared,
          a_second_run_in_the_same_folder_is_refused_and_a_dead_one_is_no_hindrance, a_clock_that_jumps_changes_nothing,
          a_planted_link_at_the_temporary_name_is_not_written_through, logs_that_cannot_be_written_are_told_once,
          a_data_file_that_shrinks_or_fails_while_it_streams_is_told, ranks_may_come_and_go_between_starts], halved=True)
