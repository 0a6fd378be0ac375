"""A run under a real Slurm of two nodes, by the job file that mdm-dist slurm prints: told to stop and queued again, a rank killed, the
job submitted again; it ends with the weights of a run that nothing happened to."""
import atexit
import sys

from faults import *  # noqa: F403
from faults import TINY
from program import main, run
from slurm_site import Site, what_is_missing

missing = what_is_missing()
if missing:
    print("skipped:", missing)
    sys.exit(77)
site = Site()
atexit.register(site.end)


def submit(work, name, change=lambda script: script, settings=(), **variables):
    printed = run("slurm", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={work.data}",
                  f"run={work.file(name)}", *TINY, *settings,
                  "--nodes", "2", "--ranks", "1", "--cpus", "1", "--time", "0:30:00")
    assert printed.returncode == 0, printed.stderr
    return site.submit(site.file(name + ".sbatch", change(printed.stdout)), MDM_DIST=PROGRAM, **variables)


def workers_of_job(work, name):
    parents = {p for p, _ in processes_of(work, name)}
    workers = [p for p, parent in processes_of(work, name) if parent in parents]
    assert len(workers) == 2, processes_of(work, name)
    return workers


def log_of(job):
    path = f"{site.path}/mdm-dist-{job}.log"
    return open(path).read() if os.path.exists(path) else ""


def wait_for_stage(work, name, job, stage):
    metrics = work.file(name) + "/metrics.jsonl"
    site.until(lambda: (os.path.exists(metrics) and f'"stage":"{stage}"' in open(metrics).read())
               or site.state(job) in ("FAILED", "COMPLETED"), f"{stage} of job {job}", 120)
    assert site.state(job) == "RUNNING", (site.job(job), log_of(job), site.logs())


def wait_for_end(job, expected):
    site.until(lambda: site.state(job) in ("COMPLETED", "FAILED", "CANCELLED"), f"the end of job {job}: {log_of(job)}", 180)
    assert site.state(job) == expected, f"{site.job(job)}\n{log_of(job)}\n{site.logs()}"


def an_undisturbed_run_to_compare_with(work):
    done, _ = train(work, "calm2", ranks=2)
    assert done.returncode == 0, done.stderr


def a_job_told_to_stop_is_queued_again_and_ends_with_the_same_weights(work):
    job = submit(work, "stopped")
    wait_for_stage(work, "stopped", job, "pretrain")
    assert site.call("scancel", "--signal=USR1", job).returncode == 0
    site.until(lambda: site.state(job) == "PENDING", f"job {job} in the queue again: {log_of(job)}", 90)
    assert site.job(job)["Restarts"] == "1"
    assert not processes_of(work, "stopped")
    for node in ("n1", "n2"):  # a step that is started while the old one of its name still ends cannot be launched
        site.until(lambda: f"[{job}.0] done with job" in open(f"{site.path}/slurmd.{node}.log").read(), "the end of the step")
    assert site.call("scontrol", "update", f"JobId={job}", "StartTime=now").returncode == 0  # instead of two minutes
    wait_for_end(job, "COMPLETED")
    assert log_of(job).count("going on from") == 1 and len(error_lines(log_of(job))) == 1, log_of(job)  # "stopped by a signal"
    same(work, "stopped", "calm2")


def without_kill_on_bad_exit_the_supervisors_end_what_srun_leaves(work):
    def patient(script):
        changed = script.replace("--kill-on-bad-exit=1", "--kill-on-bad-exit=0")
        assert changed != script, script
        return changed
    # the first step of the next stage may take a quarter of an hour: the warm-up lasts until the kill
    job = submit(work, "patient", patient, ["train.epochs=1000", "train.warmup=999"], MDM_WATCH_FACTOR="0.1")
    wait_for_stage(work, "patient", job, "warmup")
    victim = next(p for p in workers_of_job(work, "patient") if b"SLURM_PROCID=1" in open(f"/proc/{p}/environ", "rb").read().split(b"\0"))
    os.kill(victim, signal.SIGKILL)
    killed = time.time()
    nobody_is_left(work, "patient", within=12)
    print(f"        gone after {time.time() - killed:.1f} s", flush=True)
    wait_for_end(job, "FAILED")
    lines = error_lines(log_of(job))
    assert site.job(job)["ExitCode"] == "6:0" and len(lines) == 1 and "rank 1 on" in lines[0], (site.job(job), log_of(job))


def a_killed_rank_ends_the_job_with_6_and_one_line_and_the_next_job_goes_on(work):
    job = submit(work, "killed")
    wait_for_stage(work, "killed", job, "warmup")
    victim = next(p for p in workers_of_job(work, "killed") if b"SLURM_PROCID=1" in open(f"/proc/{p}/environ", "rb").read().split(b"\0"))
    os.kill(victim, signal.SIGKILL)
    wait_for_end(job, "FAILED")
    assert site.job(job)["ExitCode"] == "6:0" and site.job(job)["Restarts"] == "0", site.job(job)
    one_line_names("\n".join(line for line in log_of(job).splitlines() if not line.startswith("srun")
                             and not line.startswith("slurmstepd")), 1, "Killed")
    nobody_is_left(work, "killed")
    job = submit(work, "killed")
    wait_for_end(job, "COMPLETED")
    same(work, "killed", "calm2")


if __name__ == "__main__":
    main([an_undisturbed_run_to_compare_with, a_job_told_to_stop_is_queued_again_and_ends_with_the_same_weights,
          a_killed_rank_ends_the_job_with_6_and_one_line_and_the_next_job_goes_on,
          without_kill_on_bad_exit_the_supervisors_end_what_srun_leaves], halved=True)
