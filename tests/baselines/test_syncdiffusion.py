"""SyncDiffusion against the paper's algorithm with autograd on one window at a time."""

from dataclasses import replace
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from baselines.cascade.images import precise
from baselines.clean_images import recomputed, window_gradient
from baselines.direct import Direct
from baselines.lpips import lpips_vgg
from baselines.method import Request, Sampler
from baselines.multidiffusion import MultiDiffusion
from baselines.syncdiffusion import SyncDiffusion
from baselines.windows import Windows
from experiments.scenes.scene_features import SceneDistance
from tests.tiny import generate, tiny_sdxl_pipeline, unet_inputs


def squared(images, others):
    """A distance without a network."""
    return (images - others).square().mean((1, 2, 3))


METHOD = SyncDiffusion(stride=4, distance=squared)
W, STEPS = 4.0, 4


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
    "change",
    [
        {"stride": 8},
        {"stride": 8, "sync_steps": 2, "anchor": "first"},
        {"window_batch": 3, "weight": 500.0, "decay": 0.5},
        {"stride": 8, "prediction_type": "v_prediction"},
    ],
)
def test_latents_equal_the_papers_algorithm(pipe, change):
    kind = change.get("prediction_type", "epsilon")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    method = replace(METHOD, **({"weight": 200.0} | {k: v for k, v in change.items() if k != "prediction_type"}))
    pipe.unet.requires_grad_(False)
    expected = slow_syncdiffusion(pipe, "a b", 5, 16, method)
    torch.testing.assert_close(fast(pipe, "a b", 5, 16, method), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, fast(pipe, "a b", 5, 16, MultiDiffusion(stride=method.stride)), atol=1e-3)


def test_without_weight_or_steps_it_equals_multidiffusion_exactly(pipe):
    expected = generate(MultiDiffusion(stride=4), pipe)
    for change in ({"weight": 0.0}, {"sync_steps": 0}):
        assert np.array_equal(generate(replace(METHOD, **change), pipe), expected)


def test_single_window_equals_direct_exactly(pipe):
    assert np.array_equal(generate(METHOD, pipe, size=(32, 32)), generate(Direct(), pipe, size=(32, 32)))


def test_every_option_changes_the_image(pipe):
    method = replace(METHOD, stride=8, weight=600.0)
    base = generate(method, pipe)
    for change in ({"weight": 900.0}, {"decay": 0.1}, {"sync_steps": 1}, {"anchor": "first"}):
        assert not np.array_equal(generate(replace(method, **change), pipe), base), change


def test_each_prompt_is_synchronised_separately_without_guidance(pipe):
    """The contract's tests sample with guidance."""
    method = replace(METHOD, stride=8, weight=300.0)
    together, alone = (generate(method, pipe, seeds, guidance_scale=1.0) for seeds in ([1, 2], [2]))
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

    method = SyncDiffusion(stride=4, distance=distance, weight=1.0)
    images = []
    for dtype in (torch.float32, torch.bfloat16):
        images.append(generate(method, pipe.to(dtype), [1])[0].astype(int))
    assert set(seen) == {torch.float32}
    assert np.abs(images[0] - images[1]).mean() < 5


@pytest.fixture
def sdxl(tmp_path):
    """A tiny SDXL pipeline ready for calls of its parts."""
    made = tiny_sdxl_pipeline(tmp_path / "tokenizer")
    made.scheduler.set_timesteps(STEPS)
    made._guidance_scale = W
    made.unet.requires_grad_(False)
    return made


def inputs_of(sdxl, dtype=torch.float32):
    """Latents of two windows, and their predictor, which guidance doubles."""
    fixed = unet_inputs(sdxl, batch=2)
    latents = [part[:1, :, :8, :8].to(dtype) for part in fixed.pop("sample").split(1)]
    text, added = fixed["encoder_hidden_states"].to(dtype), fixed["added_cond_kwargs"]
    added = {key: value.to(dtype) for key, value in added.items()}

    def predict(pair):
        return sdxl.unet(pair, 501, text.to(pair), added_cond_kwargs=added).sample

    return latents, predict


def plain_gradient(sdxl, latents, predict, loss):
    """Autograd through everything at once, for all windows together, keeping every activation."""
    windows = [latent.detach().requires_grad_() for latent in latents]
    alpha = sdxl.scheduler.alphas_cumprod[501]
    total = 0
    for window in windows:
        uncond, cond = predict(torch.cat([window] * 2)).chunk(2)
        noise = uncond + W * (cond - uncond)
        clean = (window - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        total = total + loss(sdxl.vae.decode(clean / sdxl.vae.config.scaling_factor).sample.float()).sum()
    return torch.autograd.grad(total, windows)


def test_gradients_on_sdxl_equal_autograd_through_everything_at_once(sdxl):
    latents, predict = inputs_of(sdxl)
    loss = lambda images: (images - 0.3).square().mean((1, 2, 3))  # noqa: E731
    expected = plain_gradient(sdxl, latents, predict, loss)
    assert all(each.abs().max() > 1e-5 for each in expected)
    for latent, each in zip(latents, expected, strict=True):
        tolerance = {"atol": 1e-5 * each.abs().max().item(), "rtol": 1e-4}
        torch.testing.assert_close(window_gradient(sdxl, predict, loss, latent, 2, 501), each, **tolerance)
        with recomputed(sdxl):
            found = window_gradient(sdxl, predict, loss, latent, 2, 501)
        torch.testing.assert_close(found, each, **tolerance)


def test_blocks_are_run_again_instead_of_kept(sdxl):
    """Bytes that autograd keeps for the way back, without weights; and the models are as they were."""
    latents, predict = inputs_of(sdxl)
    weights = {tensor.untyped_storage().data_ptr() for part in (sdxl.unet, sdxl.vae) for tensor in part.parameters()}

    def kept():
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            start = latents[0].detach().requires_grad_()
            sdxl.vae.decode(predict(torch.cat([start] * 2))[:1]).sample.sum()
        return sum(size for place, size in sizes.items() if place not in weights)

    before = [vars(module).copy() for part in (sdxl.unet, sdxl.vae) for module in part.modules()]
    whole = kept()
    with recomputed(sdxl):
        less = kept()
    assert less < 0.5 * whole
    after = [vars(module) for part in (sdxl.unet, sdxl.vae) for module in part.modules()]
    assert [each.keys() for each in after] == [each.keys() for each in before]


def test_sdxls_autoencoder_is_in_float32_while_it_is_needed(sdxl):
    """As the pipeline itself decodes, and only if the autoencoder's configuration asks for it."""
    sdxl.to(torch.float16)
    types = []
    hook = sdxl.vae.decoder.conv_in.register_forward_pre_hook(lambda module, args: types.append(args[0].dtype))
    image = generate(replace(METHOD, stride=8, sync_steps=1), sdxl, [1])
    hook.remove()
    assert image.shape == (1, 64, 64, 3)
    assert set(types) == {torch.float32}
    assert len(types) == 1 + 3 + 1  # the anchor, three windows, and the pipeline's own decoding
    assert {sdxl.vae.dtype, sdxl.unet.dtype} == {torch.float16}
    types.clear()
    sdxl.vae.register_to_config(force_upcast=False)
    hook = sdxl.vae.decoder.conv_in.register_forward_pre_hook(lambda module, args: types.append(args[0].dtype))
    generate(replace(METHOD, stride=8, sync_steps=1), sdxl, [1])
    hook.remove()
    assert set(types) == {torch.float16}


def test_small_gradients_survive_half_precision(sdxl):
    """A distance whose gradient by the latent is below the smallest number of float16."""
    loss = lambda images: 1e-7 * (images - 0.3).square().mean((1, 2, 3))  # noqa: E731
    latents, predict = inputs_of(sdxl)
    (expected, _) = plain_gradient(sdxl, latents, predict, loss)
    assert expected.abs().max() < 6e-8
    sdxl.to(torch.float16)
    latents, predict = inputs_of(sdxl, torch.float16)
    with precise(sdxl):
        found = window_gradient(sdxl, predict, loss, latents[0], 2, 501)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_windows_are_differentiated_one_at_a_time(pipe):
    """Whatever the number of windows per call."""
    for window_batch in (1, 8):
        method = replace(METHOD, stride=4, window_batch=window_batch)
        request = Request(["a", "b"], [1, 2], 64, 64, Sampler(2, 4.0))
        (found,) = {(each.times, each.samples) for each in method.calls(pipe, request) if each.differentiated}
        assert found == (2 * 8, 4)


def test_large_windows_are_recomputed_unless_told_otherwise(pipe):
    request = Request(["a"], [1], 64, 64, Sampler(2, 4.0))

    def kind(**change):
        (found,) = {each.differentiated for each in replace(METHOD, **change).calls(pipe, request)} - {None}
        return found

    assert [kind(), kind(recompute=True), kind(recompute=False)] == ["kept", "recomputed", "kept"]
    large = [Windows.cover(256, 256, side, side, (32, 32), False) for side in (64, 96, 128)]
    assert [METHOD.recomputes(windows) for windows in large] == [False, False, True]


def test_recomputing_keeps_the_image(pipe):
    method = replace(METHOD, stride=8, weight=600.0)
    images = [generate(replace(method, recompute=each), pipe).astype(int) for each in (False, True)]
    assert np.abs(images[0] - images[1]).max() <= 1


@pytest.fixture
def random_vgg(monkeypatch):
    """torchvision loads random VGG16 weights instead of the published ones."""
    torch.manual_seed(0)
    weights = torchvision.models.vgg16(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: weights)
    lpips_vgg.cache_clear()
    yield
    lpips_vgg.cache_clear()


def test_lpips_equals_torchmetrics_for_each_sample(random_vgg):
    """Values and gradients; values slightly outside [-1, 1], as decoded predictions have, are accepted."""
    reference = LearnedPerceptualImagePatchSimilarity(net_type="vgg")
    distance = lpips_vgg(torch.device("cpu"))
    images, others = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images.requires_grad_()
    distances = distance(images, others)
    assert distances.shape == (3,)
    (gradient,) = torch.autograd.grad(distances.sum(), images)
    for i in range(3):
        one = images[i : i + 1].detach().requires_grad_()
        expected = reference(one, others[i : i + 1])
        torch.testing.assert_close(distances[i], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(gradient[i : i + 1], *torch.autograd.grad(expected, one), atol=1e-6, rtol=1e-4)
    assert gradient.abs().max() > 1e-4
    assert distance(images[:1] * 1.1, others[:1]).shape == (1,)


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
