"""Tiny pipelines for all tests."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from experiments.results.artefacts import write_images, write_table
from experiments.results.score_table import collect
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
        ["experiment=table1", "method=direct,upscale,scalecrafter"],
        ["experiment=ablate_tau", "resolution=x4", "scalecrafter.tau=0,50"],
    ):
        grid = read_grid([*options, *tiny])
        rows = grid.runs_of_rows()
        for row in rows:
            complete_run(row.run)
        table = collect(rows)
        write_table(table, grid.results, grid.name)
        write_images(grid.name, table, grid.plot, grid.runs, grid.results)
    return folder


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the true format with random weights, made by the library's own class."""
    torch.manual_seed(0)
    library = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    original = torch.load
    torch.load = lambda *args, **kwargs: library.state_dict()  # as built, before anything is loaded
    try:
        library.__init__("inception", ["2048"], feature_extractor_weights_path="any")
    finally:
        torch.load = original
    state = library.state_dict()
    for value in state.values():
        if value.is_floating_point() and value.ndim == 4:
            torch.nn.init.kaiming_normal_(value)
    torch.save(state, path)
    return path
