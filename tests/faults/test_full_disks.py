"""Disks that are full, read-only or have a quota: one line, and the same files once there is room."""

import os
import resource
import subprocess
from random import Random

import pytest

from tests import commands
from tests.faults.harness import PATIENCE, Experiment, outcome

SIZES = [int(1000 * Random(seed).uniform(20, 900)) for seed in range(8)]  # bytes; the whole experiment takes 1 MB
LIMITS = [60, 300, 700, 3000, 9000]  # bytes of a file


@pytest.fixture
def disk(tmp_path):
    """mount(options): a tmpfs at ``tmp_path / "disk"``, or the same with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(options):
        nonlocal mounted
        remount = f"remount,{options}" if mounted else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", remount, "none", place], capture_output=True, text=True)
        if done.returncode and not mounted:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.faults
@pytest.mark.parametrize("size", SIZES)
def test_a_full_disk(pipe_folder, disk, expected, size, tmp_path):
    err = tmp_path / "err"
    experiment = Experiment(pipe_folder, disk(f"size={size}"))
    process = experiment.start(err=str(err))
    process.join(PATIENCE)
    check_refused(process, err)
    disk("size=64m")
    experiment.resume()
    assert outcome(experiment) == expected


def check_refused(process, err):
    """Exit code 2, no traceback, and a last line that says what is wrong."""
    text = err.read_text(errors="replace")
    assert process.exitcode == 2, text
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith("error: ")


@pytest.mark.faults
def test_a_read_only_disk(whole, disk, expected, tmp_path):
    """A finished experiment on it is refused in one line, since a command writes its logs."""
    experiment = whole.copy(disk("size=64m"))
    next(experiment.folder.glob("runs/*-scalecrafter-*/images/000001.png")).unlink()
    disk("ro")
    err = tmp_path / "err"
    process = experiment.start(err=str(err))
    process.join(PATIENCE)
    check_refused(process, err)
    disk("rw")
    experiment.resume()
    assert outcome(experiment) == expected


def limited(limit, *arguments):
    """`tests.commands.main` where no file may become larger: what a quota does to a write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    commands.main(*arguments)


@pytest.mark.faults
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_of_the_size_of_files(pipe_folder, tmp_path, expected, limit):
    experiment = Experiment(pipe_folder, tmp_path)
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path / "fonts")}
    arguments = (limit, "experiments.reproduce", tuple(experiment.overrides), environment, os.devnull, os.devnull)
    process = commands.CONTEXT.Process(target=limited, args=arguments)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 2
    experiment.resume()
    assert outcome(experiment) == expected
