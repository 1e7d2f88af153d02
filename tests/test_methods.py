"""The contract that every method keeps: one row for each file in conf/method/."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from hydra.utils import instantiate

from baselines.direct import Direct
from baselines.method import Request, Sampler
from experiments.setup.compose import compose_config
from experiments.setup.schema import CONF
from tests.tiny import PIPELINES, generate

pytestmark = pytest.mark.usefixtures("own_convolutions")

# Name of the method -> overrides with which it acts on the tiny pipeline.
METHODS = {
    "direct": [],
    "attention_scaling": [],
    "multidiffusion": ["multidiffusion.stride=4"],
    "syncdiffusion": ["multidiffusion.stride=8", "syncdiffusion.weight=500", "syncdiffusion.sync_steps=1"],
    "upscale": [],
    "scalecrafter": ["scalecrafter.settings=sdxl_x4"],
    "scalecrafter_cascade": ["scalecrafter.settings=sdxl_x4"],
    "deep_shrink": [],
    "hidiffusion": [],
    "fouriscale": [],
    "demofusion": [],
    "accdiffusion": [],
    "sdedit": [],
    "sdedit_rgb": [],
    "megafusion": [],
    "diffusehigh": [],
    "rectifiedhr": [],
    "frecas": [],
    "freescale": [],
}
THREE_STEPS = {"megafusion", "rectifiedhr", "deep_shrink", "hidiffusion"}  # for all sizes, or an early one
# Needs an upscaler as well: tests/baselines/test_upscale.py.
ELSEWHERE = {"upscale_sd", "real", "real_blur", "real_enlarge", "real_grid"}


SDXL_TOO = pytest.param("sdxl", marks=pytest.mark.slow)  # where the architecture hardly matters


@pytest.fixture(params=PIPELINES)
def pipe(request, tmp_path):
    """A tiny pipeline of each architecture."""
    return PIPELINES[request.param](tmp_path)


@cache
def build(name):
    return instantiate(compose_config([f"method={name}", *METHODS[name]]).method.object, _convert_="all")


@cache
def plain(pipeline_class, seeds, size=(64, 64), **options):
    """Direct inference on the tiny pipeline of this class."""
    with TemporaryDirectory() as folder:
        pipe = PIPELINES["sdxl" if "XL" in pipeline_class.__name__ else "sd"](Path(folder))
    return generate(Direct(), pipe, seeds, size, **options)


def test_every_method_has_a_row():
    assert set(METHODS) | ELSEWHERE == {path.stem for path in (CONF / "method").glob("*.yaml")}


@pytest.mark.parametrize("name", METHODS)
def test_an_image_depends_on_its_seed_only_and_the_pipeline_is_restored(pipe, name):
    """It has the requested size, and depends neither on the batch nor on the global generator, also with noise in
    every step (eta above 0).

    Batches of one size give identical images, which is tested on one architecture, on the other a batch of one. That
    changes the order of float32 sums: measured over 8 seeds, 2 pipelines and batches of 1 to 8, at most 0.015% of the
    values change, by one level. The pipeline is afterwards what it was.
    """
    method, size, before = build(name), (64, 48), state(pipe)
    options = {"eta": 0.5, "steps": 3 if name in THREE_STEPS else 2}
    together = generate(method, pipe, [11, 12], size, **options)
    assert together.shape == (2, *size, 3)
    assert together.dtype == np.uint8
    assert not np.array_equal(together[0], together[1])
    assert np.array_equal(together, plain(type(pipe), (11, 12), size, **options)) == (name == "direct")
    torch.manual_seed(99)
    if isinstance(pipe, StableDiffusionXLPipeline):
        alone = generate(method, pipe, [12], size, **options)
        difference = np.abs(alone[0].astype(int) - together[1])
        assert difference.max() <= 1
        assert np.count_nonzero(difference) <= 0.001 * difference.size
    else:
        in_another_batch = generate(method, pipe, [12, 20], size, **options)
        assert np.array_equal(in_another_batch[0], together[1])
    assert_restored(pipe, before)


def state(pipe):
    """Weights and attributes of the U-Net."""
    weights = {key: tensor.clone() for key, tensor in pipe.unet.state_dict().items()}
    return weights, {key: set(vars(module)) for key, module in pipe.unet.named_modules()}


def assert_restored(pipe, before):
    (found, attributes), (weights, others) = state(pipe), before
    assert attributes == others
    assert all(torch.equal(tensor, weights[key]) for key, tensor in found.items())
    assert not hasattr(pipe, "_progress_bar_config")
    pipe.set_progress_bar_config(desc="mine")
    assert np.array_equal(generate(Direct(), pipe, [11], steps=1), plain(type(pipe), (11,), steps=1))
    assert pipe._progress_bar_config == {"desc": "mine"}


@pytest.mark.parametrize("pipe", ["sd", SDXL_TOO], indirect=True)
@pytest.mark.parametrize("name", METHODS)
def test_nan_raises_and_pipeline_is_restored(pipe, name):
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        generate(build(name), pipe, [11], steps=3 if name in THREE_STEPS else 2)
    assert not hasattr(pipe, "_progress_bar_config")
    assert not pipe.unet._forward_pre_hooks


@pytest.mark.parametrize("pipe", ["sd", SDXL_TOO], indirect=True)
@pytest.mark.parametrize("name", METHODS)
def test_describe_rejects_invalid_size(pipe, name):
    with pytest.raises(ValueError, match="divisible by"):
        build(name).describe(pipe, 62, 64)


def test_invalid_requests_raise():
    with pytest.raises(ValueError, match="2 prompts and 1 seeds"):
        Request(["a", "b"], [1], 64, 64)
    with pytest.raises(ValueError, match="0 prompts"):
        Request([], [], 64, 64)
    with pytest.raises(ValueError, match="at least 1 step"):
        Sampler(steps=0)
