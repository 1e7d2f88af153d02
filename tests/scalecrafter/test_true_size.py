"""Models at their true size, with random weights: a re-dilated call within a machine's memory, a decoder in tiles."""

import resource
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline

import scalecrafter
from experiments.cost.counting import unet_inputs
from experiments.setup.architecture import load_architecture
from experiments.setup.config import compose_config, model_source
from scalecrafter.decode import tiled_decoding


@pytest.fixture(scope="module")
def pipe():
    shape = load_architecture(model_source(dict(compose_config(["model=sd15", "model.dtype=float32"]).model))).pipe
    torch.manual_seed(0)
    unet = type(shape.unet).from_config(shape.unet.config).eval().to(memory_format=torch.channels_last)
    parts = {"vae": None, "text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    return StableDiffusionPipeline(unet=unet, scheduler=shape.scheduler, **parts, requires_safety_checker=False)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1024, 2048])
@torch.no_grad()
def test_a_redilated_call_fits_into_24_gb(pipe, side):
    inputs = unet_inputs(pipe.unet, 1, side // 8, side // 8, 77)
    settings = f"sd15_x{(side // 512) ** 2}"
    plain = scalecrafter.load_settings(settings)
    with scalecrafter.enable(pipe, height=side, width=side, settings=without_damping(plain)):
        found = pipe.unet(**inputs, timestep=981).sample
    assert found.shape == inputs["sample"].shape
    assert found.isfinite().all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 24e9


def without_damping(settings):
    """Of a single sample there is no guidance pair to damp."""
    return replace(settings, noise_damped_tau=0)


@pytest.mark.slow
@torch.no_grad()
def test_sdxls_decoder_in_tiles_has_no_seam():
    """512x256 pixels in two tiles that do not see the whole, against decoding at once; on a scale of 0 to 255."""
    shape = load_architecture(model_source(dict(compose_config(["model=sdxl", "model.dtype=float32"]).model))).pipe.vae
    torch.manual_seed(0)
    vae = type(shape).from_config(shape.config).eval()
    latents = torch.randn(1, 4, 64, 32)
    whole = vae.decode(latents).sample
    with tiled_decoding(vae, tile=40):
        tiled = vae.decode(latents).sample
    assert not torch.equal(tiled, whole)
    assert 127.5 * (tiled - whole).abs().max() / whole.abs().max() < 3
