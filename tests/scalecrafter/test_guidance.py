"""Noise-damped guidance: the identity, and that the hook applies the paper's formula to the right two models."""

import warnings
from dataclasses import replace
from functools import partial
from types import FunctionType, SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPanoramaPipeline,
    StableDiffusionSAGPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)
from PIL import Image

import scalecrafter
from baselines.scalecrafter import ScaleCrafter
from scalecrafter import Settings, noise_damped
from scalecrafter.guidance import HALVES
from scalecrafter.settings import expand
from tests.tiny import generate, predict, tiny_pipeline, unet_inputs

OTHERS = [
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPanoramaPipeline,  # several views in one call: uncond and cond alternate
    StableDiffusionSAGPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
]
MAIN, BASE = expand({"down_blocks.1+s": 2, "mid_block": 4}), expand({"mid_block": 2})
PLAIN = Settings(MAIN, tau=50)
DAMPED = Settings(MAIN, tau=50, noise_damped_dilation=BASE, noise_damped_tau=30)


def test_guidance_of_the_pipeline_becomes_the_papers():
    base, uncond, cond = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    u, c = noise_damped(base, uncond, cond)
    for w in (1.0, 1.5, 15.0):
        torch.testing.assert_close(u + w * (c - u), base + w * (cond - uncond), atol=1e-5, rtol=1e-5)


def with_settings(pipe, settings, t):
    """The prediction for two guidance pairs."""
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        return predict(pipe, t, batch=4)


@pytest.mark.parametrize("t", [999, 401, 400])
def test_base_model_damps_inside_its_window_only(pipe, t):
    dilated = with_settings(pipe, PLAIN, t)
    base = with_settings(pipe, Settings(BASE, tau=50), t)
    uncond, cond = dilated.chunk(2)
    expected = torch.cat([base.chunk(2)[0], base.chunk(2)[0] + cond - uncond]) if t >= 401 else dilated
    torch.testing.assert_close(with_settings(pipe, DAMPED, t), expected, atol=1e-5, rtol=1e-5)


def test_base_model_shrinks_its_factors_over_its_own_window(pipe):
    """Progressive, base pass with tau 20: at step 15 a factor of 4 is max(ceil(4 (20 - 15) / 20), 2) = 2."""
    settings = replace(DAMPED, noise_damped_dilation=expand({"mid_block": 4}), noise_damped_tau=20, progressive=True)
    base = with_settings(pipe, Settings(expand({"mid_block": 2}), tau=50), 699).chunk(2)[0]
    actual = with_settings(pipe, settings, 699).chunk(2)[0]
    torch.testing.assert_close(actual, base, atol=1e-5, rtol=1e-5)


def test_tuple_output_stays_a_tuple(pipe):
    with scalecrafter.enable(pipe, height=64, width=64, settings=DAMPED), torch.no_grad():
        output = pipe.unet(timestep=999, **unet_inputs(pipe, batch=4), return_dict=False)
    assert type(output) is tuple
    assert torch.equal(output[0], with_settings(pipe, DAMPED, 999))


def test_only_the_unconditional_half_is_evaluated_again(pipe, batches):
    with_settings(pipe, DAMPED, 999)
    with_settings(pipe, DAMPED, 10)
    assert batches == [4, 2, 4]


@pytest.fixture
def batches(pipe):
    """Batch sizes of the U-Net's calls so far."""
    sizes = []
    with pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0]))):
        yield sizes


def test_the_base_pass_is_left_out_where_it_would_repeat_the_main_pass(pipe, batches):
    """With the same factors u' = u and c' = u + (c - u) = c: the prediction is that without damping, to the bit."""
    same = replace(DAMPED, noise_damped_dilation=MAIN)
    assert torch.equal(with_settings(pipe, same, 999), with_settings(pipe, PLAIN, 999))
    assert batches == [4, 4]
    other = replace(same, noise_damped_dilation=MAIN | {"conv_in": 2})
    assert not torch.equal(with_settings(pipe, other, 999), with_settings(pipe, PLAIN, 999))
    assert batches == [4, 4, 4, 2, 4]


def test_whether_the_passes_are_the_same_is_decided_at_each_step(pipe, batches):
    """Progressive: a factor of 4 over 50 steps is 4 until step 12 and 3 until step 24; over 25 steps it is 4 until
    step 6, 3 until step 12 and 2 until step 24. From step 25 on the base pass alone would have ended.
    """
    settings = Settings(
        expand({"mid_block": 4}),
        tau=50,
        progressive=True,
        noise_damped_dilation=expand({"mid_block": 4}),
        noise_damped_tau=25,
    )
    for step in (0, 6, 7, 12, 13, 24, 25):
        with_settings(pipe, settings, 981 - 20 * step)
    assert batches == [4, 4, 4, 2, 4, 2, 4, 2, 4, 2, 4]
    images = [generate(ScaleCrafter(replace(settings, noise_damped_tau=tau)), pipe, steps=2) for tau in (50, 0)]
    assert np.array_equal(*images)


def test_the_base_pass_sees_the_adapter_too(tmp_path):
    """A T2I-Adapter's residuals, which the U-Net takes out of the caller's list."""
    pipe = tiny_pipeline(
        tmp_path, "sd15"
    )  # with attention at the levels where an adapter of SD adds before the resizing
    generator = torch.Generator().manual_seed(1)
    shapes = [(4, 8, 16, 16), (4, 16, 8, 8), (4, 16, 4, 4), (4, 16, 2, 2)]
    residuals = [torch.randn(shape, generator=generator) for shape in shapes]

    def adapted(settings):
        adapter = {"down_intrablock_additional_residuals": list(residuals)}
        with scalecrafter.enable(pipe, height=64, width=64, settings=settings), torch.no_grad():
            return pipe.unet(timestep=999, **unet_inputs(pipe, batch=4), **adapter).sample

    uncond, cond = adapted(PLAIN).chunk(2)
    base = adapted(Settings(BASE, tau=50)).chunk(2)[0]
    assert not torch.allclose(base, with_settings(pipe, Settings(BASE, tau=50), 999).chunk(2)[0], atol=1e-3)
    torch.testing.assert_close(adapted(DAMPED), torch.cat(noise_damped(base, uncond, cond)), atol=1e-5, rtol=1e-5)


def test_damping_changes_the_image(pipe):
    images = [generate(ScaleCrafter(settings), pipe, steps=2, guidance_scale=1.5) for settings in (PLAIN, DAMPED)]
    assert not np.array_equal(*images)


def test_without_guidance_damping_is_off_with_one_warning(pipe):
    images = []
    for tau in (DAMPED.noise_damped_tau, 0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            images.append(generate(ScaleCrafter(DAMPED, {"noise_damped_tau": tau}), pipe, steps=3, guidance_scale=1.0))
        assert sum("noise damping is off" in str(each.message) for each in caught) == (tau > 0)
    assert np.array_equal(*images)


@pytest.mark.filterwarnings("ignore:noise damping is off")
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_pipeline_that_calls_says_whether_there_is_guidance(pipe, scale):
    """Not the one that the method was enabled on: they share a U-Net, and each keeps the scale of its latest call."""
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    sample = partial(other, ["a", "b"], Image.new("RGB", (64, 64), "grey"), num_inference_steps=2, output_type="np")

    def drawn(settings):
        with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
            pipe("a", height=64, width=64, num_inference_steps=1, guidance_scale=8.5 - scale)
            generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
            return sample(strength=1.0, guidance_scale=scale, generator=generators).images

    assert np.array_equal(drawn(DAMPED), drawn(PLAIN)) == (scale == 1.0)


def test_rescaled_guidance_raises(pipe):
    with (
        scalecrafter.enable(pipe, height=64, width=64, settings=DAMPED),
        pytest.raises(ValueError, match="guidance_rescale=0"),
    ):
        pipe("a", height=64, width=64, num_inference_steps=2, guidance_rescale=0.7)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_guidance_raise(pipe, kind):
    other = object.__new__(kind)
    other.__dict__.update(_internal_dict={}, unet=pipe.unet, scheduler=pipe.scheduler, vae_scale_factor=4)
    with pytest.raises(ValueError, match="noise_damped_tau to 0"):
        scalecrafter.enable(other, height=64, width=64, settings=DAMPED)
    scalecrafter.enable(other, height=64, width=64, settings=PLAIN).disable()


def test_odd_batch_raises(pipe):
    bare = SimpleNamespace(unet=pipe.unet, scheduler=pipe.scheduler, vae_scale_factor=4)
    with (
        scalecrafter.enable(bare, height=64, width=64, settings=DAMPED),
        pytest.raises(ValueError, match="needs classifier-free guidance"),
    ):
        pipe.unet(torch.zeros(3, 4, 16, 16), 999, torch.zeros(3, 5, 16))


def test_modular_pipelines_raise(pipe):
    """They call each branch alone: an even number of prompts would pass for two halves."""

    def branch():
        return predict(pipe, 999)

    called = FunctionType(
        branch.__code__,
        branch.__globals__ | {"__name__": "diffusers.modular_pipelines.x"},
        None,
        None,
        branch.__closure__,
    )
    with (
        scalecrafter.enable(pipe, height=64, width=64, settings=DAMPED),
        pytest.raises(ValueError, match="modular pipelines"),
    ):
        called()


def test_listed_pipelines_exist():
    assert all(hasattr(diffusers, name) for name in HALVES)
