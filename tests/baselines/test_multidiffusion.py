"""MultiDiffusion against the paper's algorithm as a loop over windows, and the windows themselves."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from baselines.direct import Direct
from baselines.multidiffusion import MultiDiffusion
from baselines.windows import Windows, positions
from tests.tiny import generate, tiny_sdxl_pipeline


def test_positions():
    expected = {
        (16, 8, 4): [0, 4, 8],
        (18, 8, 4): [0, 4, 8, 10],
        (8, 8, 3): [0],
        (9, 8, 8): [0, 1],
        (16, 8, 4, True): [0, 4, 8, 12],
        (8, 8, 4, True): [0],
    }
    assert {arguments: positions(*arguments) for arguments in expected} == expected


def test_average_of_crops_is_the_latent():
    """Every position is covered and weighted exactly, at every size."""
    sizes = ((8, 8), (13, 17), (24, 8))
    for (rows, columns), stride, circular in itertools.product(sizes, (1, 3, 8), (False, True)):
        x = torch.randn(2, 3, rows, columns, dtype=torch.float64)
        windows = Windows.cover(rows, columns, 8, 8, (stride, stride), circular)
        parts = [windows.crop(x, i) for i in range(len(windows))]
        assert all(part.shape == (2, 3, 8, 8) for part in parts)
        torch.testing.assert_close(windows.average(parts), x)


def test_circular_window_wraps_around_the_border():
    x = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 8, 16)
    windows = Windows.cover(8, 16, 8, 8, (4, 4), circular=True)
    assert windows.crop(x, 3)[0, 0, 0].tolist() == [12, 13, 14, 15, 0, 1, 2, 3]


def embed(pipe, prompt):
    cond, uncond = pipe.encode_prompt(prompt, "cpu", 1, True)
    return torch.cat([uncond, cond])


@torch.no_grad()
def slow_multidiffusion(pipe, scheduler, prompt, seed, rows, columns, stride, steps, w):
    """The paper's algorithm: step each window with its own scheduler, then average the latents."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 4, rows, columns, generator=generator)
    corners = [(r, c) for r in range(0, rows - 7, stride) for c in range(0, columns - 7, stride)]
    schedulers = [scheduler.from_config(pipe.scheduler.config) for _ in corners]
    for each in schedulers:
        each.set_timesteps(steps)
    latents = latents * schedulers[0].init_noise_sigma
    text = embed(pipe, prompt)
    for t in schedulers[0].timesteps:
        total, count = torch.zeros_like(latents), torch.zeros_like(latents)
        for (r, c), own in zip(corners, schedulers, strict=True):
            window = latents[:, :, r : r + 8, c : c + 8]
            uncond, cond = pipe.unet(own.scale_model_input(torch.cat([window] * 2), t), t, text).sample.chunk(2)
            total[:, :, r : r + 8, c : c + 8] += own.step(uncond + w * (cond - uncond), t, window).prev_sample
            count[:, :, r : r + 8, c : c + 8] += 1
        latents = total / count
    return latents


@pytest.mark.parametrize(
    ("scheduler", "rows", "columns", "stride"),
    [
        (DDIMScheduler, 8, 16, 8),
        (DDIMScheduler, 12, 16, 4),
        (EulerDiscreteScheduler, 12, 16, 4),
        (DPMSolverMultistepScheduler, 8, 16, 8),
    ],
)
def test_averaging_predictions_equals_averaging_steps(pipe, scheduler, rows, columns, stride):
    expected = slow_multidiffusion(pipe, scheduler, "a b", 3, rows, columns, stride, steps=4, w=4.0)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    size = {"height": rows * 4, "width": columns * 4}
    options = {"num_inference_steps": 4, "guidance_scale": 4.0, "generator": torch.Generator().manual_seed(3)}
    with MultiDiffusion(stride=stride).enable(pipe, **size):
        latents = pipe("a b", **size, **options, output_type="latent").images
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)


def test_single_window_equals_direct_exactly(pipe):
    assert np.array_equal(generate(MultiDiffusion(), pipe, size=(32, 32)), generate(Direct(), pipe, size=(32, 32)))


def test_window_batch_changes_the_image_by_rounding_only(pipe):
    one, many = (generate(MultiDiffusion(stride=4, window_batch=n), pipe) for n in (1, 5))
    assert np.abs(one.astype(int) - many).max() <= 1


def test_every_option_changes_the_image(pipe):
    base = generate(MultiDiffusion(stride=4), pipe)
    for method in (MultiDiffusion(stride=8), MultiDiffusion(stride=4, circular=True)):
        assert not np.array_equal(generate(method, pipe), base)


def test_default_stride_is_an_eighth_of_the_window(pipe):
    assert len(MultiDiffusion().windows(pipe, 64, 64)) == 9 * 9


def test_a_stride_below_one_is_a_share_of_the_window(pipe):
    """With the same identity and image as the pixels that it gives, here of windows of 8x8."""
    share, pixels = MultiDiffusion(stride=0.5), MultiDiffusion(stride=4)
    assert share.describe(pipe, 64, 64) == pixels.describe(pipe, 64, 64)
    assert np.array_equal(generate(share, pipe, steps=1), generate(pixels, pipe, steps=1))
    assert MultiDiffusion(stride=0.01).strides(pipe) == (1, 1)
    assert MultiDiffusion(stride=4.0).describe(pipe, 64, 64)["stride"] == [4, 4]


def test_windows_share_ancestral_noise(pipe):
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    images = [generate(method, pipe, size=(32, 32)) for method in (MultiDiffusion(4), Direct())]
    assert np.array_equal(*images)
    generate(MultiDiffusion(4), pipe)


@pytest.fixture
def sdxl(tmp_path):
    return tiny_sdxl_pipeline(tmp_path)


def test_sdxl_windows_are_conditioned_on_their_position(sdxl):
    """Crop coordinates are (top, left) in pixels, equal for both guidance halves and all prompts."""
    seen = []
    forward = sdxl.unet.forward

    def spy(*args, **kwargs):
        seen.append(kwargs["added_cond_kwargs"]["time_ids"][:, 2:4].tolist())
        return forward(*args, **kwargs)

    for crop_coordinates in (True, False):
        sdxl.unet.forward = spy
        method = MultiDiffusion(stride=8, window_batch=3, crop_coordinates=crop_coordinates)
        generate(method, sdxl, steps=1)
        del sdxl.unet.forward
    corners = [[0, 0], [0, 32], [32, 0], [32, 32]]
    assert sum(seen[:2], []) == [corner for corner in corners for _ in range(4)]
    assert sum(seen[2:], []) == [[0, 0]] * 16


def test_schedulers_with_clipping_raise(pipe):
    for option in ("clip_sample", "thresholding"):
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **{option: True})
        with pytest.raises(ValueError, match=f"{option}=False"):
            MultiDiffusion().describe(pipe, 64, 64)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **{option: False})


def test_invalid_strides_sizes_and_batches_raise(pipe):
    for method, size, message in (
        (MultiDiffusion(stride=9), (64, 64), "stride must be 1 to 8"),
        (MultiDiffusion(stride=0), (64, 64), "stride must be 1 to 8"),
        (MultiDiffusion(stride=2.5), (64, 64), "whole latent pixels, or a share of the window below 1, not 2.5"),
        (MultiDiffusion(), (1024, 16), "larger than the latent"),
        (MultiDiffusion(), (62, 64), "divisible by 4"),
        (MultiDiffusion(window_batch=0), (64, 64), "window_batch"),
    ):
        with pytest.raises(ValueError, match=message):
            method.describe(pipe, *size)


def test_unsupported_calls_raise(pipe):
    sample, text = torch.zeros(2, 4, 16, 16), torch.zeros(2, 5, 16)
    with MultiDiffusion().enable(pipe, height=64, width=64):
        with pytest.raises(ValueError, match="called on a latent of 8x8"):
            pipe.unet(sample[:, :, :8, :8], 1, text)
        with pytest.raises(ValueError, match="ControlNet"):
            pipe.unet(sample, 1, text, down_block_additional_residuals=(sample,))


def test_forward_set_by_another_tool_is_used_and_restored(pipe):
    marker = SimpleNamespace(called=0)
    plain = pipe.unet.forward

    def other(*args, **kwargs):
        marker.called += 1
        return plain(*args, **kwargs)

    pipe.unet.forward = other
    generate(MultiDiffusion(stride=8, window_batch=4), pipe, steps=1)
    assert marker.called == 1
    assert pipe.unet.forward is other


def test_offloading_hooks_keep_running(pipe):
    expected = generate(MultiDiffusion(stride=8), pipe)
    cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    forward = pipe.unet.forward
    assert np.array_equal(generate(MultiDiffusion(stride=8), pipe), expected)
    assert pipe.unet.forward is forward
    assert {parameter.device.type for parameter in pipe.unet.parameters()} == {"meta"}
