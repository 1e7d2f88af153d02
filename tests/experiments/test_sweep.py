"""Hydra's multirun: a job for each cell of an experiment, under each launcher, and what becomes of failures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.setup.config import CONF, build_cell, compose_config
from experiments.setup.grid import cell_line, read_experiment
from tests.tiny import tiny_overrides

ROOT = Path(__file__).resolve().parents[2]
CELLS = "experiment.cells={resolution: [x4], method: [scalecrafter], scalecrafter.tau: [99, 50]}"  # 99 is no tau
SUBMITIT = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]  # as slurm_gpu, on this machine


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return [*tiny_overrides(pipe_folder, tmp_path), "prompts.limit=3", "metrics.crops=null"]


def run(*arguments):
    command = [sys.executable, "-m", "experiments.run", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "launcher",
    [[], ["hydra/launcher=local_cpu"], pytest.param(SUBMITIT, marks=pytest.mark.slow)],
    ids=["basic", "joblib", "submitit"],
)
def test_each_cell_is_a_job_and_one_that_fails_stops_no_other(tiny, tmp_path, launcher):
    done = run("-m", *tiny, "experiment=ablate_tau", CELLS, *launcher, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "1 of 2 jobs failed, the others are complete: cell=0: tau counts reference steps" in line
    assert build_cell(compose_config([*tiny, "method=scalecrafter", "scalecrafter.tau=50"])).scores_file.is_file()
    assert len(list((tmp_path / "runs").glob("folder-*"))) == 2  # with the samples of training size
    record = json.loads((tmp_path / "sweep/0/failed.json").read_text())
    assert record["overrides"][-1] == "cell=0"
    assert "not 99" in record["error"]
    assert not (tmp_path / "sweep/1/failed.json").exists()


def test_without_an_experiment_combinations_are_swept(tiny, tmp_path):
    done = run("-m", *tiny, "method=direct,upscale", "metrics=none", "seed=0,1")
    assert done.returncode == 0
    assert len(list((tmp_path / "runs").glob("folder-*"))) == 4
    assert [Path(line).parent.name for line in done.stdout.splitlines()] == ["runs"] * 4


def test_a_cell_of_an_experiment_by_its_place(tiny):
    overrides = [*tiny, "experiment=ablate_tau", CELLS.replace("99", "20")]
    lines = read_experiment(overrides).lines
    assert [cell_line([*overrides, f"cell={i}"]) for i in range(2)] == [list(line) for line in lines]
    assert cell_line(tiny) == tiny


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cell=3"], "name it, as experiment=table1"),
        (["experiment=ablate_eta"], "ablate_eta has 6 cells: -m runs each as a job"),
        (["experiment=ablate_eta", "cell=6"], "has cells 0 to 5, not 6"),
        (["experiment=ablate_eta", "cell=-1"], "has cells 0 to 5, not -1"),
        (["experiment=ablate_eta", "cell=first"], "has cells 0 to 5, not first"),
    ],
)
def test_a_cell_that_is_not_there(overrides, message):
    with pytest.raises(ValueError, match=message):
        cell_line(overrides)


def test_launchers_are_as_the_files_say(tmp_path):
    """slurm_gpu needs SLURM to run: what it would ask for is read."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "config", ["hydra/launcher=slurm_gpu", "hydra.launcher.partition=gpu"], return_hydra_config=True
        )
    launcher = config.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.partition, launcher.tasks_per_node) == (1, "gpu", 1)
