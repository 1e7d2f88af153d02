"""Gradients of SyncDiffusion's windows: those of autograd, in less memory, in half precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.cascade.images import precise
from baselines.clean_images import recomputed, window_gradient
from baselines.method import Request, Sampler
from baselines.windows import Windows
from tests.baselines.test_syncdiffusion import METHOD, STEPS, W
from tests.tiny import generate, tiny_sdxl_pipeline, unet_inputs


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
    images = [generate(replace(method, recompute=each), pipe, [1]).astype(int) for each in (False, True)]
    assert np.abs(images[0] - images[1]).max() <= 1
