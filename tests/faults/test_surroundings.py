"""What surrounds a run and may be wrong: names of folders, the locale, other files on other ranks, networks, memory, descriptors,
threads, stacks, instruction sets, closed outputs."""
import resource
import shutil
import sys

from faults import *  # noqa: F403
from program import events, main

MINI = [*MINI, "train.epochs=2"]  # noqa: F405
FULL = "--full" in sys.argv
if FULL:
    sys.argv.remove("--full")


def prepared(work):
    small_data(work)
    calm_runs(work, *MINI)


def evaluations_as_large_as_a_step_round_the_same_after_a_resume(work):
    """50 rows a rank in pretraining and in evaluation: only a process that pretrained has a plan for steps of that size."""
    done, _ = train(work, "kept", *MINI, "checkpoint.keep=20", ranks=2)
    assert done.returncode == 0, done.stderr
    os.makedirs(work.file("resumed") + "/checkpoints")
    shutil.copy(work.file("kept") + "/checkpoints/epoch-0001.h5", work.file("resumed") + "/checkpoints")
    done, _ = train(work, "resumed", *MINI, "checkpoint.keep=20", ranks=2)
    assert done.returncode == 0 and "going on from" in done.stderr, done.stderr
    same(work, "resumed", "calm2")


def run_folders_of_any_name_work_or_are_refused_by_name(work):
    for name in ("with spaces", "quote's \"$HOME\"", "umlaut-\u00e4\u6f22", "x" * 200, "deep/../deeper/run"):
        done, _ = train(work, name, *MINI)
        assert done.returncode == 0, (name, done.stderr)
        same(work, name)
    done, _ = train(work, "x" * 256, *MINI)
    refused(done, 4, "xxx")
    for name in ("y" * 1100, "new\nline"):
        done, _ = train(work, name, *MINI)
        refused(done, 2, "run")
    assert not [n for n in os.listdir(work.path) if n.startswith(("xxx" * 80, "y"))]


def a_folder_that_cannot_be_written_is_refused_and_nothing_is_left(work):
    if not as_root():
        return
    os.mkdir(work.file("fixed"))
    assert subprocess.run(["mount", "--bind", work.file("fixed"), work.file("fixed")]).returncode == 0
    try:
        assert subprocess.run(["mount", "-o", "remount,ro,bind", work.file("fixed")]).returncode == 0
        for ranks in (1, 2):
            done, _ = train(work, "fixed/run", *MINI, ranks=ranks)
            refused(done, 4, "fixed/run", "Read-only")
    finally:
        subprocess.run(["umount", work.file("fixed")], check=True)
    assert not os.listdir(work.file("fixed"))


def a_locale_with_commas_and_odd_thread_settings_change_nothing(work):
    where = work.file("locales")
    os.mkdir(where)
    variables = dict(os.environ)
    if shutil.which("localedef") and subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", where + "/de_DE.UTF-8"],
                                                    capture_output=True).returncode == 0:
        variables.update(LOCPATH=where, LC_ALL="de_DE.UTF-8")
    else:
        print("        (no locale to be made)")
    for number, threads in enumerate(("", "abc", "-3", "64,2")):
        done, _ = train(work, f"locale{number}", *MINI, environment=dict(variables, OMP_NUM_THREADS=threads))
        assert done.returncode == 0, (threads, done.stderr)
        same(work, f"locale{number}")


def ranks_that_see_another_file_under_the_name_are_told(work):
    folders = [work.file("here"), work.file("there")]
    for folder in folders:
        os.mkdir(folder)
        shutil.copy(work.data, folder + "/data.h5")
    import h5py
    with h5py.File(folders[1] + "/data.h5", "r+") as f:
        f["train/images"][5, 3, 3] = 255 - f["train/images"][5, 3, 3]
    words = arguments_of(work, "apart", *MINI)
    words[words.index(f"data.train={work.data}")] = "data.train=data.h5"
    apart = ["sh", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 0 ]; then cd "$0"; else cd "$1"; fi; shift; exec "$@"', *folders]
    for keep in ("host", "stream"):
        done = subprocess.run([os.path.join(SOURCE, "tests", "mpirun.sh"), "2", *apart, PROGRAM, *words, f"data.resident={keep}"],
                              capture_output=True, text=True, timeout=120)
        refused(done, 3, "data.h5", "other pictures", "rank 1 on")
        shutil.rmtree(work.file("apart"), ignore_errors=True)


def a_file_that_may_not_be_read_is_refused(work):
    if not as_root():
        return
    hidden = work.file("hidden.h5")
    shutil.copy(work.data, hidden)
    os.chmod(hidden, 0o600)
    os.chmod(work.path, 0o755)
    done = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", PROGRAM, "data", "info", hidden], capture_output=True, text=True)
    refused(done, 3, "hidden.h5", "Permission denied")
    open(work.file("empty.h5"), "w").close()
    refused(run("data", "info", work.file("empty.h5")), 3, "empty.h5")


def without_any_network_a_single_process_works(work):
    if not as_root():
        return
    done = subprocess.run(["unshare", "-n", PROGRAM, *arguments_of(work, "alone", *MINI)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    same(work, "alone")


def an_interface_that_is_not_there_ends_the_start_in_time(work):
    variables = dict(os.environ, OMPI_MCA_pml="ob1", OMPI_MCA_btl="tcp,self", OMPI_MCA_btl_tcp_if_include="nowhere0", MDM_WATCH_FACTOR="0.1")
    done, _ = train(work, "nowhere", *MINI, ranks=2, environment=variables)
    # where Open MPI itself told mpirun to end all, mpirun keeps its 1
    refused(done, done.returncode if done.returncode in (1, 4) else 4, "cannot start", "doctor")
    nobody_is_left(work, "nowhere")


def an_older_processor_meets_no_instruction_that_it_lacks(work):
    """Vector instructions stand only in kernels that are chosen after a look at the processor; the libraries are told of an old one."""
    chosen = ("mdm_kernels_avx", "mdm_divide_v", "mdm_winograd", "mdm_tiles")
    build = os.path.dirname(PROGRAM)
    rules = open(build + "/build.ninja").read() if os.path.exists(build + "/build.ninja") else ""
    objects = [o for o in glob.glob(build + "/src/**/*.c.o", recursive=True)  # without those of earlier builds
               if os.path.relpath(o, build) in rules and not any(c in o for c in chosen)]
    if objects and os.uname().machine == "x86_64" and shutil.which("objdump"):
        listed = subprocess.run(["objdump", "-d", "--no-show-raw-insn", *objects], capture_output=True, text=True).stdout
        function = ""
        for line in listed.splitlines():
            if line.endswith(">:"):
                function = line.split("<")[1]
            words = line.split("\t")
            if len(words) > 1 and words[1].startswith("v") and not words[1].startswith("ver") and ".avx2" not in function and ".arch_" not in function:
                raise AssertionError(f"{function} {line}")
    else:
        print("        (no objects or no objdump: left out)")
    done = run("eval", work.file("calm1"), env=dict(os.environ, ONEDNN_MAX_CPU_ISA="SSE41", OPENBLAS_CORETYPE="Nehalem"))
    assert done.returncode == 0 and "top-1" in done.stdout, (done.stdout, done.stderr)


def a_run_ends_the_earlier_the_longer_its_saves_take(work):
    """A save that takes longer than a job's last minute: the run stops in time by what it has measured."""
    environment = injected(work, "fsync", 1, "delay", path="/checkpoints", MDM_INJECT_DELAY="3000", MDM_INJECT_TIMES="1000")
    ends = time.time() + 60
    done, ended = train(work, "slow-saves", *MINI, "train.epochs=30", "train.warmup=28",
                        environment=dict(environment, SLURM_JOB_END_TIME=str(int(ends))))
    saves = [e for e in events(work, "slow-saves") if e["event"] == "checkpoint"]
    assert done.returncode == 75 and ended < ends and len(saves) <= 4, (done.returncode, ends - ended, len(saves), done.stderr)


def closed_outputs_do_not_end_the_training(work):
    for number, closed in enumerate(((1,), (2,), (0, 1, 2))):
        name = f"closed{number}"
        shell = "exec \"$@\" " + " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
        done = subprocess.run(["bash", "-c", shell, "bash", PROGRAM, *arguments_of(work, name, *MINI)], timeout=120)
        assert done.returncode == 0, closed
        same(work, name)
        assert error_lines(open(work.file(name) + "/metrics.jsonl").read()) == []
    reader = subprocess.Popen([PROGRAM, *arguments_of(work, "pipe", *MINI)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader.stdout.close()
    reader.stderr.close()
    assert reader.wait(timeout=120) == 0
    same(work, "pipe")


def limited(**limits):
    def apply():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    return apply


def small_limits_are_told_with_their_names_or_do_no_harm(work):
    cases = (({"NOFILE": 20}, 4, "ulimit -n"), ({"STACK": 256 << 10}, 0, None),
             ({"FSIZE": 8192}, 4, "File too large"))
    for number, (limits, code, words) in enumerate(cases):
        name = f"limited{number}"
        done = subprocess.run([PROGRAM, *arguments_of(work, name, *MINI)], capture_output=True, text=True, timeout=120,
                              preexec_fn=limited(**limits))
        if code:
            refused(done, code, words)
        else:
            assert done.returncode == 0, (limits, done.stderr)
            same(work, name)
    assert "could not be saved" in done.stderr and "training" not in error_lines(done.stderr)[0]  # it went on to its end
    for megabytes in (560, 600, 640):  # where it begins to be enough depends on the libraries
        done = subprocess.run([PROGRAM, *arguments_of(work, f"tight{megabytes}", *MINI)], capture_output=True, text=True, timeout=120,
                              preexec_fn=limited(AS=megabytes << 20))
        assert done.returncode in (0, 4, 6) and len(error_lines(done.stderr)) == (done.returncode > 0), (megabytes, done.stderr)
    for ranks in (1, 2):
        for limit, words in (({"NOFILE": 40}, "ulimit -n"), ({"AS": 300 << 20}, "ulimit -v")):
            if ranks == 1 and "NOFILE" in limit:
                continue  # enough for one
            done = subprocess.run(command(ranks, arguments_of(work, "few", *MINI)), capture_output=True, text=True, timeout=120,
                                  preexec_fn=limited(**limit))
            refused(done, 4, words)


def each_allocation(work, name, words, most, accepted):
    """Lets the k-th allocation of the program itself fail, k growing; in the fast suite `most` of them, spread over all."""
    def one(k, action, **more):
        shutil.rmtree(work.file("poor"), ignore_errors=True)
        return subprocess.run([PROGRAM, *words], env=injected(work, "malloc", k, action, **more), capture_output=True, text=True,
                              timeout=120)
    done = one(1, "delay", MDM_INJECT_TIMES="1000000000", MDM_INJECT_DELAY="0")
    assert done.returncode == 0, (name, done.stderr)
    count = os.path.getsize(work.file("hits"))
    tried, codes = range(1, count + 1, 1 if FULL else max(1, count // most)), {}
    for k in tried:
        done = one(k, "errno", MDM_INJECT_ERRNO="ENOMEM")
        lines = error_lines(done.stderr)
        codes[done.returncode] = codes.get(done.returncode, 0) + 1
        assert done.returncode in accepted and len(lines) == (done.returncode != 0), (name, k, done.returncode, done.stderr[-1500:])
        assert done.returncode == 0 or "memory" in lines[0], (name, k, lines)
    print(f"        {name}: {len(tried)} of {count} allocations, exit codes {codes}", flush=True)


def an_allocation_that_fails_ends_in_one_line(work):
    each_allocation(work, "settings", ["train", "--print-config"], 7, (4,))
    each_allocation(work, "info", ["data", "info", work.data], 6, (0, 4))
    each_allocation(work, "noise", ["data", "noise", work.full, work.file("poor.h5"), "--samples", "100", "--force"], 10, (4,))
    each_allocation(work, "eval", ["eval", work.file("calm1")], 16, (0, 4))
    each_allocation(work, "report", ["report", work.file("calm1")], 10, (0, 4))  # parts of a page may be left out, with a warning
    each_allocation(work, "training", arguments_of(work, "poor", *MINI), 20, (0, 4))  # a few are done without


def layouts_whose_memory_runs_out_do_not_crash(work):
    """Allocation by allocation while a network is laid out, where one was written through without a look."""
    for k in range(14, 20):
        done = subprocess.run([PROGRAM, "eval", work.file("calm1")], env=injected(work, "malloc", k, "errno", MDM_INJECT_ERRNO="ENOMEM"),
                              capture_output=True, text=True, timeout=60)
        refused(done, 4, "memory")


if __name__ == "__main__":
    main([prepared, evaluations_as_large_as_a_step_round_the_same_after_a_resume, run_folders_of_any_name_work_or_are_refused_by_name, a_folder_that_cannot_be_written_is_refused_and_nothing_is_left,
          a_locale_with_commas_and_odd_thread_settings_change_nothing, ranks_that_see_another_file_under_the_name_are_told,
          a_file_that_may_not_be_read_is_refused, without_any_network_a_single_process_works,
          an_interface_that_is_not_there_ends_the_start_in_time, an_older_processor_meets_no_instruction_that_it_lacks,
          *([a_run_ends_the_earlier_the_longer_its_saves_take] if FULL else []), closed_outputs_do_not_end_the_training,
          small_limits_are_told_with_their_names_or_do_no_harm, an_allocation_that_fails_ends_in_one_line,
          layouts_whose_memory_runs_out_do_not_crash], halved=True)
