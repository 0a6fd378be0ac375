"""Files with the structural damages that HDF5's published CVEs are about, each planted into a sound data set: exit code 3 and one line
that names the file, soon, in little memory, with nobody left; the process that looks through the file may die, the program may not.

The CVE numbers tell which kind of damage it is; the published files themselves are not here. MDM_CVE_FILES may name a folder of them
(`cvefiles` of HDFGroup/cve_hdf5): then each is looked at too."""
import os
import resource
import time

import hdf5_damages_indexes  # noqa: F401 (it fills the list)
import hdf5_damages_objects  # noqa: F401 (too)
from hdf5_damages import DAMAGES, NEW, OLD, make
from program import PROGRAM, main, run, train

BOUND, SLACK = 5, 25  # seconds; what a busy machine may add
MEMORY = 540  # MiB that any process of a look may have had


def processes_on(path):
    """The processes of the program that were given the file."""
    found = []
    for name in os.listdir("/proc"):
        try:
            words = open(f"/proc/{name}/cmdline", "rb").read() if name.isdigit() else b""
            if path.encode() in words and os.readlink(f"/proc/{name}/exe") == os.path.realpath(PROGRAM):
                found.append(int(name))
        except OSError:
            continue
    return found


def largest():
    """MiB of the largest process so far, of those that have ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def ends_well(path, what, code, done, took):
    """The list of what is wrong with an end."""
    lines, name = done.stderr.strip().splitlines(), os.path.basename(path)
    errors = [line for line in lines if line.startswith("error")]
    wrong = []
    if done.returncode != code:
        wrong.append(f"exit code {done.returncode} instead of {code}")
    if code == 3 and (len(errors) != 1 or name not in errors[0]):
        wrong.append("not one line that names the file")
    if took > BOUND + SLACK:
        wrong.append(f"{took:.1f} s")
    if processes_on(path):
        wrong.append("a process is left")
    return [f"{what}: {', '.join(wrong)}: {done.stderr.strip()[-300:]}"] if wrong else []


def plant_all(work, damages, look):
    wrong = []
    for plant, form, of, code, _ in damages:
        planted = make(work.file("sound.h5"), form, of)
        sound = bytes(planted.bytes)
        plant(planted)
        assert planted.bytes != sound, f"{plant.__name__} ({form}) changes nothing"
        path = work.file(f"{plant.__name__}-{form}.h5")
        with open(path, "wb") as f:
            f.write(planted.sealed())
        wrong += look(path, f"{plant.__name__} ({form})", code)
        os.remove(path)
    assert not wrong, "\n" + "\n".join(wrong)


def sound_files_are_read(work):
    """Also with their checksums computed anew: or the damages would be told by these alone."""
    for form in (OLD, NEW):
        for of, code in ((None, 0), ("chunked", 0), ("packed", 0), ("summed", 0), ("large", 0), ("external", 3), ("virtual", 3), ("scaled", 3), ("linked", 3)):
            path = work.file(f"sound-{form}-{of}.h5")
            content = make(path, form, of).sealed()
            with open(path, "rb") as f:
                assert f.read() == content, f"{path}: other checksums"
            for command in ("info", "verify"):
                done = run("data", command, path)
                assert done.returncode == code, (path, done.returncode, done.stderr)
    print(f"        the largest process: {largest():.0f} MiB", flush=True)


def damages_are_told_in_one_line(work):
    """Or are none: then the file has the same labels, names and pictures as the sound one (their mean is computed here)."""
    def look(path, what, code):
        begin = time.monotonic()
        done = run("data", "info", "--json", path, errors="replace")
        wrong = ends_well(path, what, code, done, time.monotonic() - begin)
        if code == 0 and done.stdout.replace(path, "") != run("data", "info", "--json", work.file("sound.h5")).stdout.replace(
                work.file("sound.h5"), ""):
            wrong.append(f"{what}: read as {done.stdout}")
        return wrong + ([f"{what}: {largest():.0f} MiB"] if largest() > MEMORY else [])
    plant_all(work, [d for d in DAMAGES if d[2] != "large"], look)


def damages_end_a_training_of_two_ranks_with_the_same_line(work):
    def look(path, what, code):
        begin = time.monotonic()
        done = train(work, "damaged", f"data.train={path}", ranks=2)
        return ends_well(path, what, 3, done, time.monotonic() - begin)
    plant_all(work, [d for d in DAMAGES if d[4]], look)


def damages_of_large_sets_are_told_when_they_are_read(work):
    """Their chunks are not looked through before, and HDF5 is not asked to unpack them."""
    def look(path, what, code):
        begin = time.monotonic()
        done = run("data", "verify", path)
        return ends_well(path, what, code, done, time.monotonic() - begin)
    plant_all(work, [d for d in DAMAGES if d[2] == "large"], look)


def published_files_are_told_in_one_line(work):
    folder = os.environ.get("MDM_CVE_FILES")
    wrong, names = [], sorted(n for n in os.listdir(folder) if not n.endswith(".md")) if folder else []
    for name in names:
        begin = time.monotonic()
        done = run("data", "info", os.path.join(folder, name), errors="replace")
        wrong += ends_well(os.path.join(folder, name), name, 3, done, time.monotonic() - begin)
    print(f"        {len(names)} files", flush=True)
    assert not wrong, "\n" + "\n".join(wrong)


if __name__ == "__main__":
    print(f"{len(DAMAGES)} damages, {len({plant for plant, *_ in DAMAGES})} kinds", flush=True)
    main([sound_files_are_read, damages_are_told_in_one_line, damages_of_large_sets_are_told_when_they_are_read,
          damages_end_a_training_of_two_ranks_with_the_same_line, published_files_are_told_in_one_line])
