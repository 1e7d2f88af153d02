"""W&B is a mirror: what is logged, and that no failure of it touches a run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from experiments.reproduce import reproduce
from experiments.run import run_cell
from experiments.setup.config import build_cell, compose_config


@pytest.fixture
def tiny(pipe_folder, tmp_path, monkeypatch):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of whoever runs the tests
    overrides = ["model=folder", f"model.path={pipe_folder}", "prompts.limit=4", "sampler.steps=2", "method=direct"]
    overrides += ["metrics.reference_count=12", "metrics.crops=null", f"paths.runs={tmp_path / 'runs'}"]
    return [*overrides, "logger=wandb"]


def records(folder: Path, file: Path) -> list[dict]:
    """What W&B's own reader finds in an offline run."""
    out = folder / "inspected.jsonl"
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    out.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_without_a_key_a_run_is_logged_offline(tiny):
    folder = run_cell(tiny)
    cell = build_cell(compose_config(tiny))
    (file,) = cell.runs.glob(".wandb/wandb/offline-run-*/*.wandb")
    text = json.dumps(records(cell.runs, file))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert cell.digest[:16] in text
    assert "folder@x4" in text
    for key in ("fid_r", "fid_b", "repetition"):
        assert key in text
        assert repr(metrics[key])[:8] in text
    assert len(list(cell.runs.glob(".wandb/wandb/offline-run-*/files/media/images/*"))) == 4


def test_an_experiment_groups_its_cells_and_adds_its_table(tiny):
    """The table under an id of its own, with charts and galleries."""
    reproduce([*tiny, "experiment.cells={resolution: [x4], method: [direct, upscale]}"])
    cell = build_cell(compose_config(tiny))
    found = [records(cell.runs, file) for file in sorted(cell.runs.glob(".wandb/wandb/offline-run-*/*.wandb"))]
    runs = [next(record["run"] for record in each if "run" in record) for each in found]
    assert [run["run_group"] for run in runs] == ["table1"] * 3
    assert sorted(run["job_type"] for run in runs) == ["aggregate", "cell", "cell"]
    assert len({run["run_id"] for run in runs}) == 3
    media = {path.name.split("_0_")[0] for path in cell.runs.glob(".wandb/wandb/offline-run-*/files/media/**/*.*")}
    assert {"table1", "gallery_x4", "zoom_x4", "table1_cost", "table1_repetition", "pictures"} <= media


def test_a_failure_is_a_warning_and_the_run_is_complete(tiny, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no space\nleft")

    monkeypatch.setattr(wandb, "init", broken)
    with pytest.warns(UserWarning, match="not logged to W&B: no space left; the files are complete"):
        folder = run_cell(tiny)
    assert (folder / "metrics.json").is_file()


def test_without_the_logger_nothing_is_imported_or_written(tiny, monkeypatch):
    monkeypatch.setattr(wandb, "init", None)
    folder = run_cell([*tiny, "logger=none"])
    assert not list(folder.parent.glob(".wandb"))


def test_the_logger_does_not_change_the_identity(tiny):
    assert build_cell(compose_config(tiny)).digest == build_cell(compose_config([*tiny, "logger=none"])).digest
