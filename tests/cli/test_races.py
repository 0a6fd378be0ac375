"""ThreadSanitizer reports nothing of whole trainings on the emulated device (tests/device/emulated_races.h); a report is a failure."""
from program import main
from test_emulated_device import FAKE_NCCL, make_pictures, train

SHORT = ["train.batch=8", "divide.threshold=0.1"]  # steps that are replayed, of both kinds of samples


def a_training_on_one_device_has_no_race(work):
    make_pictures(work.file("tiny.h5"), 60, 16, 8, 3)
    done = train(work, "alone", "tiny.h5", *SHORT, "data.resident=stream")
    assert done.returncode == 0, done.stderr


def a_training_on_two_devices_has_no_race(work):
    make_pictures(work.file("tiny.h5"), 60, 16, 8, 3)
    done = train(work, "both", "tiny.h5", *SHORT, ranks=2, variables=FAKE_NCCL)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    main([a_training_on_one_device_has_no_race, a_training_on_two_devices_has_no_race])
