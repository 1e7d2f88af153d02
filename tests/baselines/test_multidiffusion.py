"""MultiDiffusion against the paper's algorithm written as a loop over windows, and the windows themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from baselines.direct import Direct
from baselines.method import Request, Sampler
from baselines.multidiffusion import MultiDiffusion
from baselines.windows import Windows, positions
from tests.tiny import tiny_sdxl_pipeline


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((16, 8, 4), [0, 4, 8]),
        ((18, 8, 4), [0, 4, 8, 10]),
        ((8, 8, 3), [0]),
        ((9, 8, 8), [0, 1]),
        ((16, 8, 4, True), [0, 4, 8, 12]),
        ((8, 8, 4, True), [0]),
    ],
)
def test_positions(arguments, expected):
    assert positions(*arguments) == expected


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (13, 17), (24, 8)])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_the_average_of_what_was_cut_is_the_map(rows, columns, stride, circular):
    """Every cell is covered and weighted exactly, for every size."""
    x = torch.randn(2, 3, rows, columns, dtype=torch.float64)
    windows = Windows.cover(rows, columns, 8, 8, (stride, stride), circular)
    parts = [windows.cut(x, i) for i in range(len(windows))]
    assert all(part.shape == (2, 3, 8, 8) for part in parts)
    torch.testing.assert_close(windows.average(parts), x)


def test_a_circular_window_runs_over_the_border():
    x = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 8, 16)
    windows = Windows.cover(8, 16, 8, 8, (4, 4), circular=True)
    assert windows.cut(x, 3)[0, 0, 0].tolist() == [12, 13, 14, 15, 0, 1, 2, 3]


def embed(pipe, prompt):
    cond, uncond = pipe.encode_prompt(prompt, "cpu", 1, True)
    return torch.cat([uncond, cond])


@torch.no_grad()
def slow_multidiffusion(pipe, scheduler, prompt, seed, rows, columns, stride, steps, w):
    """The paper: step every window by itself with its own scheduler, then average the stepped latents."""
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


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize(("rows", "columns", "stride"), [(16, 16, 4), (8, 16, 8), (16, 24, 2)])
def test_averaged_predictions_are_averaged_steps(pipe, scheduler, rows, columns, stride):
    expected = slow_multidiffusion(pipe, scheduler, "a b", 3, rows, columns, stride, steps=4, w=4.0)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    size = {"height": rows * 4, "width": columns * 4}
    options = {"num_inference_steps": 4, "guidance_scale": 4.0, "generator": torch.Generator().manual_seed(3)}
    with MultiDiffusion(stride=stride).enable(pipe, **size):
        latents = pipe("a b", **size, **options, output_type="latent").images
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)


def draw(pipe, method, size=(64, 64), steps=3):
    return method.generate(pipe, Request(["a", "b"], [1, 2], *size, Sampler(steps, 4.0)))


def test_one_window_is_direct_exactly(pipe):
    assert np.array_equal(draw(pipe, MultiDiffusion(), (32, 32)), draw(pipe, Direct(), (32, 32)))


def test_the_window_batch_changes_nothing_else(pipe):
    one, many = (draw(pipe, MultiDiffusion(stride=4, window_batch=n)) for n in (1, 5))
    assert np.abs(one.astype(int) - many).max() <= 1


@pytest.mark.parametrize("change", [{"stride": 8}, {"circular": True}])
def test_every_option_changes_the_picture(pipe, change):
    base = {"stride": 4}
    assert not np.array_equal(draw(pipe, MultiDiffusion(**base)), draw(pipe, MultiDiffusion(**(base | change))))


def test_the_stride_is_an_eighth_of_the_window_unless_said_otherwise(pipe):
    assert len(MultiDiffusion().windows(pipe, 64, 64)) == 9 * 9


def test_ancestral_noise_is_shared_by_the_windows(pipe):
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    assert np.array_equal(draw(pipe, MultiDiffusion(4), (32, 32)), draw(pipe, Direct(), (32, 32)))
    draw(pipe, MultiDiffusion(4))


@pytest.fixture
def sdxl(tmp_path):
    return tiny_sdxl_pipeline(tmp_path)


def test_sdxl_windows_are_told_where_they_lie(sdxl):
    """Crop coordinates (top, left) in pixels, the same for both guidance halves and every prompt."""
    seen = []
    forward = sdxl.unet.forward

    def spy(*args, **kwargs):
        seen.append(kwargs["added_cond_kwargs"]["time_ids"][:, 2:4].tolist())
        return forward(*args, **kwargs)

    for crop_coordinates in (True, False):
        sdxl.unet.forward = spy
        method = MultiDiffusion(stride=8, window_batch=3, crop_coordinates=crop_coordinates)
        draw(sdxl, method, steps=1)
        del sdxl.unet.forward
    corners = [[0, 0], [0, 32], [32, 0], [32, 32]]
    assert sum(seen[:2], []) == [corner for corner in corners for _ in range(4)]
    assert sum(seen[2:], []) == [[0, 0]] * 16


@pytest.mark.parametrize("option", ["clip_sample", "thresholding"])
def test_schedulers_with_clipping_are_refused(pipe, option):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **{option: True})
    with pytest.raises(ValueError, match=f"{option}=False"):
        MultiDiffusion().describe(pipe, 64, 64)


@pytest.mark.parametrize(
    ("method", "size", "message"),
    [
        (MultiDiffusion(stride=9), (64, 64), "stride must be 1 to 8"),
        (MultiDiffusion(stride=0), (64, 64), "stride must be 1 to 8"),
        (MultiDiffusion(), (1024, 16), "larger than the latent"),
        (MultiDiffusion(), (60, 64), "divisible by 32"),
        (MultiDiffusion(window_batch=0), (64, 64), "window_batch"),
    ],
)
def test_what_cannot_be_covered_is_refused(pipe, method, size, message):
    with pytest.raises(ValueError, match=message):
        method.describe(pipe, *size)


def test_a_call_that_does_not_fit_is_refused(pipe):
    sample, text = torch.zeros(2, 4, 16, 16), torch.zeros(2, 5, 16)
    with MultiDiffusion().enable(pipe, height=64, width=64):
        with pytest.raises(ValueError, match="called on 8x8 cells"):
            pipe.unet(sample[:, :, :8, :8], 1, text)
        with pytest.raises(ValueError, match="ControlNet"):
            pipe.unet(sample, 1, text, down_block_additional_residuals=(sample,))


def test_it_restores_a_forward_that_another_tool_had_set(pipe):
    marker = SimpleNamespace(called=0)
    plain = pipe.unet.forward

    def other(*args, **kwargs):
        marker.called += 1
        return plain(*args, **kwargs)

    pipe.unet.forward = other
    draw(pipe, MultiDiffusion(stride=8, window_batch=4), steps=1)
    assert marker.called == 1
    assert pipe.unet.forward is other
