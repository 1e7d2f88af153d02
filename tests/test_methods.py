"""The contract that every method keeps, whatever it does: one row for each file in conf/method/."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from experiments.config import CONF, compose_config
from scalecrafter import Request, Sampler

# Name of the method -> overrides with which it acts on the tiny pipeline.
METHODS = {
    "direct": [],
    "scalecrafter": ["scalecrafter.settings=scenes_x4"],
}
SEEDS = [11, 12, 13]


def build(name):
    return instantiate(compose_config([f"method={name}", *METHODS[name]]).method.object, _convert_="all")


def draw(method, pipe, seeds, height=64, width=64):
    request = Request([f"prompt {s}" for s in seeds], seeds, height, width, Sampler(steps=3, guidance_scale=4.0))
    return method.generate(pipe, request)


def test_every_method_has_a_row():
    assert set(METHODS) == {path.stem for path in (CONF / "method").glob("*.yaml")}


@pytest.mark.parametrize("name", METHODS)
def test_pictures_have_the_size_asked_for(pipe, name):
    images = draw(build(name), pipe, SEEDS[:2], 64, 96)
    assert images.shape == (2, 64, 96, 3)
    assert images.dtype == np.uint8
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_depends_on_its_seed_only(pipe, name):
    method = build(name)
    together = draw(method, pipe, SEEDS)
    torch.manual_seed(99)  # the global generator plays no part
    assert np.array_equal(draw(method, pipe, SEEDS), together)
    alone = np.concatenate([draw(method, pipe, [seed]) for seed in (SEEDS[2], SEEDS[0])])
    assert np.abs(alone.astype(int) - together[[2, 0]]).max() <= 2


@pytest.mark.parametrize("name", METHODS)
def test_the_pipeline_is_left_as_it_was(pipe, name):
    before = draw(build("direct"), pipe, SEEDS[:1])
    attributes = {key: set(vars(module)) for key, module in pipe.unet.named_modules()}
    draw(build(name), pipe, SEEDS[:1])
    assert {key: set(vars(module)) for key, module in pipe.unet.named_modules()} == attributes
    assert not hasattr(pipe, "_progress_bar_config")
    assert np.array_equal(draw(build("direct"), pipe, SEEDS[:1]), before)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "direct"])
def test_it_does_something(pipe, name):
    assert not np.array_equal(draw(build(name), pipe, SEEDS[:1]), draw(build("direct"), pipe, SEEDS[:1]))


@pytest.mark.parametrize("name", METHODS)
def test_a_size_that_does_not_fit_is_refused_by_describe(pipe, name):
    with pytest.raises(ValueError, match="divisible by 32"):
        build(name).describe(pipe, 60, 64)
