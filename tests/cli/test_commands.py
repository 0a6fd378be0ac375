"""doctor, status, slurm, completion, manual pages, the memory estimate and the time limit of a scheduler."""
import json
import os
import resource
import signal
import subprocess
import time

import h5py
import numpy as np

from program import main, run, start, train, SMALL, SOURCE, PROGRAM

COMMANDS = [["train"], ["data", "import"], ["data", "noise"], ["data", "info"], ["data", "verify"], ["eval"], ["predict"],
            ["export"], ["report"], ["bench"], ["doctor"], ["status"], ["slurm"], ["completion"]]


def error_lines(done):
    return [line for line in done.stderr.splitlines() if line.startswith("error")]


def a_sound_machine_is_called_sound_on_any_number_of_ranks(work):
    for ranks in (1, 2, 3):
        done = run("doctor", "--json", ranks=ranks)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["sound"] and told["ranks"] == ranks and [p["rank"] for p in told["places"]] == list(range(ranks))
        assert len(told["paths"]) == 6 and all(p["right"] and p["median_ms"] is not None for p in told["paths"])
        assert not [f for f in told["findings"] if f["level"] == "problem"]
    assert "sound" in run("doctor").stdout.splitlines()[-1]


def what_would_stop_a_run_is_named_with_its_cure(work):
    few = run("doctor", "--json", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    assert few.returncode == 4 and len(error_lines(few)) == 1, few.stderr
    problems = [f for f in json.loads(few.stdout)["findings"] if f["level"] == "problem"]
    assert len(problems) == 1 and "100 files" in problems[0]["what"] and "ulimit -n" in problems[0]["cure"]
    absent = run("doctor", work.file("nowhere"))
    assert absent.returncode == 4 and "no run folder" in absent.stdout


def a_launcher_that_mpi_does_not_see_is_named_with_its_cure(work):
    environment = dict(os.environ, SLURM_STEP_ID="0", SLURM_PROCID="1", SLURM_NTASKS="4")
    for arguments in (["doctor"], ["train", "configs/quickstart.yaml"]):
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=environment, cwd=SOURCE)
        assert done.returncode == 4 and len(error_lines(done)) == 1, done.stderr
        assert "srun started 4 processes" in done.stderr and "--mpi=pmix" in done.stderr


def status_tells_how_far_a_run_is_while_it_goes_on_and_afterwards(work):
    process = start("train", os.path.join(SOURCE, "configs", "quickstart.yaml"), f"data.train={work.data}",
                    f"run={work.file('watched')}", *SMALL, "train.epochs=40")
    told, deadline = {}, time.time() + 120
    while time.time() < deadline and process.poll() is None:
        done = run("status", work.file("watched"), "--json")
        told = json.loads(done.stdout) if done.returncode == 0 else {}
        if told.get("stage") == "semi":
            break
    assert told.get("alive") and not told["finished"] and told["state"] == "running", told
    assert told["seconds_left"] > 0 and not told["at_least"] and told["epochs"] == 40
    assert f"process" in told["holder"]
    assert "time left" in run("status", work.file("watched")).stdout
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=120)
    assert process.returncode == 75
    stopped = json.loads(run("status", work.file("watched"), "--json").stdout)
    assert not stopped["alive"] and not stopped["finished"] and stopped["state"] == "not running"
    assert train(work, "ended").returncode == 0
    ended = json.loads(run("status", work.file("ended"), "--json").stdout)
    assert ended["finished"] and ended["seconds_left"] == 0 and 0 <= ended["test_top1"] <= 1
    before = {n: os.stat(os.path.join(work.file("ended"), n)).st_mtime_ns for n in os.listdir(work.file("ended"))}
    run("status", work.file("ended"))
    assert before == {n: os.stat(os.path.join(work.file("ended"), n)).st_mtime_ns for n in os.listdir(work.file("ended"))}


def status_of_no_run_is_exit_code_3_and_a_torn_line_is_passed_over(work):
    assert run("status", work.file("nowhere")).returncode == 3
    os.mkdir(work.file("empty"))
    assert run("status", work.file("empty")).returncode == 3
    with open(work.file("empty") + "/metrics.jsonl", "wb") as f:  # zeros as a machine's crash may leave them
        f.write(b'{"event":"start"}\n\0\0\0\0\n{"event":"end"}\n')
    assert json.loads(run("status", work.file("empty"), "--json").stdout)["finished"]
    with open(work.file("ended") + "/metrics.jsonl", "a") as f:
        f.write('{"event":"epo')
    assert json.loads(run("status", work.file("ended"), "--json").stdout)["finished"]


def a_run_that_cannot_fit_is_refused_with_the_setting_that_shrinks_it(work):
    limit = 1 << 30
    done = train(work, "large", "--dry-run", "model.width=128", "train.batch=200",
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert done.returncode == 4 and len(error_lines(done)) == 1, (done.returncode, done.stderr)
    assert "model.width" in done.stderr and "1024 MiB" in done.stderr, done.stderr


def a_run_whose_batches_do_not_fit_computes_them_in_parts(work):
    limit = 3 << 29  # of addresses, of which libraries take many
    done = train(work, "parts", "--dry-run", "model.width=24", "train.batch=400", "pretrain.batch=400",
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert done.returncode == 0 and "train.micro_batch=" in done.stderr, (done.returncode, done.stderr)
    done = train(work, "parts", "--dry-run", "model.width=24", "train.batch=400", "pretrain.batch=400")
    assert "without labelled samples" not in done.stderr, done.stderr  # of one step's division
    assert done.returncode == 0 and "train.micro_batch=" not in done.stderr, (done.returncode, done.stderr)


def the_estimate_of_memory_is_near_what_a_run_takes(work):
    for width, batch in ((8, 40), (24, 80)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        done = train(work, "estimate", "--dry-run", f"model.width={width}", f"train.batch={batch}")
        assert done.returncode == 0, done.stderr
        told = float(done.stderr.split("memory: about ")[2].split(" MiB")[0])
        taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        if taken * 1024 > before:  # the largest child so far was this one
            assert 0.6 * taken < told < 1.7 * taken, (width, batch, told, taken)


def predictions_of_a_thousand_classes_take_the_memory_of_one_table_at_most(work):
    samples, taken = 12000, {}
    for classes in (10, 1000):
        with h5py.File(work.file(f"c{classes}.h5"), "w") as f:
            f["train/images"] = np.random.default_rng(1).integers(0, 256, (samples, 8, 8, 1)).astype(np.uint8)
            f["train/labels"] = (np.arange(samples) % classes).astype(np.int32)
            f.attrs["format"], f.attrs["format_version"], f.attrs["mean"], f.attrs["std"] = "mdm-dataset", 1, [0.5], [0.25]
        arguments = [*SMALL, "pretrain.epochs=0", "train.epochs=2", "train.warmup=1", "train.batch=400", "divide.threshold=0.999",
                     "report=false", "tensorboard=false", f"data.train={work.file(f'c{classes}.h5')}", f"run={work.file(f'c{classes}')}"]
        process = subprocess.Popen([PROGRAM, "train", *arguments], stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        taken[classes] = usage.ru_maxrss * 1024
    table = samples * 1000 * 4
    assert taken[1000] - taken[10] < 2 * table, taken


def a_run_stops_by_itself_before_its_job_ends(work):
    environment = dict(os.environ, SLURM_JOB_END_TIME=str(int(time.time()) + 20))
    done = train(work, "limited", env=environment)
    assert done.returncode == 75 and "stopped before the time limit" in done.stderr, (done.returncode, done.stderr)
    assert train(work, "limited", env=dict(os.environ, SLURM_JOB_END_TIME=str(int(time.time()) + 4000))).returncode == 0
    with open(work.file("limited") + "/model-a.safetensors", "rb") as a, open(work.file("ended") + "/model-a.safetensors", "rb") as b:
        assert a.read() == b.read()


def every_command_has_help_with_examples_that_starts_with_its_name(work):
    overview = run("--help").stdout
    for command in COMMANDS:
        page = run(*command, "--help")
        assert page.returncode == 0 and "Examples:\n  " in page.stdout, command
        assert page.stdout.startswith("usage: mdm-dist") and " ".join(command) in page.stdout.splitlines()[0]
        assert "mdm-dist " + " ".join(command) in overview
    assert run("data", "--help").stdout.count("usage:") == 4
    assert "usage: mdm-dist [train]" in run("configs/quickstart.yaml", "--help").stdout


def unknown_commands_and_options_are_answered_with_the_nearest(work):
    for words, near in ((["doctr"], "doctor"), (["stats"], "status"), (["slurm", "--node", "2"], "--nodes"),
                        (["train", "--dryrun"], "--dry-run"), (["status", "x", "--jsn"], "--json"),
                        (["data", "infos"], "info"), (["bench", "kn"], "knn"), (["eval", "x", "--jsn"], "--json"),
                        (["export", "x", "--onxx", "y"], "--onnx"), (["predict", "x", "y", "--cvs"], "--csv"),
                        (["data", "noise", "x", "y", "--sead", "1"], "--seed"), (["data", "import", "x", "y", "--sise", "8"], "--size")):
        done = run(*words)
        assert done.returncode == 2 and len(error_lines(done)) == 1 and near in done.stderr, (words, done.stderr)


def the_sbatch_file_is_as_in_the_repository_and_a_sound_script(work):
    command = ["slurm", "configs/cifar10.yaml", "run=runs/night", "--nodes", "2", "--ranks", "2", "--cpus", "16",
               "--time", "8:00:00"]
    printed = run(*command, cwd=SOURCE)
    assert printed.returncode == 0, printed.stderr
    with open(os.path.join(SOURCE, "launch", "slurm.sbatch")) as f:
        assert printed.stdout == f.read(), "launch/slurm.sbatch is not what mdm-dist slurm prints any more"
    for more in ([], ["--launcher", "mpirun"], ["--gpus", "4", "--memory", "64G", "--partition", "gpu", "--account", "a1"]):
        done = run("slurm", *more)
        assert done.returncode == 0, done.stderr
        assert subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0
        for line in done.stdout.splitlines():  # a comment above every #SBATCH line or group of them
            assert not line.startswith("#SBATCH") or " " in line
    assert "--gpus-per-node=4" in done.stdout and "--ntasks-per-node=4" in done.stdout
    for asked, seconds in (("2", 120), ("0:30", 30), ("0-0:3", 180), ("3:00", 180), ("0:02:59", 179)):
        done = run("slurm", "--time", asked)
        assert done.returncode == 2 and not done.stdout and f"{seconds} seconds" in done.stderr and "--lead 180" in done.stderr, (asked, done.stderr)
    for asked in ("0", "4", "3:01", "0:03:01", "1-0", "0-0:4", "0-0:3:1"):
        assert run("slurm", "--time", asked).returncode == 0, asked
    assert run("slurm", "--time", "2", "--lead", "60").returncode == 0
    for wrong in (["--time", "soon"], ["--time", "1:2:3:4"], ["--time", "1-2:3:4:5"], ["--nodes", "0"], ["--name", "a\nb"], ["--name", ""], ["train.epohcs=3"],
                  ["--launcher", "ssh"], ["--gpus", "2", "--ranks", "4"]):
        assert run("slurm", *wrong).returncode == 2, wrong


def words_with_quotes_reach_the_program_through_the_sbatch_file_unchanged(work):
    done = run("slurm", "run=runs/it's $HOME")
    tail = done.stdout[done.stdout.index("\nsrun"):].split(" &\n")[0].split('"$program"')[1]
    shown = subprocess.run(["bash", "-c", "printf '%s|' " + tail], capture_output=True, text=True).stdout
    assert shown == "run=runs/it's $HOME|", shown


def fake(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write("#!/bin/bash\n" + text)
    os.chmod(path, 0o755)


def the_job_script_requeues_after_75_and_after_nothing_else(work):
    bin = work.file("bin")
    os.mkdir(bin)
    fake(bin, "srun", 'echo "$@" >$FAKE/srun; trap "exit 75" USR1; [ "${CODE%-*}" = wait ] || exit ${CODE%-*}\n'
                      'touch $FAKE/ready; while :; do sleep 0.1; done\n')
    fake(bin, "mpirun", 'exec "$(dirname "$0")/srun" "$@"\n')
    fake(bin, "scontrol", 'echo "$@" >$FAKE/scontrol\n')
    fake(bin, "squeue", 'case "$*" in *%T*) [ "$CODE" = 75-cancelled ] && echo COMPLETING || echo RUNNING ;; '
                        '*) echo 2030-01-01T00:00:00 ;; esac\n')
    for launcher in ("pmix", "mpirun"):
        script = run("slurm", "--launcher", launcher).stdout
        for code, expected in (("0", 0), ("6", 6), ("75", 0), ("75-cancelled", 75), ("wait-USR1", 0), ("wait-TERM", 0)):
            folder = work.file(f"fake-{launcher}-{code}")
            os.mkdir(folder)
            environment = dict(os.environ, PATH=bin + ":" + os.environ["PATH"], FAKE=folder, CODE=code, SLURM_JOB_ID="7")
            job = subprocess.Popen(["bash", "-c", script], env=environment)
            if code.startswith("wait"):
                if launcher == "pmix":
                    fake(bin, "scancel", "exit 1\n")
                while not os.path.exists(folder + "/ready"):
                    time.sleep(0.02)
                job.send_signal(signal.SIGTERM if code == "wait-TERM" else signal.SIGUSR1)
            assert job.wait(timeout=20) == expected, (launcher, code, job.returncode)
            requeued = os.path.exists(folder + "/scontrol")
            assert requeued == (code in ("75", "wait-USR1", "wait-TERM")), (launcher, code)
            if requeued:
                assert open(folder + "/scontrol").read() == "requeue 7\n"


def completions_know_commands_options_keys_and_values(work):
    script = run("completion", "bash").stdout + """
try() { COMP_LINE="$1" COMP_POINT=${#1} COMPREPLY=(); _mdm_dist; echo "${COMPREPLY[*]}"; }
try "mdm-dist doc"; try "mdm-dist data no"; try "mdm-dist data noise --se"; try "mdm-dist train train.ep"
try "mdm-dist train train.batchnorm=lo"; try "mdm-dist slurm --launcher p"; try "mdm-dist bench kn"
try "mdm-dist data.resident=s"; try "mdm-dist data.train=here-i"; try "mdm-dist data import x y --test here-i"; try "mdm-dist status here-i"
"""
    os.mkdir(work.file("here-is"))
    with open(work.file("here-is.h5"), "w"):
        pass
    lines = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=work.path).stdout.splitlines()
    lines = [" ".join(sorted(line.split())) for line in lines]
    assert lines == ["doctor", "noise", "--seed", "train.epochs=", "local", "pmix", "knn", "stream", "here-is here-is.h5",
                     "here-is", "here-is"], lines
    with open(work.file("with blanks.yaml"), "w"):
        pass
    script = run("completion", "bash").stdout + """
try() { COMP_LINE="$1" COMP_POINT=${#1} COMPREPLY=(); _mdm_dist; printf '%s\n' "${COMPREPLY[@]}"; }
try "mdm-dist train with"; try "mdm-dist train * here-is."
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=work.path)
    assert done.stdout.splitlines() == ["with blanks.yaml", "here-is.h5"], done
    for shell in ("zsh", "fish"):
        text = run("completion", shell).stdout
        assert "batchnorm" in text and "doctor" in text and ("--lead" in text or "-l lead" in text)
        if subprocess.run(["which", shell], capture_output=True).returncode == 0:
            checked = subprocess.run([shell, "-n"], input=text, text=True, capture_output=True)
            assert checked.returncode == 0, (shell, checked.stderr)
    assert run("completion", "tcsh").returncode == 2


def manual_pages_are_clean_and_hold_every_option_and_key(work):
    for command in [[]] + COMMANDS:
        page = run("man", *command)
        assert page.returncode == 0 and page.stdout.startswith(".TH"), command
        if command and subprocess.run(["which", "groff"], capture_output=True).returncode == 0:
            shown = subprocess.run(["groff", "-ww", "-man", "-Tascii", "-P-cbou"], input=page.stdout, text=True, capture_output=True)
            assert not shown.stderr, shown.stderr
            for line in run(*command, "--help").stdout.splitlines():
                if line.startswith("  --") and line != "  --help":
                    assert line.split()[0] in shown.stdout, (command, line)
    assert "train.lr\\_backbone" in run("man", "train").stdout or "train.lr_backbone" in run("man", "train").stdout


of_memory = [a_run_that_cannot_fit_is_refused_with_the_setting_that_shrinks_it,
             a_run_whose_batches_do_not_fit_computes_them_in_parts, the_estimate_of_memory_is_near_what_a_run_takes,
             predictions_of_a_thousand_classes_take_the_memory_of_one_table_at_most]
if os.environ.get("MDM_SANITIZE", "OFF") != "OFF":  # which itself takes terabytes of addresses, and memory for every block
    of_memory = []
main([a_sound_machine_is_called_sound_on_any_number_of_ranks, what_would_stop_a_run_is_named_with_its_cure,
      a_launcher_that_mpi_does_not_see_is_named_with_its_cure,
      status_tells_how_far_a_run_is_while_it_goes_on_and_afterwards,
      status_of_no_run_is_exit_code_3_and_a_torn_line_is_passed_over,
      *of_memory, a_run_stops_by_itself_before_its_job_ends,
      every_command_has_help_with_examples_that_starts_with_its_name,
      unknown_commands_and_options_are_answered_with_the_nearest, the_sbatch_file_is_as_in_the_repository_and_a_sound_script,
      words_with_quotes_reach_the_program_through_the_sbatch_file_unchanged,
      the_job_script_requeues_after_75_and_after_nothing_else, completions_know_commands_options_keys_and_values,
      manual_pages_are_clean_and_hold_every_option_and_key])
