"""Tables from run folders alone: with no weights at hand, and whatever has been scored since."""

import json
import shutil

import pandas as pd
import pytest

from experiments.results.score_table import read_scores, rebuild
from experiments.run import run_cell
from experiments.setup import models
from experiments.setup.architecture import load_architecture
from experiments.setup.config import build_cell, compose_config
from experiments.setup.grid import read_experiment
from tests.tiny import tiny_overrides

CELLS = "experiment.cells={resolution: [x4], method: [direct, upscale, scalecrafter]}"


@pytest.fixture
def runs(pipe_folder, finished, tmp_path):
    """Overrides of the finished table with two of three cells, in copied runs, where the model has only its shape."""
    shape = tmp_path / "shape"
    shutil.copytree(pipe_folder, shape, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer"))
    shutil.copytree(finished / "runs", tmp_path / "runs")
    for folder in (tmp_path / "runs").glob("folder-upscale-64x64-*"):
        shutil.rmtree(folder)
    return [*tiny_overrides(shape, tmp_path), CELLS]


def test_a_table_is_made_without_weights_of_whatever_is_finished(runs, tmp_path, finished, capsys):
    rebuild(runs)
    printed = capsys.readouterr().out
    assert "1 of 3 cells are not finished" in printed
    assert "no run of upscale at x4" in printed
    made, before = (pd.read_csv(folder / "results/table1.csv") for folder in (tmp_path, finished))
    expected = before[(before["resolution"] == "x4") & (before["method"] != "upscale")].reset_index(drop=True)
    alike = [name for name in before if not name.endswith("_best")]  # who is best depends on who is there
    pd.testing.assert_frame_equal(made[alike], expected[alike])
    for suffix in ("md", "tex", "png"):
        assert (tmp_path / f"results/table1.{suffix}").stat().st_size > 200


def test_runs_of_other_weights_are_not_mixed(runs, tmp_path):
    (folder,) = (tmp_path / "runs").glob("folder-direct-64x64-*")
    config = (folder / "config.yaml").read_text()
    sha256 = config.split("sha256: ")[1].split()[0]
    other = shutil.copytree(folder, folder.with_name("folder-direct-64x64-00000000"))
    (other / "config.yaml").write_text(config.replace(sha256, "0" * 64))
    with pytest.raises(ValueError, match="the same cell with other weights or in another precision: folder-direct"):
        rebuild(runs)


def test_nothing_finished_is_an_error_that_says_what_is_missing(runs, tmp_path):
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(ValueError, match=r"table1 has no finished cell: no run of direct at x4"):
        rebuild(runs)
    assert not (tmp_path / "results").exists()


def test_a_run_that_was_scored_otherwise_since_keeps_its_scores(pipe_folder, tmp_path):
    """Of three prompts and of four, with crops and without: all are there, and metrics.json is the last."""
    tiny = [*tiny_overrides(pipe_folder, tmp_path), "method=direct"]
    kinds = [[*tiny, "prompts.limit=4"], [*tiny, "prompts.limit=3"], [*tiny, "prompts.limit=3", "metrics.crops=null"]]
    for overrides in kinds:
        run_cell(overrides)
    cells = [build_cell(compose_config(overrides)) for overrides in kinds]
    assert len({cell.folder for cell in cells}) == 1
    scores = [read_scores(cell.scores_file) for cell in cells]
    assert [(found["n"], "pfid_r" in found) for found in scores] == [(4, True), (3, True), (3, False)]
    assert json.loads((cells[0].folder / "metrics.json").read_text()) == scores[-1]


def test_the_rows_of_a_table_need_no_weights(runs, monkeypatch):
    monkeypatch.setattr(models, "load_folder", None)
    rows = read_experiment(runs).rows(load_architecture)
    assert [row.cell.identity["model"]["sha256"] for row in rows] == [""] * 3
