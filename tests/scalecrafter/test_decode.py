"""Tiled decoding against decoding at once: scenes' trained autoencoder, and Stable Diffusion's at small width."""

import pytest
import torch
from diffusers import AutoencoderKL

from experiments.scenes.render import render_all, sample_scenes
from experiments.setup.models import ModelSource, load_model
from scalecrafter.decode import boxes, tiled_decoding


@pytest.fixture(scope="module")
def scenes_vae():
    return load_model(ModelSource("scenes", dtype="float32")).pipe.vae


@pytest.fixture(scope="module")
def latents(scenes_vae):
    pictures = torch.from_numpy(render_all(sample_scenes(2, 5), 128, 96)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        return scenes_vae.encode(pictures).latent_dist.mean


def levels(difference: torch.Tensor) -> float:
    """Largest difference on the scale of 0 to 255."""
    return 127.5 * difference.abs().max().item()


@torch.no_grad()
def test_no_seam_and_no_other_tone(scenes_vae, latents):
    """Where diffusers' own tiles, blended over a quarter, are off by dozens of levels."""
    whole = scenes_vae.decode(latents).sample
    with tiled_decoding(scenes_vae, tile=12):
        tiled = scenes_vae.decode(latents).sample
    assert not torch.equal(tiled, whole)
    assert levels(tiled - whole) <= 0.5
    scenes_vae.enable_tiling()
    blended = scenes_vae.decode(latents).sample
    scenes_vae.disable_tiling()
    assert levels(blended - whole) > 20


@torch.no_grad()
def test_stable_diffusions_decoder_with_its_reach():
    """Three resnets at each of four levels, random weights, one sample of two with another contrast."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        norm_num_groups=4,
    ).eval()
    latents = torch.randn(2, 4, 40, 26) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    whole = vae.decode(latents).sample
    with tiled_decoding(vae, tile=20):
        assert (vae.decode(latents).sample - whole).abs().max() < 1e-3 * whole.abs().max()
    with tiled_decoding(vae, tile=20, reach=4):
        assert (vae.decode(latents).sample - whole).abs().max() > 1e-3 * whole.abs().max()


@torch.no_grad()
def test_leaving_restores_the_decoder_bit_for_bit(scenes_vae, latents):
    whole = scenes_vae.decode(latents).sample
    with tiled_decoding(scenes_vae, tile=12):
        scenes_vae.decode(latents)
    with pytest.raises(ZeroDivisionError), tiled_decoding(scenes_vae):
        1 / 0  # noqa: B018
    assert torch.equal(scenes_vae.decode(latents).sample, whole)
    assert "forward" not in vars(scenes_vae.decoder)
    assert not any("forward" in vars(module) for module in scenes_vae.decoder.modules())


@torch.no_grad()
def test_a_picture_of_one_tile_is_decoded_as_ever(scenes_vae, latents):
    whole = scenes_vae.decode(latents).sample
    with tiled_decoding(scenes_vae):
        assert torch.equal(scenes_vae.decode(latents).sample, whole)


def test_boxes_cover_the_map_once_and_reach_beyond():
    seen = torch.zeros(50, 33)
    for box in boxes(50, 33, 16, 3):
        seen[box.inner] += 1
        for inner, outer, length in zip(box.inner, box.outer, (50, 33), strict=True):
            assert outer.start == max(0, inner.start - 3)
            assert outer.stop == min(length, inner.stop + 3)
    assert seen.unique().tolist() == [1.0]


def test_what_cannot_be_tiled_is_said(scenes_vae):
    for options in ({"tile": 0}, {"reach": -1}):
        with pytest.raises(ValueError, match="a tile has at least one cell"), tiled_decoding(scenes_vae, **options):
            pass
