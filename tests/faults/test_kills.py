"""kill -9 at random moments of sampling, scoring and drawing tables: the same command ends with the same files."""

import signal
from random import Random

import pytest

from tests.faults.harness import PATIENCE, Experiment, kill_after, outcome

BY_EVENT, BY_TIME = 26, 18  # kills of the long suite


def moments(seed: int, count: int) -> list[float]:
    """As shares of an experiment: a random one in each of ``count`` equal parts."""
    random = Random(seed)
    return [round((index + random.random()) / count, 3) for index in range(count)]


FIRST = [pytest.param(moment, marks=pytest.mark.faults) for moment in moments(1, BY_EVENT)]
FIRST[9] = FIRST[9].values[0]  # while the second run is sampled
THEN = [pytest.param(moment, marks=pytest.mark.faults) for moment in moments(2, BY_TIME)]


def check(experiment, expected, process, record_property):
    record_property("exit code", process.exitcode)
    assert process.exitcode in (0, -signal.SIGKILL)
    experiment.resume()
    assert outcome(experiment) == expected
    assert not list((experiment.folder / "runs").glob("*/quarantine/*"))


@pytest.mark.parametrize("moment", FIRST)
def test_killed_at_a_change_of_a_file(pipe_folder, tmp_path, expected, length, moment, record_property):
    """Before it, so that whatever was to follow is missing."""
    experiment = Experiment(pipe_folder, tmp_path)
    process = experiment.start_counting(1 + int(moment * length.events))
    process.join(PATIENCE)
    check(experiment, expected, process, record_property)


@pytest.mark.parametrize("moment", THEN)
def test_killed_at_a_moment(pipe_folder, tmp_path, expected, length, moment, record_property):
    experiment = Experiment(pipe_folder, tmp_path)
    process = experiment.start()
    kill_after(process, moment * length.seconds)
    check(experiment, expected, process, record_property)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(pipe_folder, tmp_path, expected, length, seed, record_property):
    """Until it comes through."""
    experiment, random = Experiment(pipe_folder, tmp_path), Random(seed)
    for _ in range(4):
        process = experiment.start_counting(random.randint(1, length.events // 2))
        process.join(PATIENCE)
    check(experiment, expected, process, record_property)


@pytest.mark.faults
@pytest.mark.parametrize("count", [2, 3])
def test_processes_at_once(pipe_folder, tmp_path, expected, count):
    """None fails, and every image is sampled once."""
    experiment = Experiment(pipe_folder, tmp_path)
    processes = [experiment.start() for _ in range(count)]
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * count
    assert outcome(experiment) == expected
    for costs in tmp_path.glob("runs/*/costs.jsonl"):
        assert len(costs.read_text().splitlines()) in (1, 3)  # of the base samples, in one batch, and of a run


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_processes_at_once_of_which_one_is_killed(pipe_folder, tmp_path, expected, length, seed, record_property):
    """The other one goes on."""
    experiment = Experiment(pipe_folder, tmp_path)
    killed, other = experiment.start_counting(Random(seed).randint(20, length.events)), experiment.start()
    for process in (killed, other):
        process.join(PATIENCE)
    assert other.exitcode == 0
    check(experiment, expected, killed, record_property)
