"""SyncDiffusion against the paper's algorithm with autograd on one window at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from baselines.direct import Direct
from baselines.method import Request, Sampler
from baselines.multidiffusion import MultiDiffusion
from baselines.syncdiffusion import SyncDiffusion, lpips_vgg
from experiments.scenes.features import SceneDistance


def squared(pictures, others):
    """A plain distance, so that the test needs no network."""
    return (pictures - others).square().mean((1, 2, 3))


METHOD = SyncDiffusion(stride=4, distance=squared)
W, STEPS = 4.0, 4


def slow_syncdiffusion(pipe, prompt, seed, size, method):
    """Window by window: gradient of the distance of predicted clean pictures, a DDIM step, the average."""
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(seed))
    cond, uncond = pipe.encode_prompt(prompt, "cpu", 1, True)
    text = torch.cat([uncond, cond]).detach()
    corners = [(r, c) for r in range(0, size - 7, method.stride) for c in range(0, size - 7, method.stride)]

    def guided(window, t):
        u, c = pipe.unet(torch.cat([window] * 2), t, text).sample.chunk(2)
        return u + W * (c - u)

    def picture(window, t):
        clean = scheduler.step(guided(window, t), t, window).pred_original_sample
        return pipe.vae.decode(clean / pipe.vae.config.scaling_factor).sample

    for index, t in enumerate(scheduler.timesteps):
        windows = [latents[:, :, r : r + 8, c : c + 8].clone() for r, c in corners]
        if index < method.sync_steps:
            anchor = picture(windows[len(windows) // 2 if method.anchor == "middle" else 0], t).detach()
            for i, window in enumerate(windows):
                x = window.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(method.distance(picture(x, t), anchor).sum(), x)
                windows[i] = window - method.weight * method.decay**index * gradient
        total, count = torch.zeros_like(latents), torch.zeros_like(latents)
        for (r, c), window in zip(corners, windows, strict=True):
            with torch.no_grad():
                stepped = scheduler.step(guided(window, t), t, window).prev_sample
            total[:, :, r : r + 8, c : c + 8] += stepped
            count[:, :, r : r + 8, c : c + 8] += 1
        latents = total / count
    return latents


def fast(pipe, prompt, seed, size, method):
    options = {"num_inference_steps": STEPS, "guidance_scale": W, "output_type": "latent"}
    options |= {"height": 4 * size, "width": 4 * size, "generator": torch.Generator().manual_seed(seed)}
    with method.enable(pipe, height=4 * size, width=4 * size):
        return pipe(prompt, **options).images


@pytest.mark.parametrize(
    "change", [{}, {"sync_steps": 2}, {"anchor": "first"}, {"window_batch": 3}, {"weight": 500.0, "decay": 0.5}]
)
def test_it_is_the_papers_algorithm(pipe, change):
    method = replace(METHOD, weight=200.0, **{k: v for k, v in change.items() if k != "weight"})
    method = replace(method, weight=change.get("weight", 200.0))
    pipe.unet.requires_grad_(False)
    expected = slow_syncdiffusion(pipe, "a b", 5, 16, method)
    torch.testing.assert_close(fast(pipe, "a b", 5, 16, method), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, fast(pipe, "a b", 5, 16, MultiDiffusion(stride=4)), atol=1e-3)


def draw(pipe, method, size=(64, 64), guidance_scale=W):
    return method.generate(pipe, Request(["a", "b"], [1, 2], *size, Sampler(3, guidance_scale)))


@pytest.mark.parametrize("change", [{"weight": 0.0}, {"sync_steps": 0}])
def test_without_weight_it_is_multidiffusion_exactly(pipe, change):
    assert np.array_equal(draw(pipe, replace(METHOD, **change)), draw(pipe, MultiDiffusion(stride=4)))


def test_one_window_is_direct_exactly(pipe):
    assert np.array_equal(draw(pipe, METHOD, (32, 32)), draw(pipe, Direct(), (32, 32)))


@pytest.mark.parametrize("change", [{"weight": 900.0}, {"decay": 0.1}, {"sync_steps": 1}, {"anchor": "first"}])
def test_every_option_changes_the_picture(pipe, change):
    base = replace(METHOD, weight=600.0)
    assert not np.array_equal(draw(pipe, base), draw(pipe, replace(base, **change)))


def test_each_prompt_is_synchronised_by_itself_and_without_guidance_too(pipe):
    method = replace(METHOD, weight=300.0)
    for scale in (W, 1.0):
        together = draw(pipe, method, guidance_scale=scale)
        alone = method.generate(pipe, Request(["b"], [2], 64, 64, Sampler(3, scale)))
        assert np.abs(together[1:].astype(int) - alone).max() <= 2


def test_no_forward_pass_is_made_twice(pipe):
    """Four windows of one prompt: the anchor once, the three others before and after their step; then all four."""
    sizes = []
    hook = pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    fast(pipe, "a", 1, 16, replace(METHOD, stride=8, sync_steps=1))
    hook.remove()
    assert sizes == [2, 6, 6] + [8] * (STEPS - 1)


def test_nothing_stays_behind(pipe):
    before = set(vars(pipe.unet)), set(vars(pipe.scheduler))
    draw(pipe, METHOD)
    assert (set(vars(pipe.unet)), set(vars(pipe.scheduler)) - {"timesteps", "num_inference_steps"}) == (
        before[0],
        before[1] - {"timesteps", "num_inference_steps"},
    )
    assert all(parameter.grad is None for parameter in pipe.unet.parameters())


def test_the_scenes_distance_is_one():
    """Zero to itself, positive otherwise, growing with a shift in colour, and differentiable."""
    distance = SceneDistance()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(distance(x, x), torch.zeros(2))
    near, far = distance(x, x * 0.9), distance(x, x * 0.5)
    assert (far > near).all()
    assert (near > 0).all()
    x.requires_grad_()
    distance(x, x.detach() * 0.5).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_pipeline_in_half_precision_has_its_distance_in_float32(pipe):
    """As a network of perceptual features is; bfloat16 changes the pictures little."""
    seen = []

    def distance(pictures, others):
        seen.extend({pictures.dtype, others.dtype})
        return (pictures - others).square().sum((1, 2, 3))

    method = SyncDiffusion(stride=4, distance=distance, weight=1.0)
    images = []
    for dtype in (torch.float32, torch.bfloat16):
        images.append(method.generate(pipe.to(dtype), Request(["a"], [1], 64, 64, Sampler(3, 4.0)))[0].astype(int))
    assert set(seen) == {torch.float32}
    assert np.abs(images[0] - images[1]).mean() < 5


def test_what_does_not_fit_is_refused(pipe, monkeypatch):
    with pytest.raises(ValueError, match="middle or first"):
        SyncDiffusion(anchor="last")
    with pytest.raises(ValueError, match="at least 0"):
        SyncDiffusion(weight=-1)
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    lpips_vgg.cache_clear()
    with pytest.raises(ValueError, match="pip install lpips"):
        SyncDiffusion().describe(pipe, 64, 64)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="DDIMScheduler.from_config"):
        METHOD.describe(pipe, 64, 64)
