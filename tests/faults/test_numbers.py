"""Numbers that go bad: a step, a streak of steps, a replica; and runs that die at the same place again and again."""
import h5py
from faults import *  # noqa: F403
from program import events, main


def undisturbed_runs_to_compare_with(work):
    calm_runs(work, ranks=(2, 3))


def one_step_without_finite_numbers_is_skipped_on_all_ranks(work):
    for at in (3, 20, 52):  # in pretraining, warm-up and the semi-supervised phase
        name = f"skip{at}"
        done, _ = train(work, name, ranks=2, environment=injected(work, "MPI_Iallreduce", at, "nan", rank=1))
        assert was_hit(work) and done.returncode == 0, (at, done.returncode, done.stderr)
        assert done.stderr.count("the step is skipped (1 so far") == 1, done.stderr
        assert read(work, name, "metrics.jsonl").count(b"the step is skipped") == 1
        assert b"nan" not in read(work, name, "metrics.jsonl").lower().replace(b"not finite", b"")
        losses = [e["loss"] for e in events(work, name) if e["event"] == "epoch" and "loss" in e]
        calm = [e["loss"] for e in events(work, "calm2") if e["event"] == "epoch" and "loss" in e]
        assert len(losses) == len(calm) and losses[-1] < 2 * calm[-1], (losses, calm)


def a_spike_is_skipped_on_all_ranks_at_most_once_a_pass_of_few_steps(work):
    """The gradient is a million times too large in one step of the last pass of 40, then in four."""
    settings = ["train.batch=10", "train.epochs=2", "pretrain.epochs=0", "train.warmup=2"]
    done, _ = train(work, "smooth", *settings, ranks=2)
    assert done.returncode == 0 and "skipped" not in done.stderr, done.stderr
    done, _ = train(work, "counted", *settings, ranks=2, environment=injected(
        work, "MPI_Iallreduce", 1, "delay", rank=1, MDM_INJECT_TIMES="1000000", MDM_INJECT_DELAY="0"))
    calls = os.path.getsize(work.file("hits"))
    done, _ = train(work, "spiked", *settings, ranks=2,
                    environment=injected(work, "MPI_Iallreduce", calls - 8, "large", rank=1))
    assert was_hit(work) and done.returncode == 0, done.stderr
    assert done.stderr.count("the step is skipped (spike 1 so far") == 1 and "10 times the largest" in done.stderr, done.stderr
    assert read(work, "spiked", "metrics.jsonl").count(b"the step is skipped") == 1
    losses, smooth = ([e["loss"] for e in events(work, name) if e["event"] == "epoch" and "loss" in e] for name in ("spiked", "smooth"))
    assert losses[:-1] == smooth[:-1] and losses[-1] < 1.5 * smooth[-1], (losses, smooth)
    done, _ = train(work, "spikes", *settings, ranks=2, environment=injected(
        work, "MPI_Iallreduce", calls - 8, "large", rank=1, MDM_INJECT_TIMES="4"))
    assert done.stderr.count("the step is skipped (spike") == 1, done.stderr  # the next ones count as what is usual now


def predictions_of_one_class_alone_are_told(work):
    done, _ = train(work, "collapsed", "train.lr_backbone=0.01", "train.lr_head=20", "pretrain.epochs=0", "train.warmup=1", "train.epochs=1", "train.rce_weight=0")
    assert done.returncode == 0 and done.stderr.count("are taken for class") == 1, done.stderr


def a_streak_of_bad_steps_goes_back_once_with_half_the_rates(work):
    done, _ = train(work, "streak", ranks=2, environment=injected(work, "MPI_Iallreduce", 14, "nan", rank=1, MDM_INJECT_TIMES="8"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("half the learning rates") == 1 and done.stderr.count("the step is skipped") == 8, done.stderr
    positions = [e["position"] for e in events(work, "streak") if e["event"] == "checkpoint"]
    assert positions == sorted(set(positions)), positions  # metrics were cut back to the checkpoint


def a_second_streak_ends_the_run_with_5_and_the_finite_checkpoint_stands(work):
    done, _ = train(work, "hopeless", ranks=2,
                    environment=injected(work, "MPI_Iallreduce", 14, "nan", rank=0, MDM_INJECT_TIMES="100000"))
    lines = error_lines(done.stderr)
    assert done.returncode == 5 and len(lines) == 1, (done.returncode, done.stderr)
    assert "8 steps in a row" in lines[0] and "warmup epoch 1" in lines[0] and "first in " in lines[0], lines
    assert done.stderr.count("half the learning rates") == 1
    nobody_is_left(work, "hopeless")
    whole(work, "hopeless", "calm2", ranks=2)


def a_streak_goes_back_to_no_checkpoint_of_what_was_before(work):
    """A run that goes on from an older state has none of its own at first: its folder's newest one is not where it came from."""
    done, _ = train(work, "older", "checkpoint.keep=99", ranks=2)
    assert done.returncode == 0, done.stderr
    older = work.file("older") + "/checkpoints/epoch-0001.h5"
    done, _ = train(work, "older", "checkpoint.keep=99", f"resume={older}", ranks=2,
                    environment=injected(work, "MPI_Iallreduce", 1, "nan", rank=1, MDM_INJECT_TIMES="8"))
    assert was_hit(work) and done.returncode == 5 and "going on from there" not in done.stderr, (done.returncode, done.stderr)


def networks_without_finite_answers_are_right_about_nothing(work):
    """One step of each network at the greatest rates: the weights are finite, what they make of pictures is not."""
    data = work.file("noisy.h5")
    with h5py.File(data, "r") as f:
        samples = len(f["train/labels"])
    for ranks, epochs in ((1, 1), (2, 2)):
        done, _ = train(work, f"lost{ranks}", "train.lr_backbone=100", "train.lr_head=100", "train.rce_weight=1000", "pretrain.epochs=0",
                        "train.warmup=1", f"train.epochs={epochs}", f"train.batch={samples}", ranks=ranks)
        lines = error_lines(done.stderr)
        assert done.returncode == 5 and len(lines) == 1 and "diverged" in lines[0], (done.returncode, done.stderr)
        assert done.stderr.count("get no finite numbers and count as wrong") == 1, done.stderr
        accuracies = [e["test_top1"] for e in events(work, f"lost{ranks}") if "test_top1" in e]
        assert accuracies == [0], accuracies  # a division ends the second run
        assert not os.path.exists(work.file(f"lost{ranks}") + "/summary.json")


def rates_that_are_far_too_large_end_with_5(work):
    done, _ = train(work, "burst", "train.lr_backbone=1e2", "train.lr_head=1e2", "train.momentum=0.999", "train.epochs=12",
                    "train.warmup=11", ranks=2)
    lines = error_lines(done.stderr)
    assert done.returncode == 5 and len(lines) == 1 and "lr_backbone" in lines[0], (done.returncode, done.stderr)


def a_replica_with_a_wrong_bit_is_found_before_anything_is_saved(work):
    for ranks, culprit, words in ((3, 2, "rank 2 differ"), (3, 0, "rank 0 differ"), (2, 1, "of the ranks differ")):
        name = f"flip{ranks}{culprit}"
        done, _ = train(work, name, ranks=ranks, environment=injected(work, "MPI_Iallreduce", 16, "flip", rank=culprit))
        assert was_hit(work)
        lines = error_lines(done.stderr)
        assert done.returncode == 5 and len(lines) == 1 and words in lines[0], (done.returncode, done.stderr)
        nobody_is_left(work, name)
        whole(work, name, f"calm{ranks}", ranks=ranks)


def three_starts_without_progress_are_enough(work):
    for start in range(4):  # the first one leaves a checkpoint
        done, _ = train(work, "again", ranks=2, environment=injected(work, "MPI_Iallreduce", 11, "kill", rank=1))
        assert done.returncode == 6 and was_hit(work), (start, done.returncode, done.stderr)
    done, _ = train(work, "again", ranks=2)
    lines = error_lines(done.stderr)
    assert done.returncode == 6 and len(lines) == 1 and "3 starts" in lines[0], (done.returncode, done.stderr)
    os.remove(work.file("again") + "/restarts.json")
    whole(work, "again", "calm2", ranks=2)
    assert not os.path.exists(work.file("again") + "/restarts.json")


if __name__ == "__main__":
    main([undisturbed_runs_to_compare_with, one_step_without_finite_numbers_is_skipped_on_all_ranks,
          a_spike_is_skipped_on_all_ranks_at_most_once_a_pass_of_few_steps, predictions_of_one_class_alone_are_told,
          a_streak_of_bad_steps_goes_back_once_with_half_the_rates,
          a_second_streak_ends_the_run_with_5_and_the_finite_checkpoint_stands,
          a_streak_goes_back_to_no_checkpoint_of_what_was_before, networks_without_finite_answers_are_right_about_nothing,
          rates_that_are_far_too_large_end_with_5,
          a_replica_with_a_wrong_bit_is_found_before_anything_is_saved, three_starts_without_progress_are_enough], halved=True)
