"""Tiled decoding against decoding at once: the scenes model's trained autoencoder, and Stable Diffusion's, narrow."""

import pytest
import torch
from accelerate import cpu_offload
from diffusers import AutoencoderKL
from torch import nn

from experiments.scenes import WEIGHTS
from experiments.scenes.renderer.scene import render_all, sample_scenes
from scalecrafter.decode import split_into_tiles, tiled_decoding
from tests.tiny import tiny_vae


@pytest.fixture(scope="module")
def scenes_vae():
    return AutoencoderKL.from_pretrained(WEIGHTS, subfolder="vae", torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def latents(scenes_vae):
    images = torch.from_numpy(render_all(sample_scenes(2, 5), 128, 96)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        return scenes_vae.encode(images).latent_dist.mean


@torch.no_grad()
def decoded(vae, latents):
    return vae.decode(latents).sample


def levels(difference: torch.Tensor) -> float:
    """Largest difference on a scale of 0 to 255."""
    return 127.5 * difference.abs().max().item()


def test_tiles_have_no_seam_and_no_shift_in_tone(scenes_vae, latents):
    """Whereas diffusers' tiles, blended over a quarter, are off by dozens of levels."""
    whole = decoded(scenes_vae, latents)
    with tiled_decoding(scenes_vae, tile_size=12):
        tiled = decoded(scenes_vae, latents)
    assert not torch.equal(tiled, whole)
    assert levels(tiled - whole) <= 0.5
    scenes_vae.enable_tiling()
    blended = decoded(scenes_vae, latents)
    scenes_vae.disable_tiling()
    assert levels(blended - whole) > 20


def test_overlap_covers_the_receptive_field_of_stable_diffusions_decoder():
    """Three resnets at each of four levels, random weights, the second of two samples with higher contrast."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        norm_num_groups=4,
    ).eval()
    latents = torch.randn(2, 4, 40, 26) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    whole = decoded(vae, latents)
    with tiled_decoding(vae, tile_size=20):
        assert (decoded(vae, latents) - whole).abs().max() < 1e-3 * whole.abs().max()
    with tiled_decoding(vae, tile_size=20, overlap=4):
        assert (decoded(vae, latents) - whole).abs().max() > 1e-3 * whole.abs().max()


def test_decoder_is_restored_bit_for_bit(scenes_vae, latents):
    whole = decoded(scenes_vae, latents)
    with tiled_decoding(scenes_vae, tile_size=12):
        decoded(scenes_vae, latents)
    with pytest.raises(ZeroDivisionError), tiled_decoding(scenes_vae):
        1 / 0  # noqa: B018
    assert torch.equal(decoded(scenes_vae, latents), whole)
    assert not any("forward" in vars(module) for module in scenes_vae.decoder.modules())


@pytest.mark.parametrize("part", ["vae", "decoder"])
def test_offloading_hooks_keep_running_and_stay(part):
    """accelerate replaces the forward of hooked modules, here of every layer and of the root of ``part``."""
    torch.manual_seed(0)
    vae, latents = tiny_vae().eval(), torch.randn(1, 4, 20, 12)
    whole = decoded(vae, latents)
    cpu_offload(vae if part == "vae" else vae.decoder, execution_device=torch.device("cpu"))
    hooked = {name: (vars(module).get("forward"), vars(module).get("_old_forward")) for name, module in modules(vae)}
    with tiled_decoding(vae, tile_size=8):
        torch.testing.assert_close(decoded(vae, latents), whole, atol=1e-5, rtol=1e-5)
    assert {parameter.device.type for parameter in vae.decoder.parameters()} == {"meta"}
    assert hooked == {
        name: (vars(module).get("forward"), vars(module).get("_old_forward")) for name, module in modules(vae)
    }
    assert torch.equal(decoded(vae, latents), whole)


def modules(vae):
    return list(vae.named_modules())


def test_single_tile_is_decoded_as_a_whole(scenes_vae, latents):
    whole = decoded(scenes_vae, latents)
    with tiled_decoding(scenes_vae):
        assert torch.equal(decoded(scenes_vae, latents), whole)


def test_tiles_cover_the_latent_once_and_overlap():
    seen = torch.zeros(50, 33)
    for tile in split_into_tiles(50, 33, 16, 3):
        seen[tile.inner] += 1
        for inner, outer, length in zip(tile.inner, tile.outer, (50, 33), strict=True):
            assert outer.start == max(0, inner.start - 3)
            assert outer.stop == min(length, inner.stop + 3)
    assert seen.unique().tolist() == [1.0]


def test_invalid_options_and_unsupported_decoders_raise(scenes_vae):
    for options in ({"tile_size": 0}, {"overlap": -1}):
        with pytest.raises(ValueError, match="tile_size must be at least 1"), tiled_decoding(scenes_vae, **options):
            pass
    vae = tiny_vae()
    vae.decoder.conv_norm_out = nn.BatchNorm2d(4)
    with pytest.raises(ValueError, match=r"group normalisation only.*BatchNorm2d"), tiled_decoding(vae):
        pass
