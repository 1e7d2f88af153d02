"""Tiny pipelines for all tests."""

from functools import cache
from pathlib import Path

import pytest

from experiments.reproduce import reproduce
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
    reproduce([*tiny, "experiment.cells={resolution: [x4, x16], method: [direct, upscale, scalecrafter]}"])
    tau = "experiment.cells={resolution: [x4], method: [scalecrafter], scalecrafter.tau: [0, 25, 50]}"
    reproduce([*tiny, "experiment=ablate_tau", tau])
    return folder
