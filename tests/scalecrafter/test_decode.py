"""Tiled decoding against decoding at once: the scenes model's trained autoencoder, and Stable Diffusion's, narrow."""

import math

import pytest
import torch
from accelerate import cpu_offload
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.cost.counting import ELSEWHERE, HeldMemory
from experiments.scenes import WEIGHTS
from experiments.scenes.renderer.scene import render_all, sample_scenes
from experiments.setup.architecture import fake
from scalecrafter.decode import tiled_decoding
from scalecrafter.tiles import split_into_tiles
from tests.tiny import tiny_sdxl_pipeline, tiny_vae


@pytest.fixture(scope="module")
def scenes_vae():
    return AutoencoderKL.from_pretrained(WEIGHTS, subfolder="vae", torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def latents(scenes_vae):
    images = torch.from_numpy(render_all(sample_scenes(1, 5), 192, 160)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        return scenes_vae.encode(images).latent_dist.mean


def narrow_vae(layers=2, levels=4):
    """Stable Diffusion's autoencoder with 8 to 16 channels: three resnets at each of four levels unless there are
    fewer ``layers`` or ``levels``, random weights.
    """
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8, 16, 16, 16)[:levels],
        layers_per_block=layers,
        norm_num_groups=4,
    ).eval()


@pytest.fixture
def contrasts():
    """(2, 4, 40, 26) latents for ``narrow_vae``, the second of two samples with higher contrast."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 40, 26, generator=generator) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)


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
    assert levels(tiled - whole) <= 0.01
    scenes_vae.enable_tiling()
    blended = decoded(scenes_vae, latents)
    scenes_vae.disable_tiling()
    assert levels(blended - whole) > 20


def test_stable_diffusions_decoder_gives_the_same_with_little_more_work(contrasts):
    """Tiles that do not divide the latent."""
    vae, contrasts = narrow_vae(), contrasts[..., :22, :13]
    with FlopCounterMode(display=False) as at_once:
        whole = decoded(vae, contrasts)
    with tiled_decoding(vae, tile_size=9), FlopCounterMode(display=False) as in_tiles:
        tiled = decoded(vae, contrasts)
    assert not torch.equal(tiled, whole)
    torch.testing.assert_close(tiled, whole, atol=1e-4 * whole.abs().max().item(), rtol=0)
    assert 1 < in_tiles.get_total_flops() / at_once.get_total_flops() < 1.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_precisions_are_as_exact_as_decoding_at_once(contrasts, dtype):
    latents = contrasts[..., :14, :10]
    exact = decoded(narrow_vae().double(), latents.double())
    vae, latents = narrow_vae().to(dtype), latents.to(dtype)
    whole = decoded(vae, latents)
    with tiled_decoding(vae, tile_size=8):
        tiled = decoded(vae, latents)
    assert tiled.dtype == dtype
    at_once, in_tiles = ((image - exact).abs().mean().item() for image in (whole, tiled))
    assert in_tiles <= 1.1 * at_once + 1e-12


def test_sdxls_decoder_in_float32_below_a_pipeline_in_float16(tmp_path):
    """The pipeline converts the autoencoder while it decodes in tiles, and back."""
    pipe = tiny_sdxl_pipeline(tmp_path).to(torch.float16)
    assert pipe.vae.config.force_upcast
    options = {"height": 96, "width": 64, "num_inference_steps": 1, "output_type": "np"}
    images = []
    for tile_size in (128, 8):
        with tiled_decoding(pipe.vae, tile_size=tile_size):
            images.append(torch.from_numpy(pipe("a", **options, generator=torch.Generator().manual_seed(0)).images))
    assert pipe.vae.dtype == torch.float16
    assert not torch.equal(*images)
    torch.testing.assert_close(*images, atol=1e-5, rtol=0)


def test_a_convolution_never_sees_more_than_a_tile_with_its_halo(contrasts):
    vae, seen = narrow_vae(), []
    for name, module in vae.decoder.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith(("up_blocks", "conv_out")):
            module.register_forward_hook(lambda module, args, output: seen.append((args[0].shape, output.shape)))
    with tiled_decoding(vae, tile_size=10):
        decoded(vae, contrasts)
    tiles = math.ceil(40 / 10) * math.ceil(26 / 10)
    convolutions = sum(isinstance(each, nn.Conv2d) for each in vae.decoder.up_blocks.modules()) + 1
    assert len(seen) == tiles * convolutions
    assert max(max(shape[-2:]) for shapes in seen for shape in shapes) <= 10 * 8 + 4


def memory(vae, height, tile_size, storage="cpu"):
    """Peak bytes on the device while a (1, 4, height, 32) latent is decoded; those that are ELSEWHERE do not count."""
    with fake, torch.no_grad(), tiled_decoding(vae, tile_size=tile_size, storage=storage), HeldMemory() as held:
        vae.decode(torch.zeros(1, 4, height, 32))
    return held.most


def test_memory_is_that_of_a_tile_where_the_maps_are_kept_elsewhere():
    """Eight tiles, with the memory of decoding two of them at once and the image."""
    with fake:
        vae = narrow_vae(layers=1, levels=3)
    two_tiles, image = memory(vae, 16, tile_size=32), 4 * 3 * (64 * 4) * (32 * 4)
    assert memory(vae, 64, 16, ELSEWHERE) < two_tiles + image < memory(vae, 64, 16)
    assert memory(vae, 64, tile_size=64) > 3 * (two_tiles + image)


def test_latents_that_require_a_gradient_are_decoded_at_once(contrasts):
    vae, gradients = narrow_vae(), []
    for tile_size in (128, 10):
        latents = contrasts[..., :16, :12].clone().requires_grad_()
        with tiled_decoding(vae, tile_size=tile_size):
            vae.decode(latents).sample.square().sum().backward()
        gradients.append(latents.grad)
    assert torch.equal(*gradients)


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
    with pytest.raises(ValueError, match="tile_size must be at least 1"), tiled_decoding(scenes_vae, tile_size=0):
        pass
    batch, attention, wrapped, offloaded = (tiny_vae() for _ in range(4))
    batch.decoder.conv_norm_out = nn.BatchNorm2d(4)
    attention.decoder.up_blocks[0] = attention.decoder.mid_block
    wrapped.decoder.conv_out.padding_mode = "circular"
    offloaded.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    unsupported = {"BatchNorm2d": batch, "UNetMidBlock2D": attention, "circular padding": wrapped}
    unsupported |= {"group offloading": offloaded, "DecoderTiny": AutoencoderTiny()}
    for name, vae in unsupported.items():
        with pytest.raises(ValueError, match=rf"group normalisation only.*{name}"), tiled_decoding(vae):
            pass
