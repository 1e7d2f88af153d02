"""Studios with tiny pipelines, whose training size is 32x32, in two steps."""

import os
from contextlib import closing

import pytest

from experiments.demo.studio import Studio

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


@pytest.fixture(scope="module", autouse=True)
def convolutions(own_convolutions):
    """The pipelines are tiny."""


@pytest.fixture(scope="session")
def small(light_folder):
    """Overrides for a tiny pipeline that has Stable Diffusion 1.5's settings, and less work for other methods."""
    return (
        "model=folder",
        f"model.path={light_folder}",
        "model.steps=2",
        "model.window_stride=8",
        "model.distance={_target_: experiments.scenes.scene_features.SceneDistance}",
    )


@pytest.fixture
def studio(small):
    with closing(Studio(small)) as studio:
        yield studio
