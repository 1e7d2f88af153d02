"""Recorded cross-attention against the probabilities of diffusers' plain attention."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from baselines.patches.attention_maps import Maps, cross_attentions, recorded
from experiments.setup.architecture import load_architecture
from experiments.setup.models import ModelSource
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline, unet_inputs


@pytest.fixture
def pipe(tmp_path):
    return tiny_pipeline(tmp_path, "sd15")


@pytest.fixture(params=["sd15", "sdxl"])
def made(request, tmp_path):
    return tiny_sdxl_pipeline(tmp_path) if request.param == "sdxl" else tiny_pipeline(tmp_path, request.param)


@torch.no_grad()
def test_maps_are_the_mean_over_heads_layers_and_calls(made, monkeypatch):
    unet, level = made.unet, 1
    attentions = cross_attentions(unet, level)
    before = {name: set(vars(module)) for name, module in unet.named_modules()}
    maps = Maps(1)
    with recorded(maps, attentions):
        outputs = [unet(timestep=t, **unet_inputs(made)).sample for t in (900, 100)]
    assert {name: set(vars(module)) for name, module in unet.named_modules()} == before
    assert not any(module._forward_hooks for module in unet.modules())
    found = maps.mean(8, 8)
    assert found.shape == (1, 5, 8, 8)

    unet.set_attn_processor(AttnProcessor())
    seen = []
    for attention in attentions:
        scores = attention.get_attention_scores
        monkeypatch.setattr(
            attention, "get_attention_scores", lambda *args, scores=scores: seen.append(scores(*args)) or seen[-1]
        )
    for t, output in zip((900, 100), outputs, strict=True):
        torch.testing.assert_close(unet(timestep=t, **unet_inputs(made)).sample, output, atol=1e-5, rtol=1e-5)
    heads = attentions[0].heads
    assert len(seen) == 2 * len(attentions)
    expected = torch.stack([probabilities[heads:].mean(0) for probabilities in seen]).mean(0)
    torch.testing.assert_close(found[0].flatten(1).T, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 8, 8))


@pytest.mark.parametrize(("family", "count"), [pytest.param("sd15", 40, marks=pytest.mark.slow), ("sdxl", 1000)])
def test_number_of_maps(family, count):
    """Heads of all layers, as many as the public code averages."""
    attentions = cross_attentions(load_architecture(ModelSource(family)).unet, 2)
    assert sum(attention.heads for attention in attentions) == count


def test_levels_without_attention_and_fused_projections_raise(pipe):
    for level in (3, 4, -1):
        with pytest.raises(ValueError, match=f"attention_level={level}: choose one of 0, 1, 2"):
            cross_attentions(pipe.unet, level)
    pipe.unet.fuse_qkv_projections()
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        cross_attentions(pipe.unet, 1)
