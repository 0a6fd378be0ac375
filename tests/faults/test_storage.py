"""Storage that fails, comes short or takes the process with it: no whole checkpoint is ever lost, and training goes on.

The k-th call of a kind is made to fail, k growing until a run is not hit any more. Without --full only the first calls are tried, which
belong to the first save."""
import sys

from faults import *  # noqa: F403
from program import events, main

FULL = "--full" in sys.argv
if FULL:
    sys.argv.remove("--full")
CALLS = {"write": 2, "fsync": 2, "rename": 2, "unlink": 1}  # how many of each kind the fast suite tries


def an_undisturbed_run_to_compare_with(work):
    done, _ = train(work, "calm")
    assert done.returncode == 0, done.stderr


def each_call(work, call, action, check):
    tried = 0
    for k in range(1, 1000 if FULL else CALLS[call] + 1):
        name = f"{call}-{action}-{k}"
        done, _ = train(work, name, environment=injected(work, call, k, action, path="/checkpoints"))
        if not was_hit(work):
            break
        tried += 1
        check(work, name, done)
    else:
        assert not FULL
    assert tried >= 1, f"{call}: only {tried} calls were reached"
    print(f"        {call} {action}: {tried} calls", flush=True)


def a_kill_at_any_call_of_a_save_leaves_a_whole_checkpoint(work):
    def check(work, name, done):
        assert done.returncode == 6, (name, done.returncode, done.stderr)
        one_line_names(done.stderr, 0, "Killed")
        nobody_is_left(work, name)
        whole(work, name, "calm")
    for call in CALLS:
        each_call(work, call, "kill", check)


def a_call_that_fails_is_told_and_training_goes_on(work):
    def check(work, name, done):
        assert done.returncode == 0 and not error_lines(done.stderr), (name, done.returncode, done.stderr)
        assert "could not be saved" in done.stderr or "unlink" in name, (name, done.stderr)
        whole(work, name, "calm")
    for call, action in (("write", "full"), ("fsync", "errno"), ("rename", "errno")):
        each_call(work, call, action, check)


def names_are_put_on_disk_by_their_folder(work):
    """A checkpoint, then the word that it is the latest: without the folder's fsync a power cut may lose either name."""
    done, _ = train(work, "folder", environment=injected(work, "fsync", 1, "errno", path="/checkpoints$"))
    assert was_hit(work) and done.returncode == 0 and done.stderr.count("could not be saved") == 1, (done.returncode, done.stderr)
    whole(work, "folder", "calm")
    done, _ = train(work, "counted", environment=injected(work, "fsync", 1, "delay", path="/checkpoints$", MDM_INJECT_DELAY="0",
                                                          MDM_INJECT_TIMES="1000000"))
    saves = [e for e in events(work, "counted") if e["event"] == "checkpoint"]
    assert done.returncode == 0 and os.path.getsize(work.file("hits")) == 3 * len(saves), (os.path.getsize(work.file("hits")), len(saves))


def a_write_that_comes_short_is_completed(work):
    def check(work, name, done):
        assert done.returncode == 0 and "could not be saved" not in done.stderr, (name, done.stderr)
        whole(work, name, "calm")
    each_call(work, "write", "short", check)


def a_stop_whose_save_fails_says_so_and_the_one_before_stands(work):
    """The first save has five calls of fsync."""
    process = start_and_wait_for(work, "stopped", "warmup", environment=injected(work, "fsync", 6, "errno", path="/checkpoints",
                                                                                MDM_INJECT_TIMES="1000000"))
    process.send_signal(signal.SIGUSR1)
    _, text = process.communicate(timeout=60)
    lines = error_lines(text)
    assert was_hit(work) and process.returncode == 4 and len(lines) == 1, (process.returncode, text)
    assert "could not be saved; the one before stands" in lines[0], lines[0]
    whole(work, "stopped", "calm")


def a_run_goes_on_from_the_checkpoint_that_is_named(work):
    done, _ = train(work, "kept", "checkpoint.keep=20")
    assert done.returncode == 0, done.stderr
    first = work.file("kept") + "/checkpoints/epoch-0001.h5"
    done, _ = train(work, "branch", f"resume={first}")
    assert done.returncode == 0 and f"going on from {first}" in done.stderr, done.stderr
    same(work, "branch", "calm")
    newest = os.path.join(os.path.dirname(first), open(work.file("kept") + "/checkpoints/latest").read().strip())
    done, _ = train(work, "newest", f"resume={work.file('kept')}/checkpoints/latest")
    assert done.returncode == 0 and f"going on from {newest}" in done.stderr, done.stderr
    done, _ = train(work, "nowhere", f"resume={first}.gone")
    refused(done, 3, "epoch-0001.h5.gone")


if __name__ == "__main__":
    main([an_undisturbed_run_to_compare_with, a_kill_at_any_call_of_a_save_leaves_a_whole_checkpoint,
          a_call_that_fails_is_told_and_training_goes_on, names_are_put_on_disk_by_their_folder, a_write_that_comes_short_is_completed,
          a_stop_whose_save_fails_says_so_and_the_one_before_stands, a_run_goes_on_from_the_checkpoint_that_is_named], halved=True)
