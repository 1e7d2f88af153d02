"""Tiny pipelines for all tests."""

from functools import cache
from pathlib import Path

import pytest

from experiments.results.artefacts import write_images, write_table
from experiments.results.reading import run_rows
from experiments.results.score_table import collect
from experiments.scoring.libraries import random_inception
from experiments.scoring.runs import complete_run
from experiments.setup.grid import read_grid
from tests.tiny import tiny_overrides, tiny_pipeline, tiny_sdxl_pipeline


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Hashes of weight files go into a folder of the test session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def pipe(tmp_path):
    """A fresh tiny StableDiffusionPipeline."""
    return tiny_pipeline(tmp_path / "tokenizer")


@pytest.fixture(scope="session")
def save_pipeline(tmp_path_factory):
    """save_pipeline(family) -> folder of a tiny pipeline of that family; not to be changed."""

    @cache
    def save(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        if family == "sdxl":
            made = tiny_sdxl_pipeline(folder / "tokenizer_source")
        else:
            made = tiny_pipeline(folder / "tokenizer_source", family)
        made.save_pretrained(folder / "pipeline")
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
    for options in (
        ["experiment=table1", "resolution=x4,x16", "method=direct,upscale,scalecrafter"],
        ["experiment=ablate_tau", "resolution=x4", "scalecrafter.tau=0,50"],
    ):
        grid = read_grid([*options, *tiny])
        rows = run_rows(grid)
        for row in rows:
            complete_run(row.run)
        table = collect(rows)
        write_table(table, grid.results, grid.name)
        write_images(grid.name, table, grid.plot, grid.runs, grid.results)
    return folder


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the true format with random weights."""
    return random_inception(tmp_path_factory.mktemp("inception") / "inception.pth")
