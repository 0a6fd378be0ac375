"""A tiny training of one rank under valgrind: no memory is read before it is written, none beyond its ends, and what is left at the end
is MPI's own; and a look at a data set file, in the process that does nothing else. Skipped where there is no valgrind."""
import shutil
import sys
import xml.etree.ElementTree

from faults import *  # noqa: F403
from program import main

# Valgrind knows no AVX-512, for which oneDNN and OpenBLAS would build kernels; the program would start itself anew for the third.
PLAIN = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "GOMP_SPINCOUNT": "0", "MDM_UNSUPERVISED": "1", "OMP_NUM_THREADS": "1"}


def findings(path):
    """(kind, functions of the stack) of what valgrind has found."""
    return [(e.findtext("kind"), [f.findtext("fn") or f.findtext("obj") or "?" for f in e.find("stack").iter("frame")])
            for e in xml.etree.ElementTree.parse(path).getroot().iter("error")]


def is_of_mpi(kind, functions):
    begins, libraries = ("MPI_Init", "PMPI_Init", "ompi_mpi_init"), ("/libpmix.so",)  # which has a thread of its own
    return kind.startswith("Leak_") and any(f.startswith(begins) or any(name in f for name in libraries) for f in functions)


def shorten(path, count):
    import h5py
    with h5py.File(path, "r+") as f:
        for group in ("train", "test"):
            for name in list(f[group]):
                values = f[group][name][:count]
                del f[group][name]
                f[group][name] = values


def a_training_reads_no_uninitialised_memory(work):
    small_data(work)
    shorten(work.data, 40)
    report = work.file("valgrind.xml")
    command_line = ["valgrind", "--leak-check=full", "--show-leak-kinds=definite", "--num-callers=40", "--xml=yes", f"--xml-file={report}",
                    PROGRAM, *arguments_of(work, "checked", *MINI, "pretrain.batch=20", "train.epochs=2", "divide.k=3", "report=true",
                                             "tensorboard=true")]
    began = time.time()
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=800, env={**os.environ, **PLAIN})
    found = findings(report)
    print(f"        {time.time() - began:.0f} s, {len(found)} findings", flush=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    ours = [f"{kind}: {' < '.join(functions[:12])}" for kind, functions in found if not is_of_mpi(kind, functions)]
    assert not ours, "\n" + "\n".join(ours)


def a_look_at_a_file_reads_no_memory_that_is_freed(work):
    """Through a pipe: the process that looks may not write files, not even valgrind's."""
    for arguments in (["info"], ["verify"]):
        done = subprocess.run(["valgrind", "-q", "--num-callers=20", PROGRAM, "data", *arguments, work.data], capture_output=True, text=True,
                              timeout=200, env={**os.environ, **PLAIN})
        assert done.returncode == 0 and done.stderr == "", (arguments, done.returncode, done.stderr)


if __name__ == "__main__":
    if not shutil.which("valgrind"):
        print("skipped: valgrind is not installed")
        sys.exit(77)
    main([a_look_at_a_file_reads_no_memory_that_is_freed, a_training_reads_no_uninitialised_memory], halved=True)
