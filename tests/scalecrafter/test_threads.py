"""Calls of one U-Net in several threads, or from several pipelines, do not see each other."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

import scalecrafter
from scalecrafter import FreeU, Settings
from scalecrafter.settings import expand
from tests.tiny import predict

TABLE = expand({"mid_block": 3, "up_blocks.1+s": 1.5})
EARLY = Settings(TABLE, tau=25, noise_damped_dilation={"conv_in": 2}, noise_damped_tau=25, freeu=FreeU(2, 2, 0.5, 0.5))


def sharing(pipe, scheduler):
    """Another pipeline with the same models and a scheduler of its own."""
    other = StableDiffusionPipeline.from_pipe(pipe)
    other.scheduler = scheduler
    other.set_progress_bar_config(disable=True)
    return other


def draw(pipe, size, seed):
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    return pipe("a b", height=height, width=width, num_inference_steps=2, generator=generator, output_type="np").images


@pytest.mark.parametrize("sizes", [((64, 64), (96, 64)), ((64, 64), (32, 32))], ids=["both larger", "one not larger"])
def test_threads_that_share_a_unet_draw_what_one_alone_draws(pipe, sizes):
    """All U-Net calls of both overlap: each waits in its middle block until the other is there."""
    pipes = [sharing(pipe, DDIMScheduler.from_config(pipe.scheduler.config)) for _ in sizes]
    barrier, waiting = Barrier(2), []

    def wait(module, args):
        if waiting and len(args[0]) == 2:  # not in the base pass, which only one of the two may have
            barrier.wait(timeout=60)

    with (
        pipe.unet.mid_block.register_forward_pre_hook(wait),
        scalecrafter.enable(pipe, settings=EARLY),
        ThreadPoolExecutor(2) as threads,
    ):
        alone = [draw(*each) for each in zip(pipes, sizes, (1, 2), strict=True)]
        waiting.append(True)
        together = list(threads.map(draw, pipes, sizes, (1, 2)))
    for found, expected in zip(together, alone, strict=True):
        assert np.array_equal(found, expected)


def test_a_call_that_fails_leaves_nothing_to_the_next(pipe):
    """Nor arguments of its base pass, which would keep their memory."""
    with scalecrafter.enable(pipe, height=64, width=64, settings=EARLY):
        expected, later = predict(pipe, 999), predict(pipe, 1)

        def fail(module, args):
            raise RuntimeError("stop")

        for place in (pipe.unet.mid_block, pipe.unet.conv_in):
            with place.register_forward_pre_hook(fail), pytest.raises(RuntimeError, match="stop"):
                predict(pipe, 999)
            assert torch.equal(predict(pipe, 1), later)
            assert torch.equal(predict(pipe, 999), expected)


def test_layers_are_plain_outside_a_call(pipe):
    conv, x = pipe.unet.mid_block.resnets[0].conv1, torch.randn(1, 16, 9, 9)
    with torch.no_grad():
        plain = conv(x)
        with scalecrafter.enable(pipe, height=64, width=64, settings=EARLY):
            predict(pipe, 999)
            assert torch.equal(conv(x), plain)


def test_gradient_checkpointing_is_refused(pipe):
    """It evaluates layers again when the call is over."""
    pipe.unet.enable_gradient_checkpointing()
    with scalecrafter.enable(pipe, height=64, width=64, settings=EARLY):
        predict(pipe, 999)  # without gradients there is none
        with pytest.raises(ValueError, match="gradient checkpointing"):
            predict.__wrapped__(pipe, 999)


def test_windows_follow_the_scheduler_of_the_pipeline_that_calls(pipe):
    """Not of the one that the method was enabled on: EDM's timesteps are logarithms."""
    other = sharing(pipe, EDMEulerScheduler(sigma_min=0.03, sigma_max=14.6))
    with scalecrafter.enable(other, height=64, width=64, settings=EARLY):
        expected = draw(other, (64, 64), 1)
    with scalecrafter.enable(pipe, height=64, width=64, settings=EARLY):
        found = draw(other, (64, 64), 1)
    assert np.array_equal(found, expected)


def test_both_stages_share_the_method(pipe):
    """The recipe of docs/pipelines.md: the first stage is the plain model's, the second has the method."""
    second = StableDiffusionImg2ImgPipeline.from_pipe(pipe)

    def stages(settings):
        with scalecrafter.enable(pipe, settings=settings):
            first = draw(pipe, (32, 32), 1)
            image = Image.fromarray((first[0] * 255).astype(np.uint8)).resize((64, 64))
            options = {"generator": torch.Generator().manual_seed(1), "num_inference_steps": 4, "output_type": "np"}
            return first, second("a b", image, strength=1.0, **options).images

    (first, large), (plain_first, plain_large) = stages(EARLY), stages(Settings())
    assert np.array_equal(first, plain_first)
    assert not np.array_equal(large, plain_large)
