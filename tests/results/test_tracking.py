"""W&B is a mirror: what is logged, and that no failure of it touches a run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from experiments import reproduce
from experiments.results.tracking import log_run
from experiments.scoring.runs import complete_run
from experiments.setup.compose import compose_config
from experiments.setup.runs import build_run
from tests.tiny import tiny_overrides


@pytest.fixture
def tiny(pipe_folder, tmp_path, monkeypatch):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of whoever runs the tests
    monkeypatch.setattr(sys, "argv", ["test"])
    return [*tiny_overrides(pipe_folder, tmp_path), "metrics.crops=null", "logger=wandb"]


def direct_run(overrides):
    return build_run(compose_config([*overrides, "method=direct"]))


def records(folder: Path, file: Path) -> list[dict]:
    """What W&B's own reader finds in an offline run."""
    out = folder / "inspected.jsonl"
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    out.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_without_a_key_a_run_is_logged_offline(tiny):
    run = direct_run(tiny)
    log_run(run, complete_run(run))
    (file,) = run.runs.glob(".wandb/wandb/offline-run-*/*.wandb")
    text = json.dumps(records(run.runs, file))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert run.digest[:16] in text
    assert "folder@x4" in text
    for key in ("fid_r", "fid_b", "repetition"):
        assert key in text
        assert repr(metrics[key])[:8] in text
    assert len(list(run.runs.glob(".wandb/wandb/offline-run-*/files/media/images/*"))) == 4


def test_an_experiment_groups_its_runs_and_adds_its_table(tiny):
    """The table under an id of its own, with charts and galleries."""
    reproduce.main(["experiment=table1", *tiny, "resolution=x4", "method=direct,upscale"])
    folder = direct_run(tiny).runs
    found = [records(folder, file) for file in sorted(folder.glob(".wandb/wandb/offline-run-*/*.wandb"))]
    runs = [next(record["run"] for record in each if "run" in record) for each in found]
    assert [run["run_group"] for run in runs] == ["table1"] * 3
    assert sorted(run["job_type"] for run in runs) == ["aggregate", "run", "run"]
    assert len({run["run_id"] for run in runs}) == 3
    media = {path.name.split("_0_")[0] for path in folder.glob(".wandb/wandb/offline-run-*/files/media/**/*.*")}
    assert {"table1", "gallery_x4", "zoom_x4", "table1_cost", "table1_repetition", "images"} <= media


def test_a_failure_is_a_warning_and_the_run_is_complete(tiny, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no space\nleft")

    monkeypatch.setattr(wandb, "init", broken)
    run = direct_run(tiny)
    scores = complete_run(run)
    with pytest.warns(UserWarning, match="not logged to W&B: no space left; the files are complete"):
        log_run(run, scores)


def test_without_the_logger_nothing_is_imported_or_written(tiny, monkeypatch):
    monkeypatch.setattr(wandb, "init", None)
    run = direct_run([*tiny, "logger=none"])
    log_run(run, complete_run(run))
    assert not list(run.runs.glob(".wandb"))


def test_the_logger_is_not_part_of_the_identity(tiny):
    assert direct_run(tiny).digest == direct_run([*tiny, "logger=none"]).digest
