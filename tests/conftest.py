"""Tiny pipelines for all tests."""

from functools import cache
from pathlib import Path

import pytest

from experiments.config import build_cell, compose_config
from experiments.plots import draw_pictures
from experiments.reproduce import read_experiment
from experiments.run import draw_cell
from experiments.score import score_cell
from experiments.table import collect, write_table
from tests.tiny import tiny_overrides, tiny_pipeline


@pytest.fixture
def pipe(tmp_path):
    """A fresh tiny StableDiffusionPipeline."""
    return tiny_pipeline(tmp_path / "tokenizer")


@pytest.fixture(scope="session")
def save_pipeline(tmp_path_factory):
    """save_pipeline(family) -> folder of a tiny StableDiffusionPipeline of that family; not to be changed."""

    @cache
    def save(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        tiny_pipeline(folder / "tokenizer_source", family).save_pretrained(folder / "pipeline")
        return folder / "pipeline"

    return save


@pytest.fixture(scope="session")
def pipe_folder(save_pipeline):
    """A tiny StableDiffusionPipeline saved to disk; not to be changed."""
    return save_pipeline("tiny")


@pytest.fixture(scope="session")
def finished(pipe_folder, tmp_path_factory):
    """A folder with ``runs`` and ``results`` of two small experiments, table1 and ablate_tau; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    tiny = tiny_overrides(pipe_folder, folder)
    base = build_cell(compose_config([*tiny, "method=direct", "resolution=x1"]))
    draw_cell(base)
    for options in (
        ["experiment.cells={resolution: [x4, x16], method: [direct, upscale, scalecrafter]}"],
        ["experiment=ablate_tau", "experiment.cells={resolution: [x4], scalecrafter.tau: [0, 50]}"],
    ):
        experiment = read_experiment([*tiny, *options])
        rows = experiment.rows()
        for row in rows:
            draw_cell(row.cell)
            score_cell(row.cell, base.folder)
        table = collect(rows)
        write_table(table, experiment.results, experiment.name)
        draw_pictures(experiment.name, table, experiment.plot, experiment.runs, experiment.results)
    return folder
