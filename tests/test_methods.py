"""The contract that every method keeps, whatever it does: one row for each file in conf/method/."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from baselines.method import Request, Sampler
from experiments.setup.config import CONF, compose_config
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

# Name of the method -> overrides with which it acts on the tiny pipeline.
METHODS = {
    "direct": [],
    "attention_scaling": [],
    "multidiffusion": ["multidiffusion.stride=4"],
    "syncdiffusion": ["multidiffusion.stride=8", "syncdiffusion.weight=500"],
    "upscale": [],
    "scalecrafter": ["scalecrafter.settings=sdxl_x4"],
}
# Needs an upscaler beside the pipeline: tests/baselines/test_upscale.py.
ELSEWHERE = {"upscale_sd"}
SEEDS = [11, 12, 13]


@pytest.fixture(params=["sd", "sdxl"])
def pipe(request, tmp_path):
    """A fresh tiny pipeline of each shape."""
    return tiny_pipeline(tmp_path) if request.param == "sd" else tiny_sdxl_pipeline(tmp_path)


def build(name):
    return instantiate(compose_config([f"method={name}", *METHODS[name]]).method.object, _convert_="all")


def draw(method, pipe, seeds, height=64, width=64, eta=0.0):
    sampler = Sampler(steps=3, guidance_scale=4.0, eta=eta)
    return method.generate(pipe, Request([f"prompt {s}" for s in seeds], seeds, height, width, sampler))


def test_every_method_has_a_row():
    assert set(METHODS) | ELSEWHERE == {path.stem for path in (CONF / "method").glob("*.yaml")}


@pytest.mark.parametrize("name", METHODS)
def test_pictures_have_the_size_asked_for(pipe, name):
    images = draw(build(name), pipe, SEEDS[:2], 64, 96)
    assert images.shape == (2, 64, 96, 3)
    assert images.dtype == np.uint8
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_picture_depends_on_its_seed_only(pipe, name, eta):
    """Not on the batch, the position in it or the global generator; eta = 1 draws noise in every step."""
    method = build(name)
    together = draw(method, pipe, SEEDS, eta=eta)
    torch.manual_seed(99)
    assert np.array_equal(draw(method, pipe, SEEDS, eta=eta), together)
    alone = np.concatenate([draw(method, pipe, [seed], eta=eta) for seed in (SEEDS[2], SEEDS[0])])
    assert np.abs(alone.astype(int) - together[[2, 0]]).max() <= 2


@pytest.mark.parametrize("name", METHODS)
def test_the_pipeline_is_left_as_it_was(pipe, name):
    before = draw(build("direct"), pipe, SEEDS[:1])
    weights = {key: tensor.clone() for key, tensor in pipe.unet.state_dict().items()}
    attributes = {key: set(vars(module)) for key, module in pipe.unet.named_modules()}
    draw(build(name), pipe, SEEDS[:1])
    assert all(torch.equal(tensor, weights[key]) for key, tensor in pipe.unet.state_dict().items())
    assert {key: set(vars(module)) for key, module in pipe.unet.named_modules()} == attributes
    assert not hasattr(pipe, "_progress_bar_config")
    assert np.array_equal(draw(build("direct"), pipe, SEEDS[:1]), before)


@pytest.mark.parametrize("name", METHODS)
def test_a_user_s_progress_bar_setting_is_kept(pipe, name):
    pipe.set_progress_bar_config(desc="mine")
    draw(build(name), pipe, SEEDS[:1])
    assert pipe._progress_bar_config == {"desc": "mine"}


@pytest.mark.parametrize("name", METHODS)
def test_a_model_that_returns_nan_is_an_error_and_is_left_clean(pipe, name):
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        draw(build(name), pipe, SEEDS[:1])
    assert not hasattr(pipe, "_progress_bar_config")
    assert not pipe.unet._forward_pre_hooks


@pytest.mark.parametrize("name", [name for name in METHODS if name != "direct"])
def test_it_does_something(pipe, name):
    assert not np.array_equal(draw(build(name), pipe, SEEDS[:1]), draw(build("direct"), pipe, SEEDS[:1]))


@pytest.mark.parametrize("name", METHODS)
def test_a_size_that_does_not_fit_is_refused_by_describe(pipe, name):
    with pytest.raises(ValueError, match="divisible by"):
        build(name).describe(pipe, 60, 64)


def test_requests_that_make_no_sense():
    with pytest.raises(ValueError, match="2 prompts and 1 seeds"):
        Request(["a", "b"], [1], 64, 64)
    with pytest.raises(ValueError, match="0 prompts"):
        Request([], [], 64, 64)
    with pytest.raises(ValueError, match="at least 1 step"):
        Sampler(steps=0)
