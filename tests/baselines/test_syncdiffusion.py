"""SyncDiffusion against the paper's algorithm with autograd on one window at a time."""

from dataclasses import replace
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from baselines.direct import Direct
from baselines.lpips import lpips_vgg
from baselines.multidiffusion import MultiDiffusion
from baselines.syncdiffusion import SyncDiffusion
from experiments.scenes.scene_features import SceneDistance
from tests.tiny import generate


def squared(images, others):
    """A distance without a network."""
    return (images - others).square().mean((1, 2, 3))


METHOD = SyncDiffusion(stride=4, distance=squared)
W, STEPS = 4.0, 3


def slow_syncdiffusion(pipe, prompt, seed, size, method):
    """The paper's algorithm: gradient step on each window's predicted clean image, DDIM step, average."""
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(seed))
    cond, uncond = pipe.encode_prompt(prompt, "cpu", 1, True)
    text = torch.cat([uncond, cond]).detach()
    corners = [(r, c) for r in range(0, size - 7, method.stride) for c in range(0, size - 7, method.stride)]

    def guided(window, t):
        u, c = pipe.unet(torch.cat([window] * 2), t, text).sample.chunk(2)
        return u + W * (c - u)

    def image(window, t):
        clean = scheduler.step(guided(window, t), t, window).pred_original_sample
        return pipe.vae.decode(clean / pipe.vae.config.scaling_factor).sample

    for index, t in enumerate(scheduler.timesteps):
        windows = [latents[:, :, r : r + 8, c : c + 8].clone() for r, c in corners]
        if index < method.sync_steps:
            anchor = image(windows[len(windows) // 2 if method.anchor == "middle" else 0], t).detach()
            for i, window in enumerate(windows):
                x = window.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(method.distance(image(x, t), anchor).sum(), x)
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
    ("kind", "size", "change"),
    [
        ("epsilon", 16, {"stride": 8}),
        ("v_prediction", 16, {"stride": 8, "sync_steps": 2, "anchor": "first"}),
        ("epsilon", 12, {"window_batch": 3, "weight": 500.0, "decay": 0.5}),
    ],
)
def test_latents_equal_the_papers_algorithm(pipe, kind, size, change):
    """Four windows, apart or half overlapping."""
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    method = replace(METHOD, **({"weight": 200.0} | change))
    pipe.unet.requires_grad_(False)
    expected = slow_syncdiffusion(pipe, "a b", 5, size, method)
    torch.testing.assert_close(fast(pipe, "a b", 5, size, method), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, fast(pipe, "a b", 5, size, MultiDiffusion(stride=method.stride)), atol=1e-3)


def test_without_weight_or_steps_it_equals_multidiffusion_exactly(pipe):
    expected = generate(MultiDiffusion(stride=4), pipe, steps=2)
    for change in ({"weight": 0.0}, {"sync_steps": 0}):
        assert np.array_equal(generate(replace(METHOD, **change), pipe, steps=2), expected)


def test_single_window_equals_direct_exactly(pipe):
    assert np.array_equal(generate(METHOD, pipe, size=(32, 32)), generate(Direct(), pipe, size=(32, 32)))


def test_every_option_changes_the_image(pipe):
    method = replace(METHOD, stride=8, weight=600.0)
    base = generate(method, pipe, [1], steps=2)
    for change in ({"weight": 900.0}, {"decay": 0.1}, {"sync_steps": 1}, {"anchor": "first"}):
        assert not np.array_equal(generate(replace(method, **change), pipe, [1], steps=2), base), change


def test_each_prompt_is_synchronised_separately_without_guidance(pipe):
    """The contract's tests sample with guidance."""
    method = replace(METHOD, stride=8, weight=300.0)
    together, alone = (generate(method, pipe, seeds, steps=2, guidance_scale=1.0) for seeds in ([1, 2], [2]))
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1


def test_no_prediction_is_made_twice(pipe):
    """Four windows of one prompt: the anchor once, the three others before and after their step; then all four."""
    sizes = []
    hook = pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    fast(pipe, "a", 1, 16, replace(METHOD, stride=8, sync_steps=1))
    hook.remove()
    assert sizes == [2, 2, 2, 2, 6] + [8] * (STEPS - 1)


def test_unet_and_scheduler_are_restored(pipe):
    before = set(vars(pipe.unet)), set(vars(pipe.scheduler))
    generate(replace(METHOD, stride=8), pipe)
    assert (set(vars(pipe.unet)), set(vars(pipe.scheduler)) - {"timesteps", "num_inference_steps"}) == (
        before[0],
        before[1] - {"timesteps", "num_inference_steps"},
    )
    assert all(parameter.grad is None for parameter in pipe.unet.parameters())


def test_scenes_distance_is_a_differentiable_distance():
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


def test_distance_is_computed_in_float32_for_half_precision_pipelines(pipe):
    """Perceptual networks have float32 weights; bfloat16 changes the image little."""
    seen = []

    def distance(images, others):
        seen.extend({images.dtype, others.dtype})
        return (images - others).square().sum((1, 2, 3))

    method = SyncDiffusion(stride=8, distance=distance, weight=1.0)
    images = []
    for dtype in (torch.float32, torch.bfloat16):
        images.append(generate(method, pipe.to(dtype), [1], steps=2)[0].astype(int))
    assert set(seen) == {torch.float32}
    assert np.abs(images[0] - images[1]).mean() < 5


def test_missing_vgg_weights_raise_one_line_and_describe_needs_none(pipe, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    lpips_vgg.cache_clear()
    method = SyncDiffusion(stride=8)
    assert method.describe(pipe, 64, 64)["distance"] == "lpips_vgg"
    with pytest.raises(ValueError, match=r"vgg16-\w+\.pth in .*/checkpoints .*: download https://\S+ on") as caught:
        generate(method, pipe)
    assert "\n" not in str(caught.value)


def test_description_names_the_distance(pipe):
    named = SimpleNamespace(name="mine 1.0")
    assert replace(METHOD, distance=named).describe(pipe, 64, 64)["distance"] == "mine 1.0"
    assert METHOD.describe(pipe, 64, 64)["distance"] == "function"


def test_invalid_options_and_schedulers_raise(pipe):
    with pytest.raises(ValueError, match="middle or first"):
        SyncDiffusion(anchor="last")
    with pytest.raises(ValueError, match="at least 0"):
        SyncDiffusion(weight=-1)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="DDIMScheduler.from_config"):
        METHOD.describe(pipe, 64, 64)
