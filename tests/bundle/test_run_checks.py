"""run-checks as on a machine with a GPU, which is an emulated one with the NCCL of tests/device: two ranks on it are held against one, and
what goes wrong is noticed."""
import os
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

BUILD, SOURCE = os.environ["MDM_BUILD"], os.environ["MDM_SOURCE"]
NETWORK = "model.arch=preact_resnet10 model.width=8 model.projection=8"
SETTINGS = """model: {arch: preact_resnet10, width: 8, projection: 8, networks: 2}
pretrain: {batch: 32, lr: 0.02}
train: {batch: 16, lr_backbone: 0.01, lr_head: 0.01}
divide: {interval: 1, k: 3, threshold: 0.1}
report: false
tensorboard: false
"""


def lay_out(folder):
    """What a bundle has, as far as this part of run-checks looks: the emulated program in the place of the real one."""
    for name in ("bin", "libexec", "checks", "tools"):
        os.makedirs(os.path.join(folder, name))
    programs = {"mdm-dist": "cli/mdm_dist_emulated", "test_group": "device/test_group_emulated", "test_mixing": "device/test_mixing_emulated"}
    for name, program in programs.items():
        for place in ("bin", "libexec"):
            os.symlink(os.path.join(BUILD, "tests", program), os.path.join(folder, place, name))
    os.symlink(shutil.which("mpirun"), os.path.join(folder, "bin", "mpirun"))
    shutil.copy(os.path.join(SOURCE, "cmake", "bundle", "run-checks"), os.path.join(folder, "bin"))
    contents = {"checks/list": "test_group 1,2,3\n", "checks/quickstart.yaml": SETTINGS,
                "checks/failing": "test_mixing 1\n", "tools/nvidia-smi": "#!/bin/sh\necho 'Emulated GPU, 580.0, 81559 MiB'\n",
                "tools/compute-sanitizer": "#!/bin/sh\necho compute-sanitizer \"$@\"\nexit 9\n", "tools/torch.py": "",
                "tools/peer.py": "import sys\nprint('{}')\n'--compile' in sys.argv and print('way 2 of recording failed', file=sys.stderr)\n"}
    for name, text in contents.items():
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)
    for name in ("nvidia-smi", "compute-sanitizer"):
        os.chmod(os.path.join(folder, "tools", name), 0o755)


def make_pictures(path, count=128, test_count=16, side=8):
    random, labels = np.random.default_rng(1), np.arange(count + test_count) % 4
    pictures = random.integers(0, 128, (4, side, side, 3))[labels] + random.integers(0, 120, (len(labels), side, side, 3))
    with h5py.File(path, "w") as f:
        for group, part in (("train", slice(0, count)), ("test", slice(count, None))):
            f[group + "/images"], f[group + "/labels"] = pictures[part].astype("u1"), labels[part].astype("i4")


def run_checks(folder, part="ranks", **variables):
    results = os.path.join(folder, "results.txt")
    done = subprocess.run([os.path.join(folder, "bin", "run-checks"), results, part], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, cwd=folder, env={"PATH": f"{folder}/tools:/usr/bin:/bin", "HOME": "/nonexistent", "SCALE": "3", "LIMIT": "400",
                                                      "LD_LIBRARY_PATH": os.path.join(BUILD, "tests", "fake_nccl"), "MDM_EMULATED_GPUS": "1", "NETWORK": NETWORK,
                                                      **variables})
    with open(results) as f:
        told = f.read()
    print(told, done.stderr, sep="", flush=True)
    return done.returncode, told


def has(told, *lines):
    for line in lines:
        assert line in told, line


if not shutil.which("mpirun"):
    print("skipped: mpirun is missing")
    sys.exit(77)
with tempfile.TemporaryDirectory() as work:
    lay_out(work)
    make_pictures(os.path.join(work, "checks", "noisy.h5"))
    code, told = run_checks(work)
    BY_NCCL = "run on the GPU, two ranks by NCCL"
    has(told, f"libnccl.so.2: {os.path.join(BUILD, 'tests', 'fake_nccl')}/libnccl.so.2\n", "passed   two ranks sum by NCCL",
        f"passed   {BY_NCCL}, launched: losses as in run on the GPU, one rank", f"passed   {BY_NCCL}, recorded: losses as in",
        "passed   run on two CPU ranks: losses as in run on one CPU rank", " 0 failed, 0 skipped, ")
    assert code == 0, code
    code, told = run_checks(work, "runs")
    has(told, "passed   recorded steps have the bits of launched ones", "passed   a run on the CPU saves its state in the warm-up",
        "passed   a CPU checkpoint goes on on the GPU", " 0 failed, 0 skipped, ")
    assert code == 0, code
    # MPI in the place of NCCL
    code, told = run_checks(work, MDM_NCCL="off")
    has(told, "FAILED   two ranks sum by NCCL", f"FAILED   {BY_NCCL}, launched: code 1", f"failed: {BY_NCCL}, recorded\n")
    assert code == 1, code
    # Where CUDA fails in a test, the message tells it, and what failed is run again; none may be skipped; what was not recorded is told.
    os.replace(os.path.join(work, "checks", "failing"), os.path.join(work, "checks", "list"))
    code, told = run_checks(work, "tests", MDM_EMULATED_LOST="mix_rows", MDM_EMULATED_LOST_AT="1")
    has(told, "FAILED   test_mixing: code ", "an illegal memory access was encountered (cudaErrorIllegalAddress)",
        " alone: code 1 after", " alone (0 s)", " under memcheck: code 9", "--report-api-errors no", "failed: test_mixing\n")
    assert code == 1, code
    code, told = run_checks(work, "sanitize")
    has(told, "FAILED   test_knn under memcheck: code 9", "FAILED   test_losses under racecheck: code 9", "--tool synccheck --kernel-name kns=mdm_ ")
    code, told = run_checks(work, "tests", MDM_EMULATED_GPUS="0")
    has(told, "failed: tests were skipped, though there is a GPU\n")
    assert code == 1, code
    code, told = run_checks(work, "peer", PEER=os.path.join(work, "tools", "peer.py"), PYTHONPATH=os.path.join(work, "tools"))
    has(told, "FAILED   PyTorch semi --bf16 --channels-last --compile: its steps: way 2 of recording failed", "0 passed, 3 failed, ")
    assert code == 1, code
    # What the backend's own code tells of a plan is understood.
    program = os.path.join(work, "bin", "mdm-dist")
    os.remove(program)
    os.symlink(os.path.join(BUILD, "tests", "device", "test_plans_at_work"), program)
    _, told = run_checks(work, "plans")
    has(told, "weight gradient    4x4      8 to    8, kernel 3, stride 1, batch 2: engine  12,   1.500 ms")
