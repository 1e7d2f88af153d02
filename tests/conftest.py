"""Tiny pipelines for all tests."""

from functools import cache
from pathlib import Path

import pytest

from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline


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
