"""Models at full size with random weights: the memory of a re-dilated call, and a decoder in tiles."""

import resource
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline

import scalecrafter
from experiments.setup.architecture import load_architecture
from experiments.setup.models import ModelSource
from scalecrafter.decode import tiled_decoding


@pytest.fixture(scope="module")
def pipe():
    shape = load_architecture(ModelSource("sd15", dtype="float32"))
    torch.manual_seed(0)
    unet = type(shape.unet).from_config(shape.unet.config).eval().to(memory_format=torch.channels_last)
    parts = {"vae": None, "text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    return StableDiffusionPipeline(unet=unet, scheduler=shape.scheduler, **parts, requires_safety_checker=False)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1024, 2048])
@torch.no_grad()
def test_redilated_call_fits_into_24_gb(pipe, side):
    sample, text = torch.randn(1, 4, side // 8, side // 8), torch.randn(1, 77, 768)
    settings = f"sd15_x{(side // 512) ** 2}"
    plain = scalecrafter.Settings.load(settings)
    with scalecrafter.enable(pipe, height=side, width=side, settings=without_damping(plain)):
        prediction = pipe.unet(sample, 981, text).sample
    assert prediction.shape == sample.shape
    assert prediction.isfinite().all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 24e9


def without_damping(settings):
    """A single sample has no guidance pair to damp."""
    return replace(settings, noise_damped_tau=0)


@pytest.mark.slow
@torch.no_grad()
def test_tiles_of_sdxls_decoder_have_no_seam():
    """512x256 pixels in two tiles, each smaller than the image, against decoding at once; on a scale of 0 to 255."""
    shape = load_architecture(ModelSource("sdxl", dtype="float32")).vae
    torch.manual_seed(0)
    vae = type(shape).from_config(shape.config).eval()
    latents = torch.randn(1, 4, 64, 32)
    whole = vae.decode(latents).sample
    with tiled_decoding(vae, tile_size=40):
        tiled = vae.decode(latents).sample
    assert not torch.equal(tiled, whole)
    assert 127.5 * (tiled - whole).abs().max() / whole.abs().max() < 0.05
