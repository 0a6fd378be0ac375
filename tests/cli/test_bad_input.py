"""Bad input: one clear line, the contract's exit code, everybody gone, earlier results intact."""
import os
import shutil
import stat
import subprocess
import time

import h5py
import numpy as np
from program import PROGRAM, main, read, run, train


def refuse(work, code, words, *arguments, ranks=1, name="refused", **options):
    begun = time.time()
    done = train(work, name, *arguments, ranks=ranks, **options)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert done.returncode == code, f"{arguments}: exit code {done.returncode}, expected {code}: {done.stderr}"
    assert len(lines) == 1, f"{arguments}: {len(lines)} error lines: {done.stderr}"
    for word in words:
        assert word in lines[0], f"{arguments}: '{word}' is not in: {lines[0]}"
    assert time.time() - begun < 10


def wrong_settings_are_refused_with_exit_code_2(work):
    for ranks in (1, 2):
        refuse(work, 2, ["train.epoch", "train.epochs"], "train.epoch=5", ranks=ranks)
    refuse(work, 2, ["model.width"], "model.width=0")
    refuse(work, 2, ["divide.k", "400"], "divide.k=400")
    refuse(work, 2, ["train.batch", "400"], "train.batch=401")
    refuse(work, 2, ["pretrain.batch"], "pretrain.batch=500")
    refuse(work, 2, ["train.epochs", "many"], "train.epochs=many")
    refuse(work, 2, ["model.arch"], "model.arch=resnet_10")
    refuse(work, 2, ["train.warmup"], "train.warmup=9")
    refuse(work, 2, ["--forse", "--force"], "--forse")


def settings_that_this_version_lacks_are_refused_not_ignored(work):
    refuse(work, 4, ["device=cuda"], "device=cuda")
    refuse(work, 2, ["data.validation"], "data.validation=0.001")


def wrong_values_of_the_environment_are_refused(work):
    for name, value, ranks in (("MDM_WATCH_FACTOR", "abc", 1), ("MDM_WATCH_FACTOR", "abc", 2), ("MDM_NCCL", "of", 1), ("MDM_DEBUG", "yes", 1),
                               ("MDM_UNSUPERVISED", "true", 1)):
        refuse(work, 2, [f"{name} is '{value}'"], ranks=ranks, env=dict(os.environ, **{name: value}))
    environment = dict(os.environ, MDM_WATCH_FACTOR="2,5")
    measured = run("bench", "gmm", env=environment)
    assert measured.returncode == 2 and measured.stderr.count("\n") == 1 and "MDM_WATCH_FACTOR is '2,5'" in measured.stderr, measured.stderr
    for ranks, arguments in ((1, ["eval", "x"]), (2, ["eval", "x"]), (1, ["predict", "x", "y"]), (1, ["export", "x", "--csv", "-"]),
                             (1, ["export", "x", "--onnx", "y"]), (1, ["report", "x"]), (1, ["report", "x", "y"])):
        done = run(*arguments, ranks=ranks, env=environment)
        assert done.returncode == 2 and done.stderr.count("MDM_WATCH_FACTOR is '2,5'") == 1, (arguments, done.returncode, done.stderr)
    told = run("doctor", env=environment)
    assert told.returncode == 4 and "MDM_WATCH_FACTOR is '2,5'" in told.stdout, told.stdout


def a_dry_run_tells_a_run_folder_that_cannot_be_written(work):
    with open(work.file("plain"), "w"):
        pass
    cases = [work.file("plain"), work.file("plain/deep/run")]
    if os.geteuid():
        os.makedirs(work.file("locked"), mode=0o555)
        cases += [work.file("locked"), work.file("locked/deep/run")]
    for folder in cases:
        refuse(work, 4, [f"run={folder} cannot be written"], f"run={folder}", "--dry-run")
    assert os.path.getsize(work.file("plain")) == 0 and not os.path.exists(work.file("fresh"))
    done = train(work, "fresh/deep", "--dry-run")
    assert done.returncode == 0 and not os.path.exists(work.file("fresh")), done.stderr


def damaged(work, name, change):
    path = work.file(name)
    shutil.copy(work.data, path)
    with h5py.File(path, "r+") as f:
        change(f)
    return f"data.train={path}"


def replace(f, name, value):
    del f[name]
    f[name] = value


def bad_data_files_are_refused_with_exit_code_3(work):
    refuse(work, 3, ["nowhere.h5"], "data.train=nowhere.h5", ranks=2)
    for key, ranks in (("data.test", 1), ("data.validation", 2), ("model.init", 1)):
        refuse(work, 3, [f"{key}=nowhere.file", "No such file"], f"{key}=nowhere.file", ranks=ranks)
    refuse(work, 3, [f"{work.path} is a folder", f"data import {work.path} "], f"data.train={work.path}")
    with open(work.file("text.h5"), "w") as f:
        f.write("not HDF5\n")
    refuse(work, 3, ["text.h5", "HDF5"], f"data.train={work.file('text.h5')}")
    raw = open(work.data, "rb").read()
    with open(work.file("short.h5"), "wb") as f:
        f.write(raw[:len(raw) // 2])
    refuse(work, 3, ["short.h5"], f"data.train={work.file('short.h5')}", ranks=2)
    cases = {
        "float.h5": (lambda f: replace(f, "train/images", np.zeros((400, 28, 28, 1), "f4")), ["/train/images"]),
        "flat.h5": (lambda f: replace(f, "train/images", np.zeros((400, 784), "u1")), ["/train/images", "dimension"]),
        "four.h5": (lambda f: replace(f, "train/images", np.zeros((400, 28, 28, 4), "u1")), ["channel"]),
        "fewer.h5": (lambda f: replace(f, "train/labels", np.zeros(399, "i4")), ["/train/labels", "399"]),
        "negative.h5": (lambda f: f["train/labels"].__setitem__(7, -3), ["/train/labels", "7", "-3"]),
        "large.h5": (lambda f: f["train/labels"].__setitem__(9, 1000), ["/train/labels", "9", "1000"]),
        "none.h5": (lambda f: (replace(f, "train/images", np.zeros((0, 28, 28, 1), "u1")),
                               replace(f, "train/labels", np.zeros(0, "i4"))), ["/train/images"]),
        "missing.h5": (lambda f: f.__delitem__("train/labels"), ["/train/labels"]),
        "deviation.h5": (lambda f: f.attrs.__setitem__("std", [np.nan]), ["std"]),
        "version.h5": (lambda f: f.attrs.__setitem__("format_version", 9), ["9"]),
    }
    for name, (change, words) in cases.items():
        refuse(work, 3, [name, *words], damaged(work, name, change))


def a_missing_data_file_of_the_users_own_is_not_made_up(work):
    missing = work.file("mine.h5")
    done = run("train", f"data.train={missing}", f"run={work.file('mine')}")
    assert done.returncode == 3 and "mine.h5" in done.stderr and not os.path.exists(missing), done.stderr


def an_unwritable_run_folder_is_exit_code_4(work):
    with open(work.file("occupied"), "w") as f:
        f.write("a file in the way\n")
    refuse(work, 4, ["occupied"], name="occupied", ranks=2)
    refuse(work, 4, ["/proc"], "run=/proc/mdm")


def a_full_disk_does_not_end_the_training_and_keeps_what_was_saved(work):
    disk = work.file("disk")
    os.mkdir(disk)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", disk], capture_output=True).returncode:
        print("        (not root: the full disk is left out)")
        return
    try:
        done = train(work, "disk/run")
        assert done.returncode in (0, 4), done.stderr
        assert "could not be saved" in done.stderr, done.stderr
        left = os.listdir(disk + "/run/checkpoints")
        assert not [name for name in left if name.startswith(".")], left
    finally:
        subprocess.run(["umount", disk], check=True)


def results_that_do_not_reach_stdout_are_exit_code_4(work):
    for arguments in (["data", "info", work.data], ["data", "info", work.data, "--json"], ["train", "--help-config"], ["completion", "bash"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 4 and "stdout" in done.stderr and done.stderr.count("\n") == 1, (arguments, done)
    piped = subprocess.run(["sh", "-c", '"$1" train --help-config | head -n 1', "sh", PROGRAM], capture_output=True, text=True)
    assert piped.returncode == 0 and piped.stderr == "", piped


def a_damaged_checkpoint_is_passed_over_for_the_one_before(work):
    assert train(work, "torn").returncode == 0
    whole = read(work, "torn", "model-a.safetensors")
    folder = work.file("torn") + "/checkpoints"
    newest = open(folder + "/latest").read().strip()
    with open(os.path.join(folder, newest), "r+b") as f:
        f.seek(-1000, 2)
        f.write(b"\0" * 500)
    done = train(work, "torn")
    assert done.returncode == 0, done.stderr
    assert newest in done.stderr, done.stderr
    assert read(work, "torn", "model-a.safetensors") == whole


def another_configuration_does_not_overwrite_a_run(work):
    before = read(work, "torn", "model-a.safetensors")
    refuse(work, 2, ["other settings: train.batch was 40 and is 50;"], "train.batch=50", name="torn", ranks=2)
    refuse(work, 2, ["model.width was 8 and is 4", "train.epochs was 4 and is 5", ", ...;"], "train.batch=50", "train.epochs=5", "model.width=4",
           "seed=7", name="torn")
    os.rename(work.file("torn") + "/config.yaml", work.file("torn") + "/config.bak")
    refuse(work, 2, ["other settings (config.yaml"], "train.batch=50", name="torn")
    os.rename(work.file("torn") + "/config.bak", work.file("torn") + "/config.yaml")
    assert read(work, "torn", "model-a.safetensors") == before
    refuse(work, 2, ["resume=never"], "resume=never", name="torn")


def a_loss_that_is_not_finite_ends_with_exit_code_5(work):
    done = train(work, "nan", "train.lr_backbone=100", "train.lr_head=100", ranks=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert done.returncode == 5 and len(errors) == 1, (done.returncode, done.stderr)


def unknown_commands_and_help_behave(work):
    assert run("--help").returncode == 0 and run("--version").stdout.startswith("mdm-dist")
    wrong = run("dta")
    assert wrong.returncode == 2 and "data" in wrong.stderr
    assert "train.epochs" in run("train", "--help-config").stdout
    printed = run("train", "--print-config", "train.epochs=70")
    assert printed.returncode == 0 and "epochs: 70" in printed.stdout
    for arguments, words in ((["train.epochs", "3"], "write train.epochs=VALUE"), ([work.data], f"write data.train={work.data}")):
        done = run(*arguments)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, (arguments, done.stderr)


def results_do_not_take_the_place_of_a_pipe(work):
    os.mkfifo(work.file("pipe"))
    for arguments in (["data", "noise", work.full, work.file("pipe"), "--symmetric", "0.1", "--force"],
                      ["data", "noise", work.full, work.file("noisier.h5"), "--symmetric", "0.1", "--write-noise-file", work.file("pipe")]):
        done = run(*arguments)
        assert done.returncode == 4 and "a device or a pipe" in done.stderr and done.stderr.count("\n") == 1, (arguments, done.stderr)
    assert stat.S_ISFIFO(os.stat(work.file("pipe")).st_mode)


def options_of_all_commands_are_read_alike(work):
    for arguments, code in ((["eval", "nowhere", "--split=train"], 3), (["eval", "nowhere", "--split=valid"], 2), (["data", "info", work.data, "--force"], 2),
                            (["export", "nowhere", "--csv=-"], 3), (["predict", "nowhere", "x", "--csv=-"], 3), (["export", "x", "--csv", "-", "--network=ensemble"], 2), (["export", "x", "y", "--csv", "-"], 2),
                            (["data", "noise", work.data, work.file("n.h5"), "--symmetric=lots"], 2), (["data", "noise", work.data, work.file("n.h5"), "--hold-out=1,x"], 2),
                            (["data", "noise", work.data], 2), (["data", "verify", work.data, "x"], 2), (["data", "verify", "nowhere.h5"], 3)):
        done = run(*arguments)
        assert done.returncode == code and done.stderr.count("\n") == 1, (arguments, done.returncode, done.stderr)


def degenerate_data_have_a_defined_end(work):
    constant = damaged(work, "constant.h5", lambda f: replace(f, "train/images", np.full((400, 14, 14, 1), 9, "u1")))
    done = train(work, "constant", constant, ranks=2)
    assert done.returncode == 0, done.stderr
    high = train(work, "none-labelled", "divide.threshold=0.9999999", "divide.gmm_floor=0.5")
    assert high.returncode == 0, high.stderr
    assert "no labelled samples" in high.stderr, high.stderr
    low = train(work, "none-unlabelled", "divide.threshold=0.0000001")
    assert low.returncode == 0, low.stderr


main([wrong_settings_are_refused_with_exit_code_2, settings_that_this_version_lacks_are_refused_not_ignored,
      wrong_values_of_the_environment_are_refused, a_dry_run_tells_a_run_folder_that_cannot_be_written, bad_data_files_are_refused_with_exit_code_3,
      a_missing_data_file_of_the_users_own_is_not_made_up, an_unwritable_run_folder_is_exit_code_4,
      a_full_disk_does_not_end_the_training_and_keeps_what_was_saved,
      results_that_do_not_reach_stdout_are_exit_code_4,
      a_damaged_checkpoint_is_passed_over_for_the_one_before, another_configuration_does_not_overwrite_a_run,
      a_loss_that_is_not_finite_ends_with_exit_code_5, unknown_commands_and_help_behave,
      results_do_not_take_the_place_of_a_pipe, options_of_all_commands_are_read_alike,
      degenerate_data_have_a_defined_end], halved=True)
