"""Workers that die, stop or loop, launchers and supervisors that are killed: one line, the right exit code, everybody gone, and the
run goes on to the same weights."""
from faults import *  # noqa: F403
from program import events, main

FAST = {"MDM_WATCH_FACTOR": "0.1"}  # 3 s in steps instead of 30


def undisturbed_runs_to_compare_with(work):
    calm_runs(work, ranks=(1, 2, 3))
    for ranks in (1, 2, 3):
        assert not os.path.exists(work.file(f"calm{ranks}") + "/flight")


def a_worker_that_dies_in_any_stage_is_named_and_the_others_leave(work):
    for number, (action, name, at) in enumerate((("kill", "Killed", 100), ("segv", "Segmentation", 450),
                                                 ("abort", "Aborted", 900))):
        culprit = number % 3
        folder = f"dead-{action}"
        done, ended = train(work, folder, ranks=3, environment=injected(work, "MPI_Allreduce", at, action, rank=culprit))
        assert was_hit(work)
        assert done.returncode == 6, (action, done.returncode, done.stderr)
        one_line_names(done.stderr, culprit, name, "epoch", "last collective")
        took = ended - os.stat(work.file("hits")).st_mtime
        print(f"        {action}: gone after {took:.1f} s", flush=True)
        assert took < 5 + SLACK, took
        nobody_is_left(work, folder)
        told = run("doctor", work.file(folder)).stdout
        assert "the last failure" in told and f"rank {culprit} on" in told and "rank 2 on" in told, told
        whole(work, folder, "calm3", ranks=3)


def a_worker_that_stops_or_loops_is_found_and_named_not_its_victims(work):
    for action, call, at, words in (("stop", "MPI_Allreduce", 350, "stopped"), ("loop", "MPI_Allreduce", 350, "computing"),
                                    ("loop", "MPI_Iallreduce", 15, "computing")):
        folder = f"hung-{action}-{call}"
        done, ended = train(work, folder, ranks=3, environment=injected(work, call, at, action, rank=1, **FAST))
        assert was_hit(work)
        assert done.returncode == 6, (action, done.returncode, done.stderr)
        one_line_names(done.stderr, 1, "no progress", words, "epoch")
        took = ended - os.stat(work.file("hits")).st_mtime
        print(f"        {action}: gone after {took:.1f} s", flush=True)
        assert took < 3 + 5 + SLACK, took
        nobody_is_left(work, folder)
        whole(work, folder, "calm3", ranks=3)


def a_worker_that_stops_where_much_time_is_allowed_is_found_as_soon(work):
    """Reading a data set may take half an hour, here three minutes; being stopped may not."""
    done, ended = train(work, "stopped-early", ranks=2, environment=injected(work, "pread", 5, "stop", rank=1, **FAST))
    assert was_hit(work) and done.returncode == 6, (done.returncode, done.stderr)
    one_line_names(done.stderr, 1, "the worker is stopped", "in open")
    assert ended - os.stat(work.file("hits")).st_mtime < 3 + 5 + SLACK
    nobody_is_left(work, "stopped-early")


def a_rank_that_loops_while_a_data_set_is_read_is_found_soon_and_slow_storage_is_borne(work):
    """Who waits for storage may do so for half an hour, here three minutes; who waits for nothing has a minute, here six seconds."""
    done, ended = train(work, "looping-early", ranks=2, environment=injected(work, "pread", 5, "loop", rank=1, path=work.data, **FAST))
    assert was_hit(work) and done.returncode == 6, (done.returncode, done.stderr)
    one_line_names(done.stderr, 1, "no progress", "computing", "in open")
    took = ended - os.stat(work.file("hits")).st_mtime
    print(f"        a loop while reading: gone after {took:.1f} s", flush=True)
    assert took < 6 + 5 + SLACK, took
    nobody_is_left(work, "looping-early")
    for rank in (0, 1):
        done, _ = train(work, f"slow-storage{rank}", ranks=2, environment=injected(work, "pread", 5, "delay", rank=rank, path=work.data,
                                                                                  MDM_INJECT_DELAY="9000", **FAST))
        assert was_hit(work) and done.returncode == 0, (done.returncode, done.stderr)


def a_rank_frozen_with_its_supervisor_is_named_by_those_that_wait_for_it(work):
    process = start_and_wait_for(work, "frozen", "warmup", ranks=3, environment=dict(os.environ, **FAST))
    culprit = workers_of(work, "frozen")[2]
    parent = dict(processes_of(work, "frozen"))[culprit]
    os.kill(parent, signal.SIGSTOP)
    os.kill(culprit, signal.SIGSTOP)
    _, text = process.communicate(timeout=120)
    lines = error_lines(text)
    assert process.returncode == 6 and len(lines) == 1, (process.returncode, text)
    assert "waiting for other ranks" in lines[0] and "lacks rank 2 (silent)" in lines[0], lines[0]
    nobody_is_left(work, "frozen")
    whole(work, "frozen", "calm3", ranks=3)


def a_rank_that_is_much_slower_than_the_others_is_told_and_changes_nothing(work):
    done, _ = train(work, "slow", ranks=2, environment=injected(work, "MPI_Iallreduce", 9, "delay", rank=1, MDM_INJECT_DELAY="400",
                                                               MDM_INJECT_TIMES="20"))
    assert was_hit(work) and done.returncode == 0 and not error_lines(done.stderr), done.stderr
    told = [e["message"] for e in events(work, "slow") if e["event"] == "warning" and "of the median rank" in e["message"]]
    assert len(told) == 1 and "rank 1 on" in told[0] and "(computing)" in told[0], done.stderr
    slowed = [e for e in events(work, "slow") if e["event"] == "epoch" and e.get("slowest_rank_speed", 1) < 0.75]
    assert len(slowed) >= 2 and {e["slowest_rank"] for e in slowed} == {1}, slowed
    same(work, "slow", "calm2")


def a_rank_that_stops_or_loops_inside_the_start_of_mpi_is_found(work):
    for action, words in (("stop", "stopped"), ("loop", "computing")):
        done, _ = train(work, "early", ranks=3, environment=injected(work, "MPI_Init_thread", 1, action, rank=1,
                                                                    MDM_WATCH_FACTOR="0.05"))
        assert done.returncode == 6, (done.returncode, done.stderr)
        one_line_names(done.stderr, 1, words, "start")
        nobody_is_left(work, "early")


def a_worker_that_dies_in_each_stage_is_named_with_the_stage(work):
    """One after the other, from the start of MPI to its end; after the results are there the next start has nothing left to do."""
    large = work.data
    small_data(work)
    try:
        done, _ = train(work, "calm-mini", *MINI, ranks=2)
        assert done.returncode == 0, done.stderr
        train(work, "counted", *MINI, ranks=2, environment=injected(work, "MPI_Allreduce", 1, "delay", rank=1,
                                                                   MDM_INJECT_TIMES="1000000000", MDM_INJECT_DELAY="0"))
        calls = os.path.getsize(work.file("hits"))
        for call, at, stage in (("MPI_Init_thread", 1, "start"), ("pread", 5, "open"), ("MPI_Allreduce", calls // 10, "pretrain epoch 1"),
                                ("MPI_Allreduce", 3 * calls // 10, "warmup epoch 1"), ("MPI_Allreduce", 11 * calls // 20, "divide epoch 2"),
                                ("MPI_Allreduce", 13 * calls // 20, "semi epoch 2"), ("MPI_Allreduce", calls, "results"),
                                ("MPI_Finalize", 1, "results")):
            name = "dead-in-" + stage.split()[0]
            done, _ = train(work, name, *MINI, ranks=2, environment=injected(work, call, at, "kill", rank=1))
            assert was_hit(work) and done.returncode == 6, (stage, done.returncode, done.stderr)
            one_line_names(done.stderr, 1, "Killed", f"in {stage}")
            nobody_is_left(work, name)
        same(work, "dead-in-results", "calm-mini")
        done, _ = train(work, "dead-in-results", *MINI, ranks=2)
        assert done.returncode == 0 and not error_lines(done.stderr), done.stderr
        same(work, "dead-in-results", "calm-mini")
    finally:
        work.data = large


def a_rank_that_leaves_out_a_collective_ends_the_run(work):
    """It is one call ahead of the others from there on, and its next call of another kind does not fit theirs."""
    done, _ = train(work, "astray", ranks=3, environment=injected(work, "MPI_Allreduce", 300, "skip", rank=2, **FAST))
    assert was_hit(work) and done.returncode in (5, 6) and len(error_lines(done.stderr)) == 1, (done.returncode, done.stderr)
    nobody_is_left(work, "astray")
    whole(work, "astray", "calm3", ranks=3)


def a_second_ctrl_c_ends_the_run_at_once(work):
    """The first one waits for a save that takes a minute."""
    process = start_and_wait_for(work, "impatient", "pretrain", environment=injected(
        work, "fsync", 1, "delay", path="/checkpoints", MDM_INJECT_DELAY="60000", MDM_INJECT_TIMES="1000"))
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, process.communicate()[1]
    asked = time.time()
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 130 and time.time() - asked < 5 + SLACK, (process.returncode, time.time() - asked, text)
    assert not error_lines(text), text
    whole(work, "impatient", "calm1")


def alone_a_dead_worker_is_told_as_well(work):
    process = start_and_wait_for(work, "alone", "warmup")
    os.kill(workers_of(work, "alone")[0], signal.SIGKILL)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 6, text
    one_line_names(text, 0, "Killed")
    whole(work, "alone", "calm1")


def a_killed_launcher_leaves_nobody_behind(work):
    process = start_and_wait_for(work, "orphans", "warmup", ranks=2)
    assert len(processes_of(work, "orphans")) == 4
    process.kill()
    process.communicate(timeout=60)
    nobody_is_left(work, "orphans", within=1)
    whole(work, "orphans", "calm2", ranks=2)


def a_killed_supervisor_takes_its_worker_along(work):
    process = start_and_wait_for(work, "beheaded", "warmup", ranks=2)
    os.kill(dict(processes_of(work, "beheaded"))[workers_of(work, "beheaded")[1]], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 137
    nobody_is_left(work, "beheaded")
    whole(work, "beheaded", "calm2", ranks=2)


def alone_a_killed_supervisor_takes_its_worker_along(work):
    """Where no launcher or MPI would end it; the run itself would take minutes."""
    process = start_and_wait_for(work, "orphan", "warmup", "train.epochs=2000", "train.warmup=1999")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    nobody_is_left(work, "orphan", within=1)


def a_run_that_is_suspended_as_a_whole_goes_on_without_an_alarm(work):
    process = start_and_wait_for(work, "suspended", "pretrain", ranks=2, environment=dict(os.environ, **FAST))
    members = [p for p, _ in processes_of(work, "suspended")]
    for p in members:
        os.kill(p, signal.SIGSTOP)
    time.sleep(8)
    for p in members:
        os.kill(p, signal.SIGCONT)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    whole(work, "suspended", "calm2", ranks=2)


def signals_to_the_launcher_or_to_one_process_stop_all_ranks_with_75(work):
    for target, sent in (("launcher", signal.SIGUSR1), ("supervisor", signal.SIGTERM), ("worker", signal.SIGUSR1),
                         ("supervisor", signal.SIGINT)):
        name = f"told-{target}-{sent.name}"
        process = start_and_wait_for(work, name, "pretrain", ranks=2)
        worker = workers_of(work, name)[1]
        os.kill({"launcher": process.pid, "worker": worker, "supervisor": dict(processes_of(work, name))[worker]}[target], sent)
        _, text = process.communicate(timeout=60)
        assert process.returncode == 75, (name, process.returncode, text)
        nobody_is_left(work, name)
        whole(work, name, "calm2", ranks=2)


def a_signal_before_the_run_has_begun_ends_it_with_75_and_one_line(work):
    process = subprocess.Popen(command(1, arguments_of(work, "young")), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 30
    while not workers_of(work, "young") and time.time() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75, (process.returncode, text)
    assert len(error_lines(text)) == 1 and "stopped by a signal" in error_lines(text)[0], text
    whole(work, "young", "calm1")


def eight_ranks_on_few_cores_give_no_alarm(work):
    done, _ = train(work, "crowd", ranks=8)
    assert done.returncode == 0 and not error_lines(done.stderr), done.stderr


if __name__ == "__main__":
    main([undisturbed_runs_to_compare_with, a_worker_that_dies_in_any_stage_is_named_and_the_others_leave,
          a_worker_that_stops_or_loops_is_found_and_named_not_its_victims,
          a_worker_that_stops_where_much_time_is_allowed_is_found_as_soon,
          a_rank_that_loops_while_a_data_set_is_read_is_found_soon_and_slow_storage_is_borne,
          a_rank_frozen_with_its_supervisor_is_named_by_those_that_wait_for_it,
          a_rank_that_is_much_slower_than_the_others_is_told_and_changes_nothing,
          a_rank_that_stops_or_loops_inside_the_start_of_mpi_is_found, a_worker_that_dies_in_each_stage_is_named_with_the_stage,
          a_rank_that_leaves_out_a_collective_ends_the_run, a_second_ctrl_c_ends_the_run_at_once, alone_a_dead_worker_is_told_as_well,
          a_killed_launcher_leaves_nobody_behind, a_killed_supervisor_takes_its_worker_along,
          alone_a_killed_supervisor_takes_its_worker_along,
          a_run_that_is_suspended_as_a_whole_goes_on_without_an_alarm,
          signals_to_the_launcher_or_to_one_process_stop_all_ranks_with_75,
          a_signal_before_the_run_has_begun_ends_it_with_75_and_one_line, eight_ranks_on_few_cores_give_no_alarm], halved=True)
