"""Noise-damped guidance: the identity, and that the hook computes the paper's formula with the right two models."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPAGPipeline

import scalecrafter
from baselines.method import Request, Sampler
from baselines.scalecrafter import ScaleCrafter
from scalecrafter import Settings, noise_damped
from scalecrafter.settings import expand

MAIN, BASE = expand({"down_blocks.1+s": 2, "mid_block": 4}), expand({"mid_block": 2})
PLAIN = Settings(MAIN, tau=50)
DAMPED = Settings(MAIN, tau=50, noise_damped_dilation=BASE, noise_damped_tau=30)


@pytest.mark.parametrize("w", [1.0, 1.5, 5.0, 7.5, 15.0])
def test_the_pipelines_guidance_becomes_the_papers(w):
    base, uncond, cond = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    u, c = noise_damped(base, uncond, cond)
    torch.testing.assert_close(u + w * (c - u), base + w * (cond - uncond), atol=1e-5, rtol=1e-5)


def predict(pipe, t, count=2, **options):
    generator = torch.Generator().manual_seed(0)
    sample, text = (
        torch.randn(2 * count, 4, 16, 16, generator=generator),
        torch.randn(2 * count, 5, 16, generator=generator),
    )
    with torch.no_grad():
        return pipe.unet(sample, t, text, **options)


def with_settings(pipe, settings, t, **options):
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        return predict(pipe, t, **options)


@pytest.mark.parametrize("t", [999, 401, 400, 10])
def test_the_base_model_damps_inside_its_window_only(pipe, t):
    dilated = with_settings(pipe, PLAIN, t).sample
    base = with_settings(pipe, Settings(BASE, tau=50), t).sample
    uncond, cond = dilated.chunk(2)
    expected = torch.cat([base.chunk(2)[0], base.chunk(2)[0] + cond - uncond]) if t >= 401 else dilated
    torch.testing.assert_close(with_settings(pipe, DAMPED, t).sample, expected, atol=1e-5, rtol=1e-5)


def test_the_base_model_shrinks_its_factors_over_its_own_window(pipe):
    """Progressive, base pass with tau 20: at step 15 a factor of 4 is max(ceil(4 (20 - 15) / 20), 2) = 2."""
    settings = replace(DAMPED, noise_damped_dilation=expand({"mid_block": 4}), noise_damped_tau=20, progressive=True)
    base = with_settings(pipe, Settings(expand({"mid_block": 2}), tau=50), 699).sample.chunk(2)[0]
    actual = with_settings(pipe, settings, 699).sample.chunk(2)[0]
    torch.testing.assert_close(actual, base, atol=1e-5, rtol=1e-5)


def test_a_tuple_stays_a_tuple(pipe):
    output = with_settings(pipe, DAMPED, 999, return_dict=False)
    assert type(output) is tuple
    assert torch.equal(output[0], with_settings(pipe, DAMPED, 999).sample)


def test_only_the_unconditional_half_is_evaluated_again(pipe):
    sizes = []
    hook = pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    with_settings(pipe, DAMPED, 999)
    with_settings(pipe, DAMPED, 10)
    hook.remove()
    assert sizes == [4, 2, 4]


@pytest.mark.parametrize("scale", [1.5, 15.0])
def test_it_acts_in_the_pipeline_at_every_guidance_scale(pipe, scale):
    request = Request(["a", "b"], [1, 2], 64, 64, Sampler(2, scale))
    images = [ScaleCrafter(settings).generate(pipe, request) for settings in (PLAIN, DAMPED)]
    assert not np.array_equal(*images)


def test_without_guidance_it_is_refused_and_nothing_stays_behind(pipe):
    request = Request(["a"], [1], 64, 64, Sampler(2, 1.0))
    with pytest.raises(ValueError, match="guidance_scale above 1"):
        ScaleCrafter(DAMPED).generate(pipe, request)
    assert not pipe.unet._forward_hooks
    ScaleCrafter(DAMPED, {"noise_damped_tau": 0}).generate(pipe, request)


def test_rescaled_guidance_is_refused(pipe):
    with (
        scalecrafter.enable(pipe, height=64, width=64, settings=DAMPED),
        pytest.raises(ValueError, match="guidance_rescale=0"),
    ):
        pipe("a", height=64, width=64, num_inference_steps=2, guidance_rescale=0.7)


@pytest.mark.parametrize("kind", [StableDiffusionInstructPix2PixPipeline, StableDiffusionPAGPipeline])
def test_other_kinds_of_guidance_are_refused(pipe, kind):
    other = object.__new__(kind)
    other.__dict__.update(_internal_dict={}, unet=pipe.unet, scheduler=pipe.scheduler, vae_scale_factor=4)
    with pytest.raises(ValueError, match="noise_damped_tau to 0"):
        scalecrafter.enable(other, height=64, width=64, settings=DAMPED)
    scalecrafter.enable(other, height=64, width=64, settings=PLAIN).disable()


def test_an_odd_batch_is_refused(pipe):
    bare = SimpleNamespace(unet=pipe.unet, scheduler=pipe.scheduler, vae_scale_factor=4)
    with (
        scalecrafter.enable(bare, height=64, width=64, settings=DAMPED),
        pytest.raises(ValueError, match="needs classifier-free guidance"),
    ):
        pipe.unet(torch.zeros(3, 4, 16, 16), 999, torch.zeros(3, 5, 16))
