"""Tiny pipelines for all tests."""

import pytest

from tests.tiny import tiny_pipeline


@pytest.fixture
def pipe(tmp_path):
    """A fresh tiny StableDiffusionPipeline."""
    return tiny_pipeline(tmp_path / "tokenizer")


@pytest.fixture(scope="session")
def pipe_folder(tmp_path_factory):
    """A tiny StableDiffusionPipeline saved to disk; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline(folder / "tokenizer_source").save_pretrained(folder / "pipeline")
    return folder / "pipeline"
